//! Records appended at a rate and made durable, timed one by one from when each was due until it was durable.
//!
//! Two threads, as in the switch: one appends and publishes and never blocks, one makes durable what was published and
//! does nothing else. What they work on is behind two small traits, so that ways of doing it can be compared.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::relay_load::latency_histogram;
use super::report::LatencyFigures;
use crate::agent::ScheduleClass;
use crate::domain::UtcNanos;
use crate::journal::{Appender, Positions, Syncer};
use crate::wire::RecordKind;

/// A payload; with its header a record is 160 bytes, what a payment request takes.
pub const PAYLOAD_BYTES: usize = 128;
/// The same with the header.
pub const RECORD_BYTES: u64 = 160;

const BURST_RECORDS_MAX: u64 = 1_024;
const MARKS: usize = 1 << 18;
/// The syncing thread looks for work so long before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
const SLEEP_MAX: Duration = Duration::from_millis(10);
/// Whoever has had no room for so long gets none any more.
const NO_ROOM_MAX: Duration = Duration::from_secs(10);
const SECOND_NS: u64 = 1_000_000_000;
/// Fractions of a nanosecond in the times that records are due.
const FINE_BITS: u32 = 32;
/// Whoever only looks at the clock and finds that so much time has passed was not running: the host or the kernel had the
/// core.
const STALL: Duration = Duration::from_micros(100);

/// Where records are put.
pub trait AppendEnd: Send {
    /// Puts one record; false when there is no room now.
    fn append(&mut self, time: UtcNanos, payload: &[u8; PAYLOAD_BYTES]) -> bool;

    /// Lets the other end see what was put, and returns where it ends.
    fn publish(&mut self) -> u64;
}

/// Where they are made durable.
pub trait SyncEnd: Send {
    /// True when something published is not durable.
    fn has_work(&self) -> bool;

    /// Makes durable what is published, and returns where that ends. Blocks.
    ///
    /// # Errors
    /// The disk refused.
    fn sync(&mut self) -> io::Result<u64>;
}

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub struct AppendLoad {
    /// Records a second; `None`: as many as are taken.
    pub rate: Option<u64>,
    /// How long.
    pub duration: Duration,
    /// At most so many records.
    pub records_max: u64,
}

/// Latency of one second's records, microseconds from when they were due until they were durable.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SecondLatency {
    /// Records that were due in it.
    pub records: u64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// How long the appending thread, which is never without work, did not run.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Stalls {
    /// Times of over 100 µs.
    pub count: u64,
    /// Their sum, milliseconds.
    pub total_ms: f64,
    /// The longest, milliseconds.
    pub longest_ms: f64,
}

