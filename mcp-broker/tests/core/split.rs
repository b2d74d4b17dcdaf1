//! An action's tasks divided among arms: shares, sessions that stay, and nothing refused.

use mcp_broker::broker::{
    ActionRules, Affinity, Arm, ArmMetrics, ConnectionId, Disconnect, MirrorRule, Policy,
};
use mcp_proto::{
    ErrorCode, ErrorInfo, Labels, Message, Outcome, Readiness, Route, Task, TaskResult, WorkerHello,
};

use crate::fixture::{Fixture, failed_result, idempotent, report, task, worker_hello};
use crate::shadow::{labels, shadow_hello};

fn arm(name: &str, weight: u32) -> Arm {
    Arm { name: name.into(), labels: labels("model", name), weight }
}

fn rules(arms: &[(&str, u32)]) -> ActionRules {
    let mut rules = ActionRules::default();
    rules.split = arms.iter().map(|(name, weight)| arm(name, *weight)).collect();
    rules
}

fn splitting(arms: &[(&str, u32)]) -> Fixture {
    Fixture::with(|config| config.rules = rules(arms))
}

fn worker_of_arm(it: &mut Fixture, arm: &str, slots: u32) -> ConnectionId {
    it.worker_of(WorkerHello { labels: labels("model", arm), ..worker_hello(arm, slots) }).0
}

fn arms(it: &Fixture) -> Vec<ArmMetrics> {
    let metrics = it.core.metrics(it.now);
    let action = metrics.actions.into_iter().find(|action| action.action == "work");
    action.unwrap().arms
}

/// Tasks that ended ok, and tasks that went elsewhere.
fn of_arm(it: &Fixture, name: &str) -> (u64, u64) {
    let arms = arms(it);
    let Some(arm) = arms.iter().find(|arm| arm.name == name) else { return (0, 0) };
    let ok = arm.counts.ended().find(|(outcome, _)| *outcome == Outcome::Ok);
    (ok.map_or(0, |(_, count)| count), arm.moved)
}

/// Lets a worker do what it has.
fn work(it: &mut Fixture, worker: ConnectionId) -> usize {
    let mut done = 0;
    while let Some((message, _)) = it.next_for(worker) {
        if let Message::Route(Route { attempt_id, .. }) = message {
            it.result(worker, attempt_id);
            done += 1;
        }
    }
    done
}

fn with_key(id: &str, key: &str) -> Task {
    Task { affinity_key: key.to_owned().into(), ..task(id) }
}

#[test]
fn each_arm_gets_its_share() {
    let mut it = splitting(&[("a", 90), ("b", 10), ("c", 0)]);
    let client = it.client();
    let workers = ["a", "b", "c"].map(|name| worker_of_arm(&mut it, name, 1));
    for n in 0..2_000 {
        it.send(client, &format!("t{n}"));
        for worker in workers {
            work(&mut it, worker);
        }
    }
    it.discard();
    let counts = ["a", "b", "c"].map(|name| of_arm(&it, name).0);
    assert_eq!((counts.iter().sum::<u64>(), counts[2]), (2_000, 0));
    assert!((150..250).contains(&counts[1]), "{counts:?}");
    let arms = arms(&it);
    let b = arms.iter().find(|arm| arm.name == "b").unwrap();
    assert_eq!((b.counts.total.count(), b.counts.worked.count()), (counts[1], counts[1]));
}

#[test]
fn a_session_stays_in_its_arm() {
    let mut it = splitting(&[("a", 1), ("b", 1)]);
    let client = it.client();
    let workers = ["a", "b"].map(|name| worker_of_arm(&mut it, name, 1));
    let mut arms_of_keys = Vec::new();
    for round in 0..3 {
        let mut chosen = Vec::new();
        for key in 0..100 {
            it.send_task(client, with_key(&format!("t{round}-{key}"), &key.to_string()), 1_000);
            chosen.push(workers.map(|worker| work(&mut it, worker)));
        }
        arms_of_keys.push(chosen);
    }
    it.discard();
    assert_eq!(arms_of_keys[0], arms_of_keys[1]);
    assert_eq!(arms_of_keys[0], arms_of_keys[2]);
    let of_a = arms_of_keys[0].iter().filter(|chosen| chosen[0] == 1).count();
    assert!((30..70).contains(&of_a), "{of_a}");
}

#[test]
fn an_arm_without_a_ready_worker_gets_nothing() {
    let mut it = splitting(&[("a", 1), ("b", 99)]);
    let client = it.client();
    let a = worker_of_arm(&mut it, "a", 1);
    let b = worker_of_arm(&mut it, "b", 1);
    it.give(b, report(0, &[], Readiness::Draining));
    for n in 0..100 {
        it.send(client, &format!("t{n}"));
        work(&mut it, a);
    }
    it.discard();
    let (a, b) = (of_arm(&it, "a"), of_arm(&it, "b"));
    assert_eq!((a.0, b.0), (100, 0));
    assert!(b.1 > 90, "{b:?}");
}

