//! Readers of the running journal that hold nobody up: a follower, whoever comes late.
//!
//! What the live tail still holds is copied out of it; what it does not is read from the segment files, the way they are
//! written, so that no direct write ever meets a cached page. Whoever reads does not know which of the two it is. Each
//! record is checked as recovery would, whichever way it came.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::directory::list;
use super::error::JournalError;
use super::layout::{BLOCK_BYTES, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, Seed};
use super::options::JournalStart;
use super::scan::{Scan, is_length};
use super::segment::SegmentStore;
use super::tail::{Record, Tail};
use crate::domain::UtcNanos;
use crate::memory::MappedMemory;

/// What is copied or read at a time at most; one block more, because files are read in whole blocks.
const WINDOW_BYTES: u64 = 1 << 20;

/// Where readers of a running journal come from.
#[derive(Clone, Debug)]
pub struct JournalSource {
    tail: Arc<Tail>,
    store: SegmentStore,
}

impl JournalSource {
    pub(super) const fn new(tail: Arc<Tail>, store: SegmentStore) -> Self {
        Self { tail, store }
    }

    /// A reader whose first event is `start.next_event`.
    ///
    /// # Errors
    /// [`JournalError::NotKept`]: the segment it begins in was archived and removed. The host has no memory for it.
    pub fn reader(&self, start: &JournalStart) -> Result<JournalReader, JournalError> {
        let directory = &self.store.directory;
        let first_segment = list(directory)?.start;
        if self.store.geometry.segment_of(start.position) < first_segment {
            return Err(self.store.not_kept(start.position, first_segment));
        }
        let memory = MappedMemory::new((WINDOW_BYTES + BLOCK_BYTES) as usize, false)
            .map_err(JournalError::system(directory, "get memory for reading"))?;
        let seed = Seed::new(self.store.journal_id);
        Ok(JournalReader {
            tail: Arc::clone(&self.tail),
            scan: Scan::starting_at(self.store.geometry, seed, start),
            store: self.store.clone(),
            window: Window {
                memory,
                from: start.position,
                to: start.position,
            },
            open: None,
            from_tail_bytes: 0,
            from_files_bytes: 0,
        })
    }
}

/// Reads the events of the running journal in order, from any place on and never beyond what is durable.
///
/// It may be as slow as it likes: what it has not read when the tail is overwritten it reads from the files. It does not
/// keep segments from being removed; who lets retention remove them must know how far it has come.
#[derive(Debug)]
pub struct JournalReader {
    tail: Arc<Tail>,
    store: SegmentStore,
    scan: Scan,
    window: Window,
    open: Option<(u64, File)>,
    from_tail_bytes: u64,
    from_files_bytes: u64,
}

/// A copy of the journal's bytes `from..to`, all of them durable.
#[derive(Debug)]
struct Window {
    memory: MappedMemory,
    from: u64,
    to: u64,
}

impl Window {
    fn bytes(&self) -> &[u8] {
        let bytes = (self.to - self.from) as usize;
        // SAFETY: `to` is never further from `from` than was copied or read into the memory's beginning, which is this
        // window's alone and is set through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), bytes) }
    }

    /// True when the record at `position`, if one begins there, lies in it as a whole.
    fn holds_record(&self, position: u64) -> bool {
        if position < self.from || position + RECORD_HEADER_BYTES > self.to {
            return false;
        }
        let length = u64::from(RecordHeader::read(self.bytes(), (position - self.from) as usize).length);
        // What cannot be a length is the scan's to tell.
        position + length <= self.to || !is_length(length)
    }

    /// Copies `from..to` from the tail if it still holds that; true if it did.
    fn copy_if_held(&mut self, tail: &Tail, from: u64, to: u64) -> bool {
        (self.from, self.to) = (from, from);
        // SAFETY: the memory is long enough ([`JournalReader::fill`] sees to that), aligned to a page and this window's
        // alone; records begin and end at multiples of 32, `to` is before what was read of `durable` and in the segment
        // of `from`.
        let held = unsafe { tail.copy_if_held(from, self.memory.as_ptr(), (to - from) as usize) };
        if held {
            self.to = to;
        }
        held
    }

