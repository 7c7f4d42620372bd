//! What the duplicate index costs while it grows: bytes an id, the time of every insert, look-ups that hit and miss.
//!
//! `cargo bench --bench duplicates`; `CLEARWAY_BENCH_IDS=100000000` for another number of ids than ten million, and
//! `CLEARWAY_BENCH_RESERVE=1` to map the memory before the first insert, as the switch does. Prints one JSON object.
//! Times include two readings of the clock.

use std::hint::black_box;
use std::time::Instant;

use clearway::clearing::DuplicateIndex;
use clearway::domain::{BusinessDate, ParticipantIndex, PaymentId, PaymentSlot};
use hdrhistogram::Histogram;

/// Institutions that send, with three lanes each.
const ORIGINATORS: u64 = 115;
const LANES: u64 = 3;
/// Ids of two open days on paper.
const PAPER_IDS: f64 = 965e6;
const LOOK_UPS: u64 = 1_000_000;

fn id(n: u64) -> PaymentId {
    let originator = ParticipantIndex((n % ORIGINATORS) as u16);
    let lane = (n / ORIGINATORS % LANES) as u16;
    PaymentId::new(BusinessDate(20_261_123), originator, lane, n / ORIGINATORS / LANES)
}

fn main() {
    // As in the switch: the next page is mapped while the last one is filled.
    clearway::memory::start_mapper();
    let setting = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let ids = setting("CLEARWAY_BENCH_IDS").unwrap_or(10_000_000).max(1);
    let mut index = DuplicateIndex::new();
    let reserved = setting("CLEARWAY_BENCH_RESERVE").unwrap_or(0) != 0;
    if reserved {
        index.reserve(ids as usize).expect("memory for the ids");
    }
    let mut inserts = Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 3).expect("three digits");
    let (mut least, mut most, mut sum, mut samples) = (f64::MAX, 0.0f64, 0.0f64, 0u64);
    let began = Instant::now();
    for n in 0..ids {
        let id = id(n);
        let start = Instant::now();
        index.insert(black_box(id), PaymentSlot(n as u32));
        inserts.saturating_record(start.elapsed().as_nanos() as u64);
        if n >= 1_000_000 && n % 10_000 == 0 {
            let bytes_an_id = index.bytes() as f64 / index.len() as f64;
            least = least.min(bytes_an_id);
            most = most.max(bytes_an_id);
            sum += bytes_an_id;
            samples += 1;
        }
    }
    let inserts_s = began.elapsed().as_secs_f64();
    let step = 0x9E37_79B9_7F4A_7C15u64;
    let look_up_ns = |first: u64| {
        let start = Instant::now();
        let found = (0..LOOK_UPS)
            .filter(|n| black_box(index.find(id(first + n.wrapping_mul(step) % ids))).is_some())
            .count();
        (start.elapsed().as_nanos() as f64 / LOOK_UPS as f64, found as u64)
    };
    let (hit_ns, hits) = look_up_ns(0);
    let (miss_ns, missed) = look_up_ns(ids);
    assert_eq!((hits, missed), (LOOK_UPS, 0), "the index knows its ids and no other");
    let mean = sum / samples.max(1) as f64;
    let report = serde_json::json!({
        "ids": index.len(),
        "lanes": ORIGINATORS * LANES,
        "reserved": reserved,
        "bytes_an_id_from_a_million": { "min": least, "mean": mean, "max": most, "at_end": index.bytes() as f64 / ids as f64 },
        "insert_ns": {
            "mean": inserts_s * 1e9 / ids as f64,
            "p50": inserts.value_at_quantile(0.5),
            "p99": inserts.value_at_quantile(0.99),
            "p99.9": inserts.value_at_quantile(0.999),
            "p99.99": inserts.value_at_quantile(0.9999),
            "max": inserts.max(),
        },
        "find_ns": { "hit": hit_ns, "miss": miss_ns },
        "paper": { "ids": PAPER_IDS, "gib_mean": PAPER_IDS * mean / f64::from(1 << 30), "gib_max": PAPER_IDS * most / f64::from(1 << 30) },
    });
    println!("{}", serde_json::to_string_pretty(&report).expect("a JSON object"));
}
