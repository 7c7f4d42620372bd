//! A disk that refuses a durable write, or takes only a part of it, at each write in turn: the switch says so and ends,
//! what it had said stays true, and the write is not tried again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use clearway::config::BackendChoice;

use crate::books::all_books_agree;
use crate::players::Load;
use crate::support::daemon::Installation;
use crate::support::directory;
use crate::support::disk_calls::{DiskCall, Fate, Wish, supervise};

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
