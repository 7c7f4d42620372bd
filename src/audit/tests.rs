//! The rules, one claim each, on hand-built events.

mod kinds;
mod orders;

use super::script::{BANK, CAP, INSTITUTION, NOON, OTHER_BANK, Script, TODAY};
use super::{AuditError, Auditor, Statement, recompute};
use crate::domain::{
    BusinessDate, Code, ParticipantIndex, ParticipantTerms, PaymentId, Role, SchemeTerms, WindowId, WindowState,
};
use crate::journal::{Journal, JournalError, JournalOptions, SyncMode};
use crate::wire::{NotSentEvent, RecordKind, Regarding, ReplyOutcome, WindowAction};
use bytemuck::{Zeroable, bytes_of};

#[test]
fn an_accepted_debit_reserves_cover_on_the_bank() {
    let mut script = Script::new();
    script.debit(BANK, 700);
    let sums = script.clean();
    assert_eq!((sums.payments.accepted, sums.payments.reserved), (1, 1));
    assert_eq!(sums.reserved, [0, 700, 0]);
    assert_eq!(sums.positions, [0, 0, 0]);
}

#[test]
fn a_yes_posts_the_debit_in_the_open_window_and_the_bank_owes() {
    let mut script = Script::new();
    let first = script.debit(BANK, 700);
    let second = script.debit(OTHER_BANK, 50);
    script.yes(&first);
    script.yes(&second);
    let sums = script.clean();
    assert_eq!(sums.payments.committed, 2);
    assert_eq!(sums.positions, [-750, 700, 50]);
    assert_eq!(sums.reserved, [0, 0, 0]);
    assert_eq!(sums.by_code, [(0, 2)].into());
    let window = &sums.windows[0];
    assert_eq!(window.id, WindowId::new(TODAY, 1));
    assert_eq!((window.committed, window.gross_minor), (2, 750));
    assert_eq!(window.nets, [(0, -750), (1, 700), (2, 50)].into());
}

#[test]
fn a_no_declines_with_the_banks_code_and_releases_the_cover() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.no(&payment, Code::CustomerFunds);
    let sums = script.clean();
    assert_eq!((sums.payments.declined, sums.payments.reserved), (1, 0));
    assert_eq!(sums.by_code, [(23, 1)].into());
    assert_eq!(sums.reserved, [0, 0, 0]);
}

#[test]
fn a_no_with_a_code_that_no_bank_may_use_is_code_27() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.reply(&payment, Regarding::Request, ReplyOutcome::No, 99);
    assert_eq!(script.clean().by_code, [(27, 1)].into());
}

#[test]
fn every_rule_refuses_with_its_own_code() {
    let limited = |terms: &mut ParticipantTerms| terms.payment_limit_minor = 90;
    let suspended = |bits: u8| move |terms: &mut ParticipantTerms| terms.suspended = bits;
    Script::new().refused(Code::UnknownParticipant, |b| b.responder = ParticipantIndex(9));
    Script::new().refused(Code::OnUs, |b| b.responder = ParticipantIndex(INSTITUTION));
    Script::with(suspended(1)).refused(Code::InitiatorSuspended, |_| {});
    Script::with(suspended(2)).refused(Code::ResponderSuspended, |_| {});
    Script::new().refused(Code::KindNotPermitted, |b| b.kind = 77);
    Script::with(|t| t.permitted_kinds = 0).refused(Code::KindNotPermitted, |_| {});
    Script::with(|t| t.role = Role::Bank as u8).refused(Code::KindNotPermitted, |_| {});
    Script::new().refused(Code::CurrencyNotOpen, |b| b.currency = 840);
    Script::new().refused(Code::CurrencyNotOpen, |b| b.currency = 344);
    Script::new().refused(Code::CurrencyNotOpen, |b| b.currency = 0);
    Script::new().refused(Code::AmountInvalid, |b| b.amount_minor = 0);
    Script::new().refused(Code::OverSchemeMaximum, |b| b.amount_minor = 5_001);
    Script::with(limited).refused(Code::OverAgreedLimit, |_| {});
    Script::with(|t| t.accounts[0].cap_minor = 99).refused(Code::CoverExceeded, |_| {});
}

#[test]
fn the_first_rule_broken_gives_the_code() {
    Script::with(|t| t.suspended = 3).refused(Code::OnUs, |b| b.responder = ParticipantIndex(INSTITUTION));
    Script::with(|t| t.suspended = 3).refused(Code::InitiatorSuspended, |b| b.amount_minor = 0);
    Script::new().refused(Code::KindNotPermitted, |b| (b.kind, b.currency) = (9, 840));
    Script::new().refused(Code::CurrencyNotOpen, |b| (b.currency, b.amount_minor) = (840, 0));
}

