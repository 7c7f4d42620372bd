//! Saving the state, and taking it back: [`Engine::load`] of what [`Engine::save`] wrote goes on exactly as the engine.
//!
//! The three large arrays are saved as they lie in memory, at whole blocks, so that a loader can read them straight to
//! where they stay, on as many threads as there are cores.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};

use super::alarm::COVER_LEVELS_BP;
use super::engine::Engine;
use super::exception::{ExceptionItem, ExceptionKind};
use super::figures::{Figures, Success};
use super::invariant::{Breach, BreachRow};
use super::mark::Digest;
use super::order::{OUTCOMES_MAX, OrderOutcomeSnapshot, OrderRow, Orders, PROPOSALS_MAX, ProposalSnapshot};
use super::outbox::{Block, Outbox};
use super::parked::{ParkedRow, Parking};
use super::participant::{Account, CoverBook, Participant};
use super::payment::PaymentRecord;
use super::refund::Refunds;
use super::residents::{Place, Residents};
use super::reversal::{ReversalObject, ReversalState};
use super::save_index::{SavedLanes, all_in_order, read_lanes};
use super::saved::{
    AccountRow, BLOCK_BYTES, BlockRow, Blocks, BookRow, DoubtRow, ExceptionRow, LoadError, MAGIC, ParticipantRow,
    ReversalRow, SlotRow, Standing, StateSource, SumRow, TimerRow, WindowRow, damaged, halves, read_row, read_rows,
    read_rows_with, rows, section, skip_to_arrays, whole,
};
use super::timer::{Timer, TimerKind};
use super::window::{Window, Windows};
use crate::domain::{
    BusinessDate, PaymentSlot, PaymentState, Position, Role, SchemeTerms, UtcNanos, WindowId, WindowState,
};
use crate::memory::ChunkedTable;

impl Engine {
    /// Writes the whole state: what [`Engine::load`] takes. A breach is part of it: intake stays stopped.
    ///
    /// # Errors
    /// What `out` says.
    pub fn save<W: Write>(&self, out: &mut W) -> io::Result<()> {
        let out = &mut Blocks::new(out);
        out.write_all(&MAGIC)?;
        rows(out, "scheme", &[self.scheme])?;
        let (window_date, windows_on_date) = self.windows.numbering();
        let standing = Standing {
            open_sum: halves(self.open_sum),
            event_number: self.event_number,
            time_ns: self.time.0,
            digest: self.digest.0,
            taken: self.payments.taken(),
            cursor: self.payments.cursor(),
            begun: self.begun.0,
            sealed: self.sealed.0,
            window_date: window_date.0,
            windows_on_date,
            reserved: 0,
            tally: self.tally,
        };
        rows(out, "engine", &[standing])?;
        let breach = self.breach.as_ref().map(Breach::row);
        rows(out, "breach", breach.as_slice())?;
        rows(out, "spans", &self.timers.spans())?;
        rows(out, "figures", &self.figures.numbers())?;
        let participants: Vec<ParticipantRow> = self.participants.iter().map(participant_row).collect();
        rows(out, "parties", &participants)?;
        let blocks = self.participants.iter().flat_map(|p| p.outbox.blocks());
        let count = blocks.clone().count();
        section(out, "words", count * size_of::<BlockRow>(), |out| {
            blocks.into_iter().try_for_each(|block| {
                out.write_all(&block.taken.to_le_bytes())?;
                out.write_all(bytemuck::cast_slice(&block.words[..]))
            })
        })?;
        let windows: Vec<WindowRow> = self.windows.iter().map(window_row).collect();
        rows(out, "windows", &windows)?;
        let nets: Vec<[u64; 2]> = self
            .windows
            .iter()
            .flat_map(|w| w.nets.iter().copied().map(halves))
            .collect();
        rows(out, "nets", &nets)?;
        let reversals: Vec<ReversalRow> = self.reversals.iter().map(reversal_row).collect();
        rows(out, "reverse", &reversals)?;
        let sums: Vec<SumRow> = self.refunds.sums().map(|(id, sum)| SumRow { id, sum }).collect();
        rows(out, "refunded", &sums)?;
        let open = self.refunds.open().map(|(slot, original)| SlotRow {
            slot: slot.into(),
            about: bytemuck::cast(original),
        });
        rows(out, "refunds", &open.collect::<Vec<_>>())?;
        let tokens = self.tokens.iter().map(|(&slot, &about)| SlotRow {
            slot: slot.into(),
            about,
        });
        rows(out, "tokens", &tokens.collect::<Vec<_>>())?;
        let exceptions: Vec<ExceptionRow> = self.exceptions.iter().map(exception_row).collect();
        rows(out, "except", &exceptions)?;
        let parked: Vec<ParkedRow> = self.parking.rows().collect();
        #[cfg(test)]
        let parked = self.spoil_saved(parked);
        rows(out, "parked", &parked)?;
        let proposals: Vec<OrderRow> = self.orders.proposals().map(ProposalSnapshot::row).collect();
        #[cfg(test)]
        let proposals = self.spoil_proposals(proposals);
        rows(out, "proposed", &proposals)?;
        let outcomes: Vec<OrderRow> = self.orders.outcomes().map(OrderOutcomeSnapshot::row).collect();
        rows(out, "outcomes", &outcomes)?;
        self.save_timers(out)?;
        rows(out, "table", &[self.payments.len() as u64])?;
        self.index.save_lanes(out)?;
        out.fill_block()?;
        array(out, self.payments.records())?;
        array(out, self.payments.places())?;
        self.index.save_pieces(out)
    }

