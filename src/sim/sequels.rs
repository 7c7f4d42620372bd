//! What the customers of an evening do next: they sign what they were authenticated for, end a mandate they have, and
//! want their money back.

use std::collections::{BTreeMap, VecDeque};

use super::random::Random;
use super::workload::{Answered, Intent, Related};
use crate::domain::{BindStep, Code, Kind, ParticipantIndex, Scene};

/// How long a customer takes to sign.
pub(super) const SIGNING_NS: u64 = 150_000_000;
/// Debits, mandates and the like kept at most; a newer one takes the place of an older one.
const KEPT_MAX: usize = 4_096;

/// An earlier payment that another may rest on.
#[derive(Clone, Copy, Debug)]
struct Earlier {
    number: u32,
    initiator: ParticipantIndex,
    responder: ParticipantIndex,
    scene: Scene,
    /// What it moved, minor units.
    amount_minor: u64,
    /// What no refund was asked for yet.
    rest_minor: u64,
}

impl Earlier {
    const fn of(answered: &Answered) -> Self {
        Self {
            number: answered.number,
            initiator: answered.initiator,
            responder: answered.responder,
            scene: answered.scene,
            amount_minor: answered.amount_minor,
            rest_minor: answered.amount_minor,
        }
    }

    /// A Refund of this, at no particular time.
    const fn refund(&self, amount_minor: u64, provoked: Option<Code>) -> Intent {
        Intent {
            kind: Kind::Refund,
            related: Related::Payment(self.number),
            provoked,
            ..Intent::debit(0, self.initiator, self.responder, amount_minor, self.scene)
        }
    }
}

/// The Sign that follows a committed Authenticate, `due_ns` from the run's start; `None` after any other answer.
pub(super) fn sign_after(answered: &Answered, due_ns: u64) -> Option<Intent> {
    let is_authenticated = answered.step == BindStep::Authenticate && answered.code == Code::Committed;
    is_authenticated.then(|| Intent {
        kind: answered.kind,
        step: BindStep::Sign,
        related: Related::Payment(answered.number),
        ..Intent::debit(due_ns, answered.initiator, answered.responder, 0, answered.scene)
    })
}

/// What can follow from the answers so far. Only what an institution knows to be committed is built on.
#[derive(Debug)]
pub(super) struct Sequels {
    random: Random,
    /// Debits that may be given back, in part or whole.
    debits: Vec<Earlier>,
    /// Debits of which one Refund, not answered yet, gives back the whole.
    giving_back: BTreeMap<u32, Earlier>,
    /// Debits that were given back as a whole.
    given_back: Vec<Earlier>,
    /// Signs, in the order of their time.
    signs: VecDeque<Intent>,
    /// The Signs of Binds.
    mandates: Vec<Earlier>,
}

impl Sequels {
    /// Nothing is answered yet.
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            debits: Vec::new(),
            giving_back: BTreeMap::new(),
            given_back: Vec::new(),
            signs: VecDeque::new(),
            mandates: Vec::new(),
        }
    }

    /// Takes note of an answer that came at `now_ns`.
    pub(super) fn answered(&mut self, now_ns: u64, answered: &Answered) {
        let is_committed = answered.code == Code::Committed;
        match answered.kind {
            Kind::Debit if is_committed => match answered.scene {
                Scene::Shopping | Scene::Utility | Scene::Other => {
                    keep(&mut self.debits, Earlier::of(answered), &mut self.random);
                }
                // Nobody asks for a red packet back.
                Scene::Transfer | Scene::RedPacket | Scene::GalaRedPacket => {}
            },
            Kind::Refund => {
                if let Related::Payment(original) = answered.related
                    && let Some(debit) = self.giving_back.get(&original).copied()
                    && answered.amount_minor == debit.amount_minor
                {
                    self.giving_back.remove(&original);
                    if is_committed {
                        keep(&mut self.given_back, debit, &mut self.random);
                    }
                }
            }
            Kind::Bind if is_committed && answered.step == BindStep::Sign => {
                keep(&mut self.mandates, Earlier::of(answered), &mut self.random);
            }
            Kind::Bind | Kind::Unbind => self.signs.extend(sign_after(answered, now_ns + SIGNING_NS)),
            Kind::Debit | Kind::Payout => {}
        }
    }

    /// A Sign whose time has come.
    pub(super) fn sign(&mut self, now_ns: u64) -> Option<Intent> {
        if self.signs.front()?.due_ns > now_ns {
            return None;
        }
        self.signs.pop_front()
    }

    /// A Refund, of a part or the whole of what is left of a Debit.
    pub(super) fn refund(&mut self) -> Option<Intent> {
        let at = pick(&self.debits, &mut self.random)?;
        let debit = &mut self.debits[at];
        let amount_minor = if self.random.chance(60_000) {
            debit.rest_minor
        } else {
            1 + self.random.below(debit.rest_minor)
        };
        let refund = debit.refund(amount_minor, None);
        debit.rest_minor -= amount_minor;
        if debit.rest_minor == 0 {
            let debit = self.debits.swap_remove(at);
            if amount_minor == debit.amount_minor {
                self.giving_back.insert(debit.number, debit);
            }
        }
        Some(refund)
    }

    /// A Refund by one minor unit over what is left, which the switch must refuse: of all, or of what was given back.
    pub(super) fn refund_over_rest(&mut self) -> Option<Intent> {
        let over = Some(Code::RefundExceedsOriginal);
        if let Some(at) = pick(&self.given_back, &mut self.random) {
            return Some(self.given_back[at].refund(1, over));
        }
        let debit = self.debits[pick(&self.debits, &mut self.random)?];
        Some(debit.refund(debit.amount_minor + 1, over))
    }

    /// The Authenticate that begins to end a mandate.
    pub(super) fn unbind(&mut self) -> Option<Intent> {
        let at = pick(&self.mandates, &mut self.random)?;
        let mandate = self.mandates.swap_remove(at);
        Some(Intent {
            kind: Kind::Unbind,
            step: BindStep::Authenticate,
            related: Related::Payment(mandate.number),
            ..Intent::debit(0, mandate.initiator, mandate.responder, 0, mandate.scene)
        })
    }
}

