//! `clearway settle reconcile`: a participant's books, spoiled in every way, against what the evening's windows settle.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::evening::{Copied, EVENING, clearway};
use crate::support::directory;

fn code_of(index: usize) -> String {
    directory(2, 2).participants[index].terms.code.text()
}

/// The evening's institution and its bank.
fn institution() -> String {
    code_of(0)
}

fn bank() -> String {
    code_of(2)
}

fn name(window: &Path) -> String {
    window.file_name().unwrap().to_string_lossy().into_owned()
}

/// The books that a participant without a fault has of a window: id, amount, side; in another order than ours.
fn books_of(window: &Path, code: &str) -> Vec<[String; 3]> {
    let detail = fs::read_to_string(window.join(format!("detail/{code}.csv"))).unwrap();
    let lines = detail.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        [fields[0].to_owned(), fields[4].to_owned(), fields[12].to_owned()]
    });
    let mut lines: Vec<_> = lines.collect();
    lines.reverse();
    lines
}

fn write(evening: &Copied, lines: &[[String; 3]]) -> String {
    let path = evening.path().join("books.csv");
    let text: String = lines
        .iter()
        .map(|[id, amount, side]| format!("\"a, customer\",{side},{id},{amount}\n"))
        .collect();
    fs::write(&path, format!("customer,side,payment_id,amount_minor\n{text}")).unwrap();
    path.display().to_string()
}

fn reconcile(evening: &Copied, window: &Path, code: &str, books: &str, with_journal: bool) -> (Output, Value) {
    let settlement = evening.path().join("settlement").display().to_string();
    let data = evening.path().display().to_string();
    let window = name(window);
    let mut args = vec![
        "settle",
        "reconcile",
        "--window",
        &window,
        "--participant",
        code,
        "--books",
        books,
    ];
    args.extend(["--dir", &settlement, "--json", "-"]);
    if with_journal {
        args.extend(["--journal", &data]);
    }
    let output = clearway(&args);
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, report)
}

/// The difference about this payment.
#[track_caller]
fn difference<'a>(report: &'a Value, id: &str) -> &'a Value {
    let differences = report["differences"].as_array().unwrap();
    let found = differences.iter().find(|difference| difference["payment"] == id);
    found.unwrap_or_else(|| panic!("nothing about {id}: {report:#}"))
}

#[track_caller]
fn is(difference: &Value, sort: &str, remedy: &str, because: &str) {
    assert_eq!(
        (&difference["sort"], &difference["remedy"]),
        (&sort.into(), &remedy.into()),
        "{difference:#}"
    );
    assert!(
        difference["because"].as_str().unwrap().contains(because),
        "{difference:#}"
    );
}

