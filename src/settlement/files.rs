//! A directory of files that is there whole or not at all: written beside its final name, each file flushed, then renamed.
//!
//! Large files are streamed: their bytes are hashed and begun to be written to the disk as they come, so that the flush at
//! the end finds little left. Files stay open until they are flushed, for a failed write is told to who has them open; where
//! the process may not have so many, a file is flushed each time before it is closed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::error::SettlementError;
use super::merkle::{Digest, hex};
use super::sums;
use crate::agent::process::open_files_max;
use crate::domain::{BusinessDate, Currency, WindowId};
use crate::io::start_write_back;
use crate::register::FileDoor;

/// Files that wait to be flushed together.
const FLUSHED_TOGETHER: usize = 128;
/// The share of the files a process may have open that streamed ones take.
const OPEN_FILES_SHARE: u64 = 4;

/// Where settlement's files are.
#[derive(Clone, Debug)]
pub struct SettlementDirectory {
    path: PathBuf,
    door: FileDoor,
    /// In the names of what is being written: two that write at a time must not meet.
    mark: &'static str,
}

/// What to do where a directory of the name is there and has other files in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Leave it, and say so.
    Keep,
    /// Put the new one in its place.
    Replace,
}

/// What became of a directory that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Where it is.
    pub directory: PathBuf,
    /// True where the same files were there already; they were left as they are.
    pub was_there: bool,
    /// How many files, `SHA256SUMS` among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What writing them took.
    pub times: FileTimes,
}

/// Time spent on files.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FileTimes {
    /// Hashing their bytes.
    pub hashing: Duration,
    /// Handing bytes to the kernel.
    pub writing: Duration,
    /// Waiting until they are on the disk.
    pub syncing: Duration,
}

impl SettlementDirectory {
    /// `settlement/` at this path; it is made when something is written.
    #[must_use]
    pub const fn new(path: PathBuf, door: FileDoor) -> Self {
        Self { path, door, mark: "" }
    }

    /// The same, for who writes offline, perhaps beside a running switch.
    #[must_use]
    pub const fn offline(path: PathBuf) -> Self {
        Self {
            path,
            door: FileDoor::OPEN,
            mark: "offline.",
        }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A window's directory.
    #[must_use]
    pub fn window(&self, window: WindowId) -> PathBuf {
        self.path.join(window.to_string())
    }

    /// The directory of a business day and currency.
    #[must_use]
    pub fn day(&self, date: BusinessDate, currency: Currency) -> PathBuf {
        self.path
            .join("day")
            .join(format!("{:08}-{}", date.0, currency.alphabetic()))
    }

    /// Begins to write `directory`, one of [`SettlementDirectory::window`] or [`SettlementDirectory::day`]. What a crash left
    /// of an earlier attempt is removed.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn begin(&self, directory: PathBuf) -> Result<Draft, SettlementError> {
        let beside = |end: &str| {
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            directory.with_file_name(format!(".{name}.{}{end}", self.mark))
        };
        let above = directory.parent().unwrap_or(&self.path).to_owned();
        let made = self.door.make_directory(&above);
        made.map_err(SettlementError::system(&above, "make the directory"))?;
        let draft = Draft {
            temporary: beside("tmp"),
            replaced: beside("old"),
            directory,
            door: self.door.clone(),
            opened: File::open(&above).map_err(SettlementError::system(&above, "open the directory"))?,
            written: BTreeMap::new(),
            directories: Vec::new(),
            unflushed: Vec::new(),
            streams_open: 0,
            streams_open_max: open_files_max() / OPEN_FILES_SHARE,
            bytes: 0,
            times: FileTimes::default(),
            published: false,
        };
        // A crash between the two renames of a replacement left the old one under this name alone.
        if draft.replaced.is_dir() && !draft.directory.is_dir() {
            draft.rename(&draft.replaced, &draft.directory)?;
        }
        draft.remove(&draft.temporary)?;
        draft.remove(&draft.replaced)?;
        let made = draft.door.make_directory(&draft.temporary);
        made.map_err(SettlementError::system(&draft.temporary, "make the directory"))?;
        Ok(draft)
    }
}

/// A directory that is being written. Dropped unpublished it is removed again, as far as the system lets it.
#[derive(Debug)]
pub struct Draft {
    directory: PathBuf,
    temporary: PathBuf,
    replaced: PathBuf,
    door: FileDoor,
    /// The directory above: who opened it before the first write is told of each that fails.
    opened: File,
    written: BTreeMap<String, Digest>,
    /// Directories made within.
    directories: Vec<PathBuf>,
    unflushed: Vec<(File, PathBuf)>,
    streams_open: u64,
    streams_open_max: u64,
    bytes: u64,
    times: FileTimes,
    published: bool,
}

/// A file of a [`Draft`] that is written piece by piece.
#[derive(Debug)]
pub struct Stream {
    name: String,
    path: PathBuf,
    file: Option<File>,
    hash: Sha256,
    bytes: u64,
}

impl Stream {
    /// Bytes written so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Draft {
    /// Where it will be.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What writing took so far.
    #[must_use]
    pub const fn times(&self) -> FileTimes {
        self.times
    }

    /// Lets so many streamed files stay open.
    #[cfg(test)]
    pub(super) const fn keep_open(&mut self, files: u64) {
        self.streams_open_max = files;
    }

