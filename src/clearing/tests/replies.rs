//! What a bank's words do, in every state, and whose words count.

use super::script::{BANK, HKD, INSTITUTION, OTHER_BANK, Said, Script, TODAY, answer, reversal, status};
use crate::domain::{Code, PaymentState, WindowId};
use crate::wire::{PaymentBody, Regarding, ReplyBody, ReplyOutcome, TerminateCode};

#[test]
fn a_yes_releases_posts_stamps_and_answers_in_one_event() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.after_seconds(1);
    assert_eq!(script.yes(&payment), [Said::Release, answer(Code::Committed, 1)]);
    assert_eq!((script.position(BANK), script.position(INSTITUTION)), (700, -700));
    assert_eq!(script.reserved(BANK), 0);
    let told = script.last_answer();
    assert_eq!(told.window, WindowId::new(TODAY, 1));
    assert_eq!(told.final_ns, script.time.0);
    assert_eq!((told.amount_minor, told.state), (700, PaymentState::Committed as u8));
    let window = &script.engine.snapshot().windows[0];
    assert_eq!((window.committed, window.gross), (1, 700));
    assert_eq!(window.nets.iter().map(|(_, net)| net).sum::<i128>(), 0);
}

#[test]
fn a_no_declines_with_each_code_a_bank_may_use() {
    for number in (20..=28).chain([35]) {
        let mut script = Script::new();
        let payment = script.debit(BANK, 700);
        let code = Code::from_u8(number).unwrap();
        assert_eq!(script.no(&payment, code), [Said::Release, answer(code, 1)]);
        assert_eq!(script.state(&payment), Some(PaymentState::Declined));
        assert_eq!((script.reserved(BANK), script.position(BANK)), (0, 0));
        let told = script.last_answer();
        assert_eq!((told.window, told.final_ns), (WindowId::NONE, script.time.0));
    }
}

#[test]
fn a_no_with_a_code_that_no_bank_may_use_is_code_27() {
    for number in [0, 1, 9, 13, 19, 29, 30, 31, 36, 99, 255] {
        let mut script = Script::new();
        let payment = script.debit(BANK, 700);
        let said = script.reply(&payment, Regarding::Request, ReplyOutcome::No, number);
        assert_eq!(said, [Said::Release, answer(Code::BankDeclined, 1)], "code {number}");
    }
}

/// A payment of 100 that is in doubt.
fn in_doubt(script: &mut Script) -> PaymentBody {
    let payment = script.debit(BANK, 100);
    assert_eq!(script.after_seconds(5).tick(), [status(1)]);
    assert_eq!(script.state(&payment), Some(PaymentState::InDoubt));
    payment
}

#[test]
fn a_payment_in_doubt_commits_on_yes_to_the_request_or_to_the_status_request() {
    for regarding in [Regarding::Request, Regarding::Status] {
        let mut script = Script::new();
        let payment = in_doubt(&mut script);
        let said = script.reply(&payment, regarding, ReplyOutcome::Yes, 0);
        assert_eq!(said, [Said::Release, answer(Code::Committed, 1)]);
        assert_eq!((script.position(BANK), script.reserved(BANK)), (100, 0));
        assert_eq!(script.engine.figures().in_doubt, 0);
    }
}

#[test]
fn a_payment_in_doubt_is_declined_on_no() {
    let mut script = Script::new();
    let payment = in_doubt(&mut script);
    let said = script.reply(&payment, Regarding::Status, ReplyOutcome::No, 23);
    assert_eq!(said, [Said::Release, answer(Code::CustomerFunds, 1)]);
    assert_eq!((script.position(BANK), script.reserved(BANK)), (0, 0));
}

#[test]
fn a_payment_in_doubt_that_the_bank_never_saw_is_declined_with_31() {
    let mut script = Script::new();
    let payment = in_doubt(&mut script);
    assert_eq!(script.never_seen(&payment), [Said::Release, answer(Code::LinkDown, 1)]);
    assert_eq!(script.state(&payment), Some(PaymentState::Declined));
    assert_eq!(script.reserved(BANK), 0);
    assert_eq!(script.after_seconds(600).tick(), [], "and there is nothing to reverse");
}

#[test]
fn what_was_not_sent_expires_with_31_or_32_and_nothing_is_to_reverse() {
    for code in [Code::LinkDown, Code::OverLinkCapacity] {
        let mut script = Script::new();
        let reserved = script.debit(BANK, 100);
        assert_eq!(script.not_sent(&reserved, code), [Said::Release, answer(code, 1)]);
        let doubtful = in_doubt(&mut script);
        assert_eq!(script.not_sent(&doubtful, code), [Said::Release, answer(code, 2)]);
        for payment in [reserved, doubtful] {
            assert_eq!(script.state(&payment), Some(PaymentState::Expired));
        }
        assert_eq!(script.reserved(BANK), 0);
        assert_eq!(script.after_seconds(600).tick(), []);
        assert_eq!(script.engine.figures().expired, 2);
    }
}

#[test]
fn not_sent_changes_no_final_payment_and_no_unknown_one() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.yes(&payment);
    assert_eq!(script.not_sent(&payment, Code::LinkDown), []);
    assert_eq!(script.state(&payment), Some(PaymentState::Committed));
    let unknown = script.body(BANK, 100);
    assert_eq!(script.not_sent(&unknown, Code::LinkDown), []);
    assert_eq!(script.state(&unknown), None);
}

