//! The claims of a partition on its own; those of all of them together stand with the index.

use super::*;

#[test]
fn serials_chosen_to_lie_in_one_place_are_spread_where_the_secret_is_another() {
    let key = 42;
    let guessed = Mixing::new(key, 1);
    let mut pool = Pool::new();
    let mut partition = Partition::new(key, 2);
    let chosen = (0..20_000).map(|n| guessed.unmix((1 << 63) + n));
    for (slot, serial) in (0..).zip(chosen) {
        partition.insert(serial, PaymentSlot(slot), &mut pool);
    }
    partition.invariants();
    let longest = partition.longest_run();
    assert!(longest < 2_000, "a run of {longest} of 20,000 entries");
}

#[test]
fn an_entry_at_either_end_of_the_numbers_lives_through_growth() {
    let key = 42;
    let mut pool = Pool::new();
    let mut partition = Partition::new(key, 0);
    let mixing = partition.mixing;
    // Mixed serials 0, u64::MAX and their neighbours: first and last homes, and a run behind the last home.
    let ends: Vec<u64> = (0..40)
        .chain((0..400).map(|n| u64::MAX - n))
        .map(|m| mixing.unmix(m))
        .collect();
    for (slot, &serial) in ends.iter().enumerate() {
        partition.insert(serial, PaymentSlot(slot as u32), &mut pool);
        partition.invariants();
    }
    for serial in 1 << 40..(1 << 40) + 20_000u64 {
        partition.insert(serial, PaymentSlot(serial as u32), &mut pool);
    }
    partition.invariants();
    for (slot, &serial) in ends.iter().enumerate() {
        assert_eq!(partition.find(serial), Some(PaymentSlot(slot as u32)));
    }
}
