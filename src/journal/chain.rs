//! Tamper evidence: a chain of BLAKE3 hashes over the journal's durable bytes, with a checkpoint at each window event.
//!
//! ```text
//! batch k    bytes [k·B, (k+1)·B), B = 1 MiB or a segment, whichever is shorter    content = BLAKE3(bytes)
//! window     bytes from where its batch begins to where the window event ends      content = BLAKE3(bytes)
//!
//! value[0] = H(start ‖ journal id ‖ segment bytes ‖ B ‖ position ‖ the value before, zeros if there is none)
//! value[n] = H(link ‖ value[n−1] ‖ journal id ‖ from ‖ to ‖ event number, 0 for a batch ‖ content)
//! ```
//! Links are in the order of where they end; a window event that ends with its batch comes before it. So the whole chain
//! follows from the journal's bytes, and whoever keeps one value can later be shown that today's journal still holds what
//! it held then. The file `chain` beside the segments says what was found when the bytes were new; it is a text that
//! only grows, a line a link, and a torn end is cut and made again.
//!
//! The chain is not signed: who rewrites the journal *and* the file *and* every value that was taken away is not found.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};
use thiserror::Error;

use super::digest::{ChainEntry, WindowMark, batch_bytes};
use super::error::JournalError;
use super::layout::Geometry;
use crate::domain::{UtcNanos, WindowId};
use crate::wire::WindowAction;

/// The file's name.
const FILE_NAME: &str = "chain";
/// What a crash takes or leaves as a whole.
const SECTOR_BYTES: usize = 512;
const FIRST_WORDS: &str = "clearway-chain 1";
const START_CONTEXT: &str = "clearway 2026 journal chain start";
const LINK_CONTEXT: &str = "clearway 2026 journal chain link";

/// What can be wrong with a chain, or with a journal held against it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ChainError {
    /// A line of the chain's file is not what was written.
    #[error("{}, line {line}: {reason}: the chain's file was changed; restore it from a copy", .file.display())]
    Line {
        /// The chain's file, or the manifest that has the line.
        file: PathBuf,
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The chain is another journal's.
    #[error("{}: the chain is of another journal, or of segments of another length", .file.display())]
    Foreign {
        /// The chain's file.
        file: PathBuf,
    },
    /// Bytes are not what they were when they were chained.
    #[error(
        "{} at offset {offset}: journal positions {from} to {to} are not what they were when they were chained, {}: \
         history was rewritten; {batches} batches of the journal differ", .file.display(), Between(.after, .before)
    )]
    Rewritten {
        /// The segment file.
        file: PathBuf,
        /// Where in it the batch begins.
        offset: u64,
        /// The same as a journal position.
        from: u64,
        /// Where what was chained ends.
        to: u64,
        /// The last checkpoint that still holds.
        after: Option<WindowMark>,
        /// The first that does not.
        before: Option<WindowMark>,
        /// How many batches differ in all.
        batches: u64,
    },
    /// The journal ends before the chain does.
    #[error("the journal's {end_name} at position {end}, and the chain was made up to {chained}: {what}")]
    Short {
        /// `end is` or `beginning is`.
        end_name: &'static str,
        /// Where.
        end: u64,
        /// Where the chain is.
        chained: u64,
        /// What that means.
        what: &'static str,
    },
}

struct Between<'a>(&'a Option<WindowMark>, &'a Option<WindowMark>);

impl std::fmt::Display for Between<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(mark) => write!(f, "between the checkpoint of {mark}")?,
            None => f.write_str("between the beginning")?,
        }
        match self.1 {
            Some(mark) => write!(f, " and that of {mark}"),
            None => f.write_str(" and the end"),
        }
    }
}

impl std::fmt::Display for WindowMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {}", self.event)?;
        if self.window != WindowId::NONE {
            write!(f, " (window {})", self.window)?;
        }
        Ok(())
    }
}

/// A link of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainLink {
    /// What it covers.
    pub entry: ChainEntry,
    /// The chain's value with it.
    pub value: Hash,
}

