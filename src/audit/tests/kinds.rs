//! Pushes, refunds, steps of mandates, Reversals: what the auditor makes of each.

use crate::audit::script::{BANK, CAP, OTHER_BANK, Script, TODAY};
use crate::domain::{Code, Kind, ParticipantIndex, WindowId};
use crate::wire::{Regarding, ReplyOutcome};

#[test]
fn a_push_reserves_and_owes_on_its_initiator() {
    let mut script = Script::new();
    let payout = script.payment(Kind::Payout, 700);
    assert_eq!(script.clean().reserved, [700, 0, 0]);
    script.yes(&payout);
    let sums = script.clean();
    assert_eq!((sums.positions, sums.reserved), (vec![700, -700, 0], vec![0; 3]));
    assert_eq!(sums.windows[0].nets, [(0, 700), (1, -700)].into());
    assert_eq!(sums.by_kind, [(2, [1, 1])].into());
}

#[test]
fn a_push_is_admitted_against_its_initiators_cap() {
    let mut script = Script::with(|terms| terms.accounts[0].cap_minor = if terms.index.0 == 0 { 99 } else { CAP });
    script.payment(Kind::Payout, 100);
    script.payment(Kind::Payout, 99);
    let sums = script.clean();
    assert_eq!((sums.by_code, sums.reserved), ([(13, 1)].into(), vec![99, 0, 0]));
}

#[test]
fn a_payment_without_money_counts_in_its_window_and_moves_nothing() {
    for kind in [Kind::Bind, Kind::Unbind] {
        let mut script = Script::with(|terms| terms.accounts[0].cap_minor = 0);
        let payment = script.payment(kind, 0);
        script.yes(&payment);
        script.payment(kind, 1);
        let sums = script.clean();
        assert_eq!((sums.payments.committed, sums.payments.rejected), (1, 1));
        assert_eq!((sums.windows[0].committed, sums.windows[0].gross_minor), (1, 0));
        assert_eq!(sums.by_code, [(0, 1), (10, 1)].into());
        assert_eq!(sums.positions, [0, 0, 0]);
    }
}

#[test]
fn t2_of_every_kind_but_debit_is_that_of_a_push() {
    for kind in [Kind::Payout, Kind::Bind, Kind::Unbind] {
        let mut script = Script::new();
        let amount = if kind == Kind::Payout { 100 } else { 0 };
        script.payment(kind, amount);
        script.after(19).tick();
        assert_eq!(script.clean().payments.in_doubt, 1);
        script.after(1).tick();
        let sums = script.clean();
        assert_eq!((sums.payments.expired, sums.reversals_open), (1, 0), "{kind:?}");
    }
}

#[test]
fn refunds_come_to_no_more_than_their_original() {
    let mut script = Script::new();
    let original = script.committed(BANK, 100);
    let first = script.refund(&original, 60);
    script.refund(&original, 41);
    assert_eq!(script.clean().by_code, [(0, 1), (26, 1)].into(), "Reserved counts");
    script.yes(&first);
    script.refund(&original, 41);
    assert_eq!(script.clean().by_code[&26], 2, "Committed counts");
    let second = script.refund(&original, 40);
    script.after(5).tick();
    script.refund(&original, 1);
    assert_eq!(script.clean().by_code[&26], 3, "InDoubt counts");
    script.no(&second, Code::AccountClosed);
    let third = script.refund(&original, 40);
    script.not_sent(&third, Code::LinkDown);
    let fourth = script.refund(&original, 40);
    script.yes(&fourth);
    let sums = script.clean();
    assert_eq!(sums.by_code, [(0, 3), (21, 1), (26, 3), (31, 1)].into());
    assert_eq!(sums.positions, [0, 0, 0], "all of it was given back");
}

#[test]
fn a_refund_wants_a_committed_debit_of_the_same_parties_and_currency() {
    let mut script = Script::new();
    let original = script.committed(BANK, 100);
    let open = script.debit(BANK, 100);
    let payout = script.payment(Kind::Payout, 100);
    script.yes(&payout);
    let mut unknown = original;
    unknown.id.low = 99;
    for refused in [open, payout, unknown] {
        script.refund(&refused, 1);
    }
    let mut elsewhere = original;
    elsewhere.responder = ParticipantIndex(OTHER_BANK);
    script.refund(&elsewhere, 1);
    assert_eq!(script.clean().by_code, [(0, 2), (25, 4)].into());
    script.refund(&original, 1);
    assert_eq!(script.clean().by_code[&25], 4);
}

