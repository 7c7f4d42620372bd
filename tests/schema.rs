//! Holds `schema/clearway-sbe.xml` against the switch's own structs, so that neither can drift: a bank's generated codec
//! and ours mean the same by the same bytes.

use std::collections::BTreeMap;
use std::mem::offset_of;

use clearway::domain::{BindStep, Code, Kind, PaymentState, Role, Scene};
use clearway::wire::{
    self, Answer, Credit, ENCODING, Establish, EstablishmentAck, EstablishmentReject, FRAME_PREFIX_BYTES, FinalNotice,
    Frame, FrameHeader, Inquiry, InquiryAnswer, Negotiate, NegotiationReject, NegotiationResponse, PaymentBody,
    PaymentRequest, Regarding, Reply, ReplyBody, ReplyOutcome, Retransmission, RetransmitRequest, Reversal, Sequence,
    StatusRequest, Template, Terminate, TerminateCode,
};
use roxmltree::{Document, Node};

const SCHEMA: &str = include_str!("../schema/clearway-sbe.xml");

/// A field of a Rust struct: name, offset, size and type.
#[derive(Debug)]
struct Field {
    name: &'static str,
    offset: usize,
    size: usize,
    rust_type: &'static str,
}

fn measured<S, F>(name: &'static str, offset: usize, _: impl Fn(&S) -> &F) -> Field {
    Field {
        name,
        offset,
        size: size_of::<F>(),
        rust_type: std::any::type_name::<F>(),
    }
}

macro_rules! fields {
    ($struct:ty: $($field:ident),+) => {
        vec![$(measured(stringify!($field), offset_of!($struct, $field), |s: &$struct| &s.$field)),+]
    };
}

/// The fields after the frame header of every template's struct.
fn fields_of(template: Template) -> Vec<Field> {
    let after_header = |body: Vec<Field>| -> Vec<Field> {
        let header = size_of::<FrameHeader>();
        body.into_iter()
            .map(|f| Field {
                offset: f.offset + header,
                ..f
            })
            .collect()
    };
    match template {
        Template::Negotiate => fields!(Negotiate: session_id, timestamp_ns, code, reserved, credential),
        Template::NegotiationResponse => {
            fields!(NegotiationResponse: session_id, timestamp_ns, participant, role, reserved)
        }
        Template::NegotiationReject => fields!(NegotiationReject: session_id, code, reserved),
        Template::Establish => fields!(Establish: session_id, timestamp_ns, last_word, keepalive_ms, credit_in_flight,
            credit_per_second, reserved),
        Template::EstablishmentAck => fields!(EstablishmentAck: session_id, timestamp_ns, next_word, keepalive_ms,
            credit_in_flight, credit_per_second, reserved),
        Template::EstablishmentReject => fields!(EstablishmentReject: session_id, code, reserved),
        Template::Sequence => fields!(Sequence: next_word, reserved),
        Template::RetransmitRequest => fields!(RetransmitRequest: from_word, count, reserved),
        Template::Retransmission => fields!(Retransmission: from_word, count, reserved),
        Template::Terminate => fields!(Terminate: session_id, code, reserved),
        Template::Credit => fields!(Credit: in_flight, per_second, reserved),
        Template::PaymentRequest => {
            assert_eq!(offset_of!(PaymentRequest, body), size_of::<FrameHeader>());
            after_header(
                fields!(PaymentBody: id, amount_minor, currency, kind, scene, responder, step, flags,
                created_ns, reserved, mandate_token, account_token, original, order_reference),
            )
        }
        Template::Reply => {
            assert_eq!(offset_of!(Reply, body), size_of::<FrameHeader>());
            after_header(fields!(ReplyBody: id, amount_minor, currency, regarding, outcome, code, reserved, token))
        }
        Template::Answer => fields!(Answer: id, word, amount_minor, window, final_ns, mandate_token, currency,
            responder, kind, code, state, flags, reserved),
        Template::StatusRequest => fields!(StatusRequest: id, amount_minor, currency, kind, attempt, initiator,
            reserved, accepted_ns, reserved2),
        Template::Reversal => fields!(Reversal: id, word, amount_minor, currency, kind, attempt, initiator, flags,
            reserved, raised_ns, reserved2),
        Template::FinalNotice => fields!(FinalNotice: id, word, amount_minor, window, final_ns, currency, kind, code,
            state, flags, initiator, reserved),
        Template::Inquiry => fields!(Inquiry: id, reference, reserved),
        Template::InquiryAnswer => fields!(InquiryAnswer: id, reference, amount_minor, window, final_ns, currency,
            kind, code, state, reserved),
    }
}

