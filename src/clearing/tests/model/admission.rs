//! The model's admission: the table of `docs/payments.md`, row by row; and windows, which move by events alone.

use super::reference::{Model, Payment, Window, debtor};
use super::residency::Waits;
use super::said::{Content, Said};
use crate::domain::{
    Code, Currency, Kind, ParticipantIndex, PaymentId, PaymentState, Position, Role, SECOND, UtcNanos, WindowId,
    WindowState,
};
use crate::wire::{Answer, AnswerFlags, FrameHeader, PaymentBody, RequestEvent, Template, WindowAction, WindowEvent};

/// In place of a code: the register must be asked first.
const WAITS: Code = Code::NotTaken;

impl Model {
    pub(super) fn request(&mut self, event: &RequestEvent, position: u64) {
        let id = event.body.id;
        if self.waits(id) {
            self.rows.insert("09: it waits");
            self.figures.duplicates += 1;
            self.unremembered(event, &event.body, Code::InProgress);
        } else if self.is_away(id) {
            self.park(id, Waits::Request(*event, position));
        } else if let Some(nth) = self.find(id) {
            self.known_request(nth, event);
        } else {
            self.new_request(event, position, false);
        }
    }

    /// Row 1: the id is known: same content and open 09; same content and final the stored answer; other content 16.
    pub(super) fn known_request(&mut self, nth: usize, event: &RequestEvent) {
        let body = event.body;
        let without_flags = |body: &PaymentBody| PaymentBody { flags: 0, ..*body };
        if without_flags(&self.payments[nth].body) != without_flags(&body) {
            self.rows.insert("1: other content");
            self.figures.ids_reused += 1;
            // It says what the id stands for.
            let original = self.payments[nth].body;
            self.unremembered(event, &original, Code::IdReused);
            return;
        }
        self.figures.duplicates += 1;
        if !self.payments[nth].state.is_final() {
            self.rows.insert("1: open");
            self.answer(nth, 0, event.link(), 0);
        } else if usize::from(body.id.originator().0) < self.members.len() {
            self.rows.insert("1: final");
            let word = self.take_word(body.id.originator());
            self.answer(nth, word, event.link(), AnswerFlags::DUPLICATE);
        }
    }

    pub(super) fn date_not_open(&mut self, event: &RequestEvent) {
        self.rows.insert("2");
        self.figures.dates_not_open += 1;
        self.unremembered(event, &event.body, Code::DateNotOpen);
    }

    /// Rows 2 to 14; `found`: the register has said what it knows of the original.
    pub(super) fn new_request(&mut self, event: &RequestEvent, position: u64, found: bool) {
        let body = event.body;
        let known = usize::from(body.id.originator().0) < self.members.len();
        // Row 2: the id's date is open.
        if !self.time.is_open_date(body.id.date()) {
            self.date_not_open(event);
            return;
        }
        let admission = self.admit(&body, found);
        if admission == Err(WAITS) {
            self.park(body.original, Waits::Request(*event, position));
            return;
        }
        let Some(slot) = self.free_slot() else {
            self.rows.insert("37: all open");
            self.not_taken(event);
            return;
        };
        self.seat(slot, self.payments.len());
        let mut payment = Payment::new(body, event.link(), self.time);
        if let Err(code) = admission {
            payment.state = PaymentState::Rejected;
            payment.code = code;
            payment.finished = self.time;
            self.payments.push(payment);
            self.figures.rejected += 1;
            let nth = self.payments.len() - 1;
            self.count_final(nth);
            // One who is not in the directory can not be told.
            if known {
                let word = self.take_word(body.id.originator());
                self.answer(nth, word, event.link(), 0);
            }
            return;
        }
        self.set_timers(&mut payment);
        self.payments.push(payment);
        if let Some(debtor) = debtor(&body) {
            self.account(debtor, body.currency()).reserved += Position::from(body.amount_minor);
        }
        self.figures.accepted += 1;
        self.figures.reserved += 1;
        if found {
            // It waited: the journal's tail may not hold it any more.
            let bytes: &[u8; 128] = bytemuck::cast_ref(event);
            for half in 0..2u8 {
                let bytes = bytes[usize::from(half) * 64..][..64].try_into().expect("a half");
                self.out.push(Said::Request { half, bytes });
            }
        }
        self.out.push(Said::Forward {
            id: body.id,
            to: body.responder.0,
            position: if found { u64::MAX } else { position },
            accepted: self.time,
            wait_ns: self.members[body.responder.index()].terms.wait_ns,
        });
        if let Some(debtor) = debtor(&body) {
            self.watch(debtor, body.currency());
        }
    }

