//! `clearway bench settlement`: a large window's files alone.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::demo::DataPlace;
use super::journal_report::Progress;
use super::output::{Table, report};
use super::{CliError, Verdict};
use crate::agent::process;
use crate::measure::machine;
use crate::measure::settlement_run::{SettlementReport, SettlementRunOptions, run as measure};
use crate::settlement::made_up::MadeUpWindow;

/// The files of a large window, from its spool to the disk
///
/// A spool of made-up payments is written first, as the switch writes it; then one thread reads it, and writes, flushes and
/// names the window's files as it does behind a running switch. The seconds are of that.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  clearway bench settlement --payments 1000000\n  \
                        clearway bench settlement --payments 10000000 --json -")]
pub(super) struct SettlementArgs {
    /// Payments that became final in the window; one in thirty-two is not committed
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=2_000_000_000))]
    payments: u64,
    /// Institutions
    #[arg(long, value_name = "COUNT", default_value_t = 115, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    institutions: u16,
    /// Banks
    #[arg(long, value_name = "COUNT", default_value_t = 424, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    banks: u16,
    /// Which payments are made up
    #[arg(long, value_name = "SEED", default_value_t = 2019)]
    seed: u64,
    /// Where spool and files are made; they stay there [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the report as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &SettlementArgs) -> Result<Verdict, CliError> {
    for message in process::raise_soft_limits() {
        tracing::warn!("{message}");
    }
    let place = DataPlace::make(args.data.as_deref(), false)?;
    let options = SettlementRunOptions {
        directory: place.path().to_owned(),
        window: MadeUpWindow {
            seed: args.seed,
            payments: args.payments,
            institutions: args.institutions,
            banks: args.banks,
            seconds: 3_600,
        },
    };
    let mut progress = Progress::new();
    let measured = measure(&options, |what| progress.tell(|| what));
    let measured = measured.map_err(|error| CliError::Failed(error.to_string()))?;
    let value = json!({
        "command": "bench settlement",
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine::described(place.path()),
        "load": {"payments": args.payments, "institutions": args.institutions, "banks": args.banks, "skew": "zipf", "seed": args.seed},
        "settlement": measured,
    });
    report(args.json.as_deref(), &value, &text(&measured))?;
    place.leave();
    Ok(Verdict::Well)
}

fn text(measured: &SettlementReport) -> String {
    let share = &measured.share;
    let mut table = Table::new(&["where the time went", "%"]);
    for (what, part) in [
        ("reading the spool", share.reading),
        ("counting, writing rows as text", share.formatting),
        ("hashing leaves and nodes", share.tree),
        ("filling buffers, adding up", share.filing),
        ("hashing files", share.hashing),
        ("handing bytes to the kernel", share.writing),
        ("waiting for the disk", share.syncing),
        ("all else", share.rest),
    ] {
        table.row(vec![what.to_owned(), format!("{:.1}", 100.0 * part)]);
    }
    let known = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.1}"));
    format!(
        "{} payments, {} of them committed, {} participants\n\
         {} files, {} MB, complete and flushed in {:.1} s ({} s of processor time): {:.0} payments a second\n\
         at most {} MiB of memory\n\
         root {}\n\n{}",
        measured.payments,
        measured.committed,
        measured.participants,
        measured.files,
        measured.bytes / 1_000_000,
        measured.seconds,
        known(measured.cpu_seconds),
        measured.rows_per_second,
        known(measured.memory_bytes.map(|bytes| (bytes >> 20) as f64)),
        measured.root,
        table.render()
    )
}
