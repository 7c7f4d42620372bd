//! What is known of a closed window before its payments are gone through.

use crate::domain::{Currency, ParticipantIndex, Position, Role, SchemeCode, UtcNanos, WindowId};
use crate::wire::RegisterEntry;

/// A closed window as the engine had it; what its payments say must come to the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowFacts {
    /// Its id.
    pub window: WindowId,
    /// The currency.
    pub currency: Currency,
    /// The scheme's own code.
    pub scheme: SchemeCode,
    /// The journal that it is of.
    pub journal_id: [u8; 16],
    /// When it opened.
    pub opened: UtcNanos,
    /// When it closed.
    pub closed: UtcNanos,
    /// The event that closed it.
    pub close_event: u64,
    /// Payments that became final while it was open, committed or not.
    pub finals: u64,
    /// Payments committed in it.
    pub committed: u64,
    /// Σ of their amounts, minor units.
    pub gross_minor: Position,
    /// Every participant there was at the close, in the order of their numbers.
    pub parties: Vec<Party>,
}

/// A participant at a window's close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Party {
    /// The participant.
    pub index: ParticipantIndex,
    /// Its code.
    pub code: SchemeCode,
    /// Its role.
    pub role: Role,
    /// Debits − credits of the window, minor units.
    pub net_minor: Position,
}

/// A payment that became final while a window was its currency's open one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FinalPayment {
    /// The event that made it final; no two committed ones share one.
    pub event: u64,
    /// What became of it. A committed one's `window` is this window.
    pub entry: RegisterEntry,
}
