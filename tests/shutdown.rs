//! How the daemon ends and begins again: in good order, killed, without its disk, beside another. The real binary.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use clearway::config::{BackendChoice, Directory};
use clearway::domain::{Code, PaymentId};
use clearway::journal::WriteGate;
use clearway::switch::StartOptions;
use clearway::wire::{
    Answer, AnswerFlags, Frame, PaymentRequest, Regarding, StatusRequest, Template, TerminateCode, decode,
};
use support::daemon::{Daemon, Installation};
use support::*;

/// What a bank was sent, over all its links and all runs of the switch.
type Book = Arc<Mutex<HashMap<PaymentId, PaymentRequest>>>;

/// A bank that says yes to everything, knows what it was sent, and is never sent the same twice.
fn bank(address: SocketAddr, directory: &Directory, book: &Book) -> JoinHandle<()> {
    let mut link = Participant::connect(address, directory, 2, u64::MAX);
    let book = Arc::clone(book);
    std::thread::spawn(move || {
        while let Some((template, frame)) = link.next(PATIENCE) {
            let answer = match template {
                Template::PaymentRequest => {
                    let request = PaymentRequest::read(&frame);
                    let known = book.lock().unwrap().insert(request.body.id, request);
                    assert!(known.is_none(), "{} was sent to the bank twice", request.body.id);
                    yes(&request)
                }
                Template::StatusRequest => {
                    let asked = StatusRequest::read(&frame);
                    match book.lock().unwrap().get(&asked.id) {
                        Some(request) => regarding(yes(request), Regarding::Status),
                        None => {
                            let mut unknown = debit(0, 2, 0, asked.amount_minor);
                            unknown.body.id = asked.id;
                            regarding(
                                reply(&unknown, clearway::wire::ReplyOutcome::NeverSeen, 0),
                                Regarding::Status,
                            )
                        }
                    }
                }
                Template::Terminate => return,
                other => panic!("{other:?} came to the bank"),
            };
            let frame = answer.sealed();
            if link.stream.write_all(bytemuck::bytes_of(&frame)).is_err() {
                return;
            }
        }
    })
}

/// Payments that the load has open at a time.
const OPEN_MAX: u64 = 600;

/// Sends payments, as many open as may be, from `first`, until told to stop or cut; gives the final answers and the last serial.
fn load(
    address: SocketAddr,
    directory: &Directory,
    first: u64,
    stop: &Arc<AtomicBool>,
    answers: &Arc<Mutex<HashMap<u64, Answer>>>,
) -> JoinHandle<u64> {
    let link = Participant::connect(address, directory, 0, u64::MAX);
    let (mut reader, mut writer) = (link.stream.try_clone().unwrap(), link.stream);
    let (answers, counted) = (Arc::clone(answers), Arc::clone(answers));
    let collector = std::thread::spawn(move || {
        let (mut received, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            received.extend_from_slice(&buffer[..count]);
            let mut at = 0;
            while let Some((template, length)) = decode(&received[at..]).unwrap() {
                if template == Template::Answer {
                    let answer = Answer::read(&received[at..]);
                    if answer.word > 0 {
                        let known = answers.lock().unwrap().insert(answer.id.serial(), answer);
                        assert!(known.is_none(), "{} was answered twice", answer.id);
                    } else {
                        assert_eq!(code(&answer), Code::NotTaken);
                    }
                }
                at += length;
            }
            received.drain(..at);
        }
    });
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut serial = first;
        while !stop.load(Ordering::Relaxed) {
            if serial - first > counted.lock().unwrap().len() as u64 + OPEN_MAX {
                std::thread::yield_now();
                continue;
            }
            let batch: Vec<u8> = (serial..serial + 16)
                .flat_map(|serial| bytemuck::bytes_of(&debit(0, 2, serial, 1 + serial % 97)).to_vec())
                .collect();
            if writer.write_all(&batch).is_err() {
                break;
            }
            serial += 16;
        }
        collector.join().unwrap();
        serial
    })
}

