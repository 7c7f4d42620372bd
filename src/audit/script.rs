//! A journal written by hand: one institution, two banks, events numbered and timed as told. For tests.

use super::{Auditor, Recomputed};
use crate::domain::{
    BusinessDate, Code, Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, PaymentId, Role, SECOND,
    SchemeCode, SchemeTerms, UtcNanos, WindowId,
};
use crate::wire::{
    NotSentEvent, OrderEvent, PaymentBody, RecordKind, Regarding, ReplyBody, ReplyEvent, ReplyOutcome, RequestEvent,
    WindowAction, WindowEvent,
};
use bytemuck::{Zeroable, bytes_of};

/// 2026-11-23 20:00 in Shanghai.
pub(super) const NOON: UtcNanos = UtcNanos(1_795_435_200 * SECOND);
pub(super) const TODAY: BusinessDate = BusinessDate(20_261_123);
pub(super) const INSTITUTION: u16 = 0;
pub(super) const BANK: u16 = 1;
pub(super) const OTHER_BANK: u16 = 2;
pub(super) const CAP: u64 = 10_000;

/// Writes a journal by hand: numbers events, and moves time only when told to.
pub(super) struct Script {
    pub(super) auditor: Auditor,
    pub(super) number: u64,
    pub(super) time: UtcNanos,
    /// All events so far.
    pub(super) events: Vec<(RecordKind, UtcNanos, Vec<u8>)>,
    serial: u64,
}

