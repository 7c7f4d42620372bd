//! Which payments the engine holds, and which events wait for the register: what the auditor must know to say when a
//! request or a reply is decided about. It forgets no payment itself.

use std::collections::BTreeMap;

use super::books::Payment;
use crate::domain::{BusinessDate, ParticipantIndex, PaymentId, UtcNanos};
use crate::wire::{PaymentBody, ReplyBody};

/// A new payment looks at no more slots than this.
const LOOKED_AT_MAX: u32 = 4_096;

/// What waits.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "few wait at a time")]
pub(super) enum Waiting {
    /// A request and its content's digest.
    Request(PaymentBody, u64),
    /// A reply and who sent it.
    Reply(ParticipantIndex, ReplyBody),
}

impl Waiting {
    fn participant(&self) -> ParticipantIndex {
        match self {
            Self::Request(body, _) => body.id.originator(),
            Self::Reply(sender, _) => *sender,
        }
    }
}

/// The table's slots and the events that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Residency {
    /// R and the bound on one participant's waiting events.
    bounds: (u32, u32),
    /// A payment's place in the books, plus 1.
    slots: Vec<u32>,
    /// By a payment's place in the books: its slot.
    slot_of: Vec<u32>,
    cursor: u32,
    waiting: BTreeMap<u64, (PaymentId, Waiting)>,
    begun: BusinessDate,
    sealed: BusinessDate,
}

impl Residency {
    pub(super) fn new(resident_payments: u32, parked_max: u32, time: UtcNanos) -> Self {
        let today = time.business_date().day_number();
        Self {
            bounds: (resident_payments, parked_max),
            begun: BusinessDate::from_day_number(today.saturating_sub(1)),
            ..Self::default()
        }
    }

    /// The slot of the next payment: the first from the cursor on that holds no open one.
    pub(super) fn free_slot(&mut self, payments: &[Payment]) -> Option<u32> {
        for _ in 0..self.bounds.0.min(LOOKED_AT_MAX) {
            let slot = self.cursor;
            let held = self.slots.get(slot as usize).copied().unwrap_or(0);
            if held == 0 || payments[held as usize - 1].state.is_final() {
                return Some(slot);
            }
            self.cursor = (slot + 1) % self.bounds.0;
        }
        None
    }

    /// The payment at this place in the books takes the slot.
    pub(super) fn seat(&mut self, slot: u32, at: usize) {
        let slots = &mut self.slots;
        slots.resize(slots.len().max(slot as usize + 1), 0);
        slots[slot as usize] = at as u32 + 1;
        // Payments are written down one after the other.
        self.slot_of.resize(at + 1, u32::MAX);
        self.slot_of[at] = slot;
        self.cursor = (slot + 1) % self.bounds.0;
    }

    /// True when the engine must ask the register about an id, which is at this place in the books if it is there.
    pub(super) fn is_away(&self, id: PaymentId, at: Option<usize>) -> bool {
        let date = id.date();
        let held = |at: usize| {
            let slot = self.slot_of.get(at).and_then(|&slot| self.slots.get(slot as usize));
            slot.is_some_and(|&held| held == at as u32 + 1)
        };
        (self.begun <= date && date <= self.sealed) || at.is_some_and(|at| !held(at))
    }

    /// True when a request with this id waits.
    pub(super) fn waits(&self, id: PaymentId) -> bool {
        let mut requests = self.waiting.values();
        requests.any(|(_, waiting)| matches!(waiting, Waiting::Request(body, _) if body.id == id))
    }

    /// True while the event with this number waits.
    pub(super) fn is_waiting(&self, number: u64) -> bool {
        self.waiting.contains_key(&number)
    }

    /// False when too many events of the participant wait already.
    pub(super) fn park(&mut self, number: u64, looked_for: PaymentId, what: Waiting) -> bool {
        let whose = what.participant();
        let others = self.waiting.values().filter(|(_, other)| other.participant() == whose);
        let has_room = others.count() < self.bounds.1 as usize;
        if has_room {
            self.waiting.insert(number, (looked_for, what));
        }
        has_room
    }

    /// The event that waits for a finding about this payment.
    pub(super) fn resume(&mut self, number: u64, found: PaymentId) -> Option<Waiting> {
        self.waiting
            .get(&number)
            .filter(|(looked_for, _)| *looked_for == found)?;
        self.waiting.remove(&number).map(|(_, what)| what)
    }

    pub(super) fn sealed(&self) -> BusinessDate {
        self.sealed
    }

    pub(super) fn seal(&mut self, date: BusinessDate) {
        self.sealed = date;
    }
}
