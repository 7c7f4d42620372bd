//! Files of booked payments: a participant's own books in whatever columns it has, and our detail file.

use std::fs::File;
use std::io;
use std::path::Path;

use bytemuck::Zeroable;
use csv::{ByteRecord, ReaderBuilder};

use super::sorting::{BookLine, Sorted, Sorter};
use crate::domain::{BusinessDate, Currency, Kind, PaymentId, WindowId};

/// Lines that can't be used are named up to so many.
const UNUSABLE_TOLD_MAX: usize = 20;

/// Why books can't be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The file can't be read, or the temporary ones can't be written.
    #[error("{file}: {error}")]
    System {
        /// Which.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// A column that must be there is not.
    #[error(
        "{file}: the header has no column {column}; there must be payment_id, amount_minor and side, there may be \
         currency and window, in any order"
    )]
    NoColumn {
        /// The file.
        file: String,
        /// The column.
        column: &'static str,
    },
    /// Lines that say nothing that can be used.
    #[error("{file}: {count} lines that can't be used; nothing was compared\n  {}", .lines.join("\n  "))]
    Unusable {
        /// The file.
        file: String,
        /// How many.
        count: u64,
        /// The first of them, each with its number and what is wrong.
        lines: Vec<String>,
    },
}

/// Where the columns are.
struct Columns {
    id: usize,
    amount: usize,
    side: usize,
    currency: Option<usize>,
    window: Option<usize>,
    kind: Option<usize>,
    initiator: Option<usize>,
}

/// Reads a file of booked payments and sorts its lines by id. Of our own, `participant` says which of two it is.
pub(super) fn read_books(path: &Path, participant: &str) -> Result<Sorted, BooksError> {
    let system = |error| BooksError::System {
        file: path.display().to_string(),
        error,
    };
    let file = File::open(path).map_err(system)?;
    let mut reader = ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let columns = columns(reader.byte_headers().map_err(|error| system(error.into()))?, path)?;
    let (mut sorter, mut record) = (Sorter::default(), ByteRecord::new());
    let (mut count, mut told) = (0_u64, Vec::new());
    let mut unusable = |line: u64, what: String| {
        count += 1;
        if told.len() < UNUSABLE_TOLD_MAX {
            told.push(format!("line {line}: {what}"));
        }
    };
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {
                let line = record.position().map_or(0, csv::Position::line);
                match booked(&record, &columns, line, participant) {
                    Ok(booked) => sorter.add(booked).map_err(system)?,
                    Err(what) => unusable(line, what),
                }
            }
            Err(error) => match error.position().map(csv::Position::line) {
                Some(line) => unusable(line, "has not as many fields as the header".to_owned()),
                None => return Err(system(error.into())),
            },
        }
    }
    if count > 0 {
        return Err(BooksError::Unusable {
            file: path.display().to_string(),
            count,
            lines: told,
        });
    }
    sorter.sorted().map_err(system)
}

fn columns(header: &ByteRecord, path: &Path) -> Result<Columns, BooksError> {
    let find = |name: &str| {
        header
            .iter()
            .position(|field| field.eq_ignore_ascii_case(name.as_bytes()))
    };
    let must = |column: &'static str| {
        find(column).ok_or_else(|| BooksError::NoColumn {
            file: path.display().to_string(),
            column,
        })
    };
    Ok(Columns {
        id: must("payment_id")?,
        amount: must("amount_minor")?,
        side: must("side")?,
        currency: find("currency"),
        window: find("window"),
        kind: find("kind"),
        initiator: find("initiator"),
    })
}

fn booked(record: &ByteRecord, columns: &Columns, line: u64, participant: &str) -> Result<BookLine, String> {
    let field = |at: usize| {
        record
            .get(at)
            .and_then(|field| str::from_utf8(field).ok())
            .unwrap_or("")
    };
    let said = |at: Option<usize>| at.map(field).filter(|text| !text.is_empty());
    let wrong = |what: &str, text: &str| format!("{what} {text:?}");
    let id = field(columns.id);
    let amount = field(columns.amount);
    let is_number = !amount.is_empty() && amount.bytes().all(|byte| byte.is_ascii_digit());
    let side = match field(columns.side).to_ascii_lowercase().as_str() {
        "debit" => 1,
        "credit" => 2,
        "none" => 3,
        other => return Err(wrong("side is debit, credit or none, not", other)),
    };
    let currency = match said(columns.currency) {
        None => 0,
        Some(text) => {
            currency(text).ok_or_else(|| wrong("currency is no code of ISO 4217 that the scheme has:", text))?
        }
    };
    let window = match said(columns.window) {
        None => WindowId::NONE,
        Some(text) => parse_window(text).ok_or_else(|| wrong("window is not W and twelve digits:", text))?,
    };
    Ok(BookLine {
        id: PaymentId::parse(id)
            .filter(|parsed| !parsed.is_zero())
            .ok_or_else(|| wrong("payment_id is not date-originator-lane-serial:", id))?,
        amount_minor: is_number
            .then(|| amount.parse().ok())
            .flatten()
            .ok_or_else(|| wrong("amount_minor is not a whole number of minor units:", amount))?,
        line,
        window: window.0,
        currency,
        side,
        kind: said(columns.kind)
            .and_then(|name| Kind::ALL.iter().find(|kind| kind.name() == name))
            .map_or(0, |kind| *kind as u8),
        is_initiator: u8::from(said(columns.initiator) == Some(participant)),
        ..BookLine::zeroed()
    })
}

fn currency(text: &str) -> Option<u16> {
    let named = Currency::NAMED.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    let numeric = || Currency::NAMED.iter().find(|(_, number)| text.parse() == Ok(*number));
    named.or_else(numeric).map(|(_, number)| *number)
}

/// Reads a window's id: `W202611230001`.
pub(super) fn parse_window(text: &str) -> Option<WindowId> {
    let digits = text.strip_prefix('W').filter(|digits| digits.len() == 12)?;
    let number: u64 = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())??;
    Some(WindowId::new(
        BusinessDate((number / 10_000) as u32),
        (number % 10_000) as u32,
    ))
}
