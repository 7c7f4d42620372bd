//! The clearing stage: feeds the engine the durable events and hands its effects to dispatch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::replay::event_of;
use crate::agent::{Agent, AgentError, IntakeGate, IntakeState, RETRY_PAUSE, Ring, Wakeup};
use crate::clearing::{Engine, LedgerSnapshot, Outlet, StateHash};
use crate::domain::{LinkId, ParticipantIndex};
use crate::housekeeping::SnapshotDesk;
use crate::journal::{Positions, TailReader};
use crate::sequencer::LedgerPulse;
use crate::wire::{Answer, Effect, FinalNotice, Frame, Query, Reversal, Template};

/// Events applied per duty cycle.
const EVENTS_PER_CYCLE: usize = 8_192;
/// Questions answered per duty cycle: never ahead of payments.
const QUERIES_PER_CYCLE: usize = 64;
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
}

/// What the clearing stage is made of.
pub(super) struct ClearingParts {
    /// The engine, history already applied.
    pub(super) engine: Engine,
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
            if word > 0 {
                self.next_words[frame.to.index()].fetch_max(word + 1, Ordering::Relaxed);
            }
        }
        self.push(effect);
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
        };
        for (index, next) in (0u16..).zip(parts.next_words.iter()) {
            next.store(parts.engine.next_word(ParticipantIndex(index)), Ordering::Relaxed);
        }
        Self {
            parts,
            outlet,
            words: VecDeque::new(),
            broken: false,
        }
    }

    fn apply_events(&mut self) -> usize {
        let mut applied = 0;
        while applied < EVENTS_PER_CYCLE && self.outlet.overflow.is_empty() {
            let Some(record) = self.parts.reader.next() else { break };
            self.parts.engine.apply(&event_of(&record), &mut self.outlet);
            applied += 1;
            while let Some(record) = self.parts.reader.look_ahead() {
                self.parts.engine.prefetch(&event_of(&record));
            }
        }
        applied
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
            .store(engine.figures().open(), Ordering::Relaxed);
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
                } => {
                    let answer = self.parts.engine.inquire(participant, link, id, reference);
                    self.outlet.push(Effect::Frame(answer));
                }
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
            if let Some(frame) = self.parts.engine.word_again(again.participant, again.link, again.next) {
                self.outlet.push(Effect::Frame(frame));
            }
            told += 1;
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

impl Agent for ClearingAgent {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let backlog = self.outlet.overflow.len();
        self.outlet.drain();
        let mut work = backlog - self.outlet.overflow.len();
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
        };
        *self.parts.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(last);
    }

    fn role_name(&self) -> &str {
        "clearing"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        // Dispatch makes room in the ring and does not wake this thread.
        let held_back = !self.outlet.overflow.is_empty() || !self.words.is_empty();
        held_back.then_some(RETRY_PAUSE)
    }
}
