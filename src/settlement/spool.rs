//! The spool: what settlement's files are made of, written while payments flow, by who replays the events.
//!
//! What it promises:
//! - All payments that became final while a window was its currency's open one are in that window's file, in the order of
//!   the events; a payment in a currency that has no window is in the first currency's.
//! - A window's facts are there whole or not at all, and only after all its payments are on stable storage.
//! - Nothing is flushed for a payment. [`SpoolWriter::sync`] brings all of it to stable storage, before a snapshot of the
//!   engine says that it is there; who begins again at that snapshot writes on from there, and what is behind it is cut off.
//! - What is lost or damaged is noticed and named, and never settled: each record has a CRC and a number, and at a start the
//!   counts must come to the engine's own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::append::AppendFile;
use super::error::SettlementError;
use super::facts::{Party, WindowFacts};
use super::layout::{FinalRecord, MovementRecord, PartyRecord, SpoolHeader, SpoolKind};
use super::spool_reader::Spool;
use super::spool_view::{SpoolView, SpooledWindow, WindowSpool};
use crate::clearing::Engine;
use crate::domain::{BusinessDate, Currency, Role, SchemeCode, UtcNanos, WindowId, WindowState};
use crate::register::FileDoor;
use crate::wire::{ClosedWindow, CoverMovement, RecordKind, RegisterEntry};

/// Where the spool is, and of which journal.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Its directory.
    pub directory: PathBuf,
    /// The journal.
    pub journal_id: [u8; 16],
    /// The way to the files.
    pub door: FileDoor,
}

impl SpoolOptions {
    /// The spool of this journal in the directory of settlement's files.
    #[must_use]
    pub fn within(settlement: &Path, journal_id: [u8; 16], door: FileDoor) -> Self {
        Self {
            directory: settlement.join("spool"),
            journal_id,
            door,
        }
    }
}

/// An open window's file.
#[derive(Debug)]
struct Slot {
    currency: Currency,
    window: WindowId,
    /// Payments filed in earlier windows of the currency.
    before: u64,
    finals: u64,
    /// `None`: the window is there already, from before a restart, or it can't be spooled.
    file: Option<AppendFile>,
}

/// A window that has closed and is not there whole yet.
#[derive(Debug)]
struct Closing {
    slot: Slot,
    facts: WindowFacts,
    nets: Vec<i128>,
}

/// Writes the spool.
#[derive(Debug)]
pub struct SpoolWriter {
    options: SpoolOptions,
    view: Arc<SpoolView>,
    event: u64,
    time: UtcNanos,
    /// The end of the business day that the last event lies in.
    day_ends: UtcNanos,
    day_is_over: bool,
    slots: Vec<Slot>,
    closing: VecDeque<Closing>,
    movements: Option<AppendFile>,
    /// Of the event at hand.
    moved: Vec<CoverMovement>,
    /// Payments filed in closed windows, by currency.
    filed: BTreeMap<u16, u64>,
    whole: BTreeSet<WindowId>,
    lost: BTreeMap<WindowId, String>,
    /// Names were made since the directory was flushed.
    has_new_names: bool,
    is_pressing: bool,
    standings_changed: bool,
}

