//! Operators' orders: what changes a participant, its cover and its cap while payments flow.
//!
//! What moves cover takes two people. The maker's proposal does nothing; the checker's approval finds everything checked
//! once more, because the ledger has moved on since. All of it is in the state: a restart forgets no proposal.

use std::collections::{BTreeMap, VecDeque};

use bytemuck::{Pod, Zeroable};

use super::engine::{Engine, Event, Outlet};
use super::participant::{Account, Participant};
use crate::domain::{
    Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, Position, Role, SECOND, SchemeCode, UtcNanos,
    WindowId,
};
use crate::wire::{CoverMovement, CoverReason, Effect, OperatorName, OrderAction, OrderEvent, OrderOutcome, OrderStep};

/// So many proposals may wait.
pub(super) const PROPOSALS_MAX: usize = 1_024;
/// So many outcomes are kept, the newest ones.
pub(super) const OUTCOMES_MAX: usize = 256;
/// A proposal of this age lapses.
pub(super) const LAPSES_AFTER_NS: u64 = 7 * 86_400 * SECOND;

/// A proposal that waits for a second person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProposalSnapshot {
    /// The event that made it: approvals name it by this number.
    pub event: u64,
    /// When it was made.
    pub time: UtcNanos,
    /// What is proposed, and by whom.
    pub order: OrderEvent,
}

/// What became of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderOutcomeSnapshot {
    /// The event that carried the order.
    pub event: u64,
    /// Its time.
    pub time: UtcNanos,
    /// What became of it.
    pub outcome: OrderOutcome,
    /// The order as it was given: of an approval, not the proposal.
    pub order: OrderEvent,
}

/// Proposals that wait, and what became of the last orders.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// By the event that made them.
    proposals: BTreeMap<u64, ProposalSnapshot>,
    /// In the order of the events.
    outcomes: VecDeque<OrderOutcomeSnapshot>,
}

impl Orders {
    /// What a snapshot has.
    pub(super) fn restored(proposals: Vec<ProposalSnapshot>, outcomes: Vec<OrderOutcomeSnapshot>) -> Self {
        Self {
            proposals: proposals
                .into_iter()
                .map(|proposal| (proposal.event, proposal))
                .collect(),
            outcomes: outcomes.into(),
        }
    }

    /// In the order of their events.
    pub(super) fn proposals(&self) -> impl ExactSizeIterator<Item = &ProposalSnapshot> {
        self.proposals.values()
    }

    /// In the order of their events.
    pub(super) fn outcomes(&self) -> impl DoubleEndedIterator<Item = &OrderOutcomeSnapshot> + ExactSizeIterator {
        self.outcomes.iter()
    }

    fn lapse(&mut self, now: UtcNanos) {
        self.proposals.retain(|_, proposal| !proposal.has_lapsed(now));
    }

    fn note(&mut self, outcome: OrderOutcomeSnapshot) {
        if self.outcomes.len() == OUTCOMES_MAX {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
    }
}

/// A proposal, or an order and what became of it, as snapshots and the state hash have it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct OrderRow {
    event: u64,
    time: u64,
    /// 0: a proposal.
    outcome: u64,
    order: OrderEvent,
}

impl OrderOutcomeSnapshot {
    pub(super) fn row(&self) -> OrderRow {
        OrderRow {
            event: self.event,
            time: self.time.0,
            outcome: self.outcome as u64,
            order: self.order,
        }
    }

    pub(super) fn of_row(row: &OrderRow) -> Option<Self> {
        Some(Self {
            event: row.event,
            time: UtcNanos(row.time),
            outcome: OrderOutcome::from_u8(u8::try_from(row.outcome).ok()?)?,
            order: row.order,
        })
    }
}

impl ProposalSnapshot {
    pub(super) fn row(&self) -> OrderRow {
        OrderRow {
            event: self.event,
            time: self.time.0,
            outcome: 0,
            order: self.order,
        }
    }

    pub(super) fn of_row(row: &OrderRow) -> Option<Self> {
        let proposal = Self {
            event: row.event,
            time: UtcNanos(row.time),
            order: row.order,
        };
        (row.outcome == 0 && well_formed(&row.order).is_some()).then_some(proposal)
    }

    fn has_lapsed(&self, now: UtcNanos) -> bool {
        now.since(self.time) >= LAPSES_AFTER_NS
    }
}

impl Engine {
    /// The proposals that wait for a second person, in the order of their events.
    #[must_use]
    pub fn proposals(&self) -> Vec<ProposalSnapshot> {
        let waiting = self.orders.proposals();
        waiting
            .filter(|proposal| !proposal.has_lapsed(self.time))
            .copied()
            .collect()
    }

