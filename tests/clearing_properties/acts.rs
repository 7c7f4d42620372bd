//! What may happen on an evening, in any order: requests that fit and requests that do not, words of banks that are right,
//! late, repeated or another's, time that passes or jumps, restarts, windows that move.

use clearway::domain::{BindStep, Code, Currency, Kind, MILLISECOND, SECOND};
use clearway::wire::{OrderAction, OrderStep, Regarding, ReplyOutcome, WindowAction};
use proptest::prelude::*;

use crate::directory::{HKD, INSTITUTIONS, MAXIMUM, PARTICIPANTS, USD};

pub(crate) const DAY_NS: u64 = 86_400 * SECOND;

/// One thing that happens, in numbers that are bent to what there is.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A new payment, dated so many days after the day before yesterday.
    Request {
        initiator: u16,
        responder: u16,
        amount: u64,
        currency: Currency,
        kind: u8,
        step: u8,
        day: u64,
    },
    /// A refund of a request that was sent before, whatever that was.
    Refund { nth: usize, share: Share, flaw: RefundFlaw },
    /// A request that was sent before.
    Again { nth: usize, change: Change },
    /// A bank's word on a request that was sent before.
    Reply {
        nth: usize,
        regarding: u8,
        outcome: u8,
        code: u8,
        flaw: Flaw,
    },
    /// Dispatch gives a request back.
    NotSent { nth: usize, code: Code },
    /// Time passes; the next event brings the news.
    Pass { millis: u64 },
    /// The sequencer journals that time has passed.
    Tick,
    /// The switch starts again.
    Restart,
    /// An operator orders, proposes, or says his word on the newest proposal but so many.
    Order {
        action: u8,
        step: u8,
        operator: u8,
        participant: u16,
        currency: Currency,
        amount: u64,
        nth: u64,
    },
    /// Something happens to a window.
    Window {
        action: WindowAction,
        nth: usize,
        currency: Currency,
    },
}

/// How much of its original a refund asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Share {
    Full,
    Half,
    TooMuch,
}

/// What is wrong with a refund beside its amount.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RefundFlaw {
    None,
    Initiator,
    Responder,
    Currency,
    Original,
}

/// What is other in a request that comes again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Nothing,
    Flags,
    Amount,
    Responder,
    Created,
}

/// What is wrong with a bank's word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flaw {
    None,
    Sender,
    Amount,
    Currency,
    Id,
}

fn request() -> impl Strategy<Value = Act> {
    (
        prop_oneof![20 => 0..INSTITUTIONS, 1 => 0..PARTICIPANTS],
        prop_oneof![20 => INSTITUTIONS..PARTICIPANTS, 1 => 0..=PARTICIPANTS],
        prop_oneof![20 => 1u64..400, 1 => MAXIMUM - 5..MAXIMUM + 5],
        currency(),
        kind_and_step(),
        // An amount where none belongs, and none where one does.
        prop_oneof![24 => Just(false), 1 => Just(true)],
        prop_oneof![20 => Just(2u64), 4 => Just(1), 1 => Just(0), 1 => Just(3)],
    )
        .prop_map(|(initiator, responder, amount, currency, (kind, step), wrong, day)| {
            let no_money = matches!(Kind::from_u8(kind), Some(Kind::Bind | Kind::Unbind));
            Act::Request {
                initiator,
                responder,
                amount: if no_money == wrong { amount } else { 0 },
                currency,
                kind,
                step,
                day,
            }
        })
}

/// The kinds as they may come in by the door, and numbers that are none.
fn kind_and_step() -> impl Strategy<Value = (u8, u8)> {
    let step = prop_oneof![Just(BindStep::Authenticate as u8), Just(BindStep::Sign as u8)];
    prop_oneof![
        15 => Just((Kind::Debit as u8, 0)),
        8 => Just((Kind::Payout as u8, 0)),
        5 => step.clone().prop_map(|step| (Kind::Bind as u8, step)),
        3 => step.prop_map(|step| (Kind::Unbind as u8, step)),
        1 => Just((Kind::Refund as u8, 0)),
        1 => prop_oneof![Just((0u8, 0u8)), (6u8..9).prop_map(|kind| (kind, 0))],
    ]
}

fn refund() -> impl Strategy<Value = Act> {
    let share = prop_oneof![3 => Just(Share::Half), 2 => Just(Share::Full), 1 => Just(Share::TooMuch)];
    let flaw = prop_oneof![
        16 => Just(RefundFlaw::None),
        1 => Just(RefundFlaw::Initiator),
        1 => Just(RefundFlaw::Responder),
        1 => Just(RefundFlaw::Currency),
        1 => Just(RefundFlaw::Original),
    ];
    (any::<usize>(), share, flaw).prop_map(|(nth, share, flaw)| Act::Refund { nth, share, flaw })
}

