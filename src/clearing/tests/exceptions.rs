//! Late words of every kind, Reversals to their end, exception items, and the figures operators see.

use super::script::{BANK, INSTITUTION, OTHER_BANK, OTHER_INSTITUTION, Said, Script, TODAY, reversal};
use crate::clearing::{ExceptionKind, Success};
use crate::domain::{Code, Kind, ParticipantIndex, PaymentId, PaymentState, SECOND};
use crate::wire::{PaymentBody, Regarding, ReplyOutcome, TerminateCode};

use ExceptionKind::{CommittedThenNo, DeclinedThenYes, ReversalManual};

const DAY_S: u64 = 86_400;

fn of(participant: u16) -> ParticipantIndex {
    ParticipantIndex(participant)
}

/// The sorts of the items there are, with their payments.
fn items(script: &Script) -> Vec<(PaymentId, ExceptionKind)> {
    let items = script.engine.exceptions().iter();
    items.map(|item| (item.payment, item.what)).collect()
}

/// A payment of this kind in this final state.
fn finished(script: &mut Script, kind: Kind, state: PaymentState) -> PaymentBody {
    let payment = script.payment(kind);
    match state {
        PaymentState::Committed => script.yes(&payment),
        PaymentState::Declined => script.no(&payment, Code::AccountClosed),
        PaymentState::Expired => script.not_sent(&payment, Code::LinkDown),
        PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Rejected => unreachable!("{state:?}"),
    };
    assert_eq!(script.state(&payment), Some(state));
    payment
}

/// What a late word is counted as: late words, conflicts, items, Reversals due, and what is said.
#[track_caller]
fn late(kind: Kind, state: PaymentState, outcome: ReplyOutcome, conflict: Option<ExceptionKind>, reverses: bool) {
    let mut script = Script::new();
    let payment = finished(&mut script, kind, state);
    let before = (script.position(BANK), script.position(INSTITUTION));
    let words = [INSTITUTION, BANK].map(|party| script.engine.next_word(of(party)));
    let said = script.after_seconds(1).reply(&payment, Regarding::Status, outcome, 0);
    let reversed = script.engine.next_word(of(BANK)) - words[1];
    assert_eq!(said.len() as u64, reversed, "{kind:?} {state:?} {outcome:?}: {said:?}");
    assert_eq!(reversed == 1, reverses, "{kind:?} {state:?} {outcome:?}: {said:?}");
    assert!(
        said.iter().all(|said| matches!(said, Said::Reversal { .. })),
        "{said:?}"
    );
    assert_eq!(script.engine.next_word(of(INSTITUTION)), words[0], "no second answer");
    assert_eq!((script.position(BANK), script.position(INSTITUTION)), before);
    assert_eq!(script.state(&payment), Some(state));
    let figures = script.engine.figures();
    assert_eq!((figures.late_words, figures.replies_refused), (1, 0));
    assert_eq!(figures.conflicts, u64::from(conflict.is_some()));
    let expected: Vec<_> = conflict.map(|what| (payment.id, what)).into_iter().collect();
    assert_eq!(items(&script), expected, "{kind:?} {state:?} {outcome:?}");
    assert_eq!(script.engine.snapshot().reversals_open, [u64::from(reverses), 0]);
}

#[test]
fn committed_then_yes_is_counted() {
    for kind in Kind::ALL {
        late(kind, PaymentState::Committed, ReplyOutcome::Yes, None, false);
    }
}

#[test]
fn committed_then_no_or_never_seen_is_a_conflict() {
    for kind in Kind::ALL {
        for outcome in [ReplyOutcome::No, ReplyOutcome::NeverSeen] {
            late(kind, PaymentState::Committed, outcome, Some(CommittedThenNo), false);
        }
    }
}

#[test]
fn declined_then_yes_is_a_conflict_and_reverses_a_pull_alone() {
    for kind in Kind::ALL {
        let is_pull = kind == Kind::Debit;
        late(
            kind,
            PaymentState::Declined,
            ReplyOutcome::Yes,
            Some(DeclinedThenYes),
            is_pull,
        );
    }
}

#[test]
fn expired_then_yes_is_counted_and_reverses_a_pull_alone() {
    for kind in Kind::ALL {
        late(
            kind,
            PaymentState::Expired,
            ReplyOutcome::Yes,
            None,
            kind == Kind::Debit,
        );
    }
}

#[test]
fn declined_or_expired_then_no_or_never_seen_is_counted() {
    for kind in Kind::ALL {
        for state in [PaymentState::Declined, PaymentState::Expired] {
            for outcome in [ReplyOutcome::No, ReplyOutcome::NeverSeen] {
                late(kind, state, outcome, None, false);
            }
        }
    }
}

