//! The files of the register and of snapshots: the machine stops at any change to them, the disk has no room for them, and
//! what was written goes bad or is lost.
//!
//! At a crash everything that was not brought to stable storage may be gone: of a file that was not flushed any end, of the
//! names that were made, changed and removed since their directory was flushed the last ones.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::register::{FileGate, FileStep};
use crate::sim::Random;

/// The register's and the snapshots' files.
#[derive(Debug)]
pub(super) struct Files {
    data: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Changes until the machine stops at one; `None` = not planned.
    stops_in: Option<u64>,
    stopped: bool,
    /// There is no room for anything new.
    full: bool,
    /// Files with bytes that are not flushed, and how many are.
    unflushed: Vec<(PathBuf, u64)>,
    /// What may yet be undone, oldest first.
    names: Vec<Name>,
}

/// A change to a directory that is not on stable storage yet.
#[derive(Debug)]
enum Name {
    Made(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf, Vec<u8>),
}

impl Name {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Made(path) | Self::Renamed(path, _) | Self::Removed(path, _) => path.parent(),
        }
    }

    fn undo(&self) -> io::Result<()> {
        match self {
            Self::Made(path) if path.is_dir() => fs::remove_dir_all(path),
            Self::Made(path) => fs::remove_file(path),
            Self::Renamed(from, to) => fs::rename(to, from),
            Self::Removed(path, bytes) => fs::write(path, bytes),
        }
    }
}

impl Files {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine stops when so many more changes have been made.
    pub(super) fn stop_in(&self, changes: u64) {
        self.state().stops_in = Some(changes);
    }

    pub(super) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Nothing more is planned.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        (state.stops_in, state.full) = (None, false);
    }

    /// True when the machine has stopped at a change.
    pub(super) fn has_stopped(&self) -> bool {
        self.state().stopped
    }

    /// The switch's process is gone and the machine is not: all it did is there, though not all on stable storage.
    pub(super) fn process_ends(&self) {
        let mut state = self.state();
        (state.stops_in, state.stopped) = (None, false);
    }

    /// The machine is gone: draws what is left of what was not on stable storage.
    ///
    /// # Errors
    /// The files can't be changed.
    pub(super) fn tear(&self, random: &mut Random) -> io::Result<String> {
        let state = {
            let mut state = self.state();
            let full = state.full;
            std::mem::replace(
                &mut *state,
                State {
                    full,
                    ..State::default()
                },
            )
        };
        for (path, flushed) in &state.unflushed {
            if let Ok(file) = OpenOptions::new().write(true).open(path) {
                let lost_max = file.metadata()?.len().saturating_sub(*flushed);
                if lost_max > 0 {
                    file.set_len(flushed + random.below(lost_max + 1))?;
                }
            }
        }
        let undone = random.below(state.names.len() as u64 + 1) as usize;
        for name in state.names.iter().rev().take(undone) {
            match name.undo() {
                // What went bad or was moved away meanwhile is not there to be undone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                undone => undone?,
            }
        }
        Ok(format!(
            "{} files of the register and of snapshots cut, {undone} of {} names undone",
            state.unflushed.len(),
            state.names.len()
        ))
    }

    /// All whole snapshots and runs, in the order of their names.
    fn whole(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.data.join("snapshots"), self.data.join("register")];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(directory) else { continue };
            for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
                let is_whole = path.extension().is_some_and(|end| end == "snap" || end == "run");
                if path.is_dir() {
                    directories.push(path);
                } else if is_whole {
                    files.push(path);
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// A bit of a file is turned, or its end or all of it is lost; says what.
    ///
    /// # Errors
    /// The file can't be changed.
    pub(super) fn spoil(&self, random: &mut Random) -> io::Result<Option<String>> {
        let files = self.whole();
        let mut fit: Vec<&PathBuf> = files.iter().collect();
        // There are more runs than snapshots.
        if random.chance(50_000) {
            fit.retain(|path| path.extension().is_some_and(|end| end == "snap"));
        }
        let Some(path) = fit.get(random.below(fit.len().max(1) as u64) as usize) else {
            return Ok(None);
        };
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let name = path.strip_prefix(&self.data).unwrap_or(path).display();
        Ok(Some(match random.below(4) {
            0 => {
                fs::remove_file(path)?;
                format!("{name} is lost")
            }
            1 => {
                let left = random.below(length);
                file.set_len(left)?;
                format!("{name} is cut to {left} bytes")
            }
            _ => {
                let (at, bit) = (random.below(length.max(1)), random.below(8));
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                byte[0] ^= 1 << bit;
                file.write_all_at(&byte, at)?;
                format!("bit {bit} of byte {at} of {name} is turned")
            }
        }))
    }

    /// What an operator does with a damaged register: both directories are moved away.
    ///
    /// # Errors
    /// They can't be moved.
    pub(super) fn move_away(&self) -> io::Result<()> {
        for name in ["register", "snapshots"] {
            let path = self.data.join(name);
            if path.exists() {
                let away = self.data.join(format!("{name}.away"));
                if away.exists() {
                    fs::remove_dir_all(&away)?;
                }
                fs::rename(path, away)?;
            }
        }
        Ok(())
    }
}

impl FileGate for Files {
    fn before(&self, step: FileStep<'_>, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Some(left) = &mut state.stops_in {
            if *left == 0 {
                state.stopped = true;
            } else {
                *left -= 1;
            }
        }
        if state.stopped {
            return Err(io::Error::other("the machine stops at this change to a file"));
        }
        let takes_room = matches!(step, FileStep::MakeDirectory | FileStep::Make | FileStep::Write);
        if takes_room && state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match step {
            FileStep::MakeDirectory => state.names.push(Name::Made(path.to_owned())),
            FileStep::Make => {
                if path.exists() {
                    state
                        .names
                        .retain(|name| !matches!(name, Name::Made(made) if made == path));
                }
                state.names.push(Name::Made(path.to_owned()));
                state.unflushed.retain(|(known, _)| known != path);
                state.unflushed.push((path.to_owned(), 0));
            }
            FileStep::Write => {
                if !state.unflushed.iter().any(|(known, _)| known == path) {
                    let flushed = fs::metadata(path).map_or(0, |facts| facts.len());
                    state.unflushed.push((path.to_owned(), flushed));
                }
            }
            FileStep::Flush => state.unflushed.retain(|(known, _)| known != path),
            FileStep::Rename(to) => {
                let rename = Name::Renamed(path.to_owned(), to.to_owned());
                state.names.push(rename);
            }
            FileStep::Remove => {
                // What is not there is not removed.
                if let Ok(bytes) = fs::read(path) {
                    state.unflushed.retain(|(known, _)| known != path);
                    state.names.push(Name::Removed(path.to_owned(), bytes));
                }
            }
            FileStep::FlushDirectory => state.names.retain(|name| name.directory() != Some(path)),
        }
        Ok(())
    }
}
