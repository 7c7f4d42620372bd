//! The follower's agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::FollowerCounters;
#[cfg(test)]
use super::fault;
use super::outlet::Filing;
use super::parts::{FollowerParts, RegisterQuery, Trouble};
use super::schedule::SnapshotSchedule;
use super::words::Spans;
use crate::agent::{Agent, AgentError, IntakeState, RETRY_PAUSE};
use crate::clearing::{Engine, Event, StateMark};
use crate::domain::{BusinessDate, SECOND, UtcNanos};
use crate::journal::{JournalReader, JournalStart};
use crate::register::DayRegister;
use crate::settlement::SpoolWriter;
use crate::wire::{Effect, EffectFrame, FindingEvent, LookUp, Query, RecordKind, not_looked_up, unknown_payment};

/// Events applied per duty cycle.
const EVENTS_PER_CYCLE: usize = 4_096;
/// How often it looks whether the live engine has gone on, when nobody asks for anything.
const ROUND: Duration = Duration::from_millis(50);
/// After what the system refused it tries again this much later.
pub(super) const PAUSE_NS: u64 = SECOND;
/// The longest it catches up when the switch is stopped in order.
const CLOSING_MAX: Duration = Duration::from_secs(3);

/// Places in [`Follower::troubles`].
const OF_FOLLOWING: usize = 0;
pub(super) const OF_SNAPSHOTS: usize = 1;
const OF_READING: usize = 2;
/// Look-ups and inquiries answered in a duty cycle, which follows so many events ([`EVENTS_PER_CYCLE`]) at the most: however
/// many questions come, it does not fall behind for them.
const QUESTIONS_PER_CYCLE: usize = 64;

/// The second engine and what it writes.
pub(super) struct Ledger {
    pub(super) engine: Engine,
    pub(super) reader: JournalReader,
    pub(super) register: DayRegister,
    pub(super) spool: SpoolWriter,
    pub(super) schedule: SnapshotSchedule,
    /// Days of which payments were filed and that are not sealed yet.
    pub(super) days: BTreeSet<BusinessDate>,
}

