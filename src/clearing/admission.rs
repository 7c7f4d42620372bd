//! Admission: a request becomes Reserved or Rejected, or is found to be a repetition.

use super::duplicates::Vacancy;
use super::engine::{Engine, Event, Outlet};
use super::finding::Known;
use super::invariant::Breach;
use super::payment::{PaymentRecord, parties};
use super::refund::{NotRefundable, Original};
use super::reply::count_outcome;
use crate::domain::{
    Code, Direction, Kind, LinkId, ParticipantIndex, PaymentSlot, PaymentState, Role, UtcNanos, WindowId,
};
use crate::wire::{AnswerFlags, Effect, EffectFrame, PaymentBody, RequestEvent, WordKind, content_digest};

/// A request that is being decided about, now or after it has waited for the register.
pub(super) struct Arrived<'a> {
    pub(super) request: &'a RequestEvent,
    /// Where its payload lies in the journal.
    pub(super) position: u64,
    digest: u64,
    /// The time of the event that decides.
    time: UtcNanos,
    /// It has waited: the journal's tail may not hold it any more.
    waited: bool,
    /// Where its id goes, if it was looked for just now.
    vacancy: Option<Vacancy>,
}

impl<'a> Arrived<'a> {
    #[inline]
    pub(super) fn new(request: &'a RequestEvent, position: u64, time: UtcNanos, waited: bool) -> Self {
        Self {
            request,
            position,
            digest: content_digest(bytemuck::bytes_of(request)),
            time,
            waited,
            vacancy: None,
        }
    }

    /// The link it came by.
    #[inline]
    pub(super) fn via(&self) -> LinkId {
        self.request.link()
    }

    /// The payment as it would be accepted.
    #[inline]
    pub(super) fn record(&self) -> PaymentRecord {
        new_record(&self.request.body, self.digest, self.request.stamp.link, self.time)
    }
}

impl Engine {
    pub(super) fn request<O: Outlet>(&mut self, event: &Event<'_>, out: &mut O) {
        let request: &RequestEvent = bytemuck::from_bytes(event.payload);
        let id = request.body.id;
        let (known, vacancy) = self.known_or_vacant(id);
        let arrived = Arrived {
            vacancy: Some(vacancy),
            ..Arrived::new(request, event.position, event.time, false)
        };
        #[cfg(test)]
        let known = self.spoil_known(known);
        match known {
            Known::Nowhere if !self.parking.has_request(id) => {
                self.admit_or_refuse(&arrived, Original::NotAsked, out);
            }
            Known::Resident(slot) => {
                let payment = self.payments[slot];
                self.repeated(&payment, Some(slot), self.mandate_token(slot, &payment), &arrived, out);
            }
            Known::Nowhere | Known::Away if self.parking.has_request(id) => {
                self.figures.duplicates += 1;
                let mut record = arrived.record();
                record.state = 0;
                self.tell(&record, Code::InProgress, arrived.via(), out);
            }
            Known::Nowhere | Known::Away => self.park_request(&arrived, id, out),
        }
    }

