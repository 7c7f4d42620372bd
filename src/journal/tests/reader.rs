//! A reader of the running journal sees every durable event once and in order, and holds nobody up, wherever it reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::live::SetOnDrop;
use super::{RING_BYTES, SEGMENT_BYTES, options, payload};
use crate::domain::UtcNanos;
use crate::journal::*;
use crate::wire::RecordKind;

/// Reads what there is, checking each event; returns the number of the next one.
fn read_on(reader: &mut JournalReader, mut next: u64) -> u64 {
    while let Some(record) = reader.next().unwrap() {
        assert_eq!(record.number, next);
        assert_eq!(record.payload, payload(next));
        assert_eq!(record.payload.as_ptr() as usize % 32, 0);
        assert_eq!(record.time, UtcNanos(1_000 + next));
        next += 1;
    }
    next
}

/// Appends `events` and makes them durable, a group of ten at a time.
fn put(journal: &mut Journal, events: u64) {
    for number in 1..=events {
        journal.put_next();
        if number % 10 == 0 || number == events {
            journal.appender.publish();
            journal.syncer.sync().unwrap();
            journal.read_all();
            journal.preparer.prepare().unwrap();
        }
    }
}

#[test]
fn a_reader_that_falls_behind_the_tail_goes_on_from_the_files_and_comes_back() {
    for sync in [SyncMode::Auto, SyncMode::Fdatasync] {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(JournalOptions {
            sync,
            ..options(directory.path())
        })
        .unwrap();
        let mut reader = journal.source.reader(&JournalStart::BEGINNING).unwrap();
        assert!(reader.next().unwrap().is_none());
        let mut next = 1;
        for _ in 0..4 {
            // Close behind: all of it is still in the tail.
            for _ in 0..5 {
                put(&mut journal, 20);
                let (tail, files) = (reader.from_tail_bytes(), reader.from_files_bytes());
                next = read_on(&mut reader, next);
                assert!(reader.from_tail_bytes() > tail);
                assert_eq!(reader.from_files_bytes(), files);
            }
            // Two laps behind: most of it is in the files alone.
            let begin = journal.positions.durable();
            while journal.positions.durable() < begin + 2 * RING_BYTES {
                put(&mut journal, 10);
            }
            let files = reader.from_files_bytes();
            next = read_on(&mut reader, next);
            assert!(reader.from_files_bytes() - files > RING_BYTES / 2);
            assert_eq!(reader.position(), journal.positions.durable());
            assert_eq!(reader.behind_bytes(), 0);
        }
        assert_eq!(next, journal.appender.next_event_number());
    }
}

#[test]
fn a_reader_begins_at_any_place_an_earlier_one_had_come_to_and_a_start_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    put(&mut journal, 700);
    let mut first = journal.source.reader(&JournalStart::BEGINNING).unwrap();
    let mut places = vec![(first.here(), 1)];
    while let Some(number) = first.next().unwrap().map(|record| record.number) {
        if number % 97 == 0 || number == 700 {
            places.push((first.here(), number + 1));
        }
    }
    for (place, next) in &places {
        assert_eq!(place.next_event, *next);
        let mut reader = journal.source.reader(place).unwrap();
        assert_eq!(read_on(&mut reader, *next), 701);
    }
    drop((journal, first));
    let files = JournalFiles::open(directory.path()).unwrap();
    for (place, next) in places {
        let numbers: Vec<u64> = files
            .records_from(&place)
            .unwrap()
            .map(|record| record.unwrap().number)
            .collect();
        assert_eq!(numbers, (next..=700).collect::<Vec<_>>());
        let journal = Journal::open(JournalOptions {
            start: Some(place),
            ..options(directory.path())
        })
        .unwrap();
        assert_eq!((journal.recovery.last_event, journal.recovery.cut_bytes), (700, 0));
        // What the start read is in the tail, what lies before it in the files.
        let mut reader = journal.source.reader(&place).unwrap();
        assert_eq!(read_on(&mut reader, next), 701);
        let mut reader = journal.source.reader(&JournalStart::BEGINNING).unwrap();
        assert_eq!(read_on(&mut reader, 1), 701);
    }
}

