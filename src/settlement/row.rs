//! The canonical row of a committed payment, and its lines in the detail files. docs/settlement.md has the form.
//!
//! Ten million of them are written for a large window, so nothing here allocates for a row, and of a time the date is
//! written once a day.

use super::facts::WindowFacts;
use crate::domain::{BusinessDate, Direction, Kind, NANOS_PER_SECOND, ParticipantIndex, PaymentId, Scene, UtcNanos};
use crate::wire::RegisterEntry;

/// The first line of every detail file.
pub const DETAIL_HEADER: &str = "payment_id,kind,scene,currency,amount_minor,initiator,responder,accepted_at,committed_at,\
                                 window,original,leaf,side\n";

/// The longest canonical row: two ids, the longest kind and scene, two codes, two times, all numbers at their largest.
const ROW_BYTES_MAX: usize = 224;
/// The longest line without its side.
const LINE_BYTES_MAX: usize = ROW_BYTES_MAX + 80;
const DAY_SECONDS: u64 = 86_400;
/// In front of a row stands the byte that makes it a leaf of the tree.
const LEAF_PREFIX: usize = 1;

/// Which side of a payment a participant is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// It owes.
    Debit,
    /// It is owed.
    Credit,
    /// Nothing moves.
    None,
}

impl Side {
    /// The end of a line.
    #[must_use]
    pub const fn line_end(self) -> &'static str {
        match self {
            Self::Debit => "debit\n",
            Self::Credit => "credit\n",
            Self::None => "none\n",
        }
    }
}

/// Who is on which side of a payment.
#[must_use]
pub fn sides(entry: &RegisterEntry) -> [(ParticipantIndex, Side); 2] {
    let (initiator, responder) = (entry.initiator(), entry.responder);
    match entry.direction() {
        Direction::Pull => [(initiator, Side::Credit), (responder, Side::Debit)],
        Direction::Push => [(initiator, Side::Debit), (responder, Side::Credit)],
        Direction::None => [(initiator, Side::None), (responder, Side::None)],
    }
}

/// Writes the rows of one window.
#[derive(Debug)]
pub struct RowWriter {
    codes: Vec<[u8; 14]>,
    /// `,CNY,`
    currency: [u8; 5],
    /// `,W202611230001,`
    window: [u8; 15],
    accepted: DateCache,
    committed: DateCache,
    text: Text<{ LEAF_PREFIX + LINE_BYTES_MAX }>,
    row_end: usize,
}

impl RowWriter {
    /// For the payments of this window.
    #[must_use]
    pub fn new(facts: &WindowFacts) -> Self {
        Self {
            codes: facts.parties.iter().map(|party| party.code.0).collect(),
            currency: fixed(&format!(",{},", facts.currency.alphabetic())),
            window: fixed(&format!(",{},", facts.window)),
            accepted: DateCache::default(),
            committed: DateCache::default(),
            text: Text::new(),
            row_end: LEAF_PREFIX,
        }
    }

    /// Takes the next payment.
    ///
    /// # Errors
    /// What of it can't be in a window: a participant that was not there, a kind or scene that is none.
    #[inline]
    pub fn set(&mut self, entry: &RegisterEntry, leaf: u64) -> Result<(), &'static str> {
        let kind = Kind::from_u8(entry.kind).ok_or("has a kind that is none")?;
        let scene = Scene::from_u8(entry.scene).ok_or("has a scene that is none")?;
        let code = |index: ParticipantIndex| self.codes.get(index.index());
        let initiator = code(entry.initiator()).ok_or("has an initiator that was not there at the close")?;
        let responder = code(entry.responder).ok_or("has a responder that was not there at the close")?;
        let text = &mut self.text;
        text.clear();
        text.push(&[0]);
        text.payment_id(entry.id);
        text.push(b",");
        text.push(kind.name().as_bytes());
        text.push(b",");
        text.push(scene.name().as_bytes());
        text.push(&self.currency);
        text.decimal(entry.amount_minor);
        text.push(b",");
        text.push(initiator);
        text.push(b",");
        text.push(responder);
        text.push(b",");
        text.time(UtcNanos(entry.accepted_ns), &mut self.accepted);
        text.push(b",");
        text.time(UtcNanos(entry.final_ns), &mut self.committed);
        text.push(&self.window);
        self.row_end = text.length - 1;
        if kind == Kind::Refund {
            text.payment_id(entry.original());
        }
        text.push(b",");
        text.decimal(leaf);
        text.push(b",");
        Ok(())
    }

    /// The canonical row.
    #[inline]
    #[must_use]
    pub fn row(&self) -> &[u8] {
        &self.text.bytes[LEAF_PREFIX..self.row_end]
    }

    /// What a leaf's hash is taken of: a zero byte and the row.
    #[inline]
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        &self.text.bytes[..self.row_end]
    }

    /// The line of the detail file but for its side ([`Side::line_end`]).
    #[inline]
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.text.bytes[LEAF_PREFIX..self.text.length]
    }
}

