//! The day register: what became of every payment, and every word ever told, on disk and found by its key.
//!
//! The engine keeps in memory only what is near. What has left it is asked for here: a late refund's original, an old
//! inquiry, a cold duplicate, a word to be told again. The follower writes the register behind the live engine; nothing in
//! it is truth that the journal does not hold, so all of it can be made again by replay.
//!
//! What it promises:
//! - Memory is bounded: a [`Shelf`] keeps at most so many records in memory and writes them out, sorted, as a *run*; runs
//!   are merged into longer ones a slice at a time, and when a day is sealed into one.
//! - A run is there whole or not at all (temporary name, flush, rename, flush of the directory), each block of it has a CRC,
//!   and its footer a BLAKE3 of everything before: a torn one is never read.
//! - A record is found by reading one block a level of the run's tree: five for a run of a milliard payments.
//! - Writing the same record again changes nothing: a replay that begins earlier than the register ends does no harm.
//!
//! ```text
//! register/20260204/payments-000000-000015.run      sixteen runs merged into one
//!                   payments-000016-000016.run
//!                   words-000000-000003.run
//! ```

mod block;
mod day_register;
mod door;
mod error;
mod merge;
mod reader;
mod run;
mod shelf;
#[cfg(test)]
mod tests;
mod writer;

pub use block::{BLOCK_BYTES, Filed, RegisterKey};
pub use day_register::{DayRegister, FiledWord, RegisterCoverage, RegisterOptions};
pub use door::{FileDoor, FileGate, FileStep};
pub use error::RegisterError;
pub use run::{Run, RunName};
pub use shelf::{Coverage, Shelf, ShelfOptions};