fn pick(kept: &[Earlier], random: &mut Random) -> Option<usize> {
    (!kept.is_empty()).then(|| random.below(kept.len() as u64) as usize)
}

fn keep(kept: &mut Vec<Earlier>, earlier: Earlier, random: &mut Random) {
    if kept.len() < KEPT_MAX {
        kept.push(earlier);
    } else {
        kept[random.below(KEPT_MAX as u64) as usize] = earlier;
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::answered_for_tests;
    use super::*;

    fn debit(amount_minor: u64, scene: Scene) -> Intent {
        Intent::debit(0, ParticipantIndex(1), ParticipantIndex(200), amount_minor, scene)
    }

    #[test]
    fn refunds_never_give_back_more_than_was_paid_and_only_of_what_is_committed() {
        let mut sequels = Sequels::new(1);
        for (number, scene, code) in [
            (4, Scene::Shopping, Code::CustomerFunds),
            (5, Scene::RedPacket, Code::Committed),
        ] {
            sequels.answered(0, &answered_for_tests(number, &debit(900, scene), code));
        }
        assert!(sequels.refund().is_none() && sequels.refund_over_rest().is_none());
        let paid = answered_for_tests(7, &debit(1_000, Scene::Shopping), Code::Committed);
        sequels.answered(0, &paid);
        let mut sum = 0;
        while let Some(refund) = sequels.refund() {
            assert_eq!(refund.related, Related::Payment(7));
            assert!(refund.amount_minor > 0 && refund.provoked.is_none());
            sum += refund.amount_minor;
        }
        assert_eq!(sum, 1_000);
    }

    #[test]
    fn what_was_given_back_as_a_whole_can_be_asked_for_once_too_often() {
        let mut sequels = Sequels::new(2);
        let paid = answered_for_tests(7, &debit(1, Scene::Shopping), Code::Committed);
        sequels.answered(0, &paid);
        assert_eq!(sequels.refund_over_rest().map(|refund| refund.amount_minor), Some(2));
        let refund = sequels.refund().unwrap();
        // Not answered yet: it may still be declined.
        assert!(sequels.refund_over_rest().is_none());
        sequels.answered(9, &answered_for_tests(8, &refund, Code::Committed));
        let over = sequels.refund_over_rest().unwrap();
        assert_eq!(over.provoked, Some(Code::RefundExceedsOriginal));
        assert_eq!((over.related, over.amount_minor), (Related::Payment(7), 1));
    }

    #[test]
    fn a_sign_follows_a_committed_authenticate_and_an_unbind_a_signed_bind() {
        let mut sequels = Sequels::new(3);
        let bind = Intent {
            kind: Kind::Bind,
            step: BindStep::Authenticate,
            ..debit(0, Scene::Other)
        };
        let refused = answered_for_tests(3, &bind, Code::AccountInvalid);
        sequels.answered(0, &refused);
        assert!(sequels.sign(u64::MAX).is_none());
        sequels.answered(10, &answered_for_tests(4, &bind, Code::Committed));
        assert!(sequels.sign(SIGNING_NS + 9).is_none());
        let sign = sequels.sign(SIGNING_NS + 10).unwrap();
        assert_eq!((sign.step, sign.related), (BindStep::Sign, Related::Payment(4)));
        assert!(sequels.unbind().is_none());
        sequels.answered(20, &answered_for_tests(5, &sign, Code::Committed));
        let unbind = sequels.unbind().unwrap();
        assert_eq!((unbind.kind, unbind.related), (Kind::Unbind, Related::Payment(5)));
        assert!(sequels.unbind().is_none(), "ended twice");
    }
}
