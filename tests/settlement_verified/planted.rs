//! Faults, planted one for each invariant. Whoever planted them knows the formats: CRCs, hashes, counts beside files and
//! SHA256SUMS are right again, so that only making everything again from the journal can find them.

use std::fs;
use std::path::{Path, PathBuf};

use bytemuck::{bytes_of, pod_read_unaligned};
use clearway::domain::{BusinessDate, Code, ParticipantIndex, ParticipantTerms, UtcNanos, WindowId};
use clearway::journal::JournalFiles;
use clearway::register::{DayRegister, FileDoor, Filed, FiledWord, RegisterKey, RegisterOptions, Run, RunName};
use clearway::wire::{RecordKind, RegisterEntry, ReplyEvent, WordKind};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::evening::{Copied, EVENING};
use crate::support::journal_bytes::{Bytes, rewrite_only_the_journal};

/// The bank of the evening and its code's place.
const BANK: u16 = 2;

/// Something must be found that breaks this invariant and says this; gives all that was found.
#[track_caller]
fn found(evening: &Copied, invariant: u8, says: &str) -> Vec<Value> {
    let (output, report) = evening.verified();
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let verdict = &report["invariants"][usize::from(invariant) - 1];
    assert_eq!(verdict["holds"], false, "invariant {invariant}: {report:#}");
    let findings = report["findings"].as_array().unwrap().clone();
    let fits = |finding: &&Value| {
        finding["invariant"] == invariant && finding["text"].as_str().is_some_and(|text| text.contains(says))
    };
    assert!(
        findings.iter().any(|finding| fits(&finding)),
        "nothing says {says:?}: {findings:#?}"
    );
    findings
}

/// The same, and nothing else is found.
#[track_caller]
fn found_alone(evening: &Copied, invariant: u8, says: &str) {
    let others: Vec<Value> = found(evening, invariant, says)
        .into_iter()
        .filter(|finding| finding["invariant"] != invariant)
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let before = fs::read_to_string(path).unwrap();
    let after = change(before.clone());
    assert_ne!(before, after, "{}: nothing was planted", path.display());
    fs::write(path, after).unwrap();
}

/// Changes a participant's terms as they stand in the journal.
fn change_terms(evening: &Copied, of: u16, change: impl Fn(&mut ParticipantTerms)) {
    rewrite_only_the_journal(evening.path(), |record: Bytes<'_>| {
        if record.kind == RecordKind::Participant {
            let mut terms: ParticipantTerms = pod_read_unaligned(record.payload);
            if terms.index.0 == of {
                change(&mut terms);
                record.payload.copy_from_slice(bytes_of(&terms));
            }
        }
    });
}

/// The code of the evening's bank: the detail files have it in their names.
fn bank_code() -> String {
    use clearway::config::Directory;
    Directory::generate(2, 2).participants[usize::from(BANK)]
        .terms
        .code
        .text()
}

/// Changes a detail file's text, and makes right again what says its hash.
fn edit_detail(window: &Path, change: impl FnOnce(String) -> String) {
    let code = bank_code();
    let csv = window.join(format!("detail/{code}.csv"));
    let before = hash(&csv);
    edit(&csv, change);
    let after = hash(&csv);
    for file in [
        format!("detail/{code}.json"),
        "summary.json".to_owned(),
        format!("camt.054/{code}.xml"),
    ] {
        edit(&window.join(file), |text| text.replace(&before, &after));
    }
    Copied::cover_up(window);
}

