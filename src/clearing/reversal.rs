//! Reversals: objects of their own, raised toward a bank whose pull expired, until the bank acknowledges.

use std::collections::BTreeMap;

use super::payment::PaymentRecord;
use crate::domain::{BusinessDate, ParticipantIndex, PaymentId, SECOND, UtcNanos};
use crate::wire::{AnswerFlags, Frame, FrameHeader, Reversal};

/// After this long without an acknowledgement an operator must see to it.
const MANUAL_AFTER_NS: u64 = 24 * 3_600 * SECOND;
const BACKOFF_LONGEST_NS: u64 = 60 * SECOND;

/// Where a Reversal stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum ReversalState {
    /// To be sent (again) until the bank acknowledges.
    Due = 1,
    /// The bank has taken it.
    Acknowledged = 2,
    /// An operator must see to it.
    Manual = 3,
}

/// A Reversal.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReversalObject {
    pub(super) state: ReversalState,
    pub(super) attempts: u8,
    pub(super) raised: UtcNanos,
    /// When it is to be sent again; a timer of any other time is void.
    pub(super) next: UtcNanos,
    /// Its number among the bank's words.
    pub(super) word: u64,
    /// The payment, which may have gone from the table.
    pub(super) payment: PaymentRecord,
}

/// All Reversals, by payment.
#[derive(Debug, Default)]
pub(super) struct Reversals {
    objects: BTreeMap<PaymentId, ReversalObject>,
    /// (bank, word number) → payment: derived.
    words: BTreeMap<(u16, u64), PaymentId>,
}

impl Reversals {
    pub(super) fn get(&self, id: PaymentId) -> Option<&ReversalObject> {
        self.objects.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: PaymentId) -> Option<&mut ReversalObject> {
        self.objects.get_mut(&id)
    }

    /// The Reversal that is this word toward a bank.
    pub(super) fn by_word(&self, bank: ParticipantIndex, word: u64) -> Option<&ReversalObject> {
        self.get(*self.words.get(&(bank.0, word))?)
    }

    pub(super) fn insert(&mut self, reversal: ReversalObject) {
        let payment = &reversal.payment;
        self.words.insert((payment.responder.0, reversal.word), payment.id);
        self.objects.insert(payment.id, reversal);
    }

    /// Forgets those of payments dated before `first` that the bank has taken; gives them, in the order of the ids.
    pub(super) fn forget_before(&mut self, first: BusinessDate) -> Vec<ReversalObject> {
        let is_kept = |id: &PaymentId, reversal: &ReversalObject| {
            id.date() >= first || reversal.state != ReversalState::Acknowledged
        };
        let gone = self.objects.iter().filter(|(id, reversal)| !is_kept(id, reversal));
        let gone = gone.map(|(_, reversal)| *reversal).collect();
        self.objects.retain(|id, reversal| is_kept(id, reversal));
        self.words.retain(|_, id| self.objects.contains_key(id));
        gone
    }

    /// True when the timer of this deadline still means something.
    pub(super) fn is_due_at(&self, id: PaymentId, deadline: UtcNanos) -> bool {
        self.get(id)
            .is_some_and(|r| r.state == ReversalState::Due && r.next == deadline)
    }

    /// In the order of the payments' ids.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &ReversalObject> {
        self.objects.values()
    }

    pub(super) fn count(&self, state: ReversalState) -> u64 {
        self.objects.values().filter(|r| r.state == state).count() as u64
    }
}

impl ReversalState {
    /// Reads the number.
    pub(super) fn from_u8(number: u8) -> Option<Self> {
        [Self::Due, Self::Acknowledged, Self::Manual]
            .into_iter()
            .find(|state| *state as u8 == number)
    }
}

impl ReversalObject {
    /// Counts an attempt at `now`; gives when to try again, or `None` when it has become Manual. The first attempt is
    /// always made: a Reversal raised by a timer that fires a day late must still reach its bank.
    pub(super) fn attempt(&mut self, now: UtcNanos) -> Option<UtcNanos> {
        if self.attempts > 0 && now.since(self.raised) >= MANUAL_AFTER_NS {
            self.state = ReversalState::Manual;
            return None;
        }
        let pause = (SECOND << self.attempts.min(6)).min(BACKOFF_LONGEST_NS);
        self.attempts = self.attempts.saturating_add(1);
        self.next = now.plus(pause);
        Some(self.next)
    }
}

/// A Reversal as a frame.
pub(super) fn reversal_frame(reversal: &ReversalObject, repeated: bool) -> Reversal {
    let payment = &reversal.payment;
    Reversal {
        header: FrameHeader::new(Reversal::TEMPLATE, size_of::<Reversal>()),
        id: payment.id,
        word: reversal.word,
        amount_minor: payment.amount_minor,
        currency: payment.currency,
        kind: payment.kind,
        attempt: reversal.attempts,
        initiator: payment.initiator(),
        flags: if repeated { AnswerFlags::RETRANSMITTED } else { 0 },
        reserved: 0,
        raised_ns: reversal.raised.0,
        reserved2: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reversal_backs_off_from_one_second_to_sixty_and_becomes_manual_after_a_day() {
        let start = UtcNanos(1_000 * SECOND);
        let mut reversal = ReversalObject {
            state: ReversalState::Due,
            attempts: 0,
            raised: start,
            next: start,
            word: 1,
            payment: bytemuck::Zeroable::zeroed(),
        };
        let mut now = start;
        let mut pauses = Vec::new();
        while let Some(next) = reversal.attempt(now) {
            pauses.push(next.since(now) / SECOND);
            now = next;
        }
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(now.since(start) >= 24 * 3_600 * SECOND);
        assert_eq!(reversal.state, ReversalState::Manual);
    }
}
