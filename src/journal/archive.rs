//! The archive: sealed segments, compressed and kept for good, away from the live journal.
//!
//! ```text
//! NNNNNNNNNNNN.seg.zst   the segment's bytes, zstd
//! NNNNNNNNNNNN.toml      its manifest (manifest.rs)
//! ```
//! A segment comes in by steps, each of which a crash may be the last of: it is compressed to a file of another name,
//! flushed, read back from the disk, decompressed and held against what was read; then it gets its name, then its
//! manifest is written and gets its name. Whatever has no manifest is made again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};

use super::archive_error::ArchiveError;
use super::chain::{Chain, ChainLink, ChainStart};
use super::chain_writer::{PIECE_BYTES, SegmentReader};
use super::digest::{ChainEntry, SegmentDigest};
use super::error::JournalError;
use super::files::header_of;
use super::layout::{Geometry, SegmentHeader};
use super::manifest::{Manifest, manifest_path};
use super::segment::{DirectoryLock, segment_path};

/// An archive's directory, and which segments it has.
#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    segments: BTreeSet<u64>,
    /// Held by the one who adds to it.
    lock: Option<DirectoryLock>,
}

impl Archive {
    /// True when `directory` holds an archive.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        listed(directory).is_ok_and(|segments| !segments.is_empty())
    }

    /// Opens the archive in `directory` to read it.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn open(directory: &Path) -> Result<Self, ArchiveError> {
        let segments = listed(directory)?;
        if segments.is_empty() {
            return Err(ArchiveError::Absent {
                directory: directory.to_owned(),
            });
        }
        Ok(Self {
            directory: directory.to_owned(),
            segments,
            lock: None,
        })
    }

    /// Opens the archive in `directory`, or makes one, to add to it; what a crash left half made is removed.
    ///
    /// # Errors
    /// Another process adds to it, it is another journal's, or the system refuses something.
    pub fn open_to_add(directory: &Path, journal_id: [u8; 16], segment_bytes: u64) -> Result<Self, ArchiveError> {
        fs::create_dir_all(directory).map_err(ArchiveError::system(directory, "make the directory"))?;
        let lock = DirectoryLock::take(directory).map_err(|refused| match refused {
            JournalError::InUse { directory } => ArchiveError::InUse { directory },
            refused => refused.into(),
        })?;
        super::segment::remove_unfinished(directory)?;
        let archive = Self {
            directory: directory.to_owned(),
            segments: listed(directory)?,
            lock: Some(lock),
        };
        if let Some(&last) = archive.segments.last() {
            let manifest = archive.manifest(last)?;
            if (manifest.journal_id, manifest.segment_bytes) != (journal_id, segment_bytes) {
                return Err(ArchiveError::Foreign {
                    directory: directory.to_owned(),
                });
            }
        }
        Ok(archive)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The segments that have a manifest.
    #[must_use]
    pub const fn segments(&self) -> &BTreeSet<u64> {
        &self.segments
    }

    /// What it says of segment `number`.
    ///
    /// # Errors
    /// The manifest can't be read or is not what was written.
    pub fn manifest(&self, number: u64) -> Result<Manifest, ArchiveError> {
        Manifest::read(&manifest_path(&self.directory, number), number)
    }

    /// Begins to add segment `number` of the journal in `journal`; the bytes must be those of `links`, where the chain has
    /// come that far, and are chained on `before` otherwise.
    ///
    /// # Errors
    /// The archive's last segment is not the one that `before` follows on, the segment can't be read or the archive not
    /// written.
    pub fn add(
        &mut self,
        journal: &Path,
        number: u64,
        level: i32,
        before: Hash,
        links: Option<Vec<ChainLink>>,
    ) -> Result<Adding, ArchiveError> {
        assert!(self.lock.is_some(), "the archive was opened to be read");
        if let Some(&last) = self.segments.last()
            && self.manifest(last)?.chain_after() != before
        {
            return Err(ArchiveError::Parted {
                directory: self.directory.clone(),
                segment: last,
                next: number,
            });
        }
        Adding::begin(self, journal, number, level, before, links)
    }

    /// Counts a segment that was added.
    pub fn added(&mut self, manifest: &Manifest) {
        self.segments.insert(manifest.segment);
    }

    /// Begins to check segment `number` by decompressing it.
    ///
    /// # Errors
    /// It, or its manifest, can't be read.
    pub fn check(&self, number: u64) -> Result<Checking, ArchiveError> {
        let manifest = self.manifest(number)?;
        Checking::begin(&compressed_path(&self.directory, number), manifest)
    }

    /// The same, and holds the segment in `journal` against it, too.
    ///
    /// # Errors
    /// As [`Archive::check`], or the segment can't be read.
    pub fn check_against(&self, journal: &Path, number: u64) -> Result<Checking, ArchiveError> {
        let mut checking = self.check(number)?;
        checking.live = Some(Live {
            source: SegmentReader::open(journal, number)?,
            path: segment_path(journal, number),
            plain: Hasher::new(),
            bytes: 0,
        });
        Ok(checking)
    }

    /// Decompresses segment `number` into `out`, and checks it.
    ///
    /// # Errors
    /// It is not what was written, or something can't be read or written.
    pub fn restore(&self, number: u64, out: &mut dyn Write) -> Result<Manifest, ArchiveError> {
        let mut checking = self.check(number)?;
        while !checking.step_to(&mut |bytes| out.write_all(bytes))? {}
        Ok(checking.expected)
    }
}

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
    fn begin(
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
        let compressed = compressed_path(&archive.directory, number);
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
            directory: archive.directory.clone(),
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
        self.stage = Stage::Naming(checking.expected);
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
        super::segment::sync_directory(&self.directory)?;
        fs::rename(&self.unfinished, &path).map_err(ArchiveError::system(&path, "name the manifest"))?;
        super::segment::sync_directory(&self.directory)?;
        Ok((ArchiveStep::Done, Some(manifest)))
    }
}

