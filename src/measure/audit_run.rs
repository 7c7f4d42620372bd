//! The audit at a run's end: four parts, each from another source, none of them the switch's own word alone.
//!
//! | part | what is compared |
//! |---|---|
//! | zero sum | the nets of every window, as the switch states them and as the journal gives them |
//! | books match | the simulated participants' own books against the switch's windows and positions, and against settlement's files |
//! | windows match | the switch's statement against the auditor's, which reads the journal by itself |
//! | replay matches | the state hash the switch ended with against the one that a replay of the journal gives |

use std::collections::BTreeMap;
use std::path::Path;

use super::report::AuditFigures;
use super::settled_files::{self, SettlementFigures};
use super::switch_child::Shutdown;
use crate::audit::{Recomputed, StateCounts, Statement, WindowTotals, recompute};
use crate::domain::{Currency, WindowId, WindowState};
use crate::sim::{LoadResult, WindowFigures};
use crate::switch::replay;

/// Findings kept of each kind; the rest is counted.
const FINDINGS_MAX: usize = 20;

/// All that a verdict rests on.
#[derive(Clone, Debug)]
struct Evidence {
    /// What the switch left.
    shutdown: Shutdown,
    /// What the auditor makes of the journal.
    recomputed: Result<Recomputed, String>,
    /// The last event's number and the state hash that a replay gives.
    replayed: Result<(u64, String), String>,
    /// Where the participants' books differ.
    books: Vec<String>,
    /// What should not have happened on the links.
    conduct: Vec<String>,
}

/// Audits a run: reads the journal in `data`/journal twice, once by the auditor and once through the engine. `before` are
/// the windows as they stood before the run.
#[must_use]
pub fn audit(
    data: &Path,
    result: &LoadResult,
    before: &[WindowFigures],
    shutdown: &Shutdown,
) -> (AuditFigures, Option<SettlementFigures>) {
    let journal = data.join("journal");
    let (recomputed, replayed) = std::thread::scope(|scope| {
        let recomputed = scope.spawn(|| recompute(&journal, |_| {}).map_err(|error| error.to_string()));
        let replayed = replay(&journal, None, |_| {})
            .map(|ledger| (ledger.event_number, ledger.hash.to_string()))
            .map_err(|error| error.to_string());
        let recomputed = recomputed
            .join()
            .unwrap_or_else(|_| Err("the auditor itself failed".to_owned()));
        (recomputed, replayed)
    });
    let outcomes = &result.outcomes;
    let mut conduct = outcomes.findings.clone();
    if outcomes.findings_more > 0 {
        conduct.push(format!("and {} more of this kind", outcomes.findings_more));
    }
    let before = &with_all_nets(before, recomputed.as_ref().ok());
    let windows = with_all_nets(&shutdown.windows, recomputed.as_ref().ok());
    let mut books = result.books.compare(before, &windows, &shutdown.participants);
    let settled = shutdown
        .status
        .settlement
        .as_ref()
        .filter(|settlement| settlement.files_are_written);
    let figures = settled.and_then(|settlement| {
        let read = settled_files::read(&data.join("settlement"), &shutdown.windows, &shutdown.participants);
        match read {
            Ok(read) => {
                books.extend(read.findings);
                // The same books, against what participants are sent.
                let against_files = result.books.compare(before, &read.windows, &shutdown.participants);
                books.extend(
                    against_files
                        .into_iter()
                        .map(|finding| format!("by the detail files: {finding}")),
                );
                let seconds = settlement.ms.map(|ms| ms as f64 / 1_000.0);
                Some(SettlementFigures {
                    seconds,
                    ..read.figures
                })
            }
            Err(error) => {
                books.push(format!("settlement's files can't be read: {error}"));
                None
            }
        }
    });
    let judged = judge(Evidence {
        shutdown: shutdown.clone(),
        recomputed,
        replayed,
        books,
        conduct,
    });
    (judged, figures)
}

/// The windows with the nets that the switch states no more, of windows settled long ago, as the journal gives them.
fn with_all_nets(windows: &[WindowFigures], recomputed: Option<&Recomputed>) -> Vec<WindowFigures> {
    let mut windows = windows.to_vec();
    for window in &mut windows {
        if window.state != WindowState::Settled.name() || !window.nets.is_empty() {
            continue;
        }
        let journaled = recomputed.and_then(|ours| ours.windows.iter().find(|w| w.id.to_string() == window.id));
        if let Some(journaled) = journaled {
            window.nets = journaled.nets.iter().map(|(&index, &net)| (index, net)).collect();
        }
    }
    windows
}