    /// Writes a file; `name` may have one directory in it. Returns the hash of its bytes.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<Digest, SettlementError> {
        let mut stream = self.stream(name)?;
        self.append(&mut stream, bytes)?;
        self.finish(stream)
    }

    /// Begins a file; it is made with its first bytes.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn stream(&mut self, name: &str) -> Result<Stream, SettlementError> {
        let path = self.temporary.join(name);
        if let Some(above) = path.parent().filter(|&above| above != self.temporary)
            && !self.directories.iter().any(|made| made == above)
        {
            let made = self.door.make_directory(above);
            made.map_err(SettlementError::system(above, "make the directory"))?;
            self.directories.push(above.to_owned());
        }
        Ok(Stream {
            name: name.to_owned(),
            path,
            file: None,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Appends to a file, and begins to bring the bytes to the disk.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn append(&mut self, stream: &mut Stream, bytes: &[u8]) -> Result<(), SettlementError> {
        let refused = |action| SettlementError::system(&stream.path, action);
        let started = Instant::now();
        stream.hash.update(bytes);
        let hashed = Instant::now();
        self.times.hashing += hashed - started;
        let mut file = match stream.file.take() {
            Some(file) => file,
            None if stream.bytes == 0 => {
                self.streams_open += 1;
                self.door.make(&stream.path).map_err(refused("make the file"))?
            }
            None => {
                self.streams_open += 1;
                let opened = OpenOptions::new().append(true).open(&stream.path);
                opened.map_err(refused("open the file again"))?
            }
        };
        let written = self.door.write(&stream.path).and_then(|()| file.write_all(bytes));
        written.map_err(refused("write to the file"))?;
        start_write_back(&file).map_err(refused("write the file to the disk"))?;
        self.times.writing += hashed.elapsed();
        stream.bytes += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        if self.streams_open > self.streams_open_max {
            self.streams_open -= 1;
            self.flush_later(file, stream.path.clone())?;
        } else {
            stream.file = Some(file);
        }
        Ok(())
    }

    /// Ends a file. Returns the hash of its bytes.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn finish(&mut self, mut stream: Stream) -> Result<Digest, SettlementError> {
        if stream.bytes == 0 {
            self.append(&mut stream, &[])?;
        }
        if let Some(file) = stream.file {
            self.streams_open -= 1;
            self.flush_later(file, stream.path)?;
        }
        let digest = stream.hash.finalize().into();
        self.written.insert(stream.name, digest);
        Ok(digest)
    }

    fn flush_later(&mut self, file: File, path: PathBuf) -> Result<(), SettlementError> {
        self.unflushed.push((file, path));
        if self.unflushed.len() < FLUSHED_TOGETHER {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), SettlementError> {
        let started = Instant::now();
        let flushed = self.door.flush_together(&self.unflushed, &self.opened);
        flushed.map_err(|(path, source)| SettlementError::system(&path, "flush the file")(source))?;
        self.unflushed.clear();
        self.times.syncing += started.elapsed();
        Ok(())
    }

    /// Writes `SHA256SUMS`, flushes what is not flushed yet and gives the directory its name.
    ///
    /// # Errors
    /// The system refuses something; or, with [`Existing::Keep`], other files are there.
    pub fn publish(mut self, existing: Existing) -> Result<Publication, SettlementError> {
        let sums = sums::text(self.written.iter().map(|(name, digest)| (name.as_str(), hex(digest))));
        self.write(sums::FILE, sums.as_bytes())?;
        self.flush()?;
        let started = Instant::now();
        for directory in self.directories.iter().chain([&self.temporary]) {
            let flushed = self.door.flush_directory(directory);
            flushed.map_err(SettlementError::system(directory, "flush the directory"))?;
        }
        let is_there = self.directory.is_dir();
        let mut differing = if is_there { self.differing()? } else { Vec::new() };
        if is_there && fs::read(self.directory.join(sums::FILE)).ok().as_deref() != Some(sums.as_bytes()) {
            differing.push(sums::FILE.to_owned());
        }
        if is_there && differing.is_empty() {
            // Whoever gave it its name may have ended before that was on the disk.
            if let Some(above) = self.directory.parent() {
                let flushed = self.door.flush_directory(above);
                flushed.map_err(SettlementError::system(above, "flush the directory"))?;
            }
            self.remove(&self.temporary)?;
        } else if is_there && existing == Existing::Keep {
            return Err(SettlementError::Occupied {
                directory: self.directory.clone(),
                names: sums::shortened(&differing),
            });
        } else {
            if is_there {
                self.rename(&self.directory, &self.replaced)?;
            }
            self.rename(&self.temporary, &self.directory)?;
            self.remove(&self.replaced)?;
        }
        self.published = true;
        self.times.syncing += started.elapsed();
        Ok(Publication {
            directory: self.directory.clone(),
            was_there: is_there && differing.is_empty(),
            files: self.written.len() as u64,
            bytes: self.bytes,
            times: self.times,
        })
    }

    /// The files of the directory that is there which are not as they were written now.
    fn differing(&self) -> Result<Vec<String>, SettlementError> {
        let there = sums::of_files(&self.directory)?;
        Ok(sums::differing(&self.written, &there))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), SettlementError> {
        let renamed = self.door.rename(from, to);
        renamed.map_err(SettlementError::system(from, "give the directory its name"))?;
        let Some(above) = to.parent() else { return Ok(()) };
        let flushed = self.door.flush_directory(above);
        flushed.map_err(SettlementError::system(above, "flush the directory"))
    }

    /// Removes a directory, if it is there.
    fn remove(&self, directory: &Path) -> Result<(), SettlementError> {
        if !directory.exists() {
            return Ok(());
        }
        let removed = self.remove_files(directory);
        removed.map_err(SettlementError::system(directory, "remove the directory"))
    }

    fn remove_files(&self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.remove_files(&entry.path())?;
            } else {
                self.door.remove(&entry.path())?;
            }
        }
        fs::remove_dir(directory)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            self.unflushed.clear();
            // What stays is removed when the directory is begun again.
            let _ = self.remove(&self.temporary);
        }
    }
}
