//! Words told again out of the register, one participant after the other, paced.

use std::collections::VecDeque;

use crate::domain::{LinkId, ParticipantIndex};
use crate::register::{DayRegister, RegisterError};
use crate::wire::EffectFrame;

/// Words read at a time for one participant before the next has its turn.
const WORDS_PER_TURN: u64 = 64;

struct Span {
    participant: ParticipantIndex,
    link: LinkId,
    next: u64,
    end: u64,
}

/// Spans of words that are to be told again; those of one participant do not overlap.
#[derive(Default)]
pub(super) struct Spans(VecDeque<Span>);

impl Spans {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A participant that asks again for words that are still to be told gets them once, by the link that asked last: what
    /// waits is bounded by the words there are, however often links come and go. Words between two spans are not this
    /// side's to tell.
    pub(super) fn add(&mut self, participant: ParticipantIndex, link: LinkId, from: u64, count: u64) {
        let end = from.saturating_add(count);
        let touches = |known: &&mut Span| known.participant == participant && from <= known.end && known.next <= end;
        match self.0.iter_mut().find(touches) {
            Some(known) => {
                known.link = link;
                known.next = known.next.min(from);
                known.end = known.end.max(end);
            }
            None => self.0.push_back(Span {
                participant,
                link,
                next: from,
                end,
            }),
        }
    }

    /// The next frames, of one participant.
    pub(super) fn next(&mut self, register: &DayRegister) -> Result<Vec<EffectFrame>, RegisterError> {
        let Some(mut span) = self.0.pop_front() else {
            return Ok(Vec::new());
        };
        let count = (span.end - span.next).min(WORDS_PER_TURN);
        let words = match register.words(span.participant, span.next, count) {
            Ok(words) => words,
            Err(error) => {
                self.0.push_front(span);
                return Err(error);
            }
        };
        span.next += count;
        let link = span.link;
        if span.next < span.end {
            self.0.push_back(span);
        }
        let frames = words.iter().filter_map(|(word, payment)| word.frame(payment, link));
        Ok(frames.collect())
    }
}
