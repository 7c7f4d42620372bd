//! A window as a page for people: what it came to, who pays whom, what succeeded, and where the other files are.
//!
//! The page needs nothing but itself: no script, nothing from outside. It is a pure function of the statement.

use std::fmt::{Display, Write};

use quick_xml::escape::escape;

use super::xml::{hexadecimal, utc_nanos};
use super::{PartyStatement, Tally, WindowStatement, charts};
use crate::domain::{Code, Currency, Kind, NANOS_PER_SECOND, ParticipantIndex, Position, Role, Scene, UtcNanos};

const STYLE: &str = include_str!("page.css");

/// The whole page, UTF-8 HTML. Its links are relative: they hold in the window's directory.
#[must_use]
pub fn to_html(statement: &WindowStatement) -> Vec<u8> {
    let mut page = String::with_capacity(64 * 1024 + 1_024 * statement.parties.len());
    let window = statement.window;
    put(
        &mut page,
        format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{window} · {}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n",
            statement.currency.alphabetic()
        ),
    );
    header(&mut page, statement);
    page.push_str("<main>\n");
    totals(&mut page, statement);
    charts::nets(&mut page, statement);
    charts::minutes(&mut page, statement);
    charts::flows(&mut page, statement);
    success(&mut page, statement);
    codes(&mut page, statement);
    participants(&mut page, statement);
    files(&mut page, statement);
    proof(&mut page, statement);
    page.push_str("</main>\n</body>\n</html>\n");
    page.into_bytes()
}

fn header(page: &mut String, statement: &WindowStatement) {
    put(
        page,
        format_args!(
            "<header>\n<p class=\"over\">Clearing window · {scheme}</p>\n<h1>{window}<span class=\"badge\">{currency}</span></h1>\n\
             <p>{opened} to {closed} <span class=\"quiet\">Asia/Shanghai, open for {duration}</span></p>\n\
             <p class=\"root\"><span class=\"quiet\">Root</span> <code>{root}</code></p>\n</header>\n",
            scheme = text(statement.scheme),
            window = statement.window,
            currency = statement.currency.alphabetic(),
            opened = time(statement.opened),
            closed = time(statement.closed),
            duration = duration(statement.closed.since(statement.opened)),
            root = hexadecimal(&statement.root),
        ),
    );
}

fn totals(page: &mut String, statement: &WindowStatement) {
    let currency = statement.currency;
    let (pay, are_paid) = charts::sides(statement);
    let net: Position = pay.iter().map(|p| p.net_minor()).sum();
    let all = &statement.tallies.all;
    let average = match statement.committed {
        0 => "no payment".to_owned(),
        n => format!(
            "{} {} a payment on average",
            currency.alphabetic(),
            money(statement.gross_minor / Position::from(n), currency)
        ),
    };
    page.push_str("<section class=\"totals\">\n");
    tile(
        page,
        "Payments committed",
        &count(statement.committed),
        &format!("of {} that became final", count(all.all())),
    );
    tile(
        page,
        "Success",
        &share(all.success_bp()),
        &format!(
            "{} declined, {} expired, {} rejected",
            count(all.declined),
            count(all.expired),
            count(all.rejected)
        ),
    );
    tile(page, "Gross", &in_words(statement.gross_minor, currency), &average);
    tile(
        page,
        "Net to be paid",
        &in_words(net, currency),
        &format!(
            "to pay {} · to be paid {} · even {}",
            count(pay.len() as u64),
            count(are_paid.len() as u64),
            count((statement.parties.len() - pay.len() - are_paid.len()) as u64)
        ),
    );
    tile(
        page,
        "Netting efficiency",
        &share(netting_bp(statement.gross_minor, net)),
        "of the gross need not be paid",
    );
    page.push_str("</section>\n");
}

fn tile(page: &mut String, label: &str, value: &str, note: &str) {
    put(
        page,
        format_args!(
            "<div class=\"tile\"><h2>{label}</h2><p class=\"value\">{value}</p><p class=\"quiet\">{note}</p></div>\n"
        ),
    );
}

