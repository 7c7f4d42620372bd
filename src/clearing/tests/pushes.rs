//! Pushes and payments without money: who owes, what the bank is told, tokens of mandates.

use super::super::query::Recalled;
use super::script::{
    BANK, CAP, INSTITUTION, LINK, MAXIMUM, OTHER_BANK, Said, Script, TODAY, again, answer, notice, status,
};
use crate::domain::{
    BindStep, Code, Currency, Direction, Kind, LinkId, ParticipantIndex, ParticipantTerms, PaymentId, PaymentState,
    SECOND, WindowId,
};
use crate::wire::{AnswerFlags, Effect, FinalNotice, Frame, PaymentBody, Regarding, ReplyOutcome, WindowAction};

const PUSHES: [Kind; 2] = [Kind::Payout, Kind::Refund];
const WITHOUT_MONEY: [Kind; 2] = [Kind::Bind, Kind::Unbind];
const TOKEN: [u64; 2] = [0xFEED, 77];

fn of(participant: u16) -> ParticipantIndex {
    ParticipantIndex(participant)
}

/// The number of the next answer to [`INSTITUTION`].
fn next(script: &Script) -> u64 {
    script.engine.next_word(of(INSTITUTION))
}

/// What follows a release and the answer, by the direction of the kind: at T2, and after a bank's word.
fn after_the_answer(kind: Kind, code: Code, at_t2: bool) -> Option<Said> {
    match kind.direction() {
        Direction::Push => Some(notice(code, 1)),
        Direction::Pull if at_t2 => Some(super::script::reversal(1)),
        Direction::Pull | Direction::None => None,
    }
}

#[track_caller]
fn assert_ends(script: &Script, kind: Kind, code: Code, word: u64, said: &[Said], at_t2: bool) {
    let mut expected = vec![Said::Release, answer(code, word)];
    expected.extend(after_the_answer(kind, code, at_t2));
    assert!(said.ends_with(&expected), "{kind:?}: {said:?}");
    assert_eq!(script.reserved(INSTITUTION) + script.reserved(BANK), 0, "{kind:?}");
}

#[test]
fn a_payout_reserves_cover_on_its_initiator_and_posts_what_the_initiator_owes() {
    let mut script = Script::new();
    let payout = script.payment(Kind::Payout);
    assert_eq!((script.reserved(INSTITUTION), script.reserved(BANK)), (100, 0));
    script.yes(&payout);
    assert_eq!((script.position(INSTITUTION), script.position(BANK)), (100, -100));
    let window = &script.engine.snapshot().windows[0];
    assert_eq!((window.committed, window.gross), (1, 100));
    assert_eq!(window.nets, [(of(INSTITUTION), 100), (of(BANK), -100)]);
}

#[test]
fn code_13_a_push_needs_the_initiators_cover_and_not_the_banks() {
    let mut script = Script::with(|terms| {
        if terms.index.0 == BANK {
            terms.accounts[0].cap_minor = 0;
        }
    });
    let payout = |script: &mut Script, amount_minor| {
        let mut body = script.body(BANK, amount_minor);
        body.kind = Kind::Payout as u8;
        script.send(&body)
    };
    assert_eq!(payout(&mut script, MAXIMUM), [Said::Forward(BANK)]);
    assert_eq!(payout(&mut script, MAXIMUM), [Said::Forward(BANK)]);
    assert_eq!(script.headroom(INSTITUTION), 0);
    assert_eq!(payout(&mut script, 1), [answer(Code::CoverExceeded, 1)]);
    let debit = script.body(BANK, 1);
    assert_eq!(script.send(&debit), [answer(Code::CoverExceeded, 2)]);
    assert_eq!(2 * MAXIMUM, CAP);
}

