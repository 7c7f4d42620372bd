//! Reading a snapshot's bytes: in order, or on several threads straight to where they stay.
//!
//! No byte is handed out before the BLAKE3 of its piece was found to be the one that the snapshot's seal vouches for. Files
//! are read past the page cache where that is allowed: after a restart of the machine it is cold, and reading through it is
//! then much slower than the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::file::{BLOCK_BYTES, HASH_BYTES, PIECE_BYTES, piece_hash};
use crate::clearing::StateSource;
use crate::memory::ChunkedTable;

/// Bytes that one thread reads at a time.
const READ_BYTES: usize = 16 * PIECE_BYTES;
/// Threads that read, for each core: the others wait for the disk meanwhile.
const READERS_A_CORE: usize = 2;

/// A file that is read past the page cache where that is allowed, in whole blocks.
#[derive(Debug)]
pub(super) struct BlockFile {
    path: PathBuf,
    pub(super) file: File,
    direct: bool,
}

impl BlockFile {
    /// Opens it and reads its first block.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Box<[u8; BLOCK_BYTES]>)> {
        let direct = Self::open_as(path, true).and_then(|file| Ok((file.first_block()?, file)));
        let (block, file) = match direct {
            Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => {
                let file = Self::open_as(path, false)?;
                (file.first_block()?, file)
            }
            other => other?,
        };
        Ok((file, block))
    }

    fn open_as(path: &Path, direct: bool) -> io::Result<Self> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        Ok(Self {
            path: path.to_owned(),
            file: OpenOptions::new().read(true).custom_flags(flags).open(path)?,
            direct,
        })
    }

    /// The same once more, with a place of its own.
    fn another(&self) -> io::Result<Self> {
        Self::open_as(&self.path, self.direct)
    }

    fn first_block(&self) -> io::Result<Box<[u8; BLOCK_BYTES]>> {
        let mut block = aligned(BLOCK_BYTES)?;
        let part = block.parts_mut().next().expect("one block");
        if self.read_at(part, 0)? < BLOCK_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Box::new(block[0]))
    }

    /// Reads as much as there is, at multiples of a block.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match self.file.read_at(&mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Reads the bytes `from..to`, wherever they lie.
    pub(super) fn range(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let before = (from % BLOCK_BYTES as u64) as usize;
        let wanted = before + (to - from) as usize;
        let mut blocks = aligned(wanted)?;
        let mut read = 0;
        for part in blocks.parts_mut() {
            read += self.read_at(part, from - before as u64 + read as u64)?;
        }
        if read < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let all: Vec<u8> = blocks.chunks().flatten().flatten().copied().collect();
        Ok(all[before..wanted].to_vec())
    }

    /// Fills `parts` with what stands at `offset`.
    fn fill(&mut self, parts: &mut [&mut [u8]], offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        let mut slices: Vec<IoSliceMut<'_>> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            match self.file.read_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => IoSliceMut::advance_slices(&mut left, read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Blocks at a page's beginning.
fn aligned(bytes: usize) -> io::Result<ChunkedTable<[u8; BLOCK_BYTES]>> {
    ChunkedTable::zeroed(bytes.div_ceil(BLOCK_BYTES))
}

/// What a snapshot holds, each byte checked before it is given.
#[derive(Debug)]
pub struct SnapshotReader {
    file: BlockFile,
    /// Where the pieces begin in the file.
    start: u64,
    /// The pieces' hashes, and their bytes in all.
    hashes: Vec<[u8; HASH_BYTES]>,
    bytes: u64,
    /// How far it was read, and how far it may be.
    position: u64,
    end: u64,
    /// Checked bytes from `held_from` on.
    held: ChunkedTable<[u8; BLOCK_BYTES]>,
    held_from: u64,
    held_to: u64,
    threads: usize,
}

/// Pieces that one thread reads at a time, and where they go.
struct Share<'a> {
    from: u64,
    parts: Vec<&'a mut [u8]>,
}

