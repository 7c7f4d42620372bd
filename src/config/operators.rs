//! Who may give orders, and when windows close: two tables of the settings.

use super::credential::{from_hex, to_hex};
use super::section::Section;

/// One person who may give orders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OperatorSettings {
    /// His name as it stands in the journal: up to 32 ASCII letters, digits, `.`, `-`, `_`.
    pub name: String,
    /// BLAKE3 hash of his token's 32 bytes.
    pub token_hash: [u8; 32],
    /// He may order directly, propose and take proposals back.
    pub makes: bool,
    /// He may approve what another proposed, and take proposals back.
    pub checks: bool,
}

impl OperatorSettings {
    /// The longest name, bytes.
    pub const NAME_BYTES_MAX: usize = 32;

    /// True when a text can be an operator's name.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        (1..=Self::NAME_BYTES_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    }

    /// The lines for the settings.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let may = [(self.makes, "\"make\""), (self.checks, "\"check\"")];
        let may: Vec<&str> = may.iter().filter(|(has, _)| *has).map(|(_, word)| *word).collect();
        format!(
            "[[operator]]\nname = \"{}\"\ntoken_hash = \"{}\"\nmay = [{}]\n",
            self.name,
            to_hex(&self.token_hash),
            may.join(", ")
        )
    }
}

/// When windows close.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WindowSettings {
    /// Close the open windows this often, seconds; `None` = not by this.
    pub close_every_s: Option<u64>,
    /// Close the open windows at these times of day in Asia/Shanghai, seconds from midnight, strictly rising.
    pub close_at_s: Vec<u32>,
    /// Settle a window as soon as it is closed.
    pub settle: bool,
}

impl WindowSettings {
    /// The table for the settings.
    #[must_use]
    pub(super) fn to_toml(&self) -> String {
        let mut text = String::from("[windows]\n");
        if let Some(close_every_s) = self.close_every_s {
            text.push_str(&format!("close_every_s = {close_every_s}\n"));
        }
        if !self.close_at_s.is_empty() {
            let times: Vec<String> = self
                .close_at_s
                .iter()
                .map(|&at| format!("\"{}\"", time_of_day(at)))
                .collect();
            text.push_str(&format!("close_at = [{}]\n", times.join(", ")));
        }
        text + &format!("settle = {}\n", self.settle)
    }
}

/// `hh:mm`, or `hh:mm:ss` where it has seconds.
#[must_use]
pub fn time_of_day(second: u32) -> String {
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    match second {
        0 => format!("{hour:02}:{minute:02}"),
        second => format!("{hour:02}:{minute:02}:{second:02}"),
    }
}

fn parse_time_of_day(text: &str) -> Option<u32> {
    let mut parts = text.split(':');
    let mut part = |below: u32| {
        let digits = parts.next()?;
        let right = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|&number| right && number < below)
    };
    let (hour, minute) = (part(24)?, part(60)?);
    let second = match text.len() {
        5 => 0,
        _ => part(60)?,
    };
    parts.next().is_none().then_some(hour * 3_600 + minute * 60 + second)
}

pub(super) fn read_windows(root: &Section<'_, '_>) -> WindowSettings {
    let Some(section) = root.section("windows") else {
        return WindowSettings::default();
    };
    let mut close_at_s: Vec<u32> = Vec::new();
    for text in section.texts("close_at").unwrap_or_default() {
        let Some(at) = parse_time_of_day(text.value) else {
            section.fault(
                text.span,
                format!("`{}` is not a time of day", text.value),
                "write hh:mm or hh:mm:ss from 00:00 to 23:59:59, Asia/Shanghai, e.g. \"09:00\"",
            );
            continue;
        };
        if let Some(last) = close_at_s.last().filter(|&&last| last >= at) {
            section.fault(
                text.span,
                format!("`{}` does not come after `{}`", text.value, time_of_day(*last)),
                "write the times of a day in their order, each once",
            );
            continue;
        }
        close_at_s.push(at);
    }
    let windows = WindowSettings {
        close_every_s: section.integer("close_every_s", 1..=86_400).map(|every| every.value),
        close_at_s,
        settle: section.flag_or("settle", false),
    };
    section.finish();
    windows
}

