//! `clearway doctor`: is this host fit.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{Table, report};
use super::{CliError, Verdict};
use crate::config::Profile;
use crate::doctor::{Finding, Host, examine};

/// Is this host fit for a profile; each line says what to do
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway doctor --profile small-vm")]
pub(super) struct DoctorArgs {
    /// A built-in profile (small-vm, server-16) or a profile file
    #[arg(long, value_name = "P", default_value = "small-vm")]
    profile: String,
    /// Write the report as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &DoctorArgs) -> Result<Verdict, CliError> {
    let profile = Profile::load(&args.profile)?;
    let checks = examine(&Host::read(), &profile);
    let mut table = Table::new(&["", "check", "found", "what to do"]);
    let mut list = Vec::new();
    for check in &checks {
        let (word, advice) = match &check.finding {
            Finding::Good => ("ok", ""),
            Finding::Advice(advice) => ("advice", advice.as_str()),
            Finding::Wrong(advice) => ("WRONG", advice.as_str()),
        };
        table.row([word, check.name, &check.found, advice].map(str::to_owned).to_vec());
        list.push(json!({"check": check.name, "found": check.found, "finding": word.to_lowercase(), "advice": advice}));
    }
    let wrong = checks
        .iter()
        .filter(|check| matches!(check.finding, Finding::Wrong(_)))
        .count();
    let verdict = if wrong == 0 {
        format!("this host is fit for {}\n", profile.name)
    } else {
        format!("this host is not fit for {}: {wrong} to correct\n", profile.name)
    };
    let json = json!({"profile": profile.name, "fit": wrong == 0, "checks": list});
    report(args.json.as_deref(), &json, &(table.render() + &verdict))?;
    Ok(if wrong == 0 { Verdict::Well } else { Verdict::Wrong })
}
