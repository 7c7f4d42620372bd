//! The switch: opens the journal, replays it, and puts the agents on cores as the profile says.

mod assembly;
mod clearing_agent;
mod recall;
mod replay;
mod stages;
mod syncer_agent;

pub use assembly::{RunningSwitch, start};
pub use clearing_agent::FinalLedger;
pub use recall::StartFigures;
pub use replay::{ReplayedLedger, check_rules, replay, replay_each};
pub use stages::{OpenDriver, Stages, StartOptions, Threads, journal_directory};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thiserror::Error;

use crate::agent::AgentError;
use crate::config::{Directory, Profile, Settings};
use crate::io::OpenError;
use crate::journal::JournalError;

/// Why the switch did not start, or ended.
#[derive(Debug, Error)]
pub enum SwitchError {
    /// The journal.
    #[error("journal: {0}")]
    Journal(#[from] JournalError),
    /// The snapshots' directory.
    #[error("snapshots: {0}")]
    Snapshot(#[from] crate::snapshot::SnapshotError),
    /// No I/O backend.
    #[error(transparent)]
    Backend(#[from] OpenError),
    /// An address or path can't be used.
    #[error("{what}: {error}")]
    Host {
        /// What was tried.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// What was journaled and what is configured do not belong together.
    #[error("{0}")]
    Unfit(String),
    /// A stage failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl SwitchError {
    fn host(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Host { what, error }
    }
}

/// Runs the switch as a daemon: until SIGTERM or SIGINT, then stops intake, drains, syncs and returns.
///
/// # Errors
/// Why it did not start, or what a stage failed with.
pub fn run(settings: Settings, directory: Directory, profile: Profile) -> Result<(), SwitchError> {
    for message in crate::agent::process::raise_soft_limits() {
        tracing::warn!("{message}");
    }
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&asked)).map_err(SwitchError::host("take signals"))?;
    }
    let shutdown_file: PathBuf = settings.data.join("shutdown.json");
    let running = start(settings, directory, profile, StartOptions::default())?;
    // What an earlier run left there says nothing about this one. A start that is refused changes nothing.
    let _ = std::fs::remove_file(&shutdown_file);
    tracing::info!(listen = running.listen().to_string(), "ready to take links");
    // Under systemd, tells it; elsewhere nothing listens and nothing is lost.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut told = false;
    while !asked.load(Ordering::Relaxed) && !running.has_failed() {
        if running.has_lost_follower() && !std::mem::replace(&mut told, true) {
            tracing::error!(
                "the follower has ended: payments go on, without snapshots, register and look-ups; start the switch again"
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping: no payment is taken any more, open ones are waited for");
    let report = running.shutdown()?;
    let text = format!("{report:#}\n");
    let temporary = shutdown_file.with_extension("json.new");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, &shutdown_file))
        .map_err(SwitchError::host(format!("write {}", shutdown_file.display())))?;
    tracing::info!(report = shutdown_file.display().to_string(), "stopped in good order");
    Ok(())
}
