//! How a payment becomes final in the model, and who is told.

use super::reference::{Model, creditor, debtor, direction};
use super::said::{Content, Said};
use super::terms::PARTICIPANTS;
use crate::domain::{Code, Direction, LinkId, PaymentState, Position, UtcNanos, WindowId};
use crate::wire::{Answer, FinalNotice, FrameHeader, PaymentBody, Template};

impl Model {
    /// Makes a Reserved or InDoubt payment final: release; post and stamp what commits; answer; then, to the bank of a
    /// push that was sent, the FinalNotice.
    pub(super) fn finish(&mut self, nth: usize, state: PaymentState, code: Code, at: UtcNanos, was_sent: bool) {
        let body = self.payments[nth].body;
        let window = if state == PaymentState::Committed {
            self.post(&body)
        } else {
            WindowId::NONE
        };
        if let Some(debtor) = debtor(&body) {
            self.account(debtor, body.currency()).reserved -= Position::from(body.amount_minor);
        }
        let payment = &mut self.payments[nth];
        if payment.state == PaymentState::Reserved {
            self.figures.reserved -= 1;
        } else {
            self.figures.in_doubt -= 1;
        }
        payment.state = state;
        payment.code = code;
        payment.window = window;
        payment.finished = at;
        match state {
            PaymentState::Committed => self.figures.committed += 1,
            PaymentState::Declined => self.figures.declined += 1,
            PaymentState::Expired => self.figures.expired += 1,
            PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Rejected => {
                unreachable!("an open payment does not end as {state:?}")
            }
        }
        self.count_final(nth);
        self.out.push(Said::Release { id: body.id });
        // Of what commits the debtor uses as much as before.
        for party in [debtor(&body), creditor(&body)].into_iter().flatten() {
            self.watch(party, body.currency());
        }
        let word = self.take_word(body.id.originator());
        let link = self.payments[nth].link;
        self.answer(nth, word, link, 0);
        if direction(&body) == Direction::Push && was_sent {
            self.notice(nth);
        }
    }

    pub(super) fn count_final(&mut self, nth: usize) {
        let payment = &self.payments[nth];
        self.figures.by_code[payment.code as usize] += 1;
        let scene = &mut self.figures.by_scene[usize::from(payment.body.scene)];
        let committed = u64::from(payment.state == PaymentState::Committed);
        scene[0] += 1;
        scene[1] += committed;
        let kind = &mut self.figures.by_kind[payment.body.kind().map_or(0, |kind| kind as usize)];
        kind[0] += 1;
        kind[1] += committed;
        let (initiator, responder) = (payment.body.id.originator(), payment.body.responder);
        if let Some(member) = self.members.get_mut(initiator.index()) {
            member.success.as_initiator[0] += 1;
            member.success.as_initiator[1] += committed;
        }
        // What one asks of oneself is nobody's answer.
        if initiator != responder
            && let Some(member) = self.members.get_mut(responder.index())
        {
            member.success.as_responder[0] += 1;
            member.success.as_responder[1] += committed;
        }
    }

    /// Stamps the payment with its currency's open window, counts it there and moves what is owed.
    fn post(&mut self, body: &PaymentBody) -> WindowId {
        let amount = Position::from(body.amount_minor);
        for (party, owed) in [(debtor(body), amount), (creditor(body), -amount)] {
            if let Some(party) = party {
                self.account(party, body.currency()).position += owed;
                let window = self
                    .open_window(body.currency())
                    .expect("it was open when the payment was admitted");
                *window.nets.entry(party.0).or_insert(0) += owed;
            }
        }
        let window = self
            .open_window(body.currency())
            .expect("it was open when the payment was admitted");
        window.committed += 1;
        window.gross += amount;
        let id = window.id;
        if [body.id.originator().0, body.responder.0]
            .iter()
            .any(|&party| party >= PARTICIPANTS)
        {
            self.rows.insert("one that joined pays");
        }
        id
    }

    /// The final answer, or 09 while the payment is open.
    pub(super) fn answer(&mut self, nth: usize, word: u64, via: LinkId, flags: u8) {
        let payment = &self.payments[nth];
        let body = &payment.body;
        let answer = Answer {
            header: FrameHeader::new(Template::Answer, size_of::<Answer>()),
            id: body.id,
            word,
            amount_minor: body.amount_minor,
            window: payment.window,
            final_ns: payment.finished.0,
            mandate_token: payment.mandate_token,
            currency: body.currency,
            responder: body.responder,
            kind: body.kind,
            code: payment.code as u8,
            state: payment.state as u8,
            flags,
            reserved: 0,
        };
        self.out.push(Said::Answer {
            to: body.id.originator().0,
            via,
            answer: Content(answer),
        });
    }

    fn notice(&mut self, nth: usize) {
        let word = self.take_word(self.payments[nth].body.responder);
        let payment = &self.payments[nth];
        let body = &payment.body;
        self.rows.insert(match payment.state {
            PaymentState::Committed => "FinalNotice, Committed",
            PaymentState::Declined => "FinalNotice, Declined",
            PaymentState::Expired => "FinalNotice, Expired",
            PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Rejected => {
                unreachable!("no FinalNotice of a payment that is {:?}", payment.state)
            }
        });
        let notice = FinalNotice {
            header: FrameHeader::new(Template::FinalNotice, size_of::<FinalNotice>()),
            id: body.id,
            word,
            amount_minor: body.amount_minor,
            window: payment.window,
            final_ns: payment.finished.0,
            currency: body.currency,
            kind: body.kind,
            code: payment.code as u8,
            state: payment.state as u8,
            flags: 0,
            initiator: body.id.originator(),
            reserved: 0,
        };
        self.out.push(Said::Notice {
            to: body.responder.0,
            notice: Content(notice),
        });
    }
}
