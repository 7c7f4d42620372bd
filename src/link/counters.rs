//! What a link agent counts; written by it alone, read by housekeeping.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident: $doc:literal,)+) => {
        /// A link agent's counts.
        #[derive(Debug, Default)]
        pub struct LinkCounters { $(#[doc = $doc] pub $name: AtomicU64,)+ }
    };
}

counters! {
    established: "Links established now.",
    connections: "Connections now.",
    accepted: "Connections accepted.",
    cut: "Links cut by the switch, with a code.",
    requests: "Payment requests taken in.",
    replies: "Replies taken in.",
    refused_at_door: "Requests refused at the door.",
    frames_sent: "Frames handed to the kernel.",
    sends: "Sends.",
    clogged: "Times that requests behind a stuck send went back to dispatch.",
    not_sent: "Requests that could not be sent.",
    system_calls: "System calls made by the driver.",
}

/// Adds to a counter that only the caller writes.
#[inline]
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

/// Takes from a counter that only the caller writes.
#[inline]
pub(super) fn sub(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).saturating_sub(count), Ordering::Relaxed);
}
