//! Segment files: made ahead of their use, written durably in whole blocks, kept from a second switch.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::directory::{list, segment_path, sync_directory};
use super::error::JournalError;
use super::layout::{BLOCK_BYTES, Geometry, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::options::SyncMode;
use crate::memory::MappedMemory;

const ZEROS_BYTES: usize = 1 << 20;

/// How a write is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WriteMode {
    /// `O_DIRECT | O_DSYNC`: the write itself.
    Direct,
    /// A buffered write, then `fdatasync`.
    Fdatasync,
}

impl WriteMode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fdatasync => "fdatasync",
        }
    }

    /// The mode `wish` means on the file system of `directory`, and why not direct, in words.
    pub(super) fn choose(directory: &Path, wish: SyncMode) -> Result<(Self, Option<String>), JournalError> {
        if wish == SyncMode::Fdatasync {
            return Ok((Self::Fdatasync, None));
        }
        let refusal = if is_in_memory(directory) {
            // tmpfs takes the flag since Linux 6.6 and ignores it: the name "direct" would promise what is not there.
            "the file system keeps its files in memory; nothing in this journal outlives the machine".to_owned()
        } else {
            match probe_direct(directory) {
                Ok(()) => return Ok((Self::Direct, None)),
                // There is no room for the trial, which says nothing against direct writes where there is.
                Err(source) if source.raw_os_error() == Some(libc::ENOSPC) => return Ok((Self::Direct, None)),
                Err(source)
                    if wish == SyncMode::Auto
                        && matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
                {
                    format!("the file system refuses direct writes ({source})")
                }
                Err(source) => return Err(super::place::refused(directory, "write directly (O_DIRECT)")(source)),
            }
        };
        if wish == SyncMode::Direct {
            return Err(JournalError::Options(format!(
                "{}: direct writes were asked for, but {refusal}",
                directory.display()
            )));
        }
        Ok((
            Self::Fdatasync,
            Some(format!("journal writes use pwrite and fdatasync: {refusal}")),
        ))
    }
}

fn is_in_memory(directory: &Path) -> bool {
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: `statfs` is plain numbers, for which zero is a value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a path that ends with a zero, and room for the answer.
    let found = unsafe { libc::statfs(path.as_ptr(), &raw mut facts) } == 0;
    found && matches!(facts.f_type, libc::TMPFS_MAGIC | RAMFS_MAGIC)
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: `statvfs` is plain numbers, for which zero is a value.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a path that ends with a zero, and room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut facts) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

fn probe_direct(directory: &Path) -> io::Result<()> {
    let path = directory.join("direct.probe");
    let attempt = || -> io::Result<()> {
        let block = MappedMemory::new(BLOCK_BYTES as usize, false)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
            .open(&path)?;
        // SAFETY: the block lives until the end of the closure.
        unsafe { write_all(&file, &[(block.as_ptr(), block.len())], 0) }
    };
    let outcome = attempt();
    match fs::remove_file(&path) {
        Err(error) if outcome.is_ok() => Err(error),
        Ok(()) | Err(_) => outcome,
    }
}

/// Where segments are, and what they are to be.
#[derive(Clone, Debug)]
pub(super) struct SegmentStore {
    pub(super) directory: PathBuf,
    pub(super) geometry: Geometry,
    pub(super) journal_id: [u8; 16],
    pub(super) epoch: u32,
    pub(super) mode: WriteMode,
}

impl SegmentStore {
    pub(super) fn path(&self, number: u64) -> PathBuf {
        segment_path(&self.directory, number)
    }

    /// The error that `position` lies before the first segment there is.
    pub(super) fn not_kept(&self, position: u64, first_segment: u64) -> JournalError {
        JournalError::NotKept {
            directory: self.directory.clone(),
            position,
            first_segment,
        }
    }

