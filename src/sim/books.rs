//! The participants' own books, and how they are held against the switch's.
//!
//! An institution books from the answers it got, a bank from the words it said; nobody asks the switch.

use serde::{Deserialize, Serialize};

use crate::domain::{ParticipantIndex, WindowId};

/// One participant's book.
#[derive(Clone, Debug, Default)]
pub struct Book {
    credits: Vec<WindowCredit>,
    debits_minor: i128,
    debit_count: u64,
    reversed_minor: i128,
    reversed_count: u64,
}

#[derive(Clone, Copy, Debug)]
struct WindowCredit {
    window: WindowId,
    count: u64,
    minor: i128,
}

impl Book {
    /// An institution's payment was committed in `window`.
    #[inline]
    pub fn credit(&mut self, window: WindowId, amount_minor: u64) {
        let minor = i128::from(amount_minor);
        // The open window is the last one, nearly always.
        match self.credits.iter_mut().rev().find(|credit| credit.window == window) {
            Some(credit) => {
                credit.count += 1;
                credit.minor += minor;
            }
            None => self.credits.push(WindowCredit {
                window,
                count: 1,
                minor,
            }),
        }
    }

    /// A bank said yes.
    #[inline]
    pub fn debit(&mut self, amount_minor: u64) {
        self.debits_minor += i128::from(amount_minor);
        self.debit_count += 1;
    }

    /// A bank took a Reversal of something it had said yes to.
    pub fn reverse(&mut self, amount_minor: u64) {
        self.reversed_minor += i128::from(amount_minor);
        self.reversed_count += 1;
    }
}

/// A window as the switch reports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WindowFigures {
    /// Its id, `W…`.
    pub id: String,
    /// ISO 4217 numeric.
    pub currency: u16,
    /// open, closed, settling, settled, aborted.
    pub state: String,
    /// When it was opened, UTC nanoseconds.
    pub opened_ns: u64,
    /// When it was closed, UTC nanoseconds; 0 = not yet.
    pub closed_ns: u64,
    /// How many payments it holds.
    pub committed: u64,
    /// Their sum, minor units.
    pub gross_minor: i128,
    /// Net per participant: debits − credits, minor units; those that are 0 may be missing.
    pub nets: Vec<(u16, i128)>,
}

/// A participant as the switch reports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ParticipantFigures {
    /// Its dense number.
    pub index: u16,
    /// Its public code.
    pub code: String,
    /// Links that are established.
    pub links: u32,
    /// Debits − credits over windows not yet settled, minor units.
    pub position_minor: i128,
    /// Σ of what is open, minor units.
    pub reserved_minor: i128,
    /// What is prefunded, minor units.
    pub cover_minor: i128,
    /// What of it positions may use, minor units.
    pub cap_minor: i128,
}

/// The books of all participants by index.
#[derive(Clone, Debug, Default)]
pub struct Books {
    books: Vec<Book>,
}

impl Books {
    /// Empty books.
    #[must_use]
    pub fn new(participants: usize) -> Self {
        Self {
            books: vec![Book::default(); participants],
        }
    }

    /// A participant's book.
    #[inline]
    pub fn of(&mut self, participant: ParticipantIndex) -> &mut Book {
        &mut self.books[participant.index()]
    }

    /// Holds the books against the switch's windows and positions; gives a sentence for everything that differs.
    /// `before` are the windows as they stood before the run (none on a fresh journal).
    #[must_use]
    pub fn compare(
        &self,
        before: &[WindowFigures],
        windows: &[WindowFigures],
        participants: &[ParticipantFigures],
    ) -> Vec<String> {
        let mut findings = Vec::new();
        let grown: Vec<Grown> = windows.iter().map(|window| Grown::since(before, window)).collect();
        for window in &grown {
            self.compare_window(window, &mut findings);
        }
        for (index, book) in self.books.iter().enumerate() {
            for credit in &book.credits {
                let id = credit.window.to_string();
                if !grown.iter().any(|window| window.id == id) {
                    findings.push(format!(
                        "participant {index} holds {} committed answers in window {id}, which the switch does not have",
                        credit.count
                    ));
                }
            }
            let net: i128 = grown.iter().map(|window| window.net(index)).sum();
            let credited: i128 = book.credits.iter().map(|credit| credit.minor).sum();
            let own = book.debits_minor - book.reversed_minor - credited;
            if net != own {
                findings.push(format!(
                    "participant {index}: its own book says {own} minor units over all windows, the switch says {net} \
                     ({} yeses, {} reversed)",
                    book.debit_count, book.reversed_count
                ));
            }
        }
        for figures in participants {
            let unsettled: i128 = windows
                .iter()
                .filter(|window| window.state != "settled")
                .flat_map(|window| &window.nets)
                .filter(|(index, _)| *index == figures.index)
                .map(|(_, net)| net)
                .sum();
            if figures.position_minor != unsettled {
                findings.push(format!(
                    "participant {}: position {} is not the sum {unsettled} of its unsettled windows",
                    figures.index, figures.position_minor
                ));
            }
            if figures.reserved_minor != 0 {
                findings.push(format!(
                    "participant {}: {} minor units are still reserved though all is answered",
                    figures.index, figures.reserved_minor
                ));
            }
        }
        findings
    }

