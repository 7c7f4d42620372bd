//! What is to be paid, and when: the workloads of the bench.

use super::random::{Picker, Random};
use crate::domain::{BindStep, Code, Kind, ParticipantIndex, Scene};

/// The earlier payment that one rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Related {
    /// None.
    Nothing,
    /// The payment with this number: a Refund's original, a Sign's Authenticate, the Bind that an Unbind ends.
    Payment(u32),
    /// One that never was: a Refund that is made to be refused.
    Unknown,
}

/// A payment that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// When it should be sent, nanoseconds from the run's start.
    pub due_ns: u64,
    /// Who asks.
    pub initiator: ParticipantIndex,
    /// Whose account it is.
    pub responder: ParticipantIndex,
    /// What is asked for.
    pub kind: Kind,
    /// The step of a Bind or Unbind.
    pub step: BindStep,
    /// What it rests on.
    pub related: Related,
    /// Minor units.
    pub amount_minor: u64,
    /// What it is for.
    pub scene: Scene,
    /// The refusal it provokes on purpose.
    pub provoked: Option<Code>,
    /// The same request is sent again this long after, nanoseconds.
    pub repeat_after_ns: Option<u64>,
}

impl Intent {
    /// A Debit that nothing is said about but this.
    #[must_use]
    #[inline]
    pub const fn debit(
        due_ns: u64,
        initiator: ParticipantIndex,
        responder: ParticipantIndex,
        amount_minor: u64,
        scene: Scene,
    ) -> Self {
        Self {
            due_ns,
            initiator,
            responder,
            kind: Kind::Debit,
            step: BindStep::None,
            related: Related::Nothing,
            amount_minor,
            scene,
            provoked: None,
            repeat_after_ns: None,
        }
    }
}

/// A payment that has its final answer, as the institution knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The payment's number.
    pub number: u32,
    /// Who asked.
    pub initiator: ParticipantIndex,
    /// Whose account it is.
    pub responder: ParticipantIndex,
    /// What was asked for.
    pub kind: Kind,
    /// The step of a Bind or Unbind.
    pub step: BindStep,
    /// What it rests on.
    pub related: Related,
    /// Minor units.
    pub amount_minor: u64,
    /// What it is for.
    pub scene: Scene,
    /// What came of it.
    pub code: Code,
}

/// A source of payments.
pub trait Workload {
    /// The next payment that is due at `now_ns` from the run's start.
    fn next(&mut self, now_ns: u64) -> Option<Intent>;

    /// When the next payment is due, if that is known; `None` = when an answer comes, or never.
    fn next_due_ns(&self) -> Option<u64>;

    /// True when no payment will come any more.
    fn is_finished(&self, now_ns: u64) -> bool;

    /// A payment has its final answer, at `now_ns` from the run's start.
    fn answered(&mut self, now_ns: u64, answered: &Answered) {
        let _ = (now_ns, answered);
    }

    /// What could not be made, when the run has ended; a sentence for each.
    fn left_out(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Workload for Box<dyn Workload + Send> {
    fn next(&mut self, now_ns: u64) -> Option<Intent> {
        (**self).next(now_ns)
    }

    fn next_due_ns(&self) -> Option<u64> {
        (**self).next_due_ns()
    }

    fn is_finished(&self, now_ns: u64) -> bool {
        (**self).is_finished(now_ns)
    }

    fn answered(&mut self, now_ns: u64, answered: &Answered) {
        (**self).answered(now_ns, answered);
    }

    fn left_out(&self) -> Vec<String> {
        (**self).left_out()
    }
}

/// How payments spread over participants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skew {
    /// All alike.
    Uniform,
    /// Zipf's law with exponent 1.
    Zipf,
}

impl Skew {
    /// The name that reports use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }

    fn picker(self, items: usize) -> Picker {
        match self {
            Self::Uniform => Picker::uniform(items),
            Self::Zipf => Picker::zipf(items, 1.0),
        }
    }
}

/// The participants a workload pays among.
#[derive(Clone, Debug)]
pub struct Parties {
    /// Those that ask.
    pub institutions: Vec<ParticipantIndex>,
    /// Those that are asked.
    pub banks: Vec<ParticipantIndex>,
}

/// Closed loop: every institution keeps a number of payments unanswered.
#[derive(Debug)]
pub struct Flood {
    parties: Parties,
    banks: Picker,
    random: Random,
    /// Institutions that may send one more payment, each as often as it may.
    free: Vec<ParticipantIndex>,
    end_ns: u64,
    ended: bool,
}

impl Flood {
    /// `in_flight` payments per institution on average, for `duration_ns`; with [`Skew::Zipf`] the same sum is shared
    /// out by Zipf's law, each institution having at least one.
    #[must_use]
    pub fn new(parties: Parties, in_flight: u32, skew: Skew, duration_ns: u64, seed: u64) -> Self {
        let count = parties.institutions.len();
        let picker = skew.picker(count);
        let all = count * in_flight as usize;
        let mut free = match skew {
            Skew::Uniform => (0..all).map(|n| parties.institutions[n % count]).collect::<Vec<_>>(),
            Skew::Zipf => {
                // Evenly spaced looks into the picker's places share the sum out by weight.
                let shared = (0..all.saturating_sub(count)).map(|n| picker.pick((n * 65_536 / all) as u64));
                (0..count).chain(shared).map(|n| parties.institutions[n]).collect()
            }
        };
        free.reverse();
        Self {
            banks: skew.picker(parties.banks.len()),
            parties,
            random: Random::new(seed),
            free,
            end_ns: duration_ns,
            ended: false,
        }
    }
}

impl Workload for Flood {
    #[inline]
    fn next(&mut self, now_ns: u64) -> Option<Intent> {
        if now_ns >= self.end_ns {
            self.ended = true;
            return None;
        }
        let initiator = self.free.pop()?;
        let bits = self.random.bits();
        let responder = self.parties.banks[self.banks.pick(bits)];
        let amount_minor = 1 + ((bits >> 16) & 0xffff);
        Some(Intent::debit(
            now_ns,
            initiator,
            responder,
            amount_minor,
            Scene::Shopping,
        ))
    }

