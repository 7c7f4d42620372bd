//! What the switch told: the day register's payments and words, held against the books.
//!
//! The register is the switch's own record of every final state and of every numbered word. It is written behind the
//! engine, so that it may end before the journal does: what is not in it yet is counted, and no fault.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use super::books::{Books, NO_WINDOW, Payment};
use super::invariant::{Finding, Invariant};
use super::notebook::Notebook;
use crate::domain::{Code, Kind, PaymentState, UtcNanos, WindowId};
use crate::register::{Filed, FiledWord, RegisterError, RegisterKey, Run, RunName};
use crate::wire::{RegisterEntry, WordEntry, WordKind};

/// Records read of a run at a time.
const RECORDS_AT_A_TIME: usize = 4_096;

/// What has been told about one payment.
const FILED: u8 = 1;
const ANSWERED: u8 = 2;
const REVERSED: u8 = 4;

/// Holds the register in `directory` against the books.
pub(super) fn check(
    books: &Books,
    journal_id: [u8; 16],
    directory: &Path,
    notebook: &mut Notebook,
) -> Result<(), RegisterError> {
    let mut told = Told {
        books,
        notebook,
        seen: vec![0; books.payments.len()],
        last_entry: None,
        last_word: None,
        last_words: BTreeMap::new(),
    };
    for day in directories(directory) {
        each::<RegisterEntry>(&day, journal_id, |entry| told.payment(entry))?;
        each::<FiledWord>(&day, journal_id, |word| told.word(word))?;
    }
    told.close();
    Ok(())
}

fn directories(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut days: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    days.sort();
    days
}

/// Reads all runs of one kind in a day's directory, merged by key: what two of them hold comes twice in a row.
fn each<T: Filed>(day: &Path, journal_id: [u8; 16], mut take: impl FnMut(&T)) -> Result<(), RegisterError> {
    let entries = std::fs::read_dir(day).into_iter().flatten().flatten();
    let is_run = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| RunName::parse(&name, T::NAME).is_some())
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_run).collect();
    paths.sort();
    let mut cursors = Vec::new();
    for path in paths {
        let run = Run::open::<T>(&path, journal_id)?;
        run.verify::<T>()?;
        cursors.push(Cursor {
            run,
            from: RegisterKey { high: 0, low: 0 },
            ahead: VecDeque::new(),
        });
    }
    loop {
        let mut first: Option<(RegisterKey, usize)> = None;
        for (number, cursor) in cursors.iter_mut().enumerate() {
            if let Some(key) = cursor.key()?
                && first.is_none_or(|(least, _)| key < least)
            {
                first = Some((key, number));
            }
        }
        let Some(record) = first.and_then(|(_, number)| cursors[number].ahead.pop_front()) else {
            return Ok(());
        };
        take(&record);
    }
}

/// Where reading a run has come to.
struct Cursor<T> {
    run: Run,
    from: RegisterKey,
    ahead: VecDeque<T>,
}

impl<T: Filed> Cursor<T> {
    /// The key of its next record; `None` at its end.
    fn key(&mut self) -> Result<Option<RegisterKey>, RegisterError> {
        const END: RegisterKey = RegisterKey {
            high: u64::MAX,
            low: u64::MAX,
        };
        if self.ahead.is_empty() {
            self.ahead = self.run.range(self.from, END, RECORDS_AT_A_TIME)?.into();
            if let Some(key) = self.ahead.back().map(Filed::key) {
                self.from = RegisterKey {
                    high: key.high + u64::from(key.low == u64::MAX),
                    low: key.low.wrapping_add(1),
                };
            }
        }
        Ok(self.ahead.front().map(Filed::key))
    }
}

struct Told<'a> {
    books: &'a Books,
    notebook: &'a mut Notebook,
    /// By a payment's place in the books: what has been told about it.
    seen: Vec<u8>,
    /// The last entry and the last word that were read: the same key again must say the same.
    last_entry: Option<RegisterEntry>,
    last_word: Option<WordEntry>,
    /// By participant: the time of its last word on file.
    last_words: BTreeMap<u16, UtcNanos>,
}

