//! Reads the directory's file form: `[scheme]`, `[defaults]`, and a `[[participant]]` for each.
//!
//! A value that a participant leaves out is taken from `[defaults]`, and from the built-in default where that leaves it
//! out too. Everything a loaded directory promises is checked here, where each value's place is still known.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use super::credential::from_hex;
use super::directory::{Directory, DirectoryEntry};
use super::fault::ConfigError;
use super::profile::power_of_two;
use super::section::{Placed, Section, read_toml};
use crate::domain::{
    Currency, CurrencyTerms, Kind, LinkContract, MILLISECOND, ParticipantIndex, ParticipantTerms, Role, SchemeCode,
    SchemeTerms,
};

/// Currencies that a file may name (ISO 4217 alphabetic and numeric).
pub(super) const CURRENCIES: [(&str, u16); 8] = Currency::NAMED;

pub(super) const ROLES: [(&str, Role); 2] = [("institution", Role::Institution), ("bank", Role::Bank)];

pub(super) const SUSPENSIONS: [(&str, u8); 2] = [
    ("initiator", ParticipantTerms::SUSPENDED_INITIATOR),
    ("responder", ParticipantTerms::SUSPENDED_RESPONDER),
];

/// Indices are 16 bits wide, and the last is never given.
const PARTICIPANTS_MAX: usize = u16::MAX as usize;

/// What a participant may take from `[defaults]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Defaults {
    pub(super) permitted_kinds: u32,
    pub(super) wait_ms: u64,
    pub(super) doubt_ms: u64,
    pub(super) expiry_pull_ms: u64,
    pub(super) expiry_push_ms: u64,
    pub(super) payment_limit_minor: u64,
    pub(super) cover_minor: u64,
    pub(super) cap_minor: u64,
    pub(super) links_max: u16,
    pub(super) request_in_flight_max: u32,
    pub(super) request_per_second_max: u32,
    pub(super) intake_in_flight_max: u32,
    pub(super) intake_per_second_max: u32,
    pub(super) inquiries_per_second_max: u32,
}

impl Defaults {
    pub(super) fn contract(&self) -> LinkContract {
        LinkContract {
            request_in_flight_max: self.request_in_flight_max,
            request_per_second_max: self.request_per_second_max,
            intake_in_flight_max: self.intake_in_flight_max,
            intake_per_second_max: self.intake_per_second_max,
            inquiries_per_second_max: self.inquiries_per_second_max,
            links_max: self.links_max,
            reserved: [0; 10],
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            permitted_kinds: Kind::Debit.bit(),
            wait_ms: 1_000,
            doubt_ms: 5_000,
            expiry_pull_ms: 60_000,
            expiry_push_ms: 20_000,
            payment_limit_minor: 0,
            cover_minor: 0,
            cap_minor: 0,
            links_max: 8,
            request_in_flight_max: 8_192,
            request_per_second_max: 0,
            intake_in_flight_max: 8_192,
            intake_per_second_max: 0,
            inquiries_per_second_max: 100,
        }
    }
}

/// The scheme's terms where a file leaves them out.
pub(super) fn default_scheme() -> SchemeTerms {
    SchemeTerms {
        rules_version: SchemeTerms::RULES_VERSION,
        participant_count: 0,
        resident_payments: 4 << 20,
        parked_max: 1_024,
        // One million yuan.
        maximum_minor: 100_000_000,
        refund_days: 90,
        currencies: [156, 0, 0, 0],
        code: SchemeCode(*b"CLEARWAY000001"),
        reserved: [0; 14],
    }
}

pub(super) fn parse(name: &str, text: &str) -> Result<Directory, ConfigError> {
    read_toml(name, text, |root| {
        let scheme = read_scheme(root);
        let defaults = match root.section("defaults") {
            Some(section) => {
                let defaults = read_terms(&section, &Defaults::default());
                section.finish();
                defaults
            }
            None => Defaults::default(),
        };
        let sections = root.sections("participant");
        if sections.is_empty() {
            root.fault(
                root.span.clone(),
                "the directory has no participant",
                "add a [[participant]] table for each; `clearway directory generate` writes an example",
            );
        }
        let entries: Vec<(DirectoryEntry, Places)> = sections
            .iter()
            .filter_map(|section| read_participant(section, &scheme, &defaults))
            .collect();
        check_together(root, &entries);
        let mut participants: Vec<DirectoryEntry> = entries.into_iter().map(|(entry, _)| entry).collect();
        participants.sort_by_key(|entry| entry.terms.index);
        let scheme = SchemeTerms {
            participant_count: participants.len() as u32,
            ..scheme
        };
        Some(Directory { scheme, participants })
    })
}

