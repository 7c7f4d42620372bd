//! The disk: the real files, and what a crash or a fault does to the last write.
//!
//! Only a write that was never acknowledged may be changed afterwards: each of its sectors is kept, dropped (the old
//! bytes are there again) or torn (new up to some byte, old from there on).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::journal::{BLOCK_BYTES, WriteGate};
use crate::sim::Random;

const SECTOR_BYTES: usize = 512;

/// What is to happen to the next durable write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum NextWrite {
    /// It is made.
    #[default]
    Made,
    /// It is made, and the machine stops before anybody hears of it.
    StopsMachine,
    /// It is refused, and nothing is written.
    Refused,
    /// It is made in part and refused.
    RefusedLate,
    /// It is acknowledged and dropped: a disk that lies.
    Dropped,
}

/// The switch's disk.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: NextWrite,
    /// What lay under the last write before it: file, offset, bytes.
    before: Vec<(PathBuf, u64, Vec<u8>)>,
    stopped: bool,
    full: Option<PathBuf>,
}

impl Disk {
    pub(super) fn new(directory: &Path, segment_bytes: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            segment_bytes,
            state: Mutex::default(),
        }
    }

    /// Says what is to happen to the next durable write (and, for a disk that lies, to all that follow).
    pub(super) fn set_next(&self, next: NextWrite) {
        self.state().next = next;
    }

    /// True once the machine has stopped inside a write.
    pub(super) fn has_stopped(&self) -> bool {
        std::mem::take(&mut self.state().stopped)
    }

    /// The switch has started: what it found behind the last acknowledged write, recovery has written again and flushed.
    pub(super) fn is_recovered(&self) {
        self.state().before.clear();
    }

    /// Draws what of the last write, which nobody was told of, is on the disk.
    ///
    /// # Errors
    /// The files can't be changed.
    pub(super) fn tear(&self, random: &mut Random) -> io::Result<String> {
        let before = std::mem::take(&mut self.state().before);
        let (mut kept, mut dropped, mut torn) = (0, 0, 0);
        // All of it, nothing of it, or each sector by itself.
        let manner = random.below(4);
        for (path, offset, old) in before {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            for (number, old) in old.chunks(SECTOR_BYTES).enumerate() {
                let at = offset + (number * SECTOR_BYTES) as u64;
                let keep_bytes = match (manner, random.below(5)) {
                    (0, _) | (2.., 0 | 1) => old.len(),
                    (1, _) | (2.., 2 | 3) => 0,
                    (2.., _) => random.below(SECTOR_BYTES as u64) as usize,
                };
                match keep_bytes {
                    SECTOR_BYTES => kept += 1,
                    0 => dropped += 1,
                    _ => torn += 1,
                }
                file.write_all_at(&old[keep_bytes..], at + keep_bytes as u64)?;
            }
        }
        Ok(format!("{kept} sectors kept, {dropped} dropped, {torn} torn"))
    }

    /// A copy of all files, for a disk that goes back.
    ///
    /// # Errors
    /// The files can't be read.
    pub(super) fn copy(&self) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "seg") {
                files.push((path.clone(), fs::read(&path)?));
            }
        }
        files.sort();
        Ok(files)
    }

    /// Puts a copy back; files that are not in it stay as they are, empty segments of the same journal.
    ///
    /// # Errors
    /// The files can't be written.
    pub(super) fn put_back(&self, files: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
        for (path, _) in self.copy()? {
            if !files.iter().any(|(known, _)| *known == path) {
                fs::remove_file(path)?;
            }
        }
        files.iter().try_for_each(|(path, bytes)| fs::write(path, bytes))
    }

    /// While it is full, no segment can be made: a directory stands where the next one would be written.
    ///
    /// # Errors
    /// The directory can't be made or removed.
    pub(super) fn set_full(&self, full: bool) -> io::Result<()> {
        let mut state = self.state();
        if let Some(path) = state.full.take() {
            fs::remove_dir(path)?;
        }
        if full {
            let path = self.directory.join(format!("{:012}.seg.new", self.copy()?.len()));
            // What a crash left of a segment is there as long as the switch is down.
            if !path.exists() {
                fs::create_dir(&path)?;
                state.full = Some(path);
            }
        }
        Ok(())
    }

    /// What a crash leaves of a segment that was being made.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn leave_unfinished(&self, random: &mut Random) -> io::Result<()> {
        let path = self.directory.join(format!("{:012}.seg.new", self.copy()?.len()));
        fs::write(path, vec![0xA5; random.below(self.segment_bytes) as usize])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies in the blocks that hold `from..to` now.
    fn read_blocks(&self, from: u64, to: u64) -> io::Result<Vec<(PathBuf, u64, Vec<u8>)>> {
        let mut pieces = Vec::new();
        let mut at = from - from % BLOCK_BYTES;
        let end = to.next_multiple_of(BLOCK_BYTES);
        while at < end {
            let number = at / self.segment_bytes;
            let piece_end = end.min((number + 1) * self.segment_bytes);
            let path = self.directory.join(format!("{number:012}.seg"));
            let offset = at % self.segment_bytes;
            let mut bytes = vec![0; (piece_end - at) as usize];
            File::open(&path)?.read_exact_at(&mut bytes, offset)?;
            pieces.push((path, offset, bytes));
            at = piece_end;
        }
        Ok(pieces)
    }
}

impl WriteGate for Disk {
    fn before_write(&self, from: u64, to: u64) -> io::Result<()> {
        let before = self.read_blocks(from, to)?;
        let mut state = self.state();
        state.before = before;
        if state.next == NextWrite::Refused {
            state.next = NextWrite::Made;
            state.before.clear();
            return Err(io::Error::other("the rehearsal's disk refuses the write"));
        }
        Ok(())
    }

    fn after_write(&self, _from: u64, _to: u64) -> io::Result<()> {
        let mut state = self.state();
        match std::mem::take(&mut state.next) {
            NextWrite::Made | NextWrite::Refused => {
                state.before.clear();
                Ok(())
            }
            NextWrite::StopsMachine => {
                state.stopped = true;
                // Nobody hears of it: the write is not acknowledged.
                Err(io::Error::other("the machine stops in the middle of the write"))
            }
            NextWrite::RefusedLate => Err(io::Error::other(
                "the rehearsal's disk fails in the middle of the write",
            )),
            NextWrite::Dropped => {
                for (path, offset, old) in std::mem::take(&mut state.before) {
                    OpenOptions::new().write(true).open(path)?.write_all_at(&old, offset)?;
                }
                state.next = NextWrite::Dropped;
                Ok(())
            }
        }
    }
}
