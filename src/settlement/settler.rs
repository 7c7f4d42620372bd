//! The settler: takes closed windows to Settled, one at a time, the oldest first.
//!
//! ```text
//! Closed, Aborted ─ BeginSettlement ▶ Settling ─ the spool has it whole ▶ files beside their name, checked against the
//!                                                                        engine, renamed ─▶ Settled
//!                                        └─ anything that fails ─▶ Aborted, and later again
//! ```
//! What it promises: a window is Settled only when its files are there, whole and flushed, and come to the engine's own nets,
//! count and gross. What fails aborts the settlement and changes no payment; it is tried again with growing pauses, and as
//! soon as an operator asks. Payments that do not come to what the engine has stop intake: that is invariant 7. After a
//! restart a window in Settling is taken up again, and the same files come of it. Nobody waits for the settler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::day::{day_before, day_statements, end_of};
use super::error::SettlementError;
use super::facts::FinalPayment;
use super::files::{Existing, SettlementDirectory};
use super::pass::publish_window;
use super::progress::{SettledFiles, SettlementProgress, SettlerState};
use super::spool::SpoolOptions;
use super::spool_reader::Spool;
use super::spool_view::{SpoolView, SpooledWindow, WindowSpool};
use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, RETRY_PAUSE, Ring, StopFlag, SwitchClock};
use crate::domain::{BusinessDate, SECOND, UtcNanos, WindowId, WindowState};
use crate::wire::{Intake, WindowAction, WindowEvent};

/// How often it looks for work when nobody asks.
const ROUND: Duration = Duration::from_millis(100);
/// After a failure it tries again this much later, then twice as much, up to the longest pause.
const PAUSE_NS_MIN: u64 = SECOND;
const PAUSE_NS_MAX: u64 = 600 * SECOND;
/// What closes so soon after an operator's word to settle is meant by it: he told it to close just before.
const MEANT_NS: u64 = 2 * SECOND;
/// How often it looks for spools that nobody needs any more.
const TIDY_NS: u64 = 60 * SECOND;
const DAY_NS: u64 = 86_400 * SECOND;

/// What the settler is made of.
pub struct SettlerParts {
    /// Where files are written.
    pub directory: SettlementDirectory,
    /// Where the spool is.
    pub spool: SpoolOptions,
    /// What there is of it, and how windows stand.
    pub view: Arc<SpoolView>,
    /// To the sequencer.
    pub events: Arc<Ring<Intake>>,
    /// True when an operator has said since it was asked last that what is closed is to be settled.
    pub wished: Box<dyn FnMut() -> bool + Send>,
    /// True where windows are settled as soon as they are closed.
    pub by_itself: bool,
    /// Days that the spool of a settled window is kept after its close.
    pub spool_days: u32,
    /// Windows that the ledger has settled when the switch starts: the view, which may begin earlier, does not know it yet.
    pub settled: BTreeSet<WindowId>,
    /// Closed when invariant 7 does not hold. While it is closed for a broken invariant, nothing is settled.
    pub gate: Arc<IntakeGate>,
    /// The clock.
    pub clock: SwitchClock,
    /// What it tells about itself.
    pub progress: Arc<SettlementProgress>,
    /// Set when the thread is to end: what is being written is given up.
    pub stop: StopFlag,
}

/// When a window whose settlement failed is tried again.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: UtcNanos,
    pause_ns: u64,
}

/// The settler.
pub struct Settler {
    pub(super) parts: SettlerParts,
    spool: Spool,
    /// Until when an operator's word counts: windows that closed by then are settled.
    wished_until: UtcNanos,
    /// An event that found the sequencer's ring full.
    deferred: Option<WindowEvent>,
    /// The window that an event was sent for, and the state that it was in.
    sent: Option<(WindowId, WindowState)>,
    retries: BTreeMap<WindowId, Retry>,
    /// Days before this one have their statements.
    days_done: BusinessDate,
    days_retry: Retry,
    tidy_next: UtcNanos,
}

impl Settler {
    /// Puts the settler together.
    #[must_use]
    pub fn new(parts: SettlerParts) -> Self {
        Self {
            spool: Spool::new(&parts.spool.directory, parts.spool.journal_id),
            wished_until: UtcNanos(0),
            deferred: None,
            sent: None,
            retries: BTreeMap::new(),
            days_done: BusinessDate(0),
            days_retry: Retry {
                at: UtcNanos(0),
                pause_ns: PAUSE_NS_MIN,
            },
            tidy_next: UtcNanos(0),
            parts,
        }
    }

    fn take_wish(&mut self, now: UtcNanos) -> usize {
        if !(self.parts.wished)() {
            return 0;
        }
        self.wished_until = now.plus(MEANT_NS);
        for retry in self.retries.values_mut() {
            retry.at = now;
        }
        1
    }

