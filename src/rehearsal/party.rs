//! A participant: its links and sessions, the words it has, and its trade (institution or bank). Its memory outlives the
//! switch's crashes; what it knows it knows from its own lines alone.

use std::collections::BTreeMap;

use super::bank::Bank;
use super::institution::Institution;
use super::plan::{Habits, Plan};
use crate::config::{DirectoryEntry, demo_credential};
use crate::domain::{MILLISECOND, ParticipantIndex, PaymentId, Role, SECOND, SchemeCode};
use crate::sim::{Random, WordTracker};
use crate::wire::{
    Answer, Credit, Establish, EstablishmentAck, Frame, Negotiate, NegotiationResponse, RetransmitRequest, Reversal,
    Sequence, Template, decode,
};

/// What a participant asked to be woken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wake {
    /// Say something on the line, if nothing was said for long; look whether the switch is silent.
    Beat { line: usize, epoch: u32 },
    /// Look for gaps among the words.
    Gap,
    /// An institution makes its next payment.
    Pay,
    /// An institution asks again for what is not final.
    Retry(PaymentId),
    /// A bank says what it decided.
    Reply(u64),
    /// Ask something.
    Ask,
}

/// What a participant does.
#[derive(Debug)]
pub(super) enum Act {
    Send { line: usize, bytes: Vec<u8> },
    Wake { at: u64, wake: Wake },
    Close { line: usize, reset: bool },
}

/// One turn of a participant.
pub(super) struct Turn<'a> {
    pub(super) now: u64,
    pub(super) random: &'a mut Random,
    pub(super) habits: Habits,
    /// Faults and lies are over: everybody now does what is right, and soon.
    pub(super) healing: bool,
    /// All is at rest: what is told now is the last word on everything.
    pub(super) at_rest: bool,
    /// How long banks keep replies to requests back once they are healed.
    pub(super) hold_ns: u64,
    pub(super) lies: u64,
    pub(super) acts: Vec<Act>,
}

impl Turn<'_> {
    pub(super) fn chance(&mut self, per_hundred_thousand: u32) -> bool {
        !self.healing && self.random.chance(per_hundred_thousand)
    }

    pub(super) fn wake_in(&mut self, nanos: u64, wake: Wake) {
        let at = self.now + nanos;
        self.acts.push(Act::Wake { at, wake });
    }

    pub(super) fn send(&mut self, line: usize, frame: &impl Frame) {
        let bytes = bytemuck::bytes_of(&frame.sealed()).to_vec();
        self.acts.push(Act::Send { line, bytes });
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SessionState {
    Down,
    Negotiating,
    Establishing,
    Up,
}

/// A participant's end of one link.
#[derive(Debug)]
struct Session {
    line: usize,
    epoch: u32,
    state: SessionState,
    id: u64,
    carry: Vec<u8>,
    keepalive_ms: u32,
    switch_silence_ns: u64,
    heard_at: u64,
    said_at: u64,
}

#[derive(Debug)]
pub(super) enum Trade {
    Institution(Institution),
    Bank(Bank),
}

/// A participant.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) index: ParticipantIndex,
    code: SchemeCode,
    sessions: Vec<Session>,
    pub(super) words: WordTracker,
    pub(super) trade: Trade,
    /// What it states in Establish; 0 = as the directory says. The directory's own is the upper bound.
    contract: u32,
    contract_max: u32,
    contract_factor: u32,
    sessions_begun: u64,
    /// It has sent what is no frame.
    has_strayed: bool,
    /// The contract it has stated on each line, as the witness must hold the switch to it.
    pub(super) stated: BTreeMap<usize, u32>,
}