    /// What became of the last order with this reference, if it is among the last 256 orders.
    #[must_use]
    pub fn order_outcome(&self, reference: u64) -> Option<OrderOutcomeSnapshot> {
        let newest = self.orders.outcomes().rev();
        newest.copied().find(|outcome| outcome.order.reference == reference)
    }

    /// What became of the last orders, in the order of their events, at most 256.
    #[must_use]
    pub fn order_outcomes(&self) -> Vec<OrderOutcomeSnapshot> {
        self.orders.outcomes().copied().collect()
    }

    /// The terms in force, in the order of the participants' numbers. Their accounts are those of the opening, and of each
    /// that was opened since, with zeros: what is in them now is in [`Engine::snapshot`].
    #[must_use]
    pub fn terms(&self) -> Vec<ParticipantTerms> {
        self.participants.iter().map(|participant| participant.terms).collect()
    }

    /// How many participants there are.
    #[must_use]
    pub fn participant_count(&self) -> usize {
        self.participants.len()
    }

    /// The terms in force of one participant.
    #[must_use]
    pub fn terms_of(&self, participant: ParticipantIndex) -> Option<&ParticipantTerms> {
        self.participants.get(participant.index()).map(|known| &known.terms)
    }

    /// An order is carried out, or it changes nothing and its outcome says why.
    pub(super) fn order<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let order: OrderEvent = bytemuck::pod_read_unaligned(event.payload);
        self.orders.lapse(event.time);
        let (meant, outcome) = self.decide(&order, event, out);
        self.orders.note(OrderOutcomeSnapshot {
            event: event.number,
            time: event.time,
            outcome,
            order,
        });
        self.digest.add(order.reference ^ (outcome as u64) << 56, event.number);
        out.emit(Effect::Ordered {
            reference: order.reference,
            event: event.number,
            outcome,
            action: meant.action,
            participant: meant.participant,
        });
    }

    /// The order that was meant, which of an approval is the proposal, and what became of it.
    fn decide<O: Outlet>(&mut self, order: &OrderEvent, event: &Event<'_>, out: &mut O) -> (OrderEvent, OrderOutcome) {
        let Some(step) = OrderStep::from_u8(order.step).filter(|_| is_name(&order.operator)) else {
            return (*order, OrderOutcome::Malformed);
        };
        match step {
            OrderStep::Direct | OrderStep::Propose => (*order, self.new_order(step, order, event, out)),
            OrderStep::Approve | OrderStep::Refuse => {
                let says_only_which = OrderEvent {
                    reference: order.reference,
                    proposal: order.proposal,
                    step: order.step,
                    operator: order.operator,
                    ..OrderEvent::zeroed()
                };
                if *order != says_only_which {
                    return (*order, OrderOutcome::Malformed);
                }
                let Some(proposal) = self.orders.proposals.get(&order.proposal).copied() else {
                    return (*order, OrderOutcome::NoSuchProposal);
                };
                let outcome = match step {
                    OrderStep::Refuse => OrderOutcome::Refused,
                    _ => self.approve(order, &proposal.order, event, out),
                };
                if matches!(outcome, OrderOutcome::Refused | OrderOutcome::Done) {
                    self.orders.proposals.remove(&order.proposal);
                }
                (proposal.order, outcome)
            }
        }
    }

    fn new_order<O: Outlet>(
        &mut self,
        step: OrderStep,
        order: &OrderEvent,
        event: &Event<'_>,
        out: &mut O,
    ) -> OrderOutcome {
        let action = match well_formed(order) {
            Some(action) => action,
            None => return OrderOutcome::Malformed,
        };
        let alone = step == OrderStep::Direct && action.takes_two();
        #[cfg(test)]
        let alone = alone && !self.gets_wrong(super::fault::Fault::MoveCoverAlone);
        if alone {
            return OrderOutcome::TakesTwo;
        }
        if let Err(outcome) = self.may_be_in_force(action, order) {
            return outcome;
        }
        if step == OrderStep::Direct {
            self.put_in_force(action, order, event, out);
            return OrderOutcome::Done;
        }
        if self.orders.proposals.len() >= PROPOSALS_MAX {
            return OrderOutcome::TooMany;
        }
        let proposal = ProposalSnapshot {
            event: event.number,
            time: event.time,
            order: *order,
        };
        self.orders.proposals.insert(event.number, proposal);
        OrderOutcome::Proposed
    }

    /// A proposal that can't be in force as things are waits on, for another time or to be taken back.
    fn approve<O: Outlet>(
        &mut self,
        approval: &OrderEvent,
        proposed: &OrderEvent,
        event: &Event<'_>,
        out: &mut O,
    ) -> OrderOutcome {
        let same_person = approval.operator == proposed.operator;
        #[cfg(test)]
        let same_person = same_person && !self.gets_wrong(super::fault::Fault::ApproveAlone);
        if same_person {
            return OrderOutcome::SamePerson;
        }
        let Some(action) = well_formed(proposed) else {
            return OrderOutcome::Malformed;
        };
        let checked = self.may_be_in_force(action, proposed);
        #[cfg(test)]
        let checked = checked.or_else(|outcome| self.spoil_approval(outcome));
        if let Err(outcome) = checked {
            return outcome;
        }
        self.put_in_force(action, proposed, event, out);
        OrderOutcome::Done
    }

    /// What the ledger as it stands says to an order that is well formed.
    fn may_be_in_force(&self, action: OrderAction, order: &OrderEvent) -> Result<(), OrderOutcome> {
        if action == OrderAction::Add {
            let next = order.participant.index() == self.participants.len();
            let taken = self.participants.iter().any(|p| p.terms.code == order.terms.code);
            if !next || taken {
                return Err(OrderOutcome::NoSuchParticipant);
            }
            let mut accounts = order.terms.accounts.iter().filter(|account| account.currency != 0);
            return if accounts.all(|account| self.currency_slot(Currency(account.currency)).is_some()) {
                Ok(())
            } else {
                Err(OrderOutcome::NoSuchAccount)
            };
        }
        let participant = self.participants.get(order.participant.index());
        let participant = participant.ok_or(OrderOutcome::NoSuchParticipant)?;
        let account = || {
            let slot = self
                .currency_slot(order.currency())
                .ok_or(OrderOutcome::NoSuchAccount)?;
            Ok(&participant.accounts[slot])
        };
        let amount = Position::from(order.amount_minor);
        match action {
            OrderAction::Add => unreachable!("looked at before"),
            OrderAction::Amend | OrderAction::Suspend => Ok(()),
            OrderAction::CoverIn => account().map(|_| ()),
            OrderAction::CoverOut => {
                let account = opened(account()?)?;
                let left = account.cover - amount;
                if left < account.cap || left < account.used() {
                    return Err(OrderOutcome::CoverInUse);
                }
                Ok(())
            }
            OrderAction::SetCap => {
                if amount > opened(account()?)?.cover {
                    return Err(OrderOutcome::CapOverCover);
                }
                Ok(())
            }
        }
    }

    fn put_in_force<O: Outlet>(&mut self, action: OrderAction, order: &OrderEvent, event: &Event<'_>, out: &mut O) {
        match action {
            OrderAction::Add => {
                self.add_participant(&order.terms, event, out);
                emit_contract(&order.terms, out);
            }
            OrderAction::Amend => self.amend(order, out),
            OrderAction::Suspend => {
                self.participants[order.participant.index()].terms.suspended = order.terms.suspended;
            }
            OrderAction::CoverIn => self.move_cover(order, CoverReason::CoverIn, event, out),
            OrderAction::CoverOut => self.move_cover(order, CoverReason::CoverOut, event, out),
            OrderAction::SetCap => {
                let slot = self.currency_slot(order.currency()).expect("it was looked for before");
                let account = &mut self.participants[order.participant.index()].accounts[slot];
                account.cap = order.amount_minor.into();
                self.watch_cover(order.participant, slot, out);
            }
        }
    }

    /// Terms and accounts of one who joins.
    pub(super) fn add_participant<O: Outlet>(&mut self, terms: &ParticipantTerms, event: &Event<'_>, out: &mut O) {
        let role = Role::from_u8(terms.role).expect("terms are checked before they are in force");
        let class = self.timers.enter_class(terms.doubt_ns);
        self.participants
            .push(Participant::new(*terms, role, &self.scheme.currencies, class));
        self.windows.make_room(self.participants.len());
        for account in terms.accounts.iter().filter(|account| account.currency != 0) {
            out.cover_moved(&CoverMovement {
                event: event.number,
                time: event.time,
                participant: terms.index,
                currency: Currency(account.currency),
                reason: CoverReason::Opening,
                window: WindowId::NONE,
                change_minor: account.cover_minor.into(),
                cover_minor: account.cover_minor.into(),
            });
        }
    }

    /// T1 and T2 of what is open stay what they were at its acceptance: T2 is in its record, and its place in the queue of
    /// the old T1 is where it is.
    fn amend<O: Outlet>(&mut self, order: &OrderEvent, out: &mut O) {
        let participant = &mut self.participants[order.participant.index()];
        let before = participant.terms;
        participant.terms = ParticipantTerms {
            index: before.index,
            code: before.code,
            role: before.role,
            suspended: before.suspended,
            accounts: before.accounts,
            ..order.terms
        };
        if before.doubt_ns != order.terms.doubt_ns {
            self.timers.leave_class(participant.doubt_class);
            participant.doubt_class = self.timers.enter_class(order.terms.doubt_ns);
        }
        emit_contract(&participant.terms, out);
    }

    fn move_cover<O: Outlet>(&mut self, order: &OrderEvent, reason: CoverReason, event: &Event<'_>, out: &mut O) {
        let slot = self.currency_slot(order.currency()).expect("it was looked for before");
        let participant = &mut self.participants[order.participant.index()];
        let (account, book) = (&mut participant.accounts[slot], &mut participant.books[slot]);
        let amount = Position::from(order.amount_minor);
        let change = if reason == CoverReason::CoverIn {
            book.brought_in += amount;
            amount
        } else {
            book.taken_out += amount;
            -amount
        };
        account.cover += change;
        if !account.open {
            account.open = true;
            let unused = participant.terms.accounts.iter_mut().find(|terms| terms.currency == 0);
            let unused = unused.expect("terms have as many accounts as the scheme has currencies");
            unused.currency = order.currency;
        }
        out.cover_moved(&CoverMovement {
            event: event.number,
            time: event.time,
            participant: order.participant,
            currency: order.currency(),
            reason,
            window: WindowId::NONE,
            change_minor: change,
            cover_minor: account.cover,
        });
        #[cfg(test)]
        self.spoil_cover(order.participant, slot);
    }
}

