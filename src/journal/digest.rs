//! A segment's content as the chain sees it: its bytes in batches of one length, and a mark at each window event.
//!
//! Bytes are taken in order and in pieces of any length; nothing is kept of them but the hash under way and the head of
//! the record under way. The same code runs behind the live journal, in `verify` and in the archive, so that what one of
//! them finds the others find.

use blake3::{Hash, Hasher};

use super::layout::{
    Geometry, RECORD_ALIGNMENT, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES,
};
use crate::domain::{UtcNanos, WindowId};
use crate::wire::{RecordKind, WindowAction, WindowEvent};

/// The longest batch; a journal of shorter segments has batches as long as these.
pub(super) const BATCH_BYTES_MAX: u64 = 1 << 20;

/// How much of a record is looked at: its header, and the payload of a Window event.
const HEAD_BYTES: usize = RECORD_HEADER_BYTES as usize + size_of::<WindowEvent>();

/// One link's content: bytes `from..to` of the journal, which begin where a batch begins. A whole batch, or the part of
/// one up to the end of a window event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainEntry {
    /// Where the batch begins.
    pub from: u64,
    /// Where the batch, or the window event, ends.
    pub to: u64,
    /// BLAKE3 of the bytes.
    pub content: Hash,
    /// The window event; none for a whole batch.
    pub window: Option<WindowMark>,
}

/// A window event as a checkpoint names it. Open events make none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowMark {
    /// The event's number.
    pub event: u64,
    /// Its time.
    pub time: UtcNanos,
    /// What happens to the window.
    pub action: WindowAction,
    /// ISO 4217 numeric.
    pub currency: u16,
    /// The window, where the event names it; zero for Close, whose window is the currency's open one.
    pub window: WindowId,
}

/// What the records of a segment say of it, as far as it was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentFacts {
    /// The number of the first event that lies in it or behind it.
    pub first_event: u64,
    /// Events that lie in it.
    pub events: u64,
    /// The time of its first record.
    pub first_time: UtcNanos,
    /// The time of its last record.
    pub last_time: UtcNanos,
}

/// Takes a segment's bytes, from its first on.
#[derive(Clone, Debug)]
pub(super) struct SegmentDigest {
    geometry: Geometry,
    batch_bytes: u64,
    /// The end of what was taken.
    at: u64,
    /// Of the batch under way, what was taken of it.
    hasher: Hasher,
    /// Where the record under way begins, and ends once its length is known. The segment's header counts as one.
    record: u64,
    record_end: Option<u64>,
    head: [u8; HEAD_BYTES],
    facts: SegmentFacts,
}

impl SegmentDigest {
    pub(super) fn new(geometry: Geometry, number: u64) -> Self {
        let start = geometry.segment_start(number);
        Self {
            geometry,
            batch_bytes: batch_bytes(geometry),
            at: start,
            hasher: Hasher::new(),
            record: start,
            record_end: Some(start + SEGMENT_HEADER_BYTES),
            head: [0; HEAD_BYTES],
            facts: SegmentFacts::default(),
        }
    }

    /// The end of what was taken.
    pub(super) const fn position(&self) -> u64 {
        self.at
    }

    pub(super) const fn facts(&self) -> SegmentFacts {
        self.facts
    }

    /// Takes the segment's next bytes, and adds the entries that end in them to `found`. Says what is wrong where no
    /// record can begin.
    pub(super) fn take(&mut self, bytes: &[u8], found: &mut Vec<ChainEntry>) -> Result<(), &'static str> {
        let first = self.at;
        let end = first + bytes.len() as u64;
        let mut hashed = 0;
        while self.at < end {
            let batch_end = self.at - self.at % self.batch_bytes + self.batch_bytes;
            let record_stop = self.record_end.unwrap_or(self.record + RECORD_HEADER_BYTES);
            let stop = end.min(batch_end).min(record_stop);
            self.keep_head(&bytes[(self.at - first) as usize..(stop - first) as usize]);
            self.at = stop;
            let mut hash_up_to_here = |hasher: &mut Hasher| {
                let here = (stop - first) as usize;
                hasher.update(&bytes[hashed..here]);
                hashed = here;
            };
            if stop == record_stop
                && let Some(window) = self.end_record_part()?
            {
                hash_up_to_here(&mut self.hasher);
                found.push(ChainEntry {
                    from: batch_end - self.batch_bytes,
                    to: stop,
                    content: self.hasher.finalize(),
                    window: Some(window),
                });
            }
            if stop == batch_end {
                hash_up_to_here(&mut self.hasher);
                found.push(ChainEntry {
                    from: batch_end - self.batch_bytes,
                    to: stop,
                    content: self.hasher.finalize(),
                    window: None,
                });
                self.hasher.reset();
            }
        }
        self.hasher.update(&bytes[hashed..]);
        Ok(())
    }

    fn keep_head(&mut self, bytes: &[u8]) {
        let offset = (self.at - self.record) as usize;
        if offset < HEAD_BYTES {
            let length = bytes.len().min(HEAD_BYTES - offset);
            self.head[offset..offset + length].copy_from_slice(&bytes[..length]);
        }
    }

    /// At the end of a record's header or of a record: reads the length, or what it is; then the next one begins.
    fn end_record_part(&mut self) -> Result<Option<WindowMark>, &'static str> {
        let header = RecordHeader::read(&self.head, 0);
        if self.record_end.is_none() {
            let length = u64::from(header.length);
            let possible = (RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&length)
                && length.is_multiple_of(RECORD_ALIGNMENT)
                && length <= self.geometry.left_in_segment(self.record);
            if !possible {
                return Err("no record begins here");
            }
            self.record_end = Some(self.record + length);
            if length > RECORD_HEADER_BYTES {
                return Ok(None);
            }
        }
        let is_segment_header = self.geometry.offset(self.record) == 0;
        self.record = self.at;
        self.record_end = None;
        if is_segment_header {
            return Ok(None);
        }
        let time = UtcNanos(header.time_ns);
        if self.facts.first_event == 0 {
            self.facts.first_event = header.number;
            self.facts.first_time = time;
        }
        self.facts.last_time = time;
        let kind = header.record_kind();
        self.facts.events += u64::from(kind.is_some_and(RecordKind::is_event));
        Ok((kind == Some(RecordKind::Window)).then(|| self.mark(&header)).flatten())
    }

    fn mark(&self, header: &RecordHeader) -> Option<WindowMark> {
        if (header.length as usize) < HEAD_BYTES {
            return None;
        }
        let event: WindowEvent = bytemuck::pod_read_unaligned(&self.head[RECORD_HEADER_BYTES as usize..]);
        let action = WindowAction::from_u8(event.action).filter(|&action| action != WindowAction::Open)?;
        Some(WindowMark {
            event: header.number,
            time: UtcNanos(header.time_ns),
            action,
            currency: event.currency,
            window: event.window,
        })
    }
}

/// The length of a batch in a journal of this geometry.
pub(super) fn batch_bytes(geometry: Geometry) -> u64 {
    geometry.segment_bytes.min(BATCH_BYTES_MAX)
}
