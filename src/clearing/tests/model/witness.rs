//! The invariants of the scheme, recomputed from what was asked and what left the switch. It knows no rules: what the model
//! might have misread too can not hide from it.

use std::collections::BTreeMap;

use super::reference::{Account, creditor, debtor, direction};
use super::said::Said;
use super::terms::{PARTICIPANTS, participant};
use crate::clearing::WindowSnapshot;
use crate::domain::{
    Code, Direction, Kind, ParticipantIndex, PaymentId, PaymentState, Position, WindowId, WindowState,
};
use crate::wire::{Answer, AnswerFlags, OrderAction, OrderEvent, OrderOutcome, PaymentBody};

/// Each participant's accounts in the engine, by currency.
pub(super) type Accounts = Vec<BTreeMap<u16, Account>>;

#[derive(Default)]
pub(super) struct Witness {
    /// Forwarded to their banks, as they were asked.
    forwarded: BTreeMap<PaymentId, PaymentBody>,
    /// The first final answer of each id.
    told: BTreeMap<PaymentId, Answer>,
    /// How many words each participant was told.
    words: BTreeMap<u16, u64>,
    /// Proposals by their event.
    proposed: BTreeMap<u64, OrderEvent>,
    /// What orders in force came to, by participant and currency: opened, cover brought in less taken out, and the cap that
    /// was set, with what had been settled by then added.
    ordered: BTreeMap<(u16, u16), (Position, Option<Position>)>,
}

/// The event that is judged.
pub(super) struct Asked<'a> {
    pub(super) number: u64,
    pub(super) request: Option<&'a PaymentBody>,
    pub(super) order: Option<OrderEvent>,
}

macro_rules! holds {
    ($condition:expr, $($claim:tt)+) => {
        if !$condition {
            return Err(format!($($claim)+));
        }
    };
}

impl Witness {
    /// What must hold after an event that made `said` leave the switch; `request` is the request, if it was one.
    pub(super) fn check(
        &mut self,
        asked: Asked<'_>,
        said: &[Said],
        windows: &[WindowSnapshot],
        accounts: &Accounts,
    ) -> Result<(), String> {
        for (at, one) in said.iter().enumerate() {
            self.hear(asked.request, one, &said[at + 1..], windows, accounts)?;
            if let (Said::Ordered { outcome, .. }, Some(order)) = (one, &asked.order) {
                self.ordered(asked.number, order, *outcome, windows, accounts)?;
            }
        }
        self.windows(windows)?;
        self.sums(windows, accounts)?;
        self.refunds()
    }

    fn hear(
        &mut self,
        request: Option<&PaymentBody>,
        said: &Said,
        after: &[Said],
        windows: &[WindowSnapshot],
        accounts: &Accounts,
    ) -> Result<(), String> {
        match said {
            Said::Forward { id, .. } => {
                let body = *request.ok_or_else(|| format!("{id} is forwarded and was not asked"))?;
                self.forwarded.insert(*id, body);
                if let Some(debtor) = debtor(&body) {
                    let account = accounts[debtor.index()]
                        .get(&body.currency)
                        .copied()
                        .unwrap_or_default();
                    holds!(
                        account.position + account.reserved <= account.cap,
                        "invariant 3: {id} was admitted over the cap: {account:?}"
                    );
                }
                Ok(())
            }
            Said::Answer { to, answer, .. } => self.hear_answer(*to, &answer.0, after, windows),
            Said::Notice { to, notice } => self.word(*to, notice.0.word),
            Said::Reversal { to, reversal } => {
                let (word, first) = (reversal.0.word, reversal.0.attempt == 1);
                if first { self.word(*to, word) } else { Ok(()) }
            }
            Said::Status { .. }
            | Said::Release { .. }
            | Said::LookUp { .. }
            | Said::Request { .. }
            | Said::Contract { .. }
            | Said::Ordered { .. }
            | Said::CoverAlarm { .. }
            | Said::Cut { .. } => Ok(()),
        }
    }

