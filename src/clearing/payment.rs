//! A payment's record in the engine's table: 64 bytes, one cache line.

use bytemuck::{Pod, Zeroable};

use super::residents::Place;
use crate::domain::{
    Amount, BindStep, Code, Currency, Direction, Kind, LinkId, ParticipantIndex, PaymentId, PaymentState, UtcNanos,
    WindowId,
};
use crate::wire::{Answer, FinalNotice, Frame, FrameHeader, RegisterEntry};

/// What the engine keeps of a payment.
///
/// ```text
///  0 id │ 16 digest u64 │ 24 amount u64 │ 32 accepted, later final time u64 │ 40 T2 deadline, later window u64
/// 48 link u32 │ 52 responder u16 │ 54 currency u16 │ 56 kind │ 57 scene │ 58 state │ 59 code │ 60 attempts │ 61 currency
/// slot │ 62 step │ 63 zero
/// ```
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PaymentRecord {
    pub(super) id: PaymentId,
    pub(super) digest: u64,
    pub(super) amount_minor: u64,
    /// When it was accepted while it is open; when it became final afterwards.
    pub(super) time_ns: u64,
    /// The T2 deadline while it is open; the window id when committed; else zero.
    pub(super) expiry_or_window: u64,
    /// The link the request came on, in the run of the switch that took it.
    pub(super) link: u32,
    pub(super) responder: ParticipantIndex,
    pub(super) currency: u16,
    pub(super) kind: u8,
    pub(super) scene: u8,
    pub(super) state: u8,
    pub(super) code: u8,
    /// Status requests raised.
    pub(super) attempts: u8,
    /// The currency's place among the scheme's currencies.
    pub(super) currency_slot: u8,
    /// The step of a Bind or Unbind.
    pub(super) step: u8,
    /// Zero.
    pub(super) reserved: u8,
}

const _: () = assert!(size_of::<PaymentRecord>() == 64);

impl PaymentRecord {
    /// A final payment as the register has it.
    pub(super) fn of_entry(entry: &RegisterEntry) -> Self {
        Self {
            id: entry.id,
            digest: entry.digest,
            amount_minor: entry.amount_minor,
            time_ns: entry.final_ns,
            expiry_or_window: entry.window.0,
            link: LinkId::NONE.0,
            responder: entry.responder,
            currency: entry.currency,
            kind: entry.kind,
            scene: entry.scene,
            state: entry.state,
            code: entry.code,
            attempts: 0,
            currency_slot: 0,
            step: entry.step,
            reserved: 0,
        }
    }

    /// The payment, now final, as the register keeps it.
    pub(super) fn entry(&self, place: &Place, related: [u64; 2]) -> RegisterEntry {
        RegisterEntry {
            id: self.id,
            digest: self.digest,
            amount_minor: self.amount_minor,
            position: place.position,
            accepted_ns: place.accepted_ns,
            final_ns: self.final_ns(),
            window: self.window(),
            related,
            responder: self.responder,
            currency: self.currency,
            kind: self.kind,
            scene: self.scene,
            state: self.state,
            code: self.code,
            step: self.step,
            reserved: [0; 7],
        }
    }

    #[inline]
    pub(super) fn state(&self) -> PaymentState {
        PaymentState::from_u8(self.state).expect("the engine alone writes payment states")
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.state <= PaymentState::InDoubt as u8
    }

    pub(super) fn amount(&self) -> Amount {
        Amount(self.amount_minor)
    }

    pub(super) fn currency(&self) -> Currency {
        Currency(self.currency)
    }

    pub(super) fn initiator(&self) -> ParticipantIndex {
        self.id.originator()
    }

    pub(super) fn link(&self) -> LinkId {
        LinkId(self.link)
    }

    /// Who sends money, who gets it; `None` for kinds without money.
    #[inline]
    pub(super) fn parties(&self) -> Option<Parties> {
        parties(Kind::from_u8(self.kind)?, self.initiator(), self.responder)
    }

    /// Who asks whom to move money.
    pub(super) fn direction(&self) -> Direction {
        Kind::from_u8(self.kind).map_or(Direction::None, Kind::direction)
    }

    #[inline]
    pub(super) fn is_kind(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    /// True for the step to which a bank's yes brings the mandate's token.
    pub(super) fn makes_mandate(&self) -> bool {
        self.is_kind(Kind::Bind) && self.step == BindStep::Sign as u8
    }

    /// The window of a committed payment.
    pub(super) fn window(&self) -> WindowId {
        if self.state == PaymentState::Committed as u8 {
            WindowId(self.expiry_or_window)
        } else {
            WindowId::NONE
        }
    }

    /// When the payment became final; 0 while it is open.
    pub(super) fn final_ns(&self) -> u64 {
        if self.is_open() { 0 } else { self.time_ns }
    }

    #[inline]
    pub(super) fn expiry(&self) -> UtcNanos {
        debug_assert!(self.is_open());
        UtcNanos(self.expiry_or_window)
    }

    /// Makes the payment final.
    #[inline]
    pub(super) fn finish(&mut self, state: PaymentState, code: Code, time: UtcNanos, window: WindowId) {
        debug_assert!(state.is_final());
        assert!(
            self.is_open(),
            "payment {} is final ({:?}) and can't become {state:?}",
            self.id,
            self.state()
        );
        self.state = state as u8;
        self.code = code as u8;
        self.time_ns = time.0;
        self.expiry_or_window = window.0;
    }

    /// The answer as it stands, word number `word` (0 = unnumbered).
    #[inline]
    pub(super) fn answer(&self, word: u64, code: u8, flags: u8) -> Answer {
        Answer {
            header: FrameHeader::new(Answer::TEMPLATE, size_of::<Answer>()),
            id: self.id,
            word,
            amount_minor: self.amount_minor,
            window: self.window(),
            final_ns: self.final_ns(),
            mandate_token: [0; 2],
            currency: self.currency,
            responder: self.responder,
            kind: self.kind,
            code,
            state: self.state,
            flags,
            reserved: 0,
        }
    }

    /// The final state as its bank is told it, word number `word`.
    pub(super) fn final_notice(&self, word: u64, flags: u8) -> FinalNotice {
        FinalNotice {
            header: FrameHeader::new(FinalNotice::TEMPLATE, size_of::<FinalNotice>()),
            id: self.id,
            word,
            amount_minor: self.amount_minor,
            window: self.window(),
            final_ns: self.final_ns(),
            currency: self.currency,
            kind: self.kind,
            code: self.code,
            state: self.state,
            flags,
            initiator: self.initiator(),
            reserved: 0,
        }
    }
}

/// Who will owe and who will be owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parties {
    pub(super) debtor: ParticipantIndex,
    pub(super) creditor: ParticipantIndex,
}

/// Who owes whom in a payment of this kind.
#[inline]
pub(super) fn parties(kind: Kind, initiator: ParticipantIndex, responder: ParticipantIndex) -> Option<Parties> {
    match kind.direction() {
        Direction::Pull => Some(Parties {
            debtor: responder,
            creditor: initiator,
        }),
        Direction::Push => Some(Parties {
            debtor: initiator,
            creditor: responder,
        }),
        Direction::None => None,
    }
}
