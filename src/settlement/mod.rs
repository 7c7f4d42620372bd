//! Settlement: what a window, and a day, came to, as files that a central bank, a bank and an auditor can check.
//!
//! Everything here is made of what the engine says while it replays events ([`crate::clearing::Outlet`]), behind the
//! live engine by the follower or offline by `clearway settle report`; the same events give the same files, byte for byte.

mod append;
pub mod camt053;
pub mod camt054;
pub mod day;
pub mod error;
pub mod facts;
mod layout;
pub mod merkle;
pub mod pacs009;
pub mod pacs029;
pub mod proof;
pub mod spool;
pub mod spool_reader;
pub mod spool_view;
pub mod statement;
mod xml;

pub use error::SettlementError;
pub use facts::{FinalPayment, Party, WindowFacts};
pub use merkle::{Digest, MerkleTree, PathFinder};
pub use proof::{Proof, ProofError};
pub use spool::{SpoolOptions, SpoolWriter};
pub use spool_reader::{Finals, Movements, Spool};
pub use spool_view::{SpoolView, SpooledWindow, WindowSpool};
pub use statement::{CoverEntry, DayStatement, Flow, PartyDay, PartyStatement, Tallies, Tally, WindowStatement};
