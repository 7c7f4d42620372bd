//! The switch in a rehearsal: the daemon's own stages, stepped by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use super::files::Files;
use super::world::World;
use crate::agent::{Agent, AgentError, IntakeState, SwitchClock, Wakeup};
use crate::config::AgentRole;
use crate::io::{Driver, InMemoryDriver, InMemoryWires};
use crate::journal::{SyncMode, WriteGate};
use crate::register::{FileDoor, FileGate};
use crate::sim::Random;
use crate::switch::{FinalLedger, Stages, StartOptions, SwitchError};
use crate::wire::OrderEvent;

/// A thread of the profile: it works until there is nothing to do, parks as the daemon's threads do, and is then stepped
/// only when a peer or its sockets wake it or its own time is up. A wake-up that is missing shows as a switch that sleeps.
struct Thread {
    roles: Vec<AgentRole>,
    agent: Box<dyn Agent>,
    wakeup: Arc<Wakeup>,
    /// The sockets it sleeps on.
    wires: Option<InMemoryWires>,
    parked_until: Option<u64>,
    held_until: u64,
}

impl Thread {
    /// True when the thread runs now.
    fn is_awake(&self, now: u64) -> bool {
        let Some(until) = self.parked_until else { return true };
        let by_sockets = self.wires.as_ref().is_some_and(InMemoryWires::has_completions);
        until <= now || !self.wakeup.is_armed() || by_sockets
    }

    /// One turn of the daemon's loop with an idle strategy that parks at once.
    fn turn(&mut self, now: u64) -> Result<usize, AgentError> {
        if self.parked_until.take().is_some() {
            self.wakeup.disarm();
        }
        let work = self.agent.do_work()?;
        if work > 0 {
            return Ok(work);
        }
        self.wakeup.arm();
        let work = self.agent.do_work()?;
        if work > 0 {
            self.wakeup.disarm();
            return Ok(work);
        }
        let limit = self.agent.park_limit();
        let nanos = limit.map_or(u64::MAX, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        self.parked_until = Some(now.saturating_add(nanos));
        Ok(0)
    }
}

/// A switch that is up.
pub(super) struct Switch {
    threads: Vec<Thread>,
    pub(super) wires: Vec<InMemoryWires>,
    rest: Stages,
    /// Duty cycles until the machine stops; `None` = not planned.
    pub(super) stops_in: Option<u64>,
    pub(super) steps: u64,
}

/// What a round of duty cycles came to.
pub(super) enum Round {
    /// Nothing was there to do.
    Quiet,
    /// There may be more.
    Busy,
    /// The machine stopped here.
    Stopped,
    /// A stage failed.
    Failed(AgentError),
}

impl Switch {
    /// Starts the switch on what the disk holds.
    pub(super) fn start(world: &World) -> Result<Self, SwitchError> {
        let (plan, directory) = (&world.plan, &world.directory);
        let clock = SwitchClock::manual(world.time.clone());
        let options = StartOptions {
            gate: Some(Arc::clone(&world.disk) as Arc<dyn WriteGate>),
            sync: Some(SyncMode::Fdatasync),
            files: FileDoor::with(Some(Arc::clone(&world.files) as Arc<dyn FileGate>)),
        };
        let mut wires = Vec::new();
        let settings = plan.settings(world.data.path());
        let mut rest = Stages::open(
            &settings,
            directory,
            &plan.profile,
            &clock,
            options,
            &mut |_, driver_options, _| {
                let (mut driver, wire) = InMemoryDriver::new(driver_options)
                    .map_err(|error| SwitchError::Unfit(format!("no memory for a driver: {error}")))?;
                driver
                    .listen(settings.listen, false)
                    .map_err(|error| SwitchError::Unfit(format!("a driver in memory listens: {error}")))?;
                wires.push(wire);
                Ok(Box::new(driver) as Box<dyn Driver>)
            },
        )?;
        let mut threads = Vec::new();
        let mut wires_left = wires.iter();
        let agents = rest.take_threads(&plan.profile);
        for ((thread, agent), wakeup) in plan.profile.threads.iter().zip(agents).zip(rest.threads.wakeups()) {
            let has_sockets = thread.agents.contains(&AgentRole::Link);
            threads.push(Thread {
                roles: thread.agents.clone(),
                agent,
                wakeup: Arc::clone(wakeup),
                wires: has_sockets.then(|| wires_left.next().cloned()).flatten(),
                parked_until: None,
                held_until: 0,
            });
        }
        if let Some(settler) = rest.settler.take() {
            let wakeup = Wakeup::new().map_err(|error| SwitchError::Unfit(format!("no wake-up: {error}")))?;
            threads.push(Thread {
                roles: Vec::new(),
                agent: settler.agent,
                wakeup: Arc::new(wakeup),
                wires: None,
                parked_until: None,
                held_until: 0,
            });
        }
        for thread in &mut threads {
            thread.agent.on_start()?;
        }
        Ok(Self {
            threads,
            wires,
            rest,
            stops_in: None,
            steps: 0,
        })
    }

