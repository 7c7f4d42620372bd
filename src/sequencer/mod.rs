//! The sequencer: event numbers, the clock, the append position.
//!
//! It copies each frame once, from the buffer it was received in into the journal, and gives it number and time. Replies,
//! NotSent and windows go first, through a ring that is never refused; requests go second and only they push back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytemuck::NoUninit;

use crate::agent::{Agent, AgentError, RETRY_PAUSE, Ring, SwitchClock, Wakeup};
use crate::domain::{MILLISECOND, UtcNanos};
use crate::io::BufferShare;
use crate::journal::{Appender, Full};
use crate::wire::{
    FindingEvent, FrameRun, Intake, IntakeStamp, NotSentEvent, OrderEvent, PaymentRequest, RecordKind, Reply,
    ReplyEvent, RequestEvent,
};

/// Frames taken per duty cycle and ring, so that no loop keeps others from their turn for long.
const FRAMES_PER_CYCLE: usize = 8_192;
/// Findings taken per duty cycle.
const FINDINGS_PER_CYCLE: usize = 1_024;
/// Orders taken per duty cycle: they are few, and never keep payments from their turn.
const ORDERS_PER_CYCLE: usize = 16;
/// What one open payment may still append: a reply, a status reply, a NotSent.
const BYTES_PER_OPEN_PAYMENT: u64 = 320;
/// Room kept beside that for ticks, windows and groups.
const ROOM_RESERVED_BYTES: u64 = 256 * 1024;
/// After this long without an append the closing Group is written.
const QUIET_NS: u64 = 2 * MILLISECOND;

/// What clearing tells the sequencer.
#[derive(Debug)]
pub struct LedgerPulse {
    /// The earliest deadline at which a timer changes something, UTC nanoseconds; `u64::MAX` = none.
    pub next_deadline_ns: AtomicU64,
    /// Payments not final.
    pub open_payments: AtomicU64,
}

impl Default for LedgerPulse {
    fn default() -> Self {
        Self {
            next_deadline_ns: AtomicU64::new(u64::MAX),
            open_payments: AtomicU64::new(0),
        }
    }
}

/// What the sequencer is made of.
pub struct SequencerParts {
    /// The journal's append position.
    pub appender: Appender,
    /// Payment requests.
    pub requests: Arc<Ring<Intake>>,
    /// Everything else.
    pub priority: Arc<Ring<Intake>>,
    /// What the register found.
    pub findings: Arc<Ring<FindingEvent>>,
    /// What operators order.
    pub orders: Arc<Ring<OrderEvent>>,
    /// The receive buffers of each link agent.
    pub shares: Vec<Arc<BufferShare>>,
    /// Wakes link agents whose buffers went home.
    pub homes: Vec<Arc<Ring<u16>>>,
    /// The clock; the sequencer alone slews it.
    pub clock: SwitchClock,
    /// What clearing tells.
    pub pulse: Arc<LedgerPulse>,
    /// The syncer's wake-up.
    pub syncer: Arc<Wakeup>,
}

/// The sequencer.
pub struct Sequencer {
    parts: SequencerParts,
    held_request: Option<FrameRun>,
    held_priority: Option<Intake>,
    held_finding: Option<FindingEvent>,
    held_order: Option<OrderEvent>,
    /// The last time given to an event.
    time: UtcNanos,
    appended_at: UtcNanos,
    slewed_at: UtcNanos,
    quiet: bool,
}

impl Sequencer {
    /// A sequencer that goes on after an event of time `last_time`.
    #[must_use]
    pub fn new(parts: SequencerParts, last_time: UtcNanos) -> Self {
        let now = parts.clock.now();
        Self {
            parts,
            held_request: None,
            held_priority: None,
            held_finding: None,
            held_order: None,
            time: last_time,
            appended_at: now,
            slewed_at: now,
            quiet: false,
        }
    }

    fn take_priority(&mut self) -> usize {
        let mut work = 0;
        while work < FRAMES_PER_CYCLE {
            let Some(intake) = self.held_priority.take().or_else(|| self.parts.priority.pop()) else {
                break;
            };
            let (done, rest) = self.append(intake);
            work += done;
            if rest.is_some() {
                self.held_priority = rest;
                break;
            }
        }
        work
    }

