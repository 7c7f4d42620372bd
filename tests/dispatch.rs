//! Dispatch as banks see it: contracts, waiting, lost links, and what becomes of what was on them.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clearway::domain::{Code, PaymentState};
use clearway::switch::StartOptions;
use clearway::wire::{
    Answer, AnswerFlags, Credit, Inquiry, InquiryAnswer, PaymentRequest, Regarding, ReplyOutcome, RetransmitRequest,
    Reversal, StatusRequest, Terminate,
};
use support::*;

const INSTITUTION: u16 = 0;
const BANK: u16 = 2;

#[test]
fn requests_go_to_the_least_loaded_link_and_never_over_its_contract() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let mut small = Participant::connect_as(switch.listen(), &directory, BANK, &taking(2));
        let mut large = Participant::connect_as(switch.listen(), &directory, BANK, &taking(6));
        for serial in 1..=12 {
            institution.send(&debit(INSTITUTION, BANK, serial, 100));
        }
        let mut on_small: Vec<PaymentRequest> = (0..2).map(|_| small.expect()).collect();
        let on_large: Vec<PaymentRequest> = (0..6).map(|_| large.expect()).collect();
        small.expect_silence(Duration::from_millis(100));
        large.expect_silence(Duration::from_millis(20));

        // A place that is free again is taken, on the link where it is, whichever link brought the reply.
        large.send(&yes(&on_small.remove(0)));
        assert_eq!(code(&institution.expect()), Code::Committed);
        let next: PaymentRequest = small.expect();
        large.expect_silence(Duration::from_millis(50));

        // A contract that is raised is used at once; nothing more than is there goes out.
        small.send(&Credit {
            in_flight: 4,
            ..bytemuck::Zeroable::zeroed()
        });
        let mut raised: Vec<PaymentRequest> = (0..2).map(|_| small.expect()).collect();
        small.expect_silence(Duration::from_millis(50));
        for request in on_small.iter().chain([&next]).chain(&raised).chain(&on_large) {
            small.send(&yes(request));
        }
        for _ in 0..11 - 1 {
            assert_eq!(code(&institution.expect()), Code::Committed);
        }
        raised.clear();
        let last: PaymentRequest = match small.next(Duration::from_millis(200)) {
            Some((_, frame)) => bytemuck::pod_read_unaligned(&frame),
            None => large.expect(),
        };
        small.send(&yes(&last));
        assert_eq!(code(&institution.expect()), Code::Committed);
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_request_waits_for_a_link_as_long_as_tq_and_is_then_told_as_not_sent() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), timed(200, 1_000, 2_000));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let sent = Instant::now();
        institution.send(&debit(INSTITUTION, BANK, 1, 100));
        let answer: Answer = institution.expect();
        let took = sent.elapsed();
        assert_eq!(
            (code(&answer), answer.state),
            (Code::LinkDown, PaymentState::Expired as u8)
        );
        assert!(
            took >= Duration::from_millis(190) && took < Duration::from_millis(900),
            "Tq is 200 ms, the answer took {took:?}"
        );

        // One that comes while the request waits is used.
        institution.send(&debit(INSTITUTION, BANK, 2, 100));
        let mut bank = Participant::connect_as(switch.listen(), &directory, BANK, &taking(1));
        let request: PaymentRequest = bank.expect();

        // A link that is there and takes no more: over its capacity, and only what was not sent.
        institution.send(&debit(INSTITUTION, BANK, 3, 100));
        let shed: Answer = institution.expect();
        assert_eq!((code(&shed), shed.id.serial()), (Code::OverLinkCapacity, 3));
        bank.send(&yes(&request));
        let answer: Answer = institution.expect();
        assert_eq!((code(&answer), answer.id.serial()), (Code::Committed, 2));
        bank.expect_silence(Duration::from_millis(50));
        assert_eq!(switch.status()["reserved_minor"], 0);
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_payment_whose_link_died_is_in_doubt_after_t1_and_committed_by_the_status_reply() {
    for backend in BACKENDS {
        for profile in [profile(), spread_profile()] {
            let (data, directory) = (tempfile::tempdir().unwrap(), timed(100, 300, 5_000));
            let options = StartOptions::default();
            let switch = start_with_profile(data.path(), &directory, backend, profile, options);
            let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
            let mut bank = Participant::connect(switch.listen(), &directory, BANK, u64::MAX);
            institution.send(&debit(INSTITUTION, BANK, 1, 700));
            let request: PaymentRequest = bank.expect();
            drop(bank);
            eventually("the payment is in doubt", || {
                switch.ledger().is_some_and(|view| view.figures.in_doubt == 1)
            });
            assert_eq!(switch.status()["reserved_minor"], 700, "its reservation is kept");

            let mut bank = Participant::connect(switch.listen(), &directory, BANK, u64::MAX);
            let asked: StatusRequest = bank.expect();
            assert_eq!((asked.id, asked.amount_minor), (request.body.id, 700));
            bank.send(&regarding(yes(&request), Regarding::Status));
            let answer: Answer = institution.expect();
            assert_eq!((code(&answer), answer.word), (Code::Committed, 1));
            bank.expect_silence(Duration::from_millis(50));
            switch.shutdown().unwrap();
        }
    }
}

