//! Writes the directory's file form, so that it reads back to the same directory.

use std::fmt::Write as _;

use super::credential::to_hex;
use super::directory::{Directory, DirectoryEntry};
use super::directory_toml::{CURRENCIES, Defaults, ROLES, SUSPENSIONS};
use crate::domain::{Kind, MILLISECOND};

/// Writes the file form. What the first participant states becomes `[defaults]`; the others state what differs.
pub(super) fn write(directory: &Directory) -> String {
    let mut out = String::from(
        "# The directory of participants. An index is given once and never to another participant.\n\
         # Money in minor units (fen), times in milliseconds; Tq < T1 < T2, cap <= cover.\n\n",
    );
    let scheme = &directory.scheme;
    let currencies: Vec<String> = scheme
        .currencies
        .iter()
        .filter(|c| **c != 0)
        .map(|c| format!("\"{}\"", alphabetic(*c)))
        .collect();
    let _ = writeln!(
        out,
        "[scheme]\nrules_version = {}\ncode = \"{}\"\nresident_payments = {}\nparked_max = {}\nmaximum_minor = {}\nrefund_days = {}\ncurrencies = [{}]",
        scheme.rules_version,
        scheme.code,
        scheme.resident_payments,
        scheme.parked_max,
        scheme.maximum_minor,
        scheme.refund_days,
        currencies.join(", ")
    );
    let defaults = directory.participants.first().map(terms_of).unwrap_or_default();
    out.push_str("\n# What a participant does not state itself.\n[defaults]\n");
    for (key, value) in lines(&defaults) {
        let _ = writeln!(out, "{key} = {value}");
    }
    for entry in &directory.participants {
        write_participant(&mut out, entry, &defaults);
    }
    out
}

fn write_participant(out: &mut String, entry: &DirectoryEntry, defaults: &Defaults) {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let role = ROLES
        .iter()
        .find(|(_, role)| *role == entry.role())
        .map_or("", |(word, _)| word);
    let _ = writeln!(
        out,
        "\n[[participant]]\nindex = {}\ncode = \"{}\"\nname = {}\nrole = \"{role}\"",
        entry.terms.index,
        entry.terms.code,
        quoted(&entry.name)
    );
    for (key, value) in [("cnaps", &entry.cnaps), ("bic", &entry.bic)] {
        if let Some(value) = value {
            let _ = writeln!(out, "{key} = {}", quoted(value));
        }
    }
    let _ = writeln!(out, "credential_hash = \"{}\"", to_hex(&entry.credential_hash));
    if entry.terms.suspended != 0 {
        let parts = SUSPENSIONS.iter().filter(|(_, bit)| entry.terms.suspended & bit != 0);
        let parts: Vec<String> = parts.map(|(word, _)| format!("\"{word}\"")).collect();
        let _ = writeln!(out, "suspended = [{}]", parts.join(", "));
    }
    let own = terms_of(entry);
    let states_cover = own.cover_minor != defaults.cover_minor || own.cap_minor != defaults.cap_minor;
    for ((key, value), (_, default)) in lines(&own).into_iter().zip(lines(defaults)) {
        // A cover without a cap would mean a cap as high: the two are stated together.
        if value != default || (states_cover && matches!(key, "cover_minor" | "cap_minor")) {
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    for account in entry.terms.accounts[1..].iter().filter(|account| account.currency != 0) {
        let _ = writeln!(
            out,
            "[[participant.account]]\ncurrency = \"{}\"\ncover_minor = {}\ncap_minor = {}",
            alphabetic(account.currency),
            account.cover_minor,
            account.cap_minor
        );
    }
}

fn alphabetic(currency: u16) -> &'static str {
    CURRENCIES
        .iter()
        .find(|(_, number)| *number == currency)
        .map_or("", |(word, _)| word)
}

fn terms_of(entry: &DirectoryEntry) -> Defaults {
    Defaults {
        permitted_kinds: entry.terms.permitted_kinds,
        wait_ms: entry.terms.wait_ns / MILLISECOND,
        doubt_ms: entry.terms.doubt_ns / MILLISECOND,
        expiry_pull_ms: entry.terms.expiry_pull_ns / MILLISECOND,
        expiry_push_ms: entry.terms.expiry_push_ns / MILLISECOND,
        payment_limit_minor: entry.terms.payment_limit_minor,
        cover_minor: entry.terms.accounts[0].cover_minor,
        cap_minor: entry.terms.accounts[0].cap_minor,
        links_max: entry.terms.contract.links_max,
        request_in_flight_max: entry.terms.contract.request_in_flight_max,
        request_per_second_max: entry.terms.contract.request_per_second_max,
        intake_in_flight_max: entry.terms.contract.intake_in_flight_max,
        intake_per_second_max: entry.terms.contract.intake_per_second_max,
        inquiries_per_second_max: entry.terms.contract.inquiries_per_second_max,
    }
}

fn lines(terms: &Defaults) -> Vec<(&'static str, String)> {
    let kinds = Kind::ALL.iter().filter(|kind| terms.permitted_kinds & kind.bit() != 0);
    let kinds: Vec<String> = kinds.map(|kind| format!("\"{}\"", kind.name())).collect();
    vec![
        ("kinds", format!("[{}]", kinds.join(", "))),
        ("tq_ms", terms.wait_ms.to_string()),
        ("t1_ms", terms.doubt_ms.to_string()),
        ("t2_pull_ms", terms.expiry_pull_ms.to_string()),
        ("t2_push_ms", terms.expiry_push_ms.to_string()),
        ("payment_limit_minor", terms.payment_limit_minor.to_string()),
        ("cover_minor", terms.cover_minor.to_string()),
        ("cap_minor", terms.cap_minor.to_string()),
        ("links_max", terms.links_max.to_string()),
        ("request_in_flight_max", terms.request_in_flight_max.to_string()),
        ("request_per_second_max", terms.request_per_second_max.to_string()),
        ("intake_in_flight_max", terms.intake_in_flight_max.to_string()),
        ("intake_per_second_max", terms.intake_per_second_max.to_string()),
        ("inquiries_per_second_max", terms.inquiries_per_second_max.to_string()),
    ]
}
