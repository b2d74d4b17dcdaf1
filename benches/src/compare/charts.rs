//! The plots of a comparison.

use super::plan::{Cell, Plan};
use super::record::Record;
use super::summary::{capacities, median_of};
use crate::load::Mode;
use crate::peers::Peer;
use crate::plot::{Figure, Line, Panel, Scale, Style, svg};

/// Panels in a row.
const COLUMNS: usize = 3;

/// Nines that a latency curve shows.
const NINES: u32 = 4;

/// File names and contents.
pub(crate) fn all(plan: &Plan, records: &[Record]) -> Vec<(String, String)> {
    let latency = |name: &str, figure: fn(&Record) -> f64| {
        let title = format!("{name} latency, closed loop (median of {} runs)", plan.repeats);
        by_in_flight(plan, records, title, "µs", figure, |values| Scale::log(values))
    };
    let title = format!("Throughput, closed loop (median of {} runs)", plan.repeats);
    let throughput =
        by_in_flight(plan, records, title, "tasks/s", |it| it.tasks_per_s, |it| Scale::linear(it));
    let mut figures = vec![
        ("throughput.svg", throughput),
        ("latency-p50.svg", latency("Median", |record| record.p50_us)),
        ("latency-p99.svg", latency("99th percentile", |record| record.p99_us)),
    ];
    let curves = match plan.rates.last() {
        Some(_) if !plan.pairs().is_empty() => open_curves(plan, records),
        _ => closed_curves(plan, records),
    };
    figures.push(("latency-cdf.svg", curves));
    figures.into_iter().map(|(name, figure)| (name.to_owned(), svg(&figure))).collect()
}

/// A panel for each payload, by tasks in flight.
fn by_in_flight(
    plan: &Plan,
    records: &[Record],
    title: String,
    y_label: &str,
    figure: fn(&Record) -> f64,
    scale: fn(&mut dyn Iterator<Item = f64>) -> Scale,
) -> Figure {
    let cells = plan.wide_cells();
    let mut in_flight: Vec<_> = plan.in_flight.iter().map(|it| f64::from(*it)).collect();
    in_flight.sort_by(f64::total_cmp);
    in_flight.dedup();
    let panel = |payload_bytes: &usize| {
        let of_payload = cells.iter().filter(|cell| cell.payload_bytes == *payload_bytes);
        let line = |peer: &Peer| {
            let point = |cell: &Cell| {
                let Mode::Closed { in_flight } = cell.mode else { return None };
                let y = median_of(records, *peer, cell, |record| Some(figure(record)))?;
                Some((f64::from(in_flight), y))
            };
            let mut points: Vec<_> = of_payload.clone().filter_map(point).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line { name: peer.to_string(), style: style(*peer, true), points }
        };
        let lines: Vec<_> = plan.peers.iter().map(line).collect();
        Panel {
            title: format!("{payload_bytes} B"),
            x: Scale::Categories(in_flight.clone()),
            y: scale(&mut lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y)),
            lines,
        }
    };
    Figure {
        title,
        x_label: "tasks in flight".to_owned(),
        y_label: y_label.to_owned(),
        panels: plan.payloads.iter().map(panel).collect(),
        columns: COLUMNS,
    }
}

/// A panel for each payload and pair, at the highest rate.
fn open_curves(plan: &Plan, records: &[Record]) -> Figure {
    let capacities = capacities(records);
    let mut panels = Vec::new();
    for payload_bytes in &plan.payloads {
        for (ours, other) in plan.pairs() {
            let Some(share) = plan.rates.last() else { continue };
            let rate = plan.rate(*share, &capacities, ours, other, *payload_bytes);
            let Some(rate) = rate else { continue };
            let cell = Plan::open_cell(rate, *payload_bytes);
            let title = format!("{payload_bytes} B, {rate:.0} tasks/s ({share} of the slower)");
            panels.push(curve_panel(title, records, &[ours, other], &cell));
        }
    }
    curves("Latency at one rate, open loop, from the time a task should be sent", plan, panels)
}

/// A panel for each closed loop.
fn closed_curves(plan: &Plan, records: &[Record]) -> Figure {
    let panel = |cell: &Cell| curve_panel(cell.to_string(), records, &plan.peers, cell);
    let panels = plan.wide_cells().iter().map(panel).collect();
    curves("Latency, closed loop", plan, panels)
}

fn curves(title: &str, plan: &Plan, panels: Vec<Panel>) -> Figure {
    Figure {
        title: title.to_owned(),
        x_label: "latency, µs".to_owned(),
        y_label: "tasks done within it, %".to_owned(),
        columns: plan.pairs().len().clamp(COLUMNS, 4).min(panels.len()),
        panels,
    }
}

/// The median run of each peer: its shares of tasks by latency.
fn curve_panel(title: String, records: &[Record], peers: &[Peer], cell: &Cell) -> Panel {
    let line = |peer: &Peer| {
        let mut runs: Vec<_> =
            records.iter().filter(|it| it.peer == *peer && it.is_of(cell)).collect();
        runs.sort_by(|a, b| a.p99_us.total_cmp(&b.p99_us));
        let run = runs.get(runs.len() / 2)?;
        let from = run.curve.partition_point(|(share, _)| *share < 0.5);
        let points = run.curve[from..].iter().map(|(share, us)| (*us, *share)).collect();
        Some(Line { name: peer.to_string(), style: style(*peer, false), points })
    };
    let lines: Vec<_> = peers.iter().filter_map(line).collect();
    Panel {
        title,
        x: Scale::log(lines.iter().flat_map(|line| &line.points).map(|(us, _)| *us)),
        y: Scale::Nines { count: NINES },
        lines,
    }
}

/// The same in every plot.
fn style(peer: Peer, has_markers: bool) -> Style {
    let index = match peer {
        Peer::Mcp | Peer::McpDurable => 0,
        Peer::Mcp1452 | Peer::McpPrefetch | Peer::McpNoBusyPoll => 1,
        Peer::Nats | Peer::NatsJsSync => 2,
        Peer::NatsTls | Peer::NatsJs => 3,
        Peer::Redis | Peer::RedisStreamsSync => 4,
        Peer::Grpc | Peer::RedisStreams => 5,
        Peer::Rabbitmq => 6,
    };
    let is_dashed = matches!(peer, Peer::NatsTls | Peer::NatsJs | Peer::RedisStreams);
    Style { index, is_dashed, has_markers }
}
