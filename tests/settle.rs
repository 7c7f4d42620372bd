//! `clearway settle`, driven as an operator, an auditor and a bank do, on the journal of a real run.

#[path = "support/command.rs"]
mod command;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::LazyLock;

use assert_cmd::assert::Assert;
use command::{clearway, stderr, stdout};
use serde_json::Value;
use tempfile::TempDir;

fn json(assert: &Assert) -> Value {
    serde_json::from_str(&stdout(assert)).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in ASCII")
}

/// The data directory of a short evening, and the files that its journal gives; made once, changed by nobody.
struct Evening {
    data: TempDir,
    files: TempDir,
}

static EVENING: LazyLock<Evening> = LazyLock::new(|| {
    let data = tempfile::tempdir().expect("a temporary directory");
    let files = tempfile::tempdir().expect("a temporary directory");
    let arguments = ["demo", "--seconds", "2", "--rate", "300", "--data", text(data.path())];
    clearway(&arguments).code(0);
    report(data.path(), files.path(), &[]).code(0);
    Evening { data, files }
});

fn report(data: &Path, out: &Path, more: &[&str]) -> Assert {
    clearway(&[&["settle", "report", text(data), "--out", text(out)], more].concat())
}

fn files_in(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).expect("a directory") {
        let file = entry.expect("an entry").path();
        if file.is_dir() {
            let within = files_in(&file).into_iter();
            let name = PathBuf::from(file.file_name().expect("a name"));
            files.extend(within.map(|(of, bytes)| (name.join(of), bytes)));
        } else {
            files.insert(
                PathBuf::from(file.file_name().expect("a name")),
                fs::read(&file).expect("a file"),
            );
        }
    }
    files
}

fn copied() -> TempDir {
    let place = tempfile::tempdir().expect("a temporary directory");
    let from = EVENING.files.path().join(".");
    let copied = Process::new("cp").arg("-r").arg(from).arg(place.path()).status();
    assert!(copied.expect("cp runs").success());
    place
}

/// The window in which most was committed: its name and root.
fn window() -> (String, String) {
    let listed = json(&clearway(&["settle", "list", text(EVENING.files.path()), "--json", "-"]).code(0));
    let windows = listed["windows"].as_array().expect("a list");
    let largest = windows.iter().max_by_key(|window| window["committed"].as_u64());
    let of = |name: &str| largest.expect("a window")[name].as_str().expect("text").to_owned();
    (of("window"), of("root"))
}

/// The lines of a window's detail files.
fn lines(settlement: &Path, window: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for (name, bytes) in files_in(&settlement.join(window).join("detail")) {
        if name.extension().is_some_and(|end| end == "csv") {
            let csv = String::from_utf8(bytes).expect("text");
            let split = |line: &str| line.split(',').map(str::to_owned).collect();
            lines.extend(csv.lines().skip(1).map(split));
        }
    }
    lines
}

#[test]
fn a_replay_in_another_place_gives_the_same_files_byte_for_byte() {
    let again = tempfile::tempdir().expect("a temporary directory");
    let journal = EVENING.data.path().join("journal");
    let written = json(&report(&journal, again.path(), &["--json", "-"]).code(0));
    assert_eq!(written["well"], true);
    let files = files_in(EVENING.files.path());
    assert!(files.len() > 100, "{} files", files.len());
    assert!(files_in(again.path()) == files, "the files differ");
    assert!(
        !files.keys().any(|name| text(name).starts_with('.')),
        "something was left behind"
    );
    let third = json(&report(&journal, again.path(), &["--json", "-"]).code(0));
    for written in third["windows"]
        .as_array()
        .expect("windows")
        .iter()
        .chain(third["days"].as_array().expect("days"))
    {
        assert_eq!(written["was_there"], true, "{written}");
    }
    let (window, _) = window();
    let one = tempfile::tempdir().expect("a temporary directory");
    report(&journal, one.path(), &["--window", &window]).code(0);
    assert!(files_in(&one.path().join(&window)) == files_in(&again.path().join(&window)));
    assert_eq!(
        fs::read_dir(one.path()).expect("a directory").count(),
        1,
        "that window alone"
    );
}

