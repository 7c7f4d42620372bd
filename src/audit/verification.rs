//! Settlement verified: every window and day is made again from the raw journal and held against its files, and what the
//! switch told its participants against both.
//!
//! It reads the journal once. All payments are held in memory until its end, about 130 bytes each (ten million of them:
//! 1.3 GB), because a late refund or a late word may concern any of them. Files are read beside that, line by line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::auditor::Auditor;
use super::books::Traces;
use super::contract::Contracts;
use super::days::Days;
use super::invariant::{Finding, Invariant};
use super::notebook::{InvariantReport, Notebook};
use super::recomputed::Recomputed;
use super::window_books::{Closed, Windows};
use super::window_files::check_window;
use super::{AuditError, PROGRESS_EVENTS, told};
use crate::domain::{WindowId, WindowState};
use crate::journal::{JournalFiles, JournalStart};

/// Where what is verified lies.
#[derive(Clone, Debug)]
pub struct VerificationPlaces {
    /// The directory of the journal's segments, from its first on.
    pub journal: PathBuf,
    /// The directory of windows' and days' files; none where there is none yet.
    pub settlement: Option<PathBuf>,
    /// The day register; none where it is not at hand.
    pub register: Option<PathBuf>,
}

/// How far a verification has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerificationProgress {
    /// So many events have been read.
    Events(u64),
    /// The files of this window are checked.
    Window(WindowId),
    /// The register is read.
    Register,
}

/// What a verification came to.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The ledger as the journal makes it.
    pub recomputed: Recomputed,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// For each of the ten invariants: how it was checked, over how many, what speaks against it.
    pub invariants: Vec<InvariantReport>,
    /// Findings that belong to none of the ten.
    pub other_findings: u64,
    /// What is no fault and should be known.
    pub remarks: Vec<String>,
    /// Windows whose files were checked.
    pub windows_checked: u64,
    /// Windows that closed.
    pub windows_closed: u64,
    /// Files that were checked.
    pub files_checked: u64,
}

impl Verified {
    /// True when nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Verifies what lies in `places`, with code that shares nothing with the engine but the layouts in [`crate::wire`].
/// `progress` is told now and then how far it has come.
///
/// # Errors
/// [`AuditError`] when the journal or the register can't be read, or is damaged.
pub fn verify(
    places: &VerificationPlaces,
    mut progress: impl FnMut(VerificationProgress),
) -> Result<Verified, AuditError> {
    let files = JournalFiles::open(&places.journal)?;
    let mut run = Run {
        journal_id: files.journal_id(),
        settlement: places.settlement.as_deref(),
        auditor: Auditor::new(),
        windows: Windows::default(),
        days: Days::default(),
        contracts: Contracts::default(),
        notebook: Notebook::default(),
        without_files: Vec::new(),
        windows_checked: 0,
        windows_closed: 0,
        files_checked: 0,
    };
    run.auditor.books.traces = Some(Traces::default());
    for record in files.records_from(&JournalStart::BEGINNING)? {
        let record = record?;
        let payments_before = Contracts::before(&run.auditor);
        run.auditor
            .apply(record.kind, record.number, record.time, record.payload);
        run.contracts.after(
            &run.auditor,
            payments_before,
            record.kind,
            record.number,
            record.payload,
            &mut run.notebook,
        );
        let books = &mut run.auditor.books;
        let closed = run.windows.after(books, record.kind, record.number, record.time);
        run.days.after(books, record.kind, record.number, record.time);
        for window in closed {
            progress(VerificationProgress::Window(window.id));
            run.window_closed(&window);
        }
        if run.auditor.events().is_multiple_of(PROGRESS_EVENTS) {
            progress(VerificationProgress::Events(run.auditor.events()));
        }
    }
    if let Some(register) = &places.register {
        progress(VerificationProgress::Register);
        told::check(&run.auditor.books, run.journal_id, register, &mut run.notebook)?;
    } else {
        run.notebook.remark(
            "there is no register here: final states and words were not held against what the switch told".to_owned(),
        );
    }
    Ok(run.finish())
}

struct Run<'a> {
    journal_id: [u8; 16],
    settlement: Option<&'a Path>,
    auditor: Auditor,
    windows: Windows,
    days: Days,
    contracts: Contracts,
    notebook: Notebook,
    /// Windows that have closed and have no directory.
    without_files: Vec<WindowId>,
    windows_checked: u64,
    windows_closed: u64,
    files_checked: u64,
}

