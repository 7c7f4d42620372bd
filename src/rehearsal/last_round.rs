//! The last round: nothing is open, so every link must take at once what its contract says. A place on a link that was
//! given and never given back shows here, and so does a stage that sleeps while there is work.

use super::party::Trade;
use super::world::World;
use crate::domain::{Code, Kind, MILLISECOND, ParticipantTerms, PaymentId, SECOND};

/// How long banks keep their replies back in the last round: longer than any Tq.
const HOLD_NS: u64 = 1_200 * MILLISECOND;
/// Payments at a time.
const PAYMENTS_MAX: u64 = 60;

impl World {
    /// Fills each bank's links up to their contracts.
    pub(super) fn last_round(&mut self) -> Result<(), String> {
        self.note(|| "the last round".to_owned());
        self.hold_ns = HOLD_NS;
        let Some((payer, room)) = self.roomiest_institution() else {
            return Ok(());
        };
        for bank in 0..self.parties.len() {
            let terms = &self.directory.participants[bank].terms;
            let may = terms.permits(Kind::Debit) && terms.suspended & ParticipantTerms::SUSPENDED_RESPONDER == 0;
            let has_rate = self.directory.participants[bank].terms.contract.request_per_second_max > 0;
            if self.parties[bank].is_bank() && may && !has_rate {
                self.fill(payer, room, bank)?;
            }
        }
        let end = self.now + 100 * SECOND;
        while !self.is_at_rest() {
            if self.now >= end {
                return Err(format!("no rest after the last round: {}", self.what_is_open()));
            }
            self.moment(end)?;
        }
        Ok(())
    }

    /// The institution whose links take the most at a time, and how much on each.
    fn roomiest_institution(&self) -> Option<(usize, u64)> {
        let entries = self.directory.participants.iter().enumerate();
        let fit = entries.filter(|&(at, entry)| {
            let may = entry.terms.suspended & ParticipantTerms::SUSPENDED_INITIATOR == 0;
            let pays = may && entry.terms.permits(Kind::Debit) && entry.terms.contract.intake_per_second_max == 0;
            pays && !self.parties[at].is_bank()
        });
        fit.map(|(at, entry)| (at, u64::from(entry.terms.contract.intake_in_flight_max)))
            .max_by_key(|&(at, room)| room * self.parties[at].lines_up().len() as u64)
    }

    fn fill(&mut self, payer: usize, room: u64, bank: usize) -> Result<(), String> {
        let of_bank = &self.parties[bank];
        let plain = of_bank
            .lines_up()
            .into_iter()
            .filter(|line| of_bank.stated.get(line) == Some(&0));
        let takes: u64 = plain.map(|line| u64::from(of_bank.contract_of(line))).sum();
        let lines = self.parties[payer].lines_up();
        let held = u64::from(self.directory.scheme.resident_payments);
        let count = takes.min(room * lines.len() as u64).min(PAYMENTS_MAX).min(held);
        let responder = of_bank.index;
        let refused_before = self.not_taken(payer);
        let ids: Vec<PaymentId> = self.with_party(payer, |party, turn| {
            let Trade::Institution(institution) = &mut party.trade else {
                return Vec::new();
            };
            let of_line = |nth: u64| lines[nth as usize % lines.len()];
            (0..count)
                .map(|nth| institution.pay_plainly(responder, of_line(nth), turn))
                .collect()
        });
        self.wait(HOLD_NS + 500 * MILLISECOND)?;
        let refused = self.not_taken(payer) - refused_before;
        if refused > 0 {
            return Err(format!(
                "the links of institution {payer} take {room} each, nothing was open, and {refused} of {count} were refused \
                 with 37"
            ));
        }
        for id in ids {
            let code = self.witness.final_answer(id).map(|answer| answer.code);
            let lacks_a_place = [Code::LinkDown, Code::OverLinkCapacity, Code::BankTimeout].map(|code| code as u8);
            match code {
                Some(code) if !lacks_a_place.contains(&code) => {}
                Some(code) => {
                    return Err(format!(
                        "the links of bank {bank} take {takes}, nothing was open, and {id}, one of {count}, was answered {code}"
                    ));
                }
                None => return Err(format!("{id} had its reply, all is quiet, and it has no answer")),
            }
        }
        Ok(())
    }

    fn not_taken(&self, payer: usize) -> u64 {
        match &self.parties[payer].trade {
            Trade::Institution(institution) => institution.not_taken,
            Trade::Bank(_) => 0,
        }
    }
}
