//! The proof of a payment, from the files of its window alone.
//!
//! Each committed payment stands in its initiator's detail file with its leaf's number, so that all of them together give the
//! leaves in their order. Memory is a buffer a file; nothing but the buffers is kept, and no file stays open.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::SettlementError;
use super::merkle::{Digest, PathFinder, from_hex, hex, leaf_hash};
use super::proof::Proof;
use super::sums::windows_in;
use crate::domain::{PaymentId, WindowId};

/// What all buffers together may take.
const BUFFERS_BYTES_MAX: usize = 64 << 20;
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Longer than any line.
const BUFFER_BYTES_MIN: usize = 4 << 10;
/// Fields of a line that are the canonical row, and the places of initiator and leaf.
const ROW_FIELDS: usize = 10;
const INITIATOR: usize = 5;
const LEAF: usize = 11;

/// What of `summary.json` is needed here.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    /// The window's id.
    pub window: String,
    /// The currency, alphabetic.
    pub currency: String,
    /// When it opened, as text.
    pub opened_at: String,
    /// When it closed, as text.
    pub closed_at: String,
    /// Committed payments.
    pub committed: u64,
    /// Σ of their amounts, minor units.
    pub gross_minor: i128,
    /// The root, hexadecimal.
    pub root: String,
    participants: Vec<SummaryParty>,
}

#[derive(Clone, Debug, Deserialize)]
struct SummaryParty {
    index: u16,
    code: String,
    records: u64,
}

impl Summary {
    /// Reads the one in a window's directory.
    ///
    /// # Errors
    /// It is not there or is none.
    pub fn read(window: &Path) -> Result<Self, SettlementError> {
        let path = window.join("summary.json");
        let text = fs::read(&path).map_err(SettlementError::system(&path, "read the file"))?;
        serde_json::from_slice(&text)
            .map_err(|error| SettlementError::damaged(&path, format!("it is no window's summary: {error}")))
    }
}

/// Proves that a payment is in a window of `settlement`; looks for it in `window`, or in all of them, the last first.
/// `progress` is told now and then how many leaves were read.
///
/// # Errors
/// It is in none of them, or the files are not what the root was made of.
pub fn prove(
    settlement: &Path,
    payment: PaymentId,
    window: Option<WindowId>,
    progress: impl FnMut(u64),
) -> Result<(Proof, Digest), SettlementError> {
    let windows = match window {
        Some(window) => vec![settlement.join(window.to_string())],
        None => windows_in(settlement)?,
    };
    for directory in windows.iter().rev() {
        let summary = Summary::read(directory)?;
        if let Some(leaf) = leaf_of(directory, &summary, payment)? {
            return prove_leaf(directory, &summary, leaf, progress);
        }
    }
    let places = match window {
        Some(window) => window.to_string(),
        None => format!("any of the {} windows there", windows.len()),
    };
    Err(SettlementError::NotThere(format!(
        "{}: payment {payment} is not among the committed payments of {places}; `clearway journal dump --payment` shows what became of it",
        settlement.display()
    )))
}

/// The payment's leaf, if it is in the window.
fn leaf_of(directory: &Path, summary: &Summary, payment: PaymentId) -> Result<Option<u64>, SettlementError> {
    let initiator = summary
        .participants
        .iter()
        .find(|party| party.index == payment.originator().0);
    let Some(party) = initiator.filter(|party| party.records > 0) else {
        return Ok(None);
    };
    let wanted = format!("{payment},");
    let mut lines = Lines::open(detail(directory, party), BUFFER_BYTES_MAX);
    while lines.advance()? {
        if lines.line().starts_with(wanted.as_bytes()) {
            return lines.leaf().map(Some);
        }
    }
    Ok(None)
}

fn detail(directory: &Path, party: &SummaryParty) -> PathBuf {
    directory.join("detail").join(format!("{}.csv", party.code))
}

