//! The alarm of cover, and the invariants that the engine holds live.

use super::super::Breach;
use super::super::fault::Fault;
use super::script::{BANK, CAP, OTHER_BANK, Script, TODAY};
use crate::clearing::{COVER_HYSTERESIS_BP, COVER_LEVELS_BP, Engine};
use crate::domain::{Code, Currency, ParticipantIndex, WindowId};
use crate::wire::{Effect, WindowAction};

/// (participant, level before, level now) of the alarms that the last event told.
fn alarms(script: &Script) -> Vec<(u16, u16, u16)> {
    let told = script.effects.iter().filter_map(|effect| match effect {
        Effect::CoverAlarm {
            participant,
            level_bp,
            before_bp,
            ..
        } => Some((participant.0, *before_bp, *level_bp)),
        _ => None,
    });
    told.collect()
}

#[test]
fn the_alarm_rises_at_50_75_and_90_percent_of_the_cap_and_falls_five_points_below() {
    assert_eq!((COVER_LEVELS_BP, COVER_HYSTERESIS_BP), ([5_000, 7_500, 9_000], 500));
    let mut script = Script::new();
    let (five, fifteen) = (CAP / 20, CAP * 3 / 20);
    script.debit(BANK, CAP / 2 - 1);
    assert_eq!(alarms(&script), []);
    let one = script.debit(BANK, 1);
    assert_eq!(alarms(&script), [(BANK, 0, 5_000)], "at 50 %");
    let small = script.debit(BANK, five);
    // Back to 50 %, just below it, and then 45 %.
    script.no(&small, Code::BankDeclined);
    assert_eq!(alarms(&script), []);
    script.no(&one, Code::BankDeclined);
    assert_eq!(alarms(&script), [], "just below its level it stays");
    let one = script.debit(BANK, 1);
    assert_eq!(alarms(&script), [], "nor does it rise twice");
    let twenty_five = script.debit(BANK, CAP / 4);
    assert_eq!(alarms(&script), [(BANK, 5_000, 7_500)]);
    let fifteen = script.debit(BANK, fifteen);
    assert_eq!(alarms(&script), [(BANK, 7_500, 9_000)]);
    script.no(&fifteen, Code::BankDeclined);
    assert_eq!(alarms(&script), [(BANK, 9_000, 7_500)]);
    // 75 % less a quarter and one: under 50 %, over 45 %.
    script.no(&twenty_five, Code::BankDeclined);
    assert_eq!(alarms(&script), [(BANK, 7_500, 5_000)]);
    script.no(&one, Code::BankDeclined);
    assert_eq!(alarms(&script), []);
    assert_eq!(script.engine.snapshot().participants[usize::from(BANK)].level_bp, 5_000);
}

#[test]
fn a_jump_over_several_levels_is_one_alarm_and_a_credit_lowers_it() {
    let mut script = Script::new();
    script.committed_debit(BANK, CAP / 2);
    script.debit(BANK, CAP / 2);
    assert_eq!(alarms(&script), [(BANK, 5_000, 9_000)]);
    let mut payout = script.body_of(crate::domain::Kind::Payout);
    payout.amount_minor = CAP / 2;
    script.send(&payout);
    script.yes(&payout);
    assert!(alarms(&script).contains(&(BANK, 9_000, 5_000)), "{:?}", alarms(&script));
}

#[test]
fn a_commit_is_no_use_more_or_less_and_says_nothing() {
    let mut script = Script::new();
    let debit = script.debit(BANK, CAP / 2);
    assert_eq!(alarms(&script), [(BANK, 0, 5_000)]);
    script.yes(&debit);
    assert_eq!(alarms(&script), []);
}

#[test]
fn settlement_keeps_headroom_and_the_alarm_follows_the_share_of_the_cap() {
    let mut script = Script::new();
    script.committed_debit(BANK, CAP / 2);
    script.window(WindowAction::Close, Currency::CNY, WindowId::NONE);
    script.debit(BANK, CAP / 10);
    let first = WindowId::new(TODAY, 1);
    script.window(WindowAction::BeginSettlement, Currency::CNY, first);
    script.window(WindowAction::Settled, Currency::CNY, first);
    // 1,000 of the 5,000 that are left.
    assert_eq!(alarms(&script), [(BANK, 5_000, 0)]);
}

