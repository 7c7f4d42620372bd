//! A history of payments, written without a switch: the journal itself, the follower behind it on a thread of its own with
//! register and snapshots, and no more of the journal kept than the older of two snapshots needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of};

use crate::agent::{Agent, IntakeGate, Ring, SwitchClock, Wakeup};
use crate::config::{Directory, Profile, Settings};
use crate::domain::{Currency, Kind, ParticipantIndex, PaymentId, Role, UtcNanos, WindowId};
use crate::follower::{Follower, FollowerCounters, FollowerParts};
use crate::journal::{Appender, Full, Journal, JournalOptions, Superblock, SyncMode, Syncer};
use crate::register::{FileDoor, RegisterOptions};
use crate::settlement::SpoolOptions;
use crate::snapshot::SnapshotStore;
use crate::wire::{
    RecordKind, Regarding, ReplyBody, ReplyEvent, ReplyOutcome, RequestEvent, WindowAction, WindowEvent,
};

/// Payments journaled before they are made durable.
const PAYMENTS_PER_WRITE: u64 = 4_096;
/// Nanoseconds from one event to the next.
const EVENT_NS: u64 = 100;
/// Payments between two snapshots: what is kept of the journal is twice that at most.
const PAYMENTS_PER_SNAPSHOT: u64 = 10_000_000;
/// Writes that the follower may be behind: the tail holds them still.
const BEHIND_MAX: usize = 16;
/// How often the progress is told.
const TELL: Duration = Duration::from_secs(5);

/// What was written.
pub(super) struct Written {
    pub(super) journal_bytes: u64,
    pub(super) journal_kept_bytes: u64,
    pub(super) snapshot_bytes: u64,
    pub(super) snapshot_ms: u64,
    pub(super) snapshots: u64,
    pub(super) register_bytes: u64,
}

/// What the follower is told to do.
enum Order {
    /// To follow up to this event.
    Follow(u64),
    /// To take a snapshot.
    Snapshot,
}

/// The follower on its thread: orders go in, and for each of them one word comes out.
struct Following {
    orders: Sender<Order>,
    done: Receiver<Result<(), String>>,
    underway: usize,
    thread: JoinHandle<()>,
}

