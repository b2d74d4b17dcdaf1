//! What holds whatever happens.

use std::collections::BTreeMap;

use mcp_broker::broker::{ActionMetrics, Affinity, AgentView, Policy};
use mcp_proto::{
    ContextTrace, Deliver, Executed, ExplainedWorker, Hop, HopEvent, Outcome, Readiness,
};
use serde_json::json;

use super::client::Reading;
use super::sent::Sent;
use super::world::{WORK, World};
use super::{CLIENTS, MAX_COPIES, SHADOW_WORKER, WORKERS};

impl World {
    /// After each step.
    pub(super) fn check(&mut self) {
        // By live workers, and by that of shadow tasks.
        let mut charged = [0; 2];
        for agent in self.it.core.agents(self.it.now, true) {
            let index: usize = agent.agent_id.as_str()[1..].parse().unwrap();
            let worker = &self.workers[index];
            // A handler that goes on after it was parked takes a slot at once.
            let max = worker.slots + worker.prefetch + worker.has_parked.len() as u32;
            assert!(agent.in_flight <= max, "{agent:?}");
            let kind = usize::from(index == SHADOW_WORKER);
            charged[kind] += u64::from(agent.in_flight + agent.parked);
        }
        let stats = self.it.core.stats();
        assert_eq!(charged[0] + charged[1], stats.in_flight);
        let max_running = self.max_running.saturating_mul(self.actions);
        assert!(charged.iter().all(|it| *it <= max_running), "{charged:?}");
        for is_shadow in [false, true] {
            if charged[usize::from(is_shadow)] < self.max_running {
                self.check_nobody_waits_in_vain(is_shadow);
            }
        }
        assert!(stats.stream_bytes <= self.stream_bytes as u64, "{}", stats.stream_bytes);
        assert!(stats.upload_bytes <= self.it.core.config().max_upload_bytes as u64);
        self.check_gauges();
        for sent in &self.sent {
            let is_once = sent.asks.is_idempotent || sent.started <= 1;
            assert!(is_once, "{} ran {} times", sent.id, sent.started);
        }
        if stats.hedges > 0 {
            self.check_live_attempts();
        }
    }

    /// A task that runs has one attempt, or two at different workers if it may be hedged.
    fn check_live_attempts(&mut self) {
        let mut attempts = BTreeMap::<String, u32>::new();
        for worker in 0..SHADOW_WORKER {
            let filter = json!({"agent": format!("w{worker}"), "status": "running", "limit": 1000});
            let running = self.it.ask(self.observer, "mcp.admin.tasks.list", &filter.to_string());
            for row in running["tasks"].as_array().unwrap() {
                let id = row["task_id"].as_str().unwrap().to_owned();
                *attempts.entry(id).or_default() += 1;
            }
        }
        assert_eq!(attempts.len() as u64, self.it.core.stats().running);
        for (id, count) in attempts {
            let max = if self.task(&id).asks.may_be_hedged() { 2 } else { 1 };
            assert!(count <= max, "{id} has {count} attempts");
        }
    }

    /// No task of an action waits while a worker that is well could take it, but for those that had
    /// one: they may wait for another. Where keys are hard, tasks wait for a worker of theirs, which is
    /// busy; with a split, for those of one arm.
    fn check_nobody_waits_in_vain(&self, is_shadow: bool) {
        let shadow = [(WORK.to_owned(), self.it.core.stats().shadow.queued)];
        let live = self.it.core.metrics(self.it.now).actions;
        let live: Vec<_> = live.into_iter().map(|it| (it.action, it.queued)).collect();
        let had_one =
            self.sent.iter().filter(|it| !it.has_ended && !it.attempts.is_empty()).count();
        for (action, queued) in if is_shadow { &shadow[..] } else { &live } {
            if *queued > had_one as u64 {
                self.check_nobody_has_room(is_shadow, action, *queued);
            }
        }
    }

