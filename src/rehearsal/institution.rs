//! An institution: asks for payments, asks again until it is answered, and keeps its book from the answers.

use std::collections::BTreeMap;

use super::party::{Turn, Wake};
use super::plan::{KINDS, Plan};
use crate::domain::{
    BusinessDate, Code, Direction, Kind, MILLISECOND, ParticipantIndex, PaymentId, PaymentState, Position, Role,
    SECOND, UtcNanos, WindowId,
};
use crate::wire::{Answer, Inquiry, InquiryAnswer, PaymentBody, PaymentRequest, RequestFlags};

/// What an institution wants, and what it was told.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) body: PaymentBody,
    /// It breaks a rule, so that it must never commit.
    pub(super) foul: bool,
    pub(super) sent: u32,
    /// Other content was sent under its id, too.
    twisted: bool,
    pub(super) answer: Option<Answer>,
    /// Refused for what it is, and not taken: nothing more is asked.
    pub(super) given_up: bool,
}

impl Order {
    pub(super) fn is_settled(&self) -> bool {
        self.answer.is_some() || self.given_up || self.sent == 0
    }
}

/// An institution.
#[derive(Debug)]
pub(super) struct Institution {
    index: ParticipantIndex,
    banks: Vec<ParticipantIndex>,
    pub(super) orders: BTreeMap<PaymentId, Order>,
    to_make: u64,
    pause_ns: u64,
    serial: u64,
    reference: u64,
    /// Debits − credits by window, from the answers.
    pub(super) book: BTreeMap<WindowId, Position>,
    /// Payments committed by window, from the answers.
    pub(super) committed: BTreeMap<WindowId, u64>,
    /// Refusals with 37.
    pub(super) not_taken: u64,
}

impl Institution {
    pub(super) fn new(index: ParticipantIndex, plan: &Plan) -> Self {
        let entries = plan.directory.participants.iter();
        let banks = entries
            .filter(|entry| entry.role() == Role::Bank)
            .map(|entry| entry.terms.index);
        Self {
            index,
            banks: banks.collect(),
            orders: BTreeMap::new(),
            to_make: plan.payments,
            pause_ns: plan.span_ns / plan.payments,
            serial: 0,
            reference: 0,
            book: BTreeMap::new(),
            committed: BTreeMap::new(),
            not_taken: 0,
        }
    }

    pub(super) fn wake(&mut self, wake: Wake, up: &[usize], turn: &mut Turn<'_>) {
        match wake {
            Wake::Pay => self.pay(up, turn),
            Wake::Retry(id) => self.retry(id, up, turn),
            Wake::Beat { .. } | Wake::Gap | Wake::Reply(_) | Wake::Ask => {}
        }
    }

    fn pay(&mut self, up: &[usize], turn: &mut Turn<'_>) {
        if self.to_make == 0 || turn.healing {
            return;
        }
        // Now and then a handful at once, over the contract perhaps.
        let burst = if turn.chance(5_000) {
            1 + turn.random.below(30)
        } else {
            1
        };
        for _ in 0..burst.min(self.to_make) {
            self.to_make -= 1;
            let order = self.draw(turn);
            let id = order.body.id;
            self.orders.insert(id, order);
            self.retry(id, up, turn);
        }
        let pause = turn.random.below(2 * self.pause_ns * burst) + 1;
        turn.wake_in(pause, Wake::Pay);
    }

