//! What the ISO 20022 messages have in common: how amounts, times and participants are written, and what they say of a window.
//!
//! A message is a pure function of a statement: no clock, no randomness, no order that varies. All texts are ASCII.

use std::fmt::Display;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::WindowStatement;
use crate::domain::{BusinessDate, Currency, NANOS_PER_SECOND, Position, SchemeCode, UtcNanos, WindowId};

/// The proprietary name of the scheme's participant codes, of its clearing system and of its transaction codes.
pub(super) const SCHEME_NAME: &str = "CLEARWAY";

/// The namespace of what the messages say that ISO 20022 has no place for.
pub(super) const NAMESPACE: &str = "urn:clearway:settlement:1";

const DAY_SECONDS: u64 = 86_400;

/// Which way money goes, seen from the participant: ISO 20022 counts zero as a credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// It pays.
    Debit,
    /// It is paid, or nothing moves.
    Credit,
}

impl Side {
    /// Of debits − credits: positive where the participant must pay.
    pub(super) const fn of_net(net_minor: Position) -> Self {
        if net_minor > 0 { Self::Debit } else { Self::Credit }
    }

    /// Of a change of cover: negative where it falls.
    pub(super) const fn of_change(change_minor: Position) -> Self {
        if change_minor < 0 { Self::Debit } else { Self::Credit }
    }

    /// `CreditDebitCode`.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Debit => "DBIT",
            Self::Credit => "CRDT",
        }
    }
}

/// A message while it is written.
pub(super) struct Message {
    writer: Writer<Vec<u8>>,
}

impl Message {
    /// A whole message: `identifier` is its ISO 20022 name (`pacs.029.001.02`), `root` the element within `Document`.
    pub(super) fn write(identifier: &str, root: &str, body: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut message = Self {
            writer: Writer::new_with_indent(Vec::new(), b' ', 1),
        };
        message.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        let namespace = format!("urn:iso:std:iso:20022:tech:xsd:{identifier}");
        message.group_with("Document", ("xmlns", &namespace), |message| message.group(root, body));
        let mut bytes = message.writer.into_inner();
        bytes.push(b'\n');
        bytes
    }

