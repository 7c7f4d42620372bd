//! New Year's Eve, compressed: what is paid for when, by whom, and how the crowd's curve rises to its peak.
//!
//! People shop and settle their bills in the early evening, the televised gala sets off bursts of red packets, and at
//! midnight everybody sends red packets at once: there the curve stands on its plateau.

use super::random::{LogNormal, Picker, Random, mix};
use super::sequels::Sequels;
use super::workload::{Answered, Intent, Parties, Related, Workload};
use crate::domain::{BindStep, Code, Kind, ParticipantIndex, Scene};

/// The peak, payments a second: a little above the 44,000 that the scheme's record says, so that a whole second holds
/// them wherever it begins.
pub const EVENING_PEAK_PER_SECOND: u64 = 46_000;
/// The plateau lasts at least this long, so that a whole second lies in it.
const PLATEAU_SECONDS_MIN: f64 = 2.3;
/// The plateau's share of the evening, when that is longer.
const PLATEAU_SHARE: f64 = 0.12;
/// What the evening ends with, as a share of its length.
const AFTERMATH_SHARE: f64 = 0.2;
/// Of 100,000 payments so many are Payouts, Refunds, and Authenticates; the rest are Debits, and Signs that follow.
const PAYOUTS: u64 = 10_000;
const REFUNDS: u64 = 3_000;
const AUTHENTICATES: u64 = 1_500;
/// Of these Authenticates, so many are to end a mandate, if there is one.
const UNBINDS: u64 = 450;
/// Of 100,000 payments, so many are sent twice on purpose.
const REPEATS: u32 = 500;
/// And so many attempts that the switch must refuse are made on top: on-us payments, refunds over the rest, and refunds
/// of what never was.
const ON_US: u32 = 100;
const OVER_REST: u32 = 50;
const NO_ORIGINAL: u32 = 50;
/// Largest amount of a simulated payment, minor units.
const AMOUNT_MINOR_MAX: u64 = 5_000_000;

/// Before the plateau: (share of the time, share of the peak).
const RISE: &[(f64, f64)] = &[
    (0.00, 0.25),
    (0.20, 0.40),
    (0.27, 0.62), // the gala's first red packets
    (0.34, 0.42),
    (0.52, 0.50),
    (0.58, 0.75), // and its second
    (0.66, 0.50),
    (0.84, 0.62),
    (1.00, 1.00),
];
/// After it.
const FALL: &[(f64, f64)] = &[(0.0, 1.0), (0.35, 0.65), (1.0, 0.30)];

/// How a scene's amounts spread: median in minor units.
const SCENES: &[(Scene, u64)] = &[
    (Scene::Shopping, 8_800),
    (Scene::Transfer, 50_000),
    (Scene::RedPacket, 2_000),
    (Scene::GalaRedPacket, 188),
    (Scene::Utility, 15_000),
    (Scene::Other, 5_000),
];

/// New Year's Eve as a workload.
#[derive(Debug)]
pub struct Evening {
    parties: Parties,
    institutions: Picker,
    banks: Picker,
    amounts: LogNormal,
    random: Random,
    seconds: f64,
    /// Set = the same rate all evening.
    rate: Option<u64>,
    /// Where the next slot begins, seconds.
    slot: f64,
    issued: u64,
    next_due_ns: u64,
    /// Attempts to be refused, which go out beside the next payment.
    beside: Vec<Intent>,
    sequels: Sequels,
}

impl Evening {
    /// The evening's curve over `seconds`, or `rate` payments a second throughout. Repeatable by `seed`.
    #[must_use]
    pub fn new(parties: Parties, seconds: u32, rate: Option<u64>, seed: u64) -> Self {
        let mut evening = Self {
            institutions: Picker::new(&institution_weights(parties.institutions.len())),
            banks: Picker::zipf(parties.banks.len(), 1.0),
            parties,
            amounts: LogNormal::new(1.1, mix(seed ^ 1)),
            random: Random::new(mix(seed)),
            seconds: f64::from(seconds),
            rate,
            slot: 0.0,
            issued: 0,
            next_due_ns: 0,
            beside: Vec::new(),
            sequels: Sequels::new(mix(seed ^ 2)),
        };
        evening.next_due_ns = evening.draw_due();
        evening
    }

