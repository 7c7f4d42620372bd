//! The journal: the truth of every cent, and the pipe between sequencer and clearing.
//!
//! What it promises:
//! - Nothing is read by clearing that is not on stable storage; `durable` moves by one write for all that was published
//!   before it began (group commit), and by nothing else. A failed write is final.
//! - A journal that opens holds every event that was ever durable, byte for byte; damage to one is refused by name.
//! - The live tail is locked (or at least faulted in) memory; no store ever meets a page fault or a full disk.
//! - A bounded ring: the appender is told [`Full`] before it could overwrite what a reader still needs.
//!
//! ```text
//! sequencer ─ Appender ─▶ tail in memory ─ Syncer ─▶ segment files ◀─ Preparer (makes them ahead)
//!                         │   ▲ durable                │
//!   clearing ◀ TailReader ┘   └ TailView ▶ link agents └▶ JournalFiles ▶ replay, audit, tools
//!                        follower ◀ JournalReader: what the tail still holds, else the files
//!        chain, archive ◀ the segment files, past the page cache
//! ```
//! A [`Journal`] is taken apart at start and its parts given to the stages, one thread each. The bytes are described in
//! `layout.rs`, their reading after a crash in `recovery.rs`.

mod appender;
mod archive;
mod archive_adding;
mod archive_checking;
mod archive_error;
mod batch;
mod chain;
mod chain_check;
mod chain_error;
mod chain_file;
mod chain_writer;
mod checksum;
mod digest;
mod directory;
mod error;
mod files;
mod layout;
mod manifest;
mod options;
mod place;
mod positions;
mod preparer;
mod reader;
mod recovery;
mod restore;
mod retired;
mod scan;
mod segment;
mod statistics;
mod superblock;
mod syncer;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

pub use appender::Appender;
pub use archive::Archive;
pub use archive_adding::{Adding, ArchiveStep};
pub use archive_checking::Checking;
pub use archive_error::ArchiveError;
pub use batch::RecordBatch;
pub use chain::{Chain, ChainLink, ChainStart};
pub use chain_check::ChainVerdict;
pub use chain_error::{ChainError, ChainFailure};
pub use chain_writer::ChainWriter;
pub use digest::{ChainEntry, SegmentFacts, WindowMark};
pub use error::{Full, JournalError};
pub use files::{JournalFiles, Records, Walk, WalkEnd, Walked};
pub use layout::{
    BLOCK_BYTES, JournalPosition, RECORD_ALIGNMENT, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
};
pub use manifest::Manifest;
pub use options::{JournalFacts, JournalOptions, JournalStart, Recovery, SyncMode, WriteGate};
pub use positions::Positions;
pub use preparer::{Preparation, Preparer};
pub use reader::{JournalReader, JournalSource};
pub use restore::Restored;
pub use retired::SealedSegments;
pub use statistics::{KindFigures, Statistics};
pub use superblock::{Superblock, SuperblockFacts, superblock_facts};
pub use syncer::Syncer;
pub use tail::{Record, TailReader, TailView};
pub use verify::Verification;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use directory::DirectoryLock;
use layout::{Geometry, Seed};
use segment::{SegmentStore, WriteMode};
use tail::Tail;

use crate::domain::UtcNanos;
use crate::memory::MappedMemory;

/// What a start must be able to append when no further segment can be made: that it has happened, and what open payments
/// still need of the journal.
const START_ROOM_BYTES: u64 = 64 << 10;

/// An open journal, in the parts the stages take.
#[derive(Debug)]
pub struct Journal {
    /// The sequencer's.
    pub appender: Appender,
    /// The syncer's.
    pub syncer: Syncer,
    /// Clearing's; stands at the recovered end (what lies before is replayed through [`JournalFiles`]).
    pub reader: TailReader,
    /// The link agents'.
    pub view: TailView,
    /// Makes readers that hold nobody up, for a follower.
    pub source: JournalSource,
    /// Housekeeping's.
    pub preparer: Preparer,
    /// For those who take snapshots, and those who remove segments.
    pub superblock: Arc<Superblock>,
    /// Everyone's.
    pub positions: Arc<Positions>,
    /// What was found.
    pub recovery: Recovery,
    /// What it turned out to be on this host.
    pub facts: JournalFacts,
}

/// A journal's directory that no other switch has, or can have as long as this is held.
#[derive(Debug)]
pub struct JournalClaim {
    directory: PathBuf,
    lock: DirectoryLock,
}

