//! The switch as its participants see it: over real sockets, with real durable writes, on both backends.

mod support;

use std::time::Duration;

use clearway::config::BackendChoice;
use clearway::domain::{BindStep, Code, Kind, PaymentId, PaymentState, SchemeTerms};
use clearway::switch::StartOptions;
use clearway::wire::{
    Answer, AnswerFlags, FinalNotice, Frame, Inquiry, InquiryAnswer, PaymentRequest, ReplyOutcome, RequestFlags,
    Template, Terminate, TerminateCode,
};
use support::*;

#[test]
fn a_debit_goes_to_the_bank_byte_for_byte_and_its_yes_commits_it() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let sent = debit(0, 2, 1, 1_234);
        institution.send(&sent);
        let request: PaymentRequest = bank.expect();
        assert_eq!(bytemuck::bytes_of(&request), bytemuck::bytes_of(&sent), "{backend}");
        bank.send(&yes(&request));
        let answer: Answer = institution.expect();
        assert_eq!(code(&answer), Code::Committed);
        assert_eq!((answer.id, answer.amount_minor, answer.word), (sent.body.id, 1_234, 1));
        assert_eq!(answer.state, PaymentState::Committed as u8);
        assert!(answer.window.0 > 0 && answer.final_ns > 0);
        let view = switch.ledger().expect("clearing answers");
        assert_eq!(
            view.snapshot.participants[0].position, -1_234,
            "the institution is owed"
        );
        assert_eq!(view.snapshot.participants[2].position, 1_234, "the bank owes");
        switch.shutdown().unwrap();
    }
}

#[test]
fn refusals_duplicates_and_inquiries_are_answered_as_the_rules_say() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let answer = pay(&mut institution, &mut bank, 1, 500);

        // The same content again: the stored answer, every field as it was but for the flag and its number.
        let mut again = debit(0, 2, 1, 500);
        again.body.flags = RequestFlags::POSSIBLE_RESEND;
        institution.send(&again);
        let stored: Answer = institution.expect();
        assert_eq!((stored.word, stored.flags), (2, AnswerFlags::DUPLICATE));
        let mut expected = answer;
        (expected.word, expected.flags) = (stored.word, stored.flags);
        assert_eq!(bytemuck::bytes_of(&stored), bytemuck::bytes_of(&expected.sealed()));

        // Other content under the same id: 16, and the original untouched.
        institution.send(&debit(0, 2, 1, 501));
        assert_eq!(code(&institution.expect()), Code::IdReused);

        // In flight: 09, and no second forward.
        institution.send(&debit(0, 2, 2, 700));
        let request: PaymentRequest = bank.expect();
        institution.send(&debit(0, 2, 2, 700));
        let in_progress: Answer = institution.expect();
        assert_eq!((code(&in_progress), in_progress.word), (Code::InProgress, 0));
        bank.send(&reply(&request, ReplyOutcome::No, Code::CustomerFunds as u8));
        let declined: Answer = institution.expect();
        assert_eq!((code(&declined), declined.window.0), (Code::CustomerFunds, 0));

        // On-us, unknown responder, amount zero: rejected, and the rejection sticks.
        for (serial, responder, amount, expected) in [
            (3, 0, 100, Code::OnUs),
            (4, 999, 100, Code::UnknownParticipant),
            (5, 2, 0, Code::AmountInvalid),
        ] {
            institution.send(&debit(0, responder, serial, amount));
            let rejected: Answer = institution.expect();
            assert_eq!(
                (code(&rejected), rejected.state),
                (expected, PaymentState::Rejected as u8)
            );
            institution.send(&debit(0, responder, serial, amount));
            let sticks: Answer = institution.expect();
            assert_eq!((code(&sticks), sticks.flags), (expected, AnswerFlags::DUPLICATE));
        }

        // Another's id is refused at the door and not remembered.
        institution.send(&debit(1, 2, 9, 100));
        let refused: Answer = institution.expect();
        assert_eq!((code(&refused), refused.word), (Code::NotSignedOn, 0));

        // Either party may ask; a third is told that it is unknown.
        let mut other = Participant::connect(switch.listen(), &directory, 1, 0);
        for (asker, expected) in [
            (&mut institution, Code::Committed),
            (&mut bank, Code::Committed),
            (&mut other, Code::OriginalNotFound),
        ] {
            asker.send(&Inquiry {
                id: answer.id,
                reference: 42,
                ..bytemuck::Zeroable::zeroed()
            });
            let known: InquiryAnswer = asker.expect();
            assert_eq!((Code::from_u8(known.code), known.reference), (Some(expected), 42));
        }
        bank.expect_silence(Duration::from_millis(100));
        switch.shutdown().unwrap();
    }
}

