//! The outbox: which words a participant has been told, by number, so that those of payments that the engine holds can
//! be told again from its own memory. All others are in the register.

use std::collections::VecDeque;

use crate::domain::PaymentSlot;
use crate::wire::WordKind;

/// Words in a block.
pub(super) const BLOCK_WORDS: usize = 512;
/// Blocks that are kept in any case.
const BLOCKS_MIN: usize = 4;
const SLOT_BITS: u32 = 30;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// What a word was about: kind, slot and the slot's generation; or a payment that was not held even then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) kind: WordKind,
    /// The payment's slot, and which of the payments that have had it.
    pub(super) about: Option<(PaymentSlot, u32)>,
}

impl Word {
    #[inline]
    fn packed(self) -> u64 {
        let (slot, generation) = self.about.map_or((SLOT_MASK, 0), |(slot, generation)| {
            assert!(
                u64::from(slot.0) < SLOT_MASK,
                "slot {} does not fit an outbox entry",
                slot.0
            );
            (u64::from(slot.0), generation)
        });
        (self.kind as u64) << 62 | slot << 32 | u64::from(generation)
    }

    fn unpacked(entry: u64) -> Self {
        let slot = entry >> 32 & SLOT_MASK;
        Self {
            kind: WordKind::from_u8((entry >> 62) as u8).expect("two bits"),
            about: (slot != SLOT_MASK).then_some((PaymentSlot(slot as u32), entry as u32)),
        }
    }
}

/// Words that were told one after the other: eight bytes a word.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) words: Box<[u64; BLOCK_WORDS]>,
    /// How many payments had been put into the engine's table when its last word was told.
    pub(super) taken: u64,
}

/// One participant's words, numbered from 1, in blocks, so that growth never copies.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    blocks: VecDeque<Block>,
    /// Blocks dropped before the first.
    dropped: u64,
    count: u64,
}

impl Outbox {
    /// An outbox as a snapshot has it; `None` where its parts do not fit each other.
    pub(super) fn restored(count: u64, dropped: u64, blocks: VecDeque<Block>) -> Option<Self> {
        let words = BLOCK_WORDS as u64;
        let fits = dropped.checked_add(blocks.len() as u64) == Some(count.div_ceil(words));
        fits.then_some(Self { blocks, dropped, count })
    }

    /// The number the next word will have.
    pub(super) fn next_word(&self) -> u64 {
        self.count + 1
    }

    /// Notes a word and gives its number. `taken` payments have been put into a table of `bound`.
    #[inline]
    pub(super) fn push(&mut self, word: Word, taken: u64, bound: u32) -> u64 {
        let at = self.count as usize % BLOCK_WORDS;
        if at == 0 {
            self.begin_block(taken, bound);
        }
        let block = self.blocks.back_mut().expect("a block was just made sure of");
        block.words[at] = word.packed();
        block.taken = taken;
        self.count += 1;
        self.count
    }

    /// The word with this number: `None` if there was none, `Some(None)` if it is kept no more.
    pub(super) fn get(&self, word: u64) -> Option<Option<Word>> {
        if word == 0 || word > self.count {
            return None;
        }
        let index = (word - 1) as usize;
        let Some(block) = (index / BLOCK_WORDS).checked_sub(self.dropped as usize) else {
            return Some(None);
        };
        Some(Some(Word::unpacked(self.blocks[block].words[index % BLOCK_WORDS])))
    }

    /// Blocks dropped before the first that is kept.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn blocks(&self) -> &VecDeque<Block> {
        &self.blocks
    }

    /// Begins a block, in the memory of one whose payments have all gone if there is one: a word is told about a final
    /// payment, whose slot is taken anew at the latest when `bound` more have been put in.
    fn begin_block(&mut self, taken: u64, bound: u32) {
        let kept_max = (bound as usize / BLOCK_WORDS + 2).max(BLOCKS_MIN);
        let mut spare = None;
        while let Some(first) = self.blocks.front() {
            // The second bound is for one who has the same answers repeated over and over.
            if first.taken + u64::from(bound) > taken && self.blocks.len() < kept_max {
                break;
            }
            spare = self.blocks.pop_front();
            self.dropped += 1;
        }
        let words = spare.map_or_else(|| Box::new([0; BLOCK_WORDS]), |block| block.words);
        self.blocks.push_back(Block { words, taken });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(n: u32) -> Word {
        let kind = if n.is_multiple_of(3) {
            WordKind::FinalNotice
        } else {
            WordKind::Answer
        };
        Word {
            kind,
            about: Some((PaymentSlot(n), n / 7)),
        }
    }

    #[test]
    fn a_word_is_found_by_its_number_until_its_payment_has_gone_for_certain() {
        let mut outbox = Outbox::default();
        for n in 0..5_000u32 {
            assert_eq!(outbox.push(word(n), u64::from(n), 1 << 20), u64::from(n) + 1);
        }
        assert_eq!(outbox.get(5_000), Some(Some(word(4_999))));
        assert_eq!(outbox.get(513), Some(Some(word(512))));
        assert_eq!((outbox.get(0), outbox.get(5_001)), (None, None));
        let away = Word {
            kind: WordKind::DuplicateAnswer,
            about: None,
        };
        outbox.push(away, 5_000, 1 << 20);
        assert_eq!(outbox.get(5_001), Some(Some(away)));

        // One more table's worth of payments: blocks go as their successors are begun.
        for n in 5_001..20_000u32 {
            outbox.push(word(n), u64::from(n), 4_096);
        }
        assert_eq!(outbox.get(5_000), Some(None));
        assert_eq!(outbox.get(20_000 - 4_096), Some(Some(word(20_000 - 4_097))));
        assert!(outbox.blocks().len() <= 4_096 / BLOCK_WORDS + 2);
    }

    #[test]
    fn answers_repeated_over_and_over_do_not_fill_the_memory() {
        let mut outbox = Outbox::default();
        for n in 0..100_000 {
            outbox.push(word(1), 7, 4_096);
            assert_eq!(outbox.get(n + 1), Some(Some(word(1))));
        }
        assert!(outbox.blocks().len() <= 4_096 / BLOCK_WORDS + 2);
    }
}
