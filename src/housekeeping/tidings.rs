//! What clearing tells the steward: orders decided about, alarms of cover, windows closed. By a ring of their own, so that
//! nobody waits.

use crate::domain::{Currency, ParticipantIndex, ParticipantTerms, UtcNanos};
use crate::wire::OrderOutcome;

/// What clearing tells.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "ring entries are by value: nothing is allocated where payments flow"
)]
pub enum Tiding {
    /// An order was decided about.
    Ordered(Ordered),
    /// The use of a participant's cap has come to another level.
    Alarm(CoverAlarm),
    /// A window has closed, and the currency's next one was opened.
    Closed {
        /// The currency.
        currency: Currency,
        /// The time of both.
        at: UtcNanos,
    },
}

/// What became of an order.
#[derive(Clone, Copy, Debug)]
pub struct Ordered {
    /// As it was given with the order.
    pub reference: u64,
    /// The event that carried it.
    pub event: u64,
    /// What became of it.
    pub outcome: OrderOutcome,
    /// [`crate::wire::OrderAction`] as a number: of an approval or refusal, the proposal's.
    pub action: u8,
    /// The terms in force after it of whom it is about, where there is such a participant.
    pub terms: Option<ParticipantTerms>,
}

/// An alarm of cover, rising or falling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoverAlarm {
    /// The time of the event that raised it.
    pub time: UtcNanos,
    /// The participant.
    pub participant: ParticipantIndex,
    /// The currency.
    pub currency: Currency,
    /// The level now, basis points of the cap.
    pub level_bp: u16,
    /// The level before.
    pub before_bp: u16,
    /// Position and reservations, minor units.
    pub used_minor: i64,
    /// The cap, minor units.
    pub cap_minor: i64,
}