fn opened(account: &Account) -> Result<&Account, OrderOutcome> {
    account.open.then_some(account).ok_or(OrderOutcome::NoSuchAccount)
}

fn emit_contract<O: Outlet>(terms: &ParticipantTerms, out: &mut O) {
    out.emit(Effect::Contract {
        participant: terms.index,
        contract: terms.contract,
    });
}

/// What is ordered or proposed; `None` where a number is none that can be, or where something is said that does not belong.
fn well_formed(order: &OrderEvent) -> Option<OrderAction> {
    let action = OrderAction::from_u8(order.action)?;
    let (terms, cover) = (&order.terms, order.amount_minor);
    let says_no_terms = *terms == ParticipantTerms::zeroed();
    let says_no_money = cover == 0 && order.currency == 0;
    let fits = match action {
        OrderAction::Add => {
            says_no_money
                && terms.index == order.participant
                && SchemeCode::parse(&terms.code.text()) == Some(terms.code)
                && Role::from_u8(terms.role).is_some()
                && may_suspend(terms)
                && accounts_are_empty(&terms.accounts)
                && agrees(terms)
        }
        OrderAction::Amend => says_no_money && agrees(terms),
        OrderAction::Suspend => says_no_money && may_suspend(terms),
        OrderAction::CoverIn | OrderAction::CoverOut => says_no_terms && cover > 0,
        OrderAction::SetCap => says_no_terms,
    };
    (fits && order.proposal == 0 && order.reserved == 0).then_some(action)
}

