//! One journal, two readings of it, and everything that must hold between them.

use std::collections::BTreeMap;

use bytemuck::{Zeroable, bytes_of};
use clearway::audit::Auditor;
use clearway::clearing::{Engine, Event, LedgerSnapshot, Outlet};
use clearway::domain::{
    BindStep, Code, Currency, Direction, Kind, LinkId, MILLISECOND, ParticipantIndex, PaymentId, Position, SECOND,
    SchemeCode, UtcNanos, WindowId, WindowState,
};
use clearway::wire::{
    Answer, AnswerFlags, DaySealedEvent, Effect, FinalNotice, Frame, NotSentEvent, OrderAction, OrderEvent, OrderStep,
    PaymentBody, RecordKind, ReplyBody, ReplyEvent, ReplyOutcome, RequestEvent, RequestFlags, Reversal, Template,
    WindowAction, WindowEvent,
};

use crate::acts::{Act, Change, DAY_NS, Flaw, RefundFlaw, Share};
use crate::directory::{HKD, JOINING_MAX, PARTICIPANTS, USD, participant as terms_of, scheme};
use crate::register::{Heard, Register};
use crate::told::Told;

/// 23:50 in Shanghai: ten minutes before the business date turns.
const EVENING: UtcNanos = UtcNanos(1_795_449_000 * SECOND);
pub(crate) const LINK: LinkId = LinkId(0x0001_0007);

/// An event as it stands in the journal; the payload in words, so that it is aligned.
pub(crate) struct Record {
    kind: RecordKind,
    time: UtcNanos,
    words: Vec<u64>,
    length: usize,
}

impl Record {
    fn apply<O: Outlet>(&self, number: u64, engine: &mut Engine, out: &mut O) {
        let event = Event {
            kind: self.kind,
            number,
            time: self.time,
            position: number * 256,
            payload: &bytemuck::cast_slice(&self.words)[..self.length],
        };
        engine.apply(&event, out);
    }
}
/// The same events for both, and what both make of them.
pub(crate) struct Ledgers {
    pub(crate) engine: Engine,
    pub(crate) auditor: Auditor,
    pub(crate) journal: Vec<Record>,
    pub(crate) time: UtcNanos,
    sent: Vec<PaymentBody>,
    pub(crate) told: Told,
    pub(crate) register: Register,
    /// The event that waited and goes on now.
    resumed: Option<u64>,
    token_due: Option<(PaymentId, [u64; 2])>,
}

impl Ledgers {
    fn new() -> Self {
        let mut ledgers = Self {
            engine: Engine::new(),
            auditor: Auditor::new(),
            journal: Vec::new(),
            time: EVENING,
            sent: Vec::new(),
            told: Told::default(),
            register: Register::default(),
            resumed: None,
            token_due: None,
        };
        ledgers.event(RecordKind::Genesis, bytes_of(&scheme()));
        for index in 0..PARTICIPANTS {
            ledgers.event(RecordKind::Participant, bytes_of(&terms_of(index)));
        }
        // The second currency's first window is left to the acts.
        ledgers.window(WindowAction::Open, Currency::CNY, WindowId::NONE);
        ledgers
    }

    pub(crate) fn play(acts: &[Act]) -> Self {
        let mut ledgers = Self::new();
        for act in acts {
            ledgers.act(act);
        }
        ledgers
    }

    fn event(&mut self, kind: RecordKind, payload: &[u8]) {
        let mut words = vec![0u64; payload.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..payload.len()].copy_from_slice(payload);
        let record = Record {
            kind,
            time: self.time,
            words,
            length: payload.len(),
        };
        let number = self.journal.len() as u64 + 1;
        let before = self.engine.snapshot();
        if kind == RecordKind::Restart {
            // What waits is asked for again.
            self.register.asked.clear();
        }
        let mut heard = Heard {
            effects: Vec::new(),
            register: &mut self.register,
        };
        record.apply(number, &mut self.engine, &mut heard);
        let effects = heard.effects;
        self.auditor.apply(kind, number, self.time, payload);
        self.journal.push(record);
        let after = self.engine.snapshot();
        self.listen(number, &effects, &after);
        self.token_due = None;
        self.check(&after);
        if kind == RecordKind::Window {
            check_headroom(&before, &after);
        }
    }

