//! Requests that lie unsent in a link that dies: another link takes them, once each, as long as Tq lasts.

mod support;

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::time::Duration;

use clearway::agent::wall_clock;
use clearway::config::{BackendChoice, Directory, Profile};
use clearway::domain::{Code, MILLISECOND, PaymentState, UtcNanos};
use clearway::switch::{RunningSwitch, StartOptions};
use clearway::wire::{Answer, Credit, PaymentRequest, Regarding, ReplyOutcome, StatusRequest, Template, Terminate};
use support::*;

const INSTITUTION: u16 = 0;
const BANK: u16 = 2;

/// More than the kernel holds of a narrow link that nobody reads.
const CLOGGING: u64 = 2_000;
/// Behind that, with the link agent.
const QUEUED: u64 = 500;
/// Requests sent before the link agents are waited for.
const STEP: u64 = 100;

/// Fills a narrow link of the bank until the switch's send is stuck, and then lets `QUEUED` requests more queue behind it.
/// Gives the link, and a time before those were taken in.
fn clog(
    switch: &RunningSwitch,
    link_agents: usize,
    directory: &Directory,
    institution: &mut Participant,
) -> (Participant, UtcNanos) {
    let link = Participant::open_narrow(switch.listen()).sign_on(directory, BANK, &taking(10_000));
    // Handed over by dispatch and taken by all link agents: what was not sent by then waits behind what was.
    let taken = |count: u64| {
        eventually("all are with the link agents", || {
            let (status, positions) = (switch.status(), switch.positions());
            let end = positions.appended();
            let copied = (0..link_agents).all(|agent| positions.copied_out(agent) == end);
            status["payments"]["accepted"] == count && positions.applied() == end && copied
        });
    };
    // In small steps, so that no single send takes all: the one that the kernel has no room for ends among the first.
    let mut before = wall_clock();
    for step in 1..=(CLOGGING + QUEUED) / STEP {
        if step * STEP == CLOGGING + STEP {
            before = wall_clock();
        }
        for serial in (step - 1) * STEP + 1..=step * STEP {
            institution.send(&debit(INSTITUTION, BANK, serial, serial));
        }
        taken(step * STEP);
    }
    (link, before)
}

/// What a link that has ended still brings: requests, and nothing that is no request but the last word.
fn rest_of(link: &mut Participant) -> Vec<PaymentRequest> {
    let mut requests = Vec::new();
    while let Some((template, frame)) = link.next(PATIENCE) {
        match template {
            Template::PaymentRequest => requests.push(bytemuck::pod_read_unaligned(&frame)),
            Template::Terminate => {}
            other => panic!("{other:?} came"),
        }
    }
    requests
}

#[test]
fn requests_queued_in_a_link_that_dies_go_once_each_by_another_and_none_is_answered_before_tq() {
    type Death = fn(&mut Participant);
    let deaths: [Death; 2] = [
        |link| link.stream.shutdown(Shutdown::Write).unwrap(),
        |link| {
            link.send(&Terminate {
                session_id: 77,
                ..bytemuck::Zeroable::zeroed()
            });
        },
    ];
    // Side by side: each waits for T1, which leaves the rest time enough before Tq.
    std::thread::scope(|scope| {
        for backend in BACKENDS {
            for (death, profile) in deaths.into_iter().zip([profile(), spread_profile()]) {
                scope.spawn(move || queued_in_a_link_that_dies(backend, profile, death));
            }
        }
    });
}

fn queued_in_a_link_that_dies(backend: BackendChoice, profile: Profile, death: fn(&mut Participant)) {
    let (data, directory) = (tempfile::tempdir().unwrap(), timed(6_000, 7_000, 30_000));
    // So few links that the ring by which requests come back is smaller than what comes back.
    let mut settings = settings(data.path(), backend);
    (settings.links.max, settings.links.half_open_max) = (16, 8);
    let link_agents = usize::from(profile.link_agents);
    let switch = start_with_settings(settings, &directory, profile, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
    let (mut clogged, _) = clog(&switch, link_agents, &directory, &mut institution);
    let mut other = Participant::connect_as(switch.listen(), &directory, BANK, &taking(1));
    death(&mut clogged);
    let first: PaymentRequest = other.expect();
    other.expect_silence(Duration::from_millis(50));
    institution.expect_silence(Duration::from_millis(50));
    other.send(&Credit {
        in_flight: 10_000,
        ..bytemuck::Zeroable::zeroed()
    });
    let mut by_other = vec![first];
    while by_other
        .last()
        .is_some_and(|last| last.body.id.serial() < CLOGGING + QUEUED)
    {
        by_other.push(other.expect());
    }
    assert_eq!(switch.status()["returned"], by_other.len());
    assert!(by_other.len() as u64 >= QUEUED, "{} were queued", by_other.len());
    assert!(
        by_other.is_sorted_by_key(|request| request.body.id.serial()),
        "in the order in which they were taken in"
    );
    let by_clogged = rest_of(&mut clogged);
    let serials: BTreeSet<u64> = by_other
        .iter()
        .chain(&by_clogged)
        .map(|request| request.body.id.serial())
        .collect();
    assert_eq!(serials.len(), by_other.len() + by_clogged.len(), "none came twice");
    assert!((CLOGGING + 1..=CLOGGING + QUEUED).all(|serial| serials.contains(&serial)));

    // What the kernel had and did not deliver was sent, for ever: the bank is asked, and never saw it.
    for request in by_other.iter().chain(&by_clogged) {
        other.send(&yes(request));
    }
    for _ in 0..serials.len() {
        let answer: Answer = institution.expect();
        assert_eq!(code(&answer), Code::Committed);
        assert!(serials.contains(&answer.id.serial()));
    }
    for _ in serials.len() as u64..CLOGGING + QUEUED {
        let asked: StatusRequest = other.expect();
        assert!(!serials.contains(&asked.id.serial()));
        let mut unseen = debit(INSTITUTION, BANK, asked.id.serial(), asked.amount_minor);
        unseen.body.id = asked.id;
        other.send(&regarding(
            reply(&unseen, ReplyOutcome::NeverSeen, 0),
            Regarding::Status,
        ));
        let answer: Answer = institution.expect();
        assert_eq!(answer.state, PaymentState::Declined as u8);
    }
    // No place on the other link is lost: it takes its whole contract again.
    other.send(&Credit {
        in_flight: 40,
        ..bytemuck::Zeroable::zeroed()
    });
    for serial in 5_001..=5_041 {
        institution.send(&debit(INSTITUTION, BANK, serial, 1));
    }
    let last: Vec<PaymentRequest> = (0..40).map(|_| other.expect()).collect();
    other.expect_silence(Duration::from_millis(50));
    other.send(&yes(&last[0]));
    let _: PaymentRequest = other.expect();
    switch.shutdown().unwrap();
}

#[test]
fn requests_queued_in_the_only_link_wait_for_another_until_tq_and_are_then_told_as_not_sent() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), timed(2_000, 4_000, 20_000));
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let (clogged, before) = clog(&switch, 1, &directory, &mut institution);
        drop(clogged);
        let mut told = 0;
        while told < QUEUED {
            let answer: Answer = institution.expect();
            assert_eq!(
                (code(&answer), answer.state),
                (Code::LinkDown, PaymentState::Expired as u8)
            );
            if answer.id.serial() > CLOGGING {
                let waited_ns = answer.final_ns.saturating_sub(before.0);
                assert!(waited_ns >= 2_000 * MILLISECOND, "Tq is 2 s: {waited_ns} ns");
                told += 1;
            }
        }
        switch.shutdown().unwrap();
    }
}