    /// Payments a second at `second` of the evening.
    fn rate_at(&self, second: f64) -> f64 {
        if let Some(rate) = self.rate {
            return rate as f64;
        }
        let plateau = (PLATEAU_SHARE * self.seconds)
            .max(PLATEAU_SECONDS_MIN)
            .min(self.seconds);
        let aftermath = (AFTERMATH_SHARE * self.seconds).min(self.seconds - plateau);
        let rise = self.seconds - plateau - aftermath;
        let share = if second < rise {
            between(RISE, second / rise)
        } else if second <= rise + plateau {
            1.0
        } else {
            between(FALL, (second - rise - plateau) / aftermath)
        };
        share * EVENING_PEAK_PER_SECOND as f64
    }

    /// The next payment's moment, somewhere in its own slot; ends the slot.
    fn draw_due(&mut self) -> u64 {
        // A fixed rate is counted, not summed up, so that it holds to the last payment.
        let (begin, end) = match self.rate {
            Some(rate) => {
                let rate = rate.max(1) as f64;
                (self.issued as f64 / rate, (self.issued + 1) as f64 / rate)
            }
            None => (self.slot, self.slot + 1.0 / self.rate_at(self.slot)),
        };
        self.slot = end;
        let due = begin + (end - begin) * self.random.unit();
        (due * 1e9) as u64
    }

    fn has_ended(&self) -> bool {
        self.next_due_ns as f64 >= self.seconds * 1e9
    }

    fn scene(&mut self, share: f64) -> Scene {
        // Early on people shop; as midnight nears, red packets take over.
        let red_packets = 10.0 + 60.0 * share * share;
        let draw = 100.0 * self.random.unit();
        let gala = if (0.55..0.8).contains(&share) { 25.0 } else { 3.0 };
        if draw < red_packets {
            Scene::RedPacket
        } else if draw < red_packets + gala * (1.0 - red_packets / 100.0) {
            Scene::GalaRedPacket
        } else {
            match self.random.below(100) {
                0..58 => Scene::Shopping,
                58..80 => Scene::Transfer,
                80..92 => Scene::Utility,
                _ => Scene::Other,
            }
        }
    }

    fn amount(&mut self, scene: Scene) -> u64 {
        let median = SCENES
            .iter()
            .find(|(of, _)| *of == scene)
            .map_or(5_000, |(_, median)| *median);
        self.amounts.around(median, self.random.bits()).min(AMOUNT_MINOR_MAX)
    }

    fn institution(&mut self) -> ParticipantIndex {
        self.parties.institutions[self.institutions.pick(self.random.bits())]
    }
}

impl Evening {
    /// The payment of this moment: what follows from earlier ones has first call on it, then the mixture draws.
    ///
    /// Each moment takes the same from the random sequence whatever was answered before it, so that a seed gives the same
    /// evening but for what follows from answers.
    fn draw(&mut self, due_ns: u64) -> Intent {
        let share = self.rate_at(due_ns as f64 / 1e9) / EVENING_PEAK_PER_SECOND as f64;
        let scene = self.scene(share.min(1.0));
        let initiator = self.institution();
        let responder = self.parties.banks[self.banks.pick(self.random.bits())];
        let debit = Intent::debit(due_ns, initiator, responder, self.amount(scene), scene);
        let kind = self.random.below(100_000);
        if let Some(sign) = self.sequels.sign(due_ns) {
            return Intent { due_ns, ..sign };
        }
        if kind < PAYOUTS {
            let scene = match scene {
                Scene::Shopping | Scene::Utility => Scene::Transfer,
                Scene::Transfer | Scene::RedPacket | Scene::GalaRedPacket | Scene::Other => scene,
            };
            return Intent {
                kind: Kind::Payout,
                scene,
                ..debit
            };
        }
        let sequel = if kind < PAYOUTS + REFUNDS {
            self.sequels.refund()
        } else if kind < PAYOUTS + REFUNDS + AUTHENTICATES {
            let unbind = (kind - PAYOUTS - REFUNDS < UNBINDS).then(|| self.sequels.unbind());
            Some(unbind.flatten().unwrap_or(Intent {
                kind: Kind::Bind,
                step: BindStep::Authenticate,
                amount_minor: 0,
                scene: Scene::Other,
                ..debit
            }))
        } else {
            None
        };
        // While there is nothing to be given back, people pay.
        sequel.map_or(debit, |sequel| Intent { due_ns, ..sequel })
    }

