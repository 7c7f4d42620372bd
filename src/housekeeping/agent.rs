//! The housekeeping agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::desk::Desk;
use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, Ring};
use crate::config::WindowSettings;
use crate::domain::{Currency, WindowId, WindowState};
use crate::journal::{JournalError, Positions, Preparer};
use crate::wire::{Intake, WindowAction, WindowEvent};

/// How often the thread looks for work when nobody asks.
const ROUND: Duration = Duration::from_millis(100);
/// After a full disk it tries again this much later.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(1);
/// Intake stops while less than this is prepared, as a share of a segment.
const LOW_ROOM_SHARE: u64 = 2;

/// Wishes of operators, set by the admin socket.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Close every currency's open window.
    pub close_windows: AtomicBool,
    /// Settle every closed window.
    pub settle: AtomicBool,
}

/// What housekeeping is made of.
pub struct HousekeepingParts {
    /// Prepares segments.
    pub preparer: Preparer,
    /// The journal's positions.
    pub positions: Arc<Positions>,
    /// Size of a segment, bytes.
    pub segment_bytes: u64,
    /// Where this start's own events end: the gate opens when they are applied.
    pub ready_at: u64,
    /// The gate.
    pub gate: Arc<IntakeGate>,
    /// To the sequencer.
    pub priority: Arc<Ring<Intake>>,
    /// Snapshots.
    pub desk: Desk,
    /// The scheme's currencies.
    pub currencies: Vec<Currency>,
    /// The windows' schedule.
    pub windows: WindowSettings,
    /// Operators' wishes.
    pub wishes: Arc<Wishes>,
}

/// The housekeeping agent.
pub struct Housekeeping {
    parts: HousekeepingParts,
    close_next: Option<Instant>,
    settle_pending: bool,
    prepare_next: Instant,
    no_space_told: bool,
    ready: bool,
}

impl Housekeeping {
    /// Puts the agent together.
    #[must_use]
    pub fn new(parts: HousekeepingParts) -> Self {
        let now = Instant::now();
        Self {
            close_next: parts.windows.close_every_s.map(|s| now + Duration::from_secs(s)),
            settle_pending: parts.windows.settle,
            prepare_next: now,
            no_space_told: false,
            ready: false,
            parts,
        }
    }

    fn open_when_ready(&mut self) -> usize {
        if self.ready || self.parts.positions.applied() < self.parts.ready_at {
            return 0;
        }
        self.ready = true;
        self.parts.gate.open();
        1
    }

    fn prepare(&mut self, now: Instant) -> usize {
        if now < self.prepare_next {
            return 0;
        }
        match self.parts.preparer.prepare() {
            Ok(did) => {
                if did && std::mem::take(&mut self.no_space_told) {
                    tracing::info!("the journal has room again: payments are taken");
                }
                if self.parts.gate.state() == IntakeState::NoSpace && self.room_is_enough() {
                    self.parts.gate.open();
                }
                usize::from(did)
            }
            Err(error) => {
                self.prepare_next = now + NO_SPACE_PAUSE;
                if !self.no_space_told {
                    self.no_space_told = true;
                    let what = if matches!(error, JournalError::NoSpace { .. }) {
                        "free or add space"
                    } else {
                        "see to it"
                    };
                    tracing::error!(
                        "no journal segment could be prepared: {error}; {what}, intake stops before room ends"
                    );
                }
                if !self.room_is_enough() && self.parts.gate.is_open() {
                    self.parts.gate.close(IntakeState::NoSpace);
                    tracing::error!(
                        "the journal's prepared room is short: no payment is taken, inquiries are answered"
                    );
                }
                0
            }
        }
    }

    fn room_is_enough(&self) -> bool {
        let room = self
            .parts
            .positions
            .prepared()
            .saturating_sub(self.parts.positions.appended());
        room >= self.parts.segment_bytes / LOW_ROOM_SHARE
    }

    fn close_windows(&mut self, now: Instant) -> usize {
        let due = self.close_next.is_some_and(|next| now >= next);
        if due && let Some(every) = self.parts.windows.close_every_s {
            self.close_next = Some(now + Duration::from_secs(every));
        }
        let wished = self.parts.wishes.close_windows.swap(false, Ordering::AcqRel);
        if !(due || wished) || !self.ready {
            return 0;
        }
        for &currency in &self.parts.currencies {
            let event = WindowEvent::new(WindowAction::Close, currency, WindowId::NONE);
            self.tell_sequencer(event);
        }
        self.settle_pending = self.parts.windows.settle;
        1
    }

    /// Settles every closed window: two events each.
    fn settle(&mut self) -> usize {
        let wished = self.parts.wishes.settle.swap(false, Ordering::AcqRel);
        if !(wished || self.settle_pending) || !self.ready {
            return 0;
        }
        let Some(view) = self.parts.desk.ask() else { return 0 };
        self.settle_pending = false;
        let mut work = 0;
        for window in &view.snapshot.windows {
            let unsettled = matches!(window.state, WindowState::Closed | WindowState::Aborted);
            if !unsettled {
                continue;
            }
            let currency = Currency(window.currency);
            self.tell_sequencer(WindowEvent::new(WindowAction::BeginSettlement, currency, window.id));
            self.tell_sequencer(WindowEvent::new(WindowAction::Settled, currency, window.id));
            work += 1;
        }
        work
    }

    fn tell_sequencer(&self, event: WindowEvent) {
        let mut intake = Intake::Window(event);
        // The ring is sized for all open payments; if it is full for a moment, this thread can wait.
        while let Err(back) = self.parts.priority.push(intake) {
            intake = back;
            self.parts.priority.notify();
            std::thread::yield_now();
        }
        self.parts.priority.notify();
    }
}

impl Agent for Housekeeping {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let now = Instant::now();
        let mut work = self.open_when_ready();
        work += self.prepare(now);
        work += self.settle();
        work += self.close_windows(now);
        Ok(work)
    }

    fn role_name(&self) -> &str {
        "housekeeping"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        Some(if self.ready { ROUND } else { Duration::from_millis(2) })
    }
}
