//! The auditor's books: participants, payments, windows, and what is written in them.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use crate::domain::{
    Code, Currency, Kind, ParticipantIndex, ParticipantTerms, PaymentId, PaymentState, Position, SchemeTerms, UtcNanos,
    WindowId, WindowState,
};
use crate::wire::PaymentBody;

/// One participant's account in one currency, minor units.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) currency: Currency,
    pub(super) cover: Position,
    pub(super) cap: Position,
    pub(super) position: Position,
    pub(super) reserved: Position,
    /// Cover it was opened with.
    pub(super) opening: Position,
    /// Cover that was brought in since.
    pub(super) top_ups: Position,
    /// Cover that was taken out since.
    pub(super) withdrawals: Position,
    /// The cap as it would be had nothing been settled.
    pub(super) cap_at_opening: Position,
}

impl Account {
    /// An account of nothing.
    pub(super) fn empty(currency: Currency) -> Self {
        Self {
            currency,
            cover: 0,
            cap: 0,
            position: 0,
            reserved: 0,
            opening: 0,
            top_ups: 0,
            withdrawals: 0,
            cap_at_opening: 0,
        }
    }
}

/// A participant and its accounts.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    pub(super) terms: ParticipantTerms,
    pub(super) accounts: Vec<Account>,
}

impl Participant {
    pub(super) fn new(terms: ParticipantTerms) -> Self {
        let accounts = terms
            .accounts
            .iter()
            .filter(|account| account.currency != 0)
            .map(|account| Account {
                cover: account.cover_minor.into(),
                opening: account.cover_minor.into(),
                cap: account.cap_minor.into(),
                cap_at_opening: account.cap_minor.into(),
                ..Account::empty(Currency(account.currency))
            })
            .collect();
        Self { terms, accounts }
    }

    pub(super) fn account(&mut self, currency: Currency) -> Option<&mut Account> {
        self.accounts.iter_mut().find(|account| account.currency == currency)
    }

    pub(super) fn account_ref(&self, currency: Currency) -> Option<&Account> {
        self.accounts.iter().find(|account| account.currency == currency)
    }
}

/// A payment, 64 bytes: ten million of them are 640 MB.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) id: PaymentId,
    /// Tells a repeated request from a reused id.
    pub(super) digest: u64,
    pub(super) amount: u64,
    /// T2 as a time; moved by a restart.
    pub(super) expiry: UtcNanos,
    /// Index into [`Books::windows`], or [`NO_WINDOW`].
    pub(super) window: u32,
    pub(super) responder: ParticipantIndex,
    pub(super) currency: Currency,
    /// [`Kind`] as a number; that of a rejected payment may be none.
    pub(super) kind: u8,
    pub(super) state: PaymentState,
    pub(super) code: Code,
    /// How many final outcomes it was given; must be 1 in the end, 0 while it is open.
    pub(super) outcomes: u8,
    /// A late word said the contrary of the final state.
    pub(super) contradicted: bool,
}

/// The window of a payment that is in none.
pub(super) const NO_WINDOW: u32 = u32::MAX;

const _: () = assert!(size_of::<Payment>() <= 64);

impl Payment {
    pub(super) fn initiator(&self) -> ParticipantIndex {
        self.id.originator()
    }

    /// Who owes and who is owed when it commits; nobody where no money moves.
    pub(super) fn debtor_and_creditor(&self) -> Option<(ParticipantIndex, ParticipantIndex)> {
        match Kind::from_u8(self.kind)? {
            Kind::Debit => Some((self.responder, self.initiator())),
            Kind::Payout | Kind::Refund => Some((self.initiator(), self.responder)),
            Kind::Bind | Kind::Unbind => None,
        }
    }
}

/// Where a Reversal stands, as far as the journal shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reversal {
    /// Raised, and not acknowledged since.
    Raised,
    /// The bank has taken it.
    Acknowledged,
    /// The bank has taken it, long ago: nothing is known of it any more.
    Forgotten,
}

/// A window and its sums.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) id: WindowId,
    pub(super) currency: Currency,
    pub(super) state: WindowState,
    pub(super) committed: u64,
    pub(super) gross: Position,
    /// Debits − credits by participant index.
    pub(super) nets: Vec<Position>,
}