impl SpoolWriter {
    /// Goes on where `engine` stands. What is lost of an open window, or of those that wait for settlement, is told to
    /// `view` and does not keep the others from being written.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn open(options: SpoolOptions, view: Arc<SpoolView>, engine: &Engine) -> Result<Self, SettlementError> {
        let directory = &options.directory;
        let refused = |action| SettlementError::system(directory, action);
        options
            .door
            .make_directory(directory)
            .map_err(refused("make the directory"))?;
        for entry in std::fs::read_dir(directory).map_err(refused("list the directory"))? {
            let path = entry.map_err(refused("list the directory"))?.path();
            if path.extension().is_some_and(|end| end == "new") {
                let removed = options.door.remove(&path);
                removed.map_err(SettlementError::system(&path, "remove the left-over file"))?;
            }
        }
        let mut writer = Self {
            view,
            event: engine.event_number(),
            time: engine.time(),
            day_ends: end_of_day(engine.time().business_date()),
            day_is_over: true,
            slots: Vec::new(),
            closing: VecDeque::new(),
            movements: None,
            moved: Vec::new(),
            filed: BTreeMap::new(),
            whole: BTreeSet::new(),
            lost: BTreeMap::new(),
            has_new_names: true,
            is_pressing: false,
            standings_changed: true,
            options,
        };
        if engine.event_number() > 0 {
            writer.resume_movements(engine)?;
            writer.resume_windows(engine)?;
        }
        writer.flush()?;
        writer.tell_windows(engine);
        Ok(writer)
    }

    fn spool(&self) -> Spool {
        Spool::new(&self.options.directory, self.options.journal_id)
    }

    fn resume_movements(&mut self, engine: &Engine) -> Result<(), SettlementError> {
        let options = &self.options;
        let path = options.directory.join(Spool::MOVEMENTS);
        let resumed = AppendFile::resume::<MovementRecord>(
            path,
            SpoolKind::Movements,
            options.journal_id,
            self.event,
            &options.door,
        );
        let checked = resumed.and_then(|(file, _)| {
            self.spool().check_movements(engine)?;
            Ok(file)
        });
        match checked {
            Ok(file) => self.movements = Some(file),
            Err(error) if error.passes() => return Err(error),
            Err(error) => self.view.set_movements_lost(error.to_string()),
        }
        Ok(())
    }

    fn resume_windows(&mut self, engine: &Engine) -> Result<(), SettlementError> {
        for standing in engine.window_standings() {
            match standing.state {
                WindowState::Open => self.resume_window(standing.id, standing.currency)?,
                WindowState::Closed | WindowState::Settling | WindowState::Aborted => {
                    match self.spool().facts(standing.id) {
                        Ok(_) => drop(self.whole.insert(standing.id)),
                        Err(error) if error.passes() => return Err(error),
                        Err(error) => drop(self.lost.insert(standing.id, error.to_string())),
                    }
                }
                WindowState::Settled => {}
            }
        }
        self.sort_slots(engine);
        let filed: u64 = self.slots.iter().map(|slot| slot.before + slot.finals).sum();
        let open_ones_lost = self.slots.iter().any(|slot| self.lost.contains_key(&slot.window));
        if filed == engine.finals() && !open_ones_lost {
            return Ok(());
        }
        let error = SettlementError::damaged(
            &self.options.directory,
            format!(
                "the files of the open windows, and what they say was filed before, come to {filed} final payments, and by \
                 event {} there were {}",
                self.event,
                engine.finals()
            ),
        );
        for slot in &mut self.slots {
            self.lost.entry(slot.window).or_insert_with(|| error.to_string());
            // From the next window on the counts are right again.
            (slot.file, slot.before, slot.finals) = (None, 0, 0);
        }
        if let Some(first) = self.slots.first_mut() {
            first.before = engine.finals();
        }
        Ok(())
    }

    fn resume_window(&mut self, window: WindowId, currency: Currency) -> Result<(), SettlementError> {
        let spool = self.spool();
        let path = spool.finals_path(window);
        let mut slot = Slot {
            currency,
            window,
            before: 0,
            finals: 0,
            file: None,
        };
        let closed_later = spool.has_facts(window);
        let resumed = if closed_later {
            spool.filed_until(window, self.event).map(|(header, finals)| {
                (slot.before, slot.finals) = (header.before, finals);
            })
        } else {
            let (kind, options) = (SpoolKind::Finals, &self.options);
            AppendFile::resume::<FinalRecord>(path, kind, options.journal_id, self.event, &options.door).map(
                |(file, header)| {
                    (slot.before, slot.finals) = (header.before, file.records());
                    slot.file = Some(file);
                },
            )
        };
        match resumed {
            Ok(()) => {}
            Err(error) if error.passes() => return Err(error),
            Err(error) => drop(self.lost.insert(window, error.to_string())),
        }
        self.slots.push(slot);
        Ok(())
    }

    /// In the order of the scheme's currencies: the first takes what is in a currency without a window.
    fn sort_slots(&mut self, engine: &Engine) {
        let currencies = engine.scheme().currencies;
        let rank = |slot: &Slot| currencies.iter().position(|&known| known == slot.currency.0);
        self.slots.sort_by_key(rank);
    }

    /// The next event is about to be applied.
    #[inline]
    pub fn begin_event(&mut self, number: u64, time: UtcNanos) {
        (self.event, self.time) = (number, time);
        if time >= self.day_ends {
            self.day_ends = end_of_day(time.business_date());
            (self.day_is_over, self.is_pressing) = (true, true);
        }
    }

    /// Takes a payment that has just become final ([`crate::clearing::Outlet::registered`]).
    #[inline]
    pub fn registered(&mut self, entry: &RegisterEntry) {
        let event = self.event;
        let at = self.slots.iter().position(|slot| slot.currency.0 == entry.currency);
        let Some(slot) = self.slots.get_mut(at.unwrap_or(0)) else {
            return;
        };
        slot.finals += 1;
        if let Some(file) = &mut slot.file {
            self.is_pressing |= file.push(|number, crc| FinalRecord::new(event, entry, number, crc));
        }
    }

    /// Takes a window that has just closed ([`crate::clearing::Outlet::closed`]).
    pub fn closed(&mut self, window: &ClosedWindow<'_>) {
        let Some(at) = self.slots.iter().position(|slot| slot.window == window.id) else {
            return;
        };
        let slot = self.slots.remove(at);
        self.filed.insert(slot.currency.0, slot.before + slot.finals);
        let facts = WindowFacts {
            window: window.id,
            currency: window.currency,
            scheme: SchemeCode([0; 14]),
            journal_id: self.options.journal_id,
            opened: window.opened,
            closed: window.closed,
            close_event: window.event,
            finals: slot.finals,
            committed: window.committed,
            gross_minor: window.gross_minor,
            parties: Vec::new(),
        };
        self.closing.push_back(Closing {
            slot,
            facts,
            nets: window.nets.to_vec(),
        });
        self.is_pressing = true;
    }

    /// Takes a change of cover ([`crate::clearing::Outlet::cover_moved`]).
    pub fn cover_moved(&mut self, movement: &CoverMovement) {
        self.moved.push(*movement);
    }

    /// The event has been applied: what it said is completed with what the engine knows.
    #[inline]
    pub fn after_event(&mut self, kind: RecordKind, engine: &Engine) {
        if kind == RecordKind::Window || !self.moved.is_empty() {
            self.complete(engine);
        }
    }

    fn complete(&mut self, engine: &Engine) {
        let scheme = engine.scheme().code;
        for closing in self
            .closing
            .iter_mut()
            .filter(|closing| closing.facts.parties.is_empty())
        {
            closing.facts.scheme = scheme;
            let parties = engine.terms_in_force().zip(&closing.nets);
            closing.facts.parties = parties
                .map(|(terms, &net_minor)| Party {
                    index: terms.index,
                    code: terms.code,
                    role: Role::from_u8(terms.role).unwrap_or(Role::Bank),
                    net_minor,
                })
                .collect();
        }
        if self.movements.is_none() && self.view.movements_lost().is_none() {
            let header = SpoolHeader::new(SpoolKind::Movements, self.options.journal_id, scheme).sealed();
            let path = self.options.directory.join(Spool::MOVEMENTS);
            self.movements = Some(AppendFile::begin(path, &header, &self.options.door));
            (self.has_new_names, self.is_pressing) = (true, true);
        }
        let moved = std::mem::take(&mut self.moved);
        if let Some(file) = &mut self.movements {
            for movement in &moved {
                let terms = engine.terms_in_force().nth(movement.participant.index());
                let (code, role) = terms.map_or((SchemeCode([0; 14]), 0), |terms| (terms.code, terms.role));
                self.is_pressing |= file.push(|number, crc| MovementRecord::new(movement, code, role, number, crc));
            }
        }
        self.open_windows(engine);
        (self.standings_changed, self.is_pressing) = (true, true);
        self.tell_windows(engine);
    }

    /// Begins the files of windows that have just opened.
    fn open_windows(&mut self, engine: &Engine) {
        let open = engine.window_standings().filter(|of| of.state == WindowState::Open);
        for standing in open.collect::<Vec<_>>() {
            if self.slots.iter().any(|slot| slot.window == standing.id) {
                continue;
            }
            let before = self.filed.get(&standing.currency.0).copied().unwrap_or(0);
            let spool = self.spool();
            let file = (!spool.has_facts(standing.id)).then(|| {
                let mut header = SpoolHeader::new(SpoolKind::Finals, self.options.journal_id, engine.scheme().code);
                (header.window, header.currency, header.before) = (standing.id, standing.currency.0, before);
                AppendFile::begin(spool.finals_path(standing.id), &header.sealed(), &self.options.door)
            });
            self.has_new_names = true;
            self.slots.push(Slot {
                currency: standing.currency,
                window: standing.id,
                before,
                finals: 0,
                file,
            });
        }
        self.sort_slots(engine);
    }

    /// True when the next thing to do is [`SpoolWriter::flush`], before another event is taken.
    #[inline]
    #[must_use]
    pub const fn is_pressing(&self) -> bool {
        self.is_pressing
    }

    /// Writes what there is enough of, and the facts of windows that have closed.
    ///
    /// # Errors
    /// The system refuses it: memory still holds everything, and it may be tried again.
    pub fn flush(&mut self) -> Result<(), SettlementError> {
        while let Some(closing) = self.closing.front_mut() {
            let window = closing.facts.window;
            match write_facts(closing, &self.options) {
                Ok(()) => drop(self.whole.insert(window)),
                Err(error) if error.passes() => return Err(error),
                Err(error) => {
                    tracing::error!("{error}");
                    self.lost.insert(window, error.to_string());
                }
            }
            if self.lost.contains_key(&window) {
                self.whole.remove(&window);
            }
            self.closing.pop_front();
            self.view.set_spool(window, self.spool_of(window));
        }
        let slots = self.slots.iter_mut().filter_map(|slot| slot.file.as_mut());
        for file in slots.chain(&mut self.movements).filter(|file| file.is_full()) {
            file.write_out()?;
        }
        if self.day_is_over {
            if let Some(movements) = &mut self.movements {
                movements.sync()?;
            }
            self.view.set_day(self.time.business_date());
            self.day_is_over = false;
        }
        self.is_pressing = false;
        Ok(())
    }

    /// Brings all that was said up to the last event to stable storage.
    ///
    /// # Errors
    /// The system refuses it; it may be tried again.
    pub fn sync(&mut self) -> Result<(), SettlementError> {
        self.flush()?;
        let slots = self.slots.iter_mut().filter_map(|slot| slot.file.as_mut());
        for file in slots.chain(&mut self.movements) {
            file.sync()?;
        }
        if self.has_new_names {
            let directory = &self.options.directory;
            let flushed = self.options.door.flush_directory(directory);
            flushed.map_err(SettlementError::system(directory, "flush the directory"))?;
            self.has_new_names = false;
        }
        Ok(())
    }

    fn spool_of(&self, window: WindowId) -> WindowSpool {
        if let Some(lost) = self.lost.get(&window) {
            return WindowSpool::Lost(lost.clone());
        }
        if self.whole.contains(&window) {
            return WindowSpool::Whole;
        }
        WindowSpool::Underway
    }

    fn tell_windows(&mut self, engine: &Engine) {
        if !std::mem::take(&mut self.standings_changed) {
            return;
        }
        let windows = engine.window_standings().map(|standing| SpooledWindow {
            id: standing.id,
            currency: standing.currency,
            state: standing.state,
            closed: standing.closed,
            spool: self.spool_of(standing.id),
        });
        self.view.set_windows(engine.event_number(), windows.collect());
    }
}