#[test]
fn the_sums_are_those_that_sha256sum_finds() {
    let checked = Process::new("sha256sum")
        .args(["--check", "--quiet", "SHA256SUMS"])
        .current_dir(EVENING.files.path().join(window().0))
        .output()
        .expect("sha256sum runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn windows_are_listed_from_the_journal_with_the_roots_of_their_files() {
    let (data, files) = (text(EVENING.data.path()), text(EVENING.files.path()));
    let of_journal = json(&clearway(&["settle", "list", data, "--dir", files, "--json", "-"]).code(0));
    let of_files = json(&clearway(&["settle", "list", files, "--json", "-"]).code(0));
    let written = of_files["windows"].as_array().expect("windows");
    let known = of_journal["windows"].as_array().expect("windows");
    assert!(!written.is_empty() && known.len() >= written.len());
    for window in known {
        match written.iter().find(|of| of["window"] == window["window"]) {
            Some(of) => {
                for name in ["currency", "opened_at", "closed_at", "committed", "gross_minor", "root"] {
                    assert_eq!(of[name], window[name], "{name} of {window}");
                }
                assert_eq!(of["state"], Value::Null);
                assert_ne!(window["state"], "open");
            }
            None => assert_eq!((&window["state"], &window["root"]), (&"open".into(), &Value::Null)),
        }
    }
}

#[test]
fn files_that_differ_are_named_and_left_as_they_are_unless_forced() {
    let place = copied();
    let (window, _) = window();
    let spoiled = place.path().join(&window).join("summary.json");
    fs::write(&spoiled, "{}").expect("it is written");
    let refused = report(EVENING.data.path(), place.path(), &[]).code(1);
    let said = stderr(&refused);
    assert!(
        said.contains(&window) && said.contains("summary.json") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(fs::read(&spoiled).expect("it is there"), b"{}");
    report(EVENING.data.path(), place.path(), &["--force"]).code(0);
    assert!(files_in(place.path()) == files_in(EVENING.files.path()));
    let unknown = report(EVENING.data.path(), place.path(), &["--window", "W209901010001"]).code(1);
    assert!(stderr(&unknown).contains("W209901010001"), "{}", stderr(&unknown));
}

#[test]
fn a_payment_is_proved_to_who_knows_nothing_but_the_root() {
    let (window, root) = window();
    let lines = lines(EVENING.files.path(), &window);
    let of_leaf = |leaf: usize| {
        let mut found = lines.iter().filter(|line| line[11] == leaf.to_string());
        found.next().expect("a line with the leaf")[..10].to_vec()
    };
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("payment.proof");
    let python = python(place.path());
    let count = lines.len() / 2;
    for leaf in [0, 1, count / 2, count - 1] {
        let row = of_leaf(leaf);
        let settlement = text(EVENING.files.path());
        let proved = json(
            &clearway(&[
                "settle",
                "prove",
                &row[0],
                "--dir",
                settlement,
                "--out",
                text(&file),
                "--json",
                "-",
            ])
            .code(0),
        );
        assert_eq!(
            (&proved["root"], &proved["leaf"]),
            (&root.as_str().into(), &leaf.into())
        );
        let said = stdout(&clearway(&["settle", "verify-proof", text(&file), "--root", &root]).code(0));
        assert!(said.starts_with("proved") && said.contains(&row.join(",")), "{said}");
        let bytes = fs::read(&file).expect("a proof");
        assert!(bytes.len() < 1_000, "{} bytes", bytes.len());
        let other_root = root.chars().rev().collect::<String>();
        clearway(&["settle", "verify-proof", text(&file), "--root", &other_root]).code(1);
        if let Some(program) = &python {
            let says = |root: &str| {
                let ran = Process::new("python3").arg(program).args([text(&file), root]).output();
                let ran = ran.expect("python3 runs");
                (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned())
            };
            assert_eq!(says(&root), (true, format!("proved {}\n", row.join(","))));
            assert!(!says(&other_root).0);
        }
        for at in [8, 16, 27, 40, bytes.len() - 1] {
            let mut spoiled = bytes.clone();
            spoiled[at] ^= 1;
            fs::write(&file, spoiled).expect("it is written");
            let refused = clearway(&["settle", "verify-proof", text(&file), "--root", &root]).code(1);
            assert!(stdout(&refused).starts_with("NOT PROVED"), "byte {at}");
            if let Some(program) = &python {
                let ran = Process::new("python3").arg(program).args([text(&file), &root]).output();
                assert!(
                    !ran.expect("python3 runs").status.success(),
                    "byte {at}: the document's program believes it"
                );
            }
        }
    }
}

/// The program that docs/settlement.md shows, as a file; `None` where there is no Python, which is said.
fn python(place: &Path) -> Option<PathBuf> {
    if Process::new("python3").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("CLEARWAY_PYTHON_REQUIRED").is_none(),
            "python3 is missing, and CLEARWAY_PYTHON_REQUIRED is set"
        );
        println!("skipped: the program in docs/settlement.md was not run, for python3 is missing");
        return None;
    }
    let document = include_str!("../docs/settlement.md");
    let (_, after) = document
        .split_once("```python\n")
        .expect("the document shows a program");
    let (program, _) = after.split_once("```").expect("it ends");
    let file = place.join("verify_proof.py");
    fs::write(&file, program).expect("it is written");
    Some(file)
}

#[test]
fn what_is_not_committed_or_was_changed_has_no_proof() {
    let place = copied();
    let (window, _) = window();
    let lines = lines(place.path(), &window);
    let prove = |payment: &str| {
        let out = place.path().join("payment.proof");
        clearway(&[
            "settle",
            "prove",
            payment,
            "--dir",
            text(place.path()),
            "--out",
            text(&out),
        ])
    };
    let none = prove("20200101-0-0-1").code(1);
    assert!(stderr(&none).contains("20200101-0-0-1"), "{}", stderr(&none));
    // A fen more in both files of a payment, as who changes the books would do it.
    let victim = &lines[0];
    let more = (victim[4].parse::<u64>().expect("an amount") + 1).to_string();
    for (name, bytes) in files_in(&place.path().join(&window).join("detail")) {
        let csv = String::from_utf8(bytes).expect("text");
        let row = victim[..10].join(",");
        let changed = [&victim[..4], std::slice::from_ref(&more), &victim[5..10]]
            .concat()
            .join(",");
        fs::write(
            place.path().join(&window).join("detail").join(name),
            csv.replace(&row, &changed),
        )
        .expect("written");
    }
    let other = lines.iter().find(|line| line[0] != victim[0]).expect("another payment");
    let refused = prove(&other[0]).code(1);
    assert!(
        stderr(&refused).contains("the files were changed"),
        "{}",
        stderr(&refused)
    );
}
