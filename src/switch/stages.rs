//! The stages of a switch, put together and not yet on threads.
//!
//! One place knows how the parts are wired. The daemon gives them sockets, threads and the host's clock
//! (`assembly.rs`); a rehearsal gives them lines in memory, a clock moved by hand, and steps them itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::SwitchError;
use super::clearing_agent::{ClearingAgent, ClearingParts, FinalLedger, RegisterRings};
use super::recall::{Recalled, StartFigures, open_journal, snapshots};
use super::syncer_agent::SyncerAgent;
use crate::agent::{Agent, CompositeAgent, IntakeGate, Ring, StopFlag, SwitchClock, Wakeup};
use crate::clearing::Engine;
use crate::config::{AgentRole, Directory, Profile, Settings};
use crate::dispatch::{Dispatch, DispatchCounters, DispatchParts};
use crate::domain::{Currency, MILLISECOND, SECOND, UtcNanos, WindowId, WindowState};
use crate::follower::{Follower, FollowerCounters, FollowerParts};
use crate::housekeeping::{
    Desk, Housekeeping, HousekeepingParts, OrderDesk, SnapshotDesk, Steward, StewardParts, StewardView, Wishes,
};
use crate::io::{BufferShare, Driver, DriverOptions};
use crate::journal::{
    Appender, Full, Journal, JournalFacts, JournalOptions, Positions, Recovery, Superblock, SyncMode, WriteGate,
};
use crate::link::{LinkAgent, LinkAgentParts, LinkCounters, LinkLimits, LinkRings, Roster, SessionTimes};
use crate::register::{FileDoor, RegisterOptions};
use crate::sequencer::{LedgerPulse, Sequencer, SequencerParts};
use crate::settlement::files::SettlementDirectory;
use crate::settlement::{SettlementProgress, Settler, SettlerParts, SpoolOptions, SpoolView};
use crate::wire::{Intake, OrderEvent, RecordKind, WindowAction, WindowEvent};

/// A journal whose last event is this far ahead of UTC is not gone on with.
const AHEAD_NS_MAX: u64 = 5 * SECOND;
/// Link slots are 16 bits wide.
const LINK_SLOTS_MAX: usize = 1 << 16;
/// Receive buffers one link may hold: the share of a group's buffers.
const BUFFERS_PER_LINK_SHARE: u16 = 8;

/// Look-ups, findings, questions and marks that may wait between clearing, follower and sequencer.
const LOOK_UPS: usize = 16_384;
const FINDINGS: usize = 1_024;
const REGISTER_QUERIES: usize = 1_024;
const MARKS: usize = 256;
/// Orders that may be under way at a time, and what the steward may still have to hear.
const ORDERS: usize = 64;
const TIDINGS: usize = 1_024;

/// Seams for tests; a daemon starts with the default.
#[derive(Clone, Default)]
pub struct StartOptions {
    /// A door before each durable write.
    pub gate: Option<Arc<dyn WriteGate>>,
    /// How writes are made durable.
    pub sync: Option<SyncMode>,
    /// A door before each change to the files of the register and of snapshots.
    pub files: FileDoor,
}

impl std::fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartOptions")
            .field("gate", &self.gate.is_some())
            .field("sync", &self.sync)
            .finish()
    }
}

/// Makes the driver of link agent `index`, listening already.
pub type OpenDriver<'a> = dyn FnMut(u8, &DriverOptions, Arc<Wakeup>) -> Result<Box<dyn Driver>, SwitchError> + 'a;

/// The stages of one switch, and what stands around them holds of them.
pub struct Stages {
    /// The agents by role; link agents in the order of their numbers.
    pub agents: BTreeMap<AgentRole, Vec<Box<dyn Agent>>>,
    /// The wake-ups of the profile's threads.
    pub threads: Threads,
    /// Whether payments are taken.
    pub gate: Arc<IntakeGate>,
    /// What clearing tells the sequencer.
    pub pulse: Arc<LedgerPulse>,
    /// The journal's positions.
    pub positions: Arc<Positions>,
    /// Where the journal's snapshots are, and from where on it is kept.
    pub superblock: Arc<Superblock>,
    /// Where clearing is asked for snapshots.
    pub desk: Desk,
    /// Operators' wishes.
    pub wishes: Arc<Wishes>,
    /// Where clearing leaves its ledger when it is closed.
    pub last: Arc<Mutex<Option<FinalLedger>>>,
    /// Where operators give orders.
    pub orders: Arc<OrderDesk>,
    /// Orders on their way to the sequencer.
    pub order_ring: Arc<Ring<OrderEvent>>,
    /// Who may sign on.
    pub roster: Arc<Roster>,
    /// What the steward shows of itself.
    pub steward: Arc<StewardView>,
    /// The scheme's currencies.
    pub currencies: Vec<Currency>,
    /// Links by participant.
    pub link_counts: Arc<[AtomicU16]>,
    /// Counts of each link agent.
    pub link_counters: Vec<Arc<LinkCounters>>,
    /// Counts of dispatch.
    pub dispatch_counters: Arc<DispatchCounters>,
    /// What the journal is on this host.
    pub facts: JournalFacts,
    /// What was found in the journal.
    pub recovery: Recovery,
    /// What the follower tells about itself, where there is one.
    pub follower: Option<Arc<FollowerCounters>>,
    /// Who settles windows, where files are written of them.
    pub settler: Option<SettlerStage>,
    /// What the start cost.
    pub start: StartFigures,
}

