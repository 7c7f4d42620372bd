//! A participant in the engine: terms, cover, position, outbox.

use super::figures::Success;
use super::outbox::Outbox;
use crate::domain::{Amount, Kind, ParticipantTerms, Position, Role};

/// One participant's account in one currency. All sums in minor units. What a payment looks at comes first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Account {
    /// Debits − credits over all windows not yet settled.
    pub(super) position: Position,
    /// Σ amounts of Reserved and InDoubt payments that this participant will owe.
    pub(super) reserved: Position,
    /// The part of the cover that position and reservations may use.
    pub(super) cap: Position,
    /// Use of so much or more raises the alarm's level: follows from cap and level.
    pub(super) rises_at: Position,
    /// Use of less lowers it: follows from cap and level.
    pub(super) falls_below: Position,
    /// Prefunded.
    pub(super) cover: Position,
    /// How many of the levels of the alarm use has come to.
    pub(super) level: u8,
    /// The participant has this currency.
    pub(super) open: bool,
}

/// What became of an account's cover, kept apart from it: invariant 2. All sums in minor units.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct CoverBook {
    /// What the participant joined with.
    pub(super) opening: Position,
    /// Σ of what approved orders brought in.
    pub(super) brought_in: Position,
    /// Σ of what approved orders took out.
    pub(super) taken_out: Position,
    /// Σ of the nets of settled windows.
    pub(super) settled: Position,
}

impl CoverBook {
    /// What the cover should be.
    pub(super) const fn closing(&self) -> Position {
        self.opening + self.brought_in - self.taken_out - self.settled
    }
}

impl Default for Account {
    fn default() -> Self {
        Self::with(false, 0, 0)
    }
}

impl Account {
    /// Nothing of the cap is used.
    pub(super) fn with(open: bool, cover: Position, cap: Position) -> Self {
        let mut account = Self {
            position: 0,
            reserved: 0,
            cap,
            rises_at: 0,
            falls_below: 0,
            cover,
            level: 0,
            open,
        };
        account.set_thresholds();
        account
    }

    /// What is owed and what may come to be.
    #[inline]
    pub(super) fn used(&self) -> Position {
        self.position + self.reserved
    }

    /// True when a payment of `amount` may be admitted: invariant 3, in-flight amounts included.
    #[inline]
    pub(super) fn admits(&self, amount: Amount) -> bool {
        self.used() + amount.as_position() <= self.cap
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
    /// What became of each account's cover.
    pub(super) books: [CoverBook; 4],
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
                    Some(a) => Account::with(true, a.cover_minor.into(), a.cap_minor.into()),
                },
            );
        let books = accounts.map(|account| CoverBook {
            opening: account.cover,
            ..CoverBook::default()
        });
        Self {
            terms,
            role,
            accounts,
            books,
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
