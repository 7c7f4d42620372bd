//! Which segments of the journal may go, when it has grown past what the settings let it keep.
//!
//! A segment goes only when nobody needs it any more: it is archived, chained, below the older of the two snapshots that
//! are kept and below what the day register was built from. If that holds more than the bound, the bound gives way: the
//! journal grows on, and operators are told who holds it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Below which journal positions others need nothing any more. 0, where all begin, is: everything is needed. Each moves
/// forward only.
#[derive(Debug, Default)]
pub struct RetentionFloors {
    snapshots: AtomicU64,
    register: AtomicU64,
}

impl RetentionFloors {
    /// The older of the two good snapshots that are kept stands at `position`: recovery reads nothing before it.
    pub fn set_snapshots(&self, position: u64) {
        self.snapshots.fetch_max(position, Ordering::AcqRel);
    }

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
    /// The end of what clearing has applied and links have been handed.
    pub(super) live: u64,
}

/// What retention comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retirement {
    /// Segments below this one may go, and shall.
    pub(super) below: u64,
    /// Who keeps the bound from being kept.
    pub(super) held_by: Option<Holder>,
}

impl Holdings {
    /// Which segments go, for at most `keep_bytes` to stay.
    pub(super) fn retire(&self, floors: &RetentionFloors, keep_bytes: u64) -> Retirement {
        let excess = (self.files * self.segment_bytes).saturating_sub(keep_bytes);
        let wanted = self.oldest + excess.div_ceil(self.segment_bytes);
        let whole = |position: u64| position / self.segment_bytes;
        let guards = [
            (self.archived_to, Holder::Archive),
            (whole(self.chained_to), Holder::Chain),
            (whole(floors.snapshots.load(Ordering::Acquire)), Holder::Snapshots),
            (whole(floors.register.load(Ordering::Acquire)), Holder::Register),
            // A start writes again what may not have been flushed, which reaches into the segment before the active one.
            (whole(self.live).saturating_sub(1), Holder::LiveTail),
        ];
        let (allowed, holder) = guards.into_iter().min().unwrap_or((0, Holder::LiveTail));
        Retirement {
            below: wanted.min(allowed).max(self.oldest),
            held_by: (excess > 0 && wanted > allowed).then_some(holder),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn holdings() -> impl Strategy<Value = (Holdings, u64, u64, u64)> {
        let place = || 0..60 * SEGMENT;
        (
            0..20_u64,
            0..60_u64,
            0..60_u64,
            place(),
            place(),
            place(),
            place(),
            0..80 * SEGMENT,
        )
            .prop_map(
                |(oldest, files, archived_to, chained_to, live, snapshots, register, keep)| {
                    let holdings = Holdings {
                        segment_bytes: SEGMENT,
                        oldest,
                        files,
                        archived_to,
                        chained_to,
                        live,
                    };
                    (holdings, snapshots, register, keep)
                },
            )
    }

    proptest! {
        #[test]
        fn a_segment_that_anyone_needs_is_never_retired_and_no_more_go_than_must((h, snapshots, register, keep) in holdings()) {
            let floors = RetentionFloors::default();
            floors.set_snapshots(snapshots);
            floors.set_register(register);
            let Retirement { below, held_by } = h.retire(&floors, keep);
            prop_assert!(below >= h.oldest);
            for number in h.oldest..below {
                let end = (number + 1) * SEGMENT;
                prop_assert!(number < h.archived_to, "not archived");
                prop_assert!(end <= h.chained_to, "not chained");
                prop_assert!(end <= snapshots && end <= register, "recovery or the register needs it");
                prop_assert!(end + SEGMENT <= h.live, "live");
                prop_assert!((h.files - (number - h.oldest)) * SEGMENT > keep, "the bound is kept without it");
            }
            let kept = (h.files.saturating_sub(below - h.oldest)) * SEGMENT;
            prop_assert_eq!(kept > keep, held_by.is_some(), "the bound is kept, or it is said who holds it");
        }
    }

    #[test]
    fn nothing_goes_before_there_are_snapshots_and_a_register_and_it_is_said_who_holds_it() {
        let full = Holdings {
            segment_bytes: SEGMENT,
            oldest: 0,
            files: 20,
            archived_to: 15,
            chained_to: 16 * SEGMENT,
            live: 16 * SEGMENT,
        };
        let floors = RetentionFloors::default();
        let held = |by| Retirement {
            below: 0,
            held_by: Some(by),
        };
        assert_eq!(full.retire(&floors, 4 * SEGMENT), held(Holder::Snapshots));
        floors.set_snapshots(12 * SEGMENT);
        assert_eq!(full.retire(&floors, 4 * SEGMENT), held(Holder::Register));
        floors.set_register(u64::MAX);
        let retirement = full.retire(&floors, 4 * SEGMENT);
        assert_eq!(
            retirement,
            Retirement {
                below: 12,
                held_by: Some(Holder::Snapshots)
            }
        );
        floors.set_snapshots(3 * SEGMENT);
        assert_eq!(full.retire(&floors, 4 * SEGMENT), retirement, "a floor never goes back");
        assert_eq!(
            full.retire(&floors, 15 * SEGMENT),
            Retirement {
                below: 5,
                held_by: None
            }
        );
    }
}
