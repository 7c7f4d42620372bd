//! `clearway admin`: talk to a running switch over its Unix socket.
//!
//! One line out, one JSON line back. What comes back is shown as the switch wrote it; a field that a later switch adds
//! is shown too.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::output::{Table, money, report};
use super::{CliError, Verdict};
use crate::config::Settings;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
/// How long a switch may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Talk to a running switch over its Unix socket
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway admin status\n  clearway admin windows --config config/clearway.toml --json -\n  \
                  clearway admin in-doubt\n  \
                  clearway admin close-window --socket /run/clearway/admin.sock"
)]
pub(super) struct AdminArgs {
    /// What to ask for
    request: Request,
    /// The switch's admin socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "data/admin.sock",
        conflicts_with = "config"
    )]
    socket: PathBuf,
    /// Take the socket from this settings file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the switch's answer as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Request {
    /// Figures of the whole switch
    Status,
    /// Links, position, cover, cap and success rates of each participant
    Participants,
    /// The windows and what was cleared in them
    Windows,
    /// Payments whose bank has not answered, the oldest first
    InDoubt,
    /// Payments about which the switch and a bank disagree: an operator must see to them
    Exceptions,
    /// Close the open window; the next one opens in the same event
    CloseWindow,
    /// Settle every closed window
    Settle,
}

impl Request {
    /// The request as the admin socket reads it.
    const fn line(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Participants => "participants",
            Self::Windows => "windows",
            Self::InDoubt => "in-doubt",
            Self::Exceptions => "exceptions",
            Self::CloseWindow => "close-window",
            Self::Settle => "settle",
        }
    }
}

pub(super) fn run(args: &AdminArgs) -> Result<Verdict, CliError> {
    let socket = match &args.config {
        Some(config) => Settings::load(config)?.admin_socket,
        None => args.socket.clone(),
    };
    let answer = ask(&socket, args.request.line())?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(CliError::Failed(format!("the switch refused: {error}")));
    }
    let text = match args.request {
        Request::Status => show_figures(&answer),
        Request::Participants => show_participants(&answer),
        Request::Windows => show_windows(&answer),
        Request::InDoubt => show_in_doubt(&answer),
        Request::Exceptions => show_exceptions(&answer),
        Request::CloseWindow => "asked the switch to close the open window\n".to_owned(),
        Request::Settle => "asked the switch to settle every closed window\n".to_owned(),
    };
    report(args.json.as_deref(), &answer, &text)?;
    Ok(Verdict::Well)
}

/// Sends one request and waits for its answer.
fn ask(socket: &Path, request: &str) -> Result<Value, CliError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| CliError::Failed(format!("{}: {what}: {error}", socket.display()));
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        failed(
            "no switch listens there (`clearway run` prints its admin socket; --socket or --config names it)",
            &error,
        )
    })?;
    stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)))
        .and_then(|()| stream.write_all(format!("{request}\n").as_bytes()))
        .map_err(|error| failed("can't send the request", &error))?;
    let mut line = String::new();
    let read = BufReader::new(stream)
        .read_line(&mut line)
        .map_err(|error| failed("the switch does not answer", &error))?;
    if read == 0 {
        return Err(failed("the switch closed the connection", &"without an answer"));
    }
    serde_json::from_str(&line).map_err(|error| failed("the answer is not JSON", &error))
}

/// Nested figures as lines, `journal.durable  1024`; amounts in minor units as money.
fn show_figures(answer: &Value) -> String {
    fn walk(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let path = if prefix.is_empty() {
                        name.clone()
                    } else {
                        format!("{prefix}.{name}")
                    };
                    walk(&path, field, lines);
                }
            }
            Value::String(text) => lines.push((prefix.to_owned(), text.clone())),
            Value::Number(number) if is_minor(prefix) => {
                let shown = number.to_string().parse().map_or_else(|_| number.to_string(), money);
                let name = prefix.trim_end_matches("_minor").trim_end_matches(".minor");
                lines.push((name.to_owned(), shown));
            }
            Value::Number(_) if prefix.ends_with("_bp") => {
                lines.push((prefix.trim_end_matches("_bp").to_owned() + " %", percent(value)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                lines.push((prefix.to_owned(), value.to_string()));
            }
        }
    }
    let mut lines = Vec::new();
    walk("", answer, &mut lines);
    let widest = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(name, value)| format!("{name:widest$}  {value}\n"))
        .collect()
}

