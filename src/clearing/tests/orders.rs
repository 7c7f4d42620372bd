//! Orders: what one person may do, what takes two, and what becomes of payments meanwhile.

use bytemuck::{Zeroable, bytes_of};

use super::script::{BANK, CAP, INSTITUTION, OTHER_BANK, Script, answer};
use crate::clearing::Engine;
use crate::domain::{
    Code, Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, Role, SECOND, SchemeCode, UtcNanos,
    WindowId,
};
use crate::wire::{Effect, OrderAction, OrderEvent, OrderOutcome, OrderStep, RecordKind, WindowAction};

const MAKER: &str = "ann";
const CHECKER: &str = "bo";

fn order(action: OrderAction, step: OrderStep, operator: &str, participant: u16) -> OrderEvent {
    let mut order = OrderEvent::zeroed();
    (order.action, order.step) = (action as u8, step as u8);
    order.operator[..operator.len()].copy_from_slice(operator.as_bytes());
    order.participant = ParticipantIndex(participant);
    order.reference = 77;
    order
}

fn give(script: &mut Script, order: &OrderEvent) -> OrderOutcome {
    script.event(RecordKind::Order, bytes_of(order));
    let outcome = script.effects.iter().find_map(|effect| match effect {
        Effect::Ordered { outcome, reference, .. } => {
            assert_eq!(*reference, order.reference);
            Some(*outcome)
        }
        _ => None,
    });
    outcome.expect("an order's outcome is told")
}

fn cover(action: OrderAction, amount_minor: u64) -> OrderEvent {
    let mut order = order(action, OrderStep::Propose, MAKER, BANK);
    (order.currency, order.amount_minor) = (Currency::CNY.0, amount_minor);
    order
}

/// Proposes; gives the number of the proposal.
fn proposed(script: &mut Script, order: &OrderEvent) -> u64 {
    assert_eq!(give(script, order), OrderOutcome::Proposed);
    script.engine.event_number()
}

fn second(script: &mut Script, step: OrderStep, operator: &str, proposal: u64) -> OrderOutcome {
    let mut order = order(OrderAction::Add, step, operator, 0);
    (order.action, order.proposal) = (0, proposal);
    give(script, &order)
}

fn approved(script: &mut Script, order: &OrderEvent) -> OrderOutcome {
    let proposal = proposed(script, order);
    second(script, OrderStep::Approve, CHECKER, proposal)
}

/// (cover, cap) of [`BANK`].
fn funds(engine: &Engine) -> (i128, i128) {
    let account = engine.snapshot().participants[usize::from(BANK)].accounts[0];
    (account.cover, account.cap)
}

const TOP_UP: u64 = 500;
const OPENING: (i128, i128) = (2 * CAP as i128, CAP as i128);

/// Terms of one that is to join as `index`.
fn newcomer(script: &Script, index: u16, role: Role) -> ParticipantTerms {
    let mut terms = *script.engine.terms_of(ParticipantIndex(BANK)).expect("it is there");
    (terms.index, terms.role) = (ParticipantIndex(index), role as u8);
    terms.code = SchemeCode([b'A' + index as u8; 14]);
    terms.accounts = [CurrencyTerms::zeroed(); 4];
    terms.accounts[0].currency = Currency::CNY.0;
    terms
}

fn add(script: &mut Script, terms: ParticipantTerms) -> OrderOutcome {
    let mut add = order(OrderAction::Add, OrderStep::Direct, MAKER, terms.index.0);
    add.terms = terms;
    give(script, &add)
}

#[test]
fn a_proposal_moves_nothing_and_its_approval_by_another_person_does() {
    let mut script = Script::new();
    let proposal = proposed(&mut script, &cover(OrderAction::CoverIn, TOP_UP));
    assert_eq!(funds(&script.engine), OPENING);
    assert_eq!(script.engine.proposals()[0].event, proposal);
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, proposal),
        OrderOutcome::Done
    );
    assert_eq!(funds(&script.engine), (OPENING.0 + i128::from(TOP_UP), OPENING.1));
    assert_eq!(script.engine.proposals(), []);
    assert_eq!(script.replayed(), script.engine.state_hash());
}

