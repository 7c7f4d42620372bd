//! Drivers: io_uring and mio behind one trait.
//!
//! A driver owns sockets and receive buffers; it knows bytes, not frames. One thread drives it. Each receive buffer has
//! [`HEADROOM`] bytes before the place where the kernel writes, so that the reader can put the unfinished end of the
//! last buffer in front of the new bytes and read on without a seam.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::Wakeup;

mod choice;
mod in_memory;
mod numbers;
mod poll;
mod pool;
mod provided;
mod share;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod uring;
mod uring_setup;
mod uring_slot;
mod write_back;

pub use choice::{BackendChoice, OpenError, open};
pub use in_memory::{ClosedWire, InMemoryDriver, InMemoryWires};
pub use pool::ReceivePool;
pub use share::BufferShare;
pub use stream::{Outbox, Stream, StreamEvents};
pub use uring_setup::UringError;
pub use write_back::{start_write_back, sync_file_system};

/// Bytes in front of each receive buffer that belong to the reader.
pub const HEADROOM: usize = 256;

/// The longest time that completions are gathered before they are handed over.
const GATHER_TIME_MAX: Duration = Duration::from_micros(100);

/// A connection's number within its driver; dense, used again after [`Completion::Closed`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Connection(pub u32);

/// Which pool a connection receives into. Two pools, so that one group can't starve the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum BufferGroup {
    /// Links that send requests, and links not yet known.
    Requests = 0,
    /// Links that send replies.
    Replies = 1,
}

/// Which backend a driver is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// `io-uring`.
    Uring,
    /// `mio` (epoll).
    Mio,
    /// Connections in memory, for rehearsals.
    InMemory,
}

/// What happened on a socket.
#[derive(Debug)]
pub enum Completion {
    /// A listener has a new connection; it receives already.
    Accepted {
        /// The new connection.
        connection: Connection,
        /// The peer.
        peer: SocketAddr,
    },
    /// A connection that [`Driver::connect`] began is open and receives, or failed (then its number is free again).
    Connected {
        /// The connection.
        connection: Connection,
        /// What came of it.
        result: io::Result<()>,
    },
    /// Bytes came. They lie at `HEADROOM..HEADROOM + length` of the buffer, which is the reader's until it is released.
    Received {
        /// On which connection.
        connection: Connection,
        /// The buffer, within the driver's pool.
        buffer: u16,
        /// How many bytes.
        length: u32,
    },
    /// All bytes of the send are with the kernel; the emptied buffer comes back to be filled again.
    Sent {
        /// On which connection.
        connection: Connection,
        /// The buffer, cleared.
        bytes: Vec<u8>,
    },
    /// The connection is gone (peer closed, reset, [`Driver::close`]); nothing more comes with this number until it is
    /// given again. Comes exactly once for each accepted or connected connection, after all its other completions.
    Closed {
        /// Which connection.
        connection: Connection,
        /// `None` = closed in order by the peer or by us.
        error: Option<io::Error>,
    },
}

/// How a driver is set up.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Most connections at a time; more are accepted and closed at once.
    pub connections_max: u32,
    /// Bytes the kernel may write into one receive buffer.
    pub receive_bytes: u32,
    /// Receive buffers in each of the two groups; a power of two. Two or more for each link of a group keep a flood going:
    /// a link that finds none waits until one is released, and what it sends then is cut smaller.
    pub receive_buffers: u16,
    /// Completions gathered at most before they are handed over, so that a flood can't keep the loop from sending.
    pub gather_completions: u32,
    /// What the kernel keeps of one connection's unsent bytes, its own bookkeeping included, bytes; `None` = as much as it
    /// sees fit, which grows with the connection.
    pub send_buffer_bytes: Option<u32>,
    /// Kernel polling thread (io_uring only): needs a core of its own.
    pub sqpoll: bool,
}

/// The receive buffers of one driver, readable and (by their holder) writable from other threads.
///
/// A buffer belongs to whoever holds its number: the driver until it hands out [`Completion::Received`], then the reader
/// and those it passes the number to, until [`Driver::release`].
pub trait BufferPool: Send + Sync {
    /// The whole buffer, headroom included.
    ///
    /// # Safety
    /// The caller holds the buffer's number, and nobody writes to it meanwhile.
    unsafe fn bytes(&self, buffer: u16) -> &[u8];

    /// The headroom, to put the unfinished end of the last buffer in.
    ///
    /// # Safety
    /// The caller alone holds the buffer's number, and no reference from `bytes` to its headroom lives.
    #[allow(clippy::mut_from_ref, reason = "the buffer's number is the capability")]
    unsafe fn headroom(&self, buffer: u16) -> &mut [u8];
}

/// A set of sockets and its event loop.
pub trait Driver: Send {
    /// Which backend this is.
    fn backend(&self) -> Backend;

    /// The receive buffers.
    fn pool(&self) -> Arc<dyn BufferPool>;

    /// Begins to accept on `address`; gives the bound address (port 0 = any). With `shared`, other drivers of this user may
    /// listen on it too, and the kernel spreads connections over them.
    ///
    /// # Errors
    /// As `bind` and `listen`.
    fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<SocketAddr>;

    /// Stops accepting; connections stay.
    fn stop_listening(&mut self);

    /// Begins to connect; ends with [`Completion::Connected`].
    ///
    /// # Errors
    /// When no connection is free or no socket can be had.
    fn connect(&mut self, address: SocketAddr) -> io::Result<Connection>;

    /// Takes all completions that are there (bounded by `gather_completions`) without waiting, and appends them to
    /// `completions`. Submits what was asked for since the last call.
    ///
    /// # Errors
    /// Faults of the ring or poll itself, never of one connection.
    fn poll(&mut self, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// Sleeps until a completion is there, the wake-up the driver was made with is written to, or `limit` has passed;
    /// then as `poll`.
    ///
    /// # Errors
    /// As `poll`.
    fn wait(&mut self, limit: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// Sends all of `bytes`; one send at a time on a connection, which the caller sees to. Ends with
    /// [`Completion::Sent`], or with [`Completion::Closed`]. A closed connection's bytes are dropped.
    fn send(&mut self, connection: Connection, bytes: Vec<u8>);

    /// Gives a receive buffer back.
    fn release(&mut self, buffer: u16);

    /// Stops receiving on a connection (bytes wait in the kernel, the peer's window closes), or goes on. While it is
    /// stopped a peer that ends or resets the connection is noticed only by a send.
    fn set_receiving(&mut self, connection: Connection, receiving: bool);

    /// Receives into the other pool from now on (bytes in flight may still come in the old one).
    fn set_group(&mut self, connection: Connection, group: BufferGroup);

    /// Closes a connection; what was handed to `send` before is still sent as far as the kernel takes it at once. Bytes
    /// that come after this call are not handed over.
    fn close(&mut self, connection: Connection);

    /// System calls made so far.
    fn system_calls(&self) -> u64;
}

/// The wake-up a driver sleeps on, among its sockets.
pub type DriverWakeup = Arc<Wakeup>;
