//! What came of a run: counts, latencies, the seconds one by one, and everything that should not have happened.

use std::sync::Mutex;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::closes::{CloseFigures, Closes};
use crate::domain::{Code, PaymentState, WindowId};

/// The longest latency told apart, nanoseconds (five minutes: past every T2).
const LATENCY_NS_MAX: u64 = 300_000_000_000;
/// Sentences kept about what should not have happened; the rest is counted.
const FINDINGS_MAX: usize = 40;

/// A latency histogram in nanoseconds with three digits.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

/// A quantile in microseconds.
#[must_use]
pub fn quantile_us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SecondFigures {
    /// Which second, from 0.
    pub second: u64,
    /// Payments sent.
    pub offered: u64,
    /// Payments that got their final answer.
    pub answered: u64,
    /// Of these, payments that a bank answered.
    pub bank_answered: u64,
    /// Sent and not yet answered at the second's end.
    pub in_flight: u64,
    /// Median switch latency of the second's answers, microseconds; `null` when there were none.
    pub p50_us: Option<f64>,
    /// 99th percentile of the switch latency, microseconds.
    pub p99_us: Option<f64>,
    /// Longest switch latency, microseconds.
    pub max_us: Option<f64>,
}

/// What a run shows while it runs; written once a second.
#[derive(Debug, Default)]
pub struct Live(Mutex<Option<SecondFigures>>);

impl Live {
    /// The latest whole second, once.
    #[must_use]
    pub fn take(&self) -> Option<SecondFigures> {
        self.0.lock().map_or(None, |mut second| second.take())
    }

    /// Shows a second; if the reader is looking at the last one, this one is not shown.
    fn show(&self, second: &SecondFigures) {
        if let Ok(mut shown) = self.0.try_lock() {
            *shown = Some(second.clone());
        }
    }
}

/// Counts and latencies of a run.
#[derive(Debug)]
pub struct Outcomes {
    /// Payments sent (repeats are not payments).
    pub offered: u64,
    /// With a final answer.
    pub answered: u64,
    /// The bank said yes, in time.
    pub committed: u64,
    /// The bank said no, or never saw it.
    pub declined: u64,
    /// Refused by the switch.
    pub rejected: u64,
    /// Never sent, or unanswered past T2.
    pub expired: u64,
    /// Refused or expired, and not provoked on purpose; or provoked, and not refused with that very code.
    pub rejected_unexpected: u64,
    /// Committed, or declined by the bank itself.
    pub bank_answered: u64,
    /// The same, while payments were still being offered.
    pub bank_answered_in_time: u64,
    /// Final answers by code.
    pub by_code: [u64; 100],
    /// Requests sent again on purpose.
    pub repeats_sent: u64,
    /// Requests sent again because no answer had come.
    pub retries_sent: u64,
    /// Answers 09.
    pub in_progress: u64,
    /// Stored answers, given again.
    pub stored: u64,
    /// Refusals at the door (37, 33): sent again later.
    pub not_taken: u64,
    /// Pushes that a bank saw.
    pub pushes_seen: u64,
    /// Of these, pushes that a bank has credited to its customer after a Confirm.
    pub confirmed: u64,
    /// Final notices of pushes, Confirms among them; each push counts once.
    pub notices: u64,
    /// Pushes that a bank saw and that have no notice at the end.
    pub notices_missing: u64,
    /// Inquiries of banks about pushes they have held too long.
    pub inquiries_sent: u64,
    /// Links lost while running.
    pub links_lost: u64,
    /// From the intended send time to the answer, nanoseconds.
    pub latency: Histogram<u64>,
    /// The same, less the time the bank held it.
    pub switch_latency: Histogram<u64>,
    /// The whole seconds.
    pub seconds: Vec<SecondFigures>,
    /// When the last answer came, nanoseconds from the run's start.
    pub last_answer_ns: u64,
    /// Sentences about what should not have happened.
    pub findings: Vec<String>,
    /// Findings that were only counted.
    pub findings_more: u64,
    second: SecondFigures,
    second_latency: Histogram<u64>,
    closes: Closes,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            offered: 0,
            answered: 0,
            committed: 0,
            declined: 0,
            rejected: 0,
            expired: 0,
            rejected_unexpected: 0,
            bank_answered: 0,
            bank_answered_in_time: 0,
            by_code: [0; 100],
            repeats_sent: 0,
            retries_sent: 0,
            in_progress: 0,
            stored: 0,
            not_taken: 0,
            pushes_seen: 0,
            confirmed: 0,
            notices: 0,
            notices_missing: 0,
            inquiries_sent: 0,
            links_lost: 0,
            latency: latency_histogram(),
            switch_latency: latency_histogram(),
            seconds: Vec::new(),
            last_answer_ns: 0,
            findings: Vec::new(),
            findings_more: 0,
            second: SecondFigures::default(),
            second_latency: latency_histogram(),
            closes: Closes::default(),
        }
    }
}

