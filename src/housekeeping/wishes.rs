//! What operators wish of windows, set by the admin socket and taken by those who see to them.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Every currency of a scheme: it has four at most.
const EVERY_CURRENCY: u8 = 0b1111;

/// Wishes of operators.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Close the open window of these currencies: a bit each, in the order of the scheme's.
    close: AtomicU8,
    /// Settle every closed window.
    pub settle: AtomicBool,
}

impl Wishes {
    /// Wishes that every currency's open window closes.
    pub fn close_all(&self) {
        self.close.fetch_or(EVERY_CURRENCY, Ordering::AcqRel);
    }

    /// Wishes that the open window of the scheme's `nth` currency closes.
    pub fn close(&self, nth: usize) {
        self.close
            .fetch_or(EVERY_CURRENCY & (1 << nth.min(7)), Ordering::AcqRel);
    }

    /// Takes what was wished so far: a bit for each currency.
    pub(super) fn take_close(&self) -> u8 {
        self.close.swap(0, Ordering::AcqRel)
    }
}
