//! Byte streams over a driver, for users that consume bytes where they lie and are done with them: load and relays.
//!
//! Received bytes are shown without a seam: what a call left over of the last buffer is put in front of the next one.
//! What is appended for a connection during a turn goes out in one send at the turn's end, or joins the next when a send
//! is still under way. Memory is kept and used again, so a steady load allocates nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{BufferPool, Completion, Connection, Driver, HEADROOM};

/// What happened on a connection.
#[derive(Debug)]
pub enum StreamEvent<'a> {
    /// It is open (accepted or connected).
    Opened,
    /// It could not be connected.
    Refused(io::Error),
    /// All bytes that came and were not consumed yet.
    Bytes(&'a [u8]),
    /// It is gone.
    Ended(Option<io::Error>),
}

/// What goes out at the end of a turn.
#[derive(Debug)]
pub struct Outbox {
    links: Vec<Outgoing>,
    dirty: Vec<u32>,
    closing: Vec<Connection>,
}

#[derive(Default, Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    dirty: bool,
}

impl Outbox {
    /// Adds bytes to what a connection sends next.
    #[inline]
    pub fn append(&mut self, connection: Connection, bytes: &[u8]) {
        let link = &mut self.links[connection.0 as usize];
        link.bytes.extend_from_slice(bytes);
        self.mark(connection.0);
    }

