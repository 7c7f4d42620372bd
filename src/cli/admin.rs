//! `clearway admin`: talk to a running switch over its Unix socket.
//!
//! One line out, one JSON line back. What comes back is shown as the switch wrote it; a field that a later switch adds
//! is shown too.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::admin_show::{
    show_cover, show_exceptions, show_figures, show_in_doubt, show_orders, show_participants, show_windows,
};
use super::admin_socket::{OperatorArgs, SocketArgs, ask, new_token};
use super::output::report;
use super::{CliError, Verdict};

/// Talk to a running switch over its Unix socket
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway admin status\n  clearway admin windows --config config/clearway.toml --json -\n  \
                  clearway admin in-doubt\n  \
                  clearway admin close-window --socket /run/clearway/admin.sock"
)]
pub(super) struct AdminArgs {
    #[command(subcommand)]
    request: Request,
    #[command(flatten)]
    socket: SocketArgs,
    /// Write the switch's answer as JSON to this file, `-` for stdout
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Request {
    /// Figures of the whole switch
    #[command(after_help = "Example:\n  clearway admin status --json -")]
    Status,
    /// Links, position, cover, cap and success rates of each participant
    #[command(after_help = "Example:\n  clearway admin participants")]
    Participants,
    /// Use of each cap, the fullest first, and the newest alarms
    #[command(after_help = "Example:\n  clearway admin cover")]
    Cover,
    /// The windows and what was cleared in them
    #[command(after_help = "Example:\n  clearway admin windows")]
    Windows,
    /// Payments whose bank has not answered, the oldest first
    #[command(after_help = "Example:\n  clearway admin in-doubt")]
    InDoubt,
    /// Payments about which the switch and a bank disagree: an operator must see to them
    #[command(after_help = "Example:\n  clearway admin exceptions")]
    Exceptions,
    /// Proposals that wait for a second person, and what became of the last orders
    #[command(after_help = "Example:\n  clearway admin orders")]
    Orders,
    /// Close the open window; the next one opens in the same event
    #[command(after_help = "Examples:\n  clearway admin close-window\n  clearway admin close-window --currency HKD")]
    CloseWindow {
        /// Only this currency's; else every currency's
        #[arg(long, value_name = "CODE")]
        currency: Option<String>,
    },
    /// Settle every closed window
    #[command(after_help = "Example:\n  clearway admin settle")]
    Settle,
    /// Propose to move a participant's cover or cap; a second person approves it
    #[command(
        after_help = "Example:\n  clearway admin propose cover-in --participant C1010200000015 --currency CNY \
                      --amount-minor 5000000 --operator alice --token-file ~/.clearway/token"
    )]
    Propose {
        /// What
        what: Movement,
        /// Whose
        #[arg(long, value_name = "CODE")]
        participant: String,
        /// In which currency
        #[arg(long, value_name = "CODE")]
        currency: String,
        /// How much comes in or goes out, or the new cap; minor units (fen)
        #[arg(long, value_name = "N")]
        amount_minor: u64,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Approve what another operator proposed: it is in force at once
    #[command(after_help = "Example:\n  clearway admin approve 4711 --operator bob --token-file ~/.clearway/token")]
    Approve {
        /// The proposal's number; `clearway admin orders` lists those that wait
        proposal: u64,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Take a proposal back
    #[command(after_help = "Example:\n  clearway admin refuse 4711 --operator bob --token-file ~/.clearway/token")]
    Refuse {
        /// The proposal's number
        proposal: u64,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Keep a participant from payments, in one direction or both; what is open is finished
    #[command(
        after_help = "Example:\n  clearway admin suspend C1010200000015 --as responder --operator alice --token-file \
                      ~/.clearway/token"
    )]
    Suspend {
        /// The participant's code
        participant: String,
        /// Only in this direction
        #[arg(long = "as", value_name = "DIRECTION")]
        direction: Option<Direction>,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Let a suspended participant take part again
    #[command(
        after_help = "Example:\n  clearway admin resume C1010200000015 --operator alice --token-file ~/.clearway/token"
    )]
    Resume {
        /// The participant's code
        participant: String,
        /// Only in this direction
        #[arg(long = "as", value_name = "DIRECTION")]
        direction: Option<Direction>,
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Make an operator's token, and print the lines for the settings
    #[command(after_help = "Example:\n  clearway admin operator-token alice --output ~/.clearway/token")]
    OperatorToken {
        /// The operator's name
        name: String,
        /// Write the token to this file, for its owner alone, instead of showing it
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Movement {
    /// Cover comes in
    CoverIn,
    /// Cover goes out
    CoverOut,
    /// The cap becomes this
    Cap,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Direction {
    /// It may not initiate payments (code 05)
    Initiator,
    /// It may not be asked (code 06)
    Responder,
}

/// How an answer is shown.
type Show = fn(&Value) -> String;

impl Request {
    /// A question: as the admin socket reads it, and how its answer is shown. `None` for an order.
    fn question(&self) -> Option<(String, Show)> {
        let word = |word: &str, show: Show| Some((word.to_owned(), show));
        match self {
            Self::Status => word("status", show_figures),
            Self::Participants => word("participants", show_participants),
            Self::Cover => word("cover", show_cover),
            Self::Windows => word("windows", show_windows),
            Self::InDoubt => word("in-doubt", show_in_doubt),
            Self::Exceptions => word("exceptions", show_exceptions),
            Self::Orders => word("orders", show_orders),
            Self::CloseWindow { currency: None } => word("close-window", |_| {
                "asked the switch to close the open window\n".to_owned()
            }),
            Self::CloseWindow { currency } => Some((
                json!({ "request": "close-window", "currency": currency }).to_string(),
                |_| "asked the switch to close this currency's open window\n".to_owned(),
            )),
            Self::Settle => word("settle", |_| {
                "asked the switch to settle every closed window\n".to_owned()
            }),
            Self::Propose { .. }
            | Self::Approve { .. }
            | Self::Refuse { .. }
            | Self::Suspend { .. }
            | Self::Resume { .. }
            | Self::OperatorToken { .. } => None,
        }
    }

    /// An order: who gives it, and as the admin socket reads it. `None` for a question.
    fn order(&self) -> Option<(&OperatorArgs, Value)> {
        let directions = |direction: &Option<Direction>| match direction {
            None => json!([]),
            Some(Direction::Initiator) => json!(["initiator"]),
            Some(Direction::Responder) => json!(["responder"]),
        };
        match self {
            Self::Propose {
                what,
                participant,
                currency,
                amount_minor,
                operator,
            } => {
                let action = match what {
                    Movement::CoverIn => "cover_in",
                    Movement::CoverOut => "cover_out",
                    Movement::Cap => "set_cap",
                };
                let order = json!({ "propose": {
                    "action": action,
                    "participant": participant,
                    "currency": currency,
                    "amount_minor": amount_minor,
                } });
                Some((operator, order))
            }
            Self::Approve { proposal, operator } => Some((operator, json!({ "approve": { "proposal": proposal } }))),
            Self::Refuse { proposal, operator } => Some((operator, json!({ "refuse": { "proposal": proposal } }))),
            Self::Suspend {
                participant,
                direction,
                operator,
            } => {
                let order = json!({ "suspend": { "participant": participant, "as": directions(direction) } });
                Some((operator, order))
            }
            Self::Resume {
                participant,
                direction,
                operator,
            } => {
                let order = json!({ "resume": { "participant": participant, "as": directions(direction) } });
                Some((operator, order))
            }
            Self::Status
            | Self::Participants
            | Self::Cover
            | Self::Windows
            | Self::InDoubt
            | Self::Exceptions
            | Self::Orders
            | Self::CloseWindow { .. }
            | Self::Settle
            | Self::OperatorToken { .. } => None,
        }
    }
}

pub(super) fn run(args: &AdminArgs) -> Result<Verdict, CliError> {
    if let Request::OperatorToken { name, output } = &args.request {
        let (text, answer) = new_token(name, output.as_deref())?;
        report(args.json.as_deref(), &answer, &text)?;
        return Ok(Verdict::Well);
    }
    if let Some((operator, order)) = args.request.order() {
        let operator = operator.read()?;
        let answer = granted(operator.order(&args.socket.path()?, &order)?)?;
        return say(&answer, args.json.as_deref());
    }
    let Some((line, show)) = args.request.question() else {
        unreachable!("it is a question, an order or a token")
    };
    let answer = granted(ask(&args.socket.path()?, &line)?)?;
    report(args.json.as_deref(), &answer, &show(&answer))?;
    Ok(Verdict::Well)
}

/// What the switch answered, if it did not refuse.
pub(super) fn granted(answer: Value) -> Result<Value, CliError> {
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(CliError::Failed(format!("the switch refused: {error}"))),
        None => Ok(answer),
    }
}

/// What became of an order: a sentence, and whether it did what was meant.
fn say(answer: &Value, json_to: Option<&Path>) -> Result<Verdict, CliError> {
    let says = answer.get("says").and_then(Value::as_str).unwrap_or_default();
    if answer["good"] == true {
        report(json_to, answer, &format!("{says}\n"))?;
        return Ok(Verdict::Well);
    }
    if json_to.is_some() {
        report(json_to, answer, "")?;
    }
    eprintln!("{says}");
    Ok(Verdict::Wrong)
}
