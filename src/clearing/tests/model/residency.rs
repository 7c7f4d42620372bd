//! Which payments the engine holds, in the model: a ring of slots; and what waits for the register. The model itself
//! forgets nothing: it is what the register must know.

use super::reference::{Model, ReversalStatus};
use super::said::Said;
use crate::domain::{BusinessDate, Code, LinkId, ParticipantIndex, PaymentId, SECOND, UtcNanos};
use crate::wire::{DaySealedEvent, FindingEvent, ReplyEvent, RequestEvent};

/// An event that waits.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) event: u64,
    pub(super) looked_for: PaymentId,
    pub(super) what: Waits,
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a test")]
pub(super) enum Waits {
    Request(RequestEvent, u64),
    Reply(ReplyEvent),
}

impl Waits {
    fn whose(&self) -> ParticipantIndex {
        match self {
            Self::Request(event, _) => event.body.id.originator(),
            Self::Reply(event) => ParticipantIndex(event.sender),
        }
    }
}

impl Model {
    /// A new payment takes the first slot from the cursor on that has no open payment; none may be free.
    pub(super) fn free_slot(&mut self) -> Option<usize> {
        let bound = self.scheme.resident_payments as usize;
        self.slots.resize(bound, None);
        for _ in 0..bound {
            let slot = self.cursor;
            let free = self.slots[slot].is_none_or(|nth| self.payments[nth].state.is_final());
            if free {
                return Some(slot);
            }
            self.cursor = (slot + 1) % bound;
        }
        None
    }

    pub(super) fn seat(&mut self, slot: usize, nth: usize) {
        if self.slots[slot].is_some() {
            self.rows.insert("a payment makes room");
        }
        self.slots[slot] = Some(nth);
        self.cursor = (slot + 1) % self.slots.len();
    }

    /// True when the payment's record is still in the engine's table.
    pub(super) fn is_resident(&self, id: PaymentId) -> bool {
        let resident = self.slots.iter().flatten();
        resident.into_iter().any(|&nth| self.payments[nth].body.id == id)
    }

    /// True when the engine can say nothing of an id without the register: the payment has gone, or the date is sealed.
    pub(super) fn is_away(&self, id: PaymentId) -> bool {
        let sealed = id.date() <= self.sealed && id.date() >= self.begun;
        sealed || (self.find(id).is_some() && !self.is_resident(id))
    }

    pub(super) fn waits(&self, id: PaymentId) -> bool {
        let requests = self.waiting.iter().filter_map(|waiting| match &waiting.what {
            Waits::Request(event, _) => Some(event.body.id),
            Waits::Reply(_) => None,
        });
        requests.into_iter().any(|own| own == id)
    }

    /// At most `parked_max` events of one participant wait: one more request is told 37, one more reply is dropped.
    pub(super) fn park(&mut self, looked_for: PaymentId, what: Waits) {
        let whose = what.whose();
        let count = self.waiting.iter().filter(|other| other.what.whose() == whose).count();
        if count >= self.scheme.parked_max as usize {
            match what {
                Waits::Request(event, _) => {
                    self.rows.insert("37: too many wait");
                    self.not_taken(&event);
                }
                Waits::Reply(_) => {
                    self.rows.insert("reply dropped");
                    self.figures.replies_dropped += 1;
                }
            }
            return;
        }
        self.rows.insert(match &what {
            Waits::Request(event, _) if event.body.id == looked_for => "a repetition waits",
            Waits::Request(..) => "a refund waits",
            Waits::Reply(_) => "a reply waits",
        });
        self.figures.parked += 1;
        self.figures.look_ups += 1;
        let event = self.number;
        self.waiting.push(Waiting {
            event,
            looked_for,
            what,
        });
        self.out.push(Said::LookUp { event, id: looked_for });
    }

    pub(super) fn not_taken(&mut self, event: &RequestEvent) {
        self.figures.not_taken += 1;
        self.unremembered(event, &event.body, Code::NotTaken);
    }

    /// What waits goes on at the time of the finding, by what was found; a finding for which nothing waits is void.
    pub(super) fn finding(&mut self, finding: &FindingEvent) {
        let fits = |waiting: &Waiting| (waiting.event, waiting.looked_for) == (finding.event, finding.id);
        let Some(nth) = self.waiting.iter().position(fits) else {
            self.rows.insert("a void finding");
            return;
        };
        let waiting = self.waiting.remove(nth);
        self.figures.parked -= 1;
        match waiting.what {
            Waits::Request(event, position) => {
                if waiting.looked_for != event.body.id {
                    self.rows.insert("a refund goes on");
                    self.new_request(&event, position, true);
                } else if let Some(nth) = self.find(event.body.id) {
                    self.rows.insert("a repetition goes on");
                    self.known_request(nth, &event);
                } else {
                    self.rows.insert("a repetition of nothing");
                    self.date_not_open(&event);
                }
            }
            Waits::Reply(event) => {
                self.rows.insert("a reply goes on");
                self.word_of_bank(&event);
            }
        }
    }

    /// What waits asks again, by whichever link is there.
    pub(super) fn ask_register_again(&mut self) {
        for waiting in &mut self.waiting {
            self.rows.insert("what waits asks again");
            match &mut waiting.what {
                Waits::Request(event, _) => event.stamp.link = LinkId::NONE.0,
                Waits::Reply(event) => event.link = LinkId::NONE.0,
            }
            let (event, id) = (waiting.event, waiting.looked_for);
            self.out.push(Said::LookUp { event, id });
        }
    }

    /// Ids up to the date are forgotten, and Reversals that were taken of payments that nobody may refund any more. A date
    /// that is or was not over, or has open payments, is not sealed.
    pub(super) fn day_sealed(&mut self, event: &DaySealedEvent) {
        let day = |time: UtcNanos| time.business_date();
        let over = event.date < day(self.time) && !self.time.is_open_date(event.date);
        let open = |date: BusinessDate| date <= event.date;
        let any_open = self
            .payments
            .iter()
            .any(|payment| !payment.state.is_final() && open(payment.body.id.date()));
        if !over || any_open || event.date <= self.sealed {
            self.rows.insert("not sealed");
            return;
        }
        self.rows.insert("sealed");
        self.sealed = event.date;
        let days = u64::from(self.scheme.refund_days);
        let first = day(UtcNanos(self.time.0 - days * 86_400 * SECOND));
        for payment in &mut self.payments {
            let forgotten = payment.body.id.date() < first.min(self.sealed);
            if forgotten
                && payment
                    .reversal
                    .as_ref()
                    .is_some_and(|reversal| reversal.status == ReversalStatus::Acknowledged)
            {
                payment.reversal = None;
            }
        }
    }
}
