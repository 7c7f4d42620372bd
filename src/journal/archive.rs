//! The archive: sealed segments, compressed and kept for good, away from the live journal.
//!
//! ```text
//! NNNNNNNNNNNN.seg.zst   the segment's bytes, zstd
//! NNNNNNNNNNNN.toml      its manifest (manifest.rs)
//! ```
//! A segment comes in by steps, each of which a crash may be the last of: it is compressed to a file of another name,
//! flushed, read back from the disk, decompressed and held against what was read; then it gets its name, then its
//! manifest is written and gets its name. Whatever has no manifest is made again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use blake3::Hash;

use super::archive_adding::Adding;
use super::archive_checking::Checking;
use super::archive_error::ArchiveError;
use super::chain::ChainLink;
use super::directory::{DirectoryLock, remove_unfinished};
use super::error::JournalError;
use super::manifest::{Manifest, manifest_path};

/// An archive's directory, and which segments it has.
#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    segments: BTreeSet<u64>,
    /// Held by the one who adds to it.
    lock: Option<DirectoryLock>,
}

impl Archive {
    /// True when `directory` holds an archive.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        listed(directory).is_ok_and(|segments| !segments.is_empty())
    }

    /// Opens the archive in `directory` to read it.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn open(directory: &Path) -> Result<Self, ArchiveError> {
        let segments = listed(directory)?;
        if segments.is_empty() {
            return Err(ArchiveError::Absent {
                directory: directory.to_owned(),
            });
        }
        Ok(Self {
            directory: directory.to_owned(),
            segments,
            lock: None,
        })
    }

    /// Opens the archive in `directory`, or makes one, to add to it; what a crash left half made is removed.
    ///
    /// # Errors
    /// Another process adds to it, it is another journal's, or the system refuses something.
    pub fn open_to_add(directory: &Path, journal_id: [u8; 16], segment_bytes: u64) -> Result<Self, ArchiveError> {
        fs::create_dir_all(directory).map_err(ArchiveError::system(directory, "make the directory"))?;
        let lock = DirectoryLock::take(directory).map_err(|refused| match refused {
            JournalError::InUse { directory } => ArchiveError::InUse { directory },
            refused => refused.into(),
        })?;
        remove_unfinished(directory)?;
        let archive = Self {
            directory: directory.to_owned(),
            segments: listed(directory)?,
            lock: Some(lock),
        };
        if let Some(&last) = archive.segments.last() {
            let manifest = archive.manifest(last)?;
            if (manifest.journal_id, manifest.segment_bytes) != (journal_id, segment_bytes) {
                return Err(ArchiveError::Foreign {
                    directory: directory.to_owned(),
                });
            }
        }
        Ok(archive)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The segments that have a manifest.
    #[must_use]
    pub const fn segments(&self) -> &BTreeSet<u64> {
        &self.segments
    }

    /// What its files take, bytes.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub fn file_bytes(&self) -> Result<u64, ArchiveError> {
        let system = ArchiveError::system(&self.directory, "list the directory");
        let mut bytes = 0;
        for entry in fs::read_dir(&self.directory).map_err(&system)? {
            bytes += entry.and_then(|entry| entry.metadata()).map_err(&system)?.len();
        }
        Ok(bytes)
    }

    /// What it says of segment `number`.
    ///
    /// # Errors
    /// The manifest can't be read or is not what was written.
    pub fn manifest(&self, number: u64) -> Result<Manifest, ArchiveError> {
        Manifest::read(&manifest_path(&self.directory, number), number)
    }

    /// Begins to add segment `number` of the journal in `journal`; the bytes must be those of `links`, where the chain has
    /// come that far, and are chained on `before` otherwise.
    ///
    /// # Errors
    /// The archive's last segment is not the one that `before` follows on, the segment can't be read or the archive not
    /// written.
    pub fn add(
        &mut self,
        journal: &Path,
        number: u64,
        level: i32,
        before: Hash,
        links: Option<Vec<ChainLink>>,
    ) -> Result<Adding, ArchiveError> {
        assert!(self.lock.is_some(), "the archive was opened to be read");
        if let Some(&last) = self.segments.last()
            && self.manifest(last)?.chain_after() != before
        {
            return Err(ArchiveError::Parted {
                directory: self.directory.clone(),
                segment: last,
                next: number,
            });
        }
        Adding::begin(self, journal, number, level, before, links)
    }

    /// Counts a segment that was added.
    pub fn added(&mut self, manifest: &Manifest) {
        self.segments.insert(manifest.segment);
    }

    /// Begins to check segment `number` by decompressing it.
    ///
    /// # Errors
    /// It, or its manifest, can't be read.
    pub fn check(&self, number: u64) -> Result<Checking, ArchiveError> {
        let manifest = self.manifest(number)?;
        Checking::begin(&compressed_path(&self.directory, number), manifest)
    }

    /// The same, and holds the segment in `journal` against it, too.
    ///
    /// # Errors
    /// As [`Archive::check`], or the segment can't be read.
    pub fn check_against(&self, journal: &Path, number: u64) -> Result<Checking, ArchiveError> {
        let mut checking = self.check(number)?;
        checking.hold_against(journal)?;
        Ok(checking)
    }

    /// Decompresses segment `number` into `out`, and checks it.
    ///
    /// # Errors
    /// It is not what was written, or something can't be read or written.
    pub fn restore(&self, number: u64, out: &mut dyn Write) -> Result<Manifest, ArchiveError> {
        let mut checking = self.check(number)?;
        while !checking.step_to(&mut |bytes| out.write_all(bytes))? {}
        Ok(checking.into_expected())
    }
}

/// Segment `number` in an archive.
pub(super) fn compressed_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}.seg.zst"))
}

fn listed(directory: &Path) -> Result<BTreeSet<u64>, ArchiveError> {
    let system = ArchiveError::system(directory, "list the directory");
    let mut segments = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(&system)? {
        let name = entry.map_err(&system)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".toml"));
        let number = number
            .filter(|digits| digits.len() == 12)
            .and_then(|digits| digits.parse().ok());
        segments.extend(number.filter(|&number: &u64| compressed_path(directory, number).exists()));
    }
    Ok(segments)
}
