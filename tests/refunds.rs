//! Late refunds by the daemon itself, on real links: of windows that are settled, of payments that have left memory, of days
//! that are sealed, to the last day on which one may be made; and refunds that race for an original's last cent.

mod support;

use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clearway::audit;
use clearway::config::{BackendChoice, Settings};
use clearway::domain::{BusinessDate, Code, Kind, PaymentId, WindowId};
use clearway::wire::{Answer, Frame, PaymentRequest};
use serde_json::Value;
use support::daemon::{Daemon, Installation, ask};
use support::journal_bytes::age;
use support::*;

/// Payments that the engine holds where an original shall have left memory.
const RESIDENT_FEW: u32 = 8;
/// Each of two racing refunds takes this much of an original of 100: both together would be one too many.
const PART: u64 = 51;

fn written_out_soon(settings: &mut Settings) {
    settings.follower.payments_in_memory = 16;
    settings.follower.snapshot_every_s = 1;
}

fn installation(backend: BackendChoice, resident_payments: Option<u32>) -> Installation {
    let mut directory = directory(2, 2);
    if let Some(resident_payments) = resident_payments {
        directory.scheme.resident_payments = resident_payments;
    }
    Installation::of(directory, backend, written_out_soon).with_short_segments()
}

fn refund_of(original: PaymentId, serial: u64, amount_minor: u64) -> PaymentRequest {
    let mut refund = debit(0, 2, serial, amount_minor);
    (refund.body.kind, refund.body.original) = (Kind::Refund as u8, original);
    refund.sealed()
}

/// Two links of the same institution and its bank, which says yes to everything.
struct Parties {
    links: [Participant; 2],
    bank: Participant,
}

impl Parties {
    fn connect(daemon: &Daemon, installation: &Installation) -> Self {
        let connect = |index| Participant::connect(daemon.listen, &installation.directory, index, u64::MAX);
        Self {
            links: [connect(0), connect(0)],
            bank: connect(2),
        }
    }

    fn pay(&mut self, serial: u64, amount_minor: u64) -> Answer {
        let [first, _] = &mut self.links;
        first.send(&debit(0, 2, serial, amount_minor));
        let [answer] = answered(&mut self.bank, [first]);
        assert_eq!(code(&answer), Code::Committed);
        answer
    }

    fn refund(&mut self, original: PaymentId, serial: u64, amount_minor: u64) -> Code {
        let [first, _] = &mut self.links;
        first.send(&refund_of(original, serial, amount_minor));
        let [answer] = answered(&mut self.bank, [first]);
        code(&answer)
    }

    /// One refund on each link at the same moment.
    fn race(&mut self, refunds: [PaymentRequest; 2]) -> [Code; 2] {
        let (start, [first, second]) = (Barrier::new(2), &mut self.links);
        std::thread::scope(|scope| {
            for (link, refund) in [&mut *first, &mut *second].into_iter().zip(&refunds) {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    link.send(refund);
                });
            }
        });
        answered(&mut self.bank, [first, second]).map(|answer| code(&answer))
    }
}

/// Waits for an answer on each link while the bank says yes to what it is asked.
fn answered<const N: usize>(bank: &mut Participant, links: [&mut Participant; N]) -> [Answer; N] {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if let Some((PaymentRequest::TEMPLATE, frame)) = bank.next(Duration::from_millis(5)) {
                    bank.send(&yes(&PaymentRequest::read(&frame)));
                }
            }
        });
        let answers = links.map(|link| link.next(3 * PATIENCE));
        done.store(true, Ordering::Release);
        answers.map(|came| {
            let (template, frame) = came.expect("an answer comes");
            assert_eq!(template, Answer::TEMPLATE);
            Answer::read(&frame)
        })
    })
}

