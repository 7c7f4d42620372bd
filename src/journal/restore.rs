//! Segments back out of an archive: to a place of their own, or in front of the journal that has moved on without them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::os::unix::fs::symlink;
use std::path::Path;

use blake3::Hasher;

use super::archive::Archive;
use super::archive_error::ArchiveError;
use super::chain::{Chain, ChainStart};
use super::chain_file::write_new;
use super::directory::{DirectoryLock, list, list_with_gaps, segment_path, sync_directory};
use super::files::header_of;
use super::manifest::Manifest;
use super::superblock::{self, Superblock};
use super::verify::over_segments;

/// What was restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Segments.
    pub segments: u64,
    /// Events in them.
    pub events: u64,
    /// The first segment whose chain does not go on where that of the segment before ends: somebody has begun it anew.
    /// What was restored from there on is as it was archived, but no chain proves it.
    pub chain_breaks_at: Option<u64>,
    /// True when a switch has written the journal that they were put in front of: it keeps them as far as its bound lets it.
    pub before_a_switchs: bool,
}

impl Archive {
    /// The segments that hold events `events`.
    ///
    /// # Errors
    /// A manifest can't be read, or the archive has none of these events.
    pub fn segments_with(&self, events: &RangeInclusive<u64>) -> Result<RangeInclusive<u64>, ArchiveError> {
        let mut found: Option<RangeInclusive<u64>> = None;
        for &number in self.segments() {
            let manifest = self.manifest(number)?;
            let before = manifest.last_event() < *events.start();
            let behind = manifest.facts.first_event > *events.end();
            if !before && !behind {
                found = Some(*found.as_ref().map_or(&number, RangeInclusive::start)..=number);
            }
        }
        found.ok_or_else(|| ArchiveError::Missing {
            directory: self.directory().to_owned(),
            segment: 0,
            reason: "none of the archive's segments has these events",
        })
    }

