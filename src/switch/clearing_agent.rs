//! The clearing stage: feeds the engine the durable events and hands its effects to dispatch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::replay::event_of;
use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, RETRY_PAUSE, Ring, Wakeup};
use crate::clearing::{Engine, Figures, LedgerSnapshot, Outlet, Recalled, StateHash, StateMark};
use crate::domain::{LinkId, ParticipantIndex};
use crate::follower::{FollowerCounters, RegisterQuery};
use crate::housekeeping::{CoverAlarm, Ordered, SnapshotDesk, StewardView, Tiding};
use crate::journal::{Positions, TailReader};
use crate::sequencer::LedgerPulse;
use crate::wire::{
    Answer, ClosedWindow, Effect, EffectFrame, FinalNotice, Frame, LookUp, Query, RecordKind, Reversal, Template,
    not_looked_up,
};

/// Events applied per duty cycle.
const EVENTS_PER_CYCLE: usize = 8_192;
/// Questions answered per duty cycle: never ahead of payments.
const QUERIES_PER_CYCLE: usize = 64;
/// How often the follower is told what the state is, beside at each window's event.
const EVENTS_PER_MARK: u64 = 1 << 20;
/// Words told again per duty cycle.
const WORDS_PER_CYCLE: u64 = 512;

/// Words told to one participant before the next has its turn.
const WORDS_PER_TURN: u64 = 64;

/// The ledger when the switch was closed.
#[derive(Clone, Debug)]
pub struct FinalLedger {
    /// Its state's hash.
    pub hash: StateHash,
    /// The ledger as an operator sees it.
    pub snapshot: LedgerSnapshot,
    /// The journal position it had applied.
    pub position: u64,
    /// What happened since Genesis.
    pub figures: Figures,
}

/// To the follower, where there is one.
pub(super) struct RegisterRings {
    /// What events wait for.
    pub(super) look_ups: Arc<Ring<LookUp>>,
    /// Questions that the engine can't answer.
    pub(super) queries: Arc<Ring<RegisterQuery>>,
    /// What the state was, from time to time.
    pub(super) marks: Arc<Ring<StateMark>>,
    /// What the follower tells about itself, and how long clearing's duty cycles take beside it.
    pub(super) counters: Arc<FollowerCounters>,
}

/// What the clearing stage is made of.
pub(super) struct ClearingParts {
    /// The engine, history already applied.
    pub(super) engine: Engine,
    /// To the follower.
    pub(super) register: Option<RegisterRings>,
    /// The durable events.
    pub reader: TailReader,
    /// To dispatch.
    pub effects: Arc<Ring<Effect>>,
    /// Questions that are not events.
    pub queries: Arc<Ring<Query>>,
    /// Questions of operators.
    pub desk: Arc<SnapshotDesk>,
    /// Where it says how far it has applied.
    pub positions: Arc<Positions>,
    /// What it tells the sequencer.
    pub pulse: Arc<LedgerPulse>,
    /// The sequencer's wake-up: it sleeps until the deadline it knew last.
    pub sequencer: Arc<Wakeup>,
    /// Per participant, the number its next word will have.
    pub next_words: Arc<[AtomicU64]>,
    /// To the steward.
    pub tidings: Arc<Ring<Tiding>>,
    /// Where alarms are counted that found no room.
    pub steward: Arc<StewardView>,
    /// Closed when an invariant breaks.
    pub gate: Arc<IntakeGate>,
    /// Where the ledger is left at the end.
    pub last: Arc<Mutex<Option<FinalLedger>>>,
}

/// The clearing stage.
pub(super) struct ClearingAgent {
    parts: ClearingParts,
    outlet: RingOutlet,
    /// Words being told again, a part each duty cycle; one entry a participant.
    words: VecDeque<WordsAgain>,
    /// Tidings of orders that found the steward's ring full: whoever waits for one is never forgotten.
    tidings_over: VecDeque<Tiding>,
    broken: bool,
}

struct WordsAgain {
    participant: ParticipantIndex,
    link: LinkId,
    next: u64,
    end: u64,
}

/// The ring to dispatch, and what did not fit: an event's effects are never cut short.
struct RingOutlet {
    ring: Arc<Ring<Effect>>,
    overflow: VecDeque<Effect>,
    next_words: Arc<[AtomicU64]>,
    look_ups: Option<Arc<Ring<LookUp>>>,
    /// Look-ups that did not fit; bounded by what may be parked.
    look_ups_over: VecDeque<LookUp>,
    /// What the event just applied tells the steward.
    to_steward: Vec<Effect>,
    /// The window that it closed.
    closed: Option<Tiding>,
}

