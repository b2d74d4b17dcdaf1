//! Tasks that wait while the breakers of all their workers are open. They are refused after as long
//! as tasks wait that have no worker at all; also those for which there was one before.

use mcp_proto::{ErrorCode, ErrorInfo};

use crate::broker::inflight::{Task, TaskKey};
use crate::broker::pool::{Pool, PoolKey};
use crate::broker::queue::SubQueue;
use crate::broker::time::Mono;
use crate::broker::{Core, Now, Timer};

/// Tasks that are refused in one step, which takes some µs for each, and nothing else is done
/// meanwhile.
const REFUSED_AT_ONCE: usize = 1_024;

impl Core {
    pub(super) fn outage_begins(&mut self, now: Mono, key: PoolKey) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        if !std::mem::replace(&mut pool.health.has_outage_timer, true) {
            let at = now.plus_ms(self.config.no_worker_wait_ms);
            self.timers.set(at, Timer::Outage(key));
        }
    }

    /// The breakers of all workers of an action may have been open for as long as its tasks wait.
    pub(in crate::broker) fn outage_lasts(&mut self, now: Now, key: PoolKey) {
        let wait_ms = self.config.no_worker_wait_ms;
        let Some(pool) = self.pools.get_mut(key) else { return };
        pool.health.has_outage_timer = false;
        let at = |queue: &SubQueue| queue.barred_since().map(|since| since.plus_ms(wait_ms));
        let mut next = pool.subqueues.iter().filter_map(at).filter(|at| *at > now.mono).min();
        let is_due =
            |task: &Task| at(&pool.subqueues[task.subqueue]).is_some_and(|at| at <= now.mono);
        // Those that came later have a timer for it.
        let is_old = |(_, task): &(TaskKey, &Task)| task.received.plus_ms(wait_ms) <= now.mono;
        let old = self.tasks.waiting(&pool.waiting).take_while(is_old);
        let due = old.filter(|(_, task)| is_due(task)).map(|(key, _)| key);
        let stranded: Vec<_> = due.take(REFUSED_AT_ONCE).collect();
        if stranded.len() == REFUSED_AT_ONCE {
            next = Some(now.mono.plus_ms(1));
        }
        for task in stranded {
            if let Some(error) = self.no_worker(now.mono, task) {
                self.give_up(now, task, error);
            }
        }
        if let (Some(at), Some(pool)) = (next, self.pools.get_mut(key)) {
            pool.health.has_outage_timer = true;
            self.timers.set(at, Timer::Outage(key));
        }
    }
}

/// Why a task is refused that waits in a sub-queue whose workers' breakers are all open.
pub(in crate::broker) fn barred(now: Mono, pool: &Pool, subqueue: &SubQueue) -> ErrorInfo {
    let retry_after_ms = subqueue.half_open_at().since(now).div_ceil(1000).max(1);
    let (action, open) = (&pool.action, subqueue.open());
    let message = format!(
        "{open} of {} workers that serve {action} would take it, all with their breaker open: they \
         panicked, were lost or fell silent too often; see `mcpctl agents ls`",
        subqueue.eligible
    );
    ErrorInfo::new(ErrorCode::AllUnhealthy, message).retry_after_ms(retry_after_ms)
}
