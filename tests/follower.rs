//! Register, snapshots and follower as operators and participants see them: the daemon itself, killed and started again.

mod support;

use std::fs;
use std::path::PathBuf;

use bytemuck::Zeroable;
use clearway::config::{BackendChoice, Settings};
use clearway::domain::{Code, Kind, PaymentId};
use clearway::wire::{Answer, AnswerFlags, Frame, Inquiry, InquiryAnswer, PaymentRequest};
use serde_json::Value;
use support::daemon::{Daemon, Installation, ask};
use support::threads::HeldThread;
use support::*;

/// Payments the engine holds in these tests: any other has left memory.
const RESIDENT: u64 = 8;

/// A register that is written out after a few payments, and a snapshot every second.
fn short_memory(settings: &mut Settings) {
    settings.follower.payments_in_memory = 16;
    settings.follower.snapshot_every_s = 1;
}

fn installation(change: fn(&mut Settings)) -> Installation {
    let mut directory = directory(2, 2);
    directory.scheme.resident_payments = RESIDENT as u32;
    for entry in &mut directory.participants {
        entry.terms.contract.inquiries_per_second_max = 100_000;
    }
    Installation::of(directory, BackendChoice::Auto, change).with_short_segments()
}

fn status(installation: &Installation) -> Value {
    ask(&installation.path("data/admin.sock"), "status").expect("the switch answers")
}

struct Parties {
    institution: Participant,
    bank: Participant,
}

fn connect(daemon: &Daemon, installation: &Installation) -> Parties {
    Parties {
        institution: Participant::connect(daemon.listen, &installation.directory, 0, u64::MAX),
        bank: Participant::connect(daemon.listen, &installation.directory, 2, u64::MAX),
    }
}

impl Parties {
    fn pay(&mut self, serial: u64) -> Answer {
        pay(&mut self.institution, &mut self.bank, serial, 100 + serial)
    }

    fn repeat(&mut self, serial: u64, amount_minor: u64) -> Answer {
        self.institution.send(&debit(0, 2, serial, amount_minor));
        self.institution.expect()
    }

    fn refund(&mut self, serial: u64, original: PaymentId, amount_minor: u64) -> Answer {
        let mut refund = debit(0, 2, serial, amount_minor);
        refund.body.kind = Kind::Refund as u8;
        refund.body.original = original;
        self.institution.send(&refund);
        loop {
            let (template, frame) = self
                .bank
                .next(std::time::Duration::from_millis(300))
                .unwrap_or((Answer::TEMPLATE, vec![]));
            if template == PaymentRequest::TEMPLATE {
                self.bank.send(&yes(&PaymentRequest::read(&frame)));
            }
            if let Some((Answer::TEMPLATE, frame)) = self.institution.next(std::time::Duration::from_millis(300)) {
                return Answer::read(&frame);
            }
        }
    }
}

fn inquire(asker: &mut Participant, id: PaymentId) -> InquiryAnswer {
    asker.send(&Inquiry {
        id,
        reference: 42,
        ..Zeroable::zeroed()
    });
    asker.expect()
}

/// What is the same in an answer that is told again, but for its number.
fn again(answer: &Answer, of: &Answer, flags: u8) -> Answer {
    let mut expected = *of;
    (expected.word, expected.flags) = (answer.word, flags);
    expected.sealed()
}

