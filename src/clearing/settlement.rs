//! Windows as the engine moves them: open, close, settle.

use super::engine::{Engine, Event, Outlet};
use super::invariant::Breach;
use crate::domain::{Currency, ParticipantIndex, Position, WindowId, WindowState};
use crate::wire::{ClosedWindow, CoverMovement, CoverReason, WindowAction, WindowEvent};

impl Engine {
    pub(super) fn window<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
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
                    out.closed(&ClosedWindow {
                        id: closed.id,
                        currency: Currency(closed.currency),
                        opened: closed.opened,
                        closed: closed.closed,
                        event: event.number,
                        committed: closed.committed,
                        gross_minor: closed.gross,
                        nets: &closed.nets,
                    });
                    if let Some(breach) = breach {
                        self.note_breach(breach);
                    }
                    self.check_at_close(currency_slot);
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
            WindowAction::Settled => self.settle(window.window, event, out),
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
    fn settle<O: Outlet>(&mut self, id: WindowId, event: &Event<'_>, out: &mut O) {
        let Some(window) = self.windows.find_mut(id) else {
            return;
        };
        if window.state != WindowState::Settling {
            return;
        }
        window.state = WindowState::Settled;
        let currency_slot = usize::from(window.currency_slot);
        for (index, (participant, net)) in self.participants.iter_mut().zip(&window.nets).enumerate() {
            let account = &mut participant.accounts[currency_slot];
            account.position -= net;
            account.cover -= net;
            account.cap -= net;
            participant.books[currency_slot].settled += net;
            if *net != 0 {
                out.cover_moved(&CoverMovement {
                    event: event.number,
                    time: event.time,
                    participant: ParticipantIndex(index as u16),
                    currency: Currency(window.currency),
                    reason: CoverReason::Settled,
                    window: id,
                    change_minor: -net,
                    cover_minor: account.cover,
                });
            }
        }
        let nets = std::mem::take(&mut window.nets);
        self.windows.no_more_unsettled(currency_slot, &nets);
        if let Some(window) = self.windows.find_mut(id) {
            window.nets = nets;
        }
        #[cfg(test)]
        self.spoil_settlement(id);
        // Headroom is the same, but not the share of the cap that is used.
        for index in 0..self.participants.len() as u16 {
            self.watch_cover(ParticipantIndex(index), currency_slot, out);
        }
        self.windows.forget_settled_nets();
    }
}
