//! A window's summary, held against the books.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::books::Books;
use super::invariant::{Finding, Invariant};
use super::json_file::{self, number, same_object};
use super::notebook::Notebook;
use super::row::{code_of, currency_code, hex, time_text};
use super::window_books::{Closed, Ended, Flows, PartySums, participants};
use crate::domain::{Position, Role};

/// So many flows are told at most.
const FLOWS_MAX: usize = 20;

/// What a window's summary must say.
pub(super) struct SummaryOf<'a> {
    pub(super) books: &'a Books,
    pub(super) window: &'a Closed,
    pub(super) journal_id: [u8; 16],
    pub(super) root: &'a str,
    pub(super) gross: Position,
    pub(super) parties: &'a [PartySums],
    pub(super) flows: &'a Flows,
    /// By participant: the hash that its detail file must have.
    pub(super) details: &'a BTreeMap<u16, String>,
    pub(super) file: String,
}

impl SummaryOf<'_> {
    fn finding(&self, invariant: Invariant, what: String) -> Finding {
        invariant.broken(what).in_file(&*self.file).at(self.window.id)
    }

    /// Checks the file.
    pub(super) fn check(&self, path: &Path, notebook: &mut Notebook) {
        let Some(mut told) = json_file::read(path, &self.file, notebook) else {
            return;
        };
        let tallies = told.remove("tallies");
        let parties = told.remove("participants");
        let flows = told.remove("flows");
        let scheme = self.books.scheme.map_or_else(String::new, |scheme| scheme.code.text());
        let window = self.window;
        let expected = [
            ("window", Value::from(window.id.to_string())),
            ("currency", Value::from(currency_code(window.currency))),
            ("scheme", Value::from(scheme)),
            ("journal_id", Value::from(hex(&self.journal_id))),
            ("opened_at", Value::from(time_text(window.trace.opened))),
            ("closed_at", Value::from(time_text(window.closed))),
            ("close_event", Value::from(window.event)),
            ("committed", Value::from(window.trace.posted.len())),
            ("gross_minor", number(self.gross)),
            ("root", Value::from(self.root)),
        ];
        same_object(&told, &expected, notebook, |key| {
            let invariant = match key {
                "committed" | "gross_minor" => Invariant::Files,
                _ => Invariant::Replay,
            };
            self.finding(invariant, key.to_owned())
        });
        self.check_tallies(tallies.as_ref().and_then(Value::as_object), notebook);
        self.check_parties(parties.as_ref().and_then(Value::as_array), notebook);
        self.check_flows(flows.as_ref().and_then(Value::as_array), notebook);
        notebook.checked(Invariant::Files, "summaries", 1);
    }

    fn check_tallies(&self, told: Option<&Map<String, Value>>, notebook: &mut Notebook) {
        let Some(told) = told else {
            notebook.find(self.finding(Invariant::Files, "tallies are missing".to_owned()));
            return;
        };
        let trace = &self.window.trace;
        let nothing = Value::Null;
        let all = BTreeMap::from([("all", trace.all)]);
        let outer = json!({"all": told.get("all").unwrap_or(&nothing)});
        self.same_tallies("tallies", &all, outer.as_object(), notebook);
        for (what, ours) in [("by_kind", &trace.by_kind), ("by_scene", &trace.by_scene)] {
            let theirs = told.get(what).and_then(Value::as_object);
            self.same_tallies(&format!("tallies.{what}"), ours, theirs, notebook);
        }
        let codes = told.get("by_code").and_then(Value::as_object);
        let count = |key: &str| {
            codes
                .and_then(|codes| codes.get(key))
                .and_then(Value::as_u64)
                .unwrap_or(0)
        };
        let ours: BTreeMap<String, u64> = trace
            .by_code
            .iter()
            .map(|(code, count)| (format!("{code:02}"), *count))
            .collect();
        let theirs = codes.into_iter().flat_map(Map::keys);
        for key in ours.keys().chain(theirs).collect::<BTreeSet<_>>() {
            notebook.same(&ours.get(key).copied().unwrap_or(0), &count(key), || {
                self.finding(Invariant::Files, format!("tallies.by_code.{key}"))
            });
        }
    }

    /// A tally of nothing may be left out or not.
    fn same_tallies(
        &self,
        what: &str,
        ours: &BTreeMap<&'static str, Ended>,
        theirs: Option<&Map<String, Value>>,
        notebook: &mut Notebook,
    ) {
        let empty = Map::new();
        let theirs = theirs.unwrap_or(&empty);
        let keys = ours.keys().copied().chain(theirs.keys().map(String::as_str));
        for key in keys.collect::<BTreeSet<_>>() {
            let tally = ours.get(key).copied().unwrap_or_default();
            let there = match theirs.get(key).and_then(Value::as_object) {
                Some(there) => there,
                None if tally == Ended::default() => continue,
                None => &empty,
            };
            let success = (tally.all() > 0).then(|| tally.committed * 10_000 / tally.all());
            let expected = [
                ("committed", Value::from(tally.committed)),
                ("declined", Value::from(tally.declined)),
                ("expired", Value::from(tally.expired)),
                ("rejected", Value::from(tally.rejected)),
                ("committed_minor", number(tally.committed_minor)),
                ("success_bp", success.map_or(Value::Null, Value::from)),
            ];
            same_object(there, &expected, notebook, |field| {
                self.finding(Invariant::Files, format!("{what}.{key}.{field}"))
            });
        }
    }

    fn check_parties(&self, told: Option<&Vec<Value>>, notebook: &mut Notebook) {
        let told = told.map_or(&[][..], Vec::as_slice);
        let mut sum: Position = 0;
        for there in told {
            sum += there["net_minor"].as_i64().map_or(0, Position::from);
        }
        notebook.same(&0, &sum, || {
            self.finding(Invariant::ZeroSum, "the sum of all net_minor".to_owned())
        });
        notebook.checked(Invariant::ZeroSum, "sums of the nets in summaries", 1);
        let ours: Vec<_> = participants(self.books).collect();
        notebook.same(&ours.len(), &told.len(), || {
            self.finding(Invariant::Files, "the number of participants".to_owned())
        });
        for (participant, there) in ours.into_iter().zip(told) {
            let code = code_of(self.books, participant);
            let Some(there) = there.as_object() else {
                notebook.find(
                    self.finding(Invariant::Files, "no object in participants".to_owned())
                        .of(code),
                );
                continue;
            };
            let sums = &self.parties[participant.index()];
            let role = self.books.participant_ref(participant).map(|p| p.terms.role);
            let role = match role.and_then(Role::from_u8) {
                Some(Role::Institution) => "institution",
                Some(Role::Bank) => "bank",
                None => "",
            };
            let detail = self.details.get(&participant.0).cloned();
            let expected = [
                ("index", Value::from(participant.0)),
                ("code", Value::from(code.clone())),
                ("role", Value::from(role)),
                ("records", Value::from(sums.leaves.len())),
                ("debits", Value::from(sums.debits)),
                ("debits_minor", number(sums.debits_minor)),
                ("credits", Value::from(sums.credits)),
                ("credits_minor", number(sums.credits_minor)),
                ("net_minor", number(sums.net())),
                ("detail_sha256", detail.map_or(Value::Null, Value::from)),
            ];
            same_object(there, &expected, notebook, |key| {
                let invariant = if key == "net_minor" {
                    Invariant::Positions
                } else {
                    Invariant::Files
                };
                self.finding(invariant, key.to_owned()).of(&*code)
            });
            notebook.checked(Invariant::Positions, "nets of participants in summaries", 1);
        }
    }

    /// The largest flows, the largest first; which of two of the same sum comes first is not held against the file.
    fn check_flows(&self, told: Option<&Vec<Value>>, notebook: &mut Notebook) {
        let told = told.map_or(&[][..], Vec::as_slice);
        notebook.same(&self.flows.len().min(FLOWS_MAX), &told.len(), || {
            self.finding(Invariant::Files, "the number of flows".to_owned())
        });
        let by_code: BTreeMap<(String, String), (u64, Position)> = self
            .flows
            .iter()
            .map(|(&(debtor, creditor), &flow)| {
                let code = |index: u16| code_of(self.books, crate::domain::ParticipantIndex(index));
                ((code(debtor), code(creditor)), flow)
            })
            .collect();
        let mut sums: Vec<Position> = self.flows.values().map(|&(_, sum)| sum).collect();
        sums.sort_unstable_by(|a, b| b.cmp(a));
        for (there, sum) in told.iter().zip(sums) {
            let text = |key: &str| there[key].as_str().unwrap_or_default().to_owned();
            let pair = (text("debtor"), text("creditor"));
            let (payments, amount) = by_code.get(&pair).copied().unwrap_or_default();
            let Some(there) = there.as_object() else { continue };
            let expected = [
                ("debtor", Value::from(pair.0.clone())),
                ("creditor", Value::from(pair.1.clone())),
                ("payments", Value::from(payments)),
                ("amount_minor", number(amount)),
            ];
            let flow = format!("flow of {} to {}", pair.0, pair.1);
            same_object(there, &expected, notebook, |key| {
                self.finding(Invariant::Files, format!("{flow}: {key}"))
            });
            notebook.same(&sum, &amount, || {
                self.finding(
                    Invariant::Files,
                    format!("{flow} is not in its place among the largest"),
                )
            });
        }
    }
}
