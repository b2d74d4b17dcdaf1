//! Medians and ratios.

use std::collections::HashMap;

use super::plan::Cell;
use super::record::Record;
use crate::median::median;
use crate::peers::Peer;

/// Tasks a second that a peer was seen to do at most, by payload.
pub(crate) type Capacities = HashMap<(Peer, usize), f64>;

/// The median of each closed loop's throughput with room at the worker, and of these the largest.
pub(crate) fn capacities(records: &[Record]) -> Capacities {
    let mut runs: HashMap<_, Vec<f64>> = HashMap::new();
    for record in records {
        if let Some(in_flight) = record.in_flight.filter(|it| record.slots >= *it) {
            let key = (record.peer, record.payload_bytes, in_flight);
            runs.entry(key).or_default().push(record.tasks_per_s);
        }
    }
    let mut capacities = Capacities::new();
    for ((peer, payload_bytes, _), values) in runs {
        let capacity = capacities.entry((peer, payload_bytes)).or_default();
        *capacity = median(values).unwrap_or_default().max(*capacity);
    }
    capacities
}

/// The median of a figure over the runs of a cell.
pub(crate) fn median_of(
    records: &[Record],
    peer: Peer,
    cell: &Cell,
    figure: impl Fn(&Record) -> Option<f64>,
) -> Option<f64> {
    median(of(records, peer, cell).filter_map(figure).collect())
}

/// The median of the ratios of a figure within each repeat, `ours` to `other`.
pub(crate) fn ratio(
    records: &[Record],
    ours: Peer,
    other: Peer,
    cell: &Cell,
    figure: impl Fn(&Record) -> Option<f64>,
) -> Option<f64> {
    let ratios = of(records, ours, cell).filter_map(|ours| {
        let other = of(records, other, cell).find(|other| other.repeat == ours.repeat)?;
        Some(figure(ours)? / figure(other)?)
    });
    median(ratios.filter(|ratio| ratio.is_finite()).collect())
}

fn of<'a>(records: &'a [Record], peer: Peer, cell: &'a Cell) -> impl Iterator<Item = &'a Record> {
    records.iter().filter(move |record| record.peer == peer && record.is_of(cell))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Latency, Measured, Mode};

    const CELL: Cell = Cell { mode: Mode::Closed { in_flight: 64 }, payload_bytes: 128, slots: 64 };

    fn run(peer: Peer, cell: &Cell, repeat: u32, tasks_per_s: f64) -> Record {
        let measured = Measured {
            tasks_per_s,
            latency: Latency::default(),
            server_cpu_us_per_task: None,
            worker_cpu_us_per_task: None,
            client_cpu_us_per_task: None,
            errors: 0,
            first_error: None,
        };
        Record::new(peer, String::new(), None, cell, repeat, measured)
    }

    #[test]
    fn a_ratio_is_taken_within_a_repeat() {
        // The machine became three times as slow in the second repeat.
        let records = [
            run(Peer::Mcp, &CELL, 1, 600.0),
            run(Peer::Nats, &CELL, 1, 300.0),
            run(Peer::Mcp, &CELL, 2, 200.0),
            run(Peer::Nats, &CELL, 2, 100.0),
            run(Peer::Mcp, &CELL, 3, 500.0),
        ];
        let figure = |record: &Record| Some(record.tasks_per_s);
        assert_eq!(ratio(&records, Peer::Mcp, Peer::Nats, &CELL, figure), Some(2.0));
        assert_eq!(ratio(&records, Peer::Mcp, Peer::Redis, &CELL, figure), None);
        assert_eq!(median_of(&records, Peer::Mcp, &CELL, figure), Some(500.0));
    }

    #[test]
    fn a_capacity_is_what_a_peer_does_with_room_at_its_worker() {
        let narrow = Cell { slots: 4, ..CELL };
        let more = Cell { mode: Mode::Closed { in_flight: 128 }, slots: 128, ..CELL };
        let records = [
            run(Peer::Mcp, &CELL, 1, 100.0),
            run(Peer::Mcp, &CELL, 2, 300.0),
            run(Peer::Mcp, &narrow, 1, 900.0),
            run(Peer::Mcp, &more, 1, 150.0),
        ];
        assert_eq!(capacities(&records), Capacities::from([((Peer::Mcp, 128), 200.0)]));
    }
}
