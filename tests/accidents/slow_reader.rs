//! A participant that stops reading: it is cut, as the log says, catches up by word number, and nobody else notices.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use clearway::config::BackendChoice;
use clearway::domain::{Code, PaymentId};
use clearway::wire::{Answer, AnswerFlags, Frame, Template, TerminateCode};

use crate::books::all_books_agree;
use crate::players::Load;
use crate::support::daemon::{Installation, ask};
use crate::support::*;

/// The one who stops reading; institutions 0 and 1 behave.
const DEAF: u16 = 2;

fn stops_reading_and_comes_back(backend: BackendChoice) {
    let mut directory = directory(3, 2);
    directory.participants[usize::from(DEAF)]
        .terms
        .contract
        .intake_in_flight_max = 256;
    directory.participants[usize::from(DEAF)]
        .terms
        .contract
        .request_in_flight_max = 1;
    let installation = Installation::of(directory, backend, |_| {});
    let daemon = installation.start();
    let load = Load::new(&installation.directory, 0..2, 3..5, 1);
    load.scheme.started(daemon.listen);
    load.go_on(200);

    // On-us payments: each costs the switch one word, and no bank anything. Their answers pile up until the link is cut.
    let mut deaf = Participant::open_narrow(daemon.listen).sign_on(&installation.directory, DEAF, &establish(0));
    deaf.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // What the kernel holds for it when the link is cut may be refusals alone: they wait for no durable write, words do.
    let mut words = BTreeMap::new();
    let mut serial = 1;
    deaf.send(&debit(DEAF, DEAF, serial, 1));
    take(&mut words, &deaf.expect());
    let begun = Instant::now();
    let status = || ask(&installation.path("data/admin.sock"), "status").unwrap();
    while status()["links_cut"] == 0 {
        assert!(begun.elapsed() < 3 * PATIENCE, "it was never cut");
        let batch: Vec<u8> = (serial + 1..=serial + 100)
            .flat_map(|serial| bytemuck::bytes_of(&debit(DEAF, DEAF, serial, 1)).to_vec())
            .collect();
        serial += 100;
        // The cut may come in the middle of it.
        let _ = deaf.stream.write_all(&batch);
    }
    load.go_on(200);
    let log = installation.log();
    let code_said = format!("code={}", TerminateCode::SlowReader as u8);
    let said = log
        .lines()
        .find(|line| line.contains("link cut"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(said.contains(&code_said), "{said}");

    // It reads what the kernel still has for it: words without a gap.
    while let Some((template, frame)) = deaf.next(PATIENCE) {
        match template {
            Template::Answer => take(&mut words, &Answer::read(&frame)),
            Template::Terminate => {}
            other => panic!("{other:?} came"),
        }
    }
    // And comes back with the last word it has: the rest is told again, in order, and then it is served as ever.
    let had = words.len() as u64;
    let mut back = Participant::connect(daemon.listen, &installation.directory, DEAF, had);
    let last = back.next_word - 1;
    assert!(had > 0 && last > had, "{had} of {last} words were read in time");
    while (words.len() as u64) < last {
        let answer: Answer = back.expect();
        assert_eq!(
            (answer.flags, answer.word),
            (AnswerFlags::RETRANSMITTED, words.len() as u64 + 1)
        );
        take(&mut words, &answer);
    }
    back.send(&debit(DEAF, DEAF, serial + 1, 1));
    let answer: Answer = back.expect();
    assert_eq!((code(&answer), answer.word), (Code::OnUs, last + 1));

    load.go_on(200);
    let known = load.finish();
    let payments = all_books_agree(&installation, daemon, &known);
    assert!(payments >= 600);
}

fn take(words: &mut BTreeMap<u64, PaymentId>, answer: &Answer) {
    if answer.word == 0 {
        assert_eq!(code(answer), Code::NotTaken);
        return;
    }
    assert_eq!(code(answer), Code::OnUs);
    let known = words.insert(answer.word, answer.id);
    assert_eq!(known, None, "word {} came twice", answer.word);
    assert_eq!(
        words.len() as u64,
        answer.word,
        "a word is missing before {}",
        answer.word
    );
}

#[test]
fn a_slow_reader_is_cut_and_catches_up_by_word_number_while_others_pay() {
    for backend in [BackendChoice::Uring, BackendChoice::Mio] {
        stops_reading_and_comes_back(backend);
    }
}
