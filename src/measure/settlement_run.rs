//! How long a large window's files take: `clearway bench settlement`.
//!
//! The payments are made up, but stand in a spool as the switch writes it; from there on everything is what settles a window.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::machine;
use crate::register::FileDoor;
use crate::settlement::made_up::MadeUpWindow;
use crate::settlement::{Existing, SettlementDirectory, SettlementError, write_window};

/// How often memory is looked at, payments.
const LOOK_EVERY: u64 = 250_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct SettlementRunOptions {
    /// Where spool and files are made.
    pub directory: PathBuf,
    /// The window.
    pub window: MadeUpWindow,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct SettlementReport {
    /// Final payments in the spool.
    pub payments: u64,
    /// Committed ones: rows under the root.
    pub committed: u64,
    /// Participants.
    pub participants: usize,
    /// The spool's bytes.
    pub spool_bytes: u64,
    /// Files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first payment until the files had their names and were flushed.
    pub seconds: f64,
    /// Processor time of that.
    pub cpu_seconds: Option<f64>,
    /// Committed payments a second.
    pub rows_per_second: f64,
    /// The most anonymous memory the process had meanwhile.
    pub memory_bytes: Option<u64>,
    /// Where the time went.
    pub share: SettlementShares,
    /// The window's root, the same for the same payments.
    pub root: String,
}

/// Shares of the whole time, from 0 to 1. Steps of a payment are timed one payment in sixty-four.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SettlementShares {
    /// Reading the spool and checking it.
    pub reading: f64,
    /// Counting, and writing rows as text.
    pub formatting: f64,
    /// Hashing leaves and nodes of the tree.
    pub tree: f64,
    /// Filling the participants' buffers, adding up.
    pub filing: f64,
    /// Hashing the files.
    pub hashing: f64,
    /// Handing bytes to the kernel.
    pub writing: f64,
    /// Waiting for the disk at the end.
    pub syncing: f64,
    /// All else.
    pub rest: f64,
}

/// Measures; `say` is told what is done, and how far it is.
///
/// # Errors
/// The system refuses something.
pub fn run(options: &SettlementRunOptions, mut say: impl FnMut(String)) -> Result<SettlementReport, SettlementError> {
    let spool_directory = options.directory.join("spool");
    std::fs::create_dir_all(&spool_directory)
        .map_err(SettlementError::system(&spool_directory, "make the directory"))?;
    say(format!("making up a spool of {} payments", options.window.payments));
    let spool = options.window.spool(&spool_directory)?;
    let facts = spool.facts(MadeUpWindow::WINDOW)?;
    let spool_bytes = facts.finals * 112;

    let pid = std::process::id();
    let mut memory_bytes = None;
    let mut seen = 0;
    let cpu_before = machine::cpu_us(pid);
    let started = Instant::now();
    let payments = spool.finals(&facts)?.inspect(|_| {
        seen += 1;
        if seen % LOOK_EVERY == 0 {
            memory_bytes = memory_bytes.max(machine::anonymous_bytes(pid));
            let rate = seen as f64 / started.elapsed().as_secs_f64();
            say(format!("{seen} payments, {rate:.0} a second"));
        }
    });
    let directory = SettlementDirectory::new(options.directory.clone(), FileDoor::OPEN);
    let mut draft = directory.begin(directory.window(facts.window))?;
    let (statement, rows) = write_window(&facts, payments, &mut draft)?;
    let publication = draft.publish(Existing::Replace)?;
    let elapsed = started.elapsed();
    let cpu_seconds = machine::cpu_us(pid)
        .zip(cpu_before)
        .map(|(after, before)| (after - before) as f64 / 1e6);
    memory_bytes = memory_bytes.max(machine::anonymous_bytes(pid));

    let files = publication.times;
    let share = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64();
    let mut shares = SettlementShares {
        reading: share(rows.reading),
        formatting: share(rows.formatting),
        tree: share(rows.tree),
        // What of it went on to the files is told by the files.
        filing: share(rows.filing.saturating_sub(files.hashing + files.writing)),
        hashing: share(files.hashing),
        writing: share(files.writing),
        syncing: share(files.syncing),
        rest: 0.0,
    };
    let SettlementShares {
        reading,
        formatting,
        tree,
        filing,
        hashing,
        writing,
        syncing,
        ..
    } = shares;
    shares.rest = (1.0 - reading - formatting - tree - filing - hashing - writing - syncing).max(0.0);
    Ok(SettlementReport {
        payments: facts.finals,
        committed: facts.committed,
        participants: facts.parties.len(),
        spool_bytes,
        files: publication.files,
        bytes: publication.bytes,
        seconds: elapsed.as_secs_f64(),
        cpu_seconds,
        rows_per_second: facts.committed as f64 / elapsed.as_secs_f64(),
        memory_bytes,
        share: shares,
        root: crate::settlement::merkle::hex(&statement.root),
    })
}
