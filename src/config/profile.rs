//! Hardware profiles: which agent runs on which thread, on which core, how it idles, and how much memory it gets.

use std::path::Path;
use std::time::Duration;

use super::fault::{ConfigError, read_file};
use super::section::{Section, read_toml};
use crate::agent::{IdleStrategy, ScheduleClass};
use crate::io::DriverOptions;

/// The profiles that are part of the binary: name and text.
pub const BUILT_IN_PROFILES: [(&str, &str); 2] = [
    ("small-vm", include_str!("../../hw-profiles/small-vm.toml")),
    ("server-16", include_str!("../../hw-profiles/server-16.toml")),
];

/// How the switch is put on a machine.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The profile's name in reports.
    pub name: String,
    /// The threads; over all of them each role but [`AgentRole::Link`] stands exactly once, [`AgentRole::Follower`] at most.
    pub threads: Vec<ThreadPlan>,
    /// How many link agents there are; each has its own driver.
    pub link_agents: u8,
    /// Sizes of the rings between stages, entries.
    pub rings: RingSizes,
    /// How each link agent's driver is set up.
    pub driver: DriverOptions,
    /// The journal's memory and files.
    pub journal: JournalPlan,
    /// Payments that memory is set aside for at start.
    pub payments_expected: u64,
}

/// One thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadPlan {
    /// The thread's name, at most 15 bytes (the kernel's limit).
    pub name: String,
    /// The agents that share the thread, in the order of their duty cycle.
    pub agents: Vec<AgentRole>,
    /// The core it is pinned to; `None` = wherever the kernel likes.
    pub core: Option<usize>,
    /// The scheduling class it asks for.
    pub class: ScheduleClass,
    /// What it does when there is nothing to do.
    pub idle: IdleStrategy,
}

/// A stage that a thread can run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AgentRole {
    /// Sockets and sessions.
    Link,
    /// Event numbers and the clock.
    Sequencer,
    /// The ledger.
    Clearing,
    /// Requests and words to links.
    Dispatch,
    /// Durable writes.
    Syncer,
    /// Segments ahead.
    Housekeeping,
    /// What operators ordered, and when windows close.
    Steward,
    /// The second engine: register, snapshots, look-ups. May be left out.
    Follower,
}

/// Sizes of the rings, entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingSizes {
    /// Link agents to sequencer: requests; the only ring that pushes back.
    pub intake_requests: usize,
    /// Link agents to sequencer: replies and all else that must never wait behind requests.
    pub intake_priority: usize,
    /// Clearing to dispatch.
    pub effects: usize,
    /// Dispatch to each link agent.
    pub outbound: usize,
}

/// The journal's memory and files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalPlan {
    /// Size of a segment file, bytes; a power of two.
    pub segment_bytes: u64,
    /// Size of the live tail in memory, bytes; a power of two, at least two segments.
    pub ring_bytes: u64,
    /// Segments that housekeeping keeps ready ahead of the writer.
    pub prepared_segments: u32,
    /// Lock the live tail into memory, where the limits allow it.
    pub lock_memory: bool,
}

impl AgentRole {
    /// All roles.
    pub const ALL: [Self; 8] = [
        Self::Link,
        Self::Sequencer,
        Self::Clearing,
        Self::Dispatch,
        Self::Syncer,
        Self::Housekeeping,
        Self::Steward,
        Self::Follower,
    ];

    /// The role's name in profiles.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Sequencer => "sequencer",
            Self::Clearing => "clearing",
            Self::Dispatch => "dispatch",
            Self::Syncer => "syncer",
            Self::Housekeeping => "housekeeping",
            Self::Steward => "steward",
            Self::Follower => "follower",
        }
    }
}

