//! What demo and bench show: a live line each second, and the report in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::output::{Table, money};
use crate::domain::{Kind, Scene};
use crate::measure::report::{LatencyFigures, Report};
use crate::measure::run::Moment;
use crate::sim::TallyFigures;

/// The live line on stderr: redrawn in place on a terminal, a line a second elsewhere.
pub(super) struct Progress {
    terminal: bool,
    drawn: bool,
}

impl Progress {
    pub(super) const fn new(terminal: bool) -> Self {
        Self { terminal, drawn: false }
    }

    pub(super) fn show(&mut self, moment: &Moment) {
        let line = live_line(moment);
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            self.drawn = true;
        } else {
            eprintln!("{line}");
        }
    }

    /// Leaves the last line standing.
    pub(super) fn end(&mut self) {
        if self.drawn {
            eprintln!();
            self.drawn = false;
        }
    }
}

fn live_line(moment: &Moment) -> String {
    let Some(second) = &moment.second else {
        return settlement_line(moment);
    };
    let latency = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), milliseconds);
    let mut line = format!(
        "{:>4} s  {:>7}/s  p50 {:>8}  p99 {:>8}  in flight {:>6}",
        second.second + 1,
        second.answered,
        latency(second.p50_us),
        latency(second.p99_us),
        second.in_flight,
    );
    if let Some(status) = &moment.status {
        let _ = write!(line, "  reserved {:>15}", money(status.reserved_minor));
        if let Some(largest) = &status.largest_position {
            let _ = write!(line, "  largest {} {:>18}", largest.code, money(largest.minor));
        }
        if let Some(window) = &status.window {
            let _ = write!(line, "  {}", window.id);
        }
    }
    line
}

fn settlement_line(moment: &Moment) -> String {
    let Some((status, settlement)) = moment.status.as_ref().and_then(|s| Some((s, s.settlement.as_ref()?))) else {
        return "settling".to_owned();
    };
    let mut line = format!("settled {} windows", settlement.windows);
    let behind = status
        .follower
        .map_or(0, |follower| status.events.saturating_sub(follower.event));
    if behind > 0 {
        let _ = write!(line, "; what files are made of is {behind} events behind");
    }
    if settlement.rows_total > 0
        && let Some(window) = &settlement.window
    {
        let _ = write!(
            line,
            "; {window}: {} of {} payments",
            settlement.rows, settlement.rows_total
        );
    }
    if let Some(error) = &settlement.last_error {
        let _ = write!(line, "; {error}");
    }
    line
}

fn milliseconds(us: f64) -> String {
    format!("{:.2} ms", us / 1_000.0)
}

/// The report in words.
pub(super) fn run_report(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.machine;
    let unknown = || "unknown".to_owned();
    let _ = writeln!(
        text,
        "Machine\n  {}, {} cores, kernel {}, {}; {}, profile {}, sync {}, syncer {}, memory {}\n",
        machine.cpu.clone().unwrap_or_else(unknown),
        machine.cores,
        machine.kernel.clone().unwrap_or_else(unknown),
        machine.filesystem.clone().unwrap_or_else(unknown),
        machine.backend,
        machine.profile,
        machine.sync,
        machine.syncer_class,
        machine.memory,
    );
    let payments = &report.payments;
    let _ = writeln!(
        text,
        "Payments\n  {} offered in {} s, {:.0} a second, {} in the best second\n  {} committed, {} declined by a bank, {} \
         rejected ({} unexpected), {} expired, {} unanswered\n  {} repeated on purpose: {} in progress, {} stored answers; {} \
         tried again\n",
        payments.offered,
        report.load.seconds,
        payments.per_second,
        payments
            .peak_per_second
            .map_or_else(|| "?".to_owned(), |peak| peak.to_string()),
        payments.committed,
        payments.declined,
        payments.rejected,
        payments.rejected_unexpected,
        payments.expired,
        payments.unanswered,
        report.repeats.repeated,
        report.repeats.in_progress,
        report.repeats.stored,
        report.repeats.retried,
    );
    text.push_str(&tallies(report));
    text.push_str(&latency_table(report));
    text.push_str(&closes(report));
    text.push_str(&limits(report));
    text.push_str(&cost(report));
    text.push_str(&settlement(report));
    text.push_str(&audit(report));
    text
}

/// What settlement wrote.
fn settlement(report: &Report) -> String {
    let Some(settlement) = &report.settlement else {
        return String::new();
    };
    let seconds = settlement
        .seconds
        .map_or_else(String::new, |seconds| format!(" in {seconds:.2} s"));
    let root = settlement.root.as_deref().unwrap_or("none");
    format!(
        "Settlement\n  {} windows, {} files, {} MB{seconds}; the last window's root is {root}\n\n",
        settlement.windows,
        settlement.files,
        settlement.bytes / 1_000_000
    )
}

/// Latency beside the closes of windows.
fn closes(report: &Report) -> String {
    let Some(closes) = &report.closes else {
        return String::new();
    };
    let shown = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), milliseconds);
    format!(
        "  {} closes of a window: within 100 to 200 ms of one p50 {}, p99 {} ({} answers); apart from them p50 {}, p99 {}\n\n",
        closes.closes,
        shown(closes.beside_p50_us),
        shown(closes.beside_p99_us),
        closes.beside_answers,
        shown(closes.apart_p50_us),
        shown(closes.apart_p99_us),
    )
}