fn judge(evidence: Evidence) -> AuditFigures {
    let shutdown = &evidence.shutdown;
    let mut findings = Vec::new();
    let mut zero_sum = true;
    for window in &shutdown.windows {
        let sum: i128 = window.nets.iter().map(|(_, net)| net).sum();
        if sum != 0 {
            zero_sum = false;
            findings.push(format!(
                "window {}: the switch's nets add up to {sum}, not to 0",
                window.id
            ));
        }
    }
    let mut windows_match = false;
    match &evidence.recomputed {
        Ok(recomputed) => {
            zero_sum &= recomputed.is_zero_sum();
            match statement(shutdown) {
                Ok(statement) => {
                    let differences = recomputed.differences(&statement);
                    windows_match = differences.is_empty();
                    add(&mut findings, differences);
                }
                Err(unreadable) => findings.push(unreadable),
            }
            add(&mut findings, recomputed.findings.clone());
        }
        Err(error) => findings.push(format!("the journal can't be audited: {error}")),
    }
    let books_match = evidence.books.is_empty();
    add(&mut findings, evidence.books);
    let mut replay_matches = false;
    match &evidence.replayed {
        Ok((event_number, hash)) => {
            replay_matches = *event_number == shutdown.event_number && *hash == shutdown.state_hash;
            if !replay_matches {
                findings.push(format!(
                    "replay ends at event {event_number} with state {hash}, the switch ended at event {} with {}",
                    shutdown.event_number, shutdown.state_hash
                ));
            }
        }
        Err(error) => findings.push(format!("the journal can't be replayed: {error}")),
    }
    add(&mut findings, evidence.conduct);
    AuditFigures {
        pass: zero_sum && books_match && windows_match && replay_matches && findings.is_empty(),
        zero_sum,
        books_match,
        windows_match,
        replay_matches,
        findings,
    }
}

fn add(findings: &mut Vec<String>, mut more: Vec<String>) {
    let left = more.len().saturating_sub(FINDINGS_MAX);
    more.truncate(FINDINGS_MAX);
    findings.append(&mut more);
    if left > 0 {
        findings.push(format!("and {left} more of this kind"));
    }
}

/// What the switch says of itself, in the auditor's words.
fn statement(shutdown: &Shutdown) -> Result<Statement, String> {
    let payments = &shutdown.status.payments;
    Ok(Statement {
        events: shutdown.event_number,
        payments: StateCounts {
            accepted: payments.accepted,
            reserved: payments.reserved,
            in_doubt: payments.in_doubt,
            committed: payments.committed,
            declined: payments.declined,
            expired: payments.expired,
            rejected: payments.rejected,
        },
        positions: shutdown.participants.iter().map(|p| p.position_minor).collect(),
        reserved: shutdown.participants.iter().map(|p| p.reserved_minor).collect(),
        windows: shutdown.windows.iter().map(window_totals).collect::<Result<_, _>>()?,
        reversals_open: shutdown
            .status
            .reversals
            .map(|reversals| reversals.due + reversals.manual),
    })
}

