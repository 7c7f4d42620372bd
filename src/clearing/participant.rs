//! A participant in the engine: terms, cover, position, outbox.

use super::figures::Success;
use super::outbox::Outbox;
use crate::domain::{Amount, Kind, ParticipantTerms, Position, Role};

/// One participant's account in one currency. All sums in minor units.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Account {
    /// The participant has this currency.
    pub(super) open: bool,
    /// Debits − credits over all windows not yet settled.
    pub(super) position: Position,
    /// Σ amounts of Reserved and InDoubt payments that this participant will owe.
    pub(super) reserved: Position,
    /// Prefunded.
    pub(super) cover: Position,
    /// The part of the cover that position and reservations may use.
    pub(super) cap: Position,
}

impl Account {
    /// True when a payment of `amount` may be admitted: invariant 3, in-flight amounts included.
    #[inline]
    pub(super) fn admits(&self, amount: Amount) -> bool {
        self.position + self.reserved + amount.as_position() <= self.cap
    }

    #[inline]
    pub(super) fn reserve(&mut self, amount: Amount) {
        self.reserved += amount.as_position();
    }

    #[inline]
    pub(super) fn release(&mut self, amount: Amount) {
        self.reserved -= amount.as_position();
        assert!(
            self.reserved >= 0,
            "reserved sum fell to {} after the release of {}",
            self.reserved,
            amount.0
        );
    }
}

/// A participant.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) terms: ParticipantTerms,
    pub(super) role: Role,
    /// Per currency slot of the scheme.
    pub(super) accounts: [Account; 4],
    /// Which T1 queue its payments wait in.
    pub(super) doubt_class: usize,
    pub(super) outbox: Outbox,
    pub(super) success: Success,
}

impl Participant {
    pub(super) fn new(terms: ParticipantTerms, role: Role, currencies: &[u16; 4], doubt_class: usize) -> Self {
        let accounts =
            currencies.map(
                |currency| match terms.accounts.iter().find(|a| a.currency == currency && currency != 0) {
                    None => Account::default(),
                    Some(a) => Account {
                        open: true,
                        cover: Position::from(a.cover_minor),
                        cap: Position::from(a.cap_minor),
                        ..Account::default()
                    },
                },
            );
        Self {
            terms,
            role,
            accounts,
            doubt_class,
            outbox: Outbox::default(),
            success: Success::default(),
        }
    }

    #[inline]
    pub(super) fn may_initiate(&self) -> bool {
        self.terms.suspended & ParticipantTerms::SUSPENDED_INITIATOR == 0
    }

    #[inline]
    pub(super) fn may_be_asked(&self) -> bool {
        self.terms.suspended & ParticipantTerms::SUSPENDED_RESPONDER == 0
    }

    /// T2 of a payment of this kind to this responder, nanoseconds from acceptance.
    #[inline]
    pub(super) fn expiry_ns(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Debit => self.terms.expiry_pull_ns,
            Kind::Payout | Kind::Refund | Kind::Bind | Kind::Unbind => self.terms.expiry_push_ns,
        }
    }
}
