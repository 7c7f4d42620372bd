//! A window's files, in one pass over its payments.
//!
//! Memory does not grow with the payments: buffers of the detail files (96 MiB at most), the tree's hashes (2 KiB), one sum
//! for each two participants that paid each other (48 bytes), and the small files one at a time.

use std::time::{Duration, Instant};

use super::detail::{self, DetailFiles};
use super::error::SettlementError;
use super::facts::{FinalPayment, WindowFacts};
use super::files::{Draft, Existing, Publication, SettlementDirectory};
use super::flows::Flows;
use super::merkle::{MerkleTree, hash_of, root_hash};
use super::row::{RowWriter, Side, sides};
use super::statement::{PartyStatement, Tallies, Tally, WindowStatement};
use super::{camt054, pacs009, pacs029, page, summary};
use crate::domain::{PaymentState, Position, SECOND, WindowId};

/// Minutes that are counted one by one: a day of them.
const MINUTES_MAX: usize = 1_440;
/// One payment in so many is timed step by step.
const TIMED_ONE_IN: u64 = 64;

/// Time spent on a window's rows, from the payments that were timed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RowTimes {
    /// Getting payments.
    pub reading: Duration,
    /// Writing rows as text.
    pub formatting: Duration,
    /// Leaves and nodes of the tree.
    pub tree: Duration,
    /// Counting, adding up, filling the participants' buffers, and what of it went on to the files.
    pub filing: Duration,
}

/// Writes a window's files and gives their directory its name: all of what settles a window but the events.
///
/// # Errors
/// As [`write_window`] and [`Draft::publish`]; nothing of the name is there then that was not there before.
pub fn publish_window(
    facts: &WindowFacts,
    payments: impl Iterator<Item = Result<FinalPayment, SettlementError>>,
    directory: &SettlementDirectory,
    existing: Existing,
) -> Result<(WindowStatement, Publication), SettlementError> {
    let mut draft = directory.begin(directory.window(facts.window))?;
    let (statement, _) = write_window(facts, payments, &mut draft)?;
    Ok((statement, draft.publish(existing)?))
}

/// Writes a window's files into `draft`. `payments` are all that became final while it was open, in the order of their events.
///
/// # Errors
/// [`SettlementError::Differs`] where the payments do not come to what `facts` says; the system refuses something; what
/// `payments` gives.
pub fn write_window(
    facts: &WindowFacts,
    payments: impl Iterator<Item = Result<FinalPayment, SettlementError>>,
    draft: &mut Draft,
) -> Result<(WindowStatement, RowTimes), SettlementError> {
    let mut pass = Pass::new(facts);
    let mut times = RowTimes::default();
    let mut payments = payments;
    let mut number = 0_u64;
    loop {
        let started = number.is_multiple_of(TIMED_ONE_IN).then(Instant::now);
        let Some(payment) = payments.next() else { break };
        let payment = payment?;
        match started {
            None => pass.add(&payment, draft, &mut ())?,
            Some(started) => {
                times.reading += started.elapsed() * TIMED_ONE_IN as u32;
                pass.add(&payment, draft, &mut Timer(Instant::now(), &mut times))?;
            }
        }
        number += 1;
    }
    let statement = pass.finish(draft)?;
    write_statement(facts, &statement, draft)?;
    Ok((statement, times))
}

/// What is made of the statement alone.
fn write_statement(facts: &WindowFacts, statement: &WindowStatement, draft: &mut Draft) -> Result<(), SettlementError> {
    for party in &statement.parties {
        if let Some(csv) = &party.detail_sha256 {
            let json = detail::to_json(facts, &statement.root, party, csv);
            draft.write(&format!("detail/{}.json", party.code), &json)?;
            draft.write(
                &format!("camt.054/{}.xml", party.code),
                &camt054::to_xml(statement, party),
            )?;
        }
    }
    draft.write("summary.json", &summary::to_json(statement))?;
    draft.write("index.html", &page::to_html(statement))?;
    draft.write("pacs.029.xml", &pacs029::to_xml(statement))?;
    // Where no participant owes another there is nothing to transfer.
    if let Some(transfers) = pacs009::to_xml(statement) {
        draft.write("pacs.009.xml", &transfers)?;
    }
    Ok(())
}