/// The size of a template's struct.
fn struct_size(template: Template) -> usize {
    fn of<F: Frame>(template: Template) -> usize {
        assert_eq!(F::TEMPLATE, template);
        size_of::<F>()
    }
    match template {
        Template::Negotiate => of::<Negotiate>(template),
        Template::NegotiationResponse => of::<NegotiationResponse>(template),
        Template::NegotiationReject => of::<NegotiationReject>(template),
        Template::Establish => of::<Establish>(template),
        Template::EstablishmentAck => of::<EstablishmentAck>(template),
        Template::EstablishmentReject => of::<EstablishmentReject>(template),
        Template::Sequence => of::<Sequence>(template),
        Template::RetransmitRequest => of::<RetransmitRequest>(template),
        Template::Retransmission => of::<Retransmission>(template),
        Template::Terminate => of::<Terminate>(template),
        Template::Credit => of::<Credit>(template),
        Template::PaymentRequest => of::<PaymentRequest>(template),
        Template::Reply => of::<Reply>(template),
        Template::Answer => of::<Answer>(template),
        Template::StatusRequest => of::<StatusRequest>(template),
        Template::Reversal => of::<Reversal>(template),
        Template::FinalNotice => of::<FinalNotice>(template),
        Template::Inquiry => of::<Inquiry>(template),
        Template::InquiryAnswer => of::<InquiryAnswer>(template),
    }
}

/// The schema type a field must have, so that a number is never read as the wrong enumeration.
fn schema_type(template: Template, field: &Field) -> String {
    let session = matches!(
        template,
        Template::NegotiationReject | Template::EstablishmentReject | Template::Terminate
    );
    let name = match field.name {
        name if name.starts_with("reserved") => return format!("Reserved{}", field.size),
        "code" if template == Template::Negotiate => "SchemeCode",
        "code" if session => "TerminateCode",
        "code" => "Code",
        "kind" => "Kind",
        "scene" => "Scene",
        "step" => "BindStep",
        "state" => "PaymentState",
        "regarding" => "Regarding",
        "outcome" => "ReplyOutcome",
        "role" => "Role",
        "flags" if template == Template::PaymentRequest => "RequestFlags",
        "flags" => "AnswerFlags",
        "id" | "original" => "PaymentId",
        "window" => "WindowId",
        "amount_minor" => "AmountMinor",
        "currency" => "Currency",
        "participant" | "responder" | "initiator" => "ParticipantIndex",
        "word" | "next_word" | "last_word" | "from_word" => "Word",
        "session_id" => "SessionId",
        "reference" => "Reference",
        "attempt" => "Attempt",
        "keepalive_ms" => "Milliseconds",
        "count" | "credit_in_flight" | "credit_per_second" | "in_flight" | "per_second" => "Count",
        "credential" => "Credential",
        "order_reference" => "OrderReference",
        "token" | "mandate_token" | "account_token" => "Token",
        name if name.ends_with("_ns") => "UtcNanos",
        name => panic!("{template:?}.{name}: say here which schema type it has"),
    };
    name.to_owned()
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + &part[..1].to_uppercase() + &part[1..])
}

fn primitive_size(name: &str) -> usize {
    match name {
        "char" | "uint8" => 1,
        "uint16" => 2,
        "uint32" => 4,
        "uint64" => 8,
        other => panic!("primitive type {other} is not used by this schema"),
    }
}

fn number(node: Node<'_, '_>, attribute: &str) -> usize {
    let text = node
        .attribute(attribute)
        .unwrap_or_else(|| panic!("{node:?} has no {attribute}"));
    text.parse()
        .unwrap_or_else(|_| panic!("{attribute}={text} is no number"))
}

fn name<'a>(node: Node<'a, '_>) -> &'a str {
    node.attribute("name").unwrap_or_else(|| panic!("{node:?} has no name"))
}

/// A type element's encoding: its size in bytes and the primitive types it is made of.
fn encoding<'a>(node: Node<'a, '_>) -> (usize, Vec<&'a str>) {
    match node.tag_name().name() {
        "type" => {
            let primitive = node.attribute("primitiveType").expect("a type has a primitiveType");
            let length = node.attribute("length").map_or(1, |_| number(node, "length"));
            (primitive_size(primitive) * length, vec![primitive; length])
        }
        "enum" | "set" => {
            let primitive = node.attribute("encodingType").expect("an enum has an encodingType");
            (primitive_size(primitive), vec![primitive])
        }
        "composite" => node.children().filter(Node::is_element).map(encoding).fold(
            (0, Vec::new()),
            |(size, mut all), (more, primitives)| {
                all.extend(primitives);
                (size + more, all)
            },
        ),
        other => panic!("element {other} has no place among the types"),
    }
}

