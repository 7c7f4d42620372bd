//! The engine: one event in, its effects out.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::duplicates::DuplicateIndex;
use super::exception::ExceptionItem;
use super::figures::Figures;
use super::participant::Participant;
use super::payment::PaymentRecord;
use super::refund::Refunds;
use super::reversal::Reversals;
use super::timer::Timers;
use super::window::Windows;
use crate::domain::{
    Currency, ParticipantTerms, PaymentId, PaymentSlot, Position, Role, SchemeTerms, UtcNanos, WindowId,
};
use crate::memory::ChunkedTable;
use crate::wire::{Effect, RecordKind, ReplyEvent, RequestEvent};

/// One event as it stands in the journal.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What it is; Group and Pad are not events.
    pub kind: RecordKind,
    /// Its number, from 1 without a gap.
    pub number: u64,
    /// The sequencer's time.
    pub time: UtcNanos,
    /// Where its payload lies in the journal.
    pub position: u64,
    /// The payload, aligned to at least 8 bytes.
    pub payload: &'a [u8],
}

/// Where the engine's effects go: the ring to dispatch live, nowhere in replay.
pub trait Outlet {
    /// Takes one effect; must not refuse it.
    fn emit(&mut self, effect: Effect);

    /// False when effects are thrown away, so that they need not be built.
    fn listens(&self) -> bool {
        true
    }
}

impl Outlet for Vec<Effect> {
    fn emit(&mut self, effect: Effect) {
        self.push(effect);
    }
}

/// Replay: effects were emitted when the event was live.
impl Outlet for () {
    fn emit(&mut self, _: Effect) {}

    fn listens(&self) -> bool {
        false
    }
}

/// An invariant that does not hold: intake stops, inquiries are still answered.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Breach {
    /// Invariant 1.
    #[error("invariant 1: the net positions of window {window} sum to {sum}, not 0")]
    ZeroSum {
        /// The window.
        window: WindowId,
        /// The sum, minor units.
        sum: Position,
    },
    /// Invariant 5.
    #[error("invariant 5: participants' reservations sum to {held}, open payments to {open}")]
    Reservations {
        /// Σ reserved over participants.
        held: Position,
        /// Σ amounts of open payments.
        open: Position,
    },
}

