//! The simulated payments of one run: a flat table by number, from which each request can be written again.

use bytemuck::Zeroable;

use super::random::mix;
use crate::domain::{BusinessDate, Code, Currency, Kind, ParticipantIndex, PaymentId, Scene};
use crate::wire::{
    Frame, FrameHeader, PaymentBody, PaymentRequest, Regarding, Reply, ReplyBody, ReplyOutcome, Template,
};

/// What the bank has done about a payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum BankState {
    /// Never seen.
    Unknown,
    /// The request came; the word on it is still to be said.
    Holding,
    /// Yes, booked.
    Yes,
    /// No.
    No,
    /// Asked about before it was ever seen: refused for ever.
    RefusedForEver,
    /// Yes, and then reversed.
    Reversed,
}

/// One payment as the load knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaymentRecord {
    /// When it should have been sent, nanoseconds of the engine's clock.
    pub(super) intended_ns: u64,
    /// Minor units.
    pub(super) amount_minor: u64,
    /// While the bank holds it: when the request came. Afterwards: how long the bank held it. Nanoseconds.
    pub(super) bank_ns: u64,
    /// Who asks.
    pub(super) initiator: ParticipantIndex,
    /// Whose account it is.
    pub(super) responder: ParticipantIndex,
    /// What it is for.
    pub(super) scene: Scene,
    /// The bank's side of it.
    pub(super) bank: BankState,
    /// The code the load provokes on purpose, [`PaymentRecord::NONE`] otherwise.
    pub(super) provoked: u8,
    /// The final code, [`PaymentRecord::NONE`] while there is none.
    pub(super) code: u8,
}

impl PaymentRecord {
    /// No code.
    pub(super) const NONE: u8 = u8::MAX;

    /// True when the institution has the final answer.
    #[must_use]
    #[inline]
    pub(super) const fn is_answered(&self) -> bool {
        self.code != Self::NONE
    }

    /// The code that was provoked on purpose.
    #[must_use]
    pub(super) const fn provoked(&self) -> Option<Code> {
        Code::from_u8(self.provoked)
    }
}

const CHUNK_BITS: u32 = 15;
const CHUNK: usize = 1 << CHUNK_BITS;

/// All payments of a run by number, in chunks so that growth never copies.
#[derive(Debug)]
pub(super) struct PaymentTable {
    chunks: Vec<Vec<PaymentRecord>>,
    length: u32,
    date: BusinessDate,
    currency: Currency,
    serial_base: u64,
    utc_origin_ns: u64,
}

impl PaymentTable {
    /// An empty table. Serials begin at `run`·2³², so that two runs against one journal never share an id;
    /// `utc_origin_ns` is UTC at the zero of the engine's clock.
    #[must_use]
    pub(super) const fn new(run: u32, utc_origin_ns: u64, currency: Currency) -> Self {
        Self {
            chunks: Vec::new(),
            length: 0,
            date: crate::domain::UtcNanos(utc_origin_ns).business_date(),
            currency,
            serial_base: (run as u64) << 32,
            utc_origin_ns,
        }
    }

    /// How many payments there are.
    #[must_use]
    #[inline]
    pub(super) const fn len(&self) -> u32 {
        self.length
    }

