//! Refunds: how much of each Debit has been given back or may still be.
//!
//! Trees and no hash tables: they grow without a pause, and their order is that of the payments.

use std::collections::BTreeMap;

use super::engine::Engine;
use crate::domain::{Code, Kind, PaymentSlot, PaymentState, UtcNanos};
use crate::wire::PaymentBody;

/// What refunds hold of their originals.
#[derive(Debug, Default)]
pub(super) struct Refunds {
    /// Original → Σ amounts of its Reserved, InDoubt and Committed refunds, where there is any.
    sums: BTreeMap<u32, u64>,
    /// Open refund → its original.
    open: BTreeMap<u32, u32>,
}

impl Refunds {
    /// What refunds of this original hold of it, minor units.
    pub(super) fn sum(&self, original: PaymentSlot) -> u64 {
        self.sums.get(&original.0).copied().unwrap_or(0)
    }

    /// An accepted refund takes its part of the original.
    pub(super) fn take(&mut self, refund: PaymentSlot, original: PaymentSlot, amount_minor: u64) {
        *self.sums.entry(original.0).or_insert(0) += amount_minor;
        self.open.insert(refund.0, original.0);
    }

    /// A refund has committed: its part stays taken.
    pub(super) fn keep(&mut self, refund: PaymentSlot) {
        let original = self.open.remove(&refund.0);
        assert!(
            original.is_some(),
            "refund in slot {} commits and holds no original",
            refund.0
        );
    }

    /// A refund was declined or has expired: its part may be refunded by another.
    pub(super) fn give_back(&mut self, refund: PaymentSlot, amount_minor: u64) {
        let original = self.open.remove(&refund.0);
        let original = original.unwrap_or_else(|| panic!("refund in slot {} ends and holds no original", refund.0));
        let sum = self.sums.get_mut(&original).map_or(0, |sum| {
            assert!(
                *sum >= amount_minor,
                "{amount_minor} given back to the original in slot {original}, of which refunds hold {sum}"
            );
            *sum -= amount_minor;
            *sum
        });
        if sum == 0 {
            self.sums.remove(&original);
        }
    }

    /// (original, sum) in the order of the originals.
    pub(super) fn sums(&self) -> impl Iterator<Item = (u32, u64)> {
        self.sums.iter().map(|(&original, &sum)| (original, sum))
    }

    /// (refund, original) in the order of the open refunds.
    pub(super) fn open(&self) -> impl Iterator<Item = (u32, u32)> {
        self.open.iter().map(|(&refund, &original)| (refund, original))
    }
}

impl Engine {
    /// The original of a Refund, where it may be refunded by this much: codes 25 and 26.
    pub(super) fn refundable(&self, body: &PaymentBody, time: UtcNanos) -> Result<PaymentSlot, Code> {
        let Some((slot, original)) = self.find(body.original) else {
            return Err(Code::OriginalNotFound);
        };
        let fits = original.kind == Kind::Debit as u8
            && original.state == PaymentState::Committed as u8
            && original.initiator() == body.id.originator()
            && original.responder == body.responder
            && original.currency == body.currency;
        // An id may be dated tomorrow: no day is between then.
        let days = time
            .business_date()
            .day_number()
            .saturating_sub(original.id.date().day_number());
        if !fits || days > u64::from(self.scheme.refund_days) {
            return Err(Code::OriginalNotFound);
        }
        let left = original.amount_minor - self.refunds.sum(slot);
        if body.amount_minor > left {
            return Err(Code::RefundExceedsOriginal);
        }
        Ok(slot)
    }
}
