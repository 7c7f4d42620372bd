//! Receive buffers shared between a link agent and the sequencer: who still needs which.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{BufferPool, HEADROOM};
use crate::agent::Ring;

/// The receive buffers of one driver with a count of holders each. The last holder to let go sends the buffer home.
///
/// A buffer's bytes are read only inside [`BufferShare::read`], which checks that somebody holds the buffer; its
/// headroom is written only inside [`BufferShare::join`], which checks that exactly one does.
pub struct BufferShare {
    pool: Arc<dyn BufferPool>,
    holders: Box<[AtomicU16]>,
    home: Arc<Ring<u16>>,
}

impl BufferShare {
    /// Shares the buffers of `pool`; `home` is the ring of at least `buffers` places by which they come back.
    #[must_use]
    pub fn new(pool: Arc<dyn BufferPool>, buffers: usize, home: Arc<Ring<u16>>) -> Self {
        assert!(
            home.capacity() >= buffers,
            "every buffer must find room on its way home"
        );
        Self {
            pool,
            holders: (0..buffers).map(|_| AtomicU16::new(0)).collect(),
            home,
        }
    }

    /// The driver handed the buffer out: one holder.
    pub fn received(&self, buffer: u16) {
        let before = self.holders[buffer as usize].swap(1, Ordering::Relaxed);
        assert_eq!(before, 0, "buffer {buffer} was handed out while {before} held it");
    }

    /// One more holder; only a holder may say so.
    pub fn hold(&self, buffer: u16) {
        self.holders[buffer as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One holder less; the last sends the buffer home.
    pub fn let_go(&self, buffer: u16) {
        let before = self.holders[buffer as usize].fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "buffer {buffer} was let go by nobody who held it");
        if before == 1 {
            let sent = self.home.push(buffer);
            assert!(sent.is_ok(), "the way home has room for every buffer");
        }
    }

    /// Puts the unfinished end of the link's last buffer in front of what was received; the bytes then begin at
    /// `HEADROOM − carried.len()`.
    pub fn join(&self, buffer: u16, carried: &[u8]) {
        assert_eq!(
            self.holders[buffer as usize].load(Ordering::Relaxed),
            1,
            "buffer {buffer} is shared already"
        );
        // SAFETY: the only holder is the caller (checked above), so nobody reads or writes the headroom meanwhile.
        let headroom = unsafe { self.pool.headroom(buffer) };
        headroom[HEADROOM - carried.len()..].copy_from_slice(carried);
    }

    /// Reads `start..end` of a buffer that the caller holds.
    #[inline]
    pub fn read<R>(&self, buffer: u16, start: usize, end: usize, read: impl FnOnce(&[u8]) -> R) -> R {
        assert!(
            self.holders[buffer as usize].load(Ordering::Relaxed) > 0,
            "buffer {buffer} is not held"
        );
        // SAFETY: the caller holds the buffer across the closure, so the kernel does not write to it, and headroom is
        // written only before a second holder exists.
        let bytes = unsafe { self.pool.bytes(buffer) };
        read(&bytes[start..end])
    }
}

impl std::fmt::Debug for BufferShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufferShare")
            .field("buffers", &self.holders.len())
            .finish_non_exhaustive()
    }
}
