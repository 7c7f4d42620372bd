//! A journal that is archived, removed, restored and read again, as an operator does it, on the journal of a real run.

#[path = "support/command.rs"]
mod command;

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use assert_cmd::assert::Assert;
use command::{clearway, stderr, stdout};
use serde_json::Value;
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 1 << 20;

fn json(assert: &Assert) -> Value {
    serde_json::from_str(&stdout(assert)).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in ASCII")
}

/// What a short evening left in its data directory, in segments of 1 MiB; made once, changed by nobody.
static EVENING: LazyLock<TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir().expect("a temporary directory");
    let profile = include_str!("../hw-profiles/small-vm.toml").replace("segment_mib = 64", "segment_mib = 1");
    let file = place.path().join("profile.toml");
    fs::write(&file, profile).expect("it is written");
    let arguments = [
        "demo",
        "--seconds",
        "3",
        "--rate",
        "5000",
        "--data",
        text(place.path()),
        "--profile",
        text(&file),
    ];
    clearway(&arguments).code(0);
    place
});

fn copied() -> TempDir {
    let place = tempfile::tempdir().expect("a temporary directory");
    let from = EVENING.path();
    let copied = Process::new("cp")
        .arg("-r")
        .arg(from.join("."))
        .arg(place.path())
        .status();
    assert!(copied.expect("cp runs").success());
    place
}

fn archived(data: &Path) -> (TempDir, Value) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let made = json(
        &clearway(&[
            "journal",
            "archive",
            text(data),
            "--to",
            text(place.path()),
            "--json",
            "-",
        ])
        .code(0),
    );
    (place, made)
}

fn state(arguments: &[&str]) -> (Value, Value) {
    let replayed = json(&clearway(&[&["journal", "replay"], arguments, &["--json", "-"]].concat()).code(0));
    (replayed["event_number"].clone(), replayed["state_hash"].clone())
}

fn segment(journal: &Path, number: u64) -> PathBuf {
    journal.join(format!("{number:012}.seg"))
}

fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 4], offset).expect("a byte");
}

#[test]
fn archived_and_removed_segments_are_replayed_to_the_state_that_the_switch_ended_with() {
    let data = copied();
    let journal = data.path().join("journal");
    let (archive, made) = archived(data.path());
    let sealed = made["segments"].as_u64().unwrap();
    assert!(sealed >= 3, "{made}");
    assert!(made["ratio"].as_f64().unwrap() > 2.0, "{made}");
    let ended: Value = serde_json::from_slice(&fs::read(data.path().join("shutdown.json")).unwrap()).unwrap();
    let before = json(&clearway(&["journal", "verify", text(data.path()), "--json", "-"]).code(0));
    for number in 0..sealed {
        fs::remove_file(segment(&journal, number)).unwrap();
    }
    let refused = stderr(&clearway(&["journal", "replay", text(data.path())]).code(1));
    assert!(
        refused.contains("restore the older segments from the archive"),
        "{refused}"
    );
    // Together, without restoring; then restored in front of what is left; then the archive alone.
    let both = [text(data.path()), "--archive", text(archive.path())];
    assert_eq!(
        state(&both),
        (ended["event_number"].clone(), ended["state_hash"].clone())
    );
    let checkpoint = before["chain"]["value"].as_str().unwrap();
    let proved = clearway(&[&["journal", "verify"], &both[..], &["--checkpoint", checkpoint]].concat()).code(0);
    assert!(
        stdout(&proved).contains("this journal still holds the history it stood for"),
        "{}",
        stdout(&proved)
    );
    for command in ["stat", "dump", "tail"] {
        clearway(&[&["journal", command], &both[..]].concat()).code(0);
    }
    let of_archive = json(&clearway(&["journal", "verify", text(archive.path()), "--json", "-"]).code(0));
    assert_eq!(of_archive["chain"]["checked_batches"], sealed);
    clearway(&["journal", "restore", text(archive.path()), text(data.path())]).code(0);
    assert_eq!(state(&[text(data.path())]).1, ended["state_hash"]);
    let after = json(&clearway(&["journal", "verify", text(data.path()), "--json", "-"]).code(0));
    assert_eq!(after["chain"]["value"], before["chain"]["value"]);
    assert_eq!(after["chain"]["checked_batches"], before["chain"]["checked_batches"]);
}

#[test]
fn after_a_lost_disk_what_was_saved_behind_the_archive_proves_a_later_checkpoint_too() {
    let (archive, made) = archived(EVENING.path());
    let sealed = made["segments"].as_u64().unwrap();
    let stat = json(&clearway(&["journal", "stat", text(EVENING.path()), "--json", "-"]).code(0));
    let chain = &stat["chain"];
    assert!(chain["to"].as_u64().unwrap() > sealed * SEGMENT_BYTES, "{chain}");
    let new = tempfile::tempdir().unwrap();
    clearway(&["journal", "restore", text(archive.path()), text(new.path())]).code(0);
    let verify = |value: &str| clearway(&["journal", "verify", text(new.path()), "--checkpoint", value]);
    let value = chain["value"].as_str().unwrap();
    verify(value).code(1);
    for number in sealed.. {
        let saved = segment(&EVENING.path().join("journal"), number);
        if !saved.exists() {
            break;
        }
        fs::copy(saved, segment(&new.path().join("journal"), number)).unwrap();
    }
    let proved = stdout(&verify(value).code(0));
    assert!(proved.contains("still holds the history it stood for"), "{proved}");
}

