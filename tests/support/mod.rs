//! What end-to-end tests share: a switch in this process, and participants that speak over real sockets.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod daemon;
pub mod disk_calls;
pub mod file_system;
pub mod journal_bytes;
pub mod threads;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use clearway::config::{BackendChoice, Directory, Profile, Settings, demo_credential};
use clearway::domain::{BusinessDate, Code, Kind, MILLISECOND, ParticipantIndex, PaymentId, Scene, SchemeCode};
use clearway::journal::WriteGate;
use clearway::switch::{RunningSwitch, StartOptions, start};
use clearway::wire::{
    Answer, Establish, EstablishmentAck, Frame, Negotiate, NegotiationResponse, PaymentRequest, Regarding, Reply,
    ReplyOutcome, Template, Terminate, TerminateCode, decode,
};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Both backends: what one does the other does.
pub const BACKENDS: [BackendChoice; 2] = [BackendChoice::Uring, BackendChoice::Mio];

/// A directory of `institutions` and `banks` with short timers left at their defaults.
pub fn directory(institutions: u16, banks: u16) -> Directory {
    Directory::generate(institutions, banks)
}

/// Two institutions and two banks with these times, milliseconds.
pub fn timed(wait_ms: u64, doubt_ms: u64, expiry_ms: u64) -> Directory {
    let mut directory = directory(2, 2);
    for entry in &mut directory.participants {
        entry.terms.wait_ns = wait_ms * MILLISECOND;
        entry.terms.doubt_ns = doubt_ms * MILLISECOND;
        entry.terms.expiry_pull_ns = expiry_ms * MILLISECOND;
        entry.terms.expiry_push_ns = expiry_ms * MILLISECOND;
    }
    directory
}

/// An Establish that takes so many requests unanswered.
pub fn taking(credit_in_flight: u32) -> Establish {
    Establish {
        credit_in_flight,
        ..establish(u64::MAX)
    }
}

/// A profile small enough for many switches in one test run.
pub fn profile() -> Profile {
    let mut profile = Profile::load("small-vm").expect("the built-in profile is right");
    profile.payments_expected = 1_000;
    profile.journal.segment_bytes = 4 << 20;
    profile.journal.ring_bytes = 16 << 20;
    profile.rings.intake_priority = 65_536;
    profile.driver.receive_buffers = 64;
    for thread in &mut profile.threads {
        thread.core = None;
    }
    profile
}

pub fn settings(data: &Path, backend: BackendChoice) -> Settings {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let mut settings = Settings::new(listen, data.to_owned(), data.join("directory.toml"));
    settings.backend = backend;
    settings.shutdown_drain_ms = Some(500);
    settings
}

pub fn start_switch(
    data: &Path,
    directory: &Directory,
    backend: BackendChoice,
    options: StartOptions,
) -> RunningSwitch {
    start_with_profile(data, directory, backend, profile(), options)
}

pub fn start_with_profile(
    data: &Path,
    directory: &Directory,
    backend: BackendChoice,
    profile: Profile,
    options: StartOptions,
) -> RunningSwitch {
    start_with_settings(settings(data, backend), directory, profile, options)
}

pub fn start_with_settings(
    settings: Settings,
    directory: &Directory,
    profile: Profile,
    options: StartOptions,
) -> RunningSwitch {
    let directory = directory.clone();
    start(settings, directory, profile, options).expect("the switch starts")
}

/// Waits until `holds` says so; for what no frame tells.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, holds);
}

/// As `eventually`, where the wait is for a process and not for an answer.
pub fn eventually_within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Holds durable writes until it is told to let them go.
#[derive(Default)]
pub struct Hold {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Hold {
    pub fn set(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.changed.notify_all();
    }
}

impl WriteGate for Hold {
    fn before_write(&self, _: u64, _: u64) -> std::io::Result<()> {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.changed.wait(held).unwrap();
        }
        Ok(())
    }
}

pub fn held_options() -> (Arc<Hold>, StartOptions) {
    let hold = Arc::new(Hold::default());
    (
        hold.clone(),
        StartOptions {
            gate: Some(hold),
            ..StartOptions::default()
        },
    )
}

