//! Time: UTC nanoseconds from the sequencer, and business dates in Asia/Shanghai (UTC+8, no daylight saving time).

use std::fmt;

use bytemuck::{Pod, Zeroable};

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// One second in nanoseconds.
pub const SECOND: u64 = NANOS_PER_SECOND;
/// One millisecond in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;

const SHANGHAI_OFFSET_SECONDS: u64 = 8 * 3_600;
const DAY_SECONDS: u64 = 86_400;

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct UtcNanos(pub u64);

impl UtcNanos {
    /// A time that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time `nanos` later, at most [`UtcNanos::NEVER`].
    #[must_use]
    pub const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds since `earlier`, or 0.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds into the business day in Asia/Shanghai.
    #[must_use]
    pub const fn shanghai_second_of_day(self) -> u64 {
        (self.0 / NANOS_PER_SECOND + SHANGHAI_OFFSET_SECONDS) % DAY_SECONDS
    }

    /// The business date in Asia/Shanghai.
    #[must_use]
    pub const fn business_date(self) -> BusinessDate {
        BusinessDate::from_day_number(self.day_number())
    }

    const fn day_number(self) -> u64 {
        (self.0 / NANOS_PER_SECOND + SHANGHAI_OFFSET_SECONDS) / DAY_SECONDS
    }

    /// True when a payment dated `date` may be accepted now: today, yesterday, and in the last five minutes of the
    /// day tomorrow, for clocks that run ahead.
    #[must_use]
    pub const fn is_open_date(self, date: BusinessDate) -> bool {
        let day = self.day_number();
        let tomorrow_is_open = self.shanghai_second_of_day() >= DAY_SECONDS - 300;
        date.0 == BusinessDate::from_day_number(day).0
            || date.0 == BusinessDate::from_day_number(day - 1).0
            || (tomorrow_is_open && date.0 == BusinessDate::from_day_number(day + 1).0)
    }
}

/// A business date as yyyymmdd.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct BusinessDate(pub u32);

impl BusinessDate {
    /// The date of a day counted from 1970-01-01 (proleptic Gregorian; Howard Hinnant's civil-from-days algorithm).
    #[must_use]
    pub const fn from_day_number(days: u64) -> Self {
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + if month <= 2 { 1 } else { 0 };
        Self((year * 10_000 + month * 100 + day) as u32)
    }

    /// The day counted from 1970-01-01: the inverse of [`BusinessDate::from_day_number`] for every date there is, and
    /// some number for any other (Howard Hinnant's days-from-civil algorithm).
    #[must_use]
    pub const fn day_number(self) -> u64 {
        let (month, day) = ((self.0 / 100 % 100) as u64, (self.0 % 100) as u64);
        let year = (self.0 / 10_000) as u64 - if month <= 2 && self.0 >= 10_000 { 1 } else { 0 };
        let (era, yoe) = (year / 400, year % 400);
        let mp = (month + 9) % 12;
        let doy = (153 * mp + 2) / 5 + day;
        let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
        (era * 146_097 + doe).saturating_sub(719_469)
    }
}

impl fmt::Display for BusinessDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}-{:02}-{:02}",
            self.0 / 10_000,
            self.0 / 100 % 100,
            self.0 % 100
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2019-02-04 (New Year's Eve) 23:56 in Shanghai is 15:56 UTC.
    const EVE_2356: u64 = 1_549_295_760;

    #[test]
    fn the_business_date_turns_at_midnight_in_shanghai() {
        assert_eq!(UtcNanos(EVE_2356 * SECOND).business_date(), BusinessDate(20_190_204));
        assert_eq!(
            UtcNanos((EVE_2356 + 240) * SECOND).business_date(),
            BusinessDate(20_190_205)
        );
    }

    #[test]
    fn tomorrow_is_open_in_the_last_five_minutes_only() {
        let eve = UtcNanos(EVE_2356 * SECOND);
        assert!(eve.is_open_date(BusinessDate(20_190_205)));
        assert!(!UtcNanos((EVE_2356 - 61) * SECOND).is_open_date(BusinessDate(20_190_205)));
        assert!(eve.is_open_date(BusinessDate(20_190_203)));
        assert!(!eve.is_open_date(BusinessDate(20_190_202)));
    }

    #[test]
    fn leap_days_exist() {
        assert_eq!(BusinessDate::from_day_number(11_016), BusinessDate(20_000_229));
        assert_eq!(BusinessDate::from_day_number(0), BusinessDate(19_700_101));
    }

    #[test]
    fn every_date_of_four_centuries_gives_its_day_back() {
        for day in 0..4 * 36_525 {
            assert_eq!(BusinessDate::from_day_number(day).day_number(), day);
        }
        // Numbers that are no dates are some day, and no panic.
        for number in [0, 1, 99, 9_999, 10_000, 20_261_399, u32::MAX] {
            let _ = BusinessDate(number).day_number();
        }
    }
}
