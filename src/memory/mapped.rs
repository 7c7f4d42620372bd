//! One piece of anonymous memory: zeroed, faulted in, in huge pages where the host has them.

use std::io;
use std::ptr::{self, NonNull};

/// The size and alignment of a huge page on the machines this is built for.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

const PAGE_BYTES: usize = 4096;

/// Anonymous memory that was faulted in when it was mapped, so that a first store costs what every later store does;
/// [`MappedMemory::unfaulted`] leaves that to who fills it.
///
/// It begins as zeros, at a multiple of [`HUGE_PAGE_BYTES`] when it is at least that long and of 4096 otherwise, and is
/// unmapped when dropped.
#[derive(Debug)]
pub struct MappedMemory {
    start: NonNull<u8>,
    bytes: usize,
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    locked: bool,
}

// SAFETY: the memory belongs to this value alone; what is shared through `as_ptr` is its users' own contract.
unsafe impl Send for MappedMemory {}
// SAFETY: through `&self` only the address, the length and a flag can be had.
unsafe impl Sync for MappedMemory {}

impl MappedMemory {
    /// Maps and faults in `bytes` (rounded up to whole pages), and locks them if `lock` asks for it and the host lets us.
    ///
    /// # Errors
    /// What the kernel says when it has no such memory to give. A refused lock is no error: see [`MappedMemory::locked`].
    pub fn new(bytes: usize, lock: bool) -> io::Result<Self> {
        super::mapper::map(bytes, lock).unwrap_or_else(|| Self::map_here(bytes, lock))
    }

    /// As [`MappedMemory::new`], by the calling thread whatever its class.
    pub(super) fn map_here(bytes: usize, lock: bool) -> io::Result<Self> {
        let mut memory = Self::unfaulted(bytes)?;
        memory.fault_in()?;
        memory.locked = lock && memory.lock();
        Ok(memory)
    }

    /// Maps `bytes` (rounded up to whole pages) and does not fault them in: for whoever fills all of it from a file at once,
    /// on several threads, so that the kernel clears pages on all of them.
    ///
    /// # Errors
    /// What the kernel says when it has no such memory to give.
    pub fn unfaulted(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let alignment = if bytes >= HUGE_PAGE_BYTES {
            HUGE_PAGE_BYTES
        } else {
            PAGE_BYTES
        };
        let mapped_bytes = bytes + alignment - PAGE_BYTES;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = NonNull::new(address.cast::<u8>()).expect("mmap returned the null page");
        let gap = mapped.as_ptr().align_offset(alignment);
        // SAFETY: `gap` is less than `alignment`, and the mapping is longer than `bytes` by `alignment` less one page, so
        // that `start` and `bytes` after it lie inside.
        let start = unsafe { mapped.add(gap) };
        let memory = Self {
            start,
            bytes,
            mapped,
            mapped_bytes,
            locked: false,
        };
        memory.advise_huge_pages();
        Ok(memory)
    }

    /// The first byte.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// How many bytes there are.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Never: a mapping has at least one page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// True when the kernel promised not to swap it out; otherwise it is only faulted in.
    #[must_use]
    pub const fn locked(&self) -> bool {
        self.locked
    }

    fn advise_huge_pages(&self) {
        if self.bytes >= HUGE_PAGE_BYTES {
            // SAFETY: the range is ours; the advice changes no byte. A host without huge pages refuses it, to no harm.
            let _refused = unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, libc::MADV_HUGEPAGE) };
        }
    }

    fn fault_in(&self) -> io::Result<()> {
        // SAFETY: the range is ours; populating it changes no byte.
        let refused = unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, libc::MADV_POPULATE_WRITE) } != 0;
        if !refused {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // EINVAL: a kernel before 5.14. Anything else (ENOMEM, EFAULT) would meet us again as a signal at the first store.
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        for offset in (0..self.bytes).step_by(PAGE_BYTES) {
            // SAFETY: `offset` lies inside the mapping, which nobody else knows of yet.
            unsafe { ptr::write_volatile(self.start.as_ptr().add(offset), 0) };
        }
        Ok(())
    }

    fn lock(&self) -> bool {
        // SAFETY: the range is ours; locking changes no byte.
        unsafe { libc::mlock(self.start.as_ptr().cast(), self.bytes) == 0 }
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; whoever was given the address borrowed it from this value.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_memory_is_zero_aligned_and_writable_to_its_last_byte() {
        for bytes in [1, PAGE_BYTES, 3 * PAGE_BYTES + 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES] {
            let memory = MappedMemory::new(bytes, false).unwrap();
            assert!(memory.len() >= bytes && memory.len() < bytes + PAGE_BYTES);
            assert!(!memory.locked());
            let alignment = if bytes >= HUGE_PAGE_BYTES {
                HUGE_PAGE_BYTES
            } else {
                PAGE_BYTES
            };
            assert_eq!(memory.as_ptr() as usize % alignment, 0);
            // SAFETY: the whole mapping, held by this test alone.
            let all = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.len()) };
            assert!(all.iter().all(|&byte| byte == 0));
            all[bytes - 1] = 7;
            assert_eq!(all[bytes - 1], 7);
        }
    }

    #[test]
    fn memory_no_machine_has_is_refused_and_not_met_as_a_signal() {
        assert!(MappedMemory::new(1 << 50, false).is_err());
    }
}
