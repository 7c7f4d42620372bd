//! The spool's claims, on events that the test writes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::{Zeroable, bytes_of};

use super::day::day_statements;
use super::*;
use crate::clearing::{Engine, Event, Outlet};
use crate::config::Directory;
use crate::domain::{
    BusinessDate, Currency, Kind, ParticipantIndex, PaymentId, PaymentState, SECOND, UtcNanos, WindowId, WindowState,
};
use crate::register::{FileDoor, FileGate, FileStep};
use crate::wire::{
    ClosedWindow, CoverMovement, CoverReason, Effect, RecordKind, RegisterEntry, ReplyBody, ReplyEvent, ReplyOutcome,
    RequestEvent, WindowAction, WindowEvent,
};

/// 2026-11-23 20:00 in Shanghai.
const EVENING: UtcNanos = UtcNanos(1_795_435_200 * SECOND);
const DAY: u64 = 86_400 * SECOND;
const YEN: Currency = Currency(392);
pub(super) const JOURNAL: [u8; 16] = [7; 16];

/// Events as a journal holds them.
pub(super) struct Script {
    pub(super) events: Vec<(RecordKind, UtcNanos, Vec<u64>)>,
    pub(super) now: UtcNanos,
    serial: u64,
}

/// The engine's outlet as the follower has it, without a register.
struct Filing<'a>(&'a mut SpoolWriter, &'a mut Option<RegisterEntry>);

impl Outlet for Filing<'_> {
    fn emit(&mut self, _: Effect) {}
    fn listens(&self) -> bool {
        false
    }
    fn keeps_register(&self) -> bool {
        true
    }
    fn registered(&mut self, entry: &RegisterEntry) {
        self.0.registered(entry);
        *self.1 = Some(*entry);
    }
    fn closed(&mut self, window: &ClosedWindow<'_>) {
        self.0.closed(window);
    }
    fn cover_moved(&mut self, movement: &CoverMovement) {
        self.0.cover_moved(movement);
    }
}

impl Script {
    /// Two institutions, two banks, two currencies with an open window each.
    pub(super) fn new() -> Self {
        let mut script = Self {
            events: Vec::new(),
            now: EVENING,
            serial: 0,
        };
        let mut directory = Directory::generate(2, 2);
        directory.scheme.currencies = [156, YEN.0, 0, 0];
        script.add(RecordKind::Genesis, bytes_of(&directory.scheme));
        for entry in &mut directory.participants {
            entry.terms.accounts[1] = entry.terms.accounts[0];
            entry.terms.accounts[1].currency = YEN.0;
            script.add(RecordKind::Participant, bytes_of(&entry.terms));
        }
        for currency in [Currency::CNY, YEN] {
            script.window(WindowAction::Open, currency, WindowId::NONE);
        }
        script
    }

    pub(super) fn add(&mut self, kind: RecordKind, payload: &[u8]) {
        let words = payload.chunks_exact(8).map(bytemuck::pod_read_unaligned);
        self.events.push((kind, self.now, words.collect()));
        self.now = self.now.plus(1_000);
    }

    fn window(&mut self, action: WindowAction, currency: Currency, window: WindowId) {
        self.add(
            RecordKind::Window,
            bytes_of(&WindowEvent::new(action, currency, window)),
        );
    }

    /// A Debit that its bank takes.
    pub(super) fn pay(&mut self, currency: Currency, amount_minor: u64) {
        self.serial += 1;
        let mut request = RequestEvent::zeroed();
        let body = &mut request.body;
        body.id = PaymentId::new(
            self.now.business_date(),
            ParticipantIndex((self.serial % 2) as u16),
            0,
            self.serial,
        );
        (body.amount_minor, body.currency, body.kind, body.scene) = (amount_minor, currency.0, Kind::Debit as u8, 1);
        body.responder = ParticipantIndex(2 + (self.serial / 2 % 2) as u16);
        let body = request.body;
        self.add(RecordKind::Request, bytes_of(&request));
        let mut reply = ReplyEvent::zeroed();
        reply.sender = body.responder.0;
        reply.body = ReplyBody::zeroed();
        (reply.body.id, reply.body.amount_minor, reply.body.currency) = (body.id, amount_minor, currency.0);
        reply.body.regarding = crate::wire::Regarding::Request as u8;
        reply.body.outcome = ReplyOutcome::Yes as u8;
        self.add(RecordKind::Reply, bytes_of(&reply));
    }

