//! Segment files that become later segments: what an earlier lap left in them is never taken for the journal's.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::{SEGMENT_BYTES, numbers_in_files, options, payload};
use crate::journal::layout::SegmentHeader;
use crate::journal::*;

const SECTOR_BYTES: usize = 512;

/// A switch that keeps few segments: it reads behind itself, and what it has read need not be kept.
struct Keeping {
    journal: Journal,
    reader: JournalReader,
    /// The number of the next event to read.
    next: u64,
}

impl Keeping {
    fn begin(directory: &Path) -> Self {
        let journal = Journal::create(options(directory)).unwrap();
        let reader = journal.source.reader(&JournalStart::BEGINNING).unwrap();
        Self {
            journal,
            reader,
            next: 1,
        }
    }

    /// Appends `count` events and makes them durable.
    fn put(&mut self, count: u64) {
        for _ in 0..count {
            self.journal.put_next();
        }
        self.journal.appender.publish();
        self.journal.syncer.sync().unwrap();
        self.journal.read_all();
    }

    /// Reads what is durable, gives up what lies before, and prepares.
    fn pass_on(&mut self) {
        while let Some(record) = self.reader.next().unwrap() {
            assert_eq!((record.number, record.payload), (self.next, &payload(self.next)[..]));
            self.next += 1;
        }
        self.journal.positions.set_retained_from(self.reader.position());
        while self.journal.preparer.prepare().unwrap() {}
    }
}

fn segments(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn segments_that_need_not_be_kept_are_used_again_and_the_disk_does_not_fill() {
    let directory = tempfile::tempdir().unwrap();
    let mut switch = Keeping::begin(directory.path());
    let mut most = 0;
    while switch.journal.positions.durable() < 40 * SEGMENT_BYTES {
        switch.put(10);
        switch.pass_on();
        most = most.max(segments(directory.path()).len());
    }
    assert!(most <= 6, "{most} segments");
    let start = switch.reader.here();
    let kept = segments(directory.path());
    assert!(kept.iter().all(|(_, bytes)| SegmentHeader::is_used_before(bytes)));
    // Behind the end lies an earlier lap; after an orderly stop nothing of it counts as cut.
    let (_, last) = kept.last().unwrap();
    assert!(last[SEGMENT_HEADER_BYTES as usize..].iter().any(|&byte| byte != 0));
    let end = switch.journal.positions.durable();
    let last_event = switch.next - 1;
    drop(switch);
    let found = JournalFiles::open(directory.path())
        .unwrap()
        .verify(std::num::NonZeroUsize::MIN, &|_| {});
    assert!(found.damage.is_none());
    assert_eq!((found.end, found.bytes_behind), (end, 0));
    for _ in 0..2 {
        let journal = Journal::open(JournalOptions {
            start: Some(start),
            ..options(directory.path())
        })
        .unwrap();
        assert_eq!(journal.recovery.last_event, last_event);
        assert_eq!((journal.recovery.durable, journal.recovery.cut_bytes), (end, 0));
        assert_eq!(journal.recovery.messages, Vec::<String>::new());
    }
}

#[test]
fn without_leave_to_remove_anything_no_segment_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    journal.positions.set_retained_from(SEGMENT_BYTES - 1);
    for _ in 0..600 {
        journal.put_next();
    }
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    assert_eq!(numbers_in_files(directory.path()), (1..=600).collect::<Vec<_>>());
}

#[test]
fn a_start_from_the_beginning_keeps_what_an_earlier_run_would_have_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut switch = Keeping::begin(directory.path());
    for _ in 0..2 {
        switch.put(300);
        while switch.reader.next().unwrap().is_some() {}
        switch.journal.superblock.add_snapshot(switch.reader.here()).unwrap();
    }
    let retained = switch.journal.superblock.retain_from(u64::MAX).unwrap();
    assert!(retained > 2 * SEGMENT_BYTES);
    drop(switch);
    // Both snapshots have turned out bad: all of it must be read.
    let mut journal = Journal::open(options(directory.path())).unwrap();
    for _ in 0..300 {
        journal.put_next();
    }
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    assert_eq!(numbers_in_files(directory.path()), (1..=900).collect::<Vec<_>>());
    assert_eq!(
        superblock_facts(directory.path(), journal.facts.journal_id).retained_from,
        SEGMENT_HEADER_BYTES
    );
}

