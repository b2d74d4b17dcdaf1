//! What is printed.

use comfy_table::Table;

use super::contender::Contender;
use super::figures::{Figures, Group};
use super::record::{Record, median_of};
use super::workload::Workload;
use crate::text;

/// A table for each workload, and one for its groups if it has several.
pub(super) fn all(workloads: &[Workload], contenders: &[Contender], records: &[Record]) -> String {
    let mut out = String::new();
    for workload in workloads {
        out += &format!("{}: {}\n\n{}\n\n", workload.name, workload.title, {
            cells(workload, contenders, records)
        });
        if workload.traffic.len() > 1 {
            out += &format!("{}\n\n", groups(workload, contenders, records));
        }
    }
    out
}

fn cells(workload: &Workload, contenders: &[Contender], records: &[Record]) -> Table {
    let mut columns: Vec<Column> = vec![
        ("p50, ms", |it| Some(it.all.p50_ms), milliseconds),
        ("p99, ms", |it| Some(it.all.p99_ms), milliseconds),
        ("goodput", |it| Some(it.all.goodput), percent),
        ("refused", |it| Some(it.all.refused), percent),
        ("failed", |it| Some(it.all.failed), percent),
        ("fairness", |it| Some(it.fairness), ratio),
        ("largest", |it| Some(it.largest), ratio),
        ("over-assigned", |it| Some(it.over_assigned as f64), whole),
    ];
    if workload.has_keys() {
        columns.insert(6, ("affinity", |it| it.affinity, percent));
    }
    let header = std::iter::once("policy").chain(columns.iter().map(|column| column.0));
    let mut table = text::table(header.map(str::to_owned).collect());
    for contender in Contender::of_workload(contenders, workload) {
        let policy = contender.to_string();
        let figure = |(_, figure, print): &Column| {
            median_of(records, workload.name, &policy, figure).map_or_else(text::dash, *print)
        };
        let figures: Vec<_> = columns.iter().map(figure).collect();
        table.add_row(std::iter::once(policy.clone()).chain(figures));
    }
    table
}

/// p50 / p99, ms, and the share that was not done in time, of each group.
fn groups(workload: &Workload, contenders: &[Contender], records: &[Record]) -> Table {
    let mut header = vec!["p50 / p99, ms (not done)".to_owned()];
    header.extend(workload.traffic.iter().map(|traffic| traffic.name.to_owned()));
    let mut table = text::table(header);
    for contender in Contender::of_workload(contenders, workload) {
        let policy = contender.to_string();
        let figure = |index: usize, figure: fn(&Group) -> f64| {
            let of_group = |it: &Figures| it.groups.get(index).map(figure);
            median_of(records, workload.name, &policy, of_group)
        };
        let mut row = vec![policy.clone()];
        for index in 0..workload.traffic.len() {
            let print = |value: Option<f64>, print: Print| value.map_or_else(text::dash, print);
            row.push(format!(
                "{} / {} ({})",
                print(figure(index, |it| it.p50_ms), milliseconds),
                print(figure(index, |it| it.p99_ms), milliseconds),
                print(figure(index, |it| it.refused + it.failed), percent),
            ));
        }
        table.add_row(row);
    }
    table
}

type Print = fn(f64) -> String;
type Column = (&'static str, fn(&Figures) -> Option<f64>, Print);

fn milliseconds(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { text::number(Some(value)) }
}

fn percent(value: f64) -> String {
    format!("{:.1} %", value * 100.0)
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

fn whole(value: f64) -> String {
    text::number(Some(value))
}
