//! The follower's agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::counters::FollowerCounters;
use super::outlet::Filing;
use super::schedule::SnapshotSchedule;
use super::words::Spans;
use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, RETRY_PAUSE, Ring, SwitchClock};
use crate::clearing::{Engine, Event, StateMark};
use crate::config::FollowerSettings;
use crate::domain::{BusinessDate, SECOND, UtcNanos};
use crate::journal::{JournalError, JournalReader, JournalSource, JournalStart, Positions, Superblock};
use crate::register::{DayRegister, RegisterCoverage, RegisterError, RegisterOptions};
use crate::snapshot::{SnapshotError, SnapshotPoint, SnapshotStore};
use crate::wire::{
    DaySealedEvent, Effect, EffectFrame, FindingEvent, Intake, LookUp, Query, RecordKind, unknown_payment,
};

/// Events applied per duty cycle.
const EVENTS_PER_CYCLE: usize = 4_096;
/// Records merged per duty cycle.
const RECORDS_PER_CYCLE: usize = 4_096;
/// How often it looks whether the live engine has gone on, when nobody asks for anything.
const ROUND: Duration = Duration::from_millis(50);
/// After what the system refused it tries again this much later.
const PAUSE_NS: u64 = SECOND;
/// How often it looks whether a day is over.
const DAYS_ROUND_NS: u64 = SECOND;
/// A sealed day that the engine did not take is proposed again this much later.
const PROPOSAL_NS: u64 = 600 * SECOND;
/// Days kept beyond the setting: files are removed when nobody, by any clock, can still ask for them.
const DAYS_MARGIN: u64 = 2;
/// The longest it catches up when the switch is stopped in order.
const CLOSING_MAX: Duration = Duration::from_secs(3);

/// Places in [`Follower::troubles`].
const OF_FOLLOWING: usize = 0;
const OF_SNAPSHOTS: usize = 1;

/// A question to the register that is not an event.
#[derive(Clone, Copy, Debug)]
pub struct RegisterQuery {
    /// The event that the live engine had applied last when it could not answer.
    pub after: u64,
    /// The question.
    pub query: Query,
}

/// What the follower is made of.
pub struct FollowerParts {
    /// The running journal.
    pub source: JournalSource,
    /// How far the live engine is.
    pub positions: Arc<Positions>,
    /// The snapshots.
    pub snapshots: SnapshotStore,
    /// The snapshot that the live engine began with; `None`: with the journal's beginning.
    pub began_with: Option<PathBuf>,
    /// Snapshots that the start could not use.
    pub unusable: Vec<PathBuf>,
    /// Where the snapshots' places are kept.
    pub superblock: Arc<Superblock>,
    /// The register.
    pub register: RegisterOptions,
    /// How it is set.
    pub settings: FollowerSettings,
    /// From clearing: what events wait for.
    pub look_ups: Arc<Ring<LookUp>>,
    /// From clearing: what it can't answer.
    pub queries: Arc<Ring<RegisterQuery>>,
    /// From clearing: what the state was.
    pub marks: Arc<Ring<StateMark>>,
    /// To the sequencer.
    pub findings: Arc<Ring<FindingEvent>>,
    /// To the sequencer.
    pub priority: Arc<Ring<Intake>>,
    /// To dispatch.
    pub effects: Arc<Ring<Effect>>,
    /// Closed when the two engines differ.
    pub gate: Arc<IntakeGate>,
    /// The clock.
    pub clock: SwitchClock,
    /// What it tells about itself.
    pub counters: Arc<FollowerCounters>,
}

/// Why the follower can't go on now, or ever.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    #[error(
        "after event {event} the live engine's state is not the one that the same events give a second time (they agreed \
         last after event {agreed}): intake is stopped, inquiries are still answered; call the operator on duty, and hold \
         the journal against `clearway journal replay` before anything is settled"
    )]
    Differs { event: u64, agreed: u64 },
}

impl Trouble {
    /// True when it may be over by itself: the disk was full, a file could not be opened.
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::Register(RegisterError::System { .. })
                | Self::Snapshot(SnapshotError::System { .. })
                | Self::Journal(JournalError::System { .. })
        )
    }
}

