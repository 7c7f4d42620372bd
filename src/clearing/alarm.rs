//! The alarm of a participant's cover: at 50, 75 and 90 % of its cap, falling again five points below.
//!
//! A payment costs one comparison, with a sum that is worked out anew only when cap or level change. The level is state:
//! between 45 and 50 % it depends on where use came from.

use super::engine::{Engine, Outlet};
use super::participant::Account;
use crate::domain::{Currency, ParticipantIndex, Position};
use crate::wire::Effect;

/// The levels, basis points of the cap, scheme-wide.
pub const COVER_LEVELS_BP: [u16; 3] = [5_000, 7_500, 9_000];
/// So far below a level use must be for the alarm to fall.
pub const COVER_HYSTERESIS_BP: u16 = 500;

impl Account {
    /// The level that use has come to, basis points of the cap; 0 = none.
    pub(super) fn level_bp(&self) -> u16 {
        self.level
            .checked_sub(1)
            .map_or(0, |level| COVER_LEVELS_BP[usize::from(level)])
    }

    /// The least use that is this share of the cap. Of a cap of nothing any use is all of it.
    fn share(&self, share_bp: u16) -> Position {
        if self.cap <= 0 {
            return 1;
        }
        // In two parts, so that no cap is too large for it.
        let (whole, rest, share) = (self.cap / 10_000, self.cap % 10_000, Position::from(share_bp));
        whole * share + (rest * share + 9_999) / 10_000
    }

    /// Works out what level and cap say of the use at which the level changes.
    pub(super) fn set_thresholds(&mut self) {
        let level = usize::from(self.level);
        self.rises_at = COVER_LEVELS_BP.get(level).map_or(Position::MAX, |&bp| self.share(bp));
        self.falls_below = match level.checked_sub(1) {
            Some(below) => self.share(COVER_LEVELS_BP[below] - COVER_HYSTERESIS_BP),
            None => Position::MIN,
        };
    }

    /// True when use has passed a threshold.
    #[inline]
    pub(super) fn is_past_threshold(&self) -> bool {
        self.used() >= self.rises_at || self.used() < self.falls_below
    }
}

impl Engine {
    /// After cap, or use by more than a payment, have changed.
    pub(super) fn watch_cover<O: Outlet>(&mut self, participant: ParticipantIndex, slot: usize, out: &mut O) {
        let account = &mut self.participants[participant.index()].accounts[slot];
        account.set_thresholds();
        if account.is_past_threshold() {
            self.alarm(participant, slot, out);
        }
    }

    /// Use has passed a threshold: the level changes, and that is told.
    #[cold]
    pub(super) fn alarm<O: Outlet>(&mut self, participant: ParticipantIndex, slot: usize, out: &mut O) {
        let account = &mut self.participants[participant.index()].accounts[slot];
        let before_bp = account.level_bp();
        while account.used() >= account.rises_at {
            account.level += 1;
            account.set_thresholds();
        }
        while account.used() < account.falls_below {
            account.level -= 1;
            account.set_thresholds();
        }
        #[cfg(test)]
        if self.planted == Some(super::fault::Fault::ForgetHysteresis) {
            account.falls_below = account.level.checked_sub(1).map_or(Position::MIN, |below| {
                account.share(COVER_LEVELS_BP[usize::from(below)])
            });
        }
        out.emit(Effect::CoverAlarm {
            participant,
            currency: Currency(self.scheme.currencies[slot]),
            level_bp: account.level_bp(),
            before_bp,
            used_minor: saturated(account.used()),
            cap_minor: saturated(account.cap),
        });
    }
}

/// For people: what does not fit is told as the most that does.
fn saturated(sum: Position) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}
