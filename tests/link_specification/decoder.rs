//! A decoder that knows the schema and nothing else, and a CRC from the text of the specification.

use clearway::wire::FRAME_PREFIX_BYTES;
use roxmltree::{Document, Node};

use crate::SCHEMA;

pub(crate) struct ReadField {
    pub(crate) name: String,
    pub(crate) at: usize,
    pub(crate) value: String,
}

pub(crate) fn message<'a>(document: &'a Document<'a>, id: u16) -> Node<'a, 'a> {
    let is_it = |node: &Node<'_, '_>| {
        node.tag_name().name() == "message" && node.attribute("id") == Some(id.to_string().as_str())
    };
    document
        .root_element()
        .children()
        .find(is_it)
        .expect("the schema has the message")
}

pub(crate) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Reads a frame by the schema; padding, which is zero, is left out.
pub(crate) fn read_by_schema(frame: &[u8]) -> Vec<ReadField> {
    let document = Document::parse(SCHEMA).expect("the schema is XML");
    let template = little_endian(&frame[6..8]) as u16;
    let is_field = |node: &Node<'_, '_>| node.has_tag_name("field");
    let mut read = Vec::new();
    for field in message(&document, template).children().filter(is_field) {
        let attribute = |name: &str| {
            field
                .attribute(name)
                .unwrap_or_else(|| panic!("{field:?} has no {name}"))
        };
        let at = FRAME_PREFIX_BYTES + attribute("offset").parse::<usize>().expect("an offset is a number");
        let type_node = document
            .descendants()
            .find(|node| {
                node.attribute("name") == Some(attribute("type"))
                    && node.parent().is_some_and(|parent| parent.has_tag_name("types"))
            })
            .expect("the type is declared");
        if attribute("type").starts_with("Reserved") {
            assert!(
                frame[at..].iter().take(length(type_node)).all(|&byte| byte == 0),
                "padding is zero"
            );
            continue;
        }
        read.push(ReadField {
            name: attribute("name").to_owned(),
            at,
            value: value(type_node, &frame[at..at + length(type_node)]),
        });
    }
    read
}

pub(crate) fn length(type_node: Node<'_, '_>) -> usize {
    let primitive = |name: &str| match name {
        "uint8" | "char" => 1,
        "uint16" => 2,
        "uint32" => 4,
        "uint64" => 8,
        other => panic!("{other} is not used by this schema"),
    };
    match type_node.tag_name().name() {
        "composite" => type_node.children().filter(Node::is_element).map(length).sum(),
        "enum" | "set" => primitive(type_node.attribute("encodingType").expect("it has an encoding")),
        _ => {
            let count = type_node
                .attribute("length")
                .map_or(1, |n| n.parse().expect("a length is a number"));
            primitive(type_node.attribute("primitiveType").expect("it has a primitive type")) * count
        }
    }
}

fn value(type_node: Node<'_, '_>, bytes: &[u8]) -> String {
    let name = type_node.attribute("name").unwrap_or_default();
    match type_node.tag_name().name() {
        "composite" => {
            let (first, second) = bytes.split_at(8);
            format!("{:#x}, {:#x}", little_endian(first), little_endian(second))
        }
        "enum" => {
            let number = little_endian(bytes).to_string();
            let known = type_node.children().find(|value| value.text() == Some(number.as_str()));
            let known = known
                .and_then(|value| value.attribute("name"))
                .expect("the value is one of the enum's");
            format!("{number} ({known})")
        }
        _ if type_node.attribute("primitiveType") == Some("char") => String::from_utf8_lossy(bytes).into_owned(),
        _ if bytes.len() > 8 => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ if name == "Crc32c" => format!("{:#010x}", little_endian(bytes)),
        _ => little_endian(bytes).to_string(),
    }
}

/// CRC-32C bit by bit, from the text of the specification.
pub(crate) fn crc(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 }
        })
    })
}