/// Drives a payment into `state`, then lets the bank say `outcome`; gives what was said, late words and conflicts.
fn late(state: PaymentState, outcome: ReplyOutcome) -> (Vec<Said>, u64, u64) {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    match state {
        PaymentState::Committed => script.yes(&payment),
        PaymentState::Declined => script.no(&payment, Code::CustomerFunds),
        PaymentState::Expired => script.not_sent(&payment, Code::OverLinkCapacity),
        PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Rejected => unreachable!("{state:?}"),
    };
    let before = (
        script.inquire(&payment).code,
        script.position(BANK),
        script.reserved(BANK),
    );
    script.after_seconds(1);
    let said = script.reply(&payment, Regarding::Status, outcome, 0);
    assert_eq!(
        script.state(&payment),
        Some(state),
        "a late word changes no final state"
    );
    let after = (
        script.inquire(&payment).code,
        script.position(BANK),
        script.reserved(BANK),
    );
    assert_eq!(before, after);
    let figures = script.engine.figures();
    (said, figures.late_words, figures.conflicts)
}

#[test]
fn late_words_are_counted_and_change_no_final_state() {
    use PaymentState::{Committed, Declined, Expired};
    use ReplyOutcome::{NeverSeen, No, Yes};
    assert_eq!(late(Committed, Yes), (vec![], 1, 0), "the bank says it twice");
    assert_eq!(late(Declined, No), (vec![], 1, 0));
    assert_eq!(late(Declined, NeverSeen), (vec![], 1, 0));
    assert_eq!(late(Expired, No), (vec![], 1, 0));
    assert_eq!(late(Expired, NeverSeen), (vec![], 1, 0));
}

#[test]
fn an_expired_pull_and_a_late_yes_make_a_reversal_due() {
    let said = late(PaymentState::Expired, ReplyOutcome::Yes);
    assert_eq!(said, (vec![reversal(1)], 1, 0));
}

#[test]
fn a_declined_pull_and_a_late_yes_are_a_conflict_and_a_reversal() {
    let said = late(PaymentState::Declined, ReplyOutcome::Yes);
    assert_eq!(said, (vec![reversal(1)], 1, 1));
}

#[test]
fn a_committed_payment_and_a_late_no_are_a_conflict_and_no_reversal() {
    for outcome in [ReplyOutcome::No, ReplyOutcome::NeverSeen] {
        assert_eq!(late(PaymentState::Committed, outcome), (vec![], 1, 1));
    }
}

#[test]
fn a_late_yes_when_the_reversal_is_due_already_sends_no_second_one() {
    let mut script = Script::new();
    let payment = in_doubt(&mut script);
    script.after_seconds(55).tick();
    assert_eq!(script.state(&payment), Some(PaymentState::Expired));
    assert_eq!(script.yes(&payment), []);
    assert_eq!(script.engine.figures().late_words, 1);
    assert_eq!(script.engine.snapshot().reversals_open, [1, 0]);
}

/// A reply that is not its sender's to make: refused, its link cut, the payment as it was.
#[track_caller]
fn refused(sender: u16, change: impl Fn(&mut ReplyBody)) {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    let mut body = script.reply_body(&payment, Regarding::Request, ReplyOutcome::Yes, 0);
    change(&mut body);
    assert_eq!(
        script.reply_by(sender, &body),
        [Said::Cut(TerminateCode::ReplyNotEntitled)]
    );
    assert_eq!(script.engine.figures().replies_refused, 1);
    assert_eq!(script.state(&payment), Some(PaymentState::Reserved));
    assert_eq!(script.yes(&payment), [Said::Release, answer(Code::Committed, 1)]);
}

#[test]
fn a_reply_counts_from_the_payments_responder_alone() {
    refused(OTHER_BANK, |_| {});
    refused(INSTITUTION, |_| {});
}

#[test]
fn a_reply_repeats_amount_and_currency_or_is_refused() {
    refused(BANK, |body| body.amount_minor += 1);
    refused(BANK, |body| body.currency = HKD.0);
}

#[test]
fn a_reply_to_an_unknown_payment_is_refused() {
    refused(BANK, |body| body.id.low += 1);
}

#[test]
fn a_reply_with_an_unknown_outcome_or_regarding_is_refused() {
    for number in [0, 9] {
        refused(BANK, |body| body.outcome = number);
        refused(BANK, |body| body.regarding = number);
    }
}

#[test]
fn a_reply_to_a_rejected_payment_is_refused() {
    let mut script = Script::new();
    let rejected = script.body(BANK, 0);
    script.send(&rejected);
    let said = script.yes(&rejected);
    assert_eq!(said, [Said::Cut(TerminateCode::ReplyNotEntitled)]);
    assert_eq!(script.state(&rejected), Some(PaymentState::Rejected));
}

#[test]
fn an_outcome_that_does_not_fit_what_it_regards_cuts_the_link() {
    use Regarding::{Request, Reversal, Status};
    use ReplyOutcome::{Acknowledged, NeverSeen, No, Yes};
    for (regarding, outcome) in [
        (Reversal, Yes),
        (Reversal, No),
        (Reversal, NeverSeen),
        (Request, Acknowledged),
        (Request, NeverSeen),
        (Status, Acknowledged),
    ] {
        let mut script = Script::new();
        let payment = script.debit(BANK, 100);
        let said = script.reply(&payment, regarding, outcome, 0);
        assert_eq!(said, [Said::Cut(TerminateCode::FieldInvalid)]);
        assert_eq!(script.engine.figures().replies_refused, 1);
        assert_eq!(script.state(&payment), Some(PaymentState::Reserved));
    }
}

#[test]
fn an_acknowledgement_of_a_reversal_that_was_never_raised_cuts_the_link() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    assert_eq!(script.acknowledged(&payment), [Said::Cut(TerminateCode::FieldInvalid)]);
    assert_eq!(script.engine.figures().replies_refused, 1);
    assert_eq!(script.yes(&payment), [Said::Release, answer(Code::Committed, 1)]);
}