#[test]
fn an_arm_whose_workers_are_all_unwell_gets_nothing() {
    let mut it = splitting(&[("a", 0), ("b", 1)]);
    let client = it.client();
    let (a, b) = (worker_of_arm(&mut it, "a", 1), worker_of_arm(&mut it, "b", 1));
    for n in 0..5 {
        it.send(client, &format!("t{n}"));
        let attempt = it.expect_route(b).attempt_id;
        if n == 4 {
            it.send(client, "waits");
        }
        let error = Some(Box::new(ErrorInfo::new(ErrorCode::HandlerPanic, "oh")));
        it.give(b, Message::Result(TaskResult { error, ..failed_result(attempt) }));
    }
    assert_eq!(work(&mut it, a), 1);
    it.send(client, "new");
    assert_eq!(work(&mut it, a), 1);
    it.discard();
    assert_eq!(of_arm(&it, "b").1, 2);
}

#[test]
fn what_waits_for_the_worker_of_its_key_goes_elsewhere_with_its_arm() {
    let mut rules = rules(&[("a", 0), ("b", 1)]);
    rules.policy = Policy::SessionHash;
    rules.affinity = Affinity::Hard;
    let mut it = Fixture::with(|config| config.rules = rules);
    let client = it.client();
    let (a, b) = (worker_of_arm(&mut it, "a", 1), worker_of_arm(&mut it, "b", 1));
    it.send_task(client, with_key("runs", "k"), 60_000);
    it.send_task(client, with_key("waits", "k"), 60_000);
    it.expect_route(b);
    it.expect_nothing();
    it.disconnect(b, Disconnect::Orderly);
    assert_eq!(work(&mut it, a), 1);
    it.discard();
}

#[test]
fn without_any_arms_worker_a_task_goes_to_any_that_serves_it() {
    let mut it = splitting(&[("a", 1)]);
    let client = it.client();
    let any = it.worker("any", 1);
    it.send(client, "t");
    assert_eq!(work(&mut it, any), 1);
    it.expect_end(client, "t");
    assert_eq!(of_arm(&it, "a"), (0, 1));
}

#[test]
fn who_chooses_for_himself_takes_no_part() {
    let mut it = splitting(&[("a", 1), ("b", 1)]);
    let client = it.client();
    let a = worker_of_arm(&mut it, "a", 1);
    let (c, _) = it.worker_of(WorkerHello { labels: labels("model", "c"), ..worker_hello("c", 1) });
    for (n, (worker, model)) in [(a, "a"), (c, "c")].into_iter().enumerate() {
        let id = format!("t{n}");
        let required_labels = labels("model", model);
        it.send_task(client, Task { required_labels, ..task(&id) }, 60_000);
        assert_eq!(work(&mut it, worker), 1);
        it.expect_end(client, &id);
    }
    // Nor do shadow tasks.
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    it.send_task(client, Task { shadow: true, ..task("s") }, 60_000);
    assert_eq!(work(&mut it, twin), 1);
    it.expect_end(client, "s");
    assert!(arms(&it).is_empty());
}

#[test]
fn the_labels_that_a_task_requires_hold_in_each_arm() {
    let mut it = splitting(&[("a", 1), ("b", 99)]);
    let client = it.client();
    worker_of_arm(&mut it, "b", 1);
    let both: Labels = [labels("model", "a"), labels("gpu", "a100")].into_iter().fold(
        Labels::default(),
        |mut all, more| {
            all.0.extend(more.0);
            all
        },
    );
    let (gpu, _) = it.worker_of(WorkerHello { labels: both, ..worker_hello("gpu", 1) });
    for n in 0..20 {
        let id = format!("t{n}");
        let required_labels = labels("gpu", "a100");
        it.send_task(client, Task { required_labels, ..task(&id) }, 60_000);
        assert_eq!(work(&mut it, gpu), 1);
        it.expect_end(client, &id);
    }
    assert_eq!(of_arm(&it, "a").0, 20);
}

#[test]
fn what_waits_for_an_arm_is_served_by_others_when_its_last_worker_goes() {
    for how in [Disconnect::Orderly, Disconnect::Broken] {
        let mut it = splitting(&[("a", 0), ("b", 1)]);
        let client = it.client();
        let (a, b) = (worker_of_arm(&mut it, "a", 1), worker_of_arm(&mut it, "b", 1));
        it.send_task(client, idempotent("runs"), 60_000);
        it.send(client, "once");
        it.send(client, "waits");
        it.expect_route(b);
        it.expect_nothing();
        it.disconnect(b, how);
        assert_eq!(work(&mut it, a), 3, "{how:?}");
        it.discard();
        assert_eq!(of_arm(&it, "b"), (0, 3), "{how:?}");
        // Back, it gets what is new.
        let b = worker_of_arm(&mut it, "b", 1);
        it.send(client, "new");
        assert_eq!(work(&mut it, b), 1);
        it.expect_end(client, "new");
        assert_eq!(of_arm(&it, "b"), (1, 3), "{how:?}");
    }
}

