//! How an act becomes an event: its numbers are bent to what there is.

use bytemuck::{Zeroable, bytes_of};

use super::acts::{
    Act, Amount, Change, Class, NewAccounts, OrderFlaw, Ordering, Portion, RefundFlaw, ReplyFlaw, Sum, Which,
};
use super::reference::{Payment, debtor};
use super::stage::Stage;
use super::terms::{HKD, INSTITUTIONS, PARTICIPANTS, USD, participant};
use crate::domain::{
    BindStep, Currency, CurrencyTerms, Kind, MILLISECOND, ParticipantIndex, ParticipantTerms, PaymentId, PaymentState,
    Position, SECOND, SchemeCode, UtcNanos, WindowId, WindowState,
};
use crate::wire::{
    DaySealedEvent, NotSentEvent, OrderAction, OrderEvent, OrderStep, PaymentBody, RecordKind, ReplyBody, ReplyEvent,
    ReplyOutcome, RequestEvent, RequestFlags, WindowAction, WindowEvent,
};

const DAY: u64 = 86_400 * SECOND;
/// Each participant has one link.
const LINK: u32 = 0x0001_0000;

impl Stage {
    pub(super) fn act(&mut self, act: &Act) -> Result<(), String> {
        match *act {
            Act::Request {
                initiator,
                responder,
                amount,
                currency,
                kind,
                step,
                day,
                lane,
            } => {
                let mut body = self.body(initiator, lane, day);
                body.currency = currency.0;
                body.kind = kind;
                body.step = step;
                body.responder = ParticipantIndex(responder);
                body.amount_minor = match amount {
                    Amount::Minor(minor) => minor,
                    Amount::Headroom(more) => self.headroom(&body) + more,
                };
                self.request(body)
            }
            Act::Refund {
                original,
                portion,
                flaw,
                lane,
            } => self.refund(original, portion, flaw, lane),
            Act::Again { which, change } => match self.find(which) {
                Some(body) => self.request(changed(body, change)),
                None => Ok(()),
            },
            Act::Reply {
                which,
                regarding,
                outcome,
                code,
                token,
                flaw,
            } => {
                let Some(body) = self.find(which) else { return Ok(()) };
                let mut reply = ReplyBody::zeroed();
                reply.regarding = regarding;
                reply.outcome = outcome;
                reply.code = if outcome == ReplyOutcome::No as u8 { code } else { 0 };
                reply.token = [token, token * 7];
                self.reply(&body, reply, flaw)
            }
            Act::NotSent { which, code } => match self.find(which) {
                // Dispatch reports only what it was given: a payment that the ledger knows.
                Some(body) if self.model.find(body.id).is_some() => {
                    self.event(RecordKind::NotSent, bytes_of(&NotSentEvent::new(body.id, code)), None)
                }
                Some(_) | None => Ok(()),
            },
            Act::Pass { millis } => {
                self.time = self.time.plus(millis * MILLISECOND);
                Ok(())
            }
            Act::PassToDeadline { nanos } => {
                let deadline = self.model.next_deadline();
                if deadline != UtcNanos::NEVER {
                    self.time = self.time.max(UtcNanos(deadline.0.saturating_add_signed(nanos)));
                }
                Ok(())
            }
            Act::PassToMidnight { seconds } => {
                let midnight = self.time.plus(DAY - self.time.shanghai_second_of_day() * SECOND);
                self.time = UtcNanos(midnight.0.saturating_add_signed(seconds * SECOND as i64)).max(self.time);
                Ok(())
            }
            Act::PassDays { days } => {
                self.time = self.time.plus(days * DAY);
                Ok(())
            }
            Act::Tick => self.event(RecordKind::Tick, &[], None),
            Act::Restart => self.event(RecordKind::Restart, &[], None),
            Act::Finding { nth, again } => self.finding(nth, again),
            Act::Seal { days_ago } => {
                let day = UtcNanos(self.time.0.saturating_add_signed(-days_ago * DAY as i64));
                let event = DaySealedEvent::new(day.business_date());
                self.event(RecordKind::DaySealed, bytes_of(&event), None)
            }
            Act::Order(ordering) => {
                let order = self.ordered(&ordering);
                self.event(RecordKind::Order, bytes_of(&order), None)
            }
            Act::Rivals(rivals) => {
                let events = rivals.map(|rival| self.ordered(&rival));
                for order in events {
                    self.event(RecordKind::Order, bytes_of(&order), None)?;
                }
                for nth in [1, 0] {
                    let approval = Ordering {
                        step: OrderStep::Approve as u8,
                        action: 0,
                        operator: 1,
                        nth,
                        ..rivals[0]
                    };
                    let order = self.ordered(&approval);
                    self.event(RecordKind::Order, bytes_of(&order), None)?;
                }
                Ok(())
            }
            Act::Reload => self.reload(),
            Act::Window {
                action,
                currency,
                fits,
                nth,
            } => {
                let windows = &self.model.windows;
                let fitting = windows.iter().filter(|window| !fits || takes(window.state, action));
                let ids: Vec<WindowId> = fitting.map(|window| window.id).collect();
                let id = if ids.is_empty() {
                    WindowId::NONE
                } else {
                    ids[nth % ids.len()]
                };
                self.window(action, currency, id)
            }
        }
    }