    /// What waits for a finding goes before new payments.
    fn take_findings(&mut self) -> usize {
        let mut work = 0;
        while work < FINDINGS_PER_CYCLE {
            let Some(finding) = self.held_finding.take().or_else(|| self.parts.findings.pop()) else {
                break;
            };
            let write = |payload: &mut [u8]| payload.copy_from_slice(bytemuck::bytes_of(&finding));
            let appended = self
                .parts
                .appender
                .append(RecordKind::Finding, self.time, size_of::<FindingEvent>(), write);
            if appended.is_err() {
                self.held_finding = Some(finding);
                break;
            }
            work += 1;
        }
        work
    }

    /// In the order in which they came; between events of payments, never instead of one.
    fn take_orders(&mut self) -> usize {
        let mut work = 0;
        while work < ORDERS_PER_CYCLE {
            let Some(order) = self.held_order.take().or_else(|| self.parts.orders.pop()) else {
                break;
            };
            let write = |payload: &mut [u8]| payload.copy_from_slice(bytemuck::bytes_of(&order));
            let appended = self
                .parts
                .appender
                .append(RecordKind::Order, self.time, size_of::<OrderEvent>(), write);
            if appended.is_err() {
                self.held_order = Some(order);
                break;
            }
            work += 1;
        }
        work
    }

    fn take_requests(&mut self) -> usize {
        let open = self.parts.pulse.open_payments.load(Ordering::Relaxed);
        // What was appended and not applied yet is not among the open payments, and each 160 bytes of it may become one.
        let not_applied = self.parts.appender.position() - self.parts.appender.positions().applied();
        let mut reserve = open * BYTES_PER_OPEN_PAYMENT + 2 * not_applied + ROOM_RESERVED_BYTES;
        let mut work = 0;
        while work < FRAMES_PER_CYCLE {
            if self.held_request.is_none() {
                match self.parts.requests.pop() {
                    Some(Intake::Frames(run)) => self.held_request = Some(run),
                    Some(Intake::NotSent { .. } | Intake::Window(_) | Intake::DaySealed(_)) => {
                        unreachable!("requests alone push back")
                    }
                    None => break,
                }
            }
            let Some(run) = self.held_request.take() else { break };
            let frames = (run.end - run.start) as u64 / size_of::<PaymentRequest>() as u64;
            reserve += frames * BYTES_PER_OPEN_PAYMENT;
            if self.parts.appender.room() < reserve {
                self.held_request = Some(run);
                break;
            }
            let (done, rest) = self.append(Intake::Frames(run));
            work += done;
            if let Some(Intake::Frames(rest)) = rest {
                self.held_request = Some(rest);
                break;
            }
        }
        work
    }

    /// Appends what fits; gives back the rest when the journal is full.
    fn append(&mut self, intake: Intake) -> (usize, Option<Intake>) {
        match intake {
            Intake::Frames(run) => {
                let (done, rest) = self.append_frames(run);
                (done, rest.map(Intake::Frames))
            }
            Intake::NotSent { id, code } => {
                self.append_other(RecordKind::NotSent, &NotSentEvent::new(id, code), intake)
            }
            Intake::Window(event) => self.append_other(RecordKind::Window, &event, intake),
            Intake::DaySealed(event) => self.append_other(RecordKind::DaySealed, &event, intake),
        }
    }

    fn append_other<E: NoUninit>(&mut self, kind: RecordKind, event: &E, intake: Intake) -> (usize, Option<Intake>) {
        let write = |payload: &mut [u8]| payload.copy_from_slice(bytemuck::bytes_of(event));
        match self.parts.appender.append(kind, self.time, size_of::<E>(), write) {
            Ok(_) => (1, None),
            Err(Full) => (0, Some(intake)),
        }
    }

    fn append_frames(&mut self, run: FrameRun) -> (usize, Option<FrameRun>) {
        let share = &self.parts.shares[run.buffer.agent as usize];
        let (appender, time) = (&mut self.parts.appender, self.time);
        let (start, end) = (run.start as usize, run.end as usize);
        let (done, at) = share.read(run.buffer.buffer, start, end, |bytes| {
            let (mut done, mut at) = (0, 0);
            while at < bytes.len() {
                let length = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
                let frame = &bytes[at..at + length];
                let appended = if length == size_of::<PaymentRequest>() {
                    append_request(appender, time, &run, frame)
                } else {
                    append_reply(appender, time, &run, frame)
                };
                if appended.is_err() {
                    break;
                }
                done += 1;
                at += length;
            }
            (done, at)
        });
        if at == end - start {
            share.let_go(run.buffer.buffer);
            return (done, None);
        }
        (
            done,
            Some(FrameRun {
                start: run.start + at as u32,
                ..run
            }),
        )
    }

