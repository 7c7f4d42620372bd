//! The dispatch agent.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::links::LinkTable;
use super::queue::{Queue, Waiting};
use crate::agent::{Agent, AgentError, RETRY_PAUSE, Ring, SwitchClock};
use crate::domain::{Code, LinkContract, LinkId, MILLISECOND, ParticipantIndex, PaymentId, PaymentSlot, UtcNanos};
use crate::journal::{Positions, TailView};
use crate::memory::ChunkedTable;
use crate::wire::{
    Answer, AnswerFlags, Effect, EffectFrame, Frame, Intake, LinkChange, Outbound, OutboundKind, PaymentRequest,
    RequestEvent, Seat, StatusRequest, Template, Unsent,
};

/// Effects taken per duty cycle.
const EFFECTS_PER_CYCLE: usize = 8_192;
/// Status requests to one bank a second: a bucket of their own, so that they never take a payment's place.
const STATUS_REQUESTS_PER_SECOND: u32 = 1_000;
/// In [`Seated::sent_on`]: the payment is final.
const FINAL: u32 = u32::MAX;

/// The payment in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Seated {
    /// The link its request went on, 0 = none, [`FINAL`].
    sent_on: u32,
    /// How many payments dispatch has seen in the slot.
    turn: u32,
}

/// What dispatch counts.
#[derive(Debug, Default)]
pub struct DispatchCounters {
    /// Requests waiting for a link.
    pub waiting: AtomicU64,
    /// Requests given back as not sent.
    pub not_sent: AtomicU64,
    /// Requests that a link which ended or clogged had not sent yet, and another may.
    pub returned: AtomicU64,
    /// Words for which no link was there; they are told again at Establish.
    pub words_held: AtomicU64,
    /// Events that wait for a register, of which there is none: the directory's `resident_payments` is too small.
    pub look_ups: AtomicU64,
}

/// What dispatch is made of.
pub struct DispatchParts {
    /// From clearing.
    pub effects: Arc<Ring<Effect>>,
    /// From link agents.
    pub changes: Arc<Ring<LinkChange>>,
    /// To each link agent.
    pub outbound: Vec<Arc<Ring<Outbound>>>,
    /// NotSent, to the sequencer.
    pub priority: Arc<Ring<Intake>>,
    /// The journal, to copy requests that must wait.
    pub view: TailView,
    /// How far clearing has applied.
    pub positions: Arc<Positions>,
    /// Connections of each link agent: tells whose a link slot is.
    pub connections_max: usize,
    /// Each participant's contract, in the order of their numbers.
    pub contracts: Vec<LinkContract>,
    /// How many participants there is room for.
    pub room: usize,
    /// Payments that memory is set aside for at start.
    pub payments_expected: usize,
    /// The clock.
    pub clock: SwitchClock,
    /// Counts.
    pub counters: Arc<DispatchCounters>,
}

/// The dispatch agent.
pub struct Dispatch {
    parts: DispatchParts,
    links: LinkTable,
    queues: Vec<Queue>,
    /// Participants with something in their queues.
    waiting: Vec<ParticipantIndex>,
    /// Payments whose status request waits: one each.
    status_waiting: HashSet<PaymentId>,
    /// By slot: the payment that dispatch has seen there last.
    seats: ChunkedTable<Seated>,
    /// The request of the next Forward that says it is given.
    given: [u8; 128],
    deferred: VecDeque<Intake>,
    marked: u64,
    /// The position to mark next, and how many effects in the ring come before that: under a load that never lets the
    /// ring run empty, the journal's room is given back all the same.
    mark_next: Option<(u64, usize)>,
    /// Entries that surely fit every link agent's ring in this duty cycle.
    room: usize,
    now: UtcNanos,
}

fn link_table(parts: &DispatchParts) -> LinkTable {
    let mut table = LinkTable::new(parts.room);
    for (index, contract) in (0u16..).zip(&parts.contracts) {
        table.agree(ParticipantIndex(index), contract);
    }
    table
}

/// Room that one effect may need at most.
const ROOM_RESERVED: usize = 8;

