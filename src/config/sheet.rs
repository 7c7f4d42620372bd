//! A participant's entry with a name for every figure, as the admin socket carries it and as two entries are compared.
//!
//! The names are the keys of the directory file.

use serde::{Deserialize, Serialize};

use super::credential::{from_hex, to_hex};
use super::directory::DirectoryEntry;
use super::directory_toml::{CURRENCIES, ROLES, SUSPENSIONS};
use crate::domain::{
    Currency, CurrencyTerms, Kind, LinkContract, MILLISECOND, ParticipantIndex, ParticipantTerms, Role, SchemeCode,
};

/// One participant's entry. Money in minor units, times in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    missing_docs,
    reason = "the names are the keys of the directory file, which says what they mean"
)]
pub struct ParticipantSheet {
    pub index: u16,
    pub code: String,
    pub name: String,
    pub cnaps: Option<String>,
    pub bic: Option<String>,
    pub role: String,
    pub credential_hash: String,
    pub suspended: Vec<String>,
    pub kinds: Vec<String>,
    pub tq_ms: u64,
    pub t1_ms: u64,
    pub t2_pull_ms: u64,
    pub t2_push_ms: u64,
    pub payment_limit_minor: u64,
    pub links_max: u16,
    pub request_in_flight_max: u32,
    pub request_per_second_max: u32,
    pub intake_in_flight_max: u32,
    pub intake_per_second_max: u32,
    pub inquiries_per_second_max: u32,
    pub accounts: Vec<AccountSheet>,
}

/// Cover and cap in one currency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    missing_docs,
    reason = "the names are the keys of the directory file, which says what they mean"
)]
pub struct AccountSheet {
    pub currency: String,
    pub cover_minor: i64,
    pub cap_minor: i64,
}

/// An ISO 4217 alphabetic code's number, where the scheme knows it.
#[must_use]
pub fn currency_number(alphabetic: &str) -> Option<u16> {
    CURRENCIES
        .iter()
        .find(|(word, _)| *word == alphabetic)
        .map(|(_, number)| *number)
}

/// The names of a suspension's bits.
#[must_use]
pub fn suspension_names(bits: u8) -> Vec<String> {
    let set = SUSPENSIONS.iter().filter(|(_, bit)| bits & bit != 0);
    set.map(|(word, _)| (*word).to_owned()).collect()
}

/// The bits of a suspension; no names are both directions.
///
/// # Errors
/// The name that is none, in words.
pub fn suspension_bits(names: &[String]) -> Result<u8, String> {
    if names.is_empty() {
        return Ok(SUSPENSIONS.iter().fold(0, |bits, (_, bit)| bits | bit));
    }
    named(names, &SUSPENSIONS, "direction").map(|bits| bits.iter().fold(0, |all, bit| all | bit))
}

impl From<&DirectoryEntry> for ParticipantSheet {
    fn from(entry: &DirectoryEntry) -> Self {
        let terms = &entry.terms;
        let role = ROLES.iter().find(|(_, role)| *role as u8 == terms.role);
        let kinds = Kind::ALL.iter().filter(|kind| terms.permits(**kind));
        let accounts = terms.accounts.iter().filter(|account| account.currency != 0);
        let minor = |minor: u64| i64::try_from(minor).unwrap_or(i64::MAX);
        Self {
            index: terms.index.0,
            code: terms.code.text(),
            name: entry.name.clone(),
            cnaps: entry.cnaps.clone(),
            bic: entry.bic.clone(),
            role: role.map_or_else(|| terms.role.to_string(), |(word, _)| (*word).to_owned()),
            credential_hash: to_hex(&entry.credential_hash),
            suspended: suspension_names(terms.suspended),
            kinds: kinds.map(|kind| kind.name().to_owned()).collect(),
            tq_ms: terms.wait_ns / MILLISECOND,
            t1_ms: terms.doubt_ns / MILLISECOND,
            t2_pull_ms: terms.expiry_pull_ns / MILLISECOND,
            t2_push_ms: terms.expiry_push_ns / MILLISECOND,
            payment_limit_minor: terms.payment_limit_minor,
            links_max: terms.contract.links_max,
            request_in_flight_max: terms.contract.request_in_flight_max,
            request_per_second_max: terms.contract.request_per_second_max,
            intake_in_flight_max: terms.contract.intake_in_flight_max,
            intake_per_second_max: terms.contract.intake_per_second_max,
            inquiries_per_second_max: terms.contract.inquiries_per_second_max,
            accounts: accounts
                .map(|account| AccountSheet {
                    currency: Currency(account.currency).alphabetic().to_owned(),
                    cover_minor: minor(account.cover_minor),
                    cap_minor: minor(account.cap_minor),
                })
                .collect(),
        }
    }
}

