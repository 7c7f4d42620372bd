//! The built binary as a command.

use assert_cmd::Command;
use assert_cmd::assert::Assert;

/// Runs `clearway` in the project's folder.
pub(crate) fn clearway(arguments: &[&str]) -> Assert {
    Command::cargo_bin("clearway")
        .expect("the binary is built")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .assert()
}

pub(crate) fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).expect("text")
}

pub(crate) fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).expect("text")
}
