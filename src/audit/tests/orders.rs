//! Orders, one claim each: what two people say moves cover, and the payments that follow find it so.

use bytemuck::Zeroable;

use super::super::script::{BANK, CAP, Script};
use crate::domain::{Currency, ParticipantIndex, ParticipantTerms, SECOND, SchemeCode, WindowId};
use crate::wire::{OrderAction, OrderEvent, OrderOutcome, OrderStep, WindowAction};

fn order(action: OrderAction, step: OrderStep, operator: &[u8]) -> OrderEvent {
    let mut order = OrderEvent::zeroed();
    (order.action, order.step) = (action as u8, step as u8);
    order.operator[..operator.len()].copy_from_slice(operator);
    order.participant = ParticipantIndex(BANK);
    order
}

fn propose(script: &mut Script, action: OrderAction, amount_minor: u64) -> u64 {
    let mut order = order(action, OrderStep::Propose, b"ann");
    (order.currency, order.amount_minor) = (Currency::CNY.0, amount_minor);
    script.order(&order);
    script.number
}

fn approve(script: &mut Script, proposal: u64, operator: &[u8]) {
    let mut order = order(OrderAction::Add, OrderStep::Approve, operator);
    (order.action, order.participant, order.proposal) = (0, ParticipantIndex(0), proposal);
    script.order(&order);
}

fn moved(script: &mut Script, action: OrderAction, amount_minor: u64) {
    let proposal = propose(script, action, amount_minor);
    approve(script, proposal, b"bo");
}

/// How many orders came to this.
fn count(script: &Script, outcome: OrderOutcome) -> u64 {
    script.clean().orders.get(&(outcome as u8)).copied().unwrap_or(0)
}

/// (cover, cap) of the bank.
fn funds(script: &Script) -> (i128, i128) {
    let bank = script.auditor.books.participant_ref(ParticipantIndex(BANK));
    let account = bank
        .and_then(|bank| bank.account_ref(Currency::CNY))
        .expect("it has one");
    (account.cover, account.cap)
}

#[test]
fn cover_moves_when_a_second_person_says_so_and_stays_tied_to_its_opening() {
    let mut script = Script::new();
    let proposal = propose(&mut script, OrderAction::CoverIn, 500);
    assert_eq!(funds(&script).0, 20_000);
    approve(&mut script, proposal, b"ann");
    assert_eq!(
        (count(&script, OrderOutcome::SamePerson), funds(&script).0),
        (1, 20_000)
    );
    approve(&mut script, proposal, b"bo");
    assert_eq!(funds(&script).0, 20_500);
    approve(&mut script, proposal, b"bo");
    assert_eq!(count(&script, OrderOutcome::NoSuchProposal), 1);
    script.committed(BANK, 5_000);
    moved(&mut script, OrderAction::SetCap, 5_500);
    script.window(WindowAction::Close, WindowId::NONE);
    let first = script.clean().windows[0].id;
    script.window(WindowAction::BeginSettlement, first);
    script.window(WindowAction::Settled, first);
    assert_eq!(funds(&script), (15_500, 500));
    moved(&mut script, OrderAction::CoverOut, 15_000);
    assert_eq!(funds(&script), (500, 500));
    moved(&mut script, OrderAction::CoverOut, 1);
    assert_eq!(count(&script, OrderOutcome::CoverInUse), 1);
    moved(&mut script, OrderAction::SetCap, 501);
    assert_eq!(count(&script, OrderOutcome::CapOverCover), 1);
    script.debit(BANK, 501);
    assert_eq!(script.clean().by_code.get(&13), Some(&1), "the cap that was set counts");
}

#[test]
fn an_order_of_one_person_that_moves_cover_takes_two() {
    let mut script = Script::new();
    let mut alone = order(OrderAction::CoverIn, OrderStep::Direct, b"ann");
    (alone.currency, alone.amount_minor) = (Currency::CNY.0, 1);
    script.order(&alone);
    assert_eq!((count(&script, OrderOutcome::TakesTwo), funds(&script).0), (1, 20_000));
}

#[test]
fn one_that_joins_is_paid_and_pays_and_the_windows_have_a_place_for_it() {
    let mut script = Script::new();
    let mut add = order(OrderAction::Add, OrderStep::Direct, b"ann");
    add.terms = script
        .auditor
        .books
        .participant_ref(ParticipantIndex(BANK))
        .expect("it is there")
        .terms;
    add.participant = ParticipantIndex(3);
    add.terms.index = ParticipantIndex(3);
    script.order(&add);
    assert_eq!(count(&script, OrderOutcome::Malformed), 1, "it brings cover");
    add.terms.accounts[0].cover_minor = 0;
    add.terms.accounts[0].cap_minor = 0;
    script.order(&add);
    assert_eq!(
        count(&script, OrderOutcome::NoSuchParticipant),
        1,
        "the code is another's"
    );
    add.terms.code = SchemeCode([b'N'; 14]);
    script.order(&add);
    assert_eq!(count(&script, OrderOutcome::Done), 1);
    script.debit(3, 10);
    assert_eq!(script.clean().by_code.get(&13), Some(&1));
    for action in [OrderAction::CoverIn, OrderAction::SetCap] {
        let mut proposal = order(action, OrderStep::Propose, b"ann");
        (proposal.currency, proposal.amount_minor) = (Currency::CNY.0, CAP);
        proposal.participant = ParticipantIndex(3);
        script.order(&proposal);
        let number = script.number;
        approve(&mut script, number, b"bo");
    }
    script.committed(3, 4_000);
    assert_eq!(script.clean().positions, [-4_000, 0, 0, 4_000]);
}

#[test]
fn amended_timers_and_suspension_count_from_the_next_payment() {
    let mut script = Script::new();
    let before = script.debit(BANK, 1);
    let mut amend = order(OrderAction::Amend, OrderStep::Direct, b"ann");
    amend.terms = script
        .auditor
        .books
        .participant_ref(ParticipantIndex(BANK))
        .expect("it is there")
        .terms;
    (amend.terms.doubt_ns, amend.terms.expiry_pull_ns) = (2 * SECOND, 9 * SECOND);
    amend.terms.suspended = 3;
    script.order(&amend);
    script.debit(BANK, 2);
    script.after(9).tick();
    assert_eq!(script.clean().payments.expired, 1);
    script.yes(&before);
    assert_eq!(script.clean().payments.committed, 1);
    let mut suspend = order(OrderAction::Suspend, OrderStep::Direct, b"ann");
    suspend.terms.suspended = ParticipantTerms::SUSPENDED_RESPONDER;
    script.order(&suspend);
    script.debit(BANK, 1);
    assert_eq!(script.clean().by_code.get(&6), Some(&1));
}

#[test]
fn a_proposal_that_is_seven_days_old_is_none() {
    let mut script = Script::new();
    let proposal = propose(&mut script, OrderAction::CoverIn, 500);
    script.after(7 * 86_400).tick();
    approve(&mut script, proposal, b"bo");
    assert_eq!(
        (count(&script, OrderOutcome::NoSuchProposal), funds(&script).0),
        (1, 20_000)
    );
}
