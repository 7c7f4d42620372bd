//! `clearway directory`: participants.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::directory_apply::{ApplyArgs, apply};
use super::output::{Table, money, print, report};
use super::{CliError, Verdict};
use crate::config::{Directory, DirectoryEntry};
use crate::domain::{Kind, MILLISECOND, ParticipantTerms, Role, SchemeTerms};

/// Participants: write, check and show a directory
#[derive(Args, Debug)]
pub(super) struct DirectoryArgs {
    #[command(subcommand)]
    command: DirectoryCommand,
}

#[derive(Subcommand, Debug)]
enum DirectoryCommand {
    /// Write a reference directory, the same on every run, with demo credentials (good on loopback only)
    #[command(
        after_help = "Example:\n  clearway directory generate --institutions 115 --banks 424 --output directory.toml"
    )]
    Generate {
        /// Payment institutions; they get the first indices
        #[arg(long, default_value_t = 115, value_name = "N")]
        institutions: u16,
        /// Banks
        #[arg(long, default_value_t = 424, value_name = "N")]
        banks: u16,
        /// Write to this file, which must not exist yet, instead of stdout
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check a directory; every fault is shown with its line and what would be right
    #[command(after_help = "Example:\n  clearway directory check config/directory.toml")]
    Check {
        /// The directory file
        file: PathBuf,
        /// Write the result as JSON to this file, `-` for stdout
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Show a directory's participants
    #[command(after_help = "Example:\n  clearway directory show config/directory.toml --json -")]
    Show {
        /// The directory file
        file: PathBuf,
        /// Write the participants as JSON to this file, `-` for stdout
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    Apply(ApplyArgs),
}

pub(super) fn run(args: &DirectoryArgs) -> Result<Verdict, CliError> {
    match &args.command {
        DirectoryCommand::Generate {
            institutions,
            banks,
            output,
        } => generate(*institutions, *banks, output.as_deref()),
        DirectoryCommand::Check { file, json } => check(file, json.as_deref()),
        DirectoryCommand::Show { file, json } => show(file, json.as_deref()),
        DirectoryCommand::Apply(args) => apply(args),
    }
}

fn generate(institutions: u16, banks: u16, output: Option<&Path>) -> Result<Verdict, CliError> {
    match institutions.checked_add(banks) {
        Some(1..) => {}
        Some(0) | None => {
            return Err(CliError::Usage(format!(
                "a directory has 1 to {} participants, not {institutions} institutions and {banks} banks",
                u16::MAX
            )));
        }
    }
    let text = Directory::generate(institutions, banks).to_toml();
    let Some(path) = output else {
        print(&text)?;
        return Ok(Verdict::Well);
    };
    // A directory holds what participants sign on with: one that is there is never overwritten.
    let mut file = std::fs::File::create_new(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::Usage(format!(
            "{} is there already; name another file, or remove it first",
            path.display()
        )),
        _ => CliError::Output {
            place: path.display().to_string(),
            error,
        },
    })?;
    file.write_all(text.as_bytes()).map_err(|error| CliError::Output {
        place: path.display().to_string(),
        error,
    })?;
    eprintln!(
        "wrote {institutions} institutions and {banks} banks to {}; their credentials are demo credentials: use it on \
         loopback only",
        path.display()
    );
    Ok(Verdict::Well)
}

fn check(file: &Path, json_to: Option<&Path>) -> Result<Verdict, CliError> {
    let directory = Directory::load(file)?;
    let (institutions, banks) = (directory.count(Role::Institution), directory.count(Role::Bank));
    let demo_credentials = directory.demo_credentials();
    let mut text = format!(
        "{}: right; {institutions} institutions, {banks} banks\n",
        file.display()
    );
    if demo_credentials > 0 {
        text.push_str(&format!(
            "note: {demo_credentials} participants have demo credentials, which anyone can compute: good on loopback only\n"
        ));
    }
    let json = json!({
        "file": file.display().to_string(),
        "institutions": institutions,
        "banks": banks,
        "demo_credentials": demo_credentials,
    });
    report(json_to, &json, &text)?;
    Ok(Verdict::Well)
}

fn show(file: &Path, json_to: Option<&Path>) -> Result<Verdict, CliError> {
    let directory = Directory::load(file)?;
    let mut table = Table::new(&["index", "code", "role", "name", "cnaps", "bic", "cover", "cap", "links"]);
    for entry in &directory.participants {
        let account = &entry.terms.accounts[0];
        table.row(vec![
            entry.terms.index.to_string(),
            entry.terms.code.to_string(),
            role_name(entry.role()).to_owned(),
            entry.name.clone(),
            entry.cnaps.clone().unwrap_or_default(),
            entry.bic.clone().unwrap_or_default(),
            money(account.cover_minor.into()),
            money(account.cap_minor.into()),
            entry.terms.contract.links_max.to_string(),
        ]);
    }
    let scheme = &directory.scheme;
    let json = json!({
        "scheme": scheme_json(scheme),
        "participants": directory.participants.iter().map(entry_json).collect::<Vec<_>>(),
    });
    report(json_to, &json, &table.render())?;
    Ok(Verdict::Well)
}

fn entry_json(entry: &DirectoryEntry) -> Value {
    let mut json = terms_json(&entry.terms);
    json["name"] = json!(entry.name);
    json["cnaps"] = json!(entry.cnaps);
    json["bic"] = json!(entry.bic);
    json["links_max"] = json!(entry.terms.contract.links_max);
    json["request_in_flight_max"] = json!(entry.terms.contract.request_in_flight_max);
    json["request_per_second_max"] = json!(entry.terms.contract.request_per_second_max);
    json["intake_in_flight_max"] = json!(entry.terms.contract.intake_in_flight_max);
    json["intake_per_second_max"] = json!(entry.terms.contract.intake_per_second_max);
    json["inquiries_per_second_max"] = json!(entry.terms.contract.inquiries_per_second_max);
    json["demo_credential"] = json!(entry.has_demo_credential());
    json
}

/// The scheme's terms, as the directory and the journal's Genesis have them.
pub(super) fn scheme_json(terms: &SchemeTerms) -> Value {
    json!({
        "rules_version": terms.rules_version,
        "resident_payments": terms.resident_payments,
        "parked_max": terms.parked_max,
        "maximum_minor": terms.maximum_minor,
        "refund_days": terms.refund_days,
        "currencies": terms.currencies.iter().filter(|currency| **currency != 0).collect::<Vec<_>>(),
    })
}

/// A participant's terms, as the directory and the journal have them. A number that has no name here stays a number.
pub(super) fn terms_json(terms: &ParticipantTerms) -> Value {
    let kinds = Kind::ALL.iter().filter(|kind| terms.permits(**kind));
    let accounts = terms.accounts.iter().filter(|account| account.currency != 0);
    json!({
        "index": terms.index.0,
        "code": terms.code.to_string(),
        "role": Role::from_u8(terms.role).map_or(json!(terms.role), |role| json!(role_name(role))),
        "kinds": kinds.map(|kind| kind.name()).collect::<Vec<_>>(),
        "may_initiate": terms.suspended & ParticipantTerms::SUSPENDED_INITIATOR == 0,
        "may_be_asked": terms.suspended & ParticipantTerms::SUSPENDED_RESPONDER == 0,
        "tq_ms": terms.wait_ns / MILLISECOND,
        "t1_ms": terms.doubt_ns / MILLISECOND,
        "t2_pull_ms": terms.expiry_pull_ns / MILLISECOND,
        "t2_push_ms": terms.expiry_push_ns / MILLISECOND,
        "payment_limit_minor": terms.payment_limit_minor,
        "accounts": accounts.map(|account| json!({
            "currency": account.currency,
            "cover_minor": account.cover_minor,
            "cap_minor": account.cap_minor,
        })).collect::<Vec<_>>(),
    })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Institution => "institution",
        Role::Bank => "bank",
    }
}