impl Outlet for RingOutlet {
    #[inline]
    fn emit(&mut self, effect: Effect) {
        if let Effect::Frame(frame) = &effect {
            let word = match frame.template {
                Template::Answer => Answer::read(&frame.bytes).word,
                Template::Reversal => Reversal::read(&frame.bytes).word,
                Template::FinalNotice => FinalNotice::read(&frame.bytes).word,
                _ => 0,
            };
            // There is room for everybody who may join in this run.
            if word > 0
                && let Some(next) = self.next_words.get(frame.to.index())
            {
                next.fetch_max(word + 1, Ordering::Relaxed);
            }
        }
        match effect {
            Effect::LookUp(look_up) => {
                self.look_ups_over.push_back(look_up);
                self.look_up();
            }
            Effect::Ordered { .. } | Effect::CoverAlarm { .. } => self.to_steward.push(effect),
            Effect::Forward { .. }
            | Effect::Request { .. }
            | Effect::Frame(_)
            | Effect::Release { .. }
            | Effect::Cut { .. }
            | Effect::Contract { .. } => self.push(effect),
        }
    }

    fn closed(&mut self, window: &ClosedWindow<'_>) {
        self.closed = Some(Tiding::Closed {
            currency: window.currency,
            at: window.closed,
        });
    }
}

/// What the steward is told.
fn tiding(engine: &Engine, effect: &Effect) -> Tiding {
    match *effect {
        Effect::Ordered {
            reference,
            event,
            outcome,
            action,
            participant,
        } => Tiding::Ordered(Ordered {
            reference,
            event,
            outcome,
            action,
            terms: engine.terms_of(participant).copied(),
        }),
        Effect::CoverAlarm {
            participant,
            currency,
            level_bp,
            before_bp,
            used_minor,
            cap_minor,
        } => Tiding::Alarm(CoverAlarm {
            time: engine.time(),
            participant,
            currency,
            level_bp,
            before_bp,
            used_minor,
            cap_minor,
        }),
        Effect::Forward { .. }
        | Effect::Request { .. }
        | Effect::Frame(_)
        | Effect::Release { .. }
        | Effect::LookUp(_)
        | Effect::Cut { .. }
        | Effect::Contract { .. } => unreachable!("not for the steward: {effect:?}"),
    }
}

impl RingOutlet {
    #[inline]
    fn push(&mut self, effect: Effect) {
        if !self.overflow.is_empty() {
            self.overflow.push_back(effect);
        } else if let Err(effect) = self.ring.push(effect) {
            self.overflow.push_back(effect);
        }
    }

    /// Asks the follower. Without one nothing is asked: what waits does so until there is one, at most so much of it as the
    /// scheme says.
    fn look_up(&mut self) {
        let Some(ring) = &self.look_ups else {
            self.look_ups_over.clear();
            return;
        };
        while let Some(look_up) = self.look_ups_over.pop_front() {
            if let Err(look_up) = ring.push(look_up) {
                self.look_ups_over.push_front(look_up);
                break;
            }
        }
        ring.notify();
    }

    /// Moves what did not fit; true when nothing is left over.
    fn drain(&mut self) -> bool {
        while let Some(effect) = self.overflow.pop_front() {
            if let Err(effect) = self.ring.push(effect) {
                self.overflow.push_front(effect);
                return false;
            }
        }
        true
    }
}

impl ClearingAgent {
    /// Puts the stage together.
    #[must_use]
    pub(super) fn new(parts: ClearingParts) -> Self {
        let outlet = RingOutlet {
            ring: Arc::clone(&parts.effects),
            overflow: VecDeque::new(),
            next_words: Arc::clone(&parts.next_words),
            look_ups: parts.register.as_ref().map(|rings| Arc::clone(&rings.look_ups)),
            look_ups_over: VecDeque::new(),
            to_steward: Vec::with_capacity(8),
            closed: None,
        };
        // Those beyond have not joined yet, and their first word has number 1.
        for (index, next) in (0u16..).zip(parts.next_words.iter()) {
            next.store(parts.engine.next_word(ParticipantIndex(index)), Ordering::Relaxed);
        }
        Self {
            parts,
            outlet,
            words: VecDeque::new(),
            tidings_over: VecDeque::new(),
            broken: false,
        }
    }

