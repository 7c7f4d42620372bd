//! The invariants, checked by summing up over all payments what the books hold event by event.

use std::collections::BTreeMap;

use super::books::{Account, Books, NO_WINDOW, Payment, Reversal, Window};
use super::invariant::{Finding, Invariant};
use super::orders::settled;
use super::recomputed::{CurrencyTotals, Recomputed, StateCounts, WindowTotals};
use crate::domain::{Code, Currency, Kind, PaymentState, Position, WindowState};

/// Invariant 3: no admission makes position + reserved exceed the cap.
pub(super) fn over_cap(account: &Account) -> Option<String> {
    let used = account.position + account.reserved;
    (used > account.cap).then(|| {
        format!(
            "position {} + reserved {} = {used} exceeds the cap {}",
            account.position, account.reserved, account.cap
        )
    })
}

/// Every invariant that the books alone can break; one finding for each place where one is broken.
pub(super) fn found(books: &Books) -> Vec<Finding> {
    let mut findings = Vec::new();
    let resummed = Resummed::new(books, &mut findings);
    check_windows(books, &resummed, &mut findings);
    check_accounts(books, &resummed, &mut findings);
    check_refunds(books, &mut findings);
    check_reversals(books, &mut findings);
    findings
}

/// The books' sums, summed up again over all payments.
struct Resummed {
    /// By window: payments, gross, nets by participant.
    windows: Vec<(u64, Position, Vec<Position>)>,
    /// By (participant, currency).
    reserved: BTreeMap<(usize, Currency), Position>,
}

impl Resummed {
    fn new(books: &Books, findings: &mut Vec<Finding>) -> Self {
        let parties = books.participants.len();
        let mut windows = vec![(0, 0, vec![0; parties]); books.windows.len()];
        let mut reserved = BTreeMap::new();
        for payment in &books.payments {
            let expected = u8::from(payment.state.is_final());
            if payment.outcomes != expected {
                findings.push(Invariant::OneAnswer.broken(format!(
                    "payment {}: {} final outcomes in state {:?}, {expected} belong",
                    payment.id, payment.outcomes, payment.state
                )));
            }
            let amount = Position::from(payment.amount);
            match payment.state {
                PaymentState::Committed => match windows.get_mut(payment.window as usize) {
                    Some((committed, gross, nets)) => {
                        *committed += 1;
                        *gross += amount;
                        if let Some((debtor, creditor)) = payment.debtor_and_creditor() {
                            nets[debtor.index()] += amount;
                            nets[creditor.index()] -= amount;
                        }
                    }
                    None => findings
                        .push(Invariant::Windows.broken(format!("payment {}: committed and in no window", payment.id))),
                },
                PaymentState::Reserved | PaymentState::InDoubt => {
                    if let Some((debtor, _)) = payment.debtor_and_creditor() {
                        *reserved.entry((debtor.index(), payment.currency)).or_insert(0) += amount;
                    }
                }
                PaymentState::Declined | PaymentState::Expired | PaymentState::Rejected => {}
            }
            if payment.state != PaymentState::Committed && payment.window != NO_WINDOW {
                findings.push(
                    Invariant::Windows.broken(format!("payment {}: {:?} and in a window", payment.id, payment.state)),
                );
            }
        }
        Self { windows, reserved }
    }
}

fn check_windows(books: &Books, resummed: &Resummed, findings: &mut Vec<Finding>) {
    let mut open: BTreeMap<Currency, usize> = BTreeMap::new();
    for (window, (committed, gross, nets)) in books.windows.iter().zip(&resummed.windows) {
        let is_open = window.state == WindowState::Open;
        *open.entry(window.currency).or_insert(0) += usize::from(is_open);
        let sum: Position = window.nets.iter().sum();
        if sum != 0 {
            findings.push(
                Invariant::ZeroSum.broken(format!("window {}: its nets add up to {sum}, not to zero", window.id)),
            );
        }
        if (window.committed, window.gross) != (*committed, *gross) {
            findings.push(Invariant::Windows.broken(format!(
                "window {}: {} payments and gross {}, but its payments are {committed} and add up to {gross}",
                window.id, window.committed, window.gross
            )));
        }
        for (participant, (held, summed)) in window.nets.iter().zip(nets).enumerate() {
            if held != summed {
                findings.push(Invariant::Positions.broken(format!(
                    "window {}: the net of participant {participant} is {held}, its payments give {summed}",
                    window.id
                )));
            }
        }
    }
    for (currency, count) in open {
        if count != 1 {
            findings.push(Invariant::Windows.broken(format!(
                "currency {currency}: {count} windows are open, exactly one must be"
            )));
        }
    }
}