    /// Cover moves by the word of two people, and never into what is in use.
    fn ordered(
        &mut self,
        number: u64,
        order: &OrderEvent,
        outcome: OrderOutcome,
        windows: &[WindowSnapshot],
        accounts: &Accounts,
    ) -> Result<(), String> {
        if outcome == OrderOutcome::Proposed {
            self.proposed.insert(number, *order);
            return Ok(());
        }
        if outcome != OrderOutcome::Done {
            return Ok(());
        }
        let in_force = *self.proposed.get(&order.proposal).unwrap_or(order);
        let action = OrderAction::from_u8(in_force.action).ok_or("an order of no kind is in force")?;
        holds!(
            !action.takes_two() || (in_force != *order && in_force.operator != order.operator),
            "cover was moved by one person: {in_force:?}, approved by {order:?}"
        );
        let key = (in_force.participant.0, in_force.currency);
        let amount = Position::from(in_force.amount_minor);
        let settled = self.settled(windows, in_force.participant, in_force.currency);
        let ordered = self.ordered.entry(key).or_default();
        match action {
            OrderAction::Add | OrderAction::Amend | OrderAction::Suspend => return Ok(()),
            OrderAction::CoverIn => ordered.0 += amount,
            OrderAction::CoverOut => ordered.0 -= amount,
            OrderAction::SetCap => ordered.1 = Some(amount + settled),
        }
        let account = accounts[in_force.participant.index()][&in_force.currency];
        let used = account.position + account.reserved;
        holds!(
            action != OrderAction::CoverOut || account.cover >= account.cap.max(used),
            "cover that is in use went out: {account:?}"
        );
        holds!(
            action != OrderAction::SetCap || account.cap <= account.cover,
            "cover that is not there may be used: {account:?}"
        );
        Ok(())
    }

    /// What settled windows came to for a participant.
    fn settled(&self, windows: &[WindowSnapshot], participant: ParticipantIndex, currency: u16) -> Position {
        let is_settled = |id: WindowId| {
            let mut settled = windows.iter().filter(|window| window.state == WindowState::Settled);
            settled.any(|window| window.id == id)
        };
        let mut sum = 0;
        for (id, body) in &self.forwarded {
            let committed = self.told.get(id).filter(|answer| is_settled(answer.window));
            if committed.is_some() && body.currency == currency {
                let amount = Position::from(body.amount_minor);
                sum += if debtor(body) == Some(participant) { amount } else { 0 };
                sum -= if creditor(body) == Some(participant) { amount } else { 0 };
            }
        }
        sum
    }

    fn word(&mut self, to: u16, word: u64) -> Result<(), String> {
        let words = self.words.entry(to).or_insert(0);
        *words += 1;
        holds!(
            word == *words,
            "word {word} to participant {to} should be number {words}"
        );
        Ok(())
    }

    fn hear_answer(
        &mut self,
        to: u16,
        answer: &Answer,
        after: &[Said],
        windows: &[WindowSnapshot],
    ) -> Result<(), String> {
        let id = answer.id;
        if answer.word == 0 {
            let passing = [Code::InProgress, Code::DateNotOpen, Code::IdReused, Code::NotTaken].map(|code| code as u8);
            holds!(passing.contains(&answer.code), "an answer without a number: {answer:?}");
            return Ok(());
        }
        self.word(to, answer.word)?;
        if let Some(first) = self.told.get(&id) {
            let content = |answer: &Answer| {
                let (window, final_ns) = (answer.window, answer.final_ns);
                (answer.code, answer.state, window, final_ns, answer.mandate_token)
            };
            holds!(
                answer.flags == AnswerFlags::DUPLICATE,
                "invariant 6: {id} has a second final answer"
            );
            holds!(
                content(answer) == content(first),
                "invariant 6: {id} had {first:?}, now {answer:?}"
            );
            return Ok(());
        }
        holds!(
            answer.flags == 0,
            "invariant 6: {id} is repeated and was never answered"
        );
        self.told.insert(id, *answer);
        let committed = answer.code == Code::Committed as u8;
        holds!(
            committed == (answer.window != WindowId::NONE),
            "invariant 4: {answer:?}"
        );
        if committed {
            let open = |window: &&WindowSnapshot| {
                window.id == answer.window && window.state == WindowState::Open && window.currency == answer.currency
            };
            holds!(
                windows.iter().any(|window| open(&window)),
                "invariant 4: {id} is stamped with {}, which is not open",
                answer.window
            );
        }
        self.consequences(answer, after)
    }

    /// An expired pull that was sent has a Reversal; a push that was sent has a FinalNotice.
    fn consequences(&self, answer: &Answer, after: &[Said]) -> Result<(), String> {
        let id = answer.id;
        let Some(body) = self.forwarded.get(&id) else {
            return Ok(());
        };
        let not_sent = answer.state == PaymentState::Expired as u8 && answer.code != Code::BankTimeout as u8;
        let reversals = after
            .iter()
            .filter(|said| matches!(said, Said::Reversal { reversal, .. } if reversal.0.id == id));
        let notices = after
            .iter()
            .filter(|said| matches!(said, Said::Notice { notice, .. } if notice.0.id == id));
        let timed_out = answer.code == Code::BankTimeout as u8;
        let (pull, push) = (direction(body) == Direction::Pull, direction(body) == Direction::Push);
        holds!(
            reversals.count() == usize::from(pull && timed_out),
            "invariant 9: {id} expired and its Reversal is not due"
        );
        holds!(
            notices.count() == usize::from(push && !not_sent),
            "a FinalNotice of {id} is missing, or too many"
        );
        Ok(())
    }

