//! A journal written by hand, and what the engine says to it.

use bytemuck::{Zeroable, bytes_of};

use crate::clearing::{Engine, Event, Outlet, StateHash};
use crate::domain::{
    BindStep, BusinessDate, Code, Currency, CurrencyTerms, Direction, Kind, LinkId, ParticipantIndex, ParticipantTerms,
    PaymentId, PaymentState, Position, Role, SECOND, SchemeCode, SchemeTerms, UtcNanos, WindowId,
};
use crate::wire::{
    Answer, AnswerFlags, Effect, EffectFrame, FinalNotice, Frame, InquiryAnswer, NotSentEvent, PaymentBody, RecordKind,
    Regarding, ReplyBody, ReplyEvent, ReplyOutcome, RequestEvent, Reversal, StatusRequest, Template, TerminateCode,
    WindowAction, WindowEvent,
};

/// 2026-11-23 20:00 in Shanghai.
pub(super) const START: UtcNanos = UtcNanos(1_795_435_200 * SECOND);
pub(super) const TODAY: BusinessDate = BusinessDate(20_261_123);
pub(super) const INSTITUTION: u16 = 0;
pub(super) const BANK: u16 = 1;
pub(super) const OTHER_BANK: u16 = 2;
pub(super) const OTHER_INSTITUTION: u16 = 3;
pub(super) const CAP: u64 = 10_000;
pub(super) const MAXIMUM: u64 = 5_000;
pub(super) const REFUND_DAYS: u32 = 3;
pub(super) const HKD: Currency = Currency(344);
/// The link that institutions send from.
pub(super) const LINK: LinkId = LinkId(0x0001_0007);
/// The link that banks reply from.
pub(super) const BANK_LINK: LinkId = LinkId(0x0001_0008);

/// What the engine said, as far as claims are made about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Forward(u16),
    Answer {
        to: u16,
        code: u8,
        word: u64,
        flags: u8,
    },
    Status {
        to: u16,
        attempt: u8,
    },
    Reversal {
        to: u16,
        word: u64,
        attempt: u8,
    },
    Notice {
        to: u16,
        code: u8,
        word: u64,
        flags: u8,
    },
    Release,
    /// A half of a request that waited.
    Request(u8),
    LookUp(u64),
    Cut(TerminateCode),
}

/// A first answer, told as word `word` to [`INSTITUTION`].
pub(super) fn answer(code: Code, word: u64) -> Said {
    Said::Answer {
        to: INSTITUTION,
        code: code as u8,
        word,
        flags: 0,
    }
}

/// A stored answer, told again to [`INSTITUTION`].
pub(super) fn again(code: Code, word: u64) -> Said {
    Said::Answer {
        to: INSTITUTION,
        code: code as u8,
        word,
        flags: AnswerFlags::DUPLICATE,
    }
}

pub(super) fn status(attempt: u8) -> Said {
    Said::Status { to: BANK, attempt }
}

pub(super) fn reversal(attempt: u8) -> Said {
    Said::Reversal {
        to: BANK,
        word: 1,
        attempt,
    }
}

/// A final notice, told as word `word` to [`BANK`].
pub(super) fn notice(code: Code, word: u64) -> Said {
    Said::Notice {
        to: BANK,
        code: code as u8,
        word,
        flags: 0,
    }
}