/// Everything the auditor knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) scheme: Option<SchemeTerms>,
    pub(super) participants: Vec<Option<Participant>>,
    pub(super) payments: Vec<Payment>,
    by_id: HashTable<u32>,
    /// Every accepted refund, by its original; both as places in [`Books::payments`].
    pub(super) refunds: BTreeMap<u32, Vec<u32>>,
    /// Every Reversal, by its payment's place in [`Books::payments`].
    pub(super) reversals: BTreeMap<u32, Reversal>,
    pub(super) windows: Vec<Window>,
    /// How many windows were opened on a business date.
    opened: BTreeMap<u32, u32>,
    /// What rows of files say beside [`Payment`]; kept only where files are verified.
    pub(super) traces: Option<Traces>,
}

/// What is known of payments beyond what the books need.
#[derive(Clone, Debug, Default)]
pub(super) struct Traces {
    /// By a payment's place in [`Books::payments`]: when it was accepted, and its scene.
    pub(super) accepted: Vec<(UtcNanos, u8)>,
    /// Of accepted refunds: the original.
    pub(super) originals: BTreeMap<u32, PaymentId>,
    /// Payments that became final since this was emptied last, and the window of their currency that was open then.
    pub(super) concluded: Vec<(u32, u32)>,
}

impl Books {
    pub(super) fn participant(&mut self, index: ParticipantIndex) -> Option<&mut Participant> {
        self.participants.get_mut(index.index())?.as_mut()
    }

    pub(super) fn participant_ref(&self, index: ParticipantIndex) -> Option<&Participant> {
        self.participants.get(index.index())?.as_ref()
    }

    /// Writes down a participant; each window there is has a net for it.
    pub(super) fn join(&mut self, participant: Participant) {
        let index = participant.terms.index.index();
        if self.participants.len() <= index {
            self.participants.resize(index + 1, None);
            for window in &mut self.windows {
                window.nets.resize(index + 1, 0);
            }
        }
        self.participants[index] = Some(participant);
    }

    /// Where the payment stands in [`Books::payments`].
    pub(super) fn find(&self, id: PaymentId) -> Option<usize> {
        self.by_id
            .find(hash(id), |&at| self.payments[at as usize].id == id)
            .map(|&at| at as usize)
    }

    /// Writes a new payment down; its id must be new.
    pub(super) fn remember(&mut self, payment: Payment) -> usize {
        let at = self.payments.len();
        let (payments, key) = (&self.payments, hash(payment.id));
        self.by_id
            .insert_unique(key, at as u32, |&other| hash(payments[other as usize].id));
        self.payments.push(payment);
        at
    }

    /// The open window of a currency.
    pub(super) fn open_window(&self, currency: Currency) -> Option<usize> {
        // The open one is the newest of its currency, so looking from the end finds it in a step or two.
        self.windows
            .iter()
            .rposition(|window| window.currency == currency && window.state == WindowState::Open)
    }

    /// True when the business date has a window number of four digits left.
    pub(super) fn has_window_number(&self, time: UtcNanos) -> bool {
        self.opened
            .get(&time.business_date().0)
            .is_none_or(|&number| number < 9_999)
    }

    /// Opens a window; its number counts the windows opened that business date over all currencies.
    pub(super) fn open(&mut self, currency: Currency, time: UtcNanos) {
        let date = time.business_date();
        let number = self.opened.entry(date.0).or_insert(0);
        *number += 1;
        self.windows.push(Window {
            id: WindowId::new(date, *number),
            currency,
            state: WindowState::Open,
            committed: 0,
            gross: 0,
            nets: vec![0; self.participants.len()],
        });
    }

    /// Reserves cover on the party that will owe.
    pub(super) fn reserve(&mut self, at: usize) -> Option<&Account> {
        let payment = &self.payments[at];
        let (currency, amount) = (payment.currency, payment.amount);
        let (debtor, _) = payment.debtor_and_creditor()?;
        let account = self.participant(debtor)?.account(currency)?;
        account.reserved += Position::from(amount);
        Some(account)
    }

