//! A token bucket: so many a second, a second's worth at once. One for a stage of its own, one that stages share.

use std::sync::atomic::{AtomicU64, Ordering};

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
        match used_after(self.per_second, self.used_until_ns, now) {
            Some(used_until_ns) => {
                self.used_until_ns = used_until_ns;
                true
            }
            None => false,
        }
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

/// A budget of `per_second` that several threads take from; 0 = no limit. On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct SharedBucket {
    per_second: u32,
    /// The time up to which the budget is used.
    used_until_ns: AtomicU64,
}

impl SharedBucket {
    /// A full budget.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            used_until_ns: AtomicU64::new(0),
        }
    }

    /// Takes one from the budget, if there is one.
    #[must_use]
    #[inline]
    pub fn take(&self, now: UtcNanos) -> bool {
        let taken = |used_until_ns| used_after(self.per_second, used_until_ns, now);
        // The number alone is shared; nothing else is published by it.
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.per_second == 0 || self.used_until_ns.fetch_update(set, fetch, taken).is_ok()
    }
}

/// The time up to which a budget is used when one more is taken from it now; `None` = it has none.
#[inline]
fn used_after(per_second: u32, used_until_ns: u64, now: UtcNanos) -> Option<u64> {
    let from = used_until_ns.max(now.0.saturating_sub(SECOND));
    let until = from + SECOND / u64::from(per_second);
    (until <= now.0).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_threads_take_no_more_from_a_shared_bucket_than_one() {
        let (bucket, unlimited) = (SharedBucket::new(1_000), SharedBucket::new(0));
        let start = UtcNanos(1_000 * SECOND);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..900).filter(|_| bucket.take(start)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
        assert_eq!((0..900).filter(|_| bucket.take(start.plus(SECOND / 2))).count(), 500);
        assert!((0..5_000).all(|_| unlimited.take(start)));
    }

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