/// Payments by kind and scene, where there is more than one kind.
fn tallies(report: &Report) -> String {
    let (kinds, scenes) = (&report.payments.by_kind, &report.payments.by_scene);
    let mut text = String::new();
    if kinds.len() > 1 {
        let table = |heading, names: &[&str], tallies: &BTreeMap<String, TallyFigures>| {
            let mut table = Table::new(&[heading, "answered", "committed", "declined", "provoked", "success"]);
            for name in names {
                if let Some(tally) = tallies.get(*name) {
                    let counts = [tally.answered, tally.committed, tally.declined, tally.provoked];
                    let cells = counts.iter().map(ToString::to_string);
                    let success = percent(tally.success_rate);
                    table.row(
                        std::iter::once((*name).to_owned())
                            .chain(cells)
                            .chain([success])
                            .collect(),
                    );
                }
            }
            table.render()
        };
        let _ = writeln!(
            text,
            "{}\n{}",
            table("kind", &Kind::ALL.map(Kind::name), kinds),
            table("scene", &Scene::ALL.map(Scene::name), scenes)
        );
        let pushes = &report.pushes;
        let _ = writeln!(
            text,
            "  of {} pushes that a bank saw, {} were confirmed and credited, {} ended otherwise, {} have no notice; banks \
             inquired {} times\n",
            pushes.seen,
            pushes.confirmed,
            pushes.seen.saturating_sub(pushes.confirmed + pushes.notices_missing),
            pushes.notices_missing,
            pushes.inquiries,
        );
    }
    for line in &report.not_played {
        let _ = writeln!(text, "  {line}");
    }
    if !report.not_played.is_empty() {
        text.push('\n');
    }
    text
}

/// The share of payments that came to a bank's word, of those that were not made to be refused.
pub(super) fn percent(success_rate: Option<f64>) -> String {
    success_rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.3} %", rate * 100.0))
}

fn latency_table(report: &Report) -> String {
    let mut table = Table::new(&["latency, ms", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    let mut row = |name: &str, latency: &Option<LatencyFigures>| {
        if let Some(l) = latency {
            let cells = [l.p50, l.p90, l.p99, l.p99_9, l.p99_99, l.max];
            let cells = cells.iter().map(|us| format!("{:.3}", us / 1_000.0));
            table.row(std::iter::once(name.to_owned()).chain(cells).collect());
        }
    };
    row("with the bank", &report.latency_us);
    row("the switch alone", &report.switch_latency_us);
    format!("{}\n", table.render())
}

fn limits(report: &Report) -> String {
    let mut text = String::new();
    let (limit, ratio) = (&report.limit, &report.ratio);
    if let (Some(relay), Some(share)) = (limit.relay_per_second, ratio.throughput) {
        let _ = writeln!(
            text,
            "  a relay without logic or disk makes {relay:.0} a second: the switch {share:.2} of that"
        );
    }
    if let Some(relay) = limit.relay_latency_us {
        let _ = writeln!(text, "  relay latency p50 {:.1} µs, p99 {:.1} µs", relay.p50, relay.p99);
    }
    if let Some(write) = limit.durable_write_us {
        let _ = writeln!(
            text,
            "  a bare durable write p50 {:.1} µs, p99 {:.1} µs",
            write.p50, write.p99
        );
    }
    if let (Some(p50), Some(p99)) = (ratio.latency_p50, ratio.latency_p99) {
        let _ = writeln!(
            text,
            "  switch latency ÷ (relay + two durable writes): p50 {p50:.2}, p99 {p99:.2}"
        );
    }
    if text.is_empty() {
        text
    } else {
        format!("Limits\n{text}\n")
    }
}

fn cost(report: &Report) -> String {
    let cost = &report.cost;
    let figure = |figure: Option<f64>| figure.map_or_else(|| "?".to_owned(), |figure| format!("{figure:.2}"));
    format!(
        "Cost of a payment\n  {} bytes of journal, {} system calls, {} µs of the switch's processor time, {} µs of the \
         load's; the switch held {} MB\n\n",
        figure(cost.journal_bytes_per_payment),
        figure(cost.syscalls_per_payment),
        figure(cost.switch_cpu_us_per_payment),
        figure(cost.load_cpu_us_per_payment),
        cost.rss_bytes
            .map_or_else(|| "?".to_owned(), |bytes| (bytes / 1_000_000).to_string()),
    )
}

fn audit(report: &Report) -> String {
    let audit = &report.audit;
    let line = |holds: bool, what: &str| format!("  {} {what}\n", if holds { "ok    " } else { "FAILED" });
    let mut text = "Audit\n".to_owned();
    text += &line(audit.zero_sum, "every window's nets add up to zero");
    text += &line(
        audit.books_match,
        "the participants' own books agree with the switch's windows and positions",
    );
    text += &line(
        audit.windows_match,
        "windows recomputed from the journal are the switch's",
    );
    text += &line(
        audit.replay_matches,
        "replaying the journal gives the same state, bit for bit",
    );
    for finding in &audit.findings {
        let _ = writeln!(text, "  - {finding}");
    }
    text += if report.is_well() { "PASS\n" } else { "FAIL\n" };
    text
}
