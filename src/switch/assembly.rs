//! Putting the switch together, and taking it apart again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::SwitchError;
use super::clearing_agent::{ClearingAgent, ClearingParts, FinalLedger};
use super::replay::{check_rules, replay_engine};
use super::syncer_agent::SyncerAgent;
use crate::agent::{
    Agent, AgentThread, CompositeAgent, IntakeGate, IntakeState, Placement, Ring, StopFlag, SwitchClock, Wakeup, spawn,
    wall_clock,
};
use crate::clearing::Engine;
use crate::config::{AgentRole, Directory, Profile, Settings};
use crate::dispatch::{Dispatch, DispatchCounters, DispatchParts};
use crate::domain::{Currency, MILLISECOND, SECOND, UtcNanos, WindowId};
use crate::housekeeping::{
    AdminServer, Desk, Housekeeping, HousekeepingParts, LedgerView, SnapshotDesk, StatusSource, Wishes,
    participants_json, status_json, windows_json,
};
use crate::io::BufferShare;
use crate::journal::{Appender, Full, Journal, JournalOptions, Positions, SyncMode, WriteGate};
use crate::link::{IntakeRates, LinkAgent, LinkAgentParts, LinkCounters, LinkLimits, LinkRings, SessionTimes};
use crate::sequencer::{LedgerPulse, Sequencer, SequencerParts};
use crate::wire::{Intake, RecordKind, WindowAction, WindowEvent};

/// A journal whose last event is this far ahead of UTC is not gone on with.
const AHEAD_NS_MAX: u64 = 5 * SECOND;
/// Link slots are 16 bits wide.
const LINK_SLOTS_MAX: usize = 1 << 16;
/// Receive buffers one link may hold: the share of a group's buffers.
const BUFFERS_PER_LINK_SHARE: u16 = 8;

/// Seams for tests; a daemon starts with the default.
#[derive(Clone, Default)]
pub struct StartOptions {
    /// A door before each durable write.
    pub gate: Option<Arc<dyn WriteGate>>,
    /// How writes are made durable.
    pub sync: Option<SyncMode>,
}

impl std::fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartOptions")
            .field("gate", &self.gate.is_some())
            .field("sync", &self.sync)
            .finish()
    }
}

/// A switch that runs in this process.
#[derive(Debug)]
pub struct RunningSwitch {
    listen: SocketAddr,
    pipeline: Vec<AgentThread>,
    syncer: AgentThread,
    housekeeping: AgentThread,
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
    profile: Profile,
    options: StartOptions,
) -> Result<RunningSwitch, SwitchError> {
    let directory = Arc::new(directory);
    let clock = SwitchClock::new();
    let journal_options = JournalOptions {
        directory: settings.data.join("journal"),
        segment_bytes: profile.journal.segment_bytes,
        ring_bytes: profile.journal.ring_bytes,
        sync: options.sync.unwrap_or(SyncMode::Auto),
        lock_memory: profile.journal.lock_memory,
        prepared_segments: profile.journal.prepared_segments,
        link_agents: usize::from(profile.link_agents),
        gate: options.gate,
    };
    let (mut journal, engine) = open_journal(journal_options, &directory)?;
    for message in journal.facts.messages.iter().chain(&journal.recovery.messages) {
        tracing::warn!("{message}");
    }
    let last_time = journal.recovery.last_time;
    if last_time.since(wall_clock()) > AHEAD_NS_MAX {
        return Err(SwitchError::Unfit(format!(
            "the journal's last event is {} ms ahead of this host's UTC: set the clock right (or wait) and start again",
            last_time.since(wall_clock()) / MILLISECOND
        )));
    }
    let first_time = clock.now().max(last_time);
    append_first_events(&mut journal.appender, &directory, &engine, first_time).map_err(|Full| {
        SwitchError::Unfit("the journal's ring does not hold the directory: enlarge ring_mib".into())
    })?;
    journal.appender.publish();
    let ready_at = journal.appender.position();
    assemble(
        settings, directory, profile, journal, engine, clock, first_time, ready_at,
    )
}

