//! An event of the journal as one JSON object: every field by name, with its unit.

use serde_json::{Map, Value, json};

use super::directory::{scheme_json, terms_json};
use crate::domain::{BindStep, Code, Kind, LinkId, PaymentId, Scene, SchemeTerms};
use crate::journal::Record;
use crate::wire::{
    DaySealedEvent, FindingEvent, NotSentEvent, OrderAction, OrderEvent, PaymentBody, RecordKind, Regarding,
    ReplyEvent, ReplyOutcome, RequestEvent, WindowAction, WindowEvent,
};

/// The event with its payload's fields. A payload of another length than its kind has is shown as hex.
pub(super) fn event_json(record: &Record<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("event".to_owned(), json!(record.number));
    fields.insert("kind".to_owned(), json!(record.kind.name()));
    fields.insert("time_ns".to_owned(), json!(record.time.0));
    fields.insert("position".to_owned(), json!(record.position));
    let payload = match record.kind {
        RecordKind::Genesis => read(record).map(scheme),
        RecordKind::Participant => read(record).map(|terms| terms_json(&terms)),
        RecordKind::Request => read(record).map(request),
        RecordKind::Reply => read(record).map(reply),
        RecordKind::NotSent => read(record).map(not_sent),
        RecordKind::Window => read(record).map(window),
        RecordKind::Finding => read(record).map(finding),
        RecordKind::DaySealed => read(record).map(day_sealed),
        RecordKind::Order => read(record).map(order),
        RecordKind::Tick | RecordKind::Restart => record.payload.is_empty().then(|| json!({})),
        RecordKind::Group | RecordKind::Pad => None,
    };
    match payload {
        Some(Value::Object(payload)) => fields.extend(payload),
        Some(_) | None => {
            fields.insert("payload_hex".to_owned(), json!(hex(record.payload)));
        }
    }
    Value::Object(fields)
}

/// The payment that an event is about, if it is about one.
pub(super) fn payment_of(record: &Record<'_>) -> Option<PaymentId> {
    match record.kind {
        RecordKind::Request => read::<RequestEvent>(record).map(|event| event.body.id),
        RecordKind::Reply => read::<ReplyEvent>(record).map(|event| event.body.id),
        RecordKind::NotSent => read::<NotSentEvent>(record).map(|event| event.id),
        RecordKind::Finding => read::<FindingEvent>(record).map(|event| event.id),
        RecordKind::Genesis
        | RecordKind::Participant
        | RecordKind::Tick
        | RecordKind::Restart
        | RecordKind::Window
        | RecordKind::DaySealed
        | RecordKind::Order
        | RecordKind::Group
        | RecordKind::Pad => None,
    }
}

/// The payment that an event's payment gives back, if it is a refund.
pub(super) fn original_of(record: &Record<'_>) -> Option<PaymentId> {
    match record.kind {
        RecordKind::Request => read::<RequestEvent>(record).map(|event| event.body.original),
        _ => None,
    }
}

fn read<T: bytemuck::AnyBitPattern>(record: &Record<'_>) -> Option<T> {
    bytemuck::try_pod_read_unaligned(record.payload).ok()
}

fn scheme(terms: SchemeTerms) -> Value {
    let mut json = scheme_json(&terms);
    json["participant_count"] = json!(terms.participant_count);
    json
}

fn order(event: OrderEvent) -> Value {
    let action = OrderAction::from_u8(event.action);
    let mut json = json!({
        "action": action.map_or(json!(event.action), |action| json!(action.name())),
        "step": event.step,
        "operator": String::from_utf8_lossy(&event.operator).trim_end_matches('\0'),
        "reference": event.reference,
        "proposal": event.proposal,
        "participant": event.participant.0,
        "currency": event.currency,
        "amount_minor": event.amount_minor,
    });
    if matches!(
        action,
        Some(OrderAction::Add | OrderAction::Amend | OrderAction::Suspend)
    ) {
        json["terms"] = terms_json(&event.terms);
    }
    json
}