    /// Now and then, what the switch must refuse.
    fn provoke(&mut self, beside: &Intent) {
        if self.random.chance(ON_US) {
            let initiator = self.institution();
            let debit = Intent::debit(beside.due_ns, initiator, initiator, 100, Scene::Shopping);
            self.beside.push(Intent {
                provoked: Some(Code::OnUs),
                ..debit
            });
        }
        if self.random.chance(OVER_REST)
            && let Some(refund) = self.sequels.refund_over_rest()
        {
            self.beside.push(Intent {
                due_ns: beside.due_ns,
                ..refund
            });
        }
        if self.random.chance(NO_ORIGINAL) {
            self.beside.push(Intent {
                kind: Kind::Refund,
                step: BindStep::None,
                related: Related::Unknown,
                amount_minor: beside.amount_minor.max(1),
                provoked: Some(Code::OriginalNotFound),
                repeat_after_ns: None,
                ..*beside
            });
        }
    }
}

impl Workload for Evening {
    fn next(&mut self, now_ns: u64) -> Option<Intent> {
        if let Some(beside) = self.beside.pop() {
            return Some(beside);
        }
        if self.has_ended() || self.next_due_ns > now_ns {
            return None;
        }
        let mut intent = self.draw(self.next_due_ns);
        intent.repeat_after_ns = self.random.chance(REPEATS).then(|| {
            // Half at once, to meet the first one in flight; half when the answer is there.
            self.random.below(2) * (200_000_000 + self.random.below(500_000_000))
        });
        self.provoke(&intent);
        self.issued += 1;
        self.next_due_ns = self.draw_due();
        Some(intent)
    }

    fn next_due_ns(&self) -> Option<u64> {
        (!self.has_ended()).then_some(self.next_due_ns)
    }

    fn is_finished(&self, _now_ns: u64) -> bool {
        self.has_ended() && self.beside.is_empty()
    }

    fn answered(&mut self, now_ns: u64, answered: &Answered) {
        self.sequels.answered(now_ns, answered);
    }
}

/// Shares of the two giants in China's mobile payments of the fourth quarter of 2018, the last before the evening that is
/// played here: Alipay 53.8 %, Tenpay 38.9 % (Analysys, as reported by TechNode on 2019-03-28).
const GIANTS: [f64; 2] = [0.538, 0.389];

/// The giants have their shares; what is left follows Zipf's law.
fn institution_weights(count: usize) -> Vec<f64> {
    let tail: f64 = (1..count.saturating_sub(1)).map(|rank| 1.0 / rank as f64).sum();
    let left = 1.0 - GIANTS.iter().sum::<f64>();
    (0..count)
        .map(|rank| match GIANTS.get(rank) {
            Some(&share) => share,
            None => left / tail / (rank - 1) as f64,
        })
        .collect()
}

