//! A journal read from its files: for replay, audit and tools. Read-only; nobody is kept out and nothing is changed.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};

use super::batch::copy_record;
use super::directory::{list, segment_path};
use super::error::JournalError;
use super::layout::{Geometry, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, Seed, SegmentHeader};
use super::options::{JournalOptions, JournalStart};
use super::scan::{Remains, Scan};
use super::tail::Record;
use crate::domain::UtcNanos;
use crate::wire::RecordKind;

/// The segments of a journal, mapped. Older ones may have been archived and removed: then it begins with a later one.
#[derive(Debug)]
pub struct JournalFiles {
    directory: PathBuf,
    journal_id: [u8; 16],
    geometry: Geometry,
    /// The number of the first segment.
    first: u64,
    segments: Vec<MappedSegment>,
}

#[derive(Debug)]
struct MappedSegment {
    bytes: Mmap,
    /// Which file it is, whatever its name becomes.
    inode: u64,
}

impl JournalFiles {
    /// Maps the journal in `directory`.
    ///
    /// # Errors
    /// There is none, or a segment is not one of it.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        let absent = || JournalError::Absent {
            directory: directory.to_owned(),
        };
        if !directory.is_dir() {
            return Err(absent());
        }
        let mut numbers = list(directory)?;
        if numbers.is_empty() {
            return Err(absent());
        }
        loop {
            let refused = match Self::map_all(directory, numbers.clone()) {
                Ok(files) => return Ok(files),
                Err(refused) => refused,
            };
            // A running switch lets go of the first ones, perhaps between the two looks.
            let now = list(directory)?;
            if now.start <= numbers.start {
                return Err(refused);
            }
            numbers = now;
        }
    }

    fn map_all(directory: &Path, numbers: Range<u64>) -> Result<Self, JournalError> {
        let header = header_of(directory, numbers.start)?;
        let mut files = Self {
            directory: directory.to_owned(),
            journal_id: header.journal_id,
            geometry: Geometry {
                segment_bytes: header.segment_bytes,
            },
            first: numbers.start,
            segments: Vec::new(),
        };
        for number in numbers {
            let segment = files.map(number)?;
            files.segments.push(segment);
        }
        Ok(files)
    }

    /// The journal's identity, given at its creation.
    #[must_use]
    pub const fn journal_id(&self) -> [u8; 16] {
        self.journal_id
    }

    /// The length of a segment.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.geometry.segment_bytes
    }

    /// How many segments there are, prepared ones included.
    #[must_use]
    pub fn segment_count(&self) -> u64 {
        self.segments.len() as u64
    }

    /// The numbers of the segments that are there, prepared ones included.
    #[must_use]
    pub fn segment_numbers(&self) -> Range<u64> {
        self.first..self.first + self.segment_count()
    }

    /// The events that are kept in order, each checked, up to the last one that counts: the same that opening the journal
    /// would accept. Damage below what had been durable is the last item, as an error.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records { walk: self.walk() }
    }

    /// The events from `start` on; [`JournalStart::BEGINNING`] for who needs all there ever were.
    ///
    /// # Errors
    /// [`JournalError::NotKept`]: it lies before the first segment that is there.
    pub fn records_from(&self, start: &JournalStart) -> Result<Records<'_>, JournalError> {
        Ok(Records {
            walk: self.walk_at(start)?,
        })
    }

    /// As [`JournalFiles::records_from`], with the Group and Pad records between the events.
    ///
    /// # Errors
    /// [`JournalError::NotKept`]: it lies before the first segment that is there.
    pub fn walk_at(&self, start: &JournalStart) -> Result<Walk<'_>, JournalError> {
        if self.geometry.segment_of(start.position) < self.first {
            return Err(JournalError::NotKept {
                directory: self.directory.clone(),
                position: start.position,
                first_segment: self.first,
            });
        }
        let scan = Scan::starting_at(self.geometry, Seed::new(self.journal_id), start);
        Ok(self.walk_from(WalkEnd(scan)))
    }

    /// As [`JournalFiles::records`], with the Group and Pad records between the events.
    #[must_use]
    pub fn walk(&self) -> Walk<'_> {
        Walk {
            files: self,
            scan: self.new_scan(),
            ended: false,
        }
    }

    /// A walk that comes to event `number`, from not long before it: from the beginning of the last segment that begins
    /// at or before it and that all before is proved to have been durable by. What lies before is not looked at.
    #[must_use]
    pub fn walk_near(&self, number: u64) -> Walk<'_> {
        // Segments that hold records come before those that don't; damage may hide some, and leads further back.
        let numbers = self.segment_numbers();
        let (mut begins_before, mut end) = (numbers.start, numbers.end);
        while end - begins_before > 1 {
            let middle = begins_before + (end - begins_before) / 2;
            if self.first_number(middle).is_some_and(|first| first <= number) {
                begins_before = middle;
            } else {
                end = middle;
            }
        }
        let proved = (numbers.start + 1..=begins_before)
            .rev()
            .find_map(|segment| self.proved_scan(segment));
        proved.map_or_else(|| self.walk(), |scan| self.walk_from(WalkEnd(scan)))
    }

    /// The number of the first record in segment `number`: the event's, or the next event's. None if there is none.
    fn first_number(&self, number: u64) -> Option<u64> {
        let segment = self.segment(number)?;
        let mut scan = Scan::of_segment(self.geometry, Seed::new(self.journal_id), number, segment);
        scan.step(segment).ok().map(|(_, header, _)| header.number)
    }

    /// A scan that stands at the first record of segment `number`, if a Group record in it states all before as durable:
    /// else what is there may be left from a write of which the beginning is lost.
    fn proved_scan(&self, number: u64) -> Option<Scan> {
        let segment = self.segment(number)?;
        let begin = Scan::of_segment(self.geometry, Seed::new(self.journal_id), number, segment);
        let mut scan = begin.clone();
        while scan.watermark < self.geometry.segment_start(number) {
            if self.geometry.segment_of(scan.position) != number {
                return None;
            }
            scan.step(segment).ok()?;
        }
        Some(begin)
    }

    /// Goes on where a walk through an earlier look at this journal, [`Walk::end`], had come to: what a running switch has
    /// written since comes next.
    #[must_use]
    pub fn walk_from(&self, end: WalkEnd) -> Walk<'_> {
        Walk {
            files: self,
            scan: end.0,
            ended: false,
        }
    }

    /// Maps the segments that a running switch has made since.
    ///
    /// # Errors
    /// A segment is not one of this journal.
    pub fn map_new_segments(&mut self) -> Result<(), JournalError> {
        for number in self.segment_numbers().end..list(&self.directory)?.end {
            let segment = self.map(number)?;
            self.segments.push(segment);
        }
        Ok(())
    }

    /// Where the journal ends, by reading all of it; at damage, where that begins.
    #[must_use]
    pub fn durable(&self) -> u64 {
        let mut records = self.records();
        while let Some(Ok(_)) = records.next() {}
        records.position()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A scan that stands at the first record that is kept.
    pub(super) fn new_scan(&self) -> Scan {
        let seed = Seed::new(self.journal_id);
        match self.segment(self.first) {
            Some(segment) if self.first > 0 => Scan::of_segment(self.geometry, seed, self.first, segment),
            _ => Scan::starting_at(self.geometry, seed, &JournalStart::BEGINNING),
        }
    }

    pub(super) const fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(super) fn segment(&self, number: u64) -> Option<&[u8]> {
        let index = number.checked_sub(self.first)?;
        self.segments.get(index as usize).map(|segment| &segment.bytes[..])
    }

    /// What lies in segment `number` behind `position`.
    pub(super) fn remains(&self, number: u64, position: u64) -> Remains {
        let mut remains = Remains::default();
        if let Some(segment) = self.segment(number) {
            let from = position.max(self.geometry.segment_start(number) + SEGMENT_HEADER_BYTES);
            remains.search(self.geometry, Seed::new(self.journal_id), segment, from);
        }
        remains
    }

    fn map(&self, number: u64) -> Result<MappedSegment, JournalError> {
        let path = segment_path(&self.directory, number);
        let foreign = |reason: String| JournalError::SegmentForeign {
            file: path.clone(),
            reason,
        };
        let file = File::open(&path).map_err(JournalError::system(&path, "open the segment"))?;
        let inode = file
            .metadata()
            .map_err(JournalError::system(&path, "look at the segment"))?
            .ino();
        // SAFETY: nobody makes a segment's file shorter, whatever its name has become: it is written in place or unlinked,
        // so that the pages stay. Its bytes change while a running switch writes records, which do not pass their CRC or
        // do and are looked at again, and when it uses the file as a later segment: who relies on more than a look beside
        // a running switch has them copied before they are checked (`RecordBatch`).
        let segment = unsafe { Mmap::map(&file) }.map_err(JournalError::system(&path, "map the segment"))?;
        let header = SegmentHeader::parse(&segment).map_err(foreign)?;
        if header.journal_id != self.journal_id || header.number != number {
            return Err(foreign(
                "the segment belongs to another journal or another place in it".to_owned(),
            ));
        }
        if header.segment_bytes != self.geometry.segment_bytes || segment.len() as u64 != header.segment_bytes {
            return Err(foreign(format!(
                "the segment is {} bytes long where {} are expected",
                segment.len(),
                self.geometry.segment_bytes
            )));
        }
        // Only advice: reading ahead is lost where it is refused.
        let _refused = segment.advise(Advice::Sequential);
        Ok(MappedSegment { bytes: segment, inode })
    }

    /// The error that the running switch has removed segment `number` or used it again since it was mapped, if it has.
    pub(super) fn gone(&self, number: u64) -> Option<JournalError> {
        let mapped = self.segments.get(number.checked_sub(self.first)? as usize)?;
        let is_there =
            std::fs::metadata(segment_path(&self.directory, number)).is_ok_and(|facts| facts.ino() == mapped.inode);
        (!is_there).then(|| JournalError::NotKept {
            directory: self.directory.clone(),
            position: self.geometry.segment_start(number),
            first_segment: list(&self.directory).map_or(number + 1, |kept| kept.start),
        })
    }

    /// The error that a bad record at the scan's position is, if Group records behind it prove that it had been durable.
    fn damage(&self, scan: &Scan, reason: &'static str) -> Option<JournalError> {
        let behind = (self.geometry.segment_of(scan.position)..self.segment_numbers().end)
            .map(|number| self.remains(number, scan.position).watermark);
        self.damage_at(scan, behind.max().unwrap_or(0), reason)
    }

    /// The same, with what the Group records behind state at most.
    pub(super) fn damage_at(&self, scan: &Scan, stated_behind: u64, reason: &'static str) -> Option<JournalError> {
        let watermark = scan.watermark.max(stated_behind);
        (watermark > scan.position).then(|| JournalError::Damaged {
            file: segment_path(&self.directory, self.geometry.segment_of(scan.position)),
            offset: self.geometry.offset(scan.position),
            position: scan.position,
            watermark,
            reason,
        })
    }
}

