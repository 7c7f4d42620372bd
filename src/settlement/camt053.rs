//! camt.053.001.08, BankToCustomerStatement: a participant's cover over a business day, movement by movement.

use super::xml::{Message, Side, decimal, net_reference, utc_millis, window_message_id};
use super::{CoverEntry, DayStatement, PartyDay};
use crate::domain::{BusinessDate, NANOS_PER_SECOND, Position, UtcNanos};
use crate::wire::CoverReason;

/// The whole message, UTF-8.
///
/// The opening balance is `OPBD`; the closing one `CLBD`, or `ITBD` where the day is not over. A movement that lifts cover is a credit.
/// An amount of more than 18 digits does not fit into an ISO 20022 message.
#[must_use]
pub fn to_xml(day: &DayStatement, party: &PartyDay) -> Vec<u8> {
    let currency = day.currency.alphabetic();
    let id = format!("{}-{currency}-{}-053", day.date.0, party.code);
    Message::write("camt.053.001.08", "BkToCstmrStmt", |m| {
        m.group("GrpHdr", |m| {
            m.text("MsgId", &id);
            m.text("CreDtTm", utc_millis(day.until));
            m.party("MsgRcpt", party.code);
        });
        m.group("Stmt", |m| {
            m.text("Id", &id);
            m.text("ElctrncSeqNb", party.sequence);
            m.text("CreDtTm", utc_millis(day.until));
            m.group("FrToDt", |m| {
                m.text("FrDtTm", utc_millis(beginning(day.date)));
                m.text("ToDtTm", utc_millis(day.until));
            });
            m.account(party.code, day.scheme, day.currency);
            balance(m, day, "OPBD", party.opening_minor);
            balance(m, day, if day.complete { "CLBD" } else { "ITBD" }, party.closing_minor);
            summary(m, day, party);
            for entry in &party.entries {
                movement(m, day, party, entry);
            }
        });
    })
}

/// Midnight in Asia/Shanghai, with which the day begins.
fn beginning(date: BusinessDate) -> UtcNanos {
    const SHANGHAI_OFFSET_SECONDS: u64 = 8 * 3_600;
    let seconds = (date.day_number() * 86_400).saturating_sub(SHANGHAI_OFFSET_SECONDS);
    UtcNanos(seconds * NANOS_PER_SECOND)
}

fn balance(m: &mut Message, day: &DayStatement, code: &str, minor: Position) {
    m.group("Bal", |m| {
        m.group("Tp", |m| m.group("CdOrPrtry", |m| m.text("Cd", code)));
        m.amount("Amt", minor, day.currency);
        m.text("CdtDbtInd", Side::of_change(minor).code());
        m.group("Dt", |m| m.text("Dt", day.date));
    });
}

/// Totals over the entries.
fn summary(m: &mut Message, day: &DayStatement, party: &PartyDay) {
    let total = |side: Side| {
        let changes = party.entries.iter().map(|entry| entry.change_minor);
        let of_side: Vec<_> = changes.filter(|&change| Side::of_change(change) == side).collect();
        (of_side.len(), of_side.iter().sum::<Position>())
    };
    let (credits, debits) = (total(Side::Credit), total(Side::Debit));
    let net = credits.1 + debits.1;
    m.group("TxsSummry", |m| {
        m.group("TtlNtries", |m| {
            m.text("NbOfNtries", party.entries.len());
            m.text("Sum", decimal(credits.1 - debits.1, day.currency));
            m.group("TtlNetNtry", |m| {
                m.text("Amt", decimal(net, day.currency));
                m.text("CdtDbtInd", Side::of_change(net).code());
            });
        });
        for (name, (count, sum)) in [("TtlCdtNtries", credits), ("TtlDbtNtries", debits)] {
            m.group(name, |m| {
                m.text("NbOfNtries", count);
                m.text("Sum", decimal(sum, day.currency));
            });
        }
    });
}

fn movement(m: &mut Message, day: &DayStatement, party: &PartyDay, entry: &CoverEntry) {
    let side = Side::of_change(entry.change_minor);
    m.group("Ntry", |m| {
        m.text("NtryRef", entry.event);
        m.amount("Amt", entry.change_minor, day.currency);
        m.text("CdtDbtInd", side.code());
        m.group("Sts", |m| m.text("Cd", "BOOK"));
        m.group("BookgDt", |m| m.text("DtTm", utc_millis(entry.time)));
        m.group("ValDt", |m| m.text("Dt", entry.time.business_date()));
        m.text("AcctSvcrRef", format_args!("{}-{}", entry.event, party.code));
        let (own, words) = match entry.reason {
            CoverReason::Opening => ("OPENING", "Cover with which the participant joined".to_owned()),
            CoverReason::CoverIn => ("COVER_IN", "Cover brought in".to_owned()),
            CoverReason::CoverOut => ("COVER_OUT", "Cover taken out".to_owned()),
            CoverReason::Settled => ("WINDOW_NET", format!("Net of window {}, settled", entry.window)),
        };
        m.transaction_code(side, own);
        if entry.reason == CoverReason::Settled {
            // The same references as in the window's pacs.029, pacs.009 and camt.054.
            m.group("NtryDtls", |m| {
                m.group("TxDtls", |m| {
                    m.group("Refs", |m| {
                        m.text("MsgId", window_message_id(day.scheme, entry.window, 29));
                        m.text("EndToEndId", net_reference(entry.window, party.code));
                        m.text("ClrSysRef", entry.window);
                    });
                    m.amount("Amt", entry.change_minor, day.currency);
                    m.text("CdtDbtInd", side.code());
                });
            });
        }
        m.text("AddtlNtryInf", words);
    });
}
