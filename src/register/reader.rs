//! Reading a run from one end to the other, for merging and checking.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::block::{BLOCK_BYTES, Filed, LEVEL_RECORDS, check, entries_of, entry};
use super::error::RegisterError;
use super::run::{Run, damaged, open_file};

/// Blocks read at a time when all of a run is wanted.
const BLOCKS_AHEAD: usize = 64;

/// The records of a run in order. At the end of a run that was read whole, its hash and count are held against the footer.
pub(super) struct RunReader<T> {
    path: PathBuf,
    file: File,
    tag: u64,
    /// The footer's block.
    end: u64,
    /// The first block that is not in the buffer.
    next_block: u64,
    buffer: Vec<u8>,
    /// The block in the buffer that is read, its entries and the next of them.
    block: usize,
    entries: usize,
    at: usize,
    ahead: usize,
    hasher: Option<blake3::Hasher>,
    records: u64,
    expected: (u64, [u8; 32]),
    kind: std::marker::PhantomData<T>,
}

impl<T: Filed> RunReader<T> {
    /// Reads all of `run`.
    pub(super) fn new(run: &Run) -> Result<Self, RegisterError> {
        let mut reader = Self::at(open_file(run.path())?, run, 0, BLOCKS_AHEAD);
        reader.hasher = Some(blake3::Hasher::new());
        Ok(reader)
    }

    /// Reads `run` from block `number` on.
    pub(super) fn at(file: File, run: &Run, number: u64, ahead: usize) -> Self {
        Self {
            path: run.path().to_owned(),
            file,
            tag: run.tag(),
            end: run.block_count() - 1,
            next_block: number,
            buffer: Vec::new(),
            block: 0,
            entries: 0,
            at: 0,
            ahead,
            hasher: None,
            records: 0,
            expected: (run.records(), run.hash()),
            kind: std::marker::PhantomData,
        }
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Option<T>, RegisterError> {
        while self.at == self.entries {
            if !self.next_block_of_records()? {
                return Ok(None);
            }
        }
        let block = &self.buffer[self.block * BLOCK_BYTES..(self.block + 1) * BLOCK_BYTES];
        let record = entry(block, self.at);
        self.at += 1;
        self.records += 1;
        Ok(Some(record))
    }

    fn next_block_of_records(&mut self) -> Result<bool, RegisterError> {
        loop {
            self.block += 1;
            if self.block * BLOCK_BYTES >= self.buffer.len() && !self.fill()? {
                return Ok(false);
            }
            let number = self.next_block - (self.buffer.len() / BLOCK_BYTES - self.block) as u64;
            let block = &self.buffer[self.block * BLOCK_BYTES..(self.block + 1) * BLOCK_BYTES];
            let (level, entries) =
                check(block, number, Some(self.tag)).map_err(|reason| damaged(&self.path, number, reason))?;
            if level == LEVEL_RECORDS {
                if entries > entries_of::<T>() {
                    return Err(damaged(&self.path, number, "the block holds more records than it can"));
                }
                (self.entries, self.at) = (entries, 0);
                return Ok(true);
            }
        }
    }

    /// Reads the next blocks; false at the footer.
    fn fill(&mut self) -> Result<bool, RegisterError> {
        (self.entries, self.at, self.block) = (0, 0, 0);
        let blocks = (self.end - self.next_block).min(self.ahead as u64) as usize;
        if blocks == 0 {
            self.buffer.clear();
            let Some(hasher) = self.hasher.take() else {
                return Ok(false);
            };
            if (self.records, *hasher.finalize().as_bytes()) != self.expected {
                return Err(damaged(&self.path, self.end, "the run is not what its footer says"));
            }
            return Ok(false);
        }
        self.buffer.resize(blocks * BLOCK_BYTES, 0);
        self.file
            .read_exact_at(&mut self.buffer, self.next_block * BLOCK_BYTES as u64)
            .map_err(RegisterError::system(&self.path, "read the file"))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.buffer);
        }
        self.next_block += blocks as u64;
        Ok(true)
    }
}
