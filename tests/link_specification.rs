//! Keeps `docs/link-specification.md` true: its tables are what the code says, and its worked examples are what the
//! structs make and what a decoder that knows only the schema reads.
//!
//! After a wanted change of a frame or code, `CLEARWAY_WRITE_DOCS=1 cargo test --test link_specification` writes the
//! parts between the markers again.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytemuck::{Zeroable, bytes_of};
use clearway::domain::{
    BusinessDate, Code, Kind, ParticipantIndex, PaymentId, PaymentState, Retry, Role, SECOND, Scene, SchemeCode,
    WindowId,
};
use clearway::wire::{
    Answer, Establish, EstablishmentAck, FRAME_PREFIX_BYTES, Frame, FrameHeader, Negotiate, NegotiationResponse,
    PaymentBody, PaymentRequest, Regarding, Reply, ReplyBody, ReplyOutcome, StatusRequest, Template, Terminate,
    TerminateCode, decode,
};
use roxmltree::{Document, Node};

const SCHEMA: &str = include_str!("../schema/clearway-sbe.xml");

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

/// 2026-11-23 20:00:00 in Shanghai.
const EVENING_NS: u64 = 1_795_435_200 * SECOND;

fn id() -> PaymentId {
    PaymentId::new(BusinessDate(20_261_123), ParticipantIndex(7), 1, 1_000_001)
}

/// One payment's frames, in the order in which they pass over the links.
fn examples() -> Vec<(&'static str, Template, Vec<u8>)> {
    fn one<F: Frame>(about: &'static str, frame: F) -> (&'static str, Template, Vec<u8>) {
        (about, F::TEMPLATE, bytes_of(&frame.sealed()).to_vec())
    }
    let request = PaymentBody {
        id: id(),
        amount_minor: 8_888,
        currency: 156,
        kind: Kind::Debit as u8,
        scene: Scene::RedPacket as u8,
        responder: ParticipantIndex(120),
        step: 0,
        flags: 0,
        created_ns: EVENING_NS,
        reserved: 0,
        mandate_token: [0x1111_2222_3333_4444, 0x5555_6666_7777_8888],
        account_token: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
        original: PaymentId::default(),
        order_reference: *b"order-0000000042",
    };
    let reply = |regarding: Regarding| ReplyBody {
        id: id(),
        amount_minor: 8_888,
        currency: 156,
        regarding: regarding as u8,
        outcome: ReplyOutcome::Yes as u8,
        code: 0,
        reserved: [0; 3],
        token: [42, 0],
    };
    vec![
        one(
            "The institution opens a session",
            Negotiate {
                session_id: 0x1001,
                timestamp_ns: EVENING_NS,
                code: SchemeCode(*b"Z2007933000010"),
                credential: std::array::from_fn(|i| i as u8),
                ..Negotiate::zeroed()
            },
        ),
        one(
            "It is participant 7, an institution",
            NegotiationResponse {
                session_id: 0x1001,
                timestamp_ns: EVENING_NS,
                participant: ParticipantIndex(7),
                role: Role::Institution as u8,
                ..NegotiationResponse::zeroed()
            },
        ),
        one(
            "It has words up to 41",
            Establish {
                session_id: 0x1001,
                timestamp_ns: EVENING_NS,
                last_word: 41,
                keepalive_ms: 10_000,
                ..Establish::zeroed()
            },
        ),
        one(
            "The next new word is 42, it may have 64 payments in flight",
            EstablishmentAck {
                session_id: 0x1001,
                timestamp_ns: EVENING_NS,
                next_word: 42,
                keepalive_ms: 10_000,
                credit_in_flight: 64,
                ..EstablishmentAck::zeroed()
            },
        ),
        one(
            "A red packet of 88.88 yuan; the bank gets the same bytes",
            PaymentRequest {
                header: FrameHeader::zeroed(),
                body: request,
            },
        ),
        one(
            "The bank says yes",
            Reply {
                header: FrameHeader::zeroed(),
                body: reply(Regarding::Request),
            },
        ),
        one(
            "Word 42: committed in window W202611230003",
            Answer {
                id: id(),
                word: 42,
                amount_minor: 8_888,
                window: WindowId::new(BusinessDate(20_261_123), 3),
                final_ns: EVENING_NS + 250_000,
                currency: 156,
                responder: ParticipantIndex(120),
                kind: Kind::Debit as u8,
                code: Code::Committed as u8,
                state: PaymentState::Committed as u8,
                ..Answer::zeroed()
            },
        ),
        one(
            "Had the bank been silent past T1: what became of it?",
            StatusRequest {
                id: id(),
                amount_minor: 8_888,
                currency: 156,
                kind: Kind::Debit as u8,
                attempt: 1,
                initiator: ParticipantIndex(7),
                accepted_ns: EVENING_NS,
                ..StatusRequest::zeroed()
            },
        ),
        one(
            "And its reply to that",
            Reply {
                header: FrameHeader::zeroed(),
                body: reply(Regarding::Status),
            },
        ),
        one(
            "The institution ends the session",
            Terminate {
                session_id: 0x1001,
                code: TerminateCode::Finished as u8,
                ..Terminate::zeroed()
            },
        ),
    ]
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

// ---- a decoder that knows the schema and nothing else ------------------------------------------------------------

struct ReadField {
    name: String,
    at: usize,
    value: String,
}

fn message<'a>(document: &'a Document<'a>, id: u16) -> Node<'a, 'a> {
    let is_it = |node: &Node<'_, '_>| {
        node.tag_name().name() == "message" && node.attribute("id") == Some(id.to_string().as_str())
    };
    document
        .root_element()
        .children()
        .find(is_it)
        .expect("the schema has the message")
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Reads a frame by the schema; padding, which is zero, is left out.
fn read_by_schema(frame: &[u8]) -> Vec<ReadField> {
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

fn length(type_node: Node<'_, '_>) -> usize {
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
fn crc(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 }
        })
    })
}

// ---- the claims --------------------------------------------------------------------------------------------------

#[test]
fn the_document_is_what_the_code_says() {
    check("frames", &frames_table());
    check("terminate codes", &terminate_codes_table());
    check("codes", &codes_table());
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
    assert_eq!(examples.len(), self::examples().len());
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
