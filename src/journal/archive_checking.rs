//! A segment in an archive, decompressed and held against what is said of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use blake3::Hasher;

use super::archive_error::ArchiveError;
use super::chain_writer::{PIECE_BYTES, SegmentReader};
use super::directory::segment_path;
use super::manifest::Manifest;

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
    pub(super) fn begin(path: &Path, expected: Manifest) -> Result<Self, ArchiveError> {
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

    /// Holds the segment in `journal` against the manifest, too.
    pub(super) fn hold_against(&mut self, journal: &Path) -> Result<(), ArchiveError> {
        let number = self.expected.segment;
        self.live = Some(Live {
            source: SegmentReader::open(journal, number)?,
            path: segment_path(journal, number),
            plain: Hasher::new(),
            bytes: 0,
        });
        Ok(())
    }

    /// What the archive says of the segment.
    pub(super) fn into_expected(self) -> Manifest {
        self.expected
    }

    /// Checks the next piece; true when all of it is right.
    ///
    /// # Errors
    /// It is not what was written, or can't be read.
    pub fn step(&mut self) -> Result<bool, ArchiveError> {
        self.step_to(&mut |_| Ok(()))
    }

    pub(super) fn step_to(&mut self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<bool, ArchiveError> {
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
pub(super) struct Hashed<F> {
    pub(super) inner: F,
    pub(super) hasher: Hasher,
    pub(super) bytes: u64,
}

impl<F> Hashed<F> {
    pub(super) fn new(inner: F) -> Self {
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
