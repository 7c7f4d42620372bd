//! Closing windows: what schedule and operators want, told to the sequencer, and seen to have come about.
//!
//! A close is one event and holds nobody up. Clearing says when it has come about; until then nothing else is closed, so
//! that a time of day never closes a window that a close under way has just opened. The ledger is asked once, at the start.

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

/// A close that has not come about by then changed nothing: the day has no window number left.
const CLOSING_NS_MAX: u64 = 2 * SECOND;

/// Closes windows.
pub(super) struct Closing {
    schedule: CloseSchedule,
    /// The scheme's currencies, and when the open window of each was opened.
    currencies: Vec<(Currency, Option<UtcNanos>)>,
    wishes: Arc<Wishes>,
    desk: Desk,
    priority: Arc<Ring<Intake>>,
    asked: Option<Receiver<Box<LedgerView>>>,
    knows: bool,
    /// Windows opened before this are to be closed.
    overdue: Option<UtcNanos>,
    /// Currencies that were told to close and have not been seen to, and since when.
    under_way: Option<(UtcNanos, u8)>,
    /// Windows were closed, and nobody was told yet.
    done: bool,
    /// Events that found the sequencer's ring full.
    deferred: VecDeque<WindowEvent>,
}

impl Closing {
    pub(super) fn new(
        settings: &WindowSettings,
        now: UtcNanos,
        currencies: &[Currency],
        wishes: Arc<Wishes>,
        desk: Desk,
        priority: Arc<Ring<Intake>>,
    ) -> Self {
        Self {
            schedule: CloseSchedule::new(settings, now),
            currencies: currencies.iter().map(|&currency| (currency, None)).collect(),
            wishes,
            desk,
            priority,
            asked: None,
            knows: false,
            overdue: None,
            under_way: None,
            done: false,
            deferred: VecDeque::new(),
        }
    }

    /// When the schedule closes windows next.
    pub(super) fn next(&self) -> UtcNanos {
        self.schedule.next()
    }

    /// True when something is under way that nobody wakes the thread for.
    pub(super) fn waits(&self) -> bool {
        !self.knows || !self.deferred.is_empty()
    }

    /// When a close that is under way is given up.
    pub(super) fn gives_up_at(&self) -> UtcNanos {
        self.under_way
            .map_or(UtcNanos::NEVER, |(since, _)| since.plus(CLOSING_NS_MAX))
    }

    /// Clearing says that a currency's window has closed at `at`, and the next one opened.
    pub(super) fn closed(&mut self, currency: Currency, at: UtcNanos) {
        let Some(nth) = self.currencies.iter().position(|(known, _)| *known == currency) else {
            return;
        };
        self.currencies[nth].1 = Some(at);
        if let Some((since, slots)) = self.under_way {
            let left = slots & !(1 << nth);
            self.under_way = (left != 0).then_some((since, left));
        }
        self.done |= self.under_way.is_none();
    }

    /// True once after windows were closed.
    pub(super) fn take_done(&mut self) -> bool {
        std::mem::take(&mut self.done)
    }

    /// Looks what is due and tells the sequencer.
    pub(super) fn look(&mut self, now: UtcNanos) -> usize {
        let mut work = self.hand_over() + self.learn();
        let Due { all, opened_before } = self.schedule.due(now);
        if all {
            self.wishes.close_all();
        }
        self.overdue = self.overdue.max(opened_before);
        if now >= self.gives_up_at() {
            tracing::warn!(
                "a window was to close and is still open: a business day has 9,999 window numbers, and closes again when the \
                 next begins"
            );
            (self.under_way, self.done) = (None, true);
        }
        if self.under_way.is_some() || !self.knows {
            return work;
        }
        let mut slots = self.wishes.take_close();
        if let Some(before) = self.overdue.take() {
            for (nth, (_, opened)) in self.currencies.iter().enumerate() {
                slots |= u8::from(opened.is_some_and(|opened| opened < before)) << nth;
            }
        }
        if slots != 0 {
            self.tell(slots, now);
            work += 1;
        }
        work
    }

    /// Asks the ledger, once, when the open windows were opened.
    fn learn(&mut self) -> usize {
        if self.knows {
            return 0;
        }
        if self.asked.is_none() {
            self.asked = self.desk.question(Wanted::Ledger);
        }
        let Some(asked) = &self.asked else { return 0 };
        match asked.try_recv() {
            Ok(view) => {
                for (currency, known) in &mut self.currencies {
                    *known = known.or(opened(&view, *currency));
                }
                (self.asked, self.knows) = (None, true);
                1
            }
            Err(TryRecvError::Empty) => 0,
            // Clearing has gone without an answer.
            Err(TryRecvError::Disconnected) => {
                self.asked = None;
                0
            }
        }
    }

    fn tell(&mut self, slots: u8, now: UtcNanos) {
        let mut told = 0;
        for (nth, (currency, _)) in self.currencies.iter().enumerate() {
            if slots & (1 << nth) != 0 {
                told |= 1 << nth;
                let event = WindowEvent::new(WindowAction::Close, *currency, WindowId::NONE);
                self.deferred.push_back(event);
            }
        }
        self.under_way = (told != 0).then_some((now, told));
        self.hand_over();
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
