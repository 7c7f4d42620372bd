//! What Clearway writes about settlement, read by others: models and schemas of ISO 20022 from outside, sums in another language.

mod directory;
mod python;
mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clearway::domain::{Currency, Position};
use clearway::settlement::{DayStatement, WindowStatement, camt053, camt054, pacs009, pacs029, page};
use serde_json::{Value, json};

use statements::{JPY, day, evening, pay, window};

fn documents(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("settlement_formats")
        .join(name);
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).expect("a directory for the documents");
    place
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything there is about a window, with the statement itself as JSON beside it.
fn write_window(place: &Path, statement: &WindowStatement) {
    fs::create_dir_all(place.join("camt.054")).expect("a directory");
    let write = |name: &str, bytes: Vec<u8>| fs::write(place.join(name), bytes).expect("a document is written");
    write("pacs.029.xml", pacs029::to_xml(statement));
    if let Some(bytes) = pacs009::to_xml(statement) {
        write("pacs.009.xml", bytes);
    }
    for party in statement.parties.iter().filter(|p| p.records > 0) {
        write(
            &format!("camt.054/{}.xml", party.code),
            camt054::to_xml(statement, party),
        );
    }
    write("index.html", page::to_html(statement));
    let parties: Vec<Value> = statement
        .parties
        .iter()
        .map(|p| {
            json!({"code": p.code.text(), "records": p.records, "debits": p.debits, "credits": p.credits,
                   "debits_minor": p.debits_minor.to_string(), "credits_minor": p.credits_minor.to_string(),
                   "detail_sha256": p.detail_sha256.map(|hash| hexadecimal(&hash))})
        })
        .collect();
    let expected = json!({
        "window": statement.window.to_string(), "currency": statement.currency.0, "scheme": statement.scheme.text(),
        "opened_ns": statement.opened.0, "closed_ns": statement.closed.0, "close_event": statement.close_event,
        "committed": statement.committed, "gross_minor": statement.gross_minor.to_string(),
        "root": hexadecimal(&statement.root), "journal": hexadecimal(&statement.journal_id), "parties": parties,
    });
    write("window.json", expected.to_string().into_bytes());
}

fn write_day(place: &Path, statement: &DayStatement) {
    fs::create_dir_all(place.join("camt.053")).expect("a directory");
    let parties: Vec<Value> = statement
        .parties
        .iter()
        .map(|party| {
            let document = camt053::to_xml(statement, party);
            fs::write(place.join(format!("camt.053/{}.xml", party.code)), document).expect("a document is written");
            let entries: Vec<Value> = party
                .entries
                .iter()
                .map(|e| {
                    json!({"event": e.event, "time_ns": e.time.0, "reason": format!("{:?}", e.reason),
                           "window": e.window.to_string(), "change_minor": e.change_minor.to_string()})
                })
                .collect();
            json!({"code": party.code.text(), "sequence": party.sequence, "opening_minor": party.opening_minor.to_string(),
                   "closing_minor": party.closing_minor.to_string(), "entries": entries})
        })
        .collect();
    let expected = json!({
        "date": statement.date.to_string(), "currency": statement.currency.0, "scheme": statement.scheme.text(),
        "until_ns": statement.until.0, "complete": statement.complete, "parties": parties,
    });
    fs::write(place.join("day.json"), expected.to_string()).expect("a document is written");
}

/// The windows by which the formats are tried.
fn windows() -> Vec<(&'static str, WindowStatement)> {
    let mut one_payment = window(1, 1, Currency::CNY);
    pay(&mut one_payment, 1, 0, 1, 1);

    // Two owe each other the same, a third nothing at all.
    let mut even = window(1, 2, Currency::CNY);
    pay(&mut even, 1, 0, 3, 5_000);
    pay(&mut even, 0, 1, 1, 5_000);

    // As large as an ISO 20022 amount can be: 18 digits, in the sum of all movements too.
    let mut largest = window(1, 1, Currency::CNY);
    pay(&mut largest, 0, 1, 999_999_999_999_999, 499_999_999_999_999_999);

    let mut without_decimals = window(2, 2, JPY);
    pay(&mut without_decimals, 0, 3, 2, 70);
    pay(&mut without_decimals, 2, 1, 1, 1_234_567);

    vec![
        ("empty window", window(3, 4, Currency::CNY)),
        ("window of nobody", window(0, 0, Currency::CNY)),
        ("one payment", one_payment),
        ("all even", even),
        ("largest amounts", largest),
        ("no decimals", without_decimals),
        ("evening", evening(Currency::CNY)),
    ]
}

