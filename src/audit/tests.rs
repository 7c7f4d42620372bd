//! The rules, one claim each, on hand-built events.

use super::{Auditor, Recomputed, Statement};
use crate::domain::{
    BusinessDate, Code, Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, PaymentId, Role, SECOND,
    SchemeCode, SchemeTerms, UtcNanos, WindowId, WindowState,
};
use crate::wire::{
    NotSentEvent, PaymentBody, RecordKind, Regarding, ReplyBody, ReplyEvent, ReplyOutcome, RequestEvent, WindowAction,
    WindowEvent,
};
use bytemuck::{Zeroable, bytes_of};

/// 2026-11-23 20:00 in Shanghai.
const NOON: UtcNanos = UtcNanos(1_795_435_200 * SECOND);
const TODAY: BusinessDate = BusinessDate(20_261_123);
const INSTITUTION: u16 = 0;
const BANK: u16 = 1;
const OTHER_BANK: u16 = 2;
const CAP: u64 = 10_000;

/// Writes a journal by hand: numbers events, and moves time only when told to.
struct Script {
    auditor: Auditor,
    number: u64,
    time: UtcNanos,
    serial: u64,
}

impl Script {
    /// One institution and two banks, a window open.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut ParticipantTerms)) -> Self {
        let mut script = Self {
            auditor: Auditor::new(),
            number: 0,
            time: NOON,
            serial: 0,
        };
        let mut scheme = SchemeTerms::zeroed();
        scheme.participant_count = 3;
        scheme.maximum_minor = 5_000;
        scheme.currencies = [156, 344, 0, 0];
        script.event(RecordKind::Genesis, bytes_of(&scheme));
        for (index, role) in [
            (INSTITUTION, Role::Institution),
            (BANK, Role::Bank),
            (OTHER_BANK, Role::Bank),
        ] {
            let mut terms = ParticipantTerms::zeroed();
            terms.index = ParticipantIndex(index);
            terms.code = SchemeCode([b'A' + index as u8; 14]);
            terms.role = role as u8;
            terms.permitted_kinds = Kind::Debit.bit();
            terms.wait_ns = SECOND;
            terms.doubt_ns = 5 * SECOND;
            terms.expiry_pull_ns = 60 * SECOND;
            terms.expiry_push_ns = 20 * SECOND;
            terms.accounts[0] = CurrencyTerms {
                currency: 156,
                reserved: [0; 14],
                cover_minor: 2 * CAP,
                cap_minor: CAP,
            };
            change(&mut terms);
            script.event(RecordKind::Participant, bytes_of(&terms));
        }
        script.window(WindowAction::Open, WindowId::NONE);
        script
    }

    fn event(&mut self, kind: RecordKind, payload: &[u8]) {
        self.number += 1;
        self.auditor.apply(kind, self.number, self.time, payload);
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.time = self.time.plus(seconds * SECOND);
        self
    }

    fn tick(&mut self) {
        self.event(RecordKind::Tick, &[]);
    }

    fn window(&mut self, action: WindowAction, window: WindowId) {
        self.event(
            RecordKind::Window,
            bytes_of(&WindowEvent::new(action, Currency::CNY, window)),
        );
    }

    fn body(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        self.serial += 1;
        let mut body = PaymentBody::zeroed();
        body.id = PaymentId::new(TODAY, ParticipantIndex(INSTITUTION), 0, self.serial);
        body.amount_minor = amount_minor;
        body.currency = 156;
        body.kind = Kind::Debit as u8;
        body.scene = 1;
        body.responder = ParticipantIndex(responder);
        body
    }

    fn send(&mut self, body: PaymentBody) -> PaymentBody {
        let mut event = RequestEvent::zeroed();
        event.body = body;
        self.event(RecordKind::Request, bytes_of(&event));
        body
    }

    fn debit(&mut self, responder: u16, amount_minor: u64) -> PaymentBody {
        let body = self.body(responder, amount_minor);
        self.send(body)
    }

    fn refused(&mut self, code: Code, change: impl FnOnce(&mut PaymentBody)) {
        let mut body = self.body(BANK, 100);
        change(&mut body);
        self.send(body);
        let sums = self.sums();
        assert_eq!(sums.by_code.get(&(code as u8)), Some(&1), "{code:?}: {sums:?}");
        assert_eq!((sums.payments.rejected, sums.payments.accepted), (1, 0));
    }

    fn reply(&mut self, to: &PaymentBody, regarding: Regarding, outcome: ReplyOutcome, code: u8) {
        self.reply_of(to, to.responder.0, regarding, outcome, code);
    }

    fn reply_of(&mut self, to: &PaymentBody, sender: u16, regarding: Regarding, outcome: ReplyOutcome, code: u8) {
        let mut body = ReplyBody::zeroed();
        body.id = to.id;
        body.amount_minor = to.amount_minor;
        body.currency = to.currency;
        body.regarding = regarding as u8;
        body.outcome = outcome as u8;
        body.code = code;
        let mut event = ReplyEvent::zeroed();
        event.sender = sender;
        event.body = body;
        self.event(RecordKind::Reply, bytes_of(&event));
    }

    fn yes(&mut self, to: &PaymentBody) {
        self.reply(to, Regarding::Request, ReplyOutcome::Yes, 0);
    }

    fn no(&mut self, to: &PaymentBody, code: Code) {
        self.reply(to, Regarding::Request, ReplyOutcome::No, code as u8);
    }

    fn not_sent(&mut self, to: &PaymentBody, code: Code) {
        self.event(RecordKind::NotSent, bytes_of(&NotSentEvent::new(to.id, code)));
    }

    /// The sums so far, findings and all.
    fn sums(&self) -> Recomputed {
        self.auditor.clone().finish()
    }

    /// The sums so far; nothing may be wrong.
    fn clean(&self) -> Recomputed {
        let sums = self.sums();
        assert_eq!(sums.findings, Vec::<String>::new());
        assert!(sums.is_clean() && sums.is_zero_sum());
        sums
    }
}

