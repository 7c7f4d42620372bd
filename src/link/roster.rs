//! Who may sign on now, and on what terms: changed while the switch runs, read without a lock.

use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};

use super::agent::IntakeRates;
use crate::config::{Directory, DirectoryEntry};
use crate::domain::ParticipantIndex;

/// The directory in force, and the rates of everybody in it.
#[derive(Debug)]
pub struct Roster {
    current: ArcSwap<Directory>,
    /// Held by whoever changes it; nobody who reads it waits.
    changing: Mutex<()>,
    rates: Arc<[IntakeRates]>,
}

impl Roster {
    /// So many participants may join while the switch runs: what stages keep by participant has room for them from the start.
    pub const JOINING_MAX: usize = 1_024;

    /// The roster at the start.
    #[must_use]
    pub fn new(directory: Directory) -> Self {
        let rates = IntakeRates::of(&directory, Self::room_for(directory.participants.len()));
        Self {
            current: ArcSwap::from_pointee(directory),
            changing: Mutex::default(),
            rates,
        }
    }

    /// How many participants stages have room for, where there are so many at the start.
    #[must_use]
    pub fn room_for(participants: usize) -> usize {
        (participants + Self::JOINING_MAX).min(usize::from(u16::MAX))
    }

    /// How many participants there is room for in this run.
    #[must_use]
    pub fn room(&self) -> usize {
        self.rates.len()
    }

    /// The directory in force.
    #[must_use]
    pub fn current(&self) -> Guard<Arc<Directory>> {
        self.current.load()
    }

    /// What each participant may send a second.
    #[must_use]
    pub fn rates(&self) -> &Arc<[IntakeRates]> {
        &self.rates
    }

    /// Changes a participant's entry, or takes in the next one: `change` is given the entry in force, if there is one. Rates
    /// hold from now on, all else from the next sign-on on. False where the number is neither one that is known nor the next,
    /// or where nothing is to be changed.
    pub fn put(
        &self,
        participant: ParticipantIndex,
        change: impl FnOnce(Option<DirectoryEntry>) -> Option<DirectoryEntry>,
    ) -> bool {
        let _alone = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut directory = Directory::clone(&self.current.load());
        let index = participant.index();
        if index > directory.participants.len() || index >= self.room() {
            return false;
        }
        let Some(entry) = change(directory.participants.get(index).cloned()) else {
            return false;
        };
        self.rates[index].set(&entry.terms.contract);
        match directory.participants.get_mut(index) {
            Some(known) => *known = entry,
            None => directory.participants.push(entry),
        }
        directory.scheme.participant_count = directory.participants.len() as u32;
        self.current.store(Arc::new(directory));
        true
    }

    /// The entry in force of one participant.
    #[must_use]
    pub fn entry(&self, participant: ParticipantIndex) -> Option<DirectoryEntry> {
        self.current.load().get(participant).cloned()
    }
}
