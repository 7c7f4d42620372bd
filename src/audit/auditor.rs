//! Reads one event after the other and keeps the books, straight from the sentences of the rules.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytemuck::Pod;

use super::admission::{ASKS, original_of, refusal};
use super::books::{Books, NO_WINDOW, Participant, Payment, Reversal};
use super::invariant::{Finding, Invariant};
use super::invariants;
use super::orders::Proposals;
use super::recomputed::Recomputed;
use super::residency::{Residency, Waiting};
use crate::domain::{
    Code, Currency, Kind, ParticipantIndex, ParticipantTerms, PaymentId, PaymentState, Role, SchemeTerms, UtcNanos,
    WindowState,
};
use crate::wire::{
    DaySealedEvent, FindingEvent, NotSentEvent, OrderEvent, PaymentBody, RecordKind, Regarding, ReplyBody, ReplyEvent,
    ReplyOutcome, RequestEvent, WindowAction, WindowEvent, content_digest,
};

/// More findings than this say nothing new; the rest is counted.
const FINDINGS_MAX: usize = 200;

/// A deadline of a payment: T1 while it is Reserved, T2 while it is InDoubt. Ordered by (deadline, id).
type Due = Reverse<(UtcNanos, PaymentId, u32)>;

/// Reads a journal's events in order and keeps the books.
#[derive(Clone, Debug, Default)]
pub struct Auditor {
    pub(super) books: Books,
    pub(super) residency: Residency,
    pub(super) proposals: Proposals,
    /// Orders by their outcome's number.
    pub(super) orders: BTreeMap<u8, u64>,
    /// Participants that joined after Genesis.
    pub(super) joined: usize,
    deadlines: BinaryHeap<Due>,
    last_time: UtcNanos,
    last_number: u64,
    events: u64,
    unremembered: BTreeMap<u8, u64>,
    duplicates: u64,
    late_replies: u64,
    refused_replies: u64,
    conflicts: u64,
    findings: Vec<Finding>,
    findings_left_out: u64,
}

impl Auditor {
    /// An auditor with empty books.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Events read so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Takes the next event. `number` and `time` are the record's own; records that are not events are passed over.
    pub fn apply(&mut self, kind: RecordKind, number: u64, time: UtcNanos, payload: &[u8]) {
        if !kind.is_event() {
            return;
        }
        self.check_order(kind, number, time);
        // A restart moves every open deadline first, so that nothing expires before it was asked for.
        if kind != RecordKind::Restart {
            self.fire_deadlines(time);
        }
        match kind {
            RecordKind::Genesis => {
                if let Some(terms) = self.read::<SchemeTerms>(number, payload) {
                    self.genesis(number, time, terms);
                }
            }
            RecordKind::Participant => {
                if let Some(terms) = self.read::<ParticipantTerms>(number, payload) {
                    self.participant(number, terms);
                }
            }
            RecordKind::Request => {
                if let Some(event) = self.read::<RequestEvent>(number, payload) {
                    self.request(number, time, &event.body, content_digest(payload));
                }
            }
            RecordKind::Reply => {
                if let Some(event) = self.read::<ReplyEvent>(number, payload) {
                    self.reply(number, ParticipantIndex(event.sender), &event.body);
                }
            }
            RecordKind::NotSent => {
                if let Some(event) = self.read::<NotSentEvent>(number, payload) {
                    self.not_sent(number, &event);
                }
            }
            RecordKind::Restart => self.restart(time),
            RecordKind::Window => {
                if let Some(event) = self.read::<WindowEvent>(number, payload) {
                    self.window(number, time, &event);
                }
            }
            RecordKind::Finding => {
                if let Some(event) = self.read::<FindingEvent>(number, payload) {
                    self.finding(number, time, &event);
                }
            }
            RecordKind::DaySealed => {
                if let Some(event) = self.read::<DaySealedEvent>(number, payload) {
                    self.day_sealed(time, &event);
                }
            }
            RecordKind::Order => {
                if let Some(event) = self.read::<OrderEvent>(number, payload) {
                    self.order(number, time, &event);
                }
            }
            RecordKind::Tick | RecordKind::Group | RecordKind::Pad => {}
        }
    }

