//! The archivist: makes the chain longer behind the live journal, brings sealed segments into the archive, and retires
//! those that nobody needs when the journal has grown past its bound.
//!
//! A thread of its own at the lowest priority, in short slices; nobody waits for it, and nothing it meets stops the
//! switch: it is logged and shown to operators.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::retention::{Holder, Holdings, RetentionFloors};
use crate::agent::{Agent, AgentError};
use crate::config::ArchiveSettings;
use crate::follower::FollowerCounters;
use crate::journal::{
    Adding, Archive, ArchiveError, ChainFailure, ChainWriter, Checking, Positions, SealedSegments, Superblock,
};

/// How often it looks for more when it has caught up.
const ROUND: Duration = Duration::from_millis(250);
/// After the system refused something it tries again this much later.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// What is left of the chain when the switch stops is made for at most this long; the next start makes the rest.
const CLOSING: Duration = Duration::from_secs(2);

/// What the archivist is made of.
#[derive(Debug)]
pub struct ArchivistParts {
    /// The journal's directory.
    pub journal: PathBuf,
    /// The journal's positions.
    pub positions: Arc<Positions>,
    /// Whether to archive, and what the journal may keep.
    pub settings: ArchiveSettings,
    /// Where snapshots are, and what is retired.
    pub superblock: Arc<Superblock>,
    /// What others still need.
    pub floors: Arc<RetentionFloors>,
    /// The follower's figures, where there is one: it says from where on it needs the journal to make the register again.
    pub follower: Option<Arc<FollowerCounters>>,
    /// Where operators look.
    pub view: ArchivistView,
}

/// What the archivist has come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ArchivistReport {
    /// The journal position up to which the chain has come.
    pub chained_to: u64,
    /// The chain's value, 64 hex digits.
    pub chain_value: Option<String>,
    /// The last checkpoint's event and value.
    pub checkpoint: Option<(u64, String)>,
    /// What is wrong with the chain.
    pub chain_fault: Option<String>,
    /// The archive, if there is to be one.
    pub archive: Option<PathBuf>,
    /// The journal position up to which it has come.
    pub archived_to: u64,
    /// Segments archived in this run, their bytes, and what those were compressed to.
    pub archived: (u64, u64, u64),
    /// What the archive's files take on disk, bytes. Nothing bounds it.
    pub archive_bytes: u64,
    /// Segments retired in this run.
    pub retired: u64,
    /// What the journal's segments take on disk, bytes.
    pub journal_bytes: u64,
    /// What they may take.
    pub keep_bytes: Option<u64>,
    /// Who keeps the bound from being kept.
    pub held_by: Option<Holder>,
    /// What is wrong with the archive.
    pub archive_fault: Option<String>,
}

/// Where operators see it.
#[derive(Clone, Debug, Default)]
pub struct ArchivistView(Arc<Mutex<ArchivistReport>>);