#[test]
fn cover_and_cap_are_never_moved_by_one_person() {
    let mut script = Script::new();
    for action in [OrderAction::CoverIn, OrderAction::CoverOut, OrderAction::SetCap] {
        let alone = OrderEvent {
            step: OrderStep::Direct as u8,
            ..cover(action, 1)
        };
        assert_eq!(give(&mut script, &alone), OrderOutcome::TakesTwo);
        let proposal = proposed(&mut script, &cover(action, 1));
        assert_eq!(
            second(&mut script, OrderStep::Approve, MAKER, proposal),
            OrderOutcome::SamePerson
        );
    }
    assert_eq!(funds(&script.engine), OPENING);
    assert_eq!(script.engine.proposals().len(), 3, "they wait for another person");
}

#[test]
fn a_proposal_is_approved_once_and_what_was_taken_back_never() {
    let mut script = Script::new();
    let once = proposed(&mut script, &cover(OrderAction::CoverIn, TOP_UP));
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, once),
        OrderOutcome::Done
    );
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, once),
        OrderOutcome::NoSuchProposal
    );
    let back = proposed(&mut script, &cover(OrderAction::CoverIn, TOP_UP));
    assert_eq!(
        second(&mut script, OrderStep::Refuse, MAKER, back),
        OrderOutcome::Refused
    );
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, back),
        OrderOutcome::NoSuchProposal
    );
    assert_eq!(funds(&script.engine).0, OPENING.0 + i128::from(TOP_UP));
}

#[test]
fn a_proposal_lapses_after_seven_days_and_not_before() {
    let mut script = Script::new();
    let proposal = proposed(&mut script, &cover(OrderAction::CoverIn, TOP_UP));
    script.after(7 * 86_400 * SECOND - 1).tick();
    assert_eq!(script.engine.proposals().len(), 1);
    script.after(1).tick();
    assert_eq!(script.engine.proposals(), []);
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, proposal),
        OrderOutcome::NoSuchProposal
    );
}

#[test]
fn an_approval_finds_everything_checked_again_and_what_fails_waits_on() {
    let mut script = Script::new();
    let out = proposed(&mut script, &cover(OrderAction::CoverOut, CAP));
    assert_eq!(
        approved(&mut script, &cover(OrderAction::SetCap, CAP + 1)),
        OrderOutcome::Done
    );
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, out),
        OrderOutcome::CoverInUse
    );
    assert_eq!(
        approved(&mut script, &cover(OrderAction::SetCap, CAP)),
        OrderOutcome::Done
    );
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, out),
        OrderOutcome::Done
    );
    assert_eq!(funds(&script.engine), (i128::from(CAP), i128::from(CAP)));
}

#[test]
fn cover_that_is_owed_or_reserved_or_under_the_cap_stays() {
    let mut script = Script::new();
    assert_eq!(
        give(&mut script, &cover(OrderAction::CoverOut, CAP + 1)),
        OrderOutcome::CoverInUse
    );
    script.committed_debit(BANK, 3_000);
    script.debit(BANK, 2_000);
    assert_eq!(
        approved(&mut script, &cover(OrderAction::SetCap, 100)),
        OrderOutcome::Done
    );
    let free = 2 * CAP - 5_000;
    assert_eq!(
        give(&mut script, &cover(OrderAction::CoverOut, free + 1)),
        OrderOutcome::CoverInUse
    );
    assert_eq!(
        approved(&mut script, &cover(OrderAction::CoverOut, free)),
        OrderOutcome::Done
    );
    assert_eq!(funds(&script.engine).0, 5_000);
}

#[test]
fn a_cap_is_at_most_the_cover_and_below_its_use_it_stops_debits_only() {
    let mut script = Script::new();
    let above = cover(OrderAction::SetCap, 2 * CAP + 1);
    assert_eq!(give(&mut script, &above), OrderOutcome::CapOverCover);
    let owed = script.debit(BANK, 3_000);
    assert_eq!(
        approved(&mut script, &cover(OrderAction::SetCap, 0)),
        OrderOutcome::Done
    );
    let refused = script.body(BANK, 1);
    assert_eq!(script.send(&refused), [answer(Code::CoverExceeded, 1)]);
    // What was admitted goes on, and so does what the bank is owed.
    script.yes(&owed);
    let payout = script.payment(Kind::Payout);
    script.yes(&payout);
    assert_eq!(script.position(BANK), 2_900);
    script.window(WindowAction::Close, Currency::CNY, WindowId::NONE);
    assert_eq!(script.engine.breach(), None);
}

