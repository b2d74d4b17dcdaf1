//! What is printed.

use comfy_table::Table;

use super::plan::{Cell, Plan};
use super::record::Record;
use super::summary::{capacities, median_of, ratio};
use crate::load::Mode;
use crate::median::median;
use crate::peers::Peer;
use crate::text;

/// Every table, each under its title.
pub(crate) fn all(plan: &Plan, records: &[Record]) -> String {
    let (wide, narrow) = (plan.wide_cells(), plan.narrow_cells());
    let mut tables = vec![
        ("Closed loop, as many slots as tasks in flight".to_owned(), figures(plan, records, &wide)),
        ("CPU µs a task: server + worker + client".to_owned(), cpu(plan, records, &wide)),
    ];
    if !narrow.is_empty() {
        let title = format!("Closed loop, a worker with {} slots", plan.slots);
        tables.push((title, figures(plan, records, &narrow)));
    }
    if !plan.pairs().is_empty() && !plan.rates.is_empty() {
        let title = "Open loop, latency from the time a task should be sent, µs, both at one rate";
        tables.push((title.to_owned(), open(plan, records)));
    }
    if records.iter().any(|record| record.guarantee.is_some()) {
        let title = "What each has done once it acknowledges, and the disk by itself";
        tables.push((title.to_owned(), guarantees(plan, records)));
    }
    let texts: Vec<_> =
        tables.into_iter().map(|(title, table)| format!("\n{title}:\n\n{table}")).collect();
    texts.join("\n")
}

/// One task at a time tells latency, several tell throughput.
fn figures(plan: &Plan, records: &[Record], cells: &[Cell]) -> Table {
    let pairs = plan.pairs();
    let mut header = vec!["in flight × B".to_owned(), "median".to_owned()];
    header.extend(plan.peers.iter().map(Peer::to_string));
    header.extend(pairs.iter().map(|(ours, other)| format!("{ours} ÷ {other}")));
    let mut table = text::table(header);
    for cell in cells {
        let Mode::Closed { in_flight } = cell.mode else { continue };
        let (name, figure): (_, fn(&Record) -> Option<f64>) = match in_flight {
            1 => ("p50, µs", |record| Some(record.p50_us)),
            _ => ("tasks/s", |record| Some(record.tasks_per_s)),
        };
        let mut row = vec![format!("{in_flight} × {}", cell.payload_bytes), name.to_owned()];
        row.extend(
            plan.peers.iter().map(|peer| text::number(median_of(records, *peer, cell, figure))),
        );
        row.extend(pairs.iter().map(|(ours, other)| {
            let ratio = ratio(records, *ours, *other, cell, figure);
            ratio.map_or_else(text::dash, |ratio| format!("{ratio:.2}×"))
        }));
        table.add_row(row);
    }
    table
}

fn cpu(plan: &Plan, records: &[Record], cells: &[Cell]) -> Table {
    let mut header = vec!["in flight × B".to_owned()];
    header.extend(plan.peers.iter().map(Peer::to_string));
    let mut table = text::table(header);
    for cell in cells {
        let Mode::Closed { in_flight } = cell.mode else { continue };
        let mut row = vec![format!("{in_flight} × {}", cell.payload_bytes)];
        row.extend(plan.peers.iter().map(|peer| {
            let median = |figure: fn(&Record) -> Option<f64>| {
                let value = median_of(records, *peer, cell, figure);
                value.map_or_else(text::dash, |us| format!("{us:.2}"))
            };
            let server = median(|record| record.server_cpu_us_per_task);
            let worker = median(|record| record.worker_cpu_us_per_task);
            let client = median(|record| record.client_cpu_us_per_task);
            format!("{server} + {worker} + {client}")
        }));
        table.add_row(row);
    }
    table
}

fn guarantees(plan: &Plan, records: &[Record]) -> Table {
    let header = ["peer", "version", "guarantee", "file system", "fdatasync of 4 KiB, p50, µs"];
    let mut table = text::table(header.map(str::to_owned).to_vec());
    for peer in &plan.peers {
        let of_peer = || records.iter().filter(|record| record.peer == *peer);
        let Some(any) = of_peer().next() else { continue };
        let disk = of_peer().filter_map(|record| record.fdatasync_us).collect();
        table.add_row(vec![
            peer.to_string(),
            any.version.clone(),
            any.guarantee.map_or_else(text::dash, str::to_owned),
            any.file_system.clone().unwrap_or_else(text::dash),
            text::number(median(disk)),
        ]);
    }
    table
}

fn open(plan: &Plan, records: &[Record]) -> Table {
    let header = ["B", "of slower", "tasks/s", "peer", "p50", "p99", "p99.9", "done/s"];
    let mut table = text::table(header.map(str::to_owned).to_vec());
    let capacities = capacities(records);
    for payload_bytes in &plan.payloads {
        for (ours, other) in plan.pairs() {
            for share in &plan.rates {
                let rate = plan.rate(*share, &capacities, ours, other, *payload_bytes);
                let Some(rate) = rate else { continue };
                let cell = Plan::open_cell(rate, *payload_bytes);
                for peer in [ours, other] {
                    let median = |figure: fn(&Record) -> f64| {
                        text::number(median_of(records, peer, &cell, |record| Some(figure(record))))
                    };
                    table.add_row(vec![
                        payload_bytes.to_string(),
                        share.to_string(),
                        text::number(Some(rate)),
                        peer.to_string(),
                        median(|record| record.p50_us),
                        median(|record| record.p99_us),
                        median(|record| record.p999_us),
                        median(|record| record.tasks_per_s),
                    ]);
                }
            }
        }
    }
    table
}
