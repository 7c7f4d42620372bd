//! A driver without sockets: its connections lie in memory, and whoever holds the other ends says when bytes arrive, when
//! a send is taken, and when a connection breaks.
//!
//! It keeps the promises of [`Driver`] and knows no policy: chunks, delays, stalls and cuts are those of the holder of
//! [`InMemoryWires`]. A rehearsal steps a link agent over it; nothing in it reads a clock or draws a number.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Backend, BufferGroup, BufferPool, Completion, Connection, Driver, DriverOptions, ReceivePool};

/// The driver's side.
pub struct InMemoryDriver {
    shared: Arc<Mutex<Shared>>,
    pool: Arc<ReceivePool>,
    gather: usize,
}

/// The other ends of an [`InMemoryDriver`]'s connections. Clones hold the same ends.
#[derive(Clone)]
pub struct InMemoryWires {
    shared: Arc<Mutex<Shared>>,
}

/// A connection the driver has closed.
#[derive(Debug)]
pub struct ClosedWire {
    /// Which.
    pub connection: Connection,
    /// What it had been given to send and nobody had taken.
    pub unsent: Vec<u8>,
}

struct Shared {
    ends: Vec<Option<End>>,
    ready: VecDeque<Completion>,
    free: [Vec<u16>; 2],
    listening: bool,
    dry: bool,
    first: usize,
    sends: Vec<(Connection, Vec<u8>)>,
    closed: Vec<ClosedWire>,
    calls: u64,
}

struct End {
    group: BufferGroup,
    receiving: bool,
    inbound: VecDeque<Vec<u8>>,
    sending: Option<Vec<u8>>,
    /// How much of `sending` the other end has taken.
    taken: usize,
    peer: Peer,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    There,
    Ended,
    Reset,
}

impl InMemoryDriver {
    /// A driver and the other ends of its connections.
    ///
    /// # Errors
    /// When the memory of the receive buffers can't be had.
    pub fn new(options: &DriverOptions) -> io::Result<(Self, InMemoryWires)> {
        let pool = Arc::new(ReceivePool::new(options)?);
        let free = [BufferGroup::Requests, BufferGroup::Replies].map(|group| {
            let first = pool.first(group);
            (first..first + pool.per_group()).rev().collect()
        });
        let shared = Arc::new(Mutex::new(Shared {
            ends: (0..options.connections_max).map(|_| None).collect(),
            ready: VecDeque::new(),
            free,
            listening: false,
            dry: false,
            first: 0,
            sends: Vec::new(),
            closed: Vec::new(),
            calls: 0,
        }));
        let driver = Self {
            shared: Arc::clone(&shared),
            pool,
            gather: options.gather_completions.max(1) as usize,
        };
        Ok((driver, InMemoryWires { shared }))
    }

    /// Hands over what one connection has; true when it is gone with that.
    fn collect(&self, shared: &mut Shared, at: usize, completions: &mut Vec<Completion>) {
        let connection = Connection(at as u32);
        let dry = shared.dry;
        let (Some(end), free) = (&mut shared.ends[at], &mut shared.free) else {
            return;
        };
        if end.closed {
            shared.ends[at] = None;
            completions.push(Completion::Closed {
                connection,
                error: None,
            });
            return;
        }
        // A stopped reader notices by a send only, which a peer that is gone answers with a reset.
        let broken = match end.peer {
            Peer::There => false,
            Peer::Ended => !end.receiving && end.sending.is_some(),
            Peer::Reset => end.receiving || end.sending.is_some(),
        };
        if broken {
            shared.ends[at] = None;
            let error = Some(io::ErrorKind::ConnectionReset.into());
            completions.push(Completion::Closed { connection, error });
            return;
        }
        while end.receiving && !dry && completions.len() < self.gather && !end.inbound.is_empty() {
            let Some(buffer) = free[end.group as usize].pop() else {
                break;
            };
            let Some(mut chunk) = end.inbound.pop_front() else {
                break;
            };
            if chunk.len() > self.pool.payload_bytes() {
                end.inbound.push_front(chunk.split_off(self.pool.payload_bytes()));
            }
            // SAFETY: the driver holds the buffer's number, which it just took from the free ones, and gives it away
            // only behind this; the chunk is no longer than a buffer's payload.
            unsafe {
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), self.pool.payload(buffer).as_ptr(), chunk.len());
            }
            completions.push(Completion::Received {
                connection,
                buffer,
                length: chunk.len() as u32,
            });
        }
        if end.peer == Peer::Ended && end.receiving && end.inbound.is_empty() {
            shared.ends[at] = None;
            completions.push(Completion::Closed {
                connection,
                error: None,
            });
        }
    }
}

impl Driver for InMemoryDriver {
    fn backend(&self) -> Backend {
        Backend::InMemory
    }

    fn pool(&self) -> Arc<dyn BufferPool> {
        Arc::clone(&self.pool) as Arc<dyn BufferPool>
    }

    fn listen(&mut self, address: SocketAddr, _shared: bool) -> io::Result<SocketAddr> {
        lock(&self.shared).listening = true;
        Ok(address)
    }

