//! pacs.009.001.11, FinancialInstitutionCreditTransfer: the fallback, where the central bank takes no batch.
//!
//! Whoever must pay pays the clearing house, and then the clearing house pays whoever is to be paid.

use super::WindowStatement;
use super::xml::{Message, decimal, hexadecimal, net_reference, utc_millis, window_message_id};
use crate::domain::{Position, SchemeCode};

/// The whole message, UTF-8; `None` where nothing is to be paid, because a message without a transfer does not exist.
///
/// Debtors come first, then creditors, each in the order of their numbers. An amount of more than 18 digits does not fit into an
/// ISO 20022 message.
#[must_use]
pub fn to_xml(statement: &WindowStatement) -> Option<Vec<u8>> {
    let transfers = transfers(statement);
    if transfers.is_empty() {
        return None;
    }
    let currency = statement.currency;
    let total: Position = transfers.iter().map(|t| t.amount_minor).sum();
    let remittance = format!(
        "Net of window {}, root {}",
        statement.window,
        hexadecimal(&statement.root)
    );
    Some(Message::write("pacs.009.001.11", "FICdtTrf", |m| {
        m.group("GrpHdr", |m| {
            m.text("MsgId", window_message_id(statement.scheme, statement.window, 9));
            m.text("CreDtTm", utc_millis(statement.closed));
            m.text("NbOfTxs", transfers.len());
            m.text("CtrlSum", decimal(total, currency));
            m.amount("TtlIntrBkSttlmAmt", total, currency);
            m.text("IntrBkSttlmDt", statement.closed.business_date());
            m.settlement_information();
            m.institution("InstgAgt", statement.scheme);
        });
        for transfer in &transfers {
            let reference = net_reference(statement.window, transfer.participant);
            m.group("CdtTrfTxInf", |m| {
                m.group("PmtId", |m| {
                    m.text("InstrId", &reference);
                    m.text("EndToEndId", &reference);
                    m.text("TxId", &reference);
                });
                m.amount("IntrBkSttlmAmt", transfer.amount_minor, currency);
                m.institution("Dbtr", transfer.debtor);
                m.institution("Cdtr", transfer.creditor);
                m.group("RmtInf", |m| m.text("Ustrd", &remittance));
            });
        }
        m.window_particulars(statement, |_| {});
    }))
}

struct Transfer {
    /// The one of the two that is not the clearing house.
    participant: SchemeCode,
    debtor: SchemeCode,
    creditor: SchemeCode,
    amount_minor: Position,
}

fn transfers(statement: &WindowStatement) -> Vec<Transfer> {
    let house = statement.scheme;
    let pay = statement
        .parties
        .iter()
        .filter(|p| p.net_minor() > 0)
        .map(|p| Transfer {
            participant: p.code,
            debtor: p.code,
            creditor: house,
            amount_minor: p.net_minor(),
        });
    let are_paid = statement
        .parties
        .iter()
        .filter(|p| p.net_minor() < 0)
        .map(|p| Transfer {
            participant: p.code,
            debtor: house,
            creditor: p.code,
            amount_minor: -p.net_minor(),
        });
    pay.chain(are_paid).collect()
}
