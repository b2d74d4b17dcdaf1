//! What is run, and in which order: within each repeat and cell the peers follow each other, so that
//! a ratio holds when the machine drifts.

use std::fmt;

use super::options::{Options, Rate};
use super::summary::Capacities;
use crate::load::{Load, Mode};
use crate::peers::Peer;

/// Slots of the worker of an open loop, in which nothing but the peer shall limit.
const OPEN_LOOP_SLOTS: u32 = 1024;

/// Everything that is to be run.
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    pub(crate) in_flight: Vec<u32>,
    pub(crate) payloads: Vec<usize>,
    /// Of the second table.
    pub(crate) slots: u32,
    pub(crate) rates: Vec<Rate>,
    pub(crate) repeats: u32,
}

/// A load on a peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub(crate) mode: Mode,
    pub(crate) payload_bytes: usize,
    pub(crate) slots: u32,
}

impl Plan {
    pub(crate) fn new(options: &Options, peers: Vec<Peer>) -> Self {
        Self {
            peers,
            in_flight: options.in_flight.clone(),
            payloads: options.payload.clone(),
            slots: options.slots,
            rates: options.rates(),
            repeats: options.repeat,
        }
    }

    /// How many runs there are at most.
    pub(crate) fn runs(&self) -> usize {
        let open = 2 * self.pairs().len() * self.payloads.len() * self.rates.len();
        self.repeats as usize * (self.closed().count() + open)
    }

    /// Closed loops of one repeat, in order.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (Peer, Cell)> {
        self.wide_cells().into_iter().chain(self.narrow_cells()).flat_map(|cell| {
            let of_peer = move |peer: &Peer| (*peer, cell);
            self.peers.iter().map(of_peer)
        })
    }

    /// Cells whose worker has a slot for each task.
    pub(crate) fn wide_cells(&self) -> Vec<Cell> {
        self.cells(|in_flight| in_flight)
    }

    /// Cells whose worker has fewer slots than there are tasks.
    pub(crate) fn narrow_cells(&self) -> Vec<Cell> {
        let mut cells = self.cells(|_| self.slots);
        cells.retain(|cell| match cell.mode {
            Mode::Closed { in_flight } => (1..in_flight).contains(&cell.slots),
            Mode::Open { .. } => false,
        });
        cells
    }

    fn cells(&self, slots: impl Fn(u32) -> u32) -> Vec<Cell> {
        let mut cells = Vec::new();
        for payload_bytes in &self.payloads {
            for in_flight in &self.in_flight {
                cells.push(Cell {
                    mode: Mode::Closed { in_flight: *in_flight },
                    payload_bytes: *payload_bytes,
                    slots: slots(*in_flight),
                });
            }
        }
        cells
    }

    /// Each of ours with each of the others; ours alone when there are no others.
    pub(crate) fn pairs(&self) -> Vec<(Peer, Peer)> {
        let ours = || self.peers.iter().copied().filter(|peer| peer.is_ours());
        let others = || self.peers.iter().copied().filter(|peer| !peer.is_ours());
        ours().flat_map(|ours| others().map(move |other| (ours, other))).collect()
    }

    /// Open loops of one repeat, in order: both of a pair at the same rate.
    pub(crate) fn open(&self, capacities: &Capacities) -> Vec<(Peer, Cell)> {
        let mut runs = Vec::new();
        for payload_bytes in &self.payloads {
            for (ours, other) in self.pairs() {
                for rate in &self.rates {
                    let rate = self.rate(*rate, capacities, ours, other, *payload_bytes);
                    let Some(rate) = rate else { continue };
                    let cell = Self::open_cell(rate, *payload_bytes);
                    for run in [(ours, cell), (other, cell)] {
                        // Where ours is the slower one of several pairs, once is enough.
                        if !runs.contains(&run) {
                            runs.push(run);
                        }
                    }
                }
            }
        }
        runs
    }

    /// An open loop.
    pub(crate) fn open_cell(rate: f64, payload_bytes: usize) -> Cell {
        Cell { mode: Mode::Open { rate }, payload_bytes, slots: OPEN_LOOP_SLOTS }
    }

    /// Tasks a second of an open loop. `None` when it isn't known what the two are capable of.
    pub(crate) fn rate(
        &self,
        rate: Rate,
        capacities: &Capacities,
        ours: Peer,
        other: Peer,
        payload_bytes: usize,
    ) -> Option<f64> {
        match rate {
            Rate::Fixed(rate) => Some(rate),
            Rate::Share(share) => {
                let ours = capacities.get(&(ours, payload_bytes))?;
                let other = capacities.get(&(other, payload_bytes))?;
                Some((share * ours.min(*other)).round().max(1.0))
            }
        }
    }
}

impl Cell {
    pub(crate) fn load(&self, options: &Options) -> Load {
        Load {
            mode: self.mode,
            payload_bytes: self.payload_bytes,
            warm_up: options.warm_up(),
            measured: options.measured(),
            server_pid: None,
            worker_pid: None,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::Closed { in_flight } => write!(f, "{in_flight} in flight")?,
            Mode::Open { rate } => write!(f, "{rate:.0} tasks/s")?,
        }
        write!(f, " × {} B, {} slots", self.payload_bytes, self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(peers: &[Peer]) -> Plan {
        Plan {
            peers: peers.to_vec(),
            in_flight: vec![1, 64],
            payloads: vec![128],
            slots: 4,
            rates: vec![Rate::Share(0.5)],
            repeats: 2,
        }
    }

    #[test]
    fn peers_follow_each_other_within_a_cell() {
        let plan = plan(&[Peer::Mcp, Peer::Nats]);
        let closed: Vec<_> = plan.closed().map(|(peer, cell)| format!("{peer}, {cell}")).collect();
        let expected = [
            "mcp, 1 in flight × 128 B, 1 slots",
            "nats, 1 in flight × 128 B, 1 slots",
            "mcp, 64 in flight × 128 B, 64 slots",
            "nats, 64 in flight × 128 B, 64 slots",
            "mcp, 64 in flight × 128 B, 4 slots",
            "nats, 64 in flight × 128 B, 4 slots",
        ];
        assert_eq!(closed, expected);
        assert_eq!(plan.runs(), 2 * (6 + 2));
    }

    #[test]
    fn both_of_a_pair_get_the_same_rate() {
        let plan = plan(&[Peer::Mcp, Peer::Nats]);
        let capacities = Capacities::from([((Peer::Mcp, 128), 900.0), ((Peer::Nats, 128), 300.0)]);
        let open = plan.open(&capacities);
        let is_half_of_the_slower = |cell: &Cell| cell.mode == Mode::Open { rate: 150.0 };
        assert!(open.iter().all(|(_, cell)| is_half_of_the_slower(cell)), "{open:?}");
        let peers: Vec<_> = open.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(peers, [Peer::Mcp, Peer::Nats]);
        assert_eq!(plan.open(&Capacities::new()), []);
    }
}
