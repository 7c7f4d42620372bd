//! What operators ask and order through the admin socket, as JSON.
//!
//! ```text
//! {"request": "close-window", "currency": "CNY"}
//! {"request": "order", "operator": "alice", "token": "<64 hexadecimal digits>", "order": {"approve": {"proposal": 4711}}}
//! ```

use bytemuck::Zeroable;
use serde::Deserialize;
use serde_json::{Value, json};

use super::orders::{about_proposal, operator_text, order, with_terms};
use super::status::{LedgerView, sum};
use super::tidings::Ordered;
use crate::clearing::{OrderOutcomeSnapshot, ProposalSnapshot};
use crate::config::{Directory, DirectoryEntry, ParticipantSheet, currency_number, suspension_bits, suspension_names};
use crate::domain::{ParticipantIndex, ParticipantTerms, SchemeCode};
use crate::wire::{OrderAction, OrderEvent, OrderOutcome, OrderStep};

/// A request that is more than a word.
#[derive(Debug, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(super) enum Asked {
    /// Close the open window of one currency, or of all.
    CloseWindow { currency: Option<String> },
    /// An order of an operator.
    Order(OrderAsked),
}

/// An order, and who gives it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderAsked {
    pub(super) operator: String,
    pub(super) token: String,
    pub(super) order: Wanted,
}

/// What is ordered.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Wanted {
    Propose {
        action: String,
        participant: String,
        currency: String,
        amount_minor: u64,
    },
    Approve {
        proposal: u64,
    },
    Refuse {
        proposal: u64,
    },
    /// No directions are both.
    Suspend {
        participant: String,
        #[serde(default, rename = "as")]
        directions: Vec<String>,
    },
    Resume {
        participant: String,
        #[serde(default, rename = "as")]
        directions: Vec<String>,
    },
    Add(Box<ParticipantSheet>),
    Amend(Box<ParticipantSheet>),
    /// Its name, numbers and credential, which the journal does not hold.
    Introduce(Box<ParticipantSheet>),
}

/// What is to be done about it.
pub(super) enum Plan {
    /// An order for the journal; of one who joins, his entry.
    Order(Box<OrderEvent>, Option<Box<DirectoryEntry>>),
    /// An entry's name, numbers and credential.
    Introduce(Box<DirectoryEntry>),
}

impl Wanted {
    /// True for what rests on the terms in force: nobody else may order such a thing meanwhile.
    pub(super) const fn rests_on_terms(&self) -> bool {
        match self {
            Self::Suspend { .. } | Self::Resume { .. } | Self::Add(_) | Self::Amend(_) | Self::Introduce(_) => true,
            Self::Propose { .. } | Self::Approve { .. } | Self::Refuse { .. } => false,
        }
    }

    /// What is to be done, as things are in `directory`.
    ///
    /// # Errors
    /// What can't be meant, in words.
    pub(super) fn plan(&self, directory: &Directory, room: usize) -> Result<Plan, String> {
        let order = match self {
            Self::Propose {
                action,
                participant,
                currency,
                amount_minor,
            } => propose(directory, action, participant, currency, *amount_minor)?,
            Self::Approve { proposal } => about_proposal(OrderStep::Approve, *proposal),
            Self::Refuse { proposal } => about_proposal(OrderStep::Refuse, *proposal),
            Self::Suspend {
                participant,
                directions,
            } => suspend(directory, participant, |bits| Ok(bits | suspension_bits(directions)?))?,
            Self::Resume {
                participant,
                directions,
            } => suspend(directory, participant, |bits| Ok(bits & !suspension_bits(directions)?))?,
            Self::Add(sheet) => {
                let entry = DirectoryEntry::try_from(&**sheet)?;
                let next = directory.participants.len();
                if entry.terms.index.index() != next {
                    return Err(format!(
                        "the next participant's index is {next}, not {}",
                        entry.terms.index
                    ));
                }
                if next >= room {
                    return Err(format!(
                        "this run of the switch has room for {room} participants: start it again, then add more"
                    ));
                }
                let order = with_terms(OrderAction::Add, entry.terms);
                return Ok(Plan::Order(Box::new(order), Some(Box::new(entry))));
            }
            Self::Amend(sheet) => with_terms(OrderAction::Amend, same_participant(directory, sheet)?.terms),
            Self::Introduce(sheet) => return Ok(Plan::Introduce(Box::new(same_participant(directory, sheet)?))),
        };
        Ok(Plan::Order(Box::new(order), None))
    }
}