/// The whole ledger state.
#[derive(Debug)]
pub struct Engine {
    pub(super) scheme: SchemeTerms,
    pub(super) participants: Vec<Participant>,
    pub(super) payments: ChunkedTable<PaymentRecord>,
    pub(super) index: DuplicateIndex,
    pub(super) windows: Windows,
    pub(super) timers: Timers,
    pub(super) reversals: Reversals,
    pub(super) refunds: Refunds,
    /// Slot of a committed Bind → the mandate's token that its bank gave.
    pub(super) tokens: BTreeMap<u32, [u64; 2]>,
    /// Slots of the payments in doubt: derived, so that an operator's question reads no other payment.
    pub(super) doubtful: BTreeSet<u32>,
    pub(super) exceptions: Vec<ExceptionItem>,
    pub(super) figures: Figures,
    /// Σ amounts of open payments, kept apart from the accounts: invariant 5.
    pub(super) open_sum: Position,
    pub(super) event_number: u64,
    pub(super) time: UtcNanos,
    pub(super) breach: Option<Breach>,
    #[cfg(test)]
    pub(super) planted: Option<super::fault::Fault>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine that has seen no event.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scheme: bytemuck::Zeroable::zeroed(),
            participants: Vec::new(),
            payments: ChunkedTable::new(false),
            index: DuplicateIndex::new(),
            windows: Windows::default(),
            timers: Timers::default(),
            reversals: Reversals::default(),
            refunds: Refunds::default(),
            tokens: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            exceptions: Vec::new(),
            figures: Figures::default(),
            open_sum: 0,
            event_number: 0,
            time: UtcNanos(0),
            breach: None,
            #[cfg(test)]
            planted: None,
        }
    }

    /// An engine that has seen no event, with memory for so many payments mapped and faulted in: a page that is first
    /// touched while payments flow holds all of them up for as long as the host takes to give it.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn with_room_for(payments: usize) -> std::io::Result<Self> {
        let mut index = DuplicateIndex::new();
        index.reserve(payments)?;
        Ok(Self {
            payments: ChunkedTable::with_capacity(payments, false)?,
            index,
            ..Self::new()
        })
    }

    /// Applies the next event. Timers due at or before its time fire first; a Restart moves those of open payments
    /// before any of them fires.
    ///
    /// # Panics
    /// When events are not given in the order of their numbers, or money would be lost: a payment leaves a final state, a
    /// reservation falls below zero.
    pub fn apply<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        assert_eq!(
            event.number,
            self.event_number + 1,
            "events are applied in order, without a gap"
        );
        assert!(
            event.time >= self.time,
            "event {} is older than the one before it",
            event.number
        );
        self.event_number = event.number;
        self.time = event.time;
        if event.kind == RecordKind::Restart {
            // It moves every open deadline: nothing may expire before it was asked for.
            self.timers.clear_payment_timers();
        }
        while let Some(timer) = self.timers.pop_due(event.time, &self.payments) {
            self.fire(timer, out);
        }
        match event.kind {
            RecordKind::Request => self.request(event, out),
            RecordKind::Reply => self.reply(event, out),
            RecordKind::NotSent => self.not_sent(event, out),
            RecordKind::Tick => {}
            RecordKind::Window => self.window(event),
            RecordKind::Restart => self.restart(event.time, out),
            RecordKind::Genesis => self.genesis(event),
            RecordKind::Participant => self.participant(event),
            RecordKind::Group | RecordKind::Pad => unreachable!("not an event: {:?}", event.kind),
        }
    }

    /// Asks memory for what [`Engine::apply`] of this event, some events from now, will look up first.
    #[inline]
    pub fn prefetch(&self, event: &Event<'_>) {
        match event.kind {
            RecordKind::Request => self
                .index
                .prefetch(bytemuck::from_bytes::<RequestEvent>(event.payload).body.id),
            RecordKind::Reply => self
                .index
                .prefetch(bytemuck::from_bytes::<ReplyEvent>(event.payload).body.id),
            _ => {}
        }
    }

    /// The number of the last event applied.
    #[must_use]
    pub fn event_number(&self) -> u64 {
        self.event_number
    }

    /// The time of the last event applied.
    #[must_use]
    pub fn time(&self) -> UtcNanos {
        self.time
    }

    /// The counts.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The invariant that broke, if one did.
    #[must_use]
    pub fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// The earliest deadline at which a timer will change something; the sequencer journals a tick then if nothing else
    /// arrives.
    pub fn next_deadline(&mut self) -> UtcNanos {
        let reversals = &self.reversals;
        self.timers
            .next_deadline(&self.payments, |slot, deadline| reversals.is_due_at(slot, deadline))
    }

    /// How many participants Genesis announced; a crash in the first write may have left fewer. 0 = there was no Genesis.
    #[must_use]
    pub fn participants_announced(&self) -> usize {
        self.scheme.participant_count as usize
    }

    /// True when every currency of the scheme has an open window.
    #[must_use]
    pub fn has_open_windows(&self) -> bool {
        self.scheme
            .currencies
            .iter()
            .enumerate()
            .all(|(slot, &c)| c == 0 || self.windows.is_open(slot))
    }

    fn genesis(&mut self, event: &Event<'_>) {
        assert_eq!(event.number, 1, "Genesis is the first event");
        self.scheme = bytemuck::pod_read_unaligned(event.payload);
    }

    fn participant(&mut self, event: &Event<'_>) {
        let terms: ParticipantTerms = bytemuck::pod_read_unaligned(event.payload);
        assert_eq!(
            terms.index.index(),
            self.participants.len(),
            "participants are journaled in the order of numbers"
        );
        let role = Role::from_u8(terms.role).expect("the directory was checked before it was journaled");
        let class = self.timers.doubt_class(terms.doubt_ns);
        self.participants
            .push(Participant::new(terms, role, &self.scheme.currencies, class));
        self.windows.make_room(self.participants.len());
    }

    /// The payment with this id.
    pub(super) fn find(&self, id: PaymentId) -> Option<(PaymentSlot, &PaymentRecord)> {
        let slot = self.index.find(id)?;
        Some((slot, &self.payments[slot.index()]))
    }

    #[inline]
    pub(super) fn currency_slot(&self, currency: Currency) -> Option<usize> {
        self.scheme.currencies.iter().position(|&c| c == currency.0 && c != 0)
    }
}