/// Text of a length that is known.
fn fixed<const N: usize>(text: &str) -> [u8; N] {
    text.as_bytes().try_into().unwrap_or_else(|_| {
        panic!("`{text}` has not {N} characters: a currency has three letters, a window's id a date and four digits")
    })
}

/// The time as documents write it: RFC 3339, UTC, nine digits of nanoseconds.
#[must_use]
pub fn time_text(time: UtcNanos) -> String {
    let mut text = Text::<32>::new();
    text.time(time, &mut DateCache::default());
    String::from_utf8_lossy(&text.bytes[..text.length]).into_owned()
}

/// The last date that was written.
#[derive(Debug, Default)]
struct DateCache {
    /// The day counted from 1970-01-01, plus one; 0 = none was written.
    day: u64,
    /// `2026-11-23T`.
    text: [u8; 11],
}

/// Text in an array, as long as it is.
#[derive(Debug)]
struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    fn clear(&mut self) {
        self.length = 0;
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Digits are written where they stand, two at a time from the last.
    #[inline]
    fn decimal(&mut self, mut number: u64) {
        let mut end = self.length + number.checked_ilog10().map_or(1, |power| power as usize + 1);
        let start = self.length;
        self.length = end;
        while number >= 100 {
            end -= 2;
            self.bytes[end..end + 2].copy_from_slice(&pair(number % 100));
            number /= 100;
        }
        if number >= 10 {
            self.bytes[start..start + 2].copy_from_slice(&pair(number));
        } else {
            self.bytes[start] = b'0' + number as u8;
        }
    }

    #[inline]
    fn payment_id(&mut self, id: PaymentId) {
        self.decimal(id.date().0.into());
        self.push(b"-");
        self.decimal(id.originator().0.into());
        self.push(b"-");
        self.decimal(id.lane().into());
        self.push(b"-");
        self.decimal(id.serial());
    }

    #[inline]
    fn time(&mut self, time: UtcNanos, cache: &mut DateCache) {
        let (seconds, nanos) = (time.0 / NANOS_PER_SECOND, time.0 % NANOS_PER_SECOND);
        let (day, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
        if cache.day != day + 1 {
            let date = BusinessDate::from_day_number(day).to_string();
            cache.text[..10].copy_from_slice(date.as_bytes());
            cache.text[10] = b'T';
            cache.day = day + 1;
        }
        self.push(&cache.text);
        let mut clock = *b"00:00:00.000000000Z";
        clock[..2].copy_from_slice(&pair(second / 3_600));
        clock[3..5].copy_from_slice(&pair(second / 60 % 60));
        clock[6..8].copy_from_slice(&pair(second % 60));
        clock[9] = b'0' + (nanos / 100_000_000) as u8;
        for (place, divisor) in [(10, 1_000_000), (12, 10_000), (14, 100), (16, 1)] {
            clock[place..place + 2].copy_from_slice(&pair(nanos / divisor % 100));
        }
        self.push(&clock);
    }
}

/// Two digits of a number below 100.
#[inline]
const fn pair(number: u64) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Code, PaymentState, WindowId};
    use crate::settlement::made_up::MadeUpWindow;
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    fn entry(kind: Kind) -> RegisterEntry {
        RegisterEntry {
            id: PaymentId::new(BusinessDate(20_261_123), ParticipantIndex(0), 0, 4_711),
            amount_minor: 1_999,
            // 2026-11-23T11:05:00.123456789Z
            accepted_ns: 1_795_431_900_123_456_789,
            final_ns: 1_795_431_900_130_000_001,
            window: WindowId::new(BusinessDate(20_261_123), 1),
            responder: ParticipantIndex(1),
            currency: 156,
            kind: kind as u8,
            scene: Scene::Shopping as u8,
            state: PaymentState::Committed as u8,
            code: Code::Committed as u8,
            ..RegisterEntry::zeroed()
        }
    }

    fn facts() -> WindowFacts {
        let made_up = MadeUpWindow {
            seed: 1,
            payments: 1,
            institutions: 1,
            banks: 1,
            seconds: 60,
        };
        made_up.facts()
    }

    fn written(entry: &RegisterEntry) -> (String, String) {
        let mut rows = RowWriter::new(&facts());
        rows.set(entry, 17).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(rows.row()), text(rows.line()))
    }

    #[test]
    fn a_row_is_as_the_document_shows_it() {
        let (row, line) = written(&entry(Kind::Debit));
        assert_eq!(
            row,
            "20261123-0-0-4711,debit,shopping,CNY,1999,Z0000000000000,C0000000000001,2026-11-23T11:05:00.123456789Z,\
             2026-11-23T11:05:00.130000001Z,W202611230007"
        );
        assert_eq!(line, format!("{row},,17,"));
        let document = include_str!("../../docs/settlement.md");
        assert!(
            document.contains(DETAIL_HEADER),
            "docs/settlement.md shows another first line"
        );
    }

    #[test]
    fn a_refund_names_its_original_and_a_mandates_token_is_none() {
        let original = PaymentId::new(BusinessDate(20_260_901), ParticipantIndex(1), 3, u64::MAX);
        let related = bytemuck::cast(original);
        let (row, line) = written(&RegisterEntry {
            related,
            ..entry(Kind::Refund)
        });
        assert_eq!(line, format!("{row},20260901-1-3-18446744073709551615,17,"));
        let (row, line) = written(&RegisterEntry {
            related,
            ..entry(Kind::Bind)
        });
        assert_eq!(line, format!("{row},,17,"));
    }

    #[test]
    fn the_longest_line_there_can_be_fits() {
        let id = PaymentId {
            high: 0xffff_ffff_0001_ffff,
            low: u64::MAX,
        };
        let mut rows = RowWriter::new(&facts());
        let longest = RegisterEntry {
            id,
            related: bytemuck::cast(id),
            amount_minor: u64::MAX,
            scene: Scene::GalaRedPacket as u8,
            accepted_ns: u64::MAX,
            final_ns: u64::MAX,
            ..entry(Kind::Refund)
        };
        rows.set(&longest, u64::MAX).unwrap();
        assert!(rows.row().len() <= ROW_BYTES_MAX);
    }

    #[test]
    fn what_no_window_can_hold_is_refused() {
        let mut rows = RowWriter::new(&facts());
        for wrong in [
            RegisterEntry {
                responder: ParticipantIndex(2),
                ..entry(Kind::Debit)
            },
            RegisterEntry {
                kind: 9,
                ..entry(Kind::Debit)
            },
            RegisterEntry {
                scene: 0,
                ..entry(Kind::Debit)
            },
        ] {
            assert!(rows.set(&wrong, 0).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_and_times_are_written_as_the_library_would(number: u64, time: u64) {
            let mut text = Text::<64>::new();
            text.decimal(number);
            let written = std::str::from_utf8(&text.bytes[..text.length]).unwrap();
            prop_assert_eq!(written, number.to_string());
            let shown = time_text(UtcNanos(time));
            let (seconds, nanos) = (time / NANOS_PER_SECOND, time % NANOS_PER_SECOND);
            let date = BusinessDate::from_day_number(seconds / 86_400);
            let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
            prop_assert_eq!(shown, format!("{date}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"));
        }
    }
}