    pub(super) fn close(&mut self) {
        for currency in [Currency::CNY, YEN] {
            self.window(WindowAction::Close, currency, WindowId::NONE);
        }
    }

    fn settle(&mut self, number: u32) {
        let window = WindowId::new(BusinessDate(20_261_123), number);
        self.window(WindowAction::BeginSettlement, Currency::CNY, window);
        self.window(WindowAction::Settled, Currency::CNY, window);
    }

    /// An engine that has applied the first `count` events.
    fn engine(&self, count: usize) -> Engine {
        let mut engine = Engine::new();
        for number in 0..count {
            engine.apply(&self.event(number), &mut ());
        }
        engine
    }

    fn event(&self, at: usize) -> Event<'_> {
        let (kind, time, payload) = &self.events[at];
        Event {
            kind: *kind,
            number: at as u64 + 1,
            time: *time,
            position: 0,
            payload: bytemuck::cast_slice(payload),
        }
    }
}

/// A spool that is being written, and the engine behind it.
pub(super) struct House {
    pub(super) writer: SpoolWriter,
    pub(super) engine: Engine,
    pub(super) view: Arc<SpoolView>,
    /// The payment that was filed last.
    pub(super) last: Option<RegisterEntry>,
}

impl House {
    pub(super) fn open(directory: &Path, engine: Engine, door: FileDoor) -> Self {
        let view = Arc::new(SpoolView::default());
        let options = SpoolOptions::within(directory, JOURNAL, door);
        let writer = SpoolWriter::open(options, Arc::clone(&view), &engine).unwrap();
        Self {
            writer,
            engine,
            view,
            last: None,
        }
    }

    /// Applies the events up to the `end`th; tries again what is refused.
    pub(super) fn follow(&mut self, script: &Script, end: usize) -> u64 {
        let mut refused = 0;
        for at in self.engine.event_number() as usize..end {
            while self.writer.is_pressing() && self.writer.flush().is_err() {
                refused += 1;
            }
            let event = script.event(at);
            self.writer.begin_event(event.number, event.time);
            self.engine.apply(&event, &mut Filing(&mut self.writer, &mut self.last));
            self.writer.after_event(event.kind, &self.engine);
        }
        while self.writer.is_pressing() && self.writer.flush().is_err() {
            refused += 1;
        }
        refused
    }
}

fn spool(directory: &Path) -> Spool {
    Spool::new(&directory.join("spool"), JOURNAL)
}

