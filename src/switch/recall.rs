//! How a start comes by its ledger: the newest good snapshot, and the journal behind it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::SwitchError;
use super::replay::{check_rules, check_version, replay_engine};
use crate::clearing::Engine;
use crate::config::{Directory, Settings};
use crate::domain::ParticipantTerms;
use crate::journal::{Journal, JournalClaim, JournalFiles, JournalOptions, JournalStart};
use crate::snapshot::{Loaded, SnapshotError, SnapshotStore};

/// What a start cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartFigures {
    /// The last event of the snapshot it began with; 0 = there was none.
    pub snapshot_event: u64,
    /// Reading that, while the journal's end is looked for.
    pub snapshot_ms: u64,
    /// Finding the journal's end.
    pub journal_ms: u64,
    /// Events replayed behind the snapshot.
    pub replayed_events: u64,
    /// Replaying them.
    pub replayed_ms: u64,
}

impl StartFigures {
    /// The figures as the status has them.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "snapshot_event": Some(self.snapshot_event).filter(|&event| event > 0),
            "snapshot_ms": self.snapshot_ms,
            "journal_ms": self.journal_ms,
            "replayed_events": self.replayed_events,
            "replayed_ms": self.replayed_ms,
        })
    }
}

/// The ledger that a start begins with.
pub(super) struct Recalled {
    pub(super) engine: Engine,
    /// Who takes part: the journal's terms, with the names and credentials of the directory file.
    pub(super) directory: Directory,
    /// The snapshot it came from.
    pub(super) snapshot: Option<PathBuf>,
    /// Snapshots that could not be used.
    pub(super) unusable: Vec<PathBuf>,
    pub(super) figures: StartFigures,
}

/// The snapshots of the journal with this id.
pub(super) fn snapshots(settings: &Settings, journal_id: [u8; 16]) -> SnapshotStore {
    SnapshotStore::new(settings.data.join("snapshots"), journal_id)
}

/// Opens or makes the journal, and gives the ledger that its history leads to: from the newest snapshot that can be used,
/// else from the journal's beginning.
pub(super) fn open_journal(
    options: JournalOptions,
    settings: &Settings,
    directory: &Directory,
    payments_expected: u64,
) -> Result<(Journal, Recalled), SwitchError> {
    let new_engine = || {
        Engine::with_room_for(payments_expected as usize)
            .map_err(SwitchError::host("get memory for the payments the profile expects"))
    };
    let path = options.directory.clone();
    if !Journal::exists(&path) {
        let journal = Journal::create(options)?;
        let recalled = Recalled {
            engine: new_engine()?,
            directory: directory.clone(),
            snapshot: None,
            unusable: Vec::new(),
            figures: StartFigures::default(),
        };
        return Ok((journal, recalled));
    }
    let mut recalled = None;
    let mut unusable = Vec::new();
    let mut figures = StartFigures::default();
    let store = snapshots(settings, JournalFiles::open(&path)?.journal_id());
    for file in store.list()? {
        match begin_with(&store, &file.path, &options, &mut figures)? {
            Ok(begun) => {
                recalled = Some((begun, file.path));
                break;
            }
            Err(error) => {
                tracing::warn!("snapshot {error}; the one before it is tried");
                unusable.push(file.path);
            }
        }
    }
    let (journal, start, engine, snapshot) = match recalled {
        Some(((journal, mut loaded), file)) => {
            check_version(&path, loaded.engine.rules_version())?;
            loaded
                .engine
                .set_aside(payments_expected as usize)
                .map_err(SwitchError::host("get memory for the payments the profile expects"))?;
            (journal, loaded.point.start, loaded.engine, Some(file))
        }
        None => {
            let started = Instant::now();
            // Only when the journal is this switch's own: a second one on the same data says so before it takes memory.
            let journal = Journal::open(options)?;
            figures.journal_ms = started.elapsed().as_millis() as u64;
            check_rules(&path)?;
            (journal, JournalStart::BEGINNING, new_engine()?, None)
        }
    };
    let started = Instant::now();
    let mut told = started;
    let engine = replay_engine(engine, &path, &start, None, |events| {
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            tracing::info!(events, "replaying the journal");
        }
    })?;
    if engine.event_number() != journal.recovery.last_event {
        return Err(SwitchError::Unfit(format!(
            "the journal ends with event {} but replay came to event {}: verify the journal before starting",
            journal.recovery.last_event,
            engine.event_number()
        )));
    }
    figures.replayed_events = journal.recovery.last_event - (start.next_event - 1);
    figures.replayed_ms = started.elapsed().as_millis() as u64;
    tracing::info!(
        events = figures.replayed_events,
        ms = figures.replayed_ms,
        "replayed the journal behind event {}",
        start.next_event - 1
    );
    let directory = in_force(directory, &engine)?;
    let recalled = Recalled {
        engine,
        directory,
        snapshot,
        unusable,
        figures,
    };
    Ok((journal, recalled))
}

