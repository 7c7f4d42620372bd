//! All simulated participants: their payments and books, what they send, and what is due. Links are in `links.rs`.

use super::bank::BankHabits;
use super::books::Books;
use super::breakdown::Breakdown;
use super::engine::{LoadOptions, ParticipantPlan};
use super::links::Link;
use super::outcome::{Live, Outcomes};
use super::payment::{PaymentRecord, PaymentTable};
use super::pushes::Pushes;
use super::session::{Identity, Session, SessionEnd, SessionState};
use super::wheel::{Due, Wheel};
use super::words::WordTracker;
use super::workload::{Answered, Intent};
use crate::domain::ParticipantIndex;
use crate::io::{Connection, Outbox};
use crate::wire::{Frame, FrameHeader, RequestFlags, RetransmitRequest, Template};

/// Heartbeats are looked at every 25th maintenance, four times a second.
const HEARTBEAT_EVERY: u32 = 25;

pub(super) struct Participant {
    first_link: usize,
    links: usize,
    pub(super) words: WordTracker,
}

/// All simulated participants, their links, payments and books.
pub(super) struct Load {
    /// The round's time, nanoseconds of the engine's clock.
    pub(super) now_ns: u64,
    /// Payments that were answered in this round, for the workload.
    pub(super) answered: Vec<Answered>,
    pub(super) run_start_ns: u64,
    pub(super) utc_origin_ns: u64,
    retry_after_ns: u64,
    pub(super) links: Vec<Link>,
    pub(super) participants: Vec<Participant>,
    pub(super) link_of_connection: Vec<u32>,
    pub(super) outbox: Outbox,
    /// What a session says of itself, on its way to the outbox.
    pub(super) session_bytes: Vec<u8>,
    pub(super) to_close: Vec<Connection>,
    pub(super) payments: PaymentTable,
    pub(super) books: Books,
    pub(super) habits: BankHabits,
    pub(super) wheel: Wheel,
    fired: Vec<Due>,
    /// Payments whose reply is written but not yet handed to the driver.
    pub(super) replied: Vec<u32>,
    /// Payments before this one were looked at for being overdue.
    overdue_from: u32,
    overdue: Vec<(u32, u64)>,
    pub(super) outcomes: Outcomes,
    /// Payments that expired though their bank said yes: a Reversal of each must still come.
    pub(super) reversals_awaited: u64,
    pub(super) pushes: Pushes,
    maintenance: u32,
    pub(super) established: usize,
    pub(super) connecting: usize,
    pub(super) ever_established: bool,
    pub(super) finishing: bool,
    pub(super) refusal: Option<(ParticipantIndex, SessionEnd)>,
    pub(super) trouble: String,
}

impl Load {
    pub(super) fn new(
        plans: &[ParticipantPlan],
        habits: BankHabits,
        options: &LoadOptions,
        utc_origin_ns: u64,
    ) -> Self {
        let mut links = Vec::new();
        let mut participants = Vec::with_capacity(plans.len());
        for plan in plans {
            participants.push(Participant {
                first_link: links.len(),
                links: usize::from(plan.links),
                words: WordTracker::default(),
            });
            for _ in 0..plan.links {
                let identity = Identity {
                    index: plan.index,
                    code: plan.code,
                    credential: plan.credential,
                };
                links.push(Link::new(plan.index, Session::new(identity, options.keepalive_ms)));
            }
        }
        Self {
            now_ns: 0,
            answered: Vec::new(),
            run_start_ns: 0,
            utc_origin_ns,
            retry_after_ns: options.retry_after.as_nanos() as u64,
            links,
            books: Books::new(participants.len()),
            pushes: Pushes::new(participants.len()),
            participants,
            link_of_connection: Vec::new(),
            outbox: Outbox::default(),
            session_bytes: Vec::new(),
            to_close: Vec::new(),
            payments: PaymentTable::new(options.run, utc_origin_ns, options.currency),
            habits,
            wheel: Wheel::new(0),
            fired: Vec::new(),
            replied: Vec::new(),
            overdue_from: 0,
            overdue: Vec::new(),
            outcomes: Outcomes::default(),
            reversals_awaited: 0,
            maintenance: 0,
            established: 0,
            connecting: 0,
            ever_established: false,
            finishing: false,
            refusal: None,
            trouble: "none".into(),
        }
    }

    pub(super) fn links(&self) -> usize {
        self.links.len()
    }

    pub(super) fn established(&self) -> usize {
        self.established
    }

    pub(super) fn connecting(&self) -> usize {
        self.connecting
    }

    /// Links that have a connection.
    pub(super) fn open(&self) -> usize {
        self.links.iter().filter(|link| link.connection.is_some()).count()
    }

    pub(super) fn refusal(&self) -> Option<(ParticipantIndex, SessionEnd)> {
        self.refusal
    }

    pub(super) fn trouble(&self) -> &str {
        &self.trouble
    }

    pub(super) fn start_run(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.run_start_ns = now_ns;
        self.ever_established = true;
    }

    pub(super) fn end_run(&mut self) {
        self.outcomes.note_load_ended();
    }

    pub(super) fn roll(&mut self, live: &Live) {
        if self.ever_established {
            self.outcomes.roll(self.now_ns - self.run_start_ns, live);
        }
    }

