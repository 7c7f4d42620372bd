//! Which rule a new payment breaks, read from the sentences of the rules.

use super::books::Books;
use crate::domain::{Code, Kind, ParticipantTerms, PaymentState, Position, Role, UtcNanos};
use crate::wire::PaymentBody;

/// The first rule that a new payment breaks at this time, in the order of the rules; `None` = it is accepted. What the
/// books know of the id and its date was looked at before. Where the original of a Refund is `away`, the engine must ask
/// the register when it comes to that rule: [`ASKS`].
pub(super) fn refusal(books: &Books, time: UtcNanos, body: &PaymentBody, away: bool) -> Option<Code> {
    let (Some(scheme), Some(initiator), Some(responder)) = (
        books.scheme,
        books.participant_ref(body.id.originator()),
        books.participant_ref(body.responder),
    ) else {
        return Some(Code::UnknownParticipant);
    };
    if body.responder == body.id.originator() {
        return Some(Code::OnUs);
    }
    if initiator.terms.suspended & ParticipantTerms::SUSPENDED_INITIATOR != 0 {
        return Some(Code::InitiatorSuspended);
    }
    if responder.terms.suspended & ParticipantTerms::SUSPENDED_RESPONDER != 0 {
        return Some(Code::ResponderSuspended);
    }
    let is_institution_to_bank =
        initiator.terms.role == Role::Institution as u8 && responder.terms.role == Role::Bank as u8;
    let kind = match body.kind() {
        Some(kind) if is_institution_to_bank && initiator.terms.permits(kind) && responder.terms.permits(kind) => kind,
        Some(_) | None => return Some(Code::KindNotPermitted),
    };
    // Without an open window a currency is not open: a payment that committed would be in none.
    let currency = body.currency();
    let is_open = currency.0 != 0 && scheme.currencies.contains(&currency.0) && books.open_window(currency).is_some();
    let (Some(of_initiator), Some(of_responder), true) = (
        initiator.account_ref(currency),
        responder.account_ref(currency),
        is_open,
    ) else {
        return Some(Code::CurrencyNotOpen);
    };
    let amount = body.amount_minor;
    // Who will owe; nobody where no money moves, and then there is no amount either.
    let debtor = match kind {
        Kind::Debit => Some(of_responder),
        Kind::Payout | Kind::Refund => Some(of_initiator),
        Kind::Bind | Kind::Unbind => None,
    };
    let amount_is_valid = if debtor.is_some() { amount > 0 } else { amount == 0 };
    if !amount_is_valid {
        return Some(Code::AmountInvalid);
    }
    if amount > scheme.maximum_minor {
        return Some(Code::OverSchemeMaximum);
    }
    let limits = [initiator.terms.payment_limit_minor, responder.terms.payment_limit_minor];
    if limits.iter().any(|&limit| limit != 0 && amount > limit) {
        return Some(Code::OverAgreedLimit);
    }
    if kind == Kind::Refund {
        if away && may_be_original(time, scheme.refund_days, body) {
            return Some(ASKS);
        }
        let Some(original) = original_of(books, time, scheme.refund_days, body) else {
            return Some(Code::OriginalNotFound);
        };
        let refunded = books.refunded(original) + Position::from(amount);
        if refunded > Position::from(books.payments[original].amount) {
            return Some(Code::RefundExceedsOriginal);
        }
    }
    if let Some(debtor) = debtor
        && debtor.position + debtor.reserved + Position::from(amount) > debtor.cap
    {
        return Some(Code::CoverExceeded);
    }
    None
}

/// In place of a code: no answer yet, the register must be asked.
pub(super) const ASKS: Code = Code::NotTaken;

/// What the original's id alone says: its initiator and its date.
fn may_be_original(time: UtcNanos, refund_days: u32, refund: &PaymentBody) -> bool {
    let oldest = time.business_date().day_number().saturating_sub(refund_days.into());
    refund.original.originator() == refund.id.originator() && refund.original.date().day_number() >= oldest
}

/// The payment that a Refund may give back: a Debit, Committed, with the same initiator, responder and currency, whose
/// id's business date is at most `refund_days` before today's.
pub(super) fn original_of(books: &Books, time: UtcNanos, refund_days: u32, refund: &PaymentBody) -> Option<usize> {
    books.find(refund.original).filter(|&at| {
        let original = &books.payments[at];
        let oldest = time.business_date().day_number().saturating_sub(refund_days.into());
        original.kind == Kind::Debit as u8
            && original.state == PaymentState::Committed
            && (original.initiator(), original.responder) == (refund.id.originator(), refund.responder)
            && original.currency == refund.currency()
            && original.id.date().day_number() >= oldest
    })
}
