//! A run: one seed, one clock, one queue of what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::broker::Broker;
use crate::chaos::{Chaos, Stalled};
use crate::client::{Client, ClientStep};
use crate::network::{Item, LinkId, Network, Peer, Way};
use crate::oracle::Oracle;
use crate::plan::{Fault, Plan};
use crate::rng::Rng;
use crate::worker::{Worker, WorkerStep};

/// What happens at some time.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Something may have arrived.
    Arrive(LinkId, Way),
    /// Who reads this way notices that the connection is gone.
    Notice(LinkId, Way),
    /// Who reads this way has heard nothing for too long, if it still is blocked.
    Idle(LinkId, Way),
    /// Of a start of the broker: its core wants to be called.
    Timer(u64),
    /// Of a start of the broker: the journal has done a batch.
    Synced(u64),
    /// The broker is started.
    Start,
    /// Of a start of the broker: its time to drain is over.
    Stop(u64),
    /// Of a client's process.
    Client(usize, u32, ClientStep),
    /// Of a worker's process.
    Worker(usize, u32, WorkerStep),
    Fault(Fault),
    Chaos(Chaos),
}

/// What is planted in the simulated world, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The core is told of a sync before it is done.
    AckBeforeSync,
    /// The disk says that it has synced, and has not.
    LyingDisk,
}

/// What all who take part share.
pub(crate) struct World {
    pub(crate) now_us: u64,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) net: Network,
    pub(crate) oracle: Oracle,
    pub(crate) planted: Option<Planted>,
    /// Nothing goes wrong any more.
    pub(crate) is_healed: bool,
    queue: BinaryHeap<Reverse<(u64, u64, Scheduled)>>,
    scheduled: u64,
    trace: Option<Vec<String>>,
    is_loud: bool,
}

/// Not compared: times and numbers of events never are equal.
#[derive(Debug)]
struct Scheduled(Event);

impl PartialEq for Scheduled {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    pub(crate) fn after(&mut self, us: u64, event: Event) {
        self.at(self.now_us + us, event);
    }

    pub(crate) fn at(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse((at_us, self.scheduled, Scheduled(event))));
    }

    /// A line of the trace, if there is one.
    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let line = format!("{:>12.6} {}", self.now_us as f64 / 1e6, line());
        if self.is_loud {
            println!("{line}");
        }
        trace.push(line);
    }
}

/// How a run is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    Nothing,
    Kept,
    Printed,
}

/// A broker, clients and workers in their world.
pub(crate) struct Sim {
    pub(crate) world: World,
    pub(crate) broker: Broker,
    pub(crate) clients: Vec<Client>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) stalled: Stalled,
}

/// More than any run has: one that has more goes round in circles.
const MAX_STEPS: u64 = 2_000_000;

impl Sim {
    fn new(seed: u64, planted: Option<Planted>, watch: Watch) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let mut world = World {
            now_us: 1_000_000,
            rng,
            net: Network::default(),
            oracle: Oracle::default(),
            planted,
            is_healed: false,
            queue: BinaryHeap::new(),
            scheduled: 0,
            trace: (watch != Watch::Nothing).then(Vec::new),
            is_loud: watch == Watch::Printed,
            plan,
        };
        world.oracle.retention_ms = world.plan.retention_ms;
        world.oracle.hedges = world.plan.hedges;
        let plan = format!("{:?}", world.plan);
        world.log(|| plan);
        let clients = (0..world.plan.clients).map(|index| Client::new(index, &mut world)).collect();
        let workers = (0..world.plan.workers).map(|index| Worker::new(index, &mut world)).collect();
        let broker = Broker::new(&mut world);
        Self { world, broker, clients, workers, stalled: Stalled::default() }
    }

    /// A whole run. Returns its trace, if it is kept.
    ///
    /// # Panics
    /// When anything does not hold.
    pub(crate) fn run(seed: u64, planted: Option<Planted>, watch: Watch) -> Vec<String> {
        let mut sim = Self::new(seed, planted, watch);
        sim.begin_trouble();
        sim.run_until(sim.world.now_us + sim.world.plan.trouble_us);
        sim.heal();
        sim.world.trace.take().unwrap_or_default()
    }

    /// Everything that happens until then.
    pub(crate) fn run_until(&mut self, end_us: u64) {
        while let Some(Reverse((at, ..))) = self.world.queue.peek()
            && *at <= end_us
        {
            let Some(Reverse((at, _, Scheduled(event)))) = self.world.queue.pop() else { return };
            assert!(self.world.scheduled < MAX_STEPS, "there is no end to it");
            self.world.now_us = self.world.now_us.max(at);
            self.step(event);
        }
        self.world.now_us = end_us;
    }

    fn step(&mut self, event: Event) {
        if self.is_put_off(&event) {
            return;
        }
        let Self { world, broker, clients, workers, .. } = self;
        match event {
            Event::Arrive(link, way) => {
                let Some((peer, item)) = world.arrived(link, way) else { return };
                self.arrive(link, way, peer, item);
            }
            Event::Notice(link, way) => self.notice(link, way),
            Event::Idle(link, way) => {
                if world.is_blocked(link, way) {
                    self.notice(link, way);
                }
            }
            Event::Timer(start) => broker.timer(start, world),
            Event::Synced(start) => broker.synced(start, world),
            Event::Start => broker.start(world),
            Event::Stop(start) => broker.stop(start, world),
            Event::Client(index, process, step) => clients[index].step(process, step, world),
            Event::Worker(index, process, step) => workers[index].step(process, step, world),
            Event::Fault(fault) => self.fault(fault),
            Event::Chaos(chaos) => self.chaos(chaos),
        }
    }

    fn arrive(&mut self, link: LinkId, way: Way, peer: Peer, item: Item) {
        let Self { world, broker, clients, workers, .. } = self;
        match (way, peer) {
            (Way::Up, _) => broker.arrive(link, peer, item, world),
            (Way::Down, Peer::Client(index)) => clients[index].arrive(link, item, world),
            (Way::Down, Peer::Worker(index)) => workers[index].arrive(link, item, world),
        }
    }

    /// An end finds its connection gone, and lets it go; so does the other end, in its time.
    fn notice(&mut self, link: LinkId, way: Way) {
        let Self { world, broker, clients, workers, .. } = self;
        let Some(peer) = world.peer_of(link) else { return };
        match (way, peer) {
            (Way::Up, _) => broker.lost(link, world),
            (Way::Down, Peer::Client(index)) => clients[index].lost(link, world),
            (Way::Down, Peer::Worker(index)) => workers[index].lost(link, world),
        }
    }
}
