//! What an audit comes to, and how it is held against what the switch says.

use std::collections::BTreeMap;

use crate::domain::{Currency, Position, WindowId, WindowState};

/// How many payments are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateCounts {
    /// All that were ever accepted; the sum of the others but `rejected`.
    pub accepted: u64,
    /// Waiting for the bank's word.
    pub reserved: u64,
    /// Waiting for it past T1 or past a restart.
    pub in_doubt: u64,
    /// Posted.
    pub committed: u64,
    /// Refused by the bank.
    pub declined: u64,
    /// Not sent, or unanswered past T2.
    pub expired: u64,
    /// Refused by the switch's rules and remembered.
    pub rejected: u64,
}

/// A window as the journal makes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowTotals {
    /// The window.
    pub id: WindowId,
    /// Its currency.
    pub currency: Currency,
    /// Its state.
    pub state: WindowState,
    /// How many payments committed in it.
    pub committed: u64,
    /// The sum of their amounts, minor units.
    pub gross_minor: Position,
    /// Debits − credits by participant, minor units; participants whose net is zero are left out.
    pub nets: BTreeMap<u16, Position>,
}

/// Sums by participant index in one currency, minor units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CurrencyTotals {
    /// The currency.
    pub currency: Currency,
    /// Debits − credits over all windows not yet settled.
    pub positions: Vec<Position>,
    /// Amounts of open payments, on the party that will owe.
    pub reserved: Vec<Position>,
    /// Opening + top-ups − withdrawals − settled nets.
    pub covers: Vec<Position>,
    /// The part of the cover that may be used.
    pub caps: Vec<Position>,
}

/// The ledger, recomputed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recomputed {
    /// Events read.
    pub events: u64,
    /// Payments by state.
    pub payments: StateCounts,
    /// Final payments (rejected ones too) by their code's number.
    pub by_code: BTreeMap<u8, u64>,
    /// Answers that were not remembered (09, 15, 16), by their code's number.
    pub unremembered: BTreeMap<u8, u64>,
    /// Repeated requests that got the stored answer again.
    pub duplicates: u64,
    /// Replies that came after the payment was final, or that said nothing a payment in its state can take.
    pub late_replies: u64,
    /// Replies of a participant that is not the payment's responder, with another amount or currency, or that mean nothing.
    pub refused_replies: u64,
    /// Late words that contradict the final state: committed and no, declined and yes.
    pub conflicts: u64,
    /// Operators' orders by their outcome's number.
    pub orders: BTreeMap<u8, u64>,
    /// Payments with such a word: committed and then no, declined and then yes.
    pub contradicted: [u64; 2],
    /// Reversals raised and not acknowledged since.
    pub reversals_open: u64,
    /// Final payments by their kind's number (0 = none): all, and committed among them.
    pub by_kind: BTreeMap<u8, [u64; 2]>,
    /// Final payments by their initiator's index: all, and committed among them; who has none is left out.
    pub as_initiator: BTreeMap<u16, [u64; 2]>,
    /// The same by responder, without those that asked themselves.
    pub as_responder: BTreeMap<u16, [u64; 2]>,
    /// Positions by participant index in the scheme's first currency, minor units.
    pub positions: Vec<Position>,
    /// Reserved sums by participant index in the scheme's first currency, minor units.
    pub reserved: Vec<Position>,
    /// Covers by participant index in the scheme's first currency, minor units.
    pub covers: Vec<Position>,
    /// Caps by participant index in the scheme's first currency, minor units.
    pub caps: Vec<Position>,
    /// The same for the scheme's further currencies.
    pub further_currencies: Vec<CurrencyTotals>,
    /// Every window, in the order of opening.
    pub windows: Vec<WindowTotals>,
    /// What is wrong, in words; empty = nothing.
    pub findings: Vec<String>,
}

