//! The journal's bytes: where a position lies, what a segment and a record begin with, how both are checked.
//!
//! ```text
//! position = segment number × segment bytes + offset in the file NNNNNNNNNNNN.seg
//!
//! segment  0 magic "CLRWYSEG" │ 8 version u32 │ 12 schema u32 │ 16 journal id 16 bytes │ 32 segment number u64
//!         40 segment bytes u64 │ 48 epoch u32 │ 52 used before u32: 0 or 1
//!         56 crc u32 (CRC-32C of the 56 bytes before) │ 60 zeros … 4096 records
//!
//! record   0 length u32 (header and payload, a multiple of 32) │ 4 kind u16 │ 6 flags u16 (zero) │ 8 event number u64
//!         16 time u64 (UTC ns) │ 24 epoch u32 │ 28 crc u32 │ 32 payload … length
//! ```
//! Little-endian. Records begin at multiples of 32 and never straddle a segment: what does not fit goes to the next one
//! and a Pad record fills the end. Group and Pad records carry the number of the next event without taking it.
//!
//! A record's CRC is CRC-32C over the header with a zero in the place of the CRC, then the payload, begun from a seed
//! made of the journal's id and the record's position: bytes of another journal, segment or earlier lap never parse. So a
//! segment file that is no longer kept can become a later segment as it is, by another name and header: it was "used
//! before", and behind what is written in it lie an earlier lap's records where otherwise zeros are.

use bytemuck::{Pod, Zeroable};

use super::checksum::checksum;
use crate::wire::{GroupEvent, RecordKind, SCHEMA_ID};

/// What records are aligned to and their lengths are multiples of.
pub const RECORD_ALIGNMENT: u64 = 32;
/// The longest record, header included: what a segment's end can cost at most.
pub const RECORD_BYTES_MAX: u64 = 4096;
/// A record's header.
pub const RECORD_HEADER_BYTES: u64 = size_of::<RecordHeader>() as u64;
/// What a segment begins with; no record lies in it.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// What a durable write is made of.
pub const BLOCK_BYTES: u64 = 4096;
/// A Group record, header included.
pub(super) const GROUP_RECORD_BYTES: u64 = RECORD_HEADER_BYTES + size_of::<GroupEvent>() as u64;

const MAGIC: [u8; 8] = *b"CLRWYSEG";
const LAYOUT_VERSION: u32 = 2;
const SEGMENT_CRC_OFFSET: usize = std::mem::offset_of!(SegmentHeader, crc);

/// An absolute byte offset in the journal, over all its segments; a multiple of 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct JournalPosition(pub u64);

impl std::fmt::Display for JournalPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a record begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RecordHeader {
    pub(super) length: u32,
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) number: u64,
    pub(super) time_ns: u64,
    pub(super) epoch: u32,
    pub(super) crc: u32,
}

const _: () = assert!(size_of::<RecordHeader>() == 32 && std::mem::offset_of!(RecordHeader, crc) == 28);
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(
    cfg!(target_endian = "little"),
    "records are written as the structs lie in memory"
);

impl RecordHeader {
    /// Reads the header at `offset` of `bytes`, whatever it says.
    #[inline]
    pub(super) fn read(bytes: &[u8], offset: usize) -> Self {
        bytemuck::pod_read_unaligned(&bytes[offset..offset + size_of::<Self>()])
    }

    /// The kind, if it is one.
    #[inline]
    pub(super) const fn record_kind(&self) -> Option<RecordKind> {
        RecordKind::from_u16(self.kind)
    }
}

/// What a segment begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SegmentHeader {
    magic: [u8; 8],
    version: u32,
    schema: u32,
    pub(super) journal_id: [u8; 16],
    pub(super) number: u64,
    pub(super) segment_bytes: u64,
    pub(super) epoch: u32,
    used_before: u32,
    crc: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<SegmentHeader>() == 64 && SEGMENT_CRC_OFFSET == 56);

