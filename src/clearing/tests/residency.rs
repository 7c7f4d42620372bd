//! Payments that the engine holds no more, and what concerns them all the same.

use bytemuck::bytes_of;

use super::super::engine::Outlet;
use super::super::query::Recalled;
use super::script::{BANK, HKD, INSTITUTION, LINK, Said, Script, again, answer};
use crate::domain::{Code, Currency, ParticipantIndex, PaymentId, PaymentState, SECOND, UtcNanos, WindowId};
use crate::wire::{
    DaySealedEvent, Effect, FindingEvent, LookUp, PaymentBody, RecordKind, RegisterEntry, RequestEvent, WindowAction,
    WordEntry,
};

fn of(participant: u16) -> ParticipantIndex {
    ParticipantIndex(participant)
}

/// What a register is told of one payment.
struct Entry(PaymentId, Option<RegisterEntry>);

impl Outlet for Entry {
    fn emit(&mut self, _: Effect) {}

    fn keeps_register(&self) -> bool {
        true
    }

    fn registered(&mut self, entry: &RegisterEntry) {
        if entry.id == self.0 {
            self.1 = Some(*entry);
        }
    }
}

impl Script {
    /// An engine that holds so many payments, for each of whose participants one event may wait.
    fn holding(resident_payments: u32) -> Self {
        let mut script = Self::under(
            |scheme| (scheme.resident_payments, scheme.parked_max) = (resident_payments, 1),
            |_| {},
        );
        for currency in [Currency::CNY, HKD] {
            script.window(WindowAction::Open, currency, WindowId::NONE);
        }
        script
    }

    /// So many payments come and go, so that those before them go from the table.
    fn push_out(&mut self, count: u32) {
        for _ in 0..count {
            self.committed_debit(BANK, 1);
        }
    }

    /// The look-up that the last event asked for.
    fn asked(&self) -> LookUp {
        let asked = self.effects.iter().find_map(|effect| match effect {
            Effect::LookUp(look_up) => Some(*look_up),
            _ => None,
        });
        asked.expect("the register is asked")
    }

    /// The register answers with what the engine told it, in replay, of that payment.
    fn find(&mut self, look_up: LookUp) -> Vec<Said> {
        let mut entry = Entry(look_up.id, None);
        self.replay_to(&mut entry);
        let finding = FindingEvent::new(look_up, entry.1.as_ref());
        self.event(RecordKind::Finding, bytes_of(&finding))
    }

    fn seal(&mut self, days_ago: u64) -> Vec<Said> {
        let day = UtcNanos(self.time.0 - days_ago * 86_400 * SECOND);
        let event = DaySealedEvent::new(day.business_date());
        self.event(RecordKind::DaySealed, bytes_of(&event))
    }
}

fn in_register(script: &Script, payment: &PaymentBody) -> bool {
    matches!(
        script.engine.inquire(of(INSTITUTION), LINK, payment.id, 0),
        Recalled::InRegister
    )
}

#[test]
fn a_final_payment_makes_room_for_a_new_one_and_an_open_one_stays() {
    let mut script = Script::holding(4);
    let (open, gone) = (script.debit(BANK, 5), script.committed_debit(BANK, 7));
    script.push_out(4);
    assert!(in_register(&script, &gone));
    assert_eq!(script.state(&open), Some(PaymentState::Reserved));
    script.yes(&open);
    assert_eq!(script.state(&open), Some(PaymentState::Committed));
    assert_eq!(script.replayed(), script.engine.state_hash());
}

#[test]
fn where_all_that_are_held_are_open_a_request_is_told_37_and_keeps_its_id() {
    let mut script = Script::holding(2);
    let open = [script.debit(BANK, 5), script.debit(BANK, 6)];
    let body = script.body(BANK, 7);
    assert_eq!(script.send(&body), [answer(Code::NotTaken, 0)]);
    script.yes(&open[1]);
    assert_eq!(script.send(&body), [Said::Forward(BANK)]);
}

#[test]
fn a_repetition_of_a_payment_that_went_waits_for_the_register_and_gets_its_answer() {
    let mut script = Script::holding(2);
    let gone = script.committed_debit(BANK, 7);
    let first = script.last_answer();
    script.push_out(2);
    assert_eq!(script.send(&gone), [Said::LookUp(gone.id.serial())]);
    let asked = script.asked();
    assert_eq!(script.send(&gone), [answer(Code::InProgress, 0)], "it waits");
    assert_eq!(script.find(asked), [again(Code::Committed, 4)]);
    let answer = script.last_answer();
    assert_eq!((answer.window, answer.final_ns), (first.window, first.final_ns));
    assert_eq!(script.find(asked), [], "a second finding is void");
    assert!(matches!(
        script.engine.word_again(of(INSTITUTION), LINK, 1),
        Some(Recalled::InRegister)
    ));
    assert!(matches!(
        script.engine.word_again(of(INSTITUTION), LINK, 4),
        Some(Recalled::InRegister)
    ));
}

