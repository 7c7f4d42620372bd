//! The lean load of the relay: institutions and banks in one loop, frames built beforehand.
//!
//! Closed loop: each institution keeps a number of payments in flight; the banks answer at once. Open loop: payments
//! begin at their intended times whatever the relay does, and latency counts from there (no coordinated omission).

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::relay::{
    ANSWER_BYTES, CHILD_COMMAND, HELLO_BYTES, Hello, ID, ORIGINATOR, REPLY_BYTES, REQUEST_BYTES, RESPONDER, Relay,
    RelayError, SERIAL, each_frame, stream, turn,
};
use crate::io::{BackendChoice, Connection, Outbox, Stream, StreamEvents};

/// What a run is not measured for at its beginning.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long links may take to open.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// How long to sleep at most where there is no core to spin on.
const SLEEP: Duration = Duration::from_millis(1);
/// Open-loop payments that may be under way; a power of two.
const UNDER_WAY_MAX: usize = 1 << 16;

/// Where the relay runs.
#[derive(Clone, Debug)]
pub enum RelayPlace {
    /// In a child process: this program, started as `PROGRAM relay-child …`.
    Child(PathBuf),
    /// On a thread of this process.
    Thread,
}

/// A relay and its links.
#[derive(Clone, Debug)]
pub struct RelaySetup {
    /// Links that send requests.
    pub institutions: u16,
    /// Links that reply.
    pub banks: u16,
    /// The backend of both sides.
    pub backend: BackendChoice,
    /// Where the relay runs.
    pub place: RelayPlace,
}

/// What a closed loop reached.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RelayThroughput {
    /// Payments a second over the whole time.
    pub per_second: f64,
    /// The best tenth of the time.
    pub peak_per_second: f64,
}

/// Two quantiles, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// A histogram of nanoseconds, up to a minute, with three digits.
///
/// # Panics
/// Never: the bounds are good ones.
#[must_use]
pub(super) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("1 ns to 60 s with three digits is a valid range")
}

impl Quantiles {
    /// Of a histogram of nanoseconds.
    #[must_use]
    pub fn of_ns(histogram: &Histogram<u64>) -> Self {
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: us(0.5),
            p99: us(0.99),
        }
    }
}

impl RelaySetup {
    /// Payments a second with `in_flight` payments per institution, for `duration`.
    ///
    /// # Errors
    /// As [`RelayError`] says.
    pub fn throughput(&self, in_flight: u32, duration: Duration) -> Result<RelayThroughput, RelayError> {
        self.run(move |load| load.closed_loop(in_flight, duration))
    }

    /// Latency from the intended send time at `rate` payments a second, for `duration`.
    ///
    /// # Errors
    /// As [`RelayError`] says.
    pub fn latency(&self, rate: u64, duration: Duration) -> Result<Quantiles, RelayError> {
        self.run(move |load| load.open_loop(rate.max(1), duration))
    }

    fn links(&self) -> usize {
        usize::from(self.institutions) + usize::from(self.banks)
    }

