//! The world: time, what is due, the faults, and the switch among them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::Counts;
use super::disk::{Disk, NextWrite};
use super::events::{Agenda, Due, EventLog};
use super::files::Files;
use super::line::Line;
use super::operator::Operator;
use super::party::{Act, Party, Trade, Turn, Wake};
use super::plan::Plan;
use super::stepping::{Round, Switch};
use super::witness::{Place, Witness};
use crate::agent::ManualTime;
use crate::config::Directory;
use crate::domain::SECOND;
use crate::sim::Random;

/// Duty cycles after which a run is taken to go round in circles.
const STEPS_MAX: u64 = 20_000_000;

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) directory: Arc<Directory>,
    pub(super) data: tempfile::TempDir,
    pub(super) disk: Arc<Disk>,
    /// Of the register and of snapshots.
    pub(super) files: Arc<Files>,
    pub(super) operator: Operator,
    pub(super) time: ManualTime,
    /// UTC as it truly is; the host's wall clock may be away from it.
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) agenda: Agenda,
    pub(super) switch: Option<Switch>,
    pub(super) lines: Vec<Line>,
    /// By link agent and connection: whose it is or was last.
    pub(super) holders: Vec<Vec<Option<(usize, u32)>>>,
    pub(super) parties: Vec<Party>,
    pub(super) witness: Witness,
    pub(super) healing: bool,
    pub(super) at_rest: bool,
    /// Time jumped by so much that a Reversal may have become Manual.
    pub(super) a_day_passed: bool,
    /// Stops in order that are begun and not done.
    pub(super) stops_due: u32,
    pub(super) hold_ns: u64,
    pub(super) counts: Counts,
    pub(super) digest: blake3::Hasher,
    log: EventLog,
    steps: u64,
    /// Connections of nobody: by link agent and number.
    pub(super) strangers: BTreeSet<(usize, u32)>,
    /// A copy of the disk for one that goes back.
    pub(super) copy: Option<Vec<(PathBuf, Vec<u8>)>>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Result<Self, String> {
        let memory = std::path::Path::new("/dev/shm");
        let data = if memory.is_dir() {
            tempfile::Builder::new()
                .prefix("clearway-rehearsal-")
                .tempdir_in(memory)
        } else {
            tempfile::Builder::new().prefix("clearway-rehearsal-").tempdir()
        };
        let data = data.map_err(|error| format!("no temporary directory: {error}"))?;
        let directory = Arc::new(plan.directory.clone());
        let (mut lines, mut parties) = (Vec::new(), Vec::new());
        for (number, (entry, &links)) in plan.directory.participants.iter().zip(&plan.links).enumerate() {
            let first = lines.len();
            lines.extend((0..links).map(|_| Line::new(number)));
            parties.push(Party::new(entry, first..lines.len(), &plan));
        }
        let connections = plan.profile.driver.connections_max as usize;
        let holders = vec![vec![None; connections]; usize::from(plan.profile.link_agents)];
        Ok(Self {
            directory,
            disk: Arc::new(Disk::new(
                &data.path().join("journal"),
                plan.profile.journal.segment_bytes,
            )),
            files: Arc::new(Files::new(data.path())),
            operator: Operator::default(),
            data,
            time: ManualTime::new(plan.start),
            now: plan.start.0,
            random: Random::new(plan.seed),
            agenda: Agenda::default(),
            switch: None,
            lines,
            holders,
            parties,
            witness: Witness::default(),
            healing: false,
            at_rest: false,
            a_day_passed: false,
            stops_due: 0,
            hold_ns: 0,
            counts: Counts::default(),
            digest: blake3::Hasher::new(),
            log: EventLog::default(),
            steps: 0,
            strangers: BTreeSet::new(),
            copy: None,
            plan,
        })
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        self.log.note(self.now - self.plan.start.0, what);
    }

    pub(super) fn events(&self) -> Vec<String> {
        self.log.last()
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        *self.digest.finalize().as_bytes()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// The whole run.
    pub(super) fn run(&mut self) -> Result<(), String> {
        self.start_switch()?;
        for line in 0..self.lines.len() {
            let at = self.now + self.random.below(SECOND);
            self.agenda.put(at, Due::Connect { line });
        }
        for party in 0..self.parties.len() {
            for wake in [Wake::Pay, Wake::Ask] {
                let at = self.now + SECOND + self.random.below(SECOND);
                self.agenda.put(at, Due::Wake { party, wake });
            }
        }
        self.plan_next_fault();
        self.plan_next_orders();
        self.operator_looks()?;
        let end = self.now + self.plan.span_ns;
        while self.now < end {
            self.moment(end)?;
        }
        self.heal()?;
        self.wait_for_rest()?;
        self.at_rest = true;
        self.roll_call()?;
        self.last_round()?;
        self.close()
    }

    /// What is due now happens, the switch works, and time goes on.
    pub(super) fn moment(&mut self, end: u64) -> Result<(), String> {
        while let Some(due) = self.agenda.pop_due(self.now) {
            self.happen(due)?;
        }
        let quiet = self.let_switch_work()?;
        let mut next = self.agenda.next_at().min(end);
        if let Some(switch) = &mut self.switch {
            // Threads take time, too.
            let soonest = self.now + self.random.below(100_000);
            next = next.min(switch.next_at(self.now).max(soonest));
            if !quiet {
                next = next.min(soonest);
            }
        }
        let passes = next.saturating_sub(self.now).max(1);
        self.pass(passes);
        Ok(())
    }

    pub(super) fn pass(&mut self, nanos: u64) {
        self.now += nanos;
        self.time.advance(nanos);
    }

    /// Steps the stages until they are quiet, or for a while; true when they are.
    fn let_switch_work(&mut self) -> Result<bool, String> {
        let rounds = if self.random.chance(80_000) {
            64
        } else {
            1 + self.random.below(4)
        };
        for _ in 0..rounds {
            let Some(switch) = &mut self.switch else {
                return Ok(true);
            };
            for wires in &switch.wires {
                wires.set_first(self.random.below(24) as usize);
            }
            let before = switch.steps;
            let round = switch.round(&mut self.random, self.now, &self.disk, &self.files);
            let stepped = switch.steps - before;
            self.counts.steps += stepped;
            self.steps += stepped;
            if self.steps > STEPS_MAX {
                return Err(format!(
                    "{STEPS_MAX} duty cycles and no end: the switch goes round in circles"
                ));
            }
            self.collect_from_switch()?;
            match round {
                Round::Quiet => return Ok(true),
                Round::Busy => {}
                Round::Stopped => {
                    self.crash()?;
                    return Ok(true);
                }
                Round::Failed(error) => {
                    self.switch_failed(&error.to_string())?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn happen(&mut self, due: Due) -> Result<(), String> {
        match due {
            Due::ToSwitch { line, epoch, bytes } => self.arrive_at_switch(line, epoch, bytes),
            Due::ToParty { line, epoch, bytes } => {
                if self.lines[line].epoch == epoch {
                    let party = self.lines[line].party;
                    self.with_party(party, |party, turn| party.received(line, &bytes, turn))?;
                }
            }
            Due::EndAtSwitch { line, epoch, reset } => {
                if self.lines[line].epoch == epoch {
                    self.cut_line(line, reset);
                }
            }
            Due::GoneAtParty { line, epoch } => {
                if self.lines[line].epoch == epoch {
                    // One notice a connection.
                    self.lines[line].epoch += 1;
                    let party = self.lines[line].party;
                    self.parties[party].gone(line);
                    let at = self.now + self.random.below(2 * SECOND);
                    self.agenda.put(at, Due::Connect { line });
                }
            }
            Due::Connect { line } => self.connect(line),
            Due::Take { line, epoch } => self.take(line, epoch),
            Due::Wake { party, wake } => self.with_party(party, |party, turn| party.wake(wake, turn))?,
            Due::Fault => {
                if !self.healing {
                    self.fault()?;
                    self.plan_next_fault();
                }
            }
            Due::Orders => {
                if !self.healing {
                    self.operators_order()?;
                    self.plan_next_orders();
                }
            }
            Due::Start => self.start_switch()?,
            Due::GoOn => {}
            Due::Crash => {
                if !self.healing {
                    self.plan_crash();
                }
            }
            Due::OperatorLooks => self.operator_looks()?,
            Due::FilesHaveRoom => self.files.set_full(false),
            Due::Refill => self.set_dry(false),
            Due::StopInOrder => {
                self.stops_due -= 1;
                self.stop_in_order()?;
            }
            Due::SpaceAgain => self
                .disk
                .set_full(false)
                .map_err(|error| format!("the disk: {error}"))?,
        }
        Ok(())
    }

    /// A participant's turn, and what it did.
    pub(super) fn with_party<R>(&mut self, party: usize, turn_of: impl FnOnce(&mut Party, &mut Turn<'_>) -> R) -> R {
        let mut turn = Turn {
            now: self.now,
            random: &mut self.random,
            habits: self.plan.habits,
            healing: self.healing,
            at_rest: self.at_rest,
            hold_ns: self.hold_ns,
            lies: 0,
            acts: Vec::new(),
        };
        let result = turn_of(&mut self.parties[party], &mut turn);
        let (acts, lies) = (turn.acts, turn.lies);
        self.counts.lies += lies;
        for act in acts {
            match act {
                Act::Send { line, bytes } => {
                    let now = self.now;
                    self.parties[party].said(line, now);
                    self.party_sends(line, &bytes);
                }
                Act::Wake { at, wake } => self.agenda.put(at, Due::Wake { party, wake }),
                Act::Close { line, reset } => {
                    let epoch = self.lines[line].epoch;
                    self.agenda.put(self.now + 1, Due::EndAtSwitch { line, epoch, reset });
                }
            }
        }
        result
    }

    pub(super) fn place(&self, line: usize, epoch: u32) -> Place {
        let party = self.lines[line].party;
        let terms = &self.directory.participants[party].terms;
        let shortest = terms.expiry_pull_ns.min(terms.expiry_push_ns);
        Place {
            party: self.parties[party].index,
            line,
            epoch,
            now: self.now,
            in_flight_max: self.parties[party].contract_of(line),
            patience_ns: shortest.saturating_sub(terms.wait_ns),
            is_blameless: self.parties[party].is_blameless(),
        }
    }

    /// The faults are over: everybody does what is right, and soon.
    fn heal(&mut self) -> Result<(), String> {
        self.healing = true;
        self.note(|| "the faults are over".to_owned());
        self.disk.set_next(NextWrite::Made);
        self.files.heal();
        if let Some(switch) = &mut self.switch {
            switch.hold_none();
            switch.stops_in = None;
        }
        self.set_dry(false);
        self.disk
            .set_full(false)
            .map_err(|error| format!("the disk: {error}"))?;
        for line in 0..self.lines.len() {
            let here = &mut self.lines[line];
            if std::mem::take(&mut here.stalled_until) > 0 {
                let epoch = here.epoch;
                self.agenda.put(self.now, Due::Take { line, epoch });
            }
        }
        for party in 0..self.parties.len() {
            self.with_party(party, |party, turn| {
                if let Trade::Institution(institution) = &mut party.trade {
                    institution.heal(turn);
                }
            });
        }
        Ok(())
    }
}
