//! Links: sessions, and the agent that owns the sockets.
//!
//! A link agent decodes and checks each frame where it was received, refuses at the door what the door can refuse, and
//! hands the rest on as runs of whole frames. It never decides a payment. Whoever sends what can't be a frame of this
//! scheme loses the link, with a code; nobody else is harmed.

mod agent;
mod counters;
mod door;
mod inward;
mod outgoing;
mod outward;
mod roster;
mod session;

pub use agent::{IntakeRates, LinkAgent, LinkAgentParts, LinkLimits, LinkRings};
pub use counters::LinkCounters;
pub use roster::Roster;
pub use session::{Identity, Session, SessionEvent, SessionTimes};
