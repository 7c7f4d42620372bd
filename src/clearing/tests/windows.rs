//! Windows: opened, closed, settled, aborted; never none, never two.

use super::script::{BANK, HKD, INSTITUTION, Script, TODAY};
use crate::domain::{Currency, WindowId, WindowState};
use crate::wire::WindowAction;

const FIRST: WindowId = WindowId::new(TODAY, 1);

fn open_windows(script: &Script, currency: Currency) -> usize {
    let windows = script.engine.snapshot().windows;
    windows
        .iter()
        .filter(|w| w.currency == currency.0 && w.state == WindowState::Open)
        .count()
}

fn state(script: &Script, id: WindowId) -> WindowState {
    let windows = script.engine.snapshot().windows;
    windows.iter().find(|w| w.id == id).expect("the window exists").state
}

fn close(script: &mut Script) {
    script.window(WindowAction::Close, Currency::CNY, WindowId::NONE);
}

fn settlement(script: &mut Script, action: WindowAction) {
    script.window(action, Currency::CNY, FIRST);
}

fn committed(script: &mut Script, amount_minor: u64) {
    let payment = script.debit(BANK, amount_minor);
    script.yes(&payment);
}

#[test]
fn a_window_id_is_unique_across_currencies_and_begins_anew_each_business_day() {
    let mut script = Script::new();
    close(&mut script);
    script.after_seconds(4 * 3_600);
    script.window(WindowAction::Close, HKD, WindowId::NONE);
    close(&mut script);
    let windows = script.engine.snapshot().windows;
    let ids: Vec<_> = windows.iter().map(|w| (w.id.to_string(), w.currency)).collect();
    let expected = [
        ("W202611230001", 156),
        ("W202611230002", 344),
        ("W202611230003", 156),
        ("W202611240001", 344),
        ("W202611240002", 156),
    ];
    assert_eq!(ids, expected.map(|(id, currency)| (id.to_owned(), currency)));
}

#[test]
fn a_close_opens_the_next_window_in_the_same_event_and_leaves_other_currencies_alone() {
    let mut script = Script::new();
    script.after_seconds(7);
    close(&mut script);
    let windows = script.engine.snapshot().windows;
    assert_eq!(
        (windows[0].state, windows[0].closed),
        (WindowState::Closed, script.time)
    );
    assert_eq!((windows[2].state, windows[2].opened), (WindowState::Open, script.time));
    assert_eq!(windows[1].state, WindowState::Open);
    for currency in [Currency::CNY, HKD] {
        assert_eq!(open_windows(&script, currency), 1);
    }
    assert!(script.engine.has_open_windows());
}

#[test]
fn a_second_open_and_one_of_a_foreign_currency_are_ignored() {
    let mut script = Script::new();
    script.window(WindowAction::Open, Currency::CNY, WindowId::NONE);
    script.window(WindowAction::Open, Currency(840), WindowId::NONE);
    script.window(WindowAction::Open, Currency(0), WindowId::NONE);
    assert_eq!(script.engine.snapshot().windows.len(), 2);
}

#[test]
fn a_close_without_an_open_window_is_ignored() {
    let mut script = Script::without_windows(|_| {});
    close(&mut script);
    assert_eq!(script.engine.snapshot().windows.len(), 0);
    assert!(!script.engine.has_open_windows());
}

#[test]
fn a_day_has_at_most_9999_windows_and_the_last_stays_open_till_midnight() {
    let mut script = Script::new();
    for _ in 0..10_050 {
        close(&mut script);
    }
    let windows = script.engine.snapshot().windows;
    assert_eq!(windows.len(), 9_999);
    assert_eq!(windows.last().map(|w| w.id.number()), Some(9_999));
    assert_eq!(open_windows(&script, Currency::CNY), 1);
    script.after_seconds(4 * 3_600);
    close(&mut script);
    assert_eq!(
        state(&script, WindowId::new(crate::domain::BusinessDate(20_261_124), 1)),
        WindowState::Open
    );
}

#[test]
fn the_window_is_the_one_open_when_the_payment_commits_not_when_it_came() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 100);
    close(&mut script);
    script.yes(&payment);
    assert_eq!(script.last_answer().window, WindowId::new(TODAY, 3));
    let windows = script.engine.snapshot().windows;
    assert_eq!((windows[0].committed, windows[2].committed), (0, 1));
}

