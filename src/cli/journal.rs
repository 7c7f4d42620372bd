//! `clearway journal`: read a journal's files, offline or beside the switch that writes them.
//!
//! Only `restore` takes the switch's lock and adds segments; nothing here changes one that is there.

use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blake3::Hash;
use clap::{Args, Subcommand};

use super::journal_archive::{ArchiveArgs, PlaceArgs, RestoreArgs, archive, restore};
use super::journal_event::{event_json, original_of, payment_of};
use super::journal_report::{Progress, replay, stat, verify};
use super::{CliError, Verdict};
use crate::domain::PaymentId;
use crate::journal::{JournalError, JournalFiles, Record, RecordBatch, Walk};
use crate::wire::RecordKind;

/// How often `tail --follow` looks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Check, count, show and replay a journal; DIR is a switch's data directory or the journal in it
#[derive(Args, Debug)]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Subcommand, Debug)]
enum JournalCommand {
    #[command(flatten)]
    Read(ReadCommand),
    /// Compress sealed segments into an archive, each read back and checked; removes nothing
    #[command(after_help = "Example:\n  clearway journal archive data --to /mnt/archive")]
    Archive(ArchiveArgs),
    /// Bring segments back out of an archive
    #[command(after_help = "Examples:\n  clearway journal restore /mnt/archive restored\n  \
                      clearway journal restore /mnt/archive restored --from 1000000 --to 2000000")]
    Restore(RestoreArgs),
}

#[derive(Subcommand, Debug)]
enum ReadCommand {
    /// Check every record, on every core, and hold the bytes against the chain of hashes that was made when they were new;
    /// exits 1 at damage and where history was rewritten, naming file and offset
    #[command(after_help = "Examples:\n  clearway journal verify data\n  \
                      clearway journal verify data --archive /mnt/archive\n  \
                      clearway journal verify data --checkpoint 5bd1…e9  (64 hex digits, from `clearway journal stat`)")]
    Verify {
        #[command(flatten)]
        place: PlaceArgs,
        /// A value of the chain that was taken away earlier: prove that this journal still holds the history it stood for;
        /// may be given again
        #[arg(long, value_name = "HEX", value_parser = chain_value)]
        checkpoint: Vec<Hash>,
        /// Write the result as JSON to this file, `-` for stdout
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Count records and bytes by kind, events a second, bytes a payment and a durable write
    #[command(after_help = "Example:\n  clearway journal stat data --json -")]
    Stat {
        #[command(flatten)]
        place: PlaceArgs,
        /// Write the figures as JSON to this file, `-` for stdout
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Print events as JSON lines
    #[command(after_help = "Examples:\n  clearway journal dump data --from 1000 --to 1010\n  \
                      clearway journal dump data --payment 20260204-517-3-987654321012\n  \
                      clearway journal dump data --kind window")]
    Dump {
        #[command(flatten)]
        place: PlaceArgs,
        /// The first event
        #[arg(long, value_name = "EVENT", default_value_t = 1)]
        from: u64,
        /// The last event [default: the journal's last]
        #[arg(long, value_name = "EVENT")]
        to: Option<u64>,
        /// Only events of this kind: genesis, participant, request, reply, not_sent, tick, restart, window,
        /// finding or day_sealed
        #[arg(long, value_name = "KIND", value_parser = event_kind)]
        kind: Option<RecordKind>,
        /// Only events about this payment, requests to refund it among them: date-originator-lane-serial
        #[arg(long, value_name = "ID", value_parser = payment_id)]
        payment: Option<PaymentId>,
    },
    /// Print the last events as JSON lines
    #[command(after_help = "Example:\n  clearway journal tail data --events 20 --follow")]
    Tail {
        #[command(flatten)]
        place: PlaceArgs,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 10)]
        events: usize,
        /// Print further events once the running switch has stated in the journal that they are durable, until SIGINT;
        /// the files are looked at ten times a second
        #[arg(long)]
        follow: bool,
    },
    /// Rebuild the state and print its hash
    #[command(
        after_help = "Examples:\n  clearway journal replay data\n  clearway journal replay data --until 1000000 --json -"
    )]
    Replay {
        #[command(flatten)]
        place: PlaceArgs,
        /// The last event to apply [default: the journal's last]
        #[arg(long, value_name = "EVENT")]
        until: Option<u64>,
        /// Write the result as JSON to this file, `-` for stdout
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

pub(super) fn run(args: &JournalArgs) -> Result<Verdict, CliError> {
    match &args.command {
        JournalCommand::Read(command) => {
            let place = command.place().find()?;
            read(command, &place.journal).map_err(|error| place.tell(error))
        }
        JournalCommand::Archive(args) => archive(args),
        JournalCommand::Restore(args) => restore(args),
    }
}

impl ReadCommand {
    const fn place(&self) -> &PlaceArgs {
        match self {
            Self::Verify { place, .. }
            | Self::Stat { place, .. }
            | Self::Dump { place, .. }
            | Self::Tail { place, .. }
            | Self::Replay { place, .. } => place,
        }
    }
}

fn read(command: &ReadCommand, journal: &Path) -> Result<Verdict, CliError> {
    match command {
        ReadCommand::Verify { checkpoint, json, .. } => verify(journal, checkpoint, json.as_deref()),
        ReadCommand::Stat { json, .. } => stat(journal, json.as_deref()),
        ReadCommand::Dump {
            from,
            to,
            kind,
            payment,
            ..
        } => dump(journal, *from..=to.unwrap_or(u64::MAX), |record| {
            kind.is_none_or(|kind| record.kind == kind) && payment.is_none_or(|payment| is_about(record, payment))
        }),
        ReadCommand::Tail { events, follow, .. } => tail(journal, *events, *follow),
        ReadCommand::Replay { until, json, .. } => replay(journal, *until, json.as_deref()),
    }
}

pub(super) fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("journal: {error}"))
}

