//! The follower: a second engine behind the live one, for everything that takes time.
//!
//! It reads the journal as the live engine does, a little later and on a thread that nobody waits for. From what it
//! applies it writes the day register and takes snapshots; it answers what the live engine can't know any more; and it
//! holds the live engine's state marks against its own, event by event, so that a difference between two runs of the same
//! events is found within moments and not at the next start.
//!
//! ```text
//! journal ─ JournalReader ─▶ engine ─▶ register ─▶ findings ─▶ sequencer
//!              never beyond          │         └▶ words told again, old inquiries ─▶ dispatch
//!              what is applied       └▶ snapshots
//! clearing ─ look-ups, questions, marks ─▶
//! ```
//! What it promises: a look-up is answered when the register holds everything up to the event that asks. A snapshot says
//! which files of the register belong to it, and those are durable before it. When the disk is full it waits, and goes on;
//! when what it reads is damaged, or a mark differs, it stops, says so, and neither files nor answers anything more.

mod agent;
mod counters;
#[cfg(test)]
mod fault;
mod outlet;
mod parts;
mod schedule;
#[cfg(test)]
mod tests;
mod words;
mod writing;

pub use agent::Follower;
pub use counters::FollowerCounters;
#[cfg(test)]
pub(crate) use fault::{Fault as FollowerFault, plant};
pub use parts::{FollowerParts, RegisterQuery};
pub use schedule::SnapshotSchedule;
