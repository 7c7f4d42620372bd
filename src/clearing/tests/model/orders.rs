//! The model's orders and the alarm of cover: the sections "Orders" and "Cover" of `docs/payments.md`.

use super::reference::{Account, Member, Model};
use super::said::Said;
use crate::clearing::Success;
use crate::domain::{
    Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, Position, Role, SECOND, UtcNanos,
};
use crate::wire::{OrderAction, OrderEvent, OrderOutcome, OrderStep};

const SEVEN_DAYS: u64 = 7 * 86_400 * SECOND;

/// A proposal that waits, by the event that made it.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) event: u64,
    pub(super) made: UtcNanos,
    pub(super) order: OrderEvent,
}

impl Model {
    pub(super) fn order(&mut self, order: &OrderEvent) {
        // A proposal lapses seven days after it was made.
        let lapsed = self.time;
        let before = self.proposals.len();
        self.proposals
            .retain(|proposal| lapsed < proposal.made.plus(SEVEN_DAYS));
        if self.proposals.len() < before {
            self.rows.insert("a proposal lapses");
        }
        let (meant, outcome) = match OrderStep::from_u8(order.step) {
            Some(_) if !is_a_name(&order.operator) => (*order, OrderOutcome::Malformed),
            Some(OrderStep::Direct) => (*order, self.direct(order)),
            Some(OrderStep::Propose) => (*order, self.propose(order)),
            Some(OrderStep::Approve | OrderStep::Refuse) => self.second_word(order),
            None => (*order, OrderOutcome::Malformed),
        };
        self.rows.insert(match outcome {
            OrderOutcome::Done => match OrderAction::from_u8(meant.action) {
                Some(OrderAction::Add) => "order done: add",
                Some(OrderAction::Amend) => "order done: amend",
                Some(OrderAction::Suspend) => "order done: suspend",
                Some(OrderAction::CoverIn) => "order done: cover in",
                Some(OrderAction::CoverOut) => "order done: cover out",
                Some(OrderAction::SetCap) => "order done: set cap",
                None => unreachable!("it was well formed"),
            },
            OrderOutcome::Proposed => "order proposed",
            OrderOutcome::Refused => "order refused",
            OrderOutcome::Malformed => "order malformed",
            OrderOutcome::TakesTwo => "order takes two",
            OrderOutcome::NoSuchProposal => "order: no such proposal",
            OrderOutcome::SamePerson => "order: same person",
            OrderOutcome::NoSuchParticipant => "order: no such participant",
            OrderOutcome::NoSuchAccount => "order: no such account",
            OrderOutcome::CoverInUse => "order: cover in use",
            OrderOutcome::CapOverCover => "order: cap over cover",
            OrderOutcome::TooMany => "order: too many",
        });
        self.outcomes.push((self.number, self.time, outcome, *order));
        self.out.push(Said::Ordered {
            reference: order.reference,
            event: self.number,
            outcome,
            action: meant.action,
            about: meant.participant.0,
        });
    }

    /// What moves cover takes two.
    fn direct(&mut self, order: &OrderEvent) -> OrderOutcome {
        if !is_right(order) {
            return OrderOutcome::Malformed;
        }
        if [4, 5, 6].contains(&order.action) {
            return OrderOutcome::TakesTwo;
        }
        match self.objection(order) {
            Some(objection) => objection,
            None => {
                self.obey(order);
                OrderOutcome::Done
            }
        }
    }

    fn propose(&mut self, order: &OrderEvent) -> OrderOutcome {
        if !is_right(order) {
            return OrderOutcome::Malformed;
        }
        if let Some(objection) = self.objection(order) {
            return objection;
        }
        if self.proposals.len() == 1_024 {
            return OrderOutcome::TooMany;
        }
        self.proposals.push(Proposal {
            event: self.number,
            made: self.time,
            order: *order,
        });
        OrderOutcome::Proposed
    }

