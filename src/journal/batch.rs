//! Records copied out of the files and checked as copies: what was handed out stays what it was, whatever a running switch
//! does to the files meanwhile. A mapping promises less: a segment may be used again between the check and the use.

use super::error::JournalError;
use super::files::Walk;
use super::layout::{RECORD_ALIGNMENT, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader};
use super::scan::is_length;
use super::tail::Record;
use crate::domain::UtcNanos;
use crate::wire::RecordKind;

/// Room for record bytes: some two thousand events, less than a core's own cache.
const BATCH_BYTES: usize = 256 << 10;

/// Bytes aligned as a record's payload must be.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(32))]
struct Unit([u8; RECORD_ALIGNMENT as usize]);

/// Events that belong together only by having been read together.
pub struct RecordBatch {
    bytes: Box<[Unit]>,
    used: usize,
    events: Vec<Copied>,
}

/// An event, and where its copy lies.
#[derive(Clone, Copy)]
struct Copied {
    kind: RecordKind,
    number: u64,
    time: UtcNanos,
    position: u64,
    payload: (u32, u32),
}

impl Default for RecordBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordBatch {
    /// An empty one, with all the memory it will ever need.
    #[must_use]
    pub fn new() -> Self {
        let unit = bytemuck::Zeroable::zeroed();
        Self {
            bytes: vec![unit; BATCH_BYTES / size_of::<Unit>()].into_boxed_slice(),
            used: 0,
            events: Vec::with_capacity(BATCH_BYTES / RECORD_HEADER_BYTES as usize),
        }
    }

    /// Fills it anew from where `walk` has come to, with events up to number `until`. False when nothing comes behind them
    /// for now.
    ///
    /// # Errors
    /// What ended the walk, as in [`super::JournalFiles::records`]; the events before it are in the batch.
    pub fn fill(&mut self, walk: &mut Walk<'_>, until: u64) -> Result<bool, JournalError> {
        self.used = 0;
        self.events.clear();
        while self.used + RECORD_BYTES_MAX as usize <= BATCH_BYTES && walk.next_event() <= until {
            let Some(record) = walk.copy_next(&mut bytemuck::cast_slice_mut(&mut self.bytes)[self.used..]) else {
                return Ok(false);
            };
            let (kind, header, position) = record?;
            if kind.is_event() {
                let at = self.used + RECORD_HEADER_BYTES as usize;
                self.used += header.length as usize;
                self.events.push(Copied {
                    kind,
                    number: header.number,
                    time: UtcNanos(header.time_ns),
                    position: position + RECORD_HEADER_BYTES,
                    payload: (at as u32, self.used as u32),
                });
            }
        }
        Ok(walk.next_event() <= until)
    }

    /// How many events it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.events.len()
    }

    /// True when it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The event at `index`, from 0.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        let copied = self.events.get(index)?;
        let (from, to) = copied.payload;
        let bytes: &[u8] = bytemuck::cast_slice(&self.bytes);
        Some(Record {
            kind: copied.kind,
            number: copied.number,
            time: copied.time,
            position: copied.position,
            payload: &bytes[from as usize..to as usize],
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

/// Copies what lies at `offset` of `segment`, a record if one begins there, to the beginning of `out`; says how long it is.
#[inline]
pub(super) fn copy_record(segment: &[u8], offset: usize, out: &mut [u8]) -> usize {
    let stated = RecordHeader::read(segment, offset).length;
    // What can't be a length is for the check to tell.
    let length = if is_length(u64::from(stated)) {
        stated as usize
    } else {
        RECORD_HEADER_BYTES as usize
    };
    let length = length.min(segment.len() - offset);
    out[..length].copy_from_slice(&segment[offset..offset + length]);
    length
}