    fn save_timers<W: Write>(&self, out: &mut W) -> io::Result<()> {
        let (queues, rest) = self.timers.parts();
        let doubt = (0u32..).zip(&queues).flat_map(|(class, queue)| {
            queue.iter().map(move |&(slot, generation)| DoubtRow {
                class,
                slot,
                generation,
                reserved: 0,
            })
        });
        rows(out, "doubt", &doubt.collect::<Vec<_>>())?;
        let rest = rest.iter().map(|timer| TimerRow {
            deadline: timer.deadline.0,
            id: timer.id,
            slot: timer.slot.0,
            kind: timer.kind as u32,
        });
        rows(out, "timers", &rest.collect::<Vec<_>>())
    }

    /// Takes back what [`Engine::save`] wrote.
    ///
    /// The caller makes sure of the content by a checksum; whatever the bytes, this neither panics nor takes memory for
    /// more than there is to read.
    ///
    /// # Errors
    /// When `input` ends early or fails, is no saved state of this version, or contradicts itself.
    pub fn load<R: StateSource + ?Sized>(input: &mut R) -> Result<Self, LoadError> {
        let length = input.left();
        let mut magic = [0; 16];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(LoadError::Unknown);
        }
        let scheme: SchemeTerms = read_row(input, "scheme")?;
        let bound = scheme.resident_payments;
        if bound > SchemeTerms::RESIDENT_PAYMENTS_MAX || !(bound == 0 || bound.is_power_of_two()) {
            return Err(damaged("scheme", "resident_payments"));
        }
        let standing: Standing = read_row(input, "engine")?;
        let breach = load_breach(input)?;
        let spans: Vec<u64> = read_rows(input, "spans")?;
        let mut engine = Self {
            scheme,
            open_sum: whole(standing.open_sum),
            tally: standing.tally,
            breach,
            event_number: standing.event_number,
            time: UtcNanos(standing.time_ns),
            digest: Digest(standing.digest),
            begun: BusinessDate(standing.begun),
            sealed: BusinessDate(standing.sealed),
            figures: Figures::of_numbers(&read_row(input, "figures")?),
            ..Self::new()
        };
        engine.timers.restore_spans(&spans);
        engine.load_participants(input)?;
        engine.windows = load_windows(input, &standing, engine.participants.len())?;
        for row in read_rows::<_, ReversalRow>(input, "reverse")? {
            engine.reversals.insert(reversal(&row)?);
        }
        let sums: Vec<SumRow> = read_rows(input, "refunded")?;
        let open: Vec<SlotRow> = read_rows(input, "refunds")?;
        engine.refunds = Refunds::restored(
            sums.iter().map(|row| (row.id, row.sum)),
            open.iter().map(|row| (row.slot as u32, bytemuck::cast(row.about))),
        );
        let tokens: Vec<SlotRow> = read_rows(input, "tokens")?;
        engine.tokens = tokens.iter().map(|row| (row.slot as u32, row.about)).collect();
        for row in read_rows::<_, ExceptionRow>(input, "except")? {
            let what = u8::try_from(row.what).ok().and_then(ExceptionKind::from_u8);
            let what = what.ok_or(damaged("except", "a sort of item"))?;
            *engine.excepted.entry(row.payment).or_insert(0) |= what.bit();
            engine.exceptions.push(ExceptionItem {
                payment: row.payment,
                what,
                event: row.event,
                time: UtcNanos(row.time),
            });
        }
        engine.parking = Parking::restored(&read_rows::<_, ParkedRow>(input, "parked")?);
        engine.orders = load_orders(input)?;
        let doubt: Vec<DoubtRow> = read_rows(input, "doubt")?;
        let timers: Vec<TimerRow> = read_rows(input, "timers")?;
        let count: u64 = read_row(input, "table")?;
        if count > bound.into() {
            return Err(damaged("table", "it has more than resident_payments"));
        }
        let lanes = read_lanes(input)?;
        skip_to_arrays(input, length)?;
        engine.load_arrays(input, &standing, count as usize, lanes)?;
        engine.check_table()?;
        engine.load_timers(&doubt, &timers)?;
        Ok(engine)
    }

    /// Lays out the table and the index, and has them read to where they stay.
    fn load_arrays<R: StateSource + ?Sized>(
        &mut self,
        input: &mut R,
        standing: &Standing,
        count: usize,
        lanes: SavedLanes,
    ) -> Result<(), LoadError> {
        let blocks = |bytes: usize| bytes.next_multiple_of(BLOCK_BYTES) as u64;
        let table = blocks(count * size_of::<PaymentRecord>()) + blocks(count * size_of::<Place>());
        let expected = lanes.piece_bytes.checked_add(table);
        if expected != Some(input.left()) {
            return Err(damaged("table", "its arrays are not as long as they should be"));
        }
        let mut records = ChunkedTable::<PaymentRecord>::zeroed(count)?;
        let mut places = ChunkedTable::<Place>::zeroed(count)?;
        let mut partitions = lanes.laid_out(self.index.pool_mut())?;
        let pieces = partitions.iter_mut().filter(|partition| !partition.head().is_small());
        let parts = records
            .parts_mut()
            .chain(places.parts_mut())
            .chain(pieces.flat_map(|partition| partition.pieces_mut().map(bytemuck::cast_slice_mut)));
        input.fill(parts.collect())?;
        if !all_in_order(&partitions, input.threads()) {
            return Err(damaged("ids", "the order of a lane"));
        }
        partitions
            .into_iter()
            .for_each(|partition| self.index.put_back(partition));
        let bound = self.scheme.resident_payments;
        self.payments = Residents::restored(bound, standing.cursor, standing.taken, records, places)
            .ok_or(damaged("table", "it does not fit what the engine says of it"))?;
        Ok(())
    }

    fn load_participants<R: Read + ?Sized>(&mut self, input: &mut R) -> Result<(), LoadError> {
        let parties: Vec<ParticipantRow> = read_rows(input, "parties")?;
        let mut blocks = VecDeque::new();
        read_rows_with(input, "words", |rows: &[BlockRow]| {
            blocks.extend(rows.iter().map(|row| Block {
                taken: row.taken,
                words: Box::new(row.words),
            }));
            Ok(())
        })?;
        for (number, row) in parties.iter().enumerate() {
            if row.terms.index.index() != number {
                return Err(damaged("parties", "the order of numbers"));
            }
            let role = Role::from_u8(row.terms.role).ok_or(damaged("parties", "a role"))?;
            let class = self.timers.enter_class(row.terms.doubt_ns);
            let mut participant = Participant::new(row.terms, role, &self.scheme.currencies, class);
            for (account, row) in participant.accounts.iter_mut().zip(&row.accounts) {
                *account = Account::with(row.open == 1, whole(row.cover), whole(row.cap));
                account.position = whole(row.position);
                account.reserved = whole(row.reserved);
                if row.level as usize > COVER_LEVELS_BP.len() {
                    return Err(damaged("parties", "the level of an alarm"));
                }
                account.level = row.level as u8;
                account.set_thresholds();
            }
            participant.books = row.books.map(|book| CoverBook {
                opening: whole(book.opening),
                brought_in: whole(book.brought_in),
                taken_out: whole(book.taken_out),
                settled: whole(book.settled),
            });
            participant.success = Success {
                as_initiator: row.as_initiator,
                as_responder: row.as_responder,
            };
            let kept = usize::try_from(row.blocks).ok().filter(|count| *count <= blocks.len());
            let kept = blocks
                .drain(..kept.ok_or(damaged("words", "how many there are"))?)
                .collect();
            participant.outbox =
                Outbox::restored(row.words, row.blocks_dropped, kept).ok_or(damaged("words", "how many there are"))?;
            self.participants.push(participant);
        }
        if !blocks.is_empty() {
            return Err(damaged("words", "how many there are"));
        }
        Ok(())
    }

    fn load_timers(&mut self, doubt: &[DoubtRow], timers: &[TimerRow]) -> Result<(), LoadError> {
        let mut queues: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
        for row in doubt {
            if row.slot as usize >= self.payments.len() {
                return Err(damaged("doubt", "a slot"));
            }
            queues.entry(row.class).or_default().push((row.slot, row.generation));
        }
        let classes = self.timers.classes() as u32;
        if queues.keys().next_back().is_some_and(|last| *last >= classes) {
            return Err(damaged("doubt", "a class"));
        }
        let queues = (0..classes).map(|class| queues.remove(&class).unwrap_or_default());
        let mut rest = Vec::new();
        for row in timers {
            let kind = TimerKind::from_u32(row.kind).ok_or(damaged("timers", "a kind"))?;
            rest.push(Timer {
                deadline: UtcNanos(row.deadline),
                id: row.id,
                kind,
                slot: PaymentSlot(row.slot),
            });
        }
        let queues = queues.collect();
        self.timers.restore(queues, rest);
        Ok(())
    }

    /// What is derived from the table, and what the engine takes for granted about it.
    fn check_table(&mut self) -> Result<(), LoadError> {
        let slots = self.payments.len() as u64;
        let held = |slot: u32| u64::from(slot) < slots;
        if !self.refunds.open().all(|(slot, _)| held(slot)) || !self.tokens.keys().all(|slot| held(*slot)) {
            return Err(damaged("payments", "a refund or token of a slot that is not there"));
        }
        for (slot, record) in (0u32..).zip(self.payments.records().iter()) {
            let state = PaymentState::from_u8(record.state).ok_or(damaged("payments", "a state"))?;
            if state.is_final() {
                continue;
            }
            let parties = [record.initiator(), record.responder];
            let known = parties.iter().all(|party| party.index() < self.participants.len());
            let kind = crate::domain::Kind::from_u8(record.kind);
            if !known || kind.is_none() || record.currency_slot >= 4 {
                return Err(damaged("payments", "an open payment's parties, kind or currency"));
            }
            self.open_dates.add(record.id.date());
            if state == PaymentState::InDoubt {
                self.doubtful.insert((record.time_ns, slot));
            }
        }
        Ok(())
    }
}