#[test]
fn amounts_in_flight_count_against_the_cap_and_credits_raise_headroom() {
    let mut script = Script::with(|t| t.accounts[0].cap_minor = 1_000);
    let first = script.debit(BANK, 600);
    script.debit(BANK, 401);
    assert_eq!(script.clean().by_code, [(13, 1)].into());
    script.no(&first, Code::AccountClosed);
    let fits = script.debit(BANK, 1_000);
    script.yes(&fits);
    assert_eq!(script.clean().positions, [-1_000, 1_000, 0]);
    script.debit(BANK, 1);
    assert_eq!(script.clean().by_code, [(0, 1), (13, 2), (21, 1)].into());
}

#[test]
fn the_same_content_again_changes_nothing_and_other_content_is_refused() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    let mut again = payment;
    again.flags = 1;
    script.send(again);
    script.yes(&payment);
    script.send(again);
    again.amount_minor = 701;
    script.send(again);
    let sums = script.clean();
    assert_eq!(
        (sums.payments.accepted, sums.payments.committed, sums.duplicates),
        (1, 1, 1)
    );
    assert_eq!(sums.unremembered, [(9, 1), (16, 1)].into());
    assert_eq!(sums.positions, [-700, 700, 0]);
}

#[test]
fn a_rejection_sticks_to_its_id() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 0);
    script.send(payment);
    let sums = script.clean();
    assert_eq!((sums.payments.rejected, sums.duplicates), (1, 1));
}

#[test]
fn a_date_that_is_not_open_is_refused_and_not_remembered() {
    let mut script = Script::new();
    let mut payment = script.body(BANK, 700);
    payment.id = PaymentId::new(BusinessDate(20_261_121), ParticipantIndex(INSTITUTION), 0, 1);
    script.send(payment);
    script.send(payment);
    let sums = script.clean();
    assert_eq!(sums.unremembered, [(15, 2)].into());
    assert_eq!((sums.payments.accepted, sums.payments.rejected), (0, 0));
}

#[test]
fn past_t1_a_payment_is_in_doubt_and_keeps_its_reservation() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.after(5).tick();
    let sums = script.clean();
    assert_eq!((sums.payments.reserved, sums.payments.in_doubt), (0, 1));
    assert_eq!(sums.reserved, [0, 700, 0]);
    script.reply(&payment, Regarding::Status, ReplyOutcome::Yes, 0);
    assert_eq!(script.clean().positions, [-700, 700, 0]);
}

#[test]
fn past_t2_a_pull_expires_with_code_30_and_a_late_yes_changes_nothing() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    // The deadline itself is past: the timer fires before the event of the same time.
    script.after(60).yes(&payment);
    let sums = script.clean();
    assert_eq!((sums.payments.expired, sums.late_replies, sums.conflicts), (1, 1, 0));
    assert_eq!(sums.by_code, [(30, 1)].into());
    assert_eq!((sums.positions, sums.reserved), (vec![0; 3], vec![0; 3]));
}

#[test]
fn late_words_that_contradict_are_conflicts() {
    let mut script = Script::new();
    let (kept, refused) = (script.debit(BANK, 700), script.debit(BANK, 1));
    script.yes(&kept);
    script.no(&refused, Code::BankDeclined);
    script.no(&kept, Code::BankDeclined);
    script.yes(&refused);
    script.yes(&kept);
    let sums = script.clean();
    assert_eq!((sums.late_replies, sums.conflicts), (3, 2));
    assert_eq!((sums.payments.committed, sums.payments.declined), (1, 1));
}

#[test]
fn never_seen_declines_with_code_31() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script
        .after(5)
        .reply(&payment, Regarding::Status, ReplyOutcome::NeverSeen, 0);
    assert_eq!(script.clean().by_code, [(31, 1)].into());
    assert_eq!(script.clean().payments.declined, 1);
}

#[test]
fn a_reply_counts_only_from_the_responder_with_amount_and_currency() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.reply_of(&payment, OTHER_BANK, Regarding::Request, ReplyOutcome::Yes, 0);
    let mut other = payment;
    other.amount_minor = 699;
    script.yes(&other);
    other = payment;
    other.currency = 344;
    script.yes(&other);
    other = payment;
    other.id.low = 99;
    script.yes(&other);
    let sums = script.clean();
    assert_eq!((sums.refused_replies, sums.payments.reserved), (4, 1));
}