    /// 15 and 16 are told without a number and leave nothing behind.
    pub(super) fn unremembered(&mut self, event: &RequestEvent, body: &PaymentBody, code: Code) {
        if body.id.originator().index() >= self.members.len() {
            return;
        }
        let answer = Answer {
            header: FrameHeader::new(Template::Answer, size_of::<Answer>()),
            id: body.id,
            word: 0,
            amount_minor: body.amount_minor,
            window: WindowId::NONE,
            final_ns: 0,
            mandate_token: [0; 2],
            currency: body.currency,
            responder: body.responder,
            kind: body.kind,
            code: code as u8,
            state: 0,
            flags: 0,
            reserved: 0,
        };
        self.out.push(Said::Answer {
            to: body.id.originator().0,
            via: event.link(),
            answer: Content(answer),
        });
    }

    /// Rows 3 to 14: the first rule that is broken names the code.
    fn admit(&mut self, body: &PaymentBody, found: bool) -> Result<(), Code> {
        let amount = Position::from(body.amount_minor);
        // 3: initiator and responder are in the directory.
        let initiator = self.members.get(body.id.originator().index());
        let responder = self.members.get(body.responder.index());
        let (Some(initiator), Some(responder)) = (initiator, responder) else {
            return Err(Code::UnknownParticipant);
        };
        let parties = [initiator, responder];
        // 4: they are two.
        if initiator.terms.index == responder.terms.index {
            return Err(Code::OnUs);
        }
        // 5: the initiator is not suspended as one.
        if initiator.terms.suspended & 1 != 0 {
            return Err(Code::InitiatorSuspended);
        }
        // 6: the responder is not suspended as one.
        if responder.terms.suspended & 2 != 0 {
            return Err(Code::ResponderSuspended);
        }
        // 7: an institution asks a bank, and both may take part in this kind.
        let kind = body.kind().ok_or(Code::KindNotPermitted)?;
        let institution_asks_bank =
            initiator.terms.role == Role::Institution as u8 && responder.terms.role == Role::Bank as u8;
        if !institution_asks_bank || parties.iter().any(|party| !party.terms.permits(kind)) {
            return Err(Code::KindNotPermitted);
        }
        // 8: both have an account in the currency, and it has an open window.
        let accounts = parties.iter().all(|party| party.accounts.contains_key(&body.currency));
        let window = self.windows.iter().any(|window| is_open(window, body.currency()));
        if !accounts || !window {
            return Err(Code::CurrencyNotOpen);
        }
        // 9: the amount is 0 for Bind and Unbind, and not 0 otherwise.
        let without_money = match kind {
            Kind::Bind | Kind::Unbind => true,
            Kind::Debit | Kind::Payout | Kind::Refund => false,
        };
        if (amount == 0) != without_money {
            return Err(Code::AmountInvalid);
        }
        // 10: it is not over the scheme's maximum.
        if amount > Position::from(self.scheme.maximum_minor) {
            return Err(Code::OverSchemeMaximum);
        }
        if amount == Position::from(self.scheme.maximum_minor) {
            self.rows.insert("10: at the maximum");
        }
        // 11: nor over either party's limit per payment.
        let limits = parties.map(|party| Position::from(party.terms.payment_limit_minor));
        if limits.iter().any(|&limit| limit != 0 && amount > limit) {
            return Err(Code::OverAgreedLimit);
        }
        if limits.contains(&amount) && amount != 0 {
            self.rows.insert("11: at the limit");
        }
        if kind == Kind::Refund {
            self.admit_refund(body, found)?;
        }
        // 14: position + reserved + amount ≤ cap of the party that will owe.
        if let Some(debtor) = debtor(body) {
            let account = self.members[debtor.index()].accounts[&body.currency];
            let used = account.position + account.reserved + amount;
            if used == account.cap + 1 {
                self.rows.insert("14: one over the cap");
            }
            if used > account.cap {
                return Err(Code::CoverExceeded);
            }
            if used == account.cap {
                self.rows.insert("14: to the cap");
            }
        }
        Ok(())
    }

    fn admit_refund(&mut self, body: &PaymentBody, found: bool) -> Result<(), Code> {
        let days = u64::from(self.scheme.refund_days);
        let oldest = UtcNanos(self.time.0 - days * 86_400 * SECOND).business_date();
        // What the id alone says is not asked of the register.
        let may_be = body.original.originator() == body.id.originator() && body.original.date() >= oldest;
        if !found && may_be && self.is_away(body.original) {
            return Err(WAITS);
        }
        // 12: the original is known, is a Debit, Committed, with the same initiator, responder and currency, and its id's
        // business date is at most `refund_days` before today's.
        let Some(original) = self.find(body.original).map(|nth| self.payments[nth].clone()) else {
            return self.no_original("12: unknown");
        };
        if original.body.kind != Kind::Debit as u8 {
            return self.no_original("12: no Debit");
        }
        if original.state != PaymentState::Committed {
            return self.no_original("12: not Committed");
        }
        if original.body.id.originator() != body.id.originator() {
            return self.no_original("12: other initiator");
        }
        if original.body.responder != body.responder {
            return self.no_original("12: other responder");
        }
        if original.body.currency != body.currency {
            return self.no_original("12: other currency");
        }
        if original.body.id.date() < oldest {
            return self.no_original("12: too old");
        }
        if original.body.id.date() == oldest {
            self.rows.insert("12: on the last day");
        }
        // 13: Reserved + InDoubt + Committed refunds of that original + this one ≤ the original's amount.
        let refunded = self.refunded(body.original) + Position::from(body.amount_minor);
        let whole = Position::from(original.body.amount_minor);
        if refunded > whole {
            return Err(Code::RefundExceedsOriginal);
        }
        if refunded == whole {
            self.rows.insert("13: the whole original");
        }
        Ok(())
    }

