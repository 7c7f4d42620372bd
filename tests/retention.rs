//! A journal that stays within its bound while many times that much is journaled, by the daemon as it is shipped: killed
//! at random moments, started again from snapshots with its first segments gone, and read as a whole with its archive.

#[path = "accidents/books.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod books;
#[path = "accidents/players.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod players;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use books::all_books_agree_over;
use clearway::config::{BackendChoice, Directory, Settings};
use clearway::journal::Archive;
use clearway::sim::Random;
use players::Load;
use serde_json::Value;
use support::daemon::{Daemon, Installation, ask};
use support::{PATIENCE, directory, eventually_within};

/// How many times the bound is journaled, where it is set.
const LONGER: &str = "CLEARWAY_RETENTION_TIMES";
const SEGMENT_BYTES: u64 = 1 << 20;
/// What the journal may keep.
const KEEP_BYTES: u64 = 7 * SEGMENT_BYTES;
/// What may be there besides at any moment: the segment that is being made, and what was journaled before the load looked
/// whether it must wait.
const BESIDES_BYTES: u64 = 3 * SEGMENT_BYTES;

fn participants() -> Directory {
    let mut directory = directory(3, 3);
    directory.scheme.resident_payments = 2_048;
    directory
}

/// A journal of few segments, all that leaves it archived, snapshots as often as may be.
fn bounded(settings: &mut Settings) {
    settings.archive.directory = Some(settings.data.with_file_name("archive"));
    settings.archive.journal_keep_mib = Some(KEEP_BYTES >> 20);
    settings.follower.snapshot_every_s = 1;
    settings.follower.snapshot_journal_mib = 1;
    settings.follower.payments_in_memory = 4_096;
    settings.windows.close_every_s = Some(1);
}

fn installation(backend: BackendChoice) -> Installation {
    Installation::of(participants(), backend, bounded)
        .with_short_segments()
        .with_profile("prepared_segments = 2", "prepared_segments = 1")
}

fn status(installation: &Installation) -> Value {
    ask(&installation.path("data/admin.sock"), "status").expect("the switch answers")
}

/// The numbers of the segments that are there, and the bytes of all that is or will be one.
fn segments(journal: &Path) -> (Vec<u64>, u64) {
    let (mut numbers, mut bytes) = (Vec::new(), 0);
    for entry in fs::read_dir(journal).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.contains(".seg") {
            // It may have another name by now.
            bytes += entry.metadata().map_or(0, |facts| facts.len());
            numbers.extend(name.strip_suffix(".seg").map(|number| number.parse::<u64>().unwrap()));
        }
    }
    numbers.sort_unstable();
    (numbers, bytes)
}

fn clearway(arguments: &[&str], exit_code: i32) -> (Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_clearway"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {said}");
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Lets the load wait until the journal is within its bound.
fn wait_for_the_bound(installation: &Installation, load: &Load) {
    let is_within = || segments(&installation.path("data/journal")).1 <= KEEP_BYTES;
    if !is_within() {
        load.pause(true);
        eventually_within(6 * PATIENCE, "the journal is within its bound again", || {
            load.check();
            is_within()
        });
        load.pause(false);
    }
}