#[test]
fn what_was_not_sent_expires_with_its_code() {
    let mut script = Script::new();
    let (shed, down) = (script.debit(BANK, 700), script.debit(BANK, 1));
    script.not_sent(&shed, Code::OverLinkCapacity);
    script.after(5).not_sent(&down, Code::LinkDown);
    script.not_sent(&down, Code::LinkDown);
    let sums = script.clean();
    assert_eq!(sums.by_code, [(31, 1), (32, 1)].into());
    assert_eq!((sums.payments.expired, sums.reserved), (2, vec![0; 3]));
}

#[test]
fn a_restart_puts_the_open_in_doubt_and_expires_nothing_before_it_was_asked_for() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.after(600).event(RecordKind::Restart, &[]);
    let sums = script.clean();
    assert_eq!((sums.payments.in_doubt, sums.payments.expired), (1, 0));
    script.after(54).tick();
    assert_eq!(script.clean().payments.in_doubt, 1, "T2 − T1 = 55 s from the restart");
    script.after(1).yes(&payment);
    assert_eq!(script.clean().payments.expired, 1);
}

#[test]
fn a_restart_moves_no_deadline_closer() {
    let mut script = Script::new();
    script.debit(BANK, 700);
    script.after(1).event(RecordKind::Restart, &[]);
    script.after(58).tick();
    assert_eq!(script.clean().payments.in_doubt, 1);
    script.after(1).tick();
    assert_eq!(script.clean().payments.expired, 1);
}

#[test]
fn closing_a_window_opens_the_next_and_a_payment_is_in_the_one_open_when_it_commits() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.window(WindowAction::Close, WindowId::NONE);
    script.yes(&payment);
    let sums = script.clean();
    assert_eq!(sums.windows.len(), 2);
    assert_eq!(
        (sums.windows[0].state, sums.windows[0].committed),
        (WindowState::Closed, 0)
    );
    assert_eq!(
        (sums.windows[1].state, sums.windows[1].committed),
        (WindowState::Open, 1)
    );
    assert_eq!(sums.windows[1].id, WindowId::new(TODAY, 2));
}

#[test]
fn a_windows_number_begins_again_with_the_business_date() {
    let mut script = Script::new();
    script.after(5 * 3_600).window(WindowAction::Close, WindowId::NONE);
    assert_eq!(script.clean().windows[1].id, WindowId::new(BusinessDate(20_261_124), 1));
}

#[test]
fn settlement_takes_the_net_from_position_cover_and_cap_and_headroom_stays() {
    let mut script = Script::new();
    let window = WindowId::new(TODAY, 1);
    let mut committed = 0;
    while committed < CAP {
        let payment = script.debit(BANK, 5_000);
        script.yes(&payment);
        committed += 5_000;
    }
    script.debit(BANK, 1);
    assert_eq!(script.clean().by_code[&13], 1);
    script.window(WindowAction::Settled, window);
    assert_eq!(
        script.clean().windows[0].state,
        WindowState::Open,
        "an open window can't settle"
    );
    script.window(WindowAction::Close, WindowId::NONE);
    script.window(WindowAction::BeginSettlement, window);
    script.window(WindowAction::Aborted, window);
    assert_eq!(script.clean().positions[1], 10_000, "an aborted window still counts");
    script.window(WindowAction::BeginSettlement, window);
    script.window(WindowAction::Settled, window);
    let sums = script.clean();
    assert_eq!(sums.positions, [0, 0, 0]);
    assert_eq!(sums.windows[0].nets, [(0, -10_000), (1, 10_000)].into());
    script.debit(BANK, 1);
    assert_eq!(script.clean().by_code[&13], 2, "settlement never changes headroom");
}

#[test]
fn records_that_are_no_events_are_passed_over() {
    let mut script = Script::new();
    script.auditor.apply(RecordKind::Group, 999, NOON, &[0; 32]);
    script.auditor.apply(RecordKind::Pad, 999, NOON, &[]);
    assert_eq!(script.clean().events, script.number);
}

/// The finding that a fault in the journal itself leads to.
fn finding_after(fault: impl FnOnce(&mut Script)) -> String {
    let mut script = Script::new();
    script.debit(BANK, 700);
    fault(&mut script);
    script.sums().findings.join("\n")
}

