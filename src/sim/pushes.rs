//! A bank's side of pushes: it holds what it said yes to until the final state is known, and then credits or releases.
//!
//! The final state comes as a FinalNotice, exactly one for every push that the bank saw. A bank that has said yes and has
//! none after a while inquires, within its budget, and acts on what it is told; the notice must come all the same.

use std::collections::VecDeque;

use super::load::Load;
use super::payment::BankState;
use crate::domain::{Code, Direction, ParticipantIndex, PaymentState, WindowId};
use crate::wire::{AnswerFlags, FinalNotice, Frame, FrameHeader, Inquiry, InquiryAnswer};

/// How long a bank that has said yes waits for the notice before it inquires, and before it inquires again.
const PATIENCE_NS: u64 = 2_000_000_000;
/// A bank inquires at most this often: ten times a second, a tenth of what a directory allows by default.
const INQUIRY_SPACING_NS: u64 = 100_000_000;

/// Pushes that banks wait to hear more of.
pub(super) struct Pushes {
    /// Pushes that a bank saw and that have no notice yet.
    awaited: u64,
    /// What was held when, in the order of time.
    held: VecDeque<(u32, u64)>,
    /// What is held too long, and when it is next inquired about.
    overdue: Vec<(u32, u64)>,
    /// When each bank may inquire next.
    inquire_from_ns: Vec<u64>,
}

impl Pushes {
    pub(super) fn new(participants: usize) -> Self {
        Self {
            awaited: 0,
            held: VecDeque::new(),
            overdue: Vec::new(),
            inquire_from_ns: vec![0; participants],
        }
    }

    /// Pushes that a bank saw and that have no notice yet.
    pub(super) const fn awaited(&self) -> u64 {
        self.awaited
    }
}

impl Load {
    /// A bank has seen a payment for the first time: of a push it must hear the end.
    #[inline]
    pub(super) fn note_seen(&mut self, number: u32) {
        let record = self.payments.get(number);
        if record.kind.direction() == Direction::Push && !record.noticed {
            self.pushes.awaited += 1;
            self.outcomes.pushes_seen += 1;
        }
    }

    /// The bank holds a push for its customer.
    pub(super) fn hold(&mut self, number: u32) {
        self.pushes.held.push_back((number, self.now_ns));
    }

    pub(super) fn on_final_notice(&mut self, bank: ParticipantIndex, notice: &FinalNotice) {
        if notice.word != 0 && !self.participants[bank.index()].words.take(notice.word) {
            return;
        }
        let Some(number) = self.known(bank, notice.id) else {
            self.outcomes.find(|| {
                format!(
                    "bank {bank} got a final notice about {}, which is not its own",
                    notice.id
                )
            });
            return;
        };
        let record = *self.payments.get(number);
        let state = PaymentState::from_u8(notice.state).filter(|state| state.is_final());
        let is_fitting = record.kind.direction() == Direction::Push
            && record.kind as u8 == notice.kind
            && record.amount_minor == notice.amount_minor
            && notice.initiator == record.initiator
            && notice.word != 0;
        let Some(state) = state.filter(|_| is_fitting) else {
            self.outcomes.find(|| {
                format!(
                    "bank {bank} got a final notice about {} that does not fit it: word {}, kind {}, {} minor units, state {}",
                    notice.id, notice.word, notice.kind, notice.amount_minor, notice.state
                )
            });
            return;
        };
        if record.noticed {
            let again = notice.flags & AnswerFlags::RETRANSMITTED != 0;
            self.outcomes.find(|| {
                format!(
                    "{}: a second final notice, word {}{}",
                    notice.id,
                    notice.word,
                    if again { ", sent again under another number" } else { "" }
                )
            });
            return;
        }
        self.payments.get_mut(number).noticed = true;
        self.outcomes.notices += 1;
        if record.bank_state != BankState::Unknown {
            self.pushes.awaited -= 1;
        }
        self.end_push(number, state, notice.window);
    }

