//! What is taken, what is refused and with which code, what is a repetition.

use super::script::{
    BANK, CAP, HKD, INSTITUTION, LINK, MAXIMUM, OTHER_BANK, OTHER_INSTITUTION, Said, Script, TODAY, again, answer,
};
use crate::clearing::participant::Account;
use crate::domain::{
    Amount, BusinessDate, Code, Currency, Kind, ParticipantIndex, ParticipantTerms, PaymentId, PaymentState, SECOND,
    WindowId,
};
use crate::wire::{AnswerFlags, Effect, PaymentBody, RequestFlags, WindowAction};

#[track_caller]
fn refused(script: &mut Script, code: Code, change: impl FnOnce(&mut PaymentBody)) {
    let mut body = script.body(BANK, 100);
    change(&mut body);
    let rejected = script.engine.figures().rejected;
    let word = script.engine.next_word(ParticipantIndex(INSTITUTION));
    assert_eq!(script.send(&body), [answer(code, word)]);
    assert_eq!(script.engine.figures().rejected, rejected + 1);
    assert_eq!(script.reserved(BANK), 0, "a rejection reserves nothing");
    assert_eq!(script.state(&body), Some(PaymentState::Rejected));
}

#[test]
fn an_accepted_debit_reserves_cover_on_the_bank_and_goes_to_it() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    assert_eq!(script.state(&payment), Some(PaymentState::Reserved));
    assert_eq!((script.reserved(BANK), script.reserved(INSTITUTION)), (700, 0));
    assert_eq!((script.position(BANK), script.position(INSTITUTION)), (0, 0));
    let figures = script.engine.figures();
    assert_eq!((figures.accepted, figures.reserved), (1, 1));
    let [
        Effect::Forward {
            position,
            accepted,
            wait_ns,
            ..
        },
    ] = script.effects[..]
    else {
        panic!("{:?}", script.effects)
    };
    let events = script.engine.event_number();
    assert_eq!((position, accepted, wait_ns), (events * 256, script.time, SECOND));
}

#[test]
fn code_04_a_responder_outside_the_directory() {
    refused(&mut Script::new(), Code::UnknownParticipant, |body| {
        body.responder = ParticipantIndex(99);
    });
}

#[test]
fn an_originator_outside_the_directory_is_rejected_and_has_nobody_to_tell() {
    let mut script = Script::new();
    let mut body = script.body(BANK, 100);
    body.id = PaymentId::new(TODAY, ParticipantIndex(99), 0, 1);
    assert_eq!(script.send(&body), []);
    assert_eq!(script.send(&body), [], "nor when it is repeated");
    assert_eq!(script.engine.figures().rejected, 1);
}

#[test]
fn code_05_an_initiator_that_is_suspended_may_not_ask() {
    let mut script = Script::with(|terms| {
        if terms.index.0 == INSTITUTION {
            terms.suspended = ParticipantTerms::SUSPENDED_INITIATOR;
        }
    });
    refused(&mut script, Code::InitiatorSuspended, |_| {});
}

#[test]
fn code_06_a_responder_that_is_suspended_may_not_be_asked() {
    let mut script = Script::with(|terms| {
        if terms.index.0 == BANK {
            terms.suspended = ParticipantTerms::SUSPENDED_RESPONDER;
        }
    });
    refused(&mut script, Code::ResponderSuspended, |_| {});
    script.debit(OTHER_BANK, 100);
}

#[test]
fn code_07_a_kind_that_is_none() {
    let mut script = Script::new();
    for kind in [0, 6, 7, 8, 9, 255] {
        refused(&mut script, Code::KindNotPermitted, |body| body.kind = kind);
    }
}

#[test]
fn code_07_a_kind_that_either_party_may_not_take_part_in() {
    for party in [INSTITUTION, BANK] {
        let mut script = Script::with(|terms| {
            if terms.index.0 == party {
                terms.permitted_kinds = Kind::Payout.bit();
            }
        });
        refused(&mut script, Code::KindNotPermitted, |_| {});
    }
}

#[test]
fn code_07_a_debit_goes_from_an_institution_to_a_bank_and_no_other_way() {
    let mut script = Script::new();
    refused(&mut script, Code::KindNotPermitted, |body| {
        body.responder = ParticipantIndex(OTHER_INSTITUTION);
    });
    let mut body = script.body(OTHER_BANK, 100);
    body.id = PaymentId::new(TODAY, ParticipantIndex(BANK), 0, 1);
    let code = Code::KindNotPermitted as u8;
    let said = script.send(&body);
    assert_eq!(
        said,
        [Said::Answer {
            to: BANK,
            code,
            word: 1,
            flags: 0
        }]
    );
}

#[test]
fn code_08_on_us_is_refused_whatever_else_is_wrong_with_it() {
    let mut script = Script::with(|terms| terms.suspended = 3);
    refused(&mut script, Code::OnUs, |body| {
        body.responder = ParticipantIndex(INSTITUTION);
        body.amount_minor = 0;
        body.currency = 0;
    });
    assert_eq!(script.engine.figures().by_code[Code::OnUs as usize], 1);
}

