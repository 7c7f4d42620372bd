//! Benchmarks and the report.

pub mod limits;
pub mod primitives;
pub mod relay;
pub mod relay_load;
