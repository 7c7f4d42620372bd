//! `clearway demo`: the whole thing with nothing to set up.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{Table, money, report};
use super::run_report::{Progress, percent, run_report};
use super::{CliError, Verdict};
use crate::agent::process;
use crate::config::Directory;
use crate::domain::{ParticipantIndex, Role};
use crate::io::BackendChoice;
use crate::measure::run::{Ran, RunPlan, fresh_data_directory, parties, run as run_load, this_program};
use crate::measure::switch_child::{SwitchChild, SwitchPlan, plans_of};
use crate::sim::{BankHabits, Evening, ParticipantPlan, Recorded, Trace, WindowFigures, Workload};

/// The reference scheme: 115 institutions and 424 banks.
const INSTITUTIONS: u16 = 115;
const BANKS: u16 = 424;
/// A window closes at least this often, seconds.
const CLOSE_EVERY_S: u64 = 8;
/// Participants shown at the end.
const TOP: usize = 10;

/// New Year's Eve on one machine, with nothing to set up
///
/// Starts a switch of its own, 115 institutions and 424 banks over real TCP, and plays the evening compressed into the
/// given time, up to 46,000 payments a second at midnight: Debits most of all, Payouts, Refunds of what was paid this
/// evening, mandates made and ended, and some attempts that must be refused. At the end: windows, the largest participants,
/// payments by kind and scene, the audit, the report.
///
/// A trace is a CSV file of at_ms,initiator,responder,kind,amount_minor,scene; kind is debit, payout, refund, bind or
/// unbind. A refund gives back the initiator's earliest committed debit to that bank with enough left; if there is none at
/// its time, it waits for one, and if none comes it is reported at the end with its line. A bind or unbind is one line, its
/// amount 0: the Authenticate at that time, and the Sign once that is committed.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway demo\n  clearway demo --seconds 60 --rate 44000 --json report.json\n  \
                  clearway demo --trace payments.csv --speed 2 --data /var/tmp/clearway"
)]
pub(super) struct DemoArgs {
    /// How long the evening takes
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400),
          conflicts_with = "trace")]
    seconds: u32,
    /// The same rate throughout, payments a second, in place of the evening's curve
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=5_000_000), conflicts_with = "trace")]
    rate: Option<u64>,
    /// Close the windows so that there are about so many of equal length [default: one at least every 8 seconds]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    windows: Option<u32>,
    /// Where the switch keeps its journal and settlement's files; they stay there [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Play the payments of this CSV file (at_ms,initiator,responder,kind,amount_minor,scene)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Play the trace this many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive, requires = "trace")]
    speed: f64,
    /// Write the payments that were made as such a CSV file, to be played again; without the refunds that were made to be
    /// refused
    #[arg(long, value_name = "FILE")]
    write_trace: Option<PathBuf>,
    /// Write the report as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The driver: auto, uring or mio
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    backend: BackendChoice,
    /// The hardware profile: a name or a file
    #[arg(long, value_name = "PROFILE", default_value = "small-vm")]
    profile: String,
    /// The evening's seed: the same seed makes the same payments, but for what follows from answers
    #[arg(long, value_name = "NUMBER", default_value_t = 2019)]
    seed: u64,
    /// Keep the temporary directory
    #[arg(long)]
    keep: bool,
}

/// How often a window closes, seconds; the last one closes at the end.
fn close_every_s(seconds: u32, windows: Option<u32>) -> u64 {
    match windows {
        Some(windows) => u64::from(seconds.div_ceil(windows)),
        None => CLOSE_EVERY_S.min(u64::from(seconds).div_ceil(3)),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        Ok(_) | Err(_) => Err("a number over 0 is wanted".to_owned()),
    }
}

pub(super) fn run(args: &DemoArgs) -> Result<Verdict, CliError> {
    let plans = plans_of(&Directory::generate(INSTITUTIONS, BANKS));
    let trace = args
        .trace
        .as_deref()
        .map(|file| read_trace(file, &plans, args.speed))
        .transpose()?;
    for message in process::raise_soft_limits() {
        tracing::warn!("{message}");
    }
    let place = DataPlace::make(args.data.as_deref(), args.keep)?;
    let seconds = trace.as_ref().map_or(args.seconds, Trace::seconds);
    let plan = RunPlan {
        switch: SwitchPlan {
            program: this_program().map_err(failed)?,
            data: place.path().to_owned(),
            institutions: INSTITUTIONS,
            banks: BANKS,
            backend: args.backend,
            profile: args.profile.clone(),
            close_every_s: Some(close_every_s(seconds, args.windows)),
            files: true,
        },
        command: "demo".to_owned(),
        skew: if trace.is_some() { "trace" } else { "evening" }.to_owned(),
        in_flight: None,
        rate: args.rate,
        seconds,
    };
    let workload: Box<dyn Workload + Send> = match trace {
        Some(trace) => Box::new(trace),
        None => Box::new(Evening::new(parties(&plans), args.seconds, args.rate, args.seed)),
    };
    let workload = Recorded::new(workload, args.write_trace.is_some());
    let ran = play(&plan, workload, args.seed)?;
    if let Some(file) = &args.write_trace {
        write_trace(file, &ran)?;
    }
    let text = format!("{}{}", evening_report(&ran), run_report(&ran.report));
    let json = serde_json::to_value(&ran.report).map_err(|error| CliError::Failed(error.to_string()))?;
    report(args.json.as_deref(), &json, &text)?;
    place.leave();
    Ok(if ran.report.is_well() {
        Verdict::Well
    } else {
        Verdict::Wrong
    })
}

