//! The link agent: owns sockets, sessions and their buffers, and runs one driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use super::counters::{LinkCounters, add, sub};
use super::door;
use super::outgoing::Outgoing;
use super::session::{Identity, Session, SessionEvent, SessionTimes};
use crate::agent::{Agent, AgentError, Bucket, IntakeGate, IntakeState, RETRY_PAUSE, Ring, SwitchClock, Wakeup};
use crate::config::Directory;
use crate::domain::{Code, LinkId, MILLISECOND, ParticipantIndex, PaymentId, Role, SchemeCode, UtcNanos};
use crate::io::{BufferGroup, BufferShare, Completion, Connection, Driver, HEADROOM};
use crate::journal::{Positions, TailView};
use crate::wire::{
    BufferRef, FRAME_BYTES_MAX, FrameRun, InquiryAnswer, Intake, LinkChange, Outbound, OutboundKind, PaymentRequest,
    Query, Template, TerminateCode, decode,
};

/// Bytes a link may leave unread beside what its contract lets the switch send.
const BACKLOG_SLACK_BYTES: usize = 256 * 1024;
/// Outbound entries taken per duty cycle.
const OUTBOUND_BATCH: usize = 8_192;
/// Credit and RetransmitRequest frames a second that a link may send: each makes work for another stage.
const SESSION_REQUESTS_PER_SECOND: u32 = 1_000;
/// Session clocks are looked at no more often than this.
const TIMER_GRAIN_NS: u64 = 50 * MILLISECOND;

/// Limits of one link agent.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// Connections that have not established yet.
    pub half_open_max: usize,
    /// Receive buffers one link may hold before it is not read any more.
    pub buffers_per_link_max: u16,
    /// Session times.
    pub times: SessionTimes,
}

/// The rings a link agent works with.
#[derive(Clone, Debug)]
pub struct LinkRings {
    /// Payment requests to the sequencer; full = back-pressure to the sockets.
    pub requests: Arc<Ring<Intake>>,
    /// Replies and NotSent to the sequencer.
    pub priority: Arc<Ring<Intake>>,
    /// From dispatch.
    pub outbound: Arc<Ring<Outbound>>,
    /// To dispatch.
    pub changes: Arc<Ring<LinkChange>>,
    /// To clearing.
    pub queries: Arc<Ring<Query>>,
    /// Receive buffers on their way home.
    pub home: Arc<Ring<u16>>,
}

/// What a link agent is made of.
pub struct LinkAgentParts {
    /// Its number, from 0.
    pub index: u8,
    /// Its sockets; it listens already.
    pub driver: Box<dyn Driver>,
    /// Its receive buffers.
    pub share: Arc<BufferShare>,
    /// How many receive buffers there are.
    pub buffers: usize,
    /// Most connections.
    pub connections_max: usize,
    /// Its rings.
    pub rings: LinkRings,
    /// The journal, to copy requests out of.
    pub view: TailView,
    /// Where it says how far it has copied.
    pub positions: Arc<Positions>,
    /// Who may come.
    pub directory: Arc<Directory>,
    /// Whether new payments are taken.
    pub gate: Arc<IntakeGate>,
    /// The clock.
    pub clock: SwitchClock,
    /// Per participant, the number its next word will have; clearing writes it.
    pub next_words: Arc<[AtomicU64]>,
    /// Per participant, its links on all link agents.
    pub link_counts: Arc<[AtomicU16]>,
    /// Limits.
    pub limits: LinkLimits,
    /// Counts.
    pub counters: Arc<LinkCounters>,
}

/// The link agent.
pub struct LinkAgent {
    parts: LinkAgentParts,
    links: Vec<Option<Link>>,
    generations: Vec<u16>,
    completions: Vec<Completion>,
    /// Which link each receive buffer that is out came on.
    buffer_links: Vec<LinkId>,
    deferred: VecDeque<FrameRun>,
    deferred_priority: VecDeque<Intake>,
    deferred_changes: VecDeque<LinkChange>,
    deferred_queries: VecDeque<Query>,
    dirty: Vec<u32>,
    inquiry_budgets: Vec<Bucket>,
    half_open: usize,
    timers_due: UtcNanos,
    now: UtcNanos,
}

