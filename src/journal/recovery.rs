//! Opening a journal that was written before: what counts, what is damage, what is cut.
//!
//! Every record is checked from the first on, or from a snapshot's place. Behind the first bad one, Group records are
//! searched for: the highest
//! position any of them states had been durable, so that a bad record before it is damage, and the journal is refused
//! unchanged. Otherwise the bad record is where a write was under way when the machine stopped; the journal ends there,
//! what lies behind is made zeros, and what lies between the watermark and the end, which perhaps was never flushed, is
//! written again before the first event is applied.

use std::ops::Range;

use super::directory::segment_path;
use super::error::JournalError;
use super::layout::{BLOCK_BYTES, SEGMENT_HEADER_BYTES, Seed, SegmentHeader};
use super::options::JournalStart;
use super::scan::{Remains, Scan};
use super::segment::SegmentStore;
use super::tail::address;
use crate::memory::MappedMemory;

/// What the segments hold.
#[derive(Debug)]
pub(super) struct Findings {
    /// The scan at the journal's end.
    pub(super) scan: Scan,
    /// What lies behind.
    pub(super) remains: Remains,
}

/// Reads the header of segment `number`, which begins `bytes`, and holds it against what it must be.
pub(super) fn check_header(store: &SegmentStore, number: u64, bytes: &[u8]) -> Result<SegmentHeader, JournalError> {
    let foreign = |reason: String| JournalError::SegmentForeign {
        file: segment_path(&store.directory, number),
        reason,
    };
    let header = SegmentHeader::parse(bytes).map_err(foreign)?;
    if header.journal_id != store.journal_id {
        return Err(foreign("the segment belongs to another journal".to_owned()));
    }
    if header.number != number {
        return Err(foreign(format!("the segment says it is number {}", header.number)));
    }
    if header.segment_bytes != store.geometry.segment_bytes {
        return Err(foreign(format!(
            "the journal has segments of {} bytes, the settings say {}",
            header.segment_bytes, store.geometry.segment_bytes
        )));
    }
    Ok(header)
}

/// Reads the segments from the one `start` lies in to `numbers`' end through their places in `ring`, whose last ones stay
/// there up to the active one.
pub(super) fn scan(
    store: &SegmentStore,
    ring: &MappedMemory,
    numbers: Range<u64>,
    start: &JournalStart,
) -> Result<Findings, JournalError> {
    let geometry = store.geometry;
    let seed = Seed::new(store.journal_id);
    let first = geometry.segment_of(start.position);
    if first == numbers.end && geometry.offset(start.position) == SEGMENT_HEADER_BYTES {
        return ends_at_full_segment(store, ring, first - 1, start);
    }
    if !numbers.contains(&first) {
        return Err(not_there(store, numbers, start));
    }
    let mut scan = Scan::starting_at(geometry, seed, start);
    let mut remains = Remains::default();
    let mut bad = None;
    let mut aside = None;
    let mut epoch = 0;
    for number in first..numbers.end {
        let place = if bad.is_none() {
            address(ring, geometry.segment_start(number))
        } else {
            // The ring's places hold what was found good.
            let memory = match aside.take() {
                Some(memory) => memory,
                None => MappedMemory::new(geometry.segment_bytes as usize, false)
                    .map_err(JournalError::system(&store.directory, "get memory for reading"))?,
            };
            aside.insert(memory).as_ptr()
        };
        // SAFETY: a segment's place in the ring, or memory as long as one; both are known to nobody else yet.
        let segment = unsafe {
            store.read_whole(number, place)?;
            std::slice::from_raw_parts(place, geometry.segment_bytes as usize)
        };
        epoch = check_header(store, number, segment)?.epoch.max(epoch);
        if number == first {
            scan.epoch = scan.epoch.max(check_before(store, number, segment, start)?);
        }
        if bad.is_some() {
            remains.search(
                geometry,
                seed,
                segment,
                geometry.segment_start(number) + SEGMENT_HEADER_BYTES,
            );
            continue;
        }
        while geometry.segment_of(scan.position) == number {
            if let Err(reason) = scan.step(segment) {
                bad = Some(reason);
                remains.search(geometry, seed, segment, scan.position);
                break;
            }
        }
    }
    let watermark = scan.watermark.max(remains.watermark);
    if let Some(reason) = bad
        && watermark > scan.position
    {
        return Err(JournalError::Damaged {
            file: store.path(geometry.segment_of(scan.position)),
            offset: geometry.offset(scan.position),
            position: scan.position,
            watermark,
            reason,
        });
    }
    scan.epoch = scan.epoch.max(epoch).max(remains.epoch);
    Ok(Findings { scan, remains })
}

