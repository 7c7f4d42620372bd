//! Benchmarks and the report.

pub mod append;
pub mod audit_run;
pub mod bench;
mod history;
pub mod idle;
pub mod journal_run;
pub mod limits;
pub mod machine;
pub mod primitives;
pub mod relay;
pub mod relay_load;
pub mod report;
pub mod restart;
pub mod run;
pub mod settlement_run;
pub mod switch_child;
