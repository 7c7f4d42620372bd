//! What a bank does with requests, status requests and Reversals.

use super::load::Load;
use super::payment::{BankState, BankWord};
use super::wheel::Due;
use crate::domain::{Code, ParticipantIndex, PaymentId};
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
        let now_ns = self.now_ns;
        let record = self.payments.get_mut(number);
        if record.responder != bank || record.amount_minor != body.amount_minor {
            self.outcomes.find(|| {
                format!(
                    "bank {bank} got the request {} over {} minor units, which is not what was asked for",
                    body.id, body.amount_minor
                )
            });
            return;
        }
        match record.bank {
            BankState::Unknown => {
                record.bank = BankState::Holding;
                record.bank_ns = now_ns;
                let delay_ns = self.habits.verdict(bank, number).delay_ns;
                if delay_ns == 0 {
                    self.say_word(number);
                } else {
                    self.wheel.set(now_ns + delay_ns, Due::Reply(number));
                }
            }
            BankState::RefusedForEver => {
                self.write_word(bank, number, Regarding::Request, BankWord::No(Code::BankDeclined));
            }
            BankState::Holding | BankState::Yes | BankState::No | BankState::Reversed => {
                self.outcomes
                    .find(|| format!("bank {bank} got the request {} twice", body.id));
            }
        }
    }

    /// The bank has made up its mind: it books, and says so.
    #[inline]
    pub(super) fn say_word(&mut self, number: u32) {
        let record = self.payments.get(number);
        // A status request may have had the word already.
        if record.bank == BankState::Holding {
            let bank = record.responder;
            let word = self.decide(bank, number);
            self.write_word(bank, number, Regarding::Request, word);
        }
    }

    #[inline]
    fn decide(&mut self, bank: ParticipantIndex, number: u32) -> BankWord {
        let refusal = self.habits.verdict(bank, number).refusal;
        let record = self.payments.get_mut(number);
        self.replied.push(number);
        match refusal {
            None => {
                record.bank = BankState::Yes;
                if record.code == Code::BankTimeout as u8 {
                    self.reversals_awaited += 1;
                }
                self.books.of(bank).debit(record.amount_minor);
                BankWord::Yes
            }
            Some(code) => {
                record.bank = BankState::No;
                BankWord::No(code)
            }
        }
    }

    #[inline]
    fn write_word(&mut self, bank: ParticipantIndex, number: u32, regarding: Regarding, word: BankWord) {
        // Without a link the word is not said; the switch will ask.
        if let Some(link) = self.link_of(bank, number) {
            let (id, amount_minor) = (self.payments.id(number), self.payments.get(number).amount_minor);
            let reply = self.payments.reply(id, amount_minor, regarding, word);
            self.write(link, &reply);
        }
    }

    pub(super) fn on_status_request(&mut self, link: usize, bank: ParticipantIndex, request: &StatusRequest) {
        let word = match self.known(bank, request.id) {
            None => BankWord::NeverSeen,
            Some(number) => match self.payments.get(number).bank {
                BankState::Unknown => {
                    self.payments.get_mut(number).bank = BankState::RefusedForEver;
                    BankWord::NeverSeen
                }
                BankState::RefusedForEver => BankWord::NeverSeen,
                BankState::Holding => self.decide(bank, number),
                BankState::Yes => BankWord::Yes,
                BankState::No | BankState::Reversed => {
                    let refusal = self.habits.verdict(bank, number).refusal;
                    BankWord::No(refusal.unwrap_or(Code::BankDeclined))
                }
            },
        };
        let reply = self
            .payments
            .reply(request.id, request.amount_minor, Regarding::Status, word);
        self.write(link, &reply);
    }

    pub(super) fn on_reversal(&mut self, link: usize, bank: ParticipantIndex, reversal: &Reversal) {
        if reversal.word != 0 && !self.participants[bank.index()].words.take(reversal.word) {
            return;
        }
        if let Some(number) = self.known(bank, reversal.id) {
            let record = self.payments.get_mut(number);
            match record.bank {
                BankState::Yes => {
                    record.bank = BankState::Reversed;
                    if record.code == Code::BankTimeout as u8 {
                        self.reversals_awaited -= 1;
                    }
                    self.books.of(bank).reverse(record.amount_minor);
                }
                BankState::Unknown | BankState::Holding => record.bank = BankState::RefusedForEver,
                BankState::No | BankState::RefusedForEver | BankState::Reversed => {}
            }
        }
        let reply = self.payments.reply(
            reversal.id,
            reversal.amount_minor,
            Regarding::Reversal,
            BankWord::Acknowledged,
        );
        self.write(link, &reply);
    }

    /// The payment's number, when it is one that this bank may be asked about.
    fn known(&self, bank: ParticipantIndex, id: PaymentId) -> Option<u32> {
        let number = self.payments.number(id)?;
        (self.payments.get(number).responder == bank).then_some(number)
    }
}
