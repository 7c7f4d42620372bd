//! Simulated institutions and banks, with books of their own.
