//! The witness: sees every frame that the switch hands to a line, and every reply that reaches the switch, and knows what
//! must never be. It remembers across the switch's crashes and is told nothing that no line carried.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{Code, ParticipantIndex, PaymentId, PaymentState};
use crate::wire::{
    Answer, AnswerFlags, EstablishmentAck, FinalNotice, Frame, FrameHeader, InquiryAnswer, NegotiationReject,
    PaymentRequest, Reversal, Sequence, StatusRequest, Template, Terminate, TerminateCode, decode,
};

/// Status requests a payment gets at most, each time the ladder begins.
const STATUS_REQUESTS_MAX: u64 = 3;

/// A request out on a line.
#[derive(Clone, Copy, Debug)]
struct Out {
    line: usize,
    epoch: u32,
    /// From when on the switch may have given it up.
    until: u64,
}

/// What a participant was told under a word's number.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Word {
    Answer(Vec<u8>),
    /// Attempts and flags differ from telling to telling.
    Reversal(PaymentId, u64, u16),
    Notice(Vec<u8>),
}

/// The witness.
#[derive(Debug, Default)]
pub(super) struct Witness {
    finals: BTreeMap<PaymentId, Answer>,
    /// On which lines, or in which earlier life of the switch, a final answer was told: lines overtake each other, so what
    /// comes later on another line may be older.
    finals_told: BTreeSet<(PaymentId, usize, u32)>,
    finals_before: BTreeSet<PaymentId>,
    /// The highest word told on a line, and to a participant before the switch's last start.
    words_on_line: BTreeMap<(usize, u32), u64>,
    words_before: BTreeMap<ParticipantIndex, u64>,
    words: BTreeMap<ParticipantIndex, BTreeMap<u64, Word>>,
    /// Requests that were handed to a line toward a bank.
    pub(super) requests: BTreeMap<PaymentId, ParticipantIndex>,
    out: BTreeMap<PaymentId, Out>,
    /// Requests that reached the switch and to which no line has carried an answer.
    asked: BTreeMap<PaymentId, u64>,
    statuses: BTreeMap<PaymentId, u64>,
    pub(super) reversals: BTreeSet<PaymentId>,
    /// The highest attempt of a Reversal that was told, and when the last one was raised.
    attempts: BTreeMap<PaymentId, (u8, u64)>,
    all_is_asked_for: bool,
    pub(super) notices: BTreeMap<PaymentId, FinalNotice>,
    /// Words told since all were asked for, by participant.
    retold: BTreeMap<ParticipantIndex, BTreeSet<u64>>,
    pub(super) starts: u64,
    pub(super) words_again: u64,
}

/// Where and when a frame was handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) party: ParticipantIndex,
    pub(super) line: usize,
    pub(super) epoch: u32,
    pub(super) now: u64,
    /// The contract on this line.
    pub(super) in_flight_max: u32,
    /// The bank's T2 − Tq: not before that long after the sending may a request be given up.
    pub(super) patience_ns: u64,
    /// The participant has never sent what is no frame, nor lied.
    pub(super) is_blameless: bool,
}

impl Witness {
    /// The switch hands `bytes` to a line; gives what they were, for the log.
    pub(super) fn sent(&mut self, place: Place, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut rest = bytes;
        let mut told = Vec::new();
        while !rest.is_empty() {
            let Ok(Some((template, length))) = decode(rest) else {
                return Err(format!("participant {} is sent what is no frame", place.party));
            };
            told.push(self.frame(place, template, &rest[..length])?);
            rest = &rest[length..];
        }
        Ok(told)
    }

