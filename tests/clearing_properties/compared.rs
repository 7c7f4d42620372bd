//! What the engine and the auditor say of the same journal, side by side.

use std::collections::BTreeMap;

use clearway::audit::{Recomputed, StateCounts, Statement, WindowTotals};
use clearway::clearing::{ExceptionKind, Success};
use clearway::domain::{Code, Currency, ParticipantIndex, Position};

use crate::ledgers::Ledgers;

impl Ledgers {
    /// What the engine says of itself.
    fn statement(&self) -> Statement {
        let (snapshot, figures) = (self.engine.snapshot(), self.engine.figures());
        Statement {
            events: snapshot.event_number,
            payments: StateCounts {
                accepted: figures.accepted,
                reserved: figures.reserved,
                in_doubt: figures.in_doubt,
                committed: figures.committed,
                declined: figures.declined,
                expired: figures.expired,
                rejected: figures.rejected,
            },
            positions: snapshot.participants.iter().map(|p| p.position).collect(),
            reserved: snapshot.participants.iter().map(|p| p.reserved).collect(),
            windows: snapshot
                .windows
                .into_iter()
                .map(|window| WindowTotals {
                    id: window.id,
                    currency: Currency(window.currency),
                    state: window.state,
                    committed: window.committed,
                    gross_minor: window.gross,
                    nets: window.nets.into_iter().map(|(index, net)| (index.0, net)).collect(),
                })
                .collect(),
            reversals_open: Some(snapshot.reversals_open.iter().sum()),
        }
    }

    /// Where the two differ, and what the auditor found; empty = nowhere and nothing.
    pub(crate) fn differences(&self) -> Vec<String> {
        let recomputed = self.auditor.clone().finish();
        let mut differences = recomputed.findings.clone();
        differences.extend(recomputed.differences(&self.statement()));
        let (ours, theirs) = (self.counts(), counts(&recomputed));
        if ours != theirs {
            differences.push(format!("counts: the engine has {ours:?}, the auditor {theirs:?}"));
        }
        differences
    }

    /// The engine's counts in the auditor's terms.
    pub(crate) fn counts(&self) -> Counts {
        let figures = self.engine.figures();
        let by_code = (0u8..).zip(figures.by_code).filter(|(_, count)| *count > 0).collect();
        Counts {
            by_code,
            repeated: figures.duplicates,
            reused: figures.ids_reused,
            dates_not_open: figures.dates_not_open,
            refused_replies: figures.replies_refused,
            late_words: figures.late_words,
            conflicts: figures.conflicts,
            contradicted: [ExceptionKind::CommittedThenNo, ExceptionKind::DeclinedThenYes].map(|what| self.items(what)),
            by_kind: (0u8..)
                .zip(figures.by_kind)
                .filter(|(_, figure)| figure[0] > 0)
                .collect(),
            as_initiator: self.success(|success| success.as_initiator),
            as_responder: self.success(|success| success.as_responder),
            orders: self.orders(),
            funds: self.funds(),
        }
    }

    /// Orders by what became of them: an evening has fewer than are kept.
    pub(crate) fn orders(&self) -> BTreeMap<u8, u64> {
        let mut orders = BTreeMap::new();
        for order in self.engine.order_outcomes() {
            *orders.entry(order.outcome as u8).or_insert(0) += 1;
        }
        orders
    }

    /// Cover and cap by currency and participant, where there is an account.
    fn funds(&self) -> Funds {
        let mut funds = Funds::new();
        for participant in self.engine.snapshot().participants {
            for account in participant.accounts {
                let place = (account.currency.0, usize::from(participant.index.0));
                funds.insert(place, (account.cover, account.cap));
            }
        }
        without_nothing(funds)
    }

    /// Exception items of this sort.
    pub(crate) fn items(&self, what: ExceptionKind) -> u64 {
        self.engine.exceptions().iter().filter(|item| item.what == what).count() as u64
    }

    fn success(&self, side: impl Fn(Success) -> [u64; 2]) -> BTreeMap<u16, [u64; 2]> {
        (0..self.engine.participant_count() as u16)
            .map(|index| (index, side(self.engine.success(ParticipantIndex(index)))))
            .filter(|(_, figure)| figure[0] > 0)
            .collect()
    }
}

type Funds = BTreeMap<(u16, usize), (Position, Position)>;

fn without_nothing(mut funds: Funds) -> Funds {
    funds.retain(|_, sums| *sums != (0, 0));
    funds
}

/// What is counted besides payments by state.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) by_code: BTreeMap<u8, u64>,
    pub(crate) repeated: u64,
    pub(crate) reused: u64,
    pub(crate) dates_not_open: u64,
    pub(crate) refused_replies: u64,
    pub(crate) late_words: u64,
    pub(crate) conflicts: u64,
    /// Exception items: committed then no, declined then yes.
    pub(crate) contradicted: [u64; 2],
    pub(crate) by_kind: BTreeMap<u8, [u64; 2]>,
    pub(crate) as_initiator: BTreeMap<u16, [u64; 2]>,
    pub(crate) as_responder: BTreeMap<u16, [u64; 2]>,
    pub(crate) orders: BTreeMap<u8, u64>,
    pub(crate) funds: Funds,
}

fn counts(recomputed: &Recomputed) -> Counts {
    let mut funds = Funds::new();
    let further = recomputed.further_currencies.iter();
    let further = further.map(|totals| (totals.currency.0, &totals.covers, &totals.caps));
    for (currency, covers, caps) in further.chain([(Currency::CNY.0, &recomputed.covers, &recomputed.caps)]) {
        let sums = covers.iter().copied().zip(caps.iter().copied());
        funds.extend(
            sums.enumerate()
                .map(|(participant, sums)| ((currency, participant), sums)),
        );
    }
    let unremembered = |code: Code| recomputed.unremembered.get(&(code as u8)).copied().unwrap_or(0);
    Counts {
        by_code: recomputed.by_code.clone(),
        repeated: recomputed.duplicates + unremembered(Code::InProgress),
        reused: unremembered(Code::IdReused),
        dates_not_open: unremembered(Code::DateNotOpen),
        refused_replies: recomputed.refused_replies,
        late_words: recomputed.late_replies,
        conflicts: recomputed.conflicts,
        contradicted: recomputed.contradicted,
        by_kind: recomputed.by_kind.clone(),
        as_initiator: recomputed.as_initiator.clone(),
        as_responder: recomputed.as_responder.clone(),
        orders: recomputed.orders.clone(),
        funds: without_nothing(funds),
    }
}
