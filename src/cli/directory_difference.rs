//! What a directory file says otherwise than the running switch: added, changed field by field, and what can't be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::{AccountSheet, ParticipantSheet};

/// What an Amend order changes.
const AMENDED: [&str; 12] = [
    "kinds",
    "tq_ms",
    "t1_ms",
    "t2_pull_ms",
    "t2_push_ms",
    "payment_limit_minor",
    "links_max",
    "request_in_flight_max",
    "request_per_second_max",
    "intake_in_flight_max",
    "intake_per_second_max",
    "inquiries_per_second_max",
];
/// What is not journaled: the file has it.
const INTRODUCED: [&str; 4] = ["name", "cnaps", "bic", "credential_hash"];

/// All that differs.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Who joins, in the order of the indices.
    pub(super) added: Vec<ParticipantSheet>,
    /// Whose entry is another.
    pub(super) changed: Vec<Changed>,
    /// Cover and caps that are to move, those who join included.
    pub(super) movements: Vec<Movement>,
    /// What can't be, in words.
    pub(super) impossible: Vec<String>,
}

/// A participant whose entry is another.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) sheet: ParticipantSheet,
    /// Field, in force, in the file.
    pub(super) fields: Vec<(&'static str, Value, Value)>,
    /// Directions in which it is suspended from now on, and no more.
    pub(super) suspended: Vec<String>,
    pub(super) resumed: Vec<String>,
}

impl Changed {
    pub(super) fn is_amended(&self) -> bool {
        self.fields.iter().any(|(field, _, _)| AMENDED.contains(field))
    }

    pub(super) fn is_introduced(&self) -> bool {
        self.fields.iter().any(|(field, _, _)| INTRODUCED.contains(field))
    }
}

/// Cover or cap of one account. Figures as a directory has them: as they would be had nothing been settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Movement {
    pub(super) code: String,
    pub(super) currency: String,
    pub(super) what: Moved,
    pub(super) before_minor: i64,
    pub(super) after_minor: i64,
    /// What settlement has taken from the account, minor units.
    pub(super) settled_minor: i64,
    /// The cover in force, likewise.
    cover_before_minor: i64,
    cap_before_minor: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moved {
    Cover,
    Cap,
}

impl Movement {
    /// The proposal's action and its amount, minor units; `None` where the cap would be below zero by what was settled.
    pub(super) fn proposal(&self) -> Option<(&'static str, u64)> {
        let change = i128::from(self.after_minor) - i128::from(self.before_minor);
        match self.what {
            Moved::Cover if change > 0 => Some(("cover_in", u64::try_from(change).ok()?)),
            Moved::Cover => Some(("cover_out", u64::try_from(-change).ok()?)),
            Moved::Cap => {
                let cap = i128::from(self.after_minor) - i128::from(self.settled_minor);
                Some(("set_cap", u64::try_from(cap).ok()?))
            }
        }
    }

    /// What must be approved before the switch takes this proposal.
    pub(super) fn waits_for(&self) -> Option<&'static str> {
        match self.what {
            Moved::Cap if self.after_minor > self.cover_before_minor => Some("the cover that is to come in"),
            Moved::Cover if self.after_minor < self.cap_before_minor => Some("the lower cap"),
            Moved::Cap | Moved::Cover => None,
        }
    }
}