fn check_accounts(books: &Books, resummed: &Resummed, findings: &mut Vec<Finding>) {
    for (index, participant) in books.participants.iter().enumerate() {
        for account in participant.iter().flat_map(|participant| &participant.accounts) {
            let unsettled = |window: &&Window| {
                window.currency == account.currency
                    && match window.state {
                        WindowState::Open | WindowState::Closed | WindowState::Settling | WindowState::Aborted => true,
                        WindowState::Settled => false,
                    }
            };
            let position: Position = books.windows.iter().filter(unsettled).map(|w| w.nets[index]).sum();
            if account.position != position {
                findings.push(Invariant::Positions.broken(format!(
                    "participant {index}, currency {}: position {}, but its unsettled windows add up to {position}",
                    account.currency, account.position
                )));
            }
            let open = resummed.reserved.get(&(index, account.currency)).copied().unwrap_or(0);
            if account.reserved != open {
                findings.push(Invariant::Reservations.broken(format!(
                    "participant {index}, currency {}: reserved {}, but its open payments add up to {open}",
                    account.currency, account.reserved
                )));
            }
            check_cover(books, index, account, findings);
        }
    }
}

/// Refunds that hold or have given back a part of an original never come to more than it.
fn check_refunds(books: &Books, findings: &mut Vec<Finding>) {
    for &original in books.refunds.keys() {
        let (refunded, original) = (books.refunded(original as usize), &books.payments[original as usize]);
        if refunded > Position::from(original.amount) {
            findings.push(Finding::from(format!(
                "payment {}: refunds come to {refunded} of its {}",
                original.id, original.amount
            )));
        }
        if original.state != PaymentState::Committed || original.kind != Kind::Debit as u8 {
            findings.push(Finding::from(format!(
                "payment {}: {:?} of kind {} and refunded",
                original.id, original.state, original.kind
            )));
        }
    }
}

/// Invariant 9: every expired pull that was sent has a Reversal. What was not sent expired with 31 or 32.
fn check_reversals(books: &Books, findings: &mut Vec<Finding>) {
    for (at, payment) in (0u32..).zip(&books.payments) {
        let was_sent = payment.state == PaymentState::Expired && payment.code == Code::BankTimeout;
        let has_reversal = books.reversals.contains_key(&at);
        if was_sent && payment.kind == Kind::Debit as u8 && !has_reversal {
            findings.push(Invariant::Reversals.broken(format!(
                "payment {}: expired after it was sent, without a Reversal",
                payment.id
            )));
        }
        if has_reversal && !may_be_reversed(payment) {
            findings.push(Invariant::Reversals.broken(format!(
                "payment {}: {:?} of kind {} and reversed",
                payment.id, payment.state, payment.kind
            )));
        }
    }
}

/// Only a pull that ended without money can have been done too much by its bank.
fn may_be_reversed(payment: &Payment) -> bool {
    payment.kind == Kind::Debit as u8
        && match payment.state {
            PaymentState::Declined | PaymentState::Expired => true,
            PaymentState::Reserved | PaymentState::InDoubt | PaymentState::Committed | PaymentState::Rejected => false,
        }
}

/// Opening + top-ups − withdrawals ± net = closing; and settlement never changes headroom: the cap falls as the cover does.
fn check_cover(books: &Books, index: usize, account: &Account, findings: &mut Vec<Finding>) {
    let settled = settled(books, index, account.currency);
    let (opening, top_ups, withdrawals) = (account.opening, account.top_ups, account.withdrawals);
    let cover = opening + top_ups - withdrawals - settled;
    let cap = account.cap_at_opening - settled;
    if account.cover != cover {
        findings.push(Invariant::Positions.broken(format!(
            "participant {index}, currency {}: cover {}, but opening {opening}, top-ups {top_ups}, withdrawals {withdrawals} and \
             settled nets {settled} give {cover}",
            account.currency, account.cover
        )));
    }
    if account.cap != cap {
        findings.push(Invariant::Positions.broken(format!(
            "participant {index}, currency {}: cap {}, but what was agreed less the settled nets is {cap}",
            account.currency, account.cap
        )));
    }
}

