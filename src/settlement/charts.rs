//! The page's charts: net positions, payments by minute, flows. Bars are boxes and SVG; all lengths are exact to a tenth of a percent.

use std::cmp::Reverse;

use super::page::{code_of, count, money, put, share_of, text};
use super::{PartyStatement, WindowStatement};
use crate::domain::{Position, UtcNanos};

/// So many participants are shown on each side.
const PARTIES_MAX: usize = 20;

/// So many columns a chart over time has at most; minutes are put together until they fit.
const COLUMNS_MAX: usize = 180;

/// Who must pay and who is paid, the largest first.
pub(super) fn sides(statement: &WindowStatement) -> (Vec<&PartyStatement>, Vec<&PartyStatement>) {
    let mut pay: Vec<_> = statement.parties.iter().filter(|p| p.net_minor() > 0).collect();
    let mut are_paid: Vec<_> = statement.parties.iter().filter(|p| p.net_minor() < 0).collect();
    pay.sort_by_key(|p| (Reverse(p.net_minor()), p.index));
    are_paid.sort_by_key(|p| (p.net_minor(), p.index));
    (pay, are_paid)
}

/// Net positions, to the left of the middle who must pay, to the right who is paid, on one scale.
pub(super) fn nets(page: &mut String, statement: &WindowStatement) {
    let (pay, are_paid) = sides(statement);
    page.push_str("<section>\n<h2>Net positions</h2>\n");
    if pay.is_empty() && are_paid.is_empty() {
        page.push_str("<p class=\"quiet\">Nothing is to be paid: every participant is even.</p>\n</section>\n");
        return;
    }
    let largest = |side: &[&PartyStatement]| side.first().map_or(0, |p| p.net_minor().abs());
    let scale = largest(&pay).max(largest(&are_paid));
    page.push_str("<div class=\"wings\">\n");
    wing(page, statement, "pays", "To pay", &pay, scale);
    wing(page, statement, "paid", "To be paid", &are_paid, scale);
    page.push_str("</div>\n</section>\n");
}

fn wing(
    page: &mut String,
    statement: &WindowStatement,
    class: &str,
    words: &str,
    side: &[&PartyStatement],
    scale: Position,
) {
    let currency = statement.currency;
    let sum = |parties: &[&PartyStatement]| parties.iter().map(|p| p.net_minor().abs()).sum::<Position>();
    let all = sum(side);
    put(
        page,
        format_args!(
            "<div class=\"wing {class}\">\n<h3>{words} <span>{} · {} {}</span></h3>\n<ol>\n",
            count(side.len() as u64),
            currency.alphabetic(),
            money(all, currency)
        ),
    );
    let (shown, rest) = side.split_at(side.len().min(PARTIES_MAX));
    for party in shown {
        let net = party.net_minor().abs();
        put(
            page,
            format_args!(
                "<li><code>{}</code><span class=\"bar\"><i style=\"width:{}\"></i></span><b>{}</b></li>\n",
                text(party.code),
                percent(net, scale),
                money(net, currency)
            ),
        );
    }
    if !rest.is_empty() {
        let rest_minor = sum(rest);
        put(
            page,
            format_args!(
                "<li class=\"rest\"><span>{} more, {} of all</span><b>{}</b></li>\n",
                count(rest.len() as u64),
                share_of(rest_minor, all),
                money(rest_minor, currency)
            ),
        );
    }
    page.push_str("</ol>\n</div>\n");
}

/// The largest sums between two participants.
pub(super) fn flows(page: &mut String, statement: &WindowStatement) {
    let Some(largest) = statement.flows.first() else { return };
    put(
        page,
        format_args!(
            "<section>\n<h2>Largest flows</h2>\n<p class=\"quiet\">Gross, before netting, from who owes to who is owed; amounts in {}.</p>\n\
             <div class=\"scroll\"><table class=\"flows\">\n<thead><tr><th class=\"words\">From</th><th class=\"words\">To</th>\
             <th>Payments</th><th>Amount</th><th>Of gross</th><th class=\"wide\"></th></tr></thead>\n<tbody>\n",
            statement.currency.alphabetic()
        ),
    );
    for flow in &statement.flows {
        put(
            page,
            format_args!(
                "<tr><td class=\"words\"><code>{}</code></td><td class=\"words\"><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td>\
                 <td class=\"wide\"><span class=\"bar\"><i class=\"committed\" style=\"width:{}\"></i></span></td></tr>\n",
                code_of(statement, flow.debtor),
                code_of(statement, flow.creditor),
                count(flow.payments),
                money(flow.amount_minor, statement.currency),
                share_of(flow.amount_minor, statement.gross_minor),
                percent(flow.amount_minor, largest.amount_minor)
            ),
        );
    }
    page.push_str("</tbody>\n</table></div>\n</section>\n");
}

