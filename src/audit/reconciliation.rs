//! A participant's books against a window's detail file: what is missing, extra or different, and who does what about it.
//!
//! Both files are sorted by id in pieces and compared side by side: memory is bounded (about 60 MB) however long they are.
//! Of the differences so many are kept, the rest is counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::books::{Books, Payment};
use super::books_file::{BooksError, parse_window, read_books};
use super::sorting::BookLine;
use super::{AuditError, read_all};
use crate::domain::{Currency, Kind, PaymentId, PaymentState, WindowId};

/// Differences of each sort that are kept.
const DIFFERENCES_MAX: usize = 10_000;

/// What is reconciled.
#[derive(Clone, Debug)]
pub struct ReconciliationOf {
    /// The directory of windows' files.
    pub settlement: PathBuf,
    /// The window.
    pub window: WindowId,
    /// The participant's scheme code.
    pub participant: String,
    /// Its books: CSV with a header.
    pub books: PathBuf,
    /// The raw journal, where it is to be asked what became of what the window does not have.
    pub journal: Option<PathBuf>,
}

/// Why a reconciliation could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ReconciliationError {
    /// A file of booked payments can't be used.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] AuditError),
    /// The window has no files.
    #[error(
        "{directory}: window {window} has no files here; `clearway settle list` says which windows have, and `clearway settle \
         report` writes them from the journal"
    )]
    NoWindow {
        /// Where they were looked for.
        directory: String,
        /// The window.
        window: WindowId,
    },
    /// The participant is not in the window's summary.
    #[error("{file}: {participant} is no participant of this scheme")]
    NoParticipant {
        /// The summary.
        file: String,
        /// The participant's code.
        participant: String,
    },
}

/// What each side does about a difference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Remedy {
    /// Nothing: it is right, elsewhere or later.
    None,
    /// The participant asks for its words again, or inquires, and books what it is told.
    ByFinalStateNotice,
    /// The participant books, corrects or takes back from the detail file.
    ByFile,
}

impl Remedy {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ByFinalStateNotice => "by final-state notice",
            Self::ByFile => "by file",
        }
    }
}

/// What sort of difference it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DifferenceKind {
    /// In the window, not in the books.
    Missing,
    /// In the books, not in the window.
    Extra,
    /// In both, and not the same.
    Different,
}

impl DifferenceKind {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
        }
    }
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// What sort.
    pub kind: DifferenceKind,
    /// The payment.
    pub payment: PaymentId,
    /// What the window has: amount and side.
    pub window_says: Option<String>,
    /// What the books have, and in which line.
    pub books_say: Option<String>,
    /// What is known of it.
    pub because: String,
    /// Which way it is put right.
    pub remedy: Remedy,
    /// What the participant does.
    pub participant_does: &'static str,
    /// What the switch's operator does.
    pub switch_does: &'static str,
}

/// What a reconciliation came to.
#[derive(Clone, Debug, Default)]
pub struct Reconciliation {
    /// Payments that are the same on both sides.
    pub agreeing: u64,
    /// Lines of the books that are of other windows or currencies.
    pub passed_over: u64,
    /// Missing, extra, different: all of them.
    pub counts: BTreeMap<&'static str, u64>,
    /// The differences, by payment; at most 10,000 of each sort.
    pub differences: Vec<Difference>,
    /// Debits − credits of the window, and of the lines of the books that were compared; minor units.
    pub nets_minor: [i128; 2],
}

impl Reconciliation {
    /// True when both sides say the same.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.counts.values().all(|&count| count == 0)
    }
}

