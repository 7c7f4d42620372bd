//! The settler's claims, with a spool that the test writes and a ledger that the test moves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::spool_tests::{House, JOURNAL, Script};
use super::*;
use crate::agent::{Agent, IntakeGate, IntakeState, ManualTime, Ring, StopFlag, SwitchClock, Wakeup};
use crate::clearing::Engine;
use crate::domain::{Currency, SECOND, UtcNanos, WindowState};
use crate::register::{FileDoor, FileGate, FileStep};
use crate::wire::{Intake, RecordKind, WindowAction};

/// Refuses room under `settlement/W…` while it is set.
#[derive(Default)]
struct NoRoom(AtomicBool);

impl FileGate for NoRoom {
    fn before(&self, step: FileStep<'_>, path: &Path) -> std::io::Result<()> {
        let of_files = !path.to_string_lossy().contains("/spool");
        if of_files && step == FileStep::Make && self.0.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// A settler, the spool that it reads, and the journal that its events go to.
struct Office {
    place: tempfile::TempDir,
    script: Script,
    house: House,
    settler: Settler,
    events: Arc<Ring<Intake>>,
    gate: Arc<IntakeGate>,
    time: ManualTime,
    wish: Arc<AtomicBool>,
    no_room: Arc<NoRoom>,
    stop: StopFlag,
}

impl Office {
    /// One closed window in each currency, in the spool.
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut script = Script::new();
        for amount in 1..20 {
            script.pay(Currency::CNY, amount);
        }
        script.close();
        let mut house = House::open(place.path(), Engine::new(), FileDoor::OPEN);
        house.follow(&script, script.events.len());
        Self::around(place, script, house)
    }

    fn around(place: tempfile::TempDir, script: Script, house: House) -> Self {
        let no_room = Arc::new(NoRoom::default());
        let gate = Arc::new(IntakeGate::default());
        gate.open();
        let (wish, time) = (Arc::new(AtomicBool::new(false)), ManualTime::new(script.now));
        let (events, stop) = (Ring::new(8, Arc::new(Wakeup::new().unwrap())), StopFlag::default());
        let wished = Arc::clone(&wish);
        let door = FileDoor::with(Some(Arc::clone(&no_room) as Arc<dyn FileGate>));
        let settler = Settler::new(SettlerParts {
            directory: SettlementDirectory::new(place.path().to_owned(), door.clone()),
            spool: SpoolOptions::within(place.path(), JOURNAL, door),
            view: Arc::clone(&house.view),
            events: Arc::clone(&events),
            wished: Box::new(move || wished.swap(false, Ordering::AcqRel)),
            by_itself: false,
            spool_days: 7,
            settled: BTreeSet::new(),
            gate: Arc::clone(&gate),
            clock: SwitchClock::manual(time.clone()),
            progress: Arc::default(),
            stop: stop.clone(),
        });
        Self {
            place,
            script,
            house,
            settler,
            events,
            gate,
            time,
            wish,
            no_room,
            stop,
        }
    }

    /// The settler works until there is nothing to do; its events are journaled and followed. Gives what they were.
    fn work(&mut self) -> Vec<WindowAction> {
        let mut actions = Vec::new();
        loop {
            let work = self.settler.do_work().unwrap();
            let mut told = false;
            while let Some(Intake::Window(event)) = self.events.pop() {
                actions.push(WindowAction::from_u8(event.action).unwrap());
                self.script.add(RecordKind::Window, bytemuck::bytes_of(&event));
                told = true;
            }
            self.house.follow(&self.script, self.script.events.len());
            if work == 0 && !told {
                return actions;
            }
        }
    }

    fn states(&self) -> Vec<WindowState> {
        let windows = self.house.engine.window_standings();
        windows
            .map(|window| window.state)
            .filter(|state| *state != WindowState::Open)
            .collect()
    }
}

use WindowAction::{Aborted, BeginSettlement, Settled};

#[test]
fn nothing_is_settled_unasked_and_all_that_is_closed_when_asked() {
    let mut office = Office::new();
    assert_eq!(office.work(), []);
    office.wish.store(true, Ordering::Relaxed);
    assert_eq!(office.work(), [BeginSettlement, Settled, BeginSettlement, Settled]);
    assert_eq!(office.states(), [WindowState::Settled; 2]);
    // A window that closes long after the word is not meant by it.
    office.script.now = UtcNanos(office.script.now.0 + 10 * SECOND);
    office.script.close();
    let end = office.script.events.len();
    office.house.follow(&office.script, end);
    assert_eq!(office.work(), []);
}

#[test]
fn a_settlement_without_room_is_aborted_and_tried_again_with_growing_pauses_and_at_once_when_asked() {
    let mut office = Office::new();
    office.no_room.0.store(true, Ordering::Relaxed);
    office.wish.store(true, Ordering::Relaxed);
    assert_eq!(office.work(), [BeginSettlement, Aborted, BeginSettlement, Aborted]);
    assert_eq!(office.states(), [WindowState::Aborted; 2]);
    assert_eq!(office.work(), [], "not at once");
    for pause_s in [1, 2, 4] {
        office.time.advance(pause_s * SECOND - 1);
        assert_eq!(office.work(), [], "not before {pause_s} s");
        office.time.advance(1);
        assert_eq!(office.work(), [BeginSettlement, Aborted, BeginSettlement, Aborted]);
    }
    office.no_room.0.store(false, Ordering::Relaxed);
    office.wish.store(true, Ordering::Relaxed);
    assert_eq!(office.work(), [BeginSettlement, Settled, BeginSettlement, Settled]);
    assert!(office.gate.is_open(), "payments went on");
}

#[test]
fn a_settler_that_is_stopped_while_it_writes_leaves_nothing_and_the_next_takes_the_window_up_again() {
    let mut office = Office::new();
    office.stop.stop();
    office.wish.store(true, Ordering::Relaxed);
    let mut turns = 0;
    while office.states()[0] != WindowState::Settling || turns < 3 {
        office.settler.do_work().unwrap();
        while let Some(Intake::Window(event)) = office.events.pop() {
            office.script.add(RecordKind::Window, bytemuck::bytes_of(&event));
        }
        let end = office.script.events.len();
        office.house.follow(&office.script, end);
        turns += 1;
    }
    assert_eq!(office.states(), [WindowState::Settling, WindowState::Closed]);
    let Office {
        place, script, house, ..
    } = office;
    let names = std::fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["spool"]);
    let mut office = Office::around(place, script, house);
    assert_eq!(office.work(), [Settled], "without being asked");
}