    fn tell(&mut self, action: WindowAction, window: &SpooledWindow) {
        self.sent = Some((window.id, window.state));
        self.deferred = Some(WindowEvent::new(action, window.currency, window.id));
        self.hand_over();
    }

    fn hand_over(&mut self) -> usize {
        let Some(event) = self.deferred else { return 0 };
        if self.parts.events.push(Intake::Window(event)).is_err() {
            return 0;
        }
        self.deferred = None;
        self.parts.events.notify();
        1
    }

    /// True while the event that was sent last has not been seen to be applied.
    fn waits(&mut self) -> bool {
        let Some((window, state)) = self.sent else {
            return false;
        };
        let is_same = self.parts.view.window(window).is_none_or(|known| known.state == state);
        if !is_same {
            self.sent = None;
            self.parts.progress.at(None, SettlerState::Idle);
        }
        is_same
    }

    fn is_due(&self, window: &SpooledWindow, now: UtcNanos) -> bool {
        if self.parts.settled.contains(&window.id) {
            return false;
        }
        let wanted = self.parts.by_itself || window.closed <= self.wished_until;
        match window.state {
            WindowState::Open | WindowState::Settled => false,
            WindowState::Settling => true,
            WindowState::Closed => wanted,
            // Of one that was aborted before this start nobody knows why.
            WindowState::Aborted => self.retries.get(&window.id).map_or(wanted, |retry| now >= retry.at),
        }
    }

    fn settle(&mut self, now: UtcNanos) -> usize {
        if self.deferred.is_some() || self.waits() {
            return 0;
        }
        let Some(windows) = self.parts.view.windows() else {
            return 0;
        };
        let Some(window) = windows.iter().find(|window| self.is_due(window, now)) else {
            return 0;
        };
        if window.state != WindowState::Settling {
            self.parts.progress.at(Some(window.id), SettlerState::Beginning);
            self.tell(WindowAction::BeginSettlement, window);
            return 1;
        }
        match &window.spool {
            WindowSpool::Underway => {
                self.parts.progress.at(Some(window.id), SettlerState::Spooling);
                0
            }
            WindowSpool::Lost(reason) => {
                let reason = reason.clone();
                self.abort(window, &reason, now);
                1
            }
            WindowSpool::Whole => {
                self.parts.progress.at(Some(window.id), SettlerState::Writing);
                match self.write(window.id) {
                    Ok(()) => {
                        self.retries.remove(&window.id);
                        self.parts.progress.at(Some(window.id), SettlerState::Ending);
                        self.tell(WindowAction::Settled, window);
                    }
                    // It is taken up again at the next start.
                    Err(SettlementError::Stopped) => {}
                    Err(error) => {
                        if error.is_breach() {
                            self.parts.gate.close(IntakeState::Broken);
                            tracing::error!(
                                "{error}; intake is stopped, inquiries are still answered: call the operator on duty, and \
                                 hold the journal against `clearway settle verify` before anything is settled"
                            );
                        }
                        self.abort(window, &error.to_string(), now);
                        if error.is_breach()
                            && let Some(retry) = self.retries.get_mut(&window.id)
                        {
                            // Only when an operator says so.
                            retry.at = UtcNanos::NEVER;
                        }
                    }
                }
                1
            }
        }
    }

    fn abort(&mut self, window: &SpooledWindow, reason: &str, now: UtcNanos) {
        let pause_ns = self
            .retries
            .get(&window.id)
            .map_or(PAUSE_NS_MIN, |retry| retry.pause_ns.saturating_mul(2).min(PAUSE_NS_MAX));
        let at = now.plus(pause_ns);
        self.retries.insert(window.id, Retry { at, pause_ns });
        tracing::error!(
            window = window.id.to_string(),
            "the settlement is aborted: {reason}; its payments stay as they are, cover stays used; it is tried again in {} s, \
             or at once by `clearway admin settle`",
            pause_ns / SECOND
        );
        self.parts.progress.aborted();
        self.parts.progress.set_error(Some(reason.to_owned()));
        self.parts.progress.at(Some(window.id), SettlerState::Ending);
        self.tell(WindowAction::Aborted, window);
    }

    fn write(&self, window: WindowId) -> Result<(), SettlementError> {
        let started = Instant::now();
        let facts = self.spool.facts(window)?;
        tracing::info!(
            window = window.to_string(),
            payments = facts.finals,
            committed = facts.committed,
            "the window is being settled"
        );
        self.parts.progress.begin_rows(facts.finals);
        let payments = Watched {
            payments: self.spool.finals(&facts)?,
            progress: &self.parts.progress,
            stop: &self.parts.stop,
            rows: 0,
        };
        let (statement, publication) = publish_window(&facts, payments, &self.parts.directory, Existing::Replace)?;
        let files = SettledFiles {
            window,
            files: publication.files,
            bytes: publication.bytes,
            took_ms: started.elapsed().as_millis() as u64,
            root: super::merkle::hex(&statement.root),
        };
        tracing::info!(
            window = window.to_string(),
            files = files.files,
            bytes = files.bytes,
            ms = files.took_ms,
            root = files.root,
            were_there = publication.was_there,
            "the window's files are written"
        );
        self.parts.progress.settled(files);
        Ok(())
    }

