//! Events that wait for what the register knows of a payment.
//!
//! They wait in the order of their numbers, a bounded number of each participant's, until a Finding comes for them.

use std::collections::BTreeMap;

use bytemuck::{Pod, Zeroable};

use crate::domain::{LinkId, ParticipantIndex, PaymentId};
use crate::wire::{LookUp, ReplyEvent, RequestEvent};

/// What waits.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "both are rare and short-lived")]
pub(super) enum Parked {
    /// A request: a repetition of a payment that went, or a Refund of one.
    Request {
        /// The request as it was journaled.
        request: RequestEvent,
        /// Where its payload lies in the journal.
        position: u64,
    },
    /// A bank's word about a payment that went.
    Reply(ReplyEvent),
}

impl Parked {
    /// Whose event it is.
    fn participant(&self) -> ParticipantIndex {
        match self {
            Self::Request { request, .. } => request.body.id.originator(),
            Self::Reply(reply) => ParticipantIndex(reply.sender),
        }
    }
}

/// A parked event as snapshots and the state hash have it: 176 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ParkedRow {
    event: u64,
    position: u64,
    looked_for: PaymentId,
    /// 1: a request; 0: a reply, in the first half of `payload`.
    is_request: u64,
    reserved: u64,
    payload: [u8; 128],
}

/// All events that wait.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// By event number: the payment looked for, and what waits.
    events: BTreeMap<u64, (PaymentId, Parked)>,
    /// The own ids of the requests among them.
    requests: BTreeMap<PaymentId, u64>,
    /// How many of each participant's wait.
    counts: BTreeMap<u16, u32>,
}

impl Parking {
    /// True when a request with this id waits.
    pub(super) fn has_request(&self, id: PaymentId) -> bool {
        !self.requests.is_empty() && self.requests.contains_key(&id)
    }

    /// Parks an event, unless `parked_max` of its participant's wait already.
    pub(super) fn park(&mut self, event: u64, looked_for: PaymentId, what: Parked, parked_max: u32) -> Option<LookUp> {
        let count = self.counts.entry(what.participant().0).or_insert(0);
        if *count >= parked_max {
            return None;
        }
        *count += 1;
        if let Parked::Request { request, .. } = &what {
            self.requests.insert(request.body.id, event);
        }
        self.events.insert(event, (looked_for, what));
        Some(LookUp { event, id: looked_for })
    }

    /// Takes out the event that waits for this finding; `None` where none does.
    pub(super) fn resume(&mut self, event: u64, found: PaymentId) -> Option<Parked> {
        let (looked_for, _) = self.events.get(&event)?;
        if *looked_for != found {
            return None;
        }
        let (_, what) = self.events.remove(&event)?;
        if let Parked::Request { request, .. } = &what {
            self.requests.remove(&request.body.id);
        }
        if let Some(count) = self.counts.get_mut(&what.participant().0) {
            *count -= 1;
        }
        Some(what)
    }

    /// Forgets by which links they came: the numbers mean nothing in another run of the switch.
    pub(super) fn forget_links(&mut self) {
        for (_, what) in self.events.values_mut() {
            match what {
                Parked::Request { request, .. } => request.stamp.link = LinkId::NONE.0,
                Parked::Reply(reply) => reply.link = LinkId::NONE.0,
            }
        }
    }

    /// What is looked for, in the order of the events.
    pub(super) fn look_ups(&self) -> impl Iterator<Item = LookUp> {
        self.events.iter().map(|(&event, &(id, _))| LookUp { event, id })
    }

    /// The events that wait, in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = ParkedRow> {
        self.events.iter().map(|(&event, &(looked_for, what))| {
            let mut row = ParkedRow {
                event,
                looked_for,
                ..ParkedRow::zeroed()
            };
            match what {
                Parked::Request { request, position } => {
                    (row.is_request, row.position) = (1, position);
                    row.payload.copy_from_slice(bytemuck::bytes_of(&request));
                }
                Parked::Reply(reply) => {
                    row.payload[..size_of::<ReplyEvent>()].copy_from_slice(bytemuck::bytes_of(&reply))
                }
            }
            row
        })
    }

    /// Takes back what [`Parking::rows`] gave.
    pub(super) fn restored(rows: &[ParkedRow]) -> Self {
        let mut parking = Self::default();
        for row in rows {
            let what = if row.is_request == 1 {
                Parked::Request {
                    request: bytemuck::pod_read_unaligned(&row.payload),
                    position: row.position,
                }
            } else {
                Parked::Reply(bytemuck::pod_read_unaligned(&row.payload[..size_of::<ReplyEvent>()]))
            };
            parking.park(row.event, row.looked_for, what, u32::MAX);
        }
        parking
    }
}
