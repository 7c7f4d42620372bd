//! The housekeeping agent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::desk::Desk;
use super::lists::Wanted;
use super::status::LedgerView;
use super::wishes::Wishes;
use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, RETRY_PAUSE, Ring, SwitchClock};
use crate::domain::{Currency, SECOND, UtcNanos, WindowState};
use crate::journal::{JournalError, Positions, Preparation, Preparer};
use crate::wire::{Intake, WindowAction, WindowEvent};

/// How often the thread looks for work when nobody asks.
const ROUND: Duration = Duration::from_millis(100);
/// After a full disk it tries again this much later.
const NO_SPACE_PAUSE_NS: u64 = SECOND;
/// While a segment is made, it is looked this often whether the next piece of it may be written.
const PIECE_PAUSE: Duration = Duration::from_millis(2);
/// Intake stops while less than this is prepared, as a share of a segment.
const LOW_ROOM_SHARE: u64 = 2;

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
    /// Settle a window as soon as it is closed.
    pub settle: bool,
    /// Operators' wishes.
    pub wishes: Arc<Wishes>,
    /// A window is Settled as soon as it is asked for: no files are written, by the settings.
    pub settles_at_once: bool,
    /// The clock.
    pub clock: SwitchClock,
}

/// The housekeeping agent.
pub struct Housekeeping {
    parts: HousekeepingParts,
    settle_pending: bool,
    /// What the ledger was asked, to know which windows are to be settled.
    asked: Option<Receiver<Box<LedgerView>>>,
    /// Window events that found the sequencer's ring full.
    deferred: VecDeque<WindowEvent>,
    prepare_next: UtcNanos,
    /// A segment is being made, piece by piece.
    preparing: bool,
    no_space_told: bool,
    ready: bool,
}

impl Housekeeping {
    /// Puts the agent together.
    #[must_use]
    pub fn new(parts: HousekeepingParts) -> Self {
        let now = parts.clock.now();
        Self {
            settle_pending: parts.settle,
            asked: None,
            deferred: VecDeque::new(),
            prepare_next: now,
            preparing: false,
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
        if self.room_is_enough() {
            self.parts.gate.open();
        } else {
            self.stop_intake();
        }
        1
    }

    fn prepare(&mut self, now: UtcNanos) -> usize {
        if now < self.prepare_next {
            return 0;
        }
        let prepared = self.parts.preparer.prepare_piece(now);
        self.preparing = matches!(prepared, Ok(Preparation::Waiting | Preparation::Piece));
        match prepared {
            Ok(preparation) => {
                if preparation == Preparation::Ready && std::mem::take(&mut self.no_space_told) {
                    tracing::info!("the journal has room again: payments are taken");
                }
                if self.parts.gate.state() == IntakeState::NoSpace && self.room_is_enough() {
                    self.parts.gate.open();
                }
                usize::from(matches!(preparation, Preparation::Piece | Preparation::Ready))
            }
            Err(error) => {
                self.prepare_next = now.plus(NO_SPACE_PAUSE_NS);
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
                    self.stop_intake();
                }
                0
            }
        }
    }

    fn stop_intake(&self) {
        self.parts.gate.close(IntakeState::NoSpace);
        tracing::error!("the journal's prepared room is short: no payment is taken, inquiries are answered");
    }

    fn room_is_enough(&self) -> bool {
        let room = self
            .parts
            .positions
            .prepared()
            .saturating_sub(self.parts.positions.appended());
        room >= self.parts.segment_bytes / LOW_ROOM_SHARE
    }

    /// Settles every closed window, two events each, once clearing has said which those are.
    fn settle(&mut self) -> usize {
        // Nothing is settled on a ledger that is known to be wrong.
        if !self.parts.settles_at_once || self.parts.gate.state() == IntakeState::Broken {
            return 0;
        }
        if self.ready && self.asked.is_none() {
            let wished = self.parts.wishes.settle.swap(false, Ordering::AcqRel);
            if wished || self.settle_pending {
                self.asked = self.parts.desk.question(Wanted::Ledger);
                self.settle_pending = self.asked.is_none();
            }
        }
        let Some(answer) = &self.asked else { return 0 };
        let view = match answer.try_recv() {
            Ok(view) => view,
            Err(TryRecvError::Empty) => return 0,
            // Clearing has gone without an answer.
            Err(TryRecvError::Disconnected) => {
                self.asked = None;
                return 0;
            }
        };
        self.asked = None;
        let mut work = 1;
        for window in &view.snapshot.windows {
            // A switch that ended between the two events left it Settling: the first is ignored then, the second fits.
            let unsettled = matches!(
                window.state,
                WindowState::Closed | WindowState::Aborted | WindowState::Settling
            );
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

    fn tell_sequencer(&mut self, event: WindowEvent) {
        self.deferred.push_back(event);
        self.hand_over();
    }

    /// Gives the sequencer what it has room for; the rest waits, in order.
    fn hand_over(&mut self) -> usize {
        let mut handed = 0;
        while let Some(&event) = self.deferred.front() {
            if self.parts.priority.push(Intake::Window(event)).is_err() {
                break;
            }
            self.deferred.pop_front();
            handed += 1;
        }
        if handed > 0 {
            self.parts.priority.notify();
        }
        handed
    }
}

impl Agent for Housekeeping {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let now = self.parts.clock.now();
        let mut work = self.open_when_ready() + self.hand_over();
        work += self.prepare(now);
        work += self.settle();
        Ok(work)
    }

    fn role_name(&self) -> &str {
        "housekeeping"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        let settles = self.parts.settles_at_once && (self.asked.is_some() || self.settle_pending);
        let waits = settles || !self.deferred.is_empty();
        let limit = match (self.ready, waits) {
            (true, false) => ROUND,
            (true, true) => RETRY_PAUSE,
            (false, _) => Duration::from_millis(2),
        };
        Some(if self.preparing { limit.min(PIECE_PAUSE) } else { limit })
    }
}