impl Dispatch {
    /// Puts dispatch together.
    #[must_use]
    pub fn new(parts: DispatchParts) -> Self {
        Self {
            links: link_table(&parts),
            queues: (0..parts.room)
                .map(|_| Queue::new(STATUS_REQUESTS_PER_SECOND))
                .collect(),
            waiting: Vec::new(),
            status_waiting: HashSet::new(),
            // Without memory to set aside it grows as payments come.
            seats: ChunkedTable::with_capacity(parts.payments_expected, false)
                .unwrap_or_else(|_| ChunkedTable::new(false)),
            given: [0; 128],
            deferred: VecDeque::new(),
            marked: 0,
            mark_next: None,
            room: 0,
            now: parts.clock.now(),
            parts,
        }
    }

    fn take_changes(&mut self) -> usize {
        let mut work = 0;
        while let Some(change) = self.parts.changes.pop() {
            work += 1;
            match change {
                LinkChange::Unsent(unsent) => self.take_back(&unsent),
                LinkChange::UnsentStatus { to, request } => self.ask(to, request),
                LinkChange::Up { .. }
                | LinkChange::Contract { .. }
                | LinkChange::Down { .. }
                | LinkChange::Clogged { .. }
                | LinkChange::Clear { .. } => {
                    if let Some(participant) = self.links.change(change) {
                        self.send_waiting(participant);
                    }
                }
            }
        }
        work
    }

    /// A request that its link did not send waits for another, as long as any request does.
    fn take_back(&mut self, unsent: &Unsent) {
        let seated = &mut self.seats[unsent.seat.slot.index()];
        // It may be final meanwhile, and another payment have its slot: then there is nothing to send.
        if seated.turn != unsent.seat.turn || seated.sent_on != unsent.link.0 {
            return;
        }
        seated.sent_on = LinkId::NONE.0;
        self.links.give_credit(unsent.link);
        bump(&self.parts.counters.returned, 1);
        let body = PaymentRequest::read(&unsent.frame).body;
        self.queues[body.responder.index()].put_back(Waiting {
            seat: unsent.seat,
            id: body.id,
            deadline: unsent.deadline,
            frame: unsent.frame,
        });
        self.list(body.responder);
    }

    /// A status request waits for a link that takes it, one for each payment.
    fn ask(&mut self, bank: ParticipantIndex, request: StatusRequest) {
        if self.status_waiting.insert(request.id) {
            self.queues[bank.index()].status.push_back(request);
            self.list(bank);
        }
    }

    fn take_effects(&mut self) -> usize {
        // In this order: the ring then holds every effect of what was applied.
        let applied = self.parts.positions.applied();
        let (mut position, mut before) = self
            .mark_next
            .take()
            .unwrap_or_else(|| (applied, self.parts.effects.len()));
        let mut work = 0;
        while work < EFFECTS_PER_CYCLE && self.room > ROOM_RESERVED {
            let Some(effect) = self.parts.effects.pop() else {
                (position, before) = (applied, 0);
                break;
            };
            work += 1;
            match effect {
                Effect::Forward {
                    slot,
                    responder,
                    position,
                    accepted,
                    wait_ns,
                } => {
                    self.forward(slot, responder, position, accepted.plus(wait_ns));
                }
                Effect::Request { half, bytes } => {
                    self.given[usize::from(half) * bytes.len()..][..bytes.len()].copy_from_slice(&bytes);
                }
                Effect::Frame(frame) => self.frame(frame),
                Effect::Release { slot } => self.release(slot),
                Effect::LookUp(_) => bump(&self.parts.counters.look_ups, 1),
                Effect::Contract { participant, contract } => self.links.agree(participant, &contract),
                // The steward's, by a ring of its own.
                Effect::Ordered { .. } | Effect::CoverAlarm { .. } => {}
                Effect::Cut { link, code } => {
                    if self.links.get_mut(link).is_some() {
                        self.push(link, OutboundKind::Cut { code });
                    }
                }
            }
        }
        before = before.saturating_sub(work);
        // Where the outbound ring is full the mark waits too.
        if before == 0 && self.room > 0 {
            self.mark(position);
        } else {
            self.mark_next = Some((position, before));
        }
        work
    }

    /// Tells link agents that everything before `applied` has been handed over, so that the journal's ring may be used
    /// again when they come to that entry.
    fn mark(&mut self, applied: u64) {
        if applied == self.marked {
            return;
        }
        self.marked = applied;
        for ring in &self.parts.outbound {
            let marked = ring.push(Outbound {
                link: LinkId::NONE,
                what: OutboundKind::Mark { position: applied },
            });
            assert!(marked.is_ok(), "room was made sure of before");
        }
    }