#[test]
fn a_participant_that_joins_while_payments_flow_pays_at_once() {
    let mut script = Script::new();
    let open = script.debit(BANK, 100);
    let bank = newcomer(&script, 4, Role::Bank);
    assert_eq!(add(&mut script, bank), OrderOutcome::Done);
    let told = script.effects.iter().any(|effect| {
        matches!(effect, Effect::Contract { participant, contract }
            if participant.0 == 4 && *contract == bank.contract)
    });
    assert!(told, "dispatch and links hear of it");
    // Nothing is prefunded yet.
    let early = script.body(4, 10);
    assert_eq!(script.send(&early), [answer(Code::CoverExceeded, 1)]);
    let mut top_up = cover(OrderAction::CoverIn, 900);
    top_up.participant = ParticipantIndex(4);
    assert_eq!(approved(&mut script, &top_up), OrderOutcome::Done);
    let mut cap = cover(OrderAction::SetCap, 900);
    cap.participant = ParticipantIndex(4);
    assert_eq!(approved(&mut script, &cap), OrderOutcome::Done);
    script.committed_debit(4, 900);
    script.yes(&open);
    script.window(WindowAction::Close, Currency::CNY, WindowId::NONE);
    assert_eq!(script.engine.breach(), None);
    assert_eq!((script.position(4), script.position(BANK)), (900, 100));
    let first = WindowId::new(super::script::TODAY, 1);
    for action in [WindowAction::BeginSettlement, WindowAction::Settled] {
        script.window(action, Currency::CNY, first);
    }
    assert_eq!(script.position(4), 0);
    assert_eq!(script.replayed(), script.engine.state_hash());
}

#[test]
fn one_joins_under_the_next_number_with_a_code_of_its_own_and_without_cover() {
    let mut script = Script::new();
    let right = newcomer(&script, 4, Role::Institution);
    let mut taken = right;
    taken.code = SchemeCode([b'B'; 14]);
    let mut filled = right;
    filled.accounts[0].cover_minor = 1;
    let mut foreign = right;
    foreign.accounts[1].currency = 840;
    let mut falling = right;
    falling.doubt_ns = falling.expiry_push_ns;
    for (terms, outcome) in [
        (newcomer(&script, 5, Role::Bank), OrderOutcome::NoSuchParticipant),
        (newcomer(&script, 3, Role::Bank), OrderOutcome::NoSuchParticipant),
        (taken, OrderOutcome::NoSuchParticipant),
        (filled, OrderOutcome::Malformed),
        (foreign, OrderOutcome::NoSuchAccount),
        (falling, OrderOutcome::Malformed),
    ] {
        assert_eq!(add(&mut script, terms), outcome, "{terms:?}");
    }
    assert_eq!(script.engine.participant_count(), 4);
    assert_eq!(add(&mut script, right), OrderOutcome::Done);
    assert_eq!(
        add(&mut script, right),
        OrderOutcome::NoSuchParticipant,
        "the number is taken now"
    );
}

#[test]
fn cover_that_comes_in_opens_the_account_where_there_was_none() {
    let mut script = Script::new();
    let mut terms = newcomer(&script, 4, Role::Bank);
    terms.accounts = [CurrencyTerms::zeroed(); 4];
    add(&mut script, terms);
    let refused = script.body(4, 1);
    assert_eq!(script.send(&refused), [answer(Code::CurrencyNotOpen, 1)]);
    for action in [OrderAction::CoverOut, OrderAction::SetCap] {
        let mut early = cover(action, 1);
        early.participant = ParticipantIndex(4);
        assert_eq!(give(&mut script, &early), OrderOutcome::NoSuchAccount);
    }
    let mut top_up = cover(OrderAction::CoverIn, 50);
    top_up.participant = ParticipantIndex(4);
    assert_eq!(approved(&mut script, &top_up), OrderOutcome::Done);
    let named = script.engine.terms()[4].account(Currency::CNY).copied();
    assert!(named.is_some(), "the terms in force name the account");
    top_up.currency = 840;
    assert_eq!(
        give(&mut script, &top_up),
        OrderOutcome::NoSuchAccount,
        "not a currency of the scheme"
    );
}

