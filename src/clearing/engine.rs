//! The engine: one event in, its effects out.

use thiserror::Error;

use super::duplicates::DuplicateIndex;
use super::figures::Figures;
use super::outbox::WordKind;
use super::participant::Participant;
use super::payment::{PaymentRecord, parties};
use super::reversal::{ReversalObject, ReversalState, Reversals};
use super::timer::{Timer, TimerKind, Timers};
use super::window::Windows;
use crate::domain::{
    Amount, Code, Currency, Kind, LinkId, ParticipantIndex, ParticipantTerms, PaymentId, PaymentSlot, PaymentState,
    Position, Role, SECOND, SchemeTerms, UtcNanos, WindowId, WindowState,
};
use crate::memory::ChunkedTable;
use crate::wire::{
    Effect, EffectFrame, Frame, FrameHeader, NotSentEvent, PaymentBody, RecordKind, Regarding, ReplyEvent,
    ReplyOutcome, RequestEvent, Reversal, StatusRequest, TerminateCode, WindowAction, WindowEvent, content_digest,
};

/// Status requests follow the first at these times after a payment came in doubt.
const STATUS_REPEATS_NS: [u64; 2] = [10 * SECOND, 40 * SECOND];
/// At most this many status requests a payment.
const STATUS_REQUESTS_MAX: u8 = 3;

/// One event as it stands in the journal.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What it is; Group and Pad are not events.
    pub kind: RecordKind,
    /// Its number, from 1 without a gap.
    pub number: u64,
    /// The sequencer's time.
    pub time: UtcNanos,
    /// Where its payload lies in the journal.
    pub position: u64,
    /// The payload, aligned to at least 8 bytes.
    pub payload: &'a [u8],
}

/// Where the engine's effects go: the ring to dispatch live, nowhere in replay.
pub trait Outlet {
    /// Takes one effect; must not refuse it.
    fn emit(&mut self, effect: Effect);

    /// False when effects are thrown away, so that they need not be built.
    fn listens(&self) -> bool {
        true
    }
}

impl Outlet for Vec<Effect> {
    fn emit(&mut self, effect: Effect) {
        self.push(effect);
    }
}

/// Replay: effects were emitted when the event was live.
impl Outlet for () {
    fn emit(&mut self, _: Effect) {}

    fn listens(&self) -> bool {
        false
    }
}

/// An invariant that does not hold: intake stops, inquiries are still answered.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Breach {
    /// Invariant 1.
    #[error("invariant 1: the net positions of window {window} sum to {sum}, not 0")]
    ZeroSum {
        /// The window.
        window: WindowId,
        /// The sum, minor units.
        sum: Position,
    },
    /// Invariant 5.
    #[error("invariant 5: participants' reservations sum to {held}, open payments to {open}")]
    Reservations {
        /// Σ reserved over participants.
        held: Position,
        /// Σ amounts of open payments.
        open: Position,
    },
}