fn is_minor(name: &str) -> bool {
    name.ends_with("_minor") || name.ends_with(".minor")
}

fn show_participants(answer: &Value) -> String {
    let mut table = Table::new(&[
        "index",
        "code",
        "links",
        "position",
        "reserved",
        "cover",
        "cap",
        "used %",
        "asked",
        "success %",
        "was asked",
        "success %",
    ]);
    for participant in list(answer, "participants") {
        let position = integer(participant, "position_minor");
        let reserved = integer(participant, "reserved_minor");
        let cap = integer(participant, "cap_minor");
        let (asked, was_asked) = (&participant["as_initiator"], &participant["as_responder"]);
        // Basis points first, so that no float is ever made of money.
        let used_bp = if cap > 0 {
            (position + reserved).max(0) * 10_000 / cap
        } else {
            0
        };
        table.row(vec![
            integer(participant, "index").to_string(),
            text(participant, "code"),
            integer(participant, "links").to_string(),
            money(position),
            money(reserved),
            money(integer(participant, "cover_minor")),
            money(cap),
            hundredths(used_bp),
            integer(asked, "final").to_string(),
            percent(&asked["success_bp"]),
            integer(was_asked, "final").to_string(),
            percent(&was_asked["success_bp"]),
        ]);
    }
    table.render()
}

fn show_windows(answer: &Value) -> String {
    let mut table = Table::new(&[
        "window",
        "currency",
        "state",
        "committed",
        "gross",
        "owed",
        "participants",
    ]);
    for window in list(answer, "windows") {
        let nets: Vec<i128> = list(window, "nets")
            .iter()
            .filter_map(|net| as_integer(net.get(1)?))
            .collect();
        table.row(vec![
            text(window, "id"),
            integer(window, "currency").to_string(),
            text(window, "state"),
            integer(window, "committed").to_string(),
            money(integer(window, "gross_minor")),
            money(nets.iter().filter(|net| **net > 0).sum()),
            nets.len().to_string(),
        ]);
    }
    table.render()
}

fn show_in_doubt(answer: &Value) -> String {
    let mut table = Table::new(&[
        "payment",
        "kind",
        "initiator",
        "responder",
        "currency",
        "amount",
        "asked",
        "open s",
        "expires in s",
    ]);
    // Seen from the ledger's own time, so that the table says the same whenever it is made of the same answer.
    let now = integer(answer, "time_ns");
    for payment in list(answer, "in_doubt") {
        table.row(vec![
            text(payment, "payment"),
            text(payment, "kind"),
            text(payment, "initiator"),
            text(payment, "responder"),
            integer(payment, "currency").to_string(),
            money(integer(payment, "amount_minor")),
            integer(payment, "status_requests").to_string(),
            ((now - integer(payment, "accepted_ns")) / NANOS_PER_SECOND).to_string(),
            ((integer(payment, "expires_ns") - now) / NANOS_PER_SECOND).to_string(),
        ]);
    }
    table.render() + &left_out(answer, "newer")
}

fn show_exceptions(answer: &Value) -> String {
    let mut table = Table::new(&["event", "seconds ago", "what", "payment", "initiator", "responder"]);
    let now = integer(answer, "time_ns");
    for item in list(answer, "exceptions") {
        table.row(vec![
            integer(item, "event").to_string(),
            ((now - integer(item, "time_ns")) / NANOS_PER_SECOND).to_string(),
            text(item, "what"),
            text(item, "payment"),
            text(item, "initiator"),
            text(item, "responder"),
        ]);
    }
    table.render() + &left_out(answer, "older")
}

/// What a list does not show.
fn left_out(answer: &Value, which: &str) -> String {
    match integer(answer, "left_out") {
        0 => String::new(),
        count => format!("and {count} {which} ones of {} in all\n", integer(answer, "total")),
    }
}

/// Basis points as a percentage; `-` where there is nothing to take a share of.
fn percent(basis_points: &Value) -> String {
    as_integer(basis_points).map_or_else(|| "-".to_owned(), hundredths)
}

fn hundredths(number: i128) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or("?").to_owned()
}

