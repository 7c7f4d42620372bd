//! The rules, one claim each, on hand-built events.

mod admission;
mod ladder;
mod model;
mod replies;
mod script;
mod windows;
mod words;
