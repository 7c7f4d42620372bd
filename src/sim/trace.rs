//! A user's own traffic: payments from a CSV file, and the generated ones written as one.
//!
//! Columns: `at_ms,initiator,responder,kind,amount_minor,scene`. Participants are scheme codes or directory indexes.
//! A line that can't be used is named with its number, and then nothing runs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use thiserror::Error;

use super::engine::ParticipantPlan;
use super::workload::{Intent, Workload};
use crate::domain::{Code, Kind, ParticipantIndex, Role, Scene};

const HEADER: &str = "at_ms,initiator,responder,kind,amount_minor,scene";
/// Lines named in one error.
const NAMED_MAX: usize = 20;

/// Lines of a trace that can't be used.
#[derive(Debug, Error)]
#[error("{count} of the trace's lines can't be used:\n{named}")]
pub struct TraceError {
    /// How many.
    pub count: usize,
    /// The first of them, each with its number and what would be right.
    pub named: String,
}

/// A trace, in the order of time.
#[derive(Debug)]
pub struct Trace {
    intents: Vec<Intent>,
    next: usize,
}

impl Trace {
    /// Reads a trace; `speed` 2.0 makes it run twice as fast.
    ///
    /// # Errors
    /// [`TraceError`] names every line that can't be used (the first twenty of them).
    pub fn parse(text: &str, plans: &[ParticipantPlan], speed: f64) -> Result<Self, TraceError> {
        let codes: HashMap<String, &ParticipantPlan> = plans.iter().map(|plan| (plan.code.text(), plan)).collect();
        let find = |name: &str| -> Option<&ParticipantPlan> {
            codes
                .get(name)
                .copied()
                .or_else(|| plans.get(name.parse::<usize>().ok()?))
        };
        let (mut intents, mut count, mut named) = (Vec::new(), 0, String::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || (index == 0 && line.eq_ignore_ascii_case(HEADER)) {
                continue;
            }
            match parse_line(line, &find, speed) {
                Ok(intent) => intents.push(intent),
                Err(why) => {
                    count += 1;
                    if count <= NAMED_MAX {
                        let _ = writeln!(named, "line {}: {why}", index + 1);
                    }
                }
            }
        }
        if count == 0 && intents.is_empty() {
            count = 1;
            named = format!("line 1: there is no payment in the file; each line is {HEADER}\n");
        }
        if count > 0 {
            return Err(TraceError { count, named });
        }
        intents.sort_by_key(|intent| intent.due_ns);
        Ok(Self { intents, next: 0 })
    }

    /// How long the trace runs, whole seconds, at least 1.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        let end_ns = self.intents.last().map_or(0, |intent| intent.due_ns);
        u32::try_from(end_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
    }
}

impl Workload for Trace {
    fn next(&mut self, now_ns: u64) -> Option<Intent> {
        let intent = *self.intents.get(self.next).filter(|intent| intent.due_ns <= now_ns)?;
        self.next += 1;
        Some(intent)
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.intents.get(self.next).map(|intent| intent.due_ns)
    }

    fn is_finished(&self, _now_ns: u64) -> bool {
        self.next == self.intents.len()
    }
}

fn parse_line<'a>(
    line: &str,
    find: &impl Fn(&str) -> Option<&'a ParticipantPlan>,
    speed: f64,
) -> Result<Intent, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [at_ms, initiator, responder, kind, amount_minor, scene] = fields[..] else {
        return Err(format!("{} columns; six are wanted: {HEADER}", fields.len()));
    };
    let at_ms: u64 = at_ms
        .parse()
        .map_err(|_| format!("at_ms is {at_ms:?}; a whole number of milliseconds from the start is wanted"))?;
    let party = |name: &str, column: &str| {
        find(name)
            .ok_or_else(|| format!("{column} {name:?} is not in the directory; its scheme code or index is wanted"))
    };
    let (initiator, responder) = (party(initiator, "initiator")?, party(responder, "responder")?);
    if initiator.role != Role::Institution {
        return Err(format!(
            "initiator {} is a bank; a debit is initiated by an institution",
            initiator.code
        ));
    }
    if responder.role != Role::Bank && responder.index != initiator.index {
        return Err(format!(
            "responder {} is an institution; a debit is answered by a bank",
            responder.code
        ));
    }
    match Kind::ALL.into_iter().find(|known| known.name() == kind) {
        Some(Kind::Debit) => {}
        Some(other) => {
            return Err(format!("kind {} is not supported yet; only debit is", other.name()));
        }
        None => return Err(format!("kind {kind:?} is unknown; debit is wanted")),
    }
    let amount_minor = match amount_minor.parse::<u64>() {
        Ok(amount) if amount > 0 => amount,
        _ => {
            return Err(format!(
                "amount_minor is {amount_minor:?}; a whole number over 0 is wanted"
            ));
        }
    };
    let scene = Scene::ALL
        .into_iter()
        .find(|known| known.name() == scene)
        .ok_or_else(|| {
            let names: Vec<&str> = Scene::ALL.iter().map(|known| known.name()).collect();
            format!("scene {scene:?} is unknown; one of {} is wanted", names.join(", "))
        })?;
    Ok(Intent {
        due_ns: (at_ms as f64 * 1e6 / speed) as u64,
        initiator: initiator.index,
        responder: responder.index,
        amount_minor,
        scene,
        // An on-us line is played as it stands; the switch refuses it, as it should.
        provoked: (initiator.index == responder.index).then_some(Code::OnUs),
        repeat_after_ns: None,
    })
}

