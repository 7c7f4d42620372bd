//! The chain finds who rewrites history, and outlives what happens to its own file.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use tempfile::TempDir;

use super::{SEGMENT_BYTES, options};
use crate::domain::{Currency, UtcNanos, WindowId};
use crate::journal::layout::{RecordHeader, Seed};
use crate::journal::*;
use crate::wire::{RecordKind, WindowAction, WindowEvent};

const WINDOW_EVERY: u64 = 40;

impl Journal {
    /// As `put_next`, a window's close now and then.
    pub(super) fn put_next_or_window(&mut self) {
        let number = self.appender.next_event_number();
        if !number.is_multiple_of(WINDOW_EVERY) {
            return self.put_next();
        }
        let event = WindowEvent::new(WindowAction::Close, Currency(156), WindowId::NONE);
        let time = UtcNanos(1_000 + number);
        let put = |out: &mut [u8]| out.copy_from_slice(bytemuck::bytes_of(&event));
        while self
            .appender
            .append(RecordKind::Window, time, size_of::<WindowEvent>(), put)
            .is_err()
        {
            self.make_durable();
        }
    }

    pub(super) fn make_durable(&mut self) {
        self.appender.publish();
        self.syncer.sync().unwrap();
        while self.reader.next().is_some() {}
        self.positions.set_applied(self.reader.position());
        self.positions.set_copied_out(0, self.reader.position());
        self.preparer.prepare().unwrap();
    }
}

/// A journal of `events` events with its chain, made beside it.
pub(super) fn chained(place: &Path, events: u64) -> u64 {
    let mut journal = Journal::create(options(place)).unwrap();
    let mut writer = ChainWriter::open(place).unwrap();
    for number in 1..=events {
        journal.put_next_or_window();
        if number % 13 == 0 {
            journal.make_durable();
        }
        if number % 29 == 0 {
            writer.step(journal.positions.durable()).unwrap();
        }
    }
    journal.make_durable();
    while writer.step(journal.positions.durable()).unwrap() {}
    assert_eq!(Chain::read(place).unwrap().as_ref(), Some(writer.chain()));
    journal.positions.durable()
}

fn verified(place: &Path) -> Verification {
    let chain = Chain::read(place).unwrap();
    let files = JournalFiles::open(place).unwrap();
    files.verify_with(chain.as_ref(), NonZeroUsize::new(3).unwrap(), &|_| {})
}

/// Changes a byte of event `number` and gives the record a CRC that is right again, as someone would who knows the format.
/// Returns where the record begins.
pub(super) fn rewrite(place: &Path, number: u64) -> u64 {
    let (id, position, length) = {
        let files = JournalFiles::open(place).unwrap();
        let record = files
            .records()
            .map(Result::unwrap)
            .find(|record| record.number == number)
            .unwrap();
        (files.journal_id(), record.position - 32, record.payload.len())
    };
    let path = directory::segment_path(place, position / SEGMENT_BYTES);
    let mut bytes = fs::read(&path).unwrap();
    let offset = (position % SEGMENT_BYTES) as usize;
    let mut header = RecordHeader::read(&bytes, offset);
    header.time_ns += 1;
    let payload = bytes[offset + 32..offset + 32 + length].to_vec();
    let header = Seed::new(id).sealed(position, header, &payload);
    bytes[offset..offset + 32].copy_from_slice(bytemuck::bytes_of(&header));
    fs::write(path, bytes).unwrap();
    position
}

pub(super) fn chain_again(place: &Path, durable: u64) {
    fs::remove_file(place.join("chain")).unwrap();
    let mut writer = ChainWriter::open(place).unwrap();
    while writer.step(durable).unwrap() {}
}

pub(super) fn copy(from: &Path) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
    }
    place
}

#[test]
fn the_chain_made_beside_a_live_journal_is_the_one_that_its_files_make() {
    let place = tempfile::tempdir().unwrap();
    let durable = chained(place.path(), 1_000);
    let live = Chain::read(place.path()).unwrap().unwrap();
    let found = verified(place.path()).chain.unwrap();
    assert_eq!(found.fault, None);
    assert_eq!(found.checkpoints, 1_000 / WINDOW_EVERY);
    assert_eq!(found.batches, durable / SEGMENT_BYTES);
    assert_eq!(found.batches + found.checkpoints, live.links().len() as u64);
    chain_again(place.path(), durable);
    assert_eq!(Chain::read(place.path()).unwrap().unwrap(), live);
}