    /// Closes the books: checks every invariant and gives the sums.
    #[must_use]
    pub fn finish(self) -> Recomputed {
        self.finish_with_findings().0
    }

    /// As [`Auditor::finish`], with the findings by invariant.
    #[must_use]
    pub fn finish_with_findings(mut self) -> (Recomputed, Vec<Finding>) {
        match self.books.scheme {
            None => self.find("the journal has no Genesis event".to_owned()),
            Some(scheme) => {
                let found = self.books.participants.iter().flatten().count() - self.joined;
                if found != scheme.participant_count as usize {
                    self.find(format!(
                        "Genesis announces {} participants, the journal holds {found}",
                        scheme.participant_count
                    ));
                }
            }
        }
        for finding in invariants::found(&self.books) {
            self.find(finding);
        }
        if self.findings_left_out > 0 {
            self.findings
                .push(format!("and {} findings more", self.findings_left_out).into());
        }
        let mut recomputed = invariants::sums(&self.books);
        recomputed.events = self.events;
        recomputed.unremembered = self.unremembered;
        recomputed.duplicates = self.duplicates;
        recomputed.late_replies = self.late_replies;
        recomputed.refused_replies = self.refused_replies;
        recomputed.conflicts = self.conflicts;
        recomputed.orders = self.orders;
        recomputed.findings = self.findings.iter().map(ToString::to_string).collect();
        (recomputed, self.findings)
    }

