//! Harm at every byte: what was perhaps never durable ends the journal there, what had been durable is refused.
//!
//! One journal is written, and its bytes are laid out anew, harmed, for each case. What a case must come to follows from
//! one figure: the first byte that differs from what was written. Events that end before it are kept, all others are not.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{numbers_in_files, options, payload};
use crate::journal::*;

/// Does something to a journal's bytes.
type Harm<'a> = &'a dyn Fn(&mut [u8]);

/// The shortest there are, so that every byte can be tried.
const SEGMENT_BYTES: u64 = 16 << 10;
const RING_BYTES: u64 = 32 << 10;
const SECTOR_BYTES: usize = 512;
const HEADER_BYTES: usize = SEGMENT_HEADER_BYTES as usize;
static ZEROS: [u8; SEGMENT_BYTES as usize] = [0; SEGMENT_BYTES as usize];

fn small(directory: &Path) -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        ring_bytes: RING_BYTES,
        ..options(directory)
    }
}

/// A place in memory where the host has one: there are thousands of cases, and it is their bytes that count.
fn place() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// A journal as it was written: its files' bytes one behind the other, and where things end in them.
struct Written {
    bytes: Vec<u8>,
    /// Where each event's record ends.
    events: Vec<u64>,
    /// Where each durable write ends.
    writes: Vec<u64>,
    /// The bytes before the last durable write.
    before: Vec<u8>,
}

impl Written {
    /// Durable writes of so many events each, by one run after the other.
    fn by_runs(runs: &[&[u64]]) -> Self {
        let place = place();
        let (mut events, mut writes, mut before) = (Vec::new(), Vec::new(), Vec::new());
        for &groups in runs {
            let mut journal = if Journal::exists(place.path()) {
                Journal::open(small(place.path())).unwrap()
            } else {
                Journal::create(small(place.path())).unwrap()
            };
            for &count in groups {
                for _ in 0..count {
                    journal.put_next();
                    events.push(journal.appender.position());
                }
                journal.appender.publish();
                while journal.preparer.prepare().unwrap() {}
                before = bytes_in(place.path());
                journal.syncer.sync().unwrap();
                journal.read_all();
                writes.push(journal.positions.durable());
            }
        }
        Self {
            bytes: bytes_in(place.path()),
            events,
            writes,
            before,
        }
    }

    /// What the last durable write covers.
    fn last_write(&self) -> std::ops::Range<usize> {
        let [.., safe, end] = self.writes[..] else {
            panic!("one write only")
        };
        safe as usize..end as usize
    }

    /// How many events lie wholly before `position`.
    fn events_before(&self, position: usize) -> u64 {
        self.events.iter().filter(|&&end| end <= position as u64).count() as u64
    }

    /// Where `harmed` first differs from what was written; its end if it does not.
    fn first_difference(&self, harmed: &[u8]) -> usize {
        let pieces = self.bytes.chunks(SECTOR_BYTES).zip(harmed.chunks(SECTOR_BYTES));
        let same = pieces.take_while(|(written, found)| written == found).count() * SECTOR_BYTES;
        let pairs = self.bytes[same..].iter().zip(&harmed[same..]);
        same + pairs.take_while(|(written, found)| written == found).count()
    }
}

fn bytes_in(directory: &Path) -> Vec<u8> {
    (0..)
        .map_while(|number| fs::read(directory.join(format!("{number:012}.seg"))).ok())
        .flatten()
        .collect()
}

/// Makes the files of `directory` hold `bytes`, and nothing else.
fn lay_out(directory: &Path, bytes: &[u8]) {
    let segments = bytes.chunks(SEGMENT_BYTES as usize);
    for (number, segment) in segments.clone().enumerate() {
        fs::write(directory.join(format!("{number:012}.seg")), segment).unwrap();
    }
    for number in segments.len().. {
        if fs::remove_file(directory.join(format!("{number:012}.seg"))).is_err() {
            return;
        }
    }
}

