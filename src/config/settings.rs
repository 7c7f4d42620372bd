//! The daemon's settings: where it listens, where it keeps its journal, how it closes windows.
//!
//! Paths in the file are relative to the file, so that a configuration directory can be moved as a whole.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::fault::{ConfigError, read_file};
use super::operators::{OperatorSettings, WindowSettings, read_operators, read_windows};
use super::profile::BUILT_IN_PROFILES;
use super::section::{Section, read_toml};
pub use crate::io::BackendChoice;

/// What `clearway run` reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where participants connect; port 0 = any.
    pub listen: SocketAddr,
    /// Plain TCP on an address that is not loopback.
    pub allow_plain_beyond_loopback: bool,
    /// Which driver to use.
    pub backend: BackendChoice,
    /// Directory of the journal and of everything else that is written.
    pub data: PathBuf,
    /// The Unix socket for `clearway admin`.
    pub admin_socket: PathBuf,
    /// The directory of participants.
    pub directory: PathBuf,
    /// A built-in profile's name or a profile file's path.
    pub profile: String,
    /// When windows close.
    pub windows: WindowSettings,
    /// Limits on links.
    pub links: LinkSettings,
    /// Register and snapshots.
    pub follower: FollowerSettings,
    /// What becomes of the journal's old segments.
    pub archive: ArchiveSettings,
    /// What is written of windows and days.
    pub settlement: SettlementSettings,
    /// Who may give orders; without any, none is taken.
    pub operators: Vec<OperatorSettings>,
    /// How long a shutdown waits for open payments, milliseconds; `None` = the directory's longest T1.
    pub shutdown_drain_ms: Option<u64>,
}

/// Limits on links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkSettings {
    /// Most links at a time, half-open ones included.
    pub max: u32,
    /// Most links at a time that have not signed on yet.
    pub half_open_max: u32,
    /// A link that has not signed on by then is cut, milliseconds.
    pub handshake_timeout_ms: u64,
    /// Silence after which the switch sends a heartbeat, milliseconds; after three times as much the peer is cut.
    pub keepalive_ms: u64,
    /// A peer that has not taken all of one send by then does not read, and is cut, milliseconds.
    pub send_timeout_ms: u64,
    /// What the kernel keeps of one link's unsent bytes, its own bookkeeping included, KiB; `None` = as much as it sees fit.
    pub send_buffer_kib: Option<u32>,
}

/// How the follower keeps the register and takes snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerSettings {
    /// Whether there is one at all.
    pub enabled: bool,
    /// A snapshot is taken at least this often while payments come, seconds.
    pub snapshot_every_s: u64,
    /// A snapshot is taken when this much was journaled since the last, MiB.
    pub snapshot_journal_mib: u64,
    /// Final payments kept in memory before they are written to the register.
    pub payments_in_memory: u32,
    /// Days that the register is kept.
    pub register_days: u32,
}

impl Default for FollowerSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            snapshot_every_s: 600,
            snapshot_journal_mib: 512,
            payments_in_memory: 1 << 18,
            register_days: 97,
        }
    }
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            max: 2_048,
            half_open_max: 1_024,
            handshake_timeout_ms: 5_000,
            keepalive_ms: 10_000,
            send_timeout_ms: 5_000,
            send_buffer_kib: None,
        }
    }
}

/// What becomes of the journal's old segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveSettings {
    /// Where sealed segments are archived; `None` = nowhere, and none is ever removed.
    pub directory: Option<PathBuf>,
    /// zstd's level, 1 to 19.
    pub level: i32,
    /// What the journal's segments may take on disk, MiB, before old ones are retired; `None` = whatever there is.
    pub journal_keep_mib: Option<u64>,
}

impl ArchiveSettings {
    /// What the journal's segments may take on disk, bytes.
    #[must_use]
    pub fn keep_bytes(&self) -> Option<u64> {
        self.journal_keep_mib.map(|mib| mib << 20)
    }
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            directory: None,
            level: 1,
            journal_keep_mib: None,
        }
    }
}

/// What is written of windows and days.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettlementSettings {
    /// Where.
    pub directory: PathBuf,
    /// Whether files are written at all: without, a window is Settled as soon as it is asked for.
    pub files: bool,
    /// Days that the spool of a settled window is kept after its close.
    pub spool_days: u32,
}

impl SettlementSettings {
    /// Every default, for a switch that keeps everything under `data`.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self {
            directory: data.join("settlement"),
            files: true,
            spool_days: 7,
        }
    }
}

