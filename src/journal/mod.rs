//! The journal: the truth of every cent.
