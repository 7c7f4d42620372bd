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

impl Figures {
    /// Payments that are not final.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.reserved + self.in_doubt
    }
}
