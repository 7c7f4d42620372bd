//! The command line and the configuration files, driven the way an operator does.

#[path = "support/command.rs"]
mod command;

use std::path::{Path, PathBuf};

use clearway::config::{BUILT_IN_PROFILES, Directory, Profile, Settings};
use command::{clearway, stderr, stdout};

/// A directory and settings in a place of their own; `change` edits the settings' text.
fn configuration(change: impl Fn(String) -> String) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(place.path().join("directory.toml"), Directory::generate(2, 3).to_toml())
        .expect("it can be written");
    let settings = Settings::new(
        "127.0.0.1:0".parse().expect("an address"),
        "data".into(),
        "directory.toml".into(),
    );
    let file = place.path().join("clearway.toml");
    std::fs::write(&file, change(settings.to_toml())).expect("it can be written");
    (place, file)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in ASCII")
}

#[test]
fn the_configuration_that_ships_is_right_and_fits() {
    let checked = clearway(&["run", "--config", "config/clearway.toml", "--check"]).code(0);
    assert!(stdout(&checked).contains("539 participants"));
}

#[test]
fn the_directory_that_ships_is_the_generated_one() {
    let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/directory.toml"));
    let generated = clearway(&["directory", "generate"]).code(0);
    assert!(shipped.expect("it is there") == stdout(&generated), "generate it again");
}

#[test]
fn the_profiles_that_ship_are_those_in_the_binary() {
    for (name, _) in BUILT_IN_PROFILES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("hw-profiles/{name}.toml"));
        let read = Profile::load(text(&path)).unwrap_or_else(|error| panic!("{}", error.render()));
        let built_in = Profile::load(name).unwrap_or_else(|error| panic!("{}", error.render()));
        assert_eq!(format!("{read:?}"), format!("{built_in:?}"));
    }
}

#[test]
fn a_generated_directory_passes_its_check_and_is_never_overwritten() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("directory.toml");
    let generate = [
        "directory",
        "generate",
        "--institutions",
        "3",
        "--banks",
        "5",
        "--output",
        text(&file),
    ];
    clearway(&generate).code(0);
    let checked = clearway(&["directory", "check", text(&file), "--json", "-"]).code(0);
    let json: serde_json::Value = serde_json::from_str(&stdout(&checked)).expect("JSON");
    assert_eq!((&json["institutions"], &json["banks"]), (&3.into(), &5.into()));
    assert_eq!(json["demo_credentials"], 8);
    let again = clearway(&generate).code(2);
    assert!(stderr(&again).contains("is there already"));
}

#[test]
fn a_shown_directory_has_every_participant() {
    let (place, _) = configuration(|settings| settings);
    let file = place.path().join("directory.toml");
    let shown = clearway(&["directory", "show", text(&file), "--json", "-"]).code(0);
    let json: serde_json::Value = serde_json::from_str(&stdout(&shown)).expect("JSON");
    assert_eq!(json["participants"].as_array().map(Vec::len), Some(5));
    assert_eq!(json["participants"][2]["role"], "bank");
    let table = stdout(&clearway(&["directory", "show", text(&file)]).code(0));
    assert_eq!(table.lines().count(), 6);
}

#[test]
fn every_fault_in_a_directory_is_shown_with_file_line_and_column() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("directory.toml");
    let faulty = Directory::generate(1, 1)
        .to_toml()
        .replace("t1_ms = 5000", "t1_ms = 500")
        .replace("role = \"bank\"", "role = \"bnak\"");
    let line = |part: &str| {
        1 + faulty
            .lines()
            .position(|line| line.starts_with(part))
            .expect("it is there")
    };
    std::fs::write(&file, &faulty).expect("it can be written");
    let checked = clearway(&["directory", "check", text(&file)]).code(2);
    let message = stderr(&checked);
    assert!(
        message.contains(&format!("directory.toml:{}:9]", line("tq_ms"))),
        "{message}"
    );
    assert!(message.contains("Tq < T1 < T2"), "{message}");
    assert!(
        message.contains(&format!("directory.toml:{}:8]", line("role = \"bnak\""))),
        "{message}"
    );
    assert!(message.contains("did you mean `bank`?"), "{message}");
    assert!(message.contains("2 faults to correct"), "{message}");
}

#[test]
fn an_unknown_setting_stops_the_switch_before_it_starts() {
    let (_place, file) = configuration(|settings| settings.replace("keepalive_ms", "keepalive"));
    let message = stderr(&clearway(&["run", "--config", text(&file)]).code(2));
    assert!(message.contains("clearway.toml:16:1]"), "{message}");
    assert!(message.contains("did you mean `keepalive_ms`?"), "{message}");
}

#[test]
fn a_file_that_is_not_toml_is_shown_where_it_breaks() {
    let (_place, file) = configuration(|settings| settings.replace("backend = \"auto\"", "backend = auto"));
    let message = stderr(&clearway(&["run", "--config", text(&file)]).code(2));
    assert!(message.contains("clearway.toml:3:"), "{message}");
}

#[test]
fn more_links_than_the_profile_holds_are_refused_with_what_to_do() {
    let (_place, file) = configuration(|settings| settings.replace("max = 2048", "max = 60000"));
    let message = stderr(&clearway(&["run", "--config", text(&file), "--check"]).code(2));
    assert!(message.contains("raise connections_max"), "{message}");
}

#[test]
fn a_profile_that_does_not_exist_is_refused_with_those_that_do() {
    let message = stderr(&clearway(&["doctor", "--profile", "huge-vm"]).code(2));
    assert!(
        message.contains("`small-vm`") && message.contains("`server-16`"),
        "{message}"
    );
}

#[test]
fn a_missing_settings_file_is_a_configuration_error() {
    let message = stderr(&clearway(&["run", "--config", "nowhere.toml"]).code(2));
    assert!(
        message.contains("nowhere.toml") && message.contains("config/clearway.toml"),
        "{message}"
    );
}

#[test]
fn bad_usage_exits_2_and_help_exits_0() {
    clearway(&["directory"]).code(2);
    clearway(&["run"]).code(2);
    clearway(&["directory", "generate", "--institutions", "0", "--banks", "0"]).code(2);
    clearway(&["directory", "generate", "--institutions", "65000", "--banks", "65000"]).code(2);
    clearway(&["--help"]).code(0);
}

#[test]
fn asking_a_switch_that_does_not_run_exits_1() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let socket = place.path().join("admin.sock");
    let message = stderr(&clearway(&["admin", "status", "--socket", text(&socket)]).code(1));
    assert!(message.contains("no switch listens there"), "{message}");
}

#[test]
fn the_doctor_reports_every_check_as_json() {
    let asked = clearway(&["doctor", "--json", "-"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&asked)).expect("JSON");
    let wrong = json["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|check| check["finding"] == "wrong")
        .count();
    assert_eq!(json["fit"], wrong == 0);
    asked.code(i32::from(wrong > 0));
}

#[test]
fn a_rehearsal_reports_its_seeds_as_json() {
    let asked = clearway(&["sim", "--seeds", "2", "--seed", "5", "--json", "-"]).success();
    let json: serde_json::Value = serde_json::from_str(&stdout(&asked)).expect("JSON");
    assert_eq!((&json["passed"], &json["first_seed"]), (&2.into(), &5.into()));
    assert!(json["seeds_per_hour"].as_f64().is_some_and(|rate| rate > 0.0), "{json}");
    assert!(
        json["counts"]["committed"].as_u64().is_some_and(|count| count > 0),
        "{json}"
    );
}