impl TryFrom<&ParticipantSheet> for DirectoryEntry {
    type Error = String;

    /// The entry, its accounts without cover and cap: what moves cover takes two people.
    fn try_from(sheet: &ParticipantSheet) -> Result<Self, String> {
        let code = SchemeCode::parse(&sheet.code).ok_or_else(|| format!("`{}` is not a scheme code", sheet.code))?;
        let role = one(&sheet.role, &ROLES, "role")?;
        let kinds = named(&sheet.kinds, &Kind::ALL.map(|kind| (kind.name(), kind.bit())), "kind")?;
        let suspended = named(&sheet.suspended, &SUSPENSIONS, "direction")?;
        let mut accounts: [CurrencyTerms; 4] = bytemuck::Zeroable::zeroed();
        if sheet.accounts.len() > accounts.len() {
            return Err("a participant has at most four accounts".to_owned());
        }
        for (account, asked) in accounts.iter_mut().zip(&sheet.accounts) {
            account.currency = one(&asked.currency, &CURRENCIES, "currency")?;
        }
        let ns = |ms: u64| ms.saturating_mul(MILLISECOND);
        let credential_hash = from_hex(&sheet.credential_hash);
        Ok(Self {
            terms: ParticipantTerms {
                index: ParticipantIndex(sheet.index),
                code,
                role: role as u8,
                suspended: suspended.iter().fold(0, |all, bit| all | bit),
                reserved: [0; 2],
                permitted_kinds: kinds.iter().fold(0, |all, bit| all | bit),
                wait_ns: ns(sheet.tq_ms),
                doubt_ns: ns(sheet.t1_ms),
                expiry_pull_ns: ns(sheet.t2_pull_ms),
                expiry_push_ns: ns(sheet.t2_push_ms),
                payment_limit_minor: sheet.payment_limit_minor,
                accounts,
                contract: LinkContract {
                    request_in_flight_max: sheet.request_in_flight_max,
                    request_per_second_max: sheet.request_per_second_max,
                    intake_in_flight_max: sheet.intake_in_flight_max,
                    intake_per_second_max: sheet.intake_per_second_max,
                    inquiries_per_second_max: sheet.inquiries_per_second_max,
                    links_max: sheet.links_max,
                    reserved: [0; 10],
                },
            },
            name: sheet.name.clone(),
            cnaps: sheet.cnaps.clone(),
            bic: sheet.bic.clone(),
            credential_hash: credential_hash.ok_or("`credential_hash` is not 64 hexadecimal digits")?,
        })
    }
}

impl ParticipantSheet {
    /// The role, where it is one.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        one(&self.role, &ROLES, "role").ok()
    }
}

fn one<T: Copy>(written: &str, words: &[(&str, T)], what: &str) -> Result<T, String> {
    let known = words.iter().find(|(word, _)| *word == written);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("`{written}` is not a {what}: one of {}", names.join(", "))
    })
}

fn named<T: Copy>(written: &[String], words: &[(&str, T)], what: &str) -> Result<Vec<T>, String> {
    written.iter().map(|written| one(written, words, what)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Directory;
    use super::*;

    #[test]
    fn an_entry_goes_through_the_socket_and_comes_back_the_same_but_for_its_cover() {
        let mut directory = Directory::generate(1, 1);
        directory.participants[1].terms.suspended = ParticipantTerms::SUSPENDED_RESPONDER;
        for entry in &directory.participants {
            let sheet = ParticipantSheet::from(entry);
            let text = serde_json::to_string(&sheet).unwrap();
            let read: ParticipantSheet = serde_json::from_str(&text).unwrap();
            assert_eq!(read, sheet);
            let mut expected = entry.clone();
            for account in &mut expected.terms.accounts {
                (account.cover_minor, account.cap_minor) = (0, 0);
            }
            assert_eq!(DirectoryEntry::try_from(&read), Ok(expected));
        }
    }

    #[test]
    fn what_a_sheet_says_wrong_is_named() {
        let right = ParticipantSheet::from(&Directory::generate(1, 1).participants[0]);
        let mut wrong = right.clone();
        wrong.kinds = vec!["debt".to_owned()];
        assert!(
            DirectoryEntry::try_from(&wrong)
                .unwrap_err()
                .contains("`debt` is not a kind")
        );
        let mut wrong = right;
        wrong.credential_hash = "12".to_owned();
        assert!(DirectoryEntry::try_from(&wrong).unwrap_err().contains("64 hexadecimal"));
    }
}
