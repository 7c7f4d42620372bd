//! Merging runs, a slice at a time, so that the thread that does it is never away for long.

use super::block::{Filed, RunHeader};
use super::door::FileDoor;
use super::error::RegisterError;
use super::reader::RunReader;
use super::run::{Run, RunName};
use super::writer::RunWriter;

/// Runs that are being merged into one.
pub(super) struct Merge<T> {
    /// Oldest first; each with the record it stands at.
    parts: Vec<(RunReader<T>, Option<T>)>,
    writer: RunWriter<T>,
    /// The place of the result.
    pub(super) name: RunName,
}

impl<T: Filed> Merge<T> {
    /// Begins to merge `runs`, oldest first, into the run that `header` describes.
    pub(super) fn begin(
        runs: &[Run],
        path: std::path::PathBuf,
        header: RunHeader,
        door: &FileDoor,
    ) -> Result<Self, RegisterError> {
        let mut parts = Vec::with_capacity(runs.len());
        for run in runs {
            let mut reader = RunReader::new(run)?;
            let head = reader.next()?;
            parts.push((reader, head));
        }
        Ok(Self {
            parts,
            writer: RunWriter::begin(path, header, door)?,
            name: RunName {
                first: header.first,
                last: header.last,
            },
        })
    }

    /// Merges at most so many records; true when nothing is left.
    pub(super) fn step(&mut self, records: usize) -> Result<bool, RegisterError> {
        for _ in 0..records {
            // Of records with one key the newest counts; the others are passed.
            let mut least: Option<usize> = None;
            for (index, (_, head)) in self.parts.iter().enumerate() {
                let Some(head) = head else { continue };
                let key = head.key();
                let before = least.and_then(|at| self.parts[at].1.as_ref()).map(Filed::key);
                if before.is_none_or(|before| key <= before) {
                    least = Some(index);
                }
            }
            let Some(record) = least.and_then(|at| self.parts[at].1) else {
                return Ok(true);
            };
            for (reader, head) in &mut self.parts {
                if head.is_some_and(|head| head.key() == record.key()) {
                    *head = reader.next()?;
                }
            }
            self.writer.push(&record)?;
        }
        Ok(false)
    }

    /// Makes the result durable.
    pub(super) fn finish(self) -> Result<Run, RegisterError> {
        self.writer.finish()
    }
}
