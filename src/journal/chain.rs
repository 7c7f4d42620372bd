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
//! it held then. The file `chain` beside the segments says what was found when the bytes were new (`chain_file.rs`).
//!
//! The chain is not signed: who rewrites the journal *and* the file *and* every value that was taken away is not found.

use blake3::{Hash, Hasher};

use super::digest::{ChainEntry, WindowMark, batch_bytes};
use super::layout::Geometry;
use crate::domain::{UtcNanos, WindowId};
use crate::wire::WindowAction;

const FIRST_WORDS: &str = "clearway-chain 1";
const START_CONTEXT: &str = "clearway 2026 journal chain start";
const LINK_CONTEXT: &str = "clearway 2026 journal chain link";

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

    pub(super) fn line(&self) -> String {
        let before = self.before.map_or("-".to_owned(), |value| value.to_string());
        format!(
            "{FIRST_WORDS} {} {} {} {before}\n",
            hex(&self.journal_id),
            self.segment_bytes,
            self.position
        )
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
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
    pub(super) start: ChainStart,
    pub(super) links: Vec<ChainLink>,
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

    /// Forgets the links that end at or before `position`, all but the last one's value.
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

    /// The chain that begins with these links and goes on with those of `rest`; none if `rest` does not begin where they
    /// end, with their value.
    #[must_use]
    pub fn joined(mut self, rest: &Self) -> Option<Self> {
        let is_same = |start: &ChainStart| (start.journal_id, start.segment_bytes);
        let goes_on = is_same(&self.start) == is_same(&rest.start)
            && (self.end(), self.value()) == (rest.start.position, rest.start.value());
        if goes_on {
            self.links.extend_from_slice(&rest.links);
        }
        goes_on.then_some(self)
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

pub(super) fn parse_line(line: &str, segment_bytes: u64) -> Option<(ChainEntry, Hash)> {
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

/// Bytes as they are written in the chain, the manifests and messages.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
