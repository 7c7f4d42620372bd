//! Statements to be written: empty ones, small ones, and an evening of 539 participants.

use std::collections::BTreeMap;

use clearway::domain::{
    BusinessDate, Currency, MILLISECOND, ParticipantIndex, Position, Role, SECOND, SchemeCode, UtcNanos, WindowId,
};
use clearway::settlement::{CoverEntry, DayStatement, Flow, PartyDay, PartyStatement, Tallies, Tally, WindowStatement};
use clearway::wire::CoverReason;

pub(crate) const JPY: Currency = Currency(392);

/// 2026-11-23 19:00 in Shanghai.
const OPENED: u64 = 1_795_431_600 * SECOND;

pub(crate) fn code(text: &str) -> SchemeCode {
    SchemeCode::parse(text).expect("fourteen characters")
}

/// Draws numbers that are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A window in which nothing happened.
pub(crate) fn window(institutions: u16, banks: u16, currency: Currency) -> WindowStatement {
    let party = |index: u16| {
        let institution = index < institutions;
        PartyStatement {
            index: ParticipantIndex(index),
            code: if institution {
                code(&format!("Z{:06}000000{}", 210_003 + u32::from(index), index % 10))
            } else {
                code(&format!("C{:06}000000{}", 110_200 + u32::from(index), index % 10))
            },
            role: if institution { Role::Institution } else { Role::Bank },
            records: 0,
            debits: 0,
            credits: 0,
            debits_minor: 0,
            credits_minor: 0,
            detail_sha256: None,
        }
    };
    WindowStatement {
        window: WindowId::new(BusinessDate(20_261_123), 7),
        currency,
        scheme: code("CLEARWAY000001"),
        journal_id: [0xa5; 16],
        opened: UtcNanos(OPENED),
        closed: UtcNanos(OPENED + 7_260 * SECOND + 123_456_789),
        close_event: 12_345_678_901,
        committed: 0,
        gross_minor: 0,
        root: std::array::from_fn(|i| (i * 37 + 11) as u8),
        parties: (0..institutions + banks).map(party).collect(),
        tallies: Tallies::default(),
        flows: Vec::new(),
    }
}

/// Adds payments from one participant to another, as many, of the sum.
pub(crate) fn pay(statement: &mut WindowStatement, debtor: usize, creditor: usize, payments: u64, sum_minor: Position) {
    assert_ne!(debtor, creditor);
    let owes = &mut statement.parties[debtor];
    owes.records += payments;
    owes.debits += payments;
    owes.debits_minor += sum_minor;
    owes.detail_sha256 = Some([debtor as u8; 32]);
    let owed = &mut statement.parties[creditor];
    owed.records += payments;
    owed.credits += payments;
    owed.credits_minor += sum_minor;
    owed.detail_sha256 = Some([creditor as u8; 32]);
    statement.committed += payments;
    statement.gross_minor += sum_minor;
    let flow = Flow {
        debtor: ParticipantIndex(debtor as u16),
        creditor: ParticipantIndex(creditor as u16),
        payments,
        amount_minor: sum_minor,
    };
    let place = statement.flows.partition_point(|other| other.amount_minor >= sum_minor);
    if place < WindowStatement::FLOWS_MAX {
        statement.flows.insert(place, flow);
        statement.flows.truncate(WindowStatement::FLOWS_MAX);
    }
    statement.tallies.all.committed += payments;
    statement.tallies.all.committed_minor += sum_minor;
}

/// An evening: a few participants have most of the payments, many have few, some none.
pub(crate) fn evening(currency: Currency) -> WindowStatement {
    const INSTITUTIONS: u16 = 115;
    const BANKS: u16 = 424;
    let mut statement = window(INSTITUTIONS, BANKS, currency);
    let mut draw = Draw(7);
    for institution in 0..u64::from(INSTITUTIONS) {
        for bank in 0..u64::from(BANKS) - 4 {
            let payments = 9_000_000 / ((institution + 1) * (bank + 1) * 4);
            let bank_place = (u64::from(INSTITUTIONS) + bank) as usize;
            for (debtor, creditor, share) in [
                (bank_place, institution as usize, 55 + draw.below(40)),
                (institution as usize, bank_place, 20 + draw.below(30)),
            ] {
                let payments = payments * share / 100;
                if payments > 0 {
                    let average = 3_000 + draw.below(30_000);
                    pay(
                        &mut statement,
                        debtor,
                        creditor,
                        payments,
                        Position::from(payments * average + draw.below(100)),
                    );
                }
            }
        }
    }
    tallies(&mut statement, &mut draw);
    statement
}

