//! Lists that operators work through: payments in doubt, exception items. Bounded, and they say what was left out.

use serde_json::{Value, json};

use super::status::{LedgerView, sum};
use crate::clearing::{ExceptionItem, InDoubtSnapshot};
use crate::domain::ParticipantIndex;

/// At most this many rows of a list are told at a time.
const ROWS_MAX: usize = 1_000;

/// Which lists a question wants beside the ledger, so that nobody else's answer carries them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The ledger alone.
    Ledger,
    /// The oldest payments in doubt too.
    InDoubt,
    /// The newest exception items too.
    Exceptions,
    /// Proposals that wait, and what became of the last orders.
    Orders,
}

impl Wanted {
    /// How many payments in doubt are wanted.
    pub(super) const fn in_doubt_max(self) -> usize {
        match self {
            Self::InDoubt => ROWS_MAX,
            Self::Ledger | Self::Exceptions | Self::Orders => 0,
        }
    }

    /// How many exception items are wanted.
    pub(super) const fn exceptions_max(self) -> usize {
        match self {
            Self::Exceptions => ROWS_MAX,
            Self::Ledger | Self::InDoubt | Self::Orders => 0,
        }
    }
}

/// `in-doubt`: the oldest first, since they expire first.
#[must_use]
pub fn in_doubt_json(view: &LedgerView) -> Value {
    let total = view.figures.in_doubt;
    let row = |doubt: &InDoubtSnapshot| {
        json!({
            "payment": doubt.payment.to_string(),
            "kind": doubt.kind.name(),
            "initiator": code(view, doubt.payment.originator()),
            "responder": code(view, doubt.responder),
            "amount_minor": doubt.amount.0,
            "currency": doubt.currency.0,
            "status_requests": doubt.attempts,
            "accepted_ns": doubt.accepted.0,
            "expires_ns": doubt.expires.0,
        })
    };
    json!({
        "events": view.snapshot.event_number,
        "time_ns": view.snapshot.time.0,
        "total": total,
        "left_out": total.saturating_sub(view.in_doubt.len() as u64),
        "in_doubt": view.in_doubt.iter().map(row).collect::<Vec<_>>(),
    })
}

/// `exceptions`: the newest, in the order of the events.
#[must_use]
pub fn exceptions_json(view: &LedgerView) -> Value {
    let total = view.exceptions_total;
    let row = |(item, bank): &(ExceptionItem, Option<ParticipantIndex>)| {
        json!({
            "payment": item.payment.to_string(),
            "what": item.what.name(),
            "initiator": code(view, item.payment.originator()),
            "responder": bank.and_then(|bank| code(view, bank)),
            "event": item.event,
            "time_ns": item.time.0,
        })
    };
    json!({
        "events": view.snapshot.event_number,
        "time_ns": view.snapshot.time.0,
        "total": total,
        "left_out": total.saturating_sub(view.exceptions.len() as u64),
        "exceptions": view.exceptions.iter().map(row).collect::<Vec<_>>(),
    })
}

fn code(view: &LedgerView, participant: ParticipantIndex) -> Option<String> {
    let known = view.snapshot.participants.get(participant.index());
    known.map(|known| known.code.text())
}

/// Final payments, how many of them committed, and that share in basis points.
pub(super) fn success_json([ended, committed]: [u64; 2]) -> Value {
    let share_bp = (ended > 0).then(|| sum(i128::from(committed) * 10_000 / i128::from(ended)));
    json!({ "final": ended, "committed": committed, "success_bp": share_bp })
}