    /// A request whose id is new.
    pub(super) fn admit_or_refuse<O: Outlet>(&mut self, arrived: &Arrived<'_>, original: Original<'_>, out: &mut O) {
        let (body, time) = (&arrived.request.body, arrived.time);
        if !time.is_open_date(body.id.date()) {
            self.date_not_open(arrived, out);
            return;
        }
        let admission = match self.admit(body, original, time) {
            Err(NotRefundable::Away) => {
                self.park_request(arrived, body.original, out);
                return;
            }
            Err(NotRefundable::Refused(code)) => Err(code),
            Ok(admitted) => Ok(admitted),
        };
        let Some(slot) = self.payments.next_free() else {
            self.not_taken(arrived, out);
            return;
        };
        let mut record = arrived.record();
        match arrived.vacancy {
            Some(vacancy) => self.index.insert_at(vacancy, slot),
            None => self.index.insert(body.id, slot),
        }
        match admission {
            Err(code) => {
                record.finish(PaymentState::Rejected, code, time, WindowId::NONE);
                self.take_slot(slot, record, arrived.position);
                self.figures.rejected += 1;
                count_outcome(&mut self.figures, &mut self.participants, &record);
                self.note_final(slot, [0; 2], out);
                self.tell_initiator(slot, WordKind::Answer, out);
            }
            Ok(admitted) => {
                record.currency_slot = admitted.currency_slot;
                record.expiry_or_window = time.plus(admitted.expiry_ns).0;
                self.take_slot(slot, record, arrived.position);
                self.open_dates.add(body.id.date());
                let mut rises = None;
                if let Some(debtor) = admitted.debtor {
                    let slot = usize::from(admitted.currency_slot);
                    let account = &mut self.participants[debtor.index()].accounts[slot];
                    account.reserve(record.amount());
                    let (used, cap) = (account.used(), account.cap);
                    rises = (used >= account.rises_at).then_some((debtor, slot));
                    self.open_sum += record.amount().as_position();
                    if used > cap {
                        let payment = record.id;
                        self.note_breach(Breach::OverCap { payment, used, cap });
                    }
                }
                if record.is_kind(Kind::Refund) {
                    self.refunds.take(slot, body.original, record.amount_minor);
                }
                #[cfg(test)]
                self.spoil_acceptance(slot, body);
                let generation = self.payments.generation(slot);
                self.timers.start_doubt(admitted.doubt_class, slot, generation);
                self.figures.accepted += 1;
                self.figures.reserved += 1;
                let mut position = arrived.position;
                if arrived.waited {
                    position = Effect::REQUEST_GIVEN;
                    emit_request(arrived.request, out);
                }
                out.emit(Effect::Forward {
                    slot,
                    responder: record.responder,
                    position,
                    accepted: time,
                    wait_ns: admitted.wait_ns,
                });
                if let Some((debtor, slot)) = rises {
                    self.alarm(debtor, slot, out);
                }
            }
        }
    }

    /// Puts a payment into the table; what goes with the one that makes room is forgotten.
    #[inline]
    fn take_slot(&mut self, slot: PaymentSlot, record: PaymentRecord, position: u64) {
        if let Some(goes) = self.payments.get(slot)
            && goes.makes_mandate()
        {
            self.tokens.remove(&slot.0);
        }
        #[cfg(test)]
        self.spoil_eviction(slot);
        self.payments.put(slot, record, position);
    }

    pub(super) fn date_not_open<O: Outlet>(&mut self, arrived: &Arrived<'_>, out: &mut O) {
        self.figures.dates_not_open += 1;
        let mut record = arrived.record();
        record.code = Code::DateNotOpen as u8;
        self.tell(&record, Code::DateNotOpen, arrived.via(), out);
    }

    /// The rules a new payment must pass, in the order in which they are told.
    #[inline]
    fn admit(&self, body: &PaymentBody, original: Original<'_>, time: UtcNanos) -> Result<Admitted, NotRefundable> {
        let refused = NotRefundable::Refused;
        let initiator_index = body.id.originator();
        let initiator = self
            .participants
            .get(initiator_index.index())
            .ok_or(refused(Code::UnknownParticipant))?;
        let responder = self
            .participants
            .get(body.responder.index())
            .ok_or(refused(Code::UnknownParticipant))?;
        if body.responder == initiator_index {
            return Err(refused(Code::OnUs));
        }
        if !initiator.may_initiate() {
            return Err(refused(Code::InitiatorSuspended));
        }
        if !responder.may_be_asked() {
            return Err(refused(Code::ResponderSuspended));
        }
        let kind = body.kind().ok_or(refused(Code::KindNotPermitted))?;
        let roles_fit = initiator.role == Role::Institution && responder.role == Role::Bank;
        if !roles_fit || !initiator.terms.permits(kind) || !responder.terms.permits(kind) {
            return Err(refused(Code::KindNotPermitted));
        }
        let currency_slot = self
            .currency_slot(body.currency())
            .ok_or(refused(Code::CurrencyNotOpen))?;
        if !initiator.accounts[currency_slot].open
            || !responder.accounts[currency_slot].open
            || !self.windows.is_open(currency_slot)
        {
            return Err(refused(Code::CurrencyNotOpen));
        }
        let amount = body.amount();
        if (amount.0 == 0) != (kind.direction() == Direction::None) {
            return Err(refused(Code::AmountInvalid));
        }
        if amount.0 > self.scheme.maximum_minor {
            return Err(refused(Code::OverSchemeMaximum));
        }
        let over = |limit: u64| limit != 0 && amount.0 > limit;
        if over(initiator.terms.payment_limit_minor) || over(responder.terms.payment_limit_minor) {
            return Err(refused(Code::OverAgreedLimit));
        }
        if kind == Kind::Refund {
            self.refundable(body, original, time)?;
        }
        let debtor = parties(kind, initiator_index, body.responder).map(|parties| parties.debtor);
        let over_cap =
            debtor.is_some_and(|debtor| !self.participants[debtor.index()].accounts[currency_slot].admits(amount));
        #[cfg(test)]
        let over_cap = over_cap && !self.gets_wrong(super::fault::Fault::AdmitOverCap);
        if over_cap {
            return Err(refused(Code::CoverExceeded));
        }
        Ok(Admitted {
            debtor,
            currency_slot: currency_slot as u8,
            expiry_ns: responder.expiry_ns(kind),
            wait_ns: responder.terms.wait_ns,
            doubt_class: responder.doubt_class,
        })
    }

