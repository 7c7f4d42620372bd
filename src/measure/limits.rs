//! `clearway bench limits`: what this machine could do at best, with no logic in the way.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use super::primitives::{self, SyncMode};
pub use super::primitives::{DurableWrite, durable_write};
use super::relay::RelayError;
pub use super::relay_load::{Quantiles, RelayThroughput};
use super::relay_load::{RelayPlace, RelaySetup};
use crate::io::BackendChoice;

const PING_PONG_TIME: Duration = Duration::from_millis(500);
const KIB: usize = 1_024;

/// Why a limit could not be measured.
#[derive(Debug, Error)]
pub enum LimitsError {
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A durable write.
    #[error("durable writes in {directory}: {source}")]
    Write {
        /// Where.
        directory: PathBuf,
        /// The fault.
        source: io::Error,
    },
    /// The round trip.
    #[error("TCP round trip: {0}")]
    PingPong(#[source] io::Error),
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct LimitsOptions {
    /// Links that send requests.
    pub institutions: u16,
    /// Links that reply.
    pub banks: u16,
    /// Payments in flight per institution in the relay's closed loop.
    pub in_flight: u32,
    /// Payments a second in the relay's open loop.
    pub rate: u64,
    /// How long each run of the relay takes, seconds.
    pub seconds: f64,
    /// The backend of the relay and its load.
    pub backend: BackendChoice,
    /// Where durable writes go: on the file system of the journal.
    pub directory: PathBuf,
}

/// What the machine could do. Times in microseconds where not said otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct LimitsReport {
    /// Payments a second through the relay, closed loop.
    pub relay_per_second: f64,
    /// The best tenth of that run.
    pub relay_peak_per_second: f64,
    /// Payments in flight per institution in it.
    pub relay_in_flight: u32,
    /// Latency through the relay, open loop.
    pub relay_latency_us: Quantiles,
    /// At how many payments a second.
    pub relay_latency_rate: u64,
    /// One durable write of 4 KiB.
    pub durable_write_us: Quantiles,
    /// One durable write of 64 KiB.
    pub durable_write_64k_us: Quantiles,
    /// Durable writes of 1 MiB one after the other, megabytes (10⁶) a second.
    pub sequential_write_mb_per_second: f64,
    /// How writes were made durable.
    pub sync: SyncMode,
    /// The scheduling class of the writing thread.
    pub syncer_class: &'static str,
    /// A TCP round trip of 128 bytes, both ends spinning.
    pub ping_pong_us: Quantiles,
    /// CRC-32C of 128 bytes, nanoseconds.
    pub crc_ns: f64,
    /// BLAKE3 of 128 bytes, nanoseconds.
    pub hash_ns: f64,
}

/// Measures all limits, one after the other.
///
/// # Errors
/// As [`LimitsError`] says.
pub fn run(options: &LimitsOptions) -> Result<LimitsReport, LimitsError> {
    let (institutions, banks, backend) = (options.institutions, options.banks, options.backend);
    let relay = relay_throughput(institutions, banks, options.in_flight, options.seconds, backend)?;
    let relay_latency_us = relay_latency(options.rate, institutions, banks, options.seconds, backend)?;
    let write = |measured: io::Result<DurableWrite>| {
        measured.map_err(|source| LimitsError::Write {
            directory: options.directory.clone(),
            source,
        })
    };
    let directory: &Path = &options.directory;
    let small = write(durable_write(directory, 4 * KIB))?;
    let large = write(durable_write(directory, 64 * KIB))?;
    let sequential = write(primitives::sequential_write(directory))?;
    Ok(LimitsReport {
        relay_per_second: relay.per_second,
        relay_peak_per_second: relay.peak_per_second,
        relay_in_flight: options.in_flight,
        relay_latency_us,
        relay_latency_rate: options.rate,
        durable_write_us: small.us,
        durable_write_64k_us: large.us,
        sequential_write_mb_per_second: sequential.mb_per_second,
        sync: small.sync,
        syncer_class: small.class,
        ping_pong_us: primitives::ping_pong(PING_PONG_TIME).map_err(LimitsError::PingPong)?,
        crc_ns: primitives::crc_ns(),
        hash_ns: primitives::hash_ns(),
    })
}

/// Payments a second through a relay in a child process of this very program, with `in_flight` payments per institution.
///
/// # Errors
/// As [`RelayError`] says.
pub fn relay_throughput(
    institutions: u16,
    banks: u16,
    in_flight: u32,
    seconds: f64,
    backend: BackendChoice,
) -> Result<RelayThroughput, RelayError> {
    child_setup(institutions, banks, backend)?.throughput(in_flight, Duration::from_secs_f64(seconds))
}

/// Latency through a relay in a child process of this very program, at `rate` payments a second, from the intended time.
///
/// # Errors
/// As [`RelayError`] says.
pub fn relay_latency(
    rate: u64,
    institutions: u16,
    banks: u16,
    seconds: f64,
    backend: BackendChoice,
) -> Result<Quantiles, RelayError> {
    child_setup(institutions, banks, backend)?.latency(rate, Duration::from_secs_f64(seconds))
}

fn child_setup(institutions: u16, banks: u16, backend: BackendChoice) -> Result<RelaySetup, RelayError> {
    let program = std::env::current_exe().map_err(RelayError::io("find this program"))?;
    Ok(RelaySetup {
        institutions,
        banks,
        backend,
        place: RelayPlace::Child(program),
    })
}
