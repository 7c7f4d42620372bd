//! Host checks: is this machine fit for a profile.
//!
//! [`Host::read`] takes readings, [`examine`] judges them: a pure function, so that hosts we do not have are judged in
//! tests. Each [`Check`] says what was found and, where it is not good, what to do. *Wrong* is what the profile can't do
//! without; *advice* costs speed or calm, and the switch works around it.

mod host;

pub use host::{Bound, Capabilities, Host, IoUring, Limit};

use std::collections::BTreeSet;

use crate::agent::{IdleStrategy, ScheduleClass};
use crate::config::Profile;

/// One line of the doctor's report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// How good that is.
    pub finding: Finding,
}

/// How good a reading is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// As it should be.
    Good,
    /// It works, but better is possible; what to do.
    Advice(String),
    /// The profile can't be run like this; what to do.
    Wrong(String),
}

impl Check {
    fn new(name: &'static str, found: impl Into<String>, finding: Finding) -> Self {
        Self {
            name,
            found: found.into(),
            finding,
        }
    }
}

/// Judges a host by a profile.
#[must_use]
pub fn examine(host: &Host, profile: &Profile) -> Vec<Check> {
    vec![
        kernel(host),
        io_uring(host),
        open_files(host, profile),
        locked_memory(host, profile),
        memory(host, profile),
        real_time(host, profile),
        follower(profile),
        cores(host, profile),
        isolation(host, profile),
        governor(host),
        huge_pages(host),
        clock_source(host),
    ]
}

fn kernel(host: &Host) -> Check {
    let finding = match host.kernel_version() {
        Some(version) if version >= (6, 0) => Finding::Good,
        Some(version) if version >= (5, 4) => Finding::Advice(
            "io_uring's multishot receive needs Linux 6.0: the switch uses mio; upgrade for io_uring".into(),
        ),
        Some(_) => Finding::Wrong("upgrade to Linux 5.4 or later, best 6.1 or later".into()),
        None => Finding::Advice("the version can't be read; Linux 6.1 or later is best".into()),
    };
    Check::new("kernel", host.kernel.clone(), finding)
}

fn io_uring(host: &Host) -> Check {
    match &host.io_uring {
        IoUring::Available => Check::new("io_uring", "available", Finding::Good),
        IoUring::Refused(reason) => Check::new(
            "io_uring",
            format!("refused: {reason}"),
            Finding::Advice(
                "the switch uses mio; for io_uring set sysctl kernel.io_uring_disabled=0 and allow it in the container's \
                 seccomp profile"
                    .into(),
            ),
        ),
        IoUring::Lacking(what) => Check::new(
            "io_uring",
            format!("lacks {what}"),
            Finding::Advice("the switch uses mio; upgrade to Linux 6.0 or later for io_uring".into()),
        ),
    }
}

fn open_files(host: &Host, profile: &Profile) -> Check {
    let needed = profile.files_max();
    let found = format!("soft {}, hard {}", host.open_files.soft, host.open_files.hard);
    let finding = if host.open_files.hard.allows(needed) {
        Finding::Good
    } else {
        Finding::Advice(format!(
            "the switch takes fewer links than the profile's {}; set LimitNOFILE={needed} in the unit, or `ulimit -Hn {needed}` \
             as root",
            profile.links_max()
        ))
    };
    Check::new("open files", found, finding)
}

fn locked_memory(host: &Host, profile: &Profile) -> Check {
    let needed = profile.journal.ring_bytes + buffer_bytes(profile);
    let found = if host.capabilities.lock_memory {
        "no limit (CAP_IPC_LOCK)".to_owned()
    } else {
        format!(
            "soft {}, hard {} bytes",
            host.locked_memory.soft, host.locked_memory.hard
        )
    };
    let finding = if !profile.journal.lock_memory
        || host.capabilities.lock_memory
        || host.locked_memory.hard.allows(needed)
    {
        Finding::Good
    } else {
        Finding::Advice(format!(
            "the journal's ring can't be locked and is touched in advance instead; set LimitMEMLOCK={needed} in the unit, or \
             `ulimit -Hl {}` as root",
            needed.div_ceil(1_024)
        ))
    };
    Check::new("locked memory", found, finding)
}

