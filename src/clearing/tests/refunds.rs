//! Refunds: what may be given back, how often, and until when. Codes 25 and 26.

use super::script::{
    BANK, HKD, INSTITUTION, OTHER_BANK, OTHER_INSTITUTION, REFUND_DAYS, Said, Script, again, answer, notice,
};
use crate::domain::{Code, Kind, ParticipantIndex, PaymentId, PaymentState, UtcNanos};
use crate::wire::PaymentBody;

const DAY_S: u64 = 86_400;

#[track_caller]
fn refused(script: &mut Script, code: Code, refund: &PaymentBody) {
    let reserved = script.reserved(INSTITUTION);
    let word = script.engine.next_word(refund.id.originator());
    let to = refund.id.originator().0;
    let told = Said::Answer {
        to,
        code: code as u8,
        word,
        flags: 0,
    };
    assert_eq!(script.send(refund), [told]);
    assert_eq!(script.state(refund), Some(PaymentState::Rejected));
    assert_eq!(script.reserved(INSTITUTION), reserved, "a rejection reserves nothing");
}

/// A refund dated today, whatever day that is by now.
fn refund_today(script: &mut Script, original: &PaymentBody, amount_minor: u64) -> PaymentBody {
    let mut refund = script.refund_body(original, amount_minor);
    let date = script.time.business_date();
    refund.id = PaymentId::new(date, refund.id.originator(), 0, refund.id.serial());
    refund
}

#[test]
fn a_refund_reserves_and_owes_on_the_institution_and_gives_the_bank_its_money_back() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 700);
    let refund = script.refund(&original, 300);
    assert_eq!((script.reserved(INSTITUTION), script.reserved(BANK)), (300, 0));
    let said = script.yes(&refund);
    assert_eq!(
        said,
        [Said::Release, answer(Code::Committed, 2), notice(Code::Committed, 1)]
    );
    assert_eq!((script.position(INSTITUTION), script.position(BANK)), (-400, 400));
    assert_eq!(script.reserved(INSTITUTION), 0);
}

#[test]
fn code_25_an_original_that_is_unknown() {
    let mut script = Script::new();
    let mut original = script.committed_debit(BANK, 100);
    original.id.low += 1_000;
    let refund = script.refund_body(&original, 100);
    refused(&mut script, Code::OriginalNotFound, &refund);
    let mut itself = script.refund_body(&original, 100);
    itself.original = itself.id;
    refused(&mut script, Code::OriginalNotFound, &itself);
}

#[test]
fn code_25_an_original_that_is_no_debit() {
    for kind in Kind::ALL {
        let mut script = Script::new();
        let original = script.payment(kind);
        script.yes(&original);
        let refund = script.refund_body(&original, 100);
        if kind == Kind::Debit {
            assert_eq!(script.send(&refund), [Said::Forward(BANK)]);
        } else {
            refused(&mut script, Code::OriginalNotFound, &refund);
        }
    }
}

#[test]
fn code_25_an_original_that_is_not_committed() {
    let mut script = Script::new();
    let [reserved, doubtful, declined, expired] = [1, 2, 3, 4].map(|_| script.debit(BANK, 100));
    script.no(&declined, Code::CustomerFunds);
    script.not_sent(&expired, Code::LinkDown);
    let rejected = script.body(BANK, 0);
    script.send(&rejected);
    for original in [&reserved, &declined, &expired, &rejected] {
        let refund = script.refund_body(original, 1);
        refused(&mut script, Code::OriginalNotFound, &refund);
    }
    script.after_seconds(5).tick();
    assert_eq!(script.state(&doubtful), Some(PaymentState::InDoubt));
    let refund = script.refund_body(&doubtful, 1);
    refused(&mut script, Code::OriginalNotFound, &refund);
    script.yes(&doubtful);
    script.refund(&doubtful, 1);
}

#[test]
fn code_25_an_original_of_another_initiator_responder_or_currency() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    let mut responder = script.refund_body(&original, 100);
    responder.responder = ParticipantIndex(OTHER_BANK);
    refused(&mut script, Code::OriginalNotFound, &responder);
    let mut currency = script.refund_body(&original, 100);
    currency.currency = HKD.0;
    refused(&mut script, Code::OriginalNotFound, &currency);
    let mut initiator = script.refund_body(&original, 100);
    initiator.id = PaymentId::new(initiator.id.date(), ParticipantIndex(OTHER_INSTITUTION), 0, 1);
    refused(&mut script, Code::OriginalNotFound, &initiator);
    script.refund(&original, 100);
}

#[test]
fn code_25_an_original_whose_ids_date_is_more_than_the_refund_days_ago() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    // It is 20:00: the days are counted by date, so four hours less than the last whole day will do.
    script.after_seconds(u64::from(REFUND_DAYS) * DAY_S + 4 * 3_600 - 1);
    let refund = refund_today(&mut script, &original, 1);
    assert_eq!(script.send(&refund), [Said::Forward(BANK)]);
    script.yes(&refund);
    script.after_seconds(1);
    let refund = refund_today(&mut script, &original, 1);
    refused(&mut script, Code::OriginalNotFound, &refund);
}

#[test]
fn the_date_of_the_originals_id_counts_and_not_the_day_it_committed() {
    let mut script = Script::new();
    let mut original = script.body(BANK, 100);
    let yesterday = UtcNanos(script.time.0 - DAY_S * 1_000_000_000).business_date();
    original.id = PaymentId::new(yesterday, original.id.originator(), 0, 1);
    script.send(&original);
    script.yes(&original);
    script.after_seconds((u64::from(REFUND_DAYS) - 1) * DAY_S);
    let refund = refund_today(&mut script, &original, 1);
    assert_eq!(script.send(&refund), [Said::Forward(BANK)]);
    script.yes(&refund);
    script.after_seconds(DAY_S);
    let refund = refund_today(&mut script, &original, 1);
    refused(&mut script, Code::OriginalNotFound, &refund);
}