    /// A payment with a new id, dated so many days after today. Lanes make ids that are not in the order of arrival.
    fn body(&self, initiator: u16, lane: u16, day: i64) -> PaymentBody {
        let date = UtcNanos(self.time.0.saturating_add_signed(day * DAY as i64)).business_date();
        let serial = self.sent.len() as u64 + 1;
        let mut body = PaymentBody::zeroed();
        body.id = PaymentId::new(date, ParticipantIndex(initiator), lane, serial);
        body.scene = 1 + (serial % 6) as u8;
        body.created_ns = self.time.0;
        body
    }

    fn ordered(&self, wish: &Ordering) -> OrderEvent {
        let mut order = OrderEvent::zeroed();
        order.reference = self.time.0 ^ wish.nth as u64;
        (order.action, order.step) = (wish.action, wish.step);
        let name: &[u8] = [&b"ann"[..], b"Bo-7", b"c.y_z"][wish.operator];
        order.operator[..name.len()].copy_from_slice(name);
        order.participant = ParticipantIndex(wish.participant);
        let is = |action: OrderAction| wish.action == action as u8;
        if wish.step > 2 {
            let proposals = &self.model.proposals;
            order.participant = ParticipantIndex(0);
            order.proposal = match proposals.len().checked_sub(1 + wish.nth) {
                Some(nth) => proposals[nth].event,
                None => 3,
            };
        } else if is(OrderAction::Add) {
            let next = ParticipantIndex(self.model.members.len() as u16);
            order.participant = next;
            order.terms = participant(if next.0.is_multiple_of(2) { 0 } else { 3 });
            (order.terms.index, order.terms.code) = (next, SchemeCode([b'A' + next.0 as u8; 14]));
            order.terms.suspended = wish.terms.suspended & 4;
            order.terms.accounts = accounts(wish.terms.accounts);
            set_terms(&mut order.terms, wish);
        } else if is(OrderAction::Amend) {
            order.terms = participant(wish.participant.min(PARTICIPANTS - 1));
            set_terms(&mut order.terms, wish);
        } else if is(OrderAction::Suspend) {
            order.terms.suspended = wish.terms.suspended;
        } else {
            order.currency = wish.currency.0;
            order.amount_minor = self.sum(wish);
        }
        match wish.flaw {
            OrderFlaw::None => {}
            OrderFlaw::Name => order.operator[2] = b'\n',
            OrderFlaw::Action => order.action = 7,
            OrderFlaw::Step => order.step = 0,
            OrderFlaw::Proposal => order.proposal += 1,
            OrderFlaw::Participant => order.participant.0 += 4,
            OrderFlaw::Code => order.terms.code = SchemeCode([b'A'; 14]),
            OrderFlaw::Extra => order.amount_minor += 1,
        }
        if is(OrderAction::Add) && wish.step <= 2 {
            order.terms.index = order.participant;
        }
        order
    }

