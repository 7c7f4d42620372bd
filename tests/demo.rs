//! `clearway demo` and `clearway bench` as a user runs them: a real switch, real sockets, real durable writes.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn clearway() -> Command {
    Command::cargo_bin("clearway").expect("the binary is built")
}

/// Runs a command that ends with a report on stdout, well.
fn report_of(arguments: &[&str]) -> Value {
    let output = clearway()
        .args(arguments)
        .args(["--json", "-"])
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?} ended with {}:\n{stderr}",
        output.status
    );
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON report")
}

fn assert_well(report: &Value) {
    let audit = &report["audit"];
    for part in ["pass", "zero_sum", "books_match", "windows_match", "replay_matches"] {
        assert_eq!(audit[part], true, "{part}: {audit}");
    }
    let payments = &report["payments"];
    assert_eq!(payments["unanswered"], 0);
    assert_eq!(payments["rejected_unexpected"], 0);
    assert_eq!(payments["answered"], payments["offered"]);
    for parts in ["by_kind", "by_scene"] {
        let sum = |what: &str| -> u64 {
            let parts = payments[parts].as_object().unwrap();
            parts.values().map(|part| part[what].as_u64().unwrap()).sum()
        };
        assert_eq!(sum("answered"), payments["answered"].as_u64().unwrap(), "{parts}");
        assert_eq!(sum("committed"), payments["committed"].as_u64().unwrap(), "{parts}");
    }
    // Every push that a bank saw has had its end told, and what was confirmed is what was committed.
    let pushes = &report["pushes"];
    assert_eq!(pushes["notices_missing"], 0);
    assert_eq!(pushes["notices"], pushes["seen"]);
    let committed = of_kind(report, "payout", "committed") + of_kind(report, "refund", "committed");
    assert_eq!(pushes["confirmed"], committed);
}

/// A figure of one kind of payment; 0 when there was none.
fn of_kind(report: &Value, kind: &str, figure: &str) -> u64 {
    report["payments"]["by_kind"][kind][figure].as_u64().unwrap_or(0)
}

#[test]
fn a_short_evening_is_cleared_settled_and_audited_on_both_backends() {
    for backend in ["auto", "mio"] {
        let report = report_of(&["demo", "--seconds", "3", "--rate", "1500", "--backend", backend]);
        assert_well(&report);
        let payments = &report["payments"];
        assert!(payments["offered"].as_u64().unwrap() >= 4_500);
        assert!(payments["committed"].as_u64().unwrap() > 4_000);
        assert!(payments["declined"].as_u64().unwrap() > 50);
        assert!(report["repeats"]["repeated"].as_u64().unwrap() > 0);
        for kind in ["debit", "payout", "refund", "bind"] {
            assert!(of_kind(&report, kind, "committed") > 0, "{kind}: {payments}");
            assert_eq!(payments["by_kind"][kind]["success_rate"], 1.0, "{kind}: {payments}");
        }
        // 26 as well, unless the machine is so slow that there was no committed Debit yet when one was due.
        for provoked in ["08", "25"] {
            assert!(
                payments["by_code"][provoked].as_u64().unwrap() > 0,
                "{provoked}: {payments}"
            );
        }
        assert!(report["switch_latency_us"]["p50"].as_f64().unwrap() > 0.0);
        // The demo measures no relay, and says so.
        assert!(report["limit"]["relay_per_second"].is_null());
        if backend == "mio" {
            assert_eq!(report["machine"]["backend"], "mio");
        }
    }
}

#[test]
fn what_a_demo_writes_as_a_trace_another_one_plays() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("evening.csv");
    let data = directory.path().join("data");
    let (trace, data) = (path(&trace), path(&data));
    let first = report_of(&[
        "demo",
        "--seconds",
        "1",
        "--rate",
        "400",
        "--write-trace",
        trace,
        "--data",
        data,
    ]);
    assert_well(&first);
    // The same journal: windows and payments of the first run stay, and are not held against the second.
    let second = report_of(&["demo", "--trace", trace, "--speed", "2", "--data", data]);
    assert_well(&second);
    assert_eq!(second["load"]["skew"], "trace");
    for kind in ["debit", "payout"] {
        assert_eq!(of_kind(&second, kind, "offered"), of_kind(&first, kind, "offered"));
    }
    // Refunds that had to be refused are not written; one that finds nothing left to give back is named.
    let not_played = second["not_played"].as_array().unwrap().len() as u64;
    let refunds = of_kind(&first, "refund", "offered") - of_kind(&first, "refund", "provoked");
    assert!(refunds > 0);
    assert_eq!(of_kind(&second, "refund", "offered") + not_played, refunds);
    assert!(of_kind(&second, "bind", "offered") >= of_kind(&first, "bind", "offered"));
}