/// What a Rust field's type is made of.
fn primitives_of(field: &Field) -> Vec<&'static str> {
    let short = field.rust_type.rsplit("::").next().unwrap_or_default();
    match short {
        "u8" => vec!["uint8"],
        "u16" | "ParticipantIndex" => vec!["uint16"],
        "u32" => vec!["uint32"],
        "u64" | "WindowId" => vec!["uint64"],
        "PaymentId" | "[u64; 2]" => vec!["uint64"; 2],
        "SchemeCode" => vec!["char"; 14],
        array if array.starts_with("[u8; ") => vec!["uint8"; field.size],
        other => panic!("{}: {other} is made of what?", field.name),
    }
}

fn types<'a>(document: &'a Document<'a>) -> BTreeMap<&'a str, Node<'a, 'a>> {
    let types = document
        .root_element()
        .children()
        .find(|node| node.has_tag_name("types"))
        .expect("the schema has types");
    types
        .children()
        .filter(Node::is_element)
        .map(|node| (name(node), node))
        .collect()
}

fn messages<'a>(document: &'a Document<'a>) -> Vec<Node<'a, 'a>> {
    let is_message = |node: &Node<'_, '_>| node.tag_name().name() == "message";
    document.root_element().children().filter(is_message).collect()
}

/// Where the schema and the structs differ; empty = nowhere.
fn differences(schema: &str) -> Vec<String> {
    let document = Document::parse(schema).expect("the schema is XML");
    let root = document.root_element();
    let mut found = Vec::new();
    let mut expect = |what: String, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{what}: {ours} in the switch, {theirs} in the schema"));
        }
    };
    expect(
        "schema id".into(),
        wire::SCHEMA_ID.to_string(),
        number(root, "id").to_string(),
    );
    expect(
        "schema version".into(),
        wire::SCHEMA_VERSION.to_string(),
        number(root, "version").to_string(),
    );
    expect(
        "byte order".into(),
        "littleEndian".into(),
        root.attribute("byteOrder").unwrap_or("none").into(),
    );
    let types = types(&document);
    let prefix = encoding(types["framingHeader"]).0 + encoding(types["messageHeader"]).0;
    expect(
        "bytes before the block".into(),
        FRAME_PREFIX_BYTES.to_string(),
        prefix.to_string(),
    );

    let messages = messages(&document);
    expect(
        "messages".into(),
        Template::ALL.len().to_string(),
        messages.len().to_string(),
    );
    for (&template, &message) in Template::ALL.iter().zip(&messages) {
        let of = |what: &str| format!("{template:?} {what}");
        expect(of("name"), format!("{template:?}"), name(message).into());
        expect(
            of("id"),
            (template as u16).to_string(),
            number(message, "id").to_string(),
        );
        expect(
            of("block length"),
            (struct_size(template) - FRAME_PREFIX_BYTES).to_string(),
            number(message, "blockLength").to_string(),
        );
        let fields: Vec<_> = message.children().filter(|node| node.has_tag_name("field")).collect();
        let crc = Field {
            name: "crc",
            offset: offset_of!(FrameHeader, crc),
            size: 4,
            rust_type: "u32",
        };
        let ours: Vec<_> = std::iter::once(crc).chain(fields_of(template)).collect();
        expect(of("fields"), ours.len().to_string(), fields.len().to_string());
        let mut end = FRAME_PREFIX_BYTES;
        for (at, (field, &node)) in ours.iter().zip(&fields).enumerate() {
            let of = |what: &str| format!("{template:?}.{} {what}", field.name);
            assert_eq!(
                field.offset,
                end,
                "{}: a field of the struct is missing in this test",
                of("offset")
            );
            end += field.size;
            expect(of("name"), camel_case(field.name), name(node).into());
            expect(of("id"), (at + 1).to_string(), number(node, "id").to_string());
            expect(
                of("offset"),
                field.offset.to_string(),
                (number(node, "offset") + FRAME_PREFIX_BYTES).to_string(),
            );
            let type_name = node.attribute("type").unwrap_or("none");
            let wanted = if at == 0 {
                "Crc32c".to_owned()
            } else {
                schema_type(template, field)
            };
            expect(of("type"), wanted, type_name.into());
            let Some(&type_node) = types.get(type_name) else {
                expect(of("type"), "a declared one".into(), type_name.into());
                continue;
            };
            let (size, primitives) = encoding(type_node);
            expect(of("size"), field.size.to_string(), size.to_string());
            if !field.name.starts_with("reserved") {
                expect(
                    of("encoding"),
                    format!("{:?}", primitives_of(field)),
                    format!("{primitives:?}"),
                );
            }
        }
        assert_eq!(
            end,
            struct_size(template),
            "{template:?}: a field at the end is missing in this test"
        );
    }
    for (name, ours) in enumerations() {
        let theirs: BTreeMap<usize, String> = types[name]
            .children()
            .filter(Node::is_element)
            .map(|value| {
                let text = value.text().unwrap_or_default().trim();
                (text.parse().expect("a value is a number"), self::name(value).to_owned())
            })
            .collect();
        expect(name.into(), format!("{ours:?}"), format!("{theirs:?}"));
    }
    found
}

