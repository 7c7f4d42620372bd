//! Counts: what happened, by outcome, code, scene, kind and participant.

/// The engine's counts since Genesis.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Payments accepted (Reserved).
    pub accepted: u64,
    /// Payments Reserved now.
    pub reserved: u64,
    /// Payments in doubt now.
    pub in_doubt: u64,
    /// Committed.
    pub committed: u64,
    /// Declined by a bank.
    pub declined: u64,
    /// Rejected by a rule of the switch, and remembered.
    pub rejected: u64,
    /// Expired.
    pub expired: u64,
    /// Repeated requests: stored answer or 09.
    pub duplicates: u64,
    /// Requests whose id was used with other content.
    pub ids_reused: u64,
    /// Requests whose date was not open; not remembered.
    pub dates_not_open: u64,
    /// Bank's words that came after a final state.
    pub late_words: u64,
    /// Late words that contradict the final state.
    pub conflicts: u64,
    /// Replies that were nobody's, or not their sender's to make.
    pub replies_refused: u64,
    /// Status requests raised.
    pub status_requests: u64,
    /// Events that wait for the register now.
    pub parked: u64,
    /// Look-ups asked of the register; again after a restart is not counted.
    pub look_ups: u64,
    /// Requests told 37: too many of their participant's wait, or too many payments are open.
    pub not_taken: u64,
    /// Replies dropped because too many of their participant's wait.
    pub replies_dropped: u64,
    /// Final outcomes by code.
    pub by_code: [u64; 40],
    /// Final outcomes by scene: all, and committed among them.
    pub by_scene: [[u64; 2]; 8],
    /// Final outcomes by kind: all, and committed among them; what is no kind is counted under 0.
    pub by_kind: [[u64; 2]; 8],
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            accepted: 0,
            reserved: 0,
            in_doubt: 0,
            committed: 0,
            declined: 0,
            rejected: 0,
            expired: 0,
            duplicates: 0,
            ids_reused: 0,
            dates_not_open: 0,
            late_words: 0,
            conflicts: 0,
            replies_refused: 0,
            status_requests: 0,
            parked: 0,
            look_ups: 0,
            not_taken: 0,
            replies_dropped: 0,
            by_code: [0; 40],
            by_scene: [[0; 2]; 8],
            by_kind: [[0; 2]; 8],
        }
    }
}

/// How a participant's payments ended: final outcomes, and committed among them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Success {
    /// Payments that it asked for.
    pub as_initiator: [u64; 2],
    /// Payments that others asked of it.
    pub as_responder: [u64; 2],
}

/// How many numbers a snapshot has of the figures.
const NUMBERS: usize = 18 + 40 + 16 + 16;

impl Figures {
    /// All of them, in the order of a snapshot.
    pub(super) fn numbers(&self) -> [u64; NUMBERS] {
        let single = [
            self.accepted,
            self.reserved,
            self.in_doubt,
            self.committed,
            self.declined,
            self.rejected,
            self.expired,
            self.duplicates,
            self.ids_reused,
            self.dates_not_open,
            self.late_words,
            self.conflicts,
            self.replies_refused,
            self.status_requests,
            self.parked,
            self.look_ups,
            self.not_taken,
            self.replies_dropped,
        ];
        let mut numbers = [0; NUMBERS];
        let all = single.iter().chain(&self.by_code);
        let all = all
            .chain(self.by_scene.as_flattened())
            .chain(self.by_kind.as_flattened());
        numbers.iter_mut().zip(all).for_each(|(number, count)| *number = *count);
        numbers
    }

    /// What [`Figures::numbers`] gave.
    pub(super) fn of_numbers(numbers: &[u64; NUMBERS]) -> Self {
        let mut figures = Self::default();
        let mut numbers = numbers.iter().copied();
        let single = [
            &mut figures.accepted,
            &mut figures.reserved,
            &mut figures.in_doubt,
            &mut figures.committed,
            &mut figures.declined,
            &mut figures.rejected,
            &mut figures.expired,
            &mut figures.duplicates,
            &mut figures.ids_reused,
            &mut figures.dates_not_open,
            &mut figures.late_words,
            &mut figures.conflicts,
            &mut figures.replies_refused,
            &mut figures.status_requests,
            &mut figures.parked,
            &mut figures.look_ups,
            &mut figures.not_taken,
            &mut figures.replies_dropped,
        ];
        let all = single.into_iter().chain(&mut figures.by_code);
        let all = all.chain(figures.by_scene.as_flattened_mut());
        for (count, number) in all.chain(figures.by_kind.as_flattened_mut()).zip(&mut numbers) {
            *count = number;
        }
        figures
    }

    /// Payments that are not final.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.reserved + self.in_doubt
    }
}
