//! Two operators who give orders about cover: they propose, approve, take back, approve what is their own, race each other
//! for the same proposal and come long after it; and what their books must come to, whatever the machine did meanwhile.

use std::collections::BTreeMap;

use bytemuck::Zeroable;

use super::events::Due;
use super::world::World;
use crate::audit::Recomputed;
use crate::clearing::LedgerSnapshot;
use crate::domain::{ParticipantIndex, Position, SECOND, UtcNanos};
use crate::journal::JournalFiles;
use crate::wire::{OperatorName, OrderAction, OrderEvent, OrderStep, RecordKind};

/// The two of them.
const OPERATORS: [&[u8]; 2] = [b"wang", b"li"];
/// A proposal waits so long; near that, nobody says here whether it still did.
const WAITS_NS: u64 = 7 * 24 * 3_600 * SECOND;
/// The most that one order moves, minor units.
const AMOUNT_MAX: u64 = 1_000_000;

/// An order as the journal has it.
#[derive(Clone, Copy)]
struct Journaled {
    event: u64,
    time: UtcNanos,
    order: OrderEvent,
}

fn name(operator: usize) -> OperatorName {
    let mut name = OperatorName::zeroed();
    name[..OPERATORS[operator].len()].copy_from_slice(OPERATORS[operator]);
    name
}

/// So many times operators give orders in a run, on average.
const TIMES: u64 = 30;

impl World {
    /// When operators give orders next.
    pub(super) fn plan_next_orders(&mut self) {
        let at = self.now + 1 + self.random.below(2 * self.plan.span_ns / TIMES);
        self.agenda.put(at, Due::Orders);
    }

    /// Some orders reach the switch at once, if it is up; what it has no room for is lost, as is what a crash takes.
    pub(super) fn operators_order(&mut self) -> Result<(), String> {
        if self.switch.is_none() {
            return Ok(());
        }
        let proposals: Vec<u64> = self
            .journaled_orders()?
            .iter()
            .filter(|journaled| journaled.order.step == OrderStep::Propose as u8)
            .map(|journaled| journaled.event)
            .collect();
        let operator = self.random.below(2) as usize;
        let mut orders = Vec::new();
        match (self.random.below(8), proposals.len() as u64) {
            (0..=2, _) | (_, 0) => orders.push(self.draw_order(OrderStep::Propose, operator)),
            // What takes two is said by one.
            (3, _) => orders.push(self.draw_order(OrderStep::Direct, operator)),
            (drawn, count) => {
                // Mostly the newest; at times one that was approved, taken back or forgotten long ago.
                let newest = self.random.chance(60_000);
                let at = if newest { count - 1 } else { self.random.below(count) };
                let about = proposals[at as usize];
                let second = |step: OrderStep, operator: usize| {
                    let mut order = OrderEvent::zeroed();
                    (order.step, order.proposal, order.operator) = (step as u8, about, name(operator));
                    order
                };
                match drawn {
                    4 => orders.push(second(OrderStep::Approve, operator)),
                    5 => orders.extend([0, 1].map(|operator| second(OrderStep::Approve, operator))),
                    6 => orders.push(second(OrderStep::Refuse, operator)),
                    _ => orders.extend([
                        second(OrderStep::Approve, operator),
                        second(OrderStep::Refuse, 1 - operator),
                        second(OrderStep::Approve, 1 - operator),
                    ]),
                }
            }
        }
        for mut order in orders {
            self.counts.orders += 1;
            order.reference = self.counts.orders;
            self.note(|| {
                format!(
                    "order {} of {:?}, step {}",
                    order.reference, order.operator[0] as char, order.step
                )
            });
            if let Some(switch) = &self.switch {
                switch.order(order);
            }
        }
        Ok(())
    }

