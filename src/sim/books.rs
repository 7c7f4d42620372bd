//! The participants' own books, and how they are held against the switch's.
//!
//! An institution books from the answers it got. A bank books a pull from the yes it said, and a push only from its
//! Confirm. Nobody asks the switch.

use serde::{Deserialize, Serialize};

use crate::domain::{Direction, ParticipantIndex, WindowId};

/// One participant's book.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Committed answers, by window.
    answers: Vec<WindowLine>,
    /// Confirmed pushes, by window.
    confirms: Vec<WindowLine>,
    debits_minor: i128,
    debit_count: u64,
    reversed_minor: i128,
    reversed_count: u64,
}

/// What a participant booked in one window.
#[derive(Clone, Copy, Debug)]
struct WindowLine {
    window: WindowId,
    /// All payments, those without money among them.
    count: u64,
    /// Of these, pushes.
    pushes: u64,
    /// What it is owed by pulls (an institution's) or pushes (a bank's), minor units.
    credits_minor: i128,
    /// What it owes by pushes, minor units.
    debits_minor: i128,
}

impl WindowLine {
    /// Debits − credits.
    const fn net_minor(&self) -> i128 {
        self.debits_minor - self.credits_minor
    }
}

impl Book {
    /// An institution's payment was committed in `window`; one without money counts there and moves nothing.
    #[inline]
    pub fn commit(&mut self, direction: Direction, window: WindowId, amount_minor: u64) {
        let line = line(&mut self.answers, window);
        line.count += 1;
        match direction {
            Direction::Pull => line.credits_minor += i128::from(amount_minor),
            Direction::Push => {
                line.pushes += 1;
                line.debits_minor += i128::from(amount_minor);
            }
            Direction::None => {}
        }
    }

    /// A bank said yes to a pull.
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

    /// A bank credited its customer after the Confirm of a push that was committed in `window`.
    pub fn confirm(&mut self, window: WindowId, amount_minor: u64) {
        let line = line(&mut self.confirms, window);
        line.count += 1;
        line.pushes += 1;
        line.credits_minor += i128::from(amount_minor);
    }

    /// Debits − credits over all windows.
    fn net_minor(&self) -> i128 {
        let lines = self.answers.iter().chain(&self.confirms);
        self.debits_minor - self.reversed_minor + lines.map(WindowLine::net_minor).sum::<i128>()
    }
}

