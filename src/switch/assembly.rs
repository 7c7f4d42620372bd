//! Putting the switch together, and taking it apart again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::SwitchError;
use super::clearing_agent::FinalLedger;
use super::stages::{Stages, StartOptions, Threads, journal_directory};
use crate::agent::{
    Agent, AgentThread, IdleStrategy, IntakeGate, IntakeState, Placement, ScheduleClass, StopFlag, SwitchClock, Wakeup,
    spawn,
};
use crate::config::{AgentRole, Directory, Profile, Settings};
use crate::housekeeping::{
    AdminServer, Archivist, ArchivistParts, ArchivistView, Desk, LedgerView, Office, RetentionFloors, StatusSource,
    participants_json, status_json, windows_json,
};
use crate::journal::{Positions, Superblock};
use crate::sequencer::LedgerPulse;

/// A switch that runs in this process.
#[derive(Debug)]
pub struct RunningSwitch {
    listen: SocketAddr,
    pipeline: Vec<AgentThread>,
    syncer: AgentThread,
    housekeeping: AgentThread,
    steward: AgentThread,
    follower: Option<AgentThread>,
    archivist: AgentThread,
    admin: AdminServer,
    gate: Arc<IntakeGate>,
    desk: Desk,
    positions: Arc<Positions>,
    source: StatusSource,
    last: Arc<Mutex<Option<FinalLedger>>>,
    pulse: Arc<LedgerPulse>,
    pipeline_stop: StopFlag,
    drain: Duration,
}

/// Starts a switch.
///
/// # Errors
/// What keeps it from starting; nothing was acknowledged then.
pub fn start(
    settings: Settings,
    directory: Directory,
    mut profile: Profile,
    options: StartOptions,
) -> Result<RunningSwitch, SwitchError> {
    if !settings.follower.enabled {
        profile.leave_out_follower();
    }
    // Before any thread lowers its class: it takes the caller's.
    crate::memory::start_mapper();
    let directory = Arc::new(directory);
    let clock = SwitchClock::new();
    let (mut listen, mut backend, mut backend_reason) = (settings.listen, "", String::new());
    let mut stages = Stages::open(
        &settings,
        &directory,
        &profile,
        &clock,
        options,
        &mut |_, driver_options, wakeup| {
            let (mut driver, reason) = crate::io::open(settings.backend, driver_options, wakeup)?;
            listen = driver
                .listen(listen, profile.link_agents > 1)
                .map_err(SwitchError::host(format!("listen on {}", settings.listen)))?;
            (backend, backend_reason) = (driver.backend().name(), reason);
            Ok(driver)
        },
    )?;
    tracing::info!("{backend_reason}");
    let agents = stages.take_threads(&profile);
    let source = StatusSource {
        backend,
        backend_reason,
        profile: profile.name.clone(),
        sync: stages.facts.sync,
        syncer_class: Arc::new(AtomicU64::new(0)),
        memory: stages.facts.memory,
        listen: listen.to_string(),
        gate: Arc::clone(&stages.gate),
        links: stages.link_counters,
        dispatch: stages.dispatch_counters,
        positions: Arc::clone(&stages.positions),
        follower: stages.follower.clone(),
        steward: Arc::clone(&stages.steward),
        start: stages.start.json(),
        archivist: ArchivistView::default(),
        clock,
    };
    let office = Office {
        source: source.clone(),
        desk: Arc::clone(&stages.desk),
        orders: Arc::clone(&stages.orders),
        roster: Arc::clone(&stages.roster),
        wishes: Arc::clone(&stages.wishes),
        steward: stages.threads.of(AgentRole::Steward, 0)?,
        settler: stages.threads.of(AgentRole::Housekeeping, 0)?,
        currencies: stages.currencies.clone(),
        link_counts: Arc::clone(&stages.link_counts),
        directory: settings.directory.clone(),
    };
    let admin = AdminServer::start(&settings.admin_socket, office).map_err(SwitchError::host(format!(
        "admin socket {}",
        settings.admin_socket.display()
    )))?;

    let mut running = start_threads(&profile, &stages.threads, agents)?;
    // The syncer's class is known once its thread runs.
    source
        .syncer_class
        .store(running.syncer.class() as u64, Ordering::Relaxed);
    let floors = Arc::new(RetentionFloors::default());
    let archivist = start_archivist(&settings, &source, stages.superblock, &floors)?;
    let longest_doubt_ns = directory
        .participants
        .iter()
        .map(|e| e.terms.doubt_ns)
        .max()
        .unwrap_or(0);
    let drain = settings
        .shutdown_drain_ms
        .map_or(Duration::from_nanos(longest_doubt_ns), Duration::from_millis);
    let deadline = Instant::now() + Duration::from_secs(30);
    while stages.gate.state() == IntakeState::Starting && Instant::now() < deadline && !running.has_failed() {
        std::thread::sleep(Duration::from_millis(1));
    }
    source
        .syncer_class
        .store(running.syncer.class() as u64, Ordering::Relaxed);
    let switch = RunningSwitch {
        listen,
        pipeline: std::mem::take(&mut running.pipeline),
        syncer: running.syncer,
        housekeeping: running.housekeeping,
        steward: running.steward,
        follower: running.follower,
        archivist,
        admin,
        gate: stages.gate,
        desk: stages.desk,
        positions: stages.positions,
        source,
        last: stages.last,
        pulse: stages.pulse,
        pipeline_stop: running.pipeline_stop,
        drain,
    };
    if switch.has_failed() {
        return Err(match switch.shutdown() {
            Err(error) => error,
            Ok(_) => SwitchError::Unfit("a stage ended while the switch was starting".into()),
        });
    }
    Ok(switch)
}

