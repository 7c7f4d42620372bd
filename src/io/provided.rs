//! A ring of provided receive buffers: what the kernel takes a buffer from when bytes come (`IORING_REGISTER_PBUF_RING`).
//!
//! ```text
//! entry 0: │ 0 address u64 │ 8 length u32 │ 12 buffer u16 │ 14 the ring's tail u16 │
//! entry n: │ address u64   │ length u32   │ buffer u16    │ reserved              │   (16 bytes each, a power of two)
//! ```

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::BufferGroup;
use super::pool::{ReceivePool, map, unmap};

const _: () = assert!(size_of::<BufRingEntry>() == 16);

/// The provided buffers of one group.
#[derive(Debug)]
pub(super) struct ProvidedBuffers {
    entries: NonNull<BufRingEntry>,
    count: u16,
    tail: u16,
    /// Buffers that are with the kernel, as far as completions seen so far tell.
    available: u16,
}

// SAFETY: the mapping is owned by this value, and only its holder writes to it.
unsafe impl Send for ProvidedBuffers {}

impl ProvidedBuffers {
    /// Registers the ring of a group and hands all its buffers to the kernel.
    pub(super) fn register(submitter: &Submitter<'_>, pool: &ReceivePool, group: BufferGroup) -> io::Result<Self> {
        let count = pool.per_group();
        let entries = map(count as usize * size_of::<BufRingEntry>())?.cast();
        let mut provided = Self {
            entries,
            count,
            tail: 0,
            available: 0,
        };
        // SAFETY: the mapping holds `count` entries, is page-aligned, and outlives the ring: the driver drops its ring
        // before its provided buffers.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, group as u16, 0)? };
        let first = pool.first(group);
        for index in 0..count {
            provided.give(pool, first + index);
        }
        Ok(provided)
    }

    /// Hands a buffer to the kernel.
    #[inline]
    pub(super) fn give(&mut self, pool: &ReceivePool, buffer: u16) {
        assert!(self.available < self.count, "buffer {buffer} was released twice");
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is within the ring and not the kernel's: the kernel holds at most `count - 1` others. The tail
        // shares entry 0's reserved field, which the setters leave alone.
        unsafe {
            let entry = self.entries.add(slot).as_mut();
            entry.set_addr(pool.payload(buffer).as_ptr() as u64);
            entry.set_len(pool.payload_bytes() as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
        self.available += 1;
    }

    /// The kernel has used a buffer.
    #[inline]
    pub(super) fn taken(&mut self) {
        assert!(self.available > 0, "the kernel used a buffer that it did not hold");
        self.available -= 1;
    }

    /// Buffers with the kernel.
    pub(super) fn available(&self) -> u16 {
        self.available
    }
}

impl Drop for ProvidedBuffers {
    fn drop(&mut self) {
        unmap(self.entries.cast(), self.count as usize * size_of::<BufRingEntry>());
    }
}