#[test]
fn a_payment_without_money_needs_no_cover_reserves_nothing_and_moves_nothing() {
    for kind in WITHOUT_MONEY {
        let mut script = Script::with(|terms| terms.accounts[0].cap_minor = 0);
        let payment = script.payment(kind);
        assert_eq!((script.reserved(INSTITUTION), script.reserved(BANK)), (0, 0));
        assert_eq!(script.yes(&payment), [Said::Release, answer(Code::Committed, 1)]);
        assert_eq!((script.position(INSTITUTION), script.position(BANK)), (0, 0));
        assert_eq!(script.last_answer().window, WindowId::new(TODAY, 1), "{kind:?}");
        let window = &script.engine.snapshot().windows[0];
        assert_eq!((window.committed, window.gross, window.nets.len()), (1, 0, 0));
        script.window(WindowAction::Close, Currency::CNY, WindowId::NONE);
        assert_eq!(script.engine.breach(), None);
    }
}

#[test]
fn code_10_an_amount_where_no_money_moves_and_none_where_it_does() {
    for kind in Kind::ALL {
        let mut script = Script::new();
        let mut body = script.body_of(kind);
        body.amount_minor = if kind.direction() == Direction::None { 1 } else { 0 };
        let word = next(&script);
        assert_eq!(script.send(&body), [answer(Code::AmountInvalid, word)], "{kind:?}");
        assert_eq!(script.state(&body), Some(PaymentState::Rejected));
    }
}

#[test]
fn code_07_each_kind_must_be_permitted_to_both_parties() {
    for kind in Kind::ALL {
        for party in [INSTITUTION, BANK] {
            let without = |terms: &mut ParticipantTerms| {
                if terms.index.0 == party && kind != Kind::Debit {
                    terms.permitted_kinds &= !kind.bit();
                } else if terms.index.0 == party {
                    terms.permitted_kinds = 0;
                }
            };
            let mut script = Script::with(without);
            let mut body = script.body(BANK, 100);
            body.kind = kind as u8;
            body.original = body.id;
            assert_eq!(script.send(&body), [answer(Code::KindNotPermitted, 1)], "{kind:?}");
        }
    }
}

#[test]
fn code_07_every_kind_goes_from_an_institution_to_a_bank_and_no_other_way() {
    for kind in Kind::ALL {
        let mut script = Script::new();
        let mut body = script.body(BANK, 100);
        body.kind = kind as u8;
        body.id = PaymentId::new(TODAY, of(BANK), 0, 1);
        body.responder = of(OTHER_BANK);
        script.send(&body);
        assert_eq!(script.last_answer().code, Code::KindNotPermitted as u8, "{kind:?}");
        body.id = PaymentId::new(TODAY, of(BANK), 0, 2);
        body.responder = of(INSTITUTION);
        script.send(&body);
        assert_eq!(script.last_answer().code, Code::KindNotPermitted as u8, "{kind:?}");
    }
}

#[test]
fn a_yes_commits_each_kind_and_only_the_bank_of_a_push_is_told() {
    for kind in Kind::ALL {
        for in_doubt in [false, true] {
            let mut script = Script::new();
            let payment = script.payment(kind);
            if in_doubt {
                assert_eq!(script.after_seconds(5).tick(), [status(1)]);
            }
            let word = next(&script);
            let said = script.yes(&payment);
            assert_ends(&script, kind, Code::Committed, word, &said, false);
            assert_eq!(script.state(&payment), Some(PaymentState::Committed));
        }
    }
}

#[test]
fn a_no_and_a_never_seen_decline_each_kind_and_only_the_bank_of_a_push_is_told() {
    let words = [
        (Regarding::Request, ReplyOutcome::No, 21, Code::AccountClosed),
        (Regarding::Status, ReplyOutcome::No, 99, Code::BankDeclined),
        (Regarding::Status, ReplyOutcome::NeverSeen, 0, Code::LinkDown),
    ];
    for kind in Kind::ALL {
        for in_doubt in [false, true] {
            for (regarding, outcome, number, code) in words {
                let mut script = Script::new();
                let payment = script.payment(kind);
                if in_doubt {
                    script.after_seconds(5).tick();
                }
                let word = next(&script);
                let said = script.reply(&payment, regarding, outcome, number);
                assert_ends(&script, kind, code, word, &said, false);
                assert_eq!(script.state(&payment), Some(PaymentState::Declined));
            }
        }
    }
}

