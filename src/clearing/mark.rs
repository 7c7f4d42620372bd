//! The state's mark: cheap enough to be taken while payments flow, so that two engines fed with the same events can be
//! held against each other all the time. The state hash is for a snapshot; this is for every few moments.

use super::engine::Engine;
use super::payment::PaymentRecord;

const FACTORS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F];

/// A running digest: order counts. It tells two engines' histories apart where they differ by accident; it is no proof
/// against somebody who chooses them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Digest(pub(super) u64);

impl Digest {
    /// Takes in two words: a folded multiplication.
    #[inline]
    pub(super) fn add(&mut self, first: u64, second: u64) {
        let product = u128::from(self.0 ^ first ^ FACTORS[0]) * u128::from(second ^ FACTORS[1]);
        self.0 = product as u64 ^ (product >> 64) as u64 ^ self.0.rotate_left(23);
    }

    fn add_sum(&mut self, sum: i128) {
        self.add(sum as u64, (sum >> 64) as u64);
    }

    /// Takes in a payment that has just become final.
    #[inline]
    pub(super) fn add_final(&mut self, payment: &PaymentRecord) {
        let outcome = u64::from(payment.state) | u64::from(payment.code) << 8;
        self.add(payment.id.high, payment.id.low);
        self.add(
            payment.digest ^ payment.time_ns,
            payment.expiry_or_window ^ outcome << 48,
        );
    }
}

/// What an engine had become after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateMark {
    /// The event's number.
    pub event: u64,
    /// Over the accounts, the open windows, the counts, the words' numbers, and every payment as it became
    /// final.
    pub digest: u64,
}

impl Engine {
    /// The mark of the state after the last event, in time proportional to the number of participants.
    #[must_use]
    pub fn state_mark(&self) -> StateMark {
        let mut digest = self.digest;
        digest.add(self.event_number, self.time.0);
        digest.add_sum(self.open_sum);
        for participant in &self.participants {
            for account in participant.accounts.iter().filter(|account| account.open) {
                for sum in [account.position, account.reserved, account.cover, account.cap] {
                    digest.add_sum(sum);
                }
                digest.add(account.level.into(), 0);
            }
            digest.add(participant.outbox.next_word(), u64::from(participant.terms.index.0));
        }
        for window in self.windows.open_ones() {
            digest.add(window.id.0, window.committed);
            digest.add_sum(window.gross);
            for net in &window.nets {
                digest.add_sum(*net);
            }
        }
        let figures = &self.figures;
        digest.add(figures.accepted, figures.reserved);
        digest.add(figures.in_doubt, figures.committed);
        digest.add(figures.declined, figures.rejected);
        digest.add(figures.expired, figures.parked);
        digest.add(figures.duplicates, figures.ids_reused);
        digest.add(figures.late_words, figures.conflicts);
        digest.add(figures.status_requests, figures.not_taken);
        digest.add(figures.look_ups, figures.replies_refused);
        digest.add(u64::from(self.payments.cursor()), self.payments.taken());
        digest.add(u64::from(self.sealed.0), self.index.len() as u64);
        digest.add(self.orders.proposals().len() as u64, u64::from(self.breach.is_some()));
        StateMark {
            event: self.event_number,
            digest: digest.0,
        }
    }
}
