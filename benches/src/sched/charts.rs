//! The plots.

use super::contender::Contender;
use super::figures::{Figures, Group};
use super::record::{Record, median_of};
use super::workload::Workload;
use crate::plot::{DotFigure, DotPanel, DotRow, Scale, dots_svg};

/// Panels in a row.
const COLUMNS: usize = 2;

/// File names and contents.
pub(super) fn all(
    workloads: &[Workload],
    contenders: &[Contender],
    records: &[Record],
) -> Vec<(String, String)> {
    let plots = Plots { contenders, records };
    let figure = |title: &str, dots, panels| DotFigure {
        title: title.to_owned(),
        dots,
        panels,
        columns: COLUMNS,
    };
    let latency = figure(
        "Latency, ms (what was not done in time counts with its time to live)",
        vec!["p50", "p99"],
        workloads.iter().flat_map(|it| plots.latency(it)).collect(),
    );
    let goodput = figure(
        "Goodput in overload, % of capacity",
        vec!["goodput"],
        workloads
            .iter()
            .filter(|it| it.name.starts_with("overload"))
            .map(|it| plots.share(it, |figures| Some(figures.all.goodput)))
            .collect(),
    );
    let affinity = figure(
        "Affinity: tasks at the worker of their key's last one, %",
        vec!["hits"],
        workloads
            .iter()
            .filter(|it| it.has_keys())
            .map(|it| plots.share(it, |figures| figures.affinity))
            .collect(),
    );
    let figures = [("latency.svg", latency), ("goodput.svg", goodput), ("affinity.svg", affinity)];
    let drawn = figures.into_iter().filter(|(_, figure)| !figure.panels.is_empty());
    drawn.map(|(name, figure)| (name.to_owned(), dots_svg(&figure))).collect()
}

/// A figure of a cell, if it has that.
type Figure<'a> = dyn Fn(&Figures) -> Option<f64> + 'a;

struct Plots<'a> {
    contenders: &'a [Contender],
    records: &'a [Record],
}

impl Plots<'_> {
    /// p50 and p99: a panel, or one for each group.
    fn latency(&self, workload: &Workload) -> Vec<DotPanel> {
        let panel = |title: String, group: &dyn Fn(&Figures) -> Option<&Group>| {
            let p50 = |it: &Figures| group(it).map(|group| group.p50_ms);
            let p99 = |it: &Figures| group(it).map(|group| group.p99_ms);
            let rows = self.rows(workload, &[&p50, &p99]);
            let x = Scale::log(rows.iter().flat_map(|row| &row.values).copied());
            DotPanel { title, x, rows }
        };
        match &workload.traffic[..] {
            [_] => vec![panel(workload.title.clone(), &|it| Some(&it.all))],
            several => several
                .iter()
                .enumerate()
                .map(|(index, traffic)| {
                    let title = format!("{}: {}", workload.title, traffic.name);
                    panel(title, &|it| it.groups.get(index))
                })
                .collect(),
        }
    }

    /// One share, in percent.
    fn share(&self, workload: &Workload, share: fn(&Figures) -> Option<f64>) -> DotPanel {
        let percent = |it: &Figures| share(it).map(|share| share * 100.0);
        let x = Scale::Linear { max: 100.0, step: 20.0 };
        DotPanel { title: workload.title.clone(), x, rows: self.rows(workload, &[&percent]) }
    }

    /// A row for each contender.
    fn rows(&self, workload: &Workload, dots: &[&Figure<'_>]) -> Vec<DotRow> {
        let row = |contender: &Contender| {
            let name = contender.to_string();
            let value = |dot: &&Figure<'_>| median_of(self.records, workload.name, &name, dot);
            let values = dots.iter().filter_map(value).collect();
            DotRow { is_ours: contender.is_ours(), values, name }
        };
        Contender::of_workload(self.contenders, workload).iter().map(row).collect()
    }
}