#[test]
fn what_an_arms_workers_lost_counts_as_its_failure() {
    let mut it = splitting(&[("a", 0), ("b", 1)]);
    let client = it.client();
    worker_of_arm(&mut it, "a", 1);
    let b = worker_of_arm(&mut it, "b", 1);
    it.send(client, "runs");
    it.send(client, "waits");
    it.expect_route(b);
    it.disconnect(b, Disconnect::Orderly);
    assert_eq!(it.expect_end(client, "runs").0, Outcome::Failed);
    it.discard();
    let arms = arms(&it);
    let b = arms.iter().find(|arm| arm.name == "b").unwrap();
    assert!(b.counts.ended().any(|it| it == (Outcome::Failed, 1)), "{b:?}");
}

#[test]
fn a_split_changes_while_tasks_run() {
    let mut it = splitting(&[("a", 1)]);
    let client = it.client();
    let (a, b) = (worker_of_arm(&mut it, "a", 1), worker_of_arm(&mut it, "b", 1));
    it.send(client, "before");
    it.core.set_rules(it.now, "work".try_into().unwrap(), rules(&[("b", 1)]));
    it.send(client, "after");
    assert_eq!((work(&mut it, a), work(&mut it, b)), (1, 1));
    it.discard();
    assert_eq!((of_arm(&it, "a"), of_arm(&it, "b")), ((1, 0), (1, 0)));
    it.core.set_rules(it.now, "work".try_into().unwrap(), ActionRules::default());
    it.send(client, "without");
    assert_eq!(work(&mut it, a) + work(&mut it, b), 1);
    it.discard();
    assert_eq!(of_arm(&it, "a").0 + of_arm(&it, "b").0, 2);
}

/// Whoever changes the split over and over keeps no more arms than one split has.
#[test]
fn the_arms_of_before_are_forgotten() {
    let mut it = Fixture::new();
    let client = it.client();
    let any = it.worker("any", 1);
    for n in 0..50 {
        let name = format!("arm-{n}");
        it.core.set_rules(it.now, "work".try_into().unwrap(), rules(&[(&name, 1)]));
        it.send(client, &name);
        assert_eq!(work(&mut it, any), 1);
        it.expect_end(client, &name);
    }
    assert!(arms(&it).len() <= 8);
    assert_eq!(of_arm(&it, "arm-49"), (0, 1));
}

#[test]
fn a_split_is_checked() {
    let check = |split: Vec<Arm>| {
        let mut rules = ActionRules::default();
        rules.split = split;
        rules.check().map_err(|(_, problem)| problem)
    };
    assert_eq!(check(vec![arm("a", 1), arm("b", 0)]), Ok(()));
    let unlabelled = Arm { labels: Labels::default(), ..arm("a", 1) };
    let shadow = Arm { labels: labels("shadow", "true"), ..arm("a", 1) };
    for (split, expected) in [
        ((0..9).map(|n| arm(&n.to_string(), 1)).collect(), "has 9 arms"),
        (vec![arm("a", 1), arm("a", 1)], "two arms named a"),
        (vec![arm("a", 0)], "no arm with a weight"),
        (vec![arm("a b", 1)], "is not 1 to 64"),
        (vec![arm("a", 1_000_001)], "at most 1000000"),
        (vec![unlabelled], "no labels"),
        (vec![shadow], "label shadow"),
    ] {
        let problem = check(split).unwrap_err();
        assert!(problem.contains(expected), "{expected} is not in {problem}");
    }
}

#[test]
fn an_operator_sees_the_experiments_of_an_action() {
    let mut rules = rules(&[("a", 1), ("b", 0)]);
    rules.mirror = Some(MirrorRule { percent: 100.0, max_running: 64 });
    let mut it = Fixture::with(|config| config.rules = rules);
    let (client, a) = (it.client(), worker_of_arm(&mut it, "a", 1));
    let (twin, _) = it.worker_of(shadow_hello("twin", 1));
    it.send(client, "t");
    it.advance(3);
    assert_eq!((work(&mut it, a), work(&mut it, twin)), (1, 1));
    it.expect_end(client, "t");
    let seen = it.core.experiments("work");
    assert_eq!((seen.shadow_workers, seen.shadow_workers_ready), (1, 1));
    let mirror = seen.mirror.unwrap();
    assert_eq!((mirror.mirrored, mirror.equal, mirror.live.p50_ms), (1, 1, Some(3.2)));
    let arms: Vec<_> = seen.split.iter().map(|arm| (arm.name.as_str(), arm.ended["ok"])).collect();
    assert_eq!(arms, [("a", 1), ("b", 0)]);
    assert_eq!((seen.split[0].total.count, seen.split[0].total.mean_ms), (1, 3.0));
}