/// Told of the steps of one payment.
trait Steps {
    fn formatted(&mut self) {}
    fn hashed(&mut self) {}
    fn filed(&mut self) {}
}

impl Steps for () {}

struct Timer<'a>(Instant, &'a mut RowTimes);

impl Timer<'_> {
    fn lap(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.0, Instant::now());
        (self.0 - before) * TIMED_ONE_IN as u32
    }
}

impl Steps for Timer<'_> {
    fn formatted(&mut self) {
        let lap = self.lap();
        self.1.formatting += lap;
    }

    fn hashed(&mut self) {
        let lap = self.lap();
        self.1.tree += lap;
    }

    fn filed(&mut self) {
        let lap = self.lap();
        self.1.filing += lap;
    }
}

struct Pass<'a> {
    facts: &'a WindowFacts,
    rows: RowWriter,
    tree: MerkleTree,
    details: DetailFiles,
    flows: Flows,
    tallies: Counting,
    gross: Position,
    finals: u64,
    last_event: u64,
    last_committed: u64,
}

impl<'a> Pass<'a> {
    fn new(facts: &'a WindowFacts) -> Self {
        Self {
            facts,
            rows: RowWriter::new(facts),
            tree: MerkleTree::default(),
            details: DetailFiles::new(facts),
            flows: Flows::default(),
            tallies: Counting::new(facts),
            gross: 0,
            finals: 0,
            last_event: 0,
            last_committed: 0,
        }
    }

    #[inline]
    fn add(
        &mut self,
        payment: &FinalPayment,
        draft: &mut Draft,
        steps: &mut impl Steps,
    ) -> Result<(), SettlementError> {
        let entry = &payment.entry;
        self.finals += 1;
        self.tallies.count(payment);
        if payment.event < self.last_event {
            return Err(self.unfit(payment, "comes after a later one"));
        }
        self.last_event = payment.event;
        if entry.state != PaymentState::Committed as u8 {
            return if entry.final_state().is_some() && entry.window == WindowId::NONE {
                Ok(())
            } else {
                Err(self.unfit(payment, "is not final, or has a window and is not committed"))
            };
        }
        if entry.window != self.facts.window || entry.currency != self.facts.currency.0 {
            return Err(self.unfit(payment, "is committed in another window or currency"));
        }
        if payment.event == self.last_committed {
            return Err(self.unfit(payment, "is there twice"));
        }
        self.last_committed = payment.event;
        let leaf = self.tree.leaves();
        let set = self.rows.set(entry, leaf);
        set.map_err(|reason| self.unfit(payment, reason))?;
        steps.formatted();
        self.tree.push(hash_of(self.rows.leaf()));
        steps.hashed();
        let amount = Position::from(entry.amount_minor);
        let sides = sides(entry);
        for (party, side) in sides {
            self.details.add(party.index(), side, amount, self.rows.line(), draft)?;
        }
        match sides {
            [(debtor, Side::Debit), (creditor, Side::Credit)] | [(creditor, Side::Credit), (debtor, Side::Debit)] => {
                self.gross += amount;
                self.flows.add(debtor, creditor, amount);
            }
            _ => {}
        }
        steps.filed();
        Ok(())
    }

