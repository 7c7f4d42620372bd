//! The simulated payments of one run: a flat table by number, from which each request can be written again.

use bytemuck::Zeroable;

use super::random::mix;
use super::workload::{Answered, Intent, Related};
use crate::domain::{BindStep, BusinessDate, Code, Currency, Kind, ParticipantIndex, PaymentId, Scene};
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
    /// Yes: a pull is booked; a push is held for its customer until its final state is known.
    Yes,
    /// No.
    No,
    /// Asked about before it was ever seen, or ended before the word was said: refused for ever.
    RefusedForEver,
    /// A pull: yes, and then reversed.
    Reversed,
    /// A push: yes, confirmed, and given to the customer.
    Credited,
    /// A push: yes, and then ended in another state; nothing is held any more.
    Released,
}

/// One payment as the load knows it: half a cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaymentRecord {
    /// When it should have been sent, nanoseconds of the engine's clock.
    pub(super) intended_ns: u64,
    /// Minor units.
    pub(super) amount_minor: u64,
    /// While the bank holds it: when the request came. Afterwards: how long the bank held it.
    pub(super) bank_ticks: Ticks,
    /// Who asks.
    pub(super) initiator: ParticipantIndex,
    /// Whose account it is.
    pub(super) responder: ParticipantIndex,
    /// What is asked for.
    pub(super) kind: Kind,
    /// The step of a Bind or Unbind.
    pub(super) step: BindStep,
    /// What it is for.
    pub(super) scene: Scene,
    /// The bank's side of it.
    pub(super) bank_state: BankState,
    /// True when the bank has the FinalNotice of a push.
    pub(super) noticed: bool,
    /// The code the load provokes on purpose, [`PaymentRecord::NONE`] otherwise.
    pub(super) provoked: u8,
    /// The final code, [`PaymentRecord::NONE`] while there is none.
    pub(super) code: u8,
}

const _: () = assert!(size_of::<PaymentRecord>() == 32);

/// A moment or a duration up to 274 s in steps of 64 ns, of which the high end is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ticks(u32);

impl Ticks {
    const STEP_BITS: u32 = 6;

    /// The moment `ns`.
    #[inline]
    pub(super) const fn at(ns: u64) -> Self {
        Self((ns >> Self::STEP_BITS) as u32)
    }

    /// How long it is from this moment to `ns`.
    #[inline]
    pub(super) const fn until(self, ns: u64) -> Self {
        Self(Self::at(ns).0.wrapping_sub(self.0))
    }

    /// The duration in nanoseconds.
    #[inline]
    pub(super) const fn ns(self) -> u64 {
        (self.0 as u64) << Self::STEP_BITS
    }
}

impl PaymentRecord {
    /// No code.
    pub(super) const NONE: u8 = u8::MAX;

    /// A payment as it is when it is asked for, `start_ns` being the run's.
    #[inline]
    pub(super) fn asked(intent: &Intent, start_ns: u64) -> Self {
        Self {
            intended_ns: start_ns + intent.due_ns,
            amount_minor: intent.amount_minor,
            bank_ticks: Ticks::default(),
            initiator: intent.initiator,
            responder: intent.responder,
            kind: intent.kind,
            step: intent.step,
            scene: intent.scene,
            bank_state: BankState::Unknown,
            noticed: false,
            provoked: intent.provoked.map_or(Self::NONE, |code| code as u8),
            code: Self::NONE,
        }
    }

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
    /// What Refunds, Signs and Unbinds rest on, by their numbers, which rise.
    related: Vec<(u32, Related)>,
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
            related: Vec::new(),
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
    pub(super) fn push(&mut self, record: PaymentRecord, related: Related) -> u32 {
        let number = self.length;
        if related != Related::Nothing {
            self.related.push((number, related));
        }
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

    /// All payments, in the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PaymentRecord> {
        self.chunks.iter().flatten()
    }

    /// What a payment rests on.
    #[must_use]
    #[inline]
    pub(super) fn related(&self, number: u32) -> Related {
        match self.get(number).kind {
            Kind::Debit | Kind::Payout => Related::Nothing,
            Kind::Refund | Kind::Bind | Kind::Unbind => self
                .related
                .binary_search_by_key(&number, |(of, _)| *of)
                .map_or(Related::Nothing, |at| self.related[at].1),
        }
    }

    /// The payment with its answer.
    #[must_use]
    #[inline]
    pub(super) fn answered(&self, number: u32, code: Code) -> Answered {
        let record = self.get(number);
        Answered {
            number,
            initiator: record.initiator,
            responder: record.responder,
            kind: record.kind,
            step: record.step,
            related: self.related(number),
            amount_minor: record.amount_minor,
            scene: record.scene,
            code,
        }
    }

    /// The original that a Refund names; zero for any other payment.
    #[must_use]
    #[inline]
    pub(super) fn original(&self, number: u32) -> PaymentId {
        let record = self.get(number);
        if record.kind != Kind::Refund {
            return PaymentId::zeroed();
        }
        match self.related(number) {
            Related::Payment(original) => self.id(original),
            // No payment of any run is made in this lane.
            Related::Unknown | Related::Nothing => {
                PaymentId::new(self.date, record.initiator, 1, self.serial_base + u64::from(number))
            }
        }
    }

    /// The account: what belongs together (a Debit and its Refund, the steps of a Bind and of the Unbind that ends it)
    /// concerns the same.
    #[inline]
    fn account(&self, number: u32) -> [u64; 2] {
        let mut root = number;
        while let Related::Payment(earlier) = self.related(root) {
            root = earlier;
        }
        let token = mix(self.id(root).low);
        [token.rotate_left(17), u64::from(self.get(root).responder.0)]
    }

