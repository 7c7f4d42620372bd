//! What holds when the files are not as they were left: torn ends, flipped bits, bytes from elsewhere.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{SEGMENT_BYTES, numbers_in_files, options, payload};
use crate::journal::*;

fn file_of(directory: &Path, position: u64) -> (PathBuf, u64) {
    let path = directory.join(format!("{:012}.seg", position / SEGMENT_BYTES));
    (path, position % SEGMENT_BYTES)
}

/// Writes `bytes` over the journal's files at `position`.
fn overwrite(directory: &Path, position: u64, bytes: &[u8]) {
    let (path, offset) = file_of(directory, position);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn bytes_at(directory: &Path, position: u64, count: usize) -> Vec<u8> {
    let (path, offset) = file_of(directory, position);
    let mut bytes = vec![0; count];
    fs::File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// All segments' bytes, one behind the other.
fn all_bytes(directory: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0.. {
        match fs::read(directory.join(format!("{number:012}.seg"))) {
            Ok(segment) => bytes.extend(segment),
            Err(_) => return bytes,
        }
    }
    bytes
}

/// Runs a switch that appends `groups` (events in each), makes each durable, and stops without a word; returns where the
/// events end, and where the durable writes did.
fn run(directory: &Path, groups: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let mut journal = if Journal::exists(directory) {
        Journal::open(options(directory)).unwrap()
    } else {
        Journal::create(options(directory)).unwrap()
    };
    let (mut events, mut writes) = (Vec::new(), Vec::new());
    for &count in groups {
        for _ in 0..count {
            journal.put_next();
            events.push(journal.appender.position());
        }
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        journal.read_all();
        journal.preparer.prepare().unwrap();
        writes.push(journal.positions.durable());
    }
    (events, writes)
}

#[test]
fn a_torn_last_write_is_cut_at_its_first_bad_record_wherever_it_tore() {
    let pristine = tempfile::tempdir().unwrap();
    let (ends, writes) = run(pristine.path(), &[20, 30]);
    let image = all_bytes(pristine.path());
    let (safe, end) = (writes[0], writes[1]);
    for torn_at in (safe..end).step_by(32 * 13 + 1) {
        let directory = tempfile::tempdir().unwrap();
        drop(Journal::create(options(directory.path())).unwrap());
        for (number, segment) in image.chunks(SEGMENT_BYTES as usize).enumerate() {
            fs::write(directory.path().join(format!("{number:012}.seg")), segment).unwrap();
        }
        overwrite(directory.path(), torn_at, &vec![0; (end - torn_at) as usize]);
        let kept = ends.iter().filter(|&&event_end| event_end <= torn_at).count() as u64;
        assert!(kept >= 20);
        let events = numbers_in_files(directory.path());
        assert_eq!(events, (1..=kept).collect::<Vec<_>>(), "torn at {torn_at}");
        let journal = Journal::open(options(directory.path())).unwrap();
        assert_eq!(journal.recovery.last_event, kept);
        let durable = journal.recovery.durable;
        assert!(durable <= torn_at && durable >= safe);
        assert_eq!(journal.recovery.cut_bytes > 0, journal.recovery.messages.len() == 1);
        drop(journal);
        let behind = all_bytes(directory.path());
        let in_segment = &behind[durable as usize..(durable / SEGMENT_BYTES + 1) as usize * SEGMENT_BYTES as usize];
        assert!(in_segment.iter().all(|&byte| byte == 0), "what was cut is zeros now");
        run(directory.path(), &[5, 5]);
        assert_eq!(numbers_in_files(directory.path()), (1..=kept + 10).collect::<Vec<_>>());
    }
}

#[test]
fn a_hole_in_the_last_write_ends_the_journal_before_it_and_counts_the_bytes_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (ends, writes) = run(directory.path(), &[20, 30]);
    let (hole, next) = (ends[29], ends[30]);
    overwrite(directory.path(), hole, &vec![0; (next - hole) as usize]);
    let journal = Journal::open(options(directory.path())).unwrap();
    assert_eq!((journal.recovery.last_event, journal.recovery.durable), (30, hole));
    let cut = journal.recovery.cut_bytes;
    assert!(cut <= writes[1] - hole && cut > writes[1] - hole - 32, "{cut}");
    drop(journal);
    // The records behind the hole would continue the next run's numbers; they are gone.
    run(directory.path(), &[1]);
    assert_eq!(numbers_in_files(directory.path()), (1..=31).collect::<Vec<_>>());
}

#[test]
fn any_flipped_bit_below_the_watermark_is_refused_by_file_and_offset_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (ends, writes) = run(directory.path(), &[60; 8]);
    let watermark = writes[6];
    assert!(watermark > 2 * SEGMENT_BYTES, "the journal must span segments for this");
    let mut begins = ends.clone();
    begins.insert(0, SEGMENT_HEADER_BYTES);
    for position in (SEGMENT_HEADER_BYTES..watermark).step_by(1_999) {
        if position % SEGMENT_BYTES < SEGMENT_HEADER_BYTES {
            continue;
        }
        let before = bytes_at(directory.path(), position, 1)[0];
        overwrite(directory.path(), position, &[before ^ 0x10]);
        let image = all_bytes(directory.path());
        for refused in [
            Journal::open(options(directory.path())).map(drop),
            JournalFiles::open(directory.path())
                .unwrap()
                .records()
                .try_for_each(|record| record.map(drop)),
        ] {
            let Err(JournalError::Damaged {
                file,
                offset,
                position: found,
                watermark: stated,
                ..
            }) = refused
            else {
                panic!("byte {position}: {refused:?}");
            };
            assert_eq!((file, offset), file_of(directory.path(), found));
            assert!(found <= position && position < found + RECORD_BYTES_MAX);
            assert!(stated > found && stated <= watermark);
        }
        assert_eq!(all_bytes(directory.path()), image);
        overwrite(directory.path(), position, &[before]);
    }
    assert_eq!(numbers_in_files(directory.path()).len(), 480);
}

