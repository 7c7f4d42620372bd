//! The directory of snapshots: writing the next, reading the newest that is good.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::error::SnapshotError;
use super::file::{BLOCK_BYTES, HASH_BYTES, HashingWriter, Header, SnapshotPoint, seal};
use super::reader::{BlockFile, SnapshotReader};
use crate::clearing::{Engine, StateHash};
use crate::register::{Coverage, FileDoor, RegisterCoverage};

/// Snapshots that are kept.
const KEPT: usize = 2;

/// The snapshots of one journal.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    directory: PathBuf,
    journal_id: [u8; 16],
    door: FileDoor,
}

/// A snapshot that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotFile {
    /// The last event in it.
    pub event: u64,
    /// The file.
    pub path: PathBuf,
}

/// What a snapshot gave.
#[derive(Debug)]
pub struct Loaded<E> {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The moment it holds.
    pub point: SnapshotPoint,
    /// The state.
    pub engine: E,
    /// The register's files that belong to it.
    pub coverage: RegisterCoverage,
}

impl SnapshotStore {
    /// The snapshots in `directory`, which need not be there yet.
    #[must_use]
    pub const fn new(directory: PathBuf, journal_id: [u8; 16]) -> Self {
        Self {
            directory,
            journal_id,
            door: FileDoor::OPEN,
        }
    }

    /// The same, with its changes to files through `door`.
    #[must_use]
    pub fn through(self, door: FileDoor) -> Self {
        Self { door, ..self }
    }