    fn check_nobody_has_room(&self, is_shadow: bool, action: &str, queued: u64) {
        let is_asked = |index: usize| {
            is_shadow == (index == SHADOW_WORKER) && self.workers[index].actions.contains(&action)
        };
        let index_of = |agent: &AgentView| agent.agent_id.as_str()[1..].parse::<usize>().unwrap();
        let mut ready = self.it.core.agents(self.it.now, false);
        ready.retain(|it| it.readiness == Readiness::Ready && is_asked(index_of(it)));
        let health = |agent: &AgentView| {
            let unwell = agent.unwell.iter().find(|it| it.action.as_str() == action);
            unwell.map_or("ok", |it| it.health)
        };
        let is_last_resort = !ready.iter().any(|it| ["ok", "slow start"].contains(&health(it)));
        let has_room = |agent: &AgentView| {
            let index = index_of(agent);
            let takes = self.workers[index].slots + self.workers[index].prefetch;
            let gets_tasks = match health(agent) {
                _ if agent.health == "suspect" => false,
                "ok" | "slow start" | "half-open" => true,
                "ejected" => is_last_resort,
                _ => false,
            };
            agent.in_flight < takes && gets_tasks
        };
        let (with_room, busy): (Vec<_>, Vec<_>) = ready.into_iter().partition(has_room);
        let all = (0..WORKERS).filter(|it| is_asked(*it)).count();
        let are_all = !is_shadow && busy.is_empty() && with_room.len() == all;
        let rules = self.it.core.rules(action);
        let is_hard = (rules.policy, rules.affinity) == (Policy::SessionHash, Affinity::Hard);
        let may_wait = with_room.is_empty()
            || is_hard && !busy.is_empty()
            || self.is_split && !is_shadow && !are_all;
        assert!(may_wait, "{queued} tasks wait beside {with_room:?}");
    }

    /// What is kept up to date with each step is what counting comes to.
    fn check_gauges(&self) {
        let metrics = self.it.core.metrics(self.it.now);
        let online = self.it.core.agents(self.it.now, false);
        assert_eq!(metrics.stats.agents_online, online.len() as u64);
        assert_eq!(metrics.slots, online.iter().map(|agent| u64::from(agent.slots)).sum::<u64>());
        let sum = |of: fn(&ActionMetrics) -> u64| metrics.actions.iter().map(of).sum::<u64>();
        assert_eq!(sum(|it| it.queued), metrics.stats.queued);
        assert_eq!(sum(|it| it.delayed), metrics.stats.delayed);
        assert_eq!(sum(|it| it.running), metrics.stats.running);
        for action in &metrics.actions {
            assert_eq!(action.queued > 0, action.queued_bytes > 0, "{action:?}");
        }
        assert!(self.compared_now() <= MAX_COPIES as u64 * self.actions);
    }

    /// Copies of which it is not said yet what became of them.
    fn compared_now(&self) -> u64 {
        let metrics = self.it.core.metrics(self.it.now);
        let mirrors = metrics.actions.iter().filter_map(|action| action.mirror.as_deref());
        let left = mirrors.map(|it| {
            let told = it.equal + it.different + it.not_compared + it.shadow_failed + it.given_up;
            it.mirrored - told
        });
        left.sum()
    }