/// Compares. `progress` is told now and then how many events of the journal have been read.
///
/// # Errors
/// [`ReconciliationError`]: something can't be read or used; then nothing was compared.
pub fn reconcile(
    what: &ReconciliationOf,
    mut progress: impl FnMut(u64),
) -> Result<Reconciliation, ReconciliationError> {
    let directory = what.settlement.join(what.window.to_string());
    let currency = window_facts(what, &directory)?;
    let mut books = read_books(&what.books, &what.participant)?;
    let ours = directory.join("detail").join(format!("{}.csv", what.participant));
    // Who took part in nothing has no file.
    let mut ours = if ours.is_file() {
        Some(read_books(&ours, &what.participant)?)
    } else {
        None
    };
    let system = |error| BooksError::System {
        file: "the place for temporary files".to_owned(),
        error,
    };
    let mut found = Reconciliation::default();
    let mut next_of_ours = || match &mut ours {
        Some(lines) => lines.next(),
        None => Ok(None),
    };
    let (mut right, mut booked) = (next_of_ours().map_err(system)?, books.next().map_err(system)?);
    let mut last_booked: Option<BookLine> = None;
    loop {
        match (right, booked) {
            (None, None) => break,
            (Some(line), other) if other.is_none_or(|other| line.id < other.id) => {
                found.nets_minor[0] += net_of(&line);
                found.add(missing(&line));
                right = next_of_ours().map_err(system)?;
            }
            (Some(line), Some(other)) if line.id == other.id => {
                found.nets_minor[0] += net_of(&line);
                found.nets_minor[1] += net_of(&other);
                match different(&line, &other, what.window, currency) {
                    Some(difference) => found.add(difference),
                    None => found.agreeing += 1,
                }
                last_booked = Some(other);
                right = next_of_ours().map_err(system)?;
                booked = books.next().map_err(system)?;
            }
            (_, Some(other)) => {
                let twice = last_booked.filter(|last| last.id == other.id);
                let is_elsewhere = (other.window != 0 && other.window != what.window.0)
                    || (other.currency != 0 && other.currency != currency.0);
                if twice.is_none() && is_elsewhere {
                    found.passed_over += 1;
                } else {
                    found.nets_minor[1] += net_of(&other);
                    found.add(extra(&other, twice));
                }
                last_booked = Some(other);
                booked = books.next().map_err(system)?;
            }
            (Some(_), None) => unreachable!("a line without another is missing"),
        }
    }
    let mut extras: BTreeMap<PaymentId, usize> = found
        .differences
        .iter()
        .enumerate()
        .filter(|(_, difference)| difference.kind == DifferenceKind::Extra && difference.because == NOT_COMMITTED_HERE)
        .map(|(at, difference)| (difference.payment, at))
        .collect();
    look_in_other_windows(what, &mut extras, &mut found);
    if let Some(journal) = &what.journal
        && !extras.is_empty()
    {
        let auditor = read_all(journal, &mut progress)?;
        for (id, at) in extras {
            explain(&auditor.books, id, &mut found.differences[at]);
        }
    }
    Ok(found)
}

/// Sees that the window has files and the participant is one, and gives the currency.
fn window_facts(what: &ReconciliationOf, directory: &Path) -> Result<Currency, ReconciliationError> {
    let no_window = || ReconciliationError::NoWindow {
        directory: what.settlement.display().to_string(),
        window: what.window,
    };
    let file = directory.join("summary.json");
    let text = std::fs::read(&file).map_err(|_| no_window())?;
    let summary: serde_json::Value = serde_json::from_slice(&text).map_err(|_| no_window())?;
    let mut parties = summary["participants"].as_array().into_iter().flatten();
    if !parties.any(|party| party["code"] == what.participant.as_str()) {
        return Err(ReconciliationError::NoParticipant {
            file: file.display().to_string(),
            participant: what.participant.clone(),
        });
    }
    let named = Currency::NAMED.iter().find(|(word, _)| summary["currency"] == *word);
    Ok(named.map_or(Currency::default(), |(_, number)| Currency(*number)))
}

impl Reconciliation {
    fn add(&mut self, difference: Difference) {
        let count = self.counts.entry(difference.kind.name()).or_insert(0);
        *count += 1;
        if *count <= DIFFERENCES_MAX as u64 {
            self.differences.push(difference);
        }
    }
}

fn net_of(line: &BookLine) -> i128 {
    match line.side {
        1 => i128::from(line.amount_minor),
        2 => -i128::from(line.amount_minor),
        _ => 0,
    }
}

const fn side_name(side: u8) -> &'static str {
    match side {
        1 => "debit",
        2 => "credit",
        _ => "none",
    }
}

fn said(line: &BookLine) -> String {
    format!("{} {}", side_name(line.side), line.amount_minor)
}

const NOT_COMMITTED_HERE: &str = "not committed in this window";

fn missing(line: &BookLine) -> Difference {
    let kind = Kind::from_u8(line.kind);
    // Whoever asked had a final answer, and the bank of a push a Confirm: words, which are told again. The bank of a pull
    // has said yes itself and is told nothing more.
    let has_words = line.is_initiator == 1 || matches!(kind, Some(Kind::Payout | Kind::Refund));
    let (remedy, because, participant_does) = match (has_words, line.is_initiator == 1) {
        (true, true) => (
            Remedy::ByFinalStateNotice,
            "committed; its final answer was not booked",
            "asks for its words again from the first one it has not booked, or inquires, and books the payment",
        ),
        (true, false) => (
            Remedy::ByFinalStateNotice,
            "committed; its Confirm was not booked",
            "asks for its words again from the first one it has not booked, or inquires, and credits the account",
        ),
        (false, _) => (
            Remedy::ByFile,
            "committed on this bank's own yes",
            "books it from the detail file: it said yes",
        ),
    };
    Difference {
        kind: DifferenceKind::Missing,
        payment: line.id,
        window_says: Some(said(line)),
        books_say: None,
        because: because.to_owned(),
        remedy,
        participant_does,
        switch_does: "nothing: the payment is committed and in the window",
    }
}

fn extra(line: &BookLine, twice: Option<BookLine>) -> Difference {
    let (because, participant_does) = match twice {
        Some(first) => (
            format!("stands twice in the books, first in line {}", first.line),
            "takes one of the two back",
        ),
        None => (
            NOT_COMMITTED_HERE.to_owned(),
            "inquires; takes it back unless it is told of another window",
        ),
    };
    Difference {
        kind: DifferenceKind::Extra,
        payment: line.id,
        window_says: None,
        books_say: Some(format!("{}, line {}", said(line), line.line)),
        because,
        remedy: Remedy::ByFile,
        participant_does,
        switch_does: "nothing: what is not in the detail file is not settled",
    }
}

