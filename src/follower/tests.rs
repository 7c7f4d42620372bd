//! The follower's claims, with a journal that the test writes and a live engine that the test is.

use std::path::Path;
use std::sync::Arc;

use bytemuck::{Zeroable, bytes_of};

use super::*;
use crate::agent::{Agent, IntakeGate, IntakeState, ManualTime, Ring, SwitchClock, Wakeup};
use crate::clearing::{Engine, Event, StateMark};
use crate::config::{Directory, FollowerSettings};
use crate::domain::{BusinessDate, Currency, Kind, ParticipantIndex, PaymentId, SECOND, UtcNanos, WindowId};
use crate::journal::{Journal, JournalOptions, JournalReader, JournalStart, SyncMode};
use crate::register::{FileDoor, RegisterOptions};
use crate::settlement::SpoolOptions;
use crate::snapshot::SnapshotStore;
use crate::wire::{
    DaySealedEvent, Effect, FindingEvent, Frame, InquiryAnswer, Intake, LookUp, Query, RecordKind, ReplyBody,
    ReplyEvent, ReplyOutcome, RequestEvent, WindowAction, WindowEvent,
};

/// 2026-11-23 20:00 in Shanghai.
const EVENING: UtcNanos = UtcNanos(1_795_435_200 * SECOND);
const DAY: u64 = 86_400 * SECOND;

/// A switch of which only the journal, the live engine and the follower are there.
struct House {
    data: tempfile::TempDir,
    directory: Directory,
    journal: Journal,
    live: Engine,
    reader: JournalReader,
    time: ManualTime,
    now: UtcNanos,
    follower: Follower,
    counters: Arc<FollowerCounters>,
    look_ups: Arc<Ring<LookUp>>,
    queries: Arc<Ring<RegisterQuery>>,
    marks: Arc<Ring<StateMark>>,
    findings: Arc<Ring<FindingEvent>>,
    priority: Arc<Ring<Intake>>,
    effects: Arc<Ring<Effect>>,
    gate: Arc<IntakeGate>,
    serial: u64,
}

fn options(data: &Path, start: Option<JournalStart>) -> JournalOptions {
    JournalOptions {
        directory: data.join("journal"),
        segment_bytes: 64 << 10,
        ring_bytes: 1 << 20,
        sync: SyncMode::Fdatasync,
        lock_memory: false,
        prepared_segments: 2,
        link_agents: 0,
        start,
        gate: None,
    }
}

fn ring<T>(capacity: usize) -> Arc<Ring<T>> {
    Ring::new(capacity, Arc::new(Wakeup::new().unwrap()))
}

