//! Keeps `docs/operations.md` true: its commands are run, in their order, and each ends well.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use clearway::config::BackendChoice;
use support::daemon::{Daemon, Installation};
use support::directory;

const PROPOSAL: &str = "4711";

/// The lines of the document's shell blocks.
fn commands() -> Vec<String> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = std::fs::read_to_string(document).unwrap();
    let mut inside = false;
    let mut commands = Vec::new();
    for line in document.lines() {
        match (inside, line) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, command) => commands.push(command.to_owned()),
            (false, _) => {}
        }
    }
    commands
}

fn run(place: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clearway"));
    command.args(arguments).current_dir(place).stdin(Stdio::null());
    command.output().unwrap()
}

/// The newest proposal that waits.
fn newest_proposal(place: &Path) -> String {
    let orders = run(place, &["admin", "orders", "--json", "-"]);
    let orders: serde_json::Value = serde_json::from_slice(&orders.stdout).unwrap();
    let waiting = orders["proposals"].as_array().unwrap();
    waiting.last().expect("a proposal waits")["proposal"].to_string()
}

#[test]
fn every_command_of_the_operations_document_runs_and_ends_well() {
    let installation = Installation::of(directory(2, 2), BackendChoice::Auto, |_| {});
    let place = installation.path("");
    std::fs::create_dir(place.join("config")).unwrap();
    let settings = std::fs::read_to_string(installation.path("clearway.toml")).unwrap();
    std::fs::write(place.join("config/clearway.toml"), settings).unwrap();
    std::fs::copy(place.join("directory.toml"), place.join("config/directory.toml")).unwrap();
    let mut daemon: Option<Daemon> = None;
    let commands = commands();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let number = if command.contains(PROPOSAL) {
            newest_proposal(&place)
        } else {
            String::new()
        };
        let command = command.replace(PROPOSAL, &number);
        let arguments: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(arguments[0], "clearway", "{command}");
        if command == "clearway run --config config/clearway.toml" {
            let mut start = installation.command();
            daemon = Some(installation.start_by(&mut start));
            continue;
        }
        let output = run(&place, &arguments[1..]);
        let said = String::from_utf8_lossy(&output.stderr);
        // A host may be unfit; that is what the doctor is asked for.
        let is_well = output.status.success() || arguments[1] == "doctor";
        assert!(is_well, "{command}: {said}");
        if arguments.get(2) == Some(&"operator-token") {
            for file in ["clearway.toml", "config/clearway.toml"] {
                let mut text = std::fs::read_to_string(place.join(file)).unwrap();
                text.push_str(&String::from_utf8_lossy(&output.stdout));
                std::fs::write(place.join(file), text).unwrap();
            }
        }
    }
    assert!(daemon.is_some(), "the switch was started on the way");
}
