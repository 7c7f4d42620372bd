//! Windows' files as they stand on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::SettlementError;
use super::facts::{FinalPayment, WindowFacts};
use super::files::{Existing, SettlementDirectory};
use super::made_up::MadeUpWindow;
use super::merkle::{MerkleTree, from_hex, leaf_hash, root_hash};
use super::pass::{publish_window, write_window};
use super::sums;
use crate::domain::{Code, ParticipantIndex, PaymentState, WindowId};
use crate::register::{FileDoor, FileGate, FileStep};

const MADE_UP: MadeUpWindow = MadeUpWindow {
    seed: 2019,
    payments: 5_000,
    institutions: 5,
    banks: 9,
    seconds: 600,
};

fn payments(made_up: &MadeUpWindow) -> impl Iterator<Item = Result<FinalPayment, SettlementError>> + use<> {
    made_up.payments().map(Ok)
}

fn directory(path: &Path) -> SettlementDirectory {
    SettlementDirectory::new(path.to_owned(), FileDoor::OPEN)
}

/// Every file below, by name.
fn files_in(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![path.to_owned()];
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                directories.push(file);
            } else {
                let name = file.strip_prefix(path).unwrap().to_string_lossy().into_owned();
                files.insert(name, fs::read(&file).unwrap());
            }
        }
    }
    files
}

#[test]
fn the_same_payments_give_the_same_files_byte_for_byte() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let facts = MADE_UP.facts();
    for place in [&one, &other] {
        let written = publish_window(&facts, payments(&MADE_UP), &directory(place.path()), Existing::Keep);
        assert!(!written.unwrap().1.was_there);
    }
    let files = files_in(one.path());
    assert!(files.len() > 30 && files == files_in(other.path()));
    let again = publish_window(&facts, payments(&MADE_UP), &directory(one.path()), Existing::Keep);
    assert!(again.unwrap().1.was_there, "the same files are known again");
    assert_eq!(files, files_in(one.path()));
}

#[test]
fn sums_counts_hashes_and_the_root_tie_between_all_files() {
    let place = tempfile::tempdir().unwrap();
    let facts = MADE_UP.facts();
    let (statement, publication) =
        publish_window(&facts, payments(&MADE_UP), &directory(place.path()), Existing::Keep).unwrap();
    let files = files_in(&publication.directory);
    assert_eq!(publication.files, files.len() as u64);
    assert_eq!(
        publication.bytes,
        files.values().map(|bytes| bytes.len() as u64).sum::<u64>()
    );

    let summary: serde_json::Value = serde_json::from_slice(&files["summary.json"]).unwrap();
    let mut rows: BTreeMap<u64, String> = BTreeMap::new();
    let mut nets = 0;
    for party in summary["participants"].as_array().unwrap() {
        let code = party["code"].as_str().unwrap();
        let Some(hash) = party["detail_sha256"].as_str() else {
            assert_eq!(party["records"], 0);
            assert!(!files.contains_key(&format!("detail/{code}.csv")));
            continue;
        };
        let csv = std::str::from_utf8(&files[&format!("detail/{code}.csv")]).unwrap();
        assert_eq!(from_hex(hash).unwrap(), super::merkle::hash_of(csv.as_bytes()));
        let (mut debits, mut credits, mut records, mut leaf_before) = (0, 0, 0, None);
        for line in csv.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let (amount, leaf) = (fields[4].parse::<i64>().unwrap(), fields[11].parse::<u64>().unwrap());
            match fields[12] {
                "debit" => debits += amount,
                "credit" => credits += amount,
                "none" => assert!(fields[1].ends_with("bind")),
                other => panic!("side {other}"),
            }
            assert!(Some(leaf) > leaf_before, "lines are in the order of the leaves");
            leaf_before = Some(leaf);
            records += 1;
            let row = fields[..10].join(",");
            let known = rows.entry(leaf).or_insert_with(|| row.clone());
            assert_eq!(*known, row, "both sides see the same payment");
        }
        assert_eq!(party["records"], records);
        assert_eq!(party["debits_minor"], debits);
        assert_eq!(party["credits_minor"], credits);
        assert_eq!(party["net_minor"], debits - credits);
        nets += debits - credits;
        let detail: serde_json::Value = serde_json::from_slice(&files[&format!("detail/{code}.json")]).unwrap();
        for (of_detail, of_summary) in [
            ("records", "records"),
            ("debits", "debits"),
            ("debits_minor", "debits_minor"),
            ("credits", "credits"),
            ("credits_minor", "credits_minor"),
            ("net_minor", "net_minor"),
            ("sha256", "detail_sha256"),
        ] {
            assert_eq!(detail[of_detail], party[of_summary], "{code}: {of_detail}");
        }
        assert_eq!(detail["root"], summary["root"]);
    }
    assert_eq!(nets, 0);
    assert_eq!(rows.len() as u64, facts.committed);
    assert_eq!(rows.keys().copied().last(), Some(facts.committed - 1));
    let mut tree = MerkleTree::default();
    rows.values().for_each(|row| tree.push(leaf_hash(row.as_bytes())));
    assert_eq!(
        statement.root,
        root_hash(facts.window, facts.currency, facts.committed, &tree.tree_hash())
    );
    assert_eq!(summary["root"], super::merkle::hex(&statement.root));
    let all = &summary["tallies"]["all"];
    let finals = ["committed", "declined", "expired", "rejected"].map(|state| all[state].as_u64().unwrap());
    assert_eq!(finals.iter().sum::<u64>(), MADE_UP.payments);
    assert_eq!(all["committed"], facts.committed);
    let flows = summary["flows"].as_array().unwrap();
    assert_eq!(flows.len(), 20);
    assert!(
        flows
            .windows(2)
            .all(|two| two[0]["amount_minor"].as_u64() >= two[1]["amount_minor"].as_u64())
    );
    assert!(sums::check(&publication.directory).unwrap().is_empty());
}

