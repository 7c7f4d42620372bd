//! The rules, one claim each, on hand-built events.

mod admission;
mod alarms;
mod exceptions;
mod ladder;
mod model;
mod orders;
mod pushes;
mod refunds;
mod replies;
mod residency;
mod saved;
mod script;
mod windows;
mod words;