#[test]
fn a_pull_nobody_answers_expires_at_t2_and_is_reversed_until_the_bank_acknowledges() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), timed(100, 200, 600));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, BANK, 0);
        institution.send(&debit(INSTITUTION, BANK, 1, 700));
        let request: PaymentRequest = bank.expect();
        let asked: StatusRequest = bank.expect();
        assert_eq!(asked.id, request.body.id);
        let answer: Answer = institution.expect();
        assert_eq!(
            (code(&answer), answer.state),
            (Code::BankTimeout, PaymentState::Expired as u8)
        );
        let reversal: Reversal = bank.expect();
        assert_eq!((reversal.id, reversal.word), (request.body.id, 1));

        // Not acknowledged: it comes again, under its number, and also on a new link that has not got it.
        let again: Reversal = bank.expect();
        assert_eq!((again.word, again.attempt), (1, 2));
        drop(bank);
        let mut bank = Participant::connect(switch.listen(), &directory, BANK, 0);
        let told: Reversal = bank.expect();
        assert_eq!((told.id, told.word), (request.body.id, 1));
        bank.send(&regarding(
            reply(&request, ReplyOutcome::Acknowledged, 0),
            Regarding::Reversal,
        ));
        eventually("the Reversal is acknowledged", || {
            switch.status()["reversals"]["due"] == 0
        });
        institution.expect_silence(Duration::from_millis(20));
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_bank_that_never_saw_a_request_lets_it_go() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), timed(100, 200, 5_000));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, BANK, 0);
        institution.send(&debit(INSTITUTION, BANK, 1, 700));
        let request: PaymentRequest = bank.expect();
        let _: StatusRequest = bank.expect();
        bank.send(&regarding(
            reply(&request, ReplyOutcome::NeverSeen, 0),
            Regarding::Status,
        ));
        let answer: Answer = institution.expect();
        assert_eq!(
            (code(&answer), answer.state),
            (Code::LinkDown, PaymentState::Declined as u8)
        );
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_word_lost_with_its_link_is_told_again_on_the_next_one() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, BANK, 0);
        for serial in 1..=100 {
            institution.send(&debit(INSTITUTION, BANK, serial, 100));
        }
        let requests: Vec<PaymentRequest> = (0..100).map(|_| bank.expect()).collect();
        drop(institution);
        for request in &requests {
            bank.send(&yes(request));
        }
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let mut words = BTreeSet::new();
        while words.len() < 100 {
            let answer: Answer = institution.expect();
            assert_eq!(code(&answer), Code::Committed);
            words.insert(answer.word);
        }
        assert_eq!(words.first(), Some(&1));
        assert_eq!(words.last(), Some(&100));

        // Asked for in a loop, words come again, and nobody else waits for them.
        for _ in 0..200 {
            institution.send(&RetransmitRequest {
                from_word: 1,
                count: u32::MAX,
                ..bytemuck::Zeroable::zeroed()
            });
        }
        let mut other = Participant::connect(switch.listen(), &directory, 1, 0);
        assert_eq!(code(&pay(&mut other, &mut bank, 1, 5)), Code::Committed);
        for _ in 0..100 {
            let told: Answer = institution.expect();
            assert_eq!(told.flags, AnswerFlags::RETRANSMITTED);
        }
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_yes_in_the_same_segment_as_a_terminate_counts() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, BANK, 0);
        institution.send(&debit(INSTITUTION, BANK, 1, 100));
        let request: PaymentRequest = bank.expect();
        let mut segment = bytemuck::bytes_of(&yes(&request)).to_vec();
        let terminate = clearway::wire::Frame::sealed(Terminate {
            session_id: 77,
            ..bytemuck::Zeroable::zeroed()
        });
        segment.extend_from_slice(bytemuck::bytes_of(&terminate));
        bank.send_bytes(&segment);
        assert_eq!(code(&institution.expect()), Code::Committed);
        switch.shutdown().unwrap();
    }
}

