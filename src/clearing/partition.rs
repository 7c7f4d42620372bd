//! The serials of one date, originator and lane, and the slots they were given.
//!
//! Open addressing in the order of a hash. A serial is mixed to 64 bits by a step that can be undone; its *home* is that
//! number scaled to the capacity, so that order by number is order by position, and a look-up goes from home upward until
//! it meets the number, a greater one, or an empty place.
//!
//! ```text
//! position   0 ...............cursor..................... capacity ........ stretched
//!            [ homes by `capacity`  | homes by `stretched`                          ]
//!              mixed <= low_max       mixed > low_max
//! ```
//!
//! Growth adds an eighth of the capacity and moves entries in place, highest first, a few an insert: `low_max` says which
//! capacity a number's home is counted by. Homes rise with the numbers on both sides of it, so that look-ups and inserts
//! need not know that growth is under way.

use bytemuck::{Pod, Zeroable};

use super::mixing::Mixing;
use crate::domain::PaymentSlot;
use crate::memory::{Piece, PiecePool, prefetch_read};

/// Entries of a new partition's array.
const FIRST_ELEMENTS: usize = 16;
const PIECE_ELEMENTS: usize = Pool::PIECE_ELEMENTS;
const PIECE_SHIFT: u32 = PIECE_ELEMENTS.trailing_zeros();
const PIECE_MASK: usize = PIECE_ELEMENTS - 1;
/// Places behind the last home, for the run that begins there; more are added when it is longer.
const SPILL_ELEMENTS: usize = 64;
/// Growth begins above 7/8.
const LOAD_MAX_EIGHTHS: usize = 7;
/// Places that one insert moves while growth is under way: a pass is over long before the next is due.
const PLACES_AN_INSERT: usize = 24;
/// Memory for growth is taken a piece in so many inserts.
const INSERTS_A_PIECE: usize = 16;

/// What the processor loads at a time.
const CACHE_LINE_BYTES: usize = 64;

/// Where partitions get their memory.
pub(super) type Pool = PiecePool<Entry>;

/// The mixed serial (low half first) and the slot plus 1; 0 = empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Entry {
    mixed: [u32; 2],
    slot: u32,
}

const _: () = assert!(size_of::<Entry>() == 12);

impl Entry {
    const EMPTY: Self = Self { mixed: [0; 2], slot: 0 };

    fn new(mixed: u64, slot: PaymentSlot) -> Self {
        Self {
            mixed: [mixed as u32, (mixed >> 32) as u32],
            slot: slot.0 + 1,
        }
    }

    #[inline]
    fn mixed(self) -> u64 {
        u64::from(self.mixed[0]) | u64::from(self.mixed[1]) << 32
    }

    #[inline]
    fn is_empty(self) -> bool {
        self.slot == 0
    }

    #[inline]
    fn slot(self) -> PaymentSlot {
        PaymentSlot(self.slot - 1)
    }
}

/// Where a serial would be put: good until the partition changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    mixed: u64,
    position: usize,
}

/// What a saved partition says of itself before its entries.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PartitionHead {
    pub(super) key: u64,
    /// Decides where the entries lie.
    secret: u64,
    pub(super) elements: u64,
    length: u64,
    capacity: u64,
    stretched: u64,
    low_max: u64,
    cursor: u64,
}

impl PartitionHead {
    /// True when its array is a small one on the heap, and not made of pieces.
    pub(super) const fn is_small(&self) -> bool {
        (self.elements as usize) < PIECE_ELEMENTS
    }
}

/// Serial → slot.
#[derive(Debug)]
pub(super) struct Partition {
    /// The ids' high half.
    key: u64,
    mixing: Mixing,
    pieces: Vec<Piece<Entry>>,
    elements: usize,
    length: usize,
    capacity: usize,
    /// The capacity of the entries above `low_max`; the same as `capacity` while nothing grows.
    stretched: usize,
    /// The greatest mixed serial whose home is counted by `capacity`.
    low_max: u64,
    /// Above all entries that are still to be moved; 0 while nothing grows.
    cursor: usize,
}

impl Partition {
    /// An empty one for the ids with this high half.
    pub(super) fn new(key: u64, secret: u64) -> Self {
        let capacity = homes_of(FIRST_ELEMENTS);
        Self {
            key,
            mixing: Mixing::new(key, secret),
            pieces: vec![Piece::on_heap(FIRST_ELEMENTS)],
            elements: FIRST_ELEMENTS,
            length: 0,
            capacity,
            stretched: capacity,
            low_max: u64::MAX,
            cursor: 0,
        }
    }

