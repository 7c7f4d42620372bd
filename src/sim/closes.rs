//! Latency beside the closes of windows: is a payment slower while a window closes?
//!
//! The run is cut into slices of 100 ms. A slice in which the first answer of a later window came, and the slice behind it, lie
//! *beside* a close; all others lie apart from one.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::outcome::{latency_histogram, quantile_us};
use crate::domain::WindowId;

const SLICE_NS: u64 = 100_000_000;

/// What was seen so far.
#[derive(Debug)]
pub(super) struct Closes {
    count: u64,
    last_window: WindowId,
    slice: u64,
    of_slice: Histogram<u64>,
    closed_in_slice: bool,
    closed_before: bool,
    beside: Histogram<u64>,
    apart: Histogram<u64>,
}

impl Default for Closes {
    fn default() -> Self {
        Self {
            count: 0,
            last_window: WindowId::NONE,
            slice: 0,
            of_slice: latency_histogram(),
            closed_in_slice: false,
            closed_before: false,
            beside: latency_histogram(),
            apart: latency_histogram(),
        }
    }
}

impl Closes {
    /// Takes an answer: when it came, from the run's start; what the switch took; its window, or none.
    #[inline]
    pub(super) fn note(&mut self, at_ns: u64, switch_ns: u64, window: WindowId) {
        if at_ns / SLICE_NS != self.slice {
            self.next_slice(at_ns / SLICE_NS);
        }
        self.of_slice.saturating_record(switch_ns);
        if window.0 > self.last_window.0 {
            // The first window of the run was opened, not closed into.
            if self.last_window != WindowId::NONE {
                self.count += 1;
                self.closed_in_slice = true;
            }
            self.last_window = window;
        }
    }

    fn next_slice(&mut self, slice: u64) {
        let into = if self.closed_in_slice || self.closed_before {
            &mut self.beside
        } else {
            &mut self.apart
        };
        *into += &self.of_slice;
        self.of_slice.reset();
        self.closed_before = std::mem::take(&mut self.closed_in_slice) && slice == self.slice + 1;
        self.slice = slice;
    }

    /// What came of it; `None` without a close.
    pub(super) fn figures(&mut self) -> Option<CloseFigures> {
        self.next_slice(self.slice + 2);
        (self.count > 0).then(|| CloseFigures {
            closes: self.count,
            beside_answers: self.beside.len(),
            beside_p50_us: known(&self.beside, 0.5),
            beside_p99_us: known(&self.beside, 0.99),
            apart_answers: self.apart.len(),
            apart_p50_us: known(&self.apart, 0.5),
            apart_p99_us: known(&self.apart, 0.99),
        })
    }
}

fn known(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| quantile_us(histogram, quantile))
}

/// The switch's latency within 100 to 200 ms of a close, and all other.
#[derive(Clone, Debug, Serialize)]
pub struct CloseFigures {
    /// Closes that answers showed.
    pub closes: u64,
    /// Answers beside a close.
    pub beside_answers: u64,
    /// Their median, microseconds.
    pub beside_p50_us: Option<f64>,
    /// Their 99th percentile, microseconds.
    pub beside_p99_us: Option<f64>,
    /// All other answers.
    pub apart_answers: u64,
    /// Their median, microseconds.
    pub apart_p50_us: Option<f64>,
    /// Their 99th percentile, microseconds.
    pub apart_p99_us: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BusinessDate;

    #[test]
    fn what_is_slow_beside_a_close_shows_beside_it_and_nowhere_else() {
        let window = |number| WindowId::new(BusinessDate(20_260_204), number);
        let mut closes = Closes::default();
        for slice in 0..20 {
            // The window closes in slice 10; answers are slow there and in the next one.
            let slow = slice == 10 || slice == 11;
            for answer in 0..100 {
                let at_ns = slice * SLICE_NS + answer * 1_000_000;
                let number = if slice >= 10 { 2 } else { 1 };
                closes.note(at_ns, if slow { 5_000_000 } else { 1_000_000 }, window(number));
            }
        }
        let figures = closes.figures().expect("a window closed");
        assert_eq!(
            (figures.closes, figures.beside_answers, figures.apart_answers),
            (1, 200, 1_800)
        );
        assert!(
            figures.beside_p50_us.unwrap() > 4_900.0 && figures.apart_p99_us.unwrap() < 1_100.0,
            "{figures:?}"
        );
    }

    #[test]
    fn without_a_close_there_is_nothing_to_say() {
        let mut closes = Closes::default();
        closes.note(1, 1_000, WindowId::new(BusinessDate(20_260_204), 1));
        closes.note(2, 1_000, WindowId::NONE);
        assert!(closes.figures().is_none());
    }
}
