//! What goes first when the broker runs full.

use mcp_broker::broker::{ActionRules, Core, CoreConfig, Event, FallbackStep};
use mcp_proto::{ErrorCode, InputLength, Message, Outcome, Send, Task};

use super::{default, deliver, name, routed, rules, small, step, with_rules, worker_of};
use crate::fixture::{Fixture, task};

/// A broker that takes ten tasks, of which `extra` is not core.
fn of_ten(extra: &[FallbackStep]) -> Fixture {
    let mut rules = rules(extra);
    rules.core = false;
    Fixture::with(|config| {
        config.max_tasks = 10;
        with_rules(config, "extra", rules);
    })
}

fn is_shedding(core: &Core) -> u64 {
    core.stats().shed
}

#[test]
fn what_is_not_core_is_shed_first_until_there_is_room_again() {
    let mut it = of_ten(&[]);
    let client = it.client();
    let worker = it.worker("w", 10);
    worker_of(&mut it, "e", "extra", 10);
    let extra = |id: &str| Task { action: name("extra"), ..task(id) };
    let mut attempts = Vec::new();
    for n in 0..7 {
        it.send(client, &format!("t-{n}"));
        attempts.push(it.expect_route(worker).attempt_id);
    }
    it.send_task(client, extra("e-1"), 60_000);
    assert_eq!((it.core.stats().running, is_shedding(&it.core)), (8, 0));
    it.send_task(client, extra("e-2"), 60_000);
    let (end, _) = deliver(&mut it, client);
    let error = end.error.unwrap();
    assert_eq!((end.outcome, error.code), (Outcome::Rejected, ErrorCode::Overloaded));
    assert_eq!(error.retry_after_ms, Some(1_000));
    assert!(error.message.contains("extra is not a core action"), "{error}");
    // Core actions have the rest.
    it.send(client, "t-7");
    attempts.push(it.expect_route(worker).attempt_id);
    // Down to seven is not enough, below six is.
    for (attempt, is_taken) in attempts.into_iter().zip([false, false, false, true]) {
        it.result(worker, attempt);
        step(&mut it, client);
        let id = format!("e-{attempt}");
        it.send_task(client, extra(&id), 60_000);
        let before = it.core.stats().running;
        assert_eq!(it.next_for(client).is_none(), is_taken, "{before}");
    }
    assert_eq!(is_shedding(&it.core), 4);
    let shed = |it: &&Event| matches!(it, Event::SheddingBegan { .. } | Event::SheddingEnded);
    let events: Vec<_> = it.events.iter().filter(shed).cloned().collect();
    assert_eq!(events, [Event::SheddingBegan { of: "tasks", percent: 80 }, Event::SheddingEnded]);
    it.discard();
}

#[test]
fn what_is_shed_takes_its_chain() {
    let mut it = of_ten(&[small(), default("output")]);
    let client = it.client();
    let worker = it.worker("w", 10);
    let other = worker_of(&mut it, "s", "small", 1);
    worker_of(&mut it, "e", "extra", 10);
    (0..8).for_each(|n| it.send(client, &format!("t-{n}")));
    let extra = |id: &str| Task { action: name("extra"), ..task(id) };
    it.send_task(client, extra("e-1"), 60_000);
    assert_eq!(routed(&it.expect_route(other)).action, name("small"));
    // When nothing is left for anybody, there still is an answer.
    it.send(client, "t-8");
    it.send_task(client, extra("e-2"), 60_000);
    assert_eq!(step(&mut it, client), "default");
    (0..9).for_each(|_| drop(it.expect_route(worker)));
    it.discard();
}

#[test]
fn bytes_that_wait_and_room_for_inputs_count_as_well() {
    let full = |change: fn(&mut CoreConfig)| {
        Fixture::with(|config| {
            let mut rules = ActionRules::default();
            rules.core = false;
            with_rules(config, "extra", rules);
            change(config);
        })
    };
    let mut by_bytes = full(|config| config.max_waiting_bytes = 50);
    let mut by_inputs = full(|config| config.max_upload_bytes = 80_000);
    let follows = Some(InputLength::Unknown);
    for (it, input_follows) in [(&mut by_bytes, None), (&mut by_inputs, follows)] {
        let client = it.client();
        for n in 0..3 {
            let send = Send { input_follows, ..Send::new(task(&format!("t-{n}")).encode(), 1_000) };
            it.give_body(client, Message::Send(send), "input");
        }
        it.discard();
        it.send_task(client, Task { action: name("extra"), ..task("e") }, 1_000);
        let (end, _) = deliver(it, client);
        let error = end.error.unwrap();
        assert!(error.message.contains("not a core action"), "{error}");
        it.discard();
    }
}
