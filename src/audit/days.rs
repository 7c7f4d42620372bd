//! Cover, day by day: its movements as the books make them, and the camt.053 of each participant held against them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::books::Books;
use super::invariant::{Finding, Invariant};
use super::notebook::Notebook;
use super::row::{code_of, currency_code};
use super::window_books::participants;
use super::window_files::check_directory;
use super::xml_file::{Element, decimal, read};
use crate::domain::{BusinessDate, Currency, ParticipantIndex, Position, UtcNanos, WindowId, WindowState};
use crate::wire::{CoverReason, RecordKind};

/// One movement of cover.
#[derive(Clone, Copy, Debug)]
struct Movement {
    event: u64,
    date: BusinessDate,
    reason: CoverReason,
    window: WindowId,
    change: Position,
}

/// One account's movements.
#[derive(Clone, Debug, Default)]
struct CoverBook {
    cover: Position,
    movements: Vec<Movement>,
}

/// Follows what cover there is: after each event that can move it, what differs from before is a movement.
#[derive(Clone, Debug, Default)]
pub(super) struct Days {
    accounts: BTreeMap<(u16, Currency), CoverBook>,
    settled: BTreeSet<WindowId>,
    first: Option<BusinessDate>,
    last: UtcNanos,
}

impl Days {
    /// Takes note of what the event just applied did to cover.
    pub(super) fn after(&mut self, books: &Books, kind: RecordKind, number: u64, time: UtcNanos) {
        self.first.get_or_insert(time.business_date());
        self.last = time;
        let window = match kind {
            RecordKind::Participant | RecordKind::Order => WindowId::NONE,
            RecordKind::Window => self.newly_settled(books),
            _ => return,
        };
        for participant in participants(books) {
            let accounts = books
                .participant_ref(participant)
                .map(|participant| &participant.accounts);
            for account in accounts.into_iter().flatten() {
                let key = (participant.0, account.currency);
                let is_new = !self.accounts.contains_key(&key);
                let book = self.accounts.entry(key).or_default();
                let change = account.cover - book.cover;
                // Who joins has the accounts of its terms; one that an order opens begins with what the order brings.
                let opens = is_new && account_in_terms(books, participant, account.currency);
                if change == 0 && !opens {
                    continue;
                }
                book.cover = account.cover;
                book.movements.push(Movement {
                    event: number,
                    date: time.business_date(),
                    reason: match (kind, change) {
                        (RecordKind::Window, _) => CoverReason::Settled,
                        _ if opens => CoverReason::Opening,
                        (_, 0..) => CoverReason::CoverIn,
                        _ => CoverReason::CoverOut,
                    },
                    window,
                    change,
                });
            }
        }
    }

    fn newly_settled(&mut self, books: &Books) -> WindowId {
        let settled = books
            .windows
            .iter()
            .filter(|window| window.state == WindowState::Settled);
        let mut newly = settled.map(|window| window.id).filter(|id| !self.settled.contains(id));
        let id = newly.next().unwrap_or(WindowId::NONE);
        if id != WindowId::NONE {
            self.settled.insert(id);
        }
        id
    }

    /// Checks every day's directory that is there, and that those of days that are over are.
    pub(super) fn check(&self, books: &Books, settlement: &Path, notebook: &mut Notebook) -> u64 {
        let days = settlement.join("day");
        let names: BTreeSet<String> = std::fs::read_dir(&days)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        let mut files = 0;
        let mut expected = BTreeSet::new();
        for (date, currency) in self.days_and_currencies() {
            let name = format!("{}-{}", date.0, currency_code(currency));
            expected.insert(name.clone());
            let is_over = self.last.business_date() > date;
            if names.contains(&name) {
                files += self.check_day(books, date, currency, is_over, &days.join(&name), notebook);
            } else if is_over {
                notebook.remark(format!(
                    "day/{name} is not there: the day's statements were not checked"
                ));
            }
        }
        for name in names.difference(&expected) {
            let finding = Invariant::Replay.broken("no such day and currency in the journal".to_owned());
            notebook.find(finding.in_file(format!("day/{name}")));
        }
        files
    }

    fn days_and_currencies(&self) -> Vec<(BusinessDate, Currency)> {
        let Some(first) = self.first else { return Vec::new() };
        let currencies: BTreeSet<Currency> = self.accounts.keys().map(|&(_, currency)| currency).collect();
        (first.day_number()..=self.last.business_date().day_number())
            .flat_map(|day| {
                currencies
                    .iter()
                    .map(move |&currency| (BusinessDate::from_day_number(day), currency))
            })
            .collect()
    }

