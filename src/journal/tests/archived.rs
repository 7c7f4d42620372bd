//! An archive holds what was archived, whatever happens to it on the way, and says so when it does not any more.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use tempfile::TempDir;

use super::SEGMENT_BYTES;
use super::chained::{chain_again, chained, copy, rewrite};
use crate::journal::*;

pub(super) const THREADS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

pub(super) struct Written {
    pub(super) journal: TempDir,
    pub(super) chain: Chain,
    pub(super) sealed: u64,
}

pub(super) fn written() -> Written {
    let journal = tempfile::tempdir().unwrap();
    let durable = chained(journal.path(), 1_000);
    Written {
        chain: Chain::read(journal.path()).unwrap().unwrap(),
        journal,
        sealed: durable / SEGMENT_BYTES,
    }
}

impl Written {
    pub(super) fn open(&self, archive: &Path) -> Archive {
        Archive::open_to_add(archive, self.chain.start().journal_id, SEGMENT_BYTES).unwrap()
    }

    fn begin(&self, archive: &mut Archive, number: u64) -> Adding {
        let (before, links) = self.chain.of_segment(number);
        let links = Some(links.to_vec());
        archive.add(self.journal.path(), number, 3, before, links).unwrap()
    }

    /// Archives what is missing.
    pub(super) fn archive(&self, archive: &mut Archive) {
        for number in archive.segments().last().map_or(0, |last| last + 1)..self.sealed {
            let mut adding = self.begin(archive, number);
            let manifest = loop {
                if let (step, Some(manifest)) = adding.step().unwrap() {
                    assert_eq!(step, ArchiveStep::Done);
                    break manifest;
                }
            };
            archive.added(&manifest);
        }
    }

    fn segment(&self, number: u64) -> Vec<u8> {
        fs::read(directory::segment_path(self.journal.path(), number)).unwrap()
    }
}

pub(super) fn events(directory: &Path) -> Vec<(u64, Vec<u8>)> {
    let files = JournalFiles::open(directory).unwrap();
    let events = files.records().map(Result::unwrap);
    events.map(|record| (record.number, record.payload.to_vec())).collect()
}

#[test]
fn what_is_archived_and_removed_is_read_again_before_the_live_journal_and_alone() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    written.archive(&mut archive);
    let all = events(written.journal.path());
    let manifest = archive.manifest(1).unwrap();
    let inside = |number: &&(u64, _)| (manifest.facts.first_event..=manifest.last_event()).contains(&number.0);
    assert_eq!(all.iter().filter(inside).count() as u64, manifest.facts.events);
    let remove = || {
        SealedSegments::of(written.journal.path())
            .unwrap()
            .remove_oldest(3 * SEGMENT_BYTES)
            .unwrap()
    };
    assert_eq!([remove(), remove(), remove(), remove()], [true, true, true, false]);
    assert_eq!(
        JournalFiles::open(written.journal.path())
            .unwrap()
            .segment_numbers()
            .start,
        3
    );
    let whole = tempfile::tempdir().unwrap();
    archive
        .put_before(Some(written.journal.path()), whole.path(), THREADS, &|_| {})
        .unwrap();
    assert_eq!(events(whole.path()), all);
    let alone = tempfile::tempdir().unwrap();
    archive.put_before(None, alone.path(), THREADS, &|_| {}).unwrap();
    let archived = events(alone.path());
    assert_eq!(archived, all[..archived.len()]);
    let chain = Chain::read(alone.path()).unwrap();
    let found = JournalFiles::open(alone.path())
        .unwrap()
        .verify_with(chain.as_ref(), THREADS, &|_| {});
    let verdict = found.chain.unwrap();
    assert_eq!((verdict.fault, verdict.batches), (None, written.sealed));
    assert_eq!(
        chain.unwrap().links()[..],
        written.chain.links()[..(verdict.batches + verdict.checkpoints) as usize]
    );
}