    /// Journals that time has passed, when a timer is due and nothing else said so.
    fn tick(&mut self, appended: usize) -> usize {
        let due = self.parts.pulse.next_deadline_ns.load(Ordering::Acquire);
        if appended > 0 || self.time.0 < due || self.appended_at.0 >= due {
            return 0;
        }
        usize::from(
            self.parts
                .appender
                .append(RecordKind::Tick, self.time, 0, |_| {})
                .is_ok(),
        )
    }
}

fn append_request(appender: &mut Appender, time: UtcNanos, run: &FrameRun, frame: &[u8]) -> Result<(), Full> {
    let write = |payload: &mut [u8]| {
        payload.copy_from_slice(frame);
        let crc = u32::from_le_bytes([frame[12], frame[13], frame[14], frame[15]]);
        let stamp = IntakeStamp {
            received_ns: run.received.0,
            link: run.link.0,
            crc,
        };
        payload[..size_of::<IntakeStamp>()].copy_from_slice(bytemuck::bytes_of(&stamp));
    };
    appender
        .append(RecordKind::Request, time, size_of::<RequestEvent>(), write)
        .map(|_| ())
}

fn append_reply(appender: &mut Appender, time: UtcNanos, run: &FrameRun, frame: &[u8]) -> Result<(), Full> {
    let write = |payload: &mut [u8]| {
        let reply: Reply = bytemuck::pod_read_unaligned(frame);
        let event = ReplyEvent {
            received_ns: run.received.0,
            link: run.link.0,
            sender: run.participant.0,
            reserved: 0,
            body: reply.body,
        };
        payload.copy_from_slice(bytemuck::bytes_of(&event));
    };
    appender
        .append(RecordKind::Reply, time, size_of::<ReplyEvent>(), write)
        .map(|_| ())
}

impl Agent for Sequencer {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        let now = self.parts.clock.now();
        self.time = self.time.max(now);
        if now.since(self.slewed_at) >= 250 * MILLISECOND {
            self.slewed_at = now;
            if let Some(difference_ns) = self.parts.clock.slew() {
                tracing::warn!(
                    difference_ms = difference_ns / MILLISECOND as i64,
                    "the wall clock is away from the switch's clock: steps are not followed, check time synchronisation"
                );
            }
        }
        let mut work = self.take_priority();
        work += self.take_findings() + self.take_orders();
        let requests = self.take_requests();
        if work + requests > 0 {
            for home in &self.parts.homes {
                home.notify();
            }
        }
        work += requests;
        work += self.tick(work);
        if work > 0 {
            (self.appended_at, self.quiet) = (self.time, false);
        } else if !self.quiet && now.since(self.appended_at) >= QUIET_NS {
            // Nothing came for a while: once all is durable, one closing Group says so.
            let positions = self.parts.appender.positions();
            if positions.durable() == positions.appended() {
                self.quiet = true;
                work += usize::from(self.parts.appender.close_quiet_group());
            }
        }
        if self.parts.appender.publish() {
            self.parts.syncer.wake();
        }
        Ok(work)
    }

    fn role_name(&self) -> &str {
        "sequencer"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        let now = self.parts.clock.now();
        let positions = self.parts.appender.positions();
        let due = UtcNanos(self.parts.pulse.next_deadline_ns.load(Ordering::Acquire));
        // What was journaled at or after the deadline fires it when it is applied; looking again before helps nobody.
        let due = if self.appended_at < due { due } else { UtcNanos::NEVER };
        let quiet_at = self.appended_at.plus(QUIET_NS);
        // Past that time only the syncer can change something, and it wakes this thread.
        let waits_for_write = now >= quiet_at && positions.durable() < positions.appended();
        let quiet = if self.quiet || waits_for_write {
            UtcNanos::NEVER
        } else {
            quiet_at
        };
        let earliest = due.min(quiet);
        let deadline = (earliest != UtcNanos::NEVER).then(|| Duration::from_nanos(earliest.since(now)));
        if self.held_request.is_none()
            && self.held_priority.is_none()
            && self.held_finding.is_none()
            && self.held_order.is_none()
            && deadline != Some(Duration::ZERO)
        {
            return deadline;
        }
        // The journal is full: room comes with a prepared segment or a reader that went on, and neither wakes this thread.
        Some(deadline.map_or(RETRY_PAUSE, |deadline| deadline.clamp(RETRY_PAUSE / 10, RETRY_PAUSE)))
    }
}
