//! Dispatch: which link, when, and what could not be sent.
//!
//! Requests go to the least loaded of the bank's links that has credit; without one they wait, at most Tq, and then come
//! back as NotSent, because nothing of them was sent. A link that ends, or clogs because its peer does not read, gives
//! back what it did not send, and a clogged one gets no requests until it is clear. Words and answers go by the link that
//! asked, or by any. Dispatch never changes the ledger: what it could not deliver goes back to the sequencer as an event.

mod agent;
mod links;
mod queue;

pub use agent::{Dispatch, DispatchCounters, DispatchParts};
