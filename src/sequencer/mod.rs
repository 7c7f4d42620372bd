//! The sequencer: event numbers, the clock, the append position.