/// Writes a table as it lies in memory, and zeros up to a whole block.
fn array<W: Write, T: bytemuck::Pod>(out: &mut Blocks<'_, W>, table: &ChunkedTable<T>) -> io::Result<()> {
    table
        .chunks()
        .try_for_each(|chunk| out.write_all(bytemuck::cast_slice(chunk)))?;
    out.fill_block()
}

fn participant_row(participant: &Participant) -> ParticipantRow {
    ParticipantRow {
        terms: participant.terms,
        accounts: participant.accounts.map(|account| AccountRow {
            open: account.open.into(),
            level: account.level.into(),
            position: halves(account.position),
            reserved: halves(account.reserved),
            cover: halves(account.cover),
            cap: halves(account.cap),
        }),
        books: participant.books.map(|book| BookRow {
            opening: halves(book.opening),
            brought_in: halves(book.brought_in),
            taken_out: halves(book.taken_out),
            settled: halves(book.settled),
        }),
        as_initiator: participant.success.as_initiator,
        as_responder: participant.success.as_responder,
        words: participant.outbox.next_word() - 1,
        blocks_dropped: participant.outbox.dropped(),
        blocks: participant.outbox.blocks().len() as u64,
    }
}

fn load_breach<R: Read + ?Sized>(input: &mut R) -> Result<Option<Breach>, LoadError> {
    let rows: Vec<BreachRow> = read_rows(input, "breach")?;
    match rows.as_slice() {
        [] => Ok(None),
        [row] => Breach::of_row(row).map(Some).ok_or(damaged("breach", "its number")),
        _ => Err(damaged("breach", "how many there are")),
    }
}

