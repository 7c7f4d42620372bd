//! The format in which an engine's state is saved: sections one after the other, each with its name and length.
//!
//! ```text
//! "CLEARWAY STATE" 2 × u8 version │ sections ... │ zeros to a multiple of 4096 │ arrays ...
//! section: name [u8; 8] │ length u64 │ length bytes
//! array: the payments' records, their places, the pieces of the index lane by lane: each as it lies in memory, with zeros
//!        to a multiple of 4096
//! ```
//!
//! Sections come in one order and none is missing; they say how long the arrays are. Numbers are little-endian. The content is checksummed by whoever
//! stores it; what is read is checked all the same, so that a wrong byte gives an error and neither a panic nor a
//! allocation beyond what was really read.

use std::io::{self, Read, Write};

use bytemuck::{Pod, Zeroable};
use thiserror::Error;

/// What the file begins with; the last two bytes are the version.
pub(super) const MAGIC: [u8; 16] = *b"CLEARWAY STATE\x03\x00";

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Arrays begin and end at multiples of this, as direct reads want it.
pub(super) const BLOCK_BYTES: usize = 4096;

/// Where a saved state is read from.
pub trait StateSource: Read {
    /// How many bytes are left to be read.
    fn left(&self) -> u64;

    /// Fills all of `parts`, one after the other, with what comes next. Where the source begins at a multiple of 4096, so
    /// does, in address and length, each of them.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::UnexpectedEof`].
    fn fill(&mut self, parts: Vec<&mut [u8]>) -> io::Result<()>;

    /// How many threads may look at what was read.
    fn threads(&self) -> usize {
        1
    }
}

impl StateSource for &[u8] {
    fn left(&self) -> u64 {
        self.len() as u64
    }

    fn fill(&mut self, parts: Vec<&mut [u8]>) -> io::Result<()> {
        parts.into_iter().try_for_each(|part| self.read_exact(part))
    }
}

/// Counts what is written, so that arrays begin at whole blocks.
pub(super) struct Blocks<'a, W> {
    out: &'a mut W,
    bytes: usize,
}

impl<'a, W: Write> Blocks<'a, W> {
    pub(super) const fn new(out: &'a mut W) -> Self {
        Self { out, bytes: 0 }
    }

    /// Writes zeros up to a whole block.
    pub(super) fn fill_block(&mut self) -> io::Result<()> {
        let missing = self.bytes.next_multiple_of(BLOCK_BYTES) - self.bytes;
        self.write_all(&[0; BLOCK_BYTES][..missing])
    }
}

impl<W: Write> Write for Blocks<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads the zeros behind the sections of a state that was `length` bytes long at its beginning.
pub(super) fn skip_to_arrays<R: StateSource + ?Sized>(input: &mut R, length: u64) -> Result<(), LoadError> {
    let read = (length - input.left()) as usize;
    let mut zeros = [0; BLOCK_BYTES];
    let zeros = &mut zeros[..read.next_multiple_of(BLOCK_BYTES) - read];
    input.read_exact(zeros)?;
    if zeros.iter().any(|&byte| byte != 0) {
        return Err(damaged("ids", "what lies behind it"));
    }
    Ok(())
}

/// Why a saved state can't be taken.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It could not be read to its end.
    #[error("the saved state can't be read: {0}; use the snapshot before it, or replay the journal from its beginning")]
    Io(#[from] io::Error),
    /// It is none, or one of another version.
    #[error(
        "this is no saved state of version 3; use the snapshot before it, or replay the journal from its beginning"
    )]
    Unknown,
    /// It contradicts itself.
    #[error("section {section} of the saved state is damaged ({what}); use the snapshot before it")]
    Damaged {
        /// The section's name.
        section: &'static str,
        /// What is wrong.
        what: &'static str,
    },
}

pub(super) const fn damaged(section: &'static str, what: &'static str) -> LoadError {
    LoadError::Damaged { section, what }
}

/// A section's first 16 bytes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Heading {
    name: [u8; 8],
    bytes: u64,
}

