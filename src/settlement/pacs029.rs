//! pacs.029.001.02, MultilateralSettlementRequest: one batch with every participant's net of a window.

use super::WindowStatement;
use super::xml::{Message, Side, decimal, net_reference, utc_millis, window_message_id};
use crate::domain::{Position, SchemeCode};

/// The id of a window's pacs.029, to which other messages refer.
pub(super) fn message_id(statement: &WindowStatement) -> String {
    window_message_id(statement.scheme, statement.window, 29)
}

/// The whole message, UTF-8.
///
/// Every participant there was at the close has a movement, `DBIT` where it must pay, `CRDT` where it is paid; a net of zero is
/// a credit of zero. The schema wants at least two movements: with fewer participants the clearing house itself has
/// movements of zero. An amount of more than 18 digits does not fit into an ISO 20022 message.
#[must_use]
pub fn to_xml(statement: &WindowStatement) -> Vec<u8> {
    let movements = movements(statement);
    // Of all movements, whichever way they go: what is to be paid, twice.
    let control_sum: Position = movements.iter().map(|(_, net_minor)| net_minor.abs()).sum();
    Message::write("pacs.029.001.02", "MulSttlmReq", |m| {
        m.group("GrpHdr", |m| {
            m.text("MsgId", message_id(statement));
            m.text("CreDtTm", utc_millis(statement.closed));
            m.text("NbOfSttlmReqs", 1);
            m.text("CtrlSum", decimal(control_sum, statement.currency));
            m.settlement_information();
        });
        m.group("SttlmReq", |m| {
            m.text("InstrId", statement.window);
            m.text("SttlmCycl", statement.window);
            m.text("NbOfMvmntRcrds", movements.len());
            for (number, &(code, net_minor)) in (1_u32..).zip(&movements) {
                m.group("MvmntRcrd", |m| {
                    m.text("Id", net_reference(statement.window, code));
                    m.text("SeqNb", number);
                    m.group("Amt", |m| {
                        m.amount("Amt", net_minor, statement.currency);
                        m.text("CdtDbt", Side::of_net(net_minor).code());
                    });
                    m.party("Ptcpt", code);
                });
            }
        });
        m.window_particulars(statement, |_| {});
    })
}

fn movements(statement: &WindowStatement) -> Vec<(SchemeCode, Position)> {
    const MOVEMENTS_MIN: usize = 2;
    let mut movements: Vec<_> = statement.parties.iter().map(|p| (p.code, p.net_minor())).collect();
    while movements.len() < MOVEMENTS_MIN {
        movements.push((statement.scheme, 0));
    }
    movements
}