/// What a chain is begun with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChainStart {
    /// The journal's identity.
    pub journal_id: [u8; 16],
    /// The length of its segments.
    pub segment_bytes: u64,
    /// Where the chain begins: 0, or the beginning of the oldest segment there was when it was begun.
    pub position: u64,
    /// The chain's value before it, if it goes on where another one, which is elsewhere, has come to.
    pub before: Option<Hash>,
}

impl ChainStart {
    fn value(&self) -> Hash {
        if let Some(before) = self.before {
            return before;
        }
        let geometry = Geometry {
            segment_bytes: self.segment_bytes,
        };
        let mut hasher = Hasher::new_derive_key(START_CONTEXT);
        hasher.update(&self.journal_id);
        hasher.update(&self.segment_bytes.to_le_bytes());
        hasher.update(&batch_bytes(geometry).to_le_bytes());
        hasher.update(&self.position.to_le_bytes());
        hasher.finalize()
    }

    fn line(&self) -> String {
        let before = self.before.map_or("-".to_owned(), |value| value.to_string());
        format!(
            "{FIRST_WORDS} {} {} {} {before}\n",
            hex(&self.journal_id),
            self.segment_bytes,
            self.position
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(FIRST_WORDS)?.split_ascii_whitespace();
        let id = u128::from_str_radix(words.next()?, 16).ok()?;
        let start = Self {
            journal_id: id.to_be_bytes(),
            segment_bytes: words
                .next()?
                .parse()
                .ok()
                .filter(|bytes: &u64| bytes.is_power_of_two())?,
            position: words.next()?.parse().ok()?,
            before: match words.next()? {
                "-" => None,
                value => Some(Hash::from_hex(value).ok()?),
            },
        };
        (words.next().is_none() && start.position.is_multiple_of(start.segment_bytes)).then_some(start)
    }
}

/// A chain, link by link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    start: ChainStart,
    links: Vec<ChainLink>,
}

impl Chain {
    /// A chain without a link.
    #[must_use]
    pub const fn new(start: ChainStart) -> Self {
        Self {
            start,
            links: Vec::new(),
        }
    }

    /// What it was begun with.
    #[must_use]
    pub const fn start(&self) -> &ChainStart {
        &self.start
    }

    /// Its links, in order.
    #[must_use]
    pub fn links(&self) -> &[ChainLink] {
        &self.links
    }

