//! The office behind the admin socket: takes a request line, gives a JSON answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use super::asked::{Asked, OrderAsked, Plan, ordered_json, orders_json, terms_json};
use super::cover::cover_json;
use super::desk::Desk;
use super::lists::{Wanted, exceptions_json, in_doubt_json};
use super::orders::OrderDesk;
use super::status::{StatusSource, participants_json, status_json, windows_json};
use super::wishes::Wishes;
use crate::agent::Wakeup;
use crate::config::{DirectoryEntry, currency_number};
use crate::domain::Currency;
use crate::link::Roster;

/// The words that are requests by themselves.
const WORDS: &str = "status, participants, cover, windows, in-doubt, exceptions, orders, terms, close-window, settle";

/// What the office works with.
pub struct Office {
    /// Figures of the whole switch.
    pub source: StatusSource,
    /// Where the ledger is asked for.
    pub desk: Desk,
    /// Where orders are given.
    pub orders: Arc<OrderDesk>,
    /// Who may sign on.
    pub roster: Arc<Roster>,
    /// What is wished of windows.
    pub wishes: Arc<Wishes>,
    /// Wakes who closes windows.
    pub steward: Arc<Wakeup>,
    /// Wakes who settles them.
    pub settler: Arc<Wakeup>,
    /// The scheme's currencies.
    pub currencies: Vec<Currency>,
    /// Links by participant.
    pub link_counts: Arc<[AtomicU16]>,
    /// The directory file that the next start will read.
    pub directory: PathBuf,
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").finish_non_exhaustive()
    }
}

impl Office {
    /// Answers one line; `user` is who asks, as the kernel knows him.
    #[must_use]
    pub fn answer(&self, line: &str, user: Option<u32>) -> Value {
        if line.starts_with('{') {
            return match serde_json::from_str(line) {
                Ok(Asked::CloseWindow { currency }) => self.close_window(currency.as_deref()),
                Ok(Asked::Order(asked)) => self.order(&asked, user),
                Err(error) => refusal(format!("the request is not one that the switch knows: {error}")),
            };
        }
        let no_answer = || refusal("clearing did not answer within two seconds");
        match line {
            "status" => status_json(&self.source, self.desk.ask().as_deref()),
            "participants" => self.desk.ask().map_or_else(no_answer, |view| {
                participants_json(&view.snapshot, |index| {
                    let count = self.link_counts.get(index);
                    count.map_or(0, |count| u64::from(count.load(Ordering::Relaxed)))
                })
            }),
            "cover" => self.desk.ask().map_or_else(no_answer, |view| {
                cover_json(&view.snapshot, &self.source.steward.alarms())
            }),
            "windows" => self
                .desk
                .ask()
                .map_or_else(no_answer, |view| windows_json(&view.snapshot)),
            "in-doubt" => self
                .desk
                .ask_with(Wanted::InDoubt)
                .map_or_else(no_answer, |view| in_doubt_json(&view)),
            "exceptions" => self
                .desk
                .ask_with(Wanted::Exceptions)
                .map_or_else(no_answer, |view| exceptions_json(&view)),
            "orders" => self
                .desk
                .ask_with(Wanted::Orders)
                .map_or_else(no_answer, |view| orders_json(&view)),
            "terms" => self.desk.ask().map_or_else(no_answer, |view| {
                let file = std::path::absolute(&self.directory).unwrap_or_else(|_| self.directory.clone());
                terms_json(&view, &self.roster.current(), &file.to_string_lossy())
            }),
            "close-window" => self.close_window(None),
            "settle" => {
                self.wishes.settle.store(true, Ordering::Release);
                self.settler.wake();
                json!({ "requested": true })
            }
            other => refusal(format!("unknown request {other:?}; one of {WORDS}")),
        }
    }

    fn close_window(&self, currency: Option<&str>) -> Value {
        match currency {
            None => self.wishes.close_all(),
            Some(word) => {
                let number = currency_number(word);
                let nth = self.currencies.iter().position(|known| Some(known.0) == number);
                let Some(nth) = nth else {
                    return refusal(format!("the scheme has no window in {word}"));
                };
                self.wishes.close(nth);
            }
        }
        self.steward.wake();
        json!({ "requested": true, "currency": currency })
    }

    fn order(&self, asked: &OrderAsked, user: Option<u32>) -> Value {
        let authority = match self.orders.recognise(&asked.operator, &asked.token) {
            Ok(authority) => authority,
            Err(error) => {
                tracing::warn!(user, "an order was not taken: {error}");
                return refusal(error.to_string());
            }
        };
        // Terms that are read here are those that the order before put in force.
        let _turn = asked.order.rests_on_terms().then(|| self.orders.turn());
        let plan = match asked.order.plan(&self.roster.current(), self.roster.room()) {
            Ok(plan) => plan,
            Err(why) => return refusal(why),
        };
        let (order, joins) = match plan {
            Plan::Order(order, joins) => (order, joins),
            Plan::Introduce(entry) => {
                if let Err(error) = authority.may_order() {
                    return refusal(error.to_string());
                }
                return self.introduce(*entry, &authority.name(), user);
            }
        };
        let step = order.step;
        match self.orders.give(&authority, *order, joins.map(|entry| *entry)) {
            Ok(ordered) => {
                let answer = ordered_json(&ordered, step);
                tracing::info!(
                    operator = authority.name(),
                    user,
                    event = ordered.event,
                    "order {}: {}",
                    answer["action"].as_str().unwrap_or("?"),
                    answer["says"].as_str().unwrap_or_default()
                );
                answer
            }
            Err(error) => {
                tracing::warn!(operator = authority.name(), user, "order: {error}");
                refusal(error.to_string())
            }
        }
    }

    /// Names and credentials are not journaled: the directory file has them at the next start, and the roster until then.
    fn introduce(&self, entry: DirectoryEntry, operator: &str, user: Option<u32>) -> Value {
        let code = entry.terms.code;
        let put = self.roster.put(entry.terms.index, |known| {
            let terms = known?.terms;
            Some(DirectoryEntry { terms, ..entry })
        });
        if !put {
            return refusal(format!("no participant has the code {code}"));
        }
        tracing::info!(
            operator,
            user,
            "name and credential of {code} are new: they count from the next sign-on on"
        );
        json!({ "outcome": "done", "good": true, "says": "name and credential count from the next sign-on on" })
    }
}

fn refusal(why: impl Into<String>) -> Value {
    json!({ "error": why.into() })
}
