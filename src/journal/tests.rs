//! Claims about the whole journal, on real files.

mod after_a_crash;
mod archived;
mod begun_anew;
mod chained;
mod every_byte;
mod live;
mod model;
mod reader;
mod sought;
mod used_again;
mod verified;

use std::path::Path;

use super::*;
use crate::wire::RecordKind;

const SEGMENT_BYTES: u64 = 32 << 10;
const RING_BYTES: u64 = 64 << 10;

pub(super) fn options(directory: &Path) -> JournalOptions {
    JournalOptions {
        directory: directory.to_owned(),
        segment_bytes: SEGMENT_BYTES,
        ring_bytes: RING_BYTES,
        sync: SyncMode::Auto,
        lock_memory: false,
        prepared_segments: 2,
        link_agents: 1,
        start: None,
        gate: None,
    }
}

/// The payload of event `number`, of a length and content of its own.
pub(super) fn payload(number: u64) -> Vec<u8> {
    let words = 4 * (number * 7 % 23);
    (0..words)
        .flat_map(|word| (number << 20 | word).to_le_bytes())
        .collect()
}

impl Journal {
    /// Appends event `next_event_number`, letting the readers and the disk catch up when the ring is full.
    pub(super) fn put_next(&mut self) {
        let bytes = payload(self.appender.next_event_number());
        let time = UtcNanos(1_000 + self.appender.next_event_number());
        while self
            .appender
            .append(RecordKind::Request, time, bytes.len(), |out| {
                out.copy_from_slice(&bytes)
            })
            .is_err()
        {
            self.appender.publish();
            self.syncer.sync().unwrap();
            self.read_all();
            self.preparer.prepare().unwrap();
        }
    }

    /// Reads and releases all that is durable, checking each event, and returns how many there were.
    pub(super) fn read_all(&mut self) -> u64 {
        let mut count = 0;
        while let Some(record) = self.reader.next() {
            let mut copy = vec![0; record.payload.len()];
            self.view.copy(record.position, &mut copy);
            assert_eq!(copy, record.payload);
            assert_eq!(record.payload, payload(record.number));
            assert_eq!(record.payload.as_ptr() as usize % 32, 0);
            assert_eq!(record.time, UtcNanos(1_000 + record.number));
            count += 1;
        }
        self.positions.set_applied(self.reader.position());
        self.positions.set_copied_out(0, self.reader.position());
        count
    }
}

/// The numbers of the events that the files hold, each checked.
pub(super) fn numbers_in_files(directory: &Path) -> Vec<u64> {
    JournalFiles::open(directory)
        .unwrap()
        .records()
        .map(|record| {
            let record = record.unwrap();
            assert_eq!(record.payload, payload(record.number));
            record.number
        })
        .collect()
}

#[test]
fn what_is_appended_and_synced_is_read_back_over_segments_and_laps() {
    for sync in [SyncMode::Auto, SyncMode::Fdatasync] {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(JournalOptions {
            sync,
            ..options(directory.path())
        })
        .unwrap();
        let mut read = 0;
        for number in 1..=2_000 {
            journal.put_next();
            if number % 17 == 0 {
                assert!(journal.appender.publish());
                while journal.syncer.has_work() {
                    journal.syncer.sync().unwrap();
                }
                journal.read_all();
                journal.preparer.prepare().unwrap();
            }
            read = number;
        }
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        journal.read_all();
        assert!(journal.appender.close_quiet_group());
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        assert!(!journal.appender.close_quiet_group());
        assert_eq!(journal.read_all(), 0);
        assert_eq!(journal.positions.applied(), journal.positions.appended());
        assert!(journal.positions.appended() > 8 * RING_BYTES);
        assert_eq!(numbers_in_files(directory.path()), (1..=read).collect::<Vec<_>>());
        let end = journal.positions.durable();
        drop(journal);
        let mut journal = Journal::open(options(directory.path())).unwrap();
        assert_eq!(journal.recovery.durable, end);
        assert_eq!((journal.recovery.last_event, journal.recovery.cut_bytes), (read, 0));
        for _ in 0..500 {
            journal.put_next();
        }
        journal.appender.publish();
        journal.syncer.sync().unwrap();
        assert_eq!(numbers_in_files(directory.path()), (1..=read + 500).collect::<Vec<_>>());
        assert!(journal.read_all() > 0);
    }
}
