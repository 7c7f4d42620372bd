//! Every planted fault is found: by the model, and by the witness where an invariant is broken.

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

use super::acts::acts;
use super::stage::{Judge, play};
use crate::clearing::fault::Fault;

/// A fault that so many evenings do not show would not be found.
const CASES_MAX: u32 = 400;

/// What the witness says of a fault; `None` where only the rules are broken, of which it knows nothing.
fn claim(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::PostOneSide => Some("invariant 1"),
        Fault::ForgetPosition | Fault::SettleTwice | Fault::MoveCoverTwice => Some("invariant 2"),
        Fault::AdmitOverCap => Some("invariant 3"),
        Fault::StampClosedWindow => Some("invariant 4"),
        Fault::ForgetRelease => Some("invariant 5"),
        Fault::AnswerTwice => Some("invariant 6"),
        Fault::DependOnListener => Some("invariant 8"),
        Fault::ForgetReversal => Some("invariant 9"),
        Fault::ForgetNotice => Some("a FinalNotice of"),
        Fault::ForgetRefund => Some("was refunded"),
        Fault::MoveCoverAlone | Fault::ApproveAlone => Some("moved by one person"),
        Fault::ApproveUnchecked => Some("cover that is"),
        Fault::CountRefundTwice
        | Fault::DropMandateToken
        | Fault::ForgetRestart
        | Fault::ForgetSumAtEviction
        | Fault::TakeRepetitionAsNew
        | Fault::ForgetParked
        | Fault::TellWordOfSlot
        | Fault::ForgetHysteresis
        | Fault::SaveWithoutProposals
        | Fault::SaveWithoutParked => None,
    }
}

/// What an evening that shows the fault says, if one of [`CASES_MAX`] does.
fn found(fault: Fault, judge: Judge) -> Option<String> {
    let config = ProptestConfig {
        cases: CASES_MAX,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&acts(), |acts| match play(Some(fault), &acts, judge) {
        Ok(_) => Ok(()),
        Err(why) => Err(TestCaseError::fail(why)),
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, _)) => Some(why.to_string()),
        Err(TestError::Abort(why)) => panic!("{fault:?}: {why}"),
    }
}

#[test]
fn every_planted_fault_is_found() {
    for fault in Fault::ALL {
        // What only replay can show is no matter of the rules.
        if fault != Fault::DependOnListener {
            assert!(found(fault, Judge::Model).is_some(), "the model does not see {fault:?}");
        }
        if let Some(claim) = claim(fault) {
            let why = found(fault, Judge::Witness);
            let why = why.unwrap_or_else(|| panic!("the witness does not see {fault:?}"));
            assert!(why.contains(claim), "{fault:?} should show as {claim}: {why}");
        }
    }
}

/// The invariant that the engine itself finds broken, of those that it holds live.
const LIVE: [(Fault, &str); 9] = [
    (Fault::PostOneSide, "invariant 1"),
    (Fault::ForgetPosition, "invariant 2"),
    (Fault::SettleTwice, "invariant 2"),
    (Fault::MoveCoverTwice, "invariant 2"),
    (Fault::AdmitOverCap, "invariant 3"),
    (Fault::StampClosedWindow, "invariant 4"),
    (Fault::ForgetRelease, "invariant 5"),
    (Fault::AnswerTwice, "invariant 6"),
    (Fault::ForgetReversal, "invariant 9"),
];

#[test]
fn the_engine_itself_finds_each_broken_invariant_and_names_it() {
    for (fault, claim) in LIVE {
        let why = found(fault, Judge::Engine);
        let why = why.unwrap_or_else(|| panic!("the engine does not see {fault:?}"));
        assert!(why.contains(claim), "{fault:?} should show as {claim}: {why}");
    }
}
