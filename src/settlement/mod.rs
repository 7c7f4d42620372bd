//! Settlement: what a window, and a day, came to, as files that a central bank, a bank and an auditor can check.
//!
//! Everything here is made of what the engine says while it replays events ([`crate::clearing::Outlet`]), behind the
//! live engine by the follower or offline by `clearway settle report`; the same events give the same files, byte for byte.

pub mod error;
pub mod facts;
pub mod statement;

pub use error::SettlementError;
pub use facts::{FinalPayment, Party, WindowFacts};
pub use statement::{CoverEntry, DayStatement, Flow, PartyDay, PartyStatement, Tallies, Tally, WindowStatement};
