//! Readings of the host, from /proc, /sys and a trial of io_uring.

use std::fmt;
use std::path::Path;

use io_uring::{IoUring as Ring, Probe, opcode};

/// What a host was found to be.
#[derive(Clone, Debug)]
pub struct Host {
    /// Kernel release, e.g. `6.12.3-generic`.
    pub kernel: String,
    /// What a trial of io_uring gave.
    pub io_uring: IoUring,
    /// RLIMIT_NOFILE.
    pub open_files: Limit,
    /// RLIMIT_MEMLOCK, bytes.
    pub locked_memory: Limit,
    /// RLIMIT_RTPRIO.
    pub real_time_priority: Limit,
    /// What this process may do beyond its limits.
    pub capabilities: Capabilities,
    /// Memory that can be had without swapping.
    pub memory_available_bytes: u64,
    /// Cores this process may run on.
    pub cores: Vec<usize>,
    /// Cores the scheduler leaves alone (isolcpus).
    pub isolated_cores: Vec<usize>,
    /// Frequency governor of the first core; `None` where the host decides.
    pub governor: Option<String>,
    /// Transparent huge pages: always, madvise or never; `None` where the kernel has none.
    pub huge_pages: Option<String>,
    /// The kernel's clock source.
    pub clock_source: Option<String>,
}

/// What a trial of io_uring gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IoUring {
    /// A ring was made and has every operation.
    Available,
    /// No ring was made; why.
    Refused(String),
    /// A ring was made, but lacks an operation; which.
    Lacking(&'static str),
}

/// A resource limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// In force now; the switch raises it to the hard limit at start.
    pub soft: Bound,
    /// What it may be raised to.
    pub hard: Bound,
}

/// One bound of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Unlimited.
    None,
    /// At most this.
    At(u64),
}

impl Bound {
    /// True when this much is within the bound.
    #[must_use]
    pub const fn allows(self, amount: u64) -> bool {
        match self {
            Self::None => true,
            Self::At(most) => amount <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("unlimited"),
            Self::At(most) => write!(f, "{most}"),
        }
    }
}

/// Capabilities that lift limits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Capabilities {
    /// CAP_IPC_LOCK.
    pub lock_memory: bool,
    /// CAP_SYS_NICE.
    pub schedule: bool,
}

/// Bits of `CapEff` (linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_NICE: u32 = 23;

impl Host {
    /// Takes the readings of this host. What can't be read is taken as absent.
    #[must_use]
    pub fn read() -> Self {
        let limits = text("/proc/self/limits").unwrap_or_default();
        let mut cores: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .iter()
            .map(|core| core.id)
            .collect();
        cores.sort_unstable();
        Self {
            kernel: text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            io_uring: try_io_uring(),
            open_files: limit(&limits, "Max open files"),
            locked_memory: limit(&limits, "Max locked memory"),
            real_time_priority: limit(&limits, "Max realtime priority"),
            capabilities: capabilities(&text("/proc/self/status").unwrap_or_default()),
            memory_available_bytes: available_memory(&text("/proc/meminfo").unwrap_or_default()),
            cores,
            isolated_cores: core_list(&text("/sys/devices/system/cpu/isolated").unwrap_or_default()),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|modes| chosen(&modes)),
            clock_source: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }

    /// Major and minor version of the kernel.
    #[must_use]
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Makes a small ring and asks it what it has.
fn try_io_uring() -> IoUring {
    let ring = match Ring::new(8) {
        Ok(ring) => ring,
        Err(error) => return IoUring::Refused(error.to_string()),
    };
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return IoUring::Refused(error.to_string());
    }
    let needed = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Connect::CODE, "connect"),
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::AsyncCancel::CODE, "cancel"),
        // Came with the same kernel as multishot receive (6.0), which has no operation number of its own.
        (opcode::SendZc::CODE, "multishot receive"),
    ];
    needed
        .iter()
        .find(|(code, _)| !probe.is_supported(*code))
        .map_or(IoUring::Available, |(_, name)| IoUring::Lacking(name))
}

/// A line of /proc/PID/limits: name, soft, hard, unit.
fn limit(limits: &str, name: &str) -> Limit {
    let bound = |word: Option<&str>| match word {
        Some("unlimited") | None => Bound::None,
        Some(number) => number.parse().map_or(Bound::None, Bound::At),
    };
    let mut words = limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default()
        .split_whitespace();
    Limit {
        soft: bound(words.next()),
        hard: bound(words.next()),
    }
}

fn capabilities(status: &str) -> Capabilities {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    Capabilities {
        lock_memory: effective & (1 << CAP_IPC_LOCK) != 0,
        schedule: effective & (1 << CAP_SYS_NICE) != 0,
    }
}

fn available_memory(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1_024)
}

/// `1-3,8` as the kernel writes lists of cores.
fn core_list(list: &str) -> Vec<usize> {
    list.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

/// The bracketed word of `always [madvise] never`.
fn chosen(modes: &str) -> Option<String> {
    let (_, rest) = modes.split_once('[')?;
    rest.split_once(']').map(|(mode, _)| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(
            limit(limits, "Max open files"),
            Limit {
                soft: Bound::At(1_024),
                hard: Bound::At(524_288)
            }
        );
        assert_eq!(limit(limits, "Max locked memory").hard, Bound::None);
    }

    #[test]
    fn a_list_of_cores_has_ranges_and_single_cores() {
        assert_eq!(core_list("1-3,8"), [1, 2, 3, 8]);
        assert!(core_list("").is_empty());
    }

    #[test]
    fn capabilities_are_bits_of_the_effective_mask() {
        let both = capabilities("Name:\tx\nCapEff:\t0000000000804000\n");
        assert!(both.lock_memory && both.schedule);
        assert_eq!(capabilities("CapEff:\t0000000000000000\n"), Capabilities::default());
    }

    #[test]
    fn the_chosen_mode_is_the_bracketed_one() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("nonsense"), None);
    }

    #[test]
    fn this_host_has_a_kernel_version_and_a_core() {
        let host = Host::read();
        assert!(host.kernel_version().is_some(), "{}", host.kernel);
        assert!(!host.cores.is_empty());
        assert!(host.memory_available_bytes > 0);
    }
}