    /// Writes the statements of days that are over.
    fn write_days(&mut self, now: UtcNanos) -> usize {
        let day = self.parts.view.day();
        if day <= self.days_done || now < self.days_retry.at || self.parts.view.windows().is_none() {
            return 0;
        }
        let written = match self.parts.view.movements_lost() {
            Some(reason) => Err(reason),
            None => self.write_days_before(day).map_err(|error| error.to_string()),
        };
        match written {
            Ok(days) => {
                self.days_done = day;
                self.days_retry.pause_ns = PAUSE_NS_MIN;
                self.parts.progress.wrote_days(days);
                if days > 0 {
                    tracing::info!(days, "wrote the statements of the days before {day}");
                }
            }
            Err(reason) => {
                let pause_ns = self.days_retry.pause_ns;
                tracing::error!(
                    "the statements of the days before {day} are not written: {reason}; tried again in {} s",
                    pause_ns / SECOND
                );
                self.parts.progress.set_error(Some(reason));
                self.days_retry = Retry {
                    at: now.plus(pause_ns),
                    pause_ns: pause_ns.saturating_mul(2).min(PAUSE_NS_MAX),
                };
            }
        }
        1
    }

    fn write_days_before(&self, day: BusinessDate) -> Result<u64, SettlementError> {
        let mut days = 0;
        // A journal without participants has none.
        if !self.spool.has_movements() {
            return Ok(0);
        }
        day_statements(self.spool.movements()?, end_of(day_before(day)), |statement| {
            if self.parts.stop.is_set() {
                return Err(SettlementError::Stopped);
            }
            let directory = self.parts.directory.day(statement.date, statement.currency);
            // What was written of the day before it was over, by an operator's report, gives way.
            if !statement.complete || (directory.is_dir() && !super::day::ends_early(&directory)?) {
                return Ok(());
            }
            super::day::write_day(&statement, &self.parts.directory, Existing::Replace)?;
            days += 1;
            Ok(())
        })?;
        Ok(days)
    }

    /// Removes the payments of windows that were settled long ago; their facts stay.
    fn tidy(&mut self, now: UtcNanos) -> usize {
        if now < self.tidy_next {
            return 0;
        }
        self.tidy_next = now.plus(TIDY_NS);
        let Some(windows) = self.parts.view.windows() else {
            return 0;
        };
        let kept_ns = u64::from(self.parts.spool_days) * DAY_NS;
        let mut removed = 0;
        for window in windows {
            if window.state != WindowState::Settled || now.since(window.closed) < kept_ns {
                continue;
            }
            match self.remove_spool(window.id) {
                Ok(was_there) => removed += usize::from(was_there),
                Err(error) => tracing::warn!("a spool that is no longer needed stays: {error}"),
            }
        }
        removed
    }

    fn remove_spool(&self, window: WindowId) -> Result<bool, SettlementError> {
        let is_needed = || -> Result<bool, SettlementError> {
            Ok(self.spool.facts(window)?.close_event > self.parts.view.removable_below())
        };
        if !self.spool.has_finals(window) || is_needed()? {
            return Ok(false);
        }
        self.spool.remove_finals(window, &self.parts.spool.door)
    }
}

impl Agent for Settler {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let now = self.parts.clock.now();
        let mut work = self.hand_over();
        // Nothing is settled on a ledger that is known to be wrong.
        if self.parts.gate.state() == IntakeState::Broken {
            return Ok(work);
        }
        work += self.take_wish(now);
        work += self.settle(now);
        work += self.write_days(now);
        work += self.tidy(now);
        Ok(work)
    }

    fn role_name(&self) -> &str {
        "settler"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        Some(if self.deferred.is_some() || self.sent.is_some() {
            RETRY_PAUSE
        } else {
            ROUND
        })
    }
}

/// A window's payments on their way into its files: counted, and given up when the thread is to end.
struct Watched<'a, P> {
    payments: P,
    progress: &'a SettlementProgress,
    stop: &'a StopFlag,
    rows: u64,
}

/// How often it is looked whether to go on.
const ROWS_BETWEEN_LOOKS: u64 = 4_096;

impl<P: Iterator<Item = Result<FinalPayment, SettlementError>>> Iterator for Watched<'_, P> {
    type Item = Result<FinalPayment, SettlementError>;

    fn next(&mut self) -> Option<Self::Item> {
        let payment = self.payments.next();
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_BETWEEN_LOOKS) || payment.is_none() {
            let rows = self.rows - u64::from(payment.is_none());
            self.progress.rows.store(rows, Ordering::Relaxed);
            if self.stop.is_set() {
                return Some(Err(SettlementError::Stopped));
            }
        }
        payment
    }
}
