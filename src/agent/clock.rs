//! The switch's clock: UTC nanoseconds that run on the monotonic clock and are slewed towards UTC, never stepped.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::domain::{SECOND, UtcNanos};

/// The fastest slew: 500 parts per million.
const SLEW_PPM_MAX: u64 = 500;
/// A difference to the wall clock from which on it is an alarm, not drift.
const ALARM_NS: u64 = SECOND;

/// The clock; clones share it. Agents read it, the sequencer alone slews it.
#[derive(Clone, Debug)]
pub struct SwitchClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// UTC − monotonic, nanoseconds.
    offset_ns: AtomicI64,
    slewed_at_ns: AtomicU64,
    /// Wall clock − this clock when last compared, nanoseconds.
    difference_ns: AtomicI64,
}

impl SwitchClock {
    /// A clock anchored to UTC now.
    #[must_use]
    pub fn new() -> Self {
        let monotonic = read(libc::CLOCK_MONOTONIC);
        let offset = read(libc::CLOCK_REALTIME) as i64 - monotonic as i64;
        Self(Arc::new(Shared {
            offset_ns: AtomicI64::new(offset),
            slewed_at_ns: AtomicU64::new(monotonic),
            difference_ns: AtomicI64::new(0),
        }))
    }

    /// Now.
    #[must_use]
    #[inline]
    pub fn now(&self) -> UtcNanos {
        UtcNanos((read(libc::CLOCK_MONOTONIC) as i64 + self.0.offset_ns.load(Ordering::Relaxed)) as u64)
    }

    /// Moves the clock towards UTC by at most 500 ppm of the time since the last call, which must be at least 100 ms
    /// back. Returns the difference to the wall clock in nanoseconds when it is an alarm (over a second).
    pub fn slew(&self) -> Option<i64> {
        let monotonic = read(libc::CLOCK_MONOTONIC);
        let elapsed = monotonic.saturating_sub(self.0.slewed_at_ns.load(Ordering::Relaxed));
        if elapsed < SECOND / 10 {
            return None;
        }
        self.0.slewed_at_ns.store(monotonic, Ordering::Relaxed);
        let offset = self.0.offset_ns.load(Ordering::Relaxed);
        let difference = read(libc::CLOCK_REALTIME) as i64 - (monotonic as i64 + offset);
        let step_max = (elapsed * SLEW_PPM_MAX / 1_000_000) as i64;
        self.0
            .offset_ns
            .store(offset + difference.clamp(-step_max, step_max), Ordering::Relaxed);
        self.0.difference_ns.store(difference, Ordering::Relaxed);
        (difference.unsigned_abs() > ALARM_NS).then_some(difference)
    }

    /// Wall clock − this clock when last compared, nanoseconds.
    #[must_use]
    pub fn difference_ns(&self) -> i64 {
        self.0.difference_ns.load(Ordering::Relaxed)
    }
}

impl Default for SwitchClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The wall clock, UTC nanoseconds.
#[must_use]
pub fn wall_clock() -> UtcNanos {
    UtcNanos(read(libc::CLOCK_REALTIME))
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write; both clocks exist on every Linux.
    unsafe {
        libc::clock_gettime(clock, &raw mut time);
    }
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_stays_near_the_wall_clock() {
        let clock = SwitchClock::new();
        let mut last = clock.now();
        for _ in 0..1_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(wall_clock().0.abs_diff(clock.now().0) < SECOND);
    }
}