impl Stalls {
    fn add(&mut self, stall: Duration) {
        let ms = stall.as_secs_f64() * 1e3;
        self.count += 1;
        self.total_ms += ms;
        self.longest_ms = self.longest_ms.max(ms);
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct AppendFigures {
    /// Records made durable.
    pub records: u64,
    /// From the first record's time until all were durable.
    pub seconds: f64,
    /// Records a second over that time.
    pub per_second: f64,
    /// Megabytes (10⁶) of records a second.
    pub mb_per_second: f64,
    /// What one append cost the thread that appends, nanoseconds; a mean.
    pub append_ns: f64,
    /// From when a record was due (at a rate) or put (without one) until it was durable.
    pub latency_us: Option<LatencyFigures>,
    /// The same second by second.
    pub each_second: Vec<SecondLatency>,
    /// Times the appending thread found no room.
    pub without_room: u64,
    /// Times the appending thread was kept from running: what was due then is late through nobody's fault.
    pub stalls: Stalls,
    /// Durable writes.
    pub syncs: u64,
    /// Records' bytes a durable write.
    pub bytes_per_sync: f64,
    /// Bytes this process gave to block devices meanwhile, a durable write; `null` where the kernel does not say.
    pub written_bytes_per_sync: Option<f64>,
    /// The scheduling class of the syncing thread.
    pub syncer_class: &'static str,
}

/// Records published together.
#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u64,
    first: u64,
    count: u64,
    put_ns: u64,
}

/// What the two threads share.
struct Shared {
    began: Instant,
    marks: ArrayQueue<Mark>,
    asleep: AtomicBool,
    all_put: AtomicBool,
    /// A thread has ended, well or not: the other one must not wait for it.
    ended: AtomicBool,
}

/// Runs `load` through the two ends.
///
/// # Errors
/// The disk refused.
///
/// # Panics
/// When a thread can't be started.
pub fn run(append: impl AppendEnd, sync: impl SyncEnd, load: &AppendLoad) -> io::Result<AppendFigures> {
    let shared = &Shared {
        began: Instant::now(),
        marks: ArrayQueue::new(MARKS),
        asleep: AtomicBool::new(false),
        all_put: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let (first, second) = (cores.first().copied(), cores.get(1).copied());
    let written_before = written_bytes();
    let (put, synced) = std::thread::scope(|scope| {
        let syncing = scope.spawn(move || {
            let _ended = EndsOnDrop(shared);
            pin(second);
            Syncing::new(shared, load.rate).run(sync)
        });
        let handle = syncing.thread().clone();
        let appending = scope.spawn(move || {
            let _ended = EndsOnDrop(shared);
            pin(first);
            put_all(append, shared, load, &handle)
        });
        (
            appending
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            syncing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    });
    let synced = synced?;
    let written = written_bytes()
        .zip(written_before)
        .map(|(after, before)| after - before);
    let syncs = synced.syncs.max(1) as f64;
    let bytes = (put.records * RECORD_BYTES) as f64;
    Ok(AppendFigures {
        records: put.records,
        seconds: synced.seconds,
        per_second: put.records as f64 / synced.seconds,
        mb_per_second: bytes / 1e6 / synced.seconds,
        append_ns: put.cost.as_nanos() as f64 / put.records.max(1) as f64,
        latency_us: LatencyFigures::of(&synced.latency),
        each_second: synced.each_second,
        without_room: put.without_room,
        stalls: put.stalls,
        syncs: synced.syncs,
        bytes_per_sync: bytes / syncs,
        written_bytes_per_sync: written.map(|written| written as f64 / syncs),
        syncer_class: synced.class,
    })
}

fn pin(core: Option<core_affinity::CoreId>) {
    if let Some(core) = core {
        core_affinity::set_for_current(core);
    }
}

struct EndsOnDrop<'a>(&'a Shared);

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct Put {
    records: u64,
    cost: Duration,
    without_room: u64,
    stalls: Stalls,
}

fn put_all(mut append: impl AppendEnd, shared: &Shared, load: &AppendLoad, syncing: &std::thread::Thread) -> Put {
    let mut put = Put::default();
    let mut had_room = Instant::now();
    let payload = [0x5A; PAYLOAD_BYTES];
    let mut looked = shared.began.elapsed();
    while !shared.ended.load(Ordering::Acquire) {
        let elapsed = shared.began.elapsed();
        if elapsed - looked > STALL {
            put.stalls.add(elapsed - looked);
        }
        looked = elapsed;
        if elapsed >= load.duration || put.records >= load.records_max {
            break;
        }
        let due = load.rate.map_or(u64::MAX, |rate| {
            (u128::from(rate) * elapsed.as_nanos() / u128::from(SECOND_NS)) as u64
        });
        let wanted = due
            .min(load.records_max)
            .saturating_sub(put.records)
            .min(BURST_RECORDS_MAX);
        if wanted == 0 {
            std::hint::spin_loop();
            continue;
        }
        let mut count = 0;
        let begun = Instant::now();
        while count < wanted && append.append(UtcNanos(put.records + count), &payload) {
            count += 1;
        }
        put.cost += begun.elapsed();
        if count == 0 {
            put.without_room += 1;
            if had_room.elapsed() > NO_ROOM_MAX {
                break;
            }
            std::thread::yield_now();
            continue;
        }
        had_room = begun;
        let mut mark = Mark {
            end: append.publish(),
            first: put.records,
            count,
            put_ns: elapsed.as_nanos() as u64,
        };
        put.records += count;
        looked = shared.began.elapsed();
        while let Err(refused) = shared.marks.push(mark) {
            mark = refused;
            std::thread::yield_now();
            if shared.ended.load(Ordering::Acquire) {
                return put;
            }
        }
        // Pairs with the fence of who has just said that it sleeps.
        fence(Ordering::SeqCst);
        if shared.asleep.load(Ordering::Relaxed) {
            syncing.unpark();
        }
    }
    shared.all_put.store(true, Ordering::Release);
    syncing.unpark();
    put
}

/// The thread that makes durable.
struct Syncing<'a> {
    shared: &'a Shared,
    rate: Option<u64>,
    pending: VecDeque<Mark>,
    second: u64,
    of_second: Histogram<u64>,
    synced: Synced,
}

struct Synced {
    latency: Histogram<u64>,
    each_second: Vec<SecondLatency>,
    syncs: u64,
    seconds: f64,
    class: &'static str,
}

impl<'a> Syncing<'a> {
    fn new(shared: &'a Shared, rate: Option<u64>) -> Self {
        Self {
            shared,
            rate,
            pending: VecDeque::new(),
            second: 0,
            of_second: latency_histogram(),
            synced: Synced {
                latency: latency_histogram(),
                each_second: Vec::new(),
                syncs: 0,
                seconds: 0.0,
                class: ScheduleClass::Fifo.apply_to_current_thread().name(),
            },
        }
    }

