//! The live tail: the ring in memory, and those who read it in place or copy from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::directory::DirectoryLock;
use super::layout::{Geometry, RECORD_HEADER_BYTES, RecordHeader};
use super::positions::Positions;
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
/// everyone else reads, between `floor` and `appended` (the syncer) or `durable` (all others). A [`super::JournalReader`]
/// copies from before `floor`, too, and looks afterwards whether `reclaimed` has passed what it copied.
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

impl Tail {
    /// Copies the durable bytes from `position` on to `out`, and returns true if they were held until the copy was made;
    /// otherwise what is in `out` may be anything. Nobody is held up by it.
    ///
    /// # Safety
    /// `out` is `bytes` long, aligned to 8 and the caller's alone; `position` and `bytes` are multiples of 8 and all of
    /// it lies in one segment, before a value that was read of `durable`.
    pub(super) unsafe fn copy_if_held(&self, position: u64, out: *mut u8, bytes: usize) -> bool {
        if position < self.positions.reclaimed() {
            return false;
        }
        let (from, out) = (self.address(position).cast::<u64>(), out.cast::<u64>());
        for word in 0..bytes / size_of::<u64>() {
            // SAFETY: inside the ring, which a segment divides, and inside `out`. `durable` was read with acquire, so the
            // appender's first stores here happened before. It may store here again meanwhile, for the next lap; then
            // what is loaded here is dropped below and never looked at. The load is atomic so that it is one load of 8
            // bytes, which is neither repeated nor invented. (The appender's own stores are plain ones: a per-byte atomic
            // copy, which would make the race a defined one by the letter too, Rust does not have yet.)
            unsafe {
                let loaded = (*from.add(word).cast::<AtomicU64>()).load(Ordering::Relaxed);
                out.add(word).write(loaded);
            }
        }
        // The appender gives up a lap's bytes in the order: `reclaimed` set, fence, stores (`Appender::refresh_limit`).
        // Whoever has loaded one of those stores and then passes this fence sees that value of `reclaimed` or a later one.
        fence(Ordering::Acquire);
        position >= self.positions.reclaimed()
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
    /// asked of memory early; never more than eight records ahead, and never past what `next` knows to be durable.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    const RING_BYTES: u64 = 64 << 10;
    const STEP_BYTES: u64 = 4 << 10;
    const PIECE_BYTES: usize = 8 << 10;

    /// Writes laps as the appender does; each word of the ring is its own journal position.
    fn write_laps(tail: &Tail, over: &AtomicBool) {
        let mut position = RING_BYTES;
        while !over.load(Ordering::Acquire) {
            let limit = position + STEP_BYTES;
            tail.positions.set_reclaimed(limit - RING_BYTES);
            fence(Ordering::SeqCst);
            while position < limit {
                // SAFETY: inside the ring; this thread alone writes, and has given up what it writes over.
                unsafe { tail.address(position).cast::<u64>().write(position) };
                position += size_of::<u64>() as u64;
            }
            tail.positions.set_appended(position);
            tail.positions.set_durable(position);
        }
    }

    #[test]
    fn what_is_copied_is_what_was_there_or_is_not_handed_out() {
        const OVERTAKEN_ENOUGH: u32 = 200;
        let directory = tempfile::tempdir().unwrap();
        let memory = MappedMemory::new(RING_BYTES as usize, false).unwrap();
        for word in (0..RING_BYTES).step_by(size_of::<u64>()) {
            // SAFETY: inside the ring, known to nobody else.
            unsafe { address(&memory, word).cast::<u64>().write(word) };
        }
        let geometry = Geometry {
            segment_bytes: RING_BYTES / 2,
        };
        let positions = Arc::new(Positions::new(RING_BYTES, u64::MAX, 0));
        let lock = DirectoryLock::take(directory.path()).unwrap();
        let tail = &Tail::new(memory, geometry, positions, lock);
        let over = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(move || write_laps(tail, over));
            let mut copy = vec![0_u64; PIECE_BYTES / size_of::<u64>()];
            let (mut good, mut overtaken) = (0_u32, 0_u32);
            while overtaken < OVERTAKEN_ENOUGH || good < OVERTAKEN_ENOUGH {
                // What is given up next.
                let position = tail.positions.reclaimed() + u64::from(good % 4) * STEP_BYTES / 2;
                let bytes = (geometry.left_in_segment(position) as usize).min(PIECE_BYTES);
                // SAFETY: `copy` is as long and this thread's own; the piece ends within a segment, before `durable`.
                let held = unsafe { tail.copy_if_held(position, copy.as_mut_ptr().cast(), bytes) };
                if !held {
                    overtaken += 1;
                    continue;
                }
                good += 1;
                let words = copy[..bytes / size_of::<u64>()].iter();
                let wrong = (position..)
                    .step_by(size_of::<u64>())
                    .zip(words)
                    .find(|(at, word)| at != *word);
                if let Some((at, word)) = wrong {
                    over.store(true, Ordering::Release);
                    panic!("position {at} read as {word}");
                }
            }
            over.store(true, Ordering::Release);
        });
    }
}
