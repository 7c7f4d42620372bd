//! The link agent: owns sockets, sessions and their buffers, and runs one driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use super::counters::{LinkCounters, add, sub};
use super::outgoing::Outgoing;
use super::roster::Roster;
use super::session::{Session, SessionTimes};
use crate::agent::{
    Agent, AgentError, Bucket, IntakeGate, IntakeState, RETRY_PAUSE, Ring, SharedBucket, SwitchClock, Wakeup,
};
use crate::config::Directory;
use crate::domain::{LinkContract, LinkId, MILLISECOND, ParticipantIndex, UtcNanos};
use crate::io::{BufferShare, Completion, Connection, Driver};
use crate::journal::{Positions, TailView};
use crate::wire::{FRAME_BYTES_MAX, FrameRun, Intake, LinkChange, Outbound, Query, TerminateCode};

/// Credit and RetransmitRequest frames a second that a link may send: each makes work for another stage.
const SESSION_REQUESTS_PER_SECOND: u32 = 1_000;

/// Bytes a link may leave unread beside what its contract lets the switch send.
pub(super) const BACKLOG_SLACK_BYTES: usize = 256 * 1024;

/// Limits of one link agent.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// Connections that have not established yet.
    pub half_open_max: usize,
    /// Receive buffers one link may hold before it is not read any more.
    pub buffers_per_link_max: u16,
    /// Session times.
    pub times: SessionTimes,
    /// A link that has not taken a send whole by then is cut, nanoseconds.
    pub send_timeout_ns: u64,
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

/// What one participant may send, over all its links and so on all link agents together.
#[derive(Debug)]
pub struct IntakeRates {
    /// Payments.
    pub payments: SharedBucket,
    /// Inquiries.
    pub inquiries: SharedBucket,
}

impl IntakeRates {
    /// Of every participant, by index, with room for `room` of them.
    #[must_use]
    pub fn of(directory: &Directory, room: usize) -> Arc<[Self]> {
        let contracts = directory.participants.iter().map(|entry| entry.terms.contract);
        let unused = std::iter::repeat_with(bytemuck::Zeroable::zeroed);
        let contracts = contracts.chain(unused).take(room);
        contracts
            .map(|contract: LinkContract| Self {
                payments: SharedBucket::for_taking(contract.intake_per_second_max),
                inquiries: SharedBucket::for_taking(contract.inquiries_per_second_max),
            })
            .collect()
    }

    /// The contract has changed; what was taken stays taken.
    pub(super) fn set(&self, contract: &LinkContract) {
        self.payments.set_rate(contract.intake_per_second_max);
        self.inquiries.set_rate(contract.inquiries_per_second_max);
    }
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
    pub roster: Arc<Roster>,
    /// Whether new payments are taken.
    pub gate: Arc<IntakeGate>,
    /// The clock.
    pub clock: SwitchClock,
    /// Per participant, the number its next word will have; clearing writes it.
    pub next_words: Arc<[AtomicU64]>,
    /// Per participant, its links on all link agents.
    pub link_counts: Arc<[AtomicU16]>,
    /// Per participant, what it may send a second.
    pub rates: Arc<[IntakeRates]>,
    /// Limits.
    pub limits: LinkLimits,
    /// Counts.
    pub counters: Arc<LinkCounters>,
}

/// The link agent.
pub struct LinkAgent {
    pub(super) parts: LinkAgentParts,
    pub(super) links: Vec<Option<Link>>,
    pub(super) generations: Vec<u16>,
    pub(super) completions: Vec<Completion>,
    /// Which link each receive buffer that is out came on.
    pub(super) buffer_links: Vec<LinkId>,
    pub(super) deferred: VecDeque<FrameRun>,
    pub(super) deferred_priority: VecDeque<Intake>,
    pub(super) deferred_changes: VecDeque<LinkChange>,
    pub(super) deferred_queries: VecDeque<Query>,
    pub(super) dirty: Vec<u32>,
    pub(super) half_open: usize,
    pub(super) timers_due: UtcNanos,
    /// No request behind a send that is with the kernel has a deadline before this.
    pub(super) clogs_due: UtcNanos,
    pub(super) now: UtcNanos,
}

pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) session: Session,
    pub(super) outgoing: Outgoing,
    /// The unfinished end of what was received.
    pub(super) carry: [u8; FRAME_BYTES_MAX],
    pub(super) carry_bytes: u8,
    /// Receive buffers out for this link.
    pub(super) buffers_held: u16,
    pub(super) receiving: bool,
    pub(super) dirty: bool,
    pub(super) closing: bool,
    /// Dispatch has been told that its send does not complete.
    pub(super) clogged: bool,
    pub(super) standing: Standing,
    /// Negotiated, and so counted among its participant's links.
    pub(super) counted: Option<ParticipantIndex>,
    pub(super) in_flight: u32,
    pub(super) session_rate: Bucket,
    pub(super) backlog_bytes_max: usize,
}

/// How a link counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not established yet: bounded for the whole agent.
    HalfOpen,
    /// Dispatch knows it.
    Up,
    /// Not counted any more.
    Gone,
}

impl LinkAgent {
    /// Puts the agent together.
    #[must_use]
    pub fn new(parts: LinkAgentParts) -> Self {
        let now = parts.clock.now();
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
            half_open: 0,
            timers_due: UtcNanos::NEVER,
            clogs_due: UtcNanos::NEVER,
            now,
            parts,
        }
    }

    fn link_id(&self, connection: Connection) -> LinkId {
        let slot = self.parts.index as usize * self.parts.connections_max + connection.0 as usize;
        LinkId::new(slot as u16, self.generations[connection.0 as usize])
    }

    pub(super) fn connection_of(&self, link: LinkId) -> Option<u32> {
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
            clogged: false,
            standing: Standing::HalfOpen,
            counted: None,
            in_flight: 0,
            session_rate: Bucket::for_taking(SESSION_REQUESTS_PER_SECOND),
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
            let (id, wrote) = (link.id, !link.outgoing.is_empty());
            let was_clogged = std::mem::take(&mut link.clogged) && !link.closing;
            if was_clogged {
                self.tell_dispatch(LinkChange::Clear { link: id });
            }
            if wrote {
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
        work += self.look_for_clogs();
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
        // A thread that was held up until now must not take requests for younger than they are.
        self.now = self.parts.clock.now();
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
        let due = self.timers_due.min(self.clogs_due);
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
