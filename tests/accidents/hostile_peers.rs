//! Floods of bad input of every sort, against a switch under load: ten thousand offences each, but for the two sorts that
//! take their time, links that say nothing and links that sign on first. `CLEARWAY_OFFENCES` sets another number, so that
//! `CLEARWAY_OFFENCES=10000 cargo test --test accidents hostile` commits ten thousand of these too.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use clearway::config::{BackendChoice, Directory, Settings, demo_credential};
use clearway::domain::Code;
use clearway::wire::{Answer, Frame, PaymentRequest, TerminateCode};

use crate::books::all_books_agree;
use crate::players::Load;
use crate::support::daemon::{Daemon, Installation, ask};
use crate::support::*;

/// Offences of a sort, where the environment does not say.
const OFFENCES: u64 = 10_000;
/// Offences of a sort that takes its time.
const SLOW_OFFENCES: u64 = 2_000;
/// Stays within the half-open limit.
const LINKS_AT_A_TIME: u64 = 250;

/// Institutions 0 and 1 behave, as do banks 4 and 5; 2 and 6 do not.
const VICTIM: u16 = 3;
const OFFENDER: u16 = 2;
const HONEST_BANK: u16 = 4;
const OFFENDING_BANK: u16 = 6;

struct Scene {
    installation: Installation,
    daemon: Daemon,
    load: Load,
    offences: u64,
}

impl Scene {
    fn new(backend: BackendChoice, offences: u64) -> Self {
        Self::with(backend, offences, |_| {})
    }

    fn with(backend: BackendChoice, offences: u64, change: fn(&mut Settings)) -> Self {
        // A link is a file, and tests run side by side.
        let _ = clearway::agent::process::raise_soft_limits();
        let mut directory = directory(4, 3);
        directory.participants[usize::from(OFFENDING_BANK)]
            .terms
            .contract
            .links_max = LINKS_AT_A_TIME as u16;
        let installation = Installation::of(directory, backend, change);
        let daemon = installation.start();
        let load = Load::new(&installation.directory, 0..2, HONEST_BANK..HONEST_BANK + 2, 1);
        load.scheme.started(daemon.listen);
        load.go_on(100);
        let offences = std::env::var("CLEARWAY_OFFENCES").map_or(offences, |text| text.parse().expect("a number"));
        Self {
            installation,
            daemon,
            load,
            offences,
        }
    }

    fn listen(&self) -> SocketAddr {
        self.daemon.listen
    }

    fn directory(&self) -> &Directory {
        &self.installation.directory
    }

    /// Commits the offence on as many links as there are offences, burst by burst; each is cut with the code it is due.
    fn each_is_cut(&self, mut offend: impl FnMut(u64) -> Participant, due: impl Fn(u64) -> TerminateCode) {
        let paid = self.load.scheme.answered();
        for first in (0..self.offences).step_by(LINKS_AT_A_TIME as usize) {
            let burst = first..(first + LINKS_AT_A_TIME).min(self.offences);
            let mut links: Vec<Participant> = burst.clone().map(&mut offend).collect();
            for (number, link) in burst.zip(&mut links) {
                assert_eq!(link.expect_cut(), due(number), "offence {number}");
            }
            self.load.check();
        }
        assert!(self.load.scheme.answered() > paid, "others pay meanwhile");
    }

    /// Serials from 1, as many as there are offences, in batches.
    fn batches(&self) -> impl Iterator<Item = RangeInclusive<u64>> {
        let last = self.offences;
        (1..=last)
            .step_by(500)
            .map(move |first| first..=(first + 499).min(last))
    }

    /// Connects and sends these bytes.
    fn open_with(&self, bytes: &[u8]) -> Participant {
        let mut link = Participant::open(self.listen());
        link.send_bytes(bytes);
        link
    }

    /// The load gets all its answers, nobody but offenders was cut, and the books agree.
    fn nobody_else_was_harmed(self) {
        self.load.go_on(100);
        let status = ask(&self.installation.path("data/admin.sock"), "status").unwrap();
        assert_eq!(
            status["links"], 4,
            "two institutions and two banks, the first link of each"
        );
        let known = self.load.finish();
        all_books_agree(&self.installation, self.daemon, &known);
        for institution in &known.institutions {
            let codes: BTreeSet<Code> = institution.answers.values().map(code).collect();
            assert_eq!(codes, BTreeSet::from([Code::Committed, Code::CustomerFunds]));
        }
    }
}

/// Any participant's Negotiate, as it should be.
fn good_frame(directory: &Directory) -> Vec<u8> {
    let code = directory.participants[usize::from(OFFENDER)].terms.code;
    bytemuck::bytes_of(&negotiate(code, demo_credential(&code)).sealed()).to_vec()
}

/// A number like any other (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn random_bytes(backend: BackendChoice) {
    let scene = Scene::new(backend, OFFENCES);
    let offend = |number: u64| {
        let mut bytes: Vec<u8> = (0..2 + mixed(number) % 60)
            .flat_map(|word| mixed(number << 8 | word).to_le_bytes())
            .collect();
        // By chance only would it begin as a frame does; here, never.
        bytes[2] |= 1;
        scene.open_with(&bytes)
    };
    scene.each_is_cut(offend, |_| TerminateCode::BadHeader);
    scene.nobody_else_was_harmed();
}

