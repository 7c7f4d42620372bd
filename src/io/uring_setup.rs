//! How the ring is set up, and what the kernel must have for it.

use std::io;

use io_uring::{IoUring, Probe, opcode};
use thiserror::Error;

use super::DriverOptions;

/// Entries of the submission queue: a send for every link of the reference load, with room.
const SUBMISSION_ENTRIES: u32 = 2_048;
/// Entries of the completion queue; an overflow only ends multishot receives, which are armed again.
const COMPLETION_ENTRIES: u32 = 4 * SUBMISSION_ENTRIES;
/// How long the kernel's polling thread spins before it sleeps.
const SQPOLL_IDLE_MS: u32 = 1_000;

/// The operations the driver uses, and the kernel that has them.
const REQUIRED: [(u8, &str); 6] = [
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::RecvMulti::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// Why `io_uring` can't be used here.
#[derive(Debug, Error)]
pub enum UringError {
    /// The ring could not be made.
    #[error("{}", setup_in_words(.0))]
    Setup(#[source] io::Error),
    /// The kernel lacks an operation.
    #[error("the kernel lacks {0}; Linux 6.0 or later is needed")]
    Missing(String),
    /// The table of registered files was refused.
    #[error("{connections} registered files refused: {source}")]
    Files {
        /// How many were asked for.
        connections: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A ring of provided buffers was refused.
    #[error("provided buffers refused: {0}")]
    Buffers(#[source] io::Error),
    /// The receive buffers' memory was refused.
    #[error("receive buffers refused: {0}")]
    Memory(#[source] io::Error),
}

fn setup_in_words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!("{error}: kernel.io_uring_disabled or a seccomp filter forbids it"),
        Some(libc::ENOSYS) => format!("{error}: the kernel was built without it or a seccomp filter hides it"),
        Some(libc::ENOMEM) => format!("{error}: the limit of locked memory (RLIMIT_MEMLOCK) may be too low"),
        _ => error.to_string(),
    }
}

/// A ring that is ready to be driven.
pub(super) struct Setup {
    pub(super) ring: IoUring,
    /// Whether it runs already; else the driving thread must enable it, which binds it to that thread.
    pub(super) enabled: bool,
    /// Connections there can be: as many as asked for, or as the process may have files.
    pub(super) connections: u32,
}

/// Makes the ring and its table of registered files.
pub(super) fn build(options: &DriverOptions) -> Result<Setup, UringError> {
    let (ring, enabled) = make(options).map_err(UringError::Setup)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(UringError::Setup)?;
    let mut missing: Vec<&str> = REQUIRED
        .iter()
        .filter(|(code, _)| !probe.is_supported(*code))
        .map(|(_, name)| *name)
        .collect();
    if !ring.params().is_feature_ext_arg() {
        missing.push("EXT_ARG");
    }
    if !ring.params().is_feature_nodrop() {
        missing.push("NODROP");
    }
    // Multishot receive came with SEND_ZC, and can't be probed for itself.
    if !probe.is_supported(opcode::SendZc::CODE) {
        missing.push("multishot RECV");
    }
    if !missing.is_empty() {
        return Err(UringError::Missing(missing.join(", ")));
    }
    let connections = options.connections_max.min(files_max());
    ring.submitter()
        .register_files_sparse(connections)
        .map_err(|source| UringError::Files { connections, source })?;
    Ok(Setup {
        ring,
        enabled,
        connections,
    })
}

/// The soft limit of open files, which the kernel holds a table of registered files to as well.
fn files_max() -> u32 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes one `rlimit`.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX),
        _ => u32::MAX,
    }
}

/// Tries the best set of flags first and drops those that the kernel does not know (EINVAL).
fn make(options: &DriverOptions) -> io::Result<(IoUring, bool)> {
    if options.sqpoll {
        // Takes no task-run flags: the polling thread runs the tasks.
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_clamp()
            .setup_sqpoll(SQPOLL_IDLE_MS)
            .build(SUBMISSION_ENTRIES)?;
        return Ok((ring, true));
    }
    let attempt = |bound_to_thread: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_clamp()
            .setup_coop_taskrun()
            .setup_taskrun_flag();
        if bound_to_thread {
            builder.setup_single_issuer().setup_r_disabled();
        }
        builder.build(SUBMISSION_ENTRIES)
    };
    match attempt(true) {
        Ok(ring) => Ok((ring, false)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => attempt(false).map(|ring| (ring, true)),
        Err(error) => Err(error),
    }
}
