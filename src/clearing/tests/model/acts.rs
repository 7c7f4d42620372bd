//! What may happen on an evening, in any order: requests that fit and requests that do not, words of banks that are
//! right, late, repeated or another's, time that passes or jumps, restarts, windows that move.

use proptest::prelude::*;

use super::terms::{HKD, MAXIMUM, PARTICIPANTS, REFUND_DAYS, USD};
use crate::domain::{Code, Currency, Kind};
use crate::wire::{Regarding, ReplyOutcome, WindowAction};

/// One thing that happens, in numbers that are bent to what there is.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// A new payment of any kind but Refund.
    Request {
        initiator: u16,
        responder: u16,
        amount: Amount,
        currency: Currency,
        kind: u8,
        step: u8,
        day: i64,
        lane: u16,
    },
    /// A Refund of what was sent before.
    Refund {
        original: Which,
        portion: Portion,
        flaw: RefundFlaw,
        lane: u16,
    },
    /// A request that was sent before.
    Again { which: Which, change: Change },
    /// A bank's word on a request that was sent before.
    Reply {
        which: Which,
        regarding: u8,
        outcome: u8,
        code: u8,
        token: u64,
        flaw: ReplyFlaw,
    },
    /// Dispatch gives a request back.
    NotSent { which: Which, code: Code },
    /// Time passes; the next event brings the news.
    Pass { millis: u64 },
    /// Time passes to so many nanoseconds after (or before) the next deadline.
    PassToDeadline { nanos: i64 },
    /// Time passes to so many seconds after (or before) midnight in Shanghai.
    PassToMidnight { seconds: i64 },
    /// Days pass.
    PassDays { days: u64 },
    /// The sequencer journals that time has passed.
    Tick,
    /// The switch starts again.
    Restart,
    /// The register answers a look-up, or answers again the one that it answered last.
    Finding { nth: usize, again: bool },
    /// A day is over and in the register.
    Seal { days_ago: i64 },
    /// An operator orders, proposes, approves or takes back.
    Order(Ordering),
    /// Two proposals that can't both be in force, and both are approved.
    Rivals([Ordering; 2]),
    /// The engine is saved, and a new one goes on from there.
    Reload,
    /// Something happens to a window of a currency: to one in whose state it fits, if there is one, or to any.
    Window {
        action: WindowAction,
        currency: Currency,
        fits: bool,
        nth: usize,
    },
}

/// What an operator says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ordering {
    pub(super) action: u8,
    pub(super) step: u8,
    /// One of three.
    pub(super) operator: usize,
    /// The next one to join is meant by Add, whatever stands here, unless there is a flaw.
    pub(super) participant: u16,
    pub(super) currency: Currency,
    pub(super) sum: Sum,
    pub(super) terms: OrderedTerms,
    /// Approve, Refuse: so many back among the proposals.
    pub(super) nth: usize,
    pub(super) flaw: OrderFlaw,
}

/// How much cover, or which cap.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sum {
    Minor(u64),
    /// All that may go out, and so much more.
    Free(u64),
    /// What is in use, and so much more or less.
    Use(i64),
    /// All the cover, and so much more.
    Cover(u64),
}

/// What is other than in the terms of others.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrderedTerms {
    /// Which of several sets of timers.
    pub(super) timers: u8,
    pub(super) suspended: u8,
    pub(super) limit_minor: u64,
    pub(super) accounts: NewAccounts,
}

/// Which accounts one that joins is to have.
#[derive(Clone, Copy, Debug)]
pub(super) enum NewAccounts {
    None,
    One,
    Both,
    Foreign,
    Twice,
    Filled,
}

/// What is wrong with an order.
#[derive(Clone, Copy, Debug)]
pub(super) enum OrderFlaw {
    None,
    Name,
    Action,
    Step,
    Proposal,
    Participant,
    Code,
    Extra,
}

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Amount {
    Minor(u64),
    /// What the party that will owe has left, or so much more.
    Headroom(u64),
}

/// A payment that was sent before: so many back among those of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Which {
    pub(super) class: Class,
    pub(super) back: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    Any,
    Open,
    Final,
    CommittedDebit,
    /// A Reversal of it was raised.
    Reversed,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Portion {
    Whole,
    Half,
    Tenth,
    OneOver,
}

