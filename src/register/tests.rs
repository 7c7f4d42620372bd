//! The register's claims, each against files as they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

use super::*;
use crate::domain::BusinessDate;

/// A record of an odd length, so that blocks end with a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Card {
    high: u64,
    low: u64,
    content: [u64; 9],
}

impl Filed for Card {
    const NAME: &'static str = "cards";

    fn key(&self) -> RegisterKey {
        key(self.high, self.low)
    }
}

const fn key(high: u64, low: u64) -> RegisterKey {
    RegisterKey { high, low }
}

fn card(high: u64, low: u64, content: u64) -> Card {
    Card {
        high,
        low,
        content: [content; 9],
    }
}

const JOURNAL: [u8; 16] = [7; 16];
const TODAY: BusinessDate = BusinessDate(20_260_204);
const YESTERDAY: BusinessDate = BusinessDate(20_260_203);

fn options(directory: &Path) -> ShelfOptions {
    ShelfOptions {
        directory: directory.to_owned(),
        journal_id: JOURNAL,
        records_in_memory: 1_000,
        fan_in: 4,
        door: FileDoor::OPEN,
    }
}

fn new_shelf(directory: &Path) -> Shelf<Card> {
    Shelf::create(options(directory)).unwrap()
}

fn reopened(shelf: Shelf<Card>, directory: &Path) -> Shelf<Card> {
    let coverage = shelf.coverage();
    drop(shelf);
    Shelf::open(options(directory), &coverage, YESTERDAY).unwrap()
}

/// Numbers without order, the same in every run.
fn draw(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn what_was_filed_is_found_whether_in_memory_in_runs_or_merged_and_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = new_shelf(directory.path());
    let mut known = BTreeMap::new();
    let mut state = 1;
    for n in 0..40_000 {
        // Some keys come again with other content: the newest counts.
        let record = card(draw(&mut state) % 5, draw(&mut state) % 20_000, n);
        let date = if record.high == 0 { YESTERDAY } else { TODAY };
        shelf.insert(date, &record);
        known.insert((date, record.key()), record);
        if shelf.is_full() {
            shelf.flush().unwrap();
        }
        // Merging goes on beside it, in slices.
        if n % 100 == 0 {
            shelf.work(700).unwrap();
        }
        if n == 30_500 {
            shelf.flush().unwrap();
            shelf = reopened(shelf, directory.path());
        }
    }
    let check = |shelf: &Shelf<Card>| {
        for (&(date, key), record) in &known {
            assert_eq!(shelf.find(date, key).unwrap(), Some(*record), "{date} {key:?}");
        }
        for absent in [key(0, 20_000), key(5, 0), key(u64::MAX, u64::MAX), key(2, 20_001)] {
            assert_eq!(shelf.find(TODAY, absent).unwrap(), None);
        }
    };
    check(&shelf);
    shelf.flush().unwrap();
    for date in [TODAY, YESTERDAY] {
        shelf.seal(date);
    }
    while shelf.work(5_000).unwrap() {}
    assert!(shelf.is_sealed(TODAY) && shelf.is_sealed(YESTERDAY));
    assert_eq!(shelf.runs().count(), 2);
    assert_eq!(shelf.runs().map(Run::records).sum::<u64>(), known.len() as u64);
    check(&shelf);
    let shelf = reopened(shelf, directory.path());
    check(&shelf);
    for run in shelf.runs() {
        run.verify::<Card>().unwrap();
    }
}

/// A record so long that two fill a block: a tall tree with few of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Slab {
    low: u64,
    filling: [[u64; 10]; 25],
}

impl Filed for Slab {
    const NAME: &'static str = "slabs";

    fn key(&self) -> RegisterKey {
        key(1, self.low)
    }
}