struct Started {
    pipeline: Vec<AgentThread>,
    syncer: AgentThread,
    housekeeping: AgentThread,
    steward: AgentThread,
    follower: Option<AgentThread>,
    pipeline_stop: StopFlag,
}

impl Started {
    fn has_failed(&self) -> bool {
        let cold = self.syncer.is_finished() || self.housekeeping.is_finished() || self.steward.is_finished();
        cold || self.pipeline.iter().any(AgentThread::is_finished)
    }
}

/// One thread a plan; the syncer and housekeeping stop later than the pipeline, so each has a flag of its own.
fn start_threads(profile: &Profile, threads: &Threads, agents: Vec<Box<dyn Agent>>) -> Result<Started, SwitchError> {
    let pipeline_stop = StopFlag::default();
    let mut pipeline = Vec::new();
    let (mut syncer, mut housekeeping, mut steward, mut follower) = (None, None, None, None);
    for ((plan, wakeup), agent) in profile.threads.iter().zip(threads.wakeups()).zip(agents) {
        let placement = Placement {
            core: plan.core,
            class: plan.class,
            idle: plan.idle,
        };
        let place = match plan.agents.as_slice() {
            [AgentRole::Syncer] => &mut syncer,
            [AgentRole::Housekeeping] => &mut housekeeping,
            [AgentRole::Steward] => &mut steward,
            [AgentRole::Follower] => &mut follower,
            _ => {
                let thread = spawn(agent, placement, Arc::clone(wakeup), pipeline_stop.clone());
                pipeline.push(thread.map_err(SwitchError::host(format!("start thread {}", plan.name)))?);
                continue;
            }
        };
        let thread = spawn(agent, placement, Arc::clone(wakeup), StopFlag::default());
        *place = Some(thread.map_err(SwitchError::host(format!("start thread {}", plan.name)))?);
    }
    let (Some(syncer), Some(housekeeping), Some(steward)) = (syncer, housekeeping, steward) else {
        return Err(SwitchError::Unfit(
            "the profile must give syncer, housekeeping and steward a thread of their own each".into(),
        ));
    };
    Ok(Started {
        pipeline,
        syncer,
        housekeeping,
        steward,
        follower,
        pipeline_stop,
    })
}