    /// A request whose id is that of `payment`, which is in `slot` or came from the register.
    pub(super) fn repeated<O: Outlet>(
        &mut self,
        payment: &PaymentRecord,
        slot: Option<PaymentSlot>,
        mandate_token: [u64; 2],
        arrived: &Arrived<'_>,
        out: &mut O,
    ) {
        if payment.digest != arrived.digest {
            self.figures.ids_reused += 1;
            self.tell(payment, Code::IdReused, arrived.via(), out);
            return;
        }
        self.figures.duplicates += 1;
        if payment.is_open() {
            self.tell(payment, Code::InProgress, arrived.via(), out);
            return;
        }
        let initiator = payment.initiator();
        let Some(word) = self.number_word(initiator, WordKind::DuplicateAnswer, payment.id, slot, out) else {
            return;
        };
        if out.listens() {
            let mut answer = payment.answer(word, payment.code, AnswerFlags::DUPLICATE);
            answer.mandate_token = mandate_token;
            out.emit(Effect::Frame(EffectFrame::new(initiator, arrived.via(), &answer)));
        }
    }

    /// An unnumbered answer, by the link that asked. An originator outside the directory can not be told.
    pub(super) fn tell<O: Outlet>(&self, payment: &PaymentRecord, code: Code, via: LinkId, out: &mut O) {
        let initiator = payment.initiator();
        if initiator.index() >= self.participants.len() {
            return;
        }
        let mut answer = payment.answer(0, code as u8, 0);
        if matches!(code, Code::DateNotOpen | Code::IdReused | Code::NotTaken) {
            (answer.state, answer.window, answer.final_ns) = (0, WindowId::NONE, 0);
        }
        out.emit(Effect::Frame(EffectFrame::new(initiator, via, &answer)));
    }
}

/// What admission found out about an accepted payment.
struct Admitted {
    /// Who will owe, where money moves.
    debtor: Option<ParticipantIndex>,
    currency_slot: u8,
    expiry_ns: u64,
    wait_ns: u64,
    doubt_class: usize,
}

#[inline]
fn new_record(body: &PaymentBody, digest: u64, link: u32, time: UtcNanos) -> PaymentRecord {
    PaymentRecord {
        id: body.id,
        digest,
        amount_minor: body.amount_minor,
        time_ns: time.0,
        expiry_or_window: 0,
        link,
        responder: body.responder,
        currency: body.currency,
        kind: body.kind,
        scene: body.scene,
        state: PaymentState::Reserved as u8,
        code: Code::InProgress as u8,
        attempts: 0,
        currency_slot: 0,
        step: body.step,
        reserved: 0,
    }
}

/// The request that the next Forward is about, in two parts.
fn emit_request<O: Outlet>(request: &RequestEvent, out: &mut O) {
    let bytes: &[u8; 128] = bytemuck::cast_ref(request);
    let (halves, _) = bytes.as_chunks::<64>();
    for (half, bytes) in (0u8..).zip(halves) {
        out.emit(Effect::Request { half, bytes: *bytes });
    }
}
