//! A whole settlement directory, as it is written while the switch runs, added up again row by row in another language.

use std::fs;
use std::path::Path;

use clearway::domain::{BusinessDate, Position, SECOND};
use clearway::register::FileDoor;
use clearway::settlement::day::write_day;
use clearway::settlement::made_up::MadeUpWindow;
use clearway::settlement::{
    CoverEntry, DayStatement, Existing, PartyDay, SettlementDirectory, WindowStatement, publish_window,
};
use clearway::wire::CoverReason;

use crate::{documents, python};

const MADE_UP: MadeUpWindow = MadeUpWindow {
    seed: 11,
    payments: 3_000,
    institutions: 9,
    banks: 40,
    seconds: 600,
};

/// A day on which a window, and nothing else, was settled.
fn day_of(statement: &WindowStatement) -> DayStatement {
    const COVER_MINOR: Position = 1_000_000_000_000;
    let settled = statement.closed.plus(30 * SECOND);
    let parties = statement.parties.iter().map(|party| {
        let net = party.net_minor();
        let entry = CoverEntry {
            event: statement.close_event + 20,
            time: settled,
            reason: CoverReason::Settled,
            window: statement.window,
            change_minor: -net,
        };
        PartyDay {
            index: party.index,
            code: party.code,
            role: party.role,
            sequence: 3,
            opening_minor: COVER_MINOR,
            entries: if net == 0 { Vec::new() } else { vec![entry] },
            closing_minor: COVER_MINOR - net,
        }
    });
    DayStatement {
        date: BusinessDate(20_261_123),
        currency: statement.currency,
        scheme: statement.scheme,
        until: settled,
        complete: false,
        parties: parties.collect(),
    }
}

/// Copies a window's or a day's directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from)
        .expect("a directory")
        .map(|entry| entry.expect("its entry").path())
    {
        let there = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &there);
        } else {
            fs::copy(&entry, &there).expect("a copy");
        }
    }
}

#[test]
fn xml_csv_json_and_root_of_a_settlement_directory_tie_to_the_fen() {
    let place = documents("directory");
    let settlement = SettlementDirectory::new(place.clone(), FileDoor::OPEN);
    let payments = MADE_UP.payments().map(Ok);
    let (statement, _) =
        publish_window(&MADE_UP.facts(), payments, &settlement, Existing::Keep).expect("a window is written");
    let day = day_of(&statement);
    write_day(&day, &settlement, Existing::Keep).expect("a day is written");
    let Some(found) = python::check(&[&place, &place.join("day")]) else {
        return;
    };
    let window = statement.window.to_string();
    assert_eq!(
        found.keys().map(String::as_str).collect::<Vec<_>>(),
        ["20261123-CNY", &window]
    );
    assert!(found.values().all(Vec::is_empty), "{found:#?}");

    // Each kind of file, changed by as little as can be, is found; and how it is found says which it is.
    let code = statement.parties[0].code;
    let (window, day) = (
        settlement.window(statement.window),
        settlement.day(day.date, day.currency),
    );
    let spoiled = [
        (
            "row-CNY",
            &window,
            format!("detail/{code}.csv"),
            ",CNY,",
            ",CNY,1",
            "another file",
        ),
        (
            "sums-CNY",
            &window,
            format!("detail/{code}.json"),
            "\"debits_minor\": ",
            "\"debits_minor\": 1",
            "debits_minor",
        ),
        (
            "batch-CNY",
            &window,
            format!("camt.054/{code}.xml"),
            "<NbOfTxs>",
            "<NbOfTxs>1",
            "batch",
        ),
        (
            "root-CNY",
            &window,
            "summary.json".to_owned(),
            "\"root\": \"",
            "\"root\": \"f",
            "root of their rows",
        ),
        ("page-CNY", &window, "index.html".to_owned(), "CNY", "EUR", "SHA256SUMS"),
        (
            "balance-CNY",
            &day,
            format!("camt.053/{code}.xml"),
            ".00</Amt>",
            ".01</Amt>",
            "opening",
        ),
    ];
    let place = documents("directory_spoiled");
    for (case, of, file, from, to, _) in &spoiled {
        let case = place.join(case);
        copy(of, &case);
        let good = fs::read_to_string(case.join(file)).expect("a file");
        assert!(good.contains(from), "{file}: {from} is not in it");
        fs::write(case.join(file), good.replacen(from, to, 1)).expect("a spoiled file");
    }
    let found = python::check(&[&place]).expect("the check ran before");
    for (case, _, file, _, _, said) in &spoiled {
        assert!(
            found[*case].iter().any(|line| line.contains(said)),
            "{file}: nothing about {said} in {:#?}",
            found[*case]
        );
    }
}