/// The whole ledger state.
#[derive(Debug)]
pub struct Engine {
    pub(super) scheme: SchemeTerms,
    pub(super) participants: Vec<Participant>,
    pub(super) payments: ChunkedTable<PaymentRecord>,
    pub(super) index: DuplicateIndex,
    pub(super) windows: Windows,
    pub(super) timers: Timers,
    pub(super) reversals: Reversals,
    pub(super) figures: Figures,
    /// Σ amounts of open payments, kept apart from the accounts: invariant 5.
    pub(super) open_sum: Position,
    pub(super) event_number: u64,
    pub(super) time: UtcNanos,
    breach: Option<Breach>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine that has seen no event.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scheme: bytemuck::Zeroable::zeroed(),
            participants: Vec::new(),
            payments: ChunkedTable::new(false),
            index: DuplicateIndex::new(),
            windows: Windows::default(),
            timers: Timers::default(),
            reversals: Reversals::default(),
            figures: Figures::default(),
            open_sum: 0,
            event_number: 0,
            time: UtcNanos(0),
            breach: None,
        }
    }

    /// Applies the next event. Timers due at or before its time fire first.
    ///
    /// # Panics
    /// When events are not given in the order of their numbers, or money would be lost: a payment leaves a final state, a
    /// reservation falls below zero.
    pub fn apply<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        assert_eq!(
            event.number,
            self.event_number + 1,
            "events are applied in order, without a gap"
        );
        assert!(
            event.time >= self.time,
            "event {} is older than the one before it",
            event.number
        );
        self.event_number = event.number;
        self.time = event.time;
        while let Some(timer) = self.timers.pop_due(event.time, &self.payments) {
            self.fire(timer, out);
        }
        match event.kind {
            RecordKind::Request => self.request(event, out),
            RecordKind::Reply => self.reply(event, out),
            RecordKind::NotSent => self.not_sent(event, out),
            RecordKind::Tick => {}
            RecordKind::Window => self.window(event),
            RecordKind::Restart => self.restart(event.time, out),
            RecordKind::Genesis => self.genesis(event),
            RecordKind::Participant => self.participant(event),
            RecordKind::Group | RecordKind::Pad => unreachable!("not an event: {:?}", event.kind),
        }
    }

    /// The number of the last event applied.
    #[must_use]
    pub fn event_number(&self) -> u64 {
        self.event_number
    }

    /// The time of the last event applied.
    #[must_use]
    pub fn time(&self) -> UtcNanos {
        self.time
    }

    /// The counts.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The invariant that broke, if one did.
    #[must_use]
    pub fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// The earliest deadline at which a timer will change something; the sequencer journals a tick then if nothing else
    /// arrives.
    pub fn next_deadline(&mut self) -> UtcNanos {
        let reversals = &self.reversals;
        self.timers.next_deadline(&self.payments, |slot| reversals.is_due(slot))
    }

    /// True when every currency of the scheme has an open window.
    #[must_use]
    pub fn has_open_windows(&self) -> bool {
        self.scheme
            .currencies
            .iter()
            .enumerate()
            .all(|(slot, &c)| c == 0 || self.windows.is_open(slot))
    }

    // ---- events --------------------------------------------------------------------------------------------------

    fn genesis(&mut self, event: &Event<'_>) {
        assert_eq!(event.number, 1, "Genesis is the first event");
        self.scheme = bytemuck::pod_read_unaligned(event.payload);
    }

    fn participant(&mut self, event: &Event<'_>) {
        let terms: ParticipantTerms = bytemuck::pod_read_unaligned(event.payload);
        assert_eq!(
            terms.index.index(),
            self.participants.len(),
            "participants are journaled in the order of numbers"
        );
        let role = Role::from_u8(terms.role).expect("the directory was checked before it was journaled");
        let class = self.timers.doubt_class(terms.doubt_ns);
        self.participants
            .push(Participant::new(terms, role, &self.scheme.currencies, class));
    }

    fn request<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let request: &RequestEvent = bytemuck::from_bytes(event.payload);
        let body = &request.body;
        let digest = content_digest(event.payload);
        let payments = &self.payments;
        if let Some(slot) = self.index.find(body.id, |slot| payments[slot.index()].id == body.id) {
            self.repeated(slot, digest, request.link(), out);
            return;
        }
        if !event.time.is_open_date(body.id.date()) {
            self.figures.dates_not_open += 1;
            let mut record = new_record(body, digest, request.stamp.link, event.time);
            record.code = Code::DateNotOpen as u8;
            send_answer(&record, 0, Code::DateNotOpen, 0, request.link(), out);
            return;
        }
        let admission = self.admit(body);
        let slot = PaymentSlot(self.payments.len() as u32);
        let mut record = new_record(body, digest, request.stamp.link, event.time);
        self.index.insert(body.id, slot);
        match admission {
            Err(code) => {
                record.finish(PaymentState::Rejected, code, event.time, WindowId::NONE);
                self.payments.push(record);
                self.figures.rejected += 1;
                self.count_outcome(record.scene, code);
                self.tell_initiator(slot, WordKind::Answer, out);
            }
            Ok(admitted) => {
                record.currency_slot = admitted.currency_slot;
                record.expiry_or_window = event.time.plus(admitted.expiry_ns).0;
                self.payments.push(record);
                let debtor = &mut self.participants[admitted.debtor.index()];
                debtor.accounts[usize::from(admitted.currency_slot)].reserve(record.amount());
                self.open_sum += record.amount().as_position();
                self.timers.start_doubt(admitted.doubt_class, slot);
                self.figures.accepted += 1;
                self.figures.reserved += 1;
                out.emit(Effect::Forward {
                    slot,
                    responder: record.responder,
                    position: event.position,
                    accepted: event.time,
                    wait_ns: admitted.wait_ns,
                });
            }
        }
    }

    /// The rules a new payment must pass, in the order in which they are told.
    #[inline]
    fn admit(&self, body: &PaymentBody) -> Result<Admitted, Code> {
        let initiator_index = body.id.originator();
        let initiator = self
            .participants
            .get(initiator_index.index())
            .ok_or(Code::UnknownParticipant)?;
        let responder = self
            .participants
            .get(body.responder.index())
            .ok_or(Code::UnknownParticipant)?;
        if body.responder == initiator_index {
            return Err(Code::OnUs);
        }
        if !initiator.may_initiate() {
            return Err(Code::InitiatorSuspended);
        }
        if !responder.may_be_asked() {
            return Err(Code::ResponderSuspended);
        }
        let Some(kind @ Kind::Debit) = body.kind() else {
            return Err(Code::KindNotPermitted);
        };
        let roles_fit = initiator.role == Role::Institution && responder.role == Role::Bank;
        if !roles_fit || !initiator.terms.permits(kind) || !responder.terms.permits(kind) {
            return Err(Code::KindNotPermitted);
        }
        let currency_slot = self.currency_slot(body.currency()).ok_or(Code::CurrencyNotOpen)?;
        if !initiator.accounts[currency_slot].open
            || !responder.accounts[currency_slot].open
            || !self.windows.is_open(currency_slot)
        {
            return Err(Code::CurrencyNotOpen);
        }
        let amount = body.amount();
        if amount.0 == 0 {
            return Err(Code::AmountInvalid);
        }
        if amount.0 > self.scheme.maximum_minor {
            return Err(Code::OverSchemeMaximum);
        }
        let over = |limit: u64| limit != 0 && amount.0 > limit;
        if over(initiator.terms.payment_limit_minor) || over(responder.terms.payment_limit_minor) {
            return Err(Code::OverAgreedLimit);
        }
        let debtor = parties(kind, initiator_index, body.responder)
            .ok_or(Code::KindNotPermitted)?
            .debtor;
        if !self.participants[debtor.index()].accounts[currency_slot].admits(amount) {
            return Err(Code::CoverExceeded);
        }
        Ok(Admitted {
            debtor,
            currency_slot: currency_slot as u8,
            expiry_ns: responder.expiry_ns(kind),
            wait_ns: responder.terms.wait_ns,
            doubt_class: responder.doubt_class,
        })
    }

    /// A request whose id is known.
    fn repeated<O: Outlet>(&mut self, slot: PaymentSlot, digest: u64, via: LinkId, out: &mut O) {
        let payment = self.payments[slot.index()];
        if payment.digest != digest {
            self.figures.ids_reused += 1;
            send_answer(&payment, 0, Code::IdReused, 0, via, out);
        } else if payment.is_open() {
            self.figures.duplicates += 1;
            send_answer(&payment, 0, Code::InProgress, 0, via, out);
        } else {
            self.figures.duplicates += 1;
            let initiator = payment.initiator();
            let word = self.participants[initiator.index()]
                .outbox
                .push(WordKind::DuplicateAnswer, slot);
            if out.listens() {
                out.emit(Effect::Frame(EffectFrame::new(
                    initiator,
                    via,
                    &payment.stored_answer(word),
                )));
            }
        }
    }

    fn reply<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let reply: &ReplyEvent = bytemuck::from_bytes(event.payload);
        let body = &reply.body;
        let payments = &self.payments;
        let found = self.index.find(body.id, |slot| payments[slot.index()].id == body.id);
        let entitled = found.filter(|slot| {
            let payment = &payments[slot.index()];
            payment.responder.0 == reply.sender
                && payment.amount_minor == body.amount_minor
                && payment.currency == body.currency
                && payment.state != PaymentState::Rejected as u8
        });
        let (Some(slot), Some(outcome), Some(regarding)) = (
            entitled,
            ReplyOutcome::from_u8(body.outcome),
            Regarding::from_u8(body.regarding),
        ) else {
            self.figures.replies_refused += 1;
            out.emit(Effect::Cut {
                link: LinkId(reply.link),
                code: TerminateCode::ReplyNotEntitled,
            });
            return;
        };
        match (regarding, outcome) {
            (Regarding::Reversal, ReplyOutcome::Acknowledged) => {
                if let Some(reversal) = self.reversals.get_mut(slot) {
                    reversal.state = ReversalState::Acknowledged;
                }
            }
            (Regarding::Reversal, ReplyOutcome::Yes | ReplyOutcome::No | ReplyOutcome::NeverSeen)
            | (Regarding::Request | Regarding::Status, ReplyOutcome::Acknowledged) => {
                self.figures.replies_refused += 1;
                out.emit(Effect::Cut {
                    link: LinkId(reply.link),
                    code: TerminateCode::FieldInvalid,
                });
            }
            (Regarding::Request | Regarding::Status, ReplyOutcome::Yes) => self.bank_says_yes(slot, event.time, out),
            (Regarding::Request | Regarding::Status, ReplyOutcome::No) => {
                let code = Code::from_u8(body.code)
                    .filter(|c| c.is_bank_refusal())
                    .unwrap_or(Code::BankDeclined);
                self.bank_says_no(slot, code, event.time, out);
            }
            (Regarding::Request | Regarding::Status, ReplyOutcome::NeverSeen) => {
                self.bank_says_no(slot, Code::LinkDown, event.time, out);
            }
        }
    }

    fn bank_says_yes<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        let payment = self.payments[slot.index()];
        match payment.state() {
            PaymentState::Reserved | PaymentState::InDoubt => self.commit(slot, time, out),
            PaymentState::Committed => self.figures.late_words += 1,
            PaymentState::Expired => {
                self.figures.late_words += 1;
                self.make_sure_of_reversal(slot, time, out);
            }
            PaymentState::Declined => {
                self.figures.late_words += 1;
                self.figures.conflicts += 1;
                self.make_sure_of_reversal(slot, time, out);
            }
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    fn bank_says_no<O: Outlet>(&mut self, slot: PaymentSlot, code: Code, time: UtcNanos, out: &mut O) {
        match self.payments[slot.index()].state() {
            PaymentState::Reserved | PaymentState::InDoubt => {
                self.close_without_money(slot, PaymentState::Declined, code, time, out);
            }
            PaymentState::Committed => {
                self.figures.late_words += 1;
                self.figures.conflicts += 1;
            }
            PaymentState::Declined | PaymentState::Expired => self.figures.late_words += 1,
            PaymentState::Rejected => unreachable!("a reply to a rejected payment is refused before"),
        }
    }

    fn not_sent<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let not_sent: &NotSentEvent = bytemuck::from_bytes(event.payload);
        let payments = &self.payments;
        let Some(slot) = self
            .index
            .find(not_sent.id, |slot| payments[slot.index()].id == not_sent.id)
        else {
            return;
        };
        if self.payments[slot.index()].is_open() {
            let code = Code::from_u8(not_sent.code).unwrap_or(Code::SwitchError);
            self.close_without_money(slot, PaymentState::Expired, code, event.time, out);
        }
    }

    fn window(&mut self, event: &Event<'_>) {
        let window: &WindowEvent = bytemuck::from_bytes(event.payload);
        let Some(action) = WindowAction::from_u8(window.action) else {
            return;
        };
        match action {
            WindowAction::Open | WindowAction::Close => {
                let Some(currency_slot) = self.currency_slot(Currency(window.currency)) else {
                    return;
                };
                if action == WindowAction::Open && self.windows.is_open(currency_slot) {
                    return;
                }
                if let Some(closed) = self.windows.close(currency_slot, event.time) {
                    let sum: Position = closed.nets.iter().sum();
                    let breach = (sum != 0).then_some(Breach::ZeroSum { window: closed.id, sum });
                    self.breach = self.breach.take().or(breach);
                    self.check_reservations();
                }
                self.windows
                    .open(window.currency, currency_slot, event.time, self.participants.len());
            }
            WindowAction::BeginSettlement => self.move_window(
                window.window,
                &[WindowState::Closed, WindowState::Aborted],
                WindowState::Settling,
            ),
            WindowAction::Aborted => self.move_window(window.window, &[WindowState::Settling], WindowState::Aborted),
            WindowAction::Settled => self.settle(window.window),
        }
    }

    fn restart<O: Outlet>(&mut self, time: UtcNanos, out: &mut O) {
        self.timers.clear_payment_timers();
        if self.figures.open() == 0 {
            return;
        }
        for index in 0..self.payments.len() {
            let slot = PaymentSlot(index as u32);
            let payment = self.payments[index];
            if !payment.is_open() {
                continue;
            }
            let responder = &self.participants[payment.responder.index()];
            let kind = Kind::from_u8(payment.kind).expect("an open payment's kind was checked at admission");
            let ladder_ns = responder.expiry_ns(kind) - responder.terms.doubt_ns;
            let expiry = payment.expiry().max(time.plus(ladder_ns));
            let record = &mut self.payments[index];
            record.expiry_or_window = expiry.0;
            record.attempts = 0;
            self.enter_doubt(slot, time, out);
        }
    }

    // ---- timers --------------------------------------------------------------------------------------------------

    fn fire<O: Outlet>(&mut self, timer: Timer, out: &mut O) {
        let slot = timer.slot;
        let payment = self.payments[slot.index()];
        match timer.kind {
            TimerKind::Doubt => {
                if payment.state == PaymentState::Reserved as u8 {
                    self.enter_doubt(slot, timer.deadline, out);
                }
            }
            TimerKind::Status => {
                if payment.state == PaymentState::InDoubt as u8 && timer.deadline < payment.expiry() {
                    self.ask_status(slot, out);
                }
            }
            TimerKind::Expiry => {
                if payment.state == PaymentState::InDoubt as u8 && payment.expiry() <= timer.deadline {
                    self.close_without_money(slot, PaymentState::Expired, Code::BankTimeout, timer.deadline, out);
                    if Kind::from_u8(payment.kind) == Some(Kind::Debit) {
                        self.make_sure_of_reversal(slot, timer.deadline, out);
                    }
                }
            }
            TimerKind::Reversal => {
                if self.reversals.is_due(slot) {
                    self.send_reversal(slot, timer.deadline, out);
                }
            }
        }
    }

    /// Reserved → InDoubt (or asked anew after a restart): the reservation is kept and the bank is asked.
    fn enter_doubt<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        let payment = &mut self.payments[slot.index()];
        if payment.state == PaymentState::Reserved as u8 {
            payment.state = PaymentState::InDoubt as u8;
            self.figures.reserved -= 1;
            self.figures.in_doubt += 1;
        }
        let (id, expiry) = (payment.id, payment.expiry());
        self.ask_status(slot, out);
        for repeat_ns in STATUS_REPEATS_NS {
            let deadline = time.plus(repeat_ns);
            if deadline < expiry {
                self.timers.start(Timer {
                    deadline,
                    id,
                    kind: TimerKind::Status,
                    slot,
                });
            }
        }
        self.timers.start(Timer {
            deadline: expiry,
            id,
            kind: TimerKind::Expiry,
            slot,
        });
    }

    fn ask_status<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        let payment = &mut self.payments[slot.index()];
        if payment.attempts >= STATUS_REQUESTS_MAX {
            return;
        }
        payment.attempts += 1;
        self.figures.status_requests += 1;
        let request = StatusRequest {
            header: FrameHeader::new(StatusRequest::TEMPLATE, size_of::<StatusRequest>()),
            id: payment.id,
            amount_minor: payment.amount_minor,
            currency: payment.currency,
            kind: payment.kind,
            attempt: payment.attempts,
            initiator: payment.initiator(),
            reserved: [0; 2],
            accepted_ns: payment.time_ns,
            reserved2: 0,
        };
        out.emit(Effect::Frame(EffectFrame::new(
            payment.responder,
            LinkId::NONE,
            &request,
        )));
    }

    fn make_sure_of_reversal<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        match self.reversals.get_mut(slot) {
            Some(reversal) if reversal.state == ReversalState::Due => return,
            Some(reversal) => {
                (reversal.state, reversal.raised) = (ReversalState::Due, time);
            }
            None => {
                let bank = self.payments[slot.index()].responder;
                let word = self.participants[bank.index()].outbox.push(WordKind::Reversal, slot);
                let reversal = ReversalObject {
                    state: ReversalState::Due,
                    attempts: 0,
                    raised: time,
                    word,
                };
                self.reversals.insert(slot, reversal);
            }
        }
        self.send_reversal(slot, time, out);
    }

    fn send_reversal<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        let payment = self.payments[slot.index()];
        let Some(reversal) = self.reversals.get_mut(slot) else {
            return;
        };
        let repeated = reversal.attempts > 0;
        let Some(next) = reversal.attempt(time) else { return };
        let frame = reversal_frame(&payment, reversal, repeated);
        self.timers.start(Timer {
            deadline: next,
            id: payment.id,
            kind: TimerKind::Reversal,
            slot,
        });
        out.emit(Effect::Frame(EffectFrame::new(payment.responder, LinkId::NONE, &frame)));
    }

    // ---- final states --------------------------------------------------------------------------------------------

    /// One step: release, post, stamp the window, answer.
    fn commit<O: Outlet>(&mut self, slot: PaymentSlot, time: UtcNanos, out: &mut O) {
        self.release(slot, out);
        let payment = &mut self.payments[slot.index()];
        let currency_slot = usize::from(payment.currency_slot);
        let amount = payment.amount().as_position();
        let window = self
            .windows
            .open_mut(currency_slot)
            .unwrap_or_else(|| panic!("payment {} commits and its currency has no open window", payment.id));
        payment.finish(PaymentState::Committed, Code::Committed, time, window.id);
        if let Some(parties) = payment.parties() {
            window.post(parties.debtor, parties.creditor, amount);
            self.participants[parties.debtor.index()].accounts[currency_slot].position += amount;
            self.participants[parties.creditor.index()].accounts[currency_slot].position -= amount;
        }
        let scene = payment.scene;
        self.figures.committed += 1;
        self.count_outcome(scene, Code::Committed);
        self.tell_initiator(slot, WordKind::Answer, out);
    }

    /// Declined or Expired: release, answer.
    fn close_without_money<O: Outlet>(
        &mut self,
        slot: PaymentSlot,
        state: PaymentState,
        code: Code,
        time: UtcNanos,
        out: &mut O,
    ) {
        self.release(slot, out);
        let payment = &mut self.payments[slot.index()];
        payment.finish(state, code, time, WindowId::NONE);
        let scene = payment.scene;
        match state {
            PaymentState::Declined => self.figures.declined += 1,
            PaymentState::Expired => self.figures.expired += 1,
            PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Committed | PaymentState::Rejected => {
                unreachable!("closed without money as {state:?}")
            }
        }
        self.count_outcome(scene, code);
        self.tell_initiator(slot, WordKind::Answer, out);
    }

    /// Gives back the reservation and the place on the bank's link of an open payment.
    #[inline]
    fn release<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        let payment = &self.payments[slot.index()];
        if let Some(parties) = payment.parties() {
            let account = &mut self.participants[parties.debtor.index()].accounts[usize::from(payment.currency_slot)];
            account.release(payment.amount());
            self.open_sum -= payment.amount().as_position();
        }
        if payment.state == PaymentState::Reserved as u8 {
            self.figures.reserved -= 1;
        } else {
            self.figures.in_doubt -= 1;
        }
        out.emit(Effect::Release { slot });
    }

    #[inline]
    fn tell_initiator<O: Outlet>(&mut self, slot: PaymentSlot, kind: WordKind, out: &mut O) {
        let payment = &self.payments[slot.index()];
        let initiator = payment.initiator();
        // An originator outside the directory has no session and no outbox.
        let Some(participant) = self.participants.get_mut(initiator.index()) else {
            return;
        };
        let word = participant.outbox.push(kind, slot);
        if out.listens() {
            let answer = payment.answer(word, payment.code, 0);
            out.emit(Effect::Frame(EffectFrame::new(initiator, payment.link(), &answer)));
        }
    }

    fn count_outcome(&mut self, scene: u8, code: Code) {
        self.figures.by_code[code as usize] += 1;
        let scene = &mut self.figures.by_scene[usize::from(scene & 7)];
        scene[0] += 1;
        scene[1] += u64::from(code == Code::Committed);
    }

    // ---- windows -------------------------------------------------------------------------------------------------

    fn move_window(&mut self, id: WindowId, from: &[WindowState], to: WindowState) {
        if let Some(window) = self.windows.find_mut(id)
            && from.contains(&window.state)
        {
            window.state = to;
        }
    }

    /// Position, cover and cap each fall by the window's net, so that settlement never changes headroom.
    fn settle(&mut self, id: WindowId) {
        let Some(window) = self.windows.find_mut(id) else {
            return;
        };
        if window.state != WindowState::Settling {
            return;
        }
        window.state = WindowState::Settled;
        let currency_slot = usize::from(window.currency_slot);
        for (participant, net) in self.participants.iter_mut().zip(&window.nets) {
            let account = &mut participant.accounts[currency_slot];
            account.position -= net;
            account.cover -= net;
            account.cap -= net;
        }
    }

    fn check_reservations(&mut self) {
        let held = self
            .participants
            .iter()
            .flat_map(|p| &p.accounts)
            .map(|a| a.reserved)
            .sum();
        if held != self.open_sum && self.breach.is_none() {
            self.breach = Some(Breach::Reservations {
                held,
                open: self.open_sum,
            });
        }
    }

    #[inline]
    fn currency_slot(&self, currency: Currency) -> Option<usize> {
        self.scheme.currencies.iter().position(|&c| c == currency.0 && c != 0)
    }
}