impl Settings {
    /// Settings with every default, for a switch that keeps everything under `data` and reads `directory`.
    #[must_use]
    pub fn new(listen: SocketAddr, data: PathBuf, directory: PathBuf) -> Self {
        Self {
            listen,
            allow_plain_beyond_loopback: false,
            backend: BackendChoice::Auto,
            admin_socket: data.join("admin.sock"),
            settlement: SettlementSettings::of(&data),
            data,
            directory,
            profile: "small-vm".to_owned(),
            windows: WindowSettings::default(),
            links: LinkSettings::default(),
            follower: FollowerSettings::default(),
            archive: ArchiveSettings::default(),
            operators: Vec::new(),
            shutdown_drain_ms: None,
        }
    }

    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// An unreadable file, or every fault in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_file(path, "give the path of a settings file, such as config/clearway.toml")?;
        Self::parse(
            &path.display().to_string(),
            &text,
            path.parent().unwrap_or(Path::new("")),
        )
    }

    /// Reads and checks settings' text; `name` is the file's name in messages, `base` what its paths are relative to.
    ///
    /// # Errors
    /// Every fault in the text.
    pub fn parse(name: &str, text: &str, base: &Path) -> Result<Self, ConfigError> {
        read_toml(name, text, |root| read_settings(root, base))
    }

    /// The settings as a file that [`Settings::load`] reads back; relative paths are then relative to that file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let path = |path: &Path| quoted(&path.to_string_lossy());
        let mut text = format!(
            "listen = \"{}\"\nallow_plain_beyond_loopback = {}\nbackend = \"{}\"\ndata = {}\nadmin_socket = {}\n\
             directory = {}\nprofile = {}\n",
            self.listen,
            self.allow_plain_beyond_loopback,
            self.backend,
            path(&self.data),
            path(&self.admin_socket),
            path(&self.directory),
            quoted(&self.profile),
        );
        if let Some(drain_ms) = self.shutdown_drain_ms {
            text.push_str(&format!("shutdown_drain_ms = {drain_ms}\n"));
        }
        text.push('\n');
        text.push_str(&self.windows.to_toml());
        text.push_str(&format!(
            "\n[links]\nmax = {}\nhalf_open_max = {}\nhandshake_timeout_ms = {}\nkeepalive_ms = {}\nsend_timeout_ms = {}\n",
            self.links.max,
            self.links.half_open_max,
            self.links.handshake_timeout_ms,
            self.links.keepalive_ms,
            self.links.send_timeout_ms
        ));
        if let Some(send_buffer_kib) = self.links.send_buffer_kib {
            text.push_str(&format!("send_buffer_kib = {send_buffer_kib}\n"));
        }
        let follower = &self.follower;
        text.push_str(&format!(
            "\n[follower]\nenabled = {}\nsnapshot_every_s = {}\nsnapshot_journal_mib = {}\npayments_in_memory = {}\n\
             register_days = {}\n",
            follower.enabled,
            follower.snapshot_every_s,
            follower.snapshot_journal_mib,
            follower.payments_in_memory,
            follower.register_days
        ));
        text.push_str("\n[archive]\n");
        if let Some(directory) = &self.archive.directory {
            text.push_str(&format!("directory = {}\n", path(directory)));
        }
        text.push_str(&format!("level = {}\n", self.archive.level));
        if let Some(journal_keep_mib) = self.archive.journal_keep_mib {
            text.push_str(&format!("journal_keep_mib = {journal_keep_mib}\n"));
        }
        let settlement = &self.settlement;
        text.push_str(&format!(
            "\n[settlement]\ndirectory = {}\nfiles = {}\nspool_days = {}\n",
            path(&settlement.directory),
            settlement.files,
            settlement.spool_days
        ));
        for operator in &self.operators {
            text.push('\n');
            text.push_str(&operator.to_toml());
        }
        text
    }
}

