//! Invariant 10 at the intake, as far as the journal shows it: what each link had unanswered, and how many payments an
//! institution sent a second.
//!
//! A request counts from its own event on and is answered by the event that made its payment final, or by its own where
//! the answer needed nothing. The switch counts from before that event and until the answer is on its way, so that what is
//! counted here is never more than what it counted, and one over the contract is one that it let in. What goes *out* to
//! banks leaves no event: dispatch counts that, and the rehearsal's witness.

use std::collections::BTreeMap;

use super::auditor::Auditor;
use super::invariant::{Finding, Invariant};
use super::notebook::Notebook;
use crate::domain::{ParticipantIndex, SECOND, UtcNanos};
use crate::wire::{FindingEvent, RecordKind, RequestEvent};

/// The intake of every link and institution since the last start.
#[derive(Clone, Debug, Default)]
pub(super) struct Contracts {
    links: BTreeMap<u32, Link>,
    rates: BTreeMap<u16, Rate>,
    /// Open payments: by their place in the books, the link that they came on.
    open: BTreeMap<u32, u32>,
    /// Requests that wait for the register: by their event, the link.
    waiting: BTreeMap<u64, u32>,
    requests: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    unanswered: u64,
    /// The highest contract while it was there: an amended one is for links to come.
    maximum: u32,
    told: bool,
}

/// A second's worth may come at once, and then the rate.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    per_second_max: u32,
    used_until_ns: u64,
    now_ns: u64,
    told: bool,
}

impl Contracts {
    /// How many payments the auditor had before the event; to be asked for before it is applied.
    pub(super) fn before(auditor: &Auditor) -> usize {
        auditor.books.payments.len()
    }

    /// Takes note of an event that was just applied.
    pub(super) fn after(
        &mut self,
        auditor: &Auditor,
        payments_before: usize,
        kind: RecordKind,
        number: u64,
        payload: &[u8],
        notebook: &mut Notebook,
    ) {
        if let Some(traces) = &auditor.books.traces {
            for (at, _) in &traces.concluded {
                if let Some(link) = self.open.remove(at) {
                    self.answered(link);
                }
            }
        }
        match kind {
            RecordKind::Request if payload.len() == size_of::<RequestEvent>() => {
                let event: RequestEvent = bytemuck::pod_read_unaligned(payload);
                self.asked(auditor, &event, number, notebook);
                if auditor.residency.is_waiting(number) {
                    self.waiting.insert(number, event.stamp.link);
                } else {
                    self.decided(auditor, payments_before, event.stamp.link);
                }
            }
            RecordKind::Finding if payload.len() == size_of::<FindingEvent>() => {
                let event: FindingEvent = bytemuck::pod_read_unaligned(payload);
                if !auditor.residency.is_waiting(event.event)
                    && let Some(link) = self.waiting.remove(&event.event)
                {
                    self.decided(auditor, payments_before, link);
                }
            }
            // Links of an earlier start are gone; their numbers mean others.
            RecordKind::Restart => {
                *self = Self {
                    requests: self.requests,
                    ..Self::default()
                }
            }
            _ => {}
        }
    }

    /// A request was decided about: its payment is open now, or it has been answered.
    fn decided(&mut self, auditor: &Auditor, payments_before: usize, link: u32) {
        let payments = &auditor.books.payments;
        let is_open = payments.len() > payments_before && !payments[payments_before].state.is_final();
        if is_open {
            self.open.insert(payments_before as u32, link);
        } else {
            self.answered(link);
        }
    }

    fn answered(&mut self, link: u32) {
        if let Some(link) = self.links.get_mut(&link) {
            link.unanswered = link.unanswered.saturating_sub(1);
        }
    }

    fn asked(&mut self, auditor: &Auditor, event: &RequestEvent, number: u64, notebook: &mut Notebook) {
        self.requests += 1;
        let initiator = event.body.id.originator();
        let Some(participant) = auditor.books.participant_ref(initiator) else {
            return;
        };
        let (contract, code) = (participant.terms.contract, participant.terms.code);
        let link = self.links.entry(event.stamp.link).or_default();
        link.maximum = link.maximum.max(contract.intake_in_flight_max);
        link.unanswered += 1;
        if link.unanswered > link.maximum.into() && !link.told {
            link.told = true;
            let what = format!("event {number}: payments unanswered on link {:#x}", event.stamp.link);
            let finding = Invariant::Contracts.broken(what).of(code.text());
            notebook.find(finding.values(format!("{}", link.unanswered), format!("at most {}", link.maximum)));
        }
        let rate = self.rates.entry(initiator.0).or_default();
        rate.per_second_max = rate.per_second_max.max(contract.intake_per_second_max);
        let over = contract.intake_per_second_max > 0 && !rate.take(UtcNanos(event.stamp.received_ns));
        if over && !rate.told {
            rate.told = true;
            notebook.find(over_rate(number, initiator, rate.per_second_max).of(code.text()));
        }
    }

    /// Says over how many it was checked.
    pub(super) fn close(&self, notebook: &mut Notebook) {
        notebook.checked(
            Invariant::Contracts,
            "requests at the intake (what is sent to banks is not in the journal)",
            self.requests,
        );
    }
}

fn over_rate(number: u64, initiator: ParticipantIndex, per_second_max: u32) -> Finding {
    Invariant::Contracts.broken(format!(
        "event {number}: participant {initiator} sent more payments than {per_second_max} a second, with a second's worth at once"
    ))
}

impl Rate {
    fn take(&mut self, received: UtcNanos) -> bool {
        // Several agents stamp what they receive; time goes on in the journal's order.
        self.now_ns = self.now_ns.max(received.0);
        let cost_ns = SECOND / u64::from(self.per_second_max.max(1));
        let until = self.used_until_ns.max(self.now_ns.saturating_sub(SECOND)) + cost_ns;
        self.used_until_ns = until;
        until <= self.now_ns
    }
}
