//! An invariant that breaks in the running switch: intake stops, inquiries are answered, and the invariant is named.
//!
//! The binary has no door through which to break one. So its snapshot is spoiled, by one who knows the format: every hash
//! in it is right, and the ledger in it is not. Live engine and follower both begin with it and agree with each other.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use bytemuck::Zeroable;
use clearway::clearing::Engine;
use clearway::config::{BackendChoice, Settings};
use clearway::domain::{Code, PaymentId};
use clearway::wire::{Answer, Inquiry, InquiryAnswer};
use serde_json::Value;
use support::daemon::{Daemon, Installation, ask};
use support::*;

/// The parts of a snapshot's file.
const BLOCK_BYTES: usize = 4_096;
const PIECE_BYTES: usize = 256 << 10;
/// In its header.
const CRC: std::ops::Range<usize> = 12..16;
const ENGINE_BYTES: std::ops::Range<usize> = 56..64;
const STATE: std::ops::Range<usize> = 64..96;
const HEADER_BYTES: usize = 128;

/// What is spoiled: a section's name, and where in it a number lies that becomes greater by one.
struct Spoiled {
    section: &'static str,
    at: usize,
    invariant: &'static str,
}

/// Counts that are looked at after every event.
const ANSWERS: Spoiled = Spoiled {
    section: "engine",
    at: 72 + 8,
    invariant: "invariant 6: ",
};
const REVERSALS: Spoiled = Spoiled {
    section: "engine",
    at: 72 + 24,
    invariant: "invariant 9: ",
};
/// Sums that are looked at when a window closes.
const OPEN_SUM: Spoiled = Spoiled {
    section: "engine",
    at: 0,
    invariant: "invariant 5: ",
};
/// The first participant's cover: behind its terms, two numbers, position and reservation.
const COVER: Spoiled = Spoiled {
    section: "parties",
    at: 224 + 8 + 32,
    invariant: "invariant 2: ",
};

fn snapshots_soon(settings: &mut Settings) {
    settings.follower.snapshot_every_s = 1;
}

fn installation(backend: BackendChoice) -> Installation {
    Installation::of(directory(2, 2), backend, snapshots_soon).with_short_segments()
}

fn status(installation: &Installation) -> Value {
    ask(&installation.path("data/admin.sock"), "status").unwrap_or_default()
}

fn snapshots(installation: &Installation) -> Vec<PathBuf> {
    let entries = fs::read_dir(installation.path("data/snapshots")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "snap"));
    paths.sort();
    paths
}

/// Runs a payment, and stops when a snapshot holds all that there is.
fn a_snapshot_of_a_payment(installation: &Installation) -> (PathBuf, PaymentId) {
    let mut daemon = installation.start();
    let (mut institution, mut bank) = parties(&daemon, installation);
    let paid = pay(&mut institution, &mut bank, 1, 700);
    assert_eq!(code(&paid), Code::Committed);
    drop((institution, bank));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    // A start takes one of the payment, as time goes by.
    let mut daemon = installation.start();
    let events = status(installation)["events"].as_u64().unwrap();
    eventually("a snapshot is taken", || {
        status(installation)["follower"]["newest_snapshot"]["event"].as_u64() >= Some(events)
    });
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let mut all = snapshots(installation);
    let newest = all.pop().unwrap();
    for older in all {
        fs::remove_file(older).unwrap();
    }
    (newest, paid.id)
}

fn parties(daemon: &Daemon, installation: &Installation) -> (Participant, Participant) {
    let connect = |index| Participant::connect(daemon.listen, &installation.directory, index, u64::MAX);
    (connect(0), connect(2))
}

