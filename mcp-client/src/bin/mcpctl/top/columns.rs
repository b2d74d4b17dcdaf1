//! What the tables have: columns, what is in them, and how they sort.

use std::cmp::Ordering;

use mcp_client::AgentInfo;
use mcp_client::overview::{ActionOverview, Rates};

use ratatui::layout::Constraint;

use crate::attention;
use crate::figures::{rate, short_age, time};

/// Room for a name when there is not room for all.
const NAME_WIDTH: u16 = 14;

pub(super) struct Column<T> {
    pub(super) title: &'static str,
    /// 0: what is left.
    pub(super) width: u16,
    /// Of those that don't fit, the one with the highest is left out.
    rank: u8,
    pub(super) cell: fn(&T) -> String,
    /// Of numbers, which sort from the largest on; none: of the text.
    order: Option<fn(&T, &T) -> Ordering>,
}

pub(super) type Columns<T> = &'static [Column<T>];

pub(super) const ACTIONS: Columns<ActionOverview> = &[
    text("ACTION", 0, 0, |it| it.action.clone()),
    number("WAIT", 7, 0, |it| it.queued.to_string(), |a, b| a.queued.cmp(&b.queued)),
    number("OLDEST", 7, 1, oldest, |a, b| a.oldest_ms.cmp(&b.oldest_ms)),
    number("RUN/SLOTS", 9, 4, running, |a, b| a.running.cmp(&b.running)),
    number("IN/S", 6, 1, |it| rate(it.rates.s10.taken), |a, b| by(a, b, |it| it.taken)),
    number("OK/S", 6, 2, |it| rate(it.rates.s10.ok), |a, b| by(a, b, |it| it.ok)),
    number("ERR/S", 6, 3, |it| rate(it.rates.s10.error), |a, b| by(a, b, |it| it.error)),
    number("REJ/S", 6, 7, |it| rate(it.rates.s10.rejected), |a, b| by(a, b, |it| it.rejected)),
    number("P50", 7, 5, |it| time(it.p50_us), |a, b| a.p50_us.cmp(&b.p50_us)),
    number("P99", 7, 2, |it| time(it.p99_us), |a, b| a.p99_us.cmp(&b.p99_us)),
    number("READY", 7, 8, ready, |a, b| a.ready.cmp(&b.ready)),
    text("STATE", 9, 6, attention::state),
];

/// The column that actions are sorted by at first: who waits longest needs a look.
pub(super) const OLDEST: usize = 2;

pub(super) const AGENTS: Columns<AgentInfo> = &[
    text("AGENT", 0, 0, |it| it.agent_id.clone()),
    text("STATE", 9, 0, |it| it.state.clone()),
    number("LOAD", 5, 1, percent, |a, b| load(a).total_cmp(&load(b))),
    number("SLOTS", 9, 1, slots, |a, b| a.slots.cmp(&b.slots)),
    text("HEALTH", 12, 2, |it| it.health.clone()),
    number("SEEN", 8, 3, seen, |a, b| a.last_seen_ms.cmp(&b.last_seen_ms)),
    text("ACTIONS", 16, 4, |it| it.actions.join(",")),
    text("DRAINED BY", 14, 5, |it| it.drained.as_ref().map_or(String::new(), |it| it.by.clone())),
    text("LABELS", 24, 6, labels),
];

const fn number<T>(
    title: &'static str,
    width: u16,
    rank: u8,
    cell: fn(&T) -> String,
    order: fn(&T, &T) -> Ordering,
) -> Column<T> {
    Column { title, width, rank, cell, order: Some(order) }
}

const fn text<T>(title: &'static str, width: u16, rank: u8, cell: fn(&T) -> String) -> Column<T> {
    Column { title, width, rank, cell, order: None }
}

impl<T> Column<T> {
    pub(super) fn is_number(&self) -> bool {
        self.order.is_some()
    }

    /// Numbers from the largest on, texts from the first on.
    pub(super) fn compare(&self, a: &T, b: &T) -> Ordering {
        match self.order {
            Some(order) => order(b, a),
            None => (self.cell)(a).cmp(&(self.cell)(b)),
        }
    }
}