    /// Opens a segment for durable writes.
    pub(super) fn open_to_write(&self, number: u64) -> Result<SegmentFile, JournalError> {
        let path = self.path(number);
        let flags = match self.mode {
            WriteMode::Direct => libc::O_DIRECT | libc::O_DSYNC,
            WriteMode::Fdatasync => 0,
        };
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(&path)
            .map_err(JournalError::system(&path, "open the segment for writing"))?;
        Ok(SegmentFile {
            file,
            path,
            number,
            mode: self.mode,
        })
    }

    /// Opens a segment for reading, past the page cache where writes go past it too.
    pub(super) fn open_to_read(&self, number: u64) -> io::Result<File> {
        self.open_flagged(&self.path(number), OpenOptions::new().read(true))
    }

    /// Makes segment `number`, at once.
    pub(super) fn make(&self, number: u64, zeros: &MappedMemory) -> Result<(), JournalError> {
        let mut making = self.begin_making(number)?;
        while self.make_piece(&mut making, zeros, zeros.len())? {}
        self.name_made(&making)
    }

    /// Begins to make segment `number`: its blocks really allocated, and written once, with zeros, so that no later sync
    /// carries metadata; then its header. It gets its name when all that is on stable storage.
    pub(super) fn begin_making(&self, number: u64) -> Result<MakingSegment, JournalError> {
        let path = self.path(number).with_extension("seg.new");
        // What an earlier attempt left may be a segment that somebody has mapped: it is never made shorter.
        let begun = remove_if_there(&path).and_then(|()| self.allocate(&path));
        match begun {
            Ok(file) => Ok(MakingSegment {
                file,
                path,
                number,
                offset: 0,
            }),
            Err(source) => Err(self.not_made(&path, number, source)),
        }
    }

    /// Writes at most `bytes` zeros more, and the header behind the last ones; false when that was all. After an error there
    /// is no such file any more.
    pub(super) fn make_piece(
        &self,
        making: &mut MakingSegment,
        zeros: &MappedMemory,
        bytes: usize,
    ) -> Result<bool, JournalError> {
        let left = self.geometry.segment_bytes - making.offset;
        let piece = left.min(bytes.min(zeros.len()) as u64);
        // SAFETY: the zeros live as long as the borrow, and nobody writes to them.
        let written = unsafe { write_all(&making.file, &[(zeros.as_ptr(), piece as usize)], making.offset) };
        let written = written.and_then(|()| {
            making.offset += piece;
            if piece < left {
                // Not flushed piece by piece: that would commit the file system's own journal each time.
                return Ok(());
            }
            self.write_header(&making.file, making.number, false)
        });
        match written {
            Ok(()) => Ok(piece < left),
            Err(source) => Err(self.not_made(&making.path, making.number, source)),
        }
    }

    /// Gives the segment its name.
    pub(super) fn name_made(&self, making: &MakingSegment) -> Result<(), JournalError> {
        let path = self.path(making.number);
        fs::rename(&making.path, &path).map_err(JournalError::system(&path, "name the new segment"))?;
        sync_directory(&self.directory)
    }

    fn not_made(&self, unfinished: &Path, number: u64, source: io::Error) -> JournalError {
        // What is left of it would keep room from whoever must make some; if it can't be removed, open does later.
        let _still_there = fs::remove_file(unfinished);
        let path = self.path(number);
        if source.raw_os_error() == Some(libc::ENOSPC) {
            return JournalError::NoSpace {
                file: path,
                bytes: self.geometry.segment_bytes,
            };
        }
        JournalError::system(&path, "make the segment")(source)
    }