/// Changes the ledger in a snapshot and makes all hashes right again.
fn spoil(snapshot: &Path, spoiled: &Spoiled) {
    let mut bytes = fs::read(snapshot).unwrap();
    let number = |bytes: &[u8], at: std::ops::Range<usize>| {
        let mut number = [0; 8];
        number[..at.len()].copy_from_slice(&bytes[at]);
        u64::from_le_bytes(number) as usize
    };
    let engine_bytes = number(&bytes, ENGINE_BYTES);
    let runs = number(&bytes, 96..100) + number(&bytes, 100..104);
    let body = BLOCK_BYTES..BLOCK_BYTES + engine_bytes + 8 * runs;
    let mut heading = *b"        ";
    heading[..spoiled.section.len()].copy_from_slice(spoiled.section.as_bytes());
    let engine = &mut bytes[BLOCK_BYTES..BLOCK_BYTES + engine_bytes];
    let section = engine.windows(8).position(|name| name == heading).expect("a section") + 16;
    let value = section + spoiled.at..section + spoiled.at + 8;
    let greater = u64::from_le_bytes(engine[value.clone()].try_into().unwrap()) + 1;
    engine[value].copy_from_slice(&greater.to_le_bytes());
    let state = Engine::load(&mut &*engine)
        .expect("a ledger that can be read")
        .state_hash();
    bytes[STATE].copy_from_slice(&state.0);
    bytes[CRC].fill(0);
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES]);
    bytes[CRC].copy_from_slice(&crc.to_le_bytes());
    let hashes: Vec<[u8; 32]> = bytes[body.clone()]
        .chunks(PIECE_BYTES)
        .map(|piece| *blake3::hash(piece).as_bytes())
        .collect();
    let mut seal = blake3::Hasher::new();
    seal.update(&bytes[..BLOCK_BYTES]).update(hashes.as_flattened());
    let seal = *seal.finalize().as_bytes();
    bytes.truncate(body.end);
    bytes.extend_from_slice(hashes.as_flattened());
    bytes.extend_from_slice(&seal);
    fs::write(snapshot, bytes).unwrap();
}

/// The switch says so, takes nothing, and answers who asks.
fn is_broken(installation: &Installation, daemon: &Daemon, paid: PaymentId, invariant: &str) {
    eventually("intake is stopped", || {
        status(installation)["breach"]
            .as_str()
            .is_some_and(|breach| breach.starts_with(invariant))
    });
    let (mut institution, mut bank) = parties(daemon, installation);
    for serial in 50..53 {
        institution.send(&debit(0, 2, serial, 100));
        let answer: Answer = institution.expect();
        assert_eq!(code(&answer), Code::NotTaken, "{invariant}");
    }
    for asker in [&mut institution, &mut bank] {
        asker.send(&Inquiry {
            id: paid,
            reference: 7,
            ..Zeroable::zeroed()
        });
        let answer: InquiryAnswer = asker.expect();
        assert_eq!(
            (answer.code, answer.amount_minor, answer.reference),
            (Code::Committed as u8, 700, 7)
        );
    }
    let log = installation.log();
    let said = log.lines().find(|line| line.contains(invariant));
    assert!(
        said.is_some_and(|line| line.contains("ERROR") && line.contains("intake is stopped")),
        "{log}"
    );
}

fn broken_at(installation: &Installation, spoiled: &Spoiled, by: impl Fn(&Daemon)) {
    let (snapshot, paid) = a_snapshot_of_a_payment(installation);
    spoil(&snapshot, spoiled);
    // The start is an event, and what is looked at after each event is found at once: there may be no time to be ready.
    let mut command = installation.command();
    let daemon = installation
        .try_start_until(&mut command, &|status| status["start"]["snapshot_event"].is_u64())
        .unwrap_or_else(|_| panic!("the daemon ended: {}", installation.log()));
    let started_with = status(installation)["start"]["snapshot_event"].clone();
    assert!(
        started_with.as_u64() > Some(0),
        "the spoiled snapshot was not taken: {}",
        installation.log()
    );
    by(&daemon);
    is_broken(installation, &daemon, paid, spoiled.invariant);
    drop(daemon);
    // It stays broken: nobody gets out of it by starting again.
    let mut command = installation.command();
    let daemon = installation
        .try_start_until(&mut command, &|status| status["breach"].is_string())
        .unwrap_or_else(|_| panic!("the daemon ended: {}", installation.log()));
    is_broken(installation, &daemon, paid, spoiled.invariant);
}

#[test]
fn a_breach_that_an_event_shows_stops_intake_and_names_the_invariant_on_both_backends() {
    for backend in BACKENDS {
        broken_at(&installation(backend), &ANSWERS, |_| ());
    }
    broken_at(&installation(BackendChoice::Auto), &REVERSALS, |_| ());
}

#[test]
fn a_breach_that_a_windows_close_shows_stops_intake_and_names_the_invariant() {
    for spoiled in [&OPEN_SUM, &COVER] {
        let installation = installation(BackendChoice::Auto);
        broken_at(&installation, spoiled, |daemon| {
            // Until then nothing shows it.
            eventually("payments are taken", || status(&installation)["ready"] == true);
            let (mut institution, mut bank) = parties(daemon, &installation);
            assert_eq!(code(&pay(&mut institution, &mut bank, 40, 1)), Code::Committed);
            ask(&installation.path("data/admin.sock"), "close-window").unwrap();
        });
    }
}
