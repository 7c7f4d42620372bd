//! What the switch answers, as tables for people. A field that a later switch adds is in its JSON.

use serde_json::Value;

use super::output::{Table, money};

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Nested figures as lines, `journal.durable  1024`; amounts in minor units as money.
pub(super) fn show_figures(answer: &Value) -> String {
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

pub(super) fn show_participants(answer: &Value) -> String {
    let mut table = Table::new(&[
        "index",
        "code",
        "links",
        "position",
        "reserved",
        "cover",
        "cap",
        "used %",
        "alarm %",
        "suspended as",
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
            level(participant, "alarm_bp"),
            words(participant, "suspended"),
            integer(asked, "final").to_string(),
            percent(&asked["success_bp"]),
            integer(was_asked, "final").to_string(),
            percent(&was_asked["success_bp"]),
        ]);
    }
    table.render()
}

pub(super) fn show_windows(answer: &Value) -> String {
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

pub(super) fn show_in_doubt(answer: &Value) -> String {
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

pub(super) fn show_exceptions(answer: &Value) -> String {
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

pub(super) fn show_cover(answer: &Value) -> String {
    let mut table = Table::new(&[
        "code", "currency", "used %", "alarm %", "position", "reserved", "cap", "cover",
    ]);
    for account in list(answer, "accounts") {
        table.row(vec![
            text(account, "code"),
            text(account, "currency"),
            percent(&account["used_bp"]),
            level(account, "alarm_bp"),
            money(integer(account, "position_minor")),
            money(integer(account, "reserved_minor")),
            money(integer(account, "cap_minor")),
            money(integer(account, "cover_minor")),
        ]);
    }
    let mut shown = table.render();
    let alarms = list(answer, "alarms");
    if alarms.is_empty() {
        return shown + "\nno alarm since the switch was started\n";
    }
    let mut table = Table::new(&["seconds ago", "code", "currency", "from %", "to %", "used", "cap"]);
    let now = integer(answer, "time_ns");
    for alarm in alarms {
        table.row(vec![
            ((now - integer(alarm, "time_ns")) / NANOS_PER_SECOND).to_string(),
            text(alarm, "code"),
            text(alarm, "currency"),
            level(alarm, "before_bp"),
            level(alarm, "level_bp"),
            money(integer(alarm, "used_minor")),
            money(integer(alarm, "cap_minor")),
        ]);
    }
    shown.push_str("\nalarms since the switch was started, the newest first\n");
    shown + &table.render()
}

pub(super) fn show_orders(answer: &Value) -> String {
    let now = integer(answer, "time_ns");
    let seconds_ago = |row: &Value| ((now - integer(row, "time_ns")) / NANOS_PER_SECOND).to_string();
    let amount = |row: &Value| as_integer(&row["amount_minor"]).map_or_else(String::new, money);
    let proposals = list(answer, "proposals");
    let mut shown = String::from("no proposal waits for a second person\n");
    if !proposals.is_empty() {
        let mut table = Table::new(&[
            "proposal",
            "seconds ago",
            "by",
            "what",
            "participant",
            "currency",
            "amount",
        ]);
        for row in proposals {
            table.row(vec![
                integer(row, "proposal").to_string(),
                seconds_ago(row),
                text(row, "operator"),
                text(row, "action"),
                or_empty(row, "participant"),
                or_empty(row, "currency"),
                amount(row),
            ]);
        }
        shown = format!("proposals that wait for a second person\n{}", table.render());
    }
    let outcomes = list(answer, "outcomes");
    if outcomes.is_empty() {
        return shown;
    }
    let mut table = Table::new(&[
        "event",
        "seconds ago",
        "by",
        "step",
        "proposal",
        "what",
        "participant",
        "currency",
        "amount",
        "outcome",
    ]);
    for row in outcomes.iter().rev() {
        table.row(vec![
            integer(row, "event").to_string(),
            seconds_ago(row),
            text(row, "operator"),
            text(row, "step"),
            as_integer(&row["proposal"]).map_or_else(String::new, |number| number.to_string()),
            or_empty(row, "action"),
            or_empty(row, "participant"),
            or_empty(row, "currency"),
            amount(row),
            text(row, "outcome"),
        ]);
    }
    shown.push_str("\nthe last orders, the newest first\n");
    shown + &table.render()
}

fn or_empty(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A level in basis points as per cent; `-` where there is none.
fn level(value: &Value, field: &str) -> String {
    match integer(value, field) {
        0 => "-".to_owned(),
        basis_points => (basis_points / 100).to_string(),
    }
}

/// A list of words; `-` where it is empty.
fn words(value: &Value, field: &str) -> String {
    let words: Vec<&str> = list(value, field).iter().filter_map(Value::as_str).collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join("+")
    }
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

pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or("?").to_owned()
}

pub(super) fn integer(value: &Value, field: &str) -> i128 {
    value.get(field).and_then(as_integer).unwrap_or(0)
}

pub(super) fn as_integer(value: &Value) -> Option<i128> {
    value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(row[7..], ["0.00", "-", "-", "8", "87.50", "0", "-"]);
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
