//! A rehearsal: the whole switch, its links, its disk and its clock in one thread, and one seed decides everything.
//!
//! The stages are the real ones, put together where the daemon puts them together, and stepped one duty cycle at a time
//! in an order that the seed draws. Around them stand a few institutions and banks that speak the real session bytes and
//! remember what they were told across the switch's crashes. Lines lose, delay, cut up and stall what goes over them; the
//! machine stops at any boundary between duty cycles and inside durable writes, whose sectors are then kept, dropped or
//! torn; time jumps; the wall clock steps. When the faults stop, everything must come to rest, and then every book must
//! agree with every other: the witness's, the participants', the auditor's, and the engine's own by replay.
//!
//! ```text
//!  parties ── lines ──▶ InMemoryDriver ▶ link │ sequencer │ clearing │ dispatch │ syncer │ housekeeping ▶ Disk ▶ files
//!     ▲         │                          └──────── stepped by the world, in the seed's order ────────┘
//!     └─────────┴─ every byte the switch hands to a line is shown to the witness
//! ```
//! The same seed gives the same run, byte for byte: see [`Report::digest`].

mod bank;
mod closing;
mod disk;
mod events;
mod faults;
mod files;
mod institution;
mod last_round;
mod life;
mod line;
mod operator;
mod orders;
mod party;
mod plan;
mod plant;
mod stepping;
#[cfg(test)]
mod tests;
mod witness;
mod world;

pub use plant::Plant;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::Plan;
use world::World;

/// What one seed's run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// BLAKE3 over all bytes on all lines, in order, and the ledger's last state hash.
    pub digest: [u8; 32],
    /// What happened in it.
    pub counts: Counts,
}

macro_rules! counts {
    ($($name:ident: $doc:literal,)+) => {
        /// What happened in a run; sums over runs.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counts { $(#[doc = $doc] pub $name: u64,)+ }

        impl Counts {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)+ }

            /// Name and value, in order.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name),)+] }
        }
    };
}

counts! {
    steps: "Duty cycles.",
    simulated_s: "Seconds of simulated time.",
    payments: "Payments that institutions made.",
    committed: "Payments that committed.",
    declined: "Payments that were declined.",
    expired: "Payments that expired.",
    rejected: "Payments that were rejected.",
    events: "Events in the journal.",
    words: "Words told, each counted once.",
    words_again: "Words told again.",
    reversals: "Reversals.",
    notices: "Final notices.",
    crashes: "Crashes between two duty cycles.",
    crashes_in_write: "Crashes inside a durable write.",
    writes_failed: "Durable writes that the disk refused.",
    stops: "Stops in order.",
    strangers: "Connections of nobody.",
    cuts: "Connections that the network broke.",
    connections: "Connections made.",
    jumps: "Jumps of time.",
    wall_steps: "Steps of the wall clock.",
    lies: "Replies and requests that no honest participant sends.",
    orders: "Orders that operators gave.",
    orders_journaled: "Orders that reached the journal.",
    cover_brought_in: "Accounts that approved orders brought cover.",
    parked: "Events that waited for the register.",
    ends_while_parked: "Crashes and stops while an event waited for the register.",
    days_sealed: "Days that were sealed.",
    look_ups: "Look-ups that the follower answered, those asked again after a start among them.",
    register_answers: "Inquiries and words that were answered out of the register.",
    snapshots: "Snapshots taken.",
    starts_from_snapshot: "Starts from a snapshot.",
    crashes_in_file: "Crashes while a run or a snapshot was written, named or removed.",
    files_full: "Times that there was no room for the register and snapshots.",
    files_spoiled: "Runs and snapshots that went bad, were cut or lost.",
    registers_moved_away: "Times that the operator had the register and the snapshots made anew.",
    starts_fallen_back: "Starts that could not use the newest snapshot and took an older one, or the whole journal.",
}

/// A run that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that gives it again.
    pub seed: u64,
    /// What does not hold.
    pub what: String,
    /// The last events before it.
    pub events: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} fails: {}", self.seed, self.what)?;
        writeln!(f, "the last {} events:", self.events.len())?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

/// Rehearses what `seed` draws.
///
/// # Errors
/// What did not hold, with the events before it.
pub fn rehearse(seed: u64) -> Result<Report, Box<Failure>> {
    rehearse_with(seed, None)
}

/// The same with a planted fault, which must be found: the proof that the checks can fail.
///
/// # Errors
/// As [`rehearse`].
pub fn rehearse_with(seed: u64, plant: Option<Plant>) -> Result<Report, Box<Failure>> {
    #[cfg(test)]
    let _planted = plant::Inside::plant(plant);
    let failure = |what: String, events: Vec<String>| Box::new(Failure { seed, what, events });
    let quiet = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(quiet, || {
        let world = World::new(Plan::draw(seed, plant));
        let mut world = world.map_err(|error| failure(error, Vec::new()))?;
        let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
        match outcome {
            Ok(Ok(())) => Ok(Report {
                seed,
                digest: world.digest(),
                counts: world.counts(),
            }),
            Ok(Err(what)) => Err(failure(what, world.events())),
            Err(panic) => Err(failure(
                format!("a stage panicked: {}", text_of(&*panic)),
                world.events(),
            )),
        }
    })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "without words".to_owned())
}
