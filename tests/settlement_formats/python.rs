//! A virtual environment with independent readers of ISO 20022, made once and kept between runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const REQUIREMENTS: &str = include_str!("requirements.txt");

/// Set by `.ci/run`: there it is a failure if nothing can be checked.
const REQUIRED: &str = "CLEARWAY_PYTHON_REQUIRED";

/// What `check.py` found, case by case; `None`, said aloud, where there is no Python that could look.
pub(crate) fn check(documents: &[&Path]) -> Option<BTreeMap<String, Vec<String>>> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = match PYTHON.get_or_init(environment) {
        Ok(python) => python,
        Err(why) => {
            let required = std::env::var_os(REQUIRED).is_some_and(|value| value == "1");
            assert!(
                !required,
                "{REQUIRED} is set, and the messages cannot be checked: {why}"
            );
            // Past the capture of the test harness: a skip is always seen.
            let line = format!("SKIPPED: the messages are not checked by independent readers: {why}\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            return None;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settlement_formats/check.py");
    let output = run(Command::new(python).arg("-I").arg(script).args(documents)).expect("check.py runs");
    assert!(
        output.status.success(),
        "check.py: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(serde_json::from_slice(&output.stdout).expect("check.py prints what it found as JSON"))
}

/// The environment's interpreter, or why there is none.
fn environment() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("settlement_formats_python");
    let (python, made) = (place.join("bin/python"), place.join("made-of"));
    if fs::read_to_string(&made).is_ok_and(|of| of == REQUIREMENTS) && python.exists() {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&place);
    succeed(
        "make a virtual environment",
        Command::new("python3").args(["-m", "venv"]).arg(&place),
    )?;
    let requirements = place.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS).map_err(|e| format!("{}: {e}", requirements.display()))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        "-r",
    ];
    succeed("install from PyPI", Command::new(&python).args(pip).arg(&requirements))?;
    fs::write(&made, REQUIREMENTS).map_err(|e| format!("{}: {e}", made.display()))?;
    Ok(python)
}

fn succeed(what: &str, command: &mut Command) -> Result<(), String> {
    let output =
        run(command).map_err(|e| format!("cannot {what} ({}): {e}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("cannot {what}: {}", String::from_utf8_lossy(&said).trim()))
}

fn run(command: &mut Command) -> std::io::Result<Output> {
    command.stdin(std::process::Stdio::null()).output()
}