#[test]
fn suspended_in_either_direction_and_resumed_a_participant_is_held_to_it_from_the_next_payment() {
    let mut script = Script::new();
    let open = script.debit(BANK, 100);
    let suspend = |script: &mut Script, participant, suspended| {
        let mut suspend = order(OrderAction::Suspend, OrderStep::Direct, MAKER, participant);
        suspend.terms.suspended = suspended;
        assert_eq!(give(script, &suspend), OrderOutcome::Done);
    };
    suspend(&mut script, BANK, ParticipantTerms::SUSPENDED_RESPONDER);
    let body = script.body(BANK, 1);
    assert_eq!(script.send(&body), [answer(Code::ResponderSuspended, 1)]);
    suspend(&mut script, INSTITUTION, ParticipantTerms::SUSPENDED_INITIATOR);
    let body = script.body(OTHER_BANK, 1);
    assert_eq!(script.send(&body), [answer(Code::InitiatorSuspended, 2)]);
    // What is open ends as ever.
    assert!(script.yes(&open).contains(&answer(Code::Committed, 3)));
    suspend(&mut script, BANK, 0);
    suspend(&mut script, INSTITUTION, ParticipantTerms::SUSPENDED_RESPONDER);
    script.debit(BANK, 1);
}

#[test]
fn amended_timers_count_for_what_is_accepted_from_then_on_and_for_nothing_before() {
    let mut script = Script::new();
    let before = script.debit(BANK, 1);
    let mut amend = order(OrderAction::Amend, OrderStep::Direct, MAKER, BANK);
    amend.terms = *script.engine.terms_of(ParticipantIndex(BANK)).expect("it is there");
    (amend.terms.doubt_ns, amend.terms.expiry_pull_ns) = (2 * SECOND, 9 * SECOND);
    amend.terms.payment_limit_minor = 700;
    // Not its to say: they stay as they are.
    (amend.terms.suspended, amend.terms.role) = (3, Role::Institution as u8);
    amend.terms.code = SchemeCode([b'X'; 14]);
    assert_eq!(give(&mut script, &amend), OrderOutcome::Done);
    let after = script.debit(BANK, 2);
    let start = script.time;
    let over = script.body(BANK, 701);
    assert_eq!(script.send(&over), [answer(Code::OverAgreedLimit, 1)]);
    let waiting = |script: &mut Script| script.engine.next_deadline();
    assert_eq!(waiting(&mut script), start.plus(2 * SECOND));
    script.after(2 * SECOND).tick();
    let doubtful: Vec<_> = script
        .engine
        .in_doubt(9)
        .iter()
        .map(|d| (d.payment, d.expires))
        .collect();
    assert_eq!(doubtful, [(after.id, start.plus(9 * SECOND))]);
    assert_eq!(waiting(&mut script), start.plus(5 * SECOND));
    script.after(3 * SECOND).tick();
    let doubtful: Vec<UtcNanos> = script.engine.in_doubt(9).iter().map(|d| d.expires).collect();
    assert_eq!(script.engine.in_doubt(9)[0].payment, before.id);
    assert_eq!(doubtful, [start.plus(60 * SECOND), start.plus(9 * SECOND)]);
    let terms = script.engine.terms()[usize::from(BANK)];
    assert_eq!(
        (terms.suspended, terms.role, terms.code),
        (0, Role::Bank as u8, SchemeCode([b'B'; 14]))
    );
}