    fn draw_order(&mut self, step: OrderStep, operator: usize) -> OrderEvent {
        let action = match self.random.below(4) {
            0 | 1 => OrderAction::CoverIn,
            2 => OrderAction::CoverOut,
            _ => OrderAction::SetCap,
        };
        let participant = self.random.below(self.directory.participants.len() as u64) as u16;
        let terms = &self.directory.participants[usize::from(participant)].terms;
        let mut order = OrderEvent::zeroed();
        order.action = action as u8;
        order.step = step as u8;
        order.currency = self.directory.scheme.currencies[0];
        order.participant = ParticipantIndex(participant);
        order.operator = name(operator);
        // A cap stays above what the run needs: an evening of refusals would rehearse nothing.
        order.amount_minor = match action {
            OrderAction::SetCap => terms.accounts[0].cap_minor.max(1) + self.random.below(AMOUNT_MAX),
            _ => 1 + self.random.below(AMOUNT_MAX),
        };
        order
    }

    fn journaled_orders(&self) -> Result<Vec<Journaled>, String> {
        let unreadable = |error| format!("the journal can't be read: {error}");
        let files = JournalFiles::open(&self.data.path().join("journal")).map_err(unreadable)?;
        let mut orders = Vec::new();
        for record in files.records() {
            let record = record.map_err(unreadable)?;
            if record.kind == RecordKind::Order {
                orders.push(Journaled {
                    event: record.number,
                    time: record.time,
                    order: bytemuck::pod_read_unaligned(record.payload),
                });
            }
        }
        Ok(orders)
    }

    /// Cover and caps are the auditor's; and what came in is what each proposal brings that another person approved before
    /// anybody took it back, once.
    pub(super) fn check_orders(&mut self, ledger: &LedgerSnapshot, audited: &Recomputed) -> Result<(), String> {
        let orders = self.journaled_orders()?;
        self.counts.orders_journaled += orders.len() as u64;
        let decided: u64 = audited.orders.values().sum();
        if decided != orders.len() as u64 {
            return Err(format!("{} orders in the journal, {decided} outcomes", orders.len()));
        }
        let expected = brought_in(&orders);
        for participant in &ledger.participants {
            let index = participant.index.index();
            let [cover, cap] = [&audited.covers, &audited.caps].map(|sums| sums.get(index).copied().unwrap_or(0));
            if (participant.cover, participant.cap) != (cover, cap) {
                return Err(format!(
                    "invariant 2: participant {index} has cover {} and cap {}, the auditor {cover} and {cap}",
                    participant.cover, participant.cap
                ));
            }
            let Some((least, most)) = expected.get(&participant.index.0) else {
                continue;
            };
            let came: Position = participant.accounts.first().map_or(0, |account| account.brought_in);
            if came < *least || came > *most {
                return Err(format!(
                    "invariant 2: approved orders brought participant {index} {least} to {most}, its book says {came}"
                ));
            }
            self.counts.cover_brought_in += u64::from(came > 0);
        }
        Ok(())
    }
}

/// By participant: the least and the most that approved orders brought in. They differ where an approval came so near to
/// the end of a proposal's time that only the engine says.
fn brought_in(orders: &[Journaled]) -> BTreeMap<u16, (Position, Position)> {
    let mut sums: BTreeMap<u16, (Position, Position)> = BTreeMap::new();
    for proposal in orders {
        let made = &proposal.order;
        let proposes = made.step == OrderStep::Propose as u8 && made.action == OrderAction::CoverIn as u8;
        if !proposes {
            continue;
        }
        let mut words = orders
            .iter()
            .filter(|word| word.event > proposal.event && word.order.proposal == proposal.event);
        let ends = words.find(|word| {
            let is_other = word.order.operator != made.operator;
            word.order.step == OrderStep::Refuse as u8 || (word.order.step == OrderStep::Approve as u8 && is_other)
        });
        let sum = sums.entry(made.participant.0).or_default();
        if let Some(word) = ends.filter(|word| word.order.step == OrderStep::Approve as u8) {
            sum.1 += Position::from(made.amount_minor);
            if word.time.since(proposal.time) < WAITS_NS / 2 {
                sum.0 += Position::from(made.amount_minor);
            }
        }
    }
    sums
}
