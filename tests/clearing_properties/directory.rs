//! Two institutions and three banks with caps so tight that cover often runs out.

use bytemuck::Zeroable;
use clearway::domain::{Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, Role, SECOND, SchemeTerms};

pub(crate) const INSTITUTIONS: u16 = 2;
pub(crate) const PARTICIPANTS: u16 = 5;
/// So many may join besides.
pub(crate) const JOINING_MAX: u16 = 4;
pub(crate) const MAXIMUM: u64 = 1_000;
pub(crate) const HKD: Currency = Currency(344);
/// A currency that the scheme has not opened.
pub(crate) const USD: Currency = Currency(840);
const CAP: u64 = 1_500;

/// So few that the acts' days pass them.
const REFUND_DAYS: u32 = 1;

/// The scheme's terms.
pub(crate) fn scheme() -> SchemeTerms {
    let mut scheme = SchemeTerms::zeroed();
    (scheme.resident_payments, scheme.parked_max) = (16, 2);
    scheme.participant_count = u32::from(PARTICIPANTS);
    scheme.maximum_minor = MAXIMUM;
    scheme.refund_days = REFUND_DAYS;
    scheme.currencies = [Currency::CNY.0, HKD.0, 0, 0];
    scheme
}

/// A participant's terms; no two have the same T1 and T2.
pub(crate) fn participant(index: u16) -> ParticipantTerms {
    let is_bank = index >= INSTITUTIONS;
    let mut terms = ParticipantTerms::zeroed();
    terms.index = ParticipantIndex(index);
    terms.role = if is_bank { Role::Bank } else { Role::Institution } as u8;
    // The first bank takes no Unbind.
    let kinds = Kind::ALL
        .iter()
        .filter(|kind| index != INSTITUTIONS || **kind != Kind::Unbind);
    terms.permitted_kinds = kinds.fold(0, |mask, kind| mask | kind.bit());
    terms.wait_ns = SECOND;
    terms.doubt_ns = (3 + u64::from(index)) * SECOND;
    terms.expiry_pull_ns = (20 + 10 * u64::from(index)) * SECOND;
    terms.expiry_push_ns = (15 + 5 * u64::from(index)) * SECOND;
    terms.payment_limit_minor = if index == 3 { 300 } else { 0 };
    // The last bank has no account in the second currency.
    let currencies = if index == PARTICIPANTS - 1 { 1 } else { 2 };
    for (account, currency) in terms.accounts.iter_mut().zip([Currency::CNY, HKD]).take(currencies) {
        *account = CurrencyTerms {
            currency: currency.0,
            reserved: [0; 14],
            cover_minor: 2 * CAP,
            cap_minor: CAP,
        };
    }
    terms
}