impl SnapshotReader {
    pub(super) fn new(
        file: BlockFile,
        start: u64,
        hashes: Vec<[u8; HASH_BYTES]>,
        bytes: u64,
        threads: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            file,
            start,
            hashes,
            bytes,
            position: 0,
            end: 0,
            held: aligned(READ_BYTES)?,
            held_from: 0,
            held_to: 0,
            threads,
        })
    }

    /// Lets `bytes` more be read.
    pub(super) fn allow(&mut self, bytes: u64) {
        self.end += bytes;
        assert!(self.end <= self.bytes, "{} of {} bytes", self.end, self.bytes);
    }

    /// Reads and checks the pieces from `position` on, which is at the beginning of one.
    fn hold(&mut self) -> io::Result<()> {
        let from = self.position;
        let to = self.bytes.min(from + READ_BYTES as u64);
        (self.held_from, self.held_to) = (from, from);
        let mut offset = self.start + from;
        let mut left = (to - from) as usize;
        let mut pieces = self.hashes.iter().skip((from / PIECE_BYTES as u64) as usize);
        for part in self.held.parts_mut() {
            let wanted = left.min(part.len());
            let part = &mut part[..wanted.next_multiple_of(BLOCK_BYTES)];
            if self.file.read_at(part, offset)? < wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for piece in part[..wanted].chunks(PIECE_BYTES) {
                check([piece], pieces.next(), offset)?;
                offset += piece.len() as u64;
            }
            left -= wanted;
        }
        self.held_to = to;
        Ok(())
    }

    /// What was read and checked from `position` on: at least a byte.
    fn held(&mut self) -> io::Result<&[u8]> {
        if self.position == self.held_to {
            self.hold()?;
        }
        let at = (self.position - self.held_from) as usize;
        let wanted = (self.held_to.min(self.end) - self.position) as usize;
        let mut skipped = 0;
        for chunk in self.held.chunks() {
            let chunk: &[u8] = bytemuck::cast_slice(chunk);
            if at < skipped + chunk.len() {
                let chunk = &chunk[at - skipped..];
                return Ok(&chunk[..wanted.min(chunk.len())]);
            }
            skipped += chunk.len();
        }
        unreachable!("byte {at} of {} held", self.held_to - self.held_from)
    }

    /// Reads and checks shares of whole pieces, on several threads.
    fn fill_shares(&self, shares: Vec<Share<'_>>) -> io::Result<()> {
        let threads = (self.threads * READERS_A_CORE).min(shares.len());
        let failed = AtomicBool::new(false);
        let shares = Mutex::new(shares.into_iter());
        let next = || {
            let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
            shares.next().filter(|_| !failed.load(Ordering::Relaxed))
        };
        let work = || -> io::Result<()> {
            let mut file = self.file.another()?;
            while let Some(mut share) = next() {
                file.fill(&mut share.parts, self.start + share.from)?;
                self.check(&share)?;
            }
            Ok(())
        };
        let work = || work().inspect_err(|_| failed.store(true, Ordering::Relaxed));
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |all, other| {
                all.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })
    }

    fn check(&self, share: &Share<'_>) -> io::Result<()> {
        let first = (share.from / PIECE_BYTES as u64) as usize;
        let mut left = PIECE_BYTES;
        let mut piece = Vec::new();
        let mut number = first;
        for part in &share.parts {
            let mut part = &**part;
            while part.len() >= left {
                let (own, rest) = part.split_at(left);
                piece.push(own);
                let offset = self.start + (number * PIECE_BYTES) as u64;
                check(piece.drain(..), self.hashes.get(number), offset)?;
                (part, left, number) = (rest, PIECE_BYTES, number + 1);
            }
            left -= part.len();
            piece.push(part);
        }
        Ok(())
    }
}

/// Holds the BLAKE3 of a piece against what it must be.
fn check<'a>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    stated: Option<&[u8; HASH_BYTES]>,
    offset: u64,
) -> io::Result<()> {
    if stated == Some(&piece_hash(parts)) {
        return Ok(());
    }
    let reason = format!("the BLAKE3 of the piece at offset {offset} does not match its bytes");
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

impl Read for SnapshotReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.position == self.end || bytes.is_empty() {
            return Ok(0);
        }
        let held = self.held()?;
        let read = held.len().min(bytes.len());
        bytes[..read].copy_from_slice(&held[..read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl StateSource for SnapshotReader {
    fn left(&self) -> u64 {
        self.end - self.position
    }

    fn fill(&mut self, parts: Vec<&mut [u8]>) -> io::Result<()> {
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        if left as u64 > self.left() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut parts = parts.into_iter();
        let mut part: &mut [u8] = &mut [];
        // What is held already.
        while left > 0 && self.position < self.held_to {
            if part.is_empty() {
                part = parts.next().unwrap_or_default();
            }
            let held = part.len().min((self.held_to - self.position) as usize);
            let (own, rest) = part.split_at_mut(held);
            self.read_exact(own)?;
            (part, left) = (rest, left - held);
        }
        // Whole pieces.
        let mut shares = Vec::new();
        while left >= PIECE_BYTES {
            let mut wanted = left.min(READ_BYTES) / PIECE_BYTES * PIECE_BYTES;
            let mut share = Share {
                from: self.position,
                parts: Vec::new(),
            };
            (self.position, left) = (self.position + wanted as u64, left - wanted);
            while wanted > 0 {
                if part.is_empty() {
                    part = parts.next().unwrap_or_default();
                }
                let (own, rest) = part.split_at_mut(part.len().min(wanted));
                wanted -= own.len();
                share.parts.push(own);
                part = rest;
            }
            shares.push(share);
        }
        if !shares.is_empty() {
            self.fill_shares(shares)?;
            (self.held_from, self.held_to) = (self.position, self.position);
        }
        self.read_exact(part)?;
        parts.try_for_each(|part| self.read_exact(part))
    }

    fn threads(&self) -> usize {
        self.threads
    }
}