    fn allocate(&self, path: &Path) -> io::Result<File> {
        // Asked first: an allocation that fails takes all the room there is before it gives it back, and whoever else
        // writes to this file system would meet a full disk on our account.
        if free_bytes(&self.directory)? < self.geometry.segment_bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = self.open_flagged(path, OpenOptions::new().write(true).create_new(true))?;
        let bytes = self.geometry.segment_bytes;
        // SAFETY: a call on an open descriptor.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as i64) } != 0 {
            let source = io::Error::last_os_error();
            // Where it is not known, the zeros allocate.
            if source.raw_os_error() != Some(libc::EOPNOTSUPP) {
                return Err(source);
            }
        }
        Ok(file)
    }

    fn write_header(&self, file: &File, number: u64, used_before: bool) -> io::Result<()> {
        let bytes = self.geometry.segment_bytes;
        let header = SegmentHeader::new(self.journal_id, number, bytes, self.epoch, used_before);
        let block = MappedMemory::new(SEGMENT_HEADER_BYTES as usize, false)?;
        let header = bytemuck::bytes_of(&header);
        // SAFETY: the block is longer than the header and known to nobody else.
        unsafe {
            std::ptr::copy_nonoverlapping(header.as_ptr(), block.as_ptr(), header.len());
            write_all(file, &[(block.as_ptr(), block.len())], 0)?;
        }
        file.sync_all()
    }

    /// Makes segment `number` of the first segment there is, if that ends at or before `retained_from`: its blocks are
    /// there and written, so that nothing needs to be allocated or made zeros. True if it did.
    ///
    /// The old segment is gone with its first new name; a crash in between leaves an unfinished segment, which the next
    /// start removes. What can't be used again is removed at once.
    pub(super) fn reuse_first(&self, number: u64, retained_from: u64) -> Result<bool, JournalError> {
        let first = list(&self.directory)?.start;
        if self.geometry.segment_start(first + 1) > retained_from.min(self.geometry.segment_start(number)) {
            return Ok(false);
        }
        let path = self.path(number);
        let unfinished = path.with_extension("seg.new");
        let old = self.path(first);
        match fs::rename(&old, &unfinished) {
            Ok(()) => {}
            // Retention has been faster.
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(JournalError::system(&old, "use the segment again")(source)),
        }
        // Before its header is written over: were its old name the one on stable storage then, a start would find another
        // segment under it.
        let outcome = sync_directory(&self.directory)
            .and_then(|()| {
                self.reuse(&unfinished, number)
                    .map_err(JournalError::system(&unfinished, "use the segment again"))
            })
            .and_then(|()| fs::rename(&unfinished, &path).map_err(JournalError::system(&path, "name the new segment")));
        if outcome.is_err() {
            // It need not be kept; if it can't be removed, the next start does.
            let _still_there = fs::remove_file(&unfinished);
        }
        outcome?;
        sync_directory(&self.directory)?;
        Ok(true)
    }

    fn reuse(&self, path: &Path, number: u64) -> io::Result<()> {
        let file = self.open_flagged(path, OpenOptions::new().write(true))?;
        let length = file.metadata()?.len();
        if length != self.geometry.segment_bytes {
            return Err(io::Error::other(format!("it is {length} bytes long")));
        }
        // Whoever read it as a segment left pages in the cache, which direct writes would have to drop one by one.
        // SAFETY: a call on an open descriptor. It is advice: where it is refused, writes are slower.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        self.write_header(&file, number, true)
    }

    /// Opens a file, past the page cache where writes go past it.
    fn open_flagged(&self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        let flags = match self.mode {
            WriteMode::Direct => libc::O_DIRECT,
            WriteMode::Fdatasync => 0,
        };
        options.custom_flags(flags).open(path)
    }

    /// Reads a whole segment to `out`, past the page cache where writes go past it too.
    ///
    /// # Safety
    /// `out` has room for a segment, is aligned to a page, and nobody else uses it.
    pub(super) unsafe fn read_whole(&self, number: u64, out: *mut u8) -> Result<(), JournalError> {
        let path = self.path(number);
        let file = self
            .open_to_read(number)
            .map_err(JournalError::system(&path, "open the segment"))?;
        let bytes = self.geometry.segment_bytes;
        let length = file
            .metadata()
            .map_err(JournalError::system(&path, "look at the segment"))?
            .len();
        if length != bytes {
            return Err(JournalError::SegmentForeign {
                file: path,
                reason: format!("the segment is {length} bytes long where {bytes} are expected"),
            });
        }
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out, bytes as usize) };
        file.read_exact_at(out, 0)
            .map_err(JournalError::system(&path, "read the segment"))
    }
}