#[test]
fn timers_amended_a_thousand_times_leave_no_queue_behind_and_a_load_goes_on_with_those_that_wait() {
    let mut script = Script::new();
    let waits = script.debit(BANK, 1);
    let mut amend = order(OrderAction::Amend, OrderStep::Direct, MAKER, BANK);
    amend.terms = *script.engine.terms_of(ParticipantIndex(BANK)).expect("it is there");
    for nth in 0..1_000 {
        amend.terms.doubt_ns = 6 * SECOND + nth;
        assert_eq!(give(&mut script, &amend), OrderOutcome::Done);
    }
    assert!(
        script.engine.timers.classes() <= 3,
        "{}",
        script.engine.timers.classes()
    );
    let mut saved = Vec::new();
    script.engine.save(&mut saved).expect("memory takes it");
    let mut loaded = Engine::load(&mut saved.as_slice()).expect("it was just saved");
    assert_eq!(loaded.state_hash(), script.engine.state_hash());
    assert_eq!(loaded.next_deadline(), script.time.plus(5 * SECOND));
    script.engine = loaded;
    script.after(5 * SECOND).tick();
    assert_eq!(script.engine.in_doubt(9)[0].payment, waits.id);
}

#[test]
fn a_saved_state_has_its_proposals_and_outcomes_and_a_restart_forgets_none() {
    let mut script = Script::new();
    let proposal = proposed(&mut script, &cover(OrderAction::CoverIn, TOP_UP));
    let mut saved = Vec::new();
    script.engine.save(&mut saved).expect("memory takes it");
    let loaded = Engine::load(&mut saved.as_slice()).expect("it was just saved");
    assert_eq!(loaded.proposals(), script.engine.proposals());
    assert_eq!(loaded.order_outcome(77), script.engine.order_outcome(77));
    script.engine = loaded;
    script.restart();
    assert_eq!(
        second(&mut script, OrderStep::Approve, CHECKER, proposal),
        OrderOutcome::Done
    );
}

#[test]
fn at_most_1024_proposals_wait_and_256_outcomes_are_kept() {
    let mut script = Script::new();
    for _ in 0..1_024 {
        proposed(&mut script, &cover(OrderAction::CoverIn, 1));
    }
    assert_eq!(
        give(&mut script, &cover(OrderAction::CoverIn, 1)),
        OrderOutcome::TooMany
    );
    let first = script.engine.proposals()[0].event;
    assert_eq!(
        second(&mut script, OrderStep::Refuse, CHECKER, first),
        OrderOutcome::Refused
    );
    proposed(&mut script, &cover(OrderAction::CoverIn, 1));
    let outcomes = script.engine.order_outcomes();
    assert_eq!(outcomes.len(), 256);
    assert_eq!(outcomes.last().map(|o| o.event), Some(script.engine.event_number()));
}

#[test]
fn an_order_that_says_what_can_not_be_or_does_not_belong_is_malformed() {
    let mut script = Script::new();
    let right = cover(OrderAction::CoverIn, 1);
    let mut two_spellings = right;
    two_spellings.operator[5] = b'x';
    let mut nameless = right;
    nameless.operator = [0; 32];
    let mut with_terms = right;
    with_terms.terms.suspended = 1;
    let with_account = OrderEvent {
        currency: Currency::CNY.0,
        ..order(OrderAction::Suspend, OrderStep::Direct, MAKER, BANK)
    };
    let mut unknown_kind = order(OrderAction::Amend, OrderStep::Direct, MAKER, BANK);
    unknown_kind.terms = *script.engine.terms_of(ParticipantIndex(BANK)).expect("it is there");
    unknown_kind.terms.permitted_kinds |= 1 << 9;
    for wrong in [
        OrderEvent { action: 0, ..right },
        OrderEvent { step: 5, ..right },
        OrderEvent {
            amount_minor: 0,
            ..right
        },
        OrderEvent { proposal: 9, ..right },
        OrderEvent { reserved: 1, ..right },
        two_spellings,
        nameless,
        with_terms,
        with_account,
        unknown_kind,
    ] {
        assert_eq!(give(&mut script, &wrong), OrderOutcome::Malformed, "{wrong:?}");
    }
    let proposal = proposed(&mut script, &right);
    let mut more = order(OrderAction::CoverIn, OrderStep::Approve, CHECKER, 0);
    more.proposal = proposal;
    assert_eq!(
        give(&mut script, &more),
        OrderOutcome::Malformed,
        "an approval says only which"
    );
    script.debit(BANK, 1);
}
