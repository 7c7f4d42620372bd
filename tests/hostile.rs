//! Peers that break the rules, or do nothing at all: it costs them their link, and nobody else anything.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use clearway::domain::Code;
use clearway::switch::{RunningSwitch, StartOptions};
use clearway::wire::{Answer, PaymentRequest, ReplyOutcome, TerminateCode, decode};
use support::*;

/// Institutions 0 and 1, banks 2 and 3; 0 and 2 behave.
struct Scene {
    switch: RunningSwitch,
    directory: clearway::config::Directory,
    institution: Participant,
    bank: Participant,
    serial: u64,
    _data: tempfile::TempDir,
}

impl Scene {
    fn new(backend: clearway::config::BackendChoice) -> Self {
        Self::with(backend, |_, _, _| {})
    }

    fn with(
        backend: clearway::config::BackendChoice,
        change: impl FnOnce(
            &mut clearway::config::Settings,
            &mut clearway::config::Directory,
            &mut clearway::config::Profile,
        ),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (mut settings, mut directory, mut profile) = (settings(data.path(), backend), directory(2, 2), profile());
        change(&mut settings, &mut directory, &mut profile);
        let switch = start_with_settings(settings, &directory, profile, StartOptions::default());
        Self {
            institution: Participant::connect(switch.listen(), &directory, 0, 0),
            bank: Participant::connect(switch.listen(), &directory, 2, 0),
            serial: 1_000_000,
            switch,
            directory,
            _data: data,
        }
    }

    /// Those who behave are served.
    fn others_are_unharmed(&mut self) {
        self.serial += 1;
        let answer = pay(&mut self.institution, &mut self.bank, self.serial, 10);
        assert_eq!((code(&answer), answer.id.serial()), (Code::Committed, self.serial));
    }

    fn connect(&self, index: u16) -> Participant {
        Participant::connect(self.switch.listen(), &self.directory, index, 0)
    }

    fn status(&self, name: &str) -> u64 {
        self.switch.status()[name].as_u64().expect("a number")
    }
}

/// A stream of bytes like any other (xorshift).
fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

