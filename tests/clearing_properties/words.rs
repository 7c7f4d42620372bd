//! Every word once, of the right payments, and the same whenever it is told.

use bytemuck::bytes_of;
use clearway::domain::{Code, Direction, Kind, ParticipantIndex, PaymentState};
use clearway::wire::{Answer, AnswerFlags, EffectFrame, FinalNotice, Frame, Reversal, Template};

use crate::ledgers::Ledgers;
use crate::told::Final;

impl Ledgers {
    /// What an initiator was told is what the ledger says, and every word can be told again.
    pub(crate) fn check_words(&self) {
        for (id, told) in &self.told.answered {
            let now = self.inquire(*id);
            let now = Final {
                code: now.code,
                state: now.state,
                window: now.window,
                final_ns: now.final_ns,
            };
            assert_eq!(now, *told, "payment {id} left its final state");
            assert!(PaymentState::from_u8(told.state).is_some_and(PaymentState::is_final));
        }
        for (participant, words) in (0u16..).map(ParticipantIndex).zip(&self.told.words) {
            assert_eq!(self.engine.next_word(participant), words.len() as u64 + 1);
            for (word, told) in (1..).zip(words) {
                assert_same_word(told, &self.word_again(participant, word));
            }
        }
    }

    /// Exactly one notice for each push that was sent and is final, none otherwise, and it says what the ledger says.
    pub(crate) fn check_notices(&self) {
        for (&id, told) in &self.told.answered {
            let not_sent = [Code::LinkDown, Code::OverLinkCapacity].map(|code| code as u8);
            let was_sent = match PaymentState::from_u8(told.state) {
                Some(PaymentState::Committed | PaymentState::Declined) => true,
                Some(PaymentState::Expired) => !not_sent.contains(&told.code),
                Some(PaymentState::Rejected) => false,
                other => panic!("payment {id} was answered as {other:?}"),
            };
            let now = self.inquire(id);
            let is_push = Kind::from_u8(now.kind).is_some_and(|kind| kind.direction() == Direction::Push);
            let notice = self.told.noticed.get(&id);
            assert_eq!(
                notice.is_some(),
                is_push && was_sent,
                "payment {id}, {told:?}: {notice:?}"
            );
            if let Some(notice) = notice {
                assert_eq!(
                    (notice.amount_minor, notice.currency, notice.kind, notice.initiator),
                    (now.amount_minor, now.currency, now.kind, id.originator())
                );
                assert_eq!(
                    (notice.code, notice.state, notice.window, notice.final_ns),
                    (told.code, told.state, told.window, told.final_ns)
                );
            }
        }
        assert!(self.told.noticed.keys().all(|id| self.told.answered.contains_key(id)));
    }
}

/// A word told again is the word told before and says so; a Reversal may have been tried more often since.
fn assert_same_word(told: &EffectFrame, again: &EffectFrame) {
    assert_eq!((told.to, told.template), (again.to, again.template));
    match told.template {
        Template::Answer => {
            let mut first = Answer::read(&told.bytes);
            first.flags |= AnswerFlags::RETRANSMITTED;
            assert_eq!(bytes_of(&first), bytes_of(&Answer::read(&again.bytes)));
        }
        Template::FinalNotice => {
            let mut first = FinalNotice::read(&told.bytes);
            first.flags |= AnswerFlags::RETRANSMITTED;
            assert_eq!(bytes_of(&first), bytes_of(&FinalNotice::read(&again.bytes)));
        }
        Template::Reversal => {
            let (first, again) = (Reversal::read(&told.bytes), Reversal::read(&again.bytes));
            assert_eq!(
                (first.id, first.word, first.amount_minor),
                (again.id, again.word, again.amount_minor)
            );
            assert_eq!(again.flags, AnswerFlags::RETRANSMITTED);
        }
        other => panic!("{other:?} is no word"),
    }
}