fn memory(host: &Host, profile: &Profile) -> Check {
    let needed = profile.journal.ring_bytes + buffer_bytes(profile);
    let found = format!("{} MiB available", host.memory_available_bytes >> 20);
    let finding = if host.memory_available_bytes > needed {
        Finding::Good
    } else {
        Finding::Wrong(format!(
            "ring and receive buffers alone take {} MiB; lower ring_mib, or choose a smaller profile",
            needed >> 20
        ))
    };
    Check::new("memory", found, finding)
}

/// Receive buffers of all drivers: two groups each.
fn buffer_bytes(profile: &Profile) -> u64 {
    let driver = &profile.driver;
    u64::from(profile.link_agents) * 2 * u64::from(driver.receive_buffers) * u64::from(driver.receive_bytes)
}

fn real_time(host: &Host, profile: &Profile) -> Check {
    let wanted = profile.threads.iter().any(|thread| thread.class == ScheduleClass::Fifo);
    let allowed = host.capabilities.schedule || host.real_time_priority.hard.allows(10);
    let found = if allowed { "allowed" } else { "refused" };
    let finding = if allowed || !wanted {
        Finding::Good
    } else {
        Finding::Advice(
            "the syncer runs in the normal class and may wait for a busy core; set LimitRTPRIO=10 in the unit, or give \
             CAP_SYS_NICE"
                .into(),
        )
    };
    Check::new("real-time class", found, finding)
}

fn follower(profile: &Profile) -> Check {
    if profile.has_follower() {
        return Check::new("follower", "has a thread", Finding::Good);
    }
    Check::new(
        "follower",
        "has no thread",
        Finding::Advice(
            "there are no snapshots, so that every start replays the whole journal, and payments that have left memory can't be \
             looked up; add a [[thread]] with agents = [\"follower\"] and class = \"low\" to the profile"
                .into(),
        ),
    )
}

fn cores(host: &Host, profile: &Profile) -> Check {
    let wanted: BTreeSet<usize> = profile.threads.iter().filter_map(|thread| thread.core).collect();
    let missing: Vec<String> = wanted
        .iter()
        .filter(|core| !host.cores.contains(core))
        .map(ToString::to_string)
        .collect();
    let found = format!(
        "{} usable; {} pinned by {}",
        host.cores.len(),
        wanted.len(),
        profile.name
    );
    let finding = if !missing.is_empty() {
        Finding::Wrong(format!(
            "cores {} are not there: choose --profile small-vm, or a profile file of your own",
            missing.join(", ")
        ))
    } else if host.cores.len() < 2 {
        Finding::Advice("with one core the syncer and the pipeline share it; give the switch two".into())
    } else {
        Finding::Good
    };
    Check::new("cores", found, finding)
}

fn isolation(host: &Host, profile: &Profile) -> Check {
    let spinning: BTreeSet<usize> = profile
        .threads
        .iter()
        .filter(|thread| thread.idle == IdleStrategy::Spin)
        .filter_map(|thread| thread.core)
        .collect();
    let disturbed: Vec<String> = spinning
        .iter()
        .filter(|core| !host.isolated_cores.contains(core))
        .map(ToString::to_string)
        .collect();
    let found = match host.isolated_cores.len() {
        0 => "no core is isolated".to_owned(),
        count => format!("{count} cores are isolated"),
    };
    let finding = if disturbed.is_empty() {
        Finding::Good
    } else {
        let list = disturbed.join(",");
        Finding::Advice(format!(
            "the kernel may run others on spinning cores; boot with isolcpus={list} nohz_full={list} rcu_nocbs={list}, and \
             keep interrupts off them (irqaffinity=)"
        ))
    };
    Check::new("isolation", found, finding)
}

fn governor(host: &Host) -> Check {
    match host.governor.as_deref() {
        None => Check::new("governor", "none (the host decides)", Finding::Good),
        Some("performance") => Check::new("governor", "performance", Finding::Good),
        Some(other) => Check::new(
            "governor",
            other,
            Finding::Advice("a slow clock after idling costs latency: `cpupower frequency-set -g performance`".into()),
        ),
    }
}

