//! What stages hand each other through rings: small descriptors, by value.

use super::event::WindowEvent;
use super::frame::{Frame, Template};
use super::order::OrderOutcome;
use super::payment::StatusRequest;
use super::register::{DaySealedEvent, LookUp};
use super::session::TerminateCode;
use crate::domain::{Code, Currency, LinkContract, LinkId, ParticipantIndex, PaymentId, PaymentSlot, UtcNanos};

/// A receive buffer of a link agent's driver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BufferRef {
    /// The link agent.
    pub agent: u8,
    /// The buffer, within its driver's pool.
    pub buffer: u16,
}

/// Whole, checked frames of one class, back to back in a receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct FrameRun {
    /// Where they lie; the sequencer gives the buffer back when it has copied them.
    pub buffer: BufferRef,
    /// First byte, from the start of the buffer.
    pub start: u32,
    /// End, from the start of the buffer.
    pub end: u32,
    /// The link they came on.
    pub link: LinkId,
    /// The participant whose session it is.
    pub participant: ParticipantIndex,
    /// When they were received.
    pub received: UtcNanos,
}

/// Link agents, dispatch, housekeeping → sequencer.
#[derive(Clone, Copy, Debug)]
pub enum Intake {
    /// Payment requests or replies.
    Frames(FrameRun),
    /// A request of which no byte was handed to the kernel.
    NotSent {
        /// The payment.
        id: PaymentId,
        /// 31 or 32.
        code: Code,
    },
    /// A window opens, closes or settles.
    Window(WindowEvent),
    /// A day's payments are final and in the register. (Findings have a ring of their own: they are larger.)
    DaySealed(DaySealedEvent),
}

/// A payment's place in dispatch's books: its slot, and which of the payments that dispatch has seen there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// The slot.
    pub slot: PaymentSlot,
    /// Counted by dispatch.
    pub turn: u32,
}

/// Clearing → dispatch.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Send this accepted request to its bank.
    Forward {
        /// The payment's slot, by which its credit is given back.
        slot: PaymentSlot,
        /// The bank.
        responder: ParticipantIndex,
        /// Where the request's record payload lies in the journal, or [`Effect::REQUEST_GIVEN`].
        position: u64,
        /// When it was accepted: Tq counts from here.
        accepted: UtcNanos,
        /// Tq of the bank, nanoseconds.
        wait_ns: u64,
    },
    /// A half of the journaled request that the next Forward is about: it waited, and the journal's tail may not hold it.
    Request {
        /// 0 or 1.
        half: u8,
        /// The bytes.
        bytes: [u8; 64],
    },
    /// Send this frame.
    Frame(EffectFrame),
    /// A payment needs its place on the bank's link no more.
    Release {
        /// The payment's slot.
        slot: PaymentSlot,
    },
    /// An event waits for what the register knows of a payment.
    LookUp(LookUp),
    /// A link broke the rules.
    Cut {
        /// The link.
        link: LinkId,
        /// Why.
        code: TerminateCode,
    },
    /// A participant joins, or what its links may carry has changed: this is in force now.
    Contract {
        /// The participant.
        participant: ParticipantIndex,
        /// What its links may carry.
        contract: LinkContract,
    },
    /// An operator's order was decided about.
    Ordered {
        /// As it was given with the order.
        reference: u64,
        /// The event that carried the order.
        event: u64,
        /// What became of it.
        outcome: OrderOutcome,
        /// [`super::OrderAction`] as a number: what was ordered, or what was proposed that is approved or refused now.
        action: u8,
        /// Whom it is about, likewise.
        participant: ParticipantIndex,
    },
    /// The use of a participant's cap has come to another level. Sums that do not fit are told as the most that does.
    CoverAlarm {
        /// The participant.
        participant: ParticipantIndex,
        /// The currency.
        currency: Currency,
        /// The level now, basis points of the cap: 0, 5000, 7500 or 9000.
        level_bp: u16,
        /// The level before; the alarm rises where it is less than `level_bp`.
        before_bp: u16,
        /// Position and reservations, minor units.
        used_minor: i64,
        /// The cap, minor units.
        cap_minor: i64,
    },
}

impl Effect {
    /// In place of a Forward's position: the request came before it, in two halves.
    pub const REQUEST_GIVEN: u64 = u64::MAX;
}

/// A frame toward a participant, header and CRC still to be written.
#[derive(Clone, Copy, Debug)]
pub struct EffectFrame {
    /// The participant.
    pub to: ParticipantIndex,
    /// The link it would best go by, or [`LinkId::NONE`].
    pub via: LinkId,
    /// What it is; gives the length.
    pub template: Template,
    /// The frame.
    pub bytes: [u8; 96],
}

