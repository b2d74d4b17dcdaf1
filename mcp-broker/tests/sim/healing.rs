//! The end of a run: everything works again, and then everything must come to its end.

use bytes::Bytes;
use mcp_broker::broker::Core;
use mcp_proto::{Message, Outcome};

use crate::sim::Sim;

const S: u64 = 1_000_000;

impl Sim {
    /// Nothing goes wrong any more: all tasks end, everybody is told the same, nothing acknowledged is
    /// lost, and nothing is left.
    pub(crate) fn heal(&mut self) {
        self.world.log(|| "everything heals".to_owned());
        self.world.is_healed = true;
        self.world.net.heal();
        self.broker.disk.repair();
        // Until syncs that are under way have failed or not.
        self.run_for(5 * S);
        // Only a start brings a journal back that failed. Others go on half of the time, since a start
        // also puts things right that are to be found.
        let is_well = |core: &Core| core.why_not_durable().is_none();
        let goes_on = self.broker.running.as_ref().is_some_and(|it| is_well(&it.core));
        if !goes_on || self.world.rng.chance(50) {
            self.broker.crash(false, &mut self.world);
        }
        // Partitions end by themselves, and processes that died come back.
        self.run_for(45 * S);
        self.wait_until("everybody was told", |sim| {
            sim.clients.iter().all(|client| client.waits().is_empty())
        });
        self.wait_until("everything has ended", |sim| {
            let stats = sim.broker.running.as_ref().map(|it| it.core.stats());
            stats.is_some_and(|it| it.queued + it.delayed + it.running + it.in_flight == 0)
        });
        self.new_tasks_are_done();
        self.what_was_accepted_is_known();
        // Once more, and now nothing happens besides.
        self.broker.crash(true, &mut self.world);
        self.run_for(20 * S);
        self.what_was_accepted_is_known();
        self.everybody_leaves();
    }

    fn run_for(&mut self, us: u64) {
        self.run_until(self.world.now_us + us);
    }

    /// Longer than any task lives, and than any partition lasts.
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Sim) -> bool) {
        for _ in 0..600 {
            if is_so(self) {
                return;
            }
            self.run_for(S);
        }
        let waits: Vec<_> = self.clients.iter().map(|client| client.waits()).collect();
        panic!("{what}: not within ten minutes; {waits:?}");
    }

    /// No slot is lost, no worker is left out: each client has some tasks done.
    fn new_tasks_are_done(&mut self) {
        self.world.plan.heals();
        for index in 0..self.clients.len() {
            for _ in 0..4 {
                let asks = self.clients[index].submit_one(&mut self.world);
                self.wait_until("new tasks are done", |sim| {
                    sim.clients[index].end_of(&asks.id).is_some()
                });
                let end = self.clients[index].end_of(&asks.id).unwrap();
                assert_eq!(end.outcome, Outcome::Ok, "{} is not done: {end:?}", asks.id);
            }
        }
    }

    /// Each accepted task has an outcome, or had one that is settled; the oracle compares it.
    fn what_was_accepted_is_known(&mut self) {
        for asks in self.world.oracle.accepted_tasks() {
            let fetch = Message::Fetch(asks.id.clone());
            let answers = self.broker.ask(fetch, Bytes::new(), &mut self.world);
            let is_told = answers.iter().any(|frame| matches!(frame.message, Message::Deliver(_)));
            assert!(is_told, "{} has no outcome: {answers:?}", asks.id);
        }
    }

    /// All leave in order, what is kept is settled or dropped, and nothing is left.
    fn everybody_leaves(&mut self) {
        self.wait_until("everybody is there", |sim| {
            sim.workers.iter().all(|it| it.is_open()) && sim.clients.iter().all(|it| it.is_open())
        });
        for asks in self.world.oracle.durable_tasks() {
            let settle = Message::Settle(asks.id.clone());
            self.broker.ask(settle, Bytes::new(), &mut self.world);
        }
        for id in self.dead_letters() {
            self.drop_dead_letter(&id);
        }
        let Self { clients, workers, world, .. } = self;
        clients.iter_mut().for_each(|client| client.leave_for_good(world));
        workers.iter_mut().for_each(|worker| worker.leave_for_good(world));
        self.wait_until("everybody has left", |sim| sim.workers.iter().all(|it| !it.is_up()));
        // Until what is remembered of settled tasks is forgotten as well.
        self.run_for(700 * S);
        let running = self.broker.running.as_ref().expect("a broker");
        let stats = running.core.stats();
        let left = (stats.queued, stats.delayed, stats.running, stats.in_flight);
        assert_eq!(left, (0, 0, 0, 0), "queued, delayed, running, in flight");
        // The observer is still there.
        let left = (stats.connections, stats.sessions, stats.agents_online);
        assert_eq!(left, (1, 1, 0), "connections, sessions, agents");
        let durable = stats.durable;
        let left = (durable.in_flight, durable.ended, durable.settled, durable.bytes);
        assert_eq!(left, (0, 0, 0, 0), "durable: in flight, ended, settled, bytes");
        assert_eq!(durable.dead_letters, 0);
        assert!(running.core.agents(self.broker.now(&self.world), true).is_empty());
        self.broker.crash(false, &mut self.world);
        self.run_for(10 * S);
        assert_eq!(self.broker.records, 0, "records are left in the journal");
    }
}
