//! `clearway settle`: windows' files, and what proves them; nothing here talks to a running switch.

use clap::{Args, Subcommand};

use super::settle_list::{ListArgs, list};
use super::settle_prove::{ProveArgs, VerifyProofArgs, prove, verify_proof};
use super::settle_reconcile::{self, ReconcileArgs};
use super::settle_report::ReportArgs;
use super::settle_verify::{self, VerifyArgs};
use super::{CliError, Verdict};
use crate::domain::{BusinessDate, WindowId};
use crate::settlement::merkle::{self, Digest};

/// Windows and days as files: list them, write them again from the journal, prove a payment, check
#[derive(Args, Debug)]
pub(super) struct SettleArgs {
    #[command(subcommand)]
    command: SettleCommand,
}

#[derive(Subcommand, Debug)]
enum SettleCommand {
    List(ListArgs),
    Report(ReportArgs),
    Prove(ProveArgs),
    VerifyProof(VerifyProofArgs),
    Verify(VerifyArgs),
    Reconcile(ReconcileArgs),
}

pub(super) fn run(args: &SettleArgs) -> Result<Verdict, CliError> {
    match &args.command {
        SettleCommand::List(args) => list(args),
        SettleCommand::Report(args) => super::settle_report::run(args),
        SettleCommand::Prove(args) => prove(args),
        SettleCommand::VerifyProof(args) => verify_proof(args),
        SettleCommand::Verify(args) => settle_verify::run(args),
        SettleCommand::Reconcile(args) => settle_reconcile::run(args),
    }
}

pub(super) fn root(text: &str) -> Result<Digest, String> {
    merkle::from_hex(text).ok_or_else(|| "a root is 64 hex digits, as `clearway settle list` prints it".to_owned())
}

pub(super) fn window_id(text: &str) -> Result<WindowId, String> {
    let digits = text.strip_prefix('W').filter(|digits| digits.len() == 12);
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    number
        .map(|number| WindowId::new(BusinessDate((number / 10_000) as u32), (number % 10_000) as u32))
        .ok_or_else(|| "a window is written W, a date and four digits, as in W202611230001".to_owned())
}

pub(super) fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("settlement: {error}"))
}