fn propose(
    directory: &Directory,
    action: &str,
    participant: &str,
    currency: &str,
    amount_minor: u64,
) -> Result<OrderEvent, String> {
    let actions = [OrderAction::CoverIn, OrderAction::CoverOut, OrderAction::SetCap];
    let known = actions.into_iter().find(|known| known.name() == action);
    let action = known.ok_or_else(|| format!("`{action}` is none of cover_in, cover_out, set_cap"))?;
    let currency = currency_number(currency).ok_or_else(|| format!("`{currency}` is not a currency of the scheme"))?;
    Ok(OrderEvent {
        amount_minor,
        currency,
        participant: find(directory, participant)?.terms.index,
        ..order(action, OrderStep::Propose)
    })
}

fn suspend(
    directory: &Directory,
    participant: &str,
    change: impl FnOnce(u8) -> Result<u8, String>,
) -> Result<OrderEvent, String> {
    let known = find(directory, participant)?.terms;
    let terms = ParticipantTerms {
        index: known.index,
        suspended: change(known.suspended)?,
        ..ParticipantTerms::zeroed()
    };
    Ok(with_terms(OrderAction::Suspend, terms))
}

/// The entry of a sheet that is about a participant there is: number, code and role are never changed.
fn same_participant(directory: &Directory, sheet: &ParticipantSheet) -> Result<DirectoryEntry, String> {
    let entry = DirectoryEntry::try_from(sheet)?;
    let known = find(directory, &sheet.code)?;
    if known.terms.index != entry.terms.index || known.terms.role != entry.terms.role {
        return Err(format!(
            "{} keeps its index {} and its role",
            sheet.code, known.terms.index
        ));
    }
    Ok(entry)
}

fn find<'d>(directory: &'d Directory, code: &str) -> Result<&'d DirectoryEntry, String> {
    let found = SchemeCode::parse(code).and_then(|code| directory.by_code(&code));
    found.ok_or_else(|| format!("no participant has the code {code}"))
}

/// What became of an order, with a sentence for the operator.
pub(super) fn ordered_json(ordered: &Ordered, step: u8) -> Value {
    let good = matches!(
        ordered.outcome,
        OrderOutcome::Done | OrderOutcome::Proposed | OrderOutcome::Refused
    );
    json!({
        "outcome": outcome_name(ordered.outcome),
        "event": ordered.event,
        "reference": ordered.reference,
        "action": OrderAction::from_u8(ordered.action).map(OrderAction::name),
        "good": good,
        "says": sentence(ordered.outcome, ordered.event, step),
    })
}

/// As tools write it.
pub(super) const fn outcome_name(outcome: OrderOutcome) -> &'static str {
    match outcome {
        OrderOutcome::Done => "done",
        OrderOutcome::Proposed => "proposed",
        OrderOutcome::Refused => "refused",
        OrderOutcome::Malformed => "malformed",
        OrderOutcome::TakesTwo => "takes_two",
        OrderOutcome::NoSuchProposal => "no_such_proposal",
        OrderOutcome::SamePerson => "same_person",
        OrderOutcome::NoSuchParticipant => "no_such_participant",
        OrderOutcome::NoSuchAccount => "no_such_account",
        OrderOutcome::CoverInUse => "cover_in_use",
        OrderOutcome::CapOverCover => "cap_over_cover",
        OrderOutcome::TooMany => "too_many",
    }
}

fn sentence(outcome: OrderOutcome, event: u64, step: u8) -> String {
    let still_waits = if step == OrderStep::Approve as u8 {
        "; the proposal still waits"
    } else {
        ""
    };
    match outcome {
        OrderOutcome::Done => format!("in force since event {event}"),
        OrderOutcome::Proposed => {
            format!("proposal {event} waits for a second person: `clearway admin approve {event}` by another operator")
        }
        OrderOutcome::Refused => "the proposal is taken back".to_owned(),
        OrderOutcome::Malformed => {
            "not carried out: a figure can't be (an amount of 0, timers that do not rise: Tq < T1 < T2)".to_owned()
        }
        OrderOutcome::TakesTwo => "not carried out: it moves cover, so propose it, and have another approve it".to_owned(),
        OrderOutcome::NoSuchProposal => {
            "not carried out: no such proposal waits; `clearway admin orders` lists those that do".to_owned()
        }
        OrderOutcome::SamePerson => {
            "not carried out: you made this proposal, and it takes another person to approve it".to_owned()
        }
        OrderOutcome::NoSuchParticipant => {
            "not carried out: no such participant; of one who joins, its index is not the next one, or its code is taken"
                .to_owned()
        }
        OrderOutcome::NoSuchAccount => {
            "not carried out: the scheme does not have this currency, or the participant no account in it".to_owned()
        }
        OrderOutcome::CoverInUse => format!(
            "not carried out: the cover would fall below the cap, or below what is owed and reserved; lower the cap first, or \
             settle what is owed{still_waits}"
        ),
        OrderOutcome::CapOverCover => {
            format!("not carried out: the cap would be above the cover; bring cover in first{still_waits}")
        }
        OrderOutcome::TooMany => "not carried out: too many proposals wait; approve or refuse some first".to_owned(),
    }
}