/// Those that fit into this width with a space between them. The one that is sorted by always does.
pub(super) fn fitting<T>(columns: Columns<T>, sorted: usize, width: u16) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| -> u16 {
        let width = |at: &usize| match columns[*at].width {
            0 => NAME_WIDTH,
            width => width,
        };
        kept.iter().map(|at| width(at) + 1).sum()
    };
    while needed(&kept) > width + 1 {
        let may_go = kept.iter().filter(|at| columns[**at].rank > 0 && **at != sorted);
        let Some(last) = may_go.max_by_key(|at| columns[**at].rank).copied() else { break };
        kept.retain(|at| *at != last);
    }
    kept
}

/// How wide they are: names as wide as the longest, if there is room for it, and the rest is the last
/// column's.
pub(super) fn widths<T>(
    columns: Columns<T>,
    fitting: &[usize],
    longest_name: usize,
    width: u16,
) -> Vec<Constraint> {
    let others: u16 = fitting.iter().map(|at| columns[*at].width + 1).sum();
    let room = width.saturating_sub(others.saturating_sub(1)).max(NAME_WIDTH);
    let name = u16::try_from(longest_name).unwrap_or(u16::MAX).clamp(NAME_WIDTH, room);
    let of = |(index, at): (usize, &usize)| match columns[*at].width {
        0 => Constraint::Length(name),
        _ if index + 1 == fitting.len() && !columns[*at].is_number() => Constraint::Fill(1),
        width => Constraint::Length(width),
    };
    fitting.iter().enumerate().map(of).collect()
}

fn by(a: &ActionOverview, b: &ActionOverview, of: fn(&Rates) -> f64) -> Ordering {
    of(&a.rates.s10).total_cmp(&of(&b.rates.s10))
}

fn oldest(it: &ActionOverview) -> String {
    it.oldest_ms.map_or("-".to_owned(), short_age)
}

fn running(it: &ActionOverview) -> String {
    format!("{}/{}", it.running, it.slots)
}

fn ready(it: &ActionOverview) -> String {
    format!("{}/{}", it.ready, it.workers)
}

/// The share of its slots that are taken.
fn load(it: &AgentInfo) -> f64 {
    f64::from(it.in_flight) / f64::from(it.slots.max(1))
}

fn percent(it: &AgentInfo) -> String {
    format!("{:.0}%", 100.0 * load(it))
}

fn slots(it: &AgentInfo) -> String {
    format!("{}/{}", it.in_flight, it.slots)
}

fn seen(it: &AgentInfo) -> String {
    it.last_seen_ms.map_or("-".to_owned(), short_age)
}

fn labels(it: &AgentInfo) -> String {
    let labels: Vec<_> = it.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(sorted: usize, width: u16) -> Vec<&'static str> {
        fitting(ACTIONS, sorted, width).into_iter().map(|at| ACTIONS[at].title).collect()
    }

    #[test]
    fn what_says_least_goes_first_where_there_is_no_room() {
        assert_eq!(titles(OLDEST, 200).len(), ACTIONS.len());
        let expected =
            ["ACTION", "WAIT", "OLDEST", "RUN/SLOTS", "IN/S", "OK/S", "ERR/S", "P50", "P99"];
        assert_eq!(titles(OLDEST, 80), expected);
        assert!(titles(10, 80).contains(&"READY"));
        assert_eq!(titles(OLDEST, 10), ["ACTION", "WAIT", "OLDEST"]);
        assert_eq!(titles(0, 0), ["ACTION", "WAIT"]);
    }

    #[test]
    fn names_have_what_they_need_and_the_last_column_has_the_rest() {
        use Constraint::{Fill, Length};
        let of = |longest, width| {
            let fitting = fitting(AGENTS, 0, width);
            widths(AGENTS, &fitting, longest, width)
        };
        assert_eq!((of(3, 80)[0], of(100, 80)[0]), (Length(14), Length(15)));
        assert_eq!((of(100, 90)[0], of(20, 90)[0]), (Length(25), Length(20)));
        assert_eq!(of(20, 90).last(), Some(&Fill(1)));
        assert_eq!(of(3, 10), [Length(14), Fill(1)]);
    }
}
