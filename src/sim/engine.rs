//! The load's one thread: connects, paces, sends once per link and round, waits for the last answer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::bank::BankHabits;
use super::books::Books;
use super::breakdown::Breakdown;
use super::load::Load;
use super::outcome::{Live, Outcomes};
use super::session::SessionEnd;
use super::workload::Workload;
use crate::domain::{Currency, ParticipantIndex, Role, SchemeCode, UtcNanos};
use crate::io::{Driver, Stream};

/// Payments sent at most before the round's bytes go out.
const ISSUED_PER_ROUND_MAX: usize = 2_048;
/// Links that connect at a time: fewer than any sensible listen backlog or limit on half-open sessions.
const CONNECTING_MAX: usize = 32;
/// How often heartbeats, reconnects, gaps and overdue payments are looked at.
const MAINTENANCE_NS: u64 = 10_000_000;
/// The longest sleep of [`Idle::Sleep`]: about a step of the timing wheel.
const SLEEP: Duration = Duration::from_micros(60);
/// How long the engine listens on after the last answer, for words that should not come.
const LINGER_NS: u64 = 100_000_000;

/// One participant that is to be simulated.
#[derive(Clone, Debug)]
pub struct ParticipantPlan {
    /// Its number in the directory.
    pub index: ParticipantIndex,
    /// Its public code.
    pub code: SchemeCode,
    /// What it is.
    pub role: Role,
    /// Its secret.
    pub credential: [u8; 32],
    /// How many links it opens.
    pub links: u16,
}

/// What the load's thread does when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// Looks again: the core is the load's own.
    Spin,
    /// Sleeps a few dozen microseconds, or until something comes: the switch may need the core.
    Sleep,
}

/// How the load is set up.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where the switch listens.
    pub address: SocketAddr,
    /// The run's number, new for each run against the same journal: part of every payment id.
    pub run: u32,
    /// The run's currency.
    pub currency: Currency,
    /// The longest silence of a link, milliseconds.
    pub keepalive_ms: u32,
    /// An institution without an answer sends the request again after this long.
    pub retry_after: Duration,
    /// How long the engine waits for the last answers.
    pub grace: Duration,
    /// What to do when there is nothing to do.
    pub idle: Idle,
}

/// Why a load could not run.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The driver failed.
    #[error("the load's driver failed: {0}")]
    Driver(#[from] io::Error),
    /// Not all links came up.
    #[error("{established} of {links} links were established within {seconds} s; the last trouble: {trouble}")]
    NotConnected {
        /// How many were.
        established: usize,
        /// How many there are.
        links: usize,
        /// How long that took.
        seconds: u64,
        /// The last thing that went wrong.
        trouble: String,
    },
    /// The switch will not take a participant.
    #[error("participant {participant}: {end}")]
    Refused {
        /// Which participant.
        participant: ParticipantIndex,
        /// Why.
        end: SessionEnd,
    },
}

/// What a run leaves.
#[derive(Debug)]
pub struct LoadResult {
    /// Counts and latencies.
    pub outcomes: Outcomes,
    /// The participants' own books.
    pub books: Books,
    /// Payments by kind, scene and participant.
    pub breakdown: Breakdown,
    /// Links that were connected.
    pub links: usize,
}

/// The simulated participants and their links.
pub struct LoadEngine {
    stream: Stream,
    load: Load,
    options: LoadOptions,
    origin: Instant,
    maintained_ns: u64,
}

impl LoadEngine {
    /// Sets the participants up; nothing is connected yet. Their indexes are dense from 0.
    ///
    /// # Panics
    /// When the plans' indexes are not dense.
    #[must_use]
    pub fn new(driver: Box<dyn Driver>, plans: &[ParticipantPlan], habits: BankHabits, options: LoadOptions) -> Self {
        for (index, plan) in plans.iter().enumerate() {
            assert_eq!(plan.index.index(), index, "participants must be dense from 0");
        }
        let utc_origin_ns = utc_now().0;
        Self {
            stream: Stream::new(driver),
            load: Load::new(plans, habits, &options, utc_origin_ns),
            options,
            origin: Instant::now(),
            maintained_ns: 0,
        }
    }

    /// Connects and establishes every link.
    ///
    /// # Errors
    /// When the switch refuses a participant, or not all links are up within `limit`.
    pub fn connect(&mut self, limit: Duration) -> Result<(), LoadError> {
        let live = Live::default();
        let started = self.now_ns();
        loop {
            self.stream.gather_within(Duration::from_millis(1))?;
            self.turn(&live);
            self.flush();
            if let Some((participant, end)) = self.load.refusal() {
                return Err(LoadError::Refused { participant, end });
            }
            let (established, links) = (self.load.established(), self.load.links());
            if established == links {
                return Ok(());
            }
            if self.load.now_ns - started > limit.as_nanos() as u64 {
                return Err(LoadError::NotConnected {
                    established,
                    links,
                    seconds: limit.as_secs(),
                    trouble: self.load.trouble().to_owned(),
                });
            }
        }
    }