/// A segment that is being made.
#[derive(Debug)]
pub(super) struct MakingSegment {
    file: File,
    path: PathBuf,
    pub(super) number: u64,
    /// Up to where it holds zeros.
    offset: u64,
}

/// A segment open for durable writes.
#[derive(Debug)]
pub(super) struct SegmentFile {
    file: File,
    pub(super) path: PathBuf,
    pub(super) number: u64,
    mode: WriteMode,
}

impl SegmentFile {
    /// Writes the parts one behind the other from `offset` on, in one durable write. One that comes back short has
    /// failed: the disk has just refused the rest, and what a second try says of it is worth nothing.
    ///
    /// # Safety
    /// Each part is an address and that many readable bytes that nobody writes to meanwhile. In direct mode addresses,
    /// lengths and `offset` are multiples of [`BLOCK_BYTES`].
    pub(super) unsafe fn write_durably(&self, parts: &[(*mut u8, usize)], offset: u64) -> io::Result<()> {
        let whole: usize = parts.iter().map(|part| part.1).sum();
        // SAFETY: the caller's promise.
        let written = unsafe { write_some(&self.file, parts, offset, 0)? };
        if written < whole {
            return Err(io::Error::other(format!("the disk took {written} of {whole} bytes")));
        }
        match self.mode {
            WriteMode::Direct => Ok(()),
            WriteMode::Fdatasync => self.file.sync_data(),
        }
    }

    /// Flushes what the device may still hold of this file.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Writes the parts one behind the other from `offset` on, however many calls that takes.
///
/// # Safety
/// Each of at most two parts is an address and that many readable bytes that nobody writes to meanwhile.
pub(super) unsafe fn write_all(file: &File, parts: &[(*mut u8, usize)], offset: u64) -> io::Result<()> {
    let whole: usize = parts.iter().map(|part| part.1).sum();
    let mut done = 0;
    while done < whole {
        // SAFETY: the caller's promise.
        done += match unsafe { write_some(file, parts, offset, done)? } {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => written,
        };
    }
    Ok(())
}

/// Writes what lies behind the parts' first `done` bytes to `offset + done`, in one call, and returns how much was taken.
///
/// # Safety
/// Each of at most two parts is an address and that many readable bytes that nobody writes to meanwhile.
unsafe fn write_some(file: &File, parts: &[(*mut u8, usize)], offset: u64, done: usize) -> io::Result<usize> {
    let mut vectors = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; 2];
    let mut count = 0;
    let mut skip = done;
    for &(start, length) in parts {
        if skip < length {
            vectors[count] = libc::iovec {
                // SAFETY: `skip` is less than the part's length.
                iov_base: unsafe { start.add(skip) }.cast(),
                iov_len: length - skip,
            };
            count += 1;
            skip = 0;
        } else {
            skip -= length;
        }
    }
    loop {
        // SAFETY: `count` vectors that lie within the caller's parts.
        let written = unsafe {
            libc::pwritev(
                file.as_raw_fd(),
                vectors.as_ptr(),
                count as i32,
                (offset + done as u64) as i64,
            )
        };
        if written >= 0 {
            return Ok(written as usize);
        }
        let source = io::Error::last_os_error();
        if source.kind() != io::ErrorKind::Interrupted {
            return Err(source);
        }
    }
}

/// Zeros to make segments with.
pub(super) fn zeros(segment_bytes: u64) -> io::Result<MappedMemory> {
    MappedMemory::new(ZEROS_BYTES.min(segment_bytes as usize), false)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(source),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
