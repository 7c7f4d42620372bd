//! What the files say, before it is written in anybody's format.

use std::collections::BTreeMap;

use crate::domain::{BusinessDate, Currency, ParticipantIndex, Position, Role, SchemeCode, UtcNanos, WindowId};
use crate::wire::CoverReason;

/// A closed window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowStatement {
    /// Its id.
    pub window: WindowId,
    /// The currency.
    pub currency: Currency,
    /// The scheme's own code.
    pub scheme: SchemeCode,
    /// The journal that it is of.
    pub journal_id: [u8; 16],
    /// When it opened.
    pub opened: UtcNanos,
    /// When it closed.
    pub closed: UtcNanos,
    /// The event that closed it.
    pub close_event: u64,
    /// Payments committed in it.
    pub committed: u64,
    /// Σ of their amounts, minor units.
    pub gross_minor: Position,
    /// The root over its committed payments.
    pub root: [u8; 32],
    /// Every participant there was at the close, in the order of their numbers.
    pub parties: Vec<PartyStatement>,
    /// How payments ended that became final while it was open.
    pub tallies: Tallies,
    /// The largest sums from one debtor to one creditor, the largest first; at most [`WindowStatement::FLOWS_MAX`].
    pub flows: Vec<Flow>,
}

impl WindowStatement {
    /// So many flows are told.
    pub const FLOWS_MAX: usize = 20;
}

/// What a window came to for one participant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartyStatement {
    /// The participant.
    pub index: ParticipantIndex,
    /// Its code.
    pub code: SchemeCode,
    /// Its role.
    pub role: Role,
    /// Committed payments that it took part in, on either side: rows of its detail file.
    pub records: u64,
    /// How many of them it owes.
    pub debits: u64,
    /// How many of them it is owed.
    pub credits: u64,
    /// Σ of what it owes, minor units.
    pub debits_minor: Position,
    /// Σ of what it is owed, minor units.
    pub credits_minor: Position,
    /// SHA-256 of its detail file; `None` where it has none, having taken part in nothing.
    pub detail_sha256: Option<[u8; 32]>,
}

impl PartyStatement {
    /// Debits − credits: positive where it must pay.
    #[must_use]
    pub const fn net_minor(&self) -> Position {
        self.debits_minor - self.credits_minor
    }
}

/// How payments ended.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tallies {
    /// All of them.
    pub all: Tally,
    /// By [`crate::domain::Kind`] as a number; a rejected payment's may be none.
    pub by_kind: BTreeMap<u8, Tally>,
    /// By [`crate::domain::Scene`] as a number.
    pub by_scene: BTreeMap<u8, Tally>,
    /// How many by [`crate::domain::Code`] as a number.
    pub by_code: BTreeMap<u8, u64>,
    /// How many became final in each minute since the window opened: committed, others; the last entry takes all that is later.
    pub by_minute: Vec<[u64; 2]>,
}

/// Counts of final payments by their state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Committed.
    pub committed: u64,
    /// Declined.
    pub declined: u64,
    /// Expired.
    pub expired: u64,
    /// Rejected.
    pub rejected: u64,
    /// Σ of the committed ones' amounts, minor units.
    pub committed_minor: Position,
}

impl Tally {
    /// All that became final.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.committed + self.declined + self.expired + self.rejected
    }

    /// The share of the committed ones, basis points; `None` where there is none at all.
    #[must_use]
    pub fn success_bp(&self) -> Option<u64> {
        (self.all() > 0).then(|| self.committed * 10_000 / self.all())
    }
}

/// What one participant owes another from one window, gross.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Who owes.
    pub debtor: ParticipantIndex,
    /// Who is owed.
    pub creditor: ParticipantIndex,
    /// Payments.
    pub payments: u64,
    /// Σ of their amounts, minor units.
    pub amount_minor: Position,
}

/// A business day's movements of cover, in one currency: those whose event's time lies in it (Asia/Shanghai).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DayStatement {
    /// The day.
    pub date: BusinessDate,
    /// The currency.
    pub currency: Currency,
    /// The scheme's own code.
    pub scheme: SchemeCode,
    /// Up to when the movements are told: the end of the day, or the time of the journal's last event where it ends before.
    pub until: UtcNanos,
    /// True when the day is over.
    pub complete: bool,
    /// Every participant that has or had an account in the currency, in the order of their numbers.
    pub parties: Vec<PartyDay>,
}

/// One participant's day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartyDay {
    /// The participant.
    pub index: ParticipantIndex,
    /// Its code.
    pub code: SchemeCode,
    /// Its role.
    pub role: Role,
    /// The number of this statement: days since the participant joined, from 1.
    pub sequence: u64,
    /// Cover at the beginning of the day, minor units.
    pub opening_minor: Position,
    /// Its movements, in the order of the events.
    pub entries: Vec<CoverEntry>,
    /// Cover at the end: opening + Σ of the entries.
    pub closing_minor: Position,
}

/// One movement of cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoverEntry {
    /// The event that made it: with the participant it names the entry.
    pub event: u64,
    /// Its time.
    pub time: UtcNanos,
    /// Why.
    pub reason: CoverReason,
    /// Of a settled window its id, else none.
    pub window: WindowId,
    /// Minor units; negative where cover falls.
    pub change_minor: Position,
}
