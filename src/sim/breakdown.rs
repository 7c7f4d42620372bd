//! A run's payments by kind, scene and participant, counted once at its end from the table of all payments.

use std::collections::BTreeMap;

use serde::Serialize;

use super::payment::{PaymentRecord, PaymentTable};
use crate::domain::{Code, Kind, ParticipantIndex, Scene};

/// Payments of one sort.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Sent.
    pub offered: u64,
    /// With a final answer.
    pub answered: u64,
    /// Posted.
    pub committed: u64,
    /// Refused by the bank for a reason of its own.
    pub declined: u64,
    /// Refused as the load had provoked it.
    pub provoked: u64,
}

impl Tally {
    /// The share of payments that went through the scheme as they should: to a bank's word, yes or no, among all with a
    /// final answer that were not made to be refused. `None` when there were none.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        let wanted = self.answered - self.provoked;
        (wanted > 0).then(|| (self.committed + self.declined) as f64 / wanted as f64)
    }

    fn add(&mut self, record: &PaymentRecord) {
        self.offered += 1;
        let Some(code) = Code::from_u8(record.code) else {
            return;
        };
        self.answered += 1;
        match code {
            _ if record.provoked() == Some(code) => self.provoked += 1,
            Code::Committed => self.committed += 1,
            // These two the switch alone says.
            Code::OriginalNotFound | Code::RefundExceedsOriginal => {}
            other => self.declined += u64::from(other.is_bank_refusal()),
        }
    }
}

/// The same as reports show it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct TallyFigures {
    /// Sent.
    pub offered: u64,
    /// With a final answer.
    pub answered: u64,
    /// Posted.
    pub committed: u64,
    /// Refused by the bank for a reason of its own.
    pub declined: u64,
    /// Refused as the load had provoked it.
    pub provoked: u64,
    /// As [`Tally::success_rate`].
    pub success_rate: Option<f64>,
}

impl From<Tally> for TallyFigures {
    fn from(tally: Tally) -> Self {
        Self {
            offered: tally.offered,
            answered: tally.answered,
            committed: tally.committed,
            declined: tally.declined,
            provoked: tally.provoked,
            success_rate: tally.success_rate(),
        }
    }
}

/// Payments by kind, scene and participant.
#[derive(Clone, Debug)]
pub struct Breakdown {
    kinds: [Tally; Kind::ALL.len() + 1],
    scenes: [Tally; Scene::ALL.len() + 1],
    participants: Vec<Tally>,
}

impl Breakdown {
    /// Counts a run's payments.
    pub(super) fn of(payments: &PaymentTable, participants: usize) -> Self {
        let mut breakdown = Self {
            kinds: Default::default(),
            scenes: Default::default(),
            participants: vec![Tally::default(); participants],
        };
        for record in payments.iter() {
            breakdown.kinds[record.kind as usize].add(record);
            breakdown.scenes[record.scene as usize].add(record);
            breakdown.participants[record.initiator.index()].add(record);
            if record.responder != record.initiator {
                breakdown.participants[record.responder.index()].add(record);
            }
        }
        breakdown
    }

    /// One kind's payments.
    #[must_use]
    pub const fn kind(&self, kind: Kind) -> Tally {
        self.kinds[kind as usize]
    }

    /// The kinds that were offered, by name.
    #[must_use]
    pub fn by_kind(&self) -> BTreeMap<String, TallyFigures> {
        named(Kind::ALL.map(|kind| (kind.name(), self.kinds[kind as usize])))
    }

    /// The scenes that were offered, by name.
    #[must_use]
    pub fn by_scene(&self) -> BTreeMap<String, TallyFigures> {
        named(Scene::ALL.map(|scene| (scene.name(), self.scenes[scene as usize])))
    }

    /// What a participant took part in, on either side.
    #[must_use]
    pub fn participant(&self, participant: ParticipantIndex) -> Tally {
        self.participants.get(participant.index()).copied().unwrap_or_default()
    }
}

fn named(tallies: impl IntoIterator<Item = (&'static str, Tally)>) -> BTreeMap<String, TallyFigures> {
    tallies
        .into_iter()
        .filter(|(_, tally)| tally.offered > 0)
        .map(|(name, tally)| (name.to_owned(), tally.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::workload::{Intent, Related};
    use super::*;
    use crate::domain::Currency;

    #[test]
    fn success_is_a_banks_word_and_a_provoked_refusal_is_no_failure() {
        let mut table = PaymentTable::new(1, 1_790_000_000_000_000_000, Currency::CNY);
        let debit = Intent::debit(0, ParticipantIndex(0), ParticipantIndex(1), 5, Scene::Shopping);
        let refund = Intent {
            kind: Kind::Refund,
            related: Related::Unknown,
            provoked: Some(Code::OriginalNotFound),
            ..debit
        };
        for (intent, code) in [
            (debit, Some(Code::Committed)),
            (debit, Some(Code::CustomerFunds)),
            (debit, Some(Code::BankTimeout)),
            (debit, Some(Code::CoverExceeded)),
            (debit, None),
            (refund, Some(Code::OriginalNotFound)),
            (refund, Some(Code::RefundExceedsOriginal)),
        ] {
            let number = table.push(PaymentRecord::asked(&intent, 0), intent.related);
            if let Some(code) = code {
                table.get_mut(number).code = code as u8;
            }
        }
        let breakdown = Breakdown::of(&table, 3);
        let debits = breakdown.kind(Kind::Debit);
        assert_eq!((debits.offered, debits.answered), (5, 4));
        assert_eq!((debits.committed, debits.declined), (1, 1));
        assert_eq!(debits.success_rate(), Some(0.5));
        assert_eq!(breakdown.by_kind()["refund"].success_rate, Some(0.0));
        assert_eq!(breakdown.by_kind().len(), 2);
        assert_eq!(breakdown.by_scene()["shopping"].answered, 6);
        assert_eq!(breakdown.participant(ParticipantIndex(1)).offered, 7);
        assert_eq!(breakdown.participant(ParticipantIndex(2)).success_rate(), None);
    }
}
