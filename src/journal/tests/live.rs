//! What holds while the journal runs: the gate, the poison, the ring's bounds, the lock.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::{RING_BYTES, numbers_in_files, options, payload};
use crate::domain::UtcNanos;
use crate::journal::*;
use crate::wire::RecordKind;

/// Reports each write and does with it what it is told.
struct Gate {
    entered: Mutex<Sender<(u64, u64)>>,
    verdict: Mutex<Receiver<io::Result<()>>>,
}

impl WriteGate for Gate {
    fn before_write(&self, from: u64, to: u64) -> io::Result<()> {
        self.entered.lock().unwrap().send((from, to)).unwrap();
        self.verdict.lock().unwrap().recv().unwrap()
    }
}

fn gated(directory: &std::path::Path) -> (Journal, Receiver<(u64, u64)>, Sender<io::Result<()>>) {
    let (entered, writes) = channel();
    let (verdicts, verdict) = channel();
    let gate = Gate {
        entered: Mutex::new(entered),
        verdict: Mutex::new(verdict),
    };
    let journal = Journal::create(JournalOptions {
        gate: Some(Arc::new(gate)),
        ..options(directory)
    })
    .unwrap();
    (journal, writes, verdicts)
}

#[test]
fn a_held_write_keeps_durable_and_every_reader_still() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, writes, verdicts) = gated(directory.path());
    let begin = journal.positions.durable();
    journal.put_next();
    assert_eq!(
        journal.positions.appended(),
        begin,
        "nothing is visible before it is published"
    );
    journal.appender.publish();
    let appended = journal.positions.appended();
    let mut syncer = journal.syncer;
    let sync = std::thread::spawn(move || syncer.sync().map(|bytes| (bytes, syncer)));
    assert_eq!(writes.recv().unwrap(), (begin, appended));
    // The write is being held. What comes meanwhile is not covered by it.
    journal
        .appender
        .append(RecordKind::Tick, UtcNanos(1), 0, |_| {})
        .unwrap();
    journal.appender.publish();
    assert_eq!(journal.positions.durable(), begin);
    assert!(journal.reader.next().is_none() && !journal.reader.has_next());
    verdicts.send(Ok(())).unwrap();
    let (bytes, syncer) = sync.join().unwrap().unwrap();
    assert_eq!(bytes, appended - begin);
    assert_eq!(journal.positions.durable(), appended);
    assert_eq!(journal.reader.next().map(|record| record.number), Some(1));
    assert!(journal.reader.next().is_none());
    assert!(syncer.has_work());
    assert_eq!(
        (journal.positions.syncs(), journal.positions.synced_bytes()),
        (1, bytes)
    );
}

#[test]
fn what_one_write_made_durable_is_stated_by_the_very_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, writes, verdicts) = gated(directory.path());
    for _ in 0..10 {
        journal.put_next();
    }
    journal.appender.publish();
    let mut syncer = journal.syncer;
    let sync = std::thread::spawn(move || syncer.sync().map(|_| syncer));
    let (begin, first_end) = writes.recv().unwrap();
    // Two groups come while the first write is held: neither can know how far it will come.
    for _ in 0..2 {
        let tick = journal.appender.append(RecordKind::Tick, UtcNanos(1), 0, |_| {});
        assert!(tick.is_ok() && journal.appender.publish());
    }
    verdicts.send(Ok(())).unwrap();
    let mut syncer = sync.join().unwrap().unwrap();
    verdicts.send(Ok(())).unwrap();
    syncer.sync().unwrap();
    let (appender, reader) = (journal.appender, journal.reader);
    drop((syncer, appender, reader, journal.view, journal.source, journal.preparer));
    // Had the second write not stated it, damage to the first would pass for a torn end.
    let file = directory.path().join("000000000000.seg");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[begin as usize + 200] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let refused = Journal::open(options(directory.path()));
    assert!(
        matches!(&refused, Err(JournalError::Damaged { watermark, .. }) if *watermark == first_end),
        "{refused:?}"
    );
}

#[test]
fn after_a_failed_write_nothing_is_ever_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, writes, verdicts) = gated(directory.path());
    verdicts.send(Ok(())).unwrap();
    journal.put_next();
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    assert_eq!(journal.read_all(), 1);
    let durable = journal.positions.durable();

    verdicts.send(Err(io::Error::from_raw_os_error(libc::EIO))).unwrap();
    journal.put_next();
    journal.appender.publish();
    let failed = journal.syncer.sync();
    assert!(
        matches!(&failed, Err(JournalError::WriteFailed { source, .. }) if source.raw_os_error() == Some(libc::EIO)),
        "{failed:?}"
    );
    assert!(journal.positions.poisoned());
    assert_eq!(writes.try_iter().count(), 2);

    verdicts.send(Ok(())).unwrap();
    journal.put_next();
    journal.appender.publish();
    assert!(matches!(journal.syncer.sync(), Err(JournalError::Poisoned)));
    assert_eq!(writes.try_iter().count(), 0, "a failed write is not tried again");
    assert!(!journal.syncer.has_work());
    assert_eq!(journal.positions.durable(), durable);
    assert!(journal.reader.next().is_none());
    drop(journal);
    assert_eq!(numbers_in_files(directory.path()), [1]);
}

