//! The register as the switch uses it: payments by id, words by participant and number.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytemuck::{Pod, Zeroable};

use super::block::{Filed, RegisterKey};
use super::door::FileDoor;
use super::error::RegisterError;
use super::shelf::{Coverage, Shelf, ShelfOptions};
use crate::domain::{BusinessDate, LinkId, ParticipantIndex, PaymentId, UtcNanos};
use crate::wire::{AnswerFlags, EffectFrame, Frame, FrameHeader, RegisterEntry, Reversal, WordEntry, WordKind};

/// A word on file: 40 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FiledWord {
    /// Whose it is, its number, its payment, its kind.
    pub word: WordEntry,
    /// When it was given its number; of a Reversal that the engine has forgotten when it was raised last; UTC nanoseconds.
    pub time: UtcNanos,
}

impl Filed for RegisterEntry {
    const NAME: &'static str = "payments";

    fn key(&self) -> RegisterKey {
        RegisterKey {
            high: self.id.high,
            low: self.id.low,
        }
    }
}

impl Filed for FiledWord {
    const NAME: &'static str = "words";

    fn key(&self) -> RegisterKey {
        word_key(self.word.participant, self.word.number)
    }
}

fn word_key(participant: ParticipantIndex, number: u64) -> RegisterKey {
    RegisterKey {
        high: participant.0.into(),
        low: number,
    }
}

impl FiledWord {
    /// The word as it is told again on `link`, from what became of its payment.
    #[must_use]
    pub fn frame(&self, payment: &RegisterEntry, link: LinkId) -> Option<EffectFrame> {
        let (to, number) = (self.word.participant, self.word.number);
        let kind = WordKind::from_u8(self.word.kind)?;
        Some(match kind {
            WordKind::Answer | WordKind::DuplicateAnswer => {
                EffectFrame::new(to, link, &payment.answer(number, kind.flags_again()))
            }
            WordKind::FinalNotice => EffectFrame::new(to, link, &payment.final_notice(number, kind.flags_again())),
            WordKind::Reversal => EffectFrame::new(to, link, &self.reversal(payment)),
        })
    }

    /// A Reversal that was acknowledged and that the engine has forgotten: as it was told last.
    fn reversal(&self, payment: &RegisterEntry) -> Reversal {
        Reversal {
            header: FrameHeader::new(Reversal::TEMPLATE, size_of::<Reversal>()),
            id: payment.id,
            word: self.word.number,
            amount_minor: payment.amount_minor,
            currency: payment.currency,
            kind: payment.kind,
            attempt: self.word.attempts.max(1),
            initiator: payment.initiator(),
            flags: AnswerFlags::RETRANSMITTED,
            reserved: 0,
            raised_ns: self.time.0,
            reserved2: [0; 2],
        }
    }
}

/// What a register is opened with.
#[derive(Clone, Debug)]
pub struct RegisterOptions {
    /// Its directory; made if it is not there.
    pub directory: PathBuf,
    /// The journal it belongs to.
    pub journal_id: [u8; 16],
    /// Payments kept in memory before they are written out, 96 bytes each; twice as many words, 40 bytes each.
    pub payments_in_memory: usize,
    /// What its changes to files go through.
    pub door: FileDoor,
}

impl RegisterOptions {
    /// Runs of one rank that are merged into one of the next.
    const FAN_IN: usize = 16;

    fn shelf(&self, records_in_memory: usize) -> ShelfOptions {
        ShelfOptions {
            directory: self.directory.clone(),
            journal_id: self.journal_id,
            records_in_memory,
            fan_in: Self::FAN_IN,
            door: self.door.clone(),
        }
    }
}

/// The runs that a snapshot needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegisterCoverage {
    /// Of payments.
    pub payments: Vec<Coverage>,
    /// Of words.
    pub words: Vec<Coverage>,
}

/// The register of payments and words.
#[derive(Debug)]
pub struct DayRegister {
    payments: Shelf<RegisterEntry>,
    words: Shelf<FiledWord>,
}

