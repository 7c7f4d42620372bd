//! `clearway sim`: rehearsals, many seeds in a row.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::output::report;
use super::{CliError, Verdict};
use crate::rehearsal::{Counts, rehearse};

/// Rehearse the whole switch in one thread, with faults drawn from seeds
///
/// The stages of the switch run over links in memory, a disk that tears writes and a clock moved by hand. The same seed
/// gives the same run. Ends at the first seed that fails, with the events before it.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway sim --seeds 1000\n  clearway sim --seeds 1 --seed 4711\n  \
                        clearway sim --seeds 500 --json -"
)]
pub(super) struct SimArgs {
    /// How many seeds
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed; the others follow it
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Go on after a seed that fails, and fail at the end
    #[arg(long)]
    go_on: bool,
    /// Write the report as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &SimArgs) -> Result<Verdict, CliError> {
    let started = Instant::now();
    let mut told = started;
    let (mut passed, mut counts, mut failed) = (0u64, Counts::default(), Vec::new());
    for seed in (0..args.seeds).map(|nth| args.seed.wrapping_add(nth)) {
        match rehearse(seed) {
            Ok(report) => {
                passed += 1;
                counts.add(&report.counts);
            }
            Err(failure) => {
                eprintln!("{failure}");
                failed.push((seed, failure.what.clone()));
                if !args.go_on {
                    break;
                }
            }
        }
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            eprintln!(
                "{passed} of {} seeds passed, {} failed, {:.0} an hour",
                args.seeds,
                failed.len(),
                per_hour(passed, started)
            );
        }
    }
    let rate = per_hour(passed + failed.len() as u64, started);
    let fields = counts.fields();
    let failures: Vec<_> = failed
        .iter()
        .map(|(seed, what)| json!({"seed": seed, "what": what}))
        .collect();
    let value = json!({
        "seeds": args.seeds,
        "first_seed": args.seed,
        "passed": passed,
        "failed": failures,
        "seeds_per_hour": rate.round(),
        "counts": fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>(),
    });
    let mut text = format!("{passed} of {} seeds passed, {rate:.0} seeds an hour\n", args.seeds);
    for (name, count) in fields {
        text.push_str(&format!("  {:<18} {count}\n", name.replace('_', " ")));
    }
    for (seed, what) in &failed {
        text.push_str(&format!("seed {seed} failed: {what}\n"));
    }
    report(args.json.as_deref(), &value, &text)?;
    Ok(if failed.is_empty() {
        Verdict::Well
    } else {
        Verdict::Wrong
    })
}

fn per_hour(seeds: u64, since: Instant) -> f64 {
    seeds as f64 * 3_600.0 / since.elapsed().as_secs_f64().max(0.001)
}