/// The second engine and what it writes.
struct Ledger {
    engine: Engine,
    reader: JournalReader,
    register: DayRegister,
    schedule: SnapshotSchedule,
    /// Days of which payments were filed and that are not sealed yet.
    days: BTreeSet<BusinessDate>,
}

/// The follower.
pub struct Follower {
    parts: FollowerParts,
    ledger: Option<Ledger>,
    look_ups: BTreeMap<u64, LookUp>,
    queries: VecDeque<RegisterQuery>,
    spans: Spans,
    marks: VecDeque<StateMark>,
    agreed: u64,
    findings: VecDeque<FindingEvent>,
    frames: VecDeque<EffectFrame>,
    sealing: Option<(BusinessDate, UtcNanos)>,
    days_next: UtcNanos,
    paused_until: UtcNanos,
    snapshot_after: UtcNanos,
    /// What it can't do at the moment: to follow and file, and to take snapshots.
    troubles: [Option<String>; 2],
    stopped: bool,
}

impl Follower {
    /// Puts the follower together; it reads its state when its thread first runs.
    #[must_use]
    pub fn new(parts: FollowerParts) -> Self {
        Self {
            parts,
            ledger: None,
            look_ups: BTreeMap::new(),
            queries: VecDeque::new(),
            spans: Spans::default(),
            marks: VecDeque::new(),
            agreed: 0,
            findings: VecDeque::new(),
            frames: VecDeque::new(),
            sealing: None,
            days_next: UtcNanos(0),
            paused_until: UtcNanos(0),
            snapshot_after: UtcNanos(0),
            troubles: [None, None],
            stopped: false,
        }
    }

    /// Begins where the live engine began: it must see every event that the register does not hold yet.
    fn begin(&mut self) -> Result<(), Trouble> {
        for path in std::mem::take(&mut self.parts.unusable) {
            self.parts.snapshots.set_aside(&path)?;
        }
        let parts = &self.parts;
        let now = parts.clock.now();
        let kept_from = self.first_day_kept(now);
        let (engine, register, start, bytes) = match &parts.began_with {
            Some(path) => {
                let loaded = parts.snapshots.load_engine(path)?;
                let register = DayRegister::open(&parts.register, &loaded.coverage, kept_from)?;
                (loaded.engine, register, loaded.point.start, loaded.bytes)
            }
            None => (
                Engine::new(),
                DayRegister::create(&parts.register)?,
                JournalStart::BEGINNING,
                0,
            ),
        };
        let began_with = start.next_event - 1;
        FollowerCounters::set(&parts.counters.began_with, began_with);
        FollowerCounters::set(&parts.counters.snapshot_event, began_with);
        FollowerCounters::set(&parts.counters.snapshot_bytes, bytes);
        let settings = &parts.settings;
        let mut schedule = SnapshotSchedule::new(
            settings.snapshot_every_s,
            settings.snapshot_journal_mib << 20,
            now,
            start.position,
        );
        schedule.taken(now, start.position, bytes);
        let days = register
            .days()
            .into_iter()
            .filter(|date| *date > engine.sealed())
            .collect();
        self.ledger = Some(Ledger {
            reader: parts.source.reader(&start)?,
            engine,
            register,
            schedule,
            days,
        });
        self.tell_retention()?;
        self.tell_register();
        Ok(())
    }

    fn first_day_kept(&self, now: UtcNanos) -> BusinessDate {
        let today = now.business_date().day_number();
        BusinessDate::from_day_number(today.saturating_sub(u64::from(self.parts.settings.register_days)))
    }

    fn take_questions(&mut self) -> usize {
        let mut taken = 0;
        while let Some(look_up) = self.parts.look_ups.pop() {
            self.look_ups.insert(look_up.event, look_up);
            taken += 1;
        }
        while let Some(query) = self.parts.queries.pop() {
            self.queries.push_back(query);
            taken += 1;
        }
        taken
    }