fn stop(mut daemon: Daemon) {
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

fn kill(mut daemon: Daemon) {
    daemon.signal(libc::SIGKILL);
    daemon.exit_code();
}

fn status(installation: &Installation) -> Value {
    ask(&installation.path("data/admin.sock"), "status").expect("the switch answers")
}

/// Nothing is wrong with the journal by the auditor, who knows what refunds of an original come to.
fn audited(installation: &Installation) -> audit::Recomputed {
    let recomputed = audit::recompute(&installation.path("data/journal"), |_| {}).unwrap();
    assert_eq!(recomputed.findings, Vec::<String>::new());
    recomputed
}

/// Days that an event of the journal has sealed.
fn sealed_days(installation: &Installation) -> Vec<u32> {
    let output = Command::new(env!("CARGO_BIN_EXE_clearway"))
        .args(["journal", "dump", "--kind", "day_sealed"])
        .arg(installation.path("data"))
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let date = |line: &str| serde_json::from_str::<Value>(line).unwrap()["date"].clone();
    let number = |date: Value| date.as_u64().or_else(|| date.as_str()?.replace('-', "").parse().ok());
    lines
        .lines()
        .filter_map(|line| number(date(line)))
        .map(|date| date as u32)
        .collect()
}

fn days_before(date: BusinessDate, days: u64) -> BusinessDate {
    BusinessDate::from_day_number(date.day_number() - days)
}

#[test]
fn a_debit_of_an_earlier_window_that_is_settled_is_refunded_in_the_open_one_on_both_backends() {
    for backend in BACKENDS {
        let installation = installation(backend, None);
        let daemon = installation.start();
        let mut parties = Parties::connect(&daemon, &installation);
        let original = parties.pay(1, 100);
        let admin = installation.path("data/admin.sock");
        ask(&admin, "close-window").unwrap();
        ask(&admin, "settle").unwrap();
        let window = original.window.to_string();
        eventually("the window is settled", || {
            let windows = ask(&admin, "windows").unwrap_or_default().to_string();
            windows
                .split('}')
                .any(|part| part.contains(&window) && part.contains("\"settled\""))
        });
        assert_eq!(parties.refund(original.id, 2, 60), Code::Committed);
        assert_eq!(parties.refund(original.id, 3, 41), Code::RefundExceedsOriginal);
        assert_eq!(parties.refund(original.id, 4, 40), Code::Committed);
        stop(daemon);
        let recomputed = audited(&installation);
        let nets: Vec<_> = recomputed.windows.iter().map(|window| window.nets.clone()).collect();
        assert_eq!(
            nets[0],
            [(0, -100), (2, 100)].into(),
            "{backend:?}: the settled one stays as it was"
        );
        let later: WindowId = recomputed.windows[1].id;
        assert_eq!(
            nets[1],
            [(0, 100), (2, -100)].into(),
            "{backend:?}: {later} has the refunds"
        );
    }
}

#[test]
fn two_refunds_that_race_for_the_last_cent_are_never_both_made_on_both_backends_while_the_original_is_in_memory() {
    for backend in BACKENDS {
        race(&installation(backend, None), 25, 0);
    }
}

#[test]
fn two_refunds_that_race_for_the_last_cent_of_an_original_that_has_left_memory_are_never_both_made_on_both_backends() {
    for backend in BACKENDS {
        race(
            &installation(backend, Some(RESIDENT_FEW)),
            20,
            u64::from(RESIDENT_FEW) + 2,
        );
    }
}

/// Rounds of an original of 100, so many payments that push it out of memory, and two refunds of 51 at the same moment.
/// Then the switch is killed, and what is left of each original, and no more, may be refunded still.
fn race(installation: &Installation, rounds: u64, pushed_out_by: u64) {
    let daemon = installation.start();
    let mut parties = Parties::connect(&daemon, installation);
    let mut serial = 0;
    let mut next = || {
        serial += 1;
        serial
    };
    let mut originals = Vec::new();
    for round in 0..rounds {
        let original = parties.pay(next(), 100).id;
        for _ in 0..pushed_out_by {
            parties.pay(next(), 1);
        }
        let codes = parties.race([refund_of(original, next(), PART), refund_of(original, next(), PART)]);
        let winner = codes
            .iter()
            .position(|code| *code == Code::Committed)
            .expect("one is made");
        assert_eq!(
            codes[1 - winner],
            Code::RefundExceedsOriginal,
            "round {round}: {codes:?}"
        );
        originals.push(original);
    }
    if pushed_out_by > 0 {
        let look_ups = status(installation)["follower"]["look_ups"].as_u64().unwrap();
        assert!(
            look_ups >= 2 * rounds,
            "{look_ups} look-ups: the originals had not left memory"
        );
    }
    kill(daemon);
    let daemon = installation.start();
    let mut parties = Parties::connect(&daemon, installation);
    for original in originals.into_iter().step_by(5) {
        let rest = 100 - PART;
        assert_eq!(parties.refund(original, next(), rest + 1), Code::RefundExceedsOriginal);
        let codes = parties.race([refund_of(original, next(), rest), refund_of(original, next(), 1)]);
        // The whole rest, or one cent of it and then not the whole rest.
        assert!(
            codes == [Code::Committed, Code::RefundExceedsOriginal]
                || codes == [Code::RefundExceedsOriginal, Code::Committed],
            "{codes:?}"
        );
    }
    stop(daemon);
    audited(installation);
}

#[test]
fn a_debit_of_a_sealed_day_may_be_refunded_on_its_ninetieth_day_and_not_on_its_ninety_first_on_both_backends() {
    for backend in BACKENDS {
        for (days, expected) in [(90, Code::Committed), (91, Code::OriginalNotFound)] {
            let installation = installation(backend, None);
            let daemon = installation.start();
            let mut parties = Parties::connect(&daemon, &installation);
            let original = parties.pay(1, 100).id;
            drop(parties);
            stop(daemon);
            age(&installation.path("data"), days);
            let aged = PaymentId::new(
                days_before(original.date(), days),
                original.originator(),
                original.lane(),
                original.serial(),
            );
            let daemon = installation.start();
            eventually("the day is sealed", || {
                sealed_days(&installation).iter().any(|sealed| *sealed >= aged.date().0)
            });
            let mut parties = Parties::connect(&daemon, &installation);
            let (first, second) = (parties.refund(aged, 2, 60), parties.refund(aged, 3, 41));
            if today() != original.date() {
                // Midnight in Shanghai has passed: what was its ninetieth day is its ninety-first.
                return;
            }
            let of_too_much = if expected == Code::Committed {
                Code::RefundExceedsOriginal
            } else {
                expected
            };
            assert_eq!((first, second), (expected, of_too_much), "{backend:?}, {days} days");
            assert_eq!(parties.refund(aged, 4, 40), expected, "{backend:?}, {days} days");
            kill(daemon);
            // What was given back is known after a restart, too.
            let daemon = installation.start();
            let mut parties = Parties::connect(&daemon, &installation);
            assert_eq!(parties.refund(aged, 5, 1), of_too_much, "{backend:?}, {days} days");
            stop(daemon);
            audited(&installation);
        }
    }
}
