//! The steward: closes windows, puts operators' orders in force in the links, and tells alarms of cover.
//!
//! It never waits for a file system and nobody waits for it, but the operators themselves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::closing::Closing;
use super::desk::Desk;
use super::orders::OrderDesk;
use super::tidings::{CoverAlarm, Ordered, Tiding};
use super::wishes::Wishes;
use crate::agent::{Agent, AgentError, RETRY_PAUSE, Ring, SwitchClock, Wakeup};
use crate::config::{DirectoryEntry, WindowSettings};
use crate::domain::{Currency, ParticipantTerms, UtcNanos};
use crate::journal::Positions;
use crate::link::Roster;
use crate::wire::{Intake, OrderAction, OrderOutcome};

/// The longest it sleeps: the switch's clock is slewed, and a time of day must not be missed by much.
const ROUND: Duration = Duration::from_secs(5);
/// How often it looks whether this start's own events are applied.
const START_ROUND: Duration = Duration::from_millis(2);
/// Alarms that are kept to be shown.
const ALARMS_KEPT: usize = 256;

/// What the steward is made of.
pub struct StewardParts {
    /// Where this start's own events end: nothing is closed before they are applied.
    pub ready_at: u64,
    /// The journal's positions.
    pub positions: Arc<Positions>,
    /// Closes go to the sequencer by this.
    pub priority: Arc<Ring<Intake>>,
    /// From clearing.
    pub tidings: Arc<Ring<Tiding>>,
    /// Where operators wait.
    pub orders: Arc<OrderDesk>,
    /// Who may sign on.
    pub roster: Arc<Roster>,
    /// Where the ledger is asked for.
    pub desk: Desk,
    /// The scheme's currencies.
    pub currencies: Vec<Currency>,
    /// When windows close.
    pub windows: WindowSettings,
    /// True where no settler sees by itself that a window has closed.
    pub settles_at_once: bool,
    /// What operators wish.
    pub wishes: Arc<Wishes>,
    /// Wakes who settles what was closed.
    pub settler: Arc<Wakeup>,
    /// What it shows of itself.
    pub view: Arc<StewardView>,
    /// The clock.
    pub clock: SwitchClock,
}

/// What the steward shows of itself.
#[derive(Debug)]
pub struct StewardView {
    /// When windows close next, UTC nanoseconds; `u64::MAX` = when an operator asks.
    pub next_close_ns: AtomicU64,
    /// Alarms that rose since the start.
    pub alarms_raised: AtomicU64,
    /// Alarms that fell since the start.
    pub alarms_fallen: AtomicU64,
    /// Alarms that were not told, because too many came at once.
    pub alarms_left_out: AtomicU64,
    /// Orders decided about since the start.
    pub orders: AtomicU64,
    alarms: Mutex<VecDeque<CoverAlarm>>,
}

impl Default for StewardView {
    fn default() -> Self {
        Self {
            next_close_ns: AtomicU64::new(u64::MAX),
            alarms_raised: AtomicU64::new(0),
            alarms_fallen: AtomicU64::new(0),
            alarms_left_out: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            alarms: Mutex::default(),
        }
    }
}

impl StewardView {
    /// The newest alarms, in the order in which they came.
    #[must_use]
    pub fn alarms(&self) -> Vec<CoverAlarm> {
        let alarms = self.alarms.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        alarms.iter().copied().collect()
    }

    fn note(&self, alarm: CoverAlarm) {
        let mut alarms = self.alarms.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if alarms.len() == ALARMS_KEPT {
            alarms.pop_front();
        }
        alarms.push_back(alarm);
    }
}

/// The steward.
pub struct Steward {
    parts: StewardParts,
    closing: Closing,
    ready: bool,
}

impl Steward {
    /// Puts the agent together.
    #[must_use]
    pub fn new(parts: StewardParts) -> Self {
        let closing = Closing::new(
            &parts.windows,
            parts.clock.now(),
            &parts.currencies,
            Arc::clone(&parts.wishes),
            Arc::clone(&parts.desk),
            Arc::clone(&parts.priority),
        );
        Self {
            closing,
            ready: false,
            parts,
        }
    }