fn read_scheme(root: &Section<'_, '_>) -> SchemeTerms {
    let mut scheme = default_scheme();
    let Some(section) = root.section("scheme") else {
        return scheme;
    };
    let version = u64::from(SchemeTerms::RULES_VERSION);
    scheme.rules_version = section.integer_or("rules_version", version..=version, version) as u32;
    if section.has("code")
        && let Some(code) = read_code(&section)
    {
        scheme.code = code.value;
    }
    let resident = u64::from(scheme.resident_payments);
    let most = SchemeTerms::RESIDENT_PAYMENTS_MAX.into();
    scheme.resident_payments = power_of_two(&section, "resident_payments", 1..=most, resident) as u32;
    scheme.parked_max = section.integer_or("parked_max", 0..=65_536, scheme.parked_max.into()) as u32;
    scheme.maximum_minor = section.integer_or("maximum_minor", 1..=u64::MAX >> 1, scheme.maximum_minor);
    scheme.refund_days = section.integer_or("refund_days", 0..=366, scheme.refund_days.into()) as u32;
    if let Some(currencies) = section.words("currencies", &CURRENCIES) {
        if let [_, _, _, _, fifth, ..] = currencies.as_slice() {
            section.fault(fifth.span.clone(), "more than four currencies", "leave at most four");
        }
        for (number, currency) in currencies.iter().enumerate() {
            if currencies[..number]
                .iter()
                .any(|earlier| earlier.value == currency.value)
            {
                section.fault(currency.span.clone(), "this currency is listed twice", "leave it once");
            }
        }
        scheme.currencies = std::array::from_fn(|n| currencies.get(n).map_or(0, |currency| currency.value));
    }
    if scheme.currencies[0] == 0 {
        section.fault(
            section.span.clone(),
            "the scheme has no currency",
            "write `currencies = [\"CNY\"]`",
        );
    }
    section.finish();
    scheme
}

/// Reads what `[defaults]` and each participant may both state.
fn read_terms(section: &Section<'_, '_>, base: &Defaults) -> Defaults {
    const COUNT: u64 = u32::MAX as u64;
    let kinds = section.words("kinds", &Kind::ALL.map(|kind| (kind.name(), kind.bit())));
    let tq = section.integer("tq_ms", 1..=3_600_000);
    let t1 = section.integer("t1_ms", 1..=3_600_000);
    let t2_pull = section.integer("t2_pull_ms", 1..=86_400_000);
    let t2_push = section.integer("t2_push_ms", 1..=86_400_000);
    let cover = section.integer("cover_minor", 0..=u64::MAX >> 1);
    let cap = section.integer("cap_minor", 0..=u64::MAX >> 1);
    let value = |placed: &Option<Placed<u64>>, default: u64| placed.as_ref().map_or(default, |placed| placed.value);
    let terms = Defaults {
        permitted_kinds: kinds.map_or(base.permitted_kinds, |kinds| {
            kinds.iter().fold(0, |mask, kind| mask | kind.value)
        }),
        wait_ms: value(&tq, base.wait_ms),
        doubt_ms: value(&t1, base.doubt_ms),
        expiry_pull_ms: value(&t2_pull, base.expiry_pull_ms),
        expiry_push_ms: value(&t2_push, base.expiry_push_ms),
        payment_limit_minor: section.integer_or("payment_limit_minor", 0..=u64::MAX >> 1, base.payment_limit_minor),
        cover_minor: value(&cover, base.cover_minor),
        // Who states a cover and no cap may use all of it.
        cap_minor: value(&cap, value(&cover, base.cap_minor)),
        links_max: section.integer_or("links_max", 1..=1_024, base.links_max.into()) as u16,
        request_in_flight_max: section.integer_or("request_in_flight_max", 1..=COUNT, base.request_in_flight_max.into())
            as u32,
        request_per_second_max: section.integer_or(
            "request_per_second_max",
            0..=COUNT,
            base.request_per_second_max.into(),
        ) as u32,
        intake_in_flight_max: section.integer_or("intake_in_flight_max", 1..=COUNT, base.intake_in_flight_max.into())
            as u32,
        intake_per_second_max: section.integer_or("intake_per_second_max", 0..=COUNT, base.intake_per_second_max.into())
            as u32,
        inquiries_per_second_max: section.integer_or(
            "inquiries_per_second_max",
            0..=COUNT,
            base.inquiries_per_second_max.into(),
        ) as u32,
    };
    check_timers(section, &terms, [tq, t1, t2_pull, t2_push]);
    if terms.cap_minor > terms.cover_minor {
        section.fault(
            cap.or(cover).map_or(section.span.clone(), |placed| placed.span),
            format!(
                "the cap {} is more than the cover {}",
                terms.cap_minor, terms.cover_minor
            ),
            format!(
                "write `cap_minor` of at most {}, or raise `cover_minor`",
                terms.cover_minor
            ),
        );
    }
    terms
}

