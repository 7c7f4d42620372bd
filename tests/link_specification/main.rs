//! Keeps `docs/link-specification.md` true: its tables are what the code says, and its worked examples are what the
//! structs make and what a decoder that knows only the schema reads.
//!
//! After a wanted change of a frame or code, `CLEARWAY_WRITE_DOCS=1 cargo test --test link_specification` writes the
//! parts between the markers again.

mod decoder;
mod examples;

use std::fmt::Write as _;
use std::path::PathBuf;

use clearway::domain::{Code, Retry};
use clearway::wire::{FRAME_PREFIX_BYTES, Template, TerminateCode, decode};
use roxmltree::{Document, Node};

use crate::decoder::{crc, length, little_endian, message, read_by_schema};
use crate::examples::examples;

const SCHEMA: &str = include_str!("../../schema/clearway-sbe.xml");

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/link-specification.md")
}

fn document() -> String {
    std::fs::read_to_string(path()).expect("the link specification is in docs/")
}

/// The text between a part's markers.
fn part<'a>(document: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let from = document.find(&begin).unwrap_or_else(|| panic!("no marker {begin}")) + begin.len();
    let to = document.find(&end).unwrap_or_else(|| panic!("no marker {end}"));
    &document[from..to]
}

/// Holds a part of the document against what it should be, or writes it.
fn check(name: &str, expected: &str) {
    let document = document();
    let expected = format!("\n{expected}\n");
    if std::env::var_os("CLEARWAY_WRITE_DOCS").is_some() {
        let marker = format!("<!-- {name}: begin -->\n");
        let written = document.replace(
            &format!("{marker}{}", part(&document, name)),
            &format!("{marker}{expected}"),
        );
        std::fs::write(path(), written).expect("docs/ can be written");
        return;
    }
    assert_eq!(part(&document, name), expected, "{name} in docs/link-specification.md");
}

fn frames_table() -> String {
    let mut table = String::from("| id | message | bytes | |\n|---|---|---|---|\n");
    let document = Document::parse(SCHEMA).expect("the schema is XML");
    for &template in Template::ALL {
        let message = message(&document, template as u16);
        let about = message.attribute("description").unwrap_or_default();
        let _ = writeln!(
            table,
            "| {} | {template:?} | {} | {about} |",
            template as u16,
            template.length()
        );
    }
    table
}

fn codes_table() -> String {
    let mut table = String::from("| code | meaning | ISO 8583 | ISO 20022 | a retry |\n|---|---|---|---|---|\n");
    for &code in Code::ALL {
        let retry = match code.retry() {
            Retry::Done => "is not needed",
            Retry::SameId => "keeps the id",
            Retry::NewId => "takes a new id",
            Retry::Pointless => "is pointless",
        };
        let _ = writeln!(
            table,
            "| {:02} | {} | {} | {} | {retry} |",
            code as u8,
            code.meaning(),
            code.iso8583(),
            code.iso20022().unwrap_or("–"),
        );
    }
    table
}

fn terminate_codes_table() -> String {
    let mut table = String::from("| terminate code | name | meaning |\n|---|---|---|\n");
    for &code in TerminateCode::ALL {
        let _ = writeln!(table, "| {} | {code:?} | {} |", code as u8, code.text());
    }
    table
}

/// The node of the schema that declares a type.
fn declared<'a>(document: &'a Document<'a>, name: &str) -> Node<'a, 'a> {
    document
        .descendants()
        .find(|node| {
            node.attribute("name") == Some(name) && node.parent().is_some_and(|parent| parent.has_tag_name("types"))
        })
        .unwrap_or_else(|| panic!("the schema does not declare {name}"))
}

