//! The syncer stage: one durable write after the other, on a thread of its own that sleeps in the kernel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, Wakeup, thread_cpu_time};
use crate::journal::Syncer;

/// The share of a core that durable writes may take: one in this many.
///
/// A write's processor time is not small everywhere (60 µs a write in a virtual machine whose disk is emulated on the same
/// cores). Where it is, writes that follow each other without a pause starve the very stages that wait for them. A write
/// that comes after a quiet time is never held back.
const CORE_SHARE: u32 = 4;
/// The longest pause between the beginnings of two writes.
const PAUSE_MAX: Duration = Duration::from_micros(400);

/// The syncer stage.
pub(super) struct SyncerAgent {
    syncer: Syncer,
    /// Clearing waits for `durable`, the sequencer for room and for the line to be quiet.
    wakes: Vec<Arc<Wakeup>>,
    gate: Arc<IntakeGate>,
    /// Processor time of a write, a moving average.
    cost: Duration,
    next_write: Instant,
}

impl SyncerAgent {
    /// Puts the stage together; `wakes` are woken after each write.
    #[must_use]
    pub(super) fn new(syncer: Syncer, wakes: Vec<Arc<Wakeup>>, gate: Arc<IntakeGate>) -> Self {
        Self { syncer, wakes, gate, cost: Duration::ZERO, next_write: Instant::now() }
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
                self.next_write = begun + (self.cost * CORE_SHARE).min(PAUSE_MAX);
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