#[test]
fn code_33_an_inquiry_over_its_budget_and_payments_do_not_notice() {
    for backend in BACKENDS {
        let data = tempfile::tempdir().unwrap();
        let mut directory = directory(2, 2);
        directory.participants[0].terms.contract.inquiries_per_second_max = 5;
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let paid = pay(&mut institution, &mut bank, 1, 100);
        // A budget lets at most a second's worth through at once, and what time gives back while they come.
        let asked_at = std::time::Instant::now();
        for reference in 0..40 {
            institution.send(&Inquiry {
                id: paid.id,
                reference,
                ..bytemuck::Zeroable::zeroed()
            });
        }
        let mut answers = Vec::new();
        for _ in 0..40 {
            let answer: InquiryAnswer = institution.expect();
            answers.push((Code::from_u8(answer.code), answer.state, answer.reference));
        }
        let taken = answers.iter().filter(|a| a.0 == Some(Code::Committed)).count();
        let refused = answers.iter().filter(|a| a.0 == Some(Code::AskedTooOften)).count();
        assert_eq!(taken + refused, 40, "{answers:?}");
        let most = 5 + 5 * (asked_at.elapsed().as_secs() as usize + 1);
        assert!(
            (1..=most).contains(&taken),
            "{taken} of 40 within a budget of 5 a second"
        );
        assert!(refused > 0 || most >= 40, "{answers:?}");
        // A payment's place is its own.
        pay(&mut institution, &mut bank, 2, 100);
        switch.shutdown().unwrap();
    }
}

#[test]
fn nothing_leaves_the_switch_that_rests_on_a_write_that_is_not_durable() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let (hold, options) = held_options();
        let switch = start_switch(data.path(), &directory, backend, options);
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        pay(&mut institution, &mut bank, 1, 100);

        // A request and a rejection: neither the bank nor the institution hears of them.
        hold.set(true);
        institution.send(&debit(0, 2, 2, 100));
        institution.send(&debit(0, 0, 3, 100));
        bank.expect_silence(Duration::from_millis(300));
        institution.expect_silence(Duration::from_millis(300));
        hold.set(false);
        let request: PaymentRequest = bank.expect();
        assert_eq!(code(&institution.expect()), Code::OnUs);

        // The bank's yes: no answer, and an inquiry still sees the state before it.
        hold.set(true);
        bank.send(&yes(&request));
        institution.expect_silence(Duration::from_millis(300));
        institution.send(&Inquiry {
            id: request.body.id,
            ..bytemuck::Zeroable::zeroed()
        });
        let inquiry: InquiryAnswer = institution.expect();
        assert_eq!(inquiry.state, PaymentState::Reserved as u8);
        hold.set(false);
        assert_eq!(code(&institution.expect()), Code::Committed);
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_restart_gives_words_again_and_the_same_state() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let answers: Vec<Answer> = (1..=20)
            .map(|serial| pay(&mut institution, &mut bank, serial, 100))
            .collect();
        institution.send(&debit(0, 2, 21, 100));
        let open: PaymentRequest = bank.expect();
        let report = switch.shutdown().unwrap();

        let replayed = clearway::switch::replay(&data.path().join("journal"), None, |_| {}).unwrap();
        assert_eq!(report["event_number"], replayed.event_number);
        assert_eq!(report["state_hash"], replayed.hash.to_string());

        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 15);
        assert_eq!(institution.next_word, 21);
        for expected in &answers[15..] {
            let told: Answer = institution.expect();
            assert_eq!(
                (told.word, told.id, told.code),
                (expected.word, expected.id, expected.code)
            );
            assert_eq!(told.flags, AnswerFlags::RETRANSMITTED);
        }
        // What was open at the end is in doubt: the bank is asked about it, and not sent it again.
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let (template, _) = bank.next(PATIENCE).expect("the bank is asked");
        assert_eq!(template, Template::StatusRequest);
        let mut known = yes(&open);
        known.body.regarding = clearway::wire::Regarding::Status as u8;
        bank.send(&known);
        let answer: Answer = institution.expect();
        assert_eq!((answer.id, code(&answer)), (open.body.id, Code::Committed));
        switch.shutdown().unwrap();
    }
}

