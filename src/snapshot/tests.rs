//! The snapshots' claims, against files that were torn, cut, flipped and lost.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::file::{BLOCK_BYTES, HEADER_BYTES, PIECE_BYTES};
use super::*;
use crate::clearing::{StateHash, StateSource};
use crate::domain::UtcNanos;
use crate::journal::JournalStart;
use crate::memory::ChunkedTable;
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
    let read = |reader: &mut SnapshotReader| {
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
    // Every byte, but of the zeros behind the header some.
    let zeros = HEADER_BYTES..BLOCK_BYTES;
    for at in (0..good.len()).filter(|at| !zeros.contains(at) || at.is_multiple_of(61)) {
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
fn parts_read_on_several_threads_are_what_was_written_and_a_bit_flipped_in_any_piece_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(directory.path().to_owned(), JOURNAL);
    let engine: Vec<u8> = (0..11_000_000u32 / 4)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes())
        .collect();
    take(&store, 9, &engine);
    let path = store.list().unwrap().remove(0).path;
    let load = |head: usize| {
        let read = |reader: &mut SnapshotReader| {
            let mut table = ChunkedTable::<[u64; 3]>::zeroed((engine.len() - head) / 24).map_err(|e| e.to_string())?;
            let mut bytes = vec![0; head];
            reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
            // Parts of whole blocks, and what does not fill one is read behind them.
            let parts = table
                .parts_mut()
                .map(|part| part.as_chunks_mut::<4096>().0.as_flattened_mut());
            let mut parts: Vec<_> = parts.collect();
            let left = reader.left() as usize;
            let last = parts
                .pop()
                .map(|part| part.split_at_mut(part.len().min(left) / 8192 * 4096).0);
            parts.extend(last);
            let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
            reader.fill(parts).map_err(|e| e.to_string())?;
            for (part, length) in table.parts_mut().zip(lengths) {
                bytes.extend_from_slice(&part[..length]);
            }
            reader.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
            Ok(bytes)
        };
        store.load(&path, read, |bytes: &Vec<u8>| state(bytes))
    };
    for head in [0, 4096, 300 << 12, 1100 << 12] {
        assert!(load(head).unwrap().engine == engine, "parts from byte {head} on");
    }
    let good = fs::read(&path).unwrap();
    for at in (5_000..good.len()).step_by(PIECE_BYTES - 77) {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[good[at] ^ 16], at as u64).unwrap();
        assert!(matches!(load(4096), Err(SnapshotError::Unusable { .. })), "byte {at}");
        file.write_all_at(&good[at..=at], at as u64).unwrap();
    }
    load(4096).unwrap();
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
