//! The bank's words, and the final states they and NotSent lead to.

use super::engine::{Engine, Event, Outlet};
use super::exception::ExceptionKind;
use super::figures::Figures;
use super::outbox::WordKind;
use super::participant::Participant;
use super::payment::PaymentRecord;
use super::reversal::ReversalState;
use crate::domain::{Code, Direction, Kind, LinkId, PaymentSlot, PaymentState, UtcNanos, WindowId};
use crate::wire::{Answer, Effect, EffectFrame, NotSentEvent, Regarding, ReplyEvent, ReplyOutcome, TerminateCode};

impl Engine {
    pub(super) fn reply<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let reply: &ReplyEvent = bytemuck::from_bytes(event.payload);
        let body = &reply.body;
        let payments = &self.payments;
        let found = self.index.find(body.id);
        let entitled = found.filter(|slot| {
            let payment = &payments[slot.index()];
            payment.responder.0 == reply.sender
                && payment.amount_minor == body.amount_minor
                && payment.currency == body.currency
                && payment.state != PaymentState::Rejected as u8
        });
        let (Some(slot), Some(outcome), Some(regarding)) = (
            entitled,
            ReplyOutcome::from_u8(body.outcome),
            Regarding::from_u8(body.regarding),
        ) else {
            self.refuse_reply(reply, TerminateCode::ReplyNotEntitled, out);
            return;
        };
        match (regarding, outcome) {
            (Regarding::Request | Regarding::Status, ReplyOutcome::Yes) => {
                self.bank_says_yes(slot, body.token, event.time, out);
            }
            (Regarding::Request | Regarding::Status, ReplyOutcome::No) => {
                let code = Code::from_u8(body.code)
                    .filter(|c| c.is_bank_refusal())
                    .unwrap_or(Code::BankDeclined);
                self.bank_says_no(slot, code, event.time, out);
            }
            (Regarding::Status, ReplyOutcome::NeverSeen) => {
                self.bank_says_no(slot, Code::LinkDown, event.time, out);
            }
            (Regarding::Reversal, ReplyOutcome::Acknowledged) => match self.reversals.get_mut(slot) {
                Some(reversal) => reversal.state = ReversalState::Acknowledged,
                None => self.refuse_reply(reply, TerminateCode::FieldInvalid, out),
            },
            (Regarding::Request, ReplyOutcome::NeverSeen)
            | (Regarding::Request | Regarding::Status, ReplyOutcome::Acknowledged)
            | (Regarding::Reversal, ReplyOutcome::Yes | ReplyOutcome::No | ReplyOutcome::NeverSeen) => {
                self.refuse_reply(reply, TerminateCode::FieldInvalid, out);
            }
        }
    }

    fn refuse_reply<O: Outlet>(&mut self, reply: &ReplyEvent, code: TerminateCode, out: &mut O) {
        self.figures.replies_refused += 1;
        out.emit(Effect::Cut {
            link: LinkId(reply.link),
            code,
        });
    }

    fn bank_says_yes<O: Outlet>(&mut self, slot: PaymentSlot, token: [u64; 2], time: UtcNanos, out: &mut O) {
        let payment = self.payments[slot.index()];
        match payment.state() {
            PaymentState::Reserved | PaymentState::InDoubt => self.commit(slot, token, time, out),
            PaymentState::Committed => self.figures.late_words += 1,
            PaymentState::Expired => {
                self.figures.late_words += 1;
                match payment.direction() {
                    Direction::Pull => self.make_sure_of_reversal(slot, time, out),
                    // The bank of a push has its final notice, and credits nobody.
                    Direction::Push | Direction::None => {}
                }
            }
            PaymentState::Declined => {
                self.figures.late_words += 1;
                self.figures.conflicts += 1;
                self.note_exception(slot, ExceptionKind::DeclinedThenYes);
                match payment.direction() {
                    Direction::Pull => self.make_sure_of_reversal(slot, time, out),
                    Direction::Push | Direction::None => {}
                }
            }
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    fn bank_says_no<O: Outlet>(&mut self, slot: PaymentSlot, code: Code, time: UtcNanos, out: &mut O) {
        match self.payments[slot.index()].state() {
            PaymentState::Reserved | PaymentState::InDoubt => {
                self.close_without_money(slot, PaymentState::Declined, code, time, out);
                self.tell_responder(slot, out);
            }
            PaymentState::Committed => {
                self.figures.late_words += 1;
                self.figures.conflicts += 1;
                self.note_exception(slot, ExceptionKind::CommittedThenNo);
            }
            PaymentState::Declined | PaymentState::Expired => self.figures.late_words += 1,
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    pub(super) fn not_sent<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let not_sent: &NotSentEvent = bytemuck::from_bytes(event.payload);
        let Some(slot) = self.index.find(not_sent.id) else {
            return;
        };
        if self.payments[slot.index()].is_open() {
            let code = Code::from_u8(not_sent.code).unwrap_or(Code::SwitchError);
            // Its bank never heard of it, so there is no final notice either.
            self.close_without_money(slot, PaymentState::Expired, code, event.time, out);
        }
    }

    /// One step: release, post, stamp the window, answer. `token` is the one in the bank's yes.
    fn commit<O: Outlet>(&mut self, slot: PaymentSlot, token: [u64; 2], time: UtcNanos, out: &mut O) {
        self.release(slot, out);
        let payment = &mut self.payments[slot.index()];
        let currency_slot = usize::from(payment.currency_slot);
        let amount = payment.amount().as_position();
        let window = self
            .windows
            .open_mut(currency_slot)
            .unwrap_or_else(|| panic!("payment {} commits and its currency has no open window", payment.id));
        payment.finish(PaymentState::Committed, Code::Committed, time, window.id);
        // Read in place: a copy would wait for the stores above to reach the cache.
        let payment = &*payment;
        let (is_refund, makes_mandate) = (payment.is_kind(Kind::Refund), payment.makes_mandate());
        count_outcome(&mut self.figures, &mut self.participants, payment);
        match payment.parties() {
            Some(parties) => {
                window.post(parties.debtor, parties.creditor, amount);
                self.participants[parties.debtor.index()].accounts[currency_slot].position += amount;
                self.participants[parties.creditor.index()].accounts[currency_slot].position -= amount;
            }
            None => window.count(),
        }
        if is_refund {
            #[cfg(test)]
            self.spoil_refund(slot);
            self.refunds.keep(slot);
        } else if makes_mandate {
            self.tokens.insert(slot.0, token);
        }
        self.figures.committed += 1;
        #[cfg(test)]
        self.spoil_posting(slot);
        self.tell_initiator(slot, WordKind::Answer, out);
        #[cfg(test)]
        self.spoil_answer(slot, out);
        self.tell_responder(slot, out);
    }

    /// Declined or Expired: release, answer. The caller tells the bank of a push, if anything was sent to it.
    pub(super) fn close_without_money<O: Outlet>(
        &mut self,
        slot: PaymentSlot,
        state: PaymentState,
        code: Code,
        time: UtcNanos,
        out: &mut O,
    ) {
        self.release(slot, out);
        let payment = &mut self.payments[slot.index()];
        payment.finish(state, code, time, WindowId::NONE);
        let payment = &*payment;
        count_outcome(&mut self.figures, &mut self.participants, payment);
        if payment.is_kind(Kind::Refund) {
            self.refunds.give_back(slot, payment.amount_minor);
        }
        match state {
            PaymentState::Declined => self.figures.declined += 1,
            PaymentState::Expired => self.figures.expired += 1,
            PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Committed | PaymentState::Rejected => {
                unreachable!("closed without money as {state:?}")
            }
        }
        self.tell_initiator(slot, WordKind::Answer, out);
    }

    /// Gives back the reservation and the place on the bank's link of an open payment.
    #[inline]
    fn release<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        let payment = &self.payments[slot.index()];
        if let Some(parties) = payment.parties() {
            let account = &mut self.participants[parties.debtor.index()].accounts[usize::from(payment.currency_slot)];
            account.release(payment.amount());
            self.open_sum -= payment.amount().as_position();
        }
        if payment.state == PaymentState::Reserved as u8 {
            self.figures.reserved -= 1;
        } else {
            self.figures.in_doubt -= 1;
            self.doubtful.remove(&slot.0);
        }
        #[cfg(test)]
        self.spoil_release(slot);
        out.emit(Effect::Release { slot });
    }

    #[inline]
    pub(super) fn tell_initiator<O: Outlet>(&mut self, slot: PaymentSlot, kind: WordKind, out: &mut O) {
        #[cfg(test)]
        self.spoil_word(slot, out);
        let payment = &self.payments[slot.index()];
        let initiator = payment.initiator();
        // An originator outside the directory has no session and no outbox.
        let Some(participant) = self.participants.get_mut(initiator.index()) else {
            return;
        };
        let word = participant.outbox.push(kind, slot);
        if out.listens() {
            let via = payment.link();
            let answer = self.final_answer(slot, word, 0);
            out.emit(Effect::Frame(EffectFrame::new(initiator, via, &answer)));
        }
    }

    /// The answer to a payment that is final: the same whenever it is told, but for its number and flags.
    #[inline]
    pub(super) fn final_answer(&self, slot: PaymentSlot, word: u64, flags: u8) -> Answer {
        let payment = &self.payments[slot.index()];
        let mut answer = payment.answer(word, payment.code, flags);
        if payment.is_kind(Kind::Bind) {
            answer.mandate_token = self.tokens.get(&slot.0).copied().unwrap_or_default();
        }
        answer
    }

    /// Tells the bank of a push what became of it: only after this it credits, or knows that it must not.
    #[inline]
    pub(super) fn tell_responder<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        let payment = &self.payments[slot.index()];
        if payment.direction() != Direction::Push {
            return;
        }
        #[cfg(test)]
        if self.spoils_notice(slot) {
            return;
        }
        let bank = &mut self.participants[payment.responder.index()];
        let word = bank.outbox.push(WordKind::FinalNotice, slot);
        if out.listens() {
            let notice = payment.final_notice(word, 0);
            out.emit(Effect::Frame(EffectFrame::new(
                payment.responder,
                LinkId::NONE,
                &notice,
            )));
        }
    }
}

/// Counts a payment that has just become final.
#[inline]
pub(super) fn count_outcome(figures: &mut Figures, participants: &mut [Participant], payment: &PaymentRecord) {
    let committed = u64::from(payment.state == PaymentState::Committed as u8);
    let count = |figure: &mut [u64; 2]| {
        figure[0] += 1;
        figure[1] += committed;
    };
    figures.by_code[usize::from(payment.code)] += 1;
    count(&mut figures.by_scene[usize::from(payment.scene & 7)]);
    let kind = if payment.kind <= Kind::Unbind as u8 {
        payment.kind
    } else {
        0
    };
    count(&mut figures.by_kind[usize::from(kind)]);
    let (initiator, responder) = (payment.initiator(), payment.responder);
    if let Some(initiator) = participants.get_mut(initiator.index()) {
        count(&mut initiator.success.as_initiator);
    }
    if responder != initiator
        && let Some(responder) = participants.get_mut(responder.index())
    {
        count(&mut responder.success.as_responder);
    }
}