#[test]
fn a_record_rewritten_with_a_right_crc_is_found_and_placed_between_two_checkpoints() {
    let place = tempfile::tempdir().unwrap();
    chained(place.path(), 600);
    let chain = Chain::read(place.path()).unwrap().unwrap();
    let covered = |record: u64| record < chain.end();
    for number in (1..600).step_by(37) {
        let copy = copy(place.path());
        let position = rewrite(copy.path(), number);
        let found = verified(copy.path());
        assert!(
            found.damage.is_none(),
            "the records alone tell nothing: {:?}",
            found.damage
        );
        let fault = found.chain.unwrap().fault;
        if !covered(position) {
            continue;
        }
        let Some(ChainError::Rewritten {
            from,
            to,
            after,
            before,
            batches,
            ..
        }) = fault
        else {
            panic!("event {number} was rewritten: {fault:?}");
        };
        assert!(from <= position && position < to, "{from} {position} {to}");
        assert_eq!(batches, 1);
        assert_eq!(
            after.map_or(0, |mark| mark.event),
            (number - 1) / WINDOW_EVERY * WINDOW_EVERY
        );
        let before = before.map_or(u64::MAX, |mark| mark.event);
        assert!(
            before >= number,
            "event {number} was rewritten, {before} is the first that does not hold"
        );
    }
}

#[test]
fn who_makes_the_chain_anew_is_found_by_a_checkpoint_that_was_taken_away() {
    let place = tempfile::tempdir().unwrap();
    let durable = chained(place.path(), 600);
    let taken: Vec<ChainLink> = Chain::read(place.path()).unwrap().unwrap().links().to_vec();
    let position = rewrite(place.path(), 300);
    chain_again(place.path(), durable);
    assert_eq!(verified(place.path()).chain.unwrap().fault, None);
    let anew = Chain::read(place.path()).unwrap().unwrap();
    for link in taken {
        let still_there = anew.find(&link.value).is_some();
        assert_eq!(still_there, link.entry.to <= position, "{link:?}");
    }
}

#[test]
fn a_chain_file_with_any_digit_changed_is_named_by_line() {
    let place = tempfile::tempdir().unwrap();
    chained(place.path(), 300);
    let path = place.path().join("chain");
    let text = fs::read_to_string(&path).unwrap();
    for (at, line) in text.lines().enumerate() {
        let begin = text.lines().take(at).map(|line| line.len() + 1).sum::<usize>();
        for digit in [line.len() - 1, line.len() / 2, line.len() / 4] {
            let mut bytes = text.clone().into_bytes();
            let byte = &mut bytes[begin + digit];
            *byte = if *byte == b'1' { b'2' } else { b'1' };
            fs::write(&path, bytes).unwrap();
            let found = Chain::read(place.path());
            let named = match &found {
                Err(ChainFailure::Finding(ChainError::Line { line, .. })) => *line,
                // What a window line says beside the value is held against the journal itself.
                Ok(_) => match verified(place.path()).chain.unwrap().fault {
                    Some(ChainError::Rewritten { .. } | ChainError::Foreign { .. }) => at as u64 + 1,
                    fault => panic!("line {line}: {fault:?}"),
                },
                other => panic!("{other:?}"),
            };
            assert!(
                named == at as u64 + 1 || at == 0,
                "line {} was changed, {named} is named",
                at + 1
            );
        }
    }
}

#[test]
fn a_chain_file_torn_at_any_byte_grows_back_to_what_it_was() {
    let place = tempfile::tempdir().unwrap();
    let durable = chained(place.path(), 250);
    let path = place.path().join("chain");
    let whole = fs::read(&path).unwrap();
    for end in (0..whole.len())
        .step_by(97)
        .chain((whole.len() - 300..whole.len()).step_by(7))
    {
        for torn in [whole[..end].to_vec(), [&whole[..end], &[0; 100][..]].concat()] {
            fs::write(&path, torn).unwrap();
            let mut writer = ChainWriter::open(place.path()).unwrap();
            while writer.step(durable).unwrap() {}
            assert_eq!(fs::read(&path).unwrap(), whole, "torn at {end}");
        }
    }
}

#[test]
fn damage_is_not_called_tampering_and_what_lies_before_it_is_held_against_the_chain() {
    let place = tempfile::tempdir().unwrap();
    chained(place.path(), 900);
    let chain = Chain::read(place.path()).unwrap().unwrap();
    for number in (1..800).step_by(53) {
        let copy = copy(place.path());
        let files = JournalFiles::open(place.path()).unwrap();
        let hit = files
            .records()
            .map(Result::unwrap)
            .find(|record| record.number == number);
        let position = hit.unwrap().position;
        let path = directory::segment_path(copy.path(), position / SEGMENT_BYTES);
        let mut bytes = fs::read(&path).unwrap();
        bytes[(position % SEGMENT_BYTES) as usize - 8] ^= 1;
        fs::write(&path, bytes).unwrap();
        let found = verified(copy.path());
        assert!(
            matches!(found.damage, Some(JournalError::Damaged { .. })),
            "{:?}",
            found.damage
        );
        let verdict = found.chain.unwrap();
        let before = chain.links().iter().filter(|link| link.entry.to < position).count() as u64;
        assert_eq!((verdict.fault, verdict.batches + verdict.checkpoints), (None, before));
    }
}