#[test]
fn a_crash_at_any_step_of_archiving_leaves_nothing_half_believed() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    let mut crashed = Vec::new();
    for number in 0..2 {
        let mut adding = written.begin(&mut archive, number);
        loop {
            let (step, manifest) = adding.step().unwrap();
            crashed.push((number, step, copy(place.path())));
            if let Some(manifest) = manifest {
                archive.added(&manifest);
                break;
            }
        }
    }
    written.archive(&mut archive);
    for step in [
        ArchiveStep::Compressed,
        ArchiveStep::Flushed,
        ArchiveStep::ReadBack,
        ArchiveStep::Named,
        ArchiveStep::ManifestWritten,
        ArchiveStep::Done,
    ] {
        assert!(crashed.iter().any(|(_, found, _)| *found == step), "{step:?}");
    }
    for (number, step, left) in crashed {
        let mut again = written.open(left.path());
        let believed = number + u64::from(step == ArchiveStep::Done);
        assert_eq!(again.segments().len() as u64, believed, "segment {number}, {step:?}");
        for &number in again.segments() {
            let mut bytes = Vec::new();
            again.restore(number, &mut bytes).unwrap();
            assert!(bytes == written.segment(number), "segment {number}");
        }
        written.archive(&mut again);
        for number in 0..written.sealed {
            assert_eq!(again.manifest(number).unwrap(), archive.manifest(number).unwrap());
        }
        let unfinished = |entry: fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "new");
        assert!(
            !fs::read_dir(left.path())
                .unwrap()
                .any(|entry| unfinished(entry.unwrap()))
        );
    }
}

#[test]
fn a_byte_changed_in_any_file_of_an_archive_is_named() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    written.archive(&mut archive);
    for name in ["000000000001.seg.zst", "000000000001.toml"] {
        let path = place.path().join(name);
        let right = fs::read(&path).unwrap();
        let every = (right.len() / 150).max(1);
        let cut = [right.len() / 2, right.len() - 1].map(|length| right[..length].to_vec());
        let longer = [&right[..], b"x"].concat();
        let flipped = (0..right.len()).step_by(every).map(|at| {
            let mut bytes = right.clone();
            bytes[at] ^= 4;
            bytes
        });
        for (case, wrong) in flipped.chain(cut).chain([longer]).enumerate() {
            fs::write(&path, wrong).unwrap();
            let mut bytes = Vec::new();
            let refused = archive
                .restore(1, &mut bytes)
                .expect_err("a byte was changed")
                .to_string();
            assert!(
                refused.starts_with(&path.display().to_string()),
                "case {case}: {refused}"
            );
        }
        fs::write(&path, right).unwrap();
    }
    let mut bytes = Vec::new();
    archive.restore(1, &mut bytes).unwrap();
    assert!(bytes == written.segment(1));
}

#[test]
fn a_segment_that_was_rewritten_since_it_was_chained_is_not_archived() {
    let written = written();
    rewrite(written.journal.path(), 7);
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    let mut adding = written.begin(&mut archive, 0);
    let refused = loop {
        match adding.step() {
            Ok((_, None)) => {}
            Ok((_, Some(_))) => panic!("it was archived"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, ArchiveError::Rewritten { .. }), "{refused}");
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        1,
        "nothing is left but the lock"
    );
}

#[test]
fn a_journal_that_went_other_ways_behind_what_is_archived_is_not_added_to_it() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    let manifest = {
        let mut adding = written.begin(&mut archive, 0);
        loop {
            if let Some(manifest) = adding.step().unwrap().1 {
                break manifest;
            }
        }
    };
    archive.added(&manifest);
    let other = copy(written.journal.path());
    rewrite(other.path(), 7);
    chain_again(other.path(), written.sealed * SEGMENT_BYTES);
    let (before, links) = {
        let chain = Chain::read(other.path()).unwrap().unwrap();
        let (before, links) = chain.of_segment(1);
        (before, links.to_vec())
    };
    let refused = archive.add(other.path(), 1, 3, before, Some(links)).map(drop);
    assert!(
        matches!(
            refused,
            Err(ArchiveError::Parted {
                segment: 0,
                next: 1,
                ..
            })
        ),
        "{refused:?}"
    );
    written.archive(&mut archive);
}

