//! Exception items: payments about which the switch and a bank disagree, for an operator to see to.
//!
//! One of each sort a payment, in the order of the events. They are never taken back: an item says what happened.

use super::engine::Engine;
use crate::domain::{PaymentId, UtcNanos};

/// What is wrong with a payment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ExceptionKind {
    /// It is committed, and its bank said no (or never seen) afterwards.
    CommittedThenNo = 1,
    /// It is declined, and its bank said yes afterwards.
    DeclinedThenYes = 2,
    /// Its Reversal went a day without an acknowledgement.
    ReversalManual = 4,
}

impl ExceptionKind {
    /// All sorts, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::CommittedThenNo, Self::DeclinedThenYes, Self::ReversalManual];

    /// The sort's name as reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CommittedThenNo => "committed_then_no",
            Self::DeclinedThenYes => "declined_then_yes",
            Self::ReversalManual => "reversal_manual",
        }
    }

    /// The sort with this number.
    pub(super) fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| *sort as u8 == number)
    }

    /// Its bit among a payment's: the numbers are powers of two.
    pub(super) const fn bit(self) -> u8 {
        self as u8
    }
}

/// A payment that an operator must see to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExceptionItem {
    /// The payment.
    pub payment: PaymentId,
    /// What is wrong with it.
    pub what: ExceptionKind,
    /// The event with which that came to light.
    pub event: u64,
    /// Its time.
    pub time: UtcNanos,
}

impl Engine {
    /// Every exception item, in the order of the events.
    #[must_use]
    pub fn exceptions(&self) -> &[ExceptionItem] {
        &self.exceptions
    }

    /// Notes an item, unless the payment has one of this sort.
    pub(super) fn note_exception(&mut self, payment: PaymentId, what: ExceptionKind) {
        let sorts = self.excepted.entry(payment).or_insert(0);
        if *sorts & what.bit() != 0 {
            return;
        }
        *sorts |= what.bit();
        self.exceptions.push(ExceptionItem {
            payment,
            what,
            event: self.event_number,
            time: self.time,
        });
    }
}