    /// Approvals and refusals name a proposal and say nothing else.
    fn second_word(&mut self, order: &OrderEvent) -> (OrderEvent, OrderOutcome) {
        let empty: OrderEvent = bytemuck::Zeroable::zeroed();
        let says_more = (order.action, order.currency, order.participant, order.reserved)
            != (empty.action, empty.currency, empty.participant, empty.reserved)
            || order.amount_minor != 0
            || order.terms != empty.terms;
        if says_more {
            return (*order, OrderOutcome::Malformed);
        }
        let Some(nth) = self.proposals.iter().position(|known| known.event == order.proposal) else {
            return (*order, OrderOutcome::NoSuchProposal);
        };
        let proposed = self.proposals[nth].order;
        // Anybody may take a proposal back, its maker too.
        if order.step == OrderStep::Refuse as u8 {
            self.proposals.remove(nth);
            return (proposed, OrderOutcome::Refused);
        }
        if order.operator == proposed.operator {
            return (proposed, OrderOutcome::SamePerson);
        }
        // Everything is checked again, and what fails then waits on.
        if let Some(objection) = self.objection(&proposed) {
            self.rows.insert(match objection {
                OrderOutcome::CoverInUse => "approved: cover in use",
                OrderOutcome::CapOverCover => "approved: cap over cover",
                _ => "approved: no such participant or account",
            });
            return (proposed, objection);
        }
        self.proposals.remove(nth);
        self.obey(&proposed);
        (proposed, OrderOutcome::Done)
    }

    fn is_of_the_scheme(&self, currency: u16) -> bool {
        currency != 0 && self.scheme.currencies.contains(&currency)
    }

    /// Why things as they are do not allow what is ordered.
    fn objection(&self, order: &OrderEvent) -> Option<OrderOutcome> {
        let member = self.members.get(order.participant.index());
        let account = member.and_then(|member| member.accounts.get(&order.currency));
        let amount = Position::from(order.amount_minor);
        match OrderAction::from_u8(order.action).expect("it is well formed") {
            OrderAction::Add => {
                let codes = self.members.iter().map(|member| member.terms.code);
                let currencies = order.terms.accounts.map(|account| account.currency);
                let is_next = order.participant.index() == self.members.len();
                if !is_next || codes.into_iter().any(|code| code == order.terms.code) {
                    Some(OrderOutcome::NoSuchParticipant)
                } else if currencies.into_iter().any(|c| c != 0 && !self.is_of_the_scheme(c)) {
                    Some(OrderOutcome::NoSuchAccount)
                } else {
                    None
                }
            }
            _ if member.is_none() => Some(OrderOutcome::NoSuchParticipant),
            OrderAction::Amend | OrderAction::Suspend => None,
            _ if !self.is_of_the_scheme(order.currency) => Some(OrderOutcome::NoSuchAccount),
            // It opens the account where there was none.
            OrderAction::CoverIn => None,
            OrderAction::CoverOut | OrderAction::SetCap if account.is_none() => Some(OrderOutcome::NoSuchAccount),
            OrderAction::CoverOut => {
                let account = account.expect("it was looked at");
                let least = account.cap.max(account.position + account.reserved);
                (account.cover - amount < least).then_some(OrderOutcome::CoverInUse)
            }
            OrderAction::SetCap => {
                let account = account.expect("it was looked at");
                (amount > account.cover).then_some(OrderOutcome::CapOverCover)
            }
        }
    }

    fn obey(&mut self, order: &OrderEvent) {
        let amount = Position::from(order.amount_minor);
        match OrderAction::from_u8(order.action).expect("it is well formed") {
            OrderAction::Add => {
                let named = order.terms.accounts.iter().filter(|account| account.currency != 0);
                self.members.push(Member {
                    terms: order.terms,
                    accounts: named.map(|account| (account.currency, Account::default())).collect(),
                    levels: std::collections::BTreeMap::new(),
                    next_word: 1,
                    success: Success::default(),
                });
                self.tell_contract(order.participant);
            }
            OrderAction::Amend => {
                let terms = &mut self.members[order.participant.index()].terms;
                terms.permitted_kinds = order.terms.permitted_kinds;
                terms.wait_ns = order.terms.wait_ns;
                terms.doubt_ns = order.terms.doubt_ns;
                terms.expiry_pull_ns = order.terms.expiry_pull_ns;
                terms.expiry_push_ns = order.terms.expiry_push_ns;
                terms.payment_limit_minor = order.terms.payment_limit_minor;
                terms.contract = order.terms.contract;
                self.tell_contract(order.participant);
            }
            OrderAction::Suspend => {
                self.members[order.participant.index()].terms.suspended = order.terms.suspended;
            }
            OrderAction::CoverIn => {
                let accounts = &mut self.members[order.participant.index()].accounts;
                if !accounts.contains_key(&order.currency) {
                    self.rows.insert("an account is opened");
                }
                accounts.entry(order.currency).or_default().cover += amount;
            }
            OrderAction::CoverOut => self.account(order.participant, order.currency()).cover -= amount,
            OrderAction::SetCap => {
                let account = self.account(order.participant, order.currency());
                account.cap = amount;
                if account.cap < account.position + account.reserved {
                    self.rows.insert("a cap below use");
                }
                self.watch(order.participant, order.currency());
            }
        }
    }

