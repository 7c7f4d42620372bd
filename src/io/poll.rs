//! The `mio` backend (epoll): for hosts without `io_uring`, and for TCP stacks that take over the epoll interface.
//!
//! One pass over the sockets that are ready, each read until it is drained or no buffer is left; readiness is told once
//! (edge-triggered), so a socket that was not drained is remembered here. A send is written at once, and its rest when the
//! socket is writable again.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::numbers::Numbers;
use super::pool::{GROUPS, ReceivePool};
use super::{Backend, BufferGroup, BufferPool, Completion, Connection, Driver, DriverOptions, DriverWakeup, socket};

const WAKE: Token = Token(usize::MAX - 1);
/// Tokens from here on are listeners; below are connections.
const LISTENERS: usize = 1 << 32;
/// Events taken from the poll at a time.
const EVENTS: usize = 1_024;
/// Reads of one socket in one pass, so that a flooder's turn ends.
const READS_MAX: u32 = 32;
/// How long to leave a listener alone whose accept failed, mostly for want of a file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Slot {
    stream: Option<TcpStream>,
    connecting: bool,
    group: Option<BufferGroup>,
    paused: bool,
    /// The kernel may have bytes for us.
    readable: bool,
    /// The peer's end was told: a short read is no sign of being drained.
    read_closed: bool,
    /// In the queue of sockets to read, or of those that wait for a buffer.
    queued: bool,
    sending: Option<Vec<u8>>,
    sent: usize,
}

/// What became of reading a socket.
enum Drained {
    /// Nothing more until the next event.
    Yes,
    /// There may be more, but no more is taken in this gather.
    NotYet,
    /// No buffer of its group is free.
    Starved,
    /// The connection is over.
    Ended(Option<io::Error>),
}

/// The `mio` driver.
pub(super) struct PollDriver {
    poll: Poll,
    events: Option<Events>,
    pool: Arc<ReceivePool>,
    free_buffers: [Vec<u16>; GROUPS],
    wakeup: DriverWakeup,
    /// The wake-up came since the last wait: the next one must not sleep, even if a poll in between took the event.
    woken: bool,
    gather_completions: usize,
    send_buffer_bytes: Option<u32>,
    slots: Vec<Slot>,
    numbers: Numbers,
    listeners: Vec<TcpListener>,
    accept_waits: bool,
    accept_paused_until: Option<Instant>,
    /// Sockets that may have bytes.
    ready: VecDeque<u32>,
    /// Sockets that have bytes, and no buffer.
    starved: [VecDeque<u32>; GROUPS],
    /// What calls between two gathers brought about.
    pending: Vec<Completion>,
    system_calls: u64,
}

impl PollDriver {
    pub(super) fn open(options: &DriverOptions, wakeup: DriverWakeup) -> io::Result<Self> {
        let poll = Poll::new()?;
        let pool = Arc::new(ReceivePool::new(options)?);
        poll.registry()
            .register(&mut SourceFd(&wakeup.raw_fd()), WAKE, Interest::READABLE)?;
        let free_buffers = [BufferGroup::Requests, BufferGroup::Replies].map(|group| {
            let first = pool.first(group);
            (0..pool.per_group()).rev().map(|index| first + index).collect()
        });
        Ok(Self {
            poll,
            events: Some(Events::with_capacity(EVENTS)),
            free_buffers,
            pool,
            wakeup,
            woken: false,
            gather_completions: options.gather_completions.max(1) as usize,
            send_buffer_bytes: options.send_buffer_bytes,
            slots: (0..options.connections_max).map(|_| Slot::default()).collect(),
            numbers: Numbers::new(options.connections_max),
            listeners: Vec::new(),
            accept_waits: false,
            accept_paused_until: None,
            ready: VecDeque::new(),
            starved: [VecDeque::new(), VecDeque::new()],
            pending: Vec::new(),
            system_calls: 0,
        })
    }

