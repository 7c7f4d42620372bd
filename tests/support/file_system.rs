//! File systems of a test's own, seen by its thread and the daemons that it starts, and by nobody else.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A mounted file system; gone with this.
pub struct FileSystem {
    place: tempfile::TempDir,
}

impl FileSystem {
    /// A file system in memory with room for so many bytes.
    ///
    /// # Errors
    /// The right to mount is root's.
    pub fn in_memory(bytes: u64) -> io::Result<Self> {
        let place = tempfile::tempdir()?;
        let options = CString::new(format!("size={bytes},mode=755"))?;
        // SAFETY: it is this thread alone that gets a view of the mounts of its own.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        mount(c"none", Path::new("/"), c"none", libc::MS_REC | libc::MS_PRIVATE, c"")?;
        mount(c"clearway-test", place.path(), c"tmpfs", 0, &options)?;
        Ok(Self { place })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Lets nobody write to it any more, or again.
    pub fn set_read_only(&self, read_only: bool) {
        let flags = libc::MS_REMOUNT | if read_only { libc::MS_RDONLY } else { 0 };
        mount(c"clearway-test", self.path(), c"tmpfs", flags, c"").unwrap();
    }

    /// Takes all the room there is, until the file that it gives is removed.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let full = std::fs::File::create(&ballast).and_then(|file| io::copy(&mut io::repeat(7), &mut &file));
        assert_eq!(full.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        ballast
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let place = CString::new(self.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends with a zero.
        unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mount(
    source: &std::ffi::CStr,
    place: &Path,
    kind: &std::ffi::CStr,
    flags: u64,
    options: &std::ffi::CStr,
) -> io::Result<()> {
    let place = CString::new(place.as_os_str().as_bytes())?;
    // SAFETY: texts that end with a zero and live until the call returns.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            place.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
