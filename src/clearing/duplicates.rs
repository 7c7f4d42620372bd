//! The duplicate index: payment id → slot. Derived data, not part of the state hash.
//!
//! One partition for each date, originator and lane that is in use, so that an entry is the full serial and the slot,
//! twelve bytes: an answer is exact and reads no payment record. Where an entry lies depends on a number that only this
//! process knows: serials are the participants' choice. A partition grows in place by an eighth, a few entries
//! an insert, so that no insert waits for a table to be copied and the memory stays below 16 bytes an id. A sealed day is
//! dropped whole, and its memory serves the next.

use std::hash::{BuildHasher, RandomState};
use std::io;

use hashbrown::HashTable;

use super::partition::{Gap, Partition, Pool};
use crate::domain::{BusinessDate, PaymentId, PaymentSlot};

/// Payment id → slot.
#[derive(Debug)]
pub struct DuplicateIndex {
    /// Decides where ids lie, and nothing else: what is found never depends on it.
    secret: u64,
    partitions: Vec<Partition>,
    /// An id's high half → its partition.
    directory: HashTable<(u64, u32)>,
    pool: Pool,
    length: usize,
    /// How often it was changed: a [`Vacancy`] is good for one state only.
    changes: u64,
}

/// Where an id that was not found would be put.
#[derive(Clone, Copy, Debug)]
pub struct Vacancy {
    id: PaymentId,
    /// Its partition, where there is one.
    place: Option<(usize, Gap)>,
    changes: u64,
}

/// The ids of one date, originator and lane, as a snapshot writes them.
#[derive(Clone, Copy, Debug)]
pub struct IndexedLane<'a>(&'a Partition);

impl<'a> IndexedLane<'a> {
    pub(super) fn partition(&self) -> &'a Partition {
        self.0
    }

    /// The high half of its ids: date, originator, lane.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.0.key()
    }

    /// How many ids there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a lane is there from its first id on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Serials and slots, in the order that [`DuplicateIndex::restore`] takes without searching.
    pub fn entries(&self) -> impl Iterator<Item = (u64, PaymentSlot)> + '_ {
        self.0.entries()
    }
}

