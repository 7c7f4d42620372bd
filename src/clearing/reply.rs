//! The bank's words, and the final states they and NotSent lead to.

use super::engine::{Engine, Event, Outlet};
use super::outbox::WordKind;
use super::reversal::ReversalState;
use crate::domain::{Code, LinkId, PaymentSlot, PaymentState, UtcNanos, WindowId};
use crate::wire::{Effect, EffectFrame, NotSentEvent, Regarding, ReplyEvent, ReplyOutcome, TerminateCode};

impl Engine {
    pub(super) fn reply<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let reply: &ReplyEvent = bytemuck::from_bytes(event.payload);
        let body = &reply.body;
        let payments = &self.payments;
        let found = self.index.find(body.id, |slot| payments[slot.index()].id == body.id);
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
            self.figures.replies_refused += 1;
            out.emit(Effect::Cut {
                link: LinkId(reply.link),
                code: TerminateCode::ReplyNotEntitled,
            });
            return;
        };
        match (regarding, outcome) {
            (Regarding::Reversal, ReplyOutcome::Acknowledged) => {
                if let Some(reversal) = self.reversals.get_mut(slot) {
                    reversal.state = ReversalState::Acknowledged;
                }
            }
            (Regarding::Reversal, ReplyOutcome::Yes | ReplyOutcome::No | ReplyOutcome::NeverSeen)
            | (Regarding::Request | Regarding::Status, ReplyOutcome::Acknowledged) => {
                self.figures.replies_refused += 1;
                out.emit(Effect::Cut {
                    link: LinkId(reply.link),
                    code: TerminateCode::FieldInvalid,
                });
            }
            (Regarding::Request | Regarding::Status, ReplyOutcome::Yes) => self.bank_says_yes(slot, event.time, out),
            (Regarding::Request | Regarding::Status, ReplyOutcome::No) => {
                let code = Code::from_u8(body.code)
                    .filter(|c| c.is_bank_refusal())
                    .unwrap_or(Code::BankDeclined);
                self.bank_says_no(slot, code, event.time, out);
            }
            (Regarding::Request | Regarding::Status, ReplyOutcome::NeverSeen) => {
                self.bank_says_no(slot, Code::LinkDown, event.time, out);
            }
        }
    }

    fn bank_says_yes<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        let payment = self.payments[slot.index()];
        match payment.state() {
            PaymentState::Reserved | PaymentState::InDoubt => self.commit(slot, time, out),
            PaymentState::Committed => self.figures.late_words += 1,
            PaymentState::Expired => {
                self.figures.late_words += 1;
                if payment.is_pull() {
                    self.make_sure_of_reversal(slot, time, out);
                }
            }
            PaymentState::Declined => {
                self.figures.late_words += 1;
                self.figures.conflicts += 1;
                if payment.is_pull() {
                    self.make_sure_of_reversal(slot, time, out);
                }
            }
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    fn bank_says_no<O: Outlet>(&mut self, slot: PaymentSlot, code: Code, time: UtcNanos, out: &mut O) {
        match self.payments[slot.index()].state() {
            PaymentState::Reserved | PaymentState::InDoubt => {
                self.close_without_money(slot, PaymentState::Declined, code, time, out);
            }
            PaymentState::Committed => {
                self.figures.late_words += 1;
                self.figures.conflicts += 1;
            }
            PaymentState::Declined | PaymentState::Expired => self.figures.late_words += 1,
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    pub(super) fn not_sent<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let not_sent: &NotSentEvent = bytemuck::from_bytes(event.payload);
        let payments = &self.payments;
        let Some(slot) = self
            .index
            .find(not_sent.id, |slot| payments[slot.index()].id == not_sent.id)
        else {
            return;
        };
        if self.payments[slot.index()].is_open() {
            let code = Code::from_u8(not_sent.code).unwrap_or(Code::SwitchError);
            self.close_without_money(slot, PaymentState::Expired, code, event.time, out);
        }
    }

    /// One step: release, post, stamp the window, answer.
    fn commit<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        self.release(slot, out);
        let payment = &mut self.payments[slot.index()];
        let currency_slot = usize::from(payment.currency_slot);
        let amount = payment.amount().as_position();
        let window = self
            .windows
            .open_mut(currency_slot)
            .unwrap_or_else(|| panic!("payment {} commits and its currency has no open window", payment.id));
        payment.finish(PaymentState::Committed, Code::Committed, time, window.id);
        if let Some(parties) = payment.parties() {
            window.post(parties.debtor, parties.creditor, amount);
            self.participants[parties.debtor.index()].accounts[currency_slot].position += amount;
            self.participants[parties.creditor.index()].accounts[currency_slot].position -= amount;
        }
        let scene = payment.scene;
        self.figures.committed += 1;
        self.count_outcome(scene, Code::Committed);
        self.tell_initiator(slot, WordKind::Answer, out);
    }

    /// Declined or Expired: release, answer.
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
        let scene = payment.scene;
        match state {
            PaymentState::Declined => self.figures.declined += 1,
            PaymentState::Expired => self.figures.expired += 1,
            PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Committed | PaymentState::Rejected => {
                unreachable!("closed without money as {state:?}")
            }
        }
        self.count_outcome(scene, code);
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
        }
        out.emit(Effect::Release { slot });
    }

    #[inline]
    pub(super) fn tell_initiator<O: Outlet>(&mut self, slot: PaymentSlot, kind: WordKind, out: &mut O) {
        let payment = &self.payments[slot.index()];
        let initiator = payment.initiator();
        // An originator outside the directory has no session and no outbox.
        let Some(participant) = self.participants.get_mut(initiator.index()) else {
            return;
        };
        let word = participant.outbox.push(kind, slot);
        if out.listens() {
            let answer = payment.answer(word, payment.code, 0);
            out.emit(Effect::Frame(EffectFrame::new(initiator, payment.link(), &answer)));
        }
    }

    pub(super) fn count_outcome(&mut self, scene: u8, code: Code) {
        self.figures.by_code[code as usize] += 1;
        let scene = &mut self.figures.by_scene[usize::from(scene & 7)];
        scene[0] += 1;
        scene[1] += u64::from(code == Code::Committed);
    }
}
