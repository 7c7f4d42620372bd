//! A driver whose received bytes are read at once, on its own thread: what the simulator and the relay use.
//!
//! A [`Stream`] joins what straddles two buffers, shows the bytes, and gives each buffer back before it looks at the
//! next. It owns its driver, so that a buffer's number never leaves it. What is to be sent collects in an [`Outbox`],
//! which whoever reads the bytes holds: one send a connection and round, and one under way at a time. Memory is kept and
//! used again, so a steady load allocates nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{BufferPool, Completion, Connection, Driver, HEADROOM};

/// What a [`Stream`]'s owner is told.
pub trait StreamEvents {
    /// A connection is open (accepted or connected), or could not be opened.
    fn connected(&mut self, connection: Connection, result: io::Result<()>);

    /// Bytes came, in order, the unread end of the last ones first. Returns how many were read; at most [`HEADROOM`]
    /// may be left unread. `None` closes the connection, and so do more than that.
    fn received(&mut self, connection: Connection, bytes: &[u8]) -> Option<usize>;

    /// The one send in flight is with the kernel; its buffer comes back cleared.
    fn sent(&mut self, connection: Connection, bytes: Vec<u8>);

    /// The connection is gone.
    fn closed(&mut self, connection: Connection, error: Option<io::Error>);
}

/// A driver and the unread ends of its connections.
pub struct Stream {
    driver: Box<dyn Driver>,
    pool: Arc<dyn BufferPool>,
    tails: Vec<Tail>,
    completions: Vec<Completion>,
}

#[derive(Clone)]
struct Tail {
    length: usize,
    closing: bool,
    bytes: [u8; HEADROOM],
}

impl Tail {
    const EMPTY: Self = Self {
        length: 0,
        closing: false,
        bytes: [0; HEADROOM],
    };
}

impl Stream {
    /// Takes the driver over.
    #[must_use]
    pub fn new(driver: Box<dyn Driver>) -> Self {
        let pool = driver.pool();
        Self {
            driver,
            pool,
            tails: Vec::new(),
            completions: Vec::with_capacity(4096),
        }
    }

    /// As [`Driver::connect`].
    ///
    /// # Errors
    /// As [`Driver::connect`].
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<Connection> {
        self.driver.connect(address)
    }

    /// Begins to accept on `address`; gives the bound one.
    ///
    /// # Errors
    /// As [`Driver::listen`].
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.driver.listen(address, false)
    }

    /// As [`Driver::send`].
    #[inline]
    pub fn send(&mut self, connection: Connection, bytes: Vec<u8>) {
        self.driver.send(connection, bytes);
    }

    /// Sends what an outbox holds, once per connection.
    #[inline]
    pub fn flush(&mut self, outbox: &mut Outbox) {
        while let Some((connection, bytes)) = outbox.next_send() {
            self.driver.send(connection, bytes);
        }
    }

    /// As [`Driver::close`].
    pub fn close(&mut self, connection: Connection) {
        self.driver.close(connection);
    }

    /// As [`Driver::system_calls`].
    #[must_use]
    pub fn system_calls(&self) -> u64 {
        self.driver.system_calls()
    }

    /// Takes what is there, without waiting; says how much. [`Stream::deliver`] hands it over.
    ///
    /// # Errors
    /// As [`Driver::poll`].
    pub fn gather(&mut self) -> io::Result<usize> {
        self.driver.poll(&mut self.completions)?;
        Ok(self.completions.len())
    }

    /// As [`Stream::gather`], but sleeps up to `limit` when nothing is there.
    ///
    /// # Errors
    /// As [`Driver::wait`].
    pub fn gather_within(&mut self, limit: Duration) -> io::Result<usize> {
        self.driver.wait(Some(limit), &mut self.completions)?;
        Ok(self.completions.len())
    }

    /// Hands over what was gathered and gives the receive buffers back.
    pub fn deliver(&mut self, events: &mut impl StreamEvents) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { connection, .. } => {
                    self.open(connection);
                    events.connected(connection, Ok(()));
                }
                Completion::Connected { connection, result } => {
                    self.open(connection);
                    events.connected(connection, result);
                }
                Completion::Received {
                    connection,
                    buffer,
                    length,
                } => {
                    self.show(connection, buffer, length as usize, events);
                    self.driver.release(buffer);
                }
                Completion::Sent { connection, bytes } => events.sent(connection, bytes),
                Completion::Closed { connection, error } => {
                    self.open(connection);
                    events.closed(connection, error);
                }
            }
        }
        self.completions = completions;
    }

    /// The connection's number begins anew.
    fn open(&mut self, connection: Connection) {
        let slot = connection.0 as usize;
        if self.tails.len() <= slot {
            self.tails.resize(slot + 1, Tail::EMPTY);
        }
        let tail = &mut self.tails[slot];
        tail.length = 0;
        tail.closing = false;
    }

    #[inline]
    fn show(&mut self, connection: Connection, buffer: u16, length: usize, events: &mut impl StreamEvents) {
        let tail = &mut self.tails[connection.0 as usize];
        if tail.closing {
            return;
        }
        let start = HEADROOM - tail.length;
        // SAFETY: the driver has just handed this buffer's number to this stream, which alone owns the driver and
        // releases the buffer after this call; the mutable reference to the headroom ends before the shared one to all
        // of it begins.
        let bytes = unsafe {
            if tail.length > 0 {
                self.pool.headroom(buffer)[start..].copy_from_slice(&tail.bytes[..tail.length]);
            }
            &self.pool.bytes(buffer)[start..HEADROOM + length]
        };
        let rest = events.received(connection, bytes).map(|read| &bytes[read..]);
        match rest {
            Some(rest) if rest.len() <= HEADROOM => {
                tail.bytes[..rest.len()].copy_from_slice(rest);
                tail.length = rest.len();
            }
            Some(_) | None => {
                tail.closing = true;
                self.driver.close(connection);
            }
        }
    }
}