/// Opens or makes the journal, and gives the engine that its history leads to.
fn open_journal(options: JournalOptions, directory: &Directory) -> Result<(Journal, Engine), SwitchError> {
    let path = options.directory.clone();
    if !Journal::exists(&path) {
        return Ok((Journal::create(options)?, Engine::new()));
    }
    let journal = Journal::open(options)?;
    check_rules(&path)?;
    let started = Instant::now();
    let mut told = started;
    let engine = replay_engine(&path, None, |events| {
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            tracing::info!(events, "replaying the journal");
        }
    })?;
    if engine.event_number() != journal.recovery.last_event {
        return Err(SwitchError::Unfit(format!(
            "the journal ends with event {} but replay came to event {}: verify the journal before starting",
            journal.recovery.last_event,
            engine.event_number()
        )));
    }
    tracing::info!(
        events = engine.event_number(),
        ms = started.elapsed().as_millis() as u64,
        "replayed the journal"
    );
    check_directory(directory, &engine)?;
    Ok((journal, engine))
}

/// A number once given to a participant stays its own; changed terms take effect only as events.
fn check_directory(directory: &Directory, engine: &Engine) -> Result<(), SwitchError> {
    let journaled = engine.snapshot().participants;
    if journaled.is_empty() {
        return Ok(());
    }
    for (entry, known) in directory.participants.iter().zip(&journaled) {
        if entry.terms.code != known.code {
            return Err(SwitchError::Unfit(format!(
                "participant {} is {} in the directory and {} in the journal: numbers are never reused; give back the \
                 directory this journal was begun with",
                known.index, entry.terms.code, known.code
            )));
        }
    }
    if directory.participants.len() != journaled.len() {
        return Err(SwitchError::Unfit(format!(
            "the directory has {} participants and the journal {}: participants can't be added or removed by file yet",
            directory.participants.len(),
            journaled.len()
        )));
    }
    Ok(())
}

/// What this start itself puts into the journal: Genesis, or what a crash during it left out; Restart; missing windows.
fn append_first_events(
    appender: &mut Appender,
    directory: &Directory,
    engine: &Engine,
    time: UtcNanos,
) -> Result<(), Full> {
    let mut append = |kind: RecordKind, payload: &[u8]| {
        appender
            .append(kind, time, payload.len(), |bytes| bytes.copy_from_slice(payload))
            .map(|_| ())
    };
    let journaled = engine.snapshot();
    if journaled.event_number == 0 {
        append(RecordKind::Genesis, bytemuck::bytes_of(&directory.scheme))?;
    }
    for entry in &directory.participants[journaled.participants.len()..] {
        append(RecordKind::Participant, bytemuck::bytes_of(&entry.terms))?;
    }
    if journaled.event_number > 0 {
        append(RecordKind::Restart, &[])?;
    }
    if journaled.event_number == 0 || !engine.has_open_windows() {
        for currency in currencies(directory) {
            let event = WindowEvent::new(WindowAction::Open, currency, WindowId::NONE);
            append(RecordKind::Window, bytemuck::bytes_of(&event))?;
        }
    }
    Ok(())
}

fn currencies(directory: &Directory) -> Vec<Currency> {
    directory
        .scheme
        .currencies
        .iter()
        .filter(|&&c| c != 0)
        .map(|&c| Currency(c))
        .collect()
}

/// The wake-ups of the profile's threads, by role.
struct Threads {
    wakeups: Vec<Arc<Wakeup>>,
    by_role: HashMap<AgentRole, Vec<usize>>,
}

impl Threads {
    fn new(profile: &Profile) -> Result<Self, SwitchError> {
        let (mut wakeups, mut by_role) = (Vec::new(), HashMap::<AgentRole, Vec<usize>>::new());
        for (index, plan) in profile.threads.iter().enumerate() {
            wakeups.push(Arc::new(Wakeup::new().map_err(SwitchError::host("make an eventfd"))?));
            for &role in &plan.agents {
                by_role.entry(role).or_default().push(index);
            }
        }
        Ok(Self { wakeups, by_role })
    }