impl Profile {
    /// Reads a built-in profile by its name, or a profile file by its path.
    ///
    /// # Errors
    /// Neither a built-in name nor a readable file, or every fault in the file.
    pub fn load(name_or_path: &str) -> Result<Self, ConfigError> {
        if let Some((name, text)) = BUILT_IN_PROFILES.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(&format!("hw-profiles/{name}.toml"), text);
        }
        let names = BUILT_IN_PROFILES.map(|(name, _)| name).join("`, `");
        let advice = format!("name a built-in profile (`{names}`) or the path of a profile file");
        Self::parse(name_or_path, &read_file(Path::new(name_or_path), advice)?)
    }

    /// Reads a profile's text; `name` is the file's name in messages.
    ///
    /// # Errors
    /// Every fault in the text.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        read_toml(name, text, read_profile)
    }

    /// Gives up placements that the machine can't give, and says so, one message each.
    ///
    /// A thread whose core is not among `cores` runs unpinned, and one that would have spun there parks instead: two
    /// spinning threads on one core starve each other.
    pub fn fit_to_cores(&mut self, cores: &[usize]) -> Vec<String> {
        let mut messages = Vec::new();
        for thread in &mut self.threads {
            let Some(core) = thread.core.filter(|core| !cores.contains(core)) else {
                continue;
            };
            thread.core = None;
            let mut message = format!(
                "profile {}: thread {} wants core {core}, which this process may not use (it has {}); it runs unpinned",
                self.name,
                thread.name,
                cores.len()
            );
            if thread.idle == IdleStrategy::Spin {
                thread.idle = IdleStrategy::Park { spins: 20 };
                message.push_str(" and parks when idle");
            }
            messages.push(message + "; choose a smaller profile, e.g. small-vm, or give it more cores");
        }
        messages
    }

    /// Takes the follower's thread out, for a switch that is set to run without it.
    pub fn leave_out_follower(&mut self) {
        for thread in &mut self.threads {
            thread.agents.retain(|role| *role != AgentRole::Follower);
        }
        self.threads.retain(|thread| !thread.agents.is_empty());
    }

    /// True when a thread runs the follower.
    #[must_use]
    pub fn has_follower(&self) -> bool {
        self.threads
            .iter()
            .any(|thread| thread.agents.contains(&AgentRole::Follower))
    }

    /// Lowers the drivers' connections to what the limit on open files leaves, and says so.
    pub fn fit_to_open_files(&mut self, files_max: u64) -> Option<String> {
        let agents = u64::from(self.link_agents.max(1));
        let left = files_max.saturating_sub(Self::OTHER_FILES) / agents;
        if u64::from(self.driver.connections_max) <= left {
            return None;
        }
        let wanted = self.files_max();
        self.driver.connections_max = left.max(1) as u32;
        Some(format!(
            "profile {}: {files_max} files may be open and {wanted} are wanted; {} links can be taken instead; raise the hard \
             limit (LimitNOFILE={wanted}, `ulimit -Hn {wanted}`) for more",
            self.name,
            self.links_max()
        ))
    }

    /// Files that stay open besides links: journal, ring or epoll, admin, standard streams, files of the register while they
    /// are merged.
    const OTHER_FILES: u64 = 256;

    /// Files that may be open at a time when all links are taken.
    #[must_use]
    pub fn files_max(&self) -> u64 {
        self.links_max() + Self::OTHER_FILES
    }

    /// Links that all drivers together hold.
    #[must_use]
    pub fn links_max(&self) -> u64 {
        u64::from(self.driver.connections_max) * u64::from(self.link_agents)
    }

    /// Checks that the drivers hold as many links as the settings allow.
    ///
    /// # Errors
    /// When all link agents together have fewer connections.
    pub fn check_connections(&self, links_max: u32) -> Result<(), ConfigError> {
        let connections = self.links_max();
        if u64::from(links_max) <= connections {
            return Ok(());
        }
        Err(ConfigError::Unfit(format!(
            "profile {}: {} link agents with connections_max = {} hold {connections} links, and the settings allow max = \
             {links_max} under [links]; raise connections_max in the profile or lower max in the settings",
            self.name, self.link_agents, self.driver.connections_max
        )))
    }
}

const MIB: u64 = 1 << 20;

fn read_profile(root: &Section<'_, '_>) -> Option<Profile> {
    let name = root.required_text("name", "\"small-vm\"");
    let payments_expected = root.integer_or("payments_expected", 1_000..=1 << 31, 4_000_000);
    let sections = root.sections("thread");
    let threads: Vec<ThreadPlan> = sections.iter().filter_map(read_thread).collect();
    if sections.is_empty() && !root.has("thread") {
        root.missing("[[thread]]", "a table for each thread");
    }
    let link_agents = check_roles(root, &sections, &threads);
    let rings = read_rings(root);
    let driver = read_driver(root);
    let journal = read_journal(root);
    Some(Profile {
        name: name?.value.to_owned(),
        threads,
        link_agents,
        rings,
        driver,
        journal,
        payments_expected,
    })
}

