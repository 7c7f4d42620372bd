//! Snapshots of the ledger: where a start begins to replay, instead of at the journal's beginning.
//!
//! The follower writes them; the live engine knows nothing of them. What they promise:
//! - A snapshot is there whole or not at all (temporary name, flush, rename, flush of the directory), and no byte of it
//!   is used before its BLAKE3 was checked; the state's own hash is checked once more after it.
//! - The newest good one is taken; a bad one is passed over and named. With none the whole journal is replayed.
//! - The newest two are kept. A journal that the older of them still needs may not be deleted.
//!
//! ```text
//! snapshots/000000000123456789.snap
//!
//!    0 "CLRWYSNP" │ 8 version u32, CRC-32C of the header u32 │ 16 journal id │ 32 event number u64 │ 40 its time u64
//!   48 journal position behind it u64 │ 56 the engine's bytes u64 │ 64 state hash │ 96 runs of payments, of words, epoch u32 │ 108 zero
//! 4096 the engine, as it saves itself │ the register's runs, 8 bytes each
//!      BLAKE3 of each 256 KiB of that, 32 bytes each │ BLAKE3 of the first 4096 bytes and of those hashes, 32 bytes
//! ```

mod error;
mod file;
mod reader;
mod store;
#[cfg(test)]
mod tests;

pub use error::SnapshotError;
pub use file::SnapshotPoint;
pub use reader::SnapshotReader;
pub use store::{Loaded, SnapshotFile, SnapshotStore};
