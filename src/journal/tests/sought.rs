//! Reading from the middle, and in batches.

use std::fs;

use super::*;
use crate::wire::RecordKind;

/// Puts so many events, each batch of them durable and released before the next.
fn put(journal: &mut Journal, batches: u64, events: u64) {
    for _ in 0..batches {
        for _ in 0..events {
            journal.put_next();
        }
        journal.appender.publish();
        while journal.syncer.sync().unwrap() > 0 {}
        journal.read_all();
        while journal.preparer.prepare().unwrap() {}
    }
}

/// All events of a walk, and where it ends.
fn events_of(mut walk: Walk<'_>) -> (Vec<u64>, u64) {
    let mut batch = RecordBatch::new();
    let mut numbers = Vec::new();
    loop {
        let more = batch.fill(&mut walk, u64::MAX).unwrap();
        for record in batch.iter() {
            assert_eq!(record.payload, payload(record.number));
            assert_eq!(record.payload.as_ptr() as usize % 32, 0);
            assert_eq!(record.time, UtcNanos(1_000 + record.number));
            numbers.push(record.number);
        }
        if !more {
            return (numbers, walk.position());
        }
    }
}

#[test]
fn any_event_is_come_to_from_no_further_back_than_the_segment_before_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    put(&mut journal, 40, 20);
    drop(journal);
    let files = JournalFiles::open(directory.path()).unwrap();
    let (all, end) = events_of(files.walk());
    assert_eq!(all, (1..=800).collect::<Vec<_>>());
    let lies_in: Vec<u64> = files
        .records()
        .map(|record| record.unwrap().position / SEGMENT_BYTES)
        .collect();
    assert!(lies_in[799] > 5, "{} segments", lies_in[799]);
    for (number, segment) in (1..).zip(&lies_in) {
        let walk = files.walk_near(number);
        let begins_in = walk.position() / SEGMENT_BYTES;
        assert!(
            begins_in <= *segment && begins_in + 1 >= *segment,
            "{number}: {begins_in}"
        );
        let (found, its_end) = events_of(walk);
        assert!(found[0] <= number && found[found.len() - 1] == 800 && its_end == end);
    }
    assert_eq!(events_of(files.walk_near(u64::MAX)).1, end);
    assert_eq!(events_of(files.walk_near(0)).0, all);
}

#[test]
fn a_walk_does_not_begin_behind_a_hole_that_ends_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    put(&mut journal, 8, 20);
    put(&mut journal, 1, 110);
    drop(journal);
    let files = JournalFiles::open(directory.path()).unwrap();
    let last = files.records().last().unwrap().unwrap();
    let border = last.position / SEGMENT_BYTES * SEGMENT_BYTES;
    let before = files
        .records()
        .map(Result::unwrap)
        .filter(|record| record.position < border && record.kind == RecordKind::Request)
        .last()
        .unwrap();
    assert!(before.number > 160, "the last write goes over a border");
    let (at, number) = (before.position - 1, before.number);
    drop(files);
    let path = directory.path().join(format!("{:012}.seg", at / SEGMENT_BYTES));
    let mut bytes = fs::read(&path).unwrap();
    bytes[(at % SEGMENT_BYTES) as usize] ^= 1;
    fs::write(&path, bytes).unwrap();
    let files = JournalFiles::open(directory.path()).unwrap();
    for near in [1, number, number + 5, u64::MAX] {
        let (found, _) = events_of(files.walk_near(near));
        assert_eq!(found.last(), Some(&(number - 1)), "near {near}");
    }
}

#[test]
fn a_batch_ends_where_it_was_told_to_and_the_next_goes_on_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    put(&mut journal, 10, 20);
    let files = JournalFiles::open(directory.path()).unwrap();
    let (mut walk, mut batch) = (files.walk(), RecordBatch::new());
    for until in [1, 1, 7, 100, 200] {
        let next = walk.next_event();
        assert!(!batch.fill(&mut walk, until).unwrap(), "nothing comes behind {until}");
        assert!(batch.iter().map(|record| record.number).eq(next..=until));
    }
    assert!(!batch.fill(&mut walk, u64::MAX).unwrap() && batch.is_empty());
}