fn huge_pages(host: &Host) -> Check {
    match host.huge_pages.as_deref() {
        Some(mode @ ("madvise" | "always")) => Check::new("huge pages", mode, Finding::Good),
        Some(mode) => Check::new(
            "huge pages",
            mode,
            Finding::Advice("`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`".into()),
        ),
        None => Check::new(
            "huge pages",
            "not in this kernel",
            Finding::Advice("large tables miss the TLB more often; use a kernel with transparent huge pages".into()),
        ),
    }
}

fn clock_source(host: &Host) -> Check {
    let name = host.clock_source.clone().unwrap_or_else(|| "unknown".to_owned());
    let finding = match name.as_str() {
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => Finding::Good,
        "hpet" | "acpi_pm" | "jiffies" | "pit" => Finding::Wrong(
            "each reading of this clock is a slow device access: boot with clocksource=tsc tsc=reliable if the machine's TSC is \
             good"
                .into(),
        ),
        _ => Finding::Advice("tsc is read without a system call; see /sys/devices/system/clocksource".into()),
    };
    Check::new("clock source", name, finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit_host() -> Host {
        Host {
            kernel: "6.12.3-generic".to_owned(),
            io_uring: IoUring::Available,
            open_files: Limit {
                soft: Bound::At(1_024),
                hard: Bound::At(1 << 20),
            },
            locked_memory: Limit {
                soft: Bound::At(8 << 20),
                hard: Bound::None,
            },
            real_time_priority: Limit {
                soft: Bound::At(0),
                hard: Bound::At(99),
            },
            capabilities: Capabilities::default(),
            memory_available_bytes: 8 << 30,
            cores: (0..16).collect(),
            isolated_cores: (1..16).collect(),
            governor: Some("performance".to_owned()),
            huge_pages: Some("madvise".to_owned()),
            clock_source: Some("tsc".to_owned()),
        }
    }

    fn profile(name: &str) -> Profile {
        Profile::load(name).expect("a built-in profile")
    }

    fn finding(host: &Host, profile_name: &str, check: &str) -> Finding {
        let checks = examine(host, &profile(profile_name));
        checks
            .into_iter()
            .find(|c| c.name == check)
            .expect("the check exists")
            .finding
    }

    #[test]
    fn a_fit_host_has_only_good_readings() {
        for check in examine(&fit_host(), &profile("server-16")) {
            assert_eq!(check.finding, Finding::Good, "{check:?}");
        }
    }

    #[test]
    fn too_few_files_for_the_profile_says_how_many_it_wants() {
        let mut host = fit_host();
        host.open_files.hard = Bound::At(1_024);
        let Finding::Advice(advice) = finding(&host, "small-vm", "open files") else {
            panic!("1024 files hold no 2048 links, and the switch takes fewer")
        };
        assert!(advice.contains("LimitNOFILE=2304"), "{advice}");
    }

    #[test]
    fn memory_that_cannot_be_locked_is_advice_only() {
        let mut host = fit_host();
        host.locked_memory.hard = Bound::At(8 << 20);
        assert!(matches!(
            finding(&host, "small-vm", "locked memory"),
            Finding::Advice(_)
        ));
        host.capabilities.lock_memory = true;
        assert_eq!(finding(&host, "small-vm", "locked memory"), Finding::Good);
    }

    #[test]
    fn a_profile_larger_than_the_machine_is_wrong() {
        let mut host = fit_host();
        host.cores = vec![0, 1];
        assert!(matches!(finding(&host, "server-16", "cores"), Finding::Wrong(_)));
        assert_eq!(finding(&host, "small-vm", "cores"), Finding::Good);
    }

    #[test]
    fn a_slow_clock_is_wrong() {
        let mut host = fit_host();
        host.clock_source = Some("hpet".to_owned());
        assert!(matches!(finding(&host, "small-vm", "clock source"), Finding::Wrong(_)));
    }

    #[test]
    fn an_old_kernel_runs_on_mio_and_an_ancient_one_not_at_all() {
        let mut host = fit_host();
        host.kernel = "5.15.0-91".to_owned();
        assert!(matches!(finding(&host, "small-vm", "kernel"), Finding::Advice(_)));
        host.kernel = "4.19.0".to_owned();
        assert!(matches!(finding(&host, "small-vm", "kernel"), Finding::Wrong(_)));
    }
}
