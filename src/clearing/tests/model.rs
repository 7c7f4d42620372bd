//! A reference model of the payment rules, and the engine held against it.
//!
//! The model is written from `docs/payments.md` alone and shares with the engine only the words of the domain and the
//! frames. After every event of a made-up evening, engine and model must agree on everything that leaves the switch and on
//! the whole state; and the invariants must hold, recomputed by a witness that knows no rules.
//!
//! `cargo test` plays some hundreds of evenings. A hundred thousand, in release:
//!
//! ```text
//! PROPTEST_CASES=100000 cargo test --release --lib clearing::tests::model
//! ```
//!
//! A shrunk counterexample becomes a test with a name, beside the code that was at fault.

mod acts;
mod admission;
mod coverage;
mod finals;
mod ladder;
mod orders;
mod planted;
mod play;
mod reference;
mod replies;
mod residency;
mod said;
mod stage;
mod terms;
mod witness;

use proptest::prelude::*;

use self::acts::{Act, Amount, acts};
use self::stage::{Judge, play};
use crate::domain::{Currency, Kind};

const CASES: u32 = 512;

/// `PROPTEST_CASES` sets how many evenings are made up.
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
    fn engine_and_model_agree_after_every_event_and_no_event_breaks_an_invariant(acts in acts()) {
        if let Err(why) = play(None, &acts, Judge::Both) {
            return Err(TestCaseError::fail(why));
        }
    }
}

#[test]
fn a_reversal_that_nobody_takes_agrees_to_its_last_attempt() {
    let debit = Act::Request {
        initiator: 0,
        responder: 3,
        amount: Amount::Minor(100),
        currency: Currency::CNY,
        kind: Kind::Debit as u8,
        step: 0,
        day: 0,
        lane: 0,
    };
    // A day of attempts a minute apart: more than a frame can count.
    let on_time = [Act::PassToDeadline { nanos: 0 }, Act::Tick];
    let mut acts = vec![debit];
    acts.extend(on_time.iter().cycle().take(2 * 1_500).cloned());
    let stage = play(None, &acts, Judge::Both).unwrap_or_else(|why| panic!("{why}"));
    assert!(stage.model.rows.contains("Reversal Manual"));
}
