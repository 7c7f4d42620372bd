//! The archivist: makes the chain longer behind the live journal. A thread of its own at the lowest priority, in short
//! slices; nobody waits for it, and nothing it meets stops the switch: it is logged and shown to operators.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::{Agent, AgentError};
use crate::journal::{ChainFailure, ChainWriter, Positions};

/// How often it looks for more when it has caught up.
const ROUND: Duration = Duration::from_millis(250);
/// After the system refused something it tries again this much later.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// What is left of the chain when the switch stops is made for at most this long; the next start makes the rest.
const CLOSING: Duration = Duration::from_secs(2);

/// What the archivist is made of.
#[derive(Debug)]
pub struct ArchivistParts {
    /// The journal's directory.
    pub journal: PathBuf,
    /// The journal's positions.
    pub positions: Arc<Positions>,
    /// Where operators look.
    pub view: ArchivistView,
}

/// What the archivist has come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ArchivistReport {
    /// The journal position up to which the chain has come.
    pub chained_to: u64,
    /// The chain's value, 64 hex digits.
    pub chain_value: Option<String>,
    /// The last checkpoint's event and value.
    pub checkpoint: Option<(u64, String)>,
    /// What is wrong with the chain.
    pub chain_fault: Option<String>,
}

/// Where operators see it.
#[derive(Clone, Debug, Default)]
pub struct ArchivistView(Arc<Mutex<ArchivistReport>>);

impl ArchivistView {
    /// What it has come to by now.
    #[must_use]
    pub fn report(&self) -> ArchivistReport {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ArchivistReport> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// `chain` of the status.
    pub(super) fn chain_json(&self) -> Value {
        let report = self.report();
        json!({
            "to": report.chained_to,
            "value": report.chain_value,
            "checkpoint_event": report.checkpoint.as_ref().map(|(event, _)| event),
            "checkpoint": report.checkpoint.as_ref().map(|(_, value)| value),
            "fault": report.chain_fault,
        })
    }
}

/// Where the chain's writer is.
#[derive(Debug)]
enum Chaining {
    NotYet,
    Open(Box<ChainWriter>),
    /// The journal is not what was chained: nothing is added to the evidence.
    Broken,
}

/// The archivist.
#[derive(Debug)]
pub struct Archivist {
    parts: ArchivistParts,
    chaining: Chaining,
    refused_until: Option<Instant>,
}

impl Archivist {
    /// Puts it together.
    #[must_use]
    pub const fn new(parts: ArchivistParts) -> Self {
        Self {
            parts,
            chaining: Chaining::NotYet,
            refused_until: None,
        }
    }

    fn chain(&mut self) -> Result<usize, ChainFailure> {
        match &mut self.chaining {
            Chaining::NotYet => {
                let writer = ChainWriter::open(&self.parts.journal)?;
                self.chaining = Chaining::Open(Box::new(writer));
                Ok(1)
            }
            Chaining::Open(writer) => {
                let before = writer.chain().end();
                let did = writer.step(self.parts.positions.durable())?;
                if writer.chain().end() != before || before != 0 && self.parts.view.lock().chained_to == 0 {
                    let chain = writer.chain();
                    let mut report = self.parts.view.lock();
                    report.chained_to = chain.end();
                    report.chain_value = Some(chain.value().to_string());
                    report.checkpoint = chain.checkpoint().map(|(mark, value)| (mark.event, value.to_string()));
                    report.chain_fault = None;
                }
                Ok(usize::from(did))
            }
            Chaining::Broken => Ok(0),
        }
    }

    fn chain_or_tell(&mut self) -> usize {
        let failure = match self.chain() {
            Ok(done) => return done,
            Err(failure) => failure,
        };
        tracing::error!("the journal's chain goes on no more: {failure}");
        self.parts.view.lock().chain_fault = Some(failure.to_string());
        self.chaining = match failure {
            ChainFailure::Finding(_) => Chaining::Broken,
            ChainFailure::Journal(_) | ChainFailure::System { .. } => {
                self.refused_until = Some(Instant::now() + REFUSED_PAUSE);
                Chaining::NotYet
            }
        };
        0
    }
}

impl Agent for Archivist {
    fn do_work(&mut self) -> Result<usize, AgentError> {
        if self.refused_until.is_some_and(|until| Instant::now() < until) {
            return Ok(0);
        }
        self.refused_until = None;
        Ok(self.chain_or_tell())
    }

    fn on_close(&mut self) {
        let until = Instant::now() + CLOSING;
        while Instant::now() < until && self.refused_until.is_none() && self.chain_or_tell() > 0 {}
    }

    fn role_name(&self) -> &str {
        "archivist"
    }

    fn park_limit(&mut self) -> Option<Duration> {
        Some(ROUND)
    }
}
