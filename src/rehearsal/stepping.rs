//! The switch in a rehearsal: the daemon's own stages, stepped by hand.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::disk::Disk;
use super::plan::Plan;
use crate::agent::{Agent, AgentError, ManualTime, SwitchClock};
use crate::config::{AgentRole, Directory};
use crate::io::{Driver, InMemoryDriver, InMemoryWires};
use crate::journal::{SyncMode, WriteGate};
use crate::sim::Random;
use crate::switch::{FinalLedger, Stages, StartOptions, SwitchError};

/// A stage and until when it is held.
struct Stepped {
    role: AgentRole,
    agent: Box<dyn Agent>,
    held_until: u64,
}

/// A switch that is up.
pub(super) struct Switch {
    stages: Vec<Stepped>,
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
    pub(super) fn start(
        plan: &Plan,
        directory: &Arc<Directory>,
        data: &Path,
        time: &ManualTime,
        disk: &Arc<Disk>,
    ) -> Result<Self, SwitchError> {
        let clock = SwitchClock::manual(time.clone());
        let options = StartOptions {
            gate: Some(Arc::clone(disk) as Arc<dyn WriteGate>),
            sync: Some(SyncMode::Fdatasync),
        };
        let mut wires = Vec::new();
        let settings = plan.settings(data);
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
        let mut stages = Vec::new();
        for (role, agents) in std::mem::take(&mut rest.agents) {
            stages.extend(agents.into_iter().map(|agent| Stepped {
                role,
                agent,
                held_until: 0,
            }));
        }
        for stage in &mut stages {
            stage.agent.on_start()?;
        }
        Ok(Self {
            stages,
            wires,
            rest,
            stops_in: None,
            steps: 0,
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.rest.gate.is_open()
    }

    pub(super) fn recovered(&self) -> &crate::journal::Recovery {
        &self.rest.recovery
    }

    pub(super) fn close_windows(&self) {
        self.rest.wishes.close_windows.store(true, Ordering::Release);
    }

    /// Holds a stage: its thread gets no time until then.
    pub(super) fn hold(&mut self, random: &mut Random, until: u64) -> &'static str {
        let nth = random.below(self.stages.len() as u64) as usize;
        self.stages[nth].held_until = until;
        self.stages[nth].role.name()
    }

    pub(super) fn hold_none(&mut self) {
        for stage in &mut self.stages {
            stage.held_until = 0;
        }
    }

    /// One duty cycle of each stage that is not held, in an order drawn anew.
    pub(super) fn round(&mut self, random: &mut Random, now: u64, disk: &Disk) -> Round {
        let mut order: VecDeque<usize> = (0..self.stages.len()).collect();
        let mut work = 0;
        while !order.is_empty() {
            let nth = random.below(order.len() as u64) as usize;
            let Some(at) = order.remove(nth) else { break };
            if self.stages[at].held_until > now {
                continue;
            }
            if let Some(left) = &mut self.stops_in {
                if *left == 0 {
                    return Round::Stopped;
                }
                *left -= 1;
            }
            self.steps += 1;
            let done = self.stages[at].agent.do_work();
            if disk.has_stopped() {
                return Round::Stopped;
            }
            match done {
                Ok(done) => work += done,
                Err(error) => return Round::Failed(error),
            }
        }
        if work == 0 { Round::Quiet } else { Round::Busy }
    }

    /// When a stage that is not held wants to be stepped again, if nothing comes before.
    pub(super) fn next_at(&mut self, now: u64) -> u64 {
        let mut earliest = u64::MAX;
        for stage in &mut self.stages {
            // Housekeeping looks around every 100 ms for what it mostly finds at once; it is stepped whenever others are.
            let is_cold = stage.role == AgentRole::Housekeeping;
            if let Some(limit) = stage
                .agent
                .park_limit()
                .filter(|_| !is_cold || !self.rest.gate.is_open())
            {
                let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
                earliest = earliest.min(now.saturating_add(nanos).max(stage.held_until));
            }
        }
        earliest
    }

    /// Ends as a daemon does that is told to stop: every stage is closed in the order of the data path.
    pub(super) fn close(mut self) -> Option<FinalLedger> {
        let close = |stages: &mut Vec<Stepped>, role| {
            let of_role = stages.iter_mut().filter(|stage| stage.role == role);
            of_role.for_each(|stage| stage.agent.on_close());
        };
        for role in [
            AgentRole::Link,
            AgentRole::Sequencer,
            AgentRole::Clearing,
            AgentRole::Dispatch,
            AgentRole::Syncer,
            AgentRole::Housekeeping,
        ] {
            close(&mut self.stages, role);
        }
        self.last_ledger()
    }

    /// The machine stops: everything in memory is gone, but for a last look at the ledger, to hold replay against.
    pub(super) fn stop_dead(mut self) -> Option<FinalLedger> {
        for stage in &mut self.stages {
            if stage.role == AgentRole::Clearing {
                stage.agent.on_close();
            }
        }
        self.last_ledger()
    }

    fn last_ledger(&self) -> Option<FinalLedger> {
        let mut last = self.rest.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        last.take()
    }
}