/// `orders`: proposals that wait, and what became of the last orders.
pub(super) fn orders_json(view: &LedgerView) -> Value {
    let code = |participant: ParticipantIndex| {
        let known = view.snapshot.participants.get(participant.index());
        known.map(|known| known.code.text())
    };
    let what = |order: &OrderEvent| {
        let action = OrderAction::from_u8(order.action);
        json!({
            "action": action.map(OrderAction::name),
            "participant": action.and_then(|_| code(order.participant)),
            "currency": (order.currency != 0).then(|| order.currency().alphabetic()),
            "amount_minor": action.filter(|action| action.takes_two()).map(|_| order.amount_minor),
            "suspended": (action == Some(OrderAction::Suspend)).then(|| suspension_names(order.terms.suspended)),
            "operator": operator_text(&order.operator),
        })
    };
    let proposal = |proposal: &ProposalSnapshot| {
        let mut row = json!({ "proposal": proposal.event, "time_ns": proposal.time.0 });
        extend(&mut row, what(&proposal.order));
        row
    };
    let outcome = |known: &OrderOutcomeSnapshot| {
        let step = match OrderStep::from_u8(known.order.step) {
            Some(OrderStep::Direct) => "order",
            Some(OrderStep::Propose) => "propose",
            Some(OrderStep::Approve) => "approve",
            Some(OrderStep::Refuse) => "refuse",
            None => "?",
        };
        let about = Some(known.order.proposal).filter(|&proposal| proposal != 0);
        let mut row = json!({
            "event": known.event,
            "time_ns": known.time.0,
            "reference": known.order.reference,
            "step": step,
            "proposal": about,
            "outcome": outcome_name(known.outcome),
        });
        extend(&mut row, what(&known.order));
        row
    };
    json!({
        "events": view.snapshot.event_number,
        "time_ns": view.snapshot.time.0,
        "proposals": view.proposals.iter().map(proposal).collect::<Vec<_>>(),
        "outcomes": view.outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}

fn extend(row: &mut Value, more: Value) {
    if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
}

/// `terms`: everybody's entry in force. Cover and cap are told as they would be had nothing been settled, as a directory file
/// has them; `settled` is what settlement has taken from each.
pub(super) fn terms_json(view: &LedgerView, directory: &Directory, file: &str) -> Value {
    let mut settled = serde_json::Map::new();
    let sheets = directory.participants.iter().map(|entry| {
        let mut sheet = ParticipantSheet::from(entry);
        let Some(known) = view.snapshot.participants.get(entry.terms.index.index()) else {
            return json!(sheet);
        };
        let minor = |sum: i128| i64::try_from(sum).unwrap_or(i64::MAX);
        let accounts = known.accounts.iter().map(|account| crate::config::AccountSheet {
            currency: account.currency.alphabetic().to_owned(),
            cover_minor: minor(account.cover + account.settled),
            cap_minor: minor(account.cap + account.settled),
        });
        sheet.accounts = accounts.collect();
        let moved = known.accounts.iter().filter(|account| account.settled != 0);
        let moved: serde_json::Map<String, Value> = moved
            .map(|account| (account.currency.alphabetic().to_owned(), sum(account.settled)))
            .collect();
        if !moved.is_empty() {
            settled.insert(known.code.text(), Value::Object(moved));
        }
        json!(sheet)
    });
    let sheets: Vec<Value> = sheets.collect();
    json!({
        "events": view.snapshot.event_number,
        "directory": file,
        "participants": sheets,
        "settled_minor": settled,
    })
}