/// Looks at the journal's size, again and again, until it is dropped.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Watch {
    fn over(journal: &Path) -> Self {
        let (over, journal) = (Arc::new(AtomicBool::new(false)), journal.to_owned());
        let is_over = Arc::clone(&over);
        let look = move || {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = segments(&journal).1.max(most);
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        };
        Self {
            over,
            thread: Some(std::thread::spawn(look)),
        }
    }

    /// The most bytes that were seen.
    fn most(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Journals `times` the bound, with a kill now and then.
fn journal_many_times_the_bound(backend: BackendChoice, times: u64) {
    let seed = u64::from(std::process::id());
    let times = std::env::var(LONGER).map_or(times, |times| times.parse().expect("a number"));
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let installation = installation(backend);
    let (journal, archive) = (installation.path("data/journal"), installation.path("archive"));
    let load = Load::new(&installation.directory, 0..3, 3..6, 2);
    let watch = Watch::over(&journal);
    let (mut taken_away, mut kills, mut from_snapshots_alone) = (Vec::new(), 0, 0);
    let daemon = loop {
        let starts_within = segments(&journal).0.first() > Some(&0);
        let mut daemon = installation.start();
        load.scheme.started(daemon.listen);
        if starts_within {
            from_snapshots_alone += 1;
            let begun_with = &status(&installation)["start"]["snapshot_event"];
            assert!(begun_with.as_u64() > Some(0), "{begun_with}");
        }
        let mut journaled = 0;
        for _ in 0..=random.below(5) {
            load.go_on(1 + random.below(2_000));
            wait_for_the_bound(&installation, &load);
            // On a quick machine no life is as long as the windows' second.
            ask(&installation.path("data/admin.sock"), "close-window").expect("the switch answers");
            let status = status(&installation);
            journaled = status["journal"]["durable"].as_u64().unwrap();
            taken_away.extend(status["chain"]["checkpoint"].as_str().map(str::to_owned));
            assert_eq!(
                (&status["chain"]["fault"], &status["archive"]["fault"]),
                (&Value::Null, &Value::Null)
            );
            assert_eq!(status["intake"], "open");
        }
        if journaled >= times * KEEP_BYTES && from_snapshots_alone > 1 {
            break daemon;
        }
        load.go_on(1 + random.below(300));
        daemon.signal(libc::SIGKILL);
        assert_eq!(daemon.exit_code(), None, "it was killed");
        kills += 1;
    };
    let most = watch.most();
    println!("{kills} kills; {} MiB of segments at most", most >> 20);
    assert!(
        most <= KEEP_BYTES + BESIDES_BYTES,
        "{} MiB at {KEEP_BYTES} bytes",
        most >> 20
    );
    let known = load.finish();
    let whole = tempfile::tempdir().unwrap();
    let payments = all_books_agree_over(&installation, daemon, &known, || {
        let threads = std::num::NonZeroUsize::MIN;
        let opened = Archive::open(&archive).unwrap();
        opened
            .put_before(Some(&journal), whole.path(), threads, &|_| {})
            .unwrap();
        whole.path().to_owned()
    });
    println!("{payments} payments");
    let oldest = segments(&journal).0[0];
    assert!((oldest + 1) * SEGMENT_BYTES >= (times - 1) * KEEP_BYTES, "{oldest}");
    the_whole_is_read_by_the_tools(&installation, &taken_away);
}

/// Ended in good order, with its first segments in the archive alone.
fn the_whole_is_read_by_the_tools(installation: &Installation, taken_away: &[String]) {
    let (journal, archive) = (installation.path("data/journal"), installation.path("archive"));
    let ended = installation.shutdown_report();
    let oldest = segments(&journal).0[0];
    let both = [text(&journal), "--archive", text(&archive)];
    let asked = |command, more: &[&str]| clearway(&[&["journal", command], &both[..], more].concat(), 0).0;

    let replayed = asked("replay", &["--json", "-"]);
    assert_eq!(
        (&replayed["event_number"], &replayed["state_hash"]),
        (&ended["event_number"], &ended["state_hash"])
    );
    let mut checkpoints = vec!["--json", "-"];
    assert!(!taken_away.is_empty());
    for value in taken_away {
        checkpoints.extend(["--checkpoint", value]);
    }
    let verified = asked("verify", &checkpoints);
    let (events, chain) = (&verified["events"], &verified["chain"]);
    assert_eq!(
        (events, &chain["checked_from"]),
        (&ended["event_number"], &Value::from(0))
    );
    let answers = chain["asked"].as_array().unwrap();
    assert!(answers.iter().all(|answer| answer["checked"] == true), "{answers:#?}");

    let dumped = Command::new(env!("CARGO_BIN_EXE_clearway"))
        .args(["journal", "dump"])
        .args(both)
        .output()
        .unwrap();
    let dumped = String::from_utf8(dumped.stdout).unwrap();
    let numbers = dumped
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_u64().unwrap());
    assert!(numbers.eq(1..=events.as_u64().unwrap()));

    // The live journal alone knows what it does not hold.
    let (_, said) = clearway(&["journal", "replay", text(&journal)], 1);
    assert!(said.contains("restore the older segments from the archive"), "{said}");
    let (_, said) = clearway(
        &["journal", "verify", text(&journal), "--checkpoint", &taken_away[0]],
        1,
    );
    assert!(said.contains("ask again with --archive"), "{said}");
    let (alone, _) = clearway(&["journal", "verify", text(&journal), "--json", "-"], 0);
    let begins_at = alone["chain"]["from"].as_u64().unwrap();
    assert!(begins_at <= oldest * SEGMENT_BYTES);
    let kept = ended["status"]["journal"]["durable"].as_u64().unwrap() - begins_at;
    assert!(
        kept <= 2 * KEEP_BYTES + SEGMENT_BYTES,
        "the chain is of {kept} bytes of journal"
    );
    clearway(&["journal", "verify", text(&archive)], 0);
}

