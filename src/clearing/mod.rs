//! The clearing engine: a pure function of the journaled events.
