//! One evening: the same events for engine, model and witness, and what must hold after each of them.

use std::collections::{BTreeMap, BTreeSet};

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};

use super::acts::Act;
use super::reference::{Account, Model};
use super::residency::Waits;
use super::said::{Said, frame_said, said};
use super::terms::{HKD, PARTICIPANTS, participant, scheme};
use super::witness::{Accounts, Asked, Witness};
use crate::clearing::fault::Fault;
use crate::clearing::{Engine, Event, Outlet, Recalled};
use crate::domain::{
    Currency, CurrencyTerms, Kind, LinkId, ParticipantIndex, ParticipantTerms, PaymentId, PaymentState, Position,
    SECOND, UtcNanos, WindowId,
};
use crate::wire::{
    AnswerFlags, CoverMovement, CoverReason, Effect, EffectFrame, FindingEvent, Frame, InquiryAnswer, LookUp,
    PaymentBody, RecordKind, RegisterEntry, WindowAction, WordEntry, WordKind,
};

/// 23:50 in Shanghai: ten minutes before the business date turns.
const EVENING: UtcNanos = UtcNanos(1_795_449_000 * SECOND);

/// How many payments the engine holds: few, so that most evenings see some of them go.
const RESIDENT: [u32; 4] = [16, 8, 32, 64];

/// What a register is told, in the simplest form there is.
#[derive(Default)]
struct Register {
    entries: BTreeMap<PaymentId, RegisterEntry>,
    words: BTreeMap<(u16, u64), WordEntry>,
}

/// The effects of one event, and what it tells the register.
struct Heard<'a> {
    effects: Vec<Effect>,
    register: &'a mut Register,
    /// What the cover of each account came to, as its movements tell it.
    covers: &'a mut BTreeMap<(u16, u16), Position>,
}

impl Outlet for Heard<'_> {
    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn keeps_register(&self) -> bool {
        true
    }

    fn registered(&mut self, entry: &RegisterEntry) {
        let before = self.register.entries.insert(entry.id, *entry);
        assert_eq!(before, None, "{} is final twice", entry.id);
    }

    fn cover_moved(&mut self, movement: &CoverMovement) {
        let account = (movement.participant.0, movement.currency.0);
        let told = match movement.reason {
            CoverReason::Opening => {
                assert!(!self.covers.contains_key(&account), "opened twice: {movement:?}");
                self.covers.entry(account).or_default()
            }
            CoverReason::CoverIn | CoverReason::CoverOut | CoverReason::Settled => {
                assert!(movement.change_minor != 0, "a movement of nothing: {movement:?}");
                self.covers.entry(account).or_default()
            }
        };
        *told += movement.change_minor;
        assert_eq!(*told, movement.cover_minor, "invariant 2: {movement:?}");
    }

    fn worded(&mut self, word: &WordEntry) {
        let before = self.register.words.insert((word.participant.0, word.number), *word);
        assert_eq!(before, None, "a number given twice");
    }
}

/// Whose word is taken for what must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Judge {
    /// Engine and model agree on everything.
    Model,
    /// The invariants hold, and replay gives the same state.
    Witness,
    Both,
    /// The engine's own: it holds the invariants live.
    Engine,
    /// Nobody's: only what the evening came to is asked for.
    Nobody,
}

impl Judge {
    fn asks_model(self) -> bool {
        self == Self::Model || self == Self::Both
    }

    fn asks_witness(self) -> bool {
        self == Self::Witness || self == Self::Both
    }
}

pub(super) struct Stage {
    pub(super) engine: Engine,
    pub(super) model: Model,
    witness: Witness,
    journal: Vec<Record>,
    pub(super) time: UtcNanos,
    pub(super) sent: Vec<PaymentBody>,
    slots: Vec<(u32, PaymentId)>,
    /// What the engine has told the register.
    register: Register,
    covers: BTreeMap<(u16, u16), Position>,
    /// Look-ups that are not answered.
    asked: Vec<LookUp>,
    answered: Option<FindingEvent>,
    /// Every numbered word, by participant.
    words: Vec<Vec<Said>>,
    judge: Judge,
    /// The states in which payments of each kind ever were.
    pub(super) states: BTreeSet<(Kind, PaymentState)>,
}

/// An event as it stands in the journal; the payload in words, so that it is aligned.
struct Record {
    kind: RecordKind,
    time: UtcNanos,
    payload: Vec<u64>,
    length: usize,
}

