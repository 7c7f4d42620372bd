//! Which segments of the journal may go, when it has grown past what the settings let it keep.
//!
//! A segment goes only when nobody needs it any more: it is archived, chained, below the older of the two snapshots that
//! are kept and below what the day register was built from. If that holds more than the bound, the bound gives way: the
//! journal grows on, and operators are told who holds it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Below which journal positions others need nothing any more. 0, where all begin, is: everything is needed. Each moves
/// forward only. Where snapshots stand is in the journal's superblock.
#[derive(Debug, Default)]
pub struct RetentionFloors {
    register: AtomicU64,
}

impl RetentionFloors {
    /// The day register holds, on stable storage, all that the journal before `position` says.
    pub fn set_register(&self, position: u64) {
        self.register.fetch_max(position, Ordering::AcqRel);
    }
}

/// Who needs a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Holder {
    /// It is not archived yet.
    Archive,
    /// It is not chained yet.
    Chain,
    /// Recovery may begin before it ends.
    Snapshots,
    /// The day register was not built from it yet.
    Register,
    /// It is the active one, or close to it.
    LiveTail,
}

impl Holder {
    /// The same for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Chain => "chain",
            Self::Snapshots => "snapshots",
            Self::Register => "register",
            Self::LiveTail => "live_tail",
        }
    }

    /// What to tell operators.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Archive => "the oldest segment is not archived yet",
            Self::Chain => "the oldest segment is not chained yet",
            Self::Snapshots => "a start may still need the oldest segment: no two snapshots stand behind it",
            Self::Register => "the day register does not hold what the oldest segment says yet",
            Self::LiveTail => "what is kept is not more than the live end of the journal",
        }
    }
}

/// What there is, and how far each of those who need it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holdings {
    /// The length of a segment, bytes.
    pub(super) segment_bytes: u64,
    /// The oldest segment on disk.
    pub(super) oldest: u64,
    /// Segment files on disk, prepared ones included.
    pub(super) files: u64,
    /// Segments below this one are archived.
    pub(super) archived_to: u64,
    /// The position up to which the journal is chained.
    pub(super) chained_to: u64,
    /// Where the older of the two newest snapshots stands; 0 while there are not two.
    pub(super) snapshots_from: u64,
    /// The end of what clearing has applied.
    pub(super) live: u64,
}

/// What retention comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retirement {
    /// Segments below this one need not be kept, and shall not.
    pub(super) below: u64,
    /// Whether some of those must be removed now; else they wait to be used again.
    pub(super) remove: bool,
    /// Who keeps the bound from being kept.
    pub(super) held_by: Option<Holder>,
}

impl Holdings {
    /// Which segments go, for at most `keep_bytes` to stay. One of those that stay shall be there to be used again, so that
    /// the journal goes on in a circle of files that were allocated once.
    pub(super) fn retire(&self, floors: &RetentionFloors, keep_bytes: u64) -> Retirement {
        let excess = (self.files * self.segment_bytes).saturating_sub(keep_bytes);
        let wanted = self.oldest + excess.div_ceil(self.segment_bytes);
        let spare = u64::from((self.files + 1) * self.segment_bytes > keep_bytes);
        let whole = |position: u64| position / self.segment_bytes;
        let guards = [
            (self.archived_to, Holder::Archive),
            (whole(self.chained_to), Holder::Chain),
            (whole(self.snapshots_from), Holder::Snapshots),
            (whole(floors.register.load(Ordering::Acquire)), Holder::Register),
            // A start writes again what may not have been flushed, which reaches into the segment before the active one.
            (whole(self.live).saturating_sub(1), Holder::LiveTail),
        ];
        let (allowed, holder) = guards.into_iter().min().unwrap_or((0, Holder::LiveTail));
        Retirement {
            below: (wanted + spare).min(allowed).max(self.oldest),
            remove: excess > 0 && allowed > self.oldest,
            held_by: (excess > 0 && wanted > allowed).then_some(holder),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn holdings() -> impl Strategy<Value = (Holdings, u64, u64)> {
        let place = || 0..60 * SEGMENT;
        (
            (0..20_u64, 0..60_u64, 0..60_u64),
            (place(), place(), place(), place()),
            0..80 * SEGMENT,
        )
            .prop_map(
                |((oldest, files, archived_to), (chained_to, live, snapshots_from, register), keep)| {
                    let holdings = Holdings {
                        segment_bytes: SEGMENT,
                        oldest,
                        files,
                        archived_to,
                        chained_to,
                        snapshots_from,
                        live,
                    };
                    (holdings, register, keep)
                },
            )
    }

    proptest! {
        #[test]
        fn a_segment_that_anyone_needs_is_never_retired_and_no_more_go_than_must((h, register, keep) in holdings()) {
            let floors = RetentionFloors::default();
            floors.set_register(register);
            let Retirement { below, remove, held_by } = h.retire(&floors, keep);
            prop_assert!(below >= h.oldest);
            for number in h.oldest..below {
                let end = (number + 1) * SEGMENT;
                prop_assert!(number < h.archived_to, "not archived");
                prop_assert!(end <= h.chained_to, "not chained");
                prop_assert!(end <= h.snapshots_from && end <= register, "recovery or the register needs it");
                prop_assert!(end + SEGMENT <= h.live, "live");
                let with_a_spare_one = (h.files + 1).saturating_sub(number - h.oldest) * SEGMENT;
                prop_assert!(with_a_spare_one > keep, "the bound is kept without it");
            }
            let over = h.files * SEGMENT > keep;
            prop_assert!(!remove || over && below > h.oldest, "nothing is removed while the bound is kept");
            let kept = h.files.saturating_sub(below - h.oldest) * SEGMENT;
            prop_assert_eq!(over && kept > keep, held_by.is_some(), "the bound is kept, or it is said who holds it");
        }
    }

    #[test]
    fn nothing_goes_before_there_are_snapshots_and_a_register_and_it_is_said_who_holds_it() {
        let mut full = Holdings {
            segment_bytes: SEGMENT,
            oldest: 0,
            files: 20,
            archived_to: 15,
            chained_to: 16 * SEGMENT,
            snapshots_from: 0,
            live: 16 * SEGMENT,
        };
        let floors = RetentionFloors::default();
        let held = |below, by| Retirement {
            below,
            remove: below > 0,
            held_by: Some(by),
        };
        assert_eq!(full.retire(&floors, 4 * SEGMENT), held(0, Holder::Snapshots));
        full.snapshots_from = 12 * SEGMENT;
        assert_eq!(full.retire(&floors, 4 * SEGMENT), held(0, Holder::Register));
        floors.set_register(u64::MAX);
        floors.set_register(0);
        assert_eq!(
            full.retire(&floors, 4 * SEGMENT),
            held(12, Holder::Snapshots),
            "a floor never goes back"
        );
        let kept = |below, remove| Retirement {
            below,
            remove,
            held_by: None,
        };
        assert_eq!(
            full.retire(&floors, 15 * SEGMENT),
            kept(6, true),
            "five go, the sixth is used again"
        );
        assert_eq!(
            full.retire(&floors, 20 * SEGMENT),
            kept(1, false),
            "one stands by to be used again"
        );
        assert_eq!(
            full.retire(&floors, 21 * SEGMENT),
            kept(0, false),
            "there is room for one more"
        );
    }
}
