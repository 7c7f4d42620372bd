//! Clearway: the clearing switch of a retail-payment scheme.
//!
//! This is the map of the house. A room imports only from lower floors.
//!
//! | floor | room | what lives there |
//! |---|---|---|
//! | 5 | `main.rs`, [`cli`] | commands, thin |
//! | 4 | [`switch`], [`housekeeping`] | puts agents on cores as the profile says; the cold thread |
//! | 4 | [`sim`], [`measure`], [`doctor`] | simulated participants with books of their own; `clearway bench`; host checks |
//! | 4 | [`rehearsal`] | the whole switch in one thread: links, disk, clock and faults drawn from a seed; `clearway sim` |
//! | 3 | [`link`], [`sequencer`], [`dispatch`], [`follower`], [`settlement`], [`audit`] | the stages; windows' and days' files; the auditor, which imports floors 0 and 1 only |
//! | 2½ | [`snapshot`] | the ledger on disk: where a start begins |
//! | 2 | [`clearing`] | engine, payment, participant, cover, window, timer, duplicates, outbox |
//! | 1 | [`journal`], [`register`], [`io`], [`agent`], [`config`] | the log; what became of every payment; drivers; duty cycle, idle, rings, pinning; settings |
//! | 0 | [`wire`], [`domain`], [`memory`] | frames, events, hand-offs; ids, money, codes, time; huge-page arrays |

pub mod agent;
pub mod audit;
pub mod clearing;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod doctor;
pub mod domain;
pub mod follower;
pub mod housekeeping;
pub mod io;
pub mod journal;
pub mod link;
pub mod measure;
pub mod memory;
pub mod register;
pub mod rehearsal;
pub mod sequencer;
pub mod settlement;
pub mod sim;
pub mod snapshot;
pub mod switch;
pub mod wire;
