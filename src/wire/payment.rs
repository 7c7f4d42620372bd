//! Payment messages.

use bytemuck::{Pod, Zeroable};

use super::frame::{Frame, FrameHeader, Template};
use crate::domain::{Amount, Currency, Kind, ParticipantIndex, PaymentId, Scene, WindowId};

macro_rules! frames {
    ($($name:ident),+) => {
        $(impl Frame for $name { const TEMPLATE: Template = Template::$name; }
          const _: () = assert!(size_of::<$name>() == Template::$name.length());)+
    };
}

frames!(
    PaymentRequest,
    Reply,
    Answer,
    StatusRequest,
    Reversal,
    FinalNotice,
    Inquiry,
    InquiryAnswer
);

/// A payment, from its initiator to the switch and, the same 128 bytes, from the switch to the responder bank.
///
/// ```text
///  0 header │ 16 payment id │ 32 amount u64 │ 40 currency u16 │ 42 kind u8 │ 43 scene u8 │ 44 responder u16
/// 46 step u8 │ 47 flags u8 │ 48 created u64 │ 56 reserved u64 │ 64 mandate token │ 80 account token
/// 96 original payment id │ 112 order reference [u8;16]
/// ```
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PaymentRequest {
    /// Frame header.
    pub header: FrameHeader,
    /// The content, as it also stands in the journal.
    pub body: PaymentBody,
}

/// Bytes 16 to 128 of a [`PaymentRequest`], 112 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PaymentBody {
    /// The payment's id; its originator is the initiator.
    pub id: PaymentId,
    /// Minor units; 0 for kinds without money.
    pub amount_minor: u64,
    /// ISO 4217 numeric.
    pub currency: u16,
    /// [`Kind`] as a number.
    pub kind: u8,
    /// [`Scene`] as a number.
    pub scene: u8,
    /// The account's bank.
    pub responder: ParticipantIndex,
    /// [`crate::domain::BindStep`] as a number.
    pub step: u8,
    /// [`RequestFlags`]; not part of the content.
    pub flags: u8,
    /// When the initiator made it, UTC nanoseconds; kept by a retry.
    pub created_ns: u64,
    /// Zero.
    pub reserved: u64,
    /// The mandate under which a Debit is made.
    pub mandate_token: [u64; 2],
    /// The bank's token for the account.
    pub account_token: [u64; 2],
    /// A Refund's original; zero otherwise.
    pub original: PaymentId,
    /// The initiator's own order reference.
    pub order_reference: [u8; 16],
}

const _: () = assert!(size_of::<PaymentBody>() == 112);

/// Bits of [`PaymentBody::flags`].
pub struct RequestFlags;

impl RequestFlags {
    /// The initiator has sent this id before.
    pub const POSSIBLE_RESEND: u8 = 1;
}

impl PaymentBody {
    /// The amount.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        Amount(self.amount_minor)
    }

    /// The currency.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        Currency(self.currency)
    }

    /// The kind, if the number is one.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.kind)
    }

    /// The scene, if the number is one.
    #[must_use]
    pub const fn scene(&self) -> Option<Scene> {
        Scene::from_u8(self.scene)
    }
}

/// The digest by which a repeated id is told from a reused one: 64 bits over bytes 32 to 128 of the request without its
/// flags. A folded 64×64→128-bit multiply over 16-byte lanes with fixed odd constants; not keyed, so that replay
/// gives the same.
///
/// # Panics
/// When `request` is shorter than 128 bytes.
#[must_use]
#[inline]
pub fn content_digest(request: &[u8]) -> u64 {
    const K: [u64; 4] = [
        0x9E37_79B9_7F4A_7C15,
        0xC2B2_AE3D_27D4_EB4F,
        0x1656_67B1_9E37_79F9,
        0x2545_F491_4F6C_DD1D,
    ];
    let word = |at: usize| -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&request[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let fold = |a: u64, b: u64| -> u64 {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let facts = word(40) & 0x00ff_ffff_ffff_ffff; // byte 47 is the flags
    let mut digest = fold(word(32) ^ K[0], facts ^ K[1]);
    let mut at = 48;
    while at < 128 {
        digest = fold(word(at) ^ K[2] ^ digest, word(at + 8) ^ K[3]) ^ digest.rotate_left(23);
        at += 16;
    }
    digest
}

/// What a [`Reply`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Regarding {
    /// A payment request.
    Request = 1,
    /// A status request.
    Status = 2,
    /// A Reversal.
    Reversal = 3,
}

impl Regarding {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Request),
            2 => Some(Self::Status),
            3 => Some(Self::Reversal),
            _ => None,
        }
    }
}

