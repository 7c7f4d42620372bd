//! `clearway bench journal`: append and sync alone, against what the same file system does with bare durable writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use super::append::{self, AppendFigures, AppendLoad, JournalAppend, JournalSync, RECORD_BYTES};
use super::primitives::{DurableWrite, durable_write, durable_write_beside_spinning, sequential_write};
use crate::agent::SwitchClock;
use crate::journal::{
    BLOCK_BYTES, Journal, JournalError, JournalOptions, JournalStart, Positions, Preparation, Preparer, Superblock,
    SyncMode,
};

const RING_BYTES_MIN: u64 = 256 << 20;
/// The bare writes that the paced run is held against are timed for as long as the run takes, and no longer than this.
const SAME_SIZE_SECONDS_MAX: u64 = 10;
/// How often preparing looks whether there is something to do.
const PREPARE_EVERY: Duration = Duration::from_millis(2);

/// Why the journal could not be measured.
#[derive(Debug, Error)]
pub enum JournalRunError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The disk.
    #[error("writing in {}: {source}", .directory.display())]
    Write {
        /// Where.
        directory: PathBuf,
        /// The fault.
        source: io::Error,
    },
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct JournalRunOptions {
    /// Where the journals go; each run makes one and removes it.
    pub directory: PathBuf,
    /// Records a second of the paced run.
    pub rate: u64,
    /// How long the paced run takes, seconds.
    pub seconds: u32,
    /// How much the runs without a rate write, MiB.
    pub flood_mib: u64,
    /// How writes are made durable.
    pub sync: SyncMode,
    /// A segment's length, MiB, a power of two.
    pub segment_mib: u64,
}

impl JournalRunOptions {
    const fn segment_bytes(&self) -> u64 {
        self.segment_mib << 20
    }
}

/// What was found. Times in microseconds where not said otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct JournalReport {
    /// Records a second of the paced run.
    pub rate: u64,
    /// The paced run: new segments are made behind it, as in a switch that keeps its whole journal.
    pub paced: AppendFigures,
    /// The paced run where older segments are used again, as in a switch whose retention keeps up: nothing is written twice.
    pub paced_reusing: AppendFigures,
    /// As many records as are taken, into segments that were prepared before.
    pub prepared: AppendFigures,
    /// The same while segments are prepared.
    pub sustained: AppendFigures,
    /// How the journal's writes were made durable.
    pub sync: &'static str,
    /// `locked` or `prefaulted`.
    pub memory: &'static str,
    /// What the file system does bare, in the same run.
    pub limit: JournalLimits,
    /// How near the journal came.
    pub ratio: JournalRatios,
}

/// Bare durable writes of a thread of the syncer's class.
#[derive(Clone, Debug, Serialize)]
pub struct JournalLimits {
    /// Of 4 KiB.
    pub durable_write: DurableWrite,
    /// Of as many bytes as the paced run wrote at a time on average, in whole blocks: its records' and the rest of the
    /// blocks that the first and the last of them lie in. Taken on the syncing thread's core with another thread spinning on
    /// the appending one's, for as long as the paced run took (at most 10 s).
    pub same_size_write: DurableWrite,
    /// How many those are.
    pub same_size_bytes: u64,
    /// Of 1 MiB, one after the other.
    pub sequential_write: DurableWrite,
}

/// The journal's figures by the file system's.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct JournalRatios {
    /// Median latency of the paced run by that of a bare write of the same size. A record that comes while a write is under
    /// way waits for the rest of that one and for its own: 1.5 where nothing is lost.
    pub latency_p50: Option<f64>,
    /// The 99th percentiles.
    pub latency_p99: Option<f64>,
    /// As `latency_p50`, where segments are used again.
    pub reusing_latency_p50: Option<f64>,
    /// The 99th percentiles.
    pub reusing_latency_p99: Option<f64>,
    /// Throughput into prepared segments by bare sequential writes.
    pub prepared_throughput: f64,
    /// The same while segments are prepared, which writes every byte twice.
    pub sustained_throughput: f64,
}

