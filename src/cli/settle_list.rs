//! `clearway settle list`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::journal_archive::PlaceArgs;
use super::journal_report::Progress;
use super::output::{Table, report};
use super::settle::failed;
use super::{CliError, Verdict};
use crate::domain::{UtcNanos, WindowState};
use crate::settlement::prove::Summary;
use crate::settlement::row::time_text;
use crate::settlement::sums::windows_in;

/// List windows: state, times, what was committed, the root of those whose files are written
///
/// Of a journal all windows are listed, by a replay; of a directory of settlement's files those that it has.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  clearway settle list data\n  clearway settle list data/settlement --json -")]
pub(super) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The directory of settlement's files [default: settlement in the data directory]
    #[arg(long, value_name = "SETTLEMENT")]
    dir: Option<PathBuf>,
    /// Write the list as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A window, as far as it is known.
struct Listed {
    window: String,
    currency: String,
    /// None where only its files are known.
    state: Option<WindowState>,
    opened: String,
    closed: Option<String>,
    committed: u64,
    gross_minor: i128,
    /// None where there are no files.
    root: Option<String>,
}

pub(super) fn list(args: &ListArgs) -> Result<Verdict, CliError> {
    let given = args.place.directory();
    let has_windows = |directory: &Path| windows_in(directory).is_ok_and(|windows| !windows.is_empty());
    let listed = if args.dir.is_none() && has_windows(given) {
        let summaries = summaries(given)?.into_values();
        summaries.map(of_files).collect()
    } else {
        let files = args.dir.clone().unwrap_or_else(|| given.join("settlement"));
        let summaries = if files.is_dir() {
            summaries(&files)?
        } else {
            BTreeMap::new()
        };
        of_journal(args, &summaries)?
    };
    let windows: Vec<_> = listed.iter().map(json_of).collect();
    report(
        args.json.as_deref(),
        &json!({"windows": windows}),
        &table(&listed).render(),
    )?;
    Ok(Verdict::Well)
}

fn summaries(files: &Path) -> Result<BTreeMap<String, Summary>, CliError> {
    let read = |directory: PathBuf| {
        let summary = Summary::read(&directory).map_err(failed)?;
        Ok((summary.window.clone(), summary))
    };
    windows_in(files).map_err(failed)?.into_iter().map(read).collect()
}

fn of_files(summary: Summary) -> Listed {
    Listed {
        window: summary.window,
        currency: summary.currency,
        state: None,
        opened: summary.opened_at,
        closed: Some(summary.closed_at),
        committed: summary.committed,
        gross_minor: summary.gross_minor,
        root: Some(summary.root),
    }
}

fn of_journal(args: &ListArgs, summaries: &BTreeMap<String, Summary>) -> Result<Vec<Listed>, CliError> {
    let place = args.place.find()?;
    crate::switch::check_rules(&place.journal).map_err(|error| CliError::Failed(error.to_string()))?;
    crate::memory::start_mapper();
    let mut progress = Progress::new();
    let ledger = crate::switch::replay(&place.journal, None, |event| {
        progress.tell(|| format!("replayed to event {event}"));
    })
    .map_err(|error| place.tell(failed(error)))?;
    let windows = ledger.snapshot.windows.iter().map(|window| {
        let name = window.id.to_string();
        Listed {
            root: summaries.get(&name).map(|summary| summary.root.clone()),
            window: name,
            currency: crate::domain::Currency(window.currency).alphabetic().to_owned(),
            state: Some(window.state),
            opened: time_text(window.opened),
            closed: (window.closed != UtcNanos(0)).then(|| time_text(window.closed)),
            committed: window.committed,
            gross_minor: window.gross,
        }
    });
    Ok(windows.collect())
}

fn json_of(listed: &Listed) -> serde_json::Value {
    json!({
        "window": listed.window,
        "currency": listed.currency,
        "state": listed.state.map(WindowState::name),
        "opened_at": listed.opened,
        "closed_at": listed.closed,
        "committed": listed.committed,
        "gross_minor": serde_json::Number::from_i128(listed.gross_minor),
        "root": listed.root,
    })
}

fn table(listed: &[Listed]) -> Table {
    let mut table = Table::new(&[
        "window",
        "currency",
        "state",
        "opened",
        "closed",
        "committed",
        "gross, minor",
        "root",
    ]);
    for window in listed {
        table.row(vec![
            window.window.clone(),
            window.currency.clone(),
            window.state.map_or("unknown", WindowState::name).to_owned(),
            window.opened.clone(),
            window.closed.clone().unwrap_or_else(|| "not closed".to_owned()),
            window.committed.to_string(),
            window.gross_minor.to_string(),
            window.root.clone().unwrap_or_else(|| "no files".to_owned()),
        ]);
    }
    table
}