#[test]
fn part_of_an_archive_is_restored_by_its_events() {
    let (archive, made) = archived(EVENING.path());
    let to = tempfile::tempdir().unwrap();
    let arguments = [
        "journal",
        "restore",
        text(archive.path()),
        text(to.path()),
        "--from",
        "9000",
        "--to",
        "9001",
        "--json",
        "-",
    ];
    let restored = json(&clearway(&arguments).code(0));
    assert!(restored["segments"].as_u64() < made["segments"].as_u64(), "{restored}");
    let of =
        |place: &Path| stdout(&clearway(&["journal", "dump", text(place), "--from", "9000", "--to", "9001"]).code(0));
    assert_eq!(of(to.path()), of(EVENING.path()));
    clearway(&["journal", "verify", text(to.path())]).code(0);
}

#[test]
fn a_byte_changed_in_an_archive_is_named_by_file_whatever_reads_it() {
    let (archive, _) = archived(EVENING.path());
    for name in ["000000000001.seg.zst", "000000000001.toml"] {
        let path = archive.path().join(name);
        flip(&path, 300);
        for command in ["verify", "stat", "replay"] {
            let said = stderr(&clearway(&["journal", command, text(archive.path())]).code(1));
            assert!(said.contains(text(&path)), "{command}: {said}");
        }
        flip(&path, 300);
    }
    clearway(&["journal", "verify", text(archive.path())]).code(0);
}