#[test]
fn an_accepted_debit_reserves_cover_on_the_bank() {
    let mut script = Script::new();
    script.debit(BANK, 700);
    let sums = script.clean();
    assert_eq!((sums.payments.accepted, sums.payments.reserved), (1, 1));
    assert_eq!(sums.reserved, [0, 700, 0]);
    assert_eq!(sums.positions, [0, 0, 0]);
}

#[test]
fn a_yes_posts_the_debit_in_the_open_window_and_the_bank_owes() {
    let mut script = Script::new();
    let first = script.debit(BANK, 700);
    let second = script.debit(OTHER_BANK, 50);
    script.yes(&first);
    script.yes(&second);
    let sums = script.clean();
    assert_eq!(sums.payments.committed, 2);
    assert_eq!(sums.positions, [-750, 700, 50]);
    assert_eq!(sums.reserved, [0, 0, 0]);
    assert_eq!(sums.by_code, [(0, 2)].into());
    let window = &sums.windows[0];
    assert_eq!(window.id, WindowId::new(TODAY, 1));
    assert_eq!((window.committed, window.gross_minor), (2, 750));
    assert_eq!(window.nets, [(0, -750), (1, 700), (2, 50)].into());
}

#[test]
fn a_no_declines_with_the_banks_code_and_releases_the_cover() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.no(&payment, Code::CustomerFunds);
    let sums = script.clean();
    assert_eq!((sums.payments.declined, sums.payments.reserved), (1, 0));
    assert_eq!(sums.by_code, [(23, 1)].into());
    assert_eq!(sums.reserved, [0, 0, 0]);
}

#[test]
fn a_no_with_a_code_that_no_bank_may_use_is_code_27() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.reply(&payment, Regarding::Request, ReplyOutcome::No, 99);
    assert_eq!(script.clean().by_code, [(27, 1)].into());
}

#[test]
fn every_rule_refuses_with_its_own_code() {
    let limited = |terms: &mut ParticipantTerms| terms.payment_limit_minor = 90;
    let suspended = |bits: u8| move |terms: &mut ParticipantTerms| terms.suspended = bits;
    Script::new().refused(Code::UnknownParticipant, |b| b.responder = ParticipantIndex(9));
    Script::new().refused(Code::OnUs, |b| b.responder = ParticipantIndex(INSTITUTION));
    Script::with(suspended(1)).refused(Code::InitiatorSuspended, |_| {});
    Script::with(suspended(2)).refused(Code::ResponderSuspended, |_| {});
    Script::new().refused(Code::KindNotPermitted, |b| b.kind = Kind::Payout as u8);
    Script::new().refused(Code::KindNotPermitted, |b| b.kind = 77);
    Script::with(|t| t.permitted_kinds = 0).refused(Code::KindNotPermitted, |_| {});
    Script::with(|t| t.role = Role::Bank as u8).refused(Code::KindNotPermitted, |_| {});
    Script::new().refused(Code::CurrencyNotOpen, |b| b.currency = 840);
    Script::new().refused(Code::CurrencyNotOpen, |b| b.currency = 344);
    Script::new().refused(Code::CurrencyNotOpen, |b| b.currency = 0);
    Script::new().refused(Code::AmountInvalid, |b| b.amount_minor = 0);
    Script::new().refused(Code::OverSchemeMaximum, |b| b.amount_minor = 5_001);
    Script::with(limited).refused(Code::OverAgreedLimit, |_| {});
    Script::with(|t| t.accounts[0].cap_minor = 99).refused(Code::CoverExceeded, |_| {});
}

