//! What a journal is opened with, and what it then says about itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::JournalError;
use super::layout::{RECORD_BYTES_MAX, SEGMENT_HEADER_BYTES};
use crate::domain::UtcNanos;

/// How writes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMode {
    /// Directly, and where the file system refuses that with `pwrite` and `fdatasync`; which of them is in
    /// [`JournalFacts::sync`].
    #[default]
    Auto,
    /// `O_DIRECT | O_DSYNC`, or not at all.
    Direct,
    /// `pwrite` and `fdatasync`.
    Fdatasync,
}

/// A door before and behind each durable write, for tests: it may hold the write, or fail it.
pub trait WriteGate: Send + Sync {
    /// Called by the syncer with the positions the write will cover.
    ///
    /// # Errors
    /// The write fails with this error, as if the disk had refused it.
    fn before_write(&self, from: u64, to: u64) -> io::Result<()>;

    /// Called when the write has been made and before it counts as durable.
    ///
    /// # Errors
    /// The write fails with this error, though its bytes may be on the disk.
    fn after_write(&self, _from: u64, _to: u64) -> io::Result<()> {
        Ok(())
    }
}

/// What a journal is opened with.
#[derive(Clone)]
pub struct JournalOptions {
    /// Where the segments are; made if it is not there.
    pub directory: PathBuf,
    /// The length of a segment file, a power of two; fixed for a journal's life.
    pub segment_bytes: u64,
    /// The length of the live tail in memory, a power of two, at least two segments.
    pub ring_bytes: u64,
    /// How writes are made durable.
    pub sync: SyncMode,
    /// Whether to lock the tail in memory, where the host allows it.
    pub lock_memory: bool,
    /// How many empty segments shall stand ready behind the active one; at least 1.
    pub prepared_segments: u32,
    /// How many link agents copy requests out of the tail.
    pub link_agents: usize,
    /// Where to begin reading what an earlier run wrote: the place of a snapshot, whose state holds everything before it.
    /// `None`: at the journal's beginning, which must be there.
    pub start: Option<JournalStart>,
    /// A door before each durable write, for tests.
    pub gate: Option<Arc<dyn WriteGate>>,
}

impl std::fmt::Debug for JournalOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalOptions")
            .field("directory", &self.directory)
            .field("segment_bytes", &self.segment_bytes)
            .field("ring_bytes", &self.ring_bytes)
            .field("sync", &self.sync)
            .field("gate", &self.gate.is_some())
            .finish_non_exhaustive()
    }
}

impl JournalOptions {
    /// The shortest segment there can be: its header and a few of the longest records.
    pub const SEGMENT_BYTES_MIN: u64 = SEGMENT_HEADER_BYTES + 3 * RECORD_BYTES_MAX;

    pub(super) fn check(&self) -> Result<(), JournalError> {
        let refuse = |what: String| Err(JournalError::Options(what));
        if !self.segment_bytes.is_power_of_two() || self.segment_bytes < Self::SEGMENT_BYTES_MIN {
            return refuse(format!(
                "a segment of {} bytes: it must be a power of two and at least {}",
                self.segment_bytes,
                Self::SEGMENT_BYTES_MIN
            ));
        }
        if !self.ring_bytes.is_power_of_two() || self.ring_bytes < 2 * self.segment_bytes {
            return refuse(format!(
                "a tail of {} bytes: it must be a power of two and at least two segments ({} bytes)",
                self.ring_bytes,
                2 * self.segment_bytes
            ));
        }
        if self.prepared_segments == 0 {
            return refuse("no segment prepared ahead: at least one must be".to_owned());
        }
        Ok(())
    }
}

/// A place to begin reading at: what is known of the journal before it.
///
/// A reader gives it ([`JournalReader::here`](super::JournalReader::here)), a snapshot keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalStart {
    /// Where the next record begins, headers counted: a journal position.
    pub position: u64,
    /// The number of the next event.
    pub next_event: u64,
    /// The time of the last record before it.
    pub last_time: UtcNanos,
    /// The highest start of the switch that wrote a record before it; 0 when there is none.
    pub epoch: u32,
}

impl JournalStart {
    /// Before the first event of all.
    pub const BEGINNING: Self = Self {
        position: SEGMENT_HEADER_BYTES,
        next_event: 1,
        last_time: UtcNanos(0),
        epoch: 0,
    };
}

/// What a journal turned out to be on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalFacts {
    /// `direct` or `fdatasync`.
    pub sync: &'static str,
    /// `locked` or `prefaulted`.
    pub memory: &'static str,
    /// The journal's identity, given at its creation.
    pub journal_id: [u8; 16],
    /// What was fallen back to, and why, in words.
    pub messages: Vec<String>,
}

/// What was found when the journal was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Where the journal ends, all of it durable; the first new record goes here.
    pub durable: u64,
    /// The number of the last event; 0 = none.
    pub last_event: u64,
    /// The time of the last record.
    pub last_time: UtcNanos,
    /// Bytes behind the end that were cut, because they had never been durable.
    pub cut_bytes: u64,
    /// What an operator should know, in words.
    pub messages: Vec<String>,
}
