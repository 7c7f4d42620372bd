//! `clearway settle verify` on what the daemon left: nothing is found where nothing is wrong, and each of ten planted faults,
//! one for each invariant, is found and named, though CRCs and SHA256SUMS are right again.

#[path = "../support/mod.rs"]
mod support;

mod evening;
mod planted;
mod reconciled;

use evening::EVENING;

#[test]
fn what_the_daemon_left_is_verified_to_the_last_row_and_nothing_is_found() {
    let evening = EVENING.copied();
    let (output, report) = evening.verified();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["windows_checked"], 2, "{report:#}");
    for invariant in report["invariants"].as_array().unwrap() {
        assert_eq!(invariant["holds"], true, "{invariant:#}");
    }
}