#[test]
fn a_start_behind_the_last_event_begins_a_later_epoch_than_any_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    put(&mut journal, 30);
    for epoch in 2..6 {
        let mut reader = journal.source.reader(&JournalStart::BEGINNING).unwrap();
        let next = read_on(&mut reader, 1);
        let start = Some(reader.here());
        drop((journal, reader));
        journal = Journal::open(JournalOptions {
            start,
            ..options(directory.path())
        })
        .unwrap();
        assert_eq!(journal.recovery.last_event, next - 1);
        put(&mut journal, 1);
        let files = JournalFiles::open(directory.path()).unwrap();
        assert_eq!(files.walk().last().unwrap().unwrap().epoch, epoch);
    }
    drop(journal);
    assert_eq!(
        Journal::open(options(directory.path())).unwrap().recovery.last_event,
        34
    );
}

#[test]
fn a_start_that_the_journal_does_not_lead_to_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    put(&mut journal, 300);
    let mut reader = journal.source.reader(&JournalStart::BEGINNING).unwrap();
    read_on(&mut reader, 1);
    let end = reader.here();
    drop((journal, reader));
    let open = |start| {
        Journal::open(JournalOptions {
            start: Some(start),
            ..options(directory.path())
        })
    };
    for wrong in [
        JournalStart {
            position: end.position + 32,
            ..end
        },
        JournalStart {
            position: end.position + 32 * 64,
            ..end
        },
        JournalStart {
            position: end.position - 32,
            ..end
        },
        JournalStart {
            next_event: end.next_event + 1,
            ..end
        },
    ] {
        let refused = open(wrong).unwrap_err();
        assert!(matches!(refused, JournalError::Damaged { .. }), "{wrong:?}: {refused}");
    }
    let far = open(JournalStart {
        position: end.position + 64 * SEGMENT_BYTES,
        ..end
    })
    .unwrap_err();
    assert!(matches!(far, JournalError::SegmentMissing { .. }), "{far}");
    // What was durable before the start is gone: the journal must not seem to end well there.
    let last = directory
        .path()
        .join(format!("{:012}.seg", end.position / SEGMENT_BYTES));
    let mut bytes = std::fs::read(&last).unwrap();
    bytes[SEGMENT_HEADER_BYTES as usize..].fill(0);
    std::fs::write(&last, bytes).unwrap();
    let refused = open(end).unwrap_err();
    assert!(
        matches!(&refused, JournalError::Damaged { file, .. } if *file == last),
        "{refused}"
    );
}

