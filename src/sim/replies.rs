//! What a bank does with requests, status requests and Reversals.

use super::load::Load;
use super::payment::{BankState, BankWord, Ticks};
use super::wheel::Due;
use super::workload::Related;
use crate::domain::{BindStep, Code, Direction, ParticipantIndex, PaymentId};
use crate::wire::{PaymentRequest, Regarding, Reversal, StatusRequest};

impl Load {
    #[inline]
    pub(super) fn on_request(&mut self, bank: ParticipantIndex, request: &PaymentRequest) {
        let body = &request.body;
        let Some(number) = self.payments.number(body.id) else {
            self.outcomes
                .find(|| format!("bank {bank} got a request about {}, which is not of this run", body.id));
            return;
        };
        if self.payments.get(number).responder != bank || !self.payments.is_as_asked(number, body) {
            self.outcomes.find(|| {
                format!(
                    "bank {bank} got the request {} (kind {}, step {}) over {} minor units, which is not what was asked for",
                    body.id, body.kind, body.step, body.amount_minor
                )
            });
            return;
        }
        let now_ns = self.now_ns;
        let record = self.payments.get_mut(number);
        match record.bank_state {
            BankState::Unknown => {
                record.bank_state = BankState::Holding;
                record.bank_ticks = Ticks::at(now_ns);
                let delay_ns = self.habits.verdict(bank, number, record.kind).delay_ns;
                self.note_seen(number);
                if delay_ns == 0 {
                    self.say_word(number);
                } else {
                    self.wheel.set(now_ns + delay_ns, Due::Reply(number));
                }
            }
            BankState::RefusedForEver => {
                self.write_word(bank, number, Regarding::Request, BankWord::No(Code::BankDeclined));
            }
            BankState::Holding
            | BankState::Yes
            | BankState::No
            | BankState::Reversed
            | BankState::Credited
            | BankState::Released => {
                self.outcomes
                    .find(|| format!("bank {bank} got the request {} twice", body.id));
            }
        }
    }

    /// The bank has made up its mind: it books a pull, holds a push, and says so.
    #[inline]
    pub(super) fn say_word(&mut self, number: u32) {
        let record = self.payments.get(number);
        // A status request may have had the word already.
        if record.bank_state == BankState::Holding {
            let bank = record.responder;
            let word = self.decide(bank, number);
            self.write_word(bank, number, Regarding::Request, word);
        }
    }

    #[inline]
    fn decide(&mut self, bank: ParticipantIndex, number: u32) -> BankWord {
        self.replied.push(number);
        let record = self.payments.get_mut(number);
        if let Some(code) = self.habits.verdict(bank, number, record.kind).refusal {
            record.bank_state = BankState::No;
            return BankWord::No(code);
        }
        record.bank_state = BankState::Yes;
        match record.kind.direction() {
            Direction::Pull => {
                if record.code == Code::BankTimeout as u8 {
                    self.reversals_awaited += 1;
                }
                self.books.of(bank).debit(record.amount_minor);
            }
            Direction::Push => self.hold(number),
            Direction::None => self.check_step(bank, number),
        }
        BankWord::Yes
    }

    /// A Sign comes after an Authenticate that the bank has said yes to.
    fn check_step(&mut self, bank: ParticipantIndex, number: u32) {
        if self.payments.get(number).step != BindStep::Sign {
            return;
        }
        let authenticated = match self.payments.related(number) {
            Related::Payment(earlier) => self.payments.get(earlier).bank_state == BankState::Yes,
            Related::Nothing | Related::Unknown => false,
        };
        if !authenticated {
            let id = self.payments.id(number);
            self.outcomes
                .find(|| format!("bank {bank} got the Sign {id} without an Authenticate it had said yes to"));
        }
    }

    #[inline]
    fn write_word(&mut self, bank: ParticipantIndex, number: u32, regarding: Regarding, word: BankWord) {
        // Without a link the word is not said; the switch will ask.
        if let Some(link) = self.link_of(bank, number) {
            let (id, amount_minor) = (self.payments.id(number), self.payments.get(number).amount_minor);
            let mandate = self.payments.mandate(number);
            let reply = self.payments.reply(id, amount_minor, regarding, word, mandate);
            self.write(link, &reply);
        }
    }

    pub(super) fn on_status_request(&mut self, link: usize, bank: ParticipantIndex, request: &StatusRequest) {
        let known = self.known(bank, request.id);
        let word = match known {
            None => BankWord::NeverSeen,
            Some(number) => match self.payments.get(number).bank_state {
                BankState::Unknown => {
                    self.payments.get_mut(number).bank_state = BankState::RefusedForEver;
                    self.note_seen(number);
                    BankWord::NeverSeen
                }
                BankState::RefusedForEver => BankWord::NeverSeen,
                BankState::Holding => self.decide(bank, number),
                BankState::Yes | BankState::Credited => BankWord::Yes,
                BankState::No | BankState::Reversed | BankState::Released => {
                    let kind = self.payments.get(number).kind;
                    let refusal = self.habits.verdict(bank, number, kind).refusal;
                    BankWord::No(refusal.unwrap_or(Code::BankDeclined))
                }
            },
        };
        let mandate = known.map_or([0; 2], |number| self.payments.mandate(number));
        let reply = self
            .payments
            .reply(request.id, request.amount_minor, Regarding::Status, word, mandate);
        self.write(link, &reply);
    }

    pub(super) fn on_reversal(&mut self, link: usize, bank: ParticipantIndex, reversal: &Reversal) {
        if reversal.word != 0 && !self.participants[bank.index()].words.take(reversal.word) {
            return;
        }
        if let Some(number) = self.known(bank, reversal.id) {
            let record = self.payments.get_mut(number);
            if record.kind.direction() != Direction::Pull {
                self.outcomes
                    .find(|| format!("bank {bank} got a Reversal of {}, which is no pull", reversal.id));
                return;
            }
            match record.bank_state {
                BankState::Yes => {
                    record.bank_state = BankState::Reversed;
                    if record.code == Code::BankTimeout as u8 {
                        self.reversals_awaited -= 1;
                    }
                    self.books.of(bank).reverse(record.amount_minor);
                }
                BankState::Unknown | BankState::Holding => record.bank_state = BankState::RefusedForEver,
                BankState::No
                | BankState::RefusedForEver
                | BankState::Reversed
                | BankState::Credited
                | BankState::Released => {}
            }
        }
        let reply = self.payments.reply(
            reversal.id,
            reversal.amount_minor,
            Regarding::Reversal,
            BankWord::Acknowledged,
            [0; 2],
        );
        self.write(link, &reply);
    }

    /// The payment's number, when it is one that this bank may be asked about.
    pub(super) fn known(&self, bank: ParticipantIndex, id: PaymentId) -> Option<u32> {
        let number = self.payments.number(id)?;
        (self.payments.get(number).responder == bank).then_some(number)
    }
}
