//! The ladder of a payment in doubt: T1, status requests, T2, Reversals, and what a restart does to all of them.

use super::engine::{Engine, Outlet};
use super::exception::ExceptionKind;
use super::payment::PaymentRecord;
use super::reversal::{ReversalObject, ReversalState, reversal_frame};
use super::timer::{Timer, TimerKind};
use crate::domain::{Code, Direction, Kind, LinkId, PaymentId, PaymentSlot, PaymentState, SECOND, UtcNanos};
use crate::wire::{Effect, EffectFrame, Frame, FrameHeader, StatusRequest, WordKind};

/// Status requests follow the first at these times after a payment came in doubt.
const STATUS_REPEATS_NS: [u64; 2] = [10 * SECOND, 40 * SECOND];
/// At most this many status requests a payment.
const STATUS_REQUESTS_MAX: u8 = 3;

impl Engine {
    /// Every open payment is in doubt and asked for anew, the oldest first, and what waits for the register asks again. The
    /// payments' old timers were forgotten when the event came.
    pub(super) fn restart<O: Outlet>(&mut self, time: UtcNanos, out: &mut O) {
        self.parking.forget_links();
        for look_up in self.parking.look_ups() {
            out.emit(Effect::LookUp(look_up));
        }
        #[cfg(test)]
        self.spoil_restart();
        if self.figures.open() == 0 {
            return;
        }
        for slot in self.payments.open() {
            let payment = self.payments[slot];
            let responder = &self.participants[payment.responder.index()];
            let kind = Kind::from_u8(payment.kind).expect("an open payment's kind was checked at admission");
            let ladder_ns = responder.expiry_ns(kind).saturating_sub(responder.terms.doubt_ns);
            let expiry = payment.expiry().max(time.plus(ladder_ns));
            #[cfg(test)]
            let expiry = if self.gets_wrong(super::fault::Fault::ForgetRestart) {
                payment.expiry()
            } else {
                expiry
            };
            let record = &mut self.payments[slot];
            record.expiry_or_window = expiry.0;
            record.attempts = 0;
            // A link's number means nothing beyond the run that gave it: the answer goes by whichever link is up.
            record.link = LinkId::NONE.0;
            self.enter_doubt(slot, time, out);
        }
    }

    pub(super) fn fire<O: Outlet>(&mut self, timer: Timer, out: &mut O) {
        if timer.kind == TimerKind::Reversal {
            if self.reversals.is_due_at(timer.id, timer.deadline) {
                self.send_reversal(timer.id, out);
            }
            return;
        }
        if !timer.concerns(&self.payments) {
            return;
        }
        let slot = timer.slot;
        let payment = self.payments[slot];
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
                    #[cfg(test)]
                    if payment.direction() == Direction::Pull && self.gets_wrong(super::fault::Fault::ForgetReversal) {
                        return;
                    }
                    match payment.direction() {
                        Direction::Pull => {
                            let payment = self.payments[slot];
                            self.make_sure_of_reversal(&payment, Some(slot), timer.deadline, out);
                            self.tally.raised += 1;
                        }
                        Direction::Push => self.tell_responder(slot, out),
                        Direction::None => {}
                    }
                }
            }
            TimerKind::Reversal => unreachable!("looked at before"),
        }
    }

    /// Reserved → InDoubt (or asked anew after a restart): the reservation is kept and the bank is asked.
    fn enter_doubt<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        let payment = &mut self.payments[slot];
        if payment.state == PaymentState::Reserved as u8 {
            payment.state = PaymentState::InDoubt as u8;
            self.doubtful.insert((payment.time_ns, slot.0));
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
        let payment = &mut self.payments[slot];
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

    /// A Reversal of `payment`, a final pull, is due: raised, or raised again.
    pub(super) fn make_sure_of_reversal<O: Outlet>(
        &mut self,
        payment: &PaymentRecord,
        slot: Option<PaymentSlot>,
        time: UtcNanos,
        out: &mut O,
    ) {
        match self.reversals.get_mut(payment.id) {
            Some(reversal) if reversal.state == ReversalState::Due => return,
            Some(reversal) => {
                (reversal.state, reversal.raised) = (ReversalState::Due, time);
            }
            None => {
                let word = self.number_word(payment.responder, WordKind::Reversal, payment.id, slot, out);
                let Some(word) = word else { return };
                self.reversals.insert(ReversalObject {
                    state: ReversalState::Due,
                    attempts: 0,
                    raised: time,
                    next: time,
                    word,
                    payment: *payment,
                });
            }
        }
        self.send_reversal(payment.id, out);
    }

    /// Sends a Reversal and starts its next attempt. The pause counts from the event, not from the timer, so that a time
    /// in which nothing was journaled is not made up for by a burst.
    fn send_reversal<O: Outlet>(&mut self, id: PaymentId, out: &mut O) {
        let Some(reversal) = self.reversals.get_mut(id) else {
            return;
        };
        let repeated = reversal.attempts > 0;
        let Some(next) = reversal.attempt(self.time) else {
            self.note_exception(id, ExceptionKind::ReversalManual);
            return;
        };
        let frame = reversal_frame(reversal, repeated);
        let bank = reversal.payment.responder;
        self.timers.start(Timer {
            deadline: next,
            id,
            kind: TimerKind::Reversal,
            slot: PaymentSlot::NONE,
        });
        out.emit(Effect::Frame(EffectFrame::new(bank, LinkId::NONE, &frame)));
    }
}
