//! What operators see through the admin socket, asked with the real command.

mod support;

use std::path::Path;

use assert_cmd::Command;
use clearway::config::{BackendChoice, Directory};
use clearway::domain::{Code, Kind, MILLISECOND, ParticipantIndex, PaymentId};
use clearway::switch::StartOptions;
use clearway::wire::{
    Answer, FinalNotice, Frame, PaymentRequest, Regarding, Reply, ReplyOutcome, StatusRequest, Template,
};
use serde_json::{Value, json};
use support::*;

/// Rows that a list shows.
const ROWS_MAX: u64 = 1_000;

fn admin(data: &Path, request: &str, more: &[&str]) -> String {
    let socket = data.join("admin.sock");
    let mut command = Command::cargo_bin("clearway").expect("the binary is built");
    command.args(["admin", request, "--socket"]).arg(socket).args(more);
    let output = command.assert().success().get_output().stdout.clone();
    String::from_utf8(output).expect("text")
}

fn admin_json(data: &Path, request: &str) -> Value {
    serde_json::from_str(&admin(data, request, &["--json", "-"])).expect("JSON")
}

/// Two institutions and two banks whose payments are soon in doubt. Tq stays what it is: on a busy host a durable write
/// may take its time, and what was not sent is never in doubt.
fn quickly_in_doubt() -> Directory {
    let mut directory = directory(2, 2);
    for entry in &mut directory.participants {
        entry.terms.doubt_ns = entry.terms.wait_ns + 200 * MILLISECOND;
    }
    directory
}

fn payout(serial: u64, amount_minor: u64) -> PaymentRequest {
    let mut request = debit(0, 2, serial, amount_minor);
    (request.body.kind, request.body.mandate_token) = (Kind::Payout as u8, [0; 2]);
    request.sealed()
}

fn code_of(directory: &Directory, participant: u16) -> String {
    directory.participants[usize::from(participant)].terms.code.text()
}

/// Sends a payment and has the bank say `said` to it.
fn settle(institution: &mut Participant, bank: &mut Participant, request: &PaymentRequest, said: Reply) -> Answer {
    institution.send(request);
    let forwarded: PaymentRequest = bank.expect();
    assert_eq!(forwarded.body.id, request.body.id);
    bank.send(&said);
    institution.expect()
}

