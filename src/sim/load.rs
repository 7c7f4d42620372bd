//! The participants' side of all links: sending, what is due, connecting, and which frame is whose.

use std::io;

use super::bank::BankHabits;
use super::books::Books;
use super::engine::{LoadOptions, ParticipantPlan};
use super::outcome::{Live, Outcomes};
use super::payment::{BankState, PaymentRecord, PaymentTable};
use super::random::mix;
use super::session::{Identity, Session, SessionEnd, SessionState, SessionStep};
use super::wheel::{Due, Wheel};
use super::words::WordTracker;
use super::workload::Intent;
use crate::domain::ParticipantIndex;
use crate::io::{Connection, StreamEvents};
use crate::wire::{
    Answer, Frame, FrameHeader, PaymentRequest, RequestFlags, RetransmitRequest, Reversal, StatusRequest, Template,
    decode,
};

/// The first and the longest pause before a lost link is connected again.
const RECONNECT_NS: (u64, u64) = (20_000_000, 2_000_000_000);
/// Heartbeats are looked at every 25th maintenance, four times a second.
const HEARTBEAT_EVERY: u32 = 25;
const NO_LINK: u32 = u32::MAX;

struct Link {
    participant: ParticipantIndex,
    connection: Option<Connection>,
    session: Session,
    pending: Vec<u8>,
    /// The emptied buffer of the last send.
    spare: Vec<u8>,
    sending: bool,
    dirty: bool,
    connect_at_ns: u64,
    pause_ns: u64,
}

pub(super) struct Participant {
    first_link: usize,
    links: usize,
    pub(super) words: WordTracker,
}

/// All simulated participants, their links, payments and books.
pub(super) struct Load {
    /// The round's time, nanoseconds of the engine's clock.
    pub(super) now_ns: u64,
    /// Initiators whose payments were answered, for closed loops.
    pub(super) answered: Vec<ParticipantIndex>,
    pub(super) run_start_ns: u64,
    utc_origin_ns: u64,
    retry_after_ns: u64,
    links: Vec<Link>,
    pub(super) participants: Vec<Participant>,
    link_of_connection: Vec<u32>,
    /// Links with something to say.
    dirty: Vec<u32>,
    to_close: Vec<Connection>,
    pub(super) payments: PaymentTable,
    pub(super) books: Books,
    pub(super) habits: BankHabits,
    pub(super) wheel: Wheel,
    fired: Vec<Due>,
    /// Payments whose reply is written but not yet handed to the driver.
    pub(super) replied: Vec<u32>,
    /// Payments before this one were looked at for being overdue.
    overdue_from: u32,
    overdue: Vec<(u32, u64)>,
    pub(super) outcomes: Outcomes,
    /// Payments that expired though their bank said yes: a Reversal of each must still come.
    pub(super) reversals_awaited: u64,
    maintenance: u32,
    established: usize,
    connecting: usize,
    ever_established: bool,
    finishing: bool,
    refusal: Option<(ParticipantIndex, SessionEnd)>,
    trouble: String,
}

impl Load {
    pub(super) fn new(
        plans: &[ParticipantPlan],
        habits: BankHabits,
        options: &LoadOptions,
        utc_origin_ns: u64,
    ) -> Self {
        let mut links = Vec::new();
        let mut participants = Vec::with_capacity(plans.len());
        for plan in plans {
            participants.push(Participant {
                first_link: links.len(),
                links: usize::from(plan.links),
                words: WordTracker::default(),
            });
            for _ in 0..plan.links {
                let identity = Identity {
                    index: plan.index,
                    code: plan.code,
                    credential: plan.credential,
                };
                links.push(Link {
                    participant: plan.index,
                    connection: None,
                    session: Session::new(identity, options.keepalive_ms),
                    pending: Vec::new(),
                    spare: Vec::new(),
                    sending: false,
                    dirty: false,
                    connect_at_ns: 0,
                    pause_ns: RECONNECT_NS.0,
                });
            }
        }
        Self {
            now_ns: 0,
            answered: Vec::new(),
            run_start_ns: 0,
            utc_origin_ns,
            retry_after_ns: options.retry_after.as_nanos() as u64,
            links,
            books: Books::new(participants.len()),
            participants,
            link_of_connection: Vec::new(),
            dirty: Vec::new(),
            to_close: Vec::new(),
            payments: PaymentTable::new(options.run, utc_origin_ns, options.currency),
            habits,
            wheel: Wheel::new(0),
            fired: Vec::new(),
            replied: Vec::new(),
            overdue_from: 0,
            overdue: Vec::new(),
            outcomes: Outcomes::default(),
            reversals_awaited: 0,
            maintenance: 0,
            established: 0,
            connecting: 0,
            ever_established: false,
            finishing: false,
            refusal: None,
            trouble: "none".into(),
        }
    }

