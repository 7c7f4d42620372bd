//! The switch's side of a session, sans-I/O: frames and times in, frames and events out.
//!
//! ```text
//!  Connected ──Negotiate──▶ Negotiated ──Establish──▶ Established ──Terminate, silence, fault──▶ Ended
//! ```
//! After FIXP: Negotiate says who, Establish starts the flow, Sequence is the heartbeat, Terminate ends with a code.

use crate::domain::{MILLISECOND, ParticipantIndex, Role, SchemeCode, UtcNanos};
use crate::wire::{
    Establish, EstablishmentAck, EstablishmentReject, Frame, FrameError, Inquiry, Negotiate, NegotiationReject,
    NegotiationResponse, RetransmitRequest, Sequence, Template, Terminate, TerminateCode,
};

/// The keepalive interval a peer may ask for, milliseconds.
const KEEPALIVE_MS: std::ops::RangeInclusive<u32> = 1_000..=60_000;

/// Who a session's peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its dense number.
    pub participant: ParticipantIndex,
    /// What it is.
    pub role: Role,
    /// Payments it may have unanswered on this link.
    pub intake_in_flight_max: u32,
    /// Payments a second it may send over all its links; 0 = no limit.
    pub intake_per_second_max: u32,
    /// Requests it takes unanswered on this link.
    pub request_in_flight_max: u32,
    /// Requests a second it takes over all its links; 0 = no limit.
    pub request_per_second_max: u32,
}

/// The times of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionTimes {
    /// Negotiate and Establish must have come by then, nanoseconds after the connection.
    pub handshake_ns: u64,
    /// The longest silence the switch keeps, milliseconds.
    pub keepalive_ms: u32,
}

/// What a frame or the clock means for the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionEvent {
    /// Nothing for others to do.
    None,
    /// The flow has started.
    Established {
        /// The contract toward the participant.
        in_flight_max: u32,
        /// Requests a second; 0 = no limit.
        per_second_max: u32,
        /// Send words again from this number; `None` = none.
        words_from: Option<u64>,
    },
    /// The contract toward the participant changed.
    Contract {
        /// Requests unanswered.
        in_flight_max: u32,
        /// Requests a second; 0 = no limit.
        per_second_max: u32,
    },
    /// Send words again.
    Words {
        /// The first.
        from: u64,
        /// How many.
        count: u32,
    },
    /// A question about a payment.
    Inquiry(crate::domain::PaymentId, u64),
    /// The session has ended: tell the peer (unless it ended it) and close.
    End(TerminateCode),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connected,
    Negotiated(Identity),
    Established(Identity),
    Ended,
}

/// One link's session.
#[derive(Debug)]
pub struct Session {
    state: State,
    session_id: u64,
    times: SessionTimes,
    /// The longest silence the peer keeps, nanoseconds.
    peer_keepalive_ns: u64,
    connected_at: UtcNanos,
    heard_at: UtcNanos,
    said_at: UtcNanos,
}

impl Session {
    /// The session of a link that was accepted at `now`.
    #[must_use]
    pub fn new(times: SessionTimes, now: UtcNanos) -> Self {
        Self {
            state: State::Connected,
            session_id: 0,
            times,
            peer_keepalive_ns: 0,
            connected_at: now,
            heard_at: now,
            said_at: now,
        }
    }

    /// The peer, once the flow has started.
    #[must_use]
    #[inline]
    pub fn established(&self) -> Option<&Identity> {
        match &self.state {
            State::Established(identity) => Some(identity),
            State::Connected | State::Negotiated(_) | State::Ended => None,
        }
    }

