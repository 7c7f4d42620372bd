//! What can be wrong with a chain, and why one can't be read or made longer.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::digest::WindowMark;
use super::error::JournalError;
use crate::domain::WindowId;

/// What can be wrong with a chain, or with a journal held against it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ChainError {
    /// A line of the chain's file is not what was written.
    #[error("{}, line {line}: {reason}: the chain's file was changed; restore it from a copy", .file.display())]
    Line {
        /// The chain's file, or the manifest that has the line.
        file: PathBuf,
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The chain is another journal's.
    #[error("{}: the chain is of another journal, or of segments of another length", .file.display())]
    Foreign {
        /// The chain's file.
        file: PathBuf,
    },
    /// Bytes are not what they were when they were chained.
    #[error(
        "{} at offset {offset}: journal positions {from} to {to} are not what they were when they were chained, {}: \
         history was rewritten; {batches} batches of the journal differ", .file.display(), Between(.after, .before)
    )]
    Rewritten {
        /// The segment file.
        file: PathBuf,
        /// Where in it the batch begins.
        offset: u64,
        /// The same as a journal position.
        from: u64,
        /// Where what was chained ends.
        to: u64,
        /// The last checkpoint that still holds.
        after: Option<WindowMark>,
        /// The first that does not.
        before: Option<WindowMark>,
        /// How many batches differ in all.
        batches: u64,
    },
    /// The journal ends before the chain does.
    #[error("the journal's {end_name} at position {end}, and the chain was made up to {chained}: {what}")]
    Short {
        /// `end is` or `beginning is`.
        end_name: &'static str,
        /// Where.
        end: u64,
        /// Where the chain is.
        chained: u64,
        /// What that means.
        what: &'static str,
    },
}

struct Between<'a>(&'a Option<WindowMark>, &'a Option<WindowMark>);

impl std::fmt::Display for Between<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(mark) => write!(f, "between the checkpoint of {mark}")?,
            None => f.write_str("between the beginning")?,
        }
        match self.1 {
            Some(mark) => write!(f, " and that of {mark}"),
            None => f.write_str(" and the end"),
        }
    }
}

impl std::fmt::Display for WindowMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {}", self.event)?;
        if self.window != WindowId::NONE {
            write!(f, " (window {})", self.window)?;
        }
        Ok(())
    }
}

/// Why a chain could not be read or made longer.
#[derive(Debug, Error)]
pub enum ChainFailure {
    /// What stands there is wrong.
    #[error(transparent)]
    Finding(#[from] ChainError),
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system refused.
    #[error("{}: cannot read or write the chain: {source}", .file.display())]
    System {
        /// The chain's file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ChainFailure {
    pub(super) fn system(file: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::System {
            file: file.to_owned(),
            source,
        }
    }
}
