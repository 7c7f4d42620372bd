//! The world: time, what is due, the faults, and the switch among them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::Counts;
use super::disk::{Disk, NextWrite};
use super::events::{Agenda, Due, EventLog};
use super::faults::Fault;
use super::line::Line;
use super::party::{Act, Party, Trade, Turn, Wake};
use super::plan::Plan;
use super::stepping::{Round, Switch};
use super::witness::{Place, Witness};
use crate::agent::ManualTime;
use crate::config::Directory;
use crate::domain::SECOND;
use crate::sim::Random;
use crate::snapshot::SnapshotStore;
use crate::switch::{FinalLedger, SwitchError};

/// The longest a run may take to come to rest once the faults are over, simulated.
const REST_NS_MAX: u64 = 400 * SECOND;
/// Duty cycles after which a run is taken to go round in circles.
const STEPS_MAX: u64 = 20_000_000;

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) directory: Arc<Directory>,
    pub(super) data: tempfile::TempDir,
    pub(super) disk: Arc<Disk>,
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
        let end = self.now + self.plan.span_ns;
        while self.now < end {
            self.moment(end)?;
        }
        self.heal()?;
        let end = self.now + REST_NS_MAX;
        // A stop that was begun among the faults may still drain.
        while !self.is_at_rest() || self.stops_due > 0 || self.switch.is_none() {
            if self.now >= end {
                return Err(format!("no rest after the faults were over: {}", self.what_is_open()));
            }
            self.moment(end)?;
        }
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
            let round = switch.round(&mut self.random, self.now, &self.disk);
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
            Due::Start => self.start_switch()?,
            Due::GoOn => {}
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

    // ---- the switch's life ---------------------------------------------------------------------------------------

    fn start_switch(&mut self) -> Result<(), String> {
        if self.switch.is_some() {
            return Ok(());
        }
        self.witness.starts += 1;
        self.disk
            .set_full(false)
            .map_err(|error| format!("the disk: {error}"))?;
        let newest = self.newest_snapshot()?;
        match Switch::start(&self.plan, &self.directory, self.data.path(), &self.time, &self.disk) {
            Ok(switch) => {
                self.disk.is_recovered();
                let recovery = switch.recovered().clone();
                let began_with = switch.began_with();
                self.counts.starts_from_snapshot += u64::from(began_with > 0);
                self.counts.starts_fallen_back += u64::from(newest.is_some_and(|newest| began_with < newest));
                self.note(|| {
                    format!(
                        "the switch starts behind event {} from a snapshot of event {began_with}, {:?}",
                        recovery.last_event, recovery.messages
                    )
                });
                self.switch = Some(switch);
                self.crash_soon_after_start();
                self.start_on_a_full_disk()?;
                self.check_recovered()
            }
            // The wall clock was set back by more than the switch follows: an operator sets it right.
            Err(SwitchError::Unfit(what)) if what.contains("ahead of this host's UTC") => {
                self.note(|| format!("not started: {what}"));
                let away = self.time.wall_ns() as i64 - self.now as i64;
                self.time.step_wall(-away);
                let again = self.now + SECOND + self.random.below(20 * SECOND);
                self.agenda.put(again, Due::Start);
                Ok(())
            }
            Err(error) => Err(format!("the switch does not start: {error}")),
        }
    }

    /// The event of the newest snapshot on the disk, good or not.
    fn newest_snapshot(&self) -> Result<Option<u64>, String> {
        let store = SnapshotStore::new(self.data.path().join("snapshots"), [0; 16]);
        let list = store
            .list()
            .map_err(|error| format!("the snapshots can't be listed: {error}"))?;
        Ok(list.first().map(|newest| newest.event))
    }

    /// The machine stops.
    fn crash(&mut self) -> Result<(), String> {
        let torn = self
            .disk
            .tear(&mut self.random)
            .map_err(|error| format!("the disk: {error}"))?;
        if torn.starts_with("0 sectors kept, 0 dropped, 0 torn") {
            self.counts.crashes += 1;
        } else {
            self.counts.crashes_in_write += 1;
        }
        self.note(|| format!("the machine stops; of the last write {torn}"));
        if self.random.chance(10_000) {
            let left = self
                .disk
                .set_full(false)
                .and_then(|()| self.disk.leave_unfinished(&mut self.random));
            left.map_err(|error| format!("the disk: {error}"))?;
        }
        self.switch_is_gone()
    }

    /// A stage gave up: right after a durable write that failed, and never else.
    fn switch_failed(&mut self, error: &str) -> Result<(), String> {
        if !error.contains("the rehearsal's disk") {
            return Err(format!("a stage failed: {error}"));
        }
        self.counts.writes_failed += 1;
        self.note(|| format!("a stage failed, as it must: {error}"));
        if self.switch.as_ref().is_some_and(Switch::is_open) {
            return Err("a durable write failed and payments are still taken".to_owned());
        }
        // Until the daemon notices, the other stages run on: nothing more may become durable or be told.
        for _ in 0..self.random.below(4) {
            if let Some(switch) = &mut self.switch
                && let Round::Failed(again) = switch.round(&mut self.random, self.now, &self.disk)
                && !again.to_string().contains("a durable write failed earlier")
            {
                return Err(format!("a stage failed: {again}"));
            }
            self.collect_from_switch()?;
        }
        let torn = self
            .disk
            .tear(&mut self.random)
            .map_err(|error| format!("the disk: {error}"))?;
        self.note(|| format!("the switch ends; of the last write {torn}"));
        self.switch_is_gone()
    }

    /// The switch is told to stop, has drained for a while, and ends.
    fn stop_in_order(&mut self) -> Result<(), String> {
        let Some(switch) = &mut self.switch else { return Ok(()) };
        let Some(ledger) = switch.close() else {
            return Err("clearing left no ledger".to_owned());
        };
        self.note(|| format!("the switch ends in order at event {}", ledger.snapshot.event_number));
        self.counts.stops += 1;
        self.collect_from_switch()?;
        self.check_replay(&ledger)?;
        self.switch_is_gone()
    }

    fn switch_is_gone(&mut self) -> Result<(), String> {
        self.count_followed();
        let ledger = self.switch.take().and_then(Switch::stop_dead);
        self.disk.set_next(NextWrite::Made);
        self.strangers.clear();
        if let Some(copy) = self.copy.take() {
            self.disk
                .put_back(&copy)
                .map_err(|error| format!("the disk: {error}"))?;
        }
        self.witness.crashed();
        for line in 0..self.lines.len() {
            if self.lines[line].connection.is_some() {
                self.line_is_gone(line);
            }
        }
        self.holders.iter_mut().for_each(|agent| agent.fill(None));
        if let Some(ledger) = ledger {
            self.check_replay(&ledger)?;
        }
        if self.random.chance(30_000) {
            let span = 10 * SECOND as i64;
            let nanos = self.random.below(2 * span as u64) as i64 - span;
            if self
                .plan
                .faults
                .weights
                .iter()
                .any(|(fault, _)| *fault == Fault::WallStep)
            {
                self.counts.wall_steps += 1;
                self.time.step_wall(nanos);
            }
        }
        let longest = if self.random.chance(80_000) {
            SECOND
        } else {
            90 * SECOND
        };
        let down = self.random.below(longest);
        self.agenda.put(self.now + 1 + down, Due::Start);
        Ok(())
    }

    /// Adds what this life's follower has done.
    pub(super) fn count_followed(&mut self) {
        if let Some(switch) = &self.switch {
            let [look_ups, answers, snapshots] = switch.followed();
            self.counts.look_ups += look_ups;
            self.counts.register_answers += answers;
            self.counts.snapshots += snapshots;
        }
    }

    /// Replay must come to the state that the ledger was in when the machine stopped.
    fn check_replay(&mut self, ledger: &FinalLedger) -> Result<(), String> {
        let number = ledger.snapshot.event_number;
        let journal = self.data.path().join("journal");
        let replayed = crate::switch::replay(&journal, Some(number), |_| {})
            .map_err(|error| format!("the journal can't be replayed after a crash: {error}"))?;
        if replayed.event_number != number || replayed.hash != ledger.hash {
            return Err(format!(
                "invariant 8: the ledger stood at event {number} with state {}, replay comes to event {} with {}",
                ledger.hash, replayed.event_number, replayed.hash
            ));
        }
        Ok(())
    }

    // ---- the end -------------------------------------------------------------------------------------------------

    /// The faults are over: everybody does what is right, and soon.
    fn heal(&mut self) -> Result<(), String> {
        self.healing = true;
        self.note(|| "the faults are over".to_owned());
        self.disk.set_next(NextWrite::Made);
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