    #[inline]
    fn forward(&mut self, slot: PaymentSlot, responder: ParticipantIndex, position: u64, deadline: UtcNanos) {
        while self.seats.len() <= slot.index() {
            self.seats.push(Seated::zeroed());
        }
        // The slot may have had another payment before, of which something may still come back.
        let seated = &mut self.seats[slot.index()];
        (seated.sent_on, seated.turn) = (LinkId::NONE.0, seated.turn.wrapping_add(1));
        let seat = Seat {
            slot,
            turn: seated.turn,
        };
        let given = position == Effect::REQUEST_GIVEN;
        let nothing_waits = self.queues[responder.index()].first().is_none();
        if nothing_waits
            && !given
            && let Some(link) = self.links.take_credit(responder, self.now)
        {
            self.seats[slot.index()].sent_on = link.0;
            self.push(
                link,
                OutboundKind::Journaled {
                    seat,
                    position,
                    deadline,
                },
            );
            return;
        }
        let frame = RequestEvent::frame(|record| {
            if given {
                record.copy_from_slice(&self.given);
            } else {
                self.parts.view.copy(position, record);
            }
        });
        let id = PaymentRequest::read(&frame).body.id;
        self.queues[responder.index()].push(Waiting {
            seat,
            id,
            deadline,
            frame,
        });
        self.list(responder);
        if given {
            self.send_waiting(responder);
        }
    }

    /// True when nothing more of this request is to be sent.
    fn is_over(&self, seat: Seat) -> bool {
        let seated = &self.seats[seat.slot.index()];
        seated.turn != seat.turn || seated.sent_on == FINAL
    }

    #[inline]
    fn release(&mut self, slot: PaymentSlot) {
        while self.seats.len() <= slot.index() {
            self.seats.push(Seated::zeroed());
        }
        let link = LinkId(std::mem::replace(&mut self.seats[slot.index()].sent_on, FINAL));
        if link != LinkId::NONE
            && let Some(participant) = self.links.give_credit(link)
            && self.queues[participant.index()].listed
        {
            self.send_waiting(participant);
        }
    }

    #[inline]
    fn frame(&mut self, frame: EffectFrame) {
        if frame.template == Template::StatusRequest {
            self.ask(frame.to, StatusRequest::read(&frame.bytes));
            self.send_waiting(frame.to);
            return;
        }
        let mut link = self.links.for_word(frame.to, frame.via);
        if link.is_none() {
            // A link that came up before this word was made is in the ring by now.
            self.take_changes();
            link = self.links.for_word(frame.to, frame.via);
        }
        let Some(link) = link else {
            bump(&self.parts.counters.words_held, 1);
            return;
        };
        let settles = frame.template == Template::Answer
            && link == frame.via
            && Answer::read(&frame.bytes).flags & AnswerFlags::RETRANSMITTED == 0;
        self.push(
            link,
            OutboundKind::Frame {
                template: frame.template,
                bytes: frame.bytes,
                settles,
            },
        );
    }

    #[inline]
    fn push(&mut self, link: LinkId, what: OutboundKind) {
        let agent = link.slot() / self.parts.connections_max;
        self.room -= 1;
        let pushed = self.parts.outbound[agent].push(Outbound { link, what });
        assert!(pushed.is_ok(), "room was made sure of before");
    }

    fn list(&mut self, participant: ParticipantIndex) {
        let queue = &mut self.queues[participant.index()];
        if !queue.listed {
            queue.listed = true;
            self.waiting.push(participant);
        }
    }