    fn listen(&mut self, number: u64, effects: &[Effect], after: &LedgerSnapshot) {
        for (at, effect) in effects.iter().enumerate() {
            match effect {
                Effect::Forward {
                    slot,
                    responder,
                    position,
                    accepted,
                    ..
                } => {
                    assert_eq!(*accepted, self.time);
                    let asked_by = match self.resumed {
                        Some(event) => {
                            assert_eq!(*position, Effect::REQUEST_GIVEN);
                            event
                        }
                        None => {
                            assert_eq!(*position, number * 256);
                            number
                        }
                    };
                    let body = self.register.requests.get(&asked_by);
                    let body = body.expect("only a request is forwarded");
                    assert_eq!(*responder, body.responder);
                    assert!(
                        self.told.bodies.insert(body.id, *body).is_none(),
                        "{} forwarded twice",
                        body.id
                    );
                    if self.told.released.remove(&slot.0) {
                        self.told.forwarded.remove(&slot.0);
                    }
                    assert_eq!(self.told.forwarded.insert(slot.0, body.id), None, "slot {}", slot.0);
                    let debtor = match body.kind().map(Kind::direction) {
                        Some(Direction::Pull) => Some(body.responder),
                        Some(Direction::Push) => Some(body.id.originator()),
                        Some(Direction::None) => None,
                        None => panic!("{body:?} was admitted"),
                    };
                    if let Some(debtor) = debtor.map(|debtor| &after.participants[debtor.index()]) {
                        assert!(
                            body.currency != Currency::CNY.0 || debtor.position + debtor.reserved <= debtor.cap,
                            "{} was admitted: {debtor:?}",
                            body.id
                        );
                    }
                }
                Effect::Release { slot } => {
                    assert!(
                        self.told.forwarded.contains_key(&slot.0),
                        "slot {} was never given",
                        slot.0
                    );
                    assert!(self.told.released.insert(slot.0), "slot {} released twice", slot.0);
                }
                Effect::Frame(frame) => match frame.template {
                    Template::Answer => {
                        let answer = Answer::read(&frame.bytes);
                        if let Some((id, token)) = self.token_due
                            && answer.id == id
                            && (answer.code, answer.flags) == (Code::Committed as u8, 0)
                        {
                            self.told.tokens.insert(id, token);
                        }
                        self.told.answer(frame, &answer);
                        let is_pull = answer.kind == Kind::Debit as u8;
                        let expired = is_pull && answer.code == Code::BankTimeout as u8 && answer.flags == 0;
                        assert!(
                            !expired || effects[at..].iter().any(|effect| is_reversal_of(effect, answer.id)),
                            "{} expired and no Reversal is due",
                            answer.id
                        );
                    }
                    Template::Reversal => {
                        let reversal = Reversal::read(&frame.bytes);
                        if reversal.flags & AnswerFlags::RETRANSMITTED == 0 {
                            self.told.word(frame, reversal.word);
                        }
                    }
                    Template::FinalNotice => {
                        self.told.notice(frame);
                        let id = FinalNotice::read(&frame.bytes).id;
                        assert!(
                            at > 0 && is_answer_to(&effects[at - 1], id),
                            "the notice of {id} does not follow its initiator's answer"
                        );
                    }
                    Template::StatusRequest => {}
                    other => panic!("the engine does not send {other:?}"),
                },
                Effect::Request { .. }
                | Effect::LookUp(_)
                | Effect::Cut { .. }
                | Effect::Contract { .. }
                | Effect::Ordered { .. }
                | Effect::CoverAlarm { .. } => {}
            }
        }
    }

