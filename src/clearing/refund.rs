//! Refunds: how much of each Debit has been given back or may still be.
//!
//! Trees and no hash tables: they grow without a pause, and their order is that of the payments.

use std::collections::BTreeMap;

use super::engine::Engine;
use super::finding::Known;
use super::payment::PaymentRecord;
use crate::domain::{BusinessDate, Code, Kind, ParticipantIndex, PaymentId, PaymentSlot, PaymentState, UtcNanos};
use crate::wire::PaymentBody;

/// What refunds hold of their originals, which may have gone from the engine long ago.
#[derive(Debug, Default)]
pub(super) struct Refunds {
    /// Original → Σ amounts of its Reserved, InDoubt and Committed refunds, where there is any.
    sums: BTreeMap<PaymentId, u64>,
    /// Open refund → its original.
    open: BTreeMap<u32, PaymentId>,
}

impl Refunds {
    /// What a snapshot says.
    pub(super) fn restored(
        sums: impl Iterator<Item = (PaymentId, u64)>,
        open: impl Iterator<Item = (u32, PaymentId)>,
    ) -> Self {
        Self {
            sums: sums.collect(),
            open: open.collect(),
        }
    }

    /// What refunds of this original hold of it, minor units.
    pub(super) fn sum(&self, original: PaymentId) -> u64 {
        self.sums.get(&original).copied().unwrap_or(0)
    }

    /// An accepted refund takes its part of the original.
    pub(super) fn take(&mut self, refund: PaymentSlot, original: PaymentId, amount_minor: u64) {
        *self.sums.entry(original).or_insert(0) += amount_minor;
        self.open.insert(refund.0, original);
    }

    /// A refund has committed: its part stays taken. Gives its original.
    pub(super) fn keep(&mut self, refund: PaymentSlot) -> PaymentId {
        let original = self.open.remove(&refund.0);
        original.unwrap_or_else(|| panic!("refund in slot {} commits and holds no original", refund.0))
    }

    /// A refund was declined or has expired: its part may be refunded by another. Gives its original.
    pub(super) fn give_back(&mut self, refund: PaymentSlot, amount_minor: u64) -> PaymentId {
        let original = self.open.remove(&refund.0);
        let original = original.unwrap_or_else(|| panic!("refund in slot {} ends and holds no original", refund.0));
        let sum = self.sums.get_mut(&original).map_or(0, |sum| {
            assert!(
                *sum >= amount_minor,
                "{amount_minor} given back to the original {original}, of which refunds hold {sum}"
            );
            *sum -= amount_minor;
            *sum
        });
        if sum == 0 {
            self.sums.remove(&original);
        }
        original
    }

    /// Forgets the sums of originals dated before `first` that no open refund holds: none of them can be refunded.
    pub(super) fn forget_before(&mut self, first: BusinessDate) {
        let kept = self.sums.split_off(&PaymentId::new(first, ParticipantIndex(0), 0, 0));
        let mut past = std::mem::replace(&mut self.sums, kept);
        for original in self.open.values().filter(|original| original.date() < first) {
            if let Some(sum) = past.remove(original) {
                self.sums.insert(*original, sum);
            }
        }
    }

    /// (original, sum) in the order of the originals.
    pub(super) fn sums(&self) -> impl ExactSizeIterator<Item = (PaymentId, u64)> {
        self.sums.iter().map(|(&original, &sum)| (original, sum))
    }

    /// (refund, original) in the order of the open refunds.
    pub(super) fn open(&self) -> impl ExactSizeIterator<Item = (u32, PaymentId)> {
        self.open.iter().map(|(&refund, &original)| (refund, original))
    }

    #[cfg(test)]
    pub(super) fn forget(&mut self, original: PaymentId) {
        self.sums.remove(&original);
    }
}

/// Why a Refund's original can't be said at once.
pub(super) enum NotRefundable {
    /// It is refused with this code.
    Refused(Code),
    /// The register must be asked.
    Away,
}

/// What is known of a Refund's original.
#[derive(Clone, Copy)]
pub(super) enum Original<'a> {
    /// The register was not asked.
    NotAsked,
    /// What the register said.
    Found(Option<&'a PaymentRecord>),
}

impl Engine {
    /// Makes sure that the original of a Refund may be refunded by this much: codes 25 and 26.
    pub(super) fn refundable(
        &self,
        body: &PaymentBody,
        found: Original<'_>,
        time: UtcNanos,
    ) -> Result<(), NotRefundable> {
        let not_found = NotRefundable::Refused(Code::OriginalNotFound);
        // An id may be dated tomorrow: no day is between then.
        let days = time
            .business_date()
            .day_number()
            .saturating_sub(body.original.date().day_number());
        if body.original.originator() != body.id.originator() || days > u64::from(self.scheme.refund_days) {
            return Err(not_found);
        }
        let original = match (found, self.known(body.original)) {
            (Original::Found(Some(original)), _) => original,
            (Original::NotAsked, Known::Resident(slot)) => &self.payments[slot],
            (Original::NotAsked, Known::Away) => return Err(NotRefundable::Away),
            (Original::NotAsked, Known::Nowhere) | (Original::Found(None), _) => return Err(not_found),
        };
        let fits = original.kind == Kind::Debit as u8
            && original.state == PaymentState::Committed as u8
            && original.responder == body.responder
            && original.currency == body.currency;
        if !fits {
            return Err(not_found);
        }
        let left = original.amount_minor.saturating_sub(self.refunds.sum(body.original));
        if body.amount_minor > left {
            return Err(NotRefundable::Refused(Code::RefundExceedsOriginal));
        }
        Ok(())
    }
}