impl SegmentHeader {
    pub(super) fn new(journal_id: [u8; 16], number: u64, segment_bytes: u64, epoch: u32, used_before: bool) -> Self {
        let mut header = Self {
            magic: MAGIC,
            version: LAYOUT_VERSION,
            schema: u32::from(SCHEMA_ID),
            journal_id,
            number,
            segment_bytes,
            epoch,
            used_before: used_before.into(),
            crc: 0,
            reserved: 0,
        };
        header.crc = header.checksum();
        header
    }

    /// True when an earlier lap's bytes lie behind what is written in the segment that begins with `bytes`, whose header
    /// was checked.
    pub(super) fn is_used_before(bytes: &[u8]) -> bool {
        let header: Self = bytemuck::pod_read_unaligned(&bytes[..size_of::<Self>()]);
        header.used_before != 0
    }

    /// Reads and checks the header that `bytes` begin with, and what lies between it and the first record if they go on
    /// as far; says in words what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let behind = bytes.get(size_of::<Self>()..SEGMENT_HEADER_BYTES as usize);
        let Some(bytes) = bytes.get(..size_of::<Self>()) else {
            return Err("the file is shorter than a segment's header".to_owned());
        };
        let header: Self = bytemuck::pod_read_unaligned(bytes);
        if header.magic != MAGIC {
            return Err("the file does not begin as a journal segment does".to_owned());
        }
        let is_whole = header.crc == header.checksum() && header.reserved == 0;
        let other = |who: &str, advice: &str| {
            let doubt = if is_whole {
                ""
            } else {
                "; or its header is damaged, for the CRC does not match"
            };
            format!(
                "{who} release wrote the segment: it says version {} of the journal's layout and this one reads version \
                 {LAYOUT_VERSION}{doubt}; nothing was changed: {advice}",
                header.version
            )
        };
        // Before the CRC, which in another version may lie elsewhere.
        if header.version > LAYOUT_VERSION {
            return Err(other("a newer", "go on with that release or a later one"));
        }
        if header.version < LAYOUT_VERSION {
            return Err(other(
                "an older",
                "go on with that release, or give this one a new data directory",
            ));
        }
        if !is_whole {
            return Err(
                "the segment header's CRC does not match: it is damaged, and nothing was changed; restore the file \
                        from a copy"
                    .to_owned(),
            );
        }
        if header.schema != u32::from(SCHEMA_ID) {
            return Err(format!(
                "another release wrote the segment: it holds frames of schema {} and this one reads schema {SCHEMA_ID}; \
                 nothing was changed: go on with that release",
                header.schema
            ));
        }
        if behind.is_some_and(|behind| behind.iter().any(|&byte| byte != 0)) {
            return Err("the bytes between the segment's header and its first record are not zeros".to_owned());
        }
        Ok(header)
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(&bytemuck::bytes_of(self)[..SEGMENT_CRC_OFFSET])
    }
}

/// Where positions lie in segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    /// A power of two.
    pub(super) segment_bytes: u64,
}

impl Geometry {
    #[inline]
    pub(super) const fn segment_of(self, position: u64) -> u64 {
        position / self.segment_bytes
    }

    #[inline]
    pub(super) const fn segment_start(self, number: u64) -> u64 {
        number * self.segment_bytes
    }

    #[inline]
    pub(super) const fn offset(self, position: u64) -> u64 {
        position & (self.segment_bytes - 1)
    }

    /// `position`, or the first record's place if it lies in a segment's header.
    #[inline]
    pub(super) const fn past_header(self, position: u64) -> u64 {
        if self.offset(position) < SEGMENT_HEADER_BYTES {
            position - self.offset(position) + SEGMENT_HEADER_BYTES
        } else {
            position
        }
    }

    /// Bytes from `position` to the end of its segment.
    #[inline]
    pub(super) const fn left_in_segment(self, position: u64) -> u64 {
        self.segment_bytes - self.offset(position)
    }