impl Script {
    /// One institution and two banks, a window open.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl Fn(&mut ParticipantTerms)) -> Self {
        let mut script = Self {
            auditor: Auditor::new(),
            number: 0,
            time: NOON,
            events: Vec::new(),
            serial: 0,
        };
        let mut scheme = SchemeTerms::zeroed();
        (scheme.resident_payments, scheme.parked_max) = (1 << 20, 64);
        scheme.participant_count = 3;
        scheme.maximum_minor = 5_000;
        scheme.refund_days = 1;
        scheme.currencies = [156, 344, 0, 0];
        script.event(RecordKind::Genesis, bytes_of(&scheme));
        for (index, role) in [
            (INSTITUTION, Role::Institution),
            (BANK, Role::Bank),
            (OTHER_BANK, Role::Bank),
        ] {
            let mut terms = ParticipantTerms::zeroed();
            terms.index = ParticipantIndex(index);
            terms.code = SchemeCode([b'A' + index as u8; 14]);
            terms.role = role as u8;
            terms.permitted_kinds = Kind::ALL.iter().fold(0, |mask, kind| mask | kind.bit());
            terms.wait_ns = SECOND;
            terms.doubt_ns = 5 * SECOND;
            terms.expiry_pull_ns = 60 * SECOND;
            terms.expiry_push_ns = 20 * SECOND;
            terms.accounts[0] = CurrencyTerms {
                currency: 156,
                reserved: [0; 14],
                cover_minor: 2 * CAP,
                cap_minor: CAP,
            };
            change(&mut terms);
            script.event(RecordKind::Participant, bytes_of(&terms));
        }
        script.window(WindowAction::Open, WindowId::NONE);
        script
    }

    pub(super) fn event(&mut self, kind: RecordKind, payload: &[u8]) {
        self.number += 1;
        self.events.push((kind, self.time, payload.to_vec()));
        self.auditor.apply(kind, self.number, self.time, payload);
    }

    pub(super) fn after(&mut self, seconds: u64) -> &mut Self {
        self.time = self.time.plus(seconds * SECOND);
        self
    }

    pub(super) fn tick(&mut self) {
        self.event(RecordKind::Tick, &[]);
    }

    pub(super) fn window(&mut self, action: WindowAction, window: WindowId) {
        self.event(
            RecordKind::Window,
            bytes_of(&WindowEvent::new(action, Currency::CNY, window)),
        );
    }

    pub(super) fn body(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        self.serial += 1;
        let mut body = PaymentBody::zeroed();
        body.id = PaymentId::new(TODAY, ParticipantIndex(INSTITUTION), 0, self.serial);
        body.amount_minor = amount_minor;
        body.currency = 156;
        body.kind = Kind::Debit as u8;
        body.scene = 1;
        body.responder = ParticipantIndex(responder);
        body
    }

    pub(super) fn send(&mut self, body: PaymentBody) -> PaymentBody {
        let mut event = RequestEvent::zeroed();
        event.body = body;
        self.event(RecordKind::Request, bytes_of(&event));
        body
    }

    pub(super) fn debit(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        let body = self.body(responder, amount_minor);
        self.send(body)
    }

    /// A payment of any kind but Refund, sent; a step is Sign.
    pub(super) fn payment(&mut self, kind: Kind, amount_minor: u64) -> PaymentBody {
        let mut body = self.body(BANK, amount_minor);
        body.kind = kind as u8;
        body.step = if amount_minor == 0 { 2 } else { 0 };
        self.send(body)
    }

    /// A Refund of `original`, sent.
    pub(super) fn refund(&mut self, original: &PaymentBody, amount_minor: u64) -> PaymentBody {
        let mut body = self.body(original.responder.0, amount_minor);
        (body.kind, body.original) = (Kind::Refund as u8, original.id);
        self.send(body)
    }

    /// A Debit that commits.
    pub(super) fn committed(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        let payment = self.debit(responder, amount_minor);
        self.yes(&payment);
        payment
    }

    pub(super) fn refused(&mut self, code: Code, change: impl FnOnce(&mut PaymentBody)) {
        let mut body = self.body(BANK, 100);
        change(&mut body);
        self.send(body);
        let sums = self.sums();
        assert_eq!(sums.by_code.get(&(code as u8)), Some(&1), "{code:?}: {sums:?}");
        assert_eq!((sums.payments.rejected, sums.payments.accepted), (1, 0));
    }

    pub(super) fn reply(&mut self, to: &PaymentBody, regarding: Regarding, outcome: ReplyOutcome, code: u8) {
        self.reply_of(to, to.responder.0, regarding, outcome, code);
    }

    pub(super) fn reply_of(
        &mut self,
        to: &PaymentBody,
        sender: u16,
        regarding: Regarding,
        outcome: ReplyOutcome,
        code: u8,
    ) {
        let mut body = ReplyBody::zeroed();
        body.id = to.id;
        body.amount_minor = to.amount_minor;
        body.currency = to.currency;
        body.regarding = regarding as u8;
        body.outcome = outcome as u8;
        body.code = code;
        let mut event = ReplyEvent::zeroed();
        event.sender = sender;
        event.body = body;
        self.event(RecordKind::Reply, bytes_of(&event));
    }

    pub(super) fn yes(&mut self, to: &PaymentBody) {
        self.reply(to, Regarding::Request, ReplyOutcome::Yes, 0);
    }

    pub(super) fn no(&mut self, to: &PaymentBody, code: Code) {
        self.reply(to, Regarding::Request, ReplyOutcome::No, code as u8);
    }

    pub(super) fn not_sent(&mut self, to: &PaymentBody, code: Code) {
        self.event(RecordKind::NotSent, bytes_of(&NotSentEvent::new(to.id, code)));
    }

    /// An operator's order.
    pub(super) fn order(&mut self, order: &OrderEvent) {
        self.event(RecordKind::Order, bytes_of(order));
    }

    /// The sums so far, findings and all.
    pub(super) fn sums(&self) -> Recomputed {
        self.auditor.clone().finish()
    }

    /// The sums so far; nothing may be wrong.
    pub(super) fn clean(&self) -> Recomputed {
        let sums = self.sums();
        assert_eq!(sums.findings, Vec::<String>::new());
        assert!(sums.is_clean() && sums.is_zero_sum());
        sums
    }
}
