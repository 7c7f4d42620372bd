//! Sockets as both backends want them.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;

/// A bound, listening socket and the address it got. With `shared`, other sockets of this user that say so too may listen
/// on the same address, and the kernel spreads connections over them. Accepted connections inherit `send_buffer_bytes`, from
/// their first byte on.
pub(super) fn listener(
    address: SocketAddr,
    shared: bool,
    send_buffer_bytes: Option<u32>,
) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let bound = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, bound))
}

/// A socket that is about to connect to `address`.
pub(super) fn outgoing(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The error of a driver that has all the connections it may have.
pub(super) fn no_connection_free() -> io::Error {
    io::Error::other("no connection is free (connections_max reached)")
}