/// The settler, which is on no profile, and what stands around it holds of it.
pub struct SettlerStage {
    /// The agent.
    pub agent: Box<dyn Agent>,
    /// To be set with its thread's end: what it writes then is given up.
    pub stop: StopFlag,
    /// Its figures.
    pub progress: Arc<SettlementProgress>,
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages")
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}

impl Stages {
    /// Opens the journal (or makes one), replays it, and puts the stages together.
    ///
    /// # Errors
    /// What keeps the switch from starting; nothing was acknowledged then.
    pub fn open(
        settings: &Settings,
        directory: &Arc<Directory>,
        profile: &Profile,
        clock: &SwitchClock,
        options: StartOptions,
        open_driver: &mut OpenDriver<'_>,
    ) -> Result<Self, SwitchError> {
        let journal_options = JournalOptions {
            directory: journal_directory(settings),
            segment_bytes: profile.journal.segment_bytes,
            ring_bytes: profile.journal.ring_bytes,
            sync: options.sync.unwrap_or(SyncMode::Auto),
            lock_memory: profile.journal.lock_memory,
            prepared_segments: profile.journal.prepared_segments,
            link_agents: usize::from(profile.link_agents),
            start: None,
            gate: options.gate,
        };
        let (mut journal, recalled) = open_journal(journal_options, settings, directory, profile.payments_expected)?;
        for message in journal.facts.messages.iter().chain(&journal.recovery.messages) {
            tracing::warn!("{message}");
        }
        let last_time = journal.recovery.last_time;
        if last_time.since(clock.wall()) > AHEAD_NS_MAX {
            return Err(SwitchError::Unfit(format!(
                "the journal's last event is {} ms ahead of this host's UTC: set the clock right (or wait) and start again",
                last_time.since(clock.wall()) / MILLISECOND
            )));
        }
        let first_time = clock.now().max(last_time);
        // From here on the journal's terms count, and of the file what the journal does not hold.
        let directory = &Arc::new(recalled.directory.clone());
        append_first_events(&mut journal.appender, directory, &recalled.engine, first_time).map_err(|Full| {
            SwitchError::Unfit("the journal's ring does not hold the directory: enlarge ring_mib".into())
        })?;
        journal.appender.publish();
        Self::put_together(
            settings,
            directory,
            profile,
            clock,
            journal,
            recalled,
            first_time,
            options.files,
            open_driver,
        )
    }