/// Every frame byte by byte, from the schema.
fn layouts_text() -> String {
    let document = Document::parse(SCHEMA).expect("the schema is XML");
    let mut text = String::new();
    for &template in Template::ALL {
        let message = message(&document, template as u16);
        let about = message.attribute("description").unwrap_or_default();
        let _ = writeln!(
            text,
            "### {template:?} (template {}, {} bytes)\n\n{about}.\n\n| bytes | field | type | |\n|---|---|---|---|\n\
             | 0–11 | | | framing and message header |",
            template as u16,
            template.length()
        );
        let mut next = FRAME_PREFIX_BYTES;
        for field in message.children().filter(|node| node.has_tag_name("field")) {
            let of = |name: &str| field.attribute(name).unwrap_or_default();
            let declared = declared(&document, of("type"));
            let at = FRAME_PREFIX_BYTES + of("offset").parse::<usize>().expect("an offset is a number");
            assert_eq!(at, next, "{template:?} has a gap before {}", of("name"));
            next = at + length(declared);
            if of("type").starts_with("Reserved") {
                let _ = writeln!(text, "| {at}–{} | *zero* | | |", next - 1);
                continue;
            }
            let about = match of("description") {
                "" => declared.attribute("description").unwrap_or_default(),
                about => about,
            };
            let (name, kind) = (of("name"), type_text(declared));
            let bytes = if next == at + 1 {
                format!("{at}")
            } else {
                format!("{at}–{}", next - 1)
            };
            let _ = writeln!(text, "| {bytes} | `{name}` | {kind} | {about} |");
        }
        assert_eq!(next, template.length(), "{template:?} is laid out to its end");
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A type as the layouts name it.
fn type_text(declared: Node<'_, '_>) -> String {
    let name = declared.attribute("name").unwrap_or_default();
    match declared.tag_name().name() {
        "composite" => format!("{name}: u64, u64"),
        "enum" | "set" => format!("{name} u8"),
        _ => {
            let primitive = declared.attribute("primitiveType").unwrap_or_default();
            let short = match primitive {
                "char" => "char".to_owned(),
                other => other.replace("uint", "u"),
            };
            declared
                .attribute("length")
                .map_or(short.clone(), |count| format!("{short}[{count}]"))
        }
    }
}

/// What the numbers of the enumerations and the bits of the sets mean; codes have tables of their own.
fn values_text() -> String {
    let document = Document::parse(SCHEMA).expect("the schema is XML");
    let mut text = String::from("| type | number | name | |\n|---|---|---|---|\n");
    for node in document.descendants() {
        let name = node.attribute("name").unwrap_or_default();
        let is_listed = match node.tag_name().name() {
            "enum" => !matches!(name, "Code" | "TerminateCode"),
            "set" => true,
            _ => false,
        };
        if !is_listed {
            continue;
        }
        let is_set = node.has_tag_name("set");
        for value in node.children().filter(Node::is_element) {
            let number = value.text().unwrap_or_default();
            let number = if is_set {
                format!("bit {number}")
            } else {
                number.to_owned()
            };
            let _ = writeln!(
                text,
                "| {name} | {number} | {} | {} |",
                value.attribute("name").unwrap_or_default(),
                value.attribute("description").unwrap_or_default()
            );
        }
    }
    text
}

fn examples_text() -> String {
    let mut text = String::new();
    for (about, template, bytes) in examples() {
        let _ = writeln!(text, "### {about}: {template:?}\n\n```text");
        for (row, line) in bytes.chunks(16).enumerate() {
            let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "{:3}  {}", 16 * row, hex.join(" "));
        }
        let _ = writeln!(text, "```\n\n| field | at | value |\n|---|---|---|");
        for field in read_by_schema(&bytes) {
            let _ = writeln!(text, "| {} | {} | {} |", field.name, field.at, field.value);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

// ---- the claims --------------------------------------------------------------------------------------------------

#[test]
fn the_document_is_what_the_code_says() {
    check("frames", &frames_table());
    check("terminate codes", &terminate_codes_table());
    check("codes", &codes_table());
    check("layouts", &layouts_text());
    check("values", &values_text());
    check("examples", &examples_text());
}

/// The bytes of the document's own examples, with the message each is said to be.
fn examples_in_the_document() -> Vec<(String, Vec<u8>)> {
    let document = document();
    let mut found = Vec::new();
    for section in part(&document, "examples").split("### ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let message = title.rsplit(": ").next().unwrap_or_default().to_owned();
        let block = section.split("```").nth(1).expect("an example has bytes");
        let rows = block.lines().skip(1).filter(|line| !line.trim().is_empty());
        let bytes = rows.flat_map(|row| {
            let hex = row.split_whitespace().skip(1);
            hex.map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        });
        found.push((message, bytes.collect()));
    }
    found
}

#[test]
fn the_switch_accepts_every_example_of_the_document() {
    let examples = examples_in_the_document();
    assert_eq!(examples.len(), self::examples::examples().len());
    for (message, bytes) in examples {
        let (template, length) = decode(&bytes).expect("it is a frame").expect("it is whole");
        assert_eq!((format!("{template:?}"), length), (message, bytes.len()));
    }
}

#[test]
fn every_examples_crc_is_the_one_the_document_describes() {
    assert_eq!(crc(b"123456789".iter().copied()), 0xE306_9283);
    let examples = examples_in_the_document();
    assert!(!examples.is_empty());
    for (message, bytes) in examples {
        let covered = bytes[..12].iter().chain(&bytes[16..]);
        assert_eq!(
            u64::from(crc(covered.copied())),
            little_endian(&bytes[12..16]),
            "{message}"
        );
    }
}
