//! Why a task would go where, and why it went there.

use mcp_broker::broker::{
    Arm, ConnectionId, Disconnect, FallbackStep, Policy, Question, RateLimit,
};
use mcp_proto::limits::{MAX_BODY_BYTES, MAX_EXPLANATION_BYTES};
use mcp_proto::{
    ActionName, Decision, ErrorCode, ExplainedWorker, Explanation, Labels, Message, Priority,
    Readiness, Retry, Task, WorkerHello,
};
use serde_json::{Value, json};

use crate::fixture::{Fixture, idempotent, panic_result, report, task, worker_hello};
use crate::operator::Operator;

const EXPLAIN: &str = "mcp.admin.explain";

fn under(policy: Policy) -> Fixture {
    Fixture::with(|config| config.rules.policy = policy)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels(pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

fn labelled(it: &mut Fixture, name: &str, of: &[(&str, &str)]) -> ConnectionId {
    it.worker_of(WorkerHello { labels: labels(of), ..worker_hello(name, 1) }).0
}

fn question(of: &[(&str, &str)]) -> Question {
    let mut question = Question::new(ActionName::try_from("work").unwrap());
    question.labels = labels(of).0;
    question
}

fn ask(it: &mut Fixture) -> Explanation {
    it.core.explain(it.now, &question(&[]))
}

fn worker<'a>(of: &'a Explanation, name: &str) -> &'a ExplainedWorker {
    of.workers.iter().find(|it| it.agent_id.as_str() == name).unwrap()
}

fn ruled_out<'a>(of: &'a Explanation, name: &str) -> Option<&'a str> {
    worker(of, name).ruled_out.as_deref()
}

/// Who is certain to get the next task.
fn expected(it: &mut Fixture) -> String {
    let explanation = ask(it);
    assert_eq!(explanation.decision, Decision::Route);
    assert_eq!(explanation.workers[0].probability, 1.0, "{explanation:?}");
    explanation.workers[0].agent_id.to_string()
}

#[test]
fn whose_turn_it_is_is_who_gets_the_next_task() {
    let mut it = under(Policy::RoundRobin);
    let client = it.client();
    let workers = ["a", "b", "c"].map(|name| (name, it.worker(name, 2)));
    for number in 0..6 {
        let name = expected(&mut it);
        it.send(client, &number.to_string());
        let (_, connection) = workers.iter().find(|(it, _)| *it == name).unwrap();
        it.expect_route(*connection);
    }
    assert_eq!(ask(&mut it).decision, Decision::Wait);
}

#[test]
fn under_each_policy_who_may_get_the_next_task_gets_it_and_about_as_often() {
    for policy in Policy::ALL {
        let mut it = under(*policy);
        let client = it.client();
        let workers = [("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(|(name, weight)| {
            let hello = WorkerHello { weight, ..worker_hello(name, 2) };
            (name, it.worker_of(hello).0)
        });
        let (mut expected, mut got) = ([0.0; 4], [0.0; 4]);
        for number in 0..2_000_u32 {
            let key = ["", "x", "y"][number as usize % 3];
            let told = it.core.explain(it.now, &{
                let mut question = question(&[]);
                question.affinity_key = key.to_owned();
                question
            });
            assert_eq!(told.decision, Decision::Route);
            assert_eq!(
                *told.policy == *policy.name(),
                !key.is_empty() || *policy != Policy::SessionHash
            );
            it.send_task(
                client,
                Task { affinity_key: key.into(), ..task(&number.to_string()) },
                60_000,
            );
            for (index, (name, connection)) in workers.iter().enumerate() {
                let worker = worker(&told, name);
                expected[index] += worker.probability;
                let Some((message, _)) = it.next_for(*connection) else { continue };
                assert!(worker.probability > 0.0 && worker.score.is_some(), "{policy:?}: {told:?}");
                got[index] += 1.0;
                let Message::Route(route) = message else { panic!("{message:?}") };
                // Of different speed.
                it.advance(1 + index as u64);
                it.result(*connection, route.attempt_id);
                it.expect_end(client, &number.to_string());
            }
        }
        for (expected, got) in expected.iter().zip(got) {
            assert!((expected - got).abs() < 120.0, "{policy:?}: {expected:?} {got:?}");
        }
    }
}

