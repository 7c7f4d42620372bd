//! What the scheme and a participant agreed, as it stands in the journal's first events.
//!
//! Replay reads no configuration: everything that decides about a payment is in these records.

use bytemuck::{Pod, Zeroable};

use super::{Currency, Kind, ParticipantIndex, SchemeCode};

/// What a participant is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// A payment institution (wallet): initiates.
    Institution = 1,
    /// A bank: responds.
    Bank = 2,
}

impl Role {
    /// Reads a role's number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Institution),
            2 => Some(Self::Bank),
            _ => None,
        }
    }
}

/// A participant's terms, 224 bytes, as journaled. Money in minor units of the scheme's first currency.
///
/// ```text
///   0 index u16 │ 2 code [u8;14] │ 16 role u8 │ 17 suspended u8 │ 18 reserved │ 20 permitted kinds u32
///  24 Tq ns u64 │ 32 T1 ns u64 │ 40 T2 pull ns u64 │ 48 T2 push ns u64 │ 56 limit per payment u64
///  64 accounts [CurrencyTerms; 4], 32 bytes each │ 192 contract, 32 bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ParticipantTerms {
    /// The dense number.
    pub index: ParticipantIndex,
    /// The public code.
    pub code: SchemeCode,
    /// [`Role`] as a number.
    pub role: u8,
    /// Bit 0: may not initiate; bit 1: may not be asked.
    pub suspended: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Mask of [`Kind::bit`]: what it may initiate (institution) or be asked (bank).
    pub permitted_kinds: u32,
    /// How long a request waits in dispatch, nanoseconds.
    pub wait_ns: u64,
    /// T1: unanswered past it, a payment is in doubt; nanoseconds from acceptance.
    pub doubt_ns: u64,
    /// T2 of a pull: unanswered past it, it expires; nanoseconds from acceptance.
    pub expiry_pull_ns: u64,
    /// T2 of a push, nanoseconds from acceptance.
    pub expiry_push_ns: u64,
    /// The agreed limit of one payment, minor units; 0 = only the scheme's maximum applies.
    pub payment_limit_minor: u64,
    /// Cover and cap per currency; unused entries are zero.
    pub accounts: [CurrencyTerms; 4],
    /// What its links may carry.
    pub contract: LinkContract,
}

const _: () = assert!(size_of::<ParticipantTerms>() == 224);

/// What a participant's links may carry: 32 bytes. Invariant 10 is about these figures, so they are journaled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LinkContract {
    /// Requests that one of a bank's links takes unanswered.
    pub request_in_flight_max: u32,
    /// Requests a bank takes a second over all its links; 0 = no limit.
    pub request_per_second_max: u32,
    /// Payments an institution may have unanswered on one link.
    pub intake_in_flight_max: u32,
    /// Payments an institution may send a second over all its links; 0 = no limit.
    pub intake_per_second_max: u32,
    /// Inquiries a participant may send a second; they never take a payment's place.
    pub inquiries_per_second_max: u32,
    /// Links the participant may have at a time.
    pub links_max: u16,
    /// Zero.
    pub reserved: [u8; 10],
}

const _: () = assert!(size_of::<LinkContract>() == 32);

/// Cover and cap of one participant in one currency.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CurrencyTerms {
    /// ISO 4217 numeric code; 0 = unused.
    pub currency: u16,
    /// Zero.
    pub reserved: [u8; 14],
    /// Prefunded cover, minor units.
    pub cover_minor: u64,
    /// The part of the cover that positions may use, minor units.
    pub cap_minor: u64,
}

const _: () = assert!(size_of::<CurrencyTerms>() == 32);

/// The scheme's own terms: the payload of the Genesis event, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct SchemeTerms {
    /// Version of the rules the engine applies.
    pub rules_version: u32,
    /// How many Participant events follow.
    pub participant_count: u32,
    /// R: how many payments the engine holds; a power of two. Final ones beyond it are in the register alone.
    pub resident_payments: u32,
    /// Events of one participant that may wait for the register at a time.
    pub parked_max: u32,
    /// The largest amount of one payment, minor units.
    pub maximum_minor: u64,
    /// How many days back a Debit may be refunded.
    pub refund_days: u32,
    /// Currencies that are open; 0 = unused entry.
    pub currencies: [u16; 4],
    /// The scheme's own code: the clearing house in settlement files.
    pub code: SchemeCode,
    /// Zero.
    pub reserved: [u8; 14],
}

const _: () = assert!(size_of::<SchemeTerms>() == 64);

impl SchemeTerms {
    /// The version of the rules that this switch applies.
    pub const RULES_VERSION: u32 = 5;

    /// The most payments an engine may hold.
    pub const RESIDENT_PAYMENTS_MAX: u32 = 1 << 28;
}

impl ParticipantTerms {
    /// May not initiate payments.
    pub const SUSPENDED_INITIATOR: u8 = 1;
    /// May not be asked.
    pub const SUSPENDED_RESPONDER: u8 = 2;

    /// True when the participant may take its part in payments of this kind.
    #[must_use]
    pub const fn permits(&self, kind: Kind) -> bool {
        self.permitted_kinds & kind.bit() != 0
    }

    /// The cover and cap in `currency`, if the participant has any.
    #[must_use]
    pub fn account(&self, currency: Currency) -> Option<&CurrencyTerms> {
        self.accounts
            .iter()
            .find(|a| a.currency == currency.0 && a.currency != 0)
    }
}
