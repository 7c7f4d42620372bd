//! `clearway journal verify|stat|replay`: those that report.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use blake3::Hash;
use serde_json::{Map, Value, json};

use super::journal::{failed, is_finding};
use super::journal_chain::chain_told;
use super::output::{Table, report};
use super::{CliError, Verdict};
use crate::domain::NANOS_PER_SECOND;
use crate::journal::{Chain, JournalError, JournalFiles, Statistics, Verification};
use crate::wire::RecordKind;

/// How long a command may be silent.
const SILENT_FOR: Duration = Duration::from_secs(2);

pub(super) fn verify(journal: &Path, asked: &[Hash], json_to: Option<&Path>) -> Result<Verdict, CliError> {
    let started = Instant::now();
    // Read before the journal, which a running switch makes longer first.
    let chain = Chain::read(journal);
    let files = match JournalFiles::open(journal) {
        Ok(files) => files,
        Err(error) if is_finding(&error) => {
            let json = json!({"journal": journal.display().to_string(), "well": false, "fault": fault_json(&error)});
            report(json_to, &json, "")?;
            return Err(failed(error));
        }
        Err(error) => return Err(failed(error)),
    };
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let progress = Mutex::new(Progress::new());
    let count = files.segment_count();
    let found = files.verify_with(chain.as_ref().ok().and_then(Option::as_ref), threads, &|done| {
        // Whoever finds it taken leaves the telling to the one who has it.
        if let Ok(mut progress) = progress.try_lock() {
            progress.tell(|| format!("{done} of {count} segments checked"));
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let told = chain_told(chain, found.chain.as_ref(), asked);
    let mut json = verification_json(journal, &files, &found, threads, seconds);
    json["well"] = json!(found.damage.is_none() && told.faults.is_empty());
    json["chain"] = told.json;
    report(
        json_to,
        &json,
        &(verification_text(&found, threads, seconds) + &told.text),
    )?;
    let faults: Vec<String> = found
        .damage
        .iter()
        .map(ToString::to_string)
        .chain(told.faults)
        .collect();
    if faults.is_empty() {
        return Ok(Verdict::Well);
    }
    Err(failed(faults.join("\n       ")))
}

fn verification_text(found: &Verification, threads: NonZeroUsize, seconds: f64) -> String {
    let mut text = format!(
        "{} segments of {} bytes in all, {} events, {} starts\n\
         last event {} at {} ns UTC\n\
         ends at journal position {}; known to have been durable up to {}\n",
        found.segments,
        found.file_bytes,
        found.events,
        found.epoch,
        found.events,
        found.last_time.0,
        found.end,
        found.watermark
    );
    if found.damage.is_none() {
        if found.bytes_behind > 0 {
            text.push_str(&format!(
                "{} bytes lie behind the end: a write that was under way when the switch stopped, or is now; no answer \
                 rested on them, and the next start cuts them\n",
                found.bytes_behind
            ));
        }
        text.push_str(&format!(
            "every record is as it was written; checked in {seconds:.2} s on {threads} threads\n"
        ));
    }
    text
}

fn verification_json(
    journal: &Path,
    files: &JournalFiles,
    found: &Verification,
    threads: NonZeroUsize,
    seconds: f64,
) -> Value {
    json!({
        "journal": journal.display().to_string(),
        "journal_id": files.journal_id().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "well": found.damage.is_none(),
        "segments": found.segments,
        "segment_bytes": files.segment_bytes(),
        "file_bytes": found.file_bytes,
        "events": found.events,
        "last_time_ns": found.last_time.0,
        "epoch": found.epoch,
        "end_position": found.end,
        "watermark_position": found.watermark,
        "bytes_behind_end": found.bytes_behind,
        "fault": found.damage.as_ref().map(fault_json),
        "threads": threads.get(),
        "seconds": seconds,
    })
}

fn fault_json(error: &JournalError) -> Value {
    let mut json = json!({"message": error.to_string()});
    match error {
        JournalError::Damaged {
            file, offset, position, ..
        } => {
            json["file"] = json!(file.display().to_string());
            json["offset"] = json!(offset);
            json["position"] = json!(position);
        }
        JournalError::SegmentForeign { file, .. } | JournalError::SegmentMissing { file } => {
            json["file"] = json!(file.display().to_string());
            json["offset"] = json!(0);
        }
        _ => {}
    }
    json
}

pub(super) fn stat(journal: &Path, json_to: Option<&Path>) -> Result<Verdict, CliError> {
    let files = JournalFiles::open(journal).map_err(failed)?;
    let mut progress = Progress::new();
    let figures =
        Statistics::of(&files, |event| progress.tell(|| format!("counted to event {event}"))).map_err(failed)?;
    let seconds =
        (figures.last_time.0 - figures.first_time.0.min(figures.last_time.0)) as f64 / NANOS_PER_SECOND as f64;
    let requests = figures.count(RecordKind::Request);
    let events_per_second = ratio(figures.events as f64, seconds);
    let bytes_per_request = ratio(figures.bytes as f64, requests as f64);
    let bytes_per_group = ratio(figures.bytes as f64, figures.groups as f64);
    let block_bytes_per_group = ratio(figures.group_block_bytes as f64, figures.groups as f64);
    let mut table = Table::new(&["kind", "records", "bytes"]);
    let mut kinds = Map::new();
    for (kind, of_kind) in &figures.kinds {
        table.row(vec![
            kind.name().to_owned(),
            of_kind.count.to_string(),
            of_kind.bytes.to_string(),
        ]);
        kinds.insert(
            kind.name().to_owned(),
            json!({"records": of_kind.count, "bytes": of_kind.bytes}),
        );
    }
    let figure = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.0}"));
    let text = format!(
        "{}\nevents           {} in {seconds:.3} s, {} a second, {} in the best second\n\
         first, last      {} and {} ns UTC\n\
         starts           {}, the last with epoch {}\n\
         a payment        {} bytes of journal a request\n\
         a durable write  {} bytes of records, {} in whole blocks; largest {}; {} of them\n",
        table.render(),
        figures.events,
        figure(events_per_second),
        figures.best_second_events,
        figures.first_time.0,
        figures.last_time.0,
        figures.starts,
        figures.epoch,
        figure(bytes_per_request),
        figure(bytes_per_group),
        figure(block_bytes_per_group),
        figures.group_bytes_largest,
        figures.groups,
    );
    let chain = Chain::read(journal);
    let told = chain_told(chain, None, &[]);
    let text = text + &told.text;
    let json = json!({
        "chain": told.json,
        "journal": journal.display().to_string(),
        "kinds": kinds,
        "events": figures.events,
        "bytes": figures.bytes,
        "first_time_ns": figures.first_time.0,
        "last_time_ns": figures.last_time.0,
        "seconds": seconds,
        "events_per_second": events_per_second,
        "events_best_second": figures.best_second_events,
        "requests": requests,
        "bytes_per_request": bytes_per_request,
        "durable_writes": figures.groups,
        "bytes_per_durable_write": bytes_per_group,
        "block_bytes_per_durable_write": block_bytes_per_group,
        "bytes_largest_durable_write": figures.group_bytes_largest,
        "starts": figures.starts,
        "epoch": figures.epoch,
    });
    report(json_to, &json, &text)?;
    match told.faults.first() {
        None => Ok(Verdict::Well),
        Some(fault) => Err(failed(fault)),
    }
}

/// None where there is nothing to divide by.
fn ratio(value: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| value / by)
}

pub(super) fn replay(journal: &Path, until: Option<u64>, json_to: Option<&Path>) -> Result<Verdict, CliError> {
    crate::switch::check_rules(journal).map_err(|error| CliError::Failed(error.to_string()))?;
    crate::memory::start_mapper();
    let mut progress = Progress::new();
    let ledger = crate::switch::replay(journal, until, |event| {
        progress.tell(|| format!("replayed to event {event}"));
    })
    .map_err(failed)?;
    let seconds = ledger.applied_in.as_secs_f64();
    let rate = ratio(ledger.event_number as f64, seconds);
    let json = json!({
        "journal": journal.display().to_string(),
        "event_number": ledger.event_number,
        "state_hash": ledger.hash.to_string(),
        "seconds": seconds,
        "events_per_second": rate,
    });
    let text = format!(
        "event {}\nstate {}\n{} events a second, {seconds:.3} s\n",
        ledger.event_number,
        ledger.hash,
        rate.map_or("no".to_owned(), |rate| format!("{rate:.0}"))
    );
    report(json_to, &json, &text)?;
    if let Some(until) = until.filter(|&until| until > ledger.event_number) {
        return Err(failed(format_args!(
            "--until {until} was asked for, and the journal ends at event {}",
            ledger.event_number
        )));
    }
    Ok(Verdict::Well)
}

/// Tells on stderr how far a long command is, every two seconds from the second second on.
#[derive(Debug)]
pub(super) struct Progress {
    told: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { told: Instant::now() }
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.told.elapsed() >= SILENT_FOR {
            self.told = Instant::now();
            eprintln!("{}", text());
        }
    }
}