impl ArchivistView {
    /// What it has come to by now.
    #[must_use]
    pub fn report(&self) -> ArchivistReport {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ArchivistReport> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// `chain` of the status.
    pub(super) fn chain_json(&self) -> Value {
        let report = self.report();
        json!({
            "to": report.chained_to,
            "value": report.chain_value,
            "checkpoint_event": report.checkpoint.as_ref().map(|(event, _)| event),
            "checkpoint": report.checkpoint.as_ref().map(|(_, value)| value),
            "fault": report.chain_fault,
        })
    }

    /// `archive` of the status.
    pub(super) fn archive_json(&self) -> Value {
        let report = self.report();
        let (segments, plain_bytes, compressed_bytes) = report.archived;
        json!({
            "directory": report.archive.map(|directory| directory.display().to_string()),
            "to": report.archived_to,
            "segments_archived": segments,
            "bytes_archived": plain_bytes,
            "bytes_compressed": compressed_bytes,
            "archive_bytes": report.archive_bytes,
            "segments_retired": report.retired,
            "journal_bytes": report.journal_bytes,
            "journal_keep_bytes": report.keep_bytes,
            "held_by": report.held_by.map(Holder::reason),
            "held_by_code": report.held_by.map(Holder::code),
            "fault": report.archive_fault,
        })
    }
}

/// Where the chain's writer is.
#[derive(Debug)]
enum Chaining {
    NotYet,
    Open(Box<ChainWriter>),
    /// The journal is not what was chained: nothing is added to the evidence, and nothing archived or retired.
    Broken,
}

/// What is done with the archive.
#[derive(Debug)]
enum Archiving {
    NotYet,
    Idle(Archive),
    Adding(Archive, Box<Adding>),
    /// Before a segment is retired what the archive has of it is decompressed and checked, once more, and so is the segment.
    Checking(Archive, u64, Box<Checking>),
    /// There is to be none, or it is wrong.
    Off,
}

/// The archivist.
#[derive(Debug)]
pub struct Archivist {
    parts: ArchivistParts,
    chaining: Chaining,
    archiving: Archiving,
    chain_refused_until: Option<Instant>,
    archive_refused_until: Option<Instant>,
}

impl Archivist {
    /// Puts it together.
    #[must_use]
    pub fn new(parts: ArchivistParts) -> Self {
        {
            let mut report = parts.view.lock();
            report.archive.clone_from(&parts.settings.directory);
            report.keep_bytes = parts.settings.keep_bytes();
        }
        Self {
            chaining: Chaining::NotYet,
            archiving: match parts.settings.directory {
                Some(_) => Archiving::NotYet,
                None => Archiving::Off,
            },
            chain_refused_until: None,
            archive_refused_until: None,
            parts,
        }
    }

    fn chain(&mut self) -> Result<usize, ChainFailure> {
        match &mut self.chaining {
            Chaining::NotYet => {
                let writer = ChainWriter::open(&self.parts.journal)?;
                report_chain(&self.parts.view, &writer);
                self.chaining = Chaining::Open(Box::new(writer));
                Ok(1)
            }
            Chaining::Open(writer) => {
                let before = writer.chain().end();
                let did = writer.step(self.parts.positions.durable())?;
                if writer.chain().end() != before {
                    report_chain(&self.parts.view, writer);
                    if matches!(self.archiving, Archiving::Off) {
                        writer.forget_before(before);
                    }
                }
                Ok(usize::from(did))
            }
            Chaining::Broken => Ok(0),
        }
    }

    fn chain_or_tell(&mut self) -> usize {
        if is_before(&mut self.chain_refused_until) {
            return 0;
        }
        let failure = match self.chain() {
            Ok(done) => return done,
            Err(failure) => failure,
        };
        let text = failure.to_string();
        let mut report = self.parts.view.lock();
        if report.chain_fault.as_ref() != Some(&text) {
            tracing::error!(
                "the journal's chain does not go on: {text}; nothing behind it is archived or removed meanwhile"
            );
            report.chain_fault = Some(text);
        }
        drop(report);
        self.chaining = match failure {
            ChainFailure::Finding(_) => Chaining::Broken,
            ChainFailure::Journal(_) | ChainFailure::System { .. } => {
                self.chain_refused_until = Some(Instant::now() + REFUSED_PAUSE);
                // What the chain's file has is archived and retired meanwhile: that may be what makes room on a full disk.
                match ChainWriter::open(&self.parts.journal) {
                    Ok(writer) => Chaining::Open(Box::new(writer)),
                    Err(_told_by_the_next_attempt) => Chaining::NotYet,
                }
            }
        };
        0
    }