#[test]
fn code_10_an_amount_of_zero() {
    refused(&mut Script::new(), Code::AmountInvalid, |body| body.amount_minor = 0);
}

#[test]
fn code_11_an_amount_over_the_schemes_maximum_and_not_at_it() {
    let mut script = Script::new();
    for amount in [MAXIMUM + 1, u64::MAX] {
        refused(&mut script, Code::OverSchemeMaximum, |body| body.amount_minor = amount);
    }
    script.debit(BANK, MAXIMUM);
}

#[test]
fn code_12_an_amount_over_either_partys_limit_and_not_at_it() {
    for party in [INSTITUTION, BANK] {
        let mut script = Script::with(|terms| {
            if terms.index.0 == party {
                terms.payment_limit_minor = 300;
            }
        });
        refused(&mut script, Code::OverAgreedLimit, |body| body.amount_minor = 301);
        script.debit(BANK, 300);
    }
}

#[test]
fn code_13_position_and_reserved_and_amount_may_reach_the_cap_and_not_pass_it() {
    let mut script = Script::new();
    let first = script.debit(BANK, 4_000);
    let second = script.debit(BANK, 4_000);
    let over = script.body(BANK, CAP - 8_000 + 1);
    assert_eq!(
        script.send(&over),
        [answer(Code::CoverExceeded, 1)],
        "in-flight amounts count"
    );
    script.yes(&first);
    let over = script.body(BANK, CAP - 8_000 + 1);
    assert_eq!(script.send(&over), [answer(Code::CoverExceeded, 3)], "so do positions");
    script.debit(BANK, CAP - 8_000);
    assert_eq!(script.headroom(BANK), 0);
    script.debit(OTHER_BANK, 4_000);
    script.no(&second, Code::CustomerFunds);
    assert_eq!(script.headroom(BANK), 4_000, "a decline gives its cover back");
    script.debit(BANK, 4_000);
}

#[test]
fn a_credit_raises_headroom_at_once() {
    let mut script = Script::new();
    let before = script.headroom(INSTITUTION);
    let payment = script.debit(BANK, 900);
    assert_eq!(script.headroom(INSTITUTION), before, "not before it commits");
    script.yes(&payment);
    assert_eq!(script.headroom(INSTITUTION), before + 900);
    let account = Account {
        open: true,
        position: -900,
        cap: 100,
        ..Account::default()
    };
    assert!(account.admits(Amount(1_000)) && !account.admits(Amount(1_001)));
}

#[test]
fn code_14_a_currency_that_the_scheme_or_either_party_does_not_have() {
    let mut script = Script::with(|terms| match terms.index.0 {
        BANK => terms.accounts[1].currency = 0,
        OTHER_INSTITUTION => terms.accounts[0].currency = 0,
        _ => {}
    });
    for currency in [0, 840, HKD.0] {
        refused(&mut script, Code::CurrencyNotOpen, |body| body.currency = currency);
    }
    let mut body = script.body(BANK, 100);
    body.id = PaymentId::new(TODAY, ParticipantIndex(OTHER_INSTITUTION), 0, 1);
    script.send(&body);
    assert_eq!(script.last_answer().code, Code::CurrencyNotOpen as u8);
    script.debit(BANK, 100);
}

#[test]
fn code_14_a_currency_without_an_open_window() {
    let mut script = Script::without_windows(|_| {});
    refused(&mut script, Code::CurrencyNotOpen, |_| {});
    script.window(WindowAction::Open, Currency::CNY, WindowId::NONE);
    script.debit(BANK, 100);
}

#[test]
fn code_15_a_date_that_is_not_open_is_answered_without_a_number_and_not_remembered() {
    let mut script = Script::new();
    let mut body = script.body(BANK, 100);
    body.id = PaymentId::new(BusinessDate(20_261_124), ParticipantIndex(INSTITUTION), 0, 1);
    assert_eq!(script.send(&body), [answer(Code::DateNotOpen, 0)]);
    let told = script.last_answer();
    assert_eq!((told.state, told.final_ns, told.window), (0, 0, WindowId::NONE));
    assert_eq!(script.state(&body), None);
    assert_eq!(script.engine.next_word(ParticipantIndex(INSTITUTION)), 1);
    // It is 20:00; tomorrow's date opens five minutes before midnight.
    script.after_seconds(4 * 3_600 - 301);
    assert_eq!(script.send(&body), [answer(Code::DateNotOpen, 0)]);
    script.after_seconds(1);
    assert_eq!(script.send(&body), [Said::Forward(BANK)], "the id was not used");
    assert_eq!(script.engine.figures().dates_not_open, 2);
}

#[test]
fn yesterday_is_open_and_the_day_before_is_not() {
    let mut script = Script::new();
    for (date, code) in [(20_261_122, None), (20_261_121, Some(Code::DateNotOpen))] {
        let mut body = script.body(BANK, 100);
        body.id = PaymentId::new(BusinessDate(date), ParticipantIndex(INSTITUTION), 0, 1);
        let expected = code.map_or(Said::Forward(BANK), |code| answer(code, 0));
        assert_eq!(script.send(&body), [expected]);
    }
}

