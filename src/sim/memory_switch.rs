//! A small switch in memory that speaks the link's frames, for the participants to be held against; it errs on purpose.

use std::collections::HashMap;

use crate::domain::{
    BindStep, BusinessDate, Code, Direction, Kind, ParticipantIndex, PaymentId, PaymentState, WindowId,
};
use crate::wire::{
    Answer, AnswerFlags, Establish, EstablishmentAck, FinalNotice, Frame, FrameHeader, Inquiry, InquiryAnswer,
    Negotiate, NegotiationResponse, PaymentRequest, Reply, ReplyOutcome, RetransmitRequest, Reversal, StatusRequest,
    Template,
};

pub(super) const WINDOW: WindowId = WindowId::new(BusinessDate(20_261_123), 1);

/// What the switch in memory does to each frame it is about to send or handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    None,
    /// Every answer goes out twice, under two numbers.
    AnswersTwice,
    /// Every request goes to the bank twice.
    ForwardsTwice,
    /// The institution's link is lost with the words of that moment, once.
    DropsLink,
    /// No payment is taken the first time it is asked for.
    TakesNothingAtFirst,
    /// Requests never reach the bank; it is asked about them.
    AsksStatusOnly,
    /// Every yes comes too late: the payment has expired, and is reversed long after.
    Reverses,
    /// Commits over another amount.
    WrongAmount,
    /// No bank hears the end of a push.
    LosesNotices,
    /// A FinalNotice goes out long after its payment's end.
    NoticesLate,
    /// Every FinalNotice goes out twice, under two numbers.
    NoticesTwice,
    /// What a bank refused is confirmed to it.
    ConfirmsTheRefused,
    /// A mandate is another one than the bank's.
    WrongMandate,
    /// A Refund may give back any amount.
    RefundsWithoutEnd,
    /// A Sign goes to the bank in place of the Authenticate.
    SignsUnasked,
}

/// A numbered word as it was said.
#[derive(Clone, Copy)]
enum Word {
    Answer(Answer),
    Notice(FinalNotice),
}

impl Word {
    fn number(&self) -> u64 {
        match self {
            Self::Answer(answer) => answer.word,
            Self::Notice(notice) => notice.word,
        }
    }
}

#[derive(Default)]
pub(super) struct Peer {
    pub(super) participant: Option<usize>,
    established: bool,
    /// Bytes on their way to the participant.
    pub(super) outbound: Vec<u8>,
}

impl Peer {
    fn write<F: Frame>(&mut self, frame: F) {
        self.outbound.extend_from_slice(bytemuck::bytes_of(&frame.sealed()));
    }
}

pub(super) struct MemorySwitch {
    fault: Fault,
    participants: usize,
    pub(super) peers: Vec<Peer>,
    words: Vec<Vec<Word>>,
    answers: HashMap<PaymentId, Option<Answer>>,
    asked: HashMap<PaymentId, PaymentRequest>,
    /// Reversals that are due, and in which step.
    reversals: Vec<(u64, Reversal)>,
    /// FinalNotices that are due, and in which step.
    notices: Vec<(u64, FinalNotice)>,
    inquiries: u64,
    /// What the open window holds.
    pub(super) gross_minor: i128,
    pub(super) nets: Vec<i128>,
    /// What was given back, by original.
    given_back: HashMap<PaymentId, u64>,
    step: u64,
    dropped: bool,
    pub(super) drop_now: Option<usize>,
}

fn header<F: Frame>() -> FrameHeader {
    FrameHeader::new(F::TEMPLATE, size_of::<F>())
}

impl MemorySwitch {
    pub(super) fn new(fault: Fault, participants: usize) -> Self {
        Self {
            fault,
            participants,
            peers: (0..16).map(|_| Peer::default()).collect(),
            words: vec![Vec::new(); participants],
            answers: HashMap::new(),
            asked: HashMap::new(),
            reversals: Vec::new(),
            notices: Vec::new(),
            inquiries: 0,
            gross_minor: 0,
            nets: vec![0; participants],
            given_back: HashMap::new(),
            step: 0,
            dropped: false,
            drop_now: None,
        }
    }

