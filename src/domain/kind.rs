//! What a payment is: its kind, its scene, who owes.

/// The kind of a payment (one business transaction).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// 协议支付: a pull under a mandate; the responder bank owes the initiator.
    Debit = 1,
    /// 付款: a push; the initiator owes the responder bank.
    Payout = 2,
    /// 退款: a push that gives back part of a committed Debit.
    Refund = 3,
    /// 签约: makes a mandate, in two steps (Authenticate, Sign). No money.
    Bind = 4,
    /// 解约: ends a mandate, in two steps. No money.
    Unbind = 5,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Debit, Self::Payout, Self::Refund, Self::Bind, Self::Unbind];

    /// Reads a kind's number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Debit),
            2 => Some(Self::Payout),
            3 => Some(Self::Refund),
            4 => Some(Self::Bind),
            5 => Some(Self::Unbind),
            _ => None,
        }
    }

    /// Who asks whom to move money.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Debit => Direction::Pull,
            Self::Payout | Self::Refund => Direction::Push,
            Self::Bind | Self::Unbind => Direction::None,
        }
    }

    /// The kind's bit in a participant's mask of permitted kinds.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << (self as u8)
    }

    /// The kind's name as the documents and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debit => "debit",
            Self::Payout => "payout",
            Self::Refund => "refund",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
        }
    }
}

/// The direction of a payment seen from its initiator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The initiator is paid: the responder owes.
    Pull,
    /// The initiator pays: the initiator owes.
    Push,
    /// No money moves.
    None,
}

/// What a payment is for; figures are kept per scene.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Scene {
    /// Paying a merchant.
    Shopping = 1,
    /// Person to person.
    Transfer = 2,
    /// A red packet between people.
    RedPacket = 3,
    /// A red packet of the televised gala.
    GalaRedPacket = 4,
    /// Water, power, phone.
    Utility = 5,
    /// Anything else.
    Other = 6,
}

impl Scene {
    /// All scenes, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Shopping,
        Self::Transfer,
        Self::RedPacket,
        Self::GalaRedPacket,
        Self::Utility,
        Self::Other,
    ];

    /// Reads a scene's number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Shopping),
            2 => Some(Self::Transfer),
            3 => Some(Self::RedPacket),
            4 => Some(Self::GalaRedPacket),
            5 => Some(Self::Utility),
            6 => Some(Self::Other),
            _ => None,
        }
    }

    /// The scene's name as traces and reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shopping => "shopping",
            Self::Transfer => "transfer",
            Self::RedPacket => "red_packet",
            Self::GalaRedPacket => "gala_red_packet",
            Self::Utility => "utility",
            Self::Other => "other",
        }
    }
}

/// The step of a Bind or Unbind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum BindStep {
    /// Any other kind of payment has no step.
    None = 0,
    /// The bank authenticates the account's owner.
    Authenticate = 1,
    /// The owner signs; the bank's answer carries the mandate's token.
    Sign = 2,
}

impl BindStep {
    /// Reads a step's number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Authenticate),
            2 => Some(Self::Sign),
            _ => None,
        }
    }
}