/// Checks that each stage runs exactly once (link agents: at least once), and gives the number of link agents.
fn check_roles(root: &Section<'_, '_>, sections: &[Section<'_, '_>], threads: &[ThreadPlan]) -> u8 {
    let count = |role| threads.iter().flat_map(|t| &t.agents).filter(|r| **r == role).count();
    let place = sections
        .last()
        .map_or(root.span.clone(), |section| section.span.clone());
    // Where a thread was faulty, what it would have run is not known.
    let complete = sections.len() == threads.len() && !threads.is_empty();
    for role in AgentRole::ALL {
        let times = count(role);
        let missing = times == 0 && role != AgentRole::Follower;
        if complete && (missing || (times > 1 && role != AgentRole::Link)) {
            root.fault(
                place.clone(),
                format!("the agent `{}` stands on {times} threads", role.name()),
                if times == 0 {
                    format!("add \"{}\" to one thread's `agents`", role.name())
                } else {
                    format!("leave \"{}\" on one thread only", role.name())
                },
            );
        }
    }
    u8::try_from(count(AgentRole::Link)).unwrap_or_else(|_| {
        root.fault(place, "there are more than 255 link agents", "leave at most 255");
        0
    })
}

fn read_thread(section: &Section<'_, '_>) -> Option<ThreadPlan> {
    let name = section.required_text("name", "\"pipeline\"");
    if let Some(name) = &name
        && (name.value.is_empty() || name.value.len() > 15)
    {
        section.fault(
            name.span.clone(),
            "a thread's name has 1 to 15 bytes",
            "shorten it: the kernel keeps no more",
        );
    }
    let agents = section.words("agents", &AgentRole::ALL.map(|role| (role.name(), role)));
    if !section.has("agents") {
        section.missing("agents", "[\"link\"]");
    }
    if let Some(placed) = &agents
        && placed.len() > 1
        && let Some(follower) = placed.iter().find(|role| role.value == AgentRole::Follower)
    {
        section.fault(
            follower.span.clone(),
            "the follower shares a thread, and would hold up whoever it shares it with",
            "give it a thread of its own",
        );
    }
    let core = section.integer("core", 0..=4_095).map(|core| core.value as usize);
    let class = section.word("class", &ScheduleClass::ALL.map(|class| (class.name(), class)));
    let idle = read_idle(section);
    section.finish();
    Some(ThreadPlan {
        name: name?.value.to_owned(),
        agents: agents?.into_iter().map(|role| role.value).collect(),
        core,
        class: class.unwrap_or(ScheduleClass::Normal),
        idle,
    })
}

fn read_idle(thread: &Section<'_, '_>) -> IdleStrategy {
    #[derive(Clone, Copy)]
    enum Word {
        Spin,
        Backoff,
        Park,
    }
    let word = thread.word(
        "idle",
        &[("spin", Word::Spin), ("backoff", Word::Backoff), ("park", Word::Park)],
    );
    let spins = thread.integer("idle_spins", 0..=1_000_000);
    let longest = thread.integer("idle_longest_us", 1..=1_000_000);
    let word = word.unwrap_or(Word::Park);
    let unused = match word {
        Word::Spin => spins.as_ref().or(longest.as_ref()),
        Word::Park => longest.as_ref(),
        Word::Backoff => None,
    };
    if let Some(unused) = unused {
        thread.fault(
            unused.span.clone(),
            "this value has no meaning with this `idle`",
            "remove the line: idle_spins goes with park and backoff, idle_longest_us with backoff",
        );
    }
    let spins = spins.map_or(20, |spins| spins.value as u32);
    match word {
        Word::Spin => IdleStrategy::Spin,
        Word::Park => IdleStrategy::Park { spins },
        Word::Backoff => IdleStrategy::Backoff {
            spins,
            longest: Duration::from_micros(longest.map_or(1_000, |longest| longest.value)),
        },
    }
}

fn read_rings(root: &Section<'_, '_>) -> RingSizes {
    let section = root.section("rings");
    let size = |key, default: u64| match &section {
        Some(section) => section.integer_or(key, 64..=1 << 26, default) as usize,
        None => default as usize,
    };
    let rings = RingSizes {
        intake_requests: size("intake_requests", 4_096),
        intake_priority: size("intake_priority", 1 << 20),
        effects: size("effects", 65_536),
        outbound: size("outbound", 65_536),
    };
    if let Some(section) = &section {
        section.finish();
    }
    rings
}

fn read_driver(root: &Section<'_, '_>) -> DriverOptions {
    let mut options = DriverOptions {
        connections_max: 2_048,
        receive_bytes: 16_384,
        receive_buffers: 1_024,
        gather_completions: 4_096,
        send_buffer_bytes: None,
        sqpoll: false,
    };
    let Some(section) = root.section("driver") else {
        return options;
    };
    // Link slots are 16 bits wide over all link agents.
    options.connections_max = section.integer_or("connections_max", 16..=65_535, 2_048) as u32;
    options.receive_bytes = section.integer_or("receive_bytes", 1_024..=1 << 20, 16_384) as u32;
    options.receive_buffers = power_of_two(&section, "receive_buffers", 8..=16_384, 1_024) as u16;
    options.gather_completions = section.integer_or("gather_completions", 1..=65_536, 4_096) as u32;
    options.sqpoll = section.flag_or("sqpoll", false);
    section.finish();
    options
}