    fn sum(&self, wish: &Ordering) -> u64 {
        let member = self.model.members.get(usize::from(wish.participant));
        let account = member.and_then(|member| member.accounts.get(&wish.currency.0));
        let Some(account) = account else { return 100 };
        let used = account.position + account.reserved;
        let sum = match wish.sum {
            Sum::Minor(minor) => minor.into(),
            Sum::Free(more) => account.cover - account.cap.max(used) + Position::from(more),
            Sum::Use(more) => used + Position::from(more),
            Sum::Cover(more) => account.cover + Position::from(more),
        };
        u64::try_from(sum).unwrap_or(0)
    }

    /// What the party that will owe has left; 0 where there is no such account.
    fn headroom(&self, body: &PaymentBody) -> u64 {
        let member = debtor(body).and_then(|debtor| self.model.members.get(debtor.index()));
        let account = member.and_then(|member| member.accounts.get(&body.currency));
        let left = account.map_or(0, |account| account.cap - account.position - account.reserved);
        u64::try_from(left).unwrap_or(0)
    }

    fn request(&mut self, body: PaymentBody) -> Result<(), String> {
        self.sent.push(body);
        let mut event = RequestEvent::zeroed();
        event.stamp.link = LINK + u32::from(body.id.originator().0);
        event.body = body;
        self.event(RecordKind::Request, bytes_of(&event), Some(&body))
    }

    fn refund(&mut self, original: Which, portion: Portion, flaw: RefundFlaw, lane: u16) -> Result<(), String> {
        let Some(original) = self.find(original) else {
            return Ok(());
        };
        let mut body = self.body(original.id.originator().0, lane, 0);
        body.kind = Kind::Refund as u8;
        body.original = original.id;
        body.currency = original.currency;
        body.responder = original.responder;
        body.amount_minor = match portion {
            Portion::Whole => original.amount_minor,
            Portion::Half => original.amount_minor.div_ceil(2),
            Portion::Tenth => original.amount_minor.div_ceil(10),
            Portion::OneOver => original.amount_minor + 1,
        };
        match flaw {
            RefundFlaw::None => {}
            RefundFlaw::Initiator => {
                let other = ParticipantIndex((body.id.originator().0 + 1) % 2);
                body.id = PaymentId::new(body.id.date(), other, lane, body.id.serial());
            }
            RefundFlaw::Responder => body.responder = ParticipantIndex(if body.responder.0 == 3 { 4 } else { 3 }),
            RefundFlaw::Currency => body.currency = other_currency(body.currency),
            RefundFlaw::Unknown => body.original.low += 1 << 40,
        }
        self.request(body)
    }

    fn reply(&mut self, to: &PaymentBody, mut reply: ReplyBody, flaw: ReplyFlaw) -> Result<(), String> {
        reply.id = to.id;
        reply.amount_minor = to.amount_minor;
        reply.currency = to.currency;
        let mut sender = to.responder.0;
        match flaw {
            ReplyFlaw::None => {}
            ReplyFlaw::OtherBank => {
                sender = if usize::from(sender) + 1 < self.model.members.len() {
                    sender + 1
                } else {
                    INSTITUTIONS
                }
            }
            ReplyFlaw::Initiator => sender = to.id.originator().0,
            ReplyFlaw::Amount => reply.amount_minor += 1,
            ReplyFlaw::Currency => reply.currency = other_currency(reply.currency),
            ReplyFlaw::Id => reply.id.low += 1 << 40,
        }
        // Only a session of somebody in the directory can send one.
        if usize::from(sender) >= self.model.members.len() {
            return Ok(());
        }
        let mut event = ReplyEvent::zeroed();
        event.sender = sender;
        event.link = LINK + u32::from(sender);
        event.body = reply;
        self.event(RecordKind::Reply, bytes_of(&event), None)
    }

    pub(super) fn window(&mut self, action: WindowAction, currency: Currency, window: WindowId) -> Result<(), String> {
        let event = WindowEvent::new(action, currency, window);
        self.event(RecordKind::Window, bytes_of(&event), None)
    }

    /// The payment that is meant, if there is one in its class.
    fn find(&self, which: Which) -> Option<PaymentBody> {
        let bodies: Vec<PaymentBody> = match which.class {
            Class::Any => self.sent.clone(),
            Class::Open => self.bodies(|payment| !payment.state.is_final()),
            Class::Final => self.bodies(|payment| payment.state.is_final()),
            Class::CommittedDebit => self
                .bodies(|payment| payment.state == PaymentState::Committed && payment.body.kind == Kind::Debit as u8),
            Class::Reversed => self.bodies(|payment| payment.reversal.is_some()),
        };
        let count = bodies.len();
        (count > 0).then(|| bodies[count - 1 - which.back % count])
    }

