//! The engine: one event in, its effects out.

use std::collections::{BTreeMap, BTreeSet};

use super::duplicates::DuplicateIndex;
use super::exception::ExceptionItem;
use super::figures::Figures;
use super::invariant::{Breach, Tally};
use super::mark::Digest;
use super::order::Orders;
use super::parked::Parking;
use super::participant::Participant;
use super::refund::Refunds;
use super::residents::{OpenDates, Residents};
use super::reversal::Reversals;
use super::timer::Timers;
use super::window::Windows;
use crate::domain::{BusinessDate, Currency, ParticipantTerms, PaymentId, Position, SchemeTerms, UtcNanos};
use crate::wire::{
    ClosedWindow, CoverMovement, Effect, RecordKind, RegisterEntry, ReplyEvent, RequestEvent, WordEntry,
};

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

    /// True when a register is kept from this engine's events: [`Outlet::registered`] and [`Outlet::worded`] are called.
    fn keeps_register(&self) -> bool {
        false
    }

    /// Takes a payment that has just become final; its words follow.
    fn registered(&mut self, _entry: &RegisterEntry) {}

    /// Takes a word that was just given its number.
    fn worded(&mut self, _word: &WordEntry) {}

    /// Takes a window that has just closed.
    fn closed(&mut self, _window: &ClosedWindow<'_>) {}

    /// Takes a change of a participant's cover. Those of one event come in the order of the participants' numbers.
    fn cover_moved(&mut self, _movement: &CoverMovement) {}

    /// Takes what a Reversal was that is forgotten: its word once more, and when it was raised last.
    fn forgotten(&mut self, _word: &WordEntry, _raised: UtcNanos) {}
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

/// The whole ledger state.
#[derive(Debug)]
pub struct Engine {
    pub(super) scheme: SchemeTerms,
    pub(super) participants: Vec<Participant>,
    pub(super) payments: Residents,
    pub(super) index: DuplicateIndex,
    pub(super) windows: Windows,
    pub(super) timers: Timers,
    pub(super) reversals: Reversals,
    pub(super) refunds: Refunds,
    /// Slot of a committed Bind → the mandate's token that its bank gave.
    pub(super) tokens: BTreeMap<u32, [u64; 2]>,
    /// Acceptance and slot of the payments in doubt: derived, so that an operator's question reads no other payment.
    pub(super) doubtful: BTreeSet<(u64, u32)>,
    pub(super) exceptions: Vec<ExceptionItem>,
    /// Payment → bits of its exception items: derived.
    pub(super) excepted: BTreeMap<PaymentId, u8>,
    pub(super) parking: Parking,
    pub(super) orders: Orders,
    /// Derived from the table.
    pub(super) open_dates: OpenDates,
    /// The first business date of which there can be payments.
    pub(super) begun: BusinessDate,
    /// The last sealed business date; 0 = none.
    pub(super) sealed: BusinessDate,
    /// Over every payment as it became final, and every window's events.
    pub(super) digest: Digest,
    pub(super) figures: Figures,
    /// Σ amounts of open payments, kept apart from the accounts: invariant 5.
    pub(super) open_sum: Position,
    /// Counts kept apart from the figures: invariants 6 and 9.
    pub(super) tally: Tally,
    pub(super) event_number: u64,
    pub(super) time: UtcNanos,
    pub(super) breach: Option<Breach>,
    /// The table's memory is set aside at Genesis.
    pub(super) sets_aside: bool,
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
            payments: Residents::default(),
            index: DuplicateIndex::new(),
            windows: Windows::default(),
            timers: Timers::default(),
            reversals: Reversals::default(),
            refunds: Refunds::default(),
            tokens: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            exceptions: Vec::new(),
            excepted: BTreeMap::new(),
            parking: Parking::default(),
            orders: Orders::default(),
            open_dates: OpenDates::default(),
            begun: BusinessDate(0),
            sealed: BusinessDate(0),
            digest: Digest::default(),
            figures: Figures::default(),
            open_sum: 0,
            tally: Tally::default(),
            event_number: 0,
            time: UtcNanos(0),
            breach: None,
            sets_aside: false,
            #[cfg(test)]
            planted: super::fault::planted(),
        }
    }

    /// An engine that has seen no event, with memory for the ids of so many payments mapped and faulted in, which sets
    /// aside that for its table when Genesis says how large it is: a page that is first touched while payments flow holds
    /// all of them up for as long as the host takes to give it.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn with_room_for(payments: usize) -> std::io::Result<Self> {
        let mut index = DuplicateIndex::new();
        index.reserve(payments)?;
        Ok(Self {
            index,
            sets_aside: true,
            ..Self::new()
        })
    }

    /// Sets aside, for an engine that was loaded, what [`Engine::with_room_for`] does for a new one.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn set_aside(&mut self, payments: usize) -> std::io::Result<()> {
        self.index.reserve(payments.saturating_sub(self.index.len()))?;
        self.payments.set_aside()
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
            RecordKind::Window => self.window(event, out),
            RecordKind::Restart => self.restart(event.time, out),
            RecordKind::Finding => self.finding(event, out),
            RecordKind::DaySealed => self.day_sealed(event, out),
            RecordKind::Genesis => self.genesis(event),
            RecordKind::Participant => self.participant(event, out),
            RecordKind::Order => self.order(event, out),
            RecordKind::Group | RecordKind::Pad => unreachable!("not an event: {:?}", event.kind),
        }
        if !self.tally.agrees() {
            self.tally_differs();
        }
    }

    /// Asks memory for what [`Engine::apply`] of this event, some events from now, will look up first.
    #[inline]
    pub fn prefetch(&self, event: &Event<'_>) {
        match event.kind {
            RecordKind::Request => self
                .index
                .prefetch_insert(bytemuck::from_bytes::<RequestEvent>(event.payload).body.id),
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
            .next_deadline(&self.payments, |id, deadline| reversals.is_due_at(id, deadline))
    }

    /// How many participants Genesis announced; a crash in the first write may have left fewer. 0 = there was no Genesis.
    #[must_use]
    pub fn participants_announced(&self) -> usize {
        self.scheme.participant_count as usize
    }

    /// The version of the rules that Genesis stated; 0 before it.
    #[must_use]
    pub const fn rules_version(&self) -> u32 {
        self.scheme.rules_version
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
        let bound = self.scheme.resident_payments;
        assert!(
            bound.is_power_of_two() && bound <= SchemeTerms::RESIDENT_PAYMENTS_MAX,
            "resident_payments = {bound} is no power of two up to {}: the directory was checked before it was journaled",
            SchemeTerms::RESIDENT_PAYMENTS_MAX
        );
        self.payments = Residents::new(bound, self.sets_aside)
            .unwrap_or_else(|error| panic!("no memory for a table of {bound} payments (resident_payments): {error}"));
        let today = event.time.business_date().day_number();
        self.begun = BusinessDate::from_day_number(today.saturating_sub(1));
    }

    fn participant<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let terms: ParticipantTerms = bytemuck::pod_read_unaligned(event.payload);
        assert_eq!(
            terms.index.index(),
            self.participants.len(),
            "participants are journaled in the order of numbers"
        );
        self.add_participant(&terms, event, out);
    }

    #[inline]
    pub(super) fn currency_slot(&self, currency: Currency) -> Option<usize> {
        self.scheme.currencies.iter().position(|&c| c == currency.0 && c != 0)
    }
}
