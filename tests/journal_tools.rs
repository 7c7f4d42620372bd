//! `clearway journal`, driven as an operator does, on the journal of a real run.

#[path = "support/command.rs"]
mod command;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::LazyLock;

use assert_cmd::assert::Assert;
use command::{clearway, stderr, stdout};
use serde_json::Value;
use tempfile::TempDir;

fn json(assert: &Assert) -> Value {
    serde_json::from_str(&stdout(assert)).expect("JSON")
}

fn lines(assert: &Assert) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).expect("a line of JSON");
    stdout(assert).lines().map(parse).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in ASCII")
}

/// What a short evening left in its data directory; made once, changed by nobody.
static EVENING: LazyLock<TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir().expect("a temporary directory");
    let arguments = ["demo", "--seconds", "2", "--rate", "200", "--data", text(place.path())];
    clearway(&arguments).code(0);
    place
});

fn evening() -> &'static Path {
    EVENING.path()
}

/// A copy of the evening's journal that a test may damage. Holes stay holes: segments are long and mostly empty.
fn copied() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let journal = place.path().join("journal");
    let copied = std::process::Command::new("cp")
        .args(["-r", "--sparse=always"])
        .arg(evening().join("journal"))
        .arg(&journal)
        .status()
        .expect("cp runs");
    assert!(copied.success());
    (place, journal)
}

fn flip(journal: &Path, position: u64, segment_bytes: u64) {
    let path = journal.join(format!("{:012}.seg", position / segment_bytes));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("the segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, position % segment_bytes).expect("a byte");
    file.write_all_at(&[byte[0] ^ 4], position % segment_bytes)
        .expect("a byte");
}

#[test]
fn the_journal_of_a_run_is_verified_in_either_place() {
    let data = json(&clearway(&["journal", "verify", text(evening()), "--json", "-"]).code(0));
    assert_eq!((&data["well"], &data["fault"]), (&true.into(), &Value::Null));
    assert!(data["events"].as_u64() > Some(540), "{data}");
    let journal = evening().join("journal");
    let itself = json(&clearway(&["journal", "verify", text(&journal), "--json", "-"]).code(0));
    assert_eq!(itself["end_position"], data["end_position"]);
    let said = stdout(&clearway(&["journal", "verify", text(evening())]).code(0));
    assert!(said.contains("every record is as it was written"), "{said}");
}

#[test]
fn a_bit_flipped_below_the_watermark_is_named_by_file_and_offset() {
    let (_place, journal) = copied();
    let sound = json(&clearway(&["journal", "verify", text(&journal), "--json", "-"]).code(0));
    let segment_bytes = sound["segment_bytes"].as_u64().unwrap();
    let event = &lines(&clearway(&["journal", "dump", text(&journal), "--from", "700", "--to", "700"]).code(0))[0];
    let payload = event["position"].as_u64().unwrap();
    flip(&journal, payload - 32 + 8, segment_bytes);
    let assert = clearway(&["journal", "verify", text(&journal), "--json", "-"]).code(1);
    let fault = &json(&assert)["fault"];
    assert_eq!(fault["offset"], (payload - 32) % segment_bytes);
    let file = journal.join(format!("{:012}.seg", payload / segment_bytes));
    assert_eq!(fault["file"], text(&file));
    let said = stderr(&assert);
    assert!(
        said.contains(text(&file)) && said.contains("restore the file from a copy"),
        "{said}"
    );
    for command in ["stat", "dump", "tail", "replay"] {
        let said = stderr(&clearway(&["journal", command, text(&journal)]).code(1));
        assert!(said.contains(text(&file)), "{command}: {said}");
    }
}

#[test]
fn a_torn_end_is_well_and_its_bytes_are_told() {
    let (_place, journal) = copied();
    let sound = json(&clearway(&["journal", "verify", text(&journal), "--json", "-"]).code(0));
    let (end, segment_bytes) = (
        sound["end_position"].as_u64().unwrap(),
        sound["segment_bytes"].as_u64().unwrap(),
    );
    let path = journal.join(format!("{:012}.seg", end / segment_bytes));
    let file = OpenOptions::new().write(true).open(path).expect("the segment");
    file.write_all_at(&[7; 100], end % segment_bytes)
        .expect("it is written");
    let torn = json(&clearway(&["journal", "verify", text(&journal), "--json", "-"]).code(0));
    assert_eq!(torn["bytes_behind_end"], 100);
    assert_eq!(
        (&torn["end_position"], &torn["events"]),
        (&sound["end_position"], &sound["events"])
    );
    let said = stdout(&clearway(&["journal", "verify", text(&journal)]).code(0));
    assert!(said.contains("100 bytes lie behind the end"), "{said}");
}

#[test]
fn a_dump_of_one_payment_tells_its_story() {
    let request = &lines(&clearway(&["journal", "dump", text(evening()), "--kind", "request"]).code(0))[0];
    let id = request["payment"].as_str().unwrap();
    let story = lines(&clearway(&["journal", "dump", text(evening()), "--payment", id]).code(0));
    assert_eq!(&story[0], request);
    assert!(
        story
            .iter()
            .all(|event| event["payment"] == id || event["original"] == id)
    );
    let reply = story
        .iter()
        .find(|event| event["kind"] == "reply")
        .expect("its bank answered");
    assert_eq!(
        (&reply["regarding"], &reply["amount_minor"]),
        (&"request".into(), &request["amount_minor"])
    );
    assert_eq!(reply["sender"], request["responder"]);
}

#[test]
fn a_dump_keeps_to_its_range_and_the_tail_is_the_end_of_it() {
    let all = lines(&clearway(&["journal", "dump", text(evening())]).code(0));
    assert!(all.iter().zip(1_u64..).all(|(event, number)| event["event"] == number));
    assert_eq!(
        (&all[0]["kind"], &all[0]["participant_count"]),
        (&"genesis".into(), &539.into())
    );
    let some = lines(&clearway(&["journal", "dump", text(evening()), "--from", "5", "--to", "9"]).code(0));
    assert_eq!(some, all[4..9]);
    let last = lines(&clearway(&["journal", "tail", text(evening())]).code(0));
    assert_eq!(last, all[all.len() - 10..]);
}

#[test]
fn the_figures_add_up_to_what_a_dump_shows() {
    let figures = json(&clearway(&["journal", "stat", text(evening()), "--json", "-"]).code(0));
    let kinds = figures["kinds"].as_object().unwrap();
    for kind in ["request", "reply", "window", "participant"] {
        let dumped = lines(&clearway(&["journal", "dump", text(evening()), "--kind", kind]).code(0));
        assert_eq!(kinds[kind]["records"], dumped.len(), "{kind}");
    }
    let bytes: u64 = kinds.values().map(|kind| kind["bytes"].as_u64().unwrap()).sum();
    assert_eq!(figures["bytes"], bytes);
    assert_eq!(figures["durable_writes"], kinds["group"]["records"]);
    assert_eq!(figures["starts"], 1);
}

#[test]
fn a_replay_comes_to_the_state_that_the_switch_ended_with() {
    let ended: Value =
        serde_json::from_slice(&std::fs::read(evening().join("shutdown.json")).expect("it is there")).expect("JSON");
    let replayed = json(&clearway(&["journal", "replay", text(evening()), "--json", "-"]).code(0));
    for field in ["event_number", "state_hash"] {
        assert_eq!(replayed[field], ended[field], "{field}");
    }
    let part = json(&clearway(&["journal", "replay", text(evening()), "--until", "600", "--json", "-"]).code(0));
    assert_eq!(part["event_number"], 600);
    assert_ne!(part["state_hash"], ended["state_hash"]);
    let past = clearway(&["journal", "replay", text(evening()), "--until", "99999999"]).code(1);
    assert!(stderr(&past).contains("the journal ends at event"));
}

#[test]
fn a_place_without_a_journal_and_words_that_are_none_are_bad_usage() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for command in ["verify", "stat", "dump", "tail", "replay"] {
        let said = stderr(&clearway(&["journal", command, text(place.path())]).code(2));
        assert!(said.contains("there is no journal here"), "{command}: {said}");
    }
    clearway(&["journal", "dump", text(evening()), "--kind", "group"]).code(2);
    clearway(&["journal", "dump", text(evening()), "--payment", "17"]).code(2);
}

