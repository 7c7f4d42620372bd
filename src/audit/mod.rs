//! The auditor: recomputes the whole ledger from the raw journal and says which invariant does not hold.
//!
//! It imports floors 0 and 1 only and shares nothing with the engine but the layouts in [`crate::wire`]: a second,
//! slower and simpler reading of the rules, so that a mistake in one of the two shows as a difference. It keeps every
//! figure twice, once event by event as it happens ([`Auditor`]) and once summed up over all payments at the end, and
//! reports where the two differ as a finding. What the switch itself claims is held against it with
//! [`Recomputed::differences`].
//!
//! Input is never trusted: an event that can't be is a finding, not a panic.

mod auditor;
mod books;
mod invariants;
mod recomputed;
#[cfg(test)]
mod tests;

pub use auditor::Auditor;
pub use recomputed::{CurrencyTotals, Recomputed, StateCounts, Statement, WindowTotals};