    fn frame(&mut self, place: Place, template: Template, frame: &[u8]) -> Result<String, String> {
        match template {
            Template::PaymentRequest => self.request(place, &PaymentRequest::read(frame)),
            Template::StatusRequest => self.status(place, &StatusRequest::read(frame)),
            Template::Answer => self.answer(place, &Answer::read(frame)),
            Template::Reversal => self.reversal(place, &Reversal::read(frame)),
            Template::FinalNotice => self.notice(place, &FinalNotice::read(frame)),
            Template::InquiryAnswer => self.inquiry_answer(place, &InquiryAnswer::read(frame)),
            Template::Sequence => self.next_word(place, Sequence::read(frame).next_word, "Sequence"),
            Template::EstablishmentAck => self.next_word(place, EstablishmentAck::read(frame).next_word, "Establish"),
            Template::NegotiationResponse | Template::EstablishmentReject => Ok(format!("{template:?}")),
            Template::NegotiationReject => cut(place, NegotiationReject::read(frame).code),
            Template::Terminate => cut(place, Terminate::read(frame).code),
            Template::Negotiate
            | Template::Establish
            | Template::RetransmitRequest
            | Template::Retransmission
            | Template::Credit
            | Template::Reply
            | Template::Inquiry => Err(format!("participant {} is sent {template:?}", place.party)),
        }
    }

    fn request(&mut self, place: Place, request: &PaymentRequest) -> Result<String, String> {
        let id = request.body.id;
        if request.body.responder != place.party {
            return Err(format!(
                "the request {id} goes to {}, it is for {}",
                place.party, request.body.responder
            ));
        }
        if self.requests.insert(id, place.party).is_some() {
            return Err(format!("the request {id} was sent to its bank a second time"));
        }
        if let Some(answer) = self.finals.get(&id) {
            return Err(format!(
                "the request {id} was sent after its answer {} was told",
                answer.code
            ));
        }
        self.out.retain(|_, out| out.until > place.now);
        let here = Out {
            line: place.line,
            epoch: place.epoch,
            until: place.now + place.patience_ns,
        };
        self.out.insert(id, here);
        let on_line = |out: &&Out| out.line == place.line && out.epoch == place.epoch;
        let unanswered = self.out.values().filter(on_line).count();
        if unanswered > place.in_flight_max as usize {
            return Err(format!(
                "invariant 10: line {} of bank {} holds {unanswered} unanswered requests, its contract is {}",
                place.line, place.party, place.in_flight_max
            ));
        }
        Ok(format!("request {id}, {unanswered} of {} out", place.in_flight_max))
    }

    fn status(&mut self, place: Place, request: &StatusRequest) -> Result<String, String> {
        let id = request.id;
        let asked = self.statuses.entry(id).or_insert(0);
        *asked += 1;
        if *asked > STATUS_REQUESTS_MAX * self.starts {
            return Err(format!("bank {} is asked about {id} {asked} times", place.party));
        }
        Ok(format!("status request {id}, attempt {}", request.attempt))
    }

    fn answer(&mut self, place: Place, answer: &Answer) -> Result<String, String> {
        let (id, code) = (answer.id, answer.code);
        let told = format!(
            "answer {id} code {code} state {} word {} flags {}",
            answer.state, answer.word, answer.flags
        );
        if answer.word == 0 {
            let is_interim = matches!(
                Code::from_u8(code),
                Some(Code::InProgress | Code::DateNotOpen | Code::IdReused)
            );
            let is_door = Code::from_u8(code).is_some_and(Code::is_door_refusal);
            let was_final = self.was_final_before(place, id);
            // While a repetition waits for the register, a second one is told so.
            let waits = self.asked.get(&id).is_some_and(|&waiting| waiting > 1);
            if code == Code::InProgress as u8 && was_final && !waits {
                return Err(format!("{id} was answered and is now said to be in progress"));
            }
            if code == Code::DateNotOpen as u8 && was_final {
                return Err(format!("{id} was answered and is now not known any more"));
            }
            self.request_answered(id);
            return if is_interim || is_door {
                Ok(told)
            } else {
                Err(format!("{told}: a final word without a number"))
            };
        }
        if id.originator() != place.party {
            return Err(format!("{told} goes to {}", place.party));
        }
        let is_final = PaymentState::from_u8(answer.state).is_some_and(PaymentState::is_final);
        if !is_final {
            return Err(format!("{told}: a numbered word that is not final"));
        }
        let content = Answer {
            header: zero_header(),
            word: 0,
            flags: 0,
            ..*answer
        };
        let known = self.finals.entry(id).or_insert(content);
        if bytemuck::bytes_of(known) != bytemuck::bytes_of(&content) {
            return Err(format!("{id} was answered {known:?} and is now answered {content:?}"));
        }
        self.finals_told.insert((id, place.line, place.epoch));
        if answer.flags & AnswerFlags::RETRANSMITTED == 0 {
            self.request_answered(id);
        }
        let as_word = Answer {
            flags: answer.flags & !AnswerFlags::RETRANSMITTED,
            ..content
        };
        let again = answer.flags & AnswerFlags::RETRANSMITTED != 0;
        self.word(
            place,
            answer.word,
            Word::Answer(bytemuck::bytes_of(&as_word).to_vec()),
            again,
        )?;
        Ok(told)
    }