    /// Where a record of `length` goes that is to be appended at `position`.
    #[inline]
    pub(super) const fn place(self, position: u64, length: u64) -> u64 {
        if length <= self.left_in_segment(position) {
            position
        } else {
            self.past_header(position + self.left_in_segment(position))
        }
    }
}

/// The part of a record's seed that is the journal's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(journal_id: [u8; 16]) -> Self {
        Self(crc32c::crc32c(&journal_id))
    }

    /// What the CRC of the record at `position` begins from: different for any two positions less than 128 GiB apart.
    #[inline]
    const fn at(self, position: u64) -> u32 {
        self.0 ^ (position >> 5) as u32 ^ ((position >> 37) as u32).wrapping_mul(0x9E37_79B1)
    }

    /// `header` with the CRC of the record at `position`.
    #[inline]
    pub(super) fn sealed(self, position: u64, header: RecordHeader, payload: &[u8]) -> RecordHeader {
        let unsealed = RecordHeader { crc: 0, ..header };
        RecordHeader {
            crc: checksum(self.at(position), &unsealed, payload),
            ..header
        }
    }

    /// True when the record in `record`, which lies at `position`, is what was written there.
    #[inline]
    pub(super) fn matches(self, position: u64, header: &RecordHeader, record: &[u8]) -> bool {
        self.sealed(position, *header, &record[size_of::<RecordHeader>()..]).crc == header.crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_header_with_any_bit_flipped_is_refused() {
        let header = SegmentHeader::new([7; 16], 3, 1 << 20, 2, true);
        let bytes = bytemuck::bytes_of(&header).to_vec();
        assert_eq!(SegmentHeader::parse(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&flipped).is_err(), "bit {bit}");
        }
        assert!(SegmentHeader::parse(&bytes[..63]).is_err());
        let mut newer = bytes.clone();
        newer[8] += 1;
        let refused = SegmentHeader::parse(&newer).unwrap_err();
        assert!(
            refused.contains("version 3") && refused.contains("version 2"),
            "{refused}"
        );
        // The zeros behind it are checked, too, where they are given.
        let mut whole = bytes;
        whole.resize(SEGMENT_HEADER_BYTES as usize, 0);
        assert_eq!(SegmentHeader::parse(&whole), Ok(header));
        for at in size_of::<SegmentHeader>()..whole.len() {
            whole[at] = 1 << (at % 8);
            assert!(SegmentHeader::parse(&whole).is_err(), "byte {at}");
            whole[at] = 0;
        }
    }

    #[test]
    fn a_record_checks_out_at_its_own_position_in_its_own_journal_only() {
        let mut header = RecordHeader::zeroed();
        header.length = 64;
        let mut record = [0_u8; 64];
        record[..32].copy_from_slice(bytemuck::bytes_of(&header));
        record[40] = 9;
        let seed = Seed::new([1; 16]);
        header = seed.sealed(4096, header, &record[32..]);
        assert!(seed.matches(4096, &header, &record));
        for position in [
            0,
            4128,
            4096 + (1 << 20),
            4096 + (1 << 30),
            4096 + (1 << 37),
            4096 + (1 << 40),
        ] {
            assert!(!seed.matches(position, &header, &record), "{position}");
        }
        assert!(!Seed::new([2; 16]).matches(4096, &header, &record));
    }

    #[test]
    fn a_record_that_does_not_fit_goes_behind_the_next_header() {
        let geometry = Geometry { segment_bytes: 1 << 16 };
        assert_eq!(geometry.place(65_536 - 64, 64), 65_536 - 64);
        assert_eq!(geometry.place(65_536 - 32, 64), 65_536 + 4096);
        assert_eq!(geometry.past_header(65_536), 65_536 + 4096);
        assert_eq!(geometry.past_header(65_536 + 4096), 65_536 + 4096);
    }
}
