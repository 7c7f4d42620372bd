//! The desk at which operators ask clearing for a snapshot, without clearing ever waiting.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::lists::Wanted;
use super::status::LedgerView;
use crate::agent::Wakeup;
use crate::clearing::Engine;

/// Questions at a time; more are told that the switch is busy.
const QUESTIONS_MAX: usize = 16;

/// Where snapshots are asked for and given.
#[derive(Debug)]
pub struct SnapshotDesk {
    questions: ArrayQueue<(Wanted, SyncSender<Box<LedgerView>>)>,
    clearing: Arc<Wakeup>,
}

/// A shared desk.
pub type Desk = Arc<SnapshotDesk>;

impl SnapshotDesk {
    /// A desk at which the stage that sleeps on `clearing` serves.
    #[must_use]
    pub fn new(clearing: Arc<Wakeup>) -> Desk {
        Arc::new(Self {
            questions: ArrayQueue::new(QUESTIONS_MAX),
            clearing,
        })
    }

    /// Asks for the ledger and waits for the answer, at most two seconds; `None` when clearing does not answer.
    #[must_use]
    pub fn ask(&self) -> Option<Box<LedgerView>> {
        self.ask_with(Wanted::Ledger)
    }

    /// The same with a list, at the same event.
    #[must_use]
    pub fn ask_with(&self, wanted: Wanted) -> Option<Box<LedgerView>> {
        self.question(wanted)?.recv_timeout(Duration::from_secs(2)).ok()
    }

    /// Puts a question without waiting for the answer; `None` when too many wait already.
    #[must_use]
    pub fn question(&self, wanted: Wanted) -> Option<Receiver<Box<LedgerView>>> {
        let (sender, receiver) = sync_channel(1);
        self.questions.push((wanted, sender)).ok()?;
        self.clearing.wake();
        Some(receiver)
    }

    /// Clearing's side: answers one question, if there is one.
    #[inline]
    pub fn serve(&self, engine: &Engine) -> usize {
        if self.questions.is_empty() {
            return 0;
        }
        let Some((wanted, asker)) = self.questions.pop() else {
            return 0;
        };
        let exceptions = engine.exceptions();
        let newest = exceptions.len().saturating_sub(wanted.exceptions_max());
        let orders = wanted == Wanted::Orders;
        let view = LedgerView {
            snapshot: engine.snapshot(),
            figures: engine.figures().clone(),
            in_doubt: engine.in_doubt(wanted.in_doubt_max()),
            exceptions: exceptions[newest..]
                .iter()
                .map(|item| (*item, engine.responder(item.payment)))
                .collect(),
            exceptions_total: exceptions.len() as u64,
            proposals: if orders { engine.proposals() } else { Vec::new() },
            outcomes: if orders { engine.order_outcomes() } else { Vec::new() },
        };
        // The asker may have stopped waiting.
        let _ = asker.try_send(Box::new(view));
        1
    }
}
