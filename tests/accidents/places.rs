//! Places where a switch can't keep a journal, and journals that are not its own: each is refused in a sentence that says
//! why and what to do, with exit code 1, and nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clearway::config::BackendChoice;
use clearway::domain::Code;

use crate::support::daemon::{Daemon, Installation};
use crate::support::file_system::FileSystem;
use crate::support::*;

/// A switch that has paid once and was stopped in good order.
pub(crate) fn with_a_journal(installation: &Installation) {
    pays(installation, &mut installation.start(), 1, 0);
}

/// One payment, and a stop in good order.
pub(crate) fn pays(installation: &Installation, daemon: &mut Daemon, serial: u64, last_word: u64) {
    let mut institution = Participant::connect(daemon.listen, &installation.directory, 0, last_word);
    let mut bank = Participant::connect(daemon.listen, &installation.directory, 2, u64::MAX);
    assert_eq!(code(&pay(&mut institution, &mut bank, serial, 7)), Code::Committed);
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

/// Every file below `place` and what it holds.
fn files(place: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![place.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::metadata(&path).unwrap();
            if facts.is_dir() {
                folders.push(path);
            } else if facts.is_file() {
                let content = fs::read(&path).unwrap();
                found.insert(path, content);
            }
        }
    }
    found
}

/// The daemon ends with 1 and says why, once; gives what it said. All its files are as they were.
pub(crate) fn is_refused(installation: &Installation, command: &mut Command) -> String {
    let before = files(&installation.path("data"));
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        files(&installation.path("data")) == before,
        "something was changed: {told}"
    );
    let mut errors = told.lines().filter(|line| line.starts_with("error: "));
    let error = errors.next().unwrap_or_else(|| panic!("{told}")).to_owned();
    assert_eq!(errors.next(), None, "said once");
    error
}

#[test]
fn a_directory_that_the_switch_may_not_write_to_is_named_with_its_user() {
    let installation = Installation::new(BackendChoice::Auto).with_short_segments();
    with_a_journal(&installation);
    // Everybody may read.
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(&installation.path(""));
    // SAFETY: a call that only returns a number.
    let root = unsafe { libc::geteuid() } == 0;
    let command = |program: &Path| {
        let mut command = Command::new(program);
        command
            .args(["run", "--config"])
            .arg(installation.path("clearway.toml"));
        if root {
            // Root writes anywhere.
            command.uid(65_534).gid(65_534);
        } else {
            let closed = fs::Permissions::from_mode(0o555);
            fs::set_permissions(installation.path("data/journal"), closed.clone()).unwrap();
            fs::set_permissions(installation.path("data/journal/lock"), closed).unwrap();
        }
        command
    };
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_clearway"));
    let may_run = command(&program).arg("--check").output();
    if may_run.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
        // The folder it was built in is not for everybody.
        program = installation.path("clearway");
        fs::copy(env!("CARGO_BIN_EXE_clearway"), &program).unwrap();
    }
    let told = is_refused(&installation, &mut command(&program));
    for part in [
        "/data/journal: the journal can't be written: user ",
        "may not write here",
        "give it to this user",
    ] {
        assert!(told.contains(part), "{told}");
    }
    open(&installation.path("data/journal"));
    open(&installation.path("data/journal/lock"));
    pays(&installation, &mut installation.start(), 2, 1);

    // The same where there is no journal yet.
    fs::remove_dir_all(installation.path("data")).unwrap();
    fs::create_dir(installation.path("data")).unwrap();
    if !root {
        fs::set_permissions(installation.path("data"), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let mut command = Command::new(&program);
    command
        .args(["run", "--config"])
        .arg(installation.path("clearway.toml"));
    if root {
        command.uid(65_534).gid(65_534);
    }
    let told = is_refused(&installation, &mut command);
    assert!(told.contains("may not write here"), "{told}");
    open(&installation.path("data"));
}

#[test]
fn a_file_system_that_is_mounted_read_only_is_said_to_be() {
    let Ok(file_system) = FileSystem::in_memory(24 << 20) else {
        eprintln!("not run: no file system can be mounted here");
        return;
    };
    let root = tempfile::tempdir_in(file_system.path()).unwrap();
    let installation = Installation::in_place(root, directory(2, 2), BackendChoice::Auto, |_| {}).with_short_segments();
    with_a_journal(&installation);
    file_system.set_read_only(true);
    let told = is_refused(&installation, &mut installation.command());
    assert!(
        told.contains("/data/journal: ") && told.contains("mounted read-only") && told.contains("kernel's log"),
        "{told}"
    );
    file_system.set_read_only(false);
    pays(&installation, &mut installation.start(), 2, 1);
}

#[test]
fn a_segment_elsewhere_is_refused_and_a_journal_elsewhere_is_not() {
    let elsewhere = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let installation = Installation::new(BackendChoice::Auto).with_short_segments();
    with_a_journal(&installation);
    let journal = installation.path("data/journal");
    let (segment, moved) = (journal.join("000000000001.seg"), elsewhere.path().join("moved"));
    fs::copy(&segment, &moved).unwrap();
    fs::remove_file(&segment).unwrap();
    symlink(&moved, &segment).unwrap();
    let told = is_refused(&installation, &mut installation.command());
    assert!(
        told.contains("000000000001.seg: the segment is no plain file") && told.contains("put the file itself"),
        "{told}"
    );
    fs::remove_file(&segment).unwrap();
    fs::copy(&moved, &segment).unwrap();

    // All of it together, on a disk of its own.
    let home = elsewhere.path().join("journal");
    fs::create_dir(&home).unwrap();
    for (path, content) in files(&journal) {
        fs::write(home.join(path.file_name().unwrap()), content).unwrap();
    }
    fs::remove_dir_all(&journal).unwrap();
    symlink(&home, &journal).unwrap();
    pays(&installation, &mut installation.start(), 2, 1);
}

#[test]
fn a_journal_of_another_release_is_refused_by_what_wrote_it() {
    let installation = Installation::new(BackendChoice::Auto).with_short_segments();
    with_a_journal(&installation);
    let path = installation.path("data/journal/000000000000.seg");
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut header = [0; 60];
    file.read_exact_at(&mut header, 0).unwrap();
    let version = u32::from_le_bytes(header[8..12].try_into().unwrap());
    for (other, sentence) in [
        (version + 1, "a newer release wrote the segment"),
        (version - 1, "an older release wrote the segment"),
    ] {
        let mut foreign = header;
        foreign[8..12].copy_from_slice(&other.to_le_bytes());
        let crc = crc32c::crc32c(&foreign[..56]);
        foreign[56..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&foreign, 0).unwrap();
        let told = is_refused(&installation, &mut installation.command());
        assert!(
            told.contains("000000000000.seg: ") && told.contains(sentence) && told.contains("go on with that release"),
            "{told}"
        );
    }
    file.write_all_at(&header, 0).unwrap();
    pays(&installation, &mut installation.start(), 2, 1);
}
