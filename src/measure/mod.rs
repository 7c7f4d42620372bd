//! Benchmarks and the report.

pub mod audit_run;
pub mod machine;
pub mod report;
pub mod run;
pub mod switch_child;
