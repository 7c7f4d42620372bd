//! Simulated institutions and banks: the load of demo and bench.
//!
//! All participants live in one thread over one driver ([`LoadEngine`]). Each keeps books of its own ([`Books`]) from
//! what passes over its links, and nothing else, so that holding them against the switch proves something. Payments
//! come from a [`Workload`]: a flood, a fixed rate, New Year's Eve, or a file of the user's own.

mod answers;
mod bank;
mod books;
mod breakdown;
mod closes;
mod engine;
mod evening;
mod links;
mod load;
#[cfg(test)]
mod memory_switch;
mod originals;
mod outcome;
mod payment;
mod pushes;
mod random;
mod replies;
mod sequels;
mod session;
#[cfg(test)]
mod tests;
mod trace;
mod wheel;
mod words;
mod workload;

pub use bank::{BankHabits, Verdict};
pub use books::{Book, Books, ParticipantFigures, WindowFigures};
pub use breakdown::{Breakdown, Tally, TallyFigures};
pub use closes::CloseFigures;
pub use engine::{Idle, LoadEngine, LoadError, LoadOptions, LoadResult, ParticipantPlan};
pub use evening::{EVENING_PEAK_PER_SECOND, Evening};
pub use outcome::{FinalAnswer, Live, Outcomes, SecondFigures, latency_histogram, quantile_us};
pub use random::{LogNormal, Picker, Random, mix};
pub use session::{Identity, Session, SessionEnd, SessionState, SessionStep};
pub use trace::{Recorded, Trace, TraceError};
pub use words::WordTracker;
pub use workload::{Answered, Flood, Intent, Paced, Parties, Related, Skew, Workload};