/// What is other than in the original.
#[derive(Clone, Copy, Debug)]
pub(super) enum RefundFlaw {
    None,
    Initiator,
    Responder,
    Currency,
    Unknown,
}

/// What is other in a request that comes again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Nothing,
    Flags,
    Amount,
    Currency,
    Kind,
    Scene,
    Responder,
    Step,
    Created,
    MandateToken,
    AccountToken,
    Original,
    OrderReference,
}

/// What is wrong with a bank's word.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReplyFlaw {
    None,
    OtherBank,
    Initiator,
    Amount,
    Currency,
    Id,
}

fn back() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0usize..3, 3 => 0usize..10, 1 => any::<usize>()]
}

fn which(any: u32, open: u32, finished: u32) -> impl Strategy<Value = Which> {
    let class = prop_oneof![any => Just(Class::Any), open => Just(Class::Open), finished => Just(Class::Final)];
    (class, back()).prop_map(|(class, back)| Which { class, back })
}

fn of(class: Class) -> impl Strategy<Value = Which> {
    back().prop_map(move |back| Which { class, back })
}

fn currency() -> impl Strategy<Value = Currency> {
    prop_oneof![12 => Just(Currency::CNY), 4 => Just(HKD), 1 => Just(USD)]
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        40 => (1u64..260).prop_map(Amount::Minor),
        10 => (1u64..500).prop_map(Amount::Minor),
        2 => Just(Amount::Minor(0)),
        2 => (MAXIMUM - 2..MAXIMUM + 3).prop_map(Amount::Minor),
        // The limits of two participants.
        2 => prop_oneof![249u64..252, 349u64..352].prop_map(Amount::Minor),
        2 => (0u64..2).prop_map(Amount::Headroom),
    ]
}

fn request() -> impl Strategy<Value = Act> {
    let kind = prop_oneof![
        12 => Just(Kind::Debit as u8),
        8 => Just(Kind::Payout as u8),
        3 => Just(Kind::Bind as u8),
        2 => Just(Kind::Unbind as u8),
        1 => prop_oneof![Just(0u8), Just(6), Just(255)],
    ];
    (
        prop_oneof![10 => Just(0u16), 8 => Just(1), 1 => 0..=PARTICIPANTS + 1],
        prop_oneof![10 => Just(3u16), 8 => Just(4), 6 => Just(6), 1 => 0..=PARTICIPANTS, 1 => Just(PARTICIPANTS)],
        amount(),
        currency(),
        kind,
        (1u8..=2, prop_oneof![12 => Just(true), 1 => Just(false)]),
        prop_oneof![24 => Just(0i64), 3 => Just(-1), 1 => Just(-2), 2 => Just(1)],
        0u16..4,
    )
        .prop_map(
            |(initiator, responder, amount, currency, kind, (step, sane), day, lane)| {
                let bind = [Kind::Bind as u8, Kind::Unbind as u8].contains(&kind);
                Act::Request {
                    initiator,
                    responder,
                    // Most Binds are without money, as they should be.
                    amount: if bind && sane { Amount::Minor(0) } else { amount },
                    currency,
                    kind,
                    step: if bind { step } else { 0 },
                    day,
                    lane,
                }
            },
        )
}

fn refund() -> impl Strategy<Value = Act> {
    let portion = prop_oneof![
        2 => Just(Portion::Whole),
        4 => Just(Portion::Half),
        3 => Just(Portion::Tenth),
        1 => Just(Portion::OneOver),
    ];
    let flaw = prop_oneof![
        16 => Just(RefundFlaw::None),
        1 => Just(RefundFlaw::Initiator),
        1 => Just(RefundFlaw::Responder),
        3 => Just(RefundFlaw::Currency),
        1 => Just(RefundFlaw::Unknown),
    ];
    let original = prop_oneof![5 => of(Class::CommittedDebit), 1 => of(Class::Any)];
    (original, portion, flaw, 0u16..4).prop_map(|(original, portion, flaw, lane)| Act::Refund {
        original,
        portion,
        flaw,
        lane,
    })
}

