//! A run: sorted records in a file that is never changed, found through the tree in it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::block::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, Filed, IndexEntry, LEVEL_FOOTER, LEVEL_HEADER, LEVEL_RECORDS, RegisterKey,
    RunFooter, RunHeader, check, entry, tag_of,
};
use super::error::RegisterError;
use super::reader::RunReader;
use crate::domain::BusinessDate;

/// What a run's file name says: the runs of a day are numbered from 0, and a merged one has the numbers of its parts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RunName {
    /// The number of its oldest part.
    pub first: u32,
    /// The number of its newest part.
    pub last: u32,
}

impl RunName {
    /// The file's name for runs that hold `what`.
    #[must_use]
    pub fn file(&self, what: &str) -> String {
        format!("{what}-{:06}-{:06}.run", self.first, self.last)
    }

    /// Reads a file's name.
    #[must_use]
    pub fn parse(file: &str, what: &str) -> Option<Self> {
        let numbers = file.strip_prefix(what)?.strip_prefix('-')?.strip_suffix(".run")?;
        let (first, last) = numbers.split_once('-')?;
        let name = Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        };
        (name.first <= name.last).then_some(name)
    }

    /// True when everything of `other` is in this one.
    #[must_use]
    pub const fn holds(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// One run. Its file is opened anew for each look-up: a register has more runs than a process should hold files.
#[derive(Debug)]
pub struct Run {
    path: PathBuf,
    header: RunHeader,
    footer: RunFooter,
    tag: u64,
    blocks: u64,
    root: OnceLock<Box<[u8; BLOCK_BYTES]>>,
}

impl Run {
    pub(super) fn new(path: PathBuf, header: RunHeader, footer: RunFooter, blocks: u64) -> Self {
        Self {
            path,
            header,
            footer,
            tag: tag_of(&header),
            blocks,
            root: OnceLock::new(),
        }
    }

    /// Opens a run and checks its two ends.
    ///
    /// # Errors
    /// It is damaged, of another journal or of another kind.
    pub fn open<T: Filed>(path: &Path, journal_id: [u8; 16]) -> Result<Self, RegisterError> {
        let foreign = |reason: String| RegisterError::Foreign {
            file: path.to_owned(),
            reason,
        };
        let file = open_file(path)?;
        let length = file
            .metadata()
            .map_err(RegisterError::system(path, "read the file's length"))?
            .len();
        let blocks = length / BLOCK_BYTES as u64;
        if !length.is_multiple_of(BLOCK_BYTES as u64) || blocks < 3 {
            return Err(damaged(path, blocks, "the file is cut short"));
        }
        let mut block = [0; BLOCK_BYTES];
        read_block(&file, path, 0, &mut block)?;
        let (level, _) = check(&block, 0, None).map_err(|reason| damaged(path, 0, reason))?;
        let header: RunHeader = entry(&block, 0);
        if level != LEVEL_HEADER || header.magic != RunHeader::MAGIC {
            return Err(foreign("not a file of the register".to_owned()));
        }
        if header.version != RunHeader::VERSION || header.record_bytes as usize != size_of::<T>() {
            return Err(foreign(format!(
                "a file of the register in version {} with records of {} bytes, and this release reads version {} with {}: \
                 go on with the release that wrote it, or move the directories register and snapshots away and start \
                 again, so that both are made anew from the journal",
                header.version,
                header.record_bytes,
                RunHeader::VERSION,
                size_of::<T>()
            )));
        }
        if header.journal_id != journal_id {
            return Err(foreign("the register of another journal".to_owned()));
        }
        let last = blocks - 1;
        read_block(&file, path, last, &mut block)?;
        let tag = tag_of(&header);
        let (level, _) = check(&block, last, Some(tag)).map_err(|reason| damaged(path, last, reason))?;
        let footer: RunFooter = entry(&block, 0);
        if level != LEVEL_FOOTER || footer.root == 0 || footer.root >= last {
            return Err(damaged(path, last, "the last block is not a footer"));
        }
        Ok(Self::new(path.to_owned(), header, footer, blocks))
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its place among the runs of its day.
    #[must_use]
    pub const fn name(&self) -> RunName {
        RunName {
            first: self.header.first,
            last: self.header.last,
        }
    }

    /// Its day.
    #[must_use]
    pub const fn date(&self) -> BusinessDate {
        BusinessDate(self.header.date)
    }

    /// How many records it has.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.footer.records
    }

    /// Its file's length.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES as u64
    }

    pub(super) const fn rank(&self) -> u32 {
        self.header.rank
    }

    pub(super) const fn hash(&self) -> [u8; 32] {
        self.footer.hash
    }

    /// Looks a key up: one block read a level of the tree.
    ///
    /// # Errors
    /// A block on the way is damaged or can't be read.
    pub fn find<T: Filed>(&self, key: RegisterKey) -> Result<Option<T>, RegisterError> {
        let mut block = [0; BLOCK_BYTES];
        let Some((_, entries, _)) = self.descend(key, &mut block)? else {
            return Ok(None);
        };
        let (mut low, mut high) = (0, entries);
        while low < high {
            let middle = (low + high) / 2;
            let record: T = entry(&block, middle);
            match record.key().cmp(&key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(record)),
            }
        }
        Ok(None)
    }

    /// The records with keys from `from` up to and without `end`, in order, at most `limit`.
    ///
    /// # Errors
    /// A block on the way is damaged or can't be read.
    pub fn range<T: Filed>(&self, from: RegisterKey, end: RegisterKey, limit: usize) -> Result<Vec<T>, RegisterError> {
        let mut found = Vec::new();
        if end <= self.footer.first || from > self.footer.last {
            return Ok(found);
        }
        let mut block = [0; BLOCK_BYTES];
        // Where nothing lies at or before `from`, the first block is where to begin.
        let from_here = self.descend(from.max(self.footer.first), &mut block)?;
        let Some((number, _, file)) = from_here else {
            return Ok(found);
        };
        let mut reader = RunReader::<T>::at(file, self, number, 1);
        while found.len() < limit {
            let Some(record) = reader.next()? else { break };
            if record.key() >= end {
                break;
            }
            if record.key() >= from {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Leads to the block of records in which `key` would be; `None` when it is out of the run's range.
    fn descend(
        &self,
        key: RegisterKey,
        block: &mut [u8; BLOCK_BYTES],
    ) -> Result<Option<(u64, usize, File)>, RegisterError> {
        if key < self.footer.first || key > self.footer.last {
            return Ok(None);
        }
        let file = open_file(&self.path)?;
        let mut number = self.footer.root;
        if self.root.get().is_none() {
            let mut root = Box::new([0; BLOCK_BYTES]);
            self.read(&file, number, &mut root)?;
            let _another_was_faster = self.root.set(root);
        }
        if let Some(root) = self.root.get() {
            block.copy_from_slice(&root[..]);
        }
        let mut above = LEVEL_FOOTER;
        loop {
            let (level, entries) = check(block, number, Some(self.tag)).map_err(|e| damaged(&self.path, number, e))?;
            if level >= above || entries == 0 || BLOCK_HEADER_BYTES + entries > BLOCK_BYTES {
                return Err(damaged(&self.path, number, "the tree does not lead down"));
            }
            if level == LEVEL_RECORDS {
                return Ok(Some((number, entries, file)));
            }
            above = level;
            // The last child that begins at or before the key; the first begins at or before every key of the run.
            let (mut low, mut high) = (0, entries);
            while low < high {
                let middle = (low + high) / 2;
                if entry::<IndexEntry>(block, middle).first <= key {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            number = entry::<IndexEntry>(block, low.max(1) - 1).block;
            self.read(&file, number, block)?;
        }
    }

    fn read(&self, file: &File, number: u64, block: &mut [u8; BLOCK_BYTES]) -> Result<(), RegisterError> {
        if number >= self.blocks {
            return Err(damaged(&self.path, number, "the tree leads out of the file"));
        }
        read_block(file, &self.path, number, block)
    }

    /// Reads the whole run and holds it against its footer's hash and count.
    ///
    /// # Errors
    /// It is damaged or can't be read.
    pub fn verify<T: Filed>(&self) -> Result<(), RegisterError> {
        let mut reader = RunReader::<T>::new(self)?;
        while reader.next()?.is_some() {}
        Ok(())
    }

    pub(super) const fn tag(&self) -> u64 {
        self.tag
    }

    pub(super) const fn block_count(&self) -> u64 {
        self.blocks
    }
}

pub(super) fn open_file(path: &Path) -> Result<File, RegisterError> {
    File::open(path).map_err(RegisterError::system(path, "open the file"))
}

pub(super) fn damaged(path: &Path, block: u64, reason: &'static str) -> RegisterError {
    RegisterError::Damaged {
        file: path.to_owned(),
        offset: block * BLOCK_BYTES as u64,
        reason,
    }
}

fn read_block(file: &File, path: &Path, number: u64, block: &mut [u8; BLOCK_BYTES]) -> Result<(), RegisterError> {
    file.read_exact_at(block, number * BLOCK_BYTES as u64)
        .map_err(RegisterError::system(path, "read the file"))
}