    /// Applies what the live engine has applied, and no more: its marks are there before.
    fn follow(&mut self) -> Result<usize, Trouble> {
        let applied = self.parts.positions.applied();
        while let Some(mark) = self.parts.marks.pop() {
            self.marks.push_back(mark);
        }
        let Some(ledger) = &mut self.ledger else { return Ok(0) };
        let mut followed = 0;
        while followed < EVENTS_PER_CYCLE && ledger.reader.position() < applied {
            // Before the event is taken: what could not be written is still in memory and can be written later.
            if ledger.register.is_full() {
                ledger.register.flush()?;
            }
            let Some(record) = ledger.reader.next()? else { break };
            let event = Event {
                kind: record.kind,
                number: record.number,
                time: record.time,
                position: record.position,
                payload: record.payload,
            };
            let mut filing = Filing {
                register: &mut ledger.register,
                time: record.time,
            };
            ledger.engine.apply(&event, &mut filing);
            followed += 1;
            if event.kind == RecordKind::Window {
                ledger.schedule.window_closed();
            }
            while let Some(mark) = self.marks.front() {
                if mark.event > event.number {
                    break;
                }
                if mark.event == event.number && *mark != ledger.engine.state_mark() {
                    return Err(Trouble::Differs {
                        event: mark.event,
                        agreed: self.agreed,
                    });
                }
                if mark.event == event.number {
                    self.agreed = mark.event;
                    FollowerCounters::add(&self.parts.counters.marks_agreed, 1);
                }
                self.marks.pop_front();
            }
        }
        if followed > 0 {
            FollowerCounters::set(&self.parts.counters.event, ledger.engine.event_number());
            FollowerCounters::set(&self.parts.counters.position, ledger.reader.position());
        }
        Ok(followed)
    }

    /// Answers what waits for events that have been passed.
    fn answer(&mut self) -> Result<usize, Trouble> {
        let Some(ledger) = &self.ledger else { return Ok(0) };
        let passed = ledger.engine.event_number();
        let mut work = 0;
        while let Some(entry) = self.look_ups.first_entry() {
            if *entry.key() > passed {
                break;
            }
            let found = ledger.register.payment(entry.get().id)?;
            self.findings
                .push_back(FindingEvent::new(entry.remove(), found.as_ref()));
            FollowerCounters::add(&self.parts.counters.look_ups, 1);
            work += 1;
        }
        while let Some(RegisterQuery { after, query }) = self.queries.front().copied() {
            if after > passed {
                break;
            }
            match query {
                Query::Inquiry {
                    link,
                    participant,
                    id,
                    reference,
                } => {
                    let answer = match ledger.register.payment(id)? {
                        Some(entry) => entry.inquiry_answer(participant, reference),
                        None => unknown_payment(id, reference),
                    };
                    self.frames.push_back(EffectFrame::new(participant, link, &answer));
                    FollowerCounters::add(&self.parts.counters.inquiries, 1);
                }
                Query::Words {
                    link,
                    participant,
                    from_word,
                    count,
                } => self.spans.add(participant, link, from_word, count.into()),
            }
            self.queries.pop_front();
            work += 1;
        }
        if self.frames.is_empty() && !self.spans.is_empty() {
            let frames = self.spans.next(&ledger.register)?;
            FollowerCounters::add(&self.parts.counters.words, frames.len() as u64);
            self.frames.extend(frames);
            work += 1;
        }
        Ok(work)
    }

    /// Hands over what there is room for: never ahead of live traffic.
    fn hand_over(&mut self) -> usize {
        let mut findings = 0;
        while let Some(&finding) = self.findings.front() {
            if self.parts.findings.push(finding).is_err() {
                break;
            }
            self.findings.pop_front();
            findings += 1;
        }
        if findings > 0 {
            self.parts.findings.notify();
        }
        let mut frames = 0;
        while let Some(&frame) = self.frames.front() {
            let effects = &self.parts.effects;
            if effects.free() < effects.capacity() / 2 || effects.push(Effect::Frame(frame)).is_err() {
                break;
            }
            self.frames.pop_front();
            frames += 1;
        }
        if frames > 0 {
            self.parts.effects.notify();
        }
        findings + frames
    }