    fn tell_contract(&mut self, participant: ParticipantIndex) {
        let contract = self.members[participant.index()].terms.contract;
        self.out.push(Said::Contract {
            to: participant.0,
            contract,
        });
    }

    /// The alarm: it is at the highest of 50, 75 and 90 % of the cap that use has come to, and stays there until use is
    /// below that less five. Of a cap of nothing, or less, any use is 90 %.
    pub(super) fn watch(&mut self, participant: ParticipantIndex, currency: Currency) {
        let member = &mut self.members[participant.index()];
        let Some(account) = member.accounts.get(&currency.0) else {
            return;
        };
        let used = account.position + account.reserved;
        let percent = |percent: Position| {
            if account.cap > 0 {
                used * 100 >= account.cap * percent
            } else {
                used > 0
            }
        };
        let before = member.levels.get(&currency.0).copied().unwrap_or(0);
        let mut level = 0;
        for at in [50, 75, 90] {
            if percent(at) || (before >= at && percent(at - 5)) {
                level = at;
            }
        }
        if level == before {
            return;
        }
        member.levels.insert(currency.0, level);
        self.rows.insert(match (level > before, level) {
            (true, 50) => "alarm rises to 50",
            (true, 75) => "alarm rises to 75",
            (true, _) if account.cap <= 0 => "alarm rises: a cap of nothing",
            (true, _) => "alarm rises to 90",
            (false, 75) => "alarm falls to 75",
            (false, 50) => "alarm falls to 50",
            (false, _) => "alarm falls to nothing",
        });
        self.out.push(Said::CoverAlarm {
            of: participant.0,
            currency: currency.0,
            level_bp: level as u16 * 100,
            before_bp: before as u16 * 100,
            used_minor: used as i64,
            cap_minor: account.cap as i64,
        });
    }
}

/// One to 32 letters, digits, `.`, `-`, `_`, and zeros behind them.
fn is_a_name(operator: &[u8; 32]) -> bool {
    let text = String::from_utf8_lossy(operator);
    let name = text.trim_end_matches('\0');
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c))
}

/// Numbers that can be, and nothing said that does not belong to the action.
fn is_right(order: &OrderEvent) -> bool {
    let nothing: ParticipantTerms = bytemuck::Zeroable::zeroed();
    let terms = &order.terms;
    let rising = terms.wait_ns < terms.doubt_ns
        && terms.doubt_ns < terms.expiry_pull_ns
        && terms.doubt_ns < terms.expiry_push_ns;
    let known_kinds = (0..32).all(|bit| terms.permitted_kinds & 1 << bit == 0 || Kind::from_u8(bit).is_some());
    let agreed = rising && known_kinds && terms.reserved == [0, 0] && terms.contract.reserved == [0; 10];
    let about_money = order.currency != 0 || order.amount_minor != 0;
    let fits = match OrderAction::from_u8(order.action) {
        None => false,
        Some(OrderAction::Add) => {
            let used: Vec<&CurrencyTerms> = terms.accounts.iter().filter(|a| **a != nothing.accounts[0]).collect();
            let empty = used.iter().all(|account| {
                account.currency != 0 && (account.cover_minor, account.cap_minor, account.reserved) == (0, 0, [0; 14])
            });
            let mut currencies: Vec<u16> = used.iter().map(|account| account.currency).collect();
            currencies.sort_unstable();
            currencies.dedup();
            let code = terms
                .code
                .0
                .iter()
                .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            let role = Role::from_u8(terms.role).is_some();
            let same = terms.index == order.participant;
            agreed
                && !about_money
                && empty
                && currencies.len() == used.len()
                && code
                && role
                && same
                && terms.suspended < 4
        }
        Some(OrderAction::Amend) => agreed && !about_money,
        Some(OrderAction::Suspend) => terms.suspended < 4 && !about_money,
        Some(OrderAction::CoverIn | OrderAction::CoverOut) => order.amount_minor > 0 && *terms == nothing,
        Some(OrderAction::SetCap) => *terms == nothing,
    };
    fits && order.proposal == 0 && order.reserved == 0
}
