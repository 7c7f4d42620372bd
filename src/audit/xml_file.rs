//! Reading an XML file by the names of its elements.

use std::path::Path;

use roxmltree::{Document, Node};

use crate::domain::{Currency, Position};

/// An element of a document that was read.
#[derive(Clone, Copy)]
pub(super) struct Element<'a>(Node<'a, 'a>);

/// Reads a file and lets `look` see its document; `Err(None)` where there is no such file.
pub(super) fn read(path: &Path, look: impl FnOnce(&Element<'_>)) -> Result<(), Option<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let is_missing = error.kind() == std::io::ErrorKind::NotFound;
        (!is_missing).then(|| format!("can't be read: {error}"))
    })?;
    let document = Document::parse(&text).map_err(|error| Some(format!("is no XML: {error}")))?;
    look(&Element(document.root()));
    Ok(())
}

impl<'a> Element<'a> {
    /// All elements of this name, at whatever depth.
    pub(super) fn below(&self, name: &str) -> Vec<Self> {
        let found = self.0.descendants().filter(|node| node.tag_name().name() == name);
        found.map(Self).collect()
    }

    /// The elements that a path of names leads to: `Stmt/Ntry`.
    pub(super) fn path(&self, path: &str) -> Vec<Self> {
        path.split('/').fold(vec![*self], |at, name| {
            let children = at.iter().flat_map(|element| element.0.children());
            children
                .filter(|child| child.tag_name().name() == name)
                .map(Self)
                .collect()
        })
    }

    /// The text of the first element that a path leads to; empty where there is none.
    pub(super) fn text(&self, path: &str) -> String {
        let found = self.path(path);
        let text = found.first().and_then(|element| element.0.text());
        text.unwrap_or_default().trim().to_owned()
    }

    /// The values of this attribute, wherever it stands.
    pub(super) fn all_with_attribute(&self, name: &str) -> Vec<String> {
        let values = self.0.descendants().filter_map(|node| node.attribute(name));
        values.map(str::to_owned).collect()
    }

    /// Its own text.
    pub(super) fn own_text(&self) -> String {
        self.0.text().unwrap_or_default().trim().to_owned()
    }
}

/// A sum without a sign, with as many digits behind the point as its currency has.
pub(super) fn decimal(minor: Position, currency: Currency) -> String {
    let (digits, minor) = (currency.minor_digits(), minor.unsigned_abs());
    let unit = 10_u128.pow(digits as u32);
    match digits {
        0 => minor.to_string(),
        _ => format!("{}.{:0digits$}", minor / unit, minor % unit),
    }
}