fn dump(
    journal: &Path,
    events: std::ops::RangeInclusive<u64>,
    wanted: impl Fn(&Record<'_>) -> bool,
) -> Result<Verdict, CliError> {
    let files = JournalFiles::open(journal).map_err(failed)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut progress = Progress::new();
    let mut walk = files.walk_near(*events.start());
    let mut batch = RecordBatch::new();
    loop {
        let filled = batch.fill(&mut walk, *events.end());
        for record in batch.iter() {
            if record.number % 1_000_000 == 0 {
                progress.tell(|| format!("read to event {}", record.number));
            }
            if events.contains(&record.number) && wanted(&record) {
                line(&mut out, &event_json(&record).to_string())?;
            }
        }
        // What was read before damage is shown before the damage is told.
        let more = filled.or_else(|damage| flushed(&mut out).and(Err(failed(damage))))?;
        if !more {
            return flushed(&mut out).map(|()| Verdict::Well);
        }
    }
}

fn tail(journal: &Path, count: usize, follow: bool) -> Result<Verdict, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    if follow {
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop)).map_err(failed)?;
    }
    let mut files = JournalFiles::open(journal).map_err(failed)?;
    let mut batch = RecordBatch::new();
    let mut walk = files.walk_near(u64::MAX);
    while batch.fill(&mut walk, u64::MAX).map_err(failed)? {}
    let last = walk.next_event() - 1;
    let first = walk.next_event().saturating_sub(count as u64);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut lines = Lines::default();
    let mut walk = files.walk_near(first);
    while lines.read(&mut walk, &mut batch, first..=last)? {
        // What is not followed may as well be a write that a start will cut.
        let watermark = if follow { walk.end().watermark() } else { u64::MAX };
        lines.print(watermark, &mut out)?;
    }
    if !follow {
        lines.print(u64::MAX, &mut out)?;
        return Ok(Verdict::Well);
    }
    let mut end = walk.end();
    while !stop.load(Ordering::Relaxed) {
        lines.print(end.watermark(), &mut out)?;
        std::thread::sleep(FOLLOW_EVERY);
        files.map_new_segments().map_err(failed)?;
        let mut walk = files.walk_from(end);
        while lines.read(&mut walk, &mut batch, first..=u64::MAX)? {}
        end = walk.end();
    }
    Ok(Verdict::Well)
}

/// What is to be printed, each with the position behind it: none below the watermark can be taken back.
#[derive(Default)]
struct Lines(VecDeque<(u64, String)>);

impl Lines {
    /// Takes a batch of these events; false when there are no more for now.
    fn read(
        &mut self,
        walk: &mut Walk<'_>,
        batch: &mut RecordBatch,
        events: std::ops::RangeInclusive<u64>,
    ) -> Result<bool, CliError> {
        let more = batch.fill(walk, *events.end()).map_err(failed)?;
        let wanted = batch.iter().filter(|record| events.contains(&record.number));
        self.0.extend(wanted.map(|record| shown(&record)));
        Ok(more)
    }

    fn print(&mut self, watermark: u64, out: &mut impl Write) -> Result<(), CliError> {
        let durable = self.0.partition_point(|(behind, _)| *behind <= watermark);
        for (_, text) in self.0.drain(..durable) {
            line(out, &text)?;
        }
        flushed(out)
    }
}

fn shown(record: &Record<'_>) -> (u64, String) {
    let behind = record.position + record.payload.len() as u64;
    (behind, event_json(record).to_string())
}

fn line(out: &mut impl Write, text: &str) -> Result<(), CliError> {
    writeln!(out, "{text}").map_err(unwritten)
}

fn flushed(out: &mut impl Write) -> Result<(), CliError> {
    out.flush().map_err(unwritten)
}

fn unwritten(error: std::io::Error) -> CliError {
    CliError::Output {
        place: "stdout".to_owned(),
        error,
    }
}

fn is_about(record: &Record<'_>, payment: PaymentId) -> bool {
    payment_of(record) == Some(payment) || original_of(record) == Some(payment)
}

fn event_kind(name: &str) -> Result<RecordKind, String> {
    let mut events = RecordKind::ALL.into_iter().filter(|kind| kind.is_event());
    events
        .clone()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| match events.next() {
            Some(first) => events.fold(format!("the kinds are {}", first.name()), |text, kind| {
                format!("{text}, {}", kind.name())
            }),
            None => String::new(),
        })
}

pub(super) fn payment_id(text: &str) -> Result<PaymentId, String> {
    PaymentId::parse(text)
        .ok_or_else(|| "a payment is written date-originator-lane-serial, as in 20260204-517-3-987654321012".to_owned())
}

fn chain_value(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text)
        .map_err(|_| "a value of the chain is 64 hex digits, as `clearway journal stat` prints it".to_owned())
}

/// True when the error is what a check is there to find.
pub(super) const fn is_finding(error: &JournalError) -> bool {
    matches!(
        error,
        JournalError::Damaged { .. } | JournalError::SegmentForeign { .. } | JournalError::SegmentMissing { .. }
    )
}
