//! A file of records that is only ever added to.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytemuck::Zeroable;

use super::error::SettlementError;
use super::layout::{HEADER_BYTES, SpoolHeader, SpoolKind, SpoolRecord};
use crate::domain::SchemeCode;
use crate::register::FileDoor;

/// Bytes written at a time.
pub(super) const WRITE_BYTES: usize = 256 * 1024;
/// Bytes that may wait for the disk: many at once would hold up the journal's own writes.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// Such a file. What was refused is still in memory, and is written to the same place the next time.
#[derive(Debug)]
pub(super) struct AppendFile {
    path: PathBuf,
    door: FileDoor,
    header_crc: u32,
    /// `None` until it is made.
    file: Option<File>,
    /// Bytes that are in the file.
    length: u64,
    buffer: Vec<u8>,
    records: u64,
    unsynced: u64,
    /// Something was written, or the file made, since it was flushed last.
    is_dirty: bool,
}

impl AppendFile {
    /// A file that is made, in place of what is there, with its first bytes.
    pub(super) fn begin(path: PathBuf, header: &SpoolHeader, door: &FileDoor) -> Self {
        let mut buffer = Vec::with_capacity(WRITE_BYTES + WRITE_BYTES / 4);
        buffer.extend_from_slice(bytemuck::bytes_of(header));
        Self {
            path,
            door: door.clone(),
            header_crc: header.crc,
            file: None,
            length: 0,
            buffer,
            records: 0,
            unsynced: 0,
            is_dirty: true,
        }
    }

    /// Goes on with a file: what it says of events behind `last_event` is cut off.
    ///
    /// # Errors
    /// The system refuses something, or it is not such a file.
    pub(super) fn resume<T: SpoolRecord>(
        path: PathBuf,
        kind: SpoolKind,
        journal_id: [u8; 16],
        last_event: u64,
        door: &FileDoor,
    ) -> Result<(Self, SpoolHeader), SettlementError> {
        let refused = |action| SettlementError::system(&path, action);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SettlementError::damaged(&path, "the file is missing"));
            }
            opened => opened.map_err(refused("open the spool's file"))?,
        };
        let length = file.metadata().map_err(refused("look at the spool's file"))?.len();
        if length < HEADER_BYTES as u64 {
            return Err(SettlementError::damaged(&path, "the file has lost its header"));
        }
        let mut header = SpoolHeader::new(kind, journal_id, SchemeCode::zeroed());
        file.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0)
            .map_err(refused("read the spool's file"))?;
        if let Some(fault) = header.fault(kind, journal_id) {
            return Err(SettlementError::damaged(&path, fault));
        }
        let records =
            records_until::<T>(&file, header.crc, length, last_event).map_err(refused("read the spool's file"))?;
        let kept = place_of::<T>(records);
        if kept < length {
            door.write(&path)
                .and_then(|()| file.set_len(kept))
                .map_err(refused("cut the spool's file"))?;
        }
        let resumed = Self {
            header_crc: header.crc,
            door: door.clone(),
            file: Some(file),
            length: kept,
            buffer: Vec::with_capacity(WRITE_BYTES + WRITE_BYTES / 4),
            records,
            unsynced: 0,
            is_dirty: kept < length,
            path,
        };
        Ok((resumed, header))
    }

    /// How many records it has, those in memory included.
    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    /// Adds the record that `make` makes of its number and of the header's CRC; true when there is enough to be written.
    #[inline]
    pub(super) fn push<T: SpoolRecord>(&mut self, make: impl FnOnce(u64, u32) -> T) -> bool {
        let record = make(self.records, self.header_crc);
        self.buffer.extend_from_slice(bytemuck::bytes_of(&record));
        self.records += 1;
        self.is_full()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= WRITE_BYTES
    }

    /// Writes what is in memory.
    ///
    /// # Errors
    /// The system refuses it; memory still holds everything.
    pub(super) fn write_out(&mut self) -> Result<(), SettlementError> {
        let refused = |action| SettlementError::system(&self.path, action);
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(self.door.make(&self.path).map_err(refused("make the spool's file"))?);
        }
        let Some(file) = &self.file else { return Ok(()) };
        self.is_dirty = true;
        self.door
            .write(&self.path)
            .and_then(|()| file.write_all_at(&self.buffer, self.length))
            .map_err(refused("write the spool's file"))?;
        self.length += self.buffer.len() as u64;
        self.unsynced += self.buffer.len() as u64;
        self.buffer.clear();
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.unsynced = 0;
            file.sync_data().map_err(refused("flush the spool's file"))?;
        }
        Ok(())
    }

    /// Brings all of it to stable storage, but for its name.
    ///
    /// # Errors
    /// The system refuses it; it may be tried again.
    pub(super) fn sync(&mut self) -> Result<(), SettlementError> {
        self.write_out()?;
        if let (Some(file), true) = (&self.file, self.is_dirty) {
            let flushed = self.door.flush(file, &self.path);
            flushed.map_err(SettlementError::system(&self.path, "flush the spool's file"))?;
            (self.is_dirty, self.unsynced) = (false, 0);
        }
        Ok(())
    }
}

/// How many records, from the first on, are of events up to `last_event`.
pub(super) fn records_until<T: SpoolRecord>(
    file: &File,
    header_crc: u32,
    length: u64,
    last_event: u64,
) -> std::io::Result<u64> {
    let (mut low, mut high) = (0, length.saturating_sub(HEADER_BYTES as u64) / size_of::<T>() as u64);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut record = T::zeroed();
        file.read_exact_at(bytemuck::bytes_of_mut(&mut record), place_of::<T>(middle))?;
        // What is not whole is the torn end; where it is damage, the counts do not come out.
        if record.is_whole(header_crc, middle) && record.event() <= last_event {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Where a record stands.
const fn place_of<T>(number: u64) -> u64 {
    HEADER_BYTES as u64 + number * size_of::<T>() as u64
}