fn load_orders<R: Read + ?Sized>(input: &mut R) -> Result<Orders, LoadError> {
    let proposals: Vec<OrderRow> = read_rows(input, "proposed")?;
    let proposals: Option<Vec<_>> = proposals.iter().map(ProposalSnapshot::of_row).collect();
    let outcomes: Vec<OrderRow> = read_rows(input, "outcomes")?;
    let outcomes: Option<Vec<_>> = outcomes.iter().map(OrderOutcomeSnapshot::of_row).collect();
    match (proposals, outcomes) {
        (Some(proposals), Some(outcomes)) if proposals.len() <= PROPOSALS_MAX && outcomes.len() <= OUTCOMES_MAX => {
            Ok(Orders::restored(proposals, outcomes))
        }
        _ => Err(damaged("proposed", "an order")),
    }
}

fn window_row(window: &Window) -> WindowRow {
    WindowRow {
        id: window.id.0,
        opened: window.opened.0,
        closed: window.closed.0,
        committed: window.committed,
        gross: halves(window.gross),
        currency: window.currency,
        currency_slot: window.currency_slot,
        state: window.state as u8,
        nets: window.nets.len() as u32,
    }
}

fn load_windows<R: Read + ?Sized>(
    input: &mut R,
    standing: &Standing,
    participants: usize,
) -> Result<Windows, LoadError> {
    let rows: Vec<WindowRow> = read_rows(input, "windows")?;
    let nets: Vec<[u64; 2]> = read_rows(input, "nets")?;
    let mut nets = nets.into_iter();
    let mut windows = Vec::with_capacity(rows.len());
    for row in rows {
        let state = WindowState::from_u8(row.state).ok_or(damaged("windows", "a state"))?;
        let own: Vec<Position> = nets.by_ref().take(row.nets as usize).map(whole).collect();
        let whole_row = own.len() == row.nets as usize && row.currency_slot < 4;
        if !whole_row || (state == WindowState::Open && own.len() != participants) {
            return Err(damaged("windows", "its currency or nets"));
        }
        windows.push(Window {
            id: WindowId(row.id),
            currency: row.currency,
            currency_slot: row.currency_slot,
            state,
            opened: UtcNanos(row.opened),
            closed: UtcNanos(row.closed),
            committed: row.committed,
            gross: whole(row.gross),
            nets: own,
        });
    }
    Ok(Windows::restored(
        windows,
        BusinessDate(standing.window_date),
        standing.windows_on_date,
    ))
}

fn reversal_row(reversal: &ReversalObject) -> ReversalRow {
    ReversalRow {
        raised: reversal.raised.0,
        next: reversal.next.0,
        word: reversal.word,
        state: reversal.state as u32,
        attempts: reversal.attempts.into(),
        payment: reversal.payment,
    }
}

fn reversal(row: &ReversalRow) -> Result<ReversalObject, LoadError> {
    let state = u8::try_from(row.state).ok().and_then(ReversalState::from_u8);
    let payment: PaymentRecord = row.payment;
    let is_final = PaymentState::from_u8(payment.state).is_some_and(PaymentState::is_final);
    match state {
        Some(state) if is_final => Ok(ReversalObject {
            state,
            attempts: row.attempts as u8,
            raised: UtcNanos(row.raised),
            next: UtcNanos(row.next),
            word: row.word,
            payment,
        }),
        _ => Err(damaged("reverse", "a state")),
    }
}

fn exception_row(item: &ExceptionItem) -> ExceptionRow {
    ExceptionRow {
        payment: item.payment,
        event: item.event,
        time: item.time.0,
        what: item.what as u64,
    }
}
