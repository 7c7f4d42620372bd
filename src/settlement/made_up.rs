//! A window's payments made up from a seed, for benches and tests: the same every time, spread over participants by Zipf's
//! law, some of them not committed.

use std::path::Path;

use bytemuck::Zeroable;

use super::append::AppendFile;
use super::error::SettlementError;
use super::facts::{FinalPayment, Party, WindowFacts};
use super::layout::{FinalRecord, SpoolHeader, SpoolKind};
use super::row::{Side, sides};
use super::spool::{SpoolOptions, write_facts_file};
use super::spool_reader::Spool;
use crate::domain::{
    BusinessDate, Code, Currency, Kind, MILLISECOND, ParticipantIndex, PaymentId, PaymentState, Role, SECOND, Scene,
    SchemeCode, UtcNanos, WindowId,
};
use crate::register::FileDoor;
use crate::wire::RegisterEntry;

/// 2026-11-23T08:00:00Z, 16:00 in Shanghai.
const OPENED: UtcNanos = UtcNanos(1_795_420_800 * SECOND);
const DATE: BusinessDate = BusinessDate(20_261_123);

/// What is made up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MadeUpWindow {
    /// From which seed.
    pub seed: u64,
    /// Final payments; one in thirty-two is not committed.
    pub payments: u64,
    /// How many participants are institutions; they come first.
    pub institutions: u16,
    /// How many are banks.
    pub banks: u16,
    /// How long it was open, seconds.
    pub seconds: u64,
}

impl MadeUpWindow {
    /// Its id.
    pub const WINDOW: WindowId = WindowId::new(DATE, 7);

    /// What the engine would have of it.
    #[must_use]
    pub fn facts(&self) -> WindowFacts {
        let party = |number: u16| {
            let (letter, role) = if number < self.institutions {
                ('Z', Role::Institution)
            } else {
                ('C', Role::Bank)
            };
            Party {
                index: ParticipantIndex(number),
                code: SchemeCode::parse(&format!("{letter}{number:013}")).expect("a letter and thirteen digits"),
                role,
                net_minor: 0,
            }
        };
        let mut facts = WindowFacts {
            window: Self::WINDOW,
            currency: Currency::CNY,
            scheme: SchemeCode(*b"CLEARWAY000001"),
            journal_id: self.seed.to_le_bytes().repeat(2).try_into().expect("twice eight bytes"),
            opened: OPENED,
            closed: OPENED.plus(self.seconds * SECOND),
            close_event: 3 * self.payments + 1_000,
            finals: self.payments,
            committed: 0,
            gross_minor: 0,
            parties: (0..self.institutions + self.banks).map(party).collect(),
        };
        for payment in self.payments() {
            let entry = &payment.entry;
            if entry.state != PaymentState::Committed as u8 {
                continue;
            }
            facts.committed += 1;
            let amount = i128::from(entry.amount_minor);
            for (index, side) in sides(entry) {
                facts.parties[index.index()].net_minor += match side {
                    Side::Debit => {
                        facts.gross_minor += amount;
                        amount
                    }
                    Side::Credit => -amount,
                    Side::None => 0,
                };
            }
        }
        facts
    }

    /// Its payments, in the order of their events.
    pub fn payments(&self) -> impl Iterator<Item = FinalPayment> + use<> {
        let this = *self;
        let institutions = Zipf::new(this.institutions);
        let banks = Zipf::new(this.banks);
        let mut draw = Draw(this.seed);
        (0..this.payments).map(move |number| this.payment(number, &institutions, &banks, &mut draw))
    }

    /// Writes it as the spool has it, into `directory`.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn spool(&self, directory: &Path) -> Result<Spool, SettlementError> {
        let facts = self.facts();
        let options = SpoolOptions {
            directory: directory.to_owned(),
            journal_id: facts.journal_id,
            door: FileDoor::OPEN,
        };
        let spool = Spool::new(directory, facts.journal_id);
        let mut header = SpoolHeader::new(SpoolKind::Finals, facts.journal_id, facts.scheme);
        (header.window, header.currency) = (facts.window, facts.currency.0);
        let mut file = AppendFile::begin(spool.finals_path(facts.window), &header.sealed(), &options.door);
        for payment in self.payments() {
            if file.push(|number, crc| FinalRecord::new(payment.event, &payment.entry, number, crc)) {
                file.write_out()?;
            }
        }
        file.sync()?;
        write_facts_file(&spool.facts_path(facts.window), &facts, 0, &options)?;
        Ok(spool)
    }

    fn payment(&self, number: u64, institutions: &Zipf, banks: &Zipf, draw: &mut Draw) -> FinalPayment {
        let initiator = ParticipantIndex(institutions.pick(draw.next()));
        let responder = ParticipantIndex(self.institutions + banks.pick(draw.next()));
        let at = OPENED.0 + (u128::from(self.seconds * SECOND) * u128::from(number) / u128::from(self.payments)) as u64;
        let dice = draw.next();
        let kind = match dice % 100 {
            0..70 => Kind::Debit,
            70..90 => Kind::Payout,
            90..97 => Kind::Refund,
            97..99 => Kind::Bind,
            _ => Kind::Unbind,
        };
        let (state, code) = match (dice >> 8) % 32 {
            0 => match (dice >> 16) % 3 {
                0 => (PaymentState::Declined, Code::CustomerFunds),
                1 => (PaymentState::Expired, Code::BankTimeout),
                _ => (PaymentState::Rejected, Code::CoverExceeded),
            },
            _ => (PaymentState::Committed, Code::Committed),
        };
        let is_committed = state == PaymentState::Committed;
        let original = PaymentId::new(DATE, initiator, 0, number / 2);
        FinalPayment {
            event: 1_000 + 3 * number,
            entry: RegisterEntry {
                id: PaymentId::new(DATE, initiator, (dice >> 24) as u16 % 4, number),
                digest: draw.next(),
                amount_minor: 1 + (dice >> 32) % 200_000,
                position: 4_096 + 320 * number,
                accepted_ns: at - MILLISECOND - (dice >> 40) % MILLISECOND,
                final_ns: at,
                window: if is_committed { Self::WINDOW } else { WindowId::NONE },
                related: match kind {
                    Kind::Refund => bytemuck::cast(original),
                    Kind::Bind => [dice, number],
                    Kind::Debit | Kind::Payout | Kind::Unbind => [0; 2],
                },
                responder,
                currency: Currency::CNY.0,
                kind: kind as u8,
                scene: Scene::ALL[(dice >> 20) as usize % Scene::ALL.len()] as u8,
                state: state as u8,
                code: code as u8,
                ..RegisterEntry::zeroed()
            },
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood).
#[derive(Clone, Debug)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The n-th is picked in proportion to 1/n.
#[derive(Clone, Debug)]
struct Zipf {
    /// Σ of the weights so far.
    below: Vec<u64>,
}

impl Zipf {
    fn new(count: u16) -> Self {
        let weights = (1..=u64::from(count)).scan(0, |sum, n| {
            *sum += (1 << 32) / n;
            Some(*sum)
        });
        Self {
            below: weights.collect(),
        }
    }

    fn pick(&self, drawn: u64) -> u16 {
        let all = self.below.last().copied().unwrap_or(1);
        self.below.partition_point(|&below| below <= drawn % all) as u16
    }
}