    fn next_due_ns(&self) -> Option<u64> {
        None
    }

    fn is_finished(&self, _now_ns: u64) -> bool {
        self.ended
    }

    #[inline]
    fn answered(&mut self, _now_ns: u64, answered: &Answered) {
        self.free.push(answered.initiator);
    }
}

/// Open loop: payments come at a fixed rate, answered or not.
#[derive(Debug)]
pub struct Paced {
    parties: Parties,
    institutions: Picker,
    banks: Picker,
    random: Random,
    rate: u64,
    issued: u64,
    count: u64,
    next_due_ns: u64,
}

impl Paced {
    /// `rate` payments a second for `duration_ns`; each at a random moment of its own slot, so that the rate holds in
    /// every second and participants do not march in step.
    #[must_use]
    pub fn new(parties: Parties, rate: u64, skew: Skew, duration_ns: u64, seed: u64) -> Self {
        let count = (u128::from(rate) * u128::from(duration_ns) / 1_000_000_000) as u64;
        let mut paced = Self {
            institutions: skew.picker(parties.institutions.len()),
            banks: skew.picker(parties.banks.len()),
            parties,
            random: Random::new(seed),
            rate,
            issued: 0,
            count,
            next_due_ns: 0,
        };
        paced.next_due_ns = paced.due_ns();
        paced
    }

    fn due_ns(&mut self) -> u64 {
        let slot_ns = 1_000_000_000 / self.rate.max(1);
        let start = u128::from(self.issued) * 1_000_000_000 / u128::from(self.rate.max(1));
        start as u64 + self.random.below(slot_ns.max(1))
    }
}

impl Workload for Paced {
    #[inline]
    fn next(&mut self, now_ns: u64) -> Option<Intent> {
        if self.issued == self.count || self.next_due_ns > now_ns {
            return None;
        }
        let due_ns = self.next_due_ns;
        self.issued += 1;
        self.next_due_ns = self.due_ns();
        let bits = self.random.bits();
        let initiator = self.parties.institutions[self.institutions.pick(bits)];
        let responder = self.parties.banks[self.banks.pick(bits >> 16)];
        Some(Intent::debit(
            due_ns,
            initiator,
            responder,
            1 + (bits >> 48),
            Scene::Shopping,
        ))
    }

    fn next_due_ns(&self) -> Option<u64> {
        (self.issued < self.count).then_some(self.next_due_ns)
    }

    fn is_finished(&self, _now_ns: u64) -> bool {
        self.issued == self.count
    }
}

#[cfg(test)]
pub(super) fn answered_for_tests(number: u32, intent: &Intent, code: Code) -> Answered {
    Answered {
        number,
        initiator: intent.initiator,
        responder: intent.responder,
        kind: intent.kind,
        step: intent.step,
        related: intent.related,
        amount_minor: intent.amount_minor,
        scene: intent.scene,
        code,
    }
}

#[cfg(test)]
pub(super) fn parties_for_tests() -> Parties {
    Parties {
        institutions: (0..115).map(ParticipantIndex).collect(),
        banks: (115..539).map(ParticipantIndex).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_sends_again_only_after_an_answer() {
        for skew in [Skew::Uniform, Skew::Zipf] {
            let mut flood = Flood::new(parties_for_tests(), 4, skew, 1_000, 1);
            let mut counts = vec![0; 115];
            while let Some(intent) = flood.next(0) {
                counts[intent.initiator.index()] += 1;
            }
            assert_eq!(counts.iter().sum::<i32>(), 4 * 115);
            assert!(counts.iter().all(|&count| count > 0));
            assert_eq!(skew == Skew::Uniform, counts.iter().all(|&count| count == 4));
            let payment = Intent::debit(0, ParticipantIndex(3), ParticipantIndex(200), 5, Scene::Shopping);
            flood.answered(5, &answered_for_tests(7, &payment, Code::Committed));
            assert_eq!(flood.next(5).map(|intent| intent.initiator), Some(ParticipantIndex(3)));
            assert!(flood.next(5).is_none() && !flood.is_finished(5));
            assert!(flood.next(1_000).is_none() && flood.is_finished(1_000));
        }
    }

    #[test]
    fn a_paced_load_holds_its_rate_in_every_second() {
        let mut paced = Paced::new(parties_for_tests(), 1_234, Skew::Zipf, 3_000_000_000, 1);
        for second in 1..=3 {
            let mut count = 0;
            while let Some(intent) = paced.next(second * 1_000_000_000 - 1) {
                assert!(intent.due_ns < second * 1_000_000_000);
                count += 1;
            }
            assert!((1_233..=1_235).contains(&count), "second {second}: {count}");
        }
        assert!(paced.is_finished(0));
    }
}
