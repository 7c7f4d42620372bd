//! JSON files, held against what must stand in them.

use std::path::Path;

use serde_json::{Map, Value};

use super::invariant::{Finding, Invariant};
use super::notebook::Notebook;
use crate::domain::Position;

/// Reads a file that must hold one JSON object. That it is missing is told where the files are counted.
pub(super) fn read(path: &Path, shown: &str, notebook: &mut Notebook) -> Option<Map<String, Value>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            notebook.find(
                Invariant::Files
                    .broken(format!("can't be read: {error}"))
                    .in_file(shown),
            );
            return None;
        }
    };
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) => {
            notebook.find(Invariant::Files.broken("is no JSON object".to_owned()).in_file(shown));
            None
        }
        Err(error) => {
            notebook.find(Invariant::Files.broken(format!("is no JSON: {error}")).in_file(shown));
            None
        }
    }
}

/// A sum as JSON writes it; one beyond 64 bits is text, which equals no number.
pub(super) fn number(sum: Position) -> Value {
    i64::try_from(sum)
        .map(Value::from)
        .or_else(|_| u64::try_from(sum).map(Value::from))
        .unwrap_or_else(|_| Value::from(sum.to_string()))
}

/// Holds each of the keys against its value, and sees that there is no other key. `finding` names the key.
pub(super) fn same_object(
    told: &Map<String, Value>,
    expected: &[(&str, Value)],
    notebook: &mut Notebook,
    finding: impl Fn(&str) -> Finding,
) {
    for (key, value) in expected {
        match told.get(*key) {
            Some(there) if same(value, there) => {}
            Some(there) => notebook.find(finding(key).values(value, there)),
            None => notebook.find(finding(key).values(value, "nothing")),
        }
    }
    for key in told.keys() {
        if !expected.iter().any(|(known, _)| known == key) {
            notebook.find(finding(key).values("no such key", &told[key]));
        }
    }
}

/// Numbers are the same whatever their sign's type.
fn same(ours: &Value, theirs: &Value) -> bool {
    let number = |value: &Value| {
        value
            .as_i64()
            .map(i128::from)
            .or_else(|| value.as_u64().map(i128::from))
    };
    match (number(ours), number(theirs)) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => ours == theirs,
    }
}
