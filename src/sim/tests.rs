//! The participants against a small switch in memory that speaks the link's frames, and that errs on purpose.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::load::Load;
use super::*;
use crate::domain::{
    BindStep, BusinessDate, Code, Currency, Direction, Kind, ParticipantIndex, PaymentId, PaymentState, Role,
    SchemeCode, UtcNanos, WindowId,
};
use crate::io::{Connection, StreamEvents};
use crate::wire::{
    Answer, AnswerFlags, Establish, EstablishmentAck, FinalNotice, Frame, FrameHeader, Inquiry, InquiryAnswer,
    Negotiate, NegotiationResponse, PaymentRequest, Reply, ReplyOutcome, RetransmitRequest, Reversal, StatusRequest,
    Template, decode,
};

const WINDOW: WindowId = WindowId::new(BusinessDate(20_261_123), 1);
const STEP_NS: u64 = 1_000_000;

/// What the switch in memory does to each frame it is about to send or handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
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
struct Peer {
    participant: Option<usize>,
    established: bool,
    /// Bytes on their way to the participant.
    outbound: Vec<u8>,
}

impl Peer {
    fn write<F: Frame>(&mut self, frame: F) {
        self.outbound.extend_from_slice(bytemuck::bytes_of(&frame.sealed()));
    }
}

struct MemorySwitch {
    fault: Fault,
    participants: usize,
    peers: Vec<Peer>,
    words: Vec<Vec<Word>>,
    answers: HashMap<PaymentId, Option<Answer>>,
    asked: HashMap<PaymentId, PaymentRequest>,
    /// Reversals that are due, and in which step.
    reversals: Vec<(u64, Reversal)>,
    /// FinalNotices that are due, and in which step.
    notices: Vec<(u64, FinalNotice)>,
    inquiries: u64,
    /// What the open window holds.
    gross_minor: i128,
    nets: Vec<i128>,
    /// What was given back, by original.
    given_back: HashMap<PaymentId, u64>,
    step: u64,
    dropped: bool,
    drop_now: Option<usize>,
}

fn header<F: Frame>() -> FrameHeader {
    FrameHeader::new(F::TEMPLATE, size_of::<F>())
}

impl MemorySwitch {
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

