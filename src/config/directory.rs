//! The directory: who takes part in the scheme, and on what terms.
//!
//! A participant's index is written here once and never given to another; indices are dense from 0, so that every stage
//! keeps per-participant state in plain arrays. A directory that was loaded is consistent: codes are unique, indices
//! dense, Tq < T1 < T2, cap ≤ cover.

use std::path::Path;

use super::directory_toml;
use super::directory_write;
use super::fault::{ConfigError, read_file};
use super::{credential_hash, demo_credential};
use crate::domain::{ParticipantIndex, ParticipantTerms, Role, SchemeCode, SchemeTerms};

/// All participants and the scheme's own terms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    /// The scheme's terms, as journaled at Genesis.
    pub scheme: SchemeTerms,
    /// The participants; entry `i` has index `i`.
    pub participants: Vec<DirectoryEntry>,
}

/// One participant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// What decides about payments, as journaled at Genesis.
    pub terms: ParticipantTerms,
    /// The participant's name, for people.
    pub name: String,
    /// CNAPS number (现代化支付系统行号), 12 digits.
    pub cnaps: Option<String>,
    /// ISO 9362 BIC, 8 or 11 characters.
    pub bic: Option<String>,
    /// BLAKE3 hash of the 32-byte credential the participant signs on with.
    pub credential_hash: [u8; 32],
}

impl DirectoryEntry {
    /// The participant's role.
    ///
    /// # Panics
    /// When the terms carry a number that is no role; a directory that was loaded or generated never does.
    #[must_use]
    pub fn role(&self) -> Role {
        Role::from_u8(self.terms.role).unwrap_or_else(|| panic!("role {} does not exist", self.terms.role))
    }

    /// True when the participant signs on with the credential anyone can compute.
    #[must_use]
    pub fn has_demo_credential(&self) -> bool {
        self.credential_hash == credential_hash(&demo_credential(&self.terms.code))
    }
}

