//! Small pieces of huge pages, lent out, given back and lent out again.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use super::mapped::{HUGE_PAGE_BYTES, MappedMemory};

/// A slice of its own: small ones on the heap, the others a part of a huge page that is unmapped when its last piece
/// and its pool are gone.
pub struct Piece<T: Pod> {
    start: NonNull<T>,
    length: u32,
    /// `None`: on the heap.
    page: Option<Arc<MappedMemory>>,
}

// SAFETY: a piece owns its elements alone (see `PiecePool::carve`), and they are plain data.
unsafe impl<T: Pod + Send> Send for Piece<T> {}
// SAFETY: through `&self` the elements can only be read.
unsafe impl<T: Pod + Sync> Sync for Piece<T> {}

impl<T: Pod> Piece<T> {
    /// A piece on the heap: `length` zeroed elements.
    ///
    /// # Panics
    /// When `length` does not fit 32 bits.
    #[must_use]
    pub fn on_heap(length: usize) -> Self {
        let elements: Box<[T]> = vec![T::zeroed(); length].into_boxed_slice();
        Self {
            length: u32::try_from(length).expect("a small piece"),
            start: NonNull::from(Box::leak(elements)).cast(),
            page: None,
        }
    }
}

impl<T: Pod> fmt::Debug for Piece<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({})", self.length)
    }
}

