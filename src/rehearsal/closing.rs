//! When all is at rest: every book is held against every other.

use std::collections::{BTreeMap, BTreeSet};

use super::bank::Bank;
use super::institution::Institution;
use super::party::Trade;
use super::world::World;
use crate::audit::{Statement, WindowTotals};
use crate::clearing::LedgerSnapshot;
use crate::domain::{
    Code, Currency, Direction, Kind, ParticipantIndex, PaymentId, PaymentState, Position, SECOND, WindowId,
};
use crate::journal::JournalFiles;
use crate::wire::{Answer, RecordKind, Regarding, ReplyEvent, ReplyOutcome, RequestEvent};

/// The longest it may take to tell every word again; most come out of the register.
const WORDS_NS_MAX: u64 = 30 * SECOND;
/// The longest it may take to come to rest, simulated.
const REST_NS_MAX: u64 = 400 * SECOND;
/// More often than that no file can be found bad: each time all are made anew.
const ROLL_CALLS_MAX: u32 = 6;

impl World {
    fn institutions(&self) -> impl Iterator<Item = (usize, &Institution)> {
        self.parties
            .iter()
            .enumerate()
            .filter_map(|(at, party)| match &party.trade {
                Trade::Institution(institution) => Some((at, institution)),
                Trade::Bank(_) => None,
            })
    }

    fn banks(&self) -> impl Iterator<Item = (usize, &Bank)> {
        self.parties
            .iter()
            .enumerate()
            .filter_map(|(at, party)| match &party.trade {
                Trade::Bank(bank) => Some((at, bank)),
                Trade::Institution(_) => None,
            })
    }

    /// What keeps the run from being at rest, in words; empty = nothing.
    pub(super) fn what_is_open(&self) -> String {
        let mut open = Vec::new();
        if self.switch.is_none() {
            open.push("the switch is down".to_owned());
        }
        for (at, institution) in self.institutions() {
            let unsettled: Vec<_> = institution
                .orders
                .iter()
                .filter(|(_, order)| !order.is_settled())
                .collect();
            if let Some((id, order)) = unsettled.first() {
                open.push(format!(
                    "institution {at} has no final answer for {} payments, {id} among them, asked {} times",
                    unsettled.len(),
                    order.sent
                ));
            }
        }
        for (at, bank) in self.banks().filter(|(_, bank)| !bank.is_at_rest()) {
            open.push(format!("bank {at} has still to reply ({} decided)", bank.known.len()));
        }
        for party in &self.parties {
            if party.lines_up().is_empty() {
                open.push(format!("participant {} has no link", party.index));
            }
            if !party.words.is_whole() {
                open.push(format!(
                    "participant {} misses words behind {}",
                    party.index,
                    party.words.contiguous()
                ));
            }
        }
        for (id, bank) in self.reversals_owed() {
            open.push(format!("bank {bank} has not heard of the Reversal of {id}"));
        }
        open.join("; ")
    }

    pub(super) fn is_at_rest(&self) -> bool {
        // Words and replies that are under way show within a moment; the last look is taken at the roll call.
        self.what_is_open().is_empty()
    }

    /// Expired pulls that were sent, and whose bank has not been told to undo them.
    fn reversals_owed(&self) -> Vec<(PaymentId, usize)> {
        let mut owed = Vec::new();
        for (id, answer) in self.witness.finals() {
            let is_pull = Kind::from_u8(answer.kind).map(Kind::direction) == Some(Direction::Pull);
            let expired = answer.state == PaymentState::Expired as u8 && answer.code == Code::BankTimeout as u8;
            if !is_pull || !expired {
                continue;
            }
            let at = answer.responder.index();
            if let Some(Trade::Bank(bank)) = self.parties.get(at).map(|party| &party.trade)
                && !bank.known.get(id).is_some_and(|known| known.reversed)
            {
                owed.push((*id, at));
            }
        }
        owed
    }

    /// Every institution asks about every payment it ever made, and everybody for all words from the first on: what was
    /// told once must be told the same.
    pub(super) fn roll_call(&mut self) -> Result<(), String> {
        for _ in 0..ROLL_CALLS_MAX {
            let starts = self.witness.starts;
            let outcome = self.call_the_roll();
            self.wait_for_rest()?;
            // A file that had gone bad may have shown only now, and the operator have the register made anew.
            let is_well = self.switch.as_ref().is_some_and(|switch| switch.trouble().is_none());
            if starts == self.witness.starts && is_well {
                self.operator.has_gone = true;
                return outcome;
            }
        }
        Err("the register is bad at every roll call".to_owned())
    }

