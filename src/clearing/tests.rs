//! The rules, one claim each, on hand-built events.

mod admission;
mod exceptions;
mod ladder;
mod pushes;
mod refunds;
mod replies;
mod script;
mod windows;
mod words;
