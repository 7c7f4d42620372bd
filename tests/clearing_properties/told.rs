//! What left the switch, as the participants heard it.

use std::collections::{BTreeMap, BTreeSet};

use clearway::domain::{Code, PaymentId, WindowId};
use clearway::wire::{Answer, AnswerFlags, EffectFrame, FinalNotice, Frame, PaymentBody};

use crate::directory::{JOINING_MAX, PARTICIPANTS};

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
    /// Every request that went to its bank.
    pub(crate) bodies: BTreeMap<PaymentId, PaymentBody>,
    pub(crate) released: BTreeSet<u32>,
    pub(crate) answered: BTreeMap<PaymentId, Final>,
    /// The final notices that banks were given.
    pub(crate) noticed: BTreeMap<PaymentId, FinalNotice>,
    /// Mandate tokens that initiators must be given.
    pub(crate) tokens: BTreeMap<PaymentId, [u64; 2]>,
    /// By participant, the words as they were first told.
    pub(crate) words: [Vec<EffectFrame>; (PARTICIPANTS + JOINING_MAX) as usize],
}

impl Told {
    pub(crate) fn word(&mut self, frame: &EffectFrame, word: u64) {
        let words = &mut self.words[frame.to.index()];
        words.push(*frame);
        assert_eq!(
            word,
            words.len() as u64,
            "words to participant {} are numbered without a gap",
            frame.to
        );
    }

    pub(crate) fn notice(&mut self, frame: &EffectFrame) {
        let notice = FinalNotice::read(&frame.bytes);
        let id = notice.id;
        assert_eq!(notice.flags, 0, "{notice:?}");
        assert_eq!(
            frame.to, self.bodies[&id].responder,
            "a notice goes to the payment's bank"
        );
        self.word(frame, notice.word);
        let first = self.noticed.insert(id, notice);
        assert!(first.is_none(), "payment {id} has a second final notice");
    }

    pub(crate) fn answer(&mut self, frame: &EffectFrame, answer: &Answer) {
        let to = frame.to;
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
            let unnumbered =
                [Code::InProgress, Code::DateNotOpen, Code::IdReused, Code::NotTaken].map(|code| code as u8);
            assert!(unnumbered.contains(&answer.code), "{answer:?} should be numbered");
            assert_eq!(answer.mandate_token, [0; 2], "{answer:?}");
            return;
        }
        self.word(frame, answer.word);
        let token = self.tokens.get(&answer.id).copied().unwrap_or_default();
        assert_eq!(answer.mandate_token, token, "{answer:?}");
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
