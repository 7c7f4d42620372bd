//! What the clearing stage does when the ledger breaks one of its own invariants.

use bytemuck::{Zeroable, bytes_of};

use super::*;
use crate::clearing::{EngineFault, plant};
use crate::config::Directory;
use crate::domain::{Currency, Kind, PaymentId, SECOND, UtcNanos, WindowId};
use crate::journal::{Journal, JournalOptions, SyncMode};
use crate::wire::{
    InquiryAnswer, Regarding, ReplyBody, ReplyEvent, ReplyOutcome, RequestEvent, WindowAction, WindowEvent,
};

/// 2026-11-23 20:00 in Shanghai.
const EVENING: UtcNanos = UtcNanos(1_795_435_200 * SECOND);

fn wakeup() -> Arc<Wakeup> {
    Arc::new(Wakeup::new().expect("the host has eventfds"))
}

fn append(journal: &mut Journal, kind: RecordKind, payload: &[u8]) {
    while journal.preparer.prepare().expect("there is room") {}
    let write = |bytes: &mut [u8]| bytes.copy_from_slice(payload);
    let appended = journal.appender.append(kind, EVENING, payload.len(), write);
    appended.expect("there is room");
    journal.appender.publish();
    journal.syncer.sync().expect("the disk takes it");
}

/// A committed Debit.
fn pay(journal: &mut Journal) -> PaymentId {
    let id = PaymentId::new(EVENING.business_date(), ParticipantIndex(0), 0, 1);
    let mut request = RequestEvent::zeroed();
    (request.body.id, request.body.amount_minor) = (id, 100);
    (request.body.currency, request.body.kind) = (Currency::CNY.0, Kind::Debit as u8);
    (request.body.scene, request.body.responder) = (1, ParticipantIndex(1));
    append(journal, RecordKind::Request, bytes_of(&request));
    let mut body = ReplyBody::zeroed();
    (body.id, body.amount_minor, body.currency) = (id, 100, Currency::CNY.0);
    (body.regarding, body.outcome) = (Regarding::Request as u8, ReplyOutcome::Yes as u8);
    let mut reply = ReplyEvent::zeroed();
    (reply.sender, reply.body) = (1, body);
    append(journal, RecordKind::Reply, bytes_of(&reply));
    id
}

#[test]
fn a_breach_stops_intake_names_its_invariant_and_inquiries_are_answered_on() {
    let data = tempfile::tempdir().expect("there is room");
    let mut journal = Journal::create(JournalOptions {
        directory: data.path().join("journal"),
        segment_bytes: 64 << 10,
        ring_bytes: 1 << 20,
        sync: SyncMode::Fdatasync,
        lock_memory: false,
        prepared_segments: 2,
        link_agents: 0,
        start: None,
        gate: None,
    })
    .expect("a new journal");
    let directory = Directory::generate(1, 1);
    append(&mut journal, RecordKind::Genesis, bytes_of(&directory.scheme));
    for entry in &directory.participants {
        append(&mut journal, RecordKind::Participant, bytes_of(&entry.terms));
    }
    let open = WindowEvent::new(WindowAction::Open, Currency::CNY, WindowId::NONE);
    append(&mut journal, RecordKind::Window, bytes_of(&open));
    let paid = pay(&mut journal);

    plant(Some(EngineFault::PostOneSide));
    let engine = Engine::new();
    plant(None);
    let (effects, queries, gate) = (
        Ring::new(64, wakeup()),
        Ring::new(8, wakeup()),
        Arc::new(IntakeGate::default()),
    );
    gate.open();
    let mut clearing = ClearingAgent::new(ClearingParts {
        engine,
        register: None,
        reader: journal.reader,
        effects: Arc::clone(&effects),
        queries: Arc::clone(&queries),
        desk: SnapshotDesk::new(wakeup()),
        positions: Arc::clone(&journal.positions),
        pulse: Arc::default(),
        sequencer: wakeup(),
        next_words: (0..2).map(|_| AtomicU64::new(1)).collect(),
        tidings: Ring::new(8, wakeup()),
        steward: Arc::default(),
        gate: Arc::clone(&gate),
        last: Arc::default(),
    });
    while clearing.do_work().expect("it goes on") > 0 {}
    assert!(gate.is_open(), "nobody has looked yet: nets are summed at a close");
    // The reader is clearing's now: the rest of the journal still takes events.
    let close = WindowEvent::new(WindowAction::Close, Currency::CNY, WindowId::NONE);
    let write = |bytes: &mut [u8]| bytes.copy_from_slice(bytes_of(&close));
    let appended = journal
        .appender
        .append(RecordKind::Window, EVENING, size_of_val(&close), write);
    appended.expect("there is room");
    journal.appender.publish();
    journal.syncer.sync().expect("the disk takes it");
    while clearing.do_work().expect("it goes on") > 0 {}
    assert_eq!(gate.state(), IntakeState::Broken);
    let breach = clearing.parts.engine.breach().expect("it broke").to_string();
    assert!(breach.starts_with("invariant 1: "), "{breach}");

    while effects.pop().is_some() {}
    let inquiry = Query::Inquiry {
        link: LinkId(7),
        participant: ParticipantIndex(0),
        id: paid,
        reference: 5,
    };
    queries.push(inquiry).expect("there is room");
    while clearing.do_work().expect("it goes on") > 0 {}
    let answer = effects.pop();
    let Some(Effect::Frame(frame)) = answer else {
        panic!("no answer: {answer:?}")
    };
    let answer = InquiryAnswer::read(&frame.bytes);
    assert_eq!((answer.id, answer.reference, answer.amount_minor), (paid, 5, 100));
}
