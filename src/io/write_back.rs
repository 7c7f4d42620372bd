//! Bringing many files to the disk: their bytes while they are still being written, so that few of them wait for the flush
//! at the end, and that flush once for all of them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

/// Asks the kernel to begin writing what of the file waits for the disk; waits for nothing but room in the device's queue.
///
/// # Errors
/// As the system says; a file system that can't do it says nothing.
pub fn start_write_back(file: &File) -> io::Result<()> {
    range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE)
}

/// Brings everything of the file system that `opened` is on to stable storage, and tells of every write to it that failed
/// since `opened` was opened. Much faster than a flush a file, each of which has the device empty its cache. False where the
/// kernel would not tell of failed writes (before Linux 5.8): then nothing was done.
///
/// # Errors
/// As the system says.
pub fn sync_file_system(opened: &File) -> io::Result<bool> {
    static TELLS: OnceLock<bool> = OnceLock::new();
    let tells =
        TELLS.get_or_init(|| fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|of| tells_failures(&of)));
    if !tells {
        return Ok(false);
    }
    // SAFETY: no memory is involved; the descriptor is open as long as `opened` is borrowed.
    if unsafe { libc::syncfs(opened.as_raw_fd()) } == 0 {
        Ok(true)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn tells_failures(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 8),
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_keeps_failed_writes_to_itself_is_not_asked() {
        for (release, tells) in [
            ("6.8.0-45-generic\n", true),
            ("5.8.0", true),
            ("5.7.19", false),
            ("4.18.0-553.el8.x86_64", false),
            ("10.0", true),
            ("", false),
        ] {
            assert_eq!(tells_failures(release), tells, "{release}");
        }
    }

    #[test]
    fn a_file_system_is_brought_to_the_disk_or_says_that_it_cannot_tell() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        fs::write(place.path().join("file"), "bytes").unwrap();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(sync_file_system(&directory).unwrap(), tells_failures(&release));
    }
}