/// Opens the journal where a snapshot says that it goes on, and reads the snapshot meanwhile; the inner error is that of a
/// snapshot which can't be used.
#[allow(clippy::type_complexity, reason = "one caller, which takes it apart at once")]
fn begin_with(
    store: &SnapshotStore,
    path: &Path,
    options: &JournalOptions,
    figures: &mut StartFigures,
) -> Result<Result<(Journal, Loaded<Engine>), SnapshotError>, SwitchError> {
    let start = match store.point(path) {
        Ok(point) => point.start,
        Err(error) => return Ok(Err(error)),
    };
    let options = JournalOptions {
        start: Some(start),
        ..options.clone()
    };
    // Only when the journal is this switch's own: a second one on the same data says so before it takes memory.
    let claim = JournalClaim::take(&options.directory)?;
    let ((journal, journal_ms), (loaded, snapshot_ms)) = std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().name("snapshot-reader".to_owned());
        let reading = reading.spawn_scoped(scope, || timed(|| store.load_engine(path)));
        let reading = reading.map_err(SwitchError::host("start a thread to read the snapshot"))?;
        let journal = timed(|| Journal::open_claimed(options, claim));
        let loaded = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, SwitchError>((journal, loaded))
    })?;
    let journal = journal?;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Ok(Err(error)),
    };
    (figures.journal_ms, figures.snapshot_ms) = (journal_ms, snapshot_ms);
    figures.snapshot_event = loaded.point.event();
    tracing::info!(
        event = figures.snapshot_event,
        bytes = loaded.bytes,
        ms = figures.snapshot_ms,
        "read the snapshot {}",
        path.display()
    );
    Ok(Ok((journal, loaded)))
}

/// What `work` gives, and the milliseconds it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed().as_millis() as u64)
}

/// The directory in force: who the journal says takes part, on its terms; names and credentials are the file's.
///
/// A file that says more or other than the journal is no reason not to start: that is said, and an operator puts it in force. One
/// that lacks a participant is: nobody could sign on for it.
fn in_force(file: &Directory, engine: &Engine) -> Result<Directory, SwitchError> {
    if engine.event_number() == 0 {
        return Ok(file.clone());
    }
    let journaled = engine.terms();
    for (entry, known) in file.participants.iter().zip(&journaled) {
        if entry.terms.code != known.code {
            return Err(SwitchError::Unfit(format!(
                "participant {} is {} in the directory and {} in the journal: numbers are never reused; give back the \
                 directory this journal was begun with",
                known.index, entry.terms.code, known.code
            )));
        }
    }
    // A machine that stops in the very first write leaves a part of them; what Genesis announced counts, the rest follows.
    let count = engine.participants_announced().max(journaled.len());
    if file.participants.len() < count {
        let first = file.participants.len();
        let missing = journaled.get(first).map_or_else(String::new, |terms| {
            format!(", the first that it lacks is number {first}, {}", terms.code)
        });
        return Err(SwitchError::Unfit(format!(
            "the directory has {first} participants and the journal {count}{missing}: none is ever removed; write it (with its \
             credential_hash) into the directory, and suspend it where it takes part no more"
        )));
    }
    let mut directory = file.clone();
    directory.participants.truncate(count);
    for (entry, terms) in directory.participants.iter_mut().zip(&journaled) {
        entry.terms = *terms;
    }
    let mut scheme = *engine.scheme();
    scheme.participant_count = file.scheme.participant_count;
    if scheme != file.scheme {
        tracing::warn!(
            "the directory's [scheme] is another than the journal's, which stays in force: it can't be changed"
        );
    }
    scheme.participant_count = count as u32;
    directory.scheme = scheme;
    let differ = file
        .participants
        .iter()
        .zip(&journaled)
        .filter(|(entry, terms)| !agree(&entry.terms, terms));
    let (differ, more) = (differ.count(), file.participants.len() - count);
    if differ > 0 || more > 0 {
        tracing::warn!(
            "the directory has {more} participants more than the journal, and other terms for {differ}: the journal's are in \
             force; `clearway directory apply FILE` shows the difference and puts the file's in force"
        );
    }
    Ok(directory)
}

/// True when the file says what is in force, cover aside: that moves with settlement and by orders of two people.
fn agree(file: &ParticipantTerms, journaled: &ParticipantTerms) -> bool {
    let without_accounts = |terms: &ParticipantTerms| ParticipantTerms {
        accounts: bytemuck::Zeroable::zeroed(),
        ..*terms
    };
    without_accounts(file) == without_accounts(journaled)
}