    /// The peer, once it has negotiated.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match &self.state {
            State::Negotiated(identity) | State::Established(identity) => Some(identity),
            State::Connected | State::Ended => None,
        }
    }

    /// True when the session has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Notes that whole frames came.
    #[inline]
    pub fn heard(&mut self, now: UtcNanos) {
        self.heard_at = now;
    }

    /// Notes that something was sent, so that no heartbeat is due.
    #[inline]
    pub fn said(&mut self, now: UtcNanos) {
        self.said_at = now;
    }

    /// Takes a checked frame that is not a payment request or reply. `identify` looks a Negotiate up; `next_word` is the
    /// number the participant's next word will have. What is to be sent is appended to `out`.
    pub fn on_frame(
        &mut self,
        template: Template,
        frame: &[u8],
        now: UtcNanos,
        identify: impl FnOnce(&SchemeCode, &[u8; 32]) -> Result<Identity, TerminateCode>,
        next_word: impl FnOnce(ParticipantIndex) -> u64,
        out: &mut Vec<u8>,
    ) -> SessionEvent {
        self.heard_at = now;
        match (self.state, template) {
            (State::Connected, Template::Negotiate) => self.negotiate(&Negotiate::read(frame), now, identify, out),
            (State::Connected, _) => self.end(TerminateCode::NotNegotiated),
            (State::Negotiated(identity), Template::Establish) => {
                self.establish(identity, &Establish::read(frame), now, next_word, out)
            }
            (_, Template::Terminate) => self.end(TerminateCode::Finished),
            (State::Negotiated(_), Template::Sequence) | (State::Established(_), Template::Sequence) => {
                SessionEvent::None
            }
            (State::Negotiated(_), _) => self.end(TerminateCode::NotEstablished),
            (State::Established(_), Template::RetransmitRequest) => {
                let request = RetransmitRequest::read(frame);
                SessionEvent::Words {
                    from: request.from_word,
                    count: request.count,
                }
            }
            (State::Established(_), Template::Inquiry) => {
                let inquiry = Inquiry::read(frame);
                SessionEvent::Inquiry(inquiry.id, inquiry.reference)
            }
            (State::Established(identity), Template::Credit) => {
                let credit = crate::wire::Credit::read(frame);
                let (in_flight_max, per_second_max) = contract(&identity, credit.in_flight, credit.per_second);
                SessionEvent::Contract {
                    in_flight_max,
                    per_second_max,
                }
            }
            (State::Established(_), _) => self.end(TerminateCode::UnexpectedFrame),
            (State::Ended, _) => SessionEvent::None,
        }
    }

    /// Looks at the clock: ends a silent or half-open session, appends a heartbeat when one is due.
    pub fn on_time(
        &mut self,
        now: UtcNanos,
        next_word: impl FnOnce(ParticipantIndex) -> u64,
        out: &mut Vec<u8>,
    ) -> SessionEvent {
        match self.state {
            State::Connected | State::Negotiated(_) => {
                if now.since(self.connected_at) >= self.times.handshake_ns {
                    return self.end(TerminateCode::HandshakeTimeout);
                }
            }
            State::Established(identity) => {
                if now.since(self.heard_at) >= 3 * self.peer_keepalive_ns {
                    return self.end(TerminateCode::KeepaliveExpired);
                }
                if now >= self.heartbeat_due() {
                    let next_word = next_word(identity.participant);
                    let sequence = Sequence {
                        next_word,
                        ..bytemuck::Zeroable::zeroed()
                    };
                    out.extend_from_slice(bytemuck::bytes_of(&sequence.sealed()));
                    self.said_at = now;
                }
            }
            State::Ended => {}
        }
        SessionEvent::None
    }

    /// When [`Session::on_time`] must be called next.
    #[must_use]
    pub fn deadline(&self) -> UtcNanos {
        match self.state {
            State::Connected | State::Negotiated(_) => self.connected_at.plus(self.times.handshake_ns),
            State::Established(_) => self.heartbeat_due().min(self.heard_at.plus(3 * self.peer_keepalive_ns)),
            State::Ended => UtcNanos::NEVER,
        }
    }

    /// Ends the session for a reason of the switch's own and appends the Terminate that says so.
    pub fn terminate(&mut self, code: TerminateCode, out: &mut Vec<u8>) {
        let terminate = Terminate {
            session_id: self.session_id,
            code: code as u8,
            ..bytemuck::Zeroable::zeroed()
        };
        out.extend_from_slice(bytemuck::bytes_of(&terminate.sealed()));
        self.state = State::Ended;
    }

    fn heartbeat_due(&self) -> UtcNanos {
        // A tenth early, so that a loop that looks only now and then is still in time.
        self.said_at
            .plus(u64::from(self.times.keepalive_ms) * MILLISECOND * 9 / 10)
    }

    fn negotiate(
        &mut self,
        request: &Negotiate,
        now: UtcNanos,
        identify: impl FnOnce(&SchemeCode, &[u8; 32]) -> Result<Identity, TerminateCode>,
        out: &mut Vec<u8>,
    ) -> SessionEvent {
        self.session_id = request.session_id;
        let identity = if request.session_id == 0 {
            Err(TerminateCode::FieldInvalid)
        } else {
            identify(&request.code, &request.credential)
        };
        self.said_at = now;
        match identity {
            Ok(identity) => {
                let response = NegotiationResponse {
                    session_id: request.session_id,
                    timestamp_ns: now.0,
                    participant: identity.participant,
                    role: identity.role as u8,
                    ..bytemuck::Zeroable::zeroed()
                };
                out.extend_from_slice(bytemuck::bytes_of(&response.sealed()));
                self.state = State::Negotiated(identity);
                SessionEvent::None
            }
            Err(code) => {
                let reject = NegotiationReject {
                    session_id: request.session_id,
                    code: code as u8,
                    ..bytemuck::Zeroable::zeroed()
                };
                out.extend_from_slice(bytemuck::bytes_of(&reject.sealed()));
                self.end(code)
            }
        }
    }

    fn establish(
        &mut self,
        identity: Identity,
        request: &Establish,
        now: UtcNanos,
        next_word: impl FnOnce(ParticipantIndex) -> u64,
        out: &mut Vec<u8>,
    ) -> SessionEvent {
        self.said_at = now;
        if request.session_id != self.session_id || !KEEPALIVE_MS.contains(&request.keepalive_ms) {
            let reject = EstablishmentReject {
                session_id: request.session_id,
                code: TerminateCode::FieldInvalid as u8,
                ..bytemuck::Zeroable::zeroed()
            };
            out.extend_from_slice(bytemuck::bytes_of(&reject.sealed()));
            return self.end(TerminateCode::FieldInvalid);
        }
        self.peer_keepalive_ns = u64::from(request.keepalive_ms) * MILLISECOND;
        self.state = State::Established(identity);
        let next_word = next_word(identity.participant);
        let ack = EstablishmentAck {
            session_id: self.session_id,
            timestamp_ns: now.0,
            next_word,
            keepalive_ms: self.times.keepalive_ms,
            credit_in_flight: identity.intake_in_flight_max,
            credit_per_second: identity.intake_per_second_max,
            ..bytemuck::Zeroable::zeroed()
        };
        out.extend_from_slice(bytemuck::bytes_of(&ack.sealed()));
        let (in_flight_max, per_second_max) = contract(&identity, request.credit_in_flight, request.credit_per_second);
        SessionEvent::Established {
            in_flight_max,
            per_second_max,
            words_from: (request.last_word != u64::MAX).then(|| request.last_word + 1),
        }
    }

    fn end(&mut self, code: TerminateCode) -> SessionEvent {
        self.state = State::Ended;
        SessionEvent::End(code)
    }
}

