//! A token bucket: so many a second, a second's worth at once.

use crate::domain::{SECOND, UtcNanos};

/// A budget of `per_second`; 0 = no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    per_second: u32,
    /// The time up to which the budget is used.
    used_until_ns: u64,
}

impl Bucket {
    /// A full budget.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            used_until_ns: 0,
        }
    }

    /// Takes one from the budget, if there is one.
    #[must_use]
    #[inline]
    pub fn take(&mut self, now: UtcNanos) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let cost = SECOND / u64::from(self.per_second);
        let from = self.used_until_ns.max(now.0.saturating_sub(SECOND));
        if from + cost > now.0 {
            return false;
        }
        self.used_until_ns = from + cost;
        true
    }

    /// When the budget will have one again, if it has none now.
    #[must_use]
    pub fn next_at(&self, now: UtcNanos) -> UtcNanos {
        match SECOND.checked_div(u64::from(self.per_second)) {
            None => now,
            Some(cost) => UtcNanos((self.used_until_ns + cost).max(now.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_seconds_worth_at_once_and_then_its_rate() {
        let start = UtcNanos(1_000 * SECOND);
        let mut bucket = Bucket::new(10);
        assert_eq!((0..50).filter(|_| bucket.take(start)).count(), 10);
        assert!(!bucket.take(start.plus(SECOND / 20)));
        assert_eq!((0..50).filter(|_| bucket.take(start.plus(SECOND / 2))).count(), 5);
        assert_eq!((0..50).filter(|_| Bucket::new(0).take(start)).count(), 50);
    }
}
