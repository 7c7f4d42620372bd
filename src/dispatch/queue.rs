//! What waits for one participant's links: requests in the order of their deadlines, and status requests.

use std::collections::{BTreeMap, VecDeque};

use crate::agent::Bucket;
use crate::domain::{PaymentId, UtcNanos};
use crate::wire::{Seat, StatusRequest};

/// A request without a link.
pub(super) struct Waiting {
    pub(super) seat: Seat,
    pub(super) id: PaymentId,
    /// Not to be sent after this time.
    pub(super) deadline: UtcNanos,
    pub(super) frame: [u8; 128],
}

/// One participant's queue.
pub(super) struct Queue {
    /// In the order of acceptance, and so of deadlines: a participant has one Tq.
    requests: VecDeque<Waiting>,
    /// Requests that links which ended or clogged gave back: older than most others, and of several links perhaps.
    returned: BTreeMap<(UtcNanos, u32, u32), Waiting>,
    pub(super) status: VecDeque<StatusRequest>,
    pub(super) status_bucket: Bucket,
    /// Known to dispatch as one that holds something.
    pub(super) listed: bool,
}

impl Queue {
    pub(super) fn new(status_requests_per_second: u32) -> Self {
        Self {
            requests: VecDeque::new(),
            returned: BTreeMap::new(),
            status: VecDeque::new(),
            status_bucket: Bucket::for_sending(status_requests_per_second),
            listed: false,
        }
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.requests.len() + self.returned.len()
    }

    /// The request whose deadline is the earliest.
    #[inline]
    pub(super) fn first(&self) -> Option<&Waiting> {
        match (self.returned.first_key_value(), self.requests.front()) {
            (Some((_, returned)), Some(request)) if request.deadline < returned.deadline => Some(request),
            (Some((_, returned)), _) => Some(returned),
            (None, request) => request,
        }
    }

    /// Takes what [`Queue::first`] gives.
    pub(super) fn take_first(&mut self) -> Option<Waiting> {
        let returned = self.returned.first_key_value().map(|(_, waiting)| waiting.deadline);
        match (returned, self.requests.front()) {
            (Some(returned), Some(request)) if request.deadline < returned => self.requests.pop_front(),
            (Some(_), _) => self.returned.pop_first().map(|(_, waiting)| waiting),
            (None, _) => self.requests.pop_front(),
        }
    }

    /// A request just accepted.
    pub(super) fn push(&mut self, request: Waiting) {
        self.requests.push_back(request);
    }

    /// A request that had a link, and has none again.
    pub(super) fn put_back(&mut self, request: Waiting) {
        let Seat { slot, turn } = request.seat;
        self.returned.insert((request.deadline, slot.0, turn), request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PaymentSlot;

    fn waiting(slot: u32, deadline: u64) -> Waiting {
        Waiting {
            seat: Seat {
                slot: PaymentSlot(slot),
                turn: 1,
            },
            id: bytemuck::Zeroable::zeroed(),
            deadline: UtcNanos(deadline),
            frame: [0; 128],
        }
    }

    #[test]
    fn requests_come_out_by_deadline_wherever_they_came_from() {
        let mut queue = Queue::new(1);
        for (slot, deadline) in [(5, 50), (6, 60), (7, 60)] {
            queue.push(waiting(slot, deadline));
        }
        // Two links that ended, one after the other.
        for (slot, deadline) in [(1, 10), (4, 40), (2, 20), (3, 20), (8, 55)] {
            queue.put_back(waiting(slot, deadline));
        }
        assert_eq!(queue.len(), 8);
        let mut out = Vec::new();
        while let Some(first) = queue.first().map(|first| first.seat.slot.0) {
            assert_eq!(queue.take_first().map(|taken| taken.seat.slot.0), Some(first));
            out.push(first);
        }
        assert_eq!(out, [1, 2, 3, 4, 5, 8, 6, 7]);
        assert_eq!(queue.len(), 0);
    }
}
