//! What time alone does in the model: T1, status requests, T2, Reversals; and what a restart does to all of them.

use super::reference::{Model, Payment, RaisedReversal, ReversalStatus, direction};
use super::said::{Content, Said};
use crate::clearing::ExceptionKind;
use crate::domain::{Code, Direction, LinkId, ParticipantTerms, PaymentState, SECOND, UtcNanos};
use crate::wire::{AnswerFlags, FrameHeader, NotSentEvent, PaymentBody, Reversal, StatusRequest, Template};

impl Model {
    pub(super) fn fire(&mut self, nth: usize) {
        let payment = &mut self.payments[nth];
        match payment.state {
            // Reserved, T1: InDoubt; the reservation is kept.
            PaymentState::Reserved => {
                self.rows.insert("Reserved, T1");
                payment.state = PaymentState::InDoubt;
                payment.in_doubt_since = payment.doubt_at;
                self.figures.reserved -= 1;
                self.figures.in_doubt += 1;
            }
            // InDoubt, T2: Expired; release; answer 30; pull: a Reversal is due; push: FinalNotice.
            PaymentState::InDoubt if payment.expiry_at <= payment.ask_at() => {
                let expired_at = payment.expiry_at;
                let pull = direction(&payment.body) == Direction::Pull;
                self.rows.insert("InDoubt, T2");
                self.finish(nth, PaymentState::Expired, Code::BankTimeout, expired_at, true);
                if pull {
                    self.raise_reversal(nth, expired_at);
                }
            }
            PaymentState::InDoubt => self.ask(nth),
            PaymentState::Committed | PaymentState::Declined | PaymentState::Expired | PaymentState::Rejected => {
                self.reversal_due(nth);
            }
        }
    }

    fn ask(&mut self, nth: usize) {
        let payment = &mut self.payments[nth];
        payment.asked += 1;
        self.figures.status_requests += 1;
        self.rows.insert(match payment.asked {
            1 => "status request 1",
            2 => "status request 2",
            _ => "status request 3",
        });
        let body = &payment.body;
        let request = StatusRequest {
            header: FrameHeader::new(Template::StatusRequest, size_of::<StatusRequest>()),
            id: body.id,
            amount_minor: body.amount_minor,
            currency: body.currency,
            kind: body.kind,
            attempt: payment.asked as u8,
            initiator: body.id.originator(),
            reserved: [0; 2],
            accepted_ns: payment.accepted.0,
            reserved2: 0,
        };
        self.out.push(Said::Status {
            to: body.responder.0,
            request: Content(request),
        });
    }

    /// A Reversal is made due: sent at once, and its 24 hours begin. One raised before keeps its word number.
    pub(super) fn raise_reversal(&mut self, nth: usize, raised: UtcNanos) {
        match &mut self.payments[nth].reversal {
            Some(reversal) => {
                self.rows.insert(match reversal.status {
                    ReversalStatus::Due => "Reversal raised: is due",
                    ReversalStatus::Acknowledged => "Reversal raised again: was acknowledged",
                    ReversalStatus::Manual => "Reversal raised again: was Manual",
                });
                if reversal.status == ReversalStatus::Due {
                    return;
                }
                reversal.status = ReversalStatus::Due;
                reversal.raised = raised;
            }
            None => {
                let word = self.take_word(self.payments[nth].body.responder);
                self.rows.insert("Reversal raised");
                self.payments[nth].reversal = Some(RaisedReversal {
                    status: ReversalStatus::Due,
                    word,
                    attempts: 0,
                    raised,
                    next: UtcNanos::NEVER,
                });
            }
        }
        self.send_reversal(nth);
    }

    fn reversal_due(&mut self, nth: usize) {
        let payment = &mut self.payments[nth];
        let id = payment.body.id;
        let reversal = payment.reversal.as_mut().expect("its timer is due");
        if reversal.manual_at() <= self.time {
            reversal.status = ReversalStatus::Manual;
            self.rows.insert("Reversal Manual");
            self.exception(id, ExceptionKind::ReversalManual);
        } else {
            self.rows.insert("Reversal sent again");
            self.send_reversal(nth);
        }
    }