/// A workload whose payments can be kept, to be written as a trace.
#[derive(Debug)]
pub struct Recorded<W> {
    workload: W,
    keep: bool,
    intents: Vec<Intent>,
}

impl<W: Workload> Recorded<W> {
    /// Passes on what `workload` gives, and keeps it if wanted.
    #[must_use]
    pub const fn new(workload: W, keep: bool) -> Self {
        Self {
            workload,
            keep,
            intents: Vec::new(),
        }
    }

    /// Writes what was kept; participants by their scheme codes.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, plans: &[ParticipantPlan], out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{HEADER}")?;
        for intent in &self.intents {
            writeln!(
                out,
                "{},{},{},{},{},{}",
                intent.due_ns / 1_000_000,
                plans[intent.initiator.index()].code,
                plans[intent.responder.index()].code,
                Kind::Debit.name(),
                intent.amount_minor,
                intent.scene.name()
            )?;
        }
        Ok(())
    }
}

impl<W: Workload> Workload for Recorded<W> {
    fn next(&mut self, now_ns: u64) -> Option<Intent> {
        let intent = self.workload.next(now_ns)?;
        if self.keep {
            self.intents.push(intent);
        }
        Some(intent)
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.workload.next_due_ns()
    }

    fn is_finished(&self, now_ns: u64) -> bool {
        self.workload.is_finished(now_ns)
    }

    fn answered(&mut self, initiator: ParticipantIndex) {
        self.workload.answered(initiator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SchemeCode;

    fn plans() -> Vec<ParticipantPlan> {
        let plan = |index, code: &str, role| ParticipantPlan {
            index: ParticipantIndex(index),
            code: SchemeCode::parse(code).unwrap(),
            role,
            credential: [0; 32],
            links: 1,
        };
        vec![
            plan(0, "Z2000000000000", Role::Institution),
            plan(1, "C1000000000001", Role::Bank),
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = "at_ms,initiator,responder,kind,amount_minor,scene\n\
                    1500,Z2000000000000,C1000000000001,debit,880,shopping\n\
                    20,0,1,debit,1,red_packet\n";
        let mut recorded = Recorded::new(Trace::parse(text, &plans(), 2.0).unwrap(), true);
        assert!(recorded.next(9_000_000).is_none());
        assert_eq!(recorded.next(u64::MAX).unwrap().due_ns, 10_000_000);
        assert_eq!(recorded.next(u64::MAX).unwrap().due_ns, 750_000_000);
        assert!(recorded.is_finished(0));
        let mut written = Vec::new();
        recorded.write(&plans(), &mut written).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert!(
            written.ends_with("750,Z2000000000000,C1000000000001,debit,880,shopping\n"),
            "{written}"
        );
        assert_eq!(Trace::parse(&written, &plans(), 1.0).unwrap().intents, recorded.intents);
    }

    #[test]
    fn every_bad_line_is_named_with_its_number_and_what_would_be_right() {
        let text = "at_ms,initiator,responder,kind,amount_minor,scene\n\
                    1,0,1,debit,880,shopping\n\
                    x,0,1,debit,880,shopping\n\
                    1,7,1,debit,880,shopping\n\
                    1,1,1,debit,880,shopping\n\
                    1,0,1,payout,880,shopping\n\
                    1,0,1,debit,0,shopping\n\
                    1,0,1,debit,880,party\n\
                    1,0,1,debit,880\n";
        let error = Trace::parse(text, &plans(), 1.0).unwrap_err();
        assert_eq!(error.count, 7);
        for (line, word) in [
            (3, "milliseconds"),
            (4, "directory"),
            (5, "institution"),
            (6, "only debit"),
            (7, "over 0"),
            (8, "red_packet"),
            (9, "six"),
        ] {
            let named = error
                .named
                .lines()
                .find(|named| named.starts_with(&format!("line {line}:")));
            assert!(
                named.is_some_and(|named| named.contains(word)),
                "line {line}: {named:?}"
            );
        }
    }

    #[test]
    fn an_empty_trace_is_refused() {
        assert!(Trace::parse("\n", &plans(), 1.0).is_err());
    }
}
