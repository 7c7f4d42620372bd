//! Rehearsals of the whole switch: a slice of seeds, those that once failed, and that one seed gives one run.

use clearway::rehearsal::{Counts, rehearse};

/// Seeds that once failed, each with what was wrong then, in the switch or in the rehearsal itself. They stay.
const ONCE_FAILED: &[(u64, &str)] = &[
    (
        84,
        "an id was reused before the original was taken, and the other content became the payment",
    ),
    (
        177,
        "an older answer that came late by another line was taken for a new one",
    ),
    (
        189,
        "a segment that a crash left unfinished stood where a full disk was played",
    ),
    (
        411,
        "an inquiry's answer that came late by another line was taken for a new one",
    ),
    (
        455,
        "a heartbeat that waited behind a slow send was taken for a word number going back",
    ),
    (
        1_722,
        "a link thread held up until the stop sent a request of long ago, after its answer",
    ),
    (
        41_400,
        "a lie about an id that no payment had yet was taken for a late word about the payment that came later",
    ),
    (
        100_697,
        "a machine that stopped in the very first write left a journal with which no switch would start",
    ),
    (
        1_002_655,
        "a write that failed late was taken back after recovery had written it again and flushed it",
    ),
    (
        3_001_594,
        "a stop that was begun among the faults ended in the middle of the roll call",
    ),
    (
        294,
        "a lost file of the register was taken for one that will be there again, and nobody was told to see to it",
    ),
];

fn pass(seed: u64) -> clearway::rehearsal::Report {
    rehearse(seed).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_slice_of_seeds_holds_every_promise_and_meets_every_kind_of_trouble() {
    let mut sum = Counts::default();
    // Time must jump by more than two days, and nothing be open then, for a day to be sealed: the last of these does that.
    for seed in (1..=40).chain([70]) {
        sum.add(&pass(seed).counts);
    }
    for (name, count) in sum.fields() {
        assert!(count > 0, "no {name} in the whole slice: {sum:?}");
    }
}

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, what) in ONCE_FAILED {
        rehearse(*seed).unwrap_or_else(|failure| panic!("once it was: {what}\n{failure}"));
    }
}

#[test]
fn one_seed_gives_one_run() {
    for seed in [3, 11, 20] {
        let (first, second) = (pass(seed), pass(seed));
        assert_eq!(first, second, "seed {seed}");
        assert!(first.counts.committed > 0, "seed {seed}: {:?}", first.counts);
    }
    assert_ne!(pass(3).digest, pass(11).digest);
}
