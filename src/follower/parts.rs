//! What the follower is made of, and what can keep it from its work.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::counters::FollowerCounters;
use crate::agent::{IntakeGate, Ring, SwitchClock};
use crate::clearing::StateMark;
use crate::config::FollowerSettings;
use crate::journal::{JournalError, JournalSource, Positions, Superblock};
use crate::register::{RegisterError, RegisterOptions};
use crate::settlement::{SettlementError, SpoolOptions, SpoolView};
use crate::snapshot::{SnapshotError, SnapshotStore};
use crate::wire::{Effect, FindingEvent, Intake, LookUp, Query};

/// A question to the register that is not an event.
#[derive(Clone, Copy, Debug)]
pub struct RegisterQuery {
    /// The event that the live engine had applied last when it could not answer.
    pub after: u64,
    /// The question.
    pub query: Query,
}

/// What the follower is made of.
pub struct FollowerParts {
    /// The running journal.
    pub source: JournalSource,
    /// How far the live engine is.
    pub positions: Arc<Positions>,
    /// The snapshots.
    pub snapshots: SnapshotStore,
    /// The snapshot that the live engine began with; `None`: with the journal's beginning.
    pub began_with: Option<PathBuf>,
    /// Snapshots that the start could not use.
    pub unusable: Vec<PathBuf>,
    /// Where the snapshots' places are kept.
    pub superblock: Arc<Superblock>,
    /// The register.
    pub register: RegisterOptions,
    /// What settlement's files are made of.
    pub spool: SpoolOptions,
    /// What there is of it.
    pub spool_view: Arc<SpoolView>,
    /// How it is set.
    pub settings: FollowerSettings,
    /// From clearing: what events wait for.
    pub look_ups: Arc<Ring<LookUp>>,
    /// From clearing: what it can't answer.
    pub queries: Arc<Ring<RegisterQuery>>,
    /// From clearing: what the state was.
    pub marks: Arc<Ring<StateMark>>,
    /// To the sequencer.
    pub findings: Arc<Ring<FindingEvent>>,
    /// To the sequencer.
    pub priority: Arc<Ring<Intake>>,
    /// To dispatch.
    pub effects: Arc<Ring<Effect>>,
    /// Closed when the two engines differ.
    pub gate: Arc<IntakeGate>,
    /// The clock.
    pub clock: SwitchClock,
    /// What it tells about itself.
    pub counters: Arc<FollowerCounters>,
}

/// Why the follower can't go on now, or ever.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Settlement(#[from] SettlementError),
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    #[error(
        "after event {event} the live engine's state is not the one that the same events give a second time (they agreed \
         last after event {agreed}): intake is stopped, inquiries are still answered; call the operator on duty, and hold \
         the journal against `clearway journal replay` before anything is settled"
    )]
    Differs { event: u64, agreed: u64 },
}

impl Trouble {
    /// A file of the register that is gone: whoever asks for what is in it is told to come again, until it is back.
    pub(super) fn lost_file(&self) -> Option<&Path> {
        match self {
            Self::Register(RegisterError::System { file, source, .. }) if source.kind() == ErrorKind::NotFound => {
                Some(file)
            }
            _ => None,
        }
    }

    /// True when it may be over by itself: the disk was full, a file could not be opened.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self,
            Self::Register(RegisterError::System { .. })
                | Self::Snapshot(SnapshotError::System { .. })
                | Self::Journal(JournalError::System { .. })
                | Self::Settlement(SettlementError::System { .. })
        )
    }
}