#[test]
fn the_first_rule_broken_gives_the_code() {
    Script::with(|t| t.suspended = 3).refused(Code::OnUs, |b| b.responder = ParticipantIndex(INSTITUTION));
    Script::with(|t| t.suspended = 3).refused(Code::InitiatorSuspended, |b| b.amount_minor = 0);
    Script::new().refused(Code::KindNotPermitted, |b| (b.kind, b.currency) = (9, 840));
    Script::new().refused(Code::CurrencyNotOpen, |b| (b.currency, b.amount_minor) = (840, 0));
}

#[test]
fn amounts_in_flight_count_against_the_cap_and_credits_raise_headroom() {
    let mut script = Script::with(|t| t.accounts[0].cap_minor = 1_000);
    let first = script.debit(BANK, 600);
    script.debit(BANK, 401);
    assert_eq!(script.clean().by_code, [(13, 1)].into());
    script.no(&first, Code::AccountClosed);
    let fits = script.debit(BANK, 1_000);
    script.yes(&fits);
    assert_eq!(script.clean().positions, [-1_000, 1_000, 0]);
    script.debit(BANK, 1);
    assert_eq!(script.clean().by_code, [(0, 1), (13, 2), (21, 1)].into());
}

#[test]
fn the_same_content_again_changes_nothing_and_other_content_is_refused() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    let mut again = payment;
    again.flags = 1;
    script.send(again);
    script.yes(&payment);
    script.send(again);
    again.amount_minor = 701;
    script.send(again);
    let sums = script.clean();
    assert_eq!(
        (sums.payments.accepted, sums.payments.committed, sums.duplicates),
        (1, 1, 1)
    );
    assert_eq!(sums.unremembered, [(9, 1), (16, 1)].into());
    assert_eq!(sums.positions, [-700, 700, 0]);
}

#[test]
fn a_rejection_sticks_to_its_id() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 0);
    script.send(payment);
    let sums = script.clean();
    assert_eq!((sums.payments.rejected, sums.duplicates), (1, 1));
}

#[test]
fn a_date_that_is_not_open_is_refused_and_not_remembered() {
    let mut script = Script::new();
    let mut payment = script.body(BANK, 700);
    payment.id = PaymentId::new(BusinessDate(20_261_121), ParticipantIndex(INSTITUTION), 0, 1);
    script.send(payment);
    script.send(payment);
    let sums = script.clean();
    assert_eq!(sums.unremembered, [(15, 2)].into());
    assert_eq!((sums.payments.accepted, sums.payments.rejected), (0, 0));
}

#[test]
fn past_t1_a_payment_is_in_doubt_and_keeps_its_reservation() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.after(5).tick();
    let sums = script.clean();
    assert_eq!((sums.payments.reserved, sums.payments.in_doubt), (0, 1));
    assert_eq!(sums.reserved, [0, 700, 0]);
    script.reply(&payment, Regarding::Status, ReplyOutcome::Yes, 0);
    assert_eq!(script.clean().positions, [-700, 700, 0]);
}

#[test]
fn past_t2_a_pull_expires_with_code_30_and_a_late_yes_changes_nothing() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    // The deadline itself is past: the timer fires before the event of the same time.
    script.after(60).yes(&payment);
    let sums = script.clean();
    assert_eq!((sums.payments.expired, sums.late_replies, sums.conflicts), (1, 1, 0));
    assert_eq!(sums.by_code, [(30, 1)].into());
    assert_eq!((sums.positions, sums.reserved), (vec![0; 3], vec![0; 3]));
}

#[test]
fn late_words_that_contradict_are_conflicts() {
    let mut script = Script::new();
    let (kept, refused) = (script.debit(BANK, 700), script.debit(BANK, 1));
    script.yes(&kept);
    script.no(&refused, Code::BankDeclined);
    script.no(&kept, Code::BankDeclined);
    script.yes(&refused);
    script.yes(&kept);
    let sums = script.clean();
    assert_eq!((sums.late_replies, sums.conflicts), (3, 2));
    assert_eq!((sums.payments.committed, sums.payments.declined), (1, 1));
}