#[test]
fn a_lost_piece_is_damage_even_when_only_the_next_segment_tells() {
    let directory = tempfile::tempdir().unwrap();
    let (ends, writes) = run(directory.path(), &[40; 8]);
    let lost = ends[10];
    assert!(writes[7] > SEGMENT_BYTES + SEGMENT_HEADER_BYTES + 4_096);
    overwrite(directory.path(), lost, &vec![0; (SEGMENT_BYTES - lost) as usize]);
    let refused = Journal::open(options(directory.path())).unwrap_err();
    assert!(
        matches!(&refused, JournalError::Damaged { offset, position, .. } if (*offset, *position) == (lost, lost)),
        "{refused}"
    );
    assert!(refused.to_string().contains("000000000000.seg"), "{refused}");
}

#[test]
fn after_a_quiet_close_not_even_the_last_event_can_be_lost_silently() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    journal.put_next();
    let begin = journal.recovery.durable;
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    assert!(journal.appender.close_quiet_group());
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    drop(journal);
    // The Group record (64 bytes) goes before the first event.
    overwrite(directory.path(), begin + 64 + RECORD_HEADER_BYTES, &[0xff]);
    let refused = Journal::open(options(directory.path()));
    assert!(matches!(refused, Err(JournalError::Damaged { .. })), "{refused:?}");
}

#[test]
fn bytes_of_another_journal_do_not_parse_though_place_and_number_fit() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, writes) = run(ours.path(), &[20]);
    run(theirs.path(), &[20, 20]);
    let end = writes[0];
    let foreign = bytes_at(theirs.path(), end, 2_048);
    assert!(foreign.iter().any(|&byte| byte != 0));
    overwrite(ours.path(), end, &foreign);
    let journal = Journal::open(options(ours.path())).unwrap();
    assert_eq!((journal.recovery.last_event, journal.recovery.durable), (20, end));
    assert!(journal.recovery.cut_bytes > 0);
}

#[test]
fn bytes_of_an_earlier_lap_or_segment_never_parse_nor_reach_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (_, writes) = run(directory.path(), &[50; 14]);
    let end = *writes.last().unwrap();
    assert!(end > 3 * SEGMENT_BYTES, "one lap of the ring at least");
    let rest = bytes_at(directory.path(), end, (SEGMENT_BYTES - end % SEGMENT_BYTES) as usize);
    assert!(
        rest.iter().all(|&byte| byte == 0),
        "the half-full block's end is zeros, not the ring's earlier lap"
    );
    let earlier = bytes_at(directory.path(), end - 2 * SEGMENT_BYTES, rest.len());
    assert!(earlier.iter().any(|&byte| byte != 0));
    overwrite(directory.path(), end, &earlier);
    let journal = Journal::open(options(directory.path())).unwrap();
    assert_eq!((journal.recovery.last_event, journal.recovery.durable), (700, end));
}

#[test]
fn records_left_from_before_a_restart_do_not_continue_the_new_run() {
    // A tear leaves event 30 behind the hole; the new run then writes an event of the same length over the hole. Even if
    // clearing had failed, the left-over's epoch is older than the record before it.
    let directory = tempfile::tempdir().unwrap();
    let (ends, _) = run(directory.path(), &[10, 19]);
    let left_over = bytes_at(directory.path(), ends[27], (ends[28] - ends[27]) as usize);
    overwrite(directory.path(), ends[27] - 32, &[0xee; 8]);
    let mut journal = Journal::open(options(directory.path())).unwrap();
    assert_eq!(journal.recovery.last_event, 27);
    let bytes = payload(28);
    // Place: as event 28's record began at ends[26], its payload must fill what the Group record takes not.
    let whole = (ends[27] - ends[26]) as usize;
    let filler = whole - 64 - RECORD_HEADER_BYTES as usize;
    assert!(filler < bytes.len());
    journal
        .appender
        .append(
            crate::wire::RecordKind::Request,
            crate::domain::UtcNanos(1_028),
            filler,
            |out| {
                out.copy_from_slice(&bytes[..filler]);
            },
        )
        .unwrap();
    assert_eq!(journal.appender.position(), ends[27]);
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    drop(journal);
    overwrite(directory.path(), ends[27], &left_over);
    let journal = Journal::open(options(directory.path())).unwrap();
    assert_eq!((journal.recovery.last_event, journal.recovery.durable), (28, ends[27]));
}