    /// A task was tried again after its waits and no more often than it asked for, and its trace
    /// adds up.
    pub(super) fn check_trace(&mut self, deliver: &Deliver) {
        let trace = deliver.trace.decode();
        let hedges = self.hedges;
        let sent = &*self.task(deliver.task_id.as_str());
        if trace.truncated || deliver.executed == Executed::No && trace.hops.is_empty() {
            return;
        }
        // Older ones may have none any more.
        for hop in trace.hops.iter().rev().take(3) {
            check_explanation(hop, sent.asks.is_explained);
        }
        if hedges && sent.asks.may_be_hedged() {
            return check_hedged_trace(&trace, sent);
        }
        assert!(trace.hops.iter().all(|hop| hop.began_us == 0), "{trace:?}");
        let sum: u64 = trace.hops.iter().map(|hop| hop.queue_us + spent(hop)).sum();
        assert!(sum + trace.queue_us <= trace.total_us, "{trace:?}");
        let is_try = |hop: &&Hop| hop.event != HopEvent::Nacked;
        let tries = trace.hops.iter().filter(is_try).count() as u32;
        assert!(sent.asks.retry.is_none_or(|retry| tries <= retry.max_attempts), "{trace:?}");
        for (index, pair) in trace.hops.windows(2).enumerate() {
            let [hop, next] = pair else { unreachable!() };
            assert_eq!(hop.attempt + 1, next.attempt);
            let at = |number| sent.attempts.get(&number).map(|attempt| attempt.routed);
            // Unless its ROUTE was lost with its connection.
            if let (Some(first), Some(second)) = (at(hop.attempt), at(next.attempt)) {
                assert_eq!(second.since(first), spent(hop) + next.queue_us, "{trace:?}");
            }
            let tries = trace.hops[..=index].iter().filter(is_try).count() as u32;
            let is_retry = hop.reason.ends_with("; tried again");
            if let Some(retry) = sent.asks.retry.filter(|_| is_retry) {
                assert!(next.queue_us >= retry.wait_ms(tries) * 1000, "{trace:?}");
            }
            let put_off = sent.attempts.get(&hop.attempt).and_then(|attempt| attempt.put_off);
            if let Some(ms) = put_off.filter(|_| hop.event == HopEvent::Nacked) {
                let has_waited = next.queue_us >= ms.clamp(10, 60_000) * 1000;
                assert!(has_waited || next.node_id != hop.node_id, "{trace:?}");
            }
        }
    }

    /// What a task's outcome is said to be of is what had it.
    pub(super) fn check_step(&mut self, deliver: &Deliver) {
        let sent = self.task(deliver.task_id.as_str());
        let last = sent.attempts.values().last();
        match deliver.fallback.as_deref() {
            Some("cached" | "default") => {
                assert_eq!((deliver.outcome, deliver.chunks), (Outcome::Ok, 0));
                assert_ne!(deliver.executed, Executed::Yes);
            }
            Some(step) => assert_eq!(step, "action:spare"),
            // Unless its ROUTE was lost with its connection.
            None if deliver.outcome == Outcome::Ok => {
                assert!(last.is_none_or(|attempt| !attempt.is_spare), "{deliver:?}");
            }
            None => {}
        }
    }

    /// Who was connected since an attempt began has all its parts when it ends.
    pub(super) fn check_whole(&mut self, client: usize, deliver: &Deliver) {
        let Some(connection) = self.clients[client].connection else { return };
        let id = deliver.task_id.as_str();
        let attempt = self.task(id).attempts.get(&deliver.attempt);
        let read_on = attempt.and_then(|attempt| attempt.read_on);
        let reading = &self.clients[client].readings[id];
        if deliver.outcome == Outcome::Ok && read_on == Some((client, connection)) {
            assert!(reading.is_whole(), "{id}: {} parts, {reading:?}", deliver.chunks);
        }
    }

    /// What a client that is done did not get, nobody could keep for it.
    pub(super) fn check_gap(&mut self, client: usize, id: &str, reading: &Reading) {
        let is_bound = self.stream_bytes < 1_000_000;
        let is_reader = self.task(id).reader == Some(client);
        let can_miss = is_bound || !is_reader || reading.was_interrupted;
        assert!(can_miss || reading.is_whole(), "{id}: {reading:?}");
    }

    /// Whoever could read all there is has read it: each handler can emit more.
    pub(super) fn check_nobody_lacks_credit(&mut self) {
        let online = self.it.online();
        for (index, worker) in self.workers.iter().enumerate() {
            if worker.connection.is_none() || !online.contains(&format!("w{index}")) {
                continue;
            }
            // Copies are not taken in parts.
            let held = worker.held.values().filter(|held| !held.task.starts_with("mirror-"));
            for held in held {
                let here = self.clients.iter().filter(|client| !client.has_left);
                let mut readings = here.filter_map(|client| client.readings.get(&held.task));
                let index: usize = held.task[1..].parse().unwrap();
                let takes_parts = self.sent[index].asks.window_bytes > 0;
                if takes_parts && readings.all(Reading::takes_any) {
                    assert!(held.parts.has_credit(), "{}: {}", held.task, held.number);
                }
            }
        }
    }

