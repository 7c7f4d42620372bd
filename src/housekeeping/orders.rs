//! The desk for orders: who may give them, and what became of each.
//!
//! An order goes through a bounded ring of its own to the sequencer and is journaled; the engine decides about it, and the
//! steward, who has put it in force in the links by then, tells the desk. Whoever ordered waits here and nowhere else.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytemuck::Zeroable;

use super::tidings::Ordered;
use crate::agent::Ring;
use crate::config::{DirectoryEntry, OperatorSettings};
use crate::domain::ParticipantTerms;
use crate::wire::{OperatorName, OrderAction, OrderEvent, OrderStep};

/// How long an operator waits for what becomes of his order.
const OUTCOME_WAIT: Duration = Duration::from_secs(8);

/// Why an order was not put to the engine, or what became of it is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OrderRefusal {
    #[error(
        "the settings name no operator, so that nobody may give orders: `clearway admin operator-token NAME` prints an \
         [[operator]] table to add; start the switch again with it"
    )]
    NoOperators,
    #[error(
        "no operator has this name and this token: see --operator and --token-file, and [[operator]] in the settings"
    )]
    NotKnown,
    #[error("{name} may not {what}: `may` of his [[operator]] table in the settings does not list \"{right}\"")]
    MayNot {
        name: String,
        what: &'static str,
        right: &'static str,
    },
    #[error("too many orders are under way: nothing was done, give it again")]
    Full,
    #[error("the random numbers of the system can't be read: {0}")]
    NoRandomness(String),
    #[error(
        "what became of the order is not known yet, the ledger has not answered; it may still come about: look at \
         `clearway admin orders` (reference {reference}) before you give it again"
    )]
    NotKnownYet { reference: u64 },
}

/// An operator who has shown his token.
#[derive(Clone, Copy, Debug)]
pub struct Authority {
    name: OperatorName,
    makes: bool,
    checks: bool,
}

/// The desk.
#[derive(Debug)]
pub struct OrderDesk {
    operators: Vec<OperatorSettings>,
    ring: Arc<Ring<OrderEvent>>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    told: Condvar,
    /// Held by whoever orders what rests on the terms he has read.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Of one who joins: what the journal does not hold.
    joins: Option<DirectoryEntry>,
    became: Option<Ordered>,
    /// Nobody waits any more.
    left: bool,
}

impl OrderDesk {
    /// A desk for these operators, whose orders go by `ring`.
    #[must_use]
    pub fn new(operators: Vec<OperatorSettings>, ring: Arc<Ring<OrderEvent>>) -> Self {
        Self {
            operators,
            ring,
            waiting: Mutex::default(),
            told: Condvar::new(),
            turn: Mutex::default(),
        }
    }

    /// Who this is.
    ///
    /// # Errors
    /// Nobody that the settings name, or not his token.
    pub fn recognise(&self, name: &str, token: &str) -> Result<Authority, OrderRefusal> {
        if self.operators.is_empty() {
            return Err(OrderRefusal::NoOperators);
        }
        let token = blake3::Hash::from_hex(token.trim()).map_err(|_| OrderRefusal::NotKnown)?;
        let shown = blake3::hash(token.as_bytes());
        let known = self.operators.iter().find(|operator| operator.name == name);
        // blake3::Hash compares in constant time.
        let known = known.filter(|operator| shown == blake3::Hash::from_bytes(operator.token_hash));
        let known = known.ok_or(OrderRefusal::NotKnown)?;
        let mut bytes = OperatorName::zeroed();
        bytes[..known.name.len()].copy_from_slice(known.name.as_bytes());
        Ok(Authority {
            name: bytes,
            makes: known.makes,
            checks: known.checks,
        })
    }