impl Party {
    pub(super) fn new(entry: &DirectoryEntry, lines: std::ops::Range<usize>, plan: &Plan) -> Self {
        let index = entry.terms.index;
        let sessions = lines.map(Session::new).collect();
        let trade = match entry.role() {
            Role::Institution => Trade::Institution(Institution::new(index, plan)),
            Role::Bank => Trade::Bank(Bank::new(index)),
        };
        let lie = plan.plant == Some(super::Plant::LargerContract);
        Self {
            index,
            code: entry.terms.code,
            sessions,
            words: WordTracker::default(),
            trade,
            contract: if lie {
                entry.terms.contract.request_in_flight_max.div_ceil(2)
            } else {
                0
            },
            contract_max: entry.terms.contract.request_in_flight_max,
            contract_factor: if lie { 2 } else { 1 },
            sessions_begun: 0,
            has_strayed: false,
            stated: BTreeMap::new(),
        }
    }

    pub(super) fn is_bank(&self) -> bool {
        matches!(self.trade, Trade::Bank(_))
    }

    /// True when it has never sent what is no frame, nor lied.
    pub(super) fn is_blameless(&self) -> bool {
        let has_lied = match &self.trade {
            Trade::Bank(bank) => bank.has_lied,
            Trade::Institution(_) => false,
        };
        !self.has_strayed && !has_lied
    }

    /// The lines whose flow has started.
    pub(super) fn lines_up(&self) -> Vec<usize> {
        let up = self.sessions.iter().filter(|session| session.state == SessionState::Up);
        up.map(|session| session.line).collect()
    }

    /// The contract toward this participant on a line, as it knows it.
    pub(super) fn contract_of(&self, line: usize) -> u32 {
        match self.stated.get(&line) {
            Some(&stated) if stated > 0 => stated.min(self.contract_max),
            Some(_) | None => self.contract_max,
        }
    }

    fn session(&mut self, line: usize) -> &mut Session {
        let found = self.sessions.iter_mut().find(|session| session.line == line);
        found.expect("a participant is given its own lines only")
    }

    /// The line is connected: sign on.
    pub(super) fn connected(&mut self, line: usize, epoch: u32, turn: &mut Turn<'_>) {
        self.sessions_begun += 1;
        let id = (u64::from(self.index.0) << 32) + self.sessions_begun;
        let (code, credential) = (self.code, demo_credential(&self.code));
        let keepalive_ms = 1_000 + turn.random.below(9_000) as u32;
        let session = self.session(line);
        (session.epoch, session.state, session.id) = (epoch, SessionState::Negotiating, id);
        session.carry.clear();
        session.keepalive_ms = keepalive_ms;
        session.switch_silence_ns = 30 * SECOND;
        (session.heard_at, session.said_at) = (turn.now, turn.now);
        turn.send(
            line,
            &Negotiate {
                session_id: id,
                timestamp_ns: turn.now,
                code,
                credential,
                ..bytemuck::Zeroable::zeroed()
            },
        );
        let beat = u64::from(keepalive_ms) * MILLISECOND / 2;
        turn.wake_in(beat, Wake::Beat { line, epoch });
    }

    pub(super) fn gone(&mut self, line: usize) {
        self.session(line).state = SessionState::Down;
    }

    /// Bytes came. Whole frames go to the session, the words, the trade.
    pub(super) fn received(&mut self, line: usize, bytes: &[u8], turn: &mut Turn<'_>) -> Result<(), String> {
        let session = self.session(line);
        if session.state == SessionState::Down {
            return Ok(());
        }
        session.carry.extend_from_slice(bytes);
        session.heard_at = turn.now;
        let carry = std::mem::take(&mut session.carry);
        let mut rest = carry.as_slice();
        loop {
            match decode(rest) {
                Ok(Some((template, length))) => {
                    self.frame(line, template, &rest[..length], turn)?;
                    rest = &rest[length..];
                }
                Ok(None) => break,
                Err(error) => return Err(format!("participant {} received no frame: {error}", self.index)),
            }
        }
        self.session(line).carry = rest.to_vec();
        Ok(())
    }