#[test]
fn a_missing_segment_and_one_of_a_wrong_length_are_named() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &[60; 8]);
    let (first, _) = file_of(directory.path(), SEGMENT_BYTES);
    let aside = directory.path().join("aside");
    fs::rename(&first, &aside).unwrap();
    let refused = Journal::open(options(directory.path()));
    assert!(
        matches!(&refused, Err(JournalError::SegmentMissing { file }) if *file == first),
        "{refused:?}"
    );
    fs::rename(&aside, &first).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&first)
        .unwrap()
        .set_len(SEGMENT_BYTES / 2)
        .unwrap();
    let refused = Journal::open(options(directory.path()));
    assert!(
        matches!(&refused, Err(JournalError::SegmentForeign { file, .. }) if *file == first),
        "{refused:?}"
    );
    let refused = JournalFiles::open(directory.path());
    assert!(
        matches!(&refused, Err(JournalError::SegmentForeign { file, .. }) if *file == first),
        "{refused:?}"
    );
}

#[test]
fn other_settings_than_the_journal_was_made_with_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &[5]);
    let refused = Journal::open(JournalOptions {
        segment_bytes: 2 * SEGMENT_BYTES,
        ring_bytes: 4 * SEGMENT_BYTES,
        ..options(directory.path())
    });
    let Err(JournalError::SegmentForeign { reason, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains("32768") && reason.contains("65536"), "{reason}");
    assert!(matches!(
        Journal::open(options(&directory.path().join("nowhere"))),
        Err(JournalError::Absent { .. })
    ));
}

#[test]
fn what_a_crash_left_of_a_segment_in_the_making_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &[5]);
    let unfinished = directory.path().join("000000000009.seg.new");
    fs::write(&unfinished, b"half").unwrap();
    let journal = Journal::open(options(directory.path())).unwrap();
    assert_eq!(journal.recovery.last_event, 5);
    assert!(!unfinished.exists());
}

#[test]
fn a_journal_whose_last_segment_is_exactly_full_opens_and_goes_on_in_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(options(directory.path())).unwrap();
    let mut number = 0;
    while journal.appender.position() < SEGMENT_BYTES {
        let left = SEGMENT_BYTES - journal.appender.position();
        let bytes = (if number == 0 { left - 64 } else { left }).min(2_048) - RECORD_HEADER_BYTES;
        journal
            .appender
            .append(
                crate::wire::RecordKind::Tick,
                crate::domain::UtcNanos(1),
                bytes as usize,
                |out| out.fill(3),
            )
            .unwrap();
        number += 1;
    }
    journal.appender.publish();
    journal.syncer.sync().unwrap();
    let end = journal.positions.durable();
    assert_eq!(end, SEGMENT_BYTES + SEGMENT_HEADER_BYTES);
    let mut reader = journal.source.reader(&JournalStart::BEGINNING).unwrap();
    while reader.next().unwrap().is_some() {}
    let snapshot = reader.here();
    assert_eq!(snapshot.position, end);
    drop((journal, reader));
    let open = |start| {
        // The next segments had not been made yet.
        for later in 1..4 {
            let _may_not_be_there = fs::remove_file(directory.path().join(format!("{later:012}.seg")));
        }
        Journal::open(JournalOptions {
            start,
            ..options(directory.path())
        })
    };
    for start in [None, Some(snapshot)] {
        let mut journal = open(start).unwrap();
        assert_eq!((journal.recovery.durable, journal.recovery.last_event), (end, number));
        journal
            .appender
            .append(crate::wire::RecordKind::Tick, crate::domain::UtcNanos(2), 0, |_| {})
            .unwrap();
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        assert_eq!(journal.reader.next().map(|record| record.number), Some(number + 1));
    }
    // A place behind a segment that does not lead there is none to begin at.
    let refused = open(Some(JournalStart {
        next_event: number + 2,
        ..snapshot
    }));
    assert!(matches!(refused, Err(JournalError::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_journal_without_its_superblock_opens_as_it_did_and_may_remove_nothing() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &[60; 8]);
    let path = directory.path().join("superblock");
    for destroyed in [Vec::new(), vec![0xA5; 8_192], vec![0; 100]] {
        fs::write(&path, destroyed).unwrap();
        let journal = Journal::open(options(directory.path())).unwrap();
        assert_eq!((journal.recovery.last_event, journal.recovery.cut_bytes), (480, 0));
        assert_eq!(journal.superblock.facts().snapshots, [None, None]);
        assert_eq!(journal.positions.retained_from(), 0);
    }
    fs::remove_file(&path).unwrap();
    run(directory.path(), &[5]);
    assert_eq!(numbers_in_files(directory.path()).len(), 485);
}