impl House {
    /// A new journal with its directory and an open window, followed to its end.
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut directory = Directory::generate(1, 1);
        directory.scheme.resident_payments = 8;
        let journal = Journal::create(options(data.path(), None)).unwrap();
        let mut house = Self::put_together(data, directory, journal, Engine::new(), None, EVENING, 0);
        house.append(RecordKind::Genesis, bytes_of(&house.directory.scheme.clone()));
        for entry in house.directory.participants.clone() {
            house.append(RecordKind::Participant, bytes_of(&entry.terms));
        }
        let open = WindowEvent::new(WindowAction::Open, Currency(156), WindowId::NONE);
        house.append(RecordKind::Window, bytes_of(&open));
        house.live_on();
        house
    }

    /// The same data after the machine stopped: the live engine from the newest snapshot, or from the beginning.
    fn again(self) -> Self {
        let Self {
            data,
            directory,
            now,
            serial,
            journal,
            ..
        } = self;
        let journal_id = journal.facts.journal_id;
        drop((journal, self.reader, self.follower));
        let store = SnapshotStore::new(data.path().join("snapshots"), journal_id);
        let begun = store
            .list()
            .unwrap()
            .into_iter()
            .next()
            .map(|file| store.load_engine(&file.path).unwrap());
        let (start, engine, path) = match begun {
            Some(loaded) => (Some(loaded.point.start), loaded.engine, Some(loaded.path)),
            None => (None, Engine::new(), None),
        };
        let journal = Journal::open(options(data.path(), start)).unwrap();
        let mut house = Self::put_together(data, directory, journal, engine, path, now, serial);
        house.live_on();
        house
    }

    fn put_together(
        data: tempfile::TempDir,
        directory: Directory,
        journal: Journal,
        live: Engine,
        began_with: Option<std::path::PathBuf>,
        now: UtcNanos,
        serial: u64,
    ) -> Self {
        let time = ManualTime::new(now);
        let counters = Arc::new(FollowerCounters::default());
        let gate = Arc::new(IntakeGate::default());
        gate.open();
        let (look_ups, queries, marks) = (ring(64), ring(64), ring(64));
        let (findings, priority, effects) = (ring(64), ring(64), ring(256));
        let journal_id = journal.facts.journal_id;
        let snapshots = SnapshotStore::new(data.path().join("snapshots"), journal_id);
        let start = began_with
            .as_ref()
            .map_or(JournalStart::BEGINNING, |path| snapshots.point(path).unwrap().start);
        let follower = Follower::new(FollowerParts {
            source: journal.source.clone(),
            positions: Arc::clone(&journal.positions),
            snapshots,
            began_with,
            unusable: Vec::new(),
            superblock: Arc::clone(&journal.superblock),
            register: RegisterOptions {
                directory: data.path().join("register"),
                journal_id,
                payments_in_memory: 16,
                door: FileDoor::OPEN,
            },
            spool: SpoolOptions::within(&data.path().join("settlement"), journal_id, FileDoor::OPEN),
            spool_view: Arc::default(),
            settings: FollowerSettings {
                snapshot_every_s: 600,
                ..FollowerSettings::default()
            },
            look_ups: Arc::clone(&look_ups),
            queries: Arc::clone(&queries),
            marks: Arc::clone(&marks),
            findings: Arc::clone(&findings),
            priority: Arc::clone(&priority),
            effects: Arc::clone(&effects),
            gate: Arc::clone(&gate),
            clock: SwitchClock::manual(time.clone()),
            counters: Arc::clone(&counters),
        });
        Self {
            reader: journal.source.reader(&start).unwrap(),
            data,
            directory,
            journal,
            live,
            time,
            now,
            follower,
            counters,
            look_ups,
            queries,
            marks,
            findings,
            priority,
            effects,
            gate,
            serial,
        }
    }

    fn append(&mut self, kind: RecordKind, payload: &[u8]) {
        let write = |bytes: &mut [u8]| bytes.copy_from_slice(payload);
        while self.journal.preparer.prepare().unwrap() {}
        self.journal
            .appender
            .append(kind, self.now, payload.len(), write)
            .unwrap();
        self.journal.appender.publish();
        self.journal.syncer.sync().unwrap();
    }

    /// The live engine applies what is durable, and the follower hears its marks.
    fn live_on(&mut self) {
        while let Some(record) = self.reader.next().unwrap() {
            let event = Event {
                kind: record.kind,
                number: record.number,
                time: record.time,
                position: record.position,
                payload: record.payload,
            };
            self.live.apply(&event, &mut ());
        }
        let _full = self.marks.push(self.live.state_mark());
        self.journal.positions.set_applied(self.reader.position());
    }

    /// A committed Debit of today; gives its id.
    fn pay(&mut self) -> PaymentId {
        self.serial += 1;
        let mut request = RequestEvent::zeroed();
        let id = PaymentId::new(self.now.business_date(), ParticipantIndex(0), 0, self.serial);
        request.body.id = id;
        request.body.amount_minor = self.serial;
        request.body.currency = 156;
        request.body.kind = Kind::Debit as u8;
        request.body.scene = 1;
        request.body.responder = ParticipantIndex(1);
        self.append(RecordKind::Request, bytes_of(&request));
        let mut body = ReplyBody::zeroed();
        (body.id, body.amount_minor, body.currency) = (id, self.serial, 156);
        (body.regarding, body.outcome) = (crate::wire::Regarding::Request as u8, ReplyOutcome::Yes as u8);
        let mut reply = ReplyEvent::zeroed();
        (reply.sender, reply.body) = (1, body);
        self.append(RecordKind::Reply, bytes_of(&reply));
        id
    }

    fn pay_some(&mut self, count: u64) -> Vec<PaymentId> {
        let paid = (0..count).map(|_| self.pay()).collect();
        self.live_on();
        paid
    }

    fn pass(&mut self, nanos: u64) {
        self.time.advance(nanos);
        self.now = self.now.plus(nanos);
    }

    /// The follower works until there is nothing to do.
    fn follow(&mut self) {
        while self.follower.do_work().unwrap() > 0 {}
    }

    fn trouble(&self) -> String {
        self.counters.trouble().unwrap_or_default()
    }

    fn snapshots(&self) -> usize {
        std::fs::read_dir(self.data.path().join("snapshots")).map_or(0, Iterator::count)
    }

    fn look_up(&mut self, event: u64, id: PaymentId) -> Option<FindingEvent> {
        self.look_ups.push(LookUp { event, id }).unwrap();
        self.follow();
        self.findings.pop()
    }
}

