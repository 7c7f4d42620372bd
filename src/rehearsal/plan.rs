//! What a seed draws before the run begins: who takes part on what terms, how the machine is cut, and which faults there
//! are. Each seed switches a different part of the faults on, so that rare combinations come up and a quiet run exists too.

use std::path::{Path, PathBuf};

use super::Plant;
use super::faults::Fault;
use crate::agent::{IdleStrategy, ScheduleClass};
use crate::config::{AgentRole, Directory, FollowerSettings, Profile, Settings, ThreadPlan, WindowSettings};
use crate::domain::{Kind, MILLISECOND, SECOND, UtcNanos};
use crate::sim::Random;

const INSTITUTIONS: u16 = 3;
const BANKS: u16 = 4;
/// 2026-02-16, New Year's Eve, 00:00 in Shanghai.
const DAY_START: u64 = 1_771_171_200 * SECOND;
/// Kinds that participants ask for, each as often as it stands here.
pub(super) const KINDS: [Kind; 8] = [
    Kind::Debit,
    Kind::Debit,
    Kind::Debit,
    Kind::Payout,
    Kind::Payout,
    Kind::Refund,
    Kind::Bind,
    Kind::Unbind,
];

/// A run, before it begins.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) plant: Option<Plant>,
    pub(super) start: UtcNanos,
    pub(super) directory: Directory,
    pub(super) profile: Profile,
    pub(super) links: Vec<u16>,
    /// How long participants make payments and faults happen, nanoseconds.
    pub(super) span_ns: u64,
    /// Payments each institution makes.
    pub(super) payments: u64,
    pub(super) close_every_s: Option<u64>,
    pub(super) follower: FollowerSettings,
    pub(super) network: Network,
    pub(super) faults: Faults,
    pub(super) habits: Habits,
}

/// How lines carry bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    pub(super) latency_ns: u64,
    /// Bytes are cut into chunks of at most this many; 0 = as they come.
    pub(super) chunk_bytes_max: u64,
    /// In 100,000: a send is taken piece by piece.
    pub(super) slow_reader: u32,
}

/// How often what goes wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// The mean time between two drawn faults, nanoseconds; 0 = there are none.
    pub(super) every_ns: u64,
    pub(super) weights: Vec<(Fault, u64)>,
}

/// How participants behave; in 100,000.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// A bank that says no.
    pub(super) no: u32,
    /// It does not reply to a request.
    pub(super) silent: u32,
    /// It replies seconds late.
    pub(super) late: u32,
    /// It does not acknowledge a Reversal the first time.
    pub(super) deaf: u32,
    /// It says things that are not so; such a bank's own book is not held against the switch.
    pub(super) lie: u32,
    /// An institution sends what breaks a rule.
    pub(super) foul: u32,
    /// An institution repeats itself.
    pub(super) repeat: u32,
    /// Either asks questions.
    pub(super) ask: u32,
    /// Either sends bytes that are no frame.
    pub(super) garbage: u32,
    /// Either changes its contract while the session runs.
    pub(super) recontract: u32,
    /// Either signs on as one that has lost the last words it was told, or all.
    pub(super) forget: u32,
    /// What concerns the past: an institution repeats or gives back, and a bank asks about, an old payment.
    pub(super) past: u32,
    /// Mean time a bank takes, nanoseconds.
    pub(super) reply_ns: u64,
}

