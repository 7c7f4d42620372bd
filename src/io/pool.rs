//! The memory of a driver's receive buffers: one mapping, touched once at start, never moved.
//!
//! ```text
//! buffer n at n × stride:  │ headroom (HEADROOM bytes, the reader's) │ receive_bytes (the kernel's) │ padding to 64 │
//! buffers 0..receive_buffers belong to group Requests, the next receive_buffers to group Replies
//! ```

use std::io;
use std::ptr::NonNull;

use super::{BufferGroup, BufferPool, DriverOptions, HEADROOM};

/// Groups of receive buffers.
pub(super) const GROUPS: usize = 2;
/// The most buffers in a group: buffer numbers of both groups fit a `u16`, and the kernel's limit of a buffer ring.
const RECEIVE_BUFFERS_MAX: u16 = 32_768;

/// The receive buffers of one driver.
#[derive(Debug)]
pub struct ReceivePool {
    base: NonNull<u8>,
    stride: usize,
    receive_bytes: usize,
    receive_buffers: u16,
}

// SAFETY: the mapping is plain memory that lives as long as the pool; who may touch which buffer is decided by who holds
// its number (see `BufferPool`).
unsafe impl Send for ReceivePool {}
// SAFETY: as above.
unsafe impl Sync for ReceivePool {}

impl ReceivePool {
    /// Maps and pre-faults the buffers.
    ///
    /// # Errors
    /// `InvalidInput` for sizes that can't be; otherwise when the memory can't be had.
    pub fn new(options: &DriverOptions) -> io::Result<Self> {
        let refused = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
        if !options.receive_buffers.is_power_of_two() || options.receive_buffers > RECEIVE_BUFFERS_MAX {
            return refused("receive_buffers must be a power of two, at most 32768");
        }
        if options.receive_bytes == 0 {
            return refused("receive_bytes must not be 0");
        }
        let stride = (HEADROOM + options.receive_bytes as usize).next_multiple_of(64);
        let bytes = stride * GROUPS * options.receive_buffers as usize;
        Ok(Self {
            base: map(bytes)?,
            stride,
            receive_bytes: options.receive_bytes as usize,
            receive_buffers: options.receive_buffers,
        })
    }

    /// The first buffer's number of a group.
    pub(super) fn first(&self, group: BufferGroup) -> u16 {
        group as u16 * self.receive_buffers
    }

    /// Buffers in each group.
    pub(super) fn per_group(&self) -> u16 {
        self.receive_buffers
    }

    /// Which group a buffer belongs to.
    pub(super) fn group_of(&self, buffer: u16) -> BufferGroup {
        if buffer < self.receive_buffers {
            BufferGroup::Requests
        } else {
            BufferGroup::Replies
        }
    }

    /// Where received bytes of a buffer begin.
    pub(super) fn payload(&self, buffer: u16) -> NonNull<u8> {
        // SAFETY: `start` checks the number; the headroom lies within the buffer.
        unsafe { self.start(buffer).add(HEADROOM) }
    }

    /// Bytes that may be received into one buffer.
    pub(super) fn payload_bytes(&self) -> usize {
        self.receive_bytes
    }

    fn start(&self, buffer: u16) -> NonNull<u8> {
        let buffer = buffer as usize;
        assert!(
            buffer < GROUPS * self.receive_buffers as usize,
            "no receive buffer {buffer}"
        );
        // SAFETY: the number is within the mapping.
        unsafe { self.base.add(buffer * self.stride) }
    }

    fn mapped_bytes(&self) -> usize {
        self.stride * GROUPS * self.receive_buffers as usize
    }
}

impl BufferPool for ReceivePool {
    unsafe fn bytes(&self, buffer: u16) -> &[u8] {
        // SAFETY: within the mapping, which is initialised (zeros); the caller holds the number, so nobody writes.
        unsafe { std::slice::from_raw_parts(self.start(buffer).as_ptr(), HEADROOM + self.receive_bytes) }
    }

    unsafe fn headroom(&self, buffer: u16) -> &mut [u8] {
        // SAFETY: within the mapping; the caller alone holds the number and has no other reference to the headroom.
        unsafe { std::slice::from_raw_parts_mut(self.start(buffer).as_ptr(), HEADROOM) }
    }
}

impl Drop for ReceivePool {
    fn drop(&mut self) {
        unmap(self.base, self.mapped_bytes());
    }
}

/// Maps `bytes` of anonymous memory, page-aligned and pre-faulted.
pub(super) fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new anonymous mapping; no existing memory is touched.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))
}

/// Gives memory of [`map`] back.
pub(super) fn unmap(base: NonNull<u8>, bytes: usize) {
    // SAFETY: `base` and `bytes` are those of a mapping made by `map`, and its owner is being dropped.
    unsafe {
        libc::munmap(base.as_ptr().cast(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(receive_buffers: u16) -> DriverOptions {
        DriverOptions {
            connections_max: 1,
            receive_bytes: 1_000,
            receive_buffers,
            gather_completions: 1,
            send_buffer_bytes: None,
            sqpoll: false,
        }
    }

    #[test]
    fn headroom_and_payload_of_a_buffer_are_one_piece() {
        let pool = ReceivePool::new(&options(4)).unwrap();
        for buffer in 0..8u16 {
            // SAFETY: this test holds all numbers, and uses one reference at a time.
            unsafe {
                pool.headroom(buffer).fill(buffer as u8 + 1);
                *pool.payload(buffer).as_ptr() = 200 + buffer as u8;
                let bytes = pool.bytes(buffer);
                assert_eq!(bytes.len(), HEADROOM + 1_000);
                assert_eq!(bytes[HEADROOM - 1], buffer as u8 + 1);
                assert_eq!(bytes[HEADROOM], 200 + buffer as u8);
            }
        }
        assert_eq!(pool.group_of(3), BufferGroup::Requests);
        assert_eq!(pool.group_of(pool.first(BufferGroup::Replies)), BufferGroup::Replies);
    }

    #[test]
    fn a_count_that_is_no_power_of_two_is_refused() {
        assert_eq!(
            ReceivePool::new(&options(3)).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