    fn gather(&mut self, limit: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.numbers.begin_gather();
        let full = completions.len() + self.gather_completions;
        self.hand_over(completions);
        self.feed_starved();
        if self.accept_paused_until.is_some_and(|until| Instant::now() >= until) {
            self.accept_paused_until = None;
        }
        let must_not_sleep = self.woken || !self.ready.is_empty() || !completions.is_empty();
        let mut limit = if must_not_sleep { Some(Duration::ZERO) } else { limit };
        if self.accept_waits && self.accept_paused_until.is_none() {
            limit = Some(Duration::ZERO);
        } else if self.accept_paused_until.is_some() {
            limit = Some(limit.map_or(ACCEPT_PAUSE, |limit| limit.min(ACCEPT_PAUSE)));
        }
        self.poll_events(limit, completions)?;
        if self.accept_waits && self.accept_paused_until.is_none() {
            self.accept(completions);
        }
        let mut turns = self.ready.len();
        while turns > 0
            && completions.len() < full
            && let Some(number) = self.ready.pop_front()
        {
            turns -= 1;
            self.read(number, full, completions);
        }
        Ok(())
    }

    fn poll_events(&mut self, limit: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        let Some(mut events) = self.events.take() else {
            return Err(io::Error::other("mio: polled from within a poll"));
        };
        self.system_calls += 1;
        let polled = match self.poll.poll(&mut events, limit) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        };
        if polled.is_ok() {
            for event in &events {
                self.on_event(event, completions);
            }
        }
        self.events = Some(events);
        polled
    }

    fn on_event(&mut self, event: &Event, completions: &mut Vec<Completion>) {
        match event.token() {
            WAKE => {
                self.woken = true;
                self.system_calls += 1;
                self.wakeup.drain();
            }
            Token(token) if token >= LISTENERS => self.accept_waits = true,
            Token(token) => {
                let number = token as u32;
                let slot = &mut self.slots[token];
                if slot.stream.is_none() {
                    return;
                }
                if slot.connecting && (event.is_writable() || event.is_error() || event.is_write_closed()) {
                    self.connected(number, completions);
                }
                if event.is_writable() && self.slots[token].sending.is_some() {
                    self.write(number);
                    self.hand_over(completions);
                }
                let slot = &mut self.slots[token];
                if slot.stream.is_some()
                    && !slot.connecting
                    && (event.is_readable() || event.is_read_closed() || event.is_error())
                {
                    slot.readable = true;
                    slot.read_closed |= event.is_read_closed() || event.is_error();
                    self.enqueue(number);
                }
            }
        }
    }

    /// Puts a socket that may have bytes, and wants them, into the queue.
    fn enqueue(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.readable && !slot.paused && !slot.queued {
            slot.queued = true;
            self.ready.push_back(number);
        }
    }

    fn feed_starved(&mut self) {
        for group in 0..GROUPS {
            let turns = self.free_buffers[group].len().min(self.starved[group].len());
            self.ready.extend(self.starved[group].drain(..turns));
        }
    }

    fn accept(&mut self, completions: &mut Vec<Completion>) {
        self.accept_waits = false;
        for index in 0..self.listeners.len() {
            loop {
                self.system_calls += 1;
                match self.listeners[index].accept() {
                    Ok((stream, peer)) => self.admit(stream, peer, completions),
                    Err(error) => match error.kind() {
                        io::ErrorKind::WouldBlock => break,
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                        // Mostly no descriptor is left; whatever it is, it must not keep the loop busy.
                        _ => {
                            self.accept_waits = true;
                            self.accept_paused_until = Some(Instant::now() + ACCEPT_PAUSE);
                            break;
                        }
                    },
                }
            }
        }
    }

    /// Takes an accepted socket in, or closes it when there is no room.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, completions: &mut Vec<Completion>) {
        self.system_calls += 1;
        if stream.set_nodelay(true).is_err() {
            return;
        }
        if let Ok(number) = self.take_slot(stream, false) {
            completions.push(Completion::Accepted {
                connection: Connection(number),
                peer,
            });
        }
    }

    fn take_slot(&mut self, mut stream: TcpStream, connecting: bool) -> io::Result<u32> {
        let number = self.numbers.take().ok_or_else(socket::no_connection_free)?;
        self.system_calls += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self
            .poll
            .registry()
            .register(&mut stream, Token(number as usize), interest)
        {
            self.numbers.give(number);
            return Err(error);
        }
        self.slots[number as usize] = Slot {
            stream: Some(stream),
            connecting,
            group: Some(BufferGroup::Requests),
            ..Slot::default()
        };
        Ok(number)
    }

    fn connected(&mut self, number: u32, completions: &mut Vec<Completion>) {
        let slot = &mut self.slots[number as usize];
        let Some(stream) = &slot.stream else { return };
        self.system_calls += 2;
        let result = match (stream.take_error(), stream.peer_addr()) {
            (Ok(Some(error)) | Err(error), _) => Err(error),
            (Ok(None), Ok(_)) => Ok(()),
            // Not decided yet.
            (Ok(None), Err(error)) if error.kind() == io::ErrorKind::NotConnected => return,
            (Ok(None), Err(error)) => Err(error),
        };
        slot.connecting = false;
        if result.is_err() {
            self.give_up(number);
        }
        self.pending.push(Completion::Connected {
            connection: Connection(number),
            result,
        });
        self.hand_over(completions);
    }

    fn read(&mut self, number: u32, full: usize, completions: &mut Vec<Completion>) {
        let slot = &mut self.slots[number as usize];
        slot.queued = false;
        let (Some(stream), Some(group)) = (&mut slot.stream, slot.group) else {
            return;
        };
        if slot.paused || !slot.readable {
            return;
        }
        let mut reads = 0;
        let drained = loop {
            if completions.len() >= full || reads == READS_MAX {
                break Drained::NotYet;
            }
            reads += 1;
            let Some(buffer) = self.free_buffers[group as usize].pop() else {
                break Drained::Starved;
            };
            let bytes = self.pool.payload_bytes();
            // SAFETY: the buffer's number was just taken from the free list, so nobody else has a reference into it.
            let payload = unsafe { std::slice::from_raw_parts_mut(self.pool.payload(buffer).as_ptr(), bytes) };
            self.system_calls += 1;
            let result = stream.read(payload);
            if let Ok(length @ 1..) = result {
                completions.push(Completion::Received {
                    connection: Connection(number),
                    buffer,
                    length: length as u32,
                });
                if length < bytes && !slot.read_closed {
                    // A short read of a stream means that it is drained (epoll(7)).
                    break Drained::Yes;
                }
                continue;
            }
            self.free_buffers[group as usize].push(buffer);
            match result {
                Ok(_) => break Drained::Ended(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Drained::Yes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Drained::Ended(Some(error)),
            }
        };
        match drained {
            Drained::Yes => slot.readable = false,
            Drained::NotYet => self.enqueue(number),
            Drained::Starved => {
                slot.queued = true;
                self.starved[group as usize].push_back(number);
            }
            Drained::Ended(error) => {
                self.end(number, error);
                self.hand_over(completions);
            }
        }
    }

    /// Writes as much of the connection's send as the kernel takes now.
    fn write(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        let (Some(stream), Some(bytes)) = (&mut slot.stream, &mut slot.sending) else {
            return;
        };
        while slot.sent < bytes.len() {
            self.system_calls += 1;
            match stream.write(&bytes[slot.sent..]) {
                Ok(written) => slot.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.end(number, Some(error)),
            }
        }
        let mut bytes = std::mem::take(bytes);
        bytes.clear();
        slot.sending = None;
        self.pending.push(Completion::Sent {
            connection: Connection(number),
            bytes,
        });
    }

    /// Ends a connection that was announced.
    fn end(&mut self, number: u32, error: Option<io::Error>) {
        self.give_up(number);
        self.pending.push(Completion::Closed {
            connection: Connection(number),
            error,
        });
    }

    /// Closes the socket; the number is free when the end was handed over.
    fn give_up(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.sending = None;
        if let Some(mut stream) = slot.stream.take() {
            self.system_calls += 3;
            // Both fail only for a socket that is over already.
            let _ = self.poll.registry().deregister(&mut stream);
            let _ = stream.shutdown(Shutdown::Both);
        }
        if std::mem::take(&mut slot.queued) {
            self.ready.retain(|&queued| queued != number);
            self.starved
                .iter_mut()
                .for_each(|queue| queue.retain(|&queued| queued != number));
        }
    }

    /// Hands over what came about; the numbers of connections that ended are free after the next gather began.
    fn hand_over(&mut self, completions: &mut Vec<Completion>) {
        for completion in self.pending.drain(..) {
            if let Completion::Closed { connection, .. }
            | Completion::Connected {
                connection,
                result: Err(_),
            } = &completion
            {
                self.numbers.give(connection.0);
            }
            completions.push(completion);
        }
    }
}

