//! The superblock: what is good to know before a journal is read, in two copies.
//!
//! ```text
//! file "superblock", two blocks of 4096 bytes; what is written n-th goes to block n mod 2
//!
//! block  0 magic "CLRWYSUP" │ 8 version u32 │ 12 epoch u32 │ 16 journal id 16 bytes │ 32 sequence u64
//!       40 retained from u64 │ 48 newest snapshot's place, 32 bytes │ 80 the one before, 32 bytes
//!      112 crc u32 (CRC-32C of the 112 bytes before) │ 116 zeros … 4096
//!
//! place  0 position u64 (0: there is none) │ 8 next event u64 │ 16 last time u64 │ 24 epoch u32 │ 28 zeros
//! ```
//! The copy with the higher sequence counts. A write goes to the other one, so that a torn write leaves the last word as it
//! was. Nothing rests on either copy: the segments alone say what is durable, and snapshots can be found by listing them.
//! Who has lost both reads more than he would have to, and may remove no segment before two snapshots are known again.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};

use super::directory::sync_directory;
use super::error::JournalError;
use super::layout::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use super::options::JournalStart;
use super::positions::Positions;
use super::segment::{WriteMode, write_all};
use crate::domain::UtcNanos;
use crate::memory::MappedMemory;

const FILE_NAME: &str = "superblock";
const MAGIC: [u8; 8] = *b"CLRWYSUP";
const VERSION: u32 = 1;
const COPIES: u64 = 2;
const CRC_OFFSET: usize = std::mem::offset_of!(Copy, crc);

/// A snapshot's place as it lies in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Place {
    position: u64,
    next_event: u64,
    last_time_ns: u64,
    epoch: u32,
    reserved: u32,
}

impl Place {
    fn of(start: Option<JournalStart>) -> Self {
        start.map_or(Self::zeroed(), |start| Self {
            position: start.position,
            next_event: start.next_event,
            last_time_ns: start.last_time.0,
            epoch: start.epoch,
            reserved: 0,
        })
    }

    fn start(self) -> Option<JournalStart> {
        (self.position >= SEGMENT_HEADER_BYTES).then_some(JournalStart {
            position: self.position,
            next_event: self.next_event,
            last_time: UtcNanos(self.last_time_ns),
            epoch: self.epoch,
        })
    }
}

/// One copy as it lies in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Copy {
    magic: [u8; 8],
    version: u32,
    epoch: u32,
    journal_id: [u8; 16],
    sequence: u64,
    retained_from: u64,
    snapshots: [Place; 2],
    crc: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Copy>() == 120 && CRC_OFFSET == 112);

impl Copy {
    fn checksum(&self) -> u32 {
        crc32c::crc32c(&bytemuck::bytes_of(self)[..CRC_OFFSET])
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let copy: Self = bytemuck::pod_read_unaligned(bytes.get(..size_of::<Self>())?);
        (copy.magic == MAGIC && copy.version == VERSION && copy.crc == copy.checksum()).then_some(copy)
    }
}

/// What a superblock says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SuperblockFacts {
    /// The last start of the switch that wrote it.
    pub epoch: u32,
    /// Segments that end at or before this journal position need not be kept in the journal's directory.
    pub retained_from: u64,
    /// The places of the newest snapshot and of the one before it.
    pub snapshots: [Option<JournalStart>; 2],
}

impl SuperblockFacts {
    /// Where the lower of the two snapshots begins: what lies behind it is kept whatever retention wishes. 0 = everything,
    /// while there are not two.
    #[must_use]
    pub fn snapshots_from(&self) -> u64 {
        match self.snapshots {
            [Some(one), Some(other)] => one.position.min(other.position),
            [..] => 0,
        }
    }
}

/// The superblock of an open journal. Written by those who take snapshots and those who remove segments; never waited for
/// by a stage.
#[derive(Debug)]
pub struct Superblock {
    path: PathBuf,
    mode: WriteMode,
    positions: Arc<Positions>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    journal_id: [u8; 16],
    sequence: u64,
    facts: SuperblockFacts,
    file: File,
    /// One block, written from.
    block: MappedMemory,
}

/// True when a switch has written the journal in `directory`.
pub(super) fn exists(directory: &Path) -> bool {
    directory.join(FILE_NAME).exists()
}

