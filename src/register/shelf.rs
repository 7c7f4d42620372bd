//! A shelf: the runs of one kind of record, by day, and the newest records in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};

use super::block::{Filed, RegisterKey, RunHeader};
use super::door::FileDoor;
use super::error::RegisterError;
use super::merge::Merge;
use super::run::{Run, RunName};
use super::writer::RunWriter;
use crate::domain::BusinessDate;

/// What a shelf is opened with.
#[derive(Clone, Debug)]
pub struct ShelfOptions {
    /// The register's directory; made if it is not there.
    pub directory: PathBuf,
    /// The journal it belongs to.
    pub journal_id: [u8; 16],
    /// Records kept in memory before they are written out.
    pub records_in_memory: usize,
    /// So many runs of one rank are merged into one of the next.
    pub fan_in: usize,
    /// What its changes to files go through.
    pub door: FileDoor,
}

/// How many runs a day had when a snapshot was taken; merging never makes it fewer, as a merged run counts for its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Coverage {
    /// The day, yyyymmdd.
    pub date: u32,
    /// Its runs are numbered from 0 up to and without this.
    pub runs: u32,
}

#[derive(Debug, Default)]
struct Day {
    /// Oldest first, without a gap in their numbers.
    runs: Vec<Run>,
    next: u32,
}

struct Merging<T> {
    date: BusinessDate,
    merge: Merge<T>,
}

/// The runs of one kind of record.
pub struct Shelf<T> {
    options: ShelfOptions,
    memory: Vec<(BusinessDate, T)>,
    index: HashMap<RegisterKey, u32>,
    days: BTreeMap<BusinessDate, Day>,
    merging: Option<Merging<T>>,
    sealing: BTreeSet<BusinessDate>,
}

impl<T: Filed> std::fmt::Debug for Shelf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf")
            .field("directory", &self.options.directory)
            .field("in_memory", &self.memory.len())
            .field("days", &self.days)
            .finish_non_exhaustive()
    }
}

