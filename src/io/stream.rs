//! A driver whose received bytes are read at once, on its own thread.
//!
//! The simulator uses a driver this way: it has nobody to hand buffers to, so a [`Stream`] joins what straddles two
//! buffers, shows the bytes, and gives each buffer back before it looks at the next. It owns its driver, so that a
//! buffer's number never leaves it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{BufferPool, Completion, Connection, Driver, HEADROOM};

/// What a [`Stream`]'s owner is told.
pub trait StreamEvents {
    /// A connection is open, or could not be opened.
    fn connected(&mut self, connection: Connection, result: io::Result<()>);

    /// Bytes came, in order, the unread end of the last ones first. Returns how many were read; at most [`HEADROOM`]
    /// may be left unread. `None` closes the connection.
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

    /// As [`Driver::send`].
    #[inline]
    pub fn send(&mut self, connection: Connection, bytes: Vec<u8>) {
        self.driver.send(connection, bytes);
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
        for completion in self.completions.drain(..) {
            match completion {
                // A stream never listens.
                Completion::Accepted { connection, .. } => self.driver.close(connection),
                Completion::Connected { connection, result } => {
                    let slot = connection.0 as usize;
                    if self.tails.len() <= slot {
                        self.tails.resize(slot + 1, Tail::EMPTY);
                    }
                    self.tails[slot] = Tail::EMPTY;
                    events.connected(connection, result);
                }
                Completion::Received {
                    connection,
                    buffer,
                    length,
                } => {
                    let tail = &mut self.tails[connection.0 as usize];
                    let start = HEADROOM - tail.length;
                    if tail.length > 0 {
                        // SAFETY: the driver has just handed this buffer's number to this stream, which alone owns the
                        // driver and releases the buffer below; no reference to the headroom lives.
                        let headroom = unsafe { self.pool.headroom(buffer) };
                        headroom[start..].copy_from_slice(&tail.bytes[..tail.length]);
                        tail.length = 0;
                    }
                    if !tail.closing {
                        // SAFETY: as above; nobody writes to the buffer until it is released below.
                        let whole = unsafe { self.pool.bytes(buffer) };
                        let bytes = &whole[start..HEADROOM + length as usize];
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
                    self.driver.release(buffer);
                }
                Completion::Sent { connection, bytes } => events.sent(connection, bytes),
                Completion::Closed { connection, error } => {
                    self.tails[connection.0 as usize] = Tail::EMPTY;
                    events.closed(connection, error);
                }
            }
        }
    }
}
