//! Replay: the engine fed from the journal's files.

use std::path::Path;

use crate::clearing::{Engine, Event, LedgerSnapshot, StateHash};
use crate::journal::{JournalError, JournalFiles};

/// The ledger that a journal gives.
#[derive(Clone, Debug)]
pub struct ReplayedLedger {
    /// The last event applied.
    pub event_number: u64,
    /// The state's hash after it.
    pub hash: StateHash,
    /// The ledger as an operator sees it.
    pub snapshot: LedgerSnapshot,
}

/// Replays the journal in `directory` up to event `until` (all durable events when `None`). `progress` is told the number
/// of the event every million events.
///
/// # Errors
/// A journal that can't be read, or is damaged.
pub fn replay(directory: &Path, until: Option<u64>, progress: impl FnMut(u64)) -> Result<ReplayedLedger, JournalError> {
    let engine = replay_engine(directory, until, progress)?;
    Ok(ReplayedLedger {
        event_number: engine.event_number(),
        hash: engine.state_hash(),
        snapshot: engine.snapshot(),
    })
}

/// Replays into an engine.
pub(super) fn replay_engine(
    directory: &Path,
    until: Option<u64>,
    mut progress: impl FnMut(u64),
) -> Result<Engine, JournalError> {
    let files = JournalFiles::open(directory)?;
    let mut engine = Engine::new();
    for record in files.records() {
        let record = record?;
        if until.is_some_and(|until| record.number > until) {
            break;
        }
        let event = Event {
            kind: record.kind,
            number: record.number,
            time: record.time,
            position: record.position,
            payload: record.payload,
        };
        engine.apply(&event, &mut ());
        if record.number % 1_000_000 == 0 {
            progress(record.number);
        }
    }
    Ok(engine)
}