/// A final answer as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct FinalAnswer {
    /// When it came, from the run's start.
    pub at_ns: u64,
    /// From the intended send time.
    pub latency_ns: u64,
    /// How long the bank held it.
    pub held_ns: u64,
    /// Its code.
    pub code: Code,
    /// Its state; `None` for a refusal that never became a payment.
    pub state: Option<PaymentState>,
    /// The code that the load provoked on purpose.
    pub provoked: Option<Code>,
    /// The window it was committed in, or none.
    pub window: WindowId,
}

impl Outcomes {
    /// A payment was sent.
    #[inline]
    pub fn note_offered(&mut self) {
        self.offered += 1;
        self.second.offered += 1;
    }

    /// A payment has its final answer.
    #[inline]
    pub fn note_final(&mut self, answer: FinalAnswer) {
        self.answered += 1;
        self.second.answered += 1;
        self.last_answer_ns = answer.at_ns;
        self.by_code[answer.code as usize] += 1;
        match answer.state {
            Some(PaymentState::Committed) => self.committed += 1,
            Some(PaymentState::Declined) => self.declined += 1,
            Some(PaymentState::Expired) => self.expired += 1,
            Some(PaymentState::Rejected | PaymentState::Reserved | PaymentState::InDoubt) | None => self.rejected += 1,
        }
        // What was provoked must be refused with that very code; nothing else may be refused but by its bank.
        let is_the_banks_word = match answer.state {
            Some(PaymentState::Committed) => true,
            Some(PaymentState::Declined) => answer.code.is_bank_refusal(),
            Some(PaymentState::Expired | PaymentState::Rejected | PaymentState::Reserved | PaymentState::InDoubt)
            | None => false,
        };
        if is_the_banks_word {
            self.bank_answered += 1;
            self.second.bank_answered += 1;
        }
        let is_unexpected = match answer.provoked {
            Some(provoked) => provoked != answer.code,
            None => !is_the_banks_word,
        };
        self.rejected_unexpected += u64::from(is_unexpected);
        let switch_ns = answer.latency_ns.saturating_sub(answer.held_ns);
        self.latency.saturating_record(answer.latency_ns);
        self.switch_latency.saturating_record(switch_ns);
        self.second_latency.saturating_record(switch_ns);
        self.closes.note(answer.at_ns, switch_ns, answer.window);
    }

    /// No payment is offered any more.
    pub const fn note_load_ended(&mut self) {
        self.bank_answered_in_time = self.bank_answered;
    }