#[test]
fn books_without_a_fault_are_reconciled_whatever_their_order_and_columns() {
    let evening = EVENING.copied();
    for window in evening.windows() {
        for code in [institution(), bank()] {
            let books = books_of(&window, &code);
            let (output, report) = reconcile(&evening, &window, &code, &write(&evening, &books), false);
            assert_eq!(output.status.code(), Some(0), "{report:#}");
            assert_eq!(report["agreeing"], books.len());
            assert_eq!(report["net_minor"], report["books_net_minor"]);
        }
        // Who took part in nothing has booked nothing.
        let (output, _) = reconcile(&evening, &window, &code_of(3), &write(&evening, &[]), false);
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn what_is_missing_extra_or_different_is_told_with_both_values_and_what_each_side_does() {
    let evening = EVENING.copied();
    let windows = evening.windows();
    let mut books = books_of(&windows[0], &bank());
    let detail = fs::read_to_string(windows[0].join(format!("detail/{}.csv", bank()))).unwrap();
    let of_kind = |kind: &str| {
        let line = detail
            .lines()
            .find(|line| line.split(',').nth(1) == Some(kind))
            .unwrap();
        line.split(',').next().unwrap().to_owned()
    };
    let (payout, debit) = (of_kind("payout"), EVENING.committed.to_string());
    books.retain(|[id, _, _]| *id != payout && *id != debit);
    let changed = books[0].clone();
    books[0][1] = "77".to_owned();
    let turned = books[1].clone();
    books[1][2] = if turned[2] == "debit" { "credit" } else { "debit" }.to_owned();
    let twice = books[2].clone();
    books.push(twice.clone());
    let neighbour = books_of(&windows[1], &bank())[0].clone();
    books.push(neighbour.clone());
    let unknown = "20261101-0-7-1".to_owned();
    for id in [
        EVENING.declined.to_string(),
        EVENING.expired.to_string(),
        EVENING.over_cap.to_string(),
        unknown.clone(),
    ] {
        books.push([id, "60".to_owned(), "debit".to_owned()]);
    }
    let books = write(&evening, &books);
    let (output, report) = reconcile(&evening, &windows[0], &bank(), &books, true);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        [&report["missing"], &report["different"], &report["extra"]],
        [2, 2, 6],
        "{report:#}"
    );
    is(
        difference(&report, &payout),
        "missing",
        "by final-state notice",
        "Confirm",
    );
    is(difference(&report, &debit), "missing", "by file", "own yes");
    let amount = difference(&report, &changed[0]);
    is(amount, "different", "by file", "another amount");
    assert_eq!(amount["window_says"], format!("{} {}", changed[2], changed[1]));
    assert!(
        amount["books_say"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{} 77, line ", changed[2]))
    );
    is(difference(&report, &turned[0]), "different", "by file", "another side");
    is(difference(&report, &twice[0]), "extra", "by file", "twice");
    is(difference(&report, &neighbour[0]), "extra", "none", &name(&windows[1]));
    is(
        difference(&report, &EVENING.declined.to_string()),
        "extra",
        "by final-state notice",
        "declined, code 23",
    );
    is(
        difference(&report, &EVENING.expired.to_string()),
        "extra",
        "by final-state notice",
        "expired, code 30",
    );
    is(
        difference(&report, &EVENING.over_cap.to_string()),
        "extra",
        "by final-state notice",
        "rejected, code 13",
    );
    is(difference(&report, &unknown), "extra", "by file", "no such payment");
    // Without the journal nobody says what became of them.
    let (_, report) = reconcile(&evening, &windows[0], &bank(), &books, false);
    is(
        difference(&report, &unknown),
        "extra",
        "by file",
        "not committed in this window",
    );
    is(difference(&report, &neighbour[0]), "extra", "none", &name(&windows[1]));
}

#[test]
fn an_answer_that_the_institution_has_not_booked_is_told_again() {
    let evening = EVENING.copied();
    let window = &evening.windows()[0];
    let mut books = books_of(window, &institution());
    let lost = books.pop().unwrap();
    let (_, report) = reconcile(&evening, window, &institution(), &write(&evening, &books), false);
    is(
        difference(&report, &lost[0]),
        "missing",
        "by final-state notice",
        "final answer",
    );
}

#[test]
fn books_of_a_whole_day_that_say_the_window_are_held_against_each_window_alone() {
    let evening = EVENING.copied();
    let windows = evening.windows();
    let mut text = "payment_id,amount_minor,side,window,currency\n".to_owned();
    for window in &windows {
        for [id, amount, side] in books_of(window, &bank()) {
            text += &format!("{id},{amount},{side},{},CNY\n", name(window));
        }
    }
    let path = evening.path().join("books.csv");
    fs::write(&path, &text).unwrap();
    for window in &windows {
        let (output, report) = reconcile(&evening, window, &bank(), path.to_str().unwrap(), false);
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        assert!(report["passed_over"].as_u64() > Some(0), "{report:#}");
    }
    // One that the participant counts in the wrong window.
    let moved = books_of(&windows[1], &bank())[0][0].clone();
    let line = text.lines().find(|line| line.starts_with(&moved)).unwrap();
    fs::write(
        &path,
        text.replace(line, &line.replace(&name(&windows[1]), &name(&windows[0]))),
    )
    .unwrap();
    let (_, report) = reconcile(&evening, &windows[1], &bank(), path.to_str().unwrap(), false);
    is(difference(&report, &moved), "different", "by file", "another window");
    let (_, report) = reconcile(&evening, &windows[0], &bank(), path.to_str().unwrap(), false);
    is(difference(&report, &moved), "extra", "none", &name(&windows[1]));
}

#[test]
fn lines_that_cannot_be_used_are_named_and_nothing_is_compared() {
    let evening = EVENING.copied();
    let window = &evening.windows()[0];
    let id = EVENING.committed.to_string();
    let path = evening.path().join("books.csv");
    fs::write(
        &path,
        format!(
            "payment_id,amount_minor,side\n{id},1.00,debit\n{id},100,sideways\nnothing,1,debit\n{id},1\n{id},1,debit\n"
        ),
    )
    .unwrap();
    let (output, report) = reconcile(&evening, window, &bank(), path.to_str().unwrap(), false);
    assert_eq!((output.status.code(), report), (Some(2), Value::Null));
    let said = String::from_utf8(output.stderr).unwrap();
    for line in ["line 2:", "line 3:", "line 4:", "line 5:", "4 lines"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(!said.contains("line 6:"), "{said}");
    fs::write(&path, "payment_id,side\n").unwrap();
    let (output, _) = reconcile(&evening, window, &bank(), path.to_str().unwrap(), false);
    assert!(
        output.status.code() == Some(2)
            && String::from_utf8(output.stderr)
                .unwrap()
                .contains("no column amount_minor")
    );
    for (window, code) in [
        ("W202001010001", bank()),
        (name(window).as_str(), "C9999999999999".to_owned()),
    ] {
        let (output, _) = reconcile(&evening, Path::new(window), &code, "/dev/null", false);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
