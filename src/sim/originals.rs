//! What the refunds of a trace give back: the initiator's earliest committed Debit to that bank with enough left.
//!
//! A refund for which there is none yet is held until there is one.

use std::collections::{HashMap, VecDeque};

use super::workload::{Answered, Intent, Related};
use crate::domain::{Code, Kind, ParticipantIndex};

/// The Debits and Refunds of one trace, by initiator and bank.
#[derive(Debug, Default)]
pub(super) struct Originals {
    /// Only pairs of which the trace has a refund.
    pairs: HashMap<(ParticipantIndex, ParticipantIndex), Pair>,
    /// Refunds that have found their original, and are to be sent at once.
    ready: VecDeque<Intent>,
    held: usize,
}

#[derive(Debug, Default)]
struct Pair {
    /// Committed Debits and what is left of each, in the order in which they were committed.
    debits: Vec<(u32, u64)>,
    /// Refunds that wait, each with its line.
    held: VecDeque<(u32, Intent)>,
}

impl Pair {
    /// Takes the refund's amount from the earliest Debit that has as much left.
    fn take(&mut self, refund: &Intent) -> Option<Intent> {
        let at = self.debits.iter().position(|(_, rest)| *rest >= refund.amount_minor)?;
        let (number, rest) = &mut self.debits[at];
        *rest -= refund.amount_minor;
        Some(Intent {
            related: Related::Payment(*number),
            ..*refund
        })
    }
}

impl Originals {
    /// The originals that these payments' refunds will need.
    pub(super) fn of<'a>(intents: impl Iterator<Item = &'a Intent>) -> Self {
        Self {
            pairs: intents
                .filter(|intent| intent.kind == Kind::Refund)
                .map(|refund| ((refund.initiator, refund.responder), Pair::default()))
                .collect(),
            ready: VecDeque::new(),
            held: 0,
        }
    }

    /// Gives the refund on this line its original, or holds it.
    pub(super) fn refund(&mut self, line: u32, refund: &Intent) -> Option<Intent> {
        let pair = self.pairs.entry((refund.initiator, refund.responder)).or_default();
        let found = pair.take(refund);
        if found.is_none() {
            pair.held.push_back((line, *refund));
            self.held += 1;
        }
        found
    }

    /// A refund that was held and can be sent now.
    pub(super) fn next_ready(&mut self) -> Option<Intent> {
        self.ready.pop_front()
    }

    /// True when none waits to be sent now.
    pub(super) fn none_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// How many refunds wait for an original.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// A committed Debit can be given back, and so can what a refund did not.
    pub(super) fn answered(&mut self, answered: &Answered) {
        if self.pairs.is_empty() {
            return;
        }
        let Some(pair) = self.pairs.get_mut(&(answered.initiator, answered.responder)) else {
            return;
        };
        match (answered.kind, answered.related, answered.code) {
            (Kind::Debit, _, Code::Committed) => pair.debits.push((answered.number, answered.amount_minor)),
            (Kind::Refund, Related::Payment(original), code) if code != Code::Committed => {
                if let Some((_, rest)) = pair.debits.iter_mut().find(|(number, _)| *number == original) {
                    *rest += answered.amount_minor;
                }
            }
            _nothing_new => return,
        }
        for _ in 0..pair.held.len() {
            let Some((line, refund)) = pair.held.pop_front() else {
                break;
            };
            match pair.take(&refund) {
                Some(found) => {
                    self.held -= 1;
                    self.ready.push_back(found);
                }
                None => pair.held.push_back((line, refund)),
            }
        }
    }

    /// The lines of refunds that are still held, each with what it wanted.
    pub(super) fn left_out(&self) -> Vec<(u32, Intent)> {
        let mut lines: Vec<(u32, Intent)> = self.pairs.values().flat_map(|pair| pair.held.iter().copied()).collect();
        lines.sort_unstable_by_key(|(line, _)| *line);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::answered_for_tests;
    use super::*;
    use crate::domain::Scene;

    fn debit(amount_minor: u64) -> Intent {
        Intent::debit(
            0,
            ParticipantIndex(1),
            ParticipantIndex(200),
            amount_minor,
            Scene::Shopping,
        )
    }

    fn refund(amount_minor: u64) -> Intent {
        Intent {
            kind: Kind::Refund,
            ..debit(amount_minor)
        }
    }

    #[test]
    fn a_refund_takes_the_earliest_debit_with_enough_left_and_waits_for_one() {
        let mut originals = Originals::of([refund(1)].iter());
        assert!(originals.refund(4, &refund(60)).is_none());
        originals.answered(&answered_for_tests(1, &debit(50), Code::Committed));
        originals.answered(&answered_for_tests(2, &debit(90), Code::CustomerFunds));
        assert!(originals.none_ready() && originals.held() == 1);
        originals.answered(&answered_for_tests(3, &debit(90), Code::Committed));
        assert_eq!(originals.next_ready().unwrap().related, Related::Payment(3));
        assert_eq!(
            originals.refund(5, &refund(30)).unwrap().related,
            Related::Payment(1),
            "the earliest with enough left"
        );
        assert_eq!(originals.refund(6, &refund(30)).unwrap().related, Related::Payment(3));
        assert!(originals.refund(7, &refund(30)).is_none());
        let lines: Vec<u32> = originals.left_out().iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [7]);
    }

    #[test]
    fn what_a_declined_refund_would_have_given_back_is_free_again() {
        let mut originals = Originals::of([refund(1)].iter());
        originals.answered(&answered_for_tests(1, &debit(50), Code::Committed));
        let first = originals.refund(2, &refund(50)).unwrap();
        assert!(originals.refund(3, &refund(50)).is_none());
        originals.answered(&answered_for_tests(2, &first, Code::AccountClosed));
        assert_eq!(originals.next_ready().unwrap().related, Related::Payment(1));
        assert_eq!(originals.held(), 0);
    }
}
