//! Days: what moved each participant's cover, day by day.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::camt053;
use super::error::SettlementError;
use super::files::{Existing, Publication, SettlementDirectory};
use super::spool_reader::Movements;
use super::statement::{CoverEntry, DayStatement, PartyDay};
use crate::domain::{BusinessDate, Currency, ParticipantIndex, Position, Role, SECOND, SchemeCode, UtcNanos};

const DAY_SECONDS: u64 = 86_400;
const SHANGHAI_OFFSET_SECONDS: u64 = 8 * 3_600;

/// The first moment after a business day.
#[must_use]
pub const fn end_of(date: BusinessDate) -> UtcNanos {
    let seconds = ((date.day_number() + 1) * DAY_SECONDS).saturating_sub(SHANGHAI_OFFSET_SECONDS);
    UtcNanos(seconds * SECOND)
}

/// True when a day's files were written before the day was over: its statements end with an interim balance.
///
/// # Errors
/// They can't be read.
pub fn ends_early(directory: &Path) -> Result<bool, SettlementError> {
    let statements = directory.join("camt.053");
    let refused = |source| SettlementError::system(&statements, "read the day's statements")(source);
    let Some(first) = fs::read_dir(&statements).map_err(refused)?.next() else {
        return Ok(false);
    };
    let text = fs::read_to_string(first.map_err(refused)?.path()).map_err(refused)?;
    Ok(text.contains("<Cd>ITBD</Cd>"))
}

/// Writes a day's files.
///
/// # Errors
/// The system refuses something; or, with [`Existing::Keep`], other files are there.
pub fn write_day(
    statement: &DayStatement,
    directory: &SettlementDirectory,
    existing: Existing,
) -> Result<Publication, SettlementError> {
    let mut draft = directory.begin(directory.day(statement.date, statement.currency))?;
    for party in &statement.parties {
        draft.write(
            &format!("camt.053/{}.xml", party.code.text()),
            &camt053::to_xml(statement, party),
        )?;
    }
    draft.publish(existing)
}

/// A participant's account so far.
#[derive(Debug)]
struct Account {
    code: SchemeCode,
    role: Role,
    joined: BusinessDate,
    cover: Position,
    opening: Position,
    entries: Vec<CoverEntry>,
}

/// Gives `take` the statement of each currency and business day, from the first day that any cover moved on, in order: of
/// all that end at `last` or before, and, as one that is not complete, of the day that `last`, the time of the last event
/// that counts, lies in.
///
/// # Errors
/// The movements can't be read, or what `take` says.
pub fn day_statements(
    movements: Movements,
    last: UtcNanos,
    mut take: impl FnMut(DayStatement) -> Result<(), SettlementError>,
) -> Result<(), SettlementError> {
    let scheme = movements.scheme();
    let mut accounts: BTreeMap<(u16, ParticipantIndex), Account> = BTreeMap::new();
    let mut day = None;
    for movement in movements {
        let (movement, code, role) = movement?;
        if movement.time > last {
            break;
        }
        let date = movement.time.business_date();
        while let Some(open) = day.filter(|open| *open < date) {
            end_day(open, end_of(open), true, scheme, &mut accounts, &mut take)?;
            day = Some(next_day(open));
        }
        day = Some(date);
        let key = (movement.currency.0, movement.participant);
        let account = accounts.entry(key).or_insert_with(|| Account {
            code,
            role,
            joined: date,
            cover: 0,
            opening: 0,
            entries: Vec::new(),
        });
        account.cover = movement.cover_minor;
        account.entries.push(CoverEntry {
            event: movement.event,
            time: movement.time,
            reason: movement.reason,
            window: movement.window,
            change_minor: movement.change_minor,
        });
    }
    while let Some(open) = day {
        let end = end_of(open);
        let complete = end <= last;
        if !complete && last == end_of(day_before(open)) {
            // It has only just begun.
            break;
        }
        end_day(open, end.min(last), complete, scheme, &mut accounts, &mut take)?;
        day = complete.then(|| next_day(open));
    }
    Ok(())
}

pub(super) fn day_before(date: BusinessDate) -> BusinessDate {
    BusinessDate::from_day_number(date.day_number().saturating_sub(1))
}

fn next_day(date: BusinessDate) -> BusinessDate {
    BusinessDate::from_day_number(date.day_number() + 1)
}

fn end_day(
    date: BusinessDate,
    until: UtcNanos,
    complete: bool,
    scheme: SchemeCode,
    accounts: &mut BTreeMap<(u16, ParticipantIndex), Account>,
    take: &mut impl FnMut(DayStatement) -> Result<(), SettlementError>,
) -> Result<(), SettlementError> {
    let mut statements: BTreeMap<u16, Vec<PartyDay>> = BTreeMap::new();
    for (&(currency, index), account) in accounts {
        statements.entry(currency).or_default().push(PartyDay {
            index,
            code: account.code,
            role: account.role,
            sequence: date.day_number() - account.joined.day_number() + 1,
            opening_minor: account.opening,
            entries: std::mem::take(&mut account.entries),
            closing_minor: account.cover,
        });
        account.opening = account.cover;
    }
    for (currency, parties) in statements {
        take(DayStatement {
            date,
            currency: Currency(currency),
            scheme,
            until,
            complete,
            parties,
        })?;
    }
    Ok(())
}
