//! When windows close by themselves: every so often, and at times of day in Asia/Shanghai.
//!
//! Pure: it is asked with the switch's clock, which follows no step of the wall clock, and a time of day closes only
//! windows that were opened before it. So a time fires once, however the clock was moved and however often the switch was
//! started again, and one that was missed while the switch was down is made up for once.

use crate::config::WindowSettings;
use crate::domain::{SECOND, UtcNanos};

const DAY_SECONDS: u64 = 86_400;

/// The windows' schedule.
#[derive(Debug)]
pub(super) struct CloseSchedule {
    every_ns: Option<u64>,
    every_next: UtcNanos,
    at_s: Vec<u32>,
    at_next: UtcNanos,
    /// The last time of day before the switch was started, until it was asked for.
    missed: Option<UtcNanos>,
}

/// What is to be closed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Due {
    /// Every open window.
    pub(super) all: bool,
    /// Every open window that was opened before this time.
    pub(super) opened_before: Option<UtcNanos>,
}

impl CloseSchedule {
    pub(super) fn new(settings: &WindowSettings, now: UtcNanos) -> Self {
        let every_ns = settings.close_every_s.map(|every| every * SECOND);
        let mut schedule = Self {
            every_ns,
            every_next: every_ns.map_or(UtcNanos::NEVER, |every| now.plus(every)),
            at_s: settings.close_at_s.clone(),
            at_next: UtcNanos::NEVER,
            missed: None,
        };
        schedule.at_next = schedule.first_after(now);
        schedule.missed = schedule.last_until(now);
        schedule
    }

    /// When the next windows close; [`UtcNanos::NEVER`] = only when an operator asks.
    pub(super) fn next(&self) -> UtcNanos {
        self.every_next.min(self.at_next)
    }

    /// What is due. Each time is told once.
    pub(super) fn due(&mut self, now: UtcNanos) -> Due {
        let mut due = Due {
            all: false,
            opened_before: self.missed.take(),
        };
        if let Some(every) = self.every_ns
            && now >= self.every_next
        {
            self.every_next = now.plus(every);
            due.all = true;
        }
        if now >= self.at_next {
            due.opened_before = self.last_until(now);
            self.at_next = self.first_after(now);
        }
        due
    }

    /// The first time of day after `now`.
    fn first_after(&self, now: UtcNanos) -> UtcNanos {
        let midnight = midnight_before(now);
        let today = self.at_s.iter().map(|&at| midnight.plus(u64::from(at) * SECOND));
        let tomorrow = self.at_s.first();
        let tomorrow = tomorrow.map(|&at| midnight.plus((DAY_SECONDS + u64::from(at)) * SECOND));
        let mut times = today.chain(tomorrow);
        times.find(|&time| time > now).unwrap_or(UtcNanos::NEVER)
    }

    /// The last time of day that is not after `now`.
    fn last_until(&self, now: UtcNanos) -> Option<UtcNanos> {
        let midnight = midnight_before(now);
        let yesterday = self.at_s.last();
        let yesterday = yesterday.map(|&at| UtcNanos(midnight.0 + u64::from(at) * SECOND - DAY_SECONDS * SECOND));
        let today = self.at_s.iter().map(|&at| midnight.plus(u64::from(at) * SECOND));
        yesterday.into_iter().chain(today).rfind(|&time| time <= now)
    }
}

/// When the business day of `now` began in Asia/Shanghai, which knows no daylight saving time.
fn midnight_before(now: UtcNanos) -> UtcNanos {
    UtcNanos(now.0 - now.0 % SECOND - now.shanghai_second_of_day() * SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 00:00 in Shanghai is 2026-11-22 16:00 UTC.
    const MIDNIGHT: UtcNanos = UtcNanos(1_795_363_200 * SECOND);

    fn at(hour: u64, minute: u64) -> UtcNanos {
        MIDNIGHT.plus((hour * 60 + minute) * 60 * SECOND)
    }

    fn schedule(times: &[(u32, u32)], now: UtcNanos) -> CloseSchedule {
        let settings = WindowSettings {
            close_at_s: times.iter().map(|(hour, minute)| (hour * 60 + minute) * 60).collect(),
            ..WindowSettings::default()
        };
        CloseSchedule::new(&settings, now)
    }

    fn before(time: UtcNanos) -> Due {
        Due {
            all: false,
            opened_before: Some(time),
        }
    }

    #[test]
    fn a_time_of_day_is_shanghais_and_fires_once_a_day() {
        assert_eq!(MIDNIGHT.shanghai_second_of_day(), 0);
        let mut schedule = schedule(&[(1, 0), (9, 0)], at(8, 0));
        assert_eq!(schedule.due(at(8, 0)), before(at(1, 0)), "what was missed is told once");
        assert_eq!(schedule.due(at(8, 59)), Due::default());
        assert_eq!(schedule.next(), at(9, 0));
        assert_eq!(schedule.due(at(9, 0)), before(at(9, 0)));
        assert_eq!(schedule.due(at(9, 0).plus(1)), Due::default());
        assert_eq!(schedule.next(), at(25, 0));
        assert_eq!(schedule.due(at(25, 1)), before(at(25, 0)));
    }

    #[test]
    fn a_thread_that_slept_over_several_times_closes_by_the_last_of_them() {
        let mut schedule = schedule(&[(1, 0), (2, 0), (3, 0)], at(0, 30));
        let _yesterdays = schedule.due(at(0, 30));
        assert_eq!(schedule.due(at(2, 30)), before(at(2, 0)));
        assert_eq!(schedule.due(at(2, 31)), Due::default());
        assert_eq!(schedule.next(), at(3, 0));
    }

    #[test]
    fn the_last_time_missed_before_the_days_first_is_yesterdays() {
        let mut schedule = schedule(&[(9, 0), (21, 0)], at(1, 0));
        assert_eq!(schedule.due(at(1, 0)), before(UtcNanos(at(21, 0).0 - 86_400 * SECOND)));
    }

    #[test]
    fn without_times_only_the_interval_is_due() {
        let settings = WindowSettings {
            close_every_s: Some(60),
            ..WindowSettings::default()
        };
        let mut schedule = CloseSchedule::new(&settings, at(5, 0));
        assert_eq!(schedule.due(at(5, 0)), Due::default());
        let all = Due {
            all: true,
            opened_before: None,
        };
        assert_eq!(schedule.due(at(5, 1)), all);
        assert_eq!(schedule.next(), at(5, 2));
    }
}
