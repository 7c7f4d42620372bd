//! Faults planted from outside, by lying to the stages or to those who listen: each must be found.

use crate::domain::Code;
use crate::wire::{Answer, Frame, Reply, ReplyOutcome, Reversal, Template, decode, seal};

/// A fault to plant.
#[cfg_attr(
    test,
    allow(private_interfaces, reason = "what the stages get wrong is there in tests only")
)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Plant {
    /// The disk acknowledges durable writes before a crash and drops them.
    DiskDropsAcknowledgedWrites,
    /// After a crash the disk holds what it held some time before: later writes that were acknowledged are gone.
    DiskGoesBack,
    /// Dispatch is told twice the contract that a bank has.
    LargerContract,
    /// A word goes out under the number of the word before it.
    WordNumberReused,
    /// A word is missing for good.
    WordLost,
    /// A stored answer says another amount than it did.
    AnswerChanged,
    /// A committed payment is told as declined.
    CommitToldAsDecline,
    /// A request reaches its bank twice.
    RequestTwice,
    /// A bank's yes is taken out of the line and comes back as a no: its own book and the switch's differ.
    ReplyTurned,
    /// A bank never hears of Reversals.
    ReversalLost,
    /// The follower gets something wrong.
    #[cfg(test)]
    Follower(crate::follower::FollowerFault),
    /// Every engine gets something wrong: the live one, the follower's and replay's.
    #[cfg(test)]
    Engine(crate::clearing::EngineFault),
}

/// Faults inside the stages, planted for as long as this lives.
#[cfg(test)]
pub(super) struct Inside;

#[cfg(test)]
impl Inside {
    pub(super) fn plant(plant: Option<Plant>) -> Self {
        match plant {
            Some(Plant::Follower(fault)) => crate::follower::plant(Some(fault)),
            Some(Plant::Engine(fault)) => crate::clearing::plant(Some(fault)),
            _ => {}
        }
        Self
    }
}

#[cfg(test)]
impl Drop for Inside {
    fn drop(&mut self) {
        crate::follower::plant(None);
        crate::clearing::plant(None);
    }
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DiskDropsAcknowledgedWrites,
        Self::DiskGoesBack,
        Self::LargerContract,
        Self::WordNumberReused,
        Self::WordLost,
        Self::AnswerChanged,
        Self::CommitToldAsDecline,
        Self::RequestTwice,
        Self::ReplyTurned,
        Self::ReversalLost,
    ];

    /// Changes what the switch sends, frame by frame, before anybody sees it.
    pub(super) fn on_send(self, bytes: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        while let Ok(Some((template, length))) = decode(rest) {
            let mut frame = rest[..length].to_vec();
            rest = &rest[length..];
            let times = self.change(template, &mut frame);
            for _ in 0..times {
                out.extend_from_slice(&frame);
            }
        }
        out
    }

    /// Changes what a participant sends: one frame, or no frame of interest.
    pub(super) fn on_reply(self, mut bytes: Vec<u8>) -> Vec<u8> {
        let is_reply = matches!(decode(&bytes), Ok(Some((Template::Reply, _))));
        if self == Self::ReplyTurned && is_reply {
            let mut reply = Reply::read(&bytes);
            if reply.body.outcome == ReplyOutcome::Yes as u8 && reply.body.id.serial() % 5 == 1 {
                (reply.body.outcome, reply.body.code) = (ReplyOutcome::No as u8, Code::BankDeclined as u8);
                put(&mut bytes, &reply);
            }
        }
        bytes
    }

    /// Changes one frame; gives how many times it is sent.
    fn change(self, template: Template, frame: &mut [u8]) -> usize {
        match (self, template) {
            (Self::RequestTwice, Template::PaymentRequest) => 2,
            (Self::ReversalLost, Template::Reversal) => 0,
            (Self::WordLost, Template::Answer) if Answer::read(frame).word == 3 => 0,
            (Self::WordLost, Template::Reversal) if Reversal::read(frame).word == 3 => 0,
            (Self::WordNumberReused, Template::Answer) => {
                let mut answer = Answer::read(frame);
                if answer.word > 4 {
                    answer.word -= 1;
                    put(frame, &answer);
                }
                1
            }
            (Self::AnswerChanged, Template::Answer) => {
                let mut answer = Answer::read(frame);
                if answer.flags != 0 {
                    answer.final_ns += 1;
                    put(frame, &answer);
                }
                1
            }
            (Self::CommitToldAsDecline, Template::Answer) => {
                let mut answer = Answer::read(frame);
                if answer.word > 0 && answer.code == Code::Committed as u8 && answer.id.serial() % 7 == 3 {
                    answer.code = Code::BankDeclined as u8;
                    put(frame, &answer);
                }
                1
            }
            _ => 1,
        }
    }
}

fn put<F: Frame>(frame: &mut [u8], changed: &F) {
    frame.copy_from_slice(bytemuck::bytes_of(changed));
    seal(frame, F::TEMPLATE);
}