#[test]
fn a_second_switch_is_kept_out_and_a_reader_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    journal.put_next();
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    let second = Journal::open(options(directory.path()));
    assert!(matches!(&second, Err(JournalError::InUse { directory: named }) if named == directory.path()));
    let second = Journal::create(options(directory.path()));
    assert!(matches!(second, Err(JournalError::InUse { .. })));
    assert_eq!(numbers_in_files(directory.path()), [1]);
    // Any part that is left keeps the lock.
    let view = journal.view.clone();
    drop(journal);
    assert!(matches!(
        Journal::open(options(directory.path())),
        Err(JournalError::InUse { .. })
    ));
    drop(view);
    assert!(matches!(
        Journal::create(options(directory.path())),
        Err(JournalError::Exists { .. })
    ));
    assert!(Journal::open(options(directory.path())).is_ok());
}

#[test]
fn room_that_was_promised_is_there_whatever_the_sizes() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    let mut laps = 0;
    for payload_bytes in [0, 32, 128, 4064, 2016, 64, 992].into_iter().cycle() {
        let length = RECORD_HEADER_BYTES + payload_bytes as u64;
        let mut promised = journal.appender.room();
        assert!(promised <= RING_BYTES);
        while promised >= length {
            journal
                .appender
                .append(RecordKind::Tick, UtcNanos(1), payload_bytes, |out| out.fill(1))
                .unwrap();
            promised -= length;
        }
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        while journal.reader.next().is_some() {}
        journal.positions.set_applied(journal.reader.position());
        journal.positions.set_copied_out(0, journal.reader.position());
        while journal.preparer.prepare().unwrap() {}
        laps += 1;
        if laps == 70 {
            break;
        }
    }
    assert!(journal.positions.appended() > 4 * RING_BYTES);
}

#[test]
fn the_slowest_reader_keeps_its_bytes_and_the_appender_waits() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(JournalOptions {
        prepared_segments: 8,
        ..options(directory.path())
    })
    .unwrap();
    while journal.preparer.prepare().unwrap() {}
    let put = |journal: &mut Journal| {
        let bytes = payload(journal.appender.next_event_number());
        journal
            .appender
            .append(RecordKind::Request, UtcNanos(1), bytes.len(), |out| {
                out.copy_from_slice(&bytes)
            })
    };
    // Neither disk nor readers move: one ring, no more.
    while put(&mut journal).is_ok() {}
    let stuck_at = journal.appender.position();
    assert!(stuck_at <= SEGMENT_HEADER_BYTES + RING_BYTES);
    assert_eq!(put(&mut journal), Err(Full));
    // The disk moves: still full, for the readers have not.
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    assert_eq!(put(&mut journal), Err(Full));
    let mut first = None;
    while let Some(record) = journal.reader.next() {
        first = first.or(Some((record.position, record.payload.to_vec())));
    }
    journal.positions.set_applied(journal.reader.position());
    assert_eq!(put(&mut journal), Err(Full), "the link agent still holds");
    let (position, expected) = first.unwrap();
    let mut copy = vec![0; expected.len()];
    journal.view.copy(position, &mut copy);
    assert_eq!(copy, expected);
    journal.positions.set_copied_out(0, journal.reader.position());
    assert!(put(&mut journal).is_ok());
}

#[test]
#[should_panic(expected = "is not held any more")]
fn bytes_whose_room_was_given_away_are_never_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    for _ in 0..1_000 {
        journal.put_next();
    }
    journal.view.copy(SEGMENT_HEADER_BYTES, &mut [0; 32]);
}

#[test]
fn appending_stops_where_the_prepared_segments_end_and_goes_on_when_there_are_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    let prepared = journal.positions.prepared();
    let full = loop {
        if journal
            .appender
            .append(RecordKind::Tick, UtcNanos(1), 992, |out| out.fill(2))
            == Err(Full)
        {
            journal.appender.publish();
            journal.syncer.sync().unwrap();
            while journal.reader.next().is_some() {}
            journal.positions.set_applied(journal.reader.position());
            journal.positions.set_copied_out(0, journal.reader.position());
            if journal
                .appender
                .append(RecordKind::Tick, UtcNanos(1), 992, |out| out.fill(2))
                == Err(Full)
            {
                break journal.appender.position();
            }
        }
    };
    assert!(
        full <= prepared + SEGMENT_HEADER_BYTES && full + 2_048 > prepared,
        "{full} of {prepared}"
    );
    assert!(journal.preparer.prepare().unwrap());
    assert!(
        journal
            .appender
            .append(RecordKind::Tick, UtcNanos(1), 992, |out| out.fill(2))
            .is_ok()
    );
}