#[test]
fn payments_that_do_not_come_to_the_engine_s_sums_stop_intake_and_wait_for_an_operator() {
    let mut script = Script::new();
    for amount in 1..20 {
        script.pay(Currency::CNY, amount);
    }
    let place = tempfile::tempdir().unwrap();
    let mut house = House::open(place.path(), Engine::new(), FileDoor::OPEN);
    house.follow(&script, script.events.len());
    // A payment that the spool was told and the engine knows nothing of.
    let mut entry = house.last.expect("payments were filed");
    entry.id.low += 1_000;
    house.writer.registered(&entry);
    script.close();
    house.follow(&script, script.events.len());
    let mut office = Office::around(place, script, house);
    office.wish.store(true, Ordering::Relaxed);
    assert_eq!(office.work(), [BeginSettlement, Aborted]);
    assert_eq!(office.gate.state(), IntakeState::Broken);
    office.time.advance(3_600 * SECOND);
    office.wish.store(true, Ordering::Relaxed);
    assert_eq!(
        office.work(),
        [],
        "nothing at all is settled while an invariant is broken"
    );
    // After a start, when somebody says so.
    let Office {
        place, script, house, ..
    } = office;
    let mut office = Office::around(place, script, house);
    assert_eq!(office.work(), [], "it is not tried again by itself");
    office.wish.store(true, Ordering::Relaxed);
    assert_eq!(office.work(), [BeginSettlement, Aborted]);
}

#[test]
fn what_the_ledger_had_settled_before_a_start_is_not_settled_again_though_the_view_begins_earlier() {
    let mut office = Office::new();
    let first = office.house.engine.window_standings().next().unwrap().id;
    office.settler.parts.settled.insert(first);
    office.wish.store(true, Ordering::Relaxed);
    assert_eq!(office.work(), [BeginSettlement, Settled], "the other one alone");
}