    /// The snapshots that are there, newest first.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn list(&self) -> Result<Vec<SnapshotFile>, SnapshotError> {
        if !self.directory.exists() {
            return Ok(Vec::new());
        }
        let refused = |source| SnapshotError::system(&self.directory, "list the directory")(source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let event = name.and_then(|name| name.strip_suffix(".snap")?.parse().ok());
            found.extend(event.map(|event| SnapshotFile { event, path }));
        }
        found.sort_unstable_by_key(|snapshot| std::cmp::Reverse(snapshot.event));
        Ok(found)
    }

    /// Writes a snapshot durably and gives its length; `save` writes the engine.
    ///
    /// # Errors
    /// The system refuses it; nothing is left behind then.
    pub fn write(
        &self,
        point: &SnapshotPoint,
        coverage: &RegisterCoverage,
        save: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, SnapshotError> {
        let directory = &self.directory;
        self.door
            .make_directory(directory)
            .map_err(SnapshotError::system(directory, "make the directory"))?;
        self.remove_unfinished()?;
        let path = self.path(point.event());
        let temporary = path.with_extension("new");
        let written = self.write_file(&temporary, point, coverage, save).and_then(|bytes| {
            self.door.rename(&temporary, &path)?;
            self.door.flush_directory(directory)?;
            Ok(bytes)
        });
        written.map_err(|source| {
            let _nothing_to_remove = self.door.remove(&temporary);
            SnapshotError::system(&temporary, "write the snapshot")(source)
        })
    }

    fn write_file(
        &self,
        temporary: &Path,
        point: &SnapshotPoint,
        coverage: &RegisterCoverage,
        save: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<u64> {
        use std::os::unix::fs::FileExt;
        let mut header = Header {
            magic: Header::MAGIC,
            version: Header::VERSION,
            crc: 0,
            journal_id: self.journal_id,
            event: point.event(),
            time_ns: point.start.last_time.0,
            position: point.start.position,
            engine_bytes: 0,
            state: point.state.0,
            payment_runs: coverage.payments.len() as u32,
            word_runs: coverage.words.len() as u32,
            epoch: point.start.epoch,
            reserved: [0; 5],
        };
        let mut file = self.door.make(temporary)?;
        self.door.write(temporary)?;
        // How long the engine is shows when it is written: the header comes last, and so does its hash.
        file.write_all(&[0; BLOCK_BYTES])?;
        let mut writer = HashingWriter::new(file);
        save(&mut writer)?;
        header.engine_bytes = writer.bytes;
        let header = header.sealed();
        writer.write_all(bytemuck::cast_slice(&coverage.payments))?;
        writer.write_all(bytemuck::cast_slice(&coverage.words))?;
        let hashes = writer.finish()?.to_vec();
        self.door.write(temporary)?;
        writer.file.write_all(hashes.as_flattened())?;
        writer.file.write_all(&seal(&header, &hashes))?;
        self.door.write(temporary)?;
        writer.file.write_all_at(&header.block(), 0)?;
        self.door.flush(&writer.file, temporary)?;
        Ok((BLOCK_BYTES + (hashes.len() + 1) * HASH_BYTES) as u64 + writer.bytes)
    }

    /// Reads the header of a snapshot and checks that the file is as long as it says.
    ///
    /// # Errors
    /// It is not usable, or can't be read.
    pub fn point(&self, path: &Path) -> Result<SnapshotPoint, SnapshotError> {
        Ok(self.begin(path)?.1.point())
    }

    fn begin(&self, path: &Path) -> Result<(BlockFile, Header), SnapshotError> {
        let cut_short = || SnapshotError::unusable(path, "the snapshot is cut short");
        let (file, block) = BlockFile::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_short(),
            _ => SnapshotError::system(path, "open the snapshot")(error),
        })?;
        let length = file.file.metadata();
        let length = length.map_err(SnapshotError::system(path, "read the snapshot's length"))?;
        let header = Header::parse(&block).map_err(|reason| SnapshotError::unusable(path, reason))?;
        if header.journal_id != self.journal_id {
            return Err(SnapshotError::unusable(path, "a snapshot of another journal"));
        }
        if header.file_bytes() != Some(length.len()) {
            return Err(cut_short());
        }
        Ok((file, header))
    }

    /// Reads a snapshot; `load` makes the engine of its bytes, `hash` tells the state's hash of what came of it.
    ///
    /// # Errors
    /// It is not usable, or can't be read.
    pub fn load<E>(
        &self,
        path: &Path,
        load: impl FnOnce(&mut SnapshotReader) -> Result<E, String>,
        hash: impl FnOnce(&E) -> StateHash,
    ) -> Result<Loaded<E>, SnapshotError> {
        let (file, header) = self.begin(path)?;
        let refused = || SnapshotError::system(path, "read the snapshot");
        let body = header.body_bytes().unwrap_or(0);
        let start = BLOCK_BYTES as u64;
        let end = start + body;
        let bytes = header.file_bytes().unwrap_or(0);
        let closing = file.range(end, bytes).map_err(refused())?;
        let mut hashes: Vec<[u8; HASH_BYTES]> = closing.as_chunks().0.to_vec();
        if hashes.pop() != Some(seal(&header, &hashes)) {
            return Err(SnapshotError::unusable(
                path,
                "the snapshot's BLAKE3 does not match its bytes",
            ));
        }
        let mut reader = SnapshotReader::new(file, start, hashes, body, threads()).map_err(refused())?;
        reader.allow(header.engine_bytes);
        let engine = load(&mut reader).map_err(|reason| SnapshotError::unusable(path, reason))?;
        // What the engine did not want to read belongs to the snapshot none the less.
        let mut rest = || -> io::Result<RegisterCoverage> {
            io::copy(&mut reader, &mut io::sink())?;
            let mut coverage = |runs: u32| -> io::Result<Vec<Coverage>> {
                let mut rows = vec![[0; size_of::<Coverage>()]; runs as usize];
                reader.allow(size_of_val(rows.as_slice()) as u64);
                reader.read_exact(rows.as_flattened_mut())?;
                Ok(rows.iter().map(|row| bytemuck::pod_read_unaligned(row)).collect())
            };
            Ok(RegisterCoverage {
                payments: coverage(header.payment_runs)?,
                words: coverage(header.word_runs)?,
            })
        };
        let coverage = rest().map_err(|error| SnapshotError::unusable(path, error))?;
        let point = header.point();
        let state = hash(&engine);
        if state != point.state {
            return Err(SnapshotError::unusable(
                path,
                format!("it leads to state {state} and was taken of state {}", point.state),
            ));
        }
        Ok(Loaded {
            path: path.to_owned(),
            bytes,
            point,
            engine,
            coverage,
        })
    }

    /// Reads a snapshot of the engine.
    ///
    /// # Errors
    /// It is not usable, or can't be read.
    pub fn load_engine(&self, path: &Path) -> Result<Loaded<Engine>, SnapshotError> {
        let load = |reader: &mut SnapshotReader| Engine::load(reader).map_err(|error| error.to_string());
        self.load(path, load, |engine| engine.state_hash_on(threads()))
    }

    /// Removes all but the newest two; gives the moments of those that are left, newest first.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn prune(&self) -> Result<Vec<SnapshotPoint>, SnapshotError> {
        let mut kept = Vec::new();
        for snapshot in self.list()? {
            if kept.len() < KEPT
                && let Ok(point) = self.point(&snapshot.path)
            {
                kept.push(point);
            } else if kept.len() == KEPT {
                self.door
                    .remove(&snapshot.path)
                    .map_err(SnapshotError::system(&snapshot.path, "remove the old snapshot"))?;
            }
        }
        Ok(kept)
    }

    /// Sets a snapshot aside that can't be used, for whoever wants to know why.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn set_aside(&self, path: &Path) -> Result<(), SnapshotError> {
        self.door
            .rename(path, &path.with_extension("bad"))
            .map_err(SnapshotError::system(path, "rename the bad snapshot"))
    }

    fn remove_unfinished(&self) -> Result<(), SnapshotError> {
        let refused = |source| SnapshotError::system(&self.directory, "list the directory")(source);
        for entry in fs::read_dir(&self.directory).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                self.door
                    .remove(&path)
                    .map_err(SnapshotError::system(&path, "remove the unfinished snapshot"))?;
            }
        }
        Ok(())
    }

    fn path(&self, event: u64) -> PathBuf {
        self.directory.join(format!("{event:018}.snap"))
    }
}

/// Threads that work on a snapshot that is read: a start has nothing else to do.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
