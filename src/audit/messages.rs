//! A window's ISO 20022 messages, held against the books: nets, transfers, notifications. Read by name of element, whatever
//! the namespace.

use std::collections::BTreeMap;
use std::path::Path;

use super::books::Books;
use super::invariant::{Finding, Invariant};
use super::notebook::Notebook;
use super::row::{code_of, currency_code, hex, time_text};
use super::window_books::{Closed, PartySums, participants};
use super::xml_file::{Element, decimal, read};
use crate::domain::{ParticipantIndex, Position};

/// What a window's messages must say.
pub(super) struct MessagesOf<'a> {
    pub(super) books: &'a Books,
    pub(super) window: &'a Closed,
    pub(super) root: &'a str,
    pub(super) journal_id: [u8; 16],
    pub(super) parties: &'a [PartySums],
    /// By participant: the hash that its detail file must have.
    pub(super) details: &'a BTreeMap<u16, String>,
    pub(super) directory: &'a Path,
    pub(super) shown: &'a str,
}

/// "DBIT" where the participant must pay; a net of zero is a credit.
fn side(net: Position) -> &'static str {
    if net > 0 { "DBIT" } else { "CRDT" }
}

impl MessagesOf<'_> {
    fn finding(&self, invariant: Invariant, file: &str, what: &str) -> Finding {
        invariant
            .broken(what.to_owned())
            .in_file(format!("{}/{file}", self.shown))
            .at(self.window.id)
    }

    fn amount(&self, net: Position) -> String {
        decimal(net.abs(), self.window.currency)
    }

    fn scheme(&self) -> String {
        self.books.scheme.map_or_else(String::new, |scheme| scheme.code.text())
    }

    /// Checks all of them; `taking_part` have a notification.
    pub(super) fn check(&self, taking_part: &[ParticipantIndex], notebook: &mut Notebook) {
        self.with("pacs.029.xml", "MulSttlmReq", notebook, |message, notebook| {
            self.nets(message, notebook);
        });
        self.with("pacs.009.xml", "FICdtTrf", notebook, |message, notebook| {
            self.transfers(message, notebook);
        });
        for &participant in taking_part {
            let file = format!("camt.054/{}.xml", code_of(self.books, participant));
            self.with(&file, "BkToCstmrDbtCdtNtfctn", notebook, |message, notebook| {
                self.notification(&file, participant, message, notebook);
            });
        }
    }

    /// Reads a message and sees that it speaks of this window and states its root.
    fn with(
        &self,
        file: &str,
        message: &str,
        notebook: &mut Notebook,
        check: impl FnOnce(&Element<'_>, &mut Notebook),
    ) {
        let read = read(&self.directory.join(file), |document| {
            let Some(found) = document.below(message).into_iter().next() else {
                notebook.find(self.finding(Invariant::Files, file, &format!("has no element {message}")));
                return;
            };
            self.particulars(file, document, notebook);
            for amount in document.all_with_attribute("Ccy") {
                notebook.same(&currency_code(self.window.currency).to_owned(), &amount, || {
                    self.finding(Invariant::Files, file, "the currency of an amount")
                });
            }
            check(&found, notebook);
        });
        match read {
            Ok(()) => notebook.checked(Invariant::Files, "ISO 20022 messages", 1),
            // That it is missing is told where the files are counted.
            Err(None) => {}
            Err(Some(error)) => notebook.find(self.finding(Invariant::Files, file, &error)),
        }
    }

    /// What every message says of the window beside what ISO 20022 has a place for.
    fn particulars(&self, file: &str, document: &Element<'_>, notebook: &mut Notebook) {
        let Some(told) = document.below("Window").into_iter().next() else {
            notebook.find(self.finding(Invariant::Replay, file, "does not state the window's root"));
            return;
        };
        let (window, gross) = (
            self.window,
            self.parties.iter().map(|party| party.debits_minor).sum::<Position>(),
        );
        for (field, right) in [
            ("Id", window.id.to_string()),
            ("Currency", currency_code(window.currency).to_owned()),
            ("Root", self.root.to_owned()),
            ("Journal", hex(&self.journal_id)),
            ("CloseEvent", window.event.to_string()),
            ("OpenedAt", time_text(window.trace.opened)),
            ("ClosedAt", time_text(window.closed)),
            ("Committed", window.trace.posted.len().to_string()),
            ("GrossMinor", gross.to_string()),
        ] {
            notebook.same(&right, &told.text(field), || {
                self.finding(Invariant::Replay, file, &field.to_lowercase())
            });
        }
    }

    fn nets(&self, message: &Element<'_>, notebook: &mut Notebook) {
        let file = "pacs.029.xml";
        let finding = |invariant, what: &str| self.finding(invariant, file, what);
        notebook.same(&self.window.id.to_string(), &message.text("SttlmReq/SttlmCycl"), || {
            finding(Invariant::Files, "the settlement cycle")
        });
        let mut expected: BTreeMap<String, Position> = participants(self.books)
            .map(|participant| {
                (
                    code_of(self.books, participant),
                    self.parties[participant.index()].net(),
                )
            })
            .collect();
        let movements = message.path("SttlmReq/MvmntRcrd");
        let scheme = self.scheme();
        let mut sum: Position = 0;
        for movement in &movements {
            let code = movement.text("Ptcpt/Id/OrgId/Othr/Id");
            let (amount, told_side) = (movement.text("Amt/Amt"), movement.text("Amt/CdtDbt"));
            if let Some(minor) = minor_of(&amount) {
                sum += if told_side == "DBIT" { minor } else { -minor };
            }
            match expected.remove(&code) {
                Some(net) => {
                    let ours = format!("{} {}", side(net), self.amount(net));
                    notebook.same(&ours, &format!("{told_side} {amount}"), || {
                        finding(Invariant::Positions, "the net").of(code)
                    });
                }
                // With fewer than two participants the clearing house fills up, with nothing.
                None if code == scheme && minor_of(&amount) == Some(0) => {}
                None => notebook.find(finding(Invariant::Files, "a movement that does not belong here").of(code)),
            }
        }
        for (code, net) in expected {
            let missing = finding(Invariant::Positions, "the net").of(code);
            notebook.find(missing.values(format!("{} {}", side(net), self.amount(net)), "nothing"));
        }
        notebook.same(&0, &sum, || {
            finding(Invariant::ZeroSum, "the sum of all movements, minor units")
        });
        notebook.checked(Invariant::ZeroSum, "sums of the nets in pacs.029", 1);
        notebook.checked(Invariant::Positions, "nets in pacs.029", movements.len() as u64);
        notebook.same(
            &movements.len().to_string(),
            &message.text("SttlmReq/NbOfMvmntRcrds"),
            || finding(Invariant::Files, "the number of movements"),
        );
        let control: Position = self.parties.iter().map(|party| party.net().abs()).sum();
        notebook.same(&self.amount(control), &message.text("GrpHdr/CtrlSum"), || {
            finding(Invariant::Files, "the control sum")
        });
    }

    /// Who must pay pays the clearing house, who is to be paid is paid by it.
    fn transfers(&self, message: &Element<'_>, notebook: &mut Notebook) {
        let file = "pacs.009.xml";
        let finding = |invariant, what: &str| self.finding(invariant, file, what);
        let scheme = self.scheme();
        let mut expected = BTreeMap::new();
        for participant in participants(self.books) {
            let (code, net) = (
                code_of(self.books, participant),
                self.parties[participant.index()].net(),
            );
            match net {
                1.. => expected.insert((code, scheme.clone()), self.amount(net)),
                0 => None,
                _ => expected.insert((scheme.clone(), code), self.amount(net)),
            };
        }
        let count = expected.len();
        for transfer in message.path("CdtTrfTxInf") {
            let member = |party: &str| transfer.text(&format!("{party}/FinInstnId/ClrSysMmbId/MmbId"));
            let (debtor, creditor) = (member("Dbtr"), member("Cdtr"));
            let amount = transfer.text("IntrBkSttlmAmt");
            let what = format!("the transfer from {debtor} to {creditor}");
            let participant = if debtor == scheme { &creditor } else { &debtor }.clone();
            match expected.remove(&(debtor, creditor)) {
                Some(right) => {
                    notebook.same(&right, &amount, || finding(Invariant::Positions, &what).of(participant));
                }
                None => notebook.find(
                    finding(Invariant::Positions, &what)
                        .of(participant)
                        .values("nothing", amount),
                ),
            }
        }
        for ((debtor, creditor), amount) in expected {
            let what = format!("the transfer from {debtor} to {creditor}");
            notebook.find(finding(Invariant::Positions, &what).values(amount, "nothing"));
        }
        notebook.checked(Invariant::Positions, "transfers in pacs.009", count as u64);
        notebook.same(&count.to_string(), &message.text("GrpHdr/NbOfTxs"), || {
            finding(Invariant::Files, "the number of transfers")
        });
        let total: Position = self.parties.iter().map(|party| party.net().abs()).sum();
        for place in ["GrpHdr/CtrlSum", "GrpHdr/TtlIntrBkSttlmAmt"] {
            notebook.same(&self.amount(total), &message.text(place), || {
                finding(Invariant::Files, place)
            });
        }
    }

    fn notification(&self, file: &str, participant: ParticipantIndex, message: &Element<'_>, notebook: &mut Notebook) {
        let (code, sums) = (code_of(self.books, participant), &self.parties[participant.index()]);
        let finding = |invariant, what: &str| self.finding(invariant, file, what).of(&*code);
        let entries = message.path("Ntfctn/Ntry");
        notebook.same(&1, &entries.len(), || {
            finding(Invariant::Files, "the number of entries")
        });
        let Some(entry) = entries.first() else { return };
        let ours = format!("{} {}", side(sums.net()), self.amount(sums.net()));
        let told = format!("{} {}", entry.text("CdtDbtInd"), entry.text("Amt"));
        notebook.same(&ours, &told, || finding(Invariant::Positions, "the net"));
        notebook.checked(Invariant::Positions, "nets in camt.054", 1);
        let nothing = String::new();
        let detail = self.details.get(&participant.0).unwrap_or(&nothing);
        let told = message.below("DetailSha256").first().map(Element::own_text);
        notebook.same(detail, &told.unwrap_or_default(), || {
            finding(Invariant::Files, "the hash of the detail file")
        });
        let account = format!("{code}-{}", currency_code(self.window.currency));
        for (place, right) in [
            ("Ntfctn/Ntry/NtryRef", self.window.id.to_string()),
            ("Ntfctn/Acct/Id/Othr/Id", account),
        ] {
            notebook.same(&right, &message.text(place), || finding(Invariant::Files, place));
        }
        for (batch_side, count, sum) in [
            ("DBIT", sums.debits, sums.debits_minor),
            ("CRDT", sums.credits, sums.credits_minor),
        ] {
            let batches = entry.path("NtryDtls/Btch");
            let mut of_side = batches.iter().filter(|batch| batch.text("CdtDbtInd") == batch_side);
            let told = of_side
                .next()
                .map(|batch| format!("{} of {}", batch.text("NbOfTxs"), batch.text("TtlAmt")));
            let told = told.unwrap_or_else(|| format!("0 of {}", self.amount(0)));
            notebook.same(&format!("{count} of {}", self.amount(sum)), &told, || {
                finding(Invariant::Files, &format!("the batch {batch_side}"))
            });
        }
    }
}

/// The digits of a decimal amount as a number of minor units: `12.34` is 1234.
fn minor_of(amount: &str) -> Option<Position> {
    let digits: String = amount.chars().filter(|&c| c != '.').collect();
    digits.parse().ok().filter(|minor| *minor >= 0)
}