impl Plan {
    pub(super) fn draw(seed: u64, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed ^ 0x005E_ED0F_7E4E_A7D1);
        let random = &mut random;
        // Midnight in Shanghai is crossed by some runs.
        let second = if random.chance(30_000) {
            86_400 - random.below(400)
        } else {
            random.below(86_400)
        };
        let directory = directory(random);
        let links = directory
            .participants
            .iter()
            .map(|entry| 1 + random.below(u64::from(entry.terms.contract.links_max.min(3))) as u16)
            .collect();
        let span_ns = (10 + random.below(90)) * SECOND;
        let mut plan = Self {
            seed,
            plant,
            start: UtcNanos(DAY_START + second * SECOND + random.below(SECOND)),
            directory,
            profile: profile(random),
            links,
            span_ns,
            // Some are long enough for the journal's ring to come round.
            payments: if random.chance(3_000) {
                800
            } else {
                10 + random.below(80)
            },
            close_every_s: random.chance(50_000).then(|| 1 + random.below(20)),
            follower: follower(random),
            network: Network {
                latency_ns: [20_000, 200_000, 5 * MILLISECOND, 200 * MILLISECOND][random.below(4) as usize],
                chunk_bytes_max: [0, 0, 1, 7, 40, 300][random.below(6) as usize],
                slow_reader: some(random, 30_000),
            },
            faults: faults(random, span_ns),
            habits: habits(random),
        };
        if let Some(plant) = plant {
            plan.make_ready_for(plant);
        }
        if plan.follower.enabled {
            plan.draw_residency(&mut Random::new(seed ^ 0x00DA_7E0F_7E91_57E4));
        } else {
            // Nobody would answer what waits for a payment that has left memory.
            plan.profile.leave_out_follower();
        }
        plan
    }

    /// How little the engine holds: a few payments in most runs, so that nearly all of the past is the register's.
    fn draw_residency(&mut self, random: &mut Random) {
        let scheme = &mut self.directory.scheme;
        if !random.chance(15_000) {
            scheme.resident_payments = 8 << random.below(4);
            scheme.parked_max = 2 + random.below(15) as u32;
        }
        if random.chance(50_000) {
            // Days that jumps of time reach: what can be given back and what is on file come to an end.
            scheme.refund_days = 1 + random.below(4) as u32;
            self.follower.register_days = scheme.refund_days + random.below(2) as u32;
        }
        self.habits.past = some(random, 80_000);
        self.habits.forget = some(random, 40_000);
        #[cfg(test)]
        if let Some(Plant::Follower(_) | Plant::Engine(_)) = self.plant {
            self.directory.scheme.resident_payments = 8;
            (self.habits.past, self.habits.forget) = (90_000, 40_000);
        }
    }

    /// A planted fault is to be found for what it is, so the others that could end the run first are off.
    fn make_ready_for(&mut self, plant: Plant) {
        (self.habits.lie, self.habits.garbage) = (0, 0);
        self.payments = self.payments.max(40);
        self.network.slow_reader = 0;
        self.faults.every_ns = self.span_ns / 12;
        match plant {
            Plant::DiskDropsAcknowledgedWrites | Plant::DiskGoesBack => {
                self.faults.weights = vec![(Fault::Crash, 10), (Fault::Cut, 10), (Fault::Hold, 10)];
                // A snapshot that the journal does not lead to any more would keep the switch from starting.
                self.follower.enabled = false;
            }
            Plant::LargerContract => {
                (self.habits.silent, self.habits.late, self.habits.recontract) = (60_000, 30_000, 0);
                self.faults = Faults::default();
                self.payments = 200;
                self.span_ns = 10 * SECOND;
            }
            Plant::ReversalLost => (self.habits.silent, self.habits.late) = (30_000, 40_000),
            Plant::WordNumberReused
            | Plant::WordLost
            | Plant::AnswerChanged
            | Plant::CommitToldAsDecline
            | Plant::RequestTwice
            | Plant::ReplyTurned => {}
            #[cfg(test)]
            Plant::Follower(_) | Plant::Engine(_) => {
                (self.habits.repeat, self.habits.ask, self.payments) = (40_000, 60_000, 80);
                self.follower = FollowerSettings {
                    enabled: true,
                    snapshot_every_s: 2,
                    payments_in_memory: 16,
                    ..self.follower
                };
                // A follower that waits for room answers none the less, and must know what it has not passed.
                let weights = [Fault::Crash, Fault::Cut, Fault::FollowerLags, Fault::FilesFull];
                self.faults.weights = weights.map(|fault| (fault, 10)).to_vec();
            }
        }
        if matches!(plant, Plant::AnswerChanged) {
            self.habits.repeat = 60_000;
        }
    }

    pub(super) fn settings(&self, data: &Path) -> Settings {
        let mut settings = Settings::new(([127, 0, 0, 1], 1).into(), data.to_owned(), PathBuf::new());
        settings.follower = self.follower;
        settings.windows = WindowSettings {
            close_every_s: self.close_every_s,
            settle: true,
            ..WindowSettings::default()
        };
        settings
    }
}

/// A chance that is off in half of all runs.
fn some(random: &mut Random, most: u32) -> u32 {
    if random.chance(50_000) {
        0
    } else {
        random.below(u64::from(most)) as u32
    }
}

/// From 1 to a low bound by this chance, else to a high one.
fn up_to(random: &mut Random, low_chance: u32, low: u64, high: u64) -> u32 {
    let most = if random.chance(low_chance) { low } else { high };
    1 + random.below(most) as u32
}