fn again() -> impl Strategy<Value = Act> {
    let change = prop_oneof![
        4 => Just(Change::Nothing),
        2 => Just(Change::Flags),
        1 => Just(Change::Amount),
        1 => Just(Change::Responder),
        1 => Just(Change::Created),
    ];
    (any::<usize>(), change).prop_map(|(nth, change)| Act::Again { nth, change })
}

fn reply() -> impl Strategy<Value = Act> {
    let asked = prop_oneof![2 => Just(Regarding::Request as u8), 1 => Just(Regarding::Status as u8)];
    let word = prop_oneof![
        6 => (asked.clone(), Just(ReplyOutcome::Yes as u8)),
        3 => (asked.clone(), Just(ReplyOutcome::No as u8)),
        1 => (asked, Just(ReplyOutcome::NeverSeen as u8)),
        1 => Just((Regarding::Reversal as u8, ReplyOutcome::Acknowledged as u8)),
        // Numbers that mean nothing.
        1 => prop_oneof![Just((0u8, 1u8)), Just((9, 2)), Just((1, 0)), Just((2, 9))],
        // Words that do not fit what they regard.
        1 => prop_oneof![Just((1u8, 3u8)), Just((1, 4)), Just((2, 4)), Just((3, 1)), Just((3, 2)), Just((3, 3))],
    ];
    let code = prop_oneof![4 => 20u8..29, 1 => any::<u8>()];
    let flaw = prop_oneof![
        24 => Just(Flaw::None),
        1 => Just(Flaw::Sender),
        1 => Just(Flaw::Amount),
        1 => Just(Flaw::Currency),
        1 => Just(Flaw::Id),
    ];
    (any::<usize>(), word, code, flaw).prop_map(|(nth, (regarding, outcome), code, flaw)| Act::Reply {
        nth,
        regarding,
        outcome,
        code,
        flaw,
    })
}

fn currency() -> impl Strategy<Value = Currency> {
    prop_oneof![10 => Just(Currency::CNY), 3 => Just(HKD), 1 => Just(USD)]
}

fn order() -> impl Strategy<Value = Act> {
    let what = prop_oneof![
        1 => Just((OrderAction::Add as u8, OrderStep::Direct as u8)),
        2 => Just((OrderAction::Amend as u8, OrderStep::Direct as u8)),
        2 => Just((OrderAction::Suspend as u8, OrderStep::Direct as u8)),
        2 => Just((OrderAction::CoverIn as u8, OrderStep::Propose as u8)),
        2 => Just((OrderAction::CoverOut as u8, OrderStep::Propose as u8)),
        3 => Just((OrderAction::SetCap as u8, OrderStep::Propose as u8)),
        7 => Just((0, OrderStep::Approve as u8)),
        1 => Just((0, OrderStep::Refuse as u8)),
        1 => (0u8..8, 0u8..6),
    ];
    let amount = prop_oneof![8 => 0u64..4_000, 1 => Just(0), 1 => Just(u64::MAX)];
    (what, 0u8..3, 0..=PARTICIPANTS, currency(), amount, 0u64..4).prop_map(
        |((action, step), operator, participant, currency, amount, nth)| Act::Order {
            action,
            step,
            operator,
            participant,
            currency,
            amount,
            nth,
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let span = prop_oneof![
        // Half seconds, so that events often come at the very moment of a deadline.
        10 => (0u64..16).prop_map(|halves| halves * 500),
        6 => (16u64..180).prop_map(|halves| halves * 500),
        1 => 0u64..90_000,
        1 => Just(DAY_NS / MILLISECOND),
    ];
    let code = prop_oneof![Just(Code::LinkDown), Just(Code::OverLinkCapacity)];
    let action = prop_oneof![
        Just(WindowAction::Open),
        Just(WindowAction::Close),
        Just(WindowAction::BeginSettlement),
        Just(WindowAction::Settled),
        Just(WindowAction::Aborted),
    ];
    prop_oneof![
        14 => request(),
        6 => refund(),
        3 => again(),
        18 => reply(),
        1 => (any::<usize>(), code).prop_map(|(nth, code)| Act::NotSent { nth, code }),
        3 => span.prop_map(|millis| Act::Pass { millis }),
        2 => Just(Act::Tick),
        1 => Just(Act::Restart),
        5 => order(),
        5 => (action, any::<usize>(), currency()).prop_map(|(action, nth, currency)| Act::Window { action, nth, currency }),
    ]
}

pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..160)
}