/// The books' own sums; counts and findings that the auditor keeps beside them are still empty.
pub(super) fn sums(books: &Books) -> Recomputed {
    let mut payments = StateCounts::default();
    let mut recomputed = Recomputed::default();
    for payment in &books.payments {
        let count = match payment.state {
            PaymentState::Reserved => &mut payments.reserved,
            PaymentState::InDoubt => &mut payments.in_doubt,
            PaymentState::Committed => &mut payments.committed,
            PaymentState::Declined => &mut payments.declined,
            PaymentState::Expired => &mut payments.expired,
            PaymentState::Rejected => &mut payments.rejected,
        };
        *count += 1;
        if payment.state != PaymentState::Rejected {
            payments.accepted += 1;
        }
        if payment.state.is_final() {
            *recomputed.by_code.entry(payment.code as u8).or_insert(0) += 1;
            count_success(&mut recomputed, books, payment);
        }
    }
    let currencies = books.scheme.map_or([0; 4], |scheme| scheme.currencies);
    let mut currencies = currencies.into_iter().filter(|&currency| currency != 0).map(Currency);
    let first = totals(books, currencies.next().unwrap_or_default());
    let open = books
        .reversals
        .values()
        .filter(|reversal| **reversal == Reversal::Raised);
    Recomputed {
        payments,
        reversals_open: open.count() as u64,
        positions: first.positions,
        reserved: first.reserved,
        covers: first.covers,
        caps: first.caps,
        further_currencies: currencies.map(|currency| totals(books, currency)).collect(),
        windows: books.windows.iter().map(window_totals).collect(),
        ..recomputed
    }
}

/// Counts a final payment where its kind and its parties are counted.
fn count_success(sums: &mut Recomputed, books: &Books, payment: &Payment) {
    let committed = u64::from(payment.state == PaymentState::Committed);
    let count = |figure: &mut [u64; 2]| {
        figure[0] += 1;
        figure[1] += committed;
    };
    let kind = Kind::from_u8(payment.kind).map_or(0, |kind| kind as u8);
    count(sums.by_kind.entry(kind).or_insert([0; 2]));
    let (initiator, responder) = (payment.initiator(), payment.responder);
    count(sums.as_initiator.entry(initiator.0).or_insert([0; 2]));
    // One that was not there is asked for nothing, though it may have joined since.
    let is_known = payment.code != Code::UnknownParticipant && books.participant_ref(responder).is_some();
    if responder != initiator && is_known {
        count(sums.as_responder.entry(responder.0).or_insert([0; 2]));
    }
    if payment.contradicted {
        sums.contradicted[usize::from(payment.state == PaymentState::Declined)] += 1;
    }
}

fn totals(books: &Books, currency: Currency) -> CurrencyTotals {
    let sums = |of: fn(&Account) -> Position| {
        let participants = books.participants.iter();
        let accounts = participants.map(|participant| participant.as_ref().and_then(|p| p.account_ref(currency)));
        accounts.map(|account| account.map_or(0, of)).collect()
    };
    CurrencyTotals {
        currency,
        positions: sums(|account| account.position),
        reserved: sums(|account| account.reserved),
        covers: sums(|account| account.cover),
        caps: sums(|account| account.cap),
    }
}