#[test]
fn a_limit_is_told_before_it_is_met() {
    let mut it = Fixture::with(|config| {
        config.rules.tenant_rate_limit = RateLimit::new(1.0, 2);
        config.rules.max_running = 1;
    });
    let client = it.client();
    let w = it.worker("w", 4);
    let mut of_tenant = question(&[]);
    of_tenant.tenant = "acme".to_owned();
    for id in ["1", "2"] {
        assert_ne!(it.core.explain(it.now, &of_tenant).decision, Decision::Refuse);
        it.send_task(client, Task { tenant: "acme".into(), ..task(id) }, 60_000);
    }
    let refused = it.core.explain(it.now, &of_tenant);
    let rate_limited = (Decision::Refuse, Some(ErrorCode::RateLimited));
    assert_eq!((refused.decision, refused.error_code), rate_limited);
    let others = ask(&mut it);
    assert_eq!((others.decision, others.queued), (Decision::Wait, 1));
    assert!(others.why.contains("max_running=1"), "{}", others.why);
    assert!(others.why.ends_with("1 tasks wait, 1 of them before it"), "{}", others.why);
    it.expect_route(w);
}

#[test]
fn how_long_it_would_wait_is_told_and_whether_that_is_too_long() {
    let mut it = Fixture::new();
    let client = it.client();
    let w = it.worker("w", 1);
    (0..10).for_each(|number| it.send(client, &number.to_string()));
    for number in 0..8 {
        assert_eq!(ask(&mut it).predicted_wait_ms, None);
        let attempt = it.expect_route(w).attempt_id;
        it.advance(100);
        it.result(w, attempt);
        it.expect_end(client, &number.to_string());
    }
    // One runs, one waits, which goes before one that has longer to live, but not a more urgent one.
    let mut patient = question(&[]);
    patient.ttl_ms = 100_000;
    let waits = it.core.explain(it.now, &patient);
    assert_eq!((waits.decision, waits.predicted_wait_ms), (Decision::Wait, Some(200)));
    patient.priority = Priority::Urgent;
    assert_eq!(it.core.explain(it.now, &patient).predicted_wait_ms, Some(100));
    let mut hasty = question(&[]);
    hasty.ttl_ms = 150;
    let refused = it.core.explain(it.now, &hasty);
    let overloaded = (Decision::Refuse, Some(ErrorCode::Overloaded));
    assert_eq!((refused.decision, refused.error_code), overloaded);
    it.discard();
}

#[test]
fn the_least_loaded_gets_the_next_task_by_chance_among_equals() {
    let mut it = under(Policy::LeastLoaded);
    let client = it.client();
    let workers = [("a", 2), ("b", 4), ("c", 4)].map(|(name, slots)| it.worker(name, slots));
    let explanation = ask(&mut it);
    assert!(explanation.workers.iter().all(|worker| (worker.probability - 0.333).abs() < 0.001));
    assert!(explanation.why.contains("the 3 with the smallest"), "{}", explanation.why);
    for number in 0..3 {
        it.send(client, &number.to_string());
    }
    // One each: a has less left.
    let explanation = ask(&mut it);
    assert_eq!(worker(&explanation, "a").score.as_ref().unwrap().value, 0.5);
    assert_eq!(worker(&explanation, "a").probability, 0.0);
    assert_eq!(worker(&explanation, "b").score.as_ref().unwrap().value, 0.25);
    assert_eq!(worker(&explanation, "b").probability, 0.5);
    it.send(client, "3");
    let likely = expected(&mut it);
    assert!(likely == "b" || likely == "c");
    workers.iter().for_each(|worker| while it.next_for(*worker).is_some() {});
}

