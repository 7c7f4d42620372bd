//! What a verification has checked, over how many, and what it has found.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::invariant::{Finding, Invariant};

/// More findings than this of one invariant say nothing new; the rest is counted.
const FINDINGS_PER_INVARIANT_MAX: u64 = 50;

/// How one invariant was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvariantReport {
    /// Which.
    pub invariant: Invariant,
    /// In which ways, and over how many of what the words say.
    pub checked: Vec<(&'static str, u64)>,
    /// Findings against it.
    pub broken: u64,
}

impl InvariantReport {
    /// True when it was checked and nothing speaks against it; `None` where nothing was there to check it by.
    #[must_use]
    pub fn holds(&self) -> Option<bool> {
        let is_checked = self.checked.iter().any(|&(_, count)| count > 0);
        (is_checked || self.broken > 0).then_some(self.broken == 0)
    }
}

/// Keeps findings and counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Notebook {
    findings: Vec<Finding>,
    broken: BTreeMap<Option<Invariant>, u64>,
    checked: BTreeMap<Invariant, Vec<(&'static str, u64)>>,
    remarks: Vec<String>,
}

impl Notebook {
    pub(super) fn find(&mut self, finding: Finding) {
        let count = self.broken.entry(finding.invariant).or_insert(0);
        *count += 1;
        if *count <= FINDINGS_PER_INVARIANT_MAX {
            self.findings.push(finding);
        }
    }

    /// `count` more were checked in this way.
    pub(super) fn checked(&mut self, invariant: Invariant, how: &'static str, count: u64) {
        let ways = self.checked.entry(invariant).or_default();
        match ways.iter_mut().find(|(way, _)| *way == how) {
            Some((_, sum)) => *sum += count,
            None => ways.push((how, count)),
        }
    }

    /// Two values that must be the same; `finding` says where they stand.
    pub(super) fn same<T: PartialEq + Display>(&mut self, journal: &T, told: &T, finding: impl FnOnce() -> Finding) {
        if journal != told {
            self.find(finding().values(journal, told));
        }
    }

    /// Something that is no fault and should be known.
    pub(super) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// Findings, reports by invariant, findings of no invariant, and remarks.
    pub(super) fn close(mut self) -> (Vec<Finding>, Vec<InvariantReport>, u64, Vec<String>) {
        for (invariant, count) in &self.broken {
            if *count > FINDINGS_PER_INVARIANT_MAX {
                let more = count - FINDINGS_PER_INVARIANT_MAX;
                self.findings.push(Finding {
                    invariant: *invariant,
                    what: format!("and {more} findings more of this kind"),
                    ..Finding::default()
                });
            }
        }
        let reports = Invariant::ALL.iter().map(|invariant| InvariantReport {
            invariant: *invariant,
            checked: self.checked.get(invariant).cloned().unwrap_or_default(),
            broken: self.broken.get(&Some(*invariant)).copied().unwrap_or(0),
        });
        let others = self.broken.get(&None).copied().unwrap_or(0);
        (self.findings, reports.collect(), others, self.remarks)
    }
}