#[test]
fn what_was_not_sent_expires_and_its_bank_hears_nothing() {
    for kind in Kind::ALL {
        for in_doubt in [false, true] {
            let mut script = Script::new();
            let payment = script.payment(kind);
            if in_doubt {
                script.after_seconds(5).tick();
            }
            let word = next(&script);
            let said = script.not_sent(&payment, Code::OverLinkCapacity);
            assert_eq!(said, [Said::Release, answer(Code::OverLinkCapacity, word)], "{kind:?}");
            assert_eq!(script.state(&payment), Some(PaymentState::Expired));
            assert_eq!(script.after_seconds(600).tick(), []);
            assert_eq!(script.engine.next_word(of(BANK)), 1);
        }
    }
}

#[test]
fn a_rejected_push_was_never_sent_and_its_bank_hears_nothing() {
    for kind in PUSHES {
        let mut script = Script::new();
        let mut body = script.body_of(kind);
        body.amount_minor = 0;
        script.send(&body);
        assert_eq!(script.engine.next_word(of(BANK)), 1, "{kind:?}");
    }
}

#[test]
fn t2_is_60_seconds_for_a_pull_and_20_for_every_other_kind() {
    for kind in Kind::ALL {
        let mut script = Script::new();
        let payment = script.payment(kind);
        let t2 = if kind == Kind::Debit { 60 * SECOND } else { 20 * SECOND };
        script.after(t2 - 1).tick();
        assert_eq!(script.state(&payment), Some(PaymentState::InDoubt), "{kind:?}");
        let word = next(&script);
        let said = script.after(1).tick();
        assert_ends(&script, kind, Code::BankTimeout, word, &said, true);
        assert_eq!(script.state(&payment), Some(PaymentState::Expired));
        let reversals = script.engine.snapshot().reversals_open;
        assert_eq!(reversals, [u64::from(kind == Kind::Debit), 0], "{kind:?}");
    }
}

#[test]
fn a_push_is_asked_about_at_0_and_10_seconds_and_not_once_its_t2_has_passed() {
    for kind in Kind::ALL {
        let mut script = Script::new();
        script.payment(kind);
        let mut asked = Vec::new();
        for second in 1..=60 {
            let said = script.after_seconds(1).tick();
            asked.extend(
                said.iter()
                    .filter(|said| matches!(said, Said::Status { .. }))
                    .map(|_| second),
            );
        }
        let expected: &[u64] = if kind == Kind::Debit { &[5, 15, 45] } else { &[5, 15] };
        assert_eq!(asked, expected, "{kind:?}");
    }
}

#[test]
fn a_restart_moves_each_kinds_t2_by_its_own_ladder() {
    for kind in Kind::ALL {
        let mut script = Script::new();
        let payment = script.payment(kind);
        assert_eq!(script.after_seconds(3_600).restart(), [status(1)]);
        let ladder = if kind == Kind::Debit { 55 * SECOND } else { 15 * SECOND };
        script.after(ladder - 1).tick();
        assert_eq!(script.state(&payment), Some(PaymentState::InDoubt), "{kind:?}");
        script.after(1).tick();
        assert_eq!(script.state(&payment), Some(PaymentState::Expired));
        assert_eq!(script.replayed(), script.engine.state_hash());
    }
}

/// A push of this kind, ended by `end`.
fn ended(kind: Kind, end: impl Fn(&mut Script, &PaymentBody)) -> (Script, PaymentBody) {
    let mut script = Script::new();
    let payment = script.payment(kind);
    script.after_seconds(3);
    end(&mut script, &payment);
    (script, payment)
}

