//! Waking a parked thread: an eventfd and a flag, so that waking a thread that is awake costs a load.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

/// The wake-up of one thread.
///
/// The sleeper calls [`Wakeup::arm`], looks at its inputs once more, and sleeps; a peer that has given it something
/// calls [`Wakeup::wake`]. The fences on both sides make sure that either the sleeper sees the item or the peer sees the
/// flag.
#[derive(Debug)]
pub struct Wakeup {
    parked: AtomicBool,
    event: OwnedFd,
}

impl Wakeup {
    /// A new wake-up.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: eventfd has no memory arguments; the descriptor it returns is ours alone.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd)
        };
        Ok(Self {
            parked: AtomicBool::new(false),
            event,
        })
    }

    /// Says that the thread is about to sleep; it must look at its inputs once more before it does.
    pub fn arm(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// True while the thread sleeps or is about to and nobody has woken it.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.parked.load(Ordering::Relaxed)
    }

    /// Says that the thread is awake, and forgets wake-ups that came meanwhile.
    pub fn disarm(&self) {
        if !self.parked.swap(false, Ordering::Relaxed) {
            self.drain();
        }
    }

    /// Wakes the thread if it sleeps or is about to. Call after the item is visible.
    #[inline]
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed) {
            self.signal();
        }
    }

    /// Sleeps until woken or until `limit` has passed. The eventfd is left as it is; [`Wakeup::disarm`] drains it.
    pub fn sleep(&self, limit: Option<Duration>) {
        let mut poll = libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout = limit.map(|d| libc::timespec {
            tv_sec: d.as_secs() as libc::time_t,
            tv_nsec: i64::from(d.subsec_nanos()),
        });
        let timeout_pointer = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `poll` and `timeout` live across the call; a null time-out means none. Interruption is harmless: the
        // caller looks at its inputs again.
        unsafe {
            libc::ppoll(&raw mut poll, 1, timeout_pointer, std::ptr::null());
        }
    }

    /// The descriptor, for a driver that sleeps on it among its own.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Reads the eventfd empty.
    pub fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into a u64; the descriptor does not block.
        unsafe {
            libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), 8);
        }
    }

    fn signal(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes from a u64; a full counter (EAGAIN) means that a wake-up is pending already.
        unsafe {
            libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8);
        }
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn no_wake_up_is_ever_lost() {
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let (items, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sleeper = {
            let (wakeup, items, seen) = (wakeup.clone(), items.clone(), seen.clone());
            std::thread::spawn(move || {
                while seen.load(Ordering::Relaxed) < 20_000 {
                    wakeup.arm();
                    if items.load(Ordering::Acquire) == seen.load(Ordering::Relaxed) {
                        wakeup.sleep(None);
                    }
                    wakeup.disarm();
                    seen.store(items.load(Ordering::Acquire), Ordering::Release);
                }
            })
        };
        for n in 1..=20_000 {
            items.store(n, Ordering::Release);
            wakeup.wake();
            while seen.load(Ordering::Acquire) < n {
                std::hint::spin_loop();
            }
        }
        sleeper.join().unwrap();
    }
}
