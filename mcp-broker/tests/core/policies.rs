//! How workers are chosen, by each policy.

use std::collections::HashMap;

use mcp_broker::broker::{ActionRules, Affinity, ConnectionId, Disconnect, Policy};
use mcp_proto::{ActionName, AttemptId, Message, Outcome, Readiness, Task, WorkerHello};

use crate::fixture::{Fixture, panic_result, report, task, worker_hello};

/// A core under a policy, a client, and workers by name.
struct Pool {
    it: Fixture,
    client: ConnectionId,
    workers: Vec<(String, ConnectionId)>,
    sent: usize,
}

/// A task at a worker.
#[derive(Debug, Clone)]
struct Routed {
    id: String,
    worker: String,
    attempt: AttemptId,
}

impl Pool {
    fn new(policy: Policy, workers: impl IntoIterator<Item = WorkerHello>) -> Self {
        Self::with(workers, |rules| rules.policy = policy)
    }

    fn with(
        workers: impl IntoIterator<Item = WorkerHello>,
        change: impl FnOnce(&mut ActionRules),
    ) -> Self {
        let mut it = Fixture::with(|config| change(&mut config.rules));
        let client = it.client();
        let mut pool = Self { it, client, workers: Vec::new(), sent: 0 };
        workers.into_iter().for_each(|hello| pool.join(hello));
        pool
    }

    /// Workers of the names w0, w1 and so on.
    fn of(policy: Policy, workers: usize, slots: u32) -> Self {
        Self::new(policy, (0..workers).map(|n| worker_hello(&format!("w{n}"), slots)))
    }

    fn join(&mut self, hello: WorkerHello) {
        let name = hello.agent_id.to_string();
        let (connection, _) = self.it.worker_of(hello);
        self.workers.push((name, connection));
    }

    fn leave(&mut self, name: &str) {
        let place = self.workers.iter().position(|(it, _)| it == name).unwrap();
        self.it.disconnect(self.workers.remove(place).1, Disconnect::Orderly);
    }

    fn send(&mut self, key: &str) {
        let id = format!("t{}", self.sent);
        self.sent += 1;
        let task = Task { affinity_key: key.to_owned().into(), ..task(&id) };
        self.it.send_task(self.client, task, 60_000);
    }