#[test]
fn each_worker_that_can_not_have_it_says_why() {
    let mut it = Fixture::new();
    let client = it.client();
    let full = labelled(&mut it, "full", &[("gpu", "a100")]);
    it.send(client, "t");
    it.expect_route(full);
    let draining = labelled(&mut it, "draining", &[("gpu", "a100")]);
    it.give(draining, report(0, &[], Readiness::Draining));
    it.expect_pong(draining);
    let lost = labelled(&mut it, "lost", &[("gpu", "a100"), ("zone", "b")]);
    it.disconnect(lost, Disconnect::Broken);
    labelled(&mut it, "other", &[("gpu", "t4"), ("zone", "b")]);
    labelled(&mut it, "free", &[("gpu", "a100"), ("zone", "b")]);
    let it = it.core.explain(it.now, &question(&[("gpu", "a100")]));
    assert_eq!((it.decision, it.candidates, it.left_out), (Decision::Route, 1, 0));
    assert_eq!(it.workers[0].agent_id.as_str(), "free");
    assert_eq!((it.workers[0].probability, ruled_out(&it, "free")), (1.0, None));
    assert_eq!(ruled_out(&it, "full"), Some("no free slot"));
    assert_eq!(ruled_out(&it, "draining"), Some("draining"));
    assert_eq!(ruled_out(&it, "lost"), Some("lost"));
    assert_eq!(worker(&it, "lost").presence, "lost");
    assert_eq!(ruled_out(&it, "other"), Some("lacks labels"));
    assert_eq!(worker(&it, "other").missing_labels["gpu"], "a100");
    assert_eq!(it.workers[4].agent_id.as_str(), "other", "what lacks labels is last");
    assert!(it.workers[1..].iter().all(|worker| worker.score.is_none()));
}

#[test]
fn what_waits_or_is_refused_says_why() {
    let mut it = Fixture::with(|config| config.max_queue_tasks = 1);
    let client = it.client();
    let nobody = ask(&mut it);
    assert_eq!((nobody.decision, nobody.error_code), (Decision::Wait, Some(ErrorCode::NoWorker)));
    assert!(nobody.why.contains("no worker serves work") && nobody.why.contains("5000 ms"));
    let standby = WorkerHello { readiness: Readiness::Standby, ..worker_hello("w", 1) };
    let (w, _) = it.worker_of(standby);
    assert_eq!(ask(&mut it).error_code, Some(ErrorCode::AllUnhealthy));
    it.give(w, report(0, &[], Readiness::Ready));
    it.expect_pong(w);
    it.send(client, "runs");
    let first = it.expect_route(w).attempt_id;
    let full = ask(&mut it);
    assert_eq!((full.decision, full.queued, full.error_code), (Decision::Wait, 0, None));
    assert_eq!(full.predicted_wait_ms, None);
    it.send(client, "waits");
    let refused = ask(&mut it);
    let queue_full = (Decision::Refuse, 1, Some(ErrorCode::QueueFull));
    assert_eq!((refused.decision, refused.queued, refused.error_code), queue_full);
    it.result(w, first);
    it.expect_end(client, "runs");
    it.expect_route(w);
    it.core.begin_shutdown(it.now, 1_000);
    assert_eq!(ask(&mut it).error_code, Some(ErrorCode::ShuttingDown));
    it.discard();
}

#[test]
fn to_ask_makes_no_queue_and_no_action() {
    let mut it = Fixture::new();
    let (client, operator) = (it.client(), Operator::new(&mut it));
    let w = it.worker("w", 1);
    let body = json!({"action": "work", "labels": {"gpu": "a100"}});
    let answer = operator.answer(&mut it, EXPLAIN, &body);
    assert_eq!(answer["decision"], "wait");
    assert_eq!(answer["workers"][0]["missing_labels"]["gpu"], "a100");
    operator.answer(&mut it, EXPLAIN, &json!({"action": "never"}));
    let answer = operator.answer(&mut it, "mcp.admin.actions.show", &json!({"action": "work"}));
    assert_eq!(answer["queues"].as_array().unwrap().len(), 1);
    let answer = operator.answer(&mut it, "mcp.admin.actions.list", &json!({}));
    assert_eq!(answer["actions"].as_array().unwrap().len(), 1);
    it.send(client, "t");
    it.expect_route(w);
    for wrong in [json!({}), json!({"action": "a b"}), json!({"action": "work", "slots": 1})] {
        operator.refused(&mut it, EXPLAIN, &wrong);
    }
}

#[test]
fn an_answer_is_bounded() {
    let mut it = Fixture::new();
    let operator = Operator::new(&mut it);
    let name = |number: usize| format!("{number:0100}");
    for number in 0..300 {
        it.worker(&name(number), 1);
    }
    let body = json!({"action": "work"});
    let (_, bytes) = operator.ask(&mut it, EXPLAIN, &body);
    assert!(bytes.len() <= MAX_BODY_BYTES && bytes.len() > MAX_BODY_BYTES / 2, "{}", bytes.len());
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    let listed = answer["workers"].as_array().unwrap().len() as u64;
    assert_eq!(listed + answer["left_out"].as_u64().unwrap(), 300);
    assert_eq!(ask(&mut it).workers.len(), 256);
}

