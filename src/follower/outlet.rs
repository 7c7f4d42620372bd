//! What the follower's engine says: nothing leaves, everything is filed.

use crate::clearing::Outlet;
use crate::domain::UtcNanos;
use crate::register::DayRegister;
use crate::settlement::SpoolWriter;
use crate::wire::{ClosedWindow, CoverMovement, Effect, RegisterEntry, WordEntry};

/// Files what became final, at the time of the event.
pub(super) struct Filing<'a> {
    pub(super) register: &'a mut DayRegister,
    pub(super) spool: &'a mut SpoolWriter,
    pub(super) time: UtcNanos,
}

impl Outlet for Filing<'_> {
    /// The live engine's effects went out when the event was live.
    fn emit(&mut self, _: Effect) {}

    fn listens(&self) -> bool {
        false
    }

    fn keeps_register(&self) -> bool {
        true
    }

    fn registered(&mut self, entry: &RegisterEntry) {
        self.register.file_payment(entry);
        self.spool.registered(entry);
    }

    fn closed(&mut self, window: &ClosedWindow<'_>) {
        self.spool.closed(window);
    }

    fn cover_moved(&mut self, movement: &CoverMovement) {
        self.spool.cover_moved(movement);
    }

    fn worded(&mut self, word: &WordEntry) {
        self.register.file_word(word, self.time);
    }

    fn forgotten(&mut self, word: &WordEntry, raised: UtcNanos) {
        self.register.file_word(word, raised);
    }
}