struct Link {
    id: LinkId,
    session: Session,
    outgoing: Outgoing,
    /// The unfinished end of what was received.
    carry: [u8; FRAME_BYTES_MAX],
    carry_bytes: u8,
    /// Receive buffers out for this link.
    buffers_held: u16,
    receiving: bool,
    dirty: bool,
    closing: bool,
    standing: Standing,
    /// Negotiated, and so counted among its participant's links.
    counted: Option<ParticipantIndex>,
    in_flight: u32,
    intake_rate: Bucket,
    session_rate: Bucket,
    backlog_bytes_max: usize,
}

/// How a link counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not established yet: bounded for the whole agent.
    HalfOpen,
    /// Dispatch knows it.
    Up,
    /// Not counted any more.
    Gone,
}

/// Frames of one class found back to back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RunClass {
    Requests,
    Replies,
}

/// A run being walked. It keeps whose it is, because a frame behind it may end the link.
#[derive(Clone, Copy)]
struct OpenRun {
    class: RunClass,
    from: usize,
    link: LinkId,
    participant: ParticipantIndex,
}

impl LinkAgent {
    /// Puts the agent together.
    #[must_use]
    pub fn new(parts: LinkAgentParts) -> Self {
        let now = parts.clock.now();
        let budgets = parts
            .directory
            .participants
            .iter()
            .map(|e| Bucket::new(e.inquiries_per_second_max))
            .collect();
        Self {
            links: (0..parts.connections_max).map(|_| None).collect(),
            // A link id in the journal of an earlier run should not name a link of this one.
            generations: vec![(now.0 / MILLISECOND) as u16; parts.connections_max],
            completions: Vec::with_capacity(8_192),
            buffer_links: vec![LinkId::NONE; parts.buffers],
            deferred: VecDeque::with_capacity(parts.buffers),
            deferred_priority: VecDeque::with_capacity(parts.buffers),
            deferred_changes: VecDeque::new(),
            deferred_queries: VecDeque::new(),
            dirty: Vec::with_capacity(parts.connections_max),
            inquiry_budgets: budgets,
            half_open: 0,
            timers_due: UtcNanos::NEVER,
            now,
            parts,
        }
    }

    fn link_id(&self, connection: Connection) -> LinkId {
        let slot = self.parts.index as usize * self.parts.connections_max + connection.0 as usize;
        LinkId::new(slot as u16, self.generations[connection.0 as usize])
    }

    fn connection_of(&self, link: LinkId) -> Option<u32> {
        let local = link
            .slot()
            .checked_sub(self.parts.index as usize * self.parts.connections_max)?;
        let known = self.links.get(local)?.as_ref()?;
        (known.id == link && !known.closing).then_some(local as u32)
    }

    // ---- from the driver -----------------------------------------------------------------------------------------

