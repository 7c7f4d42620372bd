//! The states of payments and windows.

/// A payment's state in the ledger. `Rejected` never entered it but is remembered, so that the rejection sticks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PaymentState {
    /// Accepted; cover is reserved on the party that will owe.
    Reserved = 1,
    /// Unanswered past T1, or past a restart; the reservation is kept and the bank is asked.
    InDoubt = 2,
    /// Final: the bank said yes; posted and in a window.
    Committed = 3,
    /// Final: the bank said no, or never saw it.
    Declined = 4,
    /// Final: not sent, or unanswered past T2.
    Expired = 5,
    /// Final: refused by the switch's own rules.
    Rejected = 6,
}

impl PaymentState {
    /// Reads a state's number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Reserved),
            2 => Some(Self::InDoubt),
            3 => Some(Self::Committed),
            4 => Some(Self::Declined),
            5 => Some(Self::Expired),
            6 => Some(Self::Rejected),
            _ => None,
        }
    }

    /// True when no event can change the state any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Reserved | Self::InDoubt => false,
            Self::Committed | Self::Declined | Self::Expired | Self::Rejected => true,
        }
    }
}

/// A clearing window's state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum WindowState {
    /// Takes the payments that commit now; exactly one per currency.
    Open = 1,
    /// Complete, not yet handed to settlement.
    Closed = 2,
    /// Handed to the settlement agent.
    Settling = 3,
    /// Settled: position, cover and cap have fallen by its net.
    Settled = 4,
    /// Settlement failed; it is settled again in a later run.
    Aborted = 5,
}

impl WindowState {
    /// Reads a state's number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Open),
            2 => Some(Self::Closed),
            3 => Some(Self::Settling),
            4 => Some(Self::Settled),
            5 => Some(Self::Aborted),
            _ => None,
        }
    }

    /// The state's name as reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Settling => "settling",
            Self::Settled => "settled",
            Self::Aborted => "aborted",
        }
    }
}