#[test]
fn a_look_up_is_answered_when_the_follower_has_passed_the_event_that_asks() {
    let mut house = House::new();
    let paid = house.pay_some(50);
    let last = house.live.event_number();
    let finding = house.look_up(last, paid[0]).expect("it is passed");
    let facts = finding.facts().expect("it is found");
    assert_eq!((facts.id, facts.amount_minor, finding.event), (paid[0], 1, last));
    // The live engine is ahead by an event that the follower may not have seen: nothing is said before it has.
    assert_eq!(house.look_up(last + 2, paid[3]), None);
    house.pay_some(1);
    house.follow();
    assert_eq!(house.findings.pop().expect("now it is").facts().unwrap().id, paid[3]);
    let nobody = PaymentId::new(BusinessDate(20_261_123), ParticipantIndex(0), 0, 999);
    assert_eq!(house.look_up(last, nobody).unwrap().facts(), None);
}

#[test]
fn an_old_inquiry_is_answered_from_the_register() {
    let mut house = House::new();
    let paid = house.pay_some(30);
    let query = Query::Inquiry {
        link: crate::domain::LinkId(3),
        participant: ParticipantIndex(1),
        id: paid[2],
        reference: 7,
    };
    house
        .queries
        .push(RegisterQuery {
            after: house.live.event_number(),
            query,
        })
        .unwrap();
    house.follow();
    let Some(Effect::Frame(frame)) = house.effects.pop() else {
        panic!("no answer")
    };
    let answer = InquiryAnswer::read(&frame.bytes);
    assert_eq!((answer.id, answer.reference, answer.amount_minor), (paid[2], 7, 3));
}

#[test]
fn what_cannot_be_read_holds_nobody_else_up_and_is_answered_when_it_can() {
    let mut house = House::new();
    let paid = house.pay_some(64);
    house.follow();
    let rename_all = |house: &House, from: &str, to: &str| {
        let mut renamed = 0;
        for day in std::fs::read_dir(house.data.path().join("register")).unwrap() {
            for file in std::fs::read_dir(day.unwrap().path()).unwrap() {
                let file = file.unwrap().path();
                if file.extension().is_some_and(|extension| extension == from) {
                    std::fs::rename(&file, file.with_extension(to)).unwrap();
                    renamed += 1;
                }
            }
        }
        assert!(renamed > 0, "no run is on disk yet");
    };
    rename_all(&house, "run", "away");
    assert_eq!(
        house.look_up(house.live.event_number(), paid[0]),
        None,
        "nothing is said of what can't be read"
    );
    assert!(house.trouble().contains(".run"), "{}", house.trouble());
    let query = Query::Inquiry {
        link: crate::domain::LinkId(3),
        participant: ParticipantIndex(0),
        id: paid[1],
        reference: 7,
    };
    house.queries.push(RegisterQuery { after: 1, query }).unwrap();
    house.follow();
    let Some(Effect::Frame(frame)) = house.effects.pop() else {
        panic!("no answer")
    };
    assert_eq!(
        InquiryAnswer::read(&frame.bytes).code,
        crate::domain::Code::NotTaken as u8
    );
    // Others are followed and answered meanwhile, however often it is tried again.
    let late = house.pay_some(8);
    for _ in 0..40 {
        house.pass(SECOND / 4);
        house.follow();
    }
    let followed = house.counters.event.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(followed, house.live.event_number());
    let last = house.look_up(followed, late[7]).expect("it is still in memory");
    assert_eq!(last.facts().unwrap().id, late[7]);
    rename_all(&house, "away", "run");
    house.pass(2 * SECOND);
    house.follow();
    let found = house.findings.pop().expect("now it can be read");
    assert_eq!(found.facts().unwrap().id, paid[0]);
    assert_eq!(house.trouble(), "");
}

#[test]
fn a_start_from_a_snapshot_leads_to_the_state_of_the_whole_journal_and_the_register_is_whole() {
    let mut house = House::new();
    let mut paid = house.pay_some(40);
    house.follow();
    assert_eq!(house.snapshots(), 0);
    house.pass(601 * SECOND);
    house.follow();
    assert_eq!(house.snapshots(), 1, "by time: {}", house.trouble());
    paid.extend(house.pay_some(40));
    house.follow();
    let (state, event) = (house.live.state_hash(), house.live.event_number());
    let mut house = house.again();
    assert_eq!((house.live.state_hash(), house.live.event_number()), (state, event));
    house.follow();
    assert_eq!(house.trouble(), "");
    for id in paid {
        assert_eq!(house.look_up(event, id).unwrap().facts().unwrap().id, id);
    }
    assert!(house.counters.marks_agreed.load(std::sync::atomic::Ordering::Relaxed) > 0);
    // And the state that a full replay gives is the same.
    let replayed = crate::switch::replay(&house.data.path().join("journal"), None, |_| {}).unwrap();
    assert_eq!(replayed.hash, state);
}

