//! What a bank's word does in the model: entitlement, the word that ends a payment, the late-word table.

use super::reference::{Model, ReversalStatus, direction};
use super::residency::Waits;
use super::said::Said;
use crate::clearing::ExceptionKind;
use crate::domain::{BindStep, Code, Direction, Kind, LinkId, PaymentState};
use crate::wire::{Regarding, ReplyBody, ReplyEvent, ReplyOutcome, TerminateCode};

impl Model {
    pub(super) fn reply(&mut self, event: &ReplyEvent) {
        let id = event.body.id;
        // Of a payment with a Reversal everything is known.
        let reversed = self.find(id).is_some_and(|nth| self.payments[nth].reversal.is_some());
        if self.is_away(id) && !reversed {
            self.park(id, Waits::Reply(*event));
        } else {
            self.word_of_bank(event);
        }
    }

    pub(super) fn word_of_bank(&mut self, event: &ReplyEvent) {
        let body = &event.body;
        let link = LinkId(event.link);
        // A reply counts only from the payment's responder, and repeats amount and currency. A rejected payment never
        // entered the ledger.
        let entitled = self.payments.iter().position(|payment| {
            payment.body.id == body.id
                && payment.body.responder.0 == event.sender
                && payment.body.amount_minor == body.amount_minor
                && payment.body.currency == body.currency
                && payment.state != PaymentState::Rejected
        });
        let words = (Regarding::from_u8(body.regarding), ReplyOutcome::from_u8(body.outcome));
        let (Some(nth), (Some(regarding), Some(outcome))) = (entitled, words) else {
            self.rows.insert("reply refused: not entitled");
            self.refuse_reply(link, TerminateCode::ReplyNotEntitled);
            return;
        };
        match (regarding, outcome) {
            (Regarding::Request | Regarding::Status, ReplyOutcome::Yes | ReplyOutcome::No)
            | (Regarding::Status, ReplyOutcome::NeverSeen) => {
                if self.payments[nth].state.is_final() {
                    self.late(nth, outcome);
                } else {
                    self.word(nth, outcome, body);
                }
            }
            (Regarding::Reversal, ReplyOutcome::Acknowledged) => self.acknowledged(nth, link),
            // NeverSeen to a request, an acknowledgement of anything but a Reversal, and any other word on a Reversal mean
            // nothing.
            (Regarding::Request, ReplyOutcome::NeverSeen | ReplyOutcome::Acknowledged)
            | (Regarding::Status, ReplyOutcome::Acknowledged)
            | (Regarding::Reversal, ReplyOutcome::Yes | ReplyOutcome::No | ReplyOutcome::NeverSeen) => {
                self.rows.insert("reply refused: means nothing");
                self.refuse_reply(link, TerminateCode::FieldInvalid);
            }
        }
    }

    /// Counted as refused, and the link is cut.
    fn refuse_reply(&mut self, link: LinkId, code: TerminateCode) {
        self.figures.replies_refused += 1;
        self.out.push(Said::Cut { link, code });
    }

    /// The bank takes a Reversal; after all, if it was Manual. One that was never raised can not be taken.
    fn acknowledged(&mut self, nth: usize, link: LinkId) {
        match &mut self.payments[nth].reversal {
            Some(reversal) => {
                self.rows.insert(match reversal.status {
                    ReversalStatus::Due => "Reversal acknowledged",
                    ReversalStatus::Manual => "Reversal acknowledged after all",
                    ReversalStatus::Acknowledged => "Reversal acknowledged twice",
                });
                reversal.status = ReversalStatus::Acknowledged;
            }
            None => {
                self.rows.insert("reply refused: no Reversal was raised");
                self.refuse_reply(link, TerminateCode::FieldInvalid);
            }
        }
    }

