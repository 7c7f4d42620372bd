//! The ten invariants by name, and findings that say which of them is broken.

use std::fmt;

use crate::domain::WindowId;

/// What must always hold of a ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Invariant {
    /// Σ net positions per window and currency = 0.
    ZeroSum = 1,
    /// Position = Σ of its payments; opening + in − out ± net = closing.
    Positions = 2,
    /// No admission makes position + reserved exceed the cap.
    Cover = 3,
    /// Every Committed payment is in exactly one window, no other is in any.
    Windows = 4,
    /// Σ reserved = Σ amounts of Reserved and InDoubt.
    Reservations = 5,
    /// Exactly one final answer per id.
    OneAnswer = 6,
    /// Window files: count, sums and hash equal the ledger's.
    Files = 7,
    /// Replaying the journal gives the same state and the same files, byte for byte.
    Replay = 8,
    /// Every expired pull that was sent has a Reversal.
    Reversals = 9,
    /// No link holds more unanswered payments, or is sent more a second, than its contract.
    Contracts = 10,
}

impl Invariant {
    /// All ten, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::ZeroSum,
        Self::Positions,
        Self::Cover,
        Self::Windows,
        Self::Reservations,
        Self::OneAnswer,
        Self::Files,
        Self::Replay,
        Self::Reversals,
        Self::Contracts,
    ];

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::ZeroSum => "the net positions of a window add up to zero",
            Self::Positions => "a position is the sum of its payments; cover is opening + in - out - settled nets",
            Self::Cover => "no admission makes position + reserved exceed the cap",
            Self::Windows => "every committed payment is in exactly one window, no other is in any",
            Self::Reservations => "reserved is the sum of the amounts of open payments",
            Self::OneAnswer => "a payment has exactly one final answer",
            Self::Files => "count, sums and hash of the files are the ledger's",
            Self::Replay => "the journal read again gives the same files",
            Self::Reversals => "every expired pull that was sent has a Reversal",
            Self::Contracts => "no link holds more unanswered payments, or takes more a second, than its contract",
        }
    }

    /// A finding that this one is broken.
    pub(super) fn broken(self, what: String) -> Finding {
        Finding {
            invariant: Some(self),
            ..Finding::from(what)
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}", self.number())
    }
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Finding {
    /// Which invariant it breaks, if one.
    pub invariant: Option<Invariant>,
    /// The file, from the settlement or data directory on.
    pub file: Option<String>,
    /// The participant's scheme code.
    pub participant: Option<String>,
    /// The window.
    pub window: Option<WindowId>,
    /// What it is about, in words.
    pub what: String,
    /// What the journal gives.
    pub journal: Option<String>,
    /// What the file, or the switch, says instead.
    pub told: Option<String>,
}

impl From<String> for Finding {
    fn from(what: String) -> Self {
        Self {
            what,
            ..Self::default()
        }
    }
}

impl Finding {
    /// In a file of the directory that is verified.
    #[must_use]
    pub(super) fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// About a participant.
    #[must_use]
    pub(super) fn of(mut self, participant: impl Into<String>) -> Self {
        self.participant = Some(participant.into());
        self
    }

    /// About a window.
    #[must_use]
    pub(super) fn at(mut self, window: WindowId) -> Self {
        self.window = Some(window);
        self
    }

    /// Both values.
    #[must_use]
    pub(super) fn values(mut self, journal: impl fmt::Display, told: impl fmt::Display) -> Self {
        (self.journal, self.told) = (Some(journal.to_string()), Some(told.to_string()));
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        if let Some(window) = self.window {
            write!(f, "window {window}: ")?;
        }
        if let Some(participant) = &self.participant {
            write!(f, "{participant}: ")?;
        }
        f.write_str(&self.what)?;
        if let (Some(journal), Some(told)) = (&self.journal, &self.told) {
            write!(f, ": the journal gives {journal}, here stands {told}")?;
        }
        Ok(())
    }
}
