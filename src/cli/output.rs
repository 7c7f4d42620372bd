//! Results: text tables for people, JSON for programs.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::CliError;

/// Writes a result to stdout.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CliError::Output {
            place: "stdout".to_owned(),
            error,
        })
}

/// Reports a result: text to stdout, and JSON where `--json` asked for it (`-` = stdout, then without the text).
pub(super) fn report(json_to: Option<&Path>, json: &Value, text: &str) -> Result<(), CliError> {
    let Some(place) = json_to else {
        return print(text);
    };
    let mut json_text = format!("{json:#}");
    json_text.push('\n');
    if place == Path::new("-") {
        return print(&json_text);
    }
    std::fs::write(place, json_text).map_err(|error| CliError::Output {
        place: place.display().to_string(),
        error,
    })?;
    print(text)
}

/// A text table: columns as wide as their widest cell, numbers to the right.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn render(&self) -> String {
        let width = |cell: &str| cell.chars().count();
        let columns: Vec<(usize, bool)> = self
            .headings
            .iter()
            .enumerate()
            .map(|(column, heading)| {
                let cells = || self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells().map(|cell| width(cell)).chain([width(heading)]).max();
                (widest.unwrap_or(0), cells().all(|cell| is_number(cell)))
            })
            .collect();
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, (widest, to_the_right)) in cells.zip(&columns) {
                let padding = " ".repeat(widest.saturating_sub(width(cell)));
                if *to_the_right {
                    text.push_str(&padding);
                }
                text.push_str(cell);
                if !*to_the_right {
                    text.push_str(&padding);
                }
                text.push_str("  ");
            }
            out.push_str(text.trim_end());
            out.push('\n');
        };
        line(&mut self.headings.iter().copied());
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str));
        }
        out
    }
}

fn is_number(cell: &str) -> bool {
    cell.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-'))
}

/// An amount in minor units of a currency with two decimals, as people read it: `-1,234,567.89`.
pub(super) fn money(minor: i128) -> String {
    let digits = (minor.unsigned_abs() / 100).to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if minor < 0 { "-" } else { "" };
    format!("{sign}{grouped}.{:02}", minor.unsigned_abs() % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_grouped_by_thousands() {
        assert_eq!(money(0), "0.00");
        assert_eq!(money(-123_456_789), "-1,234,567.89");
        assert_eq!(money(100_000), "1,000.00");
        assert_eq!(money(-5), "-0.05");
    }

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let mut table = Table::new(&["code", "minor"]);
        table.row(vec!["A".to_owned(), "5".to_owned()]);
        table.row(vec!["LONGER".to_owned(), "1,000".to_owned()]);
        assert_eq!(table.render(), "code    minor\nA           5\nLONGER  1,000\n");
    }
}
