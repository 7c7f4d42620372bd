//! Settlement by the daemon as it is shipped: windows closed on demand under load, files that hold against themselves and
//! against what participants were told, a daemon that is killed while it writes, and a disk without room.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use clearway::config::{BackendChoice, Settings};
use clearway::domain::Code;
use clearway::wire::Answer;
use serde_json::Value;
use support::daemon::{Daemon, Installation, ask};
use support::file_system::FileSystem;
use support::*;

/// One institution and one bank that pay without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    paid: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Answer>>,
}

impl Load {
    fn start(installation: &Installation, daemon: &Daemon, first_serial: u64) -> Self {
        let mut institution = Participant::connect(daemon.listen, &installation.directory, 0, u64::MAX);
        let mut bank = Participant::connect(daemon.listen, &installation.directory, 2, u64::MAX);
        let (stop, paid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stops, pays) = (Arc::clone(&stop), Arc::clone(&paid));
        let thread = std::thread::spawn(move || {
            let mut answers = Vec::new();
            while !stops.load(Ordering::Relaxed) {
                let serial = first_serial + answers.len() as u64;
                answers.push(pay(&mut institution, &mut bank, serial, 100 + serial));
                pays.fetch_add(1, Ordering::Relaxed);
            }
            answers
        });
        Self { stop, paid, thread }
    }

    fn go_on(&self, payments: u64) {
        let until = self.paid.load(Ordering::Relaxed) + payments;
        eventually("payments go on", || {
            self.paid.load(Ordering::Relaxed) >= until || self.thread.is_finished()
        });
        assert!(!self.thread.is_finished(), "the load has ended");
    }

    fn finish(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn admin(installation: &Installation, request: &str) -> Value {
    ask(&installation.path("data/admin.sock"), request).unwrap()
}

/// The ids of the windows in this state.
fn windows(installation: &Installation, state: &str) -> Vec<String> {
    let told = admin(installation, "windows");
    let windows = told["windows"].as_array().unwrap();
    let is_such = |window: &&Value| window["state"] == state;
    windows
        .iter()
        .filter(is_such)
        .map(|window| window["id"].as_str().unwrap().to_owned())
        .collect()
}

fn close_window(installation: &Installation) -> String {
    let open = windows(installation, "open").remove(0);
    admin(installation, "close-window");
    eventually("the window closes", || windows(installation, "open") != [open.clone()]);
    open
}

fn becomes(installation: &Installation, window: &str, state: &str) {
    eventually(&format!("{window} becomes {state}"), || {
        windows(installation, state).iter().any(|id| id == window)
    });
}

fn settlement(installation: &Installation) -> PathBuf {
    installation.path("data/settlement")
}

/// The names and bytes of all files of a directory.
fn files_of(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else {
                files.insert(
                    entry.strip_prefix(directory).unwrap().to_owned(),
                    fs::read(&entry).unwrap(),
                );
            }
        }
    }
    files
}

fn sums_hold(directory: &Path) {
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let listed = fs::read_to_string(directory.join("SHA256SUMS"))
        .unwrap()
        .lines()
        .count();
    assert_eq!(listed + 1, files_of(directory).len(), "every file is in it");
}

/// Payment, amount, by window, as the institution's detail file has them.
fn details(directory: &Path, code: &str) -> BTreeSet<(String, u64)> {
    let text = fs::read_to_string(directory.join(format!("detail/{code}.csv"))).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[0].to_owned(), fields[4].parse().unwrap())
    });
    rows.collect()
}

#[test]
fn windows_closed_under_load_have_exactly_what_participants_were_told_and_no_late_commit() {
    let installation = Installation::of(directory(2, 2), BackendChoice::Auto, |settings: &mut Settings| {
        settings.windows.settle = true;
    });
    let mut daemon = installation.start();
    let load = Load::start(&installation, &daemon, 1);
    let mut closed = Vec::new();
    for _ in 0..3 {
        load.go_on(100);
        closed.push(close_window(&installation));
    }
    load.go_on(20);
    for window in &closed {
        becomes(&installation, window, "settled");
    }
    let answers = load.finish();
    let mut told: BTreeMap<String, BTreeSet<(String, u64)>> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| code(answer) == Code::Committed) {
        let row = (answer.id.to_string(), answer.amount_minor);
        told.entry(answer.window.to_string()).or_default().insert(row);
    }
    let institution = installation.directory.participants[0].terms.code.text();
    let bank = installation.directory.participants[2].terms.code.text();
    for window in &closed {
        let place = settlement(&installation).join(window);
        sums_hold(&place);
        assert_eq!(details(&place, &institution), told[window], "{window}");
        assert_eq!(details(&place, &bank), told[window], "{window}");
        let summary: Value = serde_json::from_slice(&fs::read(place.join("summary.json")).unwrap()).unwrap();
        let gross: u64 = told[window].iter().map(|(_, amount)| amount).sum();
        assert_eq!(summary["gross_minor"], gross);
        assert_eq!(summary["committed"], told[window].len());
    }
    let open = windows(&installation, "open").remove(0);
    assert!(!told[&open].is_empty() && !settlement(&installation).join(&open).exists());
    let status = &admin(&installation, "status")["settlement"];
    assert_eq!((&status["windows"], &status["aborted"]), (&3.into(), &0.into()));
    assert_eq!(status["last"]["window"], *closed.last().unwrap());

    // Stopped in order and started again: what is open goes on, and is settled with what it had before.
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let _daemon = installation.start();
    assert_eq!(close_window(&installation), open);
    becomes(&installation, &open, "settled");
    assert_eq!(
        details(&settlement(&installation).join(&open), &institution),
        told[&open]
    );
}

