//! A register in the simplest form there is: what the engine says as payments become final, and who waits for it.

use std::collections::BTreeMap;

use clearway::clearing::{Outlet, Recalled};
use clearway::domain::{ParticipantIndex, PaymentId, UtcNanos};
use clearway::register::FiledWord;
use clearway::wire::{
    Effect, EffectFrame, FindingEvent, Frame, InquiryAnswer, LookUp, PaymentBody, RegisterEntry, WordEntry, WordKind,
    unknown_payment,
};

use crate::ledgers::{LINK, Ledgers};

/// What the engine has told the register, and what it has asked and was not told yet.
#[derive(Default)]
pub(crate) struct Register {
    entries: BTreeMap<PaymentId, RegisterEntry>,
    words: BTreeMap<(u16, u64), WordEntry>,
    /// Reversals that the engine has forgotten.
    forgotten: BTreeMap<(u16, u64), FiledWord>,
    pub(crate) asked: Vec<LookUp>,
    /// The request that each event brought.
    pub(crate) requests: BTreeMap<u64, PaymentBody>,
}

impl Register {
    pub(crate) fn finding(&self, look_up: LookUp) -> FindingEvent {
        FindingEvent::new(look_up, self.entries.get(&look_up.id))
    }

    /// How many look-ups were asked and how many payments were told.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The effects of one event; what the register is told goes there.
pub(crate) struct Heard<'a> {
    pub(crate) effects: Vec<Effect>,
    pub(crate) register: &'a mut Register,
}

impl Outlet for Heard<'_> {
    fn emit(&mut self, effect: Effect) {
        if let Effect::LookUp(look_up) = &effect {
            self.register.asked.push(*look_up);
        }
        self.effects.push(effect);
    }

    fn keeps_register(&self) -> bool {
        true
    }

    fn registered(&mut self, entry: &RegisterEntry) {
        let before = self.register.entries.insert(entry.id, *entry);
        assert_eq!(before, None, "{} became final twice", entry.id);
    }

    fn worded(&mut self, word: &WordEntry) {
        let key = (word.participant.0, word.number);
        assert_eq!(self.register.words.insert(key, *word), None, "a number given twice");
    }

    fn forgotten(&mut self, word: &WordEntry, raised: UtcNanos) {
        let key = (word.participant.0, word.number);
        let told = &self.register.words[&key];
        assert_eq!((told.id, told.kind), (word.id, WordKind::Reversal as u8));
        let filed = FiledWord {
            word: *word,
            time: raised,
        };
        assert_eq!(self.register.forgotten.insert(key, filed), None, "forgotten twice");
    }
}

impl Ledgers {
    /// What the initiator is told who asks, by the engine or, of what has gone, by the register.
    pub(crate) fn inquire(&self, id: PaymentId) -> InquiryAnswer {
        match self.engine.inquire(id.originator(), LINK, id, 0) {
            Recalled::Frame(frame) => InquiryAnswer::read(&frame.bytes),
            Recalled::InRegister => match self.register.entries.get(&id) {
                Some(entry) => entry.inquiry_answer(id.originator(), 0),
                None => unknown_payment(id, 0),
            },
        }
    }

    /// A word told again, by the engine or by the register.
    pub(crate) fn word_again(&self, to: ParticipantIndex, word: u64) -> EffectFrame {
        match self.engine.word_again(to, LINK, word).expect("it was told") {
            Recalled::Frame(frame) => frame,
            Recalled::InRegister => {
                let entry = self.register.words[&(to.0, word)];
                let payment = self.register.entries[&entry.id];
                let kind = WordKind::from_u8(entry.kind).expect("the engine alone writes kinds");
                let flags = kind.flags_again();
                match kind {
                    WordKind::Answer | WordKind::DuplicateAnswer => {
                        EffectFrame::new(to, LINK, &payment.answer(word, flags))
                    }
                    WordKind::FinalNotice => EffectFrame::new(to, LINK, &payment.final_notice(word, flags)),
                    WordKind::Reversal => {
                        let filed = &self.register.forgotten[&(to.0, word)];
                        filed.frame(&payment, LINK).expect("a kind that there is")
                    }
                }
            }
        }
    }
}