/// Measures, one after the other; `say` is told what.
///
/// # Errors
/// As [`JournalRunError`] says.
pub fn run(options: &JournalRunOptions, mut say: impl FnMut(&str)) -> Result<JournalReport, JournalRunError> {
    let directory = options.directory.as_path();
    let written = |measured: io::Result<DurableWrite>| measured.map_err(|source| refused(directory, source));
    say("bare durable writes");
    let small = written(durable_write(directory, BLOCK_BYTES as usize))?;
    let sequential = written(sequential_write(directory))?;

    say(&format!("{} records a second for {} s", options.rate, options.seconds));
    let load = AppendLoad {
        rate: Some(options.rate),
        duration: Duration::from_secs(options.seconds.into()),
        records_max: u64::MAX,
    };
    let (paced, sync, memory) = with_journal(options, 2, &load, Segments::Made)?;
    say(&format!("the same for {} s, segments used again", options.seconds));
    let (paced_reusing, ..) = with_journal(options, 2, &load, Segments::UsedAgain)?;
    let same_size_bytes = write_bytes(paced.bytes_per_sync);
    say(&format!("bare durable writes of {same_size_bytes} bytes"));
    let beside = Duration::from_secs(u64::from(options.seconds).clamp(1, SAME_SIZE_SECONDS_MAX));
    let same_size = written(durable_write_beside_spinning(
        directory,
        same_size_bytes as usize,
        beside,
    ))?;

    let flood = AppendLoad {
        rate: None,
        duration: Duration::from_secs(600),
        records_max: (options.flood_mib << 20) / RECORD_BYTES,
    };
    say(&format!("{} MiB into prepared segments", options.flood_mib));
    let segments = (options.flood_mib / options.segment_mib + 2) as u32;
    let (prepared, ..) = with_journal(options, segments, &flood, Segments::Ready)?;
    say(&format!("{} MiB while segments are prepared", options.flood_mib));
    let (sustained, ..) = with_journal(options, 2, &flood, Segments::Made)?;

    let p50 = |figures: &AppendFigures| Some(figures.latency_us.as_ref()?.p50 / same_size.us.p50);
    let p99 = |figures: &AppendFigures| Some(figures.latency_us.as_ref()?.p99 / same_size.us.p99);
    let ratio = JournalRatios {
        latency_p50: p50(&paced),
        latency_p99: p99(&paced),
        reusing_latency_p50: p50(&paced_reusing),
        reusing_latency_p99: p99(&paced_reusing),
        prepared_throughput: prepared.mb_per_second / sequential.mb_per_second,
        sustained_throughput: sustained.mb_per_second / sequential.mb_per_second,
    };
    Ok(JournalReport {
        rate: options.rate,
        paced,
        paced_reusing,
        prepared,
        sustained,
        sync,
        memory,
        limit: JournalLimits {
            durable_write: small,
            same_size_write: same_size,
            same_size_bytes,
            sequential_write: sequential,
        },
        ratio,
    })
}

/// The whole blocks that a write of so many records' bytes takes, which begins and ends anywhere in one.
fn write_bytes(record_bytes: f64) -> u64 {
    let blocks = (record_bytes / BLOCK_BYTES as f64).round() as u64 + 1;
    blocks * BLOCK_BYTES
}

/// Where a run's segments come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segments {
    /// All of them stand ready.
    Ready,
    /// They are made meanwhile.
    Made,
    /// They are made of those that the run has left behind.
    UsedAgain,
}

/// Runs `load` through a journal of its own in which `segments` stand ready first; more come as `source` says. Returns how
/// it was written and held, too.
fn with_journal(
    options: &JournalRunOptions,
    segments: u32,
    load: &AppendLoad,
    source: Segments,
) -> Result<(AppendFigures, &'static str, &'static str), JournalRunError> {
    let place = tempfile::tempdir_in(&options.directory).map_err(|source| refused(&options.directory, source))?;
    let mut journal = Journal::create(JournalOptions {
        directory: place.path().to_owned(),
        segment_bytes: options.segment_bytes(),
        ring_bytes: (2 * options.segment_bytes()).max(RING_BYTES_MIN),
        sync: options.sync,
        lock_memory: true,
        prepared_segments: segments,
        link_agents: 0,
        start: None,
        gate: None,
    })?;
    while journal.preparer.prepare()? {}
    let (sync, memory) = (journal.facts.sync, journal.facts.memory);
    let Journal {
        appender,
        syncer,
        preparer,
        positions,
        superblock,
        ..
    } = journal;
    let leave = (source == Segments::UsedAgain).then_some((superblock, Arc::clone(&positions)));
    let over = &AtomicBool::new(false);
    let (figures, prepared) = std::thread::scope(|scope| {
        let preparing = (source != Segments::Ready)
            .then(|| scope.spawn(move || prepare_until(preparer, leave, options.segment_bytes(), over)));
        let figures = append::run(JournalAppend(appender), JournalSync { syncer, positions }, load);
        over.store(true, Ordering::Release);
        let prepared = preparing.map_or(Ok(()), |preparing| {
            preparing
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        (figures, prepared)
    });
    prepared?;
    Ok((figures.map_err(|source| refused(place.path(), source))?, sync, memory))
}

/// Prepares until it is over. With `leave`, what lies before the segment that is being written need not be kept.
fn prepare_until(
    mut preparer: Preparer,
    leave: Option<(Arc<Superblock>, Arc<Positions>)>,
    segment_bytes: u64,
    over: &AtomicBool,
) -> Result<(), JournalError> {
    let clock = SwitchClock::new();
    let mut left = 0;
    while !over.load(Ordering::Acquire) {
        if let Some((superblock, positions)) = &leave {
            let active = positions.durable() / segment_bytes;
            if active > left {
                left = active;
                // Two snapshots must be known before anything may go; here are none, so both are said to be there.
                for position in [left * segment_bytes, left * segment_bytes + 1] {
                    superblock.add_snapshot(JournalStart {
                        position,
                        ..JournalStart::BEGINNING
                    })?;
                }
                superblock.retain_from(left * segment_bytes)?;
            }
        }
        match preparer.prepare_piece(clock.now())? {
            Preparation::Piece | Preparation::Ready => {}
            Preparation::Waiting | Preparation::Done => std::thread::sleep(PREPARE_EVERY),
        }
    }
    Ok(())
}

fn refused(directory: &Path, source: io::Error) -> JournalRunError {
    JournalRunError::Write {
        directory: directory.to_owned(),
        source,
    }
}