    fn reversal(&mut self, place: Place, reversal: &Reversal) -> Result<String, String> {
        let id = reversal.id;
        self.reversals.insert(id);
        let said = (reversal.attempt, reversal.raised_ns);
        let most = self.attempts.entry(id).or_insert(said);
        // Lines overtake each other; once all is at rest they do not.
        if self.all_is_asked_for && (said.0 < most.0 || said.1 < most.1) {
            return Err(format!(
                "the Reversal of {id} was told as {most:?} and is now told as {said:?}"
            ));
        }
        *most = (said.0.max(most.0), said.1.max(most.1));
        let word = Word::Reversal(id, reversal.amount_minor, reversal.currency);
        self.word(
            place,
            reversal.word,
            word,
            reversal.flags & AnswerFlags::RETRANSMITTED != 0,
        )?;
        Ok(format!(
            "reversal {id} word {} attempt {}",
            reversal.word, reversal.attempt
        ))
    }

    fn notice(&mut self, place: Place, notice: &FinalNotice) -> Result<String, String> {
        let id = notice.id;
        let content = FinalNotice {
            header: zero_header(),
            flags: 0,
            ..*notice
        };
        if let Some(answer) = self.finals.get(&id)
            && (answer.state, answer.code, answer.window) != (notice.state, notice.code, notice.window)
        {
            return Err(format!("{id} was answered {answer:?}, its bank is told {notice:?}"));
        }
        self.notices.insert(id, content);
        let word = Word::Notice(bytemuck::bytes_of(&content).to_vec());
        self.word(place, notice.word, word, notice.flags & AnswerFlags::RETRANSMITTED != 0)?;
        Ok(format!("final notice {id} state {} word {}", notice.state, notice.word))
    }

    fn inquiry_answer(&self, place: Place, told: &InquiryAnswer) -> Result<String, String> {
        let text = format!("inquiry answer {} code {} state {}", told.id, told.code, told.state);
        let is_open = PaymentState::from_u8(told.state).is_some_and(|state| !state.is_final());
        let Some(answer) = self.finals.get(&told.id) else {
            return Ok(text);
        };
        let is_its_own = place.party == told.id.originator() || place.party == answer.responder;
        let is_unknown = told.code == Code::OriginalNotFound as u8 && told.state == 0;
        if !is_its_own {
            return if is_unknown || told.state == 0 {
                Ok(text)
            } else {
                Err(format!(
                    "{text}: it is told to {}, whom it does not concern",
                    place.party
                ))
            };
        }
        if (is_open || is_unknown) && self.was_final_before(place, told.id) {
            return Err(format!("{text}: it was answered before"));
        }
        let said = (told.state, told.code, told.amount_minor, told.window, told.final_ns);
        let was = (
            answer.state,
            answer.code,
            answer.amount_minor,
            answer.window,
            answer.final_ns,
        );
        let is_final = PaymentState::from_u8(told.state).is_some_and(PaymentState::is_final);
        if is_final && said != was {
            return Err(format!("{text}: {said:?} is said, it was answered {was:?}"));
        }
        Ok(text)
    }

    /// A request has reached the switch.
    pub(super) fn request_arrived(&mut self, id: PaymentId) {
        *self.asked.entry(id).or_insert(0) += 1;
    }

    fn request_answered(&mut self, id: PaymentId) {
        if let Some(waiting) = self.asked.get_mut(&id) {
            *waiting = waiting.saturating_sub(1);
        }
    }

    /// True when a final answer was told on this line before, or in an earlier life of the switch.
    fn was_final_before(&self, place: Place, id: PaymentId) -> bool {
        self.finals_before.contains(&id) || self.finals_told.contains(&(id, place.line, place.epoch))
    }

