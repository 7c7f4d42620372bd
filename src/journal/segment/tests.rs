//! Claims about single segment files.

use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;

use super::*;

const SEGMENT_BYTES: u64 = 32 << 10;

fn store(directory: &Path, segment_bytes: u64) -> SegmentStore {
    SegmentStore {
        directory: directory.to_owned(),
        geometry: Geometry { segment_bytes },
        journal_id: [1; 16],
        epoch: 1,
        mode: WriteMode::Fdatasync,
    }
}

/// The store of segments 0 and 1.
fn store_of_two(directory: &Path) -> SegmentStore {
    let store = store(directory, SEGMENT_BYTES);
    for number in 0..2 {
        store.make(number, &zeros(SEGMENT_BYTES).unwrap()).unwrap();
    }
    store
}

/// What `work` does in and to `directory`, in order: the kind of access (`IN_…`) and the file's name, none where it is
/// the directory itself.
fn watched(directory: &Path, work: impl FnOnce()) -> Vec<(u32, String)> {
    let path = CString::new(directory.as_os_str().as_bytes()).unwrap();
    // SAFETY: a call without memory.
    let descriptor = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    assert!(descriptor >= 0, "{}", io::Error::last_os_error());
    // SAFETY: opened just now, and known to nobody else.
    let mut watch = unsafe { File::from_raw_fd(descriptor) };
    let kinds = libc::IN_OPEN | libc::IN_MODIFY | libc::IN_MOVED_TO;
    // SAFETY: an open descriptor and a path that ends with a zero.
    let added = unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), kinds) };
    assert!(added >= 0, "{}", io::Error::last_os_error());
    work();
    let mut bytes = vec![0; 64 << 10];
    let length = watch.read(&mut bytes).unwrap();
    let mut rest = &bytes[..length];
    let mut seen = Vec::new();
    while let Some((head, tail)) = rest.split_at_checked(size_of::<libc::inotify_event>()) {
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        let (name, next) = tail.split_at(word(12) as usize);
        let name = String::from_utf8(name.to_vec()).unwrap();
        seen.push((word(4), name.trim_end_matches('\0').to_owned()));
        rest = next;
    }
    seen
}

#[test]
fn a_segment_used_again_has_lost_its_old_name_for_good_before_its_header_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_of_two(directory.path());
    let seen = watched(directory.path(), || assert!(store.reuse_first(2, u64::MAX).unwrap()));
    let is_unfinished = |kind: u32, (seen, name): &(u32, String)| seen & kind != 0 && name == "000000000002.seg.new";
    let renamed = seen.iter().position(|access| is_unfinished(libc::IN_MOVED_TO, access));
    let written = seen.iter().position(|access| is_unfinished(libc::IN_MODIFY, access));
    let between = &seen[renamed.unwrap()..written.unwrap()];
    // Nobody opens the directory but to list it, which comes before, and to flush it.
    let is_directory = |(seen, name): &(u32, String)| seen & libc::IN_ISDIR != 0 && name.is_empty();
    assert!(between.iter().any(is_directory), "{seen:?}");
}

#[test]
fn a_segment_that_could_not_be_used_again_is_never_made_shorter_under_who_has_it_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_of_two(directory.path());
    let unfinished = |number: u64| store.path(number).with_extension("seg.new");
    // Its new name is taken by what can't be replaced.
    fs::create_dir(store.path(2)).unwrap();
    store.reuse_first(2, u64::MAX).unwrap_err();
    assert!(!unfinished(2).exists() && !store.path(0).exists());
    fs::remove_dir(store.path(2)).unwrap();
    // It is of another length.
    let half = OpenOptions::new().write(true).open(store.path(1)).unwrap();
    half.set_len(SEGMENT_BYTES / 2).unwrap();
    store.make(2, &zeros(SEGMENT_BYTES).unwrap()).unwrap();
    store.reuse_first(3, u64::MAX).unwrap_err();
    assert!(!unfinished(3).exists() && !store.path(1).exists());
    // Even where it could not be removed, what is made next is another file.
    fs::hard_link(store.path(2), unfinished(3)).unwrap();
    let before = fs::read(store.path(2)).unwrap();
    store.make(3, &zeros(SEGMENT_BYTES).unwrap()).unwrap();
    let inode = |number| fs::metadata(store.path(number)).unwrap().ino();
    assert_ne!(inode(2), inode(3));
    assert_eq!(fs::read(store.path(2)).unwrap(), before);
}

#[test]
fn a_full_disk_is_met_where_a_segment_is_made_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 43);
    let refused = store.make(0, &zeros(1 << 20).unwrap());
    assert!(
        matches!(&refused, Err(JournalError::NoSpace { bytes, .. }) if *bytes == 1 << 43),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
