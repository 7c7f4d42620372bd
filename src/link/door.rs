//! The door: what a link agent checks of a request or reply before it goes in. A request refused here is not journaled,
//! its id is not used, and a retry keeps it.

use crate::domain::{BindStep, Code, Kind, ParticipantIndex};
use crate::wire::{Answer, Frame, FrameHeader, PaymentBody, PaymentRequest, Regarding, Reply, ReplyOutcome};

/// Checks a request's fields and whose it is.
#[inline]
pub(super) fn check_request(body: &PaymentBody, participant: ParticipantIndex) -> Result<(), Code> {
    if body.id.is_zero() || body.kind().is_none() || body.scene().is_none() || body.reserved != 0 {
        return Err(Code::Format);
    }
    let is_bind = matches!(body.kind(), Some(Kind::Bind | Kind::Unbind));
    match BindStep::from_u8(body.step) {
        Some(step) if (step != BindStep::None) == is_bind => {}
        Some(_) | None => return Err(Code::Format),
    }
    if body.id.originator() != participant {
        return Err(Code::NotSignedOn);
    }
    Ok(())
}

/// True when a reply's fields can mean something.
#[inline]
pub(super) fn reply_is_valid(frame: &[u8]) -> bool {
    let reply = Reply::read(frame);
    let Some(outcome) = ReplyOutcome::from_u8(reply.body.outcome) else {
        return false;
    };
    let code_fits = match outcome {
        ReplyOutcome::No => Code::from_u8(reply.body.code).is_some_and(Code::is_bank_refusal),
        ReplyOutcome::Yes | ReplyOutcome::NeverSeen | ReplyOutcome::Acknowledged => reply.body.code == 0,
    };
    code_fits && Regarding::from_u8(reply.body.regarding).is_some()
}

/// The answer that refuses a request at the door.
pub(super) fn refusal(request: &PaymentRequest, code: Code) -> Answer {
    let answer = Answer {
        header: FrameHeader::new(Answer::TEMPLATE, size_of::<Answer>()),
        id: request.body.id,
        amount_minor: request.body.amount_minor,
        currency: request.body.currency,
        responder: request.body.responder,
        kind: request.body.kind,
        code: code as u8,
        ..bytemuck::Zeroable::zeroed()
    };
    answer.sealed()
}
