//! T1, status requests, T2, Reversals, restarts, and the order in which timers fire.

use super::script::{
    BANK, INSTITUTION, LINK, MAXIMUM, OTHER_BANK, START, Said, Script, TODAY, answer, reversal, status,
};
use crate::domain::{Code, LinkId, ParticipantIndex, PaymentId, PaymentState, SECOND, UtcNanos};
use crate::wire::{Effect, Frame, PaymentBody, StatusRequest, Template};

#[test]
fn at_t1_a_payment_is_in_doubt_its_cover_stays_reserved_and_the_bank_is_asked() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    assert_eq!(script.after(5 * SECOND - 1).tick(), []);
    assert_eq!(script.state(&payment), Some(PaymentState::Reserved));
    assert_eq!(script.after(1).tick(), [status(1)]);
    assert_eq!(script.state(&payment), Some(PaymentState::InDoubt));
    assert_eq!(script.reserved(BANK), 700);
    let figures = script.engine.figures();
    assert_eq!((figures.reserved, figures.in_doubt, figures.status_requests), (0, 1, 1));
}

#[test]
fn a_status_request_repeats_the_payments_facts() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.after_seconds(6).tick();
    let Effect::Frame(frame) = script.effects[0] else {
        panic!("{:?}", script.effects)
    };
    let request = StatusRequest::read(&frame.bytes);
    assert_eq!((request.id, request.amount_minor), (payment.id, 700));
    assert_eq!((request.currency, request.kind), (payment.currency, payment.kind));
    assert_eq!((request.initiator.0, request.accepted_ns), (INSTITUTION, START.0));
}

#[test]
fn the_bank_is_asked_at_0_10_and_40_seconds_and_no_more() {
    let mut script = Script::new();
    script.debit(BANK, 700);
    let mut asked = Vec::new();
    for second in 1..60 {
        for said in script.after_seconds(1).tick() {
            asked.push((second, said));
        }
    }
    assert_eq!(asked, [(5, status(1)), (15, status(2)), (45, status(3))]);
}

#[test]
fn no_status_request_is_raised_once_t2_has_passed() {
    let mut script = Script::with(|terms| terms.expiry_pull_ns = 20 * SECOND);
    script.debit(BANK, 700);
    let said = script.after_seconds(3_600).tick();
    let expected = [
        status(1),
        status(2),
        Said::Release,
        answer(Code::BankTimeout, 1),
        reversal(1),
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_payment_that_is_final_is_asked_about_no_more() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    assert_eq!(script.after_seconds(5).tick(), [status(1)]);
    script.yes(&payment);
    assert_eq!(script.after_seconds(3_600).tick(), []);
    assert_eq!(script.engine.next_deadline(), UtcNanos::NEVER);
}

#[test]
fn at_t2_a_pull_expires_with_30_its_cover_is_released_and_a_reversal_is_due() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.after_seconds(59).tick();
    assert_eq!(
        (script.state(&payment), script.reserved(BANK)),
        (Some(PaymentState::InDoubt), 700)
    );
    let said = script.after_seconds(1).tick();
    assert_eq!(said, [Said::Release, answer(Code::BankTimeout, 1), reversal(1)]);
    assert_eq!(
        (script.state(&payment), script.reserved(BANK)),
        (Some(PaymentState::Expired), 0)
    );
    assert_eq!((script.position(BANK), script.engine.figures().expired), (0, 1));
    assert_eq!(script.last_answer().final_ns, START.plus(60 * SECOND).0);
}

#[test]
fn a_yes_before_t2_commits_and_one_at_t2_is_late() {
    for (span_ns, state) in [
        (60 * SECOND - 1, PaymentState::Committed),
        (60 * SECOND, PaymentState::Expired),
    ] {
        let mut script = Script::new();
        let payment = script.debit(BANK, 700);
        script.after(span_ns).yes(&payment);
        assert_eq!(script.state(&payment), Some(state));
    }
}

#[test]
fn timers_due_fire_before_the_event_that_brings_the_time() {
    let mut script = Script::new();
    script.debit(BANK, MAXIMUM);
    script.debit(BANK, MAXIMUM);
    let body = script.body(BANK, MAXIMUM);
    let said = script.after_seconds(60).send(&body);
    assert_eq!(
        said.last(),
        Some(&Said::Forward(BANK)),
        "their cover is free again: {said:?}"
    );
}

/// The payments asked about by the last event, in order.
fn asked(script: &Script) -> Vec<u64> {
    let asked = script.effects.iter().filter_map(|effect| match effect {
        Effect::Frame(frame) if frame.template == Template::StatusRequest => {
            Some(StatusRequest::read(&frame.bytes).id.serial())
        }
        Effect::Frame(_)
        | Effect::Forward { .. }
        | Effect::Release { .. }
        | Effect::LookUp(_)
        | Effect::Request { .. }
        | Effect::Cut { .. }
        | Effect::Contract { .. }
        | Effect::Ordered { .. }
        | Effect::CoverAlarm { .. } => None,
    });
    asked.collect()
}