    /// The position up to which it covers the journal.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.links.last().map_or(self.start.position, |link| link.entry.to)
    }

    /// Its value: what an operator takes away.
    #[must_use]
    pub fn value(&self) -> Hash {
        self.links.last().map_or(self.start.value(), |link| link.value)
    }

    /// The last checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<(WindowMark, Hash)> {
        let mut checkpoints = self
            .links
            .iter()
            .rev()
            .filter_map(|link| Some((link.entry.window?, link.value)));
        checkpoints.next()
    }

    /// How many checkpoints it has.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.links.iter().filter(|link| link.entry.window.is_some()).count() as u64
    }

    /// The link that has `value`, which stood for all up to it when it was taken away.
    #[must_use]
    pub fn find(&self, value: &Hash) -> Option<&ChainLink> {
        self.links.iter().find(|link| link.value == *value)
    }

    /// The links over segment `number`, and the value before them.
    #[must_use]
    pub fn of_segment(&self, number: u64) -> (Hash, &[ChainLink]) {
        let of = |link: &ChainLink| link.entry.from / self.start.segment_bytes;
        let from = self.links.partition_point(|link| of(link) < number);
        let to = self.links.partition_point(|link| of(link) <= number);
        let before = match from.checked_sub(1) {
            Some(last) => self.links[last].value,
            None => self.start.value(),
        };
        (before, &self.links[from..to])
    }

    /// Adds a link.
    pub fn push(&mut self, entry: ChainEntry) -> ChainLink {
        let link = ChainLink {
            entry,
            value: self.value_with(&entry),
        };
        self.links.push(link);
        link
    }

    /// Forgets the links that end at or before `position`, all but the last one's value; the chain's file keeps them.
    pub fn forget_before(&mut self, position: u64) {
        let from = self.links.partition_point(|link| link.entry.to <= position);
        if let Some(last) = from.checked_sub(1) {
            self.start.before = Some(self.links[last].value);
            self.start.position = self.links[last].entry.to;
            self.links.drain(..from);
            if self.links.len() < self.links.capacity() / 4 {
                self.links.shrink_to_fit();
            }
        }
    }

    fn value_with(&self, entry: &ChainEntry) -> Hash {
        let mut hasher = Hasher::new_derive_key(LINK_CONTEXT);
        hasher.update(self.value().as_bytes());
        hasher.update(&self.start.journal_id);
        hasher.update(&entry.from.to_le_bytes());
        hasher.update(&entry.to.to_le_bytes());
        hasher.update(&entry.window.map_or(0, |mark| mark.event).to_le_bytes());
        hasher.update(entry.content.as_bytes());
        hasher.finalize()
    }

    /// Reads the chain that stands in `directory`, every link held against the one before; none if there is no file, or
    /// only a torn first line. A torn last line is left out.
    ///
    /// # Errors
    /// The file can't be read, or a line is not what was written.
    pub fn read(directory: &Path) -> Result<Option<Self>, ChainFailure> {
        Ok(Self::read_with_length(directory)?.map(|(chain, _)| chain))
    }

    /// The same, with how many bytes of the file count.
    fn read_with_length(directory: &Path) -> Result<Option<(Self, u64)>, ChainFailure> {
        let path = directory.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ChainFailure::system(&path)(error)),
        };
        // A line without its end was torn, whatever it says; zeros were never written.
        let written = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let (written, behind) = bytes.split_at(written);
        let whole = written
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |last| last + 1);
        let text = String::from_utf8_lossy(&written[..whole]);
        let fault = |line: u64, reason| ChainError::Line {
            file: path.clone(),
            line,
            reason,
        };
        let mut lines = text.lines();
        let Some(first) = lines.next() else {
            // The first line is flushed before there is a second: where it is torn nothing lies behind.
            if behind.contains(&b'\n') {
                return Err(fault(1, "there are zeros in it, and lines behind").into());
            }
            return Ok(None);
        };
        let start = ChainStart::parse(first).ok_or_else(|| fault(1, "a chain does not begin like this"))?;
        let mut chain = Self::new(start);
        let mut next = 2;
        for line in lines {
            chain.push_line(line).map_err(|reason| fault(next, reason))?;
            next += 1;
        }
        if !chain.may_be_torn(written.len(), behind) {
            return Err(fault(
                next,
                "there are zeros in it, and what lies behind had been flushed after it",
            )
            .into());
        }
        Ok(Some((chain, whole as u64)))
    }

    /// True when a crash may have left the file like this: the chain's lines up to byte `at`, then `behind`, which begins
    /// with zeros if it is not empty. A crash leaves them up to the file's end, or up to a sector's; and each segment's
    /// links are flushed before the next one's are written, so that of those none lies behind.
    fn may_be_torn(&self, at: usize, behind: &[u8]) -> bool {
        let Some(zeros) = behind.iter().position(|&byte| byte != 0) else {
            return true;
        };
        let later = (self.end() / self.start.segment_bytes + 1) * self.start.segment_bytes;
        let text = String::from_utf8_lossy(&behind[zeros..]);
        let mut links = text
            .split(['\n', '\0'])
            .filter_map(|line| parse_line(line, self.start.segment_bytes));
        (at + zeros).is_multiple_of(SECTOR_BYTES) && links.all(|(entry, _)| entry.from < later)
    }

    /// Adds the link that `line` says, if it is the one that its content makes.
    pub(super) fn push_line(&mut self, line: &str) -> Result<(), &'static str> {
        let (entry, value) = parse_line(line, self.start.segment_bytes).ok_or("no link is written like this")?;
        if entry.to < self.end() || entry.from > self.end() {
            return Err("the link does not begin where the one before ends");
        }
        if self.push(entry).value != value {
            return Err("the value does not follow from the one before");
        }
        Ok(())
    }
}

