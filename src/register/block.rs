//! The bytes of a run: blocks of 4 KiB, each sealed with a CRC.
//!
//! ```text
//! block      0 CRC-32C u32 of all that follows │ 4 level u8, 0 │ 6 entries u16 │ 8 its number in the run u64
//!           16 run's tag u64 │ 24 zero u64 │ 32 entries, and zeros to the end
//! level      0 records │ 1.. index │ 254 header │ 255 footer
//! index      0 first key of the block below: high u64, low u64 │ 16 that block's number u64
//! run        header │ blocks of records, and behind the last record of each index block that index block │ footer
//! ```
//! The tag is drawn from the journal's id and the run's name, so that a block of another run, or from another place of this
//! one, is not taken for the right one.

use bytemuck::{Pod, Zeroable};

/// The length of a block.
pub const BLOCK_BYTES: usize = 4_096;
pub(super) const BLOCK_HEADER_BYTES: usize = 32;
pub(super) const LEVEL_RECORDS: u8 = 0;
pub(super) const LEVEL_HEADER: u8 = 254;
pub(super) const LEVEL_FOOTER: u8 = 255;

/// By what a record is found; runs are sorted by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct RegisterKey {
    /// A payment id's upper half; a word's participant.
    pub high: u64,
    /// A payment id's lower half; a word's number.
    pub low: u64,
}

/// A record of fixed size that a register keeps.
pub trait Filed: Pod + Send + Sync + std::fmt::Debug {
    /// What the runs that hold it are called.
    const NAME: &'static str;

    /// Its key.
    fn key(&self) -> RegisterKey;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BlockHeader {
    pub(super) crc: u32,
    pub(super) level: u8,
    pub(super) reserved: u8,
    pub(super) entries: u16,
    pub(super) number: u64,
    pub(super) tag: u64,
    pub(super) zero: u64,
}

const _: () = assert!(size_of::<BlockHeader>() == BLOCK_HEADER_BYTES);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct IndexEntry {
    pub(super) first: RegisterKey,
    pub(super) block: u64,
}

/// Index entries that a block holds.
pub(super) const INDEX_ENTRIES: usize = (BLOCK_BYTES - BLOCK_HEADER_BYTES) / size_of::<IndexEntry>();

/// Records of this kind that a block holds.
pub(super) const fn entries_of<T>() -> usize {
    (BLOCK_BYTES - BLOCK_HEADER_BYTES) / size_of::<T>()
}

/// The first block's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RunHeader {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) record_bytes: u32,
    pub(super) journal_id: [u8; 16],
    pub(super) date: u32,
    pub(super) first: u32,
    pub(super) last: u32,
    /// How often its records were merged; [`RunHeader::SEALED`] once the day is sealed.
    pub(super) rank: u32,
}

impl RunHeader {
    pub(super) const MAGIC: [u8; 8] = *b"CLRWYRUN";
    pub(super) const VERSION: u32 = 2;
    pub(super) const SEALED: u32 = u32::MAX;
}

/// The last block's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RunFooter {
    pub(super) records: u64,
    /// Number of the tree's topmost block.
    pub(super) root: u64,
    pub(super) first: RegisterKey,
    pub(super) last: RegisterKey,
    /// Of every byte before the footer's block.
    pub(super) hash: [u8; 32],
}

/// The tag that the blocks of a run carry.
pub(super) fn tag_of(header: &RunHeader) -> u64 {
    let hash = blake3::hash(bytemuck::bytes_of(header));
    let mut tag = [0; 8];
    tag.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(tag)
}

/// Writes header and CRC into a block whose entries stand already.
pub(super) fn seal(block: &mut [u8; BLOCK_BYTES], level: u8, entries: usize, number: u64, tag: u64) {
    let header = BlockHeader {
        crc: 0,
        level,
        reserved: 0,
        entries: entries as u16,
        number,
        tag,
        zero: 0,
    };
    block[..BLOCK_HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
    let crc = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Checks a block and gives its level and number of entries; `tag` is `None` for a header, which tells it.
pub(super) fn check(block: &[u8], number: u64, tag: Option<u64>) -> Result<(u8, usize), &'static str> {
    let header: BlockHeader = bytemuck::pod_read_unaligned(&block[..BLOCK_HEADER_BYTES]);
    if crc32c::crc32c(&block[4..BLOCK_BYTES]) != header.crc {
        return Err("the block's CRC does not match");
    }
    if header.number != number {
        return Err("the block belongs to another place of the run");
    }
    if tag.is_some_and(|tag| tag != header.tag) {
        return Err("the block belongs to another run");
    }
    Ok((header.level, usize::from(header.entries)))
}

/// The `index`th entry of a block.
pub(super) fn entry<T: Pod>(block: &[u8], index: usize) -> T {
    let at = BLOCK_HEADER_BYTES + index * size_of::<T>();
    bytemuck::pod_read_unaligned(&block[at..at + size_of::<T>()])
}