fn integer(value: &Value, field: &str) -> i128 {
    value.get(field).and_then(as_integer).unwrap_or(0)
}

fn as_integer(value: &Value) -> Option<i128> {
    value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A switch that answers one request with `answer`, and gives back what it was asked.
    fn answering(answer: &'static str, request: &str) -> (Result<Value, CliError>, String) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let socket = place.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let switch = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a line");
            stream.write_all(answer.as_bytes()).expect("it is still there");
            line
        });
        let answer = ask(&socket, request);
        (answer, switch.join().expect("the switch ends"))
    }

    #[test]
    fn a_request_is_one_line_and_its_answer_one_line_of_json() {
        let (answer, asked) = answering("{\"ready\":true}\n", "status");
        assert_eq!(asked, "status\n");
        assert_eq!(answer.expect("an answer")["ready"], true);
    }

    #[test]
    fn a_switch_that_hangs_up_is_an_error_that_names_the_socket() {
        let (answer, _) = answering("", "status");
        assert!(answer.expect_err("no answer").to_string().contains("admin.sock"));
    }

    #[test]
    fn status_shows_nested_figures_and_money() {
        let answer = serde_json::json!({"ready": true, "journal": {"durable": 7}, "reserved_minor": 123_456,
            "largest_position": {"code": "Z2", "minor": -5}});
        assert_eq!(
            show_figures(&answer),
            "ready                  true\n\
             journal.durable        7\n\
             reserved               1,234.56\n\
             largest_position.code  Z2\n\
             largest_position       -0.05\n"
        );
    }

    #[test]
    fn a_success_rate_is_shown_in_per_cent() {
        let answer = serde_json::json!({"by_kind": {"debit": {"final": 3, "committed": 2, "success_bp": 6_666}}});
        assert_eq!(
            show_figures(&answer),
            "by_kind.debit.final      3\n\
             by_kind.debit.committed  2\n\
             by_kind.debit.success %  66.66\n"
        );
    }

    #[test]
    fn a_participant_shows_how_what_it_asked_and_was_asked_ended() {
        let answer = serde_json::json!({"participants": [{"index": 1, "code": "Z2", "links": 1, "position_minor": 0,
            "reserved_minor": 0, "cover_minor": 0, "cap_minor": 0,
            "as_initiator": {"final": 8, "committed": 7, "success_bp": 8_750},
            "as_responder": {"final": 0, "committed": 0, "success_bp": null}}]});
        let text = show_participants(&answer);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row[7..], ["0.00", "8", "87.50", "0", "-"]);
    }

    #[test]
    fn a_list_shows_its_rows_and_says_what_it_left_out() {
        let doubts = serde_json::json!({"time_ns": 65_000_000_000u64, "total": 3, "left_out": 2, "in_doubt": [{
            "payment": "20261123-0-0-7", "kind": "payout", "initiator": "Z2", "responder": "C1", "amount_minor": 1_234,
            "currency": 156, "status_requests": 2, "accepted_ns": 50_000_000_000u64, "expires_ns": 70_000_000_000u64}]});
        let text = show_in_doubt(&doubts);
        let mut lines = text.lines().skip(1);
        let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
        assert_eq!(
            row,
            ["20261123-0-0-7", "payout", "Z2", "C1", "156", "12.34", "2", "15", "5"]
        );
        assert_eq!(lines.next(), Some("and 2 newer ones of 3 in all"));
        let items = serde_json::json!({"time_ns": 9_000_000_000u64, "total": 1, "left_out": 0, "exceptions": [{
            "payment": "20261123-0-0-7", "what": "committed_then_no", "initiator": "Z2", "responder": "C1", "event": 12,
            "time_ns": 2_000_000_000u64}]});
        let text = show_exceptions(&items);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["12", "7", "committed_then_no", "20261123-0-0-7", "Z2", "C1"]);
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_window_shows_what_is_owed_in_it() {
        let answer = serde_json::json!({"windows": [{"id": "W202611230001", "currency": 156, "state": "closed",
            "committed": 3, "gross_minor": 900, "nets": [[0, -700], [1, 500], [2, 200]]}]});
        let text = show_windows(&answer);
        let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row, ["W202611230001", "156", "closed", "3", "9.00", "7.00", "3"]);
    }
}