impl Difference {
    /// Compares. `settled` says what settlement has taken, by code and currency.
    pub(super) fn between(
        in_force: &[ParticipantSheet],
        settled: &BTreeMap<String, BTreeMap<String, i64>>,
        file: &[ParticipantSheet],
        line_of: impl Fn(&str) -> Option<usize>,
    ) -> Self {
        let mut difference = Self::default();
        let at = |code: &str| line_of(code).map_or_else(String::new, |line| format!("line {line}: "));
        for known in in_force {
            if !file.iter().any(|sheet| sheet.index == known.index) {
                difference.impossible.push(format!(
                    "{} (index {}) is in force and not in the file: a participant is never removed; write it back, and \
                     suspend it: suspended = [\"initiator\", \"responder\"]",
                    known.code, known.index
                ));
            }
        }
        for sheet in file {
            let nothing = BTreeMap::new();
            let settled = settled.get(&sheet.code).unwrap_or(&nothing);
            let Some(known) = in_force.iter().find(|known| known.index == sheet.index) else {
                if let Some(other) = in_force.iter().find(|known| known.code == sheet.code) {
                    difference.impossible.push(format!(
                        "{}{} has the index {} in force and {} in the file: an index is never changed",
                        at(&sheet.code),
                        sheet.code,
                        other.index,
                        sheet.index
                    ));
                    continue;
                }
                difference.move_cover(&[], sheet, settled);
                difference.added.push(sheet.clone());
                continue;
            };
            if known.code != sheet.code {
                difference.impossible.push(format!(
                    "{}index {} is {} in force and {} in the file: an index is given once, and a code stays",
                    at(&sheet.code),
                    sheet.index,
                    known.code,
                    sheet.code
                ));
                continue;
            }
            if known.role != sheet.role {
                difference.impossible.push(format!(
                    "{}{} is in force as {} and in the file as {}: a role is never changed",
                    at(&sheet.code),
                    sheet.code,
                    known.role,
                    sheet.role
                ));
                continue;
            }
            difference.compare(known, sheet);
            difference.move_cover(&known.accounts, sheet, settled);
        }
        difference.added.sort_by_key(|sheet| sheet.index);
        difference
    }

    fn compare(&mut self, known: &ParticipantSheet, sheet: &ParticipantSheet) {
        let (before, after) = (json!(known), json!(sheet));
        let named = AMENDED.into_iter().chain(INTRODUCED);
        let fields = named.filter(|field| before[field] != after[field]);
        let fields: Vec<_> = fields
            .map(|field| (field, before[field].clone(), after[field].clone()))
            .collect();
        let not_in = |list: &[String], other: &[String]| -> Vec<String> {
            list.iter().filter(|word| !other.contains(word)).cloned().collect()
        };
        let changed = Changed {
            sheet: sheet.clone(),
            fields,
            suspended: not_in(&sheet.suspended, &known.suspended),
            resumed: not_in(&known.suspended, &sheet.suspended),
        };
        if !changed.fields.is_empty() || !changed.suspended.is_empty() || !changed.resumed.is_empty() {
            self.changed.push(changed);
        }
    }