    fn compare_window(&self, window: &Grown, findings: &mut Vec<String>) {
        let (mut count, mut gross) = (0, 0);
        for (index, book) in self.books.iter().enumerate() {
            let Some(credit) = book
                .credits
                .iter()
                .find(|credit| credit.window.to_string() == window.id)
            else {
                continue;
            };
            count += credit.count;
            gross += credit.minor;
            if window.net(index) != -credit.minor {
                findings.push(format!(
                    "window {}: institution {index} was credited {} minor units, the switch's net is {}",
                    window.id,
                    credit.minor,
                    window.net(index)
                ));
            }
        }
        if (count, gross) != (window.committed, window.gross_minor) {
            findings.push(format!(
                "window {}: institutions hold {count} committed answers over {gross} minor units, the switch has {} \
                 over {}",
                window.id, window.committed, window.gross_minor
            ));
        }
    }
}

/// What a window grew by during the run.
struct Grown {
    id: String,
    committed: u64,
    gross_minor: i128,
    nets: Vec<i128>,
}

impl Grown {
    fn since(before: &[WindowFigures], window: &WindowFigures) -> Self {
        let mut grown = Self {
            id: window.id.clone(),
            committed: window.committed,
            gross_minor: window.gross_minor,
            nets: Vec::new(),
        };
        grown.add(&window.nets, 1);
        if let Some(earlier) = before.iter().find(|earlier| earlier.id == window.id) {
            grown.committed -= earlier.committed;
            grown.gross_minor -= earlier.gross_minor;
            grown.add(&earlier.nets, -1);
        }
        grown
    }

    fn add(&mut self, nets: &[(u16, i128)], sign: i128) {
        for &(index, net) in nets {
            let index = usize::from(index);
            if self.nets.len() <= index {
                self.nets.resize(index + 1, 0);
            }
            self.nets[index] += sign * net;
        }
    }

    fn net(&self, index: usize) -> i128 {
        self.nets.get(index).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BusinessDate;

    const WINDOW: WindowId = WindowId::new(BusinessDate(20_261_123), 1);

    fn one_payment() -> (Books, Vec<WindowFigures>, Vec<ParticipantFigures>) {
        let mut books = Books::new(2);
        books.of(ParticipantIndex(0)).credit(WINDOW, 500);
        books.of(ParticipantIndex(1)).debit(500);
        let window = WindowFigures {
            id: WINDOW.to_string(),
            currency: 156,
            state: "closed".into(),
            opened_ns: 1,
            closed_ns: 2,
            committed: 1,
            gross_minor: 500,
            nets: vec![(0, -500), (1, 500)],
        };
        let participant = |index, position_minor| ParticipantFigures {
            index,
            code: String::new(),
            links: 1,
            position_minor,
            reserved_minor: 0,
            cover_minor: 1_000,
            cap_minor: 1_000,
        };
        (books, vec![window], vec![participant(0, -500), participant(1, 500)])
    }

    #[test]
    fn books_that_agree_give_no_finding() {
        let (books, windows, participants) = one_payment();
        assert_eq!(books.compare(&[], &windows, &participants), Vec::<String>::new());
    }

    #[test]
    fn what_stood_before_the_run_is_not_held_against_it() {
        let (mut books, before, _) = one_payment();
        books.of(ParticipantIndex(0)).credit(WINDOW, 70);
        books.of(ParticipantIndex(1)).debit(70);
        let (_, mut windows, _) = one_payment();
        windows[0].committed = 3;
        windows[0].gross_minor = 1_070;
        windows[0].nets = vec![(0, -1_070), (1, 1_070)];
        assert_eq!(books.compare(&before, &windows, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_planted_fault_on_either_side_is_found() {
        type Fault = fn(&mut Books, &mut Vec<WindowFigures>, &mut Vec<ParticipantFigures>);
        let faults: [(&str, Fault); 8] = [
            ("a lost answer", |books, _, _| books.books[0] = Book::default()),
            ("an amount wrong by one", |books, _, _| {
                books.of(ParticipantIndex(0)).credit(WINDOW, 1);
            }),
            ("a yes the switch does not know", |books, _, _| {
                books.of(ParticipantIndex(1)).debit(9);
            }),
            ("a reversal the switch does not know", |books, _, _| {
                books.of(ParticipantIndex(1)).reverse(500);
            }),
            ("another window on the answers", |books, _, _| {
                books.books[0].credits[0].window = WindowId::new(BusinessDate(20_261_123), 2);
            }),
            ("a net that is another participant's", |_, windows, _| {
                windows[0].nets = vec![(0, 500), (1, -500)];
            }),
            ("a position that is not its windows'", |_, _, participants| {
                participants[1].position_minor += 1;
            }),
            ("cover that stays reserved", |_, _, participants| {
                participants[1].reserved_minor = 1;
            }),
        ];
        for (name, fault) in faults {
            let (mut books, mut windows, mut participants) = one_payment();
            fault(&mut books, &mut windows, &mut participants);
            assert_ne!(
                books.compare(&[], &windows, &participants),
                Vec::<String>::new(),
                "{name}"
            );
        }
    }
}