    fn windows(&self, windows: &[WindowSnapshot]) -> Result<(), String> {
        let mut open = BTreeMap::new();
        for window in windows {
            let sum: Position = window.nets.iter().map(|(_, net)| net).sum();
            holds!(sum == 0, "invariant 1: the nets of {} sum to {sum}", window.id);
            *open.entry(window.currency).or_insert(0) += u32::from(window.state == WindowState::Open);
            let in_it: Vec<_> = self.told.values().filter(|answer| answer.window == window.id).collect();
            holds!(
                in_it.len() as u64 == window.committed,
                "invariant 4: {} payments were told {}, it counts {}",
                in_it.len(),
                window.id,
                window.committed
            );
            let gross: Position = in_it.iter().map(|answer| Position::from(answer.amount_minor)).sum();
            holds!(gross == window.gross, "invariant 7: the gross of {window:?} is {gross}");
        }
        holds!(
            open.values().all(|&count| count == 1),
            "open windows by currency: {open:?}"
        );
        Ok(())
    }

    /// Positions, reservations, cover and caps, summed up from all payments anew.
    fn sums(&self, windows: &[WindowSnapshot], accounts: &Accounts) -> Result<(), String> {
        let mut expected: Accounts = (0..accounts.len() as u16).map(opening).collect();
        for ((participant, currency), (cover, cap)) in &self.ordered {
            let account = at(&mut expected, usize::from(*participant), *currency);
            account.cover += cover;
            account.cap = cap.unwrap_or(account.cap);
        }
        for (id, body) in &self.forwarded {
            let amount = Position::from(body.amount_minor);
            match self.told.get(id) {
                None => {
                    if let Some(debtor) = debtor(body) {
                        at(&mut expected, debtor.index(), body.currency).reserved += amount;
                    }
                }
                Some(answer) if answer.code == Code::Committed as u8 => {
                    let settled = windows
                        .iter()
                        .any(|window| window.id == answer.window && window.state == WindowState::Settled);
                    for (party, owed) in [(debtor(body), amount), (creditor(body), -amount)] {
                        let Some(party) = party else { continue };
                        let account = at(&mut expected, party.index(), body.currency);
                        if settled {
                            account.cover -= owed;
                            account.cap -= owed;
                        } else {
                            account.position += owed;
                        }
                    }
                }
                Some(_) => {}
            }
        }
        for ((participant, now), expected) in (0u16..).zip(accounts).zip(&expected) {
            for (currency, expected) in expected {
                let now = now.get(currency).copied().unwrap_or_default();
                let place = format!("participant {participant} in {currency} has {now:?}, expected {expected:?}");
                holds!(now.reserved == expected.reserved, "invariant 5: {place}");
                holds!(now == *expected, "invariant 2: {place}");
            }
        }
        Ok(())
    }

    /// What was ever forwarded of a Debit's refunds and not declined or expired is at most the Debit.
    fn refunds(&self) -> Result<(), String> {
        let mut refunded: BTreeMap<PaymentId, Position> = BTreeMap::new();
        for (id, body) in &self.forwarded {
            let lives = self
                .told
                .get(id)
                .is_none_or(|answer| answer.code == Code::Committed as u8);
            if body.kind == Kind::Refund as u8 && lives {
                *refunded.entry(body.original).or_insert(0) += Position::from(body.amount_minor);
            }
        }
        for (original, sum) in refunded {
            let debit = self.forwarded.get(&original);
            let amount = debit.map_or(0, |body| Position::from(body.amount_minor));
            holds!(sum <= amount, "of {original}, which is {amount}, {sum} was refunded");
        }
        Ok(())
    }
}

fn at(accounts: &mut Accounts, participant: usize, currency: u16) -> &mut Account {
    accounts[participant].entry(currency).or_default()
}

fn opening(index: u16) -> BTreeMap<u16, Account> {
    if index >= PARTICIPANTS {
        return BTreeMap::new();
    }
    let terms = participant(index);
    let accounts = terms.accounts.iter().filter(|account| account.currency != 0);
    let account_now = |cover: u64, cap: u64| Account {
        cover: Position::from(cover),
        cap: Position::from(cap),
        ..Account::default()
    };
    accounts
        .map(|account| (account.currency, account_now(account.cover_minor, account.cap_minor)))
        .collect()
}