    /// Sends what waits for this participant, as far as credit, rate and room go.
    fn send_waiting(&mut self, participant: ParticipantIndex) {
        while let Some(first) = self.queues[participant.index()].first() {
            if first.deadline < self.now || self.room <= ROOM_RESERVED {
                break;
            }
            if self.is_over(first.seat) {
                self.queues[participant.index()].take_first();
                continue;
            }
            let Some(link) = self.links.take_credit(participant, self.now) else {
                break;
            };
            let Some(waited) = self.queues[participant.index()].take_first() else {
                break;
            };
            self.seats[waited.seat.slot.index()].sent_on = link.0;
            self.push(
                link,
                OutboundKind::Waited {
                    seat: waited.seat,
                    frame: waited.frame,
                    deadline: waited.deadline,
                },
            );
        }
        while !self.queues[participant.index()].status.is_empty() && self.room > ROOM_RESERVED {
            let Some(link) = self.links.for_status(participant) else {
                break;
            };
            let queue = &mut self.queues[participant.index()];
            if !queue.status_bucket.take(self.now) {
                break;
            }
            let Some(request) = queue.status.pop_front() else {
                break;
            };
            self.status_waiting.remove(&request.id);
            self.push(
                link,
                OutboundKind::Status {
                    to: participant,
                    request,
                },
            );
        }
    }

    /// Gives back what has waited past Tq, and sends what may go now.
    fn look_at_queues(&mut self) -> usize {
        let mut work = 0;
        let mut at = 0;
        while at < self.waiting.len() {
            let participant = self.waiting[at];
            while let Some(first) = self.queues[participant.index()].first() {
                if first.deadline >= self.now {
                    break;
                }
                let (id, seat) = (first.id, first.seat);
                self.queues[participant.index()].take_first();
                work += 1;
                if !self.is_over(seat) {
                    let has_links = self.links.has_links(participant);
                    self.not_sent(
                        id,
                        if has_links {
                            Code::OverLinkCapacity
                        } else {
                            Code::LinkDown
                        },
                    );
                }
            }
            self.send_waiting(participant);
            let queue = &mut self.queues[participant.index()];
            if queue.first().is_none() && queue.status.is_empty() {
                queue.listed = false;
                self.waiting.swap_remove(at);
            } else {
                at += 1;
            }
        }
        work
    }

    fn not_sent(&mut self, id: PaymentId, code: Code) {
        bump(&self.parts.counters.not_sent, 1);
        self.deferred.push_back(Intake::NotSent { id, code });
    }

    fn give_back(&mut self) -> usize {
        let mut work = 0;
        while let Some(intake) = self.deferred.front() {
            if self.parts.priority.push(*intake).is_err() {
                break;
            }
            self.deferred.pop_front();
            work += 1;
        }
        if work > 0 {
            self.parts.priority.notify();
        }
        work
    }
}

impl Agent for Dispatch {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        self.now = self.parts.clock.now();
        self.room = self
            .parts
            .outbound
            .iter()
            .map(|ring| ring.free())
            .min()
            .unwrap_or(0)
            .saturating_sub(1);
        let marked = self.marked;
        let mut work = self.take_changes() + self.take_effects();
        if !self.waiting.is_empty() {
            work += self.look_at_queues();
            let waiting: usize = self.waiting.iter().map(|p| self.queues[p.index()].len()).sum();
            self.parts.counters.waiting.store(waiting as u64, Ordering::Relaxed);
        }
        work += self.give_back();
        if work > 0 || self.marked != marked {
            for ring in &self.parts.outbound {
                ring.notify();
            }
        }
        Ok(work)
    }

    fn role_name(&self) -> &str {
        "dispatch"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        let now = self.parts.clock.now();
        let due = |participant: &ParticipantIndex| {
            let queue = &self.queues[participant.index()];
            let has_links = self.links.has_clear_links(*participant);
            // A rate gives credit back by time alone, so a request that has links is looked at again soon.
            let request = queue.first().map_or(UtcNanos::NEVER, |waiting| {
                if has_links {
                    waiting.deadline.plus(1).min(now.plus(MILLISECOND))
                } else {
                    waiting.deadline.plus(1)
                }
            });
            let can_ask = !queue.status.is_empty() && has_links;
            let status = if can_ask {
                queue.status_bucket.next_at(now)
            } else {
                UtcNanos::NEVER
            };
            request.min(status)
        };
        let earliest = self.waiting.iter().map(due).min().unwrap_or(UtcNanos::NEVER);
        let deadline = (earliest != UtcNanos::NEVER).then(|| Duration::from_nanos(earliest.since(now)));
        // Link agents and the sequencer make room in their rings and do not wake this thread.
        let held_back = !self.parts.effects.is_empty() || !self.deferred.is_empty() || self.mark_next.is_some();
        deadline.into_iter().chain(held_back.then_some(RETRY_PAUSE)).min()
    }
}

fn bump(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}