    /// Sent, then again after 1, 2, 4, 8, 16, 32, 60, 60 … s.
    fn send_reversal(&mut self, nth: usize) {
        let payment = &mut self.payments[nth];
        let reversal = payment.reversal.as_mut().expect("it was raised");
        let seconds = [1, 2, 4, 8, 16, 32]
            .get(reversal.attempts as usize)
            .copied()
            .unwrap_or(60);
        reversal.attempts += 1;
        reversal.next = self.time.plus(seconds * SECOND);
        let body = &payment.body;
        let frame = Reversal {
            header: FrameHeader::new(Template::Reversal, size_of::<Reversal>()),
            id: body.id,
            word: reversal.word,
            amount_minor: body.amount_minor,
            currency: body.currency,
            kind: body.kind,
            attempt: reversal.attempts.min(255) as u8,
            initiator: body.id.originator(),
            // Its number is of the first attempt: each later one was sent before.
            flags: if reversal.attempts == 1 {
                0
            } else {
                AnswerFlags::RETRANSMITTED
            },
            reserved: 0,
            raised_ns: reversal.raised.0,
            reserved2: [0; 2],
        };
        self.out.push(Said::Reversal {
            to: body.responder.0,
            reversal: Content(frame),
        });
    }

    /// NotSent: Expired from Reserved or InDoubt; release; no FinalNotice, no Reversal: it was never sent.
    pub(super) fn not_sent(&mut self, event: &NotSentEvent) {
        let Some(nth) = self.find(event.id) else { return };
        if self.payments[nth].state.is_final() {
            self.rows.insert("NotSent, final");
            return;
        }
        let reserved = self.payments[nth].state == PaymentState::Reserved;
        self.rows.insert(if reserved {
            "Reserved, NotSent"
        } else {
            "InDoubt, NotSent"
        });
        let code = Code::from_u8(event.code).expect("31 or 32");
        self.finish(nth, PaymentState::Expired, code, self.time, false);
    }

    /// A restart moves T2 of every open payment to at least restart + (T2 − T1), counts its status requests anew, and
    /// asks at once, in the order of acceptance; what answered on a link of the run before is answered on any.
    pub(super) fn restart(&mut self) {
        self.ask_register_again();
        for nth in 0..self.payments.len() {
            if self.payments[nth].state.is_final() {
                continue;
            }
            let payment = &mut self.payments[nth];
            if payment.state == PaymentState::Reserved {
                self.rows.insert("Reserved, restart");
                payment.state = PaymentState::InDoubt;
                self.figures.reserved -= 1;
                self.figures.in_doubt += 1;
            } else {
                self.rows.insert("InDoubt, restart");
            }
            let bank = self.members[payment.body.responder.index()].terms;
            let spare = expiry_ns(&bank, &payment.body) - bank.doubt_ns;
            payment.expiry_at = payment.expiry_at.max(self.time.plus(spare));
            payment.in_doubt_since = self.time;
            payment.asked = 0;
            payment.link = LinkId::NONE;
            self.ask(nth);
        }
    }

    /// T1 and T2 count from acceptance; they are the bank's.
    pub(super) fn set_timers(&self, payment: &mut Payment) {
        let bank = &self.members[payment.body.responder.index()].terms;
        payment.doubt_at = payment.accepted.plus(bank.doubt_ns);
        payment.expiry_at = payment.accepted.plus(expiry_ns(bank, &payment.body));
    }
}

/// T2 of a pull for a Debit, T2 of a push for every other kind.
fn expiry_ns(bank: &ParticipantTerms, body: &PaymentBody) -> u64 {
    match direction(body) {
        Direction::Pull => bank.expiry_pull_ns,
        Direction::Push | Direction::None => bank.expiry_push_ns,
    }
}