/// What goes out at the end of a round, by connection.
#[derive(Default, Debug)]
pub struct Outbox {
    links: Vec<Outgoing>,
    /// Connections with something to send and no send under way.
    dirty: Vec<u32>,
}

#[derive(Default, Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    /// The emptied buffer of the last send.
    spare: Vec<u8>,
    sending: bool,
    dirty: bool,
}

impl Outbox {
    /// A connection's number begins anew, with nothing to send.
    pub fn open(&mut self, connection: Connection) {
        let slot = connection.0 as usize;
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, Outgoing::default);
        }
        let link = &mut self.links[slot];
        link.bytes.clear();
        link.sending = false;
    }

    /// Adds bytes to what an open connection sends next.
    ///
    /// # Panics
    /// When the connection was never [opened](Self::open).
    #[inline]
    pub fn append(&mut self, connection: Connection, bytes: &[u8]) {
        self.links[connection.0 as usize].bytes.extend_from_slice(bytes);
        self.mark(connection.0);
    }

    /// Forgets what a connection has not sent yet.
    pub fn clear(&mut self, connection: Connection) {
        if let Some(link) = self.links.get_mut(connection.0 as usize) {
            link.bytes.clear();
        }
    }

    /// A send is with the kernel, as [`StreamEvents::sent`] says.
    #[inline]
    pub fn sent(&mut self, connection: Connection, bytes: Vec<u8>) {
        let link = &mut self.links[connection.0 as usize];
        link.spare = bytes;
        link.sending = false;
        self.mark(connection.0);
    }

    /// The next connection's bytes; its send is under way from now on. What is appended meanwhile waits for its end.
    #[inline]
    pub fn next_send(&mut self) -> Option<(Connection, Vec<u8>)> {
        while let Some(number) = self.dirty.pop() {
            let link = &mut self.links[number as usize];
            link.dirty = false;
            if !link.bytes.is_empty() && !link.sending {
                link.sending = true;
                let bytes = std::mem::replace(&mut link.bytes, std::mem::take(&mut link.spare));
                return Some((Connection(number), bytes));
            }
        }
        None
    }

    #[inline]
    fn mark(&mut self, number: u32) {
        let link = &mut self.links[number as usize];
        if !link.dirty && !link.sending && !link.bytes.is_empty() {
            link.dirty = true;
            self.dirty.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Wakeup;
    use crate::io::{BackendChoice, DriverOptions, open};
    use std::io::{Read, Write};
    use std::net::TcpStream;

    const UNIT_BYTES: usize = 100;

    fn stream(backend: BackendChoice) -> (Stream, TcpStream) {
        let options = DriverOptions {
            connections_max: 4,
            receive_bytes: 64,
            receive_buffers: 4,
            gather_completions: 64,
            send_buffer_bytes: None,
            sqpoll: false,
        };
        let (driver, _) = open(backend, &options, Arc::new(Wakeup::new().unwrap())).unwrap();
        let mut stream = Stream::new(driver);
        let address = stream.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        (stream, TcpStream::connect(address).unwrap())
    }

    /// Sends back whole units, and says what it saw.
    #[derive(Default)]
    struct Echo {
        outbox: Outbox,
        units: u8,
        ended: bool,
        /// Reads nothing.
        deaf: bool,
    }

    impl StreamEvents for Echo {
        fn connected(&mut self, connection: Connection, result: io::Result<()>) {
            result.unwrap();
            self.outbox.open(connection);
        }

        fn received(&mut self, connection: Connection, bytes: &[u8]) -> Option<usize> {
            if self.deaf {
                return Some(0);
            }
            let whole = bytes.len() / UNIT_BYTES * UNIT_BYTES;
            for unit in bytes[..whole].chunks(UNIT_BYTES) {
                let number = self.units;
                assert!(
                    unit.iter().all(|&byte| byte == number),
                    "unit {number} has a seam: {unit:?}"
                );
                self.units += 1;
                self.outbox.append(connection, unit);
            }
            Some(whole)
        }

        fn sent(&mut self, connection: Connection, bytes: Vec<u8>) {
            self.outbox.sent(connection, bytes);
        }

        fn closed(&mut self, _connection: Connection, _error: Option<io::Error>) {
            self.ended = true;
        }
    }

    impl Echo {
        fn turn(&mut self, stream: &mut Stream, limit: Duration) {
            stream.gather_within(limit).unwrap();
            stream.deliver(self);
            stream.flush(&mut self.outbox);
        }
    }

    #[test]
    fn units_that_straddle_buffers_are_shown_whole_and_echoed_in_order() {
        for backend in [BackendChoice::Uring, BackendChoice::Mio] {
            let (mut stream, mut peer) = stream(backend);
            let mut echo = Echo::default();
            let sent: Vec<u8> = (0..UNIT_BYTES * 50).map(|at| (at / UNIT_BYTES) as u8).collect();
            peer.write_all(&sent).unwrap();
            while echo.units < 50 {
                echo.turn(&mut stream, Duration::from_secs(1));
            }
            let read = std::thread::spawn(move || {
                let mut read = vec![0; UNIT_BYTES * 50];
                peer.read_exact(&mut read).unwrap();
                read
            });
            while !read.is_finished() {
                echo.turn(&mut stream, Duration::from_millis(10));
            }
            assert!(read.join().unwrap() == sent, "{backend}: the echo differs");
        }
    }

    #[test]
    fn a_reader_that_leaves_more_than_the_headroom_holds_loses_the_connection() {
        for backend in [BackendChoice::Uring, BackendChoice::Mio] {
            let (mut stream, mut peer) = stream(backend);
            let mut echo = Echo {
                deaf: true,
                ..Echo::default()
            };
            peer.write_all(&[1; HEADROOM + 1]).unwrap();
            while !echo.ended {
                echo.turn(&mut stream, Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn what_is_appended_during_a_send_waits_for_its_end() {
        let (mut outbox, connection) = (Outbox::default(), Connection(2));
        outbox.open(connection);
        outbox.append(connection, b"one");
        let (_, mut bytes) = outbox.next_send().unwrap();
        assert_eq!(bytes, b"one");
        outbox.append(connection, b"two");
        assert!(outbox.next_send().is_none());
        bytes.clear();
        outbox.sent(connection, bytes);
        assert_eq!(outbox.next_send(), Some((connection, b"two".to_vec())));
        outbox.append(connection, b"lost with the connection");
        outbox.open(connection);
        assert!(outbox.next_send().is_none());
    }
}