/// What a bank says in a [`Reply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ReplyOutcome {
    /// Yes: the bank has done it.
    Yes = 1,
    /// No, with a code 20–28 or 35.
    No = 2,
    /// To a status request: never seen; the bank refuses that id for ever.
    NeverSeen = 3,
    /// To a Reversal: taken.
    Acknowledged = 4,
}

impl ReplyOutcome {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Yes),
            2 => Some(Self::No),
            3 => Some(Self::NeverSeen),
            4 => Some(Self::Acknowledged),
            _ => None,
        }
    }
}

/// Bank → switch: its word on a payment.
///
/// ```text
/// 0 header │ 16 payment id │ 32 amount u64 │ 40 currency u16 │ 42 regarding u8 │ 43 outcome u8 │ 44 code u8
/// 45 reserved [u8;3] │ 48 token [u64;2]
/// ```
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Reply {
    /// Frame header.
    pub header: FrameHeader,
    /// The content, as it also stands in the journal.
    pub body: ReplyBody,
}

/// Bytes 16 to 64 of a [`Reply`], 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ReplyBody {
    /// The payment.
    pub id: PaymentId,
    /// The request's amount, repeated.
    pub amount_minor: u64,
    /// The request's currency, repeated.
    pub currency: u16,
    /// [`Regarding`] as a number.
    pub regarding: u8,
    /// [`ReplyOutcome`] as a number.
    pub outcome: u8,
    /// [`crate::domain::Code`] as a number: 0 unless the outcome is No.
    pub code: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The bank's own reference; in the reply to a Bind's Sign the mandate's token.
    pub token: [u64; 2],
}

const _: () = assert!(size_of::<ReplyBody>() == 48);

/// Switch → initiator: the final word on a payment (numbered), or 09 or a refusal at the door (number 0).
///
/// ```text
///  0 header │ 16 payment id │ 32 word u64 │ 40 amount u64 │ 48 window u64 │ 56 final time u64 │ 64 mandate token
/// 80 currency u16 │ 82 responder u16 │ 84 kind u8 │ 85 code u8 │ 86 state u8 │ 87 flags u8 │ 88 reserved
/// ```
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Answer {
    /// Frame header.
    pub header: FrameHeader,
    /// The payment.
    pub id: PaymentId,
    /// The word's number in the flow to this participant, from 1; 0 for 09, 15 and refusals at the door.
    pub word: u64,
    /// The amount, repeated.
    pub amount_minor: u64,
    /// The window of a committed payment, else zero.
    pub window: WindowId,
    /// When the payment became final, UTC nanoseconds; 0 where it did not.
    pub final_ns: u64,
    /// A Bind's mandate token, else zero.
    pub mandate_token: [u64; 2],
    /// The currency, repeated.
    pub currency: u16,
    /// The responder, repeated.
    pub responder: ParticipantIndex,
    /// The kind, repeated.
    pub kind: u8,
    /// [`crate::domain::Code`] as a number.
    pub code: u8,
    /// [`crate::domain::PaymentState`] as a number; 0 for a refusal at the door.
    pub state: u8,
    /// [`AnswerFlags`].
    pub flags: u8,
    /// Zero.
    pub reserved: u64,
}

/// Bits of [`Answer::flags`].
pub struct AnswerFlags;

impl AnswerFlags {
    /// A stored answer, given again to a repeated request.
    pub const DUPLICATE: u8 = 1;
    /// Sent before: a retransmission.
    pub const RETRANSMITTED: u8 = 2;
}

/// Switch → bank: what became of this payment?
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct StatusRequest {
    /// Frame header.
    pub header: FrameHeader,
    /// The payment.
    pub id: PaymentId,
    /// Its amount.
    pub amount_minor: u64,
    /// Its currency.
    pub currency: u16,
    /// Its kind.
    pub kind: u8,
    /// Which attempt this is, from 1.
    pub attempt: u8,
    /// Its initiator.
    pub initiator: ParticipantIndex,
    /// Zero.
    pub reserved: [u8; 2],
    /// When the switch accepted the payment, UTC nanoseconds.
    pub accepted_ns: u64,
    /// Zero.
    pub reserved2: u64,
}

