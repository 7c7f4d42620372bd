//! What is wrong with a configuration file, where, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read at all.
    #[error("{}: {error}; {advice}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
        /// What would be right.
        advice: String,
    },
    /// The file was read and is wrong; every fault in it is listed.
    #[error(transparent)]
    Faulty(#[from] FaultyFile),
    /// Files that are right by themselves do not fit each other.
    #[error("{0}")]
    Unfit(String),
}

impl ConfigError {
    /// The error as it is printed once, at the edge: each fault with its file, line, column, the line itself and what
    /// would be right.
    #[must_use]
    pub fn render(&self) -> String {
        match self {
            Self::Faulty(faulty) => faulty.render(),
            Self::Unreadable { .. } | Self::Unfit(_) => format!("error: {self}\n"),
        }
    }

    /// The faults of a file that was read; none otherwise.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        match self {
            Self::Faulty(faulty) => &faulty.faults,
            Self::Unreadable { .. } | Self::Unfit(_) => &[],
        }
    }
}

/// One fault in a file.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub advice: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    span: SourceSpan,
}

/// A file with at least one fault.
#[derive(Debug)]
pub struct FaultyFile {
    name: String,
    source: NamedSource<Arc<String>>,
    faults: Vec<Fault>,
}

impl FaultyFile {
    fn render(&self) -> String {
        let handler = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            miette::GraphicalReportHandler::new()
        } else {
            miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor()).with_width(100)
        };
        let mut out = String::new();
        for fault in &self.faults {
            let shown = FaultInFile { fault, file: self };
            if handler.render_report(&mut out, &shown).is_err() {
                out.push_str(&format!("{}:{}:{}: {fault}\n", self.name, fault.line, fault.column));
            }
        }
        out.push_str(&format!(
            "{}: {} to correct\n",
            self.name,
            count(self.faults.len(), "fault")
        ));
        out
    }
}

impl std::error::Error for FaultyFile {}

impl fmt::Display for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: {fault}", self.name, fault.line, fault.column)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.advice)
    }
}

/// A fault together with the text it lies in, as the report prints it.
#[derive(Debug)]
struct FaultInFile<'a> {
    fault: &'a Fault,
    file: &'a FaultyFile,
}

impl fmt::Display for FaultInFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault.message)
    }
}

impl std::error::Error for FaultInFile<'_> {}

impl Diagnostic for FaultInFile<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.fault.advice))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.file.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(LabeledSpan::underline(self.fault.span))))
    }
}

/// Collects the faults of one file while it is read, so that all are reported, not only the first.
#[derive(Debug)]
pub(super) struct Faults<'t> {
    name: String,
    text: &'t str,
    faults: Vec<Fault>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(name: &str, text: &'t str) -> Self {
        Self {
            name: name.to_owned(),
            text,
            faults: Vec::new(),
        }
    }

    /// Notes a fault at a byte range of the text.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>, advice: impl Into<String>) {
        let (line, column) = self.line_and_column(span.start);
        self.faults.push(Fault {
            message: message.into(),
            advice: advice.into(),
            line,
            column,
            span: SourceSpan::from(span),
        });
    }

    /// Line and column (from 1) of a byte of the text.
    pub(super) fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    /// `value` if nothing was wrong; else all that was, in the order of the file.
    pub(super) fn into_result<T>(mut self, value: Option<T>) -> Result<T, ConfigError> {
        if let (Some(value), true) = (value, self.faults.is_empty()) {
            return Ok(value);
        }
        assert!(!self.faults.is_empty(), "a file without faults must give a value");
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        Err(ConfigError::Faulty(FaultyFile {
            source: NamedSource::new(&self.name, Arc::new(self.text.to_owned())),
            name: self.name,
            faults: self.faults,
        }))
    }
}

/// Reads a file, or says what would be right.
pub(super) fn read_file(path: &Path, advice: impl Into<String>) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        advice: advice.into(),
        error,
    })
}

/// `1 fault`, `2 faults`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
