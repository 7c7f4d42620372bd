//! The made-up evenings reach every rule: a row that no act comes to is a row that nothing is held against.

use std::collections::BTreeSet;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::acts::acts;
use super::stage::{Judge, play};
use crate::clearing::ExceptionKind;
use crate::domain::{Code, Kind, PaymentState, WindowState};

const CASES: usize = 512;

/// The codes that end a payment; 09, 15 and 16 are rows.
const CODES: [Code; 24] = [
    Code::Committed,
    Code::UnknownParticipant,
    Code::InitiatorSuspended,
    Code::ResponderSuspended,
    Code::KindNotPermitted,
    Code::OnUs,
    Code::AmountInvalid,
    Code::OverSchemeMaximum,
    Code::OverAgreedLimit,
    Code::CoverExceeded,
    Code::CurrencyNotOpen,
    Code::AccountInvalid,
    Code::AccountClosed,
    Code::AccountBlocked,
    Code::CustomerFunds,
    Code::MandateMissing,
    Code::OriginalNotFound,
    Code::RefundExceedsOriginal,
    Code::BankDeclined,
    Code::SuspectedFraud,
    Code::BankTimeout,
    Code::LinkDown,
    Code::OverLinkCapacity,
    Code::BankInternalError,
];

/// The rows of the tables of `docs/payments.md`, as the model names them.
const ROWS: &[&str] = &[
    "1: open",
    "1: final",
    "1: other content",
    "2",
    "10: at the maximum",
    "11: at the limit",
    "12: unknown",
    "12: no Debit",
    "12: not Committed",
    "12: other initiator",
    "12: other responder",
    "12: other currency",
    "12: too old",
    "12: on the last day",
    "13: the whole original",
    "14: to the cap",
    "14: one over the cap",
    "Reserved, NotSent",
    "InDoubt, NotSent",
    "NotSent, final",
    "Reserved, Yes",
    "InDoubt, Yes",
    "Reserved, No",
    "InDoubt, No",
    "Reserved, NeverSeen",
    "InDoubt, NeverSeen",
    "Reserved, T1",
    "Reserved, restart",
    "InDoubt, restart",
    "InDoubt, T2",
    "status request 1",
    "status request 2",
    "status request 3",
    "mandate token",
    "FinalNotice, Committed",
    "FinalNotice, Declined",
    "FinalNotice, Expired",
    "reply refused: not entitled",
    "reply refused: means nothing",
    "reply refused: no Reversal was raised",
    "late: Committed, Yes",
    "late: Committed, No",
    "late: Committed, NeverSeen",
    "late: Declined, Yes, pull",
    "late: Declined, Yes, push",
    "late: Declined, Yes, none",
    "late: Expired, Yes, pull",
    "late: Expired, Yes, push",
    "late: Expired, Yes, none",
    "late: Declined, No",
    "late: Declined, NeverSeen",
    "late: Expired, No",
    "late: Expired, NeverSeen",
    "Reversal raised",
    "Reversal raised: is due",
    "Reversal raised again: was acknowledged",
    "Reversal raised again: was Manual",
    "Reversal sent again",
    "Reversal Manual",
    "Reversal acknowledged",
    "Reversal acknowledged after all",
    "Reversal acknowledged twice",
    "a payment makes room",
    "09: it waits",
    "37: too many wait",
    "37: all open",
    "reply dropped",
    "a repetition waits",
    "a refund waits",
    "a reply waits",
    "a void finding",
    "a refund goes on",
    "a repetition goes on",
    "a repetition of nothing",
    "a reply goes on",
    "what waits asks again",
    "sealed",
    "not sealed",
    "window closed",
    "window settling",
    "window settled",
    "window aborted",
    "window settled again",
    "order done: add",
    "order done: amend",
    "order done: suspend",
    "order done: cover in",
    "order done: cover out",
    "order done: set cap",
    "order proposed",
    "order refused",
    "order malformed",
    "order takes two",
    "order: no such proposal",
    "order: same person",
    "order: no such participant",
    "order: no such account",
    "order: cover in use",
    "order: cap over cover",
    "approved: cover in use",
    "approved: cap over cover",
    "approved: no such participant or account",
    "a proposal lapses",
    "an account is opened",
    "a cap below use",
    "alarm rises to 50",
    "alarm rises to 75",
    "alarm rises to 90",
    "alarm rises: a cap of nothing",
    "alarm falls to 75",
    "alarm falls to 50",
    "alarm falls to nothing",
    "one that joined pays",
];

#[test]
fn the_made_up_evenings_reach_every_state_code_row_and_exception() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..CASES {
        let acts = acts().new_tree(&mut runner).expect("acts can be made up").current();
        let stage = play(None, &acts, Judge::Nobody).unwrap_or_else(|why| panic!("{why}\n{acts:#?}"));
        let model = &stage.model;
        reached.extend(model.rows.iter().map(|row| (*row).to_owned()));
        reached.extend(stage.states.iter().map(|(kind, state)| format!("{kind:?} {state:?}")));
        reached.extend(model.payments.iter().map(|payment| format!("{:?}", payment.code)));
        reached.extend(model.windows.iter().map(|window| format!("window {:?}", window.state)));
        reached.extend(
            model
                .exceptions
                .iter()
                .map(|(_, what, _)| format!("exception {what:?}")),
        );
    }
    let mut expected: Vec<String> = ROWS.iter().map(|row| (*row).to_owned()).collect();
    expected.extend(CODES.map(|code| format!("{code:?}")));
    for state in [
        PaymentState::Reserved,
        PaymentState::InDoubt,
        PaymentState::Committed,
        PaymentState::Declined,
        PaymentState::Expired,
        PaymentState::Rejected,
    ] {
        expected.extend(Kind::ALL.map(|kind| format!("{kind:?} {state:?}")));
    }
    for state in [
        WindowState::Open,
        WindowState::Closed,
        WindowState::Settling,
        WindowState::Settled,
        WindowState::Aborted,
    ] {
        expected.push(format!("window {state:?}"));
    }
    expected.extend(ExceptionKind::ALL.map(|what| format!("exception {what:?}")));
    expected.retain(|what| !reached.contains(what));
    assert_eq!(expected, Vec::<String>::new(), "never reached");
}
