//! Operators' orders, with the real command, through the real socket, on real links.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use assert_cmd::Command;
use clearway::config::{
    BackendChoice, Directory, DirectoryEntry, OperatorSettings, Profile, Settings, credential_hash, demo_credential,
};
use clearway::domain::{Code, LinkContract, ParticipantIndex, ParticipantTerms, SECOND, SchemeCode, UtcNanos};
use clearway::switch::{RunningSwitch, StartOptions};
use clearway::wire::{Answer, PaymentRequest};
use serde_json::{Value, json};
use support::daemon::Installation;
use support::*;

/// Whose token is 32 times this byte.
const ALICE: u8 = 0xa1;
const BOB: u8 = 0xb0;
/// May only propose.
const CAROL: u8 = 0xca;

fn operators() -> Vec<OperatorSettings> {
    [
        ("alice", ALICE, true, true),
        ("bob", BOB, true, true),
        ("carol", CAROL, true, false),
    ]
    .map(|(name, byte, makes, checks)| OperatorSettings {
        name: name.to_owned(),
        token_hash: credential_hash(&[byte; 32]),
        makes,
        checks,
    })
    .into()
}

fn with_operators(data: &Path, backend: BackendChoice) -> Settings {
    let mut settings = settings(data, backend);
    settings.operators = operators();
    settings
}

fn start_with_operators(data: &Path, directory: &Directory, backend: BackendChoice, profile: Profile) -> RunningSwitch {
    let settings = with_operators(data, backend);
    start_with_settings(settings, directory, profile, StartOptions::default())
}

/// The desk of one operator: the real command with his name and token.
struct Desk {
    place: tempfile::TempDir,
    socket: PathBuf,
    name: &'static str,
}

