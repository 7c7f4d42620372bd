//! An evening of the daemon: every way in which a payment ends, three windows, of which two are settled, and their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use clearway::config::BackendChoice;
use clearway::domain::{Code, Kind, PaymentId};
use clearway::wire::{Answer, Frame, PaymentRequest, ReplyOutcome};
use serde_json::Value;

use crate::support::daemon::{Installation, ask};
use crate::support::*;

/// What one bank may owe; payments come near it.
pub(crate) const CAP: u64 = 10_000;

/// An evening's data directory, made once; tests work on copies.
pub(crate) static EVENING: LazyLock<Evening> = LazyLock::new(Evening::new);

/// A data directory with journal, register and settlement files, and what happened.
pub(crate) struct Evening {
    root: tempfile::TempDir,
    /// A Debit that committed in the first window.
    pub(crate) committed: PaymentId,
    /// One that the bank refused.
    pub(crate) declined: PaymentId,
    /// A pull that was sent and expired.
    pub(crate) expired: PaymentId,
    /// One that cover refused.
    pub(crate) over_cap: PaymentId,
}

/// The participants of the evening: two institutions, then two banks.
struct Parties {
    institution: Participant,
    bank: Participant,
    serial: u64,
}

impl Parties {
    fn ask(&mut self, kind: Kind, amount_minor: u64, original: Option<PaymentId>) -> PaymentId {
        self.serial += 1;
        let mut request = debit(0, 2, self.serial, amount_minor);
        request.body.kind = kind as u8;
        request.body.scene = 1 + (self.serial % 6) as u8;
        request.body.step = if matches!(kind, Kind::Bind | Kind::Unbind) {
            2
        } else {
            0
        };
        request.body.original = original.unwrap_or_default();
        self.institution.send(&request);
        request.body.id
    }

    fn answer(&mut self) -> Answer {
        self.institution.expect()
    }

    /// A payment that the bank says yes to.
    fn commits(&mut self, kind: Kind, amount_minor: u64, original: Option<PaymentId>) -> PaymentId {
        let id = self.ask(kind, amount_minor, original);
        let request = self.next_request();
        self.bank.send(&yes(&request));
        let answer = self.answer();
        assert_eq!((code(&answer), answer.id), (Code::Committed, id));
        id
    }

    fn declines(&mut self, amount_minor: u64) -> PaymentId {
        let id = self.ask(Kind::Debit, amount_minor, None);
        let request = self.next_request();
        self.bank
            .send(&reply(&request, ReplyOutcome::No, Code::CustomerFunds as u8));
        assert_eq!(code(&self.answer()), Code::CustomerFunds);
        id
    }

    fn rejected(&mut self, amount_minor: u64) -> PaymentId {
        let id = self.ask(Kind::Debit, amount_minor, None);
        assert_eq!(code(&self.answer()), Code::CoverExceeded);
        id
    }

    /// A pull that the bank never answers.
    fn expires(&mut self, amount_minor: u64) -> PaymentId {
        let id = self.ask(Kind::Debit, amount_minor, None);
        self.next_request();
        let (template, frame) = self.institution.next(3 * PATIENCE).expect("an answer comes");
        assert_eq!(template, Answer::TEMPLATE);
        assert_eq!(code(&Answer::read(&frame)), Code::BankTimeout);
        id
    }

    /// The next request to the bank; words and questions about other payments are passed over.
    fn next_request(&mut self) -> PaymentRequest {
        loop {
            let (template, frame) = self.bank.next(PATIENCE).expect("a request comes");
            if template == PaymentRequest::TEMPLATE {
                return PaymentRequest::read(&frame);
            }
        }
    }
}