impl<T: Filed> Shelf<T> {
    /// Begins anew: what an earlier shelf left of this kind is removed.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn create(options: ShelfOptions) -> Result<Self, RegisterError> {
        for (_, path) in days_in(&options.directory)? {
            for (name, file) in files_in(&path)? {
                if RunName::parse(&name, T::NAME).is_some() {
                    options
                        .door
                        .remove(&file)
                        .map_err(RegisterError::system(&file, "remove the file"))?;
                }
            }
        }
        Self::open(options, &[], BusinessDate(u32::MAX))
    }

    /// Opens the shelf and checks that it has at least what `covered` says for days from `required_from` on.
    ///
    /// # Errors
    /// A run is missing, damaged or foreign, or the system refuses something.
    pub fn open(
        options: ShelfOptions,
        covered: &[Coverage],
        required_from: BusinessDate,
    ) -> Result<Self, RegisterError> {
        let directory = &options.directory;
        options
            .door
            .make_directory(directory)
            .map_err(RegisterError::system(directory, "make the directory"))?;
        let mut days = BTreeMap::new();
        for (date, path) in days_in(directory)? {
            let day = open_day::<T>(&path, &options)?;
            if !day.runs.is_empty() {
                days.insert(date, day);
            }
        }
        let shelf = Self {
            memory: Vec::with_capacity(options.records_in_memory),
            index: HashMap::with_capacity(options.records_in_memory),
            options,
            days,
            merging: None,
            sealing: BTreeSet::new(),
        };
        for cover in covered {
            let date = BusinessDate(cover.date);
            let has = shelf.days.get(&date).map_or(0, |day| day.next);
            if date >= required_from && has < cover.runs {
                return Err(RegisterError::Missing {
                    directory: shelf.day_path(date),
                    what: T::NAME,
                    first: has,
                    last: cover.runs - 1,
                });
            }
        }
        Ok(shelf)
    }

    /// Files a record under `date`; one with the same key is replaced.
    pub fn insert(&mut self, date: BusinessDate, record: &T) {
        let next = self.memory.len() as u32;
        let at = *self.index.entry(record.key()).or_insert(next);
        if at == next {
            self.memory.push((date, *record));
        } else {
            self.memory[at as usize] = (date, *record);
        }
    }

    /// True when memory holds as much as it may: the next thing to do is [`Shelf::flush`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.memory.len() >= self.options.records_in_memory
    }

    /// Writes what is in memory out as runs, one a day, durably.
    ///
    /// # Errors
    /// The system refuses it; memory still holds everything, and it may be tried again.
    pub fn flush(&mut self) -> Result<(), RegisterError> {
        if self.memory.is_empty() {
            return Ok(());
        }
        let mut order: Vec<u32> = (0..self.memory.len() as u32).collect();
        order.sort_unstable_by_key(|&at| {
            let (date, record) = &self.memory[at as usize];
            (*date, record.key())
        });
        let mut at = 0;
        while at < order.len() {
            let date = self.memory[order[at] as usize].0;
            let length = order[at..]
                .iter()
                .take_while(|&&place| self.memory[place as usize].0 == date)
                .count();
            self.write_run(date, &order[at..at + length])?;
            at += length;
        }
        self.memory.clear();
        self.index.clear();
        Ok(())
    }

    fn write_run(&mut self, date: BusinessDate, order: &[u32]) -> Result<(), RegisterError> {
        let directory = self.day_path(date);
        if !directory.is_dir() {
            let door = &self.options.door;
            door.make_directory(&directory)
                .map_err(RegisterError::system(&directory, "make the directory"))?;
        }
        let next = self.days.get(&date).map_or(0, |day| day.next);
        let name = RunName {
            first: next,
            last: next,
        };
        let path = directory.join(name.file(T::NAME));
        let mut writer = RunWriter::begin(path, self.header(date, name, 0), &self.options.door)?;
        for &place in order {
            writer.push(&self.memory[place as usize].1)?;
        }
        let run = writer.finish()?;
        let day = self.days.entry(date).or_default();
        day.runs.push(run);
        day.next = next + 1;
        Ok(())
    }

    /// The record with this key, filed under `date`.
    ///
    /// # Errors
    /// A run is damaged or can't be read.
    pub fn find(&self, date: BusinessDate, key: RegisterKey) -> Result<Option<T>, RegisterError> {
        if let Some(&at) = self.index.get(&key) {
            return Ok(Some(self.memory[at as usize].1));
        }
        let Some(day) = self.days.get(&date) else {
            return Ok(None);
        };
        for run in day.runs.iter().rev() {
            if let Some(record) = run.find(key)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The records of all days with keys from `from` up to and without `end`, in order, at most `limit`. The keys must be
    /// dense: it is done when there is one for each.
    ///
    /// # Errors
    /// A run is damaged or can't be read.
    pub fn range(&self, from: RegisterKey, end: RegisterKey, limit: usize) -> Result<Vec<T>, RegisterError> {
        let mut found = BTreeMap::new();
        let wanted = (end.low - from.low).min(limit as u64) as usize;
        let end = RegisterKey {
            low: from.low + wanted as u64,
            ..end
        };
        for low in from.low..end.low {
            let key = RegisterKey { low, ..from };
            if let Some(&at) = self.index.get(&key) {
                found.insert(key, self.memory[at as usize].1);
            }
        }
        for run in self.days.values().rev().flat_map(|day| day.runs.iter().rev()) {
            if found.len() == wanted {
                break;
            }
            for record in run.range::<T>(from, end, wanted)? {
                found.entry(record.key()).or_insert(record);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Asks for all runs of a day to be merged into one; [`Shelf::work`] does it.
    pub fn seal(&mut self, date: BusinessDate) {
        if !self.is_sealed(date) {
            self.sealing.insert(date);
        }
    }

    /// True when nothing of that day is in memory, and the day has one run at most or was sealed before.
    #[must_use]
    pub fn is_sealed(&self, date: BusinessDate) -> bool {
        let one = |day: &Day| day.runs.len() <= 1 || day.runs[0].rank() == RunHeader::SEALED;
        !self.has_in_memory(date) && self.days.get(&date).is_none_or(one)
    }

    /// True when something of that day is in memory.
    #[must_use]
    pub fn has_in_memory(&self, date: BusinessDate) -> bool {
        self.memory.iter().any(|(filed, _)| *filed == date)
    }

    /// The days of which there is something.
    #[must_use]
    pub fn days(&self) -> BTreeSet<BusinessDate> {
        let in_memory = self.memory.iter().map(|(date, _)| *date);
        self.days.keys().copied().chain(in_memory).collect()
    }

    /// Merges what is to be merged, at most about `records` of them; false when there was nothing to do.
    ///
    /// # Errors
    /// A run is damaged or the system refuses something; what was under way is given up, the runs stay as they were.
    pub fn work(&mut self, records: usize) -> Result<bool, RegisterError> {
        let mut merging = match self.merging.take() {
            Some(merging) => merging,
            None => match self.begin_merge()? {
                Some(merging) => merging,
                None => return Ok(false),
            },
        };
        if merging.merge.step(records)? {
            self.end_merge(merging)?;
        } else {
            self.merging = Some(merging);
        }
        Ok(true)
    }

    fn begin_merge(&mut self) -> Result<Option<Merging<T>>, RegisterError> {
        while let Some(date) = self.sealing.pop_first() {
            let Some(day) = self.days.get(&date).filter(|day| day.runs.len() > 1) else {
                continue;
            };
            return self.merge_of(date, &day.runs, RunHeader::SEALED).map(Some);
        }
        for (&date, day) in self.days.iter().rev() {
            let mut first = 0;
            while first < day.runs.len() {
                let rank = day.runs[first].rank();
                let same = day.runs[first..].iter().take_while(|run| run.rank() == rank).count();
                if same >= self.options.fan_in && rank < RunHeader::SEALED - 1 {
                    let runs = &day.runs[first..first + self.options.fan_in];
                    return self.merge_of(date, runs, rank + 1).map(Some);
                }
                first += same;
            }
        }
        Ok(None)
    }

    fn merge_of(&self, date: BusinessDate, runs: &[Run], rank: u32) -> Result<Merging<T>, RegisterError> {
        let name = RunName {
            first: runs[0].name().first,
            last: runs[runs.len() - 1].name().last,
        };
        let path = self.day_path(date).join(name.file(T::NAME));
        let merge = Merge::begin(runs, path, self.header(date, name, rank), &self.options.door)?;
        Ok(Merging { date, merge })
    }

    fn end_merge(&mut self, merging: Merging<T>) -> Result<(), RegisterError> {
        let Merging { date, merge } = merging;
        let name = merge.name;
        let merged = merge.finish()?;
        let Some(day) = self.days.get_mut(&date) else {
            return Ok(());
        };
        let first = day.runs.partition_point(|run| run.name().last < name.first);
        let end = day.runs.partition_point(|run| run.name().last <= name.last);
        let parts: Vec<Run> = day.runs.splice(first..end, [merged]).collect();
        for part in parts {
            // What stays after a crash here is known for a part by its numbers and removed at the next start.
            self.options
                .door
                .remove(part.path())
                .map_err(RegisterError::system(part.path(), "remove the merged file"))?;
        }
        Ok(())
    }

    /// Removes the days before `date`.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn expire(&mut self, date: BusinessDate) -> Result<usize, RegisterError> {
        let kept = self.days.split_off(&date);
        let expired = std::mem::replace(&mut self.days, kept);
        if self.merging.as_ref().is_some_and(|merging| merging.date < date) {
            self.merging = None;
        }
        self.sealing = self.sealing.split_off(&date);
        let days = expired.len();
        for (date, day) in expired {
            // The newest first: what a crash leaves has no gap, which would be taken for a lost file.
            for run in day.runs.iter().rev() {
                self.options
                    .door
                    .remove(run.path())
                    .map_err(RegisterError::system(run.path(), "remove the file"))?;
            }
            // The other kind's runs may still be in it.
            let _not_empty = fs::remove_dir(self.day_path(date));
        }
        Ok(days)
    }

    /// What a snapshot says of the runs it needs; call it after [`Shelf::flush`].
    #[must_use]
    pub fn coverage(&self) -> Vec<Coverage> {
        let covered = |(date, day): (&BusinessDate, &Day)| Coverage {
            date: date.0,
            runs: day.next,
        };
        self.days.iter().map(covered).collect()
    }

    /// Files and bytes on disk.
    #[must_use]
    pub fn disk_use(&self) -> (usize, u64) {
        let runs = self.days.values().flat_map(|day| &day.runs);
        runs.fold((0, 0), |(files, bytes), run| (files + 1, bytes + run.bytes()))
    }

    /// The runs, oldest day and oldest run first.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.days.values().flat_map(|day| &day.runs)
    }

    fn header(&self, date: BusinessDate, name: RunName, rank: u32) -> RunHeader {
        RunHeader {
            magic: RunHeader::MAGIC,
            version: RunHeader::VERSION,
            record_bytes: size_of::<T>() as u32,
            journal_id: self.options.journal_id,
            date: date.0,
            first: name.first,
            last: name.last,
            rank,
        }
    }

    fn day_path(&self, date: BusinessDate) -> PathBuf {
        self.options.directory.join(format!("{:08}", date.0))
    }
}

/// The days' directories.
fn days_in(directory: &Path) -> Result<Vec<(BusinessDate, PathBuf)>, RegisterError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let day = |(name, path): (String, PathBuf)| {
        let date = (name.len() == 8).then(|| name.parse().ok()).flatten()?;
        Some((BusinessDate(date), path))
    };
    Ok(files_in(directory)?.into_iter().filter_map(day).collect())
}

fn files_in(directory: &Path) -> Result<Vec<(String, PathBuf)>, RegisterError> {
    let refused = |source| RegisterError::system(directory, "list the directory")(source);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        if let Ok(name) = entry.file_name().into_string() {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

/// Opens a day's runs; what a crash left of a merge is removed.
fn open_day<T: Filed>(directory: &Path, options: &ShelfOptions) -> Result<Day, RegisterError> {
    let remove = |path: &Path| {
        let removed = options.door.remove(path);
        removed.map_err(RegisterError::system(path, "remove the left-over file"))
    };
    let mut names = Vec::new();
    for (file, path) in files_in(directory)? {
        if let Some(name) = RunName::parse(&file, T::NAME) {
            names.push((name, path));
        } else if file.starts_with(T::NAME) && file.ends_with(".new") {
            remove(&path)?;
        }
    }
    // The longest of those that begin with one number comes first, its parts behind it.
    names.sort_unstable_by_key(|(name, _)| (name.first, std::cmp::Reverse(name.last)));
    let mut day = Day::default();
    for (name, path) in names {
        if day.runs.last().is_some_and(|run| run.name().holds(&name)) {
            remove(&path)?;
            continue;
        }
        if name.first != day.next {
            return Err(RegisterError::Missing {
                directory: directory.to_owned(),
                what: T::NAME,
                first: day.next,
                last: name.first.saturating_sub(1),
            });
        }
        let run = Run::open::<T>(&path, options.journal_id)?;
        if run.name() != name {
            return Err(RegisterError::Foreign {
                file: path,
                reason: "the file has another run's name".to_owned(),
            });
        }
        day.next = name.last + 1;
        day.runs.push(run);
    }
    Ok(day)
}
