//! One run of a load against a switch in a child process: the load on a core of its own, the switch asked once a second.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::Scope;
use std::time::Duration;

use thiserror::Error;

use super::machine;
use super::report::{
    AuditFigures, CostFigures, LatencyFigures, LimitFigures, LoadFigures, MachineFigures, PaymentCounts, PushFigures,
    RatioFigures, RepeatFigures, Report,
};
use super::switch_child::{AdminLink, ChildError, Shutdown, SwitchChild, SwitchPlan, SwitchStatus};
use crate::agent::Wakeup;
use crate::domain::{Currency, ParticipantIndex, Role};
use crate::io::{BackendChoice, Driver, DriverOptions, OpenError};
use crate::sim::{
    BankHabits, Breakdown, Idle, Live, LoadEngine, LoadError, LoadOptions, LoadResult, ParticipantPlan, Parties,
    SecondFigures, WindowFigures, Workload,
};

/// How long all links may take to come up.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// The longest silence of a simulated link, milliseconds.
const KEEPALIVE_MS: u32 = 5_000;
/// An institution without an answer asks again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(3);
/// How long the last answers are waited for: past T2 of a pull (60 s) and its Reversal.
const GRACE: Duration = Duration::from_secs(70);
/// How often the observer looks for a new second.
const OBSERVE_EVERY: Duration = Duration::from_millis(50);

/// Why a run could not be made.
#[derive(Debug, Error)]
pub enum RunError {
    /// The switch.
    #[error(transparent)]
    Switch(#[from] ChildError),
    /// The load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The load's driver.
    #[error("the load's own driver: {0}")]
    Driver(#[from] OpenError),
    /// Something of the host.
    #[error("{what}: {error}")]
    Host {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The load's thread ended without a word.
    #[error("the load's thread failed")]
    LoadThread,
}

/// What is run against a switch.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The switch.
    pub switch: SwitchPlan,
    /// The command, as the report names it.
    pub command: String,
    /// How payments are spread, as the report names it.
    pub skew: String,
    /// Unanswered payments per institution in a closed loop.
    pub in_flight: Option<u32>,
    /// The rate aimed at in an open loop.
    pub rate: Option<u64>,
    /// How long payments are offered.
    pub seconds: u32,
}

/// What an observer is shown once a second.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The load's view of the second.
    pub second: SecondFigures,
    /// The switch's view of itself; `None` when it did not answer.
    pub status: Option<SwitchStatus>,
}

/// A run that was made and audited.
#[derive(Debug)]
pub struct Ran<W> {
    /// The workload, spent.
    pub workload: W,
    /// The participants.
    pub participants: Vec<ParticipantPlan>,
    /// What the switch left.
    pub shutdown: Shutdown,
    /// Payments by kind, scene and participant.
    pub breakdown: Breakdown,
    /// The report; limits and ratios are still to be filled in.
    pub report: Report,
}

/// The institutions and banks among participants.
#[must_use]
pub fn parties(participants: &[ParticipantPlan]) -> Parties {
    let with = |role| -> Vec<ParticipantIndex> {
        participants
            .iter()
            .filter(|plan| plan.role == role)
            .map(|plan| plan.index)
            .collect()
    };
    Parties {
        institutions: with(Role::Institution),
        banks: with(Role::Bank),
    }
}

/// Runs `workload` against the switch, settles, ends the switch and audits what it left. `observe` is called once a
/// second.
///
/// # Errors
/// What kept the run from being made; what it found is in the report.
pub fn run<W: Workload + Send>(
    plan: &RunPlan,
    switch: SwitchChild,
    habits: BankHabits,
    workload: W,
    mut observe: impl FnMut(&Moment),
) -> Result<Ran<W>, RunError> {
    let live = Live::default();
    let participants = switch.participants().to_vec();
    let (mut result, workload, before, measured) = std::thread::scope(|scope| {
        let load = LoadThread::start(scope, plan, &switch, habits, workload, &live)?;
        if load.steps.recv().is_err() {
            return Err(load.failure());
        }
        let mut admin = switch.admin()?;
        let before = Before::take(&switch, &mut admin)?;
        load.go_on(idle_beside(&before.status));
        // The load says when its last answer has come; until then there is a second to show now and then.
        loop {
            match load.steps.recv_timeout(OBSERVE_EVERY) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(second) = live.take() {
                        let status = admin.status().ok();
                        observe(&Moment { second, status });
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(load.failure()),
            }
        }
        let measured = Measured::since(&before, &switch, &mut admin)?;
        admin.close_and_settle()?;
        load.go_on(Idle::Sleep);
        let (result, workload) = load.end()?;
        Ok::<_, RunError>((result, workload, before, measured))
    })?;
    let data = switch.data().to_owned();
    let shutdown = switch.stop()?;
    let audit = super::audit_run::audit(&data, &result, &before.windows, &shutdown);
    let mut report = report(
        plan,
        &data,
        &shutdown.status,
        &participants,
        &mut result,
        &measured,
        audit,
    );
    report.not_played = workload.left_out();
    Ok(Ran {
        workload,
        participants,
        shutdown,
        breakdown: result.breakdown,
        report,
    })
}

type LoadEnd<W> = Result<(LoadResult, W), RunError>;

/// The load in its thread, which goes in three steps: connected, answered, finished.
struct LoadThread<'scope, W> {
    thread: std::thread::ScopedJoinHandle<'scope, LoadEnd<W>>,
    steps: Receiver<()>,
    go: SyncSender<Idle>,
}