#[test]
fn what_is_no_frame_costs_its_sender_the_link_and_nobody_else_anything() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let mut offender = Participant::connect(switch.listen(), &directory, 1, 0);
        let mut bytes = bytemuck::bytes_of(&debit(1, 2, 1, 100)).to_vec();
        bytes[40] ^= 1;
        std::io::Write::write_all(&mut offender.stream, &bytes).unwrap();
        let (template, last) = offender.expect_end().expect("the offender is told why");
        assert_eq!(template, Template::Terminate);
        assert_eq!(Terminate::read(&last).code, TerminateCode::BadCrc as u8);

        let mut stranger = Participant::open(switch.listen());
        std::io::Write::write_all(&mut stranger.stream, b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let (_, last) = stranger.expect_end().expect("the stranger is told why");
        assert_eq!(Terminate::read(&last).code, TerminateCode::BadHeader as u8);

        assert_eq!(code(&pay(&mut institution, &mut bank, 1, 100)), Code::Committed);
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_thread_for_every_stage_does_what_one_thread_does() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(4, 4));
        let switch = start_with_profile(
            data.path(),
            &directory,
            backend,
            spread_profile(),
            StartOptions::default(),
        );
        let mut institutions: Vec<_> = (0..4)
            .map(|index| Participant::connect(switch.listen(), &directory, index, 0))
            .collect();
        let mut banks: Vec<_> = (4..8)
            .map(|index| Participant::connect(switch.listen(), &directory, index, 0))
            .collect();
        for round in 0..50 {
            for (institution, bank) in institutions.iter_mut().zip(&mut banks) {
                for serial in round * 20..round * 20 + 20 {
                    institution.send(&debit(institution.index.0, bank.index.0, serial + 1, 100 + serial));
                }
            }
            for (institution, bank) in institutions.iter_mut().zip(&mut banks) {
                for _ in 0..20 {
                    let request: PaymentRequest = bank.expect();
                    bank.send(&yes(&request));
                }
                for _ in 0..20 {
                    assert_eq!(code(&institution.expect()), Code::Committed);
                }
            }
        }
        let report = switch.shutdown().unwrap();
        assert_eq!(report["status"]["payments"]["committed"], 4_000);
        let replayed = clearway::switch::replay(&data.path().join("journal"), None, |_| {}).unwrap();
        assert_eq!(report["state_hash"], replayed.hash.to_string());
    }
}