/// A compressed segment that is being decompressed and held against its manifest, and perhaps the live one, too.
pub struct Checking {
    path: PathBuf,
    expected: Manifest,
    decoder: zstd::stream::read::Decoder<'static, io::BufReader<Hashed<File>>>,
    plain: Hasher,
    plain_bytes: u64,
    piece: Vec<u8>,
    live: Option<Live>,
}

/// The live journal's segment, as far as it was hashed.
struct Live {
    source: SegmentReader,
    path: PathBuf,
    plain: Hasher,
    bytes: u64,
}

impl std::fmt::Debug for Checking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checking")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Checking {
    fn begin(path: &Path, expected: Manifest) -> Result<Self, ArchiveError> {
        let system = ArchiveError::system(path, "read the archived segment");
        let file = Hashed::new(File::open(path).map_err(&system)?);
        Ok(Self {
            path: path.to_owned(),
            expected,
            decoder: zstd::stream::read::Decoder::new(file).map_err(&system)?,
            plain: Hasher::new(),
            plain_bytes: 0,
            piece: vec![0; PIECE_BYTES as usize],
            live: None,
        })
    }

    /// Checks the next piece; true when all of it is right.
    ///
    /// # Errors
    /// It is not what was written, or can't be read.
    pub fn step(&mut self) -> Result<bool, ArchiveError> {
        self.step_to(&mut |_| Ok(()))
    }

    fn step_to(&mut self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<bool, ArchiveError> {
        if let Some(live) = self
            .live
            .as_mut()
            .filter(|live| live.bytes < self.expected.segment_bytes)
        {
            let length = (self.expected.segment_bytes - live.bytes).min(PIECE_BYTES);
            live.plain.update(live.source.read(live.bytes, length)?);
            live.bytes += length;
            if live.bytes == self.expected.segment_bytes && live.plain.finalize() != self.expected.plain {
                return Err(ArchiveError::OtherLive {
                    file: live.path.clone(),
                });
            }
            return Ok(false);
        }
        let read = self.decoder.read(&mut self.piece);
        // A read that the disk refused has a number, what the decoder finds wrong has none.
        let read = read.map_err(|error| match error.raw_os_error() {
            Some(_) => ArchiveError::system(&self.path, "read the archived segment")(error),
            None => self.damaged(&format!("it can't be decompressed ({error})")),
        })?;
        if read > 0 {
            let piece = &self.piece[..read];
            self.plain.update(piece);
            self.plain_bytes += read as u64;
            if self.plain_bytes > self.expected.segment_bytes {
                return Err(self.damaged("it is longer than a segment"));
            }
            out(piece).map_err(ArchiveError::system(&self.path, "write the restored segment"))?;
            return Ok(false);
        }
        // What lies behind the compressed data is the file's, too.
        let file = self.decoder.get_mut();
        io::copy(file, &mut io::sink()).map_err(ArchiveError::system(&self.path, "read the archived segment"))?;
        let file = self.decoder.get_ref().get_ref();
        let (compressed, bytes) = (file.hasher.finalize(), file.bytes);
        if (compressed, bytes) != (self.expected.compressed, self.expected.compressed_bytes) {
            return Err(self.damaged("its BLAKE3 is not the manifest's"));
        }
        if (self.plain.finalize(), self.plain_bytes) != (self.expected.plain, self.expected.segment_bytes) {
            return Err(self.damaged("what it decompresses to is not what the manifest says"));
        }
        Ok(true)
    }

    fn damaged(&self, reason: &str) -> ArchiveError {
        ArchiveError::Damaged {
            file: self.path.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// A file whose bytes are hashed as they pass.
struct Hashed<F> {
    inner: F,
    hasher: Hasher,
    bytes: u64,
}

impl<F> Hashed<F> {
    fn new(inner: F) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            bytes: 0,
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<F: Write> Write for Hashed<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.pass(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<F: Read> Read for Hashed<F> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.pass(&out[..read]);
        Ok(read)
    }
}

/// Segment `number` in an archive.
pub(super) fn compressed_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}.seg.zst"))
}

fn listed(directory: &Path) -> Result<BTreeSet<u64>, ArchiveError> {
    let system = ArchiveError::system(directory, "list the directory");
    let mut segments = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(&system)? {
        let name = entry.map_err(&system)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".toml"));
        let number = number
            .filter(|digits| digits.len() == 12)
            .and_then(|digits| digits.parse().ok());
        segments.extend(number.filter(|&number: &u64| compressed_path(directory, number).exists()));
    }
    Ok(segments)
}
