//! The files of every closed window and day, from the journal's events alone: `clearway settle report`.
//!
//! The same outlet as behind a running switch keeps what the engine says in a spool of its own, beside the files; a window
//! is written as soon as it has closed, and its payments leave that spool again.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::day::{day_statements, write_day};
use super::error::SettlementError;
use super::files::{Existing, Publication, SettlementDirectory};
use super::merkle::Digest;
use super::pass::publish_window;
use super::spool::{SpoolOptions, SpoolWriter};
use super::spool_reader::Spool;
use super::spool_view::{SpoolView, WindowSpool};
use crate::clearing::{Engine, Event, Outlet};
use crate::domain::{WindowId, WindowState};
use crate::journal::JournalError;
use crate::register::FileDoor;
use crate::wire::{ClosedWindow, CoverMovement, Effect, RecordKind, RegisterEntry};

/// The directory of its spool, within that of the files.
const SPOOL: &str = ".spool.offline";

/// What is to be written.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// The directory of settlement's files.
    pub out: PathBuf,
    /// The journal that is replayed.
    pub journal_id: [u8; 16],
    /// This window alone, and no day.
    pub window: Option<WindowId>,
    /// What to do where other files are.
    pub existing: Existing,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The files can't be written.
    #[error(transparent)]
    Settlement(#[from] SettlementError),
}

/// What was written.
#[derive(Debug, Default)]
pub struct Reported {
    /// Windows with their roots, in the order of their closes.
    pub windows: Vec<(WindowId, Digest, Publication)>,
    /// Days, in their order.
    pub days: Vec<Publication>,
    /// Directories that were left as they are because other files are there.
    pub occupied: Vec<SettlementError>,
}

/// A report that is being written, event by event.
pub struct Report<F> {
    options: ReportOptions,
    directory: SettlementDirectory,
    spool_options: SpoolOptions,
    view: Arc<SpoolView>,
    writer: SpoolWriter,
    spool: Spool,
    done: BTreeSet<WindowId>,
    reported: Reported,
    say: F,
}

/// What the engine says, to the spool.
struct Filing<'a>(&'a mut SpoolWriter);

impl Outlet for Filing<'_> {
    fn emit(&mut self, _: Effect) {}

    fn listens(&self) -> bool {
        false
    }

    fn keeps_register(&self) -> bool {
        true
    }

    fn registered(&mut self, entry: &RegisterEntry) {
        self.0.registered(entry);
    }

    fn closed(&mut self, window: &ClosedWindow<'_>) {
        self.0.closed(window);
    }

    fn cover_moved(&mut self, movement: &CoverMovement) {
        self.0.cover_moved(movement);
    }
}

impl<F: FnMut(String)> Report<F> {
    /// Begins, with an engine that has seen nothing. `say` is told what is written.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn begin(options: ReportOptions, engine: &Engine, say: F) -> Result<Self, SettlementError> {
        let spool_options = SpoolOptions {
            directory: options.out.join(SPOOL),
            journal_id: options.journal_id,
            door: FileDoor::OPEN,
        };
        remove_spool(&spool_options)?;
        let view = Arc::new(SpoolView::default());
        Ok(Self {
            directory: SettlementDirectory::offline(options.out.clone()),
            writer: SpoolWriter::open(spool_options.clone(), Arc::clone(&view), engine)?,
            spool: Spool::new(&spool_options.directory, options.journal_id),
            done: BTreeSet::new(),
            reported: Reported::default(),
            options,
            spool_options,
            view,
            say,
        })
    }

    /// Applies an event to the engine, and writes what it closed; breaks off when all that was asked for is written.
    ///
    /// # Errors
    /// The payments of a window do not come to what the engine has, or the system refuses something.
    pub fn apply(&mut self, engine: &mut Engine, event: &Event<'_>) -> Result<ControlFlow<()>, SettlementError> {
        if self.writer.is_pressing() {
            self.writer.flush()?;
        }
        self.writer.begin_event(event.number, event.time);
        engine.apply(event, &mut Filing(&mut self.writer));
        self.writer.after_event(event.kind, engine);
        if event.kind != RecordKind::Window {
            return Ok(ControlFlow::Continue(()));
        }
        self.writer.flush()?;
        let closed = engine.window_standings().filter(|of| of.state != WindowState::Open);
        let new: Vec<WindowId> = closed.map(|of| of.id).filter(|id| !self.done.contains(id)).collect();
        for window in new {
            self.write_window(window)?;
            self.done.insert(window);
        }
        Ok(match self.options.window {
            Some(window) if self.done.contains(&window) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    fn write_window(&mut self, window: WindowId) -> Result<(), SettlementError> {
        if self.options.window.is_none_or(|wanted| wanted == window) {
            if let Some(WindowSpool::Lost(reason)) = self.view.window(window).map(|window| window.spool) {
                return Err(SettlementError::damaged(&self.spool_options.directory, reason));
            }
            let facts = self.spool.facts(window)?;
            (self.say)(format!("window {window}: {} payments", facts.committed));
            let payments = self.spool.finals(&facts)?;
            match publish_window(&facts, payments, &self.directory, self.options.existing) {
                Ok((statement, publication)) => {
                    self.reported.windows.push((window, statement.root, publication));
                }
                Err(error @ SettlementError::Occupied { .. }) => self.reported.occupied.push(error),
                Err(error) => return Err(error),
            }
        }
        self.spool.remove_finals(window, &self.spool_options.door)?;
        Ok(())
    }

    /// Writes the days, the last one up to the last event, and gives what was written.
    ///
    /// # Errors
    /// The window that was asked for is not closed in the journal, or the system refuses something.
    pub fn finish(mut self, engine: &Engine) -> Result<Reported, SettlementError> {
        match self.options.window {
            Some(window) if !self.done.contains(&window) => {
                return Err(SettlementError::NotThere(format!(
                    "the journal ends at event {} and closes no window {window} up to there; `clearway settle list` shows those \
                     that there are",
                    engine.event_number()
                )));
            }
            Some(_) => {}
            None if engine.event_number() == 0 => {}
            None => self.write_days(engine)?,
        }
        Ok(std::mem::take(&mut self.reported))
    }

    fn write_days(&mut self, engine: &Engine) -> Result<(), SettlementError> {
        self.writer.sync()?;
        let Self {
            directory,
            options,
            reported,
            say,
            ..
        } = self;
        day_statements(self.spool.movements()?, engine.time(), |day| {
            say(format!("day {}", day.date));
            match write_day(&day, directory, options.existing) {
                Ok(publication) => reported.days.push(publication),
                Err(error @ SettlementError::Occupied { .. }) => reported.occupied.push(error),
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }
}

impl<F> Drop for Report<F> {
    fn drop(&mut self) {
        // What stays is removed when the next report begins.
        let _ = remove_spool(&self.spool_options);
    }
}

fn remove_spool(options: &SpoolOptions) -> Result<(), SettlementError> {
    match fs::remove_dir_all(&options.directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SettlementError::system(
            &options.directory,
            "remove the directory",
        )(error)),
        _ => Ok(()),
    }
}