/// The lower of what the directory allows and what the participant asks for; 0 asks for the directory's.
fn contract(identity: &Identity, in_flight: u32, per_second: u32) -> (u32, u32) {
    let lower = |limit: u32, asked: u32| match (limit, asked) {
        (0, asked) => asked,
        (limit, 0) => limit,
        (limit, asked) => limit.min(asked),
    };
    (
        lower(identity.request_in_flight_max, in_flight),
        lower(identity.request_per_second_max, per_second),
    )
}

impl From<FrameError> for TerminateCode {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Header => Self::BadHeader,
            FrameError::Template(_) => Self::UnknownTemplate,
            FrameError::Length { .. } => Self::BadLength,
            FrameError::Crc => Self::BadCrc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SECOND;
    use bytemuck::Zeroable;

    const NOW: UtcNanos = UtcNanos(1_000 * SECOND);
    const TIMES: SessionTimes = SessionTimes {
        handshake_ns: 5 * SECOND,
        keepalive_ms: 10_000,
    };

    fn bank() -> Identity {
        Identity {
            participant: ParticipantIndex(200),
            role: Role::Bank,
            intake_in_flight_max: 100,
            intake_per_second_max: 0,
            request_in_flight_max: 64,
            request_per_second_max: 0,
        }
    }

    fn feed(session: &mut Session, frame: &impl Frame, now: UtcNanos, out: &mut Vec<u8>) -> SessionEvent {
        let bytes = bytemuck::bytes_of(frame);
        let template = crate::wire::decode(bytes).unwrap().unwrap().0;
        session.on_frame(template, bytes, now, |_, _| Ok(bank()), |_| 7, out)
    }