/// The events of a journal, in order; see [`JournalFiles::records`].
#[derive(Debug)]
pub struct Records<'a> {
    walk: Walk<'a>,
}

impl Records<'_> {
    /// The end of what was returned, with the Group and Pad records passed.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.walk.scan.position
    }

    /// The same as a place to begin at.
    #[must_use]
    pub const fn here(&self) -> JournalStart {
        self.walk.scan.here()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, JournalError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.walk.next()? {
                Ok(walked) if !walked.record.kind.is_event() => {}
                walked => return Some(walked.map(|walked| walked.record)),
            }
        }
    }
}

/// A record as it lies in the files, whatever its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walked<'a> {
    /// The record; a Group or Pad record has the number of the next event.
    pub record: Record<'a>,
    /// The start of the switch that wrote it, from 1.
    pub epoch: u32,
}

/// Where a [`Walk`] has come to.
#[derive(Clone, Debug)]
pub struct WalkEnd(Scan);

impl WalkEnd {
    /// The highest position that a Group record up to here states as durable.
    #[must_use]
    pub const fn watermark(&self) -> u64 {
        self.0.watermark
    }
}

/// Every record of a journal, in order; see [`JournalFiles::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    files: &'a JournalFiles,
    scan: Scan,
    ended: bool,
}