/// Two institutions and two banks; a window of each currency is open, events are numbered, and time moves when told to.
pub(super) struct Script {
    pub(super) engine: Engine,
    pub(super) time: UtcNanos,
    /// The effects of the last event.
    pub(super) effects: Vec<Effect>,
    events: Vec<(RecordKind, UtcNanos, Vec<u64>, usize)>,
    serial: u64,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl Fn(&mut ParticipantTerms)) -> Self {
        let mut script = Self::without_windows(change);
        script.window(WindowAction::Open, Currency::CNY, WindowId::NONE);
        script.window(WindowAction::Open, HKD, WindowId::NONE);
        script
    }

    pub(super) fn without_windows(change: impl Fn(&mut ParticipantTerms)) -> Self {
        Self::under(|_| {}, change)
    }

    /// Under other terms of the scheme, and without windows.
    pub(super) fn under(of_scheme: impl Fn(&mut SchemeTerms), change: impl Fn(&mut ParticipantTerms)) -> Self {
        let mut script = Self {
            engine: Engine::new(),
            time: START,
            effects: Vec::new(),
            events: Vec::new(),
            serial: 0,
        };
        let mut scheme = SchemeTerms::zeroed();
        (scheme.resident_payments, scheme.parked_max) = (1 << 20, 64);
        scheme.participant_count = 4;
        scheme.maximum_minor = MAXIMUM;
        scheme.refund_days = REFUND_DAYS;
        scheme.currencies = [Currency::CNY.0, HKD.0, 0, 0];
        of_scheme(&mut scheme);
        script.event(RecordKind::Genesis, bytes_of(&scheme));
        for (index, role) in [
            (INSTITUTION, Role::Institution),
            (BANK, Role::Bank),
            (OTHER_BANK, Role::Bank),
            (OTHER_INSTITUTION, Role::Institution),
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
            for (account, currency) in terms.accounts.iter_mut().zip([Currency::CNY, HKD]) {
                *account = CurrencyTerms {
                    currency: currency.0,
                    reserved: [0; 14],
                    cover_minor: 2 * CAP,
                    cap_minor: CAP,
                };
            }
            change(&mut terms);
            script.event(RecordKind::Participant, bytes_of(&terms));
        }
        script
    }

    pub(super) fn event(&mut self, kind: RecordKind, payload: &[u8]) -> Vec<Said> {
        let mut words = vec![0u64; payload.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..payload.len()].copy_from_slice(payload);
        self.events.push((kind, self.time, words, payload.len()));
        self.effects.clear();
        let number = self.events.len();
        apply(&mut self.engine, number, &self.events[number - 1], &mut self.effects);
        self.effects.iter().filter_map(said).collect()
    }

    /// The hash of a second engine that is told the same events and says nothing.
    pub(super) fn replayed(&self) -> StateHash {
        self.replay_to(&mut ()).state_hash()
    }

    /// A second engine that is told the same events.
    pub(super) fn replay_to<O: Outlet>(&self, out: &mut O) -> Engine {
        let mut engine = Engine::new();
        for (number, event) in (1..).zip(&self.events) {
            apply(&mut engine, number, event, out);
        }
        engine
    }

    pub(super) fn after(&mut self, nanos: u64) -> &mut Self {
        self.time = self.time.plus(nanos);
        self
    }

    pub(super) fn after_seconds(&mut self, seconds: u64) -> &mut Self {
        self.after(seconds * SECOND)
    }

    pub(super) fn tick(&mut self) -> Vec<Said> {
        self.event(RecordKind::Tick, &[])
    }

    pub(super) fn restart(&mut self) -> Vec<Said> {
        self.event(RecordKind::Restart, &[])
    }

    pub(super) fn window(&mut self, action: WindowAction, currency: Currency, window: WindowId) {
        let event = WindowEvent::new(action, currency, window);
        let said = self.event(RecordKind::Window, bytes_of(&event));
        assert!(said.is_empty(), "a window's event says nothing: {said:?}");
    }

    /// A Debit of [`INSTITUTION`] with a new id, not sent yet.
    pub(super) fn body(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        self.serial += 1;
        let mut body = PaymentBody::zeroed();
        body.id = PaymentId::new(TODAY, ParticipantIndex(INSTITUTION), 0, self.serial);
        body.amount_minor = amount_minor;
        body.currency = Currency::CNY.0;
        body.kind = Kind::Debit as u8;
        body.scene = 1;
        body.responder = ParticipantIndex(responder);
        body
    }

    pub(super) fn send(&mut self, body: &PaymentBody) -> Vec<Said> {
        let mut event = RequestEvent::zeroed();
        event.stamp.link = LINK.0;
        event.body = *body;
        self.event(RecordKind::Request, bytes_of(&event))
    }

    /// A Debit that is accepted.
    pub(super) fn debit(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        let body = self.body(responder, amount_minor);
        assert_eq!(self.send(&body), [Said::Forward(responder)]);
        body
    }

    /// What a payment of any kind to [`BANK`] looks like: 100 where money moves, Sign where there are steps; a Refund has
    /// a committed original of its own.
    pub(super) fn body_of(&mut self, kind: Kind) -> PaymentBody {
        let original = if kind == Kind::Refund {
            let original = self.debit(BANK, 100);
            self.yes(&original);
            original.id
        } else {
            PaymentId::default()
        };
        let mut body = self.body(BANK, 100);
        (body.kind, body.original) = (kind as u8, original);
        if kind.direction() == Direction::None {
            (body.amount_minor, body.step) = (0, BindStep::Sign as u8);
        }
        body
    }

    /// A payment of any kind to [`BANK`] that is accepted.
    pub(super) fn payment(&mut self, kind: Kind) -> PaymentBody {
        let body = self.body_of(kind);
        assert_eq!(self.send(&body), [Said::Forward(BANK)], "{kind:?}");
        body
    }

    /// A Refund of `original`, not sent yet.
    pub(super) fn refund_body(&mut self, original: &PaymentBody, amount_minor: u64) -> PaymentBody {
        let mut body = self.body(original.responder.0, amount_minor);
        (body.kind, body.original) = (Kind::Refund as u8, original.id);
        body
    }

    /// A Refund of `original` that is accepted.
    pub(super) fn refund(&mut self, original: &PaymentBody, amount_minor: u64) -> PaymentBody {
        let body = self.refund_body(original, amount_minor);
        assert_eq!(self.send(&body), [Said::Forward(original.responder.0)]);
        body
    }

    /// A Debit that is committed.
    pub(super) fn committed_debit(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        let debit = self.debit(responder, amount_minor);
        self.yes(&debit);
        debit
    }

    pub(super) fn reply_body(
        &self,
        to: &PaymentBody,
        regarding: Regarding,
        outcome: ReplyOutcome,
        code: u8,
    ) -> ReplyBody {
        let mut body = ReplyBody::zeroed();
        body.id = to.id;
        body.amount_minor = to.amount_minor;
        body.currency = to.currency;
        body.regarding = regarding as u8;
        body.outcome = outcome as u8;
        body.code = code;
        body
    }

    pub(super) fn reply_by(&mut self, sender: u16, body: &ReplyBody) -> Vec<Said> {
        let mut event = ReplyEvent::zeroed();
        event.sender = sender;
        event.link = BANK_LINK.0;
        event.body = *body;
        self.event(RecordKind::Reply, bytes_of(&event))
    }

    pub(super) fn reply(
        &mut self,
        to: &PaymentBody,
        regarding: Regarding,
        outcome: ReplyOutcome,
        code: u8,
    ) -> Vec<Said> {
        let body = self.reply_body(to, regarding, outcome, code);
        self.reply_by(to.responder.0, &body)
    }

    pub(super) fn yes(&mut self, to: &PaymentBody) -> Vec<Said> {
        self.reply(to, Regarding::Request, ReplyOutcome::Yes, 0)
    }

    pub(super) fn no(&mut self, to: &PaymentBody, code: Code) -> Vec<Said> {
        self.reply(to, Regarding::Request, ReplyOutcome::No, code as u8)
    }

    pub(super) fn never_seen(&mut self, to: &PaymentBody) -> Vec<Said> {
        self.reply(to, Regarding::Status, ReplyOutcome::NeverSeen, 0)
    }

    pub(super) fn acknowledged(&mut self, to: &PaymentBody) -> Vec<Said> {
        self.reply(to, Regarding::Reversal, ReplyOutcome::Acknowledged, 0)
    }

    pub(super) fn not_sent(&mut self, to: &PaymentBody, code: Code) -> Vec<Said> {
        self.event(RecordKind::NotSent, bytes_of(&NotSentEvent::new(to.id, code)))
    }

    /// What an inquiry of the initiator says.
    pub(super) fn inquire(&self, about: &PaymentBody) -> InquiryAnswer {
        self.inquire_as(about.id.originator().0, about)
    }

    pub(super) fn inquire_as(&self, participant: u16, about: &PaymentBody) -> InquiryAnswer {
        let frame = self.engine.inquire(ParticipantIndex(participant), LINK, about.id, 77);
        let frame = frame.frame().expect("the payment is held");
        assert_eq!((frame.to.0, frame.via), (participant, LINK));
        InquiryAnswer::read(&frame.bytes)
    }

    pub(super) fn state(&self, of: &PaymentBody) -> Option<PaymentState> {
        PaymentState::from_u8(self.inquire(of).state)
    }

    pub(super) fn position(&self, participant: u16) -> Position {
        self.engine.participants[usize::from(participant)].accounts[0].position
    }

    pub(super) fn reserved(&self, participant: u16) -> Position {
        self.engine.participants[usize::from(participant)].accounts[0].reserved
    }

    pub(super) fn headroom(&self, participant: u16) -> Position {
        let account = &self.engine.participants[usize::from(participant)].accounts[0];
        account.cap - account.position - account.reserved
    }

    /// The final notice among the last event's effects.
    pub(super) fn last_notice(&self) -> FinalNotice {
        let notice = self.effects.iter().find_map(|effect| match effect {
            Effect::Frame(frame) if frame.template == Template::FinalNotice => Some(FinalNotice::read(&frame.bytes)),
            Effect::Frame(_)
            | Effect::Forward { .. }
            | Effect::Release { .. }
            | Effect::LookUp(_)
            | Effect::Request { .. }
            | Effect::Cut { .. }
            | Effect::Contract { .. }
            | Effect::Ordered { .. }
            | Effect::CoverAlarm { .. } => None,
        });
        notice.expect("the last event made a notice")
    }

    /// The answer among the last event's effects.
    pub(super) fn last_answer(&self) -> Answer {
        let answer = self.effects.iter().find_map(|effect| match effect {
            Effect::Frame(frame) if frame.template == Template::Answer => Some(Answer::read(&frame.bytes)),
            Effect::Frame(_)
            | Effect::Forward { .. }
            | Effect::Release { .. }
            | Effect::LookUp(_)
            | Effect::Request { .. }
            | Effect::Cut { .. }
            | Effect::Contract { .. }
            | Effect::Ordered { .. }
            | Effect::CoverAlarm { .. } => None,
        });
        answer.expect("the last event was answered")
    }
}

