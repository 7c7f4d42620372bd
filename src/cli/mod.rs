//! The command line: thin. It reads arguments, calls a room, prints what came of it.
//!
//! Every command exits 0 = done and well, 1 = it ran and found something wrong, 2 = bad usage or configuration. Results go
//! to stdout, progress and faults to stderr. A command that reports something takes `--json FILE`, `-` for stdout.

mod admin;
mod admin_show;
mod admin_socket;
mod bench;
mod bench_journal;
mod bench_settlement;
mod demo;
mod directory;
mod directory_apply;
mod directory_difference;
mod doctor;
mod journal;
mod journal_archive;
mod journal_chain;
mod journal_event;
mod journal_report;
mod output;
mod run;
mod run_report;
mod settle;
mod settle_list;
mod settle_prove;
mod settle_reconcile;
mod settle_report;
mod settle_verify;
mod sim;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::measure::relay;

#[derive(Parser, Debug)]
#[command(
    name = "clearway",
    version,
    about,
    after_help = "Exit codes: 0 = done and well, 1 = it ran and found something wrong, 2 = bad usage or configuration.\n\
                  CLEARWAY_LOG=debug says more on stderr."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Run(run::RunArgs),
    Directory(directory::DirectoryArgs),
    Admin(admin::AdminArgs),
    Journal(journal::JournalArgs),
    Settle(settle::SettleArgs),
    Doctor(doctor::DoctorArgs),
    #[command(hide = true)]
    Sim(sim::SimArgs),
    #[command(name = relay::CHILD_COMMAND, hide = true)]
    RelayChild(bench::RelayChildArgs),
}

/// How a command that ran has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Done and well.
    Well,
    /// It ran and found something wrong, which it has said.
    Wrong,
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A configuration that can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A use of the command that can't be.
    #[error("{0}")]
    Usage(String),
    /// What went wrong while it ran, in words.
    #[error("{0}")]
    Failed(String),
    /// The result could not be written.
    #[error("can't write to {place}: {error}")]
    Output {
        /// Where to.
        place: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    match cli.command {
        Command::Demo(args) => finish(demo::run(&args)),
        Command::Bench(args) => finish(bench::run(&args)),
        Command::RelayChild(args) => finish(bench::relay_child(&args)),
        Command::Run(args) => finish(run::run(&args)),
        Command::Directory(args) => finish(directory::run(&args)),
        Command::Admin(args) => finish(admin::run(&args)),
        Command::Journal(args) => finish(journal::run(&args)),
        Command::Settle(args) => finish(settle::run(&args)),
        Command::Doctor(args) => finish(doctor::run(&args)),
        Command::Sim(args) => finish(sim::run(&args)),
    }
}

/// Prints an error, once, and gives the exit code.
fn finish(result: Result<Verdict, CliError>) -> ExitCode {
    match result {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::from(1),
        Err(CliError::Config(error)) => {
            eprint!("{}", error.render());
            ExitCode::from(2)
        }
        Err(error @ CliError::Usage(_)) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
        // Whoever read the output has seen enough (`clearway directory show … | head`).
        Err(CliError::Output { error, .. }) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error @ (CliError::Failed(_) | CliError::Output { .. })) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CLEARWAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check(command: &mut clap::Command, path: &str) {
            let subcommands: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
            if subcommands.is_empty() {
                let help = command.render_long_help().to_string();
                assert!(help.contains("Example"), "`{path} --help` shows no example");
                assert!(
                    help.contains(path),
                    "the example of `{path} --help` is another command's"
                );
            }
            for name in subcommands {
                let subcommand = command.find_subcommand_mut(&name).expect("it was just listed");
                check(subcommand, &format!("{path} {name}"));
            }
        }
        check(&mut Cli::command(), "clearway");
    }
}
