//! Token buckets: budgets of so many a second. One for a stage of its own, one that stages share.
//!
//! What others send is taken leniently: a second's worth may come at once, so a sliding second may see up to twice the
//! rate. What the switch sends itself is held strictly: no second, wherever it begins, sees more than the rate.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::{SECOND, UtcNanos};

/// A budget of so many a second; 0 = no limit.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// What one takes of the budget's time; 0 = no limit.
    cost_ns: u64,
    /// The budget's time that lies unused at most.
    depth_ns: u64,
    /// The time up to which the budget is used; never later than the last take.
    used_until_ns: u64,
}

impl Bucket {
    /// A full budget for what the switch takes from others: a second's worth at once, and then its rate.
    #[must_use]
    pub fn for_taking(per_second: u32) -> Self {
        Self {
            cost_ns: SECOND.checked_div(u64::from(per_second)).unwrap_or(0),
            depth_ns: SECOND,
            used_until_ns: 0,
        }
    }

    /// A full budget for what the switch sends: at most `per_second` in any second.
    ///
    /// A twentieth of the rate may go at once, `b = max(1, rate / 20)`, and what is left of the rate flows,
    /// `f = rate - b + 1` a second: one costs `c ≥ 1 s / f`. Say that of the takes at `t₁ ≤ … ≤ tₙ` all lie in one
    /// half-open second, so that `tₙ - t₁ < 1 s`. The first leaves the budget used up to `t₁ - b·c + c` or later, each of
    /// the others moves that by `c` or more, and none moves it past its own time: `t₁ + (n - b)·c ≤ tₙ < t₁ + 1 s`. So
    /// `n - b < f`, and `n ≤ b + f - 1 = rate`.
    #[must_use]
    pub fn for_sending(per_second: u32) -> Self {
        let rate = u64::from(per_second);
        let at_once = (rate / 20).max(1);
        let cost_ns = if rate == 0 {
            0
        } else {
            SECOND.div_ceil(rate - at_once + 1)
        };
        Self {
            cost_ns,
            depth_ns: at_once * cost_ns,
            used_until_ns: 0,
        }
    }

    /// The rate has changed, or is said again; what was sent stays sent.
    #[must_use]
    pub fn for_sending_from_now_on(self, per_second: u32) -> Self {
        Self {
            used_until_ns: self.used_until_ns,
            ..Self::for_sending(per_second)
        }
    }

    /// Takes one from the budget, if there is one.
    #[must_use]
    #[inline]
    pub fn take(&mut self, now: UtcNanos) -> bool {
        if self.cost_ns == 0 {
            return true;
        }
        match used_after(self.cost_ns, self.depth_ns, self.used_until_ns, now) {
            Some(used_until_ns) => {
                self.used_until_ns = used_until_ns;
                true
            }
            None => false,
        }
    }

    /// When the budget will have one again, if it has none now.
    #[must_use]
    #[inline]
    pub fn next_at(&self, now: UtcNanos) -> UtcNanos {
        UtcNanos((self.used_until_ns + self.cost_ns).max(now.0))
    }
}

/// As [`Bucket::for_taking`], for several threads. On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct SharedBucket {
    /// What one takes of the budget's time; 0 = no limit.
    cost_ns: AtomicU64,
    /// The time up to which the budget is used.
    used_until_ns: AtomicU64,
}

impl SharedBucket {
    /// A full budget for what the switch takes from others; 0 = no limit.
    #[must_use]
    pub fn for_taking(per_second: u32) -> Self {
        Self {
            cost_ns: AtomicU64::new(SECOND.checked_div(u64::from(per_second)).unwrap_or(0)),
            used_until_ns: AtomicU64::new(0),
        }
    }

    /// The rate is another from now on; what was taken stays taken.
    pub fn set_rate(&self, per_second: u32) {
        let cost_ns = SECOND.checked_div(u64::from(per_second)).unwrap_or(0);
        self.cost_ns.store(cost_ns, Ordering::Relaxed);
    }

    /// Takes one from the budget, if there is one.
    #[must_use]
    #[inline]
    pub fn take(&self, now: UtcNanos) -> bool {
        let cost_ns = self.cost_ns.load(Ordering::Relaxed);
        let taken = |used_until_ns| used_after(cost_ns, SECOND, used_until_ns, now);
        // The number alone is shared; nothing else is published by it.
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        cost_ns == 0 || self.used_until_ns.fetch_update(set, fetch, taken).is_ok()
    }
}