/// The names and bytes of all files.
fn bytes_in(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory.join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Two windows in each currency, the first of the first settled, and payments after them; 40 payments a window.
fn an_evening() -> Script {
    let mut script = Script::new();
    for number in [1, 3] {
        for at in 0..40 {
            script.pay(if at % 4 == 0 { YEN } else { Currency::CNY }, 100 + at);
        }
        // A currency that the scheme does not have: refused, and told with the first one's.
        script.pay(Currency(840), 5);
        script.close();
        script.settle(number);
    }
    for _ in 0..10 {
        script.pay(Currency::CNY, 1);
    }
    script
}

#[test]
fn a_window_s_spool_has_all_that_became_final_in_it_and_comes_to_the_engine_s_sums() {
    let place = tempfile::tempdir().unwrap();
    let script = an_evening();
    let mut house = House::open(place.path(), Engine::new(), FileDoor::OPEN);
    house.follow(&script, script.events.len());
    let spool = spool(place.path());
    let windows = spool.windows().unwrap();
    assert_eq!(windows.len(), 4);
    let mut finals = 0;
    for snapshot in house
        .engine
        .snapshot()
        .windows
        .iter()
        .filter(|w| w.state != WindowState::Open)
    {
        let facts = spool.facts(snapshot.id).unwrap();
        assert_eq!(
            (facts.committed, facts.gross_minor),
            (snapshot.committed, snapshot.gross)
        );
        assert_eq!((facts.opened, facts.closed), (snapshot.opened, snapshot.closed));
        let payments: Vec<FinalPayment> = spool.finals(&facts).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(payments.len() as u64, facts.finals);
        finals += facts.finals;
        let mut nets = vec![0; facts.parties.len()];
        let committed = payments
            .iter()
            .filter(|payment| payment.entry.state == PaymentState::Committed as u8);
        for FinalPayment { entry, .. } in committed.clone() {
            assert_eq!((entry.window, entry.currency), (facts.window, facts.currency.0));
            nets[entry.responder.index()] += i128::from(entry.amount_minor);
            nets[entry.initiator().index()] -= i128::from(entry.amount_minor);
        }
        assert_eq!(committed.count() as u64, facts.committed);
        assert!(facts.parties.iter().map(|party| party.net_minor).eq(nets));
        let refused = payments.len() as u64 - facts.committed;
        assert_eq!(
            refused,
            u64::from(facts.currency == Currency::CNY),
            "the one in no currency of the scheme"
        );
    }
    assert_eq!(finals + 10, house.engine.finals());
    assert!(house.view.windows().unwrap().iter().all(|window| {
        let whole = window.spool == WindowSpool::Whole;
        whole == (window.state != WindowState::Open)
    }));
}

#[test]
fn who_begins_again_at_any_event_that_was_made_durable_comes_to_the_same_bytes() {
    let script = an_evening();
    let whole = tempfile::tempdir().unwrap();
    let mut house = House::open(whole.path(), Engine::new(), FileDoor::OPEN);
    house.follow(&script, script.events.len());
    house.writer.sync().unwrap();
    let expected = bytes_in(whole.path());
    for until in (7..script.events.len()).step_by(13) {
        let place = tempfile::tempdir().unwrap();
        let mut house = House::open(place.path(), Engine::new(), FileDoor::OPEN);
        house.follow(&script, until);
        house.writer.sync().unwrap();
        // Goes on for a while, and what the machine then leaves has a torn end.
        house.follow(&script, (until + 60).min(script.events.len()));
        house.writer.sync().unwrap();
        drop(house);
        let torn = std::fs::read_dir(place.path().join("spool"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for path in torn.filter(|path| path.extension().is_none_or(|end| end == "finals")) {
            if path.with_extension("facts").exists() {
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.extend_from_slice(&[0; 300]);
            std::fs::write(&path, bytes).unwrap();
        }
        let mut house = House::open(place.path(), script.engine(until), FileDoor::OPEN);
        house.follow(&script, script.events.len());
        house.writer.sync().unwrap();
        assert!(bytes_in(place.path()) == expected, "begun again at event {until}");
    }
}

#[test]
fn what_is_lost_of_a_spool_is_named_and_the_next_window_is_whole_again() {
    let script = an_evening();
    // In the middle of the second windows.
    let until = script.events.len() - 60;
    let prepare = || {
        let place = tempfile::tempdir().unwrap();
        let mut house = House::open(place.path(), Engine::new(), FileDoor::OPEN);
        house.follow(&script, until);
        house.writer.sync().unwrap();
        place
    };
    let open = WindowId::new(BusinessDate(20_261_123), 3);
    let closed = WindowId::new(BusinessDate(20_261_123), 1);
    let lost = |house: &House, window| match house.view.window(window).unwrap().spool {
        WindowSpool::Lost(reason) => reason,
        other => panic!("{window} is {other:?}"),
    };

    let place = prepare();
    let path = place.path().join("spool").join(format!("{open}.finals"));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 112]).unwrap();
    let mut house = House::open(place.path(), script.engine(until), FileDoor::OPEN);
    assert!(lost(&house, open).contains("final payments"), "{}", lost(&house, open));
    house.follow(&script, script.events.len());
    assert!(
        lost(&house, open).contains("final payments"),
        "it stays lost when it has closed"
    );
    house.writer.sync().unwrap();
    let again = House::open(place.path(), script.engine(script.events.len()), FileDoor::OPEN);
    let newest = again
        .view
        .windows()
        .unwrap()
        .into_iter()
        .rfind(|window| window.currency == Currency::CNY);
    assert_eq!(
        newest.unwrap().spool,
        WindowSpool::Underway,
        "the window after it is not lost"
    );

    let place = prepare();
    std::fs::remove_file(place.path().join("spool").join(format!("{open}.finals"))).unwrap();
    let house = House::open(place.path(), script.engine(until), FileDoor::OPEN);
    assert!(lost(&house, open).contains("missing"));

    let place = prepare();
    let path = place.path().join("spool").join(format!("{closed}.finals"));
    let facts = spool(place.path()).facts(closed).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[128 + 112 * 5 + 24] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = spool(place.path())
        .finals(&facts)
        .unwrap()
        .find_map(Result::err)
        .unwrap();
    assert!(error.to_string().contains("record 5"), "{error}");
    bytes[128 + 112 * 5 + 24] ^= 1;
    std::fs::write(&path, &bytes[..bytes.len() - 112]).unwrap();
    let error = spool(place.path())
        .finals(&facts)
        .unwrap()
        .find_map(Result::err)
        .unwrap();
    assert!(error.to_string().contains("last 1 payments are missing"), "{error}");

    let place = prepare();
    let path = place.path().join("spool/movements");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 88]).unwrap();
    let house = House::open(place.path(), script.engine(until), FileDoor::OPEN);
    let reason = house.view.movements_lost().expect("it is noticed");
    assert!(reason.contains("the engine has"), "{reason}");
}

