//! `clearway journal archive|restore`, and where a journal is that is partly archived.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use clap::Args;
use serde_json::json;
use tempfile::TempDir;

use super::journal::failed;
use super::journal_report::Progress;
use super::output::report;
use super::{CliError, Verdict};
use crate::journal::{Archive, ArchiveError, Chain, ChainStart, Journal, JournalFiles, Manifest};

/// Where a journal is.
#[derive(Args, Debug)]
pub(super) struct PlaceArgs {
    /// The data directory, or the journal in it, or an archive of it
    directory: PathBuf,
    /// Where the older segments are that the journal has no more: an archive that `clearway journal archive` or the switch made
    #[arg(long, value_name = "ARCHIVE")]
    archive: Option<PathBuf>,
    /// Where archived segments are decompressed to while the command runs; takes as much room as they took in the journal
    /// [default: the system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// A journal as a directory of segments.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory.
    pub(super) journal: PathBuf,
    /// What was put together for this command alone, and what to call it in messages.
    made: Option<(TempDir, PathBuf)>,
}

impl Place {
    /// What a failure says, with the files named where they really are.
    pub(super) fn tell(&self, error: CliError) -> CliError {
        match (error, &self.made) {
            (CliError::Failed(text), Some((scratch, shown))) => {
                CliError::Failed(text.replace(&*scratch.path().to_string_lossy(), &shown.to_string_lossy()))
            }
            (error, _) => error,
        }
    }
}

impl PlaceArgs {
    /// As if it had been said so.
    pub(super) fn of(directory: &Path, archive: Option<&Path>, scratch: Option<&Path>) -> Self {
        Self {
            directory: directory.to_owned(),
            archive: archive.map(Path::to_owned),
            scratch: scratch.map(Path::to_owned),
        }
    }

    /// As it was given.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Finds the journal; decompresses what is archived to a place of its own, which goes with the answer.
    pub(super) fn find(&self) -> Result<Place, CliError> {
        let live = journal_in(&self.directory);
        let (archive, live) = match (&self.archive, live) {
            (Some(archive), Some(live)) => (archive, Some(live)),
            (None, Some(journal)) => return Ok(Place { journal, made: None }),
            (None, None) if Archive::exists(&self.directory) => (&self.directory, None),
            (_, None) => {
                return Err(CliError::Usage(format!(
                    "{}: there is no journal here (no segment, such as 000000000000.seg, in it or in its subdirectory \
                     journal) and no archive; name a switch's data directory",
                    self.directory.display()
                )));
            }
        };
        let opened = Archive::open(archive).map_err(failed)?;
        let scratch = match &self.scratch {
            Some(scratch) => TempDir::with_prefix_in("clearway-journal-", scratch),
            None => TempDir::with_prefix("clearway-journal-"),
        };
        let scratch = scratch.map_err(|error| CliError::Output {
            place: "the place for decompressed segments (--scratch)".to_owned(),
            error,
        })?;
        let progress = Mutex::new(Progress::new());
        opened
            .put_before(live.as_deref(), scratch.path(), threads(), &|done| {
                tell(&progress, || format!("{done} segments decompressed"));
            })
            .map_err(|error| match error {
                ArchiveError::System { action, .. } if action.contains("restored segment") => {
                    failed(format_args!("{error}; name a place with room for it with --scratch"))
                }
                error => failed(error),
            })?;
        Ok(Place {
            journal: scratch.path().to_owned(),
            made: Some((scratch, live.unwrap_or_else(|| archive.clone()))),
        })
    }
}

/// The journal that `directory` is or has.
fn journal_in(directory: &Path) -> Option<PathBuf> {
    let places = [directory.to_owned(), directory.join("journal")];
    places.into_iter().find(|place| Journal::exists(place))
}

fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn tell(progress: &Mutex<Progress>, text: impl FnOnce() -> String) {
    // Whoever finds it taken leaves the telling to the one who has it.
    if let Ok(mut progress) = progress.try_lock() {
        progress.tell(text);
    }
}

