//! A segment on its way into an archive, by steps each of which a crash may be the last of.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};

use super::archive::{Archive, compressed_path};
use super::archive_checking::{Checking, Hashed};
use super::archive_error::ArchiveError;
use super::chain::{Chain, ChainLink, ChainStart};
use super::chain_writer::{PIECE_BYTES, SegmentReader};
use super::digest::{ChainEntry, SegmentDigest};
use super::directory::{segment_path, sync_directory};
use super::error::JournalError;
use super::files::header_of;
use super::layout::{Geometry, SegmentHeader};
use super::manifest::{Manifest, manifest_path};

/// The steps by which a segment comes into the archive; each is one of the kinds of moments at which a crash finds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ArchiveStep {
    /// A piece was compressed.
    Compressed,
    /// All of it was, and flushed.
    Flushed,
    /// A piece was read back.
    ReadBack,
    /// All of it was and is right; the file has its name.
    Named,
    /// The manifest is written under another name.
    ManifestWritten,
    /// It has its name: the segment is archived.
    Done,
}

/// A segment on its way into the archive; dropped before it is done, it leaves nothing that counts.
pub struct Adding {
    directory: PathBuf,
    unfinished: PathBuf,
    segment: PathBuf,
    number: u64,
    geometry: Geometry,
    start: ChainStart,
    links: Option<Vec<ChainLink>>,
    source: SegmentReader,
    digest: SegmentDigest,
    entries: Vec<ChainEntry>,
    plain: Hasher,
    stage: Stage,
}

type Encoder = zstd::stream::write::Encoder<'static, Hashed<File>>;

enum Stage {
    Compressing(Box<Encoder>),
    ReadingBack(Box<Checking>),
    Naming(Manifest),
    NamingManifest(Manifest),
    Done,
}

impl std::fmt::Debug for Adding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adding")
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

impl Adding {
    pub(super) fn begin(
        archive: &Archive,
        journal: &Path,
        number: u64,
        level: i32,
        before: Hash,
        links: Option<Vec<ChainLink>>,
    ) -> Result<Self, ArchiveError> {
        let first = header_of(journal, number)?;
        let geometry = Geometry {
            segment_bytes: first.segment_bytes,
        };
        let compressed = compressed_path(archive.directory(), number);
        let unfinished = compressed.with_extension("zst.new");
        let system = ArchiveError::system(&unfinished, "write to the archive");
        let out = Hashed::new(File::create(&unfinished).map_err(&system)?);
        let mut encoder = zstd::stream::write::Encoder::new(out, level).map_err(&system)?;
        encoder.include_checksum(true).map_err(&system)?;
        encoder
            .set_pledged_src_size(Some(geometry.segment_bytes))
            .map_err(&system)?;
        drop(system);
        Ok(Self {
            directory: archive.directory().to_owned(),
            unfinished,
            segment: segment_path(journal, number),
            number,
            geometry,
            start: ChainStart {
                journal_id: first.journal_id,
                segment_bytes: first.segment_bytes,
                position: geometry.segment_start(number),
                before: Some(before),
            },
            links,
            source: SegmentReader::open(journal, number)?,
            digest: SegmentDigest::new(geometry, number),
            entries: Vec::new(),
            plain: Hasher::new(),
            stage: Stage::Compressing(Box::new(encoder)),
        })
    }