    /// What a daemon does first when it is told to stop.
    pub(super) fn stop_intake(&self) {
        self.rest.gate.close(IntakeState::ShuttingDown);
    }

    pub(super) fn is_open(&self) -> bool {
        self.rest.gate.is_open()
    }

    pub(super) fn recovered(&self) -> &crate::journal::Recovery {
        &self.rest.recovery
    }

    /// The event of the snapshot it began with; 0 = with the journal's beginning.
    pub(super) fn began_with(&self) -> u64 {
        self.rest.start.snapshot_event
    }

    /// What the follower has done: look-ups, inquiries and words answered, snapshots.
    pub(super) fn followed(&self) -> [u64; 3] {
        let Some(counters) = &self.rest.follower else {
            return [0; 3];
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            read(&counters.look_ups),
            read(&counters.inquiries) + read(&counters.words),
            read(&counters.snapshots),
        ]
    }

    /// What keeps the follower from its work, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        self.rest.follower.as_ref()?.trouble()
    }

    /// An operator's order, on the way that the order desk takes; lost where that is full.
    pub(super) fn order(&self, order: OrderEvent) {
        if self.rest.order_ring.push(order).is_ok() {
            self.rest.order_ring.notify();
        }
    }

    pub(super) fn close_windows(&self) {
        self.rest.wishes.close_all();
    }

    /// Holds a thread: it gets no time until then.
    pub(super) fn hold(&mut self, random: &mut Random, until: u64) -> String {
        let nth = random.below(self.threads.len() as u64) as usize;
        self.threads[nth].held_until = until;
        self.threads[nth].agent.role_name().to_owned()
    }

    /// Holds the follower's thread; false when there is none.
    pub(super) fn hold_follower(&mut self, until: u64) -> bool {
        let found = self
            .threads
            .iter_mut()
            .find(|thread| thread.roles == [AgentRole::Follower]);
        found.map(|thread| thread.held_until = until).is_some()
    }

    pub(super) fn hold_none(&mut self) {
        for thread in &mut self.threads {
            thread.held_until = 0;
        }
    }

    /// One turn of each thread that is awake and not held, in an order drawn anew.
    pub(super) fn round(&mut self, random: &mut Random, now: u64, disk: &Disk, files: &Files) -> Round {
        let mut order: Vec<usize> = (0..self.threads.len()).collect();
        let mut quiet = true;
        while !order.is_empty() {
            let at = order.swap_remove(random.below(order.len() as u64) as usize);
            let thread = &mut self.threads[at];
            if thread.held_until > now || !thread.is_awake(now) {
                continue;
            }
            if let Some(left) = &mut self.stops_in {
                if *left == 0 {
                    return Round::Stopped;
                }
                *left -= 1;
            }
            quiet = false;
            self.steps += 1;
            let done = thread.turn(now);
            if disk.has_stopped() || files.has_stopped() {
                return Round::Stopped;
            }
            if let Err(error) = done {
                return Round::Failed(error);
            }
        }
        if quiet { Round::Quiet } else { Round::Busy }
    }

    /// When a thread runs again, if nobody wakes it before.
    pub(super) fn next_at(&self, now: u64) -> u64 {
        let next = self.threads.iter().map(|thread| {
            let at = if thread.is_awake(now) {
                now
            } else {
                thread.parked_until.unwrap_or(now)
            };
            at.max(thread.held_until)
        });
        next.min().unwrap_or(u64::MAX)
    }

    /// Ends as a daemon does that is told to stop: the pipeline is closed, then the syncer, then housekeeping, then the follower.
    pub(super) fn close(&mut self) -> Option<FinalLedger> {
        let is_cold = |thread: &Thread| {
            matches!(
                thread.roles[..],
                [AgentRole::Syncer] | [AgentRole::Housekeeping] | [AgentRole::Steward] | [AgentRole::Follower]
            )
        };
        self.threads.sort_by_key(is_cold);
        for thread in &mut self.threads {
            thread.agent.on_close();
        }
        self.last_ledger()
    }

    /// The machine stops: everything in memory is gone, but for a last look at the ledger, to hold replay against.
    pub(super) fn stop_dead(mut self) -> Option<FinalLedger> {
        let has_ledger = |thread: &&mut Thread| thread.roles.contains(&AgentRole::Clearing);
        self.threads
            .iter_mut()
            .filter(has_ledger)
            .for_each(|thread| thread.agent.on_close());
        self.last_ledger()
    }

    fn last_ledger(&self) -> Option<FinalLedger> {
        let mut last = self.rest.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        last.take()
    }
}
