//! Questions to the engine that are not events: inquiries, words to be told again, snapshots for operators.

use super::engine::Engine;
use super::figures::Success;
use super::finding::Known;
use super::participant::Participant;
use super::reversal::{ReversalState, reversal_frame};
use crate::domain::{
    Amount, Currency, Kind, LinkId, ParticipantIndex, PaymentId, PaymentSlot, Position, SchemeCode, UtcNanos, WindowId,
    WindowState,
};
use crate::wire::{EffectFrame, InquiryAnswer, WordKind, unknown_payment};

/// Where what was asked for is found.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "handed on at once")]
pub enum Recalled {
    /// The engine has it.
    Frame(EffectFrame),
    /// The payment has gone from the engine: the register has it, or nobody.
    InRegister,
}

impl Recalled {
    /// The frame, where the engine has it.
    #[must_use]
    pub fn frame(self) -> Option<EffectFrame> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::InRegister => None,
        }
    }
}

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
    /// The level that its alarm has come to, basis points of the cap; 0 = none.
    pub level_bp: u16,
    /// Whether it may not initiate or be asked: bits of [`crate::domain::ParticipantTerms`].
    pub suspended: u8,
    /// Its accounts, in the order of the scheme's currencies.
    pub accounts: Vec<AccountSnapshot>,
    /// How its payments ended.
    pub success: Success,
}

/// An account as an operator sees it; sums in minor units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccountSnapshot {
    /// The currency.
    pub currency: Currency,
    /// Debits − credits over all windows not yet settled.
    pub position: Position,
    /// Σ of open payments it will owe.
    pub reserved: Position,
    /// What it joined with.
    pub opening: Position,
    /// Σ of what approved orders brought in.
    pub brought_in: Position,
    /// Σ of what approved orders took out.
    pub taken_out: Position,
    /// Σ of the nets of settled windows.
    pub settled: Position,
    /// Opening + brought in − taken out − settled.
    pub cover: Position,
    /// Usable part of the cover.
    pub cap: Position,
    /// The level that its alarm has come to, basis points of the cap; 0 = none.
    pub level_bp: u16,
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
    /// Its nets are kept: those of the windows settled long ago are not.
    pub has_nets: bool,
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
    /// The invariant that broke, in words; intake is stopped then.
    pub breach: Option<String>,
}

impl Engine {
    /// Answers an inquiry from the state at the last event applied. A payment of others is unknown to the asker.
    #[must_use]
    pub fn inquire(&self, participant: ParticipantIndex, link: LinkId, id: PaymentId, reference: u64) -> Recalled {
        let unknown = unknown_payment(id, reference);
        let answer = match self.known(id) {
            Known::Away => return Recalled::InRegister,
            Known::Nowhere => unknown,
            Known::Resident(slot) => {
                let payment = &self.payments[slot];
                if payment.initiator() == participant || payment.responder == participant {
                    InquiryAnswer {
                        amount_minor: payment.amount_minor,
                        window: payment.window(),
                        final_ns: payment.final_ns(),
                        currency: payment.currency().0,
                        kind: payment.kind,
                        code: payment.code,
                        state: payment.state,
                        ..unknown
                    }
                } else {
                    unknown
                }
            }
        };
        Recalled::Frame(EffectFrame::new(participant, link, &answer))
    }

    /// The number the next word toward a participant will have.
    #[must_use]
    pub fn next_word(&self, participant: ParticipantIndex) -> u64 {
        self.participants
            .get(participant.index())
            .map_or(1, |p| p.outbox.next_word())
    }

    /// A word told before, as a retransmission by `link`; `None` if there was none of this number.
    #[must_use]
    pub fn word_again(&self, participant: ParticipantIndex, link: LinkId, word: u64) -> Option<Recalled> {
        let kept = self.participants.get(participant.index())?.outbox.get(word)?;
        if let Some(reversal) = self.reversals.by_word(participant, word) {
            let frame = reversal_frame(reversal, true);
            return Some(Recalled::Frame(EffectFrame::new(participant, link, &frame)));
        }
        let held = kept.and_then(|kept| {
            let (slot, generation) = kept.about?;
            let same = self.payments.generation(slot) == generation;
            #[cfg(test)]
            let same = same || self.gets_wrong(super::fault::Fault::TellWordOfSlot);
            same.then_some((kept.kind, slot))
        });
        let Some((kind, slot)) = held else {
            return Some(Recalled::InRegister);
        };
        let flags = kind.flags_again();
        match kind {
            WordKind::Answer | WordKind::DuplicateAnswer => {
                let answer = self.final_answer(slot, word, flags);
                Some(Recalled::Frame(EffectFrame::new(participant, link, &answer)))
            }
            WordKind::FinalNotice => {
                let notice = self.payments[slot].final_notice(word, flags);
                Some(Recalled::Frame(EffectFrame::new(participant, link, &notice)))
            }
            WordKind::Reversal => Some(Recalled::InRegister),
        }
    }

    /// The first payments in doubt, in the order of their acceptance, at most `limit`.
    #[must_use]
    pub fn in_doubt(&self, limit: usize) -> Vec<InDoubtSnapshot> {
        let first = self.doubtful.iter().take(limit);
        first
            .map(|&(_, slot)| {
                let payment = &self.payments[PaymentSlot(slot)];
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

    /// The bank of a payment that the engine holds.
    #[must_use]
    pub fn responder(&self, id: PaymentId) -> Option<ParticipantIndex> {
        match self.known(id) {
            Known::Resident(slot) => Some(self.payments[slot].responder),
            Known::Away | Known::Nowhere => None,
        }
    }

    /// How a participant's payments ended; nothing of one that is not in the directory.
    #[must_use]
    pub fn success(&self, participant: ParticipantIndex) -> Success {
        self.participants
            .get(participant.index())
            .map_or_else(Success::default, |p| p.success)
    }

    fn accounts_of(&self, participant: &Participant) -> Vec<AccountSnapshot> {
        let accounts = participant.accounts.iter().zip(&participant.books);
        let accounts = accounts.zip(self.scheme.currencies);
        let open = accounts.filter(|((account, _), _)| account.open);
        open.map(|((account, book), currency)| AccountSnapshot {
            currency: Currency(currency),
            position: account.position,
            reserved: account.reserved,
            opening: book.opening,
            brought_in: book.brought_in,
            taken_out: book.taken_out,
            settled: book.settled,
            cover: account.cover,
            cap: account.cap,
            level_bp: account.level_bp(),
        })
        .collect()
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
                level_bp: p.accounts[0].level_bp(),
                suspended: p.terms.suspended,
                accounts: self.accounts_of(p),
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
                has_nets: !w.nets.is_empty(),
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
            breach: self.breach().map(ToString::to_string),
        }
    }
}
