//! `clearway directory apply`: puts a directory file in force in a running switch, after showing what differs.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::admin::granted;
use super::admin_socket::{Operator, OperatorArgs, SocketArgs, ask};
use super::directory_difference::{Changed, Difference, Moved, Movement};
use super::output::{money, print, report};
use super::{CliError, Verdict};
use crate::config::{Directory, ParticipantSheet};

/// Put a directory in force in a running switch
///
/// Shows what differs first, and asks. Who joins, terms and suspensions change at once; cover and caps are proposed, and a
/// second person approves them.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  clearway directory apply config/directory.toml --dry-run\n  clearway directory apply \
                  config/directory.toml --config config/clearway.toml --operator alice --token-file ~/.clearway/token"
)]
pub(super) struct ApplyArgs {
    /// The directory file
    file: PathBuf,
    #[command(flatten)]
    socket: SocketArgs,
    #[command(flatten)]
    operator: OperatorArgs,
    /// Only show what differs
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Write the difference and what became of it as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The switch's entries in force.
struct InForce {
    sheets: Vec<ParticipantSheet>,
    settled: BTreeMap<String, BTreeMap<String, i64>>,
    /// The directory file that the next start reads.
    directory: PathBuf,
}

pub(super) fn apply(args: &ApplyArgs) -> Result<Verdict, CliError> {
    let directory = Directory::load(&args.file)?;
    let text = std::fs::read_to_string(&args.file).unwrap_or_default();
    let socket = args.socket.path()?;
    let in_force = read_terms(&socket)?;
    let sheets: Vec<ParticipantSheet> = directory.participants.iter().map(ParticipantSheet::from).collect();
    let difference = Difference::between(&in_force.sheets, &in_force.settled, &sheets, |code| {
        line_of(&text, code)
    });
    let mut answer = difference.json();
    let shown = show(&difference, args);
    if !difference.impossible.is_empty() {
        report(args.json.as_deref(), &answer, &shown)?;
        return Err(CliError::Usage(format!(
            "{}: it can't be put in force; nothing was done",
            args.file.display()
        )));
    }
    if difference.is_empty() || args.dry_run {
        report(args.json.as_deref(), &answer, &shown)?;
        return Ok(Verdict::Well);
    }
    // Where the answer goes to stdout as JSON, people are not asked there.
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if !to_stdout {
        print(&shown)?;
    }
    let operator = args.operator.read()?;
    if !args.yes && !confirmed()? {
        return Err(CliError::Usage("nothing was done".to_owned()));
    }
    let mut steps = Steps {
        socket: &socket,
        operator: &operator,
        done: Vec::new(),
        to_stdout,
    };
    let result = steps.carry_out(&difference);
    answer["done"] = json!(steps.done);
    if let Some(place) = &args.json {
        report(Some(place), &answer, "")?;
    }
    result?;
    if !is_same_file(&args.file, &in_force.directory) {
        eprintln!(
            "note: at its next start the switch reads {}: bring that file up to date, names and credentials of who joined are \
             nowhere else",
            in_force.directory.display()
        );
    }
    let is_well = steps.done.iter().all(|step| step["good"] == true);
    Ok(if is_well { Verdict::Well } else { Verdict::Wrong })
}

fn read_terms(socket: &Path) -> Result<InForce, CliError> {
    let answer = granted(ask(socket, "terms")?)?;
    let unreadable = |error: serde_json::Error| CliError::Failed(format!("the switch's terms can't be read: {error}"));
    let settled = answer["settled_minor"].clone();
    Ok(InForce {
        sheets: serde_json::from_value(answer["participants"].clone()).map_err(unreadable)?,
        settled: serde_json::from_value(settled).map_err(unreadable)?,
        directory: PathBuf::from(answer["directory"].as_str().unwrap_or_default()),
    })
}

/// Asks at the terminal.
fn confirmed() -> Result<bool, CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::Usage(
            "nobody can be asked here: look at the difference, and add --yes; nothing was done".to_owned(),
        ));
    }
    eprint!("put this in force? [y/N] ");
    let _shown_or_not = std::io::stderr().flush();
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    read.map_err(|error| CliError::Failed(format!("no answer could be read: {error}")))?;
    Ok(matches!(line.trim(), "y" | "yes"))
}

/// The orders, one after the other.
struct Steps<'a> {
    socket: &'a Path,
    operator: &'a Operator,
    done: Vec<Value>,
    /// Results go elsewhere.
    to_stdout: bool,
}

