//! The payloads of journal records. Each is a multiple of 32 bytes and lies 32-byte aligned in the journal, so that
//! clearing reads it in place as a struct.

use bytemuck::{Pod, Zeroable};

use super::frame::{FRAME_PREFIX_BYTES, FrameHeader, Template};
use super::payment::{PaymentBody, PaymentRequest, ReplyBody};
use crate::domain::{Code, Currency, LinkId, PaymentId, WindowId};

/// What a journal record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum RecordKind {
    /// The scheme's terms ([`crate::domain::SchemeTerms`]); the first event.
    Genesis = 1,
    /// A participant's terms ([`crate::domain::ParticipantTerms`]).
    Participant = 2,
    /// A payment request ([`RequestEvent`]).
    Request = 3,
    /// A bank's reply ([`ReplyEvent`]).
    Reply = 4,
    /// Dispatch could not send ([`NotSentEvent`]).
    NotSent = 5,
    /// Time passed; no payload.
    Tick = 6,
    /// The switch has started again; no payload.
    Restart = 7,
    /// A window opens, closes or settles ([`WindowEvent`]).
    Window = 8,
    /// What the register knows of a payment, for the event that waits for it ([`super::FindingEvent`]).
    Finding = 9,
    /// All payments up to a date are final and in the register ([`super::DaySealedEvent`]).
    DaySealed = 10,
    /// An operator's order about a participant ([`super::OrderEvent`]).
    Order = 11,
    /// Not an event: what was durable when this write was issued ([`GroupEvent`]).
    Group = 32,
    /// Not an event: fills a segment's end.
    Pad = 33,
}

impl RecordKind {
    /// Reads the number.
    #[must_use]
    pub const fn from_u16(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Genesis),
            2 => Some(Self::Participant),
            3 => Some(Self::Request),
            4 => Some(Self::Reply),
            5 => Some(Self::NotSent),
            6 => Some(Self::Tick),
            7 => Some(Self::Restart),
            8 => Some(Self::Window),
            9 => Some(Self::Finding),
            10 => Some(Self::DaySealed),
            11 => Some(Self::Order),
            32 => Some(Self::Group),
            33 => Some(Self::Pad),
            _ => None,
        }
    }

    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Genesis,
        Self::Participant,
        Self::Request,
        Self::Reply,
        Self::NotSent,
        Self::Tick,
        Self::Restart,
        Self::Window,
        Self::Finding,
        Self::DaySealed,
        Self::Order,
        Self::Group,
        Self::Pad,
    ];

    /// The kind's name as the tools write and read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::Participant => "participant",
            Self::Request => "request",
            Self::Reply => "reply",
            Self::NotSent => "not_sent",
            Self::Tick => "tick",
            Self::Restart => "restart",
            Self::Window => "window",
            Self::Finding => "finding",
            Self::DaySealed => "day_sealed",
            Self::Order => "order",
            Self::Group => "group",
            Self::Pad => "pad",
        }
    }

    /// True for records that are inputs of the clearing engine and take an event number.
    #[must_use]
    pub const fn is_event(self) -> bool {
        !matches!(self, Self::Group | Self::Pad)
    }
}

/// What the switch notes about a frame in place of its header: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct IntakeStamp {
    /// When the frame was received, UTC nanoseconds of the link agent's clock; for measurement only.
    pub received_ns: u64,
    /// The link it came on ([`LinkId`]), in the run of the switch that journaled it.
    pub link: u32,
    /// The frame's own CRC, so that the frame can be sent on as it came.
    pub crc: u32,
}

/// A payment request in the journal: 128 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RequestEvent {
    /// In place of the frame header.
    pub stamp: IntakeStamp,
    /// The content.
    pub body: PaymentBody,
}

const _: () = assert!(size_of::<RequestEvent>() == 128);

impl RequestEvent {
    /// The frame as it was received, to be sent on byte for byte, out of the record's bytes, which `copy` writes: the first
    /// twelve are the switch's own stamp and become the frame's header again, the CRC and the content are as they came.
    #[must_use]
    #[inline]
    pub fn frame(copy: impl FnOnce(&mut [u8])) -> [u8; size_of::<PaymentRequest>()] {
        const HEADER: FrameHeader = FrameHeader::new(Template::PaymentRequest, size_of::<PaymentRequest>());
        let mut frame = [0; size_of::<PaymentRequest>()];
        copy(&mut frame);
        frame[..FRAME_PREFIX_BYTES].copy_from_slice(&bytemuck::bytes_of(&HEADER)[..FRAME_PREFIX_BYTES]);
        frame
    }

    /// The link the request came on.
    #[must_use]
    pub const fn link(&self) -> LinkId {
        LinkId(self.stamp.link)
    }
}

/// A bank's reply in the journal: 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ReplyEvent {
    /// `received_ns` and `link` as in [`IntakeStamp`]; in place of the CRC the participant whose session sent it.
    pub received_ns: u64,
    /// The link it came on.
    pub link: u32,
    /// The participant whose session sent it.
    pub sender: u16,
    /// Zero.
    pub reserved: u16,
    /// The content.
    pub body: ReplyBody,
}

const _: () = assert!(size_of::<ReplyEvent>() == 64);

/// Dispatch could not send a request: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NotSentEvent {
    /// The payment.
    pub id: PaymentId,
    /// 31 or 32.
    pub code: u8,
    /// Zero.
    pub reserved: [u8; 15],
}

const _: () = assert!(size_of::<NotSentEvent>() == 32);

impl NotSentEvent {
    /// The event; `code` is [`Code::LinkDown`] or [`Code::OverLinkCapacity`].
    #[must_use]
    pub const fn new(id: PaymentId, code: Code) -> Self {
        Self {
            id,
            code: code as u8,
            reserved: [0; 15],
        }
    }
}

/// What happens to a window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum WindowAction {
    /// The currency's first window opens.
    Open = 1,
    /// The open window closes and the next one opens, in one event.
    Close = 2,
    /// A closed (or aborted) window goes to settlement.
    BeginSettlement = 3,
    /// It is settled.
    Settled = 4,
    /// Its settlement failed.
    Aborted = 5,
}

impl WindowAction {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Open),
            2 => Some(Self::Close),
            3 => Some(Self::BeginSettlement),
            4 => Some(Self::Settled),
            5 => Some(Self::Aborted),
            _ => None,
        }
    }
}

/// A window's event: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct WindowEvent {
    /// The window that settlement is about; zero for Open and Close (the engine gives the id).
    pub window: WindowId,
    /// ISO 4217 numeric.
    pub currency: u16,
    /// [`WindowAction`] as a number.
    pub action: u8,
    /// Zero.
    pub reserved: [u8; 21],
}

const _: () = assert!(size_of::<WindowEvent>() == 32);

impl WindowEvent {
    /// The event.
    #[must_use]
    pub const fn new(action: WindowAction, currency: Currency, window: WindowId) -> Self {
        Self {
            window,
            currency: currency.0,
            action: action as u8,
            reserved: [0; 21],
        }
    }
}

/// The payload of a Group record: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct GroupEvent {
    /// The journal position that was durable when this group was begun.
    pub durable: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<GroupEvent>() == 32);