#[test]
fn a_word_that_means_nothing_is_refused_in_every_state_and_for_every_kind() {
    use Regarding::{Request, Reversal, Status};
    use ReplyOutcome::{Acknowledged, NeverSeen, No, Yes};
    let words = [
        (Request, NeverSeen),
        (Request, Acknowledged),
        (Status, Acknowledged),
        (Reversal, Yes),
        (Reversal, No),
        (Reversal, NeverSeen),
        (Reversal, Acknowledged),
    ];
    for kind in Kind::ALL {
        let mut script = Script::new();
        let open = script.payment(kind);
        let committed = finished(&mut script, kind, PaymentState::Committed);
        for payment in [open, committed] {
            let before = script.state(&payment);
            for (regarding, outcome) in words {
                let said = script.reply(&payment, regarding, outcome, 0);
                assert_eq!(said, [Said::Cut(TerminateCode::FieldInvalid)], "{kind:?}");
                assert_eq!(script.state(&payment), before);
            }
        }
        let figures = script.engine.figures();
        assert_eq!((figures.replies_refused, figures.late_words), (14, 0));
        assert_eq!(items(&script), []);
    }
}

#[test]
fn an_item_says_with_which_event_and_when_and_there_is_one_of_each_sort_a_payment() {
    let mut script = Script::new();
    let (first, second) = (script.debit(BANK, 100), script.debit(BANK, 100));
    script.yes(&first);
    script.no(&second, Code::CustomerFunds);
    script.after_seconds(7).yes(&second);
    let event = script.engine.event_number();
    let time = script.time;
    for _ in 0..3 {
        script.after_seconds(1).yes(&second);
        script.no(&first, Code::CustomerFunds);
        script.never_seen(&first);
    }
    assert_eq!(script.engine.figures().conflicts, 10);
    let items = script.engine.exceptions();
    assert_eq!(items.len(), 2, "{items:?}");
    assert_eq!((items[0].payment, items[0].what), (second.id, DeclinedThenYes));
    assert_eq!((items[0].event, items[0].time), (event, time));
    assert_eq!((items[1].payment, items[1].what), (first.id, CommittedThenNo));
    assert_eq!(
        (items[1].event, items[1].time),
        (event + 2, time.plus(SECOND)),
        "in the order of the events"
    );
    assert_eq!(script.replayed(), script.engine.state_hash());
}

/// A Debit whose Reversal nobody has taken for a day.
fn manual(script: &mut Script) -> PaymentBody {
    let payment = script.debit(BANK, 100);
    script.after_seconds(60).tick();
    for _ in 0..=DAY_S / 60 {
        script.after_seconds(60).tick();
    }
    assert_eq!(script.engine.snapshot().reversals_open, [0, 1]);
    payment
}

#[test]
fn a_reversal_that_became_manual_is_an_exception_item() {
    let mut script = Script::new();
    let payment = manual(&mut script);
    assert_eq!(items(&script), [(payment.id, ReversalManual)]);
    let item = script.engine.exceptions()[0];
    assert!(item.time <= script.time && item.time.since(payment_expired(&script, &payment)) >= DAY_S * SECOND);
    script.after_seconds(DAY_S).tick();
    assert_eq!(items(&script).len(), 1);
}

fn payment_expired(script: &Script, payment: &PaymentBody) -> crate::domain::UtcNanos {
    crate::domain::UtcNanos(script.inquire(payment).final_ns)
}

#[test]
fn an_acknowledgement_after_manual_still_counts_and_the_item_stays() {
    let mut script = Script::new();
    let payment = manual(&mut script);
    assert_eq!(script.acknowledged(&payment), []);
    assert_eq!(script.engine.snapshot().reversals_open, [0, 0]);
    assert_eq!(items(&script), [(payment.id, ReversalManual)]);
    assert_eq!(script.engine.figures().replies_refused, 0);
    assert_eq!(script.after_seconds(600).tick(), []);
}

#[test]
fn a_late_yes_after_manual_begins_the_24_hours_anew_with_the_same_word() {
    let mut script = Script::new();
    let payment = manual(&mut script);
    let said = script.yes(&payment);
    assert!(
        matches!(said[..], [Said::Reversal { to: BANK, word: 1, .. }]),
        "{said:?}"
    );
    assert_eq!(script.engine.snapshot().reversals_open, [1, 0]);
    for _ in 0..DAY_S / 60 {
        script.after_seconds(60).tick();
        assert_eq!(script.engine.snapshot().reversals_open.iter().sum::<u64>(), 1);
    }
    script.after_seconds(60).tick();
    assert_eq!(script.engine.snapshot().reversals_open, [0, 1]);
    assert_eq!(items(&script).len(), 1, "one item of each sort");
    assert_eq!(script.engine.next_word(of(BANK)), 2);
}

