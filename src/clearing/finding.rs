//! Payments that the engine holds no more: what is known of them, who waits for them, what the register found.

use super::admission::Arrived;
use super::duplicates::Vacancy;
use super::engine::{Engine, Event, Outlet};
use super::invariant::Breach;
use super::parked::Parked;
use super::payment::PaymentRecord;
use super::refund::Original;
use crate::domain::{BusinessDate, Code, PaymentId, PaymentSlot};
use crate::wire::{DaySealedEvent, Effect, FindingEvent, ReplyEvent, TerminateCode, WordEntry, WordKind};

/// What the engine knows of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// The payment is in this slot.
    Resident(PaymentSlot),
    /// It has gone from the table, or its date is sealed and there may have been one: the register knows.
    Away,
    /// There is none.
    Nowhere,
}

impl Engine {
    /// What the engine knows of an id: exact, but for a sealed date's.
    #[inline]
    pub(super) fn known(&self, id: PaymentId) -> Known {
        self.known_or_vacant(id).0
    }

    /// The same, and where the id would be put if it is new.
    #[inline]
    pub(super) fn known_or_vacant(&self, id: PaymentId) -> (Known, Vacancy) {
        let (slot, vacancy) = self.index.look(id);
        let known = match slot {
            Some(slot) if self.payments.get(slot).is_some_and(|payment| payment.id == id) => Known::Resident(slot),
            Some(_) => Known::Away,
            None if self.may_be_sealed(id.date()) => Known::Away,
            None => Known::Nowhere,
        };
        (known, vacancy)
    }

    #[inline]
    fn may_be_sealed(&self, date: BusinessDate) -> bool {
        date <= self.sealed && date >= self.begun
    }

    /// A request waits for what the register knows of `looked_for`.
    pub(super) fn park_request<O: Outlet>(&mut self, arrived: &Arrived<'_>, looked_for: PaymentId, out: &mut O) {
        let what = Parked::Request {
            request: *arrived.request,
            position: arrived.position,
        };
        if !self.park(looked_for, what, out) {
            self.not_taken(arrived, out);
        }
    }

    /// A bank's word waits for what the register knows of its payment.
    pub(super) fn park_reply<O: Outlet>(&mut self, reply: &ReplyEvent, out: &mut O) {
        if !self.park(reply.body.id, Parked::Reply(*reply), out) {
            self.figures.replies_dropped += 1;
        }
    }

    fn park<O: Outlet>(&mut self, looked_for: PaymentId, what: Parked, out: &mut O) -> bool {
        let parked = self
            .parking
            .park(self.event_number, looked_for, what, self.scheme.parked_max);
        let Some(look_up) = parked else { return false };
        self.figures.parked += 1;
        self.figures.look_ups += 1;
        out.emit(Effect::LookUp(look_up));
        true
    }

    /// What waits goes on, with what was found, at the time of the finding. One for which nothing waits is void.
    pub(super) fn finding<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let finding: &FindingEvent = bytemuck::from_bytes(event.payload);
        let Some(what) = self.parking.resume(finding.event, finding.id) else {
            return;
        };
        self.figures.parked -= 1;
        let entry = finding.facts();
        let found = entry.map(PaymentRecord::of_entry);
        let missing = found.is_none() && self.index.find(finding.id).is_some();
        if missing {
            self.note_breach(Breach::Register { payment: finding.id });
        }
        match what {
            Parked::Request { request, position } => {
                let arrived = Arrived::new(&request, position, event.time, true);
                if missing {
                    self.not_taken(&arrived, out);
                } else if request.body.id != finding.id {
                    self.admit_or_refuse(&arrived, Original::Found(found.as_ref()), out);
                } else if let (Some(payment), Some(entry)) = (found, entry) {
                    self.repeated(&payment, None, entry.mandate_token(), &arrived, out);
                } else {
                    self.date_not_open(&arrived, out);
                }
            }
            Parked::Reply(reply) => match found {
                Some(payment) => self.word_of_bank(None, &payment, &reply, event.time, out),
                None => self.refuse_reply(&reply, TerminateCode::ReplyNotEntitled, out),
            },
        }
    }

    /// Neither taken nor refused for good: a retry keeps the id.
    pub(super) fn not_taken<O: Outlet>(&mut self, arrived: &Arrived<'_>, out: &mut O) {
        self.figures.not_taken += 1;
        self.tell(&arrived.record(), Code::NotTaken, arrived.via(), out);
    }

    /// Forgets the ids of every date up to the sealed one, and what can concern nobody any more. A date that can still
    /// have new payments or has open ones is not sealed: the event is void.
    pub(super) fn day_sealed<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let sealed: &DaySealedEvent = bytemuck::from_bytes(event.payload);
        let fits = sealed.fits(event.time) && sealed.date > self.sealed;
        if !fits || self.open_dates.any_through(sealed.date) {
            return;
        }
        self.sealed = sealed.date;
        self.index.drop_through(sealed.date);
        self.open_dates.forget_through(sealed.date);
        let today = event.time.business_date().day_number();
        let first = today.saturating_sub(u64::from(self.scheme.refund_days));
        let first = BusinessDate::from_day_number(first);
        self.refunds.forget_before(first);
        for reversal in self.reversals.forget_before(first.min(self.sealed)) {
            let word = WordEntry {
                number: reversal.word,
                id: reversal.payment.id,
                participant: reversal.payment.responder,
                kind: WordKind::Reversal as u8,
                attempts: reversal.attempts,
                reserved: [0; 4],
            };
            out.forgotten(&word, reversal.raised);
        }
    }

    /// The last business date of which every payment is final and in the register; 0 = none yet.
    #[must_use]
    pub fn sealed(&self) -> BusinessDate {
        self.sealed
    }
}