    /// Lets everything come to its end, and looks whether anything is left.
    pub(super) fn settle(&mut self) {
        (0..CLIENTS).for_each(|client| self.connect_client(client, false));
        self.sort();
        for _ in 0..4 {
            (0..WORKERS).for_each(|worker| self.worker_reads(worker));
            self.it.advance(20_000);
            self.sort();
        }
        (0..CLIENTS).for_each(|client| self.client_reads(client));
        for client in &self.clients {
            assert!(client.waits.is_empty(), "no outcome for {:?}", client.waits);
            assert!(client.readings.is_empty(), "no end of {:?}", client.readings);
        }
        let stats = self.it.core.stats();
        assert_eq!((stats.streams, stats.stream_bytes), (0, 0));
        (0..WORKERS).for_each(|worker| self.worker_leaves(worker));
        (0..CLIENTS).for_each(|client| self.client_leaves(client));
        self.it.discard();
        self.it.advance(20_000);
        self.it.discard();
        let stats = self.it.core.stats();
        let left = (stats.queued, stats.delayed, stats.running, stats.in_flight);
        assert_eq!(left, (0, 0, 0, 0));
        assert_eq!(self.compared_now(), 0);
        let shadow = stats.shadow;
        assert_eq!((shadow.queued, shadow.delayed, shadow.running), (0, 0, 0));
        assert_eq!((stats.streams, stats.stream_bytes), (0, 0));
        assert_eq!((stats.uploads, stats.upload_bytes), (0, 0));
        assert!(self.it.core.agents(self.it.now, true).is_empty());
    }
}

/// What an attempt took.
fn spent(hop: &Hop) -> u64 {
    hop.network_us + hop.worker_queue_us + hop.work_us
}

/// The same of a task that may have had two attempts at once.
fn check_hedged_trace(trace: &ContextTrace, sent: &Sent) {
    let began = |hop: &Hop| sent.attempts.get(&hop.attempt).map(|attempt| attempt.routed);
    let (mut tries, mut latest) = (0, 0);
    for (index, hop) in trace.hops.iter().enumerate() {
        assert!(hop.queue_us + spent(hop) <= trace.total_us, "{trace:?}");
        let same = trace.hops.iter().filter(|it| it.attempt == hop.attempt);
        assert_eq!(same.count(), 1, "{trace:?}");
        if let (Some(now), Some(next)) = (began(hop), trace.hops.get(index + 1))
            && let (Some(then), true) = (began(next), hop.began_us > 0)
        {
            // But for 0, which is 1.
            let differ = (now.0 + next.began_us).abs_diff(then.0 + hop.began_us);
            assert!(differ <= 1, "{trace:?}");
        }
        if let Some(now) = began(hop) {
            let runs =
                |it: &&Hop| began(it).is_some_and(|at| at <= now && now.since(at) < spent(it));
            assert!(trace.hops.iter().filter(runs).count() <= 2, "{trace:?}");
        }
        latest = latest.max(hop.attempt);
        let is_beside = hop.reason.ends_with("another attempt goes on")
            || hop.reason.starts_with("hedged; another attempt");
        tries += u32::from(!is_beside && hop.event != HopEvent::Nacked);
        if hop.reason.ends_with(" again") {
            // No attempt lived then.
            assert_eq!(index + 1, latest as usize, "{trace:?}");
            let next = trace.hops.iter().find(|it| it.attempt == latest + 1);
            let is_retry = hop.reason.ends_with("; tried again");
            if let (Some(next), Some(retry)) = (next, sent.asks.retry.filter(|_| is_retry)) {
                assert!(next.queue_us >= retry.wait_ms(tries) * 1000, "{trace:?}");
            }
        }
    }
    // Two may have been stopped at the end.
    assert!(sent.asks.retry.is_none_or(|retry| tries <= retry.max_attempts + 1), "{trace:?}");
}

/// An attempt went to a worker that may have got it by what was told of the choice.
fn check_explanation(hop: &Hop, is_explained: bool) {
    let Some(explanation) = &hop.explanation else { return assert!(!is_explained, "{hop:?}") };
    let is_it = |worker: &&ExplainedWorker| worker.node_id == hop.node_id;
    let worker = explanation.workers.iter().find(is_it);
    assert!(is_explained && worker.is_some_and(|it| it.probability > 0.0), "{hop:?}");
}
