//! The archivist behind a live journal, with real files.

use std::num::NonZeroUsize;
use std::path::Path;

use super::*;
use crate::domain::UtcNanos;
use crate::journal::{Chain, Journal, JournalFiles, JournalOptions, JournalStart, SyncMode};
use crate::wire::RecordKind;

const SEGMENT_BYTES: u64 = 128 << 10;
const KEEP_MIB: u64 = 1;
const PAYLOAD_BYTES: usize = 480;

fn options(directory: &Path, start: Option<JournalStart>) -> JournalOptions {
    JournalOptions {
        directory: directory.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        ring_bytes: 2 * SEGMENT_BYTES,
        sync: SyncMode::Auto,
        lock_memory: false,
        prepared_segments: 2,
        link_agents: 0,
        start,
        gate: None,
    }
}

struct Site {
    journal: Journal,
    archivist: Archivist,
    view: ArchivistView,
}

impl Site {
    fn new(journal: Journal, directory: &Path, archive: &Path) -> Self {
        let (view, floors) = (ArchivistView::default(), Arc::new(RetentionFloors::default()));
        floors.set_register(u64::MAX);
        let archivist = Archivist::new(ArchivistParts {
            journal: directory.to_owned(),
            positions: Arc::clone(&journal.positions),
            settings: ArchiveSettings {
                directory: Some(archive.to_owned()),
                journal_keep_mib: Some(KEEP_MIB),
                ..ArchiveSettings::default()
            },
            superblock: Arc::clone(&journal.superblock),
            floors,
            follower: None,
            view: view.clone(),
        });
        Self {
            journal,
            archivist,
            view,
        }
    }

    /// Some three segments more, the archivist keeping up; returns the place behind them.
    fn go_on(&mut self) -> JournalStart {
        self.put();
        while self.archivist.do_work().unwrap() > 0 {}
        let next_event = self.journal.appender.next_event_number();
        JournalStart {
            position: self.journal.positions.durable(),
            next_event,
            last_time: UtcNanos(next_event - 1),
            epoch: 1,
        }
    }

    fn put(&mut self) {
        let journal = &mut self.journal;
        for _ in 0..640 {
            let number = journal.appender.next_event_number();
            let put = |out: &mut [u8]| out.fill(number as u8);
            let time = UtcNanos(number);
            while journal
                .appender
                .append(RecordKind::Request, time, PAYLOAD_BYTES, put)
                .is_err()
            {
                journal.appender.publish();
                journal.syncer.sync().unwrap();
                while journal.reader.next().is_some() {}
                journal.positions.set_applied(journal.reader.position());
                journal.preparer.prepare().unwrap();
            }
        }
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        while journal.reader.next().is_some() {}
        journal.positions.set_applied(journal.reader.position());
    }
}

