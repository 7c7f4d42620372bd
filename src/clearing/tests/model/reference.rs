//! The reference model: the rules of `docs/payments.md`, read a second time. Small, slow, obvious: vectors that are
//! searched from the front, one place where a timer is due, every rule a sentence with its row.

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::pod_read_unaligned;

use super::orders::Proposal;
use super::residency::Waiting;
use super::said::Said;
use crate::clearing::{ExceptionKind, Figures, Success};
use crate::domain::{
    BusinessDate, Code, Currency, Direction, Kind, LinkId, ParticipantIndex, ParticipantTerms, PaymentId, PaymentState,
    Position, SECOND, SchemeTerms, UtcNanos, WindowId, WindowState,
};
use crate::wire::{OrderEvent, OrderOutcome, PaymentBody, RecordKind};

/// Status requests go out at these times after the payment came into doubt.
const ASKED_AT: [u64; 3] = [0, 10 * SECOND, 40 * SECOND];
const DAY: u64 = 86_400 * SECOND;

pub(super) struct Model {
    pub(super) scheme: SchemeTerms,
    pub(super) members: Vec<Member>,
    /// In the order in which they came; rejected ones too.
    pub(super) payments: Vec<Payment>,
    pub(super) windows: Vec<Window>,
    /// The payment in each slot of the engine's table.
    pub(super) slots: Vec<Option<usize>>,
    pub(super) cursor: usize,
    /// In the order of their events.
    pub(super) waiting: Vec<Waiting>,
    pub(super) proposals: Vec<Proposal>,
    /// Event, time, outcome and order.
    pub(super) outcomes: Vec<(u64, UtcNanos, OrderOutcome, OrderEvent)>,
    pub(super) begun: BusinessDate,
    pub(super) sealed: BusinessDate,
    /// The event being applied.
    pub(super) number: u64,
    pub(super) exceptions: Vec<(PaymentId, ExceptionKind, UtcNanos)>,
    pub(super) figures: Figures,
    pub(super) time: UtcNanos,
    /// What the event being applied makes leave the switch.
    pub(super) out: Vec<Said>,
    /// The rows of the rules that were ever applied.
    pub(super) rows: BTreeSet<&'static str>,
}

pub(super) struct Member {
    pub(super) terms: ParticipantTerms,
    /// By currency.
    pub(super) accounts: BTreeMap<u16, Account>,
    /// By currency, the alarm of its cover, percent.
    pub(super) levels: BTreeMap<u16, Position>,
    pub(super) next_word: u64,
    pub(super) success: Success,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Account {
    pub(super) position: Position,
    pub(super) reserved: Position,
    pub(super) cover: Position,
    pub(super) cap: Position,
}

#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) body: PaymentBody,
    /// The link that asked, until the switch starts again.
    pub(super) link: LinkId,
    pub(super) state: PaymentState,
    pub(super) code: Code,
    pub(super) window: WindowId,
    pub(super) accepted: UtcNanos,
    pub(super) finished: UtcNanos,
    pub(super) mandate_token: [u64; 2],
    /// T1.
    pub(super) doubt_at: UtcNanos,
    /// T2.
    pub(super) expiry_at: UtcNanos,
    /// Status requests count from here, and so many went out.
    pub(super) in_doubt_since: UtcNanos,
    pub(super) asked: usize,
    pub(super) reversal: Option<RaisedReversal>,
}

#[derive(Clone, Debug)]
pub(super) struct RaisedReversal {
    pub(super) status: ReversalStatus,
    pub(super) word: u64,
    pub(super) attempts: u32,
    pub(super) raised: UtcNanos,
    pub(super) next: UtcNanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReversalStatus {
    Due,
    Acknowledged,
    Manual,
}

#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) id: WindowId,
    pub(super) currency: Currency,
    pub(super) state: WindowState,
    pub(super) opened: UtcNanos,
    pub(super) closed: UtcNanos,
    pub(super) committed: u64,
    pub(super) gross: Position,
    pub(super) nets: BTreeMap<u16, Position>,
}

/// Who will owe: the responder of a Debit, the initiator of a Payout or Refund, nobody for Bind and Unbind.
pub(super) fn debtor(body: &PaymentBody) -> Option<ParticipantIndex> {
    match body.kind().map(Kind::direction) {
        Some(Direction::Pull) => Some(body.responder),
        Some(Direction::Push) => Some(body.id.originator()),
        Some(Direction::None) | None => None,
    }
}

/// Who will be owed.
pub(super) fn creditor(body: &PaymentBody) -> Option<ParticipantIndex> {
    match body.kind().map(Kind::direction) {
        Some(Direction::Pull) => Some(body.id.originator()),
        Some(Direction::Push) => Some(body.responder),
        Some(Direction::None) | None => None,
    }
}

pub(super) fn direction(body: &PaymentBody) -> Direction {
    body.kind().map_or(Direction::None, Kind::direction)
}

impl Payment {
    pub(super) fn new(body: PaymentBody, link: LinkId, now: UtcNanos) -> Self {
        Self {
            body,
            link,
            state: PaymentState::Reserved,
            code: Code::InProgress,
            window: WindowId::NONE,
            accepted: now,
            finished: UtcNanos(0),
            mandate_token: [0; 2],
            doubt_at: UtcNanos::NEVER,
            expiry_at: UtcNanos::NEVER,
            in_doubt_since: UtcNanos::NEVER,
            asked: 0,
            reversal: None,
        }
    }

