//! Agents: the duty cycle, idle strategies, rings between stages, pinning.
//!
//! A stage is an [`Agent`]: `do_work` takes what is there and returns how much it did, 0 when nothing. A hardware profile
//! puts agents on threads; several on one thread are a [`CompositeAgent`]. A thread with nothing to do follows its
//! [`IdleStrategy`]; one that parks is woken by its peers through its [`Wakeup`].

mod bucket;
mod clock;
mod composite;
mod gate;
mod idle;
pub mod process;
mod ring;
mod runner;
mod wakeup;

pub use bucket::{Bucket, SharedBucket};
pub use clock::{ManualTime, SwitchClock, wall_clock};
pub use composite::CompositeAgent;
pub use gate::{IntakeGate, IntakeState};
pub use idle::IdleStrategy;
pub use ring::Ring;
pub use runner::{AgentThread, Placement, ScheduleClass, StopFlag, spawn};
pub use wakeup::Wakeup;

use std::time::Duration;

/// A stage that holds something back for want of room looks again this soon: who makes room does not wake it.
pub const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// One stage's duty cycle.
pub trait Agent: Send {
    /// Called once, on the agent's own thread, before the first `do_work`.
    ///
    /// # Errors
    /// What keeps the stage from starting, in words; the switch then stops.
    fn on_start(&mut self) -> Result<(), AgentError> {
        Ok(())
    }

    /// Takes what is there, works, and returns how many items that was; 0 = nothing was done.
    ///
    /// # Errors
    /// A fatal fault, in words: the switch stops intake and ends with a non-zero exit code.
    fn do_work(&mut self) -> Result<usize, AgentError>;

    /// Called once, on the agent's own thread, after the last `do_work`.
    fn on_close(&mut self) {}

    /// The stage's name in messages and as its thread's name.
    fn role_name(&self) -> &str;

    /// How long the agent may sleep at most when there is nothing to do: until the earliest deadline it knows of.
    /// `None` = for ever.
    fn park_limit(&mut self) -> Option<Duration> {
        None
    }

    /// Sleeps until `wakeup` is written to, the agent's own I/O has something, or `limit` has passed. Only called with
    /// the wake-up armed. An agent with sockets sleeps in its driver instead.
    fn park(&mut self, wakeup: &Wakeup, limit: Option<Duration>) {
        wakeup.sleep(limit);
    }

    /// True for an agent whose [`Agent::park`] is the one a composite must sleep in.
    fn parks_in_driver(&self) -> bool {
        false
    }
}

/// A fatal fault of an agent, in words for the operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{role}: {message}")]
pub struct AgentError {
    /// The stage.
    pub role: String,
    /// What happened and what it means.
    pub message: String,
}

impl AgentError {
    /// Puts an error together.
    pub fn new(role: &str, message: impl ToString) -> Self {
        Self {
            role: role.to_owned(),
            message: message.to_string(),
        }
    }
}