#[test]
fn a_final_notice_says_what_became_of_the_payment_in_every_field() {
    for kind in PUSHES {
        let (script, payment) = ended(kind, |script, payment| {
            script.yes(payment);
        });
        let told = script.last_notice();
        assert_eq!((told.id, told.word, told.initiator), (payment.id, 1, of(INSTITUTION)));
        assert_eq!((told.amount_minor, told.currency, told.kind), (100, 156, kind as u8));
        assert_eq!((told.code, told.state), (0, PaymentState::Committed as u8));
        assert_eq!((told.window, told.final_ns), (WindowId::new(TODAY, 1), script.time.0));
        assert_eq!((told.flags, told.reserved), (0, 0));
        let (script, _) = ended(kind, |script, payment| {
            script.no(payment, Code::AccountBlocked);
        });
        let told = script.last_notice();
        assert_eq!((told.code, told.state), (22, PaymentState::Declined as u8));
        assert_eq!((told.window, told.final_ns), (WindowId::NONE, script.time.0));
        let (script, _) = ended(kind, |script, _| {
            script.after_seconds(17).tick();
        });
        let told = script.last_notice();
        assert_eq!((told.code, told.state), (30, PaymentState::Expired as u8));
        assert_eq!((told.window, told.final_ns), (WindowId::NONE, script.time.0));
    }
}

#[test]
fn a_final_notice_is_a_word_of_the_banks_own_numbering_and_goes_by_any_link() {
    let mut script = Script::new();
    let expired = script.debit(BANK, 100);
    let [first, second] = [1, 2].map(|_| script.payment(Kind::Payout));
    script.yes(&first);
    assert_eq!(script.last_notice().word, 1);
    let Some(Effect::Frame(frame)) = script.effects.last() else {
        panic!("{:?}", script.effects)
    };
    assert_eq!((frame.to, frame.via), (of(BANK), LinkId::NONE));
    script.after_seconds(60).tick();
    assert_eq!(script.state(&expired), Some(PaymentState::Expired));
    // The push expired first, the pull's Reversal is the third word.
    assert_eq!(script.engine.next_word(of(BANK)), 4);
    assert_eq!(script.state(&second), Some(PaymentState::Expired));
    let third = script
        .engine
        .word_again(of(BANK), LINK, 3)
        .and_then(Recalled::frame)
        .expect("it was told");
    assert_eq!(third.template, crate::wire::Template::Reversal);
}

#[test]
fn a_final_notice_told_again_is_the_notice_told_before_and_says_so() {
    let mut script = Script::new();
    let payments = PUSHES.map(|kind| script.payment(kind));
    let mut told = Vec::new();
    script.yes(&payments[0]);
    told.push(script.last_notice());
    script.no(&payments[1], Code::AccountBlocked);
    told.push(script.last_notice());
    // A late word changes nothing of it.
    script.no(&payments[0], Code::AccountBlocked);
    script.yes(&payments[1]);
    for mut original in told {
        let frame = script
            .engine
            .word_again(of(BANK), LINK, original.word)
            .and_then(Recalled::frame)
            .expect("it was told");
        assert_eq!((frame.to, frame.via), (of(BANK), LINK));
        original.flags |= AnswerFlags::RETRANSMITTED;
        let again = FinalNotice::read(&frame.bytes);
        assert_eq!(bytemuck::bytes_of(&again), bytemuck::bytes_of(&original));
    }
}

/// A Bind or Unbind of this step, to which the bank says yes with a token.
fn with_token(script: &mut Script, kind: Kind, step: BindStep, regarding: Regarding) -> PaymentBody {
    let mut payment = script.body_of(kind);
    payment.step = step as u8;
    assert_eq!(script.send(&payment), [Said::Forward(BANK)]);
    let mut reply = script.reply_body(&payment, regarding, ReplyOutcome::Yes, 0);
    reply.token = TOKEN;
    script.reply_by(BANK, &reply);
    payment
}