    fn on_step(&mut self) {
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

    fn on_frame(&mut self, connection: usize, template: Template, frame: &[u8]) {
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

/// Runs participants and switch in steps of simulated time until all is quiet.
struct World {
    load: Load,
    switch: MemorySwitch,
    tails: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl World {
    fn new(fault: Fault) -> Self {
        let plans: Vec<ParticipantPlan> = (0..5u16)
            .map(|index| ParticipantPlan {
                index: ParticipantIndex(index),
                code: SchemeCode::parse(&format!("Z{index:013}")).unwrap(),
                role: if index < 2 { Role::Institution } else { Role::Bank },
                credential: [index as u8; 32],
                links: 1,
            })
            .collect();
        let options = LoadOptions {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            run: 9,
            currency: Currency::CNY,
            keepalive_ms: 60_000,
            retry_after: Duration::from_secs(3),
            grace: Duration::from_secs(60),
            idle: Idle::Spin,
        };
        let habits = BankHabits::as_in_life(plans.len(), 5);
        let mut world = Self {
            load: Load::new(&plans, habits, &options, UtcNanos(1_790_000_000_000_000_000).0),
            switch: MemorySwitch {
                fault,
                participants: plans.len(),
                peers: (0..16).map(|_| Peer::default()).collect(),
                words: vec![Vec::new(); plans.len()],
                answers: HashMap::new(),
                asked: HashMap::new(),
                reversals: Vec::new(),
                notices: Vec::new(),
                inquiries: 0,
                gross_minor: 0,
                nets: vec![0; plans.len()],
                given_back: HashMap::new(),
                step: 0,
                dropped: false,
                drop_now: None,
            },
            tails: vec![Vec::new(); 16],
            free: (0..16).rev().collect(),
        };
        for _ in 0..10 {
            world.step();
        }
        assert_eq!(world.load.established(), world.load.links(), "{}", world.load.trouble());
        world
    }

    fn step(&mut self) {
        self.load.now_ns += STEP_NS;
        self.switch.on_step();
        self.load.fire();
        self.load.maintain();
        while let Some(link) = self.load.link_to_connect() {
            let connection = Connection(self.free.pop().unwrap());
            self.load.connecting_on(link, connection);
            self.load.connected(connection, Ok(()));
        }
        self.exchange();
    }

    fn exchange(&mut self) {
        self.load.note_handed(self.load.now_ns);
        while let Some((connection, mut bytes)) = self.load.next_send(self.load.now_ns) {
            let mut rest = &bytes[..];
            while let Some((template, length)) = decode(rest).unwrap() {
                self.switch.on_frame(connection.0 as usize, template, &rest[..length]);
                rest = &rest[length..];
            }
            assert!(rest.is_empty(), "half a frame was sent");
            bytes.clear();
            self.load.sent(connection, bytes);
        }
        if let Some(participant) = self.switch.drop_now.take() {
            self.drop_link(participant);
        }
        for slot in 0..self.switch.peers.len() {
            let outbound = std::mem::take(&mut self.switch.peers[slot].outbound);
            // In odd pieces, so that frames straddle them.
            for piece in outbound.chunks(147) {
                let mut bytes = std::mem::take(&mut self.tails[slot]);
                bytes.extend_from_slice(piece);
                let read = self.load.received(Connection(slot as u32), &bytes);
                self.tails[slot] = bytes.split_off(read.expect("the link is kept"));
            }
        }
    }

    /// The link of a participant is lost with everything that was on its way.
    fn drop_link(&mut self, participant: usize) {
        let slot = self
            .switch
            .peers
            .iter()
            .position(|peer| peer.participant == Some(participant))
            .unwrap();
        self.switch.peers[slot] = Peer::default();
        self.tails[slot].clear();
        self.load
            .closed(Connection(slot as u32), Some(io::ErrorKind::ConnectionReset.into()));
        self.free.push(slot as u32);
    }

    fn run(self, payments: u64) -> Ended {
        let ended = self.run_until_quiet(payments);
        assert!(
            ended.is_done,
            "payments are left without an answer, or pushes without a notice"
        );
        ended
    }

    /// Runs until all is quiet, or for 20 seconds after the evening.
    fn run_until_quiet(mut self, payments: u64) -> Ended {
        let parties = Parties {
            institutions: vec![ParticipantIndex(0), ParticipantIndex(1)],
            banks: (2..5).map(ParticipantIndex).collect(),
        };
        let mut evening = Evening::new(parties, 1, Some(payments), 3);
        self.load.start_run(self.load.now_ns);
        let start_ns = self.load.now_ns;
        let live = Live::default();
        for _ in 0..20_000 {
            self.load.roll(&live);
            let at_ns = self.load.now_ns - start_ns;
            for answered in std::mem::take(&mut self.load.answered) {
                evening.answered(at_ns, &answered);
            }
            while let Some(intent) = evening.next(at_ns) {
                self.load.issue(&intent);
            }
            self.step();
            if evening.is_finished(0) && self.load.is_done() {
                break;
            }
        }
        let is_done = self.load.is_done();
        let (outcomes, books, breakdown) = self.load.into_results();
        let nets = (0u16..).zip(self.switch.nets).collect();
        Ended {
            windows: switch_windows(&outcomes, self.switch.gross_minor, nets),
            outcomes,
            books,
            breakdown,
            is_done,
        }
    }
}

/// What a run leaves, and what the switch has to say of it.
struct Ended {
    outcomes: Outcomes,
    books: Books,
    breakdown: Breakdown,
    windows: Vec<WindowFigures>,
    is_done: bool,
}

impl Ended {
    fn differences(&self) -> Vec<String> {
        self.books.compare(&[], &self.windows, &[])
    }
}

fn switch_windows(outcomes: &Outcomes, gross_minor: i128, nets: Vec<(u16, i128)>) -> Vec<WindowFigures> {
    vec![WindowFigures {
        id: WINDOW.to_string(),
        currency: 156,
        state: "closed".into(),
        opened_ns: 1,
        closed_ns: 2,
        committed: outcomes.committed,
        gross_minor,
        nets,
    }]
}

#[test]
fn a_run_against_a_faultless_switch_finds_nothing() {
    let ended = World::new(Fault::None).run(5_000);
    assert_eq!(ended.differences(), Vec::<String>::new());
    let Ended {
        outcomes, breakdown, ..
    } = ended;
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert!(outcomes.offered >= 5_000 && outcomes.in_flight() == 0);
    assert_eq!(outcomes.rejected_unexpected, 0);
    assert!(outcomes.rejected > 0 && outcomes.declined > 100 && outcomes.committed > 4_700);
    assert!(outcomes.in_progress > 0 && outcomes.stored > 0);
    assert_eq!(outcomes.in_progress + outcomes.stored, outcomes.repeats_sent);
    for kind in Kind::ALL {
        let tally = breakdown.kind(kind);
        assert!(
            tally.committed > 0 && tally.answered == tally.offered,
            "{kind:?}: {tally:?}"
        );
        assert_eq!(tally.success_rate(), Some(1.0), "{kind:?}: {tally:?}");
    }
    assert!(outcomes.by_code[Code::RefundExceedsOriginal as usize] > 0);
    assert!(outcomes.by_code[Code::OriginalNotFound as usize] > 0);
    let pushes = breakdown.kind(Kind::Payout).committed + breakdown.kind(Kind::Refund).committed;
    assert_eq!(outcomes.confirmed, pushes);
    assert_eq!(outcomes.notices, outcomes.pushes_seen);
    assert!(outcomes.notices > outcomes.confirmed, "no push was declined");
    assert_eq!(outcomes.inquiries_sent, 0);
    // What the bank held is milliseconds; what is left for this switch is a step or two.
    assert!(outcomes.latency.value_at_quantile(0.5) > 5 * STEP_NS);
    assert!(outcomes.switch_latency.value_at_quantile(0.99) < 4 * STEP_NS);
}

#[test]
fn books_of_a_whole_run_differ_by_each_planted_fault() {
    type Planted = fn(&mut Books);
    let faults: [(&str, Planted); 4] = [
        ("a bank that credits without a Confirm", |books| {
            books.of(ParticipantIndex(2)).confirm(WINDOW, 10);
        }),
        ("an institution that books a refused payout", |books| {
            books.of(ParticipantIndex(0)).commit(Direction::Push, WINDOW, 10);
        }),
        ("an institution that counts a Bind twice", |books| {
            books.of(ParticipantIndex(0)).commit(Direction::None, WINDOW, 0);
        }),
        ("a bank that books a pull twice", |books| {
            books.of(ParticipantIndex(2)).debit(10)
        }),
    ];
    let ended = World::new(Fault::None).run(500);
    for (name, plant) in faults {
        let mut books = ended.books.clone();
        plant(&mut books);
        assert!(!books.compare(&[], &ended.windows, &[]).is_empty(), "{name}");
    }
    // Books that hold something differ from a switch that holds nothing.
    let nothing = switch_windows(&ended.outcomes, 0, Vec::new());
    assert!(!ended.books.compare(&[], &nothing, &[]).is_empty());
}

#[test]
fn a_push_whose_end_its_bank_never_hears_is_found_though_the_bank_inquires() {
    let ended = World::new(Fault::LosesNotices).run_until_quiet(100);
    let outcomes = &ended.outcomes;
    assert!(!ended.is_done);
    assert!(outcomes.notices_missing > 0 && outcomes.notices == 0);
    assert_eq!(outcomes.findings.len(), 1);
    assert!(
        outcomes.findings[0].contains("no final notice"),
        "{:?}",
        outcomes.findings
    );
    // From what it was told, the bank has credited its customers all the same.
    assert!(outcomes.inquiries_sent >= outcomes.confirmed && outcomes.confirmed > 0);
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_bank_without_a_notice_inquires_acts_on_the_answer_and_credits_once() {
    let ended = World::new(Fault::NoticesLate).run(200);
    let outcomes = &ended.outcomes;
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert!(outcomes.inquiries_sent > 0);
    assert_eq!(outcomes.notices, outcomes.pushes_seen);
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_second_final_notice_is_found() {
    let ended = World::new(Fault::NoticesTwice).run(100);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("a second final notice"), "{findings:?}");
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_confirm_of_what_the_bank_refused_is_found_and_not_credited() {
    let ended = World::new(Fault::ConfirmsTheRefused).run(2_000);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("stands at No"), "{findings:?}");
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_mandate_that_is_not_the_banks_is_found() {
    let ended = World::new(Fault::WrongMandate).run(1_000);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("mandate"), "{findings:?}");
}

#[test]
fn a_refund_that_had_to_be_refused_and_was_not_is_unexpected() {
    let ended = World::new(Fault::RefundsWithoutEnd).run(5_000);
    let outcomes = &ended.outcomes;
    assert!(outcomes.rejected_unexpected > 0);
    assert!(
        outcomes.findings[0].contains("made to be refused with RefundExceedsOriginal"),
        "{:?}",
        outcomes.findings
    );
}

#[test]
fn a_request_that_reaches_the_bank_changed_is_found() {
    let ended = World::new(Fault::SignsUnasked).run_until_quiet(100);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("not what was asked for"), "{findings:?}");
}

#[test]
fn a_second_final_answer_is_found() {
    let Ended { outcomes, .. } = World::new(Fault::AnswersTwice).run(100);
    assert!(
        outcomes.findings[0].contains("a second final answer"),
        "{:?}",
        outcomes.findings
    );
}

#[test]
fn a_request_forwarded_twice_is_found() {
    let Ended { outcomes, .. } = World::new(Fault::ForwardsTwice).run(100);
    assert!(outcomes.findings[0].contains("twice"), "{:?}", outcomes.findings);
}

#[test]
fn a_committed_amount_that_is_not_the_asked_one_is_found() {
    let Ended { outcomes, .. } = World::new(Fault::WrongAmount).run(100);
    assert!(outcomes.findings[0].contains("asked for"), "{:?}", outcomes.findings);
}

#[test]
fn words_lost_with_a_link_come_again_and_count_once() {
    let Ended { outcomes, .. } = World::new(Fault::DropsLink).run(2_000);
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert_eq!(outcomes.links_lost, 1);
    assert_eq!(outcomes.in_flight(), 0);
    assert_eq!(outcomes.rejected_unexpected, 0);
}

#[test]
fn what_is_not_taken_at_the_door_is_asked_for_again_with_the_same_id() {
    let Ended { outcomes, .. } = World::new(Fault::TakesNothingAtFirst).run(500);
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert_eq!(outcomes.not_taken, outcomes.offered);
    assert!(outcomes.retries_sent >= outcomes.not_taken);
    assert_eq!(outcomes.rejected_unexpected, 0);
}

#[test]
fn a_bank_asked_about_what_it_never_saw_says_so() {
    let Ended { outcomes, .. } = World::new(Fault::AsksStatusOnly).run(200);
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert_eq!(outcomes.committed, 0);
    assert!(outcomes.by_code[Code::LinkDown as usize] >= 199);
    assert_eq!(outcomes.rejected_unexpected, outcomes.by_code[Code::LinkDown as usize]);
}

#[test]
fn a_run_waits_for_the_reversals_of_what_expired_and_the_banks_books_agree() {
    let ended = World::new(Fault::Reverses).run(200);
    assert_eq!(ended.outcomes.findings, Vec::<String>::new());
    assert!(ended.outcomes.expired > 150);
    assert_eq!(ended.outcomes.confirmed, 0);
    assert_eq!(ended.differences(), Vec::<String>::new());
}
