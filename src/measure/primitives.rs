//! The limits below the relay: a TCP round trip, a bare durable write, a checksum, a hash.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::relay_load::{Quantiles, latency_histogram};
use crate::agent::ScheduleClass;

const BLOCK_BYTES: usize = 4_096;
const FRAME_BYTES: usize = 128;
/// Writes measured for a quantile.
const WRITES: usize = 1_000;
/// Longest time for them.
const WRITES_TIME_MAX: Duration = Duration::from_secs(2);
const SEQUENTIAL_WRITE_BYTES: usize = 1 << 20;
const SEQUENTIAL_WRITES: usize = 128;

/// How writes were made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// `O_DIRECT | O_DSYNC`.
    Direct,
    /// `pwrite` and `fdatasync`, where the file system refuses direct I/O.
    Fdatasync,
}

/// What a bare durable write costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DurableWrite {
    /// Time of one write, microseconds.
    pub us: Quantiles,
    /// Megabytes (10⁶) a second, writes one after the other.
    pub mb_per_second: f64,
    /// How it was made durable.
    pub sync: SyncMode,
    /// The scheduling class of the writing thread: `fifo`, `nice` or `normal`.
    pub class: &'static str,
}

/// Writes blocks of `bytes` (a multiple of 4 KiB) one after the other into a file in `directory` that was allocated and
/// written before, on a thread of the syncer's class, and times each until it is durable. The file is removed.
///
/// # Errors
/// As the file system says.
pub fn durable_write(directory: &Path, bytes: usize) -> io::Result<DurableWrite> {
    write_durably(directory, bytes, WRITES, WRITES_TIME_MAX, None)
}

/// As [`durable_write`] for so long, on the second core, while a thread spins on the first: the class, the core and the load
/// that a journal's syncer has beside a stage that never sleeps.
///
/// # Errors
/// As the file system says.
pub fn durable_write_beside_spinning(directory: &Path, bytes: usize, time: Duration) -> io::Result<DurableWrite> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let (first, second) = (cores.first().copied(), cores.get(1).copied());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(core) = first {
                core_affinity::set_for_current(core);
            }
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let measured = write_durably(directory, bytes, usize::MAX, time, second);
        over.store(true, Ordering::Relaxed);
        measured
    })
}

/// Durable writes of 1 MiB one after the other.
///
/// # Errors
/// As the file system says.
pub fn sequential_write(directory: &Path) -> io::Result<DurableWrite> {
    write_durably(
        directory,
        SEQUENTIAL_WRITE_BYTES,
        SEQUENTIAL_WRITES,
        WRITES_TIME_MAX,
        None,
    )
}

fn write_durably(
    directory: &Path,
    bytes: usize,
    writes: usize,
    time_max: Duration,
    core: Option<core_affinity::CoreId>,
) -> io::Result<DurableWrite> {
    assert!(
        bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES),
        "{bytes} bytes are no whole blocks"
    );
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            let class = ScheduleClass::Fifo.apply_to_current_thread();
            let file = tempfile::NamedTempFile::new_in(directory)?;
            measure_writes(file.path(), bytes, writes, time_max, class)
        });
        writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure_writes(
    path: &Path,
    bytes: usize,
    writes: usize,
    time_max: Duration,
    class: ScheduleClass,
) -> io::Result<DurableWrite> {
    // The file's blocks exist before the first measured write, as a segment's do: no write carries metadata.
    let blocks = writes.min((64 << 20) / bytes).max(1);
    let mut memory = vec![0u8; bytes + BLOCK_BYTES];
    let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
    let block = &mut memory[begin..begin + bytes];
    let prepared = OpenOptions::new().write(true).open(path)?;
    for index in 0..blocks {
        prepared.write_all_at(block, (index * bytes) as u64)?;
    }
    prepared.sync_all()?;
    let (file, sync) = open_durable(path, block)?;
    let mut histogram = latency_histogram();
    let (began, mut written) = (Instant::now(), 0);
    while written < writes && began.elapsed() < time_max {
        block[..8].copy_from_slice(&(written as u64).to_le_bytes());
        let start = Instant::now();
        file.write_all_at(block, ((written % blocks) * bytes) as u64)?;
        if sync == SyncMode::Fdatasync {
            file.sync_data()?;
        }
        histogram.saturating_record(start.elapsed().as_nanos() as u64);
        written += 1;
    }
    Ok(DurableWrite {
        us: Quantiles::of_ns(&histogram),
        mb_per_second: (written * bytes) as f64 / 1e6 / began.elapsed().as_secs_f64(),
        sync,
        class: class.name(),
    })
}