    /// Reads the blocks that hold `from..to` from `file`, a segment in which `from` lies at `offset`.
    fn read(&mut self, file: &File, offset: u64, from: u64, to: u64) -> io::Result<()> {
        let before = from % BLOCK_BYTES;
        let bytes = (to.next_multiple_of(BLOCK_BYTES) - (from - before)) as usize;
        assert!(bytes <= self.memory.len(), "{bytes} bytes for a window");
        // SAFETY: the memory is this window's alone and as long as was asserted just now.
        let blocks = unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), bytes) };
        (self.from, self.to) = (from, from);
        file.read_exact_at(blocks, offset - before)?;
        (self.from, self.to) = (from - before, to);
        Ok(())
    }
}

impl JournalReader {
    /// The next durable event; none if there is none yet.
    ///
    /// # Errors
    /// The files can't be read, or hold something else than what had been durable; [`JournalError::NotKept`] when the
    /// segment was removed in the meantime.
    #[allow(
        clippy::should_implement_trait,
        reason = "the record borrows the reader, which an Iterator's item cannot"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, JournalError> {
        let (kind, header, position, offset) = loop {
            if !self.window.holds_record(self.scan.position) && !self.fill()? {
                return Ok(None);
            }
            let position = self.scan.position;
            let offset = (position - self.window.from) as usize;
            match self.scan.step_at(self.window.bytes(), offset) {
                Ok((kind, header, _)) if kind.is_event() => break (kind, header, position, offset),
                Ok(_) => {}
                Err(reason) => return Err(self.damage(reason)),
            }
        };
        let payload = offset + RECORD_HEADER_BYTES as usize..offset + header.length as usize;
        Ok(Some(Record {
            kind,
            number: header.number,
            time: UtcNanos(header.time_ns),
            position: position + RECORD_HEADER_BYTES,
            payload: &self.window.bytes()[payload],
        }))
    }

    /// The place behind what `next` has returned, with the Group and Pad records it has passed.
    #[must_use]
    pub const fn here(&self) -> JournalStart {
        self.scan.here()
    }

    /// The same as a journal position.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.scan.position
    }

    /// How many durable bytes lie ahead.
    #[must_use]
    pub fn behind_bytes(&self) -> u64 {
        self.tail.positions.durable().saturating_sub(self.scan.position)
    }

    /// Bytes that were copied out of the live tail.
    #[must_use]
    pub const fn from_tail_bytes(&self) -> u64 {
        self.from_tail_bytes
    }

    /// Bytes that were read from the files, because the tail did not hold them any more.
    #[must_use]
    pub const fn from_files_bytes(&self) -> u64 {
        self.from_files_bytes
    }

    /// Fills the window from the next record on; false when nothing more is durable.
    fn fill(&mut self) -> Result<bool, JournalError> {
        const _: () = assert!(WINDOW_BYTES >= RECORD_BYTES_MAX);
        let from = self.scan.position;
        let to = self
            .tail
            .positions
            .durable()
            .min(from + self.store.geometry.left_in_segment(from))
            .min(from + WINDOW_BYTES);
        if from >= to {
            return Ok(false);
        }
        if self.window.copy_if_held(&self.tail, from, to) {
            self.from_tail_bytes += to - from;
        } else {
            self.read_file(from, to)?;
            self.from_files_bytes += to - from;
        }
        Ok(true)
    }

    fn read_file(&mut self, from: u64, to: u64) -> Result<(), JournalError> {
        let geometry = self.store.geometry;
        let number = geometry.segment_of(from);
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            match self.store.open_to_read(number) {
                Ok(file) => self.open = Some((number, file)),
                Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(self.missing(number)),
                Err(source) => {
                    return Err(JournalError::system(&self.store.path(number), "open the segment")(
                        source,
                    ));
                }
            }
        }
        let (_, file) = self.open.as_ref().expect("opened just now");
        self.window
            .read(file, geometry.offset(from), from, to)
            .map_err(JournalError::system(&self.store.path(number), "read the segment"))
    }

    /// Why a record that had been durable is not what was written.
    fn damage(&mut self, reason: &'static str) -> JournalError {
        let position = self.scan.position;
        let number = self.store.geometry.segment_of(position);
        self.open = None;
        if !self.store.path(number).exists() {
            return self.missing(number);
        }
        JournalError::Damaged {
            file: self.store.path(number),
            offset: self.store.geometry.offset(position),
            position,
            watermark: self.tail.positions.durable(),
            reason,
        }
    }

    fn missing(&self, number: u64) -> JournalError {
        match list(&self.store.directory) {
            Ok(kept) if number < kept.start => self.store.not_kept(self.scan.position, kept.start),
            Ok(_) => JournalError::SegmentMissing {
                file: self.store.path(number),
            },
            Err(error) => error,
        }
    }
}
