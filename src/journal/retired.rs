//! The segment files of a live journal, seen by the one who retires them.

use std::fs;
use std::path::{Path, PathBuf};

use super::directory::{list, segment_path, sync_directory};
use super::error::JournalError;
use super::files::header_of;

/// Which segment files there are, prepared ones included.
#[derive(Debug)]
pub struct SealedSegments {
    directory: PathBuf,
    segment_bytes: u64,
    oldest: u64,
    count: u64,
}

impl SealedSegments {
    /// Looks at the journal in `directory`.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn of(directory: &Path) -> Result<Self, JournalError> {
        let mut numbers = list(directory)?;
        let header = loop {
            let header = header_of(directory, numbers.start);
            let now = list(directory)?;
            // The one that was listed first may be in use as a later one by now.
            if header.is_ok() || now.start == numbers.start {
                break header?;
            }
            numbers = now;
        };
        Ok(Self {
            directory: directory.to_owned(),
            segment_bytes: header.segment_bytes,
            oldest: numbers.start,
            count: numbers.end - numbers.start,
        })
    }

    /// The length of a segment.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The number of the oldest one.
    #[must_use]
    pub const fn oldest(&self) -> u64 {
        self.oldest
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Removes the oldest segment for good, if it ends at or before `retained_from`; true if it did. One that is being used
    /// again as a later one by now is left.
    ///
    /// # Errors
    /// The system refused it.
    pub fn remove_oldest(&self, retained_from: u64) -> Result<bool, JournalError> {
        if (self.oldest + 1) * self.segment_bytes > retained_from {
            return Ok(false);
        }
        let path = segment_path(&self.directory, self.oldest);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(JournalError::system(&path, "remove the retired segment")(source)),
        }
        sync_directory(&self.directory)?;
        Ok(true)
    }
}
