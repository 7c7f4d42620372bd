//! `clearway bench`: what the switch does, beside what the machine could do.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::bench_journal::JournalArgs;
use super::bench_settlement::SettlementArgs;
use super::demo::DataPlace;
use super::output::report;
use super::run_report::{Progress, run_report};
use super::{CliError, Verdict};
use crate::agent::process;
use crate::io::BackendChoice;
use crate::measure::bench::{BenchPlan, Offer, bench};
use crate::measure::idle::{CORE_PERCENT_MAX, idle};
use crate::measure::limits::{self, LimitsOptions, LimitsReport};
use crate::measure::restart::{RestartPlan, restart};
use crate::measure::run::{RunError, this_program};
use crate::measure::switch_child::SwitchPlan;
use crate::measure::{machine, relay};
use crate::sim::Skew;

/// Measure the switch, and what this machine could do at best
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Flood(FloodArgs),
    Paced(PacedArgs),
    Limits(LimitsArgs),
    Journal(JournalArgs),
    Settlement(SettlementArgs),
    Idle(IdleArgs),
    Restart(RestartArgs),
}

/// As many payments as the switch will take
///
/// Every institution keeps a number of payments unanswered; banks answer at once. The relay limit is measured in the same
/// run, with the same connections, frames and cores.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway bench flood --seconds 10 --in-flight 64 --json -\n  \
                  clearway bench flood --in-flight 256 --skew zipf --backend mio"
)]
struct FloodArgs {
    /// Unanswered payments per institution, on average
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=8_192))]
    in_flight: u32,
    #[command(flatten)]
    shared: SharedArgs,
}

/// A fixed rate, with latency from the intended send time
///
/// Payments are sent when they are due, answered or not, so that a slow switch can't slow down its own measurement.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway bench paced --rate 20000 --seconds 10 --json -")]
struct PacedArgs {
    /// Payments a second
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    rate: u64,
    #[command(flatten)]
    shared: SharedArgs,
}

#[derive(Args, Debug)]
struct SharedArgs {
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Institutions, one link each
    #[arg(long, value_name = "COUNT", default_value_t = 115, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    institutions: u16,
    /// Banks, one link each
    #[arg(long, value_name = "COUNT", default_value_t = 424, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    banks: u16,
    /// How payments spread over participants
    #[arg(long, value_name = "SKEW", default_value = "uniform")]
    skew: SkewArg,
    /// The driver: auto, uring or mio
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    backend: BackendChoice,
    /// The hardware profile: a name or a file
    #[arg(long, value_name = "PROFILE", default_value = "small-vm")]
    profile: String,
    /// Close the window this often meanwhile, and report latency beside the closes
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    close_every: Option<u64>,
    /// Where the journal is kept; it stays there [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the report as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SkewArg {
    /// All alike
    Uniform,
    /// Zipf's law
    Zipf,
}

/// What this machine could do at best
///
/// A relay of the same frames over the same number of connections without logic or disk, a TCP round trip, bare durable
/// writes, checksums.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway bench limits --in-flight 256 --json -")]
struct LimitsArgs {
    /// Links that send requests
    #[arg(long, value_name = "COUNT", default_value_t = 115, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    institutions: u16,
    /// Links that reply
    #[arg(long, value_name = "COUNT", default_value_t = 424, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    banks: u16,
    /// Payments in flight per institution through the flooded relay
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=8_192))]
    in_flight: u32,
    /// Payments a second through the paced relay
    #[arg(long, value_name = "RATE", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=5_000_000))]
    rate: u64,
    /// How long each run of the relay takes
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// The driver: auto, uring or mio
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    backend: BackendChoice,
    /// Where durable writes go [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the figures as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What an idle switch costs
///
/// Every participant's link is established and heartbeats; no payment is made. All threads of the switch are counted. Exit
/// code 1 when it takes 2 % of a core or more.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway bench idle --seconds 30 --json -")]
struct IdleArgs {
    #[command(flatten)]
    shared: SharedArgs,
}