impl Evening {
    fn new() -> Self {
        let mut directory = timed(1_000, 1_200, 2_500);
        for entry in &mut directory.participants {
            entry.terms.accounts[0].cap_minor = CAP;
        }
        let installation = Installation::of(directory, BackendChoice::Auto, |settings| {
            settings.follower.payments_in_memory = 16;
            settings.follower.snapshot_every_s = 1;
        })
        .with_short_segments();
        let mut daemon = installation.start();
        let admin = installation.path("data/admin.sock");
        let connect = |index| Participant::connect(daemon.listen, &installation.directory, index, u64::MAX);
        let mut parties = Parties {
            institution: connect(0),
            bank: connect(2),
            serial: 0,
        };
        let window_states = || {
            let status = ask(&admin, "windows").unwrap_or_default();
            states_in(&status)
        };
        // The first window: everything.
        let committed = parties.commits(Kind::Debit, 4_000, None);
        for serial in 1..=40 {
            parties.commits(Kind::Debit, serial, None);
        }
        parties.commits(Kind::Payout, 700, None);
        parties.commits(Kind::Bind, 0, None);
        parties.commits(Kind::Unbind, 0, None);
        parties.commits(Kind::Refund, 300, Some(committed));
        let declined = parties.declines(50);
        let over_cap = parties.rejected(9_000);
        let expired = parties.expires(60);
        ask(&admin, "close-window").unwrap();
        eventually("a second window is open", || window_states().len() == 2);
        // The second: a late refund, and little else.
        parties.commits(Kind::Refund, 100, Some(committed));
        parties.commits(Kind::Debit, 11, None);
        ask(&admin, "settle").unwrap();
        eventually("the first window is settled", || {
            window_states().iter().filter(|state| *state == "settled").count() == 1
        });
        ask(&admin, "close-window").unwrap();
        eventually("a third window is open", || window_states().len() == 3);
        ask(&admin, "settle").unwrap();
        eventually("the second window is settled", || {
            window_states().iter().filter(|state| *state == "settled").count() == 2
        });
        // The third stays open; it brings words after the Reversal's, and the register is written out behind them.
        for serial in 1..=3 {
            parties.commits(Kind::Payout, serial, None);
        }
        let status = ask(&admin, "status").unwrap();
        let events = status["events"].as_u64().unwrap();
        eventually("a snapshot of all that is taken", || {
            let status = ask(&admin, "status").unwrap();
            status["follower"]["newest_snapshot"]["event"].as_u64() >= Some(events)
        });
        drop(parties);
        daemon.signal(libc::SIGTERM);
        assert_eq!(daemon.exit_code(), Some(0));
        let root = tempfile::tempdir().unwrap();
        copy(&installation.path("data"), root.path());
        write_files(root.path());
        Self {
            root,
            committed,
            declined,
            expired,
            over_cap,
        }
    }

    /// A copy of it.
    pub(crate) fn copied(&self) -> Copied {
        let root = tempfile::tempdir().unwrap();
        copy(self.root.path(), root.path());
        Copied { root }
    }
}

fn states_in(status: &Value) -> Vec<String> {
    match status {
        Value::Array(items) => items.iter().flat_map(states_in).collect(),
        Value::Object(object) => match object.get("state") {
            Some(Value::String(state)) => vec![state.clone()],
            _ => object.values().flat_map(states_in).collect(),
        },
        _ => Vec::new(),
    }
}

/// An evening that a test may spoil.
pub(crate) struct Copied {
    root: tempfile::TempDir,
}

impl Copied {
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// The windows that have files, the first first.
    pub(crate) fn windows(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join("settlement")).unwrap();
        let mut windows: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        windows.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with('W'));
        windows.sort();
        windows
    }

    /// `clearway settle verify`, and what it says.
    pub(crate) fn verified(&self) -> (Output, Value) {
        let output = clearway(&["settle", "verify", self.path().to_str().unwrap(), "--json", "-"]);
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
        (output, report)
    }

    /// Writes SHA256SUMS again over what is there now, as one would who covers up what he did.
    pub(crate) fn cover_up(directory: &Path) {
        let _ = fs::remove_file(directory.join("SHA256SUMS"));
        let output = Command::new("sh")
            .current_dir(directory)
            .args(["-c", "find . -type f ! -name SHA256SUMS | sed 's,^\\./,,' | LC_ALL=C sort | xargs sha256sum > /dev/shm/sums.$$ && cat /dev/shm/sums.$$ > SHA256SUMS; rm -f /dev/shm/sums.$$"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

pub(crate) fn clearway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clearway"))
        .args(args)
        .output()
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Writes the files that the spool has facts for.
fn write_files(data: &Path) {
    use clearway::journal::JournalFiles;
    use clearway::register::FileDoor;
    use clearway::settlement::*;
    let files = JournalFiles::open(&data.join("journal")).unwrap();
    let (journal_id, last) = (files.journal_id(), files.records().last().unwrap().unwrap().time);
    let settlement = data.join("settlement");
    let spool = Spool::new(&settlement.join("spool"), journal_id);
    let directory = SettlementDirectory::new(settlement, FileDoor::OPEN);
    for window in spool.windows().unwrap() {
        let facts = spool.facts(window).unwrap();
        publish_window(&facts, spool.finals(&facts).unwrap(), &directory, Existing::Keep).unwrap();
    }
    day::day_statements(spool.movements().unwrap(), last, |day| {
        day::write_day(&day, &directory, Existing::Keep).map(|_| ())
    })
    .unwrap();
}
