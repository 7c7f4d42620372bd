//! The `io_uring` backend.
//!
//! One multishot accept a listener, one multishot recv a connection into the provided buffers of its group, at most one
//! send a connection; sockets are registered files. Every operation that a connection has with the kernel is counted,
//! and its number is free again only when all of them have come back, so a completion never meets a stranger.
//!
//! No `DEFER_TASKRUN`: one `enter` would hand over about twenty completions and leave the rest, and the loop would send
//! tiny segments. `COOP_TASKRUN` with the `TASKRUN` flag hands over all there is, and costs no system call when nothing
//! is there.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::{SockAddr, Socket};

use super::numbers::Numbers;
use super::pool::{GROUPS, ReceivePool};
use super::provided::ProvidedBuffers;
use super::uring_setup::{self, UringError};
use super::uring_slot::{GENERATION_MASK, Listener, Operation, Phase, Receiving, Slot};
use super::{
    Backend, BufferGroup, BufferPool, Completion, Connection, Driver, DriverOptions, DriverWakeup, GATHER_TIME_MAX,
    socket,
};

/// How long to leave a listener alone whose accept failed, mostly for want of a file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// How long [`Drop`] waits for the kernel to let go of all buffers.
const CANCEL_WAIT: Duration = Duration::from_secs(5);
/// The `io_uring` driver.
pub(super) struct UringDriver {
    // The ring comes first: it is dropped before the memory it was given.
    ring: IoUring,
    provided: [ProvidedBuffers; GROUPS],
    pool: Arc<ReceivePool>,
    wakeup: DriverWakeup,
    wake_armed: bool,
    /// The wake-up came since the last wait: the next one must not sleep, even if a poll in between took the event.
    woken: bool,
    enabled: bool,
    gather_completions: usize,
    send_buffer_bytes: Option<u32>,
    slots: Vec<Slot>,
    numbers: Numbers,
    listeners: Vec<Listener>,
    accept_paused_until: Option<Instant>,
    starved: [VecDeque<u32>; GROUPS],
    scratch: Vec<cqueue::Entry>,
    system_calls: u64,
}

impl UringDriver {
    pub(super) fn open(options: &DriverOptions, wakeup: DriverWakeup) -> Result<Self, UringError> {
        let uring_setup::Setup {
            ring,
            enabled,
            connections,
        } = uring_setup::build(options)?;
        let pool = Arc::new(ReceivePool::new(options).map_err(UringError::Memory)?);
        let register = |group| ProvidedBuffers::register(&ring.submitter(), &pool, group).map_err(UringError::Buffers);
        let provided = [register(BufferGroup::Requests)?, register(BufferGroup::Replies)?];
        Ok(Self {
            provided,
            pool,
            wakeup,
            wake_armed: false,
            woken: false,
            enabled,
            gather_completions: options.gather_completions.max(1) as usize,
            send_buffer_bytes: options.send_buffer_bytes,
            slots: (0..connections).map(|_| Slot::free()).collect(),
            numbers: Numbers::new(connections),
            listeners: Vec::new(),
            accept_paused_until: None,
            starved: [VecDeque::new(), VecDeque::new()],
            scratch: Vec::with_capacity(ring.params().cq_entries() as usize),
            system_calls: 0,
            ring,
        })
    }