    /// What must hold after every event.
    fn check(&self, after: &LedgerSnapshot) {
        assert_eq!(self.engine.breach(), None);
        let figures = self.engine.figures();
        let mut positions = vec![0; after.participants.len()];
        let mut open = BTreeMap::new();
        for window in &after.windows {
            let sum: Position = window.nets.iter().map(|(_, net)| net).sum();
            assert_eq!(sum, 0, "the nets of {window:?}");
            *open.entry(window.currency).or_insert(0) += u32::from(window.state == WindowState::Open);
            if window.state != WindowState::Settled && window.currency == Currency::CNY.0 {
                for (participant, net) in &window.nets {
                    positions[participant.index()] += net;
                }
            }
        }
        assert!(open.values().all(|&count| count == 1), "open windows: {open:?}");
        let held: Vec<Position> = after.participants.iter().map(|p| p.position).collect();
        assert_eq!(held, positions, "positions are the nets of the windows not settled");
        let in_windows: u64 = after.windows.iter().map(|window| window.committed).sum();
        assert_eq!(in_windows, figures.committed);
        let finals = figures.committed + figures.declined + figures.expired + figures.rejected;
        assert_eq!(
            self.told.answered.len() as u64,
            finals,
            "each final payment was answered"
        );
        let places = self.told.forwarded.len() - self.told.released.len();
        assert_eq!(
            places as u64,
            figures.open(),
            "each open payment holds a place, and no other does"
        );
        assert_eq!(figures.accepted, self.told.bodies.len() as u64);
    }

    fn request(&mut self, body: PaymentBody) {
        self.sent.push(body);
        let mut event = RequestEvent::zeroed();
        event.stamp.link = LINK.0;
        event.body = body;
        self.register.requests.insert(self.journal.len() as u64 + 1, body);
        self.event(RecordKind::Request, bytes_of(&event));
    }

    fn window(&mut self, action: WindowAction, currency: Currency, window: WindowId) {
        self.event(
            RecordKind::Window,
            bytes_of(&WindowEvent::new(action, currency, window)),
        );
    }

    fn refund_of(&self, original: &PaymentBody, share: Share, flaw: RefundFlaw) -> PaymentBody {
        let (date, serial) = (self.time.business_date(), self.journal.len() as u64);
        let mut body = *original;
        body.id = PaymentId::new(date, original.id.originator(), 0, serial);
        (body.kind, body.step, body.original) = (Kind::Refund as u8, 0, original.id);
        body.amount_minor = match share {
            Share::Full => original.amount_minor,
            Share::Half => original.amount_minor.div_ceil(2),
            Share::TooMuch => original.amount_minor + 1,
        };
        match flaw {
            RefundFlaw::None => {}
            RefundFlaw::Initiator => {
                let other = (original.id.originator().0 + 1) % PARTICIPANTS;
                body.id = PaymentId::new(date, ParticipantIndex(other), 0, serial);
            }
            RefundFlaw::Responder => body.responder.0 = 2 + (body.responder.0 + 2) % 3,
            RefundFlaw::Currency => body.currency = if body.currency == HKD.0 { 156 } else { HKD.0 },
            RefundFlaw::Original => body.original.low += 1 << 40,
        }
        body
    }

    /// What the initiator must be given if this reply commits a Bind's Sign. Whether it does is seen in the effects.
    fn note_token(&mut self, reply: &ReplyEvent) {
        if let Some(body) = self.told.bodies.get(&reply.body.id)
            && (body.kind, body.step) == (Kind::Bind as u8, BindStep::Sign as u8)
            && reply.body.outcome == ReplyOutcome::Yes as u8
            && !self.told.answered.contains_key(&body.id)
        {
            self.token_due = Some((body.id, reply.body.token));
        }
    }

    fn nth(&self, nth: usize) -> Option<PaymentBody> {
        (!self.sent.is_empty()).then(|| self.sent[nth % self.sent.len()])
    }

    /// The register answers what it was asked.
    fn answer_look_ups(&mut self) {
        while let Some(look_up) = self.register.asked.pop() {
            let finding = self.register.finding(look_up);
            self.resumed = Some(look_up.event);
            self.event(RecordKind::Finding, bytes_of(&finding));
            self.resumed = None;
        }
    }