impl Directory {
    /// Reads and checks a directory file.
    ///
    /// # Errors
    /// An unreadable file, or every fault in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(
            &path.display().to_string(),
            &read_file(
                path,
                "give the path of a directory file; `clearway directory generate` writes one",
            )?,
        )
    }

    /// Reads and checks a directory's text; `name` is the file's name in messages.
    ///
    /// # Errors
    /// Every fault in the text.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        directory_toml::parse(name, text)
    }

    /// The directory as a file that [`Directory::load`] reads back to the same directory.
    #[must_use]
    pub fn to_toml(&self) -> String {
        directory_write::write(self)
    }

    /// The participant with a public code. Looks through all: a code is only asked for when a link signs on.
    #[must_use]
    pub fn by_code(&self, code: &SchemeCode) -> Option<&DirectoryEntry> {
        self.participants.iter().find(|entry| entry.terms.code == *code)
    }

    /// The participant with an index.
    #[must_use]
    pub fn get(&self, index: ParticipantIndex) -> Option<&DirectoryEntry> {
        self.participants.get(index.index())
    }

    /// How many participants sign on with credentials that anyone can compute.
    #[must_use]
    pub fn demo_credentials(&self) -> usize {
        self.participants.iter().filter(|e| e.has_demo_credential()).count()
    }

    /// How many participants have this role.
    #[must_use]
    pub fn count(&self, role: Role) -> usize {
        self.participants.iter().filter(|entry| entry.role() == role).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Currency, Kind, SECOND};

    fn faults(text: &str) -> String {
        Directory::parse("directory.toml", text)
            .expect_err("the directory is faulty")
            .to_string()
    }

    /// Two participants; `institution` and `bank` are more lines of each.
    fn two(institution: &str, bank: &str) -> String {
        let hash = "0".repeat(64);
        format!(
            "[[participant]]\nindex = 0\ncode = \"Z2000000000001\"\nname = \"I\"\nrole = \"institution\"\n\
             credential_hash = \"{hash}\"\n{institution}\n\
             [[participant]]\nindex = 1\ncode = \"C1000000000001\"\nname = \"B\"\nrole = \"bank\"\n\
             credential_hash = \"{hash}\"\n{bank}\n"
        )
    }

    #[test]
    fn the_reference_directory_is_right_and_reads_back_the_same() {
        let generated = Directory::generate(115, 424);
        let text = generated.to_toml();
        let read = Directory::parse("directory.toml", &text).unwrap_or_else(|error| panic!("{}", error.render()));
        assert_eq!(read, generated);
        assert_eq!((read.count(Role::Institution), read.count(Role::Bank)), (115, 424));
        assert_eq!(read.demo_credentials(), 539);
        assert_eq!(read.scheme.participant_count, 539);
        let last = read.get(ParticipantIndex(538)).expect("539 participants");
        assert_eq!(read.by_code(&last.terms.code), Some(last));
        assert_eq!(
            last.credential_hash,
            credential_hash(&demo_credential(&last.terms.code))
        );
    }

    #[test]
    fn the_largest_directory_has_unique_codes_and_reads_back() {
        let generated = Directory::generate(1_000, 9_000);
        assert_eq!(
            Directory::parse("d.toml", &generated.to_toml()).expect("a right file"),
            generated
        );
    }

    #[test]
    fn what_is_left_out_takes_the_documented_default() {
        let directory = Directory::parse("d.toml", &two("", "cover_minor = 7")).expect("a right file");
        let [institution, bank] = directory.participants.as_slice() else {
            panic!("two participants")
        };
        let terms = &institution.terms;
        assert_eq!(
            (
                terms.wait_ns,
                terms.doubt_ns,
                terms.expiry_push_ns,
                terms.expiry_pull_ns
            ),
            (SECOND, 5 * SECOND, 20 * SECOND, 60 * SECOND)
        );
        assert!(terms.permits(Kind::Debit) && !terms.permits(Kind::Payout));
        let account = bank.terms.account(Currency::CNY).expect("an account");
        assert_eq!(
            (account.cover_minor, account.cap_minor),
            (7, 7),
            "a cover without a cap may be used whole"
        );
    }

    #[test]
    fn what_defaults_state_a_participant_may_change() {
        let text = format!(
            "[defaults]\ncover_minor = 100\ncap_minor = 90\nt1_ms = 4000\n{}",
            two("", "cap_minor = 80")
        );
        let directory = Directory::parse("d.toml", &text).expect("a right file");
        assert_eq!(directory.participants[0].terms.accounts[0].cap_minor, 90);
        assert_eq!(directory.participants[1].terms.accounts[0].cap_minor, 80);
        assert_eq!(directory.participants[1].terms.doubt_ns, 4 * SECOND);
        assert_eq!(
            Directory::parse("d.toml", &directory.to_toml()).expect("a right file"),
            directory
        );
    }

    #[test]
    fn accounts_in_further_currencies_read_back_the_same() {
        let text = format!(
            "[scheme]\ncurrencies = [\"CNY\", \"HKD\"]\n{}",
            two(
                "",
                "suspended = [\"responder\"]\n[[participant.account]]\ncurrency = \"HKD\"\ncover_minor = 5\ncap_minor = 3"
            )
        );
        let directory = Directory::parse("d.toml", &text).expect("a right file");
        let account = directory.participants[1]
            .terms
            .account(Currency(344))
            .expect("an account");
        assert_eq!((account.cover_minor, account.cap_minor), (5, 3));
        assert_eq!(
            Directory::parse("d.toml", &directory.to_toml()).expect("a right file"),
            directory
        );
    }

    #[test]
    fn timers_out_of_order_are_faults_at_the_line_that_states_them() {
        let error = faults(&two("tq_ms = 5000", "t2_push_ms = 5000\nt2_pull_ms = 4000"));
        assert!(
            error.contains("directory.toml:7:9: `tq_ms` = 5000 is not less than `t1_ms` = 5000"),
            "{error}"
        );
        assert!(
            error.contains("directory.toml:14:14: `t1_ms` = 5000 is not less than `t2_push_ms` = 5000"),
            "{error}"
        );
        assert!(
            error.contains("directory.toml:15:14: `t1_ms` = 5000 is not less than `t2_pull_ms`"),
            "{error}"
        );
    }

    #[test]
    fn a_cap_above_the_cover_is_a_fault() {
        let error = faults(&two("", "cover_minor = 10\ncap_minor = 11"));
        assert!(
            error.contains("directory.toml:15:13: the cap 11 is more than the cover 10"),
            "{error}"
        );
    }

    #[test]
    fn an_index_given_twice_or_leaving_a_gap_is_a_fault() {
        let twice = faults(&two("", "").replace("index = 1", "index = 0"));
        assert!(
            twice.contains("directory.toml:9:9: the index 0 is used twice; it is line 2's"),
            "{twice}"
        );
        let gap = faults(&two("", "").replace("index = 1", "index = 2"));
        assert!(gap.contains("the first free index is 1"), "{gap}");
        let large = faults(&two("", "").replace("index = 1", "index = 65535"));
        assert!(large.contains("from 0 to 65534"), "{large}");
    }

    #[test]
    fn every_wrong_value_of_a_participant_is_named_at_once() {
        let text = two("cnaps = \"12\"\nbic = \"abc\"\nkinds = [\"debt\"]", "")
            .replace("C1000000000001", "C1")
            .replace("\"institution\"", "\"institute\"");
        let error = faults(&text);
        for part in [
            "not a CNAPS",
            "not a BIC",
            "did you mean `debit`?",
            "exactly 14",
            "did you mean `institution`?",
        ] {
            assert!(error.contains(part), "{part} is missing in {error}");
        }
        assert_eq!(error.lines().count(), 5, "{error}");
    }

    #[test]
    fn a_credential_hash_must_be_64_hexadecimal_digits() {
        let error = faults(&two("", "").replacen(&"0".repeat(64), "xyz", 1));
        assert!(
            error.contains("directory.toml:6:19: `credential_hash` has 3 characters"),
            "{error}"
        );
    }

    #[test]
    fn an_empty_directory_says_how_to_get_one() {
        assert!(faults("").contains("clearway directory generate"));
    }
}
