//! The sequencer's end: records put in place, and published.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use bytemuck::bytes_of;

use super::error::Full;
use super::layout::{
    BLOCK_BYTES, GROUP_RECORD_BYTES, JournalPosition, RECORD_ALIGNMENT, RECORD_BYTES_MAX, RECORD_HEADER_BYTES,
    RecordHeader, SEGMENT_HEADER_BYTES, Seed,
};
use super::positions::Positions;
use super::tail::Tail;
use crate::domain::UtcNanos;
use crate::wire::{GroupEvent, RecordKind};

/// How many steps the ring's room is given to the appender in.
const RECLAIM_STEPS: u64 = 64;
/// The least of such a step: room for the longest record with a Pad, a segment's header and a Group before it.
const RECLAIM_BYTES_MIN: u64 = 4 * RECORD_BYTES_MAX;

/// Puts records into the tail; the only one who writes to it.
#[derive(Debug)]
pub struct Appender {
    tail: Arc<Tail>,
    seed: Seed,
    epoch: u32,
    position: u64,
    next_event: u64,
    /// Up to where may be written by what the others said last.
    limit: u64,
    /// False until the group's first record, a Group, is in.
    group_begun: bool,
    group_stated: u64,
    last_event_end: u64,
    last_time: UtcNanos,
}

impl Appender {
    pub(super) fn new(tail: Arc<Tail>, seed: Seed, epoch: u32, position: u64, last_event: u64, time: UtcNanos) -> Self {
        let mut appender = Self {
            tail,
            seed,
            epoch,
            position,
            next_event: last_event + 1,
            limit: 0,
            group_begun: false,
            group_stated: position,
            last_event_end: 0,
            last_time: time,
        };
        appender.refresh_limit();
        appender
    }