/// Refuses every third step that takes room.
#[derive(Default)]
struct FullDisk(AtomicU64);

impl FileGate for FullDisk {
    fn before(&self, step: FileStep<'_>, _: &Path) -> std::io::Result<()> {
        let takes_room = matches!(step, FileStep::Make | FileStep::Write);
        if takes_room && self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

#[test]
fn a_disk_without_room_for_a_while_loses_nothing() {
    let script = an_evening();
    let (expected, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (place, door) in [
        (&expected, FileDoor::OPEN),
        (&place, FileDoor::with(Some(Arc::new(FullDisk::default())))),
    ] {
        let mut house = House::open(place.path(), Engine::new(), door.clone());
        let mut refused = house.follow(&script, script.events.len());
        while house.writer.sync().is_err() {
            refused += 1;
        }
        assert_eq!(refused > 0, format!("{door:?}").contains("true"));
    }
    assert!(bytes_in(expected.path()) == bytes_in(place.path()));
}

#[test]
fn a_day_s_statement_opens_where_the_day_before_closed_and_every_day_has_one() {
    let place = tempfile::tempdir().unwrap();
    let mut script = Script::new();
    script.pay(Currency::CNY, 700);
    script.close();
    script.settle(1);
    script.now = script.now.plus(2 * DAY);
    script.add(RecordKind::Tick, &[]);
    let mut house = House::open(place.path(), Engine::new(), FileDoor::OPEN);
    house.follow(&script, script.events.len());
    assert_eq!(house.view.day(), BusinessDate(20_261_125));
    house.writer.sync().unwrap();
    let statements = |last| {
        let mut taken = Vec::new();
        let take = |day| {
            taken.push(day);
            Ok(())
        };
        day_statements(spool(place.path()).movements().unwrap(), last, take).unwrap();
        taken
    };
    let days = statements(day::end_of(BusinessDate(20_261_124)));
    let cny: Vec<&DayStatement> = days.iter().filter(|day| day.currency == Currency::CNY).collect();
    let dates: Vec<(u32, bool)> = cny.iter().map(|day| (day.date.0, day.complete)).collect();
    assert_eq!(dates, [(20_261_123, true), (20_261_124, true)]);
    assert_eq!(days.len(), 4, "the other currency's, too");
    for party in &cny[0].parties {
        let moved: i128 = party.entries.iter().map(|entry| entry.change_minor).sum();
        assert_eq!(party.opening_minor + moved, party.closing_minor);
        assert_eq!((party.entries[0].reason, party.sequence), (CoverReason::Opening, 1));
        let engine = house.engine.covers(Currency::CNY).nth(party.index.index());
        assert_eq!(Some(party.closing_minor), engine);
    }
    let settled = cny[0].parties.iter().flat_map(|party| &party.entries);
    let settled: Vec<i128> = settled
        .filter(|entry| entry.reason == CoverReason::Settled)
        .map(|entry| entry.change_minor)
        .collect();
    assert_eq!(settled, [700, -700], "the bank pays what the institution gets");
    for (first, second) in cny[0].parties.iter().zip(&cny[1].parties) {
        assert_eq!(
            (second.opening_minor, second.closing_minor),
            (first.closing_minor, first.closing_minor)
        );
        assert_eq!((second.entries.len(), second.sequence), (0, 2));
    }
    let so_far = statements(script.now);
    let last = so_far.last().unwrap();
    assert_eq!(
        (last.date, last.complete, last.until),
        (BusinessDate(20_261_125), false, script.now)
    );
}
