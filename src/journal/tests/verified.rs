//! A check on many threads comes to the verdict of a walk through the records, whatever was done to the files.

use std::fs;
use std::num::NonZeroUsize;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{SEGMENT_BYTES, options};
use crate::journal::*;

/// A journal over several segments and two starts; the segments' bytes, to be written anew for each case.
fn written() -> Vec<Vec<u8>> {
    let place = tempfile::tempdir().unwrap();
    for start in 0..2 {
        let mut journal = if start == 0 {
            Journal::create(options(place.path())).unwrap()
        } else {
            Journal::open(options(place.path())).unwrap()
        };
        for _ in 0..8 {
            for _ in 0..20 {
                journal.put_next();
            }
            journal.appender.publish();
            journal.syncer.sync().unwrap();
            journal.read_all();
            journal.preparer.prepare().unwrap();
        }
    }
    let segments = (0..).map_while(|number| fs::read(place.path().join(format!("{number:012}.seg"))).ok());
    segments.collect()
}

#[derive(Clone, Debug)]
enum Harm {
    Flip { at: usize, bit: u8 },
    Zero { from: usize, count: usize },
    Swap { one: usize, other: usize },
    Lose { segment: usize },
}

fn harm(bytes: usize, segments: usize) -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (0..bytes, 0..8_u8).prop_map(|(at, bit)| Harm::Flip { at, bit }),
        4 => (0..bytes, 1..9_000_usize).prop_map(|(from, count)| Harm::Zero { from, count }),
        1 => (0..segments, 0..segments).prop_map(|(one, other)| Harm::Swap { one, other }),
        1 => (0..segments).prop_map(|segment| Harm::Lose { segment }),
    ]
}

fn apply(harm: &Harm, segments: &mut [Vec<u8>]) {
    let length = SEGMENT_BYTES as usize;
    match *harm {
        Harm::Flip { at, bit } => segments[at / length][at % length] ^= 1 << bit,
        Harm::Zero { from, count } => {
            let segment = &mut segments[from / length];
            let from = from % length;
            segment[from..(from + count).min(length)].fill(0);
        }
        // Headers stay, so that the files still look like this journal's.
        Harm::Swap { one, other } => {
            let (one_body, other_body) = (segments[one][4096..].to_vec(), segments[other][4096..].to_vec());
            segments[one][4096..].copy_from_slice(&other_body);
            segments[other][4096..].copy_from_slice(&one_body);
        }
        Harm::Lose { segment } => segments[segment][4096..].fill(0),
    }
}

/// Events, the end, and the damage in words.
type Verdict = (u64, u64, Option<String>);

/// By a walk, and by a check on `threads` threads; none where a header is refused before either.
fn verdicts(place: &TempDir, threads: usize) -> Option<[Verdict; 2]> {
    let files = JournalFiles::open(place.path()).ok()?;
    let mut records = files.records();
    let (mut events, mut damage) = (0, None);
    for record in records.by_ref() {
        match record {
            Ok(record) => events = record.number,
            Err(error) => damage = Some(error.to_string()),
        }
    }
    let found = files.verify(NonZeroUsize::new(threads).unwrap(), &|_| {});
    let walked = (events, records.position(), damage);
    let damage = found.damage.map(|error| error.to_string());
    Some([walked, (found.events, found.end, damage)])
}

#[test]
fn a_check_on_many_threads_comes_to_the_verdict_of_a_walk() {
    let pristine = written();
    assert!(pristine.len() > 4, "the journal must span segments for this");
    let (bytes, count) = (pristine.len() * SEGMENT_BYTES as usize, pristine.len());
    let (mut damaged, mut cut) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    });
    let seen = std::cell::RefCell::new((&mut damaged, &mut cut));
    runner
        .run(
            &(prop::collection::vec(harm(bytes, count), 0..3), 1..4_usize),
            |(harms, threads)| {
                let mut segments = pristine.clone();
                harms.iter().for_each(|harm| apply(harm, &mut segments));
                let place = tempfile::tempdir().unwrap();
                for (number, segment) in segments.iter().enumerate() {
                    fs::write(place.path().join(format!("{number:012}.seg")), segment).unwrap();
                }
                if let Some([walked, checked]) = verdicts(&place, threads) {
                    prop_assert_eq!(&walked, &checked);
                    let mut seen = seen.borrow_mut();
                    if walked.2.is_some() {
                        *seen.0 += 1;
                    } else {
                        *seen.1 += 1;
                    }
                }
                Ok(())
            },
        )
        .unwrap();
    assert!(damaged > 20 && cut > 20, "damage {damaged} times, none {cut} times");
}