impl Told<'_> {
    fn payment(&mut self, entry: &RegisterEntry) {
        if let Some(other) = self.last_entry.replace(*entry).filter(|other| other.id == entry.id) {
            if other != *entry {
                self.find(
                    Invariant::OneAnswer,
                    format!("payment {}: the register holds two final states", entry.id),
                    state_text(other.state, other.code),
                    state_text(entry.state, entry.code),
                );
            }
            return;
        }
        self.notebook
            .checked(Invariant::OneAnswer, "final states in the register", 1);
        let Some(at) = self.books.find(entry.id) else {
            self.find(
                Invariant::OneAnswer,
                format!("payment {}: the register holds a final state", entry.id),
                "no such payment",
                state_text(entry.state, entry.code),
            );
            return;
        };
        self.seen[at] |= FILED;
        let payment = &self.books.payments[at];
        let (ours, theirs) = (
            state_text(payment.state as u8, payment.code as u8),
            state_text(entry.state, entry.code),
        );
        let differs = ours != theirs;
        if differs {
            let (invariant, why) = breach(payment, entry);
            self.find(invariant, format!("payment {}: {why}", entry.id), ours, theirs);
        }
        let window = self.books.windows.get(payment.window as usize);
        let window = window
            .filter(|_| payment.window != NO_WINDOW)
            .map_or(WindowId::NONE, |window| window.id);
        if !differs && window != entry.window {
            self.find(
                Invariant::Windows,
                format!("payment {}: its window in the register", entry.id),
                window,
                entry.window,
            );
        }
        if (payment.amount, payment.responder, payment.currency.0, payment.kind)
            != (entry.amount_minor, entry.responder, entry.currency, entry.kind)
        {
            self.find(
                Invariant::OneAnswer,
                format!("payment {}: amount and parties in the register", entry.id),
                payment.amount,
                entry.amount_minor,
            );
        }
    }

    fn word(&mut self, filed: &FiledWord) {
        let (word, participant) = (&filed.word, filed.word.participant.0);
        let same = |other: &WordEntry| (other.participant, other.number) == (word.participant, word.number);
        if let Some(other) = self.last_word.replace(*word).filter(same) {
            if (other.id, other.kind) != (word.id, word.kind) {
                let what = format!("word {} to participant {participant} was given twice", word.number);
                self.notebook.find(Invariant::OneAnswer.broken(what));
            }
            return;
        }
        let last = self.last_words.entry(participant).or_default();
        *last = (*last).max(filed.time);
        let Some(at) = self.books.find(word.id) else {
            let what = format!(
                "word {} to participant {participant} is about {}, which the journal does not know",
                word.number, word.id
            );
            self.notebook.find(Invariant::OneAnswer.broken(what));
            return;
        };
        let payment = &self.books.payments[at];
        match WordKind::from_u8(word.kind) {
            Some(WordKind::Answer) => {
                if self.seen[at] & ANSWERED != 0 {
                    let what = format!(
                        "payment {}: a second final answer, word {} to participant {participant}",
                        word.id, word.number
                    );
                    self.notebook.find(Invariant::OneAnswer.broken(what));
                }
                self.seen[at] |= ANSWERED;
                self.notebook
                    .checked(Invariant::OneAnswer, "final answers among the words", 1);
            }
            Some(WordKind::Reversal) => {
                self.seen[at] |= REVERSED;
                let may_be = payment.kind == Kind::Debit as u8
                    && matches!(payment.state, PaymentState::Declined | PaymentState::Expired);
                if !may_be {
                    let what = format!("payment {}: a Reversal of what is {:?}", word.id, payment.state);
                    self.notebook.find(Invariant::Reversals.broken(what));
                }
            }
            Some(WordKind::DuplicateAnswer | WordKind::FinalNotice) => {}
            None => {
                let what = format!("word {} to participant {participant} is of no kind", word.number);
                self.notebook.find(Invariant::OneAnswer.broken(what));
            }
        }
    }

    /// What must have been told by the time of a later word to the same participant.
    fn close(self) {
        let Self {
            books,
            notebook,
            seen,
            last_words,
            ..
        } = self;
        let (mut filed, mut finals) = (0, 0);
        for (payment, seen) in books.payments.iter().zip(&seen) {
            if !payment.state.is_final() {
                continue;
            }
            finals += 1;
            filed += u64::from(seen & FILED != 0);
            let was_sent = payment.state == PaymentState::Expired && payment.code == Code::BankTimeout;
            if !was_sent || payment.kind != Kind::Debit as u8 || seen & FILED == 0 {
                continue;
            }
            notebook.checked(
                Invariant::Reversals,
                "expired pulls, with the words told to their banks",
                1,
            );
            let later = last_words
                .get(&payment.responder.0)
                .is_some_and(|last| *last > payment.expiry);
            if seen & REVERSED == 0 && later {
                let what = format!(
                    "payment {}: expired after it was sent; its bank was told later words, and no Reversal",
                    payment.id
                );
                notebook.find(Invariant::Reversals.broken(what));
            }
        }
        if filed < finals {
            notebook.remark(format!(
                "the register holds {filed} of {finals} final payments: it is written behind the engine, and what it \
                 does not hold yet was not held against it"
            ));
        }
    }

    fn find(
        &mut self,
        invariant: Invariant,
        what: String,
        journal: impl std::fmt::Display,
        told: impl std::fmt::Display,
    ) {
        let finding: Finding = invariant.broken(what).in_file("register");
        self.notebook.find(finding.values(journal, told));
    }
}

/// What it means that the register says other than the books.
fn breach(payment: &Payment, entry: &RegisterEntry) -> (Invariant, &'static str) {
    let refused_for_cover =
        |state: u8, code: u8| state == PaymentState::Rejected as u8 && code == Code::CoverExceeded as u8;
    if refused_for_cover(payment.state as u8, payment.code as u8) && entry.state != PaymentState::Rejected as u8 {
        return (
            Invariant::Cover,
            "it would have made position + reserved exceed the cap, and was admitted",
        );
    }
    if payment.state != PaymentState::Rejected && refused_for_cover(entry.state, entry.code) {
        return (
            Invariant::Reservations,
            "it was refused for cover that no open payment and no position uses",
        );
    }
    if payment.state == PaymentState::Expired || entry.state == PaymentState::Expired as u8 {
        return (Invariant::Reversals, "it expired on one side only");
    }
    (Invariant::OneAnswer, "its final state")
}

fn state_text(state: u8, code: u8) -> String {
    let state = PaymentState::from_u8(state).map_or_else(|| format!("state {state}"), |state| format!("{state:?}"));
    format!("{state}, code {code:02}")
}