    /// Puts an entry into the submission queue; a full one is submitted first.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what entries point to stays in place until their completion: sends own their bytes in the slot,
            // connects their address, receives use provided buffers.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // Faults of these come back in `gather`, which can tell them; here only room is needed.
            let _ = self.enable();
            let _ = self.enter();
            if self.ring_is_polled() {
                self.system_calls += 1;
                let _ = self.ring.submitter().squeue_wait();
            }
        }
    }

    /// Lets the kernel take submissions and run what it owes us.
    fn enter(&mut self) -> io::Result<()> {
        self.system_calls += 1;
        match self.ring.submit() {
            Ok(_) => Ok(()),
            Err(error) => transient(error),
        }
    }

    fn enable(&mut self) -> io::Result<()> {
        if !self.enabled {
            // Binds the ring to this thread (SINGLE_ISSUER).
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
            self.system_calls += 1;
        }
        Ok(())
    }

    /// What must happen before the kernel is entered.
    fn begin_gather(&mut self) -> io::Result<()> {
        self.enable()?;
        self.numbers.begin_gather();
        for group in [BufferGroup::Requests, BufferGroup::Replies] {
            self.feed_starved(group);
        }
        if self.accept_paused_until.is_some_and(|until| Instant::now() >= until) {
            self.accept_paused_until = None;
            for listener in 0..self.listeners.len() {
                self.arm_accept(listener);
            }
        }
        Ok(())
    }

    fn feed_starved(&mut self, group: BufferGroup) {
        let queue = group as usize;
        let mut available = self.provided[queue].available();
        while available > 0
            && let Some(number) = self.starved[queue].pop_front()
        {
            let slot = &mut self.slots[number as usize];
            if slot.receive == Receiving::Starved && slot.group == group {
                slot.receive = Receiving::Idle;
                self.arm_receive(number);
                available -= 1;
            }
        }
    }

    fn gather(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let limit = completions.len() + self.gather_completions;
        let mut began = None;
        loop {
            let polled = self.ring_is_polled();
            let submission = self.ring.submission();
            let needs_enter = if polled {
                !submission.is_empty() && submission.need_wakeup() || submission.cq_overflow()
            } else {
                !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
            };
            drop(submission);
            if needs_enter {
                self.enter()?;
            }
            let room = limit.saturating_sub(completions.len());
            self.scratch.extend(self.ring.completion().take(room));
            if self.scratch.is_empty() {
                return Ok(());
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            for completion in scratch.drain(..) {
                self.on_completion(&completion, completions)?;
            }
            self.scratch = scratch;
            let now = Instant::now();
            if completions.len() >= limit || now.duration_since(*began.get_or_insert(now)) > GATHER_TIME_MAX {
                return Ok(());
            }
        }
    }

    fn on_completion(&mut self, completion: &cqueue::Entry, completions: &mut Vec<Completion>) -> io::Result<()> {
        let (user_data, result, flags) = (completion.user_data(), completion.result(), completion.flags());
        let number = user_data as u32;
        let Some(operation) = Operation::from_user_data(user_data) else {
            return Err(io::Error::other(format!(
                "io_uring: completion with unknown user data {user_data:#x}"
            )));
        };
        match operation {
            Operation::Wake => {
                self.wake_armed = false;
                self.woken = true;
                self.system_calls += 1;
                self.wakeup.drain();
                return Ok(());
            }
            Operation::Accept => {
                self.on_accept(number as usize, result, flags, completions);
                return Ok(());
            }
            Operation::CancelAccept => return Ok(()),
            Operation::Connect | Operation::Receive | Operation::Send | Operation::Cancel => {}
        }
        let slot = &mut self.slots[number as usize];
        assert_eq!(
            slot.generation,
            (user_data >> 32) as u32 & GENERATION_MASK,
            "a completion of connection {number} outlived it"
        );
        let more = operation == Operation::Receive && cqueue::more(flags);
        if !more {
            slot.outstanding -= 1;
        }
        match operation {
            Operation::Connect => self.on_connect(number, result, completions),
            Operation::Receive => self.on_receive(number, result, flags, completions),
            Operation::Send => self.on_send(number, result, completions),
            Operation::Accept | Operation::Cancel | Operation::CancelAccept | Operation::Wake => {}
        }
        let slot = &self.slots[number as usize];
        if slot.phase == Phase::Closing && slot.outstanding == 0 {
            self.finish(number, completions);
        }
        Ok(())
    }

    fn arm_accept(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        if let Some(socket) = &listener.socket
            && !listener.armed
            && !listener.stopped
        {
            listener.armed = true;
            let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(Operation::Accept.user_data(0, index as u32));
            self.push(&entry);
        }
    }

    fn on_accept(&mut self, index: usize, result: i32, flags: u32, completions: &mut Vec<Completion>) {
        if !cqueue::more(flags) {
            let listener = &mut self.listeners[index];
            listener.armed = false;
            if listener.stopped {
                listener.socket = None;
            }
        }
        if result >= 0 {
            // SAFETY: the kernel gave us this descriptor a moment ago; nobody else has it.
            let socket = unsafe { Socket::from_raw_fd(result) };
            if !self.listeners[index].stopped {
                self.admit(socket, completions);
            }
        } else if !matches!(-result, libc::ECANCELED | libc::ECONNABORTED) {
            // Mostly no descriptor is left; whatever it is, it must not keep the loop busy.
            self.accept_paused_until = Some(Instant::now() + ACCEPT_PAUSE);
        }
        if self.accept_paused_until.is_none() {
            self.arm_accept(index);
        }
    }

    /// Takes an accepted socket in, or closes it when there is no room.
    fn admit(&mut self, socket: Socket, completions: &mut Vec<Completion>) {
        self.system_calls += 2;
        let prepared = socket.set_tcp_nodelay(true).and_then(|()| socket.peer_addr());
        let Some(peer) = prepared.ok().and_then(|peer| peer.as_socket()) else {
            return;
        };
        let Ok(number) = self.take_slot(socket, Phase::Open) else {
            return;
        };
        self.slots[number as usize].announced = true;
        completions.push(Completion::Accepted {
            connection: Connection(number),
            peer,
        });
        self.arm_receive(number);
    }

    fn take_slot(&mut self, socket: Socket, phase: Phase) -> io::Result<u32> {
        let number = self.numbers.take().ok_or_else(socket::no_connection_free)?;
        self.system_calls += 1;
        if let Err(error) = self
            .ring
            .submitter()
            .register_files_update(number, &[socket.as_raw_fd()])
        {
            self.numbers.give(number);
            return Err(error);
        }
        let slot = &mut self.slots[number as usize];
        *slot = Slot {
            phase,
            generation: (slot.generation + 1) & GENERATION_MASK,
            socket: Some(socket),
            ..Slot::free()
        };
        Ok(number)
    }

    fn on_connect(&mut self, number: u32, result: i32, completions: &mut Vec<Completion>) {
        let slot = &mut self.slots[number as usize];
        slot.address = None;
        if slot.phase != Phase::Connecting {
            return;
        }
        if result < 0 {
            self.begin_close(number, Some(io::Error::from_raw_os_error(-result)));
            return;
        }
        slot.phase = Phase::Open;
        slot.announced = true;
        completions.push(Completion::Connected {
            connection: Connection(number),
            result: Ok(()),
        });
        self.arm_receive(number);
    }

    fn arm_receive(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.phase != Phase::Open || !slot.wants_receive || slot.receive != Receiving::Idle {
            return;
        }
        slot.receive = Receiving::Armed;
        slot.outstanding += 1;
        let entry = opcode::RecvMulti::new(Fixed(number), slot.group as u16)
            .build()
            .user_data(Operation::Receive.user_data(slot.generation, number));
        self.push(&entry);
    }

    /// Takes the multishot receive back; it is armed again, if still wanted, when its last completion has come.
    fn disarm_receive(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        match slot.receive {
            Receiving::Armed => {
                slot.receive = Receiving::Cancelling;
                slot.outstanding += 1;
                let receive = Operation::Receive.user_data(slot.generation, number);
                let entry = opcode::AsyncCancel::new(receive)
                    .build()
                    .user_data(Operation::Cancel.user_data(slot.generation, number));
                self.push(&entry);
            }
            Receiving::Starved => slot.receive = Receiving::Idle,
            Receiving::Idle | Receiving::Cancelling => {}
        }
    }

    fn on_receive(&mut self, number: u32, result: i32, flags: u32, completions: &mut Vec<Completion>) {
        let slot = &mut self.slots[number as usize];
        if !cqueue::more(flags) {
            slot.receive = Receiving::Idle;
        }
        if let Some(buffer) = cqueue::buffer_select(flags) {
            let group = self.pool.group_of(buffer) as usize;
            self.provided[group].taken();
            if result > 0 && slot.phase == Phase::Open {
                completions.push(Completion::Received {
                    connection: Connection(number),
                    buffer,
                    length: result as u32,
                });
            } else {
                self.provided[group].give(&self.pool, buffer);
            }
        }
        match -result {
            0 => self.begin_close(number, None),
            libc::ENOBUFS => {
                if slot.phase == Phase::Open && slot.receive == Receiving::Idle && slot.wants_receive {
                    slot.receive = Receiving::Starved;
                    self.starved[slot.group as usize].push_back(number);
                }
            }
            negative if negative < 0 => {}
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            error => self.begin_close(number, Some(io::Error::from_raw_os_error(error))),
        }
        self.arm_receive(number);
    }

    fn push_send(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        let Some(bytes) = &slot.sending else { return };
        let rest = &bytes[slot.sent..];
        slot.outstanding += 1;
        let entry = opcode::Send::new(Fixed(number), rest.as_ptr(), rest.len().min(i32::MAX as usize) as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(Operation::Send.user_data(slot.generation, number));
        self.push(&entry);
    }

    fn on_send(&mut self, number: u32, result: i32, completions: &mut Vec<Completion>) {
        let slot = &mut self.slots[number as usize];
        if slot.phase != Phase::Open {
            return;
        }
        match result {
            0.. => slot.sent += result as usize,
            _ if matches!(-result, libc::EINTR | libc::EAGAIN) => {}
            _ => {
                self.begin_close(number, Some(io::Error::from_raw_os_error(-result)));
                return;
            }
        }
        if slot.sending.as_ref().is_some_and(|bytes| slot.sent < bytes.len()) {
            self.push_send(number);
        } else if let Some(mut bytes) = slot.sending.take() {
            bytes.clear();
            completions.push(Completion::Sent {
                connection: Connection(number),
                bytes,
            });
        }
    }

    /// Takes everything of a connection back from the kernel; what was submitted before is still tried first, in order.
    fn begin_close(&mut self, number: u32, error: Option<io::Error>) {
        let slot = &mut self.slots[number as usize];
        match slot.phase {
            Phase::Free | Phase::Closing => return,
            Phase::Connecting | Phase::Open => {}
        }
        slot.phase = Phase::Closing;
        slot.error = error;
        slot.outstanding += 1;
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fixed(number)).all())
            .build()
            .user_data(Operation::Cancel.user_data(slot.generation, number));
        self.push(&entry);
    }

    /// The kernel has nothing of this connection any more.
    fn finish(&mut self, number: u32, completions: &mut Vec<Completion>) {
        let slot = &mut self.slots[number as usize];
        let socket = slot.socket.take();
        let error = slot.error.take();
        let announced = slot.announced;
        slot.phase = Phase::Free;
        slot.sending = None;
        if let Some(socket) = socket {
            self.system_calls += 3;
            // Fails when the peer has reset the connection, which is over then in any case.
            let _ = socket.shutdown(std::net::Shutdown::Both);
            // Fails only for a bad table or slot, which `take_slot` would have met.
            let _ = self.ring.submitter().register_files_update(number, &[-1]);
        }
        self.numbers.give(number);
        let connection = Connection(number);
        completions.push(if announced {
            Completion::Closed { connection, error }
        } else {
            let result = Err(error.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()));
            Completion::Connected { connection, result }
        });
    }

    fn ring_is_polled(&self) -> bool {
        self.ring.params().is_setup_sqpoll()
    }

    /// True when completions can be had without sleeping.
    fn is_ready(&mut self) -> bool {
        let submission = self.ring.submission();
        let kernel_owes = submission.taskrun() || submission.cq_overflow();
        drop(submission);
        kernel_owes || !self.ring.completion().is_empty()
    }
}