    fn call_the_roll(&mut self) -> Result<(), String> {
        self.note(|| "roll call".to_owned());
        let longest = self
            .institutions()
            .map(|(_, institution)| institution.orders.len())
            .max();
        let mut asked = 0;
        while asked < longest.unwrap_or(0) {
            for at in 0..self.parties.len() {
                self.with_party(at, |party, turn| {
                    let up = party.lines_up();
                    if let (Trade::Institution(institution), Some(&line)) = (&mut party.trade, up.first()) {
                        let id = institution.orders.keys().nth(asked).copied();
                        if let Some(id) = id {
                            institution.ask_about(id, line, turn);
                        }
                    }
                });
            }
            asked += 1;
            // Within every budget.
            self.wait(600_000_000)?;
        }
        self.witness.all_words_are_asked_for();
        for at in 0..self.parties.len() {
            self.with_party(at, |party, turn| party.ask_for_all_words(turn));
        }
        let end = self.now + WORDS_NS_MAX;
        while self.now < end && self.witness.check_all_words_came().is_err() {
            self.wait(SECOND)?;
        }
        self.witness.check_all_words_came()
    }

    /// Goes on until nothing is open, and no stop that was begun still drains.
    pub(super) fn wait_for_rest(&mut self) -> Result<(), String> {
        let end = self.now + REST_NS_MAX;
        while !self.is_at_rest() || self.stops_due > 0 || self.switch.is_none() || self.operator_waits() {
            if self.now >= end {
                return Err(format!("no rest: {}", self.what_is_open()));
            }
            self.moment(end)?;
        }
        Ok(())
    }

    /// The follower is in a trouble that the operator has not seen to yet.
    fn operator_waits(&self) -> bool {
        let trouble = self.switch.as_ref().and_then(|switch| switch.trouble());
        trouble.is_some() && !self.operator.has_gone
    }

    pub(super) fn wait(&mut self, nanos: u64) -> Result<(), String> {
        let end = self.now + nanos;
        while self.now < end {
            self.moment(end)?;
        }
        Ok(())
    }

    /// After every start: what participants were sent rests on what the journal holds.
    pub(super) fn check_recovered(&mut self) -> Result<(), String> {
        let requests = self.journaled_requests()?;
        for (id, bank) in &self.witness.requests {
            if !requests.contains_key(id) {
                return Err(format!(
                    "bank {bank} was sent the request {id}, and the journal does not hold it"
                ));
            }
        }
        for (id, answer) in self.witness.finals() {
            if !requests.contains_key(id) {
                return Err(format!(
                    "{id} was answered {}, and the journal does not hold it",
                    answer.code
                ));
            }
        }
        Ok(())
    }

    /// The ids of all requests in the journal, and how often each stands there.
    fn journaled_requests(&self) -> Result<BTreeMap<PaymentId, u64>, String> {
        let unreadable = |error| format!("the journal can't be read: {error}");
        let files = JournalFiles::open(&self.data.path().join("journal")).map_err(unreadable)?;
        let mut requests = BTreeMap::new();
        for record in files.records() {
            let record = record.map_err(unreadable)?;
            if record.kind == RecordKind::Request {
                let event: RequestEvent = bytemuck::pod_read_unaligned(record.payload);
                *requests.entry(event.body.id).or_insert(0) += 1;
            }
        }
        Ok(requests)
    }

    /// Ends the switch in order, and compares.
    pub(super) fn close(&mut self) -> Result<(), String> {
        let Some(switch) = &mut self.switch else {
            return Err("the switch is down at the end".to_owned());
        };
        let ledger = switch.close();
        self.count_followed();
        self.switch = None;
        let Some(ledger) = ledger else {
            return Err("clearing left no ledger".to_owned());
        };
        let journal = self.data.path().join("journal");
        let replayed = crate::switch::replay(&journal, None, |_| {}).map_err(|error| format!("replay: {error}"))?;
        if (replayed.event_number, replayed.hash) != (ledger.snapshot.event_number, ledger.hash) {
            return Err(format!(
                "invariant 8: the ledger ends at event {} with state {}, replay at event {} with {}",
                ledger.snapshot.event_number, ledger.hash, replayed.event_number, replayed.hash
            ));
        }
        let audited = crate::audit::recompute(&journal, |_| {}).map_err(|error| format!("audit: {error}"))?;
        if !audited.is_clean() {
            return Err(format!("the auditor finds: {}", audited.findings.join("; ")));
        }
        let differences = audited.differences(&Statement {
            events: ledger.snapshot.event_number,
            // The engine's own counts are not asked for: the auditor's are held against the answers below.
            payments: audited.payments,
            positions: ledger.snapshot.participants.iter().map(|p| p.position).collect(),
            reserved: ledger.snapshot.participants.iter().map(|p| p.reserved).collect(),
            windows: window_totals(&ledger.snapshot),
            reversals_open: Some(ledger.snapshot.reversals_open.iter().sum()),
        });
        if !differences.is_empty() {
            return Err(format!("auditor and engine differ: {}", differences.join("; ")));
        }
        if audited.payments.reserved + audited.payments.in_doubt > 0 {
            return Err(format!("payments are still open: {:?}", audited.payments));
        }
        // One that waited for an acknowledgement while time jumped by a day became an operator's.
        let [due, manual] = ledger.snapshot.reversals_open;
        if due > 0 || (manual > 0 && !self.a_day_passed) {
            return Err(format!(
                "Reversals are still open: {:?}",
                ledger.snapshot.reversals_open
            ));
        }
        if ledger.figures.parked > 0 {
            return Err(format!("{} events still wait for the register", ledger.figures.parked));
        }
        self.check_orders(&ledger.snapshot, &audited)?;
        self.check_answers(&audited.by_code, ledger.figures.replies_dropped)?;
        self.check_books(&with_all_nets(ledger.snapshot, &audited.windows))?;
        self.counts.parked = ledger.figures.look_ups;
        self.counts.days_sealed = self.days_sealed()?;
        self.count(&audited.payments);
        self.counts.events = audited.events;
        self.digest.update(&ledger.hash.0);
        Ok(())
    }

