//! What an institution does with the answers it gets.

use super::load::Load;
use super::outcome::FinalAnswer;
use super::payment::{BankState, PaymentRecord};
use super::wheel::Due;
use crate::domain::{Code, Direction, ParticipantIndex, PaymentState};
use crate::wire::{Answer, AnswerFlags};

/// How soon a request that was not taken at the door is sent again.
const NOT_TAKEN_RETRY_NS: u64 = 50_000_000;

impl Load {
    #[inline]
    pub(super) fn on_answer(&mut self, institution: ParticipantIndex, answer: &Answer) {
        if answer.word != 0 && !self.participants[institution.index()].words.take(answer.word) {
            return;
        }
        let (Some(number), Some(code)) = (self.payments.number(answer.id), Code::from_u8(answer.code)) else {
            self.outcomes.find(|| {
                format!(
                    "an answer with code {} about {}, which is not of this run",
                    answer.code, answer.id
                )
            });
            return;
        };
        let record = *self.payments.get(number);
        if record.initiator != institution {
            self.outcomes
                .find(|| format!("participant {institution} got the answer about {}", answer.id));
            return;
        }
        match code {
            Code::InProgress => {
                self.outcomes.in_progress += 1;
                return;
            }
            Code::NotTaken | Code::AskedTooOften => {
                self.outcomes.not_taken += 1;
                self.wheel.set(self.now_ns + NOT_TAKEN_RETRY_NS, Due::Retry(number));
                return;
            }
            _final => {}
        }
        if answer.flags & AnswerFlags::DUPLICATE != 0 {
            self.outcomes.stored += 1;
        }
        self.check_facts(number, &record, code, answer);
        if record.is_answered() {
            let is_repetition = answer.flags & (AnswerFlags::DUPLICATE | AnswerFlags::RETRANSMITTED) != 0;
            if !is_repetition || record.code != answer.code {
                self.outcomes.find(|| {
                    format!(
                        "{}: a second final answer, code {}, after code {}",
                        answer.id, answer.code, record.code
                    )
                });
            }
            return;
        }
        self.close_payment(number, &record, code, answer);
    }

    /// The answer, new or stored, repeats what was asked, and brings the mandate that the bank has made and no other.
    #[inline]
    fn check_facts(&mut self, number: u32, record: &PaymentRecord, code: Code, answer: &Answer) {
        let mandate = if code == Code::Committed {
            self.payments.mandate(number)
        } else {
            [0; 2]
        };
        if answer.kind != record.kind as u8 || answer.responder != record.responder {
            self.outcomes.find(|| {
                format!(
                    "{}: the answer is about kind {} at participant {}, which is not what was asked for",
                    answer.id, answer.kind, answer.responder
                )
            });
        }
        if answer.mandate_token != mandate {
            self.outcomes.find(|| {
                format!(
                    "{}: the answer brings the mandate {:x?}, the bank's is {mandate:x?}",
                    answer.id, answer.mandate_token
                )
            });
        }
    }

    #[inline]
    fn close_payment(&mut self, number: u32, record: &PaymentRecord, code: Code, answer: &Answer) {
        if code == Code::Committed {
            if answer.amount_minor != record.amount_minor {
                self.outcomes.find(|| {
                    format!(
                        "{}: committed over {} minor units, asked for {}",
                        answer.id, answer.amount_minor, record.amount_minor
                    )
                });
            }
            self.books
                .of(record.initiator)
                .commit(record.kind.direction(), answer.window, answer.amount_minor);
        }
        self.payments.get_mut(number).code = answer.code;
        if code == Code::BankTimeout
            && record.bank_state == BankState::Yes
            && record.kind.direction() == Direction::Pull
        {
            self.reversals_awaited += 1;
        }
        self.answered.push(self.payments.answered(number, code));
        let held_ns = match record.bank_state {
            BankState::Unknown | BankState::Holding | BankState::RefusedForEver => 0,
            BankState::Yes | BankState::No | BankState::Reversed | BankState::Credited | BankState::Released => {
                record.bank_ticks.ns()
            }
        };
        if let Some(provoked) = record.provoked()
            && provoked != code
        {
            self.outcomes
                .find(|| format!("{}: made to be refused with {provoked:?}, got {code:?}", answer.id));
        }
        self.outcomes.note_final(FinalAnswer {
            at_ns: self.now_ns - self.run_start_ns,
            latency_ns: self.now_ns.saturating_sub(record.intended_ns),
            held_ns,
            code,
            state: PaymentState::from_u8(answer.state),
            provoked: record.provoked(),
            window: answer.window,
        });
    }
}