/// Tq < T1 < T2, for pulls and for pushes; the fault stands where this section states one of the two.
fn check_timers(section: &Section<'_, '_>, terms: &Defaults, places: [Option<Placed<u64>>; 4]) {
    let [tq, t1, t2_pull, t2_push] = places.map(|place| place.map(|place| place.span));
    let pairs = [
        ("tq_ms", terms.wait_ms, &tq, "t1_ms", terms.doubt_ms, &t1),
        (
            "t1_ms",
            terms.doubt_ms,
            &t1,
            "t2_pull_ms",
            terms.expiry_pull_ms,
            &t2_pull,
        ),
        (
            "t1_ms",
            terms.doubt_ms,
            &t1,
            "t2_push_ms",
            terms.expiry_push_ms,
            &t2_push,
        ),
    ];
    for (earlier, earlier_ms, earlier_place, later, later_ms, later_place) in pairs {
        if earlier_ms < later_ms {
            continue;
        }
        // Where neither stands here, both came from [defaults], and the fault was noted there.
        let Some(place) = earlier_place.clone().or_else(|| later_place.clone()) else {
            continue;
        };
        section.fault(
            place,
            format!("`{earlier}` = {earlier_ms} is not less than `{later}` = {later_ms}"),
            "Tq < T1 < T2 must hold, e.g. tq_ms = 1000, t1_ms = 5000, t2_push_ms = 20000, t2_pull_ms = 60000",
        );
    }
}

/// Where the values stand that must be unique.
struct Places {
    index: Range<usize>,
    code: Range<usize>,
    cnaps: Option<Range<usize>>,
    bic: Option<Range<usize>>,
}

fn read_participant(
    section: &Section<'_, '_>,
    scheme: &SchemeTerms,
    defaults: &Defaults,
) -> Option<(DirectoryEntry, Places)> {
    let index = section.integer("index", 0..=PARTICIPANTS_MAX as u64 - 1);
    if !section.has("index") {
        section.missing("index", "0");
    }
    let code = read_code(section);
    let name = section.required_text("name", "\"…\"");
    let role = section.word("role", &ROLES);
    if !section.has("role") {
        section.missing("role", "\"bank\"");
    }
    let cnaps = read_form(section, "cnaps", "12 digits", |text| {
        text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
    });
    let bic = read_form(
        section,
        "bic",
        "8 or 11 capital letters and digits (ISO 9362)",
        |text| matches!(text.len(), 8 | 11) && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()),
    );
    let suspended = section
        .words("suspended", &SUSPENSIONS)
        .map_or(0, |parts| parts.iter().fold(0, |mask, part| mask | part.value));
    let credential_hash = read_credential_hash(section);
    let terms = read_terms(section, defaults);
    let accounts = read_accounts(section, scheme, &terms);
    section.finish();
    let (index, code) = (index?, code?);
    let entry = DirectoryEntry {
        terms: ParticipantTerms {
            index: ParticipantIndex(index.value as u16),
            code: code.value,
            role: role? as u8,
            suspended,
            reserved: [0; 2],
            permitted_kinds: terms.permitted_kinds,
            wait_ns: terms.wait_ms * MILLISECOND,
            doubt_ns: terms.doubt_ms * MILLISECOND,
            expiry_pull_ns: terms.expiry_pull_ms * MILLISECOND,
            expiry_push_ns: terms.expiry_push_ms * MILLISECOND,
            payment_limit_minor: terms.payment_limit_minor,
            accounts,
            contract: terms.contract(),
        },
        name: name?.value.to_owned(),
        cnaps: cnaps.as_ref().map(|cnaps| cnaps.value.to_owned()),
        bic: bic.as_ref().map(|bic| bic.value.to_owned()),
        credential_hash: credential_hash?,
    };
    let places = Places {
        index: index.span,
        code: code.span,
        cnaps: cnaps.map(|cnaps| cnaps.span),
        bic: bic.map(|bic| bic.span),
    };
    Some((entry, places))
}

fn read_code(section: &Section<'_, '_>) -> Option<Placed<SchemeCode>> {
    let text = section.required_text("code", "\"C1010200000015\"")?;
    let Some(value) = SchemeCode::parse(text.value) else {
        section.fault(
            text.span,
            format!("`{}` is not a scheme code", text.value),
            "write exactly 14 digits or capital letters, e.g. \"C1010200000015\"",
        );
        return None;
    };
    Some(Placed { value, span: text.span })
}

fn read_form<'f>(
    section: &Section<'_, 'f>,
    key: &'static str,
    form: &str,
    is_right: fn(&str) -> bool,
) -> Option<Placed<&'f str>> {
    let text = section.text(key)?;
    if !is_right(text.value) {
        section.fault(
            text.span.clone(),
            format!("`{}` is not a {}", text.value, key.to_uppercase()),
            format!("write {form}, or leave `{key}` out"),
        );
    }
    Some(text)
}