fn again() -> impl Strategy<Value = Act> {
    let change = prop_oneof![
        8 => Just(Change::Nothing),
        3 => Just(Change::Flags),
        1 => Just(Change::Amount),
        1 => Just(Change::Currency),
        1 => Just(Change::Kind),
        1 => Just(Change::Scene),
        1 => Just(Change::Responder),
        1 => Just(Change::Step),
        1 => Just(Change::Created),
        1 => Just(Change::MandateToken),
        1 => Just(Change::AccountToken),
        1 => Just(Change::Original),
        1 => Just(Change::OrderReference),
    ];
    (which(2, 1, 1), change).prop_map(|(which, change)| Act::Again { which, change })
}

fn reply() -> impl Strategy<Value = Act> {
    let asked = prop_oneof![2 => Just(Regarding::Request as u8), 1 => Just(Regarding::Status as u8)];
    let word = prop_oneof![
        8 => (asked.clone(), Just(ReplyOutcome::Yes as u8)),
        3 => (asked, Just(ReplyOutcome::No as u8)),
        1 => Just((Regarding::Status as u8, ReplyOutcome::NeverSeen as u8)),
        // Numbers that mean nothing, or nothing together.
        1 => (0u8..5, 0u8..6),
    ];
    let code = prop_oneof![6 => 20u8..29, 1 => Just(35u8), 1 => any::<u8>()];
    let flaw = prop_oneof![
        30 => Just(ReplyFlaw::None),
        1 => Just(ReplyFlaw::OtherBank),
        1 => Just(ReplyFlaw::Initiator),
        1 => Just(ReplyFlaw::Amount),
        1 => Just(ReplyFlaw::Currency),
        1 => Just(ReplyFlaw::Id),
    ];
    (which(1, 8, 3), word, code, 0u64..3, flaw).prop_map(|(which, (regarding, outcome), code, token, flaw)| {
        Act::Reply {
            which,
            regarding,
            outcome,
            code,
            token,
            flaw,
        }
    })
}

/// A word about a Reversal: mostly that it was taken, sometimes that the payment had been made after all.
fn reversed() -> impl Strategy<Value = Act> {
    let word = prop_oneof![
        2 => Just((Regarding::Reversal, ReplyOutcome::Acknowledged)),
        1 => Just((Regarding::Request, ReplyOutcome::Yes)),
    ];
    (of(Class::Reversed), word).prop_map(|(which, (regarding, outcome))| Act::Reply {
        which,
        regarding: regarding as u8,
        outcome: outcome as u8,
        code: 0,
        token: 0,
        flaw: ReplyFlaw::None,
    })
}

fn passing() -> impl Strategy<Value = Act> {
    let days = u64::from(REFUND_DAYS);
    prop_oneof![
        // Half seconds, so that several payments have the same deadline.
        8 => (0u64..16).prop_map(|halves| Act::Pass { millis: halves * 500 }),
        3 => (16u64..180).prop_map(|halves| Act::Pass { millis: halves * 500 }),
        1 => (0u64..90_000).prop_map(|millis| Act::Pass { millis }),
        6 => (-1i64..=1).prop_map(|nanos| Act::PassToDeadline { nanos }),
        1 => prop_oneof![Just(-301i64), Just(-300), Just(-1), Just(0)].prop_map(|seconds| Act::PassToMidnight { seconds }),
        2 => prop_oneof![3 => Just(1u64), 1 => Just(2), 2 => Just(7), 4 => days - 1..days + 2].prop_map(|days| Act::PassDays { days }),
    ]
}

fn window() -> impl Strategy<Value = Act> {
    let action = prop_oneof![
        2 => Just(WindowAction::Open),
        3 => Just(WindowAction::Close),
        3 => Just(WindowAction::BeginSettlement),
        3 => Just(WindowAction::Settled),
        2 => Just(WindowAction::Aborted),
    ];
    let fits = prop_oneof![4 => Just(true), 1 => Just(false)];
    (action, currency(), fits, back()).prop_map(|(action, currency, fits, nth)| Act::Window {
        action,
        currency,
        fits,
        nth,
    })
}