/// What `archive` takes.
#[derive(Args, Debug)]
pub(super) struct ArchiveArgs {
    /// The data directory, or the journal in it
    directory: PathBuf,
    /// The archive: made if it is not there, else added to
    #[arg(long, value_name = "ARCHIVE")]
    to: PathBuf,
    /// zstd's level
    #[arg(long, value_name = "LEVEL", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn archive(args: &ArchiveArgs) -> Result<Verdict, CliError> {
    let started = Instant::now();
    let Some(journal) = journal_in(&args.directory) else {
        return Err(CliError::Usage(format!(
            "{}: there is no journal here; name a switch's data directory",
            args.directory.display()
        )));
    };
    let chain = Chain::read(&journal).map_err(failed)?;
    let files = JournalFiles::open(&journal).map_err(failed)?;
    let progress = Mutex::new(Progress::new());
    let found = files.verify_with(chain.as_ref(), threads(), &|done| {
        tell(&progress, || {
            format!("{done} of {} segments checked", files.segment_count())
        });
    });
    if let Some(damage) = found.damage {
        return Err(failed(damage));
    }
    if let Some(fault) = found.chain.and_then(|verdict| verdict.fault) {
        return Err(failed(fault));
    }
    let mut archive = Archive::open_to_add(&args.to, files.journal_id(), files.segment_bytes()).map_err(failed)?;
    // What a later Group record states as durable: the last write may still be cut.
    let sealed = found.watermark / files.segment_bytes();
    let oldest = files.segment_numbers().start;
    let next = archive.segments().last().map_or(oldest, |last| last + 1);
    if next < oldest {
        return Err(failed(format_args!(
            "{}: the archive ends with segment {}, and the journal begins with segment {oldest}: what lies between is in \
             neither; name another place to begin an archive anew",
            args.to.display(),
            next - 1
        )));
    }
    let is_chained = chain.is_some();
    let chain = chain.unwrap_or_else(|| {
        Chain::new(ChainStart {
            journal_id: files.journal_id(),
            segment_bytes: files.segment_bytes(),
            position: oldest * files.segment_bytes(),
            before: None,
        })
    });
    let (mut segments, mut bytes, mut compressed) = (0, 0, 0);
    let mut last: Option<Manifest> = archive
        .segments()
        .last()
        .map(|&last| archive.manifest(last))
        .transpose()
        .map_err(failed)?;
    for number in next..sealed {
        let end = (number + 1) * files.segment_bytes();
        let (mut before, links) = chain.of_segment(number);
        if !is_chained || chain.end() < end - files.segment_bytes() {
            before = last.as_ref().map_or(before, Manifest::chain_after);
        }
        let links = (chain.end() >= end).then(|| links.to_vec());
        let manifest = add(&mut archive, &journal, number, args.level, (before, links))?;
        segments += 1;
        bytes += manifest.segment_bytes;
        compressed += manifest.compressed_bytes;
        tell(&progress, || {
            format!("{} of {} segments archived", number + 1 - next, sealed - next)
        });
        last = Some(manifest);
    }
    let ratio = (compressed > 0).then(|| bytes as f64 / compressed as f64);
    let json = json!({
        "journal": journal.display().to_string(),
        "archive": args.to.display().to_string(),
        "segments_before": next.saturating_sub(archive.segments().first().copied().unwrap_or(next)),
        "segments": segments,
        "bytes": bytes,
        "compressed_bytes": compressed,
        "ratio": ratio,
        "end_position": sealed.max(next) * files.segment_bytes(),
        "chain_value": last.as_ref().map(|manifest| manifest.chain_after().to_string()),
        "seconds": started.elapsed().as_secs_f64(),
    });
    let text = format!(
        "{segments} segments of {bytes} bytes archived in {compressed} bytes{}, each read back and checked; nothing was removed\n\
         the archive goes up to journal position {}\n",
        ratio.map_or(String::new(), |ratio| format!(" (1 : {ratio:.2})")),
        sealed.max(next) * files.segment_bytes(),
    );
    report(args.json.as_deref(), &json, &text)?;
    Ok(Verdict::Well)
}

fn add(
    archive: &mut Archive,
    journal: &Path,
    number: u64,
    level: i32,
    (before, links): (blake3::Hash, Option<Vec<crate::journal::ChainLink>>),
) -> Result<Manifest, CliError> {
    let mut adding = archive.add(journal, number, level, before, links).map_err(failed)?;
    loop {
        if let Some(manifest) = adding.step().map_err(failed)?.1 {
            archive.added(&manifest);
            return Ok(manifest);
        }
    }
}

/// What `restore` takes.
#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    /// The archive
    archive: PathBuf,
    /// Where the journal is to be: a journal or a data directory with one, to put its older segments back, or a new place
    directory: PathBuf,
    /// Only segments that hold this event or later ones
    #[arg(long, value_name = "EVENT", default_value_t = 1)]
    from: u64,
    /// Only segments that hold this event or earlier ones [default: the archive's last]
    #[arg(long, value_name = "EVENT")]
    to: Option<u64>,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn restore(args: &RestoreArgs) -> Result<Verdict, CliError> {
    let started = Instant::now();
    if !Archive::exists(&args.archive) {
        return Err(CliError::Usage(format!(
            "{}: there is no archive here (no file such as 000000000000.toml)",
            args.archive.display()
        )));
    }
    let archive = Archive::open(&args.archive).map_err(failed)?;
    let numbers = archive
        .segments_with(&(args.from..=args.to.unwrap_or(u64::MAX)))
        .map_err(failed)?;
    let journal = journal_in(&args.directory).unwrap_or_else(|| args.directory.join("journal"));
    let progress = Mutex::new(Progress::new());
    let count = numbers.end() + 1 - numbers.start();
    let restored = archive
        .restore_to(&journal, numbers.clone(), threads(), &|done| {
            tell(&progress, || format!("{done} of {count} segments restored"));
        })
        .map_err(failed)?;
    let json = json!({
        "archive": args.archive.display().to_string(),
        "journal": journal.display().to_string(),
        "first_segment": numbers.start(),
        "last_segment": numbers.end(),
        "segments": restored.segments,
        "events": restored.events,
        "chain_breaks_at_segment": restored.chain_breaks_at,
        "kept_within_the_bound_only": restored.before_a_switchs,
        "seconds": started.elapsed().as_secs_f64(),
    });
    let mut text = format!(
        "segments {} to {} with {} events stand in {}, each as it was archived\n",
        numbers.start(),
        numbers.end(),
        restored.events,
        journal.display()
    );
    if restored.before_a_switchs {
        text.push_str(
            "the switch keeps them while its journal stays within journal_keep_mib; over that it lets them go again, the oldest \
             first (the archive has them): restore to another place what is to stay\n",
        );
    }
    if let Some(segment) = restored.chain_breaks_at {
        text.push_str(&format!(
            "the chain was begun anew at segment {segment}: from there on it does not go on from what lies before\n"
        ));
    }
    report(args.json.as_deref(), &json, &text)?;
    Ok(Verdict::Well)
}
