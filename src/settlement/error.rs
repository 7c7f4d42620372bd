//! What can keep a window, or a day, from being settled or written.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::domain::WindowId;

/// Why files were not written, or a spool can't be used.
#[derive(Debug, Error)]
pub enum SettlementError {
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
    /// Bytes of the spool, or of what was written before, are not what was written, or are not there.
    #[error(
        "{}: {reason}; nothing is settled from it: write the window's files with `clearway settle report` from the journal, \
         or stop the switch, move the directories settlement/spool, register and snapshots away, and start again, so that \
         all three are made anew from the journal",
        .file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A file of another journal, another version or another kind.
    #[error("{}: {reason}", .file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What does not match.
        reason: String,
    },
    /// A window's payments do not come to what the engine has of it.
    #[error("invariant 7: window {window}: {what}")]
    Differs {
        /// The window.
        window: WindowId,
        /// What differs, with both values.
        what: String,
    },
    /// Files of the same name are there, and say something else.
    #[error(
        "{}: files are there already that are not what the journal gives: {names}; they were left as they are. Find out why \
         they differ (`clearway settle verify`); `--force` replaces them",
        .directory.display()
    )]
    Occupied {
        /// The window's or the day's directory.
        directory: PathBuf,
        /// The files that differ, are missing or are too many.
        names: String,
    },
    /// What was asked for is not there.
    #[error("{0}")]
    NotThere(String),
    /// Whoever asked for it has been told to stop.
    #[error("stopped before it was done; it is done again from the beginning")]
    Stopped,
}

impl SettlementError {
    /// Wraps what the system said about `file`.
    pub fn system(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System {
            file: file.to_owned(),
            action,
            source,
        }
    }

    /// Bytes that are not what was written.
    pub fn damaged(file: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            reason: reason.into(),
        }
    }

    /// True when it may be over by itself: the disk was full, a file could not be opened.
    #[must_use]
    pub const fn passes(&self) -> bool {
        matches!(self, Self::System { .. })
    }

    /// True when there was no room on the disk.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::System { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// True when an invariant does not hold: intake must stop.
    #[must_use]
    pub const fn is_breach(&self) -> bool {
        matches!(self, Self::Differs { .. })
    }
}