/// What admission found out about an accepted payment.
struct Admitted {
    debtor: ParticipantIndex,
    currency_slot: u8,
    expiry_ns: u64,
    wait_ns: u64,
    doubt_class: usize,
}

#[inline]
fn new_record(body: &PaymentBody, digest: u64, link: u32, time: UtcNanos) -> PaymentRecord {
    PaymentRecord {
        id: body.id,
        digest,
        amount_minor: body.amount_minor,
        time_ns: time.0,
        expiry_or_window: 0,
        link,
        responder: body.responder,
        currency: body.currency,
        kind: body.kind,
        scene: body.scene,
        state: PaymentState::Reserved as u8,
        code: Code::InProgress as u8,
        attempts: 0,
        currency_slot: 0,
        reserved: [0; 2],
    }
}

/// An unnumbered answer, by the link that asked.
fn send_answer<O: Outlet>(payment: &PaymentRecord, word: u64, code: Code, flags: u8, via: LinkId, out: &mut O) {
    let mut answer = payment.answer(word, code as u8, flags);
    if code == Code::DateNotOpen || code == Code::IdReused {
        (answer.state, answer.window, answer.final_ns) = (0, WindowId::NONE, 0);
    }
    out.emit(Effect::Frame(EffectFrame::new(payment.id.originator(), via, &answer)));
}

