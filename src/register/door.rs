//! The door that every change to the files of the register and of snapshots goes through, so that a test can stop the
//! machine at any of them, or have it refused.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::sync_file_system;

/// What is about to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileStep<'a> {
    /// The directory is made.
    MakeDirectory,
    /// The file is made, empty.
    Make,
    /// Bytes are written to the file.
    Write,
    /// What was written to the file is brought to stable storage.
    Flush,
    /// The file is given this name.
    Rename(&'a Path),
    /// The file is removed.
    Remove,
    /// The directory's names are brought to stable storage.
    FlushDirectory,
}

/// Asked before each step; what it refuses is not done.
pub trait FileGate: Send + Sync {
    /// Lets the step through, or says why not.
    ///
    /// # Errors
    /// What the system is to have said.
    fn before(&self, step: FileStep<'_>, path: &Path) -> io::Result<()>;
}

/// The steps themselves, each after asking the gate, if there is one. A daemon has none.
#[derive(Clone, Default)]
pub struct FileDoor(Option<Arc<dyn FileGate>>);

impl std::fmt::Debug for FileDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FileDoor").field(&self.0.is_some()).finish()
    }
}

impl FileDoor {
    /// Nobody is asked.
    pub const OPEN: Self = Self(None);

    /// A door that asks `gate`.
    #[must_use]
    pub const fn with(gate: Option<Arc<dyn FileGate>>) -> Self {
        Self(gate)
    }

    fn ask(&self, step: FileStep<'_>, path: &Path) -> io::Result<()> {
        match &self.0 {
            Some(gate) => gate.before(step, path),
            None => Ok(()),
        }
    }

    /// Makes a directory and those above it, where they are not there, so that its name stays.
    ///
    /// # Errors
    /// As the system says; so of all that follow.
    pub fn make_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.ask(FileStep::MakeDirectory, path)?;
        fs::create_dir_all(path)?;
        path.parent().map_or(Ok(()), |above| self.flush_directory(above))
    }

    /// Makes an empty file.
    ///
    /// # Errors
    /// As the system says.
    pub fn make(&self, path: &Path) -> io::Result<File> {
        self.ask(FileStep::Make, path)?;
        File::create(path)
    }

    /// Asks before bytes are written, which the caller does.
    ///
    /// # Errors
    /// As the gate says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        self.ask(FileStep::Write, path)
    }

    /// Flushes a file.
    ///
    /// # Errors
    /// As the system says.
    pub fn flush(&self, file: &File, path: &Path) -> io::Result<()> {
        self.ask(FileStep::Flush, path)?;
        file.sync_all()
    }

    /// Flushes files of one file system, together where the kernel can; `opened` was opened on it before anything was written
    /// to them.
    ///
    /// # Errors
    /// As the system says, with the file that it was about.
    pub fn flush_together(&self, files: &[(File, PathBuf)], opened: &File) -> Result<(), (PathBuf, io::Error)> {
        for (_, path) in files {
            self.ask(FileStep::Flush, path).map_err(|error| (path.clone(), error))?;
        }
        let Some((_, first)) = files.first() else {
            return Ok(());
        };
        if sync_file_system(opened).map_err(|error| (first.clone(), error))? {
            return Ok(());
        }
        files
            .iter()
            .try_for_each(|(file, path)| file.sync_all().map_err(|error| (path.clone(), error)))
    }

    /// Renames a file.
    ///
    /// # Errors
    /// As the system says.
    pub fn rename(&self, path: &Path, to: &Path) -> io::Result<()> {
        self.ask(FileStep::Rename(to), path)?;
        fs::rename(path, to)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.ask(FileStep::Remove, path)?;
        fs::remove_file(path)
    }

    /// Flushes a directory's names.
    ///
    /// # Errors
    /// As the system says.
    pub fn flush_directory(&self, path: &Path) -> io::Result<()> {
        self.ask(FileStep::FlushDirectory, path)?;
        File::open(path)?.sync_all()
    }
}