fn directory(random: &mut Random) -> Directory {
    let mut directory = Directory::generate(INSTITUTIONS, BANKS);
    for entry in &mut directory.participants {
        let terms = &mut entry.terms;
        terms.permitted_kinds = Kind::ALL.iter().map(|kind| kind.bit()).sum();
        if random.chance(30_000) {
            let cover = 20_000 + random.below(200_000);
            (terms.accounts[0].cover_minor, terms.accounts[0].cap_minor) = (cover, cover - random.below(10_000));
        }
        if random.chance(15_000) {
            terms.payment_limit_minor = 5_000 + random.below(5_000);
        }
        if random.chance(50_000) {
            terms.wait_ns = (100 + random.below(900)) * MILLISECOND;
            terms.doubt_ns = terms.wait_ns + (100 + random.below(4_000)) * MILLISECOND;
            terms.expiry_push_ns = terms.doubt_ns + (500 + random.below(15_000)) * MILLISECOND;
            terms.expiry_pull_ns = terms.doubt_ns + (500 + random.below(55_000)) * MILLISECOND;
        }
        if random.chance(4_000) {
            terms.suspended = 1 + random.below(3) as u8;
        }
        if random.chance(5_000) {
            terms.permitted_kinds &= random.bits() as u32;
        }
        entry.terms.contract.links_max = 1 + random.below(4) as u16;
        entry.terms.contract.request_in_flight_max = up_to(random, 50_000, 4, 40);
        entry.terms.contract.intake_in_flight_max = up_to(random, 30_000, 4, 60);
        entry.terms.contract.request_per_second_max = if random.chance(20_000) {
            2 + random.below(20) as u32
        } else {
            0
        };
        entry.terms.contract.intake_per_second_max = if random.chance(10_000) {
            5 + random.below(20) as u32
        } else {
            0
        };
        entry.terms.contract.inquiries_per_second_max = 2 + random.below(20) as u32;
    }
    directory
}

fn profile(random: &mut Random) -> Profile {
    let mut profile = Profile::load("small-vm").expect("a built-in profile is right");
    profile.link_agents = 1 + u8::from(random.chance(30_000));
    let link = std::iter::repeat_n(AgentRole::Link, usize::from(profile.link_agents));
    let others = AgentRole::ALL.into_iter().filter(|role| *role != AgentRole::Link);
    let mut threads: Vec<Vec<AgentRole>> = link.chain(others).map(|role| vec![role]).collect();
    if profile.link_agents == 1 && random.chance(40_000) {
        // As on two cores.
        use AgentRole::{Clearing, Dispatch, Housekeeping, Link, Sequencer, Syncer};
        threads = vec![
            vec![Link, Sequencer, Clearing, Dispatch],
            vec![Syncer],
            vec![Housekeeping],
            vec![AgentRole::Steward],
            vec![AgentRole::Follower],
        ];
    }
    profile.threads = threads
        .into_iter()
        .map(|agents| ThreadPlan {
            name: agents[0].name().to_owned(),
            agents,
            core: None,
            class: ScheduleClass::Normal,
            idle: IdleStrategy::Park { spins: 0 },
        })
        .collect();
    let size = |random: &mut Random, least: u64| (least << random.below(6)) as usize;
    profile.rings.intake_requests = size(random, 4);
    profile.rings.intake_priority = size(random, 8);
    profile.rings.effects = size(random, 8);
    profile.rings.outbound = size(random, 32);
    profile.driver.connections_max = 24;
    profile.driver.receive_bytes = 256 << random.below(5);
    profile.driver.receive_buffers = 4 << random.below(4);
    profile.driver.gather_completions = 1 + random.below(64) as u32;
    // Just over what the sequencer keeps free for open payments.
    profile.payments_expected = 1_000;
    profile.journal.segment_bytes = (32 << 10) << random.below(2);
    profile.journal.ring_bytes = (512 << 10) << random.below(2);
    profile.journal.prepared_segments = ((448 << 10) / profile.journal.segment_bytes) as u32 + random.below(3) as u32;
    profile.journal.lock_memory = false;
    profile
}

/// A register that is written out after few payments, and snapshots every few seconds.
fn follower(random: &mut Random) -> FollowerSettings {
    FollowerSettings {
        enabled: !random.chance(10_000),
        snapshot_every_s: 1 + random.below(30),
        snapshot_journal_mib: 1,
        payments_in_memory: 16 << random.below(4),
        ..FollowerSettings::default()
    }
}

fn faults(random: &mut Random, span_ns: u64) -> Faults {
    if random.chance(5_000) {
        return Faults::default();
    }
    // Each seed has some of the faults, and not others.
    let drawn = Fault::ALL.iter().filter(|_| random.chance(60_000)).copied();
    Faults {
        weights: drawn.collect(),
        every_ns: span_ns / (4 + random.below(40)),
    }
}

fn habits(random: &mut Random) -> Habits {
    Habits {
        no: some(random, 40_000),
        silent: some(random, 30_000),
        late: some(random, 30_000),
        deaf: some(random, 80_000),
        lie: some(random, 10_000),
        foul: some(random, 20_000),
        repeat: some(random, 30_000),
        ask: some(random, 30_000),
        garbage: some(random, 3_000),
        recontract: some(random, 10_000),
        forget: 0,
        past: 0,
        reply_ns: [100_000, 3 * MILLISECOND, 100 * MILLISECOND, 800 * MILLISECOND][random.below(4) as usize],
    }
}
