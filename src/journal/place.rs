//! Where a journal may lie: plain files of one directory, on one file system, which the switch may write to.
//!
//! The directory itself may be a mount or a link to one, on a disk of its own. Its segments may not: a new one gets its
//! name by a rename and is flushed with the directory, and whether writes are direct is found out for the directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::JournalError;

/// What the system said when something was to be written in `directory`; says what to do where that is known.
pub(super) fn refused(directory: &Path, action: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |source| {
        let advice = match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => {
                "the file system is mounted read-only: look into the kernel's log for why, and mount it for writing"
                    .to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                // SAFETY: a call that only returns a number.
                let user = unsafe { libc::geteuid() };
                format!(
                    "user {user} may not write here: run the switch as the directory's owner, or give it to this user"
                )
            }
            _ => return JournalError::system(directory, action)(source),
        };
        JournalError::NotWritable {
            directory: directory.to_owned(),
            advice,
        }
    }
}

/// Holds every segment in `directory` to what it must be: a plain file on the directory's own file system.
pub(super) fn check_segments(directory: &Path) -> Result<(), JournalError> {
    let look = |path: &Path| fs::symlink_metadata(path).map_err(JournalError::system(path, "look at it"));
    let own = fs::metadata(directory)
        .map_err(JournalError::system(directory, "look at it"))?
        .dev();
    let list = |source| JournalError::system(directory, "list the directory")(source);
    for entry in fs::read_dir(directory).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let facts = look(&path)?;
        let reason = if !facts.is_file() {
            "the segment is no plain file"
        } else if facts.dev() != own {
            "the segment lies on another file system than its directory"
        } else {
            continue;
        };
        return Err(JournalError::SegmentForeign {
            file: path,
            reason: format!(
                "{reason}; nothing was changed: put the file itself into the directory (the directory as a whole may be a \
                 mount or a link)"
            ),
        });
    }
    Ok(())
}
