//! The admin socket: a Unix stream, one request line in, one JSON line out.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::office::Office;
use crate::agent::{StopFlag, process::peer_user};

/// How long to leave the socket alone after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// The longest request line, bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// Serves operators until it is stopped.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Begins to serve at `path`, for the owner alone. A socket left over by a switch that is gone is replaced.
    ///
    /// # Errors
    /// The socket can't be bound, or a running switch answers at it.
    pub fn start(path: &Path, office: Office) -> io::Result<Self> {
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
        let stop = StopFlag::default();
        let thread = {
            let (stop, office) = (stop.clone(), Arc::new(office));
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

fn accept(listener: &UnixListener, office: &Arc<Office>, stop: &StopFlag) {
    for stream in listener.incoming() {
        if stop.is_set() {
            return;
        }
        let Ok(stream) = stream else {
            // No file descriptor is free: a link that ends gives one back.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let office = Arc::clone(office);
        // An operator's connection ends when the operator ends it; it holds nothing of the switch's.
        let _ = std::thread::Builder::new()
            .name("admin-link".into())
            .spawn(move || converse(stream, &office));
    }
}

fn converse(stream: UnixStream, office: &Office) -> io::Result<()> {
    let user = peer_user(&stream);
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = io::Read::take(&mut requests, REQUEST_BYTES_MAX).read_line(&mut line)?;
        if read == 0 {
            return Ok(());
        }
        let mut answer = office.answer(line.trim(), user).to_string();
        answer.push('\n');
        answers.write_all(answer.as_bytes())?;
    }
}
