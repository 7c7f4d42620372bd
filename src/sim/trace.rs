//! A user's own traffic: payments from a CSV file, and the generated ones written as one.
//!
//! Columns: `at_ms,initiator,responder,kind,amount_minor,scene`. Participants are scheme codes or directory indexes.
//! A line that can't be used is named with its number, and then nothing runs.
//!
//! A `refund` gives back the initiator's earliest committed debit to that bank with enough left, and waits until there is
//! one. A `bind` or `unbind` is one line of amount 0: its Authenticate at that time, and its Sign when that is committed.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{self, Write};

use thiserror::Error;

use super::engine::ParticipantPlan;
use super::originals::Originals;
use super::sequels::{SIGNING_NS, sign_after};
use super::workload::{Answered, Intent, Workload};
use crate::domain::{BindStep, Code, Kind, Role, Scene};

const HEADER: &str = "at_ms,initiator,responder,kind,amount_minor,scene";
/// Lines named in one error.
const NAMED_MAX: usize = 20;
/// How long after its last line a trace waits for answers that a refund or a Sign still needs: past T2 of a pull.
const PATIENCE_NS: u64 = 65_000_000_000;

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
    /// Each payment with its line.
    lines: Vec<(u32, Intent)>,
    next: usize,
    originals: Originals,
    /// Signs, in the order of their time.
    signs: VecDeque<Intent>,
    /// Payments that were made and have no answer yet.
    open: usize,
    /// Of these, Authenticates.
    authenticating: usize,
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
        let (mut lines, mut count, mut named) = (Vec::new(), 0, String::new());
        for (line_number, line) in (1u32..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || (line_number == 1 && line.eq_ignore_ascii_case(HEADER)) {
                continue;
            }
            match parse_line(line, &find, speed) {
                Ok(intent) => lines.push((line_number, intent)),
                Err(why) => {
                    count += 1;
                    if count <= NAMED_MAX {
                        let _ = writeln!(named, "line {line_number}: {why}");
                    }
                }
            }
        }
        if count == 0 && lines.is_empty() {
            count = 1;
            named = format!("line 1: there is no payment in the file; each line is {HEADER}\n");
        }
        if count > 0 {
            return Err(TraceError { count, named });
        }
        lines.sort_by_key(|(_, intent)| intent.due_ns);
        Ok(Self {
            originals: Originals::of(lines.iter().map(|(_, intent)| intent)),
            lines,
            next: 0,
            signs: VecDeque::new(),
            open: 0,
            authenticating: 0,
        })
    }

    /// How long the trace runs, whole seconds, at least 1.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        u32::try_from(self.end_ns().div_ceil(1_000_000_000))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    fn end_ns(&self) -> u64 {
        self.lines.last().map_or(0, |(_, intent)| intent.due_ns)
    }

    /// What follows from an answer, or the next line; a refund without an original is held, and the line after it is next.
    fn take(&mut self, now_ns: u64) -> Option<Intent> {
        if let Some(refund) = self.originals.next_ready() {
            return Some(Intent {
                due_ns: now_ns,
                ..refund
            });
        }
        if self.signs.front().is_some_and(|sign| sign.due_ns <= now_ns) {
            return self.signs.pop_front();
        }
        while let Some(&(line, intent)) = self.lines.get(self.next).filter(|(_, intent)| intent.due_ns <= now_ns) {
            self.next += 1;
            if intent.kind != Kind::Refund {
                return Some(intent);
            }
            if let Some(refund) = self.originals.refund(line, &intent) {
                return Some(refund);
            }
        }
        None
    }
}

impl Workload for Trace {
    fn next(&mut self, now_ns: u64) -> Option<Intent> {
        let intent = self.take(now_ns)?;
        self.open += 1;
        self.authenticating += usize::from(intent.step == BindStep::Authenticate);
        Some(intent)
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.lines.get(self.next).map(|(_, intent)| intent.due_ns)
    }

    fn is_finished(&self, now_ns: u64) -> bool {
        let is_played = self.next == self.lines.len() && self.signs.is_empty() && self.originals.none_ready();
        // Answers may still bring Signs, and Debits to give back.
        let nothing_follows = (self.originals.held() == 0 && self.authenticating == 0) || self.open == 0;
        is_played && (nothing_follows || now_ns > self.end_ns() + PATIENCE_NS)
    }