#[test]
fn a_daemon_that_is_killed_while_it_writes_comes_to_the_same_files() {
    // Snapshots all the time: the follower begins again in the middle of windows.
    let installation = Installation::of(directory(2, 2), BackendChoice::Auto, |settings: &mut Settings| {
        settings.follower.snapshot_every_s = 1;
    });
    let mut serial = 1;
    let (mut killed_writing, mut killed_windows) = (0, Vec::new());
    for round in 0..40 {
        let mut daemon = installation.start();
        let load = Load::start(&installation, &daemon, serial);
        load.go_on(40);
        let window = close_window(&installation);
        serial += load.finish().len() as u64;
        let temporary = settlement(&installation).join(format!(".{window}.tmp"));
        let place = settlement(&installation).join(&window);
        admin(&installation, "settle");
        eventually("it is written", || temporary.exists() || place.exists());
        daemon.signal(libc::SIGKILL);
        assert_eq!(daemon.exit_code(), None);
        if temporary.exists() && !place.exists() {
            killed_writing += 1;
        }
        killed_windows.push(window);
        if killed_writing >= 3 && round >= 3 {
            break;
        }
    }
    assert!(killed_writing > 0, "it was never killed while it wrote");
    // The last windows were begun: they are taken up again by themselves.
    let mut daemon = installation.start();
    for window in &killed_windows {
        becomes(&installation, window, "settled");
    }
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let replayed = report(&installation);
    for window in &killed_windows {
        let place = settlement(&installation).join(window);
        sums_hold(&place);
        let written = files_of(&place);
        assert!(written.len() > 8, "{:?}", written.keys());
        assert!(written == files_of(&replayed.path().join(window)), "{window}");
    }
}

/// All files, written again from the journal alone.
fn report(installation: &Installation) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut command = assert_cmd::Command::cargo_bin("clearway").unwrap();
    command
        .args(["settle", "report"])
        .arg(installation.path("data/journal"));
    command.arg("--out").arg(place.path()).assert().success();
    place
}

#[test]
fn a_settlement_that_finds_no_room_is_aborted_and_made_again_when_there_is_some() {
    let file_system = match FileSystem::in_memory(16 << 20) {
        Ok(file_system) => file_system,
        Err(error) => {
            eprintln!("not run: no file system can be mounted here ({error})");
            return;
        }
    };
    let installation = Installation::new(BackendChoice::Auto);
    std::os::unix::fs::symlink(file_system.path(), installation.path("full")).unwrap();
    let text = fs::read_to_string(installation.path("clearway.toml")).unwrap();
    let line = text
        .lines()
        .find(|line| line.contains("/settlement\""))
        .unwrap()
        .to_owned();
    let changed = text.replace(&line, "directory = \"full/settlement\"");
    fs::write(installation.path("clearway.toml"), changed).unwrap();

    let daemon = installation.start();
    let load = Load::start(&installation, &daemon, 1);
    load.go_on(50);
    let window = close_window(&installation);
    let facts = file_system.path().join(format!("settlement/spool/{window}.facts"));
    eventually("the spool is whole", || facts.exists());
    let ballast = file_system.fill();
    admin(&installation, "settle");
    becomes(&installation, &window, "aborted");
    let told = admin(&installation, "status")["settlement"].clone();
    assert!(told["last_error"].as_str().unwrap().contains("No space left"), "{told}");
    assert!(told["aborted"].as_u64() >= Some(1));
    let log = installation.log();
    assert!(
        log.contains("the settlement is aborted") && log.contains("clearway admin settle"),
        "{log}"
    );
    let place = file_system.path().join("settlement").join(&window);
    assert!(!place.exists() && admin(&installation, "status")["intake"] == "open");
    // Payments are taken and committed meanwhile, though the spool has no room either.
    load.go_on(50);

    fs::remove_file(ballast).unwrap();
    becomes(&installation, &window, "settled");
    sums_hold(&place);
    let answers = load.finish();
    let of_window = answers.iter().filter(|answer| answer.window.to_string() == window);
    let told: BTreeSet<_> = of_window
        .map(|answer| (answer.id.to_string(), answer.amount_minor))
        .collect();
    let institution = installation.directory.participants[0].terms.code.text();
    assert_eq!(details(&place, &institution), told);
    let next = close_window(&installation);
    admin(&installation, "settle");
    becomes(&installation, &next, "settled");
    sums_hold(&file_system.path().join("settlement").join(next));
}

#[test]
fn without_files_a_window_is_settled_as_soon_as_it_is_asked_for_and_the_status_says_so() {
    let installation = Installation::of(directory(2, 2), BackendChoice::Auto, |settings: &mut Settings| {
        settings.settlement.files = false;
    });
    let daemon = installation.start();
    let load = Load::start(&installation, &daemon, 1);
    load.go_on(5);
    let window = close_window(&installation);
    admin(&installation, "settle");
    becomes(&installation, &window, "settled");
    load.finish();
    assert_eq!(admin(&installation, "status")["settlement"]["files_are_written"], false);
    assert!(!settlement(&installation).join(window).exists());
}