fn hash(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the register again, as it is but for what `keep` does not keep and for the words that are added.
fn rewrite_register(evening: &Copied, keep: impl Fn(&FiledWord) -> bool, more: &[FiledWord]) {
    let directory = evening.path().join("register");
    let journal_id = JournalFiles::open(&evening.path().join("journal"))
        .unwrap()
        .journal_id();
    let (mut payments, mut words): (Vec<RegisterEntry>, Vec<FiledWord>) = (Vec::new(), Vec::new());
    for day in fs::read_dir(&directory).unwrap() {
        let day = day.unwrap().path();
        payments.extend(records::<RegisterEntry>(&day, journal_id));
        words.extend(records::<FiledWord>(&day, journal_id));
    }
    fs::remove_dir_all(&directory).unwrap();
    let mut register = DayRegister::create(&RegisterOptions {
        directory,
        journal_id,
        payments_in_memory: 4_096,
        door: FileDoor::OPEN,
    })
    .unwrap();
    payments.iter().for_each(|entry| register.file_payment(entry));
    let kept = words.iter().filter(|word| keep(word)).chain(more);
    kept.for_each(|word| register.file_word(&word.word, word.time));
    register.flush().unwrap();
}

fn records<T: Filed>(day: &Path, journal_id: [u8; 16]) -> Vec<T> {
    let paths = fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path());
    let is_run = |path: &PathBuf| RunName::parse(&path.file_name().unwrap().to_string_lossy(), T::NAME).is_some();
    let all = |path: PathBuf| {
        let run = Run::open::<T>(&path, journal_id).unwrap();
        let (first, last) = (
            RegisterKey { high: 0, low: 0 },
            RegisterKey {
                high: u64::MAX,
                low: u64::MAX,
            },
        );
        run.range::<T>(first, last, 100_000).unwrap()
    };
    paths.filter(is_run).flat_map(all).collect()
}

#[test]
fn invariant_1_a_net_in_pacs_029_that_does_not_cancel_is_found() {
    let evening = EVENING.copied();
    let window = &evening.windows()[0];
    edit(&window.join("pacs.029.xml"), |text| {
        let amount = text
            .split("DBIT")
            .next()
            .unwrap()
            .rsplit("<Amt Ccy=\"CNY\">")
            .next()
            .unwrap();
        let amount = amount.split('<').next().unwrap().to_owned();
        text.replacen(&format!(">{amount}</Amt>"), ">1.00</Amt>", 1)
    });
    Copied::cover_up(window);
    let findings = found(&evening, 1, "the sum of all movements");
    let of_net =
        |finding: &&Value| finding["invariant"] == 2 && finding["file"].as_str().unwrap().ends_with("pacs.029.xml");
    let net = findings.iter().find(of_net).expect("the participant is named, too");
    assert_eq!(net["participant"].as_str().map(str::len), Some(14), "{net:#}");
    assert_eq!(net["window"], window.file_name().unwrap().to_str().unwrap());
}