fn explained(task: Task) -> Task {
    Task { explain: true, ..task }
}

/// The explanation of each attempt.
fn trace(it: &mut Fixture, client: ConnectionId, id: &str) -> Vec<Option<Explanation>> {
    let deliver = it.expect_deliver(client, id);
    let hops = deliver.trace.into_decoded().hops.into_iter();
    hops.map(|hop| hop.explanation.map(|it| *it)).collect()
}

#[test]
fn a_task_that_asks_has_the_reason_in_its_trace() {
    let mut it = under(Policy::RoundRobin);
    let client = it.client();
    let [a, b] = ["a", "b"].map(|name| it.worker(name, 1));
    let before = ask(&mut it);
    it.send_task(client, explained(task("t")), 60_000);
    let attempt = it.expect_route(a).attempt_id;
    it.result(a, attempt);
    let told = trace(&mut it, client, "t").remove(0).unwrap();
    assert_eq!(told, before);
    it.send(client, "u");
    let attempt = it.expect_route(b).attempt_id;
    it.result(b, attempt);
    assert_eq!(trace(&mut it, client, "u"), [None], "only a task that asks");
}

#[test]
fn each_attempt_has_its_own_reason_and_the_last_worker_is_passed_over() {
    let mut it = under(Policy::RoundRobin);
    let client = it.client();
    let [a, b] = ["a", "b"].map(|name| it.worker(name, 1));
    let retry = Some(Retry { initial_ms: 10, ..Retry::default() });
    it.send_task(client, explained(Task { retry, ..idempotent("t") }), 60_000);
    let attempt = it.expect_route(a).attempt_id;
    it.fail(a, attempt);
    it.advance(10);
    let attempt = it.expect_route(b).attempt_id;
    it.put_off(b, attempt, 20);
    let attempt = it.expect_route(a).attempt_id;
    it.result(a, attempt);
    let told: Vec<_> = trace(&mut it, client, "t").into_iter().map(Option::unwrap).collect();
    assert_eq!(
        told.iter().map(|it| it.workers[0].agent_id.as_str()).collect::<Vec<_>>(),
        ["a", "b", "a"]
    );
    assert_eq!(ruled_out(&told[1], "a"), Some("asked before"));
    assert_eq!(ruled_out(&told[2], "b"), Some("asked before"));
}

#[test]
fn a_task_that_waited_went_to_who_had_room() {
    let mut it = Fixture::new();
    let client = it.client();
    let w = it.worker("w", 1);
    it.send(client, "runs");
    let first = it.expect_route(w).attempt_id;
    it.send_task(client, explained(task("t")), 60_000);
    it.send(client, "behind");
    it.result(w, first);
    it.expect_end(client, "runs");
    let second = it.expect_route(w).attempt_id;
    it.result(w, second);
    let told = trace(&mut it, client, "t").remove(0).unwrap();
    assert_eq!((told.queued, told.workers[0].probability), (2, 1.0));
    assert!(told.why.contains("of 2 tasks that waited"), "{}", told.why);
    it.expect_route(w);
}

#[test]
fn reasons_are_bounded_and_the_newest_stay() {
    let mut it = Fixture::new();
    let client = it.client();
    let name = |number: usize| format!("w{number:0100}");
    let workers: Vec<_> = (0..40).map(|number| it.worker(&name(number), 1)).collect();
    it.send_task(client, explained(task("t")), 60_000);
    let mut is_done = false;
    while !is_done {
        for worker in &workers {
            if let Some((Message::Route(route), _)) = it.next_for(*worker) {
                is_done = route.attempt == 6;
                match is_done {
                    true => it.result(*worker, route.attempt_id),
                    false => it.nack(*worker, route.attempt_id),
                }
            }
        }
    }
    let told = trace(&mut it, client, "t");
    assert_eq!(told.len(), 6);
    assert!(told[0].is_none() && told[5].is_some());
    for told in told.into_iter().flatten() {
        assert!(told.json_bytes() <= MAX_EXPLANATION_BYTES);
        assert_eq!(told.workers.len() as u32 + told.left_out, 40);
    }
}

