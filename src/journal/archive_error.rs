//! What can go wrong with an archive, with what an operator needs to act on it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::chain_error::ChainFailure;
use super::error::JournalError;

/// What can go wrong with an archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The chain can't be read, or is not what was written.
    #[error(transparent)]
    Chain(#[from] ChainFailure),
    /// A manifest is not what was written.
    #[error("{}: the manifest can't be used: {reason}; restore it from a copy of the archive", .file.display())]
    Manifest {
        /// The manifest.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A compressed segment is not what was written.
    #[error("{}: {reason}; restore it from a copy of the archive", .file.display())]
    Damaged {
        /// The compressed segment.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The segment is not what it was when it was chained.
    #[error("{}: the segment is not what it was when it was chained, and is not archived: `clearway journal verify` tells more", .file.display())]
    Rewritten {
        /// The segment.
        file: PathBuf,
    },
    /// A segment is neither here nor there.
    #[error("{}: segment {segment} is missing: {reason}", .directory.display())]
    Missing {
        /// The archive or journal.
        directory: PathBuf,
        /// Which.
        segment: u64,
        /// Why it should be there.
        reason: &'static str,
    },
    /// The archive is another journal's.
    #[error("{}: the archive is of another journal, or of segments of another length", .directory.display())]
    Foreign {
        /// The archive.
        directory: PathBuf,
    },
    /// Another process has it.
    #[error("{}: another switch or command adds to this archive (its lock is held); let it end first", .directory.display())]
    InUse {
        /// The archive.
        directory: PathBuf,
    },
    /// A file that is to be restored is there, and is another.
    #[error("{}: the file is there already and is not what the archive has; restore to another place", .file.display())]
    Other {
        /// The file.
        file: PathBuf,
    },
    /// The journal's segment is another than the archive's.
    #[error(
        "{}: the segment is not the one that the archive has, and is kept: was one of the two put back from a copy? Name a \
         new place for the archive, and keep the old one", .file.display()
    )]
    OtherLive {
        /// The segment.
        file: PathBuf,
    },
    /// The journal went other ways behind what the archive has.
    #[error(
        "{}: the archive ends with segment {segment}, and the chain of the journal's segment {next} does not go on from it: \
         was the journal put back from a copy, or its chain begun anew? Name a new place for the archive, and keep the old \
         one", .directory.display()
    )]
    Parted {
        /// The archive.
        directory: PathBuf,
        /// Its last segment.
        segment: u64,
        /// The journal's that is not added.
        next: u64,
    },
    /// There is none.
    #[error("{}: there is no archive here (no file NNNNNNNNNNNN.toml)", .directory.display())]
    Absent {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refused something.
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

impl ArchiveError {
    pub(super) fn system(file: &Path, action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System {
            file: file.to_owned(),
            action,
            source,
        }
    }
}
