//! The participants against a switch in memory that errs on purpose.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::load::Load;
use super::memory_switch::{Fault, MemorySwitch, Peer, WINDOW};
use super::*;
use crate::domain::{Code, Currency, Direction, Kind, ParticipantIndex, Role, SchemeCode, UtcNanos};
use crate::io::{Connection, StreamEvents};
use crate::wire::decode;

/// A step of simulated time.
const STEP_NS: u64 = 1_000_000;

/// Runs participants and switch in steps of simulated time until all is quiet.
struct World {
    load: Load,
    switch: MemorySwitch,
    tails: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl World {
    fn new(fault: Fault) -> Self {
        let plans: Vec<ParticipantPlan> = (0..5u16)
            .map(|index| ParticipantPlan {
                index: ParticipantIndex(index),
                code: SchemeCode::parse(&format!("Z{index:013}")).unwrap(),
                role: if index < 2 { Role::Institution } else { Role::Bank },
                credential: [index as u8; 32],
                links: 1,
            })
            .collect();
        let options = LoadOptions {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            run: 9,
            currency: Currency::CNY,
            keepalive_ms: 60_000,
            retry_after: Duration::from_secs(3),
            grace: Duration::from_secs(60),
            idle: Idle::Spin,
        };
        let habits = BankHabits::as_in_life(plans.len(), 5);
        let mut world = Self {
            load: Load::new(&plans, habits, &options, UtcNanos(1_790_000_000_000_000_000).0),
            switch: MemorySwitch::new(fault, plans.len()),
            tails: vec![Vec::new(); 16],
            free: (0..16).rev().collect(),
        };
        for _ in 0..10 {
            world.step();
        }
        assert_eq!(world.load.established(), world.load.links(), "{}", world.load.trouble());
        world
    }

    fn step(&mut self) {
        self.load.now_ns += STEP_NS;
        self.switch.on_step();
        self.load.fire();
        self.load.maintain();
        while let Some(link) = self.load.link_to_connect() {
            let connection = Connection(self.free.pop().unwrap());
            self.load.connecting_on(link, connection);
            self.load.connected(connection, Ok(()));
        }
        self.exchange();
    }

    fn exchange(&mut self) {
        self.load.note_handed(self.load.now_ns);
        while let Some((connection, mut bytes)) = self.load.next_send(self.load.now_ns) {
            let mut rest = &bytes[..];
            while let Some((template, length)) = decode(rest).unwrap() {
                self.switch.on_frame(connection.0 as usize, template, &rest[..length]);
                rest = &rest[length..];
            }
            assert!(rest.is_empty(), "half a frame was sent");
            bytes.clear();
            self.load.sent(connection, bytes);
        }
        if let Some(participant) = self.switch.drop_now.take() {
            self.drop_link(participant);
        }
        for slot in 0..self.switch.peers.len() {
            let outbound = std::mem::take(&mut self.switch.peers[slot].outbound);
            // In odd pieces, so that frames straddle them.
            for piece in outbound.chunks(147) {
                let mut bytes = std::mem::take(&mut self.tails[slot]);
                bytes.extend_from_slice(piece);
                let read = self.load.received(Connection(slot as u32), &bytes);
                self.tails[slot] = bytes.split_off(read.expect("the link is kept"));
            }
        }
    }

    /// The link of a participant is lost with everything that was on its way.
    fn drop_link(&mut self, participant: usize) {
        let slot = self
            .switch
            .peers
            .iter()
            .position(|peer| peer.participant == Some(participant))
            .unwrap();
        self.switch.peers[slot] = Peer::default();
        self.tails[slot].clear();
        self.load
            .closed(Connection(slot as u32), Some(io::ErrorKind::ConnectionReset.into()));
        self.free.push(slot as u32);
    }

    fn run(self, payments: u64) -> Ended {
        let ended = self.run_until_quiet(payments);
        assert!(
            ended.is_done,
            "payments are left without an answer, or pushes without a notice"
        );
        ended
    }

    /// Runs until all is quiet, or for 20 seconds after the evening.
    fn run_until_quiet(mut self, payments: u64) -> Ended {
        let parties = Parties {
            institutions: vec![ParticipantIndex(0), ParticipantIndex(1)],
            banks: (2..5).map(ParticipantIndex).collect(),
        };
        let mut evening = Evening::new(parties, 1, Some(payments), 3);
        self.load.start_run(self.load.now_ns);
        let start_ns = self.load.now_ns;
        let live = Live::default();
        for _ in 0..20_000 {
            self.load.roll(&live);
            let at_ns = self.load.now_ns - start_ns;
            for answered in std::mem::take(&mut self.load.answered) {
                evening.answered(at_ns, &answered);
            }
            while let Some(intent) = evening.next(at_ns) {
                self.load.issue(&intent);
            }
            self.step();
            if evening.is_finished(0) && self.load.is_done() {
                break;
            }
        }
        let is_done = self.load.is_done();
        let (outcomes, books, breakdown) = self.load.into_results();
        let nets = (0u16..).zip(self.switch.nets).collect();
        Ended {
            windows: switch_windows(&outcomes, self.switch.gross_minor, nets),
            outcomes,
            books,
            breakdown,
            is_done,
        }
    }
}

/// What a run leaves, and what the switch has to say of it.
struct Ended {
    outcomes: Outcomes,
    books: Books,
    breakdown: Breakdown,
    windows: Vec<WindowFigures>,
    is_done: bool,
}

impl Ended {
    fn differences(&self) -> Vec<String> {
        self.books.compare(&[], &self.windows, &[])
    }
}

fn switch_windows(outcomes: &Outcomes, gross_minor: i128, nets: Vec<(u16, i128)>) -> Vec<WindowFigures> {
    vec![WindowFigures {
        id: WINDOW.to_string(),
        currency: 156,
        state: "closed".into(),
        opened_ns: 1,
        closed_ns: 2,
        committed: outcomes.committed,
        gross_minor,
        nets,
    }]
}

#[test]
fn a_run_against_a_faultless_switch_finds_nothing() {
    let ended = World::new(Fault::None).run(5_000);
    assert_eq!(ended.differences(), Vec::<String>::new());
    let Ended {
        outcomes, breakdown, ..
    } = ended;
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert!(outcomes.offered >= 5_000 && outcomes.in_flight() == 0);
    assert_eq!(outcomes.rejected_unexpected, 0);
    assert!(outcomes.rejected > 0 && outcomes.declined > 100 && outcomes.committed > 4_700);
    assert!(outcomes.in_progress > 0 && outcomes.stored > 0);
    assert_eq!(outcomes.in_progress + outcomes.stored, outcomes.repeats_sent);
    for kind in Kind::ALL {
        let tally = breakdown.kind(kind);
        assert!(
            tally.committed > 0 && tally.answered == tally.offered,
            "{kind:?}: {tally:?}"
        );
        assert_eq!(tally.success_rate(), Some(1.0), "{kind:?}: {tally:?}");
    }
    assert!(outcomes.by_code[Code::RefundExceedsOriginal as usize] > 0);
    assert!(outcomes.by_code[Code::OriginalNotFound as usize] > 0);
    let pushes = breakdown.kind(Kind::Payout).committed + breakdown.kind(Kind::Refund).committed;
    assert_eq!(outcomes.confirmed, pushes);
    assert_eq!(outcomes.notices, outcomes.pushes_seen);
    assert!(outcomes.notices > outcomes.confirmed, "no push was declined");
    assert_eq!(outcomes.inquiries_sent, 0);
    // What the bank held is milliseconds; what is left for this switch is a step or two.
    assert!(outcomes.latency.value_at_quantile(0.5) > 5 * STEP_NS);
    assert!(outcomes.switch_latency.value_at_quantile(0.99) < 4 * STEP_NS);
}

#[test]
fn books_of_a_whole_run_differ_by_each_planted_fault() {
    type Planted = fn(&mut Books);
    let faults: [(&str, Planted); 4] = [
        ("a bank that credits without a Confirm", |books| {
            books.of(ParticipantIndex(2)).confirm(WINDOW, 10);
        }),
        ("an institution that books a refused payout", |books| {
            books.of(ParticipantIndex(0)).commit(Direction::Push, WINDOW, 10);
        }),
        ("an institution that counts a Bind twice", |books| {
            books.of(ParticipantIndex(0)).commit(Direction::None, WINDOW, 0);
        }),
        ("a bank that books a pull twice", |books| {
            books.of(ParticipantIndex(2)).debit(10)
        }),
    ];
    let ended = World::new(Fault::None).run(500);
    for (name, plant) in faults {
        let mut books = ended.books.clone();
        plant(&mut books);
        assert!(!books.compare(&[], &ended.windows, &[]).is_empty(), "{name}");
    }
    // Books that hold something differ from a switch that holds nothing.
    let nothing = switch_windows(&ended.outcomes, 0, Vec::new());
    assert!(!ended.books.compare(&[], &nothing, &[]).is_empty());
}

#[test]
fn a_push_whose_end_its_bank_never_hears_is_found_though_the_bank_inquires() {
    let ended = World::new(Fault::LosesNotices).run_until_quiet(100);
    let outcomes = &ended.outcomes;
    assert!(!ended.is_done);
    assert!(outcomes.notices_missing > 0 && outcomes.notices == 0);
    assert_eq!(outcomes.findings.len(), 1);
    assert!(
        outcomes.findings[0].contains("no final notice"),
        "{:?}",
        outcomes.findings
    );
    // From what it was told, the bank has credited its customers all the same.
    assert!(outcomes.inquiries_sent >= outcomes.confirmed && outcomes.confirmed > 0);
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_bank_without_a_notice_inquires_acts_on_the_answer_and_credits_once() {
    let ended = World::new(Fault::NoticesLate).run(200);
    let outcomes = &ended.outcomes;
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert!(outcomes.inquiries_sent > 0);
    assert_eq!(outcomes.notices, outcomes.pushes_seen);
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_second_final_notice_is_found() {
    let ended = World::new(Fault::NoticesTwice).run(100);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("a second final notice"), "{findings:?}");
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_confirm_of_what_the_bank_refused_is_found_and_not_credited() {
    let ended = World::new(Fault::ConfirmsTheRefused).run(2_000);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("stands at No"), "{findings:?}");
    assert_eq!(ended.differences(), Vec::<String>::new());
}

#[test]
fn a_mandate_that_is_not_the_banks_is_found() {
    let ended = World::new(Fault::WrongMandate).run(1_000);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("mandate"), "{findings:?}");
}

#[test]
fn a_refund_that_had_to_be_refused_and_was_not_is_unexpected() {
    let ended = World::new(Fault::RefundsWithoutEnd).run(5_000);
    let outcomes = &ended.outcomes;
    assert!(outcomes.rejected_unexpected > 0);
    assert!(
        outcomes.findings[0].contains("made to be refused with RefundExceedsOriginal"),
        "{:?}",
        outcomes.findings
    );
}

#[test]
fn a_request_that_reaches_the_bank_changed_is_found() {
    let ended = World::new(Fault::SignsUnasked).run_until_quiet(100);
    let findings = &ended.outcomes.findings;
    assert!(findings[0].contains("not what was asked for"), "{findings:?}");
}

#[test]
fn a_second_final_answer_is_found() {
    let Ended { outcomes, .. } = World::new(Fault::AnswersTwice).run(100);
    assert!(
        outcomes.findings[0].contains("a second final answer"),
        "{:?}",
        outcomes.findings
    );
}

#[test]
fn a_request_forwarded_twice_is_found() {
    let Ended { outcomes, .. } = World::new(Fault::ForwardsTwice).run(100);
    assert!(outcomes.findings[0].contains("twice"), "{:?}", outcomes.findings);
}

#[test]
fn a_committed_amount_that_is_not_the_asked_one_is_found() {
    let Ended { outcomes, .. } = World::new(Fault::WrongAmount).run(100);
    assert!(outcomes.findings[0].contains("asked for"), "{:?}", outcomes.findings);
}

#[test]
fn words_lost_with_a_link_come_again_and_count_once() {
    let Ended { outcomes, .. } = World::new(Fault::DropsLink).run(2_000);
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert_eq!(outcomes.links_lost, 1);
    assert_eq!(outcomes.in_flight(), 0);
    assert_eq!(outcomes.rejected_unexpected, 0);
}

#[test]
fn what_is_not_taken_at_the_door_is_asked_for_again_with_the_same_id() {
    let Ended { outcomes, .. } = World::new(Fault::TakesNothingAtFirst).run(500);
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert_eq!(outcomes.not_taken, outcomes.offered);
    assert!(outcomes.retries_sent >= outcomes.not_taken);
    assert_eq!(outcomes.rejected_unexpected, 0);
}

#[test]
fn a_bank_asked_about_what_it_never_saw_says_so() {
    let Ended { outcomes, .. } = World::new(Fault::AsksStatusOnly).run(200);
    assert_eq!(outcomes.findings, Vec::<String>::new());
    assert_eq!(outcomes.committed, 0);
    assert!(outcomes.by_code[Code::LinkDown as usize] >= 199);
    assert_eq!(outcomes.rejected_unexpected, outcomes.by_code[Code::LinkDown as usize]);
}

#[test]
fn a_run_waits_for_the_reversals_of_what_expired_and_the_banks_books_agree() {
    let ended = World::new(Fault::Reverses).run(200);
    assert_eq!(ended.outcomes.findings, Vec::<String>::new());
    assert!(ended.outcomes.expired > 150);
    assert_eq!(ended.outcomes.confirmed, 0);
    assert_eq!(ended.differences(), Vec::<String>::new());
}