/// Changes a payload's byte and makes the record's CRC right again, as one who knows the format would.
fn rewrite(journal: &Path, event: &Value) {
    let payload = event["position"].as_u64().unwrap();
    let record = payload - 32;
    let path = segment(journal, record / SEGMENT_BYTES);
    let mut bytes = fs::read(&path).unwrap();
    let at = (record % SEGMENT_BYTES) as usize;
    let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    bytes[at + 32 + 40] ^= 1;
    bytes[at + 28..at + 32].fill(0);
    let seed = crc32c::crc32c(&bytes[16..32]) ^ (record >> 5) as u32;
    let crc = crc32c::crc32c_append(seed, &bytes[at..at + length]);
    bytes[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn history_rewritten_with_right_checksums_is_found_by_the_chain_and_a_chain_made_anew_by_a_checkpoint() {
    let data = copied();
    let journal = data.path().join("journal");
    let stat = json(&clearway(&["journal", "stat", text(data.path()), "--json", "-"]).code(0));
    let checkpoint = stat["chain"]["last_checkpoint"]["value"].as_str().unwrap();
    let asked = |value: &str| clearway(&["journal", "verify", text(data.path()), "--checkpoint", value]);
    asked(checkpoint).code(0);
    asked("17").code(2);
    let requests = stdout(
        &clearway(&[
            "journal",
            "dump",
            text(data.path()),
            "--kind",
            "request",
            "--to",
            "4000",
        ])
        .code(0),
    );
    let event: Value = serde_json::from_str(requests.lines().last().unwrap()).unwrap();
    rewrite(&journal, &event);
    let found = clearway(&["journal", "verify", text(data.path()), "--json", "-"]).code(1);
    assert_eq!(json(&found)["fault"], Value::Null, "the records alone tell nothing");
    let said = stderr(&found);
    let file = segment(&journal, event["position"].as_u64().unwrap() / SEGMENT_BYTES);
    assert!(
        said.contains("history was rewritten") && said.contains(text(&file)),
        "{said}"
    );
    let windows = stdout(&clearway(&["journal", "dump", text(EVENING.path()), "--kind", "window"]).code(0));
    let windows = windows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let checkpoints = windows
        .filter(|window| window["action"] != "open")
        .map(|window| window["event"].as_u64());
    let (before, after): (Vec<_>, Vec<_>) = checkpoints.partition(|&checkpoint| checkpoint < event["event"].as_u64());
    if let Some(Some(last)) = before.last() {
        assert!(
            said.contains(&format!("between the checkpoint of event {last} ")),
            "{last}: {said}"
        );
    }
    if let Some(Some(first)) = after.first() {
        assert!(said.contains(&format!("and that of event {first}")), "{first}: {said}");
    }
    let refused = clearway(&[
        "journal",
        "archive",
        text(data.path()),
        "--to",
        text(&data.path().join("archive")),
    ])
    .code(1);
    assert!(stderr(&refused).contains("history was rewritten"));
    // Who rewrites the chain, too: a start finds none and begins it anew.
    fs::remove_file(journal.join("chain")).unwrap();
    let settings = fs::read_to_string(data.path().join("clearway.toml")).unwrap();
    let settings = settings.replace(text(EVENING.path()), text(data.path()));
    let profile = format!("profile = \"{}\"", text(&data.path().join("profile.toml")));
    assert!(settings.contains(&profile), "{settings}");
    fs::write(data.path().join("clearway.toml"), settings).unwrap();
    let end = stat["chain"]["to"].as_u64();
    drop(Switch::start(data.path()).until_chained(end));
    clearway(&["journal", "verify", text(data.path())]).code(0);
    let said = stderr(&asked(checkpoint).code(1));
    assert!(said.contains("does not hold the history it stood for"), "{said}");
}

#[test]
fn an_archiving_that_is_killed_again_and_again_ends_with_a_whole_archive() {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive");
    let program = assert_cmd::cargo::cargo_bin("clearway");
    let started = Instant::now();
    for round in 0.. {
        assert!(started.elapsed() < Duration::from_secs(60), "it comes to no end");
        let mut child = Process::new(&program)
            .args(["journal", "archive", text(EVENING.path()), "--to", text(&archive)])
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        // Killed at the next change of the archive's files, at the second, at the third and so on, till it is through first.
        let mut seen = 0;
        let mut last = Vec::new();
        while seen <= round && child.try_wait().unwrap().is_none() {
            let now = names(&archive);
            seen += u64::from(now != last);
            last = now;
        }
        // It may have ended by itself.
        let _ended = child.kill();
        if child.wait().unwrap().success() {
            break;
        }
    }
    let verified = json(&clearway(&["journal", "verify", text(&archive), "--json", "-"]).code(0));
    let whole = archived(EVENING.path()).1;
    assert_eq!(verified["segments"], whole["segments"]);
    assert!(
        names(&archive).iter().all(|name| !name.ends_with(".new")),
        "{:?}",
        names(&archive)
    );
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A switch that goes on with an evening's journal.
struct Switch {
    child: Child,
    socket: PathBuf,
}

impl Switch {
    fn start(data: &Path) -> Self {
        let child = Process::new(assert_cmd::cargo::cargo_bin("clearway"))
            .args(["run", "--config", text(&data.join("clearway.toml"))])
            .stdout(Stdio::null())
            .stderr(fs::File::create(data.join("switch.log")).unwrap())
            .spawn()
            .expect("it starts");
        Self {
            child,
            socket: data.join("admin.sock"),
        }
    }

    fn status(&self) -> Option<Value> {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.write_all(b"status\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn until_chained(self, end: Option<u64>) -> Self {
        self.until("the chain is made anew", |status| status["chain"]["to"].as_u64() >= end);
        self
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        let mut status = Value::Null;
        while !holds(&status) {
            assert!(started.elapsed() < Duration::from_secs(90), "{what}: {status:#}");
            std::thread::sleep(Duration::from_millis(5));
            status = self.status().unwrap_or_default();
        }
        status
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn a_switch_archives_behind_its_live_journal_and_removes_nothing_that_a_start_may_need() {
    let data = copied();
    let archive = data.path().join("archive");
    let settings = fs::read_to_string(data.path().join("clearway.toml")).unwrap();
    let settings = settings.replace(text(EVENING.path()), text(data.path())).replace(
        "[archive]\nlevel = 1\n",
        "[archive]\ndirectory = \"archive\"\nlevel = 1\njournal_keep_mib = 1\n",
    );
    fs::write(data.path().join("clearway.toml"), settings).unwrap();
    let sealed = archived(EVENING.path()).1["segments"].as_u64().unwrap();
    let journal_before = names(&data.path().join("journal"));
    // Killed in the middle of it, it goes on with the next start.
    let switch = Switch::start(data.path());
    switch.until("the first segment is archived", |status| {
        status["archive"]["to"].as_u64() > Some(0)
    });
    drop(switch);
    let switch = Switch::start(data.path());
    let status = switch.until("all is archived and the bound is held against", |status| {
        status["archive"]["to"].as_u64() >= Some(sealed * SEGMENT_BYTES) && !status["archive"]["held_by"].is_null()
    });
    assert_eq!(status["archive"]["fault"], Value::Null);
    assert_eq!(status["chain"]["fault"], Value::Null);
    let said = status["archive"]["held_by"].as_str().unwrap();
    assert!(said.contains("no two snapshots"), "{said}");
    assert_eq!(status["archive"]["segments_retired"], 0);
    let chain = status["chain"]["value"].as_str().unwrap().to_owned();
    drop(switch);
    let journal = names(&data.path().join("journal"));
    assert!(journal_before.iter().all(|name| journal.contains(name)), "{journal:?}");
    let log = fs::read_to_string(data.path().join("switch.log")).unwrap();
    assert!(log.contains("may keep 1 MiB"), "{log}");
    clearway(&["journal", "verify", text(data.path()), "--checkpoint", &chain]).code(0);
    clearway(&["journal", "verify", text(&archive)]).code(0);
    let from_archive = state(&[text(data.path()), "--archive", text(&archive)]);
    assert_eq!(from_archive, state(&[text(data.path())]));
}