    /// Starts the relay on the first core, the load on the second.
    fn run<T: Send>(&self, measure: impl FnOnce(&mut Load) -> Result<T, RelayError> + Send) -> Result<T, RelayError> {
        let (relay_core, load_core) = two_cores();
        let spin = load_core.is_some();
        std::thread::scope(|scope| {
            let (address, mut child, thread) = match &self.place {
                RelayPlace::Child(program) => {
                    let (child, address) = self.start_child(program, relay_core)?;
                    (address, Some(child), None)
                }
                RelayPlace::Thread => {
                    let relay = Relay::listen(self.backend, self.links(), spin)?;
                    let address = relay.address();
                    let thread = scope.spawn(move || {
                        pin(relay_core);
                        relay.run()
                    });
                    (address, None, Some(thread))
                }
            };
            let load = scope.spawn(move || {
                pin(load_core);
                let mut load = Load::connect(self, address, spin)?;
                measure(&mut load)
            });
            let result = load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if let Some(child) = &mut child {
                if result.is_err() {
                    // It may have ended already.
                    let _ = child.kill();
                }
                child.wait().map_err(RelayError::io("wait for the relay's process"))?;
            }
            if let Some(thread) = thread {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            result
        })
    }

    fn start_child(&self, program: &PathBuf, core: Option<usize>) -> Result<(Child, SocketAddr), RelayError> {
        let mut child = Command::new(program)
            .arg(CHILD_COMMAND)
            .arg(self.backend.name())
            .arg(self.links().to_string())
            .args(core.map(|core| core.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(RelayError::io("start the relay's process"))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(RelayError::io("read the relay's port"))?;
        }
        match line.trim().parse::<u16>() {
            Ok(port) => Ok((child, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(RelayError::Arguments(format!(
                    "{} did not say a port but {line:?}",
                    program.display()
                )))
            }
        }
    }
}

/// The cores of relay and load; none when there are not two.
fn two_cores() -> (Option<usize>, Option<usize>) {
    match core_affinity::get_core_ids().as_deref() {
        Some([relay, load, ..]) => (Some(relay.id), Some(load.id)),
        _ => (None, None),
    }
}

fn pin(core: Option<usize>) {
    if let Some(id) = core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

/// Institutions and banks, connected.
struct Load {
    stream: Stream,
    /// By institution.
    institutions: Vec<Connection>,
    sleep: Option<Duration>,
    frames: Frames,
    outbox: Outbox,
}

/// Links that open: each says whose it is, and waits until it gets that back.
struct Opening {
    outbox: Outbox,
    by_connection: Vec<Hello>,
    ready: usize,
    lost: Option<String>,
}

impl StreamEvents for Opening {
    fn connected(&mut self, connection: Connection, result: std::io::Result<()>) {
        match result {
            Ok(()) => {
                self.outbox.open(connection);
                let hello = self.by_connection[connection.0 as usize].to_bytes();
                self.outbox.append(connection, &hello);
            }
            Err(error) => self.lost = Some(error.to_string()),
        }
    }

    fn received(&mut self, _connection: Connection, bytes: &[u8]) -> Option<usize> {
        Some(each_frame(bytes, |frame| {
            self.ready += usize::from(frame.len() == HELLO_BYTES);
        }))
    }

    fn sent(&mut self, connection: Connection, bytes: Vec<u8>) {
        self.outbox.sent(connection, bytes);
    }

    fn closed(&mut self, _connection: Connection, error: Option<std::io::Error>) {
        self.lost = Some(ended(error));
    }
}

/// One turn of the run: banks reply, `on_answer` sees the answers.
struct Running<'a, F> {
    outbox: &'a mut Outbox,
    frames: &'a mut Frames,
    on_answer: F,
    lost: Option<String>,
}

impl<F: FnMut(&mut Outbox, &mut Frames, Connection, &[u8])> StreamEvents for Running<'_, F> {
    fn connected(&mut self, _connection: Connection, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.lost = Some(error.to_string());
        }
    }

    #[inline]
    fn received(&mut self, connection: Connection, bytes: &[u8]) -> Option<usize> {
        Some(each_frame(bytes, |frame| match frame.len() {
            ANSWER_BYTES => (self.on_answer)(self.outbox, self.frames, connection, frame),
            _ => self.outbox.append(connection, self.frames.reply(frame)),
        }))
    }

    #[inline]
    fn sent(&mut self, connection: Connection, bytes: Vec<u8>) {
        self.outbox.sent(connection, bytes);
    }

    fn closed(&mut self, _connection: Connection, error: Option<std::io::Error>) {
        self.lost = Some(ended(error));
    }
}

/// Frames, built beforehand, and what changes in them.
struct Frames {
    request: [u8; REQUEST_BYTES],
    reply: [u8; REPLY_BYTES],
    serial: u64,
    banks: u64,
}

impl Frames {
    fn new(banks: u16) -> Self {
        let mut frames = Self {
            request: [0x5A; REQUEST_BYTES],
            reply: [0x5A; REPLY_BYTES],
            serial: 0,
            banks: u64::from(banks),
        };
        frames.request[..2].copy_from_slice(&(REQUEST_BYTES as u16).to_le_bytes());
        frames.reply[..2].copy_from_slice(&(REPLY_BYTES as u16).to_le_bytes());
        frames
    }