    /// From now on, does this when there is nothing to do.
    pub const fn set_idle(&mut self, idle: Idle) {
        self.options.idle = idle;
    }

    /// Makes the workload's payments and waits until each is answered, or the grace time has passed.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn run(&mut self, workload: &mut impl Workload, live: &Live) -> Result<(), LoadError> {
        let start_ns = self.now_ns();
        self.load.start_run(start_ns);
        loop {
            let gathered = self.stream.gather()?;
            self.turn(live);
            let at_ns = self.load.now_ns - start_ns;
            for answered in self.load.answered.drain(..) {
                workload.answered(at_ns, &answered);
            }
            let mut issued = 0;
            while issued < ISSUED_PER_ROUND_MAX
                && let Some(intent) = workload.next(at_ns)
            {
                self.load.issue(&intent);
                issued += 1;
            }
            self.flush();
            if workload.is_finished(at_ns) {
                break;
            }
            if gathered == 0 && issued == 0 {
                self.idle()?;
            }
        }
        self.load.end_run();
        self.drain(live)
    }

    fn drain(&mut self, live: &Live) -> Result<(), LoadError> {
        let limit_ns = self.load.now_ns + self.options.grace.as_nanos() as u64;
        let mut quiet_since_ns = None;
        loop {
            let gathered = self.stream.gather()?;
            self.turn(live);
            self.load.answered.clear();
            self.flush();
            let now_ns = self.load.now_ns;
            if self.load.is_done() {
                if now_ns - *quiet_since_ns.get_or_insert(now_ns) > LINGER_NS {
                    return Ok(());
                }
            } else {
                quiet_since_ns = None;
                if now_ns > limit_ns {
                    return Ok(());
                }
            }
            if gathered == 0 {
                self.idle()?;
            }
        }
    }

    /// Keeps the links alive, doing nothing else, for `duration`.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn keep_alive(&mut self, duration: Duration) -> Result<(), LoadError> {
        let live = Live::default();
        let end_ns = self.now_ns() + duration.as_nanos() as u64;
        while self.now_ns() < end_ns {
            self.stream.gather_within(Duration::from_millis(20))?;
            self.turn(&live);
            self.flush();
        }
        Ok(())
    }

    /// Ends all sessions in good order and gives what the run left.
    ///
    /// # Errors
    /// When the driver fails.
    pub fn finish(mut self) -> Result<LoadResult, LoadError> {
        self.load.finish_sessions();
        let limit_ns = self.now_ns() + 1_000_000_000;
        let links = self.load.links();
        while self.load.open() > 0 && self.now_ns() < limit_ns {
            self.flush();
            self.stream.gather_within(Duration::from_millis(5))?;
            self.load.now_ns = self.now_ns();
            self.stream.deliver(&mut self.load);
        }
        let (outcomes, books, breakdown) = self.load.into_results();
        Ok(LoadResult {
            outcomes,
            books,
            breakdown,
            links,
        })
    }

    /// Handles what was gathered, and what is due.
    #[inline]
    fn turn(&mut self, live: &Live) {
        self.load.now_ns = self.now_ns();
        self.load.roll(live);
        self.stream.deliver(&mut self.load);
        self.load.fire();
        if self.load.now_ns - self.maintained_ns >= MAINTENANCE_NS {
            self.maintained_ns = self.load.now_ns;
            self.load.maintain();
            self.connect_links();
        }
    }

    fn connect_links(&mut self) {
        while self.load.connecting() < CONNECTING_MAX
            && let Some(link) = self.load.link_to_connect()
        {
            match self.stream.connect(self.options.address) {
                Ok(connection) => self.load.connecting_on(link, connection),
                Err(error) => {
                    self.load.could_not_connect(link, &error);
                    return;
                }
            }
        }
    }

    /// One send per link that has something to say and none under way.
    #[inline]
    fn flush(&mut self) {
        let handed_ns = self.now_ns();
        self.load.note_handed(handed_ns);
        while let Some((connection, bytes)) = self.load.next_send(handed_ns) {
            self.stream.send(connection, bytes);
        }
        while let Some(connection) = self.load.next_close() {
            self.stream.close(connection);
        }
    }

    fn idle(&mut self) -> Result<(), LoadError> {
        match self.options.idle {
            Idle::Spin => std::hint::spin_loop(),
            Idle::Sleep => {
                self.stream.gather_within(SLEEP)?;
            }
        }
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

fn utc_now() -> UtcNanos {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UtcNanos(since_epoch.as_nanos() as u64)
}