impl Default for DuplicateIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl DuplicateIndex {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self {
            secret: RandomState::new().hash_one(0),
            partitions: Vec::new(),
            directory: HashTable::new(),
            pool: Pool::new(),
            length: 0,
            changes: 0,
        }
    }

    /// Maps and faults in memory for so many more ids, so that none is asked of the host while payments flow.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn reserve(&mut self, ids: usize) -> io::Result<()> {
        self.pool.reserve(ids + ids * 5 / 16)
    }

    /// The slot of `id`.
    #[must_use]
    #[inline]
    pub fn find(&self, id: PaymentId) -> Option<PaymentSlot> {
        self.partition(id.high)?.find(id.low)
    }

    /// Asks for what [`DuplicateIndex::find`] of `id` reads.
    #[inline]
    pub fn prefetch(&self, id: PaymentId) {
        if let Some(partition) = self.partition(id.high) {
            partition.prefetch::<2>(id.low);
        }
    }

    /// Asks for what [`DuplicateIndex::insert`] of `id` reads: the run behind its place, too.
    #[inline]
    pub fn prefetch_insert(&self, id: PaymentId) {
        if let Some(partition) = self.partition(id.high) {
            partition.prefetch::<5>(id.low);
        }
    }

    /// The slot of `id`, and where it is or would be put.
    #[must_use]
    #[inline]
    pub fn look(&self, id: PaymentId) -> (Option<PaymentSlot>, Vacancy) {
        let number = self.number(id.high);
        let looked = number.map(|number| (number, self.partitions[number].look(id.low)));
        let vacancy = Vacancy {
            id,
            place: looked.map(|(number, (_, gap))| (number, gap)),
            changes: self.changes,
        };
        (looked.and_then(|(_, (slot, _))| slot), vacancy)
    }

    /// Adds an id that is not in the index.
    ///
    /// # Panics
    /// When the host has no memory left to give.
    #[inline]
    pub fn insert(&mut self, id: PaymentId, slot: PaymentSlot) {
        let (known, vacancy) = self.look(id);
        debug_assert!(known.is_none());
        self.insert_at(vacancy, slot);
    }

    /// Adds the id that [`DuplicateIndex::look`] did not find: it is not searched for again.
    ///
    /// # Panics
    /// When the index has changed since, or the host has no memory left to give.
    #[inline]
    pub fn insert_at(&mut self, vacancy: Vacancy, slot: PaymentSlot) {
        debug_assert!(slot != PaymentSlot::NONE);
        assert_eq!(
            vacancy.changes, self.changes,
            "the index has changed since {} was looked for",
            vacancy.id
        );
        self.changes += 1;
        self.length += 1;
        if let Some((number, gap)) = vacancy.place {
            self.partitions[number].insert_at(gap, slot, &mut self.pool);
        } else {
            let number = self.add(Partition::new(vacancy.id.high, self.secret));
            self.partitions[number].insert(vacancy.id.low, slot, &mut self.pool);
        }
    }

    /// Forgets all ids of `date`; their memory serves later ones. Returns how many there were.
    pub fn drop_date(&mut self, date: BusinessDate) -> usize {
        self.drop_where(|dated| dated == date)
    }

    /// Forgets all ids of `date` and of those before it.
    pub fn drop_through(&mut self, date: BusinessDate) -> usize {
        self.drop_where(|dated| dated <= date)
    }

    fn drop_where(&mut self, goes: impl Fn(BusinessDate) -> bool) -> usize {
        let of_date = |partition: &mut Partition| goes(BusinessDate((partition.key() >> 32) as u32));
        let mut dropped = 0;
        for partition in self.partitions.extract_if(.., of_date) {
            dropped += partition.len();
            self.pool.give_back(partition.into_pieces());
        }
        self.directory.clear();
        for (number, partition) in self.partitions.iter().enumerate() {
            let key = partition.key();
            let entry = (key, number as u32);
            self.directory
                .insert_unique(spread(key), entry, |&(key, _)| spread(key));
        }
        self.length -= dropped;
        self.changes += 1;
        dropped
    }

    /// How many ids there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of memory that hold the ids: all but what [`DuplicateIndex::free_bytes`] says.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lanes: usize = self.partitions.iter().map(Partition::bytes).sum();
        let heads = self.partitions.capacity() * size_of::<Partition>() + self.directory.allocation_size();
        size_of::<Self>() + lanes + heads
    }

    /// Bytes mapped ahead or given back by a dropped day: the next ids' memory.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.pool.free_bytes()
    }

    /// The ids, lane by lane in the order of date, originator and lane.
    pub fn partitions(&self) -> impl Iterator<Item = IndexedLane<'_>> {
        let mut lanes: Vec<_> = self.partitions.iter().map(IndexedLane).collect();
        lanes.sort_unstable_by_key(IndexedLane::high);
        lanes.into_iter()
    }

    /// Takes a lane from a snapshot: `count` ids with this high half, none of them in the index and no id of that lane
    /// either. Linear when they come in the order [`IndexedLane::entries`] gave them, right in any.
    ///
    /// # Panics
    /// When the lane is there already, or the host has no memory left to give.
    pub fn restore(&mut self, high: u64, count: usize, entries: impl Iterator<Item = (u64, PaymentSlot)>) {
        assert!(self.number(high).is_none(), "lane {high:#018x} was restored twice");
        let partition = Partition::restored(high, self.secret, count, entries, &mut self.pool);
        self.length += partition.len();
        self.changes += 1;
        self.add(partition);
    }

    /// Where the memory of lanes that are read back comes from.
    pub(super) fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Takes a lane that was read back and is not there.
    pub(super) fn put_back(&mut self, partition: Partition) {
        self.length += partition.len();
        self.changes += 1;
        self.add(partition);
    }

    #[inline]
    fn number(&self, key: u64) -> Option<usize> {
        self.directory
            .find(spread(key), |entry| entry.0 == key)
            .map(|entry| entry.1 as usize)
    }

    #[inline]
    fn partition(&self, key: u64) -> Option<&Partition> {
        self.number(key).map(|number| &self.partitions[number])
    }

    fn add(&mut self, partition: Partition) -> usize {
        let number = self.partitions.len();
        let key = partition.key();
        self.directory
            .insert_unique(spread(key), (key, number as u32), |&(key, _)| spread(key));
        self.partitions.push(partition);
        number
    }
}

/// The table looks at the lowest bits first, and a product's lowest bits hang on its factor's lowest alone, which are the
/// same for all originators of a date: so the highest are folded down.
#[inline]
fn spread(key: u64) -> u64 {
    let product = (key ^ key >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ product >> 32
}

#[cfg(test)]
#[path = "duplicates_tests.rs"]
mod tests;
