//! What settlement wrote, read again as a participant would: by its own small readers, not by what wrote it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Serialize;
use serde_json::Value;

use crate::sim::{ParticipantFigures, WindowFigures};

/// What a run's settlement came to.
#[derive(Clone, Debug, Serialize)]
pub struct SettlementFigures {
    /// Windows with files.
    pub windows: u64,
    /// Their files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long all of them took to write.
    pub seconds: Option<f64>,
    /// The root of the last window.
    pub root: Option<String>,
}

/// What was read.
pub(super) struct SettledFiles {
    pub(super) figures: SettlementFigures,
    /// The windows with the nets that the detail files give, where a window was settled; else as the switch has them.
    pub(super) windows: Vec<WindowFigures>,
    /// Where files differ from each other or from the switch.
    pub(super) findings: Vec<String>,
}

/// What a participant's file comes to.
#[derive(Default, PartialEq, Eq, Debug)]
struct Sums {
    records: u64,
    debits_minor: i128,
    credits_minor: i128,
}

impl Sums {
    const fn net_minor(&self) -> i128 {
        self.debits_minor - self.credits_minor
    }
}

/// Reads the files of every settled window under `settlement`.
pub(super) fn read(
    settlement: &Path,
    windows: &[WindowFigures],
    participants: &[ParticipantFigures],
) -> Result<SettledFiles, String> {
    let mut read = SettledFiles {
        figures: SettlementFigures {
            windows: 0,
            files: 0,
            bytes: 0,
            seconds: None,
            root: None,
        },
        windows: Vec::new(),
        findings: Vec::new(),
    };
    for window in windows {
        if window.state != "settled" {
            read.windows.push(window.clone());
            continue;
        }
        let place = settlement.join(&window.id);
        let of_window = read_window(&place, window, participants, &mut read.findings)?;
        let (files, bytes) = disk_use(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        read.figures.windows += 1;
        read.figures.files += files;
        read.figures.bytes += bytes;
        read.figures.root = Some(of_window.0);
        read.windows.push(of_window.1);
    }
    Ok(read)
}

/// A window's root, and its figures by the detail files.
fn read_window(
    place: &Path,
    window: &WindowFigures,
    participants: &[ParticipantFigures],
    findings: &mut Vec<String>,
) -> Result<(String, WindowFigures), String> {
    let summary = json(&place.join("summary.json"))?;
    let listed = summary["participants"].as_array().cloned().unwrap_or_default();
    let listed: BTreeMap<&str, &Value> = listed
        .iter()
        .filter_map(|party| Some((party["code"].as_str()?, party)))
        .collect();
    let mut differs = |participant: &str, what: &str, left: String, right: String| {
        if left != right {
            findings.push(format!(
                "window {}, participant {participant}: the detail file comes to {what} {left}, {right} stands elsewhere",
                window.id
            ));
        }
    };
    let (mut nets, mut gross_minor, mut sides) = (Vec::new(), 0, 0);
    for participant in participants {
        let code = participant.code.as_str();
        let detail = place.join(format!("detail/{code}.csv"));
        let sums = if detail.exists() {
            detail_sums(&detail)?
        } else {
            Sums::default()
        };
        let net_minor = sums.net_minor();
        let of_switch = window.nets.iter().find(|(index, _)| *index == participant.index);
        let of_switch = of_switch.map_or(0, |(_, net)| *net);
        differs(code, "a net of", net_minor.to_string(), of_switch.to_string());
        let of_summary = listed
            .get(code)
            .map_or("nothing".to_owned(), |party| party["net_minor"].to_string());
        differs(code, "a net of", net_minor.to_string(), of_summary);
        if sums.records > 0 {
            let stated = json(&place.join(format!("detail/{code}.json")))?;
            let of_detail = format!("{} records, net {net_minor}", sums.records);
            let of_json = format!("{} records, net {}", stated["records"], stated["net_minor"]);
            differs(code, "", of_detail, of_json);
            let of_message = message_net(&place.join(format!("camt.054/{code}.xml")))?;
            differs(code, "a net of", net_minor.to_string(), of_message.to_string());
        }
        gross_minor += sums.debits_minor;
        sides += sums.records;
        nets.push((participant.index, net_minor));
    }
    let of_switch = format!("{} payments, gross {}", window.committed, window.gross_minor);
    // Every payment stands in two files.
    differs(
        "all",
        "",
        format!("{} payments, gross {gross_minor}", sides / 2),
        of_switch,
    );
    let root = summary["root"].as_str().unwrap_or_default().to_owned();
    let figures = WindowFigures {
        nets,
        committed: sides / 2,
        gross_minor,
        ..window.clone()
    };
    Ok((root, figures))
}

fn json(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn detail_sums(path: &Path) -> Result<Sums, String> {
    let fault = |what: &str| format!("{}: {what}", path.display());
    let file = File::open(path).map_err(|error| fault(&error.to_string()))?;
    let (mut lines, mut line) = (BufReader::with_capacity(1 << 18, file), String::new());
    let (mut sums, mut at_header) = (Sums::default(), true);
    while lines.read_line(&mut line).map_err(|error| fault(&error.to_string()))? > 0 {
        if !std::mem::take(&mut at_header) {
            let mut fields = line.trim_end().split(',');
            let amount = fields.nth(4).and_then(|amount| amount.parse::<i128>().ok());
            let amount = amount.ok_or_else(|| fault("a line has no amount"))?;
            match fields.next_back() {
                Some("debit") => sums.debits_minor += amount,
                Some("credit") => sums.credits_minor += amount,
                Some("none") => {}
                _other => return Err(fault("a line has no side")),
            }
            sums.records += 1;
        }
        line.clear();
    }
    Ok(sums)
}

/// The net of a camt.054's entry: positive where the participant must pay.
fn message_net(path: &Path) -> Result<i128, String> {
    let fault = |what: String| format!("{}: {what}", path.display());
    let mut reader = Reader::from_file(path).map_err(|error| fault(error.to_string()))?;
    let (mut bytes, mut within) = (Vec::new(), Vec::<String>::new());
    let (mut amount, mut is_debit) = (None, None);
    loop {
        match reader
            .read_event_into(&mut bytes)
            .map_err(|error| fault(error.to_string()))?
        {
            Event::Start(start) => within.push(start.local_name().as_ref().to_owned()),
            Event::End(_) => drop(within.pop()),
            Event::Text(text) => {
                let names: Vec<&str> = within.iter().rev().take(2).map(String::as_str).collect();
                let text: &str = &text;
                match names.as_slice() {
                    // All digits of the currency are written: without the point it is the number of minor units.
                    ["Amt", "Ntry"] => amount = text.replace('.', "").parse::<i128>().ok(),
                    ["CdtDbtInd", "Ntry"] => is_debit = Some(text == "DBIT"),
                    _other => {}
                }
            }
            Event::Eof => break,
            _other => {}
        }
        bytes.clear();
    }
    match (amount, is_debit) {
        (Some(amount), Some(true)) => Ok(amount),
        (Some(amount), Some(false)) => Ok(-amount),
        _missing => Err(fault("it has no entry".to_owned())),
    }
}

fn disk_use(directory: &Path) -> std::io::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        let (more_files, more_bytes) = if facts.is_dir() {
            disk_use(&entry.path())?
        } else {
            (1, facts.len())
        };
        files += more_files;
        bytes += more_bytes;
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::FileDoor;
    use crate::settlement::made_up::MadeUpWindow;
    use crate::settlement::{Existing, SettlementDirectory, publish_window};

    fn written() -> (tempfile::TempDir, WindowFigures, Vec<ParticipantFigures>) {
        let made_up = MadeUpWindow {
            seed: 5,
            payments: 500,
            institutions: 3,
            banks: 4,
            seconds: 60,
        };
        let (place, facts) = (tempfile::tempdir().unwrap(), made_up.facts());
        let directory = SettlementDirectory::new(place.path().to_owned(), FileDoor::OPEN);
        publish_window(&facts, made_up.payments().map(Ok), &directory, Existing::Keep).unwrap();
        let nets = facts.parties.iter().map(|party| (party.index.0, party.net_minor));
        let window = WindowFigures {
            id: facts.window.to_string(),
            currency: facts.currency.0,
            state: "settled".to_owned(),
            opened_ns: 0,
            closed_ns: 0,
            committed: facts.committed,
            gross_minor: facts.gross_minor,
            nets: nets.collect(),
        };
        let participants = facts.parties.iter().map(|party| ParticipantFigures {
            index: party.index.0,
            code: party.code.text(),
            links: 0,
            position_minor: 0,
            reserved_minor: 0,
            cover_minor: 0,
            cap_minor: 0,
        });
        (place, window, participants.collect())
    }

    #[test]
    fn files_that_were_written_come_to_what_the_switch_says() {
        let (place, window, participants) = written();
        let read = read(place.path(), std::slice::from_ref(&window), &participants).unwrap();
        assert_eq!(read.findings, Vec::<String>::new());
        assert_eq!(read.windows[0].gross_minor, window.gross_minor);
        assert_eq!(read.windows[0].committed, window.committed);
        assert!(read.figures.files > 20 && read.figures.root.is_some_and(|root| root.len() == 64));
    }

    #[test]
    fn a_changed_amount_in_any_of_the_files_is_a_finding() {
        let spoil = |name: &str, from: &str, to: &str| {
            let (place, window, participants) = written();
            let code = &participants[0].code;
            let path = place.path().join(&window.id).join(name.replace("CODE", code));
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            read(place.path(), &[window], &participants).unwrap().findings
        };
        assert!(!spoil("detail/CODE.csv", ",CNY,", ",CNY,9").is_empty());
        assert!(!spoil("detail/CODE.json", "\"net_minor\"", "\"net_minor\": 1, \"else\"").is_empty());
        assert!(!spoil("camt.054/CODE.xml", "<Amt Ccy=\"CNY\">", "<Amt Ccy=\"CNY\">9").is_empty());
        assert!(!spoil("summary.json", "\"net_minor\"", "\"net_minor\": 1, \"else\"").is_empty());
    }
}
