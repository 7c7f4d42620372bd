//! A journal's directory: whose it is, and which segments are in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::error::JournalError;

/// The one switch that may have a journal directory; held as long as any part of the journal lives.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub(super) fn take(directory: &Path) -> Result<Self, JournalError> {
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(super::place::refused(directory, "open the lock in it"))?;
        // SAFETY: a call on an open descriptor.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(Self { _file: file });
        }
        let source = io::Error::last_os_error();
        if source.kind() == io::ErrorKind::WouldBlock {
            return Err(JournalError::InUse {
                directory: directory.to_owned(),
            });
        }
        Err(JournalError::system(&path, "lock")(source))
    }
}

pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}.seg"))
}

/// True when `directory` holds a segment.
pub(super) fn any(directory: &Path) -> bool {
    let is_segment = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| number_of(&entry).is_some());
    fs::read_dir(directory).is_ok_and(|mut entries| entries.any(is_segment))
}

fn number_of(entry: &fs::DirEntry) -> Option<u64> {
    let name = entry.file_name();
    name.to_str()?.strip_suffix(".seg")?.parse().ok()
}

/// The numbers of the segments in `directory`, which must follow on each other without a gap. Older ones may have been
/// archived and removed, so that the first need not be 0.
pub(super) fn list(directory: &Path) -> Result<Range<u64>, JournalError> {
    let mut numbers = list_with_gaps(directory)?;
    loop {
        let first = numbers.first().copied().unwrap_or(0);
        let Some((missing, _)) = (first..).zip(&numbers).find(|(expected, number)| expected != *number) else {
            return Ok(first..first + numbers.len() as u64);
        };
        // A running switch may have let go of the first ones while they were being listed.
        let again = list_with_gaps(directory)?;
        if again.first() <= numbers.first() {
            return Err(JournalError::SegmentMissing {
                file: segment_path(directory, missing),
            });
        }
        numbers = again;
    }
}

/// The numbers of the segments in `directory`, whichever they are, in order.
pub(super) fn list_with_gaps(directory: &Path) -> Result<Vec<u64>, JournalError> {
    let read = |source| JournalError::system(directory, "list the directory")(source);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        numbers.extend(number_of(&entry.map_err(read)?));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes segments whose making a crash cut short.
pub(super) fn remove_unfinished(directory: &Path) -> Result<(), JournalError> {
    let read = |source| JournalError::system(directory, "list the directory")(source);
    for entry in fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(&path).map_err(JournalError::system(&path, "remove the unfinished segment"))?;
        }
    }
    Ok(())
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(JournalError::system(directory, "flush the directory"))
}
