//! The snapshots' claims, against files that were torn, cut, flipped and lost.

use std::fs;
use std::io::Read;

use super::*;
use crate::clearing::StateHash;
use crate::domain::UtcNanos;
use crate::journal::JournalStart;
use crate::register::{Coverage, RegisterCoverage};

const JOURNAL: [u8; 16] = [5; 16];

/// A state whose hash is the BLAKE3 of its bytes.
fn state(bytes: &[u8]) -> StateHash {
    StateHash(*blake3::hash(bytes).as_bytes())
}

fn take(store: &SnapshotStore, event: u64, engine: &[u8]) -> u64 {
    let point = SnapshotPoint {
        start: JournalStart {
            position: event * 160,
            next_event: event + 1,
            last_time: UtcNanos(event * 1_000),
            epoch: 3,
        },
        state: state(engine),
    };
    store.write(&point, &coverage(), |out| out.write_all(engine)).unwrap()
}

fn coverage() -> RegisterCoverage {
    RegisterCoverage {
        payments: vec![Coverage {
            date: 20_260_204,
            runs: 3,
        }],
        words: vec![],
    }
}

fn load(store: &SnapshotStore, path: &std::path::Path) -> Result<Loaded<Vec<u8>>, SnapshotError> {
    let read = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Ok(bytes)
    };
    store.load(path, read, |bytes| state(bytes))
}

#[test]
fn a_snapshot_gives_back_what_was_saved() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(directory.path().join("snapshots"), JOURNAL);
    assert_eq!(store.list().unwrap(), []);
    for engine in [vec![], vec![7; 3], (0..3_000_000u32).map(|n| n as u8).collect()] {
        let event = engine.len() as u64 + 1;
        let bytes = take(&store, event, &engine);
        let newest = store.list().unwrap().remove(0);
        let loaded = load(&store, &newest.path).unwrap();
        assert_eq!(
            (loaded.point.event(), loaded.engine, loaded.coverage),
            (event, engine, coverage())
        );
        assert_eq!(
            (loaded.bytes, fs::metadata(&newest.path).unwrap().len()),
            (bytes, bytes)
        );
    }
}

#[test]
fn a_snapshot_with_any_bit_flipped_or_any_end_cut_off_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(directory.path().to_owned(), JOURNAL);
    take(&store, 9, &[3; 500]);
    let path = store.list().unwrap().remove(0).path;
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        assert!(
            matches!(load(&store, &path), Err(SnapshotError::Unusable { .. })),
            "byte {at}"
        );
        fs::write(&path, &good[..at]).unwrap();
        assert!(
            matches!(load(&store, &path), Err(SnapshotError::Unusable { .. })),
            "cut to {at}"
        );
    }
    fs::write(&path, &good).unwrap();
    load(&store, &path).unwrap();
}

#[test]
fn a_state_that_is_not_the_one_that_was_taken_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(directory.path().to_owned(), JOURNAL);
    take(&store, 9, &[3; 500]);
    let path = store.list().unwrap().remove(0).path;
    let refused = store.load(&path, |_| Ok(()), |()| state(b"another")).unwrap_err();
    assert!(refused.to_string().contains("it leads to state"), "{refused}");
}

#[test]
fn the_newest_two_are_kept_and_what_a_crash_left_half_written_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(directory.path().to_owned(), JOURNAL);
    fs::write(directory.path().join("000000000000000077.new"), b"half").unwrap();
    for event in [5, 70, 900] {
        take(&store, event, b"state");
    }
    let kept: Vec<u64> = store.prune().unwrap().iter().map(SnapshotPoint::event).collect();
    assert_eq!(kept, [900, 70]);
    let names: Vec<u64> = store.list().unwrap().iter().map(|file| file.event).collect();
    assert_eq!(names, [900, 70]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn a_write_that_fails_leaves_nothing_behind_and_the_older_snapshot_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(directory.path().to_owned(), JOURNAL);
    take(&store, 5, b"state");
    let point = store.point(&store.list().unwrap()[0].path).unwrap();
    let mut next = point;
    next.start.next_event += 1;
    let refused = store.write(&next, &coverage(), |out| {
        out.write_all(&[1; 100])?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    assert!(refused.is_err());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    load(&store, &store.list().unwrap()[0].path).unwrap();
}

#[test]
fn a_snapshot_of_another_journal_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    take(&SnapshotStore::new(directory.path().to_owned(), [6; 16]), 5, b"state");
    let store = SnapshotStore::new(directory.path().to_owned(), JOURNAL);
    let refused = load(&store, &store.list().unwrap()[0].path).unwrap_err();
    assert!(refused.to_string().contains("another journal"), "{refused}");
}
