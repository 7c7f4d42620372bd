//! The words of the scheme: money, identifiers, codes, kinds, states, time.
//!
//! Floor 0. Nothing here performs I/O or reads a clock; every type is a plain value whose wire and journal form is
//! fixed, so that each stage, the auditor and a bank's own code mean the same thing by the same bytes.

mod code;
mod id;
mod kind;
mod money;
mod state;
mod terms;
mod time;

pub use code::{Code, Retry};
pub use id::{LinkId, ParticipantIndex, PaymentId, PaymentSlot, SchemeCode, WindowId};
pub use kind::{BindStep, Direction, Kind, Scene};
pub use money::{Amount, Currency, Position};
pub use state::{PaymentState, WindowState};
pub use terms::{CurrencyTerms, LinkContract, ParticipantTerms, Role, SchemeTerms};
pub use time::{BusinessDate, MILLISECOND, NANOS_PER_SECOND, SECOND, UtcNanos};