    fn finish(self, draft: &mut Draft) -> Result<WindowStatement, SettlementError> {
        let facts = self.facts;
        let same = |what: &str, payments: Position, engine: Position| {
            if payments == engine {
                return Ok(());
            }
            Err(SettlementError::Differs {
                window: facts.window,
                what: format!("{what} is {payments} over the payments and {engine} in the engine"),
            })
        };
        let leaves = self.tree.leaves();
        same("the number of final payments", self.finals.into(), facts.finals.into())?;
        same(
            "the number of committed payments",
            leaves.into(),
            facts.committed.into(),
        )?;
        same(
            "the sum of the committed amounts, minor units,",
            self.gross,
            facts.gross_minor,
        )?;
        let parties: Vec<PartyStatement> = self.details.finish(draft)?;
        for (party, engine) in parties.iter().zip(&facts.parties) {
            let what = format!("the net of participant {}, minor units,", party.code);
            same(&what, party.net_minor(), engine.net_minor)?;
        }
        Ok(WindowStatement {
            window: facts.window,
            currency: facts.currency,
            scheme: facts.scheme,
            journal_id: facts.journal_id,
            opened: facts.opened,
            closed: facts.closed,
            close_event: facts.close_event,
            committed: facts.committed,
            gross_minor: facts.gross_minor,
            root: root_hash(facts.window, facts.currency, leaves, &self.tree.tree_hash()),
            parties,
            tallies: self.tallies.finish(),
            flows: self.flows.largest(WindowStatement::FLOWS_MAX),
        })
    }

    #[cold]
    fn unfit(&self, payment: &FinalPayment, reason: &str) -> SettlementError {
        SettlementError::Differs {
            window: self.facts.window,
            what: format!("payment {} (event {}) {reason}", payment.entry.id, payment.event),
        }
    }
}

/// Tallies while they are counted: arrays, where the statement has maps.
struct Counting {
    opened_ns: u64,
    by_kind: Box<[Tally; 256]>,
    by_scene: Box<[Tally; 256]>,
    by_code: Box<[u64; 256]>,
    by_minute: Vec<[u64; 2]>,
}

impl Counting {
    fn new(facts: &WindowFacts) -> Self {
        let nanos = facts.closed.since(facts.opened);
        let minutes = nanos.div_ceil(60 * SECOND).clamp(1, MINUTES_MAX as u64);
        Self {
            opened_ns: facts.opened.0,
            by_kind: Box::new([Tally::default(); 256]),
            by_scene: Box::new([Tally::default(); 256]),
            by_code: Box::new([0; 256]),
            by_minute: vec![[0; 2]; minutes as usize],
        }
    }

    #[inline]
    fn count(&mut self, payment: &FinalPayment) {
        let entry = &payment.entry;
        let state = entry.final_state();
        for tally in [
            &mut self.by_kind[usize::from(entry.kind)],
            &mut self.by_scene[usize::from(entry.scene)],
        ] {
            match state {
                Some(PaymentState::Committed) => {
                    tally.committed += 1;
                    tally.committed_minor += Position::from(entry.amount_minor);
                }
                Some(PaymentState::Declined) => tally.declined += 1,
                Some(PaymentState::Expired) => tally.expired += 1,
                Some(PaymentState::Rejected) => tally.rejected += 1,
                Some(PaymentState::Reserved | PaymentState::InDoubt) | None => {}
            }
        }
        self.by_code[usize::from(entry.code)] += 1;
        let minute = entry.final_ns.saturating_sub(self.opened_ns) / (60 * SECOND);
        let last = self.by_minute.len() - 1;
        let of_minute = &mut self.by_minute[(minute as usize).min(last)];
        of_minute[usize::from(state != Some(PaymentState::Committed))] += 1;
    }

    fn finish(self) -> Tallies {
        let mut all = Tally::default();
        for tally in self.by_kind.iter() {
            all.committed += tally.committed;
            all.declined += tally.declined;
            all.expired += tally.expired;
            all.rejected += tally.rejected;
            all.committed_minor += tally.committed_minor;
        }
        let counted = |tallies: &[Tally; 256]| {
            let numbered = (0..=u8::MAX).zip(*tallies);
            numbered.filter(|(_, tally)| tally.all() > 0).collect()
        };
        Tallies {
            all,
            by_kind: counted(&self.by_kind),
            by_scene: counted(&self.by_scene),
            by_code: (0..=u8::MAX)
                .zip(*self.by_code)
                .filter(|&(_, count)| count > 0)
                .collect(),
            by_minute: self.by_minute,
        }
    }
}