#[test]
fn random_bytes_cost_only_their_sender_the_link() {
    for backend in BACKENDS {
        let mut scene = Scene::new(backend);
        let mut strangers = Vec::new();
        for seed in 1..=50 {
            let mut stranger = Participant::open(scene.switch.listen());
            stranger.send_bytes(&random_bytes(seed, 64 + 97 * seed as usize));
            strangers.push(stranger);
        }
        scene.others_are_unharmed();
        for mut stranger in strangers {
            stranger.expect_end();
        }
        // On a link that has signed on, behind a good frame and in the middle of the next.
        for seed in 1..=20 {
            let mut offender = scene.connect(1);
            let mut bytes = bytemuck::bytes_of(&debit(1, 0, seed, 100)).to_vec();
            bytes.truncate(128 - seed as usize);
            bytes.extend(random_bytes(seed, 500));
            offender.send_bytes(&bytes);
            offender.expect_end();
        }
        scene.others_are_unharmed();
        eventually("only those who behave are left", || scene.status("connections") == 2);
        assert_eq!(scene.status("links"), 2);
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn half_a_frame_and_silence_is_told_and_cut() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, |settings, _, _| settings.links.handshake_timeout_ms = 200);
        let code = scene.directory.participants[1].terms.code;
        let frame = clearway::wire::Frame::sealed(negotiate(code, clearway::config::demo_credential(&code)));
        let bytes = bytemuck::bytes_of(&frame);
        let mut halves: Vec<Participant> = [0, 1, 13, bytes.len() - 1]
            .into_iter()
            .map(|length| {
                let mut half = Participant::open(scene.switch.listen());
                half.send_bytes(&bytes[..length]);
                half
            })
            .collect();
        scene.others_are_unharmed();
        for half in &mut halves {
            assert_eq!(half.expect_cut(), TerminateCode::HandshakeTimeout);
        }
        scene.others_are_unharmed();
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn a_frame_cut_into_single_bytes_is_a_frame() {
    for backend in BACKENDS {
        let mut scene = Scene::new(backend);
        let bytes = bytemuck::bytes_of(&debit(0, 2, 1, 100)).to_vec();
        for byte in bytes {
            scene.institution.send_bytes(&[byte]);
        }
        let request: PaymentRequest = scene.bank.expect();
        scene.bank.send(&yes(&request));
        assert_eq!(code(&scene.institution.expect()), Code::Committed);
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn a_wrong_length_and_a_frame_of_the_wrong_role_are_told_and_cut() {
    for backend in BACKENDS {
        let mut scene = Scene::new(backend);
        let mut offender = scene.connect(1);
        let mut bytes = bytemuck::bytes_of(&debit(1, 2, 1, 100)).to_vec();
        bytes[0] += 16;
        offender.send_bytes(&bytes);
        assert_eq!(offender.expect_cut(), TerminateCode::BadLength);

        let mut bank = scene.connect(3);
        bank.send(&debit(3, 2, 1, 100));
        assert_eq!(bank.expect_cut(), TerminateCode::UnexpectedFrame);

        let mut institution = scene.connect(1);
        institution.send(&yes(&debit(1, 2, 1, 100)));
        assert_eq!(institution.expect_cut(), TerminateCode::UnexpectedFrame);

        let mut stranger = Participant::open(scene.switch.listen());
        stranger.send(&debit(0, 2, 5, 100));
        assert_eq!(stranger.expect_cut(), TerminateCode::NotEstablished);
        scene.others_are_unharmed();
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn a_reply_counts_only_from_the_payments_bank_with_its_amount() {
    for backend in BACKENDS {
        let mut scene = Scene::new(backend);
        let mut other = scene.connect(3);
        scene.institution.send(&debit(0, 2, 1, 500));
        let request: PaymentRequest = scene.bank.expect();

        // Another bank's yes costs it the link, and the payment goes on.
        other.send(&yes(&request));
        assert_eq!(other.expect_cut(), TerminateCode::ReplyNotEntitled);
        scene.institution.expect_silence(Duration::from_millis(50));
        scene.bank.send(&yes(&request));
        assert_eq!(code(&scene.institution.expect()), Code::Committed);

        // The bank's own yes to another amount: the same.
        scene.institution.send(&debit(0, 2, 2, 500));
        let request: PaymentRequest = scene.bank.expect();
        let mut wrong = yes(&request);
        wrong.body.amount_minor = 499;
        scene.bank.send(&wrong);
        assert_eq!(scene.bank.expect_cut(), TerminateCode::ReplyNotEntitled);
        scene.institution.expect_silence(Duration::from_millis(50));
        scene.bank = scene.connect(2);
        scene
            .bank
            .send(&reply(&request, ReplyOutcome::No, Code::CustomerFunds as u8));
        assert_eq!(code(&scene.institution.expect()), Code::CustomerFunds);
        assert_eq!(scene.switch.status()["payments"]["replies_refused"], 2);
        scene.others_are_unharmed();
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn two_hundred_who_say_nothing_take_nobodys_place() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, |settings, _, _| {
            settings.links.half_open_max = 50;
            settings.links.handshake_timeout_ms = 400;
        });
        let mut silent: Vec<Participant> = (0..200).map(|_| Participant::open(scene.switch.listen())).collect();
        scene.others_are_unharmed();
        let mut told = [0, 0];
        for stranger in &mut silent {
            match stranger.expect_cut() {
                TerminateCode::SwitchFull => told[0] += 1,
                TerminateCode::HandshakeTimeout => told[1] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, [150, 50]);
        eventually("their places are free", || scene.status("connections") == 2);
        let mut newcomer = scene.connect(1);
        assert_eq!(
            code(&pay(&mut newcomer, &mut scene.bank, 1, 100)),
            Code::Committed,
            "who comes later is served"
        );
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn a_participant_has_no_more_links_than_agreed() {
    for backend in BACKENDS {
        let scene = Scene::with(backend, |_, directory, _| {
            directory.participants[1].terms.contract.links_max = 2
        });
        let links = [scene.connect(1), scene.connect(1)];
        let mut third = Participant::open(scene.switch.listen());
        let code = scene.directory.participants[1].terms.code;
        third.send(&negotiate(code, clearway::config::demo_credential(&code)));
        assert_eq!(third.expect_cut(), TerminateCode::TooManyLinks);
        drop(links);
        eventually("its links are gone", || scene.status("links") == 2);
        drop([scene.connect(1), scene.connect(1)]);
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn over_its_contract_a_request_is_not_taken_and_its_id_not_used() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, |_, directory, _| {
            directory.participants[0].terms.contract.intake_in_flight_max = 1;
        });
        scene.institution.send(&debit(0, 2, 1, 100));
        scene.institution.send(&debit(0, 2, 2, 200));
        let refused: Answer = scene.institution.expect();
        assert_eq!(
            (code(&refused), refused.id.serial(), refused.word),
            (Code::NotTaken, 2, 0)
        );
        let request: PaymentRequest = scene.bank.expect();
        scene.bank.send(&yes(&request));
        assert_eq!(code(&scene.institution.expect()), Code::Committed);
        // Other content under the refused id: nobody remembers it.
        let answer = pay(&mut scene.institution, &mut scene.bank, 2, 201);
        assert_eq!(
            (code(&answer), answer.amount_minor, answer.flags),
            (Code::Committed, 201, 0)
        );
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn who_never_reads_is_cut_and_others_are_served_meanwhile() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, |_, directory, _| {
            directory.participants[1].terms.contract.intake_in_flight_max = 1;
            directory.participants[1].terms.contract.request_in_flight_max = 1;
        });
        let mut deaf = scene.connect(1);
        deaf.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let batch: Vec<u8> = (1..=512)
            .flat_map(|serial| bytemuck::bytes_of(&debit(1, 2, serial, 100)).to_vec())
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while deaf.stream.write_all(&batch).is_ok() {
            assert!(Instant::now() < deadline, "it was never cut");
            scene.others_pay_past_the_deaf();
        }
        eventually("its link is gone", || scene.status("links") == 2);
        assert!(scene.status("links_cut") >= 1);
        scene.others_are_unharmed();
        scene.switch.shutdown().unwrap();
    }
}

impl Scene {
    /// As `others_are_unharmed`, where the bank may also get the one request of the deaf institution.
    fn others_pay_past_the_deaf(&mut self) {
        self.serial += 1;
        self.institution.send(&debit(0, 2, self.serial, 10));
        loop {
            let request: PaymentRequest = self.bank.expect();
            self.bank.send(&yes(&request));
            if request.body.id.serial() == self.serial {
                break;
            }
        }
        assert_eq!(code(&self.institution.expect()), Code::Committed);
    }
}

#[test]
fn twenty_thousand_requests_through_the_smallest_rings_are_all_answered() {
    const PAYMENTS: u64 = 20_000;
    // One thread, and a thread for each stage: there a stage that sleeps on a full ring must wake again by itself.
    let arrangements = BACKENDS
        .into_iter()
        .flat_map(|backend| [(backend, profile()), (backend, spread_profile())]);
    for (backend, arrangement) in arrangements {
        let scene = Scene::with(backend, |_, directory, profile| {
            *profile = arrangement;
            (profile.rings.effects, profile.rings.outbound) = (64, 64);
            profile.rings.intake_requests = 2;
            profile.driver.receive_buffers = 16;
            for entry in &mut directory.participants {
                entry.terms.contract.request_in_flight_max = 65_536;
            }
        });
        let (mut institution, mut bank) = (scene.institution, scene.bank);
        let mut replies = bank.stream.try_clone().unwrap();
        let bank = std::thread::spawn(move || {
            let (mut received, mut seen) = (Vec::new(), 0);
            let mut buffer = vec![0; 1 << 16];
            bank.stream.set_read_timeout(Some(PATIENCE)).unwrap();
            while seen < PAYMENTS {
                let count = match bank.stream.read(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    read => read.expect("requests come"),
                };
                assert!(count > 0, "the bank was cut after {seen} requests");
                received.extend_from_slice(&buffer[..count]);
                let (mut at, mut out) = (0, Vec::new());
                while let Some((_, length)) = decode(&received[at..]).unwrap() {
                    if length == 128 {
                        let request: PaymentRequest = bytemuck::pod_read_unaligned(&received[at..at + length]);
                        out.extend_from_slice(bytemuck::bytes_of(&yes(&request)));
                        seen += 1;
                    }
                    at += length;
                }
                received.drain(..at);
                replies.write_all(&out).unwrap();
            }
            bank
        });
        let mut sender = institution.stream.try_clone().unwrap();
        let requests = std::thread::spawn(move || {
            for first in (1..=PAYMENTS).step_by(500) {
                let batch: Vec<u8> = (first..first + 500)
                    .flat_map(|serial| bytemuck::bytes_of(&debit(0, 2, serial, 1)).to_vec())
                    .collect();
                sender.write_all(&batch).unwrap();
            }
        });
        let mut answered = vec![false; PAYMENTS as usize + 1];
        for _ in 0..PAYMENTS {
            let answer: Answer = institution.expect();
            assert_eq!(code(&answer), Code::Committed);
            let known = std::mem::replace(&mut answered[answer.id.serial() as usize], true);
            assert!(!known, "{} was answered twice", answer.id);
        }
        requests.join().unwrap();
        drop(bank.join().unwrap());
        let report = scene.switch.shutdown().unwrap();
        assert_eq!(report["status"]["payments"]["committed"], PAYMENTS);
        assert_eq!(report["participants"][2]["position_minor"], PAYMENTS);
    }
}

#[test]
fn five_hundred_links_that_come_and_go_leave_nothing_behind() {
    for backend in BACKENDS {
        let mut scene = Scene::with(backend, |_, _, profile| profile.driver.receive_buffers = 16);
        for round in 0..500 {
            let mut passing = scene.connect(1);
            // On-us: taken, journaled, and answered to a link that is gone.
            for serial in 0..3 {
                passing.send(&debit(1, 1, 1 + round * 3 + serial, 100));
            }
            if round % 3 == 0 {
                // Half a frame behind it, and a reset instead of an end.
                passing.send_bytes(&bytemuck::bytes_of(&debit(1, 2, 1, 100))[..77]);
                socket2::SockRef::from(&passing.stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
        }
        eventually("they are gone", || {
            scene.status("connections") == 2 && scene.status("links") == 2
        });
        for _ in 0..50 {
            scene.others_are_unharmed();
        }
        let mut late = scene.connect(1);
        assert!(late.next_word <= 1_501);
        if late.next_word > 1 {
            let told: Answer = late.expect();
            assert_eq!((code(&told), told.word), (Code::OnUs, 1));
        }
        scene.switch.shutdown().unwrap();
    }
}

#[test]
fn an_institutions_rate_holds_over_all_its_links() {
    const PER_SECOND: u64 = 10;
    for (backend, arrangement) in BACKENDS.into_iter().zip([profile(), spread_profile()]) {
        let mut scene = Scene::with(backend, |_, directory, profile| {
            *profile = arrangement;
            directory.participants[1].terms.contract.intake_per_second_max = PER_SECOND as u32;
        });
        let begun = Instant::now();
        let mut links: Vec<Participant> = (0..8).map(|_| scene.connect(1)).collect();
        for (at, link) in links.iter_mut().enumerate() {
            for serial in 0..PER_SECOND {
                // On-us: what is taken is answered by the switch itself.
                link.send(&debit(1, 1, 1 + serial + PER_SECOND * at as u64, 100));
            }
        }
        let mut taken = 0;
        for link in &mut links {
            for _ in 0..PER_SECOND {
                let answer: Answer = link.expect();
                match code(&answer) {
                    Code::OnUs => taken += 1,
                    Code::NotTaken => assert_eq!(answer.word, 0),
                    other => panic!("{other:?}"),
                }
            }
        }
        let granted = PER_SECOND + begun.elapsed().as_millis() as u64 * PER_SECOND / 1_000;
        assert!((PER_SECOND..=granted).contains(&taken), "{taken} of {granted}");
        scene.others_are_unharmed();
        scene.switch.shutdown().unwrap();
    }
}
