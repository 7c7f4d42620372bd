//! Ways to make records durable, in one run: why the journal's tail is memory and its writes are direct.
//!
//! Records of 160 bytes at 88,000 and 2,000,000 a second, each timed from when it was due until it was durable, by the
//! same two threads whatever the way:
//! - stored through a mapping of the file, then `fdatasync`;
//! - put into the journal's tail in memory, written with `pwrite`, then `fdatasync`;
//! - put into the same tail, written with `O_DIRECT | O_DSYNC`: the journal as it is.
//!
//! All blocks are allocated and written before, so that nothing else is written meanwhile: bytes written a durable write
//! are this process's, as the kernel counts them. `CLEARWAY_BENCH_SECONDS` sets how long each takes (3),
//! `CLEARWAY_BENCH_DIR` where (a temporary directory).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clearway::domain::UtcNanos;
use clearway::journal::{Journal, JournalOptions, SyncMode};
use clearway::measure::append::{
    AppendEnd, AppendFigures, AppendLoad, JournalAppend, JournalSync, PAYLOAD_BYTES, RECORD_BYTES, SyncEnd, run,
};
use memmap2::MmapMut;

const RATES: [u64; 2] = [88_000, 2_000_000];
const SEGMENT_BYTES: u64 = 64 << 20;
const RING_BYTES: u64 = 256 << 20;

fn main() {
    // `cargo test` runs benches to see that they work; criterion's flag for that is `--test`.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let seconds: f64 = match std::env::var("CLEARWAY_BENCH_SECONDS") {
        Ok(text) => text.parse().expect("CLEARWAY_BENCH_SECONDS is a number of seconds"),
        Err(_) => 3.0,
    };
    let seconds = if is_test { 0.1 } else { seconds };
    let place = match std::env::var_os("CLEARWAY_BENCH_DIR") {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    }
    .expect("a directory for the bench");
    println!(
        "{:34} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9} {:>10} {:>10}",
        "way", "records/s", "durable/s", "p50 µs", "p99 µs", "max µs", "append ns", "syncs/s", "bytes/sync", "written"
    );
    for rate in RATES {
        let load = AppendLoad {
            rate: Some(rate),
            duration: Duration::from_secs_f64(seconds),
            records_max: u64::MAX,
        };
        let records = (rate as f64 * seconds) as u64;
        tell(
            "file mapping + fdatasync",
            rate,
            &through_a_mapping(place.path(), &load, records),
        );
        for (name, sync) in [
            ("tail in memory + fdatasync", SyncMode::Fdatasync),
            ("tail in memory + direct, as it is", SyncMode::Auto),
        ] {
            tell(name, rate, &through_the_journal(place.path(), sync, &load, records));
        }
    }
}

fn tell(way: &str, rate: u64, figures: &AppendFigures) {
    let latency = figures.latency_us.as_ref().expect("records were timed");
    let written = figures
        .written_bytes_per_sync
        .map_or("unknown".to_owned(), |bytes| format!("{bytes:.0}"));
    println!(
        "{way:34} {rate:>9} {:>9.0} {:>9.0} {:>9.0} {:>10.0} {:>9.1} {:>9.0} {:>10.0} {written:>10}",
        figures.per_second,
        latency.p50,
        latency.p99,
        latency.max,
        figures.append_ns,
        figures.syncs as f64 / figures.seconds,
        figures.bytes_per_sync,
    );
}

fn through_the_journal(directory: &Path, sync: SyncMode, load: &AppendLoad, records: u64) -> AppendFigures {
    let place = tempfile::tempdir_in(directory).expect("a directory for the journal");
    let segments = records * RECORD_BYTES * 5 / 4 / SEGMENT_BYTES + 2;
    let mut journal = Journal::create(JournalOptions {
        directory: place.path().to_owned(),
        segment_bytes: SEGMENT_BYTES,
        ring_bytes: RING_BYTES,
        sync,
        lock_memory: true,
        prepared_segments: segments as u32,
        link_agents: 0,
        start: None,
        gate: None,
    })
    .expect("a journal in a directory of the bench's own");
    while journal
        .preparer
        .prepare()
        .expect("there is room for the bench's segments")
    {}
    let sync = JournalSync {
        syncer: journal.syncer,
        positions: journal.positions,
    };
    run(JournalAppend(journal.appender), sync, load).expect("the disk takes it")
}

/// A record's checksum is made in all ways; here it is the plain one.
struct MappedAppend {
    map: MmapMut,
    end: u64,
    published: Arc<AtomicU64>,
}

struct MappedSync {
    file: File,
    published: Arc<AtomicU64>,
    durable: u64,
}

impl AppendEnd for MappedAppend {
    fn append(&mut self, time: UtcNanos, payload: &[u8; PAYLOAD_BYTES]) -> bool {
        let Some(record) = self.map.get_mut(self.end as usize..(self.end + RECORD_BYTES) as usize) else {
            return false;
        };
        record[..8].copy_from_slice(&time.0.to_le_bytes());
        record[32..].copy_from_slice(payload);
        let checksum = crc32c::crc32c(&record[..]);
        record[28..32].copy_from_slice(&checksum.to_le_bytes());
        self.end += RECORD_BYTES;
        true
    }

    fn publish(&mut self) -> u64 {
        self.published.store(self.end, Ordering::Release);
        self.end
    }
}

impl SyncEnd for MappedSync {
    fn has_work(&self) -> bool {
        self.published.load(Ordering::Acquire) > self.durable
    }

    fn sync(&mut self) -> io::Result<u64> {
        let to = self.published.load(Ordering::Acquire);
        self.file.sync_data()?;
        self.durable = to;
        Ok(to)
    }
}

fn through_a_mapping(directory: &Path, load: &AppendLoad, records: u64) -> AppendFigures {
    let path = directory.join("mapped");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a file of the bench's own");
    let bytes = (records * RECORD_BYTES * 5 / 4).next_multiple_of(1 << 20);
    let zeros = vec![0; 1 << 20];
    for offset in (0..bytes).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)
            .expect("there is room for the bench's file");
    }
    file.sync_all().expect("the disk takes it");
    // SAFETY: the file is the bench's own and nobody truncates it.
    let map = unsafe { MmapMut::map_mut(&file) }.expect("a mapping of the file");
    let published = Arc::new(AtomicU64::new(0));
    let append = MappedAppend {
        map,
        end: 0,
        published: Arc::clone(&published),
    };
    let sync = MappedSync {
        file,
        published,
        durable: 0,
    };
    let figures = run(append, sync, load).expect("the disk takes it");
    std::fs::remove_file(path).expect("the bench's own file can be removed");
    figures
}
