//! A disk that is full: no payment is taken, all that is open ends, inquiries are answered, nothing is lost, and payments
//! are taken again when there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::Zeroable;
use clearway::config::BackendChoice;
use clearway::domain::{Code, PaymentId};
use clearway::wire::{Answer, Inquiry, InquiryAnswer};
use serde_json::Value;

use crate::books::all_books_agree;
use crate::players::Load;
use crate::support::daemon::{Daemon, Installation, ask};
use crate::support::disk_calls::{Fate, Wish, supervise};
use crate::support::file_system::FileSystem;
use crate::support::*;

/// The one who asks in between; institutions 0 and 1 and all banks are the load's.
const ASKER: u16 = 2;
/// A bank that only the asker pays from.
const ITS_BANK: u16 = 5;

fn status(installation: &Installation) -> Value {
    ask(&installation.path("data/admin.sock"), "status").unwrap()
}

/// What is known of a payment.
fn inquire(asker: &mut Participant, id: PaymentId) -> Code {
    asker.send(&Inquiry {
        id,
        reference: 7,
        ..Zeroable::zeroed()
    });
    let known: InquiryAnswer = asker.expect();
    Code::from_u8(known.code).unwrap()
}

/// Intake has stopped: the asker is refused with 37 and told what it asks; nothing stays open.
fn only_inquiries_are_answered(installation: &Installation, asker: &mut Participant, committed: PaymentId) {
    eventually("all that was open has ended", || {
        let payments = &status(installation)["payments"];
        payments["reserved"] == 0 && payments["in_doubt"] == 0
    });
    assert_eq!(status(installation)["intake"], "no_space");
    let taken = status(installation)["payments"]["accepted"].clone();
    asker.send(&debit(ASKER, ITS_BANK, 1_000_000, 5));
    let refused: Answer = asker.expect();
    assert_eq!((code(&refused), refused.word), (Code::NotTaken, 0));
    assert_eq!(inquire(asker, committed), Code::Committed);
    assert_eq!(status(installation)["payments"]["accepted"], taken);
}

/// Runs the load until the disk, which `fill` has filled, stops intake; ends the switch in the middle of that and starts
/// it again; then `make_room`.
fn fills_up(installation: &Installation, start: &dyn Fn() -> Daemon, fill: &dyn Fn(), make_room: &dyn Fn()) {
    let load = Load::new(&installation.directory, 0..2, 3..5, 1);
    let daemon = start();
    load.scheme.started(daemon.listen);
    let mut asker = Participant::connect(daemon.listen, &installation.directory, ASKER, 0);
    let mut bank = Participant::connect(daemon.listen, &installation.directory, ITS_BANK, 0);
    let committed = pay(&mut asker, &mut bank, 1, 5);
    assert_eq!(code(&committed), Code::Committed);
    load.go_on(200);
    fill();
    eventually("intake stops", || status(installation)["intake"] == "no_space");
    load.pause(true);
    only_inquiries_are_answered(installation, &mut asker, committed.id);
    let log = installation.log();
    assert!(log.contains("no space for the next segment of 1048576 bytes"), "{log}");
    assert!(log.contains("no payment is taken, inquiries are answered"), "{log}");

    // A switch that ends like that and starts again on the full disk stands where it stood.
    let mut daemon = daemon;
    daemon.signal(libc::SIGKILL);
    assert_eq!(daemon.exit_code(), None);
    let daemon = start();
    load.scheme.started(daemon.listen);
    let mut asker = Participant::connect(daemon.listen, &installation.directory, ASKER, committed.word);
    only_inquiries_are_answered(installation, &mut asker, committed.id);

    make_room();
    eventually("payments are taken again", || status(installation)["intake"] == "open");
    assert!(
        installation.log().contains("the journal has room again"),
        "{}",
        installation.log()
    );
    let mut bank = Participant::connect(daemon.listen, &installation.directory, ITS_BANK, u64::MAX);
    let last = pay(&mut asker, &mut bank, 2, 5);
    assert_eq!(code(&last), Code::Committed);
    load.pause(false);
    load.go_on(200);
    let mut known = load.finish();
    known.others = vec![committed, last];
    all_books_agree(installation, daemon, &known);
}

fn participants() -> clearway::config::Directory {
    directory(3, 3)
}

#[test]
fn a_full_file_system_stops_intake_loses_nothing_and_is_gone_on_from_when_there_is_room() {
    let file_system = match FileSystem::in_memory(24 << 20) {
        Ok(file_system) => file_system,
        Err(error) => {
            eprintln!(
                "not run: no file system can be mounted here ({error}); the refusing kernel's test stands for it"
            );
            return;
        }
    };
    let root = tempfile::tempdir_in(file_system.path()).unwrap();
    let installation = Installation::in_place(root, participants(), BackendChoice::Auto, |_| {}).with_short_segments();
    fills_up(
        &installation,
        &|| start_on_what_there_is(&installation, &mut installation.command()),
        &|| drop(file_system.fill()),
        &|| std::fs::remove_file(file_system.path().join("ballast")).unwrap(),
    );
}

#[test]
fn a_kernel_that_has_no_room_for_a_segment_stops_intake_and_nothing_else() {
    let installation = Installation::of(participants(), BackendChoice::Auto, |_| {}).with_short_segments();
    let full = Arc::new(AtomicBool::new(false));
    fills_up(
        &installation,
        &|| {
            let full = Arc::clone(&full);
            let mut command = installation.command();
            supervise(&mut command, move |call| {
                if call.wish == Wish::Allocate && full.load(Ordering::Relaxed) {
                    Fate::Refused(libc::ENOSPC)
                } else {
                    Fate::Done
                }
            });
            start_on_what_there_is(&installation, &mut command)
        },
        &|| full.store(true, Ordering::Relaxed),
        &|| full.store(false, Ordering::Relaxed),
    );
}

/// Starts the daemon, which need not take payments yet.
fn start_on_what_there_is(installation: &Installation, command: &mut std::process::Command) -> Daemon {
    installation
        .try_start_until(command, &|status| status["intake"] != "starting")
        .unwrap_or_else(|_| panic!("the daemon ended: {}", installation.log()))
}
