//! A committed payment as the files write it, and what a window's root is made of: written a second time, from the
//! document alone.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::books::Books;
use crate::domain::{BusinessDate, Currency, Kind, NANOS_PER_SECOND, ParticipantIndex, Scene, UtcNanos, WindowId};

/// The first line of a detail file, without its end.
pub(super) const DETAIL_HEADER: &str = "payment_id,kind,scene,currency,amount_minor,initiator,responder,accepted_at,committed_at,window,original,leaf,side";

/// A committed payment: its place in the books, and when it committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    pub(super) at: u32,
    pub(super) time: UtcNanos,
}

/// The canonical row, ten fields.
pub(super) fn canonical_row(books: &Books, posted: Posted, window: WindowId) -> String {
    let payment = &books.payments[posted.at as usize];
    let traces = books.traces.as_ref();
    let (accepted, scene) = traces
        .and_then(|traces| traces.accepted.get(posted.at as usize).copied())
        .unwrap_or_default();
    let mut row = String::with_capacity(192);
    let _never_fails = write!(
        row,
        "{},{},{},{},{},{},{},{},{},{window}",
        payment.id,
        Kind::from_u8(payment.kind).map_or("", Kind::name),
        Scene::from_u8(scene).map_or("", Scene::name),
        currency_code(payment.currency),
        payment.amount,
        code_of(books, payment.initiator()),
        code_of(books, payment.responder),
        time_text(accepted),
        time_text(posted.time),
    );
    row
}

/// What a line of a participant's detail file says behind the canonical row.
pub(super) fn detail_line(
    books: &Books,
    posted: Posted,
    row: &str,
    leaf: u64,
    participant: ParticipantIndex,
) -> String {
    let original = books
        .traces
        .as_ref()
        .and_then(|traces| traces.originals.get(&posted.at));
    let original = original.map_or_else(String::new, ToString::to_string);
    let side = match books.payments[posted.at as usize].debtor_and_creditor() {
        Some((debtor, _)) if debtor == participant => "debit",
        Some(_) => "credit",
        None => "none",
    };
    format!("{row},{original},{leaf},{side}")
}

/// The public code of a participant.
pub(super) fn code_of(books: &Books, participant: ParticipantIndex) -> String {
    books
        .participant_ref(participant)
        .map_or_else(String::new, |participant| participant.terms.code.text())
}

/// ISO 4217, alphabetic.
pub(super) fn currency_code(currency: Currency) -> &'static str {
    currency.alphabetic()
}

/// UTC, RFC 3339, nanoseconds.
pub(super) fn time_text(time: UtcNanos) -> String {
    let (seconds, nanos) = (time.0 / NANOS_PER_SECOND, time.0 % NANOS_PER_SECOND);
    let (date, second) = (BusinessDate::from_day_number(seconds / 86_400), seconds % 86_400);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{date}T{hour:02}:{minute:02}:{:02}.{nanos:09}Z", second % 60)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// The root of RFC 9162's tree over rows that are given one after the other: at most 64 hashes are held.
#[derive(Clone, Debug, Default)]
pub(super) struct RootOfRows {
    /// Roots of whole subtrees, the largest first; a subtree of 2ⁿ leaves stands for bit n of `leaves`.
    subtrees: Vec<[u8; 32]>,
    leaves: u64,
}

impl RootOfRows {
    pub(super) fn add(&mut self, row: &str) {
        let mut node: [u8; 32] = Sha256::new_with_prefix([0]).chain_update(row).finalize().into();
        // As many subtrees of the same size meet as the count ends in ones.
        for _ in 0..self.leaves.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                node = inner(&left, &node);
            }
        }
        self.subtrees.push(node);
        self.leaves += 1;
    }

    /// The window's root.
    pub(super) fn root(mut self, window: WindowId, currency: Currency) -> [u8; 32] {
        let mut tree = self.subtrees.pop().unwrap_or_else(|| Sha256::digest([]).into());
        while let Some(left) = self.subtrees.pop() {
            tree = inner(&left, &tree);
        }
        Sha256::new_with_prefix([2])
            .chain_update(format!("{window},{},{},", currency_code(currency), self.leaves))
            .chain_update(tree)
            .finalize()
            .into()
    }
}

fn inner(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new_with_prefix([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9162, section 2.1.1, word for word.
    fn of_list(rows: &[String]) -> [u8; 32] {
        match rows {
            [] => Sha256::digest([]).into(),
            [row] => Sha256::new_with_prefix([0]).chain_update(row).finalize().into(),
            _ => {
                let left = 1 << (rows.len() - 1).ilog2();
                inner(&of_list(&rows[..left]), &of_list(&rows[left..]))
            }
        }
    }

    #[test]
    fn rows_one_after_the_other_give_the_root_that_the_rfc_gives_for_the_whole_list() {
        let window = WindowId::new(BusinessDate(20_261_123), 1);
        for count in 0..130 {
            let rows: Vec<String> = (0..count).map(|row| format!("row {row}")).collect();
            let mut root = RootOfRows::default();
            rows.iter().for_each(|row| root.add(row));
            let expected: [u8; 32] = Sha256::new_with_prefix([2])
                .chain_update(format!("{window},CNY,{count},"))
                .chain_update(of_list(&rows))
                .finalize()
                .into();
            assert_eq!(root.root(window, Currency::CNY), expected, "{count} rows");
        }
    }

    #[test]
    fn times_are_utc_with_nine_digits() {
        let time = UtcNanos(1_795_431_900 * NANOS_PER_SECOND + 5);
        assert_eq!(time_text(time), "2026-11-23T11:05:00.000000005Z");
    }
}
