//! Which connection numbers are free.
//!
//! A number that becomes free while completions are gathered is given again only after the next gather began: the
//! caller has then seen its `Closed`, and can't mean the old connection with it any more.

/// Free connection numbers, the lowest first after start.
#[derive(Debug)]
pub(super) struct Numbers {
    free: Vec<u32>,
    resting: Vec<u32>,
}

impl Numbers {
    /// Numbers `0..count`.
    pub(super) fn new(count: u32) -> Self {
        Self {
            free: (0..count).rev().collect(),
            resting: Vec::with_capacity(count as usize),
        }
    }

    /// A free number, if there is one.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives a number back; it rests until [`Numbers::begin_gather`].
    pub(super) fn give(&mut self, number: u32) {
        self.resting.push(number);
    }

    /// The caller has seen all that was handed over.
    pub(super) fn begin_gather(&mut self) {
        self.free.append(&mut self.resting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_rests_until_its_end_was_seen() {
        let mut numbers = Numbers::new(1);
        let number = numbers.take().unwrap();
        numbers.give(number);
        assert_eq!(numbers.take(), None);
        numbers.begin_gather();
        assert_eq!(numbers.take(), Some(0));
    }
}