#[test]
fn a_payment_is_posted_in_the_window_and_the_account_of_its_own_currency() {
    let mut script = Script::new();
    let mut body = script.body(BANK, 100);
    body.currency = HKD.0;
    script.send(&body);
    script.yes(&body);
    let windows = script.engine.snapshot().windows;
    assert_eq!((windows[0].committed, windows[1].committed), (0, 1));
    assert_eq!(script.position(BANK), 0);
    assert_eq!(script.engine.participants[usize::from(BANK)].accounts[1].position, 100);
}

#[test]
fn settlement_moves_position_cover_and_cap_by_the_net_and_leaves_headroom_as_it_was() {
    let mut script = Script::new();
    committed(&mut script, 700);
    close(&mut script);
    committed(&mut script, 50);
    script.debit(BANK, 30);
    let headroom = [BANK, INSTITUTION].map(|party| script.headroom(party));
    settlement(&mut script, WindowAction::BeginSettlement);
    assert_eq!(state(&script, FIRST), WindowState::Settling);
    assert_eq!(script.position(BANK), 750, "a window that is settling still counts");
    settlement(&mut script, WindowAction::Settled);
    assert_eq!(state(&script, FIRST), WindowState::Settled);
    assert_eq!((script.position(BANK), script.position(INSTITUTION)), (50, -50));
    assert_eq!([BANK, INSTITUTION].map(|party| script.headroom(party)), headroom);
    let participants = script.engine.snapshot().participants;
    let bank = &participants[usize::from(BANK)];
    assert_eq!((bank.cover, bank.cap, bank.reserved), (20_000 - 700, 10_000 - 700, 30));
    let institution = &participants[usize::from(INSTITUTION)];
    assert_eq!((institution.cover, institution.cap), (20_000 + 700, 10_000 + 700));
}

#[test]
fn an_aborted_window_keeps_its_payments_and_its_use_of_cover_and_is_settled_later() {
    let mut script = Script::new();
    committed(&mut script, 700);
    close(&mut script);
    settlement(&mut script, WindowAction::BeginSettlement);
    settlement(&mut script, WindowAction::Aborted);
    assert_eq!(state(&script, FIRST), WindowState::Aborted);
    assert_eq!(script.position(BANK), 700);
    settlement(&mut script, WindowAction::Settled);
    assert_eq!(state(&script, FIRST), WindowState::Aborted, "it goes through Settling");
    settlement(&mut script, WindowAction::BeginSettlement);
    settlement(&mut script, WindowAction::Settled);
    assert_eq!(
        (state(&script, FIRST), script.position(BANK)),
        (WindowState::Settled, 0)
    );
}

#[test]
fn a_settlement_step_that_does_not_fit_the_windows_state_is_ignored() {
    use WindowAction::{Aborted, BeginSettlement, Settled};
    let mut script = Script::new();
    committed(&mut script, 700);
    for action in [BeginSettlement, Settled, Aborted] {
        settlement(&mut script, action);
        assert_eq!(state(&script, FIRST), WindowState::Open);
    }
    close(&mut script);
    for action in [Settled, Aborted] {
        settlement(&mut script, action);
        assert_eq!(state(&script, FIRST), WindowState::Closed);
    }
    settlement(&mut script, BeginSettlement);
    settlement(&mut script, Settled);
    for action in [BeginSettlement, Settled, Aborted] {
        settlement(&mut script, action);
        assert_eq!(
            (state(&script, FIRST), script.position(BANK)),
            (WindowState::Settled, 0)
        );
    }
    script.window(BeginSettlement, Currency::CNY, WindowId(99));
}

#[test]
fn a_window_whose_nets_do_not_add_up_is_a_breach_of_invariant_1() {
    let mut script = Script::new();
    committed(&mut script, 700);
    assert_eq!(script.engine.breach(), None);
    script.engine.windows.open_mut(0).expect("a window is open").nets[0] += 1;
    close(&mut script);
    let breach = script.engine.breach().expect("the nets sum to one").to_string();
    assert!(
        breach.contains("invariant 1") && breach.contains("W202611230001"),
        "{breach}"
    );
}

#[test]
fn reservations_that_are_not_the_open_payments_are_a_breach_of_invariant_5() {
    let mut script = Script::new();
    script.debit(BANK, 700);
    close(&mut script);
    assert_eq!(script.engine.breach(), None);
    script.engine.participants[usize::from(BANK)].accounts[0].reserved -= 1;
    close(&mut script);
    let breach = script.engine.breach().expect("one minor unit is missing").to_string();
    assert!(breach.contains("699") && breach.contains("700"), "{breach}");
}
