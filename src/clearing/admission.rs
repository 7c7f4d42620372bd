//! Admission: a request becomes Reserved or Rejected, or is found to be a repetition.

use super::engine::{Engine, Event, Outlet};
use super::outbox::WordKind;
use super::payment::{PaymentRecord, parties};
use super::reply::count_outcome;
use crate::domain::{
    Code, Direction, Kind, LinkId, ParticipantIndex, PaymentSlot, PaymentState, Role, UtcNanos, WindowId,
};
use crate::wire::{AnswerFlags, Effect, EffectFrame, PaymentBody, RequestEvent, content_digest};

impl Engine {
    pub(super) fn request<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let request: &RequestEvent = bytemuck::from_bytes(event.payload);
        let body = &request.body;
        let digest = content_digest(event.payload);
        if let Some(slot) = self.index.find(body.id) {
            self.repeated(slot, digest, request.link(), out);
            return;
        }
        if !event.time.is_open_date(body.id.date()) {
            self.figures.dates_not_open += 1;
            let mut record = new_record(body, digest, request.stamp.link, event.time);
            record.code = Code::DateNotOpen as u8;
            self.tell(&record, Code::DateNotOpen, request.link(), out);
            return;
        }
        let admission = self.admit(body, event.time);
        let slot = PaymentSlot(self.payments.len() as u32);
        let mut record = new_record(body, digest, request.stamp.link, event.time);
        self.index.insert(body.id, slot);
        match admission {
            Err(code) => {
                record.finish(PaymentState::Rejected, code, event.time, WindowId::NONE);
                self.payments.push(record);
                self.figures.rejected += 1;
                count_outcome(&mut self.figures, &mut self.participants, &record);
                self.tell_initiator(slot, WordKind::Answer, out);
            }
            Ok(admitted) => {
                record.currency_slot = admitted.currency_slot;
                record.expiry_or_window = event.time.plus(admitted.expiry_ns).0;
                self.payments.push(record);
                if let Some(debtor) = admitted.debtor {
                    let debtor = &mut self.participants[debtor.index()];
                    debtor.accounts[usize::from(admitted.currency_slot)].reserve(record.amount());
                    self.open_sum += record.amount().as_position();
                }
                if let Some(original) = admitted.original {
                    self.refunds.take(slot, original, record.amount_minor);
                }
                #[cfg(test)]
                self.spoil_acceptance(slot, body);
                self.timers.start_doubt(admitted.doubt_class, slot);
                self.figures.accepted += 1;
                self.figures.reserved += 1;
                out.emit(Effect::Forward {
                    slot,
                    responder: record.responder,
                    position: event.position,
                    accepted: event.time,
                    wait_ns: admitted.wait_ns,
                });
            }
        }
    }

    /// The rules a new payment must pass, in the order in which they are told.
    #[inline]
    fn admit(&self, body: &PaymentBody, time: UtcNanos) -> Result<Admitted, Code> {
        let initiator_index = body.id.originator();
        let initiator = self
            .participants
            .get(initiator_index.index())
            .ok_or(Code::UnknownParticipant)?;
        let responder = self
            .participants
            .get(body.responder.index())
            .ok_or(Code::UnknownParticipant)?;
        if body.responder == initiator_index {
            return Err(Code::OnUs);
        }
        if !initiator.may_initiate() {
            return Err(Code::InitiatorSuspended);
        }
        if !responder.may_be_asked() {
            return Err(Code::ResponderSuspended);
        }
        let kind = body.kind().ok_or(Code::KindNotPermitted)?;
        let roles_fit = initiator.role == Role::Institution && responder.role == Role::Bank;
        if !roles_fit || !initiator.terms.permits(kind) || !responder.terms.permits(kind) {
            return Err(Code::KindNotPermitted);
        }
        let currency_slot = self.currency_slot(body.currency()).ok_or(Code::CurrencyNotOpen)?;
        if !initiator.accounts[currency_slot].open
            || !responder.accounts[currency_slot].open
            || !self.windows.is_open(currency_slot)
        {
            return Err(Code::CurrencyNotOpen);
        }
        let amount = body.amount();
        if (amount.0 == 0) != (kind.direction() == Direction::None) {
            return Err(Code::AmountInvalid);
        }
        if amount.0 > self.scheme.maximum_minor {
            return Err(Code::OverSchemeMaximum);
        }
        let over = |limit: u64| limit != 0 && amount.0 > limit;
        if over(initiator.terms.payment_limit_minor) || over(responder.terms.payment_limit_minor) {
            return Err(Code::OverAgreedLimit);
        }
        let original = if kind == Kind::Refund {
            Some(self.refundable(body, time)?)
        } else {
            None
        };
        let debtor = parties(kind, initiator_index, body.responder).map(|parties| parties.debtor);
        let over_cap =
            debtor.is_some_and(|debtor| !self.participants[debtor.index()].accounts[currency_slot].admits(amount));
        #[cfg(test)]
        let over_cap = over_cap && !self.gets_wrong(super::fault::Fault::AdmitOverCap);
        if over_cap {
            return Err(Code::CoverExceeded);
        }
        Ok(Admitted {
            debtor,
            original,
            currency_slot: currency_slot as u8,
            expiry_ns: responder.expiry_ns(kind),
            wait_ns: responder.terms.wait_ns,
            doubt_class: responder.doubt_class,
        })
    }

    /// A request whose id is known.
    fn repeated<O: Outlet>(&mut self, slot: PaymentSlot, digest: u64, via: LinkId, out: &mut O) {
        let payment = self.payments[slot.index()];
        if payment.digest != digest {
            self.figures.ids_reused += 1;
            self.tell(&payment, Code::IdReused, via, out);
        } else if payment.is_open() {
            self.figures.duplicates += 1;
            self.tell(&payment, Code::InProgress, via, out);
        } else {
            self.figures.duplicates += 1;
            let initiator = payment.initiator();
            // An originator outside the directory has no session and no outbox.
            let Some(participant) = self.participants.get_mut(initiator.index()) else {
                return;
            };
            let word = participant.outbox.push(WordKind::DuplicateAnswer, slot);
            if out.listens() {
                let answer = self.final_answer(slot, word, AnswerFlags::DUPLICATE);
                out.emit(Effect::Frame(EffectFrame::new(initiator, via, &answer)));
            }
        }
    }

    /// An unnumbered answer, by the link that asked. An originator outside the directory can not be told.
    fn tell<O: Outlet>(&self, payment: &PaymentRecord, code: Code, via: LinkId, out: &mut O) {
        let initiator = payment.initiator();
        if initiator.index() >= self.participants.len() {
            return;
        }
        let mut answer = payment.answer(0, code as u8, 0);
        if code == Code::DateNotOpen || code == Code::IdReused {
            (answer.state, answer.window, answer.final_ns) = (0, WindowId::NONE, 0);
        }
        out.emit(Effect::Frame(EffectFrame::new(initiator, via, &answer)));
    }
}

/// What admission found out about an accepted payment.
struct Admitted {
    /// Who will owe, where money moves.
    debtor: Option<ParticipantIndex>,
    /// What a Refund gives back.
    original: Option<PaymentSlot>,
    currency_slot: u8,
    expiry_ns: u64,
    wait_ns: u64,
    doubt_class: usize,
}

#[inline]
fn new_record(body: &PaymentBody, digest: u64, link: u32, time: UtcNanos) -> PaymentRecord {
    PaymentRecord {
        id: body.id,
        digest,
        amount_minor: body.amount_minor,
        time_ns: time.0,
        expiry_or_window: 0,
        link,
        responder: body.responder,
        currency: body.currency,
        kind: body.kind,
        scene: body.scene,
        state: PaymentState::Reserved as u8,
        code: Code::InProgress as u8,
        attempts: 0,
        currency_slot: 0,
        step: body.step,
        exceptions: 0,
    }
}
