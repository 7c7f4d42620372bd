//! The participant's side of a session, sans I/O: frames in, bytes to send out.

use thiserror::Error;

use crate::domain::{ParticipantIndex, SchemeCode};
use crate::wire::{
    Establish, EstablishmentAck, EstablishmentReject, Frame, FrameHeader, Negotiate, NegotiationReject,
    NegotiationResponse, Sequence, Template, Terminate, TerminateCode,
};

const MILLISECOND_NS: u64 = 1_000_000;

/// Who a session says it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The number the directory gives the participant; the switch must say the same.
    pub index: ParticipantIndex,
    /// Its public code.
    pub code: SchemeCode,
    /// The secret whose hash the directory holds.
    pub credential: [u8; 32],
}

/// How far a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// No link.
    Down,
    /// Negotiate is out.
    Negotiating,
    /// Establish is out.
    Establishing,
    /// Frames flow.
    Established,
}

/// What a frame meant to the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionStep {
    /// One step of the handshake.
    Handshake,
    /// The flow has started.
    Established {
        /// The number the switch's next new word will have.
        next_word: u64,
        /// Payments the switch takes unanswered on this link.
        credit_in_flight: u32,
    },
    /// A heartbeat.
    Heartbeat {
        /// The number the switch's next new word will have.
        next_word: u64,
    },
    /// A frame that is not the session's own business.
    Flow,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SessionEnd {
    /// The switch refused the session.
    #[error("refused: {}", .0.text())]
    Refused(TerminateCode),
    /// The switch ended the session.
    #[error("ended by the switch: {}", .0.text())]
    Terminated(TerminateCode),
    /// The switch gave a code this version does not know.
    #[error("ended by the switch with code {0}, which this version does not know")]
    UnknownCode(u8),
    /// The switch takes the session for another participant's.
    #[error("the switch says this is participant {said}, the directory says {expected}")]
    WrongParticipant {
        /// What the switch said.
        said: ParticipantIndex,
        /// What the directory says.
        expected: ParticipantIndex,
    },
    /// A frame that has no place here.
    #[error("{0:?} has no place in the session's state")]
    Unexpected(Template),
    /// Nothing came for three of the switch's own keepalive intervals.
    #[error("the switch has been silent for {0} ms")]
    Silent(u64),
}

impl SessionEnd {
    /// True when connecting again can't help.
    #[must_use]
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::WrongParticipant { .. } | Self::UnknownCode(_) | Self::Unexpected(_) => true,
            Self::Silent(_) => false,
            Self::Refused(code) | Self::Terminated(code) => !matches!(
                code,
                TerminateCode::Finished
                    | TerminateCode::KeepaliveExpired
                    | TerminateCode::HandshakeTimeout
                    | TerminateCode::SlowReader
                    | TerminateCode::ShuttingDown
                    | TerminateCode::Starting
                    | TerminateCode::SwitchFull
            ),
        }
    }
}

/// One session of a participant.
#[derive(Debug)]
pub struct Session {
    identity: Identity,
    keepalive_ms: u32,
    state: SessionState,
    session_id: u64,
    last_word: u64,
    switch_keepalive_ns: u64,
    last_sent_ns: u64,
    last_received_ns: u64,
}

impl Session {
    /// A session that has no link yet and will keep silent for `keepalive_ms` at most.
    #[must_use]
    pub const fn new(identity: Identity, keepalive_ms: u32) -> Self {
        Self {
            identity,
            keepalive_ms,
            state: SessionState::Down,
            session_id: 0,
            last_word: u64::MAX,
            switch_keepalive_ns: u64::MAX,
            last_sent_ns: 0,
            last_received_ns: 0,
        }
    }

