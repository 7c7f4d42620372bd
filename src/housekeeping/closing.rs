//! Closing windows: what schedule and operators want, told to the sequencer, and seen to have come about.
//!
//! A close is one event and holds nobody up. After one the ledger is asked until it shows the new windows; until then
//! nothing else is closed, so that a time of day never closes a window that a close under way has just opened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use super::desk::Desk;
use super::lists::Wanted;
use super::schedule::{CloseSchedule, Due};
use super::status::LedgerView;
use super::wishes::Wishes;
use crate::agent::Ring;
use crate::config::WindowSettings;
use crate::domain::{Currency, SECOND, UtcNanos, WindowId, WindowState};
use crate::wire::{Intake, WindowAction, WindowEvent};

/// A close that clearing has not shown by then changed nothing: the day has no window number left.
const CLOSING_NS_MAX: u64 = 2 * SECOND;

/// Closes windows.
pub(super) struct Closing {
    schedule: CloseSchedule,
    currencies: Vec<Currency>,
    wishes: Arc<Wishes>,
    desk: Desk,
    priority: Arc<Ring<Intake>>,
    /// Windows opened before this are to be closed, once the ledger has said which those are.
    overdue: Option<UtcNanos>,
    /// Currencies that were told to close, and since when.
    under_way: Option<(UtcNanos, u8)>,
    asked: Option<Receiver<Box<LedgerView>>>,
    /// Events that found the sequencer's ring full.
    deferred: VecDeque<WindowEvent>,
}

/// What came of looking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Closed {
    pub(super) work: usize,
    /// Windows have just been seen to be closed.
    pub(super) done: bool,
}

impl Closing {
    pub(super) fn new(
        settings: &WindowSettings,
        now: UtcNanos,
        currencies: Vec<Currency>,
        wishes: Arc<Wishes>,
        desk: Desk,
        priority: Arc<Ring<Intake>>,
    ) -> Self {
        Self {
            schedule: CloseSchedule::new(settings, now),
            currencies,
            wishes,
            desk,
            priority,
            overdue: None,
            under_way: None,
            asked: None,
            deferred: VecDeque::new(),
        }
    }

    /// When the schedule closes windows next.
    pub(super) fn next(&self) -> UtcNanos {
        self.schedule.next()
    }

    /// True when something is under way that nobody wakes the thread for.
    pub(super) fn waits(&self) -> bool {
        self.under_way.is_some() || self.overdue.is_some() || !self.deferred.is_empty()
    }

    /// Looks what is due and how far it is.
    pub(super) fn look(&mut self, now: UtcNanos) -> Closed {
        let mut closed = Closed {
            work: self.hand_over(),
            done: false,
        };
        let Due { all, opened_before } = self.schedule.due(now);
        if all {
            self.wishes.close_all();
        }
        self.overdue = self.overdue.max(opened_before);
        if self.under_way.is_none() {
            let wished = self.wishes.take_close();
            if wished != 0 {
                self.tell(wished, now);
                closed.work += 1;
            }
        }
        if !self.deferred.is_empty() || (self.under_way.is_none() && self.overdue.is_none()) {
            return closed;
        }
        let Some(view) = self.ledger() else { return closed };
        closed.work += 1;
        match self.under_way {
            Some((since, slots)) if self.are_closed(&view, since, slots) => {
                (self.under_way, closed.done) = (None, true);
            }
            Some((since, _)) if now.since(since) >= CLOSING_NS_MAX => {
                tracing::warn!(
                    "a window was to close and is still open: a business day has 9,999 window numbers, and closes again \
                     when the next begins"
                );
                (self.under_way, closed.done) = (None, true);
            }
            Some(_) => {}
            None => {
                if let Some(before) = self.overdue.take() {
                    let slots = self.opened_before(&view, before);
                    if slots != 0 {
                        self.tell(slots, now);
                    }
                }
            }
        }
        closed
    }

    /// The answer to a question put before, or `None` until there is one.
    fn ledger(&mut self) -> Option<Box<LedgerView>> {
        if self.asked.is_none() {
            self.asked = self.desk.question(Wanted::Ledger);
        }
        match self.asked.as_ref()?.try_recv() {
            Ok(view) => {
                self.asked = None;
                Some(view)
            }
            Err(TryRecvError::Empty) => None,
            // Clearing has gone without an answer.
            Err(TryRecvError::Disconnected) => {
                self.asked = None;
                None
            }
        }
    }

    fn tell(&mut self, slots: u8, now: UtcNanos) {
        for (nth, &currency) in self.currencies.iter().enumerate() {
            if slots & (1 << nth) != 0 {
                let event = WindowEvent::new(WindowAction::Close, currency, WindowId::NONE);
                self.deferred.push_back(event);
            }
        }
        self.under_way = Some((now, slots));
        self.hand_over();
    }

    /// True when the open window of each of these currencies was opened by a close at `since` or later.
    fn are_closed(&self, view: &LedgerView, since: UtcNanos, slots: u8) -> bool {
        let told = self
            .currencies
            .iter()
            .enumerate()
            .filter(|(nth, _)| slots & (1 << nth) != 0);
        told.map(|(_, currency)| opened(view, *currency))
            .all(|opened| opened.is_some_and(|opened| opened >= since))
    }

    /// The currencies whose open window was opened before this.
    fn opened_before(&self, view: &LedgerView, before: UtcNanos) -> u8 {
        let overdue = |currency: &Currency| opened(view, *currency).is_some_and(|opened| opened < before);
        let nths = self.currencies.iter().enumerate();
        nths.filter(|(_, currency)| overdue(currency))
            .fold(0, |slots, (nth, _)| slots | (1 << nth))
    }

    /// Gives the sequencer what it has room for; the rest waits, in order.
    fn hand_over(&mut self) -> usize {
        let mut handed = 0;
        while let Some(&event) = self.deferred.front() {
            if self.priority.push(Intake::Window(event)).is_err() {
                break;
            }
            self.deferred.pop_front();
            handed += 1;
        }
        if handed > 0 {
            self.priority.notify();
        }
        handed
    }
}

/// When the currency's open window was opened.
fn opened(view: &LedgerView, currency: Currency) -> Option<UtcNanos> {
    let windows = view.snapshot.windows.iter().rev();
    let mut open = windows.filter(|window| window.currency == currency.0 && window.state == WindowState::Open);
    open.next().map(|window| window.opened)
}