impl JournalClaim {
    /// Claims the journal in `directory`.
    ///
    /// # Errors
    /// There is none, another switch has it, or the host refuses it.
    pub fn take(directory: &Path) -> Result<Self, JournalError> {
        if !directory.is_dir() {
            return Err(JournalError::Absent {
                directory: directory.to_owned(),
            });
        }
        Ok(Self {
            directory: directory.to_owned(),
            lock: DirectoryLock::take(directory)?,
        })
    }
}

impl Journal {
    /// True when `directory` holds a journal.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        directory::any(directory)
    }

    /// Makes a new, empty journal.
    ///
    /// # Errors
    /// There is one already, another switch is making one, or the host refuses what it takes.
    pub fn create(options: JournalOptions) -> Result<Self, JournalError> {
        options.check()?;
        let directory = &options.directory;
        fs::create_dir_all(directory).map_err(place::refused(directory, "make the directory"))?;
        if let Some(parent) = directory.canonicalize().ok().as_deref().and_then(Path::parent) {
            directory::sync_directory(parent)?;
        }
        let lock = DirectoryLock::take(directory)?;
        if Self::exists(directory) {
            return Err(JournalError::Exists {
                directory: directory.clone(),
            });
        }
        directory::remove_unfinished(directory)?;
        let (mode, message) = WriteMode::choose(directory, options.sync)?;
        let mut journal_id = [0; 16];
        fill_with_chance(&mut journal_id).map_err(JournalError::system(directory, "draw the journal's id"))?;
        let store = SegmentStore {
            directory: directory.clone(),
            geometry: Geometry {
                segment_bytes: options.segment_bytes,
            },
            journal_id,
            epoch: 1,
            mode,
        };
        let ring = map_ring(&options)?;
        let recovery = Recovery {
            durable: SEGMENT_HEADER_BYTES,
            last_event: 0,
            last_time: UtcNanos(0),
            cut_bytes: 0,
            messages: Vec::new(),
        };
        Self::assemble(&options, store, ring, lock, recovery, 0, message, None, 0)
    }

    /// Opens the journal of an earlier run and finds its end. See [`Recovery`] for what was found.
    ///
    /// # Errors
    /// There is none, another switch has it, it was damaged below what had been durable ([`JournalError::Damaged`], and
    /// nothing was changed), or the host refuses what it takes.
    pub fn open(options: JournalOptions) -> Result<Self, JournalError> {
        options.check()?;
        let claim = JournalClaim::take(&options.directory)?;
        Self::open_claimed(options, claim)
    }

    /// The same, for who has made sure already that no other switch has it.
    ///
    /// # Errors
    /// As [`Journal::open`].
    ///
    /// # Panics
    /// When the claim is of another directory.
    pub fn open_claimed(options: JournalOptions, claim: JournalClaim) -> Result<Self, JournalError> {
        options.check()?;
        let directory = &options.directory;
        assert_eq!(claim.directory, *directory, "a claim of another journal");
        let lock = claim.lock;
        place::check_segments(directory)?;
        let numbers = directory::list(directory)?;
        if numbers.is_empty() {
            return Err(JournalError::Absent {
                directory: directory.clone(),
            });
        }
        let (mode, message) = WriteMode::choose(directory, options.sync)?;
        let first = files::header_of(directory, numbers.start)?;
        let mut store = SegmentStore {
            directory: directory.clone(),
            geometry: Geometry {
                segment_bytes: options.segment_bytes,
            },
            journal_id: first.journal_id,
            epoch: 0,
            mode,
        };
        recovery::check_header(&store, numbers.start, bytemuck::bytes_of(&first))?;
        let ring = map_ring(&options)?;
        let start = options.start.unwrap_or(JournalStart::BEGINNING);
        let findings = recovery::scan(&store, &ring, numbers.clone(), &start)?;
        // From here on files are changed.
        directory::remove_unfinished(directory)?;
        let scan = &findings.scan;
        let known = superblock_facts(directory, store.journal_id);
        store.epoch = scan.epoch.max(known.epoch) + 1;
        let mut messages = Vec::new();
        if findings.remains.bytes > 0 {
            messages.push(format!(
                "cut {} bytes behind journal position {}: a write that was under way when the switch stopped; no answer \
                 rested on them",
                findings.remains.bytes, scan.position
            ));
        }
        let recovery = Recovery {
            durable: scan.position,
            last_event: scan.next_event - 1,
            last_time: scan.last_time,
            cut_bytes: findings.remains.bytes,
            messages,
        };
        let geometry = store.geometry;
        let held_from = geometry
            .segment_start(geometry.segment_of(scan.position) + 1)
            .saturating_sub(options.ring_bytes)
            .max(geometry.segment_start(geometry.segment_of(start.position)));
        Self::assemble(
            &options,
            store,
            ring,
            lock,
            recovery,
            numbers.end,
            message,
            Some(scan.watermark.max(start.position)),
            held_from,
        )
    }

    #[allow(clippy::too_many_arguments, reason = "the one place where create and open meet")]
    fn assemble(
        options: &JournalOptions,
        store: SegmentStore,
        ring: MappedMemory,
        lock: DirectoryLock,
        recovery: Recovery,
        segments: u64,
        message: Option<String>,
        watermark: Option<u64>,
        held_from: u64,
    ) -> Result<Self, JournalError> {
        let directory = &options.directory;
        let no_memory = || JournalError::system(directory, "get memory for writing");
        let geometry = store.geometry;
        let end = recovery.durable;
        let zeros = segment::zeros(geometry.segment_bytes).map_err(no_memory())?;
        let mut facts = JournalFacts {
            sync: store.mode.name(),
            memory: if ring.locked() { "locked" } else { "prefaulted" },
            journal_id: store.journal_id,
            messages: message.into_iter().collect(),
        };
        if options.lock_memory && !ring.locked() {
            facts.messages.push(format!(
                "the journal's tail of {} MiB is faulted in but not locked in memory: the limit on locked memory (ulimit -l) \
                 is lower",
                options.ring_bytes >> 20
            ));
        }
        let positions = Arc::new(Positions::new(
            end,
            geometry.segment_start(segments),
            options.link_agents,
        ));
        positions.set_reclaimed(held_from);
        let tail = Arc::new(Tail::new(ring, geometry, Arc::clone(&positions), lock));
        let source = JournalSource::new(Arc::clone(&tail), store.clone());
        let mut syncer = Syncer::new(Arc::clone(&tail), store.clone(), options.gate.clone()).map_err(no_memory())?;
        if let Some(watermark) = watermark {
            if recovery.cut_bytes > 0 {
                recovery::clear_behind(&store, &zeros, end, segments)?;
            }
            // What the ring does not hold of it was read from the device itself; flushing makes it stay.
            let held = geometry.segment_start(geometry.segment_of(end).saturating_sub(1));
            syncer.write(watermark.min(end).max(held), end)?;
            for number in geometry.segment_of(watermark)..segments.min(geometry.segment_of(end) + 1) {
                let file = store.open_to_write(number)?;
                file.flush()
                    .map_err(JournalError::system(&file.path, "flush the segment"))?;
            }
            directory::sync_directory(directory)?;
        }
        let seed = Seed::new(store.journal_id);
        let epoch = store.epoch;
        let superblock = Superblock::open(
            directory,
            store.mode,
            store.journal_id,
            epoch,
            options.start.unwrap_or(JournalStart::BEGINNING).position,
            Arc::clone(&positions),
        )?;
        let ahead = u64::from(options.prepared_segments);
        let mut preparer = Preparer::new(store, Arc::clone(&positions), zeros, ahead);
        // All that are to stand ready do so before anyone asks: none is made while the first payments come.
        while positions.prepared() < geometry.segment_start(geometry.segment_of(end) + 1 + ahead) {
            match preparer.prepare() {
                Ok(true) => {}
                Ok(false) => break,
                // A switch that can still note that it has started answers inquiries, and takes payments when there is room.
                Err(error @ JournalError::NoSpace { .. })
                    if positions.prepared() >= geometry.segment_start(geometry.segment_of(end) + 1)
                        && positions.prepared() - end >= START_ROOM_BYTES =>
                {
                    facts.messages.push(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            appender: Appender::new(
                Arc::clone(&tail),
                seed,
                epoch,
                end,
                recovery.last_event,
                recovery.last_time,
            ),
            syncer,
            reader: TailReader::new(Arc::clone(&tail), end),
            view: TailView::new(tail),
            source,
            preparer,
            superblock: Arc::new(superblock),
            positions,
            recovery,
            facts,
        })
    }
}

fn map_ring(options: &JournalOptions) -> Result<MappedMemory, JournalError> {
    MappedMemory::new(options.ring_bytes as usize, options.lock_memory)
        .map_err(JournalError::system(&options.directory, "get memory for the tail"))
}

fn fill_with_chance(out: &mut [u8]) -> std::io::Result<()> {
    // SAFETY: room for as many bytes as are asked for.
    let drawn = unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
    if drawn == out.len() as isize {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
