//! Reading the spool: everything that is read is checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use super::append::records_until;
use super::error::SettlementError;
use super::facts::{FinalPayment, Party, WindowFacts};
use super::layout::{FinalRecord, HEADER_BYTES, MovementRecord, PartyRecord, SpoolHeader, SpoolKind, SpoolRecord};
use crate::clearing::Engine;
use crate::domain::{Currency, ParticipantIndex, Position, Role, SchemeCode, WindowId};
use crate::wire::CoverMovement;

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;

/// A spool's directory.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    journal_id: [u8; 16],
}

impl Spool {
    /// The file of the movements of cover.
    pub(super) const MOVEMENTS: &str = "movements";

    /// The spool of this journal in `directory`.
    #[must_use]
    pub fn new(directory: &Path, journal_id: [u8; 16]) -> Self {
        Self {
            directory: directory.to_owned(),
            journal_id,
        }
    }

    pub(super) fn finals_path(&self, window: WindowId) -> PathBuf {
        self.directory.join(format!("{window}.finals"))
    }

    pub(super) fn facts_path(&self, window: WindowId) -> PathBuf {
        self.directory.join(format!("{window}.facts"))
    }

    pub(super) fn has_facts(&self, window: WindowId) -> bool {
        self.facts_path(window).exists()
    }

    /// The windows whose facts are there, in the order of their ids.
    ///
    /// # Errors
    /// The directory can't be listed.
    pub fn windows(&self) -> Result<Vec<WindowId>, SettlementError> {
        let refused = |source| SettlementError::system(&self.directory, "list the directory")(source);
        let mut windows = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(refused)? {
            let name = entry.map_err(refused)?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix('W')?.strip_suffix(".facts")?.parse().ok());
            windows.extend(number.map(WindowId));
        }
        windows.sort_unstable();
        Ok(windows)
    }

    /// A closed window's facts.
    ///
    /// # Errors
    /// They are not there, damaged or another journal's, or the system refuses something.
    pub fn facts(&self, window: WindowId) -> Result<WindowFacts, SettlementError> {
        let path = self.facts_path(window);
        let (header, mut records) = self.open::<PartyRecord>(&path, SpoolKind::Facts)?;
        let mut parties: Vec<Party> = Vec::with_capacity(header.records as usize);
        for _ in 0..header.records {
            let party = records.next().transpose()?.and_then(|record| record.party());
            parties.push(
                party.ok_or_else(|| SettlementError::damaged(&path, "a participant is missing or none that can be"))?,
            );
        }
        if records.next().is_some() || header.window != window {
            return Err(SettlementError::damaged(
                &path,
                "it is longer than it says, or another window's",
            ));
        }
        Ok(WindowFacts {
            window,
            currency: Currency(header.currency),
            scheme: header.scheme,
            journal_id: header.journal_id,
            opened: header.opened,
            closed: header.closed,
            close_event: header.close_event,
            finals: header.finals,
            committed: header.committed,
            gross_minor: Position::from_le_bytes(header.gross),
            parties,
        })
    }

    /// A closed window's payments, in the order of their events; an error where one is damaged, or their number is not what
    /// the facts say.
    ///
    /// # Errors
    /// The file is not there, damaged or another journal's, or the system refuses something.
    pub fn finals(&self, facts: &WindowFacts) -> Result<Finals, SettlementError> {
        let path = self.finals_path(facts.window);
        let (header, records) = self.open::<FinalRecord>(&path, SpoolKind::Finals)?;
        if header.window != facts.window {
            return Err(SettlementError::damaged(&path, "it is another window's"));
        }
        Ok(Finals {
            records,
            left: facts.finals,
            event: 0,
        })
    }

    /// All movements of cover since Genesis that are in the file, in the order of their events.
    ///
    /// # Errors
    /// As [`Spool::finals`].
    pub fn movements(&self) -> Result<Movements, SettlementError> {
        let path = self.directory.join(Self::MOVEMENTS);
        let (header, records) = self.open::<MovementRecord>(&path, SpoolKind::Movements)?;
        Ok(Movements {
            scheme: header.scheme,
            records,
            covers: BTreeMap::new(),
        })
    }

    /// How many payments of a window were filed up to an event, and what its header says.
    pub(super) fn filed_until(&self, window: WindowId, event: u64) -> Result<(SpoolHeader, u64), SettlementError> {
        let path = self.finals_path(window);
        let (header, records) = self.open::<FinalRecord>(&path, SpoolKind::Finals)?;
        let file = records.file.into_inner();
        let refused = |source| SettlementError::system(&path, "read the spool's file")(source);
        let length = file.metadata().map_err(refused)?.len();
        let filed = records_until::<FinalRecord>(&file, header.crc, length, event).map_err(refused)?;
        Ok((header, filed))
    }

    /// The movements must come to the covers that the engine has.
    pub(super) fn check_movements(&self, engine: &Engine) -> Result<(), SettlementError> {
        let mut movements = self.movements()?;
        movements.by_ref().try_for_each(|movement| movement.map(drop))?;
        for currency in engine.scheme().currencies.into_iter().filter(|&currency| currency != 0) {
            for (index, cover) in (0..).zip(engine.covers(Currency(currency))) {
                let key = (ParticipantIndex(index), currency);
                let moved = movements.covers.get(&key).copied().unwrap_or(0);
                if moved != cover {
                    let reason = format!(
                        "its movements come to a cover of {moved} of participant {index} in currency {currency:03}, and the \
                         engine has {cover}"
                    );
                    return Err(SettlementError::damaged(&self.directory.join(Self::MOVEMENTS), reason));
                }
            }
        }
        Ok(())
    }

    /// Removes a settled window's payments; its facts stay.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn remove_finals(
        &self,
        window: WindowId,
        door: &crate::register::FileDoor,
    ) -> Result<bool, SettlementError> {
        let path = self.finals_path(window);
        if !path.exists() {
            return Ok(false);
        }
        door.remove(&path)
            .map_err(SettlementError::system(&path, "remove the file"))?;
        Ok(true)
    }

    fn open<T: SpoolRecord>(&self, path: &Path, kind: SpoolKind) -> Result<(SpoolHeader, Records<T>), SettlementError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SettlementError::damaged(path, "the file is missing"));
            }
            opened => opened.map_err(SettlementError::system(path, "open the spool's file"))?,
        };
        let mut header = [0; HEADER_BYTES];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(SettlementError::damaged(path, "the file has lost its header"));
            }
            read => read.map_err(SettlementError::system(path, "read the spool's file"))?,
        }
        let header: SpoolHeader = bytemuck::pod_read_unaligned(&header);
        if let Some(fault) = header.fault(kind, self.journal_id) {
            return Err(SettlementError::damaged(path, fault));
        }
        let records = Records {
            path: path.to_owned(),
            file: BufReader::with_capacity(READ_BYTES, file),
            header_crc: header.crc,
            number: 0,
            kind: PhantomData,
        };
        Ok((header, records))
    }
}

