//! Saving the duplicate index, and taking it back: what lanes say of themselves first, then their arrays as they lie in memory.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::duplicates::DuplicateIndex;
use super::partition::{Entry, Partition, PartitionHead, Pool};
use super::saved::{LoadError, damaged, read_rows, rows};

impl DuplicateIndex {
    /// Writes what each lane says of itself, and the arrays of those that are small.
    pub(super) fn save_lanes<W: Write>(&self, out: &mut W) -> io::Result<()> {
        let lanes = || self.partitions().map(|lane| lane.partition());
        rows(out, "lanes", &lanes().map(Partition::head).collect::<Vec<_>>())?;
        let small = lanes().filter(|lane| lane.head().is_small());
        rows(
            out,
            "ids",
            &small.flat_map(Partition::pieces).flatten().copied().collect::<Vec<_>>(),
        )
    }

    /// Writes the arrays of all others.
    pub(super) fn save_pieces<W: Write>(&self, out: &mut W) -> io::Result<()> {
        let lanes = self.partitions().map(|lane| lane.partition());
        lanes
            .filter(|lane| !lane.head().is_small())
            .flat_map(Partition::pieces)
            .try_for_each(|piece| out.write_all(bytemuck::cast_slice(piece)))
    }
}

/// The lanes as they were saved, without the arrays of large ones.
pub(super) struct SavedLanes {
    heads: Vec<PartitionHead>,
    /// The arrays of small ones, one after the other.
    entries: Vec<Entry>,
    /// Bytes of the arrays of large ones.
    pub(super) piece_bytes: u64,
}

pub(super) fn read_lanes<R: Read + ?Sized>(input: &mut R) -> Result<SavedLanes, LoadError> {
    let heads: Vec<PartitionHead> = read_rows(input, "lanes")?;
    if !heads.is_sorted_by(|before, after| before.key < after.key) {
        return Err(damaged("lanes", "their order"));
    }
    let entries: Vec<Entry> = read_rows(input, "ids")?;
    let large = heads.iter().filter(|head| !head.is_small());
    let elements = large.fold(0u64, |sum, head| sum.saturating_add(head.elements));
    Ok(SavedLanes {
        piece_bytes: elements.saturating_mul(size_of::<Entry>() as u64),
        heads,
        entries,
    })
}

impl SavedLanes {
    /// The lanes: small ones complete, large ones with arrays of zeros.
    pub(super) fn laid_out(self, pool: &mut Pool) -> Result<Vec<Partition>, LoadError> {
        pool.reserve_unfaulted(self.piece_bytes as usize / size_of::<Entry>())?;
        let mut entries = self.entries.as_slice();
        let mut partitions = Vec::with_capacity(self.heads.len());
        for head in self.heads {
            let mut partition = Partition::laid_out(head, pool).ok_or(damaged("lanes", "what one says of itself"))?;
            if head.is_small() {
                for piece in partition.pieces_mut() {
                    let saved = entries.split_off(..piece.len());
                    piece.copy_from_slice(saved.ok_or(damaged("ids", "how many there are"))?);
                }
            }
            partitions.push(partition);
        }
        if !entries.is_empty() {
            return Err(damaged("ids", "how many there are"));
        }
        Ok(partitions)
    }
}

/// Looks at each entry of each lane, on so many threads.
pub(super) fn all_in_order(partitions: &[Partition], threads: usize) -> bool {
    let next = AtomicUsize::new(0);
    let work = || {
        let next = || partitions.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(next).all(Partition::is_in_order)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others
            .into_iter()
            .fold(own, |all, other| all & other.join().unwrap_or(false))
    })
}