impl Desk {
    fn of(name: &'static str, token: u8, data: &Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        let token = blake3::Hash::from_bytes([token; 32]).to_hex();
        std::fs::write(place.path().join("token"), format!("{token}\n")).unwrap();
        Self {
            place,
            socket: data.join("admin.sock"),
            name,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::cargo_bin("clearway").expect("the binary is built");
        command.args(arguments).arg("--socket").arg(&self.socket);
        command.env("CLEARWAY_OPERATOR", self.name);
        command.env("CLEARWAY_TOKEN_FILE", self.place.path().join("token"));
        command.output().unwrap()
    }

    /// Runs what must be well, and gives its JSON.
    fn well(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json", "-"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Runs what must exit so, and gives what it said.
    fn ends(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said + &String::from_utf8_lossy(&output.stdout)
    }

    /// Proposes to move cover or cap in CNY; gives the proposal's number.
    fn propose(&self, what: &str, participant: &str, amount_minor: u64) -> String {
        let amount = amount_minor.to_string();
        let proposed = self.well(&[
            "admin",
            "propose",
            what,
            "--participant",
            participant,
            "--currency",
            "CNY",
            "--amount-minor",
            &amount,
        ]);
        assert_eq!(proposed["outcome"], "proposed");
        proposed["event"].to_string()
    }

    fn apply(&self, directory: &Directory, more: &[&str]) -> Value {
        let file = self.write(directory);
        self.well(&[&["directory", "apply", &file, "--yes"], more].concat())
    }

    fn write(&self, directory: &Directory) -> String {
        let file = self.place.path().join("directory.toml");
        std::fs::write(&file, directory.to_toml()).unwrap();
        file.display().to_string()
    }

    fn account(&self, code: &str) -> Value {
        let cover = self.well(&["admin", "cover"]);
        let accounts = cover["accounts"].as_array().unwrap();
        accounts
            .iter()
            .find(|account| account["code"] == code)
            .expect("an account")
            .clone()
    }
}

fn code_of(directory: &Directory, participant: u16) -> String {
    directory.participants[usize::from(participant)].terms.code.text()
}

/// Two institutions and two banks, and the same with one more of each.
fn before_and_after() -> (Directory, Directory) {
    let before = directory(2, 2);
    let mut after = before.clone();
    for (like, index, code) in [(0, 4, *b"Z9000000000004"), (2, 5, *b"C9000000000005")] {
        let (like, code) = (&before.participants[like], SchemeCode(code));
        after.participants.push(DirectoryEntry {
            terms: ParticipantTerms {
                index: ParticipantIndex(index),
                code,
                ..like.terms
            },
            name: format!("Participant {index}"),
            cnaps: None,
            bic: None,
            credential_hash: credential_hash(&demo_credential(&code)),
        });
    }
    after.scheme.participant_count = 6;
    (before, after)
}

#[test]
fn participants_added_at_run_time_sign_on_and_pay_without_a_restart() {
    for backend in BACKENDS {
        for profile in [profile(), spread_profile()] {
            let (data, (before, after)) = (tempfile::tempdir().unwrap(), before_and_after());
            let switch = start_with_operators(data.path(), &before, backend, profile.clone());
            let (alice, bob) = (Desk::of("alice", ALICE, data.path()), Desk::of("bob", BOB, data.path()));
            let mut institution = Participant::connect(switch.listen(), &before, 0, 0);
            let mut bank = Participant::connect(switch.listen(), &before, 2, 0);
            let applied = alice.apply(&after, &[]);
            assert_eq!(applied["added"], json!(["Z9000000000004", "C9000000000005"]));

            // An institution pays with those who were there; its first word has number 1.
            let mut joined = Participant::connect(switch.listen(), &after, 4, 0);
            assert_eq!(joined.next_word, 1);
            assert_eq!(code(&pay(&mut joined, &mut bank, 1, 700)), Code::Committed);
            // A bank can owe nothing until two people have brought cover in and set a cap.
            let mut joined_bank = Participant::connect(switch.listen(), &after, 5, 0);
            institution.send(&debit(0, 5, 1, 500));
            assert_eq!(code(&institution.expect()), Code::CoverExceeded);
            for _ in 0..2 {
                let waiting = bob.well(&["admin", "orders"])["proposals"].clone();
                for proposal in waiting.as_array().unwrap() {
                    bob.well(&["admin", "approve", &proposal["proposal"].to_string()]);
                }
                // The cap is proposed when its cover is in.
                alice.apply(&after, &[]);
            }
            assert_eq!(code(&pay(&mut institution, &mut joined_bank, 2, 500)), Code::Committed);
            assert_eq!(code(&pay(&mut joined, &mut joined_bank, 2, 300)), Code::Committed);
            let nothing = alice.apply(&after, &[]);
            let nothing = [&nothing["added"], &nothing["changed"], &nothing["movements"]];
            assert_eq!(nothing, [&json!([]), &json!([]), &json!([])], "all of it is in force");
            let report = switch.shutdown().unwrap();

            // The next start knows them from the journal, and goes on where they were.
            let refused = start_refused(data.path(), &before, backend);
            assert!(
                refused.contains("Z9000000000004") && refused.contains("none is ever removed"),
                "{refused}"
            );
            let switch = start_with_operators(data.path(), &after, backend, profile);
            let ledger = switch.ledger().unwrap().snapshot;
            assert_eq!(ledger.participants.len(), 6);
            assert_eq!(report["participants"].as_array().map(Vec::len), Some(6));
            let mut joined = Participant::connect(switch.listen(), &after, 4, u64::MAX);
            let mut joined_bank = Participant::connect(switch.listen(), &after, 5, u64::MAX);
            assert_eq!(joined.next_word, 3);
            assert_eq!(code(&pay(&mut joined, &mut joined_bank, 3, 100)), Code::Committed);
            switch.shutdown().unwrap();
        }
    }
}

fn start_refused(data: &Path, directory: &Directory, backend: BackendChoice) -> String {
    let started = clearway::switch::start(
        with_operators(data, backend),
        directory.clone(),
        profile(),
        StartOptions::default(),
    );
    started.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_directory_that_says_otherwise_starts_with_the_journals_terms_and_apply_puts_it_in_force() {
    let (data, (before, mut after)) = (tempfile::tempdir().unwrap(), before_and_after());
    start_with_operators(data.path(), &before, BackendChoice::Mio, profile())
        .shutdown()
        .unwrap();
    after.participants[2].terms.contract.links_max = 1;
    after.participants[2].name = "Another name".to_owned();
    after.participants[3].terms.suspended = ParticipantTerms::SUSPENDED_RESPONDER;
    let switch = start_with_operators(data.path(), &after, BackendChoice::Mio, profile());
    let alice = Desk::of("alice", ALICE, data.path());
    let terms = || {
        alice.well(&["admin", "participants"])["participants"]
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(terms(), Some(4), "the journal's are in force");
    let _first = Participant::connect(switch.listen(), &before, 2, u64::MAX);
    let _second = Participant::connect(switch.listen(), &before, 2, u64::MAX);

    let file = alice.write(&after);
    let shown = alice.ends(0, &["directory", "apply", &file, "--dry-run"]);
    assert!(shown.contains("links_max: ") && shown.contains(" → 1\n"), "{shown}");
    assert!(
        shown.contains("suspended as responder") && shown.contains("+ Z9000000000004"),
        "{shown}"
    );
    let asked = alice.ends(2, &["directory", "apply", &file]);
    assert!(asked.contains("add --yes; nothing was done"), "{asked}");
    assert_eq!(terms(), Some(4));
    let applied = alice.ends(0, &["directory", "apply", &file, "--yes"]);
    assert!(applied.contains("waits for a second person"), "{applied}");
    assert!(applied.contains("at its next start the switch reads"), "{applied}");
    assert_eq!(terms(), Some(6));
    // What there is of links stays; the next sign-on meets the new terms.
    let mut refused = Participant::open(switch.listen());
    let terms_of = &after.participants[2].terms;
    refused.send(&negotiate(terms_of.code, demo_credential(&terms_of.code)));
    assert!(refused.expect_end().is_some(), "one link more than one");

    // What can't be is said with the line, and nothing is done.
    let mut wrong = before.clone();
    wrong.participants[1].terms.code = SchemeCode(*b"Z9000000000009");
    let said = alice.ends(2, &["directory", "apply", &alice.write(&wrong), "--yes"]);
    assert!(said.contains("never removed") && said.contains("line "), "{said}");
    assert_eq!(terms(), Some(6));
    switch.shutdown().unwrap();
}

#[test]
fn an_order_needs_an_operator_of_the_settings_and_his_own_token() {
    let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let bank = code_of(&directory, 2);
    let suspend = ["admin", "suspend", &bank];
    let switch = start_switch(data.path(), &directory, BackendChoice::Mio, StartOptions::default());
    let said = Desk::of("alice", ALICE, data.path()).ends(1, &suspend);
    assert!(
        said.contains("clearway admin operator-token") && said.contains("[[operator]]"),
        "{said}"
    );
    switch.shutdown().unwrap();

    let switch = start_with_operators(data.path(), &directory, BackendChoice::Mio, profile());
    for wrong in [
        Desk::of("alice", BOB, data.path()),
        Desk::of("mallory", ALICE, data.path()),
    ] {
        let said = wrong.ends(1, &suspend);
        assert!(said.contains("no operator has this name and this token"), "{said}");
    }
    let events = switch.ledger().unwrap().snapshot.event_number;
    let (alice, carol) = (
        Desk::of("alice", ALICE, data.path()),
        Desk::of("carol", CAROL, data.path()),
    );
    let number = alice.propose("cover-in", &bank, 5);
    let said = carol.ends(1, &["admin", "approve", &number]);
    assert!(said.contains("carol may not approve"), "{said}");
    let orders = alice.well(&["admin", "orders"]);
    assert_eq!(
        orders["outcomes"].as_array().map(Vec::len),
        Some(1),
        "only alice's is in the journal: {orders}"
    );
    assert!(switch.ledger().unwrap().snapshot.event_number > events);
    switch.shutdown().unwrap();
}

#[test]
fn a_new_operators_token_works_with_the_lines_that_were_printed_for_it() {
    let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let desk = Desk::of("dora", 0, data.path());
    let token = desk.place.path().join("token");
    std::fs::remove_file(&token).unwrap();
    let made = desk.well(&["admin", "operator-token", "dora", "--output", token.to_str().unwrap()]);
    let mut settings = settings(data.path(), BackendChoice::Mio);
    let text = settings.to_toml() + made["settings"].as_str().unwrap();
    settings.operators = Settings::parse("s.toml", &text, Path::new("/")).unwrap().operators;
    assert!(made["token"].is_null(), "it is in the file alone");
    let switch = start_with_settings(settings, &directory, profile(), StartOptions::default());
    let suspended = desk.well(&["admin", "suspend", &code_of(&directory, 3)]);
    assert_eq!(suspended["outcome"], "done");
    switch.shutdown().unwrap();
}

#[test]
fn cover_moves_only_when_a_second_person_approves() {
    let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let switch = start_with_operators(data.path(), &directory, BackendChoice::Mio, profile());
    let (alice, bob) = (Desk::of("alice", ALICE, data.path()), Desk::of("bob", BOB, data.path()));
    let bank = code_of(&directory, 2);
    let before = alice.account(&bank);
    let cover = |account: &Value| account["cover_minor"].as_i64().unwrap();
    let cap = before["cap_minor"].as_u64().unwrap();

    let number = alice.propose("cover-in", &bank, 1_000);
    assert_eq!(cover(&alice.account(&bank)), cover(&before), "a proposal does nothing");
    let said = alice.ends(1, &["admin", "approve", &number]);
    assert!(said.contains("takes another person"), "{said}");
    assert_eq!(bob.well(&["admin", "approve", &number])["outcome"], "done");
    assert_eq!(cover(&alice.account(&bank)), cover(&before) + 1_000);
    let said = bob.ends(1, &["admin", "approve", &number]);
    assert!(said.contains("no such proposal"), "{said}");

    let number = bob.propose("cap", &bank, cap - 1);
    assert_eq!(alice.well(&["admin", "refuse", &number])["outcome"], "refused");
    let number = bob.propose("cap", &bank, cap - 2);
    alice.well(&["admin", "approve", &number]);
    assert_eq!(alice.account(&bank)["cap_minor"], cap - 2);
    // What can't be said is said before anything is journaled.
    let wrong = [
        "admin",
        "propose",
        "cover-in",
        "--participant",
        "C0",
        "--currency",
        "CNY",
        "--amount-minor",
        "1",
    ];
    assert!(alice.ends(1, &wrong).contains("no participant has the code C0"));
    let wrong = [
        "admin",
        "propose",
        "cover-in",
        "--participant",
        &bank,
        "--currency",
        "XAU",
        "--amount-minor",
        "1",
    ];
    assert!(alice.ends(1, &wrong).contains("not a currency"));
    let table = alice.ends(0, &["admin", "orders"]);
    assert!(
        table.contains("no proposal waits") && table.contains("same_person"),
        "{table}"
    );
    switch.shutdown().unwrap();
}

#[test]
fn a_suspension_acts_at_once_in_the_direction_it_says() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_with_operators(data.path(), &directory, backend, profile());
        let alice = Desk::of("alice", ALICE, data.path());
        let (payer, bank) = (code_of(&directory, 0), code_of(&directory, 2));
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut responder = Participant::connect(switch.listen(), &directory, 2, 0);
        let mut serial = 0;
        let mut pays = |expected: Code| {
            serial += 1;
            if expected == Code::Committed {
                assert_eq!(code(&pay(&mut institution, &mut responder, serial, 10)), expected);
            } else {
                institution.send(&debit(0, 2, serial, 10));
                assert_eq!(code(&institution.expect()), expected);
            }
        };
        pays(Code::Committed);
        alice.well(&["admin", "suspend", &payer, "--as", "initiator"]);
        pays(Code::InitiatorSuspended);
        alice.well(&["admin", "resume", &payer]);
        alice.well(&["admin", "suspend", &bank, "--as", "initiator"]);
        pays(Code::Committed);
        // One direction more: the other stays.
        alice.well(&["admin", "suspend", &bank, "--as", "responder"]);
        pays(Code::ResponderSuspended);
        let suspended = alice.well(&["admin", "participants"])["participants"][2]["suspended"].clone();
        assert_eq!(suspended, json!(["initiator", "responder"]));
        alice.well(&["admin", "resume", &bank, "--as", "responder"]);
        pays(Code::Committed);
        assert_eq!(
            alice.well(&["admin", "participants"])["participants"][2]["suspended"],
            json!(["initiator"])
        );
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_lower_rate_holds_at_once_and_less_in_flight_at_the_bank_too() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let switch = start_with_operators(data.path(), &directory, backend, profile());
        let alice = Desk::of("alice", ALICE, data.path());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        assert_eq!(code(&pay(&mut institution, &mut bank, 1, 10)), Code::Committed);
        let mut amended = directory.clone();
        let contract =
            |entry: &mut DirectoryEntry, change: &dyn Fn(&mut LinkContract)| change(&mut entry.terms.contract);
        contract(&mut amended.participants[0], &|contract| {
            contract.intake_per_second_max = 2
        });
        contract(&mut amended.participants[2], &|contract| {
            contract.request_in_flight_max = 1
        });
        alice.apply(&amended, &[]);

        for serial in 2..=4 {
            institution.send(&debit(0, 2, serial, 10));
        }
        // Two a second come in; of them the bank is asked one at a time, on the link it has had all along.
        let refused: Answer = institution.expect();
        assert_eq!((code(&refused), refused.id.serial()), (Code::NotTaken, 4));
        let first: PaymentRequest = bank.expect();
        bank.expect_silence(std::time::Duration::from_millis(50));
        bank.send(&yes(&first));
        let second: PaymentRequest = bank.expect();
        bank.send(&yes(&second));
        for _ in 0..2 {
            assert_eq!(code(&institution.expect()), Code::Committed);
        }
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_restart_and_a_kill_between_proposal_and_approval_keep_the_proposal() {
    let installation = Installation::of(directory(2, 2), BackendChoice::Auto, |settings| {
        settings.operators = operators()
    });
    let data = installation.path("data");
    let (alice, bob) = (Desk::of("alice", ALICE, &data), Desk::of("bob", BOB, &data));
    let bank = code_of(&installation.directory, 2);
    let mut daemon = installation.start();
    let before = alice.account(&bank);
    let first = alice.propose("cover-in", &bank, 100);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));

    let mut daemon = installation.start();
    let second = alice.propose("cover-in", &bank, 20);
    // Whoever was told has it in the journal.
    daemon.signal(libc::SIGKILL);
    daemon.exit_code();

    let _daemon = installation.start();
    let waiting = bob.well(&["admin", "orders"])["proposals"].clone();
    let rows = waiting.as_array().unwrap();
    let numbers: Vec<String> = rows.iter().map(|row| row["proposal"].to_string()).collect();
    assert_eq!(numbers, [first.clone(), second.clone()]);
    assert_eq!(
        (&rows[0]["operator"], &rows[0]["amount_minor"]),
        (&json!("alice"), &json!(100))
    );
    for number in [first, second] {
        bob.well(&["admin", "approve", &number]);
    }
    let cover = |account: &Value| account["cover_minor"].as_i64().unwrap();
    assert_eq!(cover(&alice.account(&bank)), cover(&before) + 120);
}

#[test]
fn withdrawals_that_race_under_load_never_take_cover_that_is_used_or_capped() {
    let (data, mut directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let account = &mut directory.participants[2].terms.accounts[0];
    (account.cover_minor, account.cap_minor) = (10_000, 4_000);
    let switch = start_with_operators(data.path(), &directory, BackendChoice::Auto, profile());
    let bank_code = code_of(&directory, 2);
    let done = AtomicBool::new(false);
    let withdrawn = std::thread::scope(|scope| {
        let (directory, listen, done) = (&directory, switch.listen(), &done);
        let payments = scope.spawn(move || {
            let mut institution = Participant::connect(listen, directory, 0, 0);
            let mut bank = Participant::connect(listen, directory, 2, 0);
            let (mut serial, mut committed, mut refused) = (0, 0, 0_u64);
            while !done.load(Ordering::Relaxed) || refused == 0 {
                serial += 1;
                institution.send(&debit(0, 2, serial, 50));
                // Over the cap it is answered without the bank; else the bank says yes.
                let answer: Answer = if committed < 4_000 {
                    let request: PaymentRequest = bank.expect();
                    bank.send(&yes(&request));
                    institution.expect()
                } else {
                    institution.expect()
                };
                match code(&answer) {
                    Code::Committed => committed += 50,
                    Code::CoverExceeded => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
            committed
        });
        // Two pairs of people, each approving what the other proposed, all withdrawing from one account at once.
        let pairs = [("alice", ALICE, "bob", BOB), ("bob", BOB, "alice", ALICE)];
        let pairs = pairs.map(|(maker, maker_token, checker, checker_token)| {
            let (data, bank) = (data.path(), &bank_code);
            scope.spawn(move || {
                let (maker, checker) = (
                    Desk::of(maker, maker_token, data),
                    Desk::of(checker, checker_token, data),
                );
                let mut withdrawn = 0_i64;
                let propose = [
                    "admin",
                    "propose",
                    "cover-out",
                    "--participant",
                    bank,
                    "--currency",
                    "CNY",
                ];
                loop {
                    let proposed = maker.run(&[&propose[..], &["--amount-minor", "900", "--json", "-"]].concat());
                    let answer: Value = serde_json::from_slice(&proposed.stdout).unwrap();
                    if answer["outcome"] == "cover_in_use" {
                        return withdrawn;
                    }
                    let number = answer["event"].to_string();
                    let approved = checker.run(&["admin", "approve", &number]);
                    if approved.status.code() != Some(0) {
                        let said = String::from_utf8_lossy(&approved.stderr).into_owned();
                        assert!(said.contains("would fall below the cap"), "{said}");
                        checker.well(&["admin", "refuse", &number]);
                        return withdrawn;
                    }
                    withdrawn += 900;
                }
            })
        });
        let mut sum = 0;
        for pair in pairs {
            sum += pair.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let committed = payments.join().unwrap();
        assert_eq!(committed, 4_000, "the cap, to the last cent");
        sum
    });
    // 10,000 less 6 × 900 leaves 4,600; once more would be below the cap.
    assert_eq!(withdrawn, 5_400);
    let account = Desk::of("alice", ALICE, data.path()).account(&bank_code);
    assert_eq!(
        (&account["cover_minor"], &account["position_minor"]),
        (&json!(4_600), &json!(4_000))
    );
    assert_eq!(switch.status()["intake"], "open");
    switch.shutdown().unwrap();
}

#[test]
fn an_alarm_of_cover_is_told_once_a_level_and_shown() {
    let (data, mut directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let account = &mut directory.participants[2].terms.accounts[0];
    (account.cover_minor, account.cap_minor) = (1_000, 1_000);
    let switch = start_with_operators(data.path(), &directory, BackendChoice::Auto, profile());
    let alice = Desk::of("alice", ALICE, data.path());
    let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
    let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
    for serial in 1..=8 {
        assert_eq!(code(&pay(&mut institution, &mut bank, serial, 100)), Code::Committed);
    }
    let raised = || switch.status()["alarms"]["raised"].clone();
    eventually("two levels are told", || raised() == 2);
    let cover = alice.well(&["admin", "cover"]);
    let levels: Vec<&Value> = cover["alarms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alarm| &alarm["level_bp"])
        .collect();
    assert_eq!(levels, [7_500, 5_000], "the newest first");
    assert_eq!(
        cover["accounts"][0]["code"],
        code_of(&directory, 2),
        "the fullest first"
    );
    assert_eq!(
        (&cover["accounts"][0]["used_bp"], &cover["accounts"][0]["alarm_bp"]),
        (&json!(8_000), &json!(7_500))
    );
    assert_eq!(switch.status()["alarmed"], json!({ "50": 0, "75": 1, "90": 0 }));
    assert_eq!(
        alice.well(&["admin", "participants"])["participants"][2]["alarm_bp"],
        7_500
    );
    let table = alice.ends(0, &["admin", "cover"]);
    assert!(table.contains("the newest first") && table.contains("80.00"), "{table}");

    // More cap by two people, and it is over.
    let bob = Desk::of("bob", BOB, data.path());
    let bank_code = code_of(&directory, 2);
    for (what, amount) in [("cover-in", 9_000), ("cap", 10_000)] {
        let number = alice.propose(what, &bank_code, amount);
        bob.well(&["admin", "approve", &number]);
    }
    eventually("it is told that it is over", || {
        switch.status()["alarms"]["fallen"] == 1
    });
    switch.shutdown().unwrap();
}

fn windows_of(switch: &RunningSwitch, currency: u16) -> usize {
    let windows = switch.ledger().unwrap().snapshot.windows;
    windows.iter().filter(|window| window.currency == currency).count()
}

#[test]
fn a_window_is_closed_for_one_currency_or_all() {
    let (data, mut directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    directory.scheme.currencies = [156, 344, 0, 0];
    let switch = start_with_operators(data.path(), &directory, BackendChoice::Mio, profile());
    let alice = Desk::of("alice", ALICE, data.path());
    let windows = || (windows_of(&switch, 156), windows_of(&switch, 344));
    alice.well(&["admin", "close-window", "--currency", "HKD"]);
    eventually("HKD's closes", || windows() == (1, 2));
    alice.well(&["admin", "close-window"]);
    eventually("both close", || windows() == (2, 3));
    let said = alice.ends(1, &["admin", "close-window", "--currency", "EUR"]);
    assert!(said.contains("no window in EUR"), "{said}");
    switch.shutdown().unwrap();
}

fn now() -> UtcNanos {
    clearway::agent::wall_clock()
}

#[test]
fn a_time_of_day_closes_windows_and_one_that_was_missed_closes_them_once_at_the_next_start() {
    let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let start = |close_at_s: Vec<u32>| {
        let mut settings = with_operators(data.path(), BackendChoice::Mio);
        settings.windows.close_at_s = close_at_s;
        start_with_settings(settings, &directory, profile(), StartOptions::default())
    };
    let in_seconds = |seconds: u64| now().plus(seconds * SECOND);
    let close_at = in_seconds(5).shanghai_second_of_day() as u32;
    let switch = start(vec![close_at]);
    assert_eq!(windows_of(&switch, 156), 1);
    let next = switch.status()["close_next_ns"].as_u64().unwrap();
    assert_eq!(UtcNanos(next).shanghai_second_of_day(), u64::from(close_at));
    eventually("the time comes", || windows_of(&switch, 156) == 2);
    assert!(now().0 >= next, "not before its time");
    let next_again = switch.status()["close_next_ns"].as_u64();
    assert_eq!(next_again, Some(next + 86_400 * SECOND), "tomorrow");
    switch.shutdown().unwrap();

    // Started again, it knows that the time was seen to.
    let switch = start(vec![close_at]);
    eventually("it is ready", || switch.status()["ready"] == true);
    let missed_at = in_seconds(1);
    let missed = missed_at.shanghai_second_of_day() as u32;
    switch.shutdown().unwrap();
    eventually("the time is missed", || now() > missed_at);
    let switch = start(vec![missed]);
    eventually("what was missed is made up for", || windows_of(&switch, 156) == 3);
    switch.shutdown().unwrap();
    let switch = start(vec![missed]);
    eventually("it is ready", || switch.status()["ready"] == true);
    // The steward has put this in force, and looked at the schedule many times before.
    Desk::of("alice", ALICE, data.path()).well(&["admin", "suspend", &code_of(&directory, 3)]);
    assert_eq!(windows_of(&switch, 156), 3, "once");
    let report = switch.shutdown().unwrap();
    assert_eq!(report["windows"].as_array().map(Vec::len), Some(3), "once");
}