    /// Takes the agents out, one a thread of the profile; those that share a thread are one composite.
    #[must_use]
    pub fn take_threads(&mut self, profile: &Profile) -> Vec<Box<dyn Agent>> {
        let mut agents = std::mem::take(&mut self.agents);
        agents.values_mut().for_each(|list| list.reverse());
        let threads = profile.threads.iter().map(|plan| {
            let of_role = plan.agents.iter().filter_map(|role| agents.get_mut(role)?.pop());
            let mut own: Vec<Box<dyn Agent>> = of_role.collect();
            if own.len() == 1 {
                own.remove(0)
            } else {
                Box::new(CompositeAgent::new(own))
            }
        });
        threads.collect()
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "called once, by `open`, whose second half it is"
    )]
    fn put_together(
        settings: &Settings,
        directory: &Arc<Directory>,
        profile: &Profile,
        clock: &SwitchClock,
        journal: Journal,
        recalled: Recalled,
        first_time: UtcNanos,
        files: FileDoor,
        open_driver: &mut OpenDriver<'_>,
    ) -> Result<Self, SwitchError> {
        if settings.follower.register_days < directory.scheme.refund_days {
            return Err(SwitchError::Unfit(format!(
                "the register is kept for {} days and refunds are taken for {}: set register_days under [follower] to at \
                 least that",
                settings.follower.register_days, directory.scheme.refund_days
            )));
        }
        let ready_at = journal.appender.position();
        let threads = Threads::new(profile)?;
        let roster = Arc::new(Roster::new(Directory::clone(directory)));
        let room = roster.room();
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

        let requests = Ring::<Intake>::new(profile.rings.intake_requests, Arc::clone(&sequencer_wakeup));
        let priority = Ring::<Intake>::new(profile.rings.intake_priority, Arc::clone(&sequencer_wakeup));
        let effects = Ring::new(profile.rings.effects, Arc::clone(&dispatch_wakeup));
        let changes = Ring::new(4 * connections_max.max(64), Arc::clone(&dispatch_wakeup));
        let queries = Ring::new(4 * connections_max.max(64), Arc::clone(&clearing_wakeup));
        let findings = Ring::new(FINDINGS, Arc::clone(&sequencer_wakeup));
        let gate = Arc::new(IntakeGate::default());
        let pulse = Arc::new(LedgerPulse::default());
        let next_words: Arc<[AtomicU64]> = (0..room).map(|_| AtomicU64::new(1)).collect();
        let link_counts: Arc<[AtomicU16]> = (0..room).map(|_| AtomicU16::new(0)).collect();
        let order_ring = Ring::<OrderEvent>::new(ORDERS, Arc::clone(&sequencer_wakeup));
        let orders = Arc::new(OrderDesk::new(settings.operators.clone(), Arc::clone(&order_ring)));
        let steward_wakeup = threads.of(AgentRole::Steward, 0)?;
        let tidings = Ring::new(TIDINGS, steward_wakeup);
        let steward = Arc::new(StewardView::default());
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

        let mut agents: BTreeMap<AgentRole, Vec<Box<dyn Agent>>> = BTreeMap::new();
        let (mut shares, mut homes, mut outbounds, mut counters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut links: Vec<Box<dyn Agent>> = Vec::new();
        for index in 0..profile.link_agents {
            let wakeup = threads.of(AgentRole::Link, usize::from(index))?;
            let mut driver_options = profile.driver.clone();
            driver_options.connections_max = connections_max as u32;
            driver_options.send_buffer_bytes = settings.links.send_buffer_kib.map(|kib| kib << 10);
            let driver = open_driver(index, &driver_options, Arc::clone(&wakeup))?;
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
                roster: Arc::clone(&roster),
                gate: Arc::clone(&gate),
                clock: clock.clone(),
                next_words: Arc::clone(&next_words),
                link_counts: Arc::clone(&link_counts),
                rates: Arc::clone(roster.rates()),
                limits,
                counters: Arc::clone(&link_counters),
            })));
            shares.push(share);
            homes.push(home);
            outbounds.push(outbound);
            counters.push(link_counters);
        }
        agents.insert(AgentRole::Link, links);
        let sequencer = SequencerParts {
            appender: journal.appender,
            requests,
            priority: Arc::clone(&priority),
            findings: Arc::clone(&findings),
            orders: Arc::clone(&order_ring),
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
        let register = threads.find(AgentRole::Follower, 0).map(|wakeup| RegisterRings {
            look_ups: Ring::new(LOOK_UPS, Arc::clone(&wakeup)),
            queries: Ring::new(REGISTER_QUERIES, Arc::clone(&wakeup)),
            marks: Ring::new(MARKS, wakeup),
            counters: Arc::new(FollowerCounters::default()),
        });
        if register.is_none() {
            tracing::warn!(
                "there is no follower: no snapshots are taken, so that every start replays the whole journal, and what \
                 concerns payments that have left memory is not answered; set enabled = true under [follower], and give \
                 the profile a thread with agents = [\"follower\"]"
            );
        }
        let spool = SpoolOptions::within(&settings.settlement.directory, journal.facts.journal_id, files.clone());
        let spool_view = Arc::new(SpoolView::default());
        let follower = register.as_ref().map(|rings| {
            let counters = Arc::clone(&rings.counters);
            let parts = FollowerParts {
                source: journal.source,
                superblock: Arc::clone(&journal.superblock),
                positions: Arc::clone(&journal.positions),
                snapshots: snapshots(settings, journal.facts.journal_id).through(files.clone()),
                began_with: recalled.snapshot,
                unusable: recalled.unusable,
                register: RegisterOptions {
                    directory: settings.data.join("register"),
                    journal_id: journal.facts.journal_id,
                    payments_in_memory: settings.follower.payments_in_memory as usize,
                    door: files.clone(),
                },
                spool: spool.clone(),
                spool_view: Arc::clone(&spool_view),
                settings: settings.follower,
                look_ups: Arc::clone(&rings.look_ups),
                queries: Arc::clone(&rings.queries),
                marks: Arc::clone(&rings.marks),
                findings,
                priority: Arc::clone(&priority),
                effects: Arc::clone(&effects),
                gate: Arc::clone(&gate),
                clock: clock.clone(),
                counters: Arc::clone(&counters),
            };
            agents.insert(AgentRole::Follower, vec![Box::new(Follower::new(parts))]);
            counters
        });
        let settled = recalled
            .engine
            .snapshot()
            .windows
            .iter()
            .filter(|window| window.state == WindowState::Settled)
            .map(|window| window.id)
            .collect();
        let clearing = ClearingParts {
            engine: recalled.engine,
            register,
            reader: journal.reader,
            effects: Arc::clone(&effects),
            queries,
            desk: Arc::clone(&desk),
            positions: Arc::clone(&journal.positions),
            pulse: Arc::clone(&pulse),
            sequencer: sequencer_wakeup,
            next_words,
            tidings: Arc::clone(&tidings),
            steward: Arc::clone(&steward),
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
            contracts: directory
                .participants
                .iter()
                .map(|entry| entry.terms.contract)
                .collect(),
            room,
            payments_expected: profile.payments_expected.min(directory.scheme.resident_payments.into()) as usize,
            clock: clock.clone(),
            counters: Arc::clone(&dispatch_counters),
        };
        agents.insert(AgentRole::Dispatch, vec![Box::new(Dispatch::new(dispatch))]);
        let syncer = SyncerAgent::new(journal.syncer, threads.waiting_for_durable(), Arc::clone(&gate));
        agents.insert(AgentRole::Syncer, vec![Box::new(syncer)]);
        let wishes = Arc::new(Wishes::default());
        if settings.settlement.files && follower.is_none() {
            tracing::warn!(
                "there is no follower, and so nobody spools what settlement's files are made of: closed windows are not \
                 settled; set enabled = true under [follower], or files = false under [settlement]"
            );
        }
        let settler = (settings.settlement.files && follower.is_some()).then(|| {
            let (stop, progress) = (StopFlag::default(), Arc::new(SettlementProgress::default()));
            let wishes = Arc::clone(&wishes);
            let agent = Settler::new(SettlerParts {
                directory: SettlementDirectory::new(settings.settlement.directory.clone(), files),
                spool,
                view: spool_view,
                events: Arc::clone(&priority),
                wished: Box::new(move || wishes.settle.swap(false, Ordering::AcqRel)),
                by_itself: settings.windows.settle,
                spool_days: settings.settlement.spool_days,
                settled,
                gate: Arc::clone(&gate),
                clock: clock.clone(),
                progress: Arc::clone(&progress),
                stop: stop.clone(),
            });
            SettlerStage {
                agent: Box::new(agent),
                stop,
                progress,
            }
        });
        let housekeeping = HousekeepingParts {
            preparer: journal.preparer,
            positions: Arc::clone(&journal.positions),
            segment_bytes: profile.journal.segment_bytes,
            ready_at,
            gate: Arc::clone(&gate),
            priority: Arc::clone(&priority),
            desk: Arc::clone(&desk),
            settle: settings.windows.settle,
            wishes: Arc::clone(&wishes),
            settles_at_once: !settings.settlement.files,
            clock: clock.clone(),
        };
        agents.insert(AgentRole::Housekeeping, vec![Box::new(Housekeeping::new(housekeeping))]);
        let currencies = currencies(directory);
        let parts = StewardParts {
            ready_at,
            positions: Arc::clone(&journal.positions),
            priority,
            tidings,
            orders: Arc::clone(&orders),
            roster: Arc::clone(&roster),
            desk: Arc::clone(&desk),
            currencies: currencies.clone(),
            windows: settings.windows.clone(),
            settles_at_once: !settings.settlement.files,
            wishes: Arc::clone(&wishes),
            settler: threads.of(AgentRole::Housekeeping, 0)?,
            view: Arc::clone(&steward),
            clock: clock.clone(),
        };
        agents.insert(AgentRole::Steward, vec![Box::new(Steward::new(parts))]);
        Ok(Self {
            agents,
            threads,
            gate,
            pulse,
            positions: journal.positions,
            superblock: journal.superblock,
            desk,
            wishes,
            last,
            orders,
            order_ring,
            roster,
            steward,
            currencies,
            link_counts,
            link_counters: counters,
            dispatch_counters,
            facts: journal.facts,
            recovery: journal.recovery,
            follower,
            settler,
            start: recalled.figures,
        })
    }
}