    /// Something should not have happened.
    #[cold]
    pub fn find(&mut self, sentence: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(sentence());
        } else {
            self.findings_more += 1;
        }
    }

    /// Latency beside the closes of windows; `None` without a close. To be asked when the run has ended.
    #[must_use]
    pub fn closes(&mut self) -> Option<CloseFigures> {
        self.closes.figures()
    }

    /// Sent and not yet answered.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.offered - self.answered
    }

    /// Closes the seconds before the one that `at_ns` from the run's start lies in, and shows the last.
    #[inline]
    pub fn roll(&mut self, at_ns: u64, live: &Live) {
        while self.second.second < at_ns / 1_000_000_000 {
            self.close_second(live);
        }
    }

    #[cold]
    fn close_second(&mut self, live: &Live) {
        let next = self.second.second + 1;
        self.second.in_flight = self.in_flight();
        if !self.second_latency.is_empty() {
            self.second.p50_us = Some(quantile_us(&self.second_latency, 0.5));
            self.second.p99_us = Some(quantile_us(&self.second_latency, 0.99));
            self.second.max_us = Some(self.second_latency.max() as f64 / 1_000.0);
            self.second_latency.reset();
        }
        live.show(&self.second);
        let closed = SecondFigures {
            second: next,
            ..SecondFigures::default()
        };
        self.seconds.push(std::mem::replace(&mut self.second, closed));
    }

    /// The most final answers in a whole second of the first `seconds`; `None` when there was no whole second.
    #[must_use]
    pub fn peak_per_second(&self, seconds: u64) -> Option<u64> {
        self.seconds
            .iter()
            .filter(|second| second.second < seconds)
            .map(|second| second.bank_answered)
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at_ns: u64, code: Code, state: PaymentState, provoked: Option<Code>) -> FinalAnswer {
        FinalAnswer {
            at_ns,
            latency_ns: 5_000_000,
            held_ns: 4_000_000,
            code,
            state: Some(state),
            provoked,
            window: WindowId::NONE,
        }
    }

    #[test]
    fn only_refusals_that_nobody_provoked_are_unexpected() {
        let mut outcomes = Outcomes::default();
        for (code, state, provoked) in [
            (Code::Committed, PaymentState::Committed, None),
            (Code::CustomerFunds, PaymentState::Declined, None),
            (Code::OnUs, PaymentState::Rejected, Some(Code::OnUs)),
            (Code::OnUs, PaymentState::Rejected, None),
            (Code::CoverExceeded, PaymentState::Rejected, Some(Code::OnUs)),
            (Code::BankTimeout, PaymentState::Expired, None),
            (
                Code::RefundExceedsOriginal,
                PaymentState::Rejected,
                Some(Code::RefundExceedsOriginal),
            ),
            (Code::RefundExceedsOriginal, PaymentState::Rejected, None),
            (
                Code::Committed,
                PaymentState::Committed,
                Some(Code::RefundExceedsOriginal),
            ),
        ] {
            outcomes.note_offered();
            outcomes.note_final(answer(1, code, state, provoked));
        }
        assert_eq!(outcomes.rejected_unexpected, 5);
        assert_eq!((outcomes.rejected, outcomes.bank_answered), (5, 3));
        assert_eq!(outcomes.in_flight(), 0);
    }

    #[test]
    fn seconds_hold_what_was_answered_in_them() {
        let (mut outcomes, live) = (Outcomes::default(), Live::default());
        for at_ns in [0, 999_999_999, 1_000_000_000, 3_100_000_000] {
            outcomes.roll(at_ns, &live);
            outcomes.note_offered();
            outcomes.note_final(answer(at_ns, Code::Committed, PaymentState::Committed, None));
        }
        let counts: Vec<u64> = outcomes.seconds.iter().map(|second| second.answered).collect();
        assert_eq!(counts, [2, 1, 0]);
        assert_eq!(outcomes.peak_per_second(2), Some(2));
        assert_eq!(outcomes.seconds[2].p99_us, None);
        assert!((outcomes.seconds[0].p99_us.unwrap() - 1_000.0).abs() < 2.0);
        assert_eq!(live.take().unwrap().second, 2);
        assert!(live.take().is_none());
    }
}
