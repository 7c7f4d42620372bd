//! How long a start takes after a kill: a history of so many payments, a snapshot, events since, and the daemon itself.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::history::History;
use super::run::RunError;
use crate::config::{Directory, Profile, Settings};

/// The longest a start may take.
const START_MAX: Duration = Duration::from_secs(600);

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct RestartPlan {
    /// This program's file.
    pub program: PathBuf,
    /// Where everything is written.
    pub data: PathBuf,
    /// Payments of history, all of today.
    pub payments: u64,
    /// Events behind the snapshot.
    pub since: u64,
    /// Starts.
    pub runs: u32,
    /// Institutions.
    pub institutions: u16,
    /// Banks.
    pub banks: u16,
    /// The hardware profile.
    pub profile: String,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct RestartReport {
    /// Payments of history.
    pub payments: u64,
    /// Events behind the snapshot.
    pub since: u64,
    /// The journal's length, bytes.
    pub journal_bytes: u64,
    /// What is kept of it: what the older of two snapshots needs.
    pub journal_kept_bytes: u64,
    /// The snapshot's length, bytes.
    pub snapshot_bytes: u64,
    /// How long the snapshot took to write, milliseconds.
    pub snapshot_ms: u64,
    /// Snapshots on the way.
    pub snapshots: u64,
    /// The register's files, bytes.
    pub register_bytes: u64,
    /// Events a second at which the history was journaled, followed and filed.
    pub built_per_second: f64,
    /// From the start of the process to taking payments, milliseconds, each start.
    pub ready_ms: Vec<f64>,
    /// What each start said of its steps.
    pub starts: Vec<Value>,
    /// Anonymous memory when ready, bytes.
    pub rss_bytes: Option<u64>,
}

/// Builds the history, and starts and kills the daemon.
///
/// # Errors
/// What kept it from being measured.
pub fn restart(plan: &RestartPlan, mut say: impl FnMut(&str)) -> Result<RestartReport, RunError> {
    let host = |what: &'static str| move |error: std::io::Error| RunError::Host { what, error };
    let unfit = |error: String| RunError::Host {
        what: "build the history",
        error: std::io::Error::other(error),
    };
    let directory = Directory::generate(plan.institutions, plan.banks);
    let config = plan.data.join("clearway.toml");
    let mut settings = Settings::new(
        ([127, 0, 0, 1], 0).into(),
        plan.data.join("data"),
        plan.data.join("directory.toml"),
    );
    settings.profile.clone_from(&plan.profile);
    // The snapshot is taken where this says.
    (
        settings.follower.snapshot_every_s,
        settings.follower.snapshot_journal_mib,
    ) = (86_400, 1 << 20);
    std::fs::create_dir_all(&settings.data).map_err(host("make the data directory"))?;
    std::fs::write(&settings.directory, directory.to_toml()).map_err(host("write the directory"))?;
    std::fs::write(&config, settings.to_toml()).map_err(host("write the settings"))?;
    let profile = Profile::load(&plan.profile).map_err(|error| unfit(error.to_string()))?;

    let begun = Instant::now();
    let mut history = History::begin(&settings, &directory, &profile).map_err(&unfit)?;
    history.pay(plan.payments, &mut say).map_err(&unfit)?;
    history.snapshot().map_err(&unfit)?;
    let (built, events) = (begun.elapsed(), history.events());
    history.pay(plan.since.div_ceil(2), &mut |_| {}).map_err(&unfit)?;
    let written = history.end().map_err(&unfit)?;

    let (mut ready_ms, mut starts, mut rss_bytes) = (Vec::new(), Vec::new(), None);
    for run in 1..=plan.runs {
        let mut started = Started::spawn(&plan.program, &config).map_err(host("start the daemon"))?;
        let (took, status) = started.wait(&settings.admin_socket)?;
        ready_ms.push(took.as_secs_f64() * 1e3);
        rss_bytes = super::machine::anonymous_bytes(started.0.id());
        say(&format!(
            "start {run}: {:.0} ms, {}",
            took.as_secs_f64() * 1e3,
            status["start"]
        ));
        starts.push(status["start"].clone());
    }
    Ok(RestartReport {
        payments: plan.payments,
        since: plan.since,
        journal_bytes: written.journal_bytes,
        journal_kept_bytes: written.journal_kept_bytes,
        snapshot_bytes: written.snapshot_bytes,
        snapshot_ms: written.snapshot_ms,
        snapshots: written.snapshots,
        register_bytes: written.register_bytes,
        built_per_second: events as f64 / built.as_secs_f64(),
        ready_ms,
        starts,
        rss_bytes,
    })
}

/// The daemon; killed when it is let go.
struct Started(Child, Instant);

impl Started {
    fn spawn(program: &Path, config: &Path) -> std::io::Result<Self> {
        let started = Instant::now();
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?, started))
    }

    /// Waits until it takes payments.
    fn wait(&mut self, socket: &Path) -> Result<(Duration, Value), RunError> {
        let failed = |what: &str| RunError::Host {
            what: "wait for the daemon",
            error: std::io::Error::other(what.to_owned()),
        };
        loop {
            let status = ask(socket).unwrap_or(Value::Null);
            if status["ready"] == true && status["pid"] == self.0.id() {
                return Ok((self.1.elapsed(), status));
            }
            if self.0.try_wait().ok().flatten().is_some() {
                return Err(failed("it ended before it took payments: start it by hand to see why"));
            }
            if self.1.elapsed() > START_MAX {
                return Err(failed("it took no payments within ten minutes"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(socket: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(b"status\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
