//! Questions to the engine that are not events: inquiries, words to be told again, snapshots for operators.

use super::engine::Engine;
use super::figures::Success;
use super::outbox::WordKind;
use super::reversal::{ReversalState, reversal_frame};
use crate::domain::{
    Amount, Code, Currency, Kind, LinkId, ParticipantIndex, PaymentId, Position, SchemeCode, UtcNanos, WindowId,
    WindowState,
};
use crate::wire::{AnswerFlags, EffectFrame, Frame, FrameHeader, InquiryAnswer};

/// A participant as an operator sees it; sums in minor units of the scheme's first currency.
#[derive(Clone, Debug)]
pub struct ParticipantSnapshot {
    /// Dense number.
    pub index: ParticipantIndex,
    /// Public code.
    pub code: SchemeCode,
    /// Debits − credits over all windows not yet settled.
    pub position: Position,
    /// Σ of open payments it will owe.
    pub reserved: Position,
    /// Prefunded.
    pub cover: Position,
    /// Usable part of the cover.
    pub cap: Position,
    /// How its payments ended.
    pub success: Success,
}

/// A payment in doubt as an operator sees it.
#[derive(Clone, Debug)]
pub struct InDoubtSnapshot {
    /// The payment.
    pub payment: PaymentId,
    /// The bank that is asked.
    pub responder: ParticipantIndex,
    /// What it is.
    pub kind: Kind,
    /// Its amount; 0 where no money moves.
    pub amount: Amount,
    /// Its currency.
    pub currency: Currency,
    /// When it was accepted.
    pub accepted: UtcNanos,
    /// Status requests raised since it came in doubt.
    pub attempts: u8,
    /// T2: when it expires, unless the bank answers before.
    pub expires: UtcNanos,
}

/// A window as an operator sees it.
#[derive(Clone, Debug)]
pub struct WindowSnapshot {
    /// Its id.
    pub id: WindowId,
    /// ISO 4217 numeric.
    pub currency: u16,
    /// Its state.
    pub state: WindowState,
    /// When it opened.
    pub opened: UtcNanos,
    /// When it closed; 0 while open.
    pub closed: UtcNanos,
    /// Payments committed in it.
    pub committed: u64,
    /// Σ of their amounts.
    pub gross: Position,
    /// Debits − credits of each participant that has any.
    pub nets: Vec<(ParticipantIndex, Position)>,
}

/// The ledger as an operator sees it.
#[derive(Clone, Debug)]
pub struct LedgerSnapshot {
    /// The last event applied.
    pub event_number: u64,
    /// Its time.
    pub time: UtcNanos,
    /// Every participant.
    pub participants: Vec<ParticipantSnapshot>,
    /// Every window.
    pub windows: Vec<WindowSnapshot>,
    /// Reversals not yet acknowledged, and those an operator must see to.
    pub reversals_open: [u64; 2],
}

impl Engine {
    /// Answers an inquiry from the state at the last event applied. A payment of others is unknown to the asker.
    #[must_use]
    pub fn inquire(&self, participant: ParticipantIndex, link: LinkId, id: PaymentId, reference: u64) -> EffectFrame {
        let header = FrameHeader::new(InquiryAnswer::TEMPLATE, size_of::<InquiryAnswer>());
        let known = self.find(id).map(|(_, payment)| payment);
        let answer = match known.filter(|p| p.initiator() == participant || p.responder == participant) {
            None => InquiryAnswer {
                header,
                id,
                reference,
                amount_minor: 0,
                window: WindowId::NONE,
                final_ns: 0,
                currency: 0,
                kind: 0,
                code: Code::OriginalNotFound as u8,
                state: 0,
                reserved: [0; 11],
            },
            Some(payment) => InquiryAnswer {
                header,
                id,
                reference,
                amount_minor: payment.amount_minor,
                window: payment.window(),
                final_ns: payment.final_ns(),
                currency: payment.currency().0,
                kind: payment.kind,
                code: payment.code,
                state: payment.state,
                reserved: [0; 11],
            },
        };
        EffectFrame::new(participant, link, &answer)
    }