/// The archivist is on no profile: it takes what the others leave.
fn start_archivist(
    settings: &Settings,
    source: &StatusSource,
    superblock: Arc<Superblock>,
    floors: &Arc<RetentionFloors>,
) -> Result<AgentThread, SwitchError> {
    let archivist = Archivist::new(ArchivistParts {
        journal: journal_directory(settings),
        positions: Arc::clone(&source.positions),
        settings: settings.archive.clone(),
        superblock,
        floors: Arc::clone(floors),
        follower: source.follower.clone(),
        view: source.archivist.clone(),
    });
    let placement = Placement {
        core: None,
        class: ScheduleClass::Low,
        idle: IdleStrategy::Park { spins: 0 },
    };
    let wakeup = Wakeup::new().map_err(SwitchError::host("make a wake-up".to_owned()))?;
    spawn(Box::new(archivist), placement, Arc::new(wakeup), StopFlag::default())
        .map_err(SwitchError::host("start thread archivist".to_owned()))
}

impl RunningSwitch {
    /// Where participants connect.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// True when a stage has ended by itself: the switch must be shut down, and will say why.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let cold = self.syncer.is_finished() || self.housekeeping.is_finished() || self.steward.is_finished();
        cold || self.pipeline.iter().any(AgentThread::is_finished)
    }

    /// True when the follower has ended by itself: payments go on, but there are no snapshots and no look-ups any more.
    #[must_use]
    pub fn has_lost_follower(&self) -> bool {
        self.follower.as_ref().is_some_and(AgentThread::is_finished)
    }

    /// The status, as operators see it.
    #[must_use]
    pub fn status(&self) -> Value {
        status_json(&self.source, self.desk.ask().as_deref())
    }

    /// The ledger and its counts now.
    #[must_use]
    pub fn ledger(&self) -> Option<Box<LedgerView>> {
        self.desk.ask()
    }

    /// The journal's positions.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Stops intake, waits for open payments at most the longest T1, syncs, and ends. What is open then is in doubt at the
    /// next start. Returns the content of `shutdown.json`.
    ///
    /// # Errors
    /// What a stage failed with.
    pub fn shutdown(self) -> Result<Value, SwitchError> {
        self.gate.close(IntakeState::ShuttingDown);
        let deadline = Instant::now() + self.drain;
        // Twice in a row with nothing appended between: what was in a ring at the first look has come through by the next.
        let mut seen = None;
        while Instant::now() < deadline && !self.has_failed() {
            let drained = self.drained_at();
            if drained.is_some() && drained == seen {
                break;
            }
            seen = drained;
            std::thread::sleep(Duration::from_millis(5));
        }
        let view = self.desk.ask();
        let source = self.source.clone();
        drop(self.admin);
        self.pipeline_stop.stop();
        let mut result = Ok(());
        for thread in self.pipeline {
            result = result.and(thread.stop());
        }
        result = self.syncer.stop().and(result);
        result = self.housekeeping.stop().and(result);
        result = self.steward.stop().and(result);
        // Last, and after everything is durable: it takes a snapshot of that.
        if let Some(follower) = self.follower {
            result = follower.stop().and(result);
        }
        // After the syncer: what it made durable last is chained, too.
        result = self.archivist.stop().and(result);
        result?;
        let last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(last) = last else {
            return Err(SwitchError::Unfit("clearing ended without leaving its ledger".into()));
        };
        let view = view.map(|view| LedgerView {
            snapshot: last.snapshot.clone(),
            ..*view
        });
        let participants = participants_json(&last.snapshot, |_| 0);
        let windows = windows_json(&last.snapshot);
        Ok(json!({
            "event_number": last.snapshot.event_number,
            "position": last.position,
            "state_hash": last.hash.to_string(),
            "status": status_json(&source, view.as_ref()),
            "windows": windows["windows"],
            "participants": participants["participants"],
        }))
    }

    /// Where the journal ends, if nothing is open and all it says has been handed to the links.
    fn drained_at(&self) -> Option<u64> {
        let positions = &self.positions;
        let end = positions.appended();
        let handed_over = (0..self.source.links.len()).all(|agent| positions.copied_out(agent) == end);
        let nothing_open = self.pulse.open_payments.load(Ordering::Relaxed) == 0;
        (nothing_open && positions.applied() == end && handed_over).then_some(end)
    }
}
