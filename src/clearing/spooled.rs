//! What the engine says to those who write settlement's files from its events.

use super::engine::Engine;
use crate::domain::{Currency, ParticipantTerms, Position, SchemeTerms, UtcNanos, WindowId, WindowState};

/// Where a window stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowStanding {
    /// Its id.
    pub id: WindowId,
    /// The currency.
    pub currency: Currency,
    /// Its state.
    pub state: WindowState,
    /// When it closed; 0 while open.
    pub closed: UtcNanos,
}

impl Engine {
    /// The scheme's terms; zero before Genesis.
    #[must_use]
    pub const fn scheme(&self) -> &SchemeTerms {
        &self.scheme
    }

    /// The terms of every participant, in the order of their numbers.
    pub fn terms_in_force(&self) -> impl Iterator<Item = &ParticipantTerms> {
        self.participants.iter().map(|participant| &participant.terms)
    }

    /// Each window that the engine knows, in the order of their opening.
    pub fn window_standings(&self) -> impl Iterator<Item = WindowStanding> {
        self.windows.iter().map(|window| WindowStanding {
            id: window.id,
            currency: Currency(window.currency),
            state: window.state,
            closed: window.closed,
        })
    }

    /// How many payments have become final since Genesis: as many were told to the register.
    #[must_use]
    pub const fn finals(&self) -> u64 {
        let figures = &self.figures;
        figures.committed + figures.declined + figures.rejected + figures.expired
    }

    /// Each participant's cover in a currency of the scheme, in the order of their numbers, minor units.
    pub fn covers(&self, currency: Currency) -> impl Iterator<Item = Position> {
        let slot = self.currency_slot(currency);
        let participants = slot.map(|slot| self.participants.iter().map(move |of| of.accounts[slot].cover));
        participants.into_iter().flatten()
    }
}
