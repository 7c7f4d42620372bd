//! `clearway run`: the daemon.

use std::path::PathBuf;

use clap::Args;

use super::output::print;
use super::{CliError, Verdict};
use crate::config::{ConfigError, Directory, Profile, Settings};
use crate::doctor::{Bound, Host};

/// Run the switch until SIGTERM or SIGINT
///
/// It stops intake then, waits for open payments, writes DATA/shutdown.json and exits.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway run --config config/clearway.toml\n  clearway run --config config/clearway.toml --check"
)]
pub(super) struct RunArgs {
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only check that settings, directory and profile are right and fit each other
    #[arg(long)]
    check: bool,
}

/// All that the switch is started with: read, checked, and fitted to each other and to this machine.
#[derive(Debug)]
struct Prepared {
    settings: Settings,
    directory: Directory,
    profile: Profile,
}

pub(super) fn run(args: &RunArgs) -> Result<Verdict, CliError> {
    let prepared = prepare(args)?;
    if args.check {
        print(&format!(
            "{}: right; {} participants, profile {}\n",
            args.config.display(),
            prepared.directory.participants.len(),
            prepared.profile.name
        ))?;
        return Ok(Verdict::Well);
    }
    start(prepared)
}

fn prepare(args: &RunArgs) -> Result<Prepared, ConfigError> {
    let mut settings = Settings::load(&args.config)?;
    let directory = Directory::load(&settings.directory)?;
    let mut profile = Profile::load(&settings.profile)?;
    profile.check_connections(settings.links.max)?;
    let host = Host::read();
    for message in profile.fit_to_cores(&host.cores) {
        tracing::warn!("{message}");
    }
    // The soft limit is raised to the hard one at start.
    if let Bound::At(files_max) = host.open_files.hard
        && let Some(message) = profile.fit_to_open_files(files_max)
    {
        tracing::warn!("{message}");
        let links_max = u32::try_from(profile.links_max()).unwrap_or(u32::MAX);
        settings.links.max = settings.links.max.min(links_max);
        settings.links.half_open_max = settings.links.half_open_max.min(links_max);
    }
    let demo_credentials = directory.demo_credentials();
    if demo_credentials > 0 && !settings.listen.ip().is_loopback() {
        tracing::warn!(
            "{demo_credentials} participants sign on with demo credentials, which anyone can compute, and {} is not a \
             loopback address; give them credentials of their own",
            settings.listen.ip()
        );
    }
    Ok(Prepared {
        settings,
        directory,
        profile,
    })
}

/// Hands over to the switch.
fn start(prepared: Prepared) -> Result<Verdict, CliError> {
    crate::switch::run(prepared.settings, prepared.directory, prepared.profile)
        .map(|()| Verdict::Well)
        .map_err(|error| CliError::Failed(error.to_string()))
}
