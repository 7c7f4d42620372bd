//! An array that grows without copying.

use std::io;
use std::marker::PhantomData;

use bytemuck::Pod;

use super::mapped::{HUGE_PAGE_BYTES, MappedMemory};
use super::prefetch::prefetch_read;

/// A growable array in chunks of a huge page or so: growth maps one more chunk and moves nothing: no push ever
/// copies the table.
///
/// An element's index is its own for ever; nothing is removed.
#[derive(Debug)]
pub struct ChunkedTable<T: Pod> {
    chunks: Vec<MappedMemory>,
    length: usize,
    lock: bool,
    elements: PhantomData<T>,
}

impl<T: Pod> ChunkedTable<T> {
    /// Elements in a chunk: the power of two that fills [`HUGE_PAGE_BYTES`] best without passing it.
    pub const CHUNK_ELEMENTS: usize = {
        assert!(size_of::<T>() > 0 && size_of::<T>() <= HUGE_PAGE_BYTES);
        assert!(align_of::<T>() <= 4096);
        1 << (HUGE_PAGE_BYTES / size_of::<T>()).ilog2()
    };

    const CHUNK_BYTES: usize = Self::CHUNK_ELEMENTS * size_of::<T>();

    const SHIFT: u32 = Self::CHUNK_ELEMENTS.trailing_zeros();
    const MASK: usize = Self::CHUNK_ELEMENTS - 1;

    /// An empty table. With `lock`, chunks are locked in memory where the host allows it.
    #[must_use]
    pub const fn new(lock: bool) -> Self {
        Self {
            chunks: Vec::new(),
            length: 0,
            lock,
            elements: PhantomData,
        }
    }

    /// A table with room for `capacity` elements mapped and faulted in.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn with_capacity(capacity: usize, lock: bool) -> io::Result<Self> {
        let mut table = Self::new(lock);
        table.set_aside(capacity)?;
        Ok(table)
    }

    /// A table of `length` zeroed elements, mapped and not faulted in: [`ChunkedTable::parts_mut`] is for filling it.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        let mut table = Self::new(false);
        table.chunks.reserve(length.div_ceil(Self::CHUNK_ELEMENTS));
        while table.capacity() < length {
            table.chunks.push(MappedMemory::unfaulted(Self::CHUNK_BYTES)?);
        }
        table.length = length;
        Ok(table)
    }

    /// Maps and faults in room for `capacity` elements in all.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn set_aside(&mut self, capacity: usize) -> io::Result<()> {
        let chunks = capacity.div_ceil(Self::CHUNK_ELEMENTS);
        self.chunks.reserve(chunks.saturating_sub(self.chunks.len()));
        while self.capacity() < capacity {
            self.grow()?;
        }
        Ok(())
    }

    /// Adds an element and returns its index.
    ///
    /// # Panics
    /// When a chunk is full and the host has no memory for another: size the table at start to keep that from happening.
    #[inline]
    pub fn push(&mut self, element: T) -> usize {
        let index = self.length;
        if index == self.capacity() {
            self.grow()
                .unwrap_or_else(|error| panic!("no memory for a table of more than {index} elements: {error}"));
        }
        // SAFETY: `index` is below the capacity, so that its chunk is mapped.
        unsafe { self.address(index).write(element) };
        self.length = index + 1;
        index
    }

    /// The elements as slices, in the order of their indices.
    pub fn chunks(&self) -> impl Iterator<Item = &[T]> {
        (0..self.length).step_by(Self::CHUNK_ELEMENTS).map(|first| {
            let count = Self::CHUNK_ELEMENTS.min(self.length - first);
            // SAFETY: a chunk is one mapping, and its first `count` elements, below the length, were written by `push`;
            // nobody writes while `self` is borrowed.
            unsafe { std::slice::from_raw_parts(self.address(first).cast_const(), count) }
        })
    }

    /// The elements' bytes, to be filled: in the order of their indices, and with what lies behind the last one up to a
    /// whole page of 4096 bytes.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let bytes = self.length * size_of::<T>();
        self.chunks.iter_mut().enumerate().map_while(move |(number, chunk)| {
            let first = number * Self::CHUNK_BYTES;
            let count = Self::CHUNK_BYTES.min(bytes.checked_sub(first)?).next_multiple_of(4096);
            // SAFETY: a chunk is one mapping of whole pages at least `CHUNK_BYTES` long, zeroed and then written as plain
            // data, of which any bytes will do; `self` is borrowed exclusively, and each chunk is given once.
            (count > 0).then(|| unsafe { std::slice::from_raw_parts_mut(chunk.as_ptr(), count) })
        })
    }

    /// The element at `index`.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: below the length, so written by `push`; shared with nobody who writes while `self` is borrowed.
        (index < self.length).then(|| unsafe { &*self.address(index) })
    }

    /// The element at `index`, to change it.
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        // SAFETY: below the length, so written by `push`; `self` is borrowed exclusively.
        (index < self.length).then(|| unsafe { &mut *self.address(index) })
    }

    /// Asks for the element's first cache line, ahead of a [`ChunkedTable::get`].
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if index < self.length {
            prefetch_read(self.address(index).cast_const());
        }
    }

    /// How many elements there are.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// True when there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many elements fit before the next chunk is mapped.
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> usize {
        self.chunks.len() << Self::SHIFT
    }

    /// The elements in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.length).map(|index| &self[index])
    }

    fn grow(&mut self) -> io::Result<()> {
        let chunk = MappedMemory::new(Self::CHUNK_BYTES, self.lock)?;
        self.chunks.push(chunk);
        Ok(())
    }

    #[inline]
    fn address(&self, index: usize) -> *mut T {
        let chunk = self.chunks[index >> Self::SHIFT].as_ptr().cast::<T>();
        // SAFETY: the masked index is below the number of elements a chunk was mapped for; a chunk's start is page aligned.
        unsafe { chunk.add(index & Self::MASK) }
    }
}