/// Every payment answered before is answered the same, and those that were not answered get an answer now.
fn answers_are_the_same(daemon: &Daemon, directory: &Directory, before: &HashMap<u64, Answer>, sent_until: u64) {
    let mut institution = Participant::connect(daemon.listen, directory, 0, u64::MAX);
    let sample: Vec<u64> = (1..sent_until).step_by((sent_until as usize / 4_000).max(1)).collect();
    for chunk in sample.chunks(256) {
        for &serial in chunk {
            institution.send(&debit(0, 2, serial, 1 + serial % 97));
        }
        let mut finals = 0;
        while finals < chunk.len() {
            let answer: Answer = institution.expect();
            let serial = answer.id.serial();
            if code(&answer) == Code::InProgress {
                continue;
            }
            if !chunk.contains(&serial) {
                continue;
            }
            finals += 1;
            if let Some(known) = before.get(&serial) {
                let mut same = *known;
                (same.word, same.flags) = (answer.word, AnswerFlags::DUPLICATE);
                assert_eq!(bytemuck::bytes_of(&answer), bytemuck::bytes_of(&same.sealed()));
            }
        }
    }
}

/// Runs load until `enough` payments are answered, ends the daemon with `signal`, and starts it again.
fn under_load(backend: BackendChoice, signal: i32, enough: usize) {
    let installation = Installation::new(backend);
    let (book, answers, stop) = (Book::default(), Arc::default(), Arc::new(AtomicBool::new(false)));
    let mut daemon = installation.start();
    let bank_link = bank(daemon.listen, &installation.directory, &book);
    let load = load(daemon.listen, &installation.directory, 1, &stop, &answers);
    eventually("the load runs", || answers.lock().unwrap().len() >= enough);
    daemon.signal(signal);
    let exit_code = daemon.exit_code();
    stop.store(true, Ordering::Relaxed);
    let sent_until = load.join().unwrap();
    bank_link.join().unwrap();

    let journal = installation.path("data/journal");
    if signal == libc::SIGTERM {
        assert_eq!(exit_code, Some(0));
        let report = installation.shutdown_report();
        let number = report["event_number"].as_u64().unwrap();
        let replayed = clearway::switch::replay(&journal, Some(number), |_| {}).unwrap();
        assert_eq!(report["state_hash"], replayed.hash.to_string());
        assert_eq!(
            report["status"]["payments"]["reserved"], 0,
            "a bank that answers is waited for"
        );
    } else {
        assert_eq!(exit_code, None, "it was killed");
    }

    let before = answers.lock().unwrap().clone();
    assert!(before.len() >= enough);
    let daemon = installation.start();
    let bank_link = bank(daemon.listen, &installation.directory, &book);
    answers_are_the_same(&daemon, &installation.directory, &before, sent_until);
    drop(daemon);
    bank_link.join().unwrap();
    let committed = before.values().filter(|answer| code(answer) == Code::Committed);
    let book = book.lock().unwrap();
    for answer in committed {
        assert!(
            book.contains_key(&answer.id),
            "{} committed without its bank",
            answer.id
        );
    }
}

#[test]
fn a_sigterm_under_load_ends_in_good_order_and_every_answer_stays() {
    for backend in BACKENDS {
        under_load(backend, libc::SIGTERM, 5_000);
    }
}

#[test]
fn a_kill_under_load_loses_no_answer_and_repeats_no_request() {
    for backend in BACKENDS {
        under_load(backend, libc::SIGKILL, 5_000);
    }
}

#[test]
fn a_second_switch_on_the_same_data_says_so_and_leaves_the_first_alone() {
    let installation = Installation::new(BackendChoice::Auto);
    let mut daemon = installation.start();
    let output = installation.fails();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("another switch"), "{told}");
    let mut institution = Participant::connect(daemon.listen, &installation.directory, 0, 0);
    let mut bank = Participant::connect(daemon.listen, &installation.directory, 2, 0);
    assert_eq!(code(&pay(&mut institution, &mut bank, 1, 100)), Code::Committed);
    daemon.signal(libc::SIGINT);
    assert_eq!(daemon.exit_code(), Some(0));
    assert_eq!(installation.shutdown_report()["status"]["payments"]["committed"], 1);
}

#[test]
fn an_occupied_port_is_named_and_costs_nothing() {
    for backend in BACKENDS {
        let installation = Installation::new(backend);
        let occupier = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = occupier.local_addr().unwrap();
        installation.write_settings(address, backend);
        let output = installation.fails();
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("listen on {address}")), "{told}");
        drop(occupier);
        let daemon = installation.start();
        assert_eq!(daemon.listen, address);
    }
}