    fn act(&mut self, act: &Act) {
        // Sometimes at once, sometimes after other events, and the last question first.
        if self.journal.len().is_multiple_of(5) {
            self.answer_look_ups();
        }
        match *act {
            Act::Request {
                initiator,
                responder,
                amount,
                currency,
                kind,
                step,
                day,
            } => {
                let date = UtcNanos(self.time.0 - 2 * DAY_NS + day * DAY_NS).business_date();
                let mut body = PaymentBody::zeroed();
                body.id = PaymentId::new(date, ParticipantIndex(initiator), 0, self.journal.len() as u64);
                body.amount_minor = amount;
                body.currency = currency.0;
                (body.kind, body.step) = (kind, step);
                body.scene = 1;
                body.responder = ParticipantIndex(responder);
                self.request(body);
            }
            Act::Refund { nth, share, flaw } => {
                if let Some(original) = self.nth(nth) {
                    self.request(self.refund_of(&original, share, flaw));
                }
            }
            Act::Again { nth, change } => {
                if let Some(mut body) = self.nth(nth) {
                    match change {
                        Change::Nothing => {}
                        Change::Flags => body.flags ^= RequestFlags::POSSIBLE_RESEND,
                        Change::Amount => body.amount_minor += 1,
                        Change::Responder => body.responder.0 ^= 1,
                        Change::Created => body.created_ns += 1,
                    }
                    self.request(body);
                }
            }
            Act::Reply {
                nth,
                regarding,
                outcome,
                code,
                flaw,
            } => {
                if let Some(sent) = self.nth(nth) {
                    let mut event = ReplyEvent::zeroed();
                    event.sender = sent.responder.0;
                    event.body = ReplyBody::zeroed();
                    event.body.id = sent.id;
                    event.body.amount_minor = sent.amount_minor;
                    event.body.currency = sent.currency;
                    event.body.regarding = regarding;
                    event.body.outcome = outcome;
                    event.body.code = if outcome == ReplyOutcome::No as u8 { code } else { 0 };
                    event.body.token = [self.journal.len() as u64, 7];
                    match flaw {
                        Flaw::None => {}
                        Flaw::Sender => event.sender ^= 1,
                        Flaw::Amount => event.body.amount_minor += 1,
                        Flaw::Currency => event.body.currency = USD.0,
                        Flaw::Id => event.body.id.low += 1 << 32,
                    }
                    self.note_token(&event);
                    self.event(RecordKind::Reply, bytes_of(&event));
                }
            }
            Act::NotSent { nth, code } => {
                // Dispatch reports only what it was given: a payment that the ledger knows.
                if let Some(sent) = self.nth(nth)
                    && self.inquire(sent.id).state != 0
                {
                    self.event(RecordKind::NotSent, bytes_of(&NotSentEvent::new(sent.id, code)));
                }
            }
            Act::Pass { millis } => self.time = self.time.plus(millis * MILLISECOND),
            Act::Tick => self.event(RecordKind::Tick, &[]),
            Act::Restart => {
                self.event(RecordKind::Restart, &[]);
                let long_ago = UtcNanos(self.time.0 - 2 * DAY_NS).business_date();
                self.event(RecordKind::DaySealed, bytes_of(&DaySealedEvent::new(long_ago)));
            }
            Act::Order {
                action,
                step,
                operator,
                participant,
                currency,
                amount,
                nth,
            } => {
                let mut order = self.ordered(action, participant, currency, amount);
                (order.action, order.step) = (action, step);
                order.operator[0] = b'a' + operator;
                if step > OrderStep::Propose as u8 {
                    let proposals = self.engine.proposals();
                    let at = proposals.len().checked_sub(1 + nth as usize);
                    order = OrderEvent {
                        step,
                        operator: order.operator,
                        proposal: at.map_or(nth, |at| proposals[at].event),
                        ..OrderEvent::zeroed()
                    };
                }
                self.event(RecordKind::Order, bytes_of(&order));
            }
            Act::Window { action, nth, currency } => {
                let windows = self.engine.snapshot().windows;
                self.window(action, currency, windows[nth % windows.len()].id);
            }
        }
    }

