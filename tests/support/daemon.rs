//! The real binary as a daemon, with its files.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use clearway::config::{BackendChoice, Directory, Settings};
use serde_json::Value;

use super::{PATIENCE, directory, eventually_within, settings};

/// A switch's files: settings, directory, profile, data.
pub struct Installation {
    root: tempfile::TempDir,
    pub directory: Directory,
    change: fn(&mut Settings),
}

/// A running daemon; killed when the test is over.
pub struct Daemon {
    pub child: Child,
    pub listen: SocketAddr,
}

impl Installation {
    /// Two institutions and two banks.
    pub fn new(backend: BackendChoice) -> Self {
        Self::of(directory(2, 2), backend, |_| {})
    }

    /// These participants, and settings that `change` has had its way with.
    pub fn of(directory: Directory, backend: BackendChoice, change: fn(&mut Settings)) -> Self {
        Self::in_place(tempfile::tempdir().unwrap(), directory, backend, change)
    }

    /// As `of`, with its files in `root`.
    pub fn in_place(
        root: tempfile::TempDir,
        directory: Directory,
        backend: BackendChoice,
        change: fn(&mut Settings),
    ) -> Self {
        std::fs::write(root.path().join("directory.toml"), directory.to_toml()).unwrap();
        let profile = include_str!("../../hw-profiles/small-vm.toml")
            .replace("segment_mib = 64", "segment_mib = 4")
            .replace("ring_mib = 128", "ring_mib = 16")
            .replace("receive_buffers = 1024", "receive_buffers = 64")
            .replace("core = 0\n", "");
        std::fs::write(root.path().join("profile.toml"), profile).unwrap();
        let installation = Self {
            root,
            directory,
            change,
        };
        installation.write_settings("127.0.0.1:0".parse().unwrap(), backend);
        installation
    }

    /// Segments as short as a profile may have them, so that a short run fills some.
    pub fn with_short_segments(self) -> Self {
        self.with_profile("segment_mib = 4", "segment_mib = 1")
    }

    /// Changes the profile: `from` becomes `to`.
    pub fn with_profile(self, from: &str, to: &str) -> Self {
        let path = self.path("profile.toml");
        let profile = std::fs::read_to_string(&path).unwrap();
        assert!(profile.contains(from), "{profile}");
        std::fs::write(path, profile.replace(from, to)).unwrap();
        self
    }

    pub fn write_settings(&self, listen: SocketAddr, backend: BackendChoice) {
        let mut settings = settings(&self.path("data"), backend);
        settings.listen = listen;
        settings.directory = self.path("directory.toml");
        settings.profile = self.path("profile.toml").display().to_string();
        settings.shutdown_drain_ms = Some(2_000);
        (self.change)(&mut settings);
        std::fs::write(self.path("clearway.toml"), settings.to_toml()).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clearway"));
        command.args(["run", "--config"]).arg(self.path("clearway.toml"));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts the daemon and waits until it takes payments.
    pub fn start(&self) -> Daemon {
        self.start_by(&mut self.command())
    }

    /// As `start`, by this command.
    pub fn start_by(&self, command: &mut Command) -> Daemon {
        self.try_start_by(command)
            .unwrap_or_else(|_| panic!("the daemon ended: {}", self.log()))
    }

    /// As `start_by`, where the daemon may end before it takes payments: gives how it did.
    pub fn try_start_by(&self, command: &mut Command) -> Result<Daemon, ExitStatus> {
        self.try_start_until(command, &|status| status["ready"] == true)
    }

    /// As `try_start_by`, until the status is such.
    pub fn try_start_until(
        &self,
        command: &mut Command,
        is_such: &dyn Fn(&Value) -> bool,
    ) -> Result<Daemon, ExitStatus> {
        let log = File::options().create(true).append(true).open(self.path("switch.log"));
        let child = command.stderr(log.unwrap()).spawn().unwrap();
        let mut daemon = Daemon {
            child,
            listen: SocketAddr::from(([0; 4], 0)),
        };
        let (mut status, mut ended) = (Value::Null, None);
        // It replays first, and on a machine that does much else that takes its time.
        eventually_within(3 * PATIENCE, "the daemon is ready", || {
            ended = daemon.child.try_wait().unwrap();
            status = ask(&self.path("data/admin.sock"), "status").unwrap_or_default();
            ended.is_some() || (status["pid"] == daemon.child.id() && is_such(&status))
        });
        match ended {
            Some(ended) => Err(ended),
            None => {
                daemon.listen = status["listen"].as_str().unwrap().parse().unwrap();
                Ok(daemon)
            }
        }
    }

    /// Runs the daemon where it can't start.
    pub fn fails(&self) -> Output {
        let mut command = assert_cmd::Command::from_std(self.command());
        // One that starts after all is ended, and its exit code is not the one that is expected.
        command.timeout(3 * PATIENCE).output().unwrap()
    }

    /// What all daemons here have said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("switch.log")).unwrap()
    }

    /// How long that is, bytes.
    pub fn log_length(&self) -> u64 {
        std::fs::metadata(self.path("switch.log")).map_or(0, |facts| facts.len())
    }

    pub fn shutdown_report(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("data/shutdown.json")).unwrap()).unwrap()
    }
}

/// Asks the admin socket.
pub fn ask(socket: &Path, request: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(format!("{request}\n").as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

impl Daemon {
    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is involved; the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        // SAFETY: asks for a descriptor of a child that has not been waited for, so that its number is its own.
        let ended = unsafe { libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0) } as i32;
        assert!(ended >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and nobody else has it.
        let ended = unsafe { OwnedFd::from_raw_fd(ended) };
        let mut wait = libc::pollfd {
            fd: ended.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, alive until the call returns.
        let count = unsafe { libc::poll(&raw mut wait, 1, 3 * PATIENCE.as_millis() as i32) };
        assert_eq!(count, 1, "the daemon does not end");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