    /// True when every payment is answered, every yes to an expired pull is reversed, every push that a bank saw has its
    /// notice, and nobody means to say more.
    pub(super) fn is_done(&self) -> bool {
        self.outcomes.in_flight() == 0
            && self.wheel.waiting() == 0
            && self.reversals_awaited == 0
            && self.pushes.awaited() == 0
    }

    pub(super) fn into_results(mut self) -> (Outcomes, Books, Breakdown) {
        self.find_missing_notices();
        let breakdown = Breakdown::of(&self.payments, self.participants.len());
        (self.outcomes, self.books, breakdown)
    }

    // ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Makes a payment: notes it and writes its request.
    #[inline]
    pub(super) fn issue(&mut self, intent: &Intent) {
        let record = PaymentRecord::asked(intent, self.run_start_ns);
        let number = self.payments.push(record, intent.related);
        self.outcomes.note_offered();
        self.write_request(number, 0);
        match intent.repeat_after_ns {
            None => {}
            Some(0) => self.repeat(number),
            Some(after_ns) => self.wheel.set(self.now_ns + after_ns, Due::Repeat(number)),
        }
    }

    fn repeat(&mut self, number: u32) {
        self.outcomes.repeats_sent += 1;
        self.write_request(number, RequestFlags::POSSIBLE_RESEND);
    }

    fn retry(&mut self, number: u32) {
        if !self.payments.get(number).is_answered() {
            self.outcomes.retries_sent += 1;
            self.write_request(number, RequestFlags::POSSIBLE_RESEND);
        }
    }

    #[inline]
    fn write_request(&mut self, number: u32, flags: u8) {
        // Without a link the payment waits until it is overdue and is tried again.
        if let Some(link) = self.link_of(self.payments.get(number).initiator, number) {
            let request = self.payments.request(number, flags);
            self.write(link, &request);
        }
    }

    /// An established link of the participant; several take turns by the payment's number.
    #[inline]
    pub(super) fn link_of(&self, participant: ParticipantIndex, number: u32) -> Option<usize> {
        let participant = &self.participants[participant.index()];
        (0..participant.links)
            .map(|turn| participant.first_link + (number as usize + turn) % participant.links)
            .find(|&link| self.links[link].session.state() == SessionState::Established)
    }

    #[inline]
    pub(super) fn write<F: Frame>(&mut self, link: usize, frame: &F) {
        if let Some(connection) = self.links[link].connection {
            self.outbox.append(connection, bytemuck::bytes_of(frame));
        }
    }

    /// The replies written in this round go to the driver now.
    #[inline]
    pub(super) fn note_handed(&mut self, handed_ns: u64) {
        for number in self.replied.drain(..) {
            let record = self.payments.get_mut(number);
            record.bank_ticks = record.bank_ticks.until(handed_ns);
        }
    }

    /// The next connection's bytes. One whose last send is under way is left until that has ended.
    #[inline]
    pub(super) fn next_send(&mut self, now_ns: u64) -> Option<(Connection, Vec<u8>)> {
        let (connection, bytes) = self.outbox.next_send()?;
        if let Some(link) = self.link_at(connection) {
            self.links[link].session.note_sent(now_ns);
        }
        Some((connection, bytes))
    }

    pub(super) fn next_close(&mut self) -> Option<Connection> {
        self.to_close.pop()
    }

    // ── what is due ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Banks reply and institutions repeat themselves.
    #[inline]
    pub(super) fn fire(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.fire(self.now_ns, &mut fired);
        for due in fired.drain(..) {
            match due {
                Due::Reply(number) => self.say_word(number),
                Due::Repeat(number) => self.repeat(number),
                Due::Retry(number) => self.retry(number),
            }
        }
        self.fired = fired;
    }

    /// Heartbeats, gaps in the words, overdue payments and notices.
    pub(super) fn maintain(&mut self) {
        self.maintenance = self.maintenance.wrapping_add(1);
        if self.maintenance.is_multiple_of(HEARTBEAT_EVERY) {
            self.tick_sessions();
        }
        for index in 0..self.participants.len() {
            if let Some((from_word, count)) = self.participants[index].words.overdue_gap(self.now_ns)
                && let Some(link) = self.link_of(ParticipantIndex(index as u16), 0)
            {
                let request = RetransmitRequest {
                    header: FrameHeader::new(Template::RetransmitRequest, size_of::<RetransmitRequest>()),
                    from_word,
                    count,
                    reserved: [0; 20],
                };
                self.write(link, &request.sealed());
            }
        }
        self.retry_overdue();
        self.inquire_overdue();
    }

    fn retry_overdue(&mut self) {
        while self.overdue_from < self.payments.len() {
            let record = self.payments.get(self.overdue_from);
            if record.intended_ns + self.retry_after_ns > self.now_ns {
                break;
            }
            if !record.is_answered() {
                self.overdue.push((self.overdue_from, self.now_ns));
            }
            self.overdue_from += 1;
        }
        let mut overdue = std::mem::take(&mut self.overdue);
        overdue.retain_mut(|(number, due_ns)| {
            if self.payments.get(*number).is_answered() {
                return false;
            }
            if self.now_ns >= *due_ns {
                *due_ns = self.now_ns + self.retry_after_ns;
                self.retry(*number);
            }
            true
        });
        self.overdue = overdue;
    }
}