    fn archive_or_tell(&mut self) -> usize {
        if is_before(&mut self.archive_refused_until) {
            return 0;
        }
        let Chaining::Open(writer) = &mut self.chaining else {
            if !matches!(self.archiving, Archiving::Off) {
                self.parts.tell_held_by(Holder::Chain);
            }
            return 0;
        };
        let (next, outcome) = match std::mem::replace(&mut self.archiving, Archiving::NotYet) {
            Archiving::Off => (Archiving::Off, Ok(0)),
            now => match self.parts.archive(now, writer) {
                Ok((next, done)) => {
                    if done > 0 {
                        self.parts.view.lock().archive_fault = None;
                    }
                    (next, Ok(done))
                }
                Err(error) => (Archiving::NotYet, Err(error)),
            },
        };
        self.archiving = next;
        outcome.unwrap_or_else(|error| {
            let text = error.to_string();
            let mut report = self.parts.view.lock();
            if report.archive_fault.as_ref() != Some(&text) {
                tracing::error!("the journal is not archived: {text}; nothing is removed meanwhile");
                report.archive_fault = Some(text);
            }
            drop(report);
            self.parts.tell_held_by(Holder::Archive);
            self.archive_refused_until = Some(Instant::now() + REFUSED_PAUSE);
            0
        })
    }
}

/// True while `until` is to come.
fn is_before(until: &mut Option<Instant>) -> bool {
    *until = until.filter(|&until| Instant::now() < until);
    until.is_some()
}

fn report_chain(view: &ArchivistView, writer: &ChainWriter) {
    let chain = writer.chain();
    let mut report = view.lock();
    report.chained_to = chain.end();
    report.chain_value = Some(chain.value().to_string());
    if let Some((mark, value)) = chain.checkpoint() {
        report.checkpoint = Some((mark.event, value.to_string()));
    }
    report.chain_fault = None;
}

impl ArchivistReport {
    /// Says who keeps the bound from being kept, once.
    fn tell_held_by(&mut self, held_by: Option<Holder>, keep_bytes: u64) {
        if self.held_by == held_by {
            return;
        }
        self.held_by = held_by;
        match held_by {
            Some(holder) => tracing::warn!(
                held_by = holder.code(),
                "the journal takes {} MiB on disk and may keep {} MiB: {}; it grows on, and payments are taken, until the disk \
                 is full",
                self.journal_bytes >> 20,
                keep_bytes >> 20,
                holder.reason()
            ),
            None => tracing::info!("the journal is within its bound of {} MiB again", keep_bytes >> 20),
        }
    }
}

impl ArchivistParts {
    /// Nothing can be retired now, on account of `holder`: says so if the journal has grown past its bound.
    fn tell_held_by(&self, holder: Holder) {
        let (Some(keep_bytes), Ok(segments)) = (self.settings.keep_bytes(), SealedSegments::of(&self.journal)) else {
            return;
        };
        let mut report = self.view.lock();
        report.journal_bytes = segments.count() * segments.segment_bytes();
        let held_by = (report.journal_bytes > keep_bytes).then_some(holder);
        report.tell_held_by(held_by, keep_bytes);
    }

    /// Does the next piece of work; says what is to be done then, and whether something was done.
    fn archive(&self, now: Archiving, writer: &mut ChainWriter) -> Result<(Archiving, usize), ArchiveError> {
        match now {
            Archiving::NotYet => {
                let Some(directory) = &self.settings.directory else {
                    return Ok((Archiving::Off, 0));
                };
                let start = writer.chain().start();
                let archive = Archive::open_to_add(directory, start.journal_id, start.segment_bytes)?;
                let bytes = archive.file_bytes()?;
                self.view.lock().archive_bytes = bytes;
                tracing::info!(
                    "the archive in {} holds {} segments in {} MiB and is never trimmed: see that there is room for it",
                    directory.display(),
                    archive.segments().len(),
                    bytes >> 20
                );
                if let Some(last) = archive.segments().last() {
                    let archived_to = (last + 1) * start.segment_bytes;
                    writer.forget_before(archived_to);
                }
                Ok((Archiving::Idle(archive), 1))
            }
            Archiving::Idle(archive) => self.begin(archive, writer),
            Archiving::Adding(mut archive, mut adding) => {
                let Some(manifest) = adding.step()?.1 else {
                    return Ok((Archiving::Adding(archive, adding), 1));
                };
                archive.added(&manifest);
                let end = (manifest.segment + 1) * manifest.segment_bytes;
                writer.forget_before(end);
                let mut report = self.view.lock();
                report.archived_to = end;
                report.archived.0 += 1;
                report.archived.1 += manifest.segment_bytes;
                report.archived.2 += manifest.compressed_bytes;
                report.archive_bytes += manifest.compressed_bytes;
                drop(report);
                Ok((Archiving::Idle(archive), 1))
            }
            Archiving::Checking(archive, number, mut checking) => {
                if !checking.step()? {
                    return Ok((Archiving::Checking(archive, number, checking), 1));
                }
                // From here on it may be used again for a later segment.
                self.superblock
                    .retain_from((number + 1) * writer.chain().start().segment_bytes)?;
                self.view.lock().retired += 1;
                Ok((Archiving::Idle(archive), 1))
            }
            Archiving::Off => Ok((Archiving::Off, 0)),
        }
    }