#[test]
fn never_seen_declines_with_code_31() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script
        .after(5)
        .reply(&payment, Regarding::Status, ReplyOutcome::NeverSeen, 0);
    assert_eq!(script.clean().by_code, [(31, 1)].into());
    assert_eq!(script.clean().payments.declined, 1);
}

#[test]
fn a_reply_counts_only_from_the_responder_with_amount_and_currency() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.reply_of(&payment, OTHER_BANK, Regarding::Request, ReplyOutcome::Yes, 0);
    let mut other = payment;
    other.amount_minor = 699;
    script.yes(&other);
    other = payment;
    other.currency = 344;
    script.yes(&other);
    other = payment;
    other.id.low = 99;
    script.yes(&other);
    let sums = script.clean();
    assert_eq!((sums.unentitled_replies, sums.payments.reserved), (4, 1));
}

#[test]
fn what_was_not_sent_expires_with_its_code() {
    let mut script = Script::new();
    let (shed, down) = (script.debit(BANK, 700), script.debit(BANK, 1));
    script.not_sent(&shed, Code::OverLinkCapacity);
    script.after(5).not_sent(&down, Code::LinkDown);
    script.not_sent(&down, Code::LinkDown);
    let sums = script.clean();
    assert_eq!(sums.by_code, [(31, 1), (32, 1)].into());
    assert_eq!((sums.payments.expired, sums.reserved), (2, vec![0; 3]));
}

#[test]
fn a_restart_puts_the_open_in_doubt_and_expires_nothing_before_it_was_asked_for() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.after(600).event(RecordKind::Restart, &[]);
    let sums = script.clean();
    assert_eq!((sums.payments.in_doubt, sums.payments.expired), (1, 0));
    script.after(54).tick();
    assert_eq!(script.clean().payments.in_doubt, 1, "T2 − T1 = 55 s from the restart");
    script.after(1).yes(&payment);
    assert_eq!(script.clean().payments.expired, 1);
}

#[test]
fn a_restart_moves_no_deadline_closer() {
    let mut script = Script::new();
    script.debit(BANK, 700);
    script.after(1).event(RecordKind::Restart, &[]);
    script.after(58).tick();
    assert_eq!(script.clean().payments.in_doubt, 1);
    script.after(1).tick();
    assert_eq!(script.clean().payments.expired, 1);
}

#[test]
fn closing_a_window_opens_the_next_and_a_payment_is_in_the_one_open_when_it_commits() {
    let mut script = Script::new();
    let payment = script.debit(BANK, 700);
    script.window(WindowAction::Close, WindowId::NONE);
    script.yes(&payment);
    let sums = script.clean();
    assert_eq!(sums.windows.len(), 2);
    assert_eq!(
        (sums.windows[0].state, sums.windows[0].committed),
        (WindowState::Closed, 0)
    );
    assert_eq!(
        (sums.windows[1].state, sums.windows[1].committed),
        (WindowState::Open, 1)
    );
    assert_eq!(sums.windows[1].id, WindowId::new(TODAY, 2));
}

#[test]
fn a_windows_number_begins_again_with_the_business_date() {
    let mut script = Script::new();
    script.after(5 * 3_600).window(WindowAction::Close, WindowId::NONE);
    assert_eq!(script.clean().windows[1].id, WindowId::new(BusinessDate(20_261_124), 1));
}

#[test]
fn settlement_takes_the_net_from_position_cover_and_cap_and_headroom_stays() {
    let mut script = Script::new();
    let window = WindowId::new(TODAY, 1);
    let mut committed = 0;
    while committed < CAP {
        let payment = script.debit(BANK, 5_000);
        script.yes(&payment);
        committed += 5_000;
    }
    script.debit(BANK, 1);
    assert_eq!(script.clean().by_code[&13], 1);
    script.window(WindowAction::Settled, window);
    assert_eq!(
        script.clean().windows[0].state,
        WindowState::Open,
        "an open window can't settle"
    );
    script.window(WindowAction::Close, WindowId::NONE);
    script.window(WindowAction::BeginSettlement, window);
    script.window(WindowAction::Aborted, window);
    assert_eq!(script.clean().positions[1], 10_000, "an aborted window still counts");
    script.window(WindowAction::BeginSettlement, window);
    script.window(WindowAction::Settled, window);
    let sums = script.clean();
    assert_eq!(sums.positions, [0, 0, 0]);
    assert_eq!(sums.windows[0].nets, [(0, -10_000), (1, 10_000)].into());
    script.debit(BANK, 1);
    assert_eq!(script.clean().by_code[&13], 2, "settlement never changes headroom");
}