#[test]
fn the_journal_stays_within_its_bound_and_with_its_archive_holds_every_event() {
    let (place, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = Journal::create(options(place.path(), None)).unwrap();
    let mut site = Site::new(journal, place.path(), archive.path());
    let mut last = site.go_on();
    for _ in 0..5 {
        last = site.go_on();
    }
    let report = site.view.report();
    assert!(report.journal_bytes > KEEP_MIB << 20, "{report:?}");
    assert_eq!(
        (report.held_by, report.retired),
        (Some(Holder::Snapshots), 0),
        "there are no snapshots"
    );
    for round in 0..6 {
        site.journal.superblock.add_snapshot(last).unwrap();
        last = site.go_on();
        let report = site.view.report();
        assert_eq!((&report.chain_fault, &report.archive_fault), (&None, &None));
        if round > 0 {
            // One comes in while the last is taken for the next.
            assert!(report.journal_bytes <= KEEP_MIB << 20, "round {round}: {report:?}");
            assert_eq!(report.held_by, None);
        }
    }
    let files = SealedSegments::of(place.path()).unwrap();
    assert!(files.count() * SEGMENT_BYTES <= KEEP_MIB << 20, "{files:?}");
    assert!(files.oldest() > 15, "{files:?}");
    let older = site.journal.superblock.facts().snapshots[1].unwrap();
    assert!(
        files.oldest() * SEGMENT_BYTES <= older.position,
        "a start from the older snapshot finds its segment"
    );
    let events = site.journal.appender.next_event_number() - 1;
    site.archivist.on_close();
    drop(site);
    let whole = tempfile::tempdir().unwrap();
    let threads = NonZeroUsize::MIN;
    let opened = Archive::open(archive.path()).unwrap();
    opened
        .put_before(Some(place.path()), whole.path(), threads, &|_| {})
        .unwrap();
    let journal = JournalFiles::open(whole.path()).unwrap();
    let found = journal.verify_with(Chain::read(whole.path()).unwrap().as_ref(), threads, &|_| {});
    assert_eq!((found.events, found.damage.is_none()), (events, true));
    assert_eq!(found.chain.unwrap().fault, None);
    // The next start begins at the older snapshot, and the archivist goes on.
    let journal = Journal::open(options(place.path(), Some(older))).unwrap();
    assert_eq!(journal.recovery.last_event, events);
    let mut site = Site::new(journal, place.path(), archive.path());
    last = site.go_on();
    assert_eq!(site.view.report().archive_fault, None);
    assert!(site.view.report().archived_to + 3 * SEGMENT_BYTES > last.position);
}

#[test]
fn nothing_is_removed_when_what_the_archive_has_of_it_is_not_right_any_more() {
    let (place, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = Journal::create(options(place.path(), None)).unwrap();
    let mut site = Site::new(journal, place.path(), archive.path());
    for _ in 0..5 {
        site.go_on();
    }
    let damaged = archive.path().join("000000000000.seg.zst");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    for _ in 0..2 {
        let place = site.go_on();
        site.journal.superblock.add_snapshot(place).unwrap();
    }
    site.go_on();
    let report = site.view.report();
    let fault = report.archive_fault.expect("it is told");
    assert!(fault.contains("000000000000.seg.zst"), "{fault}");
    assert_eq!(
        (report.retired, SealedSegments::of(place.path()).unwrap().oldest()),
        (0, 0)
    );
}

#[test]
fn a_journal_put_back_from_a_copy_keeps_what_it_has_written_since_though_the_archive_has_those_numbers() {
    let (place, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = Journal::create(options(place.path(), None)).unwrap();
    let mut site = Site::new(journal, place.path(), archive.path());
    site.go_on();
    let copied_to = site.go_on();
    let copied = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(place.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copied.path().join(entry.file_name())).unwrap();
    }
    for _ in 0..7 {
        site.go_on();
    }
    let archived_to = site.view.report().archived_to;
    drop(site);
    let journal = Journal::open(options(copied.path(), None)).unwrap();
    let mut site = Site::new(journal, copied.path(), archive.path());
    let mut last = copied_to;
    for _ in 0..5 {
        last = site.go_on();
        site.journal.superblock.add_snapshot(last).unwrap();
    }
    assert!(last.position < archived_to, "the archive is ahead");
    let report = site.view.report();
    let oldest = SealedSegments::of(copied.path()).unwrap().oldest();
    let differing = copied_to.position / SEGMENT_BYTES;
    assert_eq!(
        oldest, differing,
        "what is in the archive goes, and no more: {report:?}"
    );
    let fault = report.archive_fault.expect("it is told");
    assert!(fault.contains(&format!("{differing:012}.seg")), "{fault}");
    let kept = JournalFiles::open(copied.path()).unwrap();
    let last_event = kept.records().last().unwrap().unwrap().number;
    assert_eq!(last_event + 1, last.next_event);
}

#[test]
fn what_is_chained_is_archived_while_the_chain_can_not_go_on() {
    let (place, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = Journal::create(options(place.path(), None)).unwrap();
    let mut site = Site::new(journal, place.path(), archive.path());
    for _ in 0..2 {
        site.put();
    }
    let away = tempfile::tempdir().unwrap();
    for number in 3..SealedSegments::of(place.path()).unwrap().count() {
        let name = format!("{number:012}.seg");
        std::fs::rename(place.path().join(&name), away.path().join(name)).unwrap();
    }
    while site.archivist.do_work().unwrap() > 0 {}
    let report = site.view.report();
    assert!(report.chain_fault.is_some(), "{report:?}");
    assert_eq!(
        (report.chained_to, report.archived_to),
        (3 * SEGMENT_BYTES, 3 * SEGMENT_BYTES)
    );
}