fn truncated_frames(backend: BackendChoice) {
    let scene = Scene::new(backend, OFFENCES);
    let good = good_frame(scene.directory());
    // A frame that stops short and is followed by the next: what is read as one is none.
    let offend = |number: u64| {
        let left = 16 + mixed(number) as usize % (good.len() - 17);
        scene.open_with(&[&good[..left], &good[..]].concat())
    };
    scene.each_is_cut(offend, |_| TerminateCode::BadCrc);
    scene.nobody_else_was_harmed();
}

fn wrong_crcs(backend: BackendChoice) {
    let scene = Scene::new(backend, OFFENCES);
    let good = good_frame(scene.directory());
    let offend = |number: u64| {
        let mut bytes = good.clone();
        let bit = mixed(number) as usize % ((good.len() - 12) * 8);
        bytes[12 + bit / 8] ^= 1 << (bit % 8);
        scene.open_with(&bytes)
    };
    scene.each_is_cut(offend, |_| TerminateCode::BadCrc);
    scene.nobody_else_was_harmed();
}

fn wrong_lengths(backend: BackendChoice) {
    let scene = Scene::new(backend, OFFENCES);
    let good = good_frame(scene.directory());
    let offend = |number: u64| {
        let mut bytes = good.clone();
        let wrong = good.len() as u16 + 1 + (mixed(number) % 60_000) as u16;
        bytes[..2].copy_from_slice(&wrong.to_le_bytes());
        scene.open_with(&bytes)
    };
    scene.each_is_cut(offend, |_| TerminateCode::BadLength);
    scene.nobody_else_was_harmed();
}

fn silent_connections(backend: BackendChoice) {
    let scene = Scene::with(backend, SLOW_OFFENCES, |settings| {
        settings.links.half_open_max = 2 * LINKS_AT_A_TIME as u32;
        settings.links.handshake_timeout_ms = 400;
    });
    scene.each_is_cut(
        |_| Participant::open(scene.listen()),
        |_| TerminateCode::HandshakeTimeout,
    );
    scene.nobody_else_was_harmed();
}

fn replies_for_others(backend: BackendChoice) {
    let scene = Scene::new(backend, SLOW_OFFENCES);
    let listen = scene.listen();
    // Payments of the load at another bank: of some it waits for the reply, most are final, and some will be.
    let offend = |number: u64| {
        let mut link = Participant::connect(listen, scene.directory(), OFFENDING_BANK, u64::MAX);
        let around = scene.load.scheme.answered() / 2;
        let serial = 1 + (around + number % 60).saturating_sub(30);
        link.send(&yes(&debit((number % 2) as u16, HONEST_BANK, serial, 1 + serial % 97)));
        link
    };
    scene.each_is_cut(offend, |_| TerminateCode::ReplyNotEntitled);
    scene.nobody_else_was_harmed();
}

fn wrong_originators(backend: BackendChoice) {
    let scene = Scene::new(backend, OFFENCES);
    let mut offender = Participant::connect(scene.listen(), scene.directory(), OFFENDER, 0);
    let paid = scene.load.scheme.answered();
    // Refused, each with 03 and no word; it costs no link, because the session itself is in order.
    for batch in scene.batches() {
        for answer in all_answers(&mut offender, batch, |serial| debit(VICTIM, HONEST_BANK, serial, 5)) {
            assert_eq!((code(&answer), answer.word), (Code::NotSignedOn, 0));
        }
    }
    assert!(scene.load.scheme.answered() > paid, "others pay meanwhile");
    // The ids are their owner's still, for any content, and nothing is known of them.
    let mut owner = Participant::connect(scene.listen(), scene.directory(), VICTIM, 0);
    for batch in scene.batches() {
        for answer in all_answers(&mut owner, batch, |serial| debit(VICTIM, VICTIM, serial, 6)) {
            assert_eq!((code(&answer), answer.flags), (Code::OnUs, 0));
            assert!(answer.word > 0);
        }
    }
    drop((offender, owner));
    eventually("their links are gone", || {
        ask(&scene.installation.path("data/admin.sock"), "status").is_some_and(|status| status["links"] == 4)
    });
    scene.nobody_else_was_harmed();
}

/// Sends the requests of a batch in one go, and waits for as many answers.
fn all_answers(link: &mut Participant, batch: RangeInclusive<u64>, make: fn(u64) -> PaymentRequest) -> Vec<Answer> {
    let bytes = batch
        .clone()
        .flat_map(|serial| bytemuck::bytes_of(&make(serial)).to_vec());
    let bytes: Vec<u8> = bytes.collect();
    link.send_bytes(&bytes);
    batch.map(|_| link.expect()).collect()
}

macro_rules! on_both_backends {
    ($($flood:ident: $claim:ident;)+) => {
        mod on_io_uring {
            $(#[test] fn $claim() { super::$flood(clearway::config::BackendChoice::Uring); })+
        }
        mod on_mio {
            $(#[test] fn $claim() { super::$flood(clearway::config::BackendChoice::Mio); })+
        }
    };
}

on_both_backends! {
    random_bytes: random_bytes_cost_each_sender_the_link_and_nobody_a_payment;
    truncated_frames: truncated_frames_cost_each_sender_the_link_and_nobody_a_payment;
    wrong_crcs: wrong_crcs_cost_each_sender_the_link_and_nobody_a_payment;
    wrong_lengths: wrong_lengths_cost_each_sender_the_link_and_nobody_a_payment;
    silent_connections: silent_connections_are_cut_in_time_and_take_nobodys_place;
    replies_for_others: replies_for_others_payments_cost_each_sender_the_link_and_change_nothing;
    wrong_originators: wrong_originators_are_refused_and_leave_the_ids_to_their_owners;
}