    /// The next payment of an institution, to a bank that is as good as drawn.
    #[inline]
    fn request(&mut self, institution: u16) -> &[u8; REQUEST_BYTES] {
        self.serial += 1;
        let bank = ((self.serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) * self.banks) >> 32;
        self.request[ORIGINATOR].copy_from_slice(&institution.to_le_bytes());
        self.request[SERIAL].copy_from_slice(&self.serial.to_le_bytes());
        self.request[RESPONDER].copy_from_slice(&(bank as u16).to_le_bytes());
        &self.request
    }

    /// The bank's reply to a request.
    #[inline]
    fn reply(&mut self, request: &[u8]) -> &[u8; REPLY_BYTES] {
        self.reply[ID].copy_from_slice(&request[ID]);
        &self.reply
    }
}

impl Load {
    fn connect(setup: &RelaySetup, address: SocketAddr, spin: bool) -> Result<Self, RelayError> {
        let links = setup.links();
        let mut stream = stream(setup.backend, links as u32)?;
        let institutions = (0..setup.institutions).map(Hello::Institution);
        let hellos: Vec<Hello> = institutions.chain((0..setup.banks).map(Hello::Bank)).collect();
        let mut by_connection = vec![Hello::Bank(0); links];
        let mut institution_links = Vec::new();
        for hello in hellos {
            let connection = stream.connect(address).map_err(RelayError::io("connect"))?;
            by_connection[connection.0 as usize] = hello;
            if let Hello::Institution(_) = hello {
                institution_links.push(connection);
            }
        }
        let mut opening = Opening {
            outbox: Outbox::default(),
            by_connection,
            ready: 0,
            lost: None,
        };
        let began = Instant::now();
        while opening.ready < links && opening.lost.is_none() {
            let sleep = Some(Duration::from_millis(100));
            turn(&mut stream, sleep, &mut opening, |opening| &mut opening.outbox)
                .map_err(RelayError::io("open links"))?;
            if began.elapsed() > OPEN_WAIT {
                opening.lost = Some(format!("{} of {links} were opened in time", opening.ready));
            }
        }
        match opening.lost {
            Some(lost) => Err(RelayError::LinkLost(lost)),
            None => Ok(Self {
                stream,
                institutions: institution_links,
                sleep: (!spin).then_some(SLEEP),
                frames: Frames::new(setup.banks),
                outbox: opening.outbox,
            }),
        }
    }

    /// One turn: banks reply, `on_answer` sees the answers.
    #[inline]
    fn turn(&mut self, on_answer: impl FnMut(&mut Outbox, &mut Frames, Connection, &[u8])) -> Result<(), RelayError> {
        let mut running = Running {
            outbox: &mut self.outbox,
            frames: &mut self.frames,
            on_answer,
            lost: None,
        };
        turn(&mut self.stream, self.sleep, &mut running, |running| running.outbox).map_err(RelayError::io("load"))?;
        running.lost.map_or(Ok(()), |lost| Err(RelayError::LinkLost(lost)))
    }