/// What a link brought.
pub enum Heard {
    Frame(Template, Vec<u8>),
    /// Nothing in time.
    Nothing,
    /// It has ended, and why.
    End(String),
}

/// A participant's link over a real socket.
pub struct Participant {
    pub stream: TcpStream,
    pub index: ParticipantIndex,
    pub next_word: u64,
    received: Vec<u8>,
    /// Why nothing came.
    ended: String,
}

impl Participant {
    /// Connects and signs on; words after `last_word` are asked for again (`u64::MAX` = none).
    pub fn connect(address: SocketAddr, directory: &Directory, index: u16, last_word: u64) -> Self {
        Self::connect_as(address, directory, index, &establish(last_word))
    }

    /// Connects and signs on with a contract of its own.
    pub fn connect_as(address: SocketAddr, directory: &Directory, index: u16, terms: &Establish) -> Self {
        Self::open(address).sign_on(directory, index, terms)
    }

    /// Signs on, on a link that has said nothing yet.
    pub fn sign_on(mut self, directory: &Directory, index: u16, terms: &Establish) -> Self {
        let code = directory.participants[usize::from(index)].terms.code;
        self.send(&negotiate(code, demo_credential(&code)));
        let response: NegotiationResponse = self.expect();
        assert_eq!(response.participant.0, index);
        self.index = response.participant;
        self.send(terms);
        let ack: EstablishmentAck = self.expect();
        self.next_word = ack.next_word;
        self
    }

    /// As `connect_as`, where the switch may be gone at any moment.
    pub fn try_connect_as(address: SocketAddr, directory: &Directory, index: u16, terms: &Establish) -> Option<Self> {
        let code = directory.participants[usize::from(index)].terms.code;
        let mut link = Self::over(TcpStream::connect(address).ok()?);
        let negotiate = negotiate(code, demo_credential(&code)).sealed();
        link.stream.write_all(bytemuck::bytes_of(&negotiate)).ok()?;
        link.stream.write_all(bytemuck::bytes_of(&terms.sealed())).ok()?;
        let response = link
            .next(PATIENCE)
            .filter(|came| came.0 == Template::NegotiationResponse)?;
        let response = NegotiationResponse::read(&response.1);
        let ack = link
            .next(PATIENCE)
            .filter(|came| came.0 == Template::EstablishmentAck)?;
        let ack = EstablishmentAck::read(&ack.1);
        (link.index, link.next_word) = (response.participant, ack.next_word);
        Some(link)
    }

    /// Connects and says nothing yet.
    pub fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the switch listens"))
    }

    /// As `open`, on a link of which the kernel holds little: small segments and a small window keep the switch's own
    /// send buffer small too, so that some hundred frames nobody reads fill it.
    pub fn open_narrow(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.set_tcp_mss(536).unwrap();
        socket.connect(&address.into()).expect("the switch listens");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            index: ParticipantIndex(u16::MAX),
            next_word: 0,
            received: Vec::new(),
            ended: String::new(),
        }
    }

    pub fn send<F: Frame>(&mut self, frame: &F) {
        self.stream
            .write_all(bytemuck::bytes_of(&frame.sealed()))
            .expect("the link takes the frame");
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the link takes the bytes");
    }

    /// The link ends, and the switch says why.
    pub fn expect_cut(&mut self) -> TerminateCode {
        let (template, last) = self.expect_end().expect("the switch says why");
        assert_eq!(template, Template::Terminate);
        TerminateCode::from_u8(Terminate::read(&last).code).expect("a known code")
    }

    /// The next frame that is not a heartbeat; `None` when nothing comes within `patience` or the link has ended.
    pub fn next(&mut self, patience: Duration) -> Option<(Template, Vec<u8>)> {
        match self.poll(patience) {
            Heard::Frame(template, frame) => Some((template, frame)),
            Heard::Nothing => {
                self.ended = format!("nothing for {patience:?}");
                None
            }
            Heard::End(why) => {
                self.ended = why;
                None
            }
        }
    }

    /// Waits for the next frame that is not a heartbeat.
    pub fn poll(&mut self, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        loop {
            while let Some((template, length)) = decode(&self.received).expect("the switch sends frames") {
                let frame: Vec<u8> = self.received.drain(..length).collect();
                if template != Template::Sequence {
                    return Heard::Frame(template, frame);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::End("the switch has closed the link".to_owned()),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                // A ring of an earlier switch that the kernel takes apart interrupts the thread that made it.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Nothing,
                Err(error) => return Heard::End(error.to_string()),
            }
        }
    }

    /// The next frame, which must be of this type.
    pub fn expect<F: Frame>(&mut self) -> F {
        let Some((template, frame)) = self.next(PATIENCE) else {
            panic!("no {:?} came: {}", F::TEMPLATE, self.ended);
        };
        assert_eq!(template, F::TEMPLATE);
        F::read(&frame)
    }

    /// Nothing comes for this long.
    pub fn expect_silence(&mut self, time: Duration) {
        if let Some((template, _)) = self.next(time) {
            panic!("{template:?} came where nothing may come");
        }
    }

    /// The link ends; gives the last frame before it did.
    pub fn expect_end(&mut self) -> Option<(Template, Vec<u8>)> {
        let mut last = None;
        while let Some(frame) = self.next(PATIENCE) {
            last = Some(frame);
        }
        let mut byte = [0];
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut end = self.stream.read(&mut byte);
        while matches!(&end, Err(error) if error.kind() == ErrorKind::Interrupted) {
            end = self.stream.read(&mut byte);
        }
        match end {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the link should have ended, and gave {other:?}"),
        }
        last
    }
}

