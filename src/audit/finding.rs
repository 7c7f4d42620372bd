//! What waits for the register, what it says, and days that are over.

use super::auditor::Auditor;
use super::books::Reversal;
use super::residency::Waiting;
use crate::domain::{BusinessDate, Code, PaymentId, UtcNanos, WindowId};
use crate::wire::{DaySealedEvent, FindingEvent, PaymentBody};

impl Auditor {
    /// A request waits for what the register knows; it is told 37 when too many of its initiator's wait.
    pub(super) fn request_waits(&mut self, number: u64, looked_for: PaymentId, body: &PaymentBody, digest: u64) {
        if !self.residency.park(number, looked_for, Waiting::Request(*body, digest)) {
            self.not_remembered(Code::NotTaken);
        }
    }

    /// What waits goes on. The register must have said what the journal says.
    pub(super) fn finding(&mut self, number: u64, time: UtcNanos, event: &FindingEvent) {
        let Some(waiting) = self.residency.resume(event.event, event.id) else {
            return;
        };
        let known = self.books.find(event.id);
        if let Some(wrong) = self.wrong_in(event, known) {
            self.find(format!(
                "event {number}: the register says of payment {} {wrong}",
                event.id
            ));
        }
        match waiting {
            Waiting::Request(body, digest) if body.id != event.id => {
                self.new_payment(number, time, &body, digest, true);
            }
            Waiting::Request(_, digest) => match known {
                Some(at) => self.known_request(at, digest),
                None => self.not_remembered(Code::DateNotOpen),
            },
            Waiting::Reply(sender, body) => self.word_of_bank(number, sender, &body),
        }
    }

    /// What the register has wrong about a payment.
    fn wrong_in(&self, event: &FindingEvent, known: Option<usize>) -> Option<String> {
        let payment = known.map(|at| &self.books.payments[at]);
        let (payment, entry) = match (payment, event.facts()) {
            (None, None) => return None,
            (Some(_), None) => return Some("that there is none".to_owned()),
            (None, Some(_)) => return Some("what it was, and there is none".to_owned()),
            (Some(payment), Some(entry)) => (payment, entry),
        };
        let window = self.books.windows.get(payment.window as usize);
        let window = window.map_or(WindowId::NONE, |window| window.id);
        let same = entry.digest == payment.digest
            && entry.amount_minor == payment.amount
            && (entry.responder, entry.currency, entry.kind) == (payment.responder, payment.currency.0, payment.kind)
            && (entry.state, entry.code) == (payment.state as u8, payment.code as u8)
            && entry.window == window;
        (!same).then(|| format!("other than the journal: {entry:?}"))
    }

    /// Days up to the date are over: what was taken back long ago is forgotten.
    pub(super) fn day_sealed(&mut self, time: UtcNanos, event: &DaySealedEvent) {
        let date = event.date;
        let is_over = date < time.business_date() && !time.is_open_date(date);
        let mut payments = self.books.payments.iter();
        let any_open = payments.any(|payment| !payment.state.is_final() && payment.id.date() <= date);
        if !is_over || any_open || date <= self.residency.sealed() {
            return;
        }
        self.residency.seal(date);
        let refund_days = self.books.scheme.map_or(0, |scheme| scheme.refund_days);
        let today = time.business_date().day_number();
        let first = BusinessDate::from_day_number(today.saturating_sub(refund_days.into())).min(date);
        for (at, reversal) in &mut self.books.reversals {
            let is_old = self.books.payments[*at as usize].id.date() < first;
            if is_old && *reversal == Reversal::Acknowledged {
                *reversal = Reversal::Forgotten;
            }
        }
    }
}