#[test]
fn independent_readers_of_iso_20022_accept_every_message_and_find_the_statements_sums() {
    let place = documents("good");
    for (name, statement) in windows() {
        write_window(&place.join(name), &statement);
    }
    for (name, complete, currency) in [
        ("whole day", true, Currency::CNY),
        ("part of a day", false, Currency::CNY),
        ("day without decimals", true, JPY),
    ] {
        write_day(&place.join(name), &day(complete, currency));
    }
    let Some(findings) = python::check(&[&place]) else {
        return;
    };
    assert_eq!(findings.len(), windows().len() + 3, "every case is looked at");
    for (case, found) in findings {
        assert!(found.is_empty(), "{case}: {found:#?}");
    }
}

/// Where something is spoiled, in which document, what is replaced by what, and what the check has to say.
const SPOILED: [(&str, &str, &str, &str, &str); 16] = [
    (
        "unknown element",
        "pacs.029.xml",
        "<SttlmCycl>",
        "<Surprise>1</Surprise><SttlmCycl>",
        "Surprise",
    ),
    (
        "id too long",
        "pacs.029.xml",
        "-029</MsgId>",
        "-029-029</MsgId>",
        "longer than 35",
    ),
    ("no such direction", "pacs.029.xml", ">DBIT<", ">DEBT<", "DEBT"),
    ("wrong way", "pacs.029.xml", ">DBIT<", ">CRDT<", "movement of"),
    (
        "element twice",
        "pacs.029.xml",
        "<SeqNb>1</SeqNb>",
        "<SeqNb>1</SeqNb><SeqNb>1</SeqNb>",
        "more often",
    ),
    (
        "element missing",
        "pacs.029.xml",
        "<NbOfSttlmReqs>1</NbOfSttlmReqs>",
        "",
        "NbOfSttlmReqs",
    ),
    ("other root", "pacs.029.xml", "<Root>0b", "<Root>0c", "root"),
    (
        "other order",
        "pacs.029.xml",
        "<InstrId>W202611230007</InstrId>\n   <SttlmCycl>W202611230007</SttlmCycl>",
        "<SttlmCycl>W202611230007</SttlmCycl><InstrId>W202611230007</InstrId>",
        "order",
    ),
    (
        "no currency",
        "pacs.009.xml",
        "<IntrBkSttlmAmt Ccy=\"CNY\">",
        "<IntrBkSttlmAmt Ccy=\"cny\">",
        "[A-Z]",
    ),
    (
        "half a fen",
        "pacs.009.xml",
        ".37</IntrBkSttlmAmt>",
        ".375</IntrBkSttlmAmt>",
        "digits",
    ),
    (
        "a fen more",
        "pacs.009.xml",
        ".37</IntrBkSttlmAmt>",
        ".38</IntrBkSttlmAmt>",
        "transfer of",
    ),
    (
        "same reference twice",
        "pacs.009.xml",
        "<EndToEndId>W202611230007-C1102040000004",
        "<EndToEndId>W202611230007-C1102050000005",
        "twice",
    ),
    ("no status", "camt.054/Z2100030000000.xml", "<Cd>PDNG</Cd>", "", "Sts"),
    (
        "a payment more",
        "camt.054/Z2100030000000.xml",
        "<NbOfTxs>6<",
        "<NbOfTxs>7<",
        "batch",
    ),
    (
        "a balance off",
        "camt.053/Z2100033000005.xml",
        "<Amt Ccy=\"CNY\">50000000.00<",
        "<Amt Ccy=\"CNY\">50000000.01<",
        "OPBD",
    ),
    (
        "a movement gone",
        "camt.053/Z2100033000005.xml",
        "<NtryRef>17<",
        "<NtryRef>18<",
        "entries",
    ),
];