    /// The wake-up of the thread that runs the `nth` agent of this role.
    fn of(&self, role: AgentRole, nth: usize) -> Result<Arc<Wakeup>, SwitchError> {
        let threads = self.by_role.get(&role).and_then(|threads| threads.get(nth));
        let thread = threads.ok_or_else(|| {
            SwitchError::Unfit(format!("the profile gives no thread to {} number {nth}", role.name()))
        })?;
        Ok(Arc::clone(&self.wakeups[*thread]))
    }

    /// Those who wait for a durable write.
    fn waiting_for_durable(&self) -> Vec<Arc<Wakeup>> {
        let mut threads: Vec<usize> = [AgentRole::Clearing, AgentRole::Sequencer]
            .iter()
            .flat_map(|role| self.by_role.get(role).into_iter().flatten().copied())
            .collect();
        threads.sort_unstable();
        threads.dedup();
        threads
            .into_iter()
            .map(|thread| Arc::clone(&self.wakeups[thread]))
            .collect()
    }
}

#[allow(
    clippy::too_many_arguments,
    reason = "called once, by `start`, whose second half it is"
)]
fn assemble(
    settings: Settings,
    directory: Arc<Directory>,
    profile: Profile,
    journal: Journal,
    engine: Engine,
    clock: SwitchClock,
    first_time: UtcNanos,
    ready_at: u64,
) -> Result<RunningSwitch, SwitchError> {
    let threads = Threads::new(&profile)?;
    let participants = directory.participants.len();
    let connections_max = settings.links.max.min(profile.driver.connections_max) as usize;
    let link_slots = connections_max * usize::from(profile.link_agents);
    if link_slots > LINK_SLOTS_MAX {
        return Err(SwitchError::Unfit(format!(
            "{} link agents with {connections_max} links each are {link_slots} links, and {LINK_SLOTS_MAX} can be told \
             apart: lower max under [links] in the settings, or connections_max in the profile",
            profile.link_agents
        )));
    }
    let sequencer_wakeup = threads.of(AgentRole::Sequencer, 0)?;
    let clearing_wakeup = threads.of(AgentRole::Clearing, 0)?;
    let dispatch_wakeup = threads.of(AgentRole::Dispatch, 0)?;
    let syncer_wakeup = threads.of(AgentRole::Syncer, 0)?;
    let housekeeping_wakeup = threads.of(AgentRole::Housekeeping, 0)?;

    let requests = Ring::<Intake>::new(profile.rings.intake_requests, Arc::clone(&sequencer_wakeup));
    let priority = Ring::<Intake>::new(profile.rings.intake_priority, Arc::clone(&sequencer_wakeup));
    let effects = Ring::new(profile.rings.effects, Arc::clone(&dispatch_wakeup));
    let changes = Ring::new(4 * connections_max.max(64), Arc::clone(&dispatch_wakeup));
    let queries = Ring::new(4 * connections_max.max(64), Arc::clone(&clearing_wakeup));
    let gate = Arc::new(IntakeGate::default());
    let pulse = Arc::new(LedgerPulse::default());
    let next_words: Arc<[AtomicU64]> = (0..participants).map(|_| AtomicU64::new(1)).collect();
    let link_counts: Arc<[AtomicU16]> = (0..participants).map(|_| AtomicU16::new(0)).collect();
    let rates = IntakeRates::of(&directory);
    let dispatch_counters = Arc::new(DispatchCounters::default());
    let desk = SnapshotDesk::new(Arc::clone(&clearing_wakeup));
    let last = Arc::new(Mutex::new(None));
    let limits = LinkLimits {
        half_open_max: settings.links.half_open_max as usize,
        buffers_per_link_max: (profile.driver.receive_buffers / BUFFERS_PER_LINK_SHARE).max(2),
        times: SessionTimes {
            handshake_ns: settings.links.handshake_timeout_ms * MILLISECOND,
            keepalive_ms: settings.links.keepalive_ms as u32,
        },
        send_timeout_ns: settings.links.send_timeout_ms * MILLISECOND,
    };

    let mut agents: HashMap<AgentRole, Vec<Box<dyn Agent>>> = HashMap::new();
    let (mut listen, mut backend, mut backend_reason) = (settings.listen, "", String::new());
    let (mut shares, mut homes, mut outbounds, mut counters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut links: Vec<Box<dyn Agent>> = Vec::new();
    for index in 0..profile.link_agents {
        let wakeup = threads.of(AgentRole::Link, usize::from(index))?;
        let mut driver_options = profile.driver.clone();
        driver_options.connections_max = connections_max as u32;
        let (mut driver, reason) = crate::io::open(settings.backend, &driver_options, Arc::clone(&wakeup))?;
        listen = driver
            .listen(listen, profile.link_agents > 1)
            .map_err(SwitchError::host(format!("listen on {}", settings.listen)))?;
        (backend, backend_reason) = (driver.backend().name(), reason);
        let buffers = 2 * usize::from(profile.driver.receive_buffers);
        let home = Ring::new(buffers, Arc::clone(&wakeup));
        let share = Arc::new(BufferShare::new(driver.pool(), buffers, Arc::clone(&home)));
        let outbound = Ring::new(profile.rings.outbound, Arc::clone(&wakeup));
        let link_counters = Arc::new(LinkCounters::default());
        links.push(Box::new(LinkAgent::new(LinkAgentParts {
            index,
            driver,
            share: Arc::clone(&share),
            buffers,
            connections_max,
            rings: LinkRings {
                requests: Arc::clone(&requests),
                priority: Arc::clone(&priority),
                outbound: Arc::clone(&outbound),
                changes: Arc::clone(&changes),
                queries: Arc::clone(&queries),
                home: Arc::clone(&home),
            },
            view: journal.view.clone(),
            positions: Arc::clone(&journal.positions),
            directory: Arc::clone(&directory),
            gate: Arc::clone(&gate),
            clock: clock.clone(),
            next_words: Arc::clone(&next_words),
            link_counts: Arc::clone(&link_counts),
            rates: Arc::clone(&rates),
            limits,
            counters: Arc::clone(&link_counters),
        })));
        shares.push(share);
        homes.push(home);
        outbounds.push(outbound);
        counters.push(link_counters);
    }
    tracing::info!("{backend_reason}");
    agents.insert(AgentRole::Link, links);
    let sequencer = SequencerParts {
        appender: journal.appender,
        requests,
        priority: Arc::clone(&priority),
        shares,
        homes,
        clock: clock.clone(),
        pulse: Arc::clone(&pulse),
        syncer: Arc::clone(&syncer_wakeup),
    };
    agents.insert(
        AgentRole::Sequencer,
        vec![Box::new(Sequencer::new(sequencer, first_time))],
    );
    let clearing = ClearingParts {
        engine,
        reader: journal.reader,
        effects: Arc::clone(&effects),
        queries,
        desk: Arc::clone(&desk),
        positions: Arc::clone(&journal.positions),
        pulse: Arc::clone(&pulse),
        sequencer: sequencer_wakeup,
        next_words,
        gate: Arc::clone(&gate),
        last: Arc::clone(&last),
    };
    agents.insert(AgentRole::Clearing, vec![Box::new(ClearingAgent::new(clearing))]);
    let dispatch = DispatchParts {
        effects,
        changes,
        outbound: outbounds,
        priority: Arc::clone(&priority),
        view: journal.view,
        positions: Arc::clone(&journal.positions),
        connections_max,
        requests_per_second_max: directory
            .participants
            .iter()
            .map(|entry| entry.request_per_second_max)
            .collect(),
        clock: clock.clone(),
        counters: Arc::clone(&dispatch_counters),
    };
    agents.insert(AgentRole::Dispatch, vec![Box::new(Dispatch::new(dispatch))]);
    let syncer = SyncerAgent::new(journal.syncer, threads.waiting_for_durable(), Arc::clone(&gate));
    agents.insert(AgentRole::Syncer, vec![Box::new(syncer)]);
    let wishes = Arc::new(Wishes::default());
    let housekeeping = HousekeepingParts {
        preparer: journal.preparer,
        positions: Arc::clone(&journal.positions),
        segment_bytes: profile.journal.segment_bytes,
        ready_at,
        gate: Arc::clone(&gate),
        priority,
        desk: Arc::clone(&desk),
        currencies: currencies(&directory),
        windows: settings.windows,
        wishes: Arc::clone(&wishes),
    };
    agents.insert(AgentRole::Housekeeping, vec![Box::new(Housekeeping::new(housekeeping))]);

    let source = StatusSource {
        backend,
        backend_reason,
        profile: profile.name.clone(),
        sync: journal.facts.sync,
        syncer_class: Arc::new(AtomicU64::new(0)),
        memory: journal.facts.memory,
        listen: listen.to_string(),
        gate: Arc::clone(&gate),
        links: counters,
        dispatch: dispatch_counters,
        positions: Arc::clone(&journal.positions),
        clock,
    };
    let admin = AdminServer::start(
        &settings.admin_socket,
        source.clone(),
        Arc::clone(&desk),
        wishes,
        housekeeping_wakeup,
        link_counts,
    )
    .map_err(SwitchError::host(format!(
        "admin socket {}",
        settings.admin_socket.display()
    )))?;

    let mut running = start_threads(&profile, &threads, agents)?;
    // The syncer's class is known once its thread runs.
    source
        .syncer_class
        .store(running.syncer.class() as u64, Ordering::Relaxed);
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
    while !gate.is_open() && Instant::now() < deadline && !running.has_failed() {
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
        admin,
        gate,
        desk,
        positions: journal.positions,
        source,
        last,
        pulse,
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
    pipeline_stop: StopFlag,
}

impl Started {
    fn has_failed(&self) -> bool {
        let cold = self.syncer.is_finished() || self.housekeeping.is_finished();
        cold || self.pipeline.iter().any(AgentThread::is_finished)
    }
}

/// One thread a plan; the syncer and housekeeping stop later than the pipeline, so each has a flag of its own.
fn start_threads(
    profile: &Profile,
    threads: &Threads,
    mut agents: HashMap<AgentRole, Vec<Box<dyn Agent>>>,
) -> Result<Started, SwitchError> {
    for list in agents.values_mut() {
        list.reverse();
    }
    let pipeline_stop = StopFlag::default();
    let (mut pipeline, mut syncer, mut housekeeping) = (Vec::new(), None, None);
    for (plan, wakeup) in profile.threads.iter().zip(&threads.wakeups) {
        let mut own: Vec<Box<dyn Agent>> = Vec::new();
        for role in &plan.agents {
            own.extend(agents.get_mut(role).and_then(Vec::pop));
        }
        let placement = Placement {
            core: plan.core,
            class: plan.class,
            idle: plan.idle,
        };
        let agent: Box<dyn Agent> = if own.len() == 1 {
            own.remove(0)
        } else {
            Box::new(CompositeAgent::new(own))
        };
        let place = match plan.agents.as_slice() {
            [AgentRole::Syncer] => &mut syncer,
            [AgentRole::Housekeeping] => &mut housekeeping,
            _ => {
                let thread = spawn(agent, placement, Arc::clone(wakeup), pipeline_stop.clone());
                pipeline.push(thread.map_err(SwitchError::host(format!("start thread {}", plan.name)))?);
                continue;
            }
        };
        let thread = spawn(agent, placement, Arc::clone(wakeup), StopFlag::default());
        *place = Some(thread.map_err(SwitchError::host(format!("start thread {}", plan.name)))?);
    }
    let (Some(syncer), Some(housekeeping)) = (syncer, housekeeping) else {
        return Err(SwitchError::Unfit(
            "the profile must give the syncer and housekeeping a thread of their own each".into(),
        ));
    };
    Ok(Started {
        pipeline,
        syncer,
        housekeeping,
        pipeline_stop,
    })
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
        let cold = self.syncer.is_finished() || self.housekeeping.is_finished();
        cold || self.pipeline.iter().any(AgentThread::is_finished)
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