fn prove_leaf(
    directory: &Path,
    summary: &Summary,
    leaf: u64,
    mut progress: impl FnMut(u64),
) -> Result<(Proof, Digest), SettlementError> {
    let spoiled = |reason: String| SettlementError::damaged(directory, reason);
    let parties: Vec<&SummaryParty> = summary.participants.iter().filter(|party| party.records > 0).collect();
    let bytes = (BUFFERS_BYTES_MAX / parties.len().max(1)).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
    let mut files: Vec<Lines> = parties
        .iter()
        .map(|party| Lines::open(detail(directory, party), bytes))
        .collect();
    let mut next = BinaryHeap::new();
    for (number, file) in files.iter_mut().enumerate() {
        next.extend(
            file.advance_initiated(&parties[number].code)?
                .map(|leaf| Reverse((leaf, number))),
        );
    }
    let mut finder = PathFinder::new(leaf);
    let mut row = String::new();
    while let Some(Reverse((at, number))) = next.pop() {
        if at != finder.leaves() {
            return Err(spoiled(format!(
                "leaf {} stands in no detail file, or leaf {at} in two",
                finder.leaves()
            )));
        }
        let file = &mut files[number];
        if at == leaf {
            row = String::from_utf8_lossy(file.row()).into_owned();
        }
        finder.push(leaf_hash(file.row()));
        if finder.leaves().is_multiple_of(100_000) {
            progress(finder.leaves());
        }
        next.extend(
            file.advance_initiated(&parties[number].code)?
                .map(|leaf| Reverse((leaf, number))),
        );
    }
    let leaves = finder.leaves();
    let proof = Proof::new(row, finder).ok_or_else(|| spoiled(format!("leaf {leaf} is missing")))?;
    let root = proof.root().map_err(|error| spoiled(error.to_string()))?;
    if leaves != summary.committed || from_hex(&summary.root) != Some(root) {
        return Err(spoiled(format!(
            "the {leaves} rows of its detail files lead to root {} and summary.json says {} rows and root {}: the files were \
             changed; `clearway settle report` writes them again from the journal",
            hex(&root),
            summary.committed,
            summary.root
        )));
    }
    Ok((proof, root))
}

/// The lines of a detail file, one after the other; the file is open only while a buffer is filled.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    offset: u64,
    buffer: Vec<u8>,
    filled: usize,
    line: std::ops::Range<usize>,
    /// Ends of the line's fields, within the line.
    row_end: usize,
}

impl Lines {
    fn open(path: PathBuf, bytes: usize) -> Self {
        Self {
            path,
            offset: 0,
            buffer: vec![0; bytes],
            filled: 0,
            line: 0..0,
            row_end: 0,
        }
    }

    fn line(&self) -> &[u8] {
        &self.buffer[self.line.clone()]
    }

    /// The canonical row of the line that [`Lines::advance_initiated`] came to.
    fn row(&self) -> &[u8] {
        &self.line()[..self.row_end]
    }

    /// Goes to the next line; false where there is none. The first line, which names the fields, is one, too.
    fn advance(&mut self) -> Result<bool, SettlementError> {
        let mut start = if self.filled == 0 { 0 } else { self.line.end + 1 };
        loop {
            if let Some(length) = self.buffer[start.min(self.filled)..self.filled]
                .iter()
                .position(|&byte| byte == b'\n')
            {
                self.line = start..start + length;
                return Ok(true);
            }
            self.buffer.copy_within(start.min(self.filled)..self.filled, 0);
            self.filled -= start.min(self.filled);
            start = 0;
            self.line = 0..0;
            let refused = |action| SettlementError::system(&self.path, action);
            let file = File::open(&self.path).map_err(refused("open the file"))?;
            let read = file.read_at(&mut self.buffer[self.filled..], self.offset);
            let read = read.map_err(refused("read the file"))?;
            if read == 0 {
                return if self.filled == 0 {
                    Ok(false)
                } else {
                    Err(SettlementError::damaged(
                        &self.path,
                        "its last line has no end, or is too long",
                    ))
                };
            }
            self.filled += read;
            self.offset += read as u64;
        }
    }

    /// Goes to the next payment that `code` has initiated and gives its leaf.
    fn advance_initiated(&mut self, code: &str) -> Result<Option<u64>, SettlementError> {
        while self.advance()? {
            let line = self.line();
            let mut fields = line.split(|&byte| byte == b',');
            if fields.nth(INITIATOR) == Some(code.as_bytes()) {
                let commas = line.iter().enumerate().filter(|&(_, &byte)| byte == b',');
                let row_end = commas.map(|(at, _)| at).nth(ROW_FIELDS - 1);
                self.row_end = row_end.ok_or_else(|| self.no_line())?;
                return self.leaf().map(Some);
            }
        }
        Ok(None)
    }

    fn leaf(&self) -> Result<u64, SettlementError> {
        let field = self.line().split(|&byte| byte == b',').nth(LEAF);
        let text = field.and_then(|field| std::str::from_utf8(field).ok());
        text.and_then(|text| text.parse().ok()).ok_or_else(|| self.no_line())
    }

    fn no_line(&self) -> SettlementError {
        SettlementError::damaged(
            &self.path,
            format!("`{}` is no line of a detail file", String::from_utf8_lossy(self.line())),
        )
    }
}
