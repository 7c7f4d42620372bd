//! The links of all simulated participants: connecting, sessions, heartbeats, and which frame is whose.

use std::io;

use super::load::Load;
use super::random::mix;
use super::session::{Session, SessionEnd, SessionState, SessionStep};
use crate::domain::ParticipantIndex;
use crate::io::{Connection, StreamEvents};
use crate::wire::{
    Answer, FinalNotice, Frame, InquiryAnswer, PaymentRequest, Reversal, StatusRequest, Template, decode,
};

/// The first and the longest pause before a lost link is connected again.
const RECONNECT_NS: (u64, u64) = (20_000_000, 2_000_000_000);
/// No link has this number.
pub(super) const NO_LINK: u32 = u32::MAX;

/// One link of a participant, up or not.
pub(super) struct Link {
    participant: ParticipantIndex,
    pub(super) connection: Option<Connection>,
    pub(super) session: Session,
    connect_at_ns: u64,
    pause_ns: u64,
}

impl Link {
    /// A link that is to be connected at once.
    pub(super) const fn new(participant: ParticipantIndex, session: Session) -> Self {
        Self {
            participant,
            connection: None,
            session,
            connect_at_ns: 0,
            pause_ns: RECONNECT_NS.0,
        }
    }
}

impl Load {
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
        if let Some(connection) = link.connection {
            self.outbox.clear(connection);
        }
    }

    /// Sends what a session has written.
    fn say_session_bytes(&mut self, index: usize) {
        if let Some(connection) = self.links[index].connection
            && !self.session_bytes.is_empty()
        {
            self.outbox.append(connection, &self.session_bytes);
        }
        self.session_bytes.clear();
    }

    /// Sends heartbeats, and leaves a switch that is silent.
    pub(super) fn tick_sessions(&mut self) {
        for index in 0..self.links.len() {
            let result = self.links[index].session.on_tick(self.now_ns, &mut self.session_bytes);
            match result {
                Ok(()) => self.say_session_bytes(index),
                Err(end) => {
                    self.end_session(index, end);
                    self.to_close.extend(self.links[index].connection);
                }
            }
        }
    }

    /// Says goodbye on every link.
    pub(super) fn finish_sessions(&mut self) {
        self.finishing = true;
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            let was = link.session.state();
            link.session.finish(self.now_ns, &mut self.session_bytes);
            match was {
                SessionState::Down => {}
                SessionState::Negotiating | SessionState::Establishing => self.connecting -= 1,
                SessionState::Established => self.established -= 1,
            }
            self.say_session_bytes(index);
        }
    }

    #[inline]
    fn on_frame(&mut self, index: usize, template: Template, frame: &[u8]) -> Result<(), SessionEnd> {
        let now_ns = self.now_ns;
        let link = &mut self.links[index];
        let participant = link.participant;
        let step = link
            .session
            .on_frame(template, frame, now_ns, &mut self.session_bytes)?;
        if !self.session_bytes.is_empty() {
            self.say_session_bytes(index);
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
            Template::FinalNotice => self.on_final_notice(participant, &FinalNotice::read(frame)),
            Template::InquiryAnswer => self.on_inquiry_answer(participant, &InquiryAnswer::read(frame)),
            // These change nothing.
            Template::Retransmission | Template::Credit => {}
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

    #[inline]
    pub(super) fn link_at(&self, connection: Connection) -> Option<usize> {
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
                    .start(session_id, utc_ns, last_word, self.now_ns, &mut self.session_bytes);
                self.outbox.open(connection);
                self.say_session_bytes(index);
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
        self.outbox.sent(connection, bytes);
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
        self.pause(index);
    }
}
