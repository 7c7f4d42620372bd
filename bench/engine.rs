//! What the ledger costs: a Debit's two events, request and bank's yes, through the clearing engine.
//!
//! The engine has 200,000 payments behind it and as many in flight as 115 institutions with 64 each, so that records,
//! index and accounts are found in memory as they are on a busy evening, not in the nearest cache. Effects are built
//! and thrown away; the journal and the rings have benches of their own. Beside it what a snapshot costs the live engine:
//! the mark of its state, taken every million events.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of};
use clearway::clearing::{Engine, Event, Outlet};
use clearway::domain::{
    BusinessDate, Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, PaymentId, Role, SECOND,
    SchemeTerms, UtcNanos, WindowId,
};
use clearway::wire::{
    Effect, PaymentBody, RecordKind, Regarding, ReplyEvent, ReplyOutcome, RequestEvent, WindowAction, WindowEvent,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const INSTITUTIONS: u64 = 115;
const BANKS: u64 = 424;
/// Payments that are final or in flight before the first one is measured.
const PAYMENTS_BEHIND: u64 = 200_000;
/// The engine is built anew after so many more, so that a long measurement meets the same ledger as a short one.
const PAYMENTS_MEASURED_MAX: u64 = 200_000;
/// Steps of two events that memory is asked ahead.
const STEPS_AHEAD: u64 = 4;
/// A bank's yes comes this many requests later.
const IN_FLIGHT: u64 = 64 * INSTITUTIONS;
/// 2026-11-23 20:00 in Shanghai.
const START: UtcNanos = UtcNanos(1_795_435_200 * SECOND);
const TODAY: BusinessDate = BusinessDate(20_261_123);
/// Between two events, at 44,000 payments a second.
const EVENT_NS: u64 = SECOND / 88_000;

/// Takes every effect, as dispatch's ring does, and keeps none.
struct Taken;

impl Outlet for Taken {
    fn emit(&mut self, effect: Effect) {
        black_box(&effect);
    }
}

/// An engine, and how far its evening has come.
struct Evening {
    engine: Engine,
    payments: u64,
}

impl Evening {
    fn new() -> Self {
        let mut evening = Self {
            engine: Engine::new(),
            payments: 0,
        };
        let mut scheme = SchemeTerms::zeroed();
        (scheme.resident_payments, scheme.parked_max) = (1 << 20, 64);
        scheme.participant_count = (INSTITUTIONS + BANKS) as u32;
        scheme.maximum_minor = 1_000_000;
        scheme.currencies = [Currency::CNY.0, 0, 0, 0];
        evening.event(RecordKind::Genesis, bytes_of(&scheme));
        for index in 0..INSTITUTIONS + BANKS {
            let mut terms = ParticipantTerms::zeroed();
            terms.index = ParticipantIndex(index as u16);
            terms.role = if index < INSTITUTIONS {
                Role::Institution
            } else {
                Role::Bank
            } as u8;
            terms.permitted_kinds = Kind::Debit.bit();
            terms.wait_ns = SECOND;
            terms.doubt_ns = 5 * SECOND;
            terms.expiry_pull_ns = 60 * SECOND;
            terms.expiry_push_ns = 20 * SECOND;
            terms.accounts[0] = CurrencyTerms {
                currency: Currency::CNY.0,
                reserved: [0; 14],
                cover_minor: 1 << 60,
                cap_minor: 1 << 60,
            };
            evening.event(RecordKind::Participant, bytes_of(&terms));
        }
        let open = WindowEvent::new(WindowAction::Open, Currency::CNY, WindowId::NONE);
        evening.event(RecordKind::Window, bytes_of(&open));
        for _ in 0..IN_FLIGHT {
            evening.request();
        }
        while evening.payments < PAYMENTS_BEHIND {
            evening.step();
        }
        evening
    }

    fn event(&mut self, kind: RecordKind, payload: &[u8]) {
        let number = self.engine.event_number() + 1;
        let event = Event {
            kind,
            number,
            time: START.plus(number * EVENT_NS),
            position: number * 160,
            payload,
        };
        self.engine.apply(&event, &mut Taken);
    }

    fn body(nth: u64) -> PaymentBody {
        let mut body = PaymentBody::zeroed();
        body.id = PaymentId::new(TODAY, ParticipantIndex((nth % INSTITUTIONS) as u16), 0, nth);
        body.amount_minor = 1 + nth % 9_973;
        body.currency = Currency::CNY.0;
        body.kind = Kind::Debit as u8;
        body.scene = 1;
        body.responder = ParticipantIndex((INSTITUTIONS + nth % BANKS) as u16);
        body
    }

    fn request(&mut self) {
        let mut request = RequestEvent::zeroed();
        request.body = Self::body(self.payments);
        self.payments += 1;
        self.event(RecordKind::Request, bytes_of(&request));
    }

    fn yes(nth: u64) -> ReplyEvent {
        let asked = Self::body(nth);
        let mut reply = ReplyEvent::zeroed();
        reply.sender = asked.responder.0;
        reply.body.id = asked.id;
        reply.body.amount_minor = asked.amount_minor;
        reply.body.currency = asked.currency;
        reply.body.regarding = Regarding::Request as u8;
        reply.body.outcome = ReplyOutcome::Yes as u8;
        reply
    }

    /// The next request, and the yes to the one that is due for it; memory is asked for what comes eight events later, as
    /// the clearing stage does.
    fn step(&mut self) {
        let nth = self.payments;
        let mut request = RequestEvent::zeroed();
        request.body = Self::body(nth + STEPS_AHEAD);
        self.look_ahead(RecordKind::Request, bytes_of(&request));
        self.look_ahead(RecordKind::Reply, bytes_of(&Self::yes(nth + STEPS_AHEAD - IN_FLIGHT)));
        self.request();
        self.event(RecordKind::Reply, bytes_of(&Self::yes(nth - IN_FLIGHT)));
    }

    fn look_ahead(&self, kind: RecordKind, payload: &[u8]) {
        self.engine.prefetch(&Event {
            kind,
            number: 0,
            time: START,
            position: 0,
            payload,
        });
    }

    /// Times `steps` steps.
    fn measure(&mut self, steps: u64) -> Duration {
        let begun = Instant::now();
        for _ in 0..steps {
            self.step();
        }
        begun.elapsed()
    }

    fn check(&self) {
        let figures = self.engine.figures();
        assert_eq!(
            (figures.committed, figures.reserved, self.engine.breach()),
            (self.payments - IN_FLIGHT, IN_FLIGHT, None),
            "a bench that measures anything but committed payments measures nothing"
        );
    }
}

fn debit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(2));
    group.sample_size(20);
    group.warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(2));
    let mut evening = Evening::new();
    group.bench_function("debit_request_and_yes", |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut left, mut spent) = (iterations, Duration::ZERO);
            while left > 0 {
                let room = PAYMENTS_BEHIND + PAYMENTS_MEASURED_MAX - evening.payments;
                if room == 0 {
                    evening = Evening::new();
                    continue;
                }
                let steps = left.min(room);
                spent += evening.measure(steps);
                left -= steps;
            }
            evening.check();
            spent
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("state_mark", |bencher| {
        bencher.iter(|| black_box(evening.engine.state_mark()))
    });
    group.finish();
}

criterion_group!(ledger, debit);
criterion_main!(ledger);
