//! The chain's file begun anew where older segments have gone: with the archive's manifests it is the whole chain still.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::SEGMENT_BYTES;
use super::archived::{THREADS, Written, events, written};
use super::chained::copy;
use crate::journal::*;

/// The oldest segment that is left.
const OLDEST: u64 = 8;

struct Retired {
    written: Written,
    place: TempDir,
    archive: Archive,
}

/// A journal of which all is archived that is sealed.
fn archived() -> Retired {
    let written = written();
    let place = tempfile::tempdir().unwrap();
    let mut archive = written.open(place.path());
    written.archive(&mut archive);
    assert!(
        written.sealed > OLDEST && written.sealed < 2 * OLDEST,
        "{}",
        written.sealed
    );
    Retired {
        written,
        place,
        archive,
    }
}

impl Retired {
    fn journal(&self) -> &Path {
        self.written.journal.path()
    }

    fn value_before(&self, number: u64) -> blake3::Hash {
        self.archive.manifest(number - 1).unwrap().chain_after()
    }

    /// The first segments go, and with them what the chain says of them.
    fn retire(&self) {
        for _ in 0..OLDEST {
            let segments = SealedSegments::of(self.journal()).unwrap();
            assert!(segments.remove_oldest(OLDEST * SEGMENT_BYTES).unwrap());
        }
        let mut writer = ChainWriter::open(self.journal()).unwrap();
        assert!(writer.is_mostly_before(OLDEST * SEGMENT_BYTES));
        assert!(
            writer
                .begin_anew(OLDEST * SEGMENT_BYTES, self.value_before(OLDEST))
                .unwrap()
        );
        assert!(!writer.is_mostly_before(OLDEST * SEGMENT_BYTES));
        // The same writer goes on, into the file that is there now.
        let durable = JournalFiles::open(self.journal()).unwrap().durable();
        while writer.step(durable).unwrap() {}
    }

    fn chain(&self) -> Chain {
        Chain::read(self.journal()).unwrap().unwrap()
    }

    fn verified(&self, place: &Path) -> ChainVerdict {
        let chain = Chain::read(place).unwrap();
        let found = JournalFiles::open(place)
            .unwrap()
            .verify_with(chain.as_ref(), THREADS, &|_| {});
        assert!(found.damage.is_none(), "{:?}", found.damage);
        found.chain.unwrap()
    }
}

#[test]
fn a_chain_begun_anew_is_shorter_says_the_same_and_is_whole_again_behind_the_manifests() {
    let retired = archived();
    let whole = retired.written.chain.clone();
    retired.retire();
    let chain = retired.chain();
    assert_eq!(
        (chain.start().position, chain.value()),
        (OLDEST * SEGMENT_BYTES, whole.value())
    );
    assert_eq!(
        chain.links(),
        &whole.links()[whole.links().len() - chain.links().len()..]
    );
    assert_eq!(chain.find(&whole.links()[0].value), None);
    let verdict = retired.verified(retired.journal());
    assert_eq!((verdict.fault, verdict.checked_from), (None, OLDEST * SEGMENT_BYTES));

    let place = tempfile::tempdir().unwrap();
    let archive = Archive::open(retired.place.path()).unwrap();
    archive
        .put_before(Some(retired.journal()), place.path(), THREADS, &|_| {})
        .unwrap();
    assert_eq!(Chain::read(place.path()).unwrap().as_ref(), Some(&whole));
    let verdict = retired.verified(place.path());
    assert_eq!((verdict.fault, verdict.checked_from), (None, 0));
    assert_eq!(verdict.batches + verdict.checkpoints, whole.links().len() as u64);
}

#[test]
fn a_chain_is_not_begun_anew_where_the_archive_has_another_value() {
    let retired = archived();
    let before = fs::read(retired.journal().join("chain")).unwrap();
    let mut writer = ChainWriter::open(retired.journal()).unwrap();
    assert!(writer.is_mostly_before(OLDEST * SEGMENT_BYTES));
    assert!(
        !writer.is_mostly_before(2 * SEGMENT_BYTES),
        "more than half of it is about what is there"
    );
    assert!(
        !writer
            .begin_anew(OLDEST * SEGMENT_BYTES, retired.value_before(OLDEST - 1))
            .unwrap()
    );
    assert!(
        !writer.is_mostly_before(OLDEST * SEGMENT_BYTES),
        "it is not read for that again"
    );
    assert!(fs::read(retired.journal().join("chain")).unwrap() == before);
}

#[test]
fn a_crash_while_the_chain_is_begun_anew_leaves_the_one_or_the_other() {
    let retired = archived();
    let before = copy(retired.journal());
    retired.retire();
    let new = fs::read(retired.journal().join("chain")).unwrap();
    let value = retired.chain().value();
    for length in (0..=new.len()).step_by(211) {
        let left = copy(before.path());
        fs::write(left.path().join("chain.new"), &new[..length]).unwrap();
        let mut writer = ChainWriter::open(left.path()).unwrap();
        assert_eq!(writer.chain().start().position, 0);
        assert!(
            writer
                .begin_anew(OLDEST * SEGMENT_BYTES, retired.value_before(OLDEST))
                .unwrap()
        );
        assert!(fs::read(left.path().join("chain")).unwrap() == new);
        assert!(!left.path().join("chain.new").exists());
        assert_eq!(writer.chain().value(), value);
    }
}

#[test]
fn what_is_restored_in_front_of_a_journal_is_chained_as_it_was_and_kept_by_the_next_start() {
    let retired = archived();
    let all = events(retired.journal());
    let whole = retired.written.chain.clone();
    retired.retire();
    let numbers = |from: u64| from..=OLDEST - 1;
    // What its last run would have let go of.
    let (mode, nobodys) = (segment::WriteMode::Fdatasync, || Arc::new(Positions::new(0, 0, 0)));
    let journal_id = whole.start().journal_id;
    let kept_from = || superblock_facts(retired.journal(), journal_id).retained_from;
    let superblock = Superblock::open(retired.journal(), mode, journal_id, 1, u64::MAX, nobodys()).unwrap();
    for number in [OLDEST, OLDEST + 1] {
        let place = JournalStart {
            position: number * SEGMENT_BYTES + SEGMENT_HEADER_BYTES,
            ..JournalStart::BEGINNING
        };
        superblock.add_snapshot(place).unwrap();
    }
    superblock.retain_from(u64::MAX).unwrap();
    drop(superblock);
    assert!(kept_from() > OLDEST * SEGMENT_BYTES);
    for from in [3, 0] {
        let restored = retired
            .archive
            .restore_to(retired.journal(), numbers(from), THREADS, &|_| {})
            .unwrap();
        assert_eq!((restored.before_a_switchs, restored.chain_breaks_at), (true, None));
        assert_eq!(retired.chain().start().position, from * SEGMENT_BYTES);
        assert_eq!(kept_from(), from * SEGMENT_BYTES);
        let verdict = retired.verified(retired.journal());
        assert_eq!((verdict.fault, verdict.checked_from), (None, from * SEGMENT_BYTES));
    }
    assert_eq!(retired.chain(), whole);
    assert_eq!(events(retired.journal()), all);
}