#[test]
fn an_original_dated_tomorrow_may_be_refunded_today() {
    let mut script = Script::new();
    script.after_seconds(4 * 3_600 - 1);
    let tomorrow = script.time.plus(1_000_000_000).business_date();
    let mut original = script.body(BANK, 100);
    original.id = PaymentId::new(tomorrow, original.id.originator(), 0, 1);
    script.send(&original);
    script.yes(&original);
    script.refund(&original, 100);
}

#[test]
fn code_26_the_full_amount_may_be_refunded_and_not_one_unit_more() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    let over = script.refund_body(&original, 101);
    refused(&mut script, Code::RefundExceedsOriginal, &over);
    script.refund(&original, 100);
    let over = script.refund_body(&original, 1);
    refused(&mut script, Code::RefundExceedsOriginal, &over);
}

#[test]
fn code_26_reserved_in_doubt_and_committed_refunds_count() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    let refund = script.refund(&original, 60);
    for state in [PaymentState::Reserved, PaymentState::InDoubt, PaymentState::Committed] {
        match state {
            PaymentState::InDoubt => assert_eq!(script.after_seconds(5).tick().len(), 1),
            PaymentState::Committed => assert_eq!(script.yes(&refund).len(), 3),
            PaymentState::Reserved | PaymentState::Declined | PaymentState::Expired | PaymentState::Rejected => {}
        }
        assert_eq!(script.state(&refund), Some(state));
        let over = script.refund_body(&original, 41);
        refused(&mut script, Code::RefundExceedsOriginal, &over);
    }
    script.refund(&original, 40);
}

#[test]
fn a_declined_refund_and_an_expired_one_may_be_made_again() {
    let ends: [fn(&mut Script, &PaymentBody); 4] = [
        |script, refund| assert_eq!(script.no(refund, Code::AccountClosed).len(), 3),
        |script, refund| assert_eq!(script.never_seen(refund).len(), 3),
        |script, refund| assert_eq!(script.not_sent(refund, Code::LinkDown).len(), 2),
        |script, _| assert!(!script.after_seconds(20).tick().is_empty()),
    ];
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    for end in ends {
        let refund = script.refund(&original, 100);
        end(&mut script, &refund);
        assert_eq!(script.engine.refunds.sums().count(), 0, "nothing is held any more");
    }
    let last = script.refund(&original, 100);
    script.yes(&last);
    let over = script.refund_body(&original, 1);
    refused(&mut script, Code::RefundExceedsOriginal, &over);
    assert_eq!(script.replayed(), script.engine.state_hash());
}

#[test]
fn a_late_word_on_a_refund_changes_nothing_of_what_is_refunded() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    let declined = script.refund(&original, 100);
    script.no(&declined, Code::AccountClosed);
    assert_eq!(script.yes(&declined), []);
    let committed = script.refund(&original, 100);
    script.yes(&committed);
    assert_eq!(script.no(&committed, Code::AccountClosed), []);
    let over = script.refund_body(&original, 1);
    refused(&mut script, Code::RefundExceedsOriginal, &over);
}

#[test]
fn the_original_is_looked_for_after_the_amount_and_before_the_cover() {
    let mut script = Script::with(|terms| {
        if terms.index.0 == INSTITUTION {
            (terms.accounts[0].cap_minor, terms.payment_limit_minor) = (50, 120);
        }
    });
    let original = script.committed_debit(BANK, 100);
    let mut nothing = script.refund_body(&original, 0);
    nothing.original.low += 1_000;
    refused(&mut script, Code::AmountInvalid, &nothing);
    let mut over_limit = script.refund_body(&original, 121);
    over_limit.original.low += 1_000;
    refused(&mut script, Code::OverAgreedLimit, &over_limit);
    // Position −100, cap 50: a payout of 120 leaves 30.
    let mut payout = script.body(BANK, 120);
    payout.kind = Kind::Payout as u8;
    assert_eq!(script.send(&payout), [Said::Forward(BANK)]);
    let mut unknown = script.refund_body(&original, 100);
    unknown.original.low += 1_000;
    refused(&mut script, Code::OriginalNotFound, &unknown);
    let too_much = script.refund_body(&original, 101);
    refused(&mut script, Code::RefundExceedsOriginal, &too_much);
    let uncovered = script.refund_body(&original, 100);
    refused(&mut script, Code::CoverExceeded, &uncovered);
    assert_eq!(script.engine.refunds.sums().count(), 0, "a rejection holds nothing");
}

#[test]
fn a_refund_sent_again_takes_nothing_more_of_its_original() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    let refund = script.refund(&original, 60);
    assert_eq!(script.send(&refund), [answer(Code::InProgress, 0)]);
    script.yes(&refund);
    assert_eq!(script.send(&refund), [again(Code::Committed, 3)]);
    script.refund(&original, 40);
}

#[test]
fn the_originals_id_is_part_of_the_content() {
    let mut script = Script::new();
    let (first, second) = (script.committed_debit(BANK, 100), script.committed_debit(BANK, 100));
    let mut refund = script.refund(&first, 60);
    refund.original = second.id;
    assert_eq!(script.send(&refund), [answer(Code::IdReused, 0)]);
}

#[test]
fn what_refunds_hold_is_in_the_state_hash() {
    let mut script = Script::new();
    let original = script.committed_debit(BANK, 100);
    script.refund(&original, 60);
    let before = script.engine.state_hash();
    let other = crate::domain::PaymentSlot(9);
    script.engine.refunds.take(other, original.id, 1);
    assert_ne!(script.engine.state_hash(), before);
}
