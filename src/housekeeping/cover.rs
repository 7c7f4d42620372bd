//! `cover`: who uses how much of his cap, the fullest first, and the newest alarms.

use serde_json::{Value, json};

use super::status::sum;
use super::tidings::CoverAlarm;
use crate::clearing::{AccountSnapshot, LedgerSnapshot, ParticipantSnapshot};
use crate::domain::Position;

/// The list as JSON. What of an account can't be used at all is told as used whole.
pub(super) fn cover_json(snapshot: &LedgerSnapshot, alarms: &[CoverAlarm]) -> Value {
    let accounts = snapshot.participants.iter();
    let mut accounts: Vec<(&ParticipantSnapshot, &AccountSnapshot)> = accounts
        .flat_map(|participant| participant.accounts.iter().map(move |account| (participant, account)))
        .collect();
    accounts.sort_by_key(|(participant, account)| (std::cmp::Reverse(used_bp(account)), participant.index));
    let row = |(participant, account): &(&ParticipantSnapshot, &AccountSnapshot)| {
        json!({
            "code": participant.code.text(),
            "currency": account.currency.alphabetic(),
            "position_minor": sum(account.position),
            "reserved_minor": sum(account.reserved),
            "cap_minor": sum(account.cap),
            "cover_minor": sum(account.cover),
            "used_bp": used_bp(account),
            "alarm_bp": account.level_bp,
            "opening_minor": sum(account.opening),
            "brought_in_minor": sum(account.brought_in),
            "taken_out_minor": sum(account.taken_out),
            "settled_minor": sum(account.settled),
        })
    };
    let alarm = |alarm: &CoverAlarm| {
        let known = snapshot.participants.get(alarm.participant.index());
        json!({
            "time_ns": alarm.time.0,
            "code": known.map(|known| known.code.text()),
            "currency": alarm.currency.alphabetic(),
            "level_bp": alarm.level_bp,
            "before_bp": alarm.before_bp,
            "used_minor": alarm.used_minor,
            "cap_minor": alarm.cap_minor,
        })
    };
    json!({
        "events": snapshot.event_number,
        "time_ns": snapshot.time.0,
        "accounts": accounts.iter().map(row).collect::<Vec<_>>(),
        "alarms": alarms.iter().rev().map(alarm).collect::<Vec<_>>(),
    })
}

/// Basis points of the cap.
fn used_bp(account: &AccountSnapshot) -> i64 {
    let used: Position = (account.position + account.reserved).max(0);
    let share = match (used, account.cap) {
        (0, _) => 0,
        (used, cap) if cap > 0 => used * 10_000 / cap,
        _ => 10_000,
    };
    i64::try_from(share).unwrap_or(i64::MAX)
}