impl Record {
    fn apply<O: Outlet>(&self, number: usize, engine: &mut Engine, out: &mut O) {
        let event = Event {
            kind: self.kind,
            number: number as u64,
            time: self.time,
            position: number as u64 * 256,
            payload: self.bytes(),
        };
        engine.apply(&event, out);
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.payload)[..self.length]
    }
}

/// Plays an evening to its end with an engine that gets `fault` wrong, or says at which act what did not hold.
pub(super) fn play(fault: Option<Fault>, acts: &[Act], judge: Judge) -> Result<Stage, String> {
    let mut stage = Stage {
        engine: Engine::with_fault(fault),
        model: Model::new(),
        witness: Witness::default(),
        journal: Vec::new(),
        time: EVENING,
        sent: Vec::new(),
        slots: Vec::new(),
        register: Register::default(),
        covers: BTreeMap::new(),
        asked: Vec::new(),
        answered: None,
        words: vec![Vec::new(); usize::from(PARTICIPANTS)],
        judge,
        states: BTreeSet::new(),
    };
    stage.event(
        RecordKind::Genesis,
        bytes_of(&scheme(RESIDENT[acts.len() % RESIDENT.len()])),
        None,
    )?;
    for index in 0..PARTICIPANTS {
        stage.event(RecordKind::Participant, bytes_of(&participant(index)), None)?;
    }
    // The second currency's first window is left to the acts.
    stage.window(WindowAction::Open, Currency::CNY, WindowId::NONE)?;
    for (nth, act) in acts.iter().enumerate() {
        stage.act(act).map_err(|why| format!("at act {nth}, {act:?}: {why}"))?;
    }
    stage.end()?;
    Ok(stage)
}

impl Stage {
    pub(super) fn event(
        &mut self,
        kind: RecordKind,
        payload: &[u8],
        request: Option<&PaymentBody>,
    ) -> Result<(), String> {
        let mut words = vec![0u64; payload.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..payload.len()].copy_from_slice(payload);
        let record = Record {
            kind,
            time: self.time,
            payload: words,
            length: payload.len(),
        };
        let number = self.journal.len() + 1;
        let mut heard = Heard {
            effects: Vec::new(),
            register: &mut self.register,
            covers: &mut self.covers,
        };
        record.apply(number, &mut self.engine, &mut heard);
        let effects = heard.effects;
        if kind == RecordKind::Restart {
            // They are asked again.
            self.asked.clear();
        }
        self.asked.extend(effects.iter().filter_map(|effect| match effect {
            Effect::LookUp(look_up) => Some(*look_up),
            _ => None,
        }));
        let expected = self.model.apply(kind, self.time, number as u64 * 256, record.bytes());
        self.journal.push(record);
        let now = self.model.payments.iter();
        self.states
            .extend(now.filter_map(|payment| payment.body.kind().map(|kind| (kind, payment.state))));
        let forwarded = request.map_or(PaymentId::default(), |body| body.id);
        let mut heard = Vec::new();
        for effect in &effects {
            heard.push(said(effect, forwarded, &mut self.slots)?);
        }
        if self.judge.asks_model() {
            self.compare_said(&heard, &expected)?;
            self.compare_state()?;
        }
        if self.judge.asks_witness() {
            let windows = self.engine.snapshot().windows;
            let order = (kind == RecordKind::Order).then(|| pod_read_unaligned(payload));
            let accounts = self.accounts();
            self.witness.check(
                Asked {
                    number: number as u64,
                    request,
                    order,
                },
                &heard,
                &windows,
                &accounts,
            )?;
            let told = |participant: usize, currency: u16| self.covers.get(&(participant as u16, currency)).copied();
            for (participant, accounts) in accounts.iter().enumerate() {
                for (currency, account) in accounts {
                    let cover = told(participant, *currency).unwrap_or(0);
                    agree(&"invariant 2: cover, and its movements as told", &account.cover, &cover)?;
                }
            }
        }
        if self.judge == Judge::Engine
            && let Some(breach) = self.engine.breach()
        {
            return Err(breach.to_string());
        }
        if self.judge.asks_model() && self.engine.planted.is_none() {
            agree(&"a breach", &self.engine.breach().map(ToString::to_string), &None)?;
        }
        Ok(())
    }

