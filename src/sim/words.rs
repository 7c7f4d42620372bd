//! Which words of the switch a participant has: each once, none missed.

use std::collections::BTreeSet;

/// How long a gap may stand before the words in it are asked for again: links of one participant may overtake each
/// other.
const GAP_PATIENCE_NS: u64 = 1_000_000_000;

/// The words one participant has.
#[derive(Clone, Debug, Default)]
pub struct WordTracker {
    contiguous: u64,
    ahead: BTreeSet<u64>,
    announced: u64,
    gap_since_ns: Option<u64>,
}

impl WordTracker {
    /// The highest word below which none is missing.
    #[must_use]
    pub const fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// True when no word is missing, as far as the switch has said.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.ahead.is_empty() && self.announced <= self.contiguous
    }

    /// Leaves all words below `next_word` aside: they were said before this run.
    pub fn start_at(&mut self, next_word: u64) {
        self.contiguous = self.contiguous.max(next_word.saturating_sub(1));
        self.announced = self.announced.max(self.contiguous);
    }

    /// Takes a word; false when it was here before and must be ignored.
    #[inline]
    pub fn take(&mut self, word: u64) -> bool {
        if word == self.contiguous + 1 {
            self.contiguous = word;
            while self.ahead.first() == Some(&(self.contiguous + 1)) {
                self.contiguous += 1;
                self.ahead.pop_first();
            }
            return true;
        }
        word > self.contiguous && self.ahead.insert(word)
    }

    /// The switch says which number its next new word will have.
    pub fn announce(&mut self, next_word: u64) {
        self.announced = self.announced.max(next_word.saturating_sub(1));
    }

    /// The words to ask for again, first and count, when a gap has stood too long. Called now and then.
    pub fn overdue_gap(&mut self, now_ns: u64) -> Option<(u64, u32)> {
        let known = self.ahead.last().copied().unwrap_or(0).max(self.announced);
        if known <= self.contiguous {
            self.gap_since_ns = None;
            return None;
        }
        let since = *self.gap_since_ns.get_or_insert(now_ns);
        if now_ns - since < GAP_PATIENCE_NS {
            return None;
        }
        self.gap_since_ns = Some(now_ns);
        let end = self.ahead.first().copied().unwrap_or(known + 1);
        let count = u32::try_from(end - self.contiguous - 1).unwrap_or(u32::MAX);
        Some((self.contiguous + 1, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_once_in_whatever_order_it_comes() {
        let mut words = WordTracker::default();
        let taken: Vec<bool> = [1, 3, 3, 2, 1, 4].iter().map(|&word| words.take(word)).collect();
        assert_eq!(taken, [true, true, false, true, false, true]);
        assert_eq!(words.contiguous(), 4);
    }

    #[test]
    fn a_gap_is_asked_for_after_a_second_and_again_each_second() {
        let mut words = WordTracker::default();
        words.take(1);
        words.take(4);
        assert_eq!(words.overdue_gap(10), None);
        assert_eq!(words.overdue_gap(999_999_999), None);
        assert_eq!(words.overdue_gap(1_000_000_010), Some((2, 2)));
        assert_eq!(words.overdue_gap(1_500_000_000), None);
        words.take(2);
        assert_eq!(words.overdue_gap(2_100_000_000), Some((3, 1)));
        words.take(3);
        assert_eq!(words.overdue_gap(9_000_000_000), None);
    }

    #[test]
    fn words_lost_at_the_end_are_noticed_by_the_heartbeat() {
        let mut words = WordTracker::default();
        words.start_at(8);
        words.announce(11);
        assert_eq!(words.overdue_gap(0), None);
        assert_eq!(words.overdue_gap(2_000_000_000), Some((8, 3)));
    }
}
