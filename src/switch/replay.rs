//! Replay: the engine fed from the journal's files.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use super::SwitchError;
use crate::clearing::{Engine, Event, LedgerSnapshot, StateHash};
use crate::domain::SchemeTerms;
use crate::journal::{JournalError, JournalFiles, JournalStart, Record, RecordBatch};
use crate::memory::prefetch_read;
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
    /// How long it took to read and apply the events, hash and snapshot not counted.
    pub applied_in: Duration,
}

/// Replays the journal in `directory` up to event `until` (all durable events when `None`). `progress` is told the number
/// of the event every million events.
///
/// # Errors
/// A journal that can't be read, or is damaged.
pub fn replay(directory: &Path, until: Option<u64>, progress: impl FnMut(u64)) -> Result<ReplayedLedger, JournalError> {
    let started = Instant::now();
    let engine = replay_engine(Engine::new(), directory, &JournalStart::BEGINNING, until, progress)?;
    Ok(ReplayedLedger {
        applied_in: started.elapsed(),
        event_number: engine.event_number(),
        hash: engine.state_hash(),
        snapshot: engine.snapshot(),
    })
}

/// How long before an event is applied what it needs is asked of memory.
const LOOK_AHEAD_EVENTS: usize = 8;
/// Batches that the reading thread may be ahead.
const BATCHES_AHEAD: usize = 6;

/// Replays into `engine`, which has seen every event before `start` and none after.
pub(super) fn replay_engine(
    engine: Engine,
    directory: &Path,
    start: &JournalStart,
    until: Option<u64>,
    mut progress: impl FnMut(u64),
) -> Result<Engine, JournalError> {
    replay_each(engine, directory, start, until, |engine, event| {
        engine.apply(event, &mut ());
        if event.number % 1_000_000 == 0 {
            progress(event.number);
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Replays into `engine`, which has seen every event before `start` and none after; `each` applies an event to it and says
/// whether to go on. Another thread reads and checks ahead, so that the engine meets neither the disk nor a CRC.
///
/// # Errors
/// A journal that can't be read, or is damaged; or what `each` says.
pub fn replay_each<E: From<JournalError>>(
    mut engine: Engine,
    directory: &Path,
    start: &JournalStart,
    until: Option<u64>,
    mut each: impl FnMut(&mut Engine, &Event<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Engine, E> {
    let journal = JournalFiles::open(directory)?;
    let files = &journal;
    let (full, batches) = sync_channel::<RecordBatch>(BATCHES_AHEAD);
    let (spent, empty) = channel::<RecordBatch>();
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("replay-reader".to_owned())
            .spawn_scoped(scope, move || read_ahead(files, start, until, full, empty));
        let reading = match reading {
            Ok(reading) => reading,
            Err(source) => {
                return Err(E::from(JournalError::System {
                    file: directory.to_owned(),
                    action: "start a thread to read it",
                    source,
                }));
            }
        };
        for batch in batches {
            if apply(&mut engine, &batch, &mut each)?.is_break() {
                break;
            }
            // The reader may be done already.
            let _ = spent.send(batch);
        }
        match reading.join() {
            Ok(read) => read.map_err(E::from),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(engine)
}

#[inline]
fn apply<E>(
    engine: &mut Engine,
    batch: &RecordBatch,
    each: &mut impl FnMut(&mut Engine, &Event<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<ControlFlow<()>, E> {
    for (at, record) in batch.iter().enumerate() {
        if let Some(further) = batch.get(at + 2 * LOOK_AHEAD_EVENTS) {
            // The other core has written it last.
            prefetch_read(further.payload.as_ptr());
            prefetch_read(further.payload.as_ptr().wrapping_add(further.payload.len() / 2));
        }
        if let Some(ahead) = batch.get(at + LOOK_AHEAD_EVENTS) {
            engine.prefetch(&event_of(&ahead));
        }
        if each(engine, &event_of(&record))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The event that stands in a record.
#[inline]
pub(super) fn event_of<'a>(record: &Record<'a>) -> Event<'a> {
    Event {
        kind: record.kind,
        number: record.number,
        time: record.time,
        position: record.position,
        payload: record.payload,
    }
}

/// Sends the checked events up to `until` in batches; what was read before damage is sent, too.
fn read_ahead(
    files: &JournalFiles,
    start: &JournalStart,
    until: Option<u64>,
    full: SyncSender<RecordBatch>,
    empty: Receiver<RecordBatch>,
) -> Result<(), JournalError> {
    let mut walk = files.walk_at(start)?;
    loop {
        let mut batch = empty.try_recv().unwrap_or_default();
        let more = batch.fill(&mut walk, until.unwrap_or(u64::MAX));
        // Refused only when the engine's side is gone, by a panic that is on its way already.
        if full.send(batch).is_err() || !more? {
            return Ok(());
        }
    }
}

/// A journal is replayed by the rules it was written under, or not at all: others would come to another ledger.
///
/// # Errors
/// It was begun under other rules, or can't be read.
pub fn check_rules(journal: &Path) -> Result<(), SwitchError> {
    journaled_rules(journal)?.map_or(Ok(()), |version| check_version(journal, version))
}

/// As [`check_rules`], of a journal that was begun under `version`.
pub(super) fn check_version(journal: &Path, version: u32) -> Result<(), SwitchError> {
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