#[test]
fn a_tree_of_several_levels_leads_to_every_record() {
    let directory = tempfile::tempdir().unwrap();
    let slab = |low| Slab {
        low,
        filling: [[low; 10]; 25],
    };
    // Two in a block, 169 blocks under an index block: up to two index levels and, with the last, a root of one entry more.
    for records in [1, 2, 3, 2 * 169, 2 * 169 + 1, 2 * 169 * 3, 2 * 169 * 3 + 1] {
        let mut shelf = Shelf::create(options(directory.path())).unwrap();
        for n in 1..=records {
            shelf.insert(TODAY, &slab(2 * n));
        }
        shelf.flush().unwrap();
        let run = shelf.runs().next().unwrap();
        for n in 1..=records {
            assert_eq!(run.find(key(1, 2 * n)).unwrap(), Some(slab(2 * n)), "{n} of {records}");
            assert_eq!(run.find::<Slab>(key(1, 2 * n + 1)).unwrap(), None, "{n} of {records}");
        }
        let all = run.range::<Slab>(key(0, 0), key(2, 0), usize::MAX).unwrap();
        assert!(all.iter().map(|slab| slab.low).eq((1..=records).map(|n| 2 * n)));
        let few = run.range::<Slab>(key(1, records), key(1, 3 * records), 3).unwrap();
        assert!(few.iter().all(|slab| slab.low >= records) && few.len() <= 3);
    }
}

#[test]
fn a_span_of_dense_keys_is_read_across_days_runs_and_memory() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = new_shelf(directory.path());
    for n in 1..=2_500 {
        let date = if n < 1_200 { YESTERDAY } else { TODAY };
        for participant in [3, 4] {
            shelf.insert(date, &card(participant, n, participant * n));
        }
        if shelf.is_full() {
            shelf.flush().unwrap();
        }
    }
    let numbers = |from, end, limit| -> Vec<u64> {
        let found = shelf.range(key(3, from), key(3, end), limit).unwrap();
        assert!(
            found
                .iter()
                .all(|card| card.high == 3 && card.content[0] == 3 * card.low)
        );
        found.iter().map(|card| card.low).collect()
    };
    assert_eq!(numbers(1_150, 1_250, 1_000), (1_150..1_250).collect::<Vec<_>>());
    assert_eq!(numbers(1, 2_501, 3_000), (1..=2_500).collect::<Vec<_>>());
    assert_eq!(numbers(2_400, 2_600, 50), (2_400..2_450).collect::<Vec<_>>());
    assert_eq!(numbers(2_600, 2_700, 50), Vec::<u64>::new());
}

#[test]
fn a_run_with_any_byte_changed_is_refused_and_never_answers_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = new_shelf(directory.path());
    for n in 0..200 {
        shelf.insert(TODAY, &card(1, n, n));
    }
    shelf.flush().unwrap();
    let path = shelf.runs().next().unwrap().path().to_owned();
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(13).chain(good.len() - 80..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let Ok(run) = Run::open::<Card>(&path, JOURNAL) else {
            continue;
        };
        let told = run.verify::<Card>().expect_err("a changed byte passed").to_string();
        assert!(told.contains(path.to_str().unwrap()), "{told}");
        for n in 0..200 {
            if let Ok(found) = run.find(key(1, n)) {
                assert_eq!(found, Some(card(1, n, n)));
            }
        }
    }
    for length in (0..good.len()).step_by(511) {
        fs::write(&path, &good[..length]).unwrap();
        assert!(Run::open::<Card>(&path, JOURNAL).is_err(), "cut to {length}");
    }
}

#[test]
fn a_crash_between_a_merge_and_the_removal_of_its_parts_leaves_each_record_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = new_shelf(directory.path());
    let day = directory.path().join("20260204");
    let aside = directory.path().join("aside");
    fs::create_dir(&aside).unwrap();
    for n in 0..4_000 {
        shelf.insert(TODAY, &card(1, n, n));
        if shelf.is_full() {
            shelf.flush().unwrap();
        }
    }
    for file in fs::read_dir(&day).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), aside.join(file.file_name())).unwrap();
    }
    while shelf.work(10_000).unwrap() {}
    for file in fs::read_dir(&aside).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), day.join(file.file_name())).unwrap();
    }
    fs::write(day.join("cards-000004-000004.new"), b"half a run").unwrap();
    let shelf = reopened(shelf, directory.path());
    assert_eq!(shelf.runs().count(), 1);
    assert_eq!(fs::read_dir(&day).unwrap().count(), 1);
    assert_eq!(shelf.find(TODAY, key(1, 3_999)).unwrap(), Some(card(1, 3_999, 3_999)));
}

