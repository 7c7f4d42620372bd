//! What operators are shown, as JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::archivist::ArchivistView;
use super::lists::success_json;
use super::steward::StewardView;
use crate::agent::IntakeGate;
use crate::clearing::{
    ExceptionItem, Figures, InDoubtSnapshot, LedgerSnapshot, OrderOutcomeSnapshot, ProposalSnapshot,
};
use crate::config::suspension_names;
use crate::dispatch::DispatchCounters;
use crate::domain::{Code, Kind, ParticipantIndex, Position, Scene, WindowState};
use crate::follower::FollowerCounters;
use crate::journal::Positions;
use crate::link::LinkCounters;
use crate::settlement::SettlementProgress;

/// The ledger and its counts at one event.
#[derive(Clone, Debug)]
pub struct LedgerView {
    /// Participants and windows.
    pub snapshot: LedgerSnapshot,
    /// Counts.
    pub figures: Figures,
    /// The oldest payments in doubt, where they were asked for.
    pub in_doubt: Vec<InDoubtSnapshot>,
    /// The newest exception items and the banks they are with, where they were asked for.
    pub exceptions: Vec<(ExceptionItem, Option<ParticipantIndex>)>,
    /// How many exception items there are.
    pub exceptions_total: u64,
    /// Proposals that wait for a second person, where they were asked for.
    pub proposals: Vec<ProposalSnapshot>,
    /// What became of the last orders, where that was asked for.
    pub outcomes: Vec<OrderOutcomeSnapshot>,
}

/// What a status is made from, beside the ledger.
#[derive(Clone, Debug)]
pub struct StatusSource {
    /// `uring` or `mio`.
    pub backend: &'static str,
    /// Why.
    pub backend_reason: String,
    /// The hardware profile.
    pub profile: String,
    /// `direct` or `fdatasync`.
    pub sync: &'static str,
    /// The syncer's scheduling class: 0 normal, 1 nice, 2 fifo.
    pub syncer_class: Arc<AtomicU64>,
    /// `locked` or `prefaulted`.
    pub memory: &'static str,
    /// The bound address.
    pub listen: String,
    /// The gate.
    pub gate: Arc<IntakeGate>,
    /// Of each link agent.
    pub links: Vec<Arc<LinkCounters>>,
    /// Of dispatch.
    pub dispatch: Arc<DispatchCounters>,
    /// The journal's.
    pub positions: Arc<Positions>,
    /// The follower's figures, where there is one.
    pub follower: Option<Arc<FollowerCounters>>,
    /// The settler's figures, where files are written.
    pub settlement: Option<Arc<SettlementProgress>>,
    /// The steward's figures.
    pub steward: Arc<StewardView>,
    /// What the start cost, as JSON.
    pub start: Value,
    /// What the archivist has come to.
    pub archivist: ArchivistView,
    /// Wall clock − switch clock, nanoseconds, is asked here.
    pub clock: crate::agent::SwitchClock,
}

/// A sum as a JSON number; sums beyond 64 bits, which no currency has, as text.
pub(super) fn sum(value: Position) -> Value {
    i64::try_from(value).map_or_else(|_| Value::String(value.to_string()), Value::from)
}

/// `status`.
#[must_use]
pub fn status_json(source: &StatusSource, ledger: Option<&LedgerView>) -> Value {
    let count = |pick: fn(&LinkCounters) -> &AtomicU64| -> u64 {
        source
            .links
            .iter()
            .map(|counters| pick(counters).load(Ordering::Relaxed))
            .sum()
    };
    let class = match source.syncer_class.load(Ordering::Relaxed) {
        2 => "fifo",
        1 => "nice",
        3 => "low",
        _ => "normal",
    };
    let positions = &source.positions;
    let mut status = json!({
        "ready": source.gate.is_open(),
        "pid": std::process::id(),
        "backend": source.backend,
        "backend_reason": source.backend_reason,
        "profile": source.profile,
        "sync": source.sync,
        "syncer_class": class,
        "memory": source.memory,
        "listen": source.listen,
        "links": count(|c| &c.established),
        "connections": count(|c| &c.connections),
        "links_cut": count(|c| &c.cut),
        "links_clogged": count(|c| &c.clogged),
        "intake": source.gate.state().name(),
        "clock_difference_ns": source.clock.difference_ns(),
        "journal": {
            "appended": positions.appended(),
            "durable": positions.durable(),
            "applied": positions.applied(),
            "prepared": positions.prepared(),
            "bytes_synced": positions.synced_bytes(),
            "syncs": positions.syncs(),
        },
        "close_next_ns": close_next(&source.steward),
        "alarms": {
            "raised": source.steward.alarms_raised.load(Ordering::Relaxed),
            "fallen": source.steward.alarms_fallen.load(Ordering::Relaxed),
            "left_out": source.steward.alarms_left_out.load(Ordering::Relaxed),
        },
        "start": source.start,
        "follower": source.follower.as_ref().map(|follower| follower.json(positions.durable())),
        "settlement": source.settlement.as_ref().map_or_else(|| json!({ "files_are_written": false }), |progress| progress.json()),
        "chain": source.archivist.chain_json(),
        "archive": source.archivist.archive_json(),
        "requests": count(|c| &c.requests),
        "replies": count(|c| &c.replies),
        "refused_at_door": count(|c| &c.refused_at_door),
        "frames_sent": count(|c| &c.frames_sent),
        "sends": count(|c| &c.sends),
        "waiting": source.dispatch.waiting.load(Ordering::Relaxed),
        "not_sent": source.dispatch.not_sent.load(Ordering::Relaxed) + count(|c| &c.not_sent),
        "returned": source.dispatch.returned.load(Ordering::Relaxed),
        "words_held": source.dispatch.words_held.load(Ordering::Relaxed),
        "system_calls": count(|c| &c.system_calls) + positions.syncs(),
    });
    if let (Some(ledger), Some(fields)) = (ledger, status.as_object_mut()) {
        let more = ledger_json(ledger);
        if let Value::Object(more) = more {
            fields.extend(more);
        }
    }
    status
}