#[test]
fn of_a_cap_of_nothing_any_use_is_at_90_percent() {
    let mut script = Script::new();
    let debit = script.debit(BANK, 1);
    script.engine.participants[usize::from(BANK)].accounts[0].cap = 0;
    script
        .engine
        .watch_cover(ParticipantIndex(BANK), 0, &mut script.effects);
    assert_eq!(alarms(&script).last(), Some(&(BANK, 0, 9_000)));
    script.no(&debit, Code::BankDeclined);
    assert_eq!(alarms(&script), [(BANK, 9_000, 0)]);
}

#[test]
fn a_loaded_engine_is_at_the_same_level_and_says_the_same() {
    let mut script = Script::new();
    script.debit(BANK, CAP / 2 - 1);
    let one = script.debit(BANK, 1);
    script.no(&one, Code::BankDeclined);
    let mut saved = Vec::new();
    script.engine.save(&mut saved).expect("memory takes it");
    script.engine = Engine::load(&mut saved.as_slice()).expect("it was just saved");
    assert_eq!(script.engine.snapshot().participants[usize::from(BANK)].level_bp, 5_000);
    script.debit(BANK, 1);
    assert_eq!(alarms(&script), [], "it was there before");
}

#[test]
fn a_breach_is_in_a_saved_state_and_a_later_one_does_not_hide_it() {
    let mut script = Script::new();
    script.engine.planted = Some(Fault::AdmitOverCap);
    script.debit(BANK, CAP / 2);
    script.debit(BANK, CAP / 2);
    script.debit(BANK, 1);
    script.engine.planted = Some(Fault::AnswerTwice);
    let other = script.debit(OTHER_BANK, 1);
    script.yes(&other);
    let breach = script.engine.breach().cloned();
    assert!(matches!(breach, Some(Breach::OverCap { .. })), "{breach:?}");
    let mut saved = Vec::new();
    script.engine.save(&mut saved).expect("memory takes it");
    let loaded = Engine::load(&mut saved.as_slice()).expect("it was just saved");
    assert_eq!(loaded.breach().cloned(), breach);
    assert_eq!(loaded.state_hash(), script.engine.state_hash());
}

#[test]
fn every_breach_is_read_back_as_it_was_saved() {
    let payment = crate::domain::PaymentId { high: 5, low: 6 };
    let (participant, currency) = (ParticipantIndex(7), Currency::CNY);
    let (window, open) = (WindowId(8), WindowId(9));
    let all = [
        Breach::ZeroSum { window, sum: -3 },
        Breach::Position {
            participant,
            currency,
            position: -1,
            windows: 1 << 90,
        },
        Breach::Cover {
            participant,
            currency,
            cover: 5,
            book: -6,
        },
        Breach::OverCap {
            payment,
            used: 9,
            cap: -8,
        },
        Breach::Stamp {
            payment,
            stamped: window,
            open,
        },
        Breach::Windows {
            committed: 3,
            windows: 4,
        },
        Breach::Reservations { held: 3, open: -4 },
        Breach::Answers { finals: 1, answers: 2 },
        Breach::Outcomes {
            accepted: 1,
            open: 2,
            ended: 3,
        },
        Breach::Reversals { expired: 2, raised: 1 },
        Breach::Register { payment },
    ];
    for breach in all {
        assert_eq!(Breach::of_row(&breach.row()), Some(breach));
    }
}

#[test]
fn of_windows_settled_long_ago_the_sums_stay_and_the_nets_go() {
    let mut script = Script::new();
    let mut ids = Vec::new();
    for _ in 0..262 {
        script.committed_debit(BANK, 10);
        let windows = script.engine.snapshot().windows;
        let open = windows
            .iter()
            .rev()
            .find(|w| w.currency == 156)
            .expect("one is open")
            .id;
        script.window(WindowAction::Close, Currency::CNY, WindowId::NONE);
        script.window(WindowAction::BeginSettlement, Currency::CNY, open);
        script.window(WindowAction::Settled, Currency::CNY, open);
        ids.push(open);
    }
    let windows = script.engine.snapshot().windows;
    let of = |id: &WindowId| windows.iter().find(|w| w.id == *id).expect("it is known").clone();
    let kept = ids.iter().filter(|id| of(id).has_nets).count();
    assert_eq!(kept, 256);
    assert!(!of(&ids[5]).has_nets && of(&ids[6]).has_nets);
    assert_eq!((of(&ids[0]).committed, of(&ids[0]).gross), (1, 10));
    assert_eq!(script.engine.breach(), None);
    assert_eq!(script.replayed(), script.engine.state_hash());
}
