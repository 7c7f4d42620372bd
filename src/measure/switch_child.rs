//! A switch of one's own in a child process: directory and settings written, started, asked, ended in good order.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::machine;
use crate::agent::process;
use crate::config::{Directory, Settings, demo_credential};
use crate::io::BackendChoice;
use crate::sim::{ParticipantFigures, ParticipantPlan, WindowFigures};

/// How long a switch may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the admin socket may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Windows are closed and settled by a thread that the disk may hold up.
const SETTLING_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is shown how far settlement is.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// How often a switch that starts or ends is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The end of the switch's log that an error shows, lines.
const LOG_LINES: usize = 12;

/// Why a child switch did not do.
#[derive(Debug, Error)]
pub enum ChildError {
    /// A file could not be written or read.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The process could not be started.
    #[error("can't start {program}: {error}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It ended, or was not ready in time.
    #[error("the switch {what}; its log ends:\n{log}")]
    Failed {
        /// What it did.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// The admin socket did not do.
    #[error("the switch's admin socket, asked for {request}: {error}")]
    Admin {
        /// What was asked.
        request: &'static str,
        /// What went wrong.
        error: io::Error,
    },
}

/// How a child switch is set up.
#[derive(Clone, Debug)]
pub struct SwitchPlan {
    /// The program, normally this very one.
    pub program: PathBuf,
    /// Where everything is written; it exists.
    pub data: PathBuf,
    /// Institutions in the directory.
    pub institutions: u16,
    /// Banks in the directory.
    pub banks: u16,
    /// The driver it is to use.
    pub backend: BackendChoice,
    /// The hardware profile: a name or a file.
    pub profile: String,
    /// How often the open window is closed while the load runs, seconds.
    pub close_every_s: Option<u64>,
    /// Whether settlement writes files.
    pub files: bool,
}

/// What the switch says of itself; only what is used here.
#[derive(Clone, Debug, Deserialize)]
pub struct SwitchStatus {
    /// Links and payments are taken.
    pub ready: bool,
    /// `uring` or `mio`.
    pub backend: String,
    /// Why that one.
    pub backend_reason: String,
    /// `direct` or `fdatasync`.
    pub sync: String,
    /// The syncer's scheduling class.
    pub syncer_class: String,
    /// `locked` or `prefaulted`.
    pub memory: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its journal.
    pub journal: JournalFigures,
    /// System calls so far.
    pub system_calls: u64,
    /// Links established.
    #[serde(default)]
    pub links: u64,
    /// Events applied.
    #[serde(default)]
    pub events: u64,
    /// Payments by state.
    #[serde(default)]
    pub payments: PaymentFigures,
    /// Reversals that are open.
    #[serde(default)]
    pub reversals: Option<ReversalFigures>,
    /// The open window.
    #[serde(default)]
    pub window: Option<OpenWindow>,
    /// Cover reserved, minor units.
    #[serde(default)]
    pub reserved_minor: i128,
    /// The participant whose position is largest.
    #[serde(default)]
    pub largest_position: Option<LargestPosition>,
    /// What the settler does.
    #[serde(default)]
    pub settlement: Option<SettlementStatus>,
    /// The follower, which settlement waits for.
    #[serde(default)]
    pub follower: Option<FollowerStatus>,
}

/// How far the follower is, in a status.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct FollowerStatus {
    /// The last event it has followed.
    pub event: u64,
}

/// The settler in a status.
#[derive(Clone, Debug, Deserialize)]
pub struct SettlementStatus {
    /// False where windows are settled without files.
    pub files_are_written: bool,
    /// The window at hand.
    #[serde(default)]
    pub window: Option<String>,
    /// Its payments that were gone through.
    #[serde(default)]
    pub rows: u64,
    /// Its payments.
    #[serde(default)]
    pub rows_total: u64,
    /// Windows settled in this run.
    #[serde(default)]
    pub windows: u64,
    /// What writing their files took, milliseconds.
    #[serde(default)]
    pub ms: Option<u64>,
    /// Why the last settlement was aborted.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// The journal in a status.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct JournalFigures {
    /// Where the next record goes: grows with every record, and by what fills segments.
    pub appended: u64,
}

/// Reversals in a status.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ReversalFigures {
    /// To be sent until their banks acknowledge.
    pub due: u64,
    /// An operator must see to them.
    pub manual: u64,
}

/// Payments by state in a status.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct PaymentFigures {
    /// All that were accepted.
    pub accepted: u64,
    /// Waiting for the bank.
    pub reserved: u64,
    /// In doubt.
    pub in_doubt: u64,
    /// Posted.
    pub committed: u64,
    /// Refused by the bank.
    pub declined: u64,
    /// Refused by the switch.
    pub rejected: u64,
    /// Not sent, or unanswered.
    pub expired: u64,
}

/// The open window in a status.
#[derive(Clone, Debug, Deserialize)]
pub struct OpenWindow {
    /// Its id.
    pub id: String,
}

