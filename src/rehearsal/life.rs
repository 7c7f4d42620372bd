//! The switch's life: how it starts, and all the ways in which it ends.

use super::disk::NextWrite;
use super::events::Due;
use super::faults::Fault;
use super::stepping::{Round, Switch};
use super::world::World;
use crate::domain::SECOND;
use crate::snapshot::SnapshotStore;
use crate::switch::{FinalLedger, SwitchError};

impl World {
    pub(super) fn start_switch(&mut self) -> Result<(), String> {
        if self.switch.is_some() {
            return Ok(());
        }
        self.witness.starts += 1;
        self.disk
            .set_full(false)
            .map_err(|error| format!("the disk: {error}"))?;
        let newest = self.newest_snapshot()?;
        match Switch::start(self) {
            Ok(switch) => {
                self.disk.is_recovered();
                let recovery = switch.recovered().clone();
                let began_with = switch.began_with();
                self.counts.starts_from_snapshot += u64::from(began_with > 0);
                let fell_back = newest.is_some_and(|newest| began_with < newest);
                if fell_back && !self.operator.has_spoiled_files() {
                    return Err(format!(
                        "the start does not use the newest snapshot, of event {newest:?}, and nothing was done to it"
                    ));
                }
                self.counts.starts_fallen_back += u64::from(fell_back);
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

    /// Of the register and the snapshots only what was on stable storage is sure to be left; true when the machine stopped
    /// while they were being changed.
    fn tear_files(&mut self) -> Result<bool, String> {
        let within = self.files.has_stopped();
        let torn = self.files.tear(&mut self.random);
        let torn = torn.map_err(|error| format!("the files: {error}"))?;
        self.note(|| torn);
        Ok(within)
    }

    /// The machine stops.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        let torn = self
            .disk
            .tear(&mut self.random)
            .map_err(|error| format!("the disk: {error}"))?;
        let files = self.tear_files()?;
        if files {
            self.counts.crashes_in_file += 1;
        } else if torn.starts_with("0 sectors kept, 0 dropped, 0 torn") {
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
    pub(super) fn switch_failed(&mut self, error: &str) -> Result<(), String> {
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
                && let Round::Failed(again) = switch.round(&mut self.random, self.now, &self.disk, &self.files)
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
    pub(super) fn stop_in_order(&mut self) -> Result<(), String> {
        let Some(switch) = &mut self.switch else { return Ok(()) };
        let Some(ledger) = switch.close() else {
            return Err("clearing left no ledger".to_owned());
        };
        self.note(|| format!("the switch ends in order at event {}", ledger.snapshot.event_number));
        self.counts.stops += 1;
        if self.files.has_stopped() {
            self.counts.crashes_in_file += 1;
            self.tear_files()?;
        }
        self.collect_from_switch()?;
        self.check_replay(&ledger)?;
        self.switch_is_gone()
    }

    fn switch_is_gone(&mut self) -> Result<(), String> {
        self.count_followed();
        self.files.process_ends();
        let ledger = self.switch.take().and_then(Switch::stop_dead);
        self.disk.set_next(NextWrite::Made);
        self.operator_sees_to_files()?;
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
            self.counts.ends_while_parked += u64::from(ledger.figures.parked > 0);
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
}
