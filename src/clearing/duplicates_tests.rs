//! The index against a map of the standard library.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::domain::ParticipantIndex;

fn id(date: u32, originator: u16, lane: u16, serial: u64) -> PaymentId {
    PaymentId::new(BusinessDate(date), ParticipantIndex(originator), lane, serial)
}

/// The `n`th serial of a pattern; no two of a pattern are the same.
fn serial(pattern: u8, n: u64) -> u64 {
    match pattern {
        0 => n,
        1 => u64::MAX - n,
        2 => n.reverse_bits(),
        3 => n << 32 | 0xFFFF,
        4 => n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        5 => n << 40,
        // Both ends of the range by turns.
        _ => {
            if n.is_multiple_of(2) {
                n / 2
            } else {
                u64::MAX - n / 2
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Run {
        date: u32,
        lane: u16,
        pattern: u8,
        count: u64,
    },
    Drop {
        date: u32,
    },
    SaveAndLoad,
}

fn step() -> impl Strategy<Value = Step> {
    let date = 20_260_203..20_260_206u32;
    prop_oneof![
        8 => (date.clone(), 0..3u16, 0..7u8, prop_oneof![1..100u64, 1..6000u64])
            .prop_map(|(date, lane, pattern, count)| Step::Run { date, lane, pattern, count }),
        1 => date.prop_map(|date| Step::Drop { date }),
        1 => Just(Step::SaveAndLoad),
    ]
}

fn saved_and_loaded(index: &DuplicateIndex) -> DuplicateIndex {
    let mut loaded = DuplicateIndex::new();
    for lane in index.partitions() {
        loaded.restore(lane.high(), lane.len(), lane.entries());
    }
    loaded
}

fn check(index: &DuplicateIndex, known: &HashMap<PaymentId, PaymentSlot>) {
    index.partitions.iter().for_each(Partition::invariants);
    assert_eq!(index.len(), known.len());
    for (&id, &slot) in known {
        assert_eq!(index.find(id), Some(slot), "{id}");
    }
    let entries = index.partitions().flat_map(|lane| {
        let high = lane.high();
        let entries: Vec<_> = lane.entries().collect();
        entries
            .into_iter()
            .map(move |(low, slot)| (PaymentId { high, low }, slot))
    });
    assert_eq!(entries.collect::<HashMap<_, _>>(), *known);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_index_knows_what_a_map_knows_whatever_the_serials(steps in prop::collection::vec(step(), 1..14)) {
        let mut index = DuplicateIndex::new();
        let mut known = HashMap::new();
        let mut next = HashMap::new();
        for step in steps {
            match step {
                Step::Run { date, lane, pattern, count } => {
                    let begun: &mut u64 = next.entry((date, lane, pattern)).or_default();
                    for n in *begun..*begun + count {
                        let id = id(date, 7, lane, serial(pattern, n));
                        prop_assert_eq!(index.find(id), known.get(&id).copied());
                        if !known.contains_key(&id) {
                            let slot = PaymentSlot(known.len() as u32);
                            index.insert(id, slot);
                            known.insert(id, slot);
                        }
                    }
                    *begun += count;
                }
                Step::Drop { date } => {
                    let before = known.len();
                    known.retain(|id, _| id.date().0 != date);
                    prop_assert_eq!(index.drop_date(BusinessDate(date)), before - known.len());
                    next.retain(|&(of, _, _), _| of != date);
                }
                Step::SaveAndLoad => index = saved_and_loaded(&index),
            }
            check(&index, &known);
        }
    }
}

#[test]
fn every_insert_of_a_growing_lane_keeps_the_order_and_every_id() {
    for pattern in 0..7 {
        let mut index = DuplicateIndex::new();
        let mut moving = 0;
        for n in 0..6_000 {
            index.insert(id(20_260_204, 1, 0, serial(pattern, n)), PaymentSlot(n as u32));
            moving += usize::from(index.partitions[0].grows());
            if n < 300 || n % 37 == 0 || index.partitions[0].grows() && n % 5 == 0 {
                index.partitions[0].invariants();
                for m in (0..=n).rev().step_by(1 + n as usize / 50) {
                    let found = index.find(id(20_260_204, 1, 0, serial(pattern, m)));
                    assert_eq!(found, Some(PaymentSlot(m as u32)), "pattern {pattern}, {m} after {n}");
                }
                assert_eq!(index.find(id(20_260_204, 1, 0, serial(pattern, n + 1))), None);
            }
        }
        assert!(moving > 200, "the lane grew under the eyes of {moving} inserts");
    }
}

#[test]
fn an_id_takes_less_than_sixteen_bytes_at_every_moment_of_growth() {
    let mut index = DuplicateIndex::new();
    let mut most = 0.0f64;
    for n in 0..600_000u64 {
        index.insert(id(20_260_204, 3, 1, n), PaymentSlot(n as u32));
        if n >= 60_000 {
            most = most.max(index.bytes() as f64 / index.len() as f64);
        }
    }
    index.partitions[0].invariants();
    assert!(most < 16.0, "{most} bytes an id");
}

#[test]
fn a_dropped_day_makes_room_for_the_next_without_new_memory() {
    let mut index = DuplicateIndex::new();
    let fill = |index: &mut DuplicateIndex, date, count: u64| {
        (0..count).for_each(|n| index.insert(id(date, (n % 5) as u16, 0, n / 5), PaymentSlot(n as u32)));
    };
    fill(&mut index, 20_260_203, 200_000);
    fill(&mut index, 20_260_204, 20_000);
    let mapped = index.pool.mapped_bytes();
    assert_eq!(index.drop_date(BusinessDate(20_260_203)), 200_000);
    assert_eq!(index.find(id(20_260_203, 0, 0, 0)), None);
    assert_eq!(index.find(id(20_260_204, 1, 0, 1)), Some(PaymentSlot(6)));
    assert!(index.bytes() < 1_000_000);
    fill(&mut index, 20_260_205, 200_000);
    assert_eq!(index.pool.mapped_bytes(), mapped);
    index.partitions.iter().for_each(Partition::invariants);
}

#[test]
fn a_lane_of_a_few_ids_costs_a_few_hundred_bytes() {
    let mut index = DuplicateIndex::new();
    (0..1024).for_each(|lane| index.insert(id(20_260_204, 9, lane, 1), PaymentSlot(u32::from(lane))));
    assert!(index.bytes() < 1024 * 500, "{}", index.bytes());
    assert_eq!(index.pool.mapped_bytes(), 0);
}
