//! Result codes, with their meaning in ISO 8583 (field 39) and ISO 20022, and what a retry should do.

/// What the initiator of a payment should do after a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Done; nothing to retry.
    Done,
    /// Send again with the same id: the answer is still to come, or the id was not used.
    SameId,
    /// Send again, if at all, as a new payment with a new id.
    NewId,
    /// No retry can succeed as things stand.
    Pointless,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $iso8583:literal, $iso20022:literal, $retry:ident, $meaning:literal;)+) => {
        /// A scheme result code.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Code {
            $(#[doc = concat!("`", stringify!($number), "`: ", $meaning, ".")] $name = $number,)+
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Reads a code's number.
            #[must_use]
            pub const fn from_u8(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The response code of ISO 8583:1987 field 39.
            #[must_use]
            pub const fn iso8583(self) -> &'static str {
                match self { $(Self::$name => $iso8583,)+ }
            }

            /// The ISO 20022 status or reason code; `None` where the code never leaves the link.
            #[must_use]
            pub const fn iso20022(self) -> Option<&'static str> {
                let code = match self { $(Self::$name => $iso20022,)+ };
                if code.is_empty() { None } else { Some(code) }
            }

            /// What a retry should do.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)+ }
            }

            /// The code in words.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

codes! {
    Committed = 0, "00", "ACSC", Done, "committed";
    Format = 1, "30", "FF01", SameId, "format";
    Signature = 2, "63", "DS02", SameId, "signature";
    NotSignedOn = 3, "58", "AG08", SameId, "not signed on";
    UnknownParticipant = 4, "15", "RC01", Pointless, "unknown participant";
    InitiatorSuspended = 5, "57", "AG10", NewId, "initiator suspended";
    ResponderSuspended = 6, "57", "AG11", NewId, "responder suspended";
    KindNotPermitted = 7, "12", "AG03", Pointless, "kind not permitted";
    OnUs = 8, "12", "AG12", Pointless, "on-us";
    InProgress = 9, "09", "PDNG", SameId, "in progress";
    AmountInvalid = 10, "13", "AM12", NewId, "amount invalid";
    OverSchemeMaximum = 11, "61", "AM13", NewId, "over scheme maximum";
    OverAgreedLimit = 12, "61", "AM14", NewId, "over agreed limit";
    CoverExceeded = 13, "51", "AM23", NewId, "cover exceeded";
    CurrencyNotOpen = 14, "12", "AM03", Pointless, "currency";
    DateNotOpen = 15, "12", "DT01", NewId, "date not open";
    IdReused = 16, "94", "AM05", NewId, "id reused with other content";
    AccountInvalid = 20, "14", "AC01", Pointless, "account invalid";
    AccountClosed = 21, "14", "AC04", Pointless, "account closed";
    AccountBlocked = 22, "62", "AC06", Pointless, "account blocked";
    CustomerFunds = 23, "51", "AM04", NewId, "customer funds";
    MandateMissing = 24, "57", "MD01", Pointless, "mandate missing or ended";
    OriginalNotFound = 25, "25", "NOOR", Pointless, "original not found";
    RefundExceedsOriginal = 26, "64", "AM09", Pointless, "refund exceeds original";
    BankDeclined = 27, "05", "MS03", NewId, "bank declined";
    SuspectedFraud = 28, "59", "FRAD", Pointless, "suspected fraud";
    BankTimeout = 30, "68", "AB05", NewId, "bank timeout, final";
    LinkDown = 31, "91", "AB08", NewId, "link down, not sent";
    OverLinkCapacity = 32, "91", "AB07", NewId, "over link capacity, shed";
    AskedTooOften = 33, "65", "", SameId, "asked too often";
    CutOff = 34, "90", "TM01", NewId, "cut-off";
    BankInternalError = 35, "96", "AB09", NewId, "bank internal error";
    SwitchError = 36, "96", "AB10", NewId, "switch error";
    NotTaken = 37, "91", "", SameId, "not taken (over contract, starting, intake stopped)";
}

impl Code {
    /// True for a refusal at the door: not journaled, not final, the id is not used, a retry keeps it.
    #[must_use]
    pub const fn is_door_refusal(self) -> bool {
        matches!(
            self,
            Self::Format | Self::Signature | Self::NotSignedOn | Self::AskedTooOften | Self::NotTaken
        )
    }

    /// True for a code with which a bank may say no.
    #[must_use]
    pub const fn is_bank_refusal(self) -> bool {
        matches!(self as u8, 20..=28 | 35)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_number() {
        for &code in Code::ALL {
            assert_eq!(Code::from_u8(code as u8), Some(code));
            assert_eq!(code.iso8583().len(), 2);
        }
        assert_eq!(Code::from_u8(99), None);
    }

    #[test]
    fn a_door_refusal_keeps_the_id() {
        for &code in Code::ALL {
            if code.is_door_refusal() {
                assert_eq!(code.retry(), Retry::SameId, "{code:?}");
            }
        }
    }
}