    /// The journal's positions.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.tail.positions
    }

    /// Bytes of records (headers included) that may be appended now, whatever their sizes.
    #[must_use]
    pub fn room(&self) -> u64 {
        let limit = self.current_floor() + self.tail.ring_bytes();
        let limit = limit.min(self.tail.positions.prepared());
        let geometry = self.tail.geometry;
        let ends = geometry
            .segment_of(limit)
            .saturating_sub(geometry.segment_of(self.position));
        limit
            .saturating_sub(self.position)
            .saturating_sub(ends * (RECORD_BYTES_MAX + SEGMENT_HEADER_BYTES) + GROUP_RECORD_BYTES)
    }

    /// Appends a record whose payload `write` fills in place, and returns where the payload lies. `write` is given what
    /// an earlier lap left there and must set every byte. The first record of a group is preceded by a Group record.
    /// Nothing is visible to others before [`Appender::publish`].
    ///
    /// # Errors
    /// [`Full`]: nothing was appended.
    ///
    /// # Panics
    /// When `payload_bytes` is no multiple of 32 or the record longer than [`RECORD_BYTES_MAX`], or `kind` is no event.
    #[inline]
    pub fn append(
        &mut self,
        kind: RecordKind,
        time: UtcNanos,
        payload_bytes: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<JournalPosition, Full> {
        let length = RECORD_HEADER_BYTES + payload_bytes as u64;
        assert!(
            length.is_multiple_of(RECORD_ALIGNMENT) && length <= RECORD_BYTES_MAX && kind.is_event(),
            "a record of {length} bytes"
        );
        self.reserve(length)?;
        if !self.group_begun {
            self.begin_group(time);
        }
        let at = self.put(kind, time, length, write);
        self.next_event += 1;
        self.last_event_end = self.position;
        self.last_time = time;
        Ok(JournalPosition(at + RECORD_HEADER_BYTES))
    }

    /// Makes what was appended visible to the syncer; true if there was anything. Waking it is the caller's.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if !self.group_begun {
            return false;
        }
        self.group_begun = false;
        self.tail.positions.set_appended(self.position);
        true
    }

    /// When the line has gone quiet: appends a closing Group record if everything is durable and no Group says so yet, so
    /// that no event is left that a crash could make doubtful. True if it did; the caller publishes.
    pub fn close_quiet_group(&mut self) -> bool {
        let quiet = !self.group_begun && self.tail.positions.durable() == self.position;
        if !quiet || self.group_stated >= self.last_event_end || self.reserve(0).is_err() {
            return false;
        }
        self.begin_group(self.last_time);
        true
    }

    /// The number the next event will have.
    #[must_use]
    #[inline]
    pub const fn next_event_number(&self) -> u64 {
        self.next_event
    }

    /// The end of what was appended, published or not.
    #[must_use]
    #[inline]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Makes sure of room for a record of `length` and a Group before it.
    #[inline]
    fn reserve(&mut self, length: u64) -> Result<(), Full> {
        let geometry = self.tail.geometry;
        let group = if self.group_begun { 0 } else { GROUP_RECORD_BYTES };
        let behind_group = geometry.past_header(geometry.place(self.position, group) + group);
        let end = geometry.place(behind_group, length) + length;
        if end <= self.limit {
            return Ok(());
        }
        self.refresh_limit();
        if end <= self.limit { Ok(()) } else { Err(Full) }
    }

    fn begin_group(&mut self, time: UtcNanos) {
        let group = GroupEvent {
            durable: self.tail.positions.durable(),
            reserved: [0; 3],
        };
        self.put(RecordKind::Group, time, GROUP_RECORD_BYTES, |payload| {
            payload.copy_from_slice(bytes_of(&group));
        });
        self.group_begun = true;
        self.group_stated = group.durable;
    }

    /// Puts one record in place, behind a Pad if it does not fit; room has been reserved. Returns where it begins.
    #[inline]
    fn put(&mut self, kind: RecordKind, time: UtcNanos, length: u64, write: impl FnOnce(&mut [u8])) -> u64 {
        let geometry = self.tail.geometry;
        let left = geometry.left_in_segment(self.position);
        if length > left {
            self.put_here(RecordKind::Pad, time, left, |rest| rest.fill(0));
        }
        let at = self.position;
        self.put_here(kind, time, length, write);
        at
    }

    #[inline]
    fn put_here(&mut self, kind: RecordKind, time: UtcNanos, length: u64, write: impl FnOnce(&mut [u8])) {
        let at = self.position;
        debug_assert!(at + length <= self.limit);
        // SAFETY: `reserve` made sure that [at, at + length) is below floor + ring and not below `appended`, where only
        // this appender, borrowed exclusively, reads or writes; it lies in one piece in mapped memory, and any bytes are
        // valid `u8`s.
        let record = unsafe { std::slice::from_raw_parts_mut(self.tail.address(at), length as usize) };
        let header = RecordHeader {
            length: length as u32,
            kind: kind as u16,
            flags: 0,
            number: self.next_event,
            time_ns: time.0,
            epoch: self.epoch,
            crc: 0,
        };
        let (head, payload) = record.split_at_mut(size_of::<RecordHeader>());
        write(payload);
        head.copy_from_slice(bytes_of(&self.seed.sealed(at, header, payload)));
        self.position = self.tail.geometry.past_header(at + length);
    }

    /// The floor, down to its block: the syncer writes the block `durable` lies in again.
    fn current_floor(&self) -> u64 {
        let floor = self.tail.positions.floor();
        floor - floor % BLOCK_BYTES
    }

    #[cold]
    fn refresh_limit(&mut self) {
        let positions = &self.tail.positions;
        let ring = self.tail.ring_bytes();
        // A step at a time, for what is given up is lost to readers that are a little behind, though still intact.
        let wanted = self.position + (ring / RECLAIM_STEPS).max(RECLAIM_BYTES_MIN);
        let limit = (self.current_floor() + ring).min(positions.prepared()).min(wanted);
        self.limit = limit.max(self.limit);
        positions.set_reclaimed(self.limit.saturating_sub(ring).max(positions.reclaimed()));
        // Whoever copies bytes that are overwritten from here on sees `reclaimed` when it checks.
        fence(Ordering::SeqCst);
    }
}
