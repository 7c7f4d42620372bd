//! Faults that can be planted in the engine, in tests only: each breaks a promise, and the property tests must find it.
//! A check that finds no planted fault would find no other either.

use std::cell::Cell;

use super::engine::{Engine, Outlet};
use super::finding::Known;
use super::outbox::Word;
use super::payment::PaymentRecord;
use crate::domain::{Kind, ParticipantIndex, PaymentSlot, PaymentState, WindowId, WindowState};
use crate::wire::{OrderOutcome, PaymentBody, WordKind};

/// What the engine gets wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// Invariant 1: a commit is posted to the debtor alone.
    PostOneSide,
    /// Invariant 2: a commit moves the window and not the debtor's position.
    ForgetPosition,
    /// Invariant 2: a settled window lowers cover and cap twice.
    SettleTwice,
    /// Invariant 3: the cap is not looked at.
    AdmitOverCap,
    /// Invariant 4: a commit is stamped with a window that has closed.
    StampClosedWindow,
    /// Invariant 5: what is final stays reserved.
    ForgetRelease,
    /// Invariant 6: a committed payment is answered twice.
    AnswerTwice,
    /// Invariant 8: a word is numbered differently when nobody listens, as in replay.
    DependOnListener,
    /// Invariant 9: a pull expires and nothing is reversed.
    ForgetReversal,
    /// The bank of a declined push is not told.
    ForgetNotice,
    /// A refund is forgotten when it commits, so that its part can be refunded again.
    ForgetRefund,
    /// A refund takes its part of the original twice.
    CountRefundTwice,
    /// A mandate's token is not kept.
    DropMandateToken,
    /// A restart moves no deadline.
    ForgetRestart,
    /// What refunds hold of a payment is forgotten when it goes from the table.
    ForgetSumAtEviction,
    /// A repetition of a payment that went is taken for a new payment.
    TakeRepetitionAsNew,
    /// What waits for the register is forgotten at a restart.
    ForgetParked,
    /// A word is told again from whatever payment its slot has now.
    TellWordOfSlot,
    /// Cover is moved by one person.
    MoveCoverAlone,
    /// The maker may approve what he proposed.
    ApproveAlone,
    /// What was checked at the proposal is not checked again at the approval.
    ApproveUnchecked,
    /// Invariant 2: cover that comes in or goes out moves twice.
    MoveCoverTwice,
    /// The alarm falls as soon as use is below its level.
    ForgetHysteresis,
    /// A snapshot leaves out the proposals that wait.
    SaveWithoutProposals,
    /// A snapshot leaves out what waits for the register. Not among [`Fault::ALL`]: it is found where snapshots are used.
    SaveWithoutParked,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// What every engine that this thread makes from now on gets wrong.
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

pub(super) fn planted() -> Option<Fault> {
    PLANTED.get()
}

impl Fault {
    pub(super) const ALL: [Self; 24] = [
        Self::PostOneSide,
        Self::ForgetPosition,
        Self::SettleTwice,
        Self::AdmitOverCap,
        Self::StampClosedWindow,
        Self::ForgetRelease,
        Self::AnswerTwice,
        Self::DependOnListener,
        Self::ForgetReversal,
        Self::ForgetNotice,
        Self::ForgetRefund,
        Self::CountRefundTwice,
        Self::DropMandateToken,
        Self::ForgetRestart,
        Self::ForgetSumAtEviction,
        Self::TakeRepetitionAsNew,
        Self::ForgetParked,
        Self::TellWordOfSlot,
        Self::MoveCoverAlone,
        Self::ApproveAlone,
        Self::ApproveUnchecked,
        Self::MoveCoverTwice,
        Self::ForgetHysteresis,
        Self::SaveWithoutProposals,
    ];
}

impl Engine {
    /// An engine that has seen no event and gets this wrong.
    pub(super) fn with_fault(fault: Option<Fault>) -> Self {
        Self {
            planted: fault,
            ..Self::new()
        }
    }

    pub(super) fn gets_wrong(&self, fault: Fault) -> bool {
        self.planted == Some(fault)
    }

    /// After an accepted payment has been noted.
    pub(super) fn spoil_acceptance(&mut self, slot: PaymentSlot, body: &PaymentBody) {
        let is_refund = self.payments[slot].is_kind(Kind::Refund);
        if is_refund && self.gets_wrong(Fault::CountRefundTwice) {
            self.refunds.take(slot, body.original, body.amount_minor);
        }
    }

    /// After a reservation has been released.
    pub(super) fn spoil_release(&mut self, slot: PaymentSlot) {
        let payment = self.payments[slot];
        if let Some(parties) = payment.parties().filter(|_| self.gets_wrong(Fault::ForgetRelease)) {
            let account = &mut self.participants[parties.debtor.index()].accounts[usize::from(payment.currency_slot)];
            account.reserve(payment.amount());
        }
    }

