//! A bank: decides once about each payment it hears of, answers as its habits are, and keeps its own book. A bank that
//! lies says things that are not so; its book is then not held against the switch.

use std::collections::BTreeMap;

use super::party::{Turn, Wake};
use crate::domain::{Code, Direction, Kind, MILLISECOND, ParticipantIndex, PaymentId, PaymentState, Position, SECOND};
use crate::wire::{
    FinalNotice, Frame, Inquiry, PaymentRequest, Regarding, Reply, ReplyBody, ReplyOutcome, Reversal, StatusRequest,
    Template,
};

/// What the bank knows of a payment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) kind: Option<Kind>,
    amount_minor: u64,
    currency: u16,
    /// `None`: it said that it never saw it, or was told to undo it first, and refuses it for ever.
    decided: Option<Result<(), Code>>,
    pub(super) reversed: bool,
}

/// A reply not yet said.
#[derive(Clone, Copy, Debug)]
struct Pending {
    line: usize,
    body: ReplyBody,
}

/// A bank.
#[derive(Debug)]
pub(super) struct Bank {
    index: ParticipantIndex,
    pub(super) known: BTreeMap<PaymentId, Known>,
    pending: BTreeMap<u64, Pending>,
    number: u64,
    /// Ids it has seen on any line of its own: what it lies about is near them.
    pub(super) has_lied: bool,
    /// Debits − credits of pushes, from the final notices.
    pub(super) pushes: Position,
    pub(super) noticed: BTreeMap<PaymentId, u8>,
}

impl Bank {
    pub(super) fn new(index: ParticipantIndex) -> Self {
        Self {
            index,
            known: BTreeMap::new(),
            pending: BTreeMap::new(),
            number: 0,
            has_lied: false,
            pushes: 0,
            noticed: BTreeMap::new(),
        }
    }

    /// Debits − credits over all payments, as the bank's own book has it.
    pub(super) fn position(&self) -> Position {
        let said_yes = self
            .known
            .values()
            .filter(|known| known.decided == Some(Ok(())) && !known.reversed);
        let pulls = said_yes.filter(|known| known.kind.map(Kind::direction) == Some(Direction::Pull));
        pulls.map(|known| Position::from(known.amount_minor)).sum::<Position>() + self.pushes
    }