    fn run(mut self, mut sync: impl SyncEnd) -> io::Result<Synced> {
        loop {
            let all_put = self.shared.all_put.load(Ordering::Acquire);
            if sync.has_work() {
                let durable = sync.sync()?;
                self.synced.syncs += 1;
                self.count(durable);
            } else if all_put || self.shared.ended.load(Ordering::Acquire) {
                break;
            } else {
                self.wait(&sync);
            }
        }
        self.end_second();
        self.synced.seconds = self.shared.began.elapsed().as_secs_f64();
        Ok(self.synced)
    }

    fn wait(&self, sync: &impl SyncEnd) {
        let shared = self.shared;
        let nothing = || !sync.has_work() && !shared.all_put.load(Ordering::Acquire);
        let begun = Instant::now();
        while begun.elapsed() < SPIN {
            if !nothing() {
                return;
            }
            std::hint::spin_loop();
        }
        shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if nothing() {
            std::thread::park_timeout(SLEEP_MAX);
        }
        shared.asleep.store(false, Ordering::Relaxed);
    }

    /// Times all that has become durable.
    fn count(&mut self, durable: u64) {
        let now = self.shared.began.elapsed().as_nanos() as u64;
        while let Some(mark) = self.shared.marks.pop() {
            self.pending.push_back(mark);
        }
        while let Some(mark) = self.pending.front().copied().filter(|mark| mark.end <= durable) {
            self.pending.pop_front();
            // A division a record would keep the syncing thread from its next write.
            let (mut due_fine, step) = match self.rate {
                Some(rate) => (
                    ((u128::from(mark.first) * u128::from(SECOND_NS)) << FINE_BITS) / u128::from(rate),
                    (u128::from(SECOND_NS) << FINE_BITS) / u128::from(rate),
                ),
                None => (u128::from(mark.put_ns) << FINE_BITS, 0),
            };
            for _ in 0..mark.count {
                let due = (due_fine >> FINE_BITS) as u64;
                due_fine += step;
                if due / SECOND_NS != self.second {
                    self.end_second();
                    self.second = due / SECOND_NS;
                }
                self.of_second.saturating_record(now.saturating_sub(due));
            }
        }
    }

    fn end_second(&mut self) {
        if self.of_second.is_empty() {
            return;
        }
        let us = |quantile| self.of_second.value_at_quantile(quantile) as f64 / 1e3;
        self.synced.each_second.push(SecondLatency {
            records: self.of_second.len(),
            p50: us(0.5),
            p99: us(0.99),
            max: self.of_second.max() as f64 / 1e3,
        });
        self.synced.latency += &self.of_second;
        self.of_second.reset();
    }
}

/// Bytes this process has caused to be written to block devices.
fn written_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))?
        .parse()
        .ok()
}

