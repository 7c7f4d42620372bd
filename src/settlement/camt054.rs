//! camt.054.001.08, BankToCustomerDebitCreditNotification: to a participant, what a window came to for it.

use super::xml::{Message, Side, decimal, hexadecimal, net_reference, utc_millis};
use super::{PartyStatement, WindowStatement, pacs029};
use crate::domain::Position;

/// The whole message, UTF-8, for a participant that took part in the window.
///
/// One entry, the net: `DBIT` where the participant must pay, `CRDT` where it is paid; a net of zero is a credit of zero. It is
/// pending (`PDNG`), because the window has closed and is not settled yet. What it owes and what it is owed stand in it as two batches.
/// An amount of more than 18 digits does not fit into an ISO 20022 message.
#[must_use]
pub fn to_xml(statement: &WindowStatement, party: &PartyStatement) -> Vec<u8> {
    let id = format!("{}-054", net_reference(statement.window, party.code));
    let side = Side::of_net(party.net_minor());
    Message::write("camt.054.001.08", "BkToCstmrDbtCdtNtfctn", |m| {
        m.group("GrpHdr", |m| {
            m.text("MsgId", &id);
            m.text("CreDtTm", utc_millis(statement.closed));
            m.party("MsgRcpt", party.code);
        });
        m.group("Ntfctn", |m| {
            m.text("Id", &id);
            m.text("CreDtTm", utc_millis(statement.closed));
            m.group("FrToDt", |m| {
                m.text("FrDtTm", utc_millis(statement.opened));
                m.text("ToDtTm", utc_millis(statement.closed));
            });
            m.account(party.code, statement.scheme, statement.currency);
            summary(m, statement, party);
            m.group("Ntry", |m| {
                m.text("NtryRef", statement.window);
                m.amount("Amt", party.net_minor(), statement.currency);
                m.text("CdtDbtInd", side.code());
                m.group("Sts", |m| m.text("Cd", "PDNG"));
                m.group("ValDt", |m| m.text("Dt", statement.closed.business_date()));
                m.text("AcctSvcrRef", net_reference(statement.window, party.code));
                m.transaction_code(side, "WINDOW_NET");
                batch(m, statement, Side::Debit, party.debits, party.debits_minor);
                batch(m, statement, Side::Credit, party.credits, party.credits_minor);
                m.text(
                    "AddtlNtryInf",
                    format_args!(
                        "Net of window {}, {} payments, root {}",
                        statement.window,
                        party.records,
                        hexadecimal(&statement.root)
                    ),
                );
            });
        });
        m.window_particulars(statement, |m| {
            m.text("Participant", party.code);
            m.text("Records", party.records);
            if let Some(sha256) = &party.detail_sha256 {
                m.text("DetailSha256", hexadecimal(sha256));
            }
        });
    })
}

/// Totals over the entries, of which there is one.
fn summary(m: &mut Message, statement: &WindowStatement, party: &PartyStatement) {
    let net = decimal(party.net_minor(), statement.currency);
    m.group("TxsSummry", |m| {
        let name = match Side::of_net(party.net_minor()) {
            Side::Credit => "TtlCdtNtries",
            Side::Debit => "TtlDbtNtries",
        };
        m.group(name, |m| {
            m.text("NbOfNtries", 1);
            m.text("Sum", &net);
        });
    });
}

/// The payments of one direction, all together.
fn batch(m: &mut Message, statement: &WindowStatement, side: Side, payments: u64, sum_minor: Position) {
    m.group("NtryDtls", |m| {
        m.group("Btch", |m| {
            m.text("MsgId", pacs029::message_id(statement));
            m.text("PmtInfId", statement.window);
            m.text("NbOfTxs", payments);
            m.amount("TtlAmt", sum_minor, statement.currency);
            m.text("CdtDbtInd", side.code());
        });
    });
}
