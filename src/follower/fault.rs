//! Faults that can be planted in the follower, in tests only: a rehearsal, which is one thread, must find each.

use std::cell::Cell;

use crate::domain::Code;
use crate::wire::{Answer, EffectFrame, Frame, Template};

/// What the follower gets wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// A look-up is answered before the event that asks has been passed.
    AnswerTooEarly,
    /// A commit is told again as a decline.
    TellOtherCode,
    /// A snapshot is taken while the register has not written what belongs to it.
    SnapshotWithoutFlush,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// What every follower of this thread gets wrong from now on.
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

pub(super) fn gets_wrong(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Words that are told again.
pub(super) fn spoil_words(frames: &mut [EffectFrame]) {
    let answers = frames.iter_mut().filter(|frame| frame.template == Template::Answer);
    for frame in answers.filter(|_| gets_wrong(Fault::TellOtherCode)) {
        let mut answer = Answer::read(&frame.bytes);
        if answer.code == Code::Committed as u8 {
            answer.code = Code::BankDeclined as u8;
            *frame = EffectFrame::new(frame.to, frame.via, &answer);
        }
    }
}
