//! How a bank behaves: how long it thinks, and what it says.

use super::random::{LogNormal, Random, mix};
use crate::domain::{Code, Kind, ParticipantIndex};

/// A bank thinks at most this long.
const LATENCY_NS_MAX: u64 = 900_000_000;
const MILLISECOND_NS: u64 = 1_000_000;

/// The banks' habits in one run. What a bank does about a payment depends on the seed and the payment's number alone,
/// never on the order in which requests arrive.
#[derive(Debug)]
pub struct BankHabits {
    seed: u64,
    spread: LogNormal,
    /// Median latency per participant, nanoseconds; 0 = at once.
    medians_ns: Vec<u64>,
    declines_per_hundred_thousand: u32,
}

/// What a bank does about one payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// How long it thinks, nanoseconds; 0 = at once.
    pub delay_ns: u64,
    /// `None` = yes; else why not.
    pub refusal: Option<Code>,
}

impl BankHabits {
    /// Every bank says yes, at once: what a flood is measured with.
    #[must_use]
    pub fn at_once(participants: usize) -> Self {
        Self {
            seed: 0,
            spread: LogNormal::new(0.0, 0),
            medians_ns: vec![0; participants],
            declines_per_hundred_thousand: 0,
        }
    }

    /// As in life: each bank has a median latency of its own between 3 and 20 ms, log-normal around it, and declines
    /// about three payments in a hundred.
    #[must_use]
    pub fn as_in_life(participants: usize, seed: u64) -> Self {
        let mut random = Random::new(mix(seed));
        Self {
            seed,
            spread: LogNormal::new(0.5, seed),
            medians_ns: (0..participants)
                .map(|_| 3 * MILLISECOND_NS + random.below(17 * MILLISECOND_NS))
                .collect(),
            declines_per_hundred_thousand: 3_000,
        }
    }

    /// What `bank` does about the payment with this number and kind.
    #[must_use]
    #[inline]
    pub fn verdict(&self, bank: ParticipantIndex, number: u32, kind: Kind) -> Verdict {
        let median_ns = self.medians_ns[bank.index()];
        if median_ns == 0 && self.declines_per_hundred_thousand == 0 {
            return Verdict {
                delay_ns: 0,
                refusal: None,
            };
        }
        let mut random = Random::new(mix(self.seed ^ u64::from(number)));
        let delay_ns = if median_ns == 0 {
            0
        } else {
            self.spread.around(median_ns, random.bits()).min(LATENCY_NS_MAX)
        };
        let refusal = random
            .chance(self.declines_per_hundred_thousand)
            .then(|| decline(kind, &mut random));
        Verdict { delay_ns, refusal }
    }
}

/// Most Debits are declined for want of funds, which nobody needs to be paid, or to sign.
fn decline(kind: Kind, random: &mut Random) -> Code {
    let draw = random.below(100);
    match kind {
        Kind::Debit => match draw {
            0..60 => Code::CustomerFunds,
            60..72 => Code::BankDeclined,
            72..80 => Code::MandateMissing,
            80..87 => Code::AccountInvalid,
            87..92 => Code::AccountBlocked,
            92..96 => Code::AccountClosed,
            _ => Code::SuspectedFraud,
        },
        Kind::Payout | Kind::Refund | Kind::Bind => match draw {
            0..50 => Code::AccountInvalid,
            50..75 => Code::AccountClosed,
            75..90 => Code::AccountBlocked,
            _ => Code::BankDeclined,
        },
        Kind::Unbind => match draw {
            0..80 => Code::MandateMissing,
            _ => Code::BankDeclined,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 5] = Kind::ALL;

    #[test]
    fn banks_decline_about_three_in_a_hundred_and_think_a_few_milliseconds() {
        let habits = BankHabits::as_in_life(539, 42);
        let verdicts: Vec<Verdict> = (0..50_000)
            .map(|number| {
                habits.verdict(
                    ParticipantIndex(115 + (number % 424) as u16),
                    number,
                    KINDS[number as usize % 5],
                )
            })
            .collect();
        let declined = verdicts.iter().filter(|verdict| verdict.refusal.is_some()).count();
        assert!((1_300..1_700).contains(&declined), "{declined}");
        assert!(verdicts.iter().filter_map(|v| v.refusal).all(Code::is_bank_refusal));
        let mut delays: Vec<u64> = verdicts.iter().map(|verdict| verdict.delay_ns).collect();
        delays.sort_unstable();
        assert!((8 * MILLISECOND_NS..15 * MILLISECOND_NS).contains(&delays[25_000]));
        assert!(delays[49_999] <= LATENCY_NS_MAX);
    }

    #[test]
    fn a_bank_says_the_same_whenever_it_is_asked() {
        let habits = BankHabits::as_in_life(539, 42);
        for number in 0..100 {
            let bank = ParticipantIndex(300);
            let kind = KINDS[number as usize % 5];
            assert_eq!(habits.verdict(bank, number, kind), habits.verdict(bank, number, kind));
        }
    }
}