#[test]
fn a_mark_that_differs_stops_intake_and_says_between_which_events() {
    let mut house = House::new();
    house.pay_some(3);
    house.follow();
    let agreed = house.live.event_number();
    house.pay();
    house.pay();
    let mut wrong = StateMark {
        event: agreed + 4,
        ..house.live.state_mark()
    };
    wrong.digest ^= 1;
    house.marks.push(wrong).unwrap();
    house.live_on();
    house.follow();
    assert_eq!(house.gate.state(), IntakeState::Broken);
    let trouble = house.trouble();
    assert!(trouble.contains(&format!("after event {}", agreed + 4)), "{trouble}");
    assert!(trouble.contains(&format!("last after event {agreed}")), "{trouble}");
    assert_eq!(
        house.look_up(1, PaymentId::zeroed()),
        None,
        "nothing is answered any more"
    );
}

#[test]
fn a_day_is_sealed_when_it_is_over_and_its_register_is_one_file() {
    let mut house = House::new();
    let paid = house.pay_some(100);
    house.follow();
    let date = paid[0].date();
    house.pass(DAY);
    house.pay_some(1);
    house.follow();
    assert!(house.priority.pop().is_none(), "yesterday is open");
    house.pass(DAY);
    house.pay_some(1);
    house.follow();
    house.pass(2 * SECOND);
    house.follow();
    let Some(Intake::DaySealed(event)) = house.priority.pop() else {
        panic!("the day is over: {}", house.trouble())
    };
    assert_eq!(event.date, date);
    let runs = std::fs::read_dir(house.data.path().join(format!("register/{:08}", date.0))).unwrap();
    let payments = runs.filter(|run| {
        run.as_ref()
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with("payments")
    });
    assert_eq!(payments.count(), 1);
    house.append(RecordKind::DaySealed, bytes_of(&DaySealedEvent::new(date)));
    house.live_on();
    house.follow();
    assert_eq!(house.live.sealed(), date);
    assert_eq!(house.look_up(1, paid[7]).unwrap().facts().unwrap().id, paid[7]);
    house.pass(3 * SECOND);
    house.follow();
    assert!(house.priority.pop().is_none(), "it is said once");
}

#[test]
fn days_beyond_what_is_kept_are_removed_with_a_snapshot() {
    let mut house = House::new();
    let paid = house.pay_some(20);
    house.follow();
    house.pass(101 * DAY);
    house.pay_some(20);
    house.follow();
    let directory = |date: BusinessDate| house.data.path().join(format!("register/{:08}", date.0));
    assert!(!directory(paid[0].date()).exists());
    assert!(directory(house.now.business_date()).exists());
}

#[test]
fn what_the_disk_refuses_is_tried_again_and_nothing_is_lost() {
    let mut house = House::new();
    house.follow();
    // Where the register's day should be made stands a file.
    let day = house
        .data
        .path()
        .join(format!("register/{:08}", house.now.business_date().0));
    std::fs::create_dir_all(day.parent().unwrap()).unwrap();
    std::fs::write(&day, b"in the way").unwrap();
    let paid = house.pay_some(60);
    house.follow();
    assert!(house.trouble().contains("cannot"), "{}", house.trouble());
    assert!(house.gate.is_open(), "payments go on");
    std::fs::remove_file(&day).unwrap();
    house.pass(2 * SECOND);
    house.follow();
    assert_eq!(house.trouble(), "");
    let last = house.live.event_number();
    for id in paid {
        assert_eq!(house.look_up(last, id).unwrap().facts().unwrap().id, id);
    }
}

#[test]
fn retention_is_told_that_the_older_of_two_snapshots_is_needed() {
    let mut house = House::new();
    assert_eq!(house.journal.superblock.facts().snapshots, [None; 2]);
    let mut places = Vec::new();
    for _ in 0..3 {
        house.pay_some(5);
        house.pass(601 * SECOND);
        house.follow();
        places.push(house.reader.here());
    }
    let facts = house.journal.superblock.facts();
    assert_eq!(facts.snapshots, [Some(places[2]), Some(places[1])]);
    assert_eq!(house.snapshots(), 2);
    let needed = house.counters.needed_from.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(needed, places[1].position);
}