impl<T: Pod> Deref for Piece<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` and `length` are a boxed slice's or one `carve` gave to this piece alone, initialised, and
        // alive as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length as usize) }
    }
}

impl<T: Pod> DerefMut for Piece<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length as usize) }
    }
}

impl<T: Pod> Drop for Piece<T> {
    fn drop(&mut self) {
        if self.page.is_none() {
            let elements = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length as usize);
            // SAFETY: exactly the box leaked in `on_heap`, freed once.
            drop(unsafe { Box::from_raw(elements) });
        }
    }
}

/// Lends pieces of [`PiecePool::PIECE_ELEMENTS`], cut from huge pages.
///
/// Memory that was given back is lent again before more is mapped; it is never unmapped while the pool lives, so that
/// neither side of a day's end waits for the kernel.
#[derive(Debug)]
pub struct PiecePool<T: Pod> {
    pages: Vec<Arc<MappedMemory>>,
    /// Pieces lent of all pages' pieces, first page first.
    carved: usize,
    /// Given back, a whole array at a time: taking one back costs the same however long it is.
    returned: Vec<Vec<Piece<T>>>,
    returned_pieces: usize,
}

impl<T: Pod> Default for PiecePool<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Pod> PiecePool<T> {
    /// Elements in a piece.
    pub const PIECE_ELEMENTS: usize = 2048;

    /// Bytes in a piece.
    pub const PIECE_BYTES: usize = Self::PIECE_ELEMENTS * size_of::<T>();

    const PIECES_OF_PAGE: usize = {
        assert!(size_of::<T>() > 0 && align_of::<T>() <= 4096);
        assert!(Self::PIECE_BYTES <= HUGE_PAGE_BYTES);
        HUGE_PAGE_BYTES / Self::PIECE_BYTES
    };

    /// A pool without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            carved: 0,
            returned: Vec::new(),
            returned_pieces: 0,
        }
    }

    /// Maps and faults in memory until so many more elements can be lent without asking the host.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn reserve(&mut self, elements: usize) -> io::Result<()> {
        while self.free_pieces() * Self::PIECE_ELEMENTS < elements {
            self.map_page()?;
        }
        Ok(())
    }

    /// Maps memory until so many more elements can be lent, and does not fault it in: for who fills it at once.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub fn reserve_unfaulted(&mut self, elements: usize) -> io::Result<()> {
        while self.free_pieces() * Self::PIECE_ELEMENTS < elements {
            self.pages.push(Arc::new(MappedMemory::unfaulted(HUGE_PAGE_BYTES)?));
        }
        Ok(())
    }

    /// A piece of zeros.
    ///
    /// # Panics
    /// When nothing is left and the host has no more to give: [`PiecePool::reserve`] at start keeps that from happening.
    #[must_use]
    pub fn take(&mut self) -> Piece<T> {
        if let Some(mut piece) = self.take_returned() {
            piece.fill(T::zeroed());
            return piece;
        }
        if self.carved == self.pages.len() * Self::PIECES_OF_PAGE {
            self.map_page()
                .unwrap_or_else(|error| panic!("no memory for another piece after {}: {error}", self.carved));
        }
        self.carve()
    }

    /// Takes pieces back; those on the heap are freed.
    pub fn give_back(&mut self, mut pieces: Vec<Piece<T>>) {
        if pieces.first().is_some_and(|piece| piece.page.is_none()) {
            pieces.retain(|piece| piece.page.is_some());
        }
        if !pieces.is_empty() {
            self.returned_pieces += pieces.len();
            self.returned.push(pieces);
        }
    }

    /// Bytes mapped and not lent.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.free_pieces() * Self::PIECE_BYTES
    }

    /// Bytes mapped, lent or not.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.pages.len() * HUGE_PAGE_BYTES
    }

    fn free_pieces(&self) -> usize {
        self.pages.len() * Self::PIECES_OF_PAGE - self.carved + self.returned_pieces
    }

    fn take_returned(&mut self) -> Option<Piece<T>> {
        let pieces = self.returned.last_mut()?;
        let piece = pieces.pop()?;
        self.returned_pieces -= 1;
        if pieces.is_empty() {
            self.returned.pop();
        }
        Some(piece)
    }

    fn map_page(&mut self) -> io::Result<()> {
        self.pages.push(Arc::new(MappedMemory::new(HUGE_PAGE_BYTES, false)?));
        Ok(())
    }

    fn carve(&mut self) -> Piece<T> {
        let page = &self.pages[self.carved / Self::PIECES_OF_PAGE];
        let offset = self.carved % Self::PIECES_OF_PAGE * Self::PIECE_BYTES;
        self.carved += 1;
        // SAFETY: `offset` and a piece after it lie inside the page, which is zeroed and aligned for `T` (a piece's bytes
        // are a multiple of its size); `carved` only rises, so that no other piece has these bytes.
        let start = unsafe { NonNull::new_unchecked(page.as_ptr().add(offset).cast::<T>()) };
        Piece {
            start,
            length: Self::PIECE_ELEMENTS as u32,
            page: Some(Arc::clone(page)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_disjoint_zeroed_and_lent_again_zeroed() {
        let mut pool = PiecePool::<[u32; 3]>::new();
        let mut pieces: Vec<_> = (0..200).map(|_| pool.take()).collect();
        for (value, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.iter().all(|&element| element == [0; 3]));
            piece.fill([value as u32 + 1; 3]);
        }
        for (value, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.len(), PiecePool::<[u32; 3]>::PIECE_ELEMENTS);
            assert!(piece.iter().all(|&element| element == [value as u32 + 1; 3]));
        }
        let mapped = pool.mapped_bytes();
        pool.give_back(pieces);
        let again: Vec<_> = (0..200).map(|_| pool.take()).collect();
        assert_eq!(pool.mapped_bytes(), mapped);
        assert!(again.iter().all(|piece| piece.iter().all(|&element| element == [0; 3])));
        drop(pool);
        assert_eq!(again[199][2047], [0; 3]);
    }

    #[test]
    fn what_was_reserved_is_lent_without_asking_the_host() {
        let mut pool = PiecePool::<[u32; 3]>::new();
        pool.reserve(1_000_000).unwrap();
        let mapped = pool.mapped_bytes();
        let pieces: Vec<_> = (0..1_000_000 / 2048).map(|_| pool.take()).collect();
        assert_eq!(pool.mapped_bytes(), mapped);
        pool.give_back(vec![Piece::on_heap(16)]);
        pool.give_back(pieces);
        assert!(pool.free_bytes() >= 12_000_000);
    }
}
