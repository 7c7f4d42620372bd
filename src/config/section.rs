//! One table of a TOML file, read key by key.
//!
//! Every value is checked where it is taken, every fault is noted with its place, and [`Section::finish`] refuses keys
//! that nobody took, with the key that was probably meant. Reading goes on after a fault, so that all are reported.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{ConfigError, Faults};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A table being read.
pub(super) struct Section<'t, 'f> {
    faults: &'f RefCell<Faults<'t>>,
    table: &'f DeTable<'t>,
    /// How messages name the table, e.g. `[links]`.
    pub(super) name: String,
    pub(super) span: Range<usize>,
    taken: RefCell<Vec<&'static str>>,
}

/// Parses `text`, hands its root table to `read`, and gives what `read` made of it, or every fault.
pub(super) fn read_toml<T>(
    name: &str,
    text: &str,
    read: impl FnOnce(&Section<'_, '_>) -> Option<T>,
) -> Result<T, ConfigError> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut faults = Faults::new(name, text);
    let parses = errors.is_empty();
    for error in errors {
        faults.add(
            error.span().unwrap_or(0..0),
            format!("not TOML: {}", error.message().trim_end()),
            "write `key = value` lines under `[section]` headings (toml.io)",
        );
    }
    if !parses {
        // What a broken line left behind would only give faults that are not there.
        return faults.into_result(None);
    }
    let faults = RefCell::new(faults);
    let section = Section {
        faults: &faults,
        span: 0..0,
        table: root.get_ref(),
        name: "the file".to_owned(),
        taken: RefCell::default(),
    };
    let value = read(&section);
    section.finish();
    faults.into_inner().into_result(value)
}

impl<'t, 'f> Section<'t, 'f> {
    /// Notes a fault.
    pub(super) fn fault(&self, span: Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        self.faults.borrow_mut().add(span, message, advice);
    }

    /// Line (from 1) of a byte of the file.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.faults.borrow().line_and_column(offset).0
    }

    fn take(&self, key: &'static str) -> Option<&'f Spanned<DeValue<'t>>> {
        self.taken.borrow_mut().push(key);
        self.table.get(key)
    }

    /// An integer within `range`.
    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<Placed<u64>> {
        let value = self.take(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .map(|integer| i128::from_str_radix(integer.as_str(), integer.radix()));
        let advice = if *range.end() == u64::MAX {
            format!("write a whole number of at least {}", range.start())
        } else {
            format!("write a whole number from {} to {}", range.start(), range.end())
        };
        let Some(number) = number else {
            self.fault(
                value.span(),
                format!("`{key}` is a {}, not a number", value.get_ref().type_str()),
                advice,
            );
            return None;
        };
        match number.ok().and_then(|number| u64::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Some(Placed {
                value: number,
                span: value.span(),
            }),
            Some(_) | None => {
                self.fault(value.span(), format!("`{key}` is out of range"), advice);
                None
            }
        }
    }

    /// An integer within `range`, or the default where the key is left out.
    pub(super) fn integer_or(&self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        self.integer(key, range).map_or(default, |placed| placed.value)
    }

    /// A string.
    pub(super) fn text(&self, key: &'static str) -> Option<Placed<&'f str>> {
        let value = self.take(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.fault(
                value.span(),
                format!("`{key}` is a {}, not a text", value.get_ref().type_str()),
                format!("write `{key} = \"…\"`"),
            );
            return None;
        };
        Some(Placed {
            value: text,
            span: value.span(),
        })
    }

    /// A string that must be there.
    pub(super) fn required_text(&self, key: &'static str, example: &str) -> Option<Placed<&'f str>> {
        if !self.has(key) {
            self.missing(key, example);
        }
        self.text(key)
    }

    /// `true` or `false`, or the default where the key is left out.
    pub(super) fn flag_or(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.take(key) else {
            return default;
        };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.fault(
                value.span(),
                format!("`{key}` is a {}, not true or false", value.get_ref().type_str()),
                format!("write `{key} = true` or `{key} = false`"),
            );
            default
        })
    }

    /// A string that is one of a few words.
    pub(super) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        self.choose(key, &text, words)
    }

    /// A list of strings, each one of a few words.
    pub(super) fn words<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<Vec<Placed<T>>> {
        let example = words.first().map_or("…", |(word, _)| word);
        let listed = self.list(key, example)?;
        let chosen = listed.iter().filter_map(|text| {
            let value = self.choose(key, text, words)?;
            let span = text.span.clone();
            Some(Placed { value, span })
        });
        Some(chosen.collect())
    }

    /// A list of strings.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<Placed<&'f str>>> {
        self.list(key, "…")
    }

    fn list(&self, key: &'static str, example: &str) -> Option<Vec<Placed<&'f str>>> {
        let value = self.take(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.fault(
                value.span(),
                format!("`{key}` is a {}, not a list", value.get_ref().type_str()),
                format!("write `{key} = [\"{example}\"]`"),
            );
            return None;
        };
        let mut texts = Vec::new();
        for item in list.iter() {
            match item.get_ref().as_str() {
                Some(value) => texts.push(Placed {
                    value,
                    span: item.span(),
                }),
                None => self.fault(
                    item.span(),
                    format!("`{key}` lists a {}, not a text", item.get_ref().type_str()),
                    format!("write `{key} = [\"{example}\"]`"),
                ),
            }
        }
        Some(texts)
    }

    fn choose<T: Copy>(&self, key: &str, text: &Placed<&str>, words: &[(&str, T)]) -> Option<T> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.fault(
            text.span.clone(),
            format!("`{}` is not a `{key}` that exists", text.value),
            suggest(text.value, &names),
        );
        None
    }

    /// A table within this one.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'t, 'f>> {
        let value = self.take(key)?;
        self.open(key, value)
    }

    /// A list of tables, `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'t, 'f>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Some(list) = value.get_ref().as_array() else {
            self.fault(
                value.span(),
                format!("`{key}` is a {}, not a list of tables", value.get_ref().type_str()),
                format!("write one `[[{key}]]` heading for each"),
            );
            return Vec::new();
        };
        list.iter().filter_map(|item| self.open(key, item)).collect()
    }

    fn open(&self, key: &'static str, value: &'f Spanned<DeValue<'t>>) -> Option<Section<'t, 'f>> {
        let Some(table) = value.get_ref().as_table() else {
            self.fault(
                value.span(),
                format!("`{key}` is a {}, not a table", value.get_ref().type_str()),
                format!("write `[{key}]` and its keys on the lines below"),
            );
            return None;
        };
        Some(Section {
            faults: self.faults,
            table,
            name: format!("[{key}]"),
            span: value.span(),
            taken: RefCell::default(),
        })
    }

    /// True where the key is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Notes that a key must be there.
    pub(super) fn missing(&self, key: &str, example: &str) {
        self.fault(
            self.span.clone(),
            format!("{} lacks `{key}`", self.name),
            format!("add `{key} = {example}`"),
        );
    }

    /// Refuses every key that nobody took.
    pub(super) fn finish(&self) {
        let taken = self.taken.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if !taken.contains(&name) {
                self.fault(
                    key.span(),
                    format!("{} has no key `{name}`", self.name),
                    suggest(name, &taken),
                );
            }
        }
    }
}

