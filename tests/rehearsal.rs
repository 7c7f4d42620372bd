//! Rehearsals of the whole switch: a slice of seeds, those that once failed, and that one seed gives one run.

use clearway::rehearsal::rehearse;

/// Seeds that once failed, each with what was wrong in the switch. They stay.
const ONCE_FAILED: &[(u64, &str)] = &[];

#[test]
fn a_slice_of_seeds_holds_every_promise() {
    for seed in 1..=32 {
        rehearse(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, what) in ONCE_FAILED {
        rehearse(*seed).unwrap_or_else(|failure| panic!("{what}, again:\n{failure}"));
    }
}

#[test]
fn one_seed_gives_one_run() {
    for seed in [3, 11, 20] {
        let run = || rehearse(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let (first, second) = (run(), run());
        assert_eq!(first, second, "seed {seed}");
        assert!(first.counts.committed > 0, "seed {seed}: {:?}", first.counts);
    }
    assert_ne!(rehearse(3).map(|r| r.digest).ok(), rehearse(11).map(|r| r.digest).ok());
}

#[test]
fn the_slice_meets_every_kind_of_trouble() {
    let mut sum = clearway::rehearsal::Counts::default();
    for seed in 1..=32 {
        sum.add(&rehearse(seed).unwrap_or_else(|failure| panic!("{failure}")).counts);
    }
    for (name, count) in sum.fields() {
        assert!(count > 0, "no {name} in the whole slice: {sum:?}");
    }
}