/// The longest path a Unix socket may have (`sun_path` less its closing zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn read_settings(root: &Section<'_, '_>, base: &Path) -> Option<Settings> {
    let listen = read_listen(root);
    let allow_plain_beyond_loopback = root.flag_or("allow_plain_beyond_loopback", false);
    if let Some((address, span)) = &listen
        && !address.ip().is_loopback()
        && !allow_plain_beyond_loopback
    {
        root.fault(
            span.clone(),
            format!("{} is not a loopback address, and links are plain TCP", address.ip()),
            "listen on 127.0.0.1, or insist with `allow_plain_beyond_loopback = true` on a network you trust",
        );
    }
    let backend = root.word("backend", &BackendChoice::ALL.map(|choice| (choice.name(), choice)));
    let data = root
        .required_text("data", "\"../data\"")
        .map(|data| base.join(data.value));
    let socket = root.text("admin_socket");
    let admin_socket = socket
        .as_ref()
        .map(|socket| base.join(socket.value))
        .or_else(|| data.as_ref().map(|data| data.join("admin.sock")));
    if let Some(path) = &admin_socket
        && path.as_os_str().len() > SOCKET_PATH_BYTES_MAX
    {
        root.fault(
            socket.map_or(root.span.clone(), |socket| socket.span),
            format!("the admin socket's path is {} bytes long", path.as_os_str().len()),
            format!(
                "give `admin_socket` a path of at most {SOCKET_PATH_BYTES_MAX} bytes, e.g. \"/run/clearway/admin.sock\""
            ),
        );
    }
    let directory = root
        .required_text("directory", "\"directory.toml\"")
        .map(|directory| base.join(directory.value));
    let profile = root
        .text("profile")
        .map_or("small-vm".to_owned(), |profile| resolve_profile(profile.value, base));
    let windows = read_windows(root);
    let links = read_links(root);
    let follower = read_follower(root);
    let archive = read_archive(root, base);
    let settlement = read_settlement(root, base, data.as_deref());
    let operators = read_operators(root);
    let shutdown_drain_ms = root.integer("shutdown_drain_ms", 0..=600_000).map(|drain| drain.value);
    Some(Settings {
        listen: listen?.0,
        allow_plain_beyond_loopback,
        backend: backend.unwrap_or_default(),
        data: data?,
        admin_socket: admin_socket?,
        directory: directory?,
        profile,
        windows,
        links,
        follower,
        archive,
        settlement,
        operators,
        shutdown_drain_ms,
    })
}

fn read_listen(root: &Section<'_, '_>) -> Option<(SocketAddr, std::ops::Range<usize>)> {
    let text = root.required_text("listen", "\"127.0.0.1:4711\"")?;
    match text.value.parse() {
        Ok(address) => Some((address, text.span)),
        Err(_) => {
            root.fault(
                text.span,
                format!("`{}` is not an address with a port", text.value),
                "write an IP address and a port, e.g. \"127.0.0.1:4711\" or \"[::1]:4711\"",
            );
            None
        }
    }
}

/// A built-in profile's name stays; a path is taken relative to the settings file.
fn resolve_profile(profile: &str, base: &Path) -> String {
    if BUILT_IN_PROFILES.iter().any(|(name, _)| *name == profile) {
        profile.to_owned()
    } else {
        base.join(profile).to_string_lossy().into_owned()
    }
}

fn read_follower(root: &Section<'_, '_>) -> FollowerSettings {
    let defaults = FollowerSettings::default();
    let Some(section) = root.section("follower") else {
        return defaults;
    };
    let follower = FollowerSettings {
        enabled: section.flag_or("enabled", defaults.enabled),
        snapshot_every_s: section.integer_or("snapshot_every_s", 1..=86_400, defaults.snapshot_every_s),
        snapshot_journal_mib: section.integer_or("snapshot_journal_mib", 1..=1 << 20, defaults.snapshot_journal_mib),
        payments_in_memory: section.integer_or("payments_in_memory", 16..=1 << 26, defaults.payments_in_memory.into())
            as u32,
        register_days: section.integer_or("register_days", 1..=3_660, defaults.register_days.into()) as u32,
    };
    section.finish();
    follower
}

fn read_settlement(root: &Section<'_, '_>, base: &Path, data: Option<&Path>) -> SettlementSettings {
    let defaults = SettlementSettings::of(data.unwrap_or(base));
    let Some(section) = root.section("settlement") else {
        return defaults;
    };
    let settlement = SettlementSettings {
        directory: section
            .text("directory")
            .map_or(defaults.directory, |directory| base.join(directory.value)),
        files: section.flag_or("files", defaults.files),
        spool_days: section.integer_or("spool_days", 0..=3_660, defaults.spool_days.into()) as u32,
    };
    section.finish();
    settlement
}

fn read_links(root: &Section<'_, '_>) -> LinkSettings {
    let defaults = LinkSettings::default();
    let Some(section) = root.section("links") else {
        return defaults;
    };
    let max = section.integer_or("max", 1..=65_535, defaults.max.into());
    let half_open = section.integer("half_open_max", 1..=65_535);
    if let Some(half_open) = &half_open
        && half_open.value > max
    {
        section.fault(
            half_open.span.clone(),
            "`half_open_max` is more than `max`",
            format!("write at most {max}"),
        );
    }
    let half_open_max = half_open.map_or(u64::from(defaults.half_open_max).min(max), |placed| placed.value);
    let links = LinkSettings {
        max: max as u32,
        half_open_max: half_open_max as u32,
        handshake_timeout_ms: section.integer_or("handshake_timeout_ms", 10..=600_000, defaults.handshake_timeout_ms),
        keepalive_ms: section.integer_or("keepalive_ms", 10..=600_000, defaults.keepalive_ms),
        send_timeout_ms: section.integer_or("send_timeout_ms", 10..=600_000, defaults.send_timeout_ms),
        send_buffer_kib: section
            .integer("send_buffer_kib", 4..=65_536)
            .map(|kib| kib.value as u32),
    };
    section.finish();
    links
}

