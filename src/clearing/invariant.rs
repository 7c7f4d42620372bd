//! The invariants, held live. What breaks one stops intake; inquiries are still answered.
//!
//! Each event costs two comparisons of counts that are kept apart (6 and 9), an admission one more (3), a commit one (4).
//! What needs sums over participants (1, 2, 5) is looked at when a window closes. Invariant 7 is the settler's, 8 the
//! follower's, 10 the links'.

use bytemuck::{Pod, Zeroable};
use thiserror::Error;

use super::engine::Engine;
use super::saved::{halves, whole};
use crate::domain::{Currency, ParticipantIndex, PaymentId, Position, WindowId};

/// An invariant that does not hold: intake stops, inquiries are still answered.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Breach {
    /// Invariant 1.
    #[error("invariant 1: the net positions of window {window} sum to {sum}, not 0")]
    ZeroSum {
        /// The window.
        window: WindowId,
        /// The sum, minor units.
        sum: Position,
    },
    /// Invariant 2: position and windows.
    #[error(
        "invariant 2: participant {participant} has position {position} in currency {currency}, its unsettled windows \
         come to {windows}"
    )]
    Position {
        /// Whose.
        participant: ParticipantIndex,
        /// The currency.
        currency: Currency,
        /// The account's position, minor units.
        position: Position,
        /// Σ of the participant's nets over unsettled windows.
        windows: Position,
    },
    /// Invariant 2: cover and its book.
    #[error(
        "invariant 2: participant {participant} has cover {cover} in currency {currency}, opening, top-ups, withdrawals and \
         settled nets come to {book}"
    )]
    Cover {
        /// Whose.
        participant: ParticipantIndex,
        /// The currency.
        currency: Currency,
        /// The account's cover, minor units.
        cover: Position,
        /// Opening + in − out − settled nets.
        book: Position,
    },
    /// Invariant 3.
    #[error("invariant 3: payment {payment} was admitted, and its debtor uses {used} of the cap {cap}")]
    OverCap {
        /// The payment.
        payment: PaymentId,
        /// Position and reservations, minor units.
        used: Position,
        /// The cap, minor units.
        cap: Position,
    },
    /// Invariant 4: a stamp.
    #[error("invariant 4: payment {payment} is stamped with window {stamped} while {open} is open")]
    Stamp {
        /// The payment.
        payment: PaymentId,
        /// The window on the payment.
        stamped: WindowId,
        /// The window that it was posted in.
        open: WindowId,
    },
    /// Invariant 4: counts.
    #[error("invariant 4: {committed} payments are committed, the windows hold {windows}")]
    Windows {
        /// Payments that became Committed.
        committed: u64,
        /// Σ over all windows.
        windows: u64,
    },
    /// Invariant 5.
    #[error("invariant 5: participants' reservations sum to {held}, open payments to {open}")]
    Reservations {
        /// Σ reserved over participants.
        held: Position,
        /// Σ amounts of open payments.
        open: Position,
    },
    /// Invariant 6: answers.
    #[error("invariant 6: {finals} payments are final, {answers} final answers were given")]
    Answers {
        /// Payments that became final.
        finals: u64,
        /// Final answers.
        answers: u64,
    },
    /// Invariant 6: states.
    #[error("invariant 6: {accepted} payments were accepted, {open} are open and {ended} ended")]
    Outcomes {
        /// Accepted.
        accepted: u64,
        /// Reserved and InDoubt.
        open: u64,
        /// Committed, Declined and Expired.
        ended: u64,
    },
    /// Invariant 9.
    #[error("invariant 9: {expired} pulls expired that may have been sent, {raised} Reversals were raised for them")]
    Reversals {
        /// Pulls that T2 ended.
        expired: u64,
        /// Reversals raised by T2.
        raised: u64,
    },
    /// The register has lost a payment.
    #[error("the register does not have payment {payment}, which was accepted")]
    Register {
        /// The payment.
        payment: PaymentId,
    },
}

/// Counts that must agree after every event.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Tally {
    /// Payments that became final.
    pub(super) finals: u64,
    /// Final answers, repetitions left out.
    pub(super) answers: u64,
    /// Pulls that T2 ended.
    pub(super) expired_pulls: u64,
    /// Reversals that T2 raised.
    pub(super) raised: u64,
}

impl Tally {
    #[inline]
    pub(super) fn agrees(&self) -> bool {
        (self.finals ^ self.answers) | (self.expired_pulls ^ self.raised) == 0
    }
}

impl Engine {
    /// Notes a breach; the first one stays.
    #[cold]
    pub(super) fn note_breach(&mut self, breach: Breach) {
        self.breach.get_or_insert(breach);
    }

    #[cold]
    pub(super) fn tally_differs(&mut self) {
        let tally = self.tally;
        if tally.finals != tally.answers {
            self.note_breach(Breach::Answers {
                finals: tally.finals,
                answers: tally.answers,
            });
        }
        if tally.expired_pulls != tally.raised {
            self.note_breach(Breach::Reversals {
                expired: tally.expired_pulls,
                raised: tally.raised,
            });
        }
    }

