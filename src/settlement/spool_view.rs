//! What the spool holds, told by who writes it to who settles.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::{BusinessDate, Currency, UtcNanos, WindowId, WindowState};

/// What there is of a window's spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WindowSpool {
    /// It is being written.
    Underway,
    /// All of it is there, on stable storage.
    Whole,
    /// Some of it is lost or damaged; says what, and what to do.
    Lost(String),
}

/// A window as the follower's engine has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpooledWindow {
    /// Its id.
    pub id: WindowId,
    /// The currency.
    pub currency: Currency,
    /// Its state.
    pub state: WindowState,
    /// When it closed; 0 while open.
    pub closed: UtcNanos,
    /// What there is of it.
    pub spool: WindowSpool,
}

#[derive(Debug, Default)]
struct State {
    event: u64,
    windows: Vec<SpooledWindow>,
    day: BusinessDate,
    movements_lost: Option<String>,
    removable_below: u64,
}

/// Shared by both; nobody holds it for long.
#[derive(Debug, Default)]
pub struct SpoolView(Mutex<State>);

impl SpoolView {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_windows(&self, event: u64, windows: Vec<SpooledWindow>) {
        let mut state = self.state();
        (state.event, state.windows) = (event, windows);
    }

    pub(super) fn set_spool(&self, window: WindowId, spool: WindowSpool) {
        let mut state = self.state();
        if let Some(known) = state.windows.iter_mut().rev().find(|known| known.id == window) {
            known.spool = spool;
        }
    }

    pub(super) fn set_day(&self, day: BusinessDate) {
        self.state().day = day;
    }

    pub(super) fn set_movements_lost(&self, reason: String) {
        self.state().movements_lost = Some(reason);
    }

    /// Whoever begins again does so behind this event: payments of windows that closed at it or before are asked of the spool
    /// no more, once they are settled.
    pub fn set_removable_below(&self, event: u64) {
        self.state().removable_below = event;
    }

    /// The windows, in the order of their opening; `None` until it is known.
    #[must_use]
    pub fn windows(&self) -> Option<Vec<SpooledWindow>> {
        let state = self.state();
        (state.event > 0).then(|| state.windows.clone())
    }

    /// A window.
    #[must_use]
    pub fn window(&self, id: WindowId) -> Option<SpooledWindow> {
        let state = self.state();
        state.windows.iter().rev().find(|known| known.id == id).cloned()
    }

    /// All movements of cover of the business days before this one are in the spool; 0 until it is known.
    #[must_use]
    pub fn day(&self) -> BusinessDate {
        self.state().day
    }

    /// What is lost of the movements of cover, where something is.
    #[must_use]
    pub fn movements_lost(&self) -> Option<String> {
        self.state().movements_lost.clone()
    }

    /// Payments of settled windows that closed before this event may be removed.
    #[must_use]
    pub fn removable_below(&self) -> u64 {
        self.state().removable_below
    }
}
