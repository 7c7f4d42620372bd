//! Host checks.