/// Why a chain could not be read or made longer.
#[derive(Debug, Error)]
pub enum ChainFailure {
    /// What stands there is wrong.
    #[error(transparent)]
    Finding(#[from] ChainError),
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The system refused.
    #[error("{}: cannot read or write the chain: {source}", .file.display())]
    System {
        /// The chain's file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ChainFailure {
    pub(super) fn system(file: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::System {
            file: file.to_owned(),
            source,
        }
    }
}

impl ChainLink {
    /// The link as a line of the file, without its end.
    pub(super) fn line(&self) -> String {
        let ChainEntry {
            from,
            to,
            content,
            window,
        } = self.entry;
        match window {
            None => format!("batch {from} {to} {content} {}", self.value),
            Some(mark) => format!(
                "window {from} {to} {content} {} {} {} {} {} {}",
                self.value, mark.event, mark.time.0, mark.action as u8, mark.currency, mark.window.0
            ),
        }
    }
}

fn parse_line(line: &str, segment_bytes: u64) -> Option<(ChainEntry, Hash)> {
    let mut words = line.split_ascii_whitespace();
    let is_window = match words.next()? {
        "batch" => false,
        "window" => true,
        _ => return None,
    };
    let from: u64 = words.next()?.parse().ok()?;
    let to: u64 = words.next()?.parse().ok()?;
    let content = Hash::from_hex(words.next()?).ok()?;
    let value = Hash::from_hex(words.next()?).ok()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let window = if is_window {
        Some(WindowMark {
            event: number()?,
            time: UtcNanos(number()?),
            action: WindowAction::from_u8(number()?.try_into().ok()?)?,
            currency: number()?.try_into().ok()?,
            window: WindowId(number()?),
        })
    } else {
        None
    };
    let batch = batch_bytes(Geometry { segment_bytes });
    let whole = from.checked_add(batch)?;
    let fits = from.is_multiple_of(batch) && to > from && to <= whole && (is_window || to == whole);
    let entry = ChainEntry {
        from,
        to,
        content,
        window,
    };
    (fits && words.next().is_none()).then_some((entry, value))
}

/// The chain's file, open to grow. One writer, the switch that has the journal.
#[derive(Debug)]
pub(super) struct ChainFile {
    pub(super) path: PathBuf,
    file: File,
}

impl ChainFile {
    /// Opens the chain in `directory`, or begins one with `start`, where the journal's oldest segment begins, and cuts a
    /// torn line. Nothing is cut from a file that is not this journal's or in which something is wrong.
    pub(super) fn open(directory: &Path, start: ChainStart) -> Result<(Self, Chain), ChainFailure> {
        let path = directory.join(FILE_NAME);
        let read = Chain::read_with_length(directory)?;
        if let Some((chain, _)) = &read {
            let same = (chain.start.journal_id, chain.start.segment_bytes) == (start.journal_id, start.segment_bytes);
            if !same {
                return Err(ChainError::Foreign { file: path }.into());
            }
            if chain.end() < start.position {
                return Err(ChainError::Short {
                    end_name: "beginning is",
                    end: start.position,
                    chained: chain.end(),
                    what: "segments were removed before they were chained",
                }
                .into());
            }
        }
        let system = ChainFailure::system(&path);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(&system)?;
        let chain = if let Some((chain, length)) = read {
            file.set_len(length).map_err(&system)?;
            chain
        } else {
            file.set_len(0)
                .and_then(|()| file.write_all(start.line().as_bytes()))
                .and_then(|()| file.sync_all())
                .and_then(|()| File::open(directory)?.sync_all())
                .map_err(&system)?;
            Chain::new(start)
        };
        drop(system);
        Ok((Self { path, file }, chain))
    }

    /// Adds links; `flush` puts them on stable storage.
    pub(super) fn append(&mut self, links: &[ChainLink], flush: bool) -> std::io::Result<()> {
        let mut text = String::new();
        for link in links {
            text.push_str(&link.line());
            text.push('\n');
        }
        self.file.write_all(text.as_bytes())?;
        if flush { self.file.sync_data() } else { Ok(()) }
    }
}

/// Writes a whole chain to `directory`, which has none.
pub(super) fn write_new(directory: &Path, chain: &Chain) -> std::io::Result<()> {
    let unfinished = directory.join("chain.new");
    let mut file = File::create(&unfinished)?;
    let mut text = chain.start.line();
    for link in &chain.links {
        text.push_str(&link.line());
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, directory.join(FILE_NAME))?;
    File::open(directory)?.sync_all()
}

/// Bytes as they are written in the chain, the manifests and messages.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