    fn frame(&mut self, line: usize, template: Template, frame: &[u8], turn: &mut Turn<'_>) -> Result<(), String> {
        let (index, last_word) = (self.index, self.words.contiguous());
        match template {
            Template::NegotiationResponse => {
                let response = NegotiationResponse::read(frame);
                if response.participant != index {
                    return Err(format!("participant {index} is taken for {}", response.participant));
                }
                let (contract, factor) = (self.contract, self.contract_factor);
                let forget = turn.habits.forget;
                let last_word = if turn.chance(forget) {
                    turn.random.below(last_word + 1)
                } else {
                    last_word
                };
                self.stated.insert(line, contract);
                let session = self.session(line);
                session.state = SessionState::Establishing;
                let establish = Establish {
                    session_id: session.id,
                    timestamp_ns: turn.now,
                    last_word,
                    keepalive_ms: session.keepalive_ms,
                    credit_in_flight: contract * factor,
                    ..bytemuck::Zeroable::zeroed()
                };
                turn.send(line, &establish);
            }
            Template::EstablishmentAck => {
                let ack = EstablishmentAck::read(frame);
                self.words.announce(ack.next_word);
                let session = self.session(line);
                session.state = SessionState::Up;
                session.switch_silence_ns = 3 * u64::from(ack.keepalive_ms) * MILLISECOND;
                turn.wake_in(1_200 * MILLISECOND, Wake::Gap);
                self.came_up(line, turn);
            }
            Template::Sequence => {
                self.words.announce(Sequence::read(frame).next_word);
                turn.wake_in(1_200 * MILLISECOND, Wake::Gap);
            }
            Template::NegotiationReject | Template::EstablishmentReject | Template::Terminate => {
                // The switch closes behind it; what came before counts.
                self.session(line).state = SessionState::Establishing;
            }
            Template::Answer => {
                let answer = Answer::read(frame);
                let new = answer.word == 0 || self.words.take(answer.word);
                if let Trade::Institution(institution) = &mut self.trade {
                    institution.answered(&answer, new, line, turn)?;
                }
            }
            Template::Reversal => {
                let _heard_before = self.words.take(Reversal::read(frame).word);
                if let Trade::Bank(bank) = &mut self.trade {
                    bank.frame(line, template, frame, turn)?;
                }
            }
            Template::FinalNotice => {
                let new = self.words.take(crate::wire::FinalNotice::read(frame).word);
                if let (Trade::Bank(bank), true) = (&mut self.trade, new) {
                    bank.frame(line, template, frame, turn)?;
                }
            }
            Template::PaymentRequest | Template::StatusRequest => match &mut self.trade {
                Trade::Bank(bank) => bank.frame(line, template, frame, turn)?,
                Trade::Institution(_) => return Err(format!("institution {index} is sent {template:?}")),
            },
            Template::InquiryAnswer => {
                if let Trade::Institution(institution) = &mut self.trade {
                    institution.told(&crate::wire::InquiryAnswer::read(frame), turn.at_rest)?;
                }
            }
            Template::Credit | Template::Retransmission => {}
            Template::Negotiate
            | Template::Establish
            | Template::RetransmitRequest
            | Template::Reply
            | Template::Inquiry => return Err(format!("participant {index} is sent {template:?}")),
        }
        Ok(())
    }

    /// The flow has started: a bank may change its contract now and then.
    fn came_up(&mut self, line: usize, turn: &mut Turn<'_>) {
        let recontract = turn.habits.recontract;
        if self.is_bank() && turn.chance(recontract) {
            let in_flight = 1 + turn.random.below(u64::from(self.contract_max)) as u32;
            // Until the switch has read it either contract may hold: the witness goes by the larger one.
            let larger = self.contract_of(line).max(in_flight);
            self.stated.insert(line, larger);
            let credit = Credit {
                in_flight,
                ..bytemuck::Zeroable::zeroed()
            };
            turn.send(line, &credit);
        }
    }

    pub(super) fn said(&mut self, line: usize, now: u64) {
        self.session(line).said_at = now;
    }

