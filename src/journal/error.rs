//! What can go wrong with a journal, with what an operator needs to act on it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A fault of the journal.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The settings cannot be right.
    #[error("journal settings: {0}")]
    Options(String),
    /// Another switch has the directory.
    #[error("{}: another switch is running on this journal (its lock is held); stop it first", .directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// `create` where there is a journal already.
    #[error("{}: there is a journal here already", .directory.display())]
    Exists {
        /// The directory.
        directory: PathBuf,
    },
    /// `open` where there is none.
    #[error("{}: there is no journal here", .directory.display())]
    Absent {
        /// The directory.
        directory: PathBuf,
    },
    /// A segment between two others is not there.
    #[error("{}: the segment is missing, though earlier and later ones are there; nothing was changed", .file.display())]
    SegmentMissing {
        /// The file that should be there.
        file: PathBuf,
    },
    /// What is asked for lies before the first segment that is still there.
    #[error(
        "{}: journal position {position} lies before what is kept, which begins with segment {first_segment}; begin at a \
         snapshot, or restore the older segments from the archive",
        .directory.display()
    )]
    NotKept {
        /// The journal's directory.
        directory: PathBuf,
        /// What was asked for.
        position: u64,
        /// The number of the first segment that is kept.
        first_segment: u64,
    },
    /// A segment belongs to another journal or was made with other settings.
    #[error("{}: {reason}", .file.display())]
    SegmentForeign {
        /// The segment file.
        file: PathBuf,
        /// What does not match.
        reason: String,
    },
    /// Bytes that had been durable are not what was written: somebody's money. Never cut, never repaired.
    #[error(
        "{} at offset {offset}: {reason}, though everything up to journal position {watermark} had been durable \
         (this is position {position}); the journal is damaged and nothing was changed: restore the file from a copy",
        .file.display()
    )]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where in it the first bad record begins.
        offset: u64,
        /// The same as a journal position.
        position: u64,
        /// What is known to have been durable.
        watermark: u64,
        /// What is wrong with the bytes.
        reason: &'static str,
    },
    /// The file system is full: no further segment can be made. Nothing is lost; try again when there is room.
    #[error("{}: no space for the next segment of {bytes} bytes; intake stops when the prepared ones are full", .file.display())]
    NoSpace {
        /// The segment that could not be made.
        file: PathBuf,
        /// How long it would have been.
        bytes: u64,
    },
    /// A durable write failed. What it carried is not durable and never will be in this run.
    #[error(
        "{}: a durable write of {bytes} bytes failed and is not tried again: {source}; look into the kernel's log, and start \
         again when the disk is sound: what was acknowledged is there",
        .file.display()
    )]
    WriteFailed {
        /// The segment file.
        file: PathBuf,
        /// How much was to be written.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// An earlier durable write failed.
    #[error("the journal takes no more: a durable write failed earlier in this run")]
    Poisoned,
    /// The switch may not write to the directory.
    #[error("{}: the journal can't be written: {advice}", .directory.display())]
    NotWritable {
        /// The directory.
        directory: PathBuf,
        /// Why, and what to do.
        advice: String,
    },
    /// Anything else the system refused.
    #[error("{}: cannot {action}: {source}", .file.display())]
    System {
        /// The file or directory.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl JournalError {
    /// Wraps what the system said about `file`.
    pub(super) fn system(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System {
            file: file.to_owned(),
            action,
            source,
        }
    }
}

/// There is no room to append: in the ring, because a reader or the disk is behind, or in prepared segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no room in the journal")]
pub struct Full;
