//! What can go wrong with a snapshot.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A fault of a snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file is not what was written, or not of this journal or release: another one is taken instead.
    #[error("{}: {reason}; it is not used", .file.display())]
    Unusable {
        /// The snapshot.
        file: PathBuf,
        /// What is wrong with it.
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

impl SnapshotError {
    pub(super) fn system(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System {
            file: file.to_owned(),
            action,
            source,
        }
    }

    pub(super) fn unusable(file: &Path, reason: impl ToString) -> Self {
        Self::Unusable {
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }
}