#[test]
fn zeros_in_the_middle_of_the_chain_file_are_refused_and_nothing_of_it_is_touched() {
    let place = tempfile::tempdir().unwrap();
    chained(place.path(), 900);
    let path = place.path().join("chain");
    let whole = fs::read(&path).unwrap();
    let links = Chain::read(place.path()).unwrap().unwrap();
    let last_segment = links.of_segment(links.end() / SEGMENT_BYTES).1.len();
    let flushed: usize = whole
        .split_inclusive(|&byte| byte == b'\n')
        .take(1 + links.links().len() - last_segment)
        .map(<[u8]>::len)
        .sum();
    assert!(flushed > 2_048, "{flushed}");
    // One byte anywhere, and whole sectors of what had been flushed a segment before.
    let bytes = (0..flushed - 512).step_by(61).map(|at| (at, at + 1));
    let sectors = (0..flushed / 512 - 2).map(|at| (at * 512, (at + 1) * 512));
    for (from, to) in bytes.chain(sectors) {
        let mut harmed = whole.clone();
        harmed[from..to].fill(0);
        fs::write(&path, &harmed).unwrap();
        let named = 1 + whole[..from].iter().filter(|&&byte| byte == b'\n').count() as u64;
        for refused in [
            Chain::read(place.path()).map(drop),
            ChainWriter::open(place.path()).map(drop),
        ] {
            assert!(
                matches!(&refused, Err(ChainFailure::Finding(ChainError::Line { line, .. })) if *line == named),
                "zeros from {from} to {to}: {refused:?}"
            );
        }
        assert!(fs::read(&path).unwrap() == harmed, "zeros from {from} to {to}");
    }
}

#[test]
fn a_chain_that_ends_before_the_journal_begins_is_refused_and_not_cut() {
    let place = tempfile::tempdir().unwrap();
    chained(place.path(), 900);
    let path = place.path().join("chain");
    let whole = fs::read(&path).unwrap();
    let torn = &whole[..whole.len() / 8];
    fs::write(&path, torn).unwrap();
    for number in 0..2 {
        fs::remove_file(directory::segment_path(place.path(), number)).unwrap();
    }
    let refused = ChainWriter::open(place.path());
    assert!(
        matches!(refused, Err(ChainFailure::Finding(ChainError::Short { .. }))),
        "{refused:?}"
    );
    assert!(fs::read(&path).unwrap() == torn);
}

#[test]
fn a_journal_whose_end_was_cut_off_is_shorter_than_its_chain() {
    let place = tempfile::tempdir().unwrap();
    let durable = chained(place.path(), 600);
    let end = Chain::read(place.path()).unwrap().unwrap().end();
    // The last checkpoint's event and all behind it become zeros, in every segment.
    for number in (end - 64) / SEGMENT_BYTES..=durable / SEGMENT_BYTES {
        let path = directory::segment_path(place.path(), number);
        let mut bytes = fs::read(&path).unwrap();
        let from = (end - 64).max(number * SEGMENT_BYTES + 4096) % SEGMENT_BYTES;
        bytes[from as usize..].fill(0);
        fs::write(path, bytes).unwrap();
    }
    let found = verified(place.path());
    assert!(matches!(found.chain.unwrap().fault, Some(ChainError::Short { chained, .. }) if chained == end));
    let mut writer = ChainWriter::open(place.path()).unwrap();
    let refused = writer.step(end - 64);
    assert!(
        matches!(refused, Err(ChainFailure::Finding(ChainError::Short { .. }))),
        "{refused:?}"
    );
}

#[test]
fn a_start_finds_what_was_rewritten_in_the_active_segment_while_the_switch_stood_still() {
    let place = tempfile::tempdir().unwrap();
    let durable = chained(place.path(), 600);
    let chain = Chain::read(place.path()).unwrap().unwrap();
    let last = chain.checkpoint().unwrap().0.event;
    rewrite(place.path(), last - 1);
    let mut writer = ChainWriter::open(place.path()).unwrap();
    let outcome = loop {
        match writer.step(durable) {
            Ok(true) => {}
            other => break other,
        }
    };
    assert!(
        matches!(outcome, Err(ChainFailure::Finding(ChainError::Rewritten { .. }))),
        "{outcome:?}"
    );
}