impl EffectFrame {
    /// Wraps a frame of at most 96 bytes.
    #[must_use]
    #[inline]
    pub fn new<F: Frame>(to: ParticipantIndex, via: LinkId, frame: &F) -> Self {
        const { assert!(size_of::<F>() <= 96) };
        let mut bytes = [0; 96];
        bytes[..size_of::<F>()].copy_from_slice(bytemuck::bytes_of(frame));
        Self {
            to,
            via,
            template: F::TEMPLATE,
            bytes,
        }
    }
}

/// Dispatch → link agent.
#[derive(Clone, Copy, Debug)]
pub struct Outbound {
    /// The link.
    pub link: LinkId,
    /// What to do.
    pub what: OutboundKind,
}

/// What a link agent is to do.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "ring entries are by value: nothing is allocated on the hot path"
)]
pub enum OutboundKind {
    /// Copy this request out of the journal and send it.
    Journaled {
        /// The payment, if the request comes back.
        seat: Seat,
        /// Where the record's payload lies.
        position: u64,
        /// Not to be sent after this time.
        deadline: UtcNanos,
    },
    /// Send this request, which waited in dispatch.
    Waited {
        /// The payment, if the request comes back.
        seat: Seat,
        /// The sealed frame.
        frame: [u8; 128],
        /// Not to be sent after this time.
        deadline: UtcNanos,
    },
    /// Seal and send this status request.
    Status {
        /// The bank, to which another link may take it if this one does not send it.
        to: ParticipantIndex,
        /// Header and CRC still to be written.
        request: StatusRequest,
    },
    /// Seal and send this frame, which is a word, an answer or a refusal.
    Frame {
        /// What it is; gives the length.
        template: Template,
        /// The frame.
        bytes: [u8; 96],
        /// It answers a request of this link: one place in the link's intake contract is free again.
        settles: bool,
    },
    /// Everything before this journal position has been handed over: note it when you come to this entry.
    Mark {
        /// The position.
        position: u64,
    },
    /// Tell the peer why and close.
    Cut {
        /// Why.
        code: TerminateCode,
    },
}

/// A request of which no byte was handed to the kernel before its link ended or clogged.
#[derive(Clone, Copy, Debug)]
pub struct Unsent {
    /// The link it was to go by.
    pub link: LinkId,
    /// The payment.
    pub seat: Seat,
    /// Not to be sent after this time.
    pub deadline: UtcNanos,
    /// The sealed frame.
    pub frame: [u8; 128],
}

/// Link agent → dispatch.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "ring entries are by value: nothing is allocated on the hot path"
)]
pub enum LinkChange {
    /// A link is established.
    Up {
        /// The link.
        link: LinkId,
        /// Whose it is.
        participant: ParticipantIndex,
        /// Requests it may hold unanswered.
        in_flight_max: u32,
        /// Requests a second it takes; 0 = no limit.
        per_second_max: u32,
    },
    /// Its contract changed.
    Contract {
        /// The link.
        link: LinkId,
        /// Requests it may hold unanswered.
        in_flight_max: u32,
        /// Requests a second it takes; 0 = no limit.
        per_second_max: u32,
    },
    /// It is gone.
    Down {
        /// The link.
        link: LinkId,
    },
    /// What it is to send does not leave: it takes no requests until it is Clear.
    Clogged {
        /// The link.
        link: LinkId,
    },
    /// It was clogged, and takes requests again.
    Clear {
        /// The link.
        link: LinkId,
    },
    /// A request that it did not send, told after its Down or Clogged: another link may.
    Unsent(Unsent),
    /// A status request that it did not send, told after its Down or Clogged: another link may.
    UnsentStatus {
        /// The bank.
        to: ParticipantIndex,
        /// Header and CRC still to be written.
        request: StatusRequest,
    },
}

/// Link agent → clearing, by a bounded path of its own: questions that are not events.
#[derive(Clone, Copy, Debug)]
pub enum Query {
    /// A participant asks about a payment.
    Inquiry {
        /// The link it came on.
        link: LinkId,
        /// Who asks.
        participant: ParticipantIndex,
        /// About which payment.
        id: PaymentId,
        /// The asker's own number.
        reference: u64,
    },
    /// A participant wants words again.
    Words {
        /// The link they go to.
        link: LinkId,
        /// Whose words.
        participant: ParticipantIndex,
        /// The first.
        from_word: u64,
        /// How many at most.
        count: u32,
    },
}