    fn send<F: Frame>(&mut self, participant: usize, frame: F) {
        let found = self
            .peers
            .iter_mut()
            .find(|p| p.established && p.participant == Some(participant));
        if let Some(peer) = found {
            peer.write(frame);
        }
    }

    fn answer(&mut self, request: &PaymentRequest, code: Code, state: u8, flags: u8) {
        self.answer_with(request, code, state, flags, [0; 2]);
    }

    fn answer_with(&mut self, request: &PaymentRequest, code: Code, state: u8, flags: u8, mandate_token: [u64; 2]) {
        let initiator = request.body.id.originator().index();
        let is_final = state != 0;
        let word = if is_final {
            self.words[initiator].len() as u64 + 1
        } else {
            0
        };
        let wrong = u64::from(self.fault == Fault::WrongAmount);
        let answer = Answer {
            header: header::<Answer>(),
            id: request.body.id,
            word,
            amount_minor: request.body.amount_minor + wrong,
            window: if code == Code::Committed {
                WINDOW
            } else {
                WindowId::NONE
            },
            final_ns: 1,
            mandate_token,
            currency: 156,
            responder: request.body.responder,
            kind: request.body.kind,
            code: code as u8,
            state,
            flags,
            reserved: 0,
        };
        if is_final {
            self.words[initiator].push(Word::Answer(answer));
            self.answers.insert(request.body.id, Some(answer));
        }
        self.send(initiator, answer);
    }

    /// A payment that went to its bank ends.
    fn conclude(&mut self, request: &PaymentRequest, code: Code, state: PaymentState, token: [u64; 2]) {
        let (initiator, bank) = (request.body.id.originator().index(), request.body.responder.index());
        let kind = request.body.kind().unwrap();
        let amount = i128::from(request.body.amount_minor);
        let original = request.body.original;
        if state == PaymentState::Committed {
            let owed = match kind.direction() {
                Direction::Pull => -amount,
                Direction::Push => amount,
                Direction::None => 0,
            };
            self.gross_minor += amount;
            self.nets[initiator] += owed;
            self.nets[bank] -= owed;
        } else if kind == Kind::Refund {
            *self.given_back.get_mut(&original).unwrap() -= request.body.amount_minor;
        }
        let is_sign = request.body.step == BindStep::Sign as u8;
        let has_mandate = kind == Kind::Bind && is_sign && state == PaymentState::Committed;
        let mandate = match (has_mandate, self.fault) {
            (false, _) => [0; 2],
            (true, Fault::WrongMandate) => [token[1], token[0]],
            (true, _) => token,
        };
        self.answer_with(request, code, state as u8, 0, mandate);
        if self.fault == Fault::AnswersTwice {
            self.answer_with(request, code, state as u8, 0, mandate);
        }
        if kind.direction() == Direction::Push {
            self.notify(request, code, state);
        }
    }

    /// The bank of a push hears its end.
    fn notify(&mut self, request: &PaymentRequest, code: Code, state: PaymentState) {
        let confirms = self.fault == Fault::ConfirmsTheRefused;
        let state = if confirms { PaymentState::Committed } else { state };
        let notice = FinalNotice {
            header: header::<FinalNotice>(),
            id: request.body.id,
            word: 0,
            amount_minor: request.body.amount_minor,
            window: if state == PaymentState::Committed {
                WINDOW
            } else {
                WindowId::NONE
            },
            final_ns: 1,
            currency: 156,
            kind: request.body.kind,
            code: code as u8,
            state: state as u8,
            flags: 0,
            initiator: request.body.id.originator(),
            reserved: 0,
        };
        match self.fault {
            Fault::LosesNotices => {}
            Fault::NoticesLate => self.notices.push((self.step + 5_000, notice)),
            Fault::NoticesTwice => {
                self.say(request.body.responder.index(), notice);
                self.say(request.body.responder.index(), notice);
            }
            _ => self.say(request.body.responder.index(), notice),
        }
    }

    fn say(&mut self, bank: usize, notice: FinalNotice) {
        let notice = FinalNotice {
            word: self.words[bank].len() as u64 + 1,
            ..notice
        };
        self.words[bank].push(Word::Notice(notice));
        self.send(bank, notice);
    }

