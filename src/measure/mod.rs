//! Benchmarks and the report.