    /// After a commit has been posted, before it is told.
    pub(super) fn spoil_posting(&mut self, slot: PaymentSlot) {
        let payment = self.payments[slot];
        let currency_slot = usize::from(payment.currency_slot);
        let amount = payment.amount().as_position();
        if self.gets_wrong(Fault::StampClosedWindow)
            && let Some(closed) = self.closed_window(&payment)
        {
            self.payments[slot].expiry_or_window = closed.0;
        }
        if self.gets_wrong(Fault::DropMandateToken) {
            self.tokens.remove(&slot.0);
        }
        let Some(parties) = payment.parties() else { return };
        if self.gets_wrong(Fault::PostOneSide)
            && let Some(window) = self.windows.open_mut(currency_slot)
        {
            window.nets[parties.creditor.index()] += amount;
        }
        if self.gets_wrong(Fault::ForgetPosition) {
            self.participants[parties.debtor.index()].accounts[currency_slot].position -= amount;
        }
    }

    fn closed_window(&self, payment: &PaymentRecord) -> Option<WindowId> {
        let mut windows = self.windows.iter();
        let closed = windows.find(|w| w.currency_slot == payment.currency_slot && w.state == WindowState::Closed);
        closed.map(|window| window.id)
    }

    /// Before a committed refund is kept.
    pub(super) fn spoil_refund(&mut self, slot: PaymentSlot) {
        let original = self.refunds.open().find(|(refund, _)| *refund == slot.0);
        if let Some((_, original)) = original.filter(|_| self.gets_wrong(Fault::ForgetRefund)) {
            self.refunds.give_back(slot, self.payments[slot].amount_minor);
            self.refunds.take(slot, original, 0);
        }
    }

    /// After a final answer.
    pub(super) fn spoil_answer<O: Outlet>(&mut self, slot: PaymentSlot, out: &mut O) {
        if self.gets_wrong(Fault::AnswerTwice) {
            self.tell_initiator(slot, WordKind::Answer, out);
        }
    }

    /// Before a final answer gets its number.
    pub(super) fn spoil_word<O: Outlet>(&mut self, slot: PaymentSlot, out: &O) {
        let initiator = self.payments[slot].initiator();
        let participant = self.participants.get_mut(initiator.index());
        if let Some(participant) = participant
            && self.planted == Some(Fault::DependOnListener)
            && !out.listens()
        {
            let word = Word {
                kind: WordKind::Answer,
                about: None,
            };
            participant.outbox.push(word, 0, 1);
        }
    }

    /// Before a payment goes from the table.
    pub(super) fn spoil_eviction(&mut self, slot: PaymentSlot) {
        if self.gets_wrong(Fault::ForgetSumAtEviction)
            && let Some(goes) = self.payments.get(slot)
        {
            self.refunds.forget(goes.id);
        }
    }

    /// What is known of a repetition's payment.
    pub(super) fn spoil_known(&self, known: Known) -> Known {
        if known == Known::Away && self.gets_wrong(Fault::TakeRepetitionAsNew) {
            Known::Nowhere
        } else {
            known
        }
    }

    /// After a restart has asked the register again.
    pub(super) fn spoil_restart(&mut self) {
        if self.gets_wrong(Fault::ForgetParked) {
            self.parking = super::parked::Parking::default();
        }
    }

    /// What waits, as a snapshot has it.
    pub(super) fn spoil_saved<T>(&self, parked: Vec<T>) -> Vec<T> {
        if self.gets_wrong(Fault::SaveWithoutParked) {
            Vec::new()
        } else {
            parked
        }
    }

    /// The proposals, as a snapshot has them.
    pub(super) fn spoil_proposals<T>(&self, proposals: Vec<T>) -> Vec<T> {
        if self.gets_wrong(Fault::SaveWithoutProposals) {
            Vec::new()
        } else {
            proposals
        }
    }

    /// What the ledger says to a proposal that is approved.
    pub(super) fn spoil_approval(&self, outcome: OrderOutcome) -> Result<(), OrderOutcome> {
        let in_use = matches!(outcome, OrderOutcome::CoverInUse | OrderOutcome::CapOverCover);
        if in_use && self.gets_wrong(Fault::ApproveUnchecked) {
            Ok(())
        } else {
            Err(outcome)
        }
    }

    /// After cover has moved by an order.
    pub(super) fn spoil_cover(&mut self, participant: ParticipantIndex, currency_slot: usize) {
        if self.gets_wrong(Fault::MoveCoverTwice) {
            self.participants[participant.index()].accounts[currency_slot].cover += 1;
        }
    }

    /// True when the bank of this payment is not told what became of it.
    pub(super) fn spoils_notice(&self, slot: PaymentSlot) -> bool {
        let declined = self.payments[slot].state == PaymentState::Declined as u8;
        declined && self.gets_wrong(Fault::ForgetNotice)
    }

    /// After a window has been settled.
    pub(super) fn spoil_settlement(&mut self, id: WindowId) {
        if !self.gets_wrong(Fault::SettleTwice) {
            return;
        }
        let Some(window) = self.windows.find_mut(id) else {
            return;
        };
        for (participant, net) in self.participants.iter_mut().zip(&window.nets) {
            let account = &mut participant.accounts[usize::from(window.currency_slot)];
            account.cover -= net;
            account.cap -= net;
        }
    }
}
