//! `clearway settle verify`: a settlement directory against the raw journal.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::journal_archive::PlaceArgs;
use super::journal_report::Progress;
use super::output::report;
use super::{CliError, Verdict};
use crate::audit::{AuditError, Finding, InvariantReport, VerificationPlaces, VerificationProgress, Verified, verify};
use crate::journal::Journal;

/// Make every window and day again from the raw journal, by code that shares nothing with the switch, and hold all files
/// and what was told against it; exits 1 where anything differs, naming file, participant, window and both values
///
/// All payments of the journal are held in memory while it runs, about 130 bytes each.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  clearway settle verify data\n  \
                  clearway settle verify /mnt/settlement --journal /mnt/journal\n  \
                  clearway settle verify data --archive /mnt/archive --json -")]
pub(super) struct VerifyArgs {
    /// The data directory, or the settlement directory in it
    directory: PathBuf,
    /// Where the journal is [default: the data directory's, or that beside the settlement directory]
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// Where the older segments are that the journal has no more
    #[arg(long, value_name = "ARCHIVE")]
    archive: Option<PathBuf>,
    /// Where archived segments are decompressed to while the command runs [default: the system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Where the parts of a switch's data are that tools for settlement read.
#[derive(Debug)]
pub(super) struct DataPlaces {
    /// What holds the journal: a data directory, a journal, or an archive of one.
    pub(super) journal: PathBuf,
    /// Windows' and days' files.
    pub(super) settlement: Option<PathBuf>,
    /// The day register.
    pub(super) register: Option<PathBuf>,
}

impl DataPlaces {
    /// Finds them from a data directory or a settlement directory.
    pub(super) fn find(directory: &Path, journal: Option<&Path>) -> Result<Self, CliError> {
        if !directory.is_dir() {
            return Err(CliError::Usage(format!(
                "{}: there is no such directory; name a switch's data directory, or the settlement directory in it",
                directory.display()
            )));
        }
        let is_dir = |path: PathBuf| path.is_dir().then_some(path);
        let has_journal = |path: &Path| Journal::exists(path) || Journal::exists(&path.join("journal"));
        let is_data = has_journal(directory) || directory.join("settlement").is_dir();
        let (data, settlement) = if is_data {
            (directory.to_owned(), is_dir(directory.join("settlement")))
        } else {
            // So that "settlement" has a parent, and "." too.
            let whole = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
            (
                whole.parent().unwrap_or(directory).to_owned(),
                Some(directory.to_owned()),
            )
        };
        let journal = match journal {
            Some(journal) => journal.to_owned(),
            None if has_journal(&data) => data.clone(),
            None => {
                return Err(CliError::Usage(format!(
                    "{}: there is no journal here or beside it; say where it is with --journal",
                    directory.display()
                )));
            }
        };
        let beside_the_journal = || {
            let whole = journal.canonicalize().ok()?;
            is_dir(whole.join("register")).or_else(|| is_dir(whole.parent()?.join("register")))
        };
        let register = is_dir(data.join("register")).or_else(beside_the_journal);
        Ok(Self {
            journal,
            settlement,
            register,
        })
    }
}

pub(super) fn run(args: &VerifyArgs) -> Result<Verdict, CliError> {
    let started = Instant::now();
    let places = DataPlaces::find(&args.directory, args.journal.as_deref())?;
    let place = PlaceArgs::of(&places.journal, args.archive.as_deref(), args.scratch.as_deref()).find()?;
    let mut progress = Progress::new();
    let told = |reached: VerificationProgress| {
        progress.tell(|| match reached {
            VerificationProgress::Events(events) => format!("{events} events read"),
            VerificationProgress::Window(window) => format!("window {window}: its files are looked at"),
            VerificationProgress::Register => "the register is looked at".to_owned(),
        });
    };
    let verified = verify(
        &VerificationPlaces {
            journal: place.journal.clone(),
            settlement: places.settlement.clone(),
            register: places.register.clone(),
        },
        told,
    )
    .map_err(|error| match error {
        AuditError::Journal(_) => place.tell(CliError::Failed(format!(
            "{error}\n       `clearway journal verify` says what is damaged; where older segments are archived, name the \
             archive with --archive"
        ))),
        AuditError::Register(_) => CliError::Failed(error.to_string()),
    })?;
    let seconds = started.elapsed().as_secs_f64();
    report(
        args.json.as_deref(),
        &to_json(&verified, &places, seconds),
        &to_text(&verified, seconds),
    )?;
    Ok(if verified.is_clean() {
        Verdict::Well
    } else {
        Verdict::Wrong
    })
}

fn holds(report: &InvariantReport) -> &'static str {
    match report.holds() {
        Some(true) => "holds",
        Some(false) => "BROKEN",
        None => "not checked",
    }
}

fn to_text(verified: &Verified, seconds: f64) -> String {
    let mut text = String::new();
    for report in &verified.invariants {
        let _never_fails = writeln!(
            text,
            "{:>2} {:<11} {}",
            report.invariant.number(),
            holds(report),
            report.invariant.sentence()
        );
        for (how, count) in &report.checked {
            let _never_fails = writeln!(text, "{:>24} {how}", count);
        }
        if report.broken > 0 {
            let _never_fails = writeln!(text, "{:>24} findings", report.broken);
        }
    }
    for remark in &verified.remarks {
        let _never_fails = writeln!(text, "note: {remark}");
    }
    for finding in &verified.findings {
        let of = finding
            .invariant
            .map_or_else(String::new, |invariant| format!("{invariant}: "));
        let _never_fails = writeln!(text, "found: {of}{finding}");
    }
    let count = verified.invariants.iter().map(|report| report.broken).sum::<u64>() + verified.other_findings;
    let _never_fails = writeln!(
        text,
        "{}: {} events, {} windows closed, the files of {} checked, {} files, {count} findings, {seconds:.1} s",
        if verified.is_clean() { "all is well" } else { "NOT WELL" },
        verified.recomputed.events,
        verified.windows_closed,
        verified.windows_checked,
        verified.files_checked,
    );
    text
}

fn to_json(verified: &Verified, places: &DataPlaces, seconds: f64) -> Value {
    let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let invariants: Vec<Value> = verified
        .invariants
        .iter()
        .map(|report| {
            let checked = report
                .checked
                .iter()
                .map(|(how, count)| json!({"what": how, "count": count}));
            json!({
                "invariant": report.invariant.number(),
                "says": report.invariant.sentence(),
                "holds": report.holds(),
                "checked": checked.collect::<Vec<_>>(),
                "findings": report.broken,
            })
        })
        .collect();
    json!({
        "well": verified.is_clean(),
        "journal": places.journal.display().to_string(),
        "settlement": shown(&places.settlement),
        "register": shown(&places.register),
        "events": verified.recomputed.events,
        "windows_closed": verified.windows_closed,
        "windows_checked": verified.windows_checked,
        "files_checked": verified.files_checked,
        "seconds": seconds,
        "invariants": invariants,
        "remarks": verified.remarks,
        "findings": verified.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "invariant": finding.invariant.map(|invariant| invariant.number()),
        "file": finding.file,
        "participant": finding.participant,
        "window": finding.window.map(|window| window.to_string()),
        "what": finding.what,
        "journal": finding.journal,
        "told": finding.told,
        "text": finding.to_string(),
    })
}
