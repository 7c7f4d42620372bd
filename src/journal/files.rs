//! A journal read from its files: for replay, audit and tools. Read-only; nobody is kept out and nothing is changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};

use super::error::JournalError;
use super::layout::{Geometry, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, Seed, SegmentHeader};
use super::options::JournalOptions;
use super::scan::{Remains, Scan};
use super::segment::{list, segment_path};
use super::tail::Record;
use crate::domain::UtcNanos;

/// The segments of a journal, mapped.
#[derive(Debug)]
pub struct JournalFiles {
    directory: PathBuf,
    journal_id: [u8; 16],
    geometry: Geometry,
    segments: Vec<Mmap>,
}

impl JournalFiles {
    /// Maps the journal in `directory`.
    ///
    /// # Errors
    /// There is none, or a segment is not one of it.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        if !super::Journal::exists(directory) {
            return Err(JournalError::Absent {
                directory: directory.to_owned(),
            });
        }
        let count = list(directory)?;
        let first = first_header(directory)?;
        let mut files = Self {
            directory: directory.to_owned(),
            journal_id: first.journal_id,
            geometry: Geometry {
                segment_bytes: first.segment_bytes,
            },
            segments: Vec::new(),
        };
        for number in 0..count {
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

    /// The events in order, each checked, up to the last one that counts: the same that opening the journal would accept.
    /// Damage below what had been durable is the last item, as an error.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records {
            files: self,
            scan: Scan::new(self.geometry, Seed::new(self.journal_id)),
            ended: false,
        }
    }

    /// Where the journal ends, by reading all of it; at damage, where that begins.
    #[must_use]
    pub fn durable(&self) -> u64 {
        let mut records = self.records();
        while let Some(Ok(_)) = records.next() {}
        records.position()
    }

    fn map(&self, number: u64) -> Result<Mmap, JournalError> {
        let path = segment_path(&self.directory, number);
        let foreign = |reason: String| JournalError::SegmentForeign {
            file: path.clone(),
            reason,
        };
        let file = File::open(&path).map_err(JournalError::system(&path, "open the segment"))?;
        // SAFETY: segments are never truncated once they have their name; records that a running switch is writing while
        // they are read do not pass their CRC or do, and count in neither case before they are read again.
        let segment = unsafe { Mmap::map(&file) }.map_err(JournalError::system(&path, "map the segment"))?;
        let header = SegmentHeader::parse(&segment).map_err(|reason| foreign(reason.to_owned()))?;
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
        Ok(segment)
    }

    /// The error that a bad record at the scan's position is, if Group records behind it prove that it had been durable.
    fn damage(&self, scan: &Scan, reason: &'static str) -> Option<JournalError> {
        let geometry = self.geometry;
        let bad = geometry.segment_of(scan.position);
        let mut remains = Remains::default();
        for (number, segment) in (0..).zip(&self.segments).skip(bad as usize) {
            let from = scan.position.max(geometry.segment_start(number) + SEGMENT_HEADER_BYTES);
            remains.search(geometry, Seed::new(self.journal_id), segment, from);
        }
        let watermark = scan.watermark.max(remains.watermark);
        (watermark > scan.position).then(|| JournalError::Damaged {
            file: segment_path(&self.directory, bad),
            offset: geometry.offset(scan.position),
            position: scan.position,
            watermark,
            reason,
        })
    }
}

/// The events of a journal, in order; see [`JournalFiles::records`].
#[derive(Debug)]
pub struct Records<'a> {
    files: &'a JournalFiles,
    scan: Scan,
    ended: bool,
}

impl Records<'_> {
    /// The end of what was returned, with the Group and Pad records passed.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.scan.position
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let at = self.scan.position;
            let Some(segment) = self.files.segments.get(self.files.geometry.segment_of(at) as usize) else {
                break;
            };
            match self.scan.step(segment) {
                Ok((kind, header, offset)) if kind.is_event() => {
                    let payload = offset + RECORD_HEADER_BYTES as usize..offset + header.length as usize;
                    return Some(Ok(Record {
                        kind,
                        number: header.number,
                        time: UtcNanos(header.time_ns),
                        position: at + RECORD_HEADER_BYTES,
                        payload: &segment[payload],
                    }));
                }
                Ok(_) => {}
                Err(reason) => {
                    self.ended = true;
                    return self.files.damage(&self.scan, reason).map(Err);
                }
            }
        }
        self.ended = true;
        None
    }
}

/// The header of the first segment, which tells the journal's id and the length of its segments.
pub(super) fn first_header(directory: &Path) -> Result<SegmentHeader, JournalError> {
    use std::os::unix::fs::FileExt;
    let path = segment_path(directory, 0);
    let mut bytes = [0; size_of::<SegmentHeader>()];
    let file = File::open(&path).map_err(JournalError::system(&path, "open the segment"))?;
    file.read_exact_at(&mut bytes, 0)
        .map_err(JournalError::system(&path, "read the segment's header"))?;
    let foreign = |reason: String| JournalError::SegmentForeign {
        file: path.clone(),
        reason,
    };
    let header = SegmentHeader::parse(&bytes).map_err(|reason| foreign(reason.to_owned()))?;
    if !header.segment_bytes.is_power_of_two() || header.segment_bytes < JournalOptions::SEGMENT_BYTES_MIN {
        return Err(foreign(format!("segments of {} bytes cannot be", header.segment_bytes)));
    }
    Ok(header)
}