impl Walk<'_> {
    /// Where it has come to, to go on later.
    #[must_use]
    pub fn end(&self) -> WalkEnd {
        WalkEnd(self.scan.clone())
    }

    /// The end of what was returned.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.scan.position
    }

    /// The number that the next event must have.
    #[must_use]
    pub const fn next_event(&self) -> u64 {
        self.scan.next_event
    }

    /// Copies the next record to the beginning of `out`, which has room for any, and checks the copy. Returns its kind and
    /// header, and where it lies in the journal; otherwise as [`Walk::next`].
    #[inline]
    pub(super) fn copy_next(
        &mut self,
        out: &mut [u8],
    ) -> Option<Result<(RecordKind, RecordHeader, u64), JournalError>> {
        loop {
            if self.ended {
                return None;
            }
            let at = self.scan.position;
            let Some(segment) = self.files.segment(self.files.geometry.segment_of(at)) else {
                self.ended = true;
                return None;
            };
            let length = copy_record(segment, self.files.geometry.offset(at) as usize, out);
            match self.scan.step_at(&out[..length], 0) {
                Ok((kind, header, _)) => return Some(Ok((kind, header, at))),
                Err(reason) => match self.ended_by(reason)? {
                    Ok(()) => {}
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    /// What a bad record at the scan's position means: `None`, the journal ends there; an error, it was lost; else it is
    /// there now.
    #[cold]
    fn ended_by(&mut self, reason: &'static str) -> Option<Result<(), JournalError>> {
        self.ended = true;
        let number = self.files.geometry.segment_of(self.scan.position);
        if let Some(gone) = self.files.gone(number) {
            return Some(Err(gone));
        }
        let damage = self.files.damage(&self.scan, reason)?;
        // A running switch may have written the record, and the Group record behind it, between the two looks.
        if self.scan.clone().step(self.files.segment(number)?).is_ok() {
            self.ended = false;
            return Some(Ok(()));
        }
        Some(Err(damage))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Walked<'a>, JournalError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let at = self.scan.position;
        let Some(segment) = self.files.segment(self.files.geometry.segment_of(at)) else {
            self.ended = true;
            return None;
        };
        match self.scan.step(segment) {
            Ok((kind, header, offset)) => {
                let payload = offset + RECORD_HEADER_BYTES as usize..offset + header.length as usize;
                Some(Ok(Walked {
                    record: Record {
                        kind,
                        number: header.number,
                        time: UtcNanos(header.time_ns),
                        position: at + RECORD_HEADER_BYTES,
                        payload: &segment[payload],
                    },
                    epoch: header.epoch,
                }))
            }
            Err(reason) => self
                .ended_by(reason)?
                .map_or_else(|error| Some(Err(error)), |()| self.next()),
        }
    }
}

/// The header of segment `number`, which tells the journal's id and the length of its segments.
pub(super) fn header_of(directory: &Path, number: u64) -> Result<SegmentHeader, JournalError> {
    use std::os::unix::fs::FileExt;
    let path = segment_path(directory, number);
    let mut bytes = [0; size_of::<SegmentHeader>()];
    let file = File::open(&path).map_err(JournalError::system(&path, "open the segment"))?;
    file.read_exact_at(&mut bytes, 0)
        .map_err(JournalError::system(&path, "read the segment's header"))?;
    let foreign = |reason: String| JournalError::SegmentForeign {
        file: path.clone(),
        reason,
    };
    let header = SegmentHeader::parse(&bytes).map_err(foreign)?;
    if !header.segment_bytes.is_power_of_two() || header.segment_bytes < JournalOptions::SEGMENT_BYTES_MIN {
        return Err(foreign(format!("segments of {} bytes cannot be", header.segment_bytes)));
    }
    Ok(header)
}