/// When windows close next; nothing where only an operator closes them.
fn close_next(steward: &StewardView) -> Option<u64> {
    Some(steward.next_close_ns.load(Ordering::Relaxed)).filter(|&next| next != u64::MAX)
}

fn ledger_json(ledger: &LedgerView) -> Value {
    let (snapshot, figures) = (&ledger.snapshot, &ledger.figures);
    let open = snapshot.windows.iter().rev().find(|w| w.state == WindowState::Open);
    let largest = snapshot.participants.iter().max_by_key(|p| p.position.unsigned_abs());
    let by_code: serde_json::Map<String, Value> = Code::ALL
        .iter()
        .filter(|&&code| figures.by_code[code as usize] > 0)
        .map(|&code| {
            (
                format!("{:02}", code as u8),
                Value::from(figures.by_code[code as usize]),
            )
        })
        .collect();
    let success = |name: &str, figure: [u64; 2]| (figure[0] > 0).then(|| (name.to_owned(), success_json(figure)));
    let by_kind: serde_json::Map<String, Value> = Kind::ALL
        .iter()
        .filter_map(|&kind| success(kind.name(), figures.by_kind[kind as usize]))
        .collect();
    let by_scene: serde_json::Map<String, Value> = Scene::ALL
        .iter()
        .filter_map(|&scene| success(scene.name(), figures.by_scene[scene as usize]))
        .collect();
    json!({
        "events": snapshot.event_number,
        "breach": snapshot.breach,
        "payments": {
            "accepted": figures.accepted,
            "reserved": figures.reserved,
            "in_doubt": figures.in_doubt,
            "committed": figures.committed,
            "declined": figures.declined,
            "rejected": figures.rejected,
            "expired": figures.expired,
            "duplicates": figures.duplicates,
            "ids_reused": figures.ids_reused,
            "late_words": figures.late_words,
            "conflicts": figures.conflicts,
            "status_requests": figures.status_requests,
            "replies_refused": figures.replies_refused,
            "by_code": by_code,
            "by_kind": by_kind,
            "by_scene": by_scene,
        },
        "reversals": { "due": snapshot.reversals_open[0], "manual": snapshot.reversals_open[1] },
        "exceptions": ledger.exceptions_total,
        "window": open.map(|w| json!({
            "id": w.id.to_string(),
            "currency": w.currency,
            "committed": w.committed,
        })),
        "alarmed": alarmed(snapshot),
        "reserved_minor": sum(snapshot.participants.iter().map(|p| p.reserved).sum()),
        "largest_position": largest.map(|p| json!({ "code": p.code.text(), "minor": sum(p.position) })),
    })
}

/// Accounts by the level that their alarm has come to, per cent of the cap.
fn alarmed(snapshot: &LedgerSnapshot) -> Value {
    let mut levels =
        std::collections::BTreeMap::from([("50".to_owned(), 0_u64), ("75".to_owned(), 0), ("90".to_owned(), 0)]);
    let accounts = snapshot
        .participants
        .iter()
        .flat_map(|participant| &participant.accounts);
    for account in accounts.filter(|account| account.level_bp > 0) {
        *levels.entry((account.level_bp / 100).to_string()).or_default() += 1;
    }
    json!(levels)
}

/// `participants`.
#[must_use]
pub fn participants_json(snapshot: &LedgerSnapshot, links: impl Fn(usize) -> u64) -> Value {
    let participants: Vec<Value> = snapshot
        .participants
        .iter()
        .map(|p| {
            json!({
                "index": p.index.0,
                "code": p.code.text(),
                "links": links(p.index.index()),
                "suspended": suspension_names(p.suspended),
                "alarm_bp": p.level_bp,
                "position_minor": sum(p.position),
                "reserved_minor": sum(p.reserved),
                "cover_minor": sum(p.cover),
                "cap_minor": sum(p.cap),
                "as_initiator": success_json(p.success.as_initiator),
                "as_responder": success_json(p.success.as_responder),
            })
        })
        .collect();
    json!({ "participants": participants })
}

/// `windows`.
#[must_use]
pub fn windows_json(snapshot: &LedgerSnapshot) -> Value {
    let windows: Vec<Value> = snapshot
        .windows
        .iter()
        .map(|w| {
            let nets: Vec<Value> = w.nets.iter().map(|(index, net)| json!([index.0, sum(*net)])).collect();
            json!({
                "id": w.id.to_string(),
                "currency": w.currency,
                "state": w.state.name(),
                "opened_ns": w.opened.0,
                "closed_ns": w.closed.0,
                "committed": w.committed,
                "gross_minor": sum(w.gross),
                "nets": nets,
            })
        })
        .collect();
    json!({ "windows": windows })
}
