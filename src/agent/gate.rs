//! The intake gate: whether new payments are taken, and if not, why.

use std::sync::atomic::{AtomicU8, Ordering};

/// Why new payments are not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum IntakeState {
    /// They are taken.
    Open = 0,
    /// The switch is starting.
    Starting = 1,
    /// The journal has no prepared room.
    NoSpace = 2,
    /// The switch is shutting down.
    ShuttingDown = 3,
    /// An invariant does not hold, or the journal failed.
    Broken = 4,
}

impl IntakeState {
    /// The state's name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Starting => "starting",
            Self::NoSpace => "no_space",
            Self::ShuttingDown => "shutting_down",
            Self::Broken => "broken",
        }
    }
}

/// The gate, shared by all agents. A graver state is never replaced by a lighter one, but for Starting and NoSpace.
#[derive(Debug)]
pub struct IntakeGate(AtomicU8);

impl Default for IntakeGate {
    fn default() -> Self {
        Self(AtomicU8::new(IntakeState::Starting as u8))
    }
}

impl IntakeGate {
    /// The state now.
    #[must_use]
    #[inline]
    pub fn state(&self) -> IntakeState {
        match self.0.load(Ordering::Acquire) {
            0 => IntakeState::Open,
            1 => IntakeState::Starting,
            2 => IntakeState::NoSpace,
            3 => IntakeState::ShuttingDown,
            _ => IntakeState::Broken,
        }
    }

    /// True when payments are taken.
    #[must_use]
    #[inline]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) == IntakeState::Open as u8
    }

    /// Opens the gate, from Starting or NoSpace.
    pub fn open(&self) {
        self.change(IntakeState::Open);
    }

    /// Closes the gate.
    pub fn close(&self, state: IntakeState) {
        self.change(state);
    }

    fn change(&self, to: IntakeState) {
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now < IntakeState::ShuttingDown as u8 || to as u8 > now).then_some(to as u8)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_shuts_down_does_not_open_again() {
        let gate = IntakeGate::default();
        assert_eq!(gate.state(), IntakeState::Starting);
        gate.open();
        gate.close(IntakeState::NoSpace);
        gate.open();
        assert!(gate.is_open());
        gate.close(IntakeState::ShuttingDown);
        gate.open();
        gate.close(IntakeState::NoSpace);
        assert_eq!(gate.state(), IntakeState::ShuttingDown);
        gate.close(IntakeState::Broken);
        assert_eq!(gate.state(), IntakeState::Broken);
    }
}
