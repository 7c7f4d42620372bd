//! Clearing windows: exactly one open per currency; a payment is stamped with it when it commits.

use crate::domain::{BusinessDate, ParticipantIndex, Position, UtcNanos, WindowId, WindowState};

/// A window's number has four digits.
const NUMBER_MAX: u32 = 9_999;

/// So many settled windows keep their nets; of those before them id, times, count and gross stay.
pub(super) const SETTLED_WITH_NETS_MAX: usize = 256;

/// One window.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) id: WindowId,
    pub(super) currency: u16,
    pub(super) currency_slot: u8,
    pub(super) state: WindowState,
    pub(super) opened: UtcNanos,
    pub(super) closed: UtcNanos,
    pub(super) committed: u64,
    pub(super) gross: Position,
    /// Debits − credits per participant.
    pub(super) nets: Vec<Position>,
}

/// All windows, in the order of their opening.
#[derive(Debug, Default)]
pub(super) struct Windows {
    windows: Vec<Window>,
    /// Per currency slot.
    open: [Option<usize>; 4],
    /// Per currency slot: Σ of the nets of windows that are closed and not settled, by participant. Derived.
    unsettled: [Vec<Position>; 4],
    /// Payments committed in windows that are not open any more. Derived.
    closed_committed: u64,
    date: BusinessDate,
    opened_on_date: u32,
}

impl Windows {
    /// The windows as a snapshot has them.
    pub(super) fn restored(windows: Vec<Window>, date: BusinessDate, opened_on_date: u32) -> Self {
        let mut restored = Self {
            date,
            opened_on_date,
            ..Self::default()
        };
        for (number, window) in windows.iter().enumerate() {
            let slot = usize::from(window.currency_slot);
            match window.state {
                WindowState::Open => {
                    restored.open[slot] = Some(number);
                    continue;
                }
                WindowState::Settled => {}
                WindowState::Closed | WindowState::Settling | WindowState::Aborted => {
                    add(&mut restored.unsettled[slot], &window.nets);
                }
            }
            restored.closed_committed = restored.closed_committed.wrapping_add(window.committed);
        }
        restored.windows = windows;
        restored
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter()
    }

    /// The open windows, in the order of their currencies.
    pub(super) fn open_ones(&self) -> impl Iterator<Item = &Window> {
        self.open.iter().flatten().map(|&index| &self.windows[index])
    }

    /// The window payments in this currency commit into now.
    #[inline]
    pub(super) fn open_mut(&mut self, currency_slot: usize) -> Option<&mut Window> {
        self.open[currency_slot].map(|index| &mut self.windows[index])
    }

    /// Gives each open window a net for every participant there is.
    pub(super) fn make_room(&mut self, participants: usize) {
        for &index in self.open.iter().flatten() {
            self.windows[index].nets.resize(participants, 0);
        }
    }

    /// False when the business date has no window number of four digits left.
    pub(super) fn has_number(&self, time: UtcNanos) -> bool {
        time.business_date() != self.date || self.opened_on_date < NUMBER_MAX
    }

    /// What a participant's windows of a currency come to that are closed and not settled.
    pub(super) fn unsettled(&self, currency_slot: usize, participant: usize) -> Position {
        self.unsettled[currency_slot].get(participant).copied().unwrap_or(0)
    }

    /// A window's nets are settled: they count no more.
    pub(super) fn no_more_unsettled(&mut self, currency_slot: usize, nets: &[Position]) {
        for (sum, net) in self.unsettled[currency_slot].iter_mut().zip(nets) {
            *sum -= net;
        }
    }

    /// Payments committed in all windows.
    pub(super) fn committed(&self) -> u64 {
        let open: u64 = self.open_ones().map(|window| window.committed).sum();
        self.closed_committed + open
    }

    /// Lets go of the nets of settled windows, but for the last [`SETTLED_WITH_NETS_MAX`] of them that have any.
    pub(super) fn forget_settled_nets(&mut self) {
        let settled = self.windows.iter_mut().rev();
        let settled = settled.filter(|window| window.state == WindowState::Settled && !window.nets.is_empty());
        settled
            .skip(SETTLED_WITH_NETS_MAX)
            .for_each(|window| window.nets = Vec::new());
    }

    pub(super) fn is_open(&self, currency_slot: usize) -> bool {
        self.open[currency_slot].is_some()
    }

    pub(super) fn find_mut(&mut self, id: WindowId) -> Option<&mut Window> {
        self.windows.iter_mut().rev().find(|w| w.id == id)
    }

    /// Opens a window; a currency's open window must have been closed in the same event.
    pub(super) fn open(
        &mut self,
        currency: u16,
        currency_slot: usize,
        time: UtcNanos,
        participants: usize,
    ) -> WindowId {
        assert!(
            self.open[currency_slot].is_none(),
            "currency {currency} has an open window already"
        );
        let date = time.business_date();
        if date != self.date {
            (self.date, self.opened_on_date) = (date, 0);
        }
        self.opened_on_date += 1;
        let id = WindowId::new(date, self.opened_on_date);
        self.open[currency_slot] = Some(self.windows.len());
        self.windows.push(Window {
            id,
            currency,
            currency_slot: currency_slot as u8,
            state: WindowState::Open,
            opened: time,
            closed: UtcNanos(0),
            committed: 0,
            gross: 0,
            nets: vec![0; participants],
        });
        id
    }

    /// Closes the currency's open window.
    pub(super) fn close(&mut self, currency_slot: usize, time: UtcNanos) -> Option<&Window> {
        let index = self.open[currency_slot].take()?;
        let window = &mut self.windows[index];
        window.state = WindowState::Closed;
        window.closed = time;
        add(&mut self.unsettled[currency_slot], &window.nets);
        self.closed_committed += window.committed;
        Some(window)
    }

    /// What must be hashed besides the windows themselves.
    pub(super) fn numbering(&self) -> (BusinessDate, u32) {
        (self.date, self.opened_on_date)
    }
}

fn add(sums: &mut Vec<Position>, nets: &[Position]) {
    sums.resize(sums.len().max(nets.len()), 0);
    for (sum, net) in sums.iter_mut().zip(nets) {
        *sum = sum.wrapping_add(*net);
    }
}

impl Window {
    /// Posts a committed payment.
    #[inline]
    pub(super) fn post(&mut self, debtor: ParticipantIndex, creditor: ParticipantIndex, amount: Position) {
        self.nets[debtor.index()] += amount;
        self.nets[creditor.index()] -= amount;
        self.gross += amount;
        self.committed += 1;
    }

    /// Counts a committed payment that moves nothing.
    pub(super) fn count(&mut self) {
        self.committed += 1;
    }
}