#[test]
fn many_times_the_bound_is_journaled_over_kills_and_all_of_it_is_read_again_on_io_uring() {
    journal_many_times_the_bound(BackendChoice::Uring, 3);
}

#[test]
fn many_times_the_bound_is_journaled_over_kills_and_all_of_it_is_read_again_on_mio() {
    journal_many_times_the_bound(BackendChoice::Mio, 2);
}

/// Changes a key of the daemon's settings.
fn set(installation: &Installation, key: &str, value: &str) {
    let path = installation.path("clearway.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let line = settings
        .lines()
        .find(|line| line.starts_with(&format!("{key} = ")))
        .unwrap();
    fs::write(&path, settings.replace(line, &format!("{key} = {value}"))).unwrap();
}

fn stop(mut daemon: Daemon) {
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn what_is_still_needed_is_kept_beyond_the_bound_and_payments_go_on_and_it_is_said_who_needs_it() {
    let installation = installation(BackendChoice::Auto);
    let journal = installation.path("data/journal");
    let load = Load::new(&installation.directory, 0..3, 3..6, 2);
    let held_by = |code: &str, load: &Load| {
        eventually_within(6 * PATIENCE, "the journal grows past its bound", || {
            load.check();
            segments(&journal).1 > KEEP_BYTES + SEGMENT_BYTES
        });
        load.pause(true);
        eventually_within(6 * PATIENCE, "it is said who needs the oldest segment", || {
            status(&installation)["archive"]["held_by_code"] == code
        });
        load.pause(false);
        load.go_on(500);
        assert_eq!(status(&installation)["intake"], "open");
        assert!(
            installation.log().contains(&format!("held_by=\"{code}\"")),
            "{}",
            installation.log()
        );
    };

    // No two snapshots.
    set(&installation, "snapshot_every_s", "86400");
    set(&installation, "snapshot_journal_mib", "1024");
    set(&installation, "close_every_s", "86400");
    let daemon = installation.start();
    load.scheme.started(daemon.listen);
    held_by("snapshots", &load);
    assert_eq!(segments(&journal).0[0], 0);
    stop(daemon);

    // Two snapshots, and no place for the archive.
    set(&installation, "snapshot_every_s", "1");
    set(&installation, "snapshot_journal_mib", "1");
    let archived = fs::read_dir(installation.path("archive")).unwrap().count();
    assert!(archived > 4, "{archived}");
    fs::rename(installation.path("archive"), installation.path("away")).unwrap();
    fs::write(installation.path("archive"), "a file where a directory should be").unwrap();
    let daemon = installation.start();
    load.scheme.started(daemon.listen);
    held_by("archive", &load);
    assert!(!status(&installation)["archive"]["fault"].is_null());
    assert_eq!(segments(&journal).0[0], 0);
    stop(daemon);

    // Nothing is in the way.
    fs::remove_file(installation.path("archive")).unwrap();
    fs::rename(installation.path("away"), installation.path("archive")).unwrap();
    let daemon = installation.start();
    load.scheme.started(daemon.listen);
    load.go_on(3_000);
    wait_for_the_bound(&installation, &load);
    load.pause(true);
    eventually_within(6 * PATIENCE, "nobody holds the bound", || {
        let archive = status(&installation)["archive"].clone();
        archive["held_by_code"].is_null() && archive["fault"].is_null()
    });
    load.pause(false);
    stop(daemon);

    // The register has lost a file: what it would be made again from is kept.
    let lost = fs::read_dir(installation.path("data/register"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let lost = fs::read_dir(lost).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(lost).unwrap();
    let oldest = segments(&journal).0[0];
    assert!(oldest > 0);
    let daemon = installation.start();
    load.scheme.started(daemon.listen);
    held_by("register", &load);
    assert_eq!(status(&installation)["archive"]["segments_retired"], 0);
    assert!(
        segments(&journal).0[0] <= oldest + 1,
        "but for one that stood by to be used again"
    );
    stop(daemon);
    drop(load);
}