    /// Why a Refund is refused, if it is.
    fn refund_refusal(&mut self, request: &PaymentRequest) -> Option<Code> {
        let original = request.body.original;
        let is_committed = |answer: &Answer| answer.state == PaymentState::Committed as u8;
        let Some(answer) = self.answers.get(&original).copied().flatten().filter(is_committed) else {
            return Some(Code::OriginalNotFound);
        };
        let debit = self.asked[&original].body;
        assert_eq!(
            (debit.kind, debit.id.originator(), debit.responder),
            (Kind::Debit as u8, request.body.id.originator(), request.body.responder)
        );
        let given_back = self.given_back.entry(original).or_insert(0);
        if *given_back + request.body.amount_minor > answer.amount_minor && self.fault != Fault::RefundsWithoutEnd {
            return Some(Code::RefundExceedsOriginal);
        }
        *given_back += request.body.amount_minor;
        None
    }

    fn on_inquiry(&mut self, connection: usize, inquiry: &Inquiry) {
        self.inquiries += 1;
        let body = self.asked[&inquiry.id].body;
        let answer = self.answers[&inquiry.id];
        // The first is over the budget.
        let (code, state) = match answer {
            _ if self.inquiries == 1 => (Code::AskedTooOften as u8, 0),
            Some(answer) => (answer.code, answer.state),
            None => (Code::InProgress as u8, PaymentState::Reserved as u8),
        };
        let answer = InquiryAnswer {
            header: header::<InquiryAnswer>(),
            id: inquiry.id,
            reference: inquiry.reference,
            amount_minor: body.amount_minor,
            window: answer.map_or(WindowId::NONE, |answer| answer.window),
            final_ns: 1,
            currency: 156,
            kind: body.kind,
            code,
            state,
            reserved: [0; 11],
        };
        self.peers[connection].write(answer);
    }

    fn say_again(&mut self, participant: usize, from: u64, count: usize) {
        let said = self.words[participant].clone();
        for word in said.iter().filter(|word| word.number() >= from).take(count) {
            match *word {
                Word::Answer(answer) => self.send(
                    participant,
                    Answer {
                        flags: answer.flags | AnswerFlags::RETRANSMITTED,
                        ..answer
                    },
                ),
                Word::Notice(notice) => self.send(
                    participant,
                    FinalNotice {
                        flags: AnswerFlags::RETRANSMITTED,
                        ..notice
                    },
                ),
            }
        }
    }

    fn on_request(&mut self, request: &PaymentRequest) {
        let id = request.body.id;
        let known = self.answers.get(&id).copied();
        if self.fault == Fault::TakesNothingAtFirst && self.asked.insert(id, *request).is_none() {
            return self.answer(request, Code::NotTaken, 0, 0);
        }
        match known {
            Some(None) => return self.answer(request, Code::InProgress, 0, 0),
            Some(Some(stored)) => {
                let code = Code::from_u8(stored.code).unwrap();
                return self.answer_with(
                    request,
                    code,
                    stored.state,
                    AnswerFlags::DUPLICATE,
                    stored.mandate_token,
                );
            }
            None => {}
        }
        self.answers.insert(id, None);
        self.asked.insert(id, *request);
        if request.body.responder == id.originator() {
            return self.answer(request, Code::OnUs, PaymentState::Rejected as u8, 0);
        }
        if request.body.kind == Kind::Refund as u8
            && let Some(code) = self.refund_refusal(request)
        {
            return self.answer(request, code, PaymentState::Rejected as u8, 0);
        }
        let bank = request.body.responder.index();
        if self.fault == Fault::SignsUnasked && request.body.step == BindStep::Authenticate as u8 {
            let mut body = request.body;
            body.step = BindStep::Sign as u8;
            return self.send(bank, PaymentRequest { body, ..*request });
        }
        if self.fault == Fault::AsksStatusOnly {
            let status = StatusRequest {
                header: header::<StatusRequest>(),
                id,
                amount_minor: request.body.amount_minor,
                currency: 156,
                kind: request.body.kind,
                attempt: 1,
                initiator: id.originator(),
                reserved: [0; 2],
                accepted_ns: 1,
                reserved2: 0,
            };
            return self.send(bank, status);
        }
        self.send(bank, *request);
        if self.fault == Fault::ForwardsTwice {
            self.send(bank, *request);
        }
        if self.fault == Fault::DropsLink && !self.dropped && self.words[0].len() > 20 {
            self.dropped = true;
            self.drop_now = Some(0);
        }
    }

