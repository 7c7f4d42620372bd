//! The ladder of a payment in doubt: T1, status requests, T2, Reversals, and what a restart does to all of them.

use super::engine::{Engine, Outlet};
use super::exception::ExceptionKind;
use super::outbox::WordKind;
use super::reversal::{ReversalObject, ReversalState, reversal_frame};
use super::timer::{Timer, TimerKind};
use crate::domain::{Code, Direction, Kind, LinkId, PaymentSlot, PaymentState, SECOND, UtcNanos};
use crate::wire::{Effect, EffectFrame, Frame, FrameHeader, StatusRequest};

/// Status requests follow the first at these times after a payment came in doubt.
const STATUS_REPEATS_NS: [u64; 2] = [10 * SECOND, 40 * SECOND];
/// At most this many status requests a payment.
const STATUS_REQUESTS_MAX: u8 = 3;

impl Engine {
    /// Every open payment is in doubt and asked for anew. Its old timers were forgotten when the event came.
    pub(super) fn restart<O: Outlet>(&mut self, time: UtcNanos, out: &mut O) {
        if self.figures.open() == 0 {
            return;
        }
        for index in 0..self.payments.len() {
            let slot = PaymentSlot(index as u32);
            let payment = self.payments[index];
            if !payment.is_open() {
                continue;
            }
            let responder = &self.participants[payment.responder.index()];
            let kind = Kind::from_u8(payment.kind).expect("an open payment's kind was checked at admission");
            let ladder_ns = responder.expiry_ns(kind).saturating_sub(responder.terms.doubt_ns);
            let expiry = payment.expiry().max(time.plus(ladder_ns));
            let record = &mut self.payments[index];
            record.expiry_or_window = expiry.0;
            record.attempts = 0;
            // A link's number means nothing beyond the run that gave it: the answer goes by whichever link is up.
            record.link = LinkId::NONE.0;
            self.enter_doubt(slot, time, out);
        }
    }

    pub(super) fn fire<O: Outlet>(&mut self, timer: Timer, out: &mut O) {
        let slot = timer.slot;
        let payment = self.payments[slot.index()];
        match timer.kind {
            TimerKind::Doubt => {
                if payment.state == PaymentState::Reserved as u8 {
                    self.enter_doubt(slot, timer.deadline, out);
                }
            }
            TimerKind::Status => {
                if payment.state == PaymentState::InDoubt as u8 && timer.deadline < payment.expiry() {
                    self.ask_status(slot, out);
                }
            }
            TimerKind::Expiry => {
                if payment.state == PaymentState::InDoubt as u8 && payment.expiry() <= timer.deadline {
                    self.close_without_money(slot, PaymentState::Expired, Code::BankTimeout, timer.deadline, out);
                    match payment.direction() {
                        Direction::Pull => self.make_sure_of_reversal(slot, timer.deadline, out),
                        Direction::Push => self.tell_responder(slot, out),
                        Direction::None => {}
                    }
                }
            }
            TimerKind::Reversal => {
                if self.reversals.is_due_at(slot, timer.deadline) {
                    self.send_reversal(slot, out);
                }
            }
        }
    }

    /// Reserved → InDoubt (or asked anew after a restart): the reservation is kept and the bank is asked.
    fn enter_doubt<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        let payment = &mut self.payments[slot.index()];
        if payment.state == PaymentState::Reserved as u8 {
            payment.state = PaymentState::InDoubt as u8;
            self.doubtful.insert(slot.0);
            self.figures.reserved -= 1;
            self.figures.in_doubt += 1;
        }
        let (id, expiry) = (payment.id, payment.expiry());
        self.ask_status(slot, out);
        for repeat_ns in STATUS_REPEATS_NS {
            let deadline = time.plus(repeat_ns);
            if deadline < expiry {
                self.timers.start(Timer {
                    deadline,
                    id,
                    kind: TimerKind::Status,
                    slot,
                });
            }
        }
        self.timers.start(Timer {
            deadline: expiry,
            id,
            kind: TimerKind::Expiry,
            slot,
        });
    }

    fn ask_status<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        let payment = &mut self.payments[slot.index()];
        if payment.attempts >= STATUS_REQUESTS_MAX {
            return;
        }
        payment.attempts += 1;
        self.figures.status_requests += 1;
        let request = StatusRequest {
            header: FrameHeader::new(StatusRequest::TEMPLATE, size_of::<StatusRequest>()),
            id: payment.id,
            amount_minor: payment.amount_minor,
            currency: payment.currency,
            kind: payment.kind,
            attempt: payment.attempts,
            initiator: payment.initiator(),
            reserved: [0; 2],
            accepted_ns: payment.time_ns,
            reserved2: 0,
        };
        out.emit(Effect::Frame(EffectFrame::new(
            payment.responder,
            LinkId::NONE,
            &request,
        )));
    }

    pub(super) fn make_sure_of_reversal<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        match self.reversals.get_mut(slot) {
            Some(reversal) if reversal.state == ReversalState::Due => return,
            Some(reversal) => {
                (reversal.state, reversal.raised) = (ReversalState::Due, time);
            }
            None => {
                let bank = self.payments[slot.index()].responder;
                let word = self.participants[bank.index()].outbox.push(WordKind::Reversal, slot);
                let reversal = ReversalObject {
                    state: ReversalState::Due,
                    attempts: 0,
                    raised: time,
                    next: time,
                    word,
                };
                self.reversals.insert(slot, reversal);
            }
        }
        self.send_reversal(slot, out);
    }

    /// Sends a Reversal and starts its next attempt. The pause counts from the event, not from the timer, so that a time
    /// in which nothing was journaled is not made up for by a burst.
    fn send_reversal<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        let payment = self.payments[slot.index()];
        let Some(reversal) = self.reversals.get_mut(slot) else {
            return;
        };
        let repeated = reversal.attempts > 0;
        let Some(next) = reversal.attempt(self.time) else {
            self.note_exception(slot, ExceptionKind::ReversalManual);
            return;
        };
        let frame = reversal_frame(&payment, reversal, repeated);
        self.timers.start(Timer {
            deadline: next,
            id: payment.id,
            kind: TimerKind::Reversal,
            slot,
        });
        out.emit(Effect::Frame(EffectFrame::new(payment.responder, LinkId::NONE, &frame)));
    }
}
