//! What an operator writes: settings, the directory of participants, hardware profiles.
//!
//! Three kinds of TOML file, each read by the same rules: unknown keys are refused with the key that was probably meant,
//! every fault is reported with file, line and column and what would be right, and what is left out takes a documented
//! default. Nothing here is read while the switch runs: what decides about a payment goes into the journal's first events.

mod credential;
mod directory;
mod directory_generate;
mod directory_toml;
mod directory_write;
mod fault;
mod operators;
mod profile;
mod section;
mod settings;
mod sheet;

pub use credential::{credential_hash, demo_credential};
pub use directory::{Directory, DirectoryEntry};
pub use fault::{ConfigError, Fault, FaultyFile};
pub use operators::{OperatorSettings, WindowSettings, time_of_day};
pub use profile::{AgentRole, BUILT_IN_PROFILES, JournalPlan, Profile, RingSizes, ThreadPlan};
pub use settings::{ArchiveSettings, BackendChoice, FollowerSettings, LinkSettings, Settings, SettlementSettings};
pub use sheet::{AccountSheet, ParticipantSheet, currency_number, suspension_bits, suspension_names};
