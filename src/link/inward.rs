//! What comes in on a link agent's sockets: frames found, checked at the door, and handed on as runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use super::agent::{BACKLOG_SLACK_BYTES, LinkAgent, Standing};
use super::counters::add;
use super::door;
use super::session::{Identity, SessionEvent};
use crate::config::Directory;
use crate::domain::{Code, LinkId, ParticipantIndex, PaymentId, Role, SchemeCode};
use crate::io::{BufferGroup, Connection, HEADROOM};
use crate::wire::{
    BufferRef, FrameRun, InquiryAnswer, Intake, LinkChange, PaymentRequest, Query, Template, TerminateCode, decode,
};

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
    pub(super) fn received(&mut self, connection: Connection, buffer: u16, length: u32) {
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
                && self.parts.rates[identity.participant.index()].payments.take(self.now);
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
        let (roster, counts, words) = (&self.parts.roster, &self.parts.link_counts, &self.parts.next_words);
        let event = link.session.on_frame(
            template,
            frame,
            self.now,
            |code, credential| identify(&roster.current(), counts, code, credential),
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
        let within = self.parts.rates[participant.index()].inquiries.take(self.now);
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

    pub(super) fn push_priority(&mut self, intake: Intake) {
        if !self.deferred_priority.is_empty() || self.parts.rings.priority.push(intake).is_err() {
            self.deferred_priority.push_back(intake);
        }
    }

    pub(super) fn tell_dispatch(&mut self, change: LinkChange) {
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
    pub(super) fn retry_deferred(&mut self) -> usize {
        let rings = &self.parts.rings;
        let runs = drain_into(&mut self.deferred, |run| {
            rings.requests.push(Intake::Frames(*run)).is_ok()
        });
        let priority = drain_into(&mut self.deferred_priority, |intake| {
            rings.priority.push(*intake).is_ok()
        });
        let changes = drain_into(&mut self.deferred_changes, |change| rings.changes.push(*change).is_ok());
        if changes > 0 {
            rings.changes.notify();
        }
        let queries = drain_into(&mut self.deferred_queries, |query| rings.queries.push(*query).is_ok());
        if queries > 0 {
            rings.queries.notify();
        }
        runs + priority + changes + queries
    }

    pub(super) fn take_buffers_home(&mut self) -> usize {
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
    if count.fetch_add(1, Ordering::Relaxed) >= entry.terms.contract.links_max {
        count.fetch_sub(1, Ordering::Relaxed);
        return Err(TerminateCode::TooManyLinks);
    }
    Ok(Identity {
        participant: entry.terms.index,
        role,
        intake_in_flight_max: entry.terms.contract.intake_in_flight_max,
        intake_per_second_max: entry.terms.contract.intake_per_second_max,
        request_in_flight_max: entry.terms.contract.request_in_flight_max,
        request_per_second_max: entry.terms.contract.request_per_second_max,
    })
}

pub(super) fn next_word(words: &[AtomicU64], participant: ParticipantIndex) -> u64 {
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