#[test]
fn an_archive_has_one_who_adds_to_it_and_one_journal() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    written.archive(&mut archive);
    let second = Archive::open_to_add(place.path(), written.chain.start().journal_id, SEGMENT_BYTES);
    assert!(matches!(second, Err(ArchiveError::InUse { .. })));
    drop(archive);
    let other = Archive::open_to_add(place.path(), [9; 16], SEGMENT_BYTES);
    assert!(matches!(other, Err(ArchiveError::Foreign { .. })));
}

#[test]
fn a_segment_in_neither_place_is_named_and_one_that_is_there_and_another_is_not_overwritten() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    written.archive(&mut archive);
    let to = copy(written.journal.path());
    rewrite(to.path(), 7);
    let before = fs::read(directory::segment_path(to.path(), 0)).unwrap();
    let refused = archive.restore_to(to.path(), 0..=1, THREADS, &|_| {});
    assert!(matches!(refused, Err(ArchiveError::Other { .. })), "{refused:?}");
    assert!(fs::read(directory::segment_path(to.path(), 0)).unwrap() == before);
    fs::remove_file(place.path().join("000000000001.toml")).unwrap();
    let gap = Archive::open(place.path()).unwrap();
    let refused = gap.restore_to(tempfile::tempdir().unwrap().path(), 0..=2, THREADS, &|_| {});
    assert!(
        matches!(refused, Err(ArchiveError::Missing { segment: 1, .. })),
        "{refused:?}"
    );
}

#[test]
fn nothing_is_restored_into_a_journal_that_a_switch_has_or_that_is_another_or_would_have_a_gap() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    written.archive(&mut archive);
    let to = copy(written.journal.path());
    let oldest = written.sealed;
    for number in 0..oldest {
        fs::remove_file(directory::segment_path(to.path(), number)).unwrap();
    }
    let restore = |to: &Path, first, last| archive.restore_to(to, first..=last, THREADS, &|_| {});
    let lock = directory::DirectoryLock::take(to.path()).unwrap();
    let refused = restore(to.path(), 0, oldest - 1);
    assert!(
        matches!(refused, Err(ArchiveError::Journal(JournalError::InUse { .. }))),
        "{refused:?}"
    );
    drop(lock);
    let refused = restore(to.path(), 0, oldest - 2);
    assert!(
        matches!(refused, Err(ArchiveError::Missing { segment, .. }) if segment == oldest - 1),
        "{refused:?}"
    );
    assert_eq!(
        directory::list(to.path()).unwrap().start,
        oldest,
        "nothing was restored"
    );
    let other = tempfile::tempdir().unwrap();
    drop(Journal::create(super::options(other.path())).unwrap());
    let count = fs::read_dir(other.path()).unwrap().count();
    let refused = restore(other.path(), 1, 2);
    assert!(matches!(refused, Err(ArchiveError::Foreign { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), count);
    restore(to.path(), 0, oldest - 1).unwrap();
    assert_eq!(events(to.path()), events(written.journal.path()));
}

#[test]
fn a_restore_that_ends_half_way_leaves_no_gap_and_goes_on_when_it_is_asked_again() {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    written.archive(&mut archive);
    let oldest = written.sealed;
    let damaged = place.path().join("000000000001.seg.zst");
    let right = fs::read(&damaged).unwrap();
    for threads in 1..=4 {
        let to = copy(written.journal.path());
        for number in 0..oldest {
            fs::remove_file(directory::segment_path(to.path(), number)).unwrap();
        }
        fs::write(&damaged, &right[1..]).unwrap();
        let threads = NonZeroUsize::new(threads).unwrap();
        let restore = || archive.restore_to(to.path(), 0..=oldest - 1, threads, &|_| {});
        let refused = restore();
        assert!(matches!(refused, Err(ArchiveError::Damaged { .. })), "{refused:?}");
        let there = directory::list(to.path()).expect("no gap");
        assert!(1 < there.start && there.start < oldest, "{there:?}");
        JournalFiles::open(to.path()).unwrap();
        fs::write(&damaged, &right).unwrap();
        restore().unwrap();
        assert_eq!(events(to.path()), events(written.journal.path()));
    }
}
