//! The relay: what a switch would be with no logic, no checks and no disk. It is the limit that the switch is held to.
//!
//! It carries the four frames of a payment over the same connections: a request of 128 bytes in and out to its bank, the
//! bank's reply of 64 bytes in, an answer of 96 bytes out. It reads two fields (responder, payment id) and nothing else.
//! Each link first says whose it is; when all have, all get it back, and the run can begin.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::agent::Wakeup;
use crate::io::{BackendChoice, Connection, DriverOptions, OpenError, Outbox, Stream, StreamEvents, open};
use crate::wire::Template;

/// How long the relay waits for its first link before it gives up.
const FIRST_LINK_WAIT: Duration = Duration::from_secs(30);
/// How long to sleep at most where there is no core to spin on.
const SLEEP: Duration = Duration::from_millis(100);
/// Bytes that state a frame's length.
const LENGTH_BYTES: usize = 2;
/// Where a request and a reply hold the payment id.
pub(super) const ID: std::ops::Range<usize> = 16..32;
/// Where the id holds its originator.
pub(super) const ORIGINATOR: std::ops::Range<usize> = 20..22;
/// Where the id holds its serial.
pub(super) const SERIAL: std::ops::Range<usize> = 24..32;
/// Where a request holds its responder.
pub(super) const RESPONDER: std::ops::Range<usize> = 44..46;
pub(super) const REQUEST_BYTES: usize = Template::PaymentRequest.length();
pub(super) const REPLY_BYTES: usize = Template::Reply.length();
pub(super) const ANSWER_BYTES: usize = Template::Answer.length();
/// Bytes of a [`Hello`].
pub(super) const HELLO_BYTES: usize = 16;

/// The name of the hidden subcommand that [`child_main`] is.
pub const CHILD_COMMAND: &str = "relay-child";

/// Why a relay could not be measured.
#[derive(Debug, Error)]
pub enum RelayError {
    /// No driver.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A fault of sockets or of the child process.
    #[error("relay: {what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The fault.
        source: io::Error,
    },
    /// A link ended in the middle of the run, or never opened.
    #[error("relay: a link was lost: {0}")]
    LinkLost(String),
    /// The relay's arguments are wrong.
    #[error("relay: {0}")]
    Arguments(String),
    /// The offered rate is more than the relay takes.
    #[error("relay: can't hold {rate} payments/s: {outstanding} are under way")]
    Overrun {
        /// Payments a second offered.
        rate: u64,
        /// Payments under way when it was given up.
        outstanding: usize,
    },
}

impl RelayError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// What a link of the relay says first: `length u16 = 16 │ role u16 (0 institution, 1 bank) │ index u16 │ zeros`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hello {
    Institution(u16),
    Bank(u16),
}

impl Hello {
    pub(super) fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let (role, index) = match self {
            Self::Institution(index) => (0u16, index),
            Self::Bank(index) => (1, index),
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..2].copy_from_slice(&(HELLO_BYTES as u16).to_le_bytes());
        bytes[2..4].copy_from_slice(&role.to_le_bytes());
        bytes[4..6].copy_from_slice(&index.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let index = u16::from_le_bytes([bytes[4], bytes[5]]);
        if bytes[2] == 0 {
            Self::Institution(index)
        } else {
            Self::Bank(index)
        }
    }
}

/// Calls `on_frame` with each whole frame and returns the bytes these take.
#[inline]
pub(super) fn each_frame(bytes: &[u8], mut on_frame: impl FnMut(&[u8])) -> usize {
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + LENGTH_BYTES) {
        let length = usize::from(u16::from_le_bytes([length[0], length[1]])).max(LENGTH_BYTES);
        let Some(frame) = bytes.get(at..at + length) else { break };
        on_frame(frame);
        at += length;
    }
    at
}

/// How both ends of the relay open their drivers.
pub(super) fn driver_options(links: u32) -> DriverOptions {
    DriverOptions {
        connections_max: links,
        receive_bytes: 8 * 1_024,
        // Some for every link: one that finds none waits a turn, and its frames go out in smaller sends.
        receive_buffers: 2_048,
        gather_completions: 4_096,
        send_buffer_bytes: None,
        sqpoll: false,
    }
}

/// Opens a stream for `links` connections.
pub(super) fn stream(backend: BackendChoice, links: u32) -> Result<Stream, RelayError> {
    let wakeup = Arc::new(Wakeup::new().map_err(RelayError::io("eventfd"))?);
    let (driver, _) = open(backend, &driver_options(links), wakeup)?;
    Ok(Stream::new(driver))
}

/// One turn: sends once per connection, takes all that is there (after sleeping until something is, when `sleep` says for
/// how long at most), shows it, and sends again.
#[inline]
pub(super) fn turn<E: StreamEvents>(
    stream: &mut Stream,
    sleep: Option<Duration>,
    events: &mut E,
    outbox: impl Fn(&mut E) -> &mut Outbox,
) -> io::Result<()> {
    stream.flush(outbox(events));
    match sleep {
        Some(limit) => stream.gather_within(limit)?,
        None => stream.gather()?,
    };
    stream.deliver(events);
    stream.flush(outbox(events));
    Ok(())
}

/// A relay that waits for its links.
pub(super) struct Relay {
    stream: Stream,
    address: SocketAddr,
    links: usize,
    spin: bool,
}

/// The relay's whole state.
struct Routes {
    outbox: Outbox,
    institutions: Vec<Connection>,
    banks: Vec<Connection>,
    known: Vec<(Connection, Hello)>,
    open: usize,
    links: usize,
    answer: [u8; ANSWER_BYTES],
}