    fn take_completions(&mut self) -> usize {
        let mut completions = std::mem::take(&mut self.completions);
        let work = completions.len();
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { connection, .. } => self.accepted(connection),
                Completion::Received {
                    connection,
                    buffer,
                    length,
                } => self.received(connection, buffer, length),
                Completion::Sent { connection, bytes } => self.sent(connection, bytes),
                Completion::Closed { connection, .. } => self.closed(connection),
                Completion::Connected { .. } => unreachable!("a link agent connects to nobody"),
            }
        }
        self.completions = completions;
        work
    }

    fn accepted(&mut self, connection: Connection) {
        let at = connection.0 as usize;
        self.generations[at] = self.generations[at].wrapping_add(1).max(1);
        let session = Session::new(self.parts.limits.times, self.now);
        self.timers_due = self.timers_due.min(session.deadline());
        self.links[at] = Some(Link {
            id: self.link_id(connection),
            session,
            outgoing: Outgoing::default(),
            carry: [0; FRAME_BYTES_MAX],
            carry_bytes: 0,
            buffers_held: 0,
            receiving: true,
            dirty: false,
            closing: false,
            standing: Standing::HalfOpen,
            counted: None,
            in_flight: 0,
            intake_rate: Bucket::default(),
            session_rate: Bucket::new(SESSION_REQUESTS_PER_SECOND),
            backlog_bytes_max: BACKLOG_SLACK_BYTES,
        });
        self.half_open += 1;
        add(&self.parts.counters.accepted, 1);
        add(&self.parts.counters.connections, 1);
        if self.half_open > self.parts.limits.half_open_max {
            self.cut(connection.0, TerminateCode::SwitchFull);
        } else if self.parts.gate.state() == IntakeState::ShuttingDown {
            self.cut(connection.0, TerminateCode::ShuttingDown);
        }
    }

    fn sent(&mut self, connection: Connection, bytes: Vec<u8>) {
        if let Some(link) = &mut self.links[connection.0 as usize] {
            link.outgoing.sent(bytes);
            if !link.outgoing.is_empty() {
                self.mark_dirty(connection.0);
            }
        }
    }

    fn closed(&mut self, connection: Connection) {
        self.leave(connection.0);
        if self.links[connection.0 as usize].take().is_some() {
            sub(&self.parts.counters.connections, 1);
        }
    }

    fn received(&mut self, connection: Connection, buffer: u16, length: u32) {
        self.parts.share.received(buffer);
        self.buffer_links[buffer as usize] = LinkId::NONE;
        let at = connection.0 as usize;
        let Some(link) = self.links[at].as_mut().filter(|link| !link.closing) else {
            self.parts.share.let_go(buffer);
            return;
        };
        link.buffers_held += 1;
        self.buffer_links[buffer as usize] = link.id;
        let carried = usize::from(link.carry_bytes);
        if carried > 0 {
            self.parts.share.join(buffer, &link.carry[..carried]);
            link.carry_bytes = 0;
        }
        if link.receiving && link.buffers_held > self.parts.limits.buffers_per_link_max {
            link.receiving = false;
            self.parts.driver.set_receiving(connection, false);
        }
        let share = Arc::clone(&self.parts.share);
        let (start, end) = (HEADROOM - carried, HEADROOM + length as usize);
        share.read(buffer, start, end, |bytes| {
            self.frames(connection, buffer, start, bytes)
        });
        share.let_go(buffer);
    }

    /// Walks the whole frames in `bytes`, which begin at `start` of the buffer.
    fn frames(&mut self, connection: Connection, buffer: u16, start: usize, bytes: &[u8]) {
        let at = connection.0 as usize;
        let mut offset = 0;
        let mut run: Option<OpenRun> = None;
        loop {
            let (template, length) = match decode(&bytes[offset..]) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    self.end_run(buffer, start, run.take(), offset);
                    self.cut(connection.0, error.into());
                    return;
                }
            };
            let frame = &bytes[offset..offset + length];
            let class = match template {
                Template::PaymentRequest => self.request_at_door(at, frame).then_some(RunClass::Requests),
                Template::Reply => match self.reply_at_door(at, frame) {
                    Ok(()) => Some(RunClass::Replies),
                    Err(code) => {
                        self.end_run(buffer, start, run.take(), offset);
                        self.cut(connection.0, code);
                        return;
                    }
                },
                Template::Negotiate
                | Template::NegotiationResponse
                | Template::NegotiationReject
                | Template::Establish
                | Template::EstablishmentAck
                | Template::EstablishmentReject
                | Template::Sequence
                | Template::RetransmitRequest
                | Template::Retransmission
                | Template::Terminate
                | Template::Credit
                | Template::Answer
                | Template::StatusRequest
                | Template::Reversal
                | Template::FinalNotice
                | Template::Inquiry
                | Template::InquiryAnswer => {
                    self.session_frame(connection, template, frame);
                    None
                }
            };
            let going_on = matches!((&run, class), (Some(running), Some(class)) if running.class == class);
            if !going_on {
                self.end_run(buffer, start, run.take(), offset);
                run = class.and_then(|class| self.begin_run(at, class, offset));
            }
            offset += length;
            if self.links[at].as_ref().is_none_or(|link| link.closing) {
                self.end_run(buffer, start, run.take(), offset);
                return;
            }
        }
        self.end_run(buffer, start, run.take(), offset);
        if let Some(link) = &mut self.links[at] {
            if offset > 0 {
                link.session.heard(self.now);
            }
            let rest = &bytes[offset..];
            link.carry[..rest.len()].copy_from_slice(rest);
            link.carry_bytes = rest.len() as u8;
        }
    }

    /// True when the request goes in; else it was refused and answered.
    #[inline]
    fn request_at_door(&mut self, at: usize, frame: &[u8]) -> bool {
        let Some(link) = &mut self.links[at] else { return false };
        let Some(identity) = link.session.established().copied() else {
            self.cut(at as u32, TerminateCode::NotEstablished);
            return false;
        };
        if identity.role != Role::Institution {
            self.cut(at as u32, TerminateCode::UnexpectedFrame);
            return false;
        }
        let request: PaymentRequest = bytemuck::pod_read_unaligned(frame);
        let verdict = door::check_request(&request.body, identity.participant).and_then(|()| {
            let taken = self.parts.gate.is_open()
                && link.in_flight < identity.intake_in_flight_max
                && link.intake_rate.take(self.now);
            if taken { Ok(()) } else { Err(Code::NotTaken) }
        });
        match verdict {
            Ok(()) => {
                link.in_flight += 1;
                add(&self.parts.counters.requests, 1);
                true
            }
            Err(code) => {
                let answer = door::refusal(&request, code);
                link.outgoing
                    .session_bytes()
                    .extend_from_slice(bytemuck::bytes_of(&answer));
                add(&self.parts.counters.refused_at_door, 1);
                self.mark_dirty(at as u32);
                self.check_backlog(at as u32);
                false
            }
        }
    }

    #[inline]
    fn reply_at_door(&mut self, at: usize, frame: &[u8]) -> Result<(), TerminateCode> {
        let Some(link) = &self.links[at] else {
            return Err(TerminateCode::NotEstablished);
        };
        let identity = link.session.established().ok_or(TerminateCode::NotEstablished)?;
        if identity.role != Role::Bank {
            return Err(TerminateCode::UnexpectedFrame);
        }
        if !door::reply_is_valid(frame) {
            return Err(TerminateCode::FieldInvalid);
        }
        add(&self.parts.counters.replies, 1);
        Ok(())
    }

    fn session_frame(&mut self, connection: Connection, template: Template, frame: &[u8]) {
        let at = connection.0 as usize;
        let Some(link) = &mut self.links[at] else { return };
        let (directory, counts, words) = (&self.parts.directory, &self.parts.link_counts, &self.parts.next_words);
        let event = link.session.on_frame(
            template,
            frame,
            self.now,
            |code, credential| identify(directory, counts, code, credential),
            |participant| next_word(words, participant),
            link.outgoing.session_bytes(),
        );
        if let (None, Some(identity)) = (link.counted, link.session.identity()) {
            link.counted = Some(identity.participant);
        }
        let (id, wrote) = (link.id, !link.outgoing.is_empty());
        if wrote {
            self.mark_dirty(connection.0);
        }
        let asks = matches!(event, SessionEvent::Contract { .. } | SessionEvent::Words { .. });
        if asks
            && !self.links[at]
                .as_mut()
                .is_some_and(|link| link.session_rate.take(self.now))
        {
            self.cut(connection.0, TerminateCode::ProtocolBacklog);
            return;
        }
        match event {
            SessionEvent::None => {}
            SessionEvent::Established {
                in_flight_max,
                per_second_max,
                words_from,
            } => {
                self.established(connection, in_flight_max, per_second_max, words_from);
            }
            SessionEvent::Contract {
                in_flight_max,
                per_second_max,
            } => {
                self.tell_dispatch(LinkChange::Contract {
                    link: id,
                    in_flight_max,
                    per_second_max,
                });
            }
            SessionEvent::Words { from, count } => {
                if let Some(participant) = self.links[at].as_ref().and_then(|link| link.counted) {
                    self.ask(Query::Words {
                        link: id,
                        participant,
                        from_word: from,
                        count,
                    });
                }
            }
            SessionEvent::Inquiry(payment, reference) => self.inquiry(at, payment, reference),
            SessionEvent::End(TerminateCode::Finished) => self.close(connection.0),
            SessionEvent::End(code) => self.cut(connection.0, code),
        }
    }

    fn established(&mut self, connection: Connection, in_flight_max: u32, per_second_max: u32, words: Option<u64>) {
        let Some(link) = &mut self.links[connection.0 as usize] else {
            return;
        };
        let Some(identity) = link.session.established().copied() else {
            return;
        };
        let id = link.id;
        link.intake_rate = Bucket::new(identity.intake_per_second_max);
        link.backlog_bytes_max = BACKLOG_SLACK_BYTES
            + 2 * (in_flight_max as usize * size_of::<PaymentRequest>() + identity.intake_in_flight_max as usize * 96);
        self.timers_due = self.timers_due.min(link.session.deadline());
        link.standing = Standing::Up;
        self.half_open -= 1;
        add(&self.parts.counters.established, 1);
        if identity.role == Role::Bank {
            self.parts.driver.set_group(connection, BufferGroup::Replies);
        }
        let participant = identity.participant;
        self.tell_dispatch(LinkChange::Up {
            link: id,
            participant,
            in_flight_max,
            per_second_max,
        });
        if let Some(from_word) = words {
            self.ask(Query::Words {
                link: id,
                participant,
                from_word,
                count: u32::MAX,
            });
        }
    }

    /// Inquiries have a budget of their own and can never take a payment's place.
    fn inquiry(&mut self, at: usize, id: PaymentId, reference: u64) {
        let Some(link) = &mut self.links[at] else { return };
        let Some(participant) = link.session.established().map(|identity| identity.participant) else {
            return;
        };
        let within = self.inquiry_budgets[participant.index()].take(self.now);
        let query = Query::Inquiry {
            link: link.id,
            participant,
            id,
            reference,
        };
        if within && self.deferred_queries.is_empty() && self.parts.rings.queries.push(query).is_ok() {
            self.parts.rings.queries.notify();
            return;
        }
        let answer = InquiryAnswer {
            id,
            reference,
            code: Code::AskedTooOften as u8,
            ..bytemuck::Zeroable::zeroed()
        };
        link.outgoing
            .push_frame(Template::InquiryAnswer, bytemuck::bytes_of(&answer));
        self.mark_dirty(at as u32);
        self.check_backlog(at as u32);
    }

    // ---- inward --------------------------------------------------------------------------------------------------

    fn begin_run(&self, at: usize, class: RunClass, from: usize) -> Option<OpenRun> {
        let link = self.links[at].as_ref()?;
        Some(OpenRun {
            class,
            from,
            link: link.id,
            participant: link.counted?,
        })
    }

    /// Hands a run over. It was whole and checked before whatever ended the link, so it counts even then: a bank's yes
    /// is not lost because its Terminate came in the same segment.
    fn end_run(&mut self, buffer: u16, start: usize, run: Option<OpenRun>, end: usize) {
        let Some(open) = run else { return };
        let run = FrameRun {
            buffer: BufferRef {
                agent: self.parts.index,
                buffer,
            },
            start: (start + open.from) as u32,
            end: (start + end) as u32,
            link: open.link,
            participant: open.participant,
            received: self.now,
        };
        self.parts.share.hold(buffer);
        match open.class {
            RunClass::Requests => {
                if !self.deferred.is_empty() || self.parts.rings.requests.push(Intake::Frames(run)).is_err() {
                    self.deferred.push_back(run);
                }
            }
            RunClass::Replies => self.push_priority(Intake::Frames(run)),
        }
    }

    fn push_priority(&mut self, intake: Intake) {
        if !self.deferred_priority.is_empty() || self.parts.rings.priority.push(intake).is_err() {
            self.deferred_priority.push_back(intake);
        }
    }

    fn tell_dispatch(&mut self, change: LinkChange) {
        if !self.deferred_changes.is_empty() || self.parts.rings.changes.push(change).is_err() {
            self.deferred_changes.push_back(change);
        }
        self.parts.rings.changes.notify();
    }

    fn ask(&mut self, query: Query) {
        if !self.deferred_queries.is_empty() || self.parts.rings.queries.push(query).is_err() {
            self.deferred_queries.push_back(query);
        }
        self.parts.rings.queries.notify();
    }

    /// Tries again what a full ring gave back. Order within a ring is kept.
    fn retry_deferred(&mut self) -> usize {
        let rings = &self.parts.rings;
        let runs = drain_into(&mut self.deferred, |run| {
            rings.requests.push(Intake::Frames(*run)).is_ok()
        });
        let priority = drain_into(&mut self.deferred_priority, |intake| {
            rings.priority.push(*intake).is_ok()
        });
        let changes = drain_into(&mut self.deferred_changes, |change| rings.changes.push(*change).is_ok());
        let queries = drain_into(&mut self.deferred_queries, |query| rings.queries.push(*query).is_ok());
        runs + priority + changes + queries
    }

    fn take_buffers_home(&mut self) -> usize {
        let mut work = 0;
        while let Some(buffer) = self.parts.rings.home.pop() {
            work += 1;
            let id = std::mem::replace(&mut self.buffer_links[buffer as usize], LinkId::NONE);
            self.parts.driver.release(buffer);
            // The link may be gone, and another in its place.
            let Some(at) = self.connection_of(id) else { continue };
            let Some(link) = &mut self.links[at as usize] else {
                continue;
            };
            link.buffers_held -= 1;
            if !link.receiving && link.buffers_held <= self.parts.limits.buffers_per_link_max / 2 {
                link.receiving = true;
                self.parts.driver.set_receiving(Connection(at), true);
            }
        }
        work
    }

    // ---- outward -------------------------------------------------------------------------------------------------

    fn take_outbound(&mut self) -> usize {
        let mut work = 0;
        while work < OUTBOUND_BATCH {
            let Some(outbound) = self.parts.rings.outbound.pop() else {
                break;
            };
            work += 1;
            let connection = self.connection_of(outbound.link);
            match outbound.what {
                OutboundKind::Journaled { position, deadline } => match connection {
                    Some(at) => {
                        let (view, link) = (&self.parts.view, self.links[at as usize].as_mut());
                        if let Some(link) = link {
                            link.outgoing
                                .push_journaled(deadline, |frame| view.copy(position, frame));
                        }
                        self.mark_dirty(at);
                    }
                    None => {
                        let mut frame = [0; size_of::<PaymentRequest>()];
                        self.parts.view.copy(position, &mut frame);
                        let request: PaymentRequest = bytemuck::pod_read_unaligned(&frame);
                        self.not_sent(request.body.id, Code::LinkDown);
                    }
                },
                OutboundKind::Waited { frame, deadline } => match connection {
                    Some(at) => {
                        if let Some(link) = &mut self.links[at as usize] {
                            link.outgoing.push_request(&frame, deadline);
                        }
                        self.mark_dirty(at);
                    }
                    None => {
                        let request: PaymentRequest = bytemuck::pod_read_unaligned(&frame);
                        self.not_sent(request.body.id, Code::LinkDown);
                    }
                },
                OutboundKind::Frame {
                    template,
                    bytes,
                    settles,
                } => {
                    let Some(at) = connection else { continue };
                    if let Some(link) = &mut self.links[at as usize] {
                        link.outgoing.push_frame(template, &bytes[..template.length()]);
                        link.in_flight = link.in_flight.saturating_sub(u32::from(settles));
                    }
                    self.mark_dirty(at);
                }
                OutboundKind::Mark { position } => {
                    self.parts.positions.set_copied_out(self.parts.index as usize, position)
                }
                OutboundKind::Cut { code } => {
                    if let Some(at) = connection {
                        self.cut(at, code);
                    }
                }
            }
        }
        work
    }

    fn not_sent(&mut self, id: PaymentId, code: Code) {
        add(&self.parts.counters.not_sent, 1);
        self.push_priority(Intake::NotSent { id, code });
    }

    fn mark_dirty(&mut self, at: u32) {
        if let Some(link) = &mut self.links[at as usize]
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(at);
        }
    }

    /// One send a link, of all that came together.
    fn flush(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for &at in &dirty {
            let Some(link) = &mut self.links[at as usize] else {
                continue;
            };
            link.dirty = false;
            if !link.outgoing.is_sending() {
                self.send_pending(at);
            }
            self.check_backlog(at);
        }
        let mut dirty = dirty;
        dirty.clear();
        // A link cut in the loop above may have marked itself again.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn send_pending(&mut self, at: u32) {
        let Some(link) = &mut self.links[at as usize] else {
            return;
        };
        let mut expired = Vec::new();
        let taken = link.outgoing.take(self.now, |id| expired.push(id));
        if let Some((bytes, frames)) = taken {
            link.session.said(self.now);
            add(&self.parts.counters.frames_sent, u64::from(frames));
            add(&self.parts.counters.sends, 1);
            self.parts.driver.send(Connection(at), bytes);
        }
        for id in expired {
            self.not_sent(id, Code::OverLinkCapacity);
        }
    }

    /// A peer that does not take what its own contract allows is told why and cut.
    fn check_backlog(&mut self, at: u32) {
        let over = self.links[at as usize]
            .as_ref()
            .is_some_and(|link| !link.closing && link.outgoing.backlog_bytes() > link.backlog_bytes_max);
        if over {
            self.cut(at, TerminateCode::SlowReader);
        }
    }

    // ---- ends ----------------------------------------------------------------------------------------------------

    /// Tells the peer why, as far as it can be told, and closes.
    fn cut(&mut self, at: u32, code: TerminateCode) {
        let Some(link) = self.links[at as usize].as_mut().filter(|link| !link.closing) else {
            return;
        };
        let participant = link
            .counted
            .map(|p| self.parts.directory.participants[p.index()].terms.code);
        tracing::info!(
            link = link.id.0,
            participant = participant.map(|code| code.text()),
            code = code as u8,
            "link cut: {}",
            code.text()
        );
        self.give_back_requests(at);
        if let Some(link) = &mut self.links[at as usize] {
            link.session.terminate(code, link.outgoing.session_bytes());
        }
        add(&self.parts.counters.cut, 1);
        self.close(at);
    }

    fn close(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_mut().filter(|link| !link.closing) else {
            return;
        };
        link.closing = true;
        if !link.outgoing.is_sending() {
            self.send_pending(at);
        }
        self.leave(at);
        self.parts.driver.close(Connection(at));
    }

    /// The link counts no more: dispatch forgets it, its unsent requests go back.
    fn leave(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_mut() else {
            return;
        };
        link.closing = true;
        link.receiving = false;
        let (id, counted, standing) = (
            link.id,
            link.counted.take(),
            std::mem::replace(&mut link.standing, Standing::Gone),
        );
        self.give_back_requests(at);
        if let Some(participant) = counted {
            self.parts.link_counts[participant.index()].fetch_sub(1, Ordering::Relaxed);
        }
        match standing {
            Standing::HalfOpen => self.half_open -= 1,
            Standing::Up => {
                sub(&self.parts.counters.established, 1);
                self.tell_dispatch(LinkChange::Down { link: id });
            }
            Standing::Gone => {}
        }
    }

    /// Requests of which no byte was handed to the kernel were not sent.
    fn give_back_requests(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_mut() else {
            return;
        };
        let mut ids = Vec::new();
        link.outgoing.take_back_requests(|id| ids.push(id));
        for id in ids {
            self.not_sent(id, Code::LinkDown);
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------------

    fn look_at_clocks(&mut self) -> usize {
        if self.now < self.timers_due {
            return 0;
        }
        let mut earliest = UtcNanos::NEVER;
        for at in 0..self.links.len() {
            let Some(link) = self.links[at].as_mut().filter(|link| !link.closing) else {
                continue;
            };
            let words = &self.parts.next_words;
            let event = link.session.on_time(
                self.now,
                |participant| next_word(words, participant),
                link.outgoing.session_bytes(),
            );
            earliest = earliest.min(link.session.deadline());
            let wrote = !link.outgoing.is_empty();
            if let SessionEvent::End(code) = event {
                self.cut(at as u32, code);
            } else if wrote {
                self.mark_dirty(at as u32);
            }
        }
        self.timers_due = earliest.max(self.now.plus(TIMER_GRAIN_NS));
        1
    }
}

impl Agent for LinkAgent {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        self.now = self.parts.clock.now();
        let polled = self.parts.driver.poll(&mut self.completions);
        polled.map_err(|error| AgentError::new("link", format!("the I/O driver failed: {error}")))?;
        let mut work = self.take_completions();
        work += self.retry_deferred();
        work += self.take_buffers_home();
        work += self.take_outbound();
        work += self.look_at_clocks();
        if !self.dirty.is_empty() {
            self.flush();
        }
        if work > 0 {
            self.parts.rings.requests.notify();
            let calls = self.parts.driver.system_calls();
            self.parts.counters.system_calls.store(calls, Ordering::Relaxed);
        }
        Ok(work)
    }

    fn on_close(&mut self) {
        // What was handed over before the stop still goes out.
        while self.take_outbound() > 0 {
            self.flush();
        }
        for at in 0..self.links.len() as u32 {
            self.cut(at, TerminateCode::ShuttingDown);
        }
        self.parts.driver.stop_listening();
        // One more round, so that the kernel takes what was handed to the driver.
        let _ = self.parts.driver.poll(&mut self.completions);
        self.completions.clear();
    }

    fn role_name(&self) -> &str {
        "link"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        let due = self.timers_due;
        let timers = (due != UtcNanos::NEVER).then(|| Duration::from_nanos(due.since(self.parts.clock.now())));
        let held_back = !self.deferred.is_empty()
            || !self.deferred_priority.is_empty()
            || !self.deferred_changes.is_empty()
            || !self.deferred_queries.is_empty();
        // Who makes room in a ring does not tell its producers.
        let retry = held_back.then_some(RETRY_PAUSE);
        timers.into_iter().chain(retry).min()
    }

    fn park(&mut self, _wakeup: &Wakeup, limit: Option<Duration>) {
        // A fault shows again at the next poll, which reports it.
        let _ = self.parts.driver.wait(limit, &mut self.completions);
    }

    fn parks_in_driver(&self) -> bool {
        true
    }
}

