//! What the journal costs: one append in memory, and a batch made durable.

use std::cell::RefCell;
use std::hint::black_box;
use std::path::Path;

use clearway::domain::UtcNanos;
use clearway::journal::{Journal, JournalOptions, SyncMode};
use clearway::wire::RecordKind;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const PAYLOAD_BYTES: usize = 128;
const BATCH: u64 = 1_000;

fn open(directory: &Path, sync: SyncMode) -> Journal {
    Journal::create(JournalOptions {
        directory: directory.to_owned(),
        segment_bytes: 64 << 20,
        ring_bytes: 256 << 20,
        sync,
        lock_memory: false,
        prepared_segments: 2,
        link_agents: 0,
        start: None,
        gate: None,
    })
    .expect("a journal in a directory of the bench's own")
}

fn append_batch(journal: &mut Journal, payload: &[u8; PAYLOAD_BYTES]) {
    for time in 0..BATCH {
        journal
            .appender
            .append(RecordKind::Request, UtcNanos(time), PAYLOAD_BYTES, |out| {
                out.copy_from_slice(black_box(payload))
            })
            .expect("the ring has room for a batch");
    }
    journal.appender.publish();
}

fn sync(journal: &mut Journal) {
    journal.syncer.sync().expect("the disk takes it");
    while let Some(record) = journal.reader.next() {
        black_box(record);
    }
    journal.positions.set_applied(journal.reader.position());
}

fn prepare(journal: &mut Journal) {
    journal
        .preparer
        .prepare()
        .expect("there is room for the bench's segments");
}

fn append(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the bench");
    let journal = open(directory.path(), SyncMode::Auto);
    let payload = [7; PAYLOAD_BYTES];
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(BATCH)).sample_size(20);
    let journal = RefCell::new(journal);
    group.bench_function("append 1,000 requests in memory", |b| {
        b.iter_batched(
            || {
                sync(&mut journal.borrow_mut());
                prepare(&mut journal.borrow_mut());
            },
            |()| append_batch(&mut journal.borrow_mut(), &payload),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn append_and_sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(BATCH)).sample_size(20);
    for (name, mode) in [
        ("as the disk allows", SyncMode::Auto),
        ("fdatasync", SyncMode::Fdatasync),
    ] {
        let directory = tempfile::tempdir().expect("a directory for the bench");
        let journal = RefCell::new(open(directory.path(), mode));
        let payload = [7; PAYLOAD_BYTES];
        group.bench_function(format!("append 1,000 requests and sync, {name}"), |b| {
            b.iter_batched(
                || prepare(&mut journal.borrow_mut()),
                |()| {
                    let journal = &mut journal.borrow_mut();
                    append_batch(journal, &payload);
                    sync(journal);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, append, append_and_sync);
criterion_main!(benches);