pub(super) fn read_operators(root: &Section<'_, '_>) -> Vec<OperatorSettings> {
    let mut operators: Vec<OperatorSettings> = Vec::new();
    for section in root.sections("operator") {
        let name = section.required_text("name", "\"alice\"");
        let hash = section.required_text("token_hash", "\"<64 hexadecimal digits>\"");
        let may = section.words("may", &[("make", 1_u8), ("check", 2)]);
        if !section.has("may") {
            section.missing("may", "[\"make\", \"check\"]");
        }
        section.finish();
        let (Some(name), Some(hash), Some(may)) = (name, hash, may) else {
            continue;
        };
        let advice = "`clearway admin operator-token NAME` prints the lines to write here";
        if !OperatorSettings::is_name(name.value) {
            section.fault(
                name.span.clone(),
                format!("`{}` is not an operator's name", name.value),
                "write 1 to 32 ASCII letters, digits, `.`, `-`, `_`",
            );
        } else if operators.iter().any(|known| known.name == name.value) {
            section.fault(name.span.clone(), "two operators have this name", "give each his own");
        }
        let Some(token_hash) = from_hex(hash.value) else {
            section.fault(hash.span, "`token_hash` is not 64 hexadecimal digits", advice);
            continue;
        };
        if operators.iter().any(|known| known.token_hash == token_hash) {
            section.fault(
                hash.span,
                "two operators have this token: nobody could tell them apart",
                advice,
            );
        }
        if may.is_empty() {
            section.fault(
                section.span.clone(),
                format!("`{}` may do nothing", name.value),
                "write `may = [\"make\"]`, `[\"check\"]` or both",
            );
        }
        operators.push(OperatorSettings {
            name: name.value.to_owned(),
            token_hash,
            makes: may.iter().any(|word| word.value == 1),
            checks: may.iter().any(|word| word.value == 2),
        });
    }
    operators
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{ConfigError, Settings};

    const LEAST: &str = "listen = \"127.0.0.1:0\"\ndata = \"d\"\ndirectory = \"directory.toml\"\n";

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        Settings::parse("clearway.toml", &format!("{LEAST}{text}"), Path::new("/etc/clearway"))
    }

    #[test]
    fn times_of_day_and_operators_read_back_the_same() {
        let text = format!(
            "[windows]\nclose_at = [\"01:00\", \"09:00\", \"23:59:59\"]\n[[operator]]\nname = \"alice\"\ntoken_hash = \"{}\"\n\
             may = [\"make\", \"check\"]\n[[operator]]\nname = \"b.o-b_2\"\ntoken_hash = \"{}\"\nmay = [\"check\"]\n",
            "0a".repeat(32),
            "0b".repeat(32)
        );
        let settings = parse(&text).expect("a right file");
        assert_eq!(settings.windows.close_at_s, [3_600, 32_400, 86_399]);
        assert_eq!(settings.operators.len(), 2);
        assert!(settings.operators[0].makes && settings.operators[0].checks);
        assert!(!settings.operators[1].makes && settings.operators[1].checks);
        let again = Settings::parse("again.toml", &settings.to_toml(), Path::new("/etc/clearway"));
        assert_eq!(again.expect("a right file"), settings);
    }

    #[test]
    fn a_time_of_day_that_is_none_or_does_not_rise_is_a_fault_at_its_place() {
        let error =
            parse("[windows]\nclose_at = [\"09:00\", \"9:30\", \"24:00\", \"08:00\", \"09:00\", \"10:00:60\"]\n")
                .expect_err("five faults");
        let places: Vec<_> = error.faults().iter().map(|fault| (fault.line, fault.column)).collect();
        assert_eq!(places, [(5, 22), (5, 30), (5, 39), (5, 48), (5, 57)], "{error}");
        assert!(
            error.to_string().contains("`08:00` does not come after `09:00`"),
            "{error}"
        );
    }

    #[test]
    fn an_operator_without_a_right_name_token_or_permission_is_refused_with_what_to_write() {
        let error = parse("[[operator]]\nname = \"al ice\"\ntoken_hash = \"xy\"\nmay = []\n").expect_err("faults");
        assert!(error.to_string().contains("clearway admin operator-token"), "{error}");
        assert!(error.to_string().contains("not an operator's name"), "{error}");
        let error = parse("[[operator]]\nname = \"alice\"\n").expect_err("faults");
        assert!(error.to_string().contains("lacks `may`"), "{error}");
    }

    #[test]
    fn two_operators_with_one_token_are_refused() {
        let one = |name: &str| {
            let hash = "0a".repeat(32);
            format!("[[operator]]\nname = \"{name}\"\ntoken_hash = \"{hash}\"\nmay = [\"make\", \"check\"]\n")
        };
        let error = parse(&(one("alice") + &one("bob"))).expect_err("one token");
        assert!(error.to_string().contains("nobody could tell them apart"), "{error}");
    }
}