fn between(nodes: &[(f64, f64)], at: f64) -> f64 {
    let after = nodes
        .iter()
        .position(|node| node.0 > at)
        .unwrap_or(nodes.len() - 1)
        .max(1);
    let ((x0, y0), (x1, y1)) = (nodes[after - 1], nodes[after]);
    y0 + (y1 - y0) * ((at - x0) / (x1 - x0)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::workload::{answered_for_tests, parties_for_tests};
    use super::*;
    use crate::domain::Direction;

    /// The whole evening; each payment is committed as soon as it is made.
    fn all(seconds: u32, rate: Option<u64>) -> Vec<Intent> {
        let mut evening = Evening::new(parties_for_tests(), seconds, rate, 9);
        let mut intents = Vec::new();
        while !evening.is_finished(0) {
            if let Some(intent) = evening.next(u64::MAX) {
                let code = intent.provoked.unwrap_or(Code::Committed);
                let answered = answered_for_tests(intents.len() as u32, &intent, code);
                evening.answered(intent.due_ns, &answered);
                intents.push(intent);
            }
        }
        intents
    }

    fn per_second(intents: &[Intent], seconds: u32) -> Vec<u64> {
        let mut counts = vec![0; seconds as usize];
        for intent in intents.iter().filter(|intent| intent.provoked.is_none()) {
            counts[(intent.due_ns / 1_000_000_000) as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_curve_peaks_over_forty_four_thousand_for_a_whole_second_however_short_the_evening() {
        for seconds in [3, 5, 10, 30] {
            let counts = per_second(&all(seconds, None), seconds);
            assert!(*counts.iter().max().unwrap() >= 45_500, "{seconds} s: {counts:?}");
            assert!(*counts.iter().max().unwrap() <= 46_500, "{seconds} s: {counts:?}");
        }
    }

    #[test]
    fn a_fixed_rate_holds_in_every_second() {
        let counts = per_second(&all(4, Some(44_000)), 4);
        assert!(
            counts.iter().all(|count| (43_999..=44_001).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_mixture_is_as_in_life() {
        let intents = all(10, None);
        let count = intents.len();
        let of = |claim: fn(&Intent) -> bool| intents.iter().filter(|intent| claim(intent)).count();
        assert!(of(|i| i.initiator.0 < 2) * 10 > count * 9);
        let on_us = of(|i| i.provoked == Some(Code::OnUs));
        assert!((count / 1_400..count / 700).contains(&on_us), "{on_us} of {count}");
        assert_eq!(on_us, of(|i| i.responder == i.initiator));
        let repeats = of(|i| i.repeat_after_ns.is_some());
        assert!((count / 250..count / 160).contains(&repeats), "{repeats} of {count}");
        for (kind, percent) in [
            (Kind::Debit, 83..87),
            (Kind::Payout, 9..11),
            (Kind::Refund, 2..4),
            (Kind::Bind, 1..3),
            (Kind::Unbind, 0..2),
        ] {
            let of_kind = intents
                .iter()
                .filter(|i| i.kind == kind && i.provoked.is_none())
                .count();
            assert!(
                percent.contains(&(of_kind * 100 / count)),
                "{kind:?}: {of_kind} of {count}"
            );
            let has_money = kind.direction() != Direction::None;
            let amounts = if has_money { 1..=AMOUNT_MINOR_MAX + 1 } else { 0..=0 };
            assert!(
                intents
                    .iter()
                    .all(|i| i.kind != kind || amounts.contains(&i.amount_minor))
            );
        }
        for code in [Code::RefundExceedsOriginal, Code::OriginalNotFound] {
            let made = intents.iter().filter(|i| i.provoked == Some(code)).count();
            assert!(
                (count / 2_800..count / 1_400).contains(&made),
                "{code:?}: {made} of {count}"
            );
        }
        for scene in Scene::ALL {
            assert!(intents.iter().any(|i| i.scene == scene), "{scene:?}");
        }
    }

    #[test]
    fn refunds_rest_on_debits_of_the_same_parties_and_signs_on_authenticates() {
        let intents = all(3, None);
        let mut given_back = std::collections::HashMap::new();
        for intent in &intents {
            match intent.related {
                Related::Payment(number) => {
                    let earlier = &intents[number as usize];
                    assert_eq!(
                        (earlier.initiator, earlier.responder),
                        (intent.initiator, intent.responder)
                    );
                    if intent.kind == Kind::Refund {
                        assert_eq!(earlier.kind, Kind::Debit);
                        let sum = given_back.entry(number).or_insert(0);
                        *sum += intent.amount_minor;
                        assert_eq!(
                            *sum > earlier.amount_minor,
                            intent.provoked == Some(Code::RefundExceedsOriginal),
                            "{intent:?}"
                        );
                        if intent.provoked.is_some() {
                            *sum -= intent.amount_minor;
                        }
                    } else if intent.step == BindStep::Sign {
                        assert_eq!((earlier.kind, earlier.step), (intent.kind, BindStep::Authenticate));
                    }
                }
                Related::Nothing => assert!(intent.kind != Kind::Refund && intent.step != BindStep::Sign),
                Related::Unknown => assert_eq!(intent.provoked, Some(Code::OriginalNotFound)),
            }
        }
        assert!(
            intents
                .iter()
                .any(|i| i.step == BindStep::Sign && i.kind == Kind::Unbind)
        );
    }

    #[test]
    fn one_seed_gives_one_evening() {
        assert_eq!(all(1, Some(500)), all(1, Some(500)));
    }
}