    fn stop_listening(&mut self) {
        lock(&self.shared).listening = false;
    }

    fn connect(&mut self, _address: SocketAddr) -> io::Result<Connection> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let mut shared = lock(&self.shared);
        shared.calls += 1;
        let taken = shared.ready.len().min(self.gather);
        completions.extend(shared.ready.drain(..taken));
        let count = shared.ends.len();
        for step in 0..count {
            if completions.len() >= self.gather {
                break;
            }
            let at = (shared.first + step) % count;
            self.collect(&mut shared, at, completions);
        }
        Ok(())
    }

    /// Nobody moves the other ends while this thread sleeps: the same as [`Driver::poll`].
    fn wait(&mut self, _limit: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.poll(completions)
    }

    fn send(&mut self, connection: Connection, bytes: Vec<u8>) {
        let mut shared = lock(&self.shared);
        let Some(end) = shared.ends[connection.0 as usize].as_mut().filter(|end| !end.closed) else {
            return;
        };
        assert!(
            end.sending.is_none(),
            "connection {} has a send under way",
            connection.0
        );
        let copy = bytes.clone();
        (end.sending, end.taken) = (Some(bytes), 0);
        shared.sends.push((connection, copy));
    }

    fn release(&mut self, buffer: u16) {
        let group = self.pool.group_of(buffer);
        let mut shared = lock(&self.shared);
        assert!(
            !shared.free[group as usize].contains(&buffer),
            "buffer {buffer} was released twice"
        );
        shared.free[group as usize].push(buffer);
    }

    fn set_receiving(&mut self, connection: Connection, receiving: bool) {
        if let Some(end) = &mut lock(&self.shared).ends[connection.0 as usize] {
            end.receiving = receiving;
        }
    }

    fn set_group(&mut self, connection: Connection, group: BufferGroup) {
        if let Some(end) = &mut lock(&self.shared).ends[connection.0 as usize] {
            end.group = group;
        }
    }

    fn close(&mut self, connection: Connection) {
        let mut shared = lock(&self.shared);
        let Some(end) = shared.ends[connection.0 as usize].as_mut().filter(|end| !end.closed) else {
            return;
        };
        end.closed = true;
        end.inbound.clear();
        let taken = std::mem::take(&mut end.taken);
        let unsent = end
            .sending
            .take()
            .map_or_else(Vec::new, |bytes| bytes[taken..].to_vec());
        shared.closed.push(ClosedWire { connection, unsent });
    }

    fn system_calls(&self) -> u64 {
        lock(&self.shared).calls
    }
}

impl InMemoryWires {
    /// Connects; `None` when nobody listens or no connection is free.
    #[must_use]
    pub fn connect(&self) -> Option<Connection> {
        let mut shared = lock(&self.shared);
        if !shared.listening {
            return None;
        }
        let at = shared.ends.iter().position(Option::is_none)?;
        shared.ends[at] = Some(End {
            group: BufferGroup::Requests,
            receiving: true,
            inbound: VecDeque::new(),
            sending: None,
            taken: 0,
            peer: Peer::There,
            closed: false,
        });
        let connection = Connection(at as u32);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        shared.ready.push_back(Completion::Accepted { connection, peer });
        Some(connection)
    }

    /// Bytes arrive at the switch, as one piece that is received as one if a buffer holds it.
    pub fn deliver(&self, connection: Connection, bytes: Vec<u8>) {
        if let Some(end) = self.end_of(&mut lock(&self.shared), connection)
            && end.peer == Peer::There
            && !bytes.is_empty()
        {
            end.inbound.push_back(bytes);
        }
    }

    /// Bytes that arrived and the switch has not received.
    #[must_use]
    pub fn unread(&self, connection: Connection) -> usize {
        let mut shared = lock(&self.shared);
        self.end_of(&mut shared, connection)
            .map_or(0, |end| end.inbound.iter().map(Vec::len).sum())
    }

    /// Takes at most `bytes_max` bytes of the send under way; with its last byte the send is complete.
    #[must_use]
    pub fn take(&self, connection: Connection, bytes_max: usize) -> Vec<u8> {
        let mut shared = lock(&self.shared);
        let Some(end) = self.end_of(&mut shared, connection) else {
            return Vec::new();
        };
        let Some(sending) = &mut end.sending else {
            return Vec::new();
        };
        let from = end.taken;
        let to = sending.len().min(from.saturating_add(bytes_max));
        let taken = sending[from..to].to_vec();
        end.taken = to;
        if to == sending.len()
            && let Some(mut bytes) = end.sending.take()
        {
            bytes.clear();
            shared.ready.push_back(Completion::Sent { connection, bytes });
        }
        taken
    }

    /// The peer ends the connection in order: what it sent before is received first.
    pub fn end(&self, connection: Connection) {
        if let Some(end) = self.end_of(&mut lock(&self.shared), connection)
            && end.peer == Peer::There
        {
            end.peer = Peer::Ended;
        }
    }

