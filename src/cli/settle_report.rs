//! `clearway settle report`: the files of windows and days, from the journal.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::journal_archive::PlaceArgs;
use super::journal_report::Progress;
use super::output::report;
use super::settle::{failed, window_id};
use super::{CliError, Verdict};
use crate::agent::process;
use crate::clearing::Engine;
use crate::domain::WindowId;
use crate::journal::{JournalFiles, JournalStart};
use crate::settlement::merkle::hex;
use crate::settlement::report::{Report, ReportError, ReportOptions, Reported};
use crate::settlement::{Existing, Publication};

/// Write the files of every closed window and of every day from the journal: the same as the switch wrote, byte for byte
///
/// The journal is replayed. What is there already and is the same stays; where something differs it is named and left as it
/// is, and the command exits 1. The last day is told up to the journal's last event.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  clearway settle report data --out settlement-again\n  \
                      clearway settle report data --archive /mnt/archive --out /mnt/settlement --window W202611230001")]
pub(super) struct ReportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Where the files are written; payments of a window wait there, 112 bytes each, until it has closed
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Only this window, and no day
    #[arg(long, value_name = "WINDOW", value_parser = window_id)]
    window: Option<WindowId>,
    /// Replace files that differ
    #[arg(long)]
    force: bool,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &ReportArgs) -> Result<Verdict, CliError> {
    for message in process::raise_soft_limits() {
        tracing::warn!("{message}");
    }
    let place = args.place.find()?;
    let written = write(args, &place.journal).map_err(|error| place.tell(failed(error)))?;
    let json = json!({
        "well": written.occupied.is_empty(),
        "out": args.out.display().to_string(),
        "windows": written.windows.iter().map(|(window, root, publication)| {
            let mut json = publication_json(publication);
            json["window"] = json!(window.to_string());
            json["root"] = json!(hex(root));
            json
        }).collect::<Vec<_>>(),
        "days": written.days.iter().map(publication_json).collect::<Vec<_>>(),
        "left_as_they_are": written.occupied.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    report(args.json.as_deref(), &json, &text(&written))?;
    for error in &written.occupied {
        eprintln!("error: {error}");
    }
    Ok(if written.occupied.is_empty() {
        Verdict::Well
    } else {
        Verdict::Wrong
    })
}

fn write(args: &ReportArgs, journal: &std::path::Path) -> Result<Reported, String> {
    let said = |error: ReportError| error.to_string();
    crate::switch::check_rules(journal).map_err(|error| error.to_string())?;
    crate::memory::start_mapper();
    let files = JournalFiles::open(journal).map_err(|error| error.to_string())?;
    let options = ReportOptions {
        out: args.out.clone(),
        journal_id: files.journal_id(),
        window: args.window,
        existing: if args.force { Existing::Replace } else { Existing::Keep },
    };
    drop(files);
    let engine = Engine::new();
    let mut progress = Progress::new();
    let mut report = Report::begin(options, &engine, |what| eprintln!("{what}")).map_err(|error| error.to_string())?;
    let engine = crate::switch::replay_each(engine, journal, &JournalStart::BEGINNING, None, |engine, event| {
        if event.number % 1_000_000 == 0 {
            progress.tell(|| format!("replayed to event {}", event.number));
        }
        Ok(report.apply(engine, event)?)
    })
    .map_err(said)?;
    report.finish(&engine).map_err(|error| error.to_string())
}

fn publication_json(publication: &Publication) -> Value {
    json!({
        "directory": publication.directory.display().to_string(),
        "files": publication.files,
        "bytes": publication.bytes,
        "was_there": publication.was_there,
    })
}

fn text(written: &Reported) -> String {
    let mut text = String::new();
    let windows = written
        .windows
        .iter()
        .map(|(_, root, publication)| (Some(root), publication));
    let days = written.days.iter().map(|publication| (None, publication));
    for (root, publication) in windows.chain(days) {
        let what = if publication.was_there { "is there" } else { "written" };
        text.push_str(&format!(
            "{}  {what}, {} files, {} bytes",
            publication.directory.display(),
            publication.files,
            publication.bytes
        ));
        if let Some(root) = root {
            text.push_str(&format!(", root {}", hex(root)));
        }
        text.push('\n');
    }
    text
}