/// Timers rise, and there is no kind that there is not.
fn agrees(terms: &ParticipantTerms) -> bool {
    let kinds = Kind::ALL.iter().fold(0, |mask, kind| mask | kind.bit());
    terms.wait_ns < terms.doubt_ns
        && terms.doubt_ns < terms.expiry_pull_ns.min(terms.expiry_push_ns)
        && terms.permitted_kinds & !kinds == 0
        && terms.reserved == [0; 2]
        && terms.contract.reserved == [0; 10]
}

fn may_suspend(terms: &ParticipantTerms) -> bool {
    terms.suspended & !(ParticipantTerms::SUSPENDED_INITIATOR | ParticipantTerms::SUSPENDED_RESPONDER) == 0
}

/// Each names its currency, no two the same one, and nothing else.
fn accounts_are_empty(accounts: &[CurrencyTerms; 4]) -> bool {
    (0..).zip(accounts).all(|(nth, account)| {
        let only_named = CurrencyTerms {
            currency: account.currency,
            ..CurrencyTerms::zeroed()
        };
        let earlier = &accounts[..nth];
        *account == only_named && (account.currency == 0 || earlier.iter().all(|e| e.currency != account.currency))
    })
}

/// One to 32 letters, digits, `.`, `-`, `_`, then zeros: two spellings of one name would be two people.
fn is_name(operator: &OperatorName) -> bool {
    let length = operator.iter().position(|&byte| byte == 0).unwrap_or(operator.len());
    let (name, rest) = operator.split_at(length);
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
    !name.is_empty() && name.iter().all(fits) && rest.iter().all(|&byte| byte == 0)
}