impl Driver for PollDriver {
    fn backend(&self) -> Backend {
        Backend::Mio
    }

    fn pool(&self) -> Arc<dyn BufferPool> {
        self.pool.clone()
    }

    fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<SocketAddr> {
        let (socket, bound) = socket::listener(address, shared, self.send_buffer_bytes)?;
        socket.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(socket.into());
        let token = Token(LISTENERS + self.listeners.len());
        self.poll
            .registry()
            .register(&mut listener, token, Interest::READABLE)?;
        self.listeners.push(listener);
        Ok(bound)
    }

    fn stop_listening(&mut self) {
        // Closing the descriptors takes them out of the poll.
        self.listeners.clear();
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        self.system_calls += 3;
        self.take_slot(stream, true).map(Connection)
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.gather(Some(Duration::ZERO), completions)
    }

    fn wait(&mut self, limit: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        let gathered = self.gather(limit, completions);
        self.woken = false;
        gathered
    }

    fn send(&mut self, connection: Connection, bytes: Vec<u8>) {
        let slot = &mut self.slots[connection.0 as usize];
        if slot.stream.is_none() || slot.connecting {
            return;
        }
        assert!(
            slot.sending.is_none(),
            "a second send on connection {} before the first was done",
            connection.0
        );
        slot.sending = Some(bytes);
        slot.sent = 0;
        self.write(connection.0);
    }

    fn release(&mut self, buffer: u16) {
        let free = &mut self.free_buffers[self.pool.group_of(buffer) as usize];
        assert!(
            free.len() < self.pool.per_group() as usize,
            "buffer {buffer} was released twice"
        );
        free.push(buffer);
    }

    fn set_receiving(&mut self, connection: Connection, receiving: bool) {
        self.slots[connection.0 as usize].paused = !receiving;
        self.enqueue(connection.0);
    }

    fn set_group(&mut self, connection: Connection, group: BufferGroup) {
        let slot = &mut self.slots[connection.0 as usize];
        slot.group = Some(group);
        if slot.queued {
            // It may wait for a buffer of the other group; a second entry in the queue finds nothing to do.
            self.ready.push_back(connection.0);
        }
    }

    fn close(&mut self, connection: Connection) {
        let slot = &mut self.slots[connection.0 as usize];
        if slot.stream.is_none() {
            return;
        }
        if slot.connecting {
            self.give_up(connection.0);
            self.pending.push(Completion::Connected {
                connection,
                result: Err(io::ErrorKind::ConnectionAborted.into()),
            });
        } else {
            self.end(connection.0, None);
        }
    }

    fn system_calls(&self) -> u64 {
        self.system_calls
    }
}