/// 1 − net ÷ gross, basis points, rounded down; `None` where nothing was to be paid.
fn netting_bp(gross_minor: Position, net_minor: Position) -> Option<u64> {
    if gross_minor <= 0 {
        return None;
    }
    u64::try_from((gross_minor - net_minor) * 10_000 / gross_minor).ok()
}

fn success(page: &mut String, statement: &WindowStatement) {
    let tallies = &statement.tallies;
    if tallies.all.all() == 0 {
        return;
    }
    let head = "<thead><tr><th>%</th><th class=\"wide\">Success</th><th></th><th>Committed</th><th>Declined</th>\
                <th>Expired</th><th>Rejected</th><th>Amount</th></tr></thead>\n";
    page.push_str("<section>\n<h2>How payments ended</h2>\n<p class=\"quiet\">All that became final while the window was open.</p>\n<p class=\"legend\"><span><i class=\"committed\"></i>committed</span><span><i class=\"declined\"></i>declined</span><span><i class=\"expired\"></i>expired</span><span><i class=\"rejected\"></i>rejected</span></p>\n");
    page.push_str("<div class=\"scroll\"><table class=\"success\">\n");
    page.push_str(&head.replace('%', "Kind"));
    page.push_str("<tbody>\n");
    for (&number, tally) in &tallies.by_kind {
        let name = Kind::from_u8(number).map_or("other", Kind::name);
        success_row(page, name, tally, statement.currency);
    }
    page.push_str("</tbody>\n");
    page.push_str(&head.replace('%', "Scene"));
    page.push_str("<tbody>\n");
    for (&number, tally) in &tallies.by_scene {
        let name = Scene::from_u8(number).map_or("none", Scene::name);
        success_row(page, name, tally, statement.currency);
    }
    page.push_str("</tbody>\n<tfoot>\n");
    success_row(page, "all", &tallies.all, statement.currency);
    page.push_str("</tfoot>\n</table></div>\n</section>\n");
}

fn success_row(page: &mut String, name: &str, tally: &Tally, currency: Currency) {
    let part = |n: u64| charts::percent(Position::from(n), Position::from(tally.all()));
    put(
        page,
        format_args!(
            "<tr><th>{name}</th><td class=\"wide\"><span class=\"stack\"><i class=\"committed\" style=\"width:{}\"></i>\
             <i class=\"declined\" style=\"width:{}\"></i><i class=\"expired\" style=\"width:{}\"></i>\
             <i class=\"rejected\" style=\"width:{}\"></i></span></td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            part(tally.committed),
            part(tally.declined),
            part(tally.expired),
            part(tally.rejected),
            share(tally.success_bp()),
            count(tally.committed),
            count(tally.declined),
            count(tally.expired),
            count(tally.rejected),
            money(tally.committed_minor, currency),
            name = name.replace('_', " "),
        ),
    );
}

fn codes(page: &mut String, statement: &WindowStatement) {
    let mut codes: Vec<_> = statement.tallies.by_code.iter().map(|(&code, &n)| (code, n)).collect();
    codes.sort_by_key(|&(code, n)| (std::cmp::Reverse(n), code));
    if codes.is_empty() {
        return;
    }
    let all: u64 = codes.iter().map(|&(_, n)| n).sum();
    let failed_max = codes
        .iter()
        .filter(|(code, _)| *code != 0)
        .map(|&(_, n)| n)
        .max()
        .unwrap_or(0);
    page.push_str(
        "<section>\n<h2>Result codes</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th class=\"words\">Code</th><th class=\"words\">Meaning</th>\
         <th class=\"words\">ISO 20022</th><th>Payments</th><th>Share</th><th class=\"wide\"></th></tr></thead>\n<tbody>\n",
    );
    for (number, n) in codes {
        let code = Code::from_u8(number);
        // Whatever did not succeed is shown against the most frequent reason: against the committed ones nothing would be seen.
        let bar = if number == 0 {
            "0".to_owned()
        } else {
            charts::percent(Position::from(n), Position::from(failed_max))
        };
        put(
            page,
            format_args!(
                "<tr><th class=\"words\">{number:02}</th><td class=\"words\">{}</td><td class=\"words\">{}</td><td>{}</td><td>{}</td>\
                 <td class=\"wide\"><span class=\"bar\"><i class=\"declined\" style=\"width:{bar}\"></i></span></td></tr>\n",
                code.map_or("", Code::meaning),
                code.and_then(Code::iso20022).unwrap_or("–"),
                count(n),
                share_of(n, all),
            ),
        );
    }
    page.push_str("</tbody>\n</table></div>\n</section>\n");
}