    /// Until it is dropped nobody else orders what rests on the terms he has read.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Gives an order and waits for what becomes of it. `reference` and `operator` are set here.
    ///
    /// # Errors
    /// It was not taken, or it was and what became of it is not known yet.
    pub fn give(
        &self,
        authority: &Authority,
        mut order: OrderEvent,
        joins: Option<DirectoryEntry>,
    ) -> Result<Ordered, OrderRefusal> {
        authority.may(&order)?;
        let reference = random_reference()?;
        (order.reference, order.operator) = (reference, authority.name);
        let waiting = Waiting {
            joins,
            ..Waiting::default()
        };
        self.waiting().insert(reference, waiting);
        if self.ring.push(order).is_err() {
            self.waiting().remove(&reference);
            return Err(OrderRefusal::Full);
        }
        self.ring.notify();
        let is_open = |waiting: &mut HashMap<u64, Waiting>| waiting.get(&reference).is_some_and(|w| w.became.is_none());
        let waited = self.told.wait_timeout_while(self.waiting(), OUTCOME_WAIT, is_open);
        let (mut waiting, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(became) = waiting.get(&reference).and_then(|waiting| waiting.became) {
            waiting.remove(&reference);
            return Ok(became);
        }
        // The steward may still need what it says of one who joins.
        if let Some(waiting) = waiting.get_mut(&reference) {
            waiting.left = true;
        }
        Err(OrderRefusal::NotKnownYet { reference })
    }

    /// The steward's side: what was said of one who joins by this order.
    pub(super) fn joins(&self, reference: u64) -> Option<DirectoryEntry> {
        self.waiting().get_mut(&reference)?.joins.take()
    }

    /// The steward's side: what became of an order, which is in force everywhere by now.
    pub(super) fn became(&self, ordered: Ordered) {
        let mut waiting = self.waiting();
        let Some(known) = waiting.get_mut(&ordered.reference) else {
            return;
        };
        if known.left {
            waiting.remove(&ordered.reference);
            return;
        }
        known.became = Some(ordered);
        self.told.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Authority {
    /// The operator's name.
    #[must_use]
    pub fn name(&self) -> String {
        operator_text(&self.name)
    }

    fn may(&self, order: &OrderEvent) -> Result<(), OrderRefusal> {
        let (has, what, right) = match OrderStep::from_u8(order.step) {
            Some(OrderStep::Approve) => (self.checks, "approve", "check"),
            Some(OrderStep::Refuse) => (self.makes || self.checks, "take a proposal back", "make"),
            Some(OrderStep::Propose) => (self.makes, "propose", "make"),
            Some(OrderStep::Direct) | None => (self.makes, "order this", "make"),
        };
        let name = self.name();
        if has {
            Ok(())
        } else {
            Err(OrderRefusal::MayNot { name, what, right })
        }
    }

    /// What changes nothing in the journal, a credential, is for who may order directly.
    ///
    /// # Errors
    /// He may not.
    pub fn may_order(&self) -> Result<(), OrderRefusal> {
        self.may(&order(OrderAction::Amend, OrderStep::Direct))
    }
}

/// An order about nobody yet.
pub(super) fn order(action: OrderAction, step: OrderStep) -> OrderEvent {
    OrderEvent {
        action: action as u8,
        step: step as u8,
        ..OrderEvent::zeroed()
    }
}

/// An approval or refusal: it names the proposal and says nothing else.
pub(super) fn about_proposal(step: OrderStep, proposal: u64) -> OrderEvent {
    OrderEvent {
        proposal,
        step: step as u8,
        ..OrderEvent::zeroed()
    }
}

/// An order that says terms.
pub(super) fn with_terms(action: OrderAction, terms: ParticipantTerms) -> OrderEvent {
    OrderEvent {
        participant: terms.index,
        terms,
        ..order(action, OrderStep::Direct)
    }
}

/// An operator's name as it stands in the journal, as text.
#[must_use]
pub fn operator_text(name: &OperatorName) -> String {
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..length]).into_owned()
}

/// A number that no other order has, of this run or another.
fn random_reference() -> Result<u64, OrderRefusal> {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|error| OrderRefusal::NoRandomness(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Wakeup;
    use crate::wire::OrderOutcome;

    const TOKEN: [u8; 32] = [7; 32];

    fn desk(capacity: usize) -> (Arc<OrderDesk>, Arc<Ring<OrderEvent>>) {
        let ring = Ring::new(capacity, Arc::new(Wakeup::new().unwrap()));
        let alice = OperatorSettings {
            name: "alice".to_owned(),
            token_hash: *blake3::hash(&TOKEN).as_bytes(),
            makes: true,
            checks: false,
        };
        (Arc::new(OrderDesk::new(vec![alice], Arc::clone(&ring))), ring)
    }

    fn alice(desk: &OrderDesk) -> Authority {
        let token = blake3::Hash::from_bytes(TOKEN).to_hex();
        desk.recognise("alice", &token).unwrap()
    }

    #[test]
    fn an_order_that_finds_the_ring_full_is_refused_at_once_and_nobody_waits_for_it() {
        let (desk, ring) = desk(1);
        ring.push(OrderEvent::zeroed()).unwrap();
        let refused = desk.give(&alice(&desk), order(OrderAction::Suspend, OrderStep::Direct), None);
        assert_eq!(refused.map(|_| ()), Err(OrderRefusal::Full));
        assert!(desk.waiting().is_empty());
    }

    #[test]
    fn whoever_orders_is_told_of_his_own_order_and_of_no_other() {
        let (desk, ring) = desk(4);
        let giver = {
            let desk = Arc::clone(&desk);
            std::thread::spawn(move || desk.give(&alice(&desk), order(OrderAction::Suspend, OrderStep::Direct), None))
        };
        let given = loop {
            match ring.pop() {
                Some(given) => break given,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(operator_text(&given.operator), "alice");
        let became = |reference, event| Ordered {
            reference,
            event,
            outcome: OrderOutcome::Done,
            action: given.action,
            terms: None,
        };
        desk.became(became(given.reference ^ 1, 8));
        desk.became(became(given.reference, 9));
        assert_eq!(giver.join().unwrap().unwrap().event, 9);
        assert!(desk.waiting().is_empty());
    }

    #[test]
    fn a_wrong_token_a_wrong_name_and_what_one_may_not_do_are_refused() {
        let (desk, ring) = desk(1);
        let other = blake3::Hash::from_bytes([8; 32]).to_hex();
        for (name, token) in [
            ("alice", other.as_str()),
            ("bob", &blake3::Hash::from_bytes(TOKEN).to_hex()),
            ("alice", ""),
        ] {
            assert_eq!(desk.recognise(name, token).map(|_| ()), Err(OrderRefusal::NotKnown));
        }
        let refused = desk.give(&alice(&desk), about_proposal(OrderStep::Approve, 4), None);
        assert!(
            matches!(refused, Err(OrderRefusal::MayNot { right: "check", .. })),
            "{refused:?}"
        );
        assert!(ring.is_empty());
    }
}
