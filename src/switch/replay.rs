//! Replay: the engine fed from the journal's files.

use std::path::Path;

use super::SwitchError;
use crate::clearing::{Engine, Event, LedgerSnapshot, StateHash};
use crate::domain::SchemeTerms;
use crate::journal::{JournalError, JournalFiles};
use crate::wire::RecordKind;

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
    let engine = replay_engine(Engine::new(), directory, until, progress)?;
    Ok(ReplayedLedger {
        event_number: engine.event_number(),
        hash: engine.state_hash(),
        snapshot: engine.snapshot(),
    })
}

/// Replays into `engine`, which has seen no event.
pub(super) fn replay_engine(
    mut engine: Engine,
    directory: &Path,
    until: Option<u64>,
    mut progress: impl FnMut(u64),
) -> Result<Engine, JournalError> {
    let files = JournalFiles::open(directory)?;
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

/// A journal is replayed by the rules it was written under, or not at all: others would come to another ledger.
pub(super) fn check_rules(journal: &Path) -> Result<(), SwitchError> {
    let Some(version) = journaled_rules(journal)? else {
        return Ok(());
    };
    if version == SchemeTerms::RULES_VERSION {
        return Ok(());
    }
    Err(SwitchError::Unfit(format!(
        "the journal in {} was begun under version {version} of the rules and this switch applies version {}: go on with \
         the release that wrote it, or give this one a new data directory",
        journal.display(),
        SchemeTerms::RULES_VERSION
    )))
}

/// The rules' version in the journal's Genesis; `None` when a crash left not even that.
fn journaled_rules(journal: &Path) -> Result<Option<u32>, JournalError> {
    let files = JournalFiles::open(journal)?;
    let genesis = files
        .records()
        .next()
        .transpose()?
        .filter(|record| record.kind == RecordKind::Genesis);
    Ok(genesis.map(|record| bytemuck::pod_read_unaligned::<SchemeTerms>(record.payload).rules_version))
}