    /// Reserved + InDoubt + Committed refunds of this original, minor units.
    pub(super) fn refunded(&self, original: usize) -> Position {
        let refunds = self.refunds.get(&(original as u32)).map_or(&[][..], Vec::as_slice);
        refunds
            .iter()
            .map(|&refund| &self.payments[refund as usize])
            .filter(|refund| match refund.state {
                PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Committed => true,
                PaymentState::Declined | PaymentState::Expired | PaymentState::Rejected => false,
            })
            .map(|refund| Position::from(refund.amount))
            .sum()
    }

    /// True when a Reversal of the payment was raised and is remembered.
    pub(super) fn has_reversal(&self, at: usize) -> bool {
        let reversal = self.reversals.get(&(at as u32));
        reversal.is_some_and(|reversal| *reversal != Reversal::Forgotten)
    }

    /// A Reversal is due where the payment is a pull: also again, if it had been acknowledged.
    pub(super) fn raise_reversal_of_a_pull(&mut self, at: usize) {
        if self.payments[at].kind == Kind::Debit as u8 {
            self.reversals.insert(at as u32, Reversal::Raised);
        }
    }

    /// Gives the payment its final state and code, and releases its cover.
    pub(super) fn conclude(&mut self, at: usize, state: PaymentState, code: Code) {
        self.trace_conclusion(at);
        let payment = &mut self.payments[at];
        payment.state = state;
        payment.code = code;
        payment.outcomes = payment.outcomes.saturating_add(1);
        let (currency, amount) = (payment.currency, payment.amount);
        let debtor = payment.debtor_and_creditor().map(|(debtor, _)| debtor);
        if let Some(account) = debtor
            .and_then(|debtor| self.participant(debtor))
            .and_then(|debtor| debtor.account(currency))
        {
            account.reserved -= Position::from(amount);
        }
    }

    /// Notes a new payment where payments are traced; a rejected one is final at once.
    pub(super) fn trace(&mut self, at: usize, time: UtcNanos, body: &PaymentBody) {
        let Some(traces) = &mut self.traces else { return };
        traces.accepted.push((time, body.scene));
        assert_eq!(
            traces.accepted.len(),
            at + 1,
            "payments are written down one after the other"
        );
        let is_rejected = self.payments[at].state == PaymentState::Rejected;
        if body.kind == Kind::Refund as u8 && !is_rejected {
            traces.originals.insert(at as u32, body.original);
        }
        if is_rejected {
            self.trace_conclusion(at);
        }
    }

    fn trace_conclusion(&mut self, at: usize) {
        if self.traces.is_none() {
            return;
        }
        let open = self.open_window(self.payments[at].currency);
        if let Some(traces) = &mut self.traces {
            let window = open.map_or(NO_WINDOW, |window| window as u32);
            traces.concluded.push((at as u32, window));
        }
    }

    /// Posts a committed payment: one owes, the other is owed, the window is stamped. Without money it only counts there.
    pub(super) fn post(&mut self, at: usize, window: usize) {
        let payment = &mut self.payments[at];
        payment.window = window as u32;
        let (parties, currency) = (payment.debtor_and_creditor(), payment.currency);
        let amount = Position::from(payment.amount);
        let changes = parties.map(|(debtor, creditor)| [(debtor, amount), (creditor, -amount)]);
        for (party, change) in changes.into_iter().flatten() {
            if let Some(account) = self.participant(party).and_then(|party| party.account(currency)) {
                account.position += change;
            }
            self.windows[window].nets[party.index()] += change;
        }
        let window = &mut self.windows[window];
        window.committed += 1;
        window.gross += amount;
    }

    /// Settles a window: position, cover and cap each fall by its net.
    pub(super) fn settle(&mut self, window: usize) {
        self.windows[window].state = WindowState::Settled;
        let (currency, nets) = (self.windows[window].currency, self.windows[window].nets.clone());
        for (participant, net) in self.participants.iter_mut().zip(nets) {
            if let Some(account) = participant.as_mut().and_then(|p| p.account(currency)) {
                account.position -= net;
                account.cover -= net;
                account.cap -= net;
            }
        }
    }
}

/// A mix of all 128 bits (the finalizer of MurmurHash3); ids are dense, so a weak hash would pile them up.
fn hash(id: PaymentId) -> u64 {
    let mut x = id.low ^ id.high.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 33;
    x = x.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    x ^= x >> 33;
    x = x.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    x ^ (x >> 33)
}