    /// The next segment to archive, if one is sealed and chained; else the next to retire.
    fn begin(&self, mut archive: Archive, writer: &mut ChainWriter) -> Result<(Archiving, usize), ArchiveError> {
        let segments = SealedSegments::of(&self.journal)?;
        let segment_bytes = segments.segment_bytes();
        let next = archive.segments().last().map_or(segments.oldest(), |last| last + 1);
        if next < segments.oldest() {
            return Err(ArchiveError::Missing {
                directory: archive.directory().to_owned(),
                segment: next,
                reason: "the archive ends before it, and the journal begins behind it",
            });
        }
        let oldest_at = segments.oldest() * segment_bytes;
        if let Some(gone) = segments.oldest().checked_sub(1)
            && writer.is_mostly_before(oldest_at)
            && archive.segments().contains(&gone)
        {
            writer.begin_anew(oldest_at, archive.manifest(gone)?.chain_after())?;
        }
        let chained_to = writer.chain().end();
        if chained_to >= (next + 1) * segment_bytes {
            let (before, links) = writer.chain().of_segment(next);
            let links = Some(links.to_vec());
            let adding = archive.add(&self.journal, next, self.settings.level, before, links)?;
            return Ok((Archiving::Adding(archive, Box::new(adding)), 1));
        }
        let holdings = Holdings {
            segment_bytes,
            oldest: segments.oldest(),
            files: segments.count(),
            archived_to: next,
            chained_to,
            snapshots_from: self.superblock.facts().snapshots_from(),
            live: self.positions.applied(),
        };
        let mut report = self.view.lock();
        report.archived_to = next * segment_bytes;
        report.journal_bytes = holdings.files * segment_bytes;
        let Some(keep_bytes) = self.settings.keep_bytes() else {
            return Ok((Archiving::Idle(archive), 0));
        };
        if let Some(follower) = &self.follower {
            self.floors.set_register(follower.needed_from.load(Ordering::Relaxed));
        }
        let retirement = holdings.retire(&self.floors, keep_bytes);
        report.tell_held_by(retirement.held_by, keep_bytes);
        drop(report);
        let retained_from = self.positions.retained_from();
        let next = (retained_from / segment_bytes).max(holdings.oldest);
        if retirement.below > next {
            let checking = archive.check_against(&self.journal, next)?;
            return Ok((Archiving::Checking(archive, next, Box::new(checking)), 1));
        }
        let removed = retirement.remove && segments.remove_oldest(retained_from)?;
        Ok((Archiving::Idle(archive), usize::from(removed)))
    }
}

impl Agent for Archivist {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        Ok(self.chain_or_tell() + self.archive_or_tell())
    }

    fn on_close(&mut self) {
        let until = Instant::now() + CLOSING;
        while Instant::now() < until && self.chain_or_tell() > 0 {}
    }

    fn role_name(&self) -> &str {
        "archivist"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        Some(ROUND)
    }
}

#[cfg(test)]
mod tests;