    /// The mandate that the bank makes by saying yes to this Bind's Sign; zeros for any other payment.
    #[must_use]
    #[inline]
    pub(super) fn mandate(&self, number: u32) -> [u64; 2] {
        let record = self.get(number);
        if record.kind == Kind::Bind && record.step == BindStep::Sign {
            let token = mix(self.id(number).low ^ u64::from(record.responder.0).rotate_left(40));
            [token, mix(token)]
        } else {
            [0; 2]
        }
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
                kind: record.kind as u8,
                scene: record.scene as u8,
                responder: record.responder,
                step: record.step as u8,
                flags,
                created_ns: self.utc_origin_ns + record.intended_ns,
                reserved: 0,
                mandate_token: match record.kind {
                    Kind::Debit => [token, !token],
                    Kind::Payout | Kind::Refund | Kind::Bind | Kind::Unbind => [0; 2],
                },
                account_token: self.account(number),
                original: self.original(number),
                order_reference,
            },
        }
        .sealed()
    }

    /// True when the request that a bank got is the one that was made.
    #[must_use]
    #[inline]
    pub(super) fn is_as_asked(&self, number: u32, body: &PaymentBody) -> bool {
        let record = self.get(number);
        record.responder == body.responder
            && record.amount_minor == body.amount_minor
            && record.kind as u8 == body.kind
            && record.step as u8 == body.step
            && self.original(number) == body.original
    }

    /// A bank's reply about the payment `id`; `mandate` is what it makes by its yes, zeros if nothing.
    #[must_use]
    #[inline]
    pub(super) fn reply(
        &self,
        id: PaymentId,
        amount_minor: u64,
        regarding: Regarding,
        word: BankWord,
        mandate: [u64; 2],
    ) -> Reply {
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
                token: if word == BankWord::Yes && mandate != [0; 2] {
                    mandate
                } else {
                    [id.low, 0]
                },
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
mod tests {
    use super::*;
    use crate::wire::{RequestFlags, content_digest, decode};

    fn table() -> PaymentTable {
        PaymentTable::new(77, 1_790_000_000_000_000_000, Currency::CNY)
    }

    fn intent(kind: Kind, step: BindStep, related: Related) -> Intent {
        Intent {
            kind,
            step,
            related,
            ..Intent::debit(1, ParticipantIndex(3), ParticipantIndex(200), 5, Scene::Shopping)
        }
    }

    fn add(table: &mut PaymentTable, intent: &Intent) -> u32 {
        table.push(PaymentRecord::asked(intent, 0), intent.related)
    }

    #[test]
    fn a_repeated_request_has_the_same_content() {
        let mut table = table();
        for _ in 0..40_000 {
            add(&mut table, &intent(Kind::Debit, BindStep::None, Related::Nothing));
        }
        let refund = add(&mut table, &intent(Kind::Refund, BindStep::None, Related::Payment(9)));
        for number in [39_999, refund] {
            let first = table.request(number, 0);
            let again = table.request(number, RequestFlags::POSSIBLE_RESEND);
            let (first, again) = (bytemuck::bytes_of(&first), bytemuck::bytes_of(&again));
            assert_ne!(first, again);
            assert_eq!(content_digest(first), content_digest(again));
            assert_eq!(decode(again), Ok(Some((Template::PaymentRequest, 128))));
        }
    }

    #[test]
    fn a_refund_names_its_original_and_the_steps_of_a_mandate_one_account() {
        let mut table = table();
        let debit = add(&mut table, &intent(Kind::Debit, BindStep::None, Related::Nothing));
        let refund = add(
            &mut table,
            &intent(Kind::Refund, BindStep::None, Related::Payment(debit)),
        );
        let astray = add(&mut table, &intent(Kind::Refund, BindStep::None, Related::Unknown));
        let bind = add(
            &mut table,
            &intent(Kind::Bind, BindStep::Authenticate, Related::Nothing),
        );
        let sign = add(&mut table, &intent(Kind::Bind, BindStep::Sign, Related::Payment(bind)));
        let unbind = add(
            &mut table,
            &intent(Kind::Unbind, BindStep::Authenticate, Related::Payment(sign)),
        );
        let request = |number| table.request(number, 0).body;
        assert_eq!(request(refund).original, table.id(debit));
        assert_eq!(request(refund).mandate_token, [0; 2]);
        assert_eq!(table.number(request(astray).original), None);
        assert!(!request(astray).original.is_zero());
        for step in [bind, sign, unbind] {
            assert!(request(step).original.is_zero());
            assert_eq!(request(step).account_token, request(bind).account_token);
        }
        assert_eq!(request(sign).step, BindStep::Sign as u8);
        assert_ne!(table.mandate(sign), [0; 2]);
        assert_eq!((table.mandate(bind), table.mandate(unbind)), ([0; 2], [0; 2]));
        assert!(table.is_as_asked(refund, &request(refund)));
        let mut other = request(refund);
        other.original = table.id(bind);
        assert!(!table.is_as_asked(refund, &other));
    }

    #[test]
    fn ticks_tell_how_long_a_bank_held_a_payment_though_their_clock_comes_round() {
        for came_ns in [0, 5_000, (1 << 38) - 64, (1 << 38) + 777] {
            let held_ns = Ticks::at(came_ns).until(came_ns + 12_345_678).ns();
            assert!(held_ns.abs_diff(12_345_678) <= 64, "{held_ns}");
        }
    }

    #[test]
    fn only_this_runs_ids_have_a_number() {
        let mut table = table();
        let number = add(&mut table, &intent(Kind::Debit, BindStep::None, Related::Nothing));
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
