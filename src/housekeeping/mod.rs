//! The cold threads: housekeeping, which makes segments ahead; the steward, who closes windows and puts operators' orders
//! in force; the admin socket; and the archivist, who chains the journal, archives it and says which segments may go.
//!
//! No other stage ever waits for them.

mod admin;
mod agent;
mod archivist;
mod asked;
mod closing;
mod cover;
mod desk;
mod lists;
mod office;
mod orders;
mod retention;
mod schedule;
mod status;
mod steward;
mod tidings;
mod wishes;

pub use admin::AdminServer;
pub use agent::{Housekeeping, HousekeepingParts};
pub use archivist::{Archivist, ArchivistParts, ArchivistReport, ArchivistView};
pub use desk::{Desk, SnapshotDesk};
pub use lists::{Wanted, exceptions_json, in_doubt_json};
pub use office::Office;
pub use orders::{Authority, OrderDesk, OrderRefusal, operator_text};
pub use retention::{Holder, RetentionFloors};
pub use status::{LedgerView, StatusSource, participants_json, status_json, windows_json};
pub use steward::{Steward, StewardParts, StewardView};
pub use tidings::{CoverAlarm, Ordered, Tiding};
pub use wishes::Wishes;
