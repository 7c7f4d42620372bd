//! `summary.json`: a window by machine.
//!
//! Written by hand, a line for each participant and flow: sums have more digits than many a reader's numbers, and the
//! same window must give the same bytes whatever a library thinks of its format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::merkle::hex;
use super::row::time_text;
use super::statement::{Flow, PartyStatement, Tally, WindowStatement};
use crate::domain::{Kind, Role, Scene};

/// The file's bytes.
#[must_use]
pub fn to_json(statement: &WindowStatement) -> Vec<u8> {
    let mut text = String::with_capacity(512 + 320 * statement.parties.len());
    let journal_id: String = statement.journal_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = writeln!(
        text,
        "{{\n  \"window\": \"{}\",\n  \"currency\": \"{}\",\n  \"scheme\": \"{}\",\n  \"journal_id\": \"{journal_id}\",\n  \
         \"opened_at\": \"{}\",\n  \"closed_at\": \"{}\",\n  \"close_event\": {},\n  \"committed\": {},\n  \
         \"gross_minor\": {},\n  \"root\": \"{}\",\n  \"tallies\": {{",
        statement.window,
        statement.currency.alphabetic(),
        statement.scheme,
        time_text(statement.opened),
        time_text(statement.closed),
        statement.close_event,
        statement.committed,
        statement.gross_minor,
        hex(&statement.root),
    );
    let tallies = &statement.tallies;
    let _ = writeln!(text, "    \"all\": {},", tally_json(&tallies.all));
    let kinds = named(&tallies.by_kind, |number| Kind::from_u8(number).map(Kind::name));
    let scenes = named(&tallies.by_scene, |number| Scene::from_u8(number).map(Scene::name));
    push_object(&mut text, "by_kind", kinds, ",");
    push_object(&mut text, "by_scene", scenes, ",");
    let codes = tallies.by_code.iter();
    let codes = codes.map(|(code, count)| format!("\"{code:02}\": {count}"));
    push_object(&mut text, "by_code", codes, "");
    text.push_str("  },\n");
    push_list(&mut text, "participants", statement.parties.iter().map(party_json), ",");
    let flows = statement.flows.iter().map(|flow| flow_json(statement, flow));
    push_list(&mut text, "flows", flows, "");
    text.push_str("}\n");
    text.into_bytes()
}

/// Tallies by name; what is none of the names (only of rejected payments) by its number.
fn named(tallies: &BTreeMap<u8, Tally>, name: impl Fn(u8) -> Option<&'static str>) -> impl Iterator<Item = String> {
    tallies.iter().map(move |(&number, tally)| {
        let key = name(number).map_or_else(|| number.to_string(), str::to_owned);
        format!("\"{key}\": {}", tally_json(tally))
    })
}

fn push_object(text: &mut String, name: &str, members: impl Iterator<Item = String>, end: &str) {
    let members: Vec<String> = members.collect();
    if members.is_empty() {
        let _ = writeln!(text, "    \"{name}\": {{}}{end}");
    } else {
        let _ = writeln!(
            text,
            "    \"{name}\": {{\n      {}\n    }}{end}",
            members.join(",\n      ")
        );
    }
}

fn push_list(text: &mut String, name: &str, entries: impl Iterator<Item = String>, end: &str) {
    let _ = write!(text, "  \"{name}\": [");
    for (number, entry) in entries.enumerate() {
        let _ = write!(text, "{}\n    {entry}", if number == 0 { "" } else { "," });
    }
    let _ = writeln!(text, "\n  ]{end}");
}

fn tally_json(tally: &Tally) -> String {
    let success = tally.success_bp().map_or("null".to_owned(), |bp| bp.to_string());
    format!(
        "{{\"committed\": {}, \"declined\": {}, \"expired\": {}, \"rejected\": {}, \"committed_minor\": {}, \"success_bp\": {success}}}",
        tally.committed, tally.declined, tally.expired, tally.rejected, tally.committed_minor
    )
}

fn party_json(party: &PartyStatement) -> String {
    let role = match party.role {
        Role::Institution => "institution",
        Role::Bank => "bank",
    };
    let sha256 = party.detail_sha256.as_ref();
    format!(
        "{{\"index\": {}, \"code\": \"{}\", \"role\": \"{role}\", \"records\": {}, \"debits\": {}, \"debits_minor\": {}, \
         \"credits\": {}, \"credits_minor\": {}, \"net_minor\": {}, \"detail_sha256\": {}}}",
        party.index,
        party.code,
        party.records,
        party.debits,
        party.debits_minor,
        party.credits,
        party.credits_minor,
        party.net_minor(),
        sha256.map_or("null".to_owned(), |digest| format!("\"{}\"", hex(digest))),
    )
}

fn flow_json(statement: &WindowStatement, flow: &Flow) -> String {
    let code = |index: crate::domain::ParticipantIndex| statement.parties[index.index()].code;
    format!(
        "{{\"debtor\": \"{}\", \"creditor\": \"{}\", \"payments\": {}, \"amount_minor\": {}}}",
        code(flow.debtor),
        code(flow.creditor),
        flow.payments,
        flow.amount_minor
    )
}