    pub(super) fn wake(&mut self, wake: Wake, turn: &mut Turn<'_>) -> Result<(), String> {
        let up = self.lines_up();
        match wake {
            Wake::Beat { line, epoch } => {
                let session = self.session(line);
                if session.epoch != epoch || session.state == SessionState::Down {
                    return Ok(());
                }
                if turn.now.saturating_sub(session.heard_at) > session.switch_silence_ns {
                    turn.acts.push(Act::Close { line, reset: false });
                    return Ok(());
                }
                let interval = u64::from(session.keepalive_ms) * MILLISECOND / 2;
                let quiet = turn.now.saturating_sub(session.said_at) >= interval / 2;
                if session.state == SessionState::Up && quiet {
                    turn.send(line, &<Sequence as bytemuck::Zeroable>::zeroed());
                }
                turn.wake_in(interval, wake);
            }
            Wake::Gap => {
                if let Some((from_word, count)) = self.words.overdue_gap(turn.now) {
                    if let Some(&line) = up.first() {
                        turn.send(
                            line,
                            &RetransmitRequest {
                                from_word,
                                count,
                                ..bytemuck::Zeroable::zeroed()
                            },
                        );
                    }
                    turn.wake_in(1_100 * MILLISECOND, Wake::Gap);
                }
            }
            Wake::Pay | Wake::Retry(_) => {
                if let Trade::Institution(institution) = &mut self.trade {
                    institution.wake(wake, &up, turn);
                }
            }
            Wake::Reply(number) => {
                if let Trade::Bank(bank) = &mut self.trade {
                    bank.reply_now(number, &up, turn);
                }
            }
            Wake::Ask => self.ask(&up, turn),
        }
        Ok(())
    }

    /// Asks about a payment, or for words it has had before, or says what is no frame.
    fn ask(&mut self, up: &[usize], turn: &mut Turn<'_>) {
        if !turn.healing {
            let pause = 200 * MILLISECOND + turn.random.below(3 * SECOND);
            turn.wake_in(pause, Wake::Ask);
        }
        let Some(&line) = up.first() else { return };
        let (ask, garbage) = (turn.habits.ask, turn.habits.garbage);
        if turn.chance(garbage) {
            turn.lies += 1;
            self.has_strayed = true;
            let length = 1 + turn.random.below(200) as usize;
            let bytes = (0..length).map(|_| turn.random.bits() as u8).collect();
            turn.acts.push(Act::Send { line, bytes });
            return;
        }
        if turn.chance(ask) && self.words.contiguous() > 0 {
            let from_word = 1 + turn.random.below(self.words.contiguous());
            let request = RetransmitRequest {
                from_word,
                count: 1 + turn.random.below(200) as u32,
                ..bytemuck::Zeroable::zeroed()
            };
            turn.send(line, &request);
        }
        let past = turn.habits.past;
        match &mut self.trade {
            Trade::Institution(institution) => {
                if turn.chance(ask) {
                    institution.inquire(line, turn);
                }
                if turn.chance(past) {
                    institution.repeat_the_past(line, turn);
                }
            }
            Trade::Bank(bank) => {
                if turn.chance(past) {
                    bank.inquire(line, turn);
                }
            }
        }
    }

    /// Asks for all words from the first on: what was told once must be told the same.
    pub(super) fn ask_for_all_words(&self, turn: &mut Turn<'_>) {
        if let Some(&line) = self.lines_up().first() {
            let request = RetransmitRequest {
                from_word: 1,
                count: u32::MAX,
                ..bytemuck::Zeroable::zeroed()
            };
            turn.send(line, &request);
        }
    }
}

impl Session {
    fn new(line: usize) -> Self {
        Self {
            line,
            epoch: 0,
            state: SessionState::Down,
            id: 0,
            carry: Vec::new(),
            keepalive_ms: 1_000,
            switch_silence_ns: u64::MAX,
            heard_at: 0,
            said_at: 0,
        }
    }
}