#[test]
fn a_refund_of_a_payment_that_went_waits_and_what_was_refunded_counts_at_the_finding() {
    let mut script = Script::holding(4);
    let gone = script.committed_debit(BANK, 100);
    let refund = script.refund(&gone, 60);
    script.yes(&refund);
    script.push_out(4);
    let over = script.refund_body(&gone, 41);
    script.send(&over);
    let asked = script.asked();
    assert_eq!(script.find(asked), [answer(Code::RefundExceedsOriginal, 7)]);
    let fits = script.refund_body(&gone, 40);
    script.send(&fits);
    let asked = script.asked();
    assert_eq!(
        script.find(asked),
        [Said::Request(0), Said::Request(1), Said::Forward(BANK)]
    );
    let mut given = [0u8; 128];
    for effect in &script.effects {
        if let Effect::Request { half, bytes } = effect {
            given[usize::from(*half) * 64..][..64].copy_from_slice(bytes);
        }
    }
    let given: RequestEvent = bytemuck::pod_read_unaligned(&given);
    assert_eq!(given.body, fits, "dispatch is given what waited");
    assert_eq!(script.state(&fits), Some(PaymentState::Reserved));
}

#[test]
fn a_late_word_about_a_payment_that_went_waits_and_counts_as_any_other() {
    let mut script = Script::holding(2);
    let gone = script.debit(BANK, 9);
    script.no(&gone, Code::BankDeclined);
    script.push_out(2);
    assert_eq!(script.yes(&gone), [Said::LookUp(gone.id.serial())]);
    let asked = script.asked();
    let said = script.find(asked);
    assert!(
        matches!(
            said[..],
            [Said::Reversal {
                to: BANK,
                word: 1,
                attempt: 1
            }]
        ),
        "{said:?}"
    );
    assert_eq!(script.engine.figures().conflicts, 1);
    assert_eq!(script.acknowledged(&gone), [], "of a Reversal everything is at hand");
}

#[test]
fn one_more_than_may_wait_is_told_37_and_a_reply_is_dropped() {
    let mut script = Script::holding(2);
    let gone = [script.committed_debit(BANK, 7), script.committed_debit(BANK, 8)];
    script.push_out(2);
    script.send(&gone[0]);
    assert_eq!(script.send(&gone[1]), [answer(Code::NotTaken, 0)]);
    script.yes(&gone[0]);
    assert_eq!(script.yes(&gone[1]), []);
    let figures = script.engine.figures();
    assert_eq!((figures.parked, figures.not_taken, figures.replies_dropped), (2, 1, 1));
}

#[test]
fn what_waits_asks_again_after_a_restart() {
    let mut script = Script::holding(2);
    let gone = script.committed_debit(BANK, 7);
    script.push_out(2);
    script.send(&gone);
    let asked = script.asked();
    assert_eq!(script.restart(), [Said::LookUp(gone.id.serial())]);
    assert_eq!(script.asked(), asked);
    assert_eq!(script.find(asked), [again(Code::Committed, 4)]);
}

#[test]
fn of_a_sealed_day_the_register_alone_knows_and_a_day_with_an_open_payment_is_not_sealed() {
    let mut script = Script::holding(4);
    let (known, open) = (script.committed_debit(BANK, 7), script.debit(BANK, 8));
    // The restart moves its T2.
    script.after_seconds(3 * 86_400).restart();
    assert_eq!(script.state(&open), Some(PaymentState::InDoubt));
    script.seal(3);
    assert_eq!(script.engine.sealed().0, 0);
    script.after_seconds(60).tick();
    script.seal(3);
    assert_eq!(script.engine.sealed(), known.id.date());
    assert!(in_register(&script, &known));
    assert_eq!(script.send(&known), [Said::LookUp(known.id.serial())]);
    let asked = script.asked();
    let said = script.find(asked);
    assert!(matches!(said[..], [Said::Answer { code: 0, flags: 1, .. }]), "{said:?}");
    let mut never = known;
    never.id = PaymentId::new(known.id.date(), of(INSTITUTION), 0, 999);
    script.send(&never);
    let asked = script.asked();
    assert_eq!(script.find(asked), [answer(Code::DateNotOpen, 0)]);
}

/// What a register is told of Reversals that are forgotten: number, attempts, when raised.
#[derive(Default)]
struct Forgotten(Vec<(u64, u8, UtcNanos)>);

impl Outlet for Forgotten {
    fn emit(&mut self, _: Effect) {}

    fn forgotten(&mut self, word: &WordEntry, raised: UtcNanos) {
        self.0.push((word.number, word.attempts, raised));
    }
}

#[test]
fn a_reversal_that_is_forgotten_is_filed_with_the_attempt_it_had_come_to() {
    let mut script = Script::holding(2);
    let payment = script.debit(BANK, 9);
    script.no(&payment, Code::BankDeclined);
    script.yes(&payment);
    let raised = script.time;
    script.after_seconds(1).tick();
    script.after_seconds(2).tick();
    script.acknowledged(&payment);
    script.after_seconds(100 * 86_400).tick();
    script.seal(3);
    let mut forgotten = Forgotten::default();
    script.replay_to(&mut forgotten);
    assert_eq!(forgotten.0, [(1, 3, raised)]);
}
