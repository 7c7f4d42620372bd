//! The very first start, killed before each of its calls on the disk in turn: the next one makes a journal of what is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clearway::config::BackendChoice;

use crate::places::pays;
use crate::support::daemon::Installation;
use crate::support::disk_calls::{Fate, supervise};

#[test]
fn a_first_start_killed_before_any_call_on_the_disk_is_made_good_by_the_next() {
    let installation = Installation::new(BackendChoice::Auto).with_short_segments();
    let mut kills = 0;
    loop {
        let killed = Arc::new(AtomicBool::new(false));
        let kills_it = Arc::clone(&killed);
        let (mut seen, nth) = (0, kills);
        let mut command = installation.command();
        let supervisor = supervise(&mut command, move |_| {
            seen += 1;
            if seen <= nth {
                return Fate::Done;
            }
            kills_it.store(true, Ordering::Relaxed);
            Fate::Killed
        });
        let started = installation.try_start_by(&mut command);
        if let Ok(daemon) = started {
            // It was ready before that call: from here on it is a kill like any other.
            daemon.signal(libc::SIGKILL);
            break;
        }
        drop(command);
        supervisor.join().unwrap();
        assert!(killed.load(Ordering::Relaxed), "{}", installation.log());
        kills += 1;
        pays(&installation, &mut installation.start(), 1, 0);
        std::fs::remove_dir_all(installation.path("data")).unwrap();
    }
    // A segment takes three calls at least: its room, its zeros, its header; and the first events one.
    assert!(kills >= 7, "the start was over after {kills} calls");
}