#[test]
fn payments_in_doubt_are_listed_with_their_bank_until_it_answers() {
    let (data, directory) = (tempfile::tempdir().unwrap(), quickly_in_doubt());
    let switch = start_switch(data.path(), &directory, BackendChoice::Auto, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
    let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
    let nothing = admin_json(data.path(), "in-doubt");
    assert_eq!((&nothing["total"], &nothing["in_doubt"]), (&json!(0), &json!([])));

    let sent = payout(1, 1_234);
    institution.send(&sent);
    let request: PaymentRequest = bank.expect();
    let asked: StatusRequest = bank.expect();
    let told = admin_json(data.path(), "in-doubt");
    assert_eq!((&told["total"], &told["left_out"]), (&json!(1), &json!(0)));
    let row = &told["in_doubt"][0];
    assert_eq!(row["payment"], sent.body.id.to_string());
    assert_eq!((&row["kind"], &row["amount_minor"]), (&json!("payout"), &json!(1_234)));
    assert_eq!(row["initiator"], code_of(&directory, 0));
    assert_eq!(row["responder"], code_of(&directory, 2));
    assert_eq!((&row["currency"], &row["status_requests"]), (&json!(156), &json!(1)));
    assert_eq!(row["accepted_ns"], asked.accepted_ns);
    let t2 = directory.participants[2].terms.expiry_push_ns;
    assert_eq!(row["expires_ns"], asked.accepted_ns + t2);
    let table = admin(data.path(), "in-doubt", &[]);
    assert!(
        table.contains(&sent.body.id.to_string()) && table.contains("12.34"),
        "{table}"
    );

    bank.send(&regarding(yes(&request), Regarding::Status));
    assert_eq!(code(&institution.expect()), Code::Committed);
    let notice: FinalNotice = bank.expect();
    assert_eq!((notice.id, notice.code), (sent.body.id, 0));
    assert_eq!(admin_json(data.path(), "in-doubt")["total"], 0);
    switch.shutdown().unwrap();
}

#[test]
fn exceptions_are_listed_in_the_order_of_the_events_and_outlive_a_restart() {
    let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let switch = start_switch(data.path(), &directory, BackendChoice::Auto, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
    let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
    let (kept, refused) = (debit(0, 2, 1, 500), payout(2, 700));
    let no = |request| reply(request, ReplyOutcome::No, Code::AccountClosed as u8);
    let answer = settle(&mut institution, &mut bank, &kept, yes(&kept));
    assert_eq!(code(&answer), Code::Committed);
    let answer = settle(&mut institution, &mut bank, &refused, no(&refused));
    assert_eq!(code(&answer), Code::AccountClosed);
    let _notice: FinalNotice = bank.expect();
    assert_eq!(admin_json(data.path(), "exceptions")["total"], 0);

    bank.send(&yes(&refused));
    bank.send(&no(&kept));
    bank.send(&no(&kept));
    eventually("the late words are applied", || {
        switch.status()["payments"]["conflicts"] == 3
    });
    let told = admin_json(data.path(), "exceptions");
    assert_eq!((&told["total"], &told["left_out"]), (&json!(2), &json!(0)));
    let rows: Vec<_> = [0, 1].map(|at| &told["exceptions"][at]).into();
    assert_eq!(
        (&rows[0]["what"], &rows[1]["what"]),
        (&json!("declined_then_yes"), &json!("committed_then_no"))
    );
    assert_eq!(rows[0]["payment"], refused.body.id.to_string());
    assert_eq!(rows[1]["payment"], kept.body.id.to_string());
    for row in &rows {
        assert_eq!(
            (&row["initiator"], &row["responder"]),
            (&json!(code_of(&directory, 0)), &json!(code_of(&directory, 2)),)
        );
        assert!(row["time_ns"].as_u64() > Some(answer.final_ns));
    }
    assert!(rows[0]["event"].as_u64() < rows[1]["event"].as_u64());
    let table = admin(data.path(), "exceptions", &[]);
    assert!(
        table.contains("declined_then_yes") && table.contains("committed_then_no"),
        "{table}"
    );
    switch.shutdown().unwrap();

    let switch = start_switch(data.path(), &directory, BackendChoice::Auto, StartOptions::default());
    eventually("the switch has applied its start", || switch.status()["ready"] == true);
    assert_eq!(admin_json(data.path(), "exceptions")["exceptions"], told["exceptions"]);
    switch.shutdown().unwrap();
}

#[test]
fn a_long_list_shows_a_thousand_and_says_how_many_it_left_out() {
    let (data, directory) = (tempfile::tempdir().unwrap(), quickly_in_doubt());
    let switch = start_switch(data.path(), &directory, BackendChoice::Auto, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
    let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
    let count = ROWS_MAX + 3;
    let id = |serial| PaymentId::new(today(), ParticipantIndex(0), 0, serial).to_string();
    for serial in 1..=count {
        institution.send(&debit(0, 2, serial, 1));
    }
    let total = |request| admin_json(data.path(), request)["total"].as_u64();
    eventually("all are in doubt", || total("in-doubt") == Some(count));
    let told = admin_json(data.path(), "in-doubt");
    assert_eq!(told["left_out"], 3);
    assert_eq!(told["in_doubt"].as_array().map(Vec::len), Some(ROWS_MAX as usize));
    assert_eq!(told["in_doubt"][0]["payment"], id(1), "the oldest first");
    assert!(admin(data.path(), "in-doubt", &[]).ends_with("and 3 newer ones of 1003 in all\n"));

    let mut requests = 0;
    while requests < count {
        let (template, frame) = bank.next(PATIENCE).expect("a request");
        if template == Template::PaymentRequest {
            requests += 1;
            let request = PaymentRequest::read(&frame);
            bank.send(&yes(&request));
            bank.send(&reply(&request, ReplyOutcome::No, Code::AccountClosed as u8));
        }
    }
    eventually("every conflict is applied", || total("exceptions") == Some(count));
    let told = admin_json(data.path(), "exceptions");
    assert_eq!(told["left_out"], 3);
    let rows = told["exceptions"].as_array().expect("a list");
    assert_eq!(rows.len(), ROWS_MAX as usize);
    assert!(
        rows.windows(2)
            .all(|pair| pair[0]["event"].as_u64() < pair[1]["event"].as_u64()),
        "in the order of the events"
    );
    assert!(admin(data.path(), "exceptions", &[]).ends_with("and 3 older ones of 1003 in all\n"));
    switch.shutdown().unwrap();
}

#[test]
fn success_rates_are_shown_by_kind_by_scene_and_by_participant() {
    let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
    let switch = start_switch(data.path(), &directory, BackendChoice::Auto, StartOptions::default());
    let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
    let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
    for (serial, said) in (1..).zip([ReplyOutcome::Yes, ReplyOutcome::Yes, ReplyOutcome::No]) {
        let request = debit(0, 2, serial, 10);
        let number = if said == ReplyOutcome::No { 23 } else { 0 };
        settle(&mut institution, &mut bank, &request, reply(&request, said, number));
    }
    let request = payout(4, 10);
    settle(&mut institution, &mut bank, &request, yes(&request));
    let _notice: FinalNotice = bank.expect();
    institution.send(&debit(0, 999, 5, 10));
    assert_eq!(code(&institution.expect()), Code::UnknownParticipant);

    let status = admin_json(data.path(), "status");
    let success = |ended: u64, committed: u64, share_bp: Option<u64>| json!({ "final": ended, "committed": committed, "success_bp": share_bp });
    let payments = &status["payments"];
    assert_eq!(
        payments["by_kind"],
        json!({ "debit": success(4, 2, Some(5_000)), "payout": success(1, 1, Some(10_000)) })
    );
    assert_eq!(payments["by_scene"], json!({ "shopping": success(5, 3, Some(6_000)) }));
    assert_eq!(status["exceptions"], 0);
    let participants = &admin_json(data.path(), "participants")["participants"];
    assert_eq!(participants[0]["as_initiator"], success(5, 3, Some(6_000)));
    assert_eq!(participants[2]["as_responder"], success(4, 3, Some(7_500)));
    assert_eq!(participants[1]["as_initiator"], success(0, 0, None));
    let text = admin(data.path(), "status", &[]);
    assert!(text.contains("payments.by_kind.debit.success %"), "{text}");
    let table = admin(data.path(), "participants", &[]);
    let row = table.lines().find(|line| line.contains(&code_of(&directory, 2)));
    let row: Vec<&str> = row.expect("the bank's row").split_whitespace().collect();
    assert_eq!(row[row.len() - 4..], ["0", "-", "4", "75.00"]);
    switch.shutdown().unwrap();
}
