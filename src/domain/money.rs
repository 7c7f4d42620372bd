//! Money: unsigned minor units for one payment, signed 128-bit sums, ISO 4217 numeric currencies. No floats.

use std::fmt;

/// An amount of one payment in minor units (fen for CNY). A direction is never a sign.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Amount(pub u64);

impl Amount {
    /// The amount as a term of a position.
    #[must_use]
    pub const fn as_position(self) -> Position {
        self.0 as Position
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// A sum of amounts in minor units; positive where the participant owes (debits − credits).
pub type Position = i128;

/// An ISO 4217 numeric currency code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Currency(pub u16);

impl Currency {
    /// Chinese yuan renminbi, ISO 4217 numeric 156.
    pub const CNY: Self = Self(156);
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}