fn window_totals(window: &Window) -> WindowTotals {
    let nets = window.nets.iter().enumerate().filter(|(_, net)| **net != 0);
    WindowTotals {
        id: window.id,
        currency: window.currency,
        state: window.state,
        committed: window.committed,
        gross_minor: window.gross,
        nets: nets.map(|(participant, net)| (participant as u16, *net)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::books::{Participant, Payment};
    use crate::domain::{
        Code, CurrencyTerms, ParticipantIndex, ParticipantTerms, PaymentId, SECOND, SchemeTerms, UtcNanos,
    };
    use bytemuck::Zeroable;

    const DEBTOR: ParticipantIndex = ParticipantIndex(1);

    fn check(books: &Books) -> Vec<String> {
        found(books).iter().map(ToString::to_string).collect()
    }

    /// Two participants; one settled window with a payment, one open window with another, one payment still open.
    fn books() -> Books {
        let mut books = Books::default();
        books.scheme = Some(SchemeTerms::zeroed());
        for index in 0..2 {
            let mut terms = ParticipantTerms::zeroed();
            terms.index = ParticipantIndex(index);
            terms.accounts[0] = CurrencyTerms {
                currency: 156,
                reserved: [0; 14],
                cover_minor: 2_000,
                cap_minor: 1_000,
            };
            books.participants.push(Some(Participant::new(terms)));
        }
        let time = UtcNanos(1_795_435_200 * SECOND);
        books.open(Currency::CNY, time);
        for serial in 1..=3 {
            let at = books.remember(Payment {
                id: PaymentId::new(time.business_date(), ParticipantIndex(0), 0, serial),
                digest: 0,
                amount: 100 * serial,
                expiry: UtcNanos::NEVER,
                window: NO_WINDOW,
                responder: DEBTOR,
                currency: Currency::CNY,
                kind: Kind::Debit as u8,
                state: PaymentState::Reserved,
                code: Code::InProgress,
                outcomes: 0,
                contradicted: false,
            });
            books.reserve(at);
            if serial < 3 {
                books.conclude(at, PaymentState::Committed, Code::Committed);
                books.post(at, serial as usize - 1);
            }
            if serial == 1 {
                books.settle(0);
                books.open(Currency::CNY, time);
            }
        }
        books
    }

    #[track_caller]
    fn planted(fault: impl FnOnce(&mut Books), expected: &str) {
        let mut books = books();
        assert_eq!(check(&books), Vec::<String>::new(), "before the fault");
        fault(&mut books);
        let findings = check(&books).join("\n");
        assert!(findings.contains(expected), "{findings:?} does not say {expected:?}");
    }

    fn account(books: &mut Books) -> &mut Account {
        books.participant(DEBTOR).unwrap().account(Currency::CNY).unwrap()
    }

    #[test]
    fn nets_that_do_not_cancel_are_found() {
        planted(|b| b.windows[1].nets[1] += 1, "its nets add up to 1, not to zero");
    }

    #[test]
    fn money_moved_between_two_nets_is_found() {
        planted(
            |b| {
                b.windows[1].nets[0] += 5;
                b.windows[1].nets[1] -= 5;
            },
            "the net of participant 1 is 195, its payments give 200",
        );
    }

    #[test]
    fn a_windows_count_and_gross_that_are_not_its_payments_are_found() {
        planted(
            |b| b.windows[1].committed += 1,
            "2 payments and gross 200, but its payments are 1",
        );
        planted(|b| b.windows[1].gross -= 1, "gross 199");
    }

    #[test]
    fn a_position_that_is_not_its_windows_nets_is_found() {
        planted(
            |b| account(b).position += 1,
            "position 201, but its unsettled windows add up to 200",
        );
    }

    #[test]
    fn a_reserved_sum_that_is_not_its_open_payments_is_found() {
        planted(
            |b| account(b).reserved -= 1,
            "reserved 299, but its open payments add up to 300",
        );
    }

    #[test]
    fn cover_or_cap_that_settlement_left_wrong_is_found() {
        planted(|b| account(b).cover += 1, "cover 1901, but opening 2000");
        planted(|b| account(b).cap += 1, "cap 901, but what was agreed");
    }

    #[test]
    fn cover_that_is_not_opening_and_top_ups_less_withdrawals_and_settled_nets_is_found() {
        planted(|b| account(b).top_ups += 7, "cover 1900, but opening 2000, top-ups 7");
        planted(
            |b| account(b).withdrawals += 7,
            "withdrawals 7 and settled nets 100 give 1893",
        );
        planted(|b| account(b).opening -= 1, "give 1899");
    }

    #[test]
    fn a_second_final_outcome_is_found() {
        planted(
            |b| b.conclude(0, PaymentState::Declined, Code::BankDeclined),
            "2 final outcomes",
        );
        planted(
            |b| b.payments[2].outcomes = 1,
            "1 final outcomes in state Reserved, 0 belong",
        );
        planted(
            |b| b.payments[2].state = PaymentState::Expired,
            "0 final outcomes in state Expired, 1 belong",
        );
    }

    #[test]
    fn a_committed_payment_in_no_window_and_any_other_in_one_are_found() {
        planted(|b| b.payments[1].window = NO_WINDOW, "committed and in no window");
        planted(|b| b.payments[2].window = 1, "Reserved and in a window");
    }

    #[test]
    fn two_open_windows_of_a_currency_or_none_are_found() {
        planted(|b| b.windows[0].state = WindowState::Open, "2 windows are open");
        planted(|b| b.windows[1].state = WindowState::Closed, "0 windows are open");
    }

    #[test]
    fn an_expired_pull_that_was_sent_and_has_no_reversal_is_found() {
        let expired = |code| move |b: &mut Books| b.conclude(2, PaymentState::Expired, code);
        planted(
            expired(Code::BankTimeout),
            "expired after it was sent, without a Reversal",
        );
        let mut unsent = books();
        expired(Code::LinkDown)(&mut unsent);
        assert_eq!(check(&unsent), Vec::<String>::new());
        planted(|b| b.raise_reversal_of_a_pull(1), "Committed of kind 1 and reversed");
    }

    #[test]
    fn refunds_of_more_than_the_original_or_of_no_original_are_found() {
        planted(
            |b| {
                b.refunds.insert(0, vec![1]);
            },
            "refunds come to 200 of its 100",
        );
        planted(
            |b| {
                b.refunds.insert(2, vec![]);
            },
            "Reserved of kind 1 and refunded",
        );
    }

    #[test]
    fn an_admission_over_the_cap_is_found() {
        let mut books = books();
        assert_eq!(over_cap(account(&mut books)), None);
        account(&mut books).reserved = 701;
        assert!(
            over_cap(account(&mut books))
                .unwrap()
                .contains("= 901 exceeds the cap 900")
        );
    }
}