pub fn negotiate(code: SchemeCode, credential: [u8; 32]) -> Negotiate {
    Negotiate {
        session_id: 77,
        code,
        credential,
        ..Zeroable::zeroed()
    }
}

pub fn establish(last_word: u64) -> Establish {
    Establish {
        session_id: 77,
        keepalive_ms: 20_000,
        last_word,
        ..Zeroable::zeroed()
    }
}

/// Today in Shanghai.
pub fn today() -> BusinessDate {
    clearway::agent::wall_clock().business_date()
}

pub fn debit(initiator: u16, responder: u16, serial: u64, amount_minor: u64) -> PaymentRequest {
    let mut request = PaymentRequest::zeroed();
    request.body.id = PaymentId::new(today(), ParticipantIndex(initiator), 0, serial);
    request.body.amount_minor = amount_minor;
    request.body.currency = 156;
    request.body.kind = Kind::Debit as u8;
    request.body.scene = Scene::Shopping as u8;
    request.body.responder = ParticipantIndex(responder);
    request.body.mandate_token = [1, 2];
    request.sealed()
}

pub fn reply(request: &PaymentRequest, outcome: ReplyOutcome, code: u8) -> Reply {
    let mut reply = Reply::zeroed();
    reply.body.id = request.body.id;
    reply.body.amount_minor = request.body.amount_minor;
    reply.body.currency = request.body.currency;
    reply.body.regarding = Regarding::Request as u8;
    reply.body.outcome = outcome as u8;
    reply.body.code = code;
    reply.sealed()
}

pub fn yes(request: &PaymentRequest) -> Reply {
    reply(request, ReplyOutcome::Yes, 0)
}

pub fn regarding(mut reply: Reply, regarding: Regarding) -> Reply {
    reply.body.regarding = regarding as u8;
    reply
}

pub fn code(answer: &Answer) -> Code {
    Code::from_u8(answer.code).expect("a code of the scheme")
}

/// Runs one payment to its answer.
pub fn pay(institution: &mut Participant, bank: &mut Participant, serial: u64, amount_minor: u64) -> Answer {
    institution.send(&debit(institution.index.0, bank.index.0, serial, amount_minor));
    let request: PaymentRequest = bank.expect();
    bank.send(&yes(&request));
    institution.expect()
}

/// A thread for every stage and two link agents: what one composite thread does, many must do.
pub fn spread_profile() -> Profile {
    let mut spread = Profile::load("server-16").expect("the built-in profile is right");
    let small = profile();
    (spread.journal, spread.rings, spread.driver) = (small.journal, small.rings, small.driver);
    spread
        .threads
        .retain(|thread| !["link-2", "link-3"].contains(&thread.name.as_str()));
    spread.link_agents = 2;
    for thread in &mut spread.threads {
        thread.core = None;
        thread.idle = clearway::agent::IdleStrategy::Park { spins: 5 };
    }
    spread
}