    fn move_cover(&mut self, known: &[AccountSheet], sheet: &ParticipantSheet, settled: &BTreeMap<String, i64>) {
        for account in known {
            if !sheet.accounts.iter().any(|there| there.currency == account.currency) {
                self.impossible.push(format!(
                    "{} has an account in {} and none in the file: an account is never closed; state its cover and cap",
                    sheet.code, account.currency
                ));
            }
        }
        for account in &sheet.accounts {
            let before = known.iter().find(|known| known.currency == account.currency);
            let (cover, cap) = before.map_or((0, 0), |before| (before.cover_minor, before.cap_minor));
            let movement = |what, before_minor, after_minor| Movement {
                code: sheet.code.clone(),
                currency: account.currency.clone(),
                what,
                before_minor,
                after_minor,
                settled_minor: settled.get(&account.currency).copied().unwrap_or(0),
                cover_before_minor: cover,
                cap_before_minor: cap,
            };
            let cover = (cover != account.cover_minor).then(|| movement(Moved::Cover, cover, account.cover_minor));
            let cap = (cap != account.cap_minor).then(|| movement(Moved::Cap, cap, account.cap_minor));
            self.movements.extend(cover.into_iter().chain(cap));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.movements.is_empty() && self.impossible.is_empty()
    }

    /// The difference for programs.
    pub(super) fn json(&self) -> Value {
        let changed = self.changed.iter().map(|changed| {
            let fields: serde_json::Map<String, Value> = changed
                .fields
                .iter()
                .map(|(field, before, after)| ((*field).to_owned(), json!({ "in_force": before, "file": after })))
                .collect();
            json!({
                "code": changed.sheet.code,
                "fields": fields,
                "suspended": changed.suspended,
                "resumed": changed.resumed,
            })
        });
        let movements = self.movements.iter().map(|movement| {
            json!({
                "code": movement.code,
                "currency": movement.currency,
                "what": match movement.what { Moved::Cover => "cover", Moved::Cap => "cap" },
                "in_force_minor": movement.before_minor,
                "file_minor": movement.after_minor,
                "settled_minor": movement.settled_minor,
            })
        });
        json!({
            "added": self.added.iter().map(|sheet| &sheet.code).collect::<Vec<_>>(),
            "changed": changed.collect::<Vec<_>>(),
            "movements": movements.collect::<Vec<_>>(),
            "impossible": self.impossible,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Directory;

    fn sheets(directory: &Directory) -> Vec<ParticipantSheet> {
        directory.participants.iter().map(ParticipantSheet::from).collect()
    }

    fn between(in_force: &[ParticipantSheet], file: &[ParticipantSheet]) -> Difference {
        Difference::between(in_force, &BTreeMap::new(), file, |_| Some(7))
    }

    #[test]
    fn the_same_directory_differs_in_nothing() {
        let same = sheets(&Directory::generate(2, 2));
        assert!(between(&same, &same).is_empty());
    }

    #[test]
    fn each_field_that_differs_is_told_with_both_values_and_by_what_order_it_changes() {
        let in_force = sheets(&Directory::generate(2, 2));
        let mut file = in_force.clone();
        file[0].t1_ms += 1;
        file[1].name = "Another name".to_owned();
        file[2].suspended = vec!["responder".to_owned()];
        file[3].accounts[0].cover_minor += 500;
        let difference = between(&in_force, &file);
        let changed: Vec<_> = difference
            .changed
            .iter()
            .map(|c| (c.is_amended(), c.is_introduced()))
            .collect();
        assert_eq!(changed, [(true, false), (false, true), (false, false)]);
        let (field, before, after) = &difference.changed[0].fields[0];
        assert_eq!((*field, before, after), ("t1_ms", &json!(5_000), &json!(5_001)));
        assert_eq!(difference.changed[2].suspended, ["responder"]);
        assert_eq!(difference.movements.len(), 1);
        assert_eq!(difference.movements[0].proposal(), Some(("cover_in", 500)));
    }

    #[test]
    fn what_settlement_moved_is_no_difference_and_a_cap_is_proposed_as_it_is_to_be_in_force() {
        let in_force = sheets(&Directory::generate(1, 1));
        let mut file = in_force.clone();
        let cap = in_force[1].accounts[0].cap_minor;
        file[1].accounts[0].cap_minor = cap - 300;
        let settled = BTreeMap::from([(in_force[1].code.clone(), BTreeMap::from([("CNY".to_owned(), 100)]))]);
        let difference = Difference::between(&in_force, &settled, &file, |_| None);
        assert_eq!(
            difference.movements[0].proposal(),
            Some(("set_cap", (cap - 400) as u64))
        );
    }

    #[test]
    fn a_cap_above_the_cover_in_force_waits_for_the_cover_and_cover_below_the_cap_for_the_cap() {
        let mut in_force = sheets(&Directory::generate(1, 1));
        (in_force[1].accounts[0].cover_minor, in_force[1].accounts[0].cap_minor) = (100, 80);
        let waits = |cover, cap| {
            let mut file = in_force.clone();
            (file[1].accounts[0].cover_minor, file[1].accounts[0].cap_minor) = (cover, cap);
            let difference = between(&in_force, &file);
            let waits: Vec<bool> = difference.movements.iter().map(|m| m.waits_for().is_some()).collect();
            waits
        };
        assert_eq!(waits(200, 150), [false, true]);
        assert_eq!(waits(50, 40), [true, false]);
        assert_eq!(waits(90, 85), [false, false]);
    }

    #[test]
    fn removal_and_another_index_code_or_role_can_not_be_and_the_line_is_named() {
        let in_force = sheets(&Directory::generate(1, 2));
        let removed = between(&in_force, &in_force[..2]);
        assert!(removed.impossible[0].contains("never removed"), "{removed:?}");
        let mut file = in_force.clone();
        file[1].code = "C9999999999999".to_owned();
        file[2].role = "institution".to_owned();
        let difference = between(&in_force, &file);
        assert_eq!(difference.impossible.len(), 2, "{difference:?}");
        assert!(
            difference.impossible.iter().all(|said| said.starts_with("line 7: ")),
            "{difference:?}"
        );
        let mut file = in_force.clone();
        file[2].index = 3;
        assert!(
            between(&in_force, &file)
                .impossible
                .iter()
                .any(|said| said.contains("index is never changed"))
        );
    }
}
