//! The duplicate index: payment id → slot. Derived data, not part of the state hash.
//!
//! 4,096 shards that grow one at a time, each entry eight bytes (slot and 32 bits of hash), so that growth rehashes
//! without touching a payment record and never pauses the engine for longer than one small shard takes.

use hashbrown::HashTable;

use crate::domain::{PaymentId, PaymentSlot};

const SHARD_BITS: u32 = 12;

/// Payment id → slot.
#[derive(Debug)]
pub(super) struct DuplicateIndex {
    shards: Box<[HashTable<Entry>]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u32,
    tag: u32,
}

impl Entry {
    fn table_hash(tag: u32) -> u64 {
        u64::from(tag).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

impl DuplicateIndex {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..1 << SHARD_BITS).map(|_| HashTable::new()).collect(),
        }
    }

    #[inline]
    fn hash(id: PaymentId) -> (usize, u32) {
        let product = u128::from(id.high ^ 0xA076_1D64_78BD_642F) * u128::from(id.low ^ 0xE703_7ED1_A0B4_28DB);
        let folded = (product as u64 ^ (product >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((folded >> (64 - SHARD_BITS)) as usize, (folded >> 16) as u32)
    }

    /// The slot of `id`; `matches` tells whether the payment in a slot really has it.
    #[inline]
    pub(super) fn find(&self, id: PaymentId, matches: impl Fn(PaymentSlot) -> bool) -> Option<PaymentSlot> {
        let (shard, tag) = Self::hash(id);
        self.shards[shard]
            .find(Entry::table_hash(tag), |e| e.tag == tag && matches(PaymentSlot(e.slot)))
            .map(|e| PaymentSlot(e.slot))
    }

    /// Adds an id that is not in the index.
    #[inline]
    pub(super) fn insert(&mut self, id: PaymentId, slot: PaymentSlot) {
        let (shard, tag) = Self::hash(id);
        let entry = Entry { slot: slot.0, tag };
        self.shards[shard].insert_unique(Entry::table_hash(tag), entry, |e| Entry::table_hash(e.tag));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BusinessDate, ParticipantIndex};

    #[test]
    fn every_id_is_found_and_no_other() {
        let id = |n: u64| {
            let originator = ParticipantIndex((n % 115) as u16);
            PaymentId::new(BusinessDate(20_260_204), originator, (n % 3) as u16, n / 7)
        };
        let mut index = DuplicateIndex::new();
        let mut ids = Vec::new();
        for n in 0..100_000 {
            let slot = PaymentSlot(ids.len() as u32);
            if index.find(id(n), |s| ids[s.index()] == id(n)).is_none() {
                ids.push(id(n));
                index.insert(id(n), slot);
            }
        }
        for (slot, &id) in ids.iter().enumerate() {
            assert_eq!(index.find(id, |s| ids[s.index()] == id), Some(PaymentSlot(slot as u32)));
        }
        let absent = id(10_000_000);
        assert_eq!(index.find(absent, |s| ids[s.index()] == absent), None);
    }
}
