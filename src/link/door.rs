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
    if body.original.is_zero() == (body.kind() == Some(Kind::Refund)) {
        return Err(Code::Format);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BusinessDate, PaymentId};
    use bytemuck::Zeroable;

    const SENDER: ParticipantIndex = ParticipantIndex(7);

    fn body(kind: Kind, step: BindStep) -> PaymentBody {
        let mut body = PaymentBody::zeroed();
        body.id = PaymentId::new(BusinessDate(20_261_123), SENDER, 0, 2);
        (body.kind, body.scene, body.step) = (kind as u8, 1, step as u8);
        if kind == Kind::Refund {
            body.original = PaymentId::new(BusinessDate(20_261_123), SENDER, 0, 1);
        }
        body
    }

    /// The step of a payment of this kind.
    fn step(kind: Kind) -> BindStep {
        match kind {
            Kind::Debit | Kind::Payout | Kind::Refund => BindStep::None,
            Kind::Bind | Kind::Unbind => BindStep::Sign,
        }
    }

    #[test]
    fn a_right_request_of_each_kind_comes_in() {
        for kind in Kind::ALL {
            assert_eq!(check_request(&body(kind, step(kind)), SENDER), Ok(()), "{kind:?}");
        }
        for kind in [Kind::Bind, Kind::Unbind] {
            assert_eq!(check_request(&body(kind, BindStep::Authenticate), SENDER), Ok(()));
        }
    }

    #[test]
    fn a_step_that_does_not_fit_the_kind_is_01() {
        for kind in Kind::ALL {
            let wrong = match kind {
                Kind::Debit | Kind::Payout | Kind::Refund => [1, 2, 3],
                Kind::Bind | Kind::Unbind => [0, 3, 255],
            };
            for step in wrong {
                let mut body = body(kind, BindStep::None);
                body.step = step;
                assert_eq!(check_request(&body, SENDER), Err(Code::Format), "{kind:?} step {step}");
            }
        }
    }

    #[test]
    fn an_original_that_is_zero_in_a_refund_or_not_zero_elsewhere_is_01() {
        for kind in Kind::ALL {
            let mut body = body(kind, step(kind));
            body.original = if kind == Kind::Refund {
                PaymentId::zeroed()
            } else {
                body.id
            };
            assert_eq!(check_request(&body, SENDER), Err(Code::Format), "{kind:?}");
        }
    }

    #[test]
    fn another_participants_id_is_03() {
        let theirs = check_request(&body(Kind::Debit, BindStep::None), ParticipantIndex(8));
        assert_eq!(theirs, Err(Code::NotSignedOn));
    }
}