#[test]
fn a_followed_journal_shows_what_a_running_switch_makes_durable_until_it_is_interrupted() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let program = assert_cmd::cargo::cargo_bin("clearway");
    let mut demo = Process::new(&program)
        .args(["demo", "--seconds", "3", "--rate", "200", "--data", text(place.path())])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(demo.stderr.take().expect("piped")).lines();
    assert!(
        said.by_ref().any(|line| line.expect("text").contains("switch ready")),
        "the switch gets ready"
    );
    let reading = std::thread::spawn(move || said.count());
    let mut tail = Process::new(&program)
        .args(["journal", "tail", text(place.path()), "--events", "1", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut shown = BufReader::new(tail.stdout.take().expect("piped")).lines();
    let mut next = || -> Value { serde_json::from_str(&shown.next().expect("a line").expect("text")).expect("JSON") };
    let first = next()["event"].as_u64().unwrap();
    for number in first + 1..first + 200 {
        assert_eq!(next()["event"], number, "every event, once, in order");
    }
    let interrupted = Process::new("kill").args(["-INT", &tail.id().to_string()]).status();
    assert!(interrupted.expect("kill runs").success());
    // What it still prints before it sees the signal.
    let _rest = shown.count();
    assert_eq!(tail.wait().expect("it ends").code(), Some(0));
    assert!(demo.wait().expect("it ends").success(), "the run was not disturbed");
    reading.join().expect("it reads to the end");
}

#[test]
fn the_bench_times_every_record_and_compares_with_the_file_system_in_the_same_run() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let assert = clearway(&[
        "bench",
        "journal",
        "--rate",
        "2000",
        "--seconds",
        "2",
        "--flood-mib",
        "64",
        "--data",
        text(place.path()),
        "--json",
        "-",
    ])
    .code(0);
    let data = json(&assert);
    let paced = &data["journal"]["paced"];
    let seconds = paced["each_second"].as_array().expect("seconds");
    let timed: u64 = seconds.iter().filter_map(|second| second["records"].as_u64()).sum();
    assert_eq!(Some(timed), paced["records"].as_u64());
    assert!(seconds.len() == 2 && timed > 2_000, "{data}");
    for figure in [
        &data["latency_us"]["p99"],
        &data["limit"]["same_size_write"]["us"]["p99"],
        &data["ratio"]["latency_p50"],
        &data["ratio"]["prepared_throughput"],
        &paced["append_ns"],
        &data["journal"]["prepared"]["mb_per_second"],
        &data["journal"]["sustained"]["mb_per_second"],
    ] {
        assert!(figure.as_f64().is_some_and(|figure| figure > 0.0), "{data}");
    }
    let flood = (64 << 20) / 160;
    assert_eq!(data["journal"]["prepared"]["records"], flood);
    assert_eq!(data["journal"]["sustained"]["records"], flood);
    let left = std::fs::read_dir(place.path()).expect("the directory").count();
    assert_eq!(left, 0, "its journals are removed");
}
