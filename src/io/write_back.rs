//! Bringing a file's bytes to the disk while it is still being written, so that few of them wait for the flush at its end.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Asks the kernel to begin writing what of the file waits for the disk; waits for nothing but room in the device's queue.
///
/// # Errors
/// As the system says; a file system that can't do it says nothing.
pub fn start_write_back(file: &File) -> io::Result<()> {
    range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE)
}

/// Waits until the bytes of a range, whose writing was begun, are with the disk. That is no flush: only [`File::sync_all`]
/// makes them stay.
///
/// # Errors
/// As [`start_write_back`].
pub fn await_write_back(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    range(file, offset, bytes, flags)
}

fn range(file: &File, offset: u64, bytes: u64, flags: libc::c_uint) -> io::Result<()> {
    let to_signed = |number: u64| i64::try_from(number).map_err(io::Error::other);
    let (offset, bytes) = (to_signed(offset)?, to_signed(bytes)?);
    // SAFETY: no memory is involved; the descriptor is open as long as `file` is borrowed.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, flags) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE) => Ok(()),
        _ => Err(error),
    }
}