    /// An element that holds elements.
    pub(super) fn group(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        self.event(Event::Start(BytesStart::new(name)));
        body(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    fn group_with(&mut self, name: &str, attribute: (&str, &str), body: impl FnOnce(&mut Self)) {
        self.event(Event::Start(BytesStart::new(name).with_attributes([attribute])));
        body(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// An element that holds a text.
    pub(super) fn text(&mut self, name: &str, text: impl Display) {
        self.leaf(BytesStart::new(name), &text.to_string());
    }

    /// An amount of money without a direction.
    pub(super) fn amount(&mut self, name: &str, minor: Position, currency: Currency) {
        let start = BytesStart::new(name).with_attributes([("Ccy", currency.alphabetic())]);
        self.leaf(start, &decimal(minor, currency));
    }

    /// A participant, or the clearing house, as a financial institution.
    pub(super) fn institution(&mut self, name: &str, code: SchemeCode) {
        self.group(name, |m| {
            m.group("FinInstnId", |m| {
                m.group("ClrSysMmbId", |m| {
                    m.group("ClrSysId", |m| m.text("Prtry", SCHEME_NAME));
                    m.text("MmbId", code);
                });
            });
        });
    }

    /// A participant, or the clearing house, where the schema wants a party.
    pub(super) fn party(&mut self, name: &str, code: SchemeCode) {
        self.group(name, |m| {
            m.group("Id", |m| {
                m.group("OrgId", |m| {
                    m.group("Othr", |m| {
                        m.text("Id", code);
                        m.group("SchmeNm", |m| m.text("Prtry", SCHEME_NAME));
                    });
                });
            });
        });
    }

    /// A participant's account with the clearing house (`CashAccount39`): `CODE-CCY`.
    pub(super) fn account(&mut self, owner: SchemeCode, servicer: SchemeCode, currency: Currency) {
        self.group("Acct", |m| {
            m.group("Id", |m| {
                m.group("Othr", |m| {
                    m.text("Id", format_args!("{owner}-{}", currency.alphabetic()));
                    m.group("SchmeNm", |m| m.text("Prtry", SCHEME_NAME));
                });
            });
            m.text("Ccy", currency.alphabetic());
            m.party("Ownr", owner);
            m.institution("Svcr", servicer);
        });
    }

    /// How it settles (`SttlmInf`): through a clearing system, this one.
    pub(super) fn settlement_information(&mut self) {
        self.group("SttlmInf", |m| {
            m.text("SttlmMtd", "CLRG");
            m.group("ClrSys", |m| m.text("Prtry", SCHEME_NAME));
        });
    }

    /// The code of a booking: ISO 20022's, and the scheme's own.
    pub(super) fn transaction_code(&mut self, side: Side, own: &str) {
        self.group("BkTxCd", |m| {
            m.group("Domn", |m| {
                m.text("Cd", "PMNT");
                m.group("Fmly", |m| {
                    // Issued and received credit transfers; both have the sub-family of those between institutions.
                    m.text("Cd", if side == Side::Debit { "ICDT" } else { "RCDT" });
                    m.text("SubFmlyCd", "FICT");
                });
            });
            m.group("Prtry", |m| {
                m.text("Cd", own);
                m.text("Issr", SCHEME_NAME);
            });
        });
    }

    /// A window and its root, in the place that schemas leave for what they do not know (`SplmtryData`).
    pub(super) fn window_particulars(&mut self, statement: &WindowStatement, more: impl FnOnce(&mut Self)) {
        self.group("SplmtryData", |m| {
            m.group("Envlp", |m| {
                m.group_with("Window", ("xmlns", NAMESPACE), |m| {
                    m.text("Id", statement.window);
                    m.text("Currency", statement.currency.alphabetic());
                    m.text("Root", hexadecimal(&statement.root));
                    m.text("Journal", hexadecimal(&statement.journal_id));
                    m.text("CloseEvent", statement.close_event);
                    m.text("OpenedAt", utc_nanos(statement.opened));
                    m.text("ClosedAt", utc_nanos(statement.closed));
                    m.text("Committed", statement.committed);
                    m.text("GrossMinor", statement.gross_minor);
                    more(m);
                });
            });
        });
    }

    fn leaf(&mut self, start: BytesStart<'_>, text: &str) {
        let end = start.to_end().into_owned();
        self.event(Event::Start(start));
        self.event(Event::Text(BytesText::new(text)));
        self.event(Event::End(end));
    }

    fn event(&mut self, event: Event<'_>) {
        self.writer.write_event(event).expect("a vector takes every byte");
    }
}

/// The size of a sum as a decimal number with the currency's digits; a direction is told by an indicator beside it.
pub(super) fn decimal(minor: Position, currency: Currency) -> String {
    let (size, digits) = (minor.unsigned_abs(), currency.minor_digits());
    if digits == 0 {
        return size.to_string();
    }
    let unit = 10_u128.pow(digits as u32);
    format!("{}.{:0digits$}", size / unit, size % unit)
}

/// A time in UTC, to the millisecond below: as many digits as banks' software takes.
pub(super) fn utc_millis(time: UtcNanos) -> String {
    let (seconds, nanos) = (time.0 / NANOS_PER_SECOND, time.0 % NANOS_PER_SECOND);
    format!("{}.{:03}Z", utc_seconds(seconds), nanos / 1_000_000)
}

/// A time in UTC, to the nanosecond.
pub(super) fn utc_nanos(time: UtcNanos) -> String {
    let (seconds, nanos) = (time.0 / NANOS_PER_SECOND, time.0 % NANOS_PER_SECOND);
    format!("{}.{nanos:09}Z", utc_seconds(seconds))
}

fn utc_seconds(seconds: u64) -> String {
    let (date, second) = (
        BusinessDate::from_day_number(seconds / DAY_SECONDS),
        seconds % DAY_SECONDS,
    );
    format!(
        "{date}T{:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// Lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What names a participant's net of a window in every message: 28 characters, no two alike.
pub(super) fn net_reference(window: WindowId, code: SchemeCode) -> String {
    format!("{window}-{code}")
}

/// The id of a message about a whole window: 32 characters.
pub(super) fn window_message_id(scheme: SchemeCode, window: WindowId, message: u32) -> String {
    format!("{scheme}-{window}-{message:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_its_currencys_digits_and_no_sign() {
        for (minor, currency, text) in [
            (0, Currency::CNY, "0.00"),
            (5, Currency::CNY, "0.05"),
            (-199_999, Currency::CNY, "1999.99"),
            (999_999_999_999_999_999, Currency::CNY, "9999999999999999.99"),
            (0, Currency(392), "0"),
            (-70, Currency(392), "70"),
        ] {
            assert_eq!(decimal(minor, currency), text);
        }
    }

    #[test]
    fn a_time_is_told_in_utc() {
        let time = UtcNanos(1_795_432_149_123_456_789);
        assert_eq!(utc_nanos(time), "2026-11-23T11:09:09.123456789Z");
        assert_eq!(utc_millis(time), "2026-11-23T11:09:09.123Z");
        assert_eq!(utc_millis(UtcNanos(0)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_would_be_markup_is_written_as_text() {
        let bytes = Message::write("x", "R", |m| m.text("T", "<&>\""));
        let text = String::from_utf8(bytes).expect("UTF-8");
        let document = roxmltree::Document::parse(&text).expect("XML");
        let leaf = document
            .descendants()
            .find(|n| n.has_tag_name(("urn:iso:std:iso:20022:tech:xsd:x", "T")));
        assert_eq!(leaf.and_then(|n| n.text()), Some("<&>\""));
    }
}
