//! A whole journal checked on every core there is: each segment alone first, then how they follow on each other.
//!
//! A record's CRC rests on its own bytes and position, so segments can be checked in any order. What goes over their
//! borders (event numbers, epochs, the watermark) is checked afterwards, in order; a segment that does not follow on the
//! one before, or holds a bad record, is gone through again the way [`JournalFiles::records`] would. So the verdict is the
//! same, by the same code.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use super::chain::Chain;
use super::chain_check::ChainVerdict;
use super::chain_error::ChainError;
use super::digest::ChainEntry;
use super::error::JournalError;
use super::files::JournalFiles;
use super::layout::{Geometry, RecordHeader, SEGMENT_HEADER_BYTES, Seed};
use super::scan::{Remains, Scan};
use crate::domain::UtcNanos;

/// What a check of all records found.
#[derive(Debug)]
pub struct Verification {
    /// Segment files, prepared ones included.
    pub segments: u64,
    /// Bytes of those files.
    pub file_bytes: u64,
    /// The first event that is kept; 1 unless older segments were archived and removed.
    pub first_event: u64,
    /// The last event that counts: how many there ever were.
    pub events: u64,
    /// The journal position where what counts ends; at damage, where that begins.
    pub end: u64,
    /// The time of the last record; 0 when there is none.
    pub last_time: UtcNanos,
    /// The last start of the switch that wrote a record, from 1; 0 when there is none.
    pub epoch: u32,
    /// The highest position that a Group record states as durable, those behind the end included.
    pub watermark: u64,
    /// Bytes behind the end up to the last one that is not zero: what a start of the switch would cut.
    pub bytes_behind: u64,
    /// [`JournalError::Damaged`], where a record at the end had been durable; [`JournalError::NotKept`], where the running
    /// switch removed a segment before it was read.
    pub damage: Option<JournalError>,
    /// What holding it against the chain came to, where that was asked for; at damage, of what lies before it. None where
    /// segments were removed meanwhile.
    pub chain: Option<ChainVerdict>,
}

/// What a segment holds, taken alone.
#[derive(Debug)]
struct SegmentFindings {
    first_event: u64,
    first_epoch: u32,
    scan: Scan,
    whole: bool,
    entries: Vec<ChainEntry>,
}

impl JournalFiles {
    /// Checks every record on `threads` threads. `progress` is told, now and then and from any of them, how many segments
    /// are done.
    ///
    /// # Panics
    /// When a thread can't be started.
    #[must_use]
    pub fn verify(&self, threads: NonZeroUsize, progress: &(dyn Fn(u64) + Sync)) -> Verification {
        self.verify_with(None, threads, progress)
    }

    /// As [`JournalFiles::verify`], and holds the bytes against `chain`, where there is one.
    ///
    /// # Panics
    /// When a thread can't be started.
    #[must_use]
    pub fn verify_with(
        &self,
        chain: Option<&Chain>,
        threads: NonZeroUsize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Verification {
        let geometry = self.geometry();
        let numbers = self.segment_numbers();
        let found = over_segments(numbers.clone(), threads, progress, |number| {
            self.check_alone(number, chain.is_some())
        });
        let mut scan = self.new_scan();
        let first_event = scan.next_event;
        let mut bad = None;
        for (number, alone) in (numbers.start..).zip(&found) {
            if alone.whole && alone.first_event == scan.next_event && alone.first_epoch >= scan.epoch {
                let watermark = scan.watermark.max(alone.scan.watermark);
                scan = alone.scan.clone();
                scan.watermark = watermark;
                continue;
            }
            bad = self.go_on(&mut scan, number);
            if bad.is_some() {
                break;
            }
        }
        let first = geometry.segment_of(scan.position);
        let remains = if bad.is_some() {
            over_segments(first..numbers.end, threads, &|_| {}, |number| {
                self.remains(number, scan.position)
            })
        } else {
            Vec::new()
        };
        let stated_behind = remains
            .iter()
            .map(|remains: &Remains| remains.watermark)
            .max()
            .unwrap_or(0);
        let mut damage = bad.and_then(|reason| self.damage_unless_written_since(&scan, stated_behind, reason));
        let mut verdict = match &damage {
            // What was removed meanwhile is proved by the archive.
            Some(JournalError::NotKept { .. }) => None,
            damage => chain.map(|chain| {
                let entries: Vec<_> = found.iter().flat_map(|alone| &alone.entries).copied().collect();
                self.compare(chain, numbers.start, &entries, scan.position, damage.is_some())
            }),
        };
        // A segment may have been used again between the check of its records and that of its bytes.
        if let Some(ChainError::Rewritten { from, .. }) = verdict.as_ref().and_then(|verdict| verdict.fault.as_ref())
            && let Some(gone) = self.gone(geometry.segment_of(*from))
        {
            (damage, verdict) = (Some(gone), None);
        }
        Verification {
            segments: self.segment_count(),
            file_bytes: self.segment_count() * geometry.segment_bytes,
            first_event,
            events: scan.next_event - 1,
            end: scan.position,
            last_time: scan.last_time,
            epoch: scan.epoch,
            watermark: scan.watermark.max(stated_behind),
            bytes_behind: remains.iter().map(|remains| remains.bytes).sum(),
            chain: verdict,
            damage,
        }
    }

    /// Checks segment `number` without what lies before it.
    fn check_alone(&self, number: u64, chained: bool) -> SegmentFindings {
        let geometry = self.geometry();
        let segment = self.segment(number).unwrap_or_default();
        let first = RecordHeader::read(segment, SEGMENT_HEADER_BYTES as usize);
        let mut scan = Scan::of_segment(geometry, Seed::new(self.journal_id()), number, segment);
        let whole = step_through(&mut scan, geometry, number, segment).is_none();
        SegmentFindings {
            first_event: first.number,
            first_epoch: first.epoch,
            entries: if chained {
                self.chain_entries(number, segment, &scan)
            } else {
                Vec::new()
            },
            scan,
            whole,
        }
    }

    /// Goes through segment `number` with a scan that stands at its first record; what stopped it, if something did.
    fn go_on(&self, scan: &mut Scan, number: u64) -> Option<&'static str> {
        step_through(scan, self.geometry(), number, self.segment(number).unwrap_or_default())
    }

    /// The damage, unless a running switch has put the record in its place since it was looked at.
    fn damage_unless_written_since(
        &self,
        scan: &Scan,
        stated_behind: u64,
        reason: &'static str,
    ) -> Option<JournalError> {
        let number = self.geometry().segment_of(scan.position);
        if let Some(gone) = self.gone(number) {
            return Some(gone);
        }
        let segment = self.segment(number)?;
        if scan.clone().step(segment).is_ok() {
            return None;
        }
        self.damage_at(scan, stated_behind, reason)
    }
}

fn step_through(scan: &mut Scan, geometry: Geometry, number: u64, segment: &[u8]) -> Option<&'static str> {
    while geometry.segment_of(scan.position) == number {
        if let Err(reason) = scan.step(segment) {
            return Some(reason);
        }
    }
    None
}

/// Does `work` for each segment on `threads` threads, which take the next one as they become free; results in order.
pub(super) fn over_segments<T: Send>(
    numbers: std::ops::Range<u64>,
    threads: NonZeroUsize,
    progress: &(dyn Fn(u64) + Sync),
    work: impl Fn(u64) -> T + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(numbers.start);
    let done = AtomicU64::new(0);
    let take = || {
        let mut results = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return results;
            }
            results.push((number, work(number)));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    let mut results: Vec<(u64, T)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(take)).collect();
        let mut results = take();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}
