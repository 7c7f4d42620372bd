//! What goes out on a link agent's sockets, how links end, and what their clocks ask for.

use std::sync::atomic::Ordering;

use super::agent::{LinkAgent, Standing};
use super::counters::{add, sub};
use super::inward::next_word;
use super::outgoing::TakenBack;
use super::session::SessionEvent;
use crate::domain::{Code, LinkId, MILLISECOND, ParticipantIndex, PaymentId, UtcNanos};
use crate::io::Connection;
use crate::wire::{
    Intake, LinkChange, OutboundKind, PaymentRequest, RequestEvent, Seat, StatusRequest, TerminateCode, Unsent,
};

/// One send is no longer: of the requests in a send that gets stuck, none can go by another link.
const SEND_BYTES_MAX: usize = 64 << 10;
/// Outbound entries taken per duty cycle.
const OUTBOUND_BATCH: usize = 8_192;
/// Session clocks are looked at no more often than this.
const TIMER_GRAIN_NS: u64 = 50 * MILLISECOND;
/// Links are looked at for requests behind a stuck send no more often than this.
const CLOG_GRAIN_NS: u64 = 2 * MILLISECOND;

impl LinkAgent {
    pub(super) fn take_outbound(&mut self) -> usize {
        let mut work = 0;
        while work < OUTBOUND_BATCH {
            let Some(outbound) = self.parts.rings.outbound.pop() else {
                break;
            };
            work += 1;
            let connection = self.connection_of(outbound.link);
            match outbound.what {
                OutboundKind::Journaled {
                    seat,
                    position,
                    deadline,
                } => {
                    let view = &self.parts.view;
                    let frame = RequestEvent::frame(|record| view.copy(position, record));
                    self.queue_request(connection, outbound.link, seat, deadline, frame);
                }
                OutboundKind::Waited { seat, frame, deadline } => {
                    self.queue_request(connection, outbound.link, seat, deadline, frame);
                }
                OutboundKind::Status { to, request } => self.queue_status_request(connection, to, request),
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

    /// Appends a request to what its link is to send; where that link has ended or is clogged, another may send it.
    #[inline]
    fn queue_request(
        &mut self,
        connection: Option<u32>,
        id: LinkId,
        seat: Seat,
        deadline: UtcNanos,
        frame: [u8; size_of::<PaymentRequest>()],
    ) {
        if let Some(at) = connection
            && let Some(link) = self.links[at as usize].as_mut().filter(|link| !link.clogged)
        {
            link.outgoing.push_request(seat, &frame, deadline);
            if link.outgoing.is_sending() {
                self.clogs_due = self.clogs_due.min(deadline.plus(1));
            }
            self.mark_dirty(at);
            return;
        }
        self.tell_dispatch(LinkChange::Unsent(Unsent {
            link: id,
            seat,
            deadline,
            frame,
        }));
    }

    /// As [`LinkAgent::queue_request`].
    fn queue_status_request(&mut self, connection: Option<u32>, to: ParticipantIndex, request: StatusRequest) {
        if let Some(at) = connection
            && let Some(link) = self.links[at as usize].as_mut().filter(|link| !link.clogged)
        {
            link.outgoing.push_status_request(to, &request);
            self.mark_dirty(at);
            return;
        }
        self.tell_dispatch(LinkChange::UnsentStatus { to, request });
    }

    /// A request whose time had passed when its turn to be sent came.
    fn expired_unsent(&mut self, id: PaymentId) {
        add(&self.parts.counters.not_sent, 1);
        self.push_priority(Intake::NotSent {
            id,
            code: Code::OverLinkCapacity,
        });
    }

    pub(super) fn mark_dirty(&mut self, at: u32) {
        if let Some(link) = &mut self.links[at as usize]
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(at);
        }
    }

    /// One send a link, of all that came together.
    pub(super) fn flush(&mut self) {
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
        let bytes_max = if link.closing { usize::MAX } else { SEND_BYTES_MAX };
        let taken = link.outgoing.take(self.now, bytes_max, |id| expired.push(id));
        if let Some((bytes, frames)) = taken {
            link.session.said(self.now);
            add(&self.parts.counters.frames_sent, u64::from(frames));
            add(&self.parts.counters.sends, 1);
            self.parts.driver.send(Connection(at), bytes);
            self.timers_due = self.timers_due.min(self.now.plus(self.parts.limits.send_timeout_ns));
        }
        for id in expired {
            self.expired_unsent(id);
        }
    }

    /// A peer that does not take what its own contract allows is told why and cut.
    pub(super) fn check_backlog(&mut self, at: u32) {
        let over = self.links[at as usize]
            .as_ref()
            .is_some_and(|link| !link.closing && link.outgoing.backlog_bytes() > link.backlog_bytes_max);
        if over {
            self.cut(at, TerminateCode::SlowReader);
        }
    }

    /// Tells the peer why, as far as it can be told, and closes.
    pub(super) fn cut(&mut self, at: u32, code: TerminateCode) {
        let Some(link) = self.links[at as usize].as_mut().filter(|link| !link.closing) else {
            return;
        };
        let entry = link.counted.and_then(|p| self.parts.roster.entry(p));
        tracing::info!(
            link = link.id.0,
            participant = entry.map(|entry| entry.terms.code.text()),
            code = code as u8,
            "link cut: {}",
            code.text()
        );
        self.part(at);
        if let Some(link) = &mut self.links[at as usize] {
            link.session.terminate(code, link.outgoing.session_bytes());
        }
        add(&self.parts.counters.cut, 1);
        self.close(at);
    }

    pub(super) fn close(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_mut().filter(|link| !link.closing) else {
            return;
        };
        link.closing = true;
        let is_sending = link.outgoing.is_sending();
        self.part(at);
        if !is_sending {
            self.send_pending(at);
        }
        self.leave(at);
        self.parts.driver.close(Connection(at));
    }

    /// The link counts no more.
    pub(super) fn leave(&mut self, at: u32) {
        self.part(at);
        let Some(link) = self.links[at as usize].as_mut() else {
            return;
        };
        link.closing = true;
        link.receiving = false;
        if let Some(participant) = link.counted.take() {
            self.parts.link_counts[participant.index()].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Dispatch forgets the link, and then gets back what other links may send: in this order, so that it does not send
    /// it here again.
    fn part(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_mut() else {
            return;
        };
        let id = link.id;
        match std::mem::replace(&mut link.standing, Standing::Gone) {
            Standing::HalfOpen => self.half_open -= 1,
            Standing::Up => {
                sub(&self.parts.counters.established, 1);
                self.tell_dispatch(LinkChange::Down { link: id });
            }
            Standing::Gone => {}
        }
        self.hand_back(at);
    }

    /// Dispatch gets back the requests and status requests of which no byte was handed to the kernel.
    fn hand_back(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_mut() else {
            return;
        };
        let id = link.id;
        let mut unsent = Vec::new();
        link.outgoing.take_back(|taken| {
            unsent.push(match taken {
                TakenBack::Request(seat, deadline, frame) => LinkChange::Unsent(Unsent {
                    link: id,
                    seat,
                    deadline,
                    frame: *frame,
                }),
                TakenBack::Status(to, request) => LinkChange::UnsentStatus { to, request },
            });
        });
        for change in unsent {
            self.tell_dispatch(change);
        }
    }

    /// Finds links where a request has waited past its time behind a send that does not complete. All that waits there
    /// goes back to dispatch, which answers what is too old and gives other links the rest; the link gets no more until
    /// the send is complete.
    pub(super) fn look_for_clogs(&mut self) -> usize {
        if self.now < self.clogs_due {
            return 0;
        }
        let mut earliest = UtcNanos::NEVER;
        for at in 0..self.links.len() {
            let Some(link) = self.links[at].as_mut().filter(|link| !link.closing) else {
                continue;
            };
            let deadline = link.outgoing.deadline_behind_send();
            if deadline >= self.now {
                earliest = earliest.min(deadline.plus(1));
                continue;
            }
            link.clogged = true;
            let id = link.id;
            add(&self.parts.counters.clogged, 1);
            self.tell_dispatch(LinkChange::Clogged { link: id });
            self.hand_back(at as u32);
        }
        self.clogs_due = earliest.max(self.now.plus(CLOG_GRAIN_NS));
        1
    }

    pub(super) fn look_at_clocks(&mut self) -> usize {
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
            let send_due = link
                .outgoing
                .sending_since()
                .map_or(UtcNanos::NEVER, |since| since.plus(self.parts.limits.send_timeout_ns));
            earliest = earliest.min(link.session.deadline()).min(send_due);
            let wrote = !link.outgoing.is_empty();
            if let SessionEvent::End(code) = event {
                self.cut(at as u32, code);
            } else if send_due <= self.now {
                self.cut(at as u32, TerminateCode::SlowReader);
            } else if wrote {
                self.mark_dirty(at as u32);
            }
        }
        self.timers_due = earliest.max(self.now.plus(TIMER_GRAIN_NS));
        1
    }
}