fn different(ours: &BookLine, theirs: &BookLine, window: WindowId, currency: Currency) -> Option<Difference> {
    let mut because = Vec::new();
    if ours.amount_minor != theirs.amount_minor {
        because.push("another amount");
    }
    if ours.side != theirs.side {
        because.push("another side");
    }
    if theirs.currency != 0 && theirs.currency != currency.0 {
        because.push("another currency");
    }
    let is_elsewhere = theirs.window != 0 && theirs.window != window.0;
    if because.is_empty() && !is_elsewhere {
        return None;
    }
    let only_the_window = because.is_empty();
    let mut books_say = format!("{}, line {}", said(theirs), theirs.line);
    if is_elsewhere {
        because.push("another window");
        books_say = format!("{books_say}, window {}", WindowId(theirs.window));
    }
    Some(Difference {
        kind: DifferenceKind::Different,
        payment: ours.id,
        window_says: Some(said(ours)),
        books_say: Some(books_say),
        because: because.join(", "),
        remedy: Remedy::ByFile,
        participant_does: if only_the_window {
            "moves it to this window, which every answer to it has named"
        } else {
            "corrects it to what the detail file says"
        },
        switch_does: "nothing: the detail file is what is settled",
    })
}

/// Looks for extras in the participant's other detail files; those found there are no differences of money.
fn look_in_other_windows(what: &ReconciliationOf, extras: &mut BTreeMap<PaymentId, usize>, found: &mut Reconciliation) {
    let entries = std::fs::read_dir(&what.settlement).into_iter().flatten().flatten();
    let mut windows: Vec<WindowId> = entries
        .filter_map(|entry| parse_window(&entry.file_name().to_string_lossy()))
        .filter(|window| *window != what.window)
        .collect();
    // The nearest first: a day's end falls between two of them.
    windows.sort_by_key(|window| window.0.abs_diff(what.window.0));
    for window in windows {
        if extras.is_empty() {
            return;
        }
        let file = what.settlement.join(window.to_string()).join("detail");
        let file = file.join(format!("{}.csv", what.participant));
        let Ok(mut reader) = csv::Reader::from_path(file) else {
            continue;
        };
        for record in reader.byte_records().map_while(Result::ok) {
            let id = record
                .get(0)
                .and_then(|id| str::from_utf8(id).ok())
                .and_then(PaymentId::parse);
            if let Some(at) = id.and_then(|id| extras.remove(&id)) {
                in_another_window(&mut found.differences[at], window);
            }
        }
    }
}

fn in_another_window(difference: &mut Difference, window: WindowId) {
    difference.because = format!("committed in window {window}");
    difference.remedy = Remedy::None;
    difference.participant_does = "nothing but to count it in that window";
    difference.switch_does = "nothing";
}

/// What the journal says became of a payment that the books have and the window has not.
fn explain(books: &Books, id: PaymentId, difference: &mut Difference) {
    let Some(payment) = books.find(id).map(|at| &books.payments[at]) else {
        difference.because = "the switch knows no such payment".to_owned();
        difference.participant_does = "takes it back: it never crossed the switch";
        return;
    };
    let Payment { state, code, kind, .. } = payment;
    let is_push = matches!(Kind::from_u8(*kind), Some(Kind::Payout | Kind::Refund));
    match state {
        PaymentState::Committed => {
            let window = books.windows.get(payment.window as usize);
            in_another_window(difference, window.map_or(WindowId::NONE, |window| window.id));
        }
        PaymentState::Reserved | PaymentState::InDoubt => {
            difference.because = "not final yet".to_owned();
            difference.remedy = Remedy::None;
            difference.participant_does = "waits for the final answer";
            difference.switch_does = "nothing: it becomes final by T2";
        }
        PaymentState::Expired => {
            difference.because = format!("expired, code {:02}", *code as u8);
            difference.remedy = Remedy::ByFinalStateNotice;
            difference.participant_does = if is_push {
                "asks for its words again and takes it back on the final-state notice"
            } else {
                "asks for its words again and takes it back on the Reversal, if it is the bank; else on the final answer"
            };
            difference.switch_does = "tells the words again; sees that a Reversal is acknowledged";
        }
        PaymentState::Declined | PaymentState::Rejected => {
            let state = if *state == PaymentState::Declined {
                "declined"
            } else {
                "rejected"
            };
            difference.because = format!("{state}, code {:02}", *code as u8);
            difference.remedy = Remedy::ByFinalStateNotice;
            difference.participant_does = "takes it back on the final answer, which is told again";
            difference.switch_does = "tells the words again; looks at its exception items for a late yes";
        }
    }
}

/// Reads a window's id as it is written: `W202611230001`.
#[must_use]
pub fn window_of(text: &str) -> Option<WindowId> {
    parse_window(text)
}