/// The journal opens with exactly the events before the first harmed byte; nothing before its end is changed, nothing
/// behind it is left, and the next run goes on from there.
fn ends_at_the_harm(directory: &Path, written: &Written, harmed: &[u8], case: &dyn std::fmt::Display) {
    lay_out(directory, harmed);
    let difference = written.first_difference(harmed);
    let kept = written.events_before(difference);
    assert!(kept >= written.events_before(written.last_write().start), "{case}");
    let read: Vec<u64> = (1..=kept).collect();
    let files = JournalFiles::open(directory).unwrap();
    let found = files.records().map(|record| {
        let record = record.unwrap_or_else(|damage| panic!("{case}: {damage}"));
        assert_eq!(record.payload, payload(record.number), "{case}");
        record.number
    });
    assert_eq!(found.collect::<Vec<_>>(), read, "{case}");
    let mut journal = Journal::open(small(directory)).unwrap_or_else(|refusal| panic!("{case}: {refusal}"));
    let end = journal.recovery.durable as usize;
    assert_eq!(journal.recovery.last_event, kept, "{case}");
    let said = journal
        .recovery
        .messages
        .iter()
        .any(|message| message.starts_with("cut "));
    assert_eq!(said, journal.recovery.cut_bytes > 0, "{case}");
    let after = bytes_in(directory);
    assert!(end <= difference.max(written.last_write().end), "{case}");
    assert!(after[..end] == written.bytes[..end], "{case}: what counts was changed");
    for (start, segment) in (0..)
        .step_by(SEGMENT_BYTES as usize)
        .zip(after.chunks(SEGMENT_BYTES as usize))
    {
        let from = (start + SEGMENT_HEADER_BYTES as usize).max(end) - start;
        let rest = segment.get(from..).unwrap_or_default();
        assert!(*rest == ZEROS[..rest.len()], "{case}: bytes were left behind");
    }
    // Of the next runs, one in so many is enough: where they begin has just been seen to be zeros.
    if difference.is_multiple_of(8) {
        journal.put_next();
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        drop(journal);
        assert_eq!(
            numbers_in_files(directory),
            (1..=kept + 1).collect::<Vec<_>>(),
            "{case}"
        );
    }
}

/// A last write within one segment, and one that goes on in the next.
fn with_a_last_write() -> [Written; 2] {
    let within = Written::by_runs(&[&[7, 4], &[5, 5]]);
    let across = Written::by_runs(&[&[7, 4], &[19, 4]]);
    let borders = [&within, &across].map(|written| {
        let last = written.last_write();
        last.end as u64 / SEGMENT_BYTES - last.start as u64 / SEGMENT_BYTES
    });
    assert_eq!(borders, [0, 1]);
    [within, across]
}

/// `harmed` with the segments' headers as they were written: those were durable long before any record behind them.
fn with_headers(written: &Written, mut harmed: Vec<u8>) -> Vec<u8> {
    for start in (0..harmed.len()).step_by(SEGMENT_BYTES as usize) {
        harmed[start..start + HEADER_BYTES].copy_from_slice(&written.bytes[start..start + HEADER_BYTES]);
    }
    harmed
}

