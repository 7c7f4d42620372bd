//! `clearway settle`: windows' files, and what proves them; nothing here talks to a running switch.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::report;
use super::settle_reconcile::{self, ReconcileArgs};
use super::settle_verify::{self, VerifyArgs};
use super::{CliError, Verdict};
use crate::settlement::Proof;
use crate::settlement::merkle::{self, Digest};

/// Windows and days as files: list them, write them again from the journal, prove a payment, check
#[derive(Args, Debug)]
pub(super) struct SettleArgs {
    #[command(subcommand)]
    command: SettleCommand,
}

#[derive(Subcommand, Debug)]
enum SettleCommand {
    VerifyProof(VerifyProofArgs),
    Verify(VerifyArgs),
    Reconcile(ReconcileArgs),
}

/// Check that a payment is one of a window's, with nothing but the window's published root; exits 1 where it is not proved
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway settle verify-proof payment.proof --root 5bd1…e9  (64 hex digits)")]
struct VerifyProofArgs {
    /// What `clearway settle prove` wrote
    file: PathBuf,
    /// The window's root, as it was published
    #[arg(long, value_name = "HEX", value_parser = root)]
    root: Digest,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &SettleArgs) -> Result<Verdict, CliError> {
    match &args.command {
        SettleCommand::VerifyProof(args) => verify_proof(args),
        SettleCommand::Verify(args) => settle_verify::run(args),
        SettleCommand::Reconcile(args) => settle_reconcile::run(args),
    }
}

pub(super) fn root(text: &str) -> Result<Digest, String> {
    merkle::from_hex(text).ok_or_else(|| "a root is 64 hex digits, as `clearway settle list` prints it".to_owned())
}

fn verify_proof(args: &VerifyProofArgs) -> Result<Verdict, CliError> {
    let bytes = std::fs::read(&args.file)
        .map_err(|error| CliError::Usage(format!("{}: cannot be read: {error}", args.file.display())))?;
    let proof = Proof::decode(&bytes);
    let checked = proof
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|proof| proof.verify(&args.root));
    let reason = checked.as_ref().err().map(ToString::to_string);
    let shown = proof.as_ref().ok();
    let json = json!({
        "proved": checked.is_ok(),
        "root": merkle::hex(&args.root),
        "row": shown.map(|proof| &proof.row),
        "leaf": shown.map(|proof| proof.leaf),
        "leaves": shown.map(|proof| proof.leaves),
        "reason": reason,
    });
    let row = shown.map_or("", |proof| proof.row.as_str());
    let text = match &reason {
        None => format!("proved  {row}\n"),
        Some(reason) => format!("NOT PROVED  {row}\n{reason}\n"),
    };
    report(args.json.as_deref(), &json, &text)?;
    Ok(if checked.is_ok() { Verdict::Well } else { Verdict::Wrong })
}
