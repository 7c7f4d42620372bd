//! What the `io_uring` driver keeps of each connection, and how a completion finds it again.

use std::io;

use socket2::{SockAddr, Socket};

use super::BufferGroup;

/// Bits of the user data that hold a connection's generation.
pub(super) const GENERATION_MASK: u32 = 0x00FF_FFFF;

/// What an operation's completion is about: the upper eight bits of its user data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Operation {
    Accept = 1,
    Connect = 2,
    Receive = 3,
    Send = 4,
    Cancel = 5,
    CancelAccept = 6,
    Wake = 7,
}

impl Operation {
    pub(super) const fn from_user_data(user_data: u64) -> Option<Self> {
        match (user_data >> 56) as u8 {
            1 => Some(Self::Accept),
            2 => Some(Self::Connect),
            3 => Some(Self::Receive),
            4 => Some(Self::Send),
            5 => Some(Self::Cancel),
            6 => Some(Self::CancelAccept),
            7 => Some(Self::Wake),
            _ => None,
        }
    }

    /// `operation (8) │ generation (24) │ connection or listener (32)`
    pub(super) const fn user_data(self, generation: u32, number: u32) -> u64 {
        ((self as u64) << 56) | ((generation as u64) << 32) | number as u64
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Free,
    Connecting,
    Open,
    /// Everything the kernel has of this connection is being taken back.
    Closing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    Idle,
    Armed,
    /// Cancelled, the last completion not seen yet.
    Cancelling,
    /// Waits for a buffer of its group.
    Starved,
}

pub(super) struct Slot {
    pub(super) phase: Phase,
    /// True once `Accepted` or `Connected` was handed over: then the end is told as `Closed`.
    pub(super) announced: bool,
    pub(super) generation: u32,
    pub(super) socket: Option<Socket>,
    /// Where to connect to; the kernel may read it until the connect is submitted.
    pub(super) address: Option<Box<SockAddr>>,
    pub(super) group: BufferGroup,
    pub(super) wants_receive: bool,
    pub(super) receive: Receiving,
    pub(super) sending: Option<Vec<u8>>,
    pub(super) sent: usize,
    /// Completions still to come.
    pub(super) outstanding: u32,
    pub(super) error: Option<io::Error>,
}

impl Slot {
    pub(super) fn free() -> Self {
        Self {
            phase: Phase::Free,
            announced: false,
            generation: 0,
            socket: None,
            address: None,
            group: BufferGroup::Requests,
            wants_receive: true,
            receive: Receiving::Idle,
            sending: None,
            sent: 0,
            outstanding: 0,
            error: None,
        }
    }
}

pub(super) struct Listener {
    /// Kept until the last completion of its accept, so that no entry names a descriptor that was closed.
    pub(super) socket: Option<Socket>,
    pub(super) armed: bool,
    pub(super) stopped: bool,
}