    /// Restores segments to the directory `to`, each checked, and their links in front of the chain that is there, if it goes
    /// on from them. A segment that is there already is left when it is the same. `progress` is told how many are done.
    ///
    /// The journal's lock is held meanwhile, and its superblock says that they are kept again. Segments get their names from the highest number down, so that whenever this
    /// ends there is no gap before what the journal had.
    ///
    /// # Errors
    /// A switch runs there; the journal there is another, or would be left with a gap; one of the segments is not what was
    /// archived, is missing, or is there and another; or the system refuses something.
    pub fn restore_to(
        &self,
        to: &Path,
        numbers: RangeInclusive<u64>,
        threads: NonZeroUsize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Restored, ArchiveError> {
        fs::create_dir_all(to).map_err(ArchiveError::system(to, "make the directory"))?;
        let _lock = DirectoryLock::take(to)?;
        self.check_place(to, &numbers)?;
        let first = self.manifest(*numbers.start())?;
        Superblock::keep_again(to, first.journal_id, first.segment * first.segment_bytes)?;
        let mut manifests = Vec::new();
        let mut end = numbers.end() + 1;
        while end > *numbers.start() {
            let first = end.saturating_sub(threads.get() as u64).max(*numbers.start());
            let before = manifests.len() as u64;
            let tell = |done| progress(before + done);
            let done = over_segments(first..end, threads, &tell, |number| self.restore_one(to, number));
            let done: Result<Vec<_>, _> = done.into_iter().collect();
            let mut done = done.inspect_err(|_| {
                for number in first..end {
                    // It takes room for nothing; if it can't be removed it has a name that does not count.
                    let _still_there = fs::remove_file(segment_path(to, number).with_extension("seg.new"));
                }
            })?;
            for number in (first..end).rev() {
                name_restored(to, number)?;
            }
            done.reverse();
            manifests.append(&mut done);
            end = first;
        }
        manifests.reverse();
        let chain_breaks_at = self.put_chain(to, &manifests, Chain::read(to)?)?;
        sync_directory(to)?;
        Ok(Restored {
            segments: manifests.len() as u64,
            events: manifests.iter().map(|manifest| manifest.facts.events).sum(),
            chain_breaks_at,
            before_a_switchs: superblock::exists(to),
        })
    }

    /// Writes to `to` the chain of `manifests`' segments and what `there`, the chain of later ones, says behind. Returns the
    /// first segment whose chain does not go on from the one before it.
    fn put_chain(&self, to: &Path, manifests: &[Manifest], there: Option<Chain>) -> Result<Option<u64>, ArchiveError> {
        let begins_at = there.as_ref().map(|chain| chain.start().position);
        let is_before =
            |manifest: &&Manifest| begins_at.is_none_or(|begin| manifest.segment * manifest.segment_bytes < begin);
        let before: Vec<_> = manifests.iter().take_while(is_before).collect();
        if before.is_empty() {
            return Ok(None);
        }
        let (front, mut breaks_at) = self.chain_of(&before)?;
        let whole = match there {
            None => Some(front),
            Some(there) if breaks_at.is_none() => {
                let whole = front.joined(&there);
                if whole.is_none() {
                    breaks_at = Some(there.start().position / there.start().segment_bytes);
                }
                whole
            }
            Some(_) => None,
        };
        if let Some(whole) = whole {
            write_new(to, &whole).map_err(ArchiveError::system(to, "write the chain"))?;
        }
        Ok(breaks_at)
    }

    /// Holds what is in `to` against what is to be put there.
    fn check_place(&self, to: &Path, numbers: &RangeInclusive<u64>) -> Result<(), ArchiveError> {
        if let Some(segment) = numbers.clone().find(|number| !self.segments().contains(number)) {
            return Err(ArchiveError::Missing {
                directory: self.directory().to_owned(),
                segment,
                reason: "it is not in the archive, though later ones are",
            });
        }
        let there = list_with_gaps(to)?;
        let Some(&first) = there.first() else {
            return Ok(());
        };
        let (header, manifest) = (header_of(to, first)?, self.manifest(*numbers.end())?);
        if (header.journal_id, header.segment_bytes) != (manifest.journal_id, manifest.segment_bytes) {
            return Err(ArchiveError::Foreign {
                directory: self.directory().to_owned(),
            });
        }
        let whole: BTreeSet<u64> = there.into_iter().chain(numbers.clone()).collect();
        let mut gaps = whole
            .iter()
            .zip(whole.iter().skip(1))
            .map(|(one, next)| (one + 1, *next));
        match gaps.find(|(follows, next)| follows != next) {
            None => Ok(()),
            Some((segment, _)) => Err(ArchiveError::Missing {
                directory: to.to_owned(),
                segment,
                reason: "it would be, between what is there and what is to be restored: restore it, too, or to another place",
            }),
        }
    }

    /// Decompresses segment `number` beside its name, unless it is there.
    fn restore_one(&self, to: &Path, number: u64) -> Result<Manifest, ArchiveError> {
        let path = segment_path(to, number);
        let manifest = self.manifest(number)?;
        if path.exists() {
            let is_other = || ArchiveError::Other { file: path.clone() };
            return same(&path, &manifest)?.then_some(manifest).ok_or_else(is_other);
        }
        let unfinished = path.with_extension("seg.new");
        let system = ArchiveError::system(&unfinished, "write the restored segment");
        let mut file = File::create(&unfinished).map_err(&system)?;
        self.restore(number, &mut file)?;
        file.sync_all().map_err(&system)?;
        Ok(manifest)
    }

    /// The chain over segments that follow on each other, up to the first whose chain was begun anew.
    fn chain_of(&self, manifests: &[&Manifest]) -> Result<(Chain, Option<u64>), ArchiveError> {
        let Some(first) = manifests.first() else {
            return Err(ArchiveError::Absent {
                directory: self.directory().to_owned(),
            });
        };
        let start = ChainStart {
            journal_id: first.journal_id,
            segment_bytes: first.segment_bytes,
            position: first.segment * first.segment_bytes,
            before: None,
        };
        let begins_here = Chain::new(start).value() == first.chain_before;
        let mut chain = Chain::new(ChainStart {
            before: (!begins_here).then_some(first.chain_before),
            ..start
        });
        for manifest in manifests {
            if (manifest.journal_id, manifest.segment_bytes) != (start.journal_id, start.segment_bytes) {
                return Err(ArchiveError::Foreign {
                    directory: self.directory().to_owned(),
                });
            }
            if manifest.chain_before != chain.value() {
                return Ok((chain, Some(manifest.segment)));
            }
            for link in &manifest.links {
                chain.push(link.entry);
            }
        }
        Ok((chain, None))
    }

    /// Puts a whole journal together in the empty directory `place`: what the archive has, decompressed, and behind it the
    /// segments of the journal `live`, by symbolic link; and the chain, that of the archive's manifests in front of that
    /// of `live`. Nothing outside of `place` is touched. What a running switch lets go meanwhile comes from the archive.
    ///
    /// # Errors
    /// A segment between the two is in neither, or is not what was archived; or the system refuses something.
    pub fn put_before(
        &self,
        live: Option<&Path>,
        place: &Path,
        threads: NonZeroUsize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ArchiveError> {
        let (Some(&first), Some(&last)) = (self.segments().first(), self.segments().last()) else {
            return Err(ArchiveError::Absent {
                directory: self.directory().to_owned(),
            });
        };
        let Some(live) = live else {
            self.restore_to(place, first..=last, threads, progress)?;
            return Ok(());
        };
        let live = live
            .canonicalize()
            .map_err(ArchiveError::system(live, "find the journal"))?;
        // Before the segments, which a running switch makes longer first.
        let chain = Chain::read(&live)?;
        let numbers = list(&live)?;
        let mut oldest = numbers.start;
        for number in numbers {
            let (to, link) = (segment_path(&live, number), segment_path(place, number));
            symlink(&to, link).map_err(ArchiveError::system(&to, "link to the segment"))?;
        }
        if oldest > last + 1 {
            return Err(ArchiveError::Missing {
                directory: self.directory().to_owned(),
                segment: last + 1,
                reason: "the archive ends before it, and the journal begins behind it",
            });
        }
        if let Some(chain) = chain {
            let begins_with = chain.start().position / chain.start().segment_bytes;
            write_new(place, &chain).map_err(ArchiveError::system(place, "write the chain"))?;
            let front = self
                .segments()
                .range(..begins_with.max(first))
                .map(|&number| self.manifest(number));
            self.put_chain(place, &front.collect::<Result<Vec<_>, _>>()?, Some(chain))?;
        }
        if first < oldest {
            self.restore_to(place, first..=oldest - 1, threads, progress)?;
        }
        // Each time there is less to decompress.
        loop {
            let now = list(&live)?.start;
            if now <= oldest {
                return Ok(());
            }
            Self::open(self.directory())?.restore_to(place, oldest..=now - 1, threads, progress)?;
            oldest = now;
        }
    }
}

/// Gives segment `number`, which stands whole beside its name, that name; nothing to do where it had it before.
fn name_restored(to: &Path, number: u64) -> Result<(), ArchiveError> {
    let path = segment_path(to, number);
    if !path.exists() {
        let named = fs::rename(path.with_extension("seg.new"), &path);
        named.map_err(ArchiveError::system(&path, "name the restored segment"))?;
        sync_directory(to)?;
    }
    Ok(())
}

/// True when the file in `path` is the segment that the manifest speaks of.
fn same(path: &Path, manifest: &Manifest) -> Result<bool, ArchiveError> {
    let system = ArchiveError::system(path, "read the segment");
    let mut hasher = Hashing(Hasher::new());
    io::copy(&mut File::open(path).map_err(&system)?, &mut hasher).map_err(&system)?;
    Ok(hasher.0.finalize() == manifest.plain)
}

struct Hashing(Hasher);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