impl Following {
    fn start(mut follower: Follower, counters: Arc<FollowerCounters>) -> std::io::Result<Self> {
        let (orders, taken) = channel();
        let (told, done) = channel();
        let thread = std::thread::Builder::new().name("follower".to_owned()).spawn(move || {
            for order in taken {
                let obeyed = obey(&mut follower, &counters, &order);
                if told.send(obeyed).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            orders,
            done,
            underway: 0,
            thread,
        })
    }

    /// Gives an order and waits until at most `behind` are not done yet.
    fn order(&mut self, order: Order, behind: usize) -> Result<(), String> {
        let gone = || "the follower has ended".to_owned();
        self.orders.send(order).map_err(|_| gone())?;
        self.underway += 1;
        while self.underway > behind {
            self.done.recv().map_err(|_| gone())??;
            self.underway -= 1;
        }
        Ok(())
    }

    fn end(self) -> Result<(), String> {
        drop(self.orders);
        self.thread.join().map_err(|_| "the follower panicked".to_owned())
    }
}

fn obey(follower: &mut Follower, counters: &FollowerCounters, order: &Order) -> Result<(), String> {
    match *order {
        Order::Follow(event) => {
            while counters.event.load(Ordering::Relaxed) < event {
                follower.do_work().map_err(|error| error.to_string())?;
                if let Some(trouble) = counters.trouble() {
                    return Err(trouble);
                }
            }
        }
        Order::Snapshot => {
            let taken = counters.snapshots.load(Ordering::Relaxed);
            // As when a switch is stopped in order.
            follower.on_close();
            if counters.snapshots.load(Ordering::Relaxed) == taken {
                let trouble = counters.trouble();
                return Err(trouble.unwrap_or_else(|| "no snapshot was taken".to_owned()));
            }
        }
    }
    Ok(())
}

/// A journal that is written without a switch, and its follower.
pub(super) struct History {
    appender: Appender,
    syncer: Syncer,
    preparer: crate::journal::Preparer,
    superblock: Arc<Superblock>,
    following: Following,
    counters: Arc<FollowerCounters>,
    institutions: u16,
    banks: u16,
    time: UtcNanos,
    events: u64,
    serial: u64,
    retained_from: u64,
}

impl History {
    pub(super) fn begin(settings: &Settings, directory: &Directory, profile: &Profile) -> Result<Self, String> {
        let journal = Journal::create(JournalOptions {
            directory: crate::switch::journal_directory(settings),
            segment_bytes: profile.journal.segment_bytes,
            ring_bytes: profile.journal.ring_bytes,
            sync: SyncMode::Auto,
            lock_memory: false,
            // One at a time is made in a hurry; more are made with pauses, for the sake of payments.
            prepared_segments: 1,
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
            superblock: Arc::clone(&journal.superblock),
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
            spool: SpoolOptions::within(&settings.settlement.directory, journal_id, FileDoor::OPEN),
            spool_view: Arc::default(),
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
            superblock: journal.superblock,
            following: Following::start(follower, Arc::clone(&counters)).map_err(|error| error.to_string())?,
            counters,
            institutions: institutions as u16,
            banks: (directory.participants.len() - institutions) as u16,
            time: clock.wall(),
            events: 0,
            serial: 0,
            retained_from: 0,
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

    /// Makes what was appended durable, and has it followed and filed meanwhile.
    fn follow(&mut self) -> Result<(), String> {
        self.appender.publish();
        while self.syncer.sync().map_err(|error| error.to_string())? > 0 {}
        while self.preparer.prepare().map_err(|error| error.to_string())? {}
        let positions = self.appender.positions();
        positions.set_applied(positions.durable());
        self.following.order(Order::Follow(self.events), BEHIND_MAX)
    }

    /// Takes a snapshot, and gives up what no snapshot needs any more of the journal: its segments are used again.
    pub(super) fn snapshot(&mut self) -> Result<(), String> {
        self.following.order(Order::Snapshot, 0)?;
        let needed_from = self.counters.needed_from.load(Ordering::Relaxed);
        let retained_from = self.superblock.retain_from(needed_from);
        self.retained_from = retained_from.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Events journaled so far.
    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    /// So many committed Debits of today, spread over all participants.
    pub(super) fn pay(&mut self, payments: u64, say: &mut impl FnMut(&str)) -> Result<(), String> {
        let today = self.time.business_date();
        let begin = self.serial;
        let end = begin + payments;
        let begun = Instant::now();
        let mut told = begun;
        while self.serial < end {
            let first = self.serial;
            if first > begin && (first - begin).is_multiple_of(PAYMENTS_PER_SNAPSHOT) {
                self.snapshot()?;
            }
            let whole = first + PAYMENTS_PER_WRITE - first % PAYMENTS_PER_WRITE;
            let next_snapshot = first + PAYMENTS_PER_SNAPSHOT - (first - begin) % PAYMENTS_PER_SNAPSHOT;
            self.serial = end.min(whole).min(next_snapshot);
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
            if told.elapsed() > TELL {
                told = Instant::now();
                say(&self.progress(begin, end, begun.elapsed()));
            }
        }
        Ok(())
    }

    fn progress(&self, begin: u64, end: u64, elapsed: Duration) -> String {
        let rate = (self.serial - begin) as f64 / elapsed.as_secs_f64();
        let kept = self.appender.positions().durable() - self.retained_from;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let disk = kept + read(&self.counters.register_bytes) + 2 * read(&self.counters.snapshot_bytes);
        format!(
            "{:.1} of {:.1} million payments journaled, followed and filed, {:.2} million events/s, {:.1} GB on disk, {:.0} s to go",
            self.serial as f64 / 1e6,
            end as f64 / 1e6,
            2.0 * rate / 1e6,
            disk as f64 / 1e9,
            (end - self.serial) as f64 / rate,
        )
    }

    /// Ends without a word to the journal, as if the machine had stopped.
    pub(super) fn end(self) -> Result<Written, String> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let journal_bytes = self.appender.positions().durable();
        let written = Written {
            journal_bytes,
            journal_kept_bytes: journal_bytes - self.retained_from,
            snapshot_bytes: read(&self.counters.snapshot_bytes),
            snapshot_ms: read(&self.counters.snapshot_ms),
            snapshots: read(&self.counters.snapshots),
            register_bytes: read(&self.counters.register_bytes),
        };
        self.following.end()?;
        Ok(written)
    }
}