/// Opens for direct durable writes, or ordinary ones where `block` can't be written directly.
fn open_durable(path: &Path, block: &[u8]) -> io::Result<(File, SyncMode)> {
    let direct = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(path);
    match direct.and_then(|file| file.write_all_at(block, 0).map(|()| file)) {
        Ok(file) => Ok((file, SyncMode::Direct)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((OpenOptions::new().write(true).open(path)?, SyncMode::Fdatasync))
        }
        Err(error) => Err(error),
    }
}

/// A TCP round trip of 128 bytes on loopback, both ends spinning on a core of their own.
///
/// # Errors
/// As sockets say.
pub fn ping_pong(duration: Duration) -> io::Result<Quantiles> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let [core, _, ..] = cores[..] {
                core_affinity::set_for_current(core);
            }
            let mut frame = [0; FRAME_BYTES];
            // Ends when the near end does.
            while spin_read(&far, &mut frame).is_ok_and(|whole| whole) && (&far).write_all(&frame).is_ok() {}
        });
        let near_end = scope.spawn(|| {
            // Owned here, so that the far end is told however this ends.
            let near = near;
            if let [_, core, ..] = cores[..] {
                core_affinity::set_for_current(core);
            }
            let mut histogram = latency_histogram();
            let mut frame = [0x5A; FRAME_BYTES];
            let began = Instant::now();
            while began.elapsed() < duration {
                let start = Instant::now();
                (&near).write_all(&frame)?;
                if !spin_read(&near, &mut frame)? {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                histogram.saturating_record(start.elapsed().as_nanos() as u64);
            }
            Ok(Quantiles::of_ns(&histogram))
        });
        near_end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Fills `frame` without sleeping; false when the peer has ended.
fn spin_read(mut stream: &TcpStream, frame: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < frame.len() {
        match stream.read(&mut frame[filled..]) {
            Ok(0) => return Ok(false),
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// CRC-32C of 128 bytes, nanoseconds.
#[must_use]
pub fn crc_ns() -> f64 {
    best_of_ns(|frame| u64::from(crc32c::crc32c(frame)))
}

/// BLAKE3 of 128 bytes, nanoseconds.
#[must_use]
pub fn hash_ns() -> f64 {
    best_of_ns(|frame| u64::from(blake3::hash(frame).as_bytes()[0]))
}

/// The best of several rounds: what the machine can do, not what else it was doing.
fn best_of_ns(mut work: impl FnMut(&[u8]) -> u64) -> f64 {
    const ROUNDS: u32 = 20;
    const CALLS: u32 = 20_000;
    let frame = [0x5A; FRAME_BYTES];
    (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..CALLS {
                black_box(work(black_box(&frame)));
            }
            began.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_write_is_timed_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let written = write_durably(directory.path(), BLOCK_BYTES, 10, WRITES_TIME_MAX, None).unwrap();
        assert!(written.us.p50 > 0.0 && written.us.p50 <= written.us.p99, "{written:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_round_trip_takes_time() {
        let trip = ping_pong(Duration::from_millis(20)).unwrap();
        assert!(trip.p50 > 0.1 && trip.p50 <= trip.p99, "{trip:?}");
    }

    #[test]
    fn checksum_and_hash_take_time() {
        assert!(crc_ns() > 0.0 && hash_ns() > 0.0);
    }
}