    /// The number the next word toward a participant will have.
    #[must_use]
    pub fn next_word(&self, participant: ParticipantIndex) -> u64 {
        self.participants
            .get(participant.index())
            .map_or(1, |p| p.outbox.next_word())
    }

    /// A word told before, as a retransmission by `link`.
    #[must_use]
    pub fn word_again(&self, participant: ParticipantIndex, link: LinkId, word: u64) -> Option<EffectFrame> {
        let (kind, slot) = self.participants.get(participant.index())?.outbox.get(word)?;
        let payment = &self.payments[slot.index()];
        match kind {
            WordKind::Answer => {
                let answer = self.final_answer(slot, word, AnswerFlags::RETRANSMITTED);
                Some(EffectFrame::new(participant, link, &answer))
            }
            WordKind::DuplicateAnswer => {
                let answer = self.final_answer(slot, word, AnswerFlags::DUPLICATE | AnswerFlags::RETRANSMITTED);
                Some(EffectFrame::new(participant, link, &answer))
            }
            WordKind::Reversal => {
                let frame = reversal_frame(payment, self.reversals.get(slot)?, true);
                Some(EffectFrame::new(participant, link, &frame))
            }
            WordKind::FinalNotice => {
                let notice = payment.final_notice(word, AnswerFlags::RETRANSMITTED);
                Some(EffectFrame::new(participant, link, &notice))
            }
        }
    }

    /// The first payments in doubt, in the order of their acceptance, at most `limit`.
    #[must_use]
    pub fn in_doubt(&self, limit: usize) -> Vec<InDoubtSnapshot> {
        let first = self.doubtful.iter().take(limit);
        first
            .map(|&slot| {
                let payment = &self.payments[slot as usize];
                InDoubtSnapshot {
                    payment: payment.id,
                    responder: payment.responder,
                    kind: Kind::from_u8(payment.kind).expect("an open payment's kind was checked at admission"),
                    amount: payment.amount(),
                    currency: payment.currency(),
                    accepted: UtcNanos(payment.time_ns),
                    attempts: payment.attempts,
                    expires: payment.expiry(),
                }
            })
            .collect()
    }

    /// The bank of a payment that the ledger knows.
    #[must_use]
    pub fn responder(&self, id: PaymentId) -> Option<ParticipantIndex> {
        self.find(id).map(|(_, payment)| payment.responder)
    }

    /// How a participant's payments ended; nothing of one that is not in the directory.
    #[must_use]
    pub fn success(&self, participant: ParticipantIndex) -> Success {
        self.participants
            .get(participant.index())
            .map_or_else(Success::default, |p| p.success)
    }

    /// The ledger as an operator sees it.
    #[must_use]
    pub fn snapshot(&self) -> LedgerSnapshot {
        let participants = self
            .participants
            .iter()
            .map(|p| ParticipantSnapshot {
                index: p.terms.index,
                code: p.terms.code,
                position: p.accounts[0].position,
                reserved: p.accounts[0].reserved,
                cover: p.accounts[0].cover,
                cap: p.accounts[0].cap,
                success: p.success,
            })
            .collect();
        let windows = self
            .windows
            .iter()
            .map(|w| WindowSnapshot {
                id: w.id,
                currency: w.currency,
                state: w.state,
                opened: w.opened,
                closed: w.closed,
                committed: w.committed,
                gross: w.gross,
                nets: (0u16..)
                    .zip(&w.nets)
                    .filter(|(_, net)| **net != 0)
                    .map(|(index, &net)| (ParticipantIndex(index), net))
                    .collect(),
            })
            .collect();
        LedgerSnapshot {
            event_number: self.event_number,
            time: self.time,
            participants,
            windows,
            reversals_open: [
                self.reversals.count(ReversalState::Due),
                self.reversals.count(ReversalState::Manual),
            ],
        }
    }
}