#[test]
fn a_worker_that_is_not_well_is_ruled_out_for_as_long_as_it_is() {
    let mut it = Fixture::with(|config| config.rules.breaker.open_ms = 1_000);
    let client = it.client();
    let bad = it.worker("bad", 1);
    for number in 0..5 {
        it.send(client, &number.to_string());
        let attempt = it.expect_route(bad).attempt_id;
        it.give_result(bad, panic_result(attempt));
        it.expect_end(client, &number.to_string());
    }
    let nobody = ask(&mut it);
    assert_eq!(
        (nobody.decision, nobody.error_code),
        (Decision::Wait, Some(ErrorCode::AllUnhealthy))
    );
    assert_eq!(ruled_out(&nobody, "bad"), Some("breaker open for 1000 ms"));
    assert_eq!(worker(&nobody, "bad").health, "breaker open");
    it.worker("good", 1);
    assert_eq!(expected(&mut it), "good");
    it.advance(1_000);
    assert_eq!(worker(&ask(&mut it), "bad").health, "half-open");
    assert_eq!(ruled_out(&ask(&mut it), "bad"), None);
    it.discard();
}

#[test]
fn of_a_split_each_arm_has_its_share() {
    let arm = |name: &str, weight| Arm {
        name: name.to_owned(),
        labels: labels(&[("model", name)]),
        weight,
    };
    let mut it = Fixture::with(|config| config.rules.split = vec![arm("old", 3), arm("new", 1)]);
    for (name, model) in [("a", "old"), ("b", "old"), ("c", "new"), ("none", "other")] {
        labelled(&mut it, name, &[("model", model)]);
    }
    let told = ask(&mut it);
    let odds = |name| worker(&told, name).probability;
    assert_eq!([odds("a"), odds("b"), odds("c"), odds("none")], [0.375, 0.375, 0.25, 0.0]);
    assert!(told.why.starts_with("by its split 75 % old, 25 % new; in old: "), "{}", told.why);
    // A key has one arm.
    let mut of_key = question(&[]);
    of_key.affinity_key = "session-1".to_owned();
    let told = it.core.explain(it.now, &of_key);
    assert!(told.why.starts_with("arm "), "{}", told.why);
    // Whoever says which workers it wants takes no part.
    let chosen = it.core.explain(it.now, &question(&[("model", "other")]));
    assert_eq!(worker(&chosen, "none").probability, 1.0);
}

#[test]
fn a_shadow_task_is_explained_with_the_shadow_workers() {
    let mut it = Fixture::new();
    it.worker("live", 1);
    labelled(&mut it, "shadow", &[("shadow", "true")]);
    assert_eq!(expected(&mut it), "live");
    let mut of_shadow = question(&[]);
    of_shadow.shadow = true;
    let told = it.core.explain(it.now, &of_shadow);
    assert_eq!((told.workers.len(), worker(&told, "shadow").probability), (1, 1.0));
}

#[test]
fn what_gets_no_worker_tells_its_fallback_chain() {
    let mut it = Fixture::with(|config| {
        config.rules.fallback = vec![
            FallbackStep::Action(ActionName::try_from("light").unwrap()),
            FallbackStep::Default { body: "later".to_owned(), content_type: String::new() },
        ];
    });
    let operator = Operator::new(&mut it);
    assert_eq!(ask(&mut it).fallback, ["action:light", "default"]);
    let w = it.worker("w", 1);
    assert!(ask(&mut it).fallback.is_empty());
    let client = it.client();
    it.send(client, "t");
    it.expect_route(w);
    assert!(ask(&mut it).fallback.is_empty(), "one that waits for a busy worker waits");
    let degrade = json!({"action": "work", "why": "wrong answers"});
    operator.answer(&mut it, "mcp.admin.actions.degrade", &degrade);
    let degraded = ask(&mut it);
    assert_eq!(
        (degraded.decision, degraded.error_code),
        (Decision::Refuse, Some(ErrorCode::Degraded))
    );
    assert_eq!(degraded.fallback, ["action:light", "default"]);
    assert_eq!(worker(&degraded, "w").probability, 0.0);
    let listed = operator.answer(&mut it, "mcp.admin.actions.list", &json!({}));
    assert_eq!(listed["actions"][0]["degraded"]["why"], "wrong answers");
}