    fn days_sealed(&self) -> Result<u64, String> {
        let unreadable = |error| format!("the journal can't be read: {error}");
        let files = JournalFiles::open(&self.data.path().join("journal")).map_err(unreadable)?;
        let mut sealed = 0;
        for record in files.records() {
            sealed += u64::from(record.map_err(unreadable)?.kind == RecordKind::DaySealed);
        }
        Ok(sealed)
    }

    /// Every payment in the journal has its one answer, and what the answer says of the sending is so.
    fn check_answers(&self, by_code: &BTreeMap<u8, u64>, replies_dropped: u64) -> Result<(), String> {
        let requests = self.journaled_requests()?;
        let mut told: BTreeMap<u8, u64> = BTreeMap::new();
        for (_, answer) in self.witness.finals() {
            *told.entry(answer.code).or_insert(0) += 1;
        }
        let counted: BTreeMap<u8, u64> = by_code
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(&c, &n)| (c, n))
            .collect();
        if told != counted {
            return Err(format!(
                "the journal gives these final codes: {counted:?}; participants were told {told:?}"
            ));
        }
        for (id, answer) in self.witness.finals() {
            if !requests.contains_key(id) {
                return Err(format!("{id} was answered {} and is not in the journal", answer.code));
            }
            let was_sent = self.witness.requests.contains_key(id);
            let not_sent = answer.state == PaymentState::Expired as u8
                && [Code::LinkDown as u8, Code::OverLinkCapacity as u8].contains(&answer.code);
            if was_sent && (not_sent || answer.state == PaymentState::Rejected as u8) {
                return Err(format!(
                    "{id} was answered {} (not sent), and its bank was sent it",
                    answer.code
                ));
            }
            self.check_notice(*id, answer, was_sent)?;
        }
        self.check_late_words(replies_dropped)?;
        for (at, institution) in self.institutions() {
            for (id, order) in &institution.orders {
                if order.answer.is_some() != self.witness.final_answer(*id).is_some() {
                    return Err(format!(
                        "institution {at} and the lines differ about the answer to {id}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A pull that did not commit, and whose bank says yes all the same, is reversed; but for words that were dropped,
    /// because too many of their bank's waited for the register.
    fn check_late_words(&self, mut replies_dropped: u64) -> Result<(), String> {
        let unreadable = |error| format!("the journal can't be read: {error}");
        let files = JournalFiles::open(&self.data.path().join("journal")).map_err(unreadable)?;
        // A liar may name an id before there is such a payment; that reply is about nothing.
        let mut known = BTreeSet::new();
        for record in files.records() {
            let record = record.map_err(unreadable)?;
            if record.kind == RecordKind::Request {
                let event: RequestEvent = bytemuck::pod_read_unaligned(record.payload);
                known.insert(event.body.id);
            }
            if record.kind != RecordKind::Reply {
                continue;
            }
            let event: ReplyEvent = bytemuck::pod_read_unaligned(record.payload);
            let body = event.body;
            let Some(answer) = self.witness.final_answer(body.id).filter(|_| known.contains(&body.id)) else {
                continue;
            };
            let is_entitled = answer.responder.0 == event.sender
                && (answer.amount_minor, answer.currency) == (body.amount_minor, body.currency);
            let says_yes = body.outcome == ReplyOutcome::Yes as u8 && body.regarding != Regarding::Reversal as u8;
            let is_pull = Kind::from_u8(answer.kind).map(Kind::direction) == Some(Direction::Pull);
            let is_undone = [PaymentState::Declined as u8, PaymentState::Expired as u8].contains(&answer.state);
            if is_entitled && says_yes && is_pull && is_undone && !self.witness.reversals.contains(&body.id) {
                if replies_dropped > 0 {
                    replies_dropped -= 1;
                    continue;
                }
                return Err(format!(
                    "{} was answered {}, its bank said yes, and was not told to undo it",
                    body.id, answer.code
                ));
            }
        }
        Ok(())
    }

    /// The bank of a push that may have been sent is told its final state, whatever that is.
    fn check_notice(&self, id: PaymentId, answer: &Answer, was_sent: bool) -> Result<(), String> {
        let is_push = Kind::from_u8(answer.kind).map(Kind::direction) == Some(Direction::Push);
        let notice = self.witness.notices.get(&id);
        match (is_push, notice) {
            (true, None) if was_sent => Err(format!("{id} is final and its bank was not told")),
            (false, Some(_)) => Err(format!("{id} is no push and its bank was told of its state")),
            _ => Ok(()),
        }
    }

    /// What participants wrote down is what the windows say.
    fn check_books(&self, ledger: &LedgerSnapshot) -> Result<(), String> {
        let mut committed: BTreeMap<WindowId, u64> = BTreeMap::new();
        for (at, institution) in self.institutions() {
            let windows: BTreeSet<WindowId> = ledger.windows.iter().map(|window| window.id).collect();
            for window in windows.iter().chain(institution.book.keys()) {
                let ours = institution.book.get(window).copied().unwrap_or(0);
                let theirs = net_of(ledger, *window, at);
                if ours != theirs {
                    return Err(format!(
                        "window {window}: institution {at} has {ours}, the switch {theirs}"
                    ));
                }
            }
            for (&window, &count) in &institution.committed {
                *committed.entry(window).or_insert(0) += count;
            }
        }
        for window in &ledger.windows {
            let ours = committed.get(&window.id).copied().unwrap_or(0);
            if ours != window.committed {
                return Err(format!(
                    "window {}: institutions were told of {ours} commits, the switch has {}",
                    window.id, window.committed
                ));
            }
        }
        for (at, bank) in self.banks().filter(|(_, bank)| !bank.has_lied) {
            let theirs: Position = ledger.windows.iter().map(|window| net_of(ledger, window.id, at)).sum();
            let ours = bank.position();
            if ours != theirs {
                return Err(format!("bank {at} has {ours} over all windows, the switch {theirs}"));
            }
        }
        Ok(())
    }

    fn count(&mut self, payments: &crate::audit::StateCounts) {
        self.counts.committed = payments.committed;
        self.counts.declined = payments.declined;
        self.counts.expired = payments.expired;
        self.counts.rejected = payments.rejected;
        self.counts.payments = self
            .institutions()
            .map(|(_, institution)| institution.orders.len() as u64)
            .sum();
        self.counts.words = self.witness.word_count();
        self.counts.words_again = self.witness.words_again;
        self.counts.reversals = self.witness.reversals.len() as u64;
        self.counts.notices = self.witness.notices.len() as u64;
        self.counts.simulated_s = (self.now - self.plan.start.0) / SECOND;
    }
}

/// The ledger with the nets that it keeps no more, of windows settled long ago, as the journal gives them.
fn with_all_nets(mut ledger: LedgerSnapshot, journaled: &[WindowTotals]) -> LedgerSnapshot {
    for window in ledger.windows.iter_mut().filter(|window| !window.has_nets) {
        let known = journaled.iter().find(|known| known.id == window.id);
        let nets = known.into_iter().flat_map(|known| &known.nets);
        window.nets = nets.map(|(&index, &net)| (ParticipantIndex(index), net)).collect();
    }
    ledger
}

fn net_of(ledger: &LedgerSnapshot, window: WindowId, participant: usize) -> Position {
    let found = ledger.windows.iter().find(|known| known.id == window);
    let net = found.and_then(|known| known.nets.iter().find(|(index, _)| index.index() == participant));
    net.map_or(0, |(_, net)| *net)
}

fn window_totals(ledger: &LedgerSnapshot) -> Vec<WindowTotals> {
    let totals = ledger.windows.iter().map(|window| WindowTotals {
        id: window.id,
        currency: Currency(window.currency),
        state: window.state,
        committed: window.committed,
        gross_minor: window.gross,
        nets: window.nets.iter().map(|(index, net)| (index.0, *net)).collect(),
    });
    totals.collect()
}