/// The journal that ends with segment `last`, full to its last byte, where `start` is the place behind: the next one could
/// not be made any more.
fn ends_at_full_segment(
    store: &SegmentStore,
    ring: &MappedMemory,
    last: u64,
    start: &JournalStart,
) -> Result<Findings, JournalError> {
    let geometry = store.geometry;
    let place = address(ring, geometry.segment_start(last));
    // SAFETY: a segment's place in the ring, known to nobody else yet.
    let segment = unsafe {
        store.read_whole(last, place)?;
        std::slice::from_raw_parts(place, geometry.segment_bytes as usize)
    };
    let epoch = check_header(store, last, segment)?.epoch;
    let mut scan = Scan::starting_at(geometry, Seed::new(store.journal_id), start);
    scan.epoch = scan.epoch.max(epoch).max(check_before(store, last, segment, start)?);
    Ok(Findings {
        scan,
        remains: Remains::default(),
    })
}

/// Why there is no segment that `start` lies in.
fn not_there(store: &SegmentStore, numbers: Range<u64>, start: &JournalStart) -> JournalError {
    let number = store.geometry.segment_of(start.position);
    if number < numbers.start {
        return store.not_kept(start.position, numbers.start);
    }
    JournalError::SegmentMissing {
        file: store.path(number),
    }
}

/// Checks the records of segment `number` that lie before `start`, which must lead to it: had they been lost, with all that
/// follows, the journal would seem to end there and well. Returns the highest epoch among them.
fn check_before(store: &SegmentStore, number: u64, segment: &[u8], start: &JournalStart) -> Result<u32, JournalError> {
    let geometry = store.geometry;
    let begins_with_it = start.position == geometry.segment_start(number) + SEGMENT_HEADER_BYTES;
    let seed = Seed::new(store.journal_id);
    let mut scan = Scan::of_segment(geometry, seed, number, segment);
    let mut reason = None;
    while reason.is_none() && scan.position < start.position {
        reason = scan.step(segment).err();
    }
    let leads_there = scan.position == start.position && (scan.next_event == start.next_event || begins_with_it);
    if reason.is_none() && !leads_there {
        reason = Some("no record with the expected event number begins where a snapshot was taken");
    }
    let Some(reason) = reason else { return Ok(scan.epoch) };
    Err(JournalError::Damaged {
        file: store.path(number),
        offset: scan.position - geometry.segment_start(number),
        position: scan.position,
        watermark: start.position,
        reason,
    })
}

/// Makes zeros of everything behind `end` that is not, or could be taken for the journal's, in segments up to `count`, from
/// the block behind `end` on; the block `end` lies in is the syncer's.
pub(super) fn clear_behind(
    store: &SegmentStore,
    zeros: &MappedMemory,
    end: u64,
    count: u64,
) -> Result<(), JournalError> {
    let geometry = store.geometry;
    let memory = MappedMemory::new(geometry.segment_bytes as usize, false)
        .map_err(JournalError::system(&store.directory, "get memory for reading"))?;
    for number in geometry.segment_of(end)..count {
        let start = geometry.segment_start(number);
        let from = geometry
            .offset(end.max(start + SEGMENT_HEADER_BYTES))
            .next_multiple_of(BLOCK_BYTES);
        if from == geometry.segment_bytes {
            continue;
        }
        // SAFETY: memory as long as a segment, known to nobody else.
        let segment = unsafe {
            store.read_whole(number, memory.as_ptr())?;
            std::slice::from_raw_parts(memory.as_ptr(), geometry.segment_bytes as usize)
        };
        let seed = Seed::new(store.journal_id);
        let Some(content) = Remains::end_of_content(geometry, seed, segment, start + from) else {
            continue;
        };
        let content = content.next_multiple_of(BLOCK_BYTES);
        let file = store.open_to_write(number)?;
        let mut at = from;
        while at < content {
            let piece = (content - at).min(zeros.len() as u64);
            // SAFETY: the zeros live as long as the borrow and nobody writes to them; whole blocks at whole blocks.
            unsafe { file.write_durably(&[(zeros.as_ptr(), piece as usize)], at) }
                .map_err(JournalError::system(&file.path, "clear what was never durable"))?;
            at += piece;
        }
    }
    Ok(())
}