#[test]
fn the_token_in_a_yes_to_a_binds_sign_goes_to_the_initiator() {
    for regarding in [Regarding::Request, Regarding::Status] {
        let mut script = Script::new();
        let payment = with_token(&mut script, Kind::Bind, BindStep::Sign, regarding);
        assert_eq!(script.last_answer().mandate_token, TOKEN);
        assert_eq!(script.send(&payment), [again(Code::Committed, 2)]);
        assert_eq!(script.last_answer().mandate_token, TOKEN, "in the stored answer too");
        for word in [1, 2] {
            let frame = script
                .engine
                .word_again(of(INSTITUTION), LINK, word)
                .and_then(Recalled::frame)
                .expect("it was told");
            assert_eq!(crate::wire::Answer::read(&frame.bytes).mandate_token, TOKEN);
        }
        let mut other = payment;
        other.account_token = [1, 1];
        assert_eq!(script.send(&other), [answer(Code::IdReused, 0)]);
        assert_eq!(script.last_answer().mandate_token, [0; 2], "and in no other answer");
    }
}

#[test]
fn the_token_of_any_other_yes_is_the_banks_own_reference_and_goes_nowhere() {
    let steps = [
        (Kind::Bind, BindStep::Authenticate),
        (Kind::Unbind, BindStep::Authenticate),
        (Kind::Unbind, BindStep::Sign),
        (Kind::Debit, BindStep::None),
        (Kind::Payout, BindStep::None),
        (Kind::Refund, BindStep::None),
    ];
    for (kind, step) in steps {
        let mut script = Script::new();
        let payment = with_token(&mut script, kind, step, Regarding::Request);
        assert_eq!(script.last_answer().mandate_token, [0; 2], "{kind:?} {step:?}");
        script.send(&payment);
        assert_eq!(script.last_answer().mandate_token, [0; 2]);
    }
}

#[test]
fn a_late_yes_to_a_declined_sign_brings_no_token() {
    let mut script = Script::new();
    let payment = script.payment(Kind::Bind);
    script.no(&payment, Code::AccountInvalid);
    let mut reply = script.reply_body(&payment, Regarding::Request, ReplyOutcome::Yes, 0);
    reply.token = TOKEN;
    assert_eq!(script.reply_by(BANK, &reply), []);
    script.send(&payment);
    assert_eq!(script.last_answer().mandate_token, [0; 2]);
}

#[test]
fn a_token_is_in_the_state_hash() {
    let hash = |token: [u64; 2]| {
        let mut script = Script::new();
        let payment = script.payment(Kind::Bind);
        let mut reply = script.reply_body(&payment, Regarding::Request, ReplyOutcome::Yes, 0);
        reply.token = token;
        script.reply_by(BANK, &reply);
        assert_eq!(script.replayed(), script.engine.state_hash());
        script.engine.state_hash()
    };
    assert_ne!(hash(TOKEN), hash([TOKEN[0], TOKEN[1] + 1]));
}

#[test]
fn a_step_is_part_of_the_content() {
    let mut script = Script::new();
    let mut payment = script.payment(Kind::Bind);
    payment.step = BindStep::Authenticate as u8;
    assert_eq!(script.send(&payment), [answer(Code::IdReused, 0)]);
}

#[test]
fn each_kind_sent_again_gets_09_while_it_is_open_and_its_answer_when_it_is_final() {
    for kind in Kind::ALL {
        let mut script = Script::new();
        let payment = script.payment(kind);
        assert_eq!(script.send(&payment), [answer(Code::InProgress, 0)], "{kind:?}");
        script.yes(&payment);
        let word = next(&script);
        assert_eq!(script.send(&payment), [again(Code::Committed, word)]);
        let told = script.last_answer();
        assert_eq!((told.kind, told.amount_minor), (kind as u8, payment.amount_minor));
        let notices = script.engine.next_word(of(BANK)) - 1;
        let expected = u64::from(kind.direction() == Direction::Push);
        assert_eq!(notices, expected, "the bank is told once");
    }
}
