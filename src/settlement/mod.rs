//! Settlement: what a window, and a day, came to, as files that a central bank, a bank and an auditor can check.
//!
//! Everything here is made of what the engine says while it replays events ([`crate::clearing::Outlet`]), behind the
//! live engine by the follower or offline by `clearway settle report`; the same events give the same files, byte for byte.

mod append;
pub mod camt053;
pub mod camt054;
mod charts;
pub mod day;
pub mod detail;
pub mod error;
pub mod facts;
pub mod files;
mod flows;
mod layout;
pub mod made_up;
pub mod merkle;
pub mod pacs009;
pub mod pacs029;
pub mod page;
pub mod pass;
pub mod proof;
pub mod prove;
pub mod report;
pub mod row;
pub mod spool;
pub mod spool_reader;
pub mod spool_view;
pub mod statement;
pub mod summary;
pub mod sums;
#[cfg(test)]
mod tests;
mod xml;

pub use error::SettlementError;
pub use facts::{FinalPayment, Party, WindowFacts};
pub use files::{Draft, Existing, Publication, SettlementDirectory};
pub use merkle::{Digest, MerkleTree, PathFinder};
pub use pass::{publish_window, write_window};
pub use proof::{Proof, ProofError};
pub use spool::{SpoolOptions, SpoolWriter};
pub use spool_reader::{Finals, Movements, Spool};
pub use spool_view::{SpoolView, SpooledWindow, WindowSpool};
pub use statement::{CoverEntry, DayStatement, Flow, PartyDay, PartyStatement, Tallies, Tally, WindowStatement};
