//! What leaves the engine's memory and how it comes back: entries of the day register, look-ups, findings.
//!
//! The engine keeps a bounded number of payments. Whatever becomes final is told to the register as a [`RegisterEntry`],
//! which never changes afterwards, and every numbered word as a [`WordEntry`]. When an event concerns a payment that the
//! engine holds no more, the event waits, a [`LookUp`] goes out, and a [`FindingEvent`] brings the facts back through the
//! journal, so that replay needs no register.

use bytemuck::{Pod, Zeroable};

use super::frame::{Frame, FrameHeader};
use super::payment::{Answer, AnswerFlags, FinalNotice, InquiryAnswer};
use crate::domain::{
    BusinessDate, Code, Direction, Kind, ParticipantIndex, PaymentId, PaymentState, UtcNanos, WindowId,
};

/// A final payment as the register keeps it: 96 bytes, immutable.
///
/// ```text
///  0 id │ 16 digest u64 │ 24 amount u64 │ 32 position u64 │ 40 accepted u64 │ 48 final u64 │ 56 window u64
/// 64 related [u64;2] │ 80 responder u16 │ 82 currency u16 │ 84 kind │ 85 scene │ 86 state │ 87 code │ 88 step │ 89 zero
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RegisterEntry {
    /// The payment.
    pub id: PaymentId,
    /// The digest of its content ([`super::content_digest`]).
    pub digest: u64,
    /// Minor units.
    pub amount_minor: u64,
    /// Where the payload of its request lies in the journal.
    pub position: u64,
    /// When it was accepted, or rejected; UTC nanoseconds.
    pub accepted_ns: u64,
    /// When it became final, UTC nanoseconds.
    pub final_ns: u64,
    /// The window of a committed payment, else zero.
    pub window: WindowId,
    /// A committed Bind's mandate token; the id of a Refund's original, where it was accepted; else zero.
    pub related: [u64; 2],
    /// The bank.
    pub responder: ParticipantIndex,
    /// ISO 4217 numeric.
    pub currency: u16,
    /// [`Kind`] as a number; a rejected payment's may be none.
    pub kind: u8,
    /// [`crate::domain::Scene`] as a number.
    pub scene: u8,
    /// [`PaymentState`] as a number: a final one.
    pub state: u8,
    /// [`Code`] as a number.
    pub code: u8,
    /// The step of a Bind or Unbind.
    pub step: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<RegisterEntry>() == 96);

impl RegisterEntry {
    /// The initiator.
    #[must_use]
    pub const fn initiator(&self) -> ParticipantIndex {
        self.id.originator()
    }

    /// The original that a Refund gives back; zero for all else.
    #[must_use]
    pub fn original(&self) -> PaymentId {
        if self.kind == Kind::Refund as u8 {
            bytemuck::cast(self.related)
        } else {
            PaymentId::zeroed()
        }
    }

    /// The mandate's token that a committed Bind brought; zero for all else.
    #[must_use]
    pub const fn mandate_token(&self) -> [u64; 2] {
        if self.kind == Kind::Bind as u8 {
            self.related
        } else {
            [0; 2]
        }
    }

    /// The final answer as word number `word`: the same bytes as when it was told, but for number and flags.
    #[must_use]
    pub const fn answer(&self, word: u64, flags: u8) -> Answer {
        Answer {
            header: FrameHeader::new(Answer::TEMPLATE, size_of::<Answer>()),
            id: self.id,
            word,
            amount_minor: self.amount_minor,
            window: self.window,
            final_ns: self.final_ns,
            mandate_token: self.mandate_token(),
            currency: self.currency,
            responder: self.responder,
            kind: self.kind,
            code: self.code,
            state: self.state,
            flags,
            reserved: 0,
        }
    }

    /// The final state as its bank is told it, word number `word`.
    #[must_use]
    pub const fn final_notice(&self, word: u64, flags: u8) -> FinalNotice {
        FinalNotice {
            header: FrameHeader::new(FinalNotice::TEMPLATE, size_of::<FinalNotice>()),
            id: self.id,
            word,
            amount_minor: self.amount_minor,
            window: self.window,
            final_ns: self.final_ns,
            currency: self.currency,
            kind: self.kind,
            code: self.code,
            state: self.state,
            flags,
            initiator: self.initiator(),
            reserved: 0,
        }
    }

    /// What its initiator or its bank is told who asks about it; anybody else is told [`unknown_payment`].
    #[must_use]
    pub fn inquiry_answer(&self, asker: ParticipantIndex, reference: u64) -> InquiryAnswer {
        if asker != self.initiator() && asker != self.responder {
            return unknown_payment(self.id, reference);
        }
        InquiryAnswer {
            amount_minor: self.amount_minor,
            window: self.window,
            final_ns: self.final_ns,
            currency: self.currency,
            kind: self.kind,
            code: self.code,
            state: self.state,
            ..unknown_payment(self.id, reference)
        }
    }