    pub(super) fn links(&self) -> usize {
        self.links.len()
    }

    pub(super) fn established(&self) -> usize {
        self.established
    }

    pub(super) fn connecting(&self) -> usize {
        self.connecting
    }

    /// Links that have a connection.
    pub(super) fn open(&self) -> usize {
        self.links.iter().filter(|link| link.connection.is_some()).count()
    }

    pub(super) fn refusal(&self) -> Option<(ParticipantIndex, SessionEnd)> {
        self.refusal
    }

    pub(super) fn trouble(&self) -> &str {
        &self.trouble
    }

    pub(super) fn start_run(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.run_start_ns = now_ns;
        self.ever_established = true;
    }

    pub(super) fn end_run(&mut self) {
        self.outcomes.note_load_ended();
    }

    pub(super) fn roll(&mut self, live: &Live) {
        if self.ever_established {
            self.outcomes.roll(self.now_ns - self.run_start_ns, live);
        }
    }

    /// True when every payment is answered, every yes to an expired one is reversed, and nobody means to say more.
    pub(super) fn is_done(&self) -> bool {
        self.outcomes.in_flight() == 0 && self.wheel.waiting() == 0 && self.reversals_awaited == 0
    }

    pub(super) fn into_results(self) -> (Outcomes, Books) {
        (self.outcomes, self.books)
    }

    // ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Makes a payment: notes it and writes its request.
    #[inline]
    pub(super) fn issue(&mut self, intent: &Intent) {
        let number = self.payments.push(PaymentRecord {
            intended_ns: self.run_start_ns + intent.due_ns,
            amount_minor: intent.amount_minor,
            bank_ns: 0,
            initiator: intent.initiator,
            responder: intent.responder,
            scene: intent.scene,
            bank: BankState::Unknown,
            provoked: intent.provoked.map_or(PaymentRecord::NONE, |code| code as u8),
            code: PaymentRecord::NONE,
        });
        self.outcomes.note_offered();
        self.write_request(number, 0);
        match intent.repeat_after_ns {
            None => {}
            Some(0) => self.repeat(number),
            Some(after_ns) => self.wheel.set(self.now_ns + after_ns, Due::Repeat(number)),
        }
    }

    fn repeat(&mut self, number: u32) {
        self.outcomes.repeats_sent += 1;
        self.write_request(number, RequestFlags::POSSIBLE_RESEND);
    }

    fn retry(&mut self, number: u32) {
        if !self.payments.get(number).is_answered() {
            self.outcomes.retries_sent += 1;
            self.write_request(number, RequestFlags::POSSIBLE_RESEND);
        }
    }

    #[inline]
    fn write_request(&mut self, number: u32, flags: u8) {
        // Without a link the payment waits until it is overdue and is tried again.
        if let Some(link) = self.link_of(self.payments.get(number).initiator, number) {
            let request = self.payments.request(number, flags);
            self.write(link, &request);
        }
    }

    /// An established link of the participant; several take turns by the payment's number.
    #[inline]
    pub(super) fn link_of(&self, participant: ParticipantIndex, number: u32) -> Option<usize> {
        let participant = &self.participants[participant.index()];
        (0..participant.links)
            .map(|turn| participant.first_link + (number as usize + turn) % participant.links)
            .find(|&link| self.links[link].session.state() == SessionState::Established)
    }

    #[inline]
    pub(super) fn write<F: Frame>(&mut self, link: usize, frame: &F) {
        self.links[link].pending.extend_from_slice(bytemuck::bytes_of(frame));
        self.mark(link);
    }