    /// Closes a connection at the end of the turn, after its bytes.
    pub fn close(&mut self, connection: Connection) {
        self.closing.push(connection);
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

/// A driver with a byte stream for each connection.
pub struct Streams {
    driver: Box<dyn Driver>,
    pool: Arc<dyn BufferPool>,
    /// The unconsumed end of each connection's bytes, at most [`HEADROOM`].
    rest: Vec<Vec<u8>>,
    outbox: Outbox,
    completions: Vec<Completion>,
}

impl Streams {
    /// Streams for up to `connections_max` connections, which is what the driver was opened with.
    #[must_use]
    pub fn new(driver: Box<dyn Driver>, connections_max: u32) -> Self {
        Self {
            pool: driver.pool(),
            driver,
            rest: (0..connections_max).map(|_| Vec::new()).collect(),
            outbox: Outbox {
                links: (0..connections_max).map(|_| Outgoing::default()).collect(),
                dirty: Vec::new(),
                closing: Vec::new(),
            },
            completions: Vec::new(),
        }
    }

    /// The driver, to listen and connect with.
    pub fn driver(&mut self) -> &mut dyn Driver {
        &mut *self.driver
    }

    /// What goes out at the end of the next turn.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// One turn: takes all that is there (after sleeping until something is, when `sleep` says for how long at most),
    /// shows it, then sends once per connection. `on_event` returns how many of the bytes it was shown it consumed (0 for
    /// other events). Returns how many events there were.
    ///
    /// # Errors
    /// Faults of the driver; and `InvalidData` when more than [`HEADROOM`] bytes are left unconsumed.
    pub fn turn(
        &mut self,
        sleep: Option<Duration>,
        mut on_event: impl FnMut(&mut Outbox, Connection, StreamEvent<'_>) -> usize,
    ) -> io::Result<usize> {
        let mut completions = std::mem::take(&mut self.completions);
        self.flush();
        match sleep {
            Some(limit) => self.driver.wait(Some(limit), &mut completions)?,
            None => self.driver.poll(&mut completions)?,
        }
        let count = completions.len();
        for completion in completions.drain(..) {
            match completion {
                Completion::Received {
                    connection,
                    buffer,
                    length,
                } => {
                    let result = self.show(connection, buffer, length as usize, &mut on_event);
                    self.driver.release(buffer);
                    result?;
                }
                Completion::Sent { connection, bytes } => {
                    let link = &mut self.outbox.links[connection.0 as usize];
                    link.spare = bytes;
                    link.sending = false;
                    self.outbox.mark(connection.0);
                }
                Completion::Accepted { connection, .. } => {
                    self.open(connection);
                    on_event(&mut self.outbox, connection, StreamEvent::Opened);
                }
                Completion::Connected { connection, result } => {
                    self.open(connection);
                    let event = match result {
                        Ok(()) => StreamEvent::Opened,
                        Err(error) => StreamEvent::Refused(error),
                    };
                    on_event(&mut self.outbox, connection, event);
                }
                Completion::Closed { connection, error } => {
                    on_event(&mut self.outbox, connection, StreamEvent::Ended(error));
                    self.outbox.links[connection.0 as usize].bytes.clear();
                }
            }
        }
        self.completions = completions;
        self.flush();
        Ok(count)
    }

    fn open(&mut self, connection: Connection) {
        self.rest[connection.0 as usize].clear();
        let link = &mut self.outbox.links[connection.0 as usize];
        link.bytes.clear();
        link.sending = false;
    }

    fn show(
        &mut self,
        connection: Connection,
        buffer: u16,
        length: usize,
        on_event: &mut impl FnMut(&mut Outbox, Connection, StreamEvent<'_>) -> usize,
    ) -> io::Result<()> {
        let rest = &mut self.rest[connection.0 as usize];
        let begin = HEADROOM - rest.len();
        // SAFETY: the driver gave us this buffer, it is released after this call, and the mutable reference to its
        // headroom ends before the shared one to all of it begins.
        let bytes = unsafe {
            if !rest.is_empty() {
                self.pool.headroom(buffer)[begin..].copy_from_slice(rest);
            }
            &self.pool.bytes(buffer)[begin..HEADROOM + length]
        };
        let consumed = on_event(&mut self.outbox, connection, StreamEvent::Bytes(bytes));
        let left = &bytes[consumed..];
        rest.clear();
        if left.len() > HEADROOM {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} bytes of connection {} were left over", left.len(), connection.0),
            ));
        }
        rest.extend_from_slice(left);
        Ok(())
    }

    fn flush(&mut self) {
        for number in self.outbox.dirty.drain(..) {
            let link = &mut self.outbox.links[number as usize];
            link.dirty = false;
            if !link.bytes.is_empty() {
                link.sending = true;
                let bytes = std::mem::replace(&mut link.bytes, std::mem::take(&mut link.spare));
                self.driver.send(Connection(number), bytes);
            }
        }
        for connection in self.outbox.closing.drain(..) {
            self.driver.close(connection);
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

    fn streams(backend: BackendChoice) -> (Streams, TcpStream) {
        let options = DriverOptions {
            connections_max: 4,
            receive_bytes: 64,
            receive_buffers: 4,
            gather_completions: 64,
            sqpoll: false,
        };
        let (driver, _) = open(backend, &options, Arc::new(Wakeup::new().unwrap())).unwrap();
        let mut streams = Streams::new(driver, options.connections_max);
        let address = streams.driver().listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        (streams, TcpStream::connect(address).unwrap())
    }

    #[test]
    fn units_that_straddle_buffers_are_shown_whole_and_echoed_in_order() {
        for backend in [BackendChoice::Uring, BackendChoice::Mio] {
            let (mut streams, mut peer) = streams(backend);
            let sent: Vec<u8> = (0..UNIT_BYTES * 50).map(|at| (at / UNIT_BYTES) as u8).collect();
            peer.write_all(&sent).unwrap();
            let mut units = 0;
            while units < 50 {
                streams
                    .turn(Some(Duration::from_secs(1)), |outbox, connection, event| match event {
                        StreamEvent::Bytes(bytes) => {
                            let whole = bytes.len() / UNIT_BYTES * UNIT_BYTES;
                            for unit in bytes[..whole].chunks(UNIT_BYTES) {
                                assert!(
                                    unit.iter().all(|&byte| byte == units),
                                    "unit {units} has a seam: {unit:?}"
                                );
                                units += 1;
                                outbox.append(connection, unit);
                            }
                            whole
                        }
                        StreamEvent::Opened => 0,
                        StreamEvent::Refused(_) | StreamEvent::Ended(_) => panic!("{event:?}"),
                    })
                    .unwrap();
            }
            let echo = std::thread::spawn(move || {
                let mut echo = vec![0; UNIT_BYTES * 50];
                peer.read_exact(&mut echo).unwrap();
                echo
            });
            while !echo.is_finished() {
                streams.turn(Some(Duration::from_millis(10)), |_, _, _| 0).unwrap();
            }
            assert!(echo.join().unwrap() == sent, "{backend}: the echo differs");
        }
    }

    #[test]
    fn more_left_over_than_the_headroom_holds_is_an_error() {
        let (mut streams, mut peer) = streams(BackendChoice::Auto);
        peer.write_all(&[1; HEADROOM + 1]).unwrap();
        let error = loop {
            if let Err(error) = streams.turn(Some(Duration::from_secs(1)), |_, _, _| 0) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