    fn apply_events(&mut self) -> usize {
        let mut applied = 0;
        while applied < EVENTS_PER_CYCLE && self.outlet.overflow.is_empty() {
            let Some(record) = self.parts.reader.next() else { break };
            let event = event_of(&record);
            self.parts.engine.apply(&event, &mut self.outlet);
            applied += 1;
            if event.number.is_multiple_of(EVENTS_PER_MARK) || event.kind == RecordKind::Window {
                self.mark();
            }
            if !self.outlet.to_steward.is_empty() || self.outlet.closed.is_some() {
                self.tell_steward();
            }
            while let Some(record) = self.parts.reader.look_ahead() {
                self.parts.engine.prefetch(&event_of(&record));
            }
        }
        applied
    }

    /// Orders decided about and alarms. An alarm that finds no room is counted and left out: what is true now stands in the
    /// ledger.
    #[cold]
    fn tell_steward(&mut self) {
        let (engine, view) = (&self.parts.engine, &self.parts.steward);
        let told = self.outlet.to_steward.drain(..).map(|effect| tiding(engine, &effect));
        for tiding in told.chain(self.outlet.closed.take()) {
            let is_alarm = matches!(tiding, Tiding::Alarm(_));
            if !self.tidings_over.is_empty() && !is_alarm {
                self.tidings_over.push_back(tiding);
            } else if let Err(tiding) = self.parts.tidings.push(tiding) {
                if is_alarm {
                    view.alarms_left_out.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.tidings_over.push_back(tiding);
                }
            }
        }
        self.parts.tidings.notify();
    }

    fn drain_tidings(&mut self) {
        while let Some(tiding) = self.tidings_over.pop_front() {
            if let Err(tiding) = self.parts.tidings.push(tiding) {
                self.tidings_over.push_front(tiding);
                break;
            }
        }
        self.parts.tidings.notify();
    }

    /// Tells the follower what the state is now; one that finds no room is left out.
    fn mark(&self) {
        if let Some(rings) = &self.parts.register {
            let started = Instant::now();
            let mark = self.parts.engine.state_mark();
            let took = started.elapsed().as_nanos() as u64;
            rings.counters.mark_longest_ns.fetch_max(took, Ordering::Relaxed);
            let _next_time = rings.marks.push(mark);
        }
    }

    /// Asks the follower what the engine can't answer; false when the follower has too much to do.
    fn ask_register(&self, query: Query) -> bool {
        let Some(rings) = &self.parts.register else {
            return false;
        };
        let asked = rings.queries.push(RegisterQuery {
            after: self.parts.engine.event_number(),
            query,
        });
        rings.queries.notify();
        asked.is_ok()
    }

    /// Says how far the ledger is: only what dispatch has been given counts as applied.
    fn publish(&mut self) {
        if self.outlet.overflow.is_empty() {
            let position = self.parts.reader.position();
            if position != self.parts.positions.applied() {
                self.parts.positions.set_applied(position);
            }
        }
        let engine = &mut self.parts.engine;
        self.parts
            .pulse
            .open_payments
            .store(engine.figures().open() + engine.figures().parked, Ordering::Relaxed);
        let (pulse, deadline_ns) = (&self.parts.pulse, engine.next_deadline().0);
        if pulse.next_deadline_ns.swap(deadline_ns, Ordering::AcqRel) > deadline_ns {
            self.parts.sequencer.wake();
        }
        if !self.broken
            && let Some(breach) = engine.breach()
        {
            self.broken = true;
            self.parts.gate.close(IntakeState::Broken);
            tracing::error!("{breach}; intake is stopped, inquiries are still answered: call the operator on duty");
        }
    }

    fn answer_queries(&mut self) -> usize {
        let mut work = 0;
        while work < QUERIES_PER_CYCLE && self.outlet.overflow.is_empty() {
            let Some(query) = self.parts.queries.pop() else { break };
            work += 1;
            match query {
                Query::Inquiry {
                    link,
                    participant,
                    id,
                    reference,
                } => match self.parts.engine.inquire(participant, link, id, reference) {
                    Recalled::Frame(answer) => self.outlet.push(Effect::Frame(answer)),
                    Recalled::InRegister => {
                        if !self.ask_register(query) {
                            let later = not_looked_up(id, reference);
                            self.outlet
                                .push(Effect::Frame(EffectFrame::new(participant, link, &later)));
                        }
                    }
                },
                Query::Words {
                    link,
                    participant,
                    from_word,
                    count,
                } => {
                    let end = self.parts.engine.next_word(participant);
                    let next = from_word.max(1);
                    let end = end.min(next.saturating_add(u64::from(count)));
                    if next < end {
                        self.begin_words(WordsAgain {
                            participant,
                            link,
                            next,
                            end,
                        });
                    }
                }
            }
        }
        work
    }