    #[inline]
    fn mark(&mut self, index: usize) {
        let link = &mut self.links[index];
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(index as u32);
        }
    }

    /// The replies written in this round go to the driver now.
    #[inline]
    pub(super) fn note_handed(&mut self, handed_ns: u64) {
        for number in self.replied.drain(..) {
            let record = self.payments.get_mut(number);
            record.bank_ns = handed_ns.saturating_sub(record.bank_ns);
        }
    }

    /// The next link's bytes. A link whose last send is under way is left until that has ended.
    #[inline]
    pub(super) fn next_send(&mut self, now_ns: u64) -> Option<(Connection, Vec<u8>)> {
        while let Some(index) = self.dirty.pop() {
            let link = &mut self.links[index as usize];
            link.dirty = false;
            if let Some(connection) = link.connection
                && !link.sending
                && !link.pending.is_empty()
            {
                link.sending = true;
                link.session.note_sent(now_ns);
                let bytes = std::mem::replace(&mut link.pending, std::mem::take(&mut link.spare));
                return Some((connection, bytes));
            }
        }
        None
    }

    pub(super) fn next_close(&mut self) -> Option<Connection> {
        self.to_close.pop()
    }

    // ── what is due ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Banks reply and institutions repeat themselves.
    #[inline]
    pub(super) fn fire(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.fire(self.now_ns, &mut fired);
        for due in fired.drain(..) {
            match due {
                Due::Reply(number) => self.say_word(number),
                Due::Repeat(number) => self.repeat(number),
                Due::Retry(number) => self.retry(number),
            }
        }
        self.fired = fired;
    }

    /// Heartbeats, gaps in the words, overdue payments.
    pub(super) fn maintain(&mut self) {
        self.maintenance = self.maintenance.wrapping_add(1);
        if self.maintenance.is_multiple_of(HEARTBEAT_EVERY) {
            for index in 0..self.links.len() {
                let link = &mut self.links[index];
                let length = link.pending.len();
                if let Err(end) = link.session.on_tick(self.now_ns, &mut link.pending) {
                    self.end_session(index, end);
                    self.to_close.extend(self.links[index].connection);
                } else if self.links[index].pending.len() > length {
                    self.mark(index);
                }
            }
        }
        for index in 0..self.participants.len() {
            if let Some((from_word, count)) = self.participants[index].words.overdue_gap(self.now_ns)
                && let Some(link) = self.link_of(ParticipantIndex(index as u16), 0)
            {
                let request = RetransmitRequest {
                    header: FrameHeader::new(Template::RetransmitRequest, size_of::<RetransmitRequest>()),
                    from_word,
                    count,
                    reserved: [0; 20],
                };
                self.write(link, &request.sealed());
            }
        }
        self.retry_overdue();
    }

    fn retry_overdue(&mut self) {
        while self.overdue_from < self.payments.len() {
            let record = self.payments.get(self.overdue_from);
            if record.intended_ns + self.retry_after_ns > self.now_ns {
                break;
            }
            if !record.is_answered() {
                self.overdue.push((self.overdue_from, self.now_ns));
            }
            self.overdue_from += 1;
        }
        let mut overdue = std::mem::take(&mut self.overdue);
        overdue.retain_mut(|(number, due_ns)| {
            if self.payments.get(*number).is_answered() {
                return false;
            }
            if self.now_ns >= *due_ns {
                *due_ns = self.now_ns + self.retry_after_ns;
                self.retry(*number);
            }
            true
        });
        self.overdue = overdue;
    }

    // ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// A link that has none and is due to be connected.
    pub(super) fn link_to_connect(&self) -> Option<usize> {
        if self.finishing || self.established + self.connecting == self.links.len() {
            return None;
        }
        self.links
            .iter()
            .position(|link| link.connection.is_none() && link.connect_at_ns <= self.now_ns)
    }

    pub(super) fn connecting_on(&mut self, link: usize, connection: Connection) {
        let slot = connection.0 as usize;
        if self.link_of_connection.len() <= slot {
            self.link_of_connection.resize(slot + 1, NO_LINK);
        }
        self.link_of_connection[slot] = link as u32;
        self.links[link].connection = Some(connection);
        self.connecting += 1;
    }

    pub(super) fn could_not_connect(&mut self, link: usize, error: &io::Error) {
        self.trouble = format!("connect: {error}");
        self.pause(link);
    }

    fn pause(&mut self, link: usize) {
        let link = &mut self.links[link];
        link.connect_at_ns = self.now_ns + link.pause_ns;
        link.pause_ns = (link.pause_ns * 2).min(RECONNECT_NS.1);
    }

    /// The session is over; its connection is closed by the caller or gone already.
    fn end_session(&mut self, index: usize, end: SessionEnd) {
        let link = &mut self.links[index];
        self.trouble = format!("participant {}: {end}", link.participant);
        if end.is_lasting() && self.refusal.is_none() {
            self.refusal = Some((link.participant, end));
            let trouble = self.trouble.clone();
            self.outcomes.find(|| format!("a session ended for good: {trouble}"));
        }
        self.session_down(index);
    }

    fn session_down(&mut self, index: usize) {
        let link = &mut self.links[index];
        match link.session.state() {
            SessionState::Down => {}
            SessionState::Negotiating | SessionState::Establishing => self.connecting -= 1,
            SessionState::Established => {
                self.established -= 1;
                if self.ever_established && !self.finishing {
                    self.outcomes.links_lost += 1;
                }
            }
        }
        link.session.link_lost();
        link.pending.clear();
    }

    /// Says goodbye on every link.
    pub(super) fn finish_sessions(&mut self) {
        self.finishing = true;
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            let was = link.session.state();
            link.session.finish(self.now_ns, &mut link.pending);
            match was {
                SessionState::Down => {}
                SessionState::Negotiating | SessionState::Establishing => self.connecting -= 1,
                SessionState::Established => self.established -= 1,
            }
            self.mark(index);
        }
    }

    #[inline]
    fn on_frame(&mut self, index: usize, template: Template, frame: &[u8]) -> Result<(), SessionEnd> {
        let now_ns = self.now_ns;
        let link = &mut self.links[index];
        let length = link.pending.len();
        let participant = link.participant;
        let step = link.session.on_frame(template, frame, now_ns, &mut link.pending)?;
        if link.pending.len() > length {
            self.mark(index);
        }
        match step {
            SessionStep::Flow => self.on_flow(index, participant, template, frame),
            SessionStep::Handshake => Ok(()),
            SessionStep::Established { next_word, .. } => {
                self.connecting -= 1;
                self.established += 1;
                self.links[index].pause_ns = RECONNECT_NS.0;
                let words = &mut self.participants[participant.index()].words;
                if self.ever_established {
                    words.announce(next_word);
                } else {
                    words.start_at(next_word);
                }
                Ok(())
            }
            SessionStep::Heartbeat { next_word } => {
                self.participants[participant.index()].words.announce(next_word);
                Ok(())
            }
        }
    }

    #[inline]
    fn on_flow(
        &mut self,
        index: usize,
        participant: ParticipantIndex,
        template: Template,
        frame: &[u8],
    ) -> Result<(), SessionEnd> {
        match template {
            Template::Answer => self.on_answer(participant, &Answer::read(frame)),
            Template::PaymentRequest => self.on_request(participant, &PaymentRequest::read(frame)),
            Template::StatusRequest => self.on_status_request(index, participant, &StatusRequest::read(frame)),
            Template::Reversal => self.on_reversal(index, participant, &Reversal::read(frame)),
            // Nothing here asks for these, and they change nothing.
            Template::Retransmission | Template::Credit | Template::FinalNotice | Template::InquiryAnswer => {}
            Template::Negotiate
            | Template::NegotiationResponse
            | Template::NegotiationReject
            | Template::Establish
            | Template::EstablishmentAck
            | Template::EstablishmentReject
            | Template::Sequence
            | Template::RetransmitRequest
            | Template::Terminate
            | Template::Reply
            | Template::Inquiry => return Err(SessionEnd::Unexpected(template)),
        }
        Ok(())
    }

    fn link_at(&self, connection: Connection) -> Option<usize> {
        let link = *self.link_of_connection.get(connection.0 as usize)?;
        (link != NO_LINK).then_some(link as usize)
    }
}

