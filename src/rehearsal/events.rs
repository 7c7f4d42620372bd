//! The last events of a run, kept for the report of a failure, and what is due when.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use super::party::Wake;

/// Events kept.
const KEPT: usize = 200;

/// The last events, as text.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    lines: VecDeque<String>,
    number: u64,
}

impl EventLog {
    /// Notes an event at a time counted from the run's start.
    pub(super) fn note(&mut self, since_start_ns: u64, what: impl FnOnce() -> String) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.number += 1;
        let (seconds, nanos) = (since_start_ns / 1_000_000_000, since_start_ns % 1_000_000_000);
        self.lines
            .push_back(format!("{:>6} {seconds:>6}.{nanos:09} {}", self.number, what()));
    }

    pub(super) fn last(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

/// Something that is due.
#[derive(Debug)]
pub(super) enum Due {
    /// Bytes reach the switch on a line's connection of this epoch.
    ToSwitch { line: usize, epoch: u32, bytes: Vec<u8> },
    /// Bytes reach the participant.
    ToParty { line: usize, epoch: u32, bytes: Vec<u8> },
    /// The participant's end of the connection reaches the switch.
    EndAtSwitch { line: usize, epoch: u32, reset: bool },
    /// The participant notices that the connection is gone.
    GoneAtParty { line: usize, epoch: u32 },
    /// The participant connects.
    Connect { line: usize },
    /// The reader takes more of a send.
    Take { line: usize, epoch: u32 },
    /// A participant asked to be woken.
    Wake { party: usize, wake: Wake },
    /// The next fault is drawn.
    Fault,
    /// Operators give orders.
    Orders,
    /// The switch is started again.
    Start,
    /// An agent that was held goes on.
    GoOn,
    /// The operator looks whether the follower is well.
    OperatorLooks,
    /// There is room for the register and snapshots again.
    FilesHaveRoom,
    /// A crash is planned.
    Crash,
    /// There are receive buffers again.
    Refill,
    /// The switch, told to stop, ends.
    StopInOrder,
    /// Segments can be made again.
    SpaceAgain,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    number: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest; at one time, in the order they were put in.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What is due, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Entry>,
    number: u64,
}

impl Agenda {
    pub(super) fn put(&mut self, at: u64, due: Due) {
        self.number += 1;
        let number = self.number;
        self.heap.push(Entry { at, number, due });
    }

    pub(super) fn next_at(&self) -> u64 {
        self.heap.peek().map_or(u64::MAX, |entry| entry.at)
    }

    pub(super) fn pop_due(&mut self, now: u64) -> Option<Due> {
        if self.next_at() > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.due)
    }
}
