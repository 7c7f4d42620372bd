//! Timers, fired in the order of (deadline, id) when journaled time passes them.
//!
//! Nearly every payment is final long before T1, so its T1 timer is only a slot number in a queue: payments with the
//! same T1 become due in the order of their acceptance, and a final payment at the head is dropped when it is seen.
//! Everything rarer (status requests, T2, Reversals) stands in a heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::residents::Residents;
use crate::domain::{PaymentId, PaymentSlot, PaymentState, UtcNanos};

/// What a timer does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum TimerKind {
    /// T1: Reserved → InDoubt.
    Doubt,
    /// Ask the bank again.
    Status,
    /// T2: InDoubt → Expired.
    Expiry,
    /// Send a Reversal again.
    Reversal,
}

impl TimerKind {
    /// Reads the number.
    pub(super) fn from_u32(number: u32) -> Option<Self> {
        [Self::Doubt, Self::Status, Self::Expiry, Self::Reversal]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// A timer that is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Timer {
    pub(super) deadline: UtcNanos,
    pub(super) id: PaymentId,
    pub(super) kind: TimerKind,
    /// The payment's slot; that of a Reversal says nothing.
    pub(super) slot: PaymentSlot,
}

impl Timer {
    /// True when its payment is open: a slot may have another payment by now.
    pub(super) fn concerns(&self, payments: &Residents) -> bool {
        payments
            .get(self.slot)
            .is_some_and(|payment| payment.id == self.id && payment.is_open())
    }
}

#[derive(Debug)]
struct DoubtQueue {
    span_ns: u64,
    /// How many participants' T1 it is. Without one it empties, and is then given to another span.
    users: u32,
    /// Slot, and its generation when the payment was accepted.
    slots: VecDeque<(u32, u32)>,
}

/// T1 queues and the heap, as a snapshot has them.
pub(super) type TimerParts = (Vec<Vec<(u32, u32)>>, Vec<Timer>);

/// All timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    doubt: Vec<DoubtQueue>,
    heap: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    /// The class of payments whose T1 is `span_ns`; one participant more is in it.
    pub(super) fn enter_class(&mut self, span_ns: u64) -> usize {
        let known = self.doubt.iter().position(|queue| queue.span_ns == span_ns);
        let idle = || {
            self.doubt
                .iter()
                .position(|queue| queue.users == 0 && queue.slots.is_empty())
        };
        let class = known.or_else(idle).unwrap_or_else(|| {
            self.doubt.push(DoubtQueue {
                span_ns,
                users: 0,
                slots: VecDeque::new(),
            });
            self.doubt.len() - 1
        });
        self.doubt[class].span_ns = span_ns;
        self.doubt[class].users += 1;
        class
    }

    /// One participant less is in the class: what waits there waits on.
    pub(super) fn leave_class(&mut self, class: usize) {
        self.doubt[class].users -= 1;
    }

    /// The T1 of each class, in their order.
    pub(super) fn spans(&self) -> Vec<u64> {
        self.doubt.iter().map(|queue| queue.span_ns).collect()
    }

    /// Takes back what [`Timers::spans`] gave, before participants enter their classes.
    pub(super) fn restore_spans(&mut self, spans: &[u64]) {
        let queues = spans.iter().map(|&span_ns| DoubtQueue {
            span_ns,
            users: 0,
            slots: VecDeque::new(),
        });
        self.doubt = queues.collect();
    }

    /// The queues in the order of their classes, and the other timers in the order in which they fire.
    pub(super) fn parts(&self) -> TimerParts {
        let queues = self.doubt.iter().map(|queue| queue.slots.iter().copied().collect());
        let mut rest: Vec<Timer> = self.heap.iter().map(|Reverse(timer)| *timer).collect();
        rest.sort_unstable();
        (queues.collect(), rest)
    }

    /// How many T1 queues there are.
    pub(super) fn classes(&self) -> usize {
        self.doubt.len()
    }

    /// Takes back what [`Timers::parts`] gave; the classes are there.
    pub(super) fn restore(&mut self, queues: Vec<Vec<(u32, u32)>>, rest: Vec<Timer>) {
        for (queue, slots) in self.doubt.iter_mut().zip(queues) {
            queue.slots = slots.into();
        }
        self.heap = rest.into_iter().map(Reverse).collect();
    }

    /// Starts T1 of the payment just accepted.
    #[inline]
    pub(super) fn start_doubt(&mut self, class: usize, slot: PaymentSlot, generation: u32) {
        self.doubt[class].slots.push_back((slot.0, generation));
    }

    /// Starts any other timer.
    pub(super) fn start(&mut self, timer: Timer) {
        self.heap.push(Reverse(timer));
    }

    /// The next timer due at or before `time`.
    #[inline]
    pub(super) fn pop_due(&mut self, time: UtcNanos, payments: &Residents) -> Option<Timer> {
        for class in 0..self.doubt.len() {
            while let Some(timer) = self.doubt_head(class, payments) {
                if timer.deadline > time {
                    break;
                }
                self.doubt[class].slots.pop_front();
                self.heap.push(Reverse(timer));
            }
        }
        if self.heap.peek()?.0.deadline > time {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer)
    }

    /// The earliest deadline that still means something.
    pub(super) fn next_deadline(
        &mut self,
        payments: &Residents,
        reversal_is_due: impl Fn(PaymentId, UtcNanos) -> bool,
    ) -> UtcNanos {
        while let Some(Reverse(timer)) = self.heap.peek() {
            let live = match timer.kind {
                TimerKind::Reversal => reversal_is_due(timer.id, timer.deadline),
                TimerKind::Doubt | TimerKind::Status | TimerKind::Expiry => timer.concerns(payments),
            };
            if live {
                break;
            }
            self.heap.pop();
        }
        let mut earliest = self
            .heap
            .peek()
            .map_or(UtcNanos::NEVER, |Reverse(timer)| timer.deadline);
        for class in 0..self.doubt.len() {
            if let Some(timer) = self.doubt_head(class, payments) {
                earliest = earliest.min(timer.deadline);
            }
        }
        earliest
    }

    /// Forgets all timers but those of Reversals: a restart starts them anew.
    pub(super) fn clear_payment_timers(&mut self) {
        for queue in &mut self.doubt {
            queue.slots.clear();
        }
        self.heap.retain(|Reverse(timer)| timer.kind == TimerKind::Reversal);
    }

    /// The first of the class that is still Reserved; those before it are dropped.
    #[inline]
    fn doubt_head(&mut self, class: usize, payments: &Residents) -> Option<Timer> {
        let queue = &mut self.doubt[class];
        while let Some(&(slot, generation)) = queue.slots.front() {
            let slot = PaymentSlot(slot);
            let payment = &payments[slot];
            if payment.state == PaymentState::Reserved as u8 && payments.generation(slot) == generation {
                return Some(Timer {
                    deadline: UtcNanos(payment.time_ns).plus(queue.span_ns),
                    id: payment.id,
                    kind: TimerKind::Doubt,
                    slot,
                });
            }
            queue.slots.pop_front();
        }
        None
    }
}
