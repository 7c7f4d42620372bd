//! The worked examples: frames of payments of every kind, in the order in which they pass over the links.

use bytemuck::{Pod, Zeroable, bytes_of};
use clearway::domain::{
    BindStep, BusinessDate, Code, Kind, ParticipantIndex, PaymentId, PaymentState, Role, SECOND, Scene, SchemeCode,
    WindowId,
};
use clearway::wire::{
    Answer, AnswerFlags, Establish, EstablishmentAck, FinalNotice, Frame, FrameHeader, Inquiry, InquiryAnswer,
    Negotiate, NegotiationResponse, PaymentBody, PaymentRequest, Regarding, Reply, ReplyBody, ReplyOutcome,
    RetransmitRequest, Reversal, Sequence, StatusRequest, Template, Terminate, TerminateCode,
};

/// 2026-11-23 20:00:00 in Shanghai.
const EVENING_NS: u64 = 1_795_435_200 * SECOND;
const TODAY: BusinessDate = BusinessDate(20_261_123);
const INSTITUTION: ParticipantIndex = ParticipantIndex(7);
const BANK: ParticipantIndex = ParticipantIndex(120);
const MANDATE: [u64; 2] = [0x1111_2222_3333_4444, 0x5555_6666_7777_8888];

fn id(serial: u64) -> PaymentId {
    PaymentId::new(TODAY, INSTITUTION, 1, serial)
}

fn window() -> WindowId {
    WindowId::new(TODAY, 3)
}

fn body(kind: Kind, serial: u64, amount_minor: u64) -> PaymentBody {
    PaymentBody {
        id: id(serial),
        amount_minor,
        currency: 156,
        kind: kind as u8,
        scene: Scene::RedPacket as u8,
        responder: BANK,
        step: 0,
        flags: 0,
        created_ns: EVENING_NS,
        reserved: 0,
        mandate_token: [0; 2],
        account_token: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
        original: PaymentId::default(),
        order_reference: *b"order-0000000042",
    }
}

fn request(body: PaymentBody) -> PaymentRequest {
    PaymentRequest {
        header: FrameHeader::zeroed(),
        body,
    }
}

fn reply(about: &PaymentBody, regarding: Regarding, outcome: ReplyOutcome, code: u8, token: [u64; 2]) -> Reply {
    Reply {
        header: FrameHeader::zeroed(),
        body: ReplyBody {
            id: about.id,
            amount_minor: about.amount_minor,
            currency: about.currency,
            regarding: regarding as u8,
            outcome: outcome as u8,
            code,
            reserved: [0; 3],
            token,
        },
    }
}

fn answer(about: &PaymentBody, word: u64, state: PaymentState, code: Code) -> Answer {
    let is_committed = state == PaymentState::Committed;
    Answer {
        id: about.id,
        word,
        amount_minor: about.amount_minor,
        window: if is_committed { window() } else { WindowId::NONE },
        final_ns: EVENING_NS + 250_000,
        currency: about.currency,
        responder: BANK,
        kind: about.kind,
        code: code as u8,
        state: state as u8,
        ..Answer::zeroed()
    }
}

fn notice(about: &PaymentBody, word: u64, state: PaymentState, code: Code) -> FinalNotice {
    let is_committed = state == PaymentState::Committed;
    FinalNotice {
        id: about.id,
        word,
        amount_minor: about.amount_minor,
        window: if is_committed { window() } else { WindowId::NONE },
        final_ns: EVENING_NS + 250_000,
        currency: about.currency,
        kind: about.kind,
        code: code as u8,
        state: state as u8,
        initiator: INSTITUTION,
        ..FinalNotice::zeroed()
    }
}

