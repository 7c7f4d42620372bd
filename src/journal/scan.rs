//! Reading records that may not be there: checks one after the other, and looks behind the first bad one for Group
//! records that prove it had been durable.

use super::layout::{
    GROUP_RECORD_BYTES, Geometry, RECORD_ALIGNMENT, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader,
    SEGMENT_HEADER_BYTES, Seed, SegmentHeader,
};
use super::options::JournalStart;
use crate::domain::UtcNanos;
use crate::wire::{GroupEvent, RecordKind};

/// Goes from record to record; each must be whole, in its place and next in number.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    geometry: Geometry,
    seed: Seed,
    /// Where the next record must begin.
    pub(super) position: u64,
    /// The number the next event must have.
    pub(super) next_event: u64,
    pub(super) last_time: UtcNanos,
    /// No later record has a lower one.
    pub(super) epoch: u32,
    /// The highest position that any Group record states as durable.
    pub(super) watermark: u64,
}

impl Scan {
    /// A scan that begins at `start`.
    pub(super) const fn starting_at(geometry: Geometry, seed: Seed, start: &JournalStart) -> Self {
        Self {
            geometry,
            seed,
            position: start.position,
            next_event: start.next_event,
            last_time: start.last_time,
            epoch: start.epoch,
            watermark: 0,
        }
    }

    /// Where it stands, as a place to begin at.
    pub(super) const fn here(&self) -> JournalStart {
        JournalStart {
            position: self.position,
            next_event: self.next_event,
            last_time: self.last_time,
            epoch: self.epoch,
        }
    }

    /// A scan of segment `number` alone, which knows nothing of those before: its first record may have any number and
    /// epoch.
    pub(super) fn of_segment(geometry: Geometry, seed: Seed, number: u64, segment: &[u8]) -> Self {
        let position = geometry.segment_start(number) + SEGMENT_HEADER_BYTES;
        let next_event = RecordHeader::read(segment, SEGMENT_HEADER_BYTES as usize).number;
        Self {
            position,
            next_event,
            ..Self::starting_at(geometry, seed, &JournalStart::BEGINNING)
        }
    }

    /// Checks the record at [`Scan::position`], which lies in `segment` (a whole one), and goes past it. Returns its
    /// kind, header and offset in the segment, or what is wrong with it.
    #[inline]
    pub(super) fn step(&mut self, segment: &[u8]) -> Result<(RecordKind, RecordHeader, usize), &'static str> {
        self.step_at(segment, self.geometry.offset(self.position) as usize)
    }

    /// The same for a record that lies at `offset` of `segment`, a piece of one that may end before the record does.
    #[inline]
    pub(super) fn step_at(
        &mut self,
        segment: &[u8],
        offset: usize,
    ) -> Result<(RecordKind, RecordHeader, usize), &'static str> {
        let header = RecordHeader::read(segment, offset);
        let length = u64::from(header.length);
        let left = (segment.len() - offset) as u64;
        if !is_length(length) || length > left || header.flags != 0 {
            return Err("no record begins here");
        }
        let Some(kind) = header.record_kind() else {
            return Err("the record is of no kind this version knows");
        };
        let record = &segment[offset..offset + length as usize];
        if !self.seed.matches(self.position, &header, record) {
            return Err("the record's CRC does not match");
        }
        if header.number != self.next_event {
            return Err("the record's event number is not the next one");
        }
        if header.epoch < self.epoch {
            return Err("the record is left over from before an earlier restart");
        }
        if kind == RecordKind::Group {
            let Some(stated) = group_statement(record).filter(|&stated| stated <= self.position) else {
                return Err("the Group record states what cannot be");
            };
            self.watermark = self.watermark.max(stated);
        }
        self.epoch = header.epoch;
        self.last_time = UtcNanos(header.time_ns);
        self.next_event += u64::from(kind.is_event());
        self.position = self.geometry.past_header(self.position + length);
        Ok((kind, header, offset))
    }
}

/// What lies behind the first bad record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Remains {
    /// The highest position that a Group record among them states as durable.
    pub(super) watermark: u64,
    /// The highest epoch of such a Group record.
    pub(super) epoch: u32,
    /// Bytes up to the last one that is not zero. In a segment file that was used before, whose bytes are not, up to the
    /// last one of a record that is in its place.
    pub(super) bytes: u64,
}

impl Remains {
    /// Looks through `segment` from `position` to its end, and adds what is found.
    pub(super) fn search(&mut self, geometry: Geometry, seed: Seed, segment: &[u8], position: u64) {
        let from = geometry.offset(position) as usize;
        let Some(end) = content_end(segment, from) else { return };
        let used_before = SegmentHeader::is_used_before(segment);
        let mut records_end = from;
        for offset in (from..end).step_by(RECORD_ALIGNMENT as usize) {
            let header = RecordHeader::read(segment, offset);
            let length = u64::from(header.length);
            let is_group = length == GROUP_RECORD_BYTES && header.record_kind() == Some(RecordKind::Group);
            // Records behind the end are of interest only where zeros do not tell how far they go.
            if !(is_group || used_before && is_length(length) && header.record_kind().is_some()) {
                continue;
            }
            let Some(record) = segment.get(offset..offset + length as usize) else {
                continue;
            };
            let at = position + (offset - from) as u64;
            if !seed.matches(at, &header, record) {
                continue;
            }
            records_end = records_end.max(offset + record.len());
            if let Some(stated) = group_statement(record).filter(|&stated| is_group && stated <= at) {
                self.watermark = self.watermark.max(stated);
                self.epoch = self.epoch.max(header.epoch);
            }
        }
        self.bytes += (if used_before { records_end } else { end } - from) as u64;
    }

    /// Where the bytes of `segment` behind `position` end that would be taken for the journal's, as an offset; none if
    /// there are none.
    pub(super) fn end_of_content(geometry: Geometry, seed: Seed, segment: &[u8], position: u64) -> Option<u64> {
        let mut remains = Self::default();
        remains.search(geometry, seed, segment, position);
        (remains.bytes > 0).then(|| geometry.offset(position) + remains.bytes)
    }
}

/// Where the bytes of `segment` behind `from` end that are not zero; none if all are. Goes forward: backward through a
/// mapping, the kernel would look for pages to read ahead at every single one.
fn content_end(segment: &[u8], from: usize) -> Option<usize> {
    const PIECE_BYTES: usize = 4096;
    static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
    let mut last_piece = None;
    let mut start = from;
    for piece in segment.get(from..)?.chunks(PIECE_BYTES) {
        if piece != &ZEROS[..piece.len()] {
            last_piece = Some((start, piece));
        }
        start += piece.len();
    }
    let (start, piece) = last_piece?;
    let last = piece.iter().rposition(|&byte| byte != 0)?;
    Some(start + last + 1)
}

pub(super) const fn is_length(length: u64) -> bool {
    length >= RECORD_HEADER_BYTES && length <= RECORD_BYTES_MAX && length.is_multiple_of(RECORD_ALIGNMENT)
}

fn group_statement(record: &[u8]) -> Option<u64> {
    let payload = record.get(RECORD_HEADER_BYTES as usize..GROUP_RECORD_BYTES as usize)?;
    (record.len() as u64 == GROUP_RECORD_BYTES).then(|| bytemuck::pod_read_unaligned::<GroupEvent>(payload).durable)
}
