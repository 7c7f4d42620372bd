//! Changing a journal's records in place, by docs/journal.md alone: with right CRCs, as one who knows the format would.

use std::fs;
use std::path::{Path, PathBuf};

use clearway::wire::RecordKind;

const SEGMENT_HEADER_BYTES: usize = 4_096;
const RECORD_HEADER_BYTES: usize = 32;

/// A record while it may be changed.
pub struct Bytes<'a> {
    pub kind: RecordKind,
    pub number: u64,
    pub time: &'a mut u64,
    pub payload: &'a mut [u8],
}

/// Lets `change` see each record of the journal in `data`, Group and Pad records among them, and writes what it made of it.
/// What rests on the bytes as they were (chain, superblock, snapshots, register) is removed: a start makes it anew.
pub fn rewrite(data: &Path, change: impl FnMut(Bytes<'_>)) {
    rewrite_only_the_journal(data, change);
    let _ = fs::remove_file(data.join("journal/chain"));
    let _ = fs::remove_file(data.join("journal/superblock"));
    let _ = fs::remove_dir_all(data.join("snapshots"));
    let _ = fs::remove_dir_all(data.join("register"));
}

/// The same, and all else stays as it is.
pub fn rewrite_only_the_journal(data: &Path, mut change: impl FnMut(Bytes<'_>)) {
    let entries = fs::read_dir(data.join("journal")).unwrap();
    let mut segments: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    let mut records = 0;
    for path in segments {
        let mut bytes = fs::read(&path).unwrap();
        let number = u64::from_le_bytes(bytes[32..40].try_into().unwrap());
        let start = number * bytes.len() as u64;
        let seed = crc32c::crc32c(&bytes[16..32]);
        let mut at = SEGMENT_HEADER_BYTES;
        while at + RECORD_HEADER_BYTES <= bytes.len() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let (length, crc) = (word(at) as usize, word(at + 28));
            if length < RECORD_HEADER_BYTES || at + length > bytes.len() {
                break;
            }
            let begun = seed ^ ((start + at as u64) >> 5) as u32;
            bytes[at + 28..at + 32].fill(0);
            if crc32c::crc32c_append(begun, &bytes[at..at + length]) != crc {
                // Behind the end lies what never counted.
                break;
            }
            change_one(&mut bytes[at..at + length], &mut change);
            let crc = crc32c::crc32c_append(begun, &bytes[at..at + length]);
            bytes[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
            records += 1;
            at += length;
        }
        fs::write(path, bytes).unwrap();
    }
    assert!(records > 0, "a journal without records");
}

fn change_one(record: &mut [u8], change: &mut impl FnMut(Bytes<'_>)) {
    let (header, payload) = record.split_at_mut(RECORD_HEADER_BYTES);
    let kind = u16::from_le_bytes(header[4..6].try_into().unwrap());
    let mut time = u64::from_le_bytes(header[16..24].try_into().unwrap());
    change(Bytes {
        kind: RecordKind::from_u16(kind).expect("a kind of record"),
        number: u64::from_le_bytes(header[8..16].try_into().unwrap()),
        time: &mut time,
        payload,
    });
    header[16..24].copy_from_slice(&time.to_le_bytes());
}

/// Makes everything in the journal so many days older: times, and the dates in the ids of payments and windows.
pub fn age(data: &Path, days: u64) {
    use clearway::domain::BusinessDate;
    let older = |date: u32| BusinessDate::from_day_number(BusinessDate(date).day_number() - days).0;
    let id = |payload: &mut [u8], at: usize| {
        let date = u32::from_le_bytes(payload[at + 4..at + 8].try_into().unwrap());
        if date != 0 {
            payload[at + 4..at + 8].copy_from_slice(&older(date).to_le_bytes());
        }
    };
    rewrite(data, |record| {
        *record.time -= days * 86_400_000_000_000;
        match record.kind {
            RecordKind::Request => {
                id(record.payload, 16);
                id(record.payload, 96);
            }
            RecordKind::Reply => id(record.payload, 16),
            RecordKind::NotSent => id(record.payload, 0),
            RecordKind::Window => {
                let window = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
                if window != 0 {
                    let aged = u64::from(older((window / 10_000) as u32)) * 10_000 + window % 10_000;
                    record.payload[..8].copy_from_slice(&aged.to_le_bytes());
                }
            }
            RecordKind::Finding | RecordKind::DaySealed => {
                panic!("an event that was not foreseen: {:?}", record.kind);
            }
            RecordKind::Genesis
            | RecordKind::Participant
            | RecordKind::Tick
            | RecordKind::Restart
            | RecordKind::Order
            | RecordKind::Group
            | RecordKind::Pad => {}
        }
    });
}