/// The window's line. The open window is the last one, nearly always.
#[inline]
fn line(lines: &mut Vec<WindowLine>, window: WindowId) -> &mut WindowLine {
    let at = lines.iter().rposition(|line| line.window == window).unwrap_or_else(|| {
        lines.push(WindowLine {
            window,
            count: 0,
            pushes: 0,
            credits_minor: 0,
            debits_minor: 0,
        });
        lines.len() - 1
    });
    &mut lines[at]
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
            for (lines, what) in [(&book.answers, "committed answers"), (&book.confirms, "Confirms")] {
                for line in lines {
                    let id = line.window.to_string();
                    if !grown.iter().any(|window| window.id == id) {
                        findings.push(format!(
                            "participant {index} holds {} {what} in window {id}, which the switch does not have",
                            line.count
                        ));
                    }
                }
            }
            let net: i128 = grown.iter().map(|window| window.net(index)).sum();
            let own = book.net_minor();
            if net != own {
                findings.push(format!(
                    "participant {index}: its own book says {own} minor units over all windows, the switch says {net} \
                     ({} yeses to pulls, {} reversed, {} Confirms)",
                    book.debit_count,
                    book.reversed_count,
                    book.confirms.iter().map(|line| line.count).sum::<u64>()
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
        let (mut paid, mut confirmed) = ((0, 0), (0, 0));
        for (index, book) in self.books.iter().enumerate() {
            let of_window =
                |lines: &[WindowLine]| lines.iter().find(|line| line.window.to_string() == window.id).copied();
            if let Some(answers) = of_window(&book.answers) {
                count += answers.count;
                gross += answers.credits_minor + answers.debits_minor;
                paid.0 += answers.pushes;
                paid.1 += answers.debits_minor;
                if window.net(index) != answers.net_minor() {
                    findings.push(format!(
                        "window {}: institution {index} was credited {} minor units and paid {}, the switch's net is {}",
                        window.id,
                        answers.credits_minor,
                        answers.debits_minor,
                        window.net(index)
                    ));
                }
            }
            if let Some(confirms) = of_window(&book.confirms) {
                confirmed.0 += confirms.pushes;
                confirmed.1 += confirms.credits_minor;
                // A yes names no window; but what the bank owes by pulls in this one is no less than nothing.
                if window.net(index) < confirms.net_minor() {
                    findings.push(format!(
                        "window {}: bank {index} was credited {} minor units by its Confirms, the switch's net is {}",
                        window.id,
                        confirms.credits_minor,
                        window.net(index)
                    ));
                }
            }
        }
        if (count, gross) != (window.committed, window.gross_minor) {
            findings.push(format!(
                "window {}: institutions hold {count} committed answers over {gross} minor units, the switch has {} \
                 over {}",
                window.id, window.committed, window.gross_minor
            ));
        }
        if paid != confirmed {
            findings.push(format!(
                "window {}: institutions have paid {} pushes over {} minor units, banks hold Confirms of {} over {}",
                window.id, paid.0, paid.1, confirmed.0, confirmed.1
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
    const INSTITUTION: ParticipantIndex = ParticipantIndex(0);
    const BANK: ParticipantIndex = ParticipantIndex(1);

    /// A Debit of 500, a Payout of 80, a Refund of 20 and a Bind, all committed in one window.
    fn four_payments() -> (Books, Vec<WindowFigures>, Vec<ParticipantFigures>) {
        let mut books = Books::new(2);
        books.of(INSTITUTION).commit(Direction::Pull, WINDOW, 500);
        books.of(BANK).debit(500);
        for amount in [80, 20] {
            books.of(INSTITUTION).commit(Direction::Push, WINDOW, amount);
            books.of(BANK).confirm(WINDOW, amount);
        }
        books.of(INSTITUTION).commit(Direction::None, WINDOW, 0);
        let window = WindowFigures {
            id: WINDOW.to_string(),
            currency: 156,
            state: "closed".into(),
            opened_ns: 1,
            closed_ns: 2,
            committed: 4,
            gross_minor: 600,
            nets: vec![(0, -400), (1, 400)],
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
        (books, vec![window], vec![participant(0, -400), participant(1, 400)])
    }

    #[test]
    fn books_that_agree_give_no_finding() {
        let (books, windows, participants) = four_payments();
        assert_eq!(books.compare(&[], &windows, &participants), Vec::<String>::new());
    }

    #[test]
    fn what_stood_before_the_run_is_not_held_against_it() {
        let (mut books, before, _) = four_payments();
        books.of(INSTITUTION).commit(Direction::Pull, WINDOW, 70);
        books.of(BANK).debit(70);
        let (_, mut windows, _) = four_payments();
        windows[0].committed = 9;
        windows[0].gross_minor = 1_270;
        windows[0].nets = vec![(0, -870), (1, 870)];
        assert_eq!(books.compare(&before, &windows, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_planted_fault_on_either_side_is_found() {
        type Fault = fn(&mut Books, &mut Vec<WindowFigures>, &mut Vec<ParticipantFigures>);
        let faults: [(&str, Fault); 17] = [
            ("lost answers", |books, _, _| books.books[0] = Book::default()),
            ("an amount wrong by one", |books, _, _| {
                books.books[0].answers[0].credits_minor += 1;
            }),
            ("a yes the switch does not know", |books, _, _| {
                books.of(BANK).debit(9);
            }),
            ("a reversal the switch does not know", |books, _, _| {
                books.of(BANK).reverse(500);
            }),
            ("another window on the answers", |books, _, _| {
                books.books[0].answers[0].window = WindowId::new(BusinessDate(20_261_123), 2);
            }),
            ("a net that is another participant's", |_, windows, _| {
                windows[0].nets = vec![(0, 400), (1, -400)];
            }),
            ("a position that is not its windows'", |_, _, participants| {
                participants[1].position_minor += 1;
            }),
            ("cover that stays reserved", |_, _, participants| {
                participants[1].reserved_minor = 1;
            }),
            ("a bank that credits without a Confirm", |books, _, _| {
                books.of(BANK).confirm(WINDOW, 5);
            }),
            ("a bank that credits without knowing of a window", |books, _, _| {
                books.of(BANK).confirm(WindowId::NONE, 5);
            }),
            ("a bank that forgets to credit", |books, _, _| {
                books.books[1].confirms.clear();
            }),
            ("a bank that owes a push in place of being owed", |books, _, _| {
                books.books[1].confirms.clear();
                books.of(BANK).debit(100);
            }),
            ("another window on the Confirms", |books, _, _| {
                books.books[1].confirms[0].window = WindowId::new(BusinessDate(20_261_123), 2);
            }),
            ("an institution that books a refused payout", |books, _, _| {
                books.of(INSTITUTION).commit(Direction::Push, WINDOW, 7);
            }),
            ("an institution that books a payout as a debit", |books, _, _| {
                books.books[0].answers[0].debits_minor -= 80;
                books.books[0].answers[0].credits_minor += 80;
            }),
            ("a refund too much on both sides", |books, _, _| {
                books.of(INSTITUTION).commit(Direction::Push, WINDOW, 20);
                books.of(BANK).confirm(WINDOW, 20);
            }),
            ("a Bind that no window counts", |_, windows, _| {
                windows[0].committed -= 1
            }),
        ];
        for (name, fault) in faults {
            let (mut books, mut windows, mut participants) = four_payments();
            fault(&mut books, &mut windows, &mut participants);
            assert_ne!(
                books.compare(&[], &windows, &participants),
                Vec::<String>::new(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_confirm_in_another_window_is_found_though_all_windows_together_agree() {
        let (mut books, mut windows, _) = four_payments();
        let other = WindowId::new(BusinessDate(20_261_123), 2);
        windows.push(WindowFigures {
            id: other.to_string(),
            committed: 0,
            gross_minor: 0,
            nets: Vec::new(),
            ..windows[0].clone()
        });
        books.books[1].confirms[0].window = other;
        let findings = books.compare(&[], &windows, &[]);
        assert_eq!(findings.len(), 2, "{findings:#?}");
    }
}
