//! The state hash: BLAKE3 over everything that decides about future events, in an order that depends on events alone.

use std::fmt;

use super::engine::Engine;

/// A hash of the engine's whole state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateHash(pub [u8; 32]);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Engine {
    /// Hashes the state; takes time in proportion to the payments held and what is kept of those that went. The ids of
    /// the duplicate index are in it by the running digest.
    #[must_use]
    pub fn state_hash(&self) -> StateHash {
        self.state_hash_on(1)
    }

    /// The same, on so many threads.
    #[must_use]
    pub fn state_hash_on(&self, threads: usize) -> StateHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"clearway state 5");
        hasher.update(&self.event_number.to_le_bytes());
        hasher.update(&self.time.0.to_le_bytes());
        hasher.update(bytemuck::bytes_of(&self.scheme));
        hasher.update(&self.open_sum.to_le_bytes());
        for participant in &self.participants {
            hasher.update(bytemuck::bytes_of(&participant.terms));
            for account in &participant.accounts {
                for sum in [account.position, account.reserved, account.cover, account.cap] {
                    hasher.update(&sum.to_le_bytes());
                }
                hasher.update(&[account.level, account.open.into()]);
            }
            for book in &participant.books {
                for sum in [book.opening, book.brought_in, book.taken_out, book.settled] {
                    hasher.update(&sum.to_le_bytes());
                }
            }
            hasher.update(&participant.outbox.next_word().to_le_bytes());
        }
        let (date, number) = self.windows.numbering();
        hasher.update(&date.0.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        for window in self.windows.iter() {
            for number in [window.id.0, window.opened.0, window.closed.0, window.committed] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&[window.state as u8, window.currency_slot]);
            hasher.update(&window.gross.to_le_bytes());
            for net in &window.nets {
                hasher.update(&net.to_le_bytes());
            }
        }
        for proposal in self.orders.proposals() {
            hasher.update(bytemuck::bytes_of(&proposal.row()));
        }
        for outcome in self.orders.outcomes() {
            hasher.update(bytemuck::bytes_of(&outcome.row()));
        }
        hasher.update(bytemuck::bytes_of(&self.tally));
        if let Some(breach) = &self.breach {
            hasher.update(bytemuck::bytes_of(&breach.row()));
        }
        for reversal in self.reversals.iter() {
            hasher.update(&[reversal.state as u8, reversal.attempts]);
            hasher.update(&reversal.raised.0.to_le_bytes());
            hasher.update(&reversal.next.0.to_le_bytes());
            hasher.update(&reversal.word.to_le_bytes());
            hasher.update(bytemuck::bytes_of(&reversal.payment));
        }
        for (original, sum) in self.refunds.sums() {
            hasher.update(bytemuck::bytes_of(&original));
            hasher.update(&sum.to_le_bytes());
        }
        for (refund, original) in self.refunds.open() {
            hasher.update(&refund.to_le_bytes());
            hasher.update(bytemuck::bytes_of(&original));
        }
        for (slot, token) in &self.tokens {
            hasher.update(&slot.to_le_bytes());
            hasher.update(bytemuck::bytes_of(token));
        }
        for item in &self.exceptions {
            hasher.update(bytemuck::bytes_of(&item.payment));
            hasher.update(&[item.what as u8]);
            hasher.update(&item.event.to_le_bytes());
            hasher.update(&item.time.0.to_le_bytes());
        }
        for row in self.parking.rows() {
            hasher.update(bytemuck::bytes_of(&row));
        }
        for number in [self.begun.0, self.sealed.0, self.payments.cursor()] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [self.payments.taken(), self.index.len() as u64, self.digest.0] {
            hasher.update(&number.to_le_bytes());
        }
        // The table is hashed chunk by chunk, each on its own, so that several threads can do it.
        let records = self.payments.records().chunks().map(bytemuck::cast_slice);
        let places = self.payments.places().chunks().map(bytemuck::cast_slice);
        for hash in hashes(&records.chain(places).collect::<Vec<_>>(), threads) {
            hasher.update(hash.as_bytes());
        }
        StateHash(*hasher.finalize().as_bytes())
    }
}

/// The BLAKE3 of each of `chunks`.
fn hashes(chunks: &[&[u8]], threads: usize) -> Vec<blake3::Hash> {
    if threads <= 1 {
        return chunks.iter().map(|chunk| blake3::hash(chunk)).collect();
    }
    let share = chunks.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let work: Vec<_> = chunks
            .chunks(share)
            .map(|share| scope.spawn(|| hashes(share, 1)))
            .collect();
        let joined = work.into_iter().map(|hashes| hashes.join());
        joined
            .flat_map(|hashes| hashes.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
