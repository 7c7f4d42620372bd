//! The bytes of a snapshot.

use std::fs::File;
use std::io::{self, Write};

use bytemuck::{Pod, Zeroable};

use crate::clearing::StateHash;
use crate::domain::UtcNanos;
use crate::journal::JournalStart;

/// Bytes written at a time, and bytes that may wait for the disk: many at once would hold up the journal's own writes.
const WRITE_BYTES: usize = 1 << 20;
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;
/// The header's block, and what direct reads begin and end at.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Each so many bytes have a hash of their own, so that several threads can check them.
pub(super) const PIECE_BYTES: usize = 256 << 10;
const _: () = assert!(WRITE_BYTES.is_multiple_of(PIECE_BYTES) && PIECE_BYTES.is_multiple_of(BLOCK_BYTES));

/// Which moment a snapshot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPoint {
    /// Where the journal goes on behind it.
    pub start: JournalStart,
    /// The state's hash.
    pub state: StateHash,
}

impl SnapshotPoint {
    /// The last event applied.
    #[must_use]
    pub const fn event(&self) -> u64 {
        self.start.next_event - 1
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) crc: u32,
    pub(super) journal_id: [u8; 16],
    pub(super) event: u64,
    pub(super) time_ns: u64,
    pub(super) position: u64,
    pub(super) engine_bytes: u64,
    pub(super) state: [u8; 32],
    pub(super) payment_runs: u32,
    pub(super) word_runs: u32,
    pub(super) epoch: u32,
    pub(super) reserved: [u32; 5],
}

pub(super) const HEADER_BYTES: usize = 128;
pub(super) const HASH_BYTES: usize = 32;
const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

impl Header {
    pub(super) const MAGIC: [u8; 8] = *b"CLRWYSNP";
    pub(super) const VERSION: u32 = 3;

    pub(super) fn sealed(mut self) -> Self {
        self.crc = 0;
        self.crc = crc32c::crc32c(bytemuck::bytes_of(&self));
        self
    }

    /// The file's first block.
    pub(super) fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(self));
        block
    }

    pub(super) fn parse(block: &[u8; BLOCK_BYTES]) -> Result<Self, String> {
        let header: Self = bytemuck::pod_read_unaligned(&block[..HEADER_BYTES]);
        if header.magic != Self::MAGIC {
            return Err("not a snapshot".to_owned());
        }
        if header.version != Self::VERSION {
            return Err(format!(
                "a snapshot of version {}, and this release reads version {}",
                header.version,
                Self::VERSION
            ));
        }
        if header.sealed().crc != header.crc {
            return Err("the header's CRC does not match".to_owned());
        }
        if block[HEADER_BYTES..].iter().any(|&byte| byte != 0) {
            return Err("there is something behind the header".to_owned());
        }
        Ok(header)
    }

    pub(super) const fn point(&self) -> SnapshotPoint {
        SnapshotPoint {
            start: JournalStart {
                position: self.position,
                next_event: self.event.saturating_add(1),
                last_time: UtcNanos(self.time_ns),
                epoch: self.epoch,
            },
            state: StateHash(self.state),
        }
    }

    /// The bytes that pieces are made of: the engine's and the runs'.
    pub(super) fn body_bytes(&self) -> Option<u64> {
        let runs = 8 * (u64::from(self.payment_runs) + u64::from(self.word_runs));
        self.engine_bytes.checked_add(runs)
    }

    /// The file's length, if one so long can be.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        let body = self.body_bytes()?;
        let hashes = body.div_ceil(PIECE_BYTES as u64) * HASH_BYTES as u64;
        body.checked_add(hashes + (BLOCK_BYTES + HASH_BYTES) as u64)
    }
}

/// The hash of a piece that lies in parts.
pub(super) fn piece_hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The hash that closes a snapshot: of its first block and of the hashes of all pieces.
pub(super) fn seal(header: &Header, hashes: &[[u8; HASH_BYTES]]) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header.block());
    hasher.update(hashes.as_flattened());
    *hasher.finalize().as_bytes()
}

/// Writes to a file, hashing and counting, and never leaves much for the disk to do at once.
pub(super) struct HashingWriter {
    pub(super) file: File,
    hashes: Vec<[u8; HASH_BYTES]>,
    pending: Vec<u8>,
    unsynced: u64,
    pub(super) bytes: u64,
}

impl HashingWriter {
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            hashes: Vec::new(),
            pending: Vec::with_capacity(WRITE_BYTES),
            unsynced: 0,
            bytes: 0,
        }
    }

    /// The hashes of all pieces that were written, all of them given to the kernel; the last one may be short.
    pub(super) fn finish(&mut self) -> io::Result<&[[u8; HASH_BYTES]]> {
        self.write_out()?;
        Ok(&self.hashes)
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.hashes
            .extend(self.pending.chunks(PIECE_BYTES).map(|piece| piece_hash([piece])));
        self.file.write_all(&self.pending)?;
        self.unsynced += self.pending.len() as u64;
        self.pending.clear();
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(WRITE_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        if self.pending.len() == WRITE_BYTES {
            self.write_out()?;
        }
        Ok(taken)
    }

    /// Nothing: pieces are whole but for the last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