    /// The register answers a look-up, or the last one that it answered once more.
    pub(super) fn finding(&mut self, nth: usize, again: bool) -> Result<(), String> {
        let finding = match self.answered.filter(|_| again) {
            Some(finding) => finding,
            None if self.asked.is_empty() => return Ok(()),
            None => {
                let look_up = self.asked.remove(nth % self.asked.len());
                FindingEvent::new(look_up, self.register.entries.get(&look_up.id))
            }
        };
        self.answered = Some(finding);
        let waits = self.model.waiting.iter().find(|waiting| waiting.event == finding.event);
        let request = waits.and_then(|waiting| match &waiting.what {
            Waits::Request(event, _) => Some(event.body),
            Waits::Reply(_) => None,
        });
        self.event(RecordKind::Finding, bytes_of(&finding), request.as_ref())
    }

    /// The engine is saved, and what was loaded goes on in its place.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        let mut saved = Vec::new();
        self.engine.save(&mut saved).expect("memory takes it");
        let mut loaded = Engine::load(&mut saved.as_slice()).map_err(|error| error.to_string())?;
        loaded.planted = self.engine.planted;
        agree(
            &"the saved state's hash",
            &loaded.state_hash(),
            &self.engine.state_hash(),
        )?;
        agree(
            &"the saved state's mark",
            &loaded.state_mark(),
            &self.engine.state_mark(),
        )?;
        self.engine = loaded;
        Ok(())
    }

    /// (a): everything that leaves the switch, in order.
    fn compare_said(&mut self, heard: &[Said], expected: &[Said]) -> Result<(), String> {
        if let Some(at) = (0..heard.len().max(expected.len())).find(|&at| heard.get(at) != expected.get(at)) {
            let (engine, model) = (heard.get(at), expected.get(at));
            return Err(format!(
                "the {at}. effect: the engine says\n{engine:?}, the model\n{model:?}"
            ));
        }
        for said in heard {
            let (to, word) = match said {
                Said::Answer { to, answer, .. } => (*to, answer.0.word),
                Said::Notice { to, notice } => (*to, notice.0.word),
                Said::Reversal { to, reversal } if reversal.0.attempt == 1 => (*to, reversal.0.word),
                Said::Forward { .. }
                | Said::Status { .. }
                | Said::Reversal { .. }
                | Said::Release { .. }
                | Said::LookUp { .. }
                | Said::Request { .. }
                | Said::Contract { .. }
                | Said::Ordered { .. }
                | Said::CoverAlarm { .. }
                | Said::Cut { .. } => continue,
            };
            if word > 0 {
                let index = usize::from(to);
                self.words.resize(self.words.len().max(index + 1), Vec::new());
                self.words[index].push(*said);
            }
        }
        Ok(())
    }

    /// (b): every payment, account, window, exception and figure, the next word numbers and the next deadline.
    fn compare_state(&mut self) -> Result<(), String> {
        for payment in &self.model.payments {
            let id = payment.body.id;
            let recalled = self.engine.inquire(id.originator(), LinkId(1), id, 0);
            let now = match recalled.frame() {
                Some(frame) => InquiryAnswer::read(&frame.bytes),
                None => {
                    let entry = self.register.entries.get(&id);
                    let entry = entry.ok_or_else(|| format!("{id} has gone and is not in the register"))?;
                    entry.inquiry_answer(id.originator(), 0)
                }
            };
            let away = recalled.frame().is_none();
            agree(&format_args!("payment {id} has gone"), &away, &self.model.is_away(id))?;
            let engine = (
                now.state,
                now.code,
                now.window,
                now.final_ns,
                now.amount_minor,
                now.currency,
                now.kind,
            );
            let body = &payment.body;
            let (code, finished) = (payment.code as u8, payment.finished.0);
            let state = payment.state as u8;
            let model = (
                state,
                code,
                payment.window,
                finished,
                body.amount_minor,
                body.currency,
                body.kind,
            );
            agree(
                &format_args!("payment {id}: state, code, window, final time …"),
                &engine,
                &model,
            )?;
        }
        for (index, (engine, member)) in (0u16..).zip(self.accounts().iter().zip(&self.model.members)) {
            agree(&format_args!("accounts of {index}"), engine, &member.accounts)?;
            let next = self.engine.next_word(ParticipantIndex(index));
            agree(&format_args!("the next word of {index}"), &next, &member.next_word)?;
            let accounts = &self.engine.participants[usize::from(index)].accounts;
            let levels = [&accounts[0], &accounts[1]].map(|account| account.level_bp());
            let model = [Currency::CNY, HKD].map(|currency| member.levels.get(&currency.0).copied().unwrap_or(0));
            agree(
                &format_args!("the alarms of {index}"),
                &levels,
                &model.map(|level| level as u16 * 100),
            )?;
            let terms = ParticipantTerms {
                accounts: [CurrencyTerms::zeroed(); 4],
                ..self.engine.participants[usize::from(index)].terms
            };
            let model = ParticipantTerms {
                accounts: [CurrencyTerms::zeroed(); 4],
                ..member.terms
            };
            agree(&format_args!("the terms of {index}"), &terms, &model)?;
            let success = self.engine.success(ParticipantIndex(index));
            agree(&format_args!("the success of {index}"), &success, &member.success)?;
        }
        agree(
            &"how many participants",
            &self.engine.participant_count(),
            &self.model.members.len(),
        )?;
        let proposals: Vec<_> = self
            .engine
            .proposals()
            .iter()
            .map(|p| (p.event, p.time, p.order))
            .collect();
        let open = self.model.proposals.iter();
        // Those that have lapsed by now go with the next order.
        let open = open.filter(|p| self.model.time < p.made.plus(7 * 86_400 * SECOND));
        agree(
            &"proposals",
            &proposals,
            &open.map(|p| (p.event, p.made, p.order)).collect(),
        )?;
        let outcomes: Vec<_> = self
            .engine
            .order_outcomes()
            .iter()
            .map(|o| (o.event, o.time, o.outcome, o.order))
            .collect();
        agree(&"outcomes of orders", &outcomes, &self.model.outcomes)?;
        let snapshot = self.engine.snapshot();
        agree(&"how many windows", &snapshot.windows.len(), &self.model.windows.len())?;
        for (engine, model) in snapshot.windows.iter().zip(&self.model.windows) {
            let theirs: BTreeMap<u16, i128> = engine.nets.iter().map(|(index, net)| (index.0, *net)).collect();
            let ours: BTreeMap<u16, i128> = model
                .nets
                .iter()
                .filter(|(_, net)| **net != 0)
                .map(|(&index, &net)| (index, net))
                .collect();
            agree(&format_args!("the nets of {}", model.id), &theirs, &ours)?;
            let engine = (
                engine.id,
                engine.currency,
                engine.state,
                engine.opened,
                engine.closed,
                engine.committed,
                engine.gross,
            );
            let model = (
                model.id,
                model.currency.0,
                model.state,
                model.opened,
                model.closed,
                model.committed,
                model.gross,
            );
            agree(
                &"window: id, currency, state, opened, closed, committed, gross",
                &engine,
                &model,
            )?;
        }
        let exceptions: Vec<_> = self
            .engine
            .exceptions()
            .iter()
            .map(|item| (item.payment, item.what, item.time))
            .collect();
        agree(&"exception items", &exceptions, &self.model.exceptions)?;
        self.compare_figures()?;
        agree(
            &"the next deadline",
            &self.engine.next_deadline(),
            &self.model.next_deadline(),
        )
    }

    fn compare_figures(&self) -> Result<(), String> {
        let numbers = |figures: &crate::clearing::Figures| {
            [
                figures.accepted,
                figures.reserved,
                figures.in_doubt,
                figures.committed,
                figures.declined,
                figures.rejected,
                figures.expired,
                figures.duplicates,
                figures.ids_reused,
                figures.dates_not_open,
                figures.late_words,
                figures.conflicts,
                figures.replies_refused,
                figures.status_requests,
                figures.parked,
                figures.look_ups,
                figures.not_taken,
                figures.replies_dropped,
            ]
        };
        let (engine, model) = (self.engine.figures(), &self.model.figures);
        agree(
            &"figures: accepted, reserved, in doubt …",
            &numbers(engine),
            &numbers(model),
        )?;
        agree(&"figures by code", &engine.by_code, &model.by_code)?;
        agree(&"figures by scene", &engine.by_scene, &model.by_scene)?;
        agree(&"figures by kind", &engine.by_kind, &model.by_kind)
    }

    /// The engine's accounts.
    fn accounts(&self) -> Accounts {
        let currencies = [Currency::CNY, HKD];
        let mut all = Vec::new();
        for member in &self.engine.participants {
            let mut accounts = BTreeMap::new();
            for (account, currency) in member.accounts.iter().zip(currencies) {
                if account.open {
                    let now = Account {
                        position: account.position,
                        reserved: account.reserved,
                        cover: account.cover,
                        cap: account.cap,
                    };
                    accounts.insert(currency.0, now);
                }
            }
            all.push(accounts);
        }
        all
    }

    /// Every timer runs out, so that every payment becomes final; then words can be told again, and replay gives the same.
    fn end(&mut self) -> Result<(), String> {
        while !self.asked.is_empty() {
            self.finding(0, false)?;
        }
        self.time = self.time.plus(300 * SECOND);
        self.event(RecordKind::Tick, &[], None)?;
        agree(&"events that wait", &self.engine.figures().parked, &0)?;
        for currency in [Currency::CNY, HKD] {
            self.window(WindowAction::Close, currency, WindowId::NONE)?;
        }
        agree(&"open payments", &self.engine.figures().open(), &0)?;
        if self.judge.asks_model() {
            self.words_again()?;
        }
        if self.judge.asks_witness() {
            let mut engine = Engine::with_fault(self.engine.planted);
            for (nth, record) in self.journal.iter().enumerate() {
                record.apply(nth + 1, &mut engine, &mut ());
            }
            agree(
                &"invariant 8: the state hash in replay",
                &engine.state_hash(),
                &self.engine.state_hash(),
            )?;
        }
        Ok(())
    }

    /// A word whose payment the engine holds no more, as the register tells it again.
    fn word_of_register(&self, to: u16, word: u64, said: &Said) -> Result<Option<EffectFrame>, String> {
        let entry = self.register.words.get(&(to, word));
        let entry = entry.ok_or_else(|| format!("word {word} to {to} is nowhere"))?;
        let payment = self.register.entries.get(&entry.id);
        let payment = payment.ok_or_else(|| format!("{} is nowhere", entry.id))?;
        let kind = WordKind::from_u8(entry.kind).ok_or("a word of no kind")?;
        let to = ParticipantIndex(to);
        if kind != WordKind::Reversal && self.model.is_resident(entry.id) && !self.model.is_away(entry.id) {
            return Err(format!("{} is held and its word {word} is not", entry.id));
        }
        Ok(match kind {
            WordKind::Answer | WordKind::DuplicateAnswer => {
                let answer = payment.answer(word, kind.flags_again());
                Some(EffectFrame::new(to, LinkId::NONE, &answer))
            }
            WordKind::FinalNotice => {
                let notice = payment.final_notice(word, kind.flags_again());
                Some(EffectFrame::new(to, LinkId::NONE, &notice))
            }
            // One that was forgotten: nobody refunds so old a payment, and nobody is told again.
            WordKind::Reversal => match said {
                Said::Reversal { reversal, .. } => {
                    let mut reversal = reversal.0;
                    reversal.flags |= AnswerFlags::RETRANSMITTED;
                    Some(EffectFrame::new(to, LinkId::NONE, &reversal))
                }
                _ => None,
            },
        })
    }

    /// Every word can be told again, as it was but for the flag that says so; of a Reversal the last attempt.
    fn words_again(&self) -> Result<(), String> {
        for (to, words) in (0u16..).zip(&self.words) {
            for (word, said) in (1u64..).zip(words) {
                let recalled = self.engine.word_again(ParticipantIndex(to), LinkId::NONE, word);
                let recalled = recalled.ok_or_else(|| format!("word {word} to {to} is unknown"))?;
                let frame = match recalled {
                    Recalled::Frame(frame) => Some(frame),
                    Recalled::InRegister => self.word_of_register(to, word, said)?,
                };
                let again = frame.map(|frame| frame_said(&frame)).transpose()?;
                let mut first = *said;
                match &mut first {
                    Said::Answer { answer, via, .. } => {
                        answer.0.flags |= AnswerFlags::RETRANSMITTED;
                        *via = LinkId::NONE;
                    }
                    Said::Notice { notice, .. } => notice.0.flags |= AnswerFlags::RETRANSMITTED,
                    Said::Reversal { reversal, .. } => {
                        reversal.0.flags |= AnswerFlags::RETRANSMITTED;
                        if let Some(Said::Reversal { reversal: now, .. }) = &again {
                            reversal.0.attempt = now.0.attempt;
                            reversal.0.raised_ns = now.0.raised_ns;
                        }
                    }
                    Said::Forward { .. }
                    | Said::Status { .. }
                    | Said::Release { .. }
                    | Said::LookUp { .. }
                    | Said::Request { .. }
                    | Said::Contract { .. }
                    | Said::Ordered { .. }
                    | Said::CoverAlarm { .. }
                    | Said::Cut { .. } => {}
                }
                agree(&format_args!("word {word} to {to} again"), &again, &Some(first))?;
            }
        }
        Ok(())
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(about: &dyn std::fmt::Display, engine: &T, model: &T) -> Result<(), String> {
    if engine == model {
        Ok(())
    } else {
        Err(format!("{about}: the engine has {engine:?}, expected is {model:?}"))
    }
}
