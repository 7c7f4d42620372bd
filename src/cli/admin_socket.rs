//! Asking a running switch: one line to its admin socket, one JSON line back; and showing who asks.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::CliError;
use crate::config::{OperatorSettings, Settings, credential_hash};

/// How long a switch may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Where an operator's name and token file stand if no argument says so.
const OPERATOR_VARIABLE: &str = "CLEARWAY_OPERATOR";
const TOKEN_FILE_VARIABLE: &str = "CLEARWAY_TOKEN_FILE";

/// Which switch.
#[derive(Args, Debug)]
pub(super) struct SocketArgs {
    /// The switch's admin socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "data/admin.sock",
        conflicts_with = "config"
    )]
    socket: PathBuf,
    /// Take the socket from this settings file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Who orders.
#[derive(Args, Clone, Debug)]
pub(super) struct OperatorArgs {
    /// Your name among the settings' [[operator]] tables; else the environment's CLEARWAY_OPERATOR
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// The file with your token; else the environment's CLEARWAY_TOKEN_FILE
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl SocketArgs {
    pub(super) fn path(&self) -> Result<PathBuf, CliError> {
        Ok(match &self.config {
            Some(config) => Settings::load(config)?.admin_socket,
            None => self.socket.clone(),
        })
    }
}

/// An operator's name and token, ready to be shown.
pub(super) struct Operator {
    name: String,
    token: String,
}

impl OperatorArgs {
    pub(super) fn read(&self) -> Result<Operator, CliError> {
        let name = self.operator.clone().or_else(|| std::env::var(OPERATOR_VARIABLE).ok());
        let name = name.ok_or_else(|| {
            CliError::Usage(format!(
                "say who orders: --operator NAME, or {OPERATOR_VARIABLE} in the environment"
            ))
        })?;
        let file = self.token_file.clone();
        let file = file.or_else(|| std::env::var_os(TOKEN_FILE_VARIABLE).map(PathBuf::from));
        let file = file.ok_or_else(|| {
            CliError::Usage(format!(
                "say where your token is: --token-file FILE, or {TOKEN_FILE_VARIABLE} in the environment; `clearway admin \
                 operator-token {name}` makes one"
            ))
        })?;
        let token = std::fs::read_to_string(&file)
            .map_err(|error| CliError::Usage(format!("the token file {} can't be read: {error}", file.display())))?;
        let mode = std::fs::metadata(&file).map_or(0, |facts| facts.permissions().mode());
        if mode & 0o077 != 0 {
            eprintln!(
                "note: others may read {0}, and order in your name: chmod 600 {0}",
                file.display()
            );
        }
        Ok(Operator {
            name,
            token: token.trim().to_owned(),
        })
    }
}

impl Operator {
    /// Gives an order and says what became of it.
    pub(super) fn order(&self, socket: &Path, order: &Value) -> Result<Value, CliError> {
        let request = json!({ "request": "order", "operator": self.name, "token": self.token, "order": order });
        ask(socket, &request.to_string())
    }
}

/// Makes a token: 32 random bytes from the system. With `file` it goes there, for its owner alone; gives what to print.
pub(super) fn new_token(name: &str, file: Option<&Path>) -> Result<(String, Value), CliError> {
    if !OperatorSettings::is_name(name) {
        return Err(CliError::Usage(format!(
            "`{name}` is not an operator's name: 1 to 32 ASCII letters, digits, `.`, `-`, `_`"
        )));
    }
    let mut token = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut token))
        .map_err(|error| CliError::Failed(format!("the system's random numbers can't be read: {error}")))?;
    let settings = OperatorSettings {
        name: name.to_owned(),
        token_hash: credential_hash(&token),
        makes: true,
        checks: true,
    };
    let token = blake3::Hash::from_bytes(token).to_hex().to_string();
    let lines = settings.to_toml();
    let mut answer = json!({ "operator": name, "settings": lines });
    let where_it_is = match file {
        Some(file) => {
            let mut options = std::fs::OpenOptions::new();
            let mut opened = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(file)
                .map_err(|error| {
                    CliError::Usage(format!("the token can't be written to {}: {error}", file.display()))
                })?;
            opened
                .write_all(format!("{token}\n").as_bytes())
                .map_err(|error| CliError::Output {
                    place: file.display().to_string(),
                    error,
                })?;
            answer["token_file"] = json!(file.display().to_string());
            format!("# {name}'s token is in {}; nobody else may read it.\n", file.display())
        }
        None => {
            answer["token"] = json!(token);
            format!("# {name}'s token, for a file that only {name} can read; it is shown this once:\n#   {token}\n")
        }
    };
    let text = format!(
        "{where_it_is}# Add this to the switch's settings and start it again. Take \"make\" or \"check\" away where one may not.\n\
         {lines}"
    );
    Ok((text, answer))
}

/// Sends one request and waits for its answer.
pub(super) fn ask(socket: &Path, request: &str) -> Result<Value, CliError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| CliError::Failed(format!("{}: {what}: {error}", socket.display()));
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        failed(
            "no switch listens there (`clearway run` prints its admin socket; --socket or --config names it)",
            &error,
        )
    })?;
    stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)))
        .and_then(|()| stream.write_all(format!("{request}\n").as_bytes()))
        .map_err(|error| failed("can't send the request", &error))?;
    let mut line = String::new();
    let read = BufReader::new(stream)
        .read_line(&mut line)
        .map_err(|error| failed("the switch does not answer", &error))?;
    if read == 0 {
        return Err(failed("the switch closed the connection", &"without an answer"));
    }
    serde_json::from_str(&line).map_err(|error| failed("the answer is not JSON", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A switch that answers one request with `answer`, and gives back what it was asked.
    fn answering(answer: &'static str, request: &str) -> (Result<Value, CliError>, String) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let socket = place.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let switch = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("a line");
            stream.write_all(answer.as_bytes()).expect("it is still there");
            line
        });
        let answer = ask(&socket, request);
        (answer, switch.join().expect("the switch ends"))
    }

    #[test]
    fn a_request_is_one_line_and_its_answer_one_line_of_json() {
        let (answer, asked) = answering("{\"ready\":true}\n", "status");
        assert_eq!(asked, "status\n");
        assert_eq!(answer.expect("an answer")["ready"], true);
    }

    #[test]
    fn a_switch_that_hangs_up_is_an_error_that_names_the_socket() {
        let (answer, _) = answering("", "status");
        assert!(answer.expect_err("no answer").to_string().contains("admin.sock"));
    }

    #[test]
    fn a_new_token_is_another_each_time_and_its_hash_is_what_the_settings_get() {
        let (_, first) = new_token("alice", None).expect("a token");
        let (text, second) = new_token("alice", None).expect("a token");
        assert_ne!(first["token"], second["token"]);
        let token = blake3::Hash::from_hex(second["token"].as_str().unwrap()).unwrap();
        let hash = blake3::hash(token.as_bytes()).to_hex();
        assert!(text.contains(&format!("token_hash = \"{hash}\"")), "{text}");
    }
}