#[test]
fn records_that_are_no_events_are_passed_over() {
    let mut script = Script::new();
    script.auditor.apply(RecordKind::Group, 999, NOON, &[0; 32]);
    script.auditor.apply(RecordKind::Pad, 999, NOON, &[]);
    assert_eq!(script.clean().events, script.number);
}

/// The finding that a fault in the journal itself leads to.
fn finding_after(fault: impl FnOnce(&mut Script)) -> String {
    let mut script = Script::new();
    script.debit(BANK, 700);
    fault(&mut script);
    script.sums().findings.join("\n")
}

#[test]
fn a_journal_that_cannot_be_is_a_finding() {
    let missing = finding_after(|s| s.number += 1);
    assert_eq!(missing, "", "a gap shows with the next event");
    assert!(
        finding_after(|s| {
            s.number += 1;
            s.tick();
        })
        .contains("event 8 follows event 6")
    );
    assert!(
        finding_after(|s| {
            s.time.0 -= 1;
            s.tick();
        })
        .contains("is before")
    );
    let second = |s: &mut Script| s.event(RecordKind::Genesis, bytes_of(&SchemeTerms::zeroed()));
    assert!(finding_after(second).contains("a second Genesis"));
    let short = |s: &mut Script| s.event(RecordKind::Request, &[0; 64]);
    assert!(finding_after(short).contains("64 bytes where 128 belong"));
    let unknown = |s: &mut Script| {
        s.event(
            RecordKind::NotSent,
            bytes_of(&NotSentEvent::new(PaymentId::default(), Code::LinkDown)),
        )
    };
    assert!(finding_after(unknown).contains("unknown payment"));
    let stranger = |s: &mut Script| {
        let mut body = s.body(BANK, 1);
        body.id = PaymentId::new(TODAY, ParticipantIndex(400), 0, 1);
        s.send(body);
    };
    assert!(finding_after(stranger).contains("not in the directory"));
    assert!(Auditor::new().finish().findings[0].contains("no Genesis"));
    let mut headless = Auditor::new();
    headless.apply(RecordKind::Tick, 1, NOON, &[]);
    assert!(headless.finish().findings[0].contains("Tick before Genesis"));
    let reversed = Script::with(|terms| terms.wait_ns = terms.doubt_ns);
    assert!(reversed.sums().findings[0].contains("which must rise"));
}

#[test]
fn every_difference_from_the_switchs_own_statement_is_named() {
    let mut script = Script::new();
    let (first, _) = (script.debit(BANK, 700), script.debit(OTHER_BANK, 30));
    script.yes(&first);
    let ours = script.clean();
    let truth = Statement {
        events: ours.events,
        payments: ours.payments,
        positions: ours.positions.clone(),
        reserved: ours.reserved.clone(),
        windows: ours.windows.clone(),
    };
    assert_eq!(ours.differences(&truth), Vec::<String>::new());
    let lie = |change: fn(&mut Statement)| {
        let mut statement = truth.clone();
        change(&mut statement);
        ours.differences(&statement).join("\n")
    };
    assert!(lie(|s| s.events += 1).contains("events:"));
    assert!(lie(|s| s.payments.committed += 1).contains("payments by state"));
    assert!(lie(|s| s.positions[1] += 1).contains("position of participant 1: 700 in the journal, 701"));
    assert!(lie(|s| s.reserved[2] = 0).contains("reserved sum of participant 2"));
    assert!(lie(|s| s.windows.clear()).contains("the switch does not know it"));
    assert!(lie(|s| s.windows[0].gross_minor += 1).contains("gross 701"));
    assert!(lie(|s| s.windows[0].state = WindowState::Closed).contains("closed"));
    assert!(lie(|s| *s.windows[0].nets.get_mut(&1).unwrap() = 9).contains("participant 1 is 700 in the journal, 9"));
    assert!(lie(|s| s.windows[0].nets.extend([(2, 5)])).contains("participant 2 is 0 in the journal, 5"));
    assert_eq!(
        lie(|s| s.windows[0].nets.extend([(2, 0)])),
        "",
        "a net of zero says nothing"
    );
}
