//! Operators' orders: what changes a participant while the switch runs.
//!
//! An order is an event. What moves cover (in, out, the cap) takes two people: the maker's order is a *proposal* and does
//! nothing, the checker's approval, which names the proposal by its event number, puts it in force. All else one person
//! may order directly. What became of an order is found by its `reference`.

use bytemuck::{Pod, Zeroable};

use crate::domain::{Currency, ParticipantIndex, ParticipantTerms, UtcNanos, WindowId};

/// What is ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum OrderAction {
    /// A participant joins under the next free number, on `terms`; cover and cap are zero until they are brought in.
    Add = 1,
    /// Limits, permitted kinds, timers, the contract of its links: all of `terms` but index, code, role, suspension and
    /// accounts.
    Amend = 2,
    /// It is suspended as `terms.suspended` says, in either direction, or not at all any more.
    Suspend = 3,
    /// Cover comes in: `amount_minor` more. Opens the account where there was none.
    CoverIn = 4,
    /// Cover goes out: `amount_minor` less. Never below the cap, nor below what is owed and reserved.
    CoverOut = 5,
    /// The cap becomes `amount_minor`. Never above the cover; below its use it stops debits only.
    SetCap = 6,
}

impl OrderAction {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Add),
            2 => Some(Self::Amend),
            3 => Some(Self::Suspend),
            4 => Some(Self::CoverIn),
            5 => Some(Self::CoverOut),
            6 => Some(Self::SetCap),
            _ => None,
        }
    }

    /// True for what moves cover: it takes a maker and a checker.
    #[must_use]
    pub const fn takes_two(self) -> bool {
        matches!(self, Self::CoverIn | Self::CoverOut | Self::SetCap)
    }

    /// As tools and operators write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Amend => "amend",
            Self::Suspend => "suspend",
            Self::CoverIn => "cover_in",
            Self::CoverOut => "cover_out",
            Self::SetCap => "set_cap",
        }
    }
}

/// Who says it, and what for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum OrderStep {
    /// In force at once; only for what takes one person.
    Direct = 1,
    /// The maker proposes.
    Propose = 2,
    /// The checker approves proposal `proposal`; all fields but reference, proposal, step and operator are zero.
    Approve = 3,
    /// Anybody, the maker too, takes proposal `proposal` back.
    Refuse = 4,
}

impl OrderStep {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Direct),
            2 => Some(Self::Propose),
            3 => Some(Self::Approve),
            4 => Some(Self::Refuse),
            _ => None,
        }
    }
}

/// What became of an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum OrderOutcome {
    /// In force.
    Done = 1,
    /// It waits for a second person; its event number names it.
    Proposed = 2,
    /// A proposal was taken back.
    Refused = 3,
    /// A number of the order is none that can be: action, step, terms whose timers do not rise, an amount of zero.
    Malformed = 4,
    /// It moves cover, and that takes two.
    TakesTwo = 5,
    /// No such proposal: it was approved, refused or never made.
    NoSuchProposal = 6,
    /// The checker is the maker.
    SamePerson = 7,
    /// No such participant; of Add: the index is not the next one, or the code is taken.
    NoSuchParticipant = 8,
    /// Not a currency of the scheme, or no account in it.
    NoSuchAccount = 9,
    /// Cover would fall below the cap, or below what is owed and reserved.
    CoverInUse = 10,
    /// The cap would be above the cover.
    CapOverCover = 11,
    /// Too many proposals wait.
    TooMany = 12,
}

impl OrderOutcome {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Done,
            2 => Self::Proposed,
            3 => Self::Refused,
            4 => Self::Malformed,
            5 => Self::TakesTwo,
            6 => Self::NoSuchProposal,
            7 => Self::SamePerson,
            8 => Self::NoSuchParticipant,
            9 => Self::NoSuchAccount,
            10 => Self::CoverInUse,
            11 => Self::CapOverCover,
            12 => Self::TooMany,
            _ => return None,
        })
    }
}

/// An operator's name: up to 32 bytes of ASCII letters, digits, `.`, `-`, `_`, zero behind.
pub type OperatorName = [u8; 32];

/// An order in the journal: 288 bytes.
///
/// ```text
///  0 reference u64 │ 8 proposal u64 │ 16 amount u64 │ 24 action │ 25 step │ 26 currency u16 │ 28 participant u16 │ 30 zero
/// 32 operator [u8;32] │ 64 terms, 224 bytes
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct OrderEvent {
    /// Chosen by who asks, so that he finds the outcome.
    pub reference: u64,
    /// Of Approve and Refuse: the event number of the proposal; else zero.
    pub proposal: u64,
    /// CoverIn, CoverOut: how much; SetCap: the new cap; minor units. Else zero.
    pub amount_minor: u64,
    /// [`OrderAction`] as a number.
    pub action: u8,
    /// [`OrderStep`] as a number.
    pub step: u8,
    /// ISO 4217 numeric, where an account is meant.
    pub currency: u16,
    /// The participant; of Add the index it is to have.
    pub participant: ParticipantIndex,
    /// Zero.
    pub reserved: u16,
    /// Who says it.
    pub operator: OperatorName,
    /// Of Add, Amend and Suspend; else zero.
    pub terms: ParticipantTerms,
}

const _: () = assert!(size_of::<OrderEvent>() == 288);

impl OrderEvent {
    /// The currency.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        Currency(self.currency)
    }
}

/// Why a participant's cover changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CoverReason {
    /// It joined with it.
    Opening = 1,
    /// An approved order brought it in.
    CoverIn = 2,
    /// An approved order took it out.
    CoverOut = 3,
    /// A window was settled: cover falls by the window's net.
    Settled = 4,
}

impl CoverReason {
    /// Reads the number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Opening),
            2 => Some(Self::CoverIn),
            3 => Some(Self::CoverOut),
            4 => Some(Self::Settled),
            _ => None,
        }
    }
}

/// One change of one participant's cover in one currency. Changes of zero are not told, but for Opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoverMovement {
    /// The event that made it.
    pub event: u64,
    /// Its time.
    pub time: UtcNanos,
    /// The participant.
    pub participant: ParticipantIndex,
    /// The currency.
    pub currency: Currency,
    /// Why.
    pub reason: CoverReason,
    /// Of Settled the window, else none.
    pub window: WindowId,
    /// Minor units; negative where cover falls.
    pub change_minor: i128,
    /// The cover afterwards, minor units.
    pub cover_minor: i128,
}

/// A window that has just closed, as the engine has it.
#[derive(Clone, Copy, Debug)]
pub struct ClosedWindow<'a> {
    /// Its id.
    pub id: WindowId,
    /// The currency.
    pub currency: Currency,
    /// When it opened.
    pub opened: UtcNanos,
    /// When it closed.
    pub closed: UtcNanos,
    /// The event that closed it.
    pub event: u64,
    /// Payments committed in it.
    pub committed: u64,
    /// Σ of their amounts, minor units.
    pub gross_minor: i128,
    /// Debits − credits by participant, in the order of their numbers.
    pub nets: &'a [i128],
}