/// `did you mean …?` where a known word is near, else the words there are.
fn suggest(written: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|word| (edit_distance(written, word), *word))
        .min()
        .filter(|(distance, word)| *distance <= 2.max(word.len() / 3));
    match nearest {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => format!("it must be one of `{}`", known.join("`, `")),
    }
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(text: &str) -> Vec<(usize, usize, String)> {
        let error = read_toml("t.toml", text, |root| {
            let limit = root.integer_or("limit", 1..=10, 5);
            let speed = root.word("speed", &[("slow", 1), ("fast", 2)]);
            let inner = root.section("inner");
            if let Some(inner) = inner {
                inner.required_text("name", "\"x\"");
                inner.finish();
            }
            Some((limit, speed))
        })
        .expect_err("the text is faulty");
        error
            .faults()
            .iter()
            .map(|f| (f.line, f.column, f.to_string()))
            .collect()
    }

    #[test]
    fn every_fault_is_reported_with_its_line_and_column() {
        let faults = faults_of("limit = 11\nspeed = \"fats\"\n[inner]\nnmae = \"a\"\n");
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert_eq!((faults[0].0, faults[0].1), (1, 9));
        assert!(faults[0].2.contains("from 1 to 10"));
        assert_eq!((faults[1].0, faults[1].1), (2, 9));
        assert!(faults[1].2.contains("did you mean `fast`?"));
        assert_eq!(faults[2].0, 3);
        assert!(faults[2].2.contains("lacks `name`"));
        assert_eq!((faults[3].0, faults[3].1), (4, 1));
        assert!(faults[3].2.contains("did you mean `name`?"));
    }

    #[test]
    fn a_far_off_word_gets_the_list_of_words() {
        let faults = faults_of("speed = \"ludicrous\"\n");
        assert!(faults[0].2.contains("one of `slow`, `fast`"), "{faults:?}");
    }

    #[test]
    fn a_negative_number_and_a_broken_line_are_faults_not_panics() {
        assert_eq!(faults_of("limit = -3\n")[0].1, 9);
        assert!(faults_of("limit = \n")[0].2.contains("not TOML"));
    }

    #[test]
    fn underscores_in_numbers_are_read() {
        let read = read_toml("t.toml", "limit = 1_000\n", |root| root.integer("limit", 0..=u64::MAX));
        assert_eq!(read.expect("a right file").value, 1_000);
    }
}