#[test]
fn a_second_acknowledgement_changes_nothing() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    assert_eq!(script.after_seconds(60).tick().last(), Some(&reversal(1)));
    for _ in 0..2 {
        assert_eq!(script.acknowledged(&payment), []);
    }
    assert_eq!(script.engine.figures().replies_refused, 0);
}

#[test]
fn an_item_is_in_the_state_hash() {
    let mut script = Script::new();
    let payment = script.committed_debit(BANK, 100);
    script.no(&payment, Code::CustomerFunds);
    let before = script.engine.state_hash();
    script.engine.exceptions.clear();
    assert_ne!(script.engine.state_hash(), before);
}

#[test]
fn payments_in_doubt_are_told_in_the_order_of_acceptance_and_no_more_than_asked_for() {
    let mut script = Script::new();
    let [first, second, third] = [Kind::Payout, Kind::Bind, Kind::Debit].map(|kind| script.payment(kind));
    assert_eq!(script.engine.in_doubt(10).len(), 0, "Reserved is not in doubt");
    let accepted = script.time;
    script.after_seconds(5).tick();
    let told = script.engine.in_doubt(10);
    let ids: Vec<_> = told.iter().map(|told| told.payment).collect();
    assert_eq!(ids, [first.id, second.id, third.id]);
    assert_eq!(
        (told[0].kind, told[0].amount.0, told[1].amount.0),
        (Kind::Payout, 100, 0)
    );
    assert_eq!((told[2].responder, told[2].currency.0), (of(BANK), 156));
    assert_eq!(
        (told[2].accepted, told[2].expires),
        (accepted, accepted.plus(60 * SECOND))
    );
    assert_eq!(told[2].attempts, 1);
    assert_eq!(script.engine.in_doubt(2).len(), 2);
    script.yes(&first);
    script.no(&second, Code::AccountInvalid);
    assert_eq!(script.engine.in_doubt(10)[0].payment, third.id);
    script.after_seconds(60).tick();
    assert_eq!(script.engine.in_doubt(10).len(), 0);
    let again = script.debit(BANK, 1);
    script.restart();
    assert_eq!(script.engine.in_doubt(10)[0].payment, again.id);
}

#[test]
fn figures_are_kept_by_kind() {
    let mut script = Script::new();
    for kind in Kind::ALL {
        finished(&mut script, kind, PaymentState::Committed);
        finished(&mut script, kind, PaymentState::Declined);
        finished(&mut script, kind, PaymentState::Expired);
    }
    for number in [0, 6, 7, 9, 255] {
        let mut body = script.body(BANK, 100);
        body.kind = number;
        script.send(&body);
    }
    let by_kind = script.engine.figures().by_kind;
    // Each Refund has a committed Debit of its own.
    assert_eq!(by_kind[..6], [[5, 0], [6, 4], [3, 1], [3, 1], [3, 1], [3, 1]]);
    assert_eq!(by_kind[6..], [[0, 0], [0, 0]]);
}

#[test]
fn outcomes_are_counted_for_both_parties_final_ones_alone() {
    let mut script = Script::new();
    let committed = script.debit(BANK, 100);
    let declined = script.debit(OTHER_BANK, 100);
    script.debit(BANK, 100);
    script.yes(&committed);
    script.no(&declined, Code::AccountClosed);
    script.send(&committed);
    let side = |initiator, responder| Success {
        as_initiator: initiator,
        as_responder: responder,
    };
    assert_eq!(script.engine.success(of(INSTITUTION)), side([2, 1], [0, 0]));
    assert_eq!(script.engine.success(of(BANK)), side([0, 0], [1, 1]));
    assert_eq!(script.engine.success(of(OTHER_BANK)), side([0, 0], [1, 0]));
    assert_eq!(script.engine.success(of(99)), Success::default());
    let snapshot = script.engine.snapshot();
    assert_eq!(snapshot.participants[0].success, side([2, 1], [0, 0]));
}

#[test]
fn a_responder_that_is_nobody_or_the_initiator_itself_is_not_counted() {
    let mut script = Script::new();
    let nobody = script.body(99, 100);
    script.send(&nobody);
    let itself = script.body(INSTITUTION, 100);
    script.send(&itself);
    let mut stranger = script.body(BANK, 100);
    stranger.id = PaymentId::new(TODAY, of(99), 0, 1);
    script.send(&stranger);
    assert_eq!(script.engine.success(of(INSTITUTION)).as_initiator, [2, 0]);
    assert_eq!(script.engine.success(of(INSTITUTION)).as_responder, [0, 0]);
    assert_eq!(script.engine.success(of(BANK)).as_responder, [1, 0]);
    assert_eq!(script.engine.success(of(OTHER_INSTITUTION)), Success::default());
}
