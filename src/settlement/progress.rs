//! What the settler tells about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::domain::WindowId;

/// What the settler does at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SettlerState {
    /// Nothing is to be settled.
    #[default]
    Idle,
    /// It waits until the ledger has the window in Settling.
    Beginning,
    /// It waits until all payments of the window are in the spool.
    Spooling,
    /// It writes files.
    Writing,
    /// It waits until the ledger has the window Settled, or Aborted.
    Ending,
}

impl SettlerState {
    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Beginning => "beginning",
            Self::Spooling => "spooling",
            Self::Writing => "writing",
            Self::Ending => "ending",
        }
    }
}

/// A window's files, once they are there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettledFiles {
    /// The window.
    pub window: WindowId,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long they took, milliseconds.
    pub took_ms: u64,
    /// The root over the window's committed payments, hexadecimal.
    pub root: String,
}

#[derive(Debug, Default)]
struct State {
    window: Option<WindowId>,
    state: SettlerState,
    rows_total: u64,
    last: Option<SettledFiles>,
    last_error: Option<String>,
}

/// The settler's figures, for the status.
#[derive(Debug, Default)]
pub struct SettlementProgress {
    state: Mutex<State>,
    /// Payments of the window at hand that were gone through.
    pub(super) rows: AtomicU64,
    settled: AtomicU64,
    aborted: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    took_ms: AtomicU64,
    days: AtomicU64,
}

impl SettlementProgress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn at(&self, window: Option<WindowId>, now: SettlerState) {
        let mut state = self.state();
        (state.window, state.state) = (window, now);
    }

    pub(super) fn begin_rows(&self, rows_total: u64) {
        self.state().rows_total = rows_total;
        self.rows.store(0, Ordering::Relaxed);
    }

    pub(super) fn settled(&self, files: SettledFiles) {
        self.settled.fetch_add(1, Ordering::Relaxed);
        self.files.fetch_add(files.files, Ordering::Relaxed);
        self.bytes.fetch_add(files.bytes, Ordering::Relaxed);
        self.took_ms.fetch_add(files.took_ms, Ordering::Relaxed);
        let mut state = self.state();
        (state.last, state.last_error) = (Some(files), None);
    }

    pub(super) fn aborted(&self) {
        self.aborted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote_days(&self, days: u64) {
        self.days.fetch_add(days, Ordering::Relaxed);
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        self.state().last_error = error;
    }

    /// The figures as the status has them; all counts are of this run.
    #[must_use]
    pub fn json(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.state();
        let last = state.last.as_ref().map(|last| {
            json!({
                "window": last.window.to_string(),
                "files": last.files,
                "bytes": last.bytes,
                "ms": last.took_ms,
                "root": last.root,
            })
        });
        json!({
            "files_are_written": true,
            "window": state.window.map(|window| window.to_string()),
            "state": state.state.name(),
            "rows": read(&self.rows),
            "rows_total": state.rows_total,
            "windows": read(&self.settled),
            "aborted": read(&self.aborted),
            "files": read(&self.files),
            "bytes": read(&self.bytes),
            "ms": read(&self.took_ms),
            "day_statements": read(&self.days),
            "last": last,
            "last_error": state.last_error,
        })
    }
}
