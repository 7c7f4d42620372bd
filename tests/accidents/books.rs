//! The players' own books against the switch's, and the audit of the journal.

use std::path::PathBuf;

use clearway::audit::recompute;
use clearway::domain::{Code, Direction, ParticipantIndex, WindowId};
use clearway::measure::switch_child::Shutdown;
use clearway::sim::Books;
use clearway::switch::replay;

use crate::players::Known;
use crate::support::code;
use crate::support::daemon::{Daemon, Installation};

/// Ends the switch in good order and holds all books against each other. Gives how many payments there were.
pub(crate) fn all_books_agree(installation: &Installation, daemon: Daemon, known: &Known) -> u64 {
    all_books_agree_over(installation, daemon, known, || installation.path("data/journal"))
}

/// As `all_books_agree`, where the whole journal is what `journal` gives once the switch has ended.
pub(crate) fn all_books_agree_over(
    installation: &Installation,
    mut daemon: Daemon,
    known: &Known,
    journal: impl FnOnce() -> PathBuf,
) -> u64 {
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let shutdown: Shutdown = serde_json::from_value(installation.shutdown_report()).unwrap();

    let mut books = Books::new(installation.directory.participants.len());
    let mut payments = 0;
    for institution in &known.institutions {
        assert_eq!(
            institution.answers.len(),
            institution.requests.len(),
            "all are answered"
        );
        payments += institution.answers.len() as u64;
        for answer in institution.answers.values() {
            let (_, bank) = known
                .banks
                .iter()
                .find(|(index, _)| *index == answer.responder.0)
                .unwrap();
            let committed = code(answer) == Code::Committed;
            assert_eq!(
                bank.did(&answer.id),
                committed,
                "{} and its bank: {answer:?}",
                answer.id
            );
            if committed {
                books.of(ParticipantIndex(institution.index)).commit(
                    Direction::Pull,
                    WindowId(answer.window.0),
                    answer.amount_minor,
                );
            }
        }
    }
    for (index, bank) in &known.banks {
        assert!(bank.reversed.is_empty(), "nothing expired, nothing is reversed");
        for request in bank.requests.values().filter(|request| bank.did(&request.body.id)) {
            books.of(ParticipantIndex(*index)).debit(request.body.amount_minor);
        }
    }
    for answer in known.others.iter().filter(|answer| code(answer) == Code::Committed) {
        let initiator = ParticipantIndex(answer.id.originator().0);
        let (window, amount) = (WindowId(answer.window.0), answer.amount_minor);
        books.of(initiator).commit(Direction::Pull, window, amount);
        books.of(answer.responder).debit(amount);
    }
    let differences = books.compare(&[], &shutdown.windows, &shutdown.participants);
    assert_eq!(differences, Vec::<String>::new());

    let journal = journal();
    let audited = recompute(&journal, |_| {}).unwrap();
    assert_eq!(audited.findings, Vec::<String>::new());
    assert!(audited.is_zero_sum());
    assert_eq!(audited.payments.committed, shutdown.status.payments.committed);
    let positions: Vec<i128> = shutdown.participants.iter().map(|p| p.position_minor).collect();
    assert_eq!(audited.positions, positions);
    let replayed = replay(&journal, None, |_| {}).unwrap();
    assert_eq!(
        (replayed.event_number, replayed.hash.to_string()),
        (shutdown.event_number, shutdown.state_hash)
    );
    payments
}