impl<'scope, W: Workload + Send + 'scope> LoadThread<'scope, W> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        plan: &RunPlan,
        switch: &SwitchChild,
        habits: BankHabits,
        mut workload: W,
        live: &'scope Live,
    ) -> Result<Self, RunError> {
        let cores = machine::cores();
        // The switch's pipeline has the first core; the load has the last one, if there is another.
        let core = (cores.len() > 1).then(|| cores[cores.len() - 1]);
        let participants = switch.participants().to_vec();
        let backend = plan.switch.backend;
        let options = load_options(switch);
        let (step, steps) = sync_channel(1);
        let (go, gone_on) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn_scoped(scope, move || {
                if let Some(id) = core {
                    core_affinity::set_for_current(core_affinity::CoreId { id });
                }
                let driver = open_driver(backend, participants.len())?;
                let mut engine = LoadEngine::new(driver, &participants, habits, options);
                engine.connect(CONNECT_PATIENCE)?;
                reach(&step, &gone_on, &mut engine)?;
                engine.run(&mut workload, live)?;
                reach(&step, &gone_on, &mut engine)?;
                Ok((engine.finish()?, workload))
            })
            .map_err(|error| RunError::Host {
                what: "start the load's thread",
                error,
            })?;
        Ok(Self { thread, steps, go })
    }

    fn go_on(&self, idle: Idle) {
        let _ = self.go.send(idle);
    }

    fn end(self) -> LoadEnd<W> {
        self.thread.join().unwrap_or(Err(RunError::LoadThread))
    }

    /// Why it ended before it had reached its next step.
    fn failure(self) -> RunError {
        match self.end() {
            Err(error) => error,
            Ok(_) => RunError::LoadThread,
        }
    }
}

/// A load with a core of its own spins on it, unless the switch's syncer has no scheduling class that gets it the core
/// when it needs one.
fn idle_beside(status: &SwitchStatus) -> Idle {
    match status.syncer_class.as_str() {
        "fifo" | "nice" if machine::cores().len() > 1 => Idle::Spin,
        _without_class => Idle::Sleep,
    }
}

/// Tells the observer that a step is reached, and keeps the links alive until it says to go on.
fn reach(step: &SyncSender<()>, go: &Receiver<Idle>, engine: &mut LoadEngine) -> Result<(), RunError> {
    step.send(()).map_err(|_| RunError::LoadThread)?;
    loop {
        match go.try_recv() {
            Ok(idle) => {
                engine.set_idle(idle);
                return Ok(());
            }
            Err(TryRecvError::Empty) => engine.keep_alive(Duration::from_millis(10))?,
            // Nobody will say so any more: the run has failed elsewhere.
            Err(TryRecvError::Disconnected) => return Err(RunError::LoadThread),
        }
    }
}

/// How every load is set up.
pub(super) fn load_options(switch: &SwitchChild) -> LoadOptions {
    LoadOptions {
        address: switch.status().listen,
        run: run_number(),
        currency: Currency::CNY,
        keepalive_ms: KEEPALIVE_MS,
        retry_after: RETRY_AFTER,
        grace: GRACE,
        idle: Idle::Sleep,
    }
}

pub(super) fn open_driver(backend: BackendChoice, links: usize) -> Result<Box<dyn Driver>, RunError> {
    let wakeup = Wakeup::new().map_err(|error| RunError::Host {
        what: "make the load's wake-up",
        error,
    })?;
    let options = DriverOptions {
        connections_max: (links + 64) as u32,
        receive_bytes: 16_384,
        receive_buffers: 1_024,
        gather_completions: 4_096,
        send_buffer_bytes: None,
        sqpoll: false,
    };
    let (driver, _reason) = crate::io::open(backend, &options, Arc::new(wakeup))?;
    Ok(driver)
}

/// New for each run, so that runs against one journal share no payment id.
fn run_number() -> u32 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    now.as_secs() as u32
}