/// Payments that became final, by minute.
pub(super) fn minutes(page: &mut String, statement: &WindowStatement) {
    let by_minute = &statement.tallies.by_minute;
    if by_minute.iter().all(|[committed, others]| committed + others == 0) {
        return;
    }
    let minutes_each = by_minute.len().div_ceil(COLUMNS_MAX);
    let columns: Vec<[u64; 2]> = by_minute
        .chunks(minutes_each)
        .map(|chunk| {
            chunk
                .iter()
                .fold([0, 0], |sum, minute| [sum[0] + minute[0], sum[1] + minute[1]])
        })
        .collect();
    let (peak_place, peak) = columns
        .iter()
        .enumerate()
        .map(|(place, column)| (place, column[0] + column[1]))
        .max_by_key(|&(place, sum)| (sum, Reverse(place)))
        .unwrap_or_default();
    let clock = |column: usize| {
        let second = UtcNanos(statement.opened.0 + (column * minutes_each) as u64 * MINUTE_NS).shanghai_second_of_day();
        format!("{:02}:{:02}", second / 3_600, second / 60 % 60)
    };
    let each = if minutes_each == 1 {
        "minute".to_owned()
    } else {
        format!("{minutes_each} minutes")
    };
    put(
        page,
        format_args!(
            "<section>\n<h2>Payments by {each}</h2>\n<p class=\"legend\"><span><i class=\"committed\"></i>committed</span>\
             <span><i class=\"declined\"></i>others that became final</span><span class=\"quiet\">most: {} in the {each} from {}</span></p>\n\
             <svg class=\"minutes\" viewBox=\"0 0 {} 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Payments by {each}\">\n\
             <path class=\"grid\" d=\"M0 1H{w}M0 500H{w}\"/>\n",
            count(peak),
            clock(peak_place),
            columns.len() * COLUMN_WIDTH,
            w = columns.len() * COLUMN_WIDTH,
        ),
    );
    for (place, [committed, others]) in columns.iter().enumerate() {
        let height = |n: u64| (u128::from(n) * 1_000).checked_div(u128::from(peak)).unwrap_or(0);
        let (upper, lower) = (height(committed + others), height(*committed));
        let x = place * COLUMN_WIDTH;
        put(
            page,
            format_args!(
                "<g><title>{} · {} committed, {} others</title><rect class=\"declined\" x=\"{x}\" y=\"{}\" width=\"{BAR_WIDTH}\" height=\"{}\"/>\
                 <rect class=\"committed\" x=\"{x}\" y=\"{}\" width=\"{BAR_WIDTH}\" height=\"{lower}\"/></g>\n",
                clock(place),
                count(*committed),
                count(*others),
                1_000 - upper,
                upper - lower,
                1_000 - lower,
            ),
        );
    }
    let (middle, last) = (columns.len() / 2, columns.len() - 1);
    // The last minute takes all that is later, where a window was open for longer than minutes are counted one by one.
    let told_ns = by_minute.len() as u64 * MINUTE_NS;
    let more = if statement.closed.since(statement.opened) > told_ns {
        " and later"
    } else {
        ""
    };
    put(
        page,
        format_args!(
            "</svg>\n<p class=\"axis\"><span>{}</span><span>{}</span><span>{}{more}</span></p>\n</section>\n",
            clock(0),
            clock(middle),
            clock(last)
        ),
    );
}

const MINUTE_NS: u64 = 60 * crate::domain::SECOND;
const COLUMN_WIDTH: usize = 10;
const BAR_WIDTH: usize = 8;

/// A part of a whole as a length in CSS, to a tenth of a percent; something is never nothing.
pub(super) fn percent(part: Position, whole: Position) -> String {
    if part <= 0 || whole <= 0 {
        return "0".to_owned();
    }
    let tenths = (part * 1_000 / whole).clamp(1, 1_000);
    format!("{}.{}%", tenths / 10, tenths % 10)
}