fn ordered_terms() -> impl Strategy<Value = OrderedTerms> {
    let accounts = prop_oneof![
        2 => Just(NewAccounts::None),
        6 => Just(NewAccounts::One),
        6 => Just(NewAccounts::Both),
        1 => Just(NewAccounts::Foreign),
        1 => Just(NewAccounts::Twice),
        1 => Just(NewAccounts::Filled),
    ];
    let suspended = prop_oneof![4 => Just(0u8), 3 => 1u8..4, 1 => Just(4)];
    let limit = prop_oneof![3 => Just(0u64), 1 => 100u64..400];
    (0u8..6, suspended, limit, accounts).prop_map(|(timers, suspended, limit_minor, accounts)| OrderedTerms {
        timers,
        suspended,
        limit_minor,
        accounts,
    })
}

fn order() -> impl Strategy<Value = Act> {
    // Direct, Propose, Approve, Refuse of any action; what fits is the most.
    let what = prop_oneof![
        2 => (Just(1u8), Just(1u8)),
        2 => (Just(2u8), Just(1u8)),
        2 => (Just(3u8), Just(1u8)),
        3 => (Just(4u8), Just(2u8)),
        3 => (Just(5u8), Just(2u8)),
        4 => (Just(6u8), Just(2u8)),
        12 => (Just(0u8), Just(3u8)),
        1 => (Just(0u8), Just(4u8)),
        1 => (1u8..7, 1u8..3),
    ];
    let sum = prop_oneof![
        4 => (0u64..2_000).prop_map(Sum::Minor),
        1 => Just(Sum::Minor(0)),
        2 => (0u64..2).prop_map(Sum::Free),
        2 => (-200i64..300).prop_map(Sum::Use),
        2 => (0u64..2).prop_map(Sum::Cover),
    ];
    let flaw = prop_oneof![
        28 => Just(OrderFlaw::None),
        1 => Just(OrderFlaw::Name),
        1 => Just(OrderFlaw::Action),
        1 => Just(OrderFlaw::Step),
        1 => Just(OrderFlaw::Proposal),
        1 => Just(OrderFlaw::Participant),
        1 => Just(OrderFlaw::Code),
        1 => Just(OrderFlaw::Extra),
    ];
    let whom = prop_oneof![12 => 0u16..PARTICIPANTS, 3 => PARTICIPANTS..PARTICIPANTS + 3];
    let nth = prop_oneof![6 => Just(0usize), 2 => 0usize..4];
    ((what, 0usize..3, whom), currency(), sum, ordered_terms(), nth, flaw).prop_map(
        |(((action, step), operator, participant), currency, sum, terms, nth, flaw)| {
            Act::Order(Ordering {
                action,
                step,
                operator,
                participant,
                currency,
                sum,
                terms,
                nth,
                flaw,
            })
        },
    )
}

/// Both want all the cover there is, or the same number.
fn rivals() -> impl Strategy<Value = Act> {
    let wants = prop_oneof![
        3 => Just((5u8, Sum::Free(0))),
        3 => Just((6u8, Sum::Cover(0))),
        1 => Just((1u8, Sum::Minor(0))),
    ];
    let whom = prop_oneof![Just(0u16), Just(1), Just(3), Just(4), Just(6)];
    let wants = (wants.clone(), wants);
    (wants, whom, ordered_terms()).prop_map(|((first, second), participant, terms)| {
        Act::Rivals([first, second].map(|(action, sum)| Ordering {
            action,
            step: 2,
            operator: 0,
            participant,
            currency: Currency::CNY,
            sum,
            terms,
            nth: 0,
            flaw: OrderFlaw::None,
        }))
    })
}

fn act() -> impl Strategy<Value = Act> {
    let code = prop_oneof![Just(Code::LinkDown), Just(Code::OverLinkCapacity)];
    prop_oneof![
        16 => request(),
        4 => refund(),
        4 => again(),
        16 => reply(),
        2 => reversed(),
        1 => (which(1, 4, 1), code).prop_map(|(which, code)| Act::NotSent { which, code }),
        5 => passing(),
        4 => Just(Act::Tick),
        1 => Just(Act::Restart),
        6 => (back(), prop_oneof![8 => Just(false), 1 => Just(true)]).prop_map(|(nth, again)| Act::Finding { nth, again }),
        1 => prop_oneof![4 => Just(2i64), 1 => -1i64..4].prop_map(|days_ago| Act::Seal { days_ago }),
        1 => Just(Act::Reload),
        5 => window(),
        9 => order(),
        1 => rivals(),
    ]
}

pub(super) fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..120)
}