/// The frames, each with a sentence about it.
pub(crate) fn examples() -> Vec<(&'static str, Template, Vec<u8>)> {
    fn one<F: Frame + Pod>(about: &'static str, frame: F) -> (&'static str, Template, Vec<u8>) {
        (about, F::TEMPLATE, bytes_of(&frame.sealed()).to_vec())
    }
    let debit = PaymentBody {
        mandate_token: MANDATE,
        ..body(Kind::Debit, 1_000_001, 8_888)
    };
    let payout = body(Kind::Payout, 1_000_002, 50_000);
    let refund = PaymentBody {
        original: debit.id,
        ..body(Kind::Refund, 1_000_003, 888)
    };
    let sign = PaymentBody {
        step: BindStep::Sign as u8,
        scene: Scene::Other as u8,
        ..body(Kind::Bind, 1_000_005, 0)
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
                participant: INSTITUTION,
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
            "A Debit: a red packet of 88.88 yuan; the bank gets the same bytes",
            request(debit),
        ),
        one(
            "The bank says yes",
            reply(&debit, Regarding::Request, ReplyOutcome::Yes, 0, [42, 0]),
        ),
        one(
            "Word 42: committed in window W202611230003",
            answer(&debit, 42, PaymentState::Committed, Code::Committed),
        ),
        one(
            "Had the bank been silent past T1: what became of it?",
            StatusRequest {
                id: debit.id,
                amount_minor: debit.amount_minor,
                currency: debit.currency,
                kind: debit.kind,
                attempt: 1,
                initiator: INSTITUTION,
                accepted_ns: EVENING_NS,
                ..StatusRequest::zeroed()
            },
        ),
        one(
            "And its reply to that",
            reply(&debit, Regarding::Status, ReplyOutcome::Yes, 0, [42, 0]),
        ),
        one(
            "Had it been silent past T2, too: the Debit has expired, the bank is to undo it; its word 9",
            Reversal {
                id: debit.id,
                word: 9,
                amount_minor: debit.amount_minor,
                currency: debit.currency,
                kind: debit.kind,
                attempt: 1,
                initiator: INSTITUTION,
                raised_ns: EVENING_NS + 60 * SECOND,
                ..Reversal::zeroed()
            },
        ),
        one(
            "The bank has taken the Reversal",
            reply(&debit, Regarding::Reversal, ReplyOutcome::Acknowledged, 0, [0; 2]),
        ),
        one("A Payout of 500 yuan", request(payout)),
        one(
            "The bank would credit the account",
            reply(&payout, Regarding::Request, ReplyOutcome::Yes, 0, [43, 0]),
        ),
        one(
            "To the bank, its word 10: Confirm, now credit",
            notice(&payout, 10, PaymentState::Committed, Code::Committed),
        ),
        one(
            "Had T2 passed instead: do not credit",
            notice(&payout, 10, PaymentState::Expired, Code::BankTimeout),
        ),
        one("A Refund of 8.88 yuan of the Debit above", request(refund)),
        one("A Bind's second step, Sign", request(sign)),
        one(
            "The bank's yes carries the mandate's token",
            reply(&sign, Regarding::Request, ReplyOutcome::Yes, 0, MANDATE),
        ),
        one(
            "And so does the institution's word 45",
            Answer {
                mandate_token: MANDATE,
                ..answer(&sign, 45, PaymentState::Committed, Code::Committed)
            },
        ),
        one(
            "The Debit's request came again: the stored answer, as word 46",
            Answer {
                flags: AnswerFlags::DUPLICATE,
                ..answer(&debit, 46, PaymentState::Committed, Code::Committed)
            },
        ),
        one(
            "The bank waits for a Confirm and asks",
            Inquiry {
                header: FrameHeader::zeroed(),
                id: payout.id,
                reference: 77,
                reserved: 0,
            },
        ),
        one(
            "The Payout is committed",
            InquiryAnswer {
                id: payout.id,
                reference: 77,
                amount_minor: payout.amount_minor,
                window: window(),
                final_ns: EVENING_NS + 250_000,
                currency: payout.currency,
                kind: payout.kind,
                code: Code::Committed as u8,
                state: PaymentState::Committed as u8,
                ..InquiryAnswer::zeroed()
            },
        ),
        one(
            "The institution has a gap: words 43 and 44 once more",
            RetransmitRequest {
                from_word: 43,
                count: 2,
                ..RetransmitRequest::zeroed()
            },
        ),
        one(
            "Heartbeat of the switch: the next word will be 47",
            Sequence {
                next_word: 47,
                ..Sequence::zeroed()
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