impl Steps<'_> {
    fn carry_out(&mut self, difference: &Difference) -> Result<(), CliError> {
        for sheet in &difference.added {
            self.order(&sheet.code, "joins", &json!({ "add": sheet }))?;
        }
        for changed in &difference.changed {
            self.change(changed)?;
        }
        if difference.movements.is_empty() {
            return Ok(());
        }
        let waiting = granted(ask(self.socket, "orders")?)?;
        let waiting = waiting["proposals"].as_array().cloned().unwrap_or_default();
        for movement in &difference.movements {
            self.propose(movement, &waiting)?;
        }
        Ok(())
    }

    fn change(&mut self, changed: &Changed) -> Result<(), CliError> {
        let (sheet, code) = (&changed.sheet, changed.sheet.code.as_str());
        if changed.is_amended() {
            self.order(code, "terms", &json!({ "amend": sheet }))?;
        }
        if changed.is_introduced() {
            self.order(code, "name and credential", &json!({ "introduce": sheet }))?;
        }
        if !changed.suspended.is_empty() {
            let order = json!({ "suspend": { "participant": code, "as": changed.suspended } });
            self.order(code, "suspended", &order)?;
        }
        if !changed.resumed.is_empty() {
            let order = json!({ "resume": { "participant": code, "as": changed.resumed } });
            self.order(code, "suspended no more", &order)?;
        }
        Ok(())
    }

    fn propose(&mut self, movement: &Movement, waiting: &[Value]) -> Result<(), CliError> {
        let what = format!("{} in {}", movement.name(), movement.currency);
        let Some((action, amount_minor)) = movement.proposal() else {
            return self.later(
                movement,
                &what,
                "what was settled is more than this cap: it would be below zero",
            );
        };
        let same = waiting.iter().find(|known| {
            known["action"] == action && known["participant"] == movement.code && known["currency"] == movement.currency
        });
        if let Some(same) = same {
            let number = &same["proposal"];
            let why = if same["amount_minor"] == amount_minor {
                format!("proposal {number} says so already, and waits for a second person")
            } else {
                format!("proposal {number} says otherwise and waits: approve or refuse it, then apply again")
            };
            return self.later(movement, &what, &why);
        }
        if let Some(first) = movement.waits_for() {
            return self.later(
                movement,
                &what,
                &format!("first {first} must be approved: apply again then"),
            );
        }
        let order = json!({ "propose": {
            "action": action,
            "participant": movement.code,
            "currency": movement.currency,
            "amount_minor": amount_minor,
        } });
        self.order(&movement.code, &what, &order)
    }

    /// What is not proposed now, and why.
    fn later(&mut self, movement: &Movement, what: &str, why: &str) -> Result<(), CliError> {
        self.tell(&movement.code, what, why)?;
        let step = json!({ "code": movement.code, "what": what, "outcome": "not_yet", "good": true, "says": why });
        self.done.push(step);
        Ok(())
    }

    fn order(&mut self, code: &str, what: &str, order: &Value) -> Result<(), CliError> {
        let mut answer = granted(self.operator.order(self.socket, order)?)?;
        let says = answer["says"].as_str().unwrap_or_default().to_owned();
        self.tell(code, what, &says)?;
        (answer["code"], answer["what"]) = (json!(code), json!(what));
        let good = answer["good"] == true;
        self.done.push(answer);
        if good {
            Ok(())
        } else {
            Err(CliError::Failed(format!(
                "{code}: {what}: {says}; what stands below it was not done"
            )))
        }
    }

    fn tell(&self, code: &str, what: &str, says: &str) -> Result<(), CliError> {
        if self.to_stdout {
            return Ok(());
        }
        print(&format!("{code}: {what}: {says}\n"))
    }
}

impl Movement {
    const fn name(&self) -> &'static str {
        match self.what {
            Moved::Cover => "cover",
            Moved::Cap => "cap",
        }
    }
}

/// The difference for people.
fn show(difference: &Difference, args: &ApplyArgs) -> String {
    if difference.is_empty() {
        return format!("{}: all of it is in force\n", args.file.display());
    }
    let mut out = String::new();
    for sheet in &difference.added {
        out.push_str(&format!(
            "+ {} {} index {} \"{}\"\n",
            sheet.code, sheet.role, sheet.index, sheet.name
        ));
    }
    for changed in &difference.changed {
        out.push_str(&format!("~ {} \"{}\"\n", changed.sheet.code, changed.sheet.name));
        for (field, before, after) in &changed.fields {
            out.push_str(&format!("    {field}: {} → {}\n", plain(before), plain(after)));
        }
        for direction in &changed.suspended {
            out.push_str(&format!("    suspended as {direction}\n"));
        }
        for direction in &changed.resumed {
            out.push_str(&format!("    suspended as {direction} no more\n"));
        }
    }
    for movement in &difference.movements {
        let settled = match movement.settled_minor {
            0 => String::new(),
            minor => format!(", of which {} was settled", money(minor.into())),
        };
        out.push_str(&format!(
            "? {} {} in {}: {} → {}{settled} (takes two people)\n",
            movement.code,
            movement.name(),
            movement.currency,
            money(movement.before_minor.into()),
            money(movement.after_minor.into()),
        ));
    }
    for said in &difference.impossible {
        out.push_str(&format!("! {}: {said}\n", args.file.display()));
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join("+"),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// The line (from 1) on which the file states this code.
fn line_of(text: &str, code: &str) -> Option<usize> {
    let quoted = format!("\"{code}\"");
    let states = |line: &str| line.trim_start().starts_with("code") && line.contains(&quoted);
    text.lines().position(states).map(|at| at + 1)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