fn apply<O: crate::clearing::Outlet>(
    engine: &mut Engine,
    number: usize,
    (kind, time, words, length): &(RecordKind, UtcNanos, Vec<u64>, usize),
    out: &mut O,
) {
    let event = Event {
        kind: *kind,
        number: number as u64,
        time: *time,
        position: number as u64 * 256,
        payload: &bytemuck::cast_slice(words)[..*length],
    };
    engine.apply(&event, out);
}

/// `None` for what goes to operators: tests of orders and alarms look at the effects themselves.
fn said(effect: &Effect) -> Option<Said> {
    Some(match effect {
        Effect::Forward { responder, .. } => Said::Forward(responder.0),
        Effect::Release { .. } => Said::Release,
        Effect::Request { half, .. } => Said::Request(*half),
        Effect::LookUp(look_up) => Said::LookUp(look_up.id.serial()),
        Effect::Cut { link, code } => {
            assert_eq!(*link, BANK_LINK);
            Said::Cut(*code)
        }
        Effect::Frame(frame) => said_frame(frame),
        Effect::Contract { .. } | Effect::Ordered { .. } | Effect::CoverAlarm { .. } => return None,
    })
}

/// A frame in short.
pub(super) fn said_frame(frame: &EffectFrame) -> Said {
    let to = frame.to.0;
    match frame.template {
        Template::Answer => {
            let Answer { code, word, flags, .. } = Answer::read(&frame.bytes);
            Said::Answer { to, code, word, flags }
        }
        Template::StatusRequest => {
            let attempt = StatusRequest::read(&frame.bytes).attempt;
            Said::Status { to, attempt }
        }
        Template::Reversal => {
            let Reversal { word, attempt, .. } = Reversal::read(&frame.bytes);
            Said::Reversal { to, word, attempt }
        }
        Template::FinalNotice => {
            let FinalNotice { code, word, flags, .. } = FinalNotice::read(&frame.bytes);
            Said::Notice { to, code, word, flags }
        }
        other => panic!("the engine does not send {other:?}"),
    }
}
