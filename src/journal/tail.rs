//! The live tail: the ring in memory, and those who read it in place or copy from it.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::layout::{Geometry, RECORD_HEADER_BYTES, RecordHeader};
use super::positions::Positions;
use super::segment::DirectoryLock;
use crate::domain::UtcNanos;
use crate::memory::{MappedMemory, prefetch_read};
use crate::wire::RecordKind;

/// A record of the journal, in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The event's number.
    pub number: u64,
    /// When the sequencer took it.
    pub time: UtcNanos,
    /// Where the payload lies in the journal.
    pub position: u64,
    /// The payload, aligned to 32 bytes.
    pub payload: &'a [u8],
}

/// The ring that all parts of a journal share. A position lies at its remainder by the ring's length; as segments
/// divide the ring, no record wraps.
///
/// Who may touch what, by position: the appender alone writes, from `appended` on and never as far as `floor` + ring;
/// everyone else reads, between `floor` and `appended` (the syncer) or `durable` (all others).
#[derive(Debug)]
pub(super) struct Tail {
    memory: MappedMemory,
    pub(super) geometry: Geometry,
    pub(super) positions: Arc<Positions>,
    _lock: DirectoryLock,
}

impl Tail {
    pub(super) const fn new(
        memory: MappedMemory,
        geometry: Geometry,
        positions: Arc<Positions>,
        lock: DirectoryLock,
    ) -> Self {
        Self {
            memory,
            geometry,
            positions,
            _lock: lock,
        }
    }

    pub(super) const fn ring_bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// The address of `position`.
    #[inline]
    pub(super) fn address(&self, position: u64) -> *mut u8 {
        address(&self.memory, position)
    }
}

/// The address of `position` in a ring.
#[inline]
pub(super) fn address(ring: &MappedMemory, position: u64) -> *mut u8 {
    let offset = position & (ring.len() as u64 - 1);
    // SAFETY: the ring's length is a power of two, so that the masked offset lies inside.
    unsafe { ring.as_ptr().add(offset as usize) }
}

/// How far [`TailReader::look_ahead`] runs before [`TailReader::next`]: long enough for memory to answer.
const LOOK_AHEAD_RECORDS: usize = 8;

/// Clearing's reader: the events in order and in place, up to what is durable.
///
/// What [`TailReader::next`] returned stays in place until [`Positions::set_applied`] passes it. Call that with
/// [`TailReader::position`], also when `next` returned nothing: Group records behind the last event count too.
#[derive(Debug)]
pub struct TailReader {
    tail: Arc<Tail>,
    position: u64,
    durable_seen: u64,
    /// Where `look_ahead` goes on, and how many records that is ahead of `position`.
    ahead: u64,
    ahead_records: usize,
}

impl TailReader {
    pub(super) fn new(tail: Arc<Tail>, position: u64) -> Self {
        Self {
            tail,
            position,
            durable_seen: position,
            ahead: position,
            ahead_records: 0,
        }
    }

    /// The record that [`TailReader::next`] will come to some records from now, each once, so that what it concerns can be
    /// asked of memory early; never more than [`LOOK_AHEAD_RECORDS`] ahead, and never past what `next` knows to be durable.
    #[inline]
    pub fn look_ahead(&mut self) -> Option<Record<'_>> {
        if self.ahead < self.position {
            (self.ahead, self.ahead_records) = (self.position, 0);
        }
        while self.ahead_records < LOOK_AHEAD_RECORDS && self.ahead < self.durable_seen {
            let (record, end) = record_at(&self.tail, self.ahead, self.durable_seen);
            self.ahead = end;
            self.ahead_records += 1;
            if record.kind.is_event() {
                return Some(record);
            }
        }
        None
    }

    /// The next durable event, if there is one.
    #[inline]
    #[allow(
        clippy::should_implement_trait,
        reason = "the record borrows the reader, which an Iterator's item cannot"
    )]
    pub fn next(&mut self) -> Option<Record<'_>> {
        loop {
            if self.position == self.durable_seen {
                self.durable_seen = self.tail.positions.durable();
                if self.position == self.durable_seen {
                    return None;
                }
            }
            let (record, end) = record_at(&self.tail, self.position, self.durable_seen);
            self.position = end;
            self.ahead_records = self.ahead_records.saturating_sub(1);
            if record.kind.is_event() {
                return Some(record);
            }
        }
    }

    /// The end of what `next` returned, with the Group and Pad records that `next` has passed.
    #[must_use]
    #[inline]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// True when something durable lies ahead; it may be a Group record only.
    #[must_use]
    #[inline]
    pub fn has_next(&self) -> bool {
        self.position < self.durable_seen || self.position < self.tail.positions.durable()
    }
}

/// The record at `at`, below `durable`, and where the one behind it begins.
#[inline]
fn record_at(tail: &Tail, at: u64, durable: u64) -> (Record<'_>, u64) {
    let start = tail.address(at);
    // SAFETY: `at` is a record's beginning before `durable` and not before `applied`: the appender wrote a whole
    // header there, released it through `durable`, and does not come back before `applied` has passed it.
    let header = unsafe { start.cast::<RecordHeader>().read() };
    let length = u64::from(header.length);
    let kind = header
        .record_kind()
        .filter(|_| length >= RECORD_HEADER_BYTES && at + length <= durable)
        .unwrap_or_else(|| panic!("no record at journal position {at}: the tail in memory was overwritten"));
    prefetch_read(tail.address(at + length));
    // SAFETY: as for the header; the record lies in one piece, because segments divide the ring. It is held while
    // the reader that asks is borrowed, since who could release it does so by that reader's position.
    let payload = unsafe {
        std::slice::from_raw_parts(
            start.add(RECORD_HEADER_BYTES as usize),
            (length - RECORD_HEADER_BYTES) as usize,
        )
    };
    let record = Record {
        kind,
        number: header.number,
        time: UtcNanos(header.time_ns),
        position: at + RECORD_HEADER_BYTES,
        payload,
    };
    (record, tail.geometry.past_header(at + length))
}

/// A link agent's view of the tail, for copying accepted requests out of it.
#[derive(Clone, Debug)]
pub struct TailView {
    tail: Arc<Tail>,
}

impl TailView {
    pub(super) const fn new(tail: Arc<Tail>) -> Self {
        Self { tail }
    }

    /// Copies the bytes at `position` of one record out of the journal.
    ///
    /// # Panics
    /// When they are not durable yet, or not held any more: the agent's own `copied_out` had passed them, so that what
    /// was copied may be another payment's.
    #[inline]
    pub fn copy(&self, position: u64, out: &mut [u8]) {
        let (tail, end) = (&self.tail, position + out.len() as u64);
        let positions = &tail.positions;
        assert!(end <= positions.durable(), "journal position {end} is not durable yet");
        assert!(
            out.len() as u64 <= tail.geometry.left_in_segment(position),
            "a record never straddles a segment"
        );
        // SAFETY: durable bytes in one piece. Nobody writes there: the ring's floor is no higher than this agent's
        // `copied_out`, which it moves only past what it no longer needs; the assertion below holds it to that.
        unsafe { std::ptr::copy_nonoverlapping(tail.address(position), out.as_mut_ptr(), out.len()) };
        fence(Ordering::Acquire);
        let reclaimed = positions.reclaimed();
        assert!(
            position >= reclaimed,
            "journal position {position} is not held any more (held from {reclaimed})"
        );
    }
}