fn participants(page: &mut String, statement: &WindowStatement) {
    let currency = statement.currency;
    put(
        page,
        format_args!(
            "<section>\n<h2>Participants</h2>\n<p class=\"quiet\">All {} there were at the close, in the order of their numbers; amounts in {}. A payment counts with both of its participants.</p>\n\
             <div class=\"scroll\"><table class=\"participants\">\n<thead><tr><th>No.</th><th class=\"words\">Code</th><th class=\"words\">Role</th>\
             <th>Payments</th><th>Owes</th><th>Debits</th><th>Is owed</th><th>Credits</th><th>Net</th><th class=\"words\">Files</th></tr></thead>\n<tbody>\n",
            count(statement.parties.len() as u64),
            currency.alphabetic()
        ),
    );
    let (mut debits, mut debits_minor, mut credits, mut credits_minor) = (0, 0, 0, 0);
    for party in &statement.parties {
        debits += party.debits;
        debits_minor += party.debits_minor;
        credits += party.credits;
        credits_minor += party.credits_minor;
        put(
            page,
            format_args!(
                "<tr><th>{}</th><td class=\"words\"><code>{}</code></td><td class=\"words\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>{}{}</tr>\n",
                party.index,
                text(party.code),
                role(party.role),
                count(party.records),
                money(party.debits_minor, currency),
                count(party.debits),
                money(party.credits_minor, currency),
                count(party.credits),
                net_cell(party.net_minor(), currency),
                files_cell(party),
            ),
        );
    }
    put(
        page,
        format_args!(
            "</tbody>\n<tfoot><tr><th></th><td class=\"words\">all</td><td></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>{}<td></td></tr></tfoot>\n</table></div>\n</section>\n",
            count(statement.committed),
            money(debits_minor, currency),
            count(debits),
            money(credits_minor, currency),
            count(credits),
            net_cell(debits_minor - credits_minor, currency),
        ),
    );
}

fn net_cell(net_minor: Position, currency: Currency) -> String {
    let (class, word) = match net_minor.signum() {
        1 => ("pays", "pays "),
        -1 => ("paid", "gets "),
        _ => ("even", ""),
    };
    let amount = money(net_minor.abs(), currency);
    format!("<td class=\"{class}\"><span class=\"word\">{word}</span>{amount}</td>")
}

fn files_cell(party: &PartyStatement) -> String {
    if party.detail_sha256.is_none() {
        return "<td></td>".to_owned();
    }
    let code = text(party.code);
    format!(
        "<td class=\"words\"><a href=\"camt.054/{code}.xml\">camt</a> <a href=\"detail/{code}.csv\">csv</a> \
         <a href=\"detail/{code}.json\">json</a></td>"
    )
}

fn files(page: &mut String, statement: &WindowStatement) {
    let transfers = statement.parties.iter().any(|p| p.net_minor() != 0);
    page.push_str("<section>\n<h2>Files of this window</h2>\n<dl class=\"files\">\n");
    let mut file = |name: &str, words: &str| {
        put(
            page,
            format_args!("<div><dt><a href=\"{name}\">{name}</a></dt><dd>{words}</dd></div>\n"),
        );
    };
    file(
        "pacs.029.xml",
        "to the central bank: every participant's net in one batch",
    );
    if transfers {
        file(
            "pacs.009.xml",
            "to the central bank, where it takes no batch: one transfer a participant",
        );
    }
    file("summary.json", "all of this page, by machine");
    file("SHA256SUMS", "the hash of every other file");
    page.push_str("</dl>\n</section>\n");
}