    fn no_original(&mut self, row: &'static str) -> Result<(), Code> {
        self.rows.insert(row);
        Err(Code::OriginalNotFound)
    }

    /// Reserved + InDoubt + Committed refunds of an original.
    pub(super) fn refunded(&self, original: PaymentId) -> Position {
        let counts = |payment: &&Payment| {
            payment.body.kind == Kind::Refund as u8
                && payment.body.original == original
                && match payment.state {
                    PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Committed => true,
                    PaymentState::Declined | PaymentState::Expired | PaymentState::Rejected => false,
                }
        };
        let refunds = self.payments.iter().filter(counts);
        refunds.map(|refund| Position::from(refund.body.amount_minor)).sum()
    }

    pub(super) fn open_window(&mut self, currency: Currency) -> Option<&mut Window> {
        self.windows.iter_mut().find(|window| is_open(window, currency))
    }

    /// Open → Closed → Settling → Settled, or Aborted; an action that does not fit is ignored.
    pub(super) fn window(&mut self, event: &WindowEvent) {
        let currency = Currency(event.currency);
        match WindowAction::from_u8(event.action).expect("only known actions are journaled") {
            // The currency's first window opens.
            WindowAction::Open => {
                let is_schemes = currency.0 != 0 && self.scheme.currencies.contains(&currency.0);
                if is_schemes && !self.windows.iter().any(|window| window.currency == currency) {
                    self.open(currency);
                }
            }
            // The open window closes and the next one opens, in one event.
            WindowAction::Close => {
                let time = self.time;
                if let Some(window) = self.open_window(currency) {
                    (window.state, window.closed) = (WindowState::Closed, time);
                    self.rows.insert("window closed");
                    self.open(currency);
                }
            }
            // Closed or Aborted → Settling.
            WindowAction::BeginSettlement => {
                self.settlement(
                    event.window,
                    &[WindowState::Closed, WindowState::Aborted],
                    WindowState::Settling,
                );
            }
            // Settling → Settled: position, cover and cap each fall by the window's net.
            WindowAction::Settled => {
                if let Some(nth) = self.settlement(event.window, &[WindowState::Settling], WindowState::Settled) {
                    let window = self.windows[nth].clone();
                    for (&party, net) in &window.nets {
                        let accounts = &mut self.members[usize::from(party)].accounts;
                        let account = accounts.get_mut(&window.currency.0).expect("it was posted to");
                        account.position -= net;
                        account.cover -= net;
                        account.cap -= net;
                    }
                    // Headroom is the same, the share of the cap is not.
                    for party in 0..self.members.len() as u16 {
                        self.watch(ParticipantIndex(party), window.currency);
                    }
                }
            }
            // Settling → Aborted: committed payments are never unwound; cover stays used.
            WindowAction::Aborted => {
                self.settlement(event.window, &[WindowState::Settling], WindowState::Aborted);
            }
        }
    }

    fn settlement(&mut self, id: WindowId, from: &[WindowState], to: WindowState) -> Option<usize> {
        let nth = self.windows.iter().position(|window| window.id == id)?;
        if !from.contains(&self.windows[nth].state) {
            return None;
        }
        self.rows.insert(match to {
            WindowState::Settling if self.windows[nth].state == WindowState::Aborted => "window settled again",
            WindowState::Settling => "window settling",
            WindowState::Settled => "window settled",
            WindowState::Aborted => "window aborted",
            WindowState::Open | WindowState::Closed => unreachable!("no step of settlement: {to:?}"),
        });
        self.windows[nth].state = to;
        Some(nth)
    }

    /// A window's number counts the windows opened that day over all currencies, from 1.
    fn open(&mut self, currency: Currency) {
        let today = self.today();
        let number = self.windows.iter().filter(|window| window.id.date() == today).count() as u32 + 1;
        self.windows.push(Window {
            id: WindowId::new(today, number),
            currency,
            state: WindowState::Open,
            opened: self.time,
            closed: UtcNanos(0),
            committed: 0,
            gross: 0,
            nets: std::collections::BTreeMap::new(),
        });
    }
}

fn is_open(window: &Window, currency: Currency) -> bool {
    window.currency == currency && window.state == WindowState::Open
}
