//! Operators' orders as the rules' sentences have them: who may say what, what things as they are allow, what changes.

use std::collections::BTreeMap;

use bytemuck::{Zeroable, bytes_of};

use super::auditor::Auditor;
use super::books::{Account, Books, Participant};
use crate::domain::{Currency, Kind, ParticipantTerms, Position, Role, SECOND, UtcNanos, WindowState};
use crate::wire::{OrderAction, OrderEvent, OrderOutcome, OrderStep};

/// A proposal waits so long.
const WAITS_NS: u64 = 7 * 24 * 3_600 * SECOND;
/// At most so many wait.
const WAITING_MAX: usize = 1_024;

/// Proposals, by the number of the event that made them.
pub(super) type Proposals = BTreeMap<u64, (UtcNanos, OrderEvent)>;

impl Auditor {
    pub(super) fn order(&mut self, number: u64, time: UtcNanos, order: &OrderEvent) {
        self.proposals.retain(|_, (made, _)| time.since(*made) < WAITS_NS);
        let outcome = if is_named(&order.operator) {
            self.decide(number, time, order)
        } else {
            OrderOutcome::Malformed
        };
        *self.orders.entry(outcome as u8).or_insert(0) += 1;
    }

    fn decide(&mut self, number: u64, time: UtcNanos, order: &OrderEvent) -> OrderOutcome {
        let step = OrderStep::from_u8(order.step);
        match step {
            None => OrderOutcome::Malformed,
            Some(OrderStep::Direct | OrderStep::Propose) => {
                let Some(action) = action_of(order) else {
                    return OrderOutcome::Malformed;
                };
                // What moves cover takes a maker and a checker.
                let moves_cover = [OrderAction::CoverIn, OrderAction::CoverOut, OrderAction::SetCap].contains(&action);
                if moves_cover && step == Some(OrderStep::Direct) {
                    return OrderOutcome::TakesTwo;
                }
                if let Some(refused) = refusal(&self.books, action, order) {
                    return refused;
                }
                if step == Some(OrderStep::Direct) {
                    self.carry_out(action, order);
                    return OrderOutcome::Done;
                }
                if self.proposals.len() >= WAITING_MAX {
                    return OrderOutcome::TooMany;
                }
                self.proposals.insert(number, (time, *order));
                OrderOutcome::Proposed
            }
            Some(OrderStep::Approve) => self.second(order, |auditor, proposed| {
                if proposed.operator == order.operator {
                    return OrderOutcome::SamePerson;
                }
                let Some(action) = action_of(proposed) else {
                    return OrderOutcome::Malformed;
                };
                // All is looked at again: what was proposed may not fit what has become of the books.
                match refusal(&auditor.books, action, proposed) {
                    Some(refused) => refused,
                    None => {
                        auditor.carry_out(action, proposed);
                        OrderOutcome::Done
                    }
                }
            }),
            Some(OrderStep::Refuse) => self.second(order, |_, _| OrderOutcome::Refused),
        }
    }

    /// An order that is about a proposal says which, who says so, and no more; the proposal goes if it was carried out or
    /// taken back.
    fn second(
        &mut self,
        order: &OrderEvent,
        word: impl FnOnce(&mut Self, &OrderEvent) -> OrderOutcome,
    ) -> OrderOutcome {
        // Behind the proposal's number and before the operator: amount, action, currency, participant; then the terms.
        let bytes = bytes_of(order);
        let (step_at, numbers) = (25, 16..32);
        let is_zero = |at: usize| at == step_at || bytes[at] == 0;
        if !numbers.chain(64..bytes.len()).all(is_zero) {
            return OrderOutcome::Malformed;
        }
        let Some((_, proposed)) = self.proposals.get(&order.proposal).copied() else {
            return OrderOutcome::NoSuchProposal;
        };
        let outcome = word(self, &proposed);
        if outcome == OrderOutcome::Done || outcome == OrderOutcome::Refused {
            self.proposals.remove(&order.proposal);
        }
        outcome
    }

    fn carry_out(&mut self, action: OrderAction, order: &OrderEvent) {
        let (index, currency) = (order.participant, order.currency());
        let amount = Position::from(order.amount_minor);
        let settled = settled(&self.books, index.index(), currency);
        match action {
            OrderAction::Add => {
                self.joined += 1;
                self.books.join(Participant::new(order.terms));
            }
            OrderAction::Amend => {
                let Some(participant) = self.books.participant(index) else {
                    return;
                };
                let (was, now) = (participant.terms, order.terms);
                participant.terms = now;
                // Not an amendment's to change.
                participant.terms.index = was.index;
                participant.terms.code = was.code;
                participant.terms.role = was.role;
                participant.terms.suspended = was.suspended;
                participant.terms.accounts = was.accounts;
            }
            OrderAction::Suspend => {
                if let Some(participant) = self.books.participant(index) {
                    participant.terms.suspended = order.terms.suspended;
                }
            }
            OrderAction::CoverIn => {
                let Some(participant) = self.books.participant(index) else {
                    return;
                };
                if participant.account_ref(currency).is_none() {
                    participant.accounts.push(Account::empty(currency));
                }
                if let Some(account) = participant.account(currency) {
                    account.cover += amount;
                    account.top_ups += amount;
                }
            }
            OrderAction::CoverOut => {
                if let Some(account) = self.books.participant(index).and_then(|p| p.account(currency)) {
                    account.cover -= amount;
                    account.withdrawals += amount;
                }
            }
            OrderAction::SetCap => {
                if let Some(account) = self.books.participant(index).and_then(|p| p.account(currency)) {
                    account.cap = amount;
                    account.cap_at_opening = amount + settled;
                }
            }
        }
    }
}

