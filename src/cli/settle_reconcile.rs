//! `clearway settle reconcile`: a participant's own books against a window's detail file.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::journal_archive::PlaceArgs;
use super::journal_report::Progress;
use super::output::{Table, money, report};
use super::{CliError, Verdict};
use crate::audit::{
    BooksError, Difference, DifferenceKind, Reconciliation, ReconciliationError, ReconciliationOf, reconcile, window_of,
};
use crate::domain::{SchemeCode, WindowId};

/// So many differences are printed; all that were kept are in the JSON.
const PRINTED_MAX: usize = 100;

/// Hold a participant's own books against what a window settles for it: what is missing, extra or different, and what each
/// side does about it; exits 1 where anything differs
///
/// BOOKS is a CSV file with a header and the columns payment_id, amount_minor and side (debit, credit, none), and perhaps
/// currency and window, in any order; others are ignored. However long it is, the command takes about 60 MB of memory;
/// with --journal about 90 bytes for each payment of the journal.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
                  clearway settle reconcile --window W202611230001 --participant C1100033000013 --books books.csv --dir data/settlement\n  \
                  clearway settle reconcile --window W202611230001 --participant C1100033000013 --books books.csv \
                  --dir data/settlement --journal data --json -")]
pub(super) struct ReconcileArgs {
    /// The window
    #[arg(long, value_name = "W", value_parser = window)]
    window: WindowId,
    /// The participant's scheme code
    #[arg(long, value_name = "CODE", value_parser = code)]
    participant: SchemeCode,
    /// The participant's own books
    #[arg(long, value_name = "FILE")]
    books: PathBuf,
    /// The settlement directory
    #[arg(long, value_name = "DIR", default_value = "settlement")]
    dir: PathBuf,
    /// The journal, to be asked what became of payments that only the books have
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn window(text: &str) -> Result<WindowId, String> {
    window_of(text).ok_or_else(|| "a window is W, its date and four digits, as in W202611230001".to_owned())
}

fn code(text: &str) -> Result<SchemeCode, String> {
    SchemeCode::parse(text).ok_or_else(|| "a scheme code has 14 digits and capital letters".to_owned())
}

pub(super) fn run(args: &ReconcileArgs) -> Result<Verdict, CliError> {
    let place = match &args.journal {
        Some(journal) => Some(PlaceArgs::of(journal, None, None).find()?),
        None => None,
    };
    let mut progress = Progress::new();
    let what = ReconciliationOf {
        settlement: args.dir.clone(),
        window: args.window,
        participant: args.participant.text(),
        books: args.books.clone(),
        journal: place.as_ref().map(|place| place.journal.clone()),
    };
    let found = reconcile(&what, |events| progress.tell(|| format!("{events} events read"))).map_err(refused)?;
    report(args.json.as_deref(), &to_json(&what, &found), &to_text(&what, &found))?;
    Ok(if found.is_clean() {
        Verdict::Well
    } else {
        Verdict::Wrong
    })
}

/// What the caller can put right is a matter of use.
fn refused(error: ReconciliationError) -> CliError {
    match error {
        ReconciliationError::Journal(error) => CliError::Failed(error.to_string()),
        ReconciliationError::Books(BooksError::System { .. })
        | ReconciliationError::Books(BooksError::NoColumn { .. } | BooksError::Unusable { .. })
        | ReconciliationError::NoWindow { .. }
        | ReconciliationError::NoParticipant { .. } => CliError::Usage(error.to_string()),
    }
}

fn count(found: &Reconciliation, kind: DifferenceKind) -> u64 {
    found.counts.get(kind.name()).copied().unwrap_or(0)
}

fn to_text(what: &ReconciliationOf, found: &Reconciliation) -> String {
    let mut text = String::new();
    if !found.differences.is_empty() {
        let mut table = Table::new(&[
            "",
            "payment",
            "the window",
            "the books",
            "because",
            "put right",
            "participant",
        ]);
        for difference in found.differences.iter().take(PRINTED_MAX) {
            table.row(row(difference));
        }
        text.push_str(&table.render());
        if found.differences.len() > PRINTED_MAX {
            let more = found.differences.len() - PRINTED_MAX;
            let _never_fails = writeln!(text, "and {more} more, which --json tells");
        }
    }
    let _never_fails = writeln!(
        text,
        "{}: window {}, {}: {} agree, {} missing, {} extra, {} different, {} of other windows passed over\n\
         net of the window {}, of the books {}",
        if found.is_clean() {
            "reconciled"
        } else {
            "NOT RECONCILED"
        },
        what.window,
        what.participant,
        found.agreeing,
        count(found, DifferenceKind::Missing),
        count(found, DifferenceKind::Extra),
        count(found, DifferenceKind::Different),
        found.passed_over,
        money(found.nets_minor[0]),
        money(found.nets_minor[1]),
    );
    text
}

fn row(difference: &Difference) -> Vec<String> {
    vec![
        difference.kind.name().to_owned(),
        difference.payment.to_string(),
        difference.window_says.clone().unwrap_or_else(|| "nothing".to_owned()),
        difference.books_say.clone().unwrap_or_else(|| "nothing".to_owned()),
        difference.because.clone(),
        difference.remedy.name().to_owned(),
        difference.participant_does.to_owned(),
    ]
}

fn to_json(what: &ReconciliationOf, found: &Reconciliation) -> Value {
    let sum = |minor: i128| i64::try_from(minor).map_or_else(|_| Value::from(minor.to_string()), Value::from);
    let differences: Vec<Value> = found
        .differences
        .iter()
        .map(|difference| {
            json!({
                "sort": difference.kind.name(),
                "payment": difference.payment.to_string(),
                "window_says": difference.window_says,
                "books_say": difference.books_say,
                "because": difference.because,
                "remedy": difference.remedy.name(),
                "participant_does": difference.participant_does,
                "switch_does": difference.switch_does,
            })
        })
        .collect();
    json!({
        "reconciled": found.is_clean(),
        "window": what.window.to_string(),
        "participant": what.participant,
        "agreeing": found.agreeing,
        "missing": count(found, DifferenceKind::Missing),
        "extra": count(found, DifferenceKind::Extra),
        "different": count(found, DifferenceKind::Different),
        "passed_over": found.passed_over,
        "net_minor": sum(found.nets_minor[0]),
        "books_net_minor": sum(found.nets_minor[1]),
        "differences": differences,
    })
}
