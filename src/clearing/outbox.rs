//! The outbox: which words a participant has been told, by number, so that any of them can be told again.

use crate::domain::PaymentSlot;

/// What a word was about; two bits of an outbox entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum WordKind {
    Answer = 0,
    DuplicateAnswer = 1,
    Reversal = 2,
    FinalNotice = 3,
}

const BLOCK_WORDS: usize = 2_048;
const SLOT_BITS: u32 = 30;

/// One participant's words, numbered from 1: four bytes a word, in blocks, so that growth never copies.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    blocks: Vec<Box<[u32; BLOCK_WORDS]>>,
    count: u64,
}

impl Outbox {
    /// The number the next word will have.
    pub(super) fn next_word(&self) -> u64 {
        self.count + 1
    }

    /// Notes a word and gives its number.
    #[inline]
    pub(super) fn push(&mut self, kind: WordKind, slot: PaymentSlot) -> u64 {
        assert!(slot.0 < 1 << SLOT_BITS, "slot {} does not fit an outbox entry", slot.0);
        let at = self.count as usize % BLOCK_WORDS;
        if at == 0 {
            self.blocks.push(Box::new([0; BLOCK_WORDS]));
        }
        let block = self.blocks.last_mut().expect("a block was just made sure of");
        block[at] = ((kind as u32) << SLOT_BITS) | slot.0;
        self.count += 1;
        self.count
    }

    /// The word with this number.
    pub(super) fn get(&self, word: u64) -> Option<(WordKind, PaymentSlot)> {
        if word == 0 || word > self.count {
            return None;
        }
        let index = (word - 1) as usize;
        let entry = self.blocks[index / BLOCK_WORDS][index % BLOCK_WORDS];
        let kind = match entry >> SLOT_BITS {
            0 => WordKind::Answer,
            1 => WordKind::DuplicateAnswer,
            2 => WordKind::Reversal,
            _ => WordKind::FinalNotice,
        };
        Some((kind, PaymentSlot(entry & ((1 << SLOT_BITS) - 1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_by_its_number() {
        let mut outbox = Outbox::default();
        for n in 0..5_000u32 {
            let kind = if n % 3 == 0 {
                WordKind::Reversal
            } else {
                WordKind::Answer
            };
            assert_eq!(outbox.push(kind, PaymentSlot(n)), u64::from(n) + 1);
        }
        assert_eq!(outbox.get(5_000), Some((WordKind::Answer, PaymentSlot(4_999))));
        assert_eq!(outbox.get(2_050), Some((WordKind::Reversal, PaymentSlot(2_049))));
        assert_eq!((outbox.get(0), outbox.get(5_001)), (None, None));
    }
}