    /// What the bank does when it knows the final state of a push.
    fn end_push(&mut self, number: u32, state: PaymentState, window: WindowId) {
        let (id, record) = (self.payments.id(number), *self.payments.get(number));
        let bank = record.responder;
        let confirmed = match state {
            PaymentState::Committed => true,
            PaymentState::Declined | PaymentState::Expired | PaymentState::Rejected => false,
            PaymentState::Reserved | PaymentState::InDoubt => return,
        };
        let next = match (record.bank_state, confirmed) {
            (BankState::Yes, true) => {
                self.outcomes.confirmed += 1;
                self.books.of(bank).confirm(window, record.amount_minor);
                BankState::Credited
            }
            (BankState::Yes, false) => BankState::Released,
            // Inquired about before: the notice says the same.
            (BankState::Credited, true) | (BankState::Released, false) => return,
            // Ended before the bank had made up its mind, or had even seen it.
            (BankState::Unknown | BankState::Holding, false) => BankState::RefusedForEver,
            (BankState::No | BankState::RefusedForEver, false) => return,
            (said, _) => {
                self.outcomes
                    .find(|| format!("bank {bank} is told that {id} is {state:?}, and stands at {said:?} itself"));
                return;
            }
        };
        self.payments.get_mut(number).bank_state = next;
    }

    /// Banks inquire about what they have held too long.
    pub(super) fn inquire_overdue(&mut self) {
        let now_ns = self.now_ns;
        while let Some(&(number, since_ns)) = self.pushes.held.front()
            && since_ns + PATIENCE_NS <= now_ns
        {
            self.pushes.held.pop_front();
            if self.payments.get(number).bank_state == BankState::Yes {
                self.pushes.overdue.push((number, now_ns));
            }
        }
        if self.pushes.overdue.is_empty() {
            return;
        }
        let mut overdue = std::mem::take(&mut self.pushes.overdue);
        overdue.retain_mut(|(number, due_ns)| {
            let record = self.payments.get(*number);
            if record.bank_state != BankState::Yes {
                return false;
            }
            let bank = record.responder;
            let from_ns = self.pushes.inquire_from_ns[bank.index()];
            if *due_ns <= now_ns && from_ns <= now_ns && self.inquire(bank, *number) {
                self.pushes.inquire_from_ns[bank.index()] = now_ns + INQUIRY_SPACING_NS;
                *due_ns = now_ns + PATIENCE_NS;
            }
            true
        });
        self.pushes.overdue = overdue;
    }

    fn inquire(&mut self, bank: ParticipantIndex, number: u32) -> bool {
        let Some(link) = self.link_of(bank, number) else {
            return false;
        };
        let inquiry = Inquiry {
            header: FrameHeader::new(Inquiry::TEMPLATE, size_of::<Inquiry>()),
            id: self.payments.id(number),
            reference: u64::from(number),
            reserved: 0,
        };
        self.write(link, &inquiry.sealed());
        self.outcomes.inquiries_sent += 1;
        true
    }

    pub(super) fn on_inquiry_answer(&mut self, bank: ParticipantIndex, answer: &InquiryAnswer) {
        let Some(number) = self
            .known(bank, answer.id)
            .filter(|number| u64::from(*number) == answer.reference)
        else {
            self.outcomes.find(|| {
                format!(
                    "bank {bank} got an answer to an inquiry about {} it never made",
                    answer.id
                )
            });
            return;
        };
        match PaymentState::from_u8(answer.state) {
            // The notice may have come meanwhile.
            Some(state) if state.is_final() && self.payments.get(number).bank_state == BankState::Yes => {
                self.end_push(number, state, answer.window);
            }
            // Still open: it is asked about again.
            Some(_) => {}
            None if answer.code == Code::AskedTooOften as u8 => {}
            None => self.outcomes.find(|| {
                format!(
                    "bank {bank} has said yes to {}, and an inquiry about it is answered with code {}",
                    answer.id, answer.code
                )
            }),
        }
    }

    /// At the end of a run: every push that a bank saw must have had its notice.
    pub(super) fn find_missing_notices(&mut self) {
        if self.pushes.awaited == 0 {
            return;
        }
        let is_missing = |number: &u32| {
            let record = self.payments.get(*number);
            record.kind.direction() == Direction::Push && record.bank_state != BankState::Unknown && !record.noticed
        };
        let missing: Vec<u32> = (0..self.payments.len()).filter(is_missing).collect();
        self.outcomes.notices_missing = missing.len() as u64;
        if let Some(first) = missing.first() {
            let (id, state) = (self.payments.id(*first), self.payments.get(*first).bank_state);
            self.outcomes.find(|| {
                format!(
                    "{} pushes that a bank saw have no final notice; the first is {id}, where the bank stands at {state:?}",
                    missing.len()
                )
            });
        }
    }
}