    /// The connection breaks: what was not received is lost.
    pub fn reset(&self, connection: Connection) {
        if let Some(end) = self.end_of(&mut lock(&self.shared), connection) {
            end.peer = Peer::Reset;
        }
    }

    /// True when a poll would hand something over: what a driver that sleeps is woken by.
    #[must_use]
    pub fn has_completions(&self) -> bool {
        let shared = lock(&self.shared);
        let has_some = |end: &End| {
            let can_receive = end.receiving && !shared.dry && !shared.free[end.group as usize].is_empty();
            let gone = match end.peer {
                Peer::There => false,
                Peer::Ended => (end.receiving && end.inbound.is_empty()) || (!end.receiving && end.sending.is_some()),
                Peer::Reset => end.receiving || end.sending.is_some(),
            };
            end.closed || gone || (can_receive && !end.inbound.is_empty())
        };
        !shared.ready.is_empty() || shared.ends.iter().flatten().any(has_some)
    }

    /// While `dry`, there is no receive buffer for anybody.
    pub fn set_dry(&self, dry: bool) {
        lock(&self.shared).dry = dry;
    }

    /// From which connection on the next polls look.
    pub fn set_first(&self, first: usize) {
        lock(&self.shared).first = first;
    }

    /// What was handed to `send` since the last call, in order.
    #[must_use]
    pub fn sends(&self) -> Vec<(Connection, Vec<u8>)> {
        std::mem::take(&mut lock(&self.shared).sends)
    }

    /// The connections the switch has closed since the last call.
    #[must_use]
    pub fn closed(&self) -> Vec<ClosedWire> {
        std::mem::take(&mut lock(&self.shared).closed)
    }

    #[allow(clippy::unused_self, reason = "the lock's guard is the caller's")]
    fn end_of<'a>(&self, shared: &'a mut Shared, connection: Connection) -> Option<&'a mut End> {
        shared.ends[connection.0 as usize].as_mut().filter(|end| !end.closed)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::HEADROOM;

    fn pair() -> (InMemoryDriver, InMemoryWires, Connection) {
        let options = DriverOptions {
            connections_max: 2,
            receive_bytes: 8,
            receive_buffers: 2,
            gather_completions: 64,
            send_buffer_bytes: None,
            sqpoll: false,
        };
        let (mut driver, wires) = InMemoryDriver::new(&options).unwrap();
        assert!(wires.connect().is_none(), "nobody listens yet");
        driver
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false)
            .unwrap();
        let connection = wires.connect().unwrap();
        assert!(matches!(poll(&mut driver)[..], [Completion::Accepted { .. }]));
        (driver, wires, connection)
    }

    fn poll(driver: &mut InMemoryDriver) -> Vec<Completion> {
        let mut completions = Vec::new();
        driver.poll(&mut completions).unwrap();
        completions
    }

    #[test]
    fn bytes_come_in_order_and_wait_for_a_buffer() {
        let (mut driver, wires, connection) = pair();
        wires.deliver(connection, (0..20).collect());
        let mut read = Vec::new();
        while read.len() < 20 {
            let completions = poll(&mut driver);
            assert!(!completions.is_empty() && completions.len() <= 2, "two buffers a group");
            for completion in completions {
                let Completion::Received { buffer, length, .. } = completion else {
                    panic!("{completion:?}")
                };
                // SAFETY: this test holds the number.
                let bytes = unsafe { driver.pool().bytes(buffer)[HEADROOM..HEADROOM + length as usize].to_vec() };
                read.extend(bytes);
                driver.release(buffer);
            }
        }
        assert_eq!(read, (0..20).collect::<Vec<u8>>());
    }

    #[test]
    fn a_send_is_complete_with_its_last_byte_and_a_stopped_reader_notices_no_end() {
        let (mut driver, wires, connection) = pair();
        driver.send(connection, vec![7; 10]);
        assert_eq!(wires.take(connection, 4), [7; 4]);
        assert!(poll(&mut driver).is_empty());
        assert_eq!(wires.take(connection, 100), [7; 6]);
        assert!(matches!(poll(&mut driver)[..], [Completion::Sent { .. }]));
        driver.set_receiving(connection, false);
        wires.reset(connection);
        assert!(poll(&mut driver).is_empty());
        driver.set_receiving(connection, true);
        assert!(matches!(
            poll(&mut driver)[..],
            [Completion::Closed { error: Some(_), .. }]
        ));
    }

    #[test]
    fn a_close_leaves_what_was_not_taken_and_frees_the_number_once() {
        let (mut driver, wires, connection) = pair();
        driver.send(connection, vec![1, 2, 3]);
        wires.deliver(connection, vec![9]);
        driver.close(connection);
        assert_eq!(wires.closed()[0].unsent, [1, 2, 3]);
        assert!(matches!(
            poll(&mut driver)[..],
            [Completion::Closed { error: None, .. }]
        ));
        assert!(poll(&mut driver).is_empty());
        assert_eq!(wires.connect(), Some(connection));
    }
}