    fn draw(&mut self, turn: &mut Turn<'_>) -> Order {
        self.serial += 1;
        let today = UtcNanos(turn.now).business_date();
        let kind = KINDS[turn.random.below(KINDS.len() as u64) as usize];
        let bank = self.banks[turn.random.below(self.banks.len() as u64) as usize];
        let lane = turn.random.below(2) as u16;
        let mut body = PaymentBody {
            id: PaymentId::new(today, self.index, lane, self.serial),
            amount_minor: 1 + turn.random.below(9_000),
            currency: 156,
            kind: kind as u8,
            scene: 1 + turn.random.below(6) as u8,
            responder: bank,
            created_ns: turn.now,
            mandate_token: [turn.random.bits(), 7],
            account_token: [turn.random.bits(), 9],
            order_reference: turn
                .random
                .bits()
                .to_le_bytes()
                .repeat(2)
                .try_into()
                .unwrap_or_default(),
            ..bytemuck::Zeroable::zeroed()
        };
        self.fit_to_kind(kind, &mut body, turn);
        let foul_chance = turn.habits.foul;
        let foul = turn.chance(foul_chance);
        if foul {
            turn.lies += 1;
            let id = body.id;
            match turn.random.below(9) {
                0 => body.responder = self.index,
                1 => body.responder = ParticipantIndex(900),
                2 => body.amount_minor = if kind.direction() == Direction::None { 5 } else { 0 },
                3 => body.amount_minor = u64::MAX,
                4 => body.currency = 840,
                5 => body.id = PaymentId::new(BusinessDate(20_260_101), self.index, lane, id.serial()),
                6 => body.kind = 9,
                // Of a day that may be sealed: the register alone knows that there was no such payment.
                7 => {
                    let date = BusinessDate::from_day_number(today.day_number() - 3);
                    body.id = PaymentId::new(date, self.index, lane, id.serial());
                }
                _ => body.id = PaymentId::new(today, ParticipantIndex(self.index.0 ^ 1), lane, id.serial() + (1 << 40)),
            }
        }
        Order {
            body,
            foul,
            sent: 0,
            twisted: false,
            answer: None,
            given_up: false,
        }
    }

    /// What a kind needs beside the rest.
    fn fit_to_kind(&self, kind: Kind, body: &mut PaymentBody, turn: &mut Turn<'_>) {
        match kind {
            Kind::Debit | Kind::Payout => {}
            Kind::Refund => {
                let committed = self.orders.values().filter(|order| {
                    let is_debit = order.body.kind == Kind::Debit as u8;
                    is_debit && order.answer.is_some_and(|answer| answer.code == Code::Committed as u8)
                });
                let committed: Vec<&Order> = committed.collect();
                match committed.get(turn.random.below(committed.len().max(1) as u64) as usize) {
                    Some(debit) => {
                        body.original = debit.body.id;
                        body.responder = debit.body.responder;
                        // Often in part, sometimes more than is left.
                        body.amount_minor = 1 + turn.random.below(debit.body.amount_minor);
                    }
                    None => body.original = PaymentId::new(body.id.date(), self.index, 0, 1 << 50),
                }
            }
            Kind::Bind | Kind::Unbind => {
                body.amount_minor = 0;
                body.step = 1 + turn.random.below(2) as u8;
            }
        }
    }

    /// Sends an order (again), and will look again unless it is settled.
    fn retry(&mut self, id: PaymentId, up: &[usize], turn: &mut Turn<'_>) {
        let repeat = turn.habits.repeat;
        let Some(order) = self.orders.get_mut(&id) else { return };
        let repeats = order.is_settled() && order.sent > 0;
        if order.given_up || (repeats && (turn.healing || !turn.random.chance(repeat))) {
            return;
        }
        if !up.is_empty() {
            let line = up[turn.random.below(up.len() as u64) as usize];
            let mut body = order.body;
            body.flags = if order.sent > 0 {
                RequestFlags::POSSIBLE_RESEND
            } else {
                0
            };
            order.sent += 1;
            let request = |body| PaymentRequest {
                header: bytemuck::Zeroable::zeroed(),
                body,
            };
            turn.send(line, &request(body));
            // The same id with other content, once the original is known to be taken: it stays untouched.
            let foul = turn.habits.foul;
            if repeats && turn.chance(foul) {
                turn.lies += 1;
                order.twisted = true;
                body.amount_minor ^= 1 << 20;
                turn.send(line, &request(body));
            }
        }
        let pause = if turn.healing {
            500 * MILLISECOND + turn.random.below(SECOND)
        } else if repeats {
            turn.random.below(20 * SECOND)
        } else {
            300 * MILLISECOND + turn.random.below(8 * SECOND)
        };
        turn.wake_in(pause, Wake::Retry(id));
    }

