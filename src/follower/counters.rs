//! What the follower tells about itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// The follower's figures, for the status.
#[derive(Debug, Default)]
pub struct FollowerCounters {
    /// The last event it has applied.
    pub event: AtomicU64,
    /// The journal position behind it.
    pub position: AtomicU64,
    /// The event of the snapshot it began with; 0 = it began with the journal.
    pub began_with: AtomicU64,
    /// Marks that agreed with the live engine's.
    pub marks_agreed: AtomicU64,
    /// Look-ups answered.
    pub look_ups: AtomicU64,
    /// Inquiries about payments that only the register has.
    pub inquiries: AtomicU64,
    /// Words told again that only the register has.
    pub words: AtomicU64,
    /// Snapshots taken in this run.
    pub snapshots: AtomicU64,
    /// The last event in the newest snapshot, of this run or an earlier one; 0 = there is none.
    pub snapshot_event: AtomicU64,
    /// Its length, bytes.
    pub snapshot_bytes: AtomicU64,
    /// How long it took to write, milliseconds.
    pub snapshot_ms: AtomicU64,
    /// The journal from here on must be kept: the older of the two newest snapshots needs it.
    pub needed_from: AtomicU64,
    /// Files of the register.
    pub register_files: AtomicU64,
    /// Their bytes.
    pub register_bytes: AtomicU64,
    /// True while a snapshot is being written.
    pub snapshot_underway: AtomicBool,
    /// The longest time that one duty cycle of the live clearing stage took, while no snapshot was being written and while
    /// one was, nanoseconds.
    pub clearing_longest_ns: [AtomicU64; 2],
    /// The longest time that a mark of the live engine's state took, nanoseconds.
    pub mark_longest_ns: AtomicU64,
    /// What it can't do at the moment, or ever again, in words.
    pub trouble: Mutex<Option<String>>,
}

impl FollowerCounters {
    pub(super) fn set(counter: &AtomicU64, value: u64) {
        counter.store(value, Ordering::Relaxed);
    }

    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = trouble;
    }

    /// Notes how long a duty cycle of the live clearing stage took; `in_snapshot` says whether a snapshot was being written
    /// when it began.
    pub fn clearing_took(&self, time: Duration, in_snapshot: bool) {
        self.clearing_longest_ns[usize::from(in_snapshot)].fetch_max(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// What keeps it from its work, in words.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// The figures as the status has them; `durable` is where the journal ends.
    #[must_use]
    pub fn json(&self, durable: u64) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let snapshot = (read(&self.snapshot_event) > 0).then(|| {
            json!({
                "event": read(&self.snapshot_event),
                "bytes": read(&self.snapshot_bytes),
                "written_in_ms": read(&self.snapshot_ms),
            })
        });
        json!({
            "event": read(&self.event),
            "behind_bytes": durable.saturating_sub(read(&self.position)),
            "began_with_snapshot": Some(read(&self.began_with)).filter(|&event| event > 0),
            "marks_agreed": read(&self.marks_agreed),
            "look_ups": read(&self.look_ups),
            "inquiries": read(&self.inquiries),
            "words_told_again": read(&self.words),
            "snapshots": read(&self.snapshots),
            "newest_snapshot": snapshot,
            "journal_needed_from": read(&self.needed_from),
            "register": { "files": read(&self.register_files), "bytes": read(&self.register_bytes) },
            "longest_clearing_cycle_us": {
                "while_a_snapshot_is_written": read(&self.clearing_longest_ns[1]) / 1_000,
                "else": read(&self.clearing_longest_ns[0]) / 1_000,
            },
            "longest_mark_us": read(&self.mark_longest_ns) / 1_000,
            "trouble": self.trouble(),
        })
    }
}
