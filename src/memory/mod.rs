//! Large arrays in huge pages, and prefetch.
//!
//! Floor 0. Memory that a hot path uses is mapped, faulted in and, where the host allows it, locked before the first
//! payment comes: [`MappedMemory`] is one such piece, [`ChunkedTable`] an array of them that grows without ever copying
//! an element, [`PiecePool`] lends small parts of them. Nothing here is freed before its owner is.

mod mapped;
mod mapper;
mod piece;
mod prefetch;
mod table;

pub use mapped::{HUGE_PAGE_BYTES, MappedMemory};
pub use mapper::{leave_mapping_to_the_mapper, start_mapper};
pub use piece::{Piece, PiecePool};
pub use prefetch::prefetch_read;
pub use table::ChunkedTable;