#[test]
fn a_last_write_cut_or_harmed_at_any_byte_ends_the_journal_there_and_invents_nothing() {
    let place = place();
    for written in with_a_last_write() {
        let last = written.last_write();
        for at in last.clone() {
            if at % (SEGMENT_BYTES as usize) < HEADER_BYTES {
                continue;
            }
            let flipped = |bytes: &mut [u8]| bytes[at] ^= 1 << (at % 8);
            let cut = |bytes: &mut [u8]| bytes[at..last.end].fill(0);
            let garbage = |bytes: &mut [u8]| bytes[at..last.end.next_multiple_of(BLOCK_BYTES as usize)].fill(0xA5);
            let harms: [(&str, Harm<'_>); 3] = [("flipped", &flipped), ("cut", &cut), ("garbage", &garbage)];
            for (how, harm) in harms {
                let mut harmed = written.bytes.clone();
                harm(&mut harmed);
                let harmed = with_headers(&written, harmed);
                ends_at_the_harm(place.path(), &written, &harmed, &format_args!("{how} at byte {at}"));
            }
        }
    }
}

/// A stretch of sectors that the disk did not write, or alone wrote, of a last write: valid records behind holes included.
#[test]
fn a_last_write_of_which_any_run_of_sectors_is_missing_or_alone_was_written_invents_nothing() {
    let place = place();
    for written in with_a_last_write() {
        let last = written.last_write();
        let blocks =
            last.start / BLOCK_BYTES as usize * BLOCK_BYTES as usize..last.end.next_multiple_of(BLOCK_BYTES as usize);
        let sectors = blocks.len() / SECTOR_BYTES;
        let mut holes = 0;
        for first in 0..sectors {
            for end in first + 1..=sectors {
                let stretch = blocks.start + first * SECTOR_BYTES..blocks.start + end * SECTOR_BYTES;
                let (mut missing, mut alone) = (written.bytes.clone(), written.before.clone());
                missing[stretch.clone()].copy_from_slice(&written.before[stretch.clone()]);
                alone[stretch.clone()].copy_from_slice(&written.bytes[stretch.clone()]);
                holes += u32::from(stretch.end < last.end && missing[stretch.clone()] != written.bytes[stretch]);
                let name = format!("sectors {first}..{end} of {sectors}");
                ends_at_the_harm(place.path(), &written, &missing, &format_args!("{name} missing"));
                ends_at_the_harm(place.path(), &written, &alone, &format_args!("{name} alone"));
            }
        }
        assert!(holes > 20, "valid records lay behind a hole {holes} times");
    }
}

/// Whole pages of what was never written hold anything: records of this journal from elsewhere, garbage, ones.
#[test]
fn pages_of_anything_behind_the_end_are_cut_and_never_read_as_records() {
    let place = place();
    for written in with_a_last_write() {
        let pages = written.bytes.len() / BLOCK_BYTES as usize;
        let page = |number: usize| number * BLOCK_BYTES as usize..(number + 1) * BLOCK_BYTES as usize;
        let behind = written.last_write().end.div_ceil(BLOCK_BYTES as usize);
        for number in (behind..pages).filter(|number| page(*number).start % SEGMENT_BYTES as usize >= HEADER_BYTES) {
            for from in 0..behind {
                let mut harmed = written.bytes.clone();
                harmed[page(number)].copy_from_slice(&written.bytes[page(from)]);
                ends_at_the_harm(
                    place.path(),
                    &written,
                    &harmed,
                    &format_args!("page {from} at {number}"),
                );
            }
            for byte in [0xFF, 0x01] {
                let mut harmed = written.bytes.clone();
                harmed[page(number)].fill(byte);
                ends_at_the_harm(
                    place.path(),
                    &written,
                    &harmed,
                    &format_args!("{byte} at page {number}"),
                );
            }
        }
    }
}

#[test]
fn a_bit_flipped_at_any_byte_below_the_watermark_is_refused_and_nothing_is_changed() {
    let place = place();
    // Two runs, so that there are two epochs; the last write states all before it.
    let written = Written::by_runs(&[&[9, 15], &[14, 1]]);
    let watermark = written.last_write().start;
    assert!(
        watermark > SEGMENT_BYTES as usize + HEADER_BYTES,
        "a Pad and a second header are below it"
    );
    lay_out(place.path(), &written.bytes);
    for at in 0..watermark {
        // Every byte behind the header's fields is tried where headers are parsed.
        if (56..HEADER_BYTES).contains(&(at % SEGMENT_BYTES as usize)) && !at.is_multiple_of(61) {
            continue;
        }
        let mut harmed = written.bytes.clone();
        harmed[at] ^= 1 << (at % 8);
        let segment = at / SEGMENT_BYTES as usize;
        let file = place.path().join(format!("{segment:012}.seg"));
        let own = segment * SEGMENT_BYTES as usize..(segment + 1) * SEGMENT_BYTES as usize;
        fs::write(&file, &harmed[own.clone()]).unwrap();
        let files_refuse = || {
            let files = JournalFiles::open(place.path())?;
            files.records().try_for_each(|record| record.map(drop))
        };
        let opened = Journal::open(small(place.path())).map(drop);
        // Both read by the same rules; the readers' way is gone now and then.
        let by_files = at.is_multiple_of(16).then(files_refuse);
        for refused in [Some(opened), by_files].into_iter().flatten() {
            match refused {
                Err(JournalError::SegmentForeign { file: named, .. }) => {
                    assert!(at - own.start < HEADER_BYTES, "byte {at}");
                    assert_eq!(named, file, "byte {at}");
                }
                Err(JournalError::Damaged {
                    file: named,
                    offset,
                    watermark: stated,
                    ..
                }) => {
                    assert_eq!(named, file, "byte {at}");
                    let found = own.start + offset as usize;
                    assert!(
                        found <= at && at < found + RECORD_BYTES_MAX as usize,
                        "byte {at}: {found}"
                    );
                    assert_eq!(stated, watermark as u64, "byte {at}");
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
        assert!(bytes_in(place.path()) == harmed, "byte {at}: something was changed");
        fs::write(&file, &written.bytes[own]).unwrap();
    }
    let all = written.events.len() as u64;
    assert_eq!(numbers_in_files(place.path()), (1..=all).collect::<Vec<_>>());
}