fn proof(page: &mut String, statement: &WindowStatement) {
    put(
        page,
        format_args!(
            "<section>\n<h2>How to check it</h2>\n<p>The root stands for all {} committed payments in their order. Whoever has it can check \
             that a payment is among them, with nothing else:</p>\n\
             <pre>clearway settle verify-proof FILE --root {}</pre>\n\
             <p>And whoever has the journal can write every file here again and compare:</p>\n\
             <pre>clearway settle report JOURNAL --out DIRECTORY</pre>\n\
             <p class=\"quiet\">Journal {}, closed by its event {}, {} UTC.</p>\n</section>\n",
            count(statement.committed),
            hexadecimal(&statement.root),
            hexadecimal(&statement.journal_id),
            count(statement.close_event),
            utc_nanos(statement.closed),
        ),
    );
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Institution => "institution",
        Role::Bank => "bank",
    }
}

/// What comes from outside, as text: nothing of it is markup.
pub(super) fn text(what: impl Display) -> String {
    escape(what.to_string()).into_owned()
}

/// The code of a participant that a flow names.
pub(super) fn code_of(statement: &WindowStatement, index: ParticipantIndex) -> String {
    let party = statement.parties.iter().find(|p| p.index == index);
    party.map_or_else(|| format!("no. {index}"), |p| text(p.code))
}

/// `1,234,567`.
pub(super) fn count(n: u64) -> String {
    grouped(u128::from(n))
}

/// `1,234,567.89`, with the currency's digits; a minus before it where it is negative.
pub(super) fn money(minor: Position, currency: Currency) -> String {
    let (size, digits) = (minor.unsigned_abs(), currency.minor_digits());
    let sign = if minor < 0 { "−" } else { "" };
    if digits == 0 {
        return format!("{sign}{}", grouped(size));
    }
    let unit = 10_u128.pow(digits as u32);
    format!("{sign}{}.{:0digits$}", grouped(size / unit), size % unit)
}

/// The currency, then the amount.
fn in_words(minor: Position, currency: Currency) -> String {
    format!("<small>{}</small> {}", currency.alphabetic(), money(minor, currency))
}

fn grouped(n: u128) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Basis points as a percentage.
pub(super) fn share(bp: Option<u64>) -> String {
    bp.map_or_else(|| "–".to_owned(), |bp| format!("{}.{:02} %", bp / 100, bp % 100))
}

/// A part of a whole as a percentage, rounded down; what is there is never told as nothing.
pub(super) fn share_of(part: impl Into<Position>, whole: impl Into<Position>) -> String {
    let (part, whole) = (part.into(), whole.into());
    let bp = (part * 10_000).checked_div(whole);
    match bp {
        Some(0) if part > 0 => "&lt; 0.01 %".to_owned(),
        _ => share(bp.and_then(|bp| u64::try_from(bp).ok())),
    }
}

/// A time as people in the scheme read it.
fn time(at: UtcNanos) -> String {
    let second = at.shanghai_second_of_day();
    format!(
        "<time datetime=\"{}\">{} {:02}:{:02}:{:02}</time>",
        utc_nanos(at),
        at.business_date(),
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// `3 h 25 min`, `12 min 4 s`, `9.750 s`.
fn duration(nanos: u64) -> String {
    let seconds = nanos / NANOS_PER_SECOND;
    match seconds {
        0..60 => format!("{seconds}.{:03} s", nanos % NANOS_PER_SECOND / 1_000_000),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// Appends to the page.
pub(super) fn put(page: &mut String, what: impl Display) {
    write!(page, "{what}").expect("a string takes every character");
}
