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

/// A host's two clocks, moved by hand: time in a rehearsal. Clones share it.
#[derive(Clone, Debug)]
pub struct ManualTime(Arc<ManualClocks>);

#[derive(Debug)]
struct ManualClocks {
    monotonic_ns: AtomicU64,
    wall_ns: AtomicU64,
}

impl ManualTime {
    /// Both clocks stand at `start`.
    #[must_use]
    pub fn new(start: UtcNanos) -> Self {
        Self(Arc::new(ManualClocks {
            monotonic_ns: AtomicU64::new(start.0),
            wall_ns: AtomicU64::new(start.0),
        }))
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, nanos: u64) {
        self.0.monotonic_ns.fetch_add(nanos, Ordering::Relaxed);
        self.0.wall_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What the wall clock says, UTC nanoseconds.
    #[must_use]
    pub fn wall_ns(&self) -> u64 {
        self.0.wall_ns.load(Ordering::Relaxed)
    }

    /// Steps the wall clock alone, as an operator or a bad time source does.
    pub fn step_wall(&self, nanos: i64) {
        let wall = self.0.wall_ns.load(Ordering::Relaxed);
        self.0
            .wall_ns
            .store(wall.saturating_add_signed(nanos), Ordering::Relaxed);
    }
}

/// Where a clock's readings come from.
#[derive(Debug)]
enum TimeSource {
    Host,
    Manual(ManualTime),
}

impl TimeSource {
    #[inline]
    fn monotonic(&self) -> u64 {
        match self {
            Self::Host => read(libc::CLOCK_MONOTONIC),
            Self::Manual(time) => time.0.monotonic_ns.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn wall(&self) -> u64 {
        match self {
            Self::Host => read(libc::CLOCK_REALTIME),
            Self::Manual(time) => time.0.wall_ns.load(Ordering::Relaxed),
        }
    }
}

#[derive(Debug)]
struct Shared {
    source: TimeSource,
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
        Self::anchored(TimeSource::Host)
    }

    /// A clock that runs on clocks moved by hand, anchored to what their wall clock says now.
    #[must_use]
    pub fn manual(time: ManualTime) -> Self {
        Self::anchored(TimeSource::Manual(time))
    }

    fn anchored(source: TimeSource) -> Self {
        let monotonic = source.monotonic();
        let offset = source.wall() as i64 - monotonic as i64;
        Self(Arc::new(Shared {
            source,
            offset_ns: AtomicI64::new(offset),
            slewed_at_ns: AtomicU64::new(monotonic),
            difference_ns: AtomicI64::new(0),
        }))
    }

    /// Now.
    #[must_use]
    #[inline]
    pub fn now(&self) -> UtcNanos {
        UtcNanos((self.0.source.monotonic() as i64 + self.0.offset_ns.load(Ordering::Relaxed)) as u64)
    }

    /// The wall clock that this clock is slewed towards.
    #[must_use]
    pub fn wall(&self) -> UtcNanos {
        UtcNanos(self.0.source.wall())
    }

    /// Moves the clock towards UTC by at most 500 ppm of the time since the last call, which must be at least 100 ms
    /// back. Returns the difference to the wall clock in nanoseconds when it is an alarm (over a second).
    pub fn slew(&self) -> Option<i64> {
        let monotonic = self.0.source.monotonic();
        let elapsed = monotonic.saturating_sub(self.0.slewed_at_ns.load(Ordering::Relaxed));
        if elapsed < SECOND / 10 {
            return None;
        }
        self.0.slewed_at_ns.store(monotonic, Ordering::Relaxed);
        let offset = self.0.offset_ns.load(Ordering::Relaxed);
        let difference = self.0.source.wall() as i64 - (monotonic as i64 + offset);
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

    #[test]
    fn a_step_of_the_wall_clock_is_slewed_and_not_followed() {
        let time = ManualTime::new(UtcNanos(1_000 * SECOND));
        let clock = SwitchClock::manual(time.clone());
        time.advance(SECOND);
        time.step_wall(-(10 * SECOND as i64));
        assert_eq!(clock.now(), UtcNanos(1_001 * SECOND));
        assert_eq!(clock.slew(), Some(-(10 * SECOND as i64)));
        assert_eq!(clock.now(), UtcNanos(1_001 * SECOND - 500_000), "500 ppm of a second");
        assert_eq!(SwitchClock::manual(time).now(), UtcNanos(991 * SECOND), "a new anchor");
    }
}
