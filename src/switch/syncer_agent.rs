//! The syncer stage: one durable write after the other, on a thread of its own that sleeps in the kernel.

use std::sync::Arc;

use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, Wakeup};
use crate::journal::Syncer;

/// The syncer stage.
pub(super) struct SyncerAgent {
    syncer: Syncer,
    /// Clearing waits for `durable`, the sequencer for room and for the line to be quiet.
    wakes: Vec<Arc<Wakeup>>,
    gate: Arc<IntakeGate>,
}

impl SyncerAgent {
    /// Puts the stage together; `wakes` are woken after each write.
    #[must_use]
    pub(super) fn new(syncer: Syncer, wakes: Vec<Arc<Wakeup>>, gate: Arc<IntakeGate>) -> Self {
        Self { syncer, wakes, gate }
    }
}

impl Agent for SyncerAgent {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        match self.syncer.sync() {
            Ok(0) => Ok(0),
            Ok(_) => {
                for wakeup in &self.wakes {
                    wakeup.wake();
                }
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