#[test]
fn timers_fire_in_the_order_of_deadline_and_id() {
    // The other bank's T1 is a second shorter, so that it has a queue of its own.
    let mut script = Script::with(|terms| {
        if terms.index.0 == OTHER_BANK {
            terms.doubt_ns = 4 * SECOND;
        }
    });
    let send = |script: &mut Script, serial: u64, responder: u16| {
        let mut body = script.body(responder, 10);
        body.id = PaymentId::new(TODAY, ParticipantIndex(INSTITUTION), 0, serial);
        assert_eq!(script.send(&body), [Said::Forward(responder)]);
    };
    send(&mut script, 9, BANK);
    send(&mut script, 5, BANK);
    script.after_seconds(1);
    send(&mut script, 7, OTHER_BANK);
    send(&mut script, 1, BANK);
    script.after_seconds(5).tick();
    // 5, 7 and 9 at five seconds, 1 at six.
    assert_eq!(asked(&script), [5, 7, 9, 1]);
    let t2 = script.after_seconds(60).tick();
    let words: Vec<_> = t2.iter().filter(|said| matches!(said, Said::Answer { .. })).collect();
    assert_eq!(words.len(), 4);
    assert_eq!(script.replayed(), script.engine.state_hash());
}

#[test]
fn the_next_deadline_is_that_of_the_first_timer_that_still_means_something() {
    let mut script = Script::new();
    assert_eq!(script.engine.next_deadline(), UtcNanos::NEVER);
    let first = script.debit(BANK, 100);
    script.after_seconds(1);
    let second = script.debit(BANK, 100);
    assert_eq!(script.engine.next_deadline(), START.plus(5 * SECOND));
    script.yes(&first);
    assert_eq!(script.engine.next_deadline(), START.plus(6 * SECOND));
    for (deadline_s, after) in [(6, 16), (16, 46), (46, 61), (61, 62)] {
        script.time = START.plus(deadline_s * SECOND);
        script.tick();
        assert_eq!(script.engine.next_deadline(), START.plus(after * SECOND));
    }
    script.acknowledged(&second);
    assert_eq!(script.engine.next_deadline(), UtcNanos::NEVER);
}

/// The seconds at which a Reversal is sent, seen from the first, over `seconds` with a tick each.
fn reversals(script: &mut Script, seconds: u64) -> Vec<(u64, u8)> {
    let mut sent = Vec::new();
    for second in 1..=seconds {
        for said in script.after_seconds(1).tick() {
            let Said::Reversal { to, word, attempt } = said else {
                panic!("{said:?}")
            };
            assert_eq!((to, word), (BANK, 1), "a Reversal keeps its number");
            sent.push((second, attempt));
        }
    }
    sent
}

fn expired(script: &mut Script) -> PaymentBody {
    let payment = script.debit(BANK, 100);
    script.after_seconds(60);
    assert_eq!(script.tick().last(), Some(&reversal(1)));
    payment
}

#[test]
fn a_reversal_is_sent_again_after_1_2_4_to_60_seconds_until_the_bank_takes_it() {
    let mut script = Script::new();
    let payment = expired(&mut script);
    let sent = reversals(&mut script, 200);
    assert_eq!(
        sent,
        [(1, 2), (3, 3), (7, 4), (15, 5), (31, 6), (63, 7), (123, 8), (183, 9)]
    );
    assert_eq!(script.acknowledged(&payment), []);
    assert_eq!(reversals(&mut script, 200), []);
    assert_eq!(script.engine.snapshot().reversals_open, [0, 0]);
}

#[test]
fn a_reversal_nobody_takes_for_a_day_becomes_manual() {
    let mut script = Script::new();
    let payment = expired(&mut script);
    reversals(&mut script, 24 * 3_600 + 120);
    assert_eq!(script.engine.snapshot().reversals_open, [0, 1]);
    assert_eq!(script.engine.next_deadline(), UtcNanos::NEVER);
    script.acknowledged(&payment);
    assert_eq!(script.engine.snapshot().reversals_open, [0, 0]);
}

#[test]
fn a_reversal_that_falls_due_in_a_day_of_silence_is_sent_when_the_silence_ends() {
    let mut script = Script::new();
    script.debit(BANK, 100);
    let said = script.after_seconds(24 * 3_600 + 60).tick();
    assert_eq!(said.last(), Some(&reversal(1)), "{said:?}");
    assert_eq!(script.engine.snapshot().reversals_open, [1, 0]);
}

