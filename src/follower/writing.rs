//! What the follower writes beside the register's runs: snapshots, what retention may know, sealed days.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::agent::{Follower, Ledger, OF_SNAPSHOTS, PAUSE_NS};
use super::counters::FollowerCounters;
#[cfg(test)]
use super::fault;
use super::parts::Trouble;
use crate::domain::{BusinessDate, SECOND, UtcNanos};
use crate::register::RegisterCoverage;
use crate::snapshot::SnapshotPoint;
use crate::wire::{DaySealedEvent, Intake};

/// Records merged per duty cycle.
const RECORDS_PER_CYCLE: usize = 4_096;
/// How often it looks whether a day is over.
const DAYS_ROUND_NS: u64 = SECOND;
/// A sealed day that the engine did not take is proposed again this much later.
const PROPOSAL_NS: u64 = 600 * SECOND;
/// Days kept beyond the setting: files are removed when nobody, by any clock, can still ask for them.
const DAYS_MARGIN: u64 = 2;

impl Follower {
    pub(super) fn take_snapshot_if_due(&mut self, now: UtcNanos) -> Result<usize, Trouble> {
        let due =
            |ledger: &Ledger| ledger.engine.breach().is_none() && ledger.schedule.is_due(now, ledger.reader.position());
        if now < self.snapshot_after || !self.ledger.as_ref().is_some_and(due) {
            return Ok(0);
        }
        let taken = self.take_snapshot(now);
        self.parts.counters.snapshot_underway.store(false, Ordering::Relaxed);
        match taken {
            Ok(()) => self.has_passed(OF_SNAPSHOTS),
            // Only the snapshot is put off: what waits for look-ups does not wait for room on the disk.
            Err(trouble) if trouble.passes() => {
                self.snapshot_after = now.plus(PAUSE_NS);
                self.complain(OF_SNAPSHOTS, &trouble);
                return Ok(0);
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(1)
    }

    pub(super) fn take_snapshot(&mut self, now: UtcNanos) -> Result<(), Trouble> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        // A breach is found where it happens and not kept: a start must come by it again.
        if ledger.engine.breach().is_some() {
            return Ok(());
        }
        let started = Instant::now();
        self.parts.counters.snapshot_underway.store(true, Ordering::Relaxed);
        let position = ledger.reader.position();
        #[cfg(test)]
        let flushes = !fault::gets_wrong(fault::Fault::SnapshotWithoutFlush);
        #[cfg(not(test))]
        let flushes = true;
        if flushes {
            ledger.register.flush()?;
        }
        ledger.spool.sync()?;
        let point = SnapshotPoint {
            start: ledger.reader.here(),
            state: ledger.engine.state_hash(),
        };
        let coverage: RegisterCoverage = ledger.register.coverage();
        let engine = &ledger.engine;
        let bytes = self
            .parts
            .snapshots
            .write(&point, &coverage, |mut out| engine.save(&mut out))?;
        ledger.schedule.taken(now, position, bytes);
        let took_ms = started.elapsed().as_millis() as u64;
        let counters = &self.parts.counters;
        FollowerCounters::add(&counters.snapshots, 1);
        FollowerCounters::set(&counters.snapshot_event, point.event());
        FollowerCounters::set(&counters.snapshot_bytes, bytes);
        FollowerCounters::set(&counters.snapshot_ms, took_ms);
        tracing::info!(event = point.event(), bytes, ms = took_ms, "took a snapshot");
        let kept_from = self.first_day_kept(now).day_number().saturating_sub(DAYS_MARGIN);
        if let Some(ledger) = &mut self.ledger {
            ledger.register.expire(BusinessDate::from_day_number(kept_from))?;
        }
        self.tell_retention()?;
        self.tell_register();
        Ok(())
    }

    /// Says from where on the journal must be kept: with one good snapshot only, all of it.
    pub(super) fn tell_retention(&mut self) -> Result<(), Trouble> {
        let kept = self.parts.snapshots.prune()?;
        let superblock = &self.parts.superblock;
        for place in superblock.facts().snapshots.into_iter().flatten() {
            if !kept.iter().any(|point| point.start == place) {
                superblock.forget_snapshot(place)?;
            }
        }
        for point in kept.iter().rev() {
            if !superblock.facts().snapshots.contains(&Some(point.start)) {
                superblock.add_snapshot(point.start)?;
            }
        }
        let needed_from = kept.get(1).map_or(0, |older| older.start.position);
        FollowerCounters::set(&self.parts.counters.needed_from, needed_from);
        let begins_behind = kept.get(1).map_or(0, |older| older.event());
        self.parts.spool_view.set_removable_below(begins_behind);
        Ok(())
    }

    pub(super) fn tell_register(&self) {
        if let Some(ledger) = &self.ledger {
            let (files, bytes) = ledger.register.disk_use();
            FollowerCounters::set(&self.parts.counters.register_files, files as u64);
            FollowerCounters::set(&self.parts.counters.register_bytes, bytes);
        }
    }

    /// Brings the days that are over into one file each, and then says so to the engines.
    pub(super) fn seal_days(&mut self, now: UtcNanos) -> Result<usize, Trouble> {
        if now < self.days_next {
            return Ok(0);
        }
        self.days_next = now.plus(DAYS_ROUND_NS);
        let Some(ledger) = &mut self.ledger else { return Ok(0) };
        let sealed = ledger.engine.sealed();
        ledger.days.extend(ledger.register.days());
        ledger.days.retain(|date| *date > sealed);
        let time = ledger.engine.time();
        let over = |date: &&BusinessDate| DaySealedEvent::new(**date).fits(time);
        let Some(&last) = ledger.days.iter().take_while(over).last() else {
            return Ok(0);
        };
        let mut all = true;
        for &date in ledger.days.range(..=last) {
            all &= ledger.register.seal(date)?;
        }
        let proposed = self
            .sealing
            .is_some_and(|(date, at)| date == last && now.since(at) < PROPOSAL_NS);
        if !all || proposed {
            return Ok(0);
        }
        if self
            .parts
            .priority
            .push(Intake::DaySealed(DaySealedEvent::new(last)))
            .is_err()
        {
            return Ok(0);
        }
        self.parts.priority.notify();
        self.sealing = Some((last, now));
        tracing::info!(
            date = last.to_string(),
            "the day's register is complete: told the engine to seal it"
        );
        Ok(1)
    }

    pub(super) fn merge(&mut self) -> Result<usize, Trouble> {
        let Some(ledger) = &mut self.ledger else { return Ok(0) };
        let worked = ledger.register.work(RECORDS_PER_CYCLE)?;
        if worked {
            self.tell_register();
        }
        Ok(usize::from(worked))
    }
}