#[test]
fn a_missing_run_is_named_wherever_it_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = new_shelf(directory.path());
    for n in 0..3_000 {
        shelf.insert(TODAY, &card(1, n, n));
        if shelf.is_full() {
            shelf.flush().unwrap();
        }
    }
    let coverage = shelf.coverage();
    for missing in 0..3 {
        let path = directory
            .path()
            .join(format!("20260204/cards-{missing:06}-{missing:06}.run"));
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let refused = Shelf::<Card>::open(options(directory.path()), &coverage, YESTERDAY).unwrap_err();
        assert!(
            matches!(refused, RegisterError::Missing { first, last, .. } if first == missing && last == missing),
            "{refused}"
        );
        fs::write(&path, content).unwrap();
    }
    fs::remove_dir_all(directory.path().join("20260204")).unwrap();
    assert!(Shelf::<Card>::open(options(directory.path()), &coverage, YESTERDAY).is_err());
    // A day that is no longer kept may be gone.
    assert!(Shelf::<Card>::open(options(directory.path()), &coverage, BusinessDate(20_260_301)).is_ok());
}

#[test]
fn a_register_of_another_journal_or_release_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = new_shelf(directory.path());
    shelf.insert(TODAY, &card(1, 1, 1));
    shelf.flush().unwrap();
    let path = shelf.runs().next().unwrap().path().to_owned();
    let other = Run::open::<Card>(&path, [8; 16]).unwrap_err().to_string();
    assert!(other.contains("another journal"), "{other}");
}

#[test]
fn days_that_are_no_longer_kept_are_gone_from_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = new_shelf(directory.path());
    shelf.insert(YESTERDAY, &card(1, 1, 1));
    shelf.insert(TODAY, &card(1, 2, 2));
    shelf.flush().unwrap();
    assert_eq!(shelf.expire(TODAY).unwrap(), 1);
    assert!(!directory.path().join("20260203").exists());
    assert_eq!(shelf.find(YESTERDAY, key(1, 1)).unwrap(), None);
    assert_eq!(shelf.find(TODAY, key(1, 2)).unwrap(), Some(card(1, 2, 2)));
}

/// Lets the first so many removals through.
struct Removals(std::sync::atomic::AtomicUsize);

impl FileGate for Removals {
    fn before(&self, step: FileStep<'_>, _: &Path) -> std::io::Result<()> {
        use std::sync::atomic::Ordering;
        if step != FileStep::Remove
            || self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        {
            return Ok(());
        }
        Err(std::io::ErrorKind::Interrupted.into())
    }
}

#[test]
fn a_removal_that_is_cut_short_after_any_file_leaves_a_register_that_opens() {
    for removed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let gate = Removals(removed.into());
        let mut shelf = Shelf::<Card>::create(ShelfOptions {
            door: FileDoor::with(Some(std::sync::Arc::new(gate))),
            ..options(directory.path())
        })
        .unwrap();
        for run in 1..=3 {
            shelf.insert(YESTERDAY, &card(1, run, run));
            shelf.insert(TODAY, &card(2, run, run));
            shelf.flush().unwrap();
        }
        let coverage = shelf.coverage();
        assert!(shelf.expire(TODAY).is_err(), "{removed} of three are removed");
        drop(shelf);
        let mut shelf = Shelf::<Card>::open(options(directory.path()), &coverage, TODAY).unwrap();
        assert_eq!(shelf.find(TODAY, key(2, 1)).unwrap(), Some(card(2, 1, 1)));
        shelf.expire(TODAY).unwrap();
        assert!(!directory.path().join("20260203").exists());
    }
}
