//! Session messages, after FIXP (FIX Performance Session Layer 1.1): Negotiate, Establish, Sequence, Terminate.

use bytemuck::{Pod, Zeroable};

use super::frame::{Frame, FrameHeader, Template};
use crate::domain::{ParticipantIndex, SchemeCode};

macro_rules! frames {
    ($($name:ident),+) => {
        $(impl Frame for $name { const TEMPLATE: Template = Template::$name; }
          const _: () = assert!(size_of::<$name>() == Template::$name.length());)+
    };
}

frames!(
    Negotiate,
    NegotiationResponse,
    NegotiationReject,
    Establish,
    EstablishmentAck,
    EstablishmentReject,
    Sequence,
    RetransmitRequest,
    Retransmission,
    Terminate,
    Credit
);

/// Participant → switch, first frame of a link.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Negotiate {
    /// Frame header.
    pub header: FrameHeader,
    /// Chosen by the participant, not zero, new for each link.
    pub session_id: u64,
    /// The participant's clock, UTC nanoseconds; for its own records.
    pub timestamp_ns: u64,
    /// Who it says it is.
    pub code: SchemeCode,
    /// Zero.
    pub reserved: [u8; 2],
    /// The secret whose BLAKE3 hash the directory holds.
    pub credential: [u8; 32],
}

/// Switch → participant: negotiated.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NegotiationResponse {
    /// Frame header.
    pub header: FrameHeader,
    /// As in Negotiate.
    pub session_id: u64,
    /// The switch's clock, UTC nanoseconds.
    pub timestamp_ns: u64,
    /// The participant's dense number: the originator of its payment ids.
    pub participant: ParticipantIndex,
    /// [`crate::domain::Role`] as a number.
    pub role: u8,
    /// Zero.
    pub reserved: [u8; 13],
}

/// Switch → participant: not negotiated; the link is closed.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NegotiationReject {
    /// Frame header.
    pub header: FrameHeader,
    /// As in Negotiate.
    pub session_id: u64,
    /// [`TerminateCode`] as a number.
    pub code: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Participant → switch: start the flow.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Establish {
    /// Frame header.
    pub header: FrameHeader,
    /// As in Negotiate.
    pub session_id: u64,
    /// The participant's clock, UTC nanoseconds.
    pub timestamp_ns: u64,
    /// The last word the participant has without a gap; the switch sends what follows. `u64::MAX`: send nothing again.
    pub last_word: u64,
    /// The longest silence the participant keeps, milliseconds (1,000–60,000).
    pub keepalive_ms: u32,
    /// Requests it takes unanswered on this link; 0 = what the directory says. The lower of the two holds.
    pub credit_in_flight: u32,
    /// Requests a second it takes on this link; 0 = what the directory says.
    pub credit_per_second: u32,
    /// Zero.
    pub reserved: [u8; 12],
}

/// Switch → participant: the flow has started.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EstablishmentAck {
    /// Frame header.
    pub header: FrameHeader,
    /// As in Negotiate.
    pub session_id: u64,
    /// The switch's clock, UTC nanoseconds.
    pub timestamp_ns: u64,
    /// The number the next new word toward the participant will have.
    pub next_word: u64,
    /// The longest silence the switch keeps, milliseconds.
    pub keepalive_ms: u32,
    /// Payments the switch takes unanswered on this link.
    pub credit_in_flight: u32,
    /// Payments a second the switch takes over all links of the participant; 0 = no limit.
    pub credit_per_second: u32,
    /// Zero.
    pub reserved: [u8; 12],
}

/// Switch → participant: not established; the link is closed.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EstablishmentReject {
    /// Frame header.
    pub header: FrameHeader,
    /// As in Negotiate.
    pub session_id: u64,
    /// [`TerminateCode`] as a number.
    pub code: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Either side, when it has nothing else to say: heartbeat.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Sequence {
    /// Frame header.
    pub header: FrameHeader,
    /// From the switch: the number the next new word will have. From a participant: 0.
    pub next_word: u64,
    /// Zero.
    pub reserved: [u8; 8],
}

/// Participant → switch: send these words again.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RetransmitRequest {
    /// Frame header.
    pub header: FrameHeader,
    /// The first word wanted.
    pub from_word: u64,
    /// How many.
    pub count: u32,
    /// Zero.
    pub reserved: [u8; 20],
}

/// Switch → participant: these words follow again.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Retransmission {
    /// Frame header.
    pub header: FrameHeader,
    /// The first word that follows.
    pub from_word: u64,
    /// How many follow.
    pub count: u32,
    /// Zero.
    pub reserved: [u8; 20],
}

/// Either side ends the session.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Terminate {
    /// Frame header.
    pub header: FrameHeader,
    /// As in Negotiate; 0 when there was none.
    pub session_id: u64,
    /// [`TerminateCode`] as a number.
    pub code: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// Either side changes its flow contract.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Credit {
    /// Frame header.
    pub header: FrameHeader,
    /// Payments in flight from now on.
    pub in_flight: u32,
    /// Payments a second from now on; 0 = no limit.
    pub per_second: u32,
    /// Zero.
    pub reserved: [u8; 8],
}

macro_rules! terminate_codes {
    ($($name:ident = $number:literal, $text:literal;)+) => {
        /// Why a session ended or was refused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum TerminateCode { $(#[doc = $text] $name = $number,)+ }

        impl TerminateCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Reads a code's number.
            #[must_use]
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The code in words, with what the peer should do.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

terminate_codes! {
    Finished = 0, "finished: the peer ended the session in good order";
    BadHeader = 1, "frame header is not of this schema: check framing, schema id and version";
    BadLength = 2, "frame length is not the template's";
    UnknownTemplate = 3, "template unknown";
    BadCrc = 4, "frame CRC does not match";
    NotNegotiated = 5, "a session begins with Negotiate";
    NotEstablished = 6, "payments flow only after Establish";
    UnexpectedFrame = 7, "this frame has no place in the session's state or in this direction";
    UnknownParticipant = 8, "no such participant in the directory";
    CredentialRefused = 9, "the credential is not this participant's";
    TooManyLinks = 10, "the participant has all the links it may have";
    SwitchFull = 11, "the switch has all the links it can have";
    KeepaliveExpired = 12, "silent for longer than three keepalive intervals";
    HandshakeTimeout = 13, "Negotiate and Establish did not come in time";
    SlowReader = 14, "the peer does not read what its own credit allows";
    ReplyNotEntitled = 15, "a reply to a payment that is not this participant's, or with another amount or currency";
    FieldInvalid = 16, "a field of the frame has a value it cannot have";
    ShuttingDown = 17, "the switch is shutting down: connect again later";
    Starting = 18, "the switch is starting: connect again later";
    ProtocolBacklog = 19, "the peer sent more than its contract while it was not read";
}