fn read_archive(root: &Section<'_, '_>, base: &Path) -> ArchiveSettings {
    let defaults = ArchiveSettings::default();
    let Some(section) = root.section("archive") else {
        return defaults;
    };
    let directory = section.text("directory").map(|directory| base.join(directory.value));
    let keep = section.integer("journal_keep_mib", 1..=1 << 40);
    if let (None, Some(keep)) = (&directory, &keep) {
        section.fault(
            keep.span.clone(),
            "`journal_keep_mib` without `directory`: no segment is removed that is not archived",
            "add `directory = \"../archive\"`, best on another disk",
        );
    }
    let archive = ArchiveSettings {
        directory,
        level: section.integer_or("level", 1..=19, defaults.level as u64) as i32,
        journal_keep_mib: keep.map(|mib| mib.value),
    };
    section.finish();
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "listen = \"127.0.0.1:0\"\ndata = \"d\"\ndirectory = \"directory.toml\"\n";

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse("clearway.toml", text, Path::new("/etc/clearway"))
    }

    #[test]
    fn what_is_left_out_takes_its_default_and_paths_are_relative_to_the_file() {
        let settings = parse(LEAST).expect("a right file");
        let expected = Settings::new(
            "127.0.0.1:0".parse().expect("an address"),
            "/etc/clearway/d".into(),
            "/etc/clearway/directory.toml".into(),
        );
        assert_eq!(settings, expected);
        assert_eq!(settings.admin_socket, Path::new("/etc/clearway/d/admin.sock"));
    }

    #[test]
    fn settings_that_were_written_read_back_the_same() {
        let mut settings = parse(LEAST).expect("a right file");
        settings.backend = BackendChoice::Mio;
        settings.windows = WindowSettings {
            close_every_s: Some(7),
            close_at_s: vec![60],
            settle: true,
        };
        settings.links.keepalive_ms = 250;
        settings.archive = ArchiveSettings {
            directory: Some("/var/archive".into()),
            level: 7,
            journal_keep_mib: Some(1_024),
        };
        settings.shutdown_drain_ms = Some(0);
        settings.follower.enabled = false;
        settings.follower.snapshot_every_s = 3;
        settings.data = "/a \"quoted\" \\ path".into();
        assert_eq!(parse(&settings.to_toml()).expect("a right file"), settings);
    }

    #[test]
    fn plain_tcp_beyond_loopback_must_be_insisted_on() {
        let open = LEAST.replace("127.0.0.1:0", "0.0.0.0:4711");
        let error = parse(&open).expect_err("not loopback").to_string();
        assert!(
            error.starts_with("clearway.toml:1:10: 0.0.0.0 is not a loopback"),
            "{error}"
        );
        assert!(parse(&format!("allow_plain_beyond_loopback = true\n{open}")).is_ok());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
        let error = parse(&format!("{LEAST}[links]\nkeep_alive_ms = 5\n")).expect_err("unknown key");
        let fault = &error.faults()[0];
        assert_eq!((fault.line, fault.column), (5, 1));
        assert_eq!(fault.advice, "did you mean `keepalive_ms`?");
    }

    #[test]
    fn a_bound_on_the_journal_without_an_archive_is_refused() {
        let error = parse(&format!("{LEAST}[archive]\njournal_keep_mib = 512\n")).expect_err("no archive");
        assert_eq!(error.faults()[0].line, 5);
        assert!(error.faults()[0].advice.contains("add `directory"), "{error}");
    }

    #[test]
    fn a_missing_key_says_what_to_add() {
        let error = parse("listen = \"127.0.0.1:0\"\ndata = \"d\"\n").expect_err("no directory");
        assert_eq!(error.faults()[0].advice, "add `directory = \"directory.toml\"`");
    }

    #[test]
    fn a_socket_path_that_the_kernel_would_cut_is_refused() {
        let text = format!("{LEAST}admin_socket = \"/{}\"\n", "x".repeat(107));
        assert_eq!(parse(&text).expect_err("108 bytes").faults()[0].line, 4);
    }
}