/// The time up to which a budget is used when one more is taken from it now; `None` = it has none.
#[inline]
fn used_after(cost_ns: u64, depth_ns: u64, used_until_ns: u64, now: UtcNanos) -> Option<u64> {
    let until = used_until_ns.max(now.0.saturating_sub(depth_ns)) + cost_ns;
    (until <= now.0).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const START: UtcNanos = UtcNanos(1_000 * SECOND);

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn no_second_sees_more_sent_than_its_rate(
            rate in prop_oneof![1_u32..=60, 1_u32..=800],
            // Most takes come the moment they can; others too early, later, or about a second after the last.
            waits in vec(prop_oneof![
                30 => Just(None), 4 => Just(Some(0_u64)), 4 => (0..2_000_000_u64).prop_map(Some),
                1 => (900_000_000..1_100_000_000_u64).prop_map(Some),
            ], 1..1_500),
        ) {
            let (mut bucket, mut now, mut taken) = (Bucket::for_sending(rate), START, Vec::new());
            for wait in waits {
                now = wait.map_or(bucket.next_at(now), |wait| now.plus(wait));
                let next_at = bucket.next_at(now);
                let took = bucket.take(now);
                prop_assert_eq!(took, next_at == now, "it is told when there is one again");
                if took {
                    taken.push(now.0);
                }
                // Said again, a contract brings nothing new.
                bucket = bucket.for_sending_from_now_on(rate);
            }
            for run in taken.windows(rate as usize + 1) {
                let took_ns = run[rate as usize] - run[0];
                prop_assert!(took_ns >= SECOND, "{} in {took_ns} ns, where {rate} a second may be", run.len());
            }
        }
    }

    #[test]
    fn asked_all_the_time_a_strict_bucket_sends_all_of_its_rate_in_the_first_second_and_most_of_it_in_each() {
        for rate in [1, 2, 19, 20, 39, 40, 1_000, 44_000] {
            let mut bucket = Bucket::for_sending(rate);
            let in_second = |second: u64| {
                let asked = (0..100_000).map(|step| START.plus(second * SECOND + step * 10_000));
                asked.filter(|&now| bucket.take(now)).count() as u32
            };
            let sent: Vec<u32> = (0..3).map(in_second).collect();
            let (at_once, rounded) = ((rate / 20).max(1), rate.div_ceil(500));
            assert!(sent[0] <= rate && sent[0] + rounded >= rate, "{rate}: {sent:?}");
            assert!(
                sent[1..]
                    .iter()
                    .all(|&sent| sent <= rate && sent + at_once + rounded > rate),
                "{rate}: {sent:?}"
            );
        }
    }

    #[test]
    fn four_threads_take_no_more_from_a_shared_bucket_than_one() {
        let (bucket, unlimited) = (SharedBucket::for_taking(1_000), SharedBucket::for_taking(0));
        let start = START;
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
    fn a_shared_buckets_rate_changes_while_it_is_used_and_what_was_taken_stays_taken() {
        let (bucket, start) = (SharedBucket::for_taking(1_000), START);
        let take = |count: usize, now| (0..count).filter(|_| bucket.take(now)).count();
        assert_eq!(take(2_000, start), 1_000);
        bucket.set_rate(10);
        assert_eq!(take(50, start.plus(SECOND / 2)), 5);
        bucket.set_rate(0);
        assert_eq!(take(5_000, start.plus(SECOND / 2)), 5_000);
    }

    #[test]
    fn a_bucket_gives_a_seconds_worth_at_once_and_then_its_rate() {
        let start = START;
        let mut bucket = Bucket::for_taking(10);
        assert_eq!((0..50).filter(|_| bucket.take(start)).count(), 10);
        assert!(!bucket.take(start.plus(SECOND / 20)));
        assert_eq!((0..50).filter(|_| bucket.take(start.plus(SECOND / 2))).count(), 5);
        assert_eq!((0..50).filter(|_| Bucket::for_taking(0).take(start)).count(), 50);
    }
}