/// The records of a file, each checked.
#[derive(Debug)]
struct Records<T> {
    path: PathBuf,
    file: BufReader<File>,
    header_crc: u32,
    number: u64,
    kind: PhantomData<T>,
}

impl<T: SpoolRecord> Iterator for Records<T> {
    type Item = Result<T, SettlementError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = T::zeroed();
        let mut bytes = bytemuck::bytes_of_mut(&mut record);
        let whole = bytes.len();
        while !bytes.is_empty() {
            match self.file.read(bytes) {
                Ok(0) => break,
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Some(Err(SettlementError::system(&self.path, "read the spool's file")(
                        source,
                    )));
                }
            }
        }
        let left = bytes.len();
        if left == whole {
            return None;
        }
        if left > 0 || !record.is_whole(self.header_crc, self.number) {
            let offset = HEADER_BYTES as u64 + self.number * whole as u64;
            let reason = format!("record {} at offset {offset} is damaged", self.number);
            return Some(Err(SettlementError::damaged(&self.path, reason)));
        }
        self.number += 1;
        Some(Ok(record))
    }
}

/// A closed window's payments.
#[derive(Debug)]
pub struct Finals {
    records: Records<FinalRecord>,
    left: u64,
    event: u64,
}

impl Iterator for Finals {
    type Item = Result<FinalPayment, SettlementError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.records.next() {
            Some(Ok(record)) => record,
            Some(Err(error)) => return Some(Err(error)),
            None if self.left == 0 => return None,
            None => {
                let left = std::mem::take(&mut self.left);
                let reason = format!("its last {left} payments are missing");
                return Some(Err(SettlementError::damaged(&self.records.path, reason)));
            }
        };
        if self.left == 0 || record.event < self.event {
            let reason = format!("payment {} is one too many, or out of order", record.entry.id);
            return Some(Err(SettlementError::damaged(&self.records.path, reason)));
        }
        (self.left, self.event) = (self.left - 1, record.event);
        Some(Ok(FinalPayment {
            event: record.event,
            entry: record.entry,
        }))
    }
}

/// The movements of cover.
#[derive(Debug)]
pub struct Movements {
    scheme: SchemeCode,
    records: Records<MovementRecord>,
    /// By participant and currency, after the movements that were read.
    covers: BTreeMap<(ParticipantIndex, u16), Position>,
}

impl Movements {
    /// The scheme's own code.
    #[must_use]
    pub const fn scheme(&self) -> SchemeCode {
        self.scheme
    }
}

impl Iterator for Movements {
    type Item = Result<(CoverMovement, SchemeCode, Role), SettlementError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.records.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let at = self.records.number - 1;
        let Some((movement, code, role)) = record.movement() else {
            let reason = format!("movement {at} is none that can be");
            return Some(Err(SettlementError::damaged(&self.records.path, reason)));
        };
        let cover = self
            .covers
            .entry((movement.participant, movement.currency.0))
            .or_insert(0);
        *cover += movement.change_minor;
        if *cover != movement.cover_minor {
            let reason = format!(
                "movement {at} comes to {cover} and says {}: one is missing",
                movement.cover_minor
            );
            return Some(Err(SettlementError::damaged(&self.records.path, reason)));
        }
        Some(Ok((movement, code, role)))
    }
}