    /// Adds a payment; gives its number.
    #[inline]
    pub(super) fn push(&mut self, record: PaymentRecord) -> u32 {
        let number = self.length;
        if number as usize & (CHUNK - 1) == 0 {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[(number >> CHUNK_BITS) as usize].push(record);
        self.length += 1;
        number
    }

    /// The number of the payment with this id, if it is one of this run's.
    #[must_use]
    #[inline]
    pub(super) fn number(&self, id: PaymentId) -> Option<u32> {
        let number = u32::try_from(id.serial().wrapping_sub(self.serial_base)).ok()?;
        (number < self.length && self.id(number) == id).then_some(number)
    }

    /// The id of a payment.
    #[must_use]
    #[inline]
    pub(super) fn id(&self, number: u32) -> PaymentId {
        let originator = self.get(number).initiator;
        PaymentId::new(self.date, originator, 0, self.serial_base + u64::from(number))
    }

    /// A payment.
    #[must_use]
    #[inline]
    pub(super) fn get(&self, number: u32) -> &PaymentRecord {
        &self.chunks[(number >> CHUNK_BITS) as usize][number as usize & (CHUNK - 1)]
    }

    /// A payment, to note something.
    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut PaymentRecord {
        &mut self.chunks[(number >> CHUNK_BITS) as usize][number as usize & (CHUNK - 1)]
    }

    /// The payment's request; each time the same but for `flags`.
    #[must_use]
    #[inline]
    pub(super) fn request(&self, number: u32, flags: u8) -> PaymentRequest {
        let record = self.get(number);
        let id = self.id(number);
        let token = mix(id.low);
        let mut order_reference = [0; 16];
        order_reference[..8].copy_from_slice(&token.to_be_bytes());
        order_reference[8..].copy_from_slice(&id.low.to_be_bytes());
        PaymentRequest {
            header: FrameHeader::new(Template::PaymentRequest, size_of::<PaymentRequest>()),
            body: PaymentBody {
                id,
                amount_minor: record.amount_minor,
                currency: self.currency.0,
                kind: Kind::Debit as u8,
                scene: record.scene as u8,
                responder: record.responder,
                step: 0,
                flags,
                created_ns: self.utc_origin_ns + record.intended_ns,
                reserved: 0,
                mandate_token: [token, !token],
                account_token: [token.rotate_left(17), u64::from(record.responder.0)],
                original: PaymentId::zeroed(),
                order_reference,
            },
        }
        .sealed()
    }

    /// A bank's reply about the payment `id`.
    #[must_use]
    #[inline]
    pub(super) fn reply(&self, id: PaymentId, amount_minor: u64, regarding: Regarding, word: BankWord) -> Reply {
        let (outcome, code) = match word {
            BankWord::Yes => (ReplyOutcome::Yes, 0),
            BankWord::No(code) => (ReplyOutcome::No, code as u8),
            BankWord::NeverSeen => (ReplyOutcome::NeverSeen, 0),
            BankWord::Acknowledged => (ReplyOutcome::Acknowledged, 0),
        };
        Reply {
            header: FrameHeader::new(Template::Reply, size_of::<Reply>()),
            body: ReplyBody {
                id,
                amount_minor,
                currency: self.currency.0,
                regarding: regarding as u8,
                outcome: outcome as u8,
                code,
                reserved: [0; 3],
                token: [id.low, 0],
            },
        }
        .sealed()
    }
}

/// What a bank says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BankWord {
    /// Done.
    Yes,
    /// Not done, and why.
    No(Code),
    /// Never seen; refused from now on.
    NeverSeen,
    /// A Reversal is taken.
    Acknowledged,
}

#[cfg(test)]
pub(super) fn record_for_tests(amount_minor: u64) -> PaymentRecord {
    PaymentRecord {
        intended_ns: 1,
        amount_minor,
        bank_ns: 0,
        initiator: ParticipantIndex(3),
        responder: ParticipantIndex(200),
        scene: Scene::Shopping,
        bank: BankState::Unknown,
        provoked: PaymentRecord::NONE,
        code: PaymentRecord::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{RequestFlags, content_digest, decode};

    #[test]
    fn a_repeated_request_has_the_same_content() {
        let mut table = PaymentTable::new(77, 1_790_000_000_000_000_000, Currency::CNY);
        for amount in 0..40_000 {
            table.push(record_for_tests(amount));
        }
        let first = table.request(39_999, 0);
        let again = table.request(39_999, RequestFlags::POSSIBLE_RESEND);
        let (first, again) = (bytemuck::bytes_of(&first), bytemuck::bytes_of(&again));
        assert_ne!(first, again);
        assert_eq!(content_digest(first), content_digest(again));
        assert_eq!(decode(again), Ok(Some((Template::PaymentRequest, 128))));
    }

    #[test]
    fn only_this_runs_ids_have_a_number() {
        let mut table = PaymentTable::new(77, 1_790_000_000_000_000_000, Currency::CNY);
        let number = table.push(record_for_tests(5));
        let id = table.id(number);
        assert_eq!(table.number(id), Some(number));
        assert_eq!(table.number(PaymentId { low: id.low + 1, ..id }), None);
        assert_eq!(
            table.number(PaymentId {
                low: id.low - (1 << 32),
                ..id
            }),
            None
        );
        assert_eq!(
            table.number(PaymentId {
                high: id.high + 1,
                ..id
            }),
            None
        );
    }
}