#[test]
fn invariant_2_a_closing_balance_a_transfer_and_a_notified_net_that_are_not_the_ledgers_are_found() {
    let evening = EVENING.copied();
    let day = fs::read_dir(evening.path().join("settlement/day"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    edit(&day.join(format!("camt.053/{}.xml", bank_code())), |text| {
        // The last balance is the closing one.
        let at = text.rfind("</Bal>").unwrap();
        let amount = text[..at].rfind("<Amt Ccy=\"CNY\">").unwrap() + "<Amt Ccy=\"CNY\">".len();
        format!("{}7{}", &text[..amount], &text[amount..])
    });
    Copied::cover_up(&day);
    found_alone(&evening, 2, "the closing balance");
    for (file, says) in [
        ("pacs.009.xml".to_owned(), "the transfer from"),
        (format!("camt.054/{}.xml", bank_code()), "the net"),
    ] {
        let evening = EVENING.copied();
        let window = &evening.windows()[0];
        let place = if file.starts_with("pacs") {
            "<IntrBkSttlmAmt Ccy=\"CNY\">"
        } else {
            "<Amt Ccy=\"CNY\">"
        };
        edit(&window.join(file), |text| text.replacen(place, &format!("{place}9"), 1));
        Copied::cover_up(window);
        found_alone(&evening, 2, says);
    }
}

#[test]
fn invariant_3_a_payment_that_the_cap_did_not_admit_and_that_is_settled_is_found() {
    let evening = EVENING.copied();
    // The switch that wrote the files overlooked that the bank's cap is lower than its first payment of 4,000.
    change_terms(&evening, BANK, |terms| terms.accounts[0].cap_minor = 3_999);
    let findings = found(&evening, 3, "position + reserved exceed the cap");
    let first = EVENING.committed.to_string();
    for place in ["register", "detail/"] {
        let named = |finding: &&Value| {
            let text = finding["text"].as_str().unwrap();
            finding["invariant"] == 3 && text.contains(&first) && text.contains(place)
        };
        assert!(findings.iter().any(|finding| named(&finding)), "{place}: {findings:#?}");
    }
}

#[test]
fn invariant_4_a_payment_in_a_window_that_is_not_its_own_or_that_did_not_commit_is_found() {
    let [declined, expired] = [EVENING.declined, EVENING.expired].map(|id| id.to_string());
    for (id, says) in [
        (declined, "is Declined and in a window"),
        (expired, "is Expired and in a window"),
    ] {
        let evening = EVENING.copied();
        edit_detail(&evening.windows()[1], |text| {
            let line = text.lines().last().unwrap().to_owned();
            let rest = line.split_once(',').unwrap().1;
            format!("{text}{id},{rest}\n")
        });
        found(&evening, 4, says);
    }
    let evening = EVENING.copied();
    let windows = evening.windows();
    let of_the_first = fs::read_to_string(windows[0].join(format!("detail/{}.csv", bank_code()))).unwrap();
    let line = of_the_first.lines().nth(1).unwrap().to_owned();
    edit_detail(&windows[1], |text| format!("{text}{line}\n"));
    found(
        &evening,
        4,
        &format!("is of window {}", windows[0].file_name().unwrap().to_str().unwrap()),
    );
}

#[test]
fn invariant_5_a_payment_refused_for_cover_that_nothing_uses_is_found() {
    let evening = EVENING.copied();
    // By the journal there is room for the payment of 9,000: the switch that refused it held more than is open.
    change_terms(&evening, BANK, |terms| {
        (terms.accounts[0].cover_minor, terms.accounts[0].cap_minor) = (100_000, 100_000);
    });
    let findings = found(
        &evening,
        5,
        "refused for cover that no open payment and no position uses",
    );
    let text = EVENING.over_cap.to_string();
    assert!(
        findings
            .iter()
            .any(|finding| finding["invariant"] == 5 && finding["what"].as_str().unwrap().contains(&text))
    );
}

#[test]
fn invariant_6_a_second_answer_and_an_answer_that_is_not_the_journals_are_found() {
    let evening = EVENING.copied();
    let mut word: FiledWord = bytemuck::Zeroable::zeroed();
    (word.word.number, word.word.id) = (9_999, EVENING.committed);
    (word.word.participant, word.word.kind) = (ParticipantIndex(0), WordKind::Answer as u8);
    word.time = UtcNanos(clearway::agent::wall_clock().0);
    rewrite_register(&evening, |_| true, &[word]);
    found_alone(
        &evening,
        6,
        &format!("payment {}: a second final answer", EVENING.committed),
    );

    let evening = EVENING.copied();
    rewrite_only_the_journal(evening.path(), |record| {
        if record.kind == RecordKind::Reply {
            let mut reply: ReplyEvent = pod_read_unaligned(record.payload);
            if reply.body.id == EVENING.declined {
                reply.body.code = Code::SuspectedFraud as u8;
                record.payload.copy_from_slice(bytes_of(&reply));
            }
        }
    });
    let findings = found(&evening, 6, "its final state");
    let told = findings.iter().find(|finding| finding["invariant"] == 6).unwrap();
    assert_eq!(
        (&told["journal"], &told["told"]),
        (&Value::from("Declined, code 28"), &Value::from("Declined, code 23"))
    );
}

#[test]
fn invariant_7_a_row_a_count_and_an_order_that_are_not_the_ledgers_are_found_though_their_hashes_are_right() {
    let another_scene = |text: String| {
        let line = text.lines().nth(3).unwrap().to_owned();
        let scene = line.split(',').nth(2).unwrap();
        let other = if scene == "other" { "utility" } else { "other" };
        text.replace(&line, &line.replace(scene, other))
    };
    let two_the_other_way_round = |text: String| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(4, 5);
        lines.join("\n") + "\n"
    };
    let one_less = |text: String| {
        let line = text.lines().nth(6).unwrap().to_owned();
        text.replace(&format!("{line}\n"), "")
    };
    let changes: [(&dyn Fn(String) -> String, &str); 3] = [
        (&another_scene, ", scene"),
        (&two_the_other_way_round, "missing"),
        (&one_less, "is missing"),
    ];
    for (change, says) in changes {
        let evening = EVENING.copied();
        edit_detail(&evening.windows()[0], change);
        found_alone(&evening, 7, says);
    }
    let evening = EVENING.copied();
    let window = &evening.windows()[0];
    edit(&window.join("summary.json"), |text| {
        text.replacen("\"declined\": 1", "\"declined\": 0", 1)
    });
    Copied::cover_up(window);
    found_alone(&evening, 7, "tallies.");
}

#[test]
fn invariant_8_files_that_the_journal_does_not_give_are_found() {
    let evening = EVENING.copied();
    let window = &evening.windows()[0];
    fs::write(window.join("detail/note.txt"), "not ours").unwrap();
    Copied::cover_up(window);
    found_alone(&evening, 8, "detail/note.txt: ");

    // Another root in all files alike: nothing but the rows themselves says that it is wrong.
    let evening = EVENING.copied();
    let window = &evening.windows()[0];
    let summary: Value = serde_json::from_slice(&fs::read(window.join("summary.json")).unwrap()).unwrap();
    let root = summary["root"].as_str().unwrap();
    let mut other = root.to_owned();
    other.replace_range(0..1, if root.starts_with('0') { "1" } else { "0" });
    let mut changed = 0;
    for directory in ["", "detail", "camt.054"] {
        for entry in fs::read_dir(window.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && fs::read_to_string(&path).unwrap().contains(root) {
                edit(&path, |text| text.replace(root, &other));
                changed += 1;
            }
        }
    }
    assert!(changed >= 7, "{changed} files say the root");
    Copied::cover_up(window);
    found_alone(&evening, 8, "root");

    // A settled window whose files are gone, and a window that never was.
    let evening = EVENING.copied();
    let windows = evening.windows();
    let never = WindowId::new(BusinessDate(20_200_101), 1).to_string();
    fs::rename(&windows[0], windows[0].with_file_name(never)).unwrap();
    found_alone(&evening, 8, "is settled, and its files are missing");
    found_alone(&evening, 8, "no closed window of the journal");
}

#[test]
fn invariant_9_an_expired_pull_whose_bank_was_told_no_reversal_is_found() {
    let evening = EVENING.copied();
    rewrite_register(&evening, |word| word.word.kind != WordKind::Reversal as u8, &[]);
    found_alone(
        &evening,
        9,
        &format!("payment {}: expired after it was sent", EVENING.expired),
    );
}

#[test]
fn invariant_10_more_payments_unanswered_or_a_second_than_the_contract_are_found() {
    let evening = EVENING.copied();
    change_terms(&evening, 0, |terms| terms.contract.intake_in_flight_max = 0);
    found_alone(&evening, 10, "payments unanswered on link");

    let evening = EVENING.copied();
    change_terms(&evening, 0, |terms| terms.contract.intake_per_second_max = 1);
    found_alone(&evening, 10, "sent more payments than 1 a second");
}

#[test]
fn a_refund_of_more_than_its_original_that_was_answered_yes_is_found() {
    let evening = EVENING.copied();
    // By the journal the original was of 350 and not of 4,000: its second refund of 100 exceeds it.
    rewrite_only_the_journal(evening.path(), |record| {
        let id = |at: usize| {
            record
                .payload
                .get(at..at + 16)
                .map(pod_read_unaligned::<clearway::domain::PaymentId>)
        };
        if matches!(record.kind, RecordKind::Request | RecordKind::Reply) && id(16) == Some(EVENING.committed) {
            record.payload[32..40].copy_from_slice(&350_u64.to_le_bytes());
        }
    });
    let findings = found(&evening, 7, "amount_minor");
    let told = |finding: &&Value| finding["text"].as_str().unwrap().contains("Rejected, code 26");
    assert!(findings.iter().any(|finding| told(&finding)), "{findings:#?}");
}
