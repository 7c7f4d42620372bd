//! What a window came to, by the auditor's books: followed while events are read, summed up when it closes.

use std::collections::BTreeMap;

use super::books::{Books, NO_WINDOW, Window};
use super::row::Posted;
use crate::domain::{Currency, Kind, ParticipantIndex, PaymentState, Position, Scene, UtcNanos, WindowId, WindowState};
use crate::wire::RecordKind;

/// How payments ended that became final while a window was open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ended {
    pub(super) committed: u64,
    pub(super) declined: u64,
    pub(super) expired: u64,
    pub(super) rejected: u64,
    pub(super) committed_minor: Position,
}

impl Ended {
    fn count(&mut self, state: PaymentState, amount: u64) {
        match state {
            PaymentState::Committed => {
                self.committed += 1;
                self.committed_minor += Position::from(amount);
            }
            PaymentState::Declined => self.declined += 1,
            PaymentState::Expired => self.expired += 1,
            PaymentState::Rejected => self.rejected += 1,
            PaymentState::Reserved | PaymentState::InDoubt => {}
        }
    }

    /// All that became final.
    pub(super) fn all(&self) -> u64 {
        self.committed + self.declined + self.expired + self.rejected
    }
}

/// A window while it is open, and until its files are checked.
#[derive(Clone, Debug, Default)]
pub(super) struct WindowTrace {
    pub(super) opened: UtcNanos,
    pub(super) posted: Vec<Posted>,
    pub(super) all: Ended,
    pub(super) by_kind: BTreeMap<&'static str, Ended>,
    pub(super) by_scene: BTreeMap<&'static str, Ended>,
    pub(super) by_code: BTreeMap<u8, u64>,
}

/// A window that has closed, with the event that closed it.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub(super) id: WindowId,
    pub(super) currency: Currency,
    pub(super) closed: UtcNanos,
    pub(super) event: u64,
    pub(super) trace: WindowTrace,
}

/// Follows the windows of books that are traced.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    traces: Vec<WindowTrace>,
    concluded: Vec<(u32, u32)>,
}

impl Windows {
    /// Takes note of what the event just applied has made final, and gives the windows that it closed.
    pub(super) fn after(&mut self, books: &mut Books, kind: RecordKind, number: u64, time: UtcNanos) -> Vec<Closed> {
        let Some(traces) = &mut books.traces else {
            return Vec::new();
        };
        std::mem::swap(&mut self.concluded, &mut traces.concluded);
        let mut concluded = std::mem::take(&mut self.concluded);
        for (at, window) in concluded.drain(..) {
            self.conclude(books, at, window, time);
        }
        self.concluded = concluded;
        if kind != RecordKind::Window {
            return Vec::new();
        }
        self.traces.resize_with(books.windows.len(), || WindowTrace {
            opened: time,
            ..WindowTrace::default()
        });
        let closed = |(at, trace): (usize, &mut WindowTrace)| {
            let Window {
                id, currency, state, ..
            } = books.windows[at];
            let closes_now = state == WindowState::Closed && trace.opened != UtcNanos::NEVER;
            closes_now.then(|| Closed {
                id,
                currency,
                closed: time,
                event: number,
                // What is taken out is marked, so that it is given once.
                trace: std::mem::replace(
                    trace,
                    WindowTrace {
                        opened: UtcNanos::NEVER,
                        ..WindowTrace::default()
                    },
                ),
            })
        };
        self.traces.iter_mut().enumerate().filter_map(closed).collect()
    }

    fn conclude(&mut self, books: &Books, at: u32, window: u32, time: UtcNanos) {
        let payment = &books.payments[at as usize];
        if window == NO_WINDOW {
            return;
        }
        let Some(trace) = self.traces.get_mut(window as usize) else {
            return;
        };
        let scene = books.traces.as_ref().map_or(0, |traces| traces.accepted[at as usize].1);
        let (state, amount) = (payment.state, payment.amount);
        trace.all.count(state, amount);
        let kind = Kind::from_u8(payment.kind).map_or("", Kind::name);
        trace.by_kind.entry(kind).or_default().count(state, amount);
        let scene = Scene::from_u8(scene).map_or("", Scene::name);
        trace.by_scene.entry(scene).or_default().count(state, amount);
        *trace.by_code.entry(payment.code as u8).or_insert(0) += 1;
        if state == PaymentState::Committed {
            trace.posted.push(Posted { at, time });
        }
    }
}

/// What a window came to for one participant.
#[derive(Clone, Debug, Default)]
pub(super) struct PartySums {
    /// Leaves, by their number: the payments it took part in.
    pub(super) leaves: Vec<u32>,
    pub(super) debits: u64,
    pub(super) credits: u64,
    pub(super) debits_minor: Position,
    pub(super) credits_minor: Position,
}

impl PartySums {
    /// Debits − credits.
    pub(super) fn net(&self) -> Position {
        self.debits_minor - self.credits_minor
    }
}

/// By (debtor, creditor): payments and their sum.
pub(super) type Flows = BTreeMap<(u16, u16), (u64, Position)>;

/// Sums a closed window up: its payments' sum, each participant's figures, who owes whom.
pub(super) fn sum_up(books: &Books, posted: &[Posted]) -> (Position, Vec<PartySums>, Flows) {
    let mut gross = 0;
    let mut parties = vec![PartySums::default(); books.participants.len()];
    let mut flows = Flows::new();
    for (leaf, posted) in (0u32..).zip(posted) {
        let payment = &books.payments[posted.at as usize];
        let amount = Position::from(payment.amount);
        gross += amount;
        for party in [payment.initiator(), payment.responder] {
            if let Some(sums) = parties.get_mut(party.index()) {
                sums.leaves.push(leaf);
            }
        }
        let Some((debtor, creditor)) = payment.debtor_and_creditor() else {
            continue;
        };
        if let Some(sums) = parties.get_mut(debtor.index()) {
            sums.debits += 1;
            sums.debits_minor += amount;
        }
        if let Some(sums) = parties.get_mut(creditor.index()) {
            sums.credits += 1;
            sums.credits_minor += amount;
        }
        let flow = flows.entry((debtor.0, creditor.0)).or_default();
        *flow = (flow.0 + 1, flow.1 + amount);
    }
    (gross, parties, flows)
}

/// The participants there are, in the order of their numbers.
pub(super) fn participants(books: &Books) -> impl Iterator<Item = ParticipantIndex> + '_ {
    (0u16..)
        .zip(&books.participants)
        .filter_map(|(index, participant)| participant.as_ref().map(|_| ParticipantIndex(index)))
}
