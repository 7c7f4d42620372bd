//! What left the switch, as the participants heard it.

use std::collections::{BTreeMap, BTreeSet};

use clearway::domain::{Code, ParticipantIndex, PaymentId, WindowId};
use clearway::wire::{Answer, AnswerFlags};

use crate::directory::PARTICIPANTS;

/// A final answer as its initiator first heard it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Final {
    pub(crate) code: u8,
    pub(crate) state: u8,
    pub(crate) window: WindowId,
    pub(crate) final_ns: u64,
}

/// What left the switch, as the participants would have it.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) forwarded: BTreeMap<u32, PaymentId>,
    pub(crate) forwarded_ids: BTreeSet<PaymentId>,
    pub(crate) released: BTreeSet<u32>,
    pub(crate) answered: BTreeMap<PaymentId, Final>,
    /// By participant, how many words.
    pub(crate) words: [u64; PARTICIPANTS as usize],
}

impl Told {
    pub(crate) fn word(&mut self, to: ParticipantIndex, word: u64) {
        let words = &mut self.words[to.index()];
        *words += 1;
        assert_eq!(word, *words, "words to participant {to} are numbered without a gap");
    }

    pub(crate) fn answer(&mut self, to: ParticipantIndex, answer: &Answer) {
        assert_eq!(to, answer.id.originator(), "an answer goes to the payment's initiator");
        let told = Final {
            code: answer.code,
            state: answer.state,
            window: answer.window,
            final_ns: answer.final_ns,
        };
        let committed = answer.code == Code::Committed as u8;
        assert_eq!(committed, answer.window != WindowId::NONE, "{answer:?}");
        if answer.word == 0 {
            let unnumbered = [Code::InProgress, Code::DateNotOpen, Code::IdReused].map(|code| code as u8);
            assert!(unnumbered.contains(&answer.code), "{answer:?} should be numbered");
            return;
        }
        self.word(to, answer.word);
        let first = if answer.flags & AnswerFlags::DUPLICATE == 0 {
            self.answered.insert(answer.id, told)
        } else {
            let first = self.answered.get(&answer.id).copied();
            assert_eq!(first, Some(told), "a repeated answer says what the first said");
            None
        };
        assert_eq!(first, None, "payment {} has a second final answer: {told:?}", answer.id);
    }
}
