//! Makes the chain longer as the journal becomes durable, a piece at a time, behind everyone's back.
//!
//! It reads the segment files past the page cache (a direct write must not meet a cached page) and only below `durable`.
//! At a start it takes the active segment again from its beginning, and holds what it finds against what the file says.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blake3::Hash;

use super::chain::{Chain, ChainLink, ChainStart};
use super::chain_error::{ChainError, ChainFailure};
use super::chain_file::ChainFile;
use super::digest::SegmentDigest;
use super::directory::{list, segment_path};
use super::error::JournalError;
use super::files::header_of;
use super::layout::{BLOCK_BYTES, Geometry};
use crate::memory::MappedMemory;

/// What is read at a time.
pub(super) const PIECE_BYTES: u64 = 256 << 10;
/// What a crash may take off the chain's end at most; it is made again then.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The one who writes a journal's chain.
#[derive(Debug)]
pub struct ChainWriter {
    directory: PathBuf,
    geometry: Geometry,
    file: ChainFile,
    chain: Chain,
    /// Opened when it has something to be read: the next one may not be made yet.
    segment: Option<SegmentReader>,
    digest: SegmentDigest,
    /// Links of this segment that the file has already.
    known: VecDeque<ChainLink>,
    flushed: Instant,
    unflushed: bool,
}

impl ChainWriter {
    /// Opens the chain of the journal in `directory`, or begins one where its oldest segment begins.
    ///
    /// # Errors
    /// The journal or the chain can't be read, or the chain is not what was written.
    pub fn open(directory: &Path) -> Result<Self, ChainFailure> {
        let first = header_of(directory, list(directory)?.start)?;
        let geometry = Geometry {
            segment_bytes: first.segment_bytes,
        };
        let start = ChainStart {
            journal_id: first.journal_id,
            segment_bytes: first.segment_bytes,
            position: geometry.segment_start(first.number),
            before: None,
        };
        let (file, chain) = ChainFile::open(directory, start)?;
        let number = geometry.segment_of(chain.end());
        Ok(Self {
            directory: directory.to_owned(),
            geometry,
            known: chain.of_segment(number).1.iter().copied().collect(),
            file,
            chain,
            segment: None,
            digest: SegmentDigest::new(geometry, number),
            flushed: Instant::now(),
            unflushed: false,
        })
    }

    /// The chain as far as it has come.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Forgets links that nobody asks for any more, in memory alone.
    pub fn forget_before(&mut self, position: u64) {
        let active = self
            .geometry
            .segment_start(self.geometry.segment_of(self.digest.position()));
        self.chain.forget_before(position.min(active));
    }

    /// True when it is worth while to begin the chain's file anew at `position`, where the journal's oldest segment begins:
    /// more than half of what the file is about lies before.
    #[must_use]
    pub fn is_mostly_before(&self, position: u64) -> bool {
        self.file.is_mostly_before(position, self.chain.end())
    }

    /// Begins the chain's file anew at `position`, where a segment begins; `before` is the value that the archive has for
    /// the chain there. False, and nothing is changed, where the file has another.
    ///
    /// # Errors
    /// The file is not what was written, or can't be read or written.
    pub fn begin_anew(&mut self, position: u64, before: Hash) -> Result<bool, ChainFailure> {
        let begun = self.file.begin_anew(position, before)?;
        self.unflushed &= !begun;
        Ok(begun)
    }