#[test]
fn a_payout_owes_on_the_institution_and_its_bank_is_told_and_told_again() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let mut payout = debit(0, 2, 1, 900);
        (payout.body.kind, payout.body.mandate_token) = (Kind::Payout as u8, [0; 2]);
        institution.send(&payout);
        let request: PaymentRequest = bank.expect();
        bank.send(&yes(&request));
        let answer: Answer = institution.expect();
        assert_eq!(code(&answer), Code::Committed);
        let notice: FinalNotice = bank.expect();
        assert_eq!((notice.id, notice.word, notice.flags), (payout.body.id, 1, 0));
        assert_eq!((notice.code, notice.state), (0, PaymentState::Committed as u8));
        assert_eq!((notice.window, notice.final_ns), (answer.window, answer.final_ns));
        assert_eq!((notice.amount_minor, notice.initiator), (900, institution.index));
        let view = switch.ledger().expect("clearing answers");
        assert_eq!(view.snapshot.participants[0].position, 900, "the institution owes");
        assert_eq!(view.snapshot.participants[2].position, -900, "the bank is owed");

        // A bank that comes back and has no word yet is told it again.
        drop(bank);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        assert_eq!(bank.next_word, 2, "the notice counts among its words");
        let again: FinalNotice = bank.expect();
        let mut expected = notice;
        expected.flags = AnswerFlags::RETRANSMITTED;
        assert_eq!(bytemuck::bytes_of(&again), bytemuck::bytes_of(&expected.sealed()));
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_refund_gives_back_what_the_debit_took_and_no_more() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let original = pay(&mut institution, &mut bank, 1, 500).id;
        let refund = |serial, amount_minor, original| {
            let mut refund = debit(0, 2, serial, amount_minor);
            (refund.body.kind, refund.body.mandate_token) = (Kind::Refund as u8, [0; 2]);
            refund.body.original = original;
            refund.sealed()
        };
        institution.send(&refund(2, 500, original));
        let request: PaymentRequest = bank.expect();
        assert_eq!(request.body.original, original);
        bank.send(&yes(&request));
        assert_eq!(code(&institution.expect()), Code::Committed);
        let notice: FinalNotice = bank.expect();
        assert_eq!(notice.kind, Kind::Refund as u8);
        let unknown = debit(0, 2, 99, 1).body.id;
        for (serial, original, expected) in [
            (3, original, Code::RefundExceedsOriginal),
            (4, unknown, Code::OriginalNotFound),
            (5, PaymentId::default(), Code::Format),
        ] {
            institution.send(&refund(serial, 1, original));
            assert_eq!(code(&institution.expect()), expected, "{backend}");
        }
        let view = switch.ledger().expect("clearing answers");
        assert!(view.snapshot.participants.iter().all(|p| p.position == 0));
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_mandates_token_comes_from_the_bank_to_the_institution_and_stays_over_a_restart() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        let mut bind = debit(0, 2, 1, 0);
        (bind.body.kind, bind.body.step) = (Kind::Bind as u8, BindStep::Sign as u8);
        bind.body.mandate_token = [0; 2];
        institution.send(&bind);
        let request: PaymentRequest = bank.expect();
        let mut signed = yes(&request);
        signed.body.token = [7, 8];
        bank.send(&signed);
        let answer: Answer = institution.expect();
        assert_eq!((code(&answer), answer.mandate_token), (Code::Committed, [7, 8]));
        assert!(answer.window.0 > 0, "it is in a window, and moves nothing there");
        switch.shutdown().unwrap();

        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 1);
        institution.send(&bind);
        let stored: Answer = institution.expect();
        assert_eq!((stored.flags, stored.mandate_token), (AnswerFlags::DUPLICATE, [7, 8]));
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_journal_of_another_version_of_the_rules_is_refused_with_what_to_do() {
    let (data, mut directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    directory.scheme.rules_version = 1;
    let switch = start_switch(data.path(), &directory, BackendChoice::Auto, StartOptions::default());
    eventually("its first events are applied", || switch.status()["ready"] == true);
    switch.shutdown().unwrap();
    // The orderly stop left a snapshot: a start refuses with it and, as after a crash, without it.
    assert!(std::fs::read_dir(data.path().join("snapshots")).unwrap().count() > 0);
    directory.scheme.rules_version = SchemeTerms::RULES_VERSION;
    let current = format!("applies version {}", SchemeTerms::RULES_VERSION);
    let again = || {
        let settings = settings(data.path(), BackendChoice::Auto);
        clearway::switch::start(settings, directory.clone(), profile(), StartOptions::default())
    };
    for _ in 0..2 {
        let told = again().expect_err("the rules are other").to_string();
        for part in ["version 1", &current, "new data directory", "journal"] {
            assert!(told.contains(part), "{part} is missing in {told:?}");
        }
        let _gone_already = std::fs::remove_dir_all(data.path().join("snapshots"));
    }
}
