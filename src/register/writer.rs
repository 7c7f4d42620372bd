//! Writing a run: records in the order of their keys, the tree over them on the way.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::block::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, Filed, INDEX_ENTRIES, IndexEntry, LEVEL_FOOTER, LEVEL_HEADER, LEVEL_RECORDS,
    RegisterKey, RunFooter, RunHeader, entries_of, seal, tag_of,
};
use super::door::FileDoor;
use super::error::RegisterError;
use super::run::Run;

/// Bytes written at a time.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes that may wait for the disk: many at once would hold up the journal's own writes.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

struct Level {
    block: Box<[u8; BLOCK_BYTES]>,
    entries: usize,
    first: RegisterKey,
}

/// A run that is being written.
pub(super) struct RunWriter<T> {
    path: PathBuf,
    temporary: PathBuf,
    door: FileDoor,
    file: File,
    header: RunHeader,
    tag: u64,
    /// Records at 0, the tree's levels above.
    levels: Vec<Level>,
    pending: Vec<u8>,
    hasher: blake3::Hasher,
    blocks: u64,
    unsynced: u64,
    records: u64,
    first: RegisterKey,
    last: RegisterKey,
    kind: std::marker::PhantomData<T>,
}

impl<T: Filed> RunWriter<T> {
    /// Begins a run that will stand at `path`.
    pub(super) fn begin(path: PathBuf, header: RunHeader, door: &FileDoor) -> Result<Self, RegisterError> {
        let temporary = path.with_extension("new");
        let file = door
            .make(&temporary)
            .map_err(RegisterError::system(&temporary, "make a file of the register"))?;
        let mut writer = Self {
            path,
            temporary,
            door: door.clone(),
            file,
            header,
            tag: tag_of(&header),
            levels: Vec::new(),
            pending: Vec::with_capacity(WRITE_BYTES + BLOCK_BYTES),
            hasher: blake3::Hasher::new(),
            blocks: 0,
            unsynced: 0,
            records: 0,
            first: RegisterKey::default(),
            last: RegisterKey::default(),
            kind: std::marker::PhantomData,
        };
        let mut block = empty_block();
        let bytes = bytemuck::bytes_of(&header);
        block[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + bytes.len()].copy_from_slice(bytes);
        writer.put(&mut block, LEVEL_HEADER, 1)?;
        Ok(writer)
    }

    /// Adds the next record.
    ///
    /// # Panics
    /// Its key is not above the last one's.
    pub(super) fn push(&mut self, record: &T) -> Result<(), RegisterError> {
        let key = record.key();
        if self.records == 0 {
            self.first = key;
        } else {
            assert!(
                self.last < key,
                "records of a run are sorted: {:?} then {key:?}",
                self.last
            );
        }
        (self.last, self.records) = (key, self.records + 1);
        self.add(0, key, bytemuck::bytes_of(record), entries_of::<T>())
    }

    /// Closes the run, makes it durable and gives it its name.
    pub(super) fn finish(mut self) -> Result<Run, RegisterError> {
        assert!(self.records > 0, "a run holds a record at least");
        // Closing a level may make another above it; the topmost has one block only, the root.
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.close(level)?;
            level += 1;
        }
        let (root, _) = self.write_out(level)?;
        let footer = RunFooter {
            records: self.records,
            root,
            first: self.first,
            last: self.last,
            hash: *self.hasher.finalize().as_bytes(),
        };
        let mut block = empty_block();
        let bytes = bytemuck::bytes_of(&footer);
        block[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + bytes.len()].copy_from_slice(bytes);
        self.put(&mut block, LEVEL_FOOTER, 1)?;
        self.flush()?;
        let refused = |action| RegisterError::system(&self.temporary, action);
        self.door
            .flush(&self.file, &self.temporary)
            .map_err(refused("flush the file"))?;
        self.door
            .rename(&self.temporary, &self.path)
            .map_err(refused("give the file its name"))?;
        sync_directory(self.path.parent().unwrap_or(Path::new(".")), &self.door)?;
        Ok(Run::new(self.path.clone(), self.header, footer, self.blocks))
    }

    fn add(&mut self, level: usize, key: RegisterKey, bytes: &[u8], entries_max: usize) -> Result<(), RegisterError> {
        if level == self.levels.len() {
            self.levels.push(Level {
                block: empty_block(),
                entries: 0,
                first: key,
            });
        }
        if self.levels[level].entries == entries_max {
            self.close(level)?;
        }
        let place = &mut self.levels[level];
        if place.entries == 0 {
            place.first = key;
        }
        let at = BLOCK_HEADER_BYTES + place.entries * bytes.len();
        place.block[at..at + bytes.len()].copy_from_slice(bytes);
        place.entries += 1;
        Ok(())
    }

    /// Writes a level's block out and tells the level above.
    fn close(&mut self, level: usize) -> Result<(), RegisterError> {
        let (number, first) = self.write_out(level)?;
        let up = IndexEntry { first, block: number };
        self.add(level + 1, first, bytemuck::bytes_of(&up), INDEX_ENTRIES)
    }

    /// Writes a level's block out; gives its number and first key.
    fn write_out(&mut self, level: usize) -> Result<(u64, RegisterKey), RegisterError> {
        let place = &mut self.levels[level];
        let mut block = std::mem::replace(&mut place.block, empty_block());
        let (entries, first) = (std::mem::take(&mut place.entries), place.first);
        let number = self.put(&mut block, LEVEL_RECORDS + level as u8, entries)?;
        Ok((number, first))
    }

    fn put(&mut self, block: &mut [u8; BLOCK_BYTES], level: u8, entries: usize) -> Result<u64, RegisterError> {
        let number = self.blocks;
        seal(block, level, entries, number, self.tag);
        if level != LEVEL_FOOTER {
            self.hasher.update(&block[..]);
        }
        self.pending.extend_from_slice(&block[..]);
        self.blocks += 1;
        if self.pending.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(number)
    }

    fn flush(&mut self) -> Result<(), RegisterError> {
        let refused = |action| RegisterError::system(&self.temporary, action);
        self.door
            .write(&self.temporary)
            .and_then(|()| self.file.write_all(&self.pending))
            .map_err(refused("write the file"))?;
        self.unsynced += self.pending.len() as u64;
        self.pending.clear();
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            self.file.sync_data().map_err(refused("flush the file"))?;
        }
        Ok(())
    }
}

fn empty_block() -> Box<[u8; BLOCK_BYTES]> {
    Box::new([0; BLOCK_BYTES])
}

pub(super) fn sync_directory(directory: &Path, door: &FileDoor) -> Result<(), RegisterError> {
    door.flush_directory(directory)
        .map_err(RegisterError::system(directory, "flush the directory"))
}