/// The largest position in a status.
#[derive(Clone, Debug, Deserialize)]
pub struct LargestPosition {
    /// Whose.
    pub code: String,
    /// Minor units.
    pub minor: i128,
}

/// What the switch leaves in `shutdown.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Shutdown {
    /// The last event applied.
    pub event_number: u64,
    /// The hash of the state after it.
    pub state_hash: String,
    /// The last status.
    pub status: SwitchStatus,
    /// All windows.
    pub windows: Vec<WindowFigures>,
    /// All participants.
    pub participants: Vec<ParticipantFigures>,
}

#[derive(Deserialize)]
struct WindowList {
    windows: Vec<WindowFigures>,
}

/// The switch's admin socket.
#[derive(Debug)]
pub struct AdminLink {
    requests: UnixStream,
    answers: BufReader<UnixStream>,
}

impl AdminLink {
    fn connect(path: &Path) -> io::Result<Self> {
        let requests = UnixStream::connect(path)?;
        requests.set_read_timeout(Some(ANSWER_PATIENCE))?;
        requests.set_write_timeout(Some(ANSWER_PATIENCE))?;
        let answers = BufReader::new(requests.try_clone()?);
        Ok(Self { requests, answers })
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &'static str) -> Result<T, ChildError> {
        let failed = |error| ChildError::Admin { request, error };
        let mut line = String::new();
        let read = self
            .requests
            .write_all(format!("{request}\n").as_bytes())
            .and_then(|()| self.answers.read_line(&mut line))
            .map_err(failed)?;
        if read == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&line).map_err(|error| failed(io::Error::other(format!("{error} in {}", line.trim_end()))))
    }

    /// The switch's figures.
    ///
    /// # Errors
    /// The socket fails, or says something else.
    pub fn status(&mut self) -> Result<SwitchStatus, ChildError> {
        self.ask("status")
    }

    /// All windows.
    ///
    /// # Errors
    /// As [`AdminLink::status`].
    pub fn windows(&mut self) -> Result<Vec<WindowFigures>, ChildError> {
        self.ask::<WindowList>("windows").map(|list| list.windows)
    }

    /// Asks the switch to close the open window.
    ///
    /// # Errors
    /// As [`AdminLink::status`].
    pub fn close_window(&mut self) -> Result<(), ChildError> {
        self.ask::<serde_json::Value>("close-window").map(drop)
    }

    /// Closes the open window and settles every closed one; comes back when the switch says that it is done.
    ///
    /// `observe` is shown now and then how far it is.
    ///
    /// # Errors
    /// As [`AdminLink::status`], or when nothing at all becomes of it for a minute.
    pub fn close_and_settle(&mut self, mut observe: impl FnMut(SwitchStatus)) -> Result<(), ChildError> {
        let open_before = self.open_windows()?;
        self.ask::<serde_json::Value>("close-window")?;
        let closed = |windows: &[WindowFigures]| {
            windows
                .iter()
                .all(|w| w.state != "open" || !open_before.contains(&w.id))
        };
        self.wait_for("close-window", closed)?;
        self.ask::<serde_json::Value>("settle")?;
        let mut last = ((0, 0, 0), Instant::now());
        let mut shown = Instant::now();
        while !self
            .windows()?
            .iter()
            .all(|w| w.state == "open" || w.state == "settled")
        {
            let status = self.status()?;
            let settlement = status.settlement.clone();
            let (windows, rows) = settlement.as_ref().map_or((0, 0), |now| (now.windows, now.rows));
            let followed = status.follower.map_or(0, |follower| follower.event);
            if (windows, rows, followed) != last.0 {
                last = ((windows, rows, followed), Instant::now());
            }
            if shown.elapsed() > OBSERVE_EVERY {
                shown = Instant::now();
                observe(status);
            }
            if last.1.elapsed() > SETTLING_PATIENCE {
                let why = settlement.and_then(|settlement| settlement.last_error);
                let why = why.unwrap_or_else(|| "it was asked for, but is not done".to_owned());
                let error = io::Error::new(io::ErrorKind::TimedOut, why);
                return Err(ChildError::Admin {
                    request: "settle",
                    error,
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn open_windows(&mut self) -> Result<Vec<String>, ChildError> {
        let windows = self.windows()?;
        Ok(windows
            .into_iter()
            .filter(|w| w.state == "open")
            .map(|w| w.id)
            .collect())
    }

    fn wait_for(&mut self, request: &'static str, done: impl Fn(&[WindowFigures]) -> bool) -> Result<(), ChildError> {
        let started = Instant::now();
        while !done(&self.windows()?) {
            if started.elapsed() > SETTLING_PATIENCE {
                let error = io::Error::new(io::ErrorKind::TimedOut, "it was asked for, but is not done");
                return Err(ChildError::Admin { request, error });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// A running child switch; killed when it is dropped.
#[derive(Debug)]
pub struct SwitchChild {
    child: Child,
    data: PathBuf,
    admin_socket: PathBuf,
    log: PathBuf,
    status: SwitchStatus,
    participants: Vec<ParticipantPlan>,
}

impl SwitchChild {
    /// Writes directory and settings, starts the switch, and waits until it is ready.
    ///
    /// # Errors
    /// What kept it from becoming ready, with the end of its log.
    pub fn start(plan: &SwitchPlan) -> Result<Self, ChildError> {
        let directory_file = plan.data.join("directory.toml");
        let settings_file = plan.data.join("clearway.toml");
        let directory = Directory::generate(plan.institutions, plan.banks);
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut settings = Settings::new(any_port, plan.data.clone(), directory_file.clone());
        settings.backend = plan.backend;
        settings.profile.clone_from(&plan.profile);
        settings.settlement.files = plan.files;
        write_file(&directory_file, &directory.to_toml())?;
        write_file(&settings_file, &settings.to_toml())?;
        let log = plan.data.join("switch.log");
        let log_file = File::create(&log).map_err(|error| ChildError::File {
            path: log.clone(),
            error,
        })?;
        let mut command = Command::new(&plan.program);
        command
            .arg("run")
            .arg("--config")
            .arg(&settings_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        process::die_with_parent(&mut command);
        let child = command.spawn().map_err(|error| ChildError::Start {
            program: plan.program.clone(),
            error,
        })?;
        wait_until_ready(child, plan, settings.admin_socket, log, plans_of(&directory))
    }

    /// What it said when it was ready.
    #[must_use]
    pub const fn status(&self) -> &SwitchStatus {
        &self.status
    }

    /// Its participants, with one link each.
    #[must_use]
    pub fn participants(&self) -> &[ParticipantPlan] {
        &self.participants
    }

    /// Where it keeps its journal.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A conversation over its admin socket.
    ///
    /// # Errors
    /// When the socket does not answer.
    pub fn admin(&self) -> Result<AdminLink, ChildError> {
        AdminLink::connect(&self.admin_socket).map_err(|error| ChildError::Admin {
            request: "a connection",
            error,
        })
    }

    /// Processor time it has used, microseconds.
    #[must_use]
    pub fn cpu_us(&self) -> Option<u64> {
        machine::cpu_us(self.child.id())
    }

    /// Its resident anonymous memory, bytes.
    #[must_use]
    pub fn anonymous_bytes(&self) -> Option<u64> {
        machine::anonymous_bytes(self.child.id())
    }

    /// Asks it to end, waits, and reads what it left.
    ///
    /// # Errors
    /// When it does not end in time or in good order.
    pub fn stop(mut self) -> Result<Shutdown, ChildError> {
        let failed = |log: &Path, what: String| ChildError::Failed { what, log: end_of(log) };
        process::terminate(&self.child)
            .map_err(|error| failed(&self.log, format!("could not be asked to end: {error}")))?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = ended(&mut self.child) {
                break status;
            }
            if started.elapsed() > PATIENCE {
                return Err(failed(
                    &self.log,
                    format!("has not ended within {} s", PATIENCE.as_secs()),
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        };
        if !status.success() {
            return Err(failed(&self.log, format!("ended badly ({status})")));
        }
        let path = self.data.join("shutdown.json");
        let file = |error| ChildError::File {
            path: path.clone(),
            error,
        };
        let text = std::fs::read_to_string(&path).map_err(file)?;
        serde_json::from_str(&text).map_err(|error| file(io::Error::other(error)))
    }
}

impl Drop for SwitchChild {
    fn drop(&mut self) {
        if ended(&mut self.child).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn wait_until_ready(
    mut child: Child,
    plan: &SwitchPlan,
    admin_socket: PathBuf,
    log: PathBuf,
    participants: Vec<ParticipantPlan>,
) -> Result<SwitchChild, ChildError> {
    let started = Instant::now();
    loop {
        if let Some(status) = ended(&mut child) {
            return Err(ChildError::Failed {
                what: format!("ended before it was ready ({status})"),
                log: end_of(&log),
            });
        }
        // Until the socket is there and says ready, there is nothing to do but to ask again.
        let status = AdminLink::connect(&admin_socket)
            .ok()
            .and_then(|mut admin| admin.status().ok());
        if let Some(status) = status.filter(|status| status.ready) {
            return Ok(SwitchChild {
                child,
                data: plan.data.clone(),
                admin_socket,
                log,
                status,
                participants,
            });
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(ChildError::Failed {
                what: format!("was not ready within {} s", PATIENCE.as_secs()),
                log: end_of(&log),
            });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A directory's participants as the simulator plays them: one link each, with demo credentials.
#[must_use]
pub fn plans_of(directory: &Directory) -> Vec<ParticipantPlan> {
    directory
        .participants
        .iter()
        .map(|entry| ParticipantPlan {
            index: entry.terms.index,
            code: entry.terms.code,
            role: entry.role(),
            credential: demo_credential(&entry.terms.code),
            links: 1,
        })
        .collect()
}

fn ended(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn write_file(path: &Path, text: &str) -> Result<(), ChildError> {
    std::fs::write(path, text).map_err(|error| ChildError::File {
        path: path.to_owned(),
        error,
    })
}