#[test]
fn the_duplicate_check_comes_before_the_date_check() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.yes(&payment);
    script.after_seconds(3 * 86_400);
    assert_eq!(script.send(&payment), [again(Code::Committed, 2)]);
    let mut other = payment;
    other.amount_minor += 1;
    assert_eq!(script.send(&other), [answer(Code::IdReused, 0)]);
}

#[test]
fn the_first_rule_broken_gives_the_code() {
    let mut script = Script::with(|terms| {
        if terms.index.0 == INSTITUTION {
            terms.payment_limit_minor = 10;
        }
    });
    refused(&mut script, Code::OverSchemeMaximum, |body| body.amount_minor = 2 * CAP);
    refused(&mut script, Code::OverAgreedLimit, |body| body.amount_minor = 4_000);
    refused(&mut script, Code::CurrencyNotOpen, |body| {
        (body.amount_minor, body.currency) = (0, 840);
    });
    refused(&mut script, Code::KindNotPermitted, |body| {
        (body.kind, body.currency) = (9, 840);
    });
}

#[test]
fn code_09_the_same_content_in_flight_is_not_forwarded_again() {
    let mut script = Script::new();
    let mut payment = script.debit(BANK, 100);
    payment.flags = RequestFlags::POSSIBLE_RESEND;
    assert_eq!(script.send(&payment), [answer(Code::InProgress, 0)]);
    assert_eq!(script.last_answer().state, PaymentState::Reserved as u8);
    script.after_seconds(6).tick();
    assert_eq!(script.send(&payment), [answer(Code::InProgress, 0)]);
    assert_eq!(script.last_answer().state, PaymentState::InDoubt as u8);
    assert_eq!(script.reserved(BANK), 100);
    assert_eq!(script.engine.figures().duplicates, 2);
}

/// An answer's bytes without header, number and flags: all that may differ when it is given again.
fn content(answer: &crate::wire::Answer) -> Vec<u8> {
    let mut answer = *answer;
    (answer.word, answer.flags) = (0, 0);
    bytemuck::bytes_of(&answer)[16..].to_vec()
}

#[test]
fn the_same_content_when_final_gets_the_stored_answer_with_the_duplicate_flag() {
    let mut script = Script::new();
    let committed = script.debit(BANK, 100);
    let declined = script.debit(BANK, 101);
    let expired = script.debit(BANK, 102);
    let rejected = script.body(BANK, 0);
    let mut first = Vec::new();
    script.yes(&committed);
    first.push((committed, script.last_answer()));
    script.no(&declined, Code::AccountClosed);
    first.push((declined, script.last_answer()));
    script.not_sent(&expired, Code::LinkDown);
    first.push((expired, script.last_answer()));
    script.send(&rejected);
    first.push((rejected, script.last_answer()));
    script.window(WindowAction::Close, Currency::CNY, WindowId::NONE);
    script.after_seconds(100);
    for (word, (payment, original)) in (5..).zip(&first) {
        script.send(payment);
        let stored = script.last_answer();
        assert_eq!((stored.word, stored.flags), (word, AnswerFlags::DUPLICATE));
        assert_eq!(content(&stored), content(original), "code {}", original.code);
    }
}

#[test]
fn a_repetition_is_answered_on_the_link_that_asked_again() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.yes(&payment);
    script.send(&payment);
    let Effect::Frame(frame) = script.effects[0] else {
        panic!("{:?}", script.effects)
    };
    assert_eq!((frame.to.0, frame.via), (INSTITUTION, LINK));
}

#[test]
fn a_rejection_sticks_when_its_reason_is_gone() {
    let mut script = Script::new();
    let blocking = script.debit(BANK, 5_000);
    script.debit(BANK, 5_000);
    let rejected = script.body(BANK, 1);
    assert_eq!(script.send(&rejected), [answer(Code::CoverExceeded, 1)]);
    script.no(&blocking, Code::CustomerFunds);
    assert_eq!(script.send(&rejected), [again(Code::CoverExceeded, 3)]);
    script.debit(BANK, 1);
}

#[test]
fn code_16_other_content_under_a_used_id_leaves_the_original_untouched() {
    let changes: [fn(&mut PaymentBody); 4] = [
        |body| body.amount_minor += 1,
        |body| body.responder = ParticipantIndex(OTHER_BANK),
        |body| body.account_token[1] = 1,
        |body| body.order_reference[15] = 1,
    ];
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    for change in changes {
        let mut other = payment;
        change(&mut other);
        assert_eq!(script.send(&other), [answer(Code::IdReused, 0)]);
    }
    assert_eq!(script.engine.figures().ids_reused, 4);
    assert_eq!((script.reserved(BANK), script.reserved(OTHER_BANK)), (100, 0));
    assert_eq!(script.yes(&payment), [Said::Release, answer(Code::Committed, 1)]);
    let mut other = payment;
    other.amount_minor = 0;
    assert_eq!(script.send(&other), [answer(Code::IdReused, 0)]);
}