/// What a switch says of itself, to be held against the journal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Statement {
    /// Events applied.
    pub events: u64,
    /// Payments by state.
    pub payments: StateCounts,
    /// Positions by participant index in the scheme's first currency, minor units.
    pub positions: Vec<Position>,
    /// Reserved sums by participant index in the scheme's first currency, minor units.
    pub reserved: Vec<Position>,
    /// Every window; nets of zero may be left out or not.
    pub windows: Vec<WindowTotals>,
    /// Reversals not acknowledged, if it says how many.
    pub reversals_open: Option<u64>,
}

impl Recomputed {
    /// True when no finding was made.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// True when the nets of every window add up to zero.
    #[must_use]
    pub fn is_zero_sum(&self) -> bool {
        self.windows
            .iter()
            .all(|window| window.nets.values().sum::<Position>() == 0)
    }

    /// Where the switch's own statement differs from the journal; empty = nowhere.
    #[must_use]
    pub fn differences(&self, statement: &Statement) -> Vec<String> {
        let mut differences = Vec::new();
        if self.events != statement.events {
            differences.push(format!(
                "events: the journal holds {}, the switch says {}",
                self.events, statement.events
            ));
        }
        if self.payments != statement.payments {
            differences.push(format!(
                "payments by state: the journal gives {:?}, the switch says {:?}",
                self.payments, statement.payments
            ));
        }
        compare_sums("position", &self.positions, &statement.positions, &mut differences);
        compare_sums("reserved sum", &self.reserved, &statement.reserved, &mut differences);
        self.compare_windows(&statement.windows, &mut differences);
        if let Some(stated) = statement.reversals_open
            && stated != self.reversals_open
        {
            differences.push(format!(
                "reversals not acknowledged: the journal gives {}, the switch says {stated}",
                self.reversals_open
            ));
        }
        differences
    }

    fn compare_windows(&self, stated: &[WindowTotals], differences: &mut Vec<String>) {
        if self.windows.len() != stated.len() {
            differences.push(format!(
                "windows: the journal gives {}, the switch says {}",
                self.windows.len(),
                stated.len()
            ));
        }
        for ours in &self.windows {
            let Some(theirs) = stated.iter().find(|window| window.id == ours.id) else {
                differences.push(format!("window {}: the switch does not know it", ours.id));
                continue;
            };
            let mut stated_nets = theirs.nets.clone();
            stated_nets.retain(|_, net| *net != 0);
            if (ours.currency, ours.state, ours.committed, ours.gross_minor)
                != (theirs.currency, theirs.state, theirs.committed, theirs.gross_minor)
            {
                differences.push(format!(
                    "window {}: the journal gives currency {}, {}, {} payments, gross {}; the switch says currency {}, {}, {} \
                     payments, gross {}",
                    ours.id,
                    ours.currency,
                    ours.state.name(),
                    ours.committed,
                    ours.gross_minor,
                    theirs.currency,
                    theirs.state.name(),
                    theirs.committed,
                    theirs.gross_minor
                ));
            }
            // Of the windows settled long ago the switch states no nets any more.
            if theirs.state == WindowState::Settled && theirs.nets.is_empty() {
                continue;
            }
            for (participant, net) in &ours.nets {
                let theirs = stated_nets.remove(participant).unwrap_or(0);
                if theirs != *net {
                    differences.push(format!(
                        "window {}: the net of participant {participant} is {net} in the journal, {theirs} in the switch",
                        ours.id
                    ));
                }
            }
            for (participant, net) in stated_nets {
                differences.push(format!(
                    "window {}: the net of participant {participant} is 0 in the journal, {net} in the switch",
                    ours.id
                ));
            }
        }
    }
}

fn compare_sums(what: &str, ours: &[Position], theirs: &[Position], differences: &mut Vec<String>) {
    for participant in 0..ours.len().max(theirs.len()) {
        let of = |sums: &[Position]| sums.get(participant).copied().unwrap_or(0);
        if of(ours) != of(theirs) {
            differences.push(format!(
                "{what} of participant {participant}: {} in the journal, {} in the switch",
                of(ours),
                of(theirs)
            ));
        }
    }
}