#[test]
fn every_kind_in_a_trace_is_played_and_a_refund_without_a_debit_is_named_by_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("kinds.csv");
    std::fs::write(
        &trace,
        "at_ms,initiator,responder,kind,amount_minor,scene\n\
         0,0,115,debit,500,shopping\n\
         0,0,115,debit,300,shopping\n\
         0,0,115,refund,800,shopping\n\
         0,0,115,refund,200,shopping\n\
         0,0,115,refund,300,shopping\n\
         5,0,115,bind,0,other\n\
         5,1,116,unbind,0,other\n\
         9,1,117,payout,70,transfer\n",
    )
    .unwrap();
    let report = report_of(&["demo", "--trace", path(&trace)]);
    assert_well(&report);
    for (kind, committed) in [("debit", 2), ("refund", 2), ("bind", 2), ("unbind", 2), ("payout", 1)] {
        assert_eq!(of_kind(&report, kind, "committed"), committed, "{kind}: {report:#}");
    }
    let not_played = report["not_played"].as_array().unwrap();
    assert_eq!(not_played.len(), 1);
    assert!(not_played[0].as_str().unwrap().starts_with("line 4:"), "{not_played:?}");
}

#[test]
fn a_trace_with_bad_lines_is_refused_by_their_numbers_and_nothing_runs() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("bad.csv");
    let data = directory.path().join("data");
    std::fs::write(
        &trace,
        "at_ms,initiator,responder,kind,amount_minor,scene\n1,0,115,debit,5,shopping\n2,0,115,gift,5,shopping\n3,0,1,debit\n4,0,115,bind,5,other\n",
    )
    .unwrap();
    let output = clearway()
        .args(["demo", "--trace", path(&trace), "--data", path(&data)])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("line 3: kind \"gift\" is unknown"), "{stderr}");
    assert!(
        stderr.contains("line 5: amount_minor is \"5\"; a bind moves nothing"),
        "{stderr}"
    );
    assert!(stderr.contains("line 4: 4 columns"), "{stderr}");
    assert!(!stderr.contains("line 2"), "{stderr}");
    assert!(!data.exists(), "something ran");
}

#[test]
fn both_benches_print_complete_reports() {
    for what in [&["flood", "--in-flight", "4"][..], &["paced", "--rate", "500"][..]] {
        let mut arguments = vec!["bench"];
        arguments.extend(what);
        arguments.extend(["--seconds", "1", "--institutions", "8", "--banks", "16"]);
        let report = report_of(&arguments);
        assert_well(&report);
        assert_eq!(report["load"]["links"], 24);
        for (group, figure) in [
            ("limit", "relay_per_second"),
            ("ratio", "throughput"),
            ("ratio", "latency_p50"),
            ("ratio", "latency_p99"),
            ("cost", "journal_bytes_per_payment"),
            ("cost", "syscalls_per_payment"),
            ("cost", "switch_cpu_us_per_payment"),
            ("cost", "load_cpu_us_per_payment"),
            ("cost", "rss_bytes"),
            ("payments", "per_second"),
        ] {
            assert!(
                report[group][figure].as_f64().unwrap() > 0.0,
                "{group}.{figure}: {report:#}"
            );
        }
        for latency in ["latency_us", "switch_latency_us"] {
            for quantile in ["p50", "p90", "p99", "p99_9", "p99_99", "max"] {
                assert!(
                    report[latency][quantile].as_f64().unwrap() > 0.0,
                    "{latency}.{quantile}"
                );
            }
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
