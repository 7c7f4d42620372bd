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

    /// The currencies that a scheme may name: ISO 4217 alphabetic and numeric.
    pub const NAMED: [(&'static str, u16); 8] = [
        ("CNY", 156),
        ("HKD", 344),
        ("MOP", 446),
        ("EUR", 978),
        ("GBP", 826),
        ("JPY", 392),
        ("SGD", 702),
        ("USD", 840),
    ];

    /// The ISO 4217 alphabetic code; `XXX`, ISO's word for no currency, where it is none of [`Currency::NAMED`].
    #[must_use]
    pub fn alphabetic(self) -> &'static str {
        Self::NAMED
            .iter()
            .find(|(_, number)| *number == self.0)
            .map_or("XXX", |(word, _)| word)
    }

    /// How many decimal digits its minor unit has (ISO 4217): 2 for CNY, 0 for JPY.
    #[must_use]
    pub const fn minor_digits(self) -> usize {
        match self.0 {
            392 => 0,
            _ => 2,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}
