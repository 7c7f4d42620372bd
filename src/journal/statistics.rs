//! What a journal is made of, counted record by record.

use std::collections::BTreeMap;

use super::error::JournalError;
use super::files::JournalFiles;
use super::layout::{BLOCK_BYTES, RECORD_HEADER_BYTES};
use crate::domain::{SECOND, UtcNanos};
use crate::wire::RecordKind;

/// Records of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KindFigures {
    /// How many.
    pub count: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

/// Figures of a journal up to its end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// By kind; kinds of which there is none are left out.
    pub kinds: BTreeMap<RecordKind, KindFigures>,
    /// Events.
    pub events: u64,
    /// Records' bytes, Group and Pad records included, segment headers not.
    pub bytes: u64,
    /// The time of the first event; 0 when there is none.
    pub first_time: UtcNanos,
    /// The time of the last event; 0 when there is none.
    pub last_time: UtcNanos,
    /// Events of the second (of UTC) that had the most.
    pub best_second_events: u64,
    /// Starts of the switch that wrote records.
    pub starts: u64,
    /// The last such start's epoch.
    pub epoch: u32,
    /// Groups, of which each begins a durable write.
    pub groups: u64,
    /// Records' bytes of the largest group.
    pub group_bytes_largest: u64,
    /// What the groups came to in whole blocks, the block that two of them share written with each.
    pub group_block_bytes: u64,
    second: (u64, u64),
    group_begin: Option<u64>,
}

impl Statistics {
    /// Counts all records of `files`. `progress` is told the number of the event every million events.
    ///
    /// # Errors
    /// The journal is damaged.
    pub fn of(files: &JournalFiles, mut progress: impl FnMut(u64)) -> Result<Self, JournalError> {
        let mut figures = Self::default();
        let mut walk = files.walk();
        for walked in walk.by_ref() {
            let walked = walked?;
            let record = walked.record;
            let begin = record.position - RECORD_HEADER_BYTES;
            let bytes = RECORD_HEADER_BYTES + record.payload.len() as u64;
            let kind = figures.kinds.entry(record.kind).or_default();
            kind.count += 1;
            kind.bytes += bytes;
            figures.bytes += bytes;
            figures.starts += u64::from(walked.epoch != figures.epoch);
            figures.epoch = walked.epoch;
            if record.kind == RecordKind::Group {
                figures.end_group(begin);
                figures.group_begin = Some(begin);
                figures.groups += 1;
            }
            if record.kind.is_event() {
                figures.add_event(record.time);
                if record.number % 1_000_000 == 0 {
                    progress(record.number);
                }
            }
        }
        figures.end_group(walk.position());
        Ok(figures)
    }

    /// How many records of `kind` there are.
    #[must_use]
    pub fn count(&self, kind: RecordKind) -> u64 {
        self.kinds.get(&kind).map_or(0, |figures| figures.count)
    }

    fn add_event(&mut self, time: UtcNanos) {
        if self.events == 0 {
            self.first_time = time;
        }
        self.events += 1;
        self.last_time = time;
        let second = time.0 / SECOND;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.best_second_events = self.best_second_events.max(self.second.1);
    }

    fn end_group(&mut self, end: u64) {
        let Some(begin) = self.group_begin else { return };
        self.group_bytes_largest = self.group_bytes_largest.max(end - begin);
        self.group_block_bytes += end.next_multiple_of(BLOCK_BYTES) - begin / BLOCK_BYTES * BLOCK_BYTES;
    }
}