    fn close_windows(&mut self, now: UtcNanos) -> usize {
        let work = self.closing.look(now);
        if self.closing.take_done() && self.parts.windows.settle {
            // The settler takes this for an operator's word, which ends every pause: it is not said to it by a clock.
            if self.parts.settles_at_once {
                self.parts.wishes.settle.store(true, Ordering::Release);
            }
            self.parts.settler.wake();
        }
        self.parts
            .view
            .next_close_ns
            .store(self.closing.next().0, Ordering::Relaxed);
        work
    }

    fn take_tidings(&mut self) -> usize {
        let mut work = 0;
        while let Some(tiding) = self.parts.tidings.pop() {
            work += 1;
            match tiding {
                Tiding::Ordered(ordered) => self.ordered(ordered),
                Tiding::Alarm(alarm) => self.alarm(alarm),
                Tiding::Closed { currency, at } => self.closing.closed(currency, at),
            }
        }
        work
    }

    /// First in force in the links, then told to who ordered it.
    fn ordered(&self, ordered: Ordered) {
        self.parts.view.orders.fetch_add(1, Ordering::Relaxed);
        if ordered.outcome == OrderOutcome::Done
            && let Some(action) = OrderAction::from_u8(ordered.action)
            && let Some(terms) = ordered.terms
        {
            match action {
                OrderAction::Add | OrderAction::Amend | OrderAction::Suspend => self.put_in_force(terms, &ordered),
                OrderAction::CoverIn | OrderAction::CoverOut | OrderAction::SetCap => {}
            }
        }
        self.parts.orders.became(ordered);
    }

    fn put_in_force(&self, terms: ParticipantTerms, ordered: &Ordered) {
        let joins = self.parts.orders.joins(ordered.reference);
        let code = terms.code;
        let put = self.parts.roster.put(terms.index, |known| {
            Some(match known.or(joins) {
                Some(known) => DirectoryEntry { terms, ..known },
                // Nobody said what it signs on with: the next start finds that in the directory.
                None => DirectoryEntry {
                    terms,
                    name: code.text(),
                    cnaps: None,
                    bic: None,
                    credential_hash: [0; 32],
                },
            })
        });
        if !put {
            tracing::warn!("participant {code} joined and can sign on after the next start of the switch");
        }
    }

    fn alarm(&self, alarm: CoverAlarm) {
        let entry = self.parts.roster.entry(alarm.participant);
        let code = entry.map_or_else(|| alarm.participant.to_string(), |entry| entry.terms.code.text());
        let (currency, percent) = (alarm.currency.alphabetic(), alarm.level_bp / 100);
        if alarm.level_bp > alarm.before_bp {
            self.parts.view.alarms_raised.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                used_minor = alarm.used_minor,
                cap_minor = alarm.cap_minor,
                "cover alarm: {code} has used {percent} % of its cap in {currency} or more; at all of it, what it would owe is \
                 refused with code 13"
            );
        } else {
            self.parts.view.alarms_fallen.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                used_minor = alarm.used_minor,
                cap_minor = alarm.cap_minor,
                "cover alarm over: {code} in {currency}, from {} % to {percent} %",
                alarm.before_bp / 100
            );
        }
        self.parts.view.note(alarm);
    }
}

impl Agent for Steward {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let now = self.parts.clock.now();
        let mut work = self.take_tidings();
        if !self.ready && self.parts.positions.applied() >= self.parts.ready_at {
            self.ready = true;
            work += 1;
        }
        if self.ready {
            work += self.close_windows(now);
        }
        Ok(work)
    }

    fn role_name(&self) -> &str {
        "steward"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        if !self.ready {
            return Some(START_ROUND);
        }
        if self.closing.waits() {
            return Some(RETRY_PAUSE);
        }
        let next = self.closing.next().min(self.closing.gives_up_at());
        let until = next.since(self.parts.clock.now());
        Some(Duration::from_nanos(until).min(ROUND))
    }
}
