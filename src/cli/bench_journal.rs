//! `clearway bench journal`: append and sync alone, beside what the file system does bare.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::demo::DataPlace;
use super::output::report;
use super::{CliError, Verdict};
use crate::journal::SyncMode;
use crate::measure::append::{AppendFigures, RECORD_BYTES};
use crate::measure::journal_run::{JournalReport, JournalRunOptions, run as measure};
use crate::measure::machine;
use crate::measure::primitives::DurableWrite;

/// Append and sync alone, beside bare durable writes in the same run
///
/// Records of 160 bytes, as a payment request takes: first at a rate, each timed from when it was due until it was durable;
/// then as many as are taken, into prepared segments and while segments are prepared. Bare durable writes of the same size
/// by a thread of the same class are the limit.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway bench journal --rate 88000 --seconds 60 --json -\n  \
                        clearway bench journal --rate 2000000 --seconds 10 --segment-mib 256 --flood-mib 4096"
)]
pub(super) struct JournalArgs {
    /// Records a second
    #[arg(long, value_name = "RATE", default_value_t = 88_000, value_parser = clap::value_parser!(u64).range(1..=20_000_000))]
    rate: u64,
    /// How long at that rate
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How much is written without a rate, MiB, each time
    #[arg(long, value_name = "MIB", default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    flood_mib: u64,
    /// A segment's length, MiB, a power of two
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = power_of_two)]
    segment_mib: u64,
    /// Write by way of the page cache, with fdatasync, also where direct writes are possible
    #[arg(long)]
    fdatasync: bool,
    /// Where the journals are made; they are removed [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the report as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn power_of_two(text: &str) -> Result<u64, String> {
    let fits = |mib: &u64| mib.is_power_of_two() && *mib <= 4_096;
    let mib = text.parse().ok().filter(fits);
    mib.ok_or_else(|| "a power of two up to 4096, such as 256".to_owned())
}

pub(super) fn run(args: &JournalArgs) -> Result<Verdict, CliError> {
    let place = DataPlace::make(args.data.as_deref(), false)?;
    let options = JournalRunOptions {
        directory: place.path().to_owned(),
        rate: args.rate,
        seconds: args.seconds,
        flood_mib: args.flood_mib,
        segment_mib: args.segment_mib,
        sync: if args.fdatasync {
            SyncMode::Fdatasync
        } else {
            SyncMode::Auto
        },
    };
    let measured =
        measure(&options, |what| eprintln!("{what}")).map_err(|error| CliError::Failed(error.to_string()))?;
    let value = json!({
        "command": "bench journal",
        "version": env!("CARGO_PKG_VERSION"),
        "machine": {
            "cpu": machine::cpu_name(),
            "cores": machine::cores().len(),
            "kernel": machine::kernel_release(),
            "filesystem": machine::filesystem(place.path()),
            "sync": measured.sync,
            "syncer_class": measured.paced.syncer_class,
            "memory": measured.memory,
        },
        "load": {"record_bytes": RECORD_BYTES, "seconds": args.seconds, "offered_per_second": args.rate, "flood_mib": args.flood_mib, "segment_mib": args.segment_mib},
        "latency_us": measured.paced.latency_us,
        "journal": {"paced": measured.paced, "paced_reusing": measured.paced_reusing, "prepared": measured.prepared, "sustained": measured.sustained},
        "limit": measured.limit,
        "ratio": measured.ratio,
    });
    report(args.json.as_deref(), &value, &text(&measured))?;
    place.leave();
    Ok(Verdict::Well)
}

fn text(report: &JournalReport) -> String {
    let mut text = String::new();
    let mut line = |what: &str, figure: String| {
        let _ = writeln!(text, "{what:48} {figure}");
    };
    let paced = &report.paced;
    line(
        &format!("{} records/s of {RECORD_BYTES} bytes, {}", report.rate, report.sync),
        format!(
            "{:.0} records/s durable, {:.1} ns an append",
            paced.per_second, paced.append_ns
        ),
    );
    if let Some(latency) = &paced.latency_us {
        line(
            "append to durable",
            format!(
                "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, max {:.0} µs",
                latency.p50, latency.p99, latency.p99_9, latency.max
            ),
        );
    }
    line("the same, second by second", each_second(paced));
    line(
        "not running: the appending thread",
        format!(
            "{} times over 100 µs, {:.1} ms in all, {:.1} ms the longest",
            paced.stalls.count, paced.stalls.total_ms, paced.stalls.longest_ms
        ),
    );
    if let Some(latency) = &report.paced_reusing.latency_us {
        line(
            "append to durable, segments used again",
            format!(
                "p50 {:.0} µs, p99 {:.0} µs; {}",
                latency.p50,
                latency.p99,
                each_second(&report.paced_reusing)
            ),
        );
    }
    let limit = &report.limit;
    line("bare durable write of 4096 bytes", bare(&limit.durable_write));
    line(
        &format!("bare durable write of {} bytes", limit.same_size_bytes),
        bare(&limit.same_size_write),
    );
    if let (Some(p50), Some(p99)) = (report.ratio.latency_p50, report.ratio.latency_p99) {
        line(
            "latency by that write's (1.5 is the ideal)",
            format!("p50 {p50:.2}, p99 {p99:.2}"),
        );
    }
    if let (Some(p50), Some(p99)) = (report.ratio.reusing_latency_p50, report.ratio.reusing_latency_p99) {
        line("the same, segments used again", format!("p50 {p50:.2}, p99 {p99:.2}"));
    }
    line("a durable write of the paced run", a_sync(paced));
    line("into prepared segments", throughput(&report.prepared));
    line("while segments are prepared", throughput(&report.sustained));
    line(
        "bare durable writes of 1 MiB, one after the other",
        format!("{:.0} MB/s", limit.sequential_write.mb_per_second),
    );
    line(
        "throughput by theirs",
        format!(
            "prepared {:.2}, while preparing {:.2}",
            report.ratio.prepared_throughput, report.ratio.sustained_throughput
        ),
    );
    text
}

fn bare(write: &DurableWrite) -> String {
    format!(
        "p50 {:.0} µs, p99 {:.0} µs, class {}",
        write.us.p50, write.us.p99, write.class
    )
}

fn throughput(figures: &AppendFigures) -> String {
    format!(
        "{:.0} MB/s, {:.2} M records/s, {}",
        figures.mb_per_second,
        figures.per_second / 1e6,
        a_sync(figures)
    )
}

fn a_sync(figures: &AppendFigures) -> String {
    let written = figures
        .written_bytes_per_sync
        .map_or("unknown".to_owned(), |bytes| format!("{bytes:.0}"));
    format!("{:.0} bytes of records, {written} written", figures.bytes_per_sync)
}

/// The lowest and the highest of the seconds' medians and 99th percentiles.
fn each_second(figures: &AppendFigures) -> String {
    let range = |of: fn(&crate::measure::append::SecondLatency) -> f64| {
        let values = figures.each_second.iter().map(of);
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        format!("{low:.0} to {high:.0} µs")
    };
    format!("p50 {}, p99 {}", range(|second| second.p50), range(|second| second.p99))
}
