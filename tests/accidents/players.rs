//! Institutions and banks that behave, go on through whatever becomes of the switch, and believe nobody but their books.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use clearway::config::Directory;
use clearway::domain::{Code, PaymentId};
use clearway::wire::{
    Answer, AnswerFlags, Frame, PaymentRequest, Regarding, Reply, ReplyOutcome, Reversal, StatusRequest, Template,
};

use crate::support::*;

/// Payments an institution has open at a time.
const OPEN_MAX: usize = 48;
/// Answered payments an institution asks about again on each new link.
const ASKED_AGAIN: usize = 40;
/// Answered payments an institution asks about again when all is over: all of them, but after a long flood.
const ASKED_AT_THE_END: usize = 10_000;
/// One payment in so many is declined by its bank.
const DECLINED_EVERY: u64 = 11;
/// How often a player that hears nothing looks around.
const LOOK: Duration = Duration::from_millis(50);

/// What all players know: where the switch is, and when to end.
pub(crate) struct Scheme {
    pub(crate) directory: Directory,
    /// How often the switch has been started, and where it listens.
    place: Mutex<(u64, Option<SocketAddr>)>,
    moved: Condvar,
    /// No new payments.
    stop: AtomicBool,
    /// Nothing is sent for the time being.
    paused: AtomicBool,
    /// Nothing more will come.
    over: AtomicBool,
    answered: AtomicU64,
}

impl Scheme {
    pub(crate) fn new(directory: &Directory) -> Arc<Self> {
        Arc::new(Self {
            directory: directory.clone(),
            place: Mutex::default(),
            moved: Condvar::new(),
            stop: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        })
    }

    /// The switch has been started, and listens there.
    pub(crate) fn started(&self, address: SocketAddr) {
        let mut place = self.place.lock().unwrap();
        *place = (place.0 + 1, Some(address));
        self.moved.notify_all();
    }

    /// Payments with a final answer, of all institutions.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// The switch after its `start`th start; `None` when all is over. A link that is lost while the switch stands is lost
    /// through no fault of its player: that fails the test.
    fn place_after(&self, start: u64) -> Option<(u64, SocketAddr)> {
        let waits = |place: &mut (u64, Option<SocketAddr>)| place.0 <= start && !self.over.load(Ordering::Relaxed);
        let place = self.place.lock().unwrap();
        let (place, wait) = self.moved.wait_timeout_while(place, 3 * PATIENCE, waits).unwrap();
        assert!(
            !wait.timed_out(),
            "a player lost its link though nobody ended the switch"
        );
        if place.0 <= start {
            None
        } else {
            place.1.map(|at| (place.0, at))
        }
    }

    fn end(&self) {
        let _place = self.place.lock().unwrap();
        self.over.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }
}

/// An institution: pays, retries with the same id, asks again what it knows.
pub(crate) struct Institution {
    scheme: Arc<Scheme>,
    pub(crate) index: u16,
    banks: Range<u16>,
    /// By serial, from 1.
    pub(crate) requests: Vec<PaymentRequest>,
    /// Final answers by serial, as they came first.
    pub(crate) answers: BTreeMap<u64, Answer>,
    /// Whose answer each word was.
    words: BTreeMap<u64, u64>,
    last_word: u64,
    /// Serials to send, again or for the first time.
    to_send: VecDeque<u64>,
    /// Serials sent on this link without a final answer yet.
    outstanding: BTreeSet<u64>,
    /// What is asked again at the end has been.
    asked_all: bool,
}

impl Institution {
    fn run(mut self) -> Self {
        let mut start = 0;
        while let Some((now, address)) = self.scheme.place_after(start) {
            start = now;
            let link =
                Participant::try_connect_as(address, &self.scheme.directory, self.index, &establish(self.last_word));
            if link.is_some_and(|link| self.talk(link)) {
                return self;
            }
        }
        self
    }

    /// Pays over this link; false when it is lost.
    fn talk(&mut self, mut link: Participant) -> bool {
        self.outstanding.clear();
        self.asked_all = false;
        let every = (self.answers.len() / ASKED_AGAIN).max(1);
        let (answers, last) = (&self.answers, self.requests.len() as u64);
        self.to_send = (1..=last).filter(|serial| !answers.contains_key(serial)).collect();
        self.to_send.extend(answers.keys().rev().step_by(every));
        let mut quiet = 0;
        loop {
            if link.stream.write_all(&self.batch()).is_err() {
                return false;
            }
            let told_all = self.last_word + 1 >= link.next_word;
            if self.outstanding.is_empty() && self.asked_all && told_all {
                return true;
            }
            match link.poll(LOOK) {
                Heard::Frame(Template::Answer, frame) => self.answer(&Answer::read(&frame)),
                Heard::Frame(Template::Terminate, _) => {}
                Heard::Frame(other, _) => panic!("{other:?} came to an institution"),
                Heard::Nothing => quiet += 1,
                Heard::End(_) => return false,
            }
            assert!(
                LOOK * quiet < 6 * PATIENCE,
                "institution {} waits for {:?}, words up to {} of {}",
                self.index,
                self.outstanding,
                self.last_word,
                link.next_word - 1
            );
        }
    }