#[test]
fn a_window_without_a_payment_has_its_files_and_the_root_of_nothing() {
    let place = tempfile::tempdir().unwrap();
    let none = MadeUpWindow { payments: 0, ..MADE_UP };
    let (statement, publication) =
        publish_window(&none.facts(), payments(&none), &directory(place.path()), Existing::Keep).unwrap();
    let nothing = super::merkle::hash_of(b"");
    assert_eq!(
        statement.root,
        root_hash(statement.window, statement.currency, 0, &nothing)
    );
    let files = files_in(&publication.directory);
    assert!(
        !files
            .keys()
            .any(|name| name.starts_with("detail") || name.starts_with("camt.054"))
    );
    let summary: serde_json::Value = serde_json::from_slice(&files["summary.json"]).unwrap();
    assert_eq!(summary["tallies"]["all"]["success_bp"], serde_json::Value::Null);
    assert_eq!(summary["participants"].as_array().unwrap().len(), 14);
}

/// A spoiled list of payments, by name.
type Spoiled = (&'static str, fn(&mut Vec<FinalPayment>, &mut WindowFacts));

#[test]
fn payments_that_are_not_what_the_engine_had_are_no_window() {
    let spoils: &[Spoiled] = &[
        ("the number of final payments", |payments, _| {
            payments.pop();
        }),
        ("the number of committed payments", |payments, _| {
            let entry = &mut first_committed(payments).entry;
            entry.state = PaymentState::Declined as u8;
            entry.code = Code::BankDeclined as u8;
            entry.window = WindowId::NONE;
        }),
        ("the sum of the committed amounts", |payments, _| {
            first_committed(payments).entry.amount_minor += 1;
        }),
        ("the net of participant", |payments, _| {
            let entry = &mut first_committed(payments).entry;
            let other = if entry.responder.0 == 5 { 6 } else { 5 };
            entry.responder = ParticipantIndex(other);
        }),
        ("is there twice", |payments, facts| {
            let twice = *first_committed(payments);
            let at = payments.iter().position(|payment| *payment == twice).unwrap();
            payments.insert(at, twice);
            facts.finals += 1;
            facts.committed += 1;
        }),
        ("comes after a later one", |payments, _| payments.swap(10, 11)),
        ("another window or currency", |payments, _| {
            first_committed(payments).entry.window = WindowId(202_611_230_001);
        }),
        ("was not there at the close", |payments, _| {
            first_committed(payments).entry.responder = ParticipantIndex(14);
        }),
        ("is not final", |payments, _| {
            first_committed(payments).entry.state = PaymentState::InDoubt as u8;
        }),
    ];
    for (reason, spoil) in spoils {
        let place = tempfile::tempdir().unwrap();
        let mut facts = MADE_UP.facts();
        let mut spoiled: Vec<FinalPayment> = MADE_UP.payments().collect();
        spoil(&mut spoiled, &mut facts);
        let written = publish_window(
            &facts,
            spoiled.into_iter().map(Ok),
            &directory(place.path()),
            Existing::Keep,
        );
        let error = written.expect_err(reason);
        assert!(
            error.is_breach() && error.to_string().contains("invariant 7"),
            "{reason}: {error}"
        );
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert!(files_in(place.path()).is_empty(), "{reason}: nothing is left behind");
    }
}

fn first_committed(payments: &mut [FinalPayment]) -> &mut FinalPayment {
    let mut debits = payments.iter_mut().filter(|payment| payment.entry.kind == 1);
    debits
        .find(|payment| payment.entry.state == PaymentState::Committed as u8)
        .expect("most are committed")
}

#[test]
fn files_that_differ_are_left_as_they_are_and_named_unless_they_are_to_be_replaced() {
    let place = tempfile::tempdir().unwrap();
    let facts = MADE_UP.facts();
    let write = |existing| publish_window(&facts, payments(&MADE_UP), &directory(place.path()), existing);
    let written = write(Existing::Keep).unwrap().1.directory;
    let good = files_in(&written);
    fs::write(written.join("summary.json"), "{}").unwrap();
    fs::write(written.join("detail/extra.csv"), "").unwrap();
    fs::remove_file(written.join("pacs.029.xml")).unwrap();
    assert_eq!(sums::check(&written).unwrap().len(), 3);
    let spoiled = files_in(place.path());
    let error = write(Existing::Keep).unwrap_err().to_string();
    for name in ["summary.json", "detail/extra.csv", "pacs.029.xml"] {
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(files_in(place.path()), spoiled, "nothing was touched");
    assert!(!write(Existing::Replace).unwrap().1.was_there);
    assert_eq!(files_in(&written), good);
    fs::remove_file(written.join("SHA256SUMS")).unwrap();
    assert!(write(Existing::Keep).unwrap_err().to_string().contains("SHA256SUMS"));
    assert!(!write(Existing::Replace).unwrap().1.was_there);
    assert_eq!(files_in(&written), good);
}

#[test]
fn a_process_that_may_open_few_files_writes_the_same() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let facts = MADE_UP.facts();
    publish_window(&facts, payments(&MADE_UP), &directory(one.path()), Existing::Keep).unwrap();
    let few = directory(other.path());
    let mut draft = few.begin(few.window(facts.window)).unwrap();
    draft.keep_open(2);
    write_window(&facts, payments(&MADE_UP), &mut draft).unwrap();
    draft.publish(Existing::Keep).unwrap();
    assert_eq!(files_in(one.path()), files_in(other.path()));
}

/// Refuses everything from step number `from` on, as a machine that has stopped does.
struct StopsAt {
    from: u64,
    step: AtomicU64,
}

impl FileGate for StopsAt {
    fn before(&self, _: FileStep<'_>, _: &Path) -> io::Result<()> {
        if self.step.fetch_add(1, Ordering::Relaxed) >= self.from {
            return Err(io::Error::other("the machine has stopped"));
        }
        Ok(())
    }
}

#[test]
fn a_machine_that_stops_at_any_step_leaves_a_window_whole_or_not_at_all() {
    let small = MadeUpWindow {
        payments: 300,
        institutions: 1,
        banks: 2,
        ..MADE_UP
    };
    let facts = small.facts();
    let whole = tempfile::tempdir().unwrap();
    publish_window(&facts, payments(&small), &directory(whole.path()), Existing::Keep).unwrap();
    let good = files_in(whole.path());
    let mut stopped = 0;
    for from in 0.. {
        let place = tempfile::tempdir().unwrap();
        let gate = Arc::new(StopsAt {
            from,
            step: AtomicU64::new(0),
        });
        let failing = SettlementDirectory::new(place.path().to_owned(), FileDoor::with(Some(gate)));
        let written = publish_window(&facts, payments(&small), &failing, Existing::Keep);
        let window = place.path().join(facts.window.to_string());
        assert!(
            !window.exists() || files_in(&window).len() == good.len(),
            "step {from}: half a window"
        );
        if written.is_ok() {
            break;
        }
        stopped += 1;
        publish_window(&facts, payments(&small), &directory(place.path()), Existing::Keep).unwrap();
        assert_eq!(files_in(place.path()), good, "step {from}: written again after it");
    }
    assert!(stopped > 30, "only {stopped} steps were stopped at");
}

#[test]
fn a_spoiled_spool_is_refused_wherever_it_is_spoiled() {
    let small = MadeUpWindow {
        payments: 40,
        institutions: 1,
        banks: 2,
        ..MADE_UP
    };
    let place = tempfile::tempdir().unwrap();
    let spool = small.spool(place.path()).unwrap();
    let write = || {
        let out = tempfile::tempdir().unwrap();
        let facts = spool.facts(MadeUpWindow::WINDOW)?;
        publish_window(&facts, spool.finals(&facts)?, &directory(out.path()), Existing::Keep).map(|(of, _)| of.root)
    };
    let root = write().unwrap();
    for end in ["facts", "finals"] {
        let path = place.path().join(format!("{}.{end}", MadeUpWindow::WINDOW));
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7).chain([good.len() - 1]) {
            let mut spoiled = good.clone();
            spoiled[at] ^= 0x20;
            fs::write(&path, &spoiled).unwrap();
            assert!(write().is_err(), "{end}: byte {at}");
        }
        for cut in [1, 112, good.len()] {
            fs::write(&path, &good[..good.len() - cut]).unwrap();
            assert!(write().is_err(), "{end}: {cut} bytes fewer");
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(write().unwrap(), root);
}
