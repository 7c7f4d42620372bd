//! The cold thread: segments ahead, windows by schedule, and what operators ask through the admin socket.
//!
//! No other stage ever waits for it.

mod admin;
mod agent;
mod archivist;
mod desk;
mod lists;
mod retention;
mod status;

pub use admin::AdminServer;
pub use agent::{Housekeeping, HousekeepingParts, Wishes};
pub use archivist::{Archivist, ArchivistParts, ArchivistReport, ArchivistView};
pub use desk::{Desk, SnapshotDesk};
pub use lists::{Wanted, exceptions_json, in_doubt_json};
pub use retention::{Holder, RetentionFloors};
pub use status::{LedgerView, StatusSource, participants_json, status_json, windows_json};