impl<T: Pod> std::ops::Index<usize> for ChunkedTable<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        assert!(index < self.length, "element {index} of a table of {}", self.length);
        // SAFETY: as in `get`.
        unsafe { &*self.address(index) }
    }
}

impl<T: Pod> std::ops::IndexMut<usize> for ChunkedTable<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        assert!(index < self.length, "element {index} of a table of {}", self.length);
        // SAFETY: as in `get_mut`.
        unsafe { &mut *self.address(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_moves_no_element() {
        let mut table = ChunkedTable::<[u64; 6]>::new(false);
        assert_eq!(table.push([1; 6]), 0);
        let first = std::ptr::from_ref(&table[0]);
        let count = 3 * ChunkedTable::<[u64; 6]>::CHUNK_ELEMENTS + 5;
        for index in 1..count as u64 {
            table.push([index; 6]);
        }
        assert_eq!(std::ptr::from_ref(&table[0]), first);
        assert_eq!(table.len(), count);
        assert_eq!(table.capacity(), 4 * ChunkedTable::<[u64; 6]>::CHUNK_ELEMENTS);
        assert_eq!(table[count - 1], [count as u64 - 1; 6]);
        assert!(
            table
                .iter()
                .skip(1)
                .enumerate()
                .all(|(index, element)| element[5] == index as u64 + 1)
        );
    }

    #[test]
    fn a_table_filled_by_its_parts_has_those_elements_and_goes_on_behind_them() {
        type Table = ChunkedTable<[u64; 3]>;
        for length in [0, 1, 500, Table::CHUNK_ELEMENTS, Table::CHUNK_ELEMENTS + 7] {
            let mut table = Table::zeroed(length).unwrap();
            let mut next = 0u64;
            for part in table.parts_mut() {
                assert!(part.len().is_multiple_of(4096));
                for word in part.chunks_exact_mut(8) {
                    word.copy_from_slice(&next.to_le_bytes());
                    next += 1;
                }
            }
            assert_eq!(next as usize, (length * 3).next_multiple_of(512));
            let right = |index: usize| [0, 1, 2].map(|word| index as u64 * 3 + word);
            assert!((0..length).all(|index| table[index] == right(index)));
            assert_eq!((table.push([9; 3]), table[length]), (length, [9; 3]));
        }
    }

    #[test]
    fn nothing_is_there_past_the_end() {
        let mut table = ChunkedTable::<u64>::with_capacity(10, false).unwrap();
        assert!(table.get(0).is_none() && table.get_mut(0).is_none());
        table.prefetch(0);
        table.push(5);
        table.prefetch(0);
        *table.get_mut(0).unwrap() += 1;
        assert_eq!(table.get(0), Some(&6));
        assert!(table.get(1).is_none());
    }
}