impl Relay {
    /// Listens for `links` links on loopback; `spin` where it has a core of its own.
    pub(super) fn listen(backend: BackendChoice, links: usize, spin: bool) -> Result<Self, RelayError> {
        let mut stream = stream(backend, links as u32)?;
        let address = stream
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .map_err(RelayError::io("listen"))?;
        Ok(Self {
            stream,
            address,
            links,
            spin,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Relays until the last link has ended.
    pub(super) fn run(mut self) -> Result<(), RelayError> {
        let nowhere = Connection(u32::MAX);
        let mut answer = [0; ANSWER_BYTES];
        answer[..LENGTH_BYTES].copy_from_slice(&(ANSWER_BYTES as u16).to_le_bytes());
        let mut routes = Routes {
            outbox: Outbox::default(),
            institutions: vec![nowhere; self.links],
            banks: vec![nowhere; self.links],
            known: Vec::new(),
            open: 0,
            links: self.links,
            answer,
        };
        let (began, mut seen) = (Instant::now(), false);
        let mut sleep = Some(SLEEP);
        while !seen || routes.open > 0 {
            turn(&mut self.stream, sleep, &mut routes, |routes| &mut routes.outbox).map_err(RelayError::io("relay"))?;
            if routes.open > 0 && !seen {
                seen = true;
                sleep = if self.spin { None } else { sleep };
            }
            if !seen && began.elapsed() > FIRST_LINK_WAIT {
                return Err(RelayError::LinkLost("none came".to_owned()));
            }
        }
        Ok(())
    }
}

impl StreamEvents for Routes {
    fn connected(&mut self, connection: Connection, result: io::Result<()>) {
        if result.is_ok() {
            self.outbox.open(connection);
            self.open += 1;
        }
    }

    #[inline]
    fn received(&mut self, connection: Connection, bytes: &[u8]) -> Option<usize> {
        Some(each_frame(bytes, |frame| self.on_frame(connection, frame)))
    }

    #[inline]
    fn sent(&mut self, connection: Connection, bytes: Vec<u8>) {
        self.outbox.sent(connection, bytes);
    }

    fn closed(&mut self, connection: Connection, _error: Option<io::Error>) {
        self.outbox.clear(connection);
        self.open -= 1;
    }
}

impl Routes {
    #[inline]
    fn on_frame(&mut self, connection: Connection, frame: &[u8]) {
        match frame.len() {
            REQUEST_BYTES => self.outbox.append(self.banks[number(frame, RESPONDER)], frame),
            REPLY_BYTES => {
                self.answer[ID].copy_from_slice(&frame[ID]);
                self.outbox
                    .append(self.institutions[number(frame, ORIGINATOR)], &self.answer);
            }
            _ => self.on_hello(connection, Hello::from_bytes(frame)),
        }
    }

    fn on_hello(&mut self, connection: Connection, hello: Hello) {
        match hello {
            Hello::Institution(index) => self.institutions[index as usize] = connection,
            Hello::Bank(index) => self.banks[index as usize] = connection,
        }
        self.known.push((connection, hello));
        if self.known.len() == self.links {
            for (connection, hello) in &self.known {
                self.outbox.append(*connection, &hello.to_bytes());
            }
        }
    }
}

#[inline]
fn number(frame: &[u8], field: std::ops::Range<usize>) -> usize {
    usize::from(u16::from_le_bytes([frame[field.start], frame[field.start + 1]]))
}

/// The relay's own process: `relay-child BACKEND LINKS [CORE]`. Prints the port it listens on, relays, and ends when its
/// last link has. Spins where it was given a core.
///
/// # Errors
/// Wrong arguments, and faults of its sockets.
pub fn child_main(arguments: &[String]) -> Result<(), RelayError> {
    let wrong = || {
        RelayError::Arguments(format!(
            "usage: {CHILD_COMMAND} BACKEND LINKS [CORE], not {arguments:?}"
        ))
    };
    let [backend, links, core @ ..] = arguments else {
        return Err(wrong());
    };
    let backend = backend.parse().map_err(RelayError::Arguments)?;
    let links = links.parse().map_err(|_| wrong())?;
    let core: Option<usize> = core.first().map(|core| core.parse().map_err(|_| wrong())).transpose()?;
    if let Some(id) = core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let relay = Relay::listen(backend, links, core.is_some())?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", relay.address().port())
        .and_then(|()| stdout.flush())
        .map_err(RelayError::io("stdout"))?;
    relay.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_not_whole_is_left_for_the_next_bytes() {
        let hellos = [Hello::Institution(7), Hello::Bank(300)];
        let bytes: Vec<u8> = hellos.iter().flat_map(|hello| hello.to_bytes()).collect();
        for cut in 0..=bytes.len() {
            let mut seen = Vec::new();
            let consumed = each_frame(&bytes[..cut], |frame| seen.push(Hello::from_bytes(frame)));
            assert_eq!(consumed, cut / HELLO_BYTES * HELLO_BYTES);
            assert_eq!(seen, hellos[..cut / HELLO_BYTES]);
        }
    }

    #[test]
    fn a_length_of_nothing_does_not_stop_the_reader() {
        let mut frames = 0;
        assert_eq!(each_frame(&[0; 8], |_| frames += 1), 8);
        assert_eq!(frames, 4);
    }

    #[test]
    fn wrong_arguments_are_told_with_what_would_be_right() {
        for arguments in [&["uring"][..], &["epoll", "2"], &["mio", "two"], &["mio", "2", "x"]] {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let error = child_main(&arguments).unwrap_err();
            assert!(matches!(error, RelayError::Arguments(_)), "{arguments:?}: {error}");
        }
    }
}
