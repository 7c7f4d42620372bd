//! The scheme of the made-up evenings: three institutions and four banks, no two alike.

use bytemuck::Zeroable;

use crate::domain::{
    Currency, CurrencyTerms, Kind, ParticipantIndex, ParticipantTerms, Role, SECOND, SchemeCode, SchemeTerms,
};

/// Participants below this number are institutions.
pub(super) const INSTITUTIONS: u16 = 3;
/// How many there are; the number itself is nobody's.
pub(super) const PARTICIPANTS: u16 = 7;
pub(super) const MAXIMUM: u64 = 1_000;
pub(super) const HKD: Currency = Currency(344);
/// A currency that the scheme has not opened.
pub(super) const USD: Currency = Currency(840);
pub(super) const REFUND_DAYS: u32 = 90;

/// The scheme's terms.
pub(super) fn scheme(resident_payments: u32) -> SchemeTerms {
    let mut scheme = SchemeTerms::zeroed();
    (scheme.resident_payments, scheme.parked_max) = (resident_payments, if resident_payments < 32 { 1 } else { 2 });
    scheme.participant_count = u32::from(PARTICIPANTS);
    scheme.maximum_minor = MAXIMUM;
    scheme.refund_days = REFUND_DAYS;
    scheme.currencies = [Currency::CNY.0, HKD.0, 0, 0];
    scheme
}

/// A participant's terms.
///
/// | | | |
/// |---|---|---|
/// | 0 | institution | everything |
/// | 1 | institution | a limit per payment of 350, a small cap |
/// | 2 | institution | suspended as initiator |
/// | 3 | bank | the default timers |
/// | 4 | bank | timers so short that T2 of a push comes before the second status request |
/// | 5 | bank | suspended as responder |
/// | 6 | bank | no account in HKD, Debit and Bind only, a limit of 250; T2 of a pull is the moment of the third status request |
pub(super) fn participant(index: u16) -> ParticipantTerms {
    let mut terms = ParticipantTerms::zeroed();
    terms.index = ParticipantIndex(index);
    terms.code = SchemeCode([b'A' + index as u8; 14]);
    terms.role = if index < INSTITUTIONS {
        Role::Institution
    } else {
        Role::Bank
    } as u8;
    terms.permitted_kinds = Kind::ALL.iter().fold(0, |mask, kind| mask | kind.bit());
    terms.wait_ns = SECOND;
    terms.doubt_ns = 5 * SECOND;
    terms.expiry_pull_ns = 60 * SECOND;
    terms.expiry_push_ns = 20 * SECOND;
    let mut caps = [1_500, 900];
    match index {
        0 => caps = [1_200, 700],
        1 => {
            terms.payment_limit_minor = 350;
            caps = [600, 300];
        }
        2 => terms.suspended = ParticipantTerms::SUSPENDED_INITIATOR,
        4 => {
            terms.wait_ns = 500_000_000;
            terms.doubt_ns = 3 * SECOND;
            terms.expiry_pull_ns = 20 * SECOND;
            terms.expiry_push_ns = 11 * SECOND;
        }
        5 => terms.suspended = ParticipantTerms::SUSPENDED_RESPONDER,
        6 => {
            terms.expiry_pull_ns = 45 * SECOND;
            terms.permitted_kinds = Kind::Debit.bit() | Kind::Bind.bit();
            terms.payment_limit_minor = 250;
            caps = [1_500, 0];
        }
        _ => {}
    }
    for ((account, currency), cap) in terms.accounts.iter_mut().zip([Currency::CNY, HKD]).zip(caps) {
        if cap > 0 {
            *account = CurrencyTerms {
                currency: currency.0,
                reserved: [0; 14],
                cover_minor: 2 * cap,
                cap_minor: cap,
            };
        }
    }
    terms
}
