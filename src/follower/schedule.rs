//! When a snapshot is due: by time, by what was journaled since, and when a window closes.

use crate::domain::{SECOND, UtcNanos};

/// The share of the time between snapshots that must have passed before the close of a window asks for one.
const CLOSE_SHARE: u64 = 10;
/// A snapshot is at most so many times as long as the journal since the one before: what is written for snapshots stays in
/// proportion to what is written for payments, however long the history grows.
const BYTES_PER_JOURNAL_BYTE: u64 = 2;

/// When snapshots are taken.
#[derive(Clone, Debug)]
pub struct SnapshotSchedule {
    every_ns: u64,
    journal_bytes: u64,
    taken_at: UtcNanos,
    taken_of: u64,
    bytes: u64,
    window_closed: bool,
}

impl SnapshotSchedule {
    /// A schedule that begins at `now` with the journal at `position`: every `every_s` seconds, and every `journal_bytes`.
    #[must_use]
    pub const fn new(every_s: u64, journal_bytes: u64, now: UtcNanos, position: u64) -> Self {
        Self {
            every_ns: every_s * SECOND,
            journal_bytes,
            taken_at: now,
            taken_of: position,
            bytes: 0,
            window_closed: false,
        }
    }

    /// A window has closed.
    pub const fn window_closed(&mut self) {
        self.window_closed = true;
    }

    /// A snapshot of so many bytes was taken, or tried in vain: the next is due later.
    pub const fn taken(&mut self, now: UtcNanos, position: u64, bytes: u64) {
        (self.taken_at, self.taken_of, self.window_closed) = (now, position, false);
        if bytes > 0 {
            self.bytes = bytes;
        }
    }

    /// True when a snapshot of the state at `position` is due. One of the same state never is.
    #[must_use]
    pub fn is_due(&self, now: UtcNanos, position: u64) -> bool {
        let journaled = position.saturating_sub(self.taken_of);
        let since = now.since(self.taken_at);
        let by_bytes = journaled >= self.journal_bytes.max(self.bytes / BYTES_PER_JOURNAL_BYTE);
        let by_time = since >= self.every_ns;
        let by_window = self.window_closed && since >= self.every_ns / CLOSE_SHARE;
        journaled > 0 && (by_bytes || by_time || by_window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UtcNanos {
        UtcNanos(1_000 * SECOND).plus(seconds * SECOND)
    }

    #[test]
    fn a_snapshot_is_due_by_time_by_size_and_at_a_window_s_close_and_never_of_the_same_state() {
        let mut schedule = SnapshotSchedule::new(600, 1_000, at(0), 5_000);
        assert!(!schedule.is_due(at(599), 5_999));
        assert!(schedule.is_due(at(600), 5_001));
        assert!(!schedule.is_due(at(6_000), 5_000), "nothing was journaled");
        assert!(schedule.is_due(at(1), 6_000));
        schedule.window_closed();
        assert!(
            !schedule.is_due(at(59), 5_500),
            "windows that close every few seconds do not ask each time"
        );
        assert!(schedule.is_due(at(60), 5_500));
        schedule.taken(at(60), 5_500, 0);
        assert!(!schedule.is_due(at(130), 6_499));
    }

    #[test]
    fn long_snapshots_are_taken_less_often() {
        let mut schedule = SnapshotSchedule::new(600, 1_000, at(0), 0);
        schedule.taken(at(0), 1_000, 10_000);
        assert!(!schedule.is_due(at(1), 5_999));
        assert!(schedule.is_due(at(1), 6_000));
    }
}
