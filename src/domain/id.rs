//! Identifiers. Each is a type of its own, so that a link is never taken for a participant.

use bytemuck::{Pod, Zeroable};
use std::fmt;

use super::BusinessDate;

/// A participant's dense number, written in the directory and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct ParticipantIndex(pub u16);

impl ParticipantIndex {
    /// The number as an index into per-participant arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ParticipantIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A participant's public code of 14 characters (digits and upper-case letters).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct SchemeCode(pub [u8; 14]);

impl SchemeCode {
    /// Reads a code; `None` unless it is exactly 14 ASCII digits or upper-case letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 14] = text.as_bytes().try_into().ok()?;
        bytes
            .iter()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
            .then_some(Self(bytes))
    }

    /// The code as text; bytes that are not ASCII graphic are shown as `?`.
    #[must_use]
    pub fn text(&self) -> String {
        self.0
            .iter()
            .map(|&b| if b.is_ascii_graphic() { b as char } else { '?' })
            .collect()
    }
}

impl fmt::Debug for SchemeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Display for SchemeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// A payment's identity, 16 bytes: business date (`u32` yyyymmdd), originator (`u16`), lane (`u16`), serial (`u64`).
///
/// On the wire and in the journal it is two little-endian `u64`: `high` = date·2³² + originator·2¹⁶ + lane, `low` =
/// serial. Never zero. A retry keeps the id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct PaymentId {
    /// Date, originator and lane.
    pub high: u64,
    /// The originator's serial within date and lane.
    pub low: u64,
}

const _: () = assert!(size_of::<PaymentId>() == 16);

impl PaymentId {
    /// Puts an id together from its parts.
    #[must_use]
    pub const fn new(date: BusinessDate, originator: ParticipantIndex, lane: u16, serial: u64) -> Self {
        Self {
            high: ((date.0 as u64) << 32) | ((originator.0 as u64) << 16) | lane as u64,
            low: serial,
        }
    }

    /// Reads an id as it is shown: `20260204-517-3-987654321012`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let date = BusinessDate(parts.next()?.parse().ok()?);
        let originator = ParticipantIndex(parts.next()?.parse().ok()?);
        let (lane, serial) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts
            .next()
            .is_none()
            .then(|| Self::new(date, originator, lane, serial))
    }

    /// True for the id that no payment may have.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.high == 0 && self.low == 0
    }

    /// The business date the originator gave the payment.
    #[must_use]
    pub const fn date(self) -> BusinessDate {
        BusinessDate((self.high >> 32) as u32)
    }

    /// The participant that made the id.
    #[must_use]
    pub const fn originator(self) -> ParticipantIndex {
        ParticipantIndex((self.high >> 16) as u16)
    }

    /// The originator's lane.
    #[must_use]
    pub const fn lane(self) -> u16 {
        self.high as u16
    }

    /// The originator's serial.
    #[must_use]
    pub const fn serial(self) -> u64 {
        self.low
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{}-{}",
            self.date().0,
            self.originator().0,
            self.lane(),
            self.serial()
        )
    }
}

/// Where a payment's record lies in the engine's table; dense, given in the order of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct PaymentSlot(pub u32);

impl PaymentSlot {
    /// The slot that no payment has.
    pub const NONE: Self = Self(u32::MAX);

    /// The slot as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One link of this run of the switch: slot in the low 16 bits, generation in the high 16.
///
/// A slot is used again when its link has ended; the generation tells the two apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct LinkId(pub u32);

impl LinkId {
    /// The link that no participant has (generations start at 1).
    pub const NONE: Self = Self(0);

    /// Puts an id together.
    #[must_use]
    pub const fn new(slot: u16, generation: u16) -> Self {
        Self(((generation as u32) << 16) | slot as u32)
    }

    /// The slot, dense over all link agents.
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// The generation of the slot.
    #[must_use]
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// A clearing window: `W`, the business date of its opening, four digits. Held as yyyymmdd·10⁴ + number; 0 = none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct WindowId(pub u64);

impl WindowId {
    /// The id on answers to payments that were not committed.
    pub const NONE: Self = Self(0);

    /// Puts an id together; `number` counts the windows opened that day over all currencies, from 1.
    #[must_use]
    pub const fn new(date: BusinessDate, number: u32) -> Self {
        Self(date.0 as u64 * 10_000 + number as u64)
    }

    /// The business date on which the window was opened.
    #[must_use]
    pub const fn date(self) -> BusinessDate {
        BusinessDate((self.0 / 10_000) as u32)
    }

    /// The window's number within its date.
    #[must_use]
    pub const fn number(self) -> u32 {
        (self.0 % 10_000) as u32
    }
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            f.write_str("none")
        } else {
            write!(f, "W{:08}{:04}", self.0 / 10_000, self.0 % 10_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_id_gives_back_its_parts() {
        let id = PaymentId::new(BusinessDate(20_260_204), ParticipantIndex(517), 3, 987_654_321_012);
        assert_eq!(
            (id.date().0, id.originator().0, id.lane(), id.serial()),
            (20_260_204, 517, 3, 987_654_321_012)
        );
        assert_eq!(id.to_string(), "20260204-517-3-987654321012");
        assert_eq!(PaymentId::parse(&id.to_string()), Some(id));
        for wrong in [
            "",
            "20260204-517-3",
            "20260204-517-3-1-2",
            "20260204-70000-3-1",
            "a-1-1-1",
        ] {
            assert_eq!(PaymentId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_window_id_is_a_letter_a_date_and_four_digits() {
        assert_eq!(WindowId::new(BusinessDate(20_260_204), 7).to_string(), "W202602040007");
    }

    #[test]
    fn a_scheme_code_has_fourteen_capitals_or_digits() {
        assert!(SchemeCode::parse("Z2007933000010").is_some());
        assert!(SchemeCode::parse("Z200793300001").is_none());
        assert!(SchemeCode::parse("z2007933000010").is_none());
    }
}