/// Refuses every durable write from when it is told to.
#[derive(Default)]
struct Refusal(AtomicBool);

impl WriteGate for Refusal {
    fn before_write(&self, _: u64, _: u64) -> std::io::Result<()> {
        if self.0.load(Ordering::Acquire) {
            Err(std::io::Error::from_raw_os_error(libc::EIO))
        } else {
            Ok(())
        }
    }
}

#[test]
fn after_a_failed_durable_write_nothing_is_acknowledged() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let refusal = Arc::new(Refusal::default());
        let options = StartOptions {
            gate: Some(Arc::clone(&refusal) as Arc<dyn WriteGate>),
            ..StartOptions::default()
        };
        let switch = start_switch(data.path(), &directory, backend, options);
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        assert_eq!(code(&pay(&mut institution, &mut bank, 1, 100)), Code::Committed);
        institution.send(&debit(0, 2, 2, 100));
        let request: PaymentRequest = bank.expect();

        refusal.0.store(true, Ordering::Release);
        bank.send(&yes(&request));
        eventually("the failure shows", || switch.has_failed());
        institution.expect_silence(Duration::from_millis(100));
        // New ones are refused at the door, and nothing reaches the bank.
        institution.send(&debit(0, 2, 3, 100));
        let refused: Answer = institution.expect();
        assert_eq!((code(&refused), refused.word), (Code::NotTaken, 0));
        bank.expect_silence(Duration::from_millis(50));
        let error = switch.shutdown().expect_err("a failed write is final");
        assert!(error.to_string().contains("syncer"), "{error}");

        // With the disk back: the yes was never durable, so the bank is asked, and says yes again.
        let switch = start_switch(data.path(), &directory, backend, StartOptions::default());
        let mut bank = Participant::connect(switch.listen(), &directory, 2, u64::MAX);
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 1);
        let asked: StatusRequest = bank.expect();
        assert_eq!(asked.id, request.body.id);
        bank.send(&regarding(yes(&request), Regarding::Status));
        let answer: Answer = institution.expect();
        assert_eq!((code(&answer), answer.word), (Code::Committed, 2));
        switch.shutdown().unwrap();
    }
}

#[test]
fn a_shutdown_takes_nothing_new_and_waits_for_what_is_open() {
    for backend in BACKENDS {
        let (data, directory) = (tempfile::tempdir().unwrap(), directory(2, 2));
        let mut settings = settings(data.path(), backend);
        settings.shutdown_drain_ms = Some(PATIENCE.as_millis() as u64);
        let switch = start_with_settings(settings, &directory, profile(), StartOptions::default());
        let mut institution = Participant::connect(switch.listen(), &directory, 0, 0);
        let mut bank = Participant::connect(switch.listen(), &directory, 2, 0);
        institution.send(&debit(0, 2, 1, 100));
        let request: PaymentRequest = bank.expect();
        let shutdown = std::thread::spawn(move || switch.shutdown().unwrap());
        // Those that slip in before the gate closes are payments like any other.
        let (mut serial, mut open) = (2, vec![request]);
        loop {
            institution.send(&debit(0, 2, serial, 100));
            match institution.next(Duration::from_millis(50)) {
                Some((Template::Answer, frame)) => {
                    let refused = Answer::read(&frame);
                    assert_eq!((code(&refused), refused.id.serial()), (Code::NotTaken, serial));
                    break;
                }
                Some((other, _)) => panic!("{other:?} came"),
                None => open.push(bank.expect()),
            }
            serial += 1;
        }
        for request in &open {
            bank.send(&yes(request));
        }
        for _ in &open {
            assert_eq!(code(&institution.expect()), Code::Committed);
        }
        assert_eq!(institution.expect_cut(), TerminateCode::ShuttingDown);
        assert_eq!(bank.expect_cut(), TerminateCode::ShuttingDown);
        let report = shutdown.join().unwrap();
        assert_eq!(report["status"]["payments"]["committed"], open.len());
        assert_eq!(report["status"]["payments"]["reserved"], 0);
    }
}