/// Looks a Negotiate up, and counts the link if the participant may have one more.
fn identify(
    directory: &Directory,
    link_counts: &[AtomicU16],
    code: &SchemeCode,
    credential: &[u8; 32],
) -> Result<Identity, TerminateCode> {
    let entry = directory.by_code(code).ok_or(TerminateCode::UnknownParticipant)?;
    // blake3::Hash compares in constant time.
    if blake3::hash(credential) != blake3::Hash::from_bytes(entry.credential_hash) {
        return Err(TerminateCode::CredentialRefused);
    }
    let role = Role::from_u8(entry.terms.role).ok_or(TerminateCode::UnknownParticipant)?;
    let count = &link_counts[entry.terms.index.index()];
    if count.fetch_add(1, Ordering::Relaxed) >= entry.links_max {
        count.fetch_sub(1, Ordering::Relaxed);
        return Err(TerminateCode::TooManyLinks);
    }
    Ok(Identity {
        participant: entry.terms.index,
        role,
        intake_in_flight_max: entry.intake_in_flight_max,
        intake_per_second_max: entry.intake_per_second_max,
        request_in_flight_max: entry.request_in_flight_max,
        request_per_second_max: entry.request_per_second_max,
    })
}

fn next_word(words: &[AtomicU64], participant: ParticipantIndex) -> u64 {
    words[participant.index()].load(Ordering::Relaxed)
}

/// Moves items from the front as long as `push` takes them.
fn drain_into<T>(deferred: &mut VecDeque<T>, mut push: impl FnMut(&T) -> bool) -> usize {
    let mut moved = 0;
    while deferred.front().is_some_and(&mut push) {
        deferred.pop_front();
        moved += 1;
    }
    moved
}
