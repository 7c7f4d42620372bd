//! A window's directory: which files must be in it, their hashes, and each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::books::Books;
use super::detail_file::DetailOf;
use super::invariant::{Finding, Invariant};
use super::messages::MessagesOf;
use super::notebook::Notebook;
use super::row::{RootOfRows, canonical_row, code_of, hex};
use super::summary_file::SummaryOf;
use super::window_books::{Closed, participants, sum_up};
use crate::domain::ParticipantIndex;

/// Checks the files of a window that has closed; `shown` is its directory's name in messages. Gives how many files there
/// are.
pub(super) fn check_window(
    books: &Books,
    window: &Closed,
    journal_id: [u8; 16],
    directory: &Path,
    notebook: &mut Notebook,
) -> u64 {
    let shown = window.id.to_string();
    let (gross, parties, flows) = sum_up(books, &window.trace.posted);
    let mut root = RootOfRows::default();
    for &posted in &window.trace.posted {
        root.add(&canonical_row(books, posted, window.id));
    }
    let root = hex(&root.root(window.id, window.currency));
    let taking_part: Vec<ParticipantIndex> = participants(books)
        .filter(|participant| !parties[participant.index()].leaves.is_empty())
        .collect();
    let files = check_names(
        books,
        window,
        &taking_part,
        &parties_need_transfer(&parties),
        directory,
        notebook,
    );
    let mut details = BTreeMap::new();
    for &participant in &taking_part {
        let detail = DetailOf {
            books,
            window,
            root: &root,
            participant,
            sums: &parties[participant.index()],
        };
        details.insert(participant.0, detail.check(directory, &shown, notebook));
    }
    let summary = SummaryOf {
        books,
        window,
        journal_id,
        root: &root,
        gross,
        parties: &parties,
        flows: &flows,
        details: &details,
        file: format!("{shown}/summary.json"),
    };
    summary.check(&directory.join("summary.json"), notebook);
    let messages = MessagesOf {
        books,
        window,
        root: &root,
        journal_id,
        parties: &parties,
        details: &details,
        directory,
        shown: &shown,
    };
    messages.check(&taking_part, notebook);
    check_page(window, &root, directory, &shown, notebook);
    notebook.checked(
        Invariant::Replay,
        "windows of which every file was held against the journal",
        1,
    );
    notebook.checked(
        Invariant::Windows,
        "committed payments that the files of their window must hold",
        window.trace.posted.len() as u64,
    );
    files
}

fn parties_need_transfer(parties: &[super::window_books::PartySums]) -> bool {
    parties.iter().any(|party| party.net() != 0)
}

/// The page is for people and is looked at for the window and the root alone.
fn check_page(window: &Closed, root: &str, directory: &Path, shown: &str, notebook: &mut Notebook) {
    let Ok(page) = fs::read_to_string(directory.join("index.html")) else {
        return;
    };
    for text in [window.id.to_string().as_str(), root] {
        if !page.contains(text) {
            let finding = Invariant::Replay.broken(format!("does not say {text}"));
            notebook.find(finding.in_file(format!("{shown}/index.html")).at(window.id));
        }
    }
}

/// Holds the directory's names against those that must be there, and SHA256SUMS against all of them.
fn check_names(
    books: &Books,
    window: &Closed,
    taking_part: &[ParticipantIndex],
    has_transfers: &bool,
    directory: &Path,
    notebook: &mut Notebook,
) -> u64 {
    let mut expected: BTreeSet<String> = ["pacs.029.xml", "summary.json", "index.html", "SHA256SUMS"]
        .map(str::to_owned)
        .into();
    if *has_transfers {
        expected.insert("pacs.009.xml".to_owned());
    }
    for &participant in taking_part {
        let code = code_of(books, participant);
        expected.insert(format!("camt.054/{code}.xml"));
        expected.insert(format!("detail/{code}.csv"));
        expected.insert(format!("detail/{code}.json"));
    }
    let shown = window.id.to_string();
    check_directory(directory, &shown, &expected, |finding| finding.at(window.id), notebook)
}

/// A directory must hold exactly these files, and its SHA256SUMS their hashes. Gives how many there are.
pub(super) fn check_directory(
    directory: &Path,
    shown: &str,
    expected: &BTreeSet<String>,
    place: impl Fn(Finding) -> Finding,
    notebook: &mut Notebook,
) -> u64 {
    let mut there = BTreeSet::new();
    if let Err(error) = files_below(directory, "", &mut there) {
        notebook.find(place(
            Invariant::Replay
                .broken(format!("can't be read: {error}"))
                .in_file(shown),
        ));
        return 0;
    }
    let wrong = |name: &String, what: &str| {
        place(
            Invariant::Replay
                .broken(what.to_owned())
                .in_file(format!("{shown}/{name}")),
        )
    };
    for name in expected.difference(&there) {
        notebook.find(wrong(name, "the file is missing"));
    }
    for name in there.difference(expected) {
        notebook.find(wrong(name, "the file does not belong here"));
    }
    let sums_file = "SHA256SUMS".to_owned();
    let sums = fs::read_to_string(directory.join(&sums_file)).unwrap_or_default();
    let mut told = BTreeMap::new();
    for line in sums.lines() {
        match line.split_once("  ") {
            Some((sum, name)) if told.insert(name.to_owned(), sum.to_owned()).is_none() => {}
            Some(_) | None => notebook.find(wrong(&sums_file, &format!("a line that can't be used: {line}"))),
        }
    }
    for name in there.iter().filter(|name| **name != sums_file) {
        let is = hash_of(&directory.join(name)).unwrap_or_else(|error| format!("can't be read: {error}"));
        match told.remove(name) {
            Some(sum) if sum == is => {}
            Some(sum) => {
                let mut finding = wrong(name, "is not what SHA256SUMS says");
                finding.what = format!("its SHA-256 is {is}, and SHA256SUMS says {sum}");
                notebook.find(finding);
            }
            None => notebook.find(wrong(name, "is not in SHA256SUMS")),
        }
    }
    for name in told.keys() {
        notebook.find(wrong(name, "is in SHA256SUMS and is not there"));
    }
    notebook.checked(Invariant::Replay, "files by name and SHA256SUMS", there.len() as u64);
    there.len() as u64
}

fn files_below(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            files_below(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.insert(name);
        }
    }
    Ok(())
}

fn hash_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}