    fn established() -> (Session, Vec<u8>) {
        let (mut session, mut out) = (Session::new(TIMES, NOW), Vec::new());
        let negotiate = Negotiate {
            session_id: 9,
            ..Zeroable::zeroed()
        }
        .sealed();
        assert_eq!(feed(&mut session, &negotiate, NOW, &mut out), SessionEvent::None);
        let establish = Establish {
            session_id: 9,
            keepalive_ms: 2_000,
            last_word: 3,
            credit_in_flight: 8,
            ..Zeroable::zeroed()
        };
        let event = feed(&mut session, &establish.sealed(), NOW, &mut out);
        let expected = SessionEvent::Established {
            in_flight_max: 8,
            per_second_max: 0,
            words_from: Some(4),
        };
        assert_eq!(event, expected);
        (session, out)
    }

    #[test]
    fn a_session_negotiates_and_establishes() {
        let (session, out) = established();
        assert_eq!(session.established(), Some(&bank()));
        let response = NegotiationResponse::read(&out);
        assert_eq!((response.session_id, response.participant.0), (9, 200));
        let ack = EstablishmentAck::read(&out[48..]);
        assert_eq!(
            (ack.next_word, ack.credit_in_flight, ack.keepalive_ms),
            (7, 100, 10_000)
        );
    }

    #[test]
    fn a_session_that_does_not_begin_with_negotiate_ends() {
        let mut session = Session::new(TIMES, NOW);
        let event = feed(&mut session, &Sequence::zeroed().sealed(), NOW, &mut Vec::new());
        assert_eq!(event, SessionEvent::End(TerminateCode::NotNegotiated));
        assert!(session.has_ended());
    }

    #[test]
    fn a_refused_credential_is_told_and_ends_the_session() {
        let (mut session, mut out) = (Session::new(TIMES, NOW), Vec::new());
        let negotiate = Negotiate {
            session_id: 9,
            ..Zeroable::zeroed()
        }
        .sealed();
        let refuse = |_: &SchemeCode, _: &[u8; 32]| Err(TerminateCode::CredentialRefused);
        let bytes = bytemuck::bytes_of(&negotiate);
        let event = session.on_frame(Template::Negotiate, bytes, NOW, refuse, |_| 1, &mut out);
        assert_eq!(event, SessionEvent::End(TerminateCode::CredentialRefused));
        assert_eq!(
            NegotiationReject::read(&out).code,
            TerminateCode::CredentialRefused as u8
        );
    }

    #[test]
    fn a_half_open_session_ends_when_its_time_is_over() {
        let mut session = Session::new(TIMES, NOW);
        assert_eq!(session.deadline(), NOW.plus(5 * SECOND));
        assert_eq!(
            session.on_time(NOW.plus(4 * SECOND), |_| 1, &mut Vec::new()),
            SessionEvent::None
        );
        let event = session.on_time(NOW.plus(5 * SECOND), |_| 1, &mut Vec::new());
        assert_eq!(event, SessionEvent::End(TerminateCode::HandshakeTimeout));
    }

    #[test]
    fn a_quiet_switch_sends_heartbeats_and_a_silent_peer_is_cut_after_three_intervals() {
        let (mut session, _) = established();
        let mut out = Vec::new();
        assert_eq!(
            session.on_time(NOW.plus(5 * SECOND), |_| 12, &mut out),
            SessionEvent::None
        );
        assert!(out.is_empty(), "no heartbeat is due yet");
        assert_eq!(
            session.on_time(NOW.plus(6 * SECOND), |_| 12, &mut out),
            SessionEvent::End(TerminateCode::KeepaliveExpired),
            "its keepalive was 2 s"
        );
        let (mut session, _) = established();
        session.heard(NOW.plus(8 * SECOND));
        assert_eq!(
            session.on_time(NOW.plus(9 * SECOND), |_| 12, &mut out),
            SessionEvent::None
        );
        assert_eq!(Sequence::read(&out).next_word, 12);
    }

    #[test]
    fn a_frame_out_of_place_ends_the_session() {
        let (mut session, mut out) = established();
        let event = feed(&mut session, &EstablishmentAck::zeroed().sealed(), NOW, &mut out);
        assert_eq!(event, SessionEvent::End(TerminateCode::UnexpectedFrame));
        let (mut session, _) = established();
        let event = feed(&mut session, &Terminate::zeroed().sealed(), NOW, &mut out);
        assert_eq!(event, SessionEvent::End(TerminateCode::Finished));
    }
}
