//! Frames on the links, event layouts in the journal, and what stages hand each other.
//!
//! Floor 0. Little-endian throughout. Every struct here is `#[repr(C)]`, [`bytemuck::Pod`] and has its size asserted at
//! compile time; `schema/clearway-sbe.xml` describes the same frames for other languages.

mod event;
mod frame;
mod handoff;
mod order;
mod payment;
mod register;
mod session;

pub use event::{
    GroupEvent, IntakeStamp, NotSentEvent, RecordKind, ReplyEvent, RequestEvent, WindowAction, WindowEvent,
};
pub use frame::{
    ENCODING, FRAME_BYTES_MAX, FRAME_PREFIX_BYTES, Frame, FrameError, FrameHeader, SCHEMA_ID, SCHEMA_VERSION, Template,
    decode, frame_length, seal,
};
pub use handoff::{
    BufferRef, Effect, EffectFrame, FrameRun, Intake, LinkChange, Outbound, OutboundKind, Query, Seat, Unsent,
};
pub use order::{
    ClosedWindow, CoverMovement, CoverReason, OperatorName, OrderAction, OrderEvent, OrderOutcome, OrderStep,
};
pub use payment::{
    Answer, AnswerFlags, FinalNotice, Inquiry, InquiryAnswer, PaymentBody, PaymentRequest, Regarding, Reply, ReplyBody,
    ReplyOutcome, RequestFlags, Reversal, StatusRequest, content_digest,
};
pub use register::{
    DaySealedEvent, FindingEvent, LookUp, RegisterEntry, WordEntry, WordKind, not_looked_up, unknown_payment,
};
pub use session::{
    Credit, Establish, EstablishmentAck, EstablishmentReject, Negotiate, NegotiationReject, NegotiationResponse,
    Retransmission, RetransmitRequest, Sequence, Terminate, TerminateCode,
};
