//! The report that demo and bench share. A figure that was not measured is `null`, never 0.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::relay_load::Quantiles;
use crate::sim::{CloseFigures, LoadResult, SecondFigures, TallyFigures, quantile_us};

/// Everything a run is reported with.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `demo`, `bench flood`, `bench paced`.
    pub command: String,
    /// Of this program.
    pub version: &'static str,
    /// What it ran on.
    pub machine: MachineFigures,
    /// What was offered.
    pub load: LoadFigures,
    /// What came of it.
    pub payments: PaymentCounts,
    /// From the intended send time to the answer.
    pub latency_us: Option<LatencyFigures>,
    /// The same, less the time the bank held it.
    pub switch_latency_us: Option<LatencyFigures>,
    /// What the machine could do at best, measured in the same run.
    pub limit: LimitFigures,
    /// How near the switch came.
    pub ratio: RatioFigures,
    /// What a payment cost.
    pub cost: CostFigures,
    /// Whether everybody's books agree.
    pub audit: AuditFigures,
    /// The run second by second.
    pub seconds: Vec<SecondFigures>,
    /// Latency beside the closes of windows; `null` where none closed while payments were answered.
    pub closes: Option<CloseFigures>,
    /// What the load repeated, and what the switch said to that.
    pub repeats: RepeatFigures,
    /// How banks heard the end of pushes.
    pub pushes: PushFigures,
    /// What of a trace could not be played, by line.
    pub not_played: Vec<String>,
}

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct MachineFigures {
    /// The processor's name.
    pub cpu: Option<String>,
    /// Cores this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The file system under the journal.
    pub filesystem: Option<String>,
    /// `uring` or `mio`.
    pub backend: String,
    /// The hardware profile.
    pub profile: String,
    /// `direct` or `fdatasync`.
    pub sync: String,
    /// The syncer's scheduling class.
    pub syncer_class: String,
    /// `locked` or `prefaulted`.
    pub memory: String,
}

/// The load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadFigures {
    /// Simulated institutions.
    pub institutions: usize,
    /// Simulated banks.
    pub banks: usize,
    /// Links.
    pub links: usize,
    /// `uniform`, `zipf`, `evening`, `trace`.
    pub skew: String,
    /// Unanswered payments per institution in a closed loop; `null` in an open one.
    pub in_flight: Option<u32>,
    /// How long payments were offered.
    pub seconds: f64,
    /// The rate that was aimed at; `null` where there was none.
    pub offered_per_second: Option<u64>,
}

/// Payments, counted.
#[derive(Clone, Debug, Serialize)]
pub struct PaymentCounts {
    /// Sent.
    pub offered: u64,
    /// With a final answer.
    pub answered: u64,
    /// Posted.
    pub committed: u64,
    /// Refused by the bank.
    pub declined: u64,
    /// Refused by the switch.
    pub rejected: u64,
    /// Not sent, or unanswered past T2.
    pub expired: u64,
    /// Without a final answer when the grace time ended.
    pub unanswered: u64,
    /// Refused or expired though the load did not provoke it.
    pub rejected_unexpected: u64,
    /// Final answers by code.
    pub by_code: BTreeMap<String, u64>,
    /// The kinds that were offered.
    pub by_kind: BTreeMap<String, TallyFigures>,
    /// The scenes that were offered.
    pub by_scene: BTreeMap<String, TallyFigures>,
    /// Payments that a bank answered, per second of load.
    pub per_second: f64,
    /// The same in the best whole second.
    pub peak_per_second: Option<u64>,
}

/// A latency distribution, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LatencyFigures {
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// 99.99 %.
    pub p99_99: f64,
    /// The longest.
    pub max: f64,
}

impl LatencyFigures {
    /// The quantiles of a histogram in nanoseconds; `None` when it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            p50: quantile_us(histogram, 0.5),
            p90: quantile_us(histogram, 0.9),
            p99: quantile_us(histogram, 0.99),
            p99_9: quantile_us(histogram, 0.999),
            p99_99: quantile_us(histogram, 0.9999),
            max: histogram.max() as f64 / 1_000.0,
        })
    }
}

/// The machine's limits.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LimitFigures {
    /// Payments a second through a relay of the same frames over the same connections, no logic, no disk.
    pub relay_per_second: Option<f64>,
    /// Latency through that relay at the same rate.
    pub relay_latency_us: Option<Quantiles>,
    /// One bare durable write of 4 KiB.
    pub durable_write_us: Option<Quantiles>,
}

/// The switch against the limits.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RatioFigures {
    /// Payments a second ÷ the relay's.
    pub throughput: Option<f64>,
    /// Median switch latency ÷ (relay latency + two durable writes).
    pub latency_p50: Option<f64>,
    /// The same at 99 %.
    pub latency_p99: Option<f64>,
}

impl RatioFigures {
    /// The ratios that the measured figures give.
    #[must_use]
    pub fn of(per_second: f64, switch_latency: Option<&LatencyFigures>, limit: &LimitFigures) -> Self {
        let bound = limit.relay_latency_us.zip(limit.durable_write_us);
        let latency = |pick: fn(&LatencyFigures) -> f64, of: fn(&Quantiles) -> f64| {
            let (relay, write) = bound.as_ref()?;
            Some(pick(switch_latency?) / (of(relay) + 2.0 * of(write)))
        };
        Self {
            throughput: limit.relay_per_second.map(|relay| per_second / relay),
            latency_p50: latency(|l| l.p50, |q| q.p50),
            latency_p99: latency(|l| l.p99, |q| q.p99),
        }
    }
}