    fn ordered(&self, action: u8, participant: u16, currency: Currency, amount: u64) -> OrderEvent {
        let mut order = OrderEvent::zeroed();
        order.participant = ParticipantIndex(participant);
        match OrderAction::from_u8(action) {
            Some(OrderAction::Add) => {
                let next = self.engine.participant_count() as u16;
                let joins = if next < PARTICIPANTS + JOINING_MAX { next } else { 0 };
                order.participant = ParticipantIndex(joins);
                order.terms = terms_of(joins % PARTICIPANTS);
                (order.terms.index, order.terms.code) = (order.participant, SchemeCode([b'A' + joins as u8; 14]));
                for account in &mut order.terms.accounts {
                    (account.cover_minor, account.cap_minor) = (0, 0);
                }
            }
            Some(OrderAction::Amend) => {
                order.terms = terms_of(amount as u16 % PARTICIPANTS);
                order.terms.payment_limit_minor = amount;
                // Now and then timers that do not rise.
                order.terms.doubt_ns += amount % 5 * 5 * SECOND;
            }
            Some(OrderAction::Suspend) => order.terms.suspended = (amount % 6) as u8 & 5,
            Some(OrderAction::CoverIn | OrderAction::CoverOut | OrderAction::SetCap) | None => {
                (order.currency, order.amount_minor) = (currency.0, amount);
            }
        }
        order
    }

    /// Lets every timer run out, so that every payment becomes final, and closes the windows.
    fn wait_for_the_end(&mut self) {
        self.answer_look_ups();
        self.time = self.time.plus(300 * SECOND);
        self.event(RecordKind::Tick, &[]);
        for currency in [Currency::CNY, HKD] {
            self.window(WindowAction::Close, currency, WindowId::NONE);
        }
        assert_eq!(self.engine.figures().open(), 0, "T2 ends every payment");
        let snapshot = self.engine.snapshot();
        assert!(snapshot.participants.iter().all(|p| p.reserved == 0), "{snapshot:?}");
    }

    /// A second engine that is told the same events and says nothing has the same state.
    fn check_replay(&self) {
        let mut engine = Engine::new();
        for (number, record) in (1..).zip(&self.journal) {
            record.apply(number, &mut engine, &mut ());
        }
        assert_eq!(engine.state_hash(), self.engine.state_hash());
    }

    pub(crate) fn check_all(&mut self) {
        assert_eq!(self.differences(), Vec::<String>::new());
        self.wait_for_the_end();
        assert_eq!(self.differences(), Vec::<String>::new());
        self.check_words();
        self.check_notices();
        self.check_replay();
    }
}

/// Nothing that happens to a window changes what a participant may still owe.
fn check_headroom(before: &LedgerSnapshot, after: &LedgerSnapshot) {
    for (before, after) in before.participants.iter().zip(&after.participants) {
        assert_eq!(before.cap - before.position, after.cap - after.position);
        assert_eq!(before.cover - before.position, after.cover - after.position);
    }
}

fn is_reversal_of(effect: &Effect, id: PaymentId) -> bool {
    match effect {
        Effect::Frame(frame) => frame.template == Template::Reversal && Reversal::read(&frame.bytes).id == id,
        Effect::Forward { .. }
        | Effect::Release { .. }
        | Effect::Request { .. }
        | Effect::LookUp(_)
        | Effect::Cut { .. }
        | Effect::Contract { .. }
        | Effect::Ordered { .. }
        | Effect::CoverAlarm { .. } => false,
    }
}

fn is_answer_to(effect: &Effect, id: PaymentId) -> bool {
    match effect {
        Effect::Frame(frame) => frame.template == Template::Answer && Answer::read(&frame.bytes).id == id,
        Effect::Forward { .. }
        | Effect::Release { .. }
        | Effect::Request { .. }
        | Effect::LookUp(_)
        | Effect::Cut { .. }
        | Effect::Contract { .. }
        | Effect::Ordered { .. }
        | Effect::CoverAlarm { .. } => false,
    }
}
