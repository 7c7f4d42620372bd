//! Housekeeping's part: the next segments, made before anyone needs them.

use std::sync::Arc;

use super::error::JournalError;
use super::layout::BLOCK_BYTES;
use super::positions::Positions;
use super::segment::{MakingSegment, SegmentStore};
use crate::domain::{MILLISECOND, UtcNanos};
use crate::memory::MappedMemory;

/// Zeros written at a time, where what may be written is not more already: little, for a durable write waits behind it.
const PIECE_BYTES: u64 = 128 << 10;
/// Bytes of new segments that may be written for two that were appended: a segment is ready when two thirds of the one before
/// it are full.
const PER_TWO_APPENDED: u64 = 3;
/// The same where no other segment stands ready: when a quarter of it is full.
const PER_TWO_APPENDED_ALONE: u64 = 8;
/// When less than so many eighths of a segment stand ready, the next is made as fast as the disk can: intake stops at four.
const URGENT_EIGHTHS: u64 = 5;
/// One more piece may be written for every such time, so that an idle switch comes to its segments, too.
const IDLE_PIECE_NS: u64 = 20 * MILLISECOND;

/// Makes segments ahead of the appender; the only one who moves `prepared`.
///
/// A new segment is written piece by piece in proportion to what the journal takes, not as fast as the disk can: every
/// durable write would wait behind it.
#[derive(Debug)]
pub struct Preparer {
    store: SegmentStore,
    positions: Arc<Positions>,
    zeros: MappedMemory,
    ahead: u64,
    making: Option<Making>,
}

#[derive(Debug)]
struct Making {
    segment: MakingSegment,
    /// What may be written still, bytes.
    allowance: u64,
    appended: u64,
    time: UtcNanos,
}

/// What [`Preparer::prepare_piece`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preparation {
    /// As many segments stand ready as were asked for.
    Done,
    /// The next piece may be written when the journal has grown or a little time has passed.
    Waiting,
    /// A piece was written.
    Piece,
    /// One more segment stands ready.
    Ready,
}

impl Preparer {
    pub(super) const fn new(store: SegmentStore, positions: Arc<Positions>, zeros: MappedMemory, ahead: u64) -> Self {
        Self {
            store,
            positions,
            zeros,
            ahead,
            making: None,
        }
    }

    /// Makes the next segment, at once, if fewer stand ready than were asked for; true if it did. One that need not be kept
    /// any more ([`Positions::retained_from`]) is used again.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`] when the file system is full: nothing is lost, try again later. Others: the file system
    /// refused something else.
    pub fn prepare(&mut self) -> Result<bool, JournalError> {
        let Some(next) = self.wanted() else { return Ok(false) };
        match self.making.take() {
            Some(mut making) => {
                while self
                    .store
                    .make_piece(&mut making.segment, &self.zeros, self.zeros.len())?
                {}
                self.store.name_made(&making.segment)?;
            }
            None if self.reuse(next)? => {}
            None => self.store.make(next, &self.zeros)?,
        }
        self.is_ready(next);
        Ok(true)
    }

    /// As [`Preparer::prepare`], but at most one piece, and that only when it is time: for use while payments are made.
    ///
    /// # Errors
    /// As [`Preparer::prepare`]; the segment is begun anew by the next call.
    pub fn prepare_piece(&mut self, now: UtcNanos) -> Result<Preparation, JournalError> {
        let Some(next) = self.wanted() else {
            return Ok(Preparation::Done);
        };
        let appended = self.positions.appended();
        let Some(making) = &mut self.making else {
            if self.reuse(next)? {
                self.is_ready(next);
                return Ok(Preparation::Ready);
            }
            self.making = Some(Making {
                segment: self.store.begin_making(next)?,
                allowance: PIECE_BYTES,
                appended,
                time: now,
            });
            return Ok(Preparation::Piece);
        };
        let idle_pieces = now.since(making.time) / IDLE_PIECE_NS;
        making.time = making.time.plus(idle_pieces * IDLE_PIECE_NS);
        let per_two = if self.ahead > 1 {
            PER_TWO_APPENDED
        } else {
            PER_TWO_APPENDED_ALONE
        };
        making.allowance += (appended - making.appended) * per_two / 2 + idle_pieces * PIECE_BYTES;
        making.appended = appended;
        let ready_bytes = self.positions.prepared().saturating_sub(appended);
        let urgent = ready_bytes < self.store.geometry.segment_bytes / 8 * URGENT_EIGHTHS;
        if making.allowance < PIECE_BYTES && !urgent {
            return Ok(Preparation::Waiting);
        }
        let most = self.zeros.len() as u64;
        let piece = if urgent { most } else { making.allowance.min(most) };
        let piece = piece - piece % BLOCK_BYTES;
        making.allowance = making.allowance.saturating_sub(piece);
        match self.store.make_piece(&mut making.segment, &self.zeros, piece as usize) {
            Ok(true) => return Ok(Preparation::Piece),
            Ok(false) => {}
            Err(error) => {
                self.making = None;
                return Err(error);
            }
        }
        let named = self.store.name_made(&making.segment);
        self.making = None;
        named?;
        self.is_ready(next);
        Ok(Preparation::Ready)
    }

    /// The number of the next segment, if fewer stand ready than were asked for.
    fn wanted(&self) -> Option<u64> {
        let geometry = self.store.geometry;
        let next = geometry.segment_of(self.positions.prepared());
        let active = geometry.segment_of(self.positions.appended());
        (next.saturating_sub(active + 1) < self.ahead).then_some(next)
    }

    fn reuse(&self, next: u64) -> Result<bool, JournalError> {
        self.store.reuse_first(next, self.positions.retained_from())
    }

    fn is_ready(&self, number: u64) {
        self.positions
            .set_prepared(self.store.geometry.segment_start(number + 1));
    }
}