#[test]
fn a_late_yes_after_the_acknowledgement_raises_the_reversal_again_with_one_chain_of_attempts() {
    let mut script = Script::new();
    let payment = expired(&mut script);
    assert_eq!(reversals(&mut script, 3), [(1, 2), (3, 3)]);
    script.acknowledged(&payment);
    script.after_seconds(1);
    assert_eq!(script.yes(&payment), [reversal(4)]);
    // Its next attempt comes after 8 s; the timer of the first chain, due 3 s from here, is void.
    assert_eq!(reversals(&mut script, 20), [(8, 5)]);
}

#[test]
fn a_quiet_time_is_not_made_up_for_by_a_burst_of_reversals() {
    let mut script = Script::new();
    expired(&mut script);
    assert_eq!(script.after_seconds(3_600).tick(), [reversal(2)]);
    assert_eq!(reversals(&mut script, 2), [(2, 3)]);
}

#[test]
fn a_restart_asks_anew_about_everything_open_and_about_nothing_else() {
    let mut script = Script::new();
    let doubtful = script.debit(BANK, 100);
    script.after_seconds(6).tick();
    let reserved = script.debit(BANK, 100);
    let committed = script.debit(BANK, 100);
    script.yes(&committed);
    assert_eq!(script.restart(), [status(1), status(1)]);
    assert_eq!(asked(&script), [doubtful.id.serial(), reserved.id.serial()]);
    for payment in [doubtful, reserved] {
        assert_eq!(script.state(&payment), Some(PaymentState::InDoubt));
    }
    assert_eq!(script.reserved(BANK), 200, "their cover stays reserved");
    assert_eq!(script.after_seconds(10).tick(), [status(2), status(2)]);
    assert_eq!(script.after_seconds(30).tick(), [status(3), status(3)]);
}

#[test]
fn an_answer_after_a_restart_is_not_sent_by_a_link_of_the_run_before() {
    let mut script = Script::new();
    let before = script.debit(BANK, 100);
    script.restart();
    let after = script.debit(BANK, 100);
    for (payment, via) in [(before, LinkId::NONE), (after, LINK)] {
        script.yes(&payment);
        assert_eq!(answered_via(&script), [via]);
    }
    assert_eq!(script.replayed(), script.engine.state_hash());
}

/// The links by which the last event's answers would best go.
fn answered_via(script: &Script) -> Vec<LinkId> {
    let answers = script.effects.iter().filter_map(|effect| match effect {
        Effect::Frame(frame) if frame.template == Template::Answer => Some(frame.via),
        Effect::Frame(_)
        | Effect::Forward { .. }
        | Effect::Release { .. }
        | Effect::LookUp(_)
        | Effect::Request { .. }
        | Effect::Cut { .. }
        | Effect::Contract { .. }
        | Effect::Ordered { .. }
        | Effect::CoverAlarm { .. } => None,
    });
    answers.collect()
}

#[test]
fn a_restart_with_nothing_open_says_nothing() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.yes(&payment);
    assert_eq!(script.restart(), []);
    assert_eq!(script.engine.next_deadline(), UtcNanos::NEVER);
}

#[test]
fn after_a_stop_longer_than_t2_nothing_expires_before_it_was_asked_for() {
    let mut script = Script::new();
    let reserved = script.debit(BANK, 100);
    let doubtful = script.debit(BANK, 100);
    script.after_seconds(5).tick();
    assert_eq!(script.after_seconds(3_600).restart(), [status(1), status(1)]);
    // T2 − T1 is 55 s.
    script.after(55 * SECOND - 1).tick();
    for payment in [reserved, doubtful] {
        assert_eq!(script.state(&payment), Some(PaymentState::InDoubt));
    }
    script.after(1).tick();
    for payment in [reserved, doubtful] {
        assert_eq!(script.state(&payment), Some(PaymentState::Expired));
    }
}

#[test]
fn a_restart_brings_no_deadline_forward() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.after_seconds(1).restart();
    script.time = START.plus(60 * SECOND - 1);
    script.tick();
    assert_eq!(script.state(&payment), Some(PaymentState::InDoubt));
    script.after(1).tick();
    assert_eq!(script.state(&payment), Some(PaymentState::Expired));
}

#[test]
fn a_second_restart_moves_the_deadlines_again() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.after_seconds(50).restart();
    assert_eq!(script.after_seconds(50).restart(), [status(1)]);
    script.after(55 * SECOND - 1).tick();
    assert_eq!(script.state(&payment), Some(PaymentState::InDoubt));
    script.after(1).tick();
    assert_eq!(script.state(&payment), Some(PaymentState::Expired));
}

#[test]
fn a_reversal_outlives_a_restart() {
    let mut script = Script::new();
    expired(&mut script);
    assert_eq!(script.after_seconds(100).restart(), [reversal(2)]);
    assert_eq!(reversals(&mut script, 2), [(2, 3)]);
}
