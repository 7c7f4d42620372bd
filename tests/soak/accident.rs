//! What happens to the switch in a round.

use clearway::sim::Random;

/// One accident.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Accident {
    /// `kill -9` under load.
    Kill,
    /// SIGTERM under load.
    Stop,
    /// The power goes in the middle of a durable write: of its sectors some are on the disk, some torn, some not.
    PowerCut,
    /// It is killed before one of its first calls on the disk: while it starts, or makes a segment.
    KilledEarly,
    /// The disk refuses a durable write.
    WriteRefused,
    /// The disk takes a part of a durable write.
    WriteShort,
    /// No segment can be made until intake has stopped.
    DiskFull,
    /// A kill, and garbage behind what was written.
    GarbageBehind,
    /// A kill, and a flipped bit below what had been durable.
    Flip,
    /// A kill, and a segment cut short, emptied or lost.
    FileCut,
}

impl Accident {
    pub(crate) const ALL: [Self; 10] = [
        Self::Kill,
        Self::Stop,
        Self::PowerCut,
        Self::KilledEarly,
        Self::WriteRefused,
        Self::WriteShort,
        Self::DiskFull,
        Self::GarbageBehind,
        Self::Flip,
        Self::FileCut,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Stop => "SIGTERM",
            Self::PowerCut => "power cut in a durable write",
            Self::KilledEarly => "kill before a call on the disk",
            Self::WriteRefused => "durable write refused",
            Self::WriteShort => "durable write short",
            Self::DiskFull => "disk full",
            Self::GarbageBehind => "garbage behind the end",
            Self::Flip => "bit flipped below the watermark",
            Self::FileCut => "segment cut, emptied or lost",
        }
    }

    /// Of `rounds`, the first ones bring each accident once, in an order that is drawn; the others what is drawn.
    pub(crate) fn plan(rounds: u64, random: &mut Random) -> Vec<Self> {
        let mut first = Self::ALL.to_vec();
        for at in (1..first.len()).rev() {
            first.swap(at, random.below(at as u64 + 1) as usize);
        }
        let drawn = std::iter::repeat_with(|| {
            // A full disk takes as long as filling some segments does.
            let drawn = Self::ALL[random.below(Self::ALL.len() as u64) as usize];
            if drawn == Self::DiskFull { Self::Kill } else { drawn }
        });
        first.into_iter().chain(drawn).take(rounds as usize).collect()
    }
}