    /// Takes the journal's next piece, if it is durable. True if there was one.
    ///
    /// # Errors
    /// What was chained before is not in the journal any more; or the files can't be read or written.
    pub fn step(&mut self, durable: u64) -> Result<bool, ChainFailure> {
        if self.chain.end() > durable {
            return Err(ChainError::Short {
                end_name: "end is",
                end: durable,
                chained: self.chain.end(),
                what: "its end was cut off, or the disk has lost what it said it had",
            }
            .into());
        }
        let from = self.digest.position();
        let number = self.geometry.segment_of(from);
        let segment_end = self.geometry.segment_start(number + 1);
        let to = durable.min(segment_end).min(from + PIECE_BYTES);
        if to <= from {
            return self.flush_when_due();
        }
        let mut found = Vec::new();
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => none.insert(SegmentReader::open(&self.directory, number)?),
        };
        let bytes = segment.read(self.geometry.offset(from), to - from)?;
        self.digest
            .take(bytes, &mut found)
            .map_err(|reason| JournalError::SegmentForeign {
                file: segment_path(&self.directory, number),
                reason: format!(
                    "between offsets {} and {}: {reason}",
                    self.geometry.offset(from),
                    self.geometry.offset(to)
                ),
            })?;
        let mut fresh = Vec::new();
        for entry in found {
            match self.known.pop_front() {
                None => fresh.push(self.chain.push(entry)),
                Some(link) if link.entry == entry => {}
                Some(link) => return Err(self.rewritten(&link).into()),
            }
        }
        let ends_segment = to == segment_end;
        if !fresh.is_empty() {
            let flush = ends_segment || fresh.iter().any(|link| link.entry.window.is_some());
            let appended = self.file.append(&fresh, flush);
            appended.map_err(ChainFailure::system(&self.file.path))?;
            self.unflushed = !flush;
        }
        if ends_segment {
            self.segment = None;
            self.digest = SegmentDigest::new(self.geometry, number + 1);
        }
        self.flush_when_due()?;
        Ok(true)
    }

    fn flush_when_due(&mut self) -> Result<bool, ChainFailure> {
        if self.unflushed && self.flushed.elapsed() >= FLUSH_EVERY {
            let flushed = self.file.append(&[], true);
            flushed.map_err(ChainFailure::system(&self.file.path))?;
            self.flushed = Instant::now();
            self.unflushed = false;
        }
        Ok(false)
    }

    fn rewritten(&self, link: &ChainLink) -> ChainError {
        let links = self.chain.links();
        let at = links.partition_point(|other| other.entry.to <= link.entry.to && other.value != link.value);
        let number = self.geometry.segment_of(link.entry.from);
        ChainError::Rewritten {
            file: segment_path(&self.directory, number),
            offset: self.geometry.offset(link.entry.from),
            from: link.entry.from,
            to: link.entry.to,
            after: links[..at].iter().rev().find_map(|link| link.entry.window),
            before: links[at..].iter().find_map(|link| link.entry.window),
            batches: 1,
        }
    }
}

/// Reads a segment file past the page cache where the file system lets it.
#[derive(Debug)]
pub(super) struct SegmentReader {
    path: PathBuf,
    file: File,
    memory: MappedMemory,
}

impl SegmentReader {
    pub(super) fn open(directory: &Path, number: u64) -> Result<Self, JournalError> {
        let path = segment_path(directory, number);
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let file = open(libc::O_DIRECT)
            .or_else(|refused| match refused.raw_os_error() {
                Some(libc::EINVAL | libc::EOPNOTSUPP) => open(0),
                _ => Err(refused),
            })
            .map_err(JournalError::system(&path, "open the segment"))?;
        let memory = MappedMemory::new((PIECE_BYTES + BLOCK_BYTES) as usize, false)
            .map_err(JournalError::system(&path, "get memory for reading"))?;
        Ok(Self { path, file, memory })
    }

    /// `length` bytes from `offset` on, at most [`PIECE_BYTES`].
    ///
    /// # Panics
    /// When more is asked for.
    pub(super) fn read(&mut self, offset: u64, length: u64) -> Result<&[u8], JournalError> {
        assert!(length <= PIECE_BYTES, "{length} bytes at a time");
        let skip = offset % BLOCK_BYTES;
        let whole = (skip + length).next_multiple_of(BLOCK_BYTES) as usize;
        assert!(whole <= self.memory.len());
        // SAFETY: the mapping is at least that long, is initialised by the kernel, and `&mut self` is the only way to it.
        let memory = unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), whole) };
        self.file
            .read_exact_at(memory, offset - skip)
            .map_err(JournalError::system(&self.path, "read the segment"))?;
        Ok(&memory[skip as usize..(skip + length) as usize])
    }
}