    /// How far the session is.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.state
    }

    /// Begins on a fresh link. `last_word` is the last word the participant has without a gap, or `u64::MAX` for none
    /// wanted again.
    pub fn start(&mut self, session_id: u64, utc_ns: u64, last_word: u64, now_ns: u64, out: &mut Vec<u8>) {
        self.state = SessionState::Negotiating;
        self.session_id = session_id;
        self.last_word = last_word;
        self.last_received_ns = now_ns;
        let negotiate = Negotiate {
            header: FrameHeader::new(Template::Negotiate, size_of::<Negotiate>()),
            session_id,
            timestamp_ns: utc_ns,
            code: self.identity.code,
            reserved: [0; 2],
            credential: self.identity.credential,
        };
        self.write(&negotiate.sealed(), now_ns, out);
    }

    /// Forgets the link.
    pub fn link_lost(&mut self) {
        self.state = SessionState::Down;
    }

    /// Notes that frames of the flow were sent.
    #[inline]
    pub fn note_sent(&mut self, now_ns: u64) {
        self.last_sent_ns = now_ns;
    }

    /// Takes a whole, checked frame; answers go to `out`.
    ///
    /// # Errors
    /// Why the session is over; the link is to be closed.
    #[inline]
    pub fn on_frame(
        &mut self,
        template: Template,
        frame: &[u8],
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<SessionStep, SessionEnd> {
        self.last_received_ns = now_ns;
        match (template, self.state) {
            (
                Template::Answer
                | Template::PaymentRequest
                | Template::StatusRequest
                | Template::Reversal
                | Template::FinalNotice
                | Template::InquiryAnswer
                | Template::Retransmission
                | Template::Credit,
                SessionState::Established,
            ) => Ok(SessionStep::Flow),
            (Template::Sequence, SessionState::Established) => Ok(SessionStep::Heartbeat {
                next_word: Sequence::read(frame).next_word,
            }),
            (Template::NegotiationResponse, SessionState::Negotiating) => {
                self.on_negotiated(&NegotiationResponse::read(frame), now_ns, out)
            }
            (Template::EstablishmentAck, SessionState::Establishing) => {
                let ack = EstablishmentAck::read(frame);
                self.state = SessionState::Established;
                self.switch_keepalive_ns = u64::from(ack.keepalive_ms) * MILLISECOND_NS;
                Ok(SessionStep::Established {
                    next_word: ack.next_word,
                    credit_in_flight: ack.credit_in_flight,
                })
            }
            (Template::NegotiationReject, _) => Err(refused(NegotiationReject::read(frame).code)),
            (Template::EstablishmentReject, _) => Err(refused(EstablishmentReject::read(frame).code)),
            (Template::Terminate, _) => {
                let code = Terminate::read(frame).code;
                Err(TerminateCode::from_u8(code).map_or(SessionEnd::UnknownCode(code), SessionEnd::Terminated))
            }
            (unexpected, _) => Err(SessionEnd::Unexpected(unexpected)),
        }
    }

    fn on_negotiated(
        &mut self,
        response: &NegotiationResponse,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<SessionStep, SessionEnd> {
        if response.participant != self.identity.index {
            return Err(SessionEnd::WrongParticipant {
                said: response.participant,
                expected: self.identity.index,
            });
        }
        self.state = SessionState::Establishing;
        let establish = Establish {
            header: FrameHeader::new(Template::Establish, size_of::<Establish>()),
            session_id: self.session_id,
            timestamp_ns: response.timestamp_ns,
            last_word: self.last_word,
            keepalive_ms: self.keepalive_ms,
            credit_in_flight: 0,
            credit_per_second: 0,
            reserved: [0; 12],
        };
        self.write(&establish.sealed(), now_ns, out);
        Ok(SessionStep::Handshake)
    }

    /// Writes a heartbeat when one is due. Called a few times per keepalive interval.
    ///
    /// # Errors
    /// [`SessionEnd::Silent`] when the switch has not been heard of for three of its intervals.
    pub fn on_tick(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Result<(), SessionEnd> {
        if self.state != SessionState::Established {
            return Ok(());
        }
        let silent_ns = now_ns.saturating_sub(self.last_received_ns);
        if silent_ns > self.switch_keepalive_ns.saturating_mul(3) {
            return Err(SessionEnd::Silent(silent_ns / MILLISECOND_NS));
        }
        // A quarter early: the tick itself comes only now and then.
        if now_ns.saturating_sub(self.last_sent_ns) >= u64::from(self.keepalive_ms) * MILLISECOND_NS / 4 * 3 {
            let sequence = Sequence {
                header: FrameHeader::new(Template::Sequence, size_of::<Sequence>()),
                next_word: 0,
                reserved: [0; 8],
            };
            self.write(&sequence.sealed(), now_ns, out);
        }
        Ok(())
    }

    /// Ends the session in good order.
    pub fn finish(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        if self.state != SessionState::Down {
            let terminate = Terminate {
                header: FrameHeader::new(Template::Terminate, size_of::<Terminate>()),
                session_id: self.session_id,
                code: TerminateCode::Finished as u8,
                reserved: [0; 7],
            };
            self.write(&terminate.sealed(), now_ns, out);
            self.state = SessionState::Down;
        }
    }

    fn write<F: Frame>(&mut self, frame: &F, now_ns: u64, out: &mut Vec<u8>) {
        self.last_sent_ns = now_ns;
        out.extend_from_slice(bytemuck::bytes_of(frame));
    }
}

fn refused(code: u8) -> SessionEnd {
    TerminateCode::from_u8(code).map_or(SessionEnd::UnknownCode(code), SessionEnd::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Role;
    use crate::wire::decode;

    fn identity() -> Identity {
        Identity {
            index: ParticipantIndex(7),
            code: SchemeCode::parse("Z2007933000010").unwrap(),
            credential: [9; 32],
        }
    }

    fn response(participant: u16) -> NegotiationResponse {
        NegotiationResponse {
            header: FrameHeader::new(Template::NegotiationResponse, size_of::<NegotiationResponse>()),
            session_id: 1,
            timestamp_ns: 5,
            participant: ParticipantIndex(participant),
            role: Role::Institution as u8,
            reserved: [0; 13],
        }
        .sealed()
    }

    fn established(last_word: u64) -> (Session, Vec<u8>) {
        let (mut session, mut out) = (Session::new(identity(), 4_000), Vec::new());
        session.start(1, 2, last_word, 0, &mut out);
        let step = session.on_frame(
            Template::NegotiationResponse,
            bytemuck::bytes_of(&response(7)),
            0,
            &mut out,
        );
        assert_eq!(step, Ok(SessionStep::Handshake));
        let ack = EstablishmentAck {
            header: FrameHeader::new(Template::EstablishmentAck, size_of::<EstablishmentAck>()),
            session_id: 1,
            timestamp_ns: 5,
            next_word: 43,
            keepalive_ms: 1_000,
            credit_in_flight: 64,
            credit_per_second: 0,
            reserved: [0; 12],
        }
        .sealed();
        let step = session.on_frame(Template::EstablishmentAck, bytemuck::bytes_of(&ack), 0, &mut out);
        assert_eq!(
            step,
            Ok(SessionStep::Established {
                next_word: 43,
                credit_in_flight: 64
            })
        );
        (session, out)
    }

    #[test]
    fn the_handshake_says_who_and_from_which_word() {
        let (session, out) = established(42);
        assert_eq!(session.state(), SessionState::Established);
        assert_eq!(decode(&out), Ok(Some((Template::Negotiate, 80))));
        assert_eq!(decode(&out[80..]), Ok(Some((Template::Establish, 64))));
        assert_eq!(Negotiate::read(&out).code, identity().code);
        assert_eq!(Establish::read(&out[80..]).last_word, 42);
    }

    #[test]
    fn a_session_taken_for_another_participants_ends() {
        let (mut session, mut out) = (Session::new(identity(), 4_000), Vec::new());
        session.start(1, 2, 0, 0, &mut out);
        let end = session
            .on_frame(
                Template::NegotiationResponse,
                bytemuck::bytes_of(&response(8)),
                0,
                &mut out,
            )
            .unwrap_err();
        assert!(end.is_lasting(), "{end}");
    }

    #[test]
    fn payments_before_establish_have_no_place() {
        let (mut session, mut out) = (Session::new(identity(), 4_000), Vec::new());
        session.start(1, 2, 0, 0, &mut out);
        assert_eq!(
            session.on_frame(Template::Answer, &[0; 96], 0, &mut out),
            Err(SessionEnd::Unexpected(Template::Answer))
        );
    }

    #[test]
    fn a_silent_session_sends_heartbeats_and_a_silent_switch_is_left() {
        let (mut session, _) = established(0);
        let mut out = Vec::new();
        session.on_tick(2_900_000_000, &mut out).unwrap();
        assert!(out.is_empty());
        session.on_tick(3_000_000_000, &mut out).unwrap();
        assert_eq!(decode(&out), Ok(Some((Template::Sequence, 32))));
        assert_eq!(session.on_tick(3_100_000_000, &mut out), Err(SessionEnd::Silent(3_100)));
    }
}