#[test]
fn requests_that_wait_when_their_only_link_dies_go_by_the_next() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), timed(3_000, 4_000, 8_000));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let mut bank = Participant::connect_as(switch.listen(), &directory, BANK, &taking(1));
        for serial in 1..=3 {
            institution.send(&debit(INSTITUTION, BANK, serial, 100));
        }
        let first: PaymentRequest = bank.expect();
        drop(bank);
        let mut bank = Participant::connect_as(switch.listen(), &directory, BANK, &taking(8));
        let others: Vec<PaymentRequest> = (0..2).map(|_| bank.expect()).collect();
        let mut serials: Vec<u64> = others.iter().map(|request| request.body.id.serial()).collect();
        serials.sort_unstable();
        assert_eq!(serials, [2, 3], "what was sent is never sent again");
        for request in others.iter().chain([&first]) {
            bank.send(&yes(request));
        }
        for _ in 0..3 {
            assert_eq!(code(&institution.expect()), Code::Committed);
        }
        institution.send(&Inquiry {
            id: first.body.id,
            ..bytemuck::Zeroable::zeroed()
        });
        let known: InquiryAnswer = institution.expect();
        assert_eq!(known.state, PaymentState::Committed as u8);
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_banks_rate_holds_over_all_its_links_and_a_new_link_brings_no_new_budget() {
    const PER_SECOND: u32 = 20;
    for backend in BACKENDS {
        let (data, mut directory) = (tempfile::tempdir().unwrap(), timed(20_000, 30_000, 60_000));
        directory.participants[usize::from(BANK)]
            .terms
            .contract
            .request_per_second_max = PER_SECOND;
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let connect = || Participant::connect_as(switch.listen(), &directory, BANK, &taking(1_000));
        let mut links = vec![connect(), connect()];
        let begun = Instant::now();
        for serial in 1..=2 * u64::from(PER_SECOND) {
            institution.send(&debit(INSTITUTION, BANK, serial, 100));
        }
        let mut came = 0;
        while came < 2 * PER_SECOND {
            for link in &mut links {
                while link.next(Duration::from_millis(1)).is_some() {
                    came += 1;
                }
            }
            // One at once, and then one each twentieth of a second: no second sees more than the rate.
            let granted = 1.0 + f64::from(PER_SECOND) * begun.elapsed().as_secs_f64();
            assert!(f64::from(came) <= granted, "{came} came in {:?}", begun.elapsed());
            if came >= PER_SECOND && links.len() < 4 {
                links.push(connect());
            }
        }
        switch.shutdown().unwrap();
    }
}