/// Where a switch keeps its journal.
#[must_use]
pub fn journal_directory(settings: &Settings) -> PathBuf {
    settings.data.join("journal")
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
    // A machine that stops in the very first write leaves a part of those that Genesis announced.
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
#[derive(Debug)]
pub struct Threads {
    pub(super) wakeups: Vec<Arc<Wakeup>>,
    by_role: BTreeMap<AgentRole, Vec<usize>>,
}

impl Threads {
    fn new(profile: &Profile) -> Result<Self, SwitchError> {
        let (mut wakeups, mut by_role) = (Vec::new(), BTreeMap::<AgentRole, Vec<usize>>::new());
        for (index, plan) in profile.threads.iter().enumerate() {
            wakeups.push(Arc::new(Wakeup::new().map_err(SwitchError::host("make an eventfd"))?));
            for &role in &plan.agents {
                by_role.entry(role).or_default().push(index);
            }
        }
        Ok(Self { wakeups, by_role })
    }

    /// The wake-ups, one a thread of the profile.
    #[must_use]
    pub fn wakeups(&self) -> &[Arc<Wakeup>] {
        &self.wakeups
    }

    /// The wake-up of the thread that runs the `nth` agent of this role.
    pub(super) fn of(&self, role: AgentRole, nth: usize) -> Result<Arc<Wakeup>, SwitchError> {
        self.find(role, nth)
            .ok_or_else(|| SwitchError::Unfit(format!("the profile gives no thread to {} number {nth}", role.name())))
    }

    /// The wake-up of the thread that runs the `nth` agent of this role, if there is one.
    fn find(&self, role: AgentRole, nth: usize) -> Option<Arc<Wakeup>> {
        let thread = *self.by_role.get(&role)?.get(nth)?;
        Some(Arc::clone(&self.wakeups[thread]))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::InMemoryDriver;

    fn start(data: &std::path::Path, directory: &Directory) -> Result<Stages, SwitchError> {
        let mut profile = Profile::load("small-vm").unwrap();
        (profile.journal.segment_bytes, profile.journal.ring_bytes) = (1 << 20, 2 << 20);
        let settings = Settings::new(([127, 0, 0, 1], 0).into(), data.to_owned(), PathBuf::new());
        let clock = SwitchClock::new();
        let directory = Arc::new(directory.clone());
        Stages::open(
            &settings,
            &directory,
            &profile,
            &clock,
            StartOptions::default(),
            &mut |_, options, _| {
                let (driver, _) = InMemoryDriver::new(options).map_err(SwitchError::host("make a driver"))?;
                Ok(Box::new(driver))
            },
        )
    }

    /// A journal as a machine leaves it that stopped in the first write: Genesis and `participants` of them.
    fn cut_short(data: &std::path::Path, directory: &Directory, participants: usize) {
        let options = JournalOptions {
            directory: data.join("journal"),
            segment_bytes: 1 << 20,
            ring_bytes: 2 << 20,
            sync: SyncMode::Auto,
            lock_memory: false,
            prepared_segments: 1,
            link_agents: 1,
            start: None,
            gate: None,
        };
        let mut journal = Journal::create(options).unwrap();
        let mut append = |kind, payload: &[u8]| {
            let write = |bytes: &mut [u8]| bytes.copy_from_slice(payload);
            journal
                .appender
                .append(kind, UtcNanos(1), payload.len(), write)
                .unwrap();
        };
        append(RecordKind::Genesis, bytemuck::bytes_of(&directory.scheme));
        for entry in &directory.participants[..participants] {
            append(RecordKind::Participant, bytemuck::bytes_of(&entry.terms));
        }
        journal.appender.publish();
        journal.syncer.sync().unwrap();
    }

    #[test]
    fn a_journal_whose_first_write_was_cut_short_is_gone_on_with() {
        let directory = Directory::generate(2, 3);
        for participants in 0..=5 {
            let data = tempfile::tempdir().unwrap();
            cut_short(data.path(), &directory, participants);
            start(data.path(), &directory).unwrap_or_else(|error| panic!("{participants} of 5: {error}"));
        }
    }

    #[test]
    fn a_directory_that_lacks_participants_is_refused_even_then_and_one_that_has_more_is_not() {
        let data = tempfile::tempdir().unwrap();
        cut_short(data.path(), &Directory::generate(2, 3), 1);
        let started = start(data.path(), &Directory::generate(2, 4)).unwrap();
        assert_eq!(
            started.roster.current().participants.len(),
            5,
            "the journal's are in force"
        );
        drop(started);
        let refused = start(data.path(), &Directory::generate(2, 2)).map(|_| ()).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("has 4 participants and the journal 5"), "{said}");
    }
}