    fn next_word(&self, place: Place, next: u64, frame: &str) -> Result<String, String> {
        let on_line = self.words_on_line.get(&(place.line, place.epoch));
        let before = self.words_before.get(&place.party);
        match on_line.max(before) {
            Some(&last) if next <= last => Err(format!(
                "{frame} says that the next word of {} is {next}, and word {last} was told",
                place.party
            )),
            Some(_) | None => Ok(format!("{frame}, next word {next}")),
        }
    }

    fn word(&mut self, place: Place, number: u64, word: Word, again: bool) -> Result<(), String> {
        self.words_again += u64::from(again);
        self.retold.entry(place.party).or_default().insert(number);
        let highest = self.words_on_line.entry((place.line, place.epoch)).or_insert(0);
        *highest = number.max(*highest);
        let words = self.words.entry(place.party).or_default();
        let known = words.entry(number).or_insert_with(|| word.clone());
        if *known != word {
            return Err(format!(
                "word {number} of {} was {known:?} and is now {word:?}",
                place.party
            ));
        }
        Ok(())
    }

    /// Everybody is about to ask for all words from the first on.
    pub(super) fn all_words_are_asked_for(&mut self) {
        self.all_is_asked_for = true;
        self.retold.clear();
    }

    /// Holds what was told since against all that was ever told.
    pub(super) fn check_all_words_came(&self) -> Result<(), String> {
        for (party, words) in &self.words {
            let came = self.retold.get(party);
            if let Some(missing) = words.keys().find(|word| !came.is_some_and(|came| came.contains(word))) {
                return Err(format!(
                    "participant {party} asked for all its words and was not told word {missing}"
                ));
            }
        }
        Ok(())
    }

    /// A bank's reply about this payment has reached the switch: its place may be given to another.
    pub(super) fn reply_arrived(&mut self, id: PaymentId) {
        self.out.remove(&id);
    }

    /// The switch is gone, and all its links with it.
    pub(super) fn crashed(&mut self) {
        self.out.clear();
        self.finals_before = self.finals.keys().copied().collect();
        let last = |words: &BTreeMap<u64, Word>| words.keys().next_back().copied().unwrap_or(0);
        self.words_before = self.words.iter().map(|(&party, words)| (party, last(words))).collect();
    }

    pub(super) fn final_answer(&self, id: PaymentId) -> Option<&Answer> {
        self.finals.get(&id)
    }

    pub(super) fn finals(&self) -> impl Iterator<Item = (&PaymentId, &Answer)> {
        self.finals.iter()
    }

    pub(super) fn word_count(&self) -> u64 {
        self.words.values().map(|words| words.len() as u64).sum()
    }
}

/// A participant that says nothing wrong is cut for silence or for want of room, and for nothing else.
fn cut(place: Place, code: u8) -> Result<String, String> {
    let Some(code) = TerminateCode::from_u8(code) else {
        return Err(format!("participant {} is cut with code {code}", place.party));
    };
    let is_for_fault = match code {
        TerminateCode::Finished
        | TerminateCode::TooManyLinks
        | TerminateCode::SwitchFull
        | TerminateCode::KeepaliveExpired
        | TerminateCode::HandshakeTimeout
        | TerminateCode::SlowReader
        | TerminateCode::ShuttingDown
        | TerminateCode::Starting
        | TerminateCode::ProtocolBacklog => false,
        TerminateCode::BadHeader
        | TerminateCode::BadLength
        | TerminateCode::UnknownTemplate
        | TerminateCode::BadCrc
        | TerminateCode::NotNegotiated
        | TerminateCode::NotEstablished
        | TerminateCode::UnexpectedFrame
        | TerminateCode::UnknownParticipant
        | TerminateCode::CredentialRefused
        | TerminateCode::ReplyNotEntitled
        | TerminateCode::FieldInvalid => true,
    };
    if is_for_fault && place.is_blameless {
        return Err(format!(
            "participant {} did nothing wrong and is cut: {}",
            place.party,
            code.text()
        ));
    }
    Ok(format!("cut, {}", code.text()))
}

fn zero_header() -> FrameHeader {
    bytemuck::Zeroable::zeroed()
}