/// The follower.
pub struct Follower {
    pub(super) parts: FollowerParts,
    pub(super) ledger: Option<Ledger>,
    pub(super) look_ups: BTreeMap<u64, LookUp>,
    pub(super) queries: VecDeque<RegisterQuery>,
    pub(super) spans: Spans,
    pub(super) marks: VecDeque<StateMark>,
    pub(super) agreed: u64,
    pub(super) findings: VecDeque<FindingEvent>,
    pub(super) frames: VecDeque<EffectFrame>,
    pub(super) sealing: Option<(BusinessDate, UtcNanos)>,
    pub(super) days_next: UtcNanos,
    pub(super) paused_until: UtcNanos,
    pub(super) snapshot_after: UtcNanos,
    /// Look-ups of what could not be read.
    unread: Vec<LookUp>,
    /// True when words could not be read.
    words_unread: bool,
    /// A file of the register was found damaged: that is said until somebody sees to it and the switch starts again.
    damaged: bool,
    /// A file of the register that was missing when it was asked for.
    lost: Option<PathBuf>,
    /// Until then what could not be read is not tried again.
    unread_until: UtcNanos,
    /// What it can't do at the moment: to follow and file, to take snapshots, to read the register.
    troubles: [Option<String>; 3],
    pub(super) stopped: bool,
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
            unread: Vec::new(),
            words_unread: false,
            damaged: false,
            lost: None,
            unread_until: UtcNanos(0),
            troubles: [None, None, None],
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
        let spool = SpoolWriter::open(parts.spool.clone(), Arc::clone(&parts.spool_view), &engine)?;
        self.ledger = Some(Ledger {
            reader: parts.source.reader(&start)?,
            spool,
            engine,
            register,
            schedule,
            days,
        });
        self.tell_retention()?;
        self.tell_register();
        Ok(())
    }

    pub(super) fn first_day_kept(&self, now: UtcNanos) -> BusinessDate {
        let today = now.business_date().day_number();
        BusinessDate::from_day_number(today.saturating_sub(u64::from(self.parts.settings.register_days)))
    }

    fn take_questions(&mut self) -> usize {
        let mut taken = 0;
        while let Some(look_up) = self.parts.look_ups.pop() {
            self.look_ups.insert(look_up.event, look_up);
            taken += 1;
        }
        // What is not taken fills the ring, and who asks then is told to come again.
        while self.queries.len() < self.parts.queries.capacity()
            && let Some(query) = self.parts.queries.pop()
        {
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
            if ledger.spool.is_pressing() {
                ledger.spool.flush()?;
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
                spool: &mut ledger.spool,
                time: record.time,
            };
            filing.spool.begin_event(record.number, record.time);
            ledger.engine.apply(&event, &mut filing);
            ledger.spool.after_event(event.kind, &ledger.engine);
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
        // A window that has closed is settled without waiting for another event.
        if ledger.spool.is_pressing() {
            ledger.spool.flush()?;
        }
        if followed > 0 {
            FollowerCounters::set(&self.parts.counters.event, ledger.engine.event_number());
            FollowerCounters::set(&self.parts.counters.position, ledger.reader.position());
        }
        Ok(followed)
    }

    /// Answers what waits for events that have been passed. What can't be read now is put aside and tried again later:
    /// nobody else waits for it, and never is it answered that there was no such payment.
    fn answer(&mut self, now: UtcNanos) -> usize {
        let Some(ledger) = &self.ledger else { return 0 };
        let passed = ledger.engine.event_number();
        #[cfg(test)]
        let passed = if fault::gets_wrong(fault::Fault::AnswerTooEarly) {
            u64::MAX
        } else {
            passed
        };
        let tries_again = now >= self.unread_until;
        if tries_again {
            let again = self.unread.drain(..).map(|look_up| (look_up.event, look_up));
            self.look_ups.extend(again);
        }
        let (mut work, mut refused) = (0, None);
        while work < QUESTIONS_PER_CYCLE
            && let Some(entry) = self.look_ups.first_entry()
        {
            if *entry.key() > passed {
                break;
            }
            work += 1;
            match ledger.register.payment(entry.get().id) {
                Ok(found) => {
                    self.findings
                        .push_back(FindingEvent::new(entry.remove(), found.as_ref()));
                    FollowerCounters::add(&self.parts.counters.look_ups, 1);
                }
                Err(error) => {
                    self.unread.push(entry.remove());
                    refused = Some(error);
                }
            }
        }
        let questions_end = work + QUESTIONS_PER_CYCLE;
        while work < questions_end
            && let Some(RegisterQuery { after, query }) = self.queries.front().copied()
        {
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
                    let answer = match ledger.register.payment(id) {
                        Ok(Some(entry)) => entry.inquiry_answer(participant, reference),
                        Ok(None) => unknown_payment(id, reference),
                        Err(error) => {
                            refused = Some(error);
                            not_looked_up(id, reference)
                        }
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
        if self.frames.is_empty() && !self.spans.is_empty() && (tries_again || !self.words_unread) {
            match self.spans.next(&ledger.register) {
                Ok(frames) => {
                    #[cfg(test)]
                    let frames = {
                        let mut frames = frames;
                        fault::spoil_words(&mut frames);
                        frames
                    };
                    self.words_unread = false;
                    FollowerCounters::add(&self.parts.counters.words, frames.len() as u64);
                    self.frames.extend(frames);
                    work += 1;
                }
                Err(error) => {
                    self.words_unread = true;
                    refused = Some(error);
                }
            }
        }
        if let Some(error) = refused {
            let trouble = Trouble::Register(error);
            self.unread_until = now.plus(PAUSE_NS);
            self.damaged |= !trouble.passes();
            self.lost = trouble.lost_file().map(Path::to_owned).or(self.lost.take());
            self.complain(OF_READING, &trouble);
        } else if !self.damaged
            && self.lost.as_ref().is_none_or(|file| file.exists())
            && self.unread.is_empty()
            && !self.words_unread
            && now >= self.unread_until
        {
            self.lost = None;
            self.has_passed(OF_READING);
        }
        work
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

    fn turn(&mut self, now: UtcNanos) -> Result<usize, Trouble> {
        if self.ledger.is_none() {
            self.begin()?;
        }
        let mut work = self.follow()?;
        work += self.answer(now);
        work += self.hand_over();
        work += self.take_snapshot_if_due(now)?;
        work += self.seal_days(now)?;
        work += self.merge()?;
        self.has_passed(OF_FOLLOWING);
        Ok(work)
    }

    /// Says what it can't do, once.
    pub(super) fn complain(&mut self, of: usize, trouble: &Trouble) {
        let told = self.troubles[of].replace(trouble.to_string());
        if told != self.troubles[of] {
            tracing::error!("follower: {trouble}");
        }
        self.tell_troubles();
    }

    pub(super) fn has_passed(&mut self, of: usize) {
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
        if self.stopped {
            return Ok(0);
        }
        let taken = self.take_questions();
        let now = self.parts.clock.now();
        let turn = if now < self.paused_until {
            // What is on file can be told all the same.
            Ok(self.answer(now) + self.hand_over())
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