    fn take_snapshot_if_due(&mut self, now: UtcNanos) -> Result<usize, Trouble> {
        let due = |ledger: &Ledger| ledger.schedule.is_due(now, ledger.reader.position());
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

    fn take_snapshot(&mut self, now: UtcNanos) -> Result<(), Trouble> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let started = Instant::now();
        self.parts.counters.snapshot_underway.store(true, Ordering::Relaxed);
        let position = ledger.reader.position();
        ledger.register.flush()?;
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
    fn tell_retention(&mut self) -> Result<(), Trouble> {
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
        Ok(())
    }

    fn tell_register(&self) {
        if let Some(ledger) = &self.ledger {
            let (files, bytes) = ledger.register.disk_use();
            FollowerCounters::set(&self.parts.counters.register_files, files as u64);
            FollowerCounters::set(&self.parts.counters.register_bytes, bytes);
        }
    }

    /// Brings the days that are over into one file each, and then says so to the engines.
    fn seal_days(&mut self, now: UtcNanos) -> Result<usize, Trouble> {
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

    fn merge(&mut self) -> Result<usize, Trouble> {
        let Some(ledger) = &mut self.ledger else { return Ok(0) };
        let worked = ledger.register.work(RECORDS_PER_CYCLE)?;
        if worked {
            self.tell_register();
        }
        Ok(usize::from(worked))
    }

    fn turn(&mut self, now: UtcNanos) -> Result<usize, Trouble> {
        if self.ledger.is_none() {
            self.begin()?;
        }
        let mut work = self.follow()?;
        work += self.answer()?;
        work += self.hand_over();
        work += self.take_snapshot_if_due(now)?;
        work += self.seal_days(now)?;
        work += self.merge()?;
        self.has_passed(OF_FOLLOWING);
        Ok(work)
    }

    /// Says what it can't do, once.
    fn complain(&mut self, of: usize, trouble: &Trouble) {
        let told = self.troubles[of].replace(trouble.to_string());
        if told != self.troubles[of] {
            tracing::error!("follower: {trouble}");
        }
        self.tell_troubles();
    }

    fn has_passed(&mut self, of: usize) {
        if self.troubles[of].take().is_some() {
            tracing::info!("the follower goes on");
            self.tell_troubles();
        }
    }

    fn tell_troubles(&self) {
        self.parts
            .counters
            .set_trouble(self.troubles.iter().flatten().next().cloned());
    }

    /// Waits, or stops for good; the live engine goes on in either case, but for a difference between the two.
    fn meet(&mut self, trouble: &Trouble, now: UtcNanos) {
        self.complain(OF_FOLLOWING, trouble);
        if trouble.passes() {
            self.paused_until = now.plus(PAUSE_NS);
            return;
        }
        self.stopped = true;
        if matches!(trouble, Trouble::Differs { .. }) {
            self.parts.gate.close(IntakeState::Broken);
        } else {
            tracing::error!(
                "the follower has stopped: payments go on, but there are no snapshots any more, and what concerns payments \
                 that have left memory waits until the switch is started again"
            );
        }
    }
}

impl Agent for Follower {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let taken = self.take_questions();
        let now = self.parts.clock.now();
        if self.stopped {
            return Ok(taken);
        }
        let turn = if now < self.paused_until {
            // What is on file can be told all the same.
            self.answer().map(|work| work + self.hand_over())
        } else {
            self.turn(now)
        };
        match turn {
            Ok(work) => Ok(work + taken),
            Err(trouble) => {
                self.meet(&trouble, now);
                Ok(taken)
            }
        }
    }

    fn on_close(&mut self) {
        let started = Instant::now();
        let mut caught_up = false;
        while !self.stopped && !caught_up && started.elapsed() < CLOSING_MAX {
            match self.follow() {
                Ok(followed) => caught_up = followed == 0,
                Err(trouble) => {
                    self.meet(&trouble, self.parts.clock.now());
                    return;
                }
            }
        }
        // The next start then has nothing to replay.
        let due = |ledger: &Ledger| ledger.schedule.is_due(UtcNanos::NEVER, ledger.reader.position());
        if caught_up && self.ledger.as_ref().is_some_and(due) {
            let now = self.parts.clock.now();
            if let Err(trouble) = self.take_snapshot(now) {
                self.meet(&trouble, now);
            }
        }
    }

    fn role_name(&self) -> &str {
        "follower"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        if self.stopped {
            return None;
        }
        let waits = !self.findings.is_empty() || !self.frames.is_empty();
        Some(if waits { RETRY_PAUSE } else { ROUND })
    }
}
