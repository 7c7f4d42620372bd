//! How long a start takes after a kill: a history of so many payments, a snapshot, events since, and the daemon itself.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of};
use serde::Serialize;
use serde_json::Value;

use super::run::RunError;
use crate::agent::{Agent, IntakeGate, Ring, SwitchClock, Wakeup};
use crate::config::{Directory, Profile, Settings};
use crate::domain::{Currency, Kind, ParticipantIndex, PaymentId, Role, UtcNanos, WindowId};
use crate::follower::{Follower, FollowerCounters, FollowerParts};
use crate::journal::{Appender, Full, Journal, JournalOptions, SyncMode, Syncer};
use crate::register::{FileDoor, RegisterOptions};
use crate::snapshot::SnapshotStore;
use crate::wire::{
    RecordKind, Regarding, ReplyBody, ReplyEvent, ReplyOutcome, RequestEvent, WindowAction, WindowEvent,
};

/// Payments journaled before they are made durable and followed.
const PAYMENTS_PER_WRITE: u64 = 4_096;
/// Nanoseconds from one event to the next.
const EVENT_NS: u64 = 100;
/// The longest a start may take.
const START_MAX: Duration = Duration::from_secs(600);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct RestartPlan {
    /// This program's file.
    pub program: PathBuf,
    /// Where everything is written.
    pub data: PathBuf,
    /// Payments of history, all of today.
    pub payments: u64,
    /// Events behind the snapshot.
    pub since: u64,
    /// Starts.
    pub runs: u32,
    /// Institutions.
    pub institutions: u16,
    /// Banks.
    pub banks: u16,
    /// The hardware profile.
    pub profile: String,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct RestartReport {
    /// Payments of history.
    pub payments: u64,
    /// Events behind the snapshot.
    pub since: u64,
    /// The journal's length, bytes.
    pub journal_bytes: u64,
    /// The snapshot's length, bytes.
    pub snapshot_bytes: u64,
    /// How long the snapshot took to write, milliseconds.
    pub snapshot_ms: u64,
    /// The register's files, bytes.
    pub register_bytes: u64,
    /// Events a second at which the history was journaled, followed and filed.
    pub built_per_second: f64,
    /// From the start of the process to taking payments, milliseconds, each start.
    pub ready_ms: Vec<f64>,
    /// What each start said of its steps.
    pub starts: Vec<Value>,
    /// Anonymous memory when ready, bytes.
    pub rss_bytes: Option<u64>,
}

/// Builds the history, and starts and kills the daemon.
///
/// # Errors
/// What kept it from being measured.
pub fn restart(plan: &RestartPlan, mut say: impl FnMut(&str)) -> Result<RestartReport, RunError> {
    let host = |what: &'static str| move |error: std::io::Error| RunError::Host { what, error };
    let unfit = |error: String| RunError::Host {
        what: "build the history",
        error: std::io::Error::other(error),
    };
    let directory = Directory::generate(plan.institutions, plan.banks);
    let config = plan.data.join("clearway.toml");
    let mut settings = Settings::new(
        ([127, 0, 0, 1], 0).into(),
        plan.data.join("data"),
        plan.data.join("directory.toml"),
    );
    settings.profile.clone_from(&plan.profile);
    // The snapshot is taken where this says.
    (
        settings.follower.snapshot_every_s,
        settings.follower.snapshot_journal_mib,
    ) = (86_400, 1 << 20);
    std::fs::create_dir_all(&settings.data).map_err(host("make the data directory"))?;
    std::fs::write(&settings.directory, directory.to_toml()).map_err(host("write the directory"))?;
    std::fs::write(&config, settings.to_toml()).map_err(host("write the settings"))?;
    let profile = Profile::load(&plan.profile).map_err(|error| unfit(error.to_string()))?;

    say(&format!("journaling {} payments", plan.payments));
    let begun = Instant::now();
    let mut history = History::begin(&settings, &directory, &profile).map_err(&unfit)?;
    history.pay(plan.payments, &mut say).map_err(&unfit)?;
    let built = begun.elapsed();
    history.follower.on_close();
    let counters = Arc::clone(&history.counters);
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    if read(&counters.snapshots) == 0 {
        return Err(unfit(
            counters.trouble().unwrap_or_else(|| "no snapshot was taken".into()),
        ));
    }
    let events = history.events;
    history.pay(plan.since.div_ceil(2), &mut |_| {}).map_err(&unfit)?;
    let journal_bytes = history.journal_end();
    drop(history);

    let (mut ready_ms, mut starts, mut rss_bytes) = (Vec::new(), Vec::new(), None);
    for run in 1..=plan.runs {
        let mut started = Started::spawn(&plan.program, &config).map_err(host("start the daemon"))?;
        let (took, status) = started.wait(&settings.admin_socket)?;
        ready_ms.push(took.as_secs_f64() * 1e3);
        rss_bytes = super::machine::anonymous_bytes(started.0.id());
        say(&format!(
            "start {run}: {:.0} ms, {}",
            took.as_secs_f64() * 1e3,
            status["start"]
        ));
        starts.push(status["start"].clone());
    }
    Ok(RestartReport {
        payments: plan.payments,
        since: plan.since,
        journal_bytes,
        snapshot_bytes: read(&counters.snapshot_bytes),
        snapshot_ms: read(&counters.snapshot_ms),
        register_bytes: read(&counters.register_bytes),
        built_per_second: events as f64 / built.as_secs_f64(),
        ready_ms,
        starts,
        rss_bytes,
    })
}

/// A journal that is written without a switch, and its follower.
struct History {
    appender: Appender,
    syncer: Syncer,
    preparer: crate::journal::Preparer,
    follower: Follower,
    counters: Arc<FollowerCounters>,
    institutions: u16,
    banks: u16,
    time: UtcNanos,
    events: u64,
    serial: u64,
}

impl History {
    fn begin(settings: &Settings, directory: &Directory, profile: &Profile) -> Result<Self, String> {
        let journal = Journal::create(JournalOptions {
            directory: crate::switch::journal_directory(settings),
            segment_bytes: profile.journal.segment_bytes,
            ring_bytes: profile.journal.ring_bytes,
            sync: SyncMode::Auto,
            lock_memory: false,
            prepared_segments: profile.journal.prepared_segments,
            link_agents: 0,
            start: None,
            gate: None,
        })
        .map_err(|error| error.to_string())?;
        let wakeup = Arc::new(Wakeup::new().map_err(|error| error.to_string())?);
        let counters = Arc::new(FollowerCounters::default());
        let clock = SwitchClock::new();
        let journal_id = journal.facts.journal_id;
        let follower = Follower::new(FollowerParts {
            source: journal.source,
            superblock: journal.superblock,
            positions: journal.positions,
            snapshots: SnapshotStore::new(settings.data.join("snapshots"), journal_id),
            began_with: None,
            unusable: Vec::new(),
            register: RegisterOptions {
                directory: settings.data.join("register"),
                journal_id,
                payments_in_memory: settings.follower.payments_in_memory as usize,
                door: FileDoor::OPEN,
            },
            settings: settings.follower,
            look_ups: Ring::new(1, Arc::clone(&wakeup)),
            queries: Ring::new(1, Arc::clone(&wakeup)),
            marks: Ring::new(1, Arc::clone(&wakeup)),
            findings: Ring::new(1, Arc::clone(&wakeup)),
            priority: Ring::new(1, Arc::clone(&wakeup)),
            effects: Ring::new(1, wakeup),
            gate: Arc::new(IntakeGate::default()),
            clock: clock.clone(),
            counters: Arc::clone(&counters),
        });
        let institutions = directory
            .participants
            .iter()
            .filter(|entry| entry.role() == Role::Institution)
            .count();
        let mut history = Self {
            appender: journal.appender,
            syncer: journal.syncer,
            preparer: journal.preparer,
            follower,
            counters,
            institutions: institutions as u16,
            banks: (directory.participants.len() - institutions) as u16,
            time: clock.wall(),
            events: 0,
            serial: 0,
        };
        history.append(RecordKind::Genesis, bytes_of(&directory.scheme))?;
        for entry in &directory.participants {
            history.append(RecordKind::Participant, bytes_of(&entry.terms))?;
        }
        for &currency in directory.scheme.currencies.iter().filter(|&&currency| currency != 0) {
            let open = WindowEvent::new(WindowAction::Open, Currency(currency), WindowId::NONE);
            history.append(RecordKind::Window, bytes_of(&open))?;
        }
        history.follow()?;
        Ok(history)
    }

    fn append(&mut self, kind: RecordKind, payload: &[u8]) -> Result<(), String> {
        self.time = self.time.plus(EVENT_NS);
        self.events += 1;
        let write = |bytes: &mut [u8]| bytes.copy_from_slice(payload);
        self.appender
            .append(kind, self.time, payload.len(), write)
            .map(|_| ())
            .map_err(|Full| "the journal's ring is too small for this".to_owned())
    }

    /// Makes what was appended durable, and has it followed and filed.
    fn follow(&mut self) -> Result<(), String> {
        self.appender.publish();
        while self.syncer.sync().map_err(|error| error.to_string())? > 0 {}
        while self.preparer.prepare().map_err(|error| error.to_string())? {}
        let positions = self.appender.positions();
        positions.set_applied(positions.durable());
        let passed = || self.counters.event.load(Ordering::Relaxed);
        while passed() < self.events {
            self.follower.do_work().map_err(|error| error.to_string())?;
            if let Some(trouble) = self.counters.trouble() {
                return Err(trouble);
            }
        }
        Ok(())
    }

    /// So many committed Debits of today, spread over all participants.
    fn pay(&mut self, payments: u64, say: &mut impl FnMut(&str)) -> Result<(), String> {
        let today = self.time.business_date();
        let end = self.serial + payments;
        let mut told = Instant::now();
        while self.serial < end {
            let first = self.serial;
            self.serial = end.min(first + PAYMENTS_PER_WRITE);
            let paid = first..self.serial;
            let id_of = |n: u64, institutions: u16| {
                let originator = ParticipantIndex((n % u64::from(institutions)) as u16);
                PaymentId::new(today, originator, 0, n / u64::from(institutions) + 1)
            };
            for n in paid.clone() {
                let mut request = RequestEvent::zeroed();
                request.body.id = id_of(n, self.institutions);
                request.body.amount_minor = 1;
                request.body.currency = 156;
                request.body.kind = Kind::Debit as u8;
                request.body.scene = 1;
                request.body.responder = ParticipantIndex(self.institutions + (n % u64::from(self.banks)) as u16);
                self.append(RecordKind::Request, bytes_of(&request))?;
            }
            for n in paid {
                let mut reply = ReplyEvent::zeroed();
                reply.sender = self.institutions + (n % u64::from(self.banks)) as u16;
                reply.body = ReplyBody::zeroed();
                reply.body.id = id_of(n, self.institutions);
                (reply.body.amount_minor, reply.body.currency) = (1, 156);
                reply.body.regarding = Regarding::Request as u8;
                reply.body.outcome = ReplyOutcome::Yes as u8;
                self.append(RecordKind::Reply, bytes_of(&reply))?;
            }
            self.follow()?;
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                say(&format!("{} payments journaled, followed and filed", self.serial));
            }
        }
        Ok(())
    }

    fn journal_end(&self) -> u64 {
        self.appender.positions().durable()
    }
}

/// The daemon; killed when it is let go.
struct Started(Child, Instant);

impl Started {
    fn spawn(program: &Path, config: &Path) -> std::io::Result<Self> {
        let started = Instant::now();
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?, started))
    }

    /// Waits until it takes payments.
    fn wait(&mut self, socket: &Path) -> Result<(Duration, Value), RunError> {
        let failed = |what: &str| RunError::Host {
            what: "wait for the daemon",
            error: std::io::Error::other(what.to_owned()),
        };
        loop {
            let status = ask(socket).unwrap_or(Value::Null);
            if status["ready"] == true && status["pid"] == self.0.id() {
                return Ok((self.1.elapsed(), status));
            }
            if self.0.try_wait().ok().flatten().is_some() {
                return Err(failed("it ended before it took payments: start it by hand to see why"));
            }
            if self.1.elapsed() > START_MAX {
                return Err(failed("it took no payments within ten minutes"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(socket: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"status\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