#[test]
fn the_same_check_refuses_every_document_that_was_spoiled() {
    let place = documents("spoiled");
    let mut statement = window(2, 4, Currency::CNY);
    for (debtor, creditor, payments, sum_minor) in [(4, 0, 4, 123_437), (5, 0, 2, 99), (1, 2, 9, 7_000)] {
        pay(&mut statement, debtor, creditor, payments, sum_minor);
    }
    for (name, document, from, to, _) in SPOILED {
        let case = place.join(name);
        if document.starts_with("camt.053") {
            write_day(&case, &day(true, Currency::CNY));
        } else {
            write_window(&case, &statement);
        }
        let path = case.join(document);
        let text = fs::read_to_string(&path).expect("the document");
        assert!(text.contains(from), "{name}: {from} is not in {text}");
        fs::write(&path, text.replacen(from, to, 1)).expect("a spoiled document");
    }
    let Some(findings) = python::check(&[&place]) else {
        return;
    };
    for (name, document, _, _, said) in SPOILED {
        let found: &Vec<String> = &findings[name];
        assert!(
            found
                .iter()
                .any(|line| line.starts_with(document) && line.contains(said)),
            "{name}: nothing about {said} in {found:#?}"
        );
    }
}

#[test]
fn the_page_is_well_formed_needs_nothing_from_outside_and_has_every_net() {
    for (name, statement) in windows() {
        let text = String::from_utf8(page::to_html(&statement)).expect("UTF-8");
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        };
        let document =
            roxmltree::Document::parse_with_options(&text, options).unwrap_or_else(|e| panic!("{name}: {e}"));
        for outside in ["http:", "https:", "url(", "@import", "<script", " src="] {
            assert!(!text.contains(outside), "{name}: {outside}");
        }
        let table = document
            .descendants()
            .find(|n| n.attribute("class") == Some("participants"))
            .expect("a table");
        let body = table.children().find(|n| n.has_tag_name("tbody")).expect("its body");
        let nets: BTreeMap<String, Position> = body
            .children()
            .filter(|n| n.has_tag_name("tr"))
            .map(|row| {
                let cells: Vec<_> = row.children().filter(roxmltree::Node::is_element).collect();
                let whole = |n: &roxmltree::Node<'_, '_>| {
                    n.descendants()
                        .filter_map(|t| if t.is_text() { t.text() } else { None })
                        .collect::<String>()
                };
                let amount = whole(&cells[8]);
                let digits: String = amount.chars().filter(char::is_ascii_digit).collect();
                let size: Position = digits.parse().expect("an amount");
                (whole(&cells[1]), if amount.starts_with("gets") { -size } else { size })
            })
            .collect();
        let expected = statement
            .parties
            .iter()
            .map(|p| (p.code.text(), p.net_minor()))
            .collect();
        assert_eq!(nets, expected, "{name}");
        let mut files: BTreeSet<String> = ["pacs.029.xml", "summary.json", "SHA256SUMS"].map(str::to_owned).into();
        if pacs009::to_xml(&statement).is_some() {
            files.insert("pacs.009.xml".to_owned());
        }
        for code in statement.parties.iter().filter(|p| p.records > 0).map(|p| p.code) {
            files.extend([
                format!("camt.054/{code}.xml"),
                format!("detail/{code}.csv"),
                format!("detail/{code}.json"),
            ]);
        }
        let links = document
            .descendants()
            .filter_map(|n| n.attribute("href"))
            .map(str::to_owned);
        assert_eq!(
            links.collect::<BTreeSet<String>>(),
            files,
            "{name}: links, and what is written"
        );
    }
}

#[test]
fn the_page_takes_nothing_that_it_is_told_for_markup() {
    let mut statement = window(1, 1, Currency::CNY);
    pay(&mut statement, 0, 1, 1, 100);
    statement.parties[0].code.0 = *b"<b>&\"'</b><i>x";
    statement.scheme.0 = *b"</title><hr>&&";
    let text = String::from_utf8(page::to_html(&statement)).expect("UTF-8");
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let document = roxmltree::Document::parse_with_options(&text, options).expect("well-formed");
    assert!(!document.descendants().any(|n| n.has_tag_name("hr")));
    assert!(
        document
            .descendants()
            .any(|n| n.has_tag_name("code") && n.text() == Some("<b>&\"'</b><i>x"))
    );
}
