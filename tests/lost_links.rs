//! Requests that lie unsent in a link that dies or does not take them: another link does, once each, as long as Tq lasts.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clearway::agent::wall_clock;
use clearway::config::{BackendChoice, Directory, LinkSettings, Profile, Settings};
use clearway::domain::{Code, MILLISECOND, PaymentState, UtcNanos};
use clearway::switch::{RunningSwitch, StartOptions};
use clearway::wire::{
    Answer, Credit, Frame, Inquiry, PaymentRequest, Regarding, ReplyOutcome, StatusRequest, Template, Terminate,
};
use support::*;

const INSTITUTION: u16 = 0;
const BANK: u16 = 2;

/// What the kernel may keep of a link's unsent bytes. Left to itself it takes a hundred kilobytes in one run and three
/// hundred in the next, as it tries now and then whether the peer reads again.
const SEND_BUFFER_KIB: u32 = 16;
/// More than the kernel then holds of a link that nobody reads, and one send beside: those stay.
const CLOGGING: u64 = 1_500;
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
    // In small steps, so that no single send takes all: the one that the kernel has no room for ends among the first.
    let mut before = wall_clock();
    for step in 1..=(CLOGGING + QUEUED) / STEP {
        if step * STEP == CLOGGING + STEP {
            before = wall_clock();
        }
        for serial in (step - 1) * STEP + 1..=step * STEP {
            institution.send(&debit(INSTITUTION, BANK, serial, serial));
        }
        taken(switch, link_agents, step * STEP);
    }
    (link, before)
}

/// Waits until so many payments are accepted, and all that follows from them is handed over by dispatch and taken by all
/// link agents: what was not sent by then waits behind what was.
fn taken(switch: &RunningSwitch, link_agents: usize, accepted: u64) {
    eventually("all are with the link agents", || {
        let (status, positions) = (switch.status(), switch.positions());
        let end = positions.appended();
        let copied = (0..link_agents).all(|agent| positions.copied_out(agent) == end);
        status["payments"]["accepted"] == accepted && positions.applied() == end && copied
    });
}

/// Settings with which the kernel holds little of a link and no link is cut because its peer does not read.
fn patient(settings: Settings) -> Settings {
    let links = LinkSettings {
        send_timeout_ms: 60_000,
        send_buffer_kib: Some(SEND_BUFFER_KIB),
        ..settings.links
    };
    Settings { links, ..settings }
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
    let (data, directory) = (tempfile::tempdir().unwrap(), timed(11_000, 12_000, 60_000));
    // So few links that the ring by which requests come back is smaller than what comes back.
    let mut settings = patient(settings(data.path(), backend));
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
        // The first one comes when T1 has passed.
        let (template, frame) = other.next(2 * PATIENCE).expect("the bank is asked");
        assert_eq!(template, Template::StatusRequest);
        let asked = StatusRequest::read(&frame);
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
        let settings = patient(settings(data.path(), backend));
        let switch = start_with_settings(settings, &directory, profile(), StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
        let (clogged, before) = clog(&switch, 1, &directory, &mut institution);
        drop(clogged);
        // How many the kernel had taken is its own affair: those are sent, for ever, and in doubt until T2.
        let mut told = 0;
        while let Some((template, frame)) = institution.next(Duration::from_millis(3_500)) {
            assert_eq!(template, Template::Answer);
            let answer = Answer::read(&frame);
            assert_eq!(
                (code(&answer), answer.state),
                (Code::LinkDown, PaymentState::Expired as u8)
            );
            if answer.id.serial() > CLOGGING {
                let waited_ns = answer.final_ns.saturating_sub(before.0);
                assert!(waited_ns >= 2_000 * MILLISECOND, "Tq is 2 s: {waited_ns} ns");
            }
            told += 1;
        }
        let status = switch.status();
        assert!(told > 0);
        assert_eq!(status["returned"], told, "all that came back is told, and nothing else");
        assert_eq!(status["payments"]["expired"], told);
        switch.shutdown().unwrap();
    }
}

