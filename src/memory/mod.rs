//! Large arrays in huge pages, and prefetch.