    /// Yes, No or NeverSeen about a payment that is Reserved or InDoubt.
    fn word(&mut self, nth: usize, outcome: ReplyOutcome, reply: &ReplyBody) {
        let reserved = self.payments[nth].state == PaymentState::Reserved;
        let body = self.payments[nth].body;
        match outcome {
            // Yes: Committed; release, post, stamp; answer; push: FinalNotice. The token in a Yes to a Bind's Sign goes to
            // the initiator.
            ReplyOutcome::Yes => {
                self.rows
                    .insert(if reserved { "Reserved, Yes" } else { "InDoubt, Yes" });
                if body.kind == Kind::Bind as u8 && body.step == BindStep::Sign as u8 {
                    self.rows.insert("mandate token");
                    self.payments[nth].mandate_token = reply.token;
                }
                self.finish(nth, PaymentState::Committed, Code::Committed, self.time, true);
            }
            // No with code c: Declined; release; answer c, 27 if c is not a bank's code; push: FinalNotice.
            ReplyOutcome::No => {
                self.rows.insert(if reserved { "Reserved, No" } else { "InDoubt, No" });
                let code = match reply.code {
                    20..=28 | 35 => Code::from_u8(reply.code).expect("a bank's code"),
                    _ => Code::BankDeclined,
                };
                self.finish(nth, PaymentState::Declined, code, self.time, true);
            }
            // NeverSeen to a status request: Declined; release; answer 31; push: FinalNotice. While Reserved, the same.
            ReplyOutcome::NeverSeen => {
                self.rows.insert(if reserved {
                    "Reserved, NeverSeen"
                } else {
                    "InDoubt, NeverSeen"
                });
                self.finish(nth, PaymentState::Declined, Code::LinkDown, self.time, true);
            }
            ReplyOutcome::Acknowledged => unreachable!("no word on a payment"),
        }
    }

    /// Late words never change a final state; they are counted.
    fn late(&mut self, nth: usize, outcome: ReplyOutcome) {
        let payment = &self.payments[nth];
        let (id, direction) = (payment.body.id, direction(&payment.body));
        self.figures.late_words += 1;
        match (payment.state, outcome) {
            // Committed, Yes: counted.
            (PaymentState::Committed, ReplyOutcome::Yes) => {
                self.rows.insert("late: Committed, Yes");
            }
            // Committed, No or NeverSeen: a conflict.
            (PaymentState::Committed, ReplyOutcome::No | ReplyOutcome::NeverSeen) => {
                let no = outcome == ReplyOutcome::No;
                self.rows.insert(if no {
                    "late: Committed, No"
                } else {
                    "late: Committed, NeverSeen"
                });
                self.figures.conflicts += 1;
                self.exception(id, ExceptionKind::CommittedThenNo);
            }
            // Declined, Yes: a conflict; of a pull, a Reversal is made due.
            (PaymentState::Declined, ReplyOutcome::Yes) => {
                self.figures.conflicts += 1;
                self.exception(id, ExceptionKind::DeclinedThenYes);
                self.rows.insert(match direction {
                    Direction::Pull => "late: Declined, Yes, pull",
                    Direction::Push => "late: Declined, Yes, push",
                    Direction::None => "late: Declined, Yes, none",
                });
                if direction == Direction::Pull {
                    self.raise_reversal(nth, self.time);
                }
            }
            // Expired, Yes: of a pull, a Reversal is made due, again if it had been acknowledged.
            (PaymentState::Expired, ReplyOutcome::Yes) => {
                self.rows.insert(match direction {
                    Direction::Pull => "late: Expired, Yes, pull",
                    Direction::Push => "late: Expired, Yes, push",
                    Direction::None => "late: Expired, Yes, none",
                });
                if direction == Direction::Pull {
                    self.raise_reversal(nth, self.time);
                }
            }
            // Declined or Expired, No or NeverSeen: counted.
            (PaymentState::Declined | PaymentState::Expired, ReplyOutcome::No | ReplyOutcome::NeverSeen) => {
                let declined = payment.state == PaymentState::Declined;
                self.rows.insert(match (declined, outcome == ReplyOutcome::No) {
                    (true, true) => "late: Declined, No",
                    (true, false) => "late: Declined, NeverSeen",
                    (false, true) => "late: Expired, No",
                    (false, false) => "late: Expired, NeverSeen",
                });
            }
            (PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Rejected, _)
            | (_, ReplyOutcome::Acknowledged) => {
                unreachable!(
                    "{outcome:?} to a payment that is {:?} is not a late word",
                    payment.state
                )
            }
        }
    }
}
