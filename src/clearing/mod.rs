//! The clearing engine: a pure function of the journaled events.
//!
//! [`Engine::apply`] takes one event and says, through an [`Outlet`], what must leave the switch. It performs no I/O,
//! reads no clock, draws no randomness and never depends on the iteration order of a map: the same events give the same
//! [`Engine::state_hash`], live and in replay. The only time it knows is the event's.
//!
//! Floor 2: imports the domain, wire and memory, nothing else.

mod admission;
mod alarm;
mod duplicates;
mod engine;
mod exception;
#[cfg(test)]
mod fault;
mod figures;
mod finding;
mod invariant;
mod ladder;
mod mark;
mod mixing;
mod order;
mod outbox;
mod parked;
mod participant;
mod partition;
mod payment;
mod query;
mod refund;
mod reply;
mod residents;
mod reversal;
mod save;
mod save_index;
mod saved;
mod settlement;
mod spooled;
mod state_hash;
#[cfg(test)]
mod tests;
mod timer;
mod window;

pub use alarm::{COVER_HYSTERESIS_BP, COVER_LEVELS_BP};
pub use duplicates::{DuplicateIndex, IndexedLane};
pub use engine::{Engine, Event, Outlet};
pub use exception::{ExceptionItem, ExceptionKind};
#[cfg(test)]
pub(crate) use fault::{Fault as EngineFault, plant};
pub use figures::{Figures, Success};
pub use invariant::Breach;
pub use mark::StateMark;
pub use order::{OrderOutcomeSnapshot, ProposalSnapshot};
pub use query::{AccountSnapshot, InDoubtSnapshot, LedgerSnapshot, ParticipantSnapshot, Recalled, WindowSnapshot};
pub use saved::{LoadError, StateSource};
pub use spooled::WindowStanding;
pub use state_hash::StateHash;