fn window_totals(window: &WindowFigures) -> Result<WindowTotals, String> {
    let unreadable = |what: &str| format!("the switch says window {:?} is {what}, which is no {what}", window.id);
    let id = window.id.strip_prefix('W').and_then(|digits| digits.parse().ok());
    let states = [
        WindowState::Open,
        WindowState::Closed,
        WindowState::Settling,
        WindowState::Settled,
        WindowState::Aborted,
    ];
    let state = states.into_iter().find(|state| state.name() == window.state);
    let mut nets = BTreeMap::new();
    for (participant, net) in &window.nets {
        *nets.entry(*participant).or_insert(0) += *net;
    }
    Ok(WindowTotals {
        id: WindowId(id.ok_or_else(|| unreadable("id"))?),
        currency: Currency(window.currency),
        state: state.ok_or_else(|| unreadable("state"))?,
        committed: window.committed,
        gross_minor: window.gross_minor,
        nets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        let shutdown: Shutdown = serde_json::from_str(
            r#"{"event_number": 9, "position": 4096, "state_hash": "ab",
                "status": {"ready": false, "backend": "mio", "backend_reason": "asked for", "sync": "direct",
                    "syncer_class": "fifo", "memory": "locked", "listen": "127.0.0.1:1", "system_calls": 1,
                    "journal": {"appended": 1, "bytes_synced": 1, "syncs": 1}, "events": 9,
                    "payments": {"accepted": 1, "reserved": 0, "in_doubt": 0, "committed": 1, "declined": 0,
                        "rejected": 0, "expired": 0}},
                "windows": [{"id": "W202611230001", "currency": 156, "state": "closed", "opened_ns": 1, "closed_ns": 2,
                    "committed": 1, "gross_minor": 500, "nets": [[0, -500], [1, 500]]}],
                "participants": [
                    {"index": 0, "code": "Z", "links": 0, "position_minor": -500, "reserved_minor": 0,
                        "cover_minor": 9, "cap_minor": 9},
                    {"index": 1, "code": "C", "links": 0, "position_minor": 500, "reserved_minor": 0,
                        "cover_minor": 9, "cap_minor": 9}]}"#,
        )
        .unwrap();
        let stated = statement(&shutdown).unwrap();
        Evidence {
            recomputed: Ok(Recomputed {
                events: stated.events,
                payments: stated.payments,
                positions: stated.positions,
                reserved: stated.reserved,
                windows: stated.windows,
                ..Recomputed::default()
            }),
            replayed: Ok((9, "ab".to_owned())),
            books: Vec::new(),
            conduct: Vec::new(),
            shutdown,
        }
    }

    #[test]
    fn evidence_that_agrees_passes() {
        let figures = judge(good());
        assert!(figures.pass, "{:?}", figures.findings);
        assert!(figures.zero_sum && figures.books_match && figures.windows_match && figures.replay_matches);
    }

    #[test]
    fn nets_of_a_window_settled_long_ago_are_taken_from_the_journal() {
        let Evidence {
            shutdown, recomputed, ..
        } = good();
        let mut windows = shutdown.windows;
        windows[0].state = "settled".to_owned();
        let nets = std::mem::take(&mut windows[0].nets);
        assert_eq!(with_all_nets(&windows, recomputed.as_ref().ok())[0].nets, nets);
        // Of one that is not settled the switch must state them itself.
        windows[0].state = "closed".to_owned();
        assert!(with_all_nets(&windows, recomputed.as_ref().ok())[0].nets.is_empty());
    }

    #[test]
    fn each_part_fails_by_a_planted_fault() {
        type Fault = fn(&mut Evidence);
        type Part = fn(&AuditFigures) -> bool;
        let faults: [(&str, Fault, Part); 10] = [
            (
                "a net wrong by one",
                |e| e.shutdown.windows[0].nets[0].1 += 1,
                |f| f.zero_sum,
            ),
            (
                "nets in the journal that leave money over",
                |e| {
                    e.recomputed.as_mut().unwrap().windows[0].nets.insert(7, 1);
                },
                |f| f.zero_sum,
            ),
            (
                "books that differ",
                |e| e.books.push("differs".into()),
                |f| f.books_match,
            ),
            (
                "another gross in the journal",
                |e| e.recomputed.as_mut().unwrap().windows[0].gross_minor += 1,
                |f| f.windows_match,
            ),
            (
                "a payment more than the journal holds",
                |e| e.shutdown.status.payments.committed += 1,
                |f| f.windows_match,
            ),
            (
                "a damaged journal",
                |e| e.recomputed = Err("damaged".into()),
                |f| f.windows_match,
            ),
            (
                "another state hash",
                |e| e.replayed = Ok((9, "ac".into())),
                |f| f.replay_matches,
            ),
            (
                "an event lost",
                |e| e.replayed = Ok((8, "ab".into())),
                |f| f.replay_matches,
            ),
            ("two final answers", |e| e.conduct.push("twice".into()), |f| f.pass),
            (
                "a bank that never heard the end of a push",
                |e| e.conduct.push("1 pushes that a bank saw have no final notice".into()),
                |f| f.pass,
            ),
        ];
        for (name, fault, part) in faults {
            let mut evidence = good();
            fault(&mut evidence);
            let figures = judge(evidence);
            assert!(!part(&figures) && !figures.pass, "{name} went unnoticed");
            assert!(!figures.findings.is_empty(), "{name} has no finding");
        }
    }

    #[test]
    fn a_broken_invariant_in_the_journal_fails_the_audit_though_all_parts_agree() {
        let mut evidence = good();
        evidence.recomputed.as_mut().unwrap().findings.push("over cap".into());
        let figures = judge(evidence);
        assert!(figures.windows_match && !figures.pass);
    }
}