/// How long a start takes after a kill
///
/// Writes a history of committed payments with its register and snapshots, journals events behind the last one, and starts
/// and kills the daemon. What no snapshot needs of the journal is used again: a hundred million payments take 28 GB and some
/// minutes.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway bench restart --payments 10000000 --since 2000000 --json -")]
struct RestartArgs {
    /// Payments of history, all of today
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    payments: u64,
    /// Events since the snapshot
    #[arg(long, value_name = "EVENTS", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    since: u64,
    /// Starts
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Institutions
    #[arg(long, value_name = "COUNT", default_value_t = 115, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    institutions: u16,
    /// Banks
    #[arg(long, value_name = "COUNT", default_value_t = 424, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    banks: u16,
    /// The hardware profile: a name or a file
    #[arg(long, value_name = "PROFILE", default_value = "small-vm")]
    profile: String,
    /// Where everything is written; it stays there [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the figures as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The relay that limits are measured with, in a process of its own; started by the bench, not by people
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway relay-child uring 539 0")]
pub(super) struct RelayChildArgs {
    /// BACKEND LINKS [CORE]
    arguments: Vec<String>,
}

pub(super) fn run(args: &BenchArgs) -> Result<Verdict, CliError> {
    for message in process::raise_soft_limits() {
        tracing::warn!("{message}");
    }
    match &args.what {
        What::Flood(flood) => {
            let in_flight = flood.in_flight;
            run_bench(Offer::Flood { in_flight }, &flood.shared)
        }
        What::Paced(paced) => run_bench(Offer::Paced { rate: paced.rate }, &paced.shared),
        What::Limits(limits) => run_limits(limits),
        What::Journal(journal) => super::bench_journal::run(journal),
        What::Settlement(settlement) => super::bench_settlement::run(settlement),
        What::Idle(idle) => run_idle(&idle.shared),
        What::Restart(restart) => run_restart(restart),
    }
}

pub(super) fn relay_child(args: &RelayChildArgs) -> Result<Verdict, CliError> {
    for message in process::raise_soft_limits() {
        tracing::warn!("{message}");
    }
    relay::child_main(&args.arguments)
        .map(|()| Verdict::Well)
        .map_err(|error| CliError::Failed(error.to_string()))
}

fn run_bench(offer: Offer, args: &SharedArgs) -> Result<Verdict, CliError> {
    let place = DataPlace::make(args.data.as_deref(), false)?;
    let plan = BenchPlan {
        offer,
        seconds: args.seconds,
        institutions: args.institutions,
        banks: args.banks,
        skew: match args.skew {
            SkewArg::Uniform => Skew::Uniform,
            SkewArg::Zipf => Skew::Zipf,
        },
        backend: args.backend,
        profile: args.profile.clone(),
        data: place.path().to_owned(),
        close_every_s: args.close_every,
        seed: 2019,
    };
    let progress = RefCell::new(Progress::new(std::io::stderr().is_terminal()));
    let say = |what: &str| {
        progress.borrow_mut().end();
        eprintln!("{what}");
    };
    let measured = bench(&plan, say, |moment| progress.borrow_mut().show(moment));
    progress.borrow_mut().end();
    let measured = measured.map_err(|error| CliError::Failed(error.to_string()))?;
    let value = serde_json::to_value(&measured).map_err(|error| CliError::Failed(error.to_string()))?;
    report(args.json.as_deref(), &value, &run_report(&measured))?;
    place.leave();
    Ok(if measured.is_well() {
        Verdict::Well
    } else {
        Verdict::Wrong
    })
}

fn run_idle(args: &SharedArgs) -> Result<Verdict, CliError> {
    let failed = |error: RunError| CliError::Failed(error.to_string());
    let place = DataPlace::make(args.data.as_deref(), false)?;
    let plan = SwitchPlan {
        program: this_program().map_err(failed)?,
        data: place.path().to_owned(),
        institutions: args.institutions,
        banks: args.banks,
        backend: args.backend,
        profile: args.profile.clone(),
        close_every_s: None,
    };
    let links = u64::from(args.institutions) + u64::from(args.banks);
    eprintln!("{links} links, idle, for {} s", args.seconds);
    let measured = idle(&plan, Duration::from_secs(args.seconds.into())).map_err(failed)?;
    let value = serde_json::to_value(&measured).map_err(|error| CliError::Failed(error.to_string()))?;
    let known = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.2}"));
    let text = format!(
        "{} of {links} links established, watched for {:.1} s\n\
         the switch used {} ms of processor time: {} % of a core (at most {CORE_PERCENT_MAX} %)\n\
         {} system calls for I/O\n",
        measured.links,
        measured.seconds,
        known(measured.cpu_ms),
        known(measured.core_percent),
        measured.system_calls,
    );
    report(args.json.as_deref(), &value, &text)?;
    place.leave();
    Ok(if measured.is_well(links) {
        Verdict::Well
    } else {
        Verdict::Wrong
    })
}

