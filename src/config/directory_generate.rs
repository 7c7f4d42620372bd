//! The reference directory: plausible participants, the same on every run.

use super::directory::{Directory, DirectoryEntry};
use super::directory_toml::{Defaults, default_scheme};
use super::{credential_hash, demo_credential};
use crate::domain::{
    CurrencyTerms, Kind, LinkContract, MILLISECOND, ParticipantIndex, ParticipantTerms, Role, SchemeCode, SchemeTerms,
};

/// Cover of each generated participant, fen: one trillion yuan, so that a flood never meets it. Institutions have as much
/// as banks: they owe what they push.
const GENEROUS_COVER_MINOR: u64 = 100_000_000_000_000;

/// Payments that a generated institution may have unanswered, so that a flood is not refused at the door.
const GENEROUS_IN_FLIGHT: u32 = 65_536;

impl Directory {
    /// Makes a directory with this many institutions (indices from 0) and banks (after them), deterministic, with demo
    /// credentials and terms generous enough for a flood. The reference load is 115 and 424.
    ///
    /// # Panics
    /// When both together are more than a `u16` can number.
    #[must_use]
    pub fn generate(institutions: u16, banks: u16) -> Self {
        assert!(
            institutions.checked_add(banks).is_some(),
            "{institutions} institutions and {banks} banks are more than {} participants",
            u16::MAX
        );
        let institution = |number| generate_entry(number, Role::Institution, number);
        let bank = |number| generate_entry(institutions + number, Role::Bank, number);
        let participants: Vec<DirectoryEntry> =
            (0..institutions).map(institution).chain((0..banks).map(bank)).collect();
        let scheme = SchemeTerms {
            participant_count: participants.len() as u32,
            ..default_scheme()
        };
        Self { scheme, participants }
    }
}

fn generate_entry(index: u16, role: Role, number: u16) -> DirectoryEntry {
    let defaults = Defaults {
        permitted_kinds: Kind::ALL.iter().fold(0, |mask, kind| mask | kind.bit()),
        ..Defaults::default()
    };
    let (prefix, name, cnaps, bic_code) = match role {
        Role::Institution => (
            "Z2",
            format!("Payment institution {:03}", number + 1),
            format!("9{:011}", 91_000_000 + u64::from(number)),
            bic("PI", number),
        ),
        Role::Bank => (
            "C1",
            format!("Bank {:03}", number + 1),
            format!("1{:011}", 2_100_000_000 + u64::from(number) * 11),
            bic("BK", number),
        ),
    };
    // Kind of participant, place and serial, and a check digit at the end.
    let body = format!(
        "{prefix}{:04}{:07}",
        1_000 + number % 9_000,
        3_300_000 + u32::from(number)
    );
    let check = body.bytes().map(u32::from).sum::<u32>() % 10;
    let code = SchemeCode::parse(&format!("{body}{check}")).unwrap_or_else(|| panic!("{body}{check} is not a code"));
    let unused = CurrencyTerms {
        currency: 0,
        reserved: [0; 14],
        cover_minor: 0,
        cap_minor: 0,
    };
    let account = CurrencyTerms {
        currency: default_scheme().currencies[0],
        cover_minor: GENEROUS_COVER_MINOR,
        cap_minor: GENEROUS_COVER_MINOR,
        ..unused
    };
    DirectoryEntry {
        terms: ParticipantTerms {
            index: ParticipantIndex(index),
            code,
            role: role as u8,
            suspended: 0,
            reserved: [0; 2],
            permitted_kinds: defaults.permitted_kinds,
            wait_ns: defaults.wait_ms * MILLISECOND,
            doubt_ns: defaults.doubt_ms * MILLISECOND,
            expiry_pull_ns: defaults.expiry_pull_ms * MILLISECOND,
            expiry_push_ns: defaults.expiry_push_ms * MILLISECOND,
            payment_limit_minor: defaults.payment_limit_minor,
            accounts: [account, unused, unused, unused],
            contract: LinkContract {
                intake_in_flight_max: GENEROUS_IN_FLIGHT,
                ..defaults.contract()
            },
        },
        name,
        cnaps: Some(cnaps),
        bic: Some(bic_code),
        credential_hash: credential_hash(&demo_credential(&code)),
    }
}

/// An ISO 9362 BIC that no other participant of the role has: party prefix, `CN`, and a location that changes after 676.
fn bic(role: &str, number: u16) -> String {
    let letter = |digit: u16| char::from(b'A' + (digit % 26) as u8);
    let location = |digit: u16| char::from_digit(u32::from(digit % 36), 36).map_or('0', |c| c.to_ascii_uppercase());
    // 74 is `22` in base 36.
    let place = 74 + number / 676;
    [
        letter(number / 26),
        letter(number),
        'C',
        'N',
        location(place / 36),
        location(place),
    ]
    .iter()
    .fold(role.to_owned(), |bic, &character| bic + &character.to_string())
}