/// Every enumeration and set of the schema with its values by number (a set's: by bit).
fn enumerations() -> Vec<(&'static str, BTreeMap<usize, String>)> {
    /// All values that the reader of a number knows.
    fn of<T: std::fmt::Debug>(read: impl Fn(u8) -> Option<T>) -> BTreeMap<usize, String> {
        (0..=u8::MAX)
            .filter_map(|n| read(n).map(|value| (usize::from(n), format!("{value:?}"))))
            .collect()
    }
    let bit = |mask: u8, name: &str| (mask.trailing_zeros() as usize, name.to_owned());
    // 0 stands for "not in the ledger" on the link; the ledger itself has no such state.
    let mut states = of(PaymentState::from_u8);
    assert_eq!(states.insert(0, "NoState".into()), None);
    vec![
        ("Kind", of(Kind::from_u8)),
        ("Scene", of(Scene::from_u8)),
        ("BindStep", of(BindStep::from_u8)),
        ("PaymentState", states),
        ("Role", of(Role::from_u8)),
        ("Regarding", of(Regarding::from_u8)),
        ("ReplyOutcome", of(ReplyOutcome::from_u8)),
        ("Code", of(Code::from_u8)),
        ("TerminateCode", of(TerminateCode::from_u8)),
        (
            "RequestFlags",
            [bit(wire::RequestFlags::POSSIBLE_RESEND, "PossibleResend")].into(),
        ),
        (
            "AnswerFlags",
            [
                bit(wire::AnswerFlags::DUPLICATE, "Duplicate"),
                bit(wire::AnswerFlags::RETRANSMITTED, "Retransmitted"),
            ]
            .into(),
        ),
    ]
}

#[test]
fn the_schema_and_the_structs_are_the_same() {
    assert_eq!(differences(SCHEMA), Vec::<String>::new());
}

#[test]
fn a_schema_that_drifted_is_found() {
    for (from, to) in [
        (r#"id="17239""#, r#"id="17240""#),
        (r#"byteOrder="littleEndian""#, r#"byteOrder="bigEndian""#),
        (r#"id="16" blockLength="116""#, r#"id="15" blockLength="116""#),
        (r#"id="16" blockLength="116""#, r#"id="16" blockLength="112""#),
        (r#"name="amountMinor" id="3""#, r#"name="amount" id="3""#),
        (r#"type="Currency" offset="28""#, r#"type="Currency" offset="30""#),
        (r#"type="Scene""#, r#"type="Kind""#),
        (
            r#"<type name="SessionId" primitiveType="uint64""#,
            r#"<type name="SessionId" primitiveType="uint32""#,
        ),
        (r#"<validValue name="BankTimeout""#, r#"<validValue name="BankLate""#),
        (">30</validValue>", ">29</validValue>"),
        (">1</choice>", ">2</choice>"),
    ] {
        let drifted = SCHEMA.replacen(from, to, 1);
        assert_ne!(drifted, SCHEMA, "{from} is not in the schema");
        assert_ne!(
            differences(&drifted),
            Vec::<String>::new(),
            "{from} became {to} unnoticed"
        );
    }
}

#[test]
fn every_enumeration_of_the_schema_is_held_against_ours() {
    let document = Document::parse(SCHEMA).expect("the schema is XML");
    let checked: Vec<_> = enumerations().into_iter().map(|(name, _)| name).collect();
    for (name, node) in types(&document) {
        let is_enumeration = matches!(node.tag_name().name(), "enum" | "set");
        assert!(!is_enumeration || checked.contains(&name), "{name} is not checked");
    }
}

#[test]
fn the_framing_header_names_this_encoding() {
    let document = Document::parse(SCHEMA).expect("the schema is XML");
    let encoding = types(&document)["framingHeader"]
        .children()
        .find(|node| node.attribute("name") == Some("encodingType"))
        .and_then(|node| node.attribute("description"))
        .expect("the framing header says its encoding");
    assert!(encoding.starts_with(&format!("{ENCODING:#06X}").replace("0X", "0x")));
}
