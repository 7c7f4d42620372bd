//! `clearway bench flood` and `paced`: the switch and the machine's limits, measured in the same run.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::limits::{durable_write, relay_latency, relay_throughput};
use super::relay::RelayError;
use super::report::{LimitFigures, RatioFigures, Report};
use super::run::{Moment, RunError, RunPlan, parties, run, this_program};
use super::switch_child::{SwitchChild, SwitchPlan};
use crate::io::BackendChoice;
use crate::sim::{BankHabits, Flood, Paced, Parties, Skew, Workload};

/// How long each run of the relay takes, at most, seconds.
const RELAY_SECONDS_MAX: f64 = 3.0;
/// What the relay keeps in flight per institution where the bench has no such figure.
const RELAY_IN_FLIGHT: u32 = 64;
/// The write that the limit is taken with, bytes.
const DURABLE_WRITE_BYTES: usize = 4_096;

/// Why a bench could not be made.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The relay.
    #[error("the relay limit: {0}")]
    Relay(#[from] RelayError),
    /// The bare durable write.
    #[error("the limit of durable writes: {0}")]
    Write(#[source] std::io::Error),
}

/// What is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// As much as it will take, with so many payments unanswered per institution.
    Flood {
        /// How many, on average.
        in_flight: u32,
    },
    /// A fixed rate.
    Paced {
        /// Payments a second.
        rate: u64,
    },
}

/// A bench.
#[derive(Clone, Debug)]
pub struct BenchPlan {
    /// What is offered.
    pub offer: Offer,
    /// For how long, seconds.
    pub seconds: u32,
    /// Institutions, one link each.
    pub institutions: u16,
    /// Banks, one link each.
    pub banks: u16,
    /// How payments spread.
    pub skew: Skew,
    /// The driver of switch, load and relay.
    pub backend: BackendChoice,
    /// The switch's hardware profile.
    pub profile: String,
    /// Where the journal is kept.
    pub data: PathBuf,
    /// How often the window closes meanwhile, seconds.
    pub close_every_s: Option<u64>,
    /// The load's seed.
    pub seed: u64,
}

/// Makes a bench: limits, run, audit. `say` is told what begins, `observe` is shown each second of the load.
///
/// # Errors
/// What kept it from being made; what it found is in the report.
pub fn bench(plan: &BenchPlan, say: impl Fn(&str), observe: impl FnMut(&Moment)) -> Result<Report, BenchError> {
    let relay_seconds = f64::from(plan.seconds).min(RELAY_SECONDS_MAX);
    let (institutions, banks, backend) = (plan.institutions, plan.banks, plan.backend);
    let relay_in_flight = match plan.offer {
        Offer::Flood { in_flight } => in_flight,
        Offer::Paced { .. } => RELAY_IN_FLIGHT,
    };
    say("limit: the relay, flooded");
    let relay = relay_throughput(institutions, banks, relay_in_flight, relay_seconds, backend)?;
    say("limit: bare durable writes");
    let write = durable_write(&plan.data, DURABLE_WRITE_BYTES).map_err(BenchError::Write)?;
    say("the switch");
    let mut report = run_switch(plan, observe)?;
    // The relay's latency at the rate that the switch was measured at.
    let rate = match plan.offer {
        Offer::Flood { .. } => (report.payments.per_second as u64).max(1),
        Offer::Paced { rate } => rate,
    };
    say("limit: the relay, paced");
    let relay_latency_us = relay_latency(rate, institutions, banks, relay_seconds, backend)?;
    report.limit = LimitFigures {
        relay_per_second: Some(relay.per_second),
        relay_latency_us: Some(relay_latency_us),
        durable_write_us: Some(write.us),
    };
    report.ratio = RatioFigures::of(
        report.payments.per_second,
        report.switch_latency_us.as_ref(),
        &report.limit,
    );
    Ok(report)
}

fn run_switch(plan: &BenchPlan, observe: impl FnMut(&Moment)) -> Result<Report, RunError> {
    let (command, in_flight, rate) = match plan.offer {
        Offer::Flood { in_flight } => ("bench flood", Some(in_flight), None),
        Offer::Paced { rate } => ("bench paced", None, Some(rate)),
    };
    let run_plan = RunPlan {
        switch: SwitchPlan {
            program: this_program()?,
            data: plan.data.clone(),
            institutions: plan.institutions,
            banks: plan.banks,
            backend: plan.backend,
            profile: plan.profile.clone(),
            close_every_s: plan.close_every_s,
        },
        command: command.to_owned(),
        skew: plan.skew.name().to_owned(),
        in_flight,
        rate,
        seconds: plan.seconds,
    };
    let switch = SwitchChild::start(&run_plan.switch)?;
    let habits = BankHabits::at_once(switch.participants().len());
    let workload = workload(plan, parties(switch.participants()));
    run(&run_plan, switch, habits, workload, observe).map(|ran| ran.report)
}

fn workload(plan: &BenchPlan, parties: Parties) -> Box<dyn Workload + Send> {
    let duration_ns = Duration::from_secs(u64::from(plan.seconds)).as_nanos() as u64;
    match plan.offer {
        Offer::Flood { in_flight } => Box::new(Flood::new(parties, in_flight, plan.skew, duration_ns, plan.seed)),
        Offer::Paced { rate } => Box::new(Paced::new(parties, rate, plan.skew, duration_ns, plan.seed)),
    }
}