    /// What was routed and not looked at.
    fn routed(&mut self) -> Vec<Routed> {
        let mut routed = Vec::new();
        for (name, connection) in &self.workers {
            while let Some((message, _)) = self.it.next_for(*connection) {
                match message {
                    Message::Route(route) => routed.push(Routed {
                        id: route.task.decode().unwrap().id.to_string(),
                        worker: name.clone(),
                        attempt: route.attempt_id,
                    }),
                    Message::Ping(_) | Message::Pong(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        routed
    }

    fn send_one(&mut self, key: &str) -> Routed {
        self.send(key);
        let [routed] = &self.routed()[..] else { panic!("one task, one route") };
        routed.clone()
    }

    fn end(&mut self, routed: &Routed, is_ok: bool) {
        let (_, connection) = *self.workers.iter().find(|it| it.0 == routed.worker).unwrap();
        if is_ok {
            self.it.result(connection, routed.attempt);
        } else {
            self.it.fail(connection, routed.attempt);
        }
        self.it.expect_deliver(self.client, &routed.id);
    }

    /// Who gets a task with this key now. It ends at once.
    fn one(&mut self, key: &str) -> String {
        let routed = self.send_one(key);
        self.end(&routed, true);
        routed.worker
    }

    /// One task after the other: how many each worker had, that takes so many ms and fails or not.
    fn shares(
        &mut self,
        tasks: usize,
        how: impl Fn(&str) -> (u64, bool),
    ) -> HashMap<String, usize> {
        let mut seen = HashMap::new();
        for _ in 0..tasks {
            let routed = self.send_one("");
            let (ms, is_ok) = how(&routed.worker);
            self.it.advance(ms);
            self.end(&routed, is_ok);
            *seen.entry(routed.worker).or_default() += 1;
            if self.sent.is_multiple_of(100) {
                self.all_give_signs_of_life();
            }
        }
        seen
    }

    fn all_give_signs_of_life(&mut self) {
        for (_, connection) in &self.workers {
            self.it.give(*connection, report(0, &[], Readiness::Ready));
        }
        self.routed();
    }
}

#[test]
fn whatever_the_policy_a_burst_never_gives_a_worker_more_than_its_slot() {
    for policy in Policy::ALL {
        let mut pool = Pool::of(*policy, 16, 1);
        // A hot key, other keys, and none.
        for number in 0..100 {
            pool.send(["hot", "hot", "", &number.to_string()][number % 4]);
        }
        let (mut running, mut ended) = (pool.routed(), 0);
        while !running.is_empty() {
            let mut workers: Vec<_> = running.iter().map(|it| &it.worker).collect();
            workers.sort();
            workers.dedup();
            assert_eq!(workers.len(), running.len(), "{policy:?}: one each");
            assert_eq!(
                running.len(),
                (100 - ended).min(16),
                "{policy:?}: nobody waits for nothing"
            );
            let first = running.remove(0);
            pool.end(&first, true);
            ended += 1;
            running.extend(pool.routed());
        }
        assert_eq!((ended, pool.it.core.stats().queued), (100, 0));
    }
}

#[test]
fn the_policy_can_change_while_tasks_run_and_wait() {
    let mut pool = Pool::of(Policy::RoundRobin, 4, 2);
    let work = ActionName::try_from("work").unwrap();
    let policies = Policy::ALL.iter().flat_map(|from| Policy::ALL.iter().map(move |to| [from, to]));
    for policy in policies.flatten() {
        (0..12).for_each(|number| pool.send(["", "a", "b"][number % 3]));
        let mut running = pool.routed();
        assert_eq!((running.len(), pool.it.core.stats().queued), (8, 4));
        let mut rules = ActionRules::default();
        rules.policy = *policy;
        pool.it.core.set_rules(pool.it.now, work.clone(), rules);
        assert_eq!(pool.it.core.rules("work").policy, *policy);
        // Still full, to the last worker.
        pool.send("c");
        assert!(pool.routed().is_empty());
        while let Some(first) = running.pop() {
            pool.end(&first, true);
            running.extend(pool.routed());
            let stats = pool.it.core.stats();
            assert_eq!(stats.in_flight, 8.min(stats.running + stats.queued), "{policy:?}");
        }
    }
}

#[test]
fn weights_are_those_of_hello() {
    let heavy = WorkerHello { weight: 5, ..worker_hello("a", 4) };
    let others = [worker_hello("b", 4), worker_hello("c", 4)];
    let mut pool = Pool::new(Policy::WeightedRoundRobin, [heavy].into_iter().chain(others));
    for _ in 0..3 {
        let order: String = (0..7).map(|_| pool.one("")).collect();
        assert_eq!(order, "abaacaa");
    }
}

#[test]
fn two_choices_leave_a_slow_worker_aside_and_try_it_again_later() {
    let mut pool = Pool::of(Policy::P2c, 4, 2);
    let slow = |name: &str| (if name == "w2" { 10 } else { 1 }, true);
    let shares = pool.shares(400, slow);
    assert!(shares["w2"] <= 6, "{shares:?}");
    assert!(["w0", "w1", "w3"].iter().all(|name| shares[*name] > 80), "{shares:?}");
    // It is as fast as the others again, and nobody knows before it has tasks.
    pool.shares(4_000, |_| (1, true));
    let shares = pool.shares(400, |_| (1, true));
    assert!((60..140).contains(&shares["w2"]), "{shares:?}");
}

#[test]
fn two_choices_expect_of_a_new_worker_what_the_others_do() {
    let mut pool = Pool::of(Policy::P2c, 3, 2);
    pool.shares(100, |_| (5, true));
    pool.join(worker_hello("new", 2));
    let shares = pool.shares(200, |_| (5, true));
    assert!((25..80).contains(&shares["new"]), "{shares:?}");
}

#[test]
fn adaptive_leaves_one_that_fails_at_its_floor_and_comes_back_to_it() {
    let mut pool = Pool::of(Policy::Adaptive, 4, 2);
    let fails = |name: &str| (1, name != "w1");
    pool.shares(300, fails);
    let shares = pool.shares(4_000, fails);
    // One in 20 goes anywhere, and that is one of four.
    assert!((25..75).contains(&shares["w1"]), "{shares:?}");
    pool.shares(3_000, |_| (1, true));
    let shares = pool.shares(1_000, |_| (1, true));
    assert!((150..350).contains(&shares["w1"]), "{shares:?}");
}

#[test]
fn adaptive_starves_no_healthy_worker_when_every_task_fails() {
    let mut pool = Pool::of(Policy::Adaptive, 4, 2);
    let shares = pool.shares(2_000, |_| (1, false));
    assert!(shares.values().all(|count| (350..650).contains(count)), "{shares:?}");
}

#[test]
fn adaptive_learns_nothing_from_workers_that_are_busy() {
    let mut pool = Pool::of(Policy::Adaptive, 2, 2);
    for _ in 0..100 {
        let routed = pool.send_one("");
        let (_, connection) = *pool.workers.iter().find(|it| it.0 == routed.worker).unwrap();
        if routed.worker == "w0" {
            pool.it.nack(connection, routed.attempt);
            let routed = pool.routed().remove(0);
            assert_eq!(routed.worker, "w1");
            pool.end(&routed, true);
        } else {
            pool.end(&routed, true);
        }
    }
    let shares = pool.shares(1_000, |_| (0, true));
    assert!((400..600).contains(&shares["w0"]), "{shares:?}");
}

#[test]
fn tasks_with_the_same_key_go_to_the_same_worker() {
    let mut pool = Pool::of(Policy::SessionHash, 8, 4);
    let keys: Vec<_> = (0..200).map(|number| format!("session-{number}")).collect();
    let homes: Vec<_> = keys.iter().map(|key| pool.one(key)).collect();
    let again: Vec<_> = keys.iter().map(|key| pool.one(key)).collect();
    assert_eq!(homes, again);
    pool.leave("w5");
    let without: Vec<_> = keys.iter().map(|key| pool.one(key)).collect();
    for (before, without) in homes.iter().zip(&without) {
        assert_eq!(before != without, before == "w5");
    }
    // The same agent, another process: its keys come back to it.
    pool.join(worker_hello("w5", 4));
    let back: Vec<_> = keys.iter().map(|key| pool.one(key)).collect();
    assert_eq!(homes, back);
}

#[test]
fn a_key_goes_on_with_the_next_worker_while_its_own_has_no_room() {
    let mut pool = Pool::of(Policy::SessionHash, 4, 1);
    let home = pool.one("k");
    let first = pool.send_one("k");
    assert_eq!(first.worker, home);
    let second = pool.send_one("k");
    assert_ne!(second.worker, home);
    pool.end(&second, true);
    assert_eq!(pool.send_one("k").worker, second.worker, "always the same next one");
    pool.end(&first, true);
    assert_eq!(pool.one("k"), home);
    pool.it.discard();
}

#[test]
fn a_trace_names_the_policy_by_which_the_worker_was_chosen() {
    for (policy, with_key, without) in
        [(Policy::SessionHash, "session_hash", "least_loaded"), (Policy::P2c, "p2c", "p2c")]
    {
        let mut pool = Pool::of(policy, 2, 1);
        for (key, expected) in [("k", with_key), ("", without)] {
            let routed = pool.send_one(key);
            let (_, connection) = *pool.workers.iter().find(|it| it.0 == routed.worker).unwrap();
            pool.it.result(connection, routed.attempt);
            let deliver = pool.it.expect_deliver(pool.client, &routed.id);
            assert_eq!(deliver.outcome, Outcome::Ok);
            assert_eq!(&*deliver.trace.decode().hops[0].policy, expected);
        }
    }
}

fn is_hard(rules: &mut ActionRules) {
    rules.policy = Policy::SessionHash;
    rules.affinity = Affinity::Hard;
}

/// Workers of one slot under hard affinity; the one of the key "k" has a task.
fn with_busy_home() -> (Pool, Routed) {
    let workers = (0..3).map(|n| worker_hello(&format!("w{n}"), 1));
    let mut pool = Pool::with(workers, is_hard);
    let home = pool.send_one("k");
    (pool, home)
}

#[test]
fn a_hard_key_waits_for_its_worker_while_others_have_room() {
    let (mut pool, home) = with_busy_home();
    pool.send("k");
    assert!(pool.routed().is_empty());
    // Others are not held up, by whatever key or none.
    let other = pool.send_one("");
    assert_ne!(other.worker, home.worker);
    pool.end(&other, true);
    pool.end(&home, true);
    let [next] = &pool.routed()[..] else { panic!("its turn has come") };
    assert_eq!((&next.worker, pool.it.core.stats().queued), (&home.worker, 0));
    pool.end(&next.clone(), true);
    assert_eq!(pool.one("k"), home.worker);
}

#[test]
fn a_worker_takes_those_that_wait_for_it_and_those_that_wait_for_any_by_their_turn() {
    let mut pool = Pool::with([worker_hello("w", 1)], is_hard);
    let first = pool.send_one("k");
    pool.send("k");
    pool.send("");
    pool.send("k");
    let urgent = Task { priority: mcp_proto::Priority::Urgent, ..task("urgent") };
    pool.it.send_task(pool.client, urgent, 60_000);
    pool.end(&first, true);
    let mut order = Vec::new();
    while let Some(next) = pool.routed().pop() {
        pool.end(&next, true);
        order.push(next.id);
    }
    assert_eq!(order, ["urgent", "t1", "t2", "t3"]);
}

#[test]
fn what_waits_for_a_worker_goes_elsewhere_when_that_takes_no_tasks_any_more() {
    for is_draining in [true, false] {
        let (mut pool, home) = with_busy_home();
        (0..3).for_each(|_| pool.send("k"));
        assert!(pool.routed().is_empty());
        if is_draining {
            let (_, connection) = *pool.workers.iter().find(|it| it.0 == home.worker).unwrap();
            pool.it.give(connection, report(1, &[home.attempt], Readiness::Draining));
        } else {
            pool.leave(&home.worker);
            pool.it.expect_deliver(pool.client, &home.id);
        }
        let [next] = &pool.routed()[..] else { panic!("one of the others is its home now") };
        let mut next = next.clone();
        for _ in 0..2 {
            pool.end(&next, true);
            let worker = next.worker;
            next = pool.routed().remove(0);
            assert_eq!(next.worker, worker);
        }
        pool.end(&next, true);
        if is_draining {
            pool.end(&home, true);
        }
        assert_eq!(pool.it.core.stats().queued, 0);
    }
}

#[test]
fn what_waits_for_a_worker_goes_to_a_new_one_that_its_key_belongs_to() {
    let mut pool = Pool::with([worker_hello("w0", 20)], is_hard);
    (0..20).for_each(|_| pool.send(""));
    let mut running = pool.routed();
    let keys: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    keys.iter().for_each(|key| pool.send(key));
    pool.join(worker_hello("w1", 20));
    let taken = pool.routed();
    assert!((5..16).contains(&taken.len()), "{}", taken.len());
    assert!(taken.iter().all(|it| it.worker == "w1"));
    // The others belong to the first one, though the new one has room.
    assert_eq!(pool.it.core.stats().queued as usize, 20 - taken.len());
    taken.iter().for_each(|it| pool.end(it, true));
    while let Some(next) = running.pop() {
        assert_eq!(next.worker, "w0");
        pool.end(&next, true);
        running.extend(pool.routed());
    }
    assert_eq!(pool.it.core.stats().queued, 0);
}

#[test]
fn what_came_before_any_worker_goes_to_the_one_of_its_key() {
    let mut pool = Pool::with([], is_hard);
    for number in 0..12 {
        pool.send(&(number % 4).to_string());
    }
    for name in ["w0", "w1", "w2"] {
        pool.join(worker_hello(name, 1));
    }
    let mut homes = HashMap::new();
    let mut running = pool.routed();
    let first: Vec<_> = running.iter().map(|it| it.id.clone()).collect();
    while let Some(next) = running.pop() {
        pool.end(&next, true);
        // Not all workers were there when each got its first task.
        if !first.contains(&next.id) {
            let key = next.id[1..].parse::<usize>().unwrap() % 4;
            assert_eq!(homes.entry(key).or_insert(next.worker.clone()), &next.worker, "{next:?}");
        }
        running.extend(pool.routed());
    }
    assert_eq!((homes.len(), pool.it.core.stats().queued), (4, 0));
}

#[test]
fn what_waits_for_a_worker_goes_to_any_once_affinity_is_soft() {
    let (mut pool, home) = with_busy_home();
    (0..3).for_each(|_| pool.send("k"));
    assert!(pool.routed().is_empty());
    let mut rules = (*pool.it.core.rules("work")).clone();
    rules.affinity = Affinity::Soft;
    pool.it.core.set_rules(pool.it.now, ActionName::try_from("work").unwrap(), rules);
    pool.it.collect();
    let mut running = pool.routed();
    assert_eq!((running.len(), pool.it.core.stats().queued), (2, 1));
    running.push(home);
    while let Some(next) = running.pop() {
        pool.end(&next, true);
        running.extend(pool.routed());
    }
    assert_eq!(pool.it.core.stats().queued, 0);
}

#[test]
fn what_waits_for_a_worker_is_bounded_expires_and_can_be_cancelled() {
    let workers = (0..3).map(|n| worker_hello(&format!("w{n}"), 1));
    let mut pool = Pool::with(workers, |rules| {
        is_hard(rules);
        rules.max_queue_tasks = 2;
    });
    let home = pool.send_one("k");
    let keyed = |id: &str| Task { affinity_key: "k".into(), ..task(id) };
    pool.it.send_task(pool.client, keyed("short"), 100);
    pool.it.send_task(pool.client, keyed("unwanted"), 60_000);
    pool.it.send_task(pool.client, keyed("refused"), 60_000);
    let error = pool.it.expect_deliver(pool.client, "refused").error.unwrap();
    assert_eq!(error.code, mcp_proto::ErrorCode::QueueFull);
    pool.it.advance(100);
    assert_eq!(pool.it.expect_end(pool.client, "short").0, Outcome::Expired);
    let cancel = mcp_proto::Cancel::Task("unwanted".try_into().unwrap());
    pool.it.give(pool.client, Message::Cancel(cancel));
    assert_eq!(pool.it.expect_end(pool.client, "unwanted").0, Outcome::Cancelled);
    assert_eq!(pool.it.core.stats().queued, 0);
    pool.end(&home, true);
    assert!(pool.routed().is_empty());
}

#[test]
fn what_waits_for_a_worker_goes_on_when_fewer_than_may_run_do() {
    let workers = (0..3).map(|n| worker_hello(&format!("w{n}"), 1));
    let mut pool = Pool::with(workers, |rules| {
        is_hard(rules);
        rules.max_running = 1;
    });
    let first = pool.send_one("");
    let keys = ["a", "b", "c", "d", "e", "f"];
    keys.iter().for_each(|key| pool.send(key));
    pool.end(&first, true);
    let mut ended = 0;
    while let Some(next) = pool.routed().pop() {
        assert_eq!(pool.it.core.stats().in_flight, 1);
        pool.end(&next, true);
        ended += 1;
    }
    assert_eq!((ended, pool.it.core.stats().queued), (6, 0));
}

#[test]
fn what_waits_for_a_worker_goes_elsewhere_when_its_breaker_opens() {
    let (mut pool, mut next) = with_busy_home();
    let home = next.worker.clone();
    (0..9).for_each(|_| pool.send("k"));
    let (_, connection) = *pool.workers.iter().find(|it| it.0 == home).unwrap();
    let mut panicked = 0;
    while next.worker == home {
        pool.it.give_result(connection, panic_result(next.attempt));
        pool.it.expect_deliver(pool.client, &next.id);
        panicked += 1;
        next = pool.routed().remove(0);
    }
    assert_eq!((panicked, pool.it.core.stats().queued), (5, 4));
    let worker = next.worker.clone();
    for _ in 0..4 {
        pool.end(&next, true);
        next = pool.routed().remove(0);
        assert_eq!(next.worker, worker);
    }
    pool.end(&next, true);
}