    fn bodies(&self, fits: impl Fn(&Payment) -> bool) -> Vec<PaymentBody> {
        let payments = self.model.payments.iter().filter(|payment| fits(payment));
        payments.map(|payment| payment.body).collect()
    }
}

/// Timers and limit of one that joins or is amended.
fn set_terms(terms: &mut ParticipantTerms, wish: &Ordering) {
    let seconds = [
        [1, 5, 60, 20],
        [1, 2, 30, 10],
        [2, 8, 61, 25],
        [0, 1, 12, 12],
        [1, 5, 60, 20],
        [5, 5, 60, 20],
    ][usize::from(wish.terms.timers)];
    let [wait, doubt, pull, push] = seconds.map(|seconds| seconds * SECOND);
    (terms.wait_ns, terms.doubt_ns) = (wait, doubt);
    (terms.expiry_pull_ns, terms.expiry_push_ns) = (pull, push);
    terms.payment_limit_minor = wish.terms.limit_minor;
    terms.contract.request_in_flight_max = 1 + u32::from(wish.terms.timers);
}

fn accounts(which: NewAccounts) -> [CurrencyTerms; 4] {
    let mut accounts = [CurrencyTerms::zeroed(); 4];
    let currencies: &[Currency] = match which {
        NewAccounts::None => &[],
        NewAccounts::One | NewAccounts::Filled => &[Currency::CNY],
        NewAccounts::Both => &[HKD, Currency::CNY],
        NewAccounts::Foreign => &[Currency::CNY, USD],
        NewAccounts::Twice => &[HKD, HKD],
    };
    for (account, currency) in accounts.iter_mut().zip(currencies) {
        account.currency = currency.0;
    }
    if matches!(which, NewAccounts::Filled) {
        accounts[0].cover_minor = 1;
    }
    accounts
}

/// A window in this state takes this action.
fn takes(state: WindowState, action: WindowAction) -> bool {
    match action {
        WindowAction::Open | WindowAction::Close => true,
        WindowAction::BeginSettlement => state == WindowState::Closed || state == WindowState::Aborted,
        WindowAction::Settled | WindowAction::Aborted => state == WindowState::Settling,
    }
}

fn other_currency(currency: u16) -> u16 {
    if currency == HKD.0 { Currency::CNY.0 } else { HKD.0 }
}

/// The request as it comes again. What the door would refuse (a step or an original that does not fit the kind) is not
/// made: those changes touch only kinds that have such a field.
fn changed(mut body: PaymentBody, change: Change) -> PaymentBody {
    let is = |kind: Kind| body.kind == kind as u8;
    match change {
        Change::Nothing => {}
        Change::Flags => body.flags ^= RequestFlags::POSSIBLE_RESEND,
        Change::Amount => body.amount_minor += 1,
        Change::Currency => body.currency = other_currency(body.currency),
        Change::Kind if is(Kind::Debit) => body.kind = Kind::Payout as u8,
        Change::Kind if is(Kind::Payout) => body.kind = Kind::Debit as u8,
        Change::Kind if is(Kind::Bind) => body.kind = Kind::Unbind as u8,
        Change::Kind if is(Kind::Unbind) => body.kind = Kind::Bind as u8,
        Change::Step if is(Kind::Bind) || is(Kind::Unbind) => {
            body.step = BindStep::Authenticate as u8 + BindStep::Sign as u8 - body.step;
        }
        Change::Original if is(Kind::Refund) => body.original.low ^= 1,
        Change::Scene | Change::Kind | Change::Step | Change::Original => body.scene = 1 + body.scene % 6,
        Change::Responder => body.responder.0 ^= 1,
        Change::Created => body.created_ns += 1,
        Change::MandateToken => body.mandate_token[1] ^= 1,
        Change::AccountToken => body.account_token[0] ^= 1,
        Change::OrderReference => body.order_reference[15] ^= 1,
    }
    body
}