    fn answered(&mut self, now_ns: u64, answered: &Answered) {
        self.open -= 1;
        self.authenticating -= usize::from(answered.step == BindStep::Authenticate);
        self.signs.extend(sign_after(answered, now_ns + SIGNING_NS));
        self.originals.answered(answered);
    }

    fn left_out(&self) -> Vec<String> {
        let lines = self.originals.left_out();
        lines
            .iter()
            .map(|(line, refund)| {
                format!(
                    "line {line}: a refund of {} was not played: the initiator has no committed debit to that bank with as \
                     much left",
                    refund.amount_minor
                )
            })
            .collect()
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
            "initiator {} is a bank; payments are initiated by institutions",
            initiator.code
        ));
    }
    if responder.role != Role::Bank && responder.index != initiator.index {
        return Err(format!(
            "responder {} is an institution; payments are answered by banks",
            responder.code
        ));
    }
    let kind = Kind::ALL
        .into_iter()
        .find(|known| known.name() == kind)
        .ok_or_else(|| {
            let names = Kind::ALL.map(Kind::name).join(", ");
            format!("kind {kind:?} is unknown; one of {names} is wanted")
        })?;
    let step = match kind {
        Kind::Debit | Kind::Payout | Kind::Refund => BindStep::None,
        Kind::Bind | Kind::Unbind => BindStep::Authenticate,
    };
    let is_on_us = initiator.index == responder.index;
    if is_on_us && kind == Kind::Refund {
        return Err("a refund within one participant; there is no debit it could give back".to_owned());
    }
    let amount_minor = match (step, amount_minor.parse::<u64>()) {
        (BindStep::None, Ok(amount)) if amount > 0 => amount,
        (BindStep::Authenticate | BindStep::Sign, Ok(0)) => 0,
        (BindStep::None, _) => {
            return Err(format!(
                "amount_minor is {amount_minor:?}; a whole number over 0 is wanted"
            ));
        }
        (BindStep::Authenticate | BindStep::Sign, _) => {
            return Err(format!(
                "amount_minor is {amount_minor:?}; a {} moves nothing, 0 is wanted",
                kind.name()
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
    let due_ns = (at_ms as f64 * 1e6 / speed) as u64;
    Ok(Intent {
        kind,
        step,
        // An on-us line is played as it stands; the switch refuses it, as it should.
        provoked: is_on_us.then_some(Code::OnUs),
        ..Intent::debit(due_ns, initiator.index, responder.index, amount_minor, scene)
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

    /// Writes what was kept, so that it plays again; participants by their scheme codes. Left out are Signs, which follow
    /// by themselves, and refunds that were made to be refused, which no trace can say.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, plans: &[ParticipantPlan], out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{HEADER}")?;
        for intent in self.intents.iter().filter(|intent| plays_again(intent)) {
            writeln!(
                out,
                "{},{},{},{},{},{}",
                intent.due_ns / 1_000_000,
                plans[intent.initiator.index()].code,
                plans[intent.responder.index()].code,
                intent.kind.name(),
                intent.amount_minor,
                intent.scene.name()
            )?;
        }
        Ok(())
    }
}

/// True for a payment that has a line of its own.
fn plays_again(intent: &Intent) -> bool {
    let is_refused_refund = intent.kind == Kind::Refund && intent.provoked.is_some();
    intent.step != BindStep::Sign && !is_refused_refund
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

    fn answered(&mut self, now_ns: u64, answered: &Answered) {
        self.workload.answered(now_ns, answered);
    }

    fn left_out(&self) -> Vec<String> {
        self.workload.left_out()
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::{Related, answered_for_tests};
    use super::*;
    use crate::domain::{ParticipantIndex, SchemeCode};

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
        let read: Vec<Intent> = Trace::parse(&written, &plans(), 1.0)
            .unwrap()
            .lines
            .iter()
            .map(|(_, intent)| *intent)
            .collect();
        assert_eq!(read, recorded.intents);
    }

    const EVERY_KIND: &str = "at_ms,initiator,responder,kind,amount_minor,scene\n\
                              1,0,1,debit,880,shopping\n\
                              1,0,1,payout,70,transfer\n\
                              2,0,1,refund,880,shopping\n\
                              2,0,1,refund,1,shopping\n\
                              3,0,1,bind,0,other\n\
                              4,0,1,unbind,0,other\n";

    /// Plays a trace, each payment answered by `code` as soon as it is made.
    fn played(trace: &mut Recorded<Trace>, code: impl Fn(&Intent) -> Code) -> Vec<(Kind, BindStep, Related)> {
        let (mut made, mut now_ns) = (Vec::new(), 0);
        while !trace.is_finished(now_ns) {
            now_ns += 1_000_000;
            assert!(now_ns < PATIENCE_NS, "it never ends");
            while let Some(intent) = trace.next(now_ns) {
                let number = made.len() as u32;
                made.push((intent.kind, intent.step, intent.related));
                trace.answered(now_ns, &answered_for_tests(number, &intent, code(&intent)));
            }
        }
        made
    }

    #[test]
    fn every_kind_plays_as_it_says_and_a_refund_that_finds_nothing_is_named() {
        let mut trace = Recorded::new(Trace::parse(EVERY_KIND, &plans(), 1.0).unwrap(), true);
        let made = played(&mut trace, |_| Code::Committed);
        assert_eq!(
            made,
            [
                (Kind::Debit, BindStep::None, Related::Nothing),
                (Kind::Payout, BindStep::None, Related::Nothing),
                (Kind::Refund, BindStep::None, Related::Payment(0)),
                (Kind::Bind, BindStep::Authenticate, Related::Nothing),
                (Kind::Unbind, BindStep::Authenticate, Related::Nothing),
                (Kind::Bind, BindStep::Sign, Related::Payment(3)),
                (Kind::Unbind, BindStep::Sign, Related::Payment(4)),
            ]
        );
        let left_out = trace.left_out();
        assert!(
            left_out.len() == 1 && left_out[0].starts_with("line 5:"),
            "{left_out:?}"
        );
        let mut written = Vec::new();
        trace.write(&plans(), &mut written).unwrap();
        let mut again = Recorded::new(
            Trace::parse(std::str::from_utf8(&written).unwrap(), &plans(), 1.0).unwrap(),
            false,
        );
        assert_eq!(played(&mut again, |_| Code::Committed), made);
        assert_eq!(again.left_out(), Vec::<String>::new());
    }

    #[test]
    fn what_is_declined_is_not_signed_nor_given_back_and_the_trace_still_ends() {
        let mut trace = Recorded::new(Trace::parse(EVERY_KIND, &plans(), 1.0).unwrap(), false);
        assert_eq!(played(&mut trace, |_| Code::BankDeclined).len(), 4);
        assert_eq!(trace.left_out().len(), 2);
    }

    #[test]
    fn a_trace_whose_answers_never_come_gives_its_refunds_up_in_the_end() {
        let mut trace = Trace::parse(EVERY_KIND, &plans(), 1.0).unwrap();
        while trace.next(10_000_000).is_some() {}
        assert!(!trace.is_finished(PATIENCE_NS));
        assert!(trace.is_finished(PATIENCE_NS + 4_000_001));
        assert_eq!(trace.left_out().len(), 2);
    }

    #[test]
    fn every_bad_line_is_named_with_its_number_and_what_would_be_right() {
        let text = "at_ms,initiator,responder,kind,amount_minor,scene\n\
                    1,0,1,debit,880,shopping\n\
                    x,0,1,debit,880,shopping\n\
                    1,7,1,debit,880,shopping\n\
                    1,1,1,debit,880,shopping\n\
                    1,0,1,gift,880,shopping\n\
                    1,0,1,debit,0,shopping\n\
                    1,0,1,debit,880,party\n\
                    1,0,1,debit,880\n\
                    1,0,1,bind,5,other\n\
                    1,0,0,refund,5,other\n";
        let error = Trace::parse(text, &plans(), 1.0).unwrap_err();
        assert_eq!(error.count, 9);
        for (line, word) in [
            (3, "milliseconds"),
            (4, "directory"),
            (5, "institution"),
            (6, "payout"),
            (7, "over 0"),
            (8, "red_packet"),
            (9, "six"),
            (10, "0 is wanted"),
            (11, "within one"),
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