#[test]
fn a_new_segment_is_written_in_proportion_to_what_is_appended_and_at_once_when_it_is_the_last() {
    const LONG: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(JournalOptions {
        segment_bytes: LONG,
        ring_bytes: 4 * LONG,
        ..options(directory.path())
    })
    .unwrap();
    // The active one and two more; when it is full another is wanted.
    assert_eq!(journal.positions.prepared(), 3 * LONG);
    let put = |journal: &mut Journal, bytes: u64| {
        let end = journal.appender.position() + bytes;
        while journal.appender.position() < end {
            journal.put_next();
        }
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        journal.read_all();
    };
    let pieces = |journal: &mut Journal, now: UtcNanos| {
        let mut pieces = 0;
        while journal.preparer.prepare_piece(now).unwrap() == Preparation::Piece {
            pieces += 1;
        }
        pieces
    };
    let now = UtcNanos(1_000_000_000);
    assert_eq!(journal.preparer.prepare_piece(now).unwrap(), Preparation::Done);
    put(&mut journal, LONG);
    let begun = pieces(&mut journal, now);
    assert!(begun <= 2, "{begun} pieces at once");
    assert_eq!(
        pieces(&mut journal, now),
        0,
        "nothing was appended and no time has passed"
    );
    put(&mut journal, LONG / 8);
    let after_some = pieces(&mut journal, now);
    assert!(
        (1..=2).contains(&after_some),
        "{after_some} pieces for an eighth of a segment"
    );
    assert!(
        pieces(&mut journal, now.plus(20_000_000)) >= 1,
        "an idle switch goes on, slowly"
    );
    put(&mut journal, LONG / 2);
    pieces(&mut journal, now.plus(20_000_000));
    assert_eq!(
        journal.positions.prepared(),
        4 * LONG,
        "ready before the active one is full"
    );
    // Nobody prepares until half of the last segment is full: then the next one does not wait for anything.
    put(&mut journal, 7 * LONG / 4);
    assert_eq!(journal.positions.appended() / LONG, 3);
    pieces(&mut journal, now.plus(20_000_000));
    assert!(journal.positions.prepared() >= 5 * LONG);
    let last_event = journal.appender.next_event_number() - 1;
    drop(journal);
    assert_eq!(numbers_in_files(directory.path()), (1..=last_event).collect::<Vec<_>>());
}

#[test]
fn a_file_system_in_memory_is_written_with_fdatasync_and_that_is_said() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        // A host without tmpfs has no such fallback to show.
        return;
    };
    let mut journal = Journal::create(options(directory.path())).unwrap();
    assert_eq!(journal.facts.sync, "fdatasync");
    assert!(
        journal
            .facts
            .messages
            .iter()
            .any(|message| message.contains("fdatasync")),
        "{:?}",
        journal.facts
    );
    for _ in 0..400 {
        journal.put_next();
    }
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    drop(journal);
    assert_eq!(numbers_in_files(directory.path()).len(), 400);
    let journal = Journal::open(options(directory.path())).unwrap();
    assert_eq!(journal.recovery.last_event, 400);
    drop(journal);
    let asked = Journal::open(JournalOptions {
        sync: SyncMode::Direct,
        ..options(directory.path())
    });
    assert!(matches!(asked, Err(JournalError::Options(_))));
}

#[test]
fn four_threads_pass_every_event_on_over_many_laps() {
    const EVENTS: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let Journal {
        mut appender,
        mut syncer,
        mut reader,
        view,
        mut preparer,
        positions,
        ..
    } = Journal::create(options(directory.path())).unwrap();
    let over = &AtomicBool::new(false);
    let running = || !over.load(Ordering::Acquire);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while appender.next_event_number() <= EVENTS && running() {
                let number = appender.next_event_number();
                let bytes = payload(number);
                let time = UtcNanos(number);
                let put = appender.append(RecordKind::Request, time, bytes.len(), |out| {
                    out.copy_from_slice(&bytes)
                });
                if put.is_err() || number % 13 == 0 {
                    appender.publish();
                    std::thread::yield_now();
                }
            }
            appender.publish();
        });
        scope.spawn(move || {
            let _over = SetOnDrop(over);
            let mut expected = 1;
            while expected <= EVENTS {
                while let Some(record) = reader.next() {
                    assert_eq!(record.number, expected);
                    assert_eq!(record.payload, payload(expected));
                    let mut copy = vec![0; record.payload.len()];
                    view.copy(record.position, &mut copy);
                    assert_eq!(copy, record.payload);
                    expected += 1;
                }
                positions.set_applied(reader.position());
                positions.set_copied_out(0, reader.position());
                std::thread::yield_now();
            }
        });
        scope.spawn(move || {
            while running() {
                preparer.prepare().unwrap();
                std::thread::yield_now();
            }
        });
        while running() {
            syncer.sync().unwrap();
            std::thread::yield_now();
        }
    });
    assert_eq!(numbers_in_files(directory.path()), (1..=EVENTS).collect::<Vec<_>>());
}

/// Says that the reader has ended, well or by a panic, so that a failing test ends.
pub(super) struct SetOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
