//! What an idle switch costs: every link established and heartbeating, no payment.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::run::{CONNECT_PATIENCE, RunError, load_options, open_driver};
use super::switch_child::{SwitchChild, SwitchPlan};
use crate::sim::{BankHabits, LoadEngine};

/// The links settle for so long before the measurement begins.
const SETTLE: Duration = Duration::from_secs(2);
/// More than this share of a core is too much, percent.
pub const CORE_PERCENT_MAX: f64 = 2.0;

/// What an idle switch cost.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct IdleReport {
    /// Links established, as the switch counts them, at the end.
    pub links: u64,
    /// How long it was watched.
    pub seconds: f64,
    /// Processor time of all its threads, milliseconds; `None` where the system does not say.
    pub cpu_ms: Option<f64>,
    /// The same as a share of one core, percent.
    pub core_percent: Option<f64>,
    /// System calls its drivers and its syncer made.
    pub system_calls: u64,
    /// Anonymous memory, bytes.
    pub rss_bytes: Option<u64>,
}

impl IdleReport {
    /// True when all links stood and the cost was in bounds.
    #[must_use]
    pub fn is_well(&self, links: u64) -> bool {
        self.links == links && self.core_percent.is_some_and(|percent| percent < CORE_PERCENT_MAX)
    }
}

/// Starts a switch, establishes one link a participant and watches it for `duration`.
///
/// # Errors
/// What kept it from being measured.
pub fn idle(plan: &SwitchPlan, duration: Duration) -> Result<IdleReport, RunError> {
    let switch = SwitchChild::start(plan)?;
    let participants = switch.participants().to_vec();
    let driver = open_driver(plan.backend, participants.len())?;
    let habits = BankHabits::at_once(participants.len());
    let mut engine = LoadEngine::new(driver, &participants, habits, load_options(&switch));
    engine.connect(CONNECT_PATIENCE)?;
    engine.keep_alive(SETTLE)?;
    let mut admin = switch.admin()?;
    let calls_before = admin.status()?.system_calls;
    let (cpu_before, begun) = (switch.cpu_us(), Instant::now());
    engine.keep_alive(duration)?;
    let (cpu_after, seconds) = (switch.cpu_us(), begun.elapsed().as_secs_f64());
    let status = admin.status()?;
    let rss_bytes = switch.anonymous_bytes();
    engine.finish()?;
    switch.stop()?;
    let cpu_ms = cpu_after
        .zip(cpu_before)
        .map(|(after, before)| (after - before) as f64 / 1_000.0);
    Ok(IdleReport {
        links: status.links,
        seconds,
        cpu_ms,
        core_percent: cpu_ms.map(|ms| ms / (seconds * 10.0)),
        system_calls: status.system_calls - calls_before,
        rss_bytes,
    })
}