impl Run<'_> {
    fn window_closed(&mut self, window: &Closed) {
        self.windows_closed += 1;
        let Some(settlement) = self.settlement else { return };
        let directory = settlement.join(window.id.to_string());
        if !directory.is_dir() {
            self.without_files.push(window.id);
            return;
        }
        self.windows_checked += 1;
        self.files_checked += check_window(
            &self.auditor.books,
            window,
            self.journal_id,
            &directory,
            &mut self.notebook,
        );
    }

    fn finish(mut self) -> Verified {
        if let Some(settlement) = self.settlement {
            self.check_directories(settlement);
            self.files_checked += self.days.check(&self.auditor.books, settlement, &mut self.notebook);
        } else {
            self.notebook
                .remark("there is no settlement directory here: no files were checked".to_owned());
        }
        self.contracts.close(&mut self.notebook);
        let mut notebook = self.notebook;
        let (recomputed, found) = self.auditor.finish_with_findings();
        count_what_the_books_say(&recomputed, &mut notebook);
        found.into_iter().for_each(|finding| notebook.find(finding));
        let (findings, invariants, other_findings, remarks) = notebook.close();
        Verified {
            recomputed,
            findings,
            invariants,
            other_findings,
            remarks,
            windows_checked: self.windows_checked,
            windows_closed: self.windows_closed,
            files_checked: self.files_checked,
        }
    }

    /// A settled window has files, and there are no windows but the journal's.
    fn check_directories(&mut self, settlement: &Path) {
        for &id in &self.without_files {
            let window = self.auditor.books.windows.iter().find(|window| window.id == id);
            if window.is_some_and(|window| window.state == WindowState::Settled) {
                let finding = Invariant::Replay.broken("the window is settled, and its files are missing".to_owned());
                self.notebook.find(finding.in_file(id.to_string()).at(id));
            } else {
                self.notebook.remark(format!(
                    "window {id} has closed and is not settled; it has no files yet"
                ));
            }
        }
        let known: BTreeSet<String> = self
            .auditor
            .books
            .windows
            .iter()
            .filter(|window| window.state != WindowState::Open)
            .map(|window| window.id.to_string())
            .collect();
        for entry in std::fs::read_dir(settlement).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_ours = known.contains(&name) || ["spool", "day"].contains(&name.as_str()) || name.starts_with('.');
            if !is_ours {
                let finding = Invariant::Replay.broken("no closed window of the journal".to_owned());
                self.notebook.find(finding.in_file(name));
            }
        }
    }
}

/// What the auditor checked of the ledger that it made itself, event by event and once more over all payments.
fn count_what_the_books_say(recomputed: &Recomputed, notebook: &mut Notebook) {
    let payments = recomputed.payments;
    let windows = recomputed.windows.len() as u64;
    let finals = payments.committed + payments.declined + payments.expired + payments.rejected;
    let currencies = 1 + recomputed.further_currencies.len();
    let accounts = (recomputed.positions.len() * currencies) as u64;
    for (invariant, how, count) in [
        (Invariant::ZeroSum, "windows, recomputed", windows),
        (Invariant::Positions, "accounts, recomputed twice", accounts),
        (
            Invariant::Cover,
            "admissions, decided again",
            payments.accepted + payments.rejected,
        ),
        (Invariant::Windows, "committed payments, recomputed", payments.committed),
        (Invariant::Reservations, "accounts, recomputed twice", accounts),
        (Invariant::OneAnswer, "payments that became final, recomputed", finals),
        (
            Invariant::Replay,
            "events read and applied again by code of its own",
            recomputed.events,
        ),
        (Invariant::Reversals, "expired payments, recomputed", payments.expired),
    ] {
        notebook.checked(invariant, how, count);
    }
}