    /// What may be sent now.
    fn batch(&mut self) -> Vec<u8> {
        let stopped = self.scheme.stop.load(Ordering::Relaxed);
        let mut batch = Vec::new();
        let paused = self.scheme.paused.load(Ordering::Relaxed);
        while self.outstanding.len() < OPEN_MAX && !paused {
            if stopped && self.to_send.is_empty() && self.outstanding.is_empty() && !self.asked_all {
                self.asked_all = true;
                let every = self.answers.len() / ASKED_AT_THE_END + 1;
                self.to_send = self.answers.keys().step_by(every).copied().collect();
            }
            let serial = match self.to_send.pop_front() {
                Some(serial) => serial,
                None if stopped => break,
                None => self.new_payment(),
            };
            self.outstanding.insert(serial);
            batch.extend_from_slice(bytemuck::bytes_of(&self.requests[serial as usize - 1]));
        }
        batch
    }

    fn new_payment(&mut self) -> u64 {
        let serial = self.requests.len() as u64 + 1;
        let bank = self.banks.start + (serial % self.banks.len() as u64) as u16;
        self.requests.push(debit(self.index, bank, serial, 1 + serial % 97));
        serial
    }

    fn answer(&mut self, answer: &Answer) {
        let serial = answer.id.serial();
        if answer.word == 0 {
            match code(answer) {
                Code::InProgress => {}
                Code::NotTaken => {
                    self.outstanding.remove(&serial);
                    self.to_send.push_back(serial);
                }
                other => panic!("{} was refused with {other:?}", answer.id),
            }
            return;
        }
        let whose = *self.words.entry(answer.word).or_insert(serial);
        assert_eq!(whose, serial, "word {} was told with two payments", answer.word);
        while self.words.contains_key(&(self.last_word + 1)) {
            self.last_word += 1;
        }
        self.outstanding.remove(&serial);
        match self.answers.get(&serial) {
            Some(first) => assert_same(first, answer),
            None => {
                let expected = if is_declined(serial) {
                    Code::CustomerFunds
                } else {
                    Code::Committed
                };
                // A request that was lost with the switch before its bank had it ends with 31.
                assert!([expected, Code::LinkDown].contains(&code(answer)), "{answer:?}");
                self.answers.insert(serial, *answer);
                self.scheme.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Same in every field but the duplicate flag, the number in the flow and the CRC.
fn assert_same(first: &Answer, again: &Answer) {
    let neutral = |answer: &Answer| {
        let mut answer = *answer;
        answer.flags &= !(AnswerFlags::DUPLICATE | AnswerFlags::RETRANSMITTED);
        answer.word = 0;
        answer.sealed()
    };
    assert_eq!(
        bytemuck::bytes_of(&neutral(first)),
        bytemuck::bytes_of(&neutral(again)),
        "the answer to {} has changed:\n{first:?}\n{again:?}",
        first.id
    );
}

/// What a bank does about a payment depends on its serial alone.
fn is_declined(serial: u64) -> bool {
    serial.is_multiple_of(DECLINED_EVERY)
}

/// What a bank knows, over all its links.
#[derive(Default)]
pub(crate) struct BankBook {
    /// What it was sent.
    pub(crate) requests: HashMap<PaymentId, PaymentRequest>,
    /// What it said it had never seen, and so refuses for ever.
    refused: HashSet<PaymentId>,
    pub(crate) reversed: HashSet<PaymentId>,
    /// How often it was asked what became of a payment.
    pub(crate) asked: u64,
}

impl BankBook {
    /// True when it did the payment.
    pub(crate) fn did(&self, id: &PaymentId) -> bool {
        self.requests.contains_key(id) && !is_declined(id.serial()) && !self.refused.contains(id)
    }

    fn verdict(&self, request: &PaymentRequest) -> Reply {
        if self.did(&request.body.id) {
            yes(request)
        } else {
            reply(request, ReplyOutcome::No, Code::CustomerFunds as u8)
        }
    }

    fn reply(&mut self, template: Template, frame: &[u8]) -> Option<Reply> {
        match template {
            Template::PaymentRequest => {
                let request = PaymentRequest::read(frame);
                let known = self.requests.insert(request.body.id, request);
                assert!(known.is_none(), "{} was sent to the bank twice", request.body.id);
                Some(self.verdict(&request))
            }
            Template::StatusRequest => {
                let asked = StatusRequest::read(frame);
                self.asked += 1;
                Some(match self.requests.get(&asked.id) {
                    Some(request) => regarding(self.verdict(request), Regarding::Status),
                    None => {
                        self.refused.insert(asked.id);
                        about(asked.id, asked.amount_minor, ReplyOutcome::NeverSeen, Regarding::Status)
                    }
                })
            }
            Template::Reversal => {
                let reversal = Reversal::read(frame);
                self.reversed.insert(reversal.id);
                let outcome = ReplyOutcome::Acknowledged;
                Some(about(reversal.id, reversal.amount_minor, outcome, Regarding::Reversal))
            }
            Template::Terminate => None,
            other => panic!("{other:?} came to a bank"),
        }
    }
}

fn about(id: PaymentId, amount_minor: u64, outcome: ReplyOutcome, on: Regarding) -> Reply {
    let mut request = debit(0, 0, 0, amount_minor);
    request.body.id = id;
    regarding(reply(&request, outcome, 0), on)
}

fn serve(scheme: &Scheme, index: u16, book: &Mutex<BankBook>) {
    let mut start = 0;
    while let Some((now, address)) = scheme.place_after(start) {
        start = now;
        let Some(mut link) = Participant::try_connect_as(address, &scheme.directory, index, &establish(0)) else {
            continue;
        };
        loop {
            match link.poll(LOOK) {
                Heard::Frame(template, frame) => {
                    let reply = book.lock().unwrap().reply(template, &frame);
                    let lost = reply.is_some_and(|reply| {
                        let bytes = bytemuck::bytes_of(&reply.sealed()).to_vec();
                        link.stream.write_all(&bytes).is_err()
                    });
                    if lost {
                        break;
                    }
                }
                Heard::Nothing if scheme.over.load(Ordering::Relaxed) => return,
                Heard::Nothing => {}
                Heard::End(_) => break,
            }
        }
    }
}

struct Bank {
    index: u16,
    book: Arc<Mutex<BankBook>>,
    links: Vec<JoinHandle<()>>,
}

/// All who behave.
pub(crate) struct Load {
    pub(crate) scheme: Arc<Scheme>,
    institutions: Vec<JoinHandle<Institution>>,
    banks: Vec<Bank>,
}

/// What they know at the end.
pub(crate) struct Known {
    pub(crate) institutions: Vec<Institution>,
    pub(crate) banks: Vec<(u16, BankBook)>,
    /// Answers to payments that the test made itself.
    pub(crate) others: Vec<Answer>,
}

impl Load {
    /// These institutions pay from accounts at these banks, each bank with so many links, from the first start on.
    pub(crate) fn new(directory: &Directory, institutions: Range<u16>, banks: Range<u16>, links: usize) -> Self {
        let scheme = Scheme::new(directory);
        let pays = |index| {
            let institution = Institution {
                scheme: Arc::clone(&scheme),
                index,
                banks: banks.clone(),
                requests: Vec::new(),
                answers: BTreeMap::new(),
                words: BTreeMap::new(),
                last_word: 0,
                to_send: VecDeque::new(),
                outstanding: BTreeSet::new(),
                asked_all: false,
            };
            std::thread::spawn(move || institution.run())
        };
        let serves = |index| {
            let book = Arc::new(Mutex::new(BankBook::default()));
            let links = (0..links).map(|_| {
                let (scheme, book) = (Arc::clone(&scheme), Arc::clone(&book));
                std::thread::spawn(move || serve(&scheme, index, &book))
            });
            let links = links.collect();
            Bank { index, book, links }
        };
        let banks: Vec<_> = banks.clone().map(serves).collect();
        Self {
            institutions: institutions.map(pays).collect(),
            banks,
            scheme,
        }
    }

    /// Waits until so many payments more are answered.
    pub(crate) fn go_on(&self, payments: u64) {
        let enough = self.scheme.answered() + payments;
        eventually_within(3 * PATIENCE, "the load goes on", || {
            self.check();
            self.scheme.answered() >= enough
        });
    }

    /// Institutions send nothing from now on, or go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.scheme.paused.store(paused, Ordering::Relaxed);
    }

    /// Fails when a player has.
    pub(crate) fn check(&self) {
        let banks = self.banks.iter().flat_map(|bank| &bank.links);
        let ended =
            self.institutions.iter().any(JoinHandle::is_finished) || banks.into_iter().any(JoinHandle::is_finished);
        assert!(!ended, "a player has failed");
    }

    /// No new payments; what is open is waited for, and everything asked once more.
    pub(crate) fn finish(self) -> Known {
        self.scheme.stop.store(true, Ordering::Relaxed);
        let institutions = self
            .institutions
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        self.scheme.end();
        let known = self.banks.into_iter().map(|bank| {
            for link in bank.links {
                link.join().unwrap();
            }
            let book = Arc::into_inner(bank.book)
                .expect("its links are gone")
                .into_inner()
                .unwrap();
            (bank.index, book)
        });
        Known {
            institutions,
            banks: known.collect(),
            others: Vec::new(),
        }
    }
}
