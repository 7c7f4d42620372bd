//! The numbered words toward a participant, inquiries, replay.

use super::super::query::Recalled;
use super::script::{
    BANK, INSTITUTION, LINK, OTHER_BANK, OTHER_INSTITUTION, Said, Script, TODAY, again, answer, said_frame,
};
use crate::domain::{Code, LinkId, ParticipantIndex, PaymentId, PaymentState, WindowId};
use crate::wire::{Answer, AnswerFlags, Frame, PaymentBody, Reversal};

const ELSEWHERE: LinkId = LinkId(0x0002_0009);

fn of(participant: u16) -> ParticipantIndex {
    ParticipantIndex(participant)
}

#[test]
fn words_are_numbered_from_one_per_participant_and_only_words_are() {
    let mut script = Script::new();
    let first = script.debit(BANK, 100);
    assert_eq!(script.send(&first), [answer(Code::InProgress, 0)]);
    assert_eq!(script.yes(&first), [Said::Release, answer(Code::Committed, 1)]);
    let mut other = first;
    other.scene = 2;
    assert_eq!(script.send(&other), [answer(Code::IdReused, 0)]);
    assert_eq!(script.send(&first), [again(Code::Committed, 2)]);
    let rejected = script.body(BANK, 0);
    assert_eq!(script.send(&rejected), [answer(Code::AmountInvalid, 3)]);
    let mut theirs = script.body(BANK, 100);
    theirs.id = PaymentId::new(TODAY, of(OTHER_INSTITUTION), 0, 1);
    script.send(&theirs);
    script.yes(&theirs);
    let told = Said::Answer {
        to: OTHER_INSTITUTION,
        code: 0,
        word: 1,
        flags: 0,
    };
    assert_eq!(script.effects.len(), 2);
    assert_eq!(script.last_answer().word, 1, "{told:?}");
    assert_eq!(script.engine.next_word(of(INSTITUTION)), 4);
    assert_eq!(script.engine.next_word(of(OTHER_INSTITUTION)), 2);
    assert_eq!(script.engine.next_word(of(BANK)), 1);
    assert_eq!(script.engine.next_word(of(99)), 1);
}

/// An answer's bytes without header and flags.
fn content(mut answer: Answer) -> Vec<u8> {
    answer.flags = 0;
    bytemuck::bytes_of(&answer)[16..].to_vec()
}

#[test]
fn a_word_told_again_is_the_word_told_before_and_says_so() {
    let mut script = Script::new();
    let committed = script.debit(BANK, 100);
    let declined = script.debit(BANK, 200);
    let mut told = Vec::new();
    script.yes(&committed);
    told.push(script.last_answer());
    script.no(&declined, Code::AccountBlocked);
    told.push(script.last_answer());
    script.send(&committed);
    told.push(script.last_answer());
    for original in told {
        let frame = script
            .engine
            .word_again(of(INSTITUTION), ELSEWHERE, original.word)
            .and_then(Recalled::frame)
            .expect("it was told");
        assert_eq!((frame.to, frame.via), (of(INSTITUTION), ELSEWHERE));
        let repeated = Answer::read(&frame.bytes);
        assert_eq!(repeated.flags, original.flags | AnswerFlags::RETRANSMITTED);
        assert_eq!(content(repeated), content(original));
    }
}

#[test]
fn a_reversal_told_again_keeps_its_number_and_says_so() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.after_seconds(60).tick();
    let frame = script
        .engine
        .word_again(of(BANK), LINK, 1)
        .and_then(Recalled::frame)
        .expect("it was told");
    let expected = Said::Reversal {
        to: BANK,
        word: 1,
        attempt: 1,
    };
    assert_eq!(said_frame(&frame), expected);
    let reversal = Reversal::read(&frame.bytes);
    assert_eq!((reversal.id, reversal.amount_minor), (payment.id, 100));
    assert_eq!(
        (reversal.flags, reversal.raised_ns),
        (AnswerFlags::RETRANSMITTED, script.time.0)
    );
}

#[test]
fn a_word_that_was_never_told_can_not_be_told_again() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.yes(&payment);
    for (participant, word) in [(INSTITUTION, 0), (INSTITUTION, 2), (BANK, 1), (99, 1)] {
        let frame = script.engine.word_again(of(participant), LINK, word);
        assert!(frame.is_none(), "word {word} of participant {participant}");
    }
}

#[test]
fn both_parties_may_inquire_and_nobody_else_learns_that_the_payment_exists() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.yes(&payment);
    for party in [INSTITUTION, BANK] {
        let told = script.inquire_as(party, &payment);
        assert_eq!((told.id, told.reference), (payment.id, 77));
        assert_eq!((told.code, told.state), (0, PaymentState::Committed as u8));
        assert_eq!((told.amount_minor, told.currency, told.kind), (100, 156, 1));
        assert_eq!((told.window, told.final_ns), (WindowId::new(TODAY, 1), script.time.0));
    }
    let unknown = script.body(BANK, 100);
    let nothing = |asker: u16, about: &PaymentBody| {
        let told = script.inquire_as(asker, about);
        assert_eq!((told.code, told.state), (Code::OriginalNotFound as u8, 0));
        assert_eq!((told.amount_minor, told.currency, told.kind), (0, 0, 0));
        assert_eq!((told.window, told.final_ns), (WindowId::NONE, 0));
    };
    nothing(OTHER_BANK, &payment);
    nothing(OTHER_INSTITUTION, &payment);
    nothing(INSTITUTION, &unknown);
}

#[test]
fn an_inquiry_about_an_open_payment_says_in_progress() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    let told = script.inquire(&payment);
    assert_eq!(
        (told.code, told.state),
        (Code::InProgress as u8, PaymentState::Reserved as u8)
    );
    script.after_seconds(6).tick();
    let told = script.inquire(&payment);
    assert_eq!(
        (told.code, told.state),
        (Code::InProgress as u8, PaymentState::InDoubt as u8)
    );
    assert_eq!((told.final_ns, told.window), (0, WindowId::NONE));
}

#[test]
fn figures_are_kept_by_code_and_by_scene() {
    let mut script = Script::new();
    for (scene, code) in [(1, Code::Committed), (4, Code::Committed), (4, Code::CustomerFunds)] {
        let mut body = script.body(BANK, 10);
        body.scene = scene;
        script.send(&body);
        if code == Code::Committed {
            script.yes(&body);
        } else {
            script.no(&body, code);
        }
    }
    let figures = script.engine.figures();
    assert_eq!((figures.by_code[0], figures.by_code[23]), (2, 1));
    assert_eq!((figures.by_scene[1], figures.by_scene[4]), ([1, 1], [2, 1]));
}

#[test]
fn figures_count_what_is_no_kind_under_0() {
    let mut script = Script::new();
    for kind in [6, 7, 8, 255] {
        let mut body = script.body(BANK, 10);
        body.kind = kind;
        script.send(&body);
    }
    let figures = script.engine.figures();
    assert_eq!(
        figures.by_kind,
        [[4, 0], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2]]
    );
}

#[test]
fn replay_says_nothing_and_gives_the_same_hash() {
    let mut script = Script::new();
    let committed = script.debit(BANK, 100);
    script.debit(OTHER_BANK, 100);
    script.yes(&committed);
    script.after_seconds(20).restart();
    script.after_seconds(100).tick();
    assert_eq!(script.replayed(), script.engine.state_hash());
    let before = script.engine.state_hash();
    script.tick();
    assert_ne!(script.engine.state_hash(), before, "every event is in the hash");
}