#[test]
fn a_refund_comes_within_the_refund_days_of_its_originals_date() {
    let mut script = Script::new();
    let original = script.committed(BANK, 100);
    let refund = |script: &mut Script, days: u64| {
        let mut body = script.body(BANK, 1);
        body.id = crate::domain::PaymentId::new(script.time.business_date(), body.id.originator(), 1, days);
        (body.kind, body.original) = (Kind::Refund as u8, original.id);
        script.send(body);
    };
    script.after(86_400);
    refund(&mut script, 1);
    assert_eq!(script.clean().by_code, [(0, 1)].into());
    script.after(86_400);
    refund(&mut script, 2);
    assert_eq!(script.clean().by_code[&25], 1);
}

#[test]
fn a_pull_past_t2_has_a_reversal_until_the_bank_acknowledges() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    script.after(60).tick();
    assert_eq!(script.clean().reversals_open, 1);
    let acknowledge = |script: &mut Script| script.reply(&payment, Regarding::Reversal, ReplyOutcome::Acknowledged, 0);
    acknowledge(&mut script);
    assert_eq!(script.clean().reversals_open, 0);
    script.yes(&payment);
    assert_eq!(script.clean().reversals_open, 1, "a late yes raises it again");
    acknowledge(&mut script);
    let sums = script.clean();
    assert_eq!(
        (sums.reversals_open, sums.late_replies, sums.refused_replies),
        (0, 1, 0)
    );
}

#[test]
fn a_late_yes_to_a_declined_or_unsent_pull_raises_a_reversal_and_to_a_push_none() {
    let mut script = Script::new();
    let (declined, unsent) = (script.debit(BANK, 100), script.debit(BANK, 100));
    let push = script.payment(Kind::Payout, 100);
    for payment in [&declined, &push] {
        script.no(payment, Code::BankDeclined);
        script.yes(payment);
    }
    script.not_sent(&unsent, Code::LinkDown);
    script.yes(&unsent);
    script.yes(&push);
    let sums = script.clean();
    assert_eq!((sums.reversals_open, sums.late_replies), (2, 4));
    assert_eq!(
        (sums.conflicts, sums.contradicted),
        (3, [0, 2]),
        "a payment counts once among the contradicted"
    );
}

#[test]
fn a_word_that_does_not_fit_what_it_regards_is_refused() {
    use Regarding::{Request, Reversal, Status};
    use ReplyOutcome::{Acknowledged, NeverSeen, No, Yes};
    for (regarding, outcome) in [
        (Request, NeverSeen),
        (Request, Acknowledged),
        (Status, Acknowledged),
        (Reversal, Yes),
        (Reversal, No),
        (Reversal, NeverSeen),
        (Reversal, Acknowledged),
    ] {
        let mut script = Script::new();
        let payment = script.debit(BANK, 100);
        script.reply(&payment, regarding, outcome, 0);
        let sums = script.clean();
        assert_eq!((sums.refused_replies, sums.payments.reserved), (1, 1), "{regarding:?}");
    }
}

#[test]
fn outcomes_are_counted_by_kind_and_by_both_parties() {
    let mut script = Script::new();
    let debit = script.committed(BANK, 100);
    let refund = script.refund(&debit, 50);
    script.no(&refund, Code::AccountClosed);
    let mut nobody = script.body(9, 100);
    nobody.kind = 9;
    script.send(nobody);
    let mut on_us = script.body(0, 100);
    on_us.kind = Kind::Payout as u8;
    script.send(on_us);
    let sums = script.clean();
    assert_eq!(
        sums.by_kind,
        [(0, [1, 0]), (1, [1, 1]), (2, [1, 0]), (3, [1, 0])].into()
    );
    assert_eq!(sums.as_initiator, [(0, [4, 1])].into());
    assert_eq!(sums.as_responder, [(1, [2, 1])].into());
}

#[test]
fn a_restart_moves_a_pushs_deadline_by_its_own_t2() {
    let mut script = Script::new();
    let payout = script.payment(Kind::Payout, 100);
    script.after(600).event(crate::wire::RecordKind::Restart, &[]);
    script.after(14).tick();
    assert_eq!(script.clean().payments.in_doubt, 1, "T2 − T1 = 15 s from the restart");
    script.after(1).yes(&payout);
    let sums = script.clean();
    assert_eq!((sums.payments.expired, sums.late_replies), (1, 1));
    assert_eq!(sums.windows[0].id, WindowId::new(TODAY, 1));
}
