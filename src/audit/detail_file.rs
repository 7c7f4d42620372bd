//! A participant's detail file and the figures beside it, held against the books.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::books::Books;
use super::invariant::{Finding, Invariant};
use super::json_file;
use super::notebook::Notebook;
use super::row::{DETAIL_HEADER, Posted, canonical_row, code_of, currency_code, detail_line, hex};
use super::window_books::{Closed, PartySums};
use crate::domain::{Code, ParticipantIndex, PaymentId, PaymentState, WindowId};

/// So many lines of one file are told; the rest is counted.
const LINES_TOLD_MAX: usize = 5;
/// No line is longer; what is, is no line of a detail file.
const LINE_BYTES_MAX: u64 = 1_024;

/// What all details of a window share.
pub(super) struct DetailOf<'a> {
    pub(super) books: &'a Books,
    pub(super) window: &'a Closed,
    pub(super) root: &'a str,
    pub(super) participant: ParticipantIndex,
    pub(super) sums: &'a PartySums,
}

impl DetailOf<'_> {
    fn code(&self) -> String {
        code_of(self.books, self.participant)
    }

    fn finding(&self, invariant: Invariant, file: &str, what: String) -> Finding {
        invariant.broken(what).in_file(file).of(self.code()).at(self.window.id)
    }

    /// Checks both files; gives the hash that the `.csv` must have.
    pub(super) fn check(&self, directory: &Path, shown: &str, notebook: &mut Notebook) -> String {
        let name = format!("detail/{}", self.code());
        let expected = self.check_rows(directory, &format!("{name}.csv"), shown, notebook);
        self.check_figures(directory, &format!("{name}.json"), shown, &expected, notebook);
        expected
    }

    /// The lines that must be there, in their order.
    fn expected(&self) -> impl Iterator<Item = String> + '_ {
        let lines = self.sums.leaves.iter().map(|&leaf| {
            let posted: Posted = self.window.trace.posted[leaf as usize];
            let row = canonical_row(self.books, posted, self.window.id);
            detail_line(self.books, posted, &row, leaf.into(), self.participant)
        });
        std::iter::once(DETAIL_HEADER.to_owned()).chain(lines)
    }

    /// Reads the file line by line beside what must be in it. A line that is missing, or one too many, is told as that
    /// and not as a difference of all that follow.
    fn check_rows(&self, directory: &Path, name: &str, shown: &str, notebook: &mut Notebook) -> String {
        let file = format!("{shown}/{name}");
        let mut hasher = Sha256::new();
        let mut expected = self.expected().inspect(|line| {
            hasher.update(line);
            hasher.update(b"\n");
        });
        let mut told = Vec::new();
        match File::open(directory.join(name)) {
            Err(error) => {
                // That it is missing is told where the files are counted.
                if error.kind() != std::io::ErrorKind::NotFound {
                    told.push(self.finding(Invariant::Files, &file, format!("can't be read: {error}")));
                }
                expected.by_ref().for_each(drop);
            }
            Ok(opened) => {
                let mut lines = Lines::new(opened);
                self.compare(&mut expected, &mut lines, &file, &mut told);
                expected.by_ref().for_each(drop);
                if let Some(wrong) = lines.wrong {
                    told.push(self.finding(Invariant::Files, &file, wrong));
                }
            }
        }
        drop(expected);
        let more = told.len().saturating_sub(LINES_TOLD_MAX);
        told.into_iter()
            .take(LINES_TOLD_MAX)
            .for_each(|finding| notebook.find(finding));
        if more > 0 {
            notebook.find(self.finding(
                Invariant::Files,
                &file,
                format!("and {more} lines more that are not right"),
            ));
        }
        notebook.checked(
            Invariant::Files,
            "rows of detail files, byte by byte",
            self.sums.leaves.len() as u64,
        );
        hex(&hasher.finalize())
    }

    fn compare(
        &self,
        expected: &mut impl Iterator<Item = String>,
        lines: &mut Lines,
        file: &str,
        told: &mut Vec<Finding>,
    ) {
        let (mut ours, mut theirs) = (expected.next(), lines.next());
        let (mut our_next, mut their_next) = (None, None);
        loop {
            match (&ours, &theirs) {
                (None, None) => return,
                (Some(right), Some(there)) if right == there => {
                    ours = our_next.take().or_else(|| expected.next());
                    theirs = their_next.take().or_else(|| lines.next());
                    continue;
                }
                (Some(right), Some(there)) => {
                    our_next = our_next.or_else(|| expected.next());
                    their_next = their_next.or_else(|| lines.next());
                    let is =
                        |line: &Option<String>, other: &str| line.as_deref().is_some_and(|line| id(line) == id(other));
                    if id(right) != id(there) && is(&our_next, there) {
                        told.push(self.missing(file, right));
                        ours = our_next.take();
                        continue;
                    }
                    if id(right) != id(there) && is(&their_next, right) {
                        told.push(self.too_many(file, there));
                        theirs = their_next.take();
                        continue;
                    }
                    told.push(self.other(file, right, there));
                }
                (Some(right), None) => told.push(self.missing(file, right)),
                (None, Some(there)) => told.push(self.too_many(file, there)),
            }
            ours = our_next.take().or_else(|| expected.next());
            theirs = their_next.take().or_else(|| lines.next());
        }
    }

    fn missing(&self, file: &str, line: &str) -> Finding {
        self.finding(Invariant::Files, file, format!("payment {} is missing", id(line)))
    }

    /// A line too many: what the books know of its payment says which invariant it breaks.
    fn too_many(&self, file: &str, line: &str) -> Finding {
        let known = PaymentId::parse(id(line)).and_then(|id| self.books.find(id));
        let Some(payment) = known.map(|at| &self.books.payments[at]) else {
            let what = format!("payment {} is in the file, and the journal knows no such", id(line));
            return self.finding(Invariant::Windows, file, what);
        };
        let window = self.books.windows.get(payment.window as usize);
        let window = window.map_or(WindowId::NONE, |window| window.id);
        let (invariant, what) = match (payment.state, payment.code) {
            (PaymentState::Committed, _) if window == self.window.id => {
                (Invariant::Files, "is there once too often".to_owned())
            }
            (PaymentState::Committed, _) => (Invariant::Windows, format!("is of window {window}")),
            (PaymentState::Rejected, Code::CoverExceeded) => (
                Invariant::Cover,
                "would have made position + reserved exceed the cap, and was admitted".to_owned(),
            ),
            (state, _) => (Invariant::Windows, format!("is {state:?} and in a window")),
        };
        self.finding(invariant, file, format!("payment {} {what}", payment.id))
    }

    fn other(&self, file: &str, right: &str, there: &str) -> Finding {
        let fields = DETAIL_HEADER.split(',').zip(right.split(',').zip(there.split(',')));
        let mut differing = fields.filter(|(_, (right, there))| right != there);
        match differing.next() {
            Some((field, (right_field, there_field))) if right.matches(',').count() == there.matches(',').count() => {
                self.finding(Invariant::Files, file, format!("payment {}, {field}", id(right)))
                    .values(right_field, there_field)
            }
            _ => self
                .finding(
                    Invariant::Files,
                    file,
                    "a line is not the one that belongs there".to_owned(),
                )
                .values(right, there),
        }
    }

    fn check_figures(&self, directory: &Path, name: &str, shown: &str, sha256: &str, notebook: &mut Notebook) {
        let file = format!("{shown}/{name}");
        let Some(told) = json_file::read(&directory.join(name), &file, notebook) else {
            return;
        };
        let sums = self.sums;
        let expected = [
            ("window", Value::from(self.window.id.to_string())),
            ("participant", Value::from(self.code())),
            ("currency", Value::from(currency_code(self.window.currency))),
            ("records", Value::from(sums.leaves.len())),
            ("debits", Value::from(sums.debits)),
            ("debits_minor", json_file::number(sums.debits_minor)),
            ("credits", Value::from(sums.credits)),
            ("credits_minor", json_file::number(sums.credits_minor)),
            ("net_minor", json_file::number(sums.net())),
            ("sha256", Value::from(sha256)),
            ("root", Value::from(self.root)),
        ];
        json_file::same_object(&told, &expected, notebook, |key| {
            let invariant = if key == "root" {
                Invariant::Replay
            } else {
                Invariant::Files
            };
            self.finding(invariant, &file, key.to_owned())
        });
        notebook.checked(Invariant::Files, "counts, sums and hashes beside detail files", 1);
    }
}

fn id(line: &str) -> &str {
    line.split(',').next().unwrap_or_default()
}

/// The lines of a file that must be ASCII text, each ending with a line feed.
struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
    wrong: Option<String>,
}

impl Lines {
    fn new(file: File) -> Self {
        Self {
            reader: BufReader::with_capacity(1 << 16, file),
            buffer: Vec::new(),
            wrong: None,
        }
    }

    fn next(&mut self) -> Option<String> {
        use std::io::Read;
        if self.wrong.is_some() {
            return None;
        }
        self.buffer.clear();
        let read = (&mut self.reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut self.buffer);
        match read {
            Ok(0) => None,
            Ok(_) if self.buffer.pop_if(|last| *last == b'\n').is_none() => {
                self.wrong = Some("a line does not end with a line feed, or is too long".to_owned());
                None
            }
            Ok(_) => match str::from_utf8(&self.buffer) {
                Ok(line) if line.is_ascii() => Some(line.to_owned()),
                Ok(_) | Err(_) => {
                    self.wrong = Some("a line is not ASCII text".to_owned());
                    None
                }
            },
            Err(error) => {
                self.wrong = Some(format!("can't be read: {error}"));
                None
            }
        }
    }
}