impl Driver for UringDriver {
    fn backend(&self) -> Backend {
        Backend::Uring
    }

    fn pool(&self) -> Arc<dyn BufferPool> {
        self.pool.clone()
    }

    fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<SocketAddr> {
        let (socket, bound) = socket::listener(address, shared, self.send_buffer_bytes)?;
        self.listeners.push(Listener {
            socket: Some(socket),
            armed: false,
            stopped: false,
        });
        self.arm_accept(self.listeners.len() - 1);
        Ok(bound)
    }

    fn stop_listening(&mut self) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].armed {
                let entry = opcode::AsyncCancel::new(Operation::Accept.user_data(0, index as u32))
                    .build()
                    .user_data(Operation::CancelAccept.user_data(0, index as u32));
                self.push(&entry);
            }
            let listener = &mut self.listeners[index];
            listener.stopped = true;
            if let Some(socket) = &listener.socket {
                // Nobody must wait in the backlog of a socket that accepts no more; fails only if it is shut down already.
                self.system_calls += 1;
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
            if !listener.armed {
                listener.socket = None;
            }
        }
    }

    fn connect(&mut self, address: SocketAddr) -> io::Result<Connection> {
        let socket = socket::outgoing(address)?;
        let number = self.take_slot(socket, Phase::Connecting)?;
        let slot = &mut self.slots[number as usize];
        let address = &**slot.address.insert(Box::new(SockAddr::from(address)));
        slot.outstanding += 1;
        let entry = opcode::Connect::new(Fixed(number), address.as_ptr().cast(), address.len())
            .build()
            .user_data(Operation::Connect.user_data(slot.generation, number));
        self.push(&entry);
        Ok(Connection(number))
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.begin_gather()?;
        self.gather(completions)
    }

    fn wait(&mut self, limit: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.begin_gather()?;
        if !self.wake_armed {
            self.wake_armed = true;
            let entry = opcode::PollAdd::new(Fd(self.wakeup.raw_fd()), libc::POLLIN as u32)
                .build()
                .user_data(Operation::Wake.user_data(0, 0));
            self.push(&entry);
        }
        if !self.woken && !self.is_ready() {
            let limit = match (limit, self.accept_paused_until) {
                (Some(limit), Some(_)) => Some(limit.min(ACCEPT_PAUSE)),
                (None, Some(_)) => Some(ACCEPT_PAUSE),
                (limit, None) => limit,
            };
            self.system_calls += 1;
            let slept = match limit.map(Timespec::from) {
                Some(timespec) => {
                    let arguments = SubmitArgs::new().timespec(&timespec);
                    self.ring.submitter().submit_with_args(1, &arguments)
                }
                None => self.ring.submit_and_wait(1),
            };
            slept.map(|_| ()).or_else(transient)?;
        }
        let gathered = self.gather(completions);
        self.woken = false;
        gathered
    }

    fn send(&mut self, connection: Connection, bytes: Vec<u8>) {
        let slot = &mut self.slots[connection.0 as usize];
        if slot.phase != Phase::Open {
            return;
        }
        assert!(
            slot.sending.is_none(),
            "a second send on connection {} before the first was done",
            connection.0
        );
        slot.sending = Some(bytes);
        slot.sent = 0;
        self.push_send(connection.0);
    }

    fn release(&mut self, buffer: u16) {
        self.provided[self.pool.group_of(buffer) as usize].give(&self.pool, buffer);
    }

    fn set_receiving(&mut self, connection: Connection, receiving: bool) {
        let slot = &mut self.slots[connection.0 as usize];
        if slot.wants_receive == receiving || slot.phase == Phase::Free {
            return;
        }
        slot.wants_receive = receiving;
        if receiving {
            self.arm_receive(connection.0);
        } else {
            self.disarm_receive(connection.0);
        }
    }

    fn set_group(&mut self, connection: Connection, group: BufferGroup) {
        let slot = &mut self.slots[connection.0 as usize];
        if slot.group == group || slot.phase == Phase::Free {
            return;
        }
        slot.group = group;
        self.disarm_receive(connection.0);
        self.arm_receive(connection.0);
    }

    fn close(&mut self, connection: Connection) {
        self.begin_close(connection.0, None);
    }

    fn system_calls(&self) -> u64 {
        self.system_calls
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        for socket in self.slots.iter().filter_map(|slot| slot.socket.as_ref()) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        if !self.enabled {
            // Nothing was ever submitted.
            return;
        }
        let wait = Timespec::from(CANCEL_WAIT);
        let cancelled = self
            .ring
            .submitter()
            .register_sync_cancel(Some(wait), CancelBuilder::any());
        if cancelled.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            // The kernel may still write into buffers or read from sends (another thread than the ring's drops it):
            // their memory is never given back.
            std::mem::forget(self.pool.clone());
            self.slots.drain(..).for_each(std::mem::forget);
        }
    }
}

/// Passes what only means "look again".
fn transient(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
        _ => Err(error),
    }
}