fn tallies(statement: &mut WindowStatement, draw: &mut Draw) {
    let all = statement.tallies.all;
    let part = |permille: u64, failing: u64| Tally {
        committed: all.committed * permille / 1_000,
        declined: all.committed * permille / 1_000 / failing,
        expired: all.committed * permille / 1_000 / failing / 12,
        rejected: all.committed * permille / 1_000 / failing / 5,
        committed_minor: all.committed_minor * Position::from(permille) / 1_000,
    };
    statement.tallies.by_kind = BTreeMap::from([
        (1, part(620, 90)),
        (2, part(310, 400)),
        (3, part(45, 60)),
        (4, part(20, 9)),
        (5, part(5, 30)),
    ]);
    statement.tallies.by_scene = BTreeMap::from([
        (1, part(480, 110)),
        (2, part(180, 90)),
        (3, part(120, 300)),
        (4, part(160, 250)),
        (5, part(40, 40)),
        (6, part(20, 60)),
    ]);
    for kind in [4, 5] {
        // Mandates move nothing.
        statement
            .tallies
            .by_kind
            .get_mut(&kind)
            .expect("its tally")
            .committed_minor = 0;
    }
    for tally in statement.tallies.by_kind.values() {
        statement.tallies.all.declined += tally.declined;
        statement.tallies.all.expired += tally.expired;
        statement.tallies.all.rejected += tally.rejected;
    }
    let all = statement.tallies.all;
    statement.tallies.by_code = BTreeMap::from([
        (0, all.committed),
        (23, all.declined * 6 / 10),
        (20, all.declined * 2 / 10),
        (28, all.declined / 50),
        (27, all.declined / 6),
        (30, all.expired * 2 / 3),
        (31, all.expired / 4),
        (32, all.expired / 12),
        (13, all.rejected / 3),
        (12, all.rejected / 2),
        (16, 3),
    ]);
    let minutes = 121;
    statement.tallies.by_minute = (0..minutes)
        .map(|minute| {
            let hill = 400 + 600_u64.saturating_sub((minute as i64 - 70).unsigned_abs() * 11);
            let committed = all.committed / minutes * hill / 700 + draw.below(4_000);
            [
                committed,
                committed / 70 + draw.below(900) + if (30..34).contains(&minute) { committed / 6 } else { 0 },
            ]
        })
        .collect();
}

/// A participant's day with movements of every kind.
pub(crate) fn day(complete: bool, currency: Currency) -> DayStatement {
    let at = |hour: u64, minute: u64| {
        UtcNanos(OPENED - 19 * 3_600 * SECOND + (hour * 60 + minute) * 60 * SECOND + 7 * MILLISECOND)
    };
    let party = |index: u16, code_text: &str, sequence: u64, opening: Position, entries: Vec<CoverEntry>| PartyDay {
        index: ParticipantIndex(index),
        code: code(code_text),
        role: if index == 0 { Role::Institution } else { Role::Bank },
        sequence,
        opening_minor: opening,
        closing_minor: opening + entries.iter().map(|e| e.change_minor).sum::<Position>(),
        entries,
    };
    let entry = |event, time, reason, window, change_minor| CoverEntry {
        event,
        time,
        reason,
        window,
        change_minor,
    };
    let window = |number| WindowId::new(BusinessDate(20_261_123), number);
    let none = WindowId::NONE;
    let mut parties = vec![
        party(
            0,
            "Z2100033000005",
            412,
            5_000_000_000,
            vec![
                entry(17, at(3, 1), CoverReason::CoverIn, none, 1_000_000_000),
                entry(9_000_000_001, at(8, 0), CoverReason::Settled, window(1), -1_234_567_891),
                entry(9_000_000_002, at(8, 0), CoverReason::Settled, window(2), 98_765_432),
                entry(u64::MAX, at(12, 59), CoverReason::CoverOut, none, -1),
            ],
        ),
        party(
            1,
            "C1100033000013",
            1,
            0,
            vec![entry(3, at(0, 1), CoverReason::Opening, none, 7_700)],
        ),
        party(
            2,
            "C1100033000021",
            1,
            0,
            vec![entry(4, at(0, 1), CoverReason::Opening, none, 0)],
        ),
        party(3, "C1100033000039", 99, 5, Vec::new()),
    ];
    if !complete {
        parties.truncate(2);
    }
    DayStatement {
        date: BusinessDate(20_261_123),
        currency,
        scheme: code("CLEARWAY000001"),
        until: if complete {
            UtcNanos(OPENED + 5 * 3_600 * SECOND)
        } else {
            at(13, 0)
        },
        complete,
        parties,
    }
}
