//! The cold threads: segments ahead, windows by schedule, what operators ask through the admin socket; and the archivist,
//! who chains the journal, archives it and says which segments may go.
//!
//! No other stage ever waits for them.

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
