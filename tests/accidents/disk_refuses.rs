//! A disk that refuses a durable write, or takes only a part of it, at each write in turn: the switch says so and ends,
//! what it had said stays true, and the write is not tried again. And a disk that lies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use clearway::config::BackendChoice;
use clearway::domain::Code;
use clearway::wire::PaymentRequest;

use crate::books::all_books_agree;
use crate::places::is_refused;
use crate::players::Load;
use crate::support::daemon::Installation;
use crate::support::disk_calls::{DiskCall, Fate, Wish, supervise};
use crate::support::*;

/// The writes that are refused in turn: what a start writes again, what it appends, and then payments'.
const WRITES: u64 = 8;

/// What the disk does with one call of a kind in each run, and with all others: it does them.
type Fault = fn(&DiskCall) -> Fate;

fn refuses(_: &DiskCall) -> Fate {
    Fate::Refused(libc::EIO)
}

fn takes_half(call: &DiskCall) -> Fate {
    // In whole sectors, as disks do.
    Fate::Short(call.bytes() / 2 / 512 * 512)
}

/// Runs the switch under load `WRITES` times; in run `n`, `fault` comes over the `n`th call of this kind on a segment.
fn at_each_write(installation: &Installation, wish: Wish, fault: Fault) {
    let load = Load::new(&installation.directory, 0..2, 2..4, 1);
    // The journal is there before the first accident.
    let mut daemon = installation.start();
    load.scheme.started(daemon.listen);
    load.go_on(100);
    daemon.signal(libc::SIGKILL);
    assert_eq!(daemon.exit_code(), None);
    for nth in 0..WRITES {
        let (count, after) = (AtomicU64::new(0), Arc::new(Mutex::new(Vec::new())));
        let later = Arc::clone(&after);
        let mut command = installation.command();
        let supervisor = supervise(&mut command, move |call| {
            let seen = (call.wish == wish && call.on_segment()).then(|| count.fetch_add(1, Ordering::Relaxed));
            if seen == Some(nth) {
                return fault(call);
            }
            if call.on_segment() && count.load(Ordering::Relaxed) > nth {
                later.lock().unwrap().push(format!("{call:?}"));
            }
            Fate::Done
        });
        let log_before = installation.log().len();
        let exit_code = match installation.try_start_by(&mut command) {
            // While it was starting: nobody has been told anything.
            Err(status) => status.code(),
            Ok(mut daemon) => {
                load.scheme.started(daemon.listen);
                daemon.exit_code()
            }
        };
        drop(command);
        supervisor.join().unwrap();
        assert_eq!(exit_code, Some(1), "write {nth}: {}", installation.log());
        assert_eq!(
            *after.lock().unwrap(),
            Vec::<String>::new(),
            "written after write {nth} failed"
        );
        let log = installation.log();
        let told: Vec<&str> = log[log_before..]
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(told.len(), 1, "said once: {log}");
        let final_write = told[0].contains(".seg: a durable write of ") && told[0].contains("is not tried again");
        // What a start finds and flushes.
        assert!(
            final_write || told[0].contains(".seg: cannot flush the segment"),
            "{}",
            told[0]
        );
        load.check();
    }
    let daemon = installation.start();
    load.scheme.started(daemon.listen);
    load.go_on(100);
    let known = load.finish();
    assert!(all_books_agree(installation, daemon, &known) >= 200);
}

#[test]
fn a_disk_that_refuses_any_write_ends_the_switch_and_takes_back_nothing_it_has_said() {
    let installation = Installation::new(BackendChoice::Auto).with_short_segments();
    at_each_write(&installation, Wish::Write, refuses);
}

#[test]
fn a_disk_that_takes_a_part_of_any_write_ends_the_switch_and_takes_back_nothing_it_has_said() {
    let installation = Installation::new(BackendChoice::Auto).with_short_segments();
    at_each_write(&installation, Wish::Write, takes_half);
}

#[test]
fn a_disk_that_refuses_any_sync_ends_the_switch_and_takes_back_nothing_it_has_said() {
    // A file system in memory is written with pwrite and fdatasync.
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let installation =
        Installation::in_place(place, directory(2, 2), BackendChoice::Auto, |_| {}).with_short_segments();
    at_each_write(&installation, Wish::Sync, refuses);
}

/// What no switch can see when it happens is seen at the next start: a later write states the one that is not there.
#[test]
fn a_disk_that_lied_about_a_write_is_found_out_at_the_next_start() {
    const PAYMENTS: u64 = 200;
    let installation = Installation::new(BackendChoice::Auto).with_short_segments();
    let lied = Arc::new(AtomicU64::new(0));
    let place = Arc::clone(&lied);
    let mut command = installation.command();
    let supervisor = supervise(&mut command, move |call| {
        // More than a block, so that the next write does not write all of it again.
        let lies = call.wish == Wish::Write && call.on_segment() && call.bytes() > 8_192;
        if lies && place.load(Ordering::Relaxed) == 0 {
            place.store(call.offset, Ordering::Relaxed);
            return Fate::Pretended;
        }
        Fate::Done
    });
    let mut daemon = installation.start_by(&mut command);
    let mut institution = Participant::connect(daemon.listen, &installation.directory, 0, 0);
    let mut bank = Participant::connect_as(daemon.listen, &installation.directory, 2, &taking(1_000));
    let requests: Vec<_> = (1..=PAYMENTS).map(|serial| debit(0, 2, serial, serial)).collect();
    institution.send_bytes(bytemuck::cast_slice(&requests));
    for _ in 0..PAYMENTS {
        let request: PaymentRequest = bank.expect();
        bank.send(&yes(&request));
    }
    for _ in 0..PAYMENTS {
        assert_eq!(code(&institution.expect()), Code::Committed);
    }
    let offset = lied.load(Ordering::Relaxed);
    assert!(offset > 0, "no write was long enough to lie about");
    daemon.signal(libc::SIGKILL);
    assert_eq!(daemon.exit_code(), None);
    drop(command);
    supervisor.join().unwrap();

    let told = is_refused(&installation, &mut installation.command());
    assert!(
        told.contains("000000000000.seg at offset ") && told.contains("had been durable"),
        "{told}"
    );
    let at: u64 = told
        .split(" at offset ")
        .nth(1)
        .unwrap()
        .split(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    // Where that write began, in its first block.
    assert!(at >= offset && at < offset + 2 * 4_096, "{at} and {offset}: {told}");
}
