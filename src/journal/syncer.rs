//! The syncer: one durable write covers all that was published before it began.
//!
//! Of the records it touches none but the Group record a write begins with, which says how far the one before it came.

use std::sync::Arc;

use super::error::JournalError;
use super::layout::{BLOCK_BYTES, GROUP_RECORD_BYTES, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, Seed};
use super::options::WriteGate;
use super::segment::{SegmentFile, SegmentStore};
use super::tail::Tail;
use crate::memory::MappedMemory;
use crate::wire::{GroupEvent, RecordKind};

/// Writes the tail to the segment files; the only one who moves `durable`. Blocks on its write and on nothing else.
pub struct Syncer {
    tail: Arc<Tail>,
    store: SegmentStore,
    seed: Seed,
    open: Option<SegmentFile>,
    /// One block, for the journal's last, half-full one.
    bounce: MappedMemory,
    gate: Option<Arc<dyn WriteGate>>,
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer")
            .field("tail", &self.tail)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Syncer {
    pub(super) fn new(tail: Arc<Tail>, store: SegmentStore, gate: Option<Arc<dyn WriteGate>>) -> std::io::Result<Self> {
        Ok(Self {
            tail,
            seed: Seed::new(store.journal_id),
            store,
            open: None,
            bounce: MappedMemory::new(BLOCK_BYTES as usize, false)?,
            gate,
        })
    }

    /// True when something published is not durable yet, and may still become so.
    #[must_use]
    #[inline]
    pub fn has_work(&self) -> bool {
        let positions = &self.tail.positions;
        positions.appended() > positions.durable() && !positions.poisoned()
    }

    /// Makes durable all that is published now, and returns how many bytes that was; 0 = there was nothing.
    ///
    /// # Errors
    /// The write failed. That is final: the journal is poisoned and `durable` will not move again.
    pub fn sync(&mut self) -> Result<u64, JournalError> {
        let positions = Arc::clone(&self.tail.positions);
        if positions.poisoned() {
            return Err(JournalError::Poisoned);
        }
        let from = positions.durable();
        let to = positions.appended();
        if from == to {
            return Ok(0);
        }
        self.state_durable(from);
        let written = self
            .pass_gate(from, to, |gate| gate.before_write(from, to))
            .and_then(|()| self.write(from, to))
            .and_then(|()| self.pass_gate(from, to, |gate| gate.after_write(from, to)));
        if let Err(error) = written {
            positions.poison();
            return Err(error);
        }
        positions.set_durable(to);
        Ok(to - from)
    }

    /// Sets the Group record that the write begins with to state `from`, what is durable now. The appender could only
    /// state what was durable when it began the group, which may be one write less; then a crash would leave the last
    /// two writes in doubt and not one.
    fn state_durable(&self, from: u64) {
        let geometry = self.store.geometry;
        let group = geometry.place(from, GROUP_RECORD_BYTES);
        // SAFETY: a published record, for `from` was the end of what was published at some time, and every group begins
        // with a Group record, behind a Pad if it did not fit. It is published and not durable: the appender does not
        // come back to it, and no reader may come to it before `durable` moves, which this syncer alone does.
        let record = unsafe { std::slice::from_raw_parts_mut(self.tail.address(group), GROUP_RECORD_BYTES as usize) };
        let header = RecordHeader::read(record, 0);
        assert!(
            header.record_kind() == Some(RecordKind::Group) && u64::from(header.length) == GROUP_RECORD_BYTES,
            "no Group record at journal position {group}, where a durable write begins"
        );
        let statement = GroupEvent {
            durable: from,
            reserved: [0; 3],
        };
        let (head, payload) = record.split_at_mut(RECORD_HEADER_BYTES as usize);
        payload.copy_from_slice(bytemuck::bytes_of(&statement));
        head.copy_from_slice(bytemuck::bytes_of(&self.seed.sealed(group, header, payload)));
    }

    fn pass_gate(
        &self,
        from: u64,
        to: u64,
        pass: impl FnOnce(&dyn WriteGate) -> std::io::Result<()>,
    ) -> Result<(), JournalError> {
        let Some(gate) = &self.gate else { return Ok(()) };
        pass(gate.as_ref()).map_err(|source| JournalError::WriteFailed {
            file: self.store.path(self.store.geometry.segment_of(from)),
            bytes: to - from,
            source,
        })
    }

    /// Writes every block that holds a byte of `from..to` durably, each segment's in one write. The block `to` lies in
    /// goes with zeros from `to` on.
    pub(super) fn write(&mut self, from: u64, to: u64) -> Result<(), JournalError> {
        let geometry = self.store.geometry;
        let mut at = from - from % BLOCK_BYTES;
        while at < to {
            let number = geometry.segment_of(at);
            let start = geometry.segment_start(number);
            let end = to.min(start + geometry.segment_bytes);
            at = at.max(start + SEGMENT_HEADER_BYTES);
            if at < end {
                self.write_in_segment(number, at, end)?;
            }
            at = start + geometry.segment_bytes;
        }
        Ok(())
    }

    fn write_in_segment(&mut self, number: u64, from: u64, to: u64) -> Result<(), JournalError> {
        let whole_blocks_end = to - to % BLOCK_BYTES;
        let rest = (to - whole_blocks_end) as usize;
        // SAFETY: [whole_blocks_end, to) is published and above the floor, so that nobody writes to it; the bounce block
        // is this syncer's own and longer than `rest`.
        unsafe {
            let block = self.bounce.as_ptr();
            std::ptr::copy_nonoverlapping(self.tail.address(whole_blocks_end), block, rest);
            std::ptr::write_bytes(block.add(rest), 0, BLOCK_BYTES as usize - rest);
        }
        let parts = [
            (self.tail.address(from), (whole_blocks_end - from) as usize),
            (self.bounce.as_ptr(), if rest == 0 { 0 } else { BLOCK_BYTES as usize }),
        ];
        if self.open.as_ref().is_none_or(|file| file.number != number) {
            self.open = Some(self.store.open_to_write(number)?);
        }
        let file = self.open.as_ref().expect("opened just now");
        let offset = self.store.geometry.offset(from);
        // SAFETY: whole blocks of the ring that are published and whose first is not below the floor's, and the bounce
        // block: nobody writes to them. All of it lies at multiples of a block.
        let outcome = unsafe { file.write_durably(&parts, offset) };
        outcome.map_err(|source| JournalError::WriteFailed {
            file: file.path.clone(),
            bytes: to - from,
            source,
        })
    }
}
