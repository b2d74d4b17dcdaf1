//! The plots.

use super::contender::Contender;
use super::figures::Figures;
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
    let latency = plots.of(
        workloads.iter().collect(),
        "Latency, ms (what was not done in time counts with its time to live)",
        &[("p50", |it| Some(it.all.p50_ms)), ("p99", |it| Some(it.all.p99_ms))],
        |values| Scale::log(values),
    );
    let goodput = plots.of(
        workloads.iter().filter(|it| it.name.starts_with("overload")).collect(),
        "Goodput in overload, % of capacity",
        &[("goodput", |it| Some(it.all.goodput * 100.0))],
        |_| Scale::Linear { max: 100.0, step: 20.0 },
    );
    let affinity = plots.of(
        workloads.iter().filter(|it| it.has_keys()).collect(),
        "Affinity: tasks at the worker of their key's last one, %",
        &[("hits", |it| it.affinity.map(|share| share * 100.0))],
        |_| Scale::Linear { max: 100.0, step: 20.0 },
    );
    let figures = [("latency.svg", latency), ("goodput.svg", goodput), ("affinity.svg", affinity)];
    let drawn = figures.into_iter().filter(|(_, figure)| !figure.panels.is_empty());
    drawn.map(|(name, figure)| (name.to_owned(), dots_svg(&figure))).collect()
}

type Dot = (&'static str, fn(&Figures) -> Option<f64>);

struct Plots<'a> {
    contenders: &'a [Contender],
    records: &'a [Record],
}

impl Plots<'_> {
    /// A panel for each workload, a row for each contender.
    fn of(
        &self,
        workloads: Vec<&Workload>,
        title: &str,
        dots: &[Dot],
        scale: fn(&mut dyn Iterator<Item = f64>) -> Scale,
    ) -> DotFigure {
        let panel = |workload: &Workload| {
            let rows: Vec<_> = Contender::of_workload(self.contenders, workload)
                .iter()
                .map(|it| self.row(workload, it, dots))
                .collect();
            let x = scale(&mut rows.iter().flat_map(|row| &row.values).copied());
            DotPanel { title: workload.title.clone(), x, rows }
        };
        DotFigure {
            title: title.to_owned(),
            dots: dots.iter().map(|dot| dot.0).collect(),
            panels: workloads.into_iter().map(panel).collect(),
            columns: COLUMNS,
        }
    }

    fn row(&self, workload: &Workload, contender: &Contender, dots: &[Dot]) -> DotRow {
        let name = contender.to_string();
        let value = |dot: &Dot| median_of(self.records, workload.name, &name, dot.1);
        DotRow {
            is_ours: contender.is_ours(),
            values: dots.iter().filter_map(value).collect(),
            name,
        }
    }
}