impl DayRegister {
    /// Begins anew; what an earlier register left is removed.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn create(options: &RegisterOptions) -> Result<Self, RegisterError> {
        Ok(Self {
            payments: Shelf::create(options.shelf(options.payments_in_memory))?,
            words: Shelf::create(options.shelf(2 * options.payments_in_memory))?,
        })
    }

    /// Opens the register that goes with a snapshot; days before `required_from` may be gone.
    ///
    /// # Errors
    /// A file is missing, damaged or foreign, or the system refuses something.
    pub fn open(
        options: &RegisterOptions,
        covered: &RegisterCoverage,
        required_from: BusinessDate,
    ) -> Result<Self, RegisterError> {
        let payments = options.shelf(options.payments_in_memory);
        let words = options.shelf(2 * options.payments_in_memory);
        Ok(Self {
            payments: Shelf::open(payments, &covered.payments, required_from)?,
            words: Shelf::open(words, &covered.words, required_from)?,
        })
    }

    /// Files a payment that became final.
    pub fn file_payment(&mut self, entry: &RegisterEntry) {
        self.payments.insert(entry.id.date(), entry);
    }

    /// Files a word that was numbered at `time`.
    pub fn file_word(&mut self, word: &WordEntry, time: UtcNanos) {
        self.words
            .insert(time.business_date(), &FiledWord { word: *word, time });
    }

    /// True when it must be flushed before more is filed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.payments.is_full() || self.words.is_full()
    }

    /// Writes out what is in memory, durably.
    ///
    /// # Errors
    /// The system refuses it; nothing is lost, and it may be tried again.
    pub fn flush(&mut self) -> Result<(), RegisterError> {
        self.payments.flush()?;
        self.words.flush()
    }

    /// What became of a payment, if it is final and in what the register has been told.
    ///
    /// # Errors
    /// A file is damaged or can't be read.
    pub fn payment(&self, id: PaymentId) -> Result<Option<RegisterEntry>, RegisterError> {
        let key = RegisterKey {
            high: id.high,
            low: id.low,
        };
        self.payments.find(id.date(), key)
    }

    /// The words of a participant from number `from` on, at most `count`, with what became of their payments.
    ///
    /// # Errors
    /// A file is damaged or can't be read.
    pub fn words(
        &self,
        participant: ParticipantIndex,
        from: u64,
        count: u64,
    ) -> Result<Vec<(FiledWord, RegisterEntry)>, RegisterError> {
        let end = word_key(participant, from.saturating_add(count));
        let mut found = Vec::new();
        for word in self.words.range(word_key(participant, from), end, count as usize)? {
            if let Some(payment) = self.payment(word.word.id)? {
                found.push((word, payment));
            }
        }
        Ok(found)
    }

    /// Asks for a day's payments to be brought into one run; true when they are. [`DayRegister::work`] does it.
    ///
    /// # Errors
    /// What is in memory can't be written out; it may be tried again.
    pub fn seal(&mut self, date: BusinessDate) -> Result<bool, RegisterError> {
        if self.payments.has_in_memory(date) {
            self.payments.flush()?;
        }
        self.payments.seal(date);
        Ok(self.payments.is_sealed(date))
    }

    /// The days of which there are payments.
    #[must_use]
    pub fn days(&self) -> BTreeSet<BusinessDate> {
        self.payments.days()
    }

    /// Merges runs, at most about `records` of them; false when there is nothing to merge.
    ///
    /// # Errors
    /// A run is damaged or the system refuses something; the runs stay as they were.
    pub fn work(&mut self, records: usize) -> Result<bool, RegisterError> {
        Ok(self.payments.work(records)? || self.words.work(records)?)
    }

    /// Removes the days before `date`; gives how many.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn expire(&mut self, date: BusinessDate) -> Result<usize, RegisterError> {
        let words = self.words.expire(date)?;
        Ok(self.payments.expire(date)?.max(words))
    }

    /// What a snapshot says of the files it needs; call it after [`DayRegister::flush`].
    #[must_use]
    pub fn coverage(&self) -> RegisterCoverage {
        RegisterCoverage {
            payments: self.payments.coverage(),
            words: self.words.coverage(),
        }
    }

    /// Files and bytes on disk.
    #[must_use]
    pub fn disk_use(&self) -> (usize, u64) {
        let (payments, words) = (self.payments.disk_use(), self.words.disk_use());
        (payments.0 + words.0, payments.1 + words.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reversal_filed_once_more_is_told_with_the_attempt_it_had_come_to() {
        let directory = tempfile::tempdir().unwrap();
        let mut register = DayRegister::create(&RegisterOptions {
            directory: directory.path().join("register"),
            journal_id: [7; 16],
            payments_in_memory: 16,
            door: FileDoor::OPEN,
        })
        .unwrap();
        let bank = ParticipantIndex(2);
        let id = PaymentId::new(BusinessDate(20_260_204), ParticipantIndex(0), 0, 1);
        register.file_payment(&RegisterEntry {
            id,
            ..RegisterEntry::zeroed()
        });
        let mut word = WordEntry {
            number: 1,
            id,
            participant: bank,
            kind: WordKind::Reversal as u8,
            ..WordEntry::zeroed()
        };
        let day = 86_400_000_000_000;
        register.file_word(&word, UtcNanos(20_000 * day));
        register.flush().unwrap();
        // It was raised once more the day after.
        word.attempts = 3;
        register.file_word(&word, UtcNanos(20_001 * day));
        for _ in 0..2 {
            let words = register.words(bank, 1, 1).unwrap();
            let frame = words[0].0.frame(&words[0].1, LinkId::NONE).unwrap();
            let told = Reversal::read(&frame.bytes);
            assert_eq!((told.attempt, told.raised_ns), (3, 20_001 * day));
            register.flush().unwrap();
        }
    }
}
