//! What `clearway journal` tells of a journal's chain of hashes.

use blake3::Hash;
use serde_json::{Value, json};

use crate::domain::WindowId;
use crate::journal::{Chain, ChainFailure, ChainStart, ChainVerdict, WindowMark};

/// A chain in text and JSON, and what is wrong with it.
#[derive(Debug)]
pub(super) struct ChainTold {
    pub(super) text: String,
    pub(super) json: Value,
    pub(super) faults: Vec<String>,
}

/// Tells of the chain that was read, of what holding the journal against it came to, and of each value that was asked for.
pub(super) fn chain_told(
    chain: Result<Option<Chain>, ChainFailure>,
    verdict: Option<&ChainVerdict>,
    asked: &[Hash],
) -> ChainTold {
    let mut told = ChainTold {
        text: String::new(),
        json: Value::Null,
        faults: Vec::new(),
    };
    let chain = match chain {
        Ok(Some(chain)) => chain,
        Ok(None) => {
            told.text
                .push_str("no chain of hashes: accidents are found, but not who rewrites history\n");
            if !asked.is_empty() {
                told.faults.push("there is no chain to find --checkpoint in".to_owned());
            }
            return told;
        }
        Err(failure) => {
            told.json = json!({"fault": failure.to_string()});
            told.faults.push(failure.to_string());
            return told;
        }
    };
    told.text.push_str(&format!(
        "chain            from journal position {} up to {}, {} checkpoints; its value is {}\n",
        chain.start().position,
        chain.end(),
        chain.checkpoints(),
        chain.value()
    ));
    if let Some((mark, value)) = chain.checkpoint() {
        told.text.push_str(&format!("last checkpoint  {mark}: {value}\n"));
    }
    told.json = chain_json(&chain);
    let fault = verdict.and_then(|verdict| verdict.fault.as_ref());
    if let Some(verdict) = verdict {
        told.json["checked_from"] = json!(verdict.checked_from);
        told.json["checked_batches"] = json!(verdict.batches);
        told.json["checked_checkpoints"] = json!(verdict.checkpoints);
        told.json["fault"] = json!(fault.map(ToString::to_string));
        told.faults.extend(fault.map(ToString::to_string));
        if fault.is_none() {
            told.text.push_str(&format!(
                "nobody has rewritten what the chain was made of: {} batches and {} checkpoints from position {} on are as \
                 they were\n",
                verdict.batches, verdict.checkpoints, verdict.checked_from
            ));
        }
    }
    // Behind a lost disk, or a chain that is not up to date, the journal itself says how the chain goes on.
    let mut further = chain;
    for &entry in verdict.iter().flat_map(|verdict| &verdict.behind) {
        further.push(entry);
    }
    let mut answers = Vec::new();
    for value in asked {
        let (answer, text) = answer(&further, verdict, value);
        answers.push(answer);
        match text {
            Ok(text) => told.text.push_str(&text),
            Err(fault) => told.faults.push(fault),
        }
    }
    told.json["asked"] = json!(answers);
    told
}

fn answer(chain: &Chain, verdict: Option<&ChainVerdict>, value: &Hash) -> (Value, Result<String, String>) {
    let Some(link) = chain.find(value) else {
        let json = json!({"value": value.to_string(), "found": false});
        let fault = match chain.start() {
            ChainStart {
                position,
                before: Some(_),
                ..
            } => format!(
                "checkpoint {value} is not in the chain from journal position {position} on, and what lies before is in the \
                 archive: ask again with --archive"
            ),
            _ => format!(
                "checkpoint {value} is nowhere in the chain: this journal does not hold the history it stood for"
            ),
        };
        return (json, Err(fault));
    };
    let to = link.entry.to;
    let checked =
        verdict.is_some_and(|verdict| verdict.fault.is_none() && verdict.checked_from < to && to <= verdict.checked_to);
    let json = json!({
        "value": value.to_string(), "found": true, "position": to, "checked": checked,
        "event": link.entry.window.map(|mark| mark.event),
    });
    let stands_for = link.entry.window.map_or(String::new(), |mark| format!(", {mark}"));
    let what = if checked {
        "this journal still holds the history it stood for"
    } else {
        "it is in the chain, but the bytes of that time could not be held against it: check them in the archive"
    };
    (
        json,
        Ok(format!(
            "checkpoint {value} is journal position {to}{stands_for}: {what}\n"
        )),
    )
}

fn chain_json(chain: &Chain) -> Value {
    json!({
        "from": chain.start().position,
        "to": chain.end(),
        "value": chain.value().to_string(),
        "checkpoints": chain.checkpoints(),
        "last_checkpoint": chain.checkpoint().map(|(mark, value)| mark_json(&mark, value)),
    })
}

fn mark_json(mark: &WindowMark, value: Hash) -> Value {
    json!({
        "event": mark.event,
        "time_ns": mark.time.0,
        "currency": mark.currency,
        "window": (mark.window != WindowId::NONE).then(|| mark.window.to_string()),
        "value": value.to_string(),
    })
}