/// The journal's own end.
#[derive(Debug)]
pub struct JournalAppend(pub Appender);

impl AppendEnd for JournalAppend {
    #[inline]
    fn append(&mut self, time: UtcNanos, payload: &[u8; PAYLOAD_BYTES]) -> bool {
        let write = |out: &mut [u8]| out.copy_from_slice(payload);
        self.0.append(RecordKind::Request, time, PAYLOAD_BYTES, write).is_ok()
    }

    fn publish(&mut self) -> u64 {
        self.0.publish();
        self.0.position()
    }
}

/// The journal's other end. Nobody reads: what is durable is given back to the ring at once.
#[derive(Debug)]
pub struct JournalSync {
    /// Writes.
    pub syncer: Syncer,
    /// The journal's.
    pub positions: std::sync::Arc<Positions>,
}

impl SyncEnd for JournalSync {
    fn has_work(&self) -> bool {
        self.syncer.has_work()
    }

    fn sync(&mut self) -> io::Result<u64> {
        self.syncer.sync().map_err(io::Error::other)?;
        let durable = self.positions.durable();
        self.positions.set_applied(durable);
        Ok(durable)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Counts, and is as slow as it is told.
    struct Counted {
        put: u64,
        published: Arc<AtomicU64>,
        durable: u64,
        takes: Duration,
        fails_at: u64,
    }

    fn ends(takes: Duration, fails_at: u64) -> (Counted, Counted) {
        let published = Arc::new(AtomicU64::new(0));
        let end = |published| Counted {
            put: 0,
            published,
            durable: 0,
            takes,
            fails_at,
        };
        (end(Arc::clone(&published)), end(published))
    }

    impl AppendEnd for Counted {
        fn append(&mut self, _: UtcNanos, _: &[u8; PAYLOAD_BYTES]) -> bool {
            self.put += RECORD_BYTES;
            true
        }

        fn publish(&mut self) -> u64 {
            self.published.store(self.put, Ordering::Release);
            self.put
        }
    }

    impl SyncEnd for Counted {
        fn has_work(&self) -> bool {
            self.published.load(Ordering::Acquire) > self.durable
        }

        fn sync(&mut self) -> io::Result<u64> {
            let to = self.published.load(Ordering::Acquire);
            let begun = Instant::now();
            while begun.elapsed() < self.takes {
                std::hint::spin_loop();
            }
            self.durable = to;
            if to >= self.fails_at {
                return Err(io::Error::other("no more"));
            }
            Ok(to)
        }
    }

    #[test]
    fn every_record_is_timed_from_when_it_was_due() {
        let takes = Duration::from_millis(2);
        let (append, sync) = ends(takes, u64::MAX);
        let load = AppendLoad {
            rate: Some(100_000),
            duration: Duration::from_millis(1_200),
            records_max: u64::MAX,
        };
        let figures = run(append, sync, &load).unwrap();
        assert!(figures.records > 100_000, "{figures:?}");
        let timed: u64 = figures.each_second.iter().map(|second| second.records).sum();
        assert_eq!((timed, figures.each_second.len()), (figures.records, 2));
        // A record waits for a write of its own and on average for half of the one before.
        let latency = figures.latency_us.unwrap();
        assert!(latency.p50 >= 2_000.0 && latency.max >= latency.p99, "{latency:?}");
        assert!(figures.syncs as f64 <= figures.seconds / takes.as_secs_f64());
    }

    #[test]
    fn a_disk_that_refuses_ends_the_run_with_its_error() {
        let (append, sync) = ends(Duration::ZERO, 10_000 * RECORD_BYTES);
        let load = AppendLoad {
            rate: None,
            duration: Duration::from_secs(60),
            records_max: u64::MAX,
        };
        assert_eq!(run(append, sync, &load).unwrap_err().to_string(), "no more");
    }
}