    /// What is looked at when a window of this currency has closed.
    pub(super) fn check_at_close(&mut self, currency_slot: usize) {
        self.check_positions(currency_slot);
        self.check_counts();
        self.check_reservations();
    }

    /// Invariant 2: each position is the sum of its unsettled windows, each cover what came in less what went out. The
    /// window that opens in this event has nothing in it yet.
    fn check_positions(&mut self, currency_slot: usize) {
        let currency = Currency(self.scheme.currencies[currency_slot]);
        let first = self.participants.iter().enumerate().find_map(|(index, participant)| {
            let account = &participant.accounts[currency_slot];
            let windows = self.windows.unsettled(currency_slot, index);
            let book = participant.books[currency_slot].closing();
            let participant = participant.terms.index;
            if account.position != windows {
                return Some(Breach::Position {
                    participant,
                    currency,
                    position: account.position,
                    windows,
                });
            }
            (account.cover != book).then_some(Breach::Cover {
                participant,
                currency,
                cover: account.cover,
                book,
            })
        });
        if let Some(breach) = first {
            self.note_breach(breach);
        }
    }

    /// Invariants 4 and 6: what was accepted is open or has ended, and what is committed is in a window.
    fn check_counts(&mut self) {
        let figures = &self.figures;
        let (accepted, open, committed) = (figures.accepted, figures.open(), figures.committed);
        let ended = committed + figures.declined + figures.expired;
        let windows = self.windows.committed();
        if windows != committed {
            self.note_breach(Breach::Windows { committed, windows });
        }
        if accepted != open + ended || ended + self.figures.rejected != self.tally.finals {
            self.note_breach(Breach::Outcomes { accepted, open, ended });
        }
    }

    /// Invariant 5.
    fn check_reservations(&mut self) {
        let accounts = self.participants.iter().flat_map(|p| &p.accounts);
        let held = accounts.map(|account| account.reserved).sum();
        if held != self.open_sum {
            self.note_breach(Breach::Reservations {
                held,
                open: self.open_sum,
            });
        }
    }
}

/// A breach as a snapshot has it: its number, then what it says.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BreachRow {
    number: u64,
    about: [u64; 3],
    first: [u64; 2],
    second: [u64; 2],
}

impl Breach {
    pub(super) fn row(&self) -> BreachRow {
        let row = |number, about, first, second| BreachRow {
            number,
            about,
            first: halves(first),
            second: halves(second),
        };
        let party = |participant: &ParticipantIndex, currency: &Currency| [participant.0.into(), currency.0.into(), 0];
        match self {
            Self::ZeroSum { window, sum } => row(1, [window.0, 0, 0], *sum, 0),
            Self::Position {
                participant,
                currency,
                position,
                windows,
            } => row(2, party(participant, currency), *position, *windows),
            Self::Cover {
                participant,
                currency,
                cover,
                book,
            } => row(3, party(participant, currency), *cover, *book),
            Self::OverCap { payment, used, cap } => row(4, [payment.high, payment.low, 0], *used, *cap),
            Self::Stamp { payment, stamped, open } => {
                row(5, [payment.high, payment.low, 0], stamped.0.into(), open.0.into())
            }
            Self::Windows { committed, windows } => row(6, [*committed, *windows, 0], 0, 0),
            Self::Reservations { held, open } => row(7, [0; 3], *held, *open),
            Self::Answers { finals, answers } => row(8, [*finals, *answers, 0], 0, 0),
            Self::Outcomes { accepted, open, ended } => row(9, [*accepted, *open, *ended], 0, 0),
            Self::Reversals { expired, raised } => row(10, [*expired, *raised, 0], 0, 0),
            Self::Register { payment } => row(11, [payment.high, payment.low, 0], 0, 0),
        }
    }

    /// What [`Breach::row`] gave; `None` for a number that is none.
    pub(super) fn of_row(row: &BreachRow) -> Option<Self> {
        let [high, low, third] = row.about;
        let payment = PaymentId { high, low };
        let (participant, currency) = (ParticipantIndex(high as u16), Currency(low as u16));
        let (first, second) = (whole(row.first), whole(row.second));
        Some(match row.number {
            1 => Self::ZeroSum {
                window: WindowId(high),
                sum: first,
            },
            2 => Self::Position {
                participant,
                currency,
                position: first,
                windows: second,
            },
            3 => Self::Cover {
                participant,
                currency,
                cover: first,
                book: second,
            },
            4 => Self::OverCap {
                payment,
                used: first,
                cap: second,
            },
            5 => Self::Stamp {
                payment,
                stamped: WindowId(first as u64),
                open: WindowId(second as u64),
            },
            6 => Self::Windows {
                committed: high,
                windows: low,
            },
            7 => Self::Reservations {
                held: first,
                open: second,
            },
            8 => Self::Answers {
                finals: high,
                answers: low,
            },
            9 => Self::Outcomes {
                accepted: high,
                open: low,
                ended: third,
            },
            10 => Self::Reversals {
                expired: high,
                raised: low,
            },
            11 => Self::Register { payment },
            _ => return None,
        })
    }
}
