//! The admin socket: a Unix stream, one request line in, one JSON line out.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Wishes;
use super::desk::Desk;
use super::lists::{Wanted, exceptions_json, in_doubt_json};
use super::status::{StatusSource, participants_json, status_json, windows_json};
use crate::agent::{StopFlag, Wakeup};

/// How long to leave the socket alone after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// The longest request line, bytes.
const REQUEST_BYTES_MAX: u64 = 4_096;

/// Serves operators until it is stopped.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Office {
    source: StatusSource,
    desk: Desk,
    wishes: Arc<Wishes>,
    housekeeping: Arc<Wakeup>,
    link_counts: Arc<[AtomicU16]>,
}

impl AdminServer {
    /// Begins to serve at `path`, for the owner alone. A socket left over by a switch that is gone is replaced.
    ///
    /// # Errors
    /// The socket can't be bound, or a running switch answers at it.
    pub fn start(
        path: &Path,
        source: StatusSource,
        desk: Desk,
        wishes: Arc<Wishes>,
        housekeeping: Arc<Wakeup>,
        link_counts: Arc<[AtomicU16]>,
    ) -> io::Result<Self> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another switch answers at this admin socket",
            ));
        }
        if path.exists() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let office = Office {
            source,
            desk,
            wishes,
            housekeeping,
            link_counts,
        };
        let stop = StopFlag::default();
        let thread = {
            let stop = stop.clone();
            std::thread::Builder::new()
                .name("admin".into())
                .spawn(move || accept(&listener, &office, &stop))?
        };
        Ok(Self {
            path: path.to_owned(),
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.stop();
        // Ends the accept that the thread sleeps in.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, office: &Office, stop: &StopFlag) {
    for stream in listener.incoming() {
        if stop.is_set() {
            return;
        }
        let Ok(stream) = stream else {
            // No file descriptor is free: a link that ends gives one back.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let office = office.clone();
        // An operator's connection ends when the operator ends it; it holds nothing of the switch's.
        let _ = std::thread::Builder::new()
            .name("admin-link".into())
            .spawn(move || converse(stream, &office));
    }
}

fn converse(stream: UnixStream, office: &Office) -> io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = io::Read::take(&mut requests, REQUEST_BYTES_MAX).read_line(&mut line)?;
        if read == 0 {
            return Ok(());
        }
        let mut answer = office.answer(line.trim()).to_string();
        answer.push('\n');
        answers.write_all(answer.as_bytes())?;
    }
}

impl Office {
    fn answer(&self, request: &str) -> Value {
        let no_answer = || json!({ "error": "clearing did not answer within two seconds" });
        match request {
            "status" => status_json(&self.source, self.desk.ask().as_deref()),
            "participants" => self.desk.ask().map_or_else(no_answer, |view| {
                participants_json(&view.snapshot, |index| {
                    u64::from(self.link_counts[index].load(Ordering::Relaxed))
                })
            }),
            "windows" => self
                .desk
                .ask()
                .map_or_else(no_answer, |view| windows_json(&view.snapshot)),
            "in-doubt" => self
                .desk
                .ask_with(Wanted::InDoubt)
                .map_or_else(no_answer, |view| in_doubt_json(&view)),
            "exceptions" => self
                .desk
                .ask_with(Wanted::Exceptions)
                .map_or_else(no_answer, |view| exceptions_json(&view)),
            "close-window" => {
                self.wishes.close_windows.store(true, Ordering::Release);
                self.housekeeping.wake();
                json!({ "requested": true })
            }
            "settle" => {
                self.wishes.settle.store(true, Ordering::Release);
                self.housekeeping.wake();
                json!({ "requested": true })
            }
            other => json!({
                "error": format!(
                    "unknown request {other:?}; one of status, participants, windows, in-doubt, exceptions, close-window, \
                     settle"
                )
            }),
        }
    }
}
