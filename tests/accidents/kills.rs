//! `kill -9` under load, again and again, on one data directory.

use clearway::config::BackendChoice;

use crate::books::all_books_agree;
use crate::players::Load;
use crate::support::daemon::Installation;
use crate::support::directory;

const KILLS: u64 = 10;

fn killed_and_started_again(backend: BackendChoice) {
    let installation = Installation::of(directory(3, 3), backend, |_| {});
    let load = Load::new(&installation.directory, 0..3, 3..6, 2);
    for kill in 0..KILLS {
        let mut daemon = installation.start();
        load.scheme.started(daemon.listen);
        load.go_on(300 + 61 * kill);
        daemon.signal(libc::SIGKILL);
        assert_eq!(daemon.exit_code(), None, "it was killed");
    }
    let daemon = installation.start();
    load.scheme.started(daemon.listen);
    load.go_on(200);
    let known = load.finish();
    let payments = all_books_agree(&installation, daemon, &known);
    assert!(payments > KILLS * 300);
    let asked: u64 = known.banks.iter().map(|(_, bank)| bank.asked).sum();
    assert!(
        asked > KILLS,
        "the kills met payments that were open: {asked} of {payments}"
    );
}

#[test]
fn ten_kills_under_load_lose_no_answer_repeat_no_request_and_leave_all_books_equal_on_io_uring() {
    killed_and_started_again(BackendChoice::Uring);
}

#[test]
fn ten_kills_under_load_lose_no_answer_repeat_no_request_and_leave_all_books_equal_on_mio() {
    killed_and_started_again(BackendChoice::Mio);
}