/// Tq of the bank whose link clogs.
const WAIT_MS: u64 = 1_000;
/// A link of which nothing is taken so long is cut.
const SEND_TIMEOUT_MS: u64 = 9_000;

#[test]
fn a_link_that_stops_reading_keeps_no_request_past_tq_and_is_cut_while_another_goes_on() {
    std::thread::scope(|scope| {
        for (backend, profile) in BACKENDS.into_iter().zip([profile(), spread_profile()]) {
            scope.spawn(move || stops_reading_beside_another(backend, profile));
        }
    });
}

fn stops_reading_beside_another(backend: BackendChoice, profile: Profile) {
    let (data, directory) = (tempfile::tempdir().unwrap(), timed(WAIT_MS, 4_000, 60_000));
    let mut settings = settings(data.path(), backend);
    settings.links.send_timeout_ms = SEND_TIMEOUT_MS;
    settings.links.send_buffer_kib = Some(SEND_BUFFER_KIB);
    let link_agents = usize::from(profile.link_agents);
    let switch = start_with_settings(settings, &directory, profile, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
    let mut stuck = Participant::open_narrow(switch.listen()).sign_on(&directory, BANK, &taking(10_000));
    // So small a contract that most requests go to the link that does not read.
    let other = Participant::connect_as(switch.listen(), &directory, BANK, &taking(50));
    let (over, came) = (AtomicBool::new(false), AtomicU64::new(0));
    let (over, came) = (&over, &came);
    let mut answers = BTreeMap::new();
    let (by_other, accepted) = std::thread::scope(|scope| {
        let other = scope.spawn(move || answer_all(other, over, came));
        // Ended also when an assertion below does not hold.
        let end = EndOnDrop(over);
        let (mut last, mut accepted) = (0, BTreeMap::new());
        let pay = |institution: &mut Participant, last: &mut u64, accepted: &mut BTreeMap<u64, [UtcNanos; 2]>| {
            let before = wall_clock();
            for serial in *last + 1..=*last + STEP {
                institution.send(&debit(INSTITUTION, BANK, serial, serial));
            }
            taken(&switch, link_agents, *last + STEP);
            accepted.extend((*last + 1..=*last + STEP).map(|serial| (serial, [before, wall_clock()])));
            *last += STEP;
        };
        while last - came.load(Ordering::Relaxed) < CLOGGING + QUEUED {
            pay(&mut institution, &mut last, &mut accepted);
            take_answers(&mut institution, &mut answers, Duration::from_millis(1));
        }
        eventually("requests go back from the link that does not read", || {
            switch.status()["links_clogged"] == 1
        });
        // What comes now goes by the other link alone.
        let before = last;
        pay(&mut institution, &mut last, &mut accepted);
        pay(&mut institution, &mut last, &mut accepted);
        let is_answered =
            |answers: &BTreeMap<u64, Answer>| (before + 1..=last).all(|serial| answers.contains_key(&serial));
        while !is_answered(&answers) {
            assert!(
                take_answers(&mut institution, &mut answers, PATIENCE) > 0,
                "no answer came"
            );
        }
        assert_eq!(switch.status()["links_cut"], 0, "not yet");
        assert!((before + 1..=last).all(|serial| code(&answers[&serial]) == Code::Committed));
        eventually("the link that does not read is cut", || {
            switch.status()["links_cut"] == 1
        });
        while (answers.len() as u64) < last {
            assert!(
                take_answers(&mut institution, &mut answers, PATIENCE) > 0,
                "no answer came"
            );
        }
        institution.expect_silence(Duration::from_millis(50));
        drop(end);
        (other.join().unwrap(), accepted)
    });

    let by_stuck: BTreeSet<u64> = rest_of(&mut stuck)
        .iter()
        .map(|request| request.body.id.serial())
        .collect();
    assert!(by_stuck.is_disjoint(&by_other), "none was sent twice");
    let mut shed = 0;
    for (serial, answer) in &answers {
        match code(answer) {
            Code::Committed => assert!(by_other.contains(serial), "{serial}"),
            Code::OverLinkCapacity => {
                assert!(
                    !by_other.contains(serial) && !by_stuck.contains(serial),
                    "{serial} was sent"
                );
                let [before, after] = accepted[serial].map(|time| answer.final_ns.saturating_sub(time.0) / MILLISECOND);
                assert!(before >= WAIT_MS, "{serial} was shed after {before} ms");
                assert!(
                    after < SEND_TIMEOUT_MS,
                    "{serial} was shed after {after} ms, by the cut"
                );
                shed += 1;
            }
            // The kernel had it, and the bank never saw it.
            Code::LinkDown => assert!(!by_other.contains(serial) && answer.state == PaymentState::Declined as u8),
            other => panic!("{serial}: {other:?}"),
        }
    }
    assert!(shed > 0, "those whose time came while they were queued");
    assert_eq!(switch.status()["reserved_minor"], 0);
    switch.shutdown().unwrap();
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes the answers that come until nothing does for this long or one has; says how many came.
fn take_answers(institution: &mut Participant, answers: &mut BTreeMap<u64, Answer>, patience: Duration) -> usize {
    let (mut patience, mut count) = (patience, 0);
    while let Some((template, frame)) = institution.next(patience) {
        assert_eq!(template, Template::Answer);
        let answer = Answer::read(&frame);
        let known = answers.insert(answer.id.serial(), answer);
        assert!(known.is_none(), "{} was answered twice", answer.id);
        (patience, count) = (Duration::from_millis(1), count + 1);
    }
    count
}

/// A bank that says yes to every request, and "never seen" when it is asked about one it was not sent on this link.
/// Gives the serials of the requests.
fn answer_all(mut link: Participant, over: &AtomicBool, came: &AtomicU64) -> BTreeSet<u64> {
    let mut requests = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        match link.next(Duration::from_millis(20)) {
            Some((Template::PaymentRequest, frame)) => {
                let request = PaymentRequest::read(&frame);
                link.send(&yes(&request));
                let known = requests.insert(request.body.id.serial(), request);
                assert!(known.is_none(), "{} was sent twice", request.body.id);
                came.fetch_add(1, Ordering::Relaxed);
            }
            Some((Template::StatusRequest, frame)) => {
                let asked = StatusRequest::read(&frame);
                let said = match requests.get(&asked.id.serial()) {
                    Some(request) => yes(request),
                    None => {
                        let unseen = debit(INSTITUTION, BANK, asked.id.serial(), asked.amount_minor);
                        reply(&unseen, ReplyOutcome::NeverSeen, 0)
                    }
                };
                link.send(&regarding(said, Regarding::Status));
            }
            Some((other, _)) => panic!("{other:?} came"),
            None => {}
        }
    }
    requests.into_keys().collect()
}

#[test]
fn a_status_request_queued_in_the_only_link_goes_by_the_next_as_soon_as_that_is_there() {
    /// More answers than the kernel holds of a narrow link that nobody reads, and no more than its contract allows.
    const INQUIRIES: usize = 6_000;
    std::thread::scope(|scope| {
        for (backend, profile) in BACKENDS.into_iter().zip([profile(), spread_profile()]) {
            scope.spawn(move || status_request_queued_in_the_only_link(backend, profile, INQUIRIES));
        }
    });
}

fn status_request_queued_in_the_only_link(backend: BackendChoice, profile: Profile, inquiries: usize) {
    let (data, directory) = (tempfile::tempdir().unwrap(), timed(500, 4_000, 60_000));
    let settings = patient(settings(data.path(), backend));
    let link_agents = usize::from(profile.link_agents);
    let switch = start_with_settings(settings, &directory, profile, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
    let mut clogged = Participant::open_narrow(switch.listen()).sign_on(&directory, BANK, &taking(10_000));
    for serial in 1..=2 {
        institution.send(&debit(INSTITUTION, BANK, serial, 100));
    }
    let (first, second): (PaymentRequest, PaymentRequest) = (clogged.expect(), clogged.expect());
    // Nobody reads the answers; the yes behind the questions tells that all were taken.
    let inquiry = Inquiry {
        id: first.body.id,
        ..bytemuck::Zeroable::zeroed()
    };
    let inquiry = bytemuck::bytes_of(&inquiry.sealed()).to_vec();
    clogged.send_bytes(&inquiry.repeat(inquiries));
    clogged.send(&yes(&second));
    assert_eq!(code(&institution.expect()), Code::Committed);
    let in_doubt = || switch.ledger().map(|view| view.figures.in_doubt);
    assert_eq!(
        in_doubt(),
        Some(0),
        "the link is clogged before it is asked about the first"
    );
    eventually("the first payment is in doubt", || in_doubt() == Some(1));
    taken(&switch, link_agents, 2);

    clogged.stream.shutdown(Shutdown::Write).unwrap();
    let mut next = Participant::connect_as(switch.listen(), &directory, BANK, &taking(10));
    // It would be asked again ten seconds after the first time.
    let (template, frame) = next.next(Duration::from_secs(3)).expect("the bank is asked at once");
    assert_eq!(template, Template::StatusRequest);
    let asked = StatusRequest::read(&frame);
    assert_eq!((asked.id, asked.attempt), (first.body.id, 1));
    next.expect_silence(Duration::from_millis(50));
    while let Some((template, _)) = clogged.next(PATIENCE) {
        assert!(
            matches!(template, Template::InquiryAnswer | Template::Terminate),
            "{template:?} came"
        );
    }
    next.send(&regarding(yes(&first), Regarding::Status));
    assert_eq!(code(&institution.expect()), Code::Committed);
    switch.shutdown().unwrap();
}

#[test]
fn a_clogged_link_that_is_read_again_takes_requests_again_and_is_not_cut() {
    std::thread::scope(|scope| {
        for (backend, profile) in BACKENDS.into_iter().zip([spread_profile(), profile()]) {
            scope.spawn(move || read_again(backend, profile));
        }
    });
}

fn read_again(backend: BackendChoice, profile: Profile) {
    let (data, directory) = (tempfile::tempdir().unwrap(), timed(3_000, 12_000, 60_000));
    let settings = patient(settings(data.path(), backend));
    let link_agents = usize::from(profile.link_agents);
    let switch = start_with_settings(settings, &directory, profile, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, INSTITUTION, 0);
    let (mut link, _) = clog(&switch, link_agents, &directory, &mut institution);
    eventually("requests go back from the link that does not read", || {
        switch.status()["links_clogged"] == 1
    });
    // It waits for the link, and goes when what is before it has gone.
    let last = CLOGGING + QUEUED + 1;
    institution.send(&debit(INSTITUTION, BANK, last, 1));
    taken(&switch, link_agents, last);
    let mut came = BTreeSet::new();
    while !came.contains(&last) {
        let request: PaymentRequest = link.expect();
        assert!(came.insert(request.body.id.serial()), "none comes twice");
        link.send(&yes(&request));
    }
    let mut answers = BTreeMap::new();
    while (answers.len() as u64) < last {
        assert!(
            take_answers(&mut institution, &mut answers, PATIENCE) > 0,
            "no answer came"
        );
    }
    for (serial, answer) in &answers {
        let expected = if came.contains(serial) {
            Code::Committed
        } else {
            Code::OverLinkCapacity
        };
        assert_eq!(code(answer), expected, "{serial}");
    }
    assert!(came.len() < answers.len(), "what waited too long was shed");
    assert_eq!(code(&pay(&mut institution, &mut link, last + 1, 5)), Code::Committed);
    assert_eq!(switch.status()["links_cut"], 0);
    switch.shutdown().unwrap();
}
