//! Keeps `docs/payments.md` true: every row of a table with a column "test" names at least one test, and each of them
//! exists, as a function with `#[test]` or inside `proptest!`, and is not ignored.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every test function of the project by name, with true when it is ignored.
fn tests() -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read_tests(&path, &mut found);
            }
        }
    }
    found
}

fn read_tests(path: &Path, found: &mut BTreeMap<String, bool>) {
    let text = fs::read_to_string(path).expect("a source file is text");
    let mut attributes = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if attributes.contains(&"#[test]") {
                let name = rest.split(['(', '<']).next().unwrap_or_default();
                let is_ignored = attributes.iter().any(|attribute| attribute.starts_with("#[ignore"));
                found.insert(name.to_owned(), is_ignored);
            }
            attributes.clear();
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// The rows of the document's tables that have a column "test": the row, and what stands in that column.
fn rows(document: &str) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut column = None;
    for line in document.lines() {
        if !line.starts_with('|') {
            column = None;
        } else if cells(line).iter().all(|cell| cell.starts_with("---")) {
        } else if let Some(column) = column {
            let cell: Option<&str> = cells(line).get(column).copied();
            rows.push((line.to_owned(), cell.unwrap_or_default().to_owned()));
        } else {
            column = cells(line).iter().position(|&cell| cell == "test");
        }
    }
    rows
}

#[test]
fn every_rule_of_the_document_names_a_test_that_exists() {
    let document = fs::read_to_string(root().join("docs/payments.md")).expect("the document is there");
    let (tests, rows) = (tests(), rows(&document));
    assert!(rows.len() > 90, "{} rules are not all of them", rows.len());
    let mut wrong = Vec::new();
    for (row, cell) in &rows {
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        for name in named {
            match tests.get(name) {
                None => wrong.push(format!("there is no test {name}: {row}")),
                Some(true) => wrong.push(format!("{name} is ignored: {row}")),
                Some(false) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