fn end_of_day(date: BusinessDate) -> UtcNanos {
    super::day::end_of(date)
}

/// Brings a closed window's payments to stable storage, and then its facts; where they are there already, from before a
/// restart, they must be the same.
fn write_facts(closing: &mut Closing, options: &SpoolOptions) -> Result<(), SettlementError> {
    let spool = Spool::new(&options.directory, options.journal_id);
    let facts = &closing.facts;
    if spool.has_facts(facts.window) {
        let known = spool.facts(facts.window)?;
        if known != *facts {
            let path = spool.facts_path(facts.window);
            let reason = format!("it says {known:?}, and the same events give {facts:?} now");
            return Err(SettlementError::damaged(&path, reason));
        }
        return Ok(());
    }
    let Some(file) = &mut closing.slot.file else {
        // It was lost before, and that has been told.
        return Ok(());
    };
    file.sync()?;
    let path = spool.facts_path(facts.window);
    write_facts_file(&path, facts, closing.slot.before, options)
}

pub(super) fn write_facts_file(
    path: &Path,
    facts: &WindowFacts,
    before: u64,
    options: &SpoolOptions,
) -> Result<(), SettlementError> {
    use std::io::Write;
    let mut header = SpoolHeader::new(SpoolKind::Facts, facts.journal_id, facts.scheme);
    (header.window, header.currency, header.before) = (facts.window, facts.currency.0, before);
    (header.opened, header.closed, header.close_event) = (facts.opened, facts.closed, facts.close_event);
    (header.finals, header.committed) = (facts.finals, facts.committed);
    header.gross = facts.gross_minor.to_le_bytes();
    header.records = facts.parties.len() as u32;
    let header = header.sealed();
    let mut bytes = bytemuck::bytes_of(&header).to_vec();
    for (number, party) in (0..).zip(&facts.parties) {
        bytes.extend_from_slice(bytemuck::bytes_of(&PartyRecord::new(party, number, header.crc)));
    }
    let temporary = path.with_extension("new");
    let refused = |action| SettlementError::system(&temporary, action);
    let door = &options.door;
    let mut file = door.make(&temporary).map_err(refused("make the file"))?;
    door.write(&temporary)
        .and_then(|()| file.write_all(&bytes))
        .map_err(refused("write the file"))?;
    door.flush(&file, &temporary).map_err(refused("flush the file"))?;
    door.rename(&temporary, path)
        .map_err(refused("give the file its name"))?;
    door.flush_directory(&options.directory)
        .map_err(refused("flush the directory"))
}