fn padded(name: &str) -> [u8; 8] {
    let mut bytes = [b' '; 8];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// Writes a section of so many bytes by `write`.
pub(super) fn section<W: Write>(
    out: &mut W,
    name: &'static str,
    bytes: usize,
    write: impl FnOnce(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    let heading = Heading {
        name: padded(name),
        bytes: bytes as u64,
    };
    out.write_all(bytemuck::bytes_of(&heading))?;
    write(out)
}

/// Writes rows as a section.
pub(super) fn rows<W: Write, T: Pod>(out: &mut W, name: &'static str, rows: &[T]) -> io::Result<()> {
    section(out, name, size_of_val(rows), |out| {
        out.write_all(bytemuck::cast_slice(rows))
    })
}

/// Reads a section's heading; gives its length in bytes.
fn begin<R: Read + ?Sized>(input: &mut R, name: &'static str) -> Result<usize, LoadError> {
    let mut heading = Heading::zeroed();
    input.read_exact(bytemuck::bytes_of_mut(&mut heading))?;
    if heading.name != padded(name) {
        return Err(damaged(name, "another section stands in its place"));
    }
    usize::try_from(heading.bytes).map_err(|_| damaged(name, "its length"))
}

/// Reads a section of rows of `T`, a part at a time: memory is taken only for what is really there.
pub(super) fn read_rows_with<R: Read + ?Sized, T: Pod>(
    input: &mut R,
    name: &'static str,
    mut take: impl FnMut(&[T]) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let bytes = begin(input, name)?;
    if !bytes.is_multiple_of(size_of::<T>()) {
        return Err(damaged(name, "its length"));
    }
    let mut left = bytes / size_of::<T>();
    let chunk_max = (CHUNK_BYTES / size_of::<T>()).max(1);
    let mut chunk = vec![T::zeroed(); left.min(chunk_max)];
    while left > 0 {
        let count = left.min(chunk_max);
        input.read_exact(bytemuck::cast_slice_mut(&mut chunk[..count]))?;
        take(&chunk[..count])?;
        left -= count;
    }
    Ok(())
}

/// Reads a section of rows of `T`.
pub(super) fn read_rows<R: Read + ?Sized, T: Pod>(input: &mut R, name: &'static str) -> Result<Vec<T>, LoadError> {
    let mut all = Vec::new();
    read_rows_with(input, name, |rows| {
        all.extend_from_slice(rows);
        Ok(())
    })?;
    Ok(all)
}

/// Reads a section of exactly one row.
pub(super) fn read_row<R: Read + ?Sized, T: Pod>(input: &mut R, name: &'static str) -> Result<T, LoadError> {
    if begin(input, name)? != size_of::<T>() {
        return Err(damaged(name, "its length"));
    }
    let mut row = T::zeroed();
    input.read_exact(bytemuck::bytes_of_mut(&mut row))?;
    Ok(row)
}

/// Where the engine stands: the section "engine".
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Standing {
    pub(super) open_sum: [u64; 2],
    pub(super) event_number: u64,
    pub(super) time_ns: u64,
    pub(super) digest: u64,
    pub(super) taken: u64,
    pub(super) cursor: u32,
    pub(super) begun: u32,
    pub(super) sealed: u32,
    pub(super) window_date: u32,
    pub(super) windows_on_date: u32,
    pub(super) reserved: u32,
    pub(super) tally: super::invariant::Tally,
}

/// A participant.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ParticipantRow {
    pub(super) terms: crate::domain::ParticipantTerms,
    pub(super) accounts: [AccountRow; 4],
    pub(super) books: [BookRow; 4],
    pub(super) as_initiator: [u64; 2],
    pub(super) as_responder: [u64; 2],
    /// Words told, blocks dropped, blocks kept.
    pub(super) words: u64,
    pub(super) blocks_dropped: u64,
    pub(super) blocks: u64,
}

/// An account: sums as two halves.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AccountRow {
    /// 1: the participant has this currency.
    pub(super) open: u32,
    /// How many levels of its alarm use has come to.
    pub(super) level: u32,
    pub(super) position: [u64; 2],
    pub(super) reserved: [u64; 2],
    pub(super) cover: [u64; 2],
    pub(super) cap: [u64; 2],
}

/// What became of an account's cover: sums as two halves.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BookRow {
    pub(super) opening: [u64; 2],
    pub(super) brought_in: [u64; 2],
    pub(super) taken_out: [u64; 2],
    pub(super) settled: [u64; 2],
}

/// A block of an outbox.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BlockRow {
    pub(super) taken: u64,
    pub(super) words: [u64; super::outbox::BLOCK_WORDS],
}

/// A window; its nets follow all windows.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct WindowRow {
    pub(super) id: u64,
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) committed: u64,
    pub(super) gross: [u64; 2],
    pub(super) currency: u16,
    pub(super) currency_slot: u8,
    pub(super) state: u8,
    pub(super) nets: u32,
}

/// A Reversal.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ReversalRow {
    pub(super) raised: u64,
    pub(super) next: u64,
    pub(super) word: u64,
    pub(super) state: u32,
    pub(super) attempts: u32,
    pub(super) payment: super::payment::PaymentRecord,
}

/// An id and a number: what refunds hold of an original.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SumRow {
    pub(super) id: crate::domain::PaymentId,
    pub(super) sum: u64,
}

/// A slot and an id (an open refund's original) or a token.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SlotRow {
    pub(super) slot: u64,
    pub(super) about: [u64; 2],
}

/// A timer of the heap.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TimerRow {
    pub(super) deadline: u64,
    pub(super) id: crate::domain::PaymentId,
    pub(super) slot: u32,
    pub(super) kind: u32,
}

/// A payment that waits for T1.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DoubtRow {
    pub(super) class: u32,
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) reserved: u32,
}

/// An exception item.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ExceptionRow {
    pub(super) payment: crate::domain::PaymentId,
    pub(super) event: u64,
    pub(super) time: u64,
    pub(super) what: u64,
}

/// A sum as two halves, and back.
pub(super) fn halves(sum: i128) -> [u64; 2] {
    [sum as u64, (sum >> 64) as u64]
}

pub(super) fn whole([low, high]: [u64; 2]) -> i128 {
    (u128::from(low) | u128::from(high) << 64) as i128
}