    fn on_reply(&mut self, reply: &Reply) {
        let request = self.asked[&reply.body.id];
        if self.answers[&reply.body.id].is_some() {
            return;
        }
        let (code, state) = match ReplyOutcome::from_u8(reply.body.outcome).unwrap() {
            ReplyOutcome::Yes => (Code::Committed, PaymentState::Committed),
            ReplyOutcome::No => (Code::from_u8(reply.body.code).unwrap(), PaymentState::Declined),
            ReplyOutcome::NeverSeen => (Code::LinkDown, PaymentState::Declined),
            ReplyOutcome::Acknowledged => return,
        };
        let is_pull = request.body.kind == Kind::Debit as u8;
        if self.fault == Fault::Reverses && code == Code::Committed && !is_pull {
            return self.conclude(&request, Code::BankTimeout, PaymentState::Expired, [0; 2]);
        }
        if self.fault == Fault::Reverses && code == Code::Committed {
            let reversal = Reversal {
                header: header::<Reversal>(),
                id: reply.body.id,
                word: 0,
                amount_minor: reply.body.amount_minor,
                currency: 156,
                kind: Kind::Debit as u8,
                attempt: 1,
                initiator: request.body.id.originator(),
                flags: 0,
                reserved: 0,
                raised_ns: 1,
                reserved2: [0; 2],
            };
            self.reversals.push((self.step + 200, reversal));
            return self.answer(&request, Code::BankTimeout, PaymentState::Expired as u8, 0);
        }
        self.conclude(&request, code, state, reply.body.token);
    }

    pub(super) fn on_step(&mut self) {
        self.step += 1;
        while self.reversals.first().is_some_and(|(due, _)| *due <= self.step) {
            let (_, reversal) = self.reversals.remove(0);
            let request = self.asked[&reversal.id];
            self.send(request.body.responder.index(), reversal);
        }
        while self.notices.first().is_some_and(|(due, _)| *due <= self.step) {
            let (_, notice) = self.notices.remove(0);
            let bank = self.asked[&notice.id].body.responder.index();
            self.say(bank, notice);
        }
    }

    pub(super) fn on_frame(&mut self, connection: usize, template: Template, frame: &[u8]) {
        match template {
            Template::Negotiate => {
                let index = usize::from(Negotiate::read(frame).credential[0]);
                assert!(index < self.participants);
                self.peers[connection].participant = Some(index);
                let response = NegotiationResponse {
                    header: header::<NegotiationResponse>(),
                    session_id: 1,
                    timestamp_ns: 1,
                    participant: ParticipantIndex(index as u16),
                    role: 1,
                    reserved: [0; 13],
                };
                self.peers[connection].write(response);
            }
            Template::Establish => {
                let establish = Establish::read(frame);
                let index = self.peers[connection].participant.unwrap();
                let ack = EstablishmentAck {
                    header: header::<EstablishmentAck>(),
                    session_id: 1,
                    timestamp_ns: 1,
                    next_word: self.words[index].len() as u64 + 1,
                    keepalive_ms: 60_000,
                    credit_in_flight: 0,
                    credit_per_second: 0,
                    reserved: [0; 12],
                };
                self.peers[connection].write(ack);
                self.peers[connection].established = true;
                if establish.last_word != u64::MAX {
                    self.say_again(index, establish.last_word + 1, usize::MAX);
                }
            }
            Template::Inquiry => self.on_inquiry(connection, &Inquiry::read(frame)),
            Template::RetransmitRequest => {
                let request = RetransmitRequest::read(frame);
                let index = self.peers[connection].participant.unwrap();
                self.say_again(index, request.from_word, request.count as usize);
            }
            Template::PaymentRequest => self.on_request(&PaymentRequest::read(frame)),
            Template::Reply => self.on_reply(&Reply::read(frame)),
            Template::Terminate => self.peers[connection] = Peer::default(),
            other => panic!("{other:?} is not expected here"),
        }
    }
}
