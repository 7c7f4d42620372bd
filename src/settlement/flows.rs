//! Who owes whom from a window, gross.

use hashbrown::HashTable;

use super::statement::Flow;
use crate::domain::{ParticipantIndex, Position};

/// The sums of every two participants of which one owed the other.
#[derive(Debug, Default)]
pub(super) struct Flows(HashTable<Flow>);

impl Flows {
    #[inline]
    pub(super) fn add(&mut self, debtor: ParticipantIndex, creditor: ParticipantIndex, amount: Position) {
        let same = |flow: &Flow| flow.debtor == debtor && flow.creditor == creditor;
        let flow = self
            .0
            .entry(hash(debtor, creditor), same, |flow| hash(flow.debtor, flow.creditor));
        let mut flow = flow.or_insert(Flow {
            debtor,
            creditor,
            payments: 0,
            amount_minor: 0,
        });
        let flow = flow.get_mut();
        flow.payments += 1;
        flow.amount_minor += amount;
    }

    /// The largest sums, the largest first; of equal ones the lower debtor's, then the lower creditor's.
    pub(super) fn largest(self, count: usize) -> Vec<Flow> {
        let mut flows: Vec<Flow> = self.0.into_iter().collect();
        flows.sort_unstable_by_key(|flow| (std::cmp::Reverse(flow.amount_minor), flow.debtor, flow.creditor));
        flows.truncate(count);
        flows
    }
}

/// Participants choose nothing of it, so mixing is all that is needed (Fibonacci hashing).
fn hash(debtor: ParticipantIndex, creditor: ParticipantIndex) -> u64 {
    let pair = (u64::from(debtor.0) << 16 | u64::from(creditor.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    pair ^ (pair >> 32)
}
