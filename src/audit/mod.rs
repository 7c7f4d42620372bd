//! The auditor: recomputes the whole ledger from the raw journal and says which invariant does not hold.
//!
//! It imports floors 0 and 1 only and shares nothing with the engine but the layouts in [`crate::wire`]: a second,
//! slower and simpler reading of the rules, so that a mistake in one of the two shows as a difference. It keeps every
//! figure twice, once event by event as it happens ([`Auditor`]) and once summed up over all payments at the end, and
//! reports where the two differ as a finding. What the switch itself claims is held against it with
//! [`Recomputed::differences`].
//!
//! Input is never trusted: an event that can't be is a finding, not a panic.

mod admission;
mod auditor;
mod books;
mod books_file;
mod contract;
mod days;
mod detail_file;
mod finding;
mod invariant;
mod invariants;
mod json_file;
mod messages;
mod notebook;
mod orders;
mod recomputed;
mod reconciliation;
mod residency;
mod row;
#[cfg(test)]
mod script;
mod sorting;
mod summary_file;
#[cfg(test)]
mod tests;
mod told;
mod verification;
mod window_books;
mod window_files;
mod xml_file;

pub use auditor::Auditor;
pub use books_file::BooksError;
pub use invariant::{Finding, Invariant};
pub use notebook::InvariantReport;
pub use recomputed::{CurrencyTotals, Recomputed, StateCounts, Statement, WindowTotals};
pub use reconciliation::{
    Difference, DifferenceKind, Reconciliation, ReconciliationError, ReconciliationOf, Remedy, reconcile, window_of,
};
pub use verification::{VerificationPlaces, VerificationProgress, Verified, verify};

use std::path::Path;

use crate::journal::{JournalError, JournalFiles, JournalStart};
use crate::register::RegisterError;

/// Why an audit could not be done; what it *found* is in [`Recomputed::findings`].
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The journal can't be read to its end.
    #[error("the audit could not read the journal to its end: {0}")]
    Journal(#[from] JournalError),
    /// The register can't be read.
    #[error("the audit could not read the register: {0}")]
    Register(#[from] RegisterError),
}

/// How many events lie between two reports of progress.
const PROGRESS_EVENTS: u64 = 1 << 16;

/// Recomputes the ledger from the journal in `directory`, up to its last durable event. `progress` is told now and then,
/// and at the end, how many events have been read.
///
/// # Errors
/// [`AuditError`] when the journal can't be read, or is damaged where it had been durable.
pub fn recompute(directory: &Path, mut progress: impl FnMut(u64)) -> Result<Recomputed, AuditError> {
    read_all(directory, &mut progress).map(Auditor::finish)
}

/// An auditor that has read the whole journal.
fn read_all(directory: &Path, progress: &mut impl FnMut(u64)) -> Result<Auditor, AuditError> {
    let files = JournalFiles::open(directory)?;
    let mut auditor = Auditor::new();
    for record in files.records_from(&JournalStart::BEGINNING)? {
        let record = record?;
        auditor.apply(record.kind, record.number, record.time, record.payload);
        if auditor.events().is_multiple_of(PROGRESS_EVENTS) {
            progress(auditor.events());
        }
    }
    progress(auditor.events());
    Ok(auditor)
}
