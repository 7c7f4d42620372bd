//! Real accidents, against the real binary over real sockets: kills under load, floods of bad input, a reader that stops,
//! a kernel that refuses io_uring. Beside each, participants who behave go on paying and keep books of their own.

#[path = "../support/mod.rs"]
mod support;

mod books;
mod disk_full;
mod disk_refuses;
mod first_start;
mod flipped_bits;
mod hostile_peers;
mod kills;
mod places;
mod players;
mod refused_uring;
mod slow_reader;