/// A Reversal as a frame.
pub(super) fn reversal_frame(payment: &PaymentRecord, reversal: &ReversalObject, repeated: bool) -> Reversal {
    Reversal {
        header: FrameHeader::new(Reversal::TEMPLATE, size_of::<Reversal>()),
        id: payment.id,
        word: reversal.word,
        amount_minor: payment.amount_minor,
        currency: payment.currency,
        kind: payment.kind,
        attempt: reversal.attempts,
        initiator: payment.initiator(),
        flags: if repeated {
            crate::wire::AnswerFlags::RETRANSMITTED
        } else {
            0
        },
        reserved: 0,
        raised_ns: reversal.raised.0,
        reserved2: [0; 2],
    }
}

impl Engine {
    /// The payment with this id.
    pub(super) fn find(&self, id: PaymentId) -> Option<(PaymentSlot, &PaymentRecord)> {
        let slot = self.index.find(id, |slot| self.payments[slot.index()].id == id)?;
        Some((slot, &self.payments[slot.index()]))
    }

    /// Amount, for messages.
    #[must_use]
    pub fn reserved_sum(&self) -> Position {
        self.open_sum
    }

    /// The largest amount the scheme allows.
    #[must_use]
    pub fn scheme_maximum(&self) -> Amount {
        Amount(self.scheme.maximum_minor)
    }
}