#[test]
fn a_journal_whose_older_segments_were_removed_opens_at_a_later_start_and_nowhere_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    put(&mut journal, 800);
    let mut reader = journal.source.reader(&JournalStart::BEGINNING).unwrap();
    while reader.position() < 3 * SEGMENT_BYTES {
        reader.next().unwrap().unwrap();
    }
    let place = reader.here();
    for number in 0..3 {
        std::fs::remove_file(directory.path().join(format!("{number:012}.seg"))).unwrap();
    }
    // Beside the running switch and offline, in the same words.
    let is_not_kept = |error: JournalError| {
        assert!(
            matches!(
                &error,
                JournalError::NotKept {
                    position: SEGMENT_HEADER_BYTES,
                    first_segment: 3,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error.to_string().contains("snapshot") && error.to_string().contains("archive"),
            "{error}"
        );
    };
    is_not_kept(journal.source.reader(&JournalStart::BEGINNING).unwrap_err());
    assert_eq!(read_on(&mut reader, place.next_event), 801);
    drop((journal, reader));
    is_not_kept(Journal::open(options(directory.path())).unwrap_err());
    let files = JournalFiles::open(directory.path()).unwrap();
    is_not_kept(files.records_from(&JournalStart::BEGINNING).unwrap_err());
    assert_eq!(files.segment_numbers().start, 3);

    // What is kept is read and checked as ever.
    let kept: Vec<u64> = files.records().map(|record| record.unwrap().number).collect();
    assert!(kept[0] > 1 && kept[0] <= place.next_event);
    assert_eq!(kept, (kept[0]..=800).collect::<Vec<_>>());
    let found = files.verify(std::num::NonZeroUsize::new(2).unwrap(), &|_| {});
    assert_eq!((found.first_event, found.events), (kept[0], 800));
    assert!(found.damage.is_none());
    let figures = Statistics::of(&files, |_| {}).unwrap();
    assert_eq!(figures.events, kept.len() as u64);

    let mut journal = Journal::open(JournalOptions {
        start: Some(place),
        ..options(directory.path())
    })
    .unwrap();
    assert_eq!(journal.recovery.last_event, 800);
    put(&mut journal, 200);
    drop(journal);
    let journal = Journal::open(JournalOptions {
        start: Some(place),
        ..options(directory.path())
    })
    .unwrap();
    assert_eq!(journal.recovery.last_event, 1_000);
    assert!(matches!(
        Journal::create(options(directory.path())),
        Err(JournalError::InUse { .. })
    ));
    drop(journal);
    assert!(matches!(
        Journal::create(options(directory.path())),
        Err(JournalError::Exists { .. })
    ));
}

#[test]
fn readers_race_the_appender_over_many_laps_and_see_what_was_written() {
    const EVENTS: u64 = 8_000;
    let directory = tempfile::tempdir().unwrap();
    let Journal {
        mut appender,
        mut syncer,
        reader: mut clearing,
        source,
        mut preparer,
        positions,
        ..
    } = Journal::create(JournalOptions {
        link_agents: 0,
        ..options(directory.path())
    })
    .unwrap();
    let over = &AtomicBool::new(false);
    let racing = &AtomicU64::new(3);
    let running = || !over.load(Ordering::Acquire) && racing.load(Ordering::Acquire) > 0;
    let durable = &*positions;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _over = SetOnDrop(over);
            while appender.next_event_number() <= EVENTS && running() {
                let number = appender.next_event_number();
                let bytes = payload(number);
                let put = appender.append(RecordKind::Request, UtcNanos(1_000 + number), bytes.len(), |out| {
                    out.copy_from_slice(&bytes)
                });
                if put.is_err() || number % 13 == 0 {
                    appender.publish();
                    std::thread::yield_now();
                }
            }
            appender.publish();
            while running() {
                std::thread::yield_now();
            }
        });
        // Clearing frees the ring as fast as it can, so that its room is taken again at once.
        scope.spawn(move || {
            let _over = SetOnDrop(over);
            while running() {
                while clearing.next().is_some() {}
                durable.set_applied(clearing.position());
                std::thread::yield_now();
            }
        });
        scope.spawn(move || {
            let _over = SetOnDrop(over);
            while running() {
                preparer.prepare().unwrap();
                std::thread::yield_now();
            }
        });
        // One reads as fast as it can; one stays most of a lap behind, where what it copies is just being given up; one
        // lets three laps pass and catches up.
        let readers: Vec<_> = [0, RING_BYTES / 64 * 63, 3 * RING_BYTES]
            .into_iter()
            .map(|behind_bytes| {
                let mut reader = source.reader(&JournalStart::BEGINNING).unwrap();
                scope.spawn(move || {
                    let _over = SetOnDrop(over);
                    let mut next = 1;
                    while next <= EVENTS && !over.load(Ordering::Acquire) {
                        let to = durable.durable();
                        let last = durable.appended() == to && reader.behind_bytes() < behind_bytes;
                        if reader.position() + behind_bytes > to && !last {
                            std::thread::yield_now();
                            continue;
                        }
                        while reader.position() < to {
                            let Some(record) = reader.next().unwrap() else { break };
                            assert_eq!(record.number, next);
                            assert_eq!(record.payload, payload(next), "event {next}");
                            next += 1;
                        }
                    }
                    racing.fetch_sub(1, Ordering::AcqRel);
                    std::mem::forget(_over);
                    (next, reader.from_tail_bytes(), reader.from_files_bytes())
                })
            })
            .collect();
        while running() {
            syncer.sync().unwrap();
            std::thread::yield_now();
        }
        let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(read.iter().all(|(next, ..)| *next == EVENTS + 1), "{read:?}");
        assert!(read[0].1 > 0 && read[2].2 > 0, "{read:?}");
    });
}