fn run_restart(args: &RestartArgs) -> Result<Verdict, CliError> {
    let failed = |error: RunError| CliError::Failed(error.to_string());
    let place = DataPlace::make(args.data.as_deref(), false)?;
    let plan = RestartPlan {
        program: this_program().map_err(failed)?,
        data: place.path().to_owned(),
        payments: args.payments,
        since: args.since,
        runs: args.runs,
        institutions: args.institutions,
        banks: args.banks,
        profile: args.profile.clone(),
    };
    let measured = restart(&plan, |what| eprintln!("{what}")).map_err(failed)?;
    let value = json!({
        "command": "bench restart",
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine::described(place.path()),
        "restart": measured,
    });
    let ready: Vec<String> = measured.ready_ms.iter().map(|ms| format!("{ms:.0}")).collect();
    let text = format!(
        "{} payments of history, {} events since the snapshot of {} MiB (written in {} ms)\n\
         ready after a kill: {} ms\n\
         journaled, followed and filed at {:.0} events/s\n",
        measured.payments,
        measured.since,
        measured.snapshot_bytes >> 20,
        measured.snapshot_ms,
        ready.join(", "),
        measured.built_per_second,
    );
    report(args.json.as_deref(), &value, &text)?;
    place.leave();
    Ok(Verdict::Well)
}

fn run_limits(args: &LimitsArgs) -> Result<Verdict, CliError> {
    let place = DataPlace::make(args.data.as_deref(), false)?;
    let options = LimitsOptions {
        institutions: args.institutions,
        banks: args.banks,
        in_flight: args.in_flight,
        rate: args.rate,
        seconds: f64::from(args.seconds),
        backend: args.backend,
        directory: place.path().to_owned(),
    };
    let measured = limits::run(&options).map_err(|error| CliError::Failed(error.to_string()))?;
    let value = json!({
        "command": "bench limits",
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine::described(place.path()),
        "limit": measured,
    });
    report(args.json.as_deref(), &value, &limits_text(args, &measured))?;
    place.leave();
    Ok(Verdict::Well)
}

fn limits_text(args: &LimitsArgs, limits: &LimitsReport) -> String {
    let mut text = String::new();
    let mut line = |what: String, figure: String| {
        let _ = writeln!(text, "{what:58} {figure}");
    };
    let us = |q: &limits::Quantiles| format!("p50 {:.1} µs, p99 {:.1} µs", q.p50, q.p99);
    line(
        format!(
            "relay, {} + {} links, {} in flight per institution",
            args.institutions, args.banks, limits.relay_in_flight
        ),
        format!(
            "{:.0} payments/s (best tenth {:.0})",
            limits.relay_per_second, limits.relay_peak_per_second
        ),
    );
    line(
        format!("the same at {} payments/s", limits.relay_latency_rate),
        us(&limits.relay_latency_us),
    );
    line(
        "TCP round trip of 128 bytes, both ends spinning".to_owned(),
        us(&limits.ping_pong_us),
    );
    line(
        format!("durable write of 4 KiB, writer's class {}", limits.syncer_class),
        us(&limits.durable_write_us),
    );
    line("durable write of 64 KiB".to_owned(), us(&limits.durable_write_64k_us));
    line(
        "durable writes of 1 MiB one after the other".to_owned(),
        format!("{:.0} MB/s", limits.sequential_write_mb_per_second),
    );
    line("CRC-32C of 128 bytes".to_owned(), format!("{:.1} ns", limits.crc_ns));
    line("BLAKE3 of 128 bytes".to_owned(), format!("{:.1} ns", limits.hash_ns));
    text
}
