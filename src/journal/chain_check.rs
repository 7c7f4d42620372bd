//! A journal held against its chain.

use super::chain::{Chain, ChainLink};
use super::chain_error::ChainError;
use super::digest::{ChainEntry, SegmentDigest};
use super::directory::segment_path;
use super::files::JournalFiles;
use super::scan::Scan;

/// What holding the journal against its chain came to.
#[derive(Debug)]
pub struct ChainVerdict {
    /// The first position whose bytes were held against it: older segments are elsewhere.
    pub checked_from: u64,
    /// Where what could be held against it ends: at damage, where that begins.
    pub checked_to: u64,
    /// Batches whose bytes were.
    pub batches: u64,
    /// Checkpoints whose bytes were.
    pub checkpoints: u64,
    /// What is wrong.
    pub fault: Option<ChainError>,
    /// What the journal makes behind the chain's end; nothing at a fault or damage.
    pub behind: Vec<ChainEntry>,
}

impl JournalFiles {
    /// The entries that the records of segment `number` make, as far as `scan`, which has gone through it, found them good.
    pub(super) fn chain_entries(&self, number: u64, segment: &[u8], scan: &Scan) -> Vec<ChainEntry> {
        let geometry = self.geometry();
        let good = if geometry.segment_of(scan.position) == number {
            geometry.offset(scan.position) as usize
        } else {
            segment.len()
        };
        let mut found = Vec::new();
        // Where no record can begin the scan has stopped, too, and says so.
        let _damage_is_told_by_the_scan = SegmentDigest::new(geometry, number).take(&segment[..good], &mut found);
        found
    }

    /// Holds what the segments make, in order from segment `first` on and up to position `end`, against the chain. At
    /// `damage` the bytes from there on say nothing of the links that cover them.
    pub(super) fn compare(
        &self,
        chain: &Chain,
        first: u64,
        found: &[ChainEntry],
        end: u64,
        damage: bool,
    ) -> ChainVerdict {
        let geometry = self.geometry();
        let foreign =
            chain.start().journal_id != self.journal_id() || chain.start().segment_bytes != self.segment_bytes();
        let checked_from = geometry.segment_start(first).max(chain.start().position);
        let mut verdict = ChainVerdict {
            checked_from,
            checked_to: end,
            batches: 0,
            checkpoints: 0,
            fault: foreign.then(|| ChainError::Foreign {
                file: self.directory().join("chain"),
            }),
            behind: Vec::new(),
        };
        if foreign {
            return verdict;
        }
        let all = chain.links();
        let from = all.partition_point(|link| link.entry.from < checked_from);
        let found = &found[found.partition_point(|entry| entry.from < checked_from)..];
        let to = if damage {
            all.partition_point(|link| link.entry.to <= end)
        } else {
            all.len()
        };
        for (at, link) in all.iter().enumerate().take(to).skip(from) {
            if found.get(at - from) == Some(&link.entry) {
                verdict.batches += u64::from(link.entry.window.is_none());
                verdict.checkpoints += u64::from(link.entry.window.is_some());
                continue;
            }
            verdict.fault = Some(if link.entry.to > end {
                ChainError::Short {
                    end_name: "end is",
                    end,
                    chained: chain.end(),
                    what: "its end was cut off, or the disk has lost what it said it had",
                }
            } else {
                self.rewritten(all, at, &found[(at - from).min(found.len())..])
            });
            break;
        }
        if verdict.fault.is_none() && !damage {
            verdict.behind = found.get(all.len() - from..).unwrap_or_default().to_vec();
        }
        verdict
    }

    /// The finding that link `at` does not hold; `rest` are the entries of today from there on.
    fn rewritten(&self, links: &[ChainLink], at: usize, rest: &[ChainEntry]) -> ChainError {
        let geometry = self.geometry();
        let entry = links[at].entry;
        let batch = |from| rest.iter().find(|entry| entry.window.is_none() && entry.from == from);
        let differs = |link: &&ChainLink| {
            link.entry.window.is_none()
                && batch(link.entry.from).is_none_or(|found| found.content != link.entry.content)
        };
        ChainError::Rewritten {
            file: segment_path(self.directory(), geometry.segment_of(entry.from)),
            offset: geometry.offset(entry.from),
            from: entry.from,
            to: entry.to,
            after: links[..at].iter().rev().find_map(|link| link.entry.window),
            before: links[at..].iter().find_map(|link| link.entry.window),
            batches: (links[at..].iter().filter(differs).count() as u64).max(1),
        }
    }
}