/// Σ of a participant's nets in a currency's settled windows.
pub(super) fn settled(books: &Books, participant: usize, currency: Currency) -> Position {
    let settled = books
        .windows
        .iter()
        .filter(|window| window.currency == currency && window.state == WindowState::Settled);
    settled
        .map(|window| window.nets.get(participant).copied().unwrap_or(0))
        .sum()
}

/// Why the books as they are do not allow it.
fn refusal(books: &Books, action: OrderAction, order: &OrderEvent) -> Option<OrderOutcome> {
    let is_the_schemes = |currency: u16| {
        let currencies = books.scheme.map_or([0; 4], |scheme| scheme.currencies);
        currency != 0 && currencies.contains(&currency)
    };
    let Some(participant) = books.participant_ref(order.participant) else {
        let mut known = books.participants.iter().flatten();
        let is_new = known.all(|other| other.terms.code != order.terms.code);
        if action != OrderAction::Add || order.participant.index() != books.participants.len() || !is_new {
            return Some(OrderOutcome::NoSuchParticipant);
        }
        let mut accounts = order.terms.accounts.iter();
        let fits = accounts.all(|account| account.currency == 0 || is_the_schemes(account.currency));
        return (!fits).then_some(OrderOutcome::NoSuchAccount);
    };
    let amount = Position::from(order.amount_minor);
    match (action, participant.account_ref(order.currency())) {
        (OrderAction::Add, _) => Some(OrderOutcome::NoSuchParticipant),
        (OrderAction::Amend | OrderAction::Suspend, _) => None,
        _ if !is_the_schemes(order.currency) => Some(OrderOutcome::NoSuchAccount),
        (OrderAction::CoverIn, _) => None,
        (OrderAction::CoverOut | OrderAction::SetCap, None) => Some(OrderOutcome::NoSuchAccount),
        (OrderAction::CoverOut, Some(account)) => {
            let used = account.position + account.reserved;
            let stays = account.cover - amount;
            (stays < account.cap || stays < used).then_some(OrderOutcome::CoverInUse)
        }
        (OrderAction::SetCap, Some(account)) => (amount > account.cover).then_some(OrderOutcome::CapOverCover),
    }
}

/// What an order or a proposal is; `None` if one of its numbers can't be, or if it says what does not belong to it.
fn action_of(order: &OrderEvent) -> Option<OrderAction> {
    let action = OrderAction::from_u8(order.action)?;
    if order.proposal != 0 || order.reserved != 0 {
        return None;
    }
    let terms = &order.terms;
    let all_kinds: u32 = Kind::ALL.into_iter().map(Kind::bit).sum();
    let timers = [
        terms.wait_ns,
        terms.doubt_ns,
        terms.expiry_pull_ns.min(terms.expiry_push_ns),
    ];
    let agreed = timers.is_sorted_by(|sooner, later| sooner < later)
        && terms.permitted_kinds | all_kinds == all_kinds
        && bytes_of(&terms.reserved)
            .iter()
            .chain(&terms.contract.reserved)
            .all(|&byte| byte == 0);
    let suspension = terms.suspended <= ParticipantTerms::SUSPENDED_INITIATOR + ParticipantTerms::SUSPENDED_RESPONDER;
    let is_right = match action {
        OrderAction::CoverIn | OrderAction::CoverOut | OrderAction::SetCap => {
            let needs_sum = action != OrderAction::SetCap;
            *terms == ParticipantTerms::zeroed() && (order.amount_minor > 0 || !needs_sum)
        }
        _ if order.amount_minor != 0 || order.currency != 0 => false,
        OrderAction::Amend => agreed,
        OrderAction::Suspend => suspension,
        OrderAction::Add => {
            let mut seen = Vec::new();
            let accounts = terms.accounts.iter().all(|account| {
                let first = account.currency == 0 || !seen.contains(&account.currency);
                seen.push(account.currency);
                first && bytes_of(account)[2..].iter().all(|&byte| byte == 0)
            });
            let code = terms
                .code
                .0
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'Z'));
            agreed
                && suspension
                && accounts
                && code
                && terms.index == order.participant
                && Role::from_u8(terms.role).is_some()
        }
    };
    is_right.then_some(action)
}

/// A name is one to 32 letters, digits, `.`, `-` or `_`; behind it there are zeros.
fn is_named(operator: &[u8; 32]) -> bool {
    let name: Vec<u8> = operator.iter().copied().take_while(|&byte| byte != 0).collect();
    let fits = |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    !name.is_empty() && name.iter().all(fits) && operator[name.len()..].iter().all(|&byte| byte == 0)
}