/// What a payment cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CostFigures {
    /// Journal growth, bytes.
    pub journal_bytes_per_payment: Option<f64>,
    /// The switch's system calls.
    pub syscalls_per_payment: Option<f64>,
    /// The switch's processor time, all threads.
    pub switch_cpu_us_per_payment: Option<f64>,
    /// The load's processor time.
    pub load_cpu_us_per_payment: Option<f64>,
    /// The switch's resident anonymous memory at the end, bytes.
    pub rss_bytes: Option<u64>,
}

/// The audit.
#[derive(Clone, Debug, Serialize)]
pub struct AuditFigures {
    /// All parts hold, and there is no finding.
    pub pass: bool,
    /// The nets of every window add up to zero.
    pub zero_sum: bool,
    /// Participants' own books agree with the switch's windows and positions.
    pub books_match: bool,
    /// Windows recomputed from the journal are the switch's.
    pub windows_match: bool,
    /// Replaying the journal gives the same state hash.
    pub replay_matches: bool,
    /// What is wrong, in words.
    pub findings: Vec<String>,
}

/// What the load sent more than once.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RepeatFigures {
    /// Requests repeated on purpose.
    pub repeated: u64,
    /// Requests sent again because no answer had come, or because they were not taken.
    pub retried: u64,
    /// Answers 09.
    pub in_progress: u64,
    /// Stored answers, given again.
    pub stored: u64,
    /// Refusals at the door.
    pub not_taken: u64,
    /// Links lost while running.
    pub links_lost: u64,
}

/// Pushes as their banks saw them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PushFigures {
    /// Pushes that a bank saw.
    pub seen: u64,
    /// Of these, pushes credited to a customer after a Confirm.
    pub confirmed: u64,
    /// Pushes whose final notice has come, Confirms among them.
    pub notices: u64,
    /// Pushes that a bank saw and whose final notice never came (must be 0).
    pub notices_missing: u64,
    /// Inquiries that banks made for want of a notice.
    pub inquiries: u64,
}

impl PushFigures {
    /// The counts of a run.
    #[must_use]
    pub const fn of(result: &LoadResult) -> Self {
        let outcomes = &result.outcomes;
        Self {
            seen: outcomes.pushes_seen,
            confirmed: outcomes.confirmed,
            notices: outcomes.notices,
            notices_missing: outcomes.notices_missing,
            inquiries: outcomes.inquiries_sent,
        }
    }
}

impl PaymentCounts {
    /// The counts of a run in which payments were offered for `seconds`, in a closed loop or an open one.
    #[must_use]
    pub fn of(result: &LoadResult, seconds: f64, closed_loop: bool) -> Self {
        let outcomes = &result.outcomes;
        let last_answer = outcomes.last_answer_ns as f64 / 1e9;
        let per_second = if closed_loop {
            // What was answered while the loop ran.
            outcomes.bank_answered_in_time as f64 / seconds
        } else if last_answer <= seconds + 1.0 {
            // Answered within a second of its end, the load was kept up with.
            outcomes.bank_answered as f64 / seconds
        } else {
            outcomes.bank_answered as f64 / last_answer
        };
        Self {
            offered: outcomes.offered,
            answered: outcomes.answered,
            committed: outcomes.committed,
            declined: outcomes.declined,
            rejected: outcomes.rejected,
            expired: outcomes.expired,
            unanswered: outcomes.in_flight(),
            rejected_unexpected: outcomes.rejected_unexpected,
            by_code: outcomes
                .by_code
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(|(code, count)| (format!("{code:02}"), *count))
                .collect(),
            by_kind: result.breakdown.by_kind(),
            by_scene: result.breakdown.by_scene(),
            per_second,
            peak_per_second: outcomes.peak_per_second(seconds as u64),
        }
    }
}

impl RepeatFigures {
    /// The counts of a run.
    #[must_use]
    pub const fn of(result: &LoadResult) -> Self {
        let outcomes = &result.outcomes;
        Self {
            repeated: outcomes.repeats_sent,
            retried: outcomes.retries_sent,
            in_progress: outcomes.in_progress,
            stored: outcomes.stored,
            not_taken: outcomes.not_taken,
            links_lost: outcomes.links_lost,
        }
    }
}

impl Report {
    /// True when the run was a good one: the audit passes, nothing is unanswered, nothing was refused unprovoked.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.audit.pass && self.payments.unanswered == 0 && self.payments.rejected_unexpected == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_that_were_not_measured_are_null_and_never_zero() {
        let latency = LatencyFigures {
            p50: 400.0,
            p90: 500.0,
            p99: 900.0,
            p99_9: 1_000.0,
            p99_99: 1_100.0,
            max: 1_200.0,
        };
        let none = RatioFigures::of(100.0, Some(&latency), &LimitFigures::default());
        assert_eq!(
            serde_json::to_string(&none).unwrap(),
            r#"{"throughput":null,"latency_p50":null,"latency_p99":null}"#
        );
        let limit = LimitFigures {
            relay_per_second: Some(400.0),
            relay_latency_us: Some(Quantiles { p50: 20.0, p99: 50.0 }),
            durable_write_us: Some(Quantiles { p50: 90.0, p99: 125.0 }),
        };
        let all = RatioFigures::of(100.0, Some(&latency), &limit);
        assert_eq!(
            serde_json::to_string(&all).unwrap(),
            r#"{"throughput":0.25,"latency_p50":2.0,"latency_p99":3.0}"#
        );
    }
}