fn files(installation: &Installation, directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![installation.path("data").join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn snapshot_files(installation: &Installation) -> Vec<PathBuf> {
    files(installation, "snapshots", ".snap")
}

fn wait_for_snapshot_of(installation: &Installation, event: u64) {
    eventually("a snapshot is taken", || {
        status(installation)["follower"]["newest_snapshot"]["event"].as_u64() >= Some(event)
    });
}

fn stop(mut daemon: Daemon) {
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

fn kill(mut daemon: Daemon) {
    daemon.signal(libc::SIGKILL);
    daemon.exit_code();
}

/// The state that the whole journal gives, by the tool that knows no snapshot.
fn replayed_hash(installation: &Installation) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_clearway"))
        .args(["journal", "replay", "--json", "-"])
        .arg(installation.path("data/journal"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["state_hash"].as_str().unwrap().to_owned()
}

#[test]
fn what_has_left_memory_is_repeated_refunded_inquired_after_and_told_again() {
    let installation = installation(short_memory);
    let daemon = installation.start();
    let mut parties = connect(&daemon, &installation);
    let paid: Vec<Answer> = (1..=60).map(|serial| parties.pay(serial)).collect();
    let first = paid[0];

    for round in 0..2 {
        // A cold duplicate: the stored answer, and no second payment.
        let stored = parties.repeat(1, 101);
        let expected = again(&stored, &first, AnswerFlags::DUPLICATE);
        assert_eq!(
            bytemuck::bytes_of(&stored),
            bytemuck::bytes_of(&expected),
            "round {round}"
        );
        assert_eq!(code(&parties.repeat(1, 999)), Code::IdReused);

        // An old inquiry, of either party and of a third.
        for (asker, expected) in [
            (&mut parties.institution, Code::Committed),
            (&mut parties.bank, Code::Committed),
        ] {
            let answer = inquire(asker, first.id);
            assert_eq!((Code::from_u8(answer.code), answer.reference), (Some(expected), 42));
            assert_eq!(
                (answer.amount_minor, answer.window, answer.final_ns),
                (101, first.window, first.final_ns)
            );
        }
        let mut other = Participant::connect(daemon.listen, &installation.directory, 1, u64::MAX);
        assert_eq!(
            Code::from_u8(inquire(&mut other, first.id).code),
            Some(Code::OriginalNotFound)
        );
    }

    // A late refund: of what there was, and not of more.
    assert_eq!(code(&parties.refund(1_001, first.id, 60)), Code::Committed);
    assert_eq!(code(&parties.refund(1_002, first.id, 60)), Code::RefundExceedsOriginal);
    assert_eq!(code(&parties.refund(1_003, first.id, 41)), Code::Committed);

    // Every word that was ever told, though only the last few payments are in memory.
    let mut late = Participant::connect(daemon.listen, &installation.directory, 0, 0);
    let mut told = std::collections::BTreeMap::new();
    while told.len() < late.next_word as usize - 1 {
        let answer: Answer = late.expect();
        assert!(
            told.insert(answer.word, answer).is_none(),
            "word {} came twice",
            answer.word
        );
    }
    for answer in &paid {
        let expected = again(&told[&answer.word], answer, AnswerFlags::RETRANSMITTED);
        assert_eq!(bytemuck::bytes_of(&told[&answer.word]), bytemuck::bytes_of(&expected));
    }
    let follower = status(&installation)["follower"].clone();
    assert!(follower["look_ups"].as_u64() >= Some(6), "{follower}");
    assert_eq!(follower["trouble"], Value::Null);
    stop(daemon);
    assert_eq!(
        installation.shutdown_report()["state_hash"],
        replayed_hash(&installation).as_str()
    );
}

#[test]
fn payments_are_taken_and_answered_while_a_snapshot_stands_half_written() {
    let installation = installation(short_memory);
    let daemon = installation.start();
    let mut parties = connect(&daemon, &installation);
    for serial in 1..=20 {
        assert_eq!(code(&parties.pay(serial)), Code::Committed);
    }
    let half_written = || files(&installation, "snapshots", ".new");
    let held = HeldThread::hold(&daemon.child, "follower", || !half_written().is_empty());
    let half = half_written();
    let taken = snapshot_files(&installation);
    // Neither payments nor what is asked of the live engine waits for the follower.
    for serial in 21..=200 {
        assert_eq!(code(&parties.pay(serial)), Code::Committed);
    }
    assert_eq!((half_written(), snapshot_files(&installation)), (half, taken));
    let cycles = status(&installation)["follower"]["longest_clearing_cycle_us"].clone();
    assert!(cycles["while_a_snapshot_is_written"].as_u64() > Some(0), "{cycles}");
    drop(held);
    wait_for_snapshot_of(&installation, 400);
    stop(daemon);
    assert_eq!(
        installation.shutdown_report()["state_hash"],
        replayed_hash(&installation).as_str()
    );
}

#[test]
fn killed_at_any_moment_it_starts_from_a_snapshot_and_has_lost_nothing() {
    let installation = installation(short_memory);
    let mut paid: Vec<Answer> = Vec::new();
    let mut begun_with = Vec::new();
    for round in 0..6u64 {
        let daemon = installation.start();
        let status_now = status(&installation);
        begun_with.push(status_now["start"]["snapshot_event"].as_u64().unwrap_or(0));
        let mut parties = connect(&daemon, &installation);
        // Some of this round's look-ups are about payments of rounds before.
        for old in paid.iter().step_by(17) {
            let stored = parties.repeat(old.id.serial(), 100 + old.id.serial());
            let expected = again(&stored, old, AnswerFlags::DUPLICATE);
            assert_eq!(
                bytemuck::bytes_of(&stored),
                bytemuck::bytes_of(&expected),
                "round {round}"
            );
        }
        // Until a snapshot more is there, and then on while the next is written.
        let before = status(&installation)["event_number"].as_u64().unwrap_or(0);
        let mut serial = paid.len() as u64;
        let enough = |serial: u64| {
            let newest = status(&installation)["follower"]["newest_snapshot"]["event"].as_u64();
            newest > Some(before) && !(serial + round).is_multiple_of(7)
        };
        loop {
            serial += 1;
            paid.push(parties.pay(serial));
            if serial.is_multiple_of(5) && enough(serial) {
                break;
            }
        }
        kill(daemon);
    }
    assert_eq!(begun_with[0], 0);
    assert!(begun_with[1..].iter().all(|&event| event > 0), "{begun_with:?}");
    assert!(begun_with.is_sorted(), "{begun_with:?}");
    let daemon = installation.start();
    let mut parties = connect(&daemon, &installation);
    for answer in &paid {
        let told = inquire(&mut parties.institution, answer.id);
        assert_eq!(
            (told.code, told.final_ns),
            (answer.code, answer.final_ns),
            "{}",
            answer.id
        );
    }
    stop(daemon);
    assert_eq!(
        installation.shutdown_report()["state_hash"],
        replayed_hash(&installation).as_str()
    );
}

#[test]
fn a_bad_snapshot_is_named_and_the_one_before_is_taken_and_with_none_the_whole_journal() {
    let installation = installation(short_memory);
    let daemon = installation.start();
    let mut parties = connect(&daemon, &installation);
    parties.pay(1);
    wait_for_snapshot_of(&installation, 1);
    for serial in 2..=40 {
        parties.pay(serial);
    }
    stop(daemon);
    let snapshots = snapshot_files(&installation);
    assert_eq!(snapshots.len(), 2, "the newest two are kept");
    let event_of = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();

    // A flipped bit in the newest, wherever it is: the older one is taken.
    let contents: Vec<Vec<u8>> = snapshots.iter().map(|path| fs::read(path).unwrap()).collect();
    let good = contents[1].clone();
    for at in [9, 70, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        for left in snapshot_files(&installation) {
            fs::remove_file(left).unwrap();
        }
        fs::write(&snapshots[0], &contents[0]).unwrap();
        fs::write(&snapshots[1], &bad).unwrap();
        let daemon = installation.start();
        let start = status(&installation)["start"].clone();
        assert_eq!(start["snapshot_event"], event_of(&snapshots[0]), "byte {at}: {start}");
        let mut parties = connect(&daemon, &installation);
        assert_eq!(code(&parties.repeat(1, 101)), Code::Committed);
        kill(daemon);
        let log = installation.log();
        assert!(
            log.contains(snapshots[1].file_name().unwrap().to_str().unwrap()) && log.contains("it is not used"),
            "{log}"
        );
    }

    // Both bad: the whole journal.
    for path in snapshot_files(&installation) {
        let content = fs::read(&path).unwrap();
        fs::write(&path, &content[..content.len() - 1]).unwrap();
    }
    let daemon = installation.start();
    let start = status(&installation)["start"].clone();
    assert_eq!(start["snapshot_event"], Value::Null, "{start}");
    let mut parties = connect(&daemon, &installation);
    assert_eq!(
        code(&parties.repeat(1, 101)),
        Code::Committed,
        "the register was made anew"
    );
    stop(daemon);
    assert_eq!(
        installation.shutdown_report()["state_hash"],
        replayed_hash(&installation).as_str()
    );
}

#[test]
fn a_register_that_lost_a_file_is_said_and_never_answers_that_there_was_no_such_payment() {
    let installation = installation(short_memory);
    let daemon = installation.start();
    let mut parties = connect(&daemon, &installation);
    for serial in 1..=60 {
        parties.pay(serial);
    }
    stop(daemon);
    let lost = files(&installation, "register", ".run").remove(0);
    fs::remove_file(&lost).unwrap();
    let daemon = installation.start();
    eventually("the follower says so", || {
        let trouble = status(&installation)["follower"]["trouble"].clone();
        trouble.as_str().is_some_and(|trouble| trouble.contains("are missing"))
    });
    let mut parties = connect(&daemon, &installation);
    // Payments go on; what only the register knows waits.
    assert_eq!(code(&parties.pay(61)), Code::Committed);
    parties.institution.send(&debit(0, 2, 1, 101));
    assert_eq!(code(&parties.pay(62)), Code::Committed);
    kill(daemon);

    // As the message says: both directories away, and both are made anew; what waited is answered.
    for directory in ["register", "snapshots"] {
        fs::rename(installation.path("data").join(directory), installation.path(directory)).unwrap();
    }
    let daemon = installation.start();
    let mut late = Participant::connect(daemon.listen, &installation.directory, 0, 62);
    let answer: Answer = late.expect();
    assert_eq!(
        (answer.id.serial(), answer.flags & AnswerFlags::DUPLICATE),
        (1, AnswerFlags::DUPLICATE)
    );
    stop(daemon);
}

#[test]
fn without_a_follower_payments_are_made_and_the_status_says_what_there_is_not() {
    let installation = installation(|settings| settings.follower.enabled = false);
    let daemon = installation.start();
    let mut parties = connect(&daemon, &installation);
    assert_eq!(code(&parties.pay(1)), Code::Committed);
    assert_eq!(status(&installation)["follower"], Value::Null);
    stop(daemon);
    assert_eq!(snapshot_files(&installation), Vec::<PathBuf>::new());
    assert!(installation.log().contains("no follower"), "{}", installation.log());
}
