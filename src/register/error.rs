//! What can go wrong with the register.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A fault of the register.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Bytes that were read are not what was written.
    #[error(
        "{} at offset {offset}: {reason}; the register's file is damaged: stop the switch, move the directories register and \
         snapshots away, and start again, so that both are made anew from the journal",
        .file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file that must be there is not.
    #[error(
        "{}: runs {first} to {last} of {what} are missing; put the files back, or move the directories register and \
         snapshots away and start again, so that both are made anew from the journal",
        .directory.display()
    )]
    Missing {
        /// The day's directory.
        directory: PathBuf,
        /// What the runs hold.
        what: &'static str,
        /// The first run that is not there.
        first: u32,
        /// The last one.
        last: u32,
    },
    /// A file of another journal, another version or another kind.
    #[error("{}: {reason}", .file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What does not match.
        reason: String,
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

impl RegisterError {
    /// Wraps what the system said about `file`.
    pub(super) fn system(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System {
            file: file.to_owned(),
            action,
            source,
        }
    }

    /// True when there was no room on the disk: nothing is lost, try again later.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::System { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