fn request(event: RequestEvent) -> Value {
    let PaymentBody {
        id,
        amount_minor,
        currency,
        kind,
        scene,
        responder,
        step,
        flags,
        created_ns,
        reserved: _,
        mandate_token,
        account_token,
        original,
        order_reference,
    } = event.body;
    let step = match BindStep::from_u8(step) {
        Some(BindStep::None) => Value::Null,
        Some(BindStep::Authenticate) => json!("authenticate"),
        Some(BindStep::Sign) => json!("sign"),
        None => json!(step),
    };
    json!({
        "payment": id.to_string(),
        "payment_kind": Kind::from_u8(kind).map_or(json!(kind), |kind| json!(kind.name())),
        "scene": Scene::from_u8(scene).map_or(json!(scene), |scene| json!(scene.name())),
        "step": step,
        "amount_minor": amount_minor,
        "currency": currency,
        "initiator": id.originator().0,
        "responder": responder.0,
        "possible_resend": flags & crate::wire::RequestFlags::POSSIBLE_RESEND != 0,
        "created_ns": created_ns,
        "received_ns": event.stamp.received_ns,
        "link": link(event.stamp.link),
        "frame_crc": format!("{:08x}", event.stamp.crc),
        "mandate_token": token(mandate_token),
        "account_token": token(account_token),
        "original": (!original.is_zero()).then(|| original.to_string()),
        "order_reference_hex": hex(&order_reference),
    })
}

fn reply(event: ReplyEvent) -> Value {
    let regarding = match Regarding::from_u8(event.body.regarding) {
        Some(Regarding::Request) => json!("request"),
        Some(Regarding::Status) => json!("status"),
        Some(Regarding::Reversal) => json!("reversal"),
        None => json!(event.body.regarding),
    };
    let outcome = match ReplyOutcome::from_u8(event.body.outcome) {
        Some(ReplyOutcome::Yes) => json!("yes"),
        Some(ReplyOutcome::No) => json!("no"),
        Some(ReplyOutcome::NeverSeen) => json!("never_seen"),
        Some(ReplyOutcome::Acknowledged) => json!("acknowledged"),
        None => json!(event.body.outcome),
    };
    json!({
        "payment": event.body.id.to_string(),
        "regarding": regarding,
        "outcome": outcome,
        "code": event.body.code,
        "meaning": meaning(event.body.code),
        "amount_minor": event.body.amount_minor,
        "currency": event.body.currency,
        "sender": event.sender,
        "received_ns": event.received_ns,
        "link": link(event.link),
        "token": token(event.body.token),
    })
}

fn not_sent(event: NotSentEvent) -> Value {
    json!({"payment": event.id.to_string(), "code": event.code, "meaning": meaning(event.code)})
}

fn finding(event: FindingEvent) -> Value {
    let mut fields = json!({"asked_by_event": event.event, "payment": event.id.to_string(), "found": event.found == 1});
    if event.found == 1 {
        let entry = &event.entry;
        fields["entry"] = json!({
            "amount_minor": entry.amount_minor,
            "currency": entry.currency,
            "kind": entry.kind,
            "responder": entry.responder.0,
            "state": entry.state,
            "code": entry.code,
            "position": entry.position,
            "accepted_ns": entry.accepted_ns,
            "final_ns": entry.final_ns,
            "window": entry.window.to_string(),
        });
    }
    fields
}

fn day_sealed(event: DaySealedEvent) -> Value {
    json!({"date": event.date.to_string()})
}

fn window(event: WindowEvent) -> Value {
    let action = match WindowAction::from_u8(event.action) {
        Some(WindowAction::Open) => json!("open"),
        Some(WindowAction::Close) => json!("close"),
        Some(WindowAction::BeginSettlement) => json!("begin_settlement"),
        Some(WindowAction::Settled) => json!("settled"),
        Some(WindowAction::Aborted) => json!("aborted"),
        None => json!(event.action),
    };
    json!({
        "action": action,
        "currency": event.currency,
        "window": (event.window.0 != 0).then(|| event.window.to_string()),
    })
}

fn meaning(code: u8) -> Option<&'static str> {
    Code::from_u8(code).map(Code::meaning)
}

fn link(number: u32) -> Value {
    let link = LinkId(number);
    json!({"slot": link.slot(), "generation": link.generation()})
}

/// A token as the 16 bytes it is on the wire; null when it is zero.
fn token(words: [u64; 2]) -> Option<String> {
    (words != [0; 2]).then(|| hex(bytemuck::bytes_of(&words)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