    pub(super) fn find(&mut self, finding: impl Into<Finding>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding.into());
        } else {
            self.findings_left_out += 1;
        }
    }

    fn check_order(&mut self, kind: RecordKind, number: u64, time: UtcNanos) {
        if number != self.last_number + 1 {
            self.find(format!("event {number} follows event {}", self.last_number));
        }
        if time < self.last_time {
            self.find(format!(
                "event {number}: its time {} is before {}, the time of the event before",
                time.0, self.last_time.0
            ));
        }
        if self.books.scheme.is_none() && kind != RecordKind::Genesis {
            self.find(format!("event {number}: {kind:?} before Genesis"));
        }
        self.events += 1;
        self.last_number = number;
        self.last_time = self.last_time.max(time);
    }

    fn read<T: Pod>(&mut self, number: u64, payload: &[u8]) -> Option<T> {
        if payload.len() == size_of::<T>() {
            return Some(bytemuck::pod_read_unaligned(payload));
        }
        self.find(format!(
            "event {number}: a payload of {} bytes where {} belong",
            payload.len(),
            size_of::<T>()
        ));
        None
    }

    fn genesis(&mut self, number: u64, time: UtcNanos, terms: SchemeTerms) {
        if self.books.scheme.is_some() {
            self.find(format!("event {number}: a second Genesis"));
            return;
        }
        self.residency = Residency::new(terms.resident_payments, terms.parked_max, time);
        self.books.scheme = Some(terms);
    }

    fn participant(&mut self, number: u64, terms: ParticipantTerms) {
        let index = terms.index.index();
        if Role::from_u8(terms.role).is_none() {
            self.find(format!(
                "event {number}: participant {index} has the unknown role {}",
                terms.role
            ));
        }
        for expiry_ns in [terms.expiry_pull_ns, terms.expiry_push_ns] {
            if !(terms.wait_ns < terms.doubt_ns && terms.doubt_ns < expiry_ns) {
                self.find(format!(
                    "event {number}: participant {index} has Tq {} ns, T1 {} ns, T2 {expiry_ns} ns, which must rise",
                    terms.wait_ns, terms.doubt_ns
                ));
            }
        }
        if self.books.participant_ref(terms.index).is_some() {
            self.find(format!("event {number}: participant {index} a second time"));
            return;
        }
        self.books.join(Participant::new(terms));
    }

    fn request(&mut self, number: u64, time: UtcNanos, body: &PaymentBody, digest: u64) {
        let known = self.books.find(body.id);
        if self.residency.waits(body.id) {
            self.not_remembered(Code::InProgress);
        } else if self.residency.is_away(body.id, known) {
            self.request_waits(number, body.id, body, digest);
        } else if let Some(at) = known {
            self.known_request(at, digest);
        } else {
            self.new_payment(number, time, body, digest, false);
        }
    }

    pub(super) fn known_request(&mut self, at: usize, digest: u64) {
        let known = &self.books.payments[at];
        if known.digest != digest {
            self.not_remembered(Code::IdReused);
        } else if known.state.is_final() {
            self.duplicates += 1;
        } else {
            self.not_remembered(Code::InProgress);
        }
    }

    pub(super) fn not_remembered(&mut self, code: Code) {
        *self.unremembered.entry(code as u8).or_insert(0) += 1;
    }

    pub(super) fn new_payment(&mut self, number: u64, time: UtcNanos, body: &PaymentBody, digest: u64, found: bool) {
        if !time.is_open_date(body.id.date()) {
            self.not_remembered(Code::DateNotOpen);
            return;
        }
        if self.books.participant_ref(body.id.originator()).is_none() {
            self.find(format!(
                "event {number}: payment {} of a participant that is not in the directory",
                body.id
            ));
            return;
        };
        let away = !found && self.residency.is_away(body.original, self.books.find(body.original));
        let refused = refusal(&self.books, time, body, away);
        if refused == Some(ASKS) {
            self.request_waits(number, body.original, body, digest);
            return;
        }
        let Some(slot) = self.residency.free_slot(&self.books.payments) else {
            self.not_remembered(Code::NotTaken);
            return;
        };
        let (state, code, expiry) = match refused {
            Some(code) => (PaymentState::Rejected, code, UtcNanos::NEVER),
            None => {
                let expiry = time.plus(self.expiry_ns(body.responder, body.kind));
                // An open payment's code is what a repeated request is told.
                (PaymentState::Reserved, Code::InProgress, expiry)
            }
        };
        let bank = self.books.participant_ref(body.responder);
        let doubt = bank.map_or(0, |bank| bank.terms.doubt_ns);
        let at = self.books.remember(Payment {
            id: body.id,
            digest,
            amount: body.amount_minor,
            expiry,
            window: NO_WINDOW,
            responder: body.responder,
            currency: body.currency(),
            kind: body.kind,
            state,
            code,
            outcomes: u8::from(state == PaymentState::Rejected),
            contradicted: false,
        });
        self.residency.seat(slot, at);
        self.books.trace(at, time, body);
        if state == PaymentState::Reserved {
            self.deadlines.push(Reverse((time.plus(doubt), body.id, at as u32)));
            if body.kind() == Some(Kind::Refund) {
                let refund_days = self.books.scheme.map_or(0, |scheme| scheme.refund_days);
                if let Some(original) = original_of(&self.books, time, refund_days, body) {
                    self.books.refunds.entry(original as u32).or_default().push(at as u32);
                }
            }
            let admitted = self.books.reserve(at);
            if let Some(finding) = admitted.and_then(invariants::over_cap) {
                let what = format!("event {number}: payment {} was admitted: {finding}", body.id);
                self.find(Invariant::Cover.broken(what));
            }
        }
    }

    /// T2: that of a pull for a Debit, that of a push for every other kind.
    fn expiry_ns(&self, bank: ParticipantIndex, kind: u8) -> u64 {
        self.books.participant_ref(bank).map_or(0, |bank| {
            if kind == Kind::Debit as u8 {
                bank.terms.expiry_pull_ns
            } else {
                bank.terms.expiry_push_ns
            }
        })
    }

    fn reply(&mut self, number: u64, sender: ParticipantIndex, body: &ReplyBody) {
        let known = self.books.find(body.id);
        let reversal = known.and_then(|at| self.books.reversals.get(&(at as u32)));
        // Of a payment with a Reversal everything is at hand.
        let is_at_hand = reversal.is_some_and(|reversal| *reversal != Reversal::Forgotten);
        if self.residency.is_away(body.id, known) && !is_at_hand {
            // One too many is dropped.
            self.residency.park(number, body.id, Waiting::Reply(sender, *body));
        } else {
            self.word_of_bank(number, sender, body);
        }
    }

    pub(super) fn word_of_bank(&mut self, number: u64, sender: ParticipantIndex, body: &ReplyBody) {
        let entitled = self.books.find(body.id).filter(|&at| {
            let payment = &self.books.payments[at];
            payment.responder == sender
                && payment.state != PaymentState::Rejected
                && payment.amount == body.amount_minor
                && payment.currency == Currency(body.currency)
        });
        let Some(at) = entitled else {
            self.refused_replies += 1;
            return;
        };
        let (Some(regarding), Some(outcome)) =
            (Regarding::from_u8(body.regarding), ReplyOutcome::from_u8(body.outcome))
        else {
            self.refused_replies += 1;
            return;
        };
        let word = match (regarding, outcome) {
            (Regarding::Request | Regarding::Status, ReplyOutcome::Yes) => Word::Yes,
            // A no with a code that no bank may use is read as 27: the bank did say no.
            (Regarding::Request | Regarding::Status, ReplyOutcome::No) => Word::No(
                Code::from_u8(body.code)
                    .filter(|code| code.is_bank_refusal())
                    .unwrap_or(Code::BankDeclined),
            ),
            // The bank refuses that id for ever.
            (Regarding::Status, ReplyOutcome::NeverSeen) => Word::No(Code::LinkDown),
            (Regarding::Reversal, ReplyOutcome::Acknowledged) if self.books.has_reversal(at) => {
                self.books.reversals.insert(at as u32, Reversal::Acknowledged);
                return;
            }
            // What can't have been asked like this means nothing.
            (Regarding::Request, ReplyOutcome::NeverSeen | ReplyOutcome::Acknowledged)
            | (Regarding::Status, ReplyOutcome::Acknowledged)
            | (
                Regarding::Reversal,
                ReplyOutcome::Yes | ReplyOutcome::No | ReplyOutcome::NeverSeen | ReplyOutcome::Acknowledged,
            ) => {
                self.refused_replies += 1;
                return;
            }
        };
        match (self.books.payments[at].state, word) {
            (PaymentState::Reserved | PaymentState::InDoubt, Word::Yes) => self.commit(number, at),
            (PaymentState::Reserved | PaymentState::InDoubt, Word::No(code)) => {
                self.books.conclude(at, PaymentState::Declined, code);
            }
            (PaymentState::Committed, Word::No(_)) => self.contradicted(at),
            (PaymentState::Declined, Word::Yes) => {
                self.contradicted(at);
                self.books.raise_reversal_of_a_pull(at);
            }
            (PaymentState::Expired, Word::Yes) => {
                self.late_replies += 1;
                self.books.raise_reversal_of_a_pull(at);
            }
            (PaymentState::Committed, Word::Yes)
            | (PaymentState::Declined | PaymentState::Expired, Word::No(_))
            | (PaymentState::Rejected, Word::Yes | Word::No(_)) => self.late_replies += 1,
        }
    }

    /// A late word against the final state.
    fn contradicted(&mut self, at: usize) {
        self.late_replies += 1;
        self.conflicts += 1;
        self.books.payments[at].contradicted = true;
    }

    fn commit(&mut self, number: u64, at: usize) {
        let currency = self.books.payments[at].currency;
        self.books.conclude(at, PaymentState::Committed, Code::Committed);
        match self.books.open_window(currency) {
            Some(window) => self.books.post(at, window),
            None => {
                let id = self.books.payments[at].id;
                let what = format!("event {number}: payment {id} commits and no window of currency {currency} is open");
                self.find(Invariant::Windows.broken(what));
            }
        }
    }

    fn not_sent(&mut self, number: u64, event: &NotSentEvent) {
        let (Some(code @ (Code::LinkDown | Code::OverLinkCapacity)), Some(at)) =
            (Code::from_u8(event.code), self.books.find(event.id))
        else {
            self.find(format!(
                "event {number}: payment {} not sent, code {}: unknown payment or wrong code",
                event.id, event.code
            ));
            return;
        };
        if !self.books.payments[at].state.is_final() {
            self.books.conclude(at, PaymentState::Expired, code);
        }
    }

    fn fire_deadlines(&mut self, now: UtcNanos) {
        while let Some(&Reverse((deadline, id, at))) = self.deadlines.peek()
            && deadline <= now
        {
            self.deadlines.pop();
            let payment = &mut self.books.payments[at as usize];
            match payment.state {
                PaymentState::Reserved => {
                    payment.state = PaymentState::InDoubt;
                    self.deadlines.push(Reverse((payment.expiry, id, at)));
                }
                // A restart moves T2; the entry of the earlier deadline is then void.
                PaymentState::InDoubt if payment.expiry == deadline => {
                    self.books
                        .conclude(at as usize, PaymentState::Expired, Code::BankTimeout);
                    self.books.raise_reversal_of_a_pull(at as usize);
                }
                PaymentState::InDoubt
                | PaymentState::Committed
                | PaymentState::Declined
                | PaymentState::Expired
                | PaymentState::Rejected => {}
            }
        }
    }

    fn restart(&mut self, now: UtcNanos) {
        for at in 0..self.books.payments.len() {
            let payment = &self.books.payments[at];
            if payment.state.is_final() {
                continue;
            }
            let bank = self.books.participant_ref(payment.responder);
            let doubt_ns = bank.map_or(0, |bank| bank.terms.doubt_ns);
            let span = self.expiry_ns(payment.responder, payment.kind).saturating_sub(doubt_ns);
            let payment = &mut self.books.payments[at];
            payment.state = PaymentState::InDoubt;
            payment.expiry = payment.expiry.max(now.plus(span));
            self.deadlines.push(Reverse((payment.expiry, payment.id, at as u32)));
        }
    }

    fn window(&mut self, number: u64, time: UtcNanos, event: &WindowEvent) {
        let Some(action) = WindowAction::from_u8(event.action) else {
            self.find(format!("event {number}: window action {} is unknown", event.action));
            return;
        };
        let currency = Currency(event.currency);
        let is_the_schemes = self
            .books
            .scheme
            .is_some_and(|scheme| currency.0 != 0 && scheme.currencies.contains(&currency.0));
        let may_open = is_the_schemes && self.books.has_window_number(time);
        let open = self.books.open_window(currency);
        let named = self.books.windows.iter().position(|window| window.id == event.window);
        let state = named.map(|at| (at, self.books.windows[at].state));
        // An event that does not fit the window's state is ignored, as the rules say.
        match action {
            WindowAction::Open => {
                if open.is_none() && may_open {
                    self.books.open(currency, time);
                }
            }
            WindowAction::Close => {
                if let Some(at) = open
                    && may_open
                {
                    self.books.windows[at].state = WindowState::Closed;
                    self.books.open(currency, time);
                }
            }
            WindowAction::BeginSettlement => {
                if let Some((at, WindowState::Closed | WindowState::Aborted)) = state {
                    self.books.windows[at].state = WindowState::Settling;
                }
            }
            WindowAction::Settled => {
                if let Some((at, WindowState::Settling)) = state {
                    self.books.settle(at);
                }
            }
            WindowAction::Aborted => {
                if let Some((at, WindowState::Settling)) = state {
                    self.books.windows[at].state = WindowState::Aborted;
                }
            }
        }
    }
}

/// What a bank's reply comes to.
#[derive(Clone, Copy)]
enum Word {
    Yes,
    No(Code),
}
