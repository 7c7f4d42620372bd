//! The engine and the auditor are two readings of the same rules that share no code. Whatever the events, both must come
//! to the same ledger, and no event may break an invariant.
//!
//! `PROPTEST_CASES` sets how many evenings are made up. A shrunk counterexample becomes a test with a name, beside the
//! code that was at fault.

mod acts;
mod compared;
mod directory;
mod ledgers;
mod register;
mod told;
mod words;

use std::collections::BTreeSet;

use bytemuck::bytes_of;
use clearway::clearing::ExceptionKind;
use clearway::domain::{Code, Currency, Kind, WindowId};
use clearway::wire::{RecordKind, Regarding, ReplyOutcome, WindowAction, WindowEvent};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::acts::{Act, Flaw, acts};
use crate::directory::{INSTITUTIONS, scheme};
use crate::ledgers::Ledgers;

const CASES: u32 = 512;

fn config() -> ProptestConfig {
    let asked_for = ProptestConfig::default();
    let cases = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => asked_for.cases,
        None => CASES,
    };
    ProptestConfig {
        cases,
        // A shrunk case is kept as a test with a name, not as a seed.
        failure_persistence: None,
        ..asked_for
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn engine_and_auditor_come_to_the_same_ledger_and_no_event_breaks_an_invariant(acts in acts()) {
        Ledgers::play(&acts).check_all();
    }
}

#[test]
fn the_acts_made_up_reach_every_state_and_every_answer() {
    let mut runner = TestRunner::deterministic();
    let mut codes = BTreeSet::new();
    let mut reached = [0; 16];
    let mut committed = [0; 6];
    let mut windows = BTreeSet::new();
    let mut orders = BTreeSet::new();
    for _ in 0..160 {
        let acts = acts().new_tree(&mut runner).expect("acts can be made up").current();
        let ledgers = Ledgers::play(&acts);
        let (figures, counts) = (ledgers.engine.figures(), ledgers.counts());
        codes.extend(counts.by_code.keys().copied());
        let now = [
            figures.reserved,
            figures.in_doubt,
            counts.repeated,
            counts.reused,
            counts.dates_not_open,
            counts.refused_replies,
            counts.late_words,
            counts.conflicts,
            counts.contradicted[0],
            counts.contradicted[1],
            ledgers.items(ExceptionKind::ReversalManual),
            ledgers.told.noticed.len() as u64,
            ledgers.told.tokens.len() as u64,
            figures.look_ups,
            figures.not_taken,
            ledgers.register.len() as u64 - u64::from(scheme().resident_payments).min(ledgers.register.len() as u64),
        ];
        for (kind, figure) in &counts.by_kind {
            committed[usize::from(*kind)] += figure[1];
        }
        for (sum, count) in reached.iter_mut().zip(now) {
            *sum += count;
        }
        orders.extend(ledgers.orders().into_keys());
        windows.extend(ledgers.engine.snapshot().windows.iter().map(|window| window.state));
    }
    let rules = [
        Code::Committed,
        Code::UnknownParticipant,
        Code::KindNotPermitted,
        Code::OnUs,
        Code::AmountInvalid,
        Code::OverSchemeMaximum,
        Code::OverAgreedLimit,
        Code::CoverExceeded,
        Code::CurrencyNotOpen,
        Code::OriginalNotFound,
        Code::RefundExceedsOriginal,
        Code::BankDeclined,
        Code::BankTimeout,
        Code::LinkDown,
        Code::OverLinkCapacity,
    ];
    for code in rules {
        assert!(codes.contains(&(code as u8)), "{code:?} is never reached: {codes:?}");
    }
    assert!(reached.iter().all(|&count| count > 0), "{reached:?}");
    assert_eq!(windows.len(), 5, "{windows:?}");
    // All but TooMany.
    assert_eq!(orders, (1..=11).collect(), "outcomes of orders");
    assert!(
        committed[1..].iter().all(|&count| count > 0),
        "of each kind: {committed:?}"
    );
    assert_eq!(committed[0], 0, "what is no kind never commits");
}

#[test]
fn an_event_that_only_one_of_the_two_is_told_shows_as_a_difference() {
    let debit = Act::Request {
        initiator: 0,
        responder: INSTITUTIONS,
        amount: 100,
        currency: Currency::CNY,
        kind: Kind::Debit as u8,
        step: 0,
        day: 2,
    };
    let yes = Act::Reply {
        nth: 0,
        regarding: Regarding::Request as u8,
        outcome: ReplyOutcome::Yes as u8,
        code: 0,
        flaw: Flaw::None,
    };
    let mut ledgers = Ledgers::play(&[debit, yes]);
    ledgers.check_all();
    let number = ledgers.journal.len() as u64 + 1;
    let close = WindowEvent::new(WindowAction::Close, Currency::CNY, WindowId::NONE);
    ledgers
        .auditor
        .apply(RecordKind::Window, number, ledgers.time, bytes_of(&close));
    assert_ne!(ledgers.differences(), Vec::<String>::new());
}
