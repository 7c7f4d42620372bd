//! The syncer stage: one durable write after the other, on a thread of its own that sleeps in the kernel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, Wakeup, thread_cpu_time};
use crate::journal::Syncer;

/// Under load, the share of a core that durable writes may take: one in this many.
///
/// A write's processor time is not small everywhere: where the disk is emulated on the same cores, the core that issues
/// a write stands still for as long as the write takes (100 µs and more), and writes that follow each other without a
/// pause starve the very stages that wait for them. Fewer, larger writes then make every payment faster.
const CORE_SHARE: u32 = 8;
/// The longest time from one write's beginning to the next one's.
const INTERVAL_MAX: Duration = Duration::from_micros(800);
/// The line is loaded when this many of the last 64 writes ended with more to write. A calm line never waits.
const LOADED: u32 = 48;

/// The syncer stage.
pub(super) struct SyncerAgent {
    syncer: Syncer,
    /// Clearing waits for `durable`, the sequencer for room and for the line to be quiet.
    wakes: Vec<Arc<Wakeup>>,
    gate: Arc<IntakeGate>,
    /// Processor time of a write, a moving average.
    cost: Duration,
    /// One bit a write, the last in front: did it end with more to write?
    followed: u64,
    next_write: Instant,
}

impl SyncerAgent {
    /// Puts the stage together; `wakes` are woken after each write.
    #[must_use]
    pub(super) fn new(syncer: Syncer, wakes: Vec<Arc<Wakeup>>, gate: Arc<IntakeGate>) -> Self {
        Self {
            syncer,
            wakes,
            gate,
            cost: Duration::ZERO,
            followed: 0,
            next_write: Instant::now(),
        }
    }
}

impl Agent for SyncerAgent {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        if !self.syncer.has_work() {
            return Ok(0);
        }
        let mut begun = Instant::now();
        if let Some(pause) = self.next_write.checked_duration_since(begun) {
            std::thread::sleep(pause);
            begun += pause;
        }
        let used = thread_cpu_time();
        match self.syncer.sync() {
            Ok(0) => Ok(0),
            Ok(_) => {
                for wakeup in &self.wakes {
                    wakeup.wake();
                }
                self.cost = (self.cost * 15 + thread_cpu_time().saturating_sub(used)) / 16;
                self.followed = self.followed << 1 | u64::from(self.syncer.has_work());
                self.next_write = if self.followed.count_ones() >= LOADED {
                    begun + (self.cost * CORE_SHARE).min(INTERVAL_MAX)
                } else {
                    begun
                };
                Ok(1)
            }
            // Final: never retried, nothing after it is acknowledged.
            Err(error) => {
                self.gate.close(IntakeState::Broken);
                Err(AgentError::new("syncer", error))
            }
        }
    }

    fn on_close(&mut self) {
        while matches!(self.syncer.sync(), Ok(bytes) if bytes > 0) {}
    }

    fn role_name(&self) -> &str {
        "syncer"
    }
}