fn read_credential_hash(section: &Section<'_, '_>) -> Option<[u8; 32]> {
    let text = section.required_text("credential_hash", "\"<64 hexadecimal digits>\"")?;
    let hash = from_hex(text.value);
    if hash.is_none() {
        section.fault(
            text.span,
            format!(
                "`credential_hash` has {} characters or is not hexadecimal",
                text.value.len()
            ),
            "write the BLAKE3 hash of the 32-byte credential as 64 hexadecimal digits (`b3sum FILE` prints it)",
        );
    }
    hash
}

/// The account in the scheme's first currency is stated by `cover_minor` and `cap_minor`, others by `[[account]]`.
fn read_accounts(participant: &Section<'_, '_>, scheme: &SchemeTerms, terms: &Defaults) -> [CurrencyTerms; 4] {
    let account = |currency, cover_minor, cap_minor| CurrencyTerms {
        currency,
        reserved: [0; 14],
        cover_minor,
        cap_minor,
    };
    let mut accounts = [account(0, 0, 0); 4];
    accounts[0] = account(scheme.currencies[0], terms.cover_minor, terms.cap_minor);
    let mut used = 1;
    for section in participant.sections("account") {
        let currency = section.word("currency", &CURRENCIES);
        if !section.has("currency") {
            section.missing("currency", "\"HKD\"");
        }
        let cover = section.integer_or("cover_minor", 0..=u64::MAX >> 1, 0);
        let cap = section.integer_or("cap_minor", 0..=u64::MAX >> 1, cover);
        section.finish();
        if cap > cover {
            section.fault(
                section.span.clone(),
                format!("the cap {cap} is more than the cover {cover}"),
                format!("write `cap_minor` of at most {cover}, or raise `cover_minor`"),
            );
        }
        let Some(currency) = currency else { continue };
        if !scheme.currencies.contains(&currency) {
            section.fault(
                section.span.clone(),
                "this account's currency is not one of the scheme's",
                "add it to `currencies` under [scheme], or remove the account",
            );
        } else if accounts.iter().any(|other| other.currency == currency) {
            section.fault(
                section.span.clone(),
                "a second account in the same currency",
                "leave one; the scheme's first currency is stated by the participant's cover_minor and cap_minor",
            );
        } else {
            // At most four currencies are open and each is used once, so there is room.
            accounts[used] = account(currency, cover, cap);
            used += 1;
        }
    }
    accounts
}

/// Checks what only the participants together can break: unique indices, codes, CNAPS numbers and BICs, dense indices.
fn check_together(root: &Section<'_, '_>, entries: &[(DirectoryEntry, Places)]) {
    let index = |(entry, places): &(DirectoryEntry, Places)| Some((entry.terms.index.0, places.index.clone()));
    let code = |(entry, places): &(DirectoryEntry, Places)| Some((entry.terms.code, places.code.clone()));
    let cnaps = |(entry, places): &(DirectoryEntry, Places)| Some((entry.cnaps.clone()?, places.cnaps.clone()?));
    let bic = |(entry, places): &(DirectoryEntry, Places)| Some((entry.bic.clone()?, places.bic.clone()?));
    let unique = check_unique(root, "index", entries.iter().filter_map(index));
    check_unique(root, "code", entries.iter().filter_map(code));
    check_unique(root, "CNAPS number", entries.iter().filter_map(cnaps));
    check_unique(root, "BIC", entries.iter().filter_map(bic));
    if !unique {
        return;
    }
    let mut taken = vec![false; entries.len()];
    for (entry, _) in entries {
        if let Some(place) = taken.get_mut(entry.terms.index.index()) {
            *place = true;
        }
    }
    let Some(free) = taken.iter().position(|taken| !taken) else {
        return;
    };
    for (entry, places) in entries
        .iter()
        .filter(|(entry, _)| entry.terms.index.index() >= entries.len())
    {
        root.fault(
            places.index.clone(),
            format!(
                "index {} leaves a gap: {} participants have the indices 0 to {}",
                entry.terms.index,
                entries.len(),
                entries.len() - 1
            ),
            format!("the first free index is {free}"),
        );
    }
}

fn check_unique<K: Eq + Hash + std::fmt::Display>(
    root: &Section<'_, '_>,
    what: &str,
    keys: impl Iterator<Item = (K, Range<usize>)>,
) -> bool {
    let mut first: HashMap<K, Range<usize>> = HashMap::new();
    let mut unique = true;
    for (key, place) in keys {
        if let Some(earlier) = first.get(&key) {
            unique = false;
            root.fault(
                place,
                format!("the {what} {key} is used twice"),
                format!(
                    "it is line {}'s; give each participant its own",
                    root.line(earlier.start)
                ),
            );
        } else {
            first.insert(key, place);
        }
    }
    unique
}