fn play<W: Workload + Send>(plan: &RunPlan, workload: W, seed: u64) -> Result<Ran<W>, CliError> {
    let switch = SwitchChild::start(&plan.switch).map_err(failed)?;
    let status = switch.status();
    eprintln!(
        "switch ready: {} ({}), journal {}, syncer {}, memory {}, {} participants",
        status.backend,
        status.backend_reason,
        status.sync,
        status.syncer_class,
        status.memory,
        switch.participants().len()
    );
    let habits = BankHabits::as_in_life(switch.participants().len(), seed);
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let ran = run_load(plan, switch, habits, workload, |moment| progress.show(moment));
    progress.end();
    ran.map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

fn read_trace(file: &Path, plans: &[ParticipantPlan], speed: f64) -> Result<Trace, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CliError::Usage(format!("{}: {error}; give a CSV file", file.display())))?;
    Trace::parse(&text, plans, speed).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

fn write_trace<W: Workload>(file: &Path, ran: &Ran<Recorded<W>>) -> Result<(), CliError> {
    let result = File::create(file).map(BufWriter::new).and_then(|mut out| {
        ran.workload.write(&ran.participants, &mut out)?;
        out.flush()
    });
    result.map_err(|error| CliError::Output {
        place: file.display().to_string(),
        error,
    })
}

/// Where a run keeps its journal.
pub(super) enum DataPlace {
    /// A directory that the user named.
    Named(PathBuf),
    /// One that goes away, unless it is to be kept.
    Temporary {
        /// It.
        directory: tempfile::TempDir,
        /// Whether it stays.
        keep: bool,
    },
}

impl DataPlace {
    /// Makes the directory.
    pub(super) fn make(named: Option<&Path>, keep: bool) -> Result<Self, CliError> {
        let cant = |place: String| move |error| CliError::Failed(format!("can't make the directory {place}: {error}"));
        match named {
            Some(path) => {
                std::fs::create_dir_all(path).map_err(cant(path.display().to_string()))?;
                let path = path.canonicalize().map_err(cant(path.display().to_string()))?;
                Ok(Self::Named(path))
            }
            None => Ok(Self::Temporary {
                directory: fresh_data_directory().map_err(cant("for the journal".to_owned()))?,
                keep,
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Named(path) => path,
            Self::Temporary { directory, .. } => directory.path(),
        }
    }

    /// Removes it, or says where it stays.
    pub(super) fn leave(self) {
        match self {
            Self::Named(path) => stays_in(&path),
            Self::Temporary { directory, keep: true } => {
                stays_in(&directory.keep());
            }
            Self::Temporary { directory, keep: false } => drop(directory),
        }
    }
}

fn stays_in(path: &Path) {
    eprintln!("the journal stays in {}", path.display());
    let settlement = path.join("settlement");
    if settlement.is_dir() {
        eprintln!("settlement's files are in {}", settlement.display());
    }
}

/// The windows and the participants with the largest nets.
fn evening_report<W>(ran: &Ran<W>) -> String {
    let code = |index: u16| {
        ran.participants
            .get(usize::from(index))
            .map_or_else(String::new, |p| p.code.text())
    };
    let mut windows = Table::new(&["window", "state", "payments", "gross", "participants", "largest net"]);
    for window in &ran.shutdown.windows {
        let largest = window.nets.iter().max_by_key(|(_, net)| net.unsigned_abs());
        windows.row(vec![
            window.id.clone(),
            window.state.clone(),
            window.committed.to_string(),
            money(window.gross_minor),
            window.nets.iter().filter(|(_, net)| *net != 0).count().to_string(),
            largest.map_or_else(String::new, |(index, net)| format!("{} {}", code(*index), money(*net))),
        ]);
    }
    let mut participants = Table::new(&[
        "participant",
        "role",
        "owes (−: is owed), all windows",
        "payments",
        "committed",
        "success",
    ]);
    for (index, net) in largest_nets(&ran.shutdown.windows) {
        let role = ran.participants.get(usize::from(index)).map(|plan| match plan.role {
            Role::Institution => "institution",
            Role::Bank => "bank",
        });
        let tally = ran.breakdown.participant(ParticipantIndex(index));
        participants.row(vec![
            code(index),
            role.unwrap_or_default().to_owned(),
            money(net),
            tally.answered.to_string(),
            tally.committed.to_string(),
            percent(tally.success_rate()),
        ]);
    }
    format!(
        "Windows\n{}\nLargest participants\n{}\n",
        windows.render(),
        participants.render()
    )
}

fn largest_nets(windows: &[WindowFigures]) -> Vec<(u16, i128)> {
    let mut nets = std::collections::BTreeMap::new();
    for (index, net) in windows.iter().flat_map(|window| &window.nets) {
        *nets.entry(*index).or_insert(0i128) += net;
    }
    let mut nets: Vec<(u16, i128)> = nets.into_iter().collect();
    nets.sort_by_key(|(_, net)| std::cmp::Reverse(net.unsigned_abs()));
    nets.truncate(TOP);
    nets
}
