//! The bank's words, and the final states they and NotSent lead to.

use super::engine::{Engine, Event, Outlet};
use super::exception::ExceptionKind;
use super::figures::Figures;
use super::finding::Known;
use super::invariant::Breach;
use super::outbox::Word;
use super::participant::Participant;
use super::payment::PaymentRecord;
use super::reversal::ReversalState;
use crate::domain::{
    Code, Direction, Kind, LinkId, ParticipantIndex, PaymentId, PaymentSlot, PaymentState, UtcNanos, WindowId,
};
use crate::wire::{
    Answer, Effect, EffectFrame, NotSentEvent, Regarding, ReplyEvent, ReplyOutcome, TerminateCode, WordEntry, WordKind,
};

impl Engine {
    pub(super) fn reply<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let reply: &ReplyEvent = bytemuck::from_bytes(event.payload);
        let id = reply.body.id;
        match self.known(id) {
            Known::Resident(slot) => {
                let payment = self.payments[slot];
                self.word_of_bank(Some(slot), &payment, reply, event.time, out);
            }
            Known::Away => match self.reversals.get(id).map(|reversal| reversal.payment) {
                Some(payment) => self.word_of_bank(None, &payment, reply, event.time, out),
                None => self.park_reply(reply, out),
            },
            Known::Nowhere => self.refuse_reply(reply, TerminateCode::ReplyNotEntitled, out),
        }
    }

    /// A bank's word about `payment`, which is in `slot` or is final and has gone from the table.
    pub(super) fn word_of_bank<O: Outlet>(
        &mut self,
        slot: Option<PaymentSlot>,
        payment: &PaymentRecord,
        reply: &ReplyEvent,
        time: UtcNanos,
        out: &mut O,
    ) {
        let body = &reply.body;
        let entitled = payment.responder.0 == reply.sender
            && payment.amount_minor == body.amount_minor
            && payment.currency == body.currency
            && payment.state != PaymentState::Rejected as u8;
        let (true, Some(outcome), Some(regarding)) = (
            entitled,
            ReplyOutcome::from_u8(body.outcome),
            Regarding::from_u8(body.regarding),
        ) else {
            self.refuse_reply(reply, TerminateCode::ReplyNotEntitled, out);
            return;
        };
        match (regarding, outcome) {
            (Regarding::Request | Regarding::Status, ReplyOutcome::Yes) => match slot {
                Some(slot) if payment.is_open() => self.commit(slot, body.token, time, out),
                _ => self.late_yes(payment, slot, time, out),
            },
            (Regarding::Request | Regarding::Status, ReplyOutcome::No) => {
                let code = Code::from_u8(body.code)
                    .filter(|c| c.is_bank_refusal())
                    .unwrap_or(Code::BankDeclined);
                self.bank_says_no(slot, payment, code, time, out);
            }
            (Regarding::Status, ReplyOutcome::NeverSeen) => {
                self.bank_says_no(slot, payment, Code::LinkDown, time, out);
            }
            (Regarding::Reversal, ReplyOutcome::Acknowledged) => match self.reversals.get_mut(payment.id) {
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

    pub(super) fn refuse_reply<O: Outlet>(&mut self, reply: &ReplyEvent, code: TerminateCode, out: &mut O) {
        self.figures.replies_refused += 1;
        out.emit(Effect::Cut {
            link: LinkId(reply.link),
            code,
        });
    }

    /// The bank says yes to a payment that is final.
    fn late_yes<O: Outlet>(&mut self, payment: &PaymentRecord, slot: Option<PaymentSlot>, time: UtcNanos, out: &mut O) {
        self.figures.late_words += 1;
        match payment.state() {
            PaymentState::Committed => {}
            PaymentState::Expired => match payment.direction() {
                Direction::Pull => self.make_sure_of_reversal(payment, slot, time, out),
                // The bank of a push has its final notice, and credits nobody.
                Direction::Push | Direction::None => {}
            },
            PaymentState::Declined => {
                self.figures.conflicts += 1;
                self.note_exception(payment.id, ExceptionKind::DeclinedThenYes);
                match payment.direction() {
                    Direction::Pull => self.make_sure_of_reversal(payment, slot, time, out),
                    Direction::Push | Direction::None => {}
                }
            }
            PaymentState::Reserved | PaymentState::InDoubt => unreachable!("an open payment is in the table"),
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    fn bank_says_no<O: Outlet>(
        &mut self,
        slot: Option<PaymentSlot>,
        payment: &PaymentRecord,
        code: Code,
        time: UtcNanos,
        out: &mut O,
    ) {
        match payment.state() {
            PaymentState::Reserved | PaymentState::InDoubt => {
                let slot = slot.expect("an open payment is in the table");
                self.close_without_money(slot, PaymentState::Declined, code, time, out);
                self.tell_responder(slot, out);
            }
            PaymentState::Committed => {
                self.figures.late_words += 1;
                self.figures.conflicts += 1;
                self.note_exception(payment.id, ExceptionKind::CommittedThenNo);
            }
            PaymentState::Declined | PaymentState::Expired => self.figures.late_words += 1,
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    pub(super) fn not_sent<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let not_sent: &NotSentEvent = bytemuck::from_bytes(event.payload);
        let Known::Resident(slot) = self.known(not_sent.id) else {
            return;
        };
        if self.payments[slot].is_open() {
            let code = Code::from_u8(not_sent.code).unwrap_or(Code::SwitchError);
            // Its bank never heard of it, so there is no final notice either.
            self.close_without_money(slot, PaymentState::Expired, code, event.time, out);
        }
    }

    /// One step: release, post, stamp the window, answer. `token` is the one in the bank's yes.
    fn commit<O: Outlet>(&mut self, slot: PaymentSlot, token: [u64; 2], time: UtcNanos, out: &mut O) {
        // What the debtor uses is the same afterwards: it was reserved, and is owed.
        let _ = self.release(slot, out);
        let payment = &mut self.payments[slot];
        let currency_slot = usize::from(payment.currency_slot);
        let amount = payment.amount().as_position();
        let window = self
            .windows
            .open_mut(currency_slot)
            .unwrap_or_else(|| panic!("payment {} commits and its currency has no open window", payment.id));
        let posted_in = window.id;
        payment.finish(PaymentState::Committed, Code::Committed, time, posted_in);
        // Read in place: a copy would wait for the stores above to reach the cache.
        let payment = &*payment;
        let (is_refund, makes_mandate) = (payment.is_kind(Kind::Refund), payment.makes_mandate());
        count_outcome(&mut self.figures, &mut self.participants, payment);
        let mut falls = None;
        match payment.parties() {
            Some(parties) => {
                window.post(parties.debtor, parties.creditor, amount);
                self.participants[parties.debtor.index()].accounts[currency_slot].position += amount;
                let creditor = &mut self.participants[parties.creditor.index()].accounts[currency_slot];
                creditor.position -= amount;
                falls = (creditor.used() < creditor.falls_below).then_some(parties.creditor);
            }
            None => window.count(),
        }
        let mut related = [0; 2];
        if is_refund {
            #[cfg(test)]
            self.spoil_refund(slot);
            related = bytemuck::cast(self.refunds.keep(slot));
        } else if makes_mandate {
            self.tokens.insert(slot.0, token);
            related = token;
        }
        self.figures.committed += 1;
        #[cfg(test)]
        self.spoil_posting(slot);
        let payment = &self.payments[slot];
        if payment.expiry_or_window != posted_in.0 {
            let (payment, stamped) = (payment.id, payment.window());
            self.note_breach(Breach::Stamp {
                payment,
                stamped,
                open: posted_in,
            });
        }
        if let Some(creditor) = falls {
            self.alarm(creditor, currency_slot, out);
        }
        self.note_final(slot, related, out);
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
        if let Some((debtor, currency_slot)) = self.release(slot, out) {
            self.alarm(debtor, currency_slot, out);
        }
        let payment = &mut self.payments[slot];
        payment.finish(state, code, time, WindowId::NONE);
        let payment = &*payment;
        count_outcome(&mut self.figures, &mut self.participants, payment);
        let mut related = [0; 2];
        if payment.is_kind(Kind::Refund) {
            related = bytemuck::cast(self.refunds.give_back(slot, payment.amount_minor));
        }
        let timed_out = code == Code::BankTimeout;
        if timed_out && payment.direction() == Direction::Pull {
            self.tally.expired_pulls += 1;
        }
        match state {
            PaymentState::Declined => self.figures.declined += 1,
            PaymentState::Expired => self.figures.expired += 1,
            PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Committed | PaymentState::Rejected => {
                unreachable!("closed without money as {state:?}")
            }
        }
        self.note_final(slot, related, out);
        self.tell_initiator(slot, WordKind::Answer, out);
    }

    /// Gives back the reservation and the place on the bank's link of an open payment. Gives the debtor and the currency's
    /// slot, if use has fallen below a threshold of the alarm.
    #[inline]
    fn release<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) -> Option<(ParticipantIndex, usize)> {
        let payment = &self.payments[slot];
        let mut falls = None;
        if let Some(parties) = payment.parties() {
            let currency_slot = usize::from(payment.currency_slot);
            let account = &mut self.participants[parties.debtor.index()].accounts[currency_slot];
            account.release(payment.amount());
            falls = (account.used() < account.falls_below).then_some((parties.debtor, currency_slot));
            self.open_sum -= payment.amount().as_position();
        }
        if payment.state == PaymentState::Reserved as u8 {
            self.figures.reserved -= 1;
        } else {
            self.figures.in_doubt -= 1;
            self.doubtful.remove(&(payment.time_ns, slot.0));
        }
        self.open_dates.remove(payment.id.date());
        #[cfg(test)]
        self.spoil_release(slot);
        out.emit(Effect::Release { slot });
        falls
    }

    /// A payment is final: it goes into the running digest and to the register.
    #[inline]
    pub(super) fn note_final<O: Outlet>(&mut self, slot: PaymentSlot, related: [u64; 2], out: &mut O) {
        let payment = &self.payments[slot];
        self.digest.add_final(payment);
        self.tally.finals += 1;
        if out.keeps_register() {
            out.registered(&payment.entry(self.payments.place(slot), related));
        }
    }

    /// Gives the next word to a participant its number. One outside the directory has no session and no outbox.
    #[inline]
    pub(super) fn number_word<O: Outlet>(
        &mut self,
        to: ParticipantIndex,
        kind: WordKind,
        id: PaymentId,
        slot: Option<PaymentSlot>,
        out: &mut O,
    ) -> Option<u64> {
        let participant = self.participants.get_mut(to.index())?;
        let about = slot.map(|slot| (slot, self.payments.generation(slot)));
        let (taken, bound) = (self.payments.taken(), self.payments.bound());
        let number = participant.outbox.push(Word { kind, about }, taken, bound);
        if out.keeps_register() {
            out.worded(&WordEntry {
                number,
                id,
                participant: to,
                kind: kind as u8,
                attempts: 0,
                reserved: [0; 4],
            });
        }
        Some(number)
    }

    #[inline]
    pub(super) fn tell_initiator<O: Outlet>(&mut self, slot: PaymentSlot, kind: WordKind, out: &mut O) {
        #[cfg(test)]
        self.spoil_word(slot, out);
        self.tally.answers += u64::from(kind == WordKind::Answer);
        let payment = &self.payments[slot];
        let (initiator, id, via) = (payment.initiator(), payment.id, payment.link());
        let Some(word) = self.number_word(initiator, kind, id, Some(slot), out) else {
            return;
        };
        if out.listens() {
            let answer = self.final_answer(slot, word, 0);
            out.emit(Effect::Frame(EffectFrame::new(initiator, via, &answer)));
        }
    }

    /// The answer to a payment that is final: the same whenever it is told, but for its number and flags.
    #[inline]
    pub(super) fn final_answer(&self, slot: PaymentSlot, word: u64, flags: u8) -> Answer {
        let payment = &self.payments[slot];
        let mut answer = payment.answer(word, payment.code, flags);
        answer.mandate_token = self.mandate_token(slot, payment);
        answer
    }

    /// The token that a committed Bind in `slot` brought.
    #[inline]
    pub(super) fn mandate_token(&self, slot: PaymentSlot, payment: &PaymentRecord) -> [u64; 2] {
        if payment.is_kind(Kind::Bind) {
            self.tokens.get(&slot.0).copied().unwrap_or_default()
        } else {
            [0; 2]
        }
    }

    /// Tells the bank of a push what became of it: only after this it credits, or knows that it must not.
    #[inline]
    pub(super) fn tell_responder<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        let payment = &self.payments[slot];
        if payment.direction() != Direction::Push {
            return;
        }
        #[cfg(test)]
        if self.spoils_notice(slot) {
            return;
        }
        let (bank, id) = (payment.responder, payment.id);
        let Some(word) = self.number_word(bank, WordKind::FinalNotice, id, Some(slot), out) else {
            return;
        };
        if out.listens() {
            let notice = self.payments[slot].final_notice(word, 0);
            out.emit(Effect::Frame(EffectFrame::new(bank, LinkId::NONE, &notice)));
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