    /// Does the next piece of the work, some 256 KiB of it; the manifest once it is done.
    ///
    /// # Errors
    /// The segment is not what was chained, or something can't be read or written: what was begun does not count.
    pub fn step(&mut self) -> Result<(ArchiveStep, Option<Manifest>), ArchiveError> {
        let stepped = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Compressing(encoder) => self.compress(encoder),
            Stage::ReadingBack(checking) => self.read_back(checking),
            Stage::Naming(manifest) => self.write_manifest(manifest),
            Stage::NamingManifest(manifest) => return self.name_manifest(manifest),
            Stage::Done => return Ok((ArchiveStep::Done, None)),
        };
        if stepped.is_err() {
            // Its room may be what the next attempt wants; if it can't be removed, that attempt writes over it.
            let _still_there = fs::remove_file(&self.unfinished);
        }
        stepped.map(|step| (step, None))
    }

    fn compress(&mut self, mut encoder: Box<Encoder>) -> Result<ArchiveStep, ArchiveError> {
        let system = ArchiveError::system(&self.unfinished, "write to the archive");
        let offset = self.digest.position() - self.start.position;
        let length = (self.geometry.segment_bytes - offset).min(PIECE_BYTES);
        if length > 0 {
            if offset == 0 {
                let header = SegmentHeader::parse(self.source.read(offset, length)?);
                self.check_header(&header.map_err(|reason| self.foreign(reason))?)?;
            }
            let bytes = self.source.read(offset, length)?;
            encoder.write_all(bytes).map_err(&system)?;
            self.plain.update(bytes);
            let taken = self.digest.take(bytes, &mut self.entries);
            taken.map_err(|reason| self.foreign(reason))?;
            self.stage = Stage::Compressing(encoder);
            return Ok(ArchiveStep::Compressed);
        }
        let out = encoder.finish().map_err(&system)?;
        out.inner.sync_all().map_err(&system)?;
        // What is read back is to come from the disk. Only advice: without it, it comes from memory.
        // SAFETY: a call on an open descriptor.
        let _refused = unsafe { libc::posix_fadvise(out.inner.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let manifest = self.manifest(&out)?;
        self.stage = Stage::ReadingBack(Box::new(Checking::begin(&self.unfinished, manifest)?));
        Ok(ArchiveStep::Flushed)
    }

    fn check_header(&self, header: &SegmentHeader) -> Result<(), ArchiveError> {
        let same = (header.journal_id, header.segment_bytes, header.number)
            == (self.start.journal_id, self.start.segment_bytes, self.number);
        if same {
            Ok(())
        } else {
            Err(self.foreign("the segment belongs to another journal or another place in it"))
        }
    }

    fn foreign(&self, reason: impl Into<String>) -> ArchiveError {
        JournalError::SegmentForeign {
            file: self.segment.clone(),
            reason: reason.into(),
        }
        .into()
    }

    fn manifest(&self, out: &Hashed<File>) -> Result<Manifest, ArchiveError> {
        let mut chain = Chain::new(self.start);
        for &entry in &self.entries {
            chain.push(entry);
        }
        if self.links.as_ref().is_some_and(|links| *links != chain.links()) {
            return Err(ArchiveError::Rewritten {
                file: self.segment.clone(),
            });
        }
        Ok(Manifest {
            journal_id: self.start.journal_id,
            segment: self.number,
            segment_bytes: self.geometry.segment_bytes,
            facts: self.digest.facts(),
            plain: self.plain.finalize(),
            compressed_bytes: out.bytes,
            compressed: out.hasher.finalize(),
            chain_before: chain.start().before.expect("a segment's chain goes on"),
            links: chain.links().to_vec(),
        })
    }

    fn read_back(&mut self, mut checking: Box<Checking>) -> Result<ArchiveStep, ArchiveError> {
        if !checking.step()? {
            self.stage = Stage::ReadingBack(checking);
            return Ok(ArchiveStep::ReadBack);
        }
        let path = compressed_path(&self.directory, self.number);
        fs::rename(&self.unfinished, &path).map_err(ArchiveError::system(&path, "name the archived segment"))?;
        self.stage = Stage::Naming(checking.into_expected());
        Ok(ArchiveStep::Named)
    }

    fn write_manifest(&mut self, manifest: Manifest) -> Result<ArchiveStep, ArchiveError> {
        self.unfinished = manifest_path(&self.directory, self.number).with_extension("toml.new");
        let system = ArchiveError::system(&self.unfinished, "write the manifest");
        let mut file = File::create(&self.unfinished).map_err(&system)?;
        file.write_all(manifest.to_toml().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(&system)?;
        self.stage = Stage::NamingManifest(manifest);
        Ok(ArchiveStep::ManifestWritten)
    }

    fn name_manifest(&mut self, manifest: Manifest) -> Result<(ArchiveStep, Option<Manifest>), ArchiveError> {
        let path = manifest_path(&self.directory, self.number);
        // The compressed file's name is on stable storage before the manifest has one.
        sync_directory(&self.directory)?;
        fs::rename(&self.unfinished, &path).map_err(ArchiveError::system(&path, "name the manifest"))?;
        sync_directory(&self.directory)?;
        Ok((ArchiveStep::Done, Some(manifest)))
    }
}
