//! Benchmarks and the report.

pub mod limits;
pub mod primitives;
pub mod relay;
pub mod relay_load;
pub mod audit_run;
pub mod machine;
pub mod report;
pub mod run;
pub mod switch_child;