    /// Who asks whom to move money.
    #[must_use]
    pub fn direction(&self) -> Direction {
        Kind::from_u8(self.kind).map_or(Direction::None, Kind::direction)
    }

    /// The state, if the number is a final one: what comes from a file is checked.
    #[must_use]
    pub fn final_state(&self) -> Option<PaymentState> {
        PaymentState::from_u8(self.state).filter(|state| state.is_final())
    }
}

/// The answer to an inquiry about a payment that nobody knows, or that is not the asker's.
#[must_use]
pub const fn unknown_payment(id: PaymentId, reference: u64) -> InquiryAnswer {
    InquiryAnswer {
        header: FrameHeader::new(InquiryAnswer::TEMPLATE, size_of::<InquiryAnswer>()),
        id,
        reference,
        amount_minor: 0,
        window: WindowId::NONE,
        final_ns: 0,
        currency: 0,
        kind: 0,
        code: Code::OriginalNotFound as u8,
        state: 0,
        reserved: [0; 11],
    }
}

/// The answer to an inquiry that can't be looked up now: ask again.
#[must_use]
pub const fn not_looked_up(id: PaymentId, reference: u64) -> InquiryAnswer {
    InquiryAnswer {
        code: Code::NotTaken as u8,
        ..unknown_payment(id, reference)
    }
}

/// What a numbered word was about; two bits of an outbox entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum WordKind {
    /// The final answer to a payment's initiator.
    Answer = 0,
    /// The same, given again to a repeated request.
    DuplicateAnswer = 1,
    /// A Reversal to the bank of a pull.
    Reversal = 2,
    /// The final state, to the bank of a push.
    FinalNotice = 3,
}

impl WordKind {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Answer),
            1 => Some(Self::DuplicateAnswer),
            2 => Some(Self::Reversal),
            3 => Some(Self::FinalNotice),
            _ => None,
        }
    }

    /// The flags of an Answer or FinalNotice of this kind that is told again.
    #[must_use]
    pub const fn flags_again(self) -> u8 {
        match self {
            Self::DuplicateAnswer => AnswerFlags::DUPLICATE | AnswerFlags::RETRANSMITTED,
            Self::Answer | Self::Reversal | Self::FinalNotice => AnswerFlags::RETRANSMITTED,
        }
    }
}

/// A numbered word toward a participant: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct WordEntry {
    /// Its number, from 1.
    pub number: u64,
    /// The payment it is about.
    pub id: PaymentId,
    /// To whom.
    pub participant: ParticipantIndex,
    /// [`WordKind`] as a number.
    pub kind: u8,
    /// Of a Reversal that the engine has forgotten: how many attempts it took; of all else zero.
    pub attempts: u8,
    /// Zero.
    pub reserved: [u8; 4],
}

const _: () = assert!(size_of::<WordEntry>() == 32);

/// Engine → register: an event waits for what the register knows of a payment.
///
/// To be answered when the register holds everything up to `event`, by one [`FindingEvent`] in the journal. After a
/// restart it is asked again; a second finding for the same event is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookUp {
    /// The number of the event that waits.
    pub event: u64,
    /// The payment to be found.
    pub id: PaymentId,
}

/// What the register knows of a payment, for the event that waits for it: 128 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FindingEvent {
    /// The event that waits ([`LookUp::event`]).
    pub event: u64,
    /// The payment that was looked for ([`LookUp::id`]).
    pub id: PaymentId,
    /// 1: found, and `entry` is that payment's; 0: the register does not have it, and `entry` is zero.
    pub found: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// The facts.
    pub entry: RegisterEntry,
}

const _: () = assert!(size_of::<FindingEvent>() == 128);

impl FindingEvent {
    /// The answer to `look_up`.
    #[must_use]
    pub fn new(look_up: LookUp, entry: Option<&RegisterEntry>) -> Self {
        Self {
            event: look_up.event,
            id: look_up.id,
            found: u8::from(entry.is_some()),
            reserved: [0; 7],
            entry: entry.copied().unwrap_or_else(Zeroable::zeroed),
        }
    }

    /// The facts, where they are those of the payment that was looked for.
    #[must_use]
    pub fn facts(&self) -> Option<&RegisterEntry> {
        (self.found == 1 && self.entry.id == self.id && self.entry.final_state().is_some()).then_some(&self.entry)
    }
}

/// Every payment up to and including a business date is final and in the register: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct DaySealedEvent {
    /// The date.
    pub date: BusinessDate,
    /// Zero.
    pub reserved: [u8; 28],
}

const _: () = assert!(size_of::<DaySealedEvent>() == 32);

impl DaySealedEvent {
    /// The event.
    #[must_use]
    pub const fn new(date: BusinessDate) -> Self {
        Self {
            date,
            reserved: [0; 28],
        }
    }

    /// True when no payment of the date can be accepted at `time` or later.
    #[must_use]
    pub fn fits(&self, time: UtcNanos) -> bool {
        self.date.day_number() < time.business_date().day_number() && !time.is_open_date(self.date)
    }
}