    /// True when nothing waits to be said.
    pub(super) fn is_at_rest(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn frame(
        &mut self,
        line: usize,
        template: Template,
        frame: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), String> {
        match template {
            Template::PaymentRequest => self.request(line, &PaymentRequest::read(frame), turn),
            Template::StatusRequest => self.status(line, &StatusRequest::read(frame), turn),
            Template::Reversal => self.reversal(line, &Reversal::read(frame), turn),
            Template::FinalNotice => self.notice(&FinalNotice::read(frame))?,
            _ => return Err(format!("bank {} is handed {template:?}", self.index)),
        }
        Ok(())
    }

    fn request(&mut self, line: usize, request: &PaymentRequest, turn: &mut Turn<'_>) {
        let body = &request.body;
        let habits = turn.habits;
        let verdict = if turn.chance(habits.no) {
            let codes = [
                Code::AccountInvalid,
                Code::CustomerFunds,
                Code::MandateMissing,
                Code::BankInternalError,
            ];
            Err(codes[turn.random.below(4) as usize])
        } else {
            Ok(())
        };
        let known = self.known.entry(body.id).or_insert(Known {
            kind: body.kind(),
            amount_minor: body.amount_minor,
            currency: body.currency,
            decided: Some(verdict),
            reversed: false,
        });
        let known = *known;
        if turn.chance(habits.silent) {
            return;
        }
        let late = turn.chance(habits.late);
        let delay = match turn.healing {
            true => turn.hold_ns + turn.random.below(MILLISECOND),
            false if late => turn.random.below(80 * SECOND),
            false => turn.random.below(2 * habits.reply_ns),
        };
        let reply = reply_body(body.id, &known, Regarding::Request);
        self.say(line, reply, delay, turn);
        if turn.chance(habits.lie) {
            self.lie(line, body.id, &known, turn);
        }
        if turn.chance(habits.lie) {
            // Said twice: that is no lie, and must do no harm.
            self.say(line, reply, delay + 1 + turn.random.below(SECOND), turn);
        }
    }

    fn status(&mut self, line: usize, request: &StatusRequest, turn: &mut Turn<'_>) {
        let never_seen = Known {
            kind: Kind::from_u8(request.kind),
            amount_minor: request.amount_minor,
            currency: request.currency,
            decided: None,
            reversed: false,
        };
        let known = *self.known.entry(request.id).or_insert(never_seen);
        if turn.chance(turn.habits.silent) {
            return;
        }
        let slowest = if turn.healing {
            MILLISECOND
        } else {
            2 * turn.habits.reply_ns
        };
        let delay = turn.random.below(slowest);
        self.say(line, reply_body(request.id, &known, Regarding::Status), delay, turn);
    }

    fn reversal(&mut self, line: usize, reversal: &Reversal, turn: &mut Turn<'_>) {
        let unheard_of = Known {
            kind: Kind::from_u8(reversal.kind),
            amount_minor: reversal.amount_minor,
            currency: reversal.currency,
            decided: None,
            reversed: false,
        };
        let known = self.known.entry(reversal.id).or_insert(unheard_of);
        known.reversed = true;
        let known = *known;
        if turn.chance(turn.habits.deaf) {
            return;
        }
        let mut body = reply_body(reversal.id, &known, Regarding::Reversal);
        (body.outcome, body.code, body.token) = (ReplyOutcome::Acknowledged as u8, 0, [0; 2]);
        let delay = turn.random.below(2 * turn.habits.reply_ns);
        self.say(line, body, delay, turn);
    }

    fn notice(&mut self, notice: &FinalNotice) -> Result<(), String> {
        if let Some(before) = self.noticed.insert(notice.id, notice.state)
            && before != notice.state
        {
            return Err(format!(
                "bank {} was told that {} is in state {before}, and now in {}",
                self.index, notice.id, notice.state
            ));
        }
        let is_push = Kind::from_u8(notice.kind).map(Kind::direction) == Some(Direction::Push);
        if notice.state == PaymentState::Committed as u8 && is_push {
            self.pushes -= Position::from(notice.amount_minor);
        }
        Ok(())
    }

    /// Asks about a payment it once heard of.
    pub(super) fn inquire(&self, line: usize, turn: &mut Turn<'_>) {
        let nth = turn.random.below(self.known.len().max(1) as u64) as usize;
        if let Some(&id) = self.known.keys().nth(nth) {
            let inquiry = Inquiry {
                id,
                reference: turn.now,
                ..bytemuck::Zeroable::zeroed()
            };
            turn.send(line, &inquiry);
        }
    }

    fn say(&mut self, line: usize, body: ReplyBody, delay: u64, turn: &mut Turn<'_>) {
        self.number += 1;
        self.pending.insert(self.number, Pending { line, body });
        turn.wake_in(delay, Wake::Reply(self.number));
    }

    /// Sends a reply by the line the question came on, or by another one; without a line it is never said.
    pub(super) fn reply_now(&mut self, number: u64, up: &[usize], turn: &mut Turn<'_>) {
        let Some(pending) = self.pending.remove(&number) else {
            return;
        };
        let Some(&any) = up.first() else { return };
        let line = if up.contains(&pending.line) { pending.line } else { any };
        let reply = Reply {
            header: bytemuck::Zeroable::zeroed(),
            body: pending.body,
        };
        turn.send(line, &reply);
    }

    fn lie(&mut self, line: usize, id: PaymentId, known: &Known, turn: &mut Turn<'_>) {
        turn.lies += 1;
        self.has_lied = true;
        let mut body = reply_body(id, known, Regarding::Request);
        match turn.random.below(7) {
            // The other of yes and no.
            0 => {
                let said_yes = body.outcome == ReplyOutcome::Yes as u8;
                let (outcome, code) = if said_yes {
                    (ReplyOutcome::No, Code::BankDeclined as u8)
                } else {
                    (ReplyOutcome::Yes, 0)
                };
                (body.outcome, body.code) = (outcome as u8, code);
            }
            1 => body.amount_minor += 1,
            2 => body.currency = 840,
            // Another's payment, or one that nobody made.
            3 => body.id = PaymentId::new(id.date(), id.originator(), id.lane(), 1 + turn.random.below(60)),
            4 => (body.outcome, body.code) = (ReplyOutcome::NeverSeen as u8, 0),
            5 => (body.outcome, body.code) = (ReplyOutcome::Acknowledged as u8, 0),
            _ => {
                (body.regarding, body.outcome, body.code) =
                    (Regarding::Reversal as u8, ReplyOutcome::Acknowledged as u8, 0);
            }
        }
        let delay = turn.random.below(4 * turn.habits.reply_ns);
        self.say(line, body, delay, turn);
    }
}

fn reply_body(id: PaymentId, known: &Known, regarding: Regarding) -> ReplyBody {
    let (outcome, code) = match (known.decided, regarding) {
        (Some(Ok(())), _) => (ReplyOutcome::Yes, 0),
        (Some(Err(code)), _) => (ReplyOutcome::No, code as u8),
        (None, Regarding::Status) => (ReplyOutcome::NeverSeen, 0),
        // Refused for ever.
        (None, Regarding::Request | Regarding::Reversal) => (ReplyOutcome::No, Code::BankDeclined as u8),
    };
    let is_yes = outcome == ReplyOutcome::Yes;
    ReplyBody {
        id,
        amount_minor: known.amount_minor,
        currency: known.currency,
        regarding: regarding as u8,
        outcome: outcome as u8,
        code,
        reserved: [0; 3],
        token: if is_yes { [id.low | 1 << 60, id.high] } else { [0; 2] },
    }
}