    /// One with room for `count` serials, filled from `entries`: cheap when they come in the order of
    /// [`Partition::entries`], right in any.
    pub(super) fn restored(
        key: u64,
        secret: u64,
        count: usize,
        entries: impl Iterator<Item = (u64, PaymentSlot)>,
        pool: &mut Pool,
    ) -> Self {
        let mut partition = Self::new(key, secret);
        let wanted = count * 8 / LOAD_MAX_EIGHTHS + count / 64 + SPILL_ELEMENTS;
        while partition.elements < wanted {
            partition.add_elements(pool);
        }
        partition.capacity = homes_of(partition.elements);
        partition.stretched = partition.capacity;
        for (serial, slot) in entries {
            partition.insert(serial, slot, pool);
        }
        partition
    }

    /// What a saved partition begins with.
    pub(super) fn head(&self) -> PartitionHead {
        PartitionHead {
            key: self.key,
            secret: self.mixing.secret,
            elements: self.elements as u64,
            length: self.length as u64,
            capacity: self.capacity as u64,
            stretched: self.stretched as u64,
            low_max: self.low_max,
            cursor: self.cursor as u64,
        }
    }

    /// Its array as it lies in memory.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[Entry]> {
        self.pieces.iter().map(|piece| &**piece)
    }

    /// Its array as it lies in memory, to be filled.
    pub(super) fn pieces_mut(&mut self) -> impl Iterator<Item = &mut [Entry]> {
        self.pieces.iter_mut().map(|piece| &mut **piece)
    }

    /// One as [`Partition::head`] says, with an array of zeros for what [`Partition::pieces`] gave: the array as it lay in
    /// memory, so that reading it costs a copy. `None` where the head contradicts itself; whether the array fits it
    /// says [`Partition::is_in_order`].
    pub(super) fn laid_out(head: PartitionHead, pool: &mut Pool) -> Option<Self> {
        let elements = head.elements as usize;
        let of_a_size = if head.is_small() {
            elements.is_power_of_two() && elements >= FIRST_ELEMENTS
        } else {
            elements.is_multiple_of(PIECE_ELEMENTS)
        };
        let ordered = head.length <= head.capacity
            && 0 < head.capacity
            && head.capacity <= head.stretched
            && head.stretched < head.elements
            && head.cursor <= head.elements;
        if !of_a_size || !ordered {
            return None;
        }
        let pieces = if head.is_small() {
            vec![Piece::on_heap(elements)]
        } else {
            (0..elements / PIECE_ELEMENTS).map(|_| pool.take()).collect()
        };
        Some(Self {
            key: head.key,
            mixing: Mixing::new(head.key, head.secret),
            pieces,
            elements,
            length: head.length as usize,
            capacity: head.capacity as usize,
            stretched: head.stretched as usize,
            low_max: head.low_max,
            cursor: head.cursor as usize,
        })
    }

    /// True when the array holds as many entries as it should, in their order: one look at each.
    pub(super) fn is_in_order(&self) -> bool {
        let (mut counted, mut before) = (0, 0);
        for piece in &self.pieces {
            let mut ordered = true;
            for entry in piece.iter().filter(|entry| !entry.is_empty()) {
                let mixed = entry.mixed();
                ordered &= counted == 0 || before < mixed;
                before = mixed;
                counted += 1;
            }
            if !ordered {
                return false;
            }
        }
        counted == self.length
    }

    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of memory, without the struct itself.
    pub(super) fn bytes(&self) -> usize {
        self.elements * size_of::<Entry>() + self.pieces.capacity() * size_of::<Piece<Entry>>()
    }

    #[inline]
    pub(super) fn find(&self, serial: u64) -> Option<PaymentSlot> {
        let mixed = self.mixing.mix(serial);
        let entry = self.entry(self.seek(mixed))?;
        (entry.mixed() == mixed && !entry.is_empty()).then(|| entry.slot())
    }

    /// Asks for the cache lines where `serial` would be, so many of them.
    #[inline]
    pub(super) fn prefetch<const LINES: usize>(&self, serial: u64) {
        if let Some(entry) = self.rest(self.home(self.mixing.mix(serial))).first() {
            let first = std::ptr::from_ref(entry).cast::<u8>();
            for line in 0..LINES {
                prefetch_read(first.wrapping_add(line * CACHE_LINE_BYTES));
            }
        }
    }

    /// Adds a serial that is not there.
    #[inline]
    pub(super) fn insert(&mut self, serial: u64, slot: PaymentSlot, pool: &mut Pool) {
        let gap = self.look(serial).1;
        self.insert_at(gap, slot, pool);
    }

    /// The slot of `serial`, and where it is or would be.
    #[inline]
    pub(super) fn look(&self, serial: u64) -> (Option<PaymentSlot>, Gap) {
        let mixed = self.mixing.mix(serial);
        let position = self.seek(mixed);
        let found = self
            .entry(position)
            .filter(|entry| entry.mixed() == mixed && !entry.is_empty());
        (found.map(Entry::slot), Gap { mixed, position })
    }

    /// Adds the serial that [`Partition::look`] did not find, nothing having changed since.
    #[inline]
    pub(super) fn insert_at(&mut self, gap: Gap, slot: PaymentSlot, pool: &mut Pool) {
        let Gap { mixed, position } = gap;
        let filled = self.push_in(position, Entry::new(mixed, slot), pool);
        if mixed <= self.low_max && self.cursor > 0 && filled >= self.cursor {
            self.cursor = position.max(self.cursor) + 1;
        }
        self.length += 1;
        if self.cursor > 0 {
            self.stretch(pool);
        } else if self.length * 8 > self.capacity * LOAD_MAX_EIGHTHS {
            self.prepare(pool);
        }
    }

    /// Serials and slots in the order of the table.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, PaymentSlot)> + '_ {
        let all = self.pieces.iter().flat_map(|piece| piece.iter());
        all.filter(|entry| !entry.is_empty())
            .map(|entry| (self.mixing.unmix(entry.mixed()), entry.slot()))
    }

    pub(super) fn into_pieces(self) -> Vec<Piece<Entry>> {
        self.pieces
    }

    #[inline]
    fn home(&self, mixed: u64) -> usize {
        let low = mixed <= self.low_max;
        scale(mixed, if low { self.capacity } else { self.stretched })
    }

    /// The entries from `position` to the end of its piece.
    #[inline]
    fn rest(&self, position: usize) -> &[Entry] {
        self.pieces
            .get(position >> PIECE_SHIFT)
            .and_then(|piece| piece.get(position & PIECE_MASK..))
            .unwrap_or_default()
    }

    fn entry(&self, position: usize) -> Option<Entry> {
        self.rest(position).first().copied()
    }

    fn set(&mut self, position: usize, entry: Entry) {
        self.pieces[position >> PIECE_SHIFT][position & PIECE_MASK] = entry;
    }

    /// The place of `mixed`, or the one it would be given.
    #[inline]
    fn seek(&self, mixed: u64) -> usize {
        let wanted = |entry: &Entry| entry.is_empty() || entry.mixed() >= mixed;
        self.first_where(self.home(mixed), wanted)
    }

    /// The first place from `position` on that is as wanted, or the one behind the last.
    #[inline]
    fn first_where(&self, mut position: usize, wanted: impl Fn(&Entry) -> bool) -> usize {
        loop {
            let rest = self.rest(position);
            if let Some(offset) = rest.iter().position(&wanted) {
                return position + offset;
            }
            if rest.is_empty() {
                return position;
            }
            position += rest.len();
        }
    }

    /// Puts an entry at `position`; what is there moves up by one. Returns the place that was empty.
    #[inline]
    fn push_in(&mut self, position: usize, entry: Entry, pool: &mut Pool) -> usize {
        let mut carried = entry;
        let mut from = position;
        loop {
            if from == self.elements {
                self.add_elements(pool);
            }
            // One pass that looks and moves: runs are short, and a search with a move behind it is told wrong twice.
            for place in &mut self.pieces[from >> PIECE_SHIFT][from & PIECE_MASK..] {
                carried = std::mem::replace(place, carried);
                if carried.is_empty() {
                    return from;
                }
                from += 1;
            }
        }
    }

    /// Takes memory for the next capacity, a little at a time, and begins to grow when it is there.
    fn prepare(&mut self, pool: &mut Pool) {
        let wanted = if self.capacity < PIECE_ELEMENTS / 2 {
            2 * (self.capacity + spill_of(self.capacity))
        } else {
            (self.capacity + self.capacity / 8 + SPILL_ELEMENTS).next_multiple_of(PIECE_ELEMENTS)
        };
        if self.elements < wanted {
            if self.elements >= PIECE_ELEMENTS {
                if !self.length.is_multiple_of(INSERTS_A_PIECE) {
                    return;
                }
                let missing = (wanted >> PIECE_SHIFT) - self.pieces.len();
                self.pieces.reserve_exact(missing);
            }
            self.add_elements(pool);
        }
        if self.elements >= wanted {
            self.stretched = homes_of(self.elements);
            self.cursor = self.elements;
        }
    }

    /// Doubles a small array by copying it; adds a piece to a large one.
    fn add_elements(&mut self, pool: &mut Pool) {
        if self.elements < PIECE_ELEMENTS {
            let doubled = 2 * self.elements;
            let mut piece = if doubled == PIECE_ELEMENTS {
                pool.take()
            } else {
                Piece::on_heap(doubled)
            };
            piece[..self.elements].copy_from_slice(&self.pieces[0]);
            self.pieces[0] = piece;
            self.elements = doubled;
        } else {
            self.pieces.push(pool.take());
            self.elements += PIECE_ELEMENTS;
        }
    }

    /// Moves the entries of the next few places below the cursor to where the stretched capacity wants them.
    fn stretch(&mut self, pool: &mut Pool) {
        for _ in 0..PLACES_AN_INSERT {
            let place = self.cursor - 1;
            self.cursor = place;
            let entry = self.entry(place).expect("the cursor lies inside the array");
            let mixed = entry.mixed();
            if !entry.is_empty() && mixed <= self.low_max {
                // Whatever lies above has a home at or above this one's: between the two places there is nothing.
                self.low_max = mixed.saturating_sub(1);
                let home = scale(mixed, self.stretched);
                if home > place {
                    self.set(place, Entry::EMPTY);
                    self.push_in(home, entry, pool);
                }
            }
            if place == 0 {
                self.capacity = self.stretched;
                self.low_max = u64::MAX;
                return;
            }
        }
    }

    /// Checks all that the module's head says.
    ///
    /// # Panics
    /// When it does not hold.
    #[cfg(test)]
    pub(super) fn invariants(&self) {
        let mut counted = 0;
        let mut empty_last: Option<usize> = None;
        let mut before = None;
        assert_eq!(
            self.elements,
            self.pieces.iter().map(|piece| piece.len()).sum::<usize>()
        );
        for position in 0..self.elements {
            let entry = self.entry(position).unwrap();
            if entry.is_empty() {
                empty_last = Some(position);
                continue;
            }
            counted += 1;
            let mixed = entry.mixed();
            assert!(before.is_none_or(|before| before < mixed), "not sorted at {position}");
            before = Some(mixed);
            let home = self.home(mixed);
            assert!(home <= position, "at {position}, below its home {home}");
            assert!(empty_last.is_none_or(|empty| empty < home), "a gap before {position}");
            assert!(position < self.cursor || self.cursor == 0 || mixed > self.low_max);
        }
        assert_eq!(counted, self.length);
        assert!(self.stretched >= self.capacity && self.stretched < self.elements);
        assert!(
            self.cursor > 0 || self.length * 16 <= self.capacity * 15 + 16,
            "{} of {}",
            self.length,
            self.capacity
        );
    }

    /// How many entries lie side by side at most.
    #[cfg(test)]
    fn longest_run(&self) -> usize {
        let (mut run, mut longest) = (0, 0);
        for position in 0..self.elements {
            let is_taken = self.entry(position).is_some_and(|entry| !entry.is_empty());
            run = if is_taken { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        longest
    }

    /// True while entries are being moved.
    #[cfg(test)]
    pub(super) fn grows(&self) -> bool {
        self.cursor > 0
    }
}

/// How many homes an array of so many elements has.
fn homes_of(elements: usize) -> usize {
    elements - SPILL_ELEMENTS.min(elements / 4)
}

/// The inverse of [`homes_of`]: the elements behind the homes of a small array.
fn spill_of(capacity: usize) -> usize {
    SPILL_ELEMENTS.min(capacity / 3)
}

#[inline]
fn scale(mixed: u64, capacity: usize) -> usize {
    ((u128::from(mixed) * capacity as u128) >> 64) as usize
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