    /// A small Debit, once and by this line.
    pub(super) fn pay_plainly(&mut self, bank: ParticipantIndex, line: usize, turn: &mut Turn<'_>) -> PaymentId {
        self.serial += 1;
        let body = PaymentBody {
            id: PaymentId::new(UtcNanos(turn.now).business_date(), self.index, 2, self.serial),
            amount_minor: 1,
            currency: 156,
            kind: Kind::Debit as u8,
            scene: 1,
            responder: bank,
            created_ns: turn.now,
            ..bytemuck::Zeroable::zeroed()
        };
        let order = Order {
            body,
            foul: false,
            sent: 1,
            twisted: false,
            answer: None,
            given_up: false,
        };
        self.orders.insert(body.id, order);
        let header = bytemuck::Zeroable::zeroed();
        turn.send(line, &PaymentRequest { header, body });
        body.id
    }

    /// Wakes all that is not settled.
    pub(super) fn heal(&mut self, turn: &mut Turn<'_>) {
        for (&id, order) in &mut self.orders {
            // What never left is not asked for any more.
            order.given_up |= order.sent == 0;
            if !order.is_settled() {
                let pause = turn.random.below(SECOND);
                turn.wake_in(pause, Wake::Retry(id));
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        answer: &Answer,
        _new: bool,
        _line: usize,
        turn: &mut Turn<'_>,
    ) -> Result<(), String> {
        let Some(order) = self.orders.get_mut(&answer.id) else {
            return Err(format!(
                "institution {} is answered about {}, which it never asked",
                self.index, answer.id
            ));
        };
        let Some(code) = Code::from_u8(answer.code) else {
            return Err(format!("the answer to {} has code {}", answer.id, answer.code));
        };
        if answer.word == 0 {
            let refused_for_what_it_is = matches!(code, Code::Format | Code::NotSignedOn | Code::DateNotOpen);
            let is_interim =
                code.is_door_refusal() || matches!(code, Code::InProgress | Code::DateNotOpen | Code::IdReused);
            if !is_interim {
                return Err(format!("the answer {code:?} to {} has no word number", answer.id));
            }
            self.not_taken += u64::from(code == Code::NotTaken);
            if code == Code::IdReused && !order.twisted {
                return Err(format!(
                    "{} was never asked for with other content, and is said to have been",
                    answer.id
                ));
            }
            order.given_up |= refused_for_what_it_is && order.answer.is_none();
            return Ok(());
        }
        if order.answer.is_some() {
            return Ok(());
        }
        if order.foul && code == Code::Committed {
            return Err(format!(
                "{} breaks the rules and was committed: {:?}",
                answer.id, order.body
            ));
        }
        order.answer = Some(*answer);
        let (original, is_refund) = (order.body.original, order.body.kind == Kind::Refund as u8);
        if is_refund && code == Code::Committed {
            self.gives_back(original)?;
        }
        let Some(order) = self.orders.get(&answer.id) else {
            return Ok(());
        };
        if code == Code::Committed {
            let amount = Position::from(order.body.amount_minor);
            let net = match Kind::from_u8(order.body.kind).map(Kind::direction) {
                Some(Direction::Pull) => -amount,
                Some(Direction::Push) => amount,
                Some(Direction::None) | None => 0,
            };
            *self.book.entry(answer.window).or_insert(0) += net;
            *self.committed.entry(answer.window).or_insert(0) += 1;
        }
        let repeat = turn.habits.repeat;
        if turn.chance(repeat) {
            let pause = turn.random.below(5 * SECOND);
            turn.wake_in(pause, Wake::Retry(answer.id));
        }
        Ok(())
    }

    /// What was given back of a payment is never more than it was, however long ago it was and wherever it is kept.
    fn gives_back(&self, original: PaymentId) -> Result<(), String> {
        let was = self.orders.get(&original).map_or(0, |order| order.body.amount_minor);
        let is_committed = |order: &&Order| order.answer.is_some_and(|answer| answer.code == Code::Committed as u8);
        let refunds = self.orders.values().filter(|order| order.body.original == original);
        let back: u64 = refunds.filter(is_committed).map(|order| order.body.amount_minor).sum();
        if back > was {
            return Err(format!(
                "of {original}, which was of {was}, {back} was given back to the bank"
            ));
        }
        Ok(())
    }

    /// Sends an old request again, as one does that has lost what it was told.
    pub(super) fn repeat_the_past(&mut self, line: usize, turn: &mut Turn<'_>) {
        let settled = self.orders.iter().filter(|(_, order)| order.answer.is_some());
        let settled: Vec<PaymentId> = settled.map(|(&id, _)| id).collect();
        // Mostly of the oldest.
        let within = 1 + turn.random.below(settled.len().max(1) as u64);
        let Some(id) = settled.get(turn.random.below(within) as usize) else {
            return;
        };
        if let Some(order) = self.orders.get_mut(id) {
            order.sent += 1;
            let mut body = order.body;
            body.flags = RequestFlags::POSSIBLE_RESEND;
            let header = bytemuck::Zeroable::zeroed();
            turn.send(line, &PaymentRequest { header, body });
        }
    }

    /// Asks about a payment of its own, or of another's.
    pub(super) fn inquire(&mut self, line: usize, turn: &mut Turn<'_>) {
        let nth = turn.random.below(self.orders.len().max(1) as u64) as usize;
        let Some(mut id) = self.orders.keys().nth(nth).copied() else {
            return;
        };
        if turn.chance(10_000) {
            id = PaymentId::new(
                id.date(),
                ParticipantIndex(id.originator().0 ^ 1),
                id.lane(),
                id.serial(),
            );
        }
        self.ask_about(id, line, turn);
    }

    pub(super) fn ask_about(&mut self, id: PaymentId, line: usize, turn: &mut Turn<'_>) {
        self.reference += 1;
        let inquiry = Inquiry {
            id,
            reference: self.reference,
            ..bytemuck::Zeroable::zeroed()
        };
        turn.send(line, &inquiry);
    }

    /// Takes the answer to an inquiry. Lines overtake each other, so that it may be older than the final answer; when
    /// `at_rest`, it may not.
    pub(super) fn told(&mut self, told: &InquiryAnswer, at_rest: bool) -> Result<(), String> {
        if told.id.originator() != self.index {
            let hidden = matches!(
                Code::from_u8(told.code),
                Some(Code::OriginalNotFound | Code::AskedTooOften | Code::NotTaken)
            );
            return if hidden {
                Ok(())
            } else {
                Err(format!(
                    "institution {} is told of {}, which is another's",
                    self.index, told.id
                ))
            };
        }
        let known = self.orders.get(&told.id).and_then(|order| order.answer);
        let code = Code::from_u8(told.code);
        // The register's questions may wait in a ring that is full.
        let is_put_off = code == Some(Code::AskedTooOften) || (code == Some(Code::NotTaken) && !at_rest);
        let Some(answer) = known.filter(|_| !is_put_off) else {
            return Ok(());
        };
        let is_final = PaymentState::from_u8(told.state).is_some_and(PaymentState::is_final);
        let said = (
            told.code,
            told.state,
            told.amount_minor,
            told.window,
            told.final_ns,
            told.currency,
            told.kind,
        );
        let was = (
            answer.code,
            answer.state,
            answer.amount_minor,
            answer.window,
            answer.final_ns,
            answer.currency,
            answer.kind,
        );
        if said == was || (!is_final && !at_rest) {
            return Ok(());
        }
        Err(format!(
            "{} was answered {was:?} and an inquiry now says {said:?}",
            told.id
        ))
    }
}
