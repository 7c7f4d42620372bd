//! `clearway settle prove` and `verify-proof`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::journal::payment_id;
use super::journal_report::Progress;
use super::output::report;
use super::settle::{failed, root, window_id};
use super::{CliError, Verdict};
use crate::domain::{PaymentId, WindowId};
use crate::settlement::merkle::{self, Digest};
use crate::settlement::{Proof, prove};

/// Write the proof that a payment is one of a window's committed ones; all it takes is the window's files
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  clearway settle prove 20261123-12-0-4711 --dir data/settlement --out payment.proof"
)]
pub(super) struct ProveArgs {
    /// The payment: date-originator-lane-serial
    #[arg(value_name = "PAYMENT-ID", value_parser = payment_id)]
    payment: PaymentId,
    /// The directory of settlement's files
    #[arg(long, value_name = "SETTLEMENT")]
    dir: PathBuf,
    /// Look in this window only
    #[arg(long, value_name = "WINDOW", value_parser = window_id)]
    window: Option<WindowId>,
    /// Where the proof is written [default: PAYMENT-ID.proof]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Check that a payment is one of a window's, with nothing but the window's published root; exits 1 where it is not proved
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  clearway settle verify-proof payment.proof --root 5bd1…e9  (64 hex digits)")]
pub(super) struct VerifyProofArgs {
    /// What `clearway settle prove` wrote
    file: PathBuf,
    /// The window's root, as it was published
    #[arg(long, value_name = "HEX", value_parser = root)]
    root: Digest,
    /// Write the result as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn prove(args: &ProveArgs) -> Result<Verdict, CliError> {
    let mut progress = Progress::new();
    let proved = prove::prove(&args.dir, args.payment, args.window, |leaves| {
        progress.tell(|| format!("{leaves} payments read"));
    });
    let (proof, root) = proved.map_err(failed)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}.proof", args.payment)));
    let bytes = proof.encode();
    std::fs::write(&out, &bytes).map_err(|error| CliError::Output {
        place: out.display().to_string(),
        error,
    })?;
    let json = json!({
        "file": out.display().to_string(),
        "bytes": bytes.len(),
        "root": merkle::hex(&root),
        "row": proof.row,
        "leaf": proof.leaf,
        "leaves": proof.leaves,
    });
    let text = format!(
        "{}: {} bytes, payment {} of {} in its window\n{}\nroot {}\n",
        out.display(),
        bytes.len(),
        proof.leaf,
        proof.leaves,
        proof.row,
        merkle::hex(&root)
    );
    report(args.json.as_deref(), &json, &text)?;
    Ok(Verdict::Well)
}

pub(super) fn verify_proof(args: &VerifyProofArgs) -> Result<Verdict, CliError> {
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
