//! The file `chain` beside the segments: a text, a line a link. A torn end is cut and made again.
//!
//! It is begun anew when more of it is about segments that are gone than about those that are there, with the value that
//! the chain had where the oldest segment begins. What it does not say any more, the archive's manifests say: put before
//! it, they make the whole chain.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use blake3::Hash;

use super::chain::{Chain, ChainLink, ChainStart, parse_line};
use super::chain_error::{ChainError, ChainFailure};

/// The file's name.
const FILE_NAME: &str = "chain";
/// What a crash takes or leaves as a whole.
const SECTOR_BYTES: usize = 512;

impl Chain {
    /// Reads the chain that stands in `directory`, every link held against the one before; none if there is no file, or
    /// only a torn first line. A torn last line is left out.
    ///
    /// # Errors
    /// The file can't be read, or a line is not what was written.
    pub fn read(directory: &Path) -> Result<Option<Self>, ChainFailure> {
        Ok(Self::read_with_length(directory)?.map(|(chain, _)| chain))
    }

    /// The same, with how many bytes of the file count.
    fn read_with_length(directory: &Path) -> Result<Option<(Self, u64)>, ChainFailure> {
        let path = directory.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ChainFailure::system(&path)(error)),
        };
        // A line without its end was torn, whatever it says; zeros were never written.
        let written = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let (written, behind) = bytes.split_at(written);
        let whole = written
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |last| last + 1);
        let text = String::from_utf8_lossy(&written[..whole]);
        let fault = |line: u64, reason| ChainError::Line {
            file: path.clone(),
            line,
            reason,
        };
        let mut lines = text.lines();
        let Some(first) = lines.next() else {
            // The first line is flushed before there is a second: where it is torn nothing lies behind.
            if behind.contains(&b'\n') {
                return Err(fault(1, "there are zeros in it, and lines behind").into());
            }
            return Ok(None);
        };
        let start = ChainStart::parse(first).ok_or_else(|| fault(1, "a chain does not begin like this"))?;
        let mut chain = Self::new(start);
        let mut next = 2;
        for line in lines {
            chain.push_line(line).map_err(|reason| fault(next, reason))?;
            next += 1;
        }
        if !chain.may_be_torn(written.len(), behind) {
            return Err(fault(
                next,
                "there are zeros in it, and what lies behind had been flushed after it",
            )
            .into());
        }
        Ok(Some((chain, whole as u64)))
    }

    /// True when a crash may have left the file like this: the chain's lines up to byte `at`, then `behind`, which begins
    /// with zeros if it is not empty. A crash leaves them up to the file's end, or up to a sector's; and each segment's
    /// links are flushed before the next one's are written, so that of those none lies behind.
    fn may_be_torn(&self, at: usize, behind: &[u8]) -> bool {
        let Some(zeros) = behind.iter().position(|&byte| byte != 0) else {
            return true;
        };
        let later = (self.end() / self.start.segment_bytes + 1) * self.start.segment_bytes;
        let text = String::from_utf8_lossy(&behind[zeros..]);
        let mut links = text
            .split(['\n', '\0'])
            .filter_map(|line| parse_line(line, self.start.segment_bytes));
        (at + zeros).is_multiple_of(SECTOR_BYTES) && links.all(|(entry, _)| entry.from < later)
    }
}

/// The chain's file, open to grow. One writer, the switch that has the journal.
#[derive(Debug)]
pub(super) struct ChainFile {
    pub(super) path: PathBuf,
    file: File,
    /// The journal position that it begins with.
    begins_at: u64,
    /// Where it was to begin anew last.
    asked_at: u64,
}

impl ChainFile {
    /// Opens the chain in `directory`, or begins one with `start`, where the journal's oldest segment begins, and cuts a
    /// torn line. Nothing is cut from a file that is not this journal's or in which something is wrong.
    pub(super) fn open(directory: &Path, start: ChainStart) -> Result<(Self, Chain), ChainFailure> {
        let path = directory.join(FILE_NAME);
        let read = Chain::read_with_length(directory)?;
        if let Some((chain, _)) = &read {
            let same = (chain.start.journal_id, chain.start.segment_bytes) == (start.journal_id, start.segment_bytes);
            if !same {
                return Err(ChainError::Foreign { file: path }.into());
            }
            if chain.end() < start.position {
                return Err(ChainError::Short {
                    end_name: "beginning is",
                    end: start.position,
                    chained: chain.end(),
                    what: "segments were removed before they were chained",
                }
                .into());
            }
        }
        let system = ChainFailure::system(&path);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(&system)?;
        let chain = if let Some((chain, length)) = read {
            file.set_len(length).map_err(&system)?;
            chain
        } else {
            file.set_len(0)
                .and_then(|()| file.write_all(start.line().as_bytes()))
                .and_then(|()| file.sync_all())
                .and_then(|()| File::open(directory)?.sync_all())
                .map_err(&system)?;
            Chain::new(start)
        };
        drop(system);
        let begins_at = chain.start.position;
        let chain_file = Self {
            path,
            file,
            begins_at,
            asked_at: begins_at,
        };
        Ok((chain_file, chain))
    }

    /// True when more than half of the journal that it covers, up to `end`, lies before `position`, and it was not asked to
    /// begin there already.
    pub(super) const fn is_mostly_before(&self, position: u64, end: u64) -> bool {
        position > self.asked_at && position - self.begins_at > end.saturating_sub(position)
    }

    /// Begins the file anew at journal position `position`, where a segment begins and the chain's value must be `before`.
    /// False where the value is another: what is said of the bytes before would be nowhere then.
    pub(super) fn begin_anew(&mut self, position: u64, before: Hash) -> Result<bool, ChainFailure> {
        self.asked_at = position;
        let system = ChainFailure::system(&self.path);
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let Some(mut chain) = Chain::read(directory)? else {
            return Ok(false);
        };
        chain.forget_before(position);
        if (chain.start.position, chain.start.before) != (position, Some(before)) {
            return Ok(false);
        }
        // From the rename on it is the file that grows, whether or not that is on stable storage.
        self.file = write_new(directory, &chain).map_err(&system)?;
        self.begins_at = position;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(&system)?;
        Ok(true)
    }

    /// Adds links; `flush` puts them on stable storage.
    pub(super) fn append(&mut self, links: &[ChainLink], flush: bool) -> std::io::Result<()> {
        let mut text = String::new();
        for link in links {
            text.push_str(&link.line());
            text.push('\n');
        }
        self.file.write_all(text.as_bytes())?;
        if flush { self.file.sync_data() } else { Ok(()) }
    }
}

/// Writes a whole chain to `directory`, in place of what is there; the file, to be made longer.
pub(super) fn write_new(directory: &Path, chain: &Chain) -> std::io::Result<File> {
    let unfinished = directory.join("chain.new");
    let _there_is_none = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().append(true).create_new(true).open(&unfinished)?;
    let mut text = chain.start.line();
    for link in &chain.links {
        text.push_str(&link.line());
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, directory.join(FILE_NAME))?;
    Ok(file)
}
