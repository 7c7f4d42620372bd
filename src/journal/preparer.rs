//! Housekeeping's part: the next segments, made before anyone needs them.

use std::sync::Arc;

use super::error::JournalError;
use super::positions::Positions;
use super::segment::SegmentStore;
use crate::memory::MappedMemory;

/// Makes segments ahead of the appender; the only one who moves `prepared`.
#[derive(Debug)]
pub struct Preparer {
    store: SegmentStore,
    positions: Arc<Positions>,
    zeros: MappedMemory,
    ahead: u64,
}

impl Preparer {
    pub(super) const fn new(store: SegmentStore, positions: Arc<Positions>, zeros: MappedMemory, ahead: u64) -> Self {
        Self {
            store,
            positions,
            zeros,
            ahead,
        }
    }

    /// Makes the next segment if fewer stand ready than were asked for; true if it did. One that need not be kept any more
    /// ([`Positions::retained_from`]) is used again.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`] when the file system is full: nothing is lost, try again later. Others: the file system
    /// refused something else.
    pub fn prepare(&mut self) -> Result<bool, JournalError> {
        let geometry = self.store.geometry;
        let next = geometry.segment_of(self.positions.prepared());
        let active = geometry.segment_of(self.positions.appended());
        let ready = next.saturating_sub(active + 1);
        if ready >= self.ahead {
            return Ok(false);
        }
        if !self.store.reuse_first(next, self.positions.retained_from())? {
            self.store.make(next, &self.zeros, ready == 0)?;
        }
        self.positions.set_prepared(geometry.segment_start(next + 1));
        Ok(true)
    }
}