#[test]
fn a_journal_that_cannot_be_is_a_finding() {
    let missing = finding_after(|s| s.number += 1);
    assert_eq!(missing, "", "a gap shows with the next event");
    assert!(
        finding_after(|s| {
            s.number += 1;
            s.tick();
        })
        .contains("event 8 follows event 6")
    );
    assert!(
        finding_after(|s| {
            s.time.0 -= 1;
            s.tick();
        })
        .contains("is before")
    );
    let second = |s: &mut Script| s.event(RecordKind::Genesis, bytes_of(&SchemeTerms::zeroed()));
    assert!(finding_after(second).contains("a second Genesis"));
    let short = |s: &mut Script| s.event(RecordKind::Request, &[0; 64]);
    assert!(finding_after(short).contains("64 bytes where 128 belong"));
    let unknown = |s: &mut Script| {
        s.event(
            RecordKind::NotSent,
            bytes_of(&NotSentEvent::new(PaymentId::default(), Code::LinkDown)),
        )
    };
    assert!(finding_after(unknown).contains("unknown payment"));
    let stranger = |s: &mut Script| {
        let mut body = s.body(BANK, 1);
        body.id = PaymentId::new(TODAY, ParticipantIndex(400), 0, 1);
        s.send(body);
    };
    assert!(finding_after(stranger).contains("not in the directory"));
    assert!(Auditor::new().finish().findings[0].contains("no Genesis"));
    let mut headless = Auditor::new();
    headless.apply(RecordKind::Tick, 1, NOON, &[]);
    assert!(headless.finish().findings[0].contains("Tick before Genesis"));
    let reversed = Script::with(|terms| terms.wait_ns = terms.doubt_ns);
    assert!(reversed.sums().findings[0].contains("which must rise"));
}

#[test]
fn every_difference_from_the_switchs_own_statement_is_named() {
    let mut script = Script::new();
    let (first, _) = (script.debit(BANK, 700), script.debit(OTHER_BANK, 30));
    script.yes(&first);
    let ours = script.clean();
    let truth = Statement {
        events: ours.events,
        payments: ours.payments,
        positions: ours.positions.clone(),
        reserved: ours.reserved.clone(),
        windows: ours.windows.clone(),
        reversals_open: Some(0),
    };
    assert_eq!(ours.differences(&truth), Vec::<String>::new());
    let lie = |change: fn(&mut Statement)| {
        let mut statement = truth.clone();
        change(&mut statement);
        ours.differences(&statement).join("\n")
    };
    assert!(lie(|s| s.events += 1).contains("events:"));
    assert!(lie(|s| s.payments.committed += 1).contains("payments by state"));
    assert!(lie(|s| s.positions[1] += 1).contains("position of participant 1: 700 in the journal, 701"));
    assert!(lie(|s| s.reserved[2] = 0).contains("reserved sum of participant 2"));
    assert!(lie(|s| s.windows.clear()).contains("the switch does not know it"));
    assert!(lie(|s| s.windows[0].gross_minor += 1).contains("gross 701"));
    assert!(lie(|s| s.windows[0].state = WindowState::Closed).contains("closed"));
    assert!(lie(|s| *s.windows[0].nets.get_mut(&1).unwrap() = 9).contains("participant 1 is 700 in the journal, 9"));
    assert!(lie(|s| s.windows[0].nets.extend([(2, 5)])).contains("participant 2 is 0 in the journal, 5"));
    assert_eq!(
        lie(|s| s.windows[0].nets.extend([(2, 0)])),
        "",
        "a net of zero says nothing"
    );
}

/// Writes a script's events as a journal in `directory`.
fn journal_of(script: &Script, directory: &std::path::Path) {
    let mut journal = Journal::create(JournalOptions {
        directory: directory.to_owned(),
        segment_bytes: 64 << 10,
        ring_bytes: 128 << 10,
        sync: SyncMode::Auto,
        lock_memory: false,
        prepared_segments: 1,
        link_agents: 1,
        start: None,
        gate: None,
    })
    .unwrap();
    for (kind, time, payload) in &script.events {
        let appended = journal
            .appender
            .append(*kind, *time, payload.len(), |out| out.copy_from_slice(payload));
        appended.unwrap();
    }
    assert!(journal.appender.publish());
    assert!(journal.syncer.sync().unwrap() > 0);
}

#[test]
fn a_journal_on_disk_recomputes_to_the_same_as_its_events() {
    let mut script = Script::new();
    let payments: Vec<_> = (1..=60).map(|n| script.debit(BANK, n)).collect();
    for payment in &payments[..40] {
        script.yes(payment);
    }
    script.window(WindowAction::Close, WindowId::NONE);
    script.after(5).tick();
    let directory = tempfile::tempdir().unwrap();
    journal_of(&script, directory.path());
    let mut read = 0;
    let recomputed = recompute(directory.path(), |events| read = events).unwrap();
    assert_eq!(recomputed, script.clean());
    assert_eq!((read, recomputed.payments.committed), (script.number, 40));
}

#[test]
fn without_a_journal_there_is_an_error_and_no_audit() {
    let directory = tempfile::tempdir().unwrap();
    let Err(AuditError::Journal(JournalError::Absent { .. })) = recompute(directory.path(), |_| {}) else {
        panic!("an empty directory was audited");
    };
}
