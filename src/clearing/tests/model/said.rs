//! What leaves the switch, in a form in which the model's word and the engine's can be compared.

use std::fmt;

use bytemuck::{Pod, Zeroable, bytes_of};

use crate::domain::{LinkContract, LinkId, PaymentId, UtcNanos};
use crate::wire::{
    Answer, Effect, EffectFrame, FinalNotice, Frame, FrameHeader, OrderOutcome, Reversal, StatusRequest, Template,
    TerminateCode,
};

/// A frame, every byte of it but its header.
#[derive(Clone, Copy)]
pub(super) struct Content<F>(pub(super) F);

impl<F: Pod> PartialEq for Content<F> {
    fn eq(&self, other: &Self) -> bool {
        bytes_of(&self.0)[size_of::<FrameHeader>()..] == bytes_of(&other.0)[size_of::<FrameHeader>()..]
    }
}

impl<F: fmt::Debug> fmt::Debug for Content<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One thing that leaves the switch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Said {
    Forward {
        id: PaymentId,
        to: u16,
        position: u64,
        accepted: UtcNanos,
        wait_ns: u64,
    },
    Answer {
        to: u16,
        via: LinkId,
        answer: Content<Answer>,
    },
    Status {
        to: u16,
        request: Content<StatusRequest>,
    },
    Reversal {
        to: u16,
        reversal: Content<Reversal>,
    },
    Notice {
        to: u16,
        notice: Content<FinalNotice>,
    },
    Release {
        id: PaymentId,
    },
    Request {
        half: u8,
        bytes: [u8; 64],
    },
    LookUp {
        event: u64,
        id: PaymentId,
    },
    Cut {
        link: LinkId,
        code: TerminateCode,
    },
    Contract {
        to: u16,
        contract: LinkContract,
    },
    Ordered {
        reference: u64,
        event: u64,
        outcome: OrderOutcome,
        action: u8,
        about: u16,
    },
    CoverAlarm {
        of: u16,
        currency: u16,
        level_bp: u16,
        before_bp: u16,
        used_minor: i64,
        cap_minor: i64,
    },
}

/// The engine's effect; `slots` is the payment of each slot it has forwarded, in which a new one is noted.
pub(super) fn said(effect: &Effect, forwarded: PaymentId, slots: &mut Vec<(u32, PaymentId)>) -> Result<Said, String> {
    match effect {
        Effect::Forward {
            slot,
            responder,
            position,
            accepted,
            wait_ns,
        } => {
            if slots.iter().any(|(known, id)| *known == slot.0 || *id == forwarded) {
                return Err(format!(
                    "slot {} has an open payment and is given to {forwarded}",
                    slot.0
                ));
            }
            slots.push((slot.0, forwarded));
            Ok(Said::Forward {
                id: forwarded,
                to: responder.0,
                position: *position,
                accepted: *accepted,
                wait_ns: *wait_ns,
            })
        }
        Effect::Frame(frame) => frame_said(frame),
        Effect::Release { slot } => match slots.iter().position(|(known, _)| *known == slot.0) {
            Some(nth) => Ok(Said::Release {
                id: slots.swap_remove(nth).1,
            }),
            None => Err(format!("slot {} is released and has no open payment", slot.0)),
        },
        Effect::Request { half, bytes } => Ok(Said::Request {
            half: *half,
            bytes: *bytes,
        }),
        Effect::LookUp(look_up) => Ok(Said::LookUp {
            event: look_up.event,
            id: look_up.id,
        }),
        Effect::Cut { link, code } => Ok(Said::Cut {
            link: *link,
            code: *code,
        }),
        Effect::Contract { participant, contract } => Ok(Said::Contract {
            to: participant.0,
            contract: *contract,
        }),
        Effect::Ordered {
            reference,
            event,
            outcome,
            action,
            participant,
        } => Ok(Said::Ordered {
            reference: *reference,
            event: *event,
            outcome: *outcome,
            action: *action,
            about: participant.0,
        }),
        Effect::CoverAlarm {
            participant,
            currency,
            level_bp,
            before_bp,
            used_minor,
            cap_minor,
        } => Ok(Said::CoverAlarm {
            of: participant.0,
            currency: currency.0,
            level_bp: *level_bp,
            before_bp: *before_bp,
            used_minor: *used_minor,
            cap_minor: *cap_minor,
        }),
    }
}

/// A frame of the engine's.
pub(super) fn frame_said(frame: &EffectFrame) -> Result<Said, String> {
    fn content<F: Frame>(frame: &EffectFrame) -> Content<F> {
        let mut bytes = frame.bytes;
        bytes[..size_of::<FrameHeader>()].copy_from_slice(bytes_of(&FrameHeader::zeroed()));
        Content(F::read(&bytes))
    }
    let to = frame.to.0;
    match frame.template {
        Template::Answer => Ok(Said::Answer {
            to,
            via: frame.via,
            answer: content(frame),
        }),
        Template::StatusRequest => Ok(Said::Status {
            to,
            request: content(frame),
        }),
        Template::Reversal => Ok(Said::Reversal {
            to,
            reversal: content(frame),
        }),
        Template::FinalNotice => Ok(Said::Notice {
            to,
            notice: content(frame),
        }),
        other => Err(format!("the engine does not send {other:?}")),
    }
}