/// Switch → bank: undo this pull if you did it, and refuse it for ever if you did not. A numbered word.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Reversal {
    /// Frame header.
    pub header: FrameHeader,
    /// The payment.
    pub id: PaymentId,
    /// The word's number in the flow to this participant.
    pub word: u64,
    /// Its amount.
    pub amount_minor: u64,
    /// Its currency.
    pub currency: u16,
    /// Its kind.
    pub kind: u8,
    /// Which attempt this is, from 1.
    pub attempt: u8,
    /// Its initiator.
    pub initiator: ParticipantIndex,
    /// [`AnswerFlags::RETRANSMITTED`].
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// When the Reversal was raised, UTC nanoseconds.
    pub raised_ns: u64,
    /// Zero.
    pub reserved2: [u64; 2],
}

/// Switch → bank: the final state of a push (Confirm when committed). A numbered word.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FinalNotice {
    /// Frame header.
    pub header: FrameHeader,
    /// The payment.
    pub id: PaymentId,
    /// The word's number in the flow to this participant.
    pub word: u64,
    /// Its amount.
    pub amount_minor: u64,
    /// The window of a committed payment, else zero.
    pub window: WindowId,
    /// When the payment became final, UTC nanoseconds.
    pub final_ns: u64,
    /// Its currency.
    pub currency: u16,
    /// Its kind.
    pub kind: u8,
    /// [`crate::domain::Code`] as a number.
    pub code: u8,
    /// [`crate::domain::PaymentState`] as a number.
    pub state: u8,
    /// [`AnswerFlags::RETRANSMITTED`].
    pub flags: u8,
    /// Its initiator.
    pub initiator: ParticipantIndex,
    /// Zero.
    pub reserved: u64,
}

/// Participant → switch: what is the state of this payment of mine?
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Inquiry {
    /// Frame header.
    pub header: FrameHeader,
    /// The payment.
    pub id: PaymentId,
    /// The asker's own number for the question; comes back.
    pub reference: u64,
    /// Zero.
    pub reserved: u64,
}

/// Switch → participant: the state at `applied`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct InquiryAnswer {
    /// Frame header.
    pub header: FrameHeader,
    /// The payment.
    pub id: PaymentId,
    /// The asker's own number.
    pub reference: u64,
    /// Its amount.
    pub amount_minor: u64,
    /// The window of a committed payment, else zero.
    pub window: WindowId,
    /// When it became final, UTC nanoseconds; 0 if it has not.
    pub final_ns: u64,
    /// Its currency.
    pub currency: u16,
    /// Its kind.
    pub kind: u8,
    /// [`crate::domain::Code`]: the payment's own, 09 while it is open, 25 when unknown, 33 over the budget.
    pub code: u8,
    /// [`crate::domain::PaymentState`] as a number; 0 when unknown.
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 11],
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn the_digest_sees_every_content_byte_and_not_the_flags() {
        let request = PaymentRequest::zeroed();
        let mut bytes = bytemuck::bytes_of(&request).to_vec();
        let digest = content_digest(&bytes);
        for at in 0..128 {
            bytes[at] ^= 0x41;
            assert_eq!(content_digest(&bytes) != digest, at >= 32 && at != 47, "byte {at}");
            bytes[at] ^= 0x41;
        }
    }

    #[test]
    fn fields_lie_where_the_diagrams_say() {
        use std::mem::offset_of;
        assert_eq!(16 + offset_of!(PaymentBody, responder), 44);
        assert_eq!(16 + offset_of!(PaymentBody, flags), 47);
        assert_eq!(16 + offset_of!(PaymentBody, mandate_token), 64);
        assert_eq!(16 + offset_of!(PaymentBody, original), 96);
        assert_eq!(16 + offset_of!(ReplyBody, outcome), 43);
        assert_eq!(16 + offset_of!(ReplyBody, token), 48);
        assert_eq!(offset_of!(Answer, currency), 80);
        assert_eq!(offset_of!(Answer, code), 85);
    }
}