fn read_journal(root: &Section<'_, '_>) -> JournalPlan {
    let mut plan = JournalPlan {
        segment_bytes: 64 * MIB,
        ring_bytes: 128 * MIB,
        prepared_segments: 2,
        lock_memory: true,
    };
    let Some(section) = root.section("journal") else {
        return plan;
    };
    plan.segment_bytes = power_of_two(&section, "segment_mib", 1..=4_096, 64) * MIB;
    plan.ring_bytes = power_of_two(&section, "ring_mib", 2..=65_536, 128) * MIB;
    if plan.ring_bytes < 2 * plan.segment_bytes {
        section.fault(
            section.span.clone(),
            "the journal's ring is smaller than two segments",
            format!("set ring_mib to at least {}", 2 * plan.segment_bytes / MIB),
        );
    }
    plan.prepared_segments = section.integer_or("prepared_segments", 1..=64, 2) as u32;
    plan.lock_memory = section.flag_or("lock_memory", true);
    section.finish();
    plan
}

pub(super) fn power_of_two(
    section: &Section<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    default: u64,
) -> u64 {
    let Some(placed) = section.integer(key, range) else {
        return default;
    };
    if !placed.value.is_power_of_two() {
        section.fault(
            placed.span,
            format!("`{key}` is not a power of two"),
            format!(
                "write {} or {}",
                placed.value.next_power_of_two() / 2,
                placed.value.next_power_of_two()
            ),
        );
    }
    placed.value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_profiles_are_right() {
        for (name, _) in BUILT_IN_PROFILES {
            let profile = Profile::load(name).unwrap_or_else(|error| panic!("{}", error.render()));
            assert_eq!(profile.name, name);
        }
        let small = Profile::load("small-vm").expect("it was just loaded");
        assert_eq!(small.link_agents, 1);
        assert_eq!(small.threads.len(), 5);
        assert_eq!(small.journal.segment_bytes, 64 * MIB);
        assert_eq!(small.driver.receive_buffers, 1_024);
        assert_eq!(Profile::load("server-16").expect("it was just loaded").link_agents, 4);
    }

    #[test]
    fn a_large_profile_on_a_small_machine_runs_unpinned_and_never_spins_there() {
        let mut profile = Profile::load("server-16").expect("a built-in profile");
        let messages = profile.fit_to_cores(&[0, 1]);
        assert!(!messages.is_empty());
        for thread in &profile.threads {
            assert!(thread.core.is_none_or(|core| core < 2), "{thread:?}");
            assert!(thread.core.is_some() || thread.idle != IdleStrategy::Spin, "{thread:?}");
        }
        assert!(
            Profile::load("small-vm")
                .expect("built in")
                .fit_to_cores(&[0, 1])
                .is_empty()
        );
    }

    #[test]
    fn a_low_limit_on_open_files_leaves_fewer_links_and_says_so() {
        let mut profile = Profile::load("small-vm").expect("a built-in profile");
        assert_eq!(profile.fit_to_open_files(profile.files_max()), None);
        let message = profile.fit_to_open_files(1_024).expect("2048 links need more");
        assert_eq!(profile.driver.connections_max, 768);
        assert!(
            message.contains("768 links") && message.contains("LimitNOFILE=2304"),
            "{message}"
        );
        assert_eq!(profile.fit_to_open_files(1_024), None, "fitted once, it fits");
    }

    #[test]
    fn a_stage_that_is_missing_or_doubled_is_a_fault() {
        let text = "name = \"x\"\n[[thread]]\nname = \"a\"\nagents = [\"link\", \"sequencer\", \"sequencer\", \"clearing\", \"dispatch\", \"syncer\"]\n";
        let error = Profile::parse("x.toml", text)
            .expect_err("housekeeping is missing")
            .to_string();
        assert!(error.contains("`housekeeping` stands on 0 threads"), "{error}");
        assert!(error.contains("`sequencer` stands on 2 threads"), "{error}");
    }

    #[test]
    fn sizes_that_must_be_powers_of_two_say_which_ones_are_near() {
        let text = BUILT_IN_PROFILES[0]
            .1
            .replace("receive_buffers = 1024", "receive_buffers = 1000");
        let error = Profile::parse("x.toml", &text)
            .expect_err("1000 is no power of two")
            .to_string();
        assert!(error.contains("write 512 or 1024"), "{error}");
    }
}