    /// A participant that asks again while words are being told gets the span of both by the link that asked last: the
    /// work that waits is bounded by the number of participants, however often their links come and go.
    fn begin_words(&mut self, again: WordsAgain) {
        match self
            .words
            .iter_mut()
            .find(|known| known.participant == again.participant)
        {
            Some(known) => {
                known.link = again.link;
                known.next = known.next.min(again.next);
                known.end = known.end.max(again.end);
            }
            None => self.words.push_back(again),
        }
    }

    /// Tells words again, paced, and only while dispatch has plenty of room: never ahead of live traffic.
    fn tell_words(&mut self) -> usize {
        let mut told = 0;
        while told < WORDS_PER_CYCLE && self.outlet.overflow.is_empty() {
            let Some(again) = self.words.front_mut() else { break };
            if self.outlet.ring.free() < self.outlet.ring.capacity() / 2 {
                break;
            }
            let (participant, link, from_word) = (again.participant, again.link, again.next);
            match self.parts.engine.word_again(participant, link, from_word) {
                Some(Recalled::Frame(frame)) => self.outlet.push(Effect::Frame(frame)),
                Some(Recalled::InRegister) => {
                    // All that follow it and have gone, too, in one question.
                    let engine = &self.parts.engine;
                    let has_gone =
                        |word: &u64| matches!(engine.word_again(participant, link, *word), Some(Recalled::InRegister));
                    let more = (from_word + 1..again.end)
                        .take(WORDS_PER_CYCLE as usize)
                        .take_while(has_gone);
                    let count = 1 + more.count() as u32;
                    again.next += u64::from(count) - 1;
                    let query = Query::Words {
                        link,
                        participant,
                        from_word,
                        count,
                    };
                    if self.parts.register.is_some() && !self.ask_register(query) {
                        // The follower has too much to do: later.
                        if let Some(again) = self.words.front_mut() {
                            again.next = from_word;
                        }
                        break;
                    }
                }
                None => {}
            }
            told += 1;
            let Some(again) = self.words.front_mut() else { break };
            again.next += 1;
            let done = again.next >= again.end;
            if done {
                self.words.pop_front();
            } else if told % WORDS_PER_TURN == 0 {
                self.words.rotate_left(1);
            }
        }
        told as usize
    }
}

impl ClearingAgent {
    fn cycle(&mut self) -> usize {
        let backlog = self.outlet.overflow.len();
        self.outlet.drain();
        let mut work = backlog - self.outlet.overflow.len();
        if !self.outlet.look_ups_over.is_empty() {
            self.outlet.look_up();
        }
        if !self.tidings_over.is_empty() {
            self.drain_tidings();
        }
        work += self.apply_events();
        if work > 0 || self.parts.reader.position() != self.parts.positions.applied() {
            self.publish();
        }
        work += self.answer_queries();
        if !self.words.is_empty() {
            work += self.tell_words();
        }
        work += self.parts.desk.serve(&self.parts.engine);
        if work > 0 {
            self.parts.effects.notify();
        }
        work
    }
}

impl Agent for ClearingAgent {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let underway = |rings: &RegisterRings| rings.counters.snapshot_underway.load(Ordering::Relaxed);
        let in_snapshot = self.parts.register.as_ref().is_some_and(underway);
        let started = Instant::now();
        let work = self.cycle();
        if work > 0
            && let Some(rings) = &self.parts.register
        {
            rings.counters.clearing_took(started.elapsed(), in_snapshot);
        }
        Ok(work)
    }

    fn on_close(&mut self) {
        // What became durable while the stages before this one were closing.
        while self.apply_events() > 0 {}
        self.publish();
        let engine = &self.parts.engine;
        let last = FinalLedger {
            hash: engine.state_hash(),
            snapshot: engine.snapshot(),
            position: self.parts.reader.position(),
            figures: engine.figures().clone(),
        };
        *self.parts.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(last);
    }

    fn role_name(&self) -> &str {
        "clearing"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        // Dispatch makes room in the ring and does not wake this thread.
        let held_back = !self.outlet.overflow.is_empty()
            || !self.outlet.look_ups_over.is_empty()
            || !self.words.is_empty()
            || !self.tidings_over.is_empty();
        held_back.then_some(RETRY_PAUSE)
    }
}

#[cfg(test)]
mod tests;