/// The switch just before the load began.
struct Before {
    windows: Vec<WindowFigures>,
    status: SwitchStatus,
    switch_cpu_us: Option<u64>,
    own_cpu_us: Option<u64>,
}

impl Before {
    fn take(switch: &SwitchChild, admin: &mut AdminLink) -> Result<Self, RunError> {
        Ok(Self {
            windows: admin.windows()?,
            status: admin.status()?,
            switch_cpu_us: switch.cpu_us(),
            own_cpu_us: machine::cpu_us(std::process::id()),
        })
    }
}

/// What the run took.
struct Measured {
    journal_bytes: u64,
    system_calls: u64,
    switch_cpu_us: Option<u64>,
    load_cpu_us: Option<u64>,
    anonymous_bytes: Option<u64>,
}

impl Measured {
    fn since(before: &Before, switch: &SwitchChild, admin: &mut AdminLink) -> Result<Self, RunError> {
        let since = |now: Option<u64>, before: Option<u64>| Some(now?.saturating_sub(before?));
        let switch_cpu_us = since(switch.cpu_us(), before.switch_cpu_us);
        let load_cpu_us = since(machine::cpu_us(std::process::id()), before.own_cpu_us);
        let status = admin.status()?;
        Ok(Self {
            journal_bytes: status.journal.appended - before.status.journal.appended,
            system_calls: status.system_calls - before.status.system_calls,
            switch_cpu_us,
            load_cpu_us,
            anonymous_bytes: switch.anonymous_bytes(),
        })
    }

    fn cost(&self, payments: u64) -> CostFigures {
        let each = |sum: u64| (payments > 0).then(|| sum as f64 / payments as f64);
        CostFigures {
            journal_bytes_per_payment: each(self.journal_bytes),
            syscalls_per_payment: each(self.system_calls),
            switch_cpu_us_per_payment: self.switch_cpu_us.and_then(each),
            load_cpu_us_per_payment: self.load_cpu_us.and_then(each),
            rss_bytes: self.anonymous_bytes,
        }
    }
}

fn report(
    plan: &RunPlan,
    data: &Path,
    status: &SwitchStatus,
    participants: &[ParticipantPlan],
    result: &mut LoadResult,
    measured: &Measured,
    audit: AuditFigures,
) -> Report {
    let parties = parties(participants);
    let closes = result.outcomes.closes();
    let outcomes = &result.outcomes;
    let seconds = f64::from(plan.seconds);
    Report {
        command: plan.command.clone(),
        version: env!("CARGO_PKG_VERSION"),
        machine: MachineFigures {
            cpu: machine::cpu_name(),
            cores: machine::cores().len(),
            kernel: machine::kernel_release(),
            filesystem: machine::filesystem(data),
            backend: status.backend.clone(),
            profile: plan.switch.profile.clone(),
            sync: status.sync.clone(),
            syncer_class: status.syncer_class.clone(),
            memory: status.memory.clone(),
        },
        load: LoadFigures {
            institutions: parties.institutions.len(),
            banks: parties.banks.len(),
            links: result.links,
            skew: plan.skew.clone(),
            in_flight: plan.in_flight,
            seconds,
            offered_per_second: plan.rate,
        },
        payments: PaymentCounts::of(result, seconds, plan.in_flight.is_some()),
        latency_us: LatencyFigures::of(&outcomes.latency),
        switch_latency_us: LatencyFigures::of(&outcomes.switch_latency),
        limit: LimitFigures::default(),
        ratio: RatioFigures::default(),
        cost: measured.cost(outcomes.offered),
        audit,
        seconds: outcomes.seconds.clone(),
        closes,
        repeats: RepeatFigures::of(result),
        pushes: PushFigures::of(result),
        not_played: Vec::new(),
    }
}

/// A fresh directory for a run, on a real file system where one can be found: under the system's temporary directory, or,
/// where that lies in memory, under the current one.
///
/// # Errors
/// When neither can be written to.
pub fn fresh_data_directory() -> std::io::Result<tempfile::TempDir> {
    let temporary = std::env::temp_dir();
    let in_memory = machine::filesystem(&temporary).is_some_and(|kind| kind == "tmpfs" || kind == "ramfs");
    let builder = || tempfile::Builder::new().prefix("clearway-").to_owned();
    if in_memory && let Ok(directory) = builder().tempdir_in(".") {
        return Ok(directory);
    }
    builder().tempdir_in(temporary)
}

/// This very program, to be started as the switch.
///
/// # Errors
/// When the system does not say which file that is.
pub fn this_program() -> Result<PathBuf, RunError> {
    std::env::current_exe().map_err(|error| RunError::Host {
        what: "find this program's file",
        error,
    })
}