impl StreamEvents for Load {
    fn connected(&mut self, connection: Connection, result: io::Result<()>) {
        let Some(index) = self.link_at(connection) else {
            return;
        };
        match result {
            Ok(()) => {
                let link = &mut self.links[index];
                let session_id = mix(self.utc_origin_ns ^ self.now_ns ^ ((index as u64) << 48)) | 1;
                let last_word = if self.ever_established {
                    self.participants[link.participant.index()].words.contiguous()
                } else {
                    u64::MAX
                };
                let utc_ns = self.utc_origin_ns + self.now_ns;
                link.session
                    .start(session_id, utc_ns, last_word, self.now_ns, &mut link.pending);
                self.mark(index);
            }
            Err(error) => {
                self.connecting -= 1;
                self.link_of_connection[connection.0 as usize] = NO_LINK;
                self.links[index].connection = None;
                self.could_not_connect(index, &error);
            }
        }
    }

    #[inline]
    fn received(&mut self, connection: Connection, bytes: &[u8]) -> Option<usize> {
        let index = self.link_at(connection)?;
        let mut read = 0;
        loop {
            match decode(&bytes[read..]) {
                Ok(Some((template, length))) => {
                    if let Err(end) = self.on_frame(index, template, &bytes[read..read + length]) {
                        self.end_session(index, end);
                        return None;
                    }
                    read += length;
                }
                Ok(None) => return Some(read),
                Err(error) => {
                    let participant = self.links[index].participant;
                    self.outcomes
                        .find(|| format!("participant {participant} got bytes that are no frame: {error}"));
                    self.session_down(index);
                    return None;
                }
            }
        }
    }

    #[inline]
    fn sent(&mut self, connection: Connection, bytes: Vec<u8>) {
        if let Some(index) = self.link_at(connection) {
            let link = &mut self.links[index];
            link.sending = false;
            link.spare = bytes;
            if !link.pending.is_empty() {
                self.mark(index);
            }
        }
    }

    fn closed(&mut self, connection: Connection, error: Option<io::Error>) {
        let Some(index) = self.link_at(connection) else {
            return;
        };
        if let Some(error) = error {
            self.trouble = format!("participant {}: {error}", self.links[index].participant);
        }
        self.session_down(index);
        self.link_of_connection[connection.0 as usize] = NO_LINK;
        let link = &mut self.links[index];
        link.connection = None;
        link.sending = false;
        self.pause(index);
    }
}