    fn closed_loop(&mut self, in_flight: u32, duration: Duration) -> Result<RelayThroughput, RelayError> {
        for institution in 0..self.institutions.len() {
            for _ in 0..in_flight {
                let request = self.frames.request(institution as u16);
                self.outbox.append(self.institutions[institution], request);
            }
        }
        let run_until = |load: &mut Self, end: Instant| -> Result<(u64, Instant), RelayError> {
            let mut answers = 0u64;
            loop {
                load.turn(|outbox, frames, connection, answer| {
                    answers += 1;
                    let institution = u16::from_le_bytes([answer[ORIGINATOR.start], answer[ORIGINATOR.start + 1]]);
                    outbox.append(connection, frames.request(institution));
                })?;
                let now = Instant::now();
                if now >= end {
                    return Ok((answers, now));
                }
            }
        };
        let (_, began) = run_until(self, Instant::now() + WARM_UP)?;
        let (mut total, mut peak, mut last) = (0, 0f64, began);
        for tenth in 1..=10 {
            let (answers, now) = run_until(self, began + duration * tenth / 10)?;
            total += answers;
            peak = peak.max(answers as f64 / (now - last).as_secs_f64().max(1e-9));
            last = now;
        }
        Ok(RelayThroughput {
            per_second: total as f64 / (last - began).as_secs_f64(),
            peak_per_second: peak,
        })
    }

    fn open_loop(&mut self, rate: u64, duration: Duration) -> Result<Quantiles, RelayError> {
        let mut histogram = latency_histogram();
        let mut intended_ns = vec![0u64; UNDER_WAY_MAX];
        let (mut sent, mut answered) = (0u64, 0u64);
        let payments = (WARM_UP + duration).as_nanos() as u64 / (1_000_000_000 / rate).max(1);
        let warm_up_ns = WARM_UP.as_nanos() as u64;
        let intended = |payment: u64| (u128::from(payment) * 1_000_000_000 / u128::from(rate)) as u64;
        let began = Instant::now();
        while answered < payments {
            let now_ns = began.elapsed().as_nanos() as u64;
            while sent < payments && intended(sent) <= now_ns {
                let institution = (sent % self.institutions.len() as u64) as usize;
                let request = self.frames.request(institution as u16);
                self.outbox.append(self.institutions[institution], request);
                intended_ns[self.frames.serial as usize % UNDER_WAY_MAX] = intended(sent);
                sent += 1;
                let outstanding = (sent - answered) as usize;
                if outstanding >= UNDER_WAY_MAX {
                    return Err(RelayError::Overrun { rate, outstanding });
                }
            }
            self.turn(|_, _, _, answer| {
                answered += 1;
                let mut serial = [0; 8];
                serial.copy_from_slice(&answer[SERIAL]);
                let intended_ns = intended_ns[u64::from_le_bytes(serial) as usize % UNDER_WAY_MAX];
                if intended_ns >= warm_up_ns {
                    let now_ns = began.elapsed().as_nanos() as u64;
                    histogram.saturating_record(now_ns - intended_ns);
                }
            })?;
        }
        Ok(Quantiles::of_ns(&histogram))
    }
}

fn ended(error: Option<std::io::Error>) -> String {
    error.map_or_else(|| "the peer ended it".to_owned(), |error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(backend: BackendChoice) -> RelaySetup {
        RelaySetup {
            institutions: 3,
            banks: 5,
            backend,
            place: RelayPlace::Thread,
        }
    }

    #[test]
    fn payments_go_round_through_the_relay_on_both_backends() {
        for backend in [BackendChoice::Uring, BackendChoice::Mio] {
            let reached = setup(backend).throughput(4, Duration::from_millis(100)).unwrap();
            assert!(reached.per_second > 100.0, "{backend}: {reached:?}");
            assert!(
                reached.peak_per_second >= reached.per_second * 0.99,
                "{backend}: {reached:?}"
            );
        }
    }

    #[test]
    fn every_payment_of_an_open_loop_is_answered_and_timed() {
        let latency = setup(BackendChoice::Auto)
            .latency(1_000, Duration::from_millis(100))
            .unwrap();
        assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99, "{latency:?}");
    }
}