    fn check_day(
        &self,
        books: &Books,
        date: BusinessDate,
        currency: Currency,
        is_over: bool,
        directory: &Path,
        notebook: &mut Notebook,
    ) -> u64 {
        let shown = format!("day/{}-{}", date.0, currency_code(currency));
        let accounts: Vec<(u16, &CoverBook)> = self
            .accounts
            .iter()
            .filter(|((_, of), book)| *of == currency && book.movements.first().is_some_and(|first| first.date <= date))
            .map(|(&(participant, _), book)| (participant, book))
            .collect();
        let mut expected: BTreeSet<String> = ["SHA256SUMS".to_owned()].into();
        for &(participant, book) in &accounts {
            let participant = ParticipantIndex(participant);
            let name = format!("camt.053/{}.xml", code_of(books, participant));
            let file = format!("{shown}/{name}");
            expected.insert(name.clone());
            let statement = StatementOf {
                book,
                code: code_of(books, participant),
                date,
                currency,
                is_over,
                file: &file,
            };
            match read(&directory.join(&name), |document| statement.check(document, notebook)) {
                Ok(()) => notebook.checked(Invariant::Positions, "statements (camt.053): balances and entries", 1),
                Err(None) => {}
                Err(Some(error)) => notebook.find(Invariant::Files.broken(error).in_file(&*file)),
            }
        }
        check_directory(directory, &shown, &expected, |finding| finding, notebook)
    }
}

fn account_in_terms(books: &Books, participant: ParticipantIndex, currency: Currency) -> bool {
    let participant = books.participant_ref(participant);
    participant.is_some_and(|participant| participant.terms.account(currency).is_some())
}

struct StatementOf<'a> {
    book: &'a CoverBook,
    code: String,
    date: BusinessDate,
    currency: Currency,
    is_over: bool,
    file: &'a str,
}

impl StatementOf<'_> {
    fn finding(&self, what: String) -> Finding {
        Invariant::Positions.broken(what).in_file(self.file).of(&*self.code)
    }

    fn amount(&self, change: Position) -> String {
        let side = if change < 0 { "DBIT" } else { "CRDT" };
        format!("{side} {}", decimal(change.abs(), self.currency))
    }

    fn check(&self, document: &Element<'_>, notebook: &mut Notebook) {
        let Some(statement) = document.below("Stmt").into_iter().next() else {
            notebook.find(self.finding("has no statement".to_owned()));
            return;
        };
        let sum = |until: &dyn Fn(BusinessDate) -> bool| -> Position {
            let counted = self.book.movements.iter().filter(|movement| until(movement.date));
            counted.map(|movement| movement.change).sum()
        };
        let opening = sum(&|date| date < self.date);
        let closing = sum(&|date| date <= self.date);
        let balances = statement.path("Bal");
        let told = |code: &str| {
            let mut of_code = balances
                .iter()
                .filter(|balance| balance.text("Tp/CdOrPrtry/Cd") == code);
            of_code
                .next()
                .map(|balance| format!("{} {}", balance.text("CdtDbtInd"), balance.text("Amt")))
        };
        let nothing = || "nothing".to_owned();
        notebook.same(&self.amount(opening), &told("OPBD").unwrap_or_else(nothing), || {
            self.finding("the opening balance".to_owned())
        });
        let interim = told("ITBD").filter(|_| !self.is_over);
        notebook.same(
            &self.amount(closing),
            &told("CLBD").or(interim).unwrap_or_else(nothing),
            || self.finding("the closing balance".to_owned()),
        );
        let entries = statement.path("Ntry");
        let today: Vec<&Movement> = self
            .book
            .movements
            .iter()
            .filter(|movement| movement.date == self.date)
            .collect();
        notebook.same(&today.len(), &entries.len(), || {
            self.finding("the number of entries".to_owned())
        });
        for (movement, entry) in today.into_iter().zip(&entries) {
            let reason = match movement.reason {
                CoverReason::Opening => "OPENING",
                CoverReason::CoverIn => "COVER_IN",
                CoverReason::CoverOut => "COVER_OUT",
                CoverReason::Settled => "WINDOW_NET",
            };
            let right = format!("event {}, {reason} {}", movement.event, self.amount(movement.change));
            let there = format!(
                "event {}, {} {} {}",
                entry.text("NtryRef"),
                entry.text("BkTxCd/Prtry/Cd"),
                entry.text("CdtDbtInd"),
                entry.text("Amt")
            );
            notebook.same(&right, &there, || self.finding("an entry".to_owned()));
            if movement.reason == CoverReason::Settled {
                let named = entry.text("NtryDtls/TxDtls/Refs/ClrSysRef");
                notebook.same(&movement.window.to_string(), &named, || {
                    self.finding(format!("the window of the entry of event {}", movement.event))
                });
            }
        }
    }
}