#[test]
fn a_reader_of_files_that_the_switch_uses_again_is_told_so_and_not_of_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut switch = Keeping::begin(directory.path());
    switch.put(300);
    let mut writer = ChainWriter::open(directory.path()).unwrap();
    while writer.step(switch.journal.positions.durable()).unwrap() {}
    assert!(!writer.chain().links().is_empty());
    let files = JournalFiles::open(directory.path()).unwrap();
    let (mut walk, mut batch) = (files.walk(), RecordBatch::new());
    assert!(batch.fill(&mut walk, 50).is_ok_and(|more| !more));
    let mut late = switch.journal.source.reader(&JournalStart::BEGINNING).unwrap();
    while switch.journal.positions.durable() < 20 * SEGMENT_BYTES {
        switch.pass_on();
        switch.put(10);
    }
    // What was copied out is what it was; there is no more of it.
    assert!(batch.iter().map(|record| record.number).eq(1..=50));
    assert!(batch.iter().all(|record| record.payload == payload(record.number)));
    let refused = batch.fill(&mut walk, u64::MAX);
    assert!(matches!(refused, Err(JournalError::NotKept { .. })), "{refused:?}");
    assert!(batch.is_empty());
    let last = files.records().last().unwrap();
    assert!(matches!(last, Err(JournalError::NotKept { .. })), "{last:?}");
    let found = files.verify_with(Some(writer.chain()), std::num::NonZeroUsize::MIN, &|_| {});
    assert!(matches!(found.damage, Some(JournalError::NotKept { .. })), "{found:?}");
    assert!(found.chain.is_none(), "nobody has rewritten anything: {found:?}");
    let refused = late.next().unwrap_err();
    assert!(matches!(refused, JournalError::NotKept { .. }), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_torn_write_over_an_earlier_laps_records_is_cut_where_it_tore(
        groups in prop::collection::vec(1_u64..40, 40..80),
        last in 1_u64..120,
        sectors in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..64), 6),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = Keeping::begin(directory.path());
        for &count in &groups {
            switch.put(count);
            switch.pass_on();
        }
        let start = switch.reader.here();
        let (safe, before) = (switch.next - 1, segments(directory.path()));
        switch.put(last);
        let after = segments(directory.path());
        prop_assume!(after.len() == before.len());
        drop(switch);
        for pattern in sectors.iter().chain([&vec![true], &vec![false]]) {
            let mut choice = pattern.iter().cycle();
            for ((path, old), (_, new)) in before.iter().zip(&after) {
                let mut mixed = old.clone();
                for (to, from) in mixed.chunks_mut(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES)) {
                    if to != from && *choice.next().unwrap() {
                        to.copy_from_slice(from);
                    }
                }
                fs::write(path, mixed).unwrap();
            }
            let open = |start| Journal::open(JournalOptions { start: Some(start), ..options(directory.path()) });
            let mut journal = open(start).unwrap();
            let found = journal.recovery.clone();
            prop_assert!((safe..=safe + last).contains(&found.last_event), "{found:?}");
            match pattern[..] {
                [true] => prop_assert_eq!((found.last_event, found.cut_bytes), (safe + last, 0)),
                [false] => prop_assert_eq!((found.last_event, found.cut_bytes), (safe, 0)),
                _ => {}
            }
            // What is written next continues what was found, and is all there is.
            for _ in 0..5 {
                journal.put_next();
            }
            journal.appender.publish();
            journal.syncer.sync().unwrap();
            drop(journal);
            let mut journal = open(start).unwrap();
            prop_assert_eq!((journal.recovery.last_event, journal.recovery.cut_bytes), (found.last_event + 5, 0));
            journal.read_all();
            let mut reader = journal.source.reader(&start).unwrap();
            let mut next = start.next_event;
            while let Some(record) = reader.next().unwrap() {
                prop_assert_eq!((record.number, record.payload), (next, &payload(next)[..]));
                next += 1;
            }
            prop_assert_eq!(next, found.last_event + 6);
            drop((journal, reader));
            for (path, bytes) in &after {
                fs::write(path, bytes).unwrap();
            }
            for (path, _) in segments(directory.path()) {
                if !after.iter().any(|(known, _)| *known == path) {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }
}