    /// When the next status request is due: at +0, +10, +40 s while T2 has not passed.
    pub(super) fn ask_at(&self) -> UtcNanos {
        match ASKED_AT.get(self.asked) {
            Some(after) if self.in_doubt_since.plus(*after) < self.expiry_at => self.in_doubt_since.plus(*after),
            Some(_) | None => UtcNanos::NEVER,
        }
    }

    /// When time alone will next do something to the payment.
    fn deadline(&self) -> UtcNanos {
        match self.state {
            PaymentState::Reserved => self.doubt_at,
            PaymentState::InDoubt => self.ask_at().min(self.expiry_at),
            PaymentState::Committed | PaymentState::Declined | PaymentState::Expired | PaymentState::Rejected => {
                match &self.reversal {
                    Some(reversal) if reversal.status == ReversalStatus::Due => reversal.next,
                    Some(_) | None => UtcNanos::NEVER,
                }
            }
        }
    }
}

impl RaisedReversal {
    /// After 24 hours without an acknowledgement: Manual.
    pub(super) fn manual_at(&self) -> UtcNanos {
        self.raised.plus(DAY)
    }
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            scheme: bytemuck::Zeroable::zeroed(),
            members: Vec::new(),
            payments: Vec::new(),
            windows: Vec::new(),
            slots: Vec::new(),
            cursor: 0,
            waiting: Vec::new(),
            proposals: Vec::new(),
            outcomes: Vec::new(),
            begun: BusinessDate(0),
            sealed: BusinessDate(0),
            number: 0,
            exceptions: Vec::new(),
            figures: Figures::default(),
            time: UtcNanos(0),
            out: Vec::new(),
            rows: BTreeSet::new(),
        }
    }

    /// Applies an event and says what it makes leave the switch, in order.
    pub(super) fn apply(&mut self, kind: RecordKind, time: UtcNanos, position: u64, payload: &[u8]) -> Vec<Said> {
        self.time = time;
        self.number = position / 256;
        // Timers due at or before the event's time fire first, ordered by (deadline, id). But a restart moves every
        // open deadline before it can pass.
        let restart = kind == RecordKind::Restart;
        while let Some(nth) = self.first_due(restart) {
            self.fire(nth);
        }
        match kind {
            RecordKind::Request => self.request(&pod_read_unaligned(payload), position),
            RecordKind::Reply => self.reply(&pod_read_unaligned(payload)),
            RecordKind::NotSent => self.not_sent(&pod_read_unaligned(payload)),
            RecordKind::Finding => self.finding(&pod_read_unaligned(payload)),
            RecordKind::DaySealed => self.day_sealed(&pod_read_unaligned(payload)),
            RecordKind::Tick => {}
            RecordKind::Order => self.order(&pod_read_unaligned(payload)),
            RecordKind::Restart => self.restart(),
            RecordKind::Window => self.window(&pod_read_unaligned(payload)),
            RecordKind::Genesis => {
                self.scheme = pod_read_unaligned(payload);
                self.begun = UtcNanos(time.0 - 86_400 * SECOND).business_date();
            }
            RecordKind::Participant => self.participant(pod_read_unaligned(payload)),
            RecordKind::Group | RecordKind::Pad => unreachable!("not an event: {kind:?}"),
        }
        std::mem::take(&mut self.out)
    }

    /// The earliest time at which time alone will change something.
    pub(super) fn next_deadline(&self) -> UtcNanos {
        self.payments
            .iter()
            .map(Payment::deadline)
            .min()
            .unwrap_or(UtcNanos::NEVER)
    }

    pub(super) fn find(&self, id: PaymentId) -> Option<usize> {
        self.payments.iter().position(|payment| payment.body.id == id)
    }

    fn first_due(&self, restart: bool) -> Option<usize> {
        let due = |payment: &Payment| payment.deadline() <= self.time && (payment.state.is_final() || !restart);
        (0..self.payments.len())
            .filter(|&nth| due(&self.payments[nth]))
            .min_by_key(|&nth| (self.payments[nth].deadline(), self.payments[nth].body.id))
    }

    /// One of each sort a payment, in the order of the events.
    pub(super) fn exception(&mut self, id: PaymentId, sort: ExceptionKind) {
        if !self.exceptions.iter().any(|item| (item.0, item.1) == (id, sort)) {
            self.exceptions.push((id, sort, self.time));
        }
    }

    pub(super) fn account(&mut self, party: ParticipantIndex, currency: Currency) -> &mut Account {
        self.members[party.index()]
            .accounts
            .get_mut(&currency.0)
            .expect("admission saw the account")
    }

    pub(super) fn take_word(&mut self, to: ParticipantIndex) -> u64 {
        let next = &mut self.members[to.index()].next_word;
        *next += 1;
        *next - 1
    }

    fn participant(&mut self, terms: ParticipantTerms) {
        let accounts = terms.accounts.iter().filter(|account| account.currency != 0);
        self.members.push(Member {
            terms,
            accounts: accounts
                .map(|account| {
                    let account_now = Account {
                        cover: Position::from(account.cover_minor),
                        cap: Position::from(account.cap_minor),
                        ..Account::default()
                    };
                    (account.currency, account_now)
                })
                .collect(),
            levels: BTreeMap::new(),
            next_word: 1,
            success: Success::default(),
        });
    }

    pub(super) fn today(&self) -> BusinessDate {
        self.time.business_date()
    }
}
