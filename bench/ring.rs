//! What a ring between two stages costs: on one thread, where stages share a core, and across two cores.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clearway::agent::{Ring, Wakeup};
use clearway::domain::{LinkId, ParticipantIndex, UtcNanos};
use clearway::wire::{BufferRef, FrameRun, Intake};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A duty cycle's worth of descriptors.
const BATCH: usize = 256;

fn ring(capacity: usize) -> Arc<Ring<Intake>> {
    let wakeup = Wakeup::new().expect("the process has a file descriptor left");
    Ring::new(capacity, Arc::new(wakeup))
}

/// A descriptor as the link agent hands it to the sequencer.
fn run(start: u32) -> Intake {
    Intake::Frames(FrameRun {
        buffer: BufferRef { agent: 0, buffer: 7 },
        start,
        end: start + 128,
        link: LinkId::new(3, 1),
        participant: ParticipantIndex(17),
        received: UtcNanos(1),
    })
}

fn on_one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/one_thread");
    let ring = ring(4 * BATCH);
    group.throughput(Throughput::Elements(1));
    group.bench_function("push_pop", |bencher| {
        bencher.iter(|| {
            ring.push(black_box(run(0))).expect("an empty ring has room");
            black_box(ring.pop())
        });
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("batch_of_256", |bencher| {
        bencher.iter(|| {
            for start in 0..BATCH as u32 {
                ring.push(black_box(run(start))).expect("the batch fits");
            }
            ring.notify();
            while let Some(intake) = ring.pop() {
                black_box(intake);
            }
        });
    });
    group.finish();
}

/// A consumer of its own thread takes what comes; the producer pushes batches and, when the ring is full, waits: the
/// time is what both together need for each descriptor.
fn across_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/two_threads");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(1));
    group.bench_function("batches_of_256", |bencher| {
        bencher.iter_custom(|iterations| {
            let ring = ring(4 * BATCH);
            let ended = Arc::new(AtomicBool::new(false));
            let consumer = {
                let (ring, ended) = (Arc::clone(&ring), Arc::clone(&ended));
                std::thread::spawn(move || {
                    let mut taken = 0u64;
                    loop {
                        match ring.pop() {
                            Some(intake) => {
                                black_box(intake);
                                taken += 1;
                            }
                            None if ended.load(Ordering::Acquire) && ring.is_empty() => return taken,
                            None => std::thread::yield_now(),
                        }
                    }
                })
            };
            let start = Instant::now();
            let mut sent = 0;
            while sent < iterations {
                let batch = (iterations - sent).min(BATCH as u64);
                for n in 0..batch {
                    let mut intake = run(n as u32);
                    while let Err(back) = ring.push(intake) {
                        intake = back;
                        std::thread::yield_now();
                    }
                }
                ring.notify();
                sent += batch;
            }
            ended.store(true, Ordering::Release);
            let taken = consumer.join().expect("the consumer does not panic");
            assert_eq!(taken, iterations, "a ring loses nothing");
            start.elapsed()
        });
    });
    group.finish();
}

criterion_group!(rings, on_one_thread, across_threads);
criterion_main!(rings);