/// What the superblock in the journal's `directory` says; nothing where it has none, or no whole one.
#[must_use]
pub fn superblock_facts(directory: &Path, journal_id: [u8; 16]) -> SuperblockFacts {
    read(&directory.join(FILE_NAME), journal_id).1
}

/// The highest sequence of a whole copy that belongs to this journal, and what it says.
fn read(path: &Path, journal_id: [u8; 16]) -> (u64, SuperblockFacts) {
    let Ok(bytes) = std::fs::read(path) else {
        return (0, SuperblockFacts::default());
    };
    let copies = bytes.chunks(BLOCK_BYTES as usize).filter_map(Copy::parse);
    let newest = copies
        .filter(|copy| copy.journal_id == journal_id)
        .max_by_key(|copy| copy.sequence);
    newest.map_or((0, SuperblockFacts::default()), |copy| {
        let facts = SuperblockFacts {
            epoch: copy.epoch,
            retained_from: copy.retained_from,
            snapshots: copy.snapshots.map(Place::start),
        };
        (copy.sequence, facts)
    })
}

impl Superblock {
    /// Opens or makes the superblock of the journal `journal_id` and writes that start `epoch` has begun, which reads from
    /// journal position `reads_from` on: what lies behind that is kept, though an earlier run would have let it go.
    pub(super) fn open(
        directory: &Path,
        mode: WriteMode,
        journal_id: [u8; 16],
        epoch: u32,
        reads_from: u64,
        positions: Arc<Positions>,
    ) -> Result<Self, JournalError> {
        let path = directory.join(FILE_NAME);
        let (sequence, known) = read(&path, journal_id);
        let facts = SuperblockFacts {
            epoch,
            retained_from: known.retained_from.min(reads_from),
            ..known
        };
        let block = MappedMemory::new(BLOCK_BYTES as usize, false)
            .map_err(JournalError::system(&path, "get memory for writing"))?;
        let flags = match mode {
            WriteMode::Direct => libc::O_DIRECT | libc::O_DSYNC,
            WriteMode::Fdatasync => 0,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags)
            .open(&path)
            .map_err(JournalError::system(&path, "open the superblock"))?;
        // Room for both copies is taken at once: a start on a full disk must find it. Where it can't be asked for, or there
        // is none for a file that was made without, the write says so.
        // SAFETY: a call on an open descriptor.
        let _tried = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, (COPIES * BLOCK_BYTES) as i64) };
        let superblock = Self {
            path,
            mode,
            state: Mutex::new(State {
                journal_id,
                sequence,
                facts,
                file,
                block,
            }),
            positions,
        };
        superblock.write(&mut superblock.state())?;
        sync_directory(directory)?;
        superblock.positions.set_retained_from(facts.retained_from);
        Ok(superblock)
    }

    /// Says in the superblock of the journal `journal_id`, which no switch has, that what lies behind `position` is kept
    /// again. Nothing to do where there is none, or it says so.
    pub(super) fn keep_again(directory: &Path, journal_id: [u8; 16], position: u64) -> Result<(), JournalError> {
        let known = superblock_facts(directory, journal_id);
        if known.retained_from > position {
            let nobodys = Arc::new(Positions::new(0, 0, 0));
            Self::open(
                directory,
                WriteMode::Fdatasync,
                journal_id,
                known.epoch,
                position,
                nobodys,
            )?;
        }
        Ok(())
    }

    /// What it says now.
    #[must_use]
    pub fn facts(&self) -> SuperblockFacts {
        self.state().facts
    }

    /// A snapshot at `place` is on stable storage, newer than all others: a start may begin there. What is known of one
    /// at or behind it is forgotten.
    ///
    /// # Errors
    /// It could not be written; then it says what it said before.
    pub fn add_snapshot(&self, place: JournalStart) -> Result<(), JournalError> {
        self.change(|facts| {
            let before = facts.snapshots.into_iter().flatten();
            let older = before.filter(|known| known.position < place.position);
            facts.snapshots = [Some(place), older.max_by_key(|known| known.position)];
        })
    }

    /// The snapshot at `place` turned out not to be what was written, or was removed.
    ///
    /// # Errors
    /// It could not be written; then it says what it said before.
    pub fn forget_snapshot(&self, place: JournalStart) -> Result<(), JournalError> {
        self.change(|facts| {
            let kept = facts.snapshots.map(|known| known.filter(|known| *known != place));
            facts.snapshots = if kept[0].is_some() { kept } else { [kept[1], None] };
        })
    }

    /// Nothing before `position` need be kept in the journal's directory any more, as far as the caller is concerned. What
    /// the older of two snapshots begins at is kept all the same, and everything while there are not two. Returns from
    /// where on is kept now; segments that end before it may be removed, or are used again.
    ///
    /// # Errors
    /// It could not be written; then nothing more may be removed than before.
    pub fn retain_from(&self, position: u64) -> Result<u64, JournalError> {
        let mut retained = 0;
        self.change(|facts| {
            facts.retained_from = facts.retained_from.max(position.min(facts.snapshots_from()));
            retained = facts.retained_from;
        })?;
        // Only now: who removes a segment relies on what is on stable storage.
        self.positions.set_retained_from(retained);
        Ok(retained)
    }

    fn change(&self, change: impl FnOnce(&mut SuperblockFacts)) -> Result<(), JournalError> {
        let mut state = self.state();
        let before = state.facts;
        change(&mut state.facts);
        if state.facts == before {
            return Ok(());
        }
        let written = self.write(&mut state);
        if written.is_err() {
            state.facts = before;
        }
        written
    }

    fn write(&self, state: &mut State) -> Result<(), JournalError> {
        let sequence = state.sequence + 1;
        let mut copy = Copy {
            magic: MAGIC,
            version: VERSION,
            epoch: state.facts.epoch,
            journal_id: state.journal_id,
            sequence,
            retained_from: state.facts.retained_from,
            snapshots: state.facts.snapshots.map(Place::of),
            crc: 0,
            reserved: 0,
        };
        copy.crc = copy.checksum();
        let bytes = bytemuck::bytes_of(&copy);
        let offset = sequence % COPIES * BLOCK_BYTES;
        // SAFETY: the block is longer than a copy and, under the lock, this call's alone.
        let written = unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), state.block.as_ptr(), bytes.len());
            write_all(&state.file, &[(state.block.as_ptr(), state.block.len())], offset)
        };
        let written = written.and_then(|()| match self.mode {
            WriteMode::Direct => Ok(()),
            WriteMode::Fdatasync => state.file.sync_data(),
        });
        // After a failure nobody knows what is in that copy: it is the one to write next, too, or both could be lost.
        state.sequence = sequence + u64::from(written.is_err());
        written.map_err(JournalError::system(&self.path, "write the superblock"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left behind is at worst a block that was not written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [7; 16];

    fn place(number: u64) -> JournalStart {
        JournalStart {
            position: number << 20,
            next_event: number * 1_000,
            last_time: UtcNanos(number),
            epoch: 3,
        }
    }

    fn open(directory: &Path) -> Superblock {
        let positions = Arc::new(Positions::new(0, 0, 0));
        let (mode, _) = WriteMode::choose(directory, crate::journal::SyncMode::Auto).unwrap();
        Superblock::open(directory, mode, ID, 3, u64::MAX, positions).unwrap()
    }

    #[test]
    fn no_torn_write_of_the_superblock_loses_what_it_said_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let superblock = open(directory.path());
        // Once for each of the two copies.
        for number in 1..=4 {
            let (before, old) = (std::fs::read(&path).unwrap(), superblock.facts());
            superblock.add_snapshot(place(number)).unwrap();
            let (after, new) = (std::fs::read(&path).unwrap(), superblock.facts());
            assert_ne!(old, new);
            let changed: Vec<usize> = (0..after.len())
                .filter(|&at| before.get(at) != Some(&after[at]))
                .collect();
            let block = changed[0] / BLOCK_BYTES as usize * BLOCK_BYTES as usize;
            assert!(
                changed
                    .iter()
                    .all(|at| (block..block + BLOCK_BYTES as usize).contains(at))
            );
            for cut in 0..=size_of::<Copy>() {
                let mut torn = before.clone();
                torn.resize(after.len(), 0);
                torn[block..block + cut].copy_from_slice(&after[block..block + cut]);
                std::fs::write(&path, &torn).unwrap();
                let said = superblock_facts(directory.path(), ID);
                let whole = torn[block..] == after[block..];
                assert_eq!(said, if whole { new } else { old }, "write {number} torn at {cut}");
            }
            // Torn the other way about, its end there and its beginning not.
            for cut in 1..CRC_OFFSET {
                let mut torn = after.clone();
                torn[block..block + cut].copy_from_slice(&before[block..block + cut]);
                std::fs::write(&path, &torn).unwrap();
                let said = superblock_facts(directory.path(), ID);
                assert!(
                    said == old || (said == new && torn == after),
                    "write {number} torn at {cut}: {said:?}"
                );
            }
            std::fs::write(&path, &after).unwrap();
        }
    }

    #[test]
    fn either_copy_may_be_destroyed_and_another_journals_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let superblock = open(directory.path());
        superblock.add_snapshot(place(1)).unwrap();
        let old = superblock.facts();
        superblock.add_snapshot(place(2)).unwrap();
        let new = superblock.facts();
        let whole = std::fs::read(&path).unwrap();
        let mut found = Vec::new();
        for block in [0, BLOCK_BYTES as usize] {
            let mut destroyed = whole.clone();
            destroyed[block..block + BLOCK_BYTES as usize].fill(0xA5);
            std::fs::write(&path, destroyed).unwrap();
            found.push(superblock_facts(directory.path(), ID));
        }
        assert!(found.contains(&old) && found.contains(&new), "{found:?}");
        std::fs::write(&path, vec![0xA5; whole.len()]).unwrap();
        assert_eq!(superblock_facts(directory.path(), ID), SuperblockFacts::default());
        std::fs::write(&path, whole).unwrap();
        assert_eq!(superblock_facts(directory.path(), [8; 16]), SuperblockFacts::default());
        assert_eq!(open(directory.path()).facts(), new);
    }

    #[test]
    fn what_the_older_of_two_snapshots_begins_at_is_kept_whatever_retention_wishes() {
        let directory = tempfile::tempdir().unwrap();
        let superblock = open(directory.path());
        assert_eq!(superblock.retain_from(u64::MAX).unwrap(), 0);
        superblock.add_snapshot(place(1)).unwrap();
        assert_eq!(superblock.retain_from(u64::MAX).unwrap(), 0);
        superblock.add_snapshot(place(2)).unwrap();
        assert_eq!(superblock.retain_from(100).unwrap(), 100);
        assert_eq!(superblock.retain_from(u64::MAX).unwrap(), place(1).position);
        superblock.forget_snapshot(place(2)).unwrap();
        assert_eq!(superblock.facts().snapshots, [Some(place(1)), None]);
        superblock.add_snapshot(place(3)).unwrap();
        superblock.add_snapshot(place(3)).unwrap();
        assert_eq!(superblock.facts().snapshots, [Some(place(3)), Some(place(1))]);
        // Whatever order they came in: none is left that lies behind the newest.
        superblock.add_snapshot(place(9)).unwrap();
        superblock.add_snapshot(place(4)).unwrap();
        assert_eq!(superblock.facts().snapshots, [Some(place(4)), Some(place(3))]);
        superblock.state().facts.snapshots = [Some(place(2)), Some(place(9))];
        assert_eq!(superblock.retain_from(u64::MAX).unwrap(), place(2).position);
        // What was given up is never taken back.
        assert_eq!(superblock.retain_from(0).unwrap(), place(2).position);
        assert_eq!(superblock.positions.retained_from(), place(2).position);
        drop(superblock);
        let again = open(directory.path());
        assert_eq!(again.positions.retained_from(), place(2).position);
        drop(again);
        // A start that has to read from further back needs what lies there.
        let (mode, _) = WriteMode::choose(directory.path(), crate::journal::SyncMode::Auto).unwrap();
        let positions = Arc::new(Positions::new(0, 0, 0));
        let further_back = Superblock::open(directory.path(), mode, ID, 4, 5_000, positions).unwrap();
        assert_eq!(further_back.positions.retained_from(), 5_000);
        assert_eq!(further_back.facts().retained_from, 5_000);
    }
}
