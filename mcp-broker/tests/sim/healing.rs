//! The end of a run: everything works again, and then everything must come to its end.

use crate::plan::Fault;
use crate::sim::Sim;

const S: u64 = 1_000_000;

impl Sim {
    /// Nothing goes wrong any more: all tasks end, everybody is told the same, and nothing is left.
    pub(crate) fn heal(&mut self) {
        self.world.log(|| "everything heals".to_owned());
        self.world.is_healed = true;
        self.world.net.heal();
        // Whatever was blocked or slow is over by then, and every time to live.
        let longest_us = self.world.plan.ttl_ms.end * 1000 + 180 * S;
        self.run_until(self.world.now_us + longest_us);
        self.everybody_was_told();
        self.nothing_is_left();
    }

    fn everybody_was_told(&mut self) {
        for (index, client) in self.clients.iter().enumerate() {
            let waits = client.waits();
            assert!(waits.is_empty(), "client {index} still waits for {waits:?}");
        }
    }

    fn nothing_is_left(&mut self) {
        let running = self.broker.running.as_ref().expect("a broker");
        let stats = running.core.stats();
        let left = (stats.queued, stats.delayed, stats.running, stats.in_flight);
        assert_eq!(left, (0, 0, 0, 0), "queued, delayed, running, in flight");
        let _ = Fault::Break;
    }
}
