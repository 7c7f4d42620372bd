//! Windows as the engine moves them: open, close, settle; and the invariants that are checked at a close.

use super::engine::{Breach, Engine, Event};
use crate::domain::{Currency, Position, WindowId, WindowState};
use crate::wire::{WindowAction, WindowEvent};

impl Engine {
    pub(super) fn window(&mut self, event: &Event<'_>) {
        let window: &WindowEvent = bytemuck::from_bytes(event.payload);
        let Some(action) = WindowAction::from_u8(window.action) else {
            return;
        };
        self.digest
            .add(window.window.0 ^ u64::from(window.action), event.number);
        match action {
            WindowAction::Open | WindowAction::Close => {
                let Some(currency_slot) = self.currency_slot(Currency(window.currency)) else {
                    return;
                };
                // What does not fit the currency's state is ignored; a date whose numbers are used up closes no more.
                let fits = self.windows.is_open(currency_slot) == (action == WindowAction::Close);
                if !fits || !self.windows.has_number(event.time) {
                    return;
                }
                if let Some(closed) = self.windows.close(currency_slot, event.time) {
                    let sum: Position = closed.nets.iter().sum();
                    let breach = (sum != 0).then_some(Breach::ZeroSum { window: closed.id, sum });
                    self.breach = self.breach.take().or(breach);
                    self.check_reservations();
                }
                self.windows
                    .open(window.currency, currency_slot, event.time, self.participants.len());
            }
            WindowAction::BeginSettlement => self.move_window(
                window.window,
                &[WindowState::Closed, WindowState::Aborted],
                WindowState::Settling,
            ),
            WindowAction::Aborted => self.move_window(window.window, &[WindowState::Settling], WindowState::Aborted),
            WindowAction::Settled => self.settle(window.window),
        }
    }

    fn move_window(&mut self, id: WindowId, from: &[WindowState], to: WindowState) {
        if let Some(window) = self.windows.find_mut(id)
            && from.contains(&window.state)
        {
            window.state = to;
        }
    }

    /// Position, cover and cap each fall by the window's net, so that settlement never changes headroom.
    fn settle(&mut self, id: WindowId) {
        let Some(window) = self.windows.find_mut(id) else {
            return;
        };
        if window.state != WindowState::Settling {
            return;
        }
        window.state = WindowState::Settled;
        let currency_slot = usize::from(window.currency_slot);
        for (participant, net) in self.participants.iter_mut().zip(&window.nets) {
            let account = &mut participant.accounts[currency_slot];
            account.position -= net;
            account.cover -= net;
            account.cap -= net;
        }
        #[cfg(test)]
        self.spoil_settlement(id);
    }

    fn check_reservations(&mut self) {
        let held = self
            .participants
            .iter()
            .flat_map(|p| &p.accounts)
            .map(|a| a.reserved)
            .sum();
        if held != self.open_sum && self.breach.is_none() {
            self.breach = Some(Breach::Reservations {
                held,
                open: self.open_sum,
            });
        }
    }
}
